"""The measured boxes once more, on photographs enlarged so far that pixel limits matter."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import numpy as np

from univg_eval.benchmarks.synthetic.photos.question import Album, Enlarged, Question, to_norm
from univg_eval.benchmarks.synthetic.photos.sources import Pixels

__all__ = ["LARGE_PIXELS", "enlarged", "enlarged_wh", "large"]

LARGE_PIXELS = 2_400_000
"""More than the common upper limits of dialects in pixels (0.4 to 1.6 million), so that each of
these gives the model an input of another size."""


def large(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """All boxes that were measured by hand: neither `rng` nor `n` changes them.

    With half of them no difference between limits would be sure enough to report.
    """
    for annotation in album.annotations:
        name = annotation.photo
        wh = album.wh(name)
        yield Question(
            images=(Enlarged(name, enlarged_wh(wh)),),
            instruction=f"Locate {annotation.expression}.",
            target_image=0,
            box=to_norm(annotation.bbox, wh),
            subject=name,
            kind="enlarged",
            extra={"expression": annotation.expression},
        )


def enlarged_wh(wh: tuple[int, int]) -> tuple[int, int]:
    """(width, height) in pixels of about `LARGE_PIXELS`, in the proportions of `wh`."""
    factor = math.sqrt(LARGE_PIXELS / (wh[0] * wh[1]))
    return round(wh[0] * factor), round(wh[1] * factor)


def enlarged(pixels: Pixels, wh: tuple[int, int]) -> Pixels:
    """The image resized to (width, height) by Lanczos' filter."""
    from PIL import Image

    resized = Image.fromarray(pixels).resize(wh, Image.Resampling.LANCZOS)
    return np.asarray(resized, dtype=np.uint8)
