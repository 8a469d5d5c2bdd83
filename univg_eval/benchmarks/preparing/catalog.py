"""Every benchmark that can be prepared: the entries of all modules of `readers` and `synthetic`.

A new benchmark is a module in ``readers/`` with a tuple ``ENTRIES``, and a folder of YAML in
``tasks/``; nothing else names it. One's own sets that have a name (``custom_<name>``) have entries
too, which are not in `CATALOG`: the data root says which there are.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping

from univg_eval.benchmarks import readers, synthetic
from univg_eval.benchmarks.readers import custom
from univg_eval.benchmarks.readers.common.entry import CatalogEntry
from univg_eval.errors import UserError, meant
from univg_eval.samples import MANIFEST_FILE, data_root, readable_manifest

__all__ = ["CATALOG", "benchmark_of", "get_entry", "named_sets", "plain_name"]

_SET = f"{custom.BENCHMARK}_"


def _entries() -> Iterator[CatalogEntry]:
    yield from synthetic.ENTRIES
    for module in pkgutil.iter_modules(readers.__path__, f"{readers.__name__}."):
        if not module.ispkg:
            yield from importlib.import_module(module.name).ENTRIES


def _collected() -> Mapping[str, CatalogEntry]:
    found: dict[str, CatalogEntry] = {}
    for entry in sorted(
        _entries(), key=lambda e: not (e.is_generated or e.comparable_with_published)
    ):
        if entry.name in found:
            raise ValueError(f"two entries are named {entry.name!r}")
        found[entry.name] = entry
    return found


CATALOG: Mapping[str, CatalogEntry] = _collected()
"""Name → entry: those generated here, those comparable with a published table, the others."""


def plain_name(name: str) -> str:
    """A benchmark's name as its folder is called: ``custom_signs`` for ``custom:signs`` too."""
    return name.replace(":", "_")


def named_sets(root: str | os.PathLike[str] | None = None) -> list[CatalogEntry]:
    """The entries of one's own sets that are prepared under a name, sorted."""
    files = data_root(root).glob(f"{_SET}*/{MANIFEST_FILE}")
    names = sorted(file.parent.name.removeprefix(_SET) for file in files)
    return [custom.entry_of_set(name) for name in names if custom.SET_NAME.fullmatch(name)]


def benchmark_of(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """The benchmark that `univg prepare` makes of this name; one that is prepared as it is.

    Raises:
        UserError: there is no such benchmark, and none is prepared under this name.
    """
    name = plain_name(name)
    if name in CATALOG:
        return CATALOG[name].benchmark
    if readable_manifest(name, root) or any(e.benchmark == name for e in CATALOG.values()):
        return name
    raise _unknown(name)


def get_entry(name: str) -> CatalogEntry:
    """The entry of that name or benchmark; a UserError where there is none."""
    plain = plain_name(name).replace("+", "_plus")  # RefCOCO+
    for entry in CATALOG.values():
        if plain in (entry.name, entry.benchmark):
            return entry
    if plain.startswith(_SET):
        return custom.entry_of_set(plain.removeprefix(_SET))
    raise _unknown(name)


def _unknown(name: str) -> UserError:
    return UserError(f"unknown benchmark {name!r}; {meant(name, CATALOG, 'univg prepare --list')}")
