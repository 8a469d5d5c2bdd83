"""Tables of figures in the terminal: one layout for all commands, and no figure is ever cut."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from univg_eval.leaderboard.formats import visible
from univg_eval.terminal import wrapped

if TYPE_CHECKING:
    from rich.console import Console

    from univg_eval.analysis.stats import Estimate

__all__ = ["Sheet", "in_words", "percent", "print_sheet", "terminal"]

PIPED_WIDTH = 160
"""Characters a line where nothing says how many are shown."""
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


def terminal() -> Console:
    """Standard output, as wide as the terminal or ``COLUMNS`` says, else wide."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = PIPED_WIDTH
    return console


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print as one table, or as several with the same names where the terminal is too narrow."""
    from rich.text import Text

    for line in wrapped(visible(sheet.title), console.width):
        console.print(Text(line), soft_wrap=True)
    if sheet.title:
        console.print()
    for part in _parts(sheet, console.width):
        for line in part:
            console.print(Text(line), soft_wrap=True)
        console.print()


def _parts(sheet: Sheet, width: int) -> Iterator[list[str]]:
    """The lines of each table."""
    names = range(sheet.names)
    figures = range(sheet.names, len(sheet.heads))
    broad = [_broad(sheet, column) for column in range(len(sheet.heads))]
    if sum(broad) + _GAP * (len(broad) - 1) <= width:
        yield _lines(sheet, [*names, *figures], broad)
        return
    # Heads on several lines first, then names, then tables in parts.
    narrow = [
        _least(sheet, column, width) if column in names else _longest(sheet, column)
        for column in range(len(sheet.heads))
    ]
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


def _least(sheet: Sheet, column: int, width: int) -> int:
    """The least width of a column of names: single words, such as ids, stay whole."""
    words = [word for row in sheet.rows for word in visible(row[column]).split()]
    whole = max([_NAME, *map(_cells, words)])
    return min(whole, _broad(sheet, column), max(_NAME, (width - _FIGURES) // sheet.names))


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


def percent(value: Estimate, sign: str = "", to: str = "–") -> tuple[str, str]:
    """The value and its limits in percent, these empty where there are none.

    Args:
        value: as a fraction.
        sign: that of `format`.
        to: what stands between the limits.
    """
    shown = f"{100 * value.value:{sign}.1f}"
    if value.low is None or value.high is None:
        return shown, ""
    return shown, f"{100 * value.low:{sign}.1f}{to}{100 * value.high:{sign}.1f}"


def in_words(value: Estimate) -> str:
    """``22.2 % (19.2–25.7)``."""
    shown, limits = percent(value)
    return f"{shown} % ({limits})" if limits else f"{shown} %"
