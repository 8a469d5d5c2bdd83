"""What the teacher is prompted with: to explain a known answer, and to choose among explanations.

The design follows what the authors of UniVG-R1 write about theirs (AMAP-ML/UniVG-R1, issue 2): all
images, the question and the true answer are given; the teacher is to assume that it does not know
the coordinates and to explain step by step how it would find them, in steps that depend on the
kind of question, in a fixed form. The words are this project's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from univg_eval.boxes import Box
from univg_eval.dialects import get_dialect
from univg_eval.prompts import THINK_SUFFIX, localize_question
from univg_train.cot.rows import CotRow

__all__ = [
    "chain_prompt",
    "choice_prompt",
    "image_heading",
    "prompts_sha256",
    "student_prompt",
    "teacher_question",
    "truth_1000",
]

_ANY_STEPS = (
    "First go through the images one by one and describe what matters for the question in each. "
    "Then relate them to each other, decide which object is meant, and locate it."
)
_SINGLE_STEPS = (
    "First work out what the question asks for. Then go through the objects that could be meant, "
    "say what tells them apart, decide, and locate the right one."
)
# By the task keys of MIG-Bench.
_STEPS = {
    "common_object": (
        "First name the main objects of each image. Then find the one that occurs in all of them, "
        "and locate it in the image that is asked about."
    ),
    "diff": (
        "First describe each image on its own. Then compare them part by part until you come to "
        "what differs, and locate that."
    ),
    "view_diff": (
        "First describe each image and the viewpoint that it was taken from. Then match the "
        "objects across the change of viewpoint, find the one that has no match, and locate it."
    ),
    "object_tracking": (
        "First describe the marked object: what it is, how it looks, what surrounds it. Then "
        "follow it from image to image, saying how it or the camera moved, and locate it."
    ),
    "multi_view": (
        "First describe the marked object and the scene around it. Then work out from where each "
        "other image was taken, recognise the object there, and locate it."
    ),
    "region": (
        "First describe what the marked region shows, with its details. Then look for the same "
        "thing in the other images, weigh what resembles it, and locate it."
    ),
    "refer_grounding": (
        "First say what the reference, in words or as an image, describes. Then look through the "
        "candidates of the image that is asked about, decide which of them fits, and locate it."
    ),
    "group_grounding": (
        "First go through the images one by one and say for each whether it shows what is "
        "described. Then settle on the image that does, and locate the object in it."
    ),
    "reasoning": (
        "First say what the question is after and what it takes for granted. Then use what the "
        "images show and what is commonly known to work out the object meant, and locate it."
    ),
    "correspondence": (
        "First describe the marked part: which part of which object it is, and what lies beside "
        "it. Then find the same object in the other image, the same part on it, and locate that."
    ),
}

_CHAIN = """\
You write a worked example for a student who learns to look at images, to reason, and only then \
to point out an object.

{shown}

The question:
{question}

The solution, which only you know: {solution}

Write down the reasoning that leads from the images and the question to this object, as somebody \
would who has never seen the solution and does not know any coordinates. {steps}

- Go step by step. Each step rests on something that can be seen, or on the question; nothing is \
made up, and the conclusion comes last.
- Say where things are in words (on the left, in the lower corner, behind the table). Write no \
coordinates, no pixel positions and no percentages.
- Neither say nor hint that a solution was known beforehand.
- Write plain English sentences, {min_words} to {max_words} words, without headings or lists.
{closing}
Reply in this form, with nothing before or after it:
<think>the reasoning</think><answer>{box}</answer>"""

_CLOSING = (
    "- Call the images Image 1, Image 2 and so on. Make the last sentence name the image that the "
    'object lies in, and no other, as in "So the object is in Image 2."\n'
)

_CHOICE = """\
You choose the worked example from which a student will learn to look at images, to reason, and \
only then to point out an object.

{shown}

The question:
{question}

The solution: {solution}

Several writers were asked to write down a reasoning that leads to this object:

{candidates}

Compare them. The best one is true to the images in every detail, takes no step that does not \
follow, considers what else could be meant, arrives at exactly this object, and is easy to \
follow. If several are equally good, take the shortest.

Reply with its number alone, in this form:
<best>1</best>"""


def _shown(row: CotRow) -> str:
    n = len(row.images)
    return (
        "The image is shown above."
        if n == 1
        else f"The {n} images are shown above: Image 1 to Image {n}, each under its name."
    )


def image_heading(row: CotRow, image: int) -> str | None:
    """The line above an image (0-based); None where there is only one."""
    return f"Image {image + 1}:" if len(row.images) > 1 else None


def truth_1000(box: Box) -> list[int]:
    """A box (xyxy_norm) as the teacher is given it: whole numbers on 0-1000, never empty."""
    dialect = get_dialect("norm1000")
    return [int(value) for value in dialect.space.from_norm(box, None, None)]


def teacher_question(row: CotRow) -> str:
    """The question with its boxes as plain numbers on 0-1000."""
    return localize_question(row.question, get_dialect("norm1000")).strip()


def _solution(row: CotRow) -> str:
    where = f"the object lies in Image {row.target_image + 1}, and " if len(row.images) > 1 else ""
    return (
        f"{where}its bounding box is {truth_1000(row.box)} (left, top, right, bottom, counted "
        "from 0 to 1000 across the width and down the height of its image)."
    )


def chain_prompt(row: CotRow, *, min_words: int, max_words: int) -> str:
    """The text after the images that asks for one chain."""
    single = len(row.images) == 1
    return _CHAIN.format(
        shown=_shown(row),
        question=teacher_question(row),
        solution=_solution(row),
        steps=_STEPS.get(row.task, _SINGLE_STEPS if single else _ANY_STEPS),
        min_words=min_words,
        max_words=max_words,
        closing="" if single else _CLOSING,
        box=truth_1000(row.box),
    )


def choice_prompt(row: CotRow, thinkings: Sequence[str]) -> str:
    """The text after the images that asks which of the chains is best, counted from 1."""
    return _CHOICE.format(
        shown=_shown(row),
        question=teacher_question(row),
        solution=_solution(row),
        candidates="\n\n".join(
            f"Reasoning {number}:\n{text}" for number, text in enumerate(thinkings, start=1)
        ),
    )


def prompts_sha256() -> str:
    """SHA-256 (hex) of all the words that a teacher is given beside the rows' own."""
    words = [_CHAIN, _CLOSING, _CHOICE, _ANY_STEPS, _SINGLE_STEPS, _STEPS]
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode("ascii")).hexdigest()


def student_prompt(question: str, n_images: int) -> str:
    """What the student is prompted with: a mark for each image, the question, the think sentence.

    Args:
        question: with its boxes in the student's own dialect.
        n_images: how many images stand before it.
    """
    return "<image>" * n_images + question + THINK_SUFFIX
