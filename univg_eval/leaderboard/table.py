"""Leaderboards: one a benchmark, rows compared with a reference, averages, ranks among equals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

from univg_eval.analysis.stats import Estimate
from univg_eval.benchmarks.preparing.catalog import CATALOG, plain_name
from univg_eval.errors import UserError, meant
from univg_eval.leaderboard.marks import BREAKING, Mark
from univg_eval.leaderboard.published import (
    OVERALL,
    Counts,
    PublishedTable,
    Reproductions,
    require_metric,
)
from univg_eval.leaderboard.rows import (
    GROUPS,
    PUBLISHED_FOR,
    Entry,
    board_of,
    entries_of_table,
    entry_of_reproductions,
    entry_of_runs,
)
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import headline_metric, sample_metrics

MACRO, MICRO = "macro", "micro"
AVERAGES: Mapping[str, str] = {
    MACRO: "unweighted mean over the tasks of the reference",
    MICRO: "mean over all samples of these tasks",
}
SHOWN_TASKS = 3


@dataclass(frozen=True, slots=True)
class Published:
    """What was printed, of all benchmarks.

    Attributes:
        tables: published tables.
        reproductions: what users reported.
        revisions: the annotation files that printed values are checked with.
        ablations: show tables of ablations too; the notes name those that are left out.
    """

    tables: Sequence[PublishedTable] = ()
    reproductions: Sequence[Reproductions] = ()
    revisions: Sequence[Counts] = ()
    ablations: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it is shown.

    Attributes:
        entry: its facts.
        name: what sentences call it: its label, with the source where another row has the same.
        macro, micro: averages over the tasks of the reference; None where one is missing.
        marks: in the order of `Mark`, each with what there is to say, possibly nothing.
        comparable: whether it belongs to the comparable set.
        printed_mean: of the printed values behind `macro`, in percent; None for a run.
        rank: by macro among the comparable rows, equal ones sharing the better place; None outside
            that set, without an average, and where nothing is to be compared.
        places: column → 1 for the best value, 2 for the second best of the comparable set; equal
            values share a place.
    """

    entry: Entry
    name: str
    macro: Estimate | None
    micro: Estimate | None
    marks: Mapping[Mark, str]
    comparable: bool
    printed_mean: Decimal | None
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
        return str(self.entry.columns[column].printed)


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """One table.

    Attributes:
        benchmark: name of the benchmark, or of a group of them.
        metric: what the values are.
        tasks: columns; first those of the reference.
        average_tasks: those of the reference, over which the averages run.
        reference: the row that the others are compared with.
        rows: the comparable ones by rank, then the others in the order they were given.
        left_out: rows that ``strict`` leaves out, with the reasons.
        notes: sentences below the table.
        sources: key of a published table → what and where it is.
    """

    benchmark: str
    metric: str
    tasks: Sequence[str]
    average_tasks: Sequence[str]
    reference: Row
    rows: Sequence[Row]
    left_out: Sequence[tuple[Row, Sequence[str]]]
    notes: Sequence[str]
    sources: Mapping[str, str]


