"""Where the files of a release are: given by the user, still in an archive, or on the Hub.

Archives are unpacked below the benchmark's folder of the data root
(``<root>/<benchmark>/unpacked/<archive>``), never beside the archive: a folder of downloads is not
written to. What an earlier archive of that name was unpacked to is left until the new set is there,
since the links of the old one lead to it; `remove_superseded` removes it then.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.preparing.archives import (
    ARCHIVE_SUFFIXES,
    is_archive,
    unpack,
    was_unpacked,
)
from univg_eval.benchmarks.preparing.download import by_hand_text, fetch
from univg_eval.benchmarks.preparing.preparation import preparing
from univg_eval.benchmarks.readers.common.entry import CatalogEntry, HubFiles
from univg_eval.errors import UserError
from univg_eval.files import printable
from univg_eval.samples import benchmark_dir

__all__ = ["Located", "locate", "remove_superseded"]

UNPACKED_FOLDER = "unpacked"
# Releases are zipped with or without their own top folder.
_TOP_FOLDERS = ("", "MIG-Bench", "ReVOS")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Located:
    """Files of a release, ready for its reader.

    Attributes:
        source: the annotation file, or the folder that holds it.
        images: the folder of images, or None where the reader looks beside the annotations.
        folders: the other folders that the reader takes, by the names of its arguments.
        provenance: for the manifest: ``hub`` and ``archives``, where there are any.
        superseded: folders that earlier archives of the same names were unpacked to.
    """

    source: Path
    images: Path | None
    folders: dict[str, Path] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    superseded: tuple[Path, ...] = ()


def remove_superseded(located: Located) -> None:
    """Remove what earlier archives were unpacked to. Call it when the new set is in place."""
    used = [path for path in (located.source, located.images, *located.folders.values()) if path]
    for folder in located.superseded:
        if not any(path.resolve().is_relative_to(folder.resolve()) for path in used):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.parent.rmdir()


def locate(
    entry: CatalogEntry,
    *,
    source: Path | None,
    images: Path | None = None,
    folders: dict[str, Path] | None = None,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    hub_revision: str | None = None,
    progress: Progress | None = None,
) -> Located:
    """Fetch and unpack what is needed.

    Args:
        entry: the benchmark.
        source: the annotation file, the folder that holds it, or an archive of that folder; None
            with `download`.
        images: the folder of images, or an archive of it.
        folders: further folders or archives, by the names of the reader's arguments.
        root: the data root; default as in `samples.data_root`.
        download: fetch the files from the Hub.
        hub_revision: the revision of the repository that holds the annotations, instead of the
            entry's own.
        progress: called with (what is being done, done, in all).

    Raises:
        UserError: neither or both of `source` and `download`; the set is not on the Hub, or its
            images are not; or what `download.fetch` and `archives.unpack` raise.
    """
    by_hand = by_hand_text(entry.name, entry.by_hand)
    if download and source is not None:
        raise UserError("--source and --download exclude each other: give one of them")
    if download and not entry.hub:
        raise UserError(
            f"benchmark {entry.name!r} is not on the Hub, so --download cannot fetch it{by_hand}"
        )
    if not download and source is None:
        raise UserError(
            f"benchmark {entry.name!r} is made from its release: give --source, the annotation "
            f"file or the folder that holds it{', or --download' if entry.hub else ''}{by_hand}"
        )
    unpacker = _Unpacker(entry, root, progress)
    provenance: dict[str, Any] = {}
    if source is None:
        # Another revision is that of the annotations; further repositories hold images.
        fetched = [
            fetch(files, revision=hub_revision if number == 0 else None)
            for number, files in enumerate(_needed(entry, images is not None))
        ]
        provenance["hub"] = [one.to_dict() for one in fetched]
        source = fetched[0].folder
        searched = [one.folder for one in fetched]
        if images is None and not entry.images_on_hub:
            raise UserError(
                f"the annotations of {entry.name!r} are in {source} now; its images are not on "
                f"the Hub. Get them as listed below and run\n  univg prepare {entry.name} "
                f"--download --images DIR{by_hand}"
            )
    else:
        source = unpacker.release_in(source.expanduser())
        base = source if source.is_dir() else source.parent
        searched = [base / name for name in _TOP_FOLDERS]
    if images is None:
        images = unpacker.packed_images(searched)
    else:
        images = unpacker.folder_of(images.expanduser())
    others = {name: unpacker.folder_of(path.expanduser()) for name, path in (folders or {}).items()}
    if unpacker.used:
        provenance["archives"] = unpacker.used
    return Located(source, images, others, provenance, unpacker.superseded())


def _needed(entry: CatalogEntry, images_given: bool) -> list[HubFiles]:
    """The files to fetch: without the archives of images where the images are given."""
    archives = {archive.name for archive in entry.image_archives} if images_given else set()
    kept = [
        replace(files, files=tuple(name for name in files.files if name not in archives))
        for files in entry.hub
    ]
    return [files for files in kept if files.files]


class _Unpacker:
    """Unpacks archives of one benchmark; `used` says which, for the manifest."""

    def __init__(
        self,
        entry: CatalogEntry,
        root: str | os.PathLike[str] | None,
        progress: Progress | None,
    ) -> None:
        self.used: list[dict[str, Any]] = []
        self._targets: dict[Path, Path] = {}
        self._entry = entry
        self._root = root
        self._folder = benchmark_dir(entry.benchmark, root) / UNPACKED_FOLDER
        self._progress = progress
        if self._folder.is_dir():
            with preparing(entry.benchmark, root):
                for left in (*self._folder.glob(".*"), *self._folder.glob("[0-9]*/.*")):
                    shutil.rmtree(left, ignore_errors=True)  # of runs that were killed

    def release_in(self, path: Path) -> Path:
        """The release's file or folder itself, or what an archive of it holds."""
        if not _is_packed(path):
            return path
        folder = self._unpack(path)
        names = _visible_names(folder)
        # val.zip of ReasonSeg holds val/, and the reader looks for val/.
        if len(names) == 1 and names[0] not in self._entry.splits and (folder / names[0]).is_dir():
            return folder / names[0]
        return folder

    def folder_of(self, path: Path) -> Path:
        """The folder of images itself, or what an archive of it holds."""
        if not _is_packed(path):
            return path
        folder = self._unpack(path)
        for known in self._entry.image_archives:
            for inner in known.folders if known.name == path.name else ():
                if (folder / inner).is_dir():
                    return folder / inner
        # train2017.zip holds train2017/.
        inner_folder = folder / folder.name
        is_only = _visible_names(folder) == [folder.name] and inner_folder.is_dir()
        return inner_folder if is_only else folder

    def packed_images(self, searched: list[Path]) -> Path | None:
        """The images of an archive in one of the folders, unless they lie there unpacked too."""
        for known in self._entry.image_archives:
            if any((base / folder).is_dir() for base in searched for folder in known.folders):
                continue
            for base in searched:
                if (base / known.name).is_file():
                    return self.folder_of(base / known.name)
        return None

    def superseded(self) -> tuple[Path, ...]:
        """Unpacked folders of the used archives' names that are none of these archives'."""
        stems = dict.fromkeys(target.name for target in self._targets)
        places = [place for stem in stems for place in self._places(stem)]
        return tuple(p for p in places if p.exists() and p not in self._targets)

    def _unpack(self, archive: Path) -> Path:
        target = self._target(archive)

        def report(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(f"unpacking {archive.name}", done, total)

        with preparing(self._entry.benchmark, self._root):
            try:
                unpack(archive, target, progress=report)
            finally:
                for folder in target.parents:  # those that are empty, where nothing was unpacked
                    with suppress(OSError):
                        folder.rmdir()
                    if folder == self._folder.parent:
                        break
        used = {"name": printable(archive.name), "size": archive.stat().st_size}
        if used not in self.used:
            self.used.append(used)
        return target

    def _target(self, archive: Path) -> Path:
        """The folder of an archive: that which it was unpacked to, else one that is free.

        Two archives of one name (coco/images.zip, ego/images.zip; or today's and last year's) get
        two folders. One that is there and was not unpacked is not free: `unpack` refuses it.
        """
        name = archive.name
        suffix = next(end for end in ARCHIVE_SUFFIXES if name.lower().endswith(end))
        targets = list(self._places(name[: -len(suffix)]))
        free = [t for t in targets if self._targets.get(t, archive.resolve()) == archive.resolve()]
        target = next(
            (t for t in free if t.exists() and was_unpacked(archive, t)),
            next(t for t in free if not t.exists() or was_unpacked(archive, t) is None),
        )
        self._targets[target] = archive.resolve()
        return target

    def _places(self, stem: str) -> Iterator[Path]:
        """``images``, ``2/images``, …: all that are there or taken, and one more."""
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        last = max((int(name) for name in names if name.isdecimal()), default=1)
        for number in range(1, last + len(self._targets) + 2):
            yield self._folder / stem if number == 1 else self._folder / str(number) / stem


def _is_packed(path: Path) -> bool:
    """Whether it is an archive; a folder may be named like one."""
    return is_archive(path) and not path.is_dir()


def _visible_names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.startswith(".")]
