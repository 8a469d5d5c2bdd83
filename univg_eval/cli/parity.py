"""``univg parity``: whether two backends make the same of the same samples, and where they part."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from univg_eval.cli import EXIT_FOUND
from univg_eval.errors import UserError
from univg_eval.progress import progress_bars, step
from univg_eval.runs.threads import choose_threads

if TYPE_CHECKING:
    from univg_eval.lmms.parity import Parity

__all__ = ["add_parser", "run"]

EPILOG = """\
Examples:
  univg parity univg:pretrained=DIR qwen2_5_vl:pretrained=DIR --limit 5
  univg parity out/records/A/univg_mini univg:pretrained=DIR
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "parity",
        help="the same samples through two backends: where they part, and what it costs",
        description="Ask two backends the same samples, one by one, and compare prompt, token ids, "
        "sizes and pixels of the images, responses, boxes and scores. A side is BACKEND:model_args "
        "or the folder of a run record. Exit status: 0 all responses are the same, 3 some differ.",
        epilog=EPILOG,
    )
    parser.add_argument("sides", nargs=2, metavar="SIDE", help="BACKEND:model_args, or a record")
    parser.add_argument(
        "--tasks", default="univg_mini", metavar="T", help="tasks or groups, default univg_mini"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N of each task")
    parser.add_argument(
        "--gen_kwargs", metavar="K", help="generation arguments, e.g. max_new_tokens=64"
    )
    parser.add_argument("--dialect", metavar="NAME", help="of both sides")
    parser.add_argument("--prompt", metavar="STYLE", help="of both sides")
    parser.add_argument("--protocol", metavar="NAME", help="scoring rule of both, default univg")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask both sides, print, and say by the exit status whether they agree."""
    choose_threads()
    from univg_eval.lmms.extra import require_lmms_eval

    require_lmms_eval()
    if args.limit is not None and args.limit < 1:
        raise UserError(f"--limit is {args.limit}; expected at least 1")
    with _nothing_printed():
        from univg_eval.lmms.parity import run_parity
        from univg_eval.lmms.watch import quiet

        with progress_bars(stay=True) as progress, quiet():
            found = run_parity(
                tuple(args.sides),
                tasks=args.tasks,
                limit=args.limit,
                gen_kwargs=args.gen_kwargs or "",
                options={name: getattr(args, name) for name in ("dialect", "prompt", "protocol")},
                report=lambda title: step(progress, title),
            )
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        _show(found)
    return 0 if found.is_same else EXIT_FOUND


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """What backends of lmms-eval print, and the processes of an engine, goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _show(found: Parity) -> None:
    from univg_eval.cli._tables import Sheet, print_sheet, terminal
    from univg_eval.lmms.parity import STAGES

    console = terminal()
    rows = [
        [STAGES[stage.name], str(stage.n), str(stage.same), stage.first[0] if stage.first else ""]
        for stage in found.stages
    ]
    for letter, side in zip("AB", found.sides, strict=True):
        print(f"{letter}  {side}")
    print()
    heads = ["compared", "samples", "same", "first that differs"]
    print_sheet(Sheet("", heads, rows), console)
    difference = found.difference
    if difference is not None:
        low, high = (100 * value for value in (difference.interval.low, difference.interval.high))
        print(
            f"{found.metric} %: A {100 * difference.a:.1f}, B {100 * difference.b:.1f}, B - A "
            f"{100 * (difference.b - difference.a):+.1f}, 95 % interval {low:+.1f} to {high:+.1f}"
        )
    if found.first_tokens:
        earliest = min(found.first_tokens.values())
        print(f"Responses that differ part at token {earliest} (counted from 0) or later.")
    for stage in found.stages:
        if stage.first is not None and stage.name in ("input_sizes", "response", "prompt"):
            name, *values = stage.first
            print(f"\n{STAGES[stage.name]} of {name}")
            for side, value in zip("AB", values, strict=True):
                print(f"  {side}  {_short(value)}")
    print(f"\n{found.verdict}")


def _short(value: Any, longest: int = 400) -> str:
    text = str(value)
    return text if len(text) <= longest else f"{text[:longest]} …"
