"""Text for the terminal, in lines that fit: sentences, commands, help and tables of figures.

Nothing that one reads as a whole is cut: no figure, unit, id or command.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, NamedTuple, TextIO, cast

from univg_eval.redaction import secret_values, without_values

__all__ = [
    "HelpFormatter",
    "Sheet",
    "command_lines",
    "fitted",
    "next_lines",
    "safe_streams",
    "sheet_lines",
    "show_message",
    "terminal_width",
    "visible",
    "wrapped",
]

PIPED_WIDTH = 160
"""Characters a line where nothing says how many are shown."""

_GLUED = re.compile(r"(?<=\d) (?=(?:%|points?|pixels?|px|seconds?|s|min|minutes|MiB|GiB|GB)\b|%)")
_QUOTED = re.compile(r"`[^`]+`\S?")
_HARD = "\N{NO-BREAK SPACE}"  # `textwrap` breaks at plain white space alone
_WORD = r"""(?:"[^"]*"|'[^']*'|[^\s"'])+"""
_WORDS = re.compile(rf"--?[a-z_-]+ (?!-){_WORD}|{_WORD}")  # an option stands with its value
_STEP = 4


def terminal_width() -> int:
    """Characters a line: as the terminal or ``COLUMNS`` says, else `PIPED_WIDTH`."""
    return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns


def visible(text: str) -> str:
    """The text with control characters written as escapes: a name must not steer a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


_COLOURS = r"\x1b\[[\d;]*m"
_BARS = r"\r|\x1b\[[\d;?]*[AGJKhlm]"
"""With these a bar is drawn again and again in one place."""


def _harmless(text: str, allowed: str) -> str:
    r"""The text with ``\u001b`` and the like, as JSON has it, for what would steer a terminal.

    Such are control characters but tabs and ends of lines, and what turns the direction of writing.

    Args:
        text: of several lines.
        allowed: a pattern of what stays.
    """
    steering = rf"({allowed})|[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
    return re.sub(steering, lambda found: found[1] or f"\\u{ord(found[0]):04x}", text)


def show_message(message: str) -> None:
    """Write a message, with whatever names it holds, to standard error."""
    sys.stderr.write("\n".join(map(visible, message.split("\n"))) + "\n")
    sys.stderr.flush()


class _SafeStream:
    """A stream whose text, of whichever library, steers no terminal and shows no key."""

    def __init__(self, stream: TextIO, allowed: str) -> None:
        self._stream, self._allowed = stream, allowed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write it; see `_harmless`."""
        shown = _harmless(text, self._allowed)
        self._stream.write(without_values(shown, secret_values()))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each."""
        for line in lines:
            self.write(line)


@contextmanager
def safe_streams() -> Iterator[None]:
    """Let nothing that is printed in the block steer the terminal or show a key.

    Keys are those of the environment, see `univg_eval.redaction.secret_values`.
    """
    out, errors = _SafeStream(sys.stdout, _COLOURS), _SafeStream(sys.stderr, _BARS)
    with redirect_stdout(cast("TextIO", out)), redirect_stderr(cast("TextIO", errors)):
        yield


def wrapped(text: str, width: int, *, indent: str = "", more: str | None = None) -> list[str]:
    """The text in lines up to `width` wide; no word is broken.

    A figure keeps its unit, and a command between backticks its words, where there is room.

    Args:
        text: one paragraph.
        width: of a line; a single word may be longer.
        indent: in front of the first line.
        more: in front of the others; None: `indent`.
    """
    room = width - len(indent if more is None else more)

    def glued(match: re.Match[str]) -> str:
        return match[0].replace(" ", _HARD) if len(match[0]) < room else match[0]

    return [
        line.replace(_HARD, " ")
        for line in textwrap.wrap(
            _QUOTED.sub(glued, _GLUED.sub(_HARD, text)),
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
            yield from fitted(line, width)


def fitted(line: str, width: int) -> Sequence[str]:
    """A line of its own in lines up to `width` wide, the others behind its indentation or name.

    >>> fitted("  form  boxes between tags", 20)
    ['  form  boxes', '        between tags']
    """
    words = line.strip()
    indent = line[: len(line) - len(line.lstrip())]
    if len(line) <= width:
        return [line.rstrip().replace(_HARD, " ")]
    if _COMMAND.match(words):
        return command_lines(words, width, indent)
    column = re.match(r"\S+(?: \S+)? {2,}", words)
    end = column.end() if column else 2
    glued = words if column is None else words[:end].replace(" ", _HARD) + words[end:]
    return wrapped(glued, width, indent=indent, more=indent + " " * end)


# Tables

_NAME, _HEAD = 20, 12
"""Characters up to which a name of several words, and a word of a head, stay whole where there is
little room."""
_FIGURES = 24
"""Characters of a line that names leave to figures."""
_GAP = 2


class Sheet(NamedTuple):
    """Cells as text; heads of several words and names may be broken where there is little room.

    Attributes:
        title: above the table; may be empty.
        heads: of the columns.
        rows: one cell a column each.
        names: how many of the first columns hold names.
        totals: how many of the last rows stand below a line.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1
    totals: int = 0


