"""The conditions of the classes, in the order of `FAILURES`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from univg_eval.analysis.failures.kinds import FailureKind
from univg_eval.benchmarks.synthetic.known_objects import SAME_OBJECT, KnownObject
from univg_eval.boxes import Box, box_iou, center_in_box
from univg_eval.protocols import Protocol
from univg_eval.samples import GroundingSample
from univg_eval.scoring import IOU_DECIMALS, SampleScore

__all__ = [
    "FAR",
    "area_of",
    "class_of",
    "class_of_status",
    "fitting",
    "is_miss",
    "observed",
    "rounded",
]

FAR = 0.1
"""IoU below which a box is not at the object's place, unless a centre lies inside."""
COVERS = 0.8
"""Share of an area that counts as nearly all of it."""


def is_miss(score: SampleScore, threshold: float) -> bool:
    """Whether a score is a miss at this IoU; excluded samples and several targets never are."""
    if score.excluded or score.f1 is not None:
        return False
    if score.no_target_right is not None:
        return not score.no_target_right
    return (score.iou or 0.0) < threshold


def class_of(
    score: SampleScore,
    sample: GroundingSample,
    rule: Protocol,
    objects: Sequence[KnownObject],
    rescaled: Collection[str],
) -> FailureKind:
    """The class of a miss that `rule` scored.

    Args:
        score, sample, rule: of the miss.
        objects: known on its images, besides the target.
        rescaled: ids of the misses that another reading hits which the run supports.
    """
    kind = observed(score, sample, rule)
    if kind in (None, "invalid_box") and score.id in rescaled:
        return "other_scale"
    return kind or _place_of(score, sample, objects)


def observed(score: SampleScore, sample: GroundingSample, rule: Protocol) -> FailureKind | None:
    """The class that needs no geometry; None for a valid box on the right image."""
    if sample.targets and not _has_area(sample.box):
        return "invalid_truth"
    if _is_on_another_image(score, sample, rule):
        return "wrong_image" if sample.targets else "false_alarm"
    return class_of_status(score, sample)


def class_of_status(score: SampleScore, sample: GroundingSample) -> FailureKind | None:
    """The class that the status alone gives; None for a box, or a right "none".

    ``univg check`` counts these, hits and misses alike.
    """
    if score.status == "ok":
        return None if sample.targets else "false_alarm"
    if score.status == "none":
        return "said_none" if sample.targets else None
    return score.status


def _is_on_another_image(score: SampleScore, sample: GroundingSample, rule: Protocol) -> bool:
    if score.status in ("ok", "invalid_box"):
        return score.image_right is False and score.image_index is not None
    # Boxes, but none that counts for the image that the instruction names.
    unread = score.status == "no_box" and score.n_boxes > 0
    return unread and sample.image_is_given and rule.reads_image


def _has_area(box: Box) -> bool:
    x1, y1, x2, y2 = box
    return x1 < x2 and y1 < y2 and all(map(math.isfinite, box))


def _place_of(
    score: SampleScore, sample: GroundingSample, objects: Sequence[KnownObject]
) -> FailureKind:
    """The class of a valid box by where it lies."""
    if score.box is None:
        raise ValueError(f"score {score.id!r} has status ok and no box")
    box, target = score.box, sample.box
    exact = float(box_iou(box, target))
    iou = rounded(exact)
    if fitting(box, objects, above=iou, image=sample.target_image):
        return "wrong_object"
    area, target_area = area_of(box), area_of(target)
    shared = exact * (area + target_area) / (1.0 + exact)
    larger = rounded(area - target_area)
    if larger > 0 and rounded(shared / target_area) >= COVERS:
        return "loose"
    if larger < 0 and rounded(shared / area) >= COVERS:
        return "tight"
    if iou >= FAR or center_in_box(box, target) or center_in_box(target, box):
        return "shifted"
    return "image_mixup" if fitting(box, objects, above=iou, image=None) else "elsewhere"


def fitting(
    box: Box, objects: Iterable[KnownObject], *, above: float, image: int | None
) -> tuple[float, KnownObject] | None:
    """The object that a box fits best, with its IoU; None if it fits none.

    Args:
        box: xyxy_norm.
        objects: those known.
        above: the IoU must be more than this, and at least `SAME_OBJECT`.
        image: only objects of this image count; None: all.
    """
    fits = [
        (rounded(box_iou(box, obj.box)), obj)
        for obj in objects
        if image is None or obj.image == image
    ]
    best = max(fits, key=lambda fit: fit[0], default=(0.0, None))
    iou, obj = best
    return (iou, obj) if obj is not None and iou >= SAME_OBJECT and iou > above else None


def area_of(box: Box) -> float:
    """Area of a box in order, as a share of the image."""
    return (box[2] - box[0]) * (box[3] - box[1])


def rounded(value: float) -> float:
    """As IoUs are stored, so that thresholds hold where they are met exactly."""
    return round(float(value), IOU_DECIMALS)
