"""MIG-Bench: ten tasks of free-form grounding over several images.

Li et al., "Migician: Revealing the Magic of Free-Form Multi-Image Grounding in Multimodal Large
Language Models" (2025); annotation file ``MIG_data.json`` of github.com/thunlp/Migician, images
on the Hub as Michael4933/MIG-Bench. A row of the file::

    {"task": "object_tracking",
     "images": ["./MIG-Bench/images/object_tracking/GOT-10k_Val_000150/00000001.jpg", ...],
     "question": "... For the object in the first image marked with red bounding box(<|box_start|>
                  (391,297),(629,719)<|box_end|>), please locate it in the 4th image. ",
     "answer": [0.287, 0.227, 0.641, 0.675],
     "additional_info": "",
     "need_format": false}

``answer`` is x1, y1, x2, y2 on 0-1 of the target image, which the row does not name in a field of
its own: see `_target_image`. Boxes inside questions are on 0-1000.

There are two revisions of the set. ``original`` is the file above (4,295 rows); ``revised`` is the
``revised_MIG_bench.json`` that the UniVG-R1 authors score. They are two benchmarks with ids of
their own (``mig_bench-00017``, ``mig_bench_revised-00017``), since scores on one say nothing exact
about the other. Which of them a file is has to be said; it is never guessed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    chosen_splits,
    describe,
    load_json,
)
from univg_eval.benchmarks.readers.common.clusters import shared_image_clusters
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry, HubFiles, ImageArchive
from univg_eval.benchmarks.readers.common.release import Item, ItemError, Release, ordinal, size_of
from univg_eval.boxes import Box, box_iou, is_valid_box
from univg_eval.errors import UserError
from univg_eval.images.reading import ImageError, image_size
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "ENTRIES",
    "REVISIONS",
    "TASKS",
    "Audit",
    "Finding",
    "ImageAudit",
    "Revision",
    "RowFault",
    "audit_images",
    "audit_mig_bench",
    "benchmark_name",
    "find_images_folder",
    "get_revision",
    "open_mig_bench",
    "read_annotations",
    "read_rows",
    "with_sizes",
]

TASKS = (
    "diff",
    "view_diff",
    "common_object",
    "object_tracking",
    "multi_view",
    "region",
    "refer_grounding",
    "group_grounding",
    "reasoning",
    "correspondence",
)
RELEASE_IMAGES = "./MIG-Bench/images/"
SPLIT = "test"
LARGEST_COORDINATE = 1e6


@dataclass(frozen=True, slots=True)
class Revision:
    """One of the two published annotation files.

    Attributes:
        name: ``original`` or ``revised``.
        benchmark: name of the benchmark made from it.
        file_name: what the release calls the file.
        scale: what a coordinate of 1 of the image is in ``answer``; None where it has to be said.
        sha256: of the released file, or None where it is not known.
    """

    name: str
    benchmark: str
    file_name: str
    scale: int | None
    sha256: str | None


REVISIONS: Mapping[str, Revision] = {
    revision.name: revision
    for revision in (
        Revision(
            name="original",
            benchmark="mig_bench",
            file_name="MIG_data.json",
            scale=1,
            sha256="8f6e8fce3720dc6e17462533426d455463cda38b441edc2d70d65afa15681300",
        ),
        Revision(
            name="revised",
            benchmark="mig_bench_revised",
            file_name="revised_MIG_bench.json",
            scale=None,
            sha256=None,
        ),
    )
}


def get_revision(name: str) -> Revision:
    """The revision of that name; UserError listing the known ones."""
    try:
        return REVISIONS[name]
    except KeyError:
        raise UserError(
            f"unknown revision {name!r} of MIG-Bench; expected one of: {', '.join(REVISIONS)}"
        ) from None


def benchmark_name(revision: str = "original") -> str:
    """``mig_bench`` or ``mig_bench_revised``."""
    return get_revision(revision).benchmark


def read_annotations(
    path: str | os.PathLike[str], *, revision: str = "original", scale: int | None = None
) -> list[GroundingSample]:
    """All rows of an annotation file as samples, in file order.

    Args:
        path: the file, e.g. ``MIG_data.json``.
        revision: which of the two published files it is: ``original`` or ``revised``.
        scale: 1 or 1000, the range of the numbers in ``answer``; None takes the revision's own
            (1 for the original) and is refused where that is not known.

    Returns:
        One sample a row. The id is the row's 0-based number in five digits. Rows that share any
        image, directly or through others, share a cluster, named after the first of them.
        ``images`` are the release's paths moved below ``<benchmark>/images/``;
        ``source["images"]`` keeps them as released. Sizes are unknown without the images, so
        ``widths`` and ``heights`` are empty. Boxes stay as released, invalid ones included.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or not JSON, a row breaks the schema (row
            and field are named), a row does not tell its target image, or the boxes contradict
            the scale.
    """
    samples, faults = read_rows(path, revision=revision, scale=scale)
    if faults:
        more = f" ({len(faults) - 1} more rows are faulty)" if len(faults) > 1 else ""
        raise UserError(faults[0].message + more)
    return samples


@dataclass(frozen=True, slots=True)
class RowFault:
    """A row of an annotation file that gives no sample.

    Attributes:
        id: what its sample would be called.
        kind: ``target_underived`` where nothing tells the image that the answer lies on, else
            ``invalid_row``: a field is missing, of a wrong type, or contradicts another.
        message: file, row and field, what was received and what was expected.
    """

    id: str
    kind: Literal["target_underived", "invalid_row"]
    message: str


def read_rows(
    path: str | os.PathLike[str], *, revision: str = "original", scale: int | None = None
) -> tuple[list[GroundingSample], list[RowFault]]:
    """Like `read_annotations`, but a faulty row is told, and the others are not lost.

    Returns:
        The samples of the sound rows and the faults of the others, each in file order. Ids count
        all rows, so they do not depend on what is faulty.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or not JSON, not one row is sound, or the
            boxes contradict the scale.
    """
    known = get_revision(revision)
    scale = _checked_scale(path, known, scale)
    return _read_rows(load_json(Path(path)), known, scale)


def _checked_scale(path: str | os.PathLike[str], known: Revision, scale: int | None) -> int:
    if scale is None:
        scale = known.scale
    if scale not in (1, 1000):
        raise UserError(
            f"the scale of the boxes in {path} is {scale!r}; expected 1 (numbers on 0-1) or 1000 "
            f"(on 0-1000). The file of revision {known.name!r} does not say it: give --scale"
        )
    return scale


def _read_rows(
    file: AnnotationFile, known: Revision, scale: int
) -> tuple[list[GroundingSample], list[RowFault]]:
    path = file.path
    rows: dict[int, _Row] = {}
    faults: list[RowFault] = []
    for number, row in enumerate(_rows(file)):
        try:
            rows[number] = _check_row(row, f"{path.name} row {number}", scale)
        except _TargetError as error:
            faults.append(RowFault(_row_id(known, number), "target_underived", str(error)))
        except UserError as error:
            faults.append(RowFault(_row_id(known, number), "invalid_row", str(error)))
    if not rows:
        raise UserError(f"{path}: none of {len(faults)} rows is sound; {faults[0].message}")
    _require_plausible_scale(list(rows.values()), path, scale)
    numbers = list(rows)
    clusters = shared_image_clusters([row.images for row in rows.values()])
    samples = [
        GroundingSample(
            id=_row_id(known, number),
            benchmark=known.benchmark,
            task=row.task,
            split=SPLIT,
            images=tuple(
                f"{known.benchmark}/images/{image.removeprefix(RELEASE_IMAGES)}"
                for image in row.images
            ),
            widths=(),
            heights=(),
            instruction=row.question,
            targets=(Target(image=row.target_image, box=row.box),),
            image_is_given=row.task != "group_grounding",
            cluster=_row_id(known, numbers[cluster]),
            source={
                "file": known.file_name,
                "revision": known.name,
                "row": number,
                "images": list(row.images),
            },
            extra={"need_format": row.need_format, "additional_info": row.additional_info},
        )
        for (number, row), cluster in zip(rows.items(), clusters, strict=True)
    ]
    return samples, faults


def open_mig_bench(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    revision: str = "original",
    scale: int | None = None,
) -> Release:
    """Open a published annotation file with its images as benchmark ``mig_bench`` or its revision.

    Args:
        source: the annotation file, or the folder that holds it, directly or in ``MIG-Bench/``.
        images: the folder of the images as `find_images_folder` finds it; None looks beside the
            annotation file.
        splits: ``["test"]`` or None; there is no other.
        revision, scale: as for `read_annotations`.

    Returns:
        One item a row, in file order, named like its sample (``mig_bench-00017``).

    Raises:
        UserError: the file is not there, is that of the other revision by its name, or cannot be
            read as `read_rows` reads it; or the images are not there.
    """
    known = get_revision(revision)
    chosen_splits(known.benchmark, (SPLIT,), splits)
    path = _annotation_file(Path(source).expanduser(), known)
    scale = _checked_scale(path, known, scale)
    file = load_json(path)
    samples, faults = _read_rows(file, known, scale)
    searched = Path(images).expanduser() if images is not None else path.parent
    folder = find_images_folder(searched)
    if folder is None:
        raise UserError(
            f"no images of MIG-Bench in {searched}; expected its folders (common, static_diff, "
            "object_tracking, …) there, or in images/ or MIG-Bench/images/ below it"
        )
    folder = folder.resolve()
    size_of_image = cache(size_of)
    items = {
        sample.id: Item(sample.id, partial(_with_own_sizes, sample, folder, size_of_image))
        for sample in samples
    } | {fault.id: Item(fault.id, partial(_refuse_row, fault)) for fault in faults}
    return Release(
        benchmark=known.benchmark,
        items=[items[key] for key in sorted(items)],
        n_items=len(items),
        links={"images": folder},
        source={
            "file": path.name,
            "sha256": file.sha256,
            "is_released_file": None if known.sha256 is None else file.sha256 == known.sha256,
            "revision": known.name,
            "scale": scale,
        },
    )


def _annotation_file(source: Path, known: Revision) -> Path:
    if not source.is_dir():
        others = {other.file_name: other for other in REVISIONS.values() if other != known}
        if source.name in others:
            other = others[source.name]
            raise UserError(
                f"{source} is named like the file of revision {other.name!r}, but revision "
                f"{known.name!r} was asked for; prepare {other.benchmark!r} instead"
            )
        return source
    for candidate in (source / known.file_name, source / "MIG-Bench" / known.file_name):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(path.name for path in source.glob("*.json"))) or "no JSON file"
    raise UserError(
        f"{source} does not hold the annotation file {known.file_name}, nor does MIG-Bench/ in it; "
        f"found: {names}"
    )


def _with_own_sizes(
    sample: GroundingSample, folder: Path, size_of_image: Callable[[Path], tuple[int, int]]
) -> list[GroundingSample]:
    """The sample with the sizes of its images, read from the files' headers."""
    sizes = {
        image: size_of_image(folder / image.split("/images/", 1)[1]) for image in sample.images
    }
    return with_sizes([sample], sizes)


