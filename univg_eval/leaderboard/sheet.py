"""A leaderboard as texts in a grid, the same for every format that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from univg_eval.leaderboard.intervals import METHODS, Estimate
from univg_eval.leaderboard.marks import MEANINGS, Mark
from univg_eval.leaderboard.table import AVERAGES, MACRO, Leaderboard, Row

__all__ = [
    "NOTHING",
    "PRINTED",
    "RUN",
    "Cell",
    "Columns",
    "Intervals",
    "Line",
    "Sheet",
    "make_sheet",
]

Intervals = Literal["all", "averages", "none"]
Columns = Literal["all", "averages"]
PRINTED = "printed"
RUN = "run"
NOTHING = "–"
SHOWN_NAMES = 6


@dataclass(frozen=True, slots=True)
class Cell:
    """One value.

    Attributes:
        value: in percent, or `NOTHING`.
        interval: ``low–high`` in percent, or empty.
        place: 1 best, 2 second best of the comparable set, else 0.
    """

    value: str
    interval: str = ""
    place: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One row.

    Attributes:
        rank: empty outside the comparable set.
        name: its label.
        source: ``run`` or the key of its published table; empty where all rows are runs, or all
            of one table.
        cells: one a column.
        letters: of its marks.
        comparable: whether it stands in the comparable set.
    """

    rank: str
    name: str
    source: str
    cells: Sequence[Cell]
    letters: Sequence[str]
    comparable: bool


@dataclass(frozen=True, slots=True)
class Sheet:
    """A leaderboard in texts.

    Attributes:
        title: one line.
        columns: heads of the cells; the tasks, then the averages.
        n_averages: how many of `columns` are averages.
        lines: the rows.
        legend: letter, mark, what it says.
        notes: sentences below the table.
        details: what there is to say about rows beyond a mark: text, names of the rows.
        left_out: rows that are not shown, with their reasons.
        sources: key of a published table → what and where it is.
    """

    title: str
    columns: Sequence[str]
    n_averages: int
    lines: Sequence[Line]
    legend: Sequence[tuple[str, Mark, str]]
    notes: Sequence[str]
    details: Sequence[tuple[str, Sequence[str]]]
    left_out: Sequence[tuple[str, str]]
    sources: Mapping[str, str]


def make_sheet(board: Leaderboard, intervals: Intervals = "all", columns: Columns = "all") -> Sheet:
    """Texts of a leaderboard.

    Args:
        board: the table.
        intervals: which values show theirs.
        columns: tasks and averages, or averages alone.
    """
    averages = [name for name in AVERAGES if any(row.estimate(name) for row in board.rows)]
    shown = [*(board.tasks if columns == "all" else ()), *averages]
    printed = [PRINTED] if board.has_printed_averages else []
    shown_marks = sorted({mark for row in board.rows for mark in row.marks}, key=list(Mark).index)
    letters = dict(zip(shown_marks, _letters(len(shown_marks)), strict=True))
    lines = [_line(row, shown, letters, intervals, board) for row in board.rows]
    return Sheet(
        title=f"{board.benchmark}: {board.metric} in %"
        + (
            ", with 95 % intervals" if any(c.interval for line in lines for c in line.cells) else ""
        ),
        columns=[*shown, *printed],
        n_averages=len(averages) + len(printed),
        lines=lines,
        legend=[(letters[mark], mark, MEANINGS[mark]) for mark in shown_marks],
        notes=[*board.notes, *_about_columns(board), *_about_intervals(board, intervals, columns)],
        details=_details(board),
        left_out=[(board.name(left), "; ".join(left.reasons)) for left in board.left_out],
        sources=board.sources,
    )


def _details(board: Leaderboard) -> list[tuple[str, list[str]]]:
    """Each text once, with the rows that it is about; mark by mark."""
    rows: dict[tuple[int, str], list[str]] = {}
    order = list(Mark)
    for row in board.rows:
        name = board.name(row)
        for mark, detail in row.marks.items():
            if detail:
                rows.setdefault((order.index(mark), f"{mark} ({detail})"), []).append(name)
        if row.entry.note:
            rows.setdefault((len(order), row.entry.note), []).append(name)
    return [(text, _few(rows[key, text])) for key, text in sorted(rows, key=lambda k: k[0])]


def _few(names: list[str]) -> list[str]:
    more = len(names) - SHOWN_NAMES
    return names if more <= 0 else [*names[:SHOWN_NAMES], f"and {more} more"]


def _letters(n: int) -> list[str]:
    return [chr(ord("a") + i) for i in range(n)]


def _line(
    row: Row,
    columns: Sequence[str],
    letters: Mapping[Mark, str],
    intervals: Intervals,
    board: Leaderboard,
) -> Line:
    shows_source = len({r.entry.source for r in board.rows}) > 1
    cells = []
    for column in columns:
        wanted = intervals == "all" or (intervals == "averages" and column in AVERAGES)
        text = row.text(column)
        cells.append(
            Cell(
                NOTHING if text is None else text,
                _limits(row.estimate(column)) if wanted and text is not None else "",
                row.places.get(column, 0),
            )
        )
    if board.has_printed_averages:
        average = row.entry.printed_average
        cells.append(Cell(NOTHING if average is None else str(average)))
    return Line(
        rank="" if row.rank is None else str(row.rank),
        name=row.entry.label,
        source=row.entry.source if shows_source else "",
        cells=cells,
        letters=[letters[mark] for mark in row.marks],
        comparable=row.comparable,
    )


def _limits(estimate: Estimate | None) -> str:
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"


def _about_columns(board: Leaderboard) -> list[str]:
    text = "; ".join(
        f"{name}: {says}"
        for name, says in AVERAGES.items()
        if any(row.estimate(name) for row in board.rows)
    )
    if board.has_printed_averages:
        text += ("; " if text else "") + (
            f"{PRINTED}: the average that the source prints, over its own tasks; {MACRO} is "
            "computed from the printed values"
        )
    if any(row.entry.kind == "published" and row.micro is not None for row in board.rows):
        text += (
            "; the micro average of printed values is shown where one annotation file alone "
            "explains all of them as k/N"
        )
    if not text:
        return []
    return [text[0].upper() + text[1:] + "."]


_TASKS = {
    "wilson": "tasks whose samples share no images",
    "cluster-bootstrap": "tasks whose samples share images",
}


def _about_intervals(board: Leaderboard, intervals: Intervals, shown: Columns) -> list[str]:
    if intervals == "none":
        return []
    used: dict[str, list[str]] = {}
    for row in board.rows:
        if row.entry.kind != "run":
            continue
        tasks = board.tasks if intervals == shown == "all" else ()
        columns = [*tasks, *AVERAGES]
        for column in columns:
            estimate = row.estimate(column)
            if estimate is not None:
                kind = column if column in AVERAGES else _TASKS.get(estimate.method, "tasks")
                kinds = used.setdefault(estimate.method, [])
                if kind not in kinds:
                    kinds.append(kind)
    return [
        f"Intervals ({', '.join(used[method])}): {says}."
        for method, says in METHODS.items()
        if method in used
    ]
