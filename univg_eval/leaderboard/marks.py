"""The closed list of marks: what a row of a leaderboard is, and what sets it apart."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from univg_eval.runs.score_check import SCORE_CHECKS


class Mark(StrEnum):
    """A word on a row. Each is computed from the record or from the printed values."""

    REFERENCE = "reference"
    SAME_FINGERPRINT = "same-fingerprint"
    OTHER_FINGERPRINT = "other-fingerprint"
    SAME_PROTOCOL = "same-protocol"
    OTHER_PROTOCOL = "other-protocol"
    OTHER_REVISION = "other-revision"
    OTHER_SAMPLES = "other-samples"
    UNVERIFIED = "unverified"
    MISSING_TASKS = "missing-tasks"
    MIXED_SETTINGS = "mixed-settings"
    UNKNOWN_PROVENANCE = "unknown-provenance"
    INFEASIBLE_DENOMINATOR = "infeasible-denominator"
    CUT_OFF = "cut-off-values"
    AVERAGE_DIFFERS = "average-differs"
    TRUNCATED = "truncated"
    FAILED_REQUESTS = "failed-requests"
    EXCLUDED_SAMPLES = "excluded-samples"
    INCOMPLETE = "incomplete"
    STAND_IN_IMAGES = "stand-in-images"
    CONTROL = "control"
    VIDEO = "video"
    SEVERAL_RUNS = "several-runs"
    BASELINE = "baseline"
    REPLAYED = "replayed"
    RESCORED = "rescored"
    SCORES_DIFFER = "scores-differ"
    SCORES_UNCHECKED = "scores-unchecked"
    DIRTY_CODE = "dirty-code"


MEANINGS: Mapping[Mark, str] = {
    Mark.REFERENCE: "the row that the others are compared with",
    Mark.SAME_FINGERPRINT: "instructions, boxes and images are those of the reference",
    Mark.OTHER_FINGERPRINT: "other instructions, boxes or images than the reference's",
    Mark.SAME_PROTOCOL: "scored by the rule that scored the reference",
    Mark.OTHER_PROTOCOL: "scored by another rule than the reference",
    Mark.OTHER_REVISION: "another annotation file than the reference's, by name or by values that "
    "are no k/N of its N",
    Mark.OTHER_SAMPLES: "other samples of the reference's tasks",
    Mark.UNVERIFIED: "its rule or annotation file, or that of the reference, is not known",
    Mark.MISSING_TASKS: "lacks tasks of the reference, so no average is shown",
    Mark.MIXED_SETTINGS: "from records with different models or settings",
    Mark.UNKNOWN_PROVENANCE: "a printed value, without responses, fingerprint or settings",
    Mark.INFEASIBLE_DENOMINATOR: "printed values are no rounded k/N of any one known annotation "
    "file",
    Mark.CUT_OFF: "printed values are k/N of one annotation file, cut off instead of rounded",
    Mark.AVERAGE_DIFFERS: "the printed average is not the mean of the printed values",
    Mark.TRUNCATED: "more than 1 % of the responses broke off without a box",
    Mark.FAILED_REQUESTS: "requests failed (a server, memory, an image file); these samples count "
    "as unanswered",
    Mark.EXCLUDED_SAMPLES: "samples were left out for an invalid true box",
    Mark.INCOMPLETE: "samples of the set were not evaluated, or left out as faulty when prepared",
    Mark.STAND_IN_IMAGES: "on images that stand in for the set's own: no result of the benchmark",
    Mark.CONTROL: "under a control, such as blank images: no result of the benchmark",
    Mark.VIDEO: "on videos instead of images: no result of the benchmark",
    Mark.SEVERAL_RUNS: "a mean over several runs; intervals are about other samples and other runs",
    Mark.BASELINE: "no model: responses made by a rule, which may look at the truth",
    Mark.REPLAYED: "responses were read from a file; how they were made is not recorded",
    Mark.RESCORED: "scored anew from the responses of an older record",
    Mark.SCORES_DIFFER: SCORE_CHECKS["different"],
    Mark.SCORES_UNCHECKED: SCORE_CHECKS["unknown"],
    Mark.DIRTY_CODE: "made by code with changes that were not committed",
}
"""What each mark says, one sentence without its full stop."""

BREAKING = frozenset(
    {
        Mark.OTHER_FINGERPRINT,
        Mark.OTHER_PROTOCOL,
        Mark.OTHER_REVISION,
        Mark.OTHER_SAMPLES,
        Mark.UNVERIFIED,
        Mark.MISSING_TASKS,
        Mark.MIXED_SETTINGS,
        Mark.UNKNOWN_PROVENANCE,
        Mark.INFEASIBLE_DENOMINATOR,
        Mark.BASELINE,
        Mark.SCORES_DIFFER,
    }
)
"""Marks that keep a row out of the comparable set. ``unknown-provenance`` does so where the
reference is a run; among printed rows it holds for all of them."""
