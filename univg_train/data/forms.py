"""The files that training data comes in, by the name of their form."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from univg_eval.benchmarks.readers.common.annotation_files import describe, parse_json
from univg_eval.benchmarks.readers.common.release import Item, ItemError
from univg_eval.benchmarks.readers.custom import open_custom
from univg_eval.boxes import is_valid_box
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.samples import (
    SAMPLES_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    samples_file,
)
from univg_eval.scoring import given_image
from univg_train.data.conversations import (
    ConversationReader,
    bare_question,
    image_references,
    is_single_image,
    named_image,
    norm_box,
    require_marks,
    sound_text,
)
from univg_train.data.images import MeasuredImages
from univg_train.data.ms_swift import BOX_MARK, place_objects
from univg_train.data.rows import (
    IMAGE_MARK,
    RowError,
    RowTarget,
    TrainingRow,
    invalid_row,
    row_error,
)
from univg_train.data.stream import iter_elements

__all__ = ["FORMS", "Entry", "OpenFile", "open_form", "recognise_form"]

FORMS: Mapping[str, str] = {
    "mgrounding": "MGrounding-630k: ShareGPT, boxes on 0-1000",
    "univg_r1_stage1": "stage1_cotsft.json of UniVG-R1: ShareGPT with chains of thought",
    "univg_r1_stage2": "stage2_rl.json of UniVG-R1: images, question, answer on 0-1000",
    "cot": "cotsft.json of `univg-train cot`, in the dialect it was built for",
    "vlm_r1": "VLM-R1's JSON Lines: image, conversations, a box in pixels",
    "ms_swift": "ms-swift's grounding rows: messages with <bbox>, and objects",
    "samples": "a benchmark prepared by `univg prepare`; FILE is its name",
    "custom": "JSON Lines of your own, see docs/custom.md",
}
_SPACES = ("norm1000", "pixels", "norm1")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a file: its number from 0, its place, and its name for messages."""

    number: int
    start: int
    length: int
    where: str
    read: Callable[[], list[TrainingRow]]


class OpenFile(Protocol):
    """A file of training data."""

    path: Path
    folder: Path
    """References of the rows' images are relative to it."""

    def entries(self) -> Iterator[Entry]:
        """All rows in order; each is converted when its `read` is called."""

    def read_again(self, number: int, start: int, length: int) -> list[TrainingRow]:
        """One row by its place."""


def recognise_form(
    file: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None
) -> tuple[str, str]:
    """The form of a file, by its name and its first row, and what it was recognised by.

    Args:
        file: the file, or the name of a prepared benchmark.
        root: the data root.

    Raises:
        UserError: the file cannot be read, or its first row fits no form.
    """
    path = Path(file).expanduser()
    if not path.exists() and (benchmark_dir(str(file), root) / SAMPLES_FILE).is_file():
        return "samples", "the name of a prepared benchmark"
    if path.name == "cotsft.json" and (path.parent / "manifest.json").is_file():
        return "cot", "its name and the manifest beside it"
    raw = next((element.raw for element in iter_elements(path)), b"")
    try:
        value = parse_json(raw.decode("utf-8"))
    except ValueError:
        value = raw[:200].decode("utf-8", "replace")
    if isinstance(value, Mapping):
        turns = value.get("conversations", value.get("messages"))
        said = str(turns)
        if isinstance(turns, list):
            if "objects" in value or BOX_MARK in said:
                return "ms_swift", f"objects or {BOX_MARK} beside a conversation"
            if "image" in value:
                return "vlm_r1", "the field 'image' beside a conversation"
            if any(box is not None for _, _, box, _, _ in get_dialect("qwen2_vl").scan(said)):
                if "<think>" in said:
                    return "univg_r1_stage1", "a conversation with <think> and (x1,y1),(x2,y2)"
                return "mgrounding", "a conversation with (x1,y1),(x2,y2)"
        if {"question", "answer"} <= set(value):
            return "univg_r1_stage2", "the fields 'question' and 'answer'"
        if "instruction" in value or set(value) == {"space"}:
            return "custom", "the field 'instruction' or a first line with 'space'"
    raise UserError(
        f"{path}: its first row is {describe(value)}, which fits no form by its fields; state the "
        f"form, one of: {', '.join(FORMS)}"
    )


