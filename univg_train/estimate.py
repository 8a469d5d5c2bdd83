"""What a GRPO run will take, from the model's ``config.json``, the data and the settings alone.

Bytes on each of N devices. P: parameters, T: those that are trained, D: bytes of the type that the
model is loaded in. With ZeRO-3 and FSDP2 weights, gradients, optimiser and reference are each
divided by N; nothing is without sharding.

=============  =====================  ==========================  ===============================
               no sharding            ZeRO-3 (bf16)               FSDP2 (bf16)
=============  =====================  ==========================  ===============================
weights        P D                    2 P                         D (P - T) + 4 T
gradients      T D                    2 T                         4 T
AdamW          2 T D                  12 T (with float32 copies)  8 T
reference      P D                    2 P                         P D
=============  =====================  ==========================  ===============================

* No reference where beta is 0, or with LoRA (it is the model without the adapter, whose own
  weights count as float32).
* Activations of a batch of B sequences of S tokens, hidden size h, L layers: 34 B S h a layer, as
  Korthikanti et al. (2022, "Reducing Activation Recomputation in Large Transformer Models") count
  them in two bytes without the attention matrix; with gradient checkpointing 2 B S h a layer for
  its input, and one layer in full. TRL computes log-probabilities in chunks: logits do not count.
* Key-value cache while transformers generates: 2 L k d 2 bytes a token, of k key-value heads of
  size d, for all rollouts that a device generates together. With vLLM there is none here.

Not counted: the vision tower's activations, buffers of communication, gathered layers, the CUDA
context, and fragmentation: leave a fifth of the memory free.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from univg_eval.dialects import smart_resize_wh
from univg_eval.errors import UserError
from univg_train.grpo_settings import GrpoSettings, check_batch, rollout_batch
from univg_train.pretrained import empty_model, lora_config, vision_tower

if TYPE_CHECKING:
    from univg_train.data import TrainingData

__all__ = ["SHARDINGS", "Estimate", "Memory", "count_steps", "estimate_run"]

SHARDINGS = ("none", "zero3", "fsdp2")
ROWS_MEASURED = 1000
_CHARACTERS_PER_TOKEN = 3
_TEMPLATE_TOKENS = 32
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device; see the module."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    activations: int
    cache: int

    @property
    def total(self) -> int:
        """Generation and training take turns: the larger of cache and activations counts."""
        fixed = self.weights + self.gradients + self.optimizer + self.reference
        return fixed + max(self.activations, self.cache)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        parameters, trained: of the model, with its adapter.
        rows: questions to train on.
        prompt_tokens: of the longest prompt among the first thousand rows: image tokens by the
            resize rule, and a third of the characters.
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
    settings: GrpoSettings, config: Any, data: TrainingData, *, processes: int, sharding: str
) -> Estimate:
    """Estimate a run on `processes` devices.

    Raises:
        UserError: the batch does not fit the groups, or the model's image tokens are not known.
    """
    check_batch(settings, processes)
    if sharding not in SHARDINGS:
        raise UserError(f"unknown sharding {sharding!r}; expected one of: {', '.join(SHARDINGS)}")
    parameters, trained = _count_parameters(settings, config)
    tokens = _prompt_tokens(settings, config, data)
    per_epoch, steps, batches = count_steps(settings, len(data), processes)
    return Estimate(
        parameters=parameters,
        trained=trained,
        rows=len(data),
        prompt_tokens=tokens,
        steps_per_epoch=per_epoch,
        steps=steps,
        rollouts=batches * rollout_batch(settings, processes),
        memory=_memory(settings, config, parameters, trained, tokens, processes, sharding),
    )


def count_steps(settings: GrpoSettings, rows: int, processes: int) -> tuple[int, int, int]:
    """(optimiser steps an epoch, in the whole run, batches of rollouts in the whole run).

    rows x generations / (rollouts generated together) batches an epoch, whole ones only; each
    serves num_iterations x (rollouts / (per-device batch x processes)) passes, and
    gradient_accumulation_steps passes make a step.

    Raises:
        UserError: there are fewer rows than one batch of rollouts takes prompts.
    """
    import math

    batch = rollout_batch(settings, processes)
    prompts = batch // settings.argument("num_generations")
    if rows < prompts:
        raise UserError(
            f"{rows} rows, and every batch of rollouts takes {prompts} prompts: there is no whole "
            "batch; give more rows or lower gradient_accumulation_steps"
        )
    passes = settings.argument("num_iterations") * (
        batch // (settings.argument("per_device_train_batch_size") * processes)
    )
    accumulation = settings.argument("gradient_accumulation_steps")
    per_epoch = math.ceil(rows // prompts * passes / accumulation)
    steps = settings.argument("max_steps")
    if steps <= 0:
        steps = math.ceil(settings.argument("num_train_epochs") * per_epoch)
    return per_epoch, steps, math.ceil(steps * accumulation / passes)


def _count_parameters(settings: GrpoSettings, config: Any) -> tuple[int, int]:
    import torch

    model = empty_model(config)
    if settings.lora is not None:
        from peft import get_peft_model

        tower = vision_tower(model)[1] if settings.freeze_vision else None
        lora = lora_config(settings.lora, tower)
        with torch.device("meta"):
            model = get_peft_model(model, lora)
    elif settings.freeze_vision:
        vision_tower(model)[0].requires_grad_(False)
    counted = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in counted), sum(n for n, is_trained in counted if is_trained)


def _prompt_tokens(settings: GrpoSettings, config: Any, data: TrainingData) -> int:
    vision = getattr(config, "vision_config", None)
    patch = getattr(vision, "patch_size", None)
    merge = getattr(vision, "spatial_merge_size", None)
    if not isinstance(patch, int) or not isinstance(merge, int):
        raise UserError(
            f"the number of image tokens of a {config.model_type!r} is not known here, so its "
            "memory cannot be told beforehand; the estimate knows the Qwen-VL families"
        )
    factor = patch * merge
    # The processors' own limits where the settings leave them away.
    low = settings.min_pixels or 56 * 56
    high = settings.max_pixels or 12_845_056
    longest = 0
    for position in range(min(len(data), ROWS_MEASURED)):
        row = data.columns(position)
        tokens = _TEMPLATE_TOKENS
        for width, height in row["image_sizes"]:
            w, h = smart_resize_wh((width, height), factor=factor, min_pixels=low, max_pixels=high)
            tokens += w * h // factor**2 + 2
        for message in row["prompt"]:
            for part in message["content"]:
                tokens += len(part.get("text", "")) // _CHARACTERS_PER_TOKEN
        longest = max(longest, tokens)
    return longest


def _memory(
    settings: GrpoSettings,
    config: Any,
    parameters: int,
    trained: int,
    prompt_tokens: int,
    processes: int,
    sharding: str,
) -> Memory:
    options = settings.argument("model_init_kwargs") or {}
    name = str(options.get("dtype", "float32"))
    if name not in _BYTES:
        raise UserError(
            f"trainer.model_init_kwargs.dtype is {name!r}; expected {', '.join(_BYTES)}"
        )
    size = _BYTES[name]
    if settings.lora is not None:
        adapter = trained
        weights = (parameters - adapter) * size + adapter * 4
        gradients, optimizer = 4 * trained, 8 * trained
    elif sharding == "zero3":
        weights, gradients, optimizer = 2 * parameters, 2 * trained, 12 * trained
    elif sharding == "fsdp2":
        weights = size * (parameters - trained) + 4 * trained
        gradients, optimizer = 4 * trained, 8 * trained
    else:
        weights, gradients, optimizer = parameters * size, trained * size, 2 * trained * size
    reference = 0
    if settings.argument("beta") and settings.lora is None:
        reference = parameters * (2 if sharding == "zero3" else size)
    parts = 1 if sharding == "none" else processes

    text = config.get_text_config()
    batch = settings.argument("per_device_train_batch_size")
    length = prompt_tokens + settings.argument("max_completion_length")
    layer = 34 * batch * length * text.hidden_size
    layers = text.num_hidden_layers
    checkpointing = settings.argument("activation_checkpointing")
    if checkpointing is None:
        checkpointing = settings.argument("gradient_checkpointing")
    if checkpointing:
        activations = 2 * batch * length * text.hidden_size * layers + layer
    else:
        activations = layer * layers
    cache = 0
    if not settings.argument("use_vllm"):
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        together = -(-rollout_batch(settings, processes) // processes)
        cache = 2 * layers * text.num_key_value_heads * head * 2 * length * together
    return Memory(
        weights=weights // parts,
        gradients=gradients // parts,
        optimizer=optimizer // parts,
        reference=reference // parts,
        activations=activations,
        cache=cache,
    )
