"""Random choices that every task shares: labels, sizes, places, backgrounds, wording.

Places are whole numbers on a lattice of 28 x 28 units, so that boxes are exact at every image
size that is a multiple of 28.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from univg_eval.benchmarks.synthetic.mini.scene import (
    COLORS,
    SHAPES,
    Background,
    Scene,
    SceneObject,
)
from univg_eval.boxes import Box

__all__ = [
    "ALL_LABELS",
    "HELD_OUT",
    "LATTICE",
    "Label",
    "Maker",
    "RetryScene",
    "SpotBox",
    "centre",
    "distance",
    "instruction_box",
    "nth",
    "ordinal",
    "other_colors",
    "other_shapes",
    "to_norm",
]

LATTICE = 28
Label = tuple[str, str]
"""(colour, shape)"""
SpotBox = tuple[int, int, int, int]
"""xyxy on the lattice"""

HELD_OUT: frozenset[Label] = frozenset(
    (color, SHAPES[i % len(SHAPES)]) for i, color in enumerate(COLORS)
)
"""Combinations that no training scene ever shows: one a colour."""

ALL_LABELS: tuple[Label, ...] = tuple((color, shape) for color in COLORS for shape in SHAPES)
SEEN: tuple[Label, ...] = tuple(label for label in ALL_LABELS if label not in HELD_OUT)
_HELD_OUT_ORDERED: tuple[Label, ...] = tuple(label for label in ALL_LABELS if label in HELD_OUT)

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_NTH = ("1st", "2nd", "3rd", "4th", "5th", "6th")

_Kind = TypeVar("_Kind")


class RetryScene(Exception):  # noqa: N818  (a signal inside the generator, never an error)
    """The random choices so far admit no scene; the generator draws new ones."""


def to_norm(spot: SpotBox) -> Box:
    """Lattice box to xyxy_norm."""
    return (spot[0] / LATTICE, spot[1] / LATTICE, spot[2] / LATTICE, spot[3] / LATTICE)


def instruction_box(box: Box) -> str:
    """A box inside an instruction: 0-1000, as MIG-Bench writes it."""
    x1, y1, x2, y2 = (round(v * 1000) for v in box)
    return f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"


def other_colors(label: Label) -> list[str]:
    """All colours but that of a label."""
    return [color for color in COLORS if color != label[0]]


def other_shapes(label: Label) -> list[str]:
    """All shapes but that of a label."""
    return [shape for shape in SHAPES if shape != label[1]]


def ordinal(index: int) -> str:
    """0-based index to "first", "second", ..."""
    return _ORDINALS[index]


def nth(index: int) -> str:
    """0-based index to "1st", "2nd", ..."""
    return _NTH[index]


def _gap_between(a: SpotBox, b: SpotBox) -> int:
    """Free units between two boxes along the axis that separates them most; < 0: overlap."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])


