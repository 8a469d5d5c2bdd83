"""From a response to a score, and from scores to a benchmark's numbers.

A score belongs to one sample and never changes with the others; a metric belongs to a set of
scores. The ground truth enters only after the response has been read.

Three kinds of samples are kept apart, each with metrics of its own:

=============  ===========================================================================
one target     ``acc@t`` (share with IoU >= t), ``miou``, ``macc`` (mean of acc over
               0.5, 0.55, …, 0.95), ``center_acc``, ``answered``; where the model had to
               find the image also ``image_acc`` and ``joint@0.5``
no target      ``no_target_acc``: right only with status ``none``
several        ``f1@0.5``, ``f1@0.95``, ``f1_mean`` (over 0.5, 0.55, …, 0.95), ``ap50`` and
               ``matched_iou``: one-to-one matching; where the model had to find the images
               also ``image_set_acc``
=============  ===========================================================================

A sample whose instruction asks for every object (`GroundingSample.find_all`) counts among those
with several, however many targets it has.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge, Interval, Len

from univg_eval.answers import Answer, Status
from univg_eval.boxes import Box, box_iou, center_in_box
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.dialects.image_names import find_image_names
from univg_eval.errors import UserError
from univg_eval.matching import largest_matching
from univg_eval.protocols import Protocol, get_protocol, parse_answer
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "HEADLINES",
    "LATER_FIELDS",
    "MACC_THRESHOLDS",
    "METRICS",
    "THRESHOLDS",
    "HeadlineValues",
    "Response",
    "SampleScore",
    "Tally",
    "aggregate",
    "given_image",
    "headline",
    "headline_metric",
    "is_share",
    "macro_average",
    "read_response",
    "sample_metrics",
    "score_sample",
    "score_samples",
]

THRESHOLDS = (0.3, 0.5, 0.7, 0.75, 0.9)
MACC_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MATCH_IOU = 0.5
# Tenths and thousandths are no exact floats: without rounding, a box that covers exactly half of
# its target misses 0.5 by 1e-16 as often as not. An IoU of such boxes is a ratio of integers, and
# none that differs from a threshold lies this close to it.
IOU_DECIMALS = 12

ImageSizes = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Response:
    """What a model said about one sample, and what its box has to be read with.

    Attributes:
        text: the whole response, thinking included; None if the model gave none.
        image_sizes: (width, height) in pixels of the original images; None: the sample's own.
        input_sizes: the same after the model's resize; None: by the dialect's resize rule.
        prompt: the text the model was given, for protocols that read it.
    """

    text: str | None
    image_sizes: ImageSizes | None = None
    input_sizes: ImageSizes | None = None
    prompt: str | None = None


Share = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Ge(0)]


@dataclass(frozen=True, slots=True)
class SampleScore:
    """The score of one response, and a line of scores.jsonl in a run record."""

    # Read by pydantic, where scores come from a file.
    __pydantic_config__: ClassVar = {
        "strict": True,
        "allow_inf_nan": False,
        "use_attribute_docstrings": True,
    }

    id: Annotated[str, Len(1)]
    """Of the sample."""
    task: str
    """Of the sample."""
    cluster: str
    """Of the sample: rows that share images."""
    status: Status
    """How the response was read."""
    box: Box | None
    """The chosen box, xyxy_norm; published protocols do not clip it."""
    iou: Share | None
    """With the single target, to 12 decimals, 0 for every status but ok; null: no target, or
    several."""
    center: bool | None
    """Whether the box's centre lies in the single target; null as for iou."""
    image_index: int | None
    """0-based image that the response names."""
    image_right: bool | None
    """Whether that is the target's image; null: the image was given, or the protocol does not
    read it, or there is no single target."""
    no_target_right: bool | None
    """Of a sample without target: whether the status is none."""
    f1: Share | None
    """Of a sample with several targets."""
    ap50: Share | None
    """Of a sample with several targets."""
    n_boxes: Count
    """Boxes in the answer section."""
    n_units: Count
    """Units in the answer section."""
    clipped: bool
    """Whether the chosen box reached outside the image."""
    excluded: bool
    """The ground truth is invalid and the protocol leaves such rows out."""
    matched_iou: Share | None = None
    """Of a sample with several targets, to 12 decimals; absent of others, and in older records."""
    f1_95: Share | None = None
    """F1 at IoU >= 0.95 of a sample with several targets; absent as `matched_iou`."""
    f1_mean: Share | None = None
    """Mean of F1 over ten IoUs of a sample with several targets; absent as `matched_iou`."""
    images_right: bool | None = None
    """Of a sample with several targets whose images the model had to find: whether its boxes lie on
    the images of the targets, and on no other; absent as `matched_iou`."""
    n_targets: Annotated[int, Ge(1)] | None = None
    """Of a sample with several targets, which the instruction may ask for without there being more
    than one; absent as `matched_iou`."""

    def to_dict(self) -> dict[str, Any]:
        """A line of scores.jsonl; what older records do not have is left out where it is None."""
        values = asdict(self)
        for name in LATER_FIELDS:
            if values[name] is None:
                del values[name]
        return values


