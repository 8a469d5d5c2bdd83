"""Rows of the published tables and of reported reproductions, with what their arithmetic shows."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from univg_eval.analysis.stats import wilson_interval
from univg_eval.leaderboard.entries import Column, Entry
from univg_eval.leaderboard.intervals import Estimate, is_share
from univg_eval.leaderboard.marks import Mark
from univg_eval.leaderboard.published import (
    Counts,
    PublishedRow,
    PublishedTable,
    Reproductions,
    check_table,
    row_fits,
)

__all__ = ["entries_of_table", "entry_of_reproductions"]

UNKNOWN = "unknown"
_MARK_OF_KIND = {
    "average": Mark.AVERAGE_DIFFERS,
    "denominator": Mark.INFEASIBLE_DENOMINATOR,
    "revision": Mark.INFEASIBLE_DENOMINATOR,
    "rounding": Mark.CUT_OFF,
}


def entries_of_table(table: PublishedTable, revisions: Sequence[Counts]) -> list[Entry]:
    """The rows of a published table, in its order.

    Args:
        table: as `published.load_published` gives it.
        revisions: the annotation files that its values are held against.
    """
    found: dict[str, dict[Mark, list[str]]] = {}
    for item in check_table(table, revisions):
        if item.model is None:
            continue
        text = item.text
        if item.kind == "denominator" and item.task is not None:
            row = next(row for row in table.rows if row.model == item.model)
            text = f"{item.task} {row.values[item.task]}"
        found.setdefault(item.model, {}).setdefault(_MARK_OF_KIND[item.kind], []).append(text)
    return [_entry(table, row, revisions, found.get(row.model, {})) for row in table.rows]


def _entry(
    table: PublishedTable,
    row: PublishedRow,
    revisions: Sequence[Counts],
    found: dict[Mark, list[str]],
) -> Entry:
    fits = row_fits(row, revisions) if is_share(table.metric) else ()
    named = table.revision != UNKNOWN
    if fits:
        revision = frozenset(fit.revision for fit in fits)
    else:
        revision = frozenset({table.revision}) if named else frozenset()
    certain = fits[0] if len(fits) == 1 and fits[0].rounding == "nearest" else None
    marks = {mark: ", ".join(texts) for mark, texts in found.items()}
    return Entry(
        label=row.model,
        kind="published",
        source=table.key,
        columns={
            task: Column(
                Estimate(float(value / 100), None),
                printed=value,
                right=certain.counts.get(task) if certain else None,
            )
            for task, value in row.values.items()
        },
        protocol=None if row.protocol == UNKNOWN else row.protocol,
        revisions=revision,
        counts={
            task: frozenset(fit.counts[task][1] for fit in fits if task in fit.counts)
            for task in row.values
            if any(task in fit.counts for fit in fits)
        },
        printed_average=row.printed_avg,
        marks={Mark.UNKNOWN_PROVENANCE: "", **marks},
        note=row.note,
    )


def entry_of_reproductions(
    reported: Reproductions, metric: str, revisions: Sequence[Counts]
) -> Entry | None:
    """What a user reported under a metric; None where there is nothing.

    Shares have Wilson's interval, since their numerators and denominators were reported.
    """
    rows = [row for row in reported.rows if row.metric == metric]
    if not rows:
        return None
    columns = {}
    for row in rows:
        exact = row.numerator / row.denominator
        estimate = Estimate(float(exact), row.denominator)
        if is_share(metric):
            limits = wilson_interval(int(row.numerator), row.denominator)
            estimate = Estimate(limits.estimate, row.denominator, limits.low, limits.high, "wilson")
        printed = row.printed
        if printed is None:
            printed = (100 * exact).quantize(Decimal("0.01"))
        right = (int(row.numerator), row.denominator) if is_share(metric) else None
        columns[row.task] = Column(estimate, printed=printed, right=right)
    named = reported.revision != UNKNOWN
    fitting = [
        known.revision
        for known in revisions
        if all(known.counts.get(row.task, row.denominator) == row.denominator for row in rows)
    ]
    return Entry(
        label=f"{reported.model} (reported by a user)",
        kind="published",
        source=reported.key,
        columns=columns,
        protocol=None if reported.protocol == UNKNOWN else reported.protocol,
        revisions=frozenset({reported.revision} if named else fitting),
        counts={row.task: frozenset({row.denominator}) for row in rows},
        marks={Mark.UNKNOWN_PROVENANCE: ""},
    )