def _refuse_row(fault: RowFault) -> list[GroundingSample]:
    raise ItemError(fault.kind, fault.message)


class _TargetError(UserError):
    """A row does not tell the image that its answer lies on."""


def _row_id(revision: Revision, number: int) -> str:
    return f"{revision.benchmark}-{number:05d}"


@dataclass(frozen=True, slots=True)
class _Row:
    """A checked row; `box` is on 0-1, `target_image` 0-based."""

    task: str
    images: tuple[str, ...]
    question: str
    box: Box
    target_image: int
    additional_info: str
    need_format: bool


def _rows(file: AnnotationFile) -> list[Any]:
    rows = file.value
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{file.path}: holds {describe(rows)}; expected a JSON list of rows")
    return rows


def _check_row(row: Any, where: str, scale: int) -> _Row:
    if not isinstance(row, dict):
        raise UserError(f"{where}: is {describe(row)}; expected an object")
    task = _text(row, "task", where)
    if task not in TASKS:
        raise UserError(
            f"{where}: field 'task' is {task!r}; expected one of: {', '.join(sorted(TASKS))}"
        )
    images = _images(row, where)
    question = _text(row, "question", where)
    additional_info = _text(row, "additional_info", where, default="")
    need_format = row.get("need_format", True)
    if not isinstance(need_format, bool):
        raise UserError(
            f"{where}: field 'need_format' is {describe(need_format)}; expected true or false"
        )
    return _Row(
        task=task,
        images=images,
        question=question,
        box=_box(row, where, scale),
        target_image=_target_image(task, len(images), question, additional_info, where),
        additional_info=additional_info,
        need_format=need_format,
    )


