"""Weights that are spread over processes: what ZeRO-3 and FSDP2 need beside DDP."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from univg_eval.errors import UserError

__all__ = [
    "SHARDINGS",
    "averaged_gradients",
    "by_this_process_alone",
    "keep_used_conversions",
    "save_as_loaded",
    "sharding_of_environment",
    "weights_are_spread",
]

SHARDINGS = ("none", "zero2", "zero3", "fsdp2")
"""ZeRO-2 spreads gradients and the optimizer's state over the processes, the others weights too."""


def sharding_of_environment() -> str:
    """Which of `SHARDINGS` ``accelerate launch`` has set up.

    Raises:
        UserError: another one.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
        if stage not in ("2", "3"):
            raise UserError(f"DeepSpeed is set up with ZeRO stage {stage}; expected 2 or 3")
        return f"zero{stage}"
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        version = os.environ.get("FSDP_VERSION")
        if version != "2":
            raise UserError(f"FSDP is set up in version {version}; expected 2")
        return "fsdp2"
    return "none"


def weights_are_spread(accelerator: Any) -> bool:
    """Whether each process holds a part of the weights, so that all have to take every step.

    In `generate`, transformers recognises ZeRO-3 by itself, and FSDP only where it does the
    wrapping.
    """
    plugin = accelerator.state.deepspeed_plugin
    zero3 = plugin is not None and plugin.zero_stage == 3
    return zero3 or getattr(accelerator.state, "fsdp_plugin", None) is not None


@contextmanager
def averaged_gradients(accelerator: Any) -> Iterator[None]:
    """Under FSDP2, average the gradients of weights that a loss gathers itself.

    TRL (1.16, `trl.trainer.utils.add_fused_lm_head`) gathers ``lm_head`` by ``full_tensor()``. Its
    backward pass takes the gradients of all processes for the same, though each has rows of its
    own: every part of the weight would learn from the rows of its own process alone.
    """
    if not accelerator.is_fsdp2:
        yield
        return
    import torch
    from torch.distributed.tensor import DTensor, Partial

    gather = DTensor.full_tensor

    def full_tensor(weight: Any, *, grad_placements: Any = None) -> Any:
        if grad_placements is None and weight.requires_grad and torch.is_grad_enabled():
            grad_placements = [Partial("avg")] * weight.device_mesh.ndim
        return gather(weight, grad_placements=grad_placements)

    with patch.object(DTensor, "full_tensor", full_tensor):
        yield


@contextmanager
def by_this_process_alone() -> Iterator[None]:
    """Load and save whole models: under ZeRO-3 transformers takes part in that in all processes."""
    with patch("transformers.integrations.deepspeed._hf_deepspeed_config_weak_ref", None):
        yield


def keep_used_conversions(model: Any) -> None:
    """Let a model be saved under the names that its weights were read by.

    What renames weights on loading is undone on saving. Under ZeRO-3 transformers (5.23,
    `_load_state_dict_into_zero3_model`) keeps all that is known for the type of model, also what no
    weight of this checkpoint needed, and the saved names have a prefix too many.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    known = getattr(base, "_weight_conversions", None)
    if known is not None:
        base._weight_conversions = [conversion for conversion in known if conversion.was_used()]


def save_as_loaded(trainer: Any) -> None:
    """Let the weights be saved in the types that they were loaded in; called before training.

    FSDP2 trains in float32 and would save that, beside a configuration that says bfloat16. What is
    gathered (FSDP2) or copied (ZeRO-2) before it is saved is one weight for each name: those that
    are tied are made one again, so that they are saved once.
    """
    types: dict[str, Any] = {}
    names: dict[int, str] = {}  # the first of each weight
    first: dict[str, str] = {}
    for name, weight in trainer.model.named_parameters(remove_duplicate=False):
        types[name] = weight.dtype
        first[name] = names.setdefault(id(weight), name)
    gather = trainer.accelerator.get_state_dict

    @functools.wraps(gather)
    def get_state_dict(*args: Any, **options: Any) -> Any:
        state = gather(*args, **options)
        if state is None:  # not the main process
            return None
        cast = {name: weight.to(types.get(name, weight.dtype)) for name, weight in state.items()}
        return {name: cast.get(first.get(name, name), weight) for name, weight in cast.items()}

    trainer.accelerator.get_state_dict = get_state_dict
