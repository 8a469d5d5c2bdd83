"""``univg rescore``: a run record from the kept responses of another, and what that changes."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_eval.progress import progress_bars, step

if TYPE_CHECKING:
    from rich.console import Console

    from univg_eval.analysis.stats import Estimate
    from univg_eval.runs.record import RunRecord
    from univg_eval.runs.rescoring import Change, Rescored
    from univg_eval.samples import GroundingSample

__all__ = ["add_parser", "run"]

DESCRIPTION = """\
Score the kept responses of a run again, without a model: under another protocol or dialect, other
pixel limits, or the same settings with the code of today. The new record says which record it
comes from and what changed; how the model was prompted and ran stays as it was.

RUN is a run record, a folder with one, or what `lmms-eval --output_path RUN --log_samples` wrote.
The prepared benchmark must be the one that was evaluated (same fingerprint).

Exit status: 0 written, 2 something in the arguments or files is wrong (nothing is written then).
"""
EPILOG = """\
Examples:
  univg rescore out/records/20261122_101500/mig_bench --protocol univg-r1 -o rescored
  univg rescore out --benchmark univg_mini --dialect qwen2_5_vl --max-pixels 602112 -o rescored
"""
SHOWN = 10


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "rescore",
        help="score the kept responses of a run again, without a model, and say what changes",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("run_path", metavar="RUN", help="the run; see above")
    parser.add_argument(
        "--benchmark",
        metavar="NAME",
        help="which one, where RUN holds several; e.g. mig_bench, or mig_bench+blank",
    )
    parser.add_argument("--protocol", metavar="NAME", help="scoring rule; default: the run's own")
    parser.add_argument(
        "--dialect",
        metavar="NAME",
        help="how the model writes boxes (`univg dialects`); default: the run's own",
    )
    for name in ("min", "max"):
        parser.add_argument(
            f"--{name}-pixels",
            type=int,
            metavar="N",
            help=f"{'lower' if name == 'min' else 'upper'} pixel limit of the model's resize; "
            "default: the run's own",
        )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="the new record's folder"
    )
    parser.add_argument(
        "--show", type=int, default=SHOWN, metavar="N", help=f"flipped samples to list ({SHOWN})"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with all changed samples"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score again, write the record, print what changed."""
    from univg_eval.runs.rescoring import rescore, write_rescored

    if args.show < 0:
        raise UserError(f"--show is {args.show}; expected 0 or more")
    if os.path.lexists(args.out):
        raise UserError(f"--out {args.out} exists; choose another folder or remove it")
    record = _chosen(args.run_path, args.benchmark)
    with progress_bars() as progress:
        rescored = rescore(
            record,
            _shown_samples(record),
            protocol=args.protocol,
            dialect=args.dialect,
            min_pixels=args.min_pixels,
            max_pixels=args.max_pixels,
            progress=step(progress, "scoring"),
        )
    written = write_rescored(args.out, rescored)
    if args.json:
        print(json.dumps(_as_json(rescored, written), ensure_ascii=False, indent=2))
    else:
        _print(rescored, written, args.show)
    return 0


def _chosen(argument: str, benchmark: str | None) -> RunRecord:
    from univg_eval.cli._runs import read_runs

    found = read_runs([argument])
    records = [record for record in found if benchmark in (None, record.benchmark)]
    if len(records) == 1:
        return records[0]
    names = ", ".join(f"{record.benchmark} ({record.path})" for record in found)
    if not records:
        raise UserError(f"{argument} holds no run on {benchmark!r}; it holds: {names}")
    several = len({record.benchmark for record in records}) > 1
    raise UserError(
        f"{argument} holds {len(records)} runs{f' on {benchmark!r}' if benchmark else ''}, and one "
        f"is scored again at a time: name its folder or results file"
        f"{', or give --benchmark' if several else ''}. It holds: {names}"
    )


def _shown_samples(record: RunRecord) -> list[GroundingSample]:
    """The samples as the model was shown them: under a control, or as whole videos."""
    from univg_eval.images.controls import under_control
    from univg_eval.runs.record import prepared_samples

    samples = prepared_samples(record)
    control, media = record.manifest.dataset.control, record.manifest.dataset.media
    if media == "images":
        return under_control(control, samples).samples
    from univg_eval.lmms.extra import require_lmms_eval

    require_lmms_eval()
    from univg_eval.lmms.docs import as_shown

    evaluated = {row["id"] for row in record.responses}
    shown, _ = as_shown([s for s in samples if s.id in evaluated], control=control, media=media)
    return shown


