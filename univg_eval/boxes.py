"""Boxes as (x1, y1, x2, y2) and the one intersection over union of this project.

Inside the library a box lies on [0, 1] of its image (``xyxy_norm``): x to the right, y down,
the first corner upper left. Dialects convert a model's own numbers once; everything behind them
uses this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Box",
    "box_iou",
    "box_text",
    "center_in_box",
    "clip_box",
    "clip_boxes",
    "four_numbers",
    "is_valid_box",
    "valid_boxes",
]

Box = tuple[float, float, float, float]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def _as_boxes(name: str, boxes: npt.ArrayLike, dtype: npt.DTypeLike = np.float64) -> FloatArray:
    array = np.asarray(boxes, dtype=dtype)
    if array.ndim == 0 or array.shape[-1] != 4:
        raise ValueError(f"{name} has shape {array.shape}; expected (..., 4): x1, y1, x2, y2 last")
    return array


def box_iou(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    union_eps: float = 0.0,
    dtype: npt.DTypeLike = np.float64,
) -> Any:
    """Intersection over union of boxes, elementwise with broadcasting.

    Args:
        a: boxes, shape (..., 4), order x1, y1, x2, y2, any linear scale.
        b: boxes on the same scale, shape broadcastable against ``a``.
        union_eps: added to the union's area, in squared units of the scale. 0 in this project's
            own protocol; some published scorers add 1e-6.
        dtype: what to compute in. Single precision is for published scorers that use it.

    Returns:
        array of the broadcast shape without the last axis (a NumPy scalar for two single boxes),
        of `dtype`, each in [0, 1]. Pairs that do not overlap, and pairs in which a box is inverted
        or empty or not finite, give 0. Boxes are not clipped.

    Raises:
        ValueError: if the last axis of an input does not have length 4.

    The plain ratio of Everingham et al., "The PASCAL Visual Object Classes Challenge" (2010),
    in continuous coordinates (no "+1 pixel").
    """
    a_boxes = _as_boxes("a", a, dtype)
    b_boxes = _as_boxes("b", b, dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        width = np.minimum(a_boxes[..., 2], b_boxes[..., 2]) - np.maximum(
            a_boxes[..., 0], b_boxes[..., 0]
        )
        height = np.minimum(a_boxes[..., 3], b_boxes[..., 3]) - np.maximum(
            a_boxes[..., 1], b_boxes[..., 1]
        )
        area_a = (a_boxes[..., 2] - a_boxes[..., 0]) * (a_boxes[..., 3] - a_boxes[..., 1])
        area_b = (b_boxes[..., 2] - b_boxes[..., 0]) * (b_boxes[..., 3] - b_boxes[..., 1])
        intersection = width * height
        union = area_a + area_b - intersection + union_eps
        # A NaN fails every comparison, so what is not finite ends up outside `overlaps`.
        overlaps = (width > 0) & (height > 0) & (union > 0) & np.isfinite(union)
    iou = np.zeros(np.shape(overlaps), dtype=dtype)
    np.divide(intersection, union, out=iou, where=overlaps)
    return iou[()]


def valid_boxes(boxes: npt.ArrayLike) -> BoolArray:
    """Which boxes are valid: finite, 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1.

    Args:
        boxes: shape (..., 4), xyxy_norm.

    Returns:
        bool array of shape (...).
    """
    array = _as_boxes("boxes", boxes)
    x1, y1, x2, y2 = (array[..., i] for i in range(4))
    result: BoolArray = (x1 >= 0) & (x1 < x2) & (x2 <= 1) & (y1 >= 0) & (y1 < y2) & (y2 <= 1)
    return result


def clip_boxes(boxes: npt.ArrayLike) -> FloatArray:
    """Boxes cut to the image, [0, 1] on both axes; shape (..., 4), xyxy_norm."""
    clipped: FloatArray = np.clip(_as_boxes("boxes", boxes), 0.0, 1.0)
    return clipped


def four_numbers(value: object, largest: float | None = None) -> Box | None:
    """A list of four numbers, as JSON gives it, as a tuple of floats; None for anything else.

    Args:
        value: what a file holds in the place of a box.
        largest: absolute limit, which NaN and infinities break; None lets every float pass.
    """
    if not isinstance(value, list) or len(value) != 4:
        return None
    if not all(type(number) in (int, float) for number in value):  # a boolean is none
        return None
    if largest is not None and not all(abs(number) <= largest for number in value):
        return None
    try:
        a, b, c, d = map(float, value)
    except OverflowError:  # a whole number that no float holds
        return None
    return a, b, c, d


def is_valid_box(box: Sequence[float]) -> bool:
    """`valid_boxes` for one tuple, without the cost of an array."""
    x1, y1, x2, y2 = box
    return 0.0 <= x1 < x2 <= 1.0 and 0.0 <= y1 < y2 <= 1.0


def clip_box(box: Sequence[float]) -> Box:
    """`clip_boxes` for one tuple, without the cost of an array; NaN stays NaN."""
    x1, y1, x2, y2 = (v if math.isnan(v) else min(max(v, 0.0), 1.0) for v in box)
    return (x1, y1, x2, y2)


def center_in_box(a: npt.ArrayLike, b: npt.ArrayLike) -> Any:
    """Whether the centre of each box of ``a`` lies in the box of ``b`` (edges included).

    Shapes broadcast as in `box_iou`; returns bool of the broadcast shape without the last axis.
    """
    a_boxes = _as_boxes("a", a)
    b_boxes = _as_boxes("b", b)
    center_x = (a_boxes[..., 0] + a_boxes[..., 2]) / 2
    center_y = (a_boxes[..., 1] + a_boxes[..., 3]) / 2
    inside = (
        (center_x >= b_boxes[..., 0])
        & (center_x <= b_boxes[..., 2])
        & (center_y >= b_boxes[..., 1])
        & (center_y <= b_boxes[..., 3])
    )
    return inside[()]


def box_text(box: Sequence[float], digits: int = 4) -> str:
    """A box as text: ``[0.1, 0.25, 0.5, 0.75]``, at most so many significant digits."""
    return "[" + ", ".join(f"{value:.{digits}g}" for value in box) + "]"
