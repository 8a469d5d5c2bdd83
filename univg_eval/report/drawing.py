"""Boxes drawn on an image: as SVG over a thumbnail for pages, or into a picture.

Colours are those of Okabe and Ito (2008), which readers with the common forms of colour blindness
tell apart; each kind of box also has a line pattern of its own, and a light rim that keeps the line
visible on any background.
"""

from __future__ import annotations

import base64
import io
import itertools
import math
import os
import unicodedata
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from univg_eval.boxes import Box, is_valid_box
from univg_eval.errors import UserError
from univg_eval.images.reading import load_image, load_reference
from univg_eval.report.text import as_html

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = [
    "BoxStyle",
    "Drawing",
    "DrawnBox",
    "Panel",
    "Shown",
    "box_text",
    "draw_boxes",
    "draw_panel",
    "swatch",
]

BoxStyle = Literal["truth", "answer", "faulty", "mark"]


@dataclass(frozen=True, slots=True)
class _Look:
    """How a kind of box is drawn: line colour, text colour on it, dashes in pixels of the view."""

    line: str
    text: str
    dashes: tuple[int, ...]
    at_bottom: bool  # where the label stands, so that truth and answer do not collide


_LOOKS: Mapping[BoxStyle, _Look] = {
    "truth": _Look("#0072b2", "#ffffff", (), at_bottom=False),
    "answer": _Look("#e69f00", "#000000", (9, 4), at_bottom=True),
    "faulty": _Look("#d55e00", "#000000", (3, 3), at_bottom=False),
    "mark": _Look("#cc79a7", "#000000", (12, 3, 2, 3), at_bottom=True),
}
# Pages show a drawing at about the size of its view, so that labels stay legible; the thumbnail is
# finer, for screens with more pixels.
VIEW_SIDE = 320
SHORTEST_VIEW = 240
THUMBNAIL_SIDE = 400
MAX_BYTES = 64 * 1024
FARTHEST_OUTSIDE = 0.25  # of the image's side
_FONT = 12
_CHIP = 16
_LONGEST_LABEL = 28


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box to draw.

    Attributes:
        box: xyxy_norm, on [0, 1] of the image; may be invalid and is then drawn as it is given.
        label: what it is, e.g. ``truth`` or ``answer 2``; data, not markup.
        style: ``truth`` (blue, solid), ``answer`` (orange, dashed), ``faulty`` (vermilion,
            dotted) or ``mark`` (what a question itself marks; purple, dash and dot).
    """

    box: Box
    label: str
    style: BoxStyle = "truth"


@dataclass(frozen=True, slots=True)
class Panel:
    """One image of a card, with its boxes.

    Attributes:
        image: a file (``clip.mp4#frame=12`` for a frame of a video), a PIL image, or None where
            there is none. A file is opened when the panel is drawn; one that cannot be opened is
            drawn as an empty frame that says why.
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
    """A panel as HTML.

    Attributes:
        svg: an ``<svg>`` element with the thumbnail inside, or a reference to an earlier one.
        image_wh: (width, height) of the image in pixels, None if it could not be opened.
        notes: what a reader must know: why an image is not shown, which box is no valid box.
    """

    svg: str
    image_wh: tuple[int, int] | None
    notes: tuple[str, ...]


Shown = MutableMapping[tuple[str, bool], tuple[str, tuple[int, int]]]
"""Files that a page holds already: (path, as_stored) → (id of the element, (width, height))."""


def draw_panel(
    panel: Panel,
    *,
    shown: Shown | None = None,
    thumbnail_side: int = THUMBNAIL_SIDE,
    max_bytes: int = MAX_BYTES,
) -> Drawing:
    """Draw a panel as SVG.

    Args:
        panel: what to draw.
        shown: files that are drawn elsewhere on the same page, which is then referred to instead
            of holding the thumbnail again; a file that is drawn is added.
        thumbnail_side: longest side of the thumbnail, in pixels.
        max_bytes: of the thumbnail's file, before base64.
    """
    key = (str(panel.image), panel.as_stored)
    is_file = isinstance(panel.image, (str, os.PathLike))
    earlier = shown.get(key) if shown is not None and is_file else None
    image, why_not = (None, "") if earlier is not None else _open(panel)
    image_wh = earlier[1] if earlier is not None else None if image is None else image.size
    # Its size in the view depends on its own size alone, so that a reference fits everywhere.
    view = _View.of(image_wh or panel.size or (4, 3), panel.boxes, VIEW_SIDE)
    picture = ""
    if earlier is not None:
        picture = f'<use href="#{earlier[0]}" />'
    elif image is not None:
        anchor = ""
        if shown is not None and is_file:
            shown[key] = f"image-{len(shown) + 1}", image.size
            anchor = f' id="{shown[key][0]}"'
        picture = (
            f'<image{anchor} href="{_data_uri(image, thumbnail_side, max_bytes)}" '
            f'width="{view.image_width:g}" height="{view.image_height:g}" '
            'preserveAspectRatio="none" />'
        )
    notes = [why_not] if why_not else []
    for drawn in panel.boxes:
        problem = _problem(drawn.box)
        if problem:
            notes.append(f"{drawn.label}: {problem}")
    # The style keeps a tall image from being taller than 24 lines.
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view.viewbox}" width="{view.width:g}" '
        f'height="{view.height:g}" style="max-width:{24 * view.width / view.height:.1f}rem" '
        'role="img" '
        f'aria-label="{as_html(_spoken(panel, notes))}">',
        f'<rect x="{view.left:g}" y="{view.top:g}" width="{view.width:g}" '
        f'height="{view.height:g}" fill="#8888" />',
    ]
    if picture:
        parts.append(picture)
    else:
        parts.append(
            f'<path d="M0 0H{view.image_width:g}V{view.image_height:g}H0ZL{view.image_width:g} '
            f'{view.image_height:g}M0 {view.image_height:g}L{view.image_width:g} 0" '
            'fill="#ddd" stroke="#999" />'
        )
        parts.append(
            f'<text x="{view.image_width / 2:g}" y="{view.image_height / 2:g}" fill="#000" '
            'text-anchor="middle" font-family="sans-serif" font-size="14" paint-order="stroke" '
            'stroke="#ddd" stroke-width="5">no image</text>'
        )
    parts += _svg_boxes(view, panel.boxes)
    parts.append("</svg>")
    return Drawing("".join(parts), image_wh, tuple(notes))


