"""What a GRPO run will take, from the model's ``config.json``, the data and the settings alone.

Bytes on each of N devices. P: parameters, T: those that are trained, D: bytes of the type that the
model is loaded in. With ZeRO-3 and FSDP2 weights, gradients, optimiser and reference are each
divided by N, with ZeRO-2 gradients and optimiser alone; nothing is without sharding.

=============  =====================  ==========================  ===============================
               no sharding            ZeRO-2 and ZeRO-3 (bf16)    FSDP2 (bf16)
=============  =====================  ==========================  ===============================
weights        P D                    2 P                         D (P - T) + 4 T
gradients      T D                    2 T                         4 T
AdamW          2 T D                  12 T (with float32 copies)  8 T
reference      P D                    2 P                         P D
=============  =====================  ==========================  ===============================

* No reference where beta is 0, or with LoRA (it is the model without the adapter, whose own
  weights count as float32).
* Activations of a batch of B sequences of S tokens, hidden size h, L layers, in numbers of b bytes:
  17 B S h b a layer, as Korthikanti et al. (2022, "Reducing Activation Recomputation in Large
  Transformer Models") count them without the attention matrix (34 B S h in two bytes); with
  gradient checkpointing B S h b a layer for its input, and one layer in full. TRL computes
  log-probabilities in chunks: logits do not count.
* Key-value cache while transformers generates: 2 L k d b a token, of k key-value heads of size d,
  for all rollouts that a device generates together. With vLLM there is none here.
* While transformers generates with ZeRO-3, TRL gathers all weights on every device: 2 P on top of
  its part, unless ds3_gather_for_generation is false.
* With FSDP2, TRL shards the reference as one unit, so that its pass gathers all of it: P D.

Generation, the pass of the reference and training take turns: the largest of the three counts.

Not counted: the vision tower's activations, buffers of communication, gathered layers, the CUDA
context, fragmentation, and vLLM's own share: leave a fifth of the memory free.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from univg_eval.dialects import smart_resize_wh
from univg_eval.errors import UserError
from univg_eval.models.pretrained import empty_model
from univg_train.grpo.batches import count_steps, rollout_batch
from univg_train.grpo.settings import GrpoSettings
from univg_train.runs.pretrained import vision_tower
from univg_train.runs.training import CheckedRun, adapter_config

__all__ = ["Estimate", "Memory", "estimate_run"]

ROWS_MEASURED = 1000
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one device; see the module."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    activations: int
    cache: int = 0
    gathered: int = 0
    whole_reference: int = 0

    @property
    def total(self) -> int:
        """What is always there, and the largest of training, generation and reference."""
        fixed = self.weights + self.gradients + self.optimizer + self.reference
        return fixed + max(self.activations, self.cache + self.gathered, self.whole_reference)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        parameters, trained: of the model, with its adapter.
        rows: to train on.
        prompt_tokens: of the longest prompt among the first thousand rows, as TRL writes it:
            image tokens by the resize rule, text by the tokenizer.
        steps_per_epoch, steps: optimiser steps.
        rollouts: completions in the whole run.
        memory: on one device.
    """

    parameters: int
    trained: int
    rows: int
    prompt_tokens: int
    steps_per_epoch: int
    steps: int
    rollouts: int
    memory: Memory

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        values = asdict(self)
        values["memory"]["total"] = self.memory.total
        return values


