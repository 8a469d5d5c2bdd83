"""From a model's config to its dialect and pixel limits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from univg_eval.dialects._registry import DIALECTS, get_dialect
from univg_eval.dialects.unknown import UNKNOWN_SCALES
from univg_eval.dialects.without_boxes import WITHOUT_BOXES
from univg_eval.errors import UserError

__all__ = [
    "MODEL_TYPES",
    "PixelLimits",
    "declared_settings",
    "dialect_for_config",
    "dialect_for_model",
    "pixel_limits",
]

MODEL_TYPES: Mapping[str, str] = MappingProxyType(
    {model_type: d.name for d in DIALECTS.values() for model_type in d.model_types}
    | {model_type: u.name for u in UNKNOWN_SCALES.values() for model_type in u.model_types}
)
"""Dialect (or family of unknown scale) by transformers' ``model_type``, or that of the remote code
which the checkpoint ships.

It does not tell a fine-tune from its base: UniVG-R1 and Migician are qwen2_vl, VLM-R1 and MiMo-VL
are qwen2_5_vl, with the same form and scale. Rex-Omni is qwen2_5_vl too, with another scale: see
`dialect_for_config`."""

_REMEDY = "set UNIVG_DIALECT or --dialect"


def dialect_for_model(model_type_or_config_dir: str | Path) -> str:
    """The dialect of a model, from its config and never from its replies.

    Args:
        model_type_or_config_dir: a transformers ``model_type``, or a local folder with
            ``config.json``. In a folder a field ``"univg": {"dialect": ...}`` of the config wins
            over its ``model_type``.

    Returns:
        The name of a dialect; the base family's where model_type does not tell a fine-tune from
        its base (see `MODEL_TYPES`).

    Raises:
        UserError: no config, an unknown type, or a family without a known scale; the message
            names the setting to give the dialect by.
    """
    folder = Path(model_type_or_config_dir)
    if folder.is_dir():
        declared = declared_settings(folder).get("dialect")
        if declared is not None:
            return get_dialect(declared).name
        path = folder / "config.json"
        name = dialect_for_config(_read_json(path), str(path), folder=folder)
        if name == "llava_1_5":
            _check_padding(folder)
        return name
    model_type = str(model_type_or_config_dir)
    return _named(model_type, f"{model_type!r}, which is no folder and, as a model_type,")


def dialect_for_config(
    config: Mapping[str, Any], source: str, *, name: str = "", folder: Path | None = None
) -> str:
    """The dialect of a model from the fields of its config.json; ``univg`` is not looked at.

    Where a family shares its model_type with another, further fields tell them apart. Rex-Omni is
    known by its name on the hub or by its tokenizer's coordinate tokens, ``<0>`` to ``<999>``: a
    copy that has neither is taken for its base, so its dialect has to be declared.

    Args:
        config: the content of config.json.
        source: where it lies, for messages.
        name: of the model, as on the hub.
        folder: with the tokenizer's files, where the model lies in a folder.

    Raises:
        UserError: see `dialect_for_model`.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(
            f"{source} has no model_type, so its dialect is not known; "
            f"{_REMEDY} to one of: {', '.join(DIALECTS)}"
        )
    architectures = config.get("architectures")
    where = f"model_type {model_type!r} of {source}"
    if model_type == "qwen" and "visual" in config:
        model_type = "qwen_vl"
    elif (
        model_type == "llava"
        and isinstance(architectures, list)
        and "LlavaQwenForCausalLM" in architectures
    ):
        model_type = "llava_onevision"
    elif model_type == "qwen2_5_vl" and _is_rex_omni(config, name, folder):
        return "rex_omni"
    return _named(model_type, where)


def _named(model_type: str, where: str) -> str:
    name = MODEL_TYPES.get(model_type)
    if name is None:
        why = f" ({WITHOUT_BOXES[model_type]})" if model_type in WITHOUT_BOXES else ""
        raise UserError(
            f"{where} belongs to no known dialect{why}; {_REMEDY} to one of: {', '.join(DIALECTS)}"
        )
    if name in UNKNOWN_SCALES:
        raise UserError(f"{UNKNOWN_SCALES[name].explain()}: {_REMEDY}")
    return name