def draw_boxes(
    image: PILImage.Image, boxes: Sequence[DrawnBox], *, longest_side: int = 960
) -> PILImage.Image:
    """The image, scaled to `longest_side`, with the boxes painted on it (a new RGB image)."""
    from PIL import Image, ImageColor, ImageDraw, ImageFont

    view = _View.of(image.size, boxes, longest_side)
    picture = Image.new("RGB", (max(1, round(view.width)), max(1, round(view.height))), "#888888")
    shown = image.convert("RGB").resize((round(view.image_width), round(view.image_height)))
    picture.paste(shown, (round(-view.left), round(-view.top)))
    draw = ImageDraw.Draw(picture)
    for drawn in boxes:
        if not _is_finite(drawn.box):
            continue
        look = _LOOKS[drawn.style]
        x1, y1, x2, y2 = view.place(drawn.box)
        corners = [
            (x - view.left, y - view.top)
            for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1))
        ]
        draw.line(corners, fill="#ffffff", width=5, joint="curve")
        for piece in _dashes(corners, look.dashes):
            draw.line(piece, fill=ImageColor.getrgb(look.line), width=3)
    font = ImageFont.load_default(_FONT)
    for drawn, (x, y, _) in _labels(view, boxes):
        look = _LOOKS[drawn.style]
        label = _cut(drawn.label)
        left, top = x - view.left, y - view.top
        draw.rectangle((left, top, left + 8 + font.getlength(label), top + _CHIP), fill=look.line)
        draw.text((left + 4, top + 1), label, fill=look.text, font=font)
    return picture


