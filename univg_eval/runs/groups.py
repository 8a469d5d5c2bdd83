"""Several runs of one thing: repeats with other seeds, or checkpoints of one training.

Each is a record of its own. Those with one `univg_eval.runs.record.RunRecord.group` are shown as
one row, with their mean and the spread between them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from univg_eval.errors import UserError
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import SampleScore

__all__ = ["aligned_scores", "folder_name"]


def folder_name(label: str) -> str:
    """How names of folders of runs of this label begin.

    >>> folder_name("tiny at 0.7")
    'tiny_at_0.7'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label)


def aligned_scores(records: Sequence[RunRecord]) -> list[tuple[SampleScore, ...]]:
    """The scores of each sample, one a run, in the order of the first record.

    Args:
        records: one run, or several of one group on one benchmark; at least one.

    Raises:
        UserError: the runs are of other samples, or differ in more than seed and checkpoint.
    """
    first, *others = records
    if others and len({record.path.resolve() for record in records}) < len(records):
        raise UserError(f"{first.label}: a record is given twice; name each run once")
    ids = {score.id for score in first.scores}
    for other in others:
        facts = zip(_facts(first).items(), _facts(other).values(), strict=True)
        differing = [f"{name}: {a} and {b}" for (name, a), b in facts if a != b]
        if not differing and {score.id for score in other.scores} != ids:
            differing = [f"samples: {len(ids)} and {len(other.scores)}, not the same"]
        if differing:
            raise UserError(
                f"{first.path} and {other.path} are no runs of one thing; they differ in "
                f"{'; '.join(differing)}. Runs of one group have the same samples and settings, "
                "and differ in seed or checkpoint: name them apart, each with a label"
            )
    found = [{score.id: score for score in record.scores} for record in records]
    return [tuple(scores[score.id] for scores in found) for score in first.scores]


def _facts(record: RunRecord) -> dict[str, Any]:
    manifest = record.manifest
    return {
        "benchmark": record.benchmark,
        "fingerprint": manifest.dataset.fingerprint,
        "protocol": manifest.scoring_rule,
        "dialect": manifest.settings.dialect.value,
        "prompt (SHA-256)": manifest.prompt_sha256,
        "generation": {k: v for k, v in manifest.generation.items() if k != "seed"},
    }
