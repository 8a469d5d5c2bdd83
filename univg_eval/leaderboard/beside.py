"""A run beside one published table: the difference to each printed row, and what sets them apart.

A printed value has no responses and no fingerprint, so a run is never ranked among printed rows.
What can be said is how far apart they are, whether rule and annotation file are the same, and which
command makes them so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from univg_eval.analysis.stats import Estimate
from univg_eval.errors import UserError
from univg_eval.leaderboard.marks import BREAKING, MEANINGS, Mark
from univg_eval.leaderboard.published import PublishedTable, load_counts, load_published
from univg_eval.leaderboard.table import Leaderboard, Published, Row, build_leaderboards
from univg_eval.runs.record import RunRecord

__all__ = ["Beside", "PrintedRow", "beside", "find_table"]


@dataclass(frozen=True, slots=True)
class PrintedRow:
    """A printed row beside the run.

    Attributes:
        model: as printed.
        printed: mean of the printed values over the run's tasks, in percent, as shown; None where a
            task is missing.
        difference: the run's mean minus the printed one, with the run's own 95 % limits, all as
            fractions. The printed value is taken as exact: its sampling error is not known.
    """

    model: str
    printed: str | None
    difference: Estimate | None


@dataclass(frozen=True, slots=True)
class Beside:
    """A run and the rows of one table.

    Attributes:
        label: of the run.
        table: the printed one.
        own: the run's unweighted mean over its tasks.
        rows: best printed mean first, then those without one.
        reasons: what sets run and rows apart, each with what would make them alike.
    """

    label: str
    table: PublishedTable
    own: Estimate | None
    rows: Sequence[PrintedRow]
    reasons: Sequence[str]


def find_table(name: str) -> PublishedTable:
    """The published table that ``univg eval --like`` calls so.

    Raises:
        UserError: no table with a recipe has this name; the message lists them.
    """
    tables = {table.recipe.name: table for table in load_published() if table.recipe is not None}
    if name not in tables:
        raise UserError(f"--like {name!r} is no published table; expected: {', '.join(tables)}")
    return tables[name]


def beside(records: Sequence[RunRecord], table: PublishedTable) -> Beside:
    """Put the records of one run beside a published table.

    Args:
        records: of one model; those of other benchmarks than the table's are passed over.
        table: see `find_table`.

    Raises:
        UserError: no record is of the table's benchmark, or `build_leaderboards` refuses them.
    """
    revisions = load_counts(table.benchmark)
    boards = build_leaderboards(records, Published([table], (), revisions), metric=table.metric)
    shown = [
        board for board in boards if {row.entry.kind for row in board.rows} == {"run", "published"}
    ]
    if not shown:
        raise UserError(f"no record is of {table.benchmark}, which [{table.key}] is of")
    board = shown[0]
    own = board.reference
    printed = [row for row in board.rows if row.entry.kind == "published"]
    printed.sort(key=lambda row: -1.0 if row.macro is None else row.macro.value, reverse=True)
    return Beside(
        own.name,
        table,
        own.macro,
        [PrintedRow(row.name, row.text("macro"), _difference(own, row)) for row in printed],
        _reasons(board, printed, table),
    )


def _difference(own: Row, row: Row) -> Estimate | None:
    if own.macro is None or row.macro is None:
        return None
    shift = row.macro.value
    low, high = own.macro.low, own.macro.high
    return Estimate(
        own.macro.value - shift,
        own.macro.n,
        None if low is None else low - shift,
        None if high is None else high - shift,
        own.macro.method,
    )


def _reasons(board: Leaderboard, printed: Sequence[Row], table: PublishedTable) -> list[str]:
    recipe = table.recipe
    assert recipe is not None
    again = f"`univg eval --like {recipe.name} --model … --model_args …`"
    remedies = {
        Mark.OTHER_PROTOCOL: f"score the run by the table's rule: `univg rescore RECORD --protocol "
        f"{table.protocol} -o OUT`",
        Mark.OTHER_REVISION: f"evaluate the table's annotation file ({recipe.tasks}): {again}",
        Mark.MISSING_TASKS: f"evaluate all tasks ({recipe.tasks}): {again}",
        Mark.STAND_IN_IMAGES: f"prepare the set's own images ({recipe.prepare}), then {again}",
        Mark.INCOMPLETE: f"evaluate all samples, without --limit: {again}",
    }
    reasons = []
    if board.reference.entry.protocol == table.protocol:
        del remedies[Mark.OTHER_PROTOCOL]
        own_rule = [row.name for row in printed if Mark.OTHER_PROTOCOL in row.marks]
        if own_rule:
            reasons.append(f"Scored by a rule of their own, see the table: {', '.join(own_rule)}.")
    for mark in Mark:
        rows = [row for row in printed if mark in row.marks]
        is_own = mark in board.reference.marks and mark in BREAKING | {
            Mark.INCOMPLETE,
            Mark.STAND_IN_IMAGES,
        }
        if mark in remedies and (rows or is_own):
            who = "this run" if is_own else f"{len(rows)} of {len(printed)} printed rows"
            reasons.append(f"{mark} ({who}): {MEANINGS[mark]}. Next: {remedies[mark]}")
    reasons.append(
        "A printed value has no responses to check, so it is not ranked with a run. To rank two "
        f"models, evaluate both: {again}, then `univg compare A B`"
    )
    return reasons
