"""From an opened release to a benchmark in the data root: resumable, and all or nothing.

Every converted item becomes one line of a journal in a hidden work folder of the data root
(``<root>/.preparing/<benchmark>/journal.jsonl``), so that a run that is killed at any moment is
taken up by the next one, which converts only what is missing. The journal's first line says what it
was made from: the release's own facts (files with their SHA-256, revision, options), the folders of
its images, and the code of the readers. If any of these differ, it is begun anew. An item is
converted again if one of its image files, the folder of its video, or another of its inputs (see
`release.Item`) has changed since.

A benchmark that is already in the data root is touched last, when the new files are whole on the
disk: three renames put links, samples and manifest in place. After that the journal is removed, so
that preparing a finished benchmark again converts everything again (images may have been replaced)
and gives the same fingerprint from the same data.

Faulty items are collected and reported together. Unless they are to be left out, nothing is
prepared: a benchmark without some of its rows is another benchmark.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import univg_eval
from univg_eval.benchmarks.readers.common.release import (
    FAULT_KINDS,
    FaultKind,
    Item,
    ItemError,
    Release,
)
from univg_eval.errors import UserError
from univg_eval.files import LONGEST_LINE, Journal, file_lock, printable, writing
from univg_eval.images.reading import split_reference
from univg_eval.samples import (
    MANIFEST_FILE,
    SAMPLES_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    load_manifest,
    readable_manifest,
    write_benchmark,
)

__all__ = [
    "Fault",
    "FaultyReleaseError",
    "Prepared",
    "prepare_release",
    "preparing",
]

WORK_FOLDER = ".preparing"
JOURNAL_FILE = "journal.jsonl"
TEMPORARY_FOLDER = ".new"
JOURNAL_FORM = 1
# Every item is handed to the system at once and so survives a kill; this is for a power cut.
SYNC_SECONDS = 1.0
SHOWN_FAULTS = 3
KEPT = "What was converted so far is kept and taken up by the next run"

Progress = Callable[[int, int], None]
ManifestExtra = Callable[[Sequence[GroundingSample]], Mapping[str, Any]]
_Stamps = dict[str, list[int]]
_Done = dict[str, tuple[list[Any], _Stamps]]
"""Rows and stamps of the items that an earlier run has converted, by key."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An item that could not be converted.

    Attributes:
        item: its key in the release.
        kind: one of `release.FAULT_KINDS`.
        message: what was expected and found.
    """

    item: str
    kind: FaultKind
    message: str

    def to_dict(self) -> dict[str, str]:
        """As plain JSON values; what is no Unicode text, as a file's name may be, is escaped."""
        return {"item": _escaped(self.item), "kind": self.kind, "message": _escaped(self.message)}


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A benchmark that was put into the data root.

    Attributes:
        folder: ``<root>/<benchmark>``.
        manifest: what its manifest.json holds.
        resumed: how many items an earlier, interrupted run had already converted.
        replaced: the manifest of the benchmark that was there before; empty if there was none.
    """

    folder: Path
    manifest: Mapping[str, Any]
    resumed: int
    replaced: Mapping[str, Any]


class FaultyReleaseError(UserError):
    """Items of a release are faulty, so nothing was prepared.

    Attributes:
        faults: all of them, in the order of the items.
    """

    def __init__(self, message: str, faults: Sequence[Fault]) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


@contextmanager
def preparing(benchmark: str, root: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """Hold the benchmark's work folder for this process alone; yields the folder.

    Raises:
        UserError: another process prepares the benchmark in this data root, or the data root
            cannot be written.
    """
    base = data_root(root)
    work = base / WORK_FOLDER
    path = work / f"{benchmark}.lock"
    with ExitStack() as stack:
        try:
            with writing(base):
                lock = stack.enter_context(file_lock(path, wait=False))
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n".encode())
        except UserError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            raise UserError(
                f"another `univg prepare {benchmark}` is at work in the data root {base} (process "
                f"{path.read_text(encoding='utf-8').strip() or 'unknown'}); wait until it has "
                "finished, or stop it: what it has done is kept"
            ) from None
        yield work / benchmark


def prepare_release(
    release: Release,
    *,
    root: str | os.PathLike[str] | None = None,
    skip_faulty: bool = False,
    progress: Progress | None = None,
    manifest_extra: ManifestExtra | None = None,
) -> Prepared:
    """Convert a release and put it into the data root as a benchmark.

    Args:
        release: opened by a reader.
        root: the data root; default as in `samples.data_root`.
        skip_faulty: leave faulty items out, list them in the manifest under ``skipped`` and set
            its ``complete`` to false; otherwise any faulty item means that nothing is prepared.
        progress: called with (items done, items in all).
        manifest_extra: makes further keys of the manifest from all samples, such as an audit.

    Raises:
        FaultyReleaseError: items are faulty (counts by kind, the first of each kind).
        UserError: no item is sound; a folder is where a link has to be, or a file of somebody else
            where one of the benchmark has to be; the data root cannot be written; or another
            process prepares the benchmark. An earlier benchmark then stays as it was.
    """
    folder = benchmark_dir(release.benchmark, root)
    links = {folder / name: Path(target).resolve() for name, target in release.links.items()}
    with preparing(release.benchmark, root) as work:
        for link, target in links.items():
            _require_linkable(link, target)
        _require_own_files(folder, release.benchmark)
        rows, faults, resumed = _convert_all(release, data_root(root), work, progress)
        if faults and (not rows or not skip_faulty):
            raise FaultyReleaseError(_faults_message(release, faults), faults)
        if not rows:
            raise UserError(
                f"benchmark {release.benchmark!r}: the release holds no items; nothing was made"
            )
        samples = [GroundingSample.from_dict(row, where=where) for where, row in rows]
        extra = {
            "source": dict(release.source),
            "splits": dict(Counter(sample.split for sample in samples)),
            "complete": not faults,
            "skipped": [fault.to_dict() for fault in faults],
            **(manifest_extra(samples) if manifest_extra is not None else {}),
        }
        with writing(data_root(root), kept=KEPT):
            with _temporary_folder(folder) as new:
                made = write_benchmark(
                    samples, benchmark=release.benchmark, root=new, manifest_extra=extra
                )
                replaced = readable_manifest(release.benchmark, root)
                _put_in_place(made, folder, links)
            shutil.rmtree(work)
    return Prepared(folder, load_manifest(release.benchmark, root), resumed, replaced)


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder in the benchmark's own, which may be a link to, or a mount of, another disk.

    A benchmark's folder that is empty afterwards goes too.
    """
    new = folder / TEMPORARY_FOLDER
    if new.exists():  # of a run that was killed
        shutil.rmtree(new)
    new.mkdir(parents=True)
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()