def build_leaderboards(
    records: Sequence[RunRecord],
    published: Published | None = None,
    *,
    benchmark: str | None = None,
    reference: str | None = None,
    strict: bool = False,
    metric: str | None = None,
) -> list[Leaderboard]:
    """One table a benchmark: first those of the runs, in their order, then those without runs.

    Args:
        records: runs; records of one label over the benchmarks of a group form one row, and
            several runs of one thing (`univg_eval.runs.groups`) under one label do.
        published: printed rows to show beside them; None: none.
        benchmark: this table alone.
        reference: what the others are compared with, where a table has a row of this name: a run's
            label, a printed model, or ``TABLE/MODEL``. None: the first run of a model, else the
            first baseline, else a printed row (see `_printed_reference`).
        strict: show the comparable rows alone.
        metric: of `scoring.METRICS`, or ``RULE/NAME`` of a published rule; None:
            `scoring.headline_metric` of a table's runs, or where it has none, what is printed.

    Raises:
        UserError: there is nothing to show, or a name is not known.
    """
    if metric is not None:
        try:
            require_metric(metric)
        except ValueError as error:
            raise UserError(f"metric {metric!r} is not known; {error}") from None
    boards: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        rows = boards.setdefault(board_of(record.benchmark), {})
        rows.setdefault(record.label, []).append(record)
    if published is not None:
        for printed in (*published.tables, *published.reproductions):
            boards.setdefault(printed.benchmark, {})
        if benchmark is not None and benchmark in PUBLISHED_FOR:
            boards.setdefault(benchmark, {})
    if benchmark is not None:
        benchmark = plain_name(benchmark)
        _require_board(benchmark, boards, published is not None)
        boards = {benchmark: boards[benchmark]}
    if not boards:
        raise UserError("nothing to show: give a run, or --published for the published tables")
    made = []
    found_reference = reference is None
    empty, left_out = list[str](), list[str]()
    for name, runs in boards.items():
        notes: list[str] = []
        sources: dict[str, str] = {}
        shown = metric or _usual_metric(name, runs, published)
        entries = _run_entries(runs, shown, notes)
        entries += _printed_entries(name, published, shown, notes, sources)
        if not entries:
            empty.append(f"{name}: {' '.join(notes)}")
            left_out += [f"Of {name} nothing is shown: {note}" for note in notes if runs]
            continue
        chosen = None if reference is None else _named_reference(entries, reference)
        found_reference = found_reference or chosen is not None
        made.append(_make(name, entries, chosen, shown, strict, notes, sources))
    if not made:
        raise UserError(f"nothing to show. {' '.join(empty)}")
    made[0] = replace(made[0], notes=[*made[0].notes, *left_out])
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
        raise UserError(f"unknown benchmark {benchmark!r}; {has}; {meant(benchmark, known)}")
    more = "no published table is of it either" if published else "--published was not given"
    raise UserError(f"no run is of benchmark {benchmark!r}, and {more}; {has}")


# The rows of one table


def _run_entries(runs: dict[str, list[RunRecord]], metric: str, notes: list[str]) -> list[Entry]:
    entries = []
    for label, records in runs.items():
        entry = entry_of_runs(records, metric)
        if entry is not None:
            entries.append(entry)
            continue
        scores = [score for record in records for score in record.scores]
        present = sorted({name for score in scores for name in sample_metrics(score)})
        why = f"none of its samples has {metric}; it has {', '.join(present)}"
        notes.append(f"{label} is left out: {why if present else 'it holds no scored sample'}.")
    return entries


def _tables_of(board: str, published: Published) -> list[PublishedTable]:
    """Main tables first, the oldest first: of rows that several print, the first's is shown."""
    benchmark = PUBLISHED_FOR.get(board, board)
    return sorted(
        (table for table in published.tables if table.benchmark == benchmark),
        key=lambda table: (table.role != "main", table.date),
    )


def _usual_metric(
    board: str, runs: Mapping[str, Sequence[RunRecord]], published: Published | None
) -> str:
    """The headline of a table's runs; without runs that, if it is printed, else the first."""
    usual = headline_metric(s for records in runs.values() for r in records for s in r.scores)
    printed = [table.metric for table in _tables_of(board, published)] if published else []
    return usual if runs or usual in printed or not printed else printed[0]


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
    tables = _tables_of(board, published)
    ablations = [table.key for table in tables if table.role == "ablation"]
    if ablations and not published.ablations:
        notes.append(
            f"Published tables of ablations are left out: {', '.join(ablations)}. --ablations "
            "shows them, --table KEY one of them."
        )
    entries: list[Entry] = []
    for table in tables:
        if table.role == "ablation" and not published.ablations:
            continue
        if table.metric == metric:
            entries += entries_of_table(table, revisions)
            sources[table.key] = table.citation
            if table.recipe is not None:
                notes.append(
                    f"To evaluate as [{table.key}] was: `univg eval --like {table.recipe.name} "
                    "--model … --model_args …`."
                )
        else:
            notes.append(
                f"[{table.key}] is left out: it has {table.metric}, not {metric}; --metric "
                f"{table.metric} shows it."
            )
    for reported in published.reproductions:
        entry = entry_of_reproductions(reported, metric, revisions)
        if reported.benchmark == benchmark and entry is not None:
            entries.append(entry)
            sources[reported.key] = reported.citation
    if not entries and not tables:
        notes.append(f"No published table is of {board}.")
    # Rows that later tables copied appear once, under the first table.
    rows: dict[object, Entry] = {}
    for entry in entries:
        printed = tuple(sorted((task, str(c.printed)) for task, c in entry.columns.items()))
        key = (entry.label, printed, entry.printed_average, entry.protocol)
        first = rows.setdefault(key, entry)
        if first is not entry:
            rows[key] = replace(first, also_in=(*first.also_in, entry.source))
    return list(rows.values())


