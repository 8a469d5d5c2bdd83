"""``univg audit``: what a release's annotation file holds, and what is wrong with it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from univg_eval.cli import EXIT_FOUND
from univg_eval.errors import UserError

HELP = "report faults of a benchmark's annotation file"
DESCRIPTION = """\
Report what the annotation file of a benchmark holds and what is wrong with it: boxes that are not
boxes, doubled rows, files listed twice, and whether the image that each answer lies on, which the
file does not tell in a field of its own, agrees with everything else that it tells. Nothing is
repaired. With --images, every image file is looked for and its header opened.

Exit status: 0 nothing found, 3 something found, 2 the file cannot be read.
"""
EPILOG = "Example: univg audit mig_bench --annotations MIG_data.json --images MIG-Bench/images"
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
    parser.add_argument("benchmark", help="mig_bench or mig_bench_revised")
    parser.add_argument(
        "--annotations", type=Path, required=True, metavar="FILE", help="the release's file"
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images: MIG-Bench/images, or a folder that holds it",
    )
    add_revision_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Audit, print, and say by the exit status whether something was found."""
    from univg_eval.benchmarks import mig_bench
    from univg_eval.cli import _annotations
    from univg_eval.samples import fingerprint

    revision, samples = _annotations.read(
        args.benchmark, args.annotations, args.revision, args.scale
    )
    images: mig_bench.ImageAudit | None = None
    if args.images is not None:
        images = mig_bench.audit_images(samples, images_folder(args.images))
    sha256 = mig_bench.file_sha256(args.annotations)
    report: dict[str, Any] = {
        "benchmark": revision.benchmark,
        "file": args.annotations.name,
        "revision": revision.name,
        "sha256": sha256,
        "is_released_file": None if revision.sha256 is None else sha256 == revision.sha256,
        "fingerprint": fingerprint(samples),
        **mig_bench.audit_mig_bench(samples).to_dict(),
    }
    if images is not None:
        report["images"] = {
            "found": len(images.sizes),
            "missing": list(images.missing),
            "unreadable": list(images.unreadable),
            "unequal_pairs": list(images.unequal),
        }
    print(json.dumps(report, indent=2) if args.json else "\n".join(_lines(report)))
    image_faults = images is not None and (images.missing or images.unreadable or images.unequal)
    return EXIT_FOUND if report["findings"] or image_faults else 0


def images_folder(folder: Path) -> Path:
    """The folder of the release's images in `folder`; UserError if there is none."""
    from univg_eval.benchmarks import mig_bench

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
    lines += ["", "Target image: rows on which something beside the question confirms it"]
    checked = 0
    for name, check in report["target_checks"].items():
        checked += check["rows"]
        lines.append(f"  {check['confirmed']:>5} of {check['rows']:>5}  {name}")
    lines.append(f"  {report['n'] - checked:>5} rows offer nothing but the question's own words")
    for finding in report["findings"]:
        lines += ["", f"{finding['kind']}: {finding['n']} rows; {finding['meaning']}"]
        lines += [f"  {row['id']}  {row['detail']}" for row in finding["rows"][:SHOWN_ROWS]]
        if finding["n"] > SHOWN_ROWS:
            lines.append(f"  … and {finding['n'] - SHOWN_ROWS} more (--json lists all)")
    if not report["findings"]:
        lines += ["", "Nothing found."]
    if "images" in report:
        lines += ["", *_image_lines(report["images"])]
    return lines


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
