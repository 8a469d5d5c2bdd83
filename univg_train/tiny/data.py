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
from univg_eval.dialects import get_dialect
from univg_train.tiny.tokenizer import END_OF_TURN, SYSTEM_PROMPT

__all__ = [
    "DIALECT",
    "LATTICE",
    "PROMPT_SUFFIX",
    "Row",
    "RowPlan",
    "Turn",
    "answer_text",
    "draw_images",
    "item_turns",
    "prefix_text",
    "question_text",
    "tokenizer_texts",
    "training_item",
    "training_rows",
]

LATTICE = 28
"""Targets of univg_mini lie on a lattice of 28 x 28; answers are rounded to it."""

DIALECT = get_dialect("qwen2_vl")
PROMPT_SUFFIX = f" {DIALECT.prompt_suffix}"
"""What the direct prompt puts behind a question."""

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
class Turn:
    """A question, its answer, and the weight of the answer's tokens in the loss."""

    question: str
    answer: str
    weight: float = 1.0
    boxed: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """Images, uint8 (images, side, side, 3), and turns about them."""

    task: str
    images: _UINT8
    turns: tuple[Turn, ...]


def _on_lattice(box: Box) -> Box:
    """The box with its corners on the nearest lattice points within the image."""
    x1, y1, x2, y2 = (min(max(round(v * LATTICE), 0), LATTICE) for v in box)
    x1, y1 = min(x1, LATTICE - 1), min(y1, LATTICE - 1)
    return (
        x1 / LATTICE, y1 / LATTICE, max(x2, x1 + 1) / LATTICE, max(y2, y1 + 1) / LATTICE
    )  # fmt: skip


def answer_text(label: str, box: Box, *, image: int | None = None) -> str:
    """What the model is taught to answer: Qwen2-VL's phrase and box.

    Naming the object first splits the answer in two: which one it is, and where that one is.

    Args:
        label: the object's name.
        box: xyxy_norm.
        image: 0-based image that the answer has to name, None where the question names it.
    """
    lead = "" if image is None else f"It's in the {ordinal(image)} image. "
    return lead + DIALECT.encode(_on_lattice(box), label=label)


def question_text(question: str, *, boxed: bool = True) -> str:
    """The text after the images, as the direct prompt of the dialect qwen2_vl has it."""
    return f"{question}{PROMPT_SUFFIX}" if boxed else question


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


def _main_turns(item: MiniItem, rng: random.Random, limit: int) -> Iterator[Turn]:
    yield Turn(
        item.instruction,
        answer_text(item.label, item.box, image=None if item.image_is_given else item.target_image),
        MAIN_WEIGHT,
    )
    if item.task not in _OTHER_IMAGES:
        return
    noun = "frame" if item.video else "image"
    named = re.compile("|".join(map(re.escape, _image_words(item.target_image, noun))))
    others = [i for i in range(item.image_count) if i != item.target_image]
    rng.shuffle(others)
    for image in others[:limit]:
        found = [obj for obj in _unique(item.scenes[image]) if obj.label == item.label]
        if len(found) != 1:
            continue

        def words(_: re.Match[str], image: int = image) -> str:
            return rng.choice(_image_words(image, noun))

        question = named.sub(words, item.instruction)
        if question == item.instruction:
            continue
        yield Turn(question, answer_text(item.label, found[0].box), 1.0)


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
            yield Turn(f"Locate the {obj.label}{where}.", answer_text(obj.label, obj.box))
        elif way < 0.80:
            yield Turn(
                f"What is at {DIALECT.encode(_on_lattice(obj.box))}{where}?", obj.label, boxed=False
            )
        elif many and whole[obj.label] == 1:
            yield Turn(
                f"Find the {obj.label} in these {noun}s. Say in which {noun} it is and locate it.",
                answer_text(obj.label, obj.box, image=i),
            )
        else:
            question, rows = listing(item, i)
            answer = ";".join(answer_text(label, box) for label, box in rows)
            yield Turn(question, answer, LISTING_WEIGHT, boxed=False)


