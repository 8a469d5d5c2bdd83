"""``univg prepare``: from a release's files to a benchmark in the data root."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_eval.progress import Progress, progress_bars, step
from univg_eval.terminal import fitted, terminal_width

if TYPE_CHECKING:
    from univg_eval.benchmarks.preparing.locating import Located
    from univg_eval.benchmarks.readers.common.entry import CatalogEntry
    from univg_eval.samples import GroundingSample

HELP = "make a benchmark ready: samples, manifest and images in the data root"
DESCRIPTION = """\
Make a benchmark ready for evaluation in the data root (--root, else $UNIVG_DATA, else
~/.cache/univg): one folder with the samples, a manifest (source, counts, fingerprint, audit) and
links to the images, which stay where they are. `univg prepare --list` shows every benchmark, what
is prepared already, and where the files of the others are found.

A run that was interrupted is taken up by the next one. A benchmark appears only when it is whole;
an older one stays usable until then. Faulty items (a missing image, a mask that cannot be decoded)
are counted and named, and nothing is prepared, unless --skip-faulty leaves them out; the benchmark
is then marked as not complete. Archives (.zip, .tar, .tar.gz, .tgz) given as --source or --images
are unpacked into the data root. See docs/prepare.md.
"""
EPILOG = """\
Examples:
  univg prepare --list
  univg prepare mini
  univg prepare mig_bench --source ~/downloads/MIG-Bench
  univg prepare mig_bench --download
  univg prepare mig_bench --source MIG_data.json --stand-in-images
  univg prepare lisa --source ~/UniVG-R1-data --images ~/ReasonSeg --split val
  univg prepare revos_full --source ~/ReVOS --sampling even:5
  univg prepare custom --source my.jsonl --name signs