LATER_FIELDS = ("matched_iou", "f1_95", "f1_mean", "images_right", "n_targets")
"""Fields of a score that records of older versions do not have."""


def score_sample(
    sample: GroundingSample,
    response: str | Response | None,
    dialect: str | Dialect | None,
    *,
    protocol: str | Protocol = "univg",
    image_sizes: ImageSizes | None = None,
    input_sizes: ImageSizes | None = None,
    prompt: str | None = None,
) -> SampleScore:
    """Score one response.

    Args:
        sample: with its true objects.
        response: the model's text, or a `Response` (then the next three arguments are ignored);
            None counts as unanswered.
        dialect: how the model writes boxes; None only for protocols that bring their own rule.
        protocol: scoring rule.
        image_sizes, input_sizes, prompt: see `Response`.

    Raises:
        UserError: unknown dialect or protocol, or the protocol needs what is not given.
    """
    if not isinstance(response, Response):
        response = Response(response, image_sizes, input_sizes, prompt)
    return score_samples([sample], [response], dialect, protocol=protocol)[0]


def score_samples(
    samples: Sequence[GroundingSample],
    responses: Sequence[Response],
    dialect: str | Dialect | None,
    *,
    protocol: str | Protocol = "univg",
) -> list[SampleScore]:
    """`score_sample` for many pairs: the IoU of all of them is computed at once.

    Args:
        samples, responses: of equal length, paired by position.
        dialect, protocol: as for `score_sample`.

    Returns:
        One score a pair, in order.
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    if isinstance(dialect, str) and rule.needs_dialect:
        dialect = get_dialect(dialect)
    answers = [
        read_response(sample, response, dialect, rule)
        for sample, response in zip(samples, responses, strict=True)
    ]
    scored = [
        i
        for i, (sample, answer) in enumerate(zip(samples, answers, strict=True))
        if sample.kind == "single" and answer.box is not None
    ]
    ious = [0.0] * len(samples)
    centers = [False] * len(samples)
    if scored:
        predicted = np.array([answers[i].box for i in scored], dtype=np.float64)
        true = np.array([samples[i].targets[0].box for i in scored], dtype=np.float64)
        for i, iou, center in zip(
            scored,
            np.round(rule.iou(predicted, true), IOU_DECIMALS).tolist(),
            center_in_box(predicted, true).tolist(),
            strict=True,
        ):
            if answers[i].status == "ok":
                ious[i], centers[i] = iou, center
    return [
        _assemble(sample, answer, iou, center, rule)
        for sample, answer, iou, center in zip(samples, answers, ious, centers, strict=True)
    ]


def read_response(
    sample: GroundingSample,
    response: Response,
    dialect: str | Dialect | None,
    protocol: str | Protocol = "univg",
) -> Answer:
    """What a response answers, as it is scored; the sample's true objects are not looked at.

    Raises:
        UserError: see `score_sample`.
    """
    rule = get_protocol(protocol) if isinstance(protocol, str) else protocol
    if isinstance(dialect, str) and rule.needs_dialect:
        dialect = get_dialect(dialect)
    image_sizes = response.image_sizes or sample.image_sizes
    if rule.needs_dialect and isinstance(dialect, Dialect) and response.text is not None:
        _require_sizes(sample, dialect, image_sizes, response.input_sizes)
    return parse_answer(
        "" if response.text is None else response.text,
        dialect,
        image_sizes=image_sizes,
        input_sizes=response.input_sizes,
        target_image=given_image(sample),
        image_is_given=sample.image_is_given,
        # A response that was never given holds no pair, whatever the prompt was.
        prompt="" if response.text is None else response.prompt,
        protocol=rule.name,
    )


def given_image(sample: GroundingSample) -> int | None:
    """The 0-based image that the instruction names, which a response is read by.

    It is what the benchmark states, or the only image. Where neither says it, it is the only image
    that the instruction's text names. None where the image has to be found, or is not known. The
    targets are not looked at.
    """
    if not sample.image_is_given:
        return None
    if sample.given_image is not None:
        return sample.given_image
    if len(sample.images) == 1:
        return 0
    named = {image for _, _, image in find_image_names(sample.instruction, len(sample.images))}
    return next(iter(named)) if len(named) == 1 else None


def _require_sizes(
    sample: GroundingSample,
    dialect: Dialect,
    image_sizes: ImageSizes | None,
    input_sizes: ImageSizes | None,
) -> None:
    """UserError where no box of the dialect could be read, whatever the response says.

    Reading alone would call every such answer unreadable, and blame the model.
    """
    if image_sizes or not (dialect.needs_image_size or dialect.needs_input_size):
        return
    if input_sizes and not dialect.needs_image_size:
        return
    needed = "image_sizes" if dialect.needs_image_size else "image_sizes or input_sizes"
    raise UserError(
        f"sample {sample.id!r}: boxes of dialect {dialect.name!r} are {dialect.space.describe()}, "
        f"but the size of its images is not known; give {needed} with the response, (width, "
        "height) in pixels of each image, or prepare the benchmark with its images"
    )


def _assemble(
    sample: GroundingSample, answer: Answer, iou: float, center: bool, rule: Protocol
) -> SampleScore:
    single = sample.kind == "single"
    finds_image = not sample.image_is_given and rule.reads_image
    image_right = images_right = several = None
    if single and finds_image:
        image_right = answer.image_index == sample.targets[0].image
    if sample.kind == "several":
        several = match_several(answer, sample.targets, check_image=not sample.image_is_given)
        if finds_image:
            images_right = set(answer.box_images) == {target.image for target in sample.targets}
    return SampleScore(
        id=sample.id,
        task=sample.task,
        cluster=sample.cluster,
        status=answer.status,
        box=answer.box,
        iou=iou if single else None,
        center=center if single else None,
        image_index=answer.image_index,
        image_right=image_right,
        no_target_right=None if sample.targets else answer.status == "none",
        f1=several and several.f1s[0],
        ap50=several and several.ap50,
        n_boxes=answer.n_boxes,
        n_units=answer.n_units,
        clipped=answer.clipped,
        excluded=not rule.on_all_rows and not sample.has_valid_targets,
        matched_iou=several and several.matched_iou,
        f1_95=several and several.f1s[-1],
        f1_mean=several and sum(several.f1s) / len(several.f1s),
        images_right=images_right,
        n_targets=len(sample.targets) if several else None,
    )


class SeveralScore(NamedTuple):
    """How the boxes of an answer fit several targets, each in [0, 1].

    Attributes:
        f1s: for each of `MACC_THRESHOLDS` 2 TP / (boxes + targets), where TP is the largest number
            of pairs that reach it.
        ap50: mean over targets of the precision at the rank where each was found, 0 for those
            never found. Boxes are taken in the order of the answer (responses carry no
            confidences); each takes the free target with the highest IoU if that reaches 0.5, as
            in COCO's matching.
        matched_iou: the largest sum of IoU over pairs with IoU >= 0.5, divided by the larger of
            boxes and targets: the smaller of precision and recall, with IoU in the place of hits.
            Pairs below 0.5 would pay for one box that is repeated for every target.
    """

    f1s: tuple[float, ...]
    ap50: float
    matched_iou: float


def match_several(answer: Answer, targets: Sequence[Target], *, check_image: bool) -> SeveralScore:
    """All boxes of an answer against several targets.

    In no pair is a box or a target of another one, so that a box repeated earns nothing. Invalid
    boxes count as boxes.

    Args:
        answer: a read response.
        targets: one or more true objects.
        check_image: whether a box counts only for targets on the image that its label names.
    """
    n_boxes, n_targets = max(answer.n_boxes, len(answer.boxes)), len(targets)
    if not answer.boxes:
        return SeveralScore((0.0,) * len(MACC_THRESHOLDS), 0.0, 0.0)
    true = np.array([target.box for target in targets])
    overlaps = np.round(box_iou(np.array(answer.boxes)[:, None, :], true[None]), IOU_DECIMALS)
    if check_image:
        named = np.array([-1 if image is None else image for image in answer.box_images])
        overlaps[named[:, None] != np.array([target.image for target in targets])] = 0.0
    free = np.ones(n_targets, dtype=bool)
    found = 0
    precisions = 0.0
    for rank, row in enumerate(overlaps, start=1):
        best = int(np.argmax(np.where(free, row, -1.0)))
        if free[best] and row[best] >= MATCH_IOU:
            free[best] = False
            found += 1
            precisions += found / rank
    hits = [largest_matching(overlaps >= threshold) for threshold in MACC_THRESHOLDS]
    shared = largest_matching(np.where(overlaps >= MATCH_IOU, overlaps, 0.0))
    return SeveralScore(
        f1s=tuple(2 * found / (n_boxes + n_targets) for found in hits),
        ap50=precisions / n_targets,
        matched_iou=round(shared / max(n_boxes, n_targets), IOU_DECIMALS),
    )


METRICS = (
    *(f"acc@{threshold}" for threshold in THRESHOLDS),
    *("miou", "macc", "center_acc", "answered", "image_acc", "joint@0.5"),
    *("no_target_acc", "f1@0.5", "f1@0.95", "f1_mean", "ap50", "matched_iou", "image_set_acc"),
)
"""Every name that `sample_metrics` gives to some sample."""


def sample_metrics(score: SampleScore) -> dict[str, float]:
    """The score of one sample under every metric that it counts in; their means are the results.

    An excluded sample counts in none.
    """
    if score.excluded:
        return {}
    if score.no_target_right is not None:
        return {"no_target_acc": float(score.no_target_right)}
    if score.f1 is not None:
        several: dict[str, float | bool | None] = {
            "f1@0.5": score.f1,
            "f1@0.95": score.f1_95,
            "f1_mean": score.f1_mean,
            "ap50": score.ap50,
            "matched_iou": score.matched_iou,
            "image_set_acc": score.images_right,
        }
        return {name: float(value) for name, value in several.items() if value is not None}
    iou = score.iou or 0.0
    values = {f"acc@{t}": float(iou >= t) for t in THRESHOLDS}
    values["miou"] = iou
    values["macc"] = sum(iou >= t for t in MACC_THRESHOLDS) / len(MACC_THRESHOLDS)
    values["center_acc"] = float(bool(score.center))
    values["answered"] = float(score.status == "ok")
    if score.image_right is not None:
        values["image_acc"] = float(score.image_right)
        values["joint@0.5"] = float(score.image_right and iou >= 0.5)
    return values


def is_share(metric: str) -> bool:
    """Whether every sample counts 0 or 1 under a metric; never of one that has no such samples."""
    means = {"miou", "macc", "f1@0.5", "f1@0.95", "f1_mean", "ap50", "matched_iou"}
    return metric in METRICS and metric not in means


HEADLINES = ("acc@0.5", "f1@0.5", "no_target_acc")
"""The metric that stands for a sample, by its kind: one target, several, none.

