"""The conclusion in words: one definition for the terminal, JSON and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from univg_eval.analysis.stats import LEVEL, Difference, Interval, PairedComparison, TaskComparison

Kind = Literal["a_higher", "b_higher", "not_shown", "borderline", "identical"]


def reading_rules(differing: Mapping[str, Any], *, same_model: bool) -> list[str]:
    """What was read in another way in the two runs, though a model's answers call for one.

    Two models each have their own dialect; one model read in two is read wrongly in one.
    """
    names = ("protocol", "dialect") if same_model else ("protocol",)
    return [name for name in names if name in differing]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What a comparison shows.

    Attributes:
        kind: ``a_higher`` and ``b_higher``: the interval leaves out 0 and p < 0.05;
            ``borderline``: one of the two only; ``not_shown``: neither; ``identical``: every
            response and score is the same.
        headline: one sentence with the figures.
        text: what it means, and what this many samples can show.
    """

    kind: Kind
    headline: str
    text: str


def conclude(
    labels: tuple[str, str],
    metric: str,
    figures: PairedComparison,
    *,
    n: int,
    same: int,
    differing: Mapping[str, Any],
    same_model: bool,
) -> Conclusion:
    """Say what the figures show.

    Args:
        labels: of A and B.
        metric: what was compared.
        figures: of the comparison.
        n, same: samples, and those with the same response.
        differing: names of what else differs between the runs.
        same_model: whether both runs are one model's.
    """
    a, b = labels
    macro, interval = figures.macro, figures.macro.interval
    p = 1.0 if macro.p is None else macro.p
    what = f"{'macro ' if len(figures.tasks) > 1 else ''}{metric}"
    differs = figures.counts.wins + figures.counts.losses
    if same == n and not differs:
        return Conclusion(
            "identical",
            f"Identical: {a} and {b} gave word for word the same response to each of the {n} "
            f"samples; both have {_percent(macro.a)} {what}.",
            "Nothing distinguishes them here. On other samples of this kind the interval still "
            f"allows {_range(interval, a, b)}.",
        )
    outside = interval.low > 0 or interval.high < 0
    sentences = []
    if outside and p < LEVEL:
        kind: Kind = "b_higher" if interval.estimate > 0 else "a_higher"
        alike = not reading_rules(differing, same_model=same_model)
        headline = _winner(
            labels, macro, what, alike=alike and not {"control", "media"} & set(differing)
        )
    else:
        kind = "borderline" if outside or p < LEVEL else "not_shown"
        start = "At the edge" if kind == "borderline" else "No difference shown"
        headline = (
            f"{start}: {a} has {_percent(macro.a)} {what} and {b} {_percent(macro.b)}, "
            f"{points(interval.estimate)} points, {_evidence(interval.low, interval.high, p)}."
        )
        if kind == "borderline":
            sentences.append(
                "The interval and the test do not agree on whether there is a difference; take it "
                "as not shown, and evaluate more samples."
            )
        sentences.append(f"The interval still allows {_range(interval, a, b)}.")
    if same == n:
        sentences.append(
            "The responses are word for word the same: what differs is how they are read and "
            "scored."
        )
    elif not differs:
        sentences.append(f"No sample differs in {metric}, but {n - same} responses do.")
    sentences.append(_about_tasks(figures.tasks, a, b))
    sentences.append(_about_power(macro, kind in ("a_higher", "b_higher"), what, n, differs))
    return Conclusion(kind, headline, " ".join(sentence for sentence in sentences if sentence))


def _winner(labels: tuple[str, str], macro: Difference, what: str, *, alike: bool) -> str:
    sign = 1 if macro.interval.estimate > 0 else -1
    first, second = labels[::-sign]
    high, low = (macro.a, macro.b)[::-sign]
    least, most = sorted((sign * macro.interval.low, sign * macro.interval.high))
    # Under other rules or other images a higher score need not be a better model.
    verb = "is better than" if alike else "scores higher than"
    return (
        f"{first} {verb} {second}: {points(sign * macro.interval.estimate)} points of {what} "
        f"({_percent(high)} against {_percent(low)}), {_evidence(least, most, macro.p or 0.0)}."
    )


def _evidence(low: float, high: float, p: float) -> str:
    text = p_words(p)
    return (
        f"95 % interval {points(low)} to {points(high)}, "
        f"{f'p {text}' if text.startswith('<') else f'p = {text}'}"
    )


def _range(interval: Interval, a: str, b: str) -> str:
    ends = [
        f"{better} being better by {100 * value:.1f} points"
        for value, better in ((-interval.low, a), (interval.high, b))
        if value > 0
    ]
    return "anything up to " + " or ".join(ends) if ends else "no difference at all"


def _about_tasks(tasks: Sequence[TaskComparison], a: str, b: str) -> str:
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


def _about_power(macro: Difference, shown: bool, what: str, n: int, differs: int) -> str:
    seen = macro.detectable
    if seen is None:
        return (
            f"With {n} samples no difference of {what}, however large, could be found surely: "
            "there are too few."
        )
    start = f"With {n} samples and this much disagreement ({differs} of them scored differently)"
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
