"""Two runs on the same samples: each difference with its interval, its test and its power."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from univg_eval.analysis.stats._clusters import cluster_sums, normal_quantile
from univg_eval.analysis.stats._intervals import Interval
from univg_eval.analysis.stats._paired import paired_bootstrap, paired_share_interval
from univg_eval.analysis.stats._runs import RunSpread, p_with_runs, run_spread, widened
from univg_eval.analysis.stats._tests import (
    MOST_EXACT,
    holm,
    mcnemar_test,
    sign_flip_test,
    smallest_difference,
    smallest_difference_of_pairs,
)

FloatArray = npt.NDArray[np.float64]
TestName = Literal["mcnemar", "sign_flip_exact", "sign_flip_drawn", "runs"]

LEVEL = 0.05
"""Size of the tests; the intervals are at 1 - LEVEL."""
POWER = 0.8
DRAWS = 9999
"""Patterns of signs drawn where not all can be gone through: no p is below 1 / 10,000."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Samples by their values in both runs.

    Attributes:
        wins, losses, ties: samples where B has more than A, less, as much.
        both, neither: of the ties, those that both have right and wrong; None where samples are
            not right or wrong.
    """

    wins: int
    losses: int
    ties: int
    both: int | None
    neither: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """B - A with what is known about it, as fractions.

    Attributes:
        a, b: the two values.
        interval: of b - a, 95 %.
        p: two-sided; None where no test is made.
        test: which; ``runs``: that of the interval, which covers other runs too.
        detectable: smallest true difference found with 80 % power at 5 %, uncorrected; None where
            none can be found so surely.
        spread_a, spread_b: standard deviation between the runs of each side; None of one run.
    """

    a: float
    b: float
    interval: Interval
    p: float | None = None
    test: TestName | None = None
    detectable: float | None = None
    spread_a: float | None = None
    spread_b: float | None = None


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task.

    Attributes:
        task: its name.
        n, clusters: samples, and groups of them that share images.
        difference: of the task's mean.
        p_holm: p corrected for the number of tasks.
        counts: see `PairCounts`.
    """

    task: str
    n: int
    clusters: int
    difference: Difference
    p_holm: float
    counts: PairCounts


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """What `compare_pairs` finds.

    Attributes:
        macro: of the unweighted means over tasks.
        micro: of the means over all samples; no test is made.
        tasks: in order of their first sample.
        counts: of all samples.
    """

    macro: Difference
    micro: Difference
    tasks: tuple[TaskComparison, ...]
    counts: PairCounts


