"""Every benchmark that can be prepared: the entries of all modules of `readers` and `synthetic`.

A new benchmark is a module in ``readers/`` with a tuple ``ENTRIES``, and a folder of YAML in
``tasks/``; nothing else names it.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping

from univg_eval.benchmarks import readers, synthetic
from univg_eval.benchmarks.readers.common.entry import CatalogEntry
from univg_eval.errors import UserError, meant
from univg_eval.samples import readable_manifest

__all__ = ["CATALOG", "benchmark_of", "get_entry"]


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


def benchmark_of(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """The benchmark that `univg prepare` makes of this name; one that is prepared as it is.

    Raises:
        UserError: there is no such benchmark, and none is prepared under this name.
    """
    if name in CATALOG:
        return CATALOG[name].benchmark
    if readable_manifest(name, root) or any(e.benchmark == name for e in CATALOG.values()):
        return name
    raise _unknown(name)


def get_entry(name: str) -> CatalogEntry:
    """The entry of that name or benchmark; a UserError where there is none."""
    plain = name.replace("+", "_plus")  # RefCOCO+
    for entry in CATALOG.values():
        if plain in (entry.name, entry.benchmark):
            return entry
    raise _unknown(name)


def _unknown(name: str) -> UserError:
    return UserError(f"unknown benchmark {name!r}; {meant(name, CATALOG, 'univg prepare --list')}")
