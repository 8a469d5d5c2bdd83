"""What a training run takes on each device: from config.json, settings and rows, without weights.

**State**: bytes on each of N devices. P: parameters, T: those that are trained, D: bytes of the
type that the model is loaded in. With ZeRO-3 and FSDP2 each line is divided by N, with ZeRO-2
gradients and optimiser alone; nothing is without sharding.

=============  =====================  ==========================  ===============================
               no sharding            ZeRO-2 and ZeRO-3 (bf16)    FSDP2 (bf16)
=============  =====================  ==========================  ===============================
weights        P D                    2 P                         D (P - T) + 4 T
gradients      T D (2 T D if N > 1)   2 T                         4 T
AdamW          2 T D                  12 T (with float32 copies)  8 T
=============  =====================  ==========================  ===============================

ZeRO-3 and FSDP2 put weights together where they are needed: two layers and the words' matrix, in
half precision. With LoRA the adapter counts as float32 and the rest as D. Of several processes
without sharding PyTorch's DDP holds the gradients a second time, in its buckets.

**Activations** of n tokens, in numbers of b bytes (2 in half precision). A decoder layer of width
h, inner width I, queries of width q keeps for its backward pass

    n (4 b (q + I) + c h),  c = 2 (4 + 2 b), or 28 where float32 weights train in half precision:

the four tensors of attention (keys and values repeated to the queries' width) and of the gated MLP,
and what its two norms keep, partly in float32. LoRA's dropout adds 4.5 n (5 h + q + I). With
gradient checkpointing a layer keeps its input, n h b; one layer at a time is computed once more, in
full. A layer of the vision tower keeps n (13 b h + m b I), m = 2, 3 (quick_gelu) or 4 (gated);
nothing where it is frozen. Attention masks take B S² (1 + b) for B sequences of S tokens.

**Loss**: TRL 1.16 computes log-probabilities in tiles of 4,096 tokens by 32,768 words, and never
all logits; where the output matrix is trained, its gradient exists in float32 beside its own type.
On a CPU the tile's 7 temporary tensors in float32 count too.

**A pass without gradients** (generation's first, the reference) holds the tensors of one layer: the
decoder n (4 h + 3 I) b, the vision tower n max(3 b (h + I), 36 h), its rotary positions being in
float32, and a copy of the pixels in half precision.

The constants are those of transformers 5.23's eager code, found by counting tensors;
results/benchmarks/training_memory.py compares the whole with the peaks of real runs on a CPU. Not
counted: buffers of communication, the CUDA context, fragmentation: leave a fifth of the memory
free.

**Time** is arithmetic (2 operations a parameter and token, 4 a number of the queries for each pair
of tokens) by the data sheet's rate of the GPU, of which a run reaches 20 to 50 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from univg_eval.errors import UserError
from univg_eval.models.pretrained import empty_model
from univg_train.runs.lengths import RowLengths, encode_row
from univg_train.runs.pretrained import vision_tower
from univg_train.runs.settings import RunSettings
from univg_train.runs.training import CheckedRun, adapter_config

__all__ = [
    "GPUS",
    "Estimate",
    "Gpu",
    "Layers",
    "Memory",
    "ModelSizes",
    "Passes",
    "Rows",
    "Span",
    "divided",
    "loaded_bytes",
    "measure_rows",
    "model_sizes",
    "seconds",
    "state",
]

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_TILE_TOKENS, _TILE_WORDS = 4096, 32768  # trl.kernels.chunked_logprob, trl.trainer.utils
_REACHED = (0.5, 0.2)
"""Of a GPU's arithmetic, what a run reaches at best and in a bad case: an assumption."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by its maker's data sheet: memory in bytes that PyTorch sees, rates a second."""

    name: str
    memory: int
    arithmetic: float
    bandwidth: float


GPUS = {
    "a100": Gpu("A100 80 GB SXM", 79 * 2**30, 312e12, 2.039e12),
    "h100": Gpu("H100 80 GB SXM", 79 * 2**30, 989e12, 3.35e12),
    "h200": Gpu("H200 141 GB SXM", 139 * 2**30, 989e12, 4.8e12),
    "l40s": Gpu("L40S 48 GB", 44 * 2**30, 362e12, 0.864e12),
    "rtx4090": Gpu("RTX 4090 24 GB", 23 * 2**30, 165e12, 1.008e12),
}
"""NVIDIA's data sheets: bfloat16 on tensor cores without sparsity, and memory bandwidth."""


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds, at best and in a bad case."""

    least: float
    most: float

    def __add__(self, other: Span) -> Span:
        return Span(self.least + other.least, self.most + other.most)

    def __mul__(self, times: float) -> Span:
        return Span(self.least * times, self.most * times)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one device.

    Attributes:
        fixed: what is there all the time, by name.
        phases: what is there beside it in phases that take turns.
    """

    fixed: dict[str, int]
    phases: dict[str, int]

    @property
    def total(self) -> int:
        """At the peak."""
        return sum(self.fixed.values()) + max(self.phases.values())

    @property
    def needed(self) -> int:
        """Memory of a device that this fits: a fifth of it stays free, for what is not counted."""
        return self.total * 5 // 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take.

    Attributes:
        parameters, trained: of the model, with its adapter.
        rows: to train on.
        tokens: of the longest row (of its prompt, with GRPO), as the model's own processor has it.
        steps_per_epoch, steps: optimiser steps.
        rollouts: completions in the whole run; None without any.
        memory: on one device.
        gpu: that `step` is of.
        step: time of an optimiser step.
    """

    parameters: int
    trained: int
    rows: int
    tokens: int
    steps_per_epoch: int
    steps: int
    rollouts: int | None
    memory: Memory
    gpu: Gpu
    step: Span

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        memory = self.memory
        return {
            "parameters": self.parameters,
            "trained": self.trained,
            "rows": self.rows,
            "tokens": self.tokens,
            "steps_per_epoch": self.steps_per_epoch,
            "steps": self.steps,
            "rollouts": self.rollouts,
            "memory": {
                **memory.fixed,
                **memory.phases,
                "total": memory.total,
                "needed": memory.needed,
            },
            "gpu": self.gpu.name,
            "seconds_a_step": [self.step.least, self.step.most],
            "confirmed_on_a_gpu": False,
        }


@dataclass(frozen=True, slots=True)
class Layers:
    """Equal layers of a transformer.

    Attributes:
        count: of the layers.
        width, inner: of the stream and of the MLP.
        query, key_value: widths of the queries, and of keys and values each.
        kept: tensors of the inner width that the MLP keeps for its backward pass.
        normed: queries and keys have norms of their own.
        parameters: of all layers, and of what stands before and behind them.
    """

    count: int
    width: int
    inner: int
    query: int
    key_value: int
    kept: int
    normed: bool
    parameters: int


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What the memory of a model depends on.

    Attributes:
        parameters, trained: all, with an adapter's.
        text, vision: the language model without its vocabulary, and the vision tower.
        vocabulary: words.
        head_trained, vision_trained: whether these parts are.
        patch: numbers of a patch of the image, of all channels and frames.
    """

    parameters: int
    trained: int
    text: Layers
    vision: Layers
    vocabulary: int
    head_trained: bool
    vision_trained: bool
    patch: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Lengths of rows as the model is given them.

    Attributes:
        count: of the rows.
        longest, mean: tokens of a row (of a prompt, where there is no completion).
        patches, pixels: of the longest row: tokens of the vision tower, bytes of its images.
    """

    count: int
    longest: int
    mean: float
    patches: int
    pixels: int

    @property
    def patches_of_mean(self) -> float:
        """Tokens of the vision tower in a row of the mean length, in the longest row's ratio."""
        return self.patches * self.mean / self.longest