def sheet_lines(sheet: Sheet, width: int) -> Iterator[str]:
    """One table, or several with the same names where the terminal is too narrow; `visible`."""
    yield from wrapped(visible(sheet.title), width)
    if sheet.title:
        yield ""
    heads, *rows = (tuple(map(visible, row)) for row in (sheet.heads, *sheet.rows))
    for part in _parts(sheet._replace(heads=heads, rows=rows), width):
        yield from part
        yield ""


def _parts(sheet: Sheet, width: int) -> Iterator[list[str]]:
    """The lines of each table."""
    names = range(sheet.names)
    figures = range(sheet.names, len(sheet.heads))
    broad = [_broad(sheet, column) for column in range(len(sheet.heads))]
    if sum(broad) + _GAP * (len(broad) - 1) <= width:
        yield _lines(sheet, [*names, *figures], broad)
        return
    # Heads on several lines first, then names, then tables in parts.
    narrow = [*_name_widths(sheet, width), *(_longest(sheet, column) for column in figures)]
    room = width - sum(narrow[column] + _GAP for column in names) + _GAP
    parts: list[list[int]] = [[]]
    left = room
    for column in figures:
        left -= narrow[column] + _GAP
        if left < 0 and parts[-1]:
            parts.append([])
            left = room - narrow[column] - _GAP
        parts[-1].append(column)
    for part in parts:
        columns, widths = [*names, *part], list(narrow)
        for column in columns:  # what is left goes to names, then to heads
            left = width - sum(widths[i] + _GAP for i in columns) + _GAP
            widths[column] = min(broad[column], widths[column] + max(0, left))
        yield _lines(sheet, columns, widths)


def _broad(sheet: Sheet, column: int) -> int:
    """The width of a column in which nothing is broken."""
    return max(map(_cells, (sheet.heads[column], *(row[column] for row in sheet.rows))))


def _longest(sheet: Sheet, column: int) -> int:
    """The least width of a column of figures."""
    head = max(map(len, visible(sheet.heads[column]).split()), default=0)
    return max([min(_HEAD, head), *(_cells(row[column]) for row in sheet.rows)])


def _name_widths(sheet: Sheet, width: int) -> list[int]:
    """The least widths of the names: single words, such as ids, stay whole where there is room."""
    widths = []
    for column in range(sheet.names):
        words = [word for row in sheet.rows for word in visible(row[column]).split()]
        widths.append(min(_broad(sheet, column), max([_NAME, *map(_cells, words)])))
    room = max(_NAME, width - _FIGURES - _GAP * sheet.names)
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(visible(text))


def _lines(sheet: Sheet, columns: Sequence[int], widths: Sequence[int]) -> list[str]:
    """A table: heads, a line, the rows, and another line above the totals."""
    rule = "─" * (sum(widths[column] + _GAP for column in columns) - _GAP)
    figures = columns[sheet.names :]
    shown = [
        (number, row)
        for number, row in enumerate(sheet.rows)
        if len(figures) == len(sheet.heads) - sheet.names or any(row[i] for i in figures)
    ]
    lines = [*_row(sheet, sheet.heads, columns, widths, last=True), rule]
    first_total = len(sheet.rows) - sheet.totals
    for place, (number, row) in enumerate(shown):
        if number >= first_total and (not place or shown[place - 1][0] < first_total):
            lines.append(rule)
        lines += _row(sheet, row, columns, widths)
    return lines


def _row(
    sheet: Sheet,
    cells: Sequence[str],
    columns: Sequence[int],
    widths: Sequence[int],
    *,
    last: bool = False,
) -> list[str]:
    """One row, on as many lines as its names need; `last`: short cells stand on the last one."""
    from rich.cells import chop_cells

    stacks = []
    for column in columns:
        text, width = visible(cells[column]), widths[column]
        whole = wrapped(text, width) or [""]
        stacks.append([piece for line in whole for piece in chop_cells(line, width) or [""]])
    height = max(map(len, stacks))
    lines = []
    for i in range(height):
        shown = []
        for column, stack in zip(columns, stacks, strict=True):
            place = i - (height - len(stack) if last else 0)
            piece = stack[place] if 0 <= place < len(stack) else ""
            blank = " " * max(0, widths[column] - _cells(piece))
            shown.append(piece + blank if column < sheet.names else blank + piece)
        lines.append((" " * _GAP).join(shown).rstrip())
    return lines
