"""How an evaluation ends: figures with intervals, what is missing from them, what is next.

The figures are those of the leaderboard and of the report: the same metric and the same intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from univg_eval.cli._tables import Sheet, print_sheet, terminal
from univg_eval.cli._usage import usage_line
from univg_eval.leaderboard import Estimate, macro_estimate, task_estimate
from univg_eval.leaderboard.beside import beside
from univg_eval.leaderboard.published import PublishedTable
from univg_eval.leaderboard.rows import column_of
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import SampleScore, headline

__all__ = ["print_beside", "print_ending"]


def print_ending(records: Sequence[RunRecord]) -> None:
    """Print one table a record, what its figures leave out, its place, and three next commands."""
    console = terminal()
    for record in records:
        print()
        print_sheet(_sheet(record), console)
        for line in (*_left_out(record), *filter(None, [usage_line(record)])):
            console.print(line)
    print()
    for record in records:
        print(f"run record: {record.path}")
    path = records[0].path
    print(
        "Next:\n"
        f"  every response on its images   univg report {path} -o report.html\n"
        f"  what the misses look like      univg failures {path}\n"
        f"  beside other runs              univg leaderboard {path} OTHER"
    )


def print_beside(records: Sequence[RunRecord], table: PublishedTable) -> None:
    """Print a run beside the rows of a published table, and what sets them apart."""
    found = beside(records, table)
    own = "–" if found.own is None else _with_limits(*_percent(found.own))
    trial = any(record.manifest.dataset.stand_in_images for record in records)
    rows = [(f"{found.label} (stand-in images)" if trial else found.label, own, "")]
    for row in found.rows:
        apart = row.difference
        points = "–" if apart is None else _with_limits(*_percent(apart, "+", " to "))
        rows.append((row.model, row.printed or "–", points))
    heads = ("model", f"{table.metric} %, mean over tasks", "this run minus it, 95 %")
    console = terminal()
    print()
    print_sheet(Sheet(f"Beside [{table.key}] {table.title}", heads, rows), console)
    for reason in (*found.reasons, *([table.recipe.notes] if table.recipe else [])):
        console.print(f"- {reason}")


def _with_limits(shown: str, limits: str) -> str:
    return f"{shown} ({limits})" if limits else shown


def _sheet(record: RunRecord) -> Sheet:
    prepared = record.manifest.dataset.prepared_benchmark
    counted: dict[str, list[SampleScore]] = {}
    for score in record.scores:
        if headline(score) is not None:
            counted.setdefault(column_of(prepared, score.task, score.id), []).append(score)
    values = {task: [headline(s) or 0.0 for s in scores] for task, scores in counted.items()}
    groups = {task: [s.cluster for s in scores] for task, scores in counted.items()}
    rows = []
    for task, own in values.items():
        estimate = task_estimate(own, groups[task], share=all(value in (0.0, 1.0) for value in own))
        answered = sum(s.status in ("ok", "none") for s in counted[task]) / len(own)
        rows.append([task, str(len(own)), *_percent(estimate), f"{100 * answered:.1f}"])
    totals = int(len(rows) > 1)
    if totals:
        macro = macro_estimate(values, groups)
        rows.append(["mean over tasks", str(macro.n), *_percent(macro), ""])
    settings = record.manifest.settings
    title = (
        f"{record.benchmark}: Acc@0.5, or the task's own score (dialect {settings.dialect.value}, "
        f"prompt {settings.prompt.value}, protocol {record.manifest.scoring_rule})"
    )
    heads = ("task", "n", "score %", "95 % interval", "answered %")
    return Sheet(title, heads, rows, totals=totals)


def _percent(value: Estimate, sign: str = "", to: str = "–") -> tuple[str, str]:
    """The value and its limits in percent; `sign` is that of `format`."""
    shown = f"{100 * value.value:{sign}.1f}"
    if value.low is None or value.high is None:
        return shown, ""
    return shown, f"{100 * value.low:{sign}.1f}{to}{100 * value.high:{sign}.1f}"


def _left_out(record: RunRecord) -> list[str]:
    """What is not in the figures, or lowers them; nothing where all is well."""
    statuses = Counter(score.status for score in record.scores)
    n, n_failed = len(record.scores), record.failed_requests
    facts = (
        (record.manifest.excluded, "excluded (the true box is invalid)"),
        (n_failed, "whose request failed (unanswered)"),
        (statuses["truncated"], "truncated (try --gen_kwargs max_new_tokens=4096)"),
        (statuses["no_box"] - n_failed, "without a readable box"),
        (statuses["invalid_box"], "with an invalid box"),
    )
    found = [f"{count} {what}" for count, what in facts if count > 0]
    lines = [f"Of {n} samples: {', '.join(found)}."] if found else []
    if record.manifest.dataset.stand_in_images:
        lines.append("On images that stand in for the set's own: no result of the benchmark.")
    if not record.manifest.complete:
        lines.append("Not all samples of the set: no result of the benchmark.")
    return lines
