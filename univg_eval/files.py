"""Files that appear whole or not at all, locks, journals, JSON Lines, and installed data files.

The one place that knows how a file or a folder is put in its place: written beside it under a
temporary name and renamed when whole, with the permissions that the user's umask asks for.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, files
from io import RawIOBase
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any, Literal, Self

import univg_eval
from univg_eval.errors import UserError

__all__ = [
    "CHECKSUMS",
    "LONGEST_LINE",
    "NO_ROOM",
    "SUMS",
    "Journal",
    "data_folder",
    "file_lock",
    "file_sha256",
    "iter_json_lines",
    "numbered_lines",
    "parse_yaml",
    "path_lock",
    "printable",
    "read_json",
    "read_yaml",
    "refuse_nan",
    "require_writable",
    "verify_sums",
    "whole_file",
    "whole_folder",
    "write_sums",
    "write_text_atomically",
    "writing",
]

_DATA_FILES = ("share", "univg")
"""Where a wheel puts its data files, below the prefix of its installation."""


CHECKSUMS = "checksums.json"
"""The file that marks a folder as a run record: SHA-256 of its other files, by name."""
SUMS = "SHA256SUMS"
"""The file with the SHA-256 of the others in a folder, as ``sha256sum --check`` reads it."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError where a disk, a quota or a limit of files is used up."""
_PART = ".part"
_UNSURE_SECONDS = 10.0
"""Age below which a part without a lock may be one that its process is about to lock."""


def _mode(plain: int) -> int:
    """The permissions that a new file or folder gets under the umask of this process."""
    umask = os.umask(0)
    os.umask(umask)
    return plain & ~umask


def _replaceable(path: Path, what: Literal["file", "folder"]) -> Path:
    """The place that is replaced: behind a link that of what it names, and the link stays.

    Raises:
        OSError: something else is there, such as a device, a pipe, or a folder for a file; or a
            file of a run record, which is never changed.
    """
    place = Path(os.path.realpath(path)) if path.is_symlink() else path
    if os.path.lexists(place) and not (place.is_file() if what == "file" else place.is_dir()):
        noun = "regular file" if what == "file" else what
        raise OSError(errno.EEXIST, f"what is there is no {noun}", str(path))
    if what == "file" and _is_of_record(place):
        raise OSError(errno.EEXIST, "what is there is a file of a run record", str(path))
    return place


def _is_of_record(place: Path) -> bool:
    try:
        sums = read_json(place.parent / CHECKSUMS)
    except (OSError, ValueError):
        return False
    return place.name == CHECKSUMS or (isinstance(sums, dict) and place.name in sums)


