"""A leaderboard in Markdown, with the marks as letters and a list of them below."""

from __future__ import annotations

import re

from univg_eval.leaderboard.sheet import RUN, Cell, Line, Sheet
from univg_eval.leaderboard.terminal import visible

__all__ = ["as_markdown", "escaped"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#&$])")
_LIST = re.compile(r"^(\d*)([-+.)])")
_PLACES = {1: "**{}**", 2: "<u>{}</u>"}


def as_markdown(sheet: Sheet) -> str:
    """A heading, the table (best bold, second best underlined), marks, rows and notes."""
    ranked = any(line.rank for line in sheet.lines)
    heads = [*(["#"] if ranked else []), "model", *map(escaped, sheet.columns)]
    rules = [*(["--:"] if ranked else []), ":--", *("--:" for _ in sheet.columns)]
    parts = [
        f"### {escaped(sheet.title)}",
        "",
        _row(heads),
        _row(rules),
        *(
            _row([*([line.rank] if ranked else []), _name(line), *map(_cell, line.cells)])
            for line in sheet.lines
        ),
        "",
    ]
    if any(cell.place for line in sheet.lines for cell in line.cells):
        parts += ["Bold: best, underlined: second best of the comparable set.", ""]
    for head, entries in (
        ("Marks", [f"<sup>{a}</sup> *{mark}*: {escaped(says)}" for a, mark, says in sheet.legend]),
        ("Rows", [escaped(f"{', '.join(names)}: {text}") for text, names in sheet.details]),
        ("Left out", [f"{escaped(name)}: {escaped(why)}" for name, why in sheet.left_out]),
        ("Notes", [escaped(note) for note in sheet.notes]),
        ("Published tables", [escaped(f"[{k}] {text}") for k, text in sheet.sources.items()]),
    ):
        if entries:
            parts += [f"{head}:", "", *(f"- {entry}" for entry in entries), ""]
    return "\n".join(parts)


def escaped(text: str) -> str:
    """The text as Markdown that shows exactly this text, also inside a table cell."""
    return _LIST.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", visible(text)))


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _name(line: Line) -> str:
    name = escaped(line.name)
    if line.source not in ("", RUN):
        name += f" ({escaped(line.source)})"
    return name + (f" <sup>{','.join(line.letters)}</sup>" if line.letters else "")


def _cell(cell: Cell) -> str:
    value = _PLACES.get(cell.place, "{}").format(cell.value)
    return f"{value} ({cell.interval})" if cell.interval else value
