"""From a training row to what TRL's trainers take: a conversational prompt and plain columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from univg_eval.benchmarks.readers.common.release import ordinal
from univg_eval.dialects import Dialect, get_dialect
from univg_eval.dialects.image_names import find_image_names
from univg_eval.errors import UserError
from univg_eval.prompts import (
    PROMPT_STYLES,
    build_prompt,
    default_prompt_style,
    localize_question,
)
from univg_train.data.conversations import SIMPLE_PREFIX
from univg_train.data.rows import IMAGE_MARK, RowTarget, Size, TrainingRow

__all__ = ["LEFT_OUT", "PURPOSES", "LeftOut", "Rendering", "make_rendering", "render"]

PURPOSES = ("sft", "grpo")
LeftOutReason = Literal["several_targets", "no_box", "no_chain", "unknown_image"]
LEFT_OUT: Mapping[str, str] = {
    "several_targets": "several true boxes, and the reward (or a completion written here) has one",
    "no_box": "the answer is a text without a box",
    "no_chain": "reasoning is to be learned, and the row has no chain of thought",
    "unknown_image": "the dialect writes pixels, and the row does not say of which image",
}
NOTHING = "There is no such object."


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
    """

    dialect: Dialect
    style: str
    purpose: str
    history: bool = False
    single_images_direct: bool = True


def make_rendering(
    dialect: str,
    *,
    style: str | None = None,
    purpose: str = "grpo",
    history: bool = False,
    single_images_direct: bool = True,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Rendering:
    """A `Rendering` of checked values.

    Args:
        dialect: name of a dialect that gives boxes.
        style: None: ``think`` for the families trained with it, else ``direct``.
        purpose: one of `PURPOSES`.
        history: see `Rendering`.
        single_images_direct: see `Rendering`.
        min_pixels: smallest area of the model's resized input in this run.
        max_pixels: largest area, likewise.

    Raises:
        UserError: an unknown name, a dialect without boxes, impossible limits.
    """
    known = get_dialect(dialect, min_pixels=min_pixels, max_pixels=max_pixels)
    if not known.gives_boxes:
        raise UserError(f"dialect {dialect!r} gives points, not boxes: nothing to train on")
    style = default_prompt_style(dialect) if style is None else style
    if style not in PROMPT_STYLES:
        raise UserError(f"unknown prompt style {style!r}; known styles: {', '.join(PROMPT_STYLES)}")
    if purpose not in PURPOSES:
        raise UserError(f"unknown purpose {purpose!r}; expected one of: {', '.join(PURPOSES)}")
    return Rendering(known, style, purpose, history, single_images_direct)


def render(row: TrainingRow, how: Rendering) -> dict[str, Any]:
    """The columns of a row, but for its images.

    Returns:
        prompt: messages whose content holds ``{"type": "image"}`` where an image stands;
        completion (``sft`` only): one message of the assistant;
        solution: the one true box, xyxy_norm, as a list of four; None where there is none;
        targets: all true objects, ``{"image": 0-based or None, "box": […]}``;
        dialect, style, single_image, source, id, target_image (0-based, None where the model has
        to find it), image_sizes and input_sizes ([[width, height], …] in pixels; input_sizes None
        where the dialect does not depend on them).

    Raises:
        LeftOut: the row is sound, and does not serve this purpose.
        UserError: the row is written in another dialect already.
    """
    if row.written_in not in (None, how.dialect):
        raise UserError(_other_dialect(row, how))
    single = row.single_image and how.single_images_direct
    style = "direct" if single else how.style
    if row.answers_by_text and (how.purpose == "grpo" or row.answer is None):
        raise LeftOut("no_box")
    if how.purpose == "grpo" and len(row.targets) > 1:
        raise LeftOut("several_targets")
    input_sizes = (
        [how.dialect.input_size(size) for size in row.image_sizes]
        if how.dialect.needs_input_size
        else None
    )
    columns: dict[str, Any] = {
        "prompt": _prompt(row, how, single, input_sizes),
        "solution": list(row.targets[0].box) if len(row.targets) == 1 else None,
        "targets": [{"image": t.image, "box": list(t.box)} for t in row.targets],
        "dialect": how.dialect.name,
        "style": style,
        "single_image": single,
        "source": row.source,
        "id": row.id,
        "target_image": row.target_image,
        "image_sizes": [list(size) for size in row.image_sizes],
        "input_sizes": None if input_sizes is None else [list(size) for size in input_sizes],
    }
    if how.purpose == "sft":
        text = _completion(row, how, style, input_sizes)
        columns["completion"] = [{"role": "assistant", "content": [{"type": "text", "text": text}]}]
    return columns


def _other_dialect(row: TrainingRow, how: Rendering) -> str:
    names = []
    for dialect in (row.written_in, how.dialect):
        assert dialect is not None
        limits = dialect.pixel_limits
        names.append(dialect.name + (f" with {limits[0]} to {limits[1]} pixels" if limits else ""))
    return (
        f"row {row.id!r} is written in {names[0]}, and the model to be trained is to write "
        f"{names[1]}; run `univg-train cot` again with that dialect and these limits (it requests "
        "nothing again), or train with the row's own"
    )


def _prompt(
    row: TrainingRow, how: Rendering, single: bool, input_sizes: list[Size] | None
) -> list[dict[str, Any]]:
    prompted = _question(row, how, single, input_sizes)
    messages: list[dict[str, Any]] = []
    shown = 0
    for turn in row.history if how.history else ():
        question = _localized(turn.question, row, how, input_sizes)
        content = _content(turn.n_images, question)
        shown += _count_images(content)
        messages.append({"role": "user", "content": content})
        answer = _rewritten(turn.answer, row, how, input_sizes)
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    before = len(row.images) - shown - prompted.count(IMAGE_MARK)
    messages.append({"role": "user", "content": _content(before, prompted)})
    return messages


def _question(
    row: TrainingRow, how: Rendering, single: bool, input_sizes: list[Size] | None
) -> str:
    """The text that follows the images, as the evaluation writes it.

    A simple reference has UniVG-R1's prefix and no further request; of the style ``direct`` it is
    an ordinary question.
    """
    if single and how.style == "think":
        return SIMPLE_PREFIX + _localized(row.question, row, how, input_sizes)
    if _needs_size(how) and _holds_box(row.question) and row.question_box_image is None:
        _require_common_size(row)
    return build_prompt(row.as_sample(), how.dialect, how.style, input_sizes=input_sizes)


def _localized(text: str, row: TrainingRow, how: Rendering, input_sizes: list[Size] | None) -> str:
    """A question's boxes in the dialect's own form."""
    image = row.question_box_image or 0
    if _needs_size(how) and _holds_box(text) and row.question_box_image is None:
        _require_common_size(row)
    return localize_question(
        text,
        how.dialect,
        image_wh=row.image_sizes[image],
        input_wh=input_sizes[image] if input_sizes else None,
    )


def _content(n_before: int, text: str) -> list[dict[str, Any]]:
    """Blocks of a message: images first, then the text, cut where an image stands in it."""
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(n_before)]
    for position, part in enumerate(text.split(IMAGE_MARK)):
        if position:
            content.append({"type": "image"})
        if part:
            content.append({"type": "text", "text": part})
    return content


