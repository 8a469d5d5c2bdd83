"""What else is known of a miss, in sentences; they use the truth and are never a score."""

from __future__ import annotations

from collections.abc import Sequence

from univg_eval.analysis.diagnosis import Suspicion
from univg_eval.analysis.failures.conditions import area_of, fitting, rounded
from univg_eval.analysis.failures.kinds import FailureKind
from univg_eval.benchmarks.synthetic.known_objects import KnownObject
from univg_eval.boxes import box_iou, clip_box
from univg_eval.dialects import Dialect
from univg_eval.protocols import Protocol, parse_answer
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore

__all__ = ["hint_of_answer", "hint_of_reading", "hints_of_box"]

LARGE = 0.8
"""Share of the image from which a hint says how much of it the box covers."""


def hint_of_reading(
    score: SampleScore, sample: GroundingSample, suspicion: Suspicion | None
) -> list[str]:
    """What the box would be in the reading that the run supports."""
    if suspicion is None or score.id not in suspicion.boxes:
        return []
    iou = float(box_iou(suspicion.boxes[score.id], sample.box))
    return [
        f"Read as {suspicion.names[0]} the box would have IoU {iou:.2f}, as {suspicion.hits} of "
        f"{suspicion.n} misses far off would be hits."
    ]


def hint_of_answer(
    score: SampleScore,
    sample: GroundingSample,
    response: Response | None,
    dialect: Dialect | None,
    rule: Protocol,
    threshold: float,
) -> list[str]:
    """Whether another box of the same answer hits."""
    single = len(sample.targets) == 1
    if response is None or dialect is None or not rule.reads_image or not single:
        return []
    if score.n_boxes < 2 or not response.text:
        return []
    answer = parse_answer(
        response.text,
        dialect,
        image_sizes=response.image_sizes or sample.image_sizes,
        input_sizes=response.input_sizes,
        target_image=sample.target_image if sample.image_is_given else None,
        protocol=rule.name,
    )
    ious = [
        rounded(box_iou(box, sample.box))
        for box, image in zip(answer.boxes, answer.box_images, strict=True)
        if image in (None, sample.target_image)
    ]
    best = max(ious, default=0.0)
    if best < threshold:
        return []
    return [
        f"Another of the answer's {score.n_boxes} boxes has IoU {best:.2f}; the first box of the "
        "last unit counts."
    ]


def hints_of_box(
    score: SampleScore,
    sample: GroundingSample,
    kind: FailureKind,
    objects: Sequence[KnownObject],
) -> list[str]:
    """What the box lies on, and what the answer leaves out."""
    if score.status not in ("ok", "invalid_box") or not sample.targets:
        return []
    hints = []
    if score.image_right is False:
        hints.append(
            "It names no image."
            if score.image_index is None
            else f"It names image {score.image_index + 1}; the object is on image "
            f"{sample.target_image + 1}."
        )
    box = score.box
    if box is None or score.status != "ok":
        return hints
    if kind in ("wrong_object", "image_mixup"):
        fit = fitting(
            box, objects, above=0.0, image=sample.target_image if kind == "wrong_object" else None
        )
        if fit is not None:
            iou, obj = fit
            where = "" if kind == "wrong_object" else f" on image {obj.image + 1}"
            hints.append(f"IoU {iou:.2f} with {obj.name}{where}.")
    covered = area_of(clip_box(box))
    if covered >= LARGE:
        hints.append(f"The box covers {100 * covered:.0f} % of the image.")
    return hints
