"""The same samples evaluated twice: under a control, or with another form of the request.

Pairs are samples, so differences are tested on pairs, and intervals are drawn from clusters of
samples that share images.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from univg_eval.analysis.diagnosis.findings import CheckFinding, share_words
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
    "SampleValue",
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
class SampleValue:
    """One sample's result in one run.

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


Values = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """What two runs have in common, by task: clusters and the values in both."""

    pairs: list[tuple[SampleValue, SampleValue]]
    clusters: dict[str, list[Hashable]]
    base: Values
    other: Values

    @classmethod
    def of(cls, base: Sequence[SampleValue], other: Sequence[SampleValue]) -> _Pairs:
        by_id = {sample.id: sample for sample in other}
        both = cls([(a, by_id[a.id]) for a in base if a.id in by_id], {}, {}, {})
        if not both.pairs:
            raise UserError("the two runs have no sample in common; compare runs of the same tasks")
        for a, b in both.pairs:
            both.clusters.setdefault(a.task, []).append(a.cluster)
            both.base.setdefault(a.task, []).append(a.value)
            both.other.setdefault(a.task, []).append(b.value)
        return both

    @property
    def scores(self) -> tuple[float, float]:
        """Unweighted means over tasks, of both runs."""
        base, other = (
            float(np.mean([np.mean(values) for values in run.values()]))
            for run in (self.base, self.other)
        )
        return base, other


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What is left of the score under a control.

    Attributes:
        control: its name.
        n: samples in both runs.
        score, control_score: unweighted means over tasks of the score, without and with.
        survives, low, high: their ratio with its 95 % interval; None where the score is 0, high
            None where it has no upper end.
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
    def is_meaningful(self) -> bool:
        """Whether there is enough of a score for a share of it to mean something."""
        return self.survives is not None and self.score >= MIN_SCORE

    @property
    def ignores_images(self) -> bool:
        """Whether nearly all responses stay word for word the same without the right images."""
        return (
            self.control in ("blank", "swapped")
            and self.n >= _FEWEST
            and self.same >= _SAME * self.n
        )

    @property
    def is_shortcut(self) -> bool:
        """Whether half of the score surely survives without the right images.

        The order of the images takes nothing away where both show the answer, and a question need
        not be read where the image shows one thing only.
        """
        return (
            self.control in ("blank", "swapped")
            and self.is_meaningful
            and self.low is not None
            and self.low >= SHORTCUT
        )

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
    control: str,
    normal: Sequence[SampleValue],
    controlled: Sequence[SampleValue],
    *,
    seed: int = 0,
) -> ControlResult:
    """Share of the score that survives a control, with a paired cluster bootstrap.

    Args:
        control: its name.
        normal, controlled: of both runs; samples that only one of them has are left out (some
            controls cannot be applied to every sample).
        seed: of the bootstrap.

    Returns:
        The ratio of the unweighted means over tasks and its percentile interval. Resamples draw
        whole clusters; those without any score left have no ratio and count as infinite. Where
        nothing survives there is no spread to draw from: the upper end is then Wilson's for none
        of n samples, divided by the score.

    Raises:
        UserError: the runs share no sample.
    """
    both = _Pairs.of(normal, controlled)
    n = len(both.pairs)
    score, control_score = both.scores
    survives = low = high = None
    if score > 0:
        survives = control_score / score
        base, other = macro_draws(
            [both.base, both.other], both.clusters, resamples=RESAMPLES, seed=seed
        ).T
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.sort(np.where(base > 0, np.maximum(other, 0.0) / base, np.inf))
        low, high = (
            end if math.isfinite(end) else None
            for end in (
                float(ratios[math.floor(0.025 * (len(ratios) - 1))]),
                float(ratios[math.ceil(0.975 * (len(ratios) - 1))]),
            )
        )
        if control_score == 0:
            high = min(1.0, wilson_interval(0, n).high / score)
    return ControlResult(
        control=control,
        n=n,
        score=score,
        control_score=control_score,
        survives=survives,
        low=low,
        high=high,
        same=sum(a.text.strip() == b.text.strip() for a, b in both.pairs),
        tasks={
            task: (float(np.mean(values)), float(np.mean(both.other[task])), len(values))
            for task, values in both.base.items()
        },
    )


_CONTROL_WORDS = {
    "blank": "the images are blank",
    "swapped": "the images are those of another sample",
    "permuted": "the images stand in another order",
    "cut": "the instruction is cut",
}


