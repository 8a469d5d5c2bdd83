"""``univg prepare``: from a release's files to a benchmark in the data root."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from univg_eval.errors import UserError

HELP = "make a benchmark ready: samples, manifest and images in the data root"
DESCRIPTION = """\
Make a benchmark ready for evaluation in the data root (--root, else $UNIVG_DATA, else
~/.cache/univg): one folder with the samples, a manifest (source, counts, fingerprint, audit) and
the images, or a link to them.

  mini         univg_mini, fifteen small tasks, generated here; needs no files
  mig_bench    MIG-Bench, from the released annotation file and images (--source); with
               --revision revised it becomes mig_bench_revised

The released images stay where they are: the data root gets a link. A set with missing or
unreadable images cannot be evaluated, so it is refused.
"""
EPILOG = """\
Examples:
  univg prepare mini
  univg prepare mig_bench --source ~/downloads/MIG-Bench
"""
MINI_NAMES = ("mini", "univg_mini")
# There are tasks for them already, but no readers of their files.
WITHOUT_READER = tuple(
    name + form for form in ("", "_full") for name in ("lisa", "llmseg", "reasonvos", "revos")
)
SHOWN_NAMES = 3


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
    parser.add_argument("benchmark", help="mini, mig_bench or mig_bench_revised")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the data root")
    group = parser.add_argument_group("mig_bench")
    group.add_argument(
        "--source",
        type=Path,
        metavar="PATH",
        help="the annotation file, or the folder that holds it; the images are looked for beside "
        "it, in MIG-Bench/images or images",
    )
    group.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images, if it is elsewhere"
    )
    add_revision_arguments(parser)
    group = parser.add_argument_group("mini")
    group.add_argument("--n", type=int, help="samples a task (default 40)")
    group.add_argument("--seed", type=int, help="seed of the generator (a public default)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare one benchmark and say where it is."""
    from univg_eval.cli import _annotations

    if args.benchmark in MINI_NAMES:
        _refuse(args, ("source", "images", "revision", "scale"))
        return _prepare_mini(args)
    if args.benchmark in _annotations.NAMES:
        _refuse(args, ("n", "seed"))
        return _prepare_mig_bench(args)
    known = f"univg prepare knows: mini, {', '.join(_annotations.NAMES)}"
    if args.benchmark in WITHOUT_READER:
        raise UserError(
            f"this version has no reader for the files of {args.benchmark!r}; {known}. Samples "
            "that you make yourself go into the data root with "
            "univg_eval.samples.write_benchmark, and its tasks then run"
        )
    raise UserError(f"unknown benchmark {args.benchmark!r}; {known}")


def _refuse(args: argparse.Namespace, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name} is not an option of benchmark {args.benchmark!r}; see "
                "`univg prepare --help`"
            )


def _prepare_mini(args: argparse.Namespace) -> int:
    from univg_eval.benchmarks import mini

    folder = mini.ensure(
        args.root,
        n=mini.DEFAULT_N if args.n is None else args.n,
        seed=mini.DEFAULT_SEED if args.seed is None else args.seed,
    )
    _print_done(mini.BENCHMARK, args.root, folder)
    return 0


def _prepare_mig_bench(args: argparse.Namespace) -> int:
    from univg_eval.benchmarks import mig_bench
    from univg_eval.cli import _annotations
    from univg_eval.cli.audit import images_folder
    from univg_eval.samples import benchmark_dir, write_benchmark

    if args.source is None:
        raise UserError(
            f"benchmark {args.benchmark!r} is made from its release: give --source, the "
            "annotation file or the folder that holds it (docs/mig_bench.md tells where to get it)"
        )
    wanted = mig_bench.get_revision(
        _annotations.resolve_revision(args.benchmark, args.revision)
    ).file_name
    annotations = args.source / wanted if args.source.is_dir() else args.source
    revision, samples = _annotations.read(args.benchmark, annotations, args.revision, args.scale)
    images = images_folder(annotations.parent if args.images is None else args.images).resolve()
    image_audit = mig_bench.audit_images(samples, images)
    _require_images(image_audit.missing, image_audit.unreadable, images)
    folder = benchmark_dir(revision.benchmark, args.root)
    _link_images(folder / "images", images)
    write_benchmark(
        mig_bench.with_sizes(samples, image_audit.sizes),
        benchmark=revision.benchmark,
        root=args.root,
        manifest_extra={
            "source": {
                "file": annotations.name,
                "sha256": mig_bench.file_sha256(annotations),
                "revision": revision.name,
                "scale": args.scale or revision.scale,
            },
            "audit": {
                **mig_bench.audit_mig_bench(samples).to_dict(),
                "unequal_pairs": list(image_audit.unequal),
            },
        },
    )
    _print_done(revision.benchmark, args.root, folder)
    return 0


def _require_images(missing: tuple[str, ...], unreadable: tuple[str, ...], images: Path) -> None:
    faults = [
        f"{len(names)} {words} (first: {', '.join(names[:SHOWN_NAMES])})"
        for names, words in ((missing, "missing"), (unreadable, "not readable as images"))
        if names
    ]
    if faults:
        raise UserError(
            f"the images in {images} are not complete: {'; '.join(faults)}. A set without all its "
            "images cannot be evaluated; unpack the release's images again, or give their folder "
            "with --images"
        )


def _link_images(link: Path, images: Path) -> None:
    """Make `link` point to the folder `images`; a folder that stands there already is kept."""
    if link.exists() and link.resolve() == images:
        return
    if link.exists() and not link.is_symlink():
        raise UserError(
            f"{link} exists and is not a link, but the images are in {images}; move it away, or "
            f"use it with --images {link}"
        )
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(images, target_is_directory=True)
        temporary.replace(link)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot link {link} to {images}: {error.strerror or error}; copy the images to "
            f"{link} yourself and give --images {link}"
        ) from error


def _print_done(benchmark: str, root: Path | None, folder: Path) -> None:
    from univg_eval.samples import load_manifest

    manifest = load_manifest(benchmark, root)
    print(f"{benchmark}: {manifest['n']} samples in {len(manifest['tasks'])} tasks, in {folder}")
    print(f"fingerprint {manifest['fingerprint']}")
