"""What a published scoring rule of a whole set is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from univg_eval.answers import Answer
from univg_eval.boxes import Box
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample

__all__ = ["Answered", "PublishedRule", "in_pixels"]


class Answered(NamedTuple):
    """A sample with what a model said about it.

    Attributes:
        sample: with its true objects.
        answer: the response, read by the protocol ``univg``.
        text: the response itself, for rules that read it their own way; None: there is none.
    """

    sample: GroundingSample
    answer: Answer
    text: str | None


@dataclass(frozen=True, slots=True)
class PublishedRule:
    """The scorer of a benchmark's authors, quirks included.

    Attributes:
        name: as given to ``--protocol``.
        description: one sentence.
        source: repository, commit and files that define the rule.
        benchmarks: the sets that it scores.
        reads_text: whether the rule reads responses its own way; else their boxes are those of the
            protocol ``univg``, as the rule takes boxes and says nothing of how to read them.
        measure: from every sample of a set and its answer to the rule's metrics, by the names that
            the authors give them in lower case, in [0, 1], counts apart. Of a part of a set a
            metric without samples is left out. UserError: a sample lacks what the rule needs.
        flaws: metric or quirk → what is wrong with it, one line each.
    """

    name: str
    description: str
    source: str
    benchmarks: tuple[str, ...]
    measure: Callable[[Sequence[Answered]], dict[str, float]] = field(repr=False, compare=False)
    reads_text: bool = False
    flaws: Mapping[str, str] = field(default_factory=dict)


def in_pixels(sample: GroundingSample, boxes: Sequence[Box]) -> npt.NDArray[np.float64]:
    """Boxes on the only image of a sample in pixels, as a release and its scorer write them.

    Args:
        sample: of one image.
        boxes: any number P, xyxy_norm.

    Returns:
        shape (P, 4), xyxy in pixels. Rounded to 9 decimals: what dividing by the size of the image
        and multiplying again did to whole pixels would decide where an IoU is exactly a threshold.

    Raises:
        UserError: the size of the image is not known, or there are several images.
    """
    if not sample.image_sizes or len(sample.image_sizes) != 1:
        raise UserError(
            f"sample {sample.id!r} has {len(sample.images)} images and {len(sample.widths)} sizes; "
            "the rule computes in the pixels of one image of known size: prepare the benchmark "
            "with its images"
        )
    size = np.array(sample.image_sizes[0] * 2, dtype=np.float64)
    return np.round(np.array(boxes, dtype=np.float64).reshape(-1, 4) * size, 9)
