"""Plain numbers x1, y1, x2, y2 in any bracket style, for models that follow a prompt's contract.

These read what a prompt asked for, not what a family learned: choose one together with a prompt
that names the scale, and record both.
"""

from univg_eval.dialects.family import (
    COMMA,
    NUMBER,
    PAIRS,
    SPACE_OR_COMMA,
    Confidence,
    Dialect,
    ImagePixels,
    NormDecimal,
    NormInt,
    Space,
    bare_line,
    four_in,
    grammar,
)

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


def _plain(name: str, space: Space, template: str, scale: str, note: str = "") -> Dialect:
    return Dialect(
        name=name,
        families=("any model under a prompt that names this scale",),
        form=_FORM,
        space=space,
        confidence=Confidence("high", "high", "high"),
        template=template,
        prompt_suffix=f"Answer with the bounding box as [x1, y1, x2, y2]{scale}.",
        grammar=ANY_BRACKETS,
        sources=("a contract between prompt and reader, no family's own form",),
        notes=(
            note
            or "confidence means the contract; whether a model keeps it is for its results to show",
        ),
    )


_WHOLE = "[{}, {}, {}, {}]"
_RELATIVE = "relative to the image's width and height"

DIALECTS = (
    _plain("norm1000", NormInt(1000), _WHOLE, f", integers from 0 to 1000 {_RELATIVE}"),
    _plain("norm999", NormInt(999, largest=999), _WHOLE, f", integers from 0 to 999 {_RELATIVE}"),
    _plain(
        "norm1",
        NormDecimal(3),
        "[{:.3f}, {:.3f}, {:.3f}, {:.3f}]",
        f", decimals from 0 to 1 {_RELATIVE}",
    ),
    _plain(
        "pixels",
        ImagePixels(),
        _WHOLE,
        " in pixels of the image",
        "pixels of the original image, whatever the model's own resize",
    ),
)
