"""From masks and polygons to boxes.

The box of a mask is that of its pixels' outer edges, in ``xyxy_norm``: a mask of the one pixel
(x, y) in an image of width w has x1 = x / w and x2 = (x + 1) / w.

Run lengths are decoded, united and boxed by pycocotools; polygons are painted and parts counted by
OpenCV. pycocotools reads a run-length text without looking where it ends, so that a damaged one can
give a wrong mask, or read memory that is not the text's. Every mask is therefore checked here first
and brought into one canonical form: no run of length zero but the first, lengths that add up to
the mask's size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from univg_eval.benchmarks.readers.common.annotation_files import describe, unexpected
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.boxes import Box
from univg_eval.images.reading import image_header
from univg_eval.samples import LARGEST_SIDE

__all__ = [
    "Mask",
    "Shape",
    "mask_from_array",
    "paint_shapes",
    "read_rle",
    "require_image_size",
    "unite",
]

LARGEST_MASK = 2**28
"""Pixels of the largest mask: above the images that Pillow opens, below what fills a memory."""

Runs = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Mask:
    """A checked binary mask; width and height in pixels.

    `counts` are COCO's compressed run lengths of the columns, one after the other, in canonical
    form: equal masks have equal counts.
    """

    width: int
    height: int
    counts: bytes

    def box(self) -> Box | None:
        """The smallest box around all its pixels, xyxy_norm; None if it has no pixel."""
        x, y, width, height = (float(value) for value in _coco().toBbox(self._rle()))
        if width == 0 or height == 0:
            return None
        return (
            x / self.width,
            y / self.height,
            (x + width) / self.width,
            (y + height) / self.height,
        )

    def n_parts(self) -> int:
        """How many parts it has that do not touch, not even at a corner (8-connected)."""
        x, y, width, height = (int(value) for value in _coco().toBbox(self._rle()))
        # Columns lie one after the other in memory, so this is the mask on its side, uncopied.
        pixels = _coco().decode(self._rle()).T[x : x + width, y : y + height]
        if not pixels.size:
            return 0
        found, _ = _opencv().connectedComponents(pixels, connectivity=8)
        return int(found) - 1  # the first is the background

    def pixels(self) -> npt.NDArray[np.uint8]:
        """1 where the mask is and 0 elsewhere, shape (height, width)."""
        pixels: npt.NDArray[np.uint8] = _coco().decode(self._rle())
        return pixels

    def to_json(self) -> dict[str, Any]:
        """``{"size": [height, width], "counts": text}``, COCO's form in JSON."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}

    def _rle(self) -> dict[str, Any]:
        return {"size": [self.height, self.width], "counts": self.counts}


def read_rle(value: Any, where: str) -> Mask:
    """A mask from COCO run lengths ``{"size": [height, width], "counts": …}``.

    The counts are a text (or bytes), or a list of run lengths that begins with the background.
    ItemError ``invalid_mask`` if a field is missing or of a wrong type, or the lengths are damaged
    or do not add up to height times width.
    """
    if not isinstance(value, Mapping) or not {"size", "counts"} <= value.keys():
        expected = 'run lengths {"size": [height, width], "counts": …}'
        raise unexpected(f"{where}: the mask", value, expected, "invalid_mask")
    size, counts = value["size"], value["counts"]
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in size)
        or size[0] * size[1] > LARGEST_MASK
    ):
        expected = f"[height, width] in pixels, {LARGEST_MASK} pixels at most"
        raise unexpected(f"{where}: the mask's size", size, expected, "invalid_mask")
    height, width = size
    try:
        if isinstance(counts, str | bytes):
            runs = _runs_of_text(counts.encode("ascii") if isinstance(counts, str) else counts)
        elif isinstance(counts, list) and all(type(run) is int for run in counts):
            runs = np.array(counts, dtype=np.int64)
        else:
            raise ValueError("expected a text or a list of whole numbers")
        if (runs < 0).any():
            raise ValueError(f"run {int(np.argmax(runs < 0))} has a negative length")
        # In Python's numbers, which no damaged length can overflow.
        total = sum(runs.tolist())
        if total != height * width:
            raise ValueError(f"they add up to {total}, not to {width} times {height}")
    except (ValueError, OverflowError) as error:
        raise ItemError(
            "invalid_mask", f"{where}: damaged run lengths {describe(counts)}: {error}"
        ) from error
    rle = {"size": size, "counts": _canonical(runs).tolist()}
    return Mask(width, height, _coco().frPyObjects(rle, height, width)["counts"])


