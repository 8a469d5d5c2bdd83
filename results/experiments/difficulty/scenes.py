"""Scenes of the experiment: easy and hard questions about coloured shapes, boxes anywhere.

An easy scene shows one object. A hard one shows a smaller target beside another object of
another colour, so that the colour has to be found as well as the place. Coordinates are
continuous: neither targets nor their sizes lie on a lattice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from univg_eval.benchmarks.synthetic.mini.scene import Background, Scene, SceneObject
from univg_eval.boxes import Box

__all__ = [
    "COLORS",
    "KINDS",
    "SHAPES",
    "Kind",
    "Question",
    "draw_images",
    "draw_question",
    "say_box",
]

Kind = Literal["easy", "hard"]
KINDS: tuple[Kind, ...] = ("easy", "hard")
COLORS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle")

SIDES: dict[Kind, tuple[float, float]] = {"easy": (0.22, 0.42), "hard": (0.13, 0.26)}
"""Smallest and largest side of a target, as a share of the image's."""
_OTHER_SIDE = (0.13, 0.42)
_GAP = 0.03
_ATTEMPTS = 500


@dataclass(frozen=True, slots=True)
class Question:
    """A scene and the object to be found.

    Attributes:
        kind: "easy" or "hard".
        scene: with all its objects.
        target: the one that is meant; no other has its colour.
    """

    kind: Kind
    scene: Scene
    target: SceneObject

    @property
    def text(self) -> str:
        """The question, without what a prompt style adds."""
        return f"Locate the {self.target.label}."

    @property
    def from_left(self) -> list[SceneObject]:
        """The objects by their centres, left to right."""
        return sorted(self.scene.objects, key=lambda thing: thing.box[0] + thing.box[2])


def say_box(box: Box, *, step: int = 10) -> str:
    """A box on 0-1000 as Qwen2-VL writes it, coordinates rounded to multiples of `step`.

    Few values to learn for a small model; the boxes it is measured by stay as they are.
    """
    x1, y1, x2, y2 = (round(v * 1000 / step) * step for v in box)
    return f"({x1},{y1}),({x2},{y2})"


def draw_question(kind: Kind, seed: int, index: int) -> Question:
    """Question `index` of the endless stream of `seed`; the same arguments give the same one."""
    rng = random.Random(f"univg difficulty {kind} {seed} {index}")
    for _ in range(_ATTEMPTS):
        boxes = [_box(rng, SIDES[kind])]
        if kind == "hard":
            boxes.append(_box(rng, _OTHER_SIDE))
        if all(_apart(a, b) for i, a in enumerate(boxes) for b in boxes[:i]):
            break
    else:
        raise RuntimeError(f"no room for the objects of scene {kind} {seed} {index}")
    colors = rng.sample(COLORS, len(boxes))
    objects = tuple(
        SceneObject(shape=rng.choice(SHAPES), color=color, box=box)
        for color, box in zip(colors, boxes, strict=True)
    )
    return Question(kind, Scene(background=_background(rng), objects=objects), objects[0])


def draw_images(scenes: Sequence[Scene], side: int) -> np.ndarray:
    """The scenes as the model sees them, uint8 (scenes, side, side, 3)."""
    return np.stack([np.asarray(scene.render(side)) for scene in scenes])


def _box(rng: random.Random, sides: tuple[float, float]) -> Box:
    width, height = rng.uniform(*sides), rng.uniform(*sides)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return x, y, x + width, y + height


def _apart(a: Box, b: Box) -> bool:
    across = a[2] + _GAP <= b[0] or b[2] + _GAP <= a[0]
    return across or a[3] + _GAP <= b[1] or b[3] + _GAP <= a[1]


def _background(rng: random.Random) -> Background:
    """Red grows to the right and green downwards, which tells a patch where it is."""
    base = (rng.uniform(72, 92), rng.uniform(72, 92), rng.uniform(105, 140))
    return Background(base, (rng.uniform(78, 98), 0.0, 0.0), (0.0, rng.uniform(78, 98), 0.0))
