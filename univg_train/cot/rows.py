"""What chains of thought are built for: rows of images, a question and the box that answers it.

A row comes from a prepared benchmark, from a JSON Lines file of one's own (`docs/custom.md`), or
from any object that can be iterated several times and gives `CotRow`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from univg_eval.answers import read_answer
from univg_eval.boxes import Box, is_valid_box
from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.images.reading import image_size, split_reference
from univg_eval.prompts import localize_question
from univg_eval.samples import GroundingSample, data_root, load_manifest, load_samples

__all__ = [
    "CotRow",
    "CotRows",
    "Survey",
    "UnusedRow",
    "encode_box",
    "row_fault",
    "rows_of_benchmark",
    "rows_of_file",
    "sizes_of",
    "student_question",
    "survey_rows",
]

_FAULTS_SHOWN = 5
# Training libraries replace these by images, wherever they stand.
MEDIA_MARKS = ("<image>", "<video>", "<audio>")


@dataclass(frozen=True, slots=True)
class CotRow:
    """One question with its answer.

    Attributes:
        id: unique among the rows.
        images: paths relative to the image root, or absolute; ``clip.mp4#frame=12`` is a frame.
        question: the instruction; boxes inside it are written
            ``<|box_start|>(x1,y1),(x2,y2)<|box_end|>`` on 0-1000.
        box: the answer, xyxy_norm on its image.
        target_image: 0-based image that the box lies on.
        image_is_given: False where the question leaves open which image it is.
        image_sizes: (width, height) of each image in pixels, upright; empty: those of the files.
        question_box_image: 0-based image that boxes inside the question lie on.
        task: kind of question; chooses the steps that the teacher is to take.
        source: where the row comes from, kept in the output. JSON values.
    """

    id: str
    images: tuple[str, ...]
    question: str
    box: Box
    target_image: int
    image_is_given: bool = True
    image_sizes: tuple[tuple[int, int], ...] = ()
    question_box_image: int = 0
    task: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that a teacher's reply depends on, but the pixels."""
        line = [
            self.id,
            list(self.images),
            self.question,
            [round(value, 6) + 0.0 for value in self.box],
            self.target_image,
            self.image_is_given,
            self.question_box_image,
            self.task,
        ]
        return hashlib.sha256(json.dumps(line).encode("ascii")).hexdigest()


@dataclass(frozen=True, slots=True)
class UnusedRow:
    """A row that no chain can be built for, and why.

    `faulty`: the row is wrong, rather than of another kind (no target, several targets).
    """

    id: str
    reason: str
    faulty: bool


@dataclass(frozen=True, slots=True)
class CotRows:
    """Rows and where they come from.

    Attributes:
        rows: in the order of the output; iterated more than once, so a generator does not do.
        image_root: folder that the rows' image paths are relative to.
        about: for the manifest. JSON values.
    """

    rows: Iterable[CotRow | UnusedRow]
    image_root: Path
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Survey:
    """What `survey_rows` counted.

    Attributes:
        n_rows: rows that chains can be built for.
        unused: rows of another kind, by reason.
        faulty: id and fault of each faulty row.
    """

    n_rows: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    faulty: list[tuple[str, str]] = field(default_factory=list)


def rows_of_benchmark(
    benchmark: str, split: str | None = None, root: str | os.PathLike[str] | None = None
) -> CotRows:
    """The rows of a prepared benchmark; UserError as `univg_eval.samples.load_samples`."""
    rows = [_of_sample(sample) for sample in load_samples(benchmark, split, root)]
    fingerprint = load_manifest(benchmark, root).get("fingerprint")
    about = {"benchmark": benchmark, "split": split, "fingerprint": fingerprint}
    return CotRows(rows, data_root(root), about)


def rows_of_file(
    source: str | os.PathLike[str], images: str | os.PathLike[str] | None = None
) -> CotRows:
    """The rows of a JSON Lines file as `univg prepare custom` reads it, without preparing it.

    Args:
        source: the file.
        images: the folder that its image paths are relative to; None: the file's own folder.

    Raises:
        UserError: as `open_custom`. A faulty row is an `UnusedRow`.
    """
    from univg_eval.benchmarks.readers.custom import open_custom

    release = open_custom(source, images=images)
    ((link, folder),) = release.links.items()
    rows = _FileRows(release, f"{release.benchmark}/{link}/")
    return CotRows(rows, folder, dict(release.source))


@dataclass(frozen=True, slots=True)
class _FileRows:
    """Rows that are converted one at a time, every time they are iterated."""

    release: Any
    prefix: str

    def __iter__(self) -> Iterator[CotRow | UnusedRow]:
        for item in self.release.items:
            try:
                samples = item.convert()
            except UserError as error:  # of this item alone
                yield UnusedRow(item.key, str(error), faulty=True)
                continue
            yield from (_of_sample(sample, self.prefix) for sample in samples)


