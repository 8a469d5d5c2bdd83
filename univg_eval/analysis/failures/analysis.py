"""Every miss of some scores, or of a run record, in its class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from univg_eval.analysis.failures.conditions import class_of, is_miss
from univg_eval.analysis.failures.hints import hints_of
from univg_eval.analysis.failures.kinds import Failure, FailureShares
from univg_eval.analysis.failures.readings import Suspicion, suspect_misses
from univg_eval.benchmarks.synthetic.known_objects import KnownObject, known_objects
from univg_eval.boxes import Box
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError
from univg_eval.images.controls import NO_CONTROL
from univg_eval.protocols import Protocol, get_protocol
from univg_eval.runs.record import RunRecord, prepared_samples, require_fingerprint, response_of
from univg_eval.samples import GroundingSample, fingerprint
from univg_eval.scoring import Response, SampleScore

__all__ = ["RunFailures", "analyse", "classify_run"]


@dataclass(frozen=True, slots=True)
class RunFailures:
    """The failures of a run.

    Attributes:
        threshold: IoU that a hit needs.
        failures: by id, in the order of the scores; hits have no entry.
        tasks: shares by task, in order of appearance.
        total: of all tasks together.
        suspicion: evidence that the misses were read in a wrong scale; None if there is none.
    """

    threshold: float
    failures: dict[str, Failure]
    tasks: dict[str, FailureShares]
    total: FailureShares
    suspicion: Suspicion | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the single samples."""
        other = self.suspicion
        return {
            "threshold": self.threshold,
            "total": self.total.to_dict(),
            "tasks": {task: shares.to_dict() for task, shares in self.tasks.items()},
            "other_reading": None
            if other is None
            else {
                "names": list(other.names),
                "scale": other.scale,
                "remedy": other.remedy,
                "hits": other.hits,
                "n": other.n,
                "blind": other.blind,
            },
        }


