"""The sample of a set whose questions have one image and one box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from univg_eval.benchmarks.readers.common.release import image_instruction
from univg_eval.samples import GroundingSample, Target

__all__ = ["still_sample"]


def still_sample(
    *,
    benchmark: str,
    key: str,
    split: str,
    image: str,
    image_wh: tuple[int, int],
    expression: str,
    target: Target,
    source: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> GroundingSample:
    """A question on one image, in the words of UniVG-R1's zero-shot evaluation.

    Args:
        benchmark: name of the benchmark, and of its only task.
        key: the sample's id is ``<benchmark>-<key>``.
        split: of the sample.
        image: path below the benchmark's own folder; also the sample's cluster.
        image_wh: (width, height) as displayed.
        expression: what to find, as released.
        target: the object.
        source, extra: see `GroundingSample`; the expression is added to `extra`.
    """
    return GroundingSample(
        id=f"{benchmark}-{key}",
        benchmark=benchmark,
        task=benchmark,
        split=split,
        images=(f"{benchmark}/{image}",),
        widths=(image_wh[0],),
        heights=(image_wh[1],),
        instruction=image_instruction(expression),
        targets=(target,),
        image_is_given=True,
        cluster=image,
        source=source,
        extra={"expression": expression, **extra},
    )
