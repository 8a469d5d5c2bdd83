"""Reading Parquet files of releases, with the images that they hold."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.benchmarks.readers.common.annotation_files import listing
from univg_eval.benchmarks.readers.common.release import ItemError, StrPath
from univg_eval.errors import UserError, install_command
from univg_eval.files import whole_file

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

__all__ = [
    "EMBEDDED",
    "SHARD",
    "EmbeddedImages",
    "ParquetRows",
    "find_shards",
    "open_parquet",
    "read_rows",
    "require_one_set_of_shards",
    "store_image",
]

EMBEDDED = "embedded"
"""Folder below a benchmark's own for the images that its files held."""

SHARD = r"(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?)?\.parquet"
"""Pattern of what follows the split's name in the name of a file on the Hub."""

_BEGINS = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n": "png"}


@contextmanager
def open_parquet(file: Path) -> Iterator[ParquetFile]:
    """Open a Parquet file; failures to open and to read it become a UserError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"reading {file} needs the package pyarrow: {install_command('eval')}"
        ) from error
    try:
        with parquet.ParquetFile(file) as opened:
            yield opened
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(
            f"cannot read {file} as Parquet: {error}; a download that broke off (or a Git LFS "
            "pointer) looks like this: download it again"
        ) from error


def require_one_set_of_shards(files: Sequence[Path], of: str) -> None:
    """Refuse files of one split that are not its numbered parts, each once.

    `of` names in the message what has to be downloaded again.
    """
    matches = [re.search(r"-(\d{5})-of-(\d{5})", file.name) for file in files]
    numbers = [(int(match[1]), int(match[2])) for match in matches if match is not None]
    if numbers != [(k, len(files)) for k in range(len(files))] and (numbers or len(files) > 1):
        raise UserError(
            f"{files[0].parent}: the files {', '.join(file.name for file in files)} are not the "
            f"parts of one split, each once; download {of} again, or give one file"
        )


def find_shards(source: StrPath, split: str, of: str, origin: str) -> list[Path]:
    """The Parquet files of a split, in order; UserError if they are not there or not one set.

    Args:
        source: one file, under any name, or the folder with ``<split>-00000-of-….parquet`` and so
            on, also below ``data/``.
        split: in the files' names.
        of: the set's name in messages.
        origin: where the files can be had.
    """
    source = Path(source).expanduser()
    if source.is_file():
        return [source]
    for folder in (source, source / "data"):
        names = sorted(folder.iterdir()) if folder.is_dir() else []
        if files := [path for path in names if re.fullmatch(split + SHARD, path.name)]:
            require_one_set_of_shards(files, of)
            return files
    has = f"has: {listing(source)}" if source.is_dir() else "does not exist"
    raise UserError(
        f"{source} {has}; expected {split}-*.parquet of {of} in it, or in data/ below it. The "
        f"files come from {origin}"
    )


def read_rows(
    path: Path, fields: Sequence[str], of: str, *, optional: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The rows of a file, of these fields and those of the `optional` that it has.

    UserError, which names the set as `of`, if a field is missing.
    """
    with open_parquet(path) as table:
        names = _columns(table, path, fields, of)
        read = [*fields, *(name for name in optional if name in names)]
        rows: list[dict[str, Any]] = table.read(columns=read).to_pylist()
    return rows


def _columns(table: ParquetFile, path: Path, fields: Sequence[str], of: str) -> list[str]:
    """The names of a file's columns; UserError if one of the `fields` is missing."""
    names: list[str] = table.schema_arrow.names
    if missing := [name for name in fields if name not in names]:
        raise UserError(
            f"{path} is not of {of}: it has no {', '.join(missing)}; its columns are: "
            f"{', '.join(names)}"
        )
    return names


class ParquetRows:
    """The rows of a Parquet file whose column ``image`` is read when it is needed.

    Attributes:
        path: the file.
        rows: a mapping a row, of the `fields` alone.
        images: the column ``image``.
    """

    def __init__(self, path: Path, fields: Sequence[str], of: str) -> None:
        """Read the file; UserError, which names the set as `of`, if it lacks a column."""
        with open_parquet(path) as table:
            _columns(table, path, (*fields, "image"), of)
            self.rows: list[dict[str, Any]] = table.read(columns=list(fields)).to_pylist()
        self.path = path
        self.images = EmbeddedImages(path)


class EmbeddedImages:
    """The column ``image`` of a Parquet file; one row group at a time is in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._group = range(0)
        self._images: list[Any] = []

    def of_row(self, row: int) -> Any:
        """The value of a row (from 0), for `store_image`; quick where rows are taken in order."""
        if row not in self._group:
            with open_parquet(self.path) as table:
                first = group = 0
                while row >= first + table.metadata.row_group(group).num_rows:
                    first += table.metadata.row_group(group).num_rows
                    group += 1
                self._images = table.read_row_group(group, columns=["image"])["image"].to_pylist()
            self._group = range(first, first + len(self._images))
        return self._images[row - self._group.start]


def store_image(image: Any, folder: Path, where: str = "field 'image'") -> str:
    """Write an embedded image below `folder` under a name made of its content; the name.

    Args:
        image: ``{"bytes": …}``, as the Hub's datasets hold it.
        folder: is made where it is missing.
        where: names the value in an error.

    Raises:
        ItemError: ``missing_image``, or ``unreadable_image`` for what is no JPEG or PNG.
        UserError: it cannot be written.
    """
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes) or not data:
        raise ItemError("missing_image", f"{where} holds no image")
    suffix = next((suffix for begins, suffix in _BEGINS.items() if data.startswith(begins)), None)
    if suffix is None:
        raise ItemError(
            "unreadable_image",
            f"{where} begins with {data[:4]!r}; expected the bytes of a JPEG or PNG file",
        )
    digest = hashlib.sha256(data).hexdigest()[:40]
    name = f"{digest[:2]}/{digest}.{suffix}"
    path = folder / name
    if not path.exists():
        try:
            with whole_file(path, "wb") as file:
                file.write(data)
        except OSError as error:
            raise UserError(
                f"cannot write the image {path}: {error.strerror or error}; free space, or choose "
                "another data root with --root"
            ) from error
    return name
