"""``univg eval``: lmms-eval with its own arguments, checked first, recorded afterwards."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a model through lmms-eval and write a run record",
        description="Evaluate a model on this project's tasks through lmms-eval. Takes all "
        "arguments of lmms-eval (see `lmms-eval eval --help`) and passes them on; the task folder "
        "is included, samples are logged. Before the model is loaded, the benchmark must be "
        "prepared and the dialect known. Exit status 1 if the evaluation failed or a server "
        "answered no request.",
        epilog="Example: univg eval --model qwen2_5_vl --model_args pretrained=DIR "
        "--tasks univg_mini --batch_size 8 --output_path out",
        usage="univg eval [--dialect NAME] [--prompt STYLE] [--protocol NAME] "
        "[--controls [NAMES]] [--records DIR] --model M --model_args A --tasks T "
        "[arguments of lmms-eval …]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dialect", metavar="NAME", help="how the model writes boxes (`univg dialects`)"
    )
    parser.add_argument(
        "--prompt", metavar="STYLE", help="think (reason, then <answer>), direct or official"
    )
    parser.add_argument("--protocol", metavar="NAME", help="scoring rule, default univg")
    parser.add_argument(
        "--controls",
        metavar="NAMES",
        nargs="?",
        const="all",
        help="evaluate again without what is needed to answer: blank, swapped, permuted, cut "
        "(separated by commas), or all, the default",
    )
    parser.add_argument(
        "--records",
        metavar="DIR",
        type=Path,
        help="parent folder of the run record; default <output_path>/records",
    )
    parser.set_defaults(run=run, takes_unknown=True)


def run(args: argparse.Namespace) -> int:
    """Check, evaluate, record."""
    from univg_eval.lmms.extra import require_lmms_eval

    require_lmms_eval()
    from univg_eval.lmms.command import control_names, run_eval

    return run_eval(
        args.unknown,
        settings={name: getattr(args, name) for name in ("dialect", "prompt", "protocol")},
        records=args.records,
        controls=() if args.controls is None else control_names(args.controls),
    )
