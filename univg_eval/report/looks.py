"""How runs and classes look: colours, dashes and markers, the same in charts and on images.

Colours are those of Okabe and Ito (2008). None of them has to be told from another alone: lines
and boxes differ in dashes too, points in their shape, and every run has a letter. Blue, solid, is
the truth's, as in `univg_eval.report.drawing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from univg_eval.analysis.failures import FailureKind

__all__ = ["CLASS_COLOURS", "ON_DARK", "Look", "look_of", "marker_path"]

_COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#999999")
_LINE_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")
_BOX_DASHES = ("9 4", "3 3", "12 3 2 3", "6 2 1 2", "1 4")
_MARKERS = (
    "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z",  # disc
    "M-3.6-3.6H3.6V3.6H-3.6Z",  # square
    "M0-4.8L4.4 3.4H-4.4Z",  # triangle
    "M0-5L5 0L0 5L-5 0Z",  # diamond
    "M0 4.8L4.4-3.4H-4.4Z",  # triangle on its head
    "M-1.6-4.8H1.6V-1.6H4.8V1.6H1.6V4.8H-1.6V1.6H-4.8V-1.6H-1.6Z",  # cross
)

CLASS_COLOURS: Mapping[FailureKind, str] = MappingProxyType(
    {
        "invalid_truth": "#d9d9d9",
        "truncated": "#666666",
        "wrong_image": "#0072b2",
        "no_box": "#999999",
        "said_none": "#bfbfbf",
        "false_alarm": "#f5c4dd",
        "other_scale": "#8fd6c1",
        "invalid_box": "#f0e442",
        "wrong_object": "#56b4e9",
        "loose": "#009e73",
        "tight": "#cc79a7",
        "shifted": "#e69f00",
        "image_mixup": "#c7b3e5",
        "elsewhere": "#d55e00",
    }
)
"""Of the classes of misses, the same on every page; the bars' parts carry numbers too."""

ON_DARK = frozenset({"#0072b2", "#666666"})
"""Colours on which white text is legible and black is not."""


@dataclass(frozen=True, slots=True)
class Look:
    """How a run is drawn.

    Attributes:
        colour: of lines, bars and boxes; black text is legible on it.
        line_dashes, box_dashes: SVG dash arrays; boxes are never solid, as the truth is.
        marker: SVG path of a point, about 9 units wide, centred on (0, 0).
    """

    colour: str
    line_dashes: str
    box_dashes: str
    marker: str


def look_of(position: int) -> Look:
    """The look of a run by its position; 210 runs pass before two look alike."""
    return Look(
        colour=_COLOURS[position % len(_COLOURS)],
        line_dashes=_LINE_DASHES[position % len(_LINE_DASHES)],
        box_dashes=_BOX_DASHES[position % len(_BOX_DASHES)],
        marker=_MARKERS[position % len(_MARKERS)],
    )


def marker_path(position: int, x: float, y: float, size: float = 1.0) -> str:
    """The marker of a run as an SVG element at a point."""
    look = look_of(position)
    return (
        f'<path class="mark" d="{look.marker}" fill="{look.colour}" '
        f'transform="translate({x:.1f} {y:.1f}) scale({size:g})" />'
    )