The number of a whole run is the unweighted mean over tasks of the first of these that any of its
samples has: ``acc@0.5`` of the samples with one target, however many others there are, as in
published tables. Values of different kinds are never put into one mean.
"""


def headline(score: SampleScore) -> float | None:
    """The one value of a sample in [0, 1], see `HEADLINES`; None for an excluded sample."""
    metrics = sample_metrics(score)
    return next((metrics[name] for name in HEADLINES if name in metrics), None)


def headline_metric(scores: Iterable[SampleScore]) -> str:
    """The metric of the one number of a run: the first of `HEADLINES` that any of its samples has.

    ``acc@0.5`` where no sample counts.
    """
    kinds = {_kind(score) for score in scores if not score.excluded}
    return HEADLINES[min(kinds, default=0)]


def _kind(score: SampleScore) -> int:
    """The place of the score's metric in `HEADLINES`."""
    return 2 if score.no_target_right is not None else 1 if score.f1 is not None else 0


class HeadlineValues:
    """The values behind the numbers of a run: metric of `HEADLINES` → task → one value a sample.

    Small enough for sets that are too large to hold as scores: 16 bytes a sample.

    Attributes:
        values: the values, in the order in which the scores were added.
        clusters: in the same order, a number for the cluster of each sample.
    """

    def __init__(self, scores: Iterable[SampleScore] = ()) -> None:
        self.values: dict[str, dict[str, array[float]]] = {}
        self.clusters: dict[str, dict[str, array[int]]] = {}
        for score in scores:
            self.add(score)

    def add(self, score: SampleScore) -> None:
        """Take the value of one score."""
        value = headline(score)
        if value is None:
            return
        # The same number in every process, other than `hash`.
        digest = blake2b(score.cluster.encode(), digest_size=8).digest()
        self._of(
            HEADLINES[_kind(score)], score.task, [value], [int.from_bytes(digest, signed=True)]
        )

    def merge(self, other: HeadlineValues) -> None:
        """Take everything that `other` has taken, as if it came after what is here."""
        for metric, tasks in other.values.items():
            for task, values in tasks.items():
                self._of(metric, task, values, other.clusters[metric][task])

    def _of(self, metric: str, task: str, values: Iterable[float], keys: Iterable[int]) -> None:
        self.values.setdefault(metric, {}).setdefault(task, array("d")).extend(values)
        self.clusters.setdefault(metric, {}).setdefault(task, array("q")).extend(keys)


