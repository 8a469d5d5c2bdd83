"""Confidence intervals for shares and for means over tasks, and tests of paired differences.

`wilson_interval` is for one task's share, `macro_bootstrap` for the unweighted mean over tasks,
`sign_flip_test` for differences of pairs such as two training runs with the same seed, and `holm`
for several tests at once.
Their coverage was checked by simulation, also for n = 40 and p = 0.02
(``tests/test_stats.py``, ``benchmarks/interval_coverage.py``).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "holm", "macro_bootstrap", "sign_flip_test", "wilson_interval"]

FloatArray = npt.NDArray[np.float64]

_RESAMPLES_AT_ONCE = 200
_MOST_FLIPPED = 20


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
    z = _normal_quantile(level)
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

    Samples that share images are not independent, so whole clusters are drawn. Clusters are
    drawn within strata: those that appear in the same tasks, so that each task keeps about its
    number of samples. Deviations of a stratum with G clusters are enlarged by sqrt(G / (G - 1)),
    since a bootstrap variance is too small by that factor squared; the limits are percentiles.

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
    sums, counts, strata = _cluster_table(values, clusters)
    estimate = float(np.mean(sums.sum(axis=0) / counts.sum(axis=0)))
    if estimate in (0.0, 1.0):
        n = len(sums)
        pooled = wilson_interval(round(estimate * n), n, level)
        return Interval(estimate, pooled.low, pooled.high)
    generator = np.random.default_rng(seed)
    draws: list[FloatArray] = []
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - start)
        drawn_sums = np.zeros((size, sums.shape[1]))
        drawn_counts = np.zeros((size, sums.shape[1]))
        for members in strata:
            g = len(members)
            enlarge = math.sqrt(g / (g - 1)) if g > 1 else 1.0
            # Row r of the table counts how often replicate r drew each cluster.
            drawn = generator.integers(0, g, size=(size, g)) + g * np.arange(size)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=size * g).reshape(size, g)
            deviations = 1.0 + (weights - 1.0) * enlarge
            drawn_sums += deviations @ sums[members]
            drawn_counts += deviations @ counts[members]
        draws.append(np.mean(drawn_sums / drawn_counts, axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail])
    return Interval(estimate, max(0.0, float(low)), min(1.0, float(high)))


def sign_flip_test(differences: Sequence[float]) -> float:
    """Exact two-sided p of paired differences, by all changes of their signs (Fisher, 1935).

    Without an effect a difference is as likely to be positive as negative, so every pattern of
    signs is as likely as the one observed. p is the share of the 2^n patterns whose mean is at
    least as far from zero; it is never below 2^(1 - n), which is 0.25 for three pairs.

    Args:
        differences: one a pair, finite; at most 20.

    Raises:
        ValueError: no differences, more than 20 (a million patterns), or one that is not finite.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not 1 <= values.size <= _MOST_FLIPPED or values.ndim != 1:
        raise ValueError(
            f"{values.size} differences; expected 1 to {_MOST_FLIPPED}, whose patterns of signs "
            "can all be gone through"
        )
    if not np.isfinite(values).all():
        raise ValueError("a difference is not finite; leave out pairs that were not measured")
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    # Equal sums that were added up in another order differ in their last digits.
    tolerance = 1e-12 * float(np.abs(values).sum())
    return float(np.mean(np.abs(sums) >= abs(float(values.sum())) - tolerance))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several tests, adjusted so that the chance of any false alarm keeps its level.

    Holm, "A simple sequentially rejective multiple test procedure" (1979): the i-th smallest of m
    is multiplied by m - i + 1; none becomes smaller than the one before it, nor larger than 1.

    Raises:
        ValueError: a value is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p values are {list(p_values)}; expected numbers from 0 to 1")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]


def _cluster_table(
    values: Mapping[str, Sequence[float]],
    clusters: Mapping[str, Sequence[Hashable]] | None,
) -> tuple[FloatArray, FloatArray, list[npt.NDArray[np.intp]]]:
    """Sums and counts, shape (clusters, tasks), and the clusters of each stratum."""
    if not values:
        raise ValueError("no tasks given; expected values of at least one task")
    rows: dict[Hashable, int] = {}
    entries: list[tuple[int, int, float]] = []
    for column, (task, task_values) in enumerate(values.items()):
        if not len(task_values):
            raise ValueError(f"task {task!r} has no samples; leave it out")
        names: Sequence[Hashable] = (
            [(task, i) for i in range(len(task_values))] if clusters is None else clusters[task]
        )
        if len(names) != len(task_values):
            raise ValueError(
                f"task {task!r} has {len(task_values)} values and {len(names)} clusters; "
                "expected one cluster a value"
            )
        for name, value in zip(names, task_values, strict=True):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"task {task!r} has the value {value!r}; expected [0, 1]")
            entries.append((rows.setdefault(name, len(rows)), column, float(value)))
    sums = np.zeros((len(rows), len(values)))
    counts = np.zeros((len(rows), len(values)))
    for row, column, value in entries:
        sums[row, column] += value
        counts[row, column] += 1
    patterns: dict[bytes, list[int]] = {}
    for row, pattern in enumerate(counts > 0):
        patterns.setdefault(pattern.tobytes(), []).append(row)
    return sums, counts, [np.array(members) for members in patterns.values()]


def _normal_quantile(level: float) -> float:
    """Half-width in standard deviations of the central part `level` of a normal distribution."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, e.g. 0.95")
    return NormalDist().inv_cdf(0.5 + level / 2)
