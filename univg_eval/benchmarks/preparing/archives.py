"""Unpack a release's archive so that nothing leaves the target folder and no disk is filled.

An archive comes from the network, so every entry is judged before it is written:

* its path must stay below the target: no ``..``, no absolute path, no drive letter; and it must
  not be nested deeper than `MAX_DEPTH` folders;
* only files, folders and links are taken; a link must point to something inside the archive;
  device files and pipes are refused;
* the sum of the sizes, the number of entries and the ratio of unpacked to packed bytes are bound by
  `Limits`, and sizes are counted while writing, not believed;
* an encrypted, truncated or damaged archive is refused, as is one that holds a path twice.

Everything is written into a hidden folder beside the target, which is renamed when it is whole: a
killed or failed run leaves nothing that could be taken for the release. A file in the target says
which archive it came from, so that unpacking again does nothing. Owners, permissions and times in
the archive are not taken over.
"""

from __future__ import annotations

import errno
import gzip
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NoReturn, cast

from univg_eval.errors import UserError

__all__ = [
    "ARCHIVE_SUFFIXES",
    "Limits",
    "is_archive",
    "remove_unfinished",
    "unpack",
    "was_unpacked",
]

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
# No .json: readers look for annotation files by that ending.
MARKER_FILE = ".unpacked"

# The largest archives that the readers take hold tens of GB in some 10^5 images. Images hardly
# shrink when they are packed; the annotation files of masks shrink up to some thirty times.
MAX_TOTAL_BYTES = 200 * 2**30
MAX_ENTRIES = 1_000_000
MAX_RATIO = 100.0
# Making and removing folders takes a stack frame or more for each that they are nested.
MAX_DEPTH = 100
# Below this many bytes the ratio is no sign of anything: a file of zeros is no attack.
RATIO_FREE_BYTES = 256 * 2**20

_UNFINISHED = ".partial"
_BLOCK = 1 << 20
# tarfile reads a name or an extended header in one piece; none is near this size.
_LARGEST_READ = 64 * 2**20
_TAR_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may unpack to.

    Attributes:
        total_bytes: sum of the unpacked files.
        entries: files, folders and links together.
        ratio: unpacked bytes per byte of the archive, looked at above `RATIO_FREE_BYTES`.
    """

    total_bytes: int = MAX_TOTAL_BYTES
    entries: int = MAX_ENTRIES
    ratio: float = MAX_RATIO

    def times(self, factor: float) -> Limits:
        """All limits multiplied; UserError for a factor below 1 or beyond a million."""
        if not 1 <= factor <= 1e6:
            raise UserError(
                f"the factor for the archive limits is {factor!r}; expected 1 or more, up to 1e6"
            )
        return Limits(
            int(self.total_bytes * factor), int(self.entries * factor), self.ratio * factor
        )


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Whether the name ends like that of an archive that `unpack` reads."""
    return Path(path).name.lower().endswith(ARCHIVE_SUFFIXES)


Progress = Callable[[int, int], None]