"""
# Options that every release takes; those of some readers only are in their catalogue entries.
RELEASE_OPTIONS = ("source", "images", "split", "skip_faulty", "download", "hub_revision")
FOLDER_OPTIONS = ("coco", "ego_objects")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    from univg_eval.cli._annotations import add_revision_arguments

    parser = subparsers.add_parser(
        "prepare",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("benchmark", nargs="?", help="a name that --list shows")
    parser.add_argument("--list", action="store_true", help="show all benchmarks, and stop")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the data root")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    option = parser.add_argument_group("releases").add_argument
    option(
        "--source",
        type=Path,
        metavar="PATH",
        help="the annotation file, or the folder that holds it as the release unpacks, or an "
        "archive of that folder",
    )
    option(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder or archive of the images, if they are not beside the annotations",
    )
    option(
        "--stand-in-images",
        action="store_const",
        const=True,
        help="for a trial without the images: draw some that stand in for them (MIG-Bench alone). "
        "What is evaluated on them is marked, and no result",
    )
    option(
        "--split", action="append", metavar="NAME", help="prepare this split only; can be repeated"
    )
    option(
        "--skip-faulty",
        action="store_const",
        const=True,
        help="leave faulty items out, list them in the manifest and mark it as not complete",
    )
    option(
        "--download",
        action="store_const",
        const=True,
        help="fetch what is on the Hugging Face Hub, instead of --source",
    )
    option("--hub-revision", metavar="REV", help="branch, tag or commit; default: a pinned commit")
    add_revision_arguments(parser)
    option = parser.add_argument_group("llmseg_full").add_argument
    option("--coco", type=Path, metavar="DIR", help="folder of COCO's train2017 images")
    option("--ego-objects", type=Path, metavar="DIR", help="folder of EgoObjects' images")
    option = parser.add_argument_group("revos_full, reasonvos_full").add_argument
    option(
        "--sampling", metavar="RULE", help="frames that are shown: even:N (default even:5) or all"
    )
    option = parser.add_argument_group("refcoco, refcoco_plus, refcocog").add_argument
    option("--form", help="form of the files, see docs/refcoco.md")
    option = parser.add_argument_group("custom").add_argument
    option(
        "--name",
        help="a name for the set, so that several stand beside each other: benchmark custom_NAME, "
        "task univg_custom:NAME",
    )
    option = parser.add_argument_group("mini, mini_plus, photos").add_argument
    option("--n", type=int, help="samples a task (default: as the prepared set has)")
    option("--seed", type=int, help="seed of the generator (default: as the prepared set has)")
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
    print(json.dumps(report, indent=2) if args.json else "\n".join(_fitted(_lines(report))))
    return 0


def _entry(args: argparse.Namespace) -> CatalogEntry:
    from univg_eval.benchmarks.preparing.catalog import get_entry
    from univg_eval.benchmarks.readers.custom import BENCHMARK, entry_of_set
    from univg_eval.cli._annotations import resolve_revision

    entry = get_entry(args.benchmark)
    if entry.benchmark == BENCHMARK and args.name is not None:
        entry = entry_of_set(args.name)
        args.name = None  # it has done its work
    if "revision" in entry.fixed:
        entry = get_entry(resolve_revision(entry.benchmark, args.revision).benchmark)
        args.revision = None  # it has done its work
    return entry


def _refuse_foreign_options(args: argparse.Namespace, entry: CatalogEntry) -> None:
    from univg_eval.benchmarks.preparing.catalog import CATALOG

    allowed = {*entry.options, *(() if entry.is_generated else RELEASE_OPTIONS)}
    allowed |= {"stand_in_images"} if entry.image_names else set()
    every = {option for other in CATALOG.values() for option in other.options}
    for name in (*RELEASE_OPTIONS, "stand_in_images", "revision", "name", *sorted(every)):
        if name not in allowed and getattr(args, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} is not an option of benchmark {args.benchmark!r}; see "
                "`univg prepare --help`"
            )
    if args.stand_in_images and args.images is not None:
        raise UserError("--images and --stand-in-images exclude each other: give one of them")
    if args.hub_revision is not None and not args.download:
        raise UserError("--hub-revision goes with --download")
    for split in args.split or ():
        if split not in entry.splits:
            raise UserError(
                f"benchmark {args.benchmark!r} has no split {split!r}; it has: "
                f"{', '.join(entry.splits)}"
            )


def _prepare(args: argparse.Namespace, entry: CatalogEntry) -> dict[str, Any]:
    """Prepare a release."""
    from univg_eval.benchmarks.preparing.locating import locate, remove_superseded
    from univg_eval.benchmarks.preparing.preparation import prepare_release
    from univg_eval.benchmarks.preparing.stand_ins import FOLDER, with_stand_ins
    from univg_eval.samples import benchmark_dir

    options = {name: getattr(args, name) for name in entry.options}
    options = {name: value for name, value in options.items() if value is not None}
    folders = {name: options.pop(name) for name in FOLDER_OPTIONS if name in options}
    if entry.needs_workspace:
        options["workspace"] = benchmark_dir(entry.benchmark, args.root)
    drawn = benchmark_dir(entry.benchmark, args.root) / FOLDER
    if args.images is not None and args.images.resolve() == drawn.resolve():
        raise UserError(f"--images {args.images} holds stand-ins; give --stand-in-images instead")
    with progress_bars() as progress:
        if args.download:
            _quiet_hub_unless_terminal()
        with _unreadable_paths():
            located = locate(
                entry,
                source=args.source,
                images=drawn if args.stand_in_images else args.images,
                folders=folders,
                root=args.root,
                download=bool(args.download),
                hub_revision=args.hub_revision,
                progress=progress,
            )
        if args.stand_in_images:
            _draw(args, entry, located, options, drawn, progress)
        with _hint_at_archives(located):
            with _unreadable_paths():
                release = entry.open(
                    located.source,
                    images=located.images,
                    splits=args.split,
                    **located.folders,
                    **options,
                )
            prepared = prepare_release(
                with_stand_ins(release) if args.stand_in_images else release,
                root=args.root,
                skip_faulty=bool(args.skip_faulty),
                progress=step(progress, f"preparing {entry.name}"),
                manifest_extra=lambda samples: {**located.provenance, "audit": _audit(samples)},
            )
        remove_superseded(located)
        if not args.stand_in_images:
            shutil.rmtree(drawn, ignore_errors=True)  # of an earlier trial
    return _report(entry, prepared.folder, prepared.manifest) | {
        "resumed": prepared.resumed,
        "replaced": _replaced(prepared.replaced, prepared.manifest, "splits"),
    }


def _draw(
    args: argparse.Namespace,
    entry: CatalogEntry,
    located: Located,
    options: Mapping[str, Any],
    folder: Path,
    progress: Progress,
) -> None:
    """Draw stand-ins of all images that the release names."""
    from univg_eval.benchmarks.preparing.preparation import preparing
    from univg_eval.benchmarks.preparing.stand_ins import draw_images
    from univg_eval.files import writing

    assert entry.image_names is not None
    names = entry.image_names(located.source, **entry.fixed, **options)
    with preparing(entry.benchmark, args.root), writing(folder):
        draw_images(names, folder, step(progress, "drawing stand-in images"))


@contextmanager
def _unreadable_paths() -> Iterator[None]:
    """Report a file or folder that may not be looked at."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot read {error.filename or 'the release'}: {error.strerror or error}; give "
            "--source and --images files and folders that can be read"
        ) from error


