"""Tables of figures in the terminal: one layout for all commands, and no figure is ever cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from univg_eval.terminal import Sheet, sheet_lines, terminal_width

if TYPE_CHECKING:
    from rich.console import Console

    from univg_eval.analysis.stats import Estimate

__all__ = ["Sheet", "in_words", "percent", "print_sheet", "terminal"]


def terminal() -> Console:
    """Standard output, as wide as the terminal or ``COLUMNS`` says, else wide."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = terminal_width()
    return console


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print as one table, or as several with the same names where the terminal is too narrow."""
    from rich.text import Text

    for line in sheet_lines(sheet, console.width):
        console.print(Text(line), soft_wrap=True)


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