def compare_pairs(
    tasks: Sequence[str],
    clusters: Sequence[Hashable],
    a: Sequence[float] | Sequence[Sequence[float]],
    b: Sequence[float] | Sequence[Sequence[float]],
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two values of each sample, B - A: the one paired comparison of the project.

    A task of samples that are right or wrong and share no images has Tango's interval and
    McNemar's exact test; everything else a paired cluster bootstrap and sign flips of clusters.

    Of several runs a side, the values of each sample are averaged. What other runs would add (see
    `univg_eval.analysis.stats._runs`) widens the intervals; p is then the larger of that test and
    of where the interval meets 0. The runs of the two sides are independent.

    Args:
        tasks, clusters: of each sample; equal clusters in different tasks are the same.
        a, b: the values of each sample in [0, 1], in the same order; for several runs, one such
            sequence a run.
        resamples: draws of the bootstrap.
        seed: of all draws; equal arguments give equal results, and A - B those of B - A mirrored.

    Raises:
        ValueError: no samples, unequal lengths, or a difference outside [-1, 1].
    """
    sides = [np.atleast_2d(np.asarray(side, np.float64)) for side in (a, b)]
    values = np.column_stack([side.mean(axis=0) for side in sides])
    change = values[:, 1] - values[:, 0]
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    rows: dict[str, list[int]] = {}
    for row, (task, _, _) in enumerate(zip(tasks, clusters, values, strict=True)):
        rows.setdefault(task, []).append(row)
    groups = {task: [clusters[row] for row in own] for task, own in rows.items()}

    def spreads(*parts: Sequence[int]) -> list[RunSpread | None]:
        """Of the unweighted mean over these parts of the samples; None for a side of one run."""
        cut = {str(i): [clusters[row] for row in own] for i, own in enumerate(parts)}
        return [
            run_spread(
                [{str(i): run[own].tolist() for i, own in enumerate(parts)} for run in side], cut
            )
            if len(side) > 1
            else None
            for side in sides
        ]

    drawn = paired_bootstrap(
        {task: change[own].tolist() for task, own in rows.items()},
        groups,
        resamples=resamples,
        seed=seed,
    )
    counts = {task: _counts(values[own], binary) for task, own in rows.items()}
    details = {
        task: _with_runs(
            _task(values[own], groups[task], drawn.tasks[task], counts[task], binary, seed),
            values[own],
            np.full(len(own), 1 / len(own)),
            groups[task],
            spreads(own),
        )
        for task, own in rows.items()
    }
    corrected = holm([difference.p or 0.0 for difference in details.values()])
    found = tuple(
        TaskComparison(task, len(own), len(set(groups[task])), details[task], p, counts[task])
        for (task, own), p in zip(rows.items(), corrected, strict=True)
    )
    total = _counts(values, binary)
    if len(found) == 1:
        macro = found[0].difference
        micro = replace(macro, p=None, test=None, detectable=None)
        return PairedComparison(macro, micro, found, total)
    weight = np.zeros(len(values))
    for own in rows.values():
        weight[own] = 1 / (len(own) * len(rows))
    lattice = binary and len({len(own) for own in rows.values()}) == 1
    step = float(weight[0]) if lattice else 0.0
    macro = _tested(values, weight, clusters, drawn.macro, step=step, seed=seed)
    if lattice and len(set(clusters)) == len(values):
        # Tasks of equal size, no shared images: flipping signs is McNemar's test of all pairs.
        macro = replace(macro, detectable=_detectable(total))
    macro = _with_runs(macro, values, weight, clusters, spreads(*rows.values()))
    micro = Difference(float(values[:, 0].mean()), float(values[:, 1].mean()), drawn.micro)
    micro = _with_runs(micro, values, weight, clusters, spreads(range(len(values))))
    return PairedComparison(macro, micro, found, total)


def _task(
    values: FloatArray,
    clusters: Sequence[Hashable],
    drawn: Interval,
    counts: PairCounts,
    binary: bool,
    seed: int,
) -> Difference:
    n = len(values)
    if not binary or len(set(clusters)) < n:
        weight = np.full(n, 1 / n)
        return _tested(values, weight, clusters, drawn, step=1 / n if binary else 0.0, seed=seed)
    return Difference(
        *_means(values, np.full(n, 1 / n)),
        interval=paired_share_interval(counts.losses, counts.wins, n),
        p=mcnemar_test(counts.losses, counts.wins),
        test="mcnemar",
        detectable=_detectable(counts),
    )


def _tested(
    values: FloatArray,
    weight: FloatArray,
    clusters: Sequence[Hashable],
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
    weights = cluster_sums(weight.tolist(), clusters).tolist()
    return Difference(
        *_means(values, weight),
        interval=interval,
        p=sign_flip_test(parts.tolist(), draws=DRAWS, seed=seed),
        test="sign_flip_exact" if exact else "sign_flip_drawn",
        detectable=smallest_difference(
            parts.tolist(), weights, step=step, level=1 - LEVEL, power=POWER
        ),
    )


def _with_runs(
    difference: Difference,
    values: FloatArray,
    weight: FloatArray,
    clusters: Sequence[Hashable],
    both: Sequence[RunSpread | None],
) -> Difference:
    """The difference with what other runs add to its interval, its test and its power."""
    a, b = (None if spread is None else spread.sd for spread in both)
    difference = replace(difference, spread_a=a, spread_b=b)
    spreads = [spread for spread in both if spread is not None and spread.variance > 0]
    if not spreads:
        return difference
    interval = widened(difference.interval, spreads, low=-1.0)
    difference = replace(difference, interval=interval)
    if difference.p is None:
        return difference
    parts = cluster_sums((weight * (values[:, 1] - values[:, 0])).tolist(), clusters)
    variance = float(parts @ parts)
    p = max(difference.p, p_with_runs(interval.estimate, variance, spreads))
    detectable = difference.detectable
    if detectable is not None:
        z = NormalDist().inv_cdf(POWER)
        error = math.sqrt(variance + sum(spread.variance for spread in spreads))
        half = math.hypot(
            normal_quantile(1 - LEVEL) * math.sqrt(variance), *(s.margin for s in spreads)
        )
        detectable = max(detectable, half + z * error)
    return replace(
        difference,
        p=p,
        test="runs",
        detectable=None if detectable is None or detectable > 1 else detectable,
    )


def _means(values: FloatArray, weight: FloatArray) -> tuple[float, float]:
    return math.fsum(weight * values[:, 0]), math.fsum(weight * values[:, 1])


def _detectable(counts: PairCounts) -> float | None:
    n = counts.wins + counts.losses + counts.ties
    return smallest_difference_of_pairs(
        counts.losses + counts.wins, n, level=1 - LEVEL, power=POWER
    )


def _counts(values: FloatArray, binary: bool) -> PairCounts:
    a, b = values[:, 0], values[:, 1]
    return PairCounts(
        wins=int(np.sum(b > a)),
        losses=int(np.sum(b < a)),
        ties=int(np.sum(a == b)),
        both=int(np.sum((a == 1) & (b == 1))) if binary else None,
        neither=int(np.sum((a == 0) & (b == 0))) if binary else None,
    )
