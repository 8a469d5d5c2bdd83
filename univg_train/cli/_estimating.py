"""``--dry-run`` of the commands that train."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_train.cli._arguments import positive_int
from univg_train.cli._running import report_once
from univg_train.runs.sharding import SHARDINGS, sharding_of_environment

if TYPE_CHECKING:
    from univg_train.runs.estimate import Estimate, Gpu, Span
    from univg_train.runs.training import CheckedRun

__all__ = ["RowReport", "add_dry_run", "check_dry_run", "estimate_and_report", "row_report"]

GPUS = ("a100", "h100", "h200", "l40s", "rtx4090")
_DESCRIBING = ("processes", "sharding", "gpu")


RowReport = dict[str, dict[str, Any]]
"""``kinds``: rows of each kind and how they are rewarded; ``left_out``: rows for each reason."""


def row_report(checked: CheckedRun, kinds: dict[str, Any]) -> RowReport:
    """What is printed of the rows of a run."""
    return {"kinds": kinds, "left_out": dict(checked.data.report.left_out.most_common())}


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """``--dry-run``, and what describes the run to come."""
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print steps, memory and time, and load no weights",
    )
    parser.add_argument(
        "--processes",
        type=positive_int,
        metavar="N",
        help="with --dry-run: devices of the run (default: those of the launcher, or 1)",
    )
    parser.add_argument(
        "--sharding",
        choices=SHARDINGS,
        help="with --dry-run: how weights are spread over them (default: as launched)",
    )
    parser.add_argument(
        "--gpu", choices=GPUS, help="with --dry-run: which GPUs they are (default: a100)"
    )


def check_dry_run(args: argparse.Namespace) -> None:
    """Raise a UserError for options of ``--dry-run`` without it."""
    given = [name for name in _DESCRIBING if getattr(args, name) is not None]
    if given and not args.dry_run:
        raise UserError(
            f"--{given[0]} describes a run to come, for --dry-run; a run has the devices of "
            "`accelerate launch`"
        )


def estimate_and_report(
    args: argparse.Namespace, estimate: Callable[[int, str, Gpu], tuple[Estimate, RowReport]]
) -> int:
    """Print what a run will take; `estimate` is given processes, sharding and GPU."""
    from univg_train.runs import estimate as known
    from univg_train.runs.training import processes_of_environment

    processes = args.processes or processes_of_environment()
    sharding = args.sharding or sharding_of_environment()
    found, rows = estimate(processes, sharding, known.GPUS[args.gpu or GPUS[0]])
    values = {"processes": processes, "sharding": sharding, **found.to_dict(), **rows}
    report_once(values, _text(found, rows, processes, sharding), args.json)
    return 0


def _text(found: Estimate, rows: RowReport, processes: int, sharding: str) -> str:
    from univg_train.data import LEFT_OUT, ROW_KINDS

    in_words = {str(kind): words for kind, words in ROW_KINDS.items()}
    memory, gpu = found.memory, found.gpu
    rollouts = "" if found.rollouts is None else f", {found.rollouts:,} rollouts"
    lines = [
        f"{found.parameters:,} parameters, {found.trained:,} trained",
        f"{found.rows:,} rows; the longest has {found.tokens:,} tokens",
        *(
            f"  {kind['rows']:8,} with {in_words[name]}"
            + (f", rewarded by {kind['reward']}" if "reward" in kind else "")
            for name, kind in rows["kinds"].items()
        ),
        *(f"  {n:8,} left out: {LEFT_OUT[name]}" for name, n in rows["left_out"].items()),
        f"{found.steps:,} steps ({found.steps_per_epoch:,} an epoch){rollouts}",
        f"memory on each of {processes} devices, sharding {sharding}, in GiB (docs/train.md):",
        *(f"  {name:24} {size / 2**30:8.2f}" for name, size in memory.fixed.items()),
        *(f"  then {name:19} {size / 2**30:8.2f}" for name, size in memory.phases.items()),
        f"  {'at the peak':24} {memory.total / 2**30:8.2f}",
    ]
    fits = "fits" if memory.needed <= gpu.memory else "does not fit"
    lines += [
        f"with a fifth left free it {fits} on one {gpu.name} ({gpu.memory / 2**30:.0f} GiB)",
        f"time a step {_span(found.step)}, all steps {_span(found.step * found.steps)}: from the "
        "data sheet of the GPU, not confirmed on a GPU",
    ]
    return "\n".join(lines)


def _span(span: Span) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if span.most >= 2 * size or unit == "s":
            return f"{span.least / size:.2g} to {span.most / size:.2g} {unit}"
    raise AssertionError
