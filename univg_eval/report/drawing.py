"""Boxes painted on images, and the colours and dashes of boxes and runs.

Colours are those of Okabe and Ito (2008), which readers with the common forms of colour blindness
tell apart. Each kind of box and each run also has dashes and a label of its own, and boxes have a
light rim that is visible on any background.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from univg_eval.boxes import Box, box_text, is_valid_box
from univg_eval.errors import UserError
from univg_eval.images.reading import load_image, load_reference

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = [
    "BoxStyle",
    "Drawing",
    "DrawnBox",
    "Panel",
    "RunStyle",
    "draw_boxes",
    "draw_panel",
    "run_style",
]

BoxStyle = Literal["truth", "answer", "faulty", "mark"]


@dataclass(frozen=True, slots=True)
class _Style:
    """Line colour, text colour on it, dashes in pixels; where the label stands."""

    line: str
    text: str
    dashes: tuple[int, ...]
    at_bottom: bool  # so that the labels of truth and answer do not collide


_STYLES: Mapping[BoxStyle, _Style] = {
    "truth": _Style("#0072b2", "#ffffff", (), at_bottom=False),
    "answer": _Style("#e69f00", "#000000", (9, 4), at_bottom=True),
    "faulty": _Style("#d55e00", "#000000", (3, 3), at_bottom=False),
    "mark": _Style("#cc79a7", "#000000", (12, 3, 2, 3), at_bottom=True),
}
_RUN_COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442", "#999999")
_RUN_LINES = ((), (7, 3), (2, 3), (9, 3, 2, 3), (4, 2))
_RUN_BOXES = ("10 4", "4 3", "12 3 3 3", "7 2 2 2", "2 2")
_RUN_MARKERS = ("o", "s", "^", "D", "v", "P")

VIEW_SIDE = 400
DENSITY = 2
"""Pixels of a panel for one of the page, so that it is sharp on fine screens."""
SHORTEST_VIEW = 240
FARTHEST_OUTSIDE = 0.25  # of the image's side
_FONT = 12
_LABEL_HEIGHT = 16
_LONGEST_LABEL = 28
_GREY = "#888888"


@dataclass(frozen=True, slots=True)
class RunStyle:
    """How a run is drawn.

    Attributes:
        colour: of lines, bars and boxes; black text is legible on it.
        line: dashes of a line in points, empty if solid.
        box: SVG dash array; never solid, as the truth is.
        marker: matplotlib's name of a marker.
    """

    colour: str
    line: tuple[int, ...]
    box: str
    marker: str


def run_style(position: int) -> RunStyle:
    """The style of a run by its position; 210 runs pass before two are the same."""
    styles = (_RUN_COLOURS, _RUN_LINES, _RUN_BOXES, _RUN_MARKERS)
    return RunStyle(*(values[position % len(values)] for values in styles))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box to draw.

    Attributes:
        box: xyxy_norm, on [0, 1] of the image; may be invalid and is then drawn as it is given.
        label: what it is, e.g. ``truth`` or ``answer 2``; data, not markup.
        style: ``truth`` (blue, solid), ``answer`` (orange, dashed), ``faulty`` (vermilion,
            dotted) or ``mark`` (what an instruction itself marks; purple, dash and dot).
    """

    box: Box
    label: str
    style: BoxStyle = "truth"


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of a card, with its boxes.

    Attributes:
        image: a file (``clip.mp4#frame=12`` for a frame of a video), a PIL image, or None where
            there is none. A file that cannot be opened is drawn as an empty frame, with the reason.
        boxes: drawn in this order, later ones on top.
        caption: text below the image, e.g. ``image 2``.
        size: (width, height) in pixels of an image that is not there; only its shape is used.
        as_stored: show the pixels of a file as they lie in it, without its EXIF orientation.
    """

    image: str | os.PathLike[str] | PILImage.Image | None
    boxes: Sequence[DrawnBox] = ()
    caption: str = ""
    size: tuple[int, int] | None = None
    as_stored: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """A panel as painted.

    Attributes:
        image: with the boxes on it, RGB, at most `VIEW_SIDE` times `DENSITY` and what reaches
            beyond it.
        image_wh: (width, height) of the panel's image in pixels, None if it could not be opened.
        notes: why the image is not shown, which box is no valid box.
        spoken: the panel in words.
    """

    image: PILImage.Image
    image_wh: tuple[int, int] | None
    notes: tuple[str, ...]
    spoken: str


def draw_panel(panel: Panel) -> Drawing:
    """Paint a panel; an image that is not there becomes a grey frame with the boxes."""
    from PIL import Image

    found, why_not = _open(panel)
    image = found
    if image is None:
        width, height = panel.size or (4, 3)
        scale = VIEW_SIDE / max(width, height)
        image = Image.new(
            "RGB", (max(1, round(width * scale)), max(1, round(height * scale))), "#dddddd"
        )
    notes = [why_not] if why_not else []
    notes += [
        f"{drawn.label}: {problem}" for drawn in panel.boxes if (problem := _problem(drawn.box))
    ]
    boxes = [f"{drawn.label} {box_text(drawn.box)}" for drawn in panel.boxes]
    return Drawing(
        image=draw_boxes(image, panel.boxes, longest_side=VIEW_SIDE, density=DENSITY),
        image_wh=None if found is None else found.size,
        notes=tuple(notes),
        spoken="; ".join([panel.caption or "image", *boxes, *notes]),
    )


def _open(panel: Panel) -> tuple[PILImage.Image | None, str]:
    """The image of a panel, or None and why there is none."""
    if panel.image is None:
        return None, "there is no image"
    if not isinstance(panel.image, (str, os.PathLike)):
        return panel.image, ""
    try:
        if panel.as_stored:
            return load_image(panel.image, upright=False), ""
        return load_reference(os.fspath(panel.image), Path()), ""
    except UserError as error:
        return None, str(error)


def draw_boxes(
    image: PILImage.Image,
    boxes: Sequence[DrawnBox],
    *,
    longest_side: int = 960,
    density: int = 1,
) -> PILImage.Image:
    """The image with the boxes painted on it (a new RGB image).

    Args:
        image: is scaled so that its longest side is between 240 and `longest_side` pixels.
        boxes: one that reaches outside enlarges the result, by at most a quarter of the image's
            side on each side; one whose numbers are not finite is left out.
        longest_side: in pixels, of the image itself.
        density: pixels of the result for one of these, in lines and labels too.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = density * min(max(*image.size, SHORTEST_VIEW), longest_side) / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    finite = [drawn for drawn in boxes if _is_finite(drawn.box)]
    placed = [_placed(drawn.box, width, height) for drawn in finite]
    left, top = (round(min([0.0, *(box[side] for box in placed)])) for side in (0, 1))
    right, bottom = (
        round(max([float(end), *(box[side] for box in placed)]))
        for side, end in ((2, width), (3, height))
    )
    painted = Image.new("RGB", (right - left, bottom - top), _GREY)
    scaled = image.convert("RGB").resize((width, height), reducing_gap=2)
    painted.paste(scaled, (-left, -top))
    draw = ImageDraw.Draw(painted)
    placed = [(x1 - left, y1 - top, x2 - left, y2 - top) for x1, y1, x2, y2 in placed]
    for drawn, (x1, y1, x2, y2) in zip(finite, placed, strict=True):
        style = _STYLES[drawn.style]
        corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
        draw.line(corners, fill="#ffffff", width=5 * density, joint="curve")
        for piece in _dashes(corners, tuple(density * dash for dash in style.dashes)):
            draw.line(piece, fill=style.line, width=3 * density)
    font = ImageFont.load_default(_FONT * density)
    # Labels are placed as on the page.
    view = (painted.width / density, painted.height / density)
    on_page = [
        (x1 / density, y1 / density, x2 / density, y2 / density) for x1, y1, x2, y2 in placed
    ]
    for drawn, place in _labels(finite, on_page, view, lambda t: font.getlength(t) / density):
        style = _STYLES[drawn.style]
        x, y, wide = (density * value for value in place)
        draw.rectangle((x, y, x + wide, y + density * _LABEL_HEIGHT), fill=style.line)
        at = (x + 4 * density, y + density)
        draw.text(at, _cut(drawn.label), fill=style.text, font=font)
    return painted


def _placed(box: Box, width: int, height: int) -> Box:
    """A box on [0, 1] in pixels; corners in order, not farther outside than is drawn."""
    x1, y1, x2, y2 = (_limit(value) for value in box)
    return (
        min(x1, x2) * width,
        min(y1, y2) * height,
        max(x1, x2) * width,
        max(y1, y2) * height,
    )


def _limit(value: float) -> float:
    return min(max(value, -FARTHEST_OUTSIDE), 1 + FARTHEST_OUTSIDE)


def _is_finite(box: Box) -> bool:
    return all(math.isfinite(value) for value in box)


def _problem(box: Box) -> str:
    """What is wrong with a box, in words; empty if it is valid."""
    if is_valid_box(box):
        return ""
    if not _is_finite(box):
        return "not drawn, its numbers are not finite"
    x1, y1, x2, y2 = box
    words = []
    for low, high, axis in ((x1, x2, "x"), (y1, y2, "y")):
        if low > high:
            words.append(f"{axis}1 is greater than {axis}2 (drawn between the same corners)")
        elif low == high:
            words.append(f"{axis}1 equals {axis}2, so it has no area")
    if min(box) < 0 or max(box) > 1:
        words.append("reaches outside the image")
    if any(value != _limit(value) for value in box):
        words.append("drawn only as far as the view goes")
    return ", ".join(words)


def _cut(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _labels(
    boxes: Sequence[DrawnBox],
    placed: Sequence[Box],
    size: tuple[float, float],
    length: Callable[[str], float],
) -> list[tuple[DrawnBox, tuple[float, float, float]]]:
    """(left, top, width) of the labels: beside their boxes, in the image, not overlapping."""
    found: list[tuple[DrawnBox, tuple[float, float, float]]] = []
    lowest = size[1] - _LABEL_HEIGHT
    for drawn, (x1, y1, _, y2) in zip(boxes, placed, strict=True):
        if not drawn.label:
            continue
        width = 8 + length(_cut(drawn.label))
        x = max(0.0, min(x1 - 1, size[0] - width))
        at_bottom = _STYLES[drawn.style].at_bottom
        y = min(max(y2 + 2 if at_bottom else y1 - _LABEL_HEIGHT - 2, 0.0), max(0.0, lowest))
        step = (_LABEL_HEIGHT + 1) * (-1 if at_bottom and y2 + 2 > lowest else 1)

        def is_taken(x: float, y: float, width: float) -> bool:
            return any(
                abs(y - b) < _LABEL_HEIGHT and x < a + other and a < x + width
                for _, (a, b, other) in found
            )

        while is_taken(x, y, width) and 0 <= y + step <= lowest:
            y += step
        found.append((drawn, (x, y, width)))
    return found


def _dashes(
    corners: Sequence[tuple[float, float]], dashes: tuple[int, ...]
) -> Iterator[list[tuple[float, float]]]:
    """The line through the corners, cut into its dashes; its whole sides if there are none."""
    for (x1, y1), (x2, y2) in itertools.pairwise(corners):
        length = math.dist((x1, y1), (x2, y2))
        if not dashes or length == 0:
            yield [(x1, y1), (x2, y2)]
            continue
        start = 0.0
        steps = zip(itertools.cycle(dashes), itertools.cycle((True, False)), strict=False)
        for step, is_drawn in steps:
            end = min(start + step, length)
            if is_drawn:
                yield [
                    (x1 + (x2 - x1) * t / length, y1 + (y2 - y1) * t / length) for t in (start, end)
                ]
            if end == length:
                break
            start = end
