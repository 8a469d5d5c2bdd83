"""What several commands of ``univg-train`` share."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError, install_command
from univg_eval.files import NO_ROOM
from univg_eval.terminal import fitted, terminal_width

__all__ = [
    "add_overrides",
    "extra_needed",
    "print_fitted",
    "report_once",
    "room_in",
    "run_and_report",
    "usable_folder",
]


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """The changes behind the file of settings, and how the result is printed."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings beside or instead of the file's, such as trainer.max_steps=10",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@contextmanager
def extra_needed() -> Iterator[None]:
    """Turn a missing package into the command that installs the extra.

    Raises:
        UserError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(
            f"training needs the package {error.name!r}, which is not installed; "
            f"{install_command('train')}"
        ) from error


_ERRNO_OF_RUST = re.compile(r"\(os error (\d+)\)")  # safetensors, tokenizers
_WORDS_OF_TORCH = ("PytorchStreamWriter failed", "unexpected pos", "iostream error")


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Report a disk that fills while a command saves.

    Raises:
        UserError: instead of what Python, safetensors, tokenizers or torch raise of it.
    """
    try:
        yield
    except Exception as error:  # tokenizers raises no narrower one; all others go on
        if (reason := _no_room(error)) is None:
            raise
        raise UserError(
            f"cannot save into {folder}: {reason}; free space and run the same command again: it "
            "goes on from what was saved whole"
        ) from error


def _no_room(error: Exception) -> str | None:
    """Why a file could not be written to its end; None if that is not what happened."""
    number = error.errno if isinstance(error, OSError) else None
    if match := _ERRNO_OF_RUST.search(str(error)):
        number = int(match[1])
    if number in NO_ROOM:
        return os.strerror(number)
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS_OF_TORCH):
        return "torch could not write a file to its end, as where the disk is full"
    return None


@contextmanager
def usable_folder(folder: Path) -> Iterator[None]:
    """Report a folder, or a file in it, that cannot be read or written.

    Raises:
        UserError: instead of an OSError of the block that is of a file, or see `room_in`.
    """
    try:
        with room_in(folder):
            yield
    except OSError as error:
        if error.filename is None:
            raise
        raise UserError(
            f"cannot use {folder}: {error.filename}: {error.strerror}; give another --out"
        ) from error


def run_and_report(train: Callable[[], dict[str, Any]], folder: Path, as_json: bool) -> int:
    """Train into a folder, and print the summary; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    with room_in(folder), contextlib.redirect_stdout(sys.stderr):  # where TRL prints its figures
        summary = train()
    text = (
        f"{summary['steps']} steps on {summary['rows']} rows; "
        f"{summary['trainable_parameters']} of {summary['parameters']} parameters trained; "
        f"model folder: {summary['model']}"
    )
    if best := summary.get("best"):
        text += (
            f"; best: step {best['step']}, {best['metric']} {best['value']:.3f}, in {best['model']}"
        )
    report_once(summary, text, as_json)
    return 0


def report_once(values: dict[str, Any], text: str, as_json: bool) -> None:
    """Print from the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        if as_json:
            print(json.dumps(values, ensure_ascii=False, indent=2))
        else:
            print_fitted(text)


def print_fitted(text: str) -> None:
    """Print lines as wide as the terminal."""
    for line in text.split("\n"):
        print("\n".join(fitted(line, terminal_width())))
