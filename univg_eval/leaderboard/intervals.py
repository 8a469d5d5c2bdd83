"""Which 95 % interval a number of the leaderboard gets: one rule for all tables and pages.

* A share of samples of which no two share images: Wilson's interval.
* A mean, an average over tasks, or a share where clusters hold several samples: a bootstrap that
  draws whole clusters.
* No interval where the samples of a task form one cluster, or the clusters of each task are all
  alike: they cannot show how much they vary.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from univg_eval.analysis.stats import macro_bootstrap, wilson_interval

__all__ = ["METHODS", "Estimate", "Method", "is_share", "macro_estimate", "task_estimate"]

Method = Literal["wilson", "cluster-bootstrap", "wilson-clusters", "none"]
METHODS: Mapping[Method, str] = {
    "wilson": "Wilson's interval of a share",
    "cluster-bootstrap": "percentiles of 2,000 draws of whole groups of samples that share images, "
    "widened where groups are few",
    "wilson-clusters": "all values are 0, or all are 1: Wilson's interval with one sample a group",
    "none": "no interval, since the groups of images are too few or do not vary, or the value was "
    "printed without its counts",
}

_MEANS = frozenset({"miou", "macc", "f1@0.5", "ap50"})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % limits, all as fractions.

    Attributes:
        value: on [0, 1].
        n: samples behind it; None where that is not known.
        low, high: None where `method` is ``none``.
        method: see `METHODS`.
    """

    value: float
    n: int | None
    low: float | None = None
    high: float | None = None
    method: Method = "none"


def is_share(metric: str) -> bool:
    """Whether every sample counts 0 or 1 under a metric of `scoring.sample_metrics`."""
    return metric not in _MEANS


def task_estimate(
    values: Sequence[float], clusters: Sequence[Hashable], *, share: bool
) -> Estimate:
    """The mean of one task's samples, or of several tasks' samples in one pot.

    Args:
        values: one a sample, on [0, 1]; at least one.
        clusters: the image group of each sample, in the same order.
        share: whether each value is 0 or 1.
    """
    n = len(values)
    if share and len(set(clusters)) == n:
        limits = wilson_interval(round(math.fsum(values)), n)
        return Estimate(limits.estimate, n, limits.low, limits.high, "wilson")
    return macro_estimate({"": values}, {"": clusters})


def macro_estimate(
    values: Mapping[str, Sequence[float]], clusters: Mapping[str, Sequence[Hashable]]
) -> Estimate:
    """The unweighted mean over tasks of each task's mean.

    Args:
        values: per task one value a sample, on [0, 1]; at least one task, none empty.
        clusters: per task the image group of each sample; equal ones in different tasks are the
            same group.
    """
    n = sum(len(task) for task in values.values())
    mean = math.fsum(math.fsum(task) / len(task) for task in values.values()) / len(values)
    if any(len(set(clusters[task])) < 2 for task in values):
        return Estimate(mean, n)
    limits = macro_bootstrap(values, clusters)
    if limits.low == limits.high:
        return Estimate(mean, n)
    method: Method = "wilson-clusters" if limits.estimate in (0.0, 1.0) else "cluster-bootstrap"
    return Estimate(mean, n, limits.low, limits.high, method)
