"""``univg-train curves``: reward, difficulty, loss and evaluations of runs as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from univg_train.cli._running import print_fitted

__all__ = ["add_parser", "run"]

_EPILOG = """\
example:
  univg-train curves runs/tiny_grpo
  univg-train curves runs/exp runs/none -o weights.pdf
      a line for each run
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``univg-train``."""
    parser = commands.add_parser(
        "curves",
        help="draw reward, difficulty, loss and evaluations of runs",
        description="Draw what runs of sft or grpo have logged, up to their end or their newest "
        "checkpoint: reward, difficulty, loss and evaluations by step.",
        epilog=_EPILOG,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help=".png, .pdf or .svg (default: curves.png in the first run's folder)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw; returns the exit status."""
    from univg_train.runs.curves import write_curves

    print_fitted(str(write_curves(args.runs, args.out or args.runs[0] / "curves.png")))
    return 0
