"""The same questions asked twice: under a control, or in another form.

Pairs are questions, so differences are tested on pairs, and intervals are drawn from clusters of
questions that share images.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from univg_eval.analysis.diagnosis.findings import Finding, share_words
from univg_eval.analysis.stats import (
    holm,
    macro_draws,
    mcnemar_test,
    paired_bootstrap,
    wilson_interval,
)
from univg_eval.errors import UserError

__all__ = [
    "ControlResult",
    "Outcome",
    "VariantResult",
    "compare_control",
    "compare_variants",
    "control_findings",
    "variant_findings",
]

RESAMPLES = 2000
SHORTCUT = 0.5
"""Share of the score whose survival is surely reached from which a control is a warning."""
MIN_SCORE = 0.1
"""Score below which nothing is said about what survives of it."""
_SAME = 0.95
_FEWEST = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question's result in one run.

    Attributes:
        id, task, cluster: of the sample.
        value: score in [0, 1], as `univg_eval.scoring` counts it (acc@0.5 where there is one box).
        text: the whole response.
    """

    id: str
    task: str
    cluster: Hashable
    value: float
    text: str


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What is left of the score under a control.

    Attributes:
        control: its name.
        n: questions in both runs.
        score, control_score: unweighted means over tasks of the score, without and with.
        survives, low, high: their ratio with its 95 % interval; None where the score is 0, high
            None where it has no upper end. See `is_telling`.
        same: responses that are word for word those without the control.
        tasks: per task (score, control score, n).
    """

    control: str
    n: int
    score: float
    control_score: float
    survives: float | None
    low: float | None
    high: float | None
    same: int
    tasks: Mapping[str, tuple[float, float, int]]

    @property
    def is_telling(self) -> bool:
        """Whether there is enough of a score for a share of it to mean something."""
        return self.survives is not None and self.score >= MIN_SCORE

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "control": self.control,
            "n": self.n,
            "score": self.score,
            "control_score": self.control_score,
            "survives": self.survives,
            "interval": [self.low, self.high],
            "same_responses": self.same,
            "tasks": {
                task: {"score": a, "control_score": b, "n": n}
                for task, (a, b, n) in self.tasks.items()
            },
        }


def compare_control(
    control: str, normal: Sequence[Outcome], controlled: Sequence[Outcome], *, seed: int = 0
) -> ControlResult:
    """Share of the score that survives a control, with a paired cluster bootstrap.

    Args:
        control: its name.
        normal, controlled: of both runs; questions that only one of them has are left out (some
            controls cannot be applied to every question).
        seed: of the bootstrap.

    Returns:
        The ratio of the unweighted means over tasks and its percentile interval. Resamples draw
        whole clusters; those without any score left have no ratio and count as infinite. Where
        nothing survives there is no spread to draw from: the upper end is then Wilson's for none
        of n questions, divided by the score.

    Raises:
        UserError: the runs share no question.
    """
    pairs = _pairs(normal, controlled)
    clusters, base, other = _by_task(pairs)
    share = {
        task: (float(np.mean(base[task])), float(np.mean(other[task])), len(base[task]))
        for task in clusters
    }
    score = float(np.mean([a for a, _, _ in share.values()]))
    control_score = float(np.mean([b for _, b, _ in share.values()]))
    low: float | None = None
    high: float | None = None
    if score > 0:
        draws_base, draws_other = macro_draws(
            [base, other], clusters, resamples=RESAMPLES, seed=seed
        ).T
        draws_other = np.maximum(draws_other, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(draws_base > 0, draws_other / draws_base, np.inf)
        ordered = np.sort(ratios)
        low = float(ordered[math.floor(0.025 * (len(ordered) - 1))])
        top = float(ordered[math.ceil(0.975 * (len(ordered) - 1))])
        low = low if math.isfinite(low) else None
        high = top if math.isfinite(top) else None
        if control_score == 0:
            high = min(1.0, wilson_interval(0, len(pairs)).high / score)
    return ControlResult(
        control=control,
        n=len(pairs),
        score=score,
        control_score=control_score,
        survives=control_score / score if score > 0 else None,
        low=low,
        high=high,
        same=sum(a.text.strip() == b.text.strip() for a, b in pairs),
        tasks=share,
    )


def _pairs(normal: Sequence[Outcome], other: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    by_id = {outcome.id: outcome for outcome in other}
    pairs = [(outcome, by_id[outcome.id]) for outcome in normal if outcome.id in by_id]
    if not pairs:
        raise UserError("the two runs have no question in common; compare runs of the same tasks")
    return pairs


Values = dict[str, list[float]]


def _by_task(
    pairs: Sequence[tuple[Outcome, Outcome]],
) -> tuple[dict[str, list[Hashable]], Values, Values]:
    """Per task the clusters of its questions, and both scores."""
    clusters: dict[str, list[Hashable]] = {}
    base: Values = {}
    other: Values = {}
    for a, b in pairs:
        clusters.setdefault(a.task, []).append(a.cluster)
        base.setdefault(a.task, []).append(a.value)
        other.setdefault(a.task, []).append(b.value)
    return clusters, base, other


_CONTROL_WORDS = {
    "blank": "the images are blank",
    "swapped": "the images are those of another question",
    "permuted": "the images stand in another order",
    "cut": "the instruction is cut",
}


def control_findings(results: Sequence[ControlResult]) -> list[Finding]:
    """What the controls show: images that do not reach the model, shortcuts, or all well."""
    findings = []
    unused = [result for result in results if _ignores_images(result)]
    if unused:
        findings.append(
            Finding(
                kind="images_not_used",
                severity="problem",
                title="Responses stay word for word the same without the right images: "
                + "; ".join(
                    f"{share_words(r.same, r.n)} when {_CONTROL_WORDS[r.control]}" for r in unused
                )
                + ".",
                detail="The images do not reach the model, or it does not look at them.",
                remedy="Look at the messages of lmms-eval (an image that fails is left out by some "
                "backends), at the backend and its chat template, and at limits on the number of "
                "images.",
                numbers={result.control: result.to_dict() for result in unused},
            )
        )
    for result in results:
        if result in unused:
            continue
        what = _CONTROL_WORDS.get(result.control, f"under the control {result.control}")
        shortcut = (
            # The order of the images takes nothing away where both show the answer, and a
            # question need not be read where the image shows one thing only.
            result.control in ("blank", "swapped")
            and result.is_telling
            and result.low is not None
            and result.low >= SHORTCUT
        )
        findings.append(
            Finding(
                kind="shortcut" if shortcut else "control",
                severity="warning" if shortcut else "note",
                title=_survival(result, what),
                detail="At least half of the score needs nothing of the images: it comes from "
                "typical places and sizes, a shortcut, not from grounding."
                if shortcut
                else "",
                remedy="Compare models by what they lose under the control, not by the score alone."
                if shortcut
                else "Nothing to do.",
                numbers=result.to_dict(),
            )
        )
    return findings


def _survival(result: ControlResult, what: str) -> str:
    """What is left of the score, in a sentence."""
    change = f"{100 * result.score:.0f} % becomes {100 * result.control_score:.0f} %"
    if result.survives is None or not result.is_telling:
        return f"When {what}, a score of {change}; so low a score says nothing about shortcuts."
    return (
        f"{100 * result.survives:.0f} % of the score survives when {what} (95 % interval "
        f"{_interval(result)}): {change}."
    )


def _ignores_images(result: ControlResult) -> bool:
    return (
        result.control in ("blank", "swapped")
        and result.n >= _FEWEST
        and result.same >= _SAME * result.n
    )


def _interval(result: ControlResult) -> str:
    low = "0" if result.low is None else f"{100 * result.low:.0f}"
    high = "no upper end" if result.high is None else f"{100 * result.high:.0f}"
    return f"{low} to {high}"


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One form of the request compared with the declared one.

    Attributes:
        name: of the variant.
        n: questions in both runs.
        score, declared_score: unweighted means over tasks.
        difference, low, high: of the two, with the 95 % interval (paired cluster bootstrap).
        p: two-sided exact McNemar test on acc@0.5, corrected for the number of variants (Holm).
        better, worse: pairs that the variant alone, and the declared form alone, answers right.
    """

    name: str
    n: int
    score: float
    declared_score: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "interval": [self.low, self.high]
        }