@contextmanager
def path_lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a file or folder that is there; a killed process loses it.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
        OSError: it is not there any more, or its file system has no locks.
    """
    import fcntl

    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


@contextmanager
def _own_part(part: Path) -> Iterator[None]:
    """Mark a part as being written; on a file system without locks nobody else removes it."""
    with ExitStack() as held:
        with suppress(OSError):
            held.enter_context(path_lock(part, wait=True))
        yield


def _remove_leftovers(place: Path) -> None:
    """Remove the parts of `place` whose processes were killed: old, and locked by nobody."""
    for part in place.parent.glob(f".{glob.escape(place.name)}.????????{_PART}"):
        with suppress(OSError), path_lock(part, wait=False):
            if time.time() - part.stat().st_mtime < _UNSURE_SECONDS:
                continue
            if part.is_dir():
                shutil.rmtree(part)
            else:
                part.unlink()


@contextmanager
def whole_file(
    path: Path, mode: Literal["w", "wb"] = "w", *, sync: bool = False
) -> Iterator[IO[Any]]:
    """A file to write that takes the place of `path` at the end of the block.

    If the block raises, `path` stays as it was. The folder is made where it is missing. A link is
    followed. What killed processes left of the same file is removed.

    Args:
        path: of the file.
        mode: ``w`` for UTF-8 text, ``wb`` for bytes.
        sync: whether the content is on the disk before the file takes its place.

    Raises:
        OSError: it cannot be written, or something else than a regular file is there.
    """
    path = _replaceable(path, "file")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    handle, name = tempfile.mkstemp(_PART, f".{path.name}.", path.parent)
    temporary = Path(name)
    try:
        with _own_part(temporary):
            with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            temporary.chmod(_mode(0o666))
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, chunks: Iterable[str]) -> None:
    """Write UTF-8 text so that `path` appears only when whole; see `whole_file`."""
    with whole_file(path) as file:
        file.writelines(chunks)


@contextmanager
def whole_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """An empty folder to fill that takes the place of `path` at the end of the block.

    An older folder is removed once the new one is in its place; if the block raises, it stays
    as it was. A link is followed. What killed processes left of the same folder is removed.

    Args:
        path: of the folder.
        replace: whether it may take the place of a folder that holds something, be it one that
            another process has put there during the block.

    Raises:
        OSError: it cannot be written, or something else than a folder is there.
    """
    path = _replaceable(path, "folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    with (
        tempfile.TemporaryDirectory(
            _PART, f".{path.name}.", path.parent, ignore_cleanup_errors=True
        ) as name,
        _own_part(Path(name)),
    ):
        new, old = Path(name, "new"), Path(name, "old")
        new.mkdir(mode=_mode(0o777))
        yield new
        if not (replace and os.path.lexists(path)):
            new.rename(path)  # the system refuses where something is in the folder
            return
        path.rename(old)
        try:
            new.rename(path)
        except OSError:
            old.rename(path)
            raise


@contextmanager
def writing(
    place: Path,
    *,
    kept: str = "",
    folder: str = "data root",
    options: tuple[str, str] = ("--root", "--root or UNIVG_DATA"),
) -> Iterator[None]:
    """Report a failure to write in a folder, with what can be done and what is kept.

    Args:
        place: that is written, where the error does not say it.
        kept: said in the end.
        folder: what the user knows it as.
        options: by which another one is chosen: one of them, and all.

    Raises:
        UserError: instead of an OSError of the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            remedy = f"free space or choose another {folder} with {options[0]}"
        else:
            remedy = f"choose a {folder} that can be written, with {options[1]}"
        raise UserError(
            f"cannot write to {error.filename or place}: {error.strerror or error}; {remedy}"
            + (f". {kept}" if kept else "")
        ) from error


def require_writable(folder: Path, option: str) -> None:
    """Refuse a folder, which need not exist yet, into which nothing could be written.

    Args:
        folder: into which a long computation will write at its end.
        option: of the command that named it.

    Raises:
        UserError: it, or the nearest folder above that exists, cannot be written to.
    """
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not (os.path.isdir(place) and os.access(place, os.W_OK)):  # noqa: PTH112 (never raises)
        raise UserError(
            f"{option} {folder}: {place} is no folder that can be written to; choose another"
        )


