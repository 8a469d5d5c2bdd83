"""Points as answers: read in a model's dialect, and scored as inside a mask or a box.

A response is read by the rule of `univg_eval.answers` (thinking removed, answer section, images
named, explicit "none"), with the grammar of points in the place of that of boxes: a box is no point
here, and a point no box there. No ground truth is looked at.

Two scores of one sample, as published:

* `point_accuracy`: the share of all points that lie inside (RefSpatial-Bench, Where2Place);
* `first_point_hit`: whether the first point does (Point-Bench, which asks for one point).

Silence, a "none" and an unreadable answer have no points and score 0, here as there. A sample
without any target has no such score: whether the answer is a "none" says its status.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from univg_eval.answers import Sizes, read_items
from univg_eval.boxes import center_in_box
from univg_eval.dialects import Dialect, get_dialect, list_dialects
from univg_eval.errors import UserError
from univg_eval.samples import Target

__all__ = [
    "Point",
    "PointAnswer",
    "PointStatus",
    "first_point_hit",
    "parse_points",
    "point_accuracy",
]

Point = tuple[float, float]
"""(x, y) on [0, 1] of its image, from the upper left corner."""

PointStatus = Literal["ok", "no_point", "none", "truncated", "invalid_point"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PointAnswer:
    """What points a response gives.

    Attributes:
        status: ``ok``: at least one point lies in its image; ``no_point``: nothing readable, or
            pixels of an image whose size is not known; ``none``: an explicit "no such
            object" and no point after it; ``truncated``: thinking or answer never closed, and no
            point outside the thinking; ``invalid_point``: every point lies outside its image.
        points: every point that counts, in order, (x, y) on [0, 1] of its image. One outside the
            image, or not finite, stays as it is: it is a miss, and counts in the denominator.
        images: parallel to `points`: the 0-based image that the answer names for it, or None.
        thinking: the removed text without its outermost marks; None where there was none.
        answer_text: the answer section.
    """

    status: PointStatus
    points: tuple[Point, ...]
    images: tuple[int | None, ...]
    thinking: str | None
    answer_text: str


def parse_points(
    text: str,
    dialect: str | Dialect,
    *,
    image_sizes: Sequence[Size] | None = None,
    input_sizes: Sequence[Size] | None = None,
    target_image: int | None = None,
    image_is_given: bool | None = None,
) -> PointAnswer:
    """Read the points of a response.

    Args:
        text: the whole response, thinking included. No string makes this raise.
        dialect: how the model writes points; a name (`univg dialects`) or a dialect.
        image_sizes: (width, height) in pixels of each original image; needed for points in pixels.
            With it, a number that names no image of these names none.
        input_sizes: (width, height) in pixels of each image as the model saw it.
        target_image: 0-based image that the instruction names; None where the model had to find
            it. Points that the answer labels with another image do not count then.
        image_is_given: whether the instruction names the image; None: if `target_image` is given.

    Returns:
        The answer.

    Raises:
        UserError: it is not known how the family writes points, the dialect's points are pixels and
            no sizes are given, or sizes and `target_image` do not fit each other.
    """
    rule = get_dialect(dialect) if isinstance(dialect, str) else dialect
    if rule.point_grammar is None:
        known = [name for name in list_dialects() if get_dialect(name).point_grammar is not None]
        raise UserError(
            f"it is not known how dialect {rule.name!r} writes points; expected one of "
            f"{', '.join(known)}: ask for points in a form of the plain ones, and read that"
        )
    if (rule.needs_image_size or rule.needs_input_size) and not (image_sizes or input_sizes):
        raise UserError(
            f"points of dialect {rule.name!r} are {rule.space.describe()}, but no sizes are given; "
            "pass image_sizes=[(width, height), ...], one an image"
        )
    split, _, counting, chosen = read_items(
        text,
        rule.point_grammar,
        image_sizes=image_sizes,
        input_sizes=input_sizes,
        target_image=target_image,
        image_is_given=image_is_given,
    )
    status: PointStatus = "truncated" if split.unclosed else "no_point"
    points: list[Point] = []
    images: list[int | None] = []
    if chosen is not None and chosen.raw is None:
        status = "none"
    elif chosen is not None:
        sizes = Sizes(rule, image_sizes, input_sizes, target_image)
        for item in counting:
            if item.raw is None:
                continue
            size = sizes.of(item.named)
            if size is None:
                # Left out, it would be missing in the denominator.
                points, images, status = [], [], "no_point"
                break
            points.append(rule.decode_point(item.raw, *size))
            images.append(item.named)
        if points:
            status = "ok" if any(map(_in_image, points)) else "invalid_point"
    return PointAnswer(status, tuple(points), tuple(images), split.thinking, split.section.strip())


def point_accuracy(
    points: Sequence[Point],
    targets: Sequence[Target],
    *,
    images: Sequence[int | None] | None = None,
) -> float:
    """The share of a sample's points that lie in any target.

    This is the accuracy of RefSpatial-Bench (Zhoues/RoboRefer d97a995,
    ``Evaluation/summarize_acc.py``, ``compute_accuracy``) and of Where2Place
    (wentaoyuan/RoboPoint adbee8d, ``robopoint/eval/summarize_vqa.py``), whose set's score is the
    mean over samples. Points outside the image are misses. Two differences to both: they read
    a box as every pixel in it, and leave samples whose reading raises out of the mean.

    A point lies in a target's mask if the pixel does that holds it: column ``floor(x * width)``,
    row ``floor(y * height)`` of the mask; the last where x or y is 1, which 0-1000 writes for the
    right and lower edge (upstream that is a miss). It lies in a target without a mask if it lies in
    its box, edges included.

    Args:
        points: (x, y) on [0, 1], as in `PointAnswer.points`.
        targets: at least one; those of one image, unless `images` is given.
        images: parallel to `points`, as in `PointAnswer.images`: a point that names an image lies
            in targets on that image alone, one that names none in any.

    Returns:
        Points inside divided by all points; 0 without points.

    Raises:
        UserError: no targets, a damaged mask, or `images` of another length than `points`.
    """
    hits = _hits(points, targets, images)
    return sum(hits) / len(hits) if hits else 0.0


def first_point_hit(
    points: Sequence[Point],
    targets: Sequence[Target],
    *,
    images: Sequence[int | None] | None = None,
) -> float:
    """1 if a sample's first point lies in any target, else 0; for sets that ask for one point.

    This is the success of Point-Bench (pointarena/pointarena dcd82f2, ``model_evaluator.py`` and
    ``molmo_evaluator.py``) in all categories but counting: the first of several points is scored,
    none is a failure. In counting all points have to be inside, and as many as expected:
    ``len(points) == count and point_accuracy(points, targets) == 1``.

    Arguments, errors, and where a point lies: see `point_accuracy`.
    """
    hits = _hits(points[:1], targets, images[:1] if images is not None else None)
    return float(any(hits))


def _hits(
    points: Sequence[Point], targets: Sequence[Target], images: Sequence[int | None] | None
) -> list[bool]:
    """For each point, whether it lies in any target."""
    if not targets:
        raise UserError(
            "points cannot be scored without a target; expected at least one: where the object is "
            "absent, look at the answer's status, 'none'"
        )
    named = [None] * len(points) if images is None else images
    if len(named) != len(points):
        raise UserError(
            f"{len(named)} images for {len(points)} points; expected one (or None) a point"
        )
    hits = [False] * len(points)
    for number, target in enumerate(targets):
        open_points = [
            i
            for i, (point, image) in enumerate(zip(points, named, strict=True))
            if not hits[i] and image in (None, target.image) and _in_image(point)
        ]
        if open_points:
            inside = _inside([points[i] for i in open_points], target, f"targets[{number}]")
            for i, hit in zip(open_points, inside, strict=True):
                hits[i] = hit
    return hits


def _inside(points: Sequence[Point], target: Target, where: str) -> list[bool]:
    """Whether each point, all of them within the image, lies in the target."""
    if target.mask is None:
        # A point is a box of which the centre is looked at.
        return [bool(center_in_box((x, y, x, y), target.box)) for x, y in points]
    from univg_eval.benchmarks.readers.common.masks import read_rle

    pixels = read_rle(target.mask, where).pixels()
    height, width = pixels.shape
    return [
        bool(pixels[min(math.floor(y * height), height - 1), min(math.floor(x * width), width - 1)])
        for x, y in points
    ]


def _in_image(point: Point) -> bool:
    """Whether a point lies in its image, edges included; NaN does not."""
    return all(0.0 <= value <= 1.0 for value in point)
