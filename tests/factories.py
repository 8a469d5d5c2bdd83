"""Samples that tests build on."""

from __future__ import annotations

from dataclasses import replace

from univg_eval.samples import GroundingSample, Target

__all__ = ["make_sample"]


def make_sample(number: int = 0, **changes) -> GroundingSample:
    """A question about the second of two images, with some fields replaced."""
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
