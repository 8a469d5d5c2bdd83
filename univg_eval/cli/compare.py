"""``univg compare``: two runs on the same samples, with a verdict in words."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from univg_eval.runs.record import RunRecord

HELP = "compare two runs sample by sample, with a verdict in words"
DESCRIPTION = """\
Compare two runs on the samples that both have: the difference B - A with its 95 % interval, p per
task and over all, who is right where the other is wrong, the samples that changed most, and the
smallest difference that this many samples can show. See docs/compare.md for the methods.

A and B are [LABEL=]PATH: a run record, or a folder that holds one run of the benchmark. They must
be of one prepared benchmark with one fingerprint; protocols, dialects, prompts and controls may
differ, and the output says where they do.

Exit status: 0 compared, whatever came out; 2 the two cannot be compared.
"""
EPILOG = """\
Examples:
  univg compare before=run/evaluations/step-000000 after=run/evaluations/step-000500
  univg compare runs/a runs/b --benchmark mig_bench --metric miou -o comparison.md
"""
FLIPS = 5


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._runs import add_metric

    parser = subparsers.add_parser(
        "compare",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", metavar="A", help="[LABEL=]PATH of the first run")
    parser.add_argument("b", metavar="B", help="[LABEL=]PATH of the second run")
    add_metric(parser)
    parser.add_argument(
        "--benchmark", metavar="NAME", help="which one, where a folder holds several"
    )
    parser.add_argument(
        "--flips",
        type=int,
        default=FLIPS,
        metavar="N",
        help=f"show N of the samples that changed most, each way (default: {FLIPS})",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write it as well, to a .md or .json file"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare, write ``--out`` if asked for, and print."""
    if args.flips < 0:
        raise UserError(f"--flips is {args.flips}; expected 0 or more")
    if args.out is not None and args.out.suffix not in (".md", ".json"):
        raise UserError(f"--out is {args.out}; expected a file that ends in .md or .json")

    from univg_eval.analysis.comparison import compare_runs
    from univg_eval.cli._comparison_sheet import as_json, as_markdown, show
    from univg_eval.files import write_text_atomically

    comparison = compare_runs(
        *_pick(args.a, args.b, args.benchmark), metric=args.metric, flips=args.flips
    )
    if args.out is not None:
        text = as_json(comparison) if args.out.suffix == ".json" else as_markdown(comparison)
        try:
            write_text_atomically(args.out, text)
        except OSError as error:
            raise UserError(
                f"cannot write {args.out}: {error.strerror or error}; choose another file"
            ) from error
    if args.json:
        print(as_json(comparison), end="")
    elif args.markdown:
        print(as_markdown(comparison), end="")
    else:
        show(comparison)
    return 0


def _pick(a: str, b: str, benchmark: str | None) -> tuple[RunRecord, RunRecord]:
    """The two records, under labels that differ."""
    from univg_eval.cli._runs import read_runs

    found = {"A": read_runs([a]), "B": read_runs([b])}
    if benchmark is None and max(map(len, found.values())) > 1:
        common = [
            name
            for name in dict.fromkeys(run.benchmark for run in found["A"])
            if name in {run.benchmark for run in found["B"]}
        ]
        if len(common) != 1:
            raise UserError(
                f"{a} holds runs of {_names(found['A'])}, and {b} of {_names(found['B'])}; "
                + (
                    "say which with --benchmark"
                    if common
                    else "expected a benchmark that both have"
                )
            )
        benchmark = common[0]
    chosen = []
    for side, argument in (("A", a), ("B", b)):
        runs = [run for run in found[side] if benchmark in (None, run.benchmark)]
        if len(runs) != 1:
            raise UserError(
                f"{argument} holds {len(runs) or 'no'} {'runs' if runs[1:] else 'run'} of "
                f"{benchmark} (it has {_names(found[side])}); name the record of one run"
            )
        chosen += runs
    first, second = chosen
    return _told_apart(first, second)


def _names(runs: Sequence[RunRecord]) -> str:
    return ", ".join(f"{run.label} on {run.benchmark} in {run.path}" for run in runs)


def _told_apart(a: RunRecord, b: RunRecord) -> tuple[RunRecord, RunRecord]:
    if a.label != b.label:
        return a, b
    for left, right in (
        (a.benchmark, b.benchmark),
        (a.path.resolve().name, b.path.resolve().name),
        ("A", "B"),
    ):
        if left != right:
            break
    return replace(a, label=f"{a.label} ({left})"), replace(b, label=f"{b.label} ({right})")
