"""Reading the JSON files of releases: whole, checked, and with errors that name the place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from univg_eval.benchmarks.readers.common.release import FaultKind, ImageFolder, ItemError
from univg_eval.boxes import Box, four_numbers, is_valid_box
from univg_eval.errors import UserError
from univg_eval.files import LONGEST_LINE, refuse_nan
from univg_eval.samples import LARGEST_SIDE, require_text

__all__ = [
    "CONVENTIONS",
    "AnnotationFile",
    "checked_text",
    "chosen_splits",
    "default_images",
    "describe",
    "find_file",
    "find_split_files",
    "listing",
    "load_json",
    "load_json_lines",
    "parse_json",
    "parse_line",
    "pixel_box",
    "require_field",
    "require_objects",
    "require_rows",
    "text_field",
    "unexpected",
    "xywh_box",
]


def find_file(source: str | os.PathLike[str], name: str, below: Sequence[str], origin: str) -> Path:
    """The annotation file `name` of a release; UserError if it is not there.

    `source` is the file itself, under any name, or the folder that holds it, directly or in one of
    the folders `below`. `origin` says where it can be had.
    """
    source = Path(source).expanduser()
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(
            f"{source} does not exist; expected {name}, or a folder that holds it. It comes from "
            f"{origin}"
        )
    for folder in (source, *(source / part for part in below)):
        if (folder / name).is_file():
            return folder / name
    places = "".join(f", nor does {part} below it" for part in below)
    raise UserError(
        f"{source} does not hold {name}{places}; it has: {listing(source)}. The file comes from "
        f"{origin}"
    )


def find_split_files(
    source: str | os.PathLike[str],
    files: Mapping[str, str],
    wanted: Sequence[str] | None,
    below: Sequence[str],
    origin: str,
) -> dict[str, Path]:
    """Split → annotation file, for the wanted splits or those that are there; else UserError.

    `source` is the folder that holds the `files` (split → name), directly or in one of the folders
    `below`, or one file, whose split is that of its name, else the one wanted. `origin` says where
    they can be had.
    """
    source = Path(source).expanduser()
    names = " and ".join(name for split, name in files.items() if split in (wanted or files))
    if source.is_file():
        named = [split for split, name in files.items() if name == source.name]
        chosen = list(wanted or named or files)
        if len(chosen) > 1 or (named and chosen != named):
            raise UserError(
                f"{source} is one file; expected {names}: give the folder that holds "
                f"{'them' if len(chosen) > 1 else 'it'}, or the split of this file with --split"
            )
        return {chosen[0]: source}
    if not source.is_dir():
        raise UserError(f"{source} does not exist; expected {names}, or their folder")
    for base in (source, *(source / part for part in below)):
        found = {s: base / files[s] for s in wanted or files if (base / files[s]).is_file()}
        if found and (wanted is None or len(found) == len(wanted)):
            return found
    places = "".join(f", nor does {part} below it" for part in below)
    raise UserError(
        f"{source} does not hold {names}{places}; it has: {listing(source)}. The files come from "
        f"{origin}"
    )


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A JSON file of a release, read whole: its path, its value, and the SHA-256 of its bytes."""

    path: Path
    value: Any
    sha256: str

    def to_dict(self) -> dict[str, str]:
        """For a manifest: the file's name, without this machine's folders, and its digest."""
        return {"name": self.path.name, "sha256": self.sha256}


def load_json(path: Path) -> AnnotationFile:
    """Read a JSON file of a release; UserError if it cannot be read or parsed."""
    raw = _read_bytes(path)
    sha256 = hashlib.sha256(raw).hexdigest()
    try:
        value = parse_json(raw)
    except ValueError as error:
        raise UserError(
            f"{path}: {error}; expected the release's file as it is. If its download broke off, "
            "fetch it again"
        ) from error
    return AnnotationFile(path, value, sha256)


