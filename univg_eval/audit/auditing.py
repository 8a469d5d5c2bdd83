"""From a prepared benchmark, its rows alone, or an annotation file of MIG-Bench to a report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from univg_eval.audit.files import Progress, open_files
from univg_eval.audit.findings import KINDS, NOTES, AuditReport, Case, Finding
from univg_eval.audit.mig_bench import check_mig_bench
from univg_eval.audit.reviewed_labels import compare_with_review
from univg_eval.audit.rows import compare_rows, count_notes
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.mig_bench import REVISIONS, TASKS, image_file
from univg_eval.errors import UserError
from univg_eval.samples import (
    MANIFEST_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    fingerprint,
    load_manifest,
    load_samples,
    samples_file,
)

__all__ = ["audit_annotations", "audit_benchmark", "audit_samples"]

_MIG_BENCH = frozenset(revision.benchmark for revision in REVISIONS.values())
_ORDER = {task: place for place, task in enumerate(TASKS)}  # of the published table
_Sizes = Mapping[str, tuple[int, int]]


def audit_benchmark(
    benchmark: str,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    open_images: bool = True,
    reviewed: Path | None = None,
) -> AuditReport:
    """Audit a prepared benchmark.

    Args:
        benchmark: its name.
        root: the data root; default as in `samples.data_root`.
        progress: called with (files opened, files in all).
        open_images: decode every image and every requested frame to its end; otherwise only the
            headers of image files are read, and of videos only their presence is known.
        reviewed: RefCOCO's reviewed labels, see `reviewed_labels.compare_with_review`.

    Raises:
        UserError: the benchmark is not prepared, a row breaks the schema, or frames of videos have
            to be read and the packages for it are not installed; or see `reviewed`.
    """
    manifest = load_manifest(benchmark, root)
    samples = load_samples(benchmark, root=root, changed=True)
    cases = [
        Case("changed_samples", f"{name} of the samples {is_}, of the manifest {manifest.get(key)}")
        for name, key, is_ in (
            ("fingerprint", "fingerprint", fingerprint(samples)),
            ("number", "n", len(samples)),
        )
        if manifest.get(key) != is_
    ]
    if not cases:  # a path, a size or a column, which no fingerprint covers
        try:
            samples_file(benchmark, root)
        except UserError as error:
            cases.append(Case("changed_samples", str(error)))
    left_out = _left_out(manifest, benchmark_dir(benchmark, root))
    wrong, n_unknown = ([], 0) if reviewed is None else compare_with_review(samples, reviewed)
    base = data_root(root)
    of_files, sizes = open_files(samples, base.joinpath, decode=open_images, progress=progress)
    source = manifest.get("source")
    return _report(
        benchmark,
        samples,
        [*cases, *left_out, *of_files, *wrong],
        sizes,
        images_read="decoded" if open_images else "headers",
        more_notes={"left_out": len(left_out), "not_reviewed": n_unknown},
        source=source if isinstance(source, Mapping) else {},
    )


def audit_annotations(
    samples: Sequence[GroundingSample],
    faults: Mapping[str, ItemError],
    images: Path | None = None,
    *,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit an annotation file of MIG-Bench before it is prepared.

    Args:
        samples: the sound rows, from `mig_bench.read_rows`; at least one.
        faults: the faults of the other rows, by their ids.
        images: the release's folder of images, whose headers are read; None: they are not opened.
        progress: called with (files opened, files in all).
    """
    cases = [Case(fault.kind, str(fault), (name,)) for name, fault in faults.items()]
    sizes: _Sizes = {}
    if images is not None:
        folder = images
        of_files, sizes = open_files(
            samples, lambda name: image_file(name, folder), decode=False, progress=progress
        )
        cases += of_files
    read = "not opened" if images is None else "headers"
    report = _report(samples[0].benchmark, samples, cases, sizes, images_read=read)
    return replace(report, notes={})  # there is nothing but the sizes, which no such file records


def audit_samples(samples: Sequence[GroundingSample]) -> AuditReport:
    """Compare the rows of a benchmark, whose recorded sizes were just read from its images."""
    sizes = {
        image: size
        for sample in samples
        for image, size in zip(sample.images, sample.image_sizes or (), strict=False)
    }
    return _report(samples[0].benchmark, samples, [], sizes, images_read="headers")


def _report(
    benchmark: str,
    samples: Sequence[GroundingSample],
    cases: Iterable[Case],
    sizes: _Sizes,
    *,
    images_read: str,
    more_notes: Mapping[str, int] | None = None,
    source: Mapping[str, Any] | None = None,
) -> AuditReport:
    """Compare the rows, and put everything together."""
    is_mig = benchmark in _MIG_BENCH
    cases = [*cases, *compare_rows(samples, by_target_image=is_mig)]
    tasks: Mapping[str, int] = Counter(sample.task for sample in samples)
    checks: Mapping[str, Mapping[str, int]] = {}
    if is_mig:
        more, checks = check_mig_bench(samples, sizes)
        cases += more
        tasks = dict(sorted(tasks.items(), key=lambda item: _ORDER.get(item[0], len(TASKS))))
    by_kind: dict[str, list[Case]] = {kind: [] for kind in KINDS}
    for case in cases:
        by_kind[case.kind].append(case)
    notes = {**count_notes(samples), **(more_notes or {})}
    return AuditReport(
        benchmark=benchmark,
        n=len(samples),
        n_clusters=len({sample.cluster for sample in samples}),
        n_images=len({image for sample in samples for image in sample.images}),
        n_opened=len(sizes),
        images_read=images_read,
        tasks=tasks,
        splits=Counter(sample.split for sample in samples),
        fingerprint=fingerprint(samples),
        findings=tuple(Finding(kind, tuple(found)) for kind, found in by_kind.items() if found),
        notes={name: notes[name] for name in NOTES if notes.get(name)},
        target_checks=checks,
        source=source or {},
    )


def _left_out(manifest: Mapping[str, Any], folder: Path) -> list[Case]:
    """The faulty items that the manifest says were left out."""
    try:
        return [
            Case(
                item["kind"] if item["kind"] in KINDS else "invalid_row",
                f"left out when prepared: {item['message']}",
                (str(item["item"]),),
            )
            for item in manifest.get("skipped", [])
        ]
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{folder / MANIFEST_FILE}: field 'skipped' is not a list of objects with item, kind "
            "and message; prepare the benchmark again"
        ) from error
