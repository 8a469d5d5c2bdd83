"""All dialects by name, found in the modules of this package."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from univg_eval.dialects._base import Dialect
from univg_eval.dialects.unknown import UNKNOWN_SCALES
from univg_eval.errors import UserError, meant

__all__ = ["DIALECTS", "collect", "get_dialect", "list_dialects"]

_FIRST = (
    "univg qwen vlm_r1 mimo internvl minicpm glm cogvlm deepseek kimi seed llava gemini paligemma "
    "florence kosmos shikra ferret moondream smoldocling claude "
    "lfm isaac locate_anything rex_omni molmo plain"
)
"""Order in which modules are listed, and named where several read a text alike; others follow."""


def _modules() -> list[str]:
    first = _FIRST.split()
    found = [m.name for m in pkgutil.iter_modules(import_module("univg_eval.dialects").__path__)]
    return first + sorted(name for name in found if name[0] != "_" and name not in first)


def collect() -> Mapping[str, Dialect]:
    """The dialects of all modules of the package that define ``DIALECTS``.

    Raises:
        ValueError: two have the same name.
    """
    dialects: dict[str, Dialect] = {}
    for module in _modules():
        for dialect in getattr(import_module(f"univg_eval.dialects.{module}"), "DIALECTS", ()):
            if dialect.name in dialects:
                raise ValueError(f"two dialects are named {dialect.name!r}")
            dialects[dialect.name] = dialect
    return MappingProxyType(dialects)


DIALECTS: Mapping[str, Dialect] = collect()
"""All dialects by name; read-only."""


def list_dialects() -> list[str]:
    """Names of all dialects."""
    return list(DIALECTS)


def get_dialect(
    name: str, *, min_pixels: int | None = None, max_pixels: int | None = None
) -> Dialect:
    """The dialect of this name.

    Args:
        name: one of `list_dialects`.
        min_pixels: smallest area of the model's resized input in this run, in pixels; None for
            the family's documented default. Without effect where boxes do not depend on a resize.
        max_pixels: largest area, likewise.

    Raises:
        UserError: unknown name (the message names those near it), a family without a known
            scale, or impossible limits.
    """
    dialect = DIALECTS.get(name)
    if dialect is None:
        if name in UNKNOWN_SCALES:
            raise UserError(UNKNOWN_SCALES[name].explain())
        raise UserError(f"unknown dialect {name!r}; {meant(name, DIALECTS, 'univg dialects')}")
    return dialect.with_pixel_limits(min_pixels, max_pixels)
