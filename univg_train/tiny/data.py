"""Training rows for the tiny model: one set of images, several independent turns.

A row shares its images among turns: the task's own question, the same question about other
images where the true answer is known, and plain auxiliary questions (find a named object, name
the object in a box, list an image). The auxiliary questions are what teaches a model of this
size to bind words to one of several objects.

Everything is a pure function of (seed, step): a run that is stopped and resumed sees the same
rows as one that is not.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from univg_eval.benchmarks.readers.common.release import ordinal
from univg_eval.benchmarks.synthetic.mini import (
    TASKS,
    MiniItem,
    Scene,
    SceneObject,
    generate,
    listing,
)
from univg_eval.boxes import Box
from univg_eval.prompts import THINK_SUFFIX
from univg_train.tiny.answers import DIALECT, answer_text, on_lattice
from univg_train.tiny.chains import chain_reply, seen_objects
from univg_train.tiny.tokenizer import END_OF_TURN, SYSTEM_PROMPT

__all__ = [
    "PROMPT_SUFFIX",
    "REASONING_TOKENS",
    "Look",
    "Row",
    "RowPlan",
    "Turn",
    "draw_images",
    "item_turns",
    "prefix_text",
    "tokenizer_texts",
    "training_item",
    "training_rows",
]

PROMPT_SUFFIX = f" {DIALECT.prompt_suffix}"
"""What the direct prompt puts behind a question."""

REASONING_TOKENS = ("<think>", "</think>", "<answer>", "</answer>", THINK_SUFFIX)
"""What is one token each; spelt, the prompt would be 70 and the four tags 28 of every answer."""

_NTH = ("1st", "2nd", "3rd", "4th", "5th", "6th")
_UINT8 = npt.NDArray[np.uint8]
# Rendered larger and reduced, as an evaluated image is: edges get the same softness.
_DRAWN_SIDE = 224
MAIN_WEIGHT = 2.0
LISTING_WEIGHT = 0.6
_OTHER_IMAGES = frozenset(
    {"common_object", "object_tracking", "multi_view", "revos", "reasonvos", "refer_grounding"}
)
"""Tasks whose question keeps its sense when it asks for another of the images."""


@dataclass(frozen=True, slots=True)
class Look:
    """Characters `start` to `end` of an answer speak of what is in a box (xyxy_norm)."""

    start: int
    end: int
    image: int
    box: Box


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer.

    Attributes:
        question, answer: as they are fed.
        weight: of the answer's tokens in the loss.
        looks: which object each part of the answer speaks of.
        suffix: what the prompt puts behind the question.
    """

    question: str
    answer: str
    weight: float = 1.0
    looks: tuple[Look, ...] = ()
    suffix: str = PROMPT_SUFFIX


@dataclass(frozen=True, slots=True)
class Row:
    """Images, uint8 (images, side, side, 3), their scenes, and turns about them."""

    task: str
    images: _UINT8
    scenes: tuple[Scene, ...]
    turns: tuple[Turn, ...]


def prefix_text(n_images: int, tokens_per_image: int) -> str:
    """The conversation up to the question."""
    image = "<|vision_start|>" + "<|image_pad|>" * tokens_per_image + "<|vision_end|>"
    return (
        f"<|im_start|>system\n{SYSTEM_PROMPT}{END_OF_TURN}\n<|im_start|>user\n" + image * n_images
    )


def _image_words(index: int, noun: str) -> list[str]:
    """The names of an image, or frame, in a question."""
    ways = [f"the {ordinal(index)} {noun}", f"the {_NTH[index]} {noun}"]
    return [*ways, f"Image-{index + 1}"] if noun == "image" else ways


def _unique(scene: Scene) -> list[SceneObject]:
    """Whole objects whose label no other object of the scene has."""
    counts = Counter(obj.label for obj in scene.objects)
    return [obj for obj in scene.objects if obj.is_whole and counts[obj.label] == 1]


def _located(
    question: str, obj: tuple[str, Box], image: int, *, weight: float = 1.0, named: bool = False
) -> Turn:
    """A question for the label and box of an object; `named`: and for its image."""
    label, box = obj
    answer = answer_text(label, box, image=image if named else None)
    return Turn(question, answer, weight, (_look(answer, label, image, box),))


def _look(answer: str, label: str, image: int, box: Box, start: int = 0) -> Look:
    # From the label on: what stands before it is the same for every object.
    begin = answer.index(label, start)
    return Look(
        begin, begin + len(answer_text(label, box)) - len("<|object_ref_start|>"), image, box
    )


