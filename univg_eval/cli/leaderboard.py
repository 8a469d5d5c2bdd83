"""``univg leaderboard``: runs and published rows in one table, with marks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from univg_eval.leaderboard import Leaderboard
    from univg_eval.leaderboard.building import Published
    from univg_eval.leaderboard.sheet import Columns, Intervals

HELP = "runs and published rows in one table, with marks that say what can be compared"
DESCRIPTION = """\
One table a benchmark: a row for each run and, with --published, for each printed one; a column for
each task, the unweighted mean over the tasks (macro) and the mean over the samples (micro), with
95 % intervals. LISA, LLM-Seg, ReasonVOS and ReVOS are one table, zero_shot.

Each row carries marks of a closed list (--marks prints it). The rows are held against a reference,
the first run of a model unless --reference names another; best and second best are told among the
rows that can be compared with it, and --strict shows no others.

Exit status: 0 shown, 2 something in the arguments or records is wrong, or nothing can be shown.
"""
EPILOG = """\
Examples:
  univg leaderboard out/records/20261122_101500/mig_bench --published
  univg leaderboard base=out/a new=out/b --benchmark univg_mini --strict -o table.tex
  univg leaderboard --benchmark mig_bench --published --json
"""
FORMATS = ("terminal", "markdown", "csv", "latex", "json")
SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".json": "json", ".txt": "terminal"}
INTERVALS = ("all", "averages", "none")
COLUMNS = ("all", "averages")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._runs import add_metric, add_runs

    parser = subparsers.add_parser(
        "leaderboard",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_runs(parser, nargs="*")
    parser.add_argument("--benchmark", metavar="NAME", help="this table alone, e.g. mig_bench")
    parser.add_argument(
        "--published",
        action="store_true",
        help="also the main published tables, and what users reported for released weights",
    )
    parser.add_argument(
        "--ablations",
        action="store_true",
        help="all published tables, those of ablations too; implies --published",
    )
    parser.add_argument(
        "--table",
        action="append",
        metavar="KEY",
        help="of the published tables only this one; may be given several times",
    )
    parser.add_argument(
        "--reference",
        metavar="LABEL",
        help="the row that the others are held against: a run's label, a printed model, or "
        "TABLE/MODEL (default: the first run of a model)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="only rows that can be compared with the reference"
    )
    add_metric(parser)
    parser.add_argument(
        "--columns",
        choices=COLUMNS,
        default="all",
        help="averages: without the tasks (default: all). CSV and JSON have all",
    )
    parser.add_argument(
        "--intervals",
        choices=INTERVALS,
        help="which values show theirs (default: all; in LaTeX: averages). CSV and JSON have all",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="default: by the ending of --output (.md, .csv, .tex, .json, .txt), else terminal",
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write into this file")
    parser.add_argument("--marks", action="store_true", help="print what each mark says, and exit")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build the tables and print or write them."""
    if args.marks:
        _print_marks()
        return 0
    from univg_eval.cli._runs import read_runs
    from univg_eval.leaderboard import build_leaderboards

    if args.output is not None and args.output.is_dir():
        raise UserError(f"--output {args.output} is a folder; expected the path of a file to write")
    form = _format(args)
    boards = build_leaderboards(
        read_runs(args.runs),
        _published(args.table, ablations=args.ablations)
        if args.published or args.ablations or args.table
        else None,
        benchmark=args.benchmark,
        reference=args.reference,
        strict=args.strict,
        metric=args.metric,
    )
    if form == "terminal" and args.output is None:
        _print_boards(boards, args.intervals or "all", args.columns)
        return 0
    text = _text(boards, form, args.intervals, args.columns)
    if args.output is None:
        print(text, end="")
    else:
        _write(args.output, text)
    return 0


def _format(args: argparse.Namespace) -> str:
    if args.json:
        if args.format not in (None, "json"):
            raise UserError(f"--json and --format {args.format} exclude each other; give one")
        return "json"
    if args.format is not None:
        return str(args.format)
    if args.output is not None:
        if args.output.suffix not in SUFFIXES:
            raise UserError(
                f"--output {args.output} does not end in {', '.join(SUFFIXES)}; say which --format"
            )
        return SUFFIXES[args.output.suffix]
    return "terminal"


def _published(keys: Sequence[str] | None, *, ablations: bool) -> Published:
    from univg_eval.leaderboard.building import Published
    from univg_eval.leaderboard.published import (
        BENCHMARK_TASKS,
        load_counts,
        load_published,
        load_reproductions,
    )

    tables, reproductions = load_published(), load_reproductions()
    if keys:
        known = [table.key for table in tables] + [reported.key for reported in reproductions]
        for key in keys:
            if key not in known:
                raise UserError(
                    f"--table {key!r} is no published table; expected one of: {', '.join(known)}"
                )
        tables = [table for table in tables if table.key in keys]
        reproductions = [reported for reported in reproductions if reported.key in keys]
    revisions = [known for name in BENCHMARK_TASKS for known in load_counts(name)]
    return Published(tables, reproductions, revisions, ablations=ablations or bool(keys))


def _print_boards(boards: Sequence[Leaderboard], intervals: Intervals, columns: Columns) -> None:
    from univg_eval.leaderboard import make_sheet
    from univg_eval.leaderboard.terminal import print_sheet

    for number, board in enumerate(boards):
        if number:
            print()
        print_sheet(make_sheet(board, intervals, columns))


def _text(
    boards: Sequence[Leaderboard], form: str, intervals: Intervals | None, columns: Columns
) -> str:
    from univg_eval.leaderboard import data, make_sheet
    from univg_eval.leaderboard.latex import as_latex
    from univg_eval.leaderboard.markdown import as_markdown
    from univg_eval.leaderboard.terminal import as_text

    if form == "json":
        return json.dumps(data.as_dict(boards), indent=2) + "\n"
    if form == "csv":
        return data.as_csv(boards)
    if intervals is None:
        intervals = "averages" if form == "latex" else "all"
    sheets = [make_sheet(board, intervals, columns) for board in boards]
    lay_out = {"markdown": as_markdown, "latex": as_latex, "terminal": as_text}[form]
    return "\n".join(lay_out(sheet) for sheet in sheets)


def _write(path: Path, text: str) -> None:
    from univg_eval.files import write_text_atomically

    try:
        write_text_atomically(path, [text])
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; give --output a path in a folder "
            "that may be written"
        ) from error
    except UnicodeEncodeError as error:
        raise UserError(
            f"cannot write {path}: a name has {error.object[error.start : error.end]!r}, which is "
            "no text; give the run another label: LABEL=PATH"
        ) from error


def _print_marks() -> None:
    from univg_eval.leaderboard import BREAKING, MEANINGS

    print("Marks (those with a star keep a row out of the comparable set):")
    for mark, says in MEANINGS.items():
        print(f"  {'*' if mark in BREAKING else ' '} {mark}: {says}")
