"""The figures: differences with intervals, tests and power, per task and over all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from univg_eval.analysis.comparison._result import Counts, Difference, TaskComparison
from univg_eval.analysis.stats import (
    MOST_EXACT,
    Interval,
    cluster_sums,
    holm,
    mcnemar_test,
    paired_bootstrap,
    paired_share_interval,
    sign_flip_test,
    smallest_difference,
    smallest_difference_of_pairs,
)
from univg_eval.scoring import SampleScore

__all__ = ["LEVEL", "Figures", "figures_of"]

LEVEL = 0.05
"""Size of the tests; the intervals are at 1 - LEVEL."""
POWER = 0.8
DRAWS = 9999
"""Patterns of signs drawn where not all can be gone through: no p is below 1 / 10,000."""


@dataclass(frozen=True, slots=True)
class Figures:
    """See the attributes of `Comparison` with these names."""

    macro: Difference
    micro: Difference
    tasks: tuple[TaskComparison, ...]
    counts: Counts


def figures_of(
    scores: Sequence[SampleScore], values: npt.NDArray[np.float64], seed: int
) -> Figures:
    """Compare the values of a metric.

    Args:
        scores: of either run: gives task and cluster of each sample.
        values: shape (n, 2): the metric in A and B.
        seed: of the draws.
    """
    change = values[:, 1] - values[:, 0]
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    rows: dict[str, list[int]] = {}
    for row, score in enumerate(scores):
        rows.setdefault(score.task, []).append(row)
    clusters = {task: [scores[row].cluster for row in own] for task, own in rows.items()}
    drawn = paired_bootstrap(
        {task: change[own].tolist() for task, own in rows.items()}, clusters, seed=seed
    )
    details = {
        task: _task(values[own], clusters[task], drawn.tasks[task], binary, seed)
        for task, own in rows.items()
    }
    corrected = holm([difference.p or 0.0 for difference in details.values()])
    tasks = tuple(
        TaskComparison(
            task=task,
            n=len(rows[task]),
            clusters=len(set(clusters[task])),
            difference=difference,
            p_holm=p,
            counts=_counts(values[rows[task]], binary),
        )
        for (task, difference), p in zip(details.items(), corrected, strict=True)
    )
    if len(tasks) == 1:
        macro = tasks[0].difference
        micro = Difference(macro.a, macro.b, macro.interval)
    else:
        weight = np.zeros(len(scores))
        for own in rows.values():
            weight[own] = 1 / (len(own) * len(rows))
        names = [score.cluster for score in scores]
        lattice = binary and len({len(own) for own in rows.values()}) == 1
        macro = _tested(
            values, weight, names, drawn.macro, step=float(weight[0]) if lattice else 0.0, seed=seed
        )
        if lattice and len(set(names)) == len(names):
            # Tasks of equal size, no shared images: flipping signs is McNemar's test of all pairs.
            macro = replace(macro, detectable=_detectable(_counts(values, binary), len(names)))
        micro = Difference(float(values[:, 0].mean()), float(values[:, 1].mean()), drawn.micro)
    return Figures(macro, micro, tasks, _counts(values, binary))


def _task(
    values: npt.NDArray[np.float64],
    clusters: Sequence[str],
    drawn: Interval,
    binary: bool,
    seed: int,
) -> Difference:
    n = len(values)
    weight = np.full(n, 1 / n)
    alone = len(set(clusters)) == n
    result = _tested(values, weight, clusters, drawn, step=1 / n if binary else 0.0, seed=seed)
    if not (binary and alone):
        return result
    counts = _counts(values, binary)
    return Difference(
        a=result.a,
        b=result.b,
        interval=paired_share_interval(counts.losses, counts.wins, n),
        p=mcnemar_test(counts.losses, counts.wins),
        test="mcnemar",
        detectable=_detectable(counts, n),
    )


def _tested(
    values: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    clusters: Sequence[str],
    interval: Interval,
    *,
    step: float,
    seed: int,
) -> Difference:
    """The weighted mean of the samples' differences, tested by flipping the signs of clusters."""
    parts = cluster_sums((weight * (values[:, 1] - values[:, 0])).tolist(), clusters)
    # What cancels within a cluster leaves a trace of rounding, which is no difference.
    parts[np.abs(parts) < 1e-12 * float(weight.max())] = 0.0
    exact = np.count_nonzero(parts) <= MOST_EXACT
    return Difference(
        a=math.fsum(weight * values[:, 0]),
        b=math.fsum(weight * values[:, 1]),
        interval=interval,
        p=sign_flip_test(parts.tolist(), draws=DRAWS, seed=seed),
        test="sign_flip_exact" if exact else "sign_flip_drawn",
        detectable=smallest_difference(
            parts.tolist(),
            cluster_sums(weight.tolist(), clusters).tolist(),
            step=step,
            level=1 - LEVEL,
            power=POWER,
        ),
    )


def _detectable(counts: Counts, n: int) -> float | None:
    return smallest_difference_of_pairs(
        counts.losses + counts.wins, n, level=1 - LEVEL, power=POWER
    )


def _counts(values: npt.NDArray[np.float64], binary: bool) -> Counts:
    a, b = values[:, 0], values[:, 1]
    return Counts(
        wins=int(np.sum(b > a)),
        losses=int(np.sum(b < a)),
        ties=int(np.sum(a == b)),
        both=int(np.sum((a == 1) & (b == 1))) if binary else None,
        neither=int(np.sum((a == 0) & (b == 0))) if binary else None,
    )
