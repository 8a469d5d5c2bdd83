"""``univg-train cot``: arguments, and the summary at the end."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_train.cli._arguments import count, number_from_zero, positive_int, positive_number
from univg_train.cli._running import print_fitted, room_in

if TYPE_CHECKING:
    from univg_train.cot.output import CotSummary

__all__ = ["add_parser"]

_EXIT_UNANSWERED = 3
_KEY = "OPENAI_API_KEY"
_URL = "OPENAI_BASE_URL"

_DESCRIPTION = """\
Build chains of thought: for questions whose box is known, a teacher model explains step by step
how to find it, several times; rules throw out what gives the answer away; the teacher chooses the
best of the rest. DIR/cotsft.json then holds examples to fine-tune on, DIR/chains.jsonl every chain
with its verdict.

All images of the rows, reduced, their questions and boxes are sent to the server of --base-url.
Stop at any time: the same command goes on, and requests nothing twice that was answered.
"""
_EPILOG = f"""\
example:
  univg-train cot --benchmark univg_mini --out runs/cot --model Qwen/Qwen2.5-VL-72B-Instruct \\
      --base-url http://127.0.0.1:8000/v1 --limit 10
      ten rows to look at first; without --limit the others follow
  univg-train cot --source my.jsonl --out runs/cot --model MODEL --requests-per-minute 500 \\
      --price-in 2.5 --price-out 10
      rows of your own, at the service whose key is in {_KEY}

environment:
  {_KEY}   the key; never written anywhere, not needed with --base-url
  {_URL}  the server where --base-url is not given

exit status: 0 every row has its outcome; 2 a mistake, or no answer from the teacher; 3 some rows
went unanswered: the same command requests these again; 130 interrupted
"""


# Option, type, default and help of the numbers.
_TEACHER_NUMBERS = (
    ("--concurrency", positive_int, 8, "requests at once"),
    ("--requests-per-minute", positive_int, None, "at most"),
    ("--tokens-per-minute", positive_int, None, "at most"),
    ("--timeout", positive_number, 180.0, "seconds of a request"),
    ("--retries", count, 5, "of a request"),
    ("--temperature", number_from_zero, 1.0, "of chains"),
    ("--max-tokens", positive_int, 1024, "of a reply"),
    ("--image-pixels", positive_int, 1_003_520, "largest area of an image as it is sent"),
    ("--price-in", number_from_zero, None, "of a million prompt tokens"),
    ("--price-out", number_from_zero, None, "of a million completion tokens"),
)
_CHAIN_NUMBERS = (
    ("--chains", positive_int, 3, "a row"),
    ("--min-words", positive_int, 20, "of a thinking"),
    ("--max-words", positive_int, 180, "of a thinking"),
    ("--min-pixels", positive_int, None, "lower limit of the student's resize"),
    ("--max-pixels", positive_int, None, "upper limit of the student's resize"),
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg-train``."""
    parser = commands.add_parser(
        "cot",
        help="build chains of thought with a teacher model",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    rows = parser.add_argument_group("rows")
    which = rows.add_mutually_exclusive_group(required=True)
    which.add_argument("--benchmark", metavar="NAME", help="a prepared benchmark")
    which.add_argument(
        "--source", type=Path, metavar="FILE", help="JSON Lines, in the form of docs/custom.md"
    )
    rows.add_argument("--split", help="of the benchmark")
    rows.add_argument("--root", type=Path, metavar="DIR", help="the data root of the benchmark")
    rows.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images (default: FILE's own)"
    )
    rows.add_argument("--limit", type=positive_int, metavar="N", help="only the first N rows")
    rows.add_argument("--skip-faulty", action="store_true", help="leave out faulty rows")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder of the run"
    )

    teacher = parser.add_argument_group("teacher")
    teacher.add_argument("--model", required=True, help="its name on the server")
    teacher.add_argument("--base-url", metavar="URL", help="e.g. http://127.0.0.1:8000/v1")
    _add_numbers(teacher, _TEACHER_NUMBERS)
    teacher.add_argument(
        "--max-tokens-field",
        choices=("max_tokens", "max_completion_tokens"),
        default="max_tokens",
        help="what the server calls that limit (default max_tokens)",
    )
    chains = parser.add_argument_group("chains")
    _add_numbers(chains, _CHAIN_NUMBERS)
    chains.add_argument(
        "--dialect",
        default="univg_r1",
        metavar="NAME",
        help="how the student writes boxes (default univg_r1; `univg dialects` lists them)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=run)


def _add_numbers(group: argparse._ArgumentGroup, options: Iterable[tuple[Any, ...]]) -> None:
    for option, kind, default, text in options:
        if default is not None:
            text += f" (default {default:.7g})"
        group.add_argument(option, type=kind, default=default, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Build, and print what was built."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they log every single request
    from univg_train.cot.building import CotSettings, build_chains
    from univg_train.cot.rows import rows_of_benchmark, rows_of_file
    from univg_train.cot.teacher import TeacherSettings

    given = vars(args) | {
        "timeout_s": args.timeout,
        "base_url": args.base_url or os.environ.get(_URL) or None,
    }
    given["teacher"] = TeacherSettings(**{f.name: given[f.name] for f in fields(TeacherSettings)})
    settings = CotSettings(**{f.name: given[f.name] for f in fields(CotSettings)})
    key = _key(settings.teacher.base_url)
    if args.benchmark is not None:
        if args.images is not None:
            raise UserError("--images belongs to --source; a prepared benchmark has its own")
        rows = rows_of_benchmark(args.benchmark, args.split, args.root)
    else:
        if args.split is not None or args.root is not None:
            raise UserError("--split and --root belong to --benchmark; leave them out")
        rows = rows_of_file(args.source, args.images)
    with room_in(args.out):
        summary = build_chains(
            rows, args.out, settings, api_key=key, limit=args.limit, skip_faulty=args.skip_faulty
        )
    if args.json:
        print(json.dumps({**asdict(summary), "out": str(args.out)}, indent=2))
    else:
        print_fitted(_summary_text(summary, args.out))
    return _EXIT_UNANSWERED if summary.unanswered else 0


def _key(base_url: str | None) -> str:
    key = os.environ.get(_KEY, "").strip()
    if key:
        return key
    if base_url is None:
        raise UserError(
            f"the environment variable {_KEY} is not set; set it to your key, or name a server of "
            "your own with --base-url"
        )
    return "none"  # the client wants one; servers of one's own mostly do not


def _summary_text(summary: CotSummary, out: Path) -> str:
    lines = [
        f"{summary.rows} rows: {summary.accepted} accepted, {summary.rejected} rejected, "
        f"{summary.unanswered} unanswered"
    ]
    left_out = [f"{n} with {reason}" for reason, n in summary.unused.items()]
    if summary.faulty:
        left_out.append(f"{summary.faulty} faulty")
    if left_out:
        lines.append(f"left out: {', '.join(left_out)}")
    if summary.chain_reasons:
        broken = ", ".join(f"{reason} {n}" for reason, n in summary.chain_reasons.items())
        lines.append(f"rules broken, of {summary.chains} chains: {broken}")
    tokens = (
        f"{summary.replies} replies: {summary.prompt_tokens} prompt and "
        f"{summary.completion_tokens} completion tokens"
    )
    if summary.cost is not None:
        tokens += f", cost {summary.cost:.4f}"
    if summary.replies_without_usage:
        tokens += f" (without {summary.replies_without_usage} replies, whose tokens are unknown)"
    lines.append(tokens)
    lines.append(f"{summary.requests} requests in this run; results in {out}")
    return "\n".join(lines)
