"""A checkpoint of transformers in memory: config, processor, and weights that are whole."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from univg_eval.errors import UserError
from univg_eval.files import verify_sums

__all__ = [
    "commit_of",
    "empty_model",
    "load_config",
    "load_model",
    "load_processor",
    "pixel_limit",
    "whole_weights",
]


def commit_of(model: str, revision: str | None = None) -> str | None:
    """The commit of the Hub that this machine holds of a model; None for a folder or a service's.

    transformers (5.23) notes it in no configuration.
    """
    if Path(model).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model, "config.json", revision=revision or "main")
    except HFValidationError:  # no name that the Hub may have
        return None
    return Path(found).parent.name if isinstance(found, str) else None


def load_config(model: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The model's ``config.json``; a UserError if there is none, or the model takes no images."""
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            model, revision=revision or "main", trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        reason = _reason(error)
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
    needs_template: bool = True,
    **options: Any,
) -> Any:
    """The model's processor, with limits of the area of an image as the model sees it.

    Args:
        needs_template: refuse a model without a chat template, as few are.

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
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot load the processor of {model!r}: {_reason(error)}") from error
    if getattr(processor, "image_processor", None) is None:
        raise UserError(f"{model} has no processor of images beside its tokenizer")
    if needs_template and processor.chat_template is None:
        raise UserError(f"{model} has no chat template; take the -Instruct model")
    for name in limits:
        # The tokenizer keeps every option, and the processor passes it on to each call, in place of
        # the size that it was made with: deprecated by transformers.
        processor.tokenizer.init_kwargs.pop(name, None)
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


@contextmanager
def whole_weights(guard: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Iterator[None]:
    """Refuse checkpoints that lack weights of the model that they are loaded into, or were changed.

    transformers draws missing ones at random and goes on with a warning. The block may load by
    whatever code, as long as that uses transformers' ``from_pretrained``.

    Args:
        guard: a context within which the error is raised, such as one that ends the program where
            the code of the block catches every exception.

    Raises:
        UserError: weights are missing in the files, or have another shape there; or the files are
            not those that were saved, see `univg_eval.files.verify_sums`.
    """
    from transformers import modeling_utils as code

    modeling_utils: Any = code
    report = modeling_utils.log_state_dict_report

    def checked(*, model: Any, loading_info: Any, **arguments: Any) -> None:
        name = type(model).__name__
        place = arguments["pretrained_model_name_or_path"]
        mismatched = [key for key, *_ in loading_info.mismatched_keys]
        for kind, keys in (("missing", loading_info.missing_keys), ("mismatched", mismatched)):
            if keys:
                with guard():
                    raise UserError(
                        f"{place}: {len(keys)} weights are {kind} in its files, such as "
                        f"{min(keys)}; they would be random. Is it whole, and a checkpoint of "
                        f"{name}?"
                    )
        with guard():
            verify_sums(Path(place))
        report(model=model, loading_info=loading_info, **arguments)

    with patch.object(modeling_utils, "log_state_dict_report", checked):
        yield


def load_model(
    model: str,
    *,
    dtype: str = "auto",
    attention: str | None = None,
    device: str = "cpu",
    device_map: str | None = None,
    adapter: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The model with its weights, for generating.

    Args:
        model: folder or name on the Hub.
        dtype: of the weights, such as bfloat16; ``auto``: as the checkpoint says.
        attention: ``sdpa``, ``flash_attention_2``, …; None: transformers' choice.
        device: where all of it goes, unless `device_map` spreads it.
        adapter: folder or name of a PEFT adapter to put on it.

    Raises:
        UserError: it cannot be loaded, or some weights of model or adapter are not in the files:
            transformers would draw them at random and go on with a warning.
    """
    from transformers import AutoModelForImageTextToText

    load: Any = AutoModelForImageTextToText.from_pretrained
    try:
        with whole_weights():
            loaded = load(
                model,
                dtype=dtype,
                attn_implementation=attention,
                device_map=device_map or device,
                revision=revision or "main",
                trust_remote_code=trust_remote_code,
            )
    except UserError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"cannot load the model {model!r}: {_reason(error)}") from error
    if adapter is not None:
        loaded = _with_adapter(loaded, adapter)
    return loaded.eval()


def _with_adapter(model: Any, adapter: str) -> Any:
    try:
        from peft import PeftModel
    except ModuleNotFoundError as error:
        raise UserError("adapter needs the package 'peft'; install it: pip install peft") from error
    verify_sums(Path(adapter))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            adapted = PeftModel.from_pretrained(model, adapter)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"cannot load the adapter {adapter!r}: {_reason(error)}") from error
    for warning in said:
        if "missing adapter keys" in str(warning.message):
            raise UserError(f"the adapter {adapter} does not fit the model: {warning.message}")
    return adapted


def empty_model(config: Any, *, trust_remote_code: bool = False) -> Any:
    """The model on no device: every parameter has a shape and no values."""
    import torch
    from transformers import AutoModelForImageTextToText

    load: Any = AutoModelForImageTextToText.from_config
    with torch.device("meta"), _without_zero3():
        return load(config, trust_remote_code=trust_remote_code)


@contextmanager
def _without_zero3() -> Iterator[None]:
    """Under ZeRO-3 transformers would spread weights that have no values, and fail."""
    from transformers.integrations import deepspeed

    with patch.object(deepspeed, "_hf_deepspeed_config_weak_ref", None):
        yield


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            "it comes with code of its own, which is run only where trust_remote_code=True is "
            "given: read that code first"
        )
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
