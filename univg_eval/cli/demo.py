"""``univg demo``: everything once, on generated scenes, without a network or a GPU."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.progress import progress_bars
from univg_eval.runs.threads import choose_threads

if TYPE_CHECKING:
    from univg_eval.lmms.demo import DemoRun

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "demo",
        help="evaluate the shipped tiny model and the baselines on univg_mini",
        description="Evaluate the shipped tiny Qwen2-VL and seven baselines on the fifteen "
        "generated tasks of univg_mini, through lmms-eval, on the CPU; print a table with 95 % "
        "intervals and write a run record of each.",
        epilog="Example: univg demo --out out/demo",
    )
    parser.add_argument("--n", type=_count, metavar="N", help="samples a task, default 40")
    parser.add_argument(
        "--seed", type=_seed, metavar="S", help="of the scenes; default the public seed"
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N of each task")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("out/demo"),
        metavar="DIR",
        help="parent of the records",
    )
    parser.add_argument("--model", metavar="DIR", help="another checkpoint to show")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of samples, at least 1")
    return int(text)


def _seed(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, at least 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched
    choose_threads()
    from univg_eval.lmms.extra import require_lmms_eval

    require_lmms_eval()
    from univg_eval.benchmarks.synthetic.mini import DEFAULT_N, DEFAULT_SEED
    from univg_eval.files import require_writable

    require_writable(args.out, "--out")

    n = DEFAULT_N if args.n is None else args.n
    seed = DEFAULT_SEED if args.seed is None else args.seed
    print(
        "Loading lmms-eval and drawing the scenes (the first time takes longest) …",
        file=sys.stderr,
    )
    # lmms-eval warns on standard output while it is imported.
    with contextlib.redirect_stdout(sys.stderr):
        from univg_eval.lmms.demo import demo_data, run_demo

    with progress_bars(stay=True) as progress, demo_data(n, seed, progress):
        runs = run_demo(args.out, model=args.model, limit=args.limit, progress=progress)
    if args.json:
        result = {"runs": {r.name: {"tasks": r.tasks, "macro": r.macro} for r in runs}}
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        _show(runs, args.out)
    return 0


def _show(runs: list[DemoRun], out: Path) -> None:
    """Print the tasks of the model, and the mean of each run."""
    from univg_eval.analysis.headline import headlines
    from univg_eval.cli._ending import print_figures, print_lines, print_next, print_statuses
    from univg_eval.cli._tables import Sheet, percent, print_sheet, terminal

    console = terminal()
    tiny = runs[0]
    results = {"tasks": tiny.tasks, "macro": tiny.macro}
    print_figures("tiny on univg_mini", results, headlines(tiny.record.scores), console)
    print_statuses(tiny.record, console)
    rows = [
        (
            run.name,
            *percent(headlines(run.record.scores)[0].macro),
            *(f"{100 * run.macro[name]:.1f}" for name in ("miou", "answered")),
        )
        for run in runs
    ]
    heads = ("run", "acc@0.5 %", "95 % interval", "mIoU %", "answered %")
    print_sheet(Sheet("All runs, mean over tasks", heads, rows), console)
    print_lines(
        [
            "center, full, random, spray and refuse never look at an image: a model has to beat "
            "the best of them. noisy is right with p = 0.5, oracle always.",
            "Intervals are by groups of samples that share images, as in the leaderboard.",
        ],
        console,
    )
    print(f"run records: {out}/<run>/univg_mini")
    model = "--model univg --model_args pretrained=DIR"
    print_next(
        [
            ("test your set-up", f"univg check {model}"),
            ("evaluate your own model", f"univg eval {model} --tasks univg_mini"),
            (
                "every response on its images",
                f"univg report {shlex.quote(str(out / 'tiny'))} -o report.html",
            ),
        ],
        console,
    )
