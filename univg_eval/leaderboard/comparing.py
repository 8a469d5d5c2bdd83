"""What a row is to the reference: same or other data, rule and samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from univg_eval.leaderboard.entries import Entry
from univg_eval.leaderboard.marks import BREAKING, Mark

__all__ = ["breaking_marks", "comparable", "printed_reference", "relative_marks"]

SHOWN_TASKS = 3


def relative_marks(entry: Entry, reference: Entry) -> dict[Mark, str]:
    """The marks of a row against the reference, each with what there is to say about it.

    Nothing is said where a fact is unknown: a printed row has neither ``same-fingerprint`` nor
    ``other-fingerprint``.
    """
    if entry is reference:
        return {Mark.REFERENCE: ""}
    marks: dict[Mark, str] = {}
    shared = [name for name in reference.fingerprints if name in entry.fingerprints]
    if shared:
        other = [
            name for name in shared if entry.fingerprints[name] != reference.fingerprints[name]
        ]
        if other:
            marks[Mark.OTHER_FINGERPRINT] = ", ".join(other) if len(shared) > 1 else ""
        else:
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
            marks[Mark.OTHER_SAMPLES] = _some(other_ids)
    return marks


def breaking_marks(entry: Entry, reference: Entry, marks: Mapping[Mark, str]) -> list[Mark]:
    """The marks that keep a row out of the reference's comparable set.

    Among printed rows ``unknown-provenance`` does not: it holds for all of them.
    """
    harmless = {Mark.UNKNOWN_PROVENANCE} if entry.kind == reference.kind == "published" else set()
    return [mark for mark in marks if mark in BREAKING - harmless]


def comparable(entry: Entry, reference: Entry, marks: Mapping[Mark, str]) -> bool:
    """Whether a row with these marks stands in the reference's comparable set.

    The reference does. Runs and printed rows are never comparable with each other.
    """
    if entry is reference:
        return True
    return entry.kind == reference.kind and not breaking_marks(entry, reference, marks)


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
    more = [f"{len(different) - SHOWN_TASKS} more"] if len(different) > SHOWN_TASKS else []
    return f"{text} ({'; '.join([*shown, *more])})"


def _stated_alike(entry: Entry, reference: Entry) -> bool:
    """Whether rule and annotation file of two printed rows are known, or not stated in one table.

    That what is known differs is told by other marks.
    """
    facts = (
        (entry.protocol, reference.protocol),
        (entry.revisions or None, reference.revisions or None),
    )
    same_table = entry.source == reference.source
    return all(
        (same_table and a is None and b is None) or (a is not None and b is not None)
        for a, b in facts
    )


def _either(values: Iterable[object]) -> str:
    return " or ".join(sorted(map(str, values)))


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_TASKS
    return ", ".join(names[:SHOWN_TASKS]) + (f" and {more} more" if more > 0 else "")


def printed_reference(entries: Sequence[Entry]) -> tuple[Entry, str]:
    """The printed row that the others are held against where none is named, and why it is.

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
            comparable(other, entry, {**other.marks, **relative_marks(other, entry)})
            for other in entries
            if other is not entry
        )
    ]
    known = [entry for entry in compared if entry.protocol is not None and entry.revisions]
    if known:
        reason = "the best printed row of known rule and file that another can be compared with"
    elif compared:
        reason = "the best printed row that another can be compared with"
    else:
        reason = "the best printed row"
    return max(known or compared or feasible, key=_average), reason


def _average(entry: Entry) -> float:
    average = entry.macro(tuple(entry.columns))
    if average is not None:
        return average.value
    return -1.0 if entry.printed_average is None else float(entry.printed_average / 100)