def measure_rows(checked: CheckedRun, sizes: ModelSizes) -> Rows:
    """Measure the rows that are trained on, and encode the longest with blank images."""
    numbers = checked.dataset.with_format(None)["row"]
    lengths = dict(
        zip(numbers, RowLengths(checked.processor).all(checked.data, numbers), strict=True)
    )
    longest = max(lengths, key=lengths.__getitem__)
    encoded = encode_row(checked.data.columns(longest), checked.processor)
    pixels = encoded["pixel_values"]
    return Rows(
        count=len(lengths),
        longest=len(encoded["input_ids"][0]),
        mean=sum(lengths.values()) / len(lengths),
        patches=pixels.numel() // sizes.patch,
        pixels=pixels.nbytes,
    )


def model_sizes(settings: RunSettings, config: Any) -> ModelSizes:
    """Sizes of the model that these settings train, made without weights.

    Raises:
        UserError: the sizes of its parts are not known here.
    """
    import torch

    model = empty_model(config, trust_remote_code=settings.source["trust_remote_code"])
    if (lora := adapter_config(settings, model)) is not None:
        from peft import get_peft_model

        model.requires_grad_(False)
        with torch.device("meta"):
            adapted = get_peft_model(model, lora)
    else:
        adapted = model
    tower, prefix = vision_tower(model)
    if settings.freeze_vision:
        tower.requires_grad_(False)
    counted = [(p.numel(), p.requires_grad) for p in adapted.parameters()]
    total, head = sum(n for n, _ in counted), model.get_output_embeddings().weight
    words = {id(p): p.numel() for p in (head, model.get_input_embeddings().weight)}
    seen = sum(p.numel() for p in tower.parameters())
    names = [name for name, _ in model.named_parameters() if not name.startswith(prefix)]
    text, vision = config.get_text_config(), config.vision_config
    try:
        width = _first(vision, "embed_dim", "hidden_size")
        head_size = _first(text, "head_dim", default=text.hidden_size // text.num_attention_heads)
        edge = vision.patch_size
        area = edge**2 if isinstance(edge, int) else edge[0] * edge[1]
        gated = any("gate" in name for name, _ in tower.named_parameters())
        quick = _first(vision, "hidden_act", default="") == "quick_gelu"
        return ModelSizes(
            parameters=total,
            trained=sum(n for n, trained in counted if trained),
            text=Layers(
                count=text.num_hidden_layers,
                width=text.hidden_size,
                inner=text.intermediate_size,
                query=text.num_attention_heads * head_size,
                key_value=text.num_key_value_heads * head_size,
                kept=4,
                normed=any("q_norm" in name for name in names),
                parameters=total - seen - sum(words.values()),
            ),
            vision=Layers(
                count=_first(vision, "depth", "num_hidden_layers"),
                width=width,
                inner=_first(
                    vision,
                    "intermediate_size",
                    default=width * int(_first(vision, "mlp_ratio", default=4)),
                ),
                query=width,
                key_value=width,
                kept=4 if gated else 3 if quick else 2,
                normed=False,
                parameters=seen,
            ),
            vocabulary=head.shape[0],
            head_trained=bool(head.requires_grad),
            vision_trained=any(p.requires_grad for p in tower.parameters()),
            patch=_first(vision, "in_channels", "num_channels", default=3)
            * _first(vision, "temporal_patch_size", default=1)
            * area,
        )
    except AttributeError as error:
        raise UserError(
            f"the sizes of a {config.model_type!r} are not known here, so its memory cannot be "
            f"estimated: {error}"
        ) from error


def _first(config: Any, *names: str, default: Any = None) -> Any:
    found = [value for name in names if (value := getattr(config, name, None)) is not None]
    if not found and default is None:
        raise AttributeError(f"{type(config).__name__} has none of {', '.join(names)}")
    return found[0] if found else default


# --- memory --------------------------------------------------------------------------------------


def loaded_bytes(settings: RunSettings, config: Any) -> int:
    """Of a number of the weights as they are loaded."""
    name = settings.model_options.get("dtype", "float32")
    name = config.dtype or "float32" if name == "auto" else name
    return _BYTES[str(name).removeprefix("torch.")]


def state(
    settings: RunSettings, config: Any, sizes: ModelSizes, *, processes: int, sharding: str
) -> dict[str, int]:
    """Weights, gradients and optimizer on all devices together; see the module."""
    size, total, trained = loaded_bytes(settings, config), sizes.parameters, sizes.trained
    if settings.lora is not None:
        weights, gradients, optimizer = (total - trained) * size + 4 * trained, 4, 8
    elif sharding in ("zero2", "zero3"):
        weights, gradients, optimizer = 2 * total, 2, 12
    elif sharding == "fsdp2":
        weights, gradients, optimizer = size * (total - trained) + 4 * trained, 4, 8
    else:
        weights, gradients, optimizer = total * size, size, 2 * size
    if sharding == "none" and processes > 1:
        gradients *= 2
    return {"weights": weights, "gradients": gradients * trained, "optimizer": optimizer * trained}


def divided(values: dict[str, int], *, processes: int, sharding: str) -> dict[str, int]:
    """The part of each device."""
    whole = {"none": tuple(values), "zero2": ("weights", "reference")}.get(sharding, ())
    return {name: n if name in whole else n // processes for name, n in values.items()}


@dataclass(frozen=True, slots=True)
class Passes:
    """Memory and time of passes through a model, on one device.

    Attributes:
        sizes: of the model.
        number: bytes of a number in computation.
        stream: bytes of one between the layers.
        checkpointing, lora: whether these are used.
        on_cpu: not on a GPU.
        cast: bytes of the weights' copies in half precision, which autocast keeps for a pass.
    """

    sizes: ModelSizes
    number: int
    stream: int
    checkpointing: bool
    lora: bool
    on_cpu: bool
    cast: int

    @classmethod
    def of(cls, settings: RunSettings, config: Any, sizes: ModelSizes, sharding: str) -> Passes:
        """Passes as these settings ask for them."""
        loaded = loaded_bytes(settings, config)
        half = settings.argument("fp16") or settings.argument("bf16") is not False
        number = 2 if half else loaded
        mixed = half and loaded == 4 and sharding == "none"
        known = settings.argument_defaults()
        # The first is the name that transformers 5.23 has given to the second.
        names = ("activation_checkpointing", "gradient_checkpointing")
        given = [settings.argument(name) for name in names if name in known]
        return cls(
            sizes=sizes,
            number=number,
            stream=4 if mixed else number,
            checkpointing=bool(next((value for value in given if value is not None), False)),
            lora=settings.lora is not None,
            on_cpu=bool(settings.argument("use_cpu")),
            cast=2 * sizes.trained if mixed else 0,
        )

    @property
    def _mixed(self) -> bool:
        return self.stream != self.number

    def _text_layer(self) -> int:
        """Bytes that a decoder layer keeps of each token."""
        text, b = self.sizes.text, self.number
        norms = 28 if self._mixed else 2 * (4 + 2 * b)
        kept = 4 * b * (text.query + text.inner) + norms * text.width
        if text.normed:
            kept += (4 + 2 * b) * (text.query + text.key_value)
        if self.lora:
            kept += int(4.5 * (5 * text.width + text.query + text.inner))
        return kept

    def training(self, sequences: int, length: int, patches: int, scored: int) -> int:
        """Bytes of a forward and backward pass, over what is there all the time.

        Args:
            sequences: of `length` tokens each.
            length: with the completion.
            patches: of all images.
            scored: tokens that the loss is of.
        """
        text, vision, b = self.sizes.text, self.sizes.vision, self.number
        n = sequences * length
        layer = n * self._text_layer()
        seen_layer = patches * b * (13 * vision.width + vision.kept * vision.inner)
        if not self.sizes.vision_trained:
            seen_layer = 0
        masks = sequences * length**2 * (1 + b) if sequences > 1 else 0
        if self.checkpointing:
            kept = n * text.width * self.stream * (text.count + 3) + masks
            # Gradients of the layer at work; LoRA's inputs in float32.
            extra = n * (b * (text.inner + 2 * text.width) + (10 * text.inner if self.lora else 0))
            if seen_layer:
                kept += patches * vision.width * b * vision.count
                extra = max(extra, seen_layer - layer + patches * b * vision.inner)
            return self.cast + kept + max(layer + extra, self._loss(n, scored))
        kept = layer * text.count + 3 * n * text.width * self.stream + masks
        kept += seen_layer * vision.count
        return self.cast + kept + max(n * b * (text.inner + 2 * text.width), self._loss(n, scored))

    def _loss(self, tokens: int, scored: int) -> int:
        width, words = self.sizes.text.width, self.sizes.vocabulary
        n = tokens if self.on_cpu else min(scored, tokens)
        tile = min(n, _TILE_TOKENS)
        # A CPU's memory is taken when it is written to: where there are fewer words, less.
        columns = min(words, _TILE_WORDS) if self.on_cpu else _TILE_WORDS
        size = tile * columns * self.number + n * width * (4 + self.number)
        if self.sizes.head_trained:
            size += words * width * (4 + self.stream)
        if self.on_cpu:
            size += 7 * 4 * tile * columns
        return size

    def without_gradients(self, sequences: int, length: int, patches: int, pixels: int) -> int:
        """Bytes of a forward pass that keeps nothing; see the module."""
        text, vision, b = self.sizes.text, self.sizes.vision, self.number
        n = sequences * length
        decoder = n * (4 * text.width * self.stream + 3 * text.inner * b)
        if self.lora:
            decoder = n * (4 * text.width * self.stream + text.inner * (b + 8))
        decoder += sequences * length**2 * (1 + b) if sequences > 1 else 0
        seen = patches * max(3 * b * (vision.width + vision.inner), 36 * vision.width)
        copied = pixels * b // 4 if b < 4 else 0
        return max(decoder, seen + copied)

    def gathered(self, sharding: str) -> int:
        """Bytes of weights that are put together while others are at work: see the module."""
        if sharding not in ("zero3", "fsdp2"):
            return 0
        text = self.sizes.text
        return 2 * (2 * text.parameters // text.count + self.sizes.vocabulary * text.width)

    def cache_of_token(self) -> int:
        """Bytes of the keys and values of one token; keys are float32 where weights are."""
        text = self.sizes.text
        return text.count * text.key_value * (self.number + self.stream)

    # --- time ------------------------------------------------------------------------------------

    def operations(self, sequences: int, length: float, patches: float) -> float:
        """Of a forward pass, but for the words' matrices."""
        text, vision = self.sizes.text, self.sizes.vision
        n = sequences * length
        attention = 2 * text.count * text.query * length  # 4, of half of all pairs
        return n * (2 * text.parameters + attention) + 2 * patches * vision.parameters

    def training_operations(self, sequences: int, length: float, patches: float) -> float:
        """With the backward pass: as much as two forward ones, with LoRA's frozen weights one."""
        text = self.operations(sequences, length, 0)
        vision = self.operations(0, 0, patches)
        times = (2 if self.lora else 3) + self.checkpointing
        return times * text + (times if self.sizes.vision_trained else 1) * vision


def seconds(operations: float, gpu: Gpu) -> Span:
    """Of arithmetic on one device."""
    best, worst = (operations / (gpu.arithmetic * share) for share in _REACHED)
    return Span(best, worst)
