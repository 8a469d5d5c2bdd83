"""Samples in clusters and strata, and the one way in which clusters are drawn again."""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_RESAMPLES_AT_ONCE = 200
_DRAWN_AT_ONCE = 4_000_000
"""Numbers in memory, for sets of more than 20,000 clusters."""


@dataclass(frozen=True, slots=True)
class ClusterTable:
    """Values of samples, summed over each cluster and task.

    Attributes:
        sums, counts: shape (clusters, tasks); a count is 0 where the cluster has no sample.
        strata: row numbers of the clusters that are drawn for each other.
    """

    sums: FloatArray
    counts: FloatArray
    strata: list[npt.NDArray[np.intp]]

    @property
    def means(self) -> FloatArray:
        """Mean of each task, shape (tasks,)."""
        means: FloatArray = self.sums.sum(axis=0) / self.counts.sum(axis=0)
        return means

    @property
    def influence(self) -> FloatArray:
        """What each cluster adds to the deviation of each task's mean; shape (clusters, tasks)."""
        return linear_parts(self.sums, self.counts)


def linear_parts(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """What each cluster adds to the deviation of a mean of all samples: (sum - mean x count) / n.

    That is the linear form of a ratio of sums. A cluster that holds the share h of the samples
    pulls the mean towards itself, so that its part looks smaller than it is by the factor 1 - h;
    each is divided by that, against 1 - 1 / g of g equal clusters, for which nothing changes. The
    squares then add up to the jackknife variance (MacKinnon, Nielsen and Webb, "Cluster-robust
    inference: a guide to empirical practice", J. Econometrics 232, 2023: CV3).

    Args:
        sums, counts: of each cluster; shape (clusters, ...), each further place a mean of its own.

    Returns:
        The same shape; 0 where a single cluster holds all samples.
    """
    totals = counts.sum(axis=0)
    clusters = np.count_nonzero(counts, axis=0)
    rest = totals - counts
    parts = (sums - sums.sum(axis=0) / totals * counts) * (1 - 1 / clusters)
    found: FloatArray = np.divide(parts, rest, out=np.zeros_like(parts), where=rest > 0)
    return found


def cluster_table(
    values: Mapping[str, Sequence[float]],
    clusters: Mapping[str, Sequence[Hashable]] | None,
    *,
    low: float = 0.0,
    high: float = 1.0,
) -> ClusterTable:
    """Sum values over clusters and put the clusters into strata.

    A stratum holds the clusters that appear in the same tasks. One that would hold a single
    cluster could not vary; all such clusters form one stratum together (collapsed strata, Cochran,
    "Sampling Techniques", 1977, section 5A.12), and a last one left alone joins the largest.

    Args:
        values: per task, one value a sample.
        clusters: per task, the cluster of each sample; None: each sample is its own. Equal values
            in different tasks are the same cluster.
        low, high: limits of a value.

    Raises:
        ValueError: no task, a task without samples, unequal lengths, or a value out of limits.
    """
    if not values:
        raise ValueError("no tasks given; expected values of at least one task")
    rows: dict[Hashable, int] = {}
    places, kept = array("q"), array("d")  # a million samples are 16 megabytes
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
            if not low <= value <= high:
                raise ValueError(
                    f"task {task!r} has the value {value!r}; expected [{low:g}, {high:g}]"
                )
            places.append(rows.setdefault(name, len(rows)) * len(values) + column)
            kept.append(value)
    shape = (len(rows), len(values))
    where = np.frombuffer(places, dtype=np.int64)
    sums, counts = (
        np.bincount(where, weights, minlength=shape[0] * shape[1]).astype(float).reshape(shape)
        for weights in (np.frombuffer(kept), None)
    )
    return ClusterTable(sums, counts, _strata(counts))


def _strata(counts: FloatArray) -> list[npt.NDArray[np.intp]]:
    patterns: dict[bytes, list[int]] = {}
    for row, pattern in enumerate(counts > 0):
        patterns.setdefault(pattern.tobytes(), []).append(row)
    strata = [members for members in patterns.values() if len(members) > 1]
    alone = [row for members in patterns.values() if len(members) == 1 for row in members]
    if len(alone) == 1 and strata:
        max(strata, key=len).extend(alone)
    elif alone:
        strata.append(alone)
    return [np.array(members, dtype=np.intp) for members in strata]


def cluster_sums(values: Sequence[float], clusters: Sequence[Hashable]) -> FloatArray:
    """Sum of the values of each cluster, in order of first appearance."""
    rows: dict[Hashable, int] = {}
    places = [rows.setdefault(name, len(rows)) for name in clusters]
    sums = np.zeros(len(rows))
    np.add.at(sums, places, np.asarray(values, dtype=np.float64))
    return sums


def typical(values: FloatArray) -> float:
    """Root mean square of the values other than zero; 0 where all are zero."""
    seen = values[values != 0]
    return math.sqrt(float(np.mean(seen**2))) if seen.size else 0.0


def drawn_deviations(
    table: ClusterTable,
    influence: FloatArray,
    generator: np.random.Generator,
    resamples: int,
    *,
    together: bool = False,
) -> FloatArray:
    """Deviations of estimates from themselves when clusters are drawn again.

    Each stratum of g clusters is drawn g times with replacement. Its deviations are enlarged by
    sqrt(g / (g - 1)), since a bootstrap variance is too small by that factor squared; those of an
    estimate by the ratio of the quantiles of Student's t and of the normal distribution for its
    degrees of freedom, since the spread itself is estimated.

    Args:
        table: gives the strata.
        influence: shape (clusters, estimates): what each cluster adds to each estimate.
        generator: of the draws.
        resamples: how many.
        together: all estimates get the fewest degrees of freedom among them, so that what holds
            between them holds in each draw.

    Returns:
        Shape (resamples, estimates). The order in which samples and tasks were given does not
        matter: clusters are drawn in the order of what they add.
    """
    freedom = _freedom(table.strata, influence)
    if together:
        freedom[:] = freedom.min()
    factors = np.array([t_over_normal(f) for f in freedom])
    draws = np.zeros((resamples, influence.shape[1]))
    strata = _ordered(table.strata, influence)
    at_once = max(1, min(_RESAMPLES_AT_ONCE, _DRAWN_AT_ONCE // max(1, len(influence))))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        for members in strata:
            g = len(members)
            if g == 1:
                continue
            # Row r of the table counts how often replicate r drew each cluster.
            drawn = generator.integers(0, g, size=(size, g)) + g * np.arange(size)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=size * g).reshape(size, g)
            enlarge = math.sqrt(g / (g - 1))
            draws[start : start + size] += (weights - 1.0) * enlarge @ influence[members]
    scaled: FloatArray = draws * factors
    return scaled


def orientation(influence: FloatArray) -> int:
    """1 or -1 by what clusters add, with the sign turned if all their signs are; 0 if they mirror.

    Draws of turned parts that are turned back make intervals of A - B mirror those of B - A.
    """
    keys = sorted(map(tuple, (np.round(influence, 12) + 0.0).tolist()))
    turned = sorted(map(tuple, (np.round(-influence, 12) + 0.0).tolist()))
    return (keys > turned) - (keys < turned)


def _freedom(strata: Sequence[npt.NDArray[np.intp]], influence: FloatArray) -> FloatArray:
    """Degrees of freedom of the variance of each estimate; shape (estimates,).

    A stratum of g clusters has g - 1, or fewer where a few clusters hold most of the variance: a
    sum of squares of normal parts x has about 3 (sum of x^2)^2 / (sum of x^4) (Lipsitz, Ibrahim and
    Parzen, "A degrees-of-freedom approximation for a t-statistic with heterogeneous variance", The
    Statistician 48, 1999). Strata are put together by Welch and Satterthwaite's rule.
    """
    total = np.zeros(influence.shape[1])
    uncertainty = np.zeros(influence.shape[1])
    for members in strata:
        g = len(members)
        if g == 1:
            continue
        squares = (influence[members] - influence[members].mean(axis=0)) ** 2
        spread = squares.sum(axis=0)
        fourth = (squares**2).sum(axis=0)
        seen = fourth > 0
        own = np.full(len(spread), g - 1.0)
        own[seen] = np.minimum(g - 1.0, 3 * spread[seen] ** 2 / fourth[seen])
        variance = spread * g / (g - 1)
        total += variance
        uncertainty += variance**2 / own
    return np.divide(total**2, uncertainty, out=np.full_like(total, np.inf), where=uncertainty > 0)


def _ordered(
    strata: Sequence[npt.NDArray[np.intp]], influence: FloatArray
) -> list[npt.NDArray[np.intp]]:
    """Strata and their members by influence: those with the same are drawn to the same effect."""
    # Sums in another order differ in their last digits; adding 0 makes -0 and 0 one.
    keys = np.round(influence, 12) + 0.0
    members = [rows[np.lexsort(keys[rows].T[::-1])] for rows in strata]
    return sorted(members, key=lambda rows: (len(rows), keys[rows].ravel().tolist()))


def t_over_normal(freedom: float) -> float:
    """Ratio of the 97.5 % quantiles of Student's t and the normal distribution.

    From 3 degrees of freedom the expansion of Cornish and Fisher in 1 / freedom (Abramowitz and
    Stegun, 26.7.5), right to 1 %; below, straight lines between the quantiles of 1, 2 and 3, and 1
    for fewer.
    """
    z = NormalDist().inv_cdf(0.975)
    if freedom < 3:
        return float(np.interp(freedom, [1, 2, 3], [12.7062, 4.3027, 3.1824])) / z
    return (
        1
        + (z**2 + 1) / (4 * freedom)
        + (5 * z**4 + 16 * z**2 + 3) / (96 * freedom**2)
        + (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / (384 * freedom**3)
    )


def normal_quantile(level: float) -> float:
    """Half-width in standard deviations of the central part `level` of a normal distribution."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, e.g. 0.95")
    return NormalDist().inv_cdf(0.5 + level / 2)
