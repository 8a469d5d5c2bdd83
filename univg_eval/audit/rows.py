"""The rows of a benchmark, each by itself and compared with each other."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from univg_eval.audit.findings import NEAR_DUPLICATE_IOU, Case
from univg_eval.boxes import Box, box_iou, box_text, is_valid_box
from univg_eval.samples import GroundingSample, has_stand_ins

__all__ = ["NEAR_DUPLICATE_TEXT", "compare_rows", "count_notes"]

NEAR_DUPLICATE_TEXT = 0.9
# Comparing words is slow: of rows about nearly one box, this many earlier ones are compared.
_COMPARED_TEXTS = 100


def compare_rows(
    samples: Sequence[GroundingSample], *, by_target_image: bool = False
) -> Iterator[Case]:
    """What is wrong with boxes, masks and lists of images, and rows that resemble an earlier one.

    Args:
        samples: of one benchmark.
        by_target_image: near-duplicates are rows about one target image, whatever the words and
            the other images.
    """
    earlier: dict[tuple[Any, ...], str] = {}
    distinct = []
    for sample in samples:
        yield from _own_faults(sample)
        first = earlier.setdefault(_identity(sample), sample.id)
        if first == sample.id:
            distinct.append(sample)
        else:
            yield Case("duplicate", f"{sample.task}: equals {first}", (sample.id,), other=first)
    place = {sample.id: number for number, sample in enumerate(samples)}
    yield from sorted(
        _near_duplicates(distinct, by_target_image), key=lambda c: place[c.samples[0]]
    )


def _own_faults(sample: GroundingSample) -> Iterator[Case]:
    def case(kind: str, detail: str, file: str | None = None) -> Case:
        return Case(kind, f"{sample.task}: {detail}", (sample.id,), file)

    for number, target in enumerate(sample.targets, start=1):
        if not is_valid_box(target.box):
            on = f"target {number} on image {target.image + 1}"
            yield case("invalid_box", f"{on} is {box_text(target.box, 6)}")
        if target.mask is not None and sample.image_sizes is not None:
            width, height = sample.image_sizes[target.image]
            if target.mask.get("size") != [height, width]:
                yield case(
                    "size_mismatch",
                    f"mask of height and width {target.mask.get('size')}, image recorded as "
                    f"{width}x{height}",
                    sample.images[target.image],
                )
    doubled = [
        f"{box_text(box, 6)} is on image {image + 1} {n} times"
        for (image, box), n in Counter(_rounded_targets(sample)).items()
        if n > 1
    ]
    if doubled:
        yield case("doubled_box", ", ".join(doubled))
    if not _is_from_video(sample) and (places := _repeated(sample)):
        yield case("repeated_image", places)
    positive = sample.extra.get("positive_sample")
    if isinstance(positive, bool) and positive != bool(sample.targets):
        n = len(sample.targets)
        yield case("contradicting_label", f"positive_sample is {positive}, but boxes: {n}")
    if not sample.targets and sample.extra.get("absent") == "not_visible":
        yield case("no_visible_object", "no target in the requested image")


def _identity(sample: GroundingSample) -> tuple[Any, ...]:
    """Equal for rows that ask the same of the same images; the order of targets does not count."""
    targets = tuple(sorted(_rounded_targets(sample)))
    return (_task(sample), sample.images, sample.instruction, targets)


def _task(sample: GroundingSample) -> str:
    """The task, one for all splits of a set: a row of two splits is a duplicate."""
    return sample.task.removesuffix(f"_{sample.split}")


def _rounded_targets(sample: GroundingSample) -> list[tuple[int, tuple[float, ...]]]:
    return [(t.image, tuple(round(value, 6) for value in t.box)) for t in sample.targets]


def _near_duplicates(samples: Sequence[GroundingSample], by_target_image: bool) -> Iterator[Case]:
    groups: dict[tuple[Any, ...], list[GroundingSample]] = {}
    for sample in samples:
        shown_on = tuple(sorted(target.image for target in sample.targets))
        if by_target_image:
            key: tuple[Any, ...] = tuple(sample.images[image] for image in shown_on)
        else:
            key = (sample.images, shown_on)
        if shown_on:
            groups.setdefault((_task(sample), key), []).append(sample)
    for group in groups.values():
        boxes = np.array([_ordered_boxes(sample) for sample in group])
        texts = [_plain_words(sample) for sample in group]
        for later in range(1, len(group)):
            ious = box_iou(boxes[:later], boxes[later]).min(axis=1)
            near = np.flatnonzero(ious >= NEAR_DUPLICATE_IOU)[:_COMPARED_TEXTS]
            for earlier in near.tolist():
                alike = 1.0 if by_target_image else _alikeness(texts[earlier], texts[later])
                if alike >= NEAR_DUPLICATE_TEXT:
                    sample, other = group[later], group[earlier]
                    detail = f"{sample.task}: IoU {ious[earlier]:.3f} with {other.id}"
                    if not by_target_image:
                        detail += f", {math.floor(alike * 100)} % of the words alike"
                    yield Case("near_duplicate", detail, (sample.id,), other=other.id)
                    break


def _ordered_boxes(sample: GroundingSample) -> list[Box]:
    return [box for _, box in sorted((target.image, target.box) for target in sample.targets)]


def _plain_words(sample: GroundingSample) -> list[str]:
    """The words of the expression (else of the instruction), without case."""
    expression = sample.extra.get("expression")
    text = expression if isinstance(expression, str) else sample.instruction
    return re.findall(r"\w+", text.casefold())


def _alikeness(a: list[str], b: list[str]) -> float:
    """Twice the number of words in common, in their order, over all words; 0 where small."""
    if a == b:
        return 1.0
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    if min(matcher.real_quick_ratio(), matcher.quick_ratio()) < NEAR_DUPLICATE_TEXT:
        return 0.0
    return matcher.ratio()


def _is_from_video(sample: GroundingSample) -> bool:
    return "video" in sample.extra


def _repeated(sample: GroundingSample) -> str:
    """Which images a row lists more than once, in words; empty if none."""
    return ", ".join(
        f"{PurePosixPath(name).name} is image "
        + " and ".join(str(i) for i, image in enumerate(sample.images, start=1) if image == name)
        for name, n in Counter(sample.images).items()
        if n > 1
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
        counts["tied_frames"] += bool(extra.get("tied_frames"))
        counts["repeated_frames"] += _is_from_video(sample) and bool(_repeated(sample))
        counts["stand_ins"] += has_stand_ins([sample])
        counts["unknown_size"] += sample.image_sizes is None
    return counts


def _above_one(value: object) -> bool:
    return isinstance(value, int) and value > 1
