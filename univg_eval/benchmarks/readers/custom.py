"""Bring your own: questions and boxes from a JSON Lines file, one question a line.

The form is described for its authors, with examples, in ``docs/custom.md``. A file::

    {"space": "pixels"}
    {"images": "street.jpg", "instruction": "Find the man on the left.", "box": [34, 50, 180, 402]}
    {"images": ["a.jpg", "b.jpg"], "instruction": "Find the first image's cup in the second image.",
     "box": [0.1, 0.2, 0.4, 0.5], "space": "norm1", "target_image": 2, "group": "same_object"}
    {"images": "street.jpg", "instruction": "Find the elephant.", "box": null}

(each row on one line).

Nothing is guessed: the space of the boxes is stated, in the first line for the whole file or in a
row for itself, and a box that cannot be right in it is refused. ``target_image`` counts from 1,
like the words of an instruction ("in the second image"); a 0 is refused, so that a file that
counts from 0 cannot pass unseen.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    checked_text,
    chosen_splits,
    describe,
    file_sha256,
    parse_json,
)
from univg_eval.benchmarks.readers.common.entry import CatalogEntry
from univg_eval.benchmarks.readers.common.release import (
    Item,
    ItemError,
    Release,
    is_file,
    shared_image_clusters,
    size_of,
)
from univg_eval.boxes import Box
from univg_eval.errors import UserError
from univg_eval.images.reading import split_reference
from univg_eval.images.video import read_frames
from univg_eval.samples import GroundingSample, Target

__all__ = ["BENCHMARK", "ENTRIES", "FIELDS", "SPACES", "open_custom", "to_xyxy_norm"]

BENCHMARK = "custom"
SPLIT = "test"
SPACES: Mapping[str, str] = {
    "pixels": "x1, y1, x2, y2 in pixels of the image as it is displayed",
    "norm1": "x1, y1, x2, y2 on 0-1 of the image",
    "norm1000": "x1, y1, x2, y2 on 0-1000 of the image",
}
# How far a box may reach outside its image, in the units of its space: rounding, no more.
_SLACK = {"pixels": 0.5, "norm1": 0.0005, "norm1000": 0.5}

FIELDS: Mapping[str, str] = {
    "images": "a path, or a list of paths",
    "instruction": "what to find",
    "box": "x1, y1, x2, y2; null if there is nothing to find",
    "boxes": "several boxes, or objects with image and box; [] if there is nothing to find",
    "space": "pixels, norm1 or norm1000",
    "target_image": "the image that the boxes lie on, from 1",
    "find_image": "true if the model has to find out which image it is",
    "group": "the task that the row counts in",
    "id": "a name of your own for the row",
    "extra": "an object with columns of your own",
}
# What these fields are called elsewhere.
_ELSEWHERE = {
    "images": ("image", "img", "img_path", "image_path", "image_paths", "file_name", "video"),
    "instruction": ("question", "prompt", "query", "expression", "caption", "text", "sentence"),
    "box": ("bbox", "bbox_2d", "xyxy", "rect", "answer", "solution"),
    "boxes": ("bboxes", "bbox_list", "targets", "objects"),
    "space": ("scale", "format", "unit", "coordinates", "coordinate_space"),
    "target_image": ("target", "image_index", "target_index"),
    "group": ("task", "subset", "type"),
    "id": ("question_id", "sample_id", "row_id"),
}
_INTENDED = {alias: name for name, aliases in _ELSEWHERE.items() for alias in aliases}
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LONGEST_ID = 200
_FRAME = re.compile(r"#frame=[0-9]+$")


def open_custom(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Release:
    """Open a JSON Lines file of one's own as benchmark ``custom``.

    Args:
        source: the file.
        images: the folder that its image paths are relative to; None: the file's own folder.
        splits: ``["test"]`` or None; there is no other.

    Returns:
        One item a row, in file order. The sample's id is the row's own, or ``custom-00017`` for
        row 17 (0-based; the line that states the space and blank lines do not count). Its task is
        the row's group, or ``custom``. Rows that share an image or a video, directly or through
        others, share a cluster, named after the first of them. `image_is_given` is False with
        ``find_image``, and where the targets lie on different images.

    Raises:
        UserError: the file cannot be read, holds no rows, or is no such file; no row states a
            space; some rows have an id and others have none. A faulty row is an `ItemError` of
            its own item.
    """
    chosen_splits(BENCHMARK, (SPLIT,), splits)
    path = Path(source).expanduser()
    space, rows = _read(path)
    _require_rows(path, space, rows)
    folder = Path(images if images is not None else path.parent).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(
            f"the image folder {folder} does not exist; give with --images the folder that the "
            f"paths in {path} are relative to"
        )
    clusters = shared_image_clusters([_file_names(row.value, folder) for row in rows])
    ids = _ids(path, rows)
    first_line = {id_: row.line for id_, row in reversed(list(zip(ids, rows, strict=True)))}
    reader = _Reader(path.name, folder, space)
    items = [
        Item(
            key=f"line-{row.line}",
            convert=_Conversion(reader, number, row, id_, first_line[id_], cluster),
        )
        for number, (row, id_, cluster) in enumerate(zip(rows, ids, clusters, strict=True))
    ]
    return Release(
        benchmark=BENCHMARK,
        items=items,
        n_items=len(items),
        links={"images": folder},
        source={
            "file": path.name,
            "sha256": file_sha256(path),
            "revision": "own",
            "space": space,
        },
    )


# Reading the file


@dataclass(frozen=True, slots=True)
class _Row:
    """One line with a row: its 1-based number in the file; its value, or why it has none."""

    line: int
    value: Any = None
    fault: str | None = None


def _parse(raw: bytes) -> tuple[Any, str | None]:
    """The JSON value of a line, or None and what is wrong with it."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x})"
    try:
        return parse_json(text, allow_nan=False), None
    except ValueError as error:
        return None, str(error)