def mask_from_array(pixels: npt.NDArray[Any]) -> Mask:
    """A mask from an array of shape (height, width); every value but 0 belongs to it."""
    height, width = pixels.shape
    counts = _coco().encode(np.asfortranarray(pixels != 0, dtype=np.uint8))["counts"]
    return Mask(width, height, counts)


def unite(masks: Sequence[Mask], where: str) -> Mask:
    """All pixels that belong to any of one or more masks; ItemError if their sizes differ."""
    first, *others = masks
    for other in others:
        if (other.width, other.height) != (first.width, first.height):
            raise ItemError(
                "invalid_mask",
                f"{where}: the masks to unite have different sizes, "
                f"{first.width}x{first.height} and {other.width}x{other.height} pixels",
            )
    if not others:
        return first
    merged = _coco().merge([mask._rle() for mask in masks], intersect=False)
    return Mask(first.width, first.height, merged["counts"])


def require_image_size(
    mask: Mask, image_wh: tuple[int, int], image_path: str | os.PathLike[str], where: str
) -> None:
    """Refuse a mask that was not made for its image, which is displayed with size `image_wh`.

    ItemError ``size_mismatch`` names both sizes, and the EXIF orientation if there is one.
    """
    if (mask.width, mask.height) == image_wh:
        return
    header = image_header(image_path)
    width, height = header.stored_size
    stored = f" (stored as {width}x{height} with EXIF orientation {header.orientation})"
    raise ItemError(
        "size_mismatch",
        f"{where}: the mask is {mask.width}x{mask.height} pixels, its image {image_path} "
        f"{image_wh[0]}x{image_wh[1]} as displayed{stored if header.orientation != 1 else ''}; "
        "expected equal sizes. Use the image files that the release was made with",
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """One polygon of an annotation file in labelme's manner; points are ((x, y), …) in pixels."""

    label: str
    points: tuple[tuple[float, float], ...]


def paint_shapes(shapes: Sequence[Shape], image_wh: tuple[int, int], where: str) -> Mask:
    """Paint polygons by the rule of ReasonSeg; the mask is where the target shows.

    The rule (dvlab-research/LISA, ``utils/data_processing.py``, ``get_mask_from_json``): a shape
    whose label is ``flag`` in any case is dropped. Decimals of the points are cut off, toward
    zero. A shape is its filled polygon and its closed outline, one pixel wide. Shapes are painted
    by descending area, area being the number of pixels that the shape alone covers within the
    image, so that a smaller shape covers a larger one. Labels that contain ``ignore`` in any case
    mark pixels that count for nothing, all others the target; so an ``ignore`` shape cuts a hole
    into a larger target, and a target that lies within a larger ``ignore`` shape stays. Of shapes
    with equal areas the earlier in the file is painted last; upstream leaves their order to an
    unstable sort.

    OpenCV paints, as upstream. Between its versions single pixels of slanted edges differ, but not
    the box of a polygon within the image. A polygon that reaches outside is painted whole and then
    cut: OpenCV itself cuts its edges first, which moves some, in each version differently.

    The shapes are in the order of the file, `image_wh` is the size as displayed. ItemError
    ``invalid_mask`` if a shape has no point, or a point that is no number, or lies further outside
    the image than the image is large.
    """
    layers = []
    for i, shape in enumerate(shapes):
        label = shape.label.lower()
        if label != "flag":
            value = _IGNORED if "ignore" in label else _TARGET
            layers.append((value, *_cover(shape, i, image_wh, where)))
    areas = [np.count_nonzero(pixels) for _, _, pixels in layers]
    # Column by column, as run lengths will be counted: turning a large image is slow.
    canvas = np.zeros(image_wh[::-1], dtype=np.uint8, order="F")
    for i in np.argsort(areas, kind="stable")[::-1]:
        value, place, pixels = layers[i]
        canvas[place][pixels] = value
    return mask_from_array(canvas == _TARGET)


_TARGET, _IGNORED = 1, 255


def _cover(
    shape: Shape, number: int, image_wh: tuple[int, int], where: str
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]]:
    """A rectangle of the image, as rows and columns, and which of its pixels the shape covers."""
    cv2 = _opencv()
    points = _points(shape, number, image_wh, where)
    low, end = points.min(axis=0), points.max(axis=0) + 1
    width, height = end - low
    canvas = np.zeros((height, width), dtype=np.uint8)
    cv2.polylines(canvas, [points - low], True, 1, 1)
    cv2.fillPoly(canvas, [points - low], 1)
    x1, y1 = np.clip(low, 0, image_wh)
    x2, y2 = np.clip(end, 0, image_wh)
    inside = canvas[y1 - low[1] : y2 - low[1], x1 - low[0] : x2 - low[0]]
    return (slice(y1, y2), slice(x1, x2)), inside.astype(bool)


