"""What kind of failure each miss is.

A *miss* is a sample with one target whose IoU stays below the threshold, or a sample without a
target that was not answered with "there is no such object". Samples left out of the score
(`excluded`) and samples with several targets are no misses here; they are counted apart. Every
miss is in exactly one class of `FAILURES`: the first, in this order, whose condition holds.

With u the IoU of box and target, I the area they share, P the area of the box, T that of the
target:

=================  ============================================================================
invalid_truth      the true box is inverted or empty: nothing can hit it. Only under rules that
                   score such rows
truncated          status ``truncated``
wrong_image        the box is on another image: where the model had to find the image, it names
                   another one; where the image was given, all its boxes are labelled with others
no_box             status ``no_box``
invalid_box        status ``invalid_box``
said_none          status ``none``, with an object there
false_alarm        a box, with no object there
other_scale        u < 0.1, and a reading in another dialect, or with other pixel limits, makes
                   IoU >= 0.5 of it, a reading that the run's misses support as a whole: see below
wrong_object       IoU >= 0.5 with another known object of the target's image, and more than u
loose              I / T >= 0.8 and P > T
tight              I / P >= 0.8 and P < T
shifted            u >= 0.1, or the centre of the box or of the target lies in the other
elsewhere          none of these
=================  ============================================================================

Why this order. What the score itself says comes first: no box, no geometry. A box on another image
has nothing to do with the target's coordinates, so these are not looked at; how far down the list
its numbers would fall is chance. Then the numbers are questioned before what they seem to mean:
where the run shows that they were read in a wrong scale, that a box so read lies on a distractor,
or large around the target, is a consequence. A distractor comes before the place: a box on the
neighbour that touches the target is a choice of the wrong object, not a bad outline. ``loose`` and
``tight`` exclude each other by the areas, and either implies that a centre lies inside; a box
over the whole image is ``loose``, and a hint says how much of the image it covers.

**The scale is a hint, never a score.** There are some fifty other readings, and one of them hits
now and then by chance. So ``other_scale`` needs evidence from the whole run: the test of
`univg_eval.diagnosis.suspect` (as ``univg check`` makes it) on all misses with u < 0.1. It asks for
more hits than chance by one reading, at 1 % divided by the number of readings, and in at least a
tenth of those that it reads differently; a dozen hits are needed for that. Only samples that this
one reading hits are in the class. In a run with few misses the class stays empty.

Published protocols do not read which image is named, so there is no ``wrong_image`` under them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from univg_eval.benchmarks.known_objects import SAME_OBJECT, KnownObject, known_objects
from univg_eval.boxes import Box, box_iou, center_in_box, clip_box
from univg_eval.controls import NO_CONTROL
from univg_eval.diagnosis import Candidate, Reading, Suspicion, candidates, read_all, suspect
from univg_eval.diagnosis.checks import LONGEST_READ
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import Protocol, get_protocol, parse_answer
from univg_eval.runs import RunRecord, prepared_samples, require_fingerprint
from univg_eval.samples import GroundingSample, fingerprint
from univg_eval.scoring import IOU_DECIMALS, Response, SampleScore

__all__ = [
    "FAILURES",
    "Failure",
    "FailureKind",
    "FailureShares",
    "RunFailures",
    "analyse",
    "classify",
    "classify_run",
    "failure_shares",
]

FailureKind = Literal[
    "invalid_truth",
    "truncated",
    "wrong_image",
    "no_box",
    "invalid_box",
    "said_none",
    "false_alarm",
    "other_scale",
    "wrong_object",
    "loose",
    "tight",
    "shifted",
    "elsewhere",
]

FAILURES: Mapping[FailureKind, str] = MappingProxyType(
    {
        "invalid_truth": "The true box is empty or inverted, so that no answer can hit it.",
        "truncated": "Thinking or answer never ends, and no box stands outside the thinking.",
        "wrong_image": "The box is on another image than the object.",
        "no_box": "The response holds no readable box.",
        "invalid_box": "The box is inverted, empty or outside the image.",
        "said_none": "The response says that there is no such object, though there is one.",
        "false_alarm": "The response gives a box, though there is no such object.",
        "other_scale": "The numbers fit the object if read in another dialect or with other pixel "
        "limits, as many misses of the run do: a hint at the set-up.",
        "wrong_object": "The box fits another object of the image.",
        "loose": "The box covers the object and is too large.",
        "tight": "The box lies inside the object and is too small.",
        "shifted": "The box overlaps the object and neither covers it nor lies inside it.",
        "elsewhere": "The box is somewhere else, on no object that is known.",
    }
)
"""All classes in the order in which they are tried, with their meanings; read-only."""

FAR = 0.1
"""IoU below which a box is not at the object's place, unless a centre lies inside."""
COVERS = 0.8
"""Share of an area that counts as nearly all of it."""
LARGE = 0.8
"""Share of the image from which a hint says how much of it the box covers."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one sample is a miss.

    Attributes:
        kind: one of `FAILURES`.
        iou: with the target, as scored; None for a sample without target.
        hints: sentences on what else is known; they use the truth and are never a score.
    """

    kind: FailureKind
    iou: float | None
    hints: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": self.kind, "iou": self.iou, "hints": list(self.hints)}


