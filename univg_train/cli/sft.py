"""``univg-train sft``: supervised fine-tuning of a vision-language model."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError

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
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, as YAML")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings beside or instead of the file's, such as trainer.max_steps=10",
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="go on with a run found in the folder; --no-resume refuses such a folder "
        "(default: resume)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    from univg_train.evaluation.settings import best_text
    from univg_train.sft.settings import load_settings

    settings = load_settings(args.config, args.overrides)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        import trl  # noqa: F401 - tells of a missing extra before anything else
    except ModuleNotFoundError as error:
        raise UserError(
            f"training needs the package {error.name!r}, which is not installed; "
            "install the extra: pip install 'univg[train]'"
        ) from error
    from univg_train.sft.run import train_sft

    with contextlib.redirect_stdout(sys.stderr):  # TRL prints its figures
        summary = train_sft(settings, resume=args.resume)
    if os.environ.get("RANK", "0") != "0":  # of several processes, one tells
        return 0
    if args.json:
        print(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        print(
            f"{summary['steps']} steps on {summary['rows']} rows; "
            f"{summary['trainable_parameters']} of {summary['parameters']} parameters trained; "
            f"model folder: {summary['model']}{best_text(summary)}"
        )
    return 0
