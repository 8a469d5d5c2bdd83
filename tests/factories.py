"""Samples and videos that tests build on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from univg_eval.samples import GroundingSample, Target

__all__ = ["make_sample", "write_clip"]


def make_sample(number: int = 0, **changes) -> GroundingSample:
    """A sample on the second of two images, with some fields replaced."""
    sample = GroundingSample(
        id=f"toy-{number:05d}",
        benchmark="toy",
        task="find",
        split="test",
        images=("toy/images/a.png", "toy/images/b.png"),
        widths=(640, 320),
        heights=(480, 240),
        instruction="Where is it in the second image?",
        targets=(Target(image=1, box=(0.1, 0.2, 0.3, 0.4)),),
        image_is_given=True,
        cluster="c0",
        source={"file": "toy.json", "row": number, "images": ["./a.png", "./b.png"]},
        extra={"depth": 2},
    )
    return replace(sample, **changes)


def write_clip(
    path: Path, levels: Iterable[int] = range(0, 200, 10), wh: tuple[int, int] = (64, 48)
) -> Path:
    """A video of H.264 at 10 frames a second, each frame of one grey level."""
    av = pytest.importorskip("av")
    if "libx264" not in av.codecs_available:
        pytest.skip("av has no libx264 to write with")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *wh, "yuv420p"
        for level in levels:
            pixels = np.full((wh[1], wh[0], 3), level, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return path