@dataclass(frozen=True, slots=True)
class FailureShares:
    """The misses of one task, or of all, by class.

    Attributes:
        n: scored samples with one target or none: the denominator of `share`.
        misses: those that are misses.
        kinds: how many of each class, every class of `FAILURES` in order; they sum to `misses`.
        hits_on_wrong_image: hits by the box's coordinates that name another image, or none, where
            the model had to find it; no misses here, but not counted by ``joint@0.5`` either.
        several: samples with several targets, which have no class.
        excluded: samples left out of the score.
    """

    n: int
    misses: int
    kinds: Mapping[FailureKind, int]
    hits_on_wrong_image: int
    several: int
    excluded: int

    def share(self, kind: FailureKind) -> float:
        """Share of the scored samples that fail this way; NaN without samples."""
        return self.kinds[kind] / self.n if self.n else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "n": self.n,
            "misses": self.misses,
            "kinds": dict(self.kinds),
            "hits_on_wrong_image": self.hits_on_wrong_image,
            "several": self.several,
            "excluded": self.excluded,
        }


@dataclass(frozen=True, slots=True)
class RunFailures:
    """The failures of a run.

    Attributes:
        threshold: IoU that a hit needs.
        failures: by id, in the order of the scores; hits have no entry.
        tasks: shares by task, in order of appearance.
        total: of all tasks together.
        suspicion: evidence that the misses were read in a wrong scale; None if there is none.
    """

    threshold: float
    failures: dict[str, Failure]
    tasks: dict[str, FailureShares]
    total: FailureShares
    suspicion: Suspicion | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the single samples."""
        suspicion = self.suspicion
        return {
            "threshold": self.threshold,
            "total": self.total.to_dict(),
            "tasks": {task: shares.to_dict() for task, shares in self.tasks.items()},
            "other_reading": None
            if suspicion is None
            else {
                "names": list(suspicion.names),
                "scale": suspicion.scale,
                "remedy": suspicion.remedy,
                "hits": suspicion.hits,
                "n": suspicion.n,
                "blind": suspicion.blind,
            },
        }


def classify(
    samples: Sequence[GroundingSample] | Mapping[str, GroundingSample],
    scores: Sequence[SampleScore],
    responses: Mapping[str, Response] | None = None,
    dialect: str | Dialect | None = None,
    protocol: str | Protocol = "univg",
    *,
    threshold: float = 0.5,
) -> dict[str, Failure]:
    """The class of each miss, by id; see `analyse`, of which this is `RunFailures.failures`."""
    return analyse(samples, scores, responses, dialect, protocol, threshold=threshold).failures


def analyse(
    samples: Sequence[GroundingSample] | Mapping[str, GroundingSample],
    scores: Sequence[SampleScore],
    responses: Mapping[str, Response] | None = None,
    dialect: str | Dialect | None = None,
    protocol: str | Protocol = "univg",
    *,
    threshold: float = 0.5,
    objects: Mapping[str, Sequence[KnownObject]] | None = None,
) -> RunFailures:
    """Put every miss of a run into its class, and count.

    Args:
        samples: at least those of the scores; with all questions of the benchmark more
            distractors are known.
        scores: of one run, by `protocol`.
        responses: by id; without them no other reading is tried, and no hint tells of further
            boxes in an answer.
        dialect: of the run, with its pixel limits.
        protocol: the rule that scored.
        threshold: IoU that a hit needs.
        objects: the distractors by id; None: see `known_objects`.

    Raises:
        UserError: a score has no sample, an id stands twice, or the threshold is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise UserError(f"threshold is {threshold}; expected an IoU above 0, at most 1")
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    if isinstance(dialect, str):
        dialect = get_dialect(dialect)
    by_id = samples if isinstance(samples, Mapping) else {s.id: s for s in samples}
    _require_samples(by_id, scores)
    misses = [score for score in scores if _is_miss(score, threshold)]
    if objects is None:
        boxed = {score.id for score in misses if score.status == "ok"}
        objects = known_objects(list(by_id.values()), boxed)
    found = {score.id: _observed(score, by_id[score.id], rule) for score in misses}
    suspicion = None
    if responses is not None:
        far = [
            score
            for score in misses
            if found[score.id] not in ("invalid_truth", "wrong_image", "false_alarm")
            and score.iou is not None
            and score.iou < FAR
            and by_id[score.id].has_valid_targets
        ]
        suspicion = _suspicion(far, by_id, responses, dialect, rule)
    failures = {}
    for score in misses:
        sample = by_id[score.id]
        around = objects.get(score.id, ())
        kind = found[score.id] or _interpreted(score, sample, around, suspicion)
        response = responses.get(score.id) if responses is not None else None
        hints = (
            *_hint_of_reading(score, sample, suspicion),
            *_hint_of_answer(score, sample, response, dialect, rule, threshold),
            *_hint_of_box(score, sample, kind, around),
        )
        failures[score.id] = Failure(kind, score.iou, hints)
    tasks = failure_shares(failures, scores, threshold=threshold)
    return RunFailures(threshold, failures, tasks, _sum(tasks.values()), suspicion)


