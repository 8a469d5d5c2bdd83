"""``univg demo``: everything once, on generated scenes, without a network or a GPU."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.cli._progress import progress_bars
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
        "--out", type=Path, default=Path("out/demo"), metavar="DIR", help="parent of the records"
    )
    parser.add_argument("--model", metavar="DIR", help="another Qwen2-VL checkpoint to show")
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

    n = DEFAULT_N if args.n is None else args.n
    seed = DEFAULT_SEED if args.seed is None else args.seed
    print(
        "Loading lmms-eval and drawing the scenes (the first time takes longest) …",
        file=sys.stderr,
    )
    # lmms-eval warns on standard output while it is imported.
    with contextlib.redirect_stdout(sys.stderr):
        from univg_eval.lmms.demo import demo_data, run_demo

    with demo_data(n, seed) as root, progress_bars(stay=True) as progress:
        runs = run_demo(args.out, model=args.model, limit=args.limit, progress=progress)
    if args.json:
        result = {"runs": {r.name: {"tasks": r.tasks, "macro": r.macro} for r in runs}}
        print(json.dumps(result, indent=2, allow_nan=False))
    else:
        _show(runs)
        _next_steps(args.out, root)
    return 0


def _show(runs: list[DemoRun]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    tiny, *baselines = runs
    counts = sorted({metrics["n"] for metrics in tiny.tasks.values()})
    table = Table(
        title="univg_mini: Acc@0.5 in %, the tiny model with 95 % intervals, "
        f"n = {', '.join(map(str, counts))} a task",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    table.add_column("task", no_wrap=True)
    table.add_column("tiny", justify="right", no_wrap=True)
    for run in baselines:
        table.add_column(run.name, justify="right", no_wrap=True)
    for task, metrics in tiny.tasks.items():
        others = (_percent(run.tasks[task]["acc@0.5"]) for run in baselines)
        table.add_row(task, _with_interval(metrics), *others)
    table.add_section()
    others = (_percent(run.macro["acc@0.5"]) for run in baselines)
    table.add_row("macro", _with_interval(tiny.macro), *others)
    Console().print(table)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _with_interval(metrics: Mapping[str, Any]) -> str:
    low, high = metrics["acc@0.5_interval"]
    return f"{_percent(metrics['acc@0.5'])} [{100 * low:.0f},{100 * high:.0f}]"


def _next_steps(out: Path, root: Path) -> None:
    print(
        f"\nEach run is recorded in {out}/<name>/univg_mini: responses, scores, provenance.\n"
        "Intervals are the leaderboard's, by groups of samples that share images; macro is the "
        "unweighted mean of the tasks.\n"
        "center, full, random, spray and refuse never look at an image: a model has to beat the "
        "best of them.\n\n"
        "Next:\n"
        "  test your set-up          univg check --model qwen2_vl --model_args pretrained=DIR\n"
        "  evaluate your own model   univg eval --model qwen2_vl --model_args pretrained=DIR "
        "--tasks univg_mini\n"
        "  the real benchmarks       univg prepare --list, then --tasks univg_mig_bench\n"
        f"  compare runs              univg leaderboard {out}\n"
        f"  every response, drawn     univg report {out}/tiny -o report.html\n"
        f"  look at the scenes        {root}/univg_mini\n"
        "  how it works              docs/evaluate.md"
    )
