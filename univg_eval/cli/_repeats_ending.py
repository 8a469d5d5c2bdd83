"""How an evaluation of several repeats ends: their mean, their spread, and intervals over both."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations

from univg_eval.analysis.stats import Estimate
from univg_eval.cli._ending import left_out, print_lines, print_next
from univg_eval.cli._tables import Sheet, percent, print_sheet, terminal
from univg_eval.leaderboard.rows import Entry, entry_of_runs
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import HEADLINES

__all__ = ["print_repeats"]


def print_repeats(records: Sequence[RunRecord]) -> None:
    """Print a table a benchmark and metric, what weakens it, the records, and two next commands."""
    console = terminal()
    by_benchmark: dict[str, list[RunRecord]] = {}
    for record in records:
        by_benchmark.setdefault(record.benchmark, []).append(record)
    for benchmark, runs in by_benchmark.items():
        for metric in HEADLINES:
            entry = entry_of_runs(runs, metric)
            if entry is not None:
                print()
                print_sheet(_sheet(f"{benchmark}, {len(runs)} runs", metric, entry), console)
        print_lines([*_doubts(runs), ""], console)
    for record in records:
        print(f"run record: {record.path}")
    path = shlex.quote(str(records[0].path))
    folder = records[0].path.parent  # …-1, of as many as there are
    every = f"{shlex.quote(str(folder.parent))}/{folder.name.removesuffix('1')}*"
    steps = [
        ("every response of the first", f"univg report {path} -o report.html"),
        ("beside other runs", f"univg leaderboard {every} OTHER"),
    ]
    print_next(steps, console)


def _sheet(title: str, metric: str, entry: Entry) -> Sheet:
    rows = [_row(task, column.estimate) for task, column in entry.columns.items()]
    totals = int(len(rows) > 1)
    macro = entry.macro(tuple(entry.columns))
    if totals and macro is not None:
        rows.append(_row("mean over tasks", macro))
    heads = ("task", "n", f"{metric} %", "95 % interval", "standard deviation", "each run %")
    return Sheet(f"{title}; intervals cover other samples and other runs", heads, rows, 1, totals)


def _row(task: str, value: Estimate) -> list[str]:
    runs = ", ".join(f"{100 * run:.1f}" for run in value.runs)
    return [task, str(value.n), *percent(value), f"{100 * (value.spread or 0.0):.1f}", runs]


def _doubts(runs: Sequence[RunRecord]) -> Iterator[str]:
    texts = [{row["id"]: row["response"] for row in run.responses} for run in runs]
    for (i, one), (j, other) in combinations(enumerate(texts, start=1), 2):
        if one == other:
            yield (
                f"Runs {i} and {j} gave word for word the same responses: the backend does not "
                "use the seed, or the temperature is too low; their spread says nothing."
            )
    yield from left_out(
        Counter(score.status for run in runs for score in run.scores),
        n=sum(len(run.scores) for run in runs),
        excluded=sum(run.manifest.excluded for run in runs),
        failed=sum(run.failed_requests for run in runs),
        complete=all(run.manifest.complete for run in runs),
    )
