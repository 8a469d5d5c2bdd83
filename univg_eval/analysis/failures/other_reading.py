"""Whether the misses of a run were read in a wrong scale; see the top of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from univg_eval.analysis.diagnosis import (
    Candidate,
    Reading,
    Suspicion,
    candidates,
    read_all,
    suspect,
)
from univg_eval.analysis.diagnosis.checks import LONGEST_READ
from univg_eval.analysis.failures.conditions import FAR, observed
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.protocols import Protocol
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore

__all__ = ["suspicion_of"]

_NO_EVIDENCE = ("invalid_truth", "wrong_image", "false_alarm")


def suspicion_of(
    misses: Sequence[SampleScore],
    by_id: Mapping[str, GroundingSample],
    responses: Mapping[str, Response],
    dialect: Dialect | None,
    rule: Protocol,
) -> Suspicion | None:
    """The reading that explains the misses far off, if there is one."""
    kept = [
        score
        for score in misses
        if score.iou is not None
        and score.iou < FAR
        and observed(score, by_id[score.id], rule) not in _NO_EVIDENCE
        and by_id[score.id].has_valid_targets
        and score.id in responses
        and len(responses[score.id].text or "") <= LONGEST_READ
    ]
    if not kept:
        return None
    samples = [by_id[score.id] for score in kept]
    given = [responses[score.id] for score in kept]
    # The published rules read integers on 0-1000 in any of their brackets.
    own = dialect if dialect is not None else get_dialect("norm1000")
    declared = Reading(
        Candidate(rule.name, own, own.space.describe(), ""),
        np.array(
            [
                score.box if score.box is not None and score.status == "ok" else (math.nan,) * 4
                for score in kept
            ],
            dtype=np.float64,
        ),
        np.array([score.iou or 0.0 for score in kept], dtype=np.float64),
    )
    readings = read_all(samples, given, candidates())
    return suspect(samples, given, declared, readings, chosen_below=FAR)
