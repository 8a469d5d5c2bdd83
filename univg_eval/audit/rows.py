"""The rows of a benchmark, each by itself and against each other."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from univg_eval.audit.files import size_text
from univg_eval.audit.kinds import NEAR_DUPLICATE_IOU, Found, Offence
from univg_eval.benchmarks.readers import mig_bench
from univg_eval.boxes import Box, box_iou, is_valid_box
from univg_eval.samples import GroundingSample

__all__ = [
    "NEAR_DUPLICATE_TEXT",
    "compare_masks",
    "compare_mig_bench",
    "compare_rows",
    "count_notes",
]

NEAR_DUPLICATE_TEXT = 0.9


def compare_mig_bench(
    samples: Sequence[GroundingSample], sizes: Mapping[str, tuple[int, int]], found: Found
) -> Mapping[str, Mapping[str, int]]:
    """Add the findings of MIG-Bench's own audit; returns its checks of the target images.

    Args:
        samples: rows of one of its revisions.
        sizes: of the images that could be opened.
        found: takes the findings.
    """
    audit = mig_bench.audit_mig_bench(samples)
    for finding in audit.findings:
        others = finding.others or (None,) * len(finding.rows)
        found[finding.kind] += [
            Offence(detail, (row,), other=other)
            for row, detail, other in zip(finding.rows, finding.details, others, strict=True)
        ]
    for sample in samples:
        pair = [size_text(sizes[image]) for image in sample.images if image in sizes]
        if sample.task == "diff" and len(set(pair)) > 1:
            found["unequal_pair"].append(Offence(f"images of {' and '.join(pair)}", (sample.id,)))
    return audit.target_checks


def compare_rows(samples: Sequence[GroundingSample], found: Found) -> None:
    """Add what is wrong with boxes and lists of images, and rows that resemble an earlier one."""
    found["invalid_box"] += [
        Offence(
            f"{sample.task}: target {position} on image {target.image + 1} is "
            f"{_box_text(target.box)}",
            (sample.id,),
        )
        for sample in samples
        for position, target in enumerate(sample.targets, start=1)
        if not is_valid_box(target.box)
    ]
    found["doubled_box"] += [
        Offence(f"{sample.task}: {', '.join(twice)}", (sample.id,))
        for sample in samples
        if (twice := _doubled_boxes(sample))
    ]
    earlier: dict[tuple[Any, ...], str] = {}
    doubled = set()
    for sample in samples:
        first = earlier.setdefault(_identity(sample), sample.id)
        if first != sample.id:
            doubled.add(sample.id)
            found["duplicate"].append(
                Offence(f"{sample.task}: equals {first}", (sample.id,), other=first)
            )
    # A row that equals an earlier one is told once.
    found["near_duplicate"] += _near_duplicates([s for s in samples if s.id not in doubled])
    found["repeated_image"] += [
        Offence(f"{sample.task}: {places}", (sample.id,))
        for sample in samples
        if not _is_from_film(sample) and (places := _repeated(sample))
    ]


def _identity(sample: GroundingSample) -> tuple[Any, ...]:
    """Equal for rows that ask the same of the same images; the order of targets does not count."""
    targets = tuple(sorted(_rounded_targets(sample)))
    return (sample.task, sample.images, sample.instruction, targets)


def _rounded_targets(sample: GroundingSample) -> tuple[tuple[int, tuple[float, ...]], ...]:
    return tuple((t.image, tuple(round(value, 6) for value in t.box)) for t in sample.targets)


def _doubled_boxes(sample: GroundingSample) -> list[str]:
    counts = Counter(_rounded_targets(sample))
    return [
        f"{_box_text(box)} stands {n} times on image {image + 1}"
        for (image, box), n in counts.items()
        if n > 1
    ]


def _box_text(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"


def _near_duplicates(samples: Sequence[GroundingSample]) -> Iterator[Offence]:
    groups: dict[tuple[Any, ...], list[GroundingSample]] = {}
    for sample in samples:
        if sample.targets:
            shown_on = tuple(sorted(target.image for target in sample.targets))
            key = (sample.task, sample.images, shown_on)
            groups.setdefault(key, []).append(sample)
    for group in groups.values():
        if len(group) < 2:
            continue
        boxes = np.array([_ordered_boxes(sample) for sample in group])
        texts = [_plain_words(sample) for sample in group]
        for later in range(1, len(group)):
            ious = box_iou(boxes[:later], boxes[later]).min(axis=1)
            near = np.flatnonzero(ious >= NEAR_DUPLICATE_IOU)[:_COMPARED_TEXTS]
            for earlier in near.tolist():
                alike = _alikeness(texts[earlier], texts[later])
                if alike >= NEAR_DUPLICATE_TEXT:
                    sample, other = group[later], group[earlier]
                    yield Offence(
                        f"{sample.task}: IoU {ious[earlier]:.3f} with {other.id}, "
                        f"{math.floor(alike * 100)} % of the words alike",
                        (sample.id,),
                        other=other.id,
                    )
                    break


def _ordered_boxes(sample: GroundingSample) -> list[Box]:
    return [box for _, box in sorted((target.image, target.box) for target in sample.targets)]


# Comparing words is slow: of rows about nearly one box, as many earlier ones are compared.
_COMPARED_TEXTS = 100


def _plain_words(sample: GroundingSample) -> list[str]:
    """The words of the expression (of the question where none is recorded), without case."""
    expression = sample.extra.get("expression")
    text = expression if isinstance(expression, str) else sample.instruction
    return re.findall(r"\w+", text.casefold())


def _alikeness(a: list[str], b: list[str]) -> float:
    """Twice the number of words in common, in their order, over all words; exact where large."""
    if a == b:
        return 1.0
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    if matcher.real_quick_ratio() < NEAR_DUPLICATE_TEXT:
        return 0.0
    return matcher.ratio() if matcher.quick_ratio() >= NEAR_DUPLICATE_TEXT else 0.0


def _is_from_film(sample: GroundingSample) -> bool:
    return "video" in sample.extra


def _repeated(sample: GroundingSample) -> str:
    """Which images a row lists more than once, in words; empty if none."""
    counts = Counter(sample.images)
    return ", ".join(
        f"{PurePosixPath(name).name} is image "
        + " and ".join(str(i) for i, image in enumerate(sample.images, start=1) if image == name)
        for name, n in counts.items()
        if n > 1
    )


def compare_masks(samples: Sequence[GroundingSample], found: Found) -> None:
    """Hold the sizes of masks against those of their images."""
    for sample in samples:
        for target in sample.targets:
            if target.mask is None or sample.image_sizes is None:
                continue
            width, height = sample.image_sizes[target.image]
            if target.mask.get("size") != [height, width]:
                found["size_mismatch"].append(
                    Offence(
                        f"mask of height and width {target.mask.get('size')}, image recorded as "
                        f"{width}x{height}",
                        (sample.id,),
                        sample.images[target.image],
                    )
                )


def count_notes(samples: Sequence[GroundingSample]) -> dict[str, int]:
    """Rows under each name of `NOTES`."""
    counts: Counter[str] = Counter()
    for sample in samples:
        extra = sample.extra
        counts["no_object"] += not sample.targets and extra.get("absent") != "not_visible"
        counts["several_targets"] += len(sample.targets) > 1
        counts["several_parts"] += _above_one(extra.get("parts"))
        counts["several_boxes"] += _above_one(extra.get("n_boxes"))
        counts["tied_frames"] += bool(sample.extra.get("tied_frames"))
        counts["repeated_frames"] += _is_from_film(sample) and bool(_repeated(sample))
        counts["unknown_size"] += sample.image_sizes is None
    return counts


def _above_one(value: object) -> bool:
    return isinstance(value, int) and value > 1
