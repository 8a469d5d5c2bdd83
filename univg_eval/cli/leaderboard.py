"""``univg leaderboard``: runs and published rows in one table, with marks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError
from univg_eval.terminal import fitted, terminal_width

if TYPE_CHECKING:
    from univg_eval.leaderboard import Leaderboard, Published

HELP = "runs and published rows in one table, with marks that say what can be compared"
DESCRIPTION = """\
One table a benchmark: a row for each run and, with --published, for each printed one; a column for
each task, the unweighted mean over the tasks (macro) and the mean over the samples (micro), with
95 % intervals. LISA, LLM-Seg, ReasonVOS and ReVOS are one table, zero_shot.

Each row carries marks of a closed list (--marks prints it). The rows are compared with a reference,
the first run of a model unless --reference names another; best and second best are shown among the
rows that can be compared with it, and --strict shows no others.

Exit status: 0 shown, 2 something in the arguments or records is wrong, or nothing can be shown.
"""
EPILOG = """\
Examples:
  univg leaderboard out/records/20261122_101500/mig_bench --published
  univg leaderboard base=out/a new=out/b --benchmark univg_mini --strict -o table.tex
  univg leaderboard --benchmark mig_bench --published --json
"""
SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json", ".txt": "terminal"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._runs import add_metric, add_runs

    parser = subparsers.add_parser(
        "leaderboard",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add_runs(parser, nargs="*")
    add("--benchmark", metavar="NAME", help="this table alone, e.g. mig_bench")
    add(
        "--published",
        action="store_true",
        help="also the main published tables, and what users reported for released weights",
    )
    add(
        "--ablations",
        action="store_true",
        help="all published tables, those of ablations too; implies --published",
    )
    add(
        "--table",
        action="append",
        metavar="KEY",
        help="of the published tables only this one; may be given several times",
    )
    add(
        "--reference",
        metavar="LABEL",
        help="the row that the others are compared with: a run's label, a printed model, or "
        "TABLE/MODEL (default: the first run of a model)",
    )
    add("--strict", action="store_true", help="only rows comparable with the reference")
    add_metric(parser)
    add(
        "--columns",
        choices=("all", "averages"),
        default="all",
        help="averages: without the tasks (default: all). CSV and JSON have all",
    )
    add(
        "--intervals",
        choices=("all", "averages", "none"),
        help="which values show theirs (default: all; in LaTeX: averages). CSV and JSON have all",
    )
    add(
        "--format",
        choices=("terminal", "markdown", "csv", "latex", "json"),
        help="default: by the ending of --out (.md, .csv, .tex, .json, .txt), else terminal",
    )
    add("--json", action="store_true", help="the same as --format json")
    add("-o", "--out", type=Path, metavar="FILE", help="write into this file")
    add("--marks", action="store_true", help="print what each mark says, and exit")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the tables and print or write them."""
    from univg_eval.leaderboard import BREAKING, MEANINGS

    if args.marks:
        print("Marks (those with a star keep a row out of the comparable set):")
        for mark, says in MEANINGS.items():
            line = f"  {'*' if mark in BREAKING else ' '} {mark}: {says}"
            print("\n".join(fitted(line, terminal_width())))
        return 0
    from univg_eval.cli._runs import read_runs
    from univg_eval.leaderboard import build_leaderboards

    if args.out is not None and args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder; expected the path of a file to write")
    form = _format(args)
    boards = build_leaderboards(
        read_runs(args.runs, grouped=True),
        _published(args.table, ablations=args.ablations)
        if args.published or args.ablations or args.table
        else None,
        benchmark=args.benchmark,
        reference=args.reference,
        strict=args.strict,
        metric=args.metric,
    )
    _show(boards, form, args)
    return 0


def _format(args: argparse.Namespace) -> str:
    if args.json:
        if args.format not in (None, "json"):
            raise UserError(f"--json and --format {args.format} exclude each other; give one")
        return "json"
    if args.format is None and args.out is not None:
        if args.out.suffix not in SUFFIXES:
            raise UserError(
                f"--out {args.out} does not end in {', '.join(SUFFIXES)}; say which --format"
            )
        return SUFFIXES[args.out.suffix]
    return str(args.format or "terminal")


def _published(keys: Sequence[str] | None, *, ablations: bool) -> Published:
    from univg_eval.leaderboard import Published
    from univg_eval.leaderboard.published import (
        BENCHMARK_TASKS,
        load_counts,
        load_published,
        load_reproductions,
    )

    tables, reproductions = load_published(), load_reproductions()
    if keys:
        known = [source.key for source in (*tables, *reproductions)]
        for key in keys:
            if key not in known:
                raise UserError(
                    f"--table {key!r} is no published table; expected one of: {', '.join(known)}"
                )
        tables = [table for table in tables if table.key in keys]
        reproductions = [reported for reported in reproductions if reported.key in keys]
    revisions = [known for name in BENCHMARK_TASKS for known in load_counts(name)]
    return Published(tables, reproductions, revisions, ablations=ablations or bool(keys))


def _show(boards: Sequence[Leaderboard], form: str, args: argparse.Namespace) -> None:
    from univg_eval.cli._output import write_output
    from univg_eval.leaderboard import formats

    if form == "json":
        text = json.dumps(formats.as_dict(boards), indent=2) + "\n"
    elif form == "csv":
        text = formats.as_csv(boards)
    else:
        intervals: formats.Intervals = "averages" if form == "latex" else "all"
        intervals = args.intervals or intervals
        sheets = [formats.make_sheet(board, intervals, args.columns) for board in boards]
        if form == "terminal" and args.out is None:
            for number, sheet in enumerate(sheets):
                print(end="\n" if number else "")
                formats.print_sheet(sheet)
            return
        lay_out = {
            "markdown": formats.as_markdown,
            "latex": formats.as_latex,
            "terminal": formats.as_text,
        }[form]
        text = "\n".join(lay_out(sheet) for sheet in sheets)
    if args.out is None:
        print(text, end="")
    else:
        write_output(args.out, text, "--out")
