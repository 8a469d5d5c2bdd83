"""Text for the terminal: sentences, commands and help, without a line that is too long."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

__all__ = ["HelpFormatter", "command_lines", "next_lines", "wrapped"]

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


_COMMAND = re.compile(r"(?:univg|univg-train|lmms-eval|accelerate|cd) ")
_EXAMPLE = re.compile(r"([Ee]xamples?:) +(?=univg|lmms-eval)")
_GOES_ON = re.compile(r"( *)\\\n( *)")


class HelpFormatter(argparse.HelpFormatter):
    """Help as wide as the terminal: paragraphs are wrapped, commands stay commands.

    In descriptions and examples, a line that is indented stands by itself. A command among these
    that is too long is broken so that it can be pasted.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        text = _EXAMPLE.sub(r"\1\n  ", text.strip("\n"))
        text = _GOES_ON.sub(lambda match: " " if match[1] or match[2] else "", text)
        return "\n".join(indent + line if line else "" for line in _help_lines(text, width))

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        if usage is None:
            return super()._format_usage(usage, actions, groups, prefix)
        usage = re.sub(r"\[[^\]]*\]", lambda match: match[0].replace(" ", _HARD), usage)
        lines = wrapped(f"usage: {usage}", self._width, more=" " * len("usage: "))
        return "\n".join(lines) + "\n\n"


def _help_lines(text: str, width: int) -> Iterator[str]:
    paragraph: list[str] = []
    for line in [*text.split("\n"), ""]:
        stands_alone = not line or line.startswith(" ")
        if not stands_alone:
            paragraph.append(line)
        if paragraph and (stands_alone or line.endswith(":")):
            yield from wrapped(" ".join(paragraph), width)
            paragraph = []
        if stands_alone:
            yield from _indented(line, width)


def _indented(line: str, width: int) -> Iterable[str]:
    words = line.strip()
    indent = line[: len(line) - len(line.lstrip())]
    if len(line) <= width:
        return [line.rstrip()]
    if _COMMAND.match(words):
        return command_lines(words, width, indent)
    column = re.match(r"\S+ {2,}", words)
    end = column.end() if column else 0
    glued = words[:end].replace(" ", _HARD) + words[end:]
    return wrapped(glued, width, indent=indent, more=indent + " " * end)
