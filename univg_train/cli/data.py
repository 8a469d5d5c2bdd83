"""``univg-train data``: read a file of training data through, before hours are spent on it."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_eval.progress import progress_bars, step
from univg_eval.prompts import TRAINED_STYLES
from univg_train.cli._running import print_fitted

if TYPE_CHECKING:
    from univg_train.data import DataReport

__all__ = ["add_parser", "run"]

EXIT_FOUND = 3

_EPILOG = """\
forms:
{forms}

example:
  univg-train data stage2_rl.json --images /data --check-leaks mig_bench lisa_val

Exit status: 0 if all is well, 3 if there are bad rows or leaks, 2 if the file cannot be read.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``univg-train``."""
    from univg_train.data import DEFAULT_LEAK_KINDS, FORMS, LEAK_KINDS, PURPOSES

    forms = "\n".join(f"  {name:16} {meaning}" for name, meaning in FORMS.items())
    parser = commands.add_parser(
        "data",
        help="check a file of training data: rows, boxes, images, leaks",
        description="Read a file of training data through, images included, and report what it "
        "holds: questions by source, what is left out and why, bad rows, and what it shares with "
        "evaluation sets.",
        epilog=_EPILOG.format(forms=forms),
    )
    parser.add_argument("file", metavar="FILE", help="the file; a benchmark's name with samples")
    parser.add_argument(
        "--form",
        choices=tuple(FORMS),
        metavar="FORM",
        help="see below (default: recognised by the first row)",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of images (default: the file's folder)"
    )
    parser.add_argument(
        "--dialect", default="univg_r1", help="of the model to be trained (default univg_r1)"
    )
    parser.add_argument("--style", choices=TRAINED_STYLES, help="default: the dialect's own")
    parser.add_argument(
        "--purpose",
        choices=PURPOSES,
        default="grpo",
        help="sft: prompt and completion; grpo: boxes to reward (default grpo)",
    )
    parser.add_argument(
        "--min-pixels", type=int, metavar="N", help="of the model's resize, if boxes depend on it"
    )
    parser.add_argument("--max-pixels", type=int, metavar="N", help="likewise")
    parser.add_argument(
        "--space",
        choices=("pixels", "norm1000", "norm1"),
        help="of the boxes of vlm_r1 (default pixels)",
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode every image, not only its header"
    )
    parser.add_argument(
        "--check-leaks",
        nargs="+",
        default=[],
        metavar="BENCHMARK",
        help="hold the rows against these prepared benchmarks",
    )
    parser.add_argument(
        "--leak-kinds",
        nargs="+",
        choices=tuple(LEAK_KINDS),
        default=list(DEFAULT_LEAK_KINDS),
        metavar="KIND",
        help=f"what is compared, of: {', '.join(LEAK_KINDS)} "
        f"(default {' '.join(DEFAULT_LEAK_KINDS)})",
    )
    parser.add_argument("--root", type=Path, help="data root (default $UNIVG_DATA)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the file; returns the exit status."""
    from univg_train.data import (
        FORMS,
        check_training_data,
        index_benchmarks,
        make_rendering,
        recognise_form,
    )

    form, recognised_by = args.form, None
    if form is None:
        form, recognised_by = recognise_form(args.file, root=args.root)
    how = make_rendering(
        args.dialect,
        style=args.style,
        purpose=args.purpose,
        min_pixels=args.min_pixels,
        max_pixels=args.max_pixels,
    )
    leaks = None
    if args.check_leaks:
        leaks = index_benchmarks(args.check_leaks, kinds=args.leak_kinds, root=args.root)
    with progress_bars() as progress:
        report = check_training_data(
            form,
            args.file,
            how,
            images=args.images,
            space=args.space,
            leaks=leaks,
            decode=args.decode,
            root=args.root,
            progress=step(progress, "reading rows"),
        )
    if args.form and not report.n:
        _warn_of_form(args, report)
    if args.json:
        settings = {
            "file": args.file,
            "form": form,
            "recognised_by": recognised_by,
            "dialect": how.dialect.name,
            "style": how.style,
            "purpose": how.purpose,
            "benchmarks": args.check_leaks,
        }
        print(json.dumps(settings | report.to_dict(), ensure_ascii=False, indent=2))
    else:
        by = f" (recognised by {recognised_by})" if recognised_by else ""
        print_fitted(f"form {form}: {FORMS[form]}{by}")
        print_fitted(_text(args, report))
    if not (report.n or report.n_bad or report.n_leaking):
        raise UserError(f"{args.file}: nothing in it serves the purpose {args.purpose!r}")
    return EXIT_FOUND if report.n_bad or report.n_leaking else 0


def _warn_of_form(args: argparse.Namespace, report: DataReport) -> None:
    """Where nothing can be used: whether the file has another form than was said."""
    from univg_train.data import recognise_form

    try:
        form, by = recognise_form(args.file, root=args.root)
    except UserError:
        return  # the report says what is wrong
    if form != args.form:
        report.warnings.append(f"the file is recognised as the form {form}, by {by}")


def _text(args: argparse.Namespace, report: DataReport) -> str:
    from univg_train.data import BAD_KINDS, LEAK_KINDS, LEFT_OUT, ROW_KINDS

    def counts(counted: Counter[Any], meanings: Mapping[Any, str]) -> list[str]:
        return [f"  {n:8} {kind}: {meanings[kind]}" for kind, n in counted.most_common()]

    lines = [f"{report.n_read} rows read; {report.n} questions to train on ({args.purpose})"]
    lines += [f"  {n:8} {source}" for source, n in report.sources.most_common()]
    if set(report.kinds) - {"one_target"}:
        lines.append("of these")
        lines += counts(report.kinds, ROW_KINDS)
    if report.left_out:
        lines.append(f"{report.left_out.total()} questions left out")
        lines += counts(report.left_out, LEFT_OUT)
    lines.append(f"{report.n_bad} bad rows")
    lines += counts(report.bad, BAD_KINDS)
    lines += [f"    {_shown(row)}" for row in report.bad_rows]
    if report.n_bad > len(report.bad_rows):
        lines.append(f"    … and {report.n_bad - len(report.bad_rows)} more")
    if args.check_leaks:
        lines.append(f"{report.n_leaking} questions share something with an evaluation set")
        lines += counts(report.leaks, LEAK_KINDS)
        lines += [
            f"    {id_}: {leak.kind} {_shown(repr(leak.shared))}, of {leak.sample}"
            + (f" and {leak.n_samples - 1} more" if leak.n_samples > 1 else "")
            for id_, leak in report.leaking
        ]
        if report.n_text_alone:
            lines.append(report.text_alone())
    lines += [f"warning: {warning}" for warning in report.warnings]
    return "\n".join(lines)


def _shown(text: str) -> str:
    """A text from a file for one line of a terminal."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= 400 else line[:397] + "..."