def control_findings(results: Sequence[ControlResult]) -> list[CheckFinding]:
    """What the controls show: images that do not reach the model, shortcuts, or all well."""
    findings = []
    unused = [result for result in results if result.ignores_images]
    if unused:
        shares = (f"{share_words(r.same, r.n)} when {_CONTROL_WORDS[r.control]}" for r in unused)
        findings.append(
            CheckFinding(
                kind="images_not_used",
                severity="problem",
                title="Responses stay word for word the same without the right images: "
                f"{'; '.join(shares)}.",
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
        if result.is_shortcut:
            finding = CheckFinding(
                kind="shortcut",
                severity="warning",
                title=_survival(result),
                detail="At least half of the score needs nothing of the images: it comes from "
                "typical places and sizes, a shortcut, not from grounding.",
                remedy="Compare models by what they lose under the control, not by the score "
                "alone.",
            )
        else:
            finding = CheckFinding("control", "note", _survival(result), "Nothing to do.")
        findings.append(replace(finding, numbers=result.to_dict()))
    return findings


def _survival(result: ControlResult) -> str:
    """What is left of the score, in a sentence."""
    what = _CONTROL_WORDS.get(result.control, f"under the control {result.control}")
    change = f"{100 * result.score:.0f} % becomes {100 * result.control_score:.0f} %"
    if result.survives is None or not result.is_meaningful:
        return f"When {what}, a score of {change}; so low a score says nothing about shortcuts."
    low = "0" if result.low is None else f"{100 * result.low:.0f}"
    high = "no upper end" if result.high is None else f"{100 * result.high:.0f}"
    return (
        f"{100 * result.survives:.0f} % of the score survives when {what} (95 % interval "
        f"{low} to {high}): {change}."
    )


@dataclass(frozen=True, slots=True)
class VariantResult:
    """One form of the request compared with the declared one.

    Attributes:
        name: of the variant.
        n: samples in both runs.
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
    declared: Sequence[SampleValue], variants: Mapping[str, Sequence[SampleValue]], *, seed: int = 0
) -> list[VariantResult]:
    """Compare other forms of the request with the declared one, on the same samples.

    Args:
        declared: of the declared form.
        variants: by the variant's name.
        seed: of the bootstrap.

    Returns:
        One result a variant, in their order, p-values corrected by Holm's step-down rule.
    """
    results = []
    for name, values in variants.items():
        both = _Pairs.of(declared, values)
        declared_score, score = both.scores
        interval = paired_bootstrap(
            {task: np.subtract(both.other[task], both.base[task]).tolist() for task in both.base},
            both.clusters,
            resamples=RESAMPLES,
            seed=seed,
        ).macro
        better = sum(b.value >= 0.5 > a.value for a, b in both.pairs)
        worse = sum(a.value >= 0.5 > b.value for a, b in both.pairs)
        results.append(
            VariantResult(
                name=name,
                n=len(both.pairs),
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
    corrected = holm([result.p for result in results])
    return [replace(result, p=p) for result, p in zip(results, corrected, strict=True)]


def variant_findings(results: Sequence[VariantResult], declared: str) -> list[CheckFinding]:
    """Whether another form of the request suits the model better, and the spread of all."""
    if not results:
        return []
    scores = {declared: results[0].declared_score} | {r.name: r.score for r in results}
    spread = max(scores.values()) - min(scores.values())
    numbers = {"spread": spread, "scores": scores, "variants": [r.to_dict() for r in results]}
    listing = ", ".join(f"{name} {100 * value:.0f} %" for name, value in scores.items())
    better = [r for r in results if r.p < 0.05 and r.difference > 0 and r.better > r.worse]
    if not better:
        finding = CheckFinding(
            kind="prompt_spread",
            severity="note",
            title=f"No other request is surely better than {declared}; the spread between "
            f"requests is {100 * spread:.0f} points.",
            detail=f"All: {listing}.",
            remedy="Nothing to do. The spread is how far a choice of words alone can move a score.",
            numbers=numbers,
        )
        return [finding]
    top = max(better, key=lambda result: result.score)
    finding = CheckFinding(
        kind="better_prompt",
        severity="warning",
        title=f"Another request suits the model better: {top.name} scores {100 * top.score:.0f} %, "
        f"the declared one ({declared}) {100 * top.declared_score:.0f} %.",
        detail=f"Difference {100 * top.difference:+.0f} points (95 % interval "
        f"{100 * top.low:+.0f} to {100 * top.high:+.0f}; {top.better} samples only this one "
        f"answers, {top.worse} only the declared one; p = {top.p:.2g} corrected for {len(results)} "
        f"variants). All: {listing}.",
        remedy="If you may choose the request, choose this one before the evaluation, and use it "
        f"for all models alike or say so (dialect, prompt style): {top.name}.",
        numbers=numbers,
    )
    return [finding]
