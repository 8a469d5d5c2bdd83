"""``univg report``: one page on one or more runs, with every sample to look at."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from univg_eval.cli._runs import add_runs, read_runs
from univg_eval.errors import UserError
from univg_eval.progress import progress_bars, step

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Write one HTML file about one or more runs of a benchmark: a table, charts, and every sample with
its images, the true boxes, the boxes of all runs and their whole responses, to filter and to
search. The file holds all it shows, and needs no network.

The benchmark must be prepared on this machine: the true boxes and the images are not in a run
record. Where its images are not at hand, use --images none.
"""
EPILOG = """\
Examples:
  univg report out/records/20261122_101500/mig_bench -o report.html
  univg report base=runs/a tuned=runs/b -o report.html --images misses"""
LARGE_PAGE = 200 * 1024 * 1024


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "report",
        help="one page on runs: table, charts, and every sample with its boxes and responses",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_runs(parser)
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page, default report.html; an older one is replaced",
    )
    parser.add_argument(
        "--benchmark", metavar="B", help="where the runs are of several: those of this one"
    )
    parser.add_argument(
        "--images",
        choices=("all", "misses", "none"),
        default="all",
        help="whose images the page holds: of all samples (default), of those that some run "
        "misses, or none",
    )
    parser.add_argument(
        "--thumbnail-side",
        type=_side,
        metavar="N",
        help="longest side of an image on the page in pixels; default 960, down to 400 for more "
        "than 500 images",
    )
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="DIR",
        help="also write the charts as PDF and PNG into this folder",
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="data root; default $UNIVG_DATA or ~/.cache/univg"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as JSON")
    parser.set_defaults(run=run)


def _side(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 32 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 32 to 4096")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Read the runs, write the page, say where it is and how large."""
    from univg_eval.report.figures import write_figures
    from univg_eval.report.run_data import collect
    from univg_eval.report.run_page import write_run_page
    from univg_eval.report.text import printable

    if args.out.is_dir():
        raise UserError(f"{args.out} is a folder; name a file, e.g. {args.out / 'report.html'}")
    data = collect(read_runs(args.runs), benchmark=args.benchmark, root=args.root)
    with progress_bars() as progress:
        page = write_run_page(
            data,
            args.out,
            images=args.images,
            thumbnail_side=args.thumbnail_side,
            root=args.root,
            footer=_footer(),
            progress=step(progress, "images"),
        )
    drawn = [] if args.figures is None else write_figures(data, args.figures)
    if args.json:
        written = {
            "page": str(page.path),
            "benchmark": data.benchmark,
            "bytes": page.n_bytes,
            "samples": page.n_samples,
            "images": page.n_images,
            "problems": dict(page.problems),
            "figures": [str(path) for path in drawn],
        }
        print(json.dumps(written, indent=2))
        return 0
    print(
        f"{page.path}: {page.n_samples:,} samples, {page.n_images:,} images, "
        f"{page.n_bytes / 2**20:.1f} MiB"
    )
    for note in data.notes:
        print(printable(f"Note: {note}"))
    if page.problems:
        first = next(iter(page.problems.values()))
        print(printable(f"Note: {len(page.problems):,} images cannot be shown. First: {first}"))
    if page.n_bytes > LARGE_PAGE:
        print("Note: browsers are slow to open so large a file; --images misses makes it smaller.")
    if drawn:
        print(f"{args.figures}: {', '.join(path.name for path in drawn)}")
    return 0


def _footer() -> str:
    from importlib.metadata import version

    from univg_eval.report.text import moment

    return f"Made by univg report, version {version('univg')}, {moment(datetime.now(UTC))}."