_UTF8_MARK = b"\xef\xbb\xbf"  # some editors begin a file with it


def _read(path: Path) -> tuple[str | None, list[_Row]]:
    """The space that the first line states for the file, or None, and the rows."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        if path.is_dir():
            raise UserError(
                f"{path} is a folder; give the JSON Lines file itself: --source {path}/NAME.jsonl"
            ) from error
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is UTF-16; save it as UTF-8")
    lines = raw.removeprefix(_UTF8_MARK).split(b"\n")
    if lines[0].lstrip().startswith(b"["):
        raise UserError(
            f"{path}: begins with '[', like a JSON list; expected JSON Lines: one object a line, "
            "no list around them and no commas between them"
        )
    space: str | None = None
    rows: list[_Row] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        value, fault = _parse(line)
        if not rows and space is None and isinstance(value, dict) and set(value) == {"space"}:
            space = _known_space(value["space"], f"{path}:{number}")
        else:
            rows.append(_Row(number, value, fault))
    return space, rows


def _known_space(value: Any, where: str) -> str:
    if not isinstance(value, str) or value not in SPACES:
        raise UserError(
            f"{where}: space is {describe(value)}; expected one of: "
            + "; ".join(f"{name!r} ({meaning})" for name, meaning in SPACES.items())
        )
    return value


def _require_rows(path: Path, space: str | None, rows: Sequence[_Row]) -> None:
    objects = [row for row in rows if isinstance(row.value, dict)]
    expected = "expected one JSON object a line with the fields images, instruction and box"
    if not rows:
        raise UserError(f"{path}: holds no rows; {expected}")
    if not objects:
        fault = rows[0].fault or f"is {describe(rows[0].value)}"
        raise UserError(
            f"{path}: no line of it is a JSON object; {expected}. Line {rows[0].line}: {fault}"
        )
    if not any({"images", "instruction"} & set(row.value) for row in objects):
        raise UserError(
            f"{path}: is no file of this form: no row has 'images' or 'instruction'; line "
            f"{objects[0].line} has: {', '.join(objects[0].value) or 'nothing'}. docs/custom.md "
            "shows the form, and how to write it from COCO's"
        )
    boxed = any(row.value.get("box") or row.value.get("boxes") for row in objects)
    if boxed and space is None and not any("space" in row.value for row in objects):
        raise UserError(
            f"{path}: the space of the boxes is stated nowhere, and it is never guessed; put "
            '{"space": "pixels"} into a first line of its own ("norm1" for 0-1, "norm1000" for '
            "0-1000)"
        )


def _file_names(row: Any, folder: Path) -> list[str]:
    """The files that a row shows, for telling which rows share one; [] where it is faulty."""
    images = row.get("images") if isinstance(row, dict) else None
    references = [images] if isinstance(images, str) else images
    if not isinstance(references, list):
        return []
    return [
        str(PurePosixPath(_FRAME.sub("", reference).removeprefix(f"{folder}/")))
        for reference in references
        if isinstance(reference, str)
    ]


def _ids(path: Path, rows: Sequence[_Row]) -> list[str]:
    """The id of each row, decided for all of them together; "" for what is no id."""
    own = [isinstance(row.value, dict) and "id" in row.value for row in rows]
    bare = [isinstance(row.value, dict) and "id" not in row.value for row in rows]
    if any(own) and any(bare):
        raise UserError(
            f"{path}: line {rows[own.index(True)].line} has an id and line "
            f"{rows[bare.index(True)].line} has none; give every row one, or none"
        )
    if not any(own):
        return [f"{BENCHMARK}-{number:05d}" for number in range(len(rows))]
    values = [row.value["id"] if has else "" for row, has in zip(rows, own, strict=True)]
    return [value if isinstance(value, str) else "" for value in values]


# Converting a row


@dataclass(frozen=True, slots=True)
class _Conversion:
    """Makes one row's sample when it is called."""

    reader: _Reader
    number: int
    row: _Row
    id: str
    first_line_of_id: int
    cluster: int

    def __call__(self) -> list[GroundingSample]:
        where = f"{self.reader.file}:{self.row.line}"
        row = _checked_row(self.row, where)
        _require_own_id(row, self.id, self.row.line, self.first_line_of_id, where)
        return [self.reader.sample(row, self.number, self.id, self.cluster, where)]


