"""Vector scenes of coloured shapes, drawn with Pillow at any size.

A scene is data: a background ramp, objects in normalised boxes, red marks. The same scene
can be drawn at 448 px for people and benchmarks and at 112 px for training; a crop or another
view of a scene is a scene again. All coordinates are xyxy_norm of the scene's own image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from univg_eval.boxes import Box

if TYPE_CHECKING:
    from PIL import Image as PILImage
    from PIL import ImageDraw as PILImageDraw

__all__ = [
    "COLORS",
    "MARK_RGB",
    "SHAPES",
    "Background",
    "Scene",
    "SceneObject",
    "map_box",
]

RGB = tuple[float, float, float]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 28, 28),
    "green": (10, 150, 30),
    "blue": (30, 50, 235),
    "yellow": (250, 232, 20),
    "purple": (165, 20, 215),
    "cyan": (40, 232, 240),
    "white": (252, 252, 252),
    "black": (8, 8, 8),
}
"""Object colours, near the corners of the RGB cube; the background stays in its middle."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross", "ring", "diamond")
"""Plain object shapes. Each fills its box: it touches all four sides."""

MARK_RGB = (255, 0, 0)
FURNITURE_RGB = (70, 45, 25)
_SUPERSAMPLE = 2

# A primitive is (kind, points) in the unit square of the object's box.
_Primitive = tuple[str, tuple[tuple[float, float], ...]]

_CROSS = (
    (1 / 3, 0.0),
    (2 / 3, 0.0),
    (2 / 3, 1 / 3),
    (1.0, 1 / 3),
    (1.0, 2 / 3),
    (2 / 3, 2 / 3),
    (2 / 3, 1.0),
    (1 / 3, 1.0),
    (1 / 3, 2 / 3),
    (0.0, 2 / 3),
    (0.0, 1 / 3),
    (1 / 3, 1 / 3),
)
_FULL = ((0.0, 0.0), (1.0, 1.0))

PRIMITIVES: dict[str, tuple[_Primitive, ...]] = {
    "circle": (("ellipse", _FULL),),
    "square": (("polygon", ((0, 0), (1, 0), (1, 1), (0, 1))),),
    "triangle": (("polygon", ((0.5, 0), (1, 1), (0, 1))),),
    "cross": (("polygon", _CROSS),),
    "ring": (("ring", _FULL),),
    "diamond": (("polygon", ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5))),),
    # Parts of the composed objects of the correspondence task, drawn pointing upwards:
    # the grip is below, the working part above.
    "bar": (("polygon", ((0, 0), (1, 0), (1, 1), (0, 1))),),
    "blade": (("polygon", ((0.0, 1), (0.0, 0.35), (1.0, 0.0), (1.0, 1))),),
    "dome": (("polygon", ((0, 1), (0.06, 0.6), (0.25, 0.22), (0.5, 0.0), (0.75, 0.22),
                          (0.94, 0.6), (1, 1))),),
    "comb": (("polygon", ((0, 1), (0, 0), (0.2, 0), (0.2, 0.55), (0.4, 0.55), (0.4, 0),
                          (0.6, 0), (0.6, 0.55), (0.8, 0.55), (0.8, 0), (1, 0), (1, 1))),),
    "bit": (("polygon", ((0, 1), (0, 0), (1, 0), (1, 0.2), (0.4, 0.2), (0.4, 0.4), (1, 0.4),
                         (1, 0.6), (0.4, 0.6), (0.4, 1))),),
    "wedge": (("polygon", ((0.3, 0.0), (0.3, 0.25), (1, 0), (1, 1), (0.3, 0.75), (0.3, 1.0),
                           (0, 1.0), (0, 0.0))),),
    "mug": (("polygon", ((0, 0), (1, 0), (0.85, 1), (0.15, 1))),),
    "oval": (("ellipse", _FULL),),
    "hoop": (("ring", _FULL),),
}  # fmt: skip


def _turn(point: tuple[float, float], turn: int) -> tuple[float, float]:
    """Turn a point of the unit square: quarter turns clockwise, then mirrored if turn >= 4."""
    x, y = point
    for _ in range(turn % 4):
        x, y = 1.0 - y, x
    return (1.0 - x, y) if turn >= 4 else (x, y)


