"""A leaderboard for a terminal of any width, or as plain text."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING, TextIO

from univg_eval.leaderboard.sheet import RUN, Cell, Line, Sheet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["as_text", "print_sheet", "visible"]

LABEL_WIDTH = 32
NARROW_LABEL_WIDTH = 16
UNLIMITED = 10_000
ASCII = str.maketrans("─–", "--")
PLAIN_PLACES = {1: "* ", 2: "+ "}
STYLES = {1: "bold", 2: "underline"}


def print_sheet(sheet: Sheet, stream: TextIO | None = None) -> None:
    """Print to a stream (standard output if None), styled where it is a terminal that shows it.

    Where it is none, or ``NO_COLOR`` is set, no escape codes are written: the best value has a
    star, the second best a plus sign.
    """
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal and not os.environ.get("NO_COLOR"):
        _print(sheet, console, styled=True)
    else:
        stream.write(_encodable(sheet, console.width, stream.encoding or "utf-8"))


def _encodable(sheet: Sheet, width: int, encoding: str) -> str:
    """Plain text; where the encoding lacks signs, lines are dashes and names have escapes."""
    text = as_text(sheet, width)
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        lines = [replace(line, name=_escaped(line.name, encoding)) for line in sheet.lines]
        columns = [_escaped(column, encoding) for column in sheet.columns]
        text = as_text(replace(sheet, lines=lines, columns=columns), width).translate(ASCII)
        return _escaped(text, encoding)


def _escaped(text: str, encoding: str) -> str:
    return text.encode(encoding, "backslashreplace").decode(encoding)


def as_text(sheet: Sheet, width: int = 120) -> str:
    """Plain text of lines up to `width` characters wide."""
    from rich.console import Console

    buffer = StringIO()
    console = Console(
        file=buffer, width=width, no_color=True, force_terminal=False, highlight=False
    )
    _print(sheet, console, styled=False)
    return "".join(line.rstrip() + "\n" for line in buffer.getvalue().splitlines())


def visible(text: str) -> str:
    """The text with control characters written as escapes: a name must not steer a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def _print(sheet: Sheet, console: Console, *, styled: bool) -> None:
    from rich.text import Text

    console.print(Text(visible(sheet.title), style="bold" if styled else ""))
    for table in _tables(sheet, console, styled):
        console.print(table)
    if not styled and any(cell.place for line in sheet.lines for cell in line.cells):
        console.print(Text("* best, + second best of the comparable set"))
    for head, entries in (
        ("Marks", [f"{letter} {mark}: {says}" for letter, mark, says in sheet.legend]),
        ("Rows", [f"{', '.join(names)}: {text}" for text, names in sheet.details]),
        ("Left out", [f"{name}: {reasons}" for name, reasons in sheet.left_out]),
        ("Notes", sheet.notes),
        ("Published tables", [f"[{key}] {text}" for key, text in sheet.sources.items()]),
    ):
        if entries:
            console.print(Text(head, style="bold" if styled else ""))
            for entry in entries:
                _print_item(console, visible(entry))


def _print_item(console: Console, text: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    for number, line in enumerate(Text(text).wrap(console, max(20, console.width - 4))):
        console.print(Padding(line, (0, 0, 0, 2 if number == 0 else 4)), soft_wrap=True)


def _tables(sheet: Sheet, console: Console, styled: bool) -> list[Table]:
    """The whole table if it fits; else turned on its side if that fits; else in parts.

    Of parts the first has the averages and the marks.
    """
    n = len(sheet.columns)
    whole = _rows_table(sheet, range(n), styled)
    if _width(whole, console) <= console.width:
        return [whole]
    turned = _turned_table(sheet, styled)
    if _width(turned, console) <= console.width:
        return [turned]
    order = [*range(n - sheet.n_averages, n), *range(n - sheet.n_averages)]
    parts: list[Table] = []
    while order:
        # One column at least, however narrow the terminal.
        part = _rows_table(sheet, order[:1], styled, marks=not parts)
        taken = 1
        while taken < len(order):
            wider = _rows_table(sheet, order[: taken + 1], styled, marks=not parts)
            if _width(wider, console) > console.width:
                break
            part, taken = wider, taken + 1
        parts.append(part)
        order = order[taken:]
    return parts


def _width(table: Table, console: Console) -> int:
    return table.__rich_measure__(console, console.options.update(max_width=UNLIMITED)).maximum


def _empty_table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))


def _rows_table(sheet: Sheet, columns: Sequence[int], styled: bool, *, marks: bool = True) -> Table:
    from rich.text import Text

    table = _empty_table()
    ranked = any(line.rank for line in sheet.lines)
    if ranked:
        table.add_column("#", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold", max_width=LABEL_WIDTH)
    if marks:
        table.add_column("marks", no_wrap=True)
    for column in columns:
        table.add_column(_broken(sheet.columns[column]), justify="right", no_wrap=True)
    source = ""
    previous: Line | None = None
    for line in sheet.lines:
        if previous is not None and previous.comparable and not line.comparable:
            table.add_section()
            source = ""
        if line.source != source:
            # A whole group of rows names its table once.
            head = Text(_source(line), style="italic" if styled else "")
            table.add_row(*([""] if ranked else []), head)
        source = line.source
        previous = line
        table.add_row(
            *([line.rank] if ranked else []),
            Text(visible(line.name)),
            *(["".join(line.letters)] if marks else []),
            *(_cell(line.cells[column], styled) for column in columns),
        )
    return table


def _turned_table(sheet: Sheet, styled: bool) -> Table:
    from rich.text import Text

    table = _empty_table()
    table.add_column("", no_wrap=True)
    for line in sheet.lines:
        source = f"\n{_source(line)}" if line.source not in ("", RUN) else ""
        name = Text(visible(line.name) + source)
        table.add_column(name, justify="right", overflow="fold", max_width=NARROW_LABEL_WIDTH)
    if any(line.rank for line in sheet.lines):
        table.add_row("#", *(line.rank for line in sheet.lines))
    table.add_row("marks", *("".join(line.letters) for line in sheet.lines))
    for number, column in enumerate(sheet.columns):
        table.add_row(
            Text(visible(column)), *(_cell(line.cells[number], styled) for line in sheet.lines)
        )
    return table


def _source(line: Line) -> str:
    return "runs" if line.source == RUN else f"[{line.source}]"


def _broken(head: str) -> Text:
    """A head with a line for each word, so that long task names do not widen the columns."""
    from rich.text import Text

    return Text(visible(head).replace("_", "_\n"), justify="right")


def _cell(cell: Cell, styled: bool) -> Text:
    from rich.text import Text

    # A mark in front keeps the digits of a column below each other.
    text = Text("" if styled else PLAIN_PLACES.get(cell.place, ""))
    text.append(cell.value, style=STYLES.get(cell.place, "") if styled else "")
    if cell.interval:
        text.append("\n")
        text.append(cell.interval, style="dim" if styled else "")
    return text
