"""``univg audit``: what a benchmark holds, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.cli import EXIT_FOUND
from univg_eval.errors import UserError

if TYPE_CHECKING:
    from univg_eval.audit import AuditReport
    from univg_eval.audit.files import Progress
    from univg_eval.benchmarks.readers import mig_bench
    from univg_eval.samples import GroundingSample

HELP = "report faults of a benchmark: its images opened, its rows compared"
DESCRIPTION = """\
Report what is wrong with a prepared benchmark: images that are missing, damaged or of another size
than recorded, EXIF orientations, boxes that are no boxes, doubled and nearly doubled rows, rows
whose object is not visible, items that were left out when it was prepared. Every image and every
asked frame of a video is decoded to its end; --quick reads headers only. Nothing is repaired.
docs/audit.md says what each kind of finding means, and what scoring does about it.

With --annotations FILE, the file of a release of MIG-Bench is examined before it is prepared.

Exit status: 0 nothing found, 3 something found, 2 the benchmark or the file cannot be read.
"""
EPILOG = """\
Examples: univg audit lisa --html audit.html
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
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
        "--html", type=Path, metavar="FILE", help="also write a page with the offenders drawn"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
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
    if args.annotations is not None:
        return _run_on_annotations(args)
    for name in ("images", "revision", "scale"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name} goes with --annotations; a prepared benchmark has its own")
    return _run_on_prepared(args)


# A prepared benchmark


def _run_on_prepared(args: argparse.Namespace) -> int:
    from univg_eval.audit import audit_benchmark
    from univg_eval.samples import benchmark_dir, data_root, load_samples

    with _progress(args.benchmark) as progress:
        report = audit_benchmark(
            args.benchmark, args.root, progress=progress, open_images=not args.quick
        )
    try:
        if args.html is not None:
            samples = load_samples(args.benchmark, root=args.root)
            page = _write_page(args, report, samples, data_root(args.root))
    finally:  # whatever becomes of the page
        if args.json:
            print(json.dumps(report.to_dict(), indent=2))
        else:
            print(_as_text(_report_lines(report, benchmark_dir(args.benchmark, args.root))))
    if args.html is not None and not args.json:
        print(f"\nPage: {page}")
    return EXIT_FOUND if report.found else 0


def _as_text(lines: Iterable[str]) -> str:
    """The lines as one text; a name or message of the data's own neither breaks nor colours one."""
    from univg_eval.report.text import printable

    return "\n".join(printable(line).replace("\n", r"\n") for line in lines)


@contextmanager
def _progress(benchmark: str) -> Iterator[Progress]:
    """A progress bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{benchmark}: files", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _report_lines(report: AuditReport, folder: Path) -> Iterator[str]:
    from univg_eval.audit import KINDS, NOTES

    read = {
        "decoded": "every image decoded to its end",
        "headers": "headers of the images read (--quick)",
    }[report.images_read]
    yield f"{report.benchmark} in {folder}"
    yield f"  fingerprint {report.fingerprint}"
    yield (
        f"  {report.n} rows on {report.n_images} images, in {report.n_clusters} clusters of rows "
        "that are not independent"
    )
    yield f"  {read}"
    yield from ("", "Rows per task")
    yield from _columns(report.tasks)
    if len(report.splits) > 1:
        yield from ("", "Rows per split")
        yield from _columns(report.splits)
    if report.target_checks:
        yield ""
        yield from _check_lines(report.n, report.target_checks)
    for finding in report.findings:
        kind = KINDS[finding.kind]
        yield from ("", f"{finding.kind}: {len(finding.offences)}; {kind.meaning}")
        yield f"  in scoring: {kind.scoring}"
        for offence in finding.offences[:SHOWN_ROWS]:
            yield f"  {_who(offence.samples, offence.file)}  {offence.detail}".rstrip()
        yield from _more(len(finding.offences))
    if not report.findings:
        yield from ("", "Nothing found.")
    if report.notes:
        yield from ("", "Notes, not faults")
        for name, n in report.notes.items():
            yield f"  {n:>6}  {name}: {NOTES[name]}"


def _columns(counts: Any) -> Iterator[str]:
    for name, n in counts.items():
        yield f"  {name:<16} {n:>6}"


def _who(samples: tuple[str, ...], file: str | None) -> str:
    rows = samples[0] if samples else ""
    if len(samples) > 1:
        rows += f" and {len(samples) - 1} more"
    return f"{file} ({rows})" if file is not None and rows else file or rows


def _more(n: int) -> Iterator[str]:
    if n > SHOWN_ROWS:
        yield f"  … and {n - SHOWN_ROWS} more (--json lists all)"


# An annotation file


def _run_on_annotations(args: argparse.Namespace) -> int:
    from univg_eval.audit import audit_annotations
    from univg_eval.benchmarks.readers import mig_bench
    from univg_eval.cli._annotations import resolve_revision

    if args.root is not None or args.quick:
        raise UserError(
            "--root and --quick are for a prepared benchmark; --annotations examines a release's "
            "file, whose images are given with --images"
        )
    revision = mig_bench.get_revision(resolve_revision(args.benchmark, args.revision))
    samples, faults = mig_bench.read_rows(
        args.annotations, revision=revision.name, scale=args.scale
    )
    folder = None if args.images is None else images_folder(args.images)
    images = None if folder is None else mig_bench.audit_images(samples, folder)
    report = audit_annotations(samples, faults, images)
    told = _annotations_report(args.annotations, revision, report, images)
    try:
        if args.html is not None:
            page = _write_page(args, report, samples, folder)
    finally:  # whatever becomes of the page
        print(json.dumps(told, indent=2) if args.json else _as_text(_lines(told)))
    if args.html is not None and not args.json:
        print(f"\nPage: {page}")
    return EXIT_FOUND if report.found else 0


def _annotations_report(
    path: Path,
    revision: mig_bench.Revision,
    report: AuditReport,
    images: mig_bench.ImageAudit | None,
) -> dict[str, Any]:
    """The report as JSON values; what is wrong with images stands apart from the findings."""
    from univg_eval.benchmarks.readers.common.annotation_files import file_sha256
    from univg_eval.benchmarks.readers.mig_bench import TASKS

    sha256 = file_sha256(path)
    about_images = ("missing_image", "unreadable_image", "unequal_pair")
    told: dict[str, Any] = {
        "benchmark": revision.benchmark,
        "file": path.name,
        "revision": revision.name,
        "sha256": sha256,
        "is_released_file": None if revision.sha256 is None else sha256 == revision.sha256,
        "fingerprint": report.fingerprint,
        "n": report.n,
        "n_images": report.n_images,
        "n_clusters": report.n_clusters,
        "tasks": {task: report.tasks[task] for task in TASKS if report.tasks.get(task)},
        "findings": [
            finding.to_dict() for finding in report.findings if finding.kind not in about_images
        ],
        "target_checks": {name: dict(check) for name, check in report.target_checks.items()},
    }
    if images is not None:
        told["images"] = {
            "found": len(images.sizes),
            "missing": list(images.missing),
            "unreadable": list(images.unreadable),
            "unequal_pairs": list(images.unequal),
        }
    return told


def images_folder(folder: Path) -> Path:
    """The folder of the release's images in `folder`; UserError if there is none."""
    from univg_eval.benchmarks.readers import mig_bench

    found = mig_bench.find_images_folder(folder)
    if found is None:
        raise UserError(
            f"no images of MIG-Bench in {folder}; expected its folders (common, static_diff, "
            "object_tracking, …) there, or in images/ or MIG-Bench/images/ below it"
        )
    return found


