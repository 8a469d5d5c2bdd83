"""Which records stand in one table, and under which column each sample counts."""

from __future__ import annotations

from collections.abc import Mapping

from univg_eval.benchmarks.preparing.catalog import CATALOG

__all__ = ["GROUPS", "PUBLISHED_FOR", "board_of", "column_of"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "zero_shot": ("lisa", "llmseg", "reasonvos", "revos"),
    "zero_shot_full": ("lisa_full", "llmseg_full", "reasonvos_full", "revos_full"),
}
"""Tables over several benchmarks: the records of one label form a row."""

PUBLISHED_FOR: Mapping[str, str] = {"mig_bench_revised": "mig_bench"}
"""Board → the benchmark whose published tables belong to it, where the names differ: printed
tables do not say which revision of MIG-Bench they were measured on."""

_GROUP_OF = {member: group for group, members in GROUPS.items() for member in members}
_SPLITS = {entry.benchmark: entry.splits for entry in CATALOG.values() if len(entry.splits) > 1}


def board_of(benchmark: str) -> str:
    """The table of a record's benchmark; what ran under a control or on videos keeps its own.

    >>> board_of("lisa"), board_of("lisa+blank"), board_of("mig_bench")
    ('zero_shot', 'zero_shot+blank', 'mig_bench')
    """
    name, plus, variant = benchmark.partition("+")
    return _GROUP_OF.get(name, name) + plus + variant


def column_of(prepared_benchmark: str, task: str, sample_id: str) -> str:
    """The column that a sample counts in: its task, or its split where the set has several.

    Sets with several splits have one task, and ids of the form ``<benchmark>-<split>-…``.

    >>> column_of("lisa", "lisa", "lisa-val-00012")
    'lisa_val'
    """
    for split in _SPLITS.get(prepared_benchmark, ()):
        if sample_id.startswith(f"{prepared_benchmark}-{split}-"):
            return f"{task}_{split}"
    return task
