"""``univg export``: a run in a format that other tools read."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from univg_eval.cli._runs import add_runs, read_runs
from univg_eval.progress import progress_bars, step

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Write the samples, true boxes and predicted boxes of a run as COCO files, which FiftyOne,
supervision, Label Studio and cocoapi read: annotations.json, results.json and images/ in a new
folder. One image of one sample is one COCO image; its instruction, task and sample id stand beside
it. Images are hard links where the file system allows, else copies. docs/report.md has the fields.

The benchmark must be prepared on this machine, as its true boxes and images are not in a run.

Exit status: 0 written, 2 something in the arguments, the run or the folder is wrong.
"""
EPILOG = "Example: univg export results/runs/tiny --format coco -o tiny_coco"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "export",
        help="a run as COCO files, for FiftyOne, Label Studio, supervision and cocoapi",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_runs(parser, nargs=1)
    parser.add_argument("--format", choices=("coco",), default="coco", help="default coco")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="a folder that is not there yet",
    )
    parser.add_argument(
        "--benchmark", metavar="B", help="where RUN is a folder of several: that of this benchmark"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="data root; default $UNIVG_DATA or ~/.cache/univg"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the run, write the folder, say what is in it."""
    from univg_eval.report.coco import export_coco
    from univg_eval.report.run_data import collect
    from univg_eval.report.text import printable

    data = collect(read_runs(args.runs), benchmark=args.benchmark, root=args.root)
    with progress_bars() as progress:
        export = export_coco(
            data, args.out, root=args.root, progress=step(progress, "samples written")
        )
    if args.json:
        print(json.dumps(asdict(export), indent=2, default=str))
        return 0
    print(
        f"{export.folder}: {export.samples:,} samples, {export.images:,} images, "
        f"{export.annotations:,} true boxes, {export.results:,} predicted boxes"
    )
    for note in data.notes:
        print(printable(f"Note: {note}"))
    if export.excluded:
        print(f"Note: left out for an invalid true box: {len(export.excluded):,} samples.")
    if export.unreadable:
        first = next(iter(export.unreadable.values()))
        print(
            printable(
                f"Note: left out, as an image cannot be read: {len(export.unreadable):,} samples. "
                f"The first: {first}"
            )
        )
    return 0
