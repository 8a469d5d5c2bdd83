"""What supervised fine-tuning will take; see `univg_train.runs.estimate`."""

from __future__ import annotations

import math

from univg_train.runs.estimate import (
    Estimate,
    Gpu,
    Memory,
    Passes,
    divided,
    measure_rows,
    model_sizes,
    seconds,
    state,
)
from univg_train.runs.training import CheckedRun
from univg_train.sft.settings import SftSettings

__all__ = ["estimate_sft"]


def estimate_sft(
    settings: SftSettings, checked: CheckedRun, *, processes: int, sharding: str, gpu: Gpu
) -> Estimate:
    """Estimate a run; `sharding` is one of `univg_train.runs.sharding.SHARDINGS`.

    Raises:
        UserError: the sizes of the model are not known.
    """
    sizes = model_sizes(settings, checked.config)
    rows = measure_rows(checked, sizes)
    passes = Passes.of(settings, checked.config, sizes, sharding)
    batch = settings.argument("per_device_train_batch_size")
    accumulation = settings.argument("gradient_accumulation_steps")
    fixed = state(settings, checked.config, sizes, processes=processes, sharding=sharding)
    training = passes.training(batch, rows.longest, batch * rows.patches, batch * rows.longest)
    one = passes.training_operations(batch, rows.mean, batch * rows.patches_of_mean)
    per_epoch = math.ceil(math.ceil(rows.count / (batch * processes)) / accumulation)
    steps = settings.argument("max_steps")
    if steps <= 0:
        steps = math.ceil(settings.argument("num_train_epochs") * per_epoch)
    return Estimate(
        parameters=sizes.parameters,
        trained=sizes.trained,
        rows=rows.count,
        tokens=rows.longest,
        steps_per_epoch=per_epoch,
        steps=steps,
        rollouts=None,
        memory=Memory(
            fixed=divided(fixed, processes=processes, sharding=sharding)
            | {"images": batch * rows.pixels},
            phases={"training": training + passes.gathered(sharding)},
        ),
        gpu=gpu,
        step=seconds(accumulation * one, gpu),
    )