def _make(
    benchmark: str,
    entries: Sequence[Entry],
    reference: Entry | None,
    metric: str,
    strict: bool,
    notes: Sequence[str],
    sources: Mapping[str, str],
) -> Leaderboard:
    reason = "as requested"
    if reference is None:
        reference, reason = _default_reference(entries)
    # A number of the whole set is no task beside the tasks.
    average_tasks = tuple(t for t in reference.columns if t != OVERALL) or (OVERALL,)
    n = Counter(entry.label for entry in entries)
    rows = [_row(entry, n[entry.label], reference, average_tasks, metric) for entry in entries]
    equals = _ranked([row for row in rows if row.comparable], average_tasks)
    others = [row for row in rows if not row.comparable]
    shown = [*equals, *([] if strict else others)]
    extra = [task for task in _tasks(shown) if task not in average_tasks]
    used = {key for row in shown for key in (row.entry.source, *row.entry.also_in)}
    return Leaderboard(
        benchmark=benchmark,
        metric=metric,
        tasks=(*average_tasks, *extra),
        average_tasks=average_tasks,
        reference=next(row for row in equals if row.entry is reference),
        rows=shown,
        left_out=[(row, _reasons(row, reference)) for row in others] if strict else (),
        notes=[*notes, *_notes(rows, equals, reason, extra)],
        sources={key: text for key, text in sources.items() if key in used},
    )


def _row(entry: Entry, n_alike: int, reference: Entry, tasks: Sequence[str], metric: str) -> Row:
    marks = {**entry.marks, **relative_marks(entry, reference)}
    several = n_alike > 1 and entry.kind == "published"
    macro = entry.macro(tasks)
    runs = next((column.estimate.runs for column in entry.columns.values()), ())
    if runs:
        marks[Mark.SEVERAL_RUNS] = f"{len(runs)} runs"
    if macro is not None and macro.spread is not None:
        values = ", ".join(f"{100 * value:.1f}" for value in macro.runs)
        marks[Mark.SEVERAL_RUNS] += (
            f", macro {values} %, standard deviation {100 * macro.spread:.1f} points"
        )
    return Row(
        entry=entry,
        name=f"{entry.label} [{entry.source}]" if several else entry.label,
        macro=macro,
        micro=entry.micro(tasks, metric),
        marks={mark: marks[mark] for mark in Mark if mark in marks},
        comparable=_comparable(entry, reference, marks),
        printed_mean=entry.printed_mean(tasks),
    )


def _tasks(rows: Sequence[Row]) -> Iterable[str]:
    return dict.fromkeys(task for row in rows for task in row.entry.columns)


def _ranked(rows: Sequence[Row], average_tasks: Sequence[str]) -> list[Row]:
    """Comparable rows by their macro, with ranks and places; values that are shown alike are equal.

    A single row has no rank, and a column where all are equal no best.
    """
    shown = {
        column: [None if (text := row.text(column)) is None else Decimal(text) for row in rows]
        for column in dict.fromkeys((*average_tasks, *_tasks(rows), *AVERAGES))
    }
    averages = [value for value in shown[MACRO] if value is not None]
    found = []
    for number, row in enumerate(rows):
        places = {}
        for column, values in shown.items():
            best = sorted({value for value in values if value is not None}, reverse=True)[:2]
            own = values[number]
            if own is not None and len(best) == 2 and own in best:
                places[column] = best.index(own) + 1
        average = shown[MACRO][number]
        rank = None
        if average is not None and len(averages) > 1:
            rank = 1 + sum(other > average for other in averages)
        found.append(replace(row, rank=rank, places=places))
    return sorted(found, key=lambda row: len(rows) + 1 if row.rank is None else row.rank)


def _reasons(row: Row, reference: Entry) -> list[str]:
    """Why a row is not comparable with the reference."""
    reasons = [
        f"{mark} ({row.marks[mark]})" if row.marks[mark] else mark.value
        for mark in _breaking(row.entry, reference, row.marks)
    ]
    if row.entry.kind == "run" and reference.kind == "published":
        reasons.append("a run cannot be checked against a printed row")
    return reasons


