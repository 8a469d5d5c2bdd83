"""``univg-train cot``: arguments, and the summary at the end."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError

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


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg-train``."""
    parser = commands.add_parser(
        "cot",
        help="build chains of thought with a teacher model",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    rows.add_argument("--limit", type=_count, metavar="N", help="only the first N rows")
    rows.add_argument("--skip-faulty", action="store_true", help="leave out faulty rows")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")

    teacher = parser.add_argument_group("teacher")
    teacher.add_argument("--model", required=True, help="its name on the server")
    teacher.add_argument("--base-url", metavar="URL", help="e.g. http://127.0.0.1:8000/v1")
    teacher.add_argument(
        "--concurrency", type=_count, default=8, metavar="N", help="requests at once (default 8)"
    )
    teacher.add_argument("--requests-per-minute", type=_count, metavar="N", help="at most")
    teacher.add_argument("--tokens-per-minute", type=_count, metavar="N", help="at most")
    teacher.add_argument(
        "--timeout", type=_seconds, default=180.0, metavar="S", help="of a request (default 180)"
    )
    teacher.add_argument(
        "--retries", type=_count_or_zero, default=5, metavar="N", help="of a request (default 5)"
    )
    teacher.add_argument(
        "--temperature", type=_not_negative, default=1.0, metavar="T", help="of chains (default 1)"
    )
    teacher.add_argument(
        "--max-tokens", type=_count, default=1024, metavar="N", help="of a reply (default 1024)"
    )
    teacher.add_argument(
        "--max-tokens-field",
        choices=("max_tokens", "max_completion_tokens"),
        default="max_tokens",
        help="what the server calls that limit (default max_tokens)",
    )
    teacher.add_argument(
        "--image-pixels",
        type=_count,
        default=1_003_520,
        metavar="N",
        help="largest area of an image as it is sent (default 1003520)",
    )
    teacher.add_argument(
        "--price-in", type=_not_negative, metavar="P", help="of a million prompt tokens"
    )
    teacher.add_argument(
        "--price-out", type=_not_negative, metavar="P", help="of a million completion tokens"
    )

    chains = parser.add_argument_group("chains")
    chains.add_argument("--chains", type=_count, default=3, metavar="N", help="a row (default 3)")
    chains.add_argument(
        "--min-words", type=_count, default=20, metavar="N", help="of a thinking (default 20)"
    )
    chains.add_argument(
        "--max-words", type=_count, default=180, metavar="N", help="of a thinking (default 180)"
    )
    chains.add_argument(
        "--dialect",
        default="univg_r1",
        metavar="NAME",
        help="how the student writes boxes (default univg_r1; `univg dialects` lists them)",
    )
    chains.add_argument(
        "--min-pixels", type=_count, metavar="N", help="lower limit of the student's resize"
    )
    chains.add_argument(
        "--max-pixels", type=_count, metavar="N", help="upper limit of the student's resize"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def _count_or_zero(text: str) -> int:
    return 0 if text == "0" else _count(text)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0")
    return value


def run(args: argparse.Namespace) -> int:
    """Build, and print what was built."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    for name in ("httpx", "httpx2", "openai"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they log every single request
    from univg_train.cot.building import CotSettings, build_chains
    from univg_train.cot.rows import rows_of_benchmark, rows_of_file
    from univg_train.cot.teacher import TeacherSettings

    base_url = args.base_url or os.environ.get(_URL) or None
    settings = CotSettings(
        teacher=TeacherSettings(
            model=args.model,
            base_url=base_url,
            temperature=args.temperature,
            max_tokens=args.max_tokens,
            max_tokens_field=args.max_tokens_field,
            timeout_s=args.timeout,
            retries=args.retries,
            requests_per_minute=args.requests_per_minute,
            tokens_per_minute=args.tokens_per_minute,
        ),
        dialect=args.dialect,
        min_pixels=args.min_pixels,
        max_pixels=args.max_pixels,
        chains=args.chains,
        min_words=args.min_words,
        max_words=args.max_words,
        image_pixels=args.image_pixels,
        concurrency=args.concurrency,
        price_in=args.price_in,
        price_out=args.price_out,
    )
    key = _key(base_url)
    if args.benchmark is not None:
        if args.images is not None:
            raise UserError("--images belongs to --source; a prepared benchmark has its own")
        rows = rows_of_benchmark(args.benchmark, args.split, args.root)
    else:
        if args.split is not None or args.root is not None:
            raise UserError("--split and --root belong to --benchmark; leave them out")
        rows = rows_of_file(args.source, args.images)
    try:
        summary = build_chains(
            rows,
            args.out,
            settings,
            api_key=key,
            limit=args.limit,
            skip_faulty=args.skip_faulty,
        )
    except ModuleNotFoundError as error:
        raise UserError(
            f"`cot` needs the package {error.name!r}, which is not installed; install "
            "the extra: pip install 'univg[train]'"
        ) from error
    if args.json:
        print(json.dumps({**asdict(summary), "out": str(args.out)}, indent=2))
    else:
        print(_summary_text(summary, args.out))
    return _EXIT_UNANSWERED if summary.unanswered else 0


def _key(base_url: str | None) -> str:
    key = os.environ.get(_KEY, "").strip()
    if key:
        return key
    if base_url is None:
        raise UserError(
            f"the environment variable {_KEY} is not set; set it to the key of your account, or "
            "name a server of your own with --base-url"
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
    cost = "" if summary.cost is None else f", cost {summary.cost:.4f}"
    lines.append(
        f"{summary.replies} replies: {summary.prompt_tokens} prompt and "
        f"{summary.completion_tokens} completion tokens{cost}"
        + (
            f" (without {summary.replies_without_usage} replies whose tokens were not counted)"
            if summary.replies_without_usage
            else ""
        )
    )
    lines.append(f"{summary.requests} requests in this run; results in {out}")
    return "\n".join(lines)
