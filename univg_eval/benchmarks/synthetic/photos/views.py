"""Another view of a photograph: a homography that shows a tilted, enlarged part of it.

Coordinates here are those of pixel *edges*: (0, 0) is the top left corner of the image and
(width, height) its bottom right corner, as for boxes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from univg_eval.benchmarks.synthetic.photos.sources import PixelBox, Pixels
from univg_eval.boxes import Box

__all__ = ["View", "quadrilateral_view", "random_view"]

_MAX_INSET = 0.34
_MAX_TILT = 0.14
_EDGE_ROOM = 0.85


@dataclass(frozen=True, slots=True)
class View:
    """A view of an image, of the image's own size.

    Attributes:
        forward: 3 x 3 homography from the image to the view.
        wh: (width, height) of both in pixels.
    """

    forward: NDArray[np.float64]
    wh: tuple[int, int]

    def corners(self, bbox: PixelBox) -> NDArray[np.float64]:
        """(4, 2): where the corners of a box of the image are in the view, clockwise."""
        x1, y1, x2, y2 = bbox
        points = np.array([(x1, y1, 1), (x2, y1, 1), (x2, y2, 1), (x1, y2, 1)], dtype=np.float64)
        moved = points @ self.forward.T
        result: NDArray[np.float64] = moved[:, :2] / moved[:, 2:]
        return result

    def box(self, bbox: PixelBox) -> Box:
        """Tight box, in pixels of the view, around a box of the image."""
        corners = self.corners(bbox)
        (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
        return float(x1), float(y1), float(x2), float(y2)

    def fill(self, bbox: PixelBox) -> float:
        """Part of that tight box that the box of the image covers: 1 without any tilt."""
        x, y = self.corners(bbox).T
        area = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
        x1, y1, x2, y2 = self.box(bbox)
        return area / ((x2 - x1) * (y2 - y1))

    def stretch(self, bbox: PixelBox) -> float:
        """How much more the box grew along one axis than along the other: at least 1."""
        x1, y1, x2, y2 = self.box(bbox)
        ratio = (x2 - x1) / (bbox[2] - bbox[0]) / ((y2 - y1) / (bbox[3] - bbox[1]))
        return max(ratio, 1 / ratio)

    def draw(self, photo: Pixels) -> Pixels:
        """The view of the image (bicubic; the view never reaches outside the image)."""
        from skimage.transform import ProjectiveTransform, warp

        # scikit-image counts from the centre of the first pixel, half a pixel from its edge.
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        back = np.linalg.inv(shift) @ np.linalg.inv(self.forward) @ shift
        drawn = warp(
            photo.astype(np.float64),
            ProjectiveTransform(matrix=back),
            order=3,
            mode="edge",
            preserve_range=True,
        )
        result: Pixels = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
        return result


def quadrilateral_view(corners: NDArray[np.float64], wh: tuple[int, int]) -> View:
    """The view in which a quadrilateral of the image fills the frame.

    Args:
        corners: (4, 2), clockwise from the one that becomes the top left corner.
        wh: (width, height) of the image.
    """
    width, height = wh
    rows: list[list[float]] = []
    right: list[float] = []
    frame = ((0, 0), (width, 0), (width, height), (0, height))
    for (x, y), (u, v) in zip(corners, frame, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
        right.extend((u, v))
    solution = np.linalg.solve(np.array(rows, dtype=np.float64), np.array(right, dtype=np.float64))
    return View(np.append(solution, 1.0).reshape(3, 3), wh)


def random_view(rng: random.Random, wh: tuple[int, int], bbox: PixelBox) -> View:
    """A random view that keeps all of a box and shows nothing outside the image.

    Each side of the quadrilateral lies inside the image by up to 0.34 of its size, though never
    beyond 0.85 of the way to the box; the two ends of a side differ by at most 0.14.
    """
    width, height = wh
    x1, y1, x2, y2 = bbox

    def side(room: float) -> tuple[float, float]:
        """How far the two ends of a side lie inside the image, as parts of its size."""
        limit = min(_MAX_INSET, _EDGE_ROOM * room)
        middle = rng.uniform(0, limit)
        first, second = (middle + rng.uniform(-_MAX_TILT, _MAX_TILT) / 2 for _ in range(2))
        return min(max(first, 0.0), limit), min(max(second, 0.0), limit)

    left, right = side(x1 / width), side(1 - x2 / width)
    top, bottom = side(y1 / height), side(1 - y2 / height)
    corners = np.array(
        [
            (left[0], top[0]),
            (1 - right[0], top[1]),
            (1 - right[1], 1 - bottom[1]),
            (left[1], 1 - bottom[0]),
        ]
    )
    return quadrilateral_view(corners * np.array([width, height]), wh)