def open_form(
    form: str,
    file: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    space: str | None = None,
    decode: bool = False,
    root: str | os.PathLike[str] | None = None,
) -> OpenFile:
    """Open a file of training data.

    Args:
        form: one of `FORMS`.
        file: the file; the benchmark's name in the form ``samples``.
        images: the folder of images; None: the file's own folder, or the one that the run of
            ``cot`` recorded. Not for ``samples``.
        space: only for ``vlm_r1``: what its boxes are, ``pixels`` (None: the same), ``norm1000``
            (its files for InternVL) or ``norm1``.
        decode: decode every image while the rows are checked, not only its header.
        root: the data root, for ``samples``.

    Raises:
        UserError: an unknown form, an argument that does not belong to it, a missing folder.
    """
    if form not in FORMS:
        raise UserError(f"unknown form {form!r}; expected one of: {', '.join(FORMS)}")
    if space is not None and form != "vlm_r1":
        raise UserError(f"the boxes of form {form!r} have one space; leave the space away")
    if space is not None and space not in _SPACES:
        raise UserError(f"unknown space {space!r}; expected one of: {', '.join(_SPACES)}")
    if form == "samples":
        if images is not None:
            raise UserError("a prepared benchmark has its own images; leave the image folder away")
        return _samples(str(file), root, decode)
    path = Path(file).expanduser()
    if form == "custom":
        return _CustomFile(path, images, decode)
    if form == "cot":
        return _cot(path, images, decode)
    image_folder = MeasuredImages(Path(images or path.parent), decode=decode)
    if form == "univg_r1_stage2":
        return _JsonFile(path, image_folder, partial(_stage2_rows, image_folder))
    reader = ConversationReader(
        form,
        image_folder,
        space=(space or "pixels") if form == "vlm_r1" else "norm1000",
        keeps_answers=form != "vlm_r1",
        simple_paths=form == "univg_r1_stage1",
        place_objects=place_objects if form == "ms_swift" else None,
    )
    return _JsonFile(path, image_folder, reader.rows)


class _JsonFile:
    """A JSON list or JSON Lines, read row by row."""

    def __init__(
        self,
        path: Path,
        image_folder: MeasuredImages,
        convert: Callable[[Any, int, str], list[TrainingRow]],
    ) -> None:
        self.path = path
        self.folder = image_folder.folder
        self._convert = convert
        try:
            self._state = _state(path.stat())
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error

    def entries(self) -> Iterator[Entry]:
        for element in iter_elements(self.path):
            where = element.where(self.path)
            yield Entry(
                element.number,
                element.start,
                len(element.raw),
                where,
                partial(self._rows, element.raw, element.number, where),
            )

    def read_again(self, number: int, start: int, length: int) -> list[TrainingRow]:
        try:
            with self.path.open("rb") as file:
                changed = _state(os.fstat(file.fileno())) != self._state
                file.seek(start)
                raw = file.read(length)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        if changed:
            raise UserError(f"{self.path} was changed after it had been opened; begin again")
        return self._rows(raw, number, f"{self.path.name}: row {number}")

    def _rows(self, raw: bytes, number: int, where: str) -> list[TrainingRow]:
        try:
            value = parse_json(raw.decode("utf-8"), allow_nan=False)
        except UnicodeDecodeError as error:
            raise RowError(
                "not_json",
                f"{where}: is not UTF-8 (byte {error.start} of it is 0x{raw[error.start]:02x})",
            ) from error
        except ValueError as error:
            raise RowError("not_json", f"{where}: {error}; expected a JSON object") from error
        return self._convert(value, number, where)


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _stage2_rows(
    image_folder: MeasuredImages, value: Any, number: int, where: str
) -> list[TrainingRow]:
    """``{"images": […], "question": "<image>…", "answer": [x1, y1, x2, y2]}``, 0-1000.

    Source: AMAP-ML/UniVG-R1, ``grpo_univg.py``, which removes the marks from the question and puts
    all images before it.
    """
    if not isinstance(value, Mapping):
        raise invalid_row(where, f"is {describe(value)}; expected an object")
    released = image_references(value, where)
    question = sound_text(value.get("question"), f"{where}: field 'question'")
    require_marks(question.count(IMAGE_MARK), len(released), where)
    if "answer" not in value:
        raise invalid_row(where, f"no field 'answer'; it is {describe(value)}")
    located = [image_folder.locate(reference, where) for reference in released]
    sizes = tuple(size for _, size in located)
    box = norm_box(value["answer"], "norm1000", sizes[0], where)
    simple = is_single_image(value, released, question, True, where)
    question = bare_question(question.replace(IMAGE_MARK, ""))
    if not question:
        raise invalid_row(where, "field 'question' holds no words")
    image = named_image(question, [RowTarget(None, box)], len(sizes))
    return [
        TrainingRow(
            id=f"univg_r1_stage2-{number:06d}",
            source="univg_r1_stage2",
            images=tuple(reference for reference, _ in located),
            image_sizes=sizes,
            question=question,
            targets=(RowTarget(image, box),),
            single_image=simple,
            target_image=image,
            question_box_image=0 if len(sizes) == 1 else None,
        )
    ]