def item_turns(
    item: MiniItem, rng: random.Random, *, aids: int, mains: int = 2
) -> tuple[Turn, ...]:
    """The turns of one question: its own, up to `mains` about other images, up to `aids` aids."""
    return (*_main_turns(item, rng, mains), *_aid_turns(item, rng, aids))


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
    """Which rows a step has: a curriculum of three stages, the last one blended in.

    Attributes:
        tasks: the tasks of each part of a step of the last stage; every name is one row. The
            parts hold rows of about the same length, and the longest come first.
        aids: auxiliary turns of such a row.
        one_steps: steps of the first stage: single images of one object.
        few_steps: steps of the second: single images of two to four objects.
        blend_steps: over these next steps rows of the last stage, with all images of a
            question, take over.
        one_rows, few_rows: rows in each part of a step of the first two stages. They are short,
            so a step can have many.
    """

    tasks: tuple[tuple[str, ...], ...] = (
        ("object_tracking", "reasonvos", "revos"),
        ("multi_view", "group_grounding", "common_object", "region"),
        ("diff", "view_diff", "reasoning", "refer_grounding", "correspondence"),
        ("lisa_val", "lisa_test", "llmseg", "lisa_val", "lisa_test", "llmseg"),
    )
    aids: int = 5
    one_steps: int = 300
    few_steps: int = 350
    blend_steps: int = 200
    one_rows: int = 24
    few_rows: int = 12

    @property
    def parts(self) -> int:
        """Number of parts of a step."""
        return len(self.tasks)

    def full_share(self, step: int) -> float:
        """Share of rows that have all images of a question."""
        past = step - self.one_steps - self.few_steps
        return min(1.0, max(0.0, past / self.blend_steps)) if self.blend_steps else float(past >= 0)

    def seeds(self, seed: int) -> tuple[int, ...]:
        """The seed of the scenes of each part of a run's steps."""
        return tuple(seed + 1000 * part for part in range(self.parts))


_MAX_ROWS = 32
_MOST_OBJECTS = 4


def training_rows(plan: RowPlan, seed: int, step: int, part: int, *, side: int) -> list[Row]:
    """The rows of one part of an optimiser step; `side` is that of the images in pixels."""
    rng = random.Random(f"univg tiny rows {seed} {step} {part}")
    full = plan.full_share(step)
    tasks: Sequence[str]
    if step < plan.one_steps:
        tasks = rng.choices(TASKS, k=plan.one_rows)
    elif full == 0.0:
        tasks = rng.choices(TASKS, k=plan.few_rows)
    else:
        tasks = plan.tasks[part]
    rows = []
    for place, task in enumerate(tasks):
        # Neighbouring questions of some tasks share their images; one of each pair is used.
        index = 2 * (_MAX_ROWS * step + place) + rng.randrange(2)
        item = training_item(task, plan.seeds(seed)[part], index)
        if rng.random() >= full:
            scenes, turns = _simple(item, rng, 1 if step < plan.one_steps else _MOST_OBJECTS)
        else:
            scenes, turns = item.scenes, item_turns(item, rng, aids=plan.aids)
        rows.append(Row(task, draw_images(scenes, side), turns))
    return rows


def _simple(
    item: MiniItem, rng: random.Random, most: int
) -> tuple[tuple[Scene, ...], tuple[Turn, ...]]:
    """One of the item's images with at most `most` of its objects, and auxiliary turns."""
    scene = rng.choice(item.scenes)
    count = min(len(scene.objects), rng.randint(min(2, most), most))
    keep = tuple(rng.sample(scene.objects, count))
    scene = replace(scene, objects=keep, furniture=(), marks=())
    easy = replace(item, scenes=(scene,), clip=None)
    question, rows = listing(easy)
    answer = ";".join(answer_text(label, box) for label, box in rows)
    turns = [Turn(question, answer, 1.0, boxed=False)]
    for obj in _unique(scene):
        turns.append(Turn(f"Locate the {obj.label}.", answer_text(obj.label, obj.box)))
    if most > 1:
        for obj in _unique(scene)[:2]:
            box = DIALECT.encode(_on_lattice(obj.box))
            turns.append(Turn(f"What is at {box}?", obj.label, boxed=False))
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
