"""Two runs on the same samples: is one better, by how much, and what could this many samples show?

Everything is paired: a sample counts where both runs have it, and a difference is always B - A.
The verdict in words is made here, so that the terminal, JSON and pages say the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from univg_eval.errors import UserError
from univg_eval.runs import RunRecord
from univg_eval.scoring import SampleScore, sample_metrics
from univg_eval.stats import (
    MOST_EXACT,
    Interval,
    cluster_sums,
    holm,
    mcnemar_test,
    paired_bootstrap,
    paired_share_interval,
    sign_flip_test,
    smallest_difference,
)

__all__ = [
    "Comparison",
    "Counts",
    "Difference",
    "Flip",
    "Side",
    "TaskComparison",
    "Verdict",
    "compare_runs",
    "p_words",
    "points",
]

LEVEL = 0.05
"""Size of the tests; the intervals are at 1 - LEVEL."""
POWER = 0.8
DRAWS = 9999
"""Patterns of signs drawn where not all can be gone through: no p is below 1 / 10,000."""
FEW_CLUSTERS = 20
"""Groups of shared images below which a bootstrap interval of a task is called rough."""

Test = Literal["mcnemar", "sign_flip_exact", "sign_flip_drawn"]
Kind = Literal["a_higher", "b_higher", "not_shown", "borderline", "identical"]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs.

    Attributes:
        label: what tables call it.
        model: its model's id.
        benchmark: what ran, with its control or medium, e.g. ``mig_bench+blank``.
        n: samples in its record.
        alone: samples that the other run lacks; they are left out.
    """

    label: str
    model: str
    benchmark: str
    n: int
    alone: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Samples by the value of the metric in both runs.

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
        test: which.
        detectable: smallest true difference found with 80 % power at 5 %, uncorrected; None where
            none can be found so surely.
    """

    a: float
    b: float
    interval: Interval
    p: float | None = None
    test: Test | None = None
    detectable: float | None = None


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task.

    Attributes:
        task: its name.
        n, clusters: samples, and groups of them that share images.
        difference: of the task's mean.
        p_holm: p corrected for the number of tasks.
        counts: see `Counts`.
    """

    task: str
    n: int
    clusters: int
    difference: Difference
    p_holm: float
    counts: Counts


@dataclass(frozen=True, slots=True)
class Flip:
    """One sample that the two runs answer differently.

    Attributes:
        id, task: of the sample.
        status_a, status_b: how the responses were read.
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
class Verdict:
    """The outcome in words.

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
    counts: Counts
    same_responses: int
    for_b: tuple[Flip, ...]
    for_a: tuple[Flip, ...]
    differing: dict[str, tuple[Any, Any]]
    notes: tuple[str, ...]
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; differences as fractions, B - A."""
        return asdict(self)


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
    tables = _tables(scores, values, seed)
    said_a, said_b = ({row["id"]: row.get("response") for row in run.responses} for run in (a, b))
    same = sum(said_a.get(name) == said_b.get(name) for name in counted)
    changed = [
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
    ]
    changed.sort(key=lambda flip: flip.change)
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
    differing = _differing(a.manifest, b.manifest)
    uncounted = len(common) - len(counted)
    clusters = len({score.cluster for score in scores})
    verdict = _judge(
        sides,
        metric,
        tables,
        n=len(counted),
        same=same,
        differing=differing,
    )
    return Comparison(
        a=sides[0],
        b=sides[1],
        benchmark=_prepared(a),
        metric=metric,
        n=len(counted),
        clusters=clusters,
        uncounted=uncounted,
        macro=tables.macro,
        micro=tables.micro,
        tasks=tables.tasks,
        counts=tables.counts,
        same_responses=same,
        for_b=tuple(flip for flip in changed[::-1] if flip.change > 0)[:flips],
        for_a=tuple(flip for flip in changed if flip.change < 0)[:flips],
        differing=differing,
        notes=tuple(
            _notes(a, b, sides, metric, len(common), uncounted, tables.tasks, len(counted))
        ),
        verdict=verdict,
    )


# --- which samples -------------------------------------------------------------------------------


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


def _no_metric(metric: str, metrics: Any) -> str:
    both: dict[str, None] = {}
    for left, right in metrics:
        both.update(dict.fromkeys(name for name in left if name in right))
    return f"no common sample has the metric {metric!r} in both runs; " + (
        f"they have {', '.join(both)}" if both else "they have none in common"
    )


# --- numbers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tables:
    macro: Difference
    micro: Difference
    tasks: tuple[TaskComparison, ...]
    counts: Counts


def _tables(scores: Sequence[SampleScore], values: npt.NDArray[np.float64], seed: int) -> _Tables:
    """All figures.

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
        micro = Difference(float(values[:, 0].mean()), float(values[:, 1].mean()), drawn.micro)
    return _Tables(macro, micro, tasks, _counts(values, binary))


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
        detectable=result.detectable,
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