def analyse(
    samples: Sequence[GroundingSample] | Mapping[str, GroundingSample],
    scores: Sequence[SampleScore],
    responses: Mapping[str, Response] | None = None,
    dialect: str | Dialect | None = None,
    protocol: str | Protocol = "univg",
    *,
    threshold: float = 0.5,
    objects: Mapping[str, Sequence[KnownObject]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RunFailures:
    """Put every miss of a run into its class, and count.

    Args:
        samples: at least those of the scores; with all samples of the benchmark more distractors
            are known.
        scores: of one run, by `protocol`.
        responses: by id; without them no other reading is tried, and no hint speaks of further
            boxes in an answer.
        dialect: of the run, with its pixel limits.
        protocol: the rule that scored.
        threshold: IoU that a hit needs.
        objects: the distractors by id, at least those that fit a miss; None: see `known_objects`.
        progress: called with (misses read in other ways, such misses in all).

    Raises:
        UserError: a score has no sample, an id occurs twice, or the threshold is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise UserError(f"threshold is {threshold}; expected an IoU above 0, at most 1")
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    dialect = get_dialect(dialect) if isinstance(dialect, str) else dialect
    by_id = samples if isinstance(samples, Mapping) else {s.id: s for s in samples}
    _require_samples(by_id, scores)
    misses = [score for score in scores if is_miss(score, threshold)]
    if objects is None:
        objects = known_objects(list(by_id.values()), _boxes(misses))
    suspicion = None
    if responses is not None:
        suspicion = suspect_misses(misses, by_id, responses, dialect, rule, progress)
    rescaled = suspicion.boxes if suspicion is not None else {}
    failures = {}
    for score in misses:
        sample, around = by_id[score.id], objects.get(score.id, ())
        kind = class_of(score, sample, rule, around, rescaled)
        response = responses.get(score.id) if responses is not None else None
        hints = hints_of(
            score, sample, kind, around, response, suspicion,
            dialect=dialect, rule=rule, threshold=threshold,
        )  # fmt: skip
        failures[score.id] = Failure(kind, score.iou, hints)
    by_task: dict[str, list[SampleScore]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score)
    return RunFailures(
        threshold,
        failures,
        {task: FailureShares.count(failures, own, threshold) for task, own in by_task.items()},
        FailureShares.count(failures, scores, threshold),
        suspicion,
    )


def _boxes(misses: Sequence[SampleScore]) -> dict[str, Box]:
    """The boxes whose place is looked at, by id."""
    return {
        score.id: score.box for score in misses if score.status == "ok" and score.box is not None
    }


def _require_samples(by_id: Mapping[str, GroundingSample], scores: Sequence[SampleScore]) -> None:
    lacking = [score.id for score in scores if score.id not in by_id]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(scores)} scores have no sample, the first is {lacking[0]!r}; "
            "give the samples of the benchmark that was scored"
        )
    for name, count in Counter(score.id for score in scores).items():
        if count > 1:
            raise UserError(f"duplicate score of {name!r}; give the scores of one run")


def classify_run(
    record: RunRecord,
    samples: Sequence[GroundingSample] | None = None,
    *,
    threshold: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> RunFailures:
    """`analyse` for a run record.

    Args:
        record: as loaded.
        samples: all samples of its prepared benchmark; None: loaded from the data root.
        threshold: IoU that a hit needs.
        progress: see `analyse`.

    Raises:
        UserError: the benchmark is not prepared, or is another one than the record's; see
            `analyse`.
    """
    dataset = record.manifest.dataset
    if samples is None:
        samples = prepared_samples(record)
    else:
        require_fingerprint(dataset.prepared_benchmark, fingerprint(samples), dataset.fingerprint)
    settings = record.manifest.settings
    dialect = get_dialect(
        settings.dialect.value,
        min_pixels=settings.min_pixels.value,
        max_pixels=settings.max_pixels.value,
    )
    responses = {row["id"]: response_of(row)[0] for row in record.responses}
    # Under the other controls other images were shown than those that the objects are known on.
    objects: dict[str, tuple[KnownObject, ...]] = {}
    if settings.control.value in (NO_CONTROL, "cut"):
        misses = [score for score in record.scores if is_miss(score, threshold)]
        objects = known_objects(samples, _boxes(misses))
    by_id = {sample.id: sample for sample in samples}
    if settings.media.value == "video":
        objects = {name: _on_target_frame(by_id[name], known) for name, known in objects.items()}
        by_id = {name: _target_frame(by_id[name], response) for name, response in responses.items()}
    found = analyse(
        by_id,
        record.scores,
        responses,
        dialect,
        settings.protocol.value,
        threshold=threshold,
        objects=objects,
        progress=progress,
    )
    failures = dict(found.failures)
    for name, message in record.errors.items():
        if failure := failures.get(name):
            hint = f"The request failed: {message}"
            failures[name] = replace(failure, hints=(hint, *failure.hints))
    return replace(found, failures=failures)


def _frame_of(sample: GroundingSample) -> int | None:
    """The 0-based frame that a sample about a video asks for; None if it is no single one."""
    frames = {target.image for target in sample.targets}
    return None if len(frames) > 1 or len(sample.images) == 1 else next(iter(frames), 0)


def _on_target_frame(
    sample: GroundingSample, objects: Sequence[KnownObject]
) -> tuple[KnownObject, ...]:
    """The objects of the target's frame, which is then the only image."""
    frame = _frame_of(sample)
    if frame is None:
        return tuple(objects)
    return tuple(replace(obj, image=0) for obj in objects if obj.image == frame)


def _target_frame(sample: GroundingSample, response: Response) -> GroundingSample:
    """A sample about a video as its responses were read: the target's frame is the only image."""
    frame = _frame_of(sample)
    if frame is None:
        return sample
    sizes = response.image_sizes or ()
    return replace(
        sample,
        images=(sample.images[frame],),
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
        targets=tuple(replace(target, image=0) for target in sample.targets),
        given_image=0,
    )
