"""The kinds of findings, what each means, and the report that holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from univg_eval.benchmarks.readers.common.release import FAULT_KINDS

__all__ = ["KINDS", "NEAR_DUPLICATE_IOU", "NOTES", "AuditReport", "Case", "Finding", "Kind"]

NEAR_DUPLICATE_IOU = 0.8


class Kind(NamedTuple):
    """A kind of finding: what is wrong, what an evaluation does about it, what can be done."""

    meaning: str
    scoring: str
    remedy: str


_STOPS = "the run stops at the first sample that needs it"
_LEFT_OUT = "nothing: the item cannot be prepared, `--skip-faulty` leaves it out"
_MEND = "mend the release and prepare the benchmark again"
_FETCH = "fetch the file again and compare its checksum"
_REPORT = "report it to the set's authors"

KINDS: Mapping[str, Kind] = {
    "changed_samples": Kind(
        "samples.jsonl does not hold what the manifest says: its fingerprint or count differs",
        "runs on it carry another fingerprint and are not comparable with earlier ones",
        "prepare the benchmark again",
    ),
    "missing_image": Kind(
        FAULT_KINDS["missing_image"],
        _STOPS,
        "unpack the release's images anew, or set UNIVG_DATA to the folder that holds them",
    ),
    "unreadable_image": Kind(
        "an image or video cannot be decoded to its end: damaged, truncated, or not what its name "
        "says",
        f"{_STOPS}; half an image is never shown to a model",
        _FETCH,
    ),
    "damaged_video": Kind(
        "a video is damaged somewhere, though the requested frames can be decoded",
        "the frames are shown as decoded, which may hide damage",
        _FETCH,
    ),
    "size_mismatch": Kind(
        "the recorded size of an image or mask is not that of the file as displayed",
        f"{_STOPS}: boxes in pixels would be read wrongly",
        "restore the released file, or prepare the benchmark again",
    ),
    "exif_orientation": Kind(
        "the file is stored turned or mirrored, by its EXIF orientation",
        "univg shows it upright and takes the boxes as those of the upright image; a harness that "
        "ignores the orientation shows another image",
        "look at the drawn box; where it fits only the image as stored, the annotation ignores "
        "the orientation: report it to the set's authors",
    ),
    "invalid_box": Kind(
        "a true box is not 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 of its image",
        "protocol univg leaves the row out and counts it as excluded; published protocols score it",
        _REPORT,
    ),
    "doubled_box": Kind(
        "the same box of the same image is twice among a row's targets",
        "an answer must give the box twice to be wholly right",
        _REPORT,
    ),
    "duplicate": Kind(
        "images, instruction and boxes equal those of an earlier row",
        "both are scored; where they share a cluster, intervals know that they are not independent",
        _REPORT,
    ),
    "near_duplicate": Kind(
        "as an earlier row: the same images, boxes with IoU of "
        f"{NEAR_DUPLICATE_IOU} or more, nine tenths of the words (in MIG-Bench: the same task and "
        "target image)",
        "both are scored",
        "none needed; compare the two",
    ),
    "repeated_image": Kind(
        "one image file is listed at two places of a row",
        "scored as it is; which of the two an answer names may decide",
        _REPORT,
    ),
    "unequal_pair": Kind(
        "the two images of a diff row differ in size",
        "scored as it is, on the second image",
        "look at the drawn box",
    ),
    "text_mismatch": Kind(
        "additional_info repeats the question in other words",
        "the question is used",
        "none needed",
    ),
    "wrong_label": Kind(
        "people who reviewed the set call the label wrong: its expression fits several objects, "
        "another or none, or its box is inaccurate",
        "scored as it is; `univg score --leave-out` leaves these rows out",
        "state the score with and without them",
    ),
    "target_unconfirmed": Kind(
        "evidence beside the question contradicts the derived target image",
        "scored on the derived image",
        "look at the drawn box",
    ),
    "contradicting_label": Kind(
        "the release's own label says that an object is there, and the row has no box, or the "
        "reverse",
        "the boxes decide; the label is not used",
        _REPORT,
    ),
    "target_underived": Kind(FAULT_KINDS["target_underived"], _LEFT_OUT, _MEND),
    "no_visible_object": Kind(
        "no object is visible in the requested image",
        "the row has no target: only an explicit 'no such object' is right; its metrics stand "
        "apart",
        "look at the images; leave the row out if it makes no sense without the object",
    ),
    "invalid_mask": Kind(FAULT_KINDS["invalid_mask"], _LEFT_OUT, _MEND),
    "invalid_row": Kind(FAULT_KINDS["invalid_row"], _LEFT_OUT, _MEND),
}

NOTES: Mapping[str, str] = {
    "no_object": "rows about an object that does not exist; only 'none' is right",
    "several_targets": "rows with several true boxes",
    "several_parts": "rows whose target has unconnected parts; the box spans them all",
    "several_boxes": "rows with more boxes than the first, which is used",
    "repeated_frames": "rows on a video with fewer frames than are shown; some repeat",
    "tied_frames": "rows on a video whose frames the published order leaves tied",
    "unknown_size": "rows that record no image sizes to compare",
    "stand_ins": "rows on images that stand in for their own; no result on them is one of the set",
    "not_reviewed": "rows that the reviewed labels (--reviewed) do not hold",
    "left_out": "faulty items left out when the benchmark was prepared",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a fault.

    Attributes:
        kind: a key of `KINDS`.
        detail: what exactly, in words.
        samples: ids of the rows concerned.
        file: the image concerned, as in `GroundingSample.images`, where it is about a file.
        other: id of the earlier row that this one is compared with.
    """

    kind: str
    detail: str
    samples: tuple[str, ...] = ()
    file: str | None = None
    other: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values; `id` is the first row concerned, or null."""
        row: dict[str, Any] = {
            "id": self.samples[0] if self.samples else None,
            "detail": self.detail,
        }
        if len(self.samples) > 1:
            row["ids"] = list(self.samples)
        if self.file is not None:
            row["file"] = self.file
        if self.other is not None:
            row["other"] = self.other
        return row


@dataclass(frozen=True, slots=True)
class Finding:
    """A kind of fault that occurs, with its cases."""

    kind: str
    cases: tuple[Case, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": self.kind,
            **KINDS[self.kind]._asdict(),
            "n": len(self.cases),
            "rows": [case.to_dict() for case in self.cases],
        }


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a benchmark holds and what is wrong with it.

    Attributes:
        benchmark: its name.
        n, n_clusters: rows, and groups of rows that are not independent.
        n_images: distinct images, a frame of a video counting as one.
        n_opened: how many of them could be opened.
        images_read: how they were opened: ``decoded``, ``headers`` or ``not opened``.
        tasks, splits: rows of each.
        fingerprint: computed from the samples.
        findings: only kinds that occur, in the order of `KINDS`.
        notes: counts that are no faults, keys of `NOTES`; only those above 0.
        target_checks: MIG-Bench: per check of the derived target image, how many rows it could be
            made on and how many it confirmed.
        source: what the manifest says about the release; empty without one.
    """

    benchmark: str
    n: int
    n_clusters: int
    n_images: int
    n_opened: int
    images_read: str
    tasks: Mapping[str, int]
    splits: Mapping[str, int]
    fingerprint: str
    findings: tuple[Finding, ...]
    notes: Mapping[str, int]
    target_checks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        """Whether there is any finding; notes do not count."""
        return bool(self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "benchmark": self.benchmark,
            "fingerprint": self.fingerprint,
            "n": self.n,
            "n_images": self.n_images,
            "n_clusters": self.n_clusters,
            "images_read": self.images_read,
            "tasks": dict(self.tasks),
            "splits": dict(self.splits),
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": dict(self.notes),
            "target_checks": {name: dict(check) for name, check in self.target_checks.items()},
            "source": dict(self.source),
        }