def _notes(
    rows: Sequence[Row], equals: Sequence[Row], reason: str, extra: Sequence[str]
) -> Iterator[str]:
    reference = next(row for row in equals if Mark.REFERENCE in row.marks)
    facts = reference.entry
    known = [f"{reference.name} ({reason})"]
    if facts.protocol:
        known.append(f"protocol {facts.protocol}")
    several = len(facts.fingerprints) > 1
    for name, digest in facts.fingerprints.items():
        known.append(f"fingerprint {digest[:12]}" + (f" of {name}" if several else ""))
    yield f"Reference: {', '.join(known)}."
    if len(equals) > 1:
        ranked = any(row.rank is not None for row in equals)
        yield (
            f"Comparable set ({len(equals)} rows{'; only these are ranked' * ranked}): "
            f"{', '.join(row.name for row in equals)}."
        )
    elif len(rows) > 1:
        yield "No other row can be compared with the reference, so nothing is ranked."
    if facts.kind == "published" and any(row.entry.kind == "run" for row in rows):
        yield "The reference was printed without its responses: no run is compared with it."
    if extra:
        n = len(facts.columns)
        yield (
            f"The averages run over the {f'{n} tasks' if n > 1 else 'one task'} of the reference, "
            f"not over {', '.join(extra)}."
        )
    overlapping = [
        f"{a.rank} and {b.rank}"
        for a, b in pairwise(equals)
        if None not in (a.rank, b.rank) and a.rank != b.rank and _overlap(a.macro, b.macro)
    ]
    if overlapping:
        yield (
            f"The intervals of ranks {', '.join(overlapping)} overlap: such neighbours need not "
            "differ. `univg compare A B` tests two runs on the same samples."
        )
    elif any(row.rank and row.macro and row.macro.low is None for row in equals):
        yield "Where values have no intervals, small differences between ranks may be chance."


def _overlap(a: Estimate | None, b: Estimate | None) -> bool:
    if a is None or b is None or a.low is None or b.low is None:
        return False
    assert a.high is not None and b.high is not None
    return a.low <= b.high and b.low <= a.high


# The reference, and what a row is to it


def _named_reference(entries: Sequence[Entry], label: str) -> Entry | None:
    """The row called `label`, or ``TABLE/MODEL``, runs first; None if there is none.

    Raises:
        UserError: several printed rows are called so.
    """
    found: dict[str, list[Entry]] = {"run": [], "published": []}
    for entry in entries:
        names = [entry.label]
        if entry.kind == "published":
            names += [f"{key}/{entry.label}" for key in (entry.source, *entry.also_in)]
        if label in names:
            found[entry.kind].append(entry)
    printed = found["published"]
    if not found["run"] and len(printed) > 1:
        raise UserError(
            f"--reference {label!r} is a row of several published tables; name one: "
            + ", ".join(f"{entry.source}/{entry.label}" for entry in printed)
        )
    return next(iter(found["run"] + printed), None)


def _default_reference(entries: Sequence[Entry]) -> tuple[Entry, str]:
    """The first run of a model on real images, else the first run, else a printed row; and why."""
    runs = [entry for entry in entries if entry.kind == "run"]
    models = [
        entry for entry in runs if not {Mark.BASELINE, Mark.STAND_IN_IMAGES} & set(entry.marks)
    ]
    if models and models[0] is not runs[0]:
        return models[0], "the first run of a model"
    return (runs[0], "the first run") if runs else _printed_reference(entries)


def _printed_reference(entries: Sequence[Entry]) -> tuple[Entry, str]:
    """The printed row that the others are compared with where none is named, and why it is.

    Of the rows with the most tasks and feasible values, the one with the highest average among
    those whose rule and annotation file are known and that another row can be compared with; among
    all that another can be compared with where there is none; else among all of them.
    """
    most = max(len(entry.columns) for entry in entries)
    full = [entry for entry in entries if len(entry.columns) == most]
    feasible = [entry for entry in full if Mark.INFEASIBLE_DENOMINATOR not in entry.marks] or full
    compared = [
        entry
        for entry in feasible
        if any(
            _comparable(other, entry, {**other.marks, **relative_marks(other, entry)})
            for other in entries
            if other is not entry
        )
    ]
    known = [entry for entry in compared if entry.protocol is not None and entry.revisions]
    reason = "the best printed row"
    if known:
        reason += " of known rule and file that another can be compared with"
    elif compared:
        reason += " that another can be compared with"
    return max(known or compared or feasible, key=_average), reason