@contextmanager
def _hint_at_archives(located: Located) -> Iterator[None]:
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
        packed: set[str] = set()
        with suppress(OSError):  # the folder is what cannot be read
            packed = {path.name for path in folder.iterdir() if is_archive(path)}
        packed -= {archive["name"] for archive in located.provenance.get("archives", ())}
        if not packed:
            raise
        raise UserError(
            f"{error}\nStill packed in {folder}, and not used: {', '.join(sorted(packed))}. Unpack "
            "what the release needs, or give an archive itself as --source or --images"
        ) from error


def _audit(samples: Sequence[GroundingSample]) -> dict[str, Any]:
    """What comparing the rows shows; the images' sizes are known, the images are not decoded."""
    from univg_eval.audit import audit_samples

    report = audit_samples(samples).to_dict()
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


def _generate(args: argparse.Namespace, entry: CatalogEntry) -> dict[str, Any]:
    """Build a generated benchmark, with the prepared set's settings where none are given."""
    from univg_eval.samples import load_manifest, readable_manifest

    before = readable_manifest(entry.benchmark, args.root)
    earlier = before.get("generator")
    settings = {}
    for option, key in (("n", "n_per_task"), ("seed", "seed"), ("size", "size")):
        value = getattr(args, option, None)
        if value is None and isinstance(earlier, Mapping) and isinstance(earlier.get(key), int):
            value = earlier[key]
        if value is not None:
            settings[option] = value
    with progress_bars() as progress:
        show = step(progress, f"making {entry.name}")
        folder: Path = entry.build(args.root, progress=show, **settings)
    manifest = load_manifest(entry.benchmark, args.root)
    return _report(entry, folder, manifest) | {
        "generator": manifest["generator"],
        "replaced": _replaced(before, manifest, "generator"),
    }


def _replaced(
    before: Mapping[str, Any], manifest: Mapping[str, Any], kept: str
) -> dict[str, Any] | None:
    """What is said of a benchmark that another one has replaced; None where there was none."""
    if not before or before.get("fingerprint") == manifest["fingerprint"]:
        return None
    return {name: before.get(name) for name in ("n", kept, "fingerprint")}


