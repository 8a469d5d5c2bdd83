"""``univg eval``: lmms-eval with its own arguments, checked first, recorded afterwards."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError
from univg_eval.progress import Progress, progress_bars
from univg_eval.runs.threads import choose_threads

if TYPE_CHECKING:
    from univg_eval.cli._several import Entry
    from univg_eval.leaderboard.published import PublishedTable
    from univg_eval.lmms.generation import Generation
    from univg_eval.runs.record import RunRecord

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "eval",
        help="evaluate a model through lmms-eval and write a run record",
        description="Evaluate a model on this project's tasks through lmms-eval. Takes all "
        "arguments of lmms-eval (see `lmms-eval eval --help`) and passes them on; the task folder "
        "is included, samples are logged. Before the model is loaded, the benchmark must be "
        "prepared and the dialect known. Exit status 1 if the evaluation failed or a server "
        "answered no request, 3 after an early stop.",
        epilog="Examples: univg eval --model qwen2_5_vl --model_args pretrained=DIR "
        "--tasks univg_mini --batch_size 8 --output_path out; univg eval --config runs.yaml "
        "--output_path out",
        usage="univg eval [--dialect NAME] [--prompt STYLE] [--protocol NAME] "
        "[--engine vllm] [--like TABLE] [--controls [NAMES]] [--repeats N] [--name NAME] "
        "[--group NAME] [--resume] [--records DIR] [--stop-early] [--verbose] --model M "
        "--model_args A --tasks T "
        "[arguments of lmms-eval …]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--dialect", metavar="NAME", help="how the model writes boxes (`univg dialects`)"
    )
    parser.add_argument(
        "--prompt", metavar="STYLE", help="think (reason, then <answer>), direct or official"
    )
    parser.add_argument("--protocol", metavar="NAME", help="scoring rule, default univg")
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="vllm: run the checkpoint by vLLM, with the model_args of --model univg and those of "
        "vLLM; batches of 256 unless --batch_size is given",
    )
    parser.add_argument(
        "--like",
        metavar="TABLE",
        help="evaluate as a published table was (univg-r1, univg-r1-zero-shot, migician): its "
        "tasks, scoring rule and generation arguments, where they are not given; then show the "
        "run beside its rows",
    )
    parser.add_argument(
        "--controls",
        metavar="NAMES",
        nargs="?",
        const="all",
        help="evaluate again without what is needed to answer: blank, swapped, permuted, cut "
        "(separated by commas), or all, the default",
    )
    parser.add_argument(
        "--repeats",
        metavar="N",
        type=int,
        help="N runs, with the seeds of --seed counted up; needs a temperature above 0 in "
        "--gen_kwargs. Each is a run record; they are shown with their spread. Goes on where it "
        "stopped",
    )
    parser.add_argument("--name", metavar="NAME", help="what tables call the run")
    parser.add_argument(
        "--group",
        metavar="NAME",
        help="runs of one group (checkpoints of one training) are one run in tables",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the records that an earlier try of the same left, and evaluate what is missing",
    )
    parser.add_argument(
        "--records",
        metavar="DIR",
        type=Path,
        help="parent folder of the run record; default <output_path>/records",
    )
    parser.add_argument(
        "--stop-early",
        action="store_true",
        help="stop with exit status 3 if 95 %% of the first 50 answers cannot be read",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print lmms-eval's own tables of results too"
    )
    parser.set_defaults(run=run, takes_unknown=True)


def run(args: argparse.Namespace) -> int:
    """Check, evaluate, record."""
    choose_threads()
    from univg_eval.lmms.extra import require_lmms_eval

    require_lmms_eval()
    if sys.stderr.isatty():
        print("Loading lmms-eval …", file=sys.stderr)
    from univg_eval.lmms.command import control_names, run_eval

    if args.repeats is not None and args.repeats < 1:
        raise UserError(f"--repeats is {args.repeats}; expected a whole number from 1")
    entries = _entries_of_file(args)
    if entries is not None:
        from univg_eval.cli._several import run_several

        return run_several(entries, args)
    table = None if args.like is None else _as_in_table(args)
    written: list[RunRecord] = []
    with progress_bars() as progress:
        status = run_eval(
            args.unknown,
            settings={name: getattr(args, name) for name in ("dialect", "prompt", "protocol")},
            records=args.records,
            engine=args.engine,
            controls=() if args.controls is None else control_names(args.controls),
            repeats=args.repeats or 1,
            name=args.name,
            group=args.group,
            resume=args.resume,
            written=written,
            with_tables=args.verbose,
            on_progress=partial(_show, progress),
            stop_early=args.stop_early,
        )
    if written:
        from univg_eval.cli._ending import print_beside, print_ending

        if all(record.manifest.repeat for record in written) and len(written) > 1:
            from univg_eval.cli._repeats_ending import print_repeats

            print_repeats(written)
        else:
            print_ending(written)
        if status == 0 and table is not None:
            print_beside(written, table)
    return status


def _show(progress: Progress, title: str, generation: Generation) -> None:
    """Show how far a generation is, of the first process of several."""
    if os.environ.get("RANK", "0") != "0":
        return
    done, total, seen = generation.done, generation.total, generation.seen
    note = [f"{done} of {total}"]
    if seen:
        note.append(f"{100 * generation.answered / seen:.0f} % answered")
    if generation.truncated:
        note.append(f"{100 * generation.truncated / seen:.0f} % truncated")
    if generation.answer_tokens and generation.seconds:
        note.append(f"{generation.answer_tokens / generation.seconds:.0f} tokens/s")
    progress(title, done, total, ", ".join(note))


def _entries_of_file(args: argparse.Namespace) -> list[Entry] | None:
    """The runs of a ``--config`` file of several, which is then taken out of the arguments.

    Raises:
        UserError: see `univg_eval.cli._several.read_entries`; or an option is for one run alone.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    found, rest = parser.parse_known_args(args.unknown)
    if not found.config:
        return None
    from univg_eval.cli._several import read_entries

    entries = read_entries(found.config)
    if entries is None:
        return None
    alone = [option for option in ("like", "name", "group") if getattr(args, option) is not None]
    if alone:
        raise UserError(
            f"--{alone[0]} is for one evaluation, and --config {found.config} has {len(entries)}; "
            "say it in the file (name, group), or evaluate apart"
        )
    args.unknown = rest
    return entries


def _as_in_table(args: argparse.Namespace) -> PublishedTable:
    """Fill in what the table fixes and the arguments do not.

    Raises:
        UserError: the table is unknown, or its benchmarks are not prepared.
    """
    from univg_eval.benchmarks.preparing.catalog import get_entry
    from univg_eval.leaderboard.beside import find_table
    from univg_eval.samples import MANIFEST_FILE, benchmark_dir

    table = find_table(args.like)
    recipe = table.recipe
    assert recipe is not None
    args.protocol = args.protocol or table.protocol
    given = {word.split("=")[0] for word in args.unknown}
    for option, value in (("--tasks", recipe.tasks), ("--gen_kwargs", recipe.gen_kwargs)):
        if option not in given:
            args.unknown += [option, value]
    missing = [b for b in recipe.benchmarks if not (benchmark_dir(b) / MANIFEST_FILE).is_file()]
    if missing and "--tasks" not in given:
        trial = get_entry(missing[0]).image_names is not None
        raise UserError(
            f"--like {args.like}: not prepared: {', '.join(missing)}. Next: {recipe.prepare}"
            + " (for a trial without the images, add --stand-in-images)" * trial
        )
    return table
