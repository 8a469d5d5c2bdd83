"""Differences between two runs on the same samples: their intervals."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from univg_eval.analysis.stats._clusters import (
    ClusterTable,
    cluster_table,
    drawn_deviations,
    linear_parts,
    normal_quantile,
    orientation,
    typical,
)
from univg_eval.analysis.stats._intervals import Interval

FloatArray = npt.NDArray[np.float64]

_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class PairedIntervals:
    """Differences B - A with their limits.

    Attributes:
        macro: of the unweighted means over tasks.
        micro: of the means over all samples.
        tasks: of each task's mean.
    """

    macro: Interval
    micro: Interval
    tasks: dict[str, Interval]


def paired_bootstrap(
    differences: Mapping[str, Sequence[float]],
    clusters: Mapping[str, Sequence[Hashable]] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedIntervals:
    """Intervals of mean paired differences, by a cluster bootstrap.

    Clusters are drawn as in `macro_bootstrap`, each with both runs' values. Few pairs that differ
    say little about the spread, and none say nothing, so a plain bootstrap would be too narrow, or
    have no width at all. Therefore every draw also holds two pairs that were not seen, one in
    favour of each run, drawn as often as a bootstrap draws a pair (Poisson, mean 1) and each as
    large as the differing clusters are on average (root mean square; all of a cluster where none
    differ).
    For a macro mean the two are split evenly over the tasks. That is Bonett and Price's adjustment
    ("Adjusted Wald confidence interval for a difference of binomial proportions based on paired
    data", J. Educ. Behav. Stat. 37, 2012), spread as in Price and Bonett ("An improved confidence
    interval for a linear function of binomial proportions", Comput. Stat. Data Anal. 45, 2004).

    Args:
        differences: per task, B - A in [-1, 1] of each sample.
        clusters: per task, the cluster of each sample; None: each sample is its own cluster. Equal
            values in different tasks are the same cluster.
        level: confidence level, between 0 and 1.
        resamples: number of draws.
        seed: of the draws; equal arguments give equal limits, and A - B those of B - A mirrored.

    Returns:
        Percentile limits, cut to [-1, 1]. A task of a single cluster, or a whole of one, has the
        limits -1 and 1: nothing is known of its spread.

    Raises:
        ValueError: no task, a task without samples, unequal lengths, or a value outside [-1, 1].
    """
    normal_quantile(level)
    # In an order of their own, so that the order of the tasks does not matter to the draws.
    ordered = {task: differences[task] for task in sorted(differences)}
    table = cluster_table(ordered, clusters, low=-1.0, high=1.0)
    n = table.counts.sum(axis=0)
    estimates = np.append(table.means, [table.means.mean(), table.sums.sum() / n.sum()])
    by_task = table.influence
    pooled = linear_parts(table.sums.sum(axis=1), table.counts.sum(axis=1))
    influence = np.column_stack([by_task, by_task.mean(axis=1), pooled])
    generator = np.random.default_rng(seed)
    sign = orientation(influence)
    draws = drawn_deviations(table, (sign or 1) * influence, generator, resamples)
    draws += _unseen_pairs(table, n, generator, resamples)
    tail = (1 - level) / 2
    below, above = np.quantile(draws, [tail, 1 - tail], axis=0)
    if sign == 0:
        above = (above - below) / 2
        below = -above
    elif sign < 0:
        below, above = -above, -below
    low, high = np.clip(estimates + np.stack([below, above]), -1.0, 1.0)
    alone = np.append((table.counts > 0).sum(axis=0) < 2, [len(table.sums) < 2] * 2)
    low[alone], high[alone] = -1.0, 1.0
    *tasks, macro, micro = (
        Interval(float(e), float(a), float(b)) for e, a, b in zip(estimates, low, high, strict=True)
    )
    found = dict(zip(ordered, tasks, strict=True))
    return PairedIntervals(macro, micro, {task: found[task] for task in differences})


def _unseen_pairs(
    table: ClusterTable, n: FloatArray, generator: np.random.Generator, resamples: int
) -> FloatArray:
    """What two pairs that were not seen add to each draw; shape (resamples, tasks + 2)."""
    k = len(n)
    own = [typical(table.sums[:, t]) for t in range(k)]
    full = [typical(table.counts[:, t]) for t in range(k)]
    anywhere = typical(table.sums)
    # Of a task in which nothing differs, the other tasks show how large a difference would be: this
    # counts for the mean over tasks, but not for the task alone.
    alone = np.array([a or b for a, b in zip(own, full, strict=True)])
    among = np.array([a or anywhere or b for a, b in zip(own, full, strict=True)])
    whole = table.sums.sum(axis=1)
    size = typical(whole) or typical(table.counts.sum(axis=1))

    def skellam(rate: float, columns: int) -> FloatArray:
        shape = (resamples, columns)
        for_b = generator.poisson(rate, shape).astype(np.float64)
        return for_b - generator.poisson(rate, shape)

    single = skellam(1.0, k) * alone / n
    macro: FloatArray = (
        single if k == 1 else (skellam(1 / k, k) * among / n).mean(axis=1, keepdims=True)
    )
    micro = single if k == 1 else skellam(1.0, 1) * size / n.sum()
    return np.hstack([single, macro, micro])


def paired_share_interval(only_a: int, only_b: int, n: int, level: float = 0.95) -> Interval:
    """Tango's score interval for the difference of two paired shares, B - A.

    For pairs that are independent and right or wrong. It is wide where few pairs differ, and has a
    width where none do: +-z^2 / (n + z^2).

    Args:
        only_a, only_b: pairs that only A, and only B, has right.
        n: all pairs, at least 1.
        level: confidence level, between 0 and 1.

    Raises:
        ValueError: counts that do not fit n, or level out of range.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design", Statistics in Medicine 17 (1998), 891-908, equations 24 to 26.
    """
    z = normal_quantile(level)
    if only_a < 0 or only_b < 0 or n < 1 or only_a + only_b > n:
        raise ValueError(
            f"only_a is {only_a}, only_b is {only_b} with n = {n}; expected counts of 0 or more "
            "that add up to n at most"
        )
    estimate = (only_b - only_a) / n

    def score(delta: float) -> float:
        # The probability of "only A" that is most likely if the difference is delta.
        linear = (2 * n - only_b + only_a) * delta - only_a - only_b
        root = math.sqrt(max(0.0, linear**2 + 8 * n * only_a * delta * (1 - delta)))
        q = (root - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        gap = n * (estimate - delta)
        return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)

    def limit(inside: float, outside: float) -> float:
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if abs(score(middle)) <= z:
                inside = middle
            else:
                outside = middle
        return outside

    return Interval(
        estimate,
        -1.0 if estimate == -1 else limit(estimate, -1.0),
        1.0 if estimate == 1 else limit(estimate, 1.0),
    )
