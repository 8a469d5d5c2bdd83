"""``univg score``: responses of any model, from a file, to scores."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from univg_eval.cli._output import refuse_inputs, written_by
from univg_eval.errors import UserError
from univg_eval.files import numbered_lines
from univg_eval.progress import progress_bars, step
from univg_eval.terminal import show_message

if TYPE_CHECKING:
    from univg_eval.analysis.headline import Headline
    from univg_eval.dialects import Dialect
    from univg_eval.protocols import Protocol
    from univg_eval.runs.response_file import FileScores

HELP = "score a file of responses"
DESCRIPTION = """\
Score a file of responses, without a model. The file is JSON Lines, in any order:

  {"id": "mig_bench-00017", "response": "It is in the second image. (102,33),(640,871)"}

A line may also hold image_sizes and input_sizes (lists of [width, height], one an image: the
originals, and what the model saw after its resize) and prompt. A sample without a response counts
as unanswered and is reported; an unknown id or a duplicate is an error.

The samples come from --annotations (the released file of MIG-Bench), or from the data root, where
`univg prepare` puts them.

Exit status: 0 scored, 2 something in the arguments or files is wrong (no output is written then).
"""
EPILOG = """\
Examples:
  univg score --benchmark mig_bench --annotations MIG_data.json \\
      --responses r.jsonl --dialect qwen2_vl
  univg score --benchmark univg_mini --responses r.jsonl --protocol univg-r1 --json
"""
MISSING_SHOWN = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._annotations import add_revision_arguments

    parser = subparsers.add_parser(
        "score",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--benchmark", required=True, metavar="NAME", help="e.g. mig_bench")
    parser.add_argument(
        "--annotations", type=Path, metavar="FILE", help="MIG_data.json, instead of the data root"
    )
    add_revision_arguments(parser)
    parser.add_argument("--split", help="score this split of a prepared benchmark only")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the data root")
    parser.add_argument(
        "--leave-out",
        type=Path,
        metavar="FILE",
        help="leave out the samples with a wrong label that `univg audit --reviewed … --json` "
        "printed into this file",
    )
    parser.add_argument("--responses", type=Path, required=True, metavar="FILE")
    parser.add_argument(
        "--dialect",
        metavar="NAME",
        help="how the model writes boxes (`univg dialects` lists them); required for univg",
    )
    parser.add_argument(
        "--protocol",
        default="univg",
        metavar="NAME",
        help="default: univg; the scorer of a benchmark's authors, such as mc-bench, stands beside "
        "it and does not replace it",
    )
    parser.add_argument(
        "--min-pixels", type=int, metavar="N", help="lower pixel limit of the model's resize"
    )
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="upper pixel limit of the model's resize"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="write one JSON line a sample: id, task, status, box (0-1), iou, n_boxes",
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="worker processes (default: one a core)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Score, write ``--out`` where it is given, and print the result."""
    from univg_eval.analysis.headline import headlines
    from univg_eval.protocols import get_protocol
    from univg_eval.published_rules import PUBLISHED_RULES, require_protocol
    from univg_eval.runs.response_file import score_file

    published = PUBLISHED_RULES.get(args.protocol)
    if published is None:
        protocol = require_protocol(args.protocol)
    elif args.benchmark in published.benchmarks:
        protocol = get_protocol("univg")
    else:
        raise UserError(
            f"--protocol {args.protocol} is the scorer of {', '.join(published.benchmarks)}; "
            f"received --benchmark {args.benchmark}: leave --protocol out"
        )
    dialect = _dialect(args, protocol)
    _check_out(args)
    if args.processes is not None and args.processes < 1:
        raise UserError(f"--processes is {args.processes}; expected 1 or more")
    with (
        _samples(args) as (benchmark, lines, source, fingerprint, lacks),
        _output(args.out) as out,
        progress_bars() as progress,
    ):
        wrong = _wrong_labels(args.leave_out, fingerprint)
        scores = score_file(
            lines,
            args.responses,
            dialect=dialect,
            protocol=protocol,
            split=args.split,
            source=source,
            lacking=lacks,
            leave_out=wrong,
            out=out,
            processes=args.processes,
            progress=step(progress, "scoring"),
            published=published,
        )
    _report_notes(args, dialect, scores)
    shown = headlines(scores.headline_values)
    for one in shown:
        key = f"{one.metric}_interval"
        scores.metrics["macro"][key] = one.macro.limits
        for task, value in one.tasks.items():
            scores.metrics["tasks"][task][key] = value.limits
    min_pixels, max_pixels = (dialect.pixel_limits if dialect else None) or (None, None)
    result = {
        "benchmark": benchmark,
        "protocol": protocol.name,
        "protocol_version": protocol.version,
        "dialect": dialect.name if dialect is not None else None,
        "min_pixels": min_pixels,
        "max_pixels": max_pixels,
        "n": _total(scores.metrics["tasks"], "n", "n_no_target", "n_several"),
        "excluded": _total(scores.metrics["tasks"], "excluded"),
        "missing": scores.n_samples - scores.n_responses,
        **({} if args.leave_out is None else {"left_out": scores.n_left_out}),
        "statuses": scores.statuses,
        "fingerprint": fingerprint,
        **scores.metrics,
        **({"published": {published.name: scores.published}} if published is not None else {}),
    }
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        _print(args, result, shown, scores.n_samples)
    return 0


