"""What a GRPO run will take; see `univg_train.runs.estimate`, and here what generation adds.

* A reference model where beta is not 0: P D bytes, with ZeRO 2 P; none with LoRA, where it is the
  model without its adapter. FSDP2 divides it by N, and its pass gathers all of it, for TRL shards
  it as one unit.
* The images of all rollouts that a device generates together stay until the next ones are there;
  while they are made, those of both.
* While transformers generates: a pass of all prompts at once without gradients, then keys and
  values of all tokens, of which one layer is copied at a time. With ZeRO-3 all weights are gathered
  on every device, unless ds3_gather_for_generation is false.
* vLLM beside the training takes vllm_gpu_memory_utilization of the GPU; with
  vllm_enable_sleep_mode only while it generates.

Time: every token of a completion, all of full length, reads the weights and the cache once, at 80
to 30 % of the memory's bandwidth, and without vLLM up to a millisecond a layer goes for starting
kernels. Exchange between devices is not counted.
"""

from __future__ import annotations

from univg_train.grpo.batches import count_steps, passes_of_batch, rollout_batch
from univg_train.grpo.settings import GrpoSettings
from univg_train.runs.estimate import (
    Estimate,
    Gpu,
    Memory,
    ModelSizes,
    Passes,
    Rows,
    Span,
    divided,
    loaded_bytes,
    measure_rows,
    model_sizes,
    seconds,
    state,
)
from univg_train.runs.training import CheckedRun

__all__ = ["estimate_grpo"]

_BANDWIDTH_REACHED = (0.8, 0.3)
_STARTING_A_LAYER = 1e-3


def estimate_grpo(
    settings: GrpoSettings, checked: CheckedRun, *, processes: int, sharding: str, gpu: Gpu
) -> Estimate:
    """Estimate a run; `sharding` is one of `univg_train.runs.sharding.SHARDINGS`.

    Raises:
        UserError: there are too few rows, or the sizes of the model are not known.
    """
    sizes = model_sizes(settings, checked.config)
    rows = measure_rows(checked, sizes)
    passes = Passes.of(settings, checked.config, sizes, sharding)
    together = rollout_batch(settings, processes)
    count = count_steps(settings, rows.count, processes)
    whole = state(settings, checked.config, sizes, processes=processes, sharding=sharding)
    whole["reference"] = 0
    if settings.argument("beta") and settings.lora is None:
        size = 2 if sharding.startswith("zero") else loaded_bytes(settings, checked.config)
        whole["reference"] = sizes.parameters * size
    own = together // processes
    fixed = divided(whole, processes=processes, sharding=sharding)
    fixed["images"] = own * rows.pixels
    phases = {
        "generation": 0,
        "reference pass": whole["reference"] if sharding == "fsdp2" else 0,
        "training": _training(settings, passes, rows) + passes.gathered(sharding),
    }
    if settings.argument("use_vllm"):
        if settings.argument("vllm_mode") == "colocate":
            asleep = settings.argument("vllm_enable_sleep_mode")
            share = int(settings.argument("vllm_gpu_memory_utilization") * gpu.memory)
            (phases if asleep else fixed)["generation" if asleep else "vllm"] = share
    else:
        gathers = sharding == "zero3" and settings.argument("ds3_gather_for_generation")
        phases["generation"] = _generation(settings, passes, rows, own)
        phases["generation"] += 2 * sizes.parameters if gathers else 0
    return Estimate(
        parameters=sizes.parameters,
        trained=sizes.trained,
        rows=rows.count,
        tokens=rows.longest,
        steps_per_epoch=count.per_epoch,
        steps=count.steps,
        rollouts=count.batches * together,
        memory=Memory(fixed, phases),
        gpu=gpu,
        step=_time(settings, passes, rows, own, processes, gpu),
    )


def _training(settings: GrpoSettings, passes: Passes, rows: Rows) -> int:
    batch = settings.argument("per_device_train_batch_size")
    completion = settings.argument("max_completion_length")
    return passes.training(
        batch, rows.longest + completion, batch * rows.patches, batch * completion
    )


def _generation(settings: GrpoSettings, passes: Passes, rows: Rows, own: int) -> int:
    """Bytes while transformers generates `own` completions; see the module."""
    completion, layers = settings.argument("max_completion_length"), passes.sizes.text.count
    token = passes.cache_of_token()
    first = passes.without_gradients(own, rows.longest, own * rows.patches, own * rows.pixels)
    first += own * rows.longest * token
    last: int = own * (rows.longest + completion) * token * (layers + 1) // layers
    return own * rows.pixels + max(first, last)


def _time(
    settings: GrpoSettings, passes: Passes, rows: Rows, own: int, processes: int, gpu: Gpu
) -> Span:
    completion = settings.argument("max_completion_length")
    accumulation = settings.argument("gradient_accumulation_steps")
    batch, length = settings.argument("per_device_train_batch_size"), rows.mean + completion
    misaligned = accumulation % passes_of_batch(settings, processes) != 0
    old = misaligned or settings.argument("use_vllm")
    forward = bool(settings.argument("beta")) + bool(old)
    images = rows.patches_of_mean
    generated = passes.operations(own, rows.mean, own * images)
    generated += forward * passes.operations(own, length, own * images)
    trained = accumulation * passes.training_operations(batch, length, batch * images)
    batches = accumulation / passes_of_batch(settings, processes)
    read = _read_a_token(passes.sizes, passes, own * (rows.mean + completion / 2))
    best, worst = (read / (gpu.bandwidth * share) for share in _BANDWIDTH_REACHED)
    if not settings.argument("use_vllm"):
        worst += _STARTING_A_LAYER * passes.sizes.text.count
    decoding: Span = Span(best, worst) * (completion * batches)
    return seconds(generated * batches + trained, gpu) + decoding


def _read_a_token(sizes: ModelSizes, passes: Passes, cached: float) -> float:
    """Bytes that are read for the next token of all completions."""
    weights = sizes.text.parameters + sizes.vocabulary * sizes.text.width
    return passes.number * weights + cached * passes.cache_of_token()