_REX_OMNI = re.compile(r"(?i)rex[-_ ]?omni")
_TOKENIZER_FILES = ("added_tokens.json", "tokenizer_config.json", "tokenizer.json")


def _is_rex_omni(config: Mapping[str, Any], name: str, folder: Path | None) -> bool:
    names = (name, str(config.get("_name_or_path", "")))
    if any(map(_REX_OMNI.search, names)):
        return True
    files = [folder / file for file in _TOKENIZER_FILES] if folder else []
    return any('"<999>"' in file.read_text(encoding="utf-8") for file in files if file.is_file())


def _check_padding(folder: Path) -> None:
    """LLaVA-1.5's dialect presumes images padded to a square; some ports crop them instead."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return
    config = _read_json(path)
    if config.get("do_center_crop") is True and config.get("do_pad") is not True:
        raise UserError(
            f"{path} crops the middle of an image instead of padding it to a square, so the "
            "dialect llava_1_5 would misread the boxes of images that are not square; set do_pad "
            "in that file as the original model had it, or decide yourself: set UNIVG_DIALECT or "
            "--dialect"
        )


def declared_settings(config_dir: str | Path) -> dict[str, str]:
    """What a checkpoint declares about itself: the field ``univg`` of its ``config.json``.

    Returns:
        Keys such as ``dialect`` and ``prompt``; empty if nothing is declared.

    Raises:
        UserError: config.json is missing or no JSON object, or the field is no object of strings.
    """
    path = Path(config_dir) / "config.json"
    declared = _read_json(path).get("univg", {})
    if not isinstance(declared, dict) or not all(isinstance(v, str) for v in declared.values()):
        raise UserError(
            f'{path}: field "univg" is {declared!r}; expected an object of strings such as '
            '{"dialect": "univg_r1", "prompt": "think"}'
        )
    return declared


class PixelLimits(NamedTuple):
    """What a checkpoint's image processor allows: areas in pixels, None where nothing is said.

    Attributes:
        min_pixels: smallest area of an image as the model sees it.
        max_pixels: largest area, likewise.
        source: the file that says so; None if neither is said.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    source: Path | None = None


def pixel_limits(config_dir: str | Path) -> PixelLimits:
    """The pixel limits that the image processor of a model's folder is saved with.

    They stand under ``image_processor`` of ``processor_config.json``, where transformers 5 writes
    and first looks for them, else in ``preprocessor_config.json``: as ``min_pixels`` and
    ``max_pixels``, or, in the Qwen families' processors, as ``size.shortest_edge`` and
    ``size.longest_edge``, which hold areas there in spite of their names (with others, such as
    CLIP's, they are sides). The named fields win. No file says nothing.

    Raises:
        UserError: a file is no JSON object, or a limit is no positive whole number.
    """
    found = _image_processor(Path(config_dir))
    if found is None:
        return PixelLimits()
    path, config = found
    size = config.get("size")
    areas = "Qwen" in str(config.get("image_processor_type"))
    edges = size if isinstance(size, dict) and areas else {}
    limits: list[int | None] = []
    for key, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        value = config.get(key)
        if value is None:
            value = edges.get(edge)
        if value is not None and (type(value) is not int or value < 1):
            raise UserError(f"{path}: {key} is {value!r}; expected a number of pixels, at least 1")
        limits.append(value)
    if limits == [None, None]:
        return PixelLimits()
    return PixelLimits(limits[0], limits[1], path)


def _image_processor(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The settings of the image processor and their file, in transformers' order; None: no file."""
    nested, own = folder / "processor_config.json", folder / "preprocessor_config.json"
    if nested.is_file():
        config = _read_json(nested).get("image_processor")
        if isinstance(config, dict):
            return nested, config
    return (own, _read_json(own)) if own.is_file() else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; expected the folder of a model, or {_REMEDY}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}; {_REMEDY}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}; expected a JSON object")
    return content
