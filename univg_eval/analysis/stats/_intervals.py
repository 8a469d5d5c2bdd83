"""Intervals of one run: a share, and the mean over tasks."""

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
    normal_quantile,
)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence limits, all in the unit of the estimate."""

    estimate: float
    low: float
    high: float


def wilson_interval(k: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval for a share of k successes among n independent samples.

    Unlike the Wald interval it keeps its coverage near 0 and 1 and for small n.

    Args:
        k: successes, 0 <= k <= n.
        n: samples; 0 gives the estimate NaN and the limits [0, 1].
        level: confidence level, between 0 and 1.

    Raises:
        ValueError: k or level out of range.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927); recommended for small n by Brown, Cai and DasGupta, Statistical Science 16
    (2001).
    """
    if not 0 <= k <= n:
        raise ValueError(f"k is {k} with n = {n}; expected 0 <= k <= n")
    z = normal_quantile(level)
    if n == 0:
        return Interval(math.nan, 0.0, 1.0)
    share = k / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the limit is exactly 0 or 1; rounding must not move it past the estimate.
    low = 0.0 if k == 0 else max(0.0, center - half)
    high = 1.0 if k == n else min(1.0, center + half)
    return Interval(share, low, high)


def macro_bootstrap(
    values: Mapping[str, Sequence[float]],
    clusters: Mapping[str, Sequence[Hashable]] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval for the unweighted mean over tasks of each task's mean, by a cluster bootstrap.

    Samples that share images are not independent, so whole clusters are drawn, within strata: those
    that appear in the same tasks, so that each task keeps about its number of samples. The
    deviation of a mean is taken in its linear form, so that no draw divides by another number of
    samples; the limits are percentiles. See `univg_eval.analysis.stats._clusters`.

    Where few samples are right, or few wrong, a plain bootstrap is too narrow. Every draw therefore
    also holds two clusters that were not seen, one above the mean and one below it, drawn as often
    as a bootstrap draws a cluster (Poisson, mean 1), split evenly over the tasks, each as far from
    the mean as the others on its side (root mean square; those of other tasks where there is none):
    Price and Bonett's adjustment ("An improved confidence interval for a linear function of
    binomial proportions", Comput. Stat. Data Anal. 45, 2004) in a bootstrap.

    Args:
        values: per task, one value in [0, 1] a sample; every task has at least one.
        clusters: per task, the cluster of each sample, in the same order; None: each sample is
            its own cluster. Equal values in different tasks are the same cluster.
        level: confidence level, between 0 and 1.
        resamples: number of bootstrap draws.
        seed: of the draws; equal arguments give equal limits.

    Returns:
        The mean and its limits, cut to [0, 1]. Where all values are 0, or all are 1, there is no
        spread to draw from: the limits are Wilson's for the pooled samples, one a cluster.

    Raises:
        ValueError: no task, a task without samples, unequal lengths, or a value outside [0, 1].
    """
    table = cluster_table(values, clusters)
    estimate = float(np.mean(table.means))
    if estimate in (0.0, 1.0):
        n = len(table.sums)
        pooled = wilson_interval(round(estimate * n), n, level)
        return Interval(estimate, pooled.low, pooled.high)
    influence = table.influence.mean(axis=1, keepdims=True)
    generator = np.random.default_rng(seed)
    draws = drawn_deviations(table, influence, generator, resamples)[:, 0]
    draws += estimate + _unseen(table, generator, resamples)
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(estimate, max(0.0, float(low)), min(1.0, float(high)))


def _unseen(
    table: ClusterTable, generator: np.random.Generator, resamples: int
) -> npt.NDArray[np.float64]:
    """What two clusters that were not seen add to each draw; shape (resamples,)."""
    n = table.counts.sum(axis=0)
    added = np.zeros(resamples)
    for side in (1.0, -1.0):
        parts = side * table.influence * n
        # Sums over many samples leave traces of rounding where a task has no spread.
        seen = [column[column > 1e-9] for column in parts.T]
        anywhere = np.concatenate(seen)
        if not anywhere.size:
            continue
        squares = [np.mean((own if own.size else anywhere) ** 2) for own in seen]
        sizes = np.sort(np.sqrt(squares) / n)
        drawn = generator.poisson(1 / len(n), (resamples, len(n)))
        added += side * (drawn * sizes).mean(axis=1)
    return added


def macro_draws(
    columns: Sequence[Mapping[str, Sequence[float]]],
    clusters: Mapping[str, Sequence[Hashable]] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Bootstrap draws of the means over tasks of several values of the same samples.

    As in `macro_bootstrap`, but without clusters that were not seen; values of one sample are drawn
    together, so that differences and ratios of the means can be taken draw by draw.

    Args:
        columns: of the same tasks and samples, in the same order, as in `macro_bootstrap`.
        clusters, resamples, seed: as in `macro_bootstrap`.

    Returns:
        Shape (resamples, columns); a draw may lie a little outside [0, 1].

    Raises:
        ValueError: as in `macro_bootstrap`.
    """
    tables = [cluster_table(values, clusters) for values in columns]
    influence = np.column_stack([table.influence.mean(axis=1) for table in tables])
    estimates = np.array([table.means.mean() for table in tables])
    generator = np.random.default_rng(seed)
    draws: npt.NDArray[np.float64] = estimates + drawn_deviations(
        tables[0], influence, generator, resamples, together=True
    )
    return draws
