"""Read answers for the tests of published rules, with boxes on a grid whose IoU can be counted."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from fractions import Fraction

from doc_pages import page_text
from factories import make_sample

from univg_eval.answers import Answer, Status
from univg_eval.boxes import Box
from univg_eval.published_rules import Answered
from univg_eval.samples import Target

__all__ = [
    "Cells",
    "answered",
    "cells",
    "counted_iou",
    "metrics_on_the_page",
    "most_pairs",
    "random_cells",
    "read",
    "without_task",
]

Cells = tuple[int, int, int, int]
"""x1, y1, x2, y2 on a grid of whole cells."""


def cells(box: Cells, width: int, height: int | None = None) -> Box:
    """The box on [0, 1] of an image of so many cells."""
    x1, y1, x2, y2 = box
    height = width if height is None else height
    return (x1 / width, y1 / height, x2 / width, y2 / height)


def read(
    boxes: Sequence[Box] = (),
    images: Sequence[int | None] | None = None,
    status: Status | None = None,
    n_boxes: int | None = None,
) -> Answer:
    """An answer with these boxes, on the first image unless said otherwise."""
    return Answer(
        status=status or ("ok" if boxes else "no_box"),
        box=boxes[0] if boxes else None,
        boxes=tuple(boxes),
        box_images=(0,) * len(boxes) if images is None else tuple(images),
        image_index=None,
        thinking=None,
        answer_text="",
        n_boxes=len(boxes) if n_boxes is None else n_boxes,
        n_units=1,
        clipped=False,
    )


def answered(targets: Sequence[Box], answer: Answer, **changes) -> Answered:
    """A sample of one image that asks for every object, with an answer."""
    sample = make_sample(
        images=("toy/images/a.png",),
        widths=(640,),
        heights=(480,),
        targets=tuple(Target(image=0, box=box) for box in targets),
        find_all=True,
        **changes,
    )
    return Answered(sample, answer, None)


def without_task(metrics: dict[str, float], task: str = "find") -> dict[str, float]:
    """The metrics of a whole set of one task, which has the same under its own name."""
    whole = {name: value for name, value in metrics.items() if f"{task}_{name}" in metrics}
    assert metrics == whole | {f"{task}_{name}": value for name, value in whole.items()}
    return whole


def _covered(box: Cells) -> set[tuple[int, int]]:
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def counted_iou(a: Cells, b: Cells) -> Fraction:
    """IoU by counting the cells of both boxes."""
    return Fraction(len(_covered(a) & _covered(b)), len(_covered(a) | _covered(b)))


def random_cells(source: random.Random, side: int, near: Cells | None = None) -> Cells:
    """A box on a grid; `near` another one, a cell off at most on each side."""
    if near is None:
        x1, y1 = source.randrange(side - 1), source.randrange(side - 1)
        return (x1, y1, source.randint(x1 + 1, side), source.randint(y1 + 1, side))
    x1, y1, x2, y2 = (min(max(v + source.choice((-1, 0, 0, 0, 1)), 0), side) for v in near)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else near


def most_pairs(fits: Sequence[Sequence[bool]]) -> int:
    """The largest number of fitting pairs that share neither row nor column, by trying all."""
    if not fits:
        return 0
    first, *rest = fits
    without = most_pairs(rest)
    taken = [
        1 + most_pairs([[*row[:column], False, *row[column + 1 :]] for row in rest])
        for column, fit in enumerate(first)
        if fit
    ]
    return max([without, *taken])


def metrics_on_the_page(rule: str) -> set[str]:
    """Names in code type in a rule's section of docs/published_rules.md."""
    section = page_text("published_rules").split(f"\n## {rule}\n")[1].split("\n## ")[0]
    return set(re.findall(r"`([^`]+)`", section))