def _count_images(content: list[dict[str, Any]]) -> int:
    return sum(block["type"] == "image" for block in content)


# Completions


def _completion(
    row: TrainingRow, how: Rendering, style: str, input_sizes: list[Size] | None
) -> str:
    """What the model shall learn to say.

    A released answer keeps its words, and its boxes are rewritten into the dialect. Reasoning is
    ``<think>chain</think><answer>answer</answer>``, as UniVG-R1 puts it together.
    """
    if style == "think" and row.chain is None:
        raise LeftOut("no_chain")
    if row.answer is not None:
        answer = _rewritten(row.answer, row, how, input_sizes)
    else:
        answer = _written(row, how, style, input_sizes)
    if style != "think":
        return answer
    chain = _rewritten(row.chain or "", row, how, input_sizes)
    return f"<think>{chain}</think><answer>{answer}</answer>"


def _written(row: TrainingRow, how: Rendering, style: str, input_sizes: list[Size] | None) -> str:
    """An answer for a row that has only a box: the image first where the model has to find it."""
    if len(row.targets) > 1:
        raise LeftOut("several_targets")
    if not row.targets:
        return NOTHING
    (target,) = row.targets
    text = _encoded(target, row, how, input_sizes)
    if row.target_image is None and target.image is not None and len(row.images) > 1:
        return f"It's in the {ordinal(target.image)} image. {text}"
    return text


def _encoded(
    target: RowTarget, row: TrainingRow, how: Rendering, input_sizes: list[Size] | None
) -> str:
    if _needs_size(how) and target.image is None:
        _require_common_size(row)
    image = target.image or 0
    return how.dialect.encode(
        target.box,
        image_wh=row.image_sizes[image],
        input_wh=input_sizes[image] if input_sizes else None,
    )


_CANONICAL = "qwen2_vl"
_SAME_FORM = frozenset({"qwen2_vl", "migician", "univg_r1"})
_MARKS = ("<|box_start|>", "<|box_end|>", "<|object_ref_start|>", "<|object_ref_end|>")


def _rewritten(text: str, row: TrainingRow, how: Rendering, input_sizes: list[Size] | None) -> str:
    """A released text with its boxes in the dialect; the Qwen2-VL family's own is not touched.

    A box lies on the image that the text names last before it, else on the one of the question.
    """
    if row.written_in is not None or how.dialect.name in _SAME_FORM:
        return text
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
        parts.append(text[end:start])
        parts.append(_encoded(RowTarget(image, (x1, y1, x2, y2)), row, how, input_sizes))
        end = stop
    rewritten = "".join([*parts, text[end:]])
    for mark in _MARKS:
        rewritten = rewritten.replace(mark, "")
    return rewritten


def _needs_size(how: Rendering) -> bool:
    return how.dialect.needs_image_size or how.dialect.needs_input_size


def _holds_box(text: str) -> bool:
    return "<|box_start|>" in text


def _require_common_size(row: TrainingRow) -> None:
    if len(set(row.image_sizes)) > 1:
        raise LeftOut("unknown_image")