def load_json_lines(path: Path) -> AnnotationFile:
    """Read a JSON Lines file of a release; UserError if it cannot be read.

    Its value is the list of the values of all lines that are not blank. In place of one that is no
    JSON there is an `ItemError`, which `require_field` raises.
    """
    raw = _read_bytes(path)
    values = [_parsed_line(line) for line in raw.split(b"\n") if line.strip()]
    return AnnotationFile(path, values, hashlib.sha256(raw).hexdigest())


def _parsed_line(line: bytes) -> Any:
    try:
        return parse_line(line)
    except ValueError as error:
        return ItemError("invalid_row", f"{error}; expected one JSON object a line")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the annotation file {path}: {error.strerror or error}"
        ) from error


def parse_json(text: str | bytes, *, allow_nan: bool = True) -> Any:
    """The value of a JSON text, or of its UTF-8 bytes.

    With `allow_nan` NaN and Infinity are read, which Python writes and JSON does not know.
    ValueError if it is no UTF-8 or JSON, or a key is a duplicate and a value would be lost.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=None if allow_nan else refuse_nan
        )
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise ValueError(f"not UTF-8 (byte {error.start} is 0x{byte:02x})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error


def parse_line(line: bytes, *, allow_nan: bool = True) -> Any:
    """As `parse_json`, of a line of JSON Lines; ValueError too if it is longer than any should be.

    Lines of many MiB may take gigabytes when they are parsed.
    """
    if len(line) > LONGEST_LINE:
        raise ValueError(f"it has more than {LONGEST_LINE >> 20} MiB, the most that is read")
    return parse_json(line, allow_nan=allow_nan)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"duplicate key {describe(twice)} in one object")
    return value


def describe(value: Any) -> str:
    """A value for an error's text, cut where it is long."""
    if isinstance(value, Mapping):
        # Not its values: a mask's text has thousands of characters.
        keys = ", ".join(_cut(str(key), 40) for key in list(value)[:8])
        return f"an object with {keys}{', …' if len(value) > 8 else ''}" if value else "{}"
    if isinstance(value, list) and len(value) > 8:
        return f"a list of {len(value)} values"
    # Cut before repr has to quote all of it.
    return _cut(repr(value[:120] if isinstance(value, str | bytes) else value), 120)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def unexpected(where: str, value: Any, expected: str, kind: FaultKind = "invalid_row") -> ItemError:
    """The fault of an item in which a value is not what it has to be."""
    return ItemError(kind, f"{where} is {describe(value)}; expected {expected}")


def require_rows(file: AnnotationFile, fields: Iterable[str]) -> list[Any]:
    """The rows of a file that holds objects with certain fields, as a list or one a line.

    UserError if none of its rows has the fields: it is the file of another set. If only some lack
    them, these are faulty items.
    """
    needed = set(fields)
    expected = f"expected JSON objects with the fields {', '.join(sorted(needed))}"
    other_set = "Is it the file of another set?"
    rows = file.value
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{file.path}: holds {describe(rows)}; {expected}. {other_set}")
    if not any(isinstance(row, Mapping) and needed <= row.keys() for row in rows):
        raise UserError(
            f"{file.path}: {expected}; the first row is {describe(rows[0])}. {other_set}"
        )
    return rows


def require_objects(file: AnnotationFile, names: Sequence[str]) -> list[dict[int, Any]]:
    """The objects of each of a file's named lists, as in COCO, by their ``id``, in their order.

    UserError if the file has no such lists, or an object has no id of its own.
    """
    lists = [file.value.get(name) if isinstance(file.value, Mapping) else None for name in names]
    if not all(isinstance(rows, list) and rows for rows in lists):
        raise UserError(
            f"{file.path}: holds {describe(file.value)}; expected a JSON object with the lists "
            f"{', '.join(names)}. Is it the file of another set?"
        )
    found: list[dict[int, Any]] = []
    for name, rows in zip(names, lists, strict=True):
        found.append({})
        for place, row in enumerate(rows or ()):
            number = row.get("id") if isinstance(row, Mapping) else None
            if type(number) is not int or number in found[-1]:
                raise UserError(
                    f"{file.path}: {name}[{place}] is {describe(row)}, its id {describe(number)}; "
                    "expected an object with a whole number of its own as id. Fetch the file again"
                )
            found[-1][number] = row
    return found


