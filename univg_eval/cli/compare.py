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

A and B are [LABEL=]PATH: a run record, or a folder that holds one run of the benchmark, or several
runs of one thing (repeats, checkpoints), which PATH,PATH,… names too: these are compared by their
means, and intervals and p cover other runs. Both must be of one prepared benchmark with one
fingerprint; protocols, dialects, prompts and controls may differ, and the output says where they
do.

Exit status: 0 compared, whatever came out; 2 the two cannot be compared.
"""
EPILOG = """\
Examples:
  univg compare before=run/evaluations/step-000000 after=run/evaluations/step-000500
  univg compare base=out/a1,out/a2,out/a3 new=out/b1,out/b2,out/b3
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
    )
    parser.add_argument("a", metavar="A", help="[LABEL=]PATH[,PATH …] of the first run")
    parser.add_argument("b", metavar="B", help="[LABEL=]PATH[,PATH …] of the second run")
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
    """Compare, write ``--out`` if given, and print."""
    if args.flips < 0:
        raise UserError(f"--flips is {args.flips}; expected 0 or more")
    if args.out is not None and args.out.suffix not in (".md", ".json"):
        raise UserError(f"--out is {args.out}; expected a file that ends in .md or .json")

    from univg_eval.analysis.comparison import compare_runs
    from univg_eval.cli._comparison_sheet import as_json, as_markdown, show
    from univg_eval.cli._output import write_output

    comparison = compare_runs(
        *_pick(args.a, args.b, args.benchmark), metric=args.metric, flips=args.flips
    )
    if args.out is not None:
        text = as_json(comparison) if args.out.suffix == ".json" else as_markdown(comparison)
        write_output(args.out, text, "--out")
    if args.json:
        print(as_json(comparison), end="")
    elif args.markdown:
        print(as_markdown(comparison), end="")
    else:
        show(comparison)
    return 0


def _pick(a: str, b: str, benchmark: str | None) -> tuple[Sequence[RunRecord], Sequence[RunRecord]]:
    """The records of both runs, several of one thing each; under labels that differ."""
    from univg_eval.cli._runs import read_runs

    found = (read_runs([a], grouped=True), read_runs([b], grouped=True))
    if benchmark is None and max(map(len, found)) > 1:
        others = {run.benchmark for run in found[1]}
        common = dict.fromkeys(run.benchmark for run in found[0] if run.benchmark in others)
        if len(common) != 1:
            remedy = "say which with --benchmark" if common else "expected one that both have"
            raise UserError(
                f"{a} holds runs of {_names(found[0])}, and {b} of {_names(found[1])}; {remedy}"
            )
        (benchmark,) = common
    first, second = (
        _only([run for run in runs if benchmark in (None, run.benchmark)], runs, path, benchmark)
        for runs, path in zip(found, (a, b), strict=True)
    )
    one, other = first[0], second[0]
    if one.label != other.label:
        return first, second
    endings = [
        (one.benchmark, other.benchmark),
        (one.path.resolve().name, other.path.resolve().name),
        ("A", "B"),
    ]
    left, right = next(pair for pair in endings if pair[0] != pair[1])
    return (
        [replace(run, label=f"{run.label} ({left})") for run in first],
        [replace(run, label=f"{run.label} ({right})") for run in second],
    )


def _only(
    chosen: Sequence[RunRecord], runs: Sequence[RunRecord], path: str, benchmark: str | None
) -> Sequence[RunRecord]:
    units = {(run.label, run.group) for run in chosen}
    if len(units) != 1 or (chosen[1:] and chosen[0].group is None):
        raise UserError(
            f"{path} holds {len(chosen) or 'no'} {'runs' if chosen[1:] else 'run'} of {benchmark} "
            f"(it has {_names(runs)}); name the record of one run, or of several of one thing with "
            "commas between them"
        )
    return chosen


def _names(runs: Sequence[RunRecord]) -> str:
    return ", ".join(f"{run.label} on {run.benchmark} in {run.path}" for run in runs)
