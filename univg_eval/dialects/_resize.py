"""The resize rule of the Qwen2-VL image processor, whose output some families' boxes refer to."""

from __future__ import annotations

import math

from univg_eval.errors import UserError

__all__ = ["MAX_ASPECT_RATIO", "smart_resize_wh"]

MAX_ASPECT_RATIO = 200


def smart_resize_wh(
    image_wh: tuple[int, int], *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Size that an image has after the processor's resize.

    Args:
        image_wh: (width, height) of the original in pixels, both at least 1.
        factor: both sides become multiples of it (patch size times merge size).
        min_pixels: smallest allowed area in pixels.
        max_pixels: largest allowed area in pixels.

    Returns:
        (width, height) in pixels. The processors' own functions take and return height first.

    Raises:
        UserError: a side below 1, or one side over 200 times the other: the processor refuses
            such an image.

    Source: ``smart_resize`` of qwen_vl_utils 0.0.14 (``vision_process.py``). transformers 5.23
    (``models/qwen2_vl/image_processing_qwen2_vl.py``) agrees wherever both sides reach half the
    factor and an area above the limit leaves each side at least one factor. Rounding is Python's
    (half to even).
    """
    width, height = image_wh
    if width < 1 or height < 1:
        raise UserError(
            f"image size {image_wh!r} is not a size: expected (width, height) in pixels, each at "
            "least 1"
        )
    if max(width, height) / min(width, height) > MAX_ASPECT_RATIO:
        raise UserError(
            f"image size {image_wh!r} has an aspect ratio over {MAX_ASPECT_RATIO}, which the "
            "image processor refuses; leave the image out or crop it"
        )
    new_width = max(factor, round(width / factor) * factor)
    new_height = max(factor, round(height / factor) * factor)
    if new_width * new_height > max_pixels:
        beta = math.sqrt(width * height / max_pixels)
        # A very long image would be floored to a side of 0; transformers keeps one factor there.
        new_width = max(factor, math.floor(width / beta / factor) * factor)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
    elif new_width * new_height < min_pixels:
        beta = math.sqrt(min_pixels / (width * height))
        new_width = math.ceil(width * beta / factor) * factor
        new_height = math.ceil(height * beta / factor) * factor
    return new_width, new_height
