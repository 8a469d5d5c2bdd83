"""``univg prepare``: from a release's files to a benchmark in the data root."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError

if TYPE_CHECKING:
    from univg_eval.benchmarks.preparing.locating import Located
    from univg_eval.benchmarks.preparing.preparation import Prepared
    from univg_eval.benchmarks.readers.common.entry import CatalogEntry
    from univg_eval.samples import GroundingSample

HELP = "make a benchmark ready: samples, manifest and images in the data root"
DESCRIPTION = """\
Make a benchmark ready for evaluation in the data root (--root, else $UNIVG_DATA, else
~/.cache/univg): one folder with the samples, a manifest (source, counts, fingerprint, audit) and
links to the images, which stay where they are. `univg prepare --list` shows every benchmark, what
is prepared already, and where the files of the others are found.

A run that was interrupted is taken up by the next one. A benchmark appears only when it is whole;
the one that stands there stays usable until then. Faulty items (a missing image, a mask that
cannot be decoded) are counted and named, and nothing is prepared, unless --skip-faulty leaves them
out; the benchmark is then marked as not complete. Archives (.zip, .tar, .tar.gz, .tgz) given as
--source or --images are unpacked into the data root. docs/prepare.md tells more.
"""
EPILOG = """\
Examples:
  univg prepare --list
  univg prepare mini
  univg prepare mig_bench --source ~/downloads/MIG-Bench
  univg prepare mig_bench --download
  univg prepare lisa --source ~/UniVG-R1-data --images ~/ReasonSeg --split val
  univg prepare revos_full --source ~/ReVOS --sampling even:5
"""
# Options that every release takes, and those that belong to some readers only.
RELEASE_OPTIONS = ("source", "images", "split", "skip_faulty", "raise_limits")
HUB_OPTIONS = ("download", "hub_revision")
FOLDER_OPTIONS = ("coco", "ego_objects")
SECONDS_A_LINE = 10.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._annotations import add_revision_arguments

    parser = subparsers.add_parser(
        "prepare",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("benchmark", nargs="?", help="a name that --list shows")
    parser.add_argument("--list", action="store_true", help="show all benchmarks, and stop")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the data root")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    group = parser.add_argument_group("releases")
    group.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="the annotation file, or the folder that holds it as the release unpacks, or an "
        "archive of that folder",
    )
    group.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder or archive of the images, if they are not beside the annotations",
    )
    group.add_argument(
        "--split", action="append", metavar="NAME", help="prepare this split only; can be repeated"
    )
    group.add_argument(
        "--skip-faulty",
        action="store_const",
        const=True,
        help="leave faulty items out, list them in the manifest and mark it as not complete",
    )
    group.add_argument(
        "--download",
        action="store_const",
        const=True,
        help="fetch what is on the Hugging Face Hub, instead of --source",
    )
    group.add_argument(
        "--hub-revision", metavar="REV", help="branch, tag or commit; default: a pinned commit"
    )
    group.add_argument(
        "--raise-limits",
        type=float,
        metavar="FACTOR",
        help="multiply the limits on size, number and compression of unpacked archives",
    )
    add_revision_arguments(parser)
    group = parser.add_argument_group("llmseg_full")
    group.add_argument("--coco", type=Path, metavar="DIR", help="folder of COCO's train2017 images")
    group.add_argument(
        "--ego-objects", type=Path, metavar="DIR", help="folder of EgoObjects' images"
    )
    group = parser.add_argument_group("revos_full, reasonvos_full")
    group.add_argument(
        "--sampling", metavar="RULE", help="frames that are shown: even:N (default even:5) or all"
    )
    group = parser.add_argument_group("refcoco, refcoco_plus, refcocog")
    group.add_argument("--form", help="form of the files, see docs/refcoco.md")
    group = parser.add_argument_group("mini, photos")
    group.add_argument("--n", type=int, help="samples a task (default: as the standing set has)")
    group.add_argument(
        "--seed", type=int, help="seed of the generator (default: as the standing set has)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare one benchmark and say where it is, or list them all."""
    if args.list:
        return _list(args)
    if args.benchmark is None:
        raise UserError("name a benchmark; `univg prepare --list` shows them all")
    entry = _entry(args)
    _refuse_foreign_options(args, entry)
    report = _generate(args, entry) if entry.is_generated else _prepare(args, entry)
    print(json.dumps(report, indent=2) if args.json else "\n".join(_lines(report)))
    return 0


