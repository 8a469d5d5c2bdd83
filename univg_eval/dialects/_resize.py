"""Resize rules that families' boxes refer to: of the Qwen2-VL image processor, and of Claude."""

from __future__ import annotations

import math

from univg_eval.errors import UserError

__all__ = ["MAX_ASPECT_RATIO", "fitted_wh", "smart_resize_wh"]

MAX_ASPECT_RATIO = 200
_CLAUDE_PATCH = 28


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
    width, height = _checked(image_wh)
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


def fitted_wh(image_wh: tuple[int, int], *, edge: int, tokens: int) -> tuple[int, int]:
    """Size that an image has after Claude's own resize: the largest that fits, never a larger one.

    A size fits if both sides, padded to multiples of 28, are at most `edge`, and their product
    counts at most `tokens` squares of 28 x 28. The padding is no part of the size.

    Args:
        image_wh: (width, height) of the image as sent in pixels, both at least 1.
        edge: longest padded side in pixels.
        tokens: most squares.

    Returns:
        (width, height) in pixels. Of an image that does not fit, the long side is the largest
        that does (found by bisection), the short one follows from the aspect ratio, half of a
        pixel rounded up, and is at least 1.

    Raises:
        UserError: a side below 1.

    Source: the vendor's page on vision coordinates (platform.claude.com). Its table of examples
    and its sample code differ where the short side ends on half a pixel: the table has 1269 x 952
    for 2000 x 1500, the code, which rounds half to even, 1270 x 952. This is the table's rule.
    """
    width, height = _checked(image_wh)

    def fits(one: int, other: int) -> bool:
        columns, rows = (math.ceil(side / _CLAUDE_PATCH) for side in (one, other))
        return max(columns, rows) * _CLAUDE_PATCH <= edge and columns * rows <= tokens

    if fits(width, height):
        return width, height
    long, short = max(width, height), min(width, height)
    ratio = long / short
    low, high = 1, long
    while low + 1 < high:
        middle = (low + high) // 2
        if fits(middle, _short_side(middle, ratio)):
            low = middle
        else:
            high = middle
    fitted = low, _short_side(low, ratio)
    return fitted if width >= height else (fitted[1], fitted[0])


def _short_side(long_side: int, ratio: float) -> int:
    return max(math.floor(long_side / ratio + 0.5), 1)


def _checked(image_wh: tuple[int, int]) -> tuple[int, int]:
    width, height = image_wh
    if width < 1 or height < 1:
        raise UserError(
            f"image size {image_wh!r} is not a size: expected (width, height) in pixels, each at "
            "least 1"
        )
    return width, height
