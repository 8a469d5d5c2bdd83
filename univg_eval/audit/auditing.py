"""From a prepared benchmark, or an annotation file of MIG-Bench, to a report."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from univg_eval.audit.files import Progress, ids_of, look_at_files, users_of
from univg_eval.audit.kinds import KINDS, NOTES, AuditReport, Finding, Found, Offence
from univg_eval.audit.rows import compare_masks, compare_mig_bench, compare_rows, count_notes
from univg_eval.benchmarks.readers import mig_bench
from univg_eval.errors import UserError
from univg_eval.samples import (
    MANIFEST_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    fingerprint,
    load_manifest,
    load_samples,
)

__all__ = ["audit_annotations", "audit_benchmark"]


def audit_benchmark(
    benchmark: str,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    open_images: bool = True,
) -> AuditReport:
    """Examine a prepared benchmark.

    Args:
        benchmark: its name.
        root: the data root; default as in `samples.data_root`.
        progress: called with (files looked at, files in all).
        open_images: decode every image and every asked frame to its end; otherwise only the headers
            of image files are read, and of videos only their presence is known.

    Raises:
        UserError: the benchmark is not prepared, a row breaks the schema, or frames of videos have
            to be read and the packages for it are not installed.
    """
    manifest = load_manifest(benchmark, root)
    samples = load_samples(benchmark, root=root)
    found: Found = defaultdict(list)
    computed = fingerprint(samples)
    if manifest.get("fingerprint") != computed:
        found["changed_samples"].append(
            Offence(
                f"fingerprint of the samples {computed}, of the manifest "
                f"{manifest.get('fingerprint')}"
            )
        )
    if manifest.get("n") != len(samples):
        found["changed_samples"].append(
            Offence(f"{len(samples)} samples, {manifest.get('n')} according to the manifest")
        )
    left_out = _left_out(manifest, benchmark_dir(benchmark, root))
    for kind, offence in left_out:
        found[kind].append(offence)
    sizes = look_at_files(samples, data_root(root), progress, open_images, found)
    source = manifest.get("source")
    return _report(
        benchmark,
        samples,
        sizes,
        found,
        fingerprint=computed,
        images_read="decoded" if open_images else "headers",
        n_left_out=len(left_out),
        source=source if isinstance(source, Mapping) else {},
    )


def audit_annotations(
    samples: Sequence[GroundingSample],
    faults: Sequence[mig_bench.RowFault],
    images: mig_bench.ImageAudit | None = None,
) -> AuditReport:
    """Examine an annotation file of MIG-Bench before it is prepared.

    Args:
        samples: the sound rows, from `mig_bench.read_rows`; at least one.
        faults: the other rows.
        images: from `mig_bench.audit_images`, where the images are at hand.
    """
    found: Found = defaultdict(list)
    for fault in faults:
        found[fault.kind].append(Offence(fault.message, (fault.id,)))
    if images is not None:
        users = users_of(samples)
        for kind, files in (
            ("missing_image", images.missing),
            ("unreadable_image", images.unreadable),
        ):
            for file in files:
                found[kind].append(Offence(f"image {file}", ids_of(users[file]), file))
    return _report(
        samples[0].benchmark,
        samples,
        {} if images is None else images.sizes,
        found,
        fingerprint=fingerprint(samples),
        images_read="not opened" if images is None else "headers",
    )


def _report(
    benchmark: str,
    samples: Sequence[GroundingSample],
    sizes: Mapping[str, tuple[int, int]],
    found: Found,
    *,
    fingerprint: str,
    images_read: str,
    n_left_out: int = 0,
    source: Mapping[str, Any] | None = None,
) -> AuditReport:
    """Compare the rows and put everything together; adds to `found`."""
    checks: Mapping[str, Mapping[str, int]] = {}
    if samples and benchmark in MIG_BENCH:
        checks = compare_mig_bench(samples, sizes, found)
    else:
        compare_rows(samples, found)
    compare_masks(samples, found)
    found["no_visible_object"] += [
        Offence(f"{sample.task}: no target in the asked image", (sample.id,))
        for sample in samples
        if not sample.targets and sample.extra.get("absent") == "not_visible"
    ]
    notes = count_notes(samples) | {"left_out": n_left_out}
    return AuditReport(
        benchmark=benchmark,
        n=len(samples),
        n_clusters=len({sample.cluster for sample in samples}),
        n_images=len({image for sample in samples for image in sample.images}),
        images_read=images_read,
        tasks=Counter(sample.task for sample in samples),
        splits=Counter(sample.split for sample in samples),
        fingerprint=fingerprint,
        findings=tuple(Finding(kind, tuple(found[kind])) for kind in KINDS if found[kind]),
        notes={name: notes[name] for name in NOTES if notes.get(name)},
        target_checks=checks,
        source=source or {},
    )


MIG_BENCH = frozenset(revision.benchmark for revision in mig_bench.REVISIONS.values())


def _left_out(manifest: Mapping[str, Any], folder: Path) -> list[tuple[str, Offence]]:
    """The faulty items that the manifest says were left out: (kind, offence)."""
    items = manifest.get("skipped", [])
    try:
        return [
            (
                item["kind"] if item["kind"] in KINDS else "invalid_row",
                Offence(f"left out when prepared: {item['message']}", (str(item["item"]),)),
            )
            for item in items
        ]
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{folder / MANIFEST_FILE}: field 'skipped' is not a list of objects with item, kind "
            "and message; prepare the benchmark again"
        ) from error