def _entry(args: argparse.Namespace) -> CatalogEntry:
    from univg_eval.benchmarks.preparing.catalog import get_entry
    from univg_eval.benchmarks.readers import mig_bench
    from univg_eval.cli._annotations import resolve_revision, revision_names

    if args.benchmark in revision_names():
        revision = resolve_revision(args.benchmark, args.revision)
        args.revision = None  # it has done its work
        return get_entry(mig_bench.benchmark_name(revision))
    return get_entry(args.benchmark)


def _refuse_foreign_options(args: argparse.Namespace, entry: CatalogEntry) -> None:
    from univg_eval.benchmarks.preparing.catalog import CATALOG

    allowed = {*entry.options, *(() if entry.is_generated else RELEASE_OPTIONS + HUB_OPTIONS)}
    every = {option for other in CATALOG.values() for option in other.options}
    for name in (*RELEASE_OPTIONS, *HUB_OPTIONS, "revision", *sorted(every)):
        if name not in allowed and getattr(args, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} is not an option of benchmark {args.benchmark!r}; see "
                "`univg prepare --help`"
            )
    if args.hub_revision is not None and not args.download:
        raise UserError("--hub-revision goes with --download")
    for split in args.split or ():
        if split not in entry.splits:
            raise UserError(
                f"benchmark {args.benchmark!r} has no split {split!r}; it has: "
                f"{', '.join(entry.splits)}"
            )


# Releases


def _prepare(args: argparse.Namespace, entry: CatalogEntry) -> dict[str, Any]:
    from univg_eval.benchmarks.preparing.archives import Limits
    from univg_eval.benchmarks.preparing.locating import locate, remove_superseded
    from univg_eval.benchmarks.preparing.preparation import prepare_release
    from univg_eval.samples import benchmark_dir

    limits = Limits() if args.raise_limits is None else Limits().times(args.raise_limits)
    with _progress() as progress:
        if args.download:
            _quiet_hub_unless_terminal()
        with _unreadable_told():
            located = locate(
                entry,
                source=args.source,
                images=args.images,
                folders={
                    name: getattr(args, name)
                    for name in FOLDER_OPTIONS
                    if getattr(args, name) is not None
                },
                root=args.root,
                download=bool(args.download),
                hub_revision=args.hub_revision,
                limits=limits,
                progress=progress,
            )
        options = {
            name: getattr(args, name)
            for name in entry.options
            if name not in FOLDER_OPTIONS and getattr(args, name) is not None
        }
        if entry.needs_workspace:
            options["workspace"] = benchmark_dir(entry.benchmark, args.root)
        with _unreadable_told(), _packed_files_told(located):
            release = entry.open(
                located.source,
                images=located.images,
                splits=args.split,
                **located.folders,
                **options,
            )
        with _packed_files_told(located):
            prepared = prepare_release(
                release,
                root=args.root,
                skip_faulty=bool(args.skip_faulty),
                progress=lambda done, total: progress(f"preparing {entry.name}", done, total),
                manifest_extra=lambda samples: {**located.provenance, "audit": _audit(samples)},
            )
        remove_superseded(located)
    return _report(entry, prepared.folder, prepared.manifest) | _what_happened(prepared)


@contextmanager
def _unreadable_told() -> Iterator[None]:
    """Make a file or folder that cannot be looked at one message, whoever looked."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or 'the release'}: {error.strerror or error}; give "
            "--source and --images files and folders that can be read"
        ) from error


@contextmanager
def _packed_files_told(located: Located) -> Iterator[None]:
    """Where files are missing, say which archives beside the release were not unpacked."""
    from univg_eval.benchmarks.preparing.archives import is_archive
    from univg_eval.benchmarks.preparing.preparation import FaultyReleaseError

    try:
        yield
    except UserError as error:
        if isinstance(error, FaultyReleaseError) and not any(
            fault.kind == "missing_image" for fault in error.faults
        ):
            raise
        folder = located.source if located.source.is_dir() else located.source.parent
        names = {p.name for p in folder.iterdir() if is_archive(p)} if folder.is_dir() else set()
        packed = names - {archive["name"] for archive in located.provenance.get("archives", ())}
        if not packed:
            raise
        raise UserError(
            f"{error}\nStill packed in {folder}, and not used: {', '.join(sorted(packed))}. Unpack "
            "what the release needs, or give an archive itself as --source or --images"
        ) from error


def _audit(samples: Sequence[GroundingSample]) -> dict[str, Any]:
    """What comparing the rows shows; the images' sizes are known, the images are not decoded."""
    from univg_eval.audit import audit_annotations
    from univg_eval.benchmarks.readers.mig_bench import ImageAudit

    sizes = {
        image: size
        for sample in samples
        for image, size in zip(sample.images, sample.image_sizes or (), strict=False)
    }
    report = audit_annotations(samples, (), ImageAudit(sizes, (), (), ())).to_dict()
    kept = ("n_images", "n_clusters", "images_read", "findings", "notes", "target_checks")
    return {name: report[name] for name in kept}