def _of_sample(sample: GroundingSample, prefix: str = "") -> CotRow | UnusedRow:
    if sample.kind != "single":
        several = "every object is asked for" if sample.find_all else "several targets"
        reason = several if sample.targets else "no target"
        return UnusedRow(sample.id, reason, faulty=False)
    return CotRow(
        id=sample.id,
        images=tuple(image.removeprefix(prefix) for image in sample.images),
        question=sample.instruction,
        box=sample.box,
        target_image=sample.target_image,
        image_is_given=sample.image_is_given,
        image_sizes=tuple(sample.image_sizes or ()),
        question_box_image=sample.question_box_image,
        task=sample.task,
        source=dict(sample.source),
    )


def row_fault(row: CotRow, image_root: Path, dialect: Dialect) -> str | None:
    """What is wrong with a row, or None. Looks at the headers of its images, not at pixels."""
    if not row.images:
        return "has no images"
    if not 0 <= row.target_image < len(row.images):
        return (
            f"the target image is {row.target_image}; expected 0 to {len(row.images) - 1} "
            "(counted from 0)"
        )
    if not 0 <= row.question_box_image < len(row.images):
        return f"the question's boxes lie on image {row.question_box_image}, which is not there"
    if not is_valid_box(row.box):
        return (
            f"the box is {list(row.box)}; expected x1, y1, x2, y2 on 0-1 with x1 < x2 and y1 < y2"
        )
    if not row.question.strip():
        return "the question is empty"
    marks = [mark for mark in MEDIA_MARKS if mark in row.question]
    if marks:
        return f"the question holds {marks[0]}; expected text alone, images stand before it"
    if row.image_sizes and len(row.image_sizes) != len(row.images):
        return f"{len(row.image_sizes)} image sizes for {len(row.images)} images"
    try:
        row.question.encode("utf-8")
        sizes = sizes_of(row, image_root)
        student_question(row, dialect, sizes)
        text = encode_box(row, dialect, sizes)
        read = read_answer(text, dialect, image_sizes=sizes, target_image=row.target_image)
    except UnicodeEncodeError:
        return "the question holds half of a surrogate pair, which is no character"
    except UserError as error:
        return str(error)
    if read.status != "ok":
        return f"the box written as {text!r} cannot be read back in dialect {dialect.name!r}"
    return None


def sizes_of(row: CotRow, image_root: Path) -> list[tuple[int, int]] | None:
    """(width, height) of each image; None where the row does not say those of video frames.

    Raises:
        UserError: an image file is missing or is no image.
    """
    measured: list[tuple[int, int]] = []
    for reference in row.images:
        path, frame = split_reference(reference)
        if frame is None:
            measured.append(image_size(image_root / path))
        elif not (image_root / path).is_file():
            raise UserError(f"video file {image_root / path} does not exist")
    if row.image_sizes:
        return list(row.image_sizes)
    return measured if len(measured) == len(row.images) else None


def encode_box(row: CotRow, dialect: Dialect, sizes: list[tuple[int, int]] | None) -> str:
    """The row's box as the dialect writes it."""
    image_wh = sizes[row.target_image] if sizes else None
    return dialect.encode(row.box, image_wh=image_wh)


def student_question(row: CotRow, dialect: Dialect, sizes: list[tuple[int, int]] | None) -> str:
    """The question with its boxes as the dialect writes them."""
    image_wh = sizes[row.question_box_image] if sizes else None
    return localize_question(row.question, dialect, image_wh=image_wh)


def survey_rows(rows: CotRows, dialect: Dialect, *, skip_faulty: bool) -> Survey:
    """Look at every row before anything is sent.

    Raises:
        UserError: an id is a duplicate, there is nothing to build, `rows` cannot be iterated again,
            or rows are faulty and are not to be skipped (the first of them are named).
    """
    if isinstance(rows.rows, Iterator):
        raise UserError(
            "the rows are a generator, which can be read only once; expected a list, or an object "
            "whose __iter__ begins anew"
        )
    survey = Survey()
    seen: set[str] = set()
    for row in rows.rows:
        if row.id in seen:
            raise UserError(f"the id {row.id!r} is a duplicate; ids must be unique")
        seen.add(row.id)
        if isinstance(row, CotRow):
            fault = row_fault(row, rows.image_root, dialect)
            if fault is None:
                survey.n_rows += 1
            else:
                survey.faulty.append((row.id, fault))
        elif row.faulty:
            survey.faulty.append((row.id, row.reason))
        else:
            survey.unused[row.reason] += 1
    if survey.faulty and not skip_faulty:
        shown = "".join(f"\n  {id_}: {fault}" for id_, fault in survey.faulty[:_FAULTS_SHOWN])
        more = len(survey.faulty) - _FAULTS_SHOWN
        raise UserError(
            f"{len(survey.faulty)} of {len(seen)} rows are faulty; mend them, or leave them out "
            f"with --skip-faulty:{shown}" + (f"\n  and {more} more" if more > 0 else "")
        )
    if not survey.n_rows:
        kinds = ", ".join(f"{n} with {reason}" for reason, n in survey.unused.items())
        raise UserError(f"no row has exactly one box to explain ({kinds or 'no rows'})")
    return survey
