"""The command ``univg``: one module a command, each with `add_parser` and a function to run.

Exit status: 0 success; 1 an internal failure; 2 a user's mistake, reported in one message without a
traceback; 3 a check or an audit found something.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from univg_eval.errors import UserError, missing_package, require_command, unknown_option
from univg_eval.terminal import HelpFormatter, safe_streams, show_message

__all__ = ["EXIT_FOUND", "EXIT_USER_ERROR", "build_parser", "main"]

EXIT_USER_ERROR = 2
EXIT_FOUND = 3

# In the order of the help. Their modules import nothing heavy at the top.
COMMANDS = (
    "demo",
    "tasks",
    "dialects",
    "prepare",
    "audit",
    "check",
    "ground",
    "eval",
    "parity",
    "score",
    "rescore",
    "leaderboard",
    "compare",
    "report",
    "export",
    "failures",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``univg`` with all its commands."""
    parser = argparse.ArgumentParser(
        prog="univg",
        description="Evaluate visual grounding: boxes read exactly as each model family writes "
        "them, and numbers with their provenance and intervals.",
        epilog="Example: univg demo\n\n`univg COMMAND --help` describes a command, with examples.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name in COMMANDS:
        importlib.import_module(f"univg_eval.cli.{name}").add_parser(subparsers)
    for command in subparsers.choices.values():
        command.formatter_class = HelpFormatter
        command.set_defaults(command_parser=command)
    return parser


def _escape_what_cannot_be_encoded() -> None:
    """Let no path or sign that the terminal's encoding lacks end a command that has done its work.

    Standard error does so by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _report(message: str) -> None:
    from univg_eval.redaction import without_secrets

    show_message(without_secrets(message))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``univg`` with `argv` (the process's own arguments if None); returns the exit status."""
    _escape_what_cannot_be_encoded()
    argv = sys.argv[1:] if argv is None else argv
    try:
        require_command(argv, COMMANDS)
    except UserError as error:
        _report(f"univg: {error}")
        return EXIT_USER_ERROR
    parser = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if args.version:
        from importlib.metadata import version

        print(version("univg"))
        return 0
    if args.command is None:
        parser.print_help()
        return 0
    if unknown:
        # Only `univg eval` passes arguments on; it asks for them by this attribute.
        if not getattr(args, "takes_unknown", False):
            parser = args.command_parser
            parser.error(unknown_option(unknown, parser.format_usage()))
        args.unknown = unknown
    elif getattr(args, "takes_unknown", False):
        args.unknown = []
    try:
        with safe_streams():
            status: int = args.run(args)
            sys.stdout.flush()
    except UserError as error:
        _report(f"univg {args.command}: {error}")
        return EXIT_USER_ERROR
    except ModuleNotFoundError as error:
        message = missing_package(error)
        if message is None:
            raise
        _report(f"univg {args.command}: {message}")
        return EXIT_USER_ERROR
    except BrokenPipeError:
        # The reader of our output has gone (`univg score … | head`): no error of ours. What is
        # still buffered has nowhere to go, and would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"univg {args.command}: interrupted", file=sys.stderr)
        return 130
    return status