def _checked_row(row: _Row, where: str) -> dict[str, Any]:
    if row.fault is not None:
        raise _fault(f"{where}: {row.fault}; expected one JSON object a line")
    if not isinstance(row.value, dict):
        raise _fault(f"{where}: is {describe(row.value)}; expected a JSON object")
    if set(row.value) == {"space"}:
        raise _fault(
            f"{where}: states a space for the whole file, which only the first line can; give each "
            "row its own 'space', or keep files of different spaces apart"
        )
    _require_known_fields(row.value, where)
    return row.value


def _require_own_id(
    row: Mapping[str, Any], id_: str, line: int, first_line: int, where: str
) -> None:
    if not id_ or not id_.isprintable() or len(id_) > _LONGEST_ID:
        raise _fault(
            f"{where}: field 'id' is {describe(row.get('id'))}; expected a printable text of at "
            f"most {_LONGEST_ID} characters"
        )
    if line != first_line:
        raise _fault(f"{where}: the id {id_!r} is that of line {first_line} already")


class _Reader:
    """Makes samples of rows; measures each image once."""

    def __init__(self, file: str, folder: Path, space: str | None) -> None:
        self.file = file
        self.folder = folder
        self.space = space
        self._size = cache(self._measure)

    def sample(
        self, row: Mapping[str, Any], number: int, id_: str, cluster: int, where: str
    ) -> GroundingSample:
        instruction = _text(row, "instruction", where)
        references = _references(row, where)
        paths = [self._path(reference, where) for reference in references]
        space = self._row_space(row, where)
        find_image = _find_image(row, len(paths), where)
        group = _group(row, where)
        extra = _extra(row, instruction, space, where)
        wanted = _wanted(row, len(paths), where)
        sizes = [self._checked_size(path, where) for path in paths]
        targets = tuple(
            Target(image, to_xyxy_norm(box, space, sizes[image], f"{where}: {name}"))
            for image, box, name in wanted
        )
        return GroundingSample(
            id=id_,
            benchmark=BENCHMARK,
            task=group,
            split=SPLIT,
            images=tuple(f"{BENCHMARK}/images/{path}" for path in paths),
            widths=tuple(width for width, _ in sizes),
            heights=tuple(height for _, height in sizes),
            instruction=instruction,
            targets=targets,
            image_is_given=not find_image and len({target.image for target in targets}) <= 1,
            cluster=f"{BENCHMARK}-{cluster:05d}",
            source={
                "file": self.file,
                "revision": "own",
                "row": number,
                "images": paths,
            },
            extra=extra,
        )

    def _row_space(self, value: Mapping[str, Any], where: str) -> str | None:
        if "space" not in value:
            return self.space
        try:
            return _known_space(value["space"], where)
        except UserError as error:
            raise _fault(str(error)) from error

    def _path(self, reference: str, where: str) -> str:
        """The reference as a path below the image folder, in POSIX form."""
        try:
            name, frame = split_reference(reference)
        except UserError as error:
            raise _fault(f"{where}: {error}") from error
        path = PurePosixPath(name)
        if path.is_absolute() and path.is_relative_to(self.folder.as_posix()):
            path = path.relative_to(self.folder.as_posix())
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
            raise _fault(
                f"{where}: image {describe(reference)} does not lie below {self.folder}; write "
                "paths relative to one folder that holds all images, and give that folder with "
                "--images"
            )
        return path.as_posix() + ("" if frame is None else f"#frame={frame}")

    def _checked_size(self, path: str, where: str) -> tuple[int, int]:
        try:
            return self._size(path)
        except ItemError as error:
            raise ItemError(error.kind, f"{where}: {error}") from error

    def _measure(self, path: str) -> tuple[int, int]:
        name, frame = split_reference(path)
        file = self.folder / name
        if not is_file(file):
            raise ItemError(
                "missing_image",
                f"image {describe(name)} is not in {self.folder}; paths are relative to the file's "
                "own folder, or to the one given with --images"
                + (", and their parts are divided by '/'" if "\\" in name else ""),
            )
        if frame is None:
            return size_of(file)
        try:
            width, height = read_frames(file, [frame])[0].size
        except UserError as error:
            raise ItemError("unreadable_image", str(error)) from error
        return width, height


