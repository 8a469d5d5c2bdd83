"""Sentences and commands in the terminal: no line is too long, no figure or name is cut."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

__all__ = ["command_lines", "next_lines", "wrapped"]

_GLUED = re.compile(r"(?<=\d) (?=(?:%|points?|pixels?|px|seconds?|s|min|minutes|MiB|GiB|GB)\b|%)")
_HARD = "\N{NO-BREAK SPACE}"  # `textwrap` breaks at plain white space alone
_WORD = r"""(?:"[^"]*"|'[^']*'|[^\s"'])+"""
_WORDS = re.compile(rf"--?[a-z_-]+ (?!-){_WORD}|{_WORD}")  # an option stands with its value
_STEP = 4


def wrapped(text: str, width: int, *, indent: str = "", more: str | None = None) -> list[str]:
    """The text in lines up to `width` wide; a figure keeps its unit, and no word is broken.

    Args:
        text: one paragraph.
        width: of a line; a single word may be longer.
        indent: in front of the first line.
        more: in front of the others; None: `indent`.
    """
    return [
        line.replace(_HARD, " ")
        for line in textwrap.wrap(
            _GLUED.sub(_HARD, text),
            width,
            initial_indent=indent,
            subsequent_indent=indent if more is None else more,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def command_lines(command: str, width: int, indent: str = "") -> list[str]:
    r"""A command to paste, with ``\`` at the end of a line where it goes on in the next.

    A word that is longer than a line goes on at the beginning of the next one, behind a comma.
    """
    room = width - 2  # for the mark
    lines = [indent]
    words = _WORDS.findall(command)
    for number, word in enumerate(words):
        wanted = len(lines[-1]) + 1 + len(word)
        # The last word needs no mark behind it.
        if lines[-1].strip() and wanted > (width if number == len(words) - 1 else room):
            lines[-1] += " \\"
            lines.append(indent + " " * _STEP)
        lines[-1] += f" {word}" if lines[-1].strip() else word
        while len(lines[-1]) > room and (cut := lines[-1].rfind(",", 0, room) + 1):
            lines[-1:] = [lines[-1][:cut] + "\\", lines[-1][cut:]]
    return lines


def next_lines(steps: Iterable[tuple[str, str]], width: int) -> Sequence[str]:
    """What may be done next: words, and beside or below them the command."""
    steps = list(steps)
    column = 2 + max(len(words) for words, _ in steps) + 3
    lines = ["Next:"]
    beside = all(column + len(command) <= width for _, command in steps)
    for words, command in steps:
        if beside:
            lines.append(f"  {words}".ljust(column) + command)
        else:
            lines += [f"  {words}", *command_lines(command, width, " " * _STEP)]
    return lines