def _wrong_labels(path: Path | None, fingerprint: str) -> frozenset[str]:
    from univg_eval.audit.reviewed_labels import read_wrong_labels

    return frozenset() if path is None else read_wrong_labels(path, fingerprint)


def _dialect(args: argparse.Namespace, protocol: Protocol) -> Dialect | None:
    from univg_eval.dialects import get_dialect

    if args.dialect is None:
        if protocol.needs_dialect:
            raise UserError(
                f"protocol {protocol.name!r} reads boxes as the model's family writes them: give "
                "--dialect, one of those that `univg dialects` lists"
            )
        if args.min_pixels is not None or args.max_pixels is not None:
            raise UserError("--min-pixels and --max-pixels belong to a --dialect; none is given")
        return None
    dialect = get_dialect(args.dialect, min_pixels=args.min_pixels, max_pixels=args.max_pixels)
    return dialect if protocol.needs_dialect else None


def _check_out(args: argparse.Namespace) -> None:
    """Refuse an output path that cannot work before anything is computed."""
    if args.out is None:
        return
    if args.out.is_dir():
        raise UserError(f"--out {args.out} is a folder; expected the path of a file to write")
    if args.out.exists() and not args.out.is_file():
        # Writing goes through a new file that takes the path's place.
        raise UserError(
            f"--out {args.out} is no regular file and would be replaced by one; expected the path "
            "of a file to write"
        )
    inputs = ("responses", "annotations", "leave_out")
    refuse_inputs(
        args.out, "--out", [(f"--{name.replace('_', '-')}", getattr(args, name)) for name in inputs]
    )


@contextmanager
def _samples(args: argparse.Namespace) -> Iterator[tuple[str, Iterable[bytes], str, str, str]]:
    """The benchmark's name, the lines of its samples, their source, and its fingerprint."""
    from univg_eval.benchmarks.preparing.catalog import benchmark_of
    from univg_eval.benchmarks.readers.mig_bench import read_annotations
    from univg_eval.cli._annotations import resolve_revision
    from univg_eval.runs.response_file import sample_lines
    from univg_eval.samples import fingerprint, lacking, load_manifest, samples_file

    if args.annotations is not None:
        for name in ("split", "root"):
            if getattr(args, name) is not None:
                raise UserError(f"--{name} belongs to prepared benchmarks; leave --annotations out")
        revision = resolve_revision(args.benchmark, args.revision)
        samples = read_annotations(args.annotations, revision=revision.name, scale=args.scale)
        source = str(args.annotations)
        yield revision.benchmark, sample_lines(samples), source, fingerprint(samples), ""
        return
    if args.scale is not None:
        raise UserError("--scale is about an annotation file: give it with --annotations")
    benchmark = benchmark_of(args.benchmark, args.root)
    if args.revision is not None:
        benchmark = resolve_revision(benchmark, args.revision).benchmark
    manifest = load_manifest(benchmark, args.root)
    if manifest.get("source", {}).get("stand_in_images"):
        show_message(
            f"univg score: note: {benchmark} was prepared with stand-in images, which have other "
            "sizes than its own: no result of the benchmark"
        )
    digest = manifest.get("fingerprint")
    if not isinstance(digest, str):
        raise UserError(
            f"the manifest of {benchmark!r} holds no fingerprint; prepare the benchmark again"
        )
    path = samples_file(benchmark, args.root)
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    with file:
        lines = (line for _, line in numbered_lines(file, path))
        yield benchmark, lines, str(path), digest, lacking(benchmark, args.root)