def estimate_run(
    settings: GrpoSettings, checked: CheckedRun, *, processes: int, sharding: str
) -> Estimate:
    """Estimate a run; `sharding` is one of `univg_train.runs.sharding.SHARDINGS`.

    Raises:
        UserError: there are too few rows, or the model's image tokens are not known.
    """
    parameters, trained = _count_parameters(settings, checked.config)
    tokens = _prompt_tokens(checked)
    rows, together = len(checked.data), rollout_batch(settings, processes)
    count = count_steps(settings, rows, processes)
    state = _state(settings, checked.config, parameters, trained, sharding)
    whole = {"none": tuple(state), "zero2": ("weights", "reference")}.get(sharding, ())
    memory = Memory(
        **{name: size if name in whole else size // processes for name, size in state.items()},
        **_passing(settings, checked.config, tokens, -(-together // processes)),
        gathered=2 * parameters if _gathers(settings, sharding) else 0,
        whole_reference=state["reference"] if sharding == "fsdp2" else 0,
    )
    return Estimate(
        parameters=parameters,
        trained=trained,
        rows=rows,
        prompt_tokens=tokens,
        steps_per_epoch=count.per_epoch,
        steps=count.steps,
        rollouts=count.batches * together,
        memory=memory,
    )


def _count_parameters(settings: GrpoSettings, config: Any) -> tuple[int, int]:
    import torch

    model = empty_model(config)
    if (lora := adapter_config(settings, model)) is not None:
        from peft import get_peft_model

        with torch.device("meta"):
            model = get_peft_model(model, lora)
    elif settings.freeze_vision:
        vision_tower(model)[0].requires_grad_(False)
    counted = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in counted), sum(n for n, is_trained in counted if is_trained)


def _prompt_tokens(checked: CheckedRun) -> int:
    processor, config = checked.processor, checked.config
    images = processor.image_processor
    patch, merge = getattr(images, "patch_size", None), getattr(images, "merge_size", None)
    if not isinstance(patch, int) or not isinstance(merge, int):
        raise UserError(
            f"the number of image tokens of a {config.model_type!r} is not known here, so its "
            "memory cannot be estimated; the estimate knows the Qwen-VL families"
        )
    factor = patch * merge
    low, high = images.size["shortest_edge"], images.size["longest_edge"]
    longest = 0
    for position in range(min(len(checked.data), ROWS_MEASURED)):
        row = checked.data.columns(position)
        text = processor.apply_chat_template(row["prompt"], add_generation_prompt=True)
        tokens = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
        for width, height in row["image_sizes"]:
            w, h = smart_resize_wh((width, height), factor=factor, min_pixels=low, max_pixels=high)
            tokens += w * h // factor**2 - 1  # in place of the template's one
        longest = max(longest, tokens)
    return longest


def _state(
    settings: GrpoSettings, config: Any, parameters: int, trained: int, sharding: str
) -> dict[str, int]:
    """What is there all the time, on all devices together: the table at the head."""
    size = _loaded_bytes(settings, config)
    if settings.lora is not None:
        weights = (parameters - trained) * size + trained * 4
        gradients, optimizer = 4 * trained, 8 * trained
    elif sharding in ("zero2", "zero3"):
        weights, gradients, optimizer = 2 * parameters, 2 * trained, 12 * trained
    elif sharding == "fsdp2":
        weights = size * (parameters - trained) + 4 * trained
        gradients, optimizer = 4 * trained, 8 * trained
    else:
        weights, gradients, optimizer = parameters * size, trained * size, 2 * trained * size
    reference = 0
    if settings.argument("beta") and settings.lora is None:
        reference = parameters * (2 if sharding in ("zero2", "zero3") else size)
    return {
        "weights": weights, "gradients": gradients, "optimizer": optimizer, "reference": reference,
    }  # fmt: skip


def _passing(
    settings: GrpoSettings, config: Any, prompt_tokens: int, generated_together: int
) -> dict[str, int]:
    """Activations of training and the cache of generation, on each device."""
    half = settings.argument("fp16") or settings.argument("bf16") is not False
    number = 2 if half else _loaded_bytes(settings, config)
    text = config.get_text_config()
    batch = settings.argument("per_device_train_batch_size")
    length = prompt_tokens + settings.argument("max_completion_length")
    inputs = number * batch * length * text.hidden_size  # of one layer
    layers = text.num_hidden_layers
    checkpointing = settings.argument("activation_checkpointing")
    if checkpointing is None:
        checkpointing = settings.argument("gradient_checkpointing")
    activations = inputs * (layers + 17 if checkpointing else 17 * layers)
    if settings.argument("use_vllm"):
        return {"activations": activations}
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    a_token = 2 * layers * text.num_key_value_heads * head * number
    return {"activations": activations, "cache": a_token * length * generated_together}


def _loaded_bytes(settings: GrpoSettings, config: Any) -> int:
    name = settings.model_options.get("dtype", "float32")
    name = config.dtype or "float32" if name == "auto" else name
    return _BYTES[str(name).removeprefix("torch.")]


def _gathers(settings: GrpoSettings, sharding: str) -> bool:
    """Whether all weights are on every device while transformers generates."""
    gathers = settings.argument("ds3_gather_for_generation")
    return bool(sharding == "zero3" and gathers and not settings.argument("use_vllm"))