def _average(entry: Entry) -> Decimal:
    mean = entry.printed_mean(tuple(entry.columns))
    average = entry.printed_average if mean is None else mean
    return Decimal(-1) if average is None else average


def relative_marks(entry: Entry, reference: Entry) -> dict[Mark, str]:
    """The marks of a row against the reference, each with what there is to say about it.

    Nothing is said where a fact is unknown: a printed row has neither ``same-fingerprint`` nor
    ``other-fingerprint``.
    """
    if entry is reference:
        return {Mark.REFERENCE: ""}
    marks: dict[Mark, str] = {}
    shared = [name for name in reference.fingerprints if name in entry.fingerprints]
    other = [name for name in shared if entry.fingerprints[name] != reference.fingerprints[name]]
    if other:
        marks[Mark.OTHER_FINGERPRINT] = ", ".join(other) if len(shared) > 1 else ""
    elif shared:
        marks[Mark.SAME_FINGERPRINT] = ""
    if entry.protocol is not None and reference.protocol is not None:
        if entry.protocol == reference.protocol:
            marks[Mark.SAME_PROTOCOL] = ""
        else:
            marks[Mark.OTHER_PROTOCOL] = f"{entry.protocol}; the reference: {reference.protocol}"
    revision = _other_revision(entry, reference)
    if revision is not None:
        marks[Mark.OTHER_REVISION] = revision
    if entry.kind == reference.kind == "published" and not _stated_alike(entry, reference):
        marks[Mark.UNVERIFIED] = ""
    missing = [task for task in reference.columns if task not in entry.columns]
    if missing:
        all_missing = len(missing) == len(reference.columns)
        marks[Mark.MISSING_TASKS] = "all" if all_missing else ", ".join(missing)
    if entry.kind == reference.kind == "run":
        other_ids = [
            task
            for task, column in reference.columns.items()
            if task in entry.columns and entry.columns[task].ids != column.ids
        ]
        if other_ids:
            more = len(other_ids) - SHOWN_TASKS
            shown = ", ".join(other_ids[:SHOWN_TASKS])
            marks[Mark.OTHER_SAMPLES] = f"{shown} and {more} more" if more > 0 else shown
    return marks


def _breaking(entry: Entry, reference: Entry, marks: Iterable[Mark]) -> list[Mark]:
    """The marks that keep a row out of the reference's comparable set.

    Among printed rows ``unknown-provenance`` does not: it holds for all of them.
    """
    harmless = {Mark.UNKNOWN_PROVENANCE} if entry.kind == reference.kind == "published" else set()
    return [mark for mark in marks if mark in BREAKING - harmless]


def _comparable(entry: Entry, reference: Entry, marks: Mapping[Mark, str]) -> bool:
    """Whether a row with these marks belongs to the reference's comparable set.

    The reference does. Runs and printed rows are never comparable with each other.
    """
    if entry is reference:
        return True
    return entry.kind == reference.kind and not _breaking(entry, reference, marks)


def _other_revision(entry: Entry, reference: Entry) -> str | None:
    """Why the two were measured on different annotation files; None where they need not be."""
    different = [
        task
        for task in reference.counts
        if task in entry.counts and not entry.counts[task] & reference.counts[task]
    ]
    if entry.revisions and reference.revisions:
        if entry.revisions & reference.revisions:
            return None
        text = f"{_either(entry.revisions)}; the reference: {_either(reference.revisions)}"
    elif different:
        text = "other numbers of samples"
    else:
        return None
    if not different:
        return text
    shown = [
        f"{task} N = {_either(entry.counts[task])}, not {_either(reference.counts[task])}"
        for task in different[:SHOWN_TASKS]
    ]
    if len(different) > SHOWN_TASKS:
        shown.append(f"{len(different) - SHOWN_TASKS} more")
    return f"{text} ({'; '.join(shown)})"


def _either(values: Iterable[object]) -> str:
    return " or ".join(sorted(map(str, values)))


def _stated_alike(entry: Entry, reference: Entry) -> bool:
    """Whether rule and annotation file of two printed rows are known, or not stated in one table.

    Other marks say where what is known differs.
    """
    return all(
        (a and b) or (entry.source == reference.source and not a and not b)
        for a, b in (
            (entry.protocol, reference.protocol),
            (entry.revisions, reference.revisions),
        )
    )
