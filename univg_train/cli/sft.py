"""``univg-train sft``: supervised fine-tuning of a vision-language model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.runs.threads import choose_threads
from univg_train.cli._estimating import add_dry_run, check_dry_run, estimate_and_report, row_report
from univg_train.cli._running import add_overrides, extra_needed, run_and_report

if TYPE_CHECKING:
    from univg_train.cli._estimating import RowReport
    from univg_train.runs.estimate import Estimate, Gpu
    from univg_train.sft.settings import SftSettings

__all__ = ["add_parser", "run"]

_EPILOG = """\
example:
  univg-train sft --config stage1.yaml data.images=/data trainer.output_dir=runs/stage1
  accelerate launch --num_processes 8 "$(command -v univg-train)" sft --config stage1.yaml

The same command again goes on with a run that was stopped. The keys are explained in docs/sft.md.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``univg-train``."""
    parser = commands.add_parser(
        "sft",
        help="supervised fine-tuning on grounding data",
        description="Fine-tune a vision-language model on grounding data with TRL's SFTTrainer. "
        "Settings, checkpoint, rows and images are checked before the model is loaded.",
        epilog=_EPILOG,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as YAML")
    add_overrides(parser)
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with a run found in the folder; --no-resume refuses such a folder "
        "(default: resume)",
    )
    add_dry_run(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, or estimate; returns the exit status."""
    check_dry_run(args)
    choose_threads()
    with extra_needed():
        from univg_train.sft.run import train_sft
        from univg_train.sft.settings import load_settings

        settings = load_settings(args.config, args.overrides)
    if args.dry_run:
        return _estimate(settings, args)
    return run_and_report(
        lambda: train_sft(settings, resume=args.resume), settings.output_dir, args.json
    )


def _estimate(settings: SftSettings, args: argparse.Namespace) -> int:
    from univg_train.sft.estimate import estimate_sft
    from univg_train.sft.run import check_sft, sft_arguments

    def estimate(processes: int, sharding: str, gpu: Gpu) -> tuple[Estimate, RowReport]:
        arguments = sft_arguments(settings, use_cpu=True)  # of a run that another machine may do
        checked = check_sft(settings, arguments.max_length)
        found = estimate_sft(settings, checked, processes=processes, sharding=sharding, gpu=gpu)
        kinds: dict[str, Any] = {name: {"rows": n} for name, n in checked.data.report.kinds.items()}
        return found, row_report(checked, kinds)

    return estimate_and_report(args, estimate)