def classify_run(
    record: RunRecord,
    samples: Sequence[GroundingSample] | None = None,
    *,
    threshold: float = 0.5,
) -> RunFailures:
    """`analyse` for a run record.

    Args:
        record: as loaded.
        samples: all questions of its prepared benchmark; None: loaded from the data root.
        threshold: IoU that a hit needs.

    Raises:
        UserError: the benchmark is not prepared, or is another one than the record's; see
            `analyse`.
    """
    dataset = record.manifest["dataset"]
    if samples is None:
        samples = prepared_samples(record)
    else:
        require_fingerprint(
            dataset["prepared_benchmark"], fingerprint(samples), dataset["fingerprint"]
        )
    settings = {name: entry[0] for name, entry in record.manifest["settings"].items()}
    dialect = None
    if settings.get("dialect") is not None:
        dialect = get_dialect(
            settings["dialect"],
            min_pixels=settings.get("min_pixels"),
            max_pixels=settings.get("max_pixels"),
        )
    # Under these controls other images were shown than those that the objects are known on.
    same_images = settings.get("control", NO_CONTROL) in (NO_CONTROL, "cut")
    responses = {
        row["id"]: Response(row["response"], row["image_sizes"], row["input_sizes"], row["prompt"])
        for row in record.responses
    }
    if settings.get("media") == "video":
        samples = [_asked_frame(sample, responses.get(sample.id)) for sample in samples]
    return analyse(
        samples,
        record.sample_scores(),
        responses,
        dialect,
        str(settings.get("protocol", "univg")),
        threshold=threshold,
        objects=None if same_images else {},
    )


