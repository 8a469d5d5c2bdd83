"""Tables of figures in the terminal: one layout for all commands, and no figure is ever cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from univg_eval.leaderboard.formats import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Sheet", "print_sheet", "terminal"]

PIPED_WIDTH = 160
"""Characters a line where no terminal says how many it shows."""
_NAME, _HEAD = 20, 12
"""Characters up to which a name, and a word of a head, stay whole where there is little room."""
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


def terminal() -> Console:
    """Standard output, as wide as the terminal, and wide where it is none."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, PIPED_WIDTH)
    return console


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print as one table, or as several with the same names where the terminal is too narrow."""
    names = range(sheet.names)
    room = console.width - sum(min(_NAME, _longest(sheet, i)) + _GAP for i in names)
    parts: list[list[int]] = [[]]
    left = room
    for column in range(sheet.names, len(sheet.heads)):
        left -= _longest(sheet, column) + _GAP
        if left < 0 and parts[-1]:
            parts.append([])
            left = room - _longest(sheet, column) - _GAP
        parts[-1].append(column)
    for number, part in enumerate(parts):
        console.print(_drawn(sheet, "" if number else sheet.title, [*names, *part]))


def _longest(sheet: Sheet, column: int) -> int:
    head = max(map(len, visible(sheet.heads[column]).split()), default=0)
    return max([min(_HEAD, head), *(len(visible(row[column])) for row in sheet.rows)])


def _drawn(sheet: Sheet, title: str, columns: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(visible(title)) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in columns:
        named = column < sheet.names
        table.add_column(
            Text(visible(sheet.heads[column]), overflow="fold"),
            justify="left" if named else "right",
            overflow="fold",
            min_width=None if named else max((len(row[column]) for row in sheet.rows), default=0),
        )
    figures = columns[sheet.names :]
    for number, row in enumerate(sheet.rows):
        if number == len(sheet.rows) - sheet.totals:
            table.add_section()
        if len(figures) == len(sheet.heads) - sheet.names or any(row[i] for i in figures):
            table.add_row(*(Text(visible(row[column])) for column in columns))
    return table