# Sums are kept as whole multiples of 2**-60: exact, so that no order of the samples and no way of
# cutting a file into parts can change the last digit of a metric.
_UNIT = 1 << 60


class _TaskSums:
    """Sums of every metric over the samples of one task, with the count behind each."""

    def __init__(self) -> None:
        self.n = self.n_no_target = self.n_several = self.excluded = 0
        self.said_none = self.n_boxes = 0
        self.n_targets: int | None = 0  # None: older scores, which do not say it
        self.sums: dict[str, int] = {}
        self.counts: dict[str, int] = {}

    def add(self, score: SampleScore) -> None:
        if score.excluded:
            self.excluded += 1
        elif score.no_target_right is not None:
            self.n_no_target += 1
        elif score.f1 is not None:
            self.n_several += 1
            self.n_boxes += score.n_boxes
            self.n_targets = _sum(self.n_targets, score.n_targets)
        else:
            self.n += 1
        self.said_none += score.status == "none" and not score.excluded
        for name, value in sample_metrics(score).items():
            self.sums[name] = self.sums.get(name, 0) + int(value * _UNIT)
            self.counts[name] = self.counts.get(name, 0) + 1

    def merge(self, other: _TaskSums) -> None:
        self.n += other.n
        self.n_no_target += other.n_no_target
        self.n_several += other.n_several
        self.excluded += other.excluded
        self.said_none += other.said_none
        self.n_boxes += other.n_boxes
        self.n_targets = _sum(self.n_targets, other.n_targets)
        for name, value in other.sums.items():
            self.sums[name] = self.sums.get(name, 0) + value
            self.counts[name] = self.counts.get(name, 0) + other.counts[name]

    def result(self) -> dict[str, Any]:
        row: dict[str, Any] = {"n": self.n, "excluded": self.excluded}
        if self.n_no_target:
            row["n_no_target"] = self.n_no_target
        if self.n_several:
            row["n_several"] = self.n_several
        return row | {
            name: total / (self.counts[name] * _UNIT) for name, total in self.sums.items()
        }


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


