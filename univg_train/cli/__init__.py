"""The command ``univg-train``. Nothing heavy is imported before a command runs.

Exit status: 0 success; 2 a user's mistake, in one message without a traceback; 3 not
everything could be done (`cot`), or something was found (`data`); 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from univg_eval.errors import UserError, missing_package, require_command
from univg_eval.terminal import HelpFormatter, safe_streams, show_message
from univg_train.cli import cot as cli_cot
from univg_train.cli import curves as cli_curves
from univg_train.cli import data as cli_data
from univg_train.cli import export as cli_export
from univg_train.cli import grpo as cli_grpo
from univg_train.cli import sft as cli_sft
from univg_train.cli import tiny as cli_tiny

__all__ = ["build_parser", "main"]

_EXIT_USER_ERROR = 2
_EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``univg-train`` with all its commands."""
    parser = argparse.ArgumentParser(
        prog="univg-train",
        description="Train visual grounding models.",
        epilog="Example: univg-train tiny --out runs/tiny --minutes 90\n\n"
        "`univg-train COMMAND --help` describes a command, with examples.",
        formatter_class=HelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    cli_tiny.add_parser(commands)
    cli_cot.add_parser(commands)
    cli_data.add_parser(commands)
    cli_sft.add_parser(commands)
    cli_export.add_parser(commands)
    cli_grpo.add_parser(commands)
    cli_curves.add_parser(commands)
    for command in commands.choices.values():
        command.formatter_class = HelpFormatter
    parser.set_defaults(commands=tuple(commands.choices))
    return parser


def _report(message: str) -> None:
    from univg_eval.redaction import without_secrets

    show_message(without_secrets(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``univg-train`` with `argv` (the process's own if None); returns the exit status."""
    parser = build_parser()
    argv = sys.argv[1:] if argv is None else argv
    try:
        require_command(argv, parser.get_default("commands"))
    except UserError as error:
        _report(f"univg-train: {error}")
        return _EXIT_USER_ERROR
    args, rest = parser.parse_known_args(argv)
    # argparse takes positional arguments only up to the first option behind them.
    if any(word.startswith("-") for word in rest) or (rest and not hasattr(args, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.overrides += rest
    if args.command is None:
        parser.print_help()
        return 0
    try:
        with safe_streams():
            status: int = args.run(args)
    except UserError as error:
        _report(f"univg-train {args.command}: {error}")
        return _EXIT_USER_ERROR
    except ModuleNotFoundError as error:
        message = missing_package(error)
        if message is None:
            raise
        _report(f"univg-train {args.command}: {message}")
        return _EXIT_USER_ERROR
    except KeyboardInterrupt:
        print(f"univg-train {args.command}: interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return status
