"""Plain numbers x1, y1, x2, y2 in any bracket style, for models that follow a prompt's contract.

These read what a prompt asked for, not what a family learned: choose one together with a prompt
that names the scale, and record both.
"""

from __future__ import annotations

from univg_eval.dialects._base import Confidence, Dialect
from univg_eval.dialects._grammar import (
    COMMA,
    NUMBER,
    PAIRS,
    SPACE_OR_COMMA,
    bare_line,
    four_in,
    grammar,
)
from univg_eval.dialects._spaces import ImagePixels, NormDecimal, NormInt, Space

__all__ = ["ANY_BRACKETS", "DIALECTS"]

_NESTED_PAIRS = (
    rf"\[\s*+\[\s*+{NUMBER}{COMMA}{NUMBER}\s*+\]{COMMA}\[\s*+{NUMBER}{COMMA}{NUMBER}\s*+\]\s*+\]"
)
ANY_BRACKETS = grammar(
    PAIRS,
    _NESTED_PAIRS,
    four_in("[({<>", "])}<>", SPACE_OR_COMMA),
    alone=bare_line(),
    keys=None,
    named_corners=True,
)

_FORM = "four numbers in any brackets, pairs, tags, JSON or alone on a line"


def _plain(name: str, space: Space, template: str, suffix: str, note: str) -> Dialect:
    return Dialect(
        name=name,
        families=("any model under a prompt that names this scale",),
        form=_FORM,
        space=space,
        confidence=Confidence("high", "high", "high"),
        template=template,
        prompt_suffix=suffix,
        grammar=ANY_BRACKETS,
        sources=("a contract between prompt and reader, no family's own form",),
        notes=(note,),
    )


DIALECTS = (
    _plain(
        "norm1000",
        NormInt(1000),
        "[{}, {}, {}, {}]",
        "Answer with the bounding box as [x1, y1, x2, y2], integers from 0 to 1000 relative to "
        "the image's width and height.",
        "confidence means the contract; whether a model keeps it is for its results to show",
    ),
    _plain(
        "norm999",
        NormInt(999, largest=999),
        "[{}, {}, {}, {}]",
        "Answer with the bounding box as [x1, y1, x2, y2], integers from 0 to 999 relative to "
        "the image's width and height.",
        "confidence means the contract; whether a model keeps it is for its results to show",
    ),
    _plain(
        "norm1",
        NormDecimal(3),
        "[{:.3f}, {:.3f}, {:.3f}, {:.3f}]",
        "Answer with the bounding box as [x1, y1, x2, y2], decimals from 0 to 1 relative to the "
        "image's width and height.",
        "confidence means the contract; whether a model keeps it is for its results to show",
    ),
    _plain(
        "pixels",
        ImagePixels(),
        "[{}, {}, {}, {}]",
        "Answer with the bounding box as [x1, y1, x2, y2] in pixels of the image.",
        "pixels of the original image, whatever the model's own resize",
    ),
)
