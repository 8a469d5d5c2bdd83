"""Which numbers of questions a printed percentage can come from.

A share of right answers is k/N for whole k and N. Printed with two decimals it keeps enough of that
to tell most N apart: 93.13 can be 759 of 815 and cannot be any number of 816.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from univg_eval.leaderboard.published.tables import Counts, PublishedRow

__all__ = [
    "ROUNDINGS",
    "Fit",
    "Rounding",
    "feasible_counts",
    "feasible_denominators",
    "printed_unit",
    "row_fits",
]

Rounding = Literal["nearest", "down"]
"""``nearest``: to the nearest printable number; a tie may have gone either way, which covers
rounding half to even, half up, and formatting of the binary float beside a tie. ``down``: further
decimals are cut off."""

ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)


@dataclass(frozen=True, slots=True)
class Fit:
    """A reading under which every value of a row is k of N questions.

    Attributes:
        revision: name of the annotation file whose counts are the N.
        rounding: how the percentages were rounded.
        counts: task to (k, N), for the tasks whose N is known.
    """

    revision: str
    rounding: Rounding
    counts: Mapping[str, tuple[int, int]]

    @property
    def micro(self) -> Fraction:
        """Right answers of all tasks with known N together, over the questions of those tasks."""
        right = sum(k for k, _ in self.counts.values())
        return Fraction(right, sum(n for _, n in self.counts.values()))


def feasible_counts(percent: Decimal, n: int, rounding: Rounding = "nearest") -> range:
    """The numbers k of right answers for which 100 k / n is printed as `percent`.

    Args:
        percent: as printed, on [0, 100]; its decimals say how fine it was rounded.
        n: number of questions, at least 1.
        rounding: see `Rounding`.

    Returns:
        consecutive k within [0, n]; empty where `percent` cannot come from n questions, and more
        than one only where n is so large that neighbours print the same.

    Raises:
        ValueError: n is below 1, or the rounding is not known.
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected at least one question")
    unit = printed_unit(percent)
    printed = Fraction(percent)
    if rounding == "nearest":
        first = ceil((printed - unit / 2) * n / 100)
        last = floor((printed + unit / 2) * n / 100)
    elif rounding == "down":
        first = ceil(printed * n / 100)
        last = ceil((printed + unit) * n / 100) - 1
    else:
        raise ValueError(f"unknown rounding {rounding!r}; expected one of: {', '.join(ROUNDINGS)}")
    return range(max(first, 0), min(last, n) + 1)


def feasible_denominators(
    percent: Decimal, candidates: Iterable[int], rounding: Rounding = "nearest"
) -> tuple[int, ...]:
    """Those of the candidate numbers of questions that `percent` can come from, in their order.

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
    for rounding in ROUNDINGS:
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


def printed_unit(percent: Decimal) -> Fraction:
    """The step of the last printed decimal: 1/100 for two decimals."""
    exponent = percent.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{percent} is no number")
    return Fraction(10) ** min(exponent, 0)