def _listed(item: MiniItem, image: int, weight: float) -> Turn:
    """All objects of an image, from left to right."""
    question, objects = listing(item, image)
    texts = [answer_text(label, box) for label, box in objects]
    looks, start = [], 0
    answer = ";".join(texts)
    for (label, box), text in zip(objects, texts, strict=True):
        looks.append(_look(answer, label, image, box, start))
        start += len(text) + 1
    return Turn(question, answer, weight, tuple(looks), suffix="")


def _asked_back(obj: SceneObject, image: int, where: str) -> Turn:
    """What is in a box."""
    question = f"What is at {DIALECT.encode(on_lattice(obj.box))}{where}?"
    look = Look(0, len(obj.label), image, obj.box)
    return Turn(question, obj.label, 1.0, (look,), suffix="")


def _thought(item: MiniItem) -> Turn:
    """The question in the reasoning style, answered with a chain of thought."""
    answer = chain_reply(item)
    looks = []
    for image, objects, start in seen_objects(item, answer):
        at = start
        for obj in objects:
            at = answer.index(obj.label, at)
            looks.append(Look(at, at + len(obj.label), image, obj.box))
            at += len(obj.label)
    final = answer.index("<answer>")
    looks.append(_look(answer, item.label, item.target_image, item.box, final))
    return Turn(item.instruction, answer, MAIN_WEIGHT, tuple(looks), suffix=THINK_SUFFIX)


def _main_turns(item: MiniItem, rng: random.Random, limit: int) -> Iterator[Turn]:
    found = (item.label, item.box)
    yield _located(
        item.instruction,
        found,
        item.target_image,
        weight=MAIN_WEIGHT,
        named=not item.image_is_given,
    )
    if item.task not in _OTHER_IMAGES:
        return
    noun = "frame" if item.video else "image"
    named = re.compile("|".join(map(re.escape, _image_words(item.target_image, noun))))
    others = [i for i in range(item.image_count) if i != item.target_image]
    rng.shuffle(others)
    for image in others[:limit]:
        alike = [obj for obj in _unique(item.scenes[image]) if obj.label == item.label]
        if len(alike) != 1:
            continue

        def words(_: re.Match[str], image: int = image) -> str:
            return rng.choice(_image_words(image, noun))

        question = named.sub(words, item.instruction)
        if question == item.instruction:
            continue
        yield _located(question, (item.label, alike[0].box), image)


def _aid_turns(item: MiniItem, rng: random.Random, n: int) -> Iterator[Turn]:
    noun = "frame" if item.video else "image"
    many = item.image_count > 1
    pairs = [(i, obj) for i, scene in enumerate(item.scenes) for obj in _unique(scene)]
    rng.shuffle(pairs)
    whole = Counter(obj.label for scene in item.scenes for obj in scene.objects)
    for i, obj in pairs[:n]:
        where = f" in {rng.choice(_image_words(i, noun))}" if many else ""
        way = rng.random()
        if way < 0.62:
            yield _located(f"Locate the {obj.label}{where}.", (obj.label, obj.box), i)
        elif way < 0.80:
            yield _asked_back(obj, i, where)
        elif many and whole[obj.label] == 1:
            question = (
                f"Find the {obj.label} in these {noun}s. Say in which {noun} it is and locate it."
            )
            yield _located(question, (obj.label, obj.box), i, named=True)
        else:
            yield _listed(item, i, LISTING_WEIGHT)


def item_turns(
    item: MiniItem, rng: random.Random, *, aids: int, mains: int = 1
) -> tuple[Turn, ...]:
    """The turns of one question: its own, with and without a chain of thought, up to `mains` about
    other images, up to `aids` aids."""
    return (_thought(item), *_main_turns(item, rng, mains), *_aid_turns(item, rng, aids))


def draw_images(scenes: Sequence[Scene], side: int) -> _UINT8:
    """The scenes as the model will see them, uint8 (images, side, side, 3)."""
    from PIL import Image

    return np.stack(
        [
            np.asarray(scene.render(_DRAWN_SIDE).resize((side, side), Image.Resampling.BICUBIC))
            for scene in scenes
        ]
    )


