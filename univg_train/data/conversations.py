"""ShareGPT rows: MGrounding-630k, UniVG-R1's stage 1, and VLM-R1's JSON Lines.

A row of MGrounding-630k (thunlp/Migician, README.md)::

    {"id": "5229016_8929009",
     "images": ["./MGrounding-630k/Group_Grounding/SA-1B/sa_5229016.jpg",
                "./MGrounding-630k/Group_Grounding/SA-1B/sa_8929009.jpg"],
     "conversations": [
       {"from": "human", "value": "<image>\\n<image>\\nGive the bounding box of the region this
         sentence refers to: <|object_ref_start|>a statue of a man<|object_ref_end|>."},
       {"from": "gpt",
        "value": "It's in the second image. <|box_start|>(316,58),(764,999)<|box_end|>"},
       {"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}],
     "type": "gg_train"}

``stage1_cotsft.json`` (GD-ML/UniVG-R1-data) is of the same kind, with
``<think>…</think><answer>(x1,y1),(x2,y2)</answer>`` as answer; LLaMA-Factory, which it is written
for, also knows the spelling ``messages``, ``role``, ``content``. VLM-R1 (om-ai-lab/VLM-R1,
``grpo_jsonl.py``) has ``image``, a path or a list of them, and the box as a list or in a text, in
pixels of the image. A conversation may begin with a system turn, which is not used: the
evaluation asks without one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from univg_eval.answers import read_answer
from univg_eval.benchmarks.readers.common.annotation_files import checked_text, describe
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.custom import to_xyxy_norm
from univg_eval.boxes import Box
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.dialects.image_names import find_image_names
from univg_eval.dialects.sections import split_response
from univg_eval.prompts import THINK_SUFFIX
from univg_train.data.images import MeasuredImages
from univg_train.data.rows import (
    IMAGE_MARK,
    PLACED_BOX,
    RowError,
    RowTarget,
    Size,
    TrainingRow,
    Turn,
    invalid_row,
    placed_boxes,
    row_error,
)

__all__ = [
    "SIMPLE_PREFIX",
    "ConversationReader",
    "bare_question",
    "image_references",
    "is_single_image",
    "named_image",
    "norm_box",
    "require_marks",
    "sound_text",
]

SIMPLE_PREFIX = "This is a single image grounding task with simple reference. "
"""What UniVG-R1 puts before a question that is answered without thinking (grpo_univg.py)."""

# How UniVG-R1 recognises such samples.
_SIMPLE_PATH = "coco/train2014/COCO"
_ROLES = {"human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}
_LEADING_MARKS = re.compile(rf"\A\s*(?:{IMAGE_MARK}\s*)+")
_CANONICAL = "qwen2_vl"  # the dialect of answers that are kept as text

Pairs = Sequence[tuple[str, str]]
PlaceObjects = Callable[
    [Mapping[str, Any], Pairs, Sequence[Size], str], tuple[Pairs, tuple[RowTarget, ...], str]
]


@dataclass(frozen=True, slots=True)
class ConversationReader:
    """Makes training rows of a ShareGPT row.

    Attributes:
        form: begins the rows' ids and source.
        image_folder: the images.
        space: what the numbers of boxes are: ``norm1000``, ``pixels`` of the image, ``norm1``.
        keeps_answers: the released answers are training text, on 0-1000.
        simple_paths: rows with UniVG-R1's COCO path are simple references.
        written_in: the dialect that questions and answers are written in already, each with one
            box; None: the canonical form.
        own_ids: the rows' own ids are unique, and kept.
        place_objects: puts boxes into the texts that stand in a field of their own, see
            `univg_train.data.ms_swift.place_objects`.
    """

    form: str
    image_folder: MeasuredImages
    space: str = "norm1000"
    keeps_answers: bool = True
    simple_paths: bool = False
    written_in: Dialect | None = None
    own_ids: bool = False
    place_objects: PlaceObjects | None = None

    def rows(self, value: Any, number: int, where: str) -> list[TrainingRow]:
        """The training rows of one row: one a question, in order.

        Raises:
            RowError: the row is faulty; none of its questions is used.
        """
        if not isinstance(value, Mapping):
            raise invalid_row(where, f"is {describe(value)}; expected an object")
        released = image_references(value, where)
        pairs: Pairs = _pairs(value, where)
        places = _places([question for question, _ in pairs], len(released), where)
        located = [self.image_folder.locate(reference, where) for reference in released]
        boxes: tuple[RowTarget, ...] = ()
        space = self.space
        if self.place_objects is not None:
            sizes = [size for _, size in located]
            pairs, boxes, space = self.place_objects(value, pairs, sizes, where)
        kind = value.get("type", value.get("source", value.get("task")))
        source = f"{self.form}/{kind}" if isinstance(kind, str) and kind.strip() else self.form
        id_ = f"{self.form}-{number:06d}"
        if self.own_ids:
            id_ = sound_text(value.get("id"), f"{where}: field 'id'")
        rows: list[TrainingRow] = []
        history: list[Turn] = []
        shown = 0
        asked_on: set[int | None] = set()  # the images of boxes in the questions so far
        for part, ((question, answer), (before, inside)) in enumerate(
            zip(pairs, places, strict=True)
        ):
            shown += before + inside
            at = where if len(pairs) == 1 else f"{where}: question {part}"
            if not shown:
                raise invalid_row(at, "comes before any image")
            if any((b.image or 0) >= shown for b in placed_boxes(question + answer, boxes)):
                raise invalid_row(at, "a box lies on an image that is shown later")
            asked_on |= {box.image for box in placed_boxes(question, boxes)}
            bare = bare_question(_canonical(question, boxes))
            if not bare.replace(IMAGE_MARK, "").strip():
                raise invalid_row(at, "the question holds no words")
            rows.append(
                TrainingRow(
                    id=id_ + (f"-{part}" if len(pairs) > 1 else ""),
                    source=source,
                    images=tuple(reference for reference, _ in located[:shown]),
                    image_sizes=tuple(size for _, size in located[:shown]),
                    question=bare,
                    single_image=is_single_image(
                        value, released, question, self.simple_paths, where
                    ),
                    question_box_image=(
                        0 if shown == 1 else next(iter(asked_on)) if len(asked_on) == 1 else None
                    ),
                    history=tuple(history),
                    written_in=self.written_in,
                    boxes=boxes,
                    in_pixels=space == "pixels",
                    **self._truth(
                        bare, answer, boxes, tuple(size for _, size in located[:shown]), at
                    ),
                )
            )
            history.append(Turn(before, bare, answer))
        return rows

    def _truth(
        self,
        question: str,
        answer: str,
        boxes: tuple[RowTarget, ...],
        sizes: tuple[Size, ...],
        where: str,
    ) -> dict[str, Any]:
        """What an answer says: the fields of `TrainingRow` about it."""
        split = split_response(answer)
        if targets := placed_boxes(split.section, boxes):
            none_there = False
        elif self.written_in is None:
            targets, none_there = self._targets(split.section, sizes, where)
        else:
            targets = [_written_target(self.written_in, question, answer, sizes, where)]
            none_there = False
        if split.unclosed:
            what = "its answer opens <think> or <answer> and does not close it"
            raise invalid_row(where, f"{what}: {describe(answer)}")
        named = named_image(question, targets, len(sizes))
        targets = [RowTarget(named if t.image is None else t.image, t.box) for t in targets]
        return {
            "targets": tuple(targets),
            "answers_by_text": not targets and not none_there,
            "answer": split.section.strip() if self.keeps_answers else None,
            "chain": split.thinking or None,
            "target_image": named,
        }

    def _targets(
        self, section: str, sizes: tuple[Size, ...], where: str
    ) -> tuple[list[RowTarget], bool]:
        """The boxes of an answer with their images; whether it says that there is none."""
        # A box alone is read in any bracket style: the plain dialects have the names of the spaces.
        dialect = get_dialect(_CANONICAL if self.keeps_answers else self.space)
        written = [raw for _, _, raw, _, _ in dialect.scan(section) if raw is not None]
        answer = read_answer(section, dialect, image_sizes=sizes or None)
        if not written:
            return [], answer.status == "none"
        # A box lies on the image that the answer names before it.
        named = answer.box_images
        images = named if len(named) == len(written) else [None] * len(written)
        targets = []
        for raw, image in zip(written, images, strict=True):
            if image is None and len(sizes) == 1:
                image = 0
            if self.space == "pixels" and image is None:
                what = f"a box in pixels lies on one of {len(sizes)} images, which is not named"
                raise invalid_row(where, f"{what}: {describe(section)}")
            box = norm_box(list(raw), self.space, sizes[image or 0], where)
            targets.append(RowTarget(image, box))
        return targets, False


def _written_target(
    dialect: Dialect, question: str, text: str, sizes: tuple[Size, ...], where: str
) -> RowTarget:
    """The one box of an answer that is written in a dialect."""
    answer = read_answer(text, dialect, image_sizes=sizes)
    image = answer.image_index
    if answer.status == "no_box":
        # Pixels of the image that the question names.
        image = named_image(question, [], len(sizes))
        answer = read_answer(text, dialect, image_sizes=sizes, target_image=image)
    if answer.box is None or answer.n_boxes != 1 or answer.clipped:
        raise RowError(
            "invalid_box",
            f"{where}: its answer holds no single box inside the image that the dialect "
            f"{dialect.name!r} reads ({answer.status}, {answer.n_boxes} boxes): "
            f"{describe(answer.answer_text)}",
        )
    return RowTarget(0 if len(sizes) == 1 else image, answer.box)


_QUOTED_NUMBER = re.compile(r"\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)\s*", re.ASCII)


def norm_box(raw: Any, space: str, image_wh: Size, where: str) -> Box:
    """A released box as xyxy_norm; its numbers may stand in quotes.

    Raises:
        RowError: ``invalid_box``.
    """
    if isinstance(raw, list):
        raw = [
            float(number)
            if isinstance(number, str) and _QUOTED_NUMBER.fullmatch(number)
            else number
            for number in raw
        ]
    try:
        return to_xyxy_norm(raw, space, image_wh, f"{where}: box")
    except ItemError as error:
        raise RowError("invalid_box", str(error)) from error


def _canonical(question: str, boxes: Sequence[RowTarget]) -> str:
    """A question with its placed boxes in the canonical form, as benchmarks have it."""
    written = iter(placed_boxes(question, boxes))

    def on_1000(_: re.Match[str]) -> str:
        x1, y1, x2, y2 = (round(value * 1000) for value in next(written).box)
        return f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>"

    return PLACED_BOX.sub(on_1000, question) if boxes else question


def bare_question(text: str) -> str:
    """A question without what a prompt adds again, and without marks before it.

    White space around the leading image marks goes with them: the evaluation puts the images
    before the question and nothing between.
    """
    text = _LEADING_MARKS.sub("", text).strip()
    text = text.removesuffix(THINK_SUFFIX.strip()).rstrip()
    return text.removeprefix(SIMPLE_PREFIX.rstrip()).lstrip()


def is_single_image(
    value: Mapping[str, Any],
    released: Sequence[str],
    question: str,
    simple_paths: bool,
    where: str,
) -> bool:
    """Whether a row is a simple reference in one image: decided for each row by itself.

    By its field ``single_image`` if it has one, else by the prefix of its question, else, with
    `simple_paths`, by the path of its image.
    """
    if "single_image" in value:
        stated = value["single_image"]
        if not isinstance(stated, bool):
            what = f"field 'single_image' is {describe(stated)}"
            raise invalid_row(where, f"{what}; expected true or false")
        if stated and len(released) > 1:
            what = "field 'single_image' is true"
            raise invalid_row(where, f"{what}, and the row has {len(released)} images")
        return stated
    if SIMPLE_PREFIX.strip() in question:
        return True
    return simple_paths and len(released) == 1 and _SIMPLE_PATH in released[0]


def named_image(question: str, targets: Sequence[RowTarget], n_images: int) -> int | None:
    """The image that a question is about: the only one, or the one that it names last.

    None if it names none, or if the answer names another or several: then the model has to find
    the image. Of MIG-Bench's questions, the one named last is the one with the answer.
    """
    if n_images == 1:
        return 0
    names = find_image_names(question, n_images)
    if not names:
        return None
    image = names[-1][2]
    return image if all(target.image in (None, image) for target in targets) else None


def image_references(value: Mapping[str, Any], where: str) -> list[str]:
    """The image paths of a row: its field ``images`` or ``image``.

    Raises:
        RowError: it has none, or something else in their place.
    """
    name = "images" if "images" in value else "image"
    listed = value.get(name)
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, list) or not listed or not all(isinstance(p, str) for p in listed):
        received = f"field {name!r} is {describe(listed)}" if name in value else "has no 'images'"
        raise invalid_row(where, f"{received}; expected the paths of its images")
    return [sound_text(path, f"{where}: field {name!r}") for path in listed]


# Tokens of chat templates: in a text they would end a turn, or stand for an image that is not
# there, and the trainer would stop at this row hours later.
_CONTROL = re.compile(
    r"<\|(?:im_start|im_end|endoftext|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>"
    r"|<(?:video|audio)>"
)


def sound_text(value: Any, where: str) -> str:
    """A text of a row: not blank, and without what a processor takes for its own marks.

    Raises:
        RowError: ``invalid_row``.
    """
    try:
        text = checked_text(value, where)
    except ItemError as error:
        raise row_error(error) from error
    if control := _CONTROL.search(text):
        raise RowError(
            "invalid_row",
            f"{where} holds {control[0]}, which a model's processor takes for its own; expected "
            f"text, with {IMAGE_MARK} where an image stands",
        )
    return text


def _pairs(value: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """(question, answer) of a conversation."""
    name = "conversations" if "conversations" in value else "messages"
    turns = value.get(name)
    if not isinstance(turns, list) or not turns:
        received = f"is {describe(turns)}" if name in value else "is missing"
        raise invalid_row(where, f"field 'conversations' {received}; expected turns")
    texts: list[str] = []
    for position, turn in enumerate(turns):
        at = f"{where}: {name}[{position}]"
        if not isinstance(turn, Mapping):
            raise RowError("invalid_row", f"{at} is {describe(turn)}; expected an object")
        who = turn.get("from", turn.get("role"))
        if who == "system" and position == 0:
            continue
        expected = ("human", "gpt")[len(texts) % 2]
        if not isinstance(who, str) or _ROLES.get(who) != expected:
            raise RowError(
                "invalid_row",
                f"{at} is from {describe(who)}; expected {expected!r}: human and gpt take turns",
            )
        said = turn.get("value", turn.get("content"))
        if expected == "gpt" and isinstance(said, list):  # VLM-R1 allows a bare box
            said = json.dumps(said)
        texts.append(sound_text(said, f"{at}: its text"))
    if not texts:
        raise invalid_row(where, f"field {name!r} holds a system turn alone; expected a question")
    if len(texts) % 2:
        raise invalid_row(where, "the last question has no answer")
    return list(zip(texts[::2], texts[1::2], strict=True))


def _places(questions: Sequence[str], n_images: int, where: str) -> list[tuple[int, int]]:
    """For each question, how many images stand before its text and how many inside.

    Without any mark all images stand before the first question.
    """
    places = []
    for question in questions:
        leading = _LEADING_MARKS.match(question)
        before = leading[0].count(IMAGE_MARK) if leading else 0
        places.append((before, question.count(IMAGE_MARK) - before))
    marks = sum(before + inside for before, inside in places)
    if marks == 0:
        return [(n_images, 0), *places[1:]]
    require_marks(marks, n_images, where)
    return places


def require_marks(marks: int, n_images: int, where: str) -> None:
    """One mark an image, or none at all; else a RowError."""
    if marks not in (0, n_images):
        what = f"{n_images} images and {marks} marks {IMAGE_MARK} in the question"
        raise invalid_row(where, f"{what}; expected one mark an image, or none")
