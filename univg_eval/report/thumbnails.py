"""Small copies of images that a page holds, each distinct image once."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from univg_eval.errors import UserError
from univg_eval.images.reading import load_reference

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["Thumbnail", "make_thumbnails"]

QUALITY = 70
_AT_ONCE = 64
_MOST_WORKERS = 8
"""Each holds a whole image: a machine of many cores would hold gigabytes."""


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


def make_thumbnails(
    references: Sequence[str],
    *,
    side: int,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Thumbnail]:
    """Small copies of images.

    Args:
        references: entries of `GroundingSample.images`; equal ones are opened once.
        side: longest side in pixels; a smaller image keeps its size.
        root: the data root; default as in `samples.data_root`.
        progress: called with the number of images done.

    Returns:
        One an image. One that cannot be opened does not raise: its thumbnail says why.
    """
    distinct = iter(dict.fromkeys(references))
    made: dict[str, Thumbnail] = {}
    # Decoding frees the interpreter, so that threads use all cores; a few images at a time, as
    # whole ones would fill the memory.
    with ThreadPoolExecutor(max_workers=min(_MOST_WORKERS, os.cpu_count() or 1)) as pool:
        while names := list(islice(distinct, _AT_ONCE)):
            made.update(_some(pool, names, side, root))
            if progress is not None:
                progress(len(made))
    return made


def _some(
    pool: ThreadPoolExecutor,
    names: Sequence[str],
    side: int,
    root: str | os.PathLike[str] | None,
) -> Iterator[tuple[str, Thumbnail]]:
    return zip(names, pool.map(lambda name: _one(name, side, root), names), strict=True)


def _one(reference: str, side: int, root: str | os.PathLike[str] | None) -> Thumbnail:
    try:
        image = load_reference(reference, root)
    except UserError as error:
        return Thumbnail("", None, str(error))
    return Thumbnail(base64.b64encode(_webp(image, side)).decode("ascii"), image.size)


def _webp(image: PILImage.Image, side: int) -> bytes:
    from PIL import Image

    size = image.size
    if max(size) > side:
        scale = side / max(size)
        size = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        # Means of whole blocks of pixels first: the filter alone takes longer than all else.
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=1)
    buffer = io.BytesIO()
    # Few colours: a drawing, whose edges a lossy copy would smear.
    is_drawing = image.getcolors(256) is not None
    image.save(buffer, "WEBP", lossless=is_drawing, quality=QUALITY, method=2)
    return buffer.getvalue()
