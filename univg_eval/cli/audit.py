"""``univg audit``: what a benchmark holds, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.cli import EXIT_FOUND
from univg_eval.errors import UserError
from univg_eval.progress import progress_bars, step
from univg_eval.terminal import fitted, terminal_width

if TYPE_CHECKING:
    from univg_eval.audit import AuditReport
    from univg_eval.benchmarks.readers.mig_bench import Revision
    from univg_eval.samples import GroundingSample

HELP = "report faults of a benchmark: its images opened, its rows compared"
DESCRIPTION = """\
Report what is wrong with a prepared benchmark: images that are missing, damaged or of another size
than recorded, EXIF orientations, invalid boxes, duplicates and near-duplicates, rows whose object
is not visible, items that were left out when it was prepared. Every image and every requested
frame of a video is decoded to its end; --quick reads headers only. Nothing is repaired.
Each finding is printed with what it means, what scoring does about it, and a remedy.

With --annotations FILE, the file of a release of MIG-Bench is audited before it is prepared.

Exit status: 0 nothing found, 3 something found, 2 the benchmark or the file cannot be read.
"""
EPILOG = """\
Examples:
  univg audit lisa --html audit.html
  univg audit refcoco --quick --reviewed refcocos_annotation_reviewed --json
  univg audit mig_bench --annotations MIG_data.json --images MIG-Bench/images"""
SHOWN_ROWS = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._annotations import add_revision_arguments

    parser = subparsers.add_parser(
        "audit",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("benchmark", help="name of a prepared benchmark, e.g. mig_bench or revos")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="data root; default $UNIVG_DATA or ~/.cache/univg"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="decode nothing: read the headers of images, and see that videos exist",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with the faults drawn"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--reviewed",
        type=Path,
        metavar="PATH",
        help="RefCOCO's reviewed labels: Ref-L4's refcocos_annotation_reviewed, or a file of it",
    )
    release = parser.add_argument_group("an annotation file of MIG-Bench, not yet prepared")
    release.add_argument("--annotations", type=Path, metavar="FILE", help="the release's file")
    release.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images: MIG-Bench/images, or a folder that holds it",
    )
    add_revision_arguments(release)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Audit, print, and say by the exit status whether something was found."""
    if args.html is not None and args.html.is_dir():
        raise UserError(f"--html {args.html} is a folder; give the page's file, e.g. audit.html")
    return _run_on_prepared(args) if args.annotations is None else _run_on_annotations(args)


def _run_on_prepared(args: argparse.Namespace) -> int:
    from univg_eval.audit import audit_benchmark
    from univg_eval.benchmarks.preparing.catalog import benchmark_of
    from univg_eval.samples import benchmark_dir, data_root, load_samples, require_images

    for name in ("images", "revision", "scale"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name} goes with --annotations; a prepared benchmark has its own")
    benchmark = benchmark_of(args.benchmark, args.root)
    require_images(benchmark, args.root)
    with progress_bars() as progress:
        report = audit_benchmark(
            benchmark,
            args.root,
            progress=step(progress, f"{benchmark}: files"),
            open_images=not args.quick,
            reviewed=args.reviewed,
        )
    head = [f"{report.benchmark} in {benchmark_dir(benchmark, args.root)}"]
    samples = [] if args.html is None else load_samples(benchmark, root=args.root, changed=True)
    return _finish(args, report, head, report.to_dict(), samples, data_root(args.root).joinpath)


def _run_on_annotations(args: argparse.Namespace) -> int:
    from univg_eval.audit import audit_annotations
    from univg_eval.benchmarks.readers import mig_bench
    from univg_eval.cli._annotations import resolve_revision
    from univg_eval.files import file_sha256

    if args.root is not None or args.quick or args.reviewed is not None:
        raise UserError(
            "--root, --quick and --reviewed are for a prepared benchmark; --annotations audits a "
            "release's file, whose images are given with --images"
        )
    revision = resolve_revision(args.benchmark, args.revision)
    samples, faults = mig_bench.read_rows(
        args.annotations, revision=revision.name, scale=args.scale
    )
    folder = None if args.images is None else mig_bench.images_folder(args.images)
    with progress_bars() as progress:
        report = audit_annotations(samples, faults, folder, progress=step(progress, "files"))
    sha256 = file_sha256(args.annotations)
    is_released = None if revision.sha256 is None else sha256 == revision.sha256
    known = {
        True: "the released file",
        False: "NOT the released file, whose SHA-256 differs",
        None: "no SHA-256 of the released file is known",
    }
    head = [
        f"{args.annotations.name}: MIG-Bench, revision {revision.name}, benchmark "
        f"{report.benchmark}",
        f"  SHA-256 {sha256} ({known[is_released]})",
    ]
    values = _release_values(report, revision, args.annotations.name, sha256, is_released)
    return _finish(
        args,
        report,
        head,
        values,
        samples,
        lambda image: None if folder is None else mig_bench.image_file(image, folder),
    )