class Tally:
    """Running sums of scores, for sets too large to hold: add, merge, then `result`."""

    def __init__(self) -> None:
        self._tasks: dict[str, _TaskSums] = {}

    def add(self, score: SampleScore) -> None:
        """Count one score."""
        self._tasks.setdefault(score.task, _TaskSums()).add(score)

    def merge(self, other: Tally) -> None:
        """Count everything that `other` has counted, as if it came after what is here."""
        for task, sums in other._tasks.items():
            self._tasks.setdefault(task, _TaskSums()).merge(sums)

    def result(self) -> dict[str, Any]:
        """The metrics; see `aggregate`."""
        tasks = {task: sums.result() for task, sums in self._tasks.items()}
        found = {"several": self._several(), "rejection": self._rejection()}
        return {"tasks": tasks, "macro": macro_average(tasks)} | {
            name: figures for name, figures in found.items() if figures
        }

    def _several(self) -> dict[str, Any]:
        n_several = n_boxes = 0
        n_targets: int | None = 0
        for sums in self._tasks.values():
            n_several += sums.n_several
            n_boxes += sums.n_boxes
            n_targets = _sum(n_targets, sums.n_targets)
        if not n_several:
            return {}
        return {
            "n_several": n_several,
            "boxes_per_answer": n_boxes / n_several,
            "targets_per_sample": None if n_targets is None else n_targets / n_several,
        }

    def _rejection(self) -> dict[str, Any]:
        sums = self._tasks.values()
        n_absent, n_said = sum(s.n_no_target for s in sums), sum(s.said_none for s in sums)
        if not n_absent:
            return {}
        right = sum(s.sums.get("no_target_acc", 0) for s in sums) // _UNIT
        found = {"n_no_target": n_absent, "n_said_none": n_said, "recall": right / n_absent}
        return found | {"precision": right / n_said if n_said else None}


