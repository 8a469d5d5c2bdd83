"""Which samples two runs share, and all that is said about them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from univg_eval.analysis.comparison.words import Conclusion, conclude, reading_rules
from univg_eval.analysis.stats import (
    Difference,
    Estimate,
    PairCounts,
    TaskComparison,
    compare_pairs,
    macro_estimate,
    runs_estimate,
)
from univg_eval.errors import UserError
from univg_eval.runs.groups import aligned_scores
from univg_eval.runs.manifest import Manifest
from univg_eval.runs.record import RunRecord
from univg_eval.runs.score_check import SCORE_CHECKS
from univg_eval.scoring import SampleScore, headline_metric, sample_metrics

FEW_CLUSTERS = 20
"""Groups of shared images below which a bootstrap interval of a task is called rough."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes:
        label: what tables call it.
        model: its model's id.
        benchmark: what ran, with its control or medium, e.g. ``mig_bench+blank``.
        n: samples in its record.
        alone: samples that the other run lacks; they are left out.
        macro: the unweighted mean over tasks of what is compared, with the run's own limits.
        runs: how many; the values are means over them.
    """

    label: str
    model: str
    benchmark: str
    n: int
    alone: int
    macro: Estimate
    runs: int = 1


@dataclass(frozen=True, slots=True)
class Flip:
    """One sample that the two sides answer differently; means where a side has several runs.

    Attributes:
        id, task: of the sample.
        status_a, status_b: how the responses were read; of several, with their numbers.
        iou_a, iou_b: with the true box; None for samples without one, or with several.
        value_a, value_b: of the metric.
    """

    id: str
    task: str
    status_a: str
    status_b: str
    iou_a: float | None
    iou_b: float | None
    value_a: float
    value_b: float

    @property
    def change(self) -> float:
        """Change of the IoU, or of the metric where there is none."""
        if self.iou_a is None or self.iou_b is None:
            return self.value_b - self.value_a
        return self.iou_b - self.iou_a


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared on the samples that both have.

    Attributes:
        a, b: the runs.
        benchmark: the prepared benchmark of both.
        metric: what is compared; see `univg_eval.scoring.sample_metrics`.
        n, clusters: samples compared, and groups of them that share images.
        uncounted: common samples that the metric does not count in one run or both (excluded rows,
            another kind of sample, or a protocol that does not give the metric).
        macro: of the unweighted mean over tasks.
        micro: of the mean over all samples; no test is made.
        tasks: in the order of A's record.
        counts: of all samples.
        same_responses: samples with word for word the same response.
        for_b, for_a: samples that flipped most in favour of each run, largest change first.
        differing: what differs between the runs besides the model: name to both values.
        notes: what a reader should know about the comparison.
        verdict: in words.
    """

    a: Side
    b: Side
    benchmark: str
    metric: str
    n: int
    clusters: int
    uncounted: int
    macro: Difference
    micro: Difference
    tasks: tuple[TaskComparison, ...]
    counts: PairCounts
    same_responses: int
    for_b: tuple[Flip, ...]
    for_a: tuple[Flip, ...]
    differing: dict[str, tuple[Any, Any]]
    notes: tuple[str, ...]
    verdict: Conclusion

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; differences as fractions, B - A."""
        return asdict(self)


def compare_runs(
    a: RunRecord | Sequence[RunRecord],
    b: RunRecord | Sequence[RunRecord],
    *,
    metric: str | None = None,
    flips: int = 5,
    seed: int = 0,
) -> Comparison:
    """Compare two runs of one benchmark, sample by sample.

    Args:
        a, b: records; a control or another medium of the same prepared benchmark can be compared
            with the plain run. Several runs of one thing, see `univg_eval.runs.groups`, are
            compared by their means, and intervals and tests cover other runs of them too.
        metric: a name of `univg_eval.scoring.sample_metrics`; None: that of
            `univg_eval.scoring.headline_metric`. Samples that it does not count in
            both runs are left out and counted.
        flips: how many of the samples that flipped most are kept, in favour of each run.
        seed: of the draws; equal arguments give equal results.

    Raises:
        UserError: the runs are of different benchmarks or of different versions of it, share no
            sample, disagree about a sample's task or cluster, or do not have the metric.
    """
    runs_a, runs_b = ([side] if isinstance(side, RunRecord) else list(side) for side in (a, b))
    a, b = runs_a[0], runs_b[0]
    _require_same_benchmark(a, b)
    scores_a, scores_b = (
        {scores[0].id: scores for scores in aligned_scores(runs)} for runs in (runs_a, runs_b)
    )
    common = [(scores_a[name], scores_b[name]) for name in scores_a if name in scores_b]
    if not common:
        raise UserError(
            f"{a.label} and {b.label} have no sample in common ({len(scores_a)} and "
            f"{len(scores_b)} samples of {_prepared(a)}); compare runs of the same tasks and split"
        )
    _require_same_places(a, b, common)
    metric = metric or headline_metric(scores[0] for scores, _ in common)
    metrics = [
        ([sample_metrics(s) for s in left], [sample_metrics(s) for s in right])
        for left, right in common
    ]
    counted = [
        (*pair, [found[metric] for found in left], [found[metric] for found in right])
        for pair, (left, right) in zip(common, metrics, strict=True)
        if all(metric in found for found in (*left, *right))
    ]
    if not counted:
        both = dict.fromkeys(n for left, right in metrics for n in left[0] if n in right[0])
        raise UserError(
            f"no common sample has the metric {metric!r} in both runs; "
            f"they have {', '.join(both) or 'none in common'}"
        )
    figures = compare_pairs(
        [scores[0].task for scores, *_ in counted],
        [scores[0].cluster for scores, *_ in counted],
        list(zip(*(values for *_, values, _ in counted), strict=True)),
        list(zip(*(values for *_, values in counted), strict=True)),
        seed=seed,
    )
    responses = [
        {row["id"]: row.get("response") for row in run.responses} for run in (*runs_a, *runs_b)
    ]
    same = sum(len({found.get(s[0].id) for found in responses}) == 1 for s, *_ in counted)
    changed = sorted((_flip(*pair) for pair in counted), key=lambda flip: flip.change)
    sides = tuple(
        Side(
            label=runs[0].label,
            model=", ".join(dict.fromkeys(run.manifest.model.id for run in runs)),
            benchmark=runs[0].benchmark,
            n=len(own),
            alone=len(own) - len(common),
            macro=_macro([scores[0] for scores, *_ in counted], values),
            runs=len(runs),
        )
        for runs, own, values in (
            (runs_a, scores_a, [values for *_, values, _ in counted]),
            (runs_b, scores_b, [values for *_, values in counted]),
        )
    )
    differing = _differing(a.manifest, b.manifest)
    uncounted = len(common) - len(counted)
    return Comparison(
        a=sides[0],
        b=sides[1],
        benchmark=_prepared(a),
        metric=metric,
        n=len(counted),
        clusters=len({scores[0].cluster for scores, *_ in counted}),
        uncounted=uncounted,
        macro=figures.macro,
        micro=figures.micro,
        tasks=figures.tasks,
        counts=figures.counts,
        same_responses=same,
        for_b=tuple(flip for flip in changed[::-1] if flip.change > 0)[:flips],
        for_a=tuple(flip for flip in changed if flip.change < 0)[:flips],
        differing=differing,
        notes=(
            *_notes_on_samples(sides, metric, len(common), uncounted),
            *_notes_on_several(runs_a, runs_b, figures.macro),
            *_notes_on_runs(runs_a, runs_b, differing),
            *_notes_on_tasks(figures.tasks),
        ),
        verdict=conclude(
            (a.label, b.label),
            metric,
            figures,
            n=len(counted),
            same=same,
            differing=differing,
            same_model=_is_one_model(a, b),
        ),
    )


def _is_one_model(a: RunRecord, b: RunRecord) -> bool:
    """Whether both runs are answers of one model, as far as the records say."""
    return a.manifest.model.id == b.manifest.model.id


def _prepared(run: RunRecord) -> str:
    return run.manifest.dataset.prepared_benchmark


def _require_same_benchmark(a: RunRecord, b: RunRecord) -> None:
    if _prepared(a) != _prepared(b):
        raise UserError(
            f"{a.label} ran on {a.benchmark} and {b.label} on {b.benchmark}; expected two runs on "
            "the samples of one benchmark (another revision is another benchmark)"
        )
    prints = [run.manifest.dataset.fingerprint for run in (a, b)]
    if prints[0] != prints[1]:
        raise UserError(
            f"{a.label} and {b.label} ran on different versions of {_prepared(a)} (fingerprints "
            f"{prints[0][:12]}… and {prints[1][:12]}…), so instructions, true boxes or images "
            "differ; run both on one prepared version (`univg prepare` shows its fingerprint)"
        )


def _require_same_places(
    a: RunRecord,
    b: RunRecord,
    pairs: Sequence[tuple[tuple[SampleScore, ...], tuple[SampleScore, ...]]],
) -> None:
    for (left, *_), (right, *_) in pairs:
        for what in ("task", "cluster"):
            if getattr(left, what) != getattr(right, what):
                raise UserError(
                    f"sample {left.id!r} has {what} {getattr(left, what)!r} in {a.label} and "
                    f"{getattr(right, what)!r} in {b.label}; score both with one version "
                    "(`univg rescore`)"
                )


def _macro(scores: Sequence[SampleScore], counted: Sequence[Sequence[float]]) -> Estimate:
    """The mean over tasks of one side: of each sample, the value in every run."""
    runs: list[dict[str, list[float]]] = [{} for _ in counted[0]]
    clusters: dict[str, list[str]] = {}
    for score, values in zip(scores, counted, strict=True):
        clusters.setdefault(score.task, []).append(score.cluster)
        for run, value in zip(runs, values, strict=True):
            run.setdefault(score.task, []).append(value)
    return macro_estimate(runs[0], clusters) if len(runs) == 1 else runs_estimate(runs, clusters)


def _flip(
    a: Sequence[SampleScore],
    b: Sequence[SampleScore],
    values_a: Sequence[float],
    values_b: Sequence[float],
) -> Flip:
    iou_a, iou_b = (_mean([s.iou for s in scores if s.iou is not None]) for scores in (a, b))
    return Flip(
        id=a[0].id,
        task=a[0].task,
        status_a=_statuses(a),
        status_b=_statuses(b),
        iou_a=iou_a,
        iou_b=iou_b,
        value_a=math.fsum(values_a) / len(values_a),
        value_b=math.fsum(values_b) / len(values_b),
    )


def _statuses(scores: Sequence[SampleScore]) -> str:
    """``ok``, or of several runs ``ok 2, no_box 1``."""
    if len(scores) == 1:
        return scores[0].status
    counts = Counter(score.status for score in scores)
    return ", ".join(f"{status} {n}" for status, n in counts.most_common())


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _differing(a: Manifest, b: Manifest) -> dict[str, tuple[Any, Any]]:
    """Settings, generation arguments, backend, versions and hardware that are not the same."""
    left, right = _provenance(a), _provenance(b)
    return {
        name: (left.get(name), right.get(name))
        for name in {**left, **right}
        if left.get(name) != right.get(name)
    }


def _provenance(manifest: Manifest) -> dict[str, Any]:
    return {
        **{name: setting.value for name, setting in manifest.settings},
        "protocol": manifest.scoring_rule,
        "prompt text (SHA-256)": manifest.prompt_sha256,
        **{f"generation {name}": value for name, value in manifest.generation.items()},
        "backend": manifest.model.backend,
        **{
            "commit of univg" if name == "commit" else f"version of {name}": value
            for name, value in manifest.versions
        },
        "cpu": manifest.hardware.cpu,
        "accelerators": manifest.hardware.accelerators,
    }


def _notes_on_samples(
    sides: Sequence[Side], metric: str, common: int, uncounted: int
) -> Iterator[str]:
    if sides[0].alone or sides[1].alone:
        yield (
            f"Only the {common} samples that both runs have are compared; left out: "
            + ", ".join(f"{side.alone} that only {side.label} has" for side in sides if side.alone)
            + "."
        )
    if uncounted:
        yield (
            f"{uncounted} common samples do not count in {metric} in one run or both (excluded for "
            "an invalid true box, another kind of sample, or not given by the protocol)."
        )
    if uncounted > common // 2:
        yield "Most common samples are left out; the rest may not be like them."


def _notes_on_several(
    runs_a: Sequence[RunRecord], runs_b: Sequence[RunRecord], macro: Difference
) -> Iterator[str]:
    if len(runs_a) == len(runs_b) == 1:
        return
    for runs, spread in ((runs_a, macro.spread_a), (runs_b, macro.spread_b)):
        label = runs[0].label
        yield (
            f"{label} is one run: how far another one would lie is in no interval."
            if spread is None
            else f"{label} is the mean of {len(runs)} runs, which spread by {100 * spread:.1f} "
            "points (standard deviation); intervals and p cover other runs too."
        )


def _notes_on_runs(
    runs_a: Sequence[RunRecord], runs_b: Sequence[RunRecord], differing: Mapping[str, Any]
) -> Iterator[str]:
    a, b = runs_a[0], runs_b[0]
    for check, words in SCORE_CHECKS.items():
        found = [run.label for run in (*runs_a, *runs_b) if run.score_check == check]
        if found:
            yield f"{', '.join(dict.fromkeys(found))}: {words}."
    if a.manifest.dataset.stand_in_images:
        yield "On images that stand in for the set's own: no result of the benchmark."
    if a.benchmark != b.benchmark:
        yield (
            f"{a.label} ran on {a.benchmark} and {b.label} on {b.benchmark}: the same samples, "
            "shown in another way."
        )
    rules = reading_rules(differing, same_model=_is_one_model(a, b))
    if rules:
        yield (
            f"The two were scored under another {' and '.join(rules)}, so a difference is not the "
            "model's alone; `univg rescore` scores both alike."
        )
    failed = [run for run in (*runs_a, *runs_b) if run.failed_requests]
    if failed:
        yield (
            "Requests that failed count as unanswered: "
            + ", ".join(f"{run.failed_requests} of {run.label}" for run in failed)
            + "; evaluate these runs again to compare the models."
        )


def _notes_on_tasks(tasks: Sequence[TaskComparison]) -> Iterator[str]:
    rough = [task.task for task in tasks if task.clusters < FEW_CLUSTERS and task.clusters < task.n]
    if rough:
        yield (
            f"Few groups of shared images (under {FEW_CLUSTERS}) in {', '.join(rough)}: the "
            "intervals there are rough."
        )