def _as_json(rescored: Rescored, written: Path) -> dict[str, Any]:
    return {
        "record": str(written),
        "benchmark": rescored.record.benchmark,
        "label": rescored.record.label,
        "from": {"path": str(rescored.old.path)}
        | rescored.record.manifest.rescored[-1].source.model_dump(),
        **rescored.summary(),
        "samples": [change.to_dict() for change in rescored.changes],
    }


def _print(rescored: Rescored, written: Path, show: int) -> None:
    from univg_eval.cli._ending import next_of, print_lines, print_next, print_statuses
    from univg_eval.cli._tables import Sheet, print_sheet, terminal

    console = terminal()
    summary = rescored.summary()
    record = rescored.record
    settings = [f"{name} {a} → {b}" for name, (a, b) in summary["settings"].items()]
    title = f"{record.label} on {record.benchmark}: {'; '.join(settings) or 'the same settings'}"
    _print_figures(title, rescored, console)
    changed = summary["changed"]
    lines = [
        f"Changed: {changed['score']} of {summary['n']} samples (status {changed['status']}, box "
        f"{changed['box']}, IoU {changed['iou']}, excluded {changed['excluded']}); gained "
        f"{summary['gained']}, lost {summary['lost']}."
    ]
    if summary["statuses"]:
        moves = [f"{row['before']} → {row['after']} {row['n']}" for row in summary["statuses"]]
        lines.append(f"Status: {', '.join(moves)}.")
    print_lines(lines, console)
    print()
    print_statuses(record, console)
    flips = rescored.flips
    if flips and show:
        shown = [_flip_row(change) for change in flips[:show]]
        print_sheet(Sheet("Samples that flipped", ("sample", "", "status", "IoU"), shown), console)
        if len(flips) > show:
            print_lines(
                [f"and {len(flips) - show} more: see changes.jsonl in the record, or --json"],
                console,
            )
    print(f"run record: {written}")
    old, new = (shlex.quote(str(path)) for path in (rescored.old.path, written))
    compare = ("sample by sample", f"univg compare before={old} after={new}")
    print_next([compare, *next_of(written)[:2]], console)


def _print_figures(title: str, rescored: Rescored, console: Console) -> None:
    """A row a task whose figures changed, and the mean over all, before and after."""
    from univg_eval.analysis.headline import headlines
    from univg_eval.cli._ending import print_lines
    from univg_eval.cli._tables import Sheet, print_sheet

    runs = (rescored.old, rescored.record)
    before, after = ({one.metric: one for one in headlines(run.scores)} for run in runs)
    for metric, one in after.items():
        old = before.get(metric)
        rows = [
            (task, str(value.n), *_pair_of(old.tasks.get(task) if old else None, value))
            for task, value in one.tasks.items()
            if old is None or old.tasks.get(task) != value
        ]
        unchanged = len(one.tasks) - len(rows)
        rows.append(
            ("mean over tasks", str(one.macro.n), *_pair_of(old.macro if old else None, one.macro))
        )
        heads = ("task", "n", f"{metric} % before", "95 % interval", "after", "95 % interval")
        print_sheet(Sheet(title, heads, rows, totals=1), console)
        title = ""
        if unchanged:
            print_lines(
                [f"{metric} is unchanged in {unchanged} of {len(one.tasks)} tasks."], console
            )


def _pair_of(before: Estimate | None, after: Estimate) -> tuple[str, ...]:
    from univg_eval.cli._tables import percent

    return (*(percent(before) if before is not None else ("–", "")), *percent(after))


def _flip_row(change: Change) -> tuple[str, ...]:
    before, after = change.before, change.after
    ious = ("" if score.iou is None else f"{score.iou:.3f}" for score in (before, after))
    return (change.id, str(change.flip), _pair(before.status, after.status), _pair(*ious))


def _pair(before: str, after: str) -> str:
    return f"{before} → {after}" if before or after else ""
