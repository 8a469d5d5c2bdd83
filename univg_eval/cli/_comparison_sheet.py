"""How a comparison looks in the terminal, in Markdown and in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from univg_eval.analysis.comparison import Comparison, Flip, p_words, points
from univg_eval.analysis.stats import Difference, PairCounts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["as_json", "as_markdown", "show"]

PIPED_WIDTH = 160
"""Characters a line where no terminal says how many it shows."""


@dataclass(frozen=True, slots=True)
class _Table:
    """Cells as text.

    Attributes:
        title, heads, rows: what is shown; the columns up to "task" hold names.
        narrow: the column from which on a second table is made where there is little room; 0: none.
    """

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    narrow: int = 0


def as_json(comparison: Comparison) -> str:
    """One JSON object, all values as fractions."""
    return json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print the same to the terminal.

    Args:
        comparison: what is shown.
        console: where; None: standard output, as wide as the terminal, and wide where it is none.
    """
    from rich.console import Console
    from rich.text import Text

    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=max(console.width, PIPED_WIDTH))
    console.print(Text(comparison.verdict.headline, style="bold"))
    console.print(Text(comparison.verdict.text))
    console.print()
    for line in _facts(comparison):
        console.print(Text(line))
    for block in _tables(comparison):
        drawn = _drawn(block)
        whole = console.measure(drawn, options=console.options.update(width=10_000)).maximum
        if whole <= console.width or not block.narrow:
            console.print(drawn)
            continue
        for part in _split(block):
            console.print(_drawn(part))


def _drawn(block: _Table) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(block.title) if block.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for number, head in enumerate(block.heads):
        named = number <= block.heads.index("task")
        # Names may take two lines where there is little room, figures may not.
        table.add_column(
            Text(head, overflow="fold"),
            justify="left" if named else "right",
            overflow="fold",
            min_width=None if named else max(len(row[number]) for row in block.rows),
        )
    for row in block.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _split(block: _Table) -> tuple[_Table, _Table]:
    """The columns in two tables, both with the task."""
    first, at = block.heads.index("task"), block.narrow
    return (
        replace(block, heads=block.heads[:at], rows=[row[:at] for row in block.rows]),
        _Table(
            "",
            (block.heads[first], *block.heads[at:]),
            [(row[first], *row[at:]) for row in block.rows if any(row[at:])],
        ),
    )


def as_markdown(comparison: Comparison) -> str:
    """The verdict, what was compared, and the tables."""
    parts = [
        f"**{_plain(comparison.verdict.headline)}**",
        _plain(comparison.verdict.text),
        "\n".join(f"- {_plain(line)}" for line in _facts(comparison)),
    ]
    for block in _tables(comparison):
        first = block.heads.index("task")
        lines = [
            "| " + " | ".join(map(_plain, block.heads)) + " |",
            "|"
            + "|".join(" --- " if i <= first else " ---: " for i in range(len(block.heads)))
            + "|",
            *("| " + " | ".join(map(_plain, row)) + " |" for row in block.rows),
        ]
        parts += [_plain(block.title), "\n".join(lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """Text in which Markdown reads no mark-up: labels and ids are data."""
    text = " ".join(text.split())
    # Underscores inside words are read as they stand.
    return re.sub(r"[\\`*\[\]<>|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def _facts(comparison: Comparison) -> Iterator[str]:
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        yield f"{name}: {side.label} (model {side.model}, {side.n} samples of {side.benchmark})"
    yield (
        f"Compared: {comparison.n} samples in {comparison.clusters} groups that share no image, by "
        f"{comparison.metric}; {comparison.same_responses} responses are word for word the same."
    )
    yield from comparison.notes
    if comparison.differing:
        yield "These two differ in: " + "; ".join(
            f"{name}: {_short(a)} | {_short(b)}" for name, (a, b) in comparison.differing.items()
        )
    else:
        yield "Settings, generation arguments, versions and hardware of the two are the same."


def _short(value: object) -> str:
    text = "not recorded" if value is None else str(value)
    # Hashes: 40 digits of a commit, 64 of a SHA-256.
    return re.sub(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b", r"\1…", text)


def _tables(comparison: Comparison) -> Iterator[_Table]:
    a, b = comparison.a.label, comparison.b.label
    binary = comparison.counts.both is not None
    kinds = (
        (f"only {a}", f"only {b}", "both", "neither")
        if binary
        else (f"{a} higher", f"{b} higher", "same")
    )
    rows = [
        (
            task.task,
            str(task.n),
            *_difference(task.difference),
            p_words(task.p_holm),
            *_counts(task.counts),
        )
        for task in comparison.tasks
    ]
    if len(comparison.tasks) > 1:
        rows.append(("macro", "", *_difference(comparison.macro), "", *("" for _ in kinds)))
        rows.append(
            (
                "micro",
                str(comparison.n),
                *_difference(comparison.micro),
                "",
                *_counts(comparison.counts),
            )
        )
    yield _Table(
        f"{comparison.metric} in %, differences in points; macro: unweighted mean over the tasks, "
        "micro: mean over all samples, seen: the smallest difference that would be found in four "
        "of five such comparisons",
        ("task", "n", a, b, "B - A", "95 % interval", "seen", "p", "p (Holm)", *kinds),
        rows,
        narrow=9,
    )
    for title, flips in (
        (f"Changed most in favour of {b}", comparison.for_b),
        (f"Changed most in favour of {a}", comparison.for_a),
    ):
        if flips:
            yield _Table(
                title,
                ("id", "task", f"status {a}", f"status {b}", f"IoU {a}", f"IoU {b}"),
                [_flip(flip) for flip in flips],
            )


def _difference(difference: Difference) -> tuple[str, ...]:
    interval = difference.interval
    return (
        f"{100 * difference.a:.1f}",
        f"{100 * difference.b:.1f}",
        points(interval.estimate),
        f"{points(interval.low)} to {points(interval.high)}",
        "" if difference.p is None else _seen(difference.detectable),
        "" if difference.p is None else p_words(difference.p),
    )


def _seen(detectable: float | None) -> str:
    return "none" if detectable is None else f"{100 * detectable:.1f}"


def _counts(counts: PairCounts) -> tuple[str, ...]:
    last = (counts.ties,) if counts.both is None else (counts.both, counts.neither)
    return tuple(str(count) for count in (counts.losses, counts.wins, *last))


def _flip(flip: Flip) -> tuple[str, ...]:
    values = (
        (flip.value_a, flip.value_b)
        if flip.iou_a is None or flip.iou_b is None
        else (flip.iou_a, flip.iou_b)
    )
    return (flip.id, flip.task, flip.status_a, flip.status_b, *(f"{v:.2f}" for v in values))
