"""The task second_view: an object is marked in a photograph; find it in another view."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from univg_eval.benchmarks.synthetic.mini.layout import instruction_box
from univg_eval.benchmarks.synthetic.photos.question import MAX_SHARE, Album, Question, to_norm
from univg_eval.benchmarks.synthetic.photos.sources import Annotation
from univg_eval.benchmarks.synthetic.photos.views import random_view
from univg_eval.boxes import box_iou

__all__ = ["MAX_COPY_IOU", "second_view"]

MAX_COPY_IOU = 0.35
"""Largest IoU of the true box with the box in the question, which could be copied."""
_MIN_FILL = 0.8
_MAX_STRETCH = 1.3
_MIN_SIDE = 20
_GAINS = (0.88, 1.12)
_MAX_VIEWS = 60
_MAX_ATTEMPTS = 2000


def second_view(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """The photograph with an object's box in the question, then another view of it."""
    todo: list[Annotation] = []
    found = 0
    failures = 0
    while found < n:
        if not todo:
            todo = rng.sample(album.annotations, len(album.annotations))
        question = _view_of(album, rng, todo.pop())
        if question is None:
            failures += 1
            if failures > _MAX_ATTEMPTS:
                raise AssertionError("no annotated object has a second view")
            continue
        found += 1
        yield question


def _view_of(album: Album, rng: random.Random, annotation: Annotation) -> Question | None:
    """A question about another view; None for objects that no view moves far enough."""
    name = annotation.photo
    wh = album.wh(name)
    marked = to_norm(annotation.bbox, wh)
    for _ in range(_MAX_VIEWS):
        view = random_view(rng, wh, annotation.bbox)
        x1, y1, x2, y2 = view.box(annotation.bbox)
        box = to_norm((x1, y1, x2, y2), wh)
        gain = rng.uniform(*_GAINS)
        if (
            min(x1, y1) < 1
            or x2 > wh[0] - 1
            or y2 > wh[1] - 1
            or min(x2 - x1, y2 - y1) < _MIN_SIDE
            or (box[2] - box[0]) * (box[3] - box[1]) > MAX_SHARE
            or view.fill(annotation.bbox) < _MIN_FILL
            or view.stretch(annotation.bbox) > _MAX_STRETCH
            or box_iou(marked, box) > MAX_COPY_IOU
        ):
            continue
        drawn = np.clip(np.rint(view.draw(album.pixels[name]) * gain), 0, 255).astype(np.uint8)
        return Question(
            images=(name, drawn),
            instruction=(
                "The two images are views of the same scene. In the first image the box "
                f"{instruction_box(marked)} holds an object. Locate this object in the second "
                "image."
            ),
            target_image=1,
            box=box,
            subject=name,
            kind="view",
            extra={
                "question_box_image": 0,
                "object": annotation.expression,
                "gain": round(gain, 3),
                "fill": round(view.fill(annotation.bbox), 3),
                "homography": [[round(float(v), 9) for v in row] for row in view.forward],
            },
        )
    return None