def compare_variants(
    declared: Sequence[Outcome], variants: Mapping[str, Sequence[Outcome]], *, seed: int = 0
) -> list[VariantResult]:
    """Compare other forms of the request with the declared one, on the same questions.

    Args:
        declared: outcomes of the declared form.
        variants: outcomes by the variant's name.
        seed: of the bootstrap.

    Returns:
        One result a variant, in their order, p-values corrected by Holm's step-down rule.
    """
    raw = []
    for name, outcomes in variants.items():
        pairs = _pairs(declared, outcomes)
        clusters, base, other = _by_task(pairs)
        score, declared_score = (
            float(np.mean([np.mean(values) for values in of.values()])) for of in (other, base)
        )
        interval = paired_bootstrap(
            {task: np.subtract(other[task], base[task]).tolist() for task in clusters},
            clusters,
            resamples=RESAMPLES,
            seed=seed,
        ).macro
        better = sum(b.value >= 0.5 > a.value for a, b in pairs)
        worse = sum(a.value >= 0.5 > b.value for a, b in pairs)
        raw.append(
            VariantResult(
                name=name,
                n=len(pairs),
                score=score,
                declared_score=declared_score,
                difference=score - declared_score,
                low=interval.low,
                high=interval.high,
                better=better,
                worse=worse,
                p=mcnemar_test(worse, better),
            )
        )
    corrected = holm([result.p for result in raw])
    return [replace(result, p=p) for result, p in zip(raw, corrected, strict=True)]


