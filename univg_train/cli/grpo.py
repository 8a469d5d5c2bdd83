"""``univg-train grpo`` and ``univg-train configs``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_eval.runs.threads import choose_threads
from univg_eval.terminal import fitted, terminal_width
from univg_train.cli._running import add_overrides, extra_needed, report_once, run_and_report
from univg_train.runs.sharding import SHARDINGS

if TYPE_CHECKING:
    from univg_train.grpo.estimate import Estimate
    from univg_train.grpo.settings import GrpoSettings

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
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print steps and memory, and load no weights",
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="with --dry-run: devices of the run (default: those of the launcher, or 1)",
    )
    parser.add_argument(
        "--sharding",
        choices=SHARDINGS,
        help="with --dry-run: how weights are spread over them (default: as launched)",
    )
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
    if not args.dry_run and (args.processes is not None or args.sharding is not None):
        raise UserError(
            "--processes and --sharding belong to --dry-run; a run has those of `accelerate launch`"
        )
    if args.processes is not None and args.processes < 1:
        raise UserError(f"--processes is {args.processes}; expected at least 1")
    choose_threads()
    with extra_needed():
        from univg_train.grpo.run import train_grpo
        from univg_train.grpo.settings import load_grpo_settings

        settings = load_grpo_settings(args.config, args.overrides)
    if args.dry_run:
        return _estimate(settings, args)
    return run_and_report(lambda: train_grpo(settings), args.json)


def _estimate(settings: GrpoSettings, args: argparse.Namespace) -> int:
    from univg_train.grpo.batches import check_batch, planned_arguments
    from univg_train.grpo.estimate import estimate_run
    from univg_train.grpo.run import check_grpo
    from univg_train.runs.sharding import sharding_of_environment
    from univg_train.runs.training import processes_of_environment

    processes = args.processes or processes_of_environment()
    sharding = args.sharding or sharding_of_environment()
    check_batch(settings, processes)
    arguments = planned_arguments(settings, processes)
    checked = check_grpo(settings, arguments, processes)
    found = estimate_run(settings, checked, processes=processes, sharding=sharding)
    report = checked.data.report
    rows = {
        "kinds": settings.rewards_by_kind(report.kinds),
        "left_out": dict(report.left_out.most_common()),
    }
    values = {"processes": processes, "sharding": sharding, **found.to_dict(), **rows}
    report_once(values, _text(found, rows, processes, sharding), args.json)
    return 0


def run_configs(args: argparse.Namespace) -> int:
    """List the files, or print the path of one."""
    from univg_train.configs import config_path, list_configs

    if args.name is not None:
        print(config_path(args.name))
        return 0
    for name, meaning in list_configs().items():
        print("\n".join(fitted(f"{name:32} {meaning}", terminal_width())))
    return 0


def _text(found: Estimate, rows: dict[str, Any], processes: int, sharding: str) -> str:
    from univg_train.data import LEFT_OUT, ROW_KINDS

    memory = found.memory
    sizes = [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("reference model", memory.reference),
        ("activations", memory.activations),
        ("or cache of keys and values", memory.cache),
        ("  and weights gathered for it", memory.gathered),
        ("or the whole reference model", memory.whole_reference),
        ("in all", memory.total),
    ]
    lines = [
        f"{found.parameters:,} parameters, {found.trained:,} trained",
        f"{found.rows:,} rows; the longest prompt about {found.prompt_tokens:,} tokens",
        *(
            f"  {kind['rows']:8,} with {ROW_KINDS[name]}, rewarded by {kind['reward']}"
            for name, kind in rows["kinds"].items()
        ),
        *(f"  {n:8,} left out: {LEFT_OUT[name]}" for name, n in rows["left_out"].items()),
        f"{found.steps:,} steps ({found.steps_per_epoch:,} an epoch), {found.rollouts:,} rollouts",
        f"memory on each of {processes} devices, sharding {sharding}, in GiB (docs/train.md):",
    ]
    lines += [f"  {name:28} {size / 2**30:8.2f}" for name, size in sizes]
    return "\n".join(lines)