def _release_values(
    report: AuditReport, revision: Revision, file: str, sha256: str, is_released: bool | None
) -> dict[str, Any]:
    """The report as JSON values; what is wrong with images stands apart from the findings."""
    about_images = {"missing_image": "missing", "unreadable_image": "unreadable"}
    values = report.to_dict() | {
        "file": file,
        "revision": revision.name,
        "sha256": sha256,
        "is_released_file": is_released,
        "findings": [
            finding.to_dict()
            for finding in report.findings
            if finding.kind not in (*about_images, "unequal_pair")
        ],
    }
    if report.images_read != "not opened":
        cases = {finding.kind: finding.cases for finding in report.findings}
        values["images"] = {
            "found": report.n_opened,
            **{
                name: sorted(str(case.file) for case in cases.get(kind, ()))
                for kind, name in about_images.items()
            },
            "unequal_pairs": [case.samples[0] for case in cases.get("unequal_pair", ())],
        }
    return values


def _finish(
    args: argparse.Namespace,
    report: AuditReport,
    head: list[str],
    values: dict[str, Any],
    samples: list[GroundingSample],
    locate: Any,
) -> int:
    """Write the page, then print.

    A reader such as ``head`` that closes the output early does not cost the page, and a page that
    cannot be written does not cost the output.
    """
    from univg_eval.report.text import printable

    try:
        if args.html is not None:
            page = _write_page(args, report, samples, locate)
    finally:
        if args.json:
            print(json.dumps(values, indent=2))
        else:  # a name of the data's own neither breaks nor colours a line
            lines = [*head, *_lines(report)]
            for line in lines:
                shown = printable(line).replace("\n", r"\n")
                print("\n".join(fitted(shown, terminal_width())))
    if args.html is not None and not args.json:
        print(f"\nPage: {page}")
    return EXIT_FOUND if report.found else 0


def _lines(report: AuditReport) -> Iterator[str]:
    from univg_eval.audit import KINDS, NOTES

    yield f"  fingerprint {report.fingerprint}"
    yield (
        f"  {report.n} rows on {report.n_images} images, in {report.n_clusters} clusters of rows "
        "that are not independent"
    )
    yield (
        "  "
        + {
            "decoded": "every image decoded to its end",
            "headers": f"headers of {report.n_opened} images read",
            "not opened": "images not opened",
        }[report.images_read]
    )
    yield from _counts("Rows per task", report.tasks)
    if len(report.splits) > 1:
        yield from _counts("Rows per split", report.splits)
    if report.target_checks:
        yield from ("", "Target image: rows on which something beside the question confirms it")
        for name, check in report.target_checks.items():
            yield f"  {check['confirmed']:>5} of {check['rows']:>5}  {name}"
        checked = sum(check["rows"] for check in report.target_checks.values())
        yield f"  {report.n - checked:>5} rows have nothing but the question's own words"
    for finding in report.findings:
        kind, n = KINDS[finding.kind], len(finding.cases)
        yield from ("", f"{finding.kind}: {n}; {kind.meaning}")
        yield from (f"  in scoring: {kind.scoring}", f"  remedy: {kind.remedy}")
        for case in finding.cases[:SHOWN_ROWS]:
            yield f"  {_who(case.samples, case.file)}  {case.detail}".rstrip()
        if n > SHOWN_ROWS:
            yield f"  … and {n - SHOWN_ROWS} more (--json lists all)"
    if not report.findings:
        yield from ("", "Nothing found.")
    if report.notes:
        yield from ("", "Notes, not faults")
        for name, count in report.notes.items():
            yield f"  {count:>6}  {name}: {NOTES[name]}"


def _counts(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield from ("", title)
    for name, n in counts.items():
        yield f"  {name:<16} {n:>6}"


def _who(samples: tuple[str, ...], file: str | None) -> str:
    rows = samples[0] if samples else ""
    if len(samples) > 1:
        rows += f" and {len(samples) - 1} more"
    return f"{file} ({rows})" if file is not None and rows else file or rows


def _write_page(
    args: argparse.Namespace, report: AuditReport, samples: list[GroundingSample], locate: Any
) -> Path:
    from datetime import UTC, datetime
    from importlib.metadata import version

    from univg_eval.report import write_page
    from univg_eval.report.audit_page import audit_page
    from univg_eval.report.text import moment

    made = moment(datetime.now(UTC))
    footer = f"Made by univg audit {args.benchmark}, version {version('univg')}, {made}."
    page = audit_page(report, samples, locate, footer=footer)
    with progress_bars() as progress:
        return write_page(page, args.html, progress=step(progress, "drawing"))