@contextmanager
def file_lock(path: Path, *, wait: bool = True) -> Iterator[RawIOBase]:
    """Hold the lock of a file, which is made where it is missing; one process at a time has it.

    Yields:
        The open file, positioned at its end and without a buffer; the holder may note in it who it
        is.

    Raises:
        BlockingIOError: another process holds it and `wait` is False.
        OSError: the file cannot be opened, or its file system has no locks.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield file


class Journal:
    """JSON Lines that a killed process leaves readable: whole lines in order, appended only.

    A line that a kill has torn is cut off when the journal is opened again. One process at a time
    writes to it.
    """

    def __init__(self, path: Path, *, sync_seconds: float = 0.0) -> None:
        """Open or create.

        Args:
            path: of the file.
            sync_seconds: how long an appended line may wait until it is forced to the disk; with 0
                it is there when `append` returns. The last line is there when the journal closes.

        Raises:
            BlockingIOError: another process has the journal open.
            OSError: it cannot be opened.
        """
        import fcntl

        self.path = path
        self._sync_seconds = sync_seconds
        self._synced = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer: a line that was written is with the system, whatever happens here.
        self._file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Place in the file and bytes of each whole line; what follows the last one is cut off."""
        place = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    self.cut(place)
                    return
                yield place, line
                place += len(line)

    def cut(self, place: int) -> None:
        """Drop everything from this place of the file on."""
        self._file.truncate(place)

    def read(self, place: int) -> Any:
        """The value of the line that begins at this place."""
        with self.path.open("rb") as file:
            file.seek(place)
            return json.loads(file.readline())

    def append(self, value: Any) -> int:
        """Write a value as a line.

        Returns:
            The place in the file at which the line begins.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        place = self._file.seek(0, os.SEEK_END)
        data = memoryview(json.dumps(value, ensure_ascii=False).encode("utf-8") + b"\n")
        while data:  # a nearly full disk takes a part
            data = data[self._file.write(data) :]
        now = time.monotonic()
        if now - self._synced >= self._sync_seconds:
            os.fsync(self._file.fileno())
            self._synced = now
        return place


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that any file can hold; bytes in it that are no UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, no JSON, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


LONGEST_LINE = 4 * 2**20
"""Bytes of a line of JSON Lines: several times what any model writes; to read a reply of that
length takes up to 0.6 GB and a minute."""


def numbered_lines(file: IO[bytes], path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes]]:
    """Yield (1-based line number, line with its end) of an open file.

    Raises:
        UserError: a line is longer than `LONGEST_LINE`; no more than that of it is read.
    """
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{path}:{number}: the line has more than {LONGEST_LINE >> 20} MiB, the most that "
                "is read; leave it out or shorten its text, or, if the line ends are missing, "
                "write one JSON object a line"
            )
        yield number, line


def refuse_nan(name: str) -> float:
    """``parse_constant`` for `json.loads`: NaN and Infinity are Python's, JSON has none."""
    raise ValueError(f"{name} is no JSON")


def iter_json_lines(path: str | os.PathLike[str], *, nan: bool = True) -> Iterator[tuple[int, Any]]:
    """Yield (1-based line number, parsed value) of a JSON Lines file; blank lines are passed over.

    Args:
        path: of the file.
        nan: whether NaN and Infinity, which Python writes and JSON lacks, are read.

    Raises:
        UserError: the file cannot be read, is not UTF-8, or a line is not JSON or too long.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            for number, raw in numbered_lines(file, path):
                if not raw.strip():
                    continue
                try:
                    text = raw.decode("utf-8")
                    yield number, json.loads(text, parse_constant=None if nan else refuse_nan)
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path}:{number}: not UTF-8 (byte {error.start} is "
                        f"0x{raw[error.start]:02x}); convert the file to UTF-8"
                    ) from error
                except (ValueError, RecursionError) as error:
                    raise UserError(
                        f"{path}:{number}: not a JSON value ({error}); expected one JSON object a "
                        "line"
                    ) from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_yaml(path: Path, loader: Any = None) -> Any:
    """The value of a YAML file; see `parse_yaml`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not UTF-8, or see `parse_yaml`.
    """
    return parse_yaml(path.read_text(encoding="utf-8"), loader)


def parse_yaml(text: str, loader: Any = None) -> Any:
    """The value of a YAML text.

    Args:
        text: one document.
        loader: of PyYAML; None: ``SafeLoader``.

    Raises:
        ValueError: it is no YAML; or it is too long or nested too deeply, holds itself, or a few
            lines of it stand for millions of values.
    """
    import yaml

    if len(text) > _MOST_YAML_CHARACTERS:
        raise ValueError(
            f"it has {len(text):,} characters; expected no more than {_MOST_YAML_CHARACTERS:,}"
        )
    parser = None
    try:
        parser = (loader or yaml.SafeLoader)(text)
        node = parser.get_single_node()
        if node is None:
            return None
        size = _written_out(node, {})
        if size > _MOST_YAML_NODES:
            raise ValueError(f"its aliases (*name) stand for {size:,} values; write them out")
        return parser.construct_document(node)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply, or a part of it holds itself") from error
    except (AttributeError, LookupError, TypeError, OverflowError) as error:
        # PyYAML of what contradicts its own tag, such as !!int "" or !!bool maybe.
        raise ValueError(f"a value is not what its tag (!!) says: {error}") from error
    finally:
        if parser is not None:
            parser.dispose()


_MOST_YAML_NODES = 1_000_000
_MOST_YAML_CHARACTERS = 2**18
"""Many times what settings have; PyYAML takes some ten seconds for it."""
_MOST_YAML_DIGITS = 400
"""Of one number: PyYAML's time for 1:2:3, which is in base 60, grows with the square."""


