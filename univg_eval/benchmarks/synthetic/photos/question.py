"""One question of the benchmark, and the photographs that all tasks draw from."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from univg_eval.benchmarks.synthetic.photos.sources import (
    Annotation,
    Photo,
    Pixels,
    load_photo,
    read_sources,
)
from univg_eval.boxes import Box

__all__ = [
    "MAX_SHARE",
    "Album",
    "Enlarged",
    "Question",
    "Shown",
    "load_album",
    "spread",
    "to_norm",
]

MAX_SHARE = 0.12
"""Largest part of its image that the target of a composite covers.

The box (0.25, 0.25, 0.75, 0.75) has an area of 0.25, so it reaches an IoU of 0.5 with none.
"""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Enlarged:
    """A photograph at another size, one file for all questions about it.

    Attributes:
        name: of the photograph.
        wh: (width, height) in pixels.
    """

    name: str
    wh: tuple[int, int]


Shown = str | Enlarged | Pixels
"""An image of a question: the name of an untouched photograph, one enlarged, or pixels made for the
question."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
        images: in order.
        instruction: the question; a box in it is written as `mini.layout.instruction_box` does.
        target_image: 0-based.
        box: the true box, xyxy_norm of that image.
        subject: the photograph (or scene) that the question is about: its cluster.
        kind: how it was made, within its task.
        image_is_given: False where the image itself has to be found.
        extra: further facts about it.
    """

    images: tuple[Shown, ...]
    instruction: str
    target_image: int
    box: Box
    subject: str
    kind: str
    image_is_given: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Album:
    """The photographs, loaded, and what is known about them."""

    photos: Mapping[str, Photo]
    pixels: Mapping[str, Pixels]
    annotations: tuple[Annotation, ...]

    @property
    def names(self) -> list[str]:
        """Names of the photographs."""
        return list(self.photos)

    def wh(self, name: str) -> tuple[int, int]:
        """(width, height) of a photograph in pixels."""
        return self.photos[name].width, self.photos[name].height

    def is_gray(self, name: str) -> bool:
        """Whether a photograph has no colour."""
        pixels = self.pixels[name]
        return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1:2] == pixels).all())

    def rotation(self, rng: random.Random, n: int) -> list[str]:
        """`n` names in which all photographs are about equally frequent."""
        return spread(rng, self.names, n)


def spread(rng: random.Random, values: Sequence[_Value], n: int) -> list[_Value]:
    """`n` values in shuffled rounds, so that every value is about equally frequent."""
    chosen: list[_Value] = []
    while len(chosen) < n:
        chosen.extend(rng.sample(values, len(values)))
    return chosen[:n]


def load_album() -> Album:
    """Load and check the photographs.

    Raises:
        UserError: see `sources.load_photo`.
    """
    photos, annotations = read_sources()
    return Album(
        photos={photo.name: photo for photo in photos},
        pixels={photo.name: load_photo(photo) for photo in photos},
        annotations=annotations,
    )


def to_norm(box: tuple[float, float, float, float], wh: tuple[int, int]) -> Box:
    """A box in pixels as xyxy_norm of an image of (width, height) pixels."""
    width, height = wh
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height
