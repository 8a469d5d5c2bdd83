"""The classes of misses, one miss, and how many there are; defined at the top of the package."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from univg_eval.scoring import SampleScore

__all__ = ["FAILURES", "Failure", "FailureKind", "FailureShares"]

FailureKind = Literal[
    "invalid_truth",
    "truncated",
    "wrong_image",
    "no_box",
    "said_none",
    "false_alarm",
    "other_scale",
    "invalid_box",
    "wrong_object",
    "loose",
    "tight",
    "shifted",
    "image_mixup",
    "elsewhere",
]

FAILURES: Mapping[FailureKind, str] = MappingProxyType(
    {
        "invalid_truth": "The true box is empty or inverted, so that no answer can hit it.",
        "truncated": "Thinking or answer never ends, and no box stands outside the thinking.",
        "wrong_image": "The box is on another image than the object.",
        "no_box": "The response holds no readable box.",
        "said_none": "The response says that there is no such object, though there is one.",
        "false_alarm": "The response gives a box, though there is no such object.",
        "other_scale": "The numbers fit the object if read in another dialect or with other pixel "
        "limits, as many misses of the run do: a hint at the set-up.",
        "invalid_box": "The box is inverted, empty or outside the image.",
        "wrong_object": "The box fits another object of the image.",
        "loose": "The box covers the object and is too large.",
        "tight": "The box lies inside the object and is too small.",
        "shifted": "The box overlaps the object and neither covers it nor lies inside it.",
        "image_mixup": "The box fits an object of another image of the sample.",
        "elsewhere": "The box is somewhere else, on no object that is known.",
    }
)
"""All classes in the order in which they are tried, with their meanings; read-only."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one sample is a miss.

    Attributes:
        kind: one of `FAILURES`.
        iou: with the target, as scored; None for a sample without target.
        hints: sentences on what else is known; they use the truth and are never a score.
    """

    kind: FailureKind
    iou: float | None
    hints: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "iou": self.iou, "hints": list(self.hints)}


@dataclass(frozen=True, slots=True)
class FailureShares:
    """The misses of one task, or of all, by class.

    Attributes:
        n: scored samples with one target or none: the denominator of `share`.
        misses: those that are misses.
        kinds: how many of each class, every class of `FAILURES` in order; they sum to `misses`.
        hits_on_wrong_image: hits by the box's coordinates that name another image, or none, where
            the model had to find it; no misses here, but not counted by ``joint@0.5`` either.
        several: samples with several targets, which have no class.
        excluded: samples left out of the score.
    """

    n: int
    misses: int
    kinds: Mapping[FailureKind, int]
    hits_on_wrong_image: int
    several: int
    excluded: int

    @classmethod
    def count(
        cls, failures: Mapping[str, Failure], scores: Sequence[SampleScore], threshold: float
    ) -> FailureShares:
        """Of these scores, hits included; `failures` by id are those at `threshold`."""
        scored = [s for s in scores if not s.excluded and s.f1 is None]
        counts = Counter(failures[s.id].kind for s in scored if s.id in failures)
        return cls(
            n=len(scored),
            misses=counts.total(),
            kinds=MappingProxyType({kind: counts[kind] for kind in FAILURES}),
            hits_on_wrong_image=sum(
                s.image_right is False and s.iou is not None and s.iou >= threshold for s in scored
            ),
            several=sum(s.f1 is not None and not s.excluded for s in scores),
            excluded=sum(s.excluded for s in scores),
        )

    def share(self, kind: FailureKind) -> float:
        """Share of the scored samples that fail this way; NaN without samples."""
        return self.kinds[kind] / self.n if self.n else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"kinds": dict(self.kinds)}
