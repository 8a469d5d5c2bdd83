"""``univg-train export``: data and settings of a run for another trainer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from univg_eval.progress import progress_bars, step
from univg_train.cli._running import usable_folder

__all__ = ["add_parser", "run"]

_EPILOG = """\
example:
  univg-train export --format llamafactory --config stage1.yaml --name stage1 --out runs/export
  cd LLaMA-Factory && FORCE_TORCHRUN=1 llamafactory-cli train /path/to/runs/export/stage1.yaml
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``univg-train``."""
    parser = commands.add_parser(
        "export",
        help="write data and settings of `sft` for LLaMA-Factory",
        description="Write the rows and settings of `univg-train sft` as LLaMA-Factory reads them: "
        "a ShareGPT file, dataset_info.json and the settings of a run. Rows are checked as there; "
        "images stay where they are.",
        epilog=_EPILOG,
    )
    parser.add_argument("--format", required=True, choices=("llamafactory",), help="of the files")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings of `univg-train sft`")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder to write"
    )
    parser.add_argument("--name", required=True, help="of the data set and its files")
    parser.add_argument(
        "--template",
        help="LLaMA-Factory's name of the model's chat template (default: qwen2_vl for the "
        "dialects of Qwen2-VL and Qwen2.5-VL)",
    )
    parser.add_argument(
        "--deepspeed",
        default="examples/deepspeed/ds_z3_config.json",
        metavar="FILE",
        help="DeepSpeed's settings (default: ZeRO-3, a file of LLaMA-Factory); none: without",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="settings, as for `univg-train sft`"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the files; returns the exit status."""
    from univg_train.runs.rows import open_rows
    from univg_train.sft.llamafactory import export_llamafactory
    from univg_train.sft.settings import load_settings

    settings = load_settings(args.config, args.overrides, with_trl=False)
    with progress_bars() as progress:
        data = open_rows(
            settings,
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
            progress=step(progress, "reading rows"),
        )
    with progress_bars() as progress, usable_folder(args.out):
        left_out = export_llamafactory(
            data,
            settings,
            args.out,
            name=args.name,
            template=args.template,
            deepspeed=None if args.deepspeed == "none" else args.deepspeed,
            progress=step(progress, "writing rows"),
        )
    if left_out:
        print(f"without a counterpart, left out: {', '.join(left_out)}", file=sys.stderr)
    print(f"{len(data)} rows; settings: {args.out / (args.name + '.yaml')}")
    return 0
