"""Samples in clusters and strata, and the one way in which clusters are drawn again."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["ClusterTable", "cluster_sums", "cluster_table", "drawn_deviations", "normal_quantile"]

FloatArray = npt.NDArray[np.float64]

_RESAMPLES_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class ClusterTable:
    """Values of samples, summed over each cluster and task.

    Attributes:
        tasks: names, in order of the columns.
        sums, counts: shape (clusters, tasks); a count is 0 where the cluster has no sample.
        strata: row numbers of the clusters that are drawn for each other.
    """

    tasks: tuple[str, ...]
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
        """What each cluster adds to the deviation of each task's mean; shape (clusters, tasks).

        The linear form of a ratio of sums: (sum - mean x count) / n. It adds up to 0 over the
        clusters of a task.
        """
        totals = self.counts.sum(axis=0)
        influence: FloatArray = (self.sums - self.means * self.counts) / totals
        return influence


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
            if not low <= value <= high:
                raise ValueError(
                    f"task {task!r} has the value {value!r}; expected [{low:g}, {high:g}]"
                )
            entries.append((rows.setdefault(name, len(rows)), column, float(value)))
    sums = np.zeros((len(rows), len(values)))
    counts = np.zeros((len(rows), len(values)))
    for row, column, value in entries:
        sums[row, column] += value
        counts[row, column] += 1
    return ClusterTable(tuple(values), sums, counts, _strata(counts))


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
    """Sum of the values of each cluster, in order of first appearance.

    Args:
        values, clusters: of equal length.
    """
    rows: dict[Hashable, int] = {}
    places = [rows.setdefault(name, len(rows)) for name in clusters]
    sums = np.zeros(len(rows))
    np.add.at(sums, places, np.asarray(values, dtype=np.float64))
    return sums


def drawn_deviations(
    table: ClusterTable, influence: FloatArray, generator: np.random.Generator, resamples: int
) -> FloatArray:
    """Deviations of estimates from themselves when clusters are drawn again.

    Each stratum of g clusters is drawn g times with replacement. Its deviations are enlarged by
    sqrt(g / (g - 1)), since a bootstrap variance is too small by that factor squared; all are
    enlarged by the ratio of the quantiles of Student's t and of the normal distribution for as
    many degrees of freedom as there are clusters less strata, since the spread itself is estimated.

    Args:
        table: gives the strata.
        influence: shape (clusters, estimates): what each cluster adds to each estimate.
        generator: of the draws.
        resamples: how many.

    Returns:
        Shape (resamples, estimates). The order in which samples and tasks were given does not
        matter: clusters are drawn in the order of what they add.
    """
    freedom = len(table.sums) - len(table.strata)
    factor = _t_over_normal(freedom) if freedom > 0 else 1.0
    draws = np.zeros((resamples, influence.shape[1]))
    strata = _ordered(table.strata, influence)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        size = min(_RESAMPLES_AT_ONCE, resamples - start)
        for members in strata:
            g = len(members)
            if g == 1:
                continue
            # Row r of the table counts how often replicate r drew each cluster.
            drawn = generator.integers(0, g, size=(size, g)) + g * np.arange(size)[:, None]
            weights = np.bincount(drawn.ravel(), minlength=size * g).reshape(size, g)
            enlarge = factor * math.sqrt(g / (g - 1))
            draws[start : start + size] += (weights - 1.0) * enlarge @ influence[members]
    return draws


def _ordered(
    strata: Sequence[npt.NDArray[np.intp]], influence: FloatArray
) -> list[npt.NDArray[np.intp]]:
    """Strata and their members by influence: those with the same are drawn to the same effect."""
    # Sums in another order differ in their last digits; adding 0 makes -0 and 0 one.
    keys = np.round(influence, 12) + 0.0
    members = [rows[np.lexsort(keys[rows].T[::-1])] for rows in strata]
    return sorted(members, key=lambda rows: (len(rows), keys[rows].ravel().tolist()))


def _t_over_normal(freedom: int) -> float:
    """Ratio of the 97.5 % quantiles of Student's t and the normal distribution.

    The expansion of Cornish and Fisher in 1 / freedom (Abramowitz and Stegun, 26.7.5), right to
    1 % from 3 degrees of freedom; fewer are taken for 3.
    """
    z = NormalDist().inv_cdf(0.975)
    f = max(3, freedom)
    return (
        1
        + (z**2 + 1) / (4 * f)
        + (5 * z**4 + 16 * z**2 + 3) / (96 * f**2)
        + (3 * z**6 + 19 * z**4 + 17 * z**2 - 15) / (384 * f**3)
    )


def normal_quantile(level: float) -> float:
    """Half-width in standard deviations of the central part `level` of a normal distribution."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; expected a number between 0 and 1, e.g. 0.95")
    return NormalDist().inv_cdf(0.5 + level / 2)
