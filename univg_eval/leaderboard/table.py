"""Leaderboards: rows held against a reference, averages over its tasks, ranks among equals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

from univg_eval.errors import UserError
from univg_eval.leaderboard.comparing import (
    breaking_marks,
    comparable,
    printed_reference,
    relative_marks,
)
from univg_eval.leaderboard.entries import Entry
from univg_eval.leaderboard.intervals import Estimate
from univg_eval.leaderboard.marks import Mark

__all__ = [
    "AVERAGES",
    "MACRO",
    "MICRO",
    "Leaderboard",
    "LeftOut",
    "Row",
    "choose_reference",
    "make_leaderboard",
]

MACRO, MICRO = "macro", "micro"
AVERAGES: Mapping[str, str] = {
    MACRO: "unweighted mean over the tasks of the reference",
    MICRO: "mean over all samples of these tasks",
}
_ORDER = tuple(Mark)


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it is shown.

    Attributes:
        entry: its facts.
        macro, micro: averages over the tasks of the reference; None where one is missing.
        marks: in the order of `Mark`, each with what there is to say, possibly nothing.
        comparable: whether it stands in the comparable set.
        rank: by macro among the comparable rows, equal ones sharing the better place; None outside
            that set, without an average, and where nothing is to be compared.
        places: column → 1 for the best value, 2 for the second best of the comparable set; equal
            values share a place.
        printed_mean: of the printed values behind `macro`, in percent; None for a run.
    """

    entry: Entry
    macro: Estimate | None
    micro: Estimate | None
    printed_mean: Decimal | None
    marks: Mapping[Mark, str]
    comparable: bool
    rank: int | None = None
    places: Mapping[str, int] = field(default_factory=dict)

    def estimate(self, column: str) -> Estimate | None:
        """The value of a task or an average."""
        if column in AVERAGES:
            return self.macro if column == MACRO else self.micro
        task = self.entry.columns.get(column)
        return None if task is None else task.estimate

    def text(self, column: str) -> str | None:
        """The value in percent as it is shown: printed ones with their digits, others with one.

        Averages of printed values have two decimals.
        """
        estimate = self.estimate(column)
        if estimate is None:
            return None
        if self.entry.kind == "run":
            return f"{100 * estimate.value:.1f}"
        if column == MICRO:
            return f"{100 * estimate.value:.2f}"
        if column == MACRO:
            mean = self.printed_mean or Decimal(0)
            return str(mean.quantize(Decimal("0.01"), rounding=ROUND_HALF_EVEN))
        task = self.entry.columns.get(column)
        return str(task.printed) if task is not None and task.printed is not None else None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is not shown, and why."""

    label: str
    source: str
    reasons: Sequence[str]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """One table.

    Attributes:
        benchmark: name of the benchmark, or of a group of them.
        metric: what the values are.
        tasks: columns; first those of the reference, over which the averages run.
        n_average_tasks: how many of `tasks` are the reference's.
        reference: the row that the others are held against.
        rows: the comparable ones by rank, then the others in the order they were given.
        names: (label, source) → what sentences call a row: its label, with the source where another
            row has the same label.
        left_out: rows that ``strict`` leaves out.
        notes: sentences below the table.
        sources: key of a published table → what and where it is.
    """

    benchmark: str
    metric: str
    tasks: Sequence[str]
    n_average_tasks: int
    reference: Row
    rows: Sequence[Row]
    names: Mapping[tuple[str, str], str]
    left_out: Sequence[LeftOut]
    notes: Sequence[str]
    sources: Mapping[str, str]

    def name(self, row: Row | LeftOut) -> str:
        """What sentences call a row."""
        if isinstance(row, LeftOut):
            return self.names[row.label, row.source]
        return self.names[_key(row.entry)]

    @property
    def average_tasks(self) -> Sequence[str]:
        """The tasks that the averages run over."""
        return self.tasks[: self.n_average_tasks]

    @property
    def has_printed_averages(self) -> bool:
        """Whether a shown row has a printed average."""
        return any(row.entry.printed_average is not None for row in self.rows)


def make_leaderboard(
    benchmark: str,
    entries: Sequence[Entry],
    *,
    metric: str,
    reference: Entry | None = None,
    strict: bool = False,
    notes: Sequence[str] = (),
    sources: Mapping[str, str] | None = None,
) -> Leaderboard:
    """Hold rows against a reference and rank those that can be compared.

    Args:
        benchmark: name of the table.
        entries: at least one.
        metric: what the values are.
        reference: one of `entries`; None: the first run of a model, else the first baseline, or
            where there is no run, a printed row (see `comparing.printed_reference`).
        strict: show comparable rows alone.
        notes: sentences to begin the notes with.
        sources: see `Leaderboard`; of tables whose rows are not shown they are dropped.
    """
    if not entries:
        raise ValueError("no rows; expected at least one")
    reason = "as asked for"
    if reference is None:
        runs = [entry for entry in entries if entry.kind == "run"]
        models = [entry for entry in runs if Mark.BASELINE not in entry.marks]
        first = next(iter(models or runs), None)
        reason = "the first run"
        if models and models[0] is not runs[0]:
            reason = "the first run of a model"
        if first is None:
            first, reason = printed_reference(entries)
        reference = first
    average_tasks = tuple(reference.columns)
    rows = [_row(entry, reference, average_tasks, metric) for entry in entries]
    equals = _ranked([row for row in rows if row.comparable])
    others = [row for row in rows if not row.comparable]
    shown = equals if strict else [*equals, *others]
    extra = dict.fromkeys(
        task for row in shown for task in row.entry.columns if task not in average_tasks
    )
    tasks = (*average_tasks, *extra)
    rows = _with_places(shown, (*tasks, MACRO, MICRO))
    names = _names(entries)
    used = {key for row in rows for key in (row.entry.source, *row.entry.also_in)}
    return Leaderboard(
        benchmark=benchmark,
        metric=metric,
        tasks=tasks,
        n_average_tasks=len(average_tasks),
        reference=next(row for row in rows if row.entry is reference),
        rows=rows,
        names=names,
        left_out=[_left_out(row, reference) for row in others] if strict else (),
        notes=[
            *notes,
            *_notes(
                [row for row in rows if row.comparable],
                names,
                reference,
                reason,
                extra,
                has_runs=any(entry.kind == "run" for entry in entries),
            ),
        ],
        sources={key: text for key, text in (sources or {}).items() if key in used},
    )


def _key(entry: Entry) -> tuple[str, str]:
    return entry.label, entry.source


def _names(entries: Sequence[Entry]) -> dict[tuple[str, str], str]:
    n = Counter(entry.label for entry in entries)
    return {
        _key(entry): entry.label
        if n[entry.label] == 1 or entry.kind == "run"
        else f"{entry.label} [{entry.source}]"
        for entry in entries
    }


def _row(entry: Entry, reference: Entry, tasks: Sequence[str], metric: str) -> Row:
    marks = {**entry.marks, **relative_marks(entry, reference)}
    return Row(
        entry=entry,
        macro=entry.macro(tasks),
        micro=entry.micro(tasks, metric),
        printed_mean=entry.printed_mean(tasks) if entry.kind == "published" else None,
        marks={mark: marks[mark] for mark in _ORDER if mark in marks},
        comparable=comparable(entry, reference, marks),
    )


def _ranked(rows: Sequence[Row]) -> list[Row]:
    """The rows by their macro as shown, highest first; a single row has no rank."""
    averaged = [row for row in rows if row.macro is not None]
    if len(averaged) < 2:
        return list(rows)
    keys = {id(row): _shown_value(row, MACRO) for row in averaged}
    averaged.sort(key=lambda row: keys[id(row)] or Decimal(0), reverse=True)
    ranks: list[int] = []
    for position, row in enumerate(averaged):
        same = position and keys[id(row)] == keys[id(averaged[position - 1])]
        ranks.append(ranks[-1] if same else position + 1)
    ranked = [replace(row, rank=rank) for row, rank in zip(averaged, ranks, strict=True)]
    return [*ranked, *(row for row in rows if row.macro is None)]


def _with_places(rows: Sequence[Row], columns: Sequence[str]) -> list[Row]:
    """The rows with the best and second best value of each column among the comparable ones.

    Values that are shown alike are equal. A column where all are equal has no best.
    """
    places: dict[int, dict[str, int]] = {id(row): {} for row in rows}
    equals = [row for row in rows if row.comparable]
    for column in columns:
        values = {id(row): _shown_value(row, column) for row in equals}
        order = sorted({value for value in values.values() if value is not None}, reverse=True)
        if len(order) < 2:
            continue
        for key, value in values.items():
            if value in order[:2]:
                places[key][column] = order.index(value) + 1
    return [replace(row, places=places[id(row)]) for row in rows]


def _shown_value(row: Row, column: str) -> Decimal | None:
    text = row.text(column)
    return None if text is None else Decimal(text)


def _left_out(row: Row, reference: Entry) -> LeftOut:
    reasons = [
        f"{mark.value} ({row.marks[mark]})" if row.marks[mark] else mark.value
        for mark in breaking_marks(row.entry, reference, row.marks)
    ]
    if row.entry.kind == "run" and reference.kind == "published":
        reasons.append("a run cannot be checked against a printed row")
    return LeftOut(row.entry.label, row.entry.source, reasons)


def _notes(
    equals: Sequence[Row],
    names: Mapping[tuple[str, str], str],
    reference: Entry,
    reason: str,
    extra: Mapping[str, None],
    *,
    has_runs: bool,
) -> list[str]:
    known = [
        *([f"protocol {reference.protocol}"] if reference.protocol else []),
        *(
            f"fingerprint {digest[:12]}"
            + (f" of {name}" if len(reference.fingerprints) > 1 else "")
            for name, digest in reference.fingerprints.items()
        ),
    ]
    notes = [f"Reference: {', '.join([f'{names[_key(reference)]} ({reason})', *known])}."]
    ranked = any(row.rank is not None for row in equals)
    if len(equals) > 1:
        notes.append(
            f"Comparable set ({len(equals)} rows{'; only these are ranked' * ranked}): "
            + ", ".join(names[_key(row.entry)] for row in equals)
            + "."
        )
    elif len(names) > 1:
        notes.append("No other row can be compared with the reference, so nothing is ranked.")
    if reference.kind == "published" and has_runs:
        notes.append("The reference was printed without its responses: no run is compared with it.")
    if extra:
        n = len(reference.columns)
        notes.append(
            f"The averages run over the {f'{n} tasks' if n > 1 else 'one task'} of the reference, "
            "not over " + ", ".join(extra) + "."
        )
    overlapping = [
        f"{a.rank} and {b.rank}"
        for a, b in pairwise(equals)
        if None not in (a.rank, b.rank) and a.rank != b.rank and _overlap(a.macro, b.macro)
    ]
    if overlapping:
        notes.append(
            f"The intervals of ranks {', '.join(overlapping)} overlap: such neighbours need not "
            "differ. `univg compare A B` tests two runs on the same samples."
        )
    elif any(row.rank and row.macro and row.macro.low is None for row in equals):
        notes.append(
            "Where values have no intervals, small differences between ranks may be chance."
        )
    return notes


def _overlap(a: Estimate | None, b: Estimate | None) -> bool:
    if a is None or b is None or None in (a.low, a.high, b.low, b.high):
        return False
    assert a.low is not None and a.high is not None and b.low is not None and b.high is not None
    return a.low <= b.high and b.low <= a.high


def choose_reference(entries: Sequence[Entry], label: str) -> Entry | None:
    """The row called `label`, or ``TABLE/MODEL``, runs first; None if there is none.

    Raises:
        UserError: several printed rows are called so.
    """
    runs = [entry for entry in entries if entry.kind == "run" and entry.label == label]
    if runs:
        return runs[0]
    printed = [
        entry
        for entry in entries
        if entry.kind == "published"
        and label
        in (entry.label, *(f"{key}/{entry.label}" for key in (entry.source, *entry.also_in)))
    ]
    if len(printed) > 1:
        raise UserError(
            f"--reference {label!r} is a row of several published tables; name one: "
            + ", ".join(f"{entry.source}/{entry.label}" for entry in printed)
        )
    return printed[0] if printed else None