def swatch(style: BoxStyle) -> str:
    """A short line as SVG that looks as boxes of this style do; for legends."""
    look = _LOOKS[style]
    return (
        '<svg class="swatch" width="28" height="10" aria-hidden="true">'
        f'<path d="M0 5H28" stroke="{look.line}" stroke-width="3"{_dash_attribute(look)} /></svg>'
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


@dataclass(frozen=True, slots=True)
class _View:
    """Where things lie, in units of the SVG's view box; the image's upper left corner is (0, 0).

    `left`, `top`, `width`, `height` are those of the view, which reaches beyond the image where a
    box does.
    """

    image_width: float
    image_height: float
    left: float
    top: float
    width: float
    height: float

    @classmethod
    def of(cls, image_wh: tuple[int, int], boxes: Sequence[DrawnBox], longest_side: int) -> _View:
        longest = max(image_wh)
        scale = min(max(longest, SHORTEST_VIEW), longest_side) / longest
        width, height = (max(1.0, side * scale) for side in image_wh)
        finite = [drawn.box for drawn in boxes if _is_finite(drawn.box)]
        xs = [0.0, 1.0, *(_limit(v) for box in finite for v in (box[0], box[2]))]
        ys = [0.0, 1.0, *(_limit(v) for box in finite for v in (box[1], box[3]))]
        return cls(
            image_width=width,
            image_height=height,
            left=min(xs) * width,
            top=min(ys) * height,
            width=(max(xs) - min(xs)) * width,
            height=(max(ys) - min(ys)) * height,
        )

    @property
    def viewbox(self) -> str:
        return f"{self.left:g} {self.top:g} {self.width:g} {self.height:g}"

    def place(self, box: Box) -> Box:
        """A box on [0, 1] in view units; corners in order, and not beyond the view."""
        x1, y1, x2, y2 = (_limit(value) for value in box)
        return (
            min(x1, x2) * self.image_width,
            min(y1, y2) * self.image_height,
            max(x1, x2) * self.image_width,
            max(y1, y2) * self.image_height,
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


def _svg_boxes(view: _View, boxes: Sequence[DrawnBox]) -> Iterator[str]:
    for drawn in boxes:
        if not _is_finite(drawn.box):
            continue
        look = _LOOKS[drawn.style]
        x1, y1, x2, y2 = (round(value, 1) for value in view.place(drawn.box))
        # A path, since SVG draws no rectangle without an area.
        path = f'd="M{x1:g} {y1:g}H{x2:g}V{y2:g}H{x1:g}Z" fill="none"'
        yield (
            f'<path {path} stroke="#fff" stroke-opacity="0.85" stroke-width="5" '
            'stroke-linecap="square" />'
        )
        yield f'<path {path} stroke="{look.line}" stroke-width="2.5"{_dash_attribute(look)} />'
    for drawn, (x, y, width) in _labels(view, boxes):
        look = _LOOKS[drawn.style]
        yield (
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{_CHIP}" fill="{look.line}" />'
            f'<text x="{x + 4:g}" y="{y + 12:g}" fill="{look.text}" font-family="monospace" '
            f'font-size="{_FONT}" textLength="{width - 8:g}" lengthAdjust="spacingAndGlyphs">'
            f"{as_html(_cut(drawn.label))}</text>"
        )


def _dash_attribute(look: _Look) -> str:
    dashes = " ".join(str(length) for length in look.dashes)
    return f' stroke-dasharray="{dashes}"' if dashes else ' stroke-linecap="square"'


def _cut(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _labels(
    view: _View, boxes: Sequence[DrawnBox]
) -> list[tuple[DrawnBox, tuple[float, float, float]]]:
    """(left, top, width) of the labels' chips: beside their boxes, in the view, not overlapping."""
    placed: list[tuple[DrawnBox, tuple[float, float, float]]] = []
    lowest = view.top + view.height - _CHIP
    for drawn in boxes:
        if not drawn.label or not _is_finite(drawn.box):
            continue
        x1, y1, _, y2 = view.place(drawn.box)
        width = 8 + 7.2 * sum(
            2 if unicodedata.east_asian_width(character) in "WF" else 1
            for character in _cut(drawn.label)
        )
        x = max(view.left, min(x1 - 1, view.left + view.width - width))
        at_bottom = _LOOKS[drawn.style].at_bottom
        y = min(max(y2 + 2 if at_bottom else y1 - _CHIP - 2, view.top), max(view.top, lowest))
        step = -(_CHIP + 1) if at_bottom and y2 + 2 > lowest else _CHIP + 1
        while (
            any(
                abs(y - other_y) < _CHIP and x < other_x + other_width and other_x < x + width
                for _, (other_x, other_y, other_width) in placed
            )
            and view.top <= y + step <= lowest
        ):
            y += step
        placed.append((drawn, (round(x, 1), round(y, 1), round(width, 1))))
    return placed


def _dashes(
    corners: Sequence[tuple[float, float]], dashes: tuple[int, ...]
) -> Iterator[list[tuple[float, float]]]:
    """The line through the corners, cut into its dashes; its whole sides if there are none."""
    for (x1, y1), (x2, y2) in itertools.pairwise(corners):
        length = math.dist((x1, y1), (x2, y2))
        if not dashes or length == 0:
            yield [(x1, y1), (x2, y2)]
            continue
        at = 0.0
        for step, is_drawn in itertools.cycle(
            zip(dashes, itertools.cycle((True, False)), strict=False)
        ):
            end = min(at + step, length)
            if is_drawn:
                yield [
                    (x1 + (x2 - x1) * t / length, y1 + (y2 - y1) * t / length) for t in (at, end)
                ]
            if end == length:
                break
            at = end


def _spoken(panel: Panel, notes: Sequence[str]) -> str:
    """The panel in words, for those who do not see it."""
    boxes = [f"{drawn.label} {box_text(drawn.box)}" for drawn in panel.boxes]
    return "; ".join([panel.caption or "image", *boxes, *notes])


def box_text(box: Box) -> str:
    """A box as text: ``[0.1, 0.25, 0.5, 0.75]``, at most four significant digits."""
    return "[" + ", ".join(f"{value:.4g}" for value in box) + "]"


def _data_uri(image: PILImage.Image, longest_side: int, max_bytes: int) -> str:
    """The image as a ``data:`` address of at most `max_bytes` (before base64): PNG or JPEG."""
    from PIL import Image

    thumbnail = image.convert("RGB")
    if max(thumbnail.size) > longest_side:
        thumbnail.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS, reducing_gap=3)
    # Few colours: a drawing, which JPEG would smear.
    if thumbnail.getcolors(256) is not None:
        data = _encoded(thumbnail, "PNG")
        if len(data) <= max_bytes:
            return _uri("png", data)
    while True:
        for quality in (75, 65, 55):
            data = _encoded(thumbnail, "JPEG", quality=quality, optimize=True)
            if len(data) <= max_bytes or max(thumbnail.size) <= 16:
                return _uri("jpeg", data)
        width, height = thumbnail.size
        thumbnail = thumbnail.resize((max(1, width * 3 // 4), max(1, height * 3 // 4)))


def _encoded(image: PILImage.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
