"""``univg-train tiny``: train a tiny model on generated scenes; its stages one after the other."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.progress import progress_bars
from univg_eval.terminal import Sheet, sheet_lines, terminal_width
from univg_train.cli._arguments import positive_int, positive_number
from univg_train.cli._running import extra_needed, print_fitted, usable_folder
from univg_train.runs.folder import sole_writer

__all__ = ["add_parser", "run", "stage_table"]

_EPILOG = """\
example:
  univg-train tiny --out runs/tiny --minutes 90
      as the shipped model, on two cores; stop it at any time, the same command goes on with it
  univg-train tiny --out runs/tiny --steps 4400
      the same weights every time on the same machine and versions
  univg-train tiny --stage all --quick --out runs/stages
      from the shipped model: direct answers, chains of thought, GRPO with
      difficulty weights, in less than ten minutes; without --quick from
      nothing, in some three hours

At the end DIR/checkpoint (with --stage: DIR/grpo/model) holds a model folder:
  univg eval --model univg --model_args pretrained=runs/tiny/checkpoint \\
    --tasks univg_mini --batch_size 16 --output_path out
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``univg-train``."""
    tiny = commands.add_parser(
        "tiny",
        help="build a tiny Qwen2-VL and train it on generated scenes, on CPU",
        description="Build a tiny Qwen2-VL and train it on generated scenes, on a few CPU cores. "
        "A run that was stopped goes on where its last saved state stands.",
        epilog=_EPILOG,
    )
    tiny.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the run"
    )
    tiny.add_argument("--seed", type=int, default=0, help="of weights and scenes (default 0)")
    tiny.add_argument(
        "--minutes",
        type=positive_number,
        help="wall time of training, all resumptions together (default 90 without --steps)",
    )
    tiny.add_argument("--steps", type=positive_int, help="end after this many optimiser steps")
    tiny.add_argument(
        "--threads",
        type=positive_int,
        default=2,
        help="processes that compute gradients; the result does not depend on it (default 2)",
    )
    tiny.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with a state found in DIR; --no-resume begins anew (default: resume)",
    )
    tiny.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="let torch compile the layers; needs a C++ compiler",
    )
    tiny.add_argument(
        "--validate-every",
        type=positive_number,
        metavar="MINUTES",
        help="minutes between validations (default 10)",
    )
    stages = tiny.add_argument_group(
        "stages", "the whole pipeline; each stage is evaluated on the same held-out samples"
    )
    stages.add_argument(
        "--stage",
        choices=("all", "direct", "cot", "grpo"),
        help="direct (supervised), cot (supervised, with chains of thought), grpo, or all of them "
        "in this order; each goes on from the one before",
    )
    stages.add_argument(
        "--quick",
        action="store_true",
        help="from the shipped model and short, instead of from nothing",
    )
    stages.add_argument("--json", action="store_true", help="print the summary as JSON")
    tiny.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    _require_fitting(args)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    with extra_needed(), usable_folder(args.out), sole_writer(args.out):
        return _run_pretraining(args) if args.stage is None else _run_stages(args)


def _require_fitting(args: argparse.Namespace) -> None:
    """Refuse options that would be without effect."""
    if args.stage is None:
        given = [name for name in ("quick", "json") if getattr(args, name)]
        if given:
            raise UserError(f"--{given[0]} belongs to --stage; add --stage all")
        return
    why = "the stages end by their own numbers of steps, so that every run of them is the same"
    for name in ("minutes", "steps", "validate_every"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} does not go with --stage: {why}")
    if not args.resume:
        raise UserError("--no-resume does not go with --stage; give another folder")
    if args.quick and args.compile:
        raise UserError("--compile is for the training from nothing, which --quick leaves out")


def _run_pretraining(args: argparse.Namespace) -> int:
    from univg_train.tiny.pretraining import TinySettings, train_tiny

    minutes = 90.0 if args.minutes is None and args.steps is None else args.minutes
    settings = TinySettings(seed=args.seed, steps=args.steps, minutes=minutes)
    result = train_tiny(
        args.out,
        settings,
        threads=args.threads,
        resume=args.resume,
        compile_layers=args.compile,
        validate_minutes=10.0 if args.validate_every is None else args.validate_every,
    )
    print_fitted(
        f"{result.steps} steps in {result.minutes:.1f} minutes; validation macro Acc@0.5 "
        f"{result.macro:.3f}; model folder: {result.checkpoint}"
    )
    return 0


def _run_stages(args: argparse.Namespace) -> int:
    import trl  # noqa: F401 - a missing extra is reported before anything else
    from transformers.utils.logging import disable_progress_bar

    from univg_train.tiny.stages import FULL, QUICK, STAGES, run_stages

    # Of every load and save; the stages have their own.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    # Where the trainers print: not into the table.
    with contextlib.redirect_stdout(sys.stderr), progress_bars() as progress:
        summary = run_stages(
            args.out,
            QUICK if args.quick else FULL,
            stages=STAGES if args.stage == "all" else (args.stage,),
            seed=args.seed,
            processes=args.threads,
            compile_layers=args.compile,
            progress=progress,
        )
    print(json.dumps(summary, indent=2) if args.json else stage_table(summary))
    return 0


def stage_table(summary: dict[str, Any]) -> str:
    """The stages of a summary as text, scores in percent with 95 % intervals."""
    rows = []
    for stage in summary["stages"]:
        before, after = stage["before"], stage["after"]
        accuracy, miou, answered = (
            f"{100 * before[metric]:.1f} → {100 * after[metric]:.1f}"
            for metric in ("acc@0.5", "miou", "answered")
        )
        limits = ""
        if after["interval95"] is not None:
            limits = "–".join(f"{100 * limit:.1f}" for limit in after["interval95"])
        training = (
            f"reward {stage['reward_first_epoch']:.2f} → {stage['reward_last_epoch']:.2f}"
            if "reward_last_epoch" in stage
            else f"loss {stage['loss']:.3f}"
        )
        minutes, steps = f"{stage['seconds'] / 60:.1f}", str(stage["steps"])
        row = (stage["name"], after["style"], accuracy, limits, miou, answered)
        rows.append((*row, steps, minutes, training))
    heldout = summary["heldout"]
    heads = (
        *("stage", "prompt", "acc@0.5 %", "95 % interval", "mIoU %", "answered %"),
        *("steps", "minutes", "training"),
    )
    title = (
        f"{heldout['n']} held-out samples ({', '.join(heldout['tasks'])}), before → after the "
        "stage. A model is prompted as it was trained: before cot, directly."
    )
    lines = list(sheet_lines(Sheet(title, heads, rows), terminal_width()))
    if summary["stages"]:
        lines.append(f"model folder: {summary['stages'][-1]['model']}")
    return "\n".join(lines)
