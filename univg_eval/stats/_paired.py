"""Differences between two runs on the same samples: their intervals, and what can be seen."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from univg_eval.stats._clusters import (
    ClusterTable,
    cluster_table,
    drawn_deviations,
    normal_quantile,
)
from univg_eval.stats._intervals import Interval

__all__ = ["PairedIntervals", "paired_bootstrap", "paired_share_interval", "smallest_difference"]

FloatArray = npt.NDArray[np.float64]

_HALVINGS = 60
_FEWEST_CLUSTERS = 6
"""Fewer have no pattern of signs with p < 0.05: 2 of 2^5 patterns are 0.0625."""


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
        seed: of the draws; equal arguments give equal limits.

    Returns:
        Percentile limits, cut to [-1, 1]. A task of a single cluster, or a whole of one, has the
        limits -1 and 1: nothing is known of its spread.

    Raises:
        ValueError: no task, a task without samples, unequal lengths, or a value outside [-1, 1].
    """
    normal_quantile(level)
    table = cluster_table(differences, clusters, low=-1.0, high=1.0)
    n = table.counts.sum(axis=0)
    estimates = np.append(table.means, [table.means.mean(), table.sums.sum() / n.sum()])
    by_task = table.influence
    pooled: FloatArray = (table.sums - estimates[-1] * table.counts).sum(axis=1) / n.sum()
    influence = np.column_stack([by_task, by_task.mean(axis=1), pooled])
    generator = np.random.default_rng(seed)
    draws = estimates + drawn_deviations(table, influence, generator, resamples)
    draws += _unseen_pairs(table, n, generator, resamples)
    tail = (1 - level) / 2
    low, high = np.clip(np.quantile(draws, [tail, 1 - tail], axis=0), -1.0, 1.0)
    alone = np.append((table.counts > 0).sum(axis=0) < 2, [len(table.sums) < 2] * 2)
    low[alone], high[alone] = -1.0, 1.0
    *tasks, macro, micro = (
        Interval(float(e), float(a), float(b)) for e, a, b in zip(estimates, low, high, strict=True)
    )
    return PairedIntervals(macro, micro, dict(zip(table.tasks, tasks, strict=True)))


def _unseen_pairs(
    table: ClusterTable, n: FloatArray, generator: np.random.Generator, resamples: int
) -> FloatArray:
    """What two pairs that were not seen add to each draw; shape (resamples, tasks + 2)."""
    k = len(n)
    own = [_typical(table.sums[:, t]) for t in range(k)]
    full = [_typical(table.counts[:, t]) for t in range(k)]
    anywhere = _typical(table.sums)
    # Of a task in which nothing differs, the other tasks tell how large a difference would be: this
    # counts for the mean over tasks, but not for the task alone.
    alone = np.array([a or b for a, b in zip(own, full, strict=True)])
    among = np.array([a or anywhere or b for a, b in zip(own, full, strict=True)])
    whole = table.sums.sum(axis=1)
    size = _typical(whole) or _typical(table.counts.sum(axis=1))

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


def _typical(values: FloatArray) -> float:
    """Root mean square of the values other than zero; 0 where all are zero."""
    seen = values[values != 0]
    return math.sqrt(float(np.mean(seen**2))) if seen.size else 0.0


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


def smallest_difference(
    contributions: Sequence[float],
    weights: Sequence[float],
    *,
    step: float = 0.0,
    level: float = 0.95,
    power: float = 0.8,
) -> float | None:
    """The smallest true difference that a two-sided test finds with this power.

    With the disagreement that was observed: V, the sum of the squared contributions, is the
    variance of the difference under the test's null hypothesis, and V - K d^2 that under a
    difference d, K being the sum of the squared weights. The smallest d that can be seen solves
    d = z(level) sqrt(V) + z(power) sqrt(V - K d^2) + step. For independent pairs that are right or
    wrong V is (share of pairs that differ) / n and K = 1 / n, which is the formula of Connett,
    Smith and McHugh, "Sample size and power for pair-matched case-control studies", Statistics in
    Medicine 6 (1987), 53-59. A difference needs disagreement itself: where V is too small for d, it
    is taken to be what d needs at least, K d times the root mean square of a differing cluster's
    mean difference (1 where none differ).

    Args:
        contributions: of each cluster to the difference; they add up to it.
        weights: of each cluster; they add up to 1, and the contribution of a cluster in which each
            sample differs by 1 is its weight.
        step: change of the difference by one pair where all change it alike, else 0. An exact test
            on such a lattice needs about one pair more than a normal one (continuity correction).
        level, power: 1 - size of the two-sided test, and the chance to find the difference.

    Returns:
        The difference, in the unit of the contributions; None where no difference up to 1 can be
        found so surely, as with fewer than six clusters.

    Raises:
        ValueError: unequal lengths, or level or power out of range.
    """
    parts = np.asarray(contributions, dtype=np.float64)
    shares = np.asarray(weights, dtype=np.float64)
    if parts.shape != shares.shape or parts.ndim != 1:
        raise ValueError(
            f"{parts.size} contributions and {shares.size} weights; expected one each a cluster"
        )
    z_level = normal_quantile(level)
    if not 0.0 < power < 1.0:
        raise ValueError(f"power is {power}; expected a number between 0 and 1, e.g. 0.8")
    z_power = NormalDist().inv_cdf(power)
    if parts.size < _FEWEST_CLUSTERS:
        return None
    spread = float(np.sum(parts**2))
    k = float(np.sum(shares**2))
    differing = (parts != 0) & (shares > 0)
    size = _typical(parts[differing] / shares[differing]) or 1.0

    def lacking(d: float) -> float:
        variance = max(spread, k * size * d)
        return (
            z_level * math.sqrt(variance)
            + z_power * math.sqrt(max(0.0, variance - k * d * d))
            + step
            - d
        )

    if lacking(1.0) > 0:
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if lacking(middle) > 0 else (low, middle)
    return high
