"""The numbers of a page about runs: what its table and its charts show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from univg_eval.leaderboard import Estimate, Mark, macro_estimate, task_estimate
from univg_eval.leaderboard.rows import Entry, entry_of_runs
from univg_eval.leaderboard.table import relative_marks
from univg_eval.report.run_data import HEADLINES, ReportData, ReportRun, headline, is_hit
from univg_eval.scoring import SampleScore

__all__ = [
    "CURVE_THRESHOLDS",
    "HISTOGRAM_BINS",
    "RunFigures",
    "figures_of",
]

CURVE_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""IoU thresholds of the curves: 0.05, 0.10, …, 0.95."""

HISTOGRAM_BINS = (
    "no box",
    "IoU 0",
    "(0, 0.1)",
    *(f"[0.{tenth}, 0.{tenth + 1})" for tenth in range(1, 9)),
    "[0.9, 1]",
)
"""Bins of the histograms: no readable box, a box that misses wholly, then tenths of IoU."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What is shown of one run; shares on [0, 1], None where nothing counts.

    Attributes:
        n: samples that count, of every kind.
        excluded: samples left out for an invalid truth.
        misses: samples that count and are not answered right.
        answered: share of the samples with one target that have a readable box.
        macro: unweighted mean over tasks of the headline number.
        micro: mean over samples of it.
        miou: unweighted mean over tasks of the mean IoU (samples with one target).
        tasks: the headline number of each task.
        curve: unweighted mean over tasks of Acc at each of `CURVE_THRESHOLDS`.
        histogram: samples with one target in each of `HISTOGRAM_BINS`.
        failures: misses by class, None where the classes cannot be told; their number is a
            little smaller than `misses` where questions have several targets.
        marks: the leaderboard's, each with what there is to say, possibly nothing.
    """

    n: int
    excluded: int
    misses: int
    answered: float | None
    macro: Estimate | None
    micro: Estimate | None
    miou: float | None
    tasks: Mapping[str, Estimate]
    curve: Sequence[float]
    histogram: Sequence[int]
    failures: Mapping[str, int] | None
    marks: Mapping[Mark, str]


def figures_of(data: ReportData) -> list[RunFigures]:
    """The numbers of each run, in order."""
    entries = [_entry(run) for run in data.runs]
    return [
        _figures(run, data.tasks, _marks(entry, entries[0]))
        for run, entry in zip(data.runs, entries, strict=True)
    ]


def _figures(run: ReportRun, tasks: Sequence[str], marks: Mapping[Mark, str]) -> RunFigures:
    counted = [score for score in run.scores if headline(score) is not None]
    single = [score for score in counted if score.iou is not None]
    by_task = {task: [s for s in counted if s.task == task] for task in tasks}
    by_task = {task: scores for task, scores in by_task.items() if scores}
    values = {task: [headline(s) or 0.0 for s in scores] for task, scores in by_task.items()}
    clusters = {task: [s.cluster for s in scores] for task, scores in by_task.items()}
    shares = {task: all(value in (0.0, 1.0) for value in values[task]) for task in values}
    pooled = [value for task in values for value in values[task]]
    groups = [cluster for task in clusters for cluster in clusters[task]]
    return RunFigures(
        n=len(counted),
        excluded=sum(score.excluded for score in run.scores),
        misses=sum(is_hit(score) is False for score in counted),
        answered=_mean([float(score.status == "ok") for score in single]),
        macro=macro_estimate(values, clusters) if values else None,
        micro=task_estimate(pooled, groups, share=all(shares.values())) if pooled else None,
        miou=_macro(single, lambda score: score.iou or 0.0),
        tasks={
            task: task_estimate(values[task], clusters[task], share=shares[task]) for task in values
        },
        curve=[_macro(single, _reaches(t)) or 0.0 for t in CURVE_THRESHOLDS] if single else [],
        histogram=_histogram(single),
        failures=None
        if run.failures is None
        else {kind: n for kind, n in run.failures.total.kinds.items() if n},
        marks=marks,
    )


def _reaches(threshold: float) -> Callable[[SampleScore], float]:
    return lambda score: float((score.iou or 0.0) >= threshold)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _macro(scores: Sequence[SampleScore], value: Callable[[SampleScore], float]) -> float | None:
    """Unweighted mean over tasks of the mean of `value` over their scores."""
    by_task: dict[str, list[float]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(value(score))
    means = [math.fsum(values) / len(values) for values in by_task.values()]
    return _mean(means)


def _histogram(scores: Sequence[SampleScore]) -> list[int]:
    counts = [0] * len(HISTOGRAM_BINS)
    for score in scores:
        iou = score.iou or 0.0
        if score.status != "ok":
            counts[0] += 1
        elif iou == 0:
            counts[1] += 1
        else:
            # Thousandths first: 0.3 / 0.1 is less than 3 in floats.
            counts[2 + min(9, math.floor(round(iou * 10, 9)))] += 1
    return counts


def _marks(entry: Entry | None, reference: Entry | None) -> dict[Mark, str]:
    """The leaderboard's marks of a run, held against the first run; what is usual is left out."""
    if entry is None:
        return {}
    marks = dict(entry.marks)
    if reference is not None:
        marks |= relative_marks(entry, reference)
    usual = (Mark.REFERENCE, Mark.SAME_FINGERPRINT, Mark.SAME_PROTOCOL)
    return {mark: words for mark, words in marks.items() if mark not in usual}


def _entry(run: ReportRun) -> Entry | None:
    entries = (entry_of_runs([run.record], metric) for metric in HEADLINES)
    return next((entry for entry in entries if entry is not None), None)