def _quiet_hub_unless_terminal() -> None:
    if sys.stderr.isatty():
        return
    try:
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        return  # what fetches says what is missing
    disable_progress_bars()


def _what_happened(prepared: Prepared) -> dict[str, Any]:
    replaced = prepared.replaced
    changed = replaced is not None and (
        replaced.get("fingerprint") != prepared.manifest["fingerprint"]
    )
    return {
        "resumed": prepared.resumed,
        "replaced": None
        if replaced is None or not changed
        else {name: replaced.get(name) for name in ("n", "splits", "fingerprint")},
    }


# Generated benchmarks


def _generate(args: argparse.Namespace, entry: CatalogEntry) -> dict[str, Any]:
    """Build it, with the standing set's settings where none are given."""
    from univg_eval.benchmarks.synthetic.generated import readable_manifest
    from univg_eval.samples import load_manifest

    before = readable_manifest(entry.benchmark, args.root)
    standing = before.get("generator")
    settings = {}
    for option, key in (("n", "n_per_task"), ("seed", "seed"), ("size", "size")):
        given = getattr(args, option, None)
        if given is not None:
            settings[option] = given
        elif isinstance(standing, Mapping) and isinstance(standing.get(key), int):
            settings[option] = standing[key]
    folder: Path = entry.build(args.root, **settings)
    manifest = load_manifest(entry.benchmark, args.root)
    changed = before and before.get("fingerprint") != manifest["fingerprint"]
    return _report(entry, folder, manifest) | {
        "generator": manifest["generator"],
        "replaced": {
            "n": before.get("n"),
            "generator": standing,
            "fingerprint": before.get("fingerprint"),
        }
        if changed
        else None,
    }


# Telling


