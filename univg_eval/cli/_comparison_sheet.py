"""How a comparison is shown in the terminal, in Markdown and in JSON: one table, three writers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from univg_eval.analysis.comparison import Comparison, Flip, p_words, points
from univg_eval.analysis.stats import Difference, PairCounts
from univg_eval.cli._tables import Sheet, in_words, print_sheet, terminal
from univg_eval.leaderboard.formats import escaped_markdown
from univg_eval.terminal import visible, wrapped

if TYPE_CHECKING:
    from rich.console import Console


def as_json(comparison: Comparison) -> str:
    """One JSON object, all values as fractions."""
    return json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def show(comparison: Comparison, console: Console | None = None) -> None:
    """Print to the terminal.

    Args:
        comparison: what is shown.
        console: where; None: standard output, as wide as the terminal, and wide where it is none.
    """
    from rich.text import Text

    console = console or terminal()

    def say(text: str, style: str = "") -> None:
        for line in wrapped(visible(text), console.width):
            console.print(Text(line, style), soft_wrap=True)

    say(comparison.verdict.headline, "bold")
    say(comparison.verdict.text)
    console.print()
    for line in _facts(comparison):
        say(line)
    console.print()
    for sheet in _sheets(comparison):
        print_sheet(sheet, console)


def as_markdown(comparison: Comparison) -> str:
    """The verdict, what was compared, and the tables."""
    parts = [
        f"**{escaped_markdown(comparison.verdict.headline)}**",
        escaped_markdown(comparison.verdict.text),
        "\n".join(f"- {escaped_markdown(line)}" for line in _facts(comparison)),
    ]
    for sheet in _sheets(comparison):
        rules = ["---"] * sheet.names + ["---:"] * (len(sheet.heads) - sheet.names)
        lines = [[escaped_markdown(cell) for cell in row] for row in (sheet.heads, *sheet.rows)]
        parts.append(escaped_markdown(sheet.title))
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rules, *lines[1:])))
    return "\n\n".join(parts) + "\n"


def _facts(comparison: Comparison) -> Iterator[str]:
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        runs = f", {side.runs} runs" if side.runs > 1 else ""
        what = f"{side.n} samples of {side.benchmark}{runs}"
        yield f"{name}: {side.label} (model {side.model}, {what}): {in_words(side.macro)}"
    yield (
        f"Compared: {comparison.n} samples in {comparison.clusters} groups that share no image, by "
        f"{comparison.metric}; with the same response, word for word: {comparison.same_responses}."
    )
    yield from comparison.notes
    differing = "; ".join(
        f"{name}: {_short(a)} | {_short(b)}" for name, (a, b) in comparison.differing.items()
    )
    yield (
        f"These two differ in: {differing}"
        if differing
        else "Settings, generation arguments, versions and hardware of the two are the same."
    )


def _short(value: object) -> str:
    text = "not recorded" if value is None else str(value)
    # Hashes: 40 digits of a commit, 64 of a SHA-256.
    return re.sub(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b", r"\1…", text)


def _sheets(comparison: Comparison) -> Iterator[Sheet]:
    a, b = comparison.a.label, comparison.b.label
    kinds = [f"{a} higher", f"{b} higher", "same"]
    if comparison.counts.both is not None:
        kinds = [f"only {a}", f"only {b}", "both", "neither"]
    rows = [
        [t.task, str(t.n), *_figures(t.difference), p_words(t.p_holm), *_counts(t.counts)]
        for t in comparison.tasks
    ]
    if len(rows) > 1:
        micro, n = _figures(comparison.micro), str(comparison.n)
        rows.append(["macro", "", *_figures(comparison.macro), "", *("" for _ in kinds)])
        rows.append(["micro", n, *micro, "", *_counts(comparison.counts)])
    yield Sheet(
        f"{comparison.metric} in %, differences in points; macro: unweighted mean over the tasks, "
        "micro: mean over all samples, detectable: the smallest difference found with 80 % power",
        ["task", "n", a, b, "B - A", "95 % interval", "detectable", "p", "p (Holm)", *kinds],
        rows,
        totals=2 if len(comparison.tasks) > 1 else 0,
    )
    for label, flips in ((b, comparison.for_b), (a, comparison.for_a)):
        if flips:
            yield Sheet(
                f"Changed most in favour of {label}",
                ["id", "task", f"status {a}", f"status {b}", f"IoU {a}", f"IoU {b}"],
                [_flip(flip) for flip in flips],
                names=2,
            )


def _figures(difference: Difference) -> list[str]:
    interval, detectable, p = difference.interval, "", ""
    if difference.p is not None:
        p = p_words(difference.p)
        found = difference.detectable
        detectable = "none" if found is None else f"{100 * found:.1f}"
    limits = f"{points(interval.low)} to {points(interval.high)}"
    values = [f"{100 * difference.a:.1f}", f"{100 * difference.b:.1f}"]
    return [*values, points(interval.estimate), limits, detectable, p]


def _counts(counts: PairCounts) -> list[str]:
    last = [counts.ties] if counts.both is None else [counts.both, counts.neither]
    return [str(count) for count in (counts.losses, counts.wins, *last)]


def _flip(flip: Flip) -> list[str]:
    values = (flip.iou_a, flip.iou_b)
    if flip.iou_a is None or flip.iou_b is None:
        values = (flip.value_a, flip.value_b)
    return [flip.id, flip.task, flip.status_a, flip.status_b, *(f"{v:.2f}" for v in values)]
