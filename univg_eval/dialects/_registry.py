"""All dialects by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from univg_eval.dialects import (
    claude,
    cogvlm,
    deepseek,
    ferret,
    florence,
    gemini,
    glm,
    internvl,
    kimi,
    kosmos,
    llava,
    mimo,
    minicpm,
    molmo,
    moondream,
    paligemma,
    plain,
    qwen,
    seed,
    shikra,
    smoldocling,
    univg,
    vlm_r1,
)
from univg_eval.dialects._base import Dialect
from univg_eval.dialects.unknown import UNKNOWN_SCALES
from univg_eval.errors import UserError

__all__ = ["DIALECTS", "get_dialect", "list_dialects"]

_FAMILY_MODULES = (
    univg,
    qwen,
    vlm_r1,
    mimo,
    internvl,
    minicpm,
    glm,
    cogvlm,
    deepseek,
    kimi,
    seed,
    llava,
    gemini,
    paligemma,
    florence,
    kosmos,
    shikra,
    ferret,
    moondream,
    smoldocling,
    claude,
    molmo,
    plain,
)


def _collect() -> Mapping[str, Dialect]:
    dialects: dict[str, Dialect] = {}
    for module in _FAMILY_MODULES:
        for dialect in module.DIALECTS:
            if dialect.name in dialects:
                raise ValueError(f"two dialects are named {dialect.name!r}")
            dialects[dialect.name] = dialect
    return MappingProxyType(dialects)


DIALECTS: Mapping[str, Dialect] = _collect()
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
        UserError: unknown name (the message lists the known ones), a family without a known
            scale, or impossible limits.
    """
    dialect = DIALECTS.get(name)
    if dialect is None:
        if name in UNKNOWN_SCALES:
            raise UserError(UNKNOWN_SCALES[name].explain())
        raise UserError(f"unknown dialect {name!r}; expected one of: {', '.join(DIALECTS)}")
    return dialect.with_pixel_limits(min_pixels, max_pixels)