def _field(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise UserError(f"{where}: field {name!r} is missing; the row has: {', '.join(row)}")
    return row[name]


def _text(row: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    value = row.get(name, default) if default is not None else _field(row, name, where)
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {describe(value)}; expected a string")
    _require_encodable(value, name, where)
    return value


def _require_encodable(value: str, name: str, where: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: field {name!r} holds half of a surrogate pair at character {error.start}; "
            "expected Unicode text"
        ) from error


def _images(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = _field(row, "images", where)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(image, str) for image in value)
    ):
        raise UserError(
            f"{where}: field 'images' is {describe(value)}; expected a list of relative paths"
        )
    for image in value:
        _require_encodable(image, "images", where)
        # The paths are joined to a folder later: nothing may lead out of it.
        if (
            not image.startswith(RELEASE_IMAGES)
            or ".." in PurePosixPath(image).parts
            or "\\" in image
            or "\0" in image
        ):
            raise UserError(
                f"{where}: field 'images' holds {describe(image)}; expected paths that begin with "
                f"{RELEASE_IMAGES!r} and stay below it"
            )
    return tuple(value)


def _box(row: Mapping[str, Any], where: str, scale: int) -> Box:
    value = _field(row, "answer", where)
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(type(v) in (int, float) for v in value)
        or not all(abs(v) < LARGEST_COORDINATE for v in value)  # NaN and infinity fail this too
    ):
        raise UserError(
            f"{where}: field 'answer' is {describe(value)}; expected four finite numbers x1, y1, "
            f"x2, y2 on 0-{scale}"
        )
    x1, y1, x2, y2 = (v / scale for v in value)
    return (x1, y1, x2, y2)


