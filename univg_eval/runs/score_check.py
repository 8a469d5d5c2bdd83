"""Whether the scores of a record are those that its responses get.

Checksums tell a torn file from a whole one; who edits scores.jsonl can edit them too.
"""

from __future__ import annotations

from dataclasses import replace

from univg_eval.errors import UserError
from univg_eval.runs.record import RunRecord, prepared_samples
from univg_eval.runs.rescoring import rescore
from univg_eval.samples import GroundingSample

__all__ = ["ScoreChecker"]


class ScoreChecker:
    """Scores the kept responses of records again, wherever their benchmark is prepared."""

    def __init__(self) -> None:
        self._prepared: dict[tuple[str, str], list[GroundingSample] | None] = {}

    def check(self, record: RunRecord) -> tuple[RunRecord, str]:
        """The record with its `score_check`, and what differs in words; "" where nothing does.

        The check is ``unknown`` where the set that was evaluated is not prepared here, under a
        control or on videos, and for a rule whose version is another one today.
        """
        samples = self._samples(record)
        if samples is None:
            return replace(record, score_check="unknown"), ""
        try:
            again = rescore(record, samples)
        except UserError:  # settings that this version does not know
            return replace(record, score_check="unknown"), ""
        if again.changed_settings:
            return replace(record, score_check="unknown"), ""
        if not again.changes:
            return replace(record, score_check="same"), ""
        first = again.changes[0]
        return replace(record, score_check="different"), (
            f"{record.path}: the scores of {len(again.changes)} of {len(record.scores)} samples "
            f"are not those that the kept responses get (first: {first.id}, IoU "
            f"{first.before.iou} in the record and {first.after.iou} of the response); the record "
            "was changed, or an older version read answers otherwise: `univg rescore` makes a new "
            "one"
        )

    def _samples(self, record: RunRecord) -> list[GroundingSample] | None:
        dataset = record.manifest.dataset
        if dataset.control != "none" or dataset.media != "images":
            return None
        key = dataset.prepared_benchmark, dataset.fingerprint
        if key not in self._prepared:
            try:
                self._prepared[key] = prepared_samples(record)
            except UserError:  # not prepared, or another set
                self._prepared[key] = None
        return self._prepared[key]
