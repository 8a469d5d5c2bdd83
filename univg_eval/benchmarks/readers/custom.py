"""Bring your own: samples from a JSON Lines file, one a line.

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

Sets stand beside each other by name: ``signs`` is the benchmark ``custom_signs`` and the task
``univg_custom:signs``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    describe,
    parse_line,
    unexpected,
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
from univg_eval.boxes import Box, four_numbers
from univg_eval.errors import UserError, nearest
from univg_eval.files import file_sha256
from univg_eval.images.reading import split_reference
from univg_eval.images.video import read_frames
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "BENCHMARK",
    "ENTRIES",
    "FIELDS",
    "SET_NAME",
    "SPACES",
    "TASK",
    "entry_of_set",
    "open_custom",
    "to_xyxy_norm",
]

BENCHMARK = "custom"
TASK = "univg_custom"
SPLIT = "test"
SPACES: Mapping[str, str] = {
    "pixels": "x1, y1, x2, y2 in pixels of the image as it is displayed",
    "norm1": "x1, y1, x2, y2 on 0-1 of the image",
    "norm1000": "x1, y1, x2, y2 on 0-1000 of the image",
}
# How far a box may reach outside its image, in the units of its space: rounding, no more.
_SLACK = {"pixels": 0.5, "norm1": 0.0005, "norm1000": 0.5}
_LARGEST = 1e9

FIELDS: Mapping[str, str] = {
    "images": "a path, or a list of paths",
    "instruction": "a text: what to find",
    "box": "four numbers x1, y1, x2, y2, or null if there is nothing to find",
    "boxes": "a list of boxes, or of objects with image and box; [] if there is nothing to find",
    "space": f"one of: {', '.join(SPACES)}",
    "target_image": "the image that the boxes lie on, from 1",
    "find_image": "true if the model has to find out which image it is, else false",
    "group": "the row's task: up to 64 letters, digits, '_', '-' and '.', the first no sign",
    "id": "a name of your own for the row: printable text of up to 200 characters",
    "extra": "an object with columns of your own",
}
# Of a set and of a group: safe as the name of a folder, and in a list of tasks.
SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


# Whether a value has the type of its field.
_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "images": lambda v: _is_text(v) or (isinstance(v, list) and v != [] and all(map(_is_text, v))),
    "instruction": _is_text,
    "boxes": lambda v: isinstance(v, list) and not (v and type(v[0]) in (int, float)),
    "space": lambda v: isinstance(v, str) and v in SPACES,
    "find_image": lambda v: isinstance(v, bool),
    "group": lambda v: isinstance(v, str) and SET_NAME.fullmatch(v) is not None,
    "id": lambda v: isinstance(v, str) and v.isprintable() and 0 < len(v) <= 200,
    "extra": lambda v: isinstance(v, dict),
}


def open_custom(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    benchmark: str = BENCHMARK,
) -> Release:
    """Open a JSON Lines file of one's own as benchmark ``custom``, or as a named set.

    Args:
        source: the file, or a folder with one ``.jsonl`` file in it.
        images: the folder that its image paths are relative to; None: the file's own folder.
        splits: ``["test"]`` or None; there is no other.
        benchmark: ``custom``, or ``custom_<name>``: see `entry_of_set`.

    Returns:
        One item a row, in file order. The sample's id is the row's own, or ``custom-00017`` for
        row 17 (0-based; the line that states the space and blank lines do not count). Its task is
        the row's group, or the benchmark. Rows that share an image or a video, directly or through
        others, share a cluster, named after the first of them. `image_is_given` is False with
        ``find_image``, and for several images without ``target_image``.

    Raises:
        UserError: the file cannot be read, holds no rows, or is no such file; no row states a
            space; some rows have an id and others have none. A faulty row is an `ItemError` of
            its own item.
    """
    chosen_splits(benchmark, (SPLIT,), splits)
    path = _file_in(Path(source).expanduser())
    space, rows = _read(path)
    _require_rows(path, space, rows)
    folder = Path(images if images is not None else path.parent).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(
            f"the image folder {folder} does not exist; give with --images the folder that the "
            f"paths in {path} are relative to"
        )
    clusters = shared_image_clusters([list(_file_names(value, folder)) for value in rows.values()])
    reader = _Reader(benchmark, path.name, folder, space)
    items = []
    first_line: dict[Any, int] = {}
    for number, ((line, value), cluster) in enumerate(zip(rows.items(), clusters, strict=True)):
        own = value.get("id") if isinstance(value, dict) else None
        first = first_line.setdefault(own, line) if isinstance(own, str) else line
        convert = partial(reader.convert, value, line, number, cluster, first)
        items.append(Item(key=f"line-{line}", convert=convert))
    return Release(
        benchmark=benchmark,
        items=items,
        links={"images": folder},
        source={
            "file": path.name,
            "sha256": file_sha256(path),
            "revision": "own",
            "space": space,
        },
    )


# Reading the file

_UTF8_MARK = b"\xef\xbb\xbf"  # some editors begin a file with it
_Rows = Mapping[int, Any]
"""1-based line number → its value, or the ItemError that it is none."""


def _file_in(source: Path) -> Path:
    """The file itself, or the one JSON Lines file of a folder."""
    if not source.is_dir():
        return source
    files = sorted(source.glob("*.jsonl"))
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise UserError(
            f"expected one file of JSON Lines (.jsonl) in the folder {source}, found: {found}; "
            "give the file itself"
        )
    return files[0]


def _read(path: Path) -> tuple[str | None, _Rows]:
    """The space that the first line states for the file, or None, and the rows."""
    try:
        raw = path.read_bytes()
    except OSError as error:
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
    rows: dict[int, Any] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        value = _parsed(line)
        if not rows and space is None and isinstance(value, dict) and set(value) == {"space"}:
            space = value["space"]
            if not _CHECKS["space"](space):
                raise UserError(
                    f"{path}:{number}: space is {describe(space)}; expected one of: "
                    + "; ".join(f"{name!r} ({meaning})" for name, meaning in SPACES.items())
                )
        else:
            rows[number] = value
    return space, rows


def _parsed(line: bytes) -> Any:
    try:
        return parse_line(line, allow_nan=False)
    except ValueError as error:
        return _fault(f"{error}; expected one JSON object a line")


def _require_rows(path: Path, space: str | None, rows: _Rows) -> None:
    """Refuse a file that is none of this form as a whole, instead of each of its rows."""
    objects = {line: value for line, value in rows.items() if isinstance(value, dict)}
    expected = "expected one JSON object a line with the fields images, instruction and box"
    if not rows:
        raise UserError(f"{path}: holds no rows; {expected}")
    if not objects:
        line, value = next(iter(rows.items()))
        fault = value if isinstance(value, ItemError) else f"is {describe(value)}"
        raise UserError(f"{path}: no line is a JSON object; {expected}. Line {line}: {fault}")
    if not any({"images", "instruction"} & set(row) for row in objects.values()):
        line, value = next(iter(objects.items()))
        raise UserError(
            f"{path}: no row has 'images' or 'instruction'; line {line} has: "
            f"{', '.join(value) or 'nothing'}. docs/custom.md shows the form, and how to write it "
            "from COCO's"
        )
    boxed = any(row.get("box") or row.get("boxes") for row in objects.values())
    if boxed and space is None and not any("space" in row for row in objects.values()):
        raise UserError(
            f"{path}: the space of the boxes is stated nowhere, and it is never guessed; put "
            '{"space": "pixels"} into a first line of its own ("norm1" for 0-1, "norm1000" for '
            "0-1000)"
        )
    own = [line for line, row in objects.items() if "id" in row]
    if own and len(own) < len(objects):
        bare = next(line for line, row in objects.items() if "id" not in row)
        raise UserError(
            f"{path}: line {own[0]} has an id and line {bare} has none; give every row one, or none"
        )


def _file_names(row: Any, folder: Path) -> Iterator[str]:
    """The files that a row shows, to find which rows share one; none where it is faulty."""
    images = row.get("images") if isinstance(row, dict) else None
    references = [images] if isinstance(images, str) else images
    for reference in references if isinstance(references, list) else ():
        if isinstance(reference, str):
            name = re.sub(r"#frame=[0-9]+$", "", reference)
            yield str(PurePosixPath(name.removeprefix(f"{folder}/")))


# Converting a row


def _fault(message: str) -> ItemError:
    return ItemError("invalid_row", message)


class _Reader:
    """Makes samples of rows; measures each image once."""

    def __init__(self, benchmark: str, file: str, folder: Path, space: str | None) -> None:
        self.benchmark = benchmark
        self.file = file
        self.folder = folder
        self.space = space
        self._size = cache(self._measure)

    def convert(
        self, value: Any, line: int, number: int, cluster: int, first_line: int
    ) -> list[GroundingSample]:
        """The sample of a row.

        Args:
            value: of the line, or its fault.
            line: 1-based, in the file.
            number: 0-based, of the rows.
            cluster: number of the first row that shares an image with it.
            first_line: the first line with the row's id.
        """
        try:
            row = _checked_row(value)
            if line != first_line:
                raise _fault(f"the id {row['id']!r} is that of line {first_line} already")
            return [self._sample(row, number, cluster)]
        except ItemError as error:
            raise ItemError(error.kind, f"{self.file}:{line}: {error}") from error

    def _sample(self, row: Mapping[str, Any], number: int, cluster: int) -> GroundingSample:
        images = row["images"]
        paths = [self._path(image) for image in ([images] if isinstance(images, str) else images)]
        find_image = row.get("find_image", False)
        if find_image and len(paths) == 1:
            raise _fault("field 'find_image' is true, but the row has one image only")
        space = row.get("space", self.space)
        wanted = list(_wanted(row, len(paths)))
        # Not from the images of the boxes: a response would be read by where the objects are.
        given_image = row["target_image"] - 1 if "target_image" in row and not find_image else None
        sizes = [self._size(path) for path in paths]
        targets = tuple(
            Target(image, to_xyxy_norm(box, space, sizes[image], name))
            for image, box, name in wanted
        )
        own = {"own": row["extra"]} if row.get("extra") else {}
        return GroundingSample(
            id=row.get("id", f"{self.benchmark}-{number:05d}"),
            benchmark=self.benchmark,
            task=row.get("group", self.benchmark),
            split=SPLIT,
            images=tuple(f"{self.benchmark}/images/{path}" for path in paths),
            widths=tuple(width for width, _ in sizes),
            heights=tuple(height for _, height in sizes),
            instruction=row["instruction"],
            targets=targets,
            image_is_given=len(paths) == 1 or given_image is not None,
            given_image=0 if len(paths) == 1 else given_image,
            cluster=f"{self.benchmark}-{cluster:05d}",
            source={
                "file": self.file,
                "revision": "own",
                "row": number,
                "images": paths,
            },
            extra={"expression": row["instruction"], "space": space} | own,
        )

    def _path(self, reference: str) -> str:
        """The reference as a path below the image folder, in POSIX form."""
        try:
            name, frame = split_reference(reference)
        except UserError as error:
            raise _fault(str(error)) from error
        path = PurePosixPath(name)
        if path.is_absolute() and path.is_relative_to(self.folder.as_posix()):
            path = path.relative_to(self.folder.as_posix())
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
            raise _fault(
                f"image {describe(reference)} does not lie below {self.folder}; write paths "
                "relative to one folder that holds all images, and give it with --images"
            )
        return path.as_posix() + ("" if frame is None else f"#frame={frame}")

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


def _checked_row(row: Any) -> dict[str, Any]:
    """A row whose fields are known and have the right types."""
    if isinstance(row, ItemError):
        raise row
    if not isinstance(row, dict):
        raise _fault(f"is {describe(row)}; expected a JSON object")
    if set(row) == {"space"}:
        raise _fault(
            "states a space for the whole file, which only the first line can; give each row its "
            "own 'space'"
        )
    for name in row:
        if name not in FIELDS:
            near = nearest(_INTENDED.get(name.lower(), name), FIELDS, n=1)
            raise _fault(
                f"field {name!r} is not known"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + f"; known are {', '.join(FIELDS)}, and 'extra' holds columns of your own"
            )
    for name in ("images", "instruction"):
        if name not in row:
            raise _fault(f"field {name!r} is missing; expected {FIELDS[name]}")
    for name, is_right in _CHECKS.items():
        if name in row and not is_right(row[name]):
            raise unexpected(f"field {name!r}", row[name], FIELDS[name])
    if ("box" in row) == ("boxes" in row):
        raise _fault(
            f"has {'both' if 'box' in row else 'neither'} of 'box' and 'boxes'; expected one: "
            '"box": [x1, y1, x2, y2], "boxes": [[…], […]], or "box": null where there is nothing '
            "to find"
        )
    try:
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except ValueError as error:  # an infinite number, or half of a surrogate pair
        raise _fault(f"cannot be written as JSON: {error}") from error
    return row


def _wanted(row: Mapping[str, Any], n_images: int) -> Iterator[tuple[int, Any, str]]:
    """(0-based image, box as written, name for messages) of every target."""
    named = None
    if "target_image" in row:
        named = _image_number(row["target_image"], n_images, "field 'target_image'")
    if "boxes" in row:
        listed = [(entry, f"boxes[{i}]") for i, entry in enumerate(row["boxes"])]
    else:
        listed = [] if row["box"] is None else [(row["box"], "box")]
    for entry, name in listed:
        image, box = named, entry
        if isinstance(entry, dict):
            if "box" not in entry or set(entry) - {"image", "box"}:
                raise unexpected(name, entry, "an object with box and image")
            box = entry["box"]
            if "image" in entry and named is not None:
                raise _fault(f"{name} names its image, and so does 'target_image'; expected one")
            if "image" in entry:
                image = _image_number(entry["image"], n_images, name)
        elif name == "box" and isinstance(box, list) and box and isinstance(box[0], list | dict):
            raise _fault("field 'box' holds boxes; expected one, or 'boxes'")
        if image is None and n_images > 1:
            raise _fault(
                f"{name} lies on one of {n_images} images, but which one is not given; expected "
                "'target_image', 1 for the first"
            )
        yield image or 0, box, name


def _image_number(value: Any, n_images: int, name: str) -> int:
    """0-based position of an image that a row names, counting from 1."""
    if type(value) is not int or not 1 <= value <= n_images:
        hint = ". Images count from 1, as in 'the first image'" if value == 0 else ""
        raise unexpected(f"{name}: the target image", value, f"1 to {n_images}{hint}")
    return value - 1


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
        ItemError: ``invalid_row``: no such box can be in an image of this size in this space.
    """
    written = f"{where} is {describe(box)}"
    numbers = four_numbers(box, _LARGEST)
    if numbers is None:
        nothing = "; where there is nothing to find, box is null" if box == [] else ""
        raise _fault(f"{written}; expected four numbers x1, y1, x2, y2{nothing}")
    if space is None:
        raise _fault(
            f"{written}, but its space is stated neither in the row nor in the file's first line; "
            'add "space": "pixels", "norm1" or "norm1000"'
        )
    width, height = image_wh
    limits = {"pixels": image_wh, "norm1": (1, 1), "norm1000": (1000, 1000)}[space] * 2
    slack = _SLACK[space]
    for corner, value, limit in zip(("x1", "y1", "x2", "y2"), numbers, limits, strict=True):
        if not -slack <= value <= limit + slack:
            hint = f" (the image is {width}x{height} pixels as displayed)"
            if space == "norm1" and max(numbers) > 1.5:
                hint += "; is the space 'pixels'?"
            if space == "pixels" and min(numbers) >= 0 and max(numbers) <= 1000:
                hint += "; are the numbers on 0-1000?"
            raise _fault(
                f"{written} in the space {space!r}, but {corner} = {value:g} lies outside 0 to "
                f"{limit}{hint}"
            )
    if space != "norm1" and max(numbers) <= 1 and min(limits) > 2:
        raise _fault(
            f"{written}: in the space {space!r} that would be a single point at the image's "
            "corner; numbers on 0-1 have the space 'norm1'"
        )
    x1, y1, x2, y2 = (
        min(max(value, 0), limit) / limit for value, limit in zip(numbers, limits, strict=True)
    )
    if x1 >= x2 or y1 >= y2:
        low, high = ("x1", "x2") if x1 >= x2 else ("y1", "y2")
        raise _fault(
            f"{written}: {high} is not larger than {low}; expected the corners x1, y1, x2, y2 "
            "(with x, y, width, height, write x, y, x + width, y + height)"
        )
    return (x1, y1, x2, y2)


ENTRIES = (
    CatalogEntry(
        name="custom",
        title="your own samples, as JSON Lines",
        opener=open_custom,
        fixed={"benchmark": BENCHMARK},
        tasks={TASK: None},
        licence="yours",
        comparable_with_published=False,
        published="there is none",
    ),
)


def entry_of_set(name: str) -> CatalogEntry:
    """The entry of the set of this name: benchmark ``custom_<name>``, task ``univg_custom:<name>``.

    Raises:
        UserError: it is no such name.
    """
    if not SET_NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name of a set; expected up to 64 letters, digits, '_', '-' and '.', "
            "the first no sign"
        )
    benchmark = f"{BENCHMARK}_{name}"
    return replace(
        ENTRIES[0],
        name=benchmark,
        fixed={"benchmark": benchmark},
        tasks={f"{TASK}:{name}": None},
    )
