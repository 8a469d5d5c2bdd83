"""From a training row to what TRL's trainers take: a conversational prompt and plain columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from univg_eval.benchmarks.readers.common.release import ordinal
from univg_eval.boxes import Box
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.dialects.image_names import find_image_names
from univg_eval.dialects.sections import split_response
from univg_eval.errors import UserError, meant
from univg_eval.prompts import (
    TRAINED_STYLES,
    build_prompt,
    default_prompt_style,
    localize_question,
)
from univg_train.data.conversations import SIMPLE_PREFIX
from univg_train.data.rows import (
    IMAGE_MARK,
    PLACED_BOX,
    Size,
    TrainingRow,
    placed_boxes,
)

__all__ = ["LEFT_OUT", "PURPOSES", "LeftOut", "Rendering", "make_rendering", "render"]

PURPOSES = ("sft", "grpo")
LeftOutReason = Literal["several_targets", "no_box", "no_chain", "unknown_image"]
LEFT_OUT: Mapping[str, str] = {
    "several_targets": "several true boxes, for a reward or a form of answer that takes one",
    "no_box": "the answer is a text without a box",
    "no_chain": "reasoning is to be learned, and the row has no chain of thought",
    "unknown_image": "boxes in pixels, or several, and the row does not say of which image",
}
NO_TARGET = "There is no such object."


class LeftOut(Exception):  # noqa: N818 - no error: the row is sound, and has no use here
    """A sound row that cannot serve the purpose; `reason` is one of `LEFT_OUT`."""

    def __init__(self, reason: LeftOutReason) -> None:
        super().__init__(LEFT_OUT[reason])
        self.reason: LeftOutReason = reason


@dataclass(frozen=True, slots=True)
class Rendering:
    """How rows are written.

    Attributes:
        dialect: how the model writes boxes, with the pixel limits of the run.
        style: ``think`` or ``direct``, see `univg_eval.prompts`.
        purpose: ``sft`` (prompt and completion) or ``grpo`` (prompt alone).
        history: earlier turns of a conversation are part of the prompt.
        single_images_direct: simple references in one image are prompted without thinking.
        several: the reward takes rows with several true boxes.
    """

    dialect: Dialect
    style: str
    purpose: str
    history: bool = False
    single_images_direct: bool = True
    several: bool = True


def make_rendering(
    dialect: str,
    *,
    style: str | None = None,
    purpose: str = "grpo",
    history: bool = False,
    single_images_direct: bool = True,
    several: bool = True,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Rendering:
    """A `Rendering` of checked values.

    Args:
        dialect: name of a dialect that gives boxes.
        style: None: ``think`` for the families trained with it, else ``direct``.
        purpose, history, single_images_direct, several: see `Rendering`.
        min_pixels, max_pixels: limits of the area of the model's resized input in this run.

    Raises:
        UserError: an unknown name, a dialect without boxes, impossible limits.
    """
    known = get_dialect(dialect, min_pixels=min_pixels, max_pixels=max_pixels)
    if not known.gives_boxes:
        raise UserError(f"dialect {dialect!r} gives points, not boxes: nothing to train on")
    style = default_prompt_style(dialect) if style is None else style
    if style not in TRAINED_STYLES:
        raise UserError(f"unknown prompt style {style!r}; {meant(style, TRAINED_STYLES)}")
    if purpose not in PURPOSES:
        raise UserError(f"unknown purpose {purpose!r}; expected one of: {', '.join(PURPOSES)}")
    return Rendering(known, style, purpose, history, single_images_direct, several)


def render(row: TrainingRow, how: Rendering) -> dict[str, Any]:
    """The columns of a row, but for its images.

    Returns:
        prompt: messages whose content holds ``{"type": "image"}`` where an image stands;
        completion (``sft`` only): one message of the assistant;
        solution: the one true box, xyxy_norm, as a list of four; None for none or several, or where
        every object that fits is asked for;
        targets: all true objects, ``{"image": 0-based or None, "box": […]}``;
        image_is_given: the question is about a certain image;
        find_all: the question asks for every object that fits;
        dialect, style, single_image, source, id, target_image (0-based, None where the model has
        to find it), image_sizes and input_sizes ([[width, height], …] in pixels; input_sizes None
        where the dialect does not depend on them).

    Raises:
        LeftOut: the row is sound, and does not serve this purpose.
        UserError: the row is written in another dialect already.
    """
    if row.written_in not in (None, how.dialect):
        raise UserError(_other_dialect(row, how))
    if row.answers_by_text and (how.purpose == "grpo" or row.answer is None):
        raise LeftOut("no_box")
    as_set = len(row.targets) > 1 or row.find_all
    if how.purpose == "grpo" and row.kind == "several_targets":
        if not how.several:
            raise LeftOut("several_targets")
        if not row.names_image and None in {target.image for target in row.targets}:
            raise LeftOut("unknown_image")
    writer = _Writer(row, how)
    sizes = writer.input_sizes
    columns: dict[str, Any] = {
        "prompt": writer.prompt(),
        "solution": list(row.targets[0].box) if row.targets and not as_set else None,
        "targets": [{"image": t.image, "box": list(t.box)} for t in row.targets],
        "dialect": how.dialect.name,
        "style": writer.style,
        "single_image": writer.single,
        "source": row.source,
        "id": row.id,
        "target_image": row.target_image,
        "image_is_given": row.names_image,
        "find_all": row.find_all,
        "image_sizes": [list(size) for size in row.image_sizes],
        "input_sizes": None if sizes is None else [list(size) for size in sizes],
    }
    if how.purpose == "sft":
        columns["completion"] = [_message("assistant", [_text(writer.completion())])]
    return columns


def _other_dialect(row: TrainingRow, how: Rendering) -> str:
    def name(dialect: Dialect | None) -> str:
        assert dialect is not None
        limits = dialect.pixel_limits
        return dialect.name + (f" with {limits[0]} to {limits[1]} pixels" if limits else "")

    return (
        f"row {row.id!r} is written in {name(row.written_in)}, and the model is to write "
        f"{name(how.dialect)}; run `univg-train cot` again with that (it requests nothing again), "
        "or train with the row's own"
    )


def _message(role: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _content(n_before: int, text: str) -> list[dict[str, Any]]:
    """Blocks of a message: images first, then the text, cut where an image stands in it."""
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(n_before)]
    for position, part in enumerate(text.split(IMAGE_MARK)):
        if position:
            content.append({"type": "image"})
        if part:
            content.append(_text(part))
    return content


_CANONICAL = "qwen2_vl"
_SAME_FORM = frozenset({"qwen2_vl", "migician", "univg_r1"})
_MARKS = ("<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>")


class _Writer:
    """Writes the texts of one row."""

    def __init__(self, row: TrainingRow, how: Rendering) -> None:
        self.row = row
        self.how = how
        self.single = row.single_image and how.single_images_direct
        self.style = "direct" if self.single else how.style
        self.input_sizes = (
            [how.dialect.input_size(size) for size in row.image_sizes]
            if how.dialect.needs_input_size
            else None
        )

    def prompt(self) -> list[dict[str, Any]]:
        row = self.row
        messages: list[dict[str, Any]] = []
        shown = 0
        for turn in row.history if self.how.history else ():
            content = _content(turn.n_images, self._localized(turn.question))
            shown += sum(block["type"] == "image" for block in content)
            messages.append(_message("user", content))
            messages.append(_message("assistant", [_text(self._rewritten(turn.answer))]))
        question = self._question()
        before = len(row.images) - shown - question.count(IMAGE_MARK)
        messages.append(_message("user", _content(before, question)))
        return messages

    def _question(self) -> str:
        """The text that follows the images, as the evaluation writes it.

        A simple reference has UniVG-R1's prefix and no further request; of the style ``direct``
        it is an ordinary question.
        """
        row, how = self.row, self.how
        if self.single and how.style == "think":
            return SIMPLE_PREFIX + self._localized(row.question)
        self._require_question_size(row.question)
        return build_prompt(row.as_sample(), how.dialect, how.style, input_sizes=self.input_sizes)

    def _localized(self, text: str) -> str:
        """A question's boxes in the dialect's own form."""
        self._require_question_size(text)
        image_wh, input_wh = self._sizes_of(self.row.question_box_image)
        return localize_question(text, self.how.dialect, image_wh=image_wh, input_wh=input_wh)

    def completion(self) -> str:
        """What the model shall learn to say.

        A released answer keeps its words, and its boxes are rewritten into the dialect. Reasoning
        is ``<think>chain</think><answer>answer</answer>``, as UniVG-R1 puts it together.
        """
        row, thinks = self.row, self.style == "think"
        if thinks and row.chain is None:
            raise LeftOut("no_chain")
        answer = self._written() if row.answer is None else self._rewritten(row.answer)
        if not thinks:
            return answer
        return f"<think>{self._rewritten(row.chain or '')}</think><answer>{answer}</answer>"

    def _written(self) -> str:
        """An answer for a row that has only boxes: the image first if the model has to find it."""
        row = self.row
        if not row.targets:
            return NO_TARGET
        images = dict.fromkeys(target.image for target in row.targets)
        lists = {i: self._encoded(i, [t.box for t in row.targets if t.image == i]) for i in images}
        if len(images) > 1:
            if None in images:
                raise LeftOut("unknown_image")
            text = "\n".join(f"Image {(image or 0) + 1}: {text}" for image, text in lists.items())
        else:
            ((image, text),) = lists.items()
            if row.target_image is not None or image is None or len(row.images) == 1:
                return text
            text = f"It's in the {ordinal(image)} image. {text}"
        # GLM's answer is a marked span, in which no image is named.
        if len(row.targets) > 1 and split_response(text).section != text:
            raise LeftOut("several_targets")
        return text

    def _rewritten(self, text: str) -> str:
        """A released text with its boxes in the dialect."""
        row = self.row
        if row.written_in is None and self.how.dialect.name not in _SAME_FORM:
            text = self._from_canonical(text)
        if not row.boxes:
            return text
        written = iter(placed_boxes(text, row.boxes))

        def encoded(_: re.Match[str]) -> str:
            image, box = next(written)
            return self._encoded(row.target_image if image is None else image, [box])

        return PLACED_BOX.sub(encoded, text)

    def _from_canonical(self, text: str) -> str:
        """A text with its boxes in the dialect, which is none of the Qwen2-VL family.

        A box lies on the image that the text names last before it, else on the one of the question.
        """
        row = self.row
        names = find_image_names(text, len(row.images))
        parts: list[str] = []
        end = 0
        for start, stop, raw, _, _ in get_dialect(_CANONICAL).scan(text):
            if raw is None or not all(0 <= v <= 1000 for v in raw):
                continue
            if raw[0] >= raw[2] or raw[1] >= raw[3]:
                continue
            x1, y1, x2, y2 = (v / 1000 for v in raw)
            named = [image for _, at, image in names if at <= start]
            image = named[-1] if named else row.target_image
            if image is None and len(row.targets) == 1:
                image = row.targets[0].image
            parts += [text[end:start], self._encoded(image, [(x1, y1, x2, y2)])]
            end = stop
        rewritten = "".join([*parts, text[end:]])
        for mark in _MARKS:
            rewritten = rewritten.replace(mark, "")
        return rewritten

    def _encoded(self, image: int | None, boxes: Sequence[Box]) -> str:
        if image is None:
            self._require_common_size()
        image_wh, input_wh = self._sizes_of(image)
        return self.how.dialect.encode_several(boxes, image_wh=image_wh, input_wh=input_wh)

    def _sizes_of(self, image: int | None) -> tuple[Size, Size | None]:
        """(width, height) of an image and of the model's input; None: all have the same."""
        index = image or 0
        return self.row.image_sizes[index], self.input_sizes[index] if self.input_sizes else None

    def _require_question_size(self, text: str) -> None:
        if "<|box_start|>" in text and self.row.question_box_image is None:
            self._require_common_size()

    def _require_common_size(self) -> None:
        dialect = self.how.dialect
        needed = dialect.needs_image_size or dialect.needs_input_size
        if needed and len(set(self.row.image_sizes)) > 1:
            raise LeftOut("unknown_image")
