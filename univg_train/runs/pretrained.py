"""Parts of a model before its training: its vision tower, and where an adapter goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from univg_eval.errors import UserError
from univg_train.runs.yaml_settings import argument_problems

__all__ = ["freeze_vision", "lora_config", "vision_tower"]

# Where PEFT's own annotations are narrower than what it takes.
_LORA_TYPES: Mapping[str, Any] = {
    "lora_alpha": float,
    "init_lora_weights": bool | str,
    "layer_replication": list[list[int]] | None,
}


def vision_tower(model: Any) -> tuple[Any, str]:
    """The module that turns images into features, and its name within the model."""
    tower = model.get_encoder(modality="image")
    name = next((name for name, module in model.named_modules() if module is tower), "")
    if not name:
        raise UserError(
            f"{type(model).__name__} has no vision tower known to transformers; set "
            "freeze_vision: false"
        )
    return tower, name


def freeze_vision(model: Any) -> None:
    """Let the vision tower of a model, also of one with adapters, not be trained.

    It runs without gradients: with gradient checkpointing transformers (5.23) asks for those of the
    embeddings of every part, so that adapters may stand in any, and a frozen tower would keep
    activations for a backward pass that nothing learns from.
    """
    import torch

    tower, _ = vision_tower(model.get_base_model() if hasattr(model, "get_base_model") else model)
    tower.requires_grad_(False)
    tower.forward = torch.no_grad()(tower.forward)


def lora_config(lora: Mapping[str, Any], tower: str | None) -> Any:
    """PEFT's `LoraConfig`, for ``all-linear`` by default.

    Args:
        lora: its arguments.
        tower: name of the vision tower, which gets no adapters; None: it gets them.

    Raises:
        UserError: peft is not installed, an unknown argument, or a value that PEFT refuses.
    """
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise UserError("lora needs the package 'peft'; install it: pip install peft") from error
    if problems := argument_problems(LoraConfig, lora, "lora.", _LORA_TYPES):
        raise UserError("; ".join(problems))
    values = {"task_type": "CAUSAL_LM", "target_modules": "all-linear", **lora}
    start = str(values.get("init_lora_weights"))
    if start.startswith("pissa_niter_"):
        raise UserError(
            f"lora.init_lora_weights is {start!r}: its part of the weights is drawn anew whenever "
            "they are loaded, so that the trained ones could not be found again; take 'pissa'"
        )
    if tower is not None:
        if values.get("exclude_modules") is not None:
            raise UserError(
                "lora.exclude_modules and freeze_vision: true exclude different modules; give "
                "freeze_vision: false and exclude the vision tower yourself"
            )
        values["exclude_modules"] = rf"{tower.replace('.', chr(92) + '.')}\..*"
    try:
        return LoraConfig(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"lora: {' '.join(str(error).split())}") from error