def _written_out(node: Any, known: dict[int, int]) -> int:
    """Number of nodes if each alias were written out.

    Of a node that holds itself there is no such number: Python's limit of recursion ends the count.
    """
    if isinstance(node.value, str):
        if len(node.value) > _MOST_YAML_DIGITS and node.tag.endswith((":int", ":float")):
            raise ValueError(f"a number has {len(node.value):,} characters")
        return 1
    if id(node) not in known:
        parts = (part for item in node.value for part in (item if type(item) is tuple else (item,)))
        known[id(node)] = 1 + sum(_written_out(part, known) for part in parts)
    return known[id(node)]


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Write `SUMS`, of all other files in a folder and below it."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path != folder / SUMS
    )
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in names]
    write_text_atomically(folder / SUMS, lines)


def verify_sums(folder: Path) -> None:
    """Compare a folder with its `SUMS`; one without any is not looked at, nor are other files.

    Raises:
        UserError: a file was changed or is missing, or `SUMS` cannot be read or names what is not
            in the folder.
    """
    sums = folder / SUMS
    if not sums.is_file():
        return
    try:
        entries = [line.split("  ", 1) for line in sums.read_text("utf-8").splitlines()]
        for _, name in entries:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ValueError(f"{name!r} is not in the folder")
        changed = [name for digest, name in entries if _sha256_or_none(folder / name) != digest]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {sums}, or a file that it names: {error}") from error
    if changed:
        raise UserError(
            f"{folder / changed[0]} was changed or lost after it was saved ({len(changed)} of "
            f"{len(entries)} files are not as {SUMS} says); restore the folder, or delete {SUMS} "
            "where that is meant"
        )


def _sha256_or_none(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None  # a device has no end


def data_folder(
    what: str, mark: str, *, checkout: Sequence[str], wheel: Sequence[str] | None = None
) -> Path:
    """A folder of files that belong to the project but not to the package.

    A checkout (and an editable install) has it beside the package; a wheel installs it as data
    files, which the distribution's own list of files locates. ``pip install --target`` puts them
    below its target, where that list does not have them.

    Args:
        what: name of the folder in messages, such as ``task``.
        mark: name of a file that the folder has to hold.
        checkout: path of the folder below a checkout.
        wheel: its path below ``share/univg`` of an installation; that of the checkout if None.

    Raises:
        UserError: neither is there.
    """
    above = Path(univg_eval.__file__).resolve().parent.parent
    beside = above.joinpath(*checkout)
    installed_path = (*_DATA_FILES, *(checkout if wheel is None else wheel))
    for folder in (beside, above.joinpath(*installed_path)):
        if (folder / mark).is_file():
            return folder
    try:
        installed = files("univg") or []
    except PackageNotFoundError:
        installed = []
    ending = (*installed_path, mark)
    for entry in installed:
        if entry.parts[-len(ending) :] == ending:
            path = Path(str(entry.locate()))
            if path.is_file():
                return path.resolve().parent
    raise UserError(
        f"the {what} folder is missing: {beside} does not exist and the installed package "
        "does not list one; install univg again"
    )