def _cot(path: Path, images: str | os.PathLike[str] | None, decode: bool) -> _JsonFile:
    """What ``univg-train cot`` built; its manifest holds the dialect and the image folder."""
    manifest = path.parent / "manifest.json"
    try:
        written_by = parse_json(manifest.read_text(encoding="utf-8"))
        settings, image_root = written_by["settings"], written_by["input"]["image_root"]
        written = get_dialect(
            settings["dialect"],
            min_pixels=settings["min_pixels"],
            max_pixels=settings["max_pixels"],
        )
        folder = Path(image_root if images is None else images)
    except OSError as error:
        raise UserError(
            f"cannot read {manifest}: {error.strerror or error}; give the cotsft.json inside the "
            "folder that `univg-train cot` wrote, where its manifest says which dialect it is in"
        ) from error
    except UserError as error:
        raise UserError(f"{manifest}: {error}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{manifest} is no manifest of `univg-train cot` ({error}); run that command again"
        ) from error
    image_folder = MeasuredImages(folder, decode=decode)
    reader = ConversationReader("cot", image_folder, written_in=written, own_ids=True)
    return _JsonFile(path, image_folder, reader.rows)


def _samples(benchmark: str, root: str | os.PathLike[str] | None, decode: bool) -> _JsonFile:
    path = samples_file(benchmark, root)
    image_folder = MeasuredImages(data_root(root), decode=decode)
    return _JsonFile(path, image_folder, partial(_sample_rows, image_folder))


def _sample_rows(
    image_folder: MeasuredImages, value: Any, number: int, where: str
) -> list[TrainingRow]:
    try:
        sample = GroundingSample.from_dict(value, where=where)
        _ = sample.question_box_image
    except UserError as error:
        raise RowError("invalid_row", str(error)) from error
    return [_row_of_sample(sample, image_folder, where)]


def _row_of_sample(
    sample: GroundingSample, image_folder: MeasuredImages, where: str
) -> TrainingRow:
    """The training row of a sample; each image is measured, and has the size the sample says.

    Raises:
        RowError: an image is missing, unreadable or of another size, or a box is invalid.
    """
    sizes = [image_folder.measure(reference, where) for reference in sample.images]
    if sample.image_sizes is not None and sample.image_sizes != sizes:
        raise RowError(
            "unreadable_image",
            f"{where}: its images have the sizes {sizes} and not {sample.image_sizes} as recorded; "
            "a file was replaced: prepare the benchmark again",
        )
    for target in sample.targets:
        if not is_valid_box(target.box):
            raise RowError(
                "invalid_box",
                f"{where}: box is {target.box!r}; expected 0 <= x1 < x2 <= 1, 0 <= y1 < y2 <= 1",
            )
    question = sound_text(sample.instruction, f"{where}: its instruction")
    require_marks(question.count(IMAGE_MARK), len(sizes), where)
    return TrainingRow(
        id=sample.id,
        source=f"{sample.benchmark}/{sample.task}",
        images=sample.images,
        image_sizes=tuple(sizes),
        question=question,
        targets=tuple(RowTarget(target.image, target.box) for target in sample.targets),
        target_image=given_image(sample),
        image_is_given=sample.image_is_given,
        question_box_image=sample.question_box_image,
        in_pixels=sample.extra.get("space") == "pixels",
        find_all=sample.find_all,
    )


class _CustomFile:
    """A file of one's own, opened by the evaluation's reader: its rows are held, not its images."""

    def __init__(self, path: Path, images: str | os.PathLike[str] | None, decode: bool) -> None:
        release = open_custom(path, images=images)
        self.path = path
        self.folder = release.links["images"]
        image_folder = MeasuredImages(self.folder, decode=decode)
        self._names = [f"{path.name}: {item.key}" for item in release.items]
        self._rows = [
            _converted(item, image_folder, name)
            for item, name in zip(release.items, self._names, strict=True)
        ]

    def entries(self) -> Iterator[Entry]:
        for number, where in enumerate(self._names):
            yield Entry(number, 0, 0, where, partial(self.read_again, number, 0, 0))

    def read_again(self, number: int, start: int, length: int) -> list[TrainingRow]:
        rows = self._rows[number]
        if isinstance(rows, RowError):
            raise rows
        return rows


def _converted(
    item: Item, image_folder: MeasuredImages, where: str
) -> list[TrainingRow] | RowError:
    """The rows of an item, their images named below the folder, or what is wrong with it."""
    try:
        return [
            _row_of_sample(
                replace(sample, images=tuple(sample.source["images"])), image_folder, where
            )
            for sample in item.convert()
        ]
    except ItemError as error:
        return row_error(error)
    except RowError as error:
        return error
