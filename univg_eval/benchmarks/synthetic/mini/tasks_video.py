"""Builders of the video tasks: 25 frames, five sampled evenly, the third of them is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from univg_eval.benchmarks.synthetic.mini.item import CLIP_FRAMES, SAMPLED_FRAMES, Clip, Draft
from univg_eval.benchmarks.synthetic.mini.layout import LATTICE, Label, Maker, RetryScene, SpotBox
from univg_eval.benchmarks.synthetic.mini.scene import Background, Scene, SceneObject
from univg_eval.boxes import Box
from univg_eval.images.video import sample_frames_even

__all__ = ["Actor", "reasonvos", "revos"]

FRAMES = tuple(sample_frames_even(CLIP_FRAMES, SAMPLED_FRAMES))
MIDDLE = FRAMES[2]
STEP = FRAMES[1] - FRAMES[0]


@dataclass(frozen=True, slots=True)
class Actor:
    """A moving object of a video.

    Attributes:
        label: (colour, shape).
        spot: lattice box in the middle sampled frame.
        speed: lattice units per sampled step (5 frames), (x, y).
        growth: lattice units that the side grows per sampled step.
        shown: first and last frame in which it is seen.
        recolor: (frame, colour from then on), if it changes colour.
    """

    label: Label
    spot: SpotBox = (0, 0, 0, 0)
    speed: tuple[float, float] = (0.0, 0.0)
    growth: float = 0.0
    shown: tuple[int, int] = (0, CLIP_FRAMES - 1)
    recolor: tuple[int, str] | None = None

    def box(self, frame: int) -> Box:
        """Lattice box (fractions of a unit) in a frame."""
        steps = (frame - MIDDLE) / STEP
        half = self.growth * steps / 2
        x1, y1, x2, y2 = self.spot
        dx, dy = self.speed[0] * steps, self.speed[1] * steps
        return x1 + dx - half, y1 + dy - half, x2 + dx + half, y2 + dy + half

    def at(self, frame: int) -> SceneObject | None:
        """The object in a frame, None while it is not seen."""
        if not self.shown[0] <= frame <= self.shown[1]:
            return None
        color = self.label[0]
        if self.recolor is not None and frame >= self.recolor[0]:
            color = self.recolor[1]
        x1, y1, x2, y2 = self.box(frame)
        return SceneObject(
            shape=self.label[1],
            color=color,
            box=(x1 / LATTICE, y1 / LATTICE, x2 / LATTICE, y2 / LATTICE),
        )


@dataclass(frozen=True, slots=True)
class _Video:
    background: Background
    actors: tuple[Actor, ...]

    def scene(self, frame: int) -> Scene:
        seen = (actor.at(frame) for actor in self.actors)
        return Scene(self.background, tuple(obj for obj in seen if obj is not None))


def _fits(actor: Actor, others: Sequence[Actor]) -> bool:
    """Inside the image in every frame, and never near another one."""
    for frame in (0, *FRAMES, CLIP_FRAMES - 1):
        a = actor.box(frame)
        if min(a) < 0 or max(a) > LATTICE:
            return False
        for other in others:
            b = other.box(frame)
            if max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) < 1:
                return False
    return True


def _cast(maker: Maker, actors: list[Actor], part: Actor, size: int) -> None:
    """Give `part` a free place of `size` in the middle frame and add it to the actors."""
    for _ in range(60):
        actor = replace(part, spot=maker.place(size))
        if _fits(actor, actors):
            actors.append(actor)
            return
    raise RetryScene


def _speed(maker: Maker) -> tuple[int, int]:
    """A speed that is seen: 3 or 4 units a step along one axis, little along the other."""
    fast = maker.rng.choice((-4, -3, 3, 4))
    slow = maker.rng.randint(-1, 1)
    return (fast, slow) if maker.rng.random() < 0.5 else (slow, fast)


def _direction(speed: tuple[float, float]) -> str:
    if abs(speed[0]) > abs(speed[1]):
        return "to the right" if speed[0] > 0 else "to the left"
    return "down" if speed[1] > 0 else "up"


def _draft(
    maker: Maker, actors: list[Actor], question: str, kind: str, depth: int, **knobs: object
) -> Draft:
    """The draft; the first actor is the target."""
    video = _Video(maker.background(), tuple(actors))
    target = actors[0].at(MIDDLE)
    if target is None:
        raise RetryScene
    lead = maker.words.choice(
        (
            "These are five frames of a video.",
            "The images are five frames of a video, in order.",
        )
    )
    text = f"{lead} {question.format(frame=maker.image(2, noun='frame'))}"
    return Draft(
        [video.scene(frame) for frame in FRAMES], text, target, 2, kind, depth, dict(knobs),
        frames=FRAMES, clip=Clip(video.scene),
    )  # fmt: skip


# -- revos: who moves, where to, who goes, who grows --------------------------------------------


def _moves(maker: Maker) -> Draft:
    label = maker.target_label()
    speed = _speed(maker)
    actors: list[Actor] = []
    _cast(maker, actors, Actor(label, speed=speed), maker.size(5, 8))
    for other in maker.distractors(label, maker.rng.randint(1, 3)):
        _cast(maker, actors, Actor(other), maker.size(5, 8))
    question = maker.say(
        (
            "Only one object moves. Locate it in {{frame}}.",
            "Locate the object that moves in {{frame}}.",
        )
    )
    return _draft(maker, actors, question, "moves", 1)


def _rests(maker: Maker) -> Draft:
    label = maker.target_label()
    actors: list[Actor] = []
    _cast(maker, actors, Actor(label), maker.size(5, 8))
    for other in maker.distractors(label, maker.rng.randint(1, 2)):
        speed = _speed(maker)
        _cast(maker, actors, Actor(other, speed=speed), maker.size(5, 8))
    question = maker.say(
        (
            "All objects but one move. Locate the one that rests in {{frame}}.",
            "Locate the object that does not move in {{frame}}.",
        )
    )
    return _draft(maker, actors, question, "rests", 1)


def _moves_to(maker: Maker) -> Draft:
    """Several move, each in its own direction."""
    label = maker.target_label()
    labels = [label, *maker.distractors(label, maker.rng.randint(1, 2))]
    actors: list[Actor] = []
    directions: set[str] = set()
    for one in labels:
        speed = _speed(maker)
        if _direction(speed) in directions:
            raise RetryScene
        directions.add(_direction(speed))
        _cast(maker, actors, Actor(one, speed=speed), maker.size(5, 8))
    question = maker.say(
        (
            "Locate the object that moves {direction} in {{frame}}.",
            "Which object moves {direction}? Locate it in {{frame}}.",
        ),
        direction=_direction(actors[0].speed),
    )
    return _draft(maker, actors, question, "moves_to", 2)


def _disappears(maker: Maker) -> Draft:
    label = maker.target_label()
    last = maker.rng.randint(MIDDLE + 1, FRAMES[3] - 1)
    actors: list[Actor] = []
    _cast(maker, actors, Actor(label, shown=(0, last)), maker.size(5, 9))
    for other in maker.distractors(label, maker.rng.randint(1, 3)):
        _cast(maker, actors, Actor(other), maker.size(5, 8))
    question = maker.say(
        (
            "One object is gone at the end. Locate it in {{frame}}.",
            "Locate the object that disappears later in {{frame}}.",
        )
    )
    return _draft(maker, actors, question, "disappears", 1)


def _grows(maker: Maker) -> Draft:
    label = maker.target_label()
    growth = maker.rng.choice((-1.5, 1.5))
    actors: list[Actor] = []
    _cast(maker, actors, Actor(label, growth=growth), maker.size(7, 9))
    for other in maker.distractors(label, maker.rng.randint(1, 2)):
        _cast(maker, actors, Actor(other), maker.size(5, 8))
    word = "grows" if growth > 0 else "shrinks"
    question = maker.say(
        (
            "Locate the object that {word} in {{frame}}.",
            "One object {word} over time. Locate it in {{frame}}.",
        ),
        word=word,
    )
    return _draft(maker, actors, question, word, 1)


def revos(maker: Maker) -> Draft:
    """A video and a plain temporal description."""
    return maker.kind((_moves, _rests, _moves_to, _disappears, _grows))(maker)


# -- reasonvos: the same kind of video, described implicitly ---------------------------------------


def _against(maker: Maker) -> Draft:
    rng = maker.rng
    label = maker.target_label()
    axis = rng.randrange(2)
    sign = rng.choice((-1, 1))

    def speed(sense: int) -> tuple[int, int]:
        fast, slow = sense * rng.randint(2, 4), rng.randint(-1, 1)
        return (fast, slow) if axis == 0 else (slow, fast)

    actors: list[Actor] = []
    own = speed(sign)
    _cast(maker, actors, Actor(label, speed=own), maker.size(5, 7))
    for other in maker.distractors(label, rng.randint(2, 3)):
        theirs = speed(-sign)
        _cast(maker, actors, Actor(other, speed=theirs), maker.size(5, 7))
    question = maker.say(
        (
            "Which object moves against the others? Locate it in {{frame}}.",
            "One object goes the wrong way. Locate it in {{frame}}.",
        )
    )
    return _draft(maker, actors, question, "against", 2)


def _appears_last(maker: Maker) -> Draft:
    rng = maker.rng
    label = maker.target_label()
    first = rng.randint(FRAMES[1] + 1, MIDDLE - 1)
    actors: list[Actor] = []
    last = CLIP_FRAMES - 1
    _cast(maker, actors, Actor(label, shown=(first, last)), maker.size(5, 9))
    for i, other in enumerate(maker.distractors(label, rng.randint(2, 3))):
        start = rng.randint(FRAMES[0] + 1, FRAMES[1] - 1) if i == 0 else 0
        _cast(
            maker,
            actors,
            Actor(other, shown=(start, last)),
            maker.size(5, 8),
        )
    question = maker.say(
        (
            "Which object comes last? Locate it in {{frame}}.",
            "The objects do not all appear at the same time. "
            "Locate the one that appears last in {{frame}}.",
        )
    )
    return _draft(maker, actors, question, "appears_last", 2)


def _changes_color(maker: Maker) -> Draft:
    """The target has its own colour in the middle frame and another one before or after."""
    rng = maker.rng
    label = maker.target_label()
    other_color = maker.other_label(shapes=[label[1]], avoid=[label])[0]
    before = rng.random() < 0.5
    if before:
        when = rng.randint(FRAMES[1] + 1, MIDDLE - 1)
        start: Label = (other_color, label[1])
        recolor = (when, label[0])
    else:
        when = rng.randint(MIDDLE + 1, FRAMES[3] - 1)
        start = label
        recolor = (when, other_color)
    actors: list[Actor] = []
    _cast(maker, actors, Actor(start, recolor=recolor), maker.size(5, 9))
    for other in maker.distractors(label, rng.randint(1, 3), avoid=[start]):
        _cast(maker, actors, Actor(other), maker.size(5, 8))
    question = maker.say(
        (
            "One object does not keep its color. Locate it in {{frame}}.",
            "Somebody paints an object during the video. Locate this object in {{frame}}.",
        )
    )
    return _draft(maker, actors, question, "changes_color", 2)


def _wins(maker: Maker) -> Draft:
    """All move the same way; one at least twice as fast."""
    rng = maker.rng
    label = maker.target_label()
    axis = rng.randrange(2)
    sign = rng.choice((-1, 1))

    def speed(units: int) -> tuple[int, int]:
        return (sign * units, 0) if axis == 0 else (0, sign * units)

    actors: list[Actor] = []
    _cast(maker, actors, Actor(label, speed=speed(4)), maker.size(5, 7))
    for other in maker.distractors(label, rng.randint(1, 2)):
        slow = speed(rng.randint(1, 2))
        _cast(maker, actors, Actor(other, speed=slow), maker.size(5, 7))
    question = maker.say(
        (
            "Which object would win a race? Locate it in {{frame}}.",
            "Locate the fastest object in {{frame}}.",
        )
    )
    return _draft(maker, actors, question, "fastest", 2)


def reasonvos(maker: Maker) -> Draft:
    """A video and an implicit temporal description."""
    return maker.kind((_against, _appears_last, _changes_color, _wins))(maker)