def _require_plausible_scale(rows: Sequence[_Row], path: Path, scale: int) -> None:
    """Refuse a file whose boxes are mostly on the other scale: it would be excluded silently."""
    if scale == 1:
        wrong = sum(max(row.box) > 1.5 for row in rows)
        reading = "above 1.5 although --scale 1 says that they lie on 0-1"
    else:
        wrong = sum(max(row.box) * scale <= 1 for row in rows)
        reading = "not above 1 although --scale 1000 says that they lie on 0-1000"
    if wrong * 2 > len(rows):
        raise UserError(
            f"{path}: the boxes ('answer') of {wrong} of {len(rows)} rows are {reading}; give the "
            "file's own scale with --scale 1 or --scale 1000"
        )


_WORDS = tuple(ordinal(index) for index in range(10))
# "the third image", "the 3th image" (the file's own spelling), "Image-2", "Image2".
_NAMED_IMAGE = re.compile(
    rf"\b(?:(?P<word>{'|'.join(_WORDS)})|(?P<ordinal>\d{{1,2}})(?:st|nd|rd|th))\s+image\b"
    r"|\bimage\s?-?(?P<label>\d{1,2})\b",
    re.IGNORECASE,
)
_REGION = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th) region picture in the source image\b")
_GROUP_ANSWER = re.compile(rf"\s*It is in the ({'|'.join(_WORDS)}) image\b")


