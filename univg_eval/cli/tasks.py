"""``univg tasks``: where the lmms-eval task files lie."""

from __future__ import annotations

import argparse
import json

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "tasks",
        help="print the folder of the lmms-eval tasks",
        description="Print the folder of the lmms-eval task files, for --include_path.",
        epilog="Example: lmms-eval --model qwen2_vl --model_args pretrained=DIR "
        '--tasks univg_mini --include_path "$(univg tasks)"',
    )
    parser.add_argument("--json", action="store_true", help="also list the files, as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the folder."""
    from univg_eval.lmms.task_files import task_folder

    folder = task_folder()
    if args.json:
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.yaml"))
        print(json.dumps({"folder": str(folder), "files": files}, indent=2))
    else:
        print(folder)
    return 0
