"""Leaderboards as data: a JSON object, and a CSV file with one value a line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

from univg_eval.leaderboard.intervals import Estimate
from univg_eval.leaderboard.table import AVERAGES, Leaderboard, Row

__all__ = ["CSV_COLUMNS", "as_csv", "as_dict"]

CSV_COLUMNS = (
    *("benchmark", "metric", "model", "kind", "source", "column", "value", "low", "high"),
    *("interval", "n", "place", "rank", "comparable", "marks"),
)


def as_dict(boards: Sequence[Leaderboard]) -> dict[str, Any]:
    """Plain JSON values: ``rows`` of all tables, and what is said about each of the ``tables``.

    Values are fractions.
    """
    return {
        "rows": [_row(board, row) for board in boards for row in board.rows],
        "tables": [_table(board) for board in boards],
    }


def _table(board: Leaderboard) -> dict[str, Any]:
    return {
        "benchmark": board.benchmark,
        "metric": board.metric,
        "tasks": list(board.tasks),
        "average_tasks": list(board.average_tasks),
        "reference": _name(board.reference),
        "comparable": [_name(row) for row in board.rows if row.comparable],
        "left_out": [
            {"model": left.label, "source": left.source, "reasons": list(left.reasons)}
            for left in board.left_out
        ],
        "notes": list(board.notes),
        "sources": dict(board.sources),
    }


def _name(row: Row) -> dict[str, str]:
    return {"model": row.entry.label, "source": row.entry.source}


def _row(board: Leaderboard, row: Row) -> dict[str, Any]:
    entry = row.entry
    columns = [*board.tasks, *AVERAGES]
    estimates = {c: e for c in columns if (e := row.estimate(c)) is not None}
    return {
        "benchmark": board.benchmark,
        "metric": board.metric,
        "model": entry.label,
        "kind": entry.kind,
        "source": entry.source,
        "also_in": list(entry.also_in),
        "records": list(entry.paths),
        "values": {task: estimates[task].value for task in board.tasks if task in estimates},
        **{name: estimates[name].value if name in estimates else None for name in AVERAGES},
        "printed_avg": None
        if entry.printed_average is None
        else float(entry.printed_average / 100),
        "n": {column: estimate.n for column, estimate in estimates.items()},
        "intervals": {column: _interval(estimate) for column, estimate in estimates.items()},
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


def _interval(estimate: Estimate) -> dict[str, Any] | None:
    if estimate.low is None:
        return None
    return {"low": estimate.low, "high": estimate.high, "method": estimate.method}


def as_csv(boards: Sequence[Leaderboard]) -> str:
    """One line a value, with the columns `CSV_COLUMNS`; fractions with all their digits.

    ``column`` is a task, ``macro``, ``micro`` or ``printed_avg``; ``marks`` are words with spaces
    between them. What a row lacks has no line.
    """
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for board in boards:
        for row in board.rows:
            entry = row.entry
            common = (board.benchmark, board.metric, entry.label, entry.kind, entry.source)
            about = (
                "" if row.rank is None else row.rank,
                "yes" if row.comparable else "no",
                " ".join(row.marks),
            )
            for column in (*board.tasks, *AVERAGES):
                estimate = row.estimate(column)
                if estimate is None:
                    continue
                writer.writerow(
                    (
                        *common,
                        column,
                        estimate.value,
                        *("" if v is None else v for v in (estimate.low, estimate.high)),
                        estimate.method,
                        "" if estimate.n is None else estimate.n,
                        row.places.get(column, ""),
                        *about,
                    )
                )
            if entry.printed_average is not None:
                printed = float(entry.printed_average / 100)
                writer.writerow((*common, "printed_avg", printed, "", "", "none", "", "", *about))
    return buffer.getvalue()
