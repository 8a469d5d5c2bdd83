"""The easy task: one plain shape on a smooth ground, drawn with the scenes of univg_mini."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from univg_eval.benchmarks.synthetic.mini.layout import SEEN, Maker
from univg_eval.benchmarks.synthetic.photos.question import Album, Question, spread

__all__ = ["EASY_SIDE", "easy"]

EASY_SIDE = 448
"""Pixels; a multiple of the lattice of the scenes, so that boxes are exact."""
_LATTICE_SIDES = (5, 9)


def easy(album: Album, rng: random.Random, n: int) -> Iterator[Question]:
    """A scene with one object and nothing else: whoever answers boxes at all finds it."""
    for index, (color, shape) in enumerate(spread(rng, SEEN, n)):
        maker = Maker(rng=rng, held_out=False, words=rng, fate=0.0)
        (spot,) = maker.spread([maker.size(*_LATTICE_SIDES)], margin=1)
        (thing,) = maker.objects([(color, shape)], [spot])
        scene = maker.scene([thing])
        yield Question(
            images=(np.asarray(scene.render(EASY_SIDE), dtype=np.uint8),),
            instruction=f"Locate the {color} {shape}.",
            target_image=0,
            box=thing.box,
            subject=f"easy-{index:03d}",
            kind="one_object",
            extra={"label": f"{color} {shape}"},
        )