# Converting


def _convert_all(
    release: Release, base: Path, work: Path, progress: Progress | None
) -> tuple[list[tuple[str, Any]], list[Fault], int]:
    """The rows of all samples with where they come from, the faults, and the items resumed."""
    faults: list[Fault] = []
    rows: list[tuple[str, Any]] = []
    seen: set[str] = set()
    resumed = 0
    with _journal(work) as journal:
        identity = _identity(release)
        with writing(work):
            done = _take_up(journal, identity)
        for number, item in enumerate(release.items):
            if progress is not None:
                progress(number, len(release.items))
            if item.key in seen:
                raise UserError(
                    f"benchmark {release.benchmark!r}: the item {item.key!r} is a duplicate in the "
                    "release; give each item a key of its own"
                )
            seen.add(item.key)
            earlier, stamps = done.get(item.key, ([], None))
            if stamps is not None and stamps == _stamps(release, base, item, earlier):
                converted = earlier
                resumed += 1
            else:
                try:
                    converted = _convert(item)
                except ItemError as error:
                    faults.append(Fault(item.key, error.kind, str(error)))
                    continue
                stamps = _stamps(release, base, item, converted)
                with writing(work, kept=KEPT):
                    journal.append({"item": item.key, "rows": converted, "stamps": stamps})
            rows.extend((f"item {item.key}", row) for row in converted)
        if progress is not None:
            progress(len(release.items), len(release.items))
    return rows, faults, resumed


