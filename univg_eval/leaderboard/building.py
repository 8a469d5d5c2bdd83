"""From run records and published tables to leaderboards, one a benchmark."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from univg_eval.benchmarks.preparing.catalog import CATALOG
from univg_eval.errors import UserError
from univg_eval.leaderboard.boards import GROUPS, PUBLISHED_FOR, board_of
from univg_eval.leaderboard.entries import Entry, entry_of_runs
from univg_eval.leaderboard.printed import entries_of_table, entry_of_reproductions
from univg_eval.leaderboard.published import Counts, PublishedTable, Reproductions
from univg_eval.leaderboard.table import Leaderboard, choose_reference, make_leaderboard
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import METRICS, sample_metrics

__all__ = ["Published", "build_leaderboards"]


@dataclass(frozen=True, slots=True)
class Published:
    """What was printed, of all benchmarks.

    Attributes:
        tables: published tables.
        reproductions: what users reported.
        revisions: the annotation files that printed values are held against.
        ablations: show tables of ablations too; the notes name those that are left out.
    """

    tables: Sequence[PublishedTable] = ()
    reproductions: Sequence[Reproductions] = ()
    revisions: Sequence[Counts] = ()
    ablations: bool = True


def build_leaderboards(
    records: Sequence[RunRecord],
    published: Published | None = None,
    *,
    benchmark: str | None = None,
    reference: str | None = None,
    strict: bool = False,
    metric: str = "acc@0.5",
) -> list[Leaderboard]:
    """One table a benchmark: first those of the runs, in their order, then those without runs.

    Args:
        records: runs; records of one label over the benchmarks of a group form one row.
        published: printed rows to stand beside them; None: none.
        benchmark: this table alone.
        reference: what the others are held against, where a table has a row of this name: a run's
            label, a printed model, or ``TABLE/MODEL``.
        strict: show the comparable rows alone.
        metric: of `scoring.METRICS`.

    Raises:
        UserError: there is nothing to show, or a name is not known.
    """
    if metric not in METRICS:
        raise UserError(f"metric {metric!r} is not known; expected one of: {', '.join(METRICS)}")
    boards: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        rows = boards.setdefault(board_of(record.benchmark), {})
        rows.setdefault(record.label, []).append(record)
    if published is not None:
        for printed in [table.benchmark for table in published.tables] + [
            reported.benchmark for reported in published.reproductions
        ]:
            boards.setdefault(printed, {})
        if benchmark is not None and benchmark in PUBLISHED_FOR:
            boards.setdefault(benchmark, {})
    if benchmark is not None:
        _require_board(benchmark, boards, published is not None)
        boards = {benchmark: boards[benchmark]}
    if not boards:
        raise UserError("nothing to show: give a run, or --published for the published tables")
    made = []
    found_reference = reference is None
    empty: list[str] = []
    for name, runs in boards.items():
        notes: list[str] = []
        sources: dict[str, str] = {}
        entries = _run_entries(runs, metric, notes)
        entries += _printed_entries(name, published, metric, notes, sources)
        if not entries:
            empty.append(f"{name}: {' '.join(notes)}")
            continue
        chosen = None if reference is None else choose_reference(entries, reference)
        found_reference = found_reference or chosen is not None
        made.append(
            make_leaderboard(
                name,
                entries,
                metric=metric,
                reference=chosen,
                strict=strict,
                notes=notes,
                sources=sources,
            )
        )
    if not made:
        raise UserError(f"nothing to show. {' '.join(empty)}")
    if not found_reference:
        known = dict.fromkeys(row.entry.label for board in made for row in board.rows)
        raise UserError(f"--reference {reference!r} is no row; expected one of: {', '.join(known)}")
    return made


def _require_board(benchmark: str, boards: Collection[str], published: bool) -> None:
    if benchmark in boards:
        return
    group = board_of(benchmark)
    if group != benchmark:
        raise UserError(f"{benchmark!r} is part of the table {group!r}; give --benchmark {group}")
    has = f"there are tables for: {', '.join(boards)}" if boards else "no run was given"
    base = benchmark.partition("+")[0]
    known = [*dict.fromkeys(board_of(e.benchmark) for e in CATALOG.values())]
    if base not in known and base not in GROUPS:
        raise UserError(f"unknown benchmark {benchmark!r}; {has}. Known: {', '.join(known)}")
    more = "no published table is of it either" if published else "--published was not given"
    raise UserError(f"no run is of benchmark {benchmark!r}, and {more}; {has}")


def _run_entries(runs: dict[str, list[RunRecord]], metric: str, notes: list[str]) -> list[Entry]:
    entries = []
    for label, records in runs.items():
        entry = entry_of_runs(records, metric)
        if entry is not None:
            entries.append(entry)
            continue
        scores = [score for record in records for score in record.sample_scores()]
        present = sorted({name for score in scores for name in sample_metrics(score)})
        notes.append(
            f"{label} is left out: "
            + (
                f"none of its samples has {metric}; it has {', '.join(present)}."
                if present
                else "it holds no scored sample."
            )
        )
    return entries


def _printed_entries(
    board: str,
    published: Published | None,
    metric: str,
    notes: list[str],
    sources: dict[str, str],
) -> list[Entry]:
    if published is None:
        return []
    benchmark = PUBLISHED_FOR.get(board, board)
    revisions = [known for known in published.revisions if known.benchmark == benchmark]
    # Main tables first, the oldest first: of rows that several print, the first table's is shown.
    tables = sorted(
        (table for table in published.tables if table.benchmark == benchmark),
        key=lambda table: (table.role != "main", table.date),
    )
    entries: list[Entry] = []
    ablations = [table.key for table in tables if table.role == "ablation"]
    if ablations and not published.ablations:
        notes.append(
            f"Published tables of ablations are left out: {', '.join(ablations)}. --ablations "
            "shows them, --table KEY one of them."
        )
    for table in tables:
        if table.role == "ablation" and not published.ablations:
            continue
        if table.metric == metric:
            entries += entries_of_table(table, revisions)
            sources[table.key] = _source(table)
        else:
            notes.append(f"[{table.key}] is left out: it has {table.metric}, not {metric}.")
    for reported in published.reproductions:
        entry = entry_of_reproductions(reported, metric, revisions)
        if reported.benchmark == benchmark and entry is not None:
            entries.append(entry)
            sources[reported.key] = _source(reported)
    if not entries and not tables:
        notes.append(f"No published table is of {board}.")
    return _each_once(entries)


def _source(table: PublishedTable | Reproductions) -> str:
    return f"{table.title}: {table.source}, {table.date}, {table.url}"


def _each_once(entries: Sequence[Entry]) -> list[Entry]:
    """Rows that later tables copied stand once, under the first table."""
    rows: dict[object, Entry] = {}
    for entry in entries:
        printed = tuple(sorted((task, str(c.printed)) for task, c in entry.columns.items()))
        key = (entry.label, printed, entry.printed_average, entry.protocol)
        first = rows.setdefault(key, entry)
        if first is not entry:
            rows[key] = replace(first, also_in=(*first.also_in, entry.source))
    return list(rows.values())
