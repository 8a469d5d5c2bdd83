"""Small copies of images that a page holds, each distinct image once."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from univg_eval.errors import UserError
from univg_eval.images.reading import load_reference

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["Thumbnail", "as_webp", "default_side", "make_thumbnails"]

_QUALITY = 60
_AT_ONCE = 64
_MOST_WORKERS = 8  # each holds a whole image


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small copy of an image, or the reason why there is none.

    Attributes:
        data: WebP file in base64, empty where there is none.
        image_wh: (width, height) of the image itself in pixels, None where it cannot be opened.
        problem: why it cannot be opened, else empty.
    """

    data: str
    image_wh: tuple[int, int] | None
    problem: str = ""


def default_side(n: int) -> int:
    """Longest side for a page of `n` images, in pixels: sharp on fine screens as long as it can be.

    From 500 images on it shrinks, so that a page of photographs stays at some tens of megabytes.
    """
    return round(min(960.0, max(400.0, 960 * math.sqrt(500 / max(n, 1)))))


def make_thumbnails(
    references: Sequence[str],
    *,
    side: int,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Thumbnail]:
    """Small copies of images; one that cannot be opened does not raise, its thumbnail says why.

    Args:
        references: entries of `GroundingSample.images`; equal ones are opened once.
        side: longest side in pixels; a smaller image keeps its size.
        root: the data root; default as in `samples.data_root`.
        progress: called with the number of images done.
    """

    def make(reference: str) -> Thumbnail:
        try:
            image = load_reference(reference, root)
        except UserError as error:
            return Thumbnail("", None, str(error))
        return Thumbnail(as_webp(image, side), image.size)

    distinct = list(dict.fromkeys(references))
    made: dict[str, Thumbnail] = {}
    # Decoding frees the interpreter, so threads use all cores; a few images at a time, as whole
    # ones would fill the memory.
    with ThreadPoolExecutor(max_workers=min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(distinct), _AT_ONCE):
            names = distinct[start : start + _AT_ONCE]
            made.update(zip(names, pool.map(make, names), strict=True))
            if progress is not None:
                progress(len(made))
    return made


def as_webp(image: PILImage.Image, side: int) -> str:
    """The image as a WebP file in base64, scaled down to a longest side of `side` pixels."""
    from PIL import Image

    if max(image.size) > side:
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # Means of whole blocks of pixels first: the filter alone takes longer than all else.
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1)
    buffer = io.BytesIO()
    # Few colours: a drawing, whose edges a lossy copy would smear.
    is_drawing = image.getcolors(256) is not None
    image.save(buffer, "WEBP", lossless=is_drawing, quality=_QUALITY, method=2)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