def _fault(message: str) -> ItemError:
    return ItemError("invalid_row", message)


def _require_known_fields(row: Mapping[str, Any], where: str) -> None:
    for name in row:
        if name in FIELDS:
            continue
        close = difflib.get_close_matches(name.lower(), FIELDS, n=1, cutoff=0.75)
        meant = _INTENDED.get(name.lower()) or (close[0] if close else None)
        raise _fault(
            f"{where}: field {name!r} is not known"
            + (f" (did you mean {meant!r}?)" if meant else "")
            + f"; known are {', '.join(FIELDS)}, and 'extra' holds columns of your own"
        )


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    if name not in row:
        raise _fault(f"{where}: field {name!r} is missing; expected a text")
    return checked_text(row[name], f"{where}: field {name!r}")


def _references(row: Mapping[str, Any], where: str) -> list[str]:
    value = row.get("images")
    listed = [value] if isinstance(value, str) else value
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(image, str) for image in listed)
    ):
        received = f"is {describe(value)}" if "images" in row else "is missing"
        raise _fault(f"{where}: field 'images' {received}; expected a path or a list of paths")
    return [checked_text(image, f"{where}: field 'images'") for image in listed]


def _find_image(row: Mapping[str, Any], n_images: int, where: str) -> bool:
    value = row.get("find_image", False)
    if not isinstance(value, bool):
        raise _fault(f"{where}: field 'find_image' is {describe(value)}; expected true or false")
    if value and n_images == 1:
        raise _fault(f"{where}: field 'find_image' is true, but the row has one image only")
    return value


def _group(row: Mapping[str, Any], where: str) -> str:
    value = row.get("group", BENCHMARK)
    if not isinstance(value, str) or not _GROUP.fullmatch(value):
        raise _fault(
            f"{where}: field 'group' is {describe(value)}; expected a name of at most 64 letters, "
            "digits, '_', '-' and '.', that begins with a letter or digit"
        )
    return value


