"""A model before its weights: config, processor, vision tower, where an adapter goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_train.runs.yaml_settings import argument_problems

__all__ = [
    "empty_model",
    "load_config",
    "load_processor",
    "lora_config",
    "pixel_limit",
    "vision_tower",
]

# Where PEFT's own annotations are narrower than what it takes.
_LORA_TYPES: Mapping[str, Any] = {
    "lora_alpha": float,
    "init_lora_weights": bool | str,
    "layer_replication": list[list[int]] | None,
}


def load_config(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The model's ``config.json``; a UserError if there is none, or the model takes no images."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            model, revision=revision or "main", trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = _first_line(error)
        if not Path(model).is_dir():
            reason = f"there is no such folder, and as a name of the Hub: {reason}"
        raise UserError(f"cannot load the model {model!r}: {reason}") from error
    remote = "AutoModelForImageTextToText" in (getattr(config, "auto_map", None) or {})
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not remote:
        raise UserError(
            f"{model} is of type {config.model_type!r}, which takes no images; expected a "
            "vision-language model such as Qwen/Qwen2-VL-7B-Instruct"
        )
    return config


def load_processor(
    model: str,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """The model's processor, with limits of the area of an image as the model sees it.

    Raises:
        UserError: there is none, it takes no images, has no chat template, or no such limits.
    """
    from transformers import AutoProcessor

    given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    limits = {name: value for name, value in given.items() if value is not None}
    source = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    load: Any = AutoProcessor.from_pretrained
    try:
        processor = load(model, **source, **limits, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the processor of {model!r}: {_first_line(error)}") from error
    if getattr(processor, "image_processor", None) is None:
        raise UserError(f"{model} has no processor of images beside its tokenizer")
    if processor.chat_template is None:
        raise UserError(f"{model} has no chat template; take the -Instruct model")
    for name, value in limits.items():
        found = pixel_limit(processor, name)
        if found != value:
            raise UserError(
                f"{name}={value}: the processor of {model} took {found!r}; it has no such limit, "
                "leave it away"
            )
    return processor


def pixel_limit(processor: Any, name: str) -> int | None:
    """The limit of the processor's resize, where it is one of areas, as in the Qwen-VL families.

    Their processors write it as an edge. Of other families that is an edge indeed: only a limit
    that was given and taken is sure.
    """
    edge = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}[name]
    value = (getattr(processor.image_processor, "size", None) or {}).get(edge)
    return None if value is None else int(value)


def empty_model(config: Any, *, trust_remote_code: bool = False) -> Any:
    """The model on no device: every parameter has a shape and no values."""
    import torch
    from transformers import AutoModelForImageTextToText

    load: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"):
        return load(config, trust_remote_code=trust_remote_code)


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


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
