"""How a command that scores ends: figures with intervals, what lowers them, what is next.

The figures are those of the leaderboard and of the report: the same metric and the same intervals.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.analysis.headline import Headline, headlines
from univg_eval.cli._tables import Sheet, percent, print_sheet, terminal
from univg_eval.cli._usage import usage_line
from univg_eval.leaderboard.beside import beside
from univg_eval.leaderboard.published import PublishedTable
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import aggregate
from univg_eval.terminal import next_lines, visible, wrapped

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "left_out",
    "next_of",
    "print_beside",
    "print_ending",
    "print_figures",
    "print_lines",
    "print_next",
    "print_statuses",
]

_BESIDE_IT: Mapping[str, Mapping[str, str]] = {
    "acc@0.5": {
        "miou": "mIoU %",
        "answered": "answered %",
        "image_acc": "image_acc %",
        "joint@0.5": "joint@0.5 %",
    },
    "f1@0.5": {"matched_iou": "matched IoU %", "ap50": "ap50 %"},
}
"""Metrics without an interval that are shown beside one with it."""


def print_ending(records: Sequence[RunRecord]) -> None:
    """Print the figures of each record, what lowers them, its place, and three next commands."""
    console = terminal()
    for record in records:
        settings, manifest = record.manifest.settings, record.manifest
        print()
        print_figures(
            f"{record.benchmark} (dialect {settings.dialect.value}, prompt "
            f"{settings.prompt.value}, protocol {manifest.scoring_rule})",
            {**aggregate(record.scores), "published": record.manifest.results.published},
            headlines(record.scores),
            console,
        )
        print_statuses(record, console)
        print_lines([usage, ""] if (usage := usage_line(record)) else [], console)
    for record in records:
        print(f"run record: {record.path}")
    print_next(next_of(records[0].path), console)


def next_of(path: Path) -> list[tuple[str, str]]:
    """What can be done with a run record."""
    name = shlex.quote(str(path))
    return [
        ("every response on its images", f"univg report {name} -o report.html"),
        ("what the misses look like", f"univg failures {name}"),
        ("beside other runs", f"univg leaderboard {name} OTHER"),
    ]


def print_next(steps: Sequence[tuple[str, str]], console: Console) -> None:
    """Print commands to paste."""
    print("\n".join(next_lines(steps, console.width)))


def print_statuses(record: RunRecord, console: Console) -> None:
    """Print what is not in the figures of a run, or lowers them."""
    lines = left_out(
        Counter(score.status for score in record.scores),
        n=len(record.scores),
        excluded=record.manifest.excluded,
        failed=record.failed_requests,
        complete=record.manifest.complete,
    )
    if record.manifest.dataset.stand_in_images:
        lines.append("On images that stand in for the set's own: no result of the benchmark.")
    lines += [
        f"No figures of the published rule {name}: {reason}"
        for name, reason in record.manifest.published_errors.items()
    ]
    print_lines([*lines, ""] if lines else [], console)


def print_lines(lines: Sequence[str], console: Console) -> None:
    """Print sentences, a paragraph each."""
    for text in lines:
        print("\n".join(wrapped(visible(text), console.width)))


def print_figures(
    title: str, results: Mapping[str, Any], shown: Sequence[Headline], console: Console
) -> None:
    """Print a table a kind of samples: a row a task, and the unweighted mean over them.

    Args:
        title: above the first.
        results: metrics as `univg_eval.scoring.aggregate` gives them.
        shown: of the same scores.
        console: where.
    """
    for place, one in enumerate(shown):
        kind = {"no_target_acc": "samples without a target", "f1@0.5": "with several targets"}
        above = title if not place else kind[one.metric]
        print_sheet(_sheet(above, results, one), console)
    print_lines([*_several(results), *_rejection(results)], console)
    parts = tuple(f"{task}_" for task in results["tasks"])
    for name, metrics in results.get("published", {}).items():
        # Those of single tasks are in the record and in --json.
        rows = [(m, f"{value:.4f}") for m, value in metrics.items() if not m.startswith(parts)]
        print_sheet(Sheet(f"by the published rule {name}", ("metric", "value"), rows), console)


def _several(results: Mapping[str, Any]) -> list[str]:
    """How many boxes are named where there are several targets, in a sentence."""
    found = results.get("several")
    if not found:
        return []
    text = f"Samples with several targets: {found['boxes_per_answer']:.2f} boxes an answer"
    if found["targets_per_sample"] is not None:
        text += f", {found['targets_per_sample']:.2f} targets a sample"
    return [f"{text}.", ""]


def _rejection(results: Mapping[str, Any]) -> list[str]:
    """How well "none" is said, in a sentence, where some sample has no target."""
    found = results.get("rejection")
    if not found:
        return []
    text = (
        f"{100 * found['recall']:.1f} % of the {found['n_no_target']} absent objects are answered "
    )
    text += 'with an explicit "none"'
    if found["precision"] is not None:
        right = f"{100 * found['precision']:.1f} %"
        text += f"; {right} of the {found['n_said_none']} such answers are right"
    return [f"{text}.", ""]


def _sheet(title: str, results: Mapping[str, Any], shown: Headline) -> Sheet:
    tasks: Mapping[str, Mapping[str, Any]] = results["tasks"]
    others = {
        name: head
        for name, head in _BESIDE_IT.get(shown.metric, {}).items()
        if any(name in tasks[task] for task in shown.tasks)
    }

    def cells(figures: Mapping[str, Any]) -> Iterator[str]:
        for name in others:
            yield f"{100 * figures[name]:.1f}" if name in figures else ""

    rows = [
        [task, str(value.n), *percent(value), *cells(tasks[task])]
        for task, value in shown.tasks.items()
    ]
    totals = int(len(rows) > 1)
    if totals:
        macro = shown.macro
        rows.append(["mean over tasks", str(macro.n), *percent(macro), *cells(results["macro"])])
    heads = ("task", "n", f"{shown.metric} %", "95 % interval", *others.values())
    return Sheet(title, heads, rows, totals=totals)


def left_out(
    statuses: Mapping[str, int],
    *,
    n: int,
    excluded: int,
    failed: int = 0,
    missing: int = 0,
    complete: bool = True,
) -> list[str]:
    """What is not in the figures, or lowers them; nothing where all is well.

    Args:
        statuses: number of samples a status.
        n: of all samples.
        excluded: for an invalid true box.
        failed: requests that a server did not answer; unanswered.
        missing: samples without a response in the file; unanswered.
        complete: whether all samples of the set are there.
    """
    facts = (
        (excluded, "excluded (the true box is invalid)"),
        (missing, "without a response (unanswered)"),
        (failed, "whose request failed (unanswered)"),
        (statuses.get("truncated", 0), "truncated (try --gen_kwargs max_new_tokens=4096)"),
        (statuses.get("no_box", 0) - failed - missing, "without a readable box"),
        (statuses.get("invalid_box", 0), "with an invalid box"),
    )
    found = [f"{count} {what}" for count, what in facts if count > 0]
    lines = [f"Of {n} samples: {', '.join(found)}."] if found else []
    if not complete:
        lines.append("Not all samples of the set: no result of the benchmark.")
    return lines


def print_beside(records: Sequence[RunRecord], table: PublishedTable) -> None:
    """Print a run beside the rows of a published table, and what sets them apart."""
    found = beside(records, table)
    own = "–" if found.own is None else _with_limits(*percent(found.own))
    trial = any(record.manifest.dataset.stand_in_images for record in records)
    rows = [(f"{found.label} (stand-in images)" if trial else found.label, own, "")]
    for row in found.rows:
        apart = row.difference
        points = "–" if apart is None else _with_limits(*percent(apart, "+", " to "))
        rows.append((row.model, row.printed or "–", points))
    heads = ("model", f"{table.metric} %, mean over tasks", "this run minus it, 95 %")
    console = terminal()
    print()
    print_sheet(Sheet(f"Beside [{table.key}] {table.title}", heads, rows), console)
    for reason in (*found.reasons, *([table.recipe.notes] if table.recipe else [])):
        print("\n".join(wrapped(reason, console.width, indent="- ", more="  ")))


def _with_limits(shown: str, limits: str) -> str:
    return f"{shown} ({limits})" if limits else shown
