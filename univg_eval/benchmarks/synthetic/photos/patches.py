"""Objects cut out of one photograph and pasted into another, or removed from their own.

Every change is measured: it must be visible, and the true box is the tight box of the pixels that
changed visibly; outside that box the two images are equal, pixel by pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from univg_eval.benchmarks.synthetic.photos.sources import Annotation, PixelBox, Pixels

__all__ = [
    "MIN_CHANGE",
    "MIN_CHANGED_SHARE",
    "VISIBLE",
    "Cutout",
    "changed_box",
    "changes",
    "cut",
    "gap",
    "is_visible_change",
    "paste",
    "remove",
    "settle",
]

VISIBLE = 24
"""Grey levels (of 255, largest of the three channels) by which a pixel changes visibly."""
MIN_CHANGED_SHARE = 0.5
"""Part of the true box that changes visibly."""
MIN_CHANGE = 30.0
"""Mean change over the true box, grey levels of the channel that changes most."""
_REMOVAL_MARGIN = 2
_REMOVAL_CONTEXT = 24


@dataclass(frozen=True, slots=True)
class Cutout:
    """An object cut out of a photograph.

    Attributes:
        pixels: (height, width, 3) RGB.
        mask: (height, width); True where the object is. It touches all four sides.
    """

    pixels: Pixels
    mask: NDArray[np.bool_]

    @property
    def wh(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.mask.shape[1], self.mask.shape[0]


def cut(
    photo: Pixels, annotation: Annotation, wh: tuple[int, int], *, without_color: bool
) -> Cutout:
    """The annotated object, resized to `wh` = (width, height) in pixels.

    Args:
        photo: the annotation's photograph.
        annotation: what to cut out; an ellipse is cut along its outline.
        wh: the size that the cutout gets.
        without_color: whether the place it goes to is an image in grey, where colour would give
            it away.
    """
    from PIL import Image

    x1, y1, x2, y2 = annotation.bbox
    image = Image.fromarray(photo[y1:y2, x1:x2])
    if without_color:
        image = image.convert("L").convert("RGB")
    pixels = np.asarray(image.resize(wh, Image.Resampling.LANCZOS), dtype=np.uint8)
    return Cutout(pixels, _mask(annotation.outline, wh))


def _mask(outline: Literal["rectangle", "ellipse"], wh: tuple[int, int]) -> NDArray[np.bool_]:
    width, height = wh
    if outline == "rectangle":
        return np.ones((height, width), dtype=np.bool_)
    x = (np.arange(width) + 0.5) / width * 2 - 1
    y = (np.arange(height) + 0.5) / height * 2 - 1
    mask: NDArray[np.bool_] = np.hypot(x[None, :], y[:, None]) <= 1.0
    return mask


def paste(host: Pixels, cutout: Cutout, corner: tuple[int, int]) -> Pixels:
    """A copy of `host` with the cutout's top left corner at `corner` = (x, y)."""
    x, y = corner
    width, height = cutout.wh
    result = host.copy()
    place = result[y : y + height, x : x + width]
    place[cutout.mask] = cutout.pixels[cutout.mask]
    return result


def remove(photo: Pixels, bbox: PixelBox) -> Pixels:
    """A copy of the photograph in which the object is gone: filled smoothly from around it.

    The fill is scikit-image's biharmonic inpainting of the box and a margin of 2 pixels.
    """
    from skimage.restoration import inpaint_biharmonic

    hole = _grown(bbox, _REMOVAL_MARGIN, photo)
    x1, y1, x2, y2 = _grown(hole, _REMOVAL_CONTEXT, photo)
    context = photo[y1:y2, x1:x2]
    mask = np.zeros(context.shape[:2], dtype=np.bool_)
    mask[hole[1] - y1 : hole[3] - y1, hole[0] - x1 : hole[2] - x1] = True
    filled = inpaint_biharmonic(context, mask, channel_axis=-1)
    result = photo.copy()
    place = result[y1:y2, x1:x2]
    place[mask] = np.clip(np.rint(filled * 255), 0, 255).astype(np.uint8)[mask]
    return result


def _grown(bbox: PixelBox, by: int, photo: Pixels) -> PixelBox:
    height, width = photo.shape[:2]
    x1, y1, x2, y2 = bbox
    return max(0, x1 - by), max(0, y1 - by), min(width, x2 + by), min(height, y2 + by)


def changes(before: Pixels, after: Pixels) -> NDArray[np.int16]:
    """(height, width): how much each pixel changed, in grey levels of the channel that did most."""
    difference: NDArray[np.int16] = np.abs(after.astype(np.int16) - before.astype(np.int16))
    most: NDArray[np.int16] = difference.max(axis=-1)
    return most


def changed_box(before: Pixels, after: Pixels) -> PixelBox | None:
    """Tight box of the pixels that changed visibly; None where there is none."""
    visible = changes(before, after) >= VISIBLE
    if not visible.any():
        return None
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def settle(before: Pixels, after: Pixels) -> tuple[Pixels, PixelBox] | None:
    """Undo what changed outside the tight box of the visible change.

    Returns:
        (after, box): equal to `before` outside the box; None where the change is too weak to be
        asked for (see `is_visible_change`).
    """
    box = changed_box(before, after)
    if box is None or not is_visible_change(before, after, box):
        return None
    x1, y1, x2, y2 = box
    result = before.copy()
    result[y1:y2, x1:x2] = after[y1:y2, x1:x2]
    return result, box


def is_visible_change(before: Pixels, after: Pixels, box: PixelBox) -> bool:
    """Whether enough of the box changed, and by enough."""
    x1, y1, x2, y2 = box
    change = changes(before, after)[y1:y2, x1:x2]
    share = float((change >= VISIBLE).mean())
    return share >= MIN_CHANGED_SHARE and float(change.mean()) >= MIN_CHANGE


def gap(a: PixelBox, b: PixelBox) -> int:
    """Free pixels between two boxes along the axis that separates them most; < 0: overlap."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])
