"""Unpack a release's archive: whole or not at all, inside its folder, without filling the disk.

An archive comes from the network, so each entry is checked before it is written: its path stays
inside the target, it is a file or a folder (links, devices and pipes are refused), and the sum of
the sizes fits the free space and `MAX_TOTAL_BYTES`; tarfile and zipfile write no more than the size
that an entry states. Owners, permissions and times are not taken over.
"""

from __future__ import annotations

import errno
import json
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NoReturn

from univg_eval.errors import UserError
from univg_eval.files import read_json, whole_folder, writing

__all__ = ["ARCHIVE_SUFFIXES", "is_archive", "unpack", "was_unpacked"]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# No .json: readers look for annotation files by that ending.
MARKER_FILE = ".unpacked"
# Several times the largest release that the readers take.
MAX_TOTAL_BYTES = 200 * 2**30
# os.makedirs and shutil.rmtree recurse into each folder.
MAX_DEPTH = 100

# A file that is another's folder, one without a name, a name longer than the disk takes.
_OF_NAMES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)

Progress = Callable[[int, int], None]

_BY_HAND = "unpack it with another program and give the folder"
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,  # without an errno: from gzip and bz2
    ValueError,  # names that are not UTF-8, numbers that are none
)


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether the name ends like that of an archive that `unpack` reads."""
    return Path(path).name.lower().endswith(ARCHIVE_SUFFIXES)


def unpack(
    archive: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> Path:
    """Unpack an archive into a folder of its own, which appears when it is whole.

    Args:
        archive: a ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz`` file.
        target: the folder to make. If it was made from the same archive (same name, size and time
            of change) it is returned as it is; if from another one, it is replaced.
        progress: called with (bytes of the archive done, its size) before each entry.

    Raises:
        UserError: the archive is missing, truncated, damaged, encrypted, or breaks a rule of this
            module; the target is a folder that was not unpacked here; the disk is full. Nothing
            of the archive is left then.
    """
    archive, target = Path(archive), Path(target)
    identity = _identity(archive)
    if target.exists():
        found = _read_marker(target)
        if found == identity:
            return target
        if found is None:
            raise UserError(
                f"{target} exists, but was not unpacked from {archive.name} ({MARKER_FILE} is "
                "missing); move it away"
            )
    entries = _zip_entries if archive.name.lower().endswith(".zip") else _tar_entries
    kept = "Nothing was unpacked"
    with writing(target, kept=kept), whole_folder(target) as folder, _reading(archive):
        _write(entries(archive), archive, folder, progress)
        (folder / MARKER_FILE).write_text(json.dumps(identity) + "\n", encoding="utf-8")
    return target


def was_unpacked(archive: str | os.PathLike[str], target: str | os.PathLike[str]) -> bool | None:
    """Whether `unpack` made a folder from this archive, or from another one; None: from none.

    Raises:
        UserError: the archive cannot be read.
    """
    found = _read_marker(Path(target))
    return None if found is None else found == _identity(Path(archive))


def _identity(archive: Path) -> dict[str, str | int]:
    if not is_archive(archive):
        raise UserError(
            f"{archive}: expected an archive named {', '.join('*' + s for s in ARCHIVE_SUFFIXES)}; "
            + _BY_HAND
        )
    try:
        state = archive.stat()
    except OSError as error:
        raise UserError(f"cannot read the archive {archive}: {error.strerror or error}") from error
    if not stat.S_ISREG(state.st_mode):
        raise UserError(f"{archive} is not a file; expected an archive")
    return {"archive": archive.name, "size": state.st_size, "mtime_ns": state.st_mtime_ns}


def _read_marker(target: Path) -> dict[str, str | int] | None:
    try:
        marker = read_json(target / MARKER_FILE)
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _refuse(archive: Path, what: str, remedy: str) -> NoReturn:
    raise UserError(f"{archive}: {what}; nothing was unpacked: {remedy}")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of an archive; `place` is how far into the archive it lies, in bytes."""

    name: str
    size: int
    is_file: bool
    is_folder: bool
    place: int
    open: Callable[[], IO[bytes] | None]


def _write(
    entries: Iterator[_Entry], archive: Path, folder: Path, progress: Progress | None
) -> None:
    free = shutil.disk_usage(folder).free
    packed = archive.stat().st_size
    total = 0
    for entry in entries:
        if progress is not None:
            progress(min(entry.place, packed), packed)
        path = _inside(entry, archive)
        if path.parts[:1] == ("__MACOSX",):  # what the Finder adds to every zip
            continue
        if entry.is_folder:
            (folder / path).mkdir(parents=True, exist_ok=True)
            continue
        total += entry.size
        if total > min(free, MAX_TOTAL_BYTES):
            _refuse(
                archive,
                f"unpacks to {total} bytes or more; the disk has {free} bytes left, and the limit "
                f"is {MAX_TOTAL_BYTES}",
                f"free space, choose another data root with --root, or {_BY_HAND}",
            )
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        source = entry.open()
        assert source is not None, entry.name  # only None for what is no file
        with source, (folder / path).open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)


def _inside(entry: _Entry, archive: Path) -> PurePosixPath:
    """The path of an entry below the target, checked."""
    name = entry.name.replace("\\", "/")  # some programs on Windows
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":" or "\0" in name:
        _refuse(archive, f"entry {entry.name!r} lies outside of the target", "do not trust it")
    if len(path.parts) > MAX_DEPTH:
        _refuse(
            archive, f"entry {name[:40]!r}… is nested {len(path.parts)} deep", "do not trust it"
        )
    if not entry.is_file and not entry.is_folder:
        _refuse(archive, f"entry {entry.name!r} is a link, a device or a pipe", _BY_HAND)
    return path


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Report what the libraries raise for a damaged archive."""
    try:
        yield
    except UserError:  # which is a ValueError
        raise
    except RuntimeError as error:  # encrypted, or a compression that zipfile does not know
        _refuse(archive, str(error), _BY_HAND)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _OF_NAMES:
            _refuse(archive, f"the names of its entries do not fit ({error})", _BY_HAND)
        if isinstance(error, OSError) and error.errno is not None:
            raise
        _refuse(
            archive,
            f"not a whole archive ({error})",
            "it is damaged or only half downloaded; compare its size with the source's and "
            "download it again",
        )


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = info.orig_filename
            if not info.flag_bits & 0x800:
                # Without this flag zipfile reads code page 437; most programs write UTF-8 anyway.
                with suppress(UnicodeError):
                    name = name.encode("cp437").decode("utf-8")
            is_folder = name.endswith(("/", "\\"))
            is_file = not is_folder and kind in (0, stat.S_IFREG)
            opener = partial(file.open, info)
            yield _Entry(name, info.file_size, is_file, is_folder, info.header_offset, opener)


def _tar_entries(archive: Path) -> Iterator[_Entry]:
    is_plain = archive.name.lower().endswith(".tar")
    mode: Literal["r:", "r:gz"] = "r:" if is_plain else "r:gz"
    with archive.open("rb") as packed, tarfile.open(fileobj=packed, mode=mode) as file:
        for info in file:
            opener = partial(file.extractfile, info)
            yield _Entry(info.name, info.size, info.isfile(), info.isdir(), packed.tell(), opener)
        # tarfile takes a cut or broken header for the end; reading on makes gzip compare its sum.
        assert file.fileobj is not None
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise EOFError("no end mark where the entries end")
        while file.fileobj.read(1 << 20):
            pass
