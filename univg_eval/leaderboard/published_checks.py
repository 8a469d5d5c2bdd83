"""What the arithmetic of a published table allows, and what does not add up: named, not repaired.

A share of right answers is k/N for whole k and N. Printed with two decimals it keeps enough of that
to distinguish most N: 93.13 can be 759 of 815 and cannot be any number of 816.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Literal, get_args

from univg_eval.leaderboard.published import (
    UNKNOWN,
    Counts,
    PublishedRow,
    PublishedTable,
    load_counts,
)

Rounding = Literal["nearest", "down"]
"""``nearest``: to the nearest printable number; a tie may have gone either way, which covers
rounding half to even, half up, and formatting of the binary float beside a tie. ``down``: further
decimals are cut off."""
Kind = Literal["average", "denominator", "rounding", "revision"]
"""``average``: the printed average is not the mean of the printed values, however these were
rounded. ``denominator``: a value is no k/N, rounded, for any known N of its task. ``rounding``:
all values of a row fit one annotation file if they were cut off instead of rounded. ``revision``:
rows of one table fit different annotation files, or a row another one than the table names."""

_NEARBY = 10
"""How far from the known N the nearest one that fits is looked for, in percent of N."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A reading under which every value of a row is k of N samples.

    Attributes:
        revision: name of the annotation file whose counts are the N.
        rounding: how the percentages were rounded.
        counts: task to (k, N), for the tasks whose N is known.
    """

    revision: str
    rounding: Rounding
    counts: Mapping[str, tuple[int, int]]


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


def feasible_counts(percent: Decimal, n: int, rounding: Rounding = "nearest") -> range:
    """The numbers k of right answers for which 100 k / n is printed as `percent`.

    Args:
        percent: as printed, on [0, 100]; its decimals say how fine it was rounded.
        n: number of samples, at least 1.
        rounding: see `Rounding`.

    Returns:
        consecutive k within [0, n]; empty where `percent` cannot come from n samples, and more
        than one only where n is so large that neighbours print the same.

    Raises:
        ValueError: n is below 1, or the rounding is not known.
    """
    if n < 1 or rounding not in get_args(Rounding):
        raise ValueError(
            f"n is {n}, rounding {rounding!r}; expected n of at least 1, and one of: "
            f"{', '.join(get_args(Rounding))}"
        )
    unit, printed = _unit(percent), Fraction(percent)
    if rounding == "nearest":
        first = ceil((printed - unit / 2) * n / 100)
        last = floor((printed + unit / 2) * n / 100)
    else:
        first = ceil(printed * n / 100)
        last = ceil((printed + unit) * n / 100) - 1
    return range(max(first, 0), min(last, n) + 1)


def feasible_denominators(
    percent: Decimal, candidates: Iterable[int], rounding: Rounding = "nearest"
) -> tuple[int, ...]:
    """Those of the candidate numbers of samples that `percent` can come from, in their order.

    >>> feasible_denominators(Decimal("93.13"), range(812, 818))
    (815,)
    """
    return tuple(n for n in candidates if feasible_counts(percent, n, rounding))


def row_fits(row: PublishedRow, revisions: Sequence[Counts]) -> tuple[Fit, ...]:
    """The readings of a row on one annotation file: every value of a counted task is k of its N.

    Values cut off instead of rounded are considered only where nothing fits when they are rounded.
    An empty result says that no single one of the files explains the row, or that the N of none of
    its tasks is known.
    """
    for rounding in get_args(Rounding):
        fits = []
        for revision in revisions:
            known = {t: v for t, v in row.values.items() if t in revision.counts}
            counts = {
                task: (feasible[0], revision.counts[task])
                for task, value in known.items()
                if (feasible := feasible_counts(value, revision.counts[task], rounding))
            }
            if known and len(counts) == len(known):
                fits.append(Fit(revision.revision, rounding, counts))
        if fits:
            return tuple(fits)
    return ()


def _unit(percent: Decimal) -> Fraction:
    """The step of the last printed decimal: 1/100 for two decimals."""
    exponent = percent.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{percent} is no number")
    return Fraction(10) ** min(exponent, 0)


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
    values = row.values.values()
    mean = sum(map(Fraction, values), Fraction(0)) / len(values)
    slack = sum(map(_unit, values), Fraction(0)) / len(values) + _unit(row.printed_avg)
    return abs(mean - Fraction(row.printed_avg)) <= slack / 2


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
            for task, kind, text in _check_row(row, fits[row.model], revisions):
                found.append(Inconsistency(table.key, row.model, task, kind, text))
    for model, text in _check_revisions(table, fits):
        found.append(Inconsistency(table.key, model, None, "revision", text))
    return found


def _check_row(
    row: PublishedRow, fits: Sequence[Fit], revisions: Sequence[Counts]
) -> Iterator[tuple[str | None, Kind, str]]:
    """Task, kind and text of what does not fit the numbers of samples."""
    if any(fit.rounding == "nearest" for fit in fits):
        return
    counted = misfits = False
    for task, value in row.values.items():
        known = sorted({r.counts[task] for r in revisions if task in r.counts})
        counted = counted or bool(known)
        if known and not feasible_denominators(value, known):
            misfits = True
            text = f"{value} is no k/{' and no k/'.join(map(str, known))} rounded to its decimals; "
            yield task, "denominator", text + _what_fits(value, known)
    if fits:
        names = " and ".join(fit.revision for fit in fits)
        text = f"every value is k/N of {names} if further decimals were cut off, not rounded"
        yield None, "rounding", text
    elif counted and not misfits:
        text = "every value fits some annotation file, but all of them together fit none"
        yield None, "revision", text


def _what_fits(value: Decimal, known: Sequence[int]) -> str:
    cut = [
        f"{feasible_counts(value, n, 'down')[0]}/{n}"
        for n in feasible_denominators(value, known, "down")
    ]
    low, high = max(known[0] * (100 - _NEARBY) // 100, 1), known[-1] * (100 + _NEARBY) // 100
    near = feasible_denominators(value, range(low, high + 1))
    words = f"nor any N from {low} to {high}"
    if near:
        nearest = min(near, key=lambda n: min(abs(n - k) for k in known))
        words = f"the nearest N that fits is {nearest}"
    return words + (f"; cut off, it is {' or '.join(cut)}" if cut else "")


def _check_revisions(
    table: PublishedTable, fits: Mapping[str, Sequence[Fit]]
) -> Iterator[tuple[str | None, str]]:
    """Model (None: all rows) and text of rows on other annotation files."""
    by_model = {model: {fit.revision for fit in found} for model, found in fits.items() if found}
    if table.revision != UNKNOWN:
        for model, names in by_model.items():
            if table.revision not in names:
                fitting = " or ".join(sorted(names))
                yield model, f"the table names {table.revision}; the row fits {fitting}"
    elif by_model and not set.intersection(*by_model.values()):
        groups: dict[str, list[str]] = {}
        for model, names in by_model.items():
            groups.setdefault(" or ".join(sorted(names)), []).append(model)
        parts = [f"{', '.join(models)} fit {names}" for names, models in groups.items()]
        yield None, f"rows on different annotation files: {'; '.join(parts)}"
