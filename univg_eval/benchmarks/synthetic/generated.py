"""Benchmarks that are made here instead of read from a release: how a build is put in place.

The folder of such a benchmark holds exactly one build, which appears when it is whole: an
interrupted run leaves the old build, or none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.files import file_lock, remove_leftovers, whole_folder, writing
from univg_eval.samples import MANIFEST_FILE, benchmark_dir, data_root, load_manifest

__all__ = ["locked", "readable_manifest", "replace_build"]


@contextlib.contextmanager
def locked(benchmark: str, root: str | os.PathLike[str] | None) -> Iterator[None]:
    """Let one process at a time build; the others wait and then find the build.

    Raises:
        UserError: the data root cannot be written.
    """
    base = data_root(root)
    with contextlib.ExitStack() as stack:
        with writing(base):
            stack.enter_context(file_lock(base / f".{benchmark}.lock"))
        yield


def readable_manifest(benchmark: str, root: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The manifest of a benchmark's folder, empty where there is none that can be read."""
    if not (benchmark_dir(benchmark, root) / MANIFEST_FILE).is_file():
        return {}
    try:
        return load_manifest(benchmark, root)
    except UserError:
        # An unreadable manifest is not taken for a build: `replace_build` refuses to replace it.
        return {}


def replace_build(
    benchmark: str, root: str | os.PathLike[str] | None, write: Callable[[Path], None]
) -> Path:
    """Make a build and put it in place of the one that stands there. Call it while `locked`.

    Args:
        benchmark: its name; the manifest of a build names it under ``generator.name``.
        root: the data root.
        write: makes the build in the data root that it is given, as folder ``<root>/<benchmark>``.

    Returns:
        The benchmark's folder.

    Raises:
        UserError: the folder exists and is no build of this benchmark; the data root cannot be
            written; or what `write` raises.
    """
    final = benchmark_dir(benchmark, root)
    _require_replaceable(benchmark, root, final)
    remove_leftovers(final)
    with writing(data_root(root)), whole_folder(final) as new:
        write(new)
        made = new / benchmark
        for path in made.iterdir():
            path.rename(new / path.name)
        made.rmdir()
    return final


def _require_replaceable(benchmark: str, root: str | os.PathLike[str] | None, folder: Path) -> None:
    """Refuse to delete a folder that no generator has made."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    generator = readable_manifest(benchmark, root).get("generator")
    if not isinstance(generator, dict) or generator.get("name") != benchmark:
        raise UserError(
            f"{folder} exists but is no build of {benchmark}: no readable manifest.json in it "
            f"names the generator {benchmark}; move it away, or set UNIVG_DATA to another "
            "folder"
        )
