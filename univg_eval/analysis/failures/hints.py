"""What else is known of a miss, in sentences; they use the truth and are never a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from univg_eval.analysis.failures.conditions import area_of, fitting, rounded
from univg_eval.analysis.failures.kinds import FailureKind
from univg_eval.analysis.failures.readings import Suspicion
from univg_eval.benchmarks.synthetic.known_objects import KnownObject
from univg_eval.boxes import box_iou, clip_box
from univg_eval.dialects import Dialect
from univg_eval.protocols import Protocol, parse_answer
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore, given_image

__all__ = ["hints_of"]

_LARGE = 0.8  # share of the image from which a hint says how much of it the box covers


def hints_of(
    score: SampleScore,
    sample: GroundingSample,
    kind: FailureKind,
    objects: Sequence[KnownObject],
    response: Response | None,
    suspicion: Suspicion | None,
    *,
    dialect: Dialect | None,
    rule: Protocol,
    threshold: float,
) -> tuple[str, ...]:
    """All hints about a miss of class `kind`; the rest as for `analyse`."""
    found: list[str] = []
    if suspicion is not None and score.id in suspicion.boxes:
        iou = float(box_iou(suspicion.boxes[score.id], sample.box))
        found.append(
            f"Read as {suspicion.names[0]} the box would have IoU {iou:.2f}, as {suspicion.hits} "
            f"of {suspicion.n} misses far off would be hits."
        )
    if response is not None and dialect is not None and rule.reads_image:
        best = _best_box(score, sample, response, dialect, rule)
        if best >= threshold:
            found.append(
                f"Another of the answer's {score.n_boxes} boxes has IoU {best:.2f}; the first box "
                "of the last unit counts."
            )
    if score.status in ("ok", "invalid_box") and sample.targets:
        found += _about_box(score, sample, kind, objects)
    return tuple(found)


def _best_box(
    score: SampleScore,
    sample: GroundingSample,
    response: Response,
    dialect: Dialect,
    rule: Protocol,
) -> float:
    """Highest IoU of the answer's boxes on the target's image, where there are several; else 0."""
    if score.n_boxes < 2 or not response.text or sample.kind != "single":
        return 0.0
    answer = parse_answer(
        response.text,
        dialect,
        image_sizes=response.image_sizes or sample.image_sizes,
        input_sizes=response.input_sizes,
        target_image=given_image(sample),
        protocol=rule.name,
    )
    ious = [
        rounded(box_iou(box, sample.box))
        for box, image in zip(answer.boxes, answer.box_images, strict=True)
        if image in (None, sample.target_image)
    ]
    return max(ious, default=0.0)


def _about_box(
    score: SampleScore,
    sample: GroundingSample,
    kind: FailureKind,
    objects: Sequence[KnownObject],
) -> Iterator[str]:
    """Which image the answer names, and what the box lies on."""
    if score.image_right is False and score.image_index is None:
        yield "It names no image."
    elif score.image_right is False and score.image_index is not None:
        yield (
            f"It names image {score.image_index + 1}; the object is on image "
            f"{sample.target_image + 1}."
        )
    if score.box is None or score.status != "ok":
        return
    if kind in ("wrong_object", "image_mixup"):
        image = sample.target_image if kind == "wrong_object" else None
        fit = fitting(score.box, objects, above=0.0, image=image)
        if fit is not None:
            iou, obj = fit
            where = "" if kind == "wrong_object" else f" on image {obj.image + 1}"
            yield f"IoU {iou:.2f} with {obj.name}{where}."
    covered = area_of(clip_box(score.box))
    if covered >= _LARGE:
        yield f"The box covers {100 * covered:.0f} % of the image."
