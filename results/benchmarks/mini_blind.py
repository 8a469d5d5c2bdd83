"""What answers without understanding score on univg_mini: the floor of every task.

Run ``python results/benchmarks/mini_blind.py`` for the table of docs/univg_mini.md.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np

from univg_eval.benchmarks.synthetic.mini.generator import DEFAULT_SEED, TASKS, Subset, generate
from univg_eval.boxes import Box, box_iou

__all__ = ["BASELINES", "best_fixed_box", "blind_accuracy"]

BASELINES = ("fixed", "any_object", "center", "full")
_THRESHOLD = 0.5
_GRID = 14


def best_fixed_box(task: str, *, n: int = 2000, seed: int = DEFAULT_SEED) -> Box:
    """The one box with the most IoU >= 0.5 on `n` training questions of a task."""
    truth = np.array([generate(task, seed=seed, index=i, subset="train").box for i in range(n)])
    marks = [i / _GRID for i in range(_GRID + 1)]
    spans = [(a, b) for a, b in itertools.combinations(marks, 2) if b - a >= 2 / _GRID]
    boxes = np.array([(x1, y1, x2, y2) for (x1, x2), (y1, y2) in itertools.product(spans, spans)])
    hits = np.zeros(len(boxes), dtype=int)
    for box in truth:
        hits += box_iou(boxes, box) >= _THRESHOLD
    x1, y1, x2, y2 = (float(v) for v in boxes[int(hits.argmax())])
    return x1, y1, x2, y2


def blind_accuracy(
    task: str, *, fixed: Box, n: int, seed: int, subset: Subset = "eval"
) -> dict[str, float]:
    """Acc@0.5 of each of `BASELINES` over `n` questions of a task, as fractions.

    ``center`` is the box (0.25, 0.25, 0.75, 0.75), ``full`` the whole image, ``fixed`` the given
    box, ``any_object`` the expected score of naming a random object: one of the right image, or
    of all images where the image has to be found.
    """
    hits = dict.fromkeys(BASELINES, 0.0)
    for index in range(n):
        item = generate(task, seed=seed, index=index, subset=subset)
        guesses = {"center": (0.25, 0.25, 0.75, 0.75), "full": (0.0, 0.0, 1.0, 1.0), "fixed": fixed}
        for name, guess in guesses.items():
            hits[name] += float(box_iou(guess, item.box) >= _THRESHOLD)
        in_image = [box_iou(obj.box, item.box) for obj in item.objects[item.target_image]]
        n_objects = len(in_image) if item.image_is_given else sum(map(len, item.objects))
        hits["any_object"] += float((np.array(in_image) >= _THRESHOLD).sum() / n_objects)
    return {name: value / n for name, value in hits.items()}


def main() -> None:
    """Print the table as Markdown: percent, n = 1,000 questions a task of another seed."""
    rows = []
    for task in TASKS:
        fixed = best_fixed_box(task)
        rows.append(blind_accuracy(task, fixed=fixed, n=1000, seed=DEFAULT_SEED + 1))
        cells = " | ".join(f"{100 * rows[-1][name]:.1f}" for name in BASELINES)
        sys.stdout.write(f"| {task} | {cells} |\n")
    macro = " | ".join(f"{100 * np.mean([row[name] for row in rows]):.1f}" for name in BASELINES)
    sys.stdout.write(f"| macro | {macro} |\n")


if __name__ == "__main__":
    main()