def _counts(values: npt.NDArray[np.float64], binary: bool) -> Counts:
    a, b = values[:, 0], values[:, 1]
    return Counts(
        wins=int(np.sum(b > a)),
        losses=int(np.sum(b < a)),
        ties=int(np.sum(a == b)),
        both=int(np.sum((a == 1) & (b == 1))) if binary else None,
        neither=int(np.sum((a == 0) & (b == 0))) if binary else None,
    )


# --- what differs --------------------------------------------------------------------------------

_SCORING = ("protocol", "dialect", "control", "media")
"""Settings under which another score need not be another model."""


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings, generation arguments, backend, versions and hardware that are not the same."""
    left, right = _provenance(a), _provenance(b)
    return {
        name: (left.get(name), right.get(name))
        for name in {**left, **right}
        if left.get(name) != right.get(name)
    }


def _provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, setting in _mapping(manifest.get("settings")).items():
        # A setting is stored as [value, where it came from].
        found[name] = setting[0] if isinstance(setting, list) and setting else setting
    found["prompt text (SHA-256)"] = manifest.get("prompt_sha256")
    for name, value in _mapping(manifest.get("generation")).items():
        found[f"generation {name}"] = value
    found["backend"] = _mapping(manifest.get("model")).get("backend")
    for name, value in _mapping(manifest.get("versions")).items():
        found[f"version of {name}"] = value
    hardware = _mapping(manifest.get("hardware"))
    for name in ("cpu", "accelerators"):
        found[name] = hardware.get(name)
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _notes(
    a: RunRecord,
    b: RunRecord,
    sides: Sequence[Side],
    metric: str,
    common: int,
    uncounted: int,
    tasks: Sequence[TaskComparison],
    counted: int,
) -> list[str]:
    notes = []
    if sides[0].alone or sides[1].alone:
        notes.append(
            f"Only the {common} samples that both runs have are compared; "
            + " and ".join(f"{side.alone} of {side.label}" for side in sides if side.alone)
            + " are left out because the other run lacks them."
        )
    if uncounted:
        notes.append(
            f"{uncounted} common samples do not count in {metric} in one run or both (excluded for "
            "an invalid true box, another kind of sample, or not given by the protocol)."
        )
    if sides[0].benchmark != sides[1].benchmark:
        notes.append(
            f"{sides[0].label} ran on {sides[0].benchmark} and {sides[1].label} on "
            f"{sides[1].benchmark}: the same questions and true boxes, shown in another way."
        )
    unknown = [run.label for run in (a, b) if not run.manifest["dataset"].get("fingerprint")]
    if unknown:
        notes.append(
            f"The fingerprint of {' and '.join(unknown)} is not known, so it was not checked that "
            "questions and true boxes are the same."
        )
    rough = [task.task for task in tasks if task.clusters < FEW_CLUSTERS and task.clusters < task.n]
    if rough:
        notes.append(
            f"Few groups of shared images (under {FEW_CLUSTERS}) in {', '.join(rough)}: the "
            "intervals there are rough."
        )
    if counted < common // 2:
        notes.append("Most common samples are left out; the rest may not be like them.")
    return notes


# --- words ---------------------------------------------------------------------------------------


def _judge(
    sides: Sequence[Side],
    metric: str,
    tables: _Tables,
    *,
    n: int,
    same: int,
    differing: Mapping[str, Any],
) -> Verdict:
    a, b = (side.label for side in sides)
    macro = tables.macro
    interval = macro.interval
    p = 1.0 if macro.p is None else macro.p
    what = f"{'macro ' if len(tables.tasks) > 1 else ''}{metric}"
    differs = tables.counts.wins + tables.counts.losses
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
    figures = f"95 % interval {points(interval.low)} to {points(interval.high)}, {_p(p)}"
    if outside and p < LEVEL:
        kind = "b_higher" if interval.estimate > 0 else "a_higher"
        headline = _winner(sides, macro, what, p, differing)
    else:
        kind = "borderline" if outside or p < LEVEL else "not_shown"
        start = "At the edge" if kind == "borderline" else "No difference shown"
        headline = (
            f"{start}: {a} has {_percent(macro.a)} {what} and {b} {_percent(macro.b)}, "
            f"{points(interval.estimate)} points, {figures}."
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
    sentences.append(_tasks_told(tables.tasks, a, b))
    sentences.append(_power_told(macro.detectable, what, n, differs))
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
    verb = "scores higher than" if set(_SCORING) & set(differing) else "is better than"
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


def _power_told(detectable: float | None, what: str, n: int, differs: int) -> str:
    if detectable is None:
        return (
            f"With {n} questions no difference of {what}, however large, could be found surely: "
            "there are too few."
        )
    return (
        f"With {n} questions and this much disagreement ({differs} of them scored differently), a "
        f"difference under {100 * detectable:.1f} points of {what} cannot be told from noise: one "
        "of that size would be found in four of five such comparisons, a smaller one less often."
    )


def points(value: float) -> str:
    """A difference in points, with its sign; never "-0.0"."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def p_words(p: float) -> str:
    """p to the digits that matter: "0.023", "< 0.001"."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _p(p: float) -> str:
    text = p_words(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
