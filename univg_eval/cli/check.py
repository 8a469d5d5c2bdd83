"""``univg check``: the test of a few minutes before the run of many hours."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.cli import EXIT_FOUND
from univg_eval.progress import progress_bars
from univg_eval.runs.threads import choose_threads

if TYPE_CHECKING:
    from univg_eval.analysis.diagnosis import Conclusion
    from univg_eval.lmms.check import CheckResult

__all__ = ["add_parser", "run"]

_MARKS = {"problem": "bold red", "hint": "bold magenta", "warning": "bold yellow", "note": "dim"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "check",
        help="a few minutes' test of a model and its settings, before a long run",
        description="Give a model a hundred samples with known boxes through lmms-eval, draw "
        "every answer on its image, and say in plain words what is wrong with the set-up: no box, "
        "thinking that never ends, another dialect or other pixel limits, images that do not "
        "arrive. A weak model is not a fault. Exit status: 0 nothing wrong, 3 something found, "
        "2 a mistake in the arguments.",
        epilog="Example: univg check --model qwen2_5_vl --model_args pretrained=DIR --controls",
    )
    parser.add_argument("--model", required=True, metavar="M", help="lmms-eval's backend")
    parser.add_argument(
        "--model_args", default="", metavar="A", help="its arguments, e.g. pretrained=DIR"
    )
    parser.add_argument(
        "--dialect", metavar="NAME", help="how the model writes boxes (`univg dialects`)"
    )
    parser.add_argument(
        "--prompt", metavar="STYLE", help="think (reason, then <answer>), direct or official"
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="run again with blank, swapped and permuted images and with the instruction cut",
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="run again with the other prompt styles and with requests for 0-1000, 0-1 and pixels",
    )
    parser.add_argument(
        "--tasks",
        default="univg_photos",
        metavar="T",
        help="tasks or groups of this project, separated by commas; default univg_photos",
    )
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N of each task")
    parser.add_argument("--batch_size", type=_count, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--gen_kwargs", metavar="K", help="generation arguments, e.g. max_new_tokens=4096"
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("out/check"),
        metavar="DIR",
        help="folder of the page and the run records, default out/check",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number, at least 1")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Check, report, and say by the exit status whether something was found."""
    choose_threads()
    from univg_eval.lmms.extra import require_lmms_eval

    require_lmms_eval()
    print("Loading lmms-eval and the model …", file=sys.stderr)
    # lmms-eval warns on standard output while it is imported.
    with contextlib.redirect_stdout(sys.stderr):
        from univg_eval.lmms.check import PAGE_NAME, Plan, run_check
    from univg_eval.analysis.diagnosis import conclude
    from univg_eval.cli._check_page import make_page
    from univg_eval.report import write_page
    from univg_eval.report.text import moment

    plan = Plan(**{name: getattr(args, name) for name in Plan.__slots__})
    with progress_bars(stay=True) as progress:
        result = run_check(plan, progress)
    conclusion = conclude(result.diagnosis, result.findings)
    footer = f"Made by univg check, {moment(datetime.now(UTC))}, in {_seconds(result)}."
    page = write_page(make_page(result, conclusion, footer), args.out / PAGE_NAME)
    if args.json:
        print(json.dumps(_as_json(result, conclusion, page), indent=2, allow_nan=False))
    else:
        _show(args, result, conclusion, page)
    return EXIT_FOUND if any(finding.is_fault for finding in result.findings) else 0


def _seconds(result: CheckResult) -> str:
    steps = ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items())
    return f"{sum(result.seconds.values()):.0f} s ({steps})"


def _as_json(result: CheckResult, conclusion: Conclusion, page: Path) -> dict[str, Any]:
    diagnosis = result.diagnosis
    return {
        "verdict": conclusion.to_dict(),
        "n": diagnosis.n,
        "asked": diagnosis.with_target,
        "answered": diagnosis.answered,
        "single": diagnosis.single,
        "hits": diagnosis.hits,
        "hits_interval": diagnosis.score and diagnosis.score.limits,
        "hits_by_chance": diagnosis.blind,
        "settings": result.settings.to_dict(),
        "tasks": result.tasks,
        "macro": result.macro,
        "findings": [finding.to_dict() for finding in result.findings],
        "controls": [control.to_dict() for control in result.controls],
        "sweep": [variant.to_dict() for variant in result.variants],
        "page": str(page),
        "records": {name: [str(p) for p in paths] for name, paths in result.records.items()},
        "seconds": dict(result.seconds),
    }


def _show(
    args: argparse.Namespace, result: CheckResult, conclusion: Conclusion, page: Path
) -> None:
    from rich.text import Text

    from univg_eval.analysis.headline import headlines
    from univg_eval.cli._check_page import result_tables
    from univg_eval.cli._ending import next_of, print_figures, print_next
    from univg_eval.cli._tables import Sheet, print_sheet, terminal
    from univg_eval.report.text import printable
    from univg_eval.terminal import wrapped

    console = terminal()

    def say(words: str, style: str = "", *, indent: str = "", marked: int = 0) -> None:
        # Answers, ids and paths are data: no markup, no control codes of the terminal.
        for line in wrapped(printable(words), console.width, indent=indent):
            text = Text(line, style="" if marked else style)
            text.stylize(style, 0, marked)
            console.print(text, soft_wrap=True)
            marked = 0

    style = {"wrong": "bold red", "look": "bold yellow", "fine": "bold green"}[conclusion.status]
    console.print()
    say(conclusion.headline, style)
    say(conclusion.text)
    for finding in result.findings:
        console.print()
        mark = finding.severity.upper()
        say(f"{mark} {finding.title}", _MARKS[finding.severity], marked=len(mark))
        say(finding.detail, indent="  ")
        if finding.severity != "note" or finding.remedy != "Nothing to do.":
            say(f"What to do: {finding.remedy}", indent="  ")
        if finding.examples:
            say(f"e.g. {', '.join(finding.examples[:3])}", "dim", indent="  ")
    console.print()
    scored, *others = result_tables(result)
    totals = {"tasks": result.tasks, "macro": result.macro}
    print_figures(scored.title, totals, headlines(result.diagnosis.scores), console)
    for table in others:
        rows = [[str(cell) for cell in row] for row in table.rows]
        print_sheet(Sheet(table.title, table.head, rows), console)
    settings = ", ".join(
        f"{name} {value} ({source})"
        for name, (value, source) in result.settings.to_dict().items()
        if value is not None and name in ("dialect", "prompt", "min_pixels", "max_pixels")
    )
    say(f"Settings: {settings}.")
    say(f"Time: {_seconds(result)}.")
    print(f"every answer on its image: {args.out / page.name}")
    print(f"run records: {result.plan.out / 'records'}")
    first = next(path for paths in result.records.values() for path in paths)
    print_next([*_next(result, conclusion, args.model_args), *next_of(first)[:2]], console)


def _next(result: CheckResult, conclusion: Conclusion, model_args: str) -> list[tuple[str, str]]:
    plan = result.plan
    model = f"--model {plan.model} --model_args {shlex.quote(model_args)}"
    if plan.dialect:
        model += f" --dialect {plan.dialect}"
    if plan.prompt:
        model += f" --prompt {plan.prompt}"
    if conclusion.status == "wrong" and not plan.controls:
        return [("with less to see", f"univg check {model} --controls")]
    return [("the evaluation", f"univg eval {model} --tasks univg_mini --output_path out")]