@contextmanager
def _journal(work: Path) -> Iterator[Journal]:
    with ExitStack() as stack:
        with writing(work):
            journal = stack.enter_context(Journal(work / JOURNAL_FILE, sync_seconds=SYNC_SECONDS))
        yield journal


def _convert(item: Item) -> list[Any]:
    """The rows of an item's samples as read from a file, so that resumed rows are the same.

    Raises:
        ItemError: from the reader; or ``invalid_row`` for what no file could hold.
    """
    rows = [sample.to_dict() for sample in item.convert()]
    try:
        text = json.dumps(rows, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    # A surrogate is a ValueError; what Parquet holds and JSON does not, such as bytes, a TypeError.
    except (ValueError, TypeError) as error:
        raise ItemError("invalid_row", f"cannot be written as JSON: {error}") from error
    read: list[Any] = json.loads(text)
    return read


def _stamps(release: Release, base: Path, item: Item, rows: list[Any]) -> _Stamps:
    """Size and time of change of what an item was made from; what is replaced is looked at again.

    That of a folder of frames changes when one is added: places in a video are counted in it.
    """
    stamps: _Stamps = {}
    paths = {split_reference(image)[0] for row in rows for image in row["images"]}
    paths |= {video for row in rows if isinstance(video := row.get("extra", {}).get("video"), str)}
    places = {}
    for path in paths:
        _, _, rest = path.partition("/")
        link, _, inner = rest.partition("/")
        # The link itself may still be that of an earlier benchmark, or not be there yet.
        place = f"{release.links[link]}/{inner}" if link in release.links else f"{base}/{path}"
        places[path] = place
    with suppress(ItemError):  # what was there is gone: the stamps differ
        places |= {printable(path): str(path) for path in item.inputs()}
    for path, place in places.items():
        try:
            state = os.stat(place)  # noqa: PTH116 (speed)
        except OSError:
            continue  # no stamp differs from any stamp
        stamps[path] = [state.st_size, state.st_mtime_ns]
    return stamps


def _identity(release: Release) -> dict[str, Any]:
    """What the converted items depend on; a journal of another identity is of no use.

    Raises:
        UserError: a name in the release is no text.
    """
    identity = {
        "form": JOURNAL_FORM,
        "benchmark": release.benchmark,
        "n_items": len(release.items),
        "source": dict(release.source),
        "links": {name: printable(Path(to).resolve()) for name, to in release.links.items()},
        "code": _code_sha256(),
    }
    text = json.dumps(identity, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"benchmark {release.benchmark!r}: a file name of the release, "
            f"{text[max(0, error.start - 40) : error.end + 40]!r}, is no text in this system's "
            "encoding; rename the file, or set a locale with UTF-8 (LC_ALL=C.UTF-8)"
        ) from error
    read: dict[str, Any] = json.loads(text)
    return read


# What makes the samples: the readers, and what they use of the package.
_CODE = ("benchmarks", "images", "boxes.py", "samples.py")


def _code_sha256() -> str:
    """SHA-256 over the modules of the readers: items of two versions must not be mixed."""
    digest = hashlib.sha256()
    package = Path(univg_eval.__file__).parent
    for part in _CODE:
        place = package / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            name = path.relative_to(package).as_posix()
            digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _take_up(journal: Journal, identity: Mapping[str, Any]) -> _Done:
    """The items of a journal of this identity; one of another identity is begun anew.

    What follows a damaged line is cut off.
    """
    done: _Done = {}
    begun = False
    for place, line in journal.lines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not begun:
            begun = value == {"identity": identity}
            good = begun
        else:
            good = isinstance(value, dict) and [
                type(value.get(name)) for name in ("item", "rows", "stamps")
            ] == [str, list, dict]
        if not good:
            journal.cut(place)
            break
        if "item" in value:
            done[value["item"]] = (value["rows"], value["stamps"])
    if not begun:
        journal.append({"identity": identity})
    return done


def _faults_message(release: Release, faults: Sequence[Fault]) -> str:
    by_kind: dict[FaultKind, list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(fault)
    lines = [
        f"benchmark {release.benchmark!r}: {len(faults)} of {len(release.items)} items are faulty, "
        "so nothing was prepared"
    ]
    for kind in FAULT_KINDS:
        group = by_kind.get(kind, [])
        if group:
            lines.append(f"  {len(group)} {kind}: {FAULT_KINDS[kind]}")
            # Items that lack one file all say so: once is enough.
            shown = list({fault.message: fault for fault in reversed(group)}.values())[::-1]
            shown = shown[:SHOWN_FAULTS]
            lines += [f"    {fault.item}: {fault.message}" for fault in shown]
            if len(group) > len(shown):
                lines.append(f"    … and {len(group) - len(shown)} more items")
    lines.append(
        "Repair or fetch them again and run the same command: the sound items are kept (unless an "
        "annotation file changes) and not converted again. Or prepare the sound ones alone with "
        "--skip-faulty; the benchmark is then marked as not complete"
    )
    return "\n".join(lines)


# Putting it in place


def _require_linkable(link: Path, target: Path) -> None:
    """Refuse before the work what would fail after it."""
    if not target.is_dir():
        raise UserError(
            f"the folder of images {target} does not exist; give the folder that the release's "
            "images were unpacked to with --images"
        )
    if link.exists() and not link.is_symlink() and link.resolve() != target:
        raise UserError(
            f"{link} exists and is not a link, but the images are in {target}; move it away, or "
            f"use it with --images {link}"
        )


def _require_own_files(folder: Path, benchmark: str) -> None:
    """Refuse to replace files that no run has written; one that is no JSON a power cut has left."""
    for name in (SAMPLES_FILE, MANIFEST_FILE):
        path = folder / name
        try:
            with path.open("rb") as file:
                text = file.readline(LONGEST_LINE + 1) if name == SAMPLES_FILE else file.read()
                value = json.loads(text) if len(text) <= LONGEST_LINE else None
        except (FileNotFoundError, ValueError, RecursionError):
            continue
        except OSError as error:
            raise UserError(
                f"cannot read {path}: {error.strerror or error}; move it away: the benchmark needs "
                "its place"
            ) from error
        if not isinstance(value, dict) or value.get("benchmark") != benchmark:
            raise UserError(
                f"{path} is not of the prepared benchmark {benchmark!r}, which needs its place; "
                "move it away, or choose another data root with --root"
            )


def _put_in_place(made: Path, folder: Path, links: Mapping[Path, Path]) -> None:
    """Replace links, samples and manifest; between these renames there is no manifest.

    A reader thus sees the old benchmark, none, or the new one, but never a mixture.
    """
    new_links = {}
    for number, (link, target) in enumerate(links.items()):
        if link.exists() and not link.is_symlink():
            continue  # the images lie here themselves
        temporary = made / f"link-{number}"
        temporary.symlink_to(_link_text(folder, target), target_is_directory=True)
        new_links[link] = temporary
    for path in (made / SAMPLES_FILE, made / MANIFEST_FILE):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    for link, temporary in new_links.items():
        temporary.replace(link)
    (made / SAMPLES_FILE).replace(folder / SAMPLES_FILE)
    (made / MANIFEST_FILE).replace(folder / MANIFEST_FILE)


def _link_text(folder: Path, target: Path) -> str:
    """Relative where the images lie in the benchmark's own folder, so that it can be moved."""
    base = folder.resolve()
    if target.is_relative_to(base):
        return target.relative_to(base).as_posix()
    return str(target)
