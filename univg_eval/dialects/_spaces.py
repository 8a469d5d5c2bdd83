"""What the numbers of a box mean: numbers as written to boxes and back.

A space turns numbers as written into a box on [0, 1] of the original image (``xyxy_norm``, not
clipped) and a known box into numbers to write. A box that is not empty stays so when written: a
side that would round to nothing becomes one step long.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from univg_eval.boxes import Box
from univg_eval.dialects._resize import fitted_wh, smart_resize_wh
from univg_eval.errors import UserError

__all__ = [
    "BinCenters",
    "FittedPixels",
    "ImagePixels",
    "InputPixels",
    "NormDecimal",
    "NormInt",
    "PaddedSquare",
    "PatchGrid",
    "Percent",
    "Points",
    "Size",
    "Space",
]

Size = tuple[int, int]
Order = Literal["xyxy", "yxyx"]
Numbers = tuple[float, ...]

_NO_BOXES = "this family points at objects and writes no boxes; choose another model"


def _steps(low: float, high: float, largest: int) -> tuple[int, int]:
    """Two edges in steps, rounded to the nearest and clipped to [0, largest]."""
    a = min(max(math.floor(low + 0.5), 0), largest)
    b = min(max(math.floor(high + 0.5), 0), largest)
    if low < high and a >= b:
        # Less than a step: the step that holds the middle.
        a = min(max(math.floor((low + high) / 2), 0), largest - 1)
        b = a + 1
    return a, b


def _box_steps(box: Box, wh: Size, largest: Size) -> tuple[int, int, int, int]:
    """A box on [0, 1] in steps, `wh` of them along each axis."""
    x1, x2 = _steps(box[0] * wh[0], box[2] * wh[0], largest[0])
    y1, y2 = _steps(box[1] * wh[1], box[3] * wh[1], largest[1])
    return x1, y1, x2, y2


def _size(image_wh: Size | None, what: str) -> Size:
    if image_wh is None:
        raise UserError(
            f"these coordinates are {what}, but the image's size is not given; pass image_wh="
            "(width, height) in pixels, or image_sizes for several images"
        )
    return image_wh


class Space(ABC):
    """Base of all spaces.

    Attributes:
        kind: short name of the kind, as in ``univg dialects --json``.
        order: order of the written numbers.
        needs_image_size: conversion is impossible without the original image's size.
        needs_input_size: the numbers refer to the image as the model saw it.
    """

    __slots__ = ()

    kind: str = ""
    order: str = "xyxy"
    needs_image_size: bool = False
    needs_input_size: bool = False

    @property
    def uses_input_size(self) -> bool:
        """Whether a given input size is what conversion divides by."""
        return self.needs_input_size

    @property
    def resize_rule(self) -> str | None:
        """The rule that gives the input size, in words; None where boxes do not depend on it."""
        return None

    def describe(self) -> str:
        """The scale in a few words."""
        return self._scale()

    def input_size(self, image_wh: Size) -> Size:
        """(width, height) of the image as the model sees it, by the family's rule."""
        return image_wh

    def to_norm(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        """Numbers as written to xyxy_norm, not clipped."""
        return self._read(raw, image_wh, input_wh)

    def from_norm(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        """A box (xyxy_norm, finite) to the numbers to write, in the written order.

        They are rounded to the family's nearest step and clipped to its range.
        """
        return self._write(box, image_wh, input_wh)

    def point_to_norm(
        self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None
    ) -> tuple[float, float]:
        """A point's two numbers as written, in the order of a box's corner, to (x, y) on [0, 1].

        Neither clipped nor checked.
        """
        a, b = raw
        x, y, _, _ = self._read((a, b, a, b), image_wh, input_wh)
        return x, y

    @abstractmethod
    def _scale(self) -> str: ...

    @abstractmethod
    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box: ...

    @abstractmethod
    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers: ...


@dataclass(frozen=True, slots=True)
class NormInt(Space):
    """Integers on a fixed scale: value / divisor, whatever the image's size.

    Attributes:
        divisor: denominator of both axes.
        order: ``yxyx`` where y comes first.
        largest: largest number that the family writes (999 where 1000 does not occur).
    """

    divisor: int = 1000
    order: Order = "xyxy"
    largest: int = 1000

    kind = "norm_int"

    def _scale(self) -> str:
        return f"value / {self.divisor}"

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        a, b, c, d = raw
        k = self.divisor
        if self.order == "xyxy":
            return (a / k, b / k, c / k, d / k)
        return (b / k, a / k, d / k, c / k)

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        x1, y1, x2, y2 = _box_steps(box, (self.divisor,) * 2, (self.largest,) * 2)
        return (x1, y1, x2, y2) if self.order == "xyxy" else (y1, x1, y2, x2)


@dataclass(frozen=True, slots=True)
class BinCenters(Space):
    """Integer bins read at their centre: (bin + 0.5) / bins."""

    bins: int = 1000

    kind = "bin_center"

    def _scale(self) -> str:
        return f"(bin + 0.5) / {self.bins}"

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        x1, y1, x2, y2 = raw
        k = self.bins
        return ((x1 + 0.5) / k, (y1 + 0.5) / k, (x2 + 0.5) / k, (y2 + 0.5) / k)

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        k = self.bins
        # The bin that holds v is floor(v * bins): the nearest centre.
        x1, x2 = _steps(box[0] * k - 0.5, box[2] * k - 0.5, k - 1)
        y1, y2 = _steps(box[1] * k - 0.5, box[3] * k - 0.5, k - 1)
        return (x1, y1, x2, y2)


@dataclass(frozen=True, slots=True)
class PatchGrid(Space):
    """Two cells of a side x side grid, numbered row by row: upper-left and lower-right.

    They are read at their centres; at their outer edges where they share a row or a column.
    """

    side: int = 32

    kind = "patch_grid"
    order = "upper-left cell, lower-right cell"

    def _scale(self) -> str:
        return f"{self.side} x {self.side} cells"

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        upper_left, lower_right = (int(index) for index in raw)
        cell = 1.0 / self.side
        row1, column1 = divmod(upper_left, self.side)
        row2, column2 = divmod(lower_right, self.side)
        if row1 == row2 or column1 == column2:
            return (column1 * cell, row1 * cell, (column2 + 1) * cell, (row2 + 1) * cell)
        x1, y1, x2, y2 = (n * cell + cell / 2 for n in (column1, row1, column2, row2))
        return (x1, y1, x2, y2)

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        # The cell that holds the upper-left corner, the last that the lower-right corner reaches.
        last = self.side - 1
        column1, row1 = (min(max(math.floor(v * self.side), 0), last) for v in box[:2])
        column2, row2 = (min(max(math.ceil(v * self.side - 1), 0), last) for v in box[2:])
        return (row1 * self.side + column1, row2 * self.side + column2)


@dataclass(frozen=True, slots=True)
class NormDecimal(Space):
    """Decimals on [0, 1] of the original image, with `decimals` digits behind the point."""

    decimals: int = 3

    kind = "norm1"

    def _scale(self) -> str:
        return "0-1"

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        x1, y1, x2, y2 = raw
        return (x1, y1, x2, y2)

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        k: int = 10**self.decimals
        return tuple(step / k for step in _box_steps(box, (k, k), (k, k)))


@dataclass(frozen=True, slots=True)
class Percent(Space):
    """Percentages of the original image's width and height, with `decimals` digits."""

    decimals: int = 1

    kind = "norm100"

    def _scale(self) -> str:
        return "0-100"

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        x1, y1, x2, y2 = raw
        return (x1 / 100, y1 / 100, x2 / 100, y2 / 100)

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        k: int = 10**self.decimals
        return tuple(step / k for step in _box_steps(box, (100 * k,) * 2, (100 * k,) * 2))


@dataclass(frozen=True, slots=True)
class PaddedSquare(Space):
    """Decimals on [0, 1] of the square to which the image was padded, original in the middle.

    With m = max(W, H): x = (v m - (m - W) / 2) / W, and y likewise with H.

    Attributes:
        decimals: digits behind the point that the family writes.
    """

    decimals: int = 2

    kind = "norm1_padded_square"
    needs_image_size = True

    def _scale(self) -> str:
        return "0-1 of the padded square"

    def _padding(self, image_wh: Size | None) -> tuple[Size, int, float, float]:
        width, height = _size(image_wh, "fractions of the image padded to a square")
        side = max(width, height)
        return (width, height), side, (side - width) / 2, (side - height) / 2

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        (width, height), side, pad_x, pad_y = self._padding(image_wh)
        x1, y1, x2, y2 = raw
        return (
            (x1 * side - pad_x) / width,
            (y1 * side - pad_y) / height,
            (x2 * side - pad_x) / width,
            (y2 * side - pad_y) / height,
        )

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        (width, height), side, pad_x, pad_y = self._padding(image_wh)
        k: int = 10**self.decimals
        x1, x2 = ((v * width + pad_x) / side * k for v in (box[0], box[2]))
        y1, y2 = ((v * height + pad_y) / side * k for v in (box[1], box[3]))
        (a, c), (b, d) = _steps(x1, x2, k), _steps(y1, y2, k)
        return (a / k, b / k, c / k, d / k)


class _Pixels(Space):
    """Pixels of an image whose size the answer itself does not give."""

    __slots__ = ()

    @abstractmethod
    def _frame(self, image_wh: Size | None, input_wh: Size | None) -> Size:
        """(width, height) of the image that the numbers refer to."""

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        width, height = self._frame(image_wh, input_wh)
        x1, y1, x2, y2 = raw
        return (x1 / width, y1 / height, x2 / width, y2 / height)

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        frame = self._frame(image_wh, input_wh)
        return _box_steps(box, frame, frame)


@dataclass(frozen=True, slots=True)
class ImagePixels(_Pixels):
    """Pixels of the original image."""

    kind = "abs_original_px"
    needs_image_size = True

    def _scale(self) -> str:
        return "pixels of the original"

    def _frame(self, image_wh: Size | None, input_wh: Size | None) -> Size:
        return _size(image_wh, "pixels of the image")


class _ResizedPixels(_Pixels):
    """Pixels of the image as resized for the model.

    The input size is the recorded one where it is given, else it follows from the original's.
    """

    __slots__ = ()

    kind = "abs_input_px"
    needs_input_size = True

    def _scale(self) -> str:
        return "pixels of the resized input"

    def _frame(self, image_wh: Size | None, input_wh: Size | None) -> Size:
        if input_wh is not None:
            return input_wh
        if image_wh is None:
            raise UserError(
                "these coordinates are pixels of the resized input, but neither the input's size "
                "nor the image's is given; pass input_wh= or image_wh=, (width, height) in pixels"
            )
        return self.input_size(image_wh)


@dataclass(frozen=True, slots=True)
class InputPixels(_ResizedPixels):
    """Pixels of the image as a Qwen processor resizes it: `smart_resize_wh` with these limits.

    Attributes:
        factor: sides become multiples of it.
        min_pixels: smallest area of the resized image, in pixels.
        max_pixels: largest area of the resized image, in pixels.
    """

    factor: int = 28
    min_pixels: int = 3136
    max_pixels: int = 12845056

    @property
    def resize_rule(self) -> str | None:
        """The rule that gives the input size, in words."""
        return (
            f"smart_resize to multiples of {self.factor}, area {self.min_pixels} to "
            f"{self.max_pixels} pixels"
        )

    def input_size(self, image_wh: Size) -> Size:
        """(width, height) of the resized image."""
        return smart_resize_wh(
            image_wh,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=self.max_pixels,
        )


@dataclass(frozen=True, slots=True)
class FittedPixels(_ResizedPixels):
    """Pixels of the image as Claude's service shrinks it: see `fitted_wh`.

    Attributes:
        edge: longest side in pixels, padded to a multiple of 28.
        tokens: most squares of 28 x 28 pixels.
    """

    edge: int
    tokens: int

    @property
    def resize_rule(self) -> str | None:
        """The rule that gives the input size, in words."""
        return (
            f"shrunk to a side of at most {self.edge} pixels and at most {self.tokens} squares of "
            "28 x 28, never enlarged"
        )

    def input_size(self, image_wh: Size) -> Size:
        """(width, height) of the image as the service shows it to the model."""
        return fitted_wh(image_wh, edge=self.edge, tokens=self.tokens)


@dataclass(frozen=True, slots=True)
class Points(Space):
    """Points (value / divisor), not boxes: of a box there is nothing to decode."""

    divisor: int = 100

    kind = "points"
    order = "x, y"

    def _scale(self) -> str:
        return f"points, value / {self.divisor}"

    def point_to_norm(
        self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None
    ) -> tuple[float, float]:
        """See `Space.point_to_norm`."""
        x, y = raw
        return x / self.divisor, y / self.divisor

    def _read(self, raw: Sequence[float], image_wh: Size | None, input_wh: Size | None) -> Box:
        raise UserError(_NO_BOXES)

    def _write(self, box: Box, image_wh: Size | None, input_wh: Size | None) -> Numbers:
        raise UserError(_NO_BOXES)