def _target_image(task: str, n_images: int, question: str, additional_info: str, where: str) -> int:
    """The 0-based image that a row's answer lies on.

    * ``region``: the source image, which is the first; the regions follow it.
    * ``diff``: the second of two images of one size (the edited one).
    * ``group_grounding``: the question does not tell; ``additional_info`` opens with
      "It is in the fourth image." This is for scoring only: the model has to find the image.
    * the others: the image that the question names last ("For the object in the first image …,
      please locate it in the 4th image", "… in Image-2").

    Raises:
        _TargetError: the text does not tell, or names an image that the row does not have.
    """
    if task == "region":
        match = _REGION.search(question)
        if match is None or not 1 <= int(match[1]) < n_images:
            raise _TargetError(
                f"{where}: field 'question' is {describe(question)} with {n_images} images; "
                "expected '… the 2th region picture in the source image' with that region among "
                "them"
            )
        return 0
    if task == "diff":
        if n_images != 2:
            raise _TargetError(
                f"{where}: field 'images' has {n_images} entries; expected 2 in task 'diff'"
            )
        return 1
    if task == "group_grounding":
        match = _GROUP_ANSWER.match(additional_info)
        index = _WORDS.index(match[1]) if match else None
        field, text = "additional_info", additional_info
    else:
        named = list(_NAMED_IMAGE.finditer(question))
        index = _named_index(named[-1]) if named else None
        field, text = "question", question
    if index is None or not 0 <= index < n_images:
        raise _TargetError(
            f"{where}: field {field!r} is {describe(text)}; expected it to name one of the row's "
            f"{n_images} images, the one with the answer"
        )
    return index


