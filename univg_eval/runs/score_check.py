"""Whether the scores and figures of a record are those that its responses get.

Checksums tell a torn file from a whole one; who edits scores.jsonl can edit them too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from univg_eval.errors import UserError
from univg_eval.runs.record import MANIFEST, RunRecord, prepared_samples
from univg_eval.runs.rescoring import rescore
from univg_eval.samples import GroundingSample

__all__ = ["SCORE_CHECKS", "ScoreChecker"]

SCORE_CHECKS: Mapping[str, str] = {
    "different": "its scores or figures are not those that its kept responses get",
    "unknown": "not scored again here: benchmark not prepared, a control, videos or an older rule",
}
"""What a `score_check` other than ``same`` says of a record, without a full stop."""


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
        if again.changes:
            first = again.changes[0]
            what = (
                f"the scores of {len(again.changes)} of {len(record.scores)} samples are not those "
                f"that the kept responses get (first: {first.id}, IoU {first.before.iou} in the "
                f"record and {first.after.iou} of the response)"
            )
        elif wrong := _other_figures(record, again.record, len(samples)):
            what = (
                f"{MANIFEST} has figures that are not those of the kept responses "
                f"({len(wrong)} in all, first: {wrong[0]})"
            )
        else:
            return replace(record, score_check="same"), ""
        return replace(record, score_check="different"), (
            f"{record.path}: {what}; the record was changed, or an older version read answers "
            "otherwise: `univg rescore` makes a new one"
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


def _other_figures(record: RunRecord, again: RunRecord, n: int) -> list[str]:
    """The names of what a manifest says that is not so; what older records lack is not missed.

    Args:
        record: as loaded.
        again: the same, scored again.
        n: samples of the whole set.
    """
    said, found = (dict(_figures(run.manifest.results.model_dump())) for run in (record, again))
    wrong = [name for name, value in said.items() if not _is_same(value, found.get(name))]
    manifest = record.manifest
    facts = {
        "excluded": manifest.excluded == again.manifest.excluded,
        "dataset.n": manifest.dataset.n == n,
        "complete": manifest.n == n or not manifest.complete,
    }
    return [*wrong, *(name for name, holds in facts.items() if not holds)]


def _figures(part: Mapping[str, Any], above: str = "results") -> Iterator[tuple[str, Any]]:
    for name, value in part.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{above}.{name}")
        else:
            yield f"{above}.{name}", value


def _is_same(said: float | None, found: float | None) -> bool:
    if said is None or found is None:
        return said is found
    # Other versions may add up in another order.
    return math.isclose(said, found, rel_tol=1e-9, abs_tol=1e-12)
