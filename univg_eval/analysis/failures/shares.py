"""How many misses of each class there are, and of what."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from univg_eval.analysis.failures.kinds import FAILURES, Failure, FailureKind
from univg_eval.scoring import SampleScore

__all__ = ["FailureShares", "add_shares", "failure_shares"]


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

    def share(self, kind: FailureKind) -> float:
        """Share of the scored samples that fail this way; NaN without samples."""
        return self.kinds[kind] / self.n if self.n else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "n": self.n,
            "misses": self.misses,
            "kinds": dict(self.kinds),
            "hits_on_wrong_image": self.hits_on_wrong_image,
            "several": self.several,
            "excluded": self.excluded,
        }


def failure_shares(
    failures: Mapping[str, Failure], scores: Iterable[SampleScore], *, threshold: float = 0.5
) -> dict[str, FailureShares]:
    """Count the classes of each task.

    Args:
        failures: of the scores, by id.
        scores: all of the run, hits included.
        threshold: the one of `failures`, for `FailureShares.hits_on_wrong_image`.
    """
    rows: dict[str, list[SampleScore]] = {}
    for score in scores:
        rows.setdefault(score.task, []).append(score)
    shares = {}
    for task, members in rows.items():
        scored = [s for s in members if not s.excluded and s.f1 is None]
        counts = Counter(failures[s.id].kind for s in scored if s.id in failures)
        shares[task] = FailureShares(
            n=len(scored),
            misses=counts.total(),
            kinds=MappingProxyType({kind: counts[kind] for kind in FAILURES}),
            hits_on_wrong_image=sum(
                s.image_right is False and s.iou is not None and s.iou >= threshold for s in scored
            ),
            several=sum(s.f1 is not None and not s.excluded for s in members),
            excluded=sum(s.excluded for s in members),
        )
    return shares


def add_shares(parts: Iterable[FailureShares]) -> FailureShares:
    """Those of several tasks together."""
    parts = list(parts)
    return FailureShares(
        n=sum(part.n for part in parts),
        misses=sum(part.misses for part in parts),
        kinds=MappingProxyType({kind: sum(p.kinds[kind] for p in parts) for kind in FAILURES}),
        hits_on_wrong_image=sum(part.hits_on_wrong_image for part in parts),
        several=sum(part.several for part in parts),
        excluded=sum(part.excluded for part in parts),
    )
