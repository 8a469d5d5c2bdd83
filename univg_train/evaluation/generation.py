"""A model in training made ready to generate, and everything put back afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["generating", "undisturbed", "weights_are_spread"]

_CHECKPOINTING = "gradient_checkpointing"
"""The flag that transformers' layers look at."""


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Put back what work between two steps may change: random states, and each module's mode.

    A run that is interrupted this way trains as if it had not been: dropout, shuffling and sampled
    rollouts draw the same numbers.

    Args:
        model: whose modules are put back to training or evaluation, each as it was.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if used else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        for module, training in modes:
            module.training = training


@contextmanager
def generating(trainer: Any) -> Iterator[Any]:
    """The model of a trainer as one that generates, in evaluation mode, as TRL's GRPO does it.

    Weights that ZeRO-3 has spread over the processes are gathered. Gradient checkpointing is off,
    and afterwards exactly as it was. All processes have to enter together.

    Args:
        trainer: one of transformers or TRL.
    """
    from trl.models.utils import unwrap_model_for_generation

    with (
        undisturbed(trainer.model),
        _without_checkpointing(trainer.model),
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=getattr(trainer.args, "ds3_gather_for_generation", True),
        ) as model,
    ):
        model.eval()
        yield model


@contextmanager
def _without_checkpointing(model: Any) -> Iterator[None]:
    """Turn gradient checkpointing off by the flags of the modules alone.

    To turn it off and on by the model's methods, as TRL does where it finds it on, would lose what
    the trainer has set up: every n-th layer, offloading, selective recomputing.
    """
    layers = [module for module in model.modules() if getattr(module, _CHECKPOINTING, False)]
    for layer in layers:
        setattr(layer, _CHECKPOINTING, False)
    try:
        yield
    finally:
        for layer in layers:
            setattr(layer, _CHECKPOINTING, True)


def weights_are_spread(accelerator: Any) -> bool:
    """Whether each process holds a part of the weights, so that all have to take every step.

    In `generate`, transformers tells ZeRO-3 by itself, and FSDP only where it does the wrapping.
    """
    plugin = accelerator.state.deepspeed_plugin
    zero3 = plugin is not None and plugin.zero_stage == 3
    return zero3 or getattr(accelerator.state, "fsdp_plugin", None) is not None
