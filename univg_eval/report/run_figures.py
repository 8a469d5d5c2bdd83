"""The numbers of a page about runs: what its table and its charts show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from univg_eval.report.run_data import ReportData, ReportRun, headline, is_hit
from univg_eval.scoring import SampleScore
from univg_eval.stats import Interval, macro_bootstrap, wilson_interval

__all__ = [
    "CURVE_THRESHOLDS",
    "HISTOGRAM_BINS",
    "RunFigures",
    "TaskFigure",
    "figures_of",
    "task_interval",
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

_TRUNCATED_FROM = 0.01
"""Share of truncated responses from which it is marked: the run had too few new tokens."""


@dataclass(frozen=True, slots=True)
class TaskFigure:
    """Headline number of one run in one task, with its 95 % interval, on [0, 1].

    Attributes:
        n: samples that count.
        interval: mean of `univg_eval.report.run_data.headline` over them.
    """

    n: int
    interval: Interval


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
        tasks: by name.
        curve: unweighted mean over tasks of Acc at each of `CURVE_THRESHOLDS`.
        histogram: samples with one target in each of `HISTOGRAM_BINS`.
        failures: misses by class, None where the classes cannot be told; their number is a
            little smaller than `misses` where questions have several targets.
        marks: what sets the run apart from a plain one, in a word or two each.
    """

    n: int
    excluded: int
    misses: int
    answered: float | None
    macro: Interval | None
    micro: Interval | None
    miou: float | None
    tasks: Mapping[str, TaskFigure]
    curve: Sequence[float]
    histogram: Sequence[int]
    failures: Mapping[str, int] | None
    marks: Sequence[str] = field(default=())


def figures_of(run: ReportRun, data: ReportData) -> RunFigures:
    """The numbers of one run."""
    counted = [score for score in run.scores if headline(score) is not None]
    single = [score for score in counted if score.iou is not None]
    by_task = {task: [s for s in counted if s.task == task] for task in data.tasks}
    by_task = {task: scores for task, scores in by_task.items() if scores}
    values = {task: [headline(s) or 0.0 for s in scores] for task, scores in by_task.items()}
    clusters = {task: [s.cluster for s in scores] for task, scores in by_task.items()}
    pooled = [value for task in values for value in values[task]]
    return RunFigures(
        n=len(counted),
        excluded=sum(score.excluded for score in run.scores),
        misses=sum(is_hit(score) is False for score in counted),
        answered=_mean([float(score.status == "ok") for score in single]),
        macro=macro_bootstrap(values, clusters) if values else None,
        micro=task_interval(pooled, [c for task in clusters for c in clusters[task]]),
        miou=_macro(single, lambda score: score.iou or 0.0),
        tasks={
            task: TaskFigure(len(values[task]), interval)
            for task in values
            if (interval := task_interval(values[task], clusters[task])) is not None
        },
        curve=[_macro(single, _reaches(t)) or 0.0 for t in CURVE_THRESHOLDS] if single else [],
        histogram=_histogram(single),
        failures=None
        if run.failures is None
        else {kind: n for kind, n in run.failures.total.kinds.items() if n},
        marks=_marks(run, counted),
    )


def task_interval(values: Sequence[float], clusters: Sequence[str]) -> Interval | None:
    """Mean of values on [0, 1] with its 95 % interval; None without values.

    Wilson's interval for shares of independent samples; a bootstrap of whole clusters where
    samples share images or where values lie between 0 and 1.
    """
    if not values:
        return None
    if len(set(clusters)) == len(values) and all(value in (0.0, 1.0) for value in values):
        return wilson_interval(round(math.fsum(values)), len(values))
    return macro_bootstrap({"": values}, {"": clusters})


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


def _marks(run: ReportRun, counted: Sequence[SampleScore]) -> list[str]:
    manifest = run.record.manifest
    marks = []
    if not run.outcomes:
        return ["empty"]
    truncated = sum(score.status == "truncated" for score in counted)
    if counted and truncated / len(counted) > _TRUNCATED_FROM:
        marks.append(f"{100 * truncated / len(counted):.1f} % truncated")
    protocol = run.setting("protocol")
    if protocol not in (None, "univg"):
        marks.append(f"protocol {protocol}")
    for name in ("control", "media"):
        value = manifest["dataset"].get(name)
        if value not in (None, "none", "images"):
            marks.append(f"{name} {value}")
    whole = manifest["dataset"].get("n")
    if not manifest.get("complete", True):
        part = f" ({len(run.outcomes):,} of {whole:,})" if isinstance(whole, int) else ""
        marks.append(f"part of the set{part}")
    excluded = sum(score.excluded for score in run.scores)
    if excluded:
        marks.append(f"{excluded:,} excluded")
    unanswered = sum(outcome.response is None for outcome in run.outcomes.values())
    if unanswered:
        marks.append(f"{unanswered:,} without a response")
    return marks
