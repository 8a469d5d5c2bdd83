"""``univg failures``: what kind of failure each miss of a run is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_eval.progress import progress_bars, step

if TYPE_CHECKING:
    from univg_eval.analysis.failures import RunFailures
    from univg_eval.cli._tables import Sheet
    from univg_eval.runs.record import RunRecord

__all__ = ["add_parser", "run"]

HELP = "put each miss of a run into one class, and count"
DESCRIPTION = """\
Put each miss of a run into one class: no box, another image, another object, too large, too small,
beside it, somewhere else, and more; docs/failures.md defines them all. One table a run, a row a
task. The truth comes from the prepared benchmark, which must be the one that was evaluated.

Classes explain a score and never change one. Where many misses fit another dialect or other pixel
limits, a note says so: then `univg check` and `univg rescore` are the next steps.

Exit status: 0 shown, 2 something in the arguments or records is wrong.
"""
EPILOG = """\
Examples:
  univg failures out/records/20261122_101500/mig_bench
  univg failures old=runs/a new=runs/b -o misses.jsonl
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._runs import add_runs

    parser = subparsers.add_parser(
        "failures",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_runs(parser)
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="IOU",
        help="IoU that a hit needs (default 0.5)",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="write one JSON line a miss: run, benchmark, id, task, kind, iou, hints",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Classify, write ``--out`` if asked for, and print the counts."""
    from univg_eval.analysis.failures import FAILURES, classify_run
    from univg_eval.cli._output import write_output
    from univg_eval.cli._runs import read_runs
    from univg_eval.runs.record import prepared_samples

    if args.out is not None and args.out.exists() and not args.out.is_file():
        raise UserError(
            f"--out {args.out} is no regular file; expected the path of a file to write"
        )
    prepared: dict[tuple[str, str], Any] = {}
    pairs = []
    records = read_runs(args.runs)
    with progress_bars() as progress:
        for record in records:
            dataset = record.manifest.dataset
            key = (dataset.prepared_benchmark, dataset.fingerprint)
            if key not in prepared:
                prepared[key] = prepared_samples(record)
            found = classify_run(
                record,
                prepared[key],
                threshold=args.threshold,
                progress=step(progress, f"misses of {record.label}"),
            )
            pairs.append((record, found))
    if args.out is not None:
        write_output(args.out, "".join(_lines(pairs)), "--out")
    if args.json:
        runs = [
            {"label": record.label, "benchmark": record.benchmark, "path": str(record.path)}
            | found.to_dict()
            for record, found in pairs
        ]
        content = {"classes": dict(FAILURES), "runs": runs}
        print(json.dumps(content, ensure_ascii=False, indent=2))
    else:
        _print(pairs)
    return 0


Pairs = Sequence[tuple["RunRecord", "RunFailures"]]


def _lines(pairs: Pairs) -> Iterator[str]:
    for record, found in pairs:
        tasks = {score.id: score.task for score in record.scores}
        of_run = {"run": record.label, "benchmark": record.benchmark}
        for sample_id, failure in found.failures.items():
            line = of_run | {"id": sample_id, "task": tasks[sample_id]} | failure.to_dict()
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _print(pairs: Pairs) -> None:
    from univg_eval.analysis.failures import FAILURES
    from univg_eval.cli._tables import print_sheet, terminal
    from univg_eval.terminal import visible, wrapped

    console = terminal()
    for record, found in pairs:
        total = found.total
        print_sheet(
            _sheet(
                found,
                f"{record.label} on {record.benchmark}: {_score(record)}. {total.misses} of "
                f"{total.n} samples are misses at IoU {found.threshold:g}",
            ),
            console,
        )
        if record.manifest.dataset.stand_in_images:
            print("note: on images that stand in for the set's own: no result of it")
        for note in _notes(found):
            print("\n".join(wrapped(visible(f"note: {note}"), console.width, more="  ")))
    for kind, meaning in FAILURES.items():
        if any(found.total.kinds[kind] for _, found in pairs):
            print("\n".join(wrapped(f"{kind}: {meaning}", console.width, more="  ")))


def _score(record: RunRecord) -> str:
    """The number of the run, as everywhere."""
    from univg_eval.analysis.headline import headlines
    from univg_eval.cli._tables import in_words

    for one in headlines(record.scores):
        return f"{one.metric} {in_words(one.macro)}, mean over tasks"
    return "no sample counts"


def _sheet(found: RunFailures, title: str) -> Sheet:
    from univg_eval.analysis.failures import FAILURES
    from univg_eval.cli._tables import Sheet

    kinds = [kind for kind in FAILURES if found.total.kinds[kind]]
    rows = [
        [name, str(of.n), str(of.misses), *(str(of.kinds[kind] or "") for kind in kinds)]
        for name, of in {**found.tasks, "all": found.total}.items()
    ]
    if n := found.total.n:
        counts = (found.total.misses, *(found.total.kinds[kind] for kind in kinds))
        rows.append(["% of n", "", *(f"{100 * count / n:.1f}" for count in counts)])
    totals = len(rows) - len(found.tasks)
    return Sheet(title, ["task", "n", "misses", *kinds], rows, totals=totals)


def _notes(found: RunFailures) -> Iterator[str]:
    total = found.total
    if found.suspicion is not None:
        other = found.suspicion
        yield (
            f"read as {other.names[0]}, {other.hits} of {other.n} misses far off would be hits "
            f"({other.blind:.1f} by chance). {other.remedy} `univg rescore` then scores the kept "
            "responses again"
        )
    if total.hits_on_wrong_image:
        yield (
            f"{total.hits_on_wrong_image} hits name another image than the object's, or none; they "
            "count as hits of acc@0.5 and not of joint@0.5"
        )
    if total.several:
        yield f"{total.several} samples with several targets have no class"
    if total.excluded:
        yield f"{total.excluded} samples are left out of the score for an invalid true box"