def variant_findings(results: Sequence[VariantResult], declared: str) -> list[Finding]:
    """Whether another form of the request suits the model better, and the spread of all."""
    if not results:
        return []
    scores = {declared: results[0].declared_score} | {r.name: r.score for r in results}
    best, worst = max(scores, key=scores.__getitem__), min(scores, key=scores.__getitem__)
    spread = scores[best] - scores[worst]
    numbers = {"spread": spread, "scores": scores, "variants": [r.to_dict() for r in results]}
    better = [r for r in results if r.p < 0.05 and r.difference > 0 and r.better > r.worse]
    listing = ", ".join(f"{name} {100 * value:.0f} %" for name, value in scores.items())
    if better:
        top = max(better, key=lambda result: result.score)
        return [
            Finding(
                kind="better_prompt",
                severity="warning",
                title=f"Another request suits the model better: {top.name} scores "
                f"{100 * top.score:.0f} %, the declared one ({declared}) "
                f"{100 * top.declared_score:.0f} %.",
                detail=f"Difference {100 * top.difference:+.0f} points (95 % interval "
                f"{100 * top.low:+.0f} to {100 * top.high:+.0f}; {top.better} questions only this "
                f"one answers, {top.worse} only the declared one; p = {top.p:.2g} corrected for "
                f"{len(results)} variants). All: {listing}.",
                remedy="If you may choose the request, choose this one before the evaluation, and "
                f"use it for all models alike or say so (dialect, prompt style): {top.name}.",
                numbers=numbers,
            )
        ]
    return [
        Finding(
            kind="prompt_spread",
            severity="note",
            title=f"No other request is surely better than {declared}; the spread between "
            f"requests is {100 * spread:.0f} points.",
            detail=f"All: {listing}.",
            remedy="Nothing to do. The spread is how far a choice of words alone can move a score.",
            numbers=numbers,
        )
    ]
