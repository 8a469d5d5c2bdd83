"""The verdict in words: one definition for the terminal, JSON and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from univg_eval.analysis.comparison._figures import LEVEL, Figures
from univg_eval.analysis.comparison._result import Difference, Kind, Side, TaskComparison, Verdict
from univg_eval.analysis.stats import Interval

__all__ = ["judge", "p_words", "points"]

_NOT_THE_MODEL = ("protocol", "dialect", "control", "media")
"""Settings under which another score need not be another model."""


def judge(
    sides: Sequence[Side],
    metric: str,
    figures: Figures,
    *,
    n: int,
    same: int,
    differing: Mapping[str, Any],
) -> Verdict:
    a, b = (side.label for side in sides)
    macro = figures.macro
    interval = macro.interval
    p = 1.0 if macro.p is None else macro.p
    what = f"{'macro ' if len(figures.tasks) > 1 else ''}{metric}"
    differs = figures.counts.wins + figures.counts.losses
    sentences = []
    if same == n and not differs:
        kind: Kind = "identical"
        headline = (
            f"Identical: {a} and {b} gave word for word the same response to each of the {n} "
            f"questions; both have {_percent(macro.a)} {what}."
        )
        sentences.append(
            "Nothing tells them apart here. On other questions of this kind the interval still "
            f"allows {_range(interval, a, b)}."
        )
        return Verdict(kind, headline, " ".join(sentences))
    outside = interval.low > 0 or interval.high < 0
    told = f"95 % interval {points(interval.low)} to {points(interval.high)}, {_p(p)}"
    if outside and p < LEVEL:
        kind = "b_higher" if interval.estimate > 0 else "a_higher"
        headline = _winner(sides, macro, what, p, differing)
    else:
        kind = "borderline" if outside or p < LEVEL else "not_shown"
        start = "At the edge" if kind == "borderline" else "No difference shown"
        headline = (
            f"{start}: {a} has {_percent(macro.a)} {what} and {b} {_percent(macro.b)}, "
            f"{points(interval.estimate)} points, {told}."
        )
        if kind == "borderline":
            sentences.append(
                "The interval and the test do not agree on whether there is a difference; take it "
                "as not shown, and ask more questions."
            )
        sentences.append(f"The interval still allows {_range(interval, a, b)}.")
    if same == n:
        sentences.append(
            "The responses are word for word the same: what differs is how they are read and "
            "scored."
        )
    elif not differs:
        sentences.append(f"No question has another {metric}, but {n - same} responses differ.")
    sentences.append(_tasks_told(figures.tasks, a, b))
    sentences.append(_power_told(macro, kind in ("a_higher", "b_higher"), what, n, differs))
    return Verdict(kind, headline, " ".join(sentence for sentence in sentences if sentence))


def _winner(
    sides: Sequence[Side],
    macro: Difference,
    what: str,
    p: float,
    differing: Mapping[str, Any],
) -> str:
    first, second = (sides[1], sides[0]) if macro.interval.estimate > 0 else (sides[0], sides[1])
    sign = 1 if macro.interval.estimate > 0 else -1
    limits = sorted((sign * macro.interval.low, sign * macro.interval.high))
    values = (macro.b, macro.a) if sign > 0 else (macro.a, macro.b)
    # Under other rules or other pictures a higher score need not be a better model.
    verb = "scores higher than" if set(_NOT_THE_MODEL) & set(differing) else "is better than"
    return (
        f"{first.label} {verb} {second.label}: {points(sign * macro.interval.estimate)} points of "
        f"{what} ({_percent(values[0])} against {_percent(values[1])}), 95 % interval "
        f"{points(limits[0])} to {points(limits[1])}, {_p(p)}."
    )


def _range(interval: Interval, a: str, b: str) -> str:
    ends = []
    for value, better in ((-interval.low, a), (interval.high, b)):
        if value > 0:
            ends.append(f"{better} being better by {100 * value:.1f} points")
    return "anything up to " + " or ".join(ends) if ends else "no difference at all"


def _tasks_told(tasks: Sequence[TaskComparison], a: str, b: str) -> str:
    if len(tasks) < 2:
        return ""
    sure = [task for task in tasks if task.p_holm < LEVEL]
    if not sure:
        return f"In no single task is a difference shown (p corrected for {len(tasks)} tasks)."
    parts = [
        f"{name} is higher in {', '.join(own)}"
        for name, own in (
            (b, [task.task for task in sure if task.difference.interval.estimate > 0]),
            (a, [task.task for task in sure if task.difference.interval.estimate < 0]),
        )
        if own
    ]
    return f"By task (p corrected for {len(tasks)} tasks): {'; '.join(parts)}."


def _power_told(macro: Difference, shown: bool, what: str, n: int, differs: int) -> str:
    seen = macro.detectable
    if seen is None:
        return (
            f"With {n} questions no difference of {what}, however large, could be found surely: "
            "there are too few."
        )
    start = f"With {n} questions and this much disagreement ({differs} of them scored differently)"
    found = "would be found in four of five such comparisons, a smaller one less often"
    if not shown:
        return (
            f"{start}, a true difference under {100 * seen:.1f} points of {what} may well go "
            f"unseen: one of that size {found}."
        )
    text = f"{start}, a true difference of {100 * seen:.1f} points {found}"
    if abs(macro.interval.estimate) < seen:
        text += "; what is found below that size tends to look larger than it is"
    return f"{text}."


def points(value: float) -> str:
    """A difference in points, with its sign; never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def p_words(p: float) -> str:
    """p to the digits that matter: "0.023", "< 0.001"; one below 0.05 never reads as 0.05."""
    if p < 0.001:
        return "< 0.001"
    if p >= 0.1:
        return f"{p:.2f}"
    return f"{p:.3f}" if p >= LEVEL or round(p, 3) < LEVEL else "0.0499"


def _p(p: float) -> str:
    text = p_words(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
