"""How many rollouts a GRPO run generates together, and how many steps it takes: as TRL counts.

Without the model, and for a run that another machine may do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from univg_eval.errors import UserError
from univg_train.grpo.settings import GrpoSettings
from univg_train.runs.training import trainer_arguments

__all__ = [
    "StepCount",
    "check_batch",
    "count_steps",
    "passes_of_batch",
    "planned_arguments",
    "rollout_batch",
]


@dataclass(frozen=True, slots=True)
class StepCount:
    """Optimiser steps an epoch and in all, and batches of rollouts in all."""

    per_epoch: int
    steps: int
    batches: int


def check_batch(settings: GrpoSettings, processes: int) -> None:
    """Raise a UserError for a batch of rollouts without whole groups or whole passes."""
    n = settings.argument("num_generations")
    if n < 2:
        raise UserError(f"trainer.num_generations is {n}; expected at least 2 rollouts a prompt")
    given = settings.argument("generation_batch_size")
    if given is not None and settings.argument("steps_per_generation") is not None:
        raise UserError(
            "trainer.generation_batch_size and trainer.steps_per_generation say the same in two "
            "ways; leave one out"
        )
    batch, one_pass = rollout_batch(settings, processes), _pass(settings, processes)
    each = f"per_device_train_batch_size={one_pass // processes} x {processes} processes"
    if batch % one_pass:
        raise UserError(
            f"trainer.generation_batch_size={batch} is no multiple of the {one_pass} rollouts of a "
            f"pass ({each}); change one of them"
        )
    passes, accumulation = batch // one_pass, settings.argument("gradient_accumulation_steps")
    name = "steps_per_generation"
    if settings.argument(name) is None:
        name = "gradient_accumulation_steps" if given is None else "generation_batch_size"
    if passes % accumulation and accumulation % passes:
        raise UserError(
            f"trainer.gradient_accumulation_steps={accumulation} and the {passes} passes of a "
            f"batch of rollouts (trainer.{name}) do not divide each other: a step would learn from "
            "parts of batches; change one of them"
        )
    if batch % n:
        factors = name if given is not None else f"{each} x {name}={passes}"
        raise UserError(
            f"trainer.num_generations={n} does not divide the {batch} rollouts that are generated "
            f"together ({factors}); change one of them"
        )


def rollout_batch(settings: GrpoSettings, processes: int) -> int:
    """Rollouts that are generated together on all processes."""
    given = settings.argument("generation_batch_size")
    if given is not None:
        return int(given)
    steps = settings.argument("steps_per_generation")
    if steps is None:
        steps = settings.argument("gradient_accumulation_steps")
    return int(_pass(settings, processes) * steps)


def passes_of_batch(settings: GrpoSettings, processes: int) -> int:
    """Passes, forward and backward, that each batch of rollouts serves."""
    passes = rollout_batch(settings, processes) // _pass(settings, processes)
    return int(passes * settings.argument("num_iterations"))


def count_steps(settings: GrpoSettings, rows: int, processes: int) -> StepCount:
    """Steps of a run.

    An epoch has rows x num_generations / (rollouts generated together) batches, whole ones only;
    each serves `passes_of_batch` passes, and gradient_accumulation_steps passes make a step. Where
    they do not divide the passes of an epoch, its last step has fewer.

    Raises:
        UserError: there are fewer rows than one batch of rollouts takes prompts, or no steps.
    """
    prompts = rollout_batch(settings, processes) // settings.argument("num_generations")
    if rows < prompts:
        raise UserError(
            f"{rows} rows, and every batch of rollouts takes {prompts} prompts: there is no whole "
            "batch; give more rows or lower gradient_accumulation_steps"
        )
    passes = passes_of_batch(settings, processes)
    accumulation = settings.argument("gradient_accumulation_steps")
    epoch_passes = rows // prompts * passes
    per_epoch = math.ceil(epoch_passes / accumulation)
    steps, n_epochs = settings.argument("max_steps"), settings.argument("num_train_epochs")
    if steps <= 0:
        steps = math.ceil(n_epochs * per_epoch)
    if steps < 1:
        raise UserError(f"trainer.num_train_epochs is {n_epochs}: there is no step; expected more")
    epochs, rest = divmod(steps, per_epoch)
    last = math.ceil(min(rest * accumulation, epoch_passes) / passes)
    return StepCount(per_epoch, steps, epochs * (rows // prompts) + last)


def planned_arguments(settings: GrpoSettings, processes: int) -> Any:
    """The trainer's arguments of a run that another machine will do on `processes` devices.

    Raises:
        UserError: TRL refuses a value.
    """
    batch = rollout_batch(settings, processes)
    planned = {"generation_batch_size": batch, "steps_per_generation": None}
    arguments = trainer_arguments(settings, use_cpu=True, **planned)
    arguments.steps_per_generation = batch // _pass(settings, processes)  # TRL has counted one
    return arguments


def _pass(settings: GrpoSettings, processes: int) -> int:
    return int(settings.argument("per_device_train_batch_size") * processes)