def _named_index(match: re.Match[str]) -> int:
    if match["word"]:
        return _WORDS.index(match["word"].lower())
    return int(match["ordinal"] or match["label"]) - 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault and the rows that show it.

    Attributes:
        kind: a short key, stable for scripts.
        meaning: what it says, in words, and what scoring does about it.
        rows: ids of the rows; in pairs' findings the later row, with the earlier in `details`.
        details: one text a row, parallel to `rows`.
        others: in pairs' findings the earlier rows, parallel to `rows`; else empty.
    """

    kind: str
    meaning: str
    rows: tuple[str, ...]
    details: tuple[str, ...]
    others: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "kind": self.kind,
            "meaning": self.meaning,
            "n": len(self.rows),
            "rows": [
                {"id": row, "detail": detail}
                for row, detail in zip(self.rows, self.details, strict=True)
            ],
        }


@dataclass(frozen=True, slots=True)
class Audit:
    """What an annotation file holds and what is wrong with it; nothing is ever repaired.

    Attributes:
        n, n_images, n_clusters: rows, distinct image files, groups of rows that share images.
        tasks: rows per task, in the order of the published table.
        findings: only kinds that occur.
        target_checks: per check, how many rows it could be made on and how many it confirmed.
    """

    n: int
    n_images: int
    n_clusters: int
    tasks: Mapping[str, int]
    findings: tuple[Finding, ...]
    target_checks: Mapping[str, Mapping[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "n": self.n,
            "n_images": self.n_images,
            "n_clusters": self.n_clusters,
            "tasks": dict(self.tasks),
            "findings": [finding.to_dict() for finding in self.findings],
            "target_checks": {name: dict(check) for name, check in self.target_checks.items()},
        }


NEAR_DUPLICATE_IOU = 0.8


def audit_mig_bench(samples: Sequence[GroundingSample]) -> Audit:
    """Examine samples made by `read_annotations`.

    Kinds of findings: ``invalid_box``, ``duplicate`` (every field equal to an earlier row),
    ``near_duplicate`` (same task and target image, boxes with IoU of 0.8 or more),
    ``repeated_image`` (one file listed twice in a row), ``text_mismatch`` (``additional_info``
    repeats the question with other words), ``target_unconfirmed`` (evidence beside the question
    contradicts the derived target image; see `_target_evidence`).
    """
    counts = {task: 0 for task in TASKS}
    for sample in samples:
        counts[sample.task] = counts.get(sample.task, 0) + 1
    checks, contradictions = _check_targets(samples)
    found: dict[str, Sequence[tuple[str, ...]]] = {
        "invalid_box": _invalid_boxes(samples),
        "duplicate": _duplicates(samples),
        "near_duplicate": _near_duplicates(samples),
        "repeated_image": _repeated_images(samples),
        "text_mismatch": _text_mismatches(samples),
        "target_unconfirmed": contradictions,
    }
    return Audit(
        n=len(samples),
        n_images=len({image for sample in samples for image in sample.images}),
        n_clusters=len({sample.cluster for sample in samples}),
        tasks={task: n for task, n in counts.items() if n},
        findings=tuple(
            Finding(
                kind=kind,
                meaning=_MEANINGS[kind],
                rows=tuple(case[0] for case in cases),
                details=tuple(case[1] for case in cases),
                others=tuple(case[2] for case in cases if len(case) > 2),
            )
            for kind, cases in found.items()
            if cases
        ),
        target_checks=checks,
    )


_MEANINGS = {
    "invalid_box": "the ground truth is not a box with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1; "
    "protocol univg leaves such rows out and counts them, published protocols score them",
    "duplicate": "every field equals that of an earlier row; both are scored, in one cluster",
    "near_duplicate": "asks for nearly the same box of the same image as an earlier row "
    f"(IoU >= {NEAR_DUPLICATE_IOU}); both are scored, in one cluster",
    "repeated_image": "one image file is listed at two places of the row; scored as it is",
    "text_mismatch": "additional_info repeats the question in other words; the question is used",
    "target_unconfirmed": "evidence beside the question contradicts the derived target image",
}


def _invalid_boxes(samples: Sequence[GroundingSample]) -> list[tuple[str, str]]:
    return [
        (sample.id, f"{sample.task}: answer {_box_text(sample.box)}")
        for sample in samples
        if not is_valid_box(sample.box)
    ]


def _box_text(box: Box) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"


def _identity(sample: GroundingSample) -> tuple[Any, ...]:
    return (
        sample.task,
        sample.images,
        sample.instruction,
        sample.box,
        sample.extra.get("additional_info", ""),
        sample.extra.get("need_format"),
    )


def _duplicates(samples: Sequence[GroundingSample]) -> list[tuple[str, str, str]]:
    first: dict[tuple[Any, ...], str] = {}
    pairs = []
    for sample in samples:
        earlier = first.setdefault(_identity(sample), sample.id)
        if earlier != sample.id:
            pairs.append((sample.id, f"{sample.task}: equals {earlier}", earlier))
    return pairs


def _near_duplicates(samples: Sequence[GroundingSample]) -> list[tuple[str, str, str]]:
    by_image: dict[tuple[str, str], list[GroundingSample]] = {}
    for sample in samples:
        key = (sample.task, sample.images[sample.target_image])
        by_image.setdefault(key, []).append(sample)
    pairs = []
    for group in by_image.values():
        boxes = [sample.box for sample in group]
        for later, sample in enumerate(group[1:], start=1):
            ious = box_iou(boxes[:later], boxes[later])
            near = [
                (f"{iou:.3f} with {earlier.id}", earlier.id)
                for earlier, iou in zip(group[:later], ious, strict=True)
                if iou >= NEAR_DUPLICATE_IOU and _identity(earlier) != _identity(sample)
            ]
            if near:
                words = ", ".join(text for text, _ in near)
                pairs.append((sample.id, f"{sample.task}: IoU {words}", near[0][1]))
    return sorted(pairs)


def _repeated_images(samples: Sequence[GroundingSample]) -> list[tuple[str, str]]:
    pairs = []
    for sample in samples:
        if len(set(sample.images)) < len(sample.images):
            twice = next(image for image in sample.images if sample.images.count(image) > 1)
            places = [str(i + 1) for i, image in enumerate(sample.images) if image == twice]
            name = PurePosixPath(twice).name
            pairs.append((sample.id, f"{sample.task}: {name} is image {' and '.join(places)}"))
    return pairs


def _text_mismatches(samples: Sequence[GroundingSample]) -> list[tuple[str, str]]:
    pairs = []
    for sample in samples:
        info = str(sample.extra.get("additional_info", "")).strip()
        if sample.task != "group_grounding" and info and info not in sample.instruction:
            pairs.append((sample.id, f"{sample.task}: additional_info {describe(info)}"))
    return pairs


_INFO_BOX = re.compile(r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>")


def _check_targets(
    samples: Sequence[GroundingSample],
) -> tuple[dict[str, dict[str, int]], list[tuple[str, str]]]:
    """Hold the derived target images against what else the file tells."""
    checks: dict[str, dict[str, int]] = {}
    contradictions = []
    asked = _asked_images(samples)
    for sample in samples:
        evidence = _target_evidence(sample, asked)
        if evidence is None:
            continue
        name, confirmed = evidence
        check = checks.setdefault(name, {"rows": 0, "confirmed": 0})
        check["rows"] += 1
        check["confirmed"] += confirmed
        if not confirmed:
            contradictions.append((sample.id, f"{sample.task}: {name} does not hold"))
    return checks, contradictions


_Siblings = Mapping[tuple[str, ...], set[int]]


def _sibling_key(sample: GroundingSample) -> tuple[str, ...]:
    """Equal for rows that ask the same of other images of one list."""
    named = list(_NAMED_IMAGE.finditer(sample.instruction))
    end = named[-1].start() if named else len(sample.instruction)
    return (sample.instruction[:end], *sample.images)


def _asked_images(samples: Sequence[GroundingSample]) -> _Siblings:
    """For each question asked of several images of one list: the target images of its rows."""
    asked: dict[tuple[str, ...], set[int]] = {}
    for sample in samples:
        if sample.task in ("common_object", "object_tracking", "multi_view"):
            asked.setdefault(_sibling_key(sample), set()).add(sample.target_image)
    return asked


def _target_evidence(sample: GroundingSample, asked: _Siblings) -> tuple[str, bool] | None:
    """What, beside the text that the target image was derived from, speaks for it.

    Returns:
        The check in words and whether it holds, or None where the row offers no such evidence.
    """
    stems = [PurePosixPath(image).stem for image in sample.images]
    target = stems[sample.target_image]
    if sample.task == "common_object":
        return (
            "common_object: the rows of one list of images ask for every image",
            asked[_sibling_key(sample)] == set(range(len(stems))),
        )
    if sample.task in ("object_tracking", "multi_view"):
        # The first image is the one on which the object is marked.
        return (
            f"{sample.task}: the rows of one marked object ask for every image but the first",
            asked[_sibling_key(sample)] == set(range(1, len(stems))),
        )
    if sample.task == "group_grounding":
        match = _INFO_BOX.search(str(sample.extra.get("additional_info", "")))
        return (
            "group_grounding: the box beside the image's name is the answer times 1000",
            match is not None
            and [int(v) for v in match.groups()] == [round(v * 1000) for v in sample.box],
        )
    if sample.task == "region":
        others = [stem for i, stem in enumerate(stems) if i != sample.target_image]
        return (
            "region: the other files are named after the target's (name_1, name_2, …)",
            all(stem.startswith(f"{target}_") for stem in others),
        )
    if sample.task == "diff":
        return "diff: the target's file is named …_target", target.endswith("_target")
    if sample.task == "refer_grounding":
        return "refer_grounding: the target's file is named …_raw", target.endswith("_raw")
    if any(stem.endswith("_r") for stem in stems):
        # The release names a reference picture, which the question starts from, "case012_r.png".
        return (
            f"{sample.task}: the target is not the reference file (…_r)",
            not target.endswith("_r"),
        )
    return None


@dataclass(frozen=True, slots=True)
class ImageAudit:
    """What opening every image file of the rows has shown.

    Attributes:
        sizes: path as in `GroundingSample.images` → (width, height) in pixels, as displayed.
        missing: paths of files that do not exist, sorted.
        unreadable: paths of files that no image decoder recognises, sorted.
        unequal: ids of `diff` rows whose two images differ in size, so that it matters which of
            them the box belongs to.
    """

    sizes: Mapping[str, tuple[int, int]]
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    unequal: tuple[str, ...]


def find_images_folder(folder: Path) -> Path | None:
    """Where a release keeps its images: `folder`, or below it, as unpacked; None if nowhere."""
    for candidate in (folder / "MIG-Bench" / "images", folder / "images", folder):
        if any((candidate / name).is_dir() for name in _IMAGE_FOLDERS):
            return candidate
    return None


# First folders below images/ in the release.
_IMAGE_FOLDERS = (
    "common",
    "correspondence",
    "group_grounding",
    "multi_view",
    "object_tracking",
    "reasoning",
    "refer_grounding",
    "region",
    "static_diff",
    "view_diff",
)


def audit_images(samples: Sequence[GroundingSample], images_folder: Path) -> ImageAudit:
    """Open the header of every image file once.

    Args:
        samples: made by `read_annotations`.
        images_folder: holds what the release has below ``./MIG-Bench/images/``.
    """
    sizes: dict[str, tuple[int, int]] = {}
    missing: set[str] = set()
    unreadable: set[str] = set()
    for image in sorted({image for sample in samples for image in sample.images}):
        try:
            sizes[image] = image_size(images_folder / image.split("/images/", 1)[1])
        except ImageError as error:
            (missing if error.missing else unreadable).add(image)
    unequal = [
        sample.id
        for sample in samples
        if sample.task == "diff" and len({sizes[i] for i in sample.images if i in sizes}) > 1
    ]
    return ImageAudit(sizes, tuple(sorted(missing)), tuple(sorted(unreadable)), tuple(unequal))


def with_sizes(
    samples: Sequence[GroundingSample], sizes: Mapping[str, tuple[int, int]]
) -> list[GroundingSample]:
    """The samples with `widths` and `heights` filled in; every image must have a size."""
    return [
        dataclasses.replace(
            sample,
            widths=tuple(sizes[image][0] for image in sample.images),
            heights=tuple(sizes[image][1] for image in sample.images),
        )
        for sample in samples
    ]


_REPO = "Michael4933/MIG-Bench"
_COMMIT = "3c3615aa1b30a519b49d52333d5351a6813b8b48"
_REVISED_REPO = "GD-ML/UniVG-R1-data"
_REVISED_COMMIT = "9a1fa8e4f1a1a05b2cff40804236c82e60054678"
_ARCHIVES = (ImageArchive("images.zip", ("MIG-Bench/images", "images")),)

ENTRIES = (
    CatalogEntry(
        name="mig_bench",
        title="MIG-Bench, ten tasks over several images, the original annotations",
        opener=open_mig_bench,
        options=("scale",),
        fixed={"revision": "original"},
        tasks={"univg_mig_bench": None},
        hub=(HubFiles(_REPO, _COMMIT, ("MIG_data.json", "images.zip")),),
        images_on_hub=True,
        by_hand=(
            ByHand(
                "MIG_data.json and images.zip (1.01 GB)", f"https://huggingface.co/datasets/{_REPO}"
            ),
        ),
        image_archives=_ARCHIVES,
        licence="Apache-2.0 (Hub card), MIT (repository thunlp/Migician)",
        comparable_with_published=True,
        published="the table of the Migician paper; UniVG-R1's table used the revised annotations",
    ),
    CatalogEntry(
        name="mig_bench_revised",
        title="MIG-Bench with the annotations that the UniVG-R1 authors revised",
        opener=open_mig_bench,
        options=("scale",),
        fixed={"revision": "revised"},
        tasks={"univg_mig_bench_revised": None},
        hub=(
            HubFiles(_REVISED_REPO, _REVISED_COMMIT, ("revised_MIG_bench.json",)),
            HubFiles(_REPO, _COMMIT, ("images.zip",)),
        ),
        images_on_hub=True,
        by_hand=(
            ByHand("revised_MIG_bench.json", f"https://huggingface.co/datasets/{_REVISED_REPO}"),
            ByHand("images.zip (1.01 GB)", f"https://huggingface.co/datasets/{_REPO}"),
        ),
        image_archives=_ARCHIVES,
        licence="annotations: MIT (Hub card of GD-ML/UniVG-R1-data); images: as mig_bench",
        comparable_with_published=True,
        published="the MIG-Bench table of the UniVG-R1 paper",
    ),
)