def _lines(report: dict[str, Any]) -> list[str]:
    known = {
        True: "the released file",
        False: "NOT the released file, whose SHA-256 differs",
        None: "no SHA-256 of the released file is known",
    }
    lines = [
        f"{report['file']}: MIG-Bench, revision {report['revision']}, benchmark "
        f"{report['benchmark']}",
        f"  SHA-256 {report['sha256']} ({known[report['is_released_file']]})",
        f"  fingerprint {report['fingerprint']}",
        f"  {report['n']} rows on {report['n_images']} image files, in {report['n_clusters']} "
        "clusters of rows that share images",
        "",
        "Rows per task",
    ]
    lines += [f"  {task:<16} {n:>5}" for task, n in report["tasks"].items()]
    lines += ["", *_check_lines(report["n"], report["target_checks"])]
    for finding in report["findings"]:
        lines += ["", f"{finding['kind']}: {finding['n']} rows; {finding['meaning']}"]
        lines += [f"  {row['id']}  {row['detail']}" for row in finding["rows"][:SHOWN_ROWS]]
        lines += _more(finding["n"])
    if not report["findings"]:
        lines += ["", "Nothing found."]
    if "images" in report:
        lines += ["", *_image_lines(report["images"])]
    return lines


def _check_lines(n: int, checks: Any) -> Iterator[str]:
    yield "Target image: rows on which something beside the question confirms it"
    for name, check in checks.items():
        yield f"  {check['confirmed']:>5} of {check['rows']:>5}  {name}"
    checked = sum(check["rows"] for check in checks.values())
    yield f"  {n - checked:>5} rows offer nothing but the question's own words"


def _image_lines(images: dict[str, Any]) -> list[str]:
    lines = [f"Images: {images['found']} files open"]
    for key, words in (
        ("missing", "files are missing"),
        ("unreadable", "files are not images"),
        ("unequal_pairs", "diff rows have images of two sizes"),
    ):
        names = images[key]
        if names:
            lines.append(f"  {len(names)} {words}: {', '.join(names[:3])}")
            if len(names) > 3:
                lines[-1] += ", … (--json lists all)"
    return lines


# The page


def _write_page(
    args: argparse.Namespace,
    report: AuditReport,
    samples: list[GroundingSample],
    folder: Path | None,
) -> Path:
    """Write the page and say where it is.

    It is written before anything is printed: a reader such as ``head`` that closes the output
    early does not cost the page. `folder` holds the images: the data root, or a release's images
    folder.
    """
    from datetime import UTC, datetime
    from importlib.metadata import version

    from univg_eval.report import write_page
    from univg_eval.report.audit_page import audit_page

    def locate(reference: str) -> Path | None:
        if folder is None:
            return None
        if args.annotations is not None:
            reference = reference.split("/images/", 1)[1]
        return folder / reference

    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    footer = f"univg audit {args.benchmark}, univg {version('univg')}, {made}"
    return write_page(audit_page(report, samples, locate, footer=footer), args.html)