def _points(
    shape: Shape, number: int, image_wh: tuple[int, int], where: str
) -> npt.NDArray[np.int32]:
    at = f"{where}: shapes[{number}] ({shape.label!r})"
    if not shape.points:
        raise ItemError("invalid_mask", f"{at} has no points")
    margin = max(image_wh)
    for point in shape.points:
        # Not "any beyond": that would let NaN pass. In Python's numbers, which do not overflow.
        if not all(-margin <= v <= side + margin for v, side in zip(point, image_wh, strict=True)):
            raise ItemError(
                "invalid_mask",
                f"{at} has the point {describe(point)}, far from its image of "
                f"{image_wh[0]}x{image_wh[1]} pixels; expected x, y in pixels of the image",
            )
    return np.array(shape.points, dtype=np.float64).astype(np.int32)


_LONGEST_NUMBER = 7
"""Characters of a run length in COCO's text; 32 bits need no more at 5 bits each."""


def _runs_of_text(text: bytes) -> Runs:
    """The numbers of COCO's compressed counts; ValueError if they are damaged.

    Each is written in groups of 5 bits, least significant first, two's complement; bit 5 of a
    character's value (its code less 48) says that more follow. From the fourth on, a number is the
    difference to the last but one. (cocodataset/cocoapi, ``common/maskApi.c``, ``rleFrString``)
    """
    digits = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not len(digits):
        return np.zeros(0, dtype=np.int64)
    wrong = (digits < 0) | (digits > 63)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise ValueError(f"character {at}, {text[at : at + 1]!r}, belongs to no number")
    ends = np.flatnonzero(digits & 32 == 0)
    if not len(ends) or ends[-1] != len(digits) - 1:
        raise ValueError("the text breaks off within a number")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_NUMBER:
        raise ValueError(f"a number has {lengths.max()} characters")
    place = np.arange(len(digits)) - np.repeat(starts, lengths)
    runs: Runs = np.add.reduceat((digits & 31) << (5 * place), starts)
    negative = digits[ends] & 16 != 0
    runs[negative] -= np.int64(1) << (5 * lengths[negative])
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _canonical(runs: Runs) -> Runs:
    """The same mask without runs of length zero but, if the first pixel is set, the first."""
    if runs[1:].all():
        return runs
    values = np.arange(len(runs)) % 2
    values, runs = values[runs > 0], runs[runs > 0]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(values)) + 1))
    joined: Runs = np.add.reduceat(runs, starts)
    return np.concatenate(([0], joined)) if values[0] else joined


def _coco() -> Any:
    from pycocotools import mask

    return mask


def _opencv() -> Any:
    import cv2

    return cv2
