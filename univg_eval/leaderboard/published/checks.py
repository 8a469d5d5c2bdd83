"""What does not add up in a published table: found and named, never repaired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Literal

from univg_eval.leaderboard.published.denominators import (
    Fit,
    Rounding,
    feasible_counts,
    feasible_denominators,
    printed_unit,
    row_fits,
)
from univg_eval.leaderboard.published.tables import (
    UNKNOWN,
    Counts,
    PublishedRow,
    PublishedTable,
    Reproductions,
    load_counts,
)

__all__ = [
    "Inconsistency",
    "Kind",
    "average_is_reachable",
    "check_reproductions",
    "check_table",
    "markdown_lines",
    "rounded_means",
]

Kind = Literal["average", "denominator", "rounding", "revision", "value"]
"""``average``: the printed average is not the mean of the printed values, however these were
rounded. ``denominator``: a value is no k/N, rounded, for any known N of its task. ``rounding``:
all values of a row fit one annotation file if they were cut off instead of rounded. ``revision``:
rows of one table fit different annotation files, or a row another one than the table names.
``value``: a reported percentage is not its numerator over its denominator."""

_NEARBY = 10
"""How far from the known N the nearest one that fits is looked for, in percent of N."""


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """One thing that does not add up.

    Attributes:
        table: key of the table.
        model: whose row it is; None where it concerns the table.
        task: whose column it is; None where it concerns the row or the table.
        kind: see `Kind`.
        text: what was found, in one sentence.
    """

    table: str
    model: str | None
    task: str | None
    kind: Kind
    text: str


def rounded_means(row: PublishedRow) -> tuple[Decimal, Decimal] | None:
    """The unweighted mean of the printed values with a tie rounded half to even, and half up.

    Rounded to the decimals of the printed average, or to two without one. None without values.
    """
    if row.mean is None:
        return None
    step = Decimal("0.01") if row.printed_avg is None else row.printed_avg
    return row.mean.quantize(step, ROUND_HALF_EVEN), row.mean.quantize(step, ROUND_HALF_UP)


def average_is_reachable(row: PublishedRow) -> bool:
    """Whether the printed average can be the mean of the values before they were rounded.

    Every value may have been up to half a unit of its last decimal higher or lower, and so may the
    average. True where nothing can be said: no average, or no values.
    """
    if row.printed_avg is None or not row.values:
        return True
    mean = sum(map(Fraction, row.values.values()), Fraction(0)) / len(row.values)
    slack = sum((printed_unit(v) for v in row.values.values()), Fraction(0)) / len(row.values) / 2
    slack += printed_unit(row.printed_avg) / 2
    return abs(mean - Fraction(row.printed_avg)) <= slack


def check_table(
    table: PublishedTable, revisions: Sequence[Counts] | None = None
) -> list[Inconsistency]:
    """Everything that does not add up in a table: by row, then what concerns all rows.

    Args:
        table: as `load_published` returns it. Denominators are checked for shares (``acc@…``) only.
        revisions: the annotation files to compare with; those of the project if None.
    """
    if revisions is None:
        revisions = load_counts(table.benchmark)
    found: list[Inconsistency] = []
    fits: dict[str, tuple[Fit, ...]] = {}
    for row in table.rows:
        if not average_is_reachable(row):
            text = (
                f"the average is printed as {row.printed_avg}; the printed values give {row.mean}"
            )
            found.append(Inconsistency(table.key, row.model, None, "average", text))
        if table.metric.startswith("acc@"):
            fits[row.model] = row_fits(row, revisions)
            found += _check_denominators(table, row, fits[row.model], revisions)
    return found + _check_revisions(table, fits)


def markdown_lines(tables: Iterable[PublishedTable]) -> list[str]:
    """What `check_table` finds in the tables, as lines of a Markdown table, one a row of a table.

    Columns: key of the table, model, finding. The values of a row that fit no denominator stand
    together in one line.
    """
    lines = []
    for table in tables:
        found = check_table(table)
        for model in dict.fromkeys(one.model for one in found):
            own = [one for one in found if one.model == model]
            texts = [one.text for one in own if one.kind != "denominator"]
            values = [
                f"{one.task} {row.values[one.task]}"
                for row in table.rows
                for one in own
                if one.kind == "denominator" and one.task is not None and row.model == model
            ]
            if values:
                texts.insert(0, f"no k/N: {', '.join(values)}")
            lines.append(f"| `{table.key}` | {model or 'all rows'} | {'; '.join(texts)} |")
    return lines


def _check_denominators(
    table: PublishedTable, row: PublishedRow, fits: Sequence[Fit], revisions: Sequence[Counts]
) -> list[Inconsistency]:
    if any(fit.rounding == "nearest" for fit in fits):
        return []
    found = []
    for task, value in row.values.items():
        known = sorted({r.counts[task] for r in revisions if task in r.counts})
        if not known or feasible_denominators(value, known):
            continue
        text = f"{value} is no k/{' and no k/'.join(map(str, known))} rounded to its decimals; "
        text += _what_fits(value, known)
        found.append(Inconsistency(table.key, row.model, task, "denominator", text))
    if fits:
        names = " and ".join(fit.revision for fit in fits)
        text = f"every value is k/N of {names} if further decimals were cut off, not rounded"
        found.append(Inconsistency(table.key, row.model, None, "rounding", text))
    elif not found and any(task in r.counts for r in revisions for task in row.values):
        text = "every value fits some annotation file, but all of them together fit none"
        found.append(Inconsistency(table.key, row.model, None, "revision", text))
    return found


def _what_fits(value: Decimal, known: Sequence[int]) -> str:
    rounding: Rounding = "down"
    cut = [
        f"{feasible_counts(value, n, rounding)[0]}/{n}"
        for n in feasible_denominators(value, known, rounding)
    ]
    low, high = known[0] * (100 - _NEARBY) // 100, known[-1] * (100 + _NEARBY) // 100
    near = sorted(
        feasible_denominators(value, range(max(low, 1), high + 1)),
        key=lambda n: min(abs(n - k) for k in known),
    )
    words = f"the nearest N that fits is {near[0]}" if near else f"nor any N from {low} to {high}"
    return words + (f"; cut off, it is {' or '.join(cut)}" if cut else "")


def _check_revisions(
    table: PublishedTable, fits: dict[str, tuple[Fit, ...]]
) -> list[Inconsistency]:
    by_model = {model: {fit.revision for fit in found} for model, found in fits.items() if found}
    if not by_model:
        return []
    if table.revision != UNKNOWN:
        return [
            Inconsistency(
                table.key,
                model,
                None,
                "revision",
                f"the table names {table.revision}; the row fits {' or '.join(sorted(names))}",
            )
            for model, names in by_model.items()
            if table.revision not in names
        ]
    if set.intersection(*by_model.values()):
        return []
    groups: dict[str, list[str]] = {}
    for model, names in by_model.items():
        groups.setdefault(" or ".join(sorted(names)), []).append(model)
    text = "rows on different annotation files: " + "; ".join(
        f"{', '.join(models)} fit {names}" for names, models in groups.items()
    )
    return [Inconsistency(table.key, None, None, "revision", text)]


def check_reproductions(reported: Reproductions) -> list[Inconsistency]:
    """Reported percentages that are not their numerator over their denominator, rounded."""
    found = []
    for row in reported.rows:
        if row.printed is None:
            continue
        exact = Fraction(row.numerator) * 100 / row.denominator
        if abs(exact - Fraction(row.printed)) > printed_unit(row.printed) / 2:
            text = (
                f"{row.metric} is printed as {row.printed}; {row.numerator}/{row.denominator} is "
                f"{float(exact):.4f} %"
            )
            found.append(Inconsistency(reported.key, reported.model, row.task, "value", text))
    return found