def _extra(
    row: Mapping[str, Any], instruction: str, space: str | None, where: str
) -> dict[str, Any]:
    own = row.get("extra", {})
    if not isinstance(own, dict):
        raise _fault(f"{where}: field 'extra' is {describe(own)}; expected an object")
    try:
        text = json.dumps(own, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise _fault(f"{where}: field 'extra' cannot be kept: {error}") from error
    checked_text(text, f"{where}: field 'extra'")
    return {"expression": instruction, "space": space} | ({"own": own} if own else {})


def _wanted(row: Mapping[str, Any], n_images: int, where: str) -> list[tuple[int, Any, str]]:
    """(0-based image, box as written, name for messages) of every target."""
    named = _image_number(row["target_image"], n_images, where) if "target_image" in row else None
    if ("box" in row) == ("boxes" in row):
        received = "both 'box' and 'boxes'" if "box" in row else "neither 'box' nor 'boxes'"
        raise _fault(
            f'{where}: has {received}; expected one of them: "box": [x1, y1, x2, y2], or '
            '"boxes": [[…], […]] for several objects, or "box": null where there is nothing to find'
        )
    if "box" in row:
        box = row["box"]
        if isinstance(box, list) and box and all(isinstance(entry, list | dict) for entry in box):
            raise _fault(f"{where}: field 'box' holds boxes; several belong into 'boxes'")
        listed, names = ([] if box is None else [box]), ["box"]
    else:
        listed = row["boxes"]
        if not isinstance(listed, list) or (listed and type(listed[0]) in (int, float)):
            raise _fault(
                f"{where}: field 'boxes' is {describe(listed)}; expected a list of boxes, empty "
                "where there is nothing to find, or 'box' for a single one"
            )
        names = [f"boxes[{i}]" for i in range(len(listed))]
    wanted = []
    for entry, name in zip(listed, names[: len(listed)], strict=True):
        if isinstance(entry, dict):
            image, box = _placed(entry, named, n_images, f"{where}: {name}")
        else:
            image, box = named, entry
        if image is None and n_images > 1:
            raise _fault(
                f"{where}: {name} lies on one of {n_images} images, but which one is not said; "
                "give 'target_image', 1 for the first"
            )
        wanted.append((image or 0, box, name))
    return wanted


def _placed(
    entry: Mapping[str, Any], named: int | None, n_images: int, where: str
) -> tuple[int | None, Any]:
    """Image and box of ``{"image": 2, "box": […]}``."""
    if "box" not in entry or set(entry) - {"image", "box"}:
        raise _fault(
            f"{where} has the fields {', '.join(entry) or '(none)'}; expected box and image"
        )
    if "image" not in entry:
        return named, entry["box"]
    if named is not None:
        raise _fault(f"{where} names its image, and so does 'target_image'; expected one of them")
    return _image_number(entry["image"], n_images, where), entry["box"]


def _image_number(value: Any, n_images: int, where: str) -> int:
    """0-based position of an image that a row names, counting from 1."""
    if type(value) is not int or not 1 <= value <= n_images:
        hint = ". Images count from 1, as in 'the first image'" if value == 0 else ""
        raise _fault(
            f"{where}: the target image is {describe(value)}; expected 1 to {n_images}{hint}"
        )
    return value - 1


# Boxes

_CORNERS = ("x1", "y1", "x2", "y2")
_LARGEST = 1e9  # infinity and numbers that are no float fail the comparison with it


def to_xyxy_norm(box: Any, space: str | None, image_wh: tuple[int, int], where: str = "box") -> Box:
    """A box as written, on 0-1 of its image.

    Args:
        box: x1, y1, x2, y2: corners, not a width and height.
        space: one of `SPACES`; None where it was never stated.
        image_wh: (width, height) of the image in pixels, as displayed.
        where: begins the message of an error.

    Returns:
        x1, y1, x2, y2 on [0, 1]. What reaches outside by rounding alone (half a pixel, 0.0005 of
        0-1, half a unit of 0-1000) ends at the border.

    Raises:
        ItemError: ``invalid_row``: no such box can stand in an image of this size in this space.
    """
    if (
        not isinstance(box, list)
        or len(box) != 4
        or not all(type(v) in (int, float) and -_LARGEST < v < _LARGEST for v in box)
    ):
        nothing = "; where there is nothing to find, box is null" if box == [] else ""
        raise _fault(f"{where} is {describe(box)}; expected four numbers x1, y1, x2, y2{nothing}")
    if space is None:
        raise _fault(
            f"{where} is {describe(box)}, but its space is stated neither in the row nor in the "
            'file\'s first line; add "space": "pixels", "norm1" or "norm1000"'
        )
    limits = {"pixels": image_wh, "norm1": (1, 1), "norm1000": (1000, 1000)}[space] * 2
    for corner, value, limit in zip(_CORNERS, box, limits, strict=True):
        if not -_SLACK[space] <= value <= limit + _SLACK[space]:
            raise _fault(
                f"{where} is {describe(box)} in the space {space!r}, but {corner} = {value:g} lies "
                f"outside 0 to {limit}{_outside_hint(space, box, image_wh)}"
            )
    if space != "norm1" and max(box) <= 1 and min(limits) > 2:
        raise _fault(
            f"{where} is {describe(box)}: in the space {space!r} that would be a single point at "
            "the image's corner; numbers on 0-1 have the space 'norm1'"
        )
    x1, y1, x2, y2 = (
        min(max(value, 0), limit) / limit for value, limit in zip(box, limits, strict=True)
    )
    if x1 >= x2 or y1 >= y2:
        low, high = ("x1", "x2") if x1 >= x2 else ("y1", "y2")
        raise _fault(
            f"{where} is {describe(box)}: {high} is not larger than {low}; expected the corners "
            "x1, y1, x2, y2 (with x, y, width, height, write x, y, x + width, y + height)"
        )
    return (x1, y1, x2, y2)


def _outside_hint(space: str, box: Sequence[float], image_wh: tuple[int, int]) -> str:
    width, height = image_wh
    if space == "pixels":
        return f" (the image is {width}x{height} pixels as displayed)"
    if space == "norm1" and max(box[0], box[2]) <= width and max(box[1], box[3]) <= height:
        return "; it would fit the space 'pixels'" if max(box) > 1.5 else ""
    return ""


ENTRIES = (
    CatalogEntry(
        name="custom",
        title="your own samples, as JSON Lines",
        opener=open_custom,
        tasks={"univg_custom": None},
        licence="yours",
        comparable_with_published=False,
        published="none",
    ),
)
