"""``univg_baseline``: answers whose score is known in advance, to calibrate a whole evaluation.

=========  ==================================================================================
oracle     the true boxes (and image): exactly 1 in every metric
center     the middle half of each side, first image
full       the whole first image
copy       the first box that the question names, on the image asked for; else as ``center``
random     a random box on a random image, independent of the truth
spray      twenty-five boxes, the one of ``center`` first: must score what ``center`` scores
none       "There are none.": exactly 1 in ``no_target_acc``, else 0
refuse     no box, and no claim that there is none: 0 in every metric
noisy      the oracle with probability p, else a box away from the truth, on another image
=========  ==================================================================================

Boxes are written on [0, 1] with full precision, unless a dialect is set explicitly: then in
that dialect's own form, and the oracle scores what its rounding allows.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from lmms_eval.api.instance import Instance

from univg_eval.boxes import Box, is_valid_box
from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.lmms.backends.samples import SampleModel
from univg_eval.lmms.settings import BASELINE_DIALECT, SETTINGS_KEY, RunSettings
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.prompts import question_boxes
from univg_eval.samples import GroundingSample
from univg_eval.scoring import given_image

__all__ = ["KINDS", "BaselineModel", "answer_boxes", "box_away_from", "is_hit"]

Placed = tuple[int, Box]
"""(0-based image, box xyxy_norm)"""

_CENTER: Box = (0.25, 0.25, 0.75, 0.75)
_FULL: Box = (0.0, 0.0, 1.0, 1.0)
_REFUSAL = "I am sorry, I cannot tell where that is."
_NOTHING = "There are none."
_CORNER = 0.01


def _spray(sample: GroundingSample, seed: int, p: float) -> list[Placed]:
    steps = (0.0, 0.15, 0.3, 0.45, 0.6)
    grid: list[Placed] = [(0, (x, y, x + 0.4, y + 0.4)) for y in steps for x in steps]
    return [(0, _CENTER), *grid[:-1]]


def _copy(sample: GroundingSample, seed: int, p: float) -> list[Placed]:
    named = question_boxes(sample.instruction)
    return [(given_image(sample) or 0, named[0])] if named else [(0, _CENTER)]


def _random_box(sample: GroundingSample, seed: int, p: float) -> list[Placed]:
    rng = random.Random(_number(seed, "random", sample.id))
    x1, x2 = sorted((rng.random(), rng.random()))
    y1, y2 = sorted((rng.random(), rng.random()))
    return [(rng.randrange(len(sample.images)), (x1, y1, x2, y2))]


def _oracle(sample: GroundingSample, seed: int, p: float) -> list[Placed]:
    return [(target.image, target.box) for target in sample.targets]


def _noisy(sample: GroundingSample, seed: int, p: float) -> list[Placed]:
    if is_hit(seed, sample.id, p):
        return _oracle(sample, seed, p)
    if not sample.targets:
        return [(0, _CENTER)]
    # Away from all targets: with several, the free strip beside one may be another.
    x1, y1, x2, y2 = zip(*(target.box for target in sample.targets), strict=True)
    image = (sample.targets[0].image + 1) % len(sample.images)
    return [(image, box_away_from((min(x1), min(y1), max(x2), max(y2))))]


KINDS: dict[str, Callable[[GroundingSample, int, float], list[Placed]] | None] = {
    "oracle": _oracle,
    "center": lambda sample, seed, p: [(0, _CENTER)],
    "full": lambda sample, seed, p: [(0, _FULL)],
    "copy": _copy,
    "random": _random_box,
    "spray": _spray,
    "none": lambda sample, seed, p: [],
    "refuse": None,
    "noisy": _noisy,
}


def _number(seed: int, kind: str, sample_id: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{kind}\0{sample_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


def is_hit(seed: int, sample_id: str, p: float) -> bool:
    """Whether ``noisy`` answers this sample correctly: with probability p over seeds and ids."""
    return _number(seed, "noisy", sample_id) / 2.0**64 < p


def box_away_from(box: Box) -> Box:
    """A valid box that does not touch `box`, in the widest free strip beside it.

    Where `box` leaves less than a hundredth of the image free on every side, a corner box of a
    hundredth of each side: its IoU is below 0.001.
    """
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box)
    strips: list[Box] = [
        (0.0, 0.0, x1 / 2, 1.0),
        ((1.0 + x2) / 2, 0.0, 1.0, 1.0),
        (0.0, 0.0, 1.0, y1 / 2),
        (0.0, (1.0 + y2) / 2, 1.0, 1.0),
    ]
    widest = max(strips, key=lambda s: (s[2] - s[0]) * (s[3] - s[1]))
    if min(widest[2] - widest[0], widest[3] - widest[1]) < _CORNER / 2:
        return (0.0, 0.0, _CORNER, _CORNER)
    return widest


def answer_boxes(kind: str, sample: GroundingSample, *, seed: int, p: float) -> list[Placed] | None:
    """What a baseline answers: boxes with their images, [] for "there are none", None to refuse."""
    rule = KINDS[kind]
    return None if rule is None else rule(sample, seed, p)


def _decimal(value: float) -> str:
    """Shortest decimal that reads back as the same float, never in exponent form."""
    return str(np.format_float_positional(value, unique=True, trim="-"))


class BaselineModel(SampleModel):
    """The backend ``univg_baseline``.

    Args:
        kind: one of `KINDS`.
        seed: of ``random`` and ``noisy``.
        p: probability of a correct answer of ``noisy``, in [0, 1].
        batch_size, device, max_batch_size: taken, since lmms-eval passes them, and not used.
    """

    @user_errors_stop()
    def __init__(
        self,
        kind: str = "",
        seed: int = 0,
        p: float = 0.5,
        batch_size: Any = 1,
        device: Any = None,
        max_batch_size: Any = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise UserError(
                f"univg_baseline has no kind {kind!r}; give --model_args kind=K with K one "
                f"of: {', '.join(KINDS)}"
            )
        if type(seed) is not int:
            raise UserError(f"univg_baseline: seed is {seed!r}; expected a whole number")
        if not isinstance(p, int | float) or isinstance(p, bool) or not 0.0 <= p <= 1.0:
            raise UserError(f"univg_baseline: p is {p!r}; expected a number from 0 to 1")
        self.kind, self.seed, self.p = kind, seed, float(p)

    @user_errors_stop()
    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """One response a request; no image is opened."""
        responses = []
        for request in requests:
            sample = self.sample_of(request)
            responses.append(self.respond(sample, request.metadata[SETTINGS_KEY]))
        return responses

    def respond(self, sample: GroundingSample, settings: RunSettings) -> str:
        """The text of the answer, in the dialect of the settings.

        Raises:
            UserError: the dialect cannot write boxes of this sample.
        """
        placed = answer_boxes(self.kind, sample, seed=self.seed, p=self.p)
        if placed is None:
            return _REFUSAL
        if not placed:
            return _NOTHING
        dialect = settings.make_dialect()
        written, named = [], None
        for image, box in placed:
            # The name of an image comes once, before its boxes.
            label = "" if sample.image_is_given or image == named else f"Image-{image + 1}: "
            written.append(label + self._write(image, box, sample, dialect))
            named = image
        return ", ".join(written)

    def _write(self, image: int, box: Box, sample: GroundingSample, dialect: Dialect) -> str:
        if dialect.name == BASELINE_DIALECT:
            return f"[{', '.join(map(_decimal, box))}]"
        if not is_valid_box(box):
            # A faulty truth, left out of the score: no dialect has a form for it.
            return _REFUSAL
        size = sample.image_sizes[image] if sample.image_sizes else None
        resized = dialect.input_size(size) if dialect.needs_input_size and size else None
        return dialect.encode(box, image_wh=size, input_wh=resized)
