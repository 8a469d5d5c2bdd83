"""``univg-train grpo`` and ``univg-train configs``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.runs.threads import choose_threads
from univg_eval.terminal import fitted, terminal_width
from univg_train.cli._estimating import add_dry_run, check_dry_run, estimate_and_report, row_report
from univg_train.cli._running import add_overrides, extra_needed, run_and_report

if TYPE_CHECKING:
    from univg_train.cli._estimating import RowReport
    from univg_train.grpo.settings import GrpoSettings
    from univg_train.runs.estimate import Estimate, Gpu

__all__ = ["add_parser", "run", "run_configs"]

_EPILOG = """\
example:
  univg-train grpo --config "$(univg-train configs qwen2_5_vl_3b_lora)" \\
      data.file=stage2_rl.json data.images=/data --dry-run
  accelerate launch --config_file "$(univg-train configs zero3)" "$(command -v univg-train)" grpo \\
      --config "$(univg-train configs qwen2_vl_7b_grpo)"

The same command again goes on with a run that was stopped. See docs/train.md.
"""


def add_parser(commands: Any) -> None:
    """Add the commands to the parser of ``univg-train``."""
    parser = commands.add_parser(
        "grpo",
        help="GRPO with the evaluation as reward and prompts weighted by difficulty",
        description="Train a vision-language model by GRPO on grounding data. Settings, rows, "
        "images and leaks are checked before the model is loaded.",
        epilog=_EPILOG,
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML file")
    add_overrides(parser)
    add_dry_run(parser)
    parser.set_defaults(run=run)
    configs = commands.add_parser(
        "configs",
        help="list the configuration files that come along, or print the path of one",
        description="List the configuration files that come along, or print the path of one.",
        epilog="Example: univg-train configs tiny_grpo",
    )
    configs.add_argument("name", nargs="?", metavar="NAME", help="print this one's path")
    configs.set_defaults(run=run_configs)


def run(args: argparse.Namespace) -> int:
    """Train, or estimate; returns the exit status."""
    check_dry_run(args)
    choose_threads()
    with extra_needed():
        from univg_train.grpo.run import train_grpo
        from univg_train.grpo.settings import load_grpo_settings

        settings = load_grpo_settings(args.config, args.overrides)
    if args.dry_run:
        return _estimate(settings, args)
    return run_and_report(lambda: train_grpo(settings), settings.output_dir, args.json)


def _estimate(settings: GrpoSettings, args: argparse.Namespace) -> int:
    from univg_train.grpo.batches import check_batch, planned_arguments
    from univg_train.grpo.estimate import estimate_grpo
    from univg_train.grpo.run import check_grpo

    def estimate(processes: int, sharding: str, gpu: Gpu) -> tuple[Estimate, RowReport]:
        check_batch(settings, processes)
        arguments = planned_arguments(settings, processes)
        checked = check_grpo(settings, arguments, processes)
        found = estimate_grpo(settings, checked, processes=processes, sharding=sharding, gpu=gpu)
        return found, row_report(checked, settings.rewards_by_kind(checked.data.report.kinds))

    return estimate_and_report(args, estimate)


def run_configs(args: argparse.Namespace) -> int:
    """List the files, or print the path of one."""
    from univg_train.configs import config_path, list_configs

    if args.name is not None:
        print(config_path(args.name))
        return 0
    for name, meaning in list_configs().items():
        print("\n".join(fitted(f"{name:32} {meaning}", terminal_width())))
    return 0
