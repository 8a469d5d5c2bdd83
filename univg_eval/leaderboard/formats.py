"""A leaderboard as data (JSON, CSV) and as text (terminal, Markdown, LaTeX).

Texts share one sheet: cells, a row a run or printed row and a column a task or average, with what
else is said about the table.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from univg_eval.analysis.stats import METHODS, Estimate
from univg_eval.leaderboard.marks import MEANINGS, Mark
from univg_eval.leaderboard.table import AVERAGES, MACRO, Leaderboard, Row
from univg_eval.terminal import visible, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

CSV_COLUMNS = (
    *("benchmark", "metric", "model", "kind", "source", "column", "value", "low", "high"),
    *("interval", "n", "place", "rank", "comparable", "marks", "runs", "spread"),
)


# Data


def as_frame(boards: Sequence[Leaderboard]) -> pd.DataFrame:
    """One row a value, with the columns `CSV_COLUMNS`; fractions, None where there is nothing.

    ``column`` is a task, ``macro``, ``micro`` or ``printed_avg``; ``marks`` are words with spaces
    between them; ``spread`` is the standard deviation between several ``runs``. What a row of the
    table lacks has no row here.
    """
    import pandas as pd

    lines = []
    for board in boards:
        for row in board.rows:
            entry = row.entry
            estimates = _estimates(board, row)
            if entry.printed_average is not None:
                estimates["printed_avg"] = Estimate(float(entry.printed_average / 100), None)
            lines += [
                (
                    *(board.benchmark, board.metric, entry.label, entry.kind, entry.source),
                    *(column, found.value, found.low, found.high, found.method, found.n),
                    *(row.places.get(column), row.rank, "yes" if row.comparable else "no"),
                    *(" ".join(row.marks), len(found.runs) or None, found.spread),
                )
                for column, found in estimates.items()
            ]
    return pd.DataFrame(lines, columns=list(CSV_COLUMNS), dtype=object)


def as_csv(boards: Sequence[Leaderboard]) -> str:
    """The lines of `as_frame`, fractions with all their digits.

    Text that a spreadsheet would take for a formula has an apostrophe in front; a carriage return,
    which would end a line, is a newline.
    """
    import pandas as pd

    frame = as_frame(boards)
    for name in ("benchmark", "model", "source", "column"):
        frame[name] = pd.Series(list(map(_csv_cell, frame[name])), dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _csv_cell(value: str) -> str:
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(tuple("=+-@\t\n＝＋－＠")) else text


def as_dict(boards: Sequence[Leaderboard]) -> dict[str, Any]:
    """Plain JSON values: ``rows`` of all tables, and what is said about each of the ``tables``.

    Values are fractions.
    """
    return {
        "rows": [_row_dict(board, row) for board in boards for row in board.rows],
        "tables": [
            {
                "benchmark": board.benchmark,
                "metric": board.metric,
                "tasks": list(board.tasks),
                "average_tasks": list(board.average_tasks),
                "reference": _names(board.reference),
                "comparable": [_names(row) for row in board.rows if row.comparable],
                "left_out": [
                    {**_names(row), "reasons": list(reasons)} for row, reasons in board.left_out
                ],
                "notes": list(board.notes),
                "sources": dict(board.sources),
            }
            for board in boards
        ],
    }


def _names(row: Row) -> dict[str, str]:
    return {"model": row.entry.label, "source": row.entry.source}


def _estimates(board: Leaderboard, row: Row) -> dict[str, Estimate]:
    found = ((column, row.estimate(column)) for column in (*board.tasks, *AVERAGES))
    return {column: estimate for column, estimate in found if estimate is not None}


def _row_dict(board: Leaderboard, row: Row) -> dict[str, Any]:
    entry = row.entry
    found = _estimates(board, row)
    return {
        "benchmark": board.benchmark,
        "metric": board.metric,
        "model": entry.label,
        "kind": entry.kind,
        "source": entry.source,
        "also_in": list(entry.also_in),
        "records": list(entry.paths),
        "values": {task: found[task].value for task in board.tasks if task in found},
        **{name: found[name].value if name in found else None for name in AVERAGES},
        "printed_avg": None
        if entry.printed_average is None
        else float(entry.printed_average / 100),
        "n": {column: estimate.n for column, estimate in found.items()},
        "intervals": {
            column: None if e.low is None else {"low": e.low, "high": e.high, "method": e.method}
            for column, e in found.items()
        },
        "runs": {column: list(e.runs) for column, e in found.items() if e.runs},
        "spread": {column: e.spread for column, e in found.items() if e.runs},
        "protocol": entry.protocol,
        "revisions": sorted(entry.revisions),
        "fingerprints": dict(entry.fingerprints),
        "comparable": row.comparable,
        "rank": row.rank,
        "places": dict(row.places),
        "marks": [mark.value for mark in row.marks],
        "details": {mark.value: detail for mark, detail in row.marks.items() if detail},
        "note": entry.note,
    }


# The sheet


Intervals = Literal["all", "averages", "none"]
Columns = Literal["all", "averages"]
PRINTED = "printed"
MISSING = "–"
SHOWN_NAMES = 6


class Cell(NamedTuple):
    """One value in percent, its ``low–high`` or "", and 1 or 2 where it is best or second best."""

    value: str
    interval: str = ""
    place: int = 0


class Head(NamedTuple):
    """What stands before the cells of a row.

    `source` is ``runs``, a published table in brackets, or "" where all rows have one source.
    """

    rank: str
    name: str
    source: str
    letters: str
    comparable: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """A leaderboard in texts.

    Attributes:
        title: one line.
        columns: tasks, then averages.
        lines: the rows, with a cell for each column.
        n_averages: how many of the columns are averages.
        sections: what is said below the table: head, and entries of a letter (of a mark; else
            empty) and a text.
    """

    title: str
    columns: Sequence[str]
    lines: Sequence[tuple[Head, Sequence[Cell]]]
    n_averages: int
    sections: Mapping[str, Sequence[tuple[str, str]]]

    @property
    def is_ranked(self) -> bool:
        """Whether a row has a rank."""
        return any(head.rank for head, _ in self.lines)

    @property
    def has_places(self) -> bool:
        """Whether a value is best or second best."""
        return any(cell.place for _, cells in self.lines for cell in cells)


def make_sheet(board: Leaderboard, intervals: Intervals = "all", columns: Columns = "all") -> Sheet:
    """Texts of a leaderboard.

    Args:
        board: the table.
        intervals: which values show theirs.
        columns: tasks and averages, or averages alone.
    """
    averages = [name for name in AVERAGES if any(row.estimate(name) for row in board.rows)]
    shown = [*(board.tasks if columns == "all" else ()), *averages]
    if any(row.entry.printed_average is not None for row in board.rows):
        averages.append(PRINTED)
        shown.append(PRINTED)
    marks = [mark for mark in Mark if any(mark in row.marks for row in board.rows)]
    letters = {mark: chr(ord("a") + number) for number, mark in enumerate(marks)}
    several = len({row.entry.source for row in board.rows}) > 1
    lines = []
    for row in board.rows:
        source = "runs" if row.entry.kind == "run" else f"[{row.entry.source}]"
        own = "".join(letters[mark] for mark in row.marks)
        rank = "" if row.rank is None else str(row.rank)
        head = Head(rank, row.entry.label, source if several else "", own, row.comparable)
        lines.append((head, [_cell(row, column, intervals) for column in shown]))
    limits = any(cell.interval for _, cells in lines for cell in cells)
    sections: dict[str, Sequence[str | tuple[str, str]]] = {
        "Marks": [(letters[mark], f"{mark}: {MEANINGS[mark]}") for mark in marks],
        "Rows": _details(board),
        "Left out": [f"{row.name}: {'; '.join(why)}" for row, why in board.left_out],
        "Notes": [
            *board.notes,
            *_about_columns(board),
            *_about_intervals(board, intervals, columns),
        ],
        "Published tables": [f"[{key}] {text}" for key, text in board.sources.items()],
    }
    return Sheet(
        title=f"{board.benchmark}: {board.metric} in %" + ", with 95 % intervals" * limits,
        columns=shown,
        lines=lines,
        n_averages=len(averages),
        sections={
            head: [entry if isinstance(entry, tuple) else ("", entry) for entry in entries]
            for head, entries in sections.items()
            if entries
        },
    )


def _cell(row: Row, column: str, intervals: Intervals) -> Cell:
    if column == PRINTED:
        average = row.entry.printed_average
        return Cell(MISSING if average is None else str(average))
    text, estimate = row.text(column), row.estimate(column)
    if text is None or estimate is None:
        return Cell(MISSING)
    wanted = intervals == "all" or (intervals == "averages" and column in AVERAGES)
    limits = ""
    if wanted and estimate.low is not None and estimate.high is not None:
        limits = f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"
    return Cell(text, limits, row.places.get(column, 0))


def _details(board: Leaderboard) -> list[str]:
    """Each text once, with the rows that it is about; mark by mark, then the notes of sources."""
    order = {mark: number for number, mark in enumerate(Mark)}
    rows: dict[tuple[int, str], list[str]] = {}
    for row in board.rows:
        found = [(order[mark], f"{mark} ({text})") for mark, text in row.marks.items() if text]
        for key in (*found, *([(len(order), row.entry.note)] if row.entry.note else [])):
            rows.setdefault(key, []).append(row.name)
    texts = []
    for (_, text), names in sorted(rows.items(), key=lambda item: item[0][0]):
        more = len(names) - SHOWN_NAMES
        shown = [*names[:SHOWN_NAMES], *([f"and {more} more"] if more > 0 else [])]
        texts.append(f"{', '.join(shown)}: {text}")
    return texts


def _about_columns(board: Leaderboard) -> list[str]:
    parts = [
        f"{name}: {says}"
        for name, says in AVERAGES.items()
        if any(row.estimate(name) for row in board.rows)
    ]
    if any(row.entry.printed_average is not None for row in board.rows):
        parts.append(
            f"{PRINTED}: the average that the source prints, over its own tasks; {MACRO} is "
            "computed from the printed values"
        )
    if any(row.entry.kind == "published" and row.micro is not None for row in board.rows):
        parts.append(
            "the micro average of printed values is shown where one annotation file alone "
            "explains all of them as k/N"
        )
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."] if text else []


def _about_intervals(board: Leaderboard, intervals: Intervals, columns: Columns) -> list[str]:
    if intervals == "none":
        return []
    words = {
        "wilson": "tasks whose samples share no images",
        "cluster-bootstrap": "tasks whose samples share images",
    }
    used: dict[str, dict[str, None]] = {}
    for row in board.rows:
        if row.entry.kind != "run":
            continue
        for column, estimate in _estimates(board, row).items():
            if column not in AVERAGES and (intervals, columns) != ("all", "all"):
                continue
            kind = column if column in AVERAGES else words.get(estimate.method, "tasks")
            used.setdefault(estimate.method, {})[kind] = None
    return [
        f"Intervals ({', '.join(used[method])}): {says}."
        for method, says in METHODS.items()
        if method in used
    ]


# Markdown and LaTeX


def as_markdown(sheet: Sheet) -> str:
    """A heading, the table (best bold, second best underlined), marks, rows and notes."""
    places = {1: "**{}**", 2: "<u>{}</u>"}
    ranked = sheet.is_ranked

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(texts[0 if ranked else 1 :]) + " |"

    def shown(cell: Cell) -> str:
        value = places.get(cell.place, "{}").format(cell.value)
        return f"{value} ({cell.interval})" if cell.interval else value

    parts = [f"### {escaped_markdown(sheet.title)}", ""]
    parts.append(line(["#", "model", *map(escaped_markdown, sheet.columns)]))
    parts.append(line(["--:", ":--", *["--:"] * len(sheet.columns)]))
    for head, cells in sheet.lines:
        name = escaped_markdown(head.name)
        if head.source.startswith("["):
            name += f" ({escaped_markdown(head.source[1:-1])})"
        if head.letters:
            name += f" <sup>{','.join(head.letters)}</sup>"
        parts.append(line([head.rank, name, *map(shown, cells)]))
    parts.append("")
    if sheet.has_places:
        parts += ["Bold: best, underlined: second best of the comparable set.", ""]
    for title, entries in sheet.sections.items():
        parts += [f"{title}:", ""]
        for letter, text in entries:
            mark = f"<sup>{letter}</sup> " if letter else ""
            parts.append(f"- {mark}{escaped_markdown(text)}")
        parts.append("")
    return "\n".join(parts)


_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#&$])")
_MARKDOWN_LIST = re.compile(r"^(\d*)([-+.)])")


def escaped_markdown(text: str) -> str:
    """The text as Markdown that shows exactly this text, also inside a table cell."""
    return _MARKDOWN_LIST.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\1", visible(text)))


def as_latex(sheet: Sheet) -> str:
    """A ``table*`` that needs booktabs alone: marks as superscripts, notes in a block below."""
    places = {1: r"\textbf{%s}", 2: r"\underline{%s}"}
    ranked = sheet.is_ranked

    def line(texts: Sequence[str]) -> str:
        return " & ".join(texts[0 if ranked else 1 :]) + r" \\"

    def column(name: str) -> str:
        text = escaped_latex(name)
        return rf"\shortstack[r]{{{text}}}".replace(r"\_", r"\_\\") if r"\_" in text else text

    def shown(cell: Cell) -> str:
        if cell.value == MISSING:
            return "--"
        value = places.get(cell.place, "%s") % cell.value
        limits = rf" {{\scriptsize ({escaped_latex(cell.interval)})}}" if cell.interval else ""
        return value + limits

    parts = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{escaped_latex(sheet.title)}}}",
        rf"\begin{{tabular}}{{{'r' * ranked}l{'r' * len(sheet.columns)}}}",
        r"\toprule",
        line([r"\#", "model", *map(column, sheet.columns)]),
        r"\midrule",
    ]
    was_comparable = False
    for head, cells in sheet.lines:
        if was_comparable and not head.comparable:
            parts.append(r"\midrule")
        was_comparable = head.comparable
        name = escaped_latex(head.name)
        if head.source.startswith("["):
            name += rf" {{\scriptsize ({escaped_latex(head.source[1:-1])})}}"
        if head.letters:
            name += rf"\textsuperscript{{{','.join(head.letters)}}}"
        parts.append(line([head.rank, name, *map(shown, cells)]))
    parts += [r"\bottomrule", r"\end{tabular}", "", r"\begin{minipage}{\linewidth}"]
    parts.append(r"\footnotesize\raggedright")
    if sheet.has_places:
        parts.append(r"Bold: best, underlined: second best of the comparable set.\par")
    for title, entries in sheet.sections.items():
        parts.append(rf"\emph{{{title}}}\par")
        for letter, text in entries:
            mark = rf"\textsuperscript{{{letter}}}~" if letter else ""
            parts.append(rf"{mark}{escaped_latex(text)}\par")
    return "\n".join([*parts, r"\end{minipage}", r"\end{table*}", ""])


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # After the end of a row, LaTeX takes these for its arguments.
    **{sign: f"{{{sign}}}" for sign in "*[]"},
    "`": r"\textasciigrave{}",
    "–": "--",
}
# Fonts draw pairs of the last three as one sign.
_LATEX_PATTERN = re.compile("|".join(map(re.escape, _LATEX)) + r"|([-',])(?=\1)")


def escaped_latex(text: str) -> str:
    """The text as LaTeX that sets exactly this text."""
    return _LATEX_PATTERN.sub(lambda match: _LATEX.get(match[0], match[0] + "{}"), visible(text))


# Terminal


def as_text(sheet: Sheet, width: int = 120) -> str:
    """Plain text of lines up to `width` characters wide."""
    from rich.console import Console

    buffer = StringIO()
    options: dict[str, Any] = {"no_color": True, "force_terminal": False, "highlight": False}
    _print(sheet, Console(file=buffer, width=width, **options), styled=False)
    return "".join(line.rstrip() + "\n" for line in buffer.getvalue().splitlines())


def print_sheet(sheet: Sheet, stream: TextIO | None = None) -> None:
    """Print to a stream (standard output if None), styled where it is a terminal that shows it.

    Where it is none, or ``NO_COLOR`` is set, no escape codes are written: the best value has a
    star, the second best a plus sign. Signs that the stream's encoding lacks are escaped.
    """
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal and not os.environ.get("NO_COLOR"):
        _print(sheet, console, styled=True)
        return
    encoding, text = stream.encoding or "utf-8", as_text(sheet, console.width)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(str.maketrans("─–", "--"))
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(text)


def _print(sheet: Sheet, console: Console, *, styled: bool) -> None:
    from rich.text import Text

    console.print(Text(visible(sheet.title), style="bold" if styled else ""))
    for table in _tables(sheet, console, styled):
        console.print(table)
    if not styled and sheet.has_places:
        console.print(Text("* best, + second best of the comparable set"))
    for title, entries in sheet.sections.items():
        console.print(Text(title, style="bold" if styled else ""))
        for letter, text in entries:
            words = visible(f"{letter} {text}".lstrip())
            for line in wrapped(words, max(24, console.width), indent="  ", more="    "):
                console.print(Text(line), soft_wrap=True)


def _tables(sheet: Sheet, console: Console, styled: bool) -> list[Table]:
    """The whole table if it fits; else turned on its side if that fits; else in parts.

    Of parts the first has the averages and the marks.
    """

    def fits(table: Table) -> bool:
        options = console.options.update(max_width=10_000)
        return bool(table.__rich_measure__(console, options).maximum <= console.width)

    n = len(sheet.columns)
    whole, turned = _rows_table(sheet, range(n), styled), _turned_table(sheet, styled)
    for table in (whole, turned):
        if fits(table):
            return [table]
    order = [*range(n - sheet.n_averages, n), *range(n - sheet.n_averages)]
    parts: list[Table] = []
    while order:
        # One column at least, however narrow the terminal.
        taken, part = 1, _rows_table(sheet, order[:1], styled, marks=not parts)
        while taken < len(order):
            wider = _rows_table(sheet, order[: taken + 1], styled, marks=not parts)
            if not fits(wider):
                break
            taken, part = taken + 1, wider
        parts.append(part)
        order = order[taken:]
    return parts


def _empty_table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))


def _rows_table(sheet: Sheet, columns: Sequence[int], styled: bool, *, marks: bool = True) -> Table:
    from rich.text import Text

    table = _empty_table()
    rank = ["#"] if sheet.is_ranked else []
    for name in rank:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("model", overflow="fold", max_width=32)
    if marks:
        table.add_column("marks", no_wrap=True)
    for column in columns:
        # A line for each word, so that long task names do not widen the columns.
        name = visible(sheet.columns[column]).replace("_", "_\n")
        table.add_column(Text(name, justify="right"), justify="right", no_wrap=True)
    source, was_comparable = "", False
    for head, cells in sheet.lines:
        if was_comparable and not head.comparable:
            table.add_section()
            source = ""
        if head.source != source:
            # A whole group of rows names its table once.
            table.add_row(*["" for _ in rank], Text(head.source, "italic" if styled else ""))
        source, was_comparable = head.source, head.comparable
        table.add_row(
            *[head.rank for _ in rank],
            Text(visible(head.name)),
            *([head.letters] if marks else []),
            *(_styled(cells[column], styled) for column in columns),
        )
    return table


def _turned_table(sheet: Sheet, styled: bool) -> Table:
    from rich.text import Text

    table = _empty_table()
    table.add_column("", no_wrap=True)
    heads = [head for head, _ in sheet.lines]
    for head in heads:
        source = f"\n{head.source}" if head.source.startswith("[") else ""
        text = Text(visible(head.name) + source)
        table.add_column(text, justify="right", overflow="fold", max_width=16)
    if sheet.is_ranked:
        table.add_row("#", *(head.rank for head in heads))
    table.add_row("marks", *(head.letters for head in heads))
    for column, name in enumerate(sheet.columns):
        cells = (_styled(cells[column], styled) for _, cells in sheet.lines)
        table.add_row(Text(visible(name)), *cells)
    return table


def _styled(cell: Cell, styled: bool) -> Text:
    from rich.text import Text

    # A sign in front keeps the digits of a column below each other.
    text = Text("" if styled else ("", "* ", "+ ")[cell.place])
    text.append(cell.value, style=("", "bold", "underline")[cell.place] if styled else "")
    if cell.interval:
        text.append("\n")
        text.append(cell.interval, style="dim" if styled else "")
    return text