@contextmanager
def _output(path: Path | None) -> Iterator[IO[bytes] | None]:
    """The file of ``--out``, which takes its place at the end; None without one."""
    from univg_eval.files import whole_file

    if path is None:
        yield None
        return
    with written_by("--out", path), whole_file(path, "wb") as file:
        yield file


def _report_notes(args: argparse.Namespace, dialect: Dialect | None, scores: FileScores) -> None:
    notes = []
    if args.dialect is not None and dialect is None:
        notes.append(
            f"protocol {args.protocol!r} brings its own reading of boxes; --dialect "
            f"{args.dialect} is not used"
        )
    limits = (args.min_pixels, args.max_pixels)
    if limits != (None, None) and dialect is not None and dialect.pixel_limits is None:
        notes.append(
            f"boxes of dialect {dialect.name!r} do not depend on a resize; --min-pixels and "
            "--max-pixels are not used"
        )
    if scores.ignored_fields:
        notes.append(f"fields that are not read: {', '.join(scores.ignored_fields)}")
    if scores.n_other_sizes:
        notes.append(
            f"{scores.n_other_sizes} of {scores.n_responses} responses give image_sizes that are "
            "not those of the set's images, and their boxes are read by the sizes given: right "
            "only if the model was asked about images of these sizes"
        )
    if args.leave_out is not None:
        notes.append(
            f"{scores.n_left_out} samples with a wrong label are left out: this score does not "
            "compare with one of the whole set"
        )
    n_missing = scores.n_samples - scores.n_responses
    if n_missing:
        shown = ", ".join(scores.missing[:MISSING_SHOWN])
        more = ", …" if n_missing > MISSING_SHOWN else ""
        notes.append(
            f"{n_missing} of {scores.n_samples} samples have no response and count as unanswered: "
            f"{shown}{more}"
        )
    for note in notes:
        show_message(f"univg score: note: {note}")


def _total(tasks: Mapping[str, Mapping[str, Any]], *names: str) -> int:
    return sum(task.get(name, 0) for task in tasks.values() for name in names)


def _print(
    args: argparse.Namespace,
    result: Mapping[str, Any],
    shown: Sequence[Headline],
    n_samples: int,
) -> None:
    from univg_eval.cli._ending import left_out, print_figures, print_lines, print_next
    from univg_eval.cli._tables import terminal

    console = terminal()
    dialect = f"dialect {result['dialect']}, " if result["dialect"] else ""
    title = f"{result['benchmark']} ({dialect}protocol {result['protocol']})"
    print_figures(title, result, shown, console)
    lines = left_out(
        result["statuses"], n=n_samples, excluded=result["excluded"], missing=result["missing"]
    )
    print_lines([*lines, ""] if lines else [], console)
    print(f"fingerprint {result['fingerprint']}")
    if args.out is not None:
        print(f"scores: {args.out}")
    print_next(list(_next(args, result["benchmark"])), console)


def _next(args: argparse.Namespace, benchmark: str) -> Iterator[tuple[str, str]]:
    """What can be done with responses that are no run record yet."""
    import shlex

    from univg_eval.benchmarks.preparing.catalog import CATALOG

    given = [f"--benchmark {args.benchmark}", f"--responses {shlex.quote(str(args.responses))}"]
    if args.annotations is not None:
        given.insert(1, f"--annotations {shlex.quote(str(args.annotations))}")
    for name in (
        "revision",
        "scale",
        "split",
        "root",
        "leave_out",
        "dialect",
        "min_pixels",
        "max_pixels",
    ):
        value = getattr(args, name)
        if value is not None:
            given.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    if args.protocol != "univg":
        given.append(f"--protocol {args.protocol}")
    again = f"univg score {' '.join(given)}"
    yield "every metric, in JSON", f"{again} --json"
    if args.out is None:
        yield "a line of JSON a sample", f"{again} --out scores.jsonl"
    tasks = [
        task
        for entry in CATALOG.values()
        for task, split in entry.tasks.items()
        if entry.benchmark == benchmark
        and args.split in (None, split)
        and not task.endswith("_video")
    ]
    yield (
        "a run record, for report, failures and compare",
        f"univg eval --model univg_replay --model_args responses={shlex.quote(str(args.responses))}"
        + (f" --dialect {args.dialect}" if args.dialect else "")
        + f" --tasks {','.join(tasks)}",
    )
