"""Benchmarks that are made here instead of read from a release: how a build is put in place.

The folder of such a benchmark holds exactly one build, which appears when it is whole: an
interrupted run leaves the old build, or none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.files import file_lock, whole_folder, writing
from univg_eval.images.reading import split_reference
from univg_eval.samples import (
    SAMPLES_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    fingerprint,
    readable_manifest,
)

__all__ = ["Progress", "Settings", "ensure_build"]

Progress = Callable[[int, int], None]
"""Called with (done, in all) while a build is made."""


Settings = dict[str, Any]
"""What a build is made from, as its manifest has it under ``generator``; ``name`` is the
benchmark's."""


def ensure_build(
    benchmark: str,
    root: str | os.PathLike[str] | None,
    settings: Settings,
    *,
    expected: Callable[[], Sequence[GroundingSample]],
    write: Callable[[Path], None],
) -> Path:
    """The benchmark's folder, made first if it is absent, incomplete or of other settings.

    Args:
        benchmark: its name.
        root: the data root; default as in `samples.data_root`.
        settings: see `Settings`.
        expected: the samples that a build of these settings holds.
        write: makes the build in the data root that it is given, as folder ``<root>/<benchmark>``.

    Raises:
        UserError: the folder exists and is no build of this benchmark; the data root cannot be
            written; or what `write` raises.
    """
    folder = benchmark_dir(benchmark, root)
    # Without the lock first: a data root that can only be read serves a build that is there.
    if _is_current(benchmark, root, settings, expected):
        return folder
    base = data_root(root)
    # One process builds; the others wait and then find the build.
    with contextlib.ExitStack() as stack:
        with writing(base):
            stack.enter_context(file_lock(base / f".{benchmark}.lock"))
        if not _is_current(benchmark, root, settings, expected):
            _replace_build(benchmark, root, write)
    return folder


def _is_current(
    benchmark: str,
    root: str | os.PathLike[str] | None,
    settings: Settings,
    expected: Callable[[], Sequence[GroundingSample]],
) -> bool:
    """Whether a whole build of these settings and samples is there."""
    manifest = readable_manifest(benchmark, root)
    if manifest.get("generator") != settings:
        return False
    try:
        samples = expected()
    except UserError:
        return False
    if manifest.get("fingerprint") != fingerprint(samples):
        return False
    files = {split_reference(image)[0] for sample in samples for image in sample.images}
    files.add(f"{benchmark}/{SAMPLES_FILE}")
    return all((data_root(root) / file).is_file() for file in files)


def _replace_build(
    benchmark: str, root: str | os.PathLike[str] | None, write: Callable[[Path], None]
) -> None:
    """Make a build and put it in place of the one that is there."""
    final = benchmark_dir(benchmark, root)
    with writing(data_root(root)):
        _require_replaceable(benchmark, root, final)
        with whole_folder(final) as new:
            write(new)
            made = new / benchmark
            for path in made.iterdir():
                path.rename(new / path.name)
            made.rmdir()


def _require_replaceable(benchmark: str, root: str | os.PathLike[str] | None, folder: Path) -> None:
    """Refuse to delete a folder that no generator has made."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    # One that cannot be read is not taken for a build: it is not replaced.
    generator = readable_manifest(benchmark, root).get("generator")
    if not isinstance(generator, dict) or generator.get("name") != benchmark:
        raise UserError(
            f"{folder} exists but is no build of {benchmark}: no readable manifest.json in it "
            f"names the generator {benchmark}; move it away, or set UNIVG_DATA to another "
            "folder"
        )
