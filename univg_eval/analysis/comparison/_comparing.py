"""Which samples two runs share, and all that is said about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from univg_eval.analysis.comparison._figures import figures_of
from univg_eval.analysis.comparison._provenance import what_differs
from univg_eval.analysis.comparison._result import Comparison, Flip, Side, TaskComparison
from univg_eval.analysis.comparison._words import judge
from univg_eval.errors import UserError
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import SampleScore, sample_metrics

__all__ = ["compare_runs"]

FEW_CLUSTERS = 20
"""Groups of shared images below which a bootstrap interval of a task is called rough."""


def compare_runs(
    a: RunRecord, b: RunRecord, *, metric: str = "acc@0.5", flips: int = 5, seed: int = 0
) -> Comparison:
    """Compare two runs of one benchmark, sample by sample.

    Args:
        a, b: records; a control or another medium of the same prepared benchmark can be compared
            with the plain run.
        metric: a name of `univg_eval.scoring.sample_metrics`; samples that it does not count in
            both runs are left out and counted.
        flips: how many of the samples that flipped most are kept, in favour of each run.
        seed: of the draws; equal arguments give equal results.

    Raises:
        UserError: the runs are of different benchmarks or of different versions of it, share no
            sample, disagree about a sample's task or cluster, or do not have the metric.
    """
    _require_same_benchmark(a, b)
    scores_a, scores_b = _by_id(a), _by_id(b)
    common = [name for name in scores_a if name in scores_b]
    if not common:
        raise UserError(
            f"{a.label} and {b.label} have no sample in common ({len(scores_a)} and "
            f"{len(scores_b)} samples of {_prepared(a)}); compare runs of the same tasks and split"
        )
    _require_same_places(a, b, [(scores_a[name], scores_b[name]) for name in common])
    metrics = {
        name: (sample_metrics(scores_a[name]), sample_metrics(scores_b[name])) for name in common
    }
    counted = [name for name in common if metric in metrics[name][0] and metric in metrics[name][1]]
    if not counted:
        raise UserError(_no_metric(metric, metrics.values()))
    values = np.array([[metrics[name][side][metric] for side in (0, 1)] for name in counted])
    scores = [scores_a[name] for name in counted]
    figures = figures_of(scores, values, seed)
    said_a, said_b = ({row["id"]: row.get("response") for row in run.responses} for run in (a, b))
    same = sum(said_a.get(name) == said_b.get(name) for name in counted)
    changed = sorted(
        (
            Flip(
                id=name,
                task=scores_a[name].task,
                status_a=scores_a[name].status,
                status_b=scores_b[name].status,
                iou_a=scores_a[name].iou,
                iou_b=scores_b[name].iou,
                value_a=float(value_a),
                value_b=float(value_b),
            )
            for name, (value_a, value_b) in zip(counted, values, strict=True)
        ),
        key=lambda flip: flip.change,
    )
    sides = tuple(
        Side(
            label=run.label,
            model=str(run.manifest["model"]["id"]),
            benchmark=run.benchmark,
            n=len(own),
            alone=len(own) - len(common),
        )
        for run, own in ((a, scores_a), (b, scores_b))
    )
    differing = what_differs(a.manifest, b.manifest)
    uncounted = len(common) - len(counted)
    return Comparison(
        a=sides[0],
        b=sides[1],
        benchmark=_prepared(a),
        metric=metric,
        n=len(counted),
        clusters=len({score.cluster for score in scores}),
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
            *_notes_on_runs(a, b, differing),
            *_notes_on_tasks(figures.tasks),
        ),
        verdict=judge(sides, metric, figures, n=len(counted), same=same, differing=differing),
    )


def _prepared(run: RunRecord) -> str:
    dataset = run.manifest["dataset"]
    return str(dataset.get("prepared_benchmark") or dataset["benchmark"])


def _require_same_benchmark(a: RunRecord, b: RunRecord) -> None:
    if _prepared(a) != _prepared(b):
        raise UserError(
            f"{a.label} ran on {a.benchmark} and {b.label} on {b.benchmark}; expected two runs on "
            "the samples of one benchmark (another revision is another benchmark)"
        )
    prints = [run.manifest["dataset"].get("fingerprint") for run in (a, b)]
    if None not in prints and prints[0] != prints[1]:
        raise UserError(
            f"{a.label} and {b.label} ran on different versions of {_prepared(a)}: their "
            f"fingerprints are {prints[0][:12]}… and {prints[1][:12]}…, so questions, true boxes "
            "or images differ although ids may be the same; run both on one prepared version "
            "(`univg prepare` shows its fingerprint)"
        )


def _by_id(run: RunRecord) -> dict[str, SampleScore]:
    scores = {score.id: score for score in run.sample_scores()}
    if not scores:
        raise UserError(f"{run.path} holds no samples, so there is nothing to compare")
    if len(scores) != len(run.scores):
        raise UserError(
            f"{run.path} has {len(run.scores)} scores of {len(scores)} samples; expected one score "
            "a sample"
        )
    return scores


def _require_same_places(
    a: RunRecord, b: RunRecord, pairs: Sequence[tuple[SampleScore, SampleScore]]
) -> None:
    for one, other in pairs:
        for what, left, right in (
            ("task", one.task, other.task),
            ("cluster", one.cluster, other.cluster),
        ):
            if left != right:
                raise UserError(
                    f"sample {one.id!r} has {what} {left!r} in {a.label} and {right!r} in "
                    f"{b.label}; score both with one version (`univg rescore`)"
                )


def _no_metric(
    metric: str, metrics: Iterable[tuple[Mapping[str, float], Mapping[str, float]]]
) -> str:
    both: dict[str, None] = {}
    for left, right in metrics:
        both.update(dict.fromkeys(name for name in left if name in right))
    return f"no common sample has the metric {metric!r} in both runs; " + (
        f"they have {', '.join(both)}" if both else "they have none in common"
    )


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


def _notes_on_runs(a: RunRecord, b: RunRecord, differing: Mapping[str, Any]) -> Iterator[str]:
    if a.benchmark != b.benchmark:
        yield (
            f"{a.label} ran on {a.benchmark} and {b.label} on {b.benchmark}: the same questions "
            "and true boxes, shown in another way."
        )
    rules = [name for name in ("protocol", "dialect") if name in differing]
    if rules:
        yield (
            f"The two were scored under another {' and '.join(rules)}, so a difference is not the "
            "model's alone; `univg rescore` scores both alike."
        )
    failed = [run for run in (a, b) if run.failed_requests]
    if failed:
        yield (
            "Requests that failed count as unanswered: "
            + ", ".join(f"{run.failed_requests} of {run.label}" for run in failed)
            + "; evaluate these runs again to compare the models."
        )
    unknown = [run.label for run in (a, b) if not run.manifest["dataset"].get("fingerprint")]
    if unknown:
        yield (
            f"The fingerprint of {' and '.join(unknown)} is not known, so it was not checked that "
            "questions and true boxes are the same."
        )


def _notes_on_tasks(tasks: Sequence[TaskComparison]) -> Iterator[str]:
    rough = [task.task for task in tasks if task.clusters < FEW_CLUSTERS and task.clusters < task.n]
    if rough:
        yield (
            f"Few groups of shared images (under {FEW_CLUSTERS}) in {', '.join(rough)}: the "
            "intervals there are rough."
        )
