"""One training question, whatever file it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.boxes import Box
from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample

__all__ = [
    "BAD_KINDS",
    "IMAGE_MARK",
    "PLACED_BOX",
    "ROW_KINDS",
    "BadKind",
    "RowError",
    "RowKind",
    "RowTarget",
    "TrainingRow",
    "Turn",
    "invalid_row",
    "placed_box",
    "placed_boxes",
    "row_error",
]

IMAGE_MARK = "<image>"
"""Where an image stands in a text, as in LLaMA-Factory's and VLM-R1's files."""
PLACED_BOX = re.compile(r"<bbox:[0-9]+>")
"""Where one of `TrainingRow.boxes` stands in an answer: the dialect writes it there."""

Size = tuple[int, int]
RowKind = Literal["no_target", "one_target", "several_targets", "text"]
ROW_KINDS: Mapping[RowKind, str] = {
    "no_target": "no true object",
    "one_target": "one true object",
    "several_targets": "several true objects, or all that fit",
    "text": "a text without a box",
}
"""What rows ask for: those with true objects first, by their number."""
BadKind = Literal["not_json", "invalid_row", "invalid_box", "missing_image", "unreadable_image"]
BAD_KINDS: Mapping[str, str] = {
    "not_json": "the row is not JSON",
    "invalid_row": "a field is missing, of a wrong type, or contradicts another",
    "invalid_box": "a box is inverted, empty, or reaches outside its image",
    "missing_image": "an image of the row is not there",
    "unreadable_image": "an image of the row cannot be read",
}


class RowError(UserError):
    """One row cannot be used; the others can.

    Attributes:
        kind: one of `BAD_KINDS`.
    """

    def __init__(self, kind: BadKind, message: str) -> None:
        super().__init__(message)
        self.kind: BadKind = kind


def invalid_row(where: str, what: str) -> RowError:
    """The error of a row whose fields do not fit."""
    return RowError("invalid_row", f"{where}: {what}")


def row_error(error: ItemError) -> RowError:
    """A fault that a reader of the evaluation finds, as one of a row."""
    if error.kind == "missing_image" or error.kind == "unreadable_image":
        return RowError(error.kind, str(error))
    return RowError("invalid_row", str(error))


class RowTarget(NamedTuple):
    """A true object: its image (0-based; None: not said) and valid box, xyxy_norm."""

    image: int | None
    box: Box


def placed_box(number: int) -> str:
    """What stands in a text for the box of this number."""
    return f"<bbox:{number}>"


def placed_boxes(text: str, boxes: Sequence[RowTarget]) -> list[RowTarget]:
    """Those of `boxes` that stand in a text, in its order; none where a row has no `boxes`."""
    return [boxes[int(mark[6:-1])] for mark in PLACED_BOX.findall(text)] if boxes else []


class Turn(NamedTuple):
    """An earlier question of the same conversation, and its answer as released.

    `n_images` stand before its text; `IMAGE_MARK` is where one stands inside.
    """

    n_images: int
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """A question, its images, and the truth.

    Texts are in the canonical form, with boxes on 0-1000, unless `written_in` says otherwise.

    Attributes:
        id: unique within the file, and the same in every reading.
        source: what figures are reported apart by, e.g. ``mgrounding/gg_train``.
        images: references below the image folder, in the order that the model sees them.
        image_sizes: (width, height) of each in pixels, as displayed.
        question: without marks of images that stand before it; `IMAGE_MARK` where one stands
            inside.
        targets: the true objects.
        answers_by_text: the truth is `answer`, a text without a box.
        answer: the answer as released, without its thinking; None where only a box is released.
        chain: the released thinking.
        single_image: a simple reference in one image, which is answered without thinking.
        target_image: 0-based image that the question names; None where the model has to find it.
        image_is_given: the question is about a certain image, known here or not; None: as
            `target_image` says.
        question_box_image: 0-based image that boxes in the question lie on; None where unknown.
        history: earlier turns of the conversation.
        written_in: the dialect of question, answer and chain; None: the canonical form.
        boxes: what `PLACED_BOX` stands for in answers and chain, by number.
        in_pixels: the file says that its boxes are in pixels of their images.
        find_all: the question asks for every object that fits, even where there is one.
    """

    id: str
    source: str
    images: tuple[str, ...]
    image_sizes: tuple[Size, ...]
    question: str
    targets: tuple[RowTarget, ...]
    answers_by_text: bool = False
    answer: str | None = None
    chain: str | None = None
    single_image: bool = False
    target_image: int | None = None
    image_is_given: bool | None = None
    question_box_image: int | None = None
    history: tuple[Turn, ...] = ()
    written_in: Dialect | None = None
    boxes: tuple[RowTarget, ...] = ()
    in_pixels: bool = False
    find_all: bool = False

    @property
    def kind(self) -> RowKind:
        """How many true objects it may have; ``text`` where the truth is a text.

        As `GroundingSample.kind`: one that asks for every object is among those with several.
        """
        if self.answers_by_text:
            return "text"
        n = len(self.targets)
        return "several_targets" if n > 1 or (n and self.find_all) else list(ROW_KINDS)[n]

    @property
    def names_image(self) -> bool:
        """Whether the question is about a certain image."""
        return self.target_image is not None if self.image_is_given is None else self.image_is_given

    def as_sample(self) -> GroundingSample:
        """Question and images in the schema of the evaluation, for its functions; no targets."""
        box_image = self.question_box_image
        return GroundingSample(
            id=self.id,
            benchmark="training",
            task=self.source,
            split="train",
            images=self.images,
            widths=tuple(width for width, _ in self.image_sizes),
            heights=tuple(height for _, height in self.image_sizes),
            instruction=self.question,
            targets=(),
            image_is_given=self.names_image,
            find_all=self.find_all,
            cluster=self.id,
            extra={} if box_image is None else {"question_box_image": box_image},
        )