@dataclass(slots=True)
class Maker:
    """Draws labels, sizes and places for one item.

    Attributes:
        rng: the item's own generator.
        held_out: whether the target's label must be one of `HELD_OUT`; all other labels of
            the item are always seen ones.
        words: the generator of the wording; items that share images differ in it.
        fate: a number in [0, 1) that chooses the kind of question; it outlives a retry, so
            that kinds which need many attempts stay as frequent as the others.
        member: which question about shared images this is.
    """

    rng: random.Random
    held_out: bool
    words: random.Random
    fate: float
    member: int = 0

    def kind(self, kinds: Sequence[_Kind]) -> _Kind:
        """The kind of question of this item, out of equally likely ones."""
        return kinds[int(self.fate * len(kinds))]

    # -- labels ---------------------------------------------------------------------------
    def target_label(
        self, *, shapes: Iterable[str] | None = None, colors: Iterable[str] | None = None
    ) -> Label:
        """A label for the target."""
        return self._pick(_HELD_OUT_ORDERED if self.held_out else SEEN, shapes, colors, ())

    def other_label(
        self,
        *,
        shapes: Iterable[str] | None = None,
        colors: Iterable[str] | None = None,
        avoid: Iterable[Label] = (),
    ) -> Label:
        """A label for anything else than the target."""
        return self._pick(SEEN, shapes, colors, avoid)

    def near_label(self, label: Label, *, avoid: Iterable[Label] = ()) -> Label:
        """A seen label that shares the colour or the shape of `label`, but not both."""
        avoid = {*avoid, label}
        options = [
            other
            for other in SEEN
            if other not in avoid and (other[0] == label[0]) != (other[1] == label[1])
        ]
        return self._choose(options)

    def distractors(self, label: Label, n: int, *, avoid: Iterable[Label] = ()) -> list[Label]:
        """`n` different seen labels other than `label`; about half share its colour or shape."""
        chosen: list[Label] = []
        for _ in range(n):
            taken = {*avoid, *chosen, label}
            if self.rng.random() < 0.5:
                chosen.append(self.near_label(label, avoid=taken))
            else:
                chosen.append(self.other_label(avoid=taken))
        return chosen

    def _pick(
        self,
        pool: Sequence[Label],
        shapes: Iterable[str] | None,
        colors: Iterable[str] | None,
        avoid: Iterable[Label],
    ) -> Label:
        shape_set = None if shapes is None else set(shapes)
        color_set = None if colors is None else set(colors)
        avoid_set = set(avoid)
        options = [
            label
            for label in pool
            if label not in avoid_set
            and (shape_set is None or label[1] in shape_set)
            and (color_set is None or label[0] in color_set)
        ]
        return self._choose(options)

    def _choose(self, options: Sequence[Label]) -> Label:
        if not options:
            raise RetryScene
        return self.rng.choice(options)

    # -- sizes and places -------------------------------------------------------------------
    def size(self, low: int = 5, high: int = 10) -> int:
        """A side in lattice units; 5 to 10 is 0.18 to 0.36 of the image."""
        return self.rng.randint(low, high)

    def place(
        self,
        size: int,
        taken: Sequence[SpotBox] = (),
        *,
        gap: int = 1,
        margin: int = 0,
        where: Callable[[SpotBox], bool] | None = None,
    ) -> SpotBox:
        """A uniformly random free square of `size`, at least `gap` units from the taken ones."""
        for _ in range(60):
            x = self.rng.randint(margin, LATTICE - size - margin)
            y = self.rng.randint(margin, LATTICE - size - margin)
            spot = (x, y, x + size, y + size)
            if all(_gap_between(spot, other) >= gap for other in taken) and (
                where is None or where(spot)
            ):
                return spot
        raise RetryScene

    def spread(self, sizes: Sequence[int], *, gap: int = 1, margin: int = 0) -> list[SpotBox]:
        """Places for several squares; the first is uniform over the image."""
        spots: list[SpotBox] = []
        for size in sizes:
            spots.append(self.place(size, spots, gap=gap, margin=margin))
        return spots

    def objects(self, labels: Sequence[Label], spots: Sequence[SpotBox]) -> list[SceneObject]:
        """Objects from labels and places."""
        return [
            SceneObject(shape=shape, color=color, box=to_norm(spot))
            for (color, shape), spot in zip(labels, spots, strict=True)
        ]

    def scene(self, objects: Sequence[SceneObject]) -> Scene:
        """A scene on a fresh background, drawn in random order."""
        order = list(objects)
        self.rng.shuffle(order)
        return Scene(background=self.background(), objects=tuple(order))

    def background(self) -> Background:
        """Muted ramp: red grows to the right, green downwards, so a patch shows its place."""
        jitter = self.rng.uniform
        red, green, blue = jitter(72, 92), jitter(72, 92), jitter(105, 140)
        return Background(
            (red, green, blue), (jitter(78, 98), 0.0, 0.0), (0.0, jitter(78, 98), 0.0)
        )

    def say(self, templates: Sequence[str], **words: str) -> str:
        """One of the templates, filled."""
        return self.words.choice(templates).format(**words)

    def image(self, index: int, *, noun: str = "image") -> str:
        """One of the ways to name an image: "the 2nd image", "the second image", "Image-2"."""
        ways = [f"the {nth(index)} {noun}", f"the {ordinal(index)} {noun}"]
        if noun == "image":
            ways.append(f"Image-{index + 1}")
        return self.words.choice(ways)


def centre(box: Sequence[float]) -> tuple[float, float]:
    """Centre of a box in the box's own units."""
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Distance between the centres of two boxes in their own units."""
    (ax, ay), (bx, by) = centre(a), centre(b)
    return math.hypot(ax - bx, ay - by)