def chosen_splits(
    benchmark: str, known: Sequence[str], splits: Sequence[str] | None
) -> list[str] | None:
    """The requested splits, in the known order; None for None, UserError for unknown or no ones."""
    if splits is None:
        return None
    if not splits or not set(splits) <= set(known):
        raise UserError(
            f"benchmark {benchmark!r} has the split{'s' if len(known) > 1 else ''} "
            f"{', '.join(known)}; received: {', '.join(splits) or 'none'}"
        )
    return [split for split in known if split in splits]


def listing(folder: Path) -> str:
    """The first names in a folder, without hidden ones, for an error's text."""
    names = sorted(
        path.name + ("/" if path.is_dir() else "")
        for path in folder.iterdir()
        if not path.name.startswith(".")
    )
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"


def default_images(
    images: str | os.PathLike[str] | None, base: Path, *, unique_names: bool = False
) -> ImageFolder:
    """The folder of images: the one that was given, else ``images`` below `base`, else `base`."""
    if images is None:
        images = base / "images" if (base / "images").is_dir() else base
    return ImageFolder(images, unique_names=unique_names)


def require_field(row: Any, name: str, where: str) -> Any:
    """The value of a field; ItemError ``invalid_row`` if the row is no object or lacks it."""
    if isinstance(row, ItemError):
        raise ItemError(row.kind, f"{where}: {row}") from row
    if not isinstance(row, Mapping):
        raise unexpected(f"{where}:", row, "an object")
    if name not in row:
        raise ItemError("invalid_row", f"{where}: no field {name!r}; it is {describe(row)}")
    return row[name]


def text_field(row: Any, name: str, where: str) -> str:
    """A field that must be text with something in it; ItemError as the two it is made of."""
    return checked_text(require_field(row, name, where), f"{where}: field {name!r}")


def checked_text(value: Any, where: str) -> str:
    """A string that is not blank and can be written as UTF-8; else ItemError ``invalid_row``."""
    if not isinstance(value, str) or not value.strip():
        raise unexpected(where, value, "text")
    try:
        require_text(value, where)
    except UserError as error:
        raise ItemError("invalid_row", str(error)) from error
    return value


CONVENTIONS = {"xyxy": "x1, y1, x2, y2", "xywh": "x, y, width, height"}
"""How releases write a box: two corners, or a corner and a size → its numbers in words."""
_SLACK = 1.0  # pixels that a box may reach outside its image, for rounding


def pixel_box(
    value: Any,
    image_wh: tuple[int, int],
    where: str,
    convention: Literal["xyxy", "xywh"] = "xyxy",
    *,
    slack: float = 0.0,
) -> Box:
    """Four numbers in pixels of an image of that size as displayed, as xyxy_norm.

    A side that lies at most `slack` pixels outside, by rounding, is put on the image's border. The
    box need not be valid: samples carry boxes as released, and the audit counts invalid ones.
    ItemError ``invalid_row`` if they are not four finite numbers.
    """
    numbers = four_numbers(value, LARGEST_SIDE)
    if numbers is None:
        raise unexpected(where, value, f"four numbers {CONVENTIONS[convention]} in pixels")
    width, height = image_wh
    x1, y1, x2, y2 = numbers
    if convention == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    x1, y1 = (0.0 if -slack <= side < 0 else side for side in (x1, y1))
    x2, y2 = (
        float(end) if end < side <= end + slack else side
        for side, end in ((x2, width), (y2, height))
    )
    return x1 / width, y1 / height, x2 / width, y2 / height


def xywh_box(value: Any, image_wh: tuple[int, int], where: str) -> Box:
    """`pixel_box` of x, y, width, height that has to lie inside its image, to a pixel.

    ItemError ``invalid_row`` if it does not, or is no box.
    """
    box = pixel_box(value, image_wh, where, "xywh", slack=_SLACK)
    if not is_valid_box(box):
        width, height = image_wh
        expected = f"x, y, width, height of a box inside its image of {width}x{height} pixels"
        raise unexpected(where, value, expected)
    return box