def training_item(task: str, seed: int, index: int) -> MiniItem:
    """Question `index` of the endless training stream."""
    return generate(task, seed=seed, index=index, subset="train")


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Which rows a step has: images alone at first, then few objects, then whole questions.

    Attributes:
        tasks: the tasks of each part of a step of whole questions; every name is one row. The
            parts hold rows of about the same length, and the longest come first.
        aids: auxiliary turns of such a row.
        image_steps: steps in which the vision tower alone learns, from what its tokens show.
        simple_steps: the next steps, with single images of one object at first, and one more in
            every eighth of these steps.
        blend_steps: over the next steps rows with all images of a question take over.
        images: images in each part of a step of the first kind.
        simple_rows: rows in each part of a step of the second. They are short, so a step can have
            many.
    """

    tasks: tuple[tuple[str, ...], ...] = (
        ("object_tracking", "reasonvos", "revos"),
        ("multi_view", "group_grounding", "common_object", "region"),
        ("diff", "view_diff", "reasoning", "refer_grounding", "correspondence"),
        ("lisa_val", "lisa_test", "llmseg", "lisa_val", "lisa_test", "llmseg"),
    )
    aids: int = 2
    image_steps: int = 1800
    simple_steps: int = 700
    blend_steps: int = 300
    images: int = 2
    simple_rows: int = 4

    @property
    def parts(self) -> int:
        """Number of parts of a step."""
        return len(self.tasks)

    def full_share(self, step: int) -> float:
        """Share of rows that have all images of a question."""
        past = step - self.image_steps - self.simple_steps
        return min(1.0, max(0.0, past / self.blend_steps)) if self.blend_steps else float(past >= 0)

    def most_objects(self, step: int) -> int:
        """Objects that a single image has at most."""
        past = max(0, step - self.image_steps)
        return min(_MOST_OBJECTS, 1 + 8 * past // max(1, self.simple_steps))

    def seeds(self, seed: int) -> tuple[int, ...]:
        """The seed of the scenes of each part of a run's steps."""
        return tuple(seed + 1000 * part for part in range(self.parts))


_MAX_ROWS = 32
_MOST_OBJECTS = 6


def training_rows(plan: RowPlan, seed: int, step: int, part: int, *, side: int) -> list[Row]:
    """The rows of one part of an optimiser step; `side` is that of the images in pixels.

    Rows of the first `image_steps` have no turns.
    """
    rng = random.Random(f"univg tiny rows {seed} {step} {part}")
    full = plan.full_share(step)
    tasks: Sequence[str] = plan.tasks[part]
    if full == 0.0:
        tasks = rng.choices(TASKS, k=plan.images if step < plan.image_steps else plan.simple_rows)
    rows = []
    for place, task in enumerate(tasks):
        # Neighbouring questions of some tasks share their images; one of each pair is used.
        index = 2 * (_MAX_ROWS * step + place) + rng.randrange(2)
        item = training_item(task, plan.seeds(seed)[part], index)
        scenes, turns = item.scenes, tuple[Turn, ...]()
        if step < plan.image_steps:
            scenes = (rng.choice(item.scenes),)
        elif rng.random() >= full:
            scenes, turns = _simple(item, rng, plan.most_objects(step))
        else:
            turns = item_turns(item, rng, aids=plan.aids)
        rows.append(Row(task, draw_images(scenes, side), scenes, turns))
    return rows


def _simple(
    item: MiniItem, rng: random.Random, most: int
) -> tuple[tuple[Scene, ...], tuple[Turn, ...]]:
    """One of the item's images with at most `most` of its objects, and auxiliary turns."""
    scene = rng.choice(item.scenes)
    count = min(len(scene.objects), most)
    keep = tuple(rng.sample(scene.objects, count))
    scene = replace(scene, objects=keep, furniture=(), marks=())
    easy = replace(item, scenes=(scene,), clip=None)
    found = _unique(scene)
    rng.shuffle(found)
    turns = [_located(f"Locate the {obj.label}.", (obj.label, obj.box), 0) for obj in found[:3]]
    turns += [_asked_back(obj, 0, "") for obj in found[-1:]]
    if len(turns) < 2 or (most > 1 and rng.random() < 0.5):
        turns.append(_listed(easy, 0, LISTING_WEIGHT))
    return (scene,), tuple(turns)


def tokenizer_texts(seed: int, per_task: int = 200) -> Iterator[str]:
    """Texts that the vocabulary is trained on: questions and answers of the training stream."""
    rng = random.Random(f"univg tiny vocabulary {seed}")
    for _ in range(100):
        # In every prompt, if not in the questions.
        yield from (SYSTEM_PROMPT, "system", "user", "assistant")
    for task in TASKS:
        for index in range(per_task):
            for turn in item_turns(training_item(task, seed, index), rng, aids=2):
                yield turn.question
                yield turn.answer
