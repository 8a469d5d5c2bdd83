"""Plain numbers x1, y1, x2, y2 in any bracket style, for models that follow a prompt's contract.

These read what a prompt asked for, not what a family learned: choose one together with a prompt
that names the scale, and record both.
"""

from univg_eval.dialects.family import (
    COMMA,
    NUMBER,
    PAIR,
    PAIRS,
    SPACE_OR_COMMA,
    XY_OBJECT,
    Confidence,
    Dialect,
    Grammar,
    ImagePixels,
    NormDecimal,
    NormInt,
    Percent,
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

# A list of tuples, as RefSpatial-Bench and RoboPoint ask for, or JSON, as Point-Bench does.
_POINTS = grammar(
    PAIR,
    XY_OBJECT,
    rf"<points?>\s*+(?:{NUMBER}{SPACE_OR_COMMA}{NUMBER}\s*+(?=<)|{PAIR})",
    keys=("point", "points", "point_2d", "coordinates"),
    points=True,
)

_FORM = "four numbers in any brackets, pairs, tags, JSON or alone on a line"
_CORNERS = '"x_min": {}, "y_min": {}, "x_max": {}, "y_max": {}'
_RELATIVE = "relative to the image's width and height"
_WHOLE = "[{}, {}, {}, {}]"


def _plain(
    name: str,
    space: Space,
    request: str,
    template: str = _WHOLE,
    *,
    form: str = _FORM,
    grammar: Grammar = ANY_BRACKETS,
    points: bool = False,
    notes: tuple[str, ...] = (),
) -> Dialect:
    return Dialect(
        name=name,
        families=("any model",),
        form=form,
        space=space,
        confidence=Confidence("high", "high", "high"),
        template=template,
        prompt_suffix=f"Answer with the bounding box as {request}.",
        grammar=grammar,
        point_form="(x, y) or [x, y], several in a list, tags or JSON" if points else "",
        point_grammar=_POINTS if points else None,
        sources=("a contract between prompt and reader, no family's own form",),
        notes=(
            *notes,
            "confidence means the contract; whether a model keeps it is for its results to show",
        ),
    )


def _corners(number: str) -> str:
    """A template of a JSON object with named corners."""
    return f"{{{{{_CORNERS.format(*[number] * 4)}}}}}"


_LIST = "[x1, y1, x2, y2]"
_OBJECT = 'JSON {"x_min": .., "y_min": .., "x_max": .., "y_max": ..}'
_OF_ORIGINAL = "pixels of the original image, whatever the model's own resize"

DIALECTS = (
    _plain("norm1000", NormInt(1000), f"{_LIST}, integers from 0 to 1000 {_RELATIVE}", points=True),
    _plain(
        "norm999",
        NormInt(999, largest=999),
        f"{_LIST}, integers from 0 to 999 {_RELATIVE}",
        points=True,
    ),
    _plain(
        "norm100",
        Percent(1),
        f"{_LIST}, percentages (decimals from 0 to 100) of the image's width and height",
        "[{:.1f}, {:.1f}, {:.1f}, {:.1f}]",
        points=True,
    ),
    _plain(
        "norm1",
        NormDecimal(3),
        f"{_LIST}, decimals from 0 to 1 {_RELATIVE}",
        "[{:.3f}, {:.3f}, {:.3f}, {:.3f}]",
        points=True,
    ),
    _plain(
        "pixels",
        ImagePixels(),
        f"{_LIST} in pixels of the image",
        points=True,
        notes=(_OF_ORIGINAL,),
    ),
    _plain(
        "norm1000_corners",
        NormInt(1000),
        f"{_OBJECT}, integers from 0 to 1000 {_RELATIVE}",
        _corners("{}"),
    ),
    _plain(
        "norm1_corners",
        NormDecimal(3),
        f"{_OBJECT}, decimals from 0 to 1 {_RELATIVE}",
        _corners("{:.3f}"),
    ),
    _plain(
        "norm1000_yxyx",
        NormInt(1000, "yxyx"),
        'JSON {"box_2d": [y_min, x_min, y_max, x_max]}, integers from 0 to 1000 relative to the '
        "image's height and width",
        '{{"box_2d": [{}, {}, {}, {}]}}',
        form='{"box_2d": [y_min, x_min, y_max, x_max]} or the bare list',
        grammar=grammar(four_in("[", "]"), keys=("box_2d",)),
        notes=("y comes first, as in gemini, but because the prompt says so",),
    ),
    _plain(
        "pixels_box_2d",
        ImagePixels(),
        'JSON {"box_2d": [x_min, y_min, x_max, y_max]}, x first, in pixels of the image',
        '{{"box_2d": [{}, {}, {}, {}]}}',
        notes=("x comes first, unlike in gemini", _OF_ORIGINAL),
    ),
)