def _report(entry: CatalogEntry, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--json`` prints."""
    splits = manifest.get("splits", {})
    source = manifest.get("source", {})
    findings = manifest.get("audit", {}).get("findings", [])
    return {
        "benchmark": entry.benchmark,
        "folder": str(folder),
        "images": _linked(folder / "images"),
        "stand_in_images": source.get("stand_in_images", False),
        "n": manifest["n"],
        "tasks": manifest["tasks"],
        "splits": splits,
        "fingerprint": manifest["fingerprint"],
        "complete": manifest.get("complete", True),
        "skipped": manifest.get("skipped", []),
        "findings": {finding["kind"]: finding["n"] for finding in findings},
        "fewer_than_stated": list(_shortfalls(source)),
        "is_released_file": _is_released(source),
        "eval_tasks": [
            task for task, split in entry.tasks.items() if split is None or split in splits
        ],
        "comparable_with_published": entry.comparable_with_published,
        "published": entry.published,
        "licence": entry.licence,
    }


def _linked(place: Path) -> str | None:
    """The folder that the images stay in; None where they lie in the benchmark's own."""
    if not place.is_symlink() or place.resolve().is_relative_to(place.parent.resolve()):
        return None
    return str(place.resolve())


def _is_released(source: Mapping[str, Any]) -> bool | None:
    """Whether the annotation files are those whose SHA-256 is known; None where none is."""
    known = [file["as_published"] for file in source.get("files", ()) if "as_published" in file]
    return all(known) if known else source.get("is_released_file")


def _shortfalls(source: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The splits that hold less than their authors state, where a reader knows what they state.

    Half of an archive that was unpacked, or of a file of lines, is like a smaller set.
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
    if report["stand_in_images"]:
        yield "  images: STAND-INS, drawn here; what is evaluated on them is marked, and no result"
    if report["images"]:
        yield f"  images: not copied, they stay in {report['images']}"
    if "generator" in report:
        yield f"  made with {_made_with(report['generator'])}"
    if report["skipped"]:
        yield (
            f"  NOT COMPLETE: {len(report['skipped'])} faulty items were left out; manifest.json "
            "lists them"
        )
    if report["findings"]:
        yield (
            f"  audit: {_counts(report['findings'])} (`univg audit {report['benchmark']}` lists "
            "them, and opens every image)"
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
    if replaced := report["replaced"]:
        what = ""
        if replaced.get("generator"):
            what = f" ({_made_with(replaced['generator'])})"
        elif replaced.get("splits"):
            what = f" ({_counts(replaced['splits'])})"
        yield (
            f"it replaced another set of {replaced['n']} samples{what}, fingerprint "
            f"{replaced['fingerprint']}"
            + ("; --name keeps sets apart" if report["benchmark"] == "custom" else "")
        )
    if not report["comparable_with_published"]:
        yield f"not comparable with a published table: {report['published']}"
    yield f"next: univg eval --tasks {','.join(report['eval_tasks'])} --model … --model_args …"


def _made_with(generator: Mapping[str, Any]) -> str:
    return f"--n {generator.get('n_per_task')} --seed {generator.get('seed')}"


def _counts(counts: Mapping[str, int]) -> str:
    # No line is broken between a name and its number.
    return ", ".join(f"{name}\N{NO-BREAK SPACE}{n}" for name, n in counts.items())


def _list(args: argparse.Namespace) -> int:
    from univg_eval.benchmarks.preparing.catalog import CATALOG, named_sets
    from univg_eval.samples import data_root, readable_manifest

    if args.benchmark is not None:
        raise UserError("--list shows all benchmarks; leave the name out")
    rows = []
    for entry in (*CATALOG.values(), *named_sets(args.root)):
        manifest = readable_manifest(entry.benchmark, args.root)
        kept = ("n", "splits", "complete", "fingerprint")
        stand_ins = manifest.get("source", {}).get("stand_in_images", False)
        rows.append(
            {
                "name": entry.name,
                "title": entry.title,
                "splits": list(entry.splits),
                "prepared": {name: manifest.get(name) for name in kept}
                | {"stand_in_images": stand_ins}
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
            print("\n".join(_fitted(_list_lines(row))))
    return 0


def _fitted(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from fitted(line, terminal_width())


def _list_lines(row: Mapping[str, Any]) -> Iterator[str]:
    prepared = row["prepared"]
    state = "not prepared"
    if prepared is not None:
        # An older manifest does not say whether anything was left out.
        whole = "" if prepared["complete"] is not False else ", NOT COMPLETE"
        state = f"{prepared['n']} samples{whole}"
        state += ", STAND-IN IMAGES" if prepared["stand_in_images"] else ""
    yield f"{row['name']:<18} {state:<26} splits: {', '.join(row['splits'])}"
    yield f"    {row['title']}"
    if not row["comparable_with_published"] and row["by_hand"]:
        yield "    not comparable with a published table"
    if prepared is not None:
        yield f"    tasks: {', '.join(row['tasks'])}"
        return
    if row["hub"]:
        yield f"    --download{'' if row['images_on_hub'] else ' (annotations only)'}"
    for part in row["by_hand"]:
        yield f"    by hand: {part['what']}"
        yield f"             {part['url']}"
