"""A leaderboard in LaTeX: one ``table*`` that needs the package booktabs and nothing else."""

from __future__ import annotations

import re

from univg_eval.leaderboard.sheet import NOTHING, RUN, Cell, Line, Sheet
from univg_eval.leaderboard.terminal import visible

__all__ = ["as_latex", "escaped"]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row, LaTeX takes these for its arguments.
    "*": "{*}",
    "[": "{[}",
    "]": "{]}",
    "`": r"\textasciigrave{}",
    "–": "--",
}
# Fonts draw pairs of the last three as one sign.
_PATTERN = re.compile("|".join(map(re.escape, _SPECIAL)) + r"|([-',])(?=\1)")
_PLACES = {1: r"\textbf{%s}", 2: r"\underline{%s}"}


def as_latex(sheet: Sheet) -> str:
    """The table (best bold, second best underlined), marks as superscripts, a block of notes."""
    ranked = any(line.rank for line in sheet.lines)
    spec = ("r" if ranked else "") + "l" + "r" * len(sheet.columns)
    heads = [*([r"\#"] if ranked else []), "model", *map(_head, sheet.columns)]
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{escaped(sheet.title)}}}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        _row(heads),
        r"\midrule",
    ]
    previous: Line | None = None
    for line in sheet.lines:
        if previous is not None and previous.comparable and not line.comparable:
            lines.append(r"\midrule")
        rank = [line.rank] if ranked else []
        lines.append(_row([*rank, _name(line), *map(_cell, line.cells)]))
        previous = line
    lines += [r"\bottomrule", r"\end{tabular}", "", *_notes(sheet), r"\end{table*}", ""]
    return "\n".join(lines)


def escaped(text: str) -> str:
    """The text as LaTeX that sets exactly this text."""
    return _PATTERN.sub(lambda match: _SPECIAL.get(match[0], match[0] + "{}"), visible(text))


def _row(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _head(column: str) -> str:
    words = escaped(column).split(r"\_")
    if len(words) == 1:
        return words[0]
    return r"\shortstack[r]{" + r"\_\\".join(words) + "}"


def _name(line: Line) -> str:
    name = escaped(line.name)
    if line.source not in ("", RUN):
        name += rf" {{\scriptsize ({escaped(line.source)})}}"
    return name + (rf"\textsuperscript{{{','.join(line.letters)}}}" if line.letters else "")


def _cell(cell: Cell) -> str:
    if cell.value == NOTHING:
        return "--"
    value = _PLACES.get(cell.place, "%s") % cell.value
    if cell.interval:
        value += rf" {{\scriptsize ({escaped(cell.interval)})}}"
    return value


def _notes(sheet: Sheet) -> list[str]:
    best = any(cell.place for line in sheet.lines for cell in line.cells)
    entries = [
        *(["Bold: best, underlined: second best of the comparable set."] if best else []),
        *(
            rf"\textsuperscript{{{letter}}}~{escaped(mark)}: {escaped(says)}."
            for letter, mark, says in sheet.legend
        ),
        *(escaped(f"{', '.join(names)}: {text}.") for text, names in sheet.details),
        *(f"Left out: {escaped(name)}: {escaped(why)}." for name, why in sheet.left_out),
        *(escaped(note) for note in sheet.notes),
        *(escaped(f"[{key}] {text}") for key, text in sheet.sources.items()),
    ]
    return [
        r"\begin{minipage}{\linewidth}",
        r"\footnotesize\raggedright",
        *(entry + r"\par" for entry in entries),
        r"\end{minipage}",
    ]
