"""Every miss of some scores in its class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from univg_eval.analysis.diagnosis import Suspicion
from univg_eval.analysis.failures.conditions import class_of, is_miss
from univg_eval.analysis.failures.hints import hint_of_answer, hint_of_reading, hints_of_box
from univg_eval.analysis.failures.kinds import Failure
from univg_eval.analysis.failures.other_reading import suspicion_of
from univg_eval.analysis.failures.shares import FailureShares, add_shares, failure_shares
from univg_eval.benchmarks.synthetic.known_objects import KnownObject, known_objects
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import Protocol, get_protocol
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore

__all__ = ["RunFailures", "analyse", "classify"]


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
        suspicion = self.suspicion
        return {
            "threshold": self.threshold,
            "total": self.total.to_dict(),
            "tasks": {task: shares.to_dict() for task, shares in self.tasks.items()},
            "other_reading": None
            if suspicion is None
            else {
                "names": list(suspicion.names),
                "scale": suspicion.scale,
                "remedy": suspicion.remedy,
                "hits": suspicion.hits,
                "n": suspicion.n,
                "blind": suspicion.blind,
            },
        }


def classify(
    samples: Sequence[GroundingSample] | Mapping[str, GroundingSample],
    scores: Sequence[SampleScore],
    responses: Mapping[str, Response] | None = None,
    dialect: str | Dialect | None = None,
    protocol: str | Protocol = "univg",
    *,
    threshold: float = 0.5,
) -> dict[str, Failure]:
    """The class of each miss, by id; see `analyse`, of which this is `RunFailures.failures`."""
    return analyse(samples, scores, responses, dialect, protocol, threshold=threshold).failures


def analyse(
    samples: Sequence[GroundingSample] | Mapping[str, GroundingSample],
    scores: Sequence[SampleScore],
    responses: Mapping[str, Response] | None = None,
    dialect: str | Dialect | None = None,
    protocol: str | Protocol = "univg",
    *,
    threshold: float = 0.5,
    objects: Mapping[str, Sequence[KnownObject]] | None = None,
) -> RunFailures:
    """Put every miss of a run into its class, and count.

    Args:
        samples: at least those of the scores; with all questions of the benchmark more
            distractors are known.
        scores: of one run, by `protocol`.
        responses: by id; without them no other reading is tried, and no hint tells of further
            boxes in an answer.
        dialect: of the run, with its pixel limits.
        protocol: the rule that scored.
        threshold: IoU that a hit needs.
        objects: the distractors by id; None: see `known_objects`.

    Raises:
        UserError: a score has no sample, an id stands twice, or the threshold is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise UserError(f"threshold is {threshold}; expected an IoU above 0, at most 1")
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    if isinstance(dialect, str):
        dialect = get_dialect(dialect)
    by_id = samples if isinstance(samples, Mapping) else {s.id: s for s in samples}
    _require_samples(by_id, scores)
    misses = [score for score in scores if is_miss(score, threshold)]
    if objects is None:
        boxed = {score.id for score in misses if score.status == "ok"}
        objects = known_objects(list(by_id.values()), boxed)
    suspicion = None
    if responses is not None:
        suspicion = suspicion_of(misses, by_id, responses, dialect, rule)
    rescaled = suspicion.boxes if suspicion is not None else {}
    failures = {}
    for score in misses:
        sample = by_id[score.id]
        around = objects.get(score.id, ())
        kind = class_of(score, sample, rule, around, rescaled)
        response = responses.get(score.id) if responses is not None else None
        hints = (
            *hint_of_reading(score, sample, suspicion),
            *hint_of_answer(score, sample, response, dialect, rule, threshold),
            *hints_of_box(score, sample, kind, around),
        )
        failures[score.id] = Failure(kind, score.iou, hints)
    tasks = failure_shares(failures, scores, threshold=threshold)
    return RunFailures(threshold, failures, tasks, add_shares(tasks.values()), suspicion)


def _require_samples(by_id: Mapping[str, GroundingSample], scores: Sequence[SampleScore]) -> None:
    lacking = [score.id for score in scores if score.id not in by_id]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(scores)} scores have no sample, the first is {lacking[0]!r}; "
            "give the samples of the benchmark that was scored"
        )
    doubled = [name for name, count in Counter(score.id for score in scores).items() if count > 1]
    if doubled:
        raise UserError(f"the score of {doubled[0]!r} stands twice; give the scores of one run")
