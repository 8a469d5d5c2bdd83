"""``univg tasks``: where the lmms-eval task files lie."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from univg_eval.errors import UserError

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "tasks",
        help="print the folder of the lmms-eval tasks",
        description="Print the folder of the lmms-eval task files, for --include_path. A copy has "
        "a task for each named set of your own too, and takes further task files.",
        epilog="Example: lmms-eval --model qwen2_vl --model_args pretrained=DIR "
        '--tasks univg_mini --include_path "$(univg tasks)"',
    )
    parser.add_argument("--json", action="store_true", help="also list the files, as JSON")
    parser.add_argument(
        "--copy",
        metavar="DIR",
        type=Path,
        help="copy the folder to DIR, with the tasks univg_custom:NAME, and print DIR",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the folder, or copy it."""
    from univg_eval.files import require_writable
    from univg_eval.lmms.task_files import copy_task_folder, task_folder

    folder = args.copy or task_folder()
    if args.copy is not None:
        if folder.exists():
            raise UserError(f"--copy {folder} exists; give a folder that does not, or remove it")
        require_writable(folder.parent, "--copy")
        copy_task_folder(folder)
    if args.json:
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml"))
        print(json.dumps({"folder": str(folder), "files": files}, indent=2))
    else:
        print(folder)
    return 0
