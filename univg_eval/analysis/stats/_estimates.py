"""A value with its 95 % limits, and the one rule that says which limits a value gets.

* A share of samples of which no two share images: Wilson's interval.
* A mean, an average over tasks, or a share where clusters hold several samples: a bootstrap that
  draws whole clusters.
* Of several runs, the interval of each sample's mean over them, widened by what other runs would
  add.
* No interval where the samples of a task form one cluster, or the clusters of each task are all
  alike: they cannot show how much they vary.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from univg_eval.analysis.stats._intervals import Interval, macro_bootstrap, wilson_interval
from univg_eval.analysis.stats._runs import run_spread, widened

Method = Literal["wilson", "cluster-bootstrap", "wilson-clusters", "clusters-and-runs", "none"]
METHODS: Mapping[Method, str] = {
    "wilson": "Wilson's interval of a share",
    "cluster-bootstrap": "percentiles of 2,000 draws of whole groups of samples that share images, "
    "widened where groups are few",
    "wilson-clusters": "all values are 0, or all are 1: Wilson's interval with one sample a group",
    "clusters-and-runs": "as for one run, of means over several runs, widened by what other runs "
    "would add (Student's t)",
    "none": "no interval, since the groups of images are too few or do not vary, or the value was "
    "printed without its counts",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % limits, all as fractions.

    Attributes:
        value: on [0, 1].
        n: samples behind it; None where that is not known.
        low, high: None where `method` is ``none``.
        method: see `METHODS`.
        runs: the value of each of several runs; empty for a single one.
        spread: standard deviation of these.
    """

    value: float
    n: int | None
    low: float | None = None
    high: float | None = None
    method: Method = "none"
    runs: tuple[float, ...] = ()
    spread: float | None = None

    @property
    def limits(self) -> list[float] | None:
        """Low and high, as JSON holds them; None where there are none."""
        return None if self.low is None or self.high is None else [self.low, self.high]


def share_estimate(right: int, n: int) -> Estimate:
    """A share of samples of which no two share images."""
    limits = wilson_interval(right, n)
    return Estimate(limits.estimate, n, limits.low, limits.high, "wilson")


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
        return share_estimate(round(math.fsum(values)), n)
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


def runs_estimate(
    runs: Sequence[Mapping[str, Sequence[float]]], clusters: Mapping[str, Sequence[Hashable]]
) -> Estimate:
    """The mean over several runs, and tasks, on the same samples; see `macro_estimate`.

    Args:
        runs: of each run, the values per task in the same order.
        clusters: as for `macro_estimate`.
    """
    means = {
        task: [math.fsum(own) / len(runs) for own in zip(*(run[task] for run in runs), strict=True)]
        for task in runs[0]
    }
    found = macro_estimate(means, clusters)
    if len(means) == 1:
        ((task, own),) = means.items()
        found = task_estimate(own, clusters[task], share=all(v in (0.0, 1.0) for v in own))
    spread = run_spread(runs, clusters)
    found = replace(found, runs=spread.means, spread=spread.sd)
    if found.low is None or found.high is None:
        return found
    limits = widened(Interval(found.value, found.low, found.high), [spread])
    return replace(found, low=limits.low, high=limits.high, method="clusters-and-runs")
