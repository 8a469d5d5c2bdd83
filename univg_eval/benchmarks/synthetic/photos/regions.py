"""Regions of a photograph unlike all others: measured, not guessed.

Two measures on grey values: the mean gradient (a flat piece of sky has none) and the normalised
cross-correlation with every other place of the image (one coin or one roof tile looks like the
next).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from univg_eval.benchmarks.synthetic.photos.sources import PixelBox, Pixels
from univg_eval.boxes import box_iou

__all__ = [
    "MAX_LIKENESS",
    "MIN_GRADIENT",
    "distinct_region",
    "gray",
    "likeness_elsewhere",
    "mean_gradient",
]

MIN_GRADIENT = 7.0
"""Grey levels a pixel, of 255."""
MAX_LIKENESS = 0.7
"""Highest normalised cross-correlation that another place may reach; the place itself has 1."""
_SAME_PLACE_IOU = 0.3
_MAX_ATTEMPTS = 600
_LUMA = np.array([0.299, 0.587, 0.114])


def gray(pixels: Pixels) -> NDArray[np.float64]:
    """Grey values 0 to 255, (height, width)."""
    return np.asarray(pixels @ _LUMA, dtype=np.float64)


def mean_gradient(values: NDArray[np.float64], box: PixelBox) -> float:
    """Mean length of the gradient within a box, in grey levels a pixel."""
    x1, y1, x2, y2 = box
    down, right = np.gradient(values[y1:y2, x1:x2])
    return float(np.hypot(down, right).mean())


def likeness_elsewhere(
    values: NDArray[np.float64], patch: NDArray[np.float64], place: PixelBox | None = None
) -> float:
    """Highest normalised cross-correlation of a patch with an image.

    Args:
        values: the image in grey.
        patch: no larger than the image.
        place: where the patch was cut out of this image; places that overlap it with an IoU of
            at least 0.3 do not count. None where it comes from another image.

    Returns:
        -1 to 1; -1 where no place is left.
    """
    from skimage.feature import match_template

    height, width = patch.shape
    if height > values.shape[0] or width > values.shape[1]:
        return -1.0
    scores = match_template(values, patch)
    if place is not None:
        y, x = np.mgrid[: scores.shape[0], : scores.shape[1]]
        boxes = np.stack([x, y, x + width, y + height], axis=-1)
        scores = np.where(box_iou(boxes, np.array(place)) < _SAME_PLACE_IOU, scores, -1.0)
    return float(scores.max())


def distinct_region(
    pixels: Pixels,
    rng: random.Random,
    *,
    sides: tuple[float, float],
    max_share: float,
    taken: Sequence[PixelBox] = (),
    others: Sequence[Pixels] = (),
) -> tuple[PixelBox, dict[str, float]]:
    """A random box whose content is textured and found nowhere else.

    Args:
        pixels: the photograph.
        rng: makes the choices.
        sides: shortest and longest side of the box, as parts of the photograph's.
        max_share: largest part of the photograph's area.
        taken: boxes that it may not overlap with an IoU of 0.3 or more.
        others: photographs that may not hold something like it either.

    Returns:
        (box, {"mean_gradient": …, "likeness_elsewhere": …} as measured).
    """
    height, width = pixels.shape[:2]
    values = gray(pixels)
    for _ in range(_MAX_ATTEMPTS):
        w, h = round(rng.uniform(*sides) * width), round(rng.uniform(*sides) * height)
        x, y = rng.randint(0, width - w), rng.randint(0, height - h)
        box = (x, y, x + w, y + h)
        if w * h > max_share * width * height:
            continue
        if taken and float(np.max(box_iou(np.array(taken), np.array(box)))) >= _SAME_PLACE_IOU:
            continue
        gradient = mean_gradient(values, box)
        if gradient < MIN_GRADIENT:
            continue
        patch = values[y : y + h, x : x + w]
        likeness = likeness_elsewhere(values, patch, box)
        for other in others:
            if likeness <= MAX_LIKENESS:
                likeness = max(likeness, likeness_elsewhere(gray(other), patch))
        if likeness <= MAX_LIKENESS:
            return box, {
                "mean_gradient": round(gradient, 2),
                "likeness_elsewhere": round(likeness, 3),
            }
    raise AssertionError(
        f"no distinct region in {_MAX_ATTEMPTS} attempts: the limits and the photograph contradict "
        "each other"
    )
