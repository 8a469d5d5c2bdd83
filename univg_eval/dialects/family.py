"""What the module of a model family is written with: a dialect, its grammar, its space.

A module of this package that defines ``DIALECTS`` is found by itself; see docs/extending.md.
"""

from univg_eval.dialects._base import Confidence, Dialect
from univg_eval.dialects._grammar import (
    COMMA,
    NUMBER,
    PAIR,
    PAIRS,
    SPACE_OR_COMMA,
    XY_OBJECT,
    Found,
    Grammar,
    bare_line,
    four_in,
    grammar,
    in_tags,
)
from univg_eval.dialects._spaces import (
    BinCenters,
    FittedPixels,
    ImagePixels,
    InputPixels,
    NormDecimal,
    NormInt,
    PaddedSquare,
    PatchGrid,
    Percent,
    Points,
    Space,
)

__all__ = [
    "COMMA",
    "NUMBER",
    "PAIR",
    "PAIRS",
    "SPACE_OR_COMMA",
    "XY_OBJECT",
    "BinCenters",
    "Confidence",
    "Dialect",
    "FittedPixels",
    "Found",
    "Grammar",
    "ImagePixels",
    "InputPixels",
    "NormDecimal",
    "NormInt",
    "PaddedSquare",
    "PatchGrid",
    "Percent",
    "Points",
    "Space",
    "bare_line",
    "four_in",
    "grammar",
    "in_tags",
]
