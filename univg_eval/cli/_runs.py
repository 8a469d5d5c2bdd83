"""The argument ``RUN`` of commands that read run records: ``[LABEL=]PATH``."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from univg_eval.errors import UserError
from univg_eval.runs import CHECKSUMS, RunRecord, load_run

__all__ = ["HELP", "add_runs", "read_runs"]

HELP = (
    "[LABEL=]PATH: a run record, or a folder of run records; the label is what tables call the run "
    "(default: the last part of the model's name)"
)


def add_runs(parser: argparse.ArgumentParser, nargs: str | int = "+") -> None:
    """Add the positional argument; `read_runs` takes its values."""
    parser.add_argument("runs", nargs=nargs, metavar="RUN", help=HELP)


def read_runs(arguments: Sequence[str]) -> list[RunRecord]:
    """Load the records that the arguments name, in their order.

    A folder stands for the records directly in it, in the order of their names. Records of one
    benchmark that would have the same label are told apart by the names of their folders, and by
    a number where these are equal too.

    Raises:
        UserError: a path is no record and holds none, or a record cannot be read.
    """
    records = [record for argument in arguments for record in _read(argument)]
    records = _told_apart(records, lambda record: f"{record.label} ({record.path.resolve().name})")
    seen: Counter[tuple[str, str]] = Counter()

    def numbered(record: RunRecord) -> str:
        seen[record.benchmark, record.label] += 1
        return f"{record.label} #{seen[record.benchmark, record.label]}"

    return _told_apart(records, numbered)


def _told_apart(records: Sequence[RunRecord], name: Callable[[RunRecord], str]) -> list[RunRecord]:
    """The records, with `name` as the label of those that share benchmark and label."""
    taken = Counter((record.benchmark, record.label) for record in records)
    return [
        replace(record, label=name(record)) if taken[record.benchmark, record.label] > 1 else record
        for record in records
    ]


def _read(argument: str) -> list[RunRecord]:
    label, separator, rest = argument.partition("=")
    if separator and label and not Path(argument).exists():
        path, wanted = Path(rest), label
    else:
        path, wanted = Path(argument), ""
    if not path.exists():
        raise UserError(f"{path} does not exist; expected a run record, or a folder of run records")
    if (path / CHECKSUMS).is_file() or not path.is_dir():
        return [load_run(path, wanted or None)]
    inside = sorted(child.parent for child in path.glob(f"*/{CHECKSUMS}"))
    if not inside:
        raise UserError(
            f"{path} is no run record and holds none; `univg eval` writes one, and `univg rescore` "
            "makes one anew from its responses"
        )
    return [load_run(folder, wanted or None) for folder in inside]
