"""What a reader's module states of each of its benchmarks: where the files are, terms, tasks."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.release import Release
from univg_eval.errors import UserError

__all__ = ["ByHand", "CatalogEntry", "HubFiles", "ImageArchive"]


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files of a dataset repository ``owner/name`` on the Hugging Face Hub, and its commit."""

    repo: str
    revision: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ByHand:
    """What has to be fetched by hand, and the page where it is found."""

    what: str
    url: str


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """An archive of a release's images, by file name.

    Once unpacked, the images lie in the first of `folders` that exists, else in its top folder.
    """

    name: str
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """One benchmark that ``univg prepare`` knows.

    Attributes:
        name: what ``univg prepare`` is given.
        folder: its folder below the data root, where this is not its name.
        title: in words.
        opener: the reader's function that opens the release; None for a generated benchmark.
        builder: ``module:function`` that generates it; empty for a release.
        splits: those that the reader knows.
        options: further keyword arguments of the opener or builder; ``univg prepare`` has an
            option of the same name for each.
        fixed: keyword arguments that are the same for every release of this benchmark.
        needs_workspace: whether the opener takes the benchmark's folder as ``workspace``.
        tasks: lmms-eval task or group → the split that it needs, or None if any will do.
        hub: what ``--download`` fetches; the first repository holds the annotations.
        images_on_hub: whether `hub` holds the images too.
        by_hand: what has to be fetched by hand.
        image_names: lists a release's images, as paths below its folder of images, without them;
            None where they cannot be listed, and so no stand-ins be drawn.
        image_archives: archives that ``--source`` may hold instead of the unpacked images.
        licence: as stated by the source.
        comparable_with_published: whether numbers on it can stand beside a published table.
        published: the table, or why there is none.
    """

    name: str
    folder: str = ""
    title: str
    opener: Callable[..., Release] | None = None
    builder: str = ""
    splits: tuple[str, ...] = ("test",)
    options: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs_workspace: bool = False
    tasks: Mapping[str, str | None]
    hub: tuple[HubFiles, ...] = ()
    images_on_hub: bool = False
    by_hand: tuple[ByHand, ...] = ()
    image_names: Callable[..., list[str]] | None = None
    image_archives: tuple[ImageArchive, ...] = ()
    licence: str
    comparable_with_published: bool
    published: str

    @property
    def benchmark(self) -> str:
        """The benchmark's name in samples, and its folder below the data root."""
        return self.folder or self.name

    @property
    def is_generated(self) -> bool:
        """Whether it is made here and needs no files."""
        return self.opener is None

    def open(self, source: str | os.PathLike[str], **options: Any) -> Release:
        """Open the release that lies at `source`; options as the reader's function takes them."""
        if self.opener is None:
            raise UserError(f"benchmark {self.name!r} is generated; there is no release to open")
        return self.opener(source, **self.fixed, **options)

    def build(self, root: str | os.PathLike[str] | None, **options: Any) -> Path:
        """Generate the benchmark below a data root; returns its folder."""
        if not self.builder:
            raise UserError(f"benchmark {self.name!r} is made from a release; give --source")
        module, _, function = self.builder.partition(":")
        folder: Path = getattr(importlib.import_module(module), function)(root, **options)
        return folder