def map_box(box: Box, window: Box, *, mirror: bool = False) -> Box:
    """Coordinates of `box` inside `window` (both in the same space), optionally mirrored."""
    x0, y0, x1, y1 = window
    w, h = x1 - x0, y1 - y0
    left, right = (box[0] - x0) / w, (box[2] - x0) / w
    if mirror:
        left, right = 1.0 - right, 1.0 - left
    return (left, (box[1] - y0) / h, right, (box[3] - y0) / h)


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One coloured shape.

    Attributes:
        shape: a key of `PRIMITIVES`.
        color: a key of `COLORS`.
        box: xyxy_norm; may reach outside the image in a crop.
        turn: 0 to 7, quarter turns clockwise and (from 4) a mirroring.
        name: what the object is called instead of its shape ("hammer head").
    """

    shape: str
    color: str
    box: Box
    turn: int = 0
    name: str | None = None

    @property
    def label(self) -> str:
        """Colour and name: "red circle"."""
        return f"{self.color} {self.name or self.shape}"

    @property
    def is_whole(self) -> bool:
        """Whether all of the object lies within the image."""
        x1, y1, x2, y2 = self.box
        eps = 1e-9
        return x1 >= -eps and y1 >= -eps and x2 <= 1 + eps and y2 <= 1 + eps


@dataclass(frozen=True, slots=True)
class Background:
    """A linear ramp: colour(x, y) = base + dx * x + dy * y, in 0-255, x and y in [0, 1]."""

    base: RGB
    dx: RGB
    dy: RGB

    def window(self, window: Box) -> Background:
        """The same ramp seen through a window (xyxy_norm)."""
        x0, y0, x1, y1 = window

        def at(c: int) -> float:
            return self.base[c] + self.dx[c] * x0 + self.dy[c] * y0

        w, h = x1 - x0, y1 - y0
        (dx0, dx1, dx2), (dy0, dy1, dy2) = self.dx, self.dy
        return Background(
            (at(0), at(1), at(2)), (dx0 * w, dx1 * w, dx2 * w), (dy0 * h, dy1 * h, dy2 * h)
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """One image as data.

    Attributes:
        background: the ramp behind everything.
        objects: the shapes, drawn in this order.
        marks: boxes (xyxy_norm) drawn as a red outline just around them.
        furniture: boxes of dark brown shelves; never a target.
        gain: brightness factor of the finished image.
        scale: size of the stored image relative to the other images of an item.
    """

    background: Background
    objects: tuple[SceneObject, ...]
    marks: tuple[Box, ...] = ()
    furniture: tuple[Box, ...] = ()
    gain: float = 1.0
    scale: float = 1.0

    def window(self, window: Box) -> Scene:
        """A crop of the scene: the part within `window` (xyxy_norm) fills the new image."""
        return replace(
            self,
            background=self.background.window(window),
            objects=tuple(
                moved
                for obj in self.objects
                if _visible((moved := replace(obj, box=map_box(obj.box, window))).box)
            ),
            marks=tuple(map_box(box, window) for box in self.marks),
            furniture=tuple(map_box(box, window) for box in self.furniture),
        )

    def render(self, size: int | tuple[int, int]) -> PILImage.Image:
        """Draw the scene as an RGB image of `size` (side, or (width, height)), antialiased."""
        from PIL import Image, ImageDraw

        width, height = (size, size) if isinstance(size, int) else size
        big_wh = (width * _SUPERSAMPLE, height * _SUPERSAMPLE)
        image = Image.fromarray(self._ramp(big_wh))
        draw = ImageDraw.Draw(image)
        for box in self.furniture:
            draw.rectangle(_pixels(box, big_wh), fill=self._lit(FURNITURE_RGB))
        for obj in self.objects:
            _draw_object(draw, obj, big_wh, self._lit(COLORS[obj.color]))
        for box in self.marks:
            _draw_mark(draw, box, big_wh)
        return image.reduce(_SUPERSAMPLE)

    def _lit(self, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        red, green, blue = (min(255, round(channel * self.gain)) for channel in rgb)
        return red, green, blue

    def _ramp(self, big_wh: tuple[int, int]) -> np.ndarray:
        width, height = big_wh
        x = (np.arange(width, dtype=np.float32) + 0.5) / width
        y = (np.arange(height, dtype=np.float32) + 0.5) / height
        ramp = np.empty((height, width, 3), dtype=np.uint8)
        for c, (base, dx, dy) in enumerate(
            zip(self.background.base, self.background.dx, self.background.dy, strict=True)
        ):
            # Most channels change along one axis only: then one line is worked out and repeated.
            row = (base + dx * x)[None, :] if dx else np.float32(base)
            shade = row + (dy * y)[:, None] if dy else row
            ramp[:, :, c] = np.clip(shade * np.float32(self.gain), 0, 255)
        return ramp


def _visible(box: Box) -> bool:
    return box[0] < 1 and box[1] < 1 and box[2] > 0 and box[3] > 0


def _pixels(box: Box, wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """Inclusive pixel corners (as Pillow draws them) of a normalised box."""
    x1, y1 = round(box[0] * wh[0]), round(box[1] * wh[1])
    x2, y2 = round(box[2] * wh[0]) - 1, round(box[3] * wh[1]) - 1
    return x1, y1, max(x1, x2), max(y1, y2)


def _draw_object(
    draw: PILImageDraw.ImageDraw,
    obj: SceneObject,
    wh: tuple[int, int],
    fill: tuple[int, int, int],
) -> None:
    for kind, points in PRIMITIVES[obj.shape]:
        if obj.turn:
            points = tuple(_turn(point, obj.turn) for point in points)
        x1, y1, x2, y2 = _pixels(obj.box, wh)
        if kind == "polygon":
            w, h = x2 - x1, y2 - y1
            draw.polygon([(x1 + px * w, y1 + py * h) for px, py in points], fill=fill)
        elif kind == "ellipse":
            draw.ellipse((x1, y1, x2, y2), fill=fill)
        else:
            width = max(1, round(0.27 * min(x2 - x1, y2 - y1)))
            draw.ellipse((x1, y1, x2, y2), outline=fill, width=width)


def _draw_mark(draw: PILImageDraw.ImageDraw, box: Box, wh: tuple[int, int]) -> None:
    """A red outline just outside the box, so that it covers nothing of the object."""
    width = max(_SUPERSAMPLE, round(min(wh) / 75))
    x1, y1, x2, y2 = _pixels(box, wh)
    corners = (x1 - width, y1 - width, x2 + width, y2 + width)
    clamped = (
        max(0, corners[0]),
        max(0, corners[1]),
        min(wh[0] - 1, corners[2]),
        min(wh[1] - 1, corners[3]),
    )
    draw.rectangle(clamped, outline=MARK_RGB, width=width)