def _report(entry: CatalogEntry, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    splits = manifest.get("splits", {})
    findings = manifest.get("audit", {}).get("findings", [])
    return {
        "benchmark": entry.benchmark,
        "folder": str(folder),
        "n": manifest["n"],
        "tasks": manifest["tasks"],
        "splits": splits,
        "fingerprint": manifest["fingerprint"],
        "complete": manifest.get("complete", True),
        "skipped": manifest.get("skipped", []),
        "findings": {finding["kind"]: finding["n"] for finding in findings},
        "fewer_than_stated": list(_shortfalls(manifest.get("source", {}))),
        "is_released_file": _is_released(manifest.get("source", {})),
        "eval_tasks": [
            task for task, split in entry.tasks.items() if split is None or split in splits
        ],
        "comparable_with_published": entry.comparable_with_published,
        "published": entry.published,
        "licence": entry.licence,
    }


def _is_released(source: Mapping[str, Any]) -> bool | None:
    """Whether the annotation files are those whose SHA-256 is known; None where none is."""
    known = [file["as_published"] for file in source.get("files", ()) if "as_published" in file]
    return all(known) if known else source.get("is_released_file")


def _shortfalls(source: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The splits that hold less than their authors state, where a reader knows what they state.

    Half of an archive that was unpacked, or of a file of lines, looks like a smaller set.
    """
    counts = [
        (file["split"], "images", file["images"], file["published_images"])
        for file in source.get("files", ())
        if "published_images" in file
    ]
    counts += [
        (split, "expressions", number["found"], number["reported"])
        for split, number in source.get("expressions", {}).items()
    ]
    for split, of, found, stated in counts:
        if found < stated:
            yield {"split": split, "of": of, "found": found, "stated": stated}


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    tasks = report["tasks"]
    yield (
        f"{report['benchmark']}: {report['n']} samples in {len(tasks)} "
        f"task{'s' if len(tasks) > 1 else ''}, in {report['folder']}"
    )
    if len(tasks) > 1:
        yield f"  tasks: {_counts(tasks)}"
    if report["splits"]:
        yield f"  splits: {_counts(report['splits'])}"
    if "generator" in report:
        made = report["generator"]
        yield f"  made with --n {made['n_per_task']} --seed {made['seed']}"
    if report["skipped"]:
        yield (
            f"  NOT COMPLETE: {len(report['skipped'])} faulty items were left out; manifest.json "
            "lists them"
        )
    if report["findings"]:
        yield (
            f"  audit: {_counts(report['findings'])} (`univg audit {report['benchmark']}` tells "
            "which, and opens every image)"
        )
    for missing in report["fewer_than_stated"]:
        yield (
            f"  {missing['split']}: {missing['found']} {missing['of']}; its authors state "
            f"{missing['stated']}. If a part of the files is missing, this is not the whole set"
        )
    if report["is_released_file"] is False:
        yield "  the annotation files are NOT the released ones: a SHA-256 differs"
    yield f"fingerprint {report['fingerprint']}"
    if report.get("resumed"):
        yield f"{report['resumed']} items had been converted by an earlier run"
    if report["replaced"]:
        yield _replaced_line(report["replaced"])
    if not report["comparable_with_published"]:
        yield f"not comparable with a published table: {report['published']}"
    yield f"next: univg eval --tasks {','.join(report['eval_tasks'])} --model … --model_args …"


def _replaced_line(replaced: Mapping[str, Any]) -> str:
    of = ""
    if replaced.get("generator"):
        made = replaced["generator"]
        of = f" (--n {made.get('n_per_task')} --seed {made.get('seed')})"
    elif replaced.get("splits"):
        of = f" ({_counts(replaced['splits'])})"
    return (
        f"it replaced another set of {replaced['n']} samples{of}, fingerprint "
        f"{replaced['fingerprint']}"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _list(args: argparse.Namespace) -> int:
    from univg_eval.benchmarks.preparing.catalog import CATALOG
    from univg_eval.benchmarks.synthetic.generated import readable_manifest
    from univg_eval.samples import data_root

    if args.benchmark is not None:
        raise UserError("--list shows all benchmarks; leave the name out")
    rows = []
    for entry in CATALOG.values():
        manifest = readable_manifest(entry.benchmark, args.root)
        rows.append(
            {
                "name": entry.name,
                "title": entry.title,
                "splits": list(entry.splits),
                "prepared": {
                    name: manifest.get(name) for name in ("n", "splits", "complete", "fingerprint")
                }
                if manifest
                else None,
                "tasks": list(entry.tasks),
                "hub": [files.repo for files in entry.hub],
                "images_on_hub": entry.images_on_hub,
                "by_hand": [{"what": part.what, "url": part.url} for part in entry.by_hand],
                "licence": entry.licence,
                "comparable_with_published": entry.comparable_with_published,
                "published": entry.published,
            }
        )
    if args.json:
        print(json.dumps({"root": str(data_root(args.root)), "benchmarks": rows}, indent=2))
    else:
        print(f"data root: {data_root(args.root)}")
        for row in rows:
            print("\n".join(_list_lines(row)))
    return 0


def _list_lines(row: Mapping[str, Any]) -> Iterator[str]:
    prepared = row["prepared"]
    if prepared is None:
        state = "not prepared"
    else:
        # An older manifest does not say whether anything was left out.
        state = f"{prepared['n']} samples" + (
            ", NOT COMPLETE" if prepared["complete"] is False else ""
        )
    yield f"{row['name']:<18} {state:<26} splits: {', '.join(row['splits'])}"
    yield f"    {row['title']}"
    if not row["comparable_with_published"] and row["by_hand"]:
        yield "    not comparable with a published table"
    if prepared is not None:
        yield f"    tasks: {', '.join(row['tasks'])}"
        return
    if row["hub"]:
        what = "" if row["images_on_hub"] else " (annotations only)"
        yield f"    --download{what}"
    for part in row["by_hand"]:
        yield f"    by hand: {part['what']}"
        yield f"             {part['url']}"


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """What is being done: bars on standard error if it is a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _line_printer()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining())
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    shown: dict[str, TaskID] = {}

    def show(title: str, done: int, total: int) -> None:
        bars.start()  # not before: the Hub's library draws bars of its own
        if title not in shown:
            shown[title] = bars.add_task(title, total=total)
        bars.update(shown[title], completed=done)

    try:
        yield show
    finally:
        bars.stop()


def _line_printer() -> Callable[[str, int, int], None]:
    import time

    told = time.monotonic()

    def show(title: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= SECONDS_A_LINE and total:
            told = now
            print(f"{title}: {100 * done / total:.0f} %", file=sys.stderr, flush=True)

    return show