def _asked_frame(sample: GroundingSample, response: Response | None) -> GroundingSample:
    """A question about a video as its responses were read: the asked frame is its only image."""
    frames = {target.image for target in sample.targets}
    if len(frames) > 1 or len(sample.images) == 1:
        return sample
    frame = next(iter(frames), 0)
    sizes = response.image_sizes if response is not None and response.image_sizes else ()
    return replace(
        sample,
        images=(sample.images[frame],),
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
        targets=tuple(replace(target, image=0) for target in sample.targets),
    )


def failure_shares(
    failures: Mapping[str, Failure], scores: Iterable[SampleScore], *, threshold: float = 0.5
) -> dict[str, FailureShares]:
    """Count the classes of each task.

    Args:
        failures: of the scores, by id.
        scores: all of the run, hits included.
        threshold: the one of `failures`, for `FailureShares.hits_on_wrong_image`.
    """
    rows: dict[str, list[SampleScore]] = {}
    for score in scores:
        rows.setdefault(score.task, []).append(score)
    shares = {}
    for task, members in rows.items():
        scored = [s for s in members if not s.excluded and s.f1 is None]
        counts = Counter(failures[s.id].kind for s in scored if s.id in failures)
        shares[task] = FailureShares(
            n=len(scored),
            misses=counts.total(),
            kinds=MappingProxyType({kind: counts[kind] for kind in FAILURES}),
            hits_on_wrong_image=sum(
                s.image_right is False and s.iou is not None and s.iou >= threshold for s in scored
            ),
            several=sum(s.f1 is not None and not s.excluded for s in members),
            excluded=sum(s.excluded for s in members),
        )
    return shares


def _sum(parts: Iterable[FailureShares]) -> FailureShares:
    parts = list(parts)
    return FailureShares(
        n=sum(part.n for part in parts),
        misses=sum(part.misses for part in parts),
        kinds=MappingProxyType({kind: sum(p.kinds[kind] for p in parts) for kind in FAILURES}),
        hits_on_wrong_image=sum(part.hits_on_wrong_image for part in parts),
        several=sum(part.several for part in parts),
        excluded=sum(part.excluded for part in parts),
    )


def _require_samples(by_id: Mapping[str, GroundingSample], scores: Sequence[SampleScore]) -> None:
    lacking = [score.id for score in scores if score.id not in by_id]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(scores)} scores have no sample, the first is {lacking[0]!r}; "
            "give the samples of the benchmark that was scored"
        )
    doubled = [name for name, count in Counter(score.id for score in scores).items() if count > 1]
    if doubled:
        raise UserError(f"the score of {doubled[0]!r} stands twice; give the scores of one run")


def _is_miss(score: SampleScore, threshold: float) -> bool:
    if score.excluded or score.f1 is not None:
        return False
    if score.no_target_right is not None:
        return not score.no_target_right
    return (score.iou or 0.0) < threshold


def _observed(score: SampleScore, sample: GroundingSample, rule: Protocol) -> FailureKind | None:
    """The class that the score itself tells; None for a box on the right image."""
    if sample.targets and not _has_area(sample.box):
        return "invalid_truth"
    if score.status == "ok":
        if not sample.targets:
            return "false_alarm"
        named_another = score.image_right is False and score.image_index is not None
        return "wrong_image" if named_another else None
    if (
        score.status == "no_box"
        and score.n_boxes
        and sample.targets
        and sample.image_is_given
        and rule.reads_image
    ):
        return "wrong_image"  # boxes, but none that counts for the image of the question
    return "said_none" if score.status == "none" else score.status


def _has_area(box: Box) -> bool:
    x1, y1, x2, y2 = box
    return x1 < x2 and y1 < y2 and all(map(math.isfinite, box))


def _interpreted(
    score: SampleScore,
    sample: GroundingSample,
    objects: Sequence[KnownObject],
    suspicion: Suspicion | None,
) -> FailureKind:
    """The class of a box on the right image, see the top of this module."""
    box, target = _box_of(score), sample.box
    if suspicion is not None and score.id in suspicion.boxes:
        return "other_scale"
    exact = float(box_iou(box, target))
    iou = _rounded(exact)
    if _fitting(box, objects, above=iou, image=sample.target_image):
        return "wrong_object"
    area, target_area = _area(box), _area(target)
    shared = exact * (area + target_area) / (1.0 + exact)
    larger = _rounded(area - target_area)
    if larger > 0 and _rounded(shared / target_area) >= COVERS:
        return "loose"
    if larger < 0 and _rounded(shared / area) >= COVERS:
        return "tight"
    if iou >= FAR or center_in_box(box, target) or center_in_box(target, box):
        return "shifted"
    return "elsewhere"


