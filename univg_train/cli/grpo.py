"""``univg-train grpo`` and ``univg-train configs``."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from univg_train.grpo.estimate import Estimate

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
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="YAML file")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings beside or instead of the file's, such as trainer.max_steps=10",
    )
    parser.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="the same",
    )
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
        choices=("none", "zero3", "fsdp2"),
        help="with --dry-run: how weights are spread over them (default: as launched)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)
    configs = commands.add_parser(
        "configs",
        help="list the configuration files that come along, or print the path of one",
        description="List the configuration files that come along, or print the path of one.",
    )
    configs.add_argument("name", nargs="?", metavar="NAME", help="print this one's path")
    configs.set_defaults(run=run_configs)


def run(args: argparse.Namespace) -> int:
    """Train, or estimate; returns the exit status."""
    if not args.dry_run and (args.processes is not None or args.sharding is not None):
        raise UserError(
            "--processes and --sharding belong to --dry-run; a run has those of its launcher: "
            "accelerate launch --num_processes N --config_file FILE"
        )
    if args.processes is not None and args.processes < 1:
        raise UserError(f"--processes is {args.processes}; expected at least 1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        from univg_train.grpo import batches as rollout_batches
        from univg_train.grpo import estimate
        from univg_train.grpo import run as grpo_run
        from univg_train.grpo import settings as grpo_settings
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        settings = grpo_settings.load_grpo_settings(args.config, [*args.overrides, *args.changes])
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    if not args.dry_run:
        with contextlib.redirect_stdout(sys.stderr):  # where the trainer prints its figures
            summary = grpo_run.train_grpo(settings)
        if int(os.environ.get("RANK", "0")) == 0:
            _print(summary, args.json, _finished)
        return 0
    processes = args.processes or grpo_run.processes_of_environment()
    sharding = args.sharding or grpo_run.sharding_of_environment()
    rollout_batches.check_batch(settings, processes)
    arguments = grpo_settings.planned_arguments(settings, processes)
    checked = grpo_run.check_run(settings, arguments, processes, sharding)
    found = estimate.estimate_run(settings, checked, processes=processes, sharding=sharding)
    if int(os.environ.get("RANK", "0")) == 0:
        how = {"processes": processes, "sharding": sharding}
        _print(how | found.to_dict(), args.json, lambda _: _text(found, processes, sharding))
    return 0


def run_configs(args: argparse.Namespace) -> int:
    """List the files, or print the path of one."""
    from univg_train.configs import config_path, list_configs

    if args.name is not None:
        print(config_path(args.name))
        return 0
    for name, meaning in list_configs().items():
        print(f"{name:32} {meaning}")
    return 0


def _missing(error: ModuleNotFoundError) -> UserError:
    return UserError(
        f"training needs the package {error.name!r}, which is not installed; "
        "install the extra: pip install 'univg[train]'"
    )


def _print(values: dict[str, Any], as_json: bool, text: Any) -> None:
    print(json.dumps(values, ensure_ascii=False, indent=2) if as_json else text(values))


def _finished(summary: dict[str, Any]) -> str:
    from univg_train.evaluation.settings import best_text

    told = f"{summary['steps']} steps on {summary['rows']} rows; model folder: {summary['model']}"
    return told + best_text(summary)


def _text(found: Estimate, processes: int, sharding: str) -> str:
    memory = found.memory
    rows = [
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
        f"{found.steps:,} steps ({found.steps_per_epoch:,} an epoch), {found.rollouts:,} rollouts",
        f"memory on each of {processes} devices, sharding {sharding}, in GiB (docs/train.md):",
    ]
    lines += [f"  {name:28} {size / 2**30:8.2f}" for name, size in rows]
    return "\n".join(lines)