def aggregate(scores: Iterable[SampleScore]) -> dict[str, Any]:
    """Metrics per task and their unweighted means.

    Args:
        scores: consumed once, in any order; one a sample, unanswered samples included (score
            them with the response None), or the denominator would be too small.

    Returns:
        ``{"tasks": {task: {"n", "excluded", "acc@0.3", …}}, "macro": {…}}``, shares as fractions,
        tasks in order of first appearance. ``n`` counts the samples with one target that are not
        excluded: the denominator of acc, miou, macc, center_acc and answered. Samples without
        target and with several are counted in ``n_no_target`` and ``n_several`` (left out when
        zero), the denominators of their own metrics. See `macro_average` for ``macro``.

        Where samples have several targets also ``several``, over all tasks: of the ``n_several``
        samples ``boxes_per_answer``, the mean of ``n_boxes``, unanswered samples included, and
        ``targets_per_sample`` (None for older scores, which do not say it). F1 pays for several
        guesses at one target; these show it.

        Where objects are absent also ``rejection``, over all tasks: ``recall``, the share of the
        ``n_no_target`` samples without target whose answer is an explicit none, and ``precision``,
        the share of the ``n_said_none`` such answers that are right (None if there are none).
    """
    tally = Tally()
    for score in scores:
        tally.add(score)
    return tally.result()


_COUNTS = frozenset({"n", "excluded", "n_no_target", "n_several"})
_COUNT_OF = {"no_target_acc": "n_no_target"} | dict.fromkeys(
    ("f1@0.5", "f1@0.95", "f1_mean", "ap50", "matched_iou", "image_set_acc"), "n_several"
)
"""The denominator of a metric, other than ``n``."""


def macro_average(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Unweighted mean over tasks of each metric that every task with such samples has.

    A task whose samples are all of another kind (no target, several) is not in the mean of ``acc``.
    The published MIG-Bench average is this mean of Acc@0.5 over the ten tasks.
    """
    means = {}
    for name in dict.fromkeys(name for row in tasks.values() for name in row):
        if name in _COUNTS:
            continue
        rows = [row for row in tasks.values() if row.get(_COUNT_OF.get(name, "n"))]
        if all(name in row for row in rows):
            means[name] = sum(row[name] for row in rows) / len(rows)
    return means