def unpack(
    archive: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Path:
    """Unpack an archive into a folder of its own.

    Args:
        archive: a ``.zip``, ``.tar``, ``.tar.gz`` or ``.tgz`` file.
        target: the folder to make. If it was made from the same archive (same name, size and time
            of change) it is returned as it is; if from another one, it is replaced.
        limits: see `Limits`; its defaults if None.
        progress: called with (bytes done, bytes in all) now and then.

    Returns:
        The target folder.

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
                f"{target} exists, but no earlier run unpacked {archive.name} to it "
                f"({MARKER_FILE} is missing); move it away"
            )
    unfinished = target.with_name(f".{target.name}{_UNFINISHED}")
    with _writing(archive, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir()
    try:
        with _writing(archive, target):
            writer = _Writer(archive, unfinished, limits or Limits())
            if archive.name.lower().endswith(".zip"):
                _unpack_zip(archive, writer, progress)
            else:
                _unpack_tar(archive, writer, progress)
            (unfinished / MARKER_FILE).write_text(json.dumps(identity) + "\n", encoding="utf-8")
            if target.exists():
                shutil.rmtree(target)
            unfinished.rename(target)
    finally:
        # Links are not followed.
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def was_unpacked(archive: str | os.PathLike[str], target: str | os.PathLike[str]) -> bool | None:
    """Whether `unpack` made a folder from this archive, or from another one; None: from none.

    Raises:
        UserError: the archive cannot be read.
    """
    found = _read_marker(Path(target))
    return None if found is None else found == _identity(Path(archive))


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs of `unpack` left of targets that were to stand in `folder`."""
    for unfinished in folder.glob(f".*{_UNFINISHED}"):
        shutil.rmtree(unfinished, ignore_errors=True)


def _identity(archive: Path) -> dict[str, str | int]:
    if not is_archive(archive):
        raise UserError(
            f"{archive}: expected an archive named {', '.join('*' + s for s in ARCHIVE_SUFFIXES)}; "
            "unpack other forms yourself and give the folder"
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
        marker = json.loads((target / MARKER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


@contextmanager
def _writing(archive: Path, target: Path) -> Iterator[None]:
    """Tell a failure of the disk as what it is."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            remedy = "Its names do not fit this file system: unpack it elsewhere, give the folder"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free space or choose another data root with --root"
        else:
            remedy = "Choose a data root that can be written, with --root"
        raise UserError(
            f"cannot unpack {archive} to {target}: {error.strerror or error}; nothing of it was "
            f"kept. {remedy}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of an archive; `link` is what a link points to."""

    name: str
    kind: Literal["file", "folder", "link", "hard link", "other"]
    size: int = 0
    link: str = ""


_DRIVE = re.compile(r"[A-Za-z]:")


class _Writer:
    """Judges entries and writes them below a folder; links last, so nothing goes through one."""

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self.archive = archive
        self.packed = archive.stat().st_size
        self.folder = folder
        self.limits = limits
        self.total = 0
        self.entries = 0
        self._files: set[PurePosixPath] = set()
        self._folders: set[PurePosixPath] = {PurePosixPath()}
        self._links: dict[PurePosixPath, _Entry] = {}

    def refuse(self, what: str, remedy: str = "Get the archive again from its source") -> NoReturn:
        raise UserError(f"{self.archive}: {what}; nothing was unpacked. {remedy}".rstrip())

    def check_room(self, more: int) -> None:
        """Refuse before or while writing, when the sizes go beyond the limits."""
        size = self.total + more
        if size > self.limits.total_bytes:
            self.refuse(
                f"unpacks to {_bytes(size)} or more; the limit is "
                f"{_bytes(self.limits.total_bytes)}",
                _RAISE,
            )
        if size > RATIO_FREE_BYTES and size > self.limits.ratio * self.packed:
            self.refuse(
                f"unpacks to {size / max(self.packed, 1):.0f} times its size of "
                f"{_bytes(self.packed)} or more; the limit is {self.limits.ratio:g} times, beyond "
                "which an archive looks like one made to fill a disk",
                _RAISE,
            )

    def check_entries(self, number: int) -> None:
        if number > self.limits.entries:
            self.refuse(f"holds more than {self.limits.entries} entries, the limit", _RAISE)

    def add(self, entry: _Entry, open_file: Callable[[], IO[bytes]]) -> None:
        """Write one entry, or keep a link for `finish`."""
        self.entries += 1
        self.check_entries(self.entries)
        path = self._checked_path(entry.name)
        if path.parts[:1] == ("__MACOSX",):  # what the Finder adds to every zip
            self.check_room(entry.size)
            self.total += entry.size
            return
        if entry.kind == "folder":
            self._make_folder(path)
            return
        if entry.kind == "other":
            self.refuse(f"entry {entry.name!r} is neither file, folder nor link (a device or pipe)")
        if path in self._files or path in self._links:
            self.refuse(f"entry {entry.name!r} stands twice")
        if path in self._folders:
            self.refuse(f"entry {entry.name!r} is a file and a folder")
        self._make_folder(path.parent)
        if entry.kind in ("link", "hard link"):
            self._links[path] = entry
            return
        self._files.add(path)
        self._write(path, entry, open_file)

    def _checked_path(self, name: str) -> PurePosixPath:
        unified = name.replace("\\", "/")
        path = PurePosixPath(unified)
        if (
            "\0" in name
            or path.is_absolute()
            or _DRIVE.match(unified)
            or ".." in path.parts
            or path.parts[:1] == (MARKER_FILE,)
        ):
            self.refuse(
                f"entry {name!r} would be written outside of the target folder or over its marker",
                "Archives of releases hold no such path: do not trust this one",
            )
        if len(path.parts) > MAX_DEPTH:
            self.refuse(
                f"entry {name[:80]!r}… is nested {len(path.parts)} folders deep; the limit is "
                f"{MAX_DEPTH}",
                "Archives of releases hold no such path: do not trust this one",
            )
        return path

    def _make_folder(self, path: PurePosixPath) -> None:
        if path in self._folders:
            return
        for folder in (path, *path.parents):
            if folder in self._files or folder in self._links:
                self.refuse(f"path {str(path)!r} goes through {str(folder)!r}, which is no folder")
        self._folders.update((path, *path.parents))
        (self.folder / path).mkdir(parents=True, exist_ok=True)

    def _write(
        self, path: PurePosixPath, entry: _Entry, open_file: Callable[[], IO[bytes]]
    ) -> None:
        self.check_room(entry.size)
        written = 0
        with open_file() as source, (self.folder / path).open("xb") as file:
            while block := source.read(_BLOCK):
                written += len(block)
                if written > entry.size:
                    break
                self.total += len(block)
                file.write(block)
        if written != entry.size:
            self.refuse(
                f"entry {entry.name!r} announces {entry.size} bytes but holds "
                f"{'more' if written > entry.size else written}: the archive is damaged or made up"
            )

    def finish(self) -> None:
        """Make the links, and look where they lead on the disk."""
        for path, entry in self._links.items():
            if entry.kind == "hard link":
                source = self._checked_path(entry.link)
                if source not in self._files:
                    self._refuse_link(entry)
                size = (self.folder / source).stat().st_size
                self.check_room(size)
                self.total += size
                shutil.copyfile(self.folder / source, self.folder / path)
                continue
            if _DRIVE.match(entry.link) or PurePosixPath(entry.link).is_absolute():
                self._refuse_link(entry)
            (self.folder / path).symlink_to(entry.link)
        root = self.folder.resolve()
        for path, entry in self._links.items():
            try:
                leads_to = (self.folder / path).resolve(strict=True)
            except (OSError, RuntimeError):  # nowhere, or round in a circle
                self._refuse_link(entry)
            if not leads_to.is_relative_to(root):
                self._refuse_link(entry)

    def _refuse_link(self, entry: _Entry) -> NoReturn:
        self.refuse(
            f"entry {entry.name!r} is a link to {entry.link!r}; expected links to files of the "
            "archive only",
            "Archives of releases hold no such link: do not trust this one",
        )


_RAISE = "If you trust the archive, raise the limits with --raise-limits 10"
_HALF = (
    "It is damaged or only half downloaded: compare its size with the source's, and download it "
    "again"
)


def _bytes(number: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def _unpack_zip(archive: Path, writer: _Writer, progress: Progress | None) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            infos = file.infolist()
            writer.check_entries(len(infos))
            total = sum(info.file_size for info in infos)
            writer.check_room(total)
            _require_free(writer, total)
            for info in infos:
                entry = _zip_entry(writer, file, info)
                writer.add(entry, partial(file.open, info))
                if progress is not None:
                    progress(writer.total, total)
            writer.finish()
    except NotImplementedError as error:
        writer.refuse(
            f"cannot be read by Python's zipfile ({error})", "Unpack it with another program"
        )
    except UserError:  # which is a ValueError
        raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        # ValueError: names that are no UTF-8, links with a NUL.
        writer.refuse(f"not a whole zip file ({error})", _HALF)
    except OSError as error:
        if error.errno is not None:
            raise
        writer.refuse(f"not a whole zip file ({error})", _HALF)  # from bz2


def _require_free(writer: _Writer, needed: int) -> None:
    free = shutil.disk_usage(writer.folder).free
    if needed > free:
        writer.refuse(
            f"needs {_bytes(needed)}, but the disk of {writer.folder.parent} has {_bytes(free)} "
            "left",
            "Free space or choose another data root with --root",
        )


_ENCRYPTED = 0x1
_UTF8_NAME = 0x800


def _zip_entry(writer: _Writer, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry:
    name = info.orig_filename
    if not info.flag_bits & _UTF8_NAME:
        # zipfile reads such names as code page 437; most of today's programs wrote UTF-8.
        try:
            name = name.encode("cp437").decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError):
            name = info.orig_filename
    if info.flag_bits & _ENCRYPTED:
        writer.refuse(
            f"entry {name!r} is encrypted", "Unpack it with its password and give the folder"
        )
    mode = info.external_attr >> 16
    if name.endswith(("/", "\\")):
        return _Entry(name, "folder")
    if stat.S_ISLNK(mode):
        if info.file_size > _TAR_BLOCK * 8:
            writer.refuse(f"entry {name!r} is a link of {info.file_size} bytes")
        return _Entry(name, "link", link=os.fsdecode(file.read(info)))
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return _Entry(name, "other")
    return _Entry(name, "file", info.file_size)


class _Stream:
    """The unpacked bytes of a tar file, for tarfile; refuses to read a huge piece at once."""

    def __init__(self, file: IO[bytes], writer: _Writer) -> None:
        self._file = file
        self._writer = writer

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            self._writer.refuse(f"holds a header of {size} bytes: it is damaged or made up")
        return self._file.read(size)

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def tell(self) -> int:
        return self._file.tell()


def _unpack_tar(archive: Path, writer: _Writer, progress: Progress | None) -> None:
    try:
        with archive.open("rb") as packed, _decompressed(archive, packed) as unpacked:
            stream = _Stream(unpacked, writer)
            with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r:") as file:
                for info in file:
                    writer.add(_tar_entry(info), partial(_open_tar_entry, file, info))
                    # tarfile would keep every header.
                    file.members.clear()  # type: ignore[attr-defined]
                    if progress is not None:
                        progress(packed.tell(), writer.packed)
                _require_end(stream, file.offset)
            writer.finish()
    except UserError:  # which is a ValueError
        raise
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, ValueError) as error:
        # ValueError: numbers in extended headers that are none.
        writer.refuse(f"not a whole tar file ({error})", _HALF)


@contextmanager
def _decompressed(archive: Path, packed: IO[bytes]) -> Iterator[IO[bytes]]:
    if archive.name.lower().endswith(".tar"):
        yield packed
    else:
        with gzip.GzipFile(fileobj=packed) as unpacked:
            yield cast(IO[bytes], unpacked)


def _open_tar_entry(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    opened = file.extractfile(info)
    assert opened is not None, info.name  # only called for files
    return opened


def _tar_entry(info: tarfile.TarInfo) -> _Entry:
    if info.isfile():
        return _Entry(info.name, "file", info.size)
    if info.isdir():
        return _Entry(info.name, "folder")
    if info.issym():
        return _Entry(info.name, "link", link=info.linkname)
    if info.islnk():
        return _Entry(info.name, "hard link", link=info.linkname)
    return _Entry(info.name, "other")


def _require_end(stream: _Stream, offset: int) -> None:
    """Hold that the file goes on to its end mark; tarfile takes a cut or broken one for the end.

    Reading on makes gzip compare its checksum.
    """
    stream.seek(offset)
    if stream.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
        raise EOFError("no end mark where the entries end")
    read = 0
    while block := stream.read(_BLOCK):
        read += len(block)
        if read > _LARGEST_READ:
            raise EOFError("more bytes follow the end mark")