def _fitting(
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
        (_rounded(box_iou(box, obj.box)), obj)
        for obj in objects
        if image is None or obj.image == image
    ]
    best = max(fits, key=lambda fit: fit[0], default=(0.0, None))
    iou, obj = best
    return (iou, obj) if obj is not None and iou >= SAME_OBJECT and iou > above else None


def _box_of(score: SampleScore) -> Box:
    if score.box is None:
        raise ValueError(f"score {score.id!r} has status ok and no box")
    return score.box


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _rounded(value: float) -> float:
    return round(float(value), IOU_DECIMALS)


# --- another reading -----------------------------------------------------------------------------


def _suspicion(
    far: Sequence[SampleScore],
    by_id: Mapping[str, GroundingSample],
    responses: Mapping[str, Response],
    dialect: Dialect | None,
    rule: Protocol,
) -> Suspicion | None:
    """The reading that explains these misses, if there is one."""
    kept = [
        score
        for score in far
        if score.id in responses and len(responses[score.id].text or "") <= LONGEST_READ
    ]
    if not kept:
        return None
    samples = [by_id[score.id] for score in kept]
    given = [responses[score.id] for score in kept]
    # The published rules read integers on 0-1000 in any of their brackets.
    own = dialect if dialect is not None else get_dialect("norm1000")
    declared = Reading(
        Candidate(rule.name, own, own.space.describe(), ""),
        np.array(
            [
                score.box if score.box is not None and score.status == "ok" else (math.nan,) * 4
                for score in kept
            ],
            dtype=np.float64,
        ),
        np.array([score.iou or 0.0 for score in kept], dtype=np.float64),
    )
    return suspect(samples, given, declared, read_all(samples, given, candidates()))


# --- hints ---------------------------------------------------------------------------------------


def _hint_of_reading(
    score: SampleScore, sample: GroundingSample, suspicion: Suspicion | None
) -> list[str]:
    if suspicion is None or score.id not in suspicion.boxes:
        return []
    iou = float(box_iou(suspicion.boxes[score.id], sample.box))
    return [
        f"Read as {suspicion.names[0]} the box would have IoU {iou:.2f}, as {suspicion.hits} of "
        f"{suspicion.n} misses far off would be hits."
    ]


def _hint_of_answer(
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
        _rounded(box_iou(box, sample.box))
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


def _hint_of_box(
    score: SampleScore,
    sample: GroundingSample,
    kind: FailureKind,
    objects: Sequence[KnownObject],
) -> list[str]:
    """What the box lies on, and what the answer leaves out."""
    box = score.box
    if box is None or score.status != "ok" or not sample.targets:
        return []
    hints = []
    if kind == "wrong_object":
        fit = _fitting(box, objects, above=0.0, image=sample.target_image)
        if fit is not None:
            hints.append(f"IoU {fit[0]:.2f} with {fit[1].name}.")
    elif kind == "elsewhere":
        fit = _fitting(box, objects, above=0.0, image=None)
        if fit is not None:
            hints.append(
                f"On image {fit[1].image + 1} of {len(sample.images)} the same coordinates have "
                f"IoU {fit[0]:.2f} with {fit[1].name}."
            )
    elif kind == "wrong_image" and score.image_index is not None:
        hints.append(
            f"It names image {score.image_index + 1}; the object is on image "
            f"{sample.target_image + 1}."
        )
    if score.image_right is False and score.image_index is None:
        hints.append("It names no image.")
    covered = _area(clip_box(box))
    if covered >= LARGE:
        hints.append(f"The box covers {100 * covered:.0f} % of the image.")
    return hints
