"""The dialect of a model family: how it writes boxes and what the numbers mean."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from univg_eval.boxes import Box
from univg_eval.dialects._grammar import Found, Grammar
from univg_eval.dialects._spaces import FittedPixels, ImagePixels, InputPixels, Points, Size, Space
from univg_eval.dialects.no_target import find_no_target
from univg_eval.dialects.sections import count_marks
from univg_eval.errors import UserError

__all__ = ["Confidence", "Dialect", "Example", "Level"]

Level = Literal["high", "medium", "low", "none"]


class Confidence(NamedTuple):
    """How well the sources support form, order and scale of a dialect."""

    form: Level
    order: Level
    scale: Level


class Example(NamedTuple):
    """An answer of a family about an image, and what it means there.

    Attributes:
        image_wh: (width, height) of the image in pixels.
        input_wh: the same as the model sees it.
        answer: the family's own way of writing one box.
        box: what it reads as, xyxy in pixels of the image.
    """

    image_wh: Size
    input_wh: Size
    answer: str
    box: Box


_EXAMPLE_WH = (1280, 960)
_EXAMPLE_BOX = (0.25, 0.5, 0.5, 0.75)
_EXAMPLE_LABEL = "red cup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a model family writes boxes.

    Attributes:
        name: identifier, as given to ``--dialect``.
        families: model families that write so.
        model_types: transformers' ``model_type`` of their checkpoints, where it says which it is.
        form: the grammar in words.
        space: what the numbers mean; converts them.
        confidence: how well the sources support form, order and scale.
        template: one box as the family writes it, for `str.format` with the numbers in the
            written order.
        labelled_template: the same with a phrase, ``{label}`` as it is, ``{json_label}`` as a JSON
            string or ``{html_label}`` as the value of an attribute; empty where the family marks
            no phrase.
        several: what stands before, between and after the boxes of one answer; what a single box
            has of the first and the last at its ends is written once. None: a JSON list where one
            box is an object, else commas.
        prompt_suffix: what a direct prompt adds to the question to get this form.
        prompt_suffix_all: the same where every object is asked for; empty: as for one.
        official_prompt: the grounding prompt that the family itself published, ``{expression}``
            in the place of the referring expression; empty where none is known.
        official_prompt_all: the same for every object that fits; empty where none is known.
        grammar: finds boxes in a text.
        point_form: how the family writes points, in words; empty where that is not known.
        point_grammar: finds points in a text, two numbers each, on the scale of the boxes and in
            the order of their corners; None where it is not known how the family writes points.
        needs_special_tokens: the tokenizer takes the box for special tokens, so nothing of it is
            left in a text that was decoded without them.
        sources: public sources of the facts.
        sources_read: date on which they were last read.
        notes: traps, and what is not certain.
    """

    name: str
    families: tuple[str, ...]
    form: str
    space: Space
    confidence: Confidence
    template: str
    prompt_suffix: str
    grammar: Grammar = field(repr=False)
    model_types: tuple[str, ...] = field(default=(), repr=False)
    labelled_template: str = ""
    several: tuple[str, str, str] | None = None
    official_prompt: str = ""
    prompt_suffix_all: str = ""
    official_prompt_all: str = ""
    point_form: str = ""
    point_grammar: Grammar | None = field(default=None, repr=False)
    needs_special_tokens: bool = False
    sources: tuple[str, ...] = ()
    sources_read: str = "2026-11-22"
    notes: tuple[str, ...] = ()

    def suffix(self, find_all: bool) -> str:
        """What a direct prompt adds to a question about one object, or about all that fit."""
        return ((find_all and self.prompt_suffix_all) or self.prompt_suffix).strip()

    def official(self, find_all: bool) -> str:
        """The published prompt for one object, or for all that fit; empty where none is known."""
        return self.official_prompt_all if find_all else self.official_prompt

    @property
    def order(self) -> str:
        """Order in which the numbers are written."""
        return self.space.order

    @property
    def gives_boxes(self) -> bool:
        """False for families that only point: their replies never yield a box."""
        return not isinstance(self.space, Points)

    @property
    def needs_image_size(self) -> bool:
        """Whether decoding is impossible without the original image's size."""
        return self.space.needs_image_size

    @property
    def needs_input_size(self) -> bool:
        """Whether decoding needs ``input_wh``, or ``image_wh`` and the resize rule."""
        return self.space.needs_input_size

    @property
    def pixel_limits(self) -> tuple[int, int] | None:
        """(min_pixels, max_pixels) of the resize rule; None where there is no such rule."""
        space = self.space
        return (space.min_pixels, space.max_pixels) if isinstance(space, InputPixels) else None

    @property
    def resize_rule(self) -> str | None:
        """The rule that gives the input size, in words; None where boxes do not depend on it."""
        return self.space.resize_rule

    def input_size(self, image_wh: Size) -> Size:
        """(width, height) in pixels of the image as the model sees it, by the resize rule.

        That of the original where boxes do not depend on a resize. UserError: see the rule.
        """
        return self.space.input_size(image_wh)

    @property
    def follows_stated_size(self) -> bool:
        """Whether boxes are pixels of an image whose size the prompt has to state.

        True for contracts in pixels. A family trained on the pixels of its own resized input
        knows them without words.
        """
        return isinstance(self.space, ImagePixels | FittedPixels)

    def with_pixel_limits(self, min_pixels: int | None, max_pixels: int | None) -> Dialect:
        """The same dialect with other limits of the resize rule; unchanged where it has none.

        Raises:
            UserError: a limit below 1, or the smaller limit above the larger.
        """
        for limit_name, limit in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
            if limit is not None and limit < 1:
                raise UserError(f"{limit_name} is {limit}; expected a number of pixels, at least 1")
        space = self.space
        if not isinstance(space, InputPixels) or (min_pixels is None and max_pixels is None):
            return self
        low = space.min_pixels if min_pixels is None else min_pixels
        high = space.max_pixels if max_pixels is None else max_pixels
        if low > high:
            raise UserError(
                f"min_pixels is {low} and max_pixels {high} for dialect {self.name!r}; expected "
                "min_pixels <= max_pixels: set both"
            )
        return replace(self, space=replace(space, min_pixels=low, max_pixels=high))

    def scan(self, text: str) -> list[Found]:
        """Boxes and explicit nulls in `text`, in order, numbers as written."""
        return self.grammar.scan(text)

    def decode(
        self, raw: tuple[float, ...], image_wh: Size | None = None, input_wh: Size | None = None
    ) -> Box:
        """Numbers as written to a box.

        Args:
            raw: the numbers of one box in the written order (two cells for Kosmos-2, else four).
            image_wh: (width, height) of the original image in pixels.
            input_wh: (width, height) of the image as the model saw it, in pixels.

        Returns:
            xyxy_norm, neither clipped nor checked.

        Raises:
            UserError: a size that the dialect needs is missing, or the dialect has no boxes.
        """
        return self.space.to_norm(raw, image_wh, input_wh)

    def decode_point(
        self, raw: tuple[float, ...], image_wh: Size | None = None, input_wh: Size | None = None
    ) -> tuple[float, float]:
        """The two numbers of a point as written to (x, y) on [0, 1] of the original image.

        Neither clipped nor checked. Arguments and UserError: see `decode`.
        """
        return self.space.point_to_norm(raw, image_wh, input_wh)

    def encode(
        self,
        box_xyxy_norm: Box,
        *,
        image_wh: Size | None = None,
        input_wh: Size | None = None,
        label: str | None = None,
    ) -> str:
        """A known box as the family writes it, the inverse of reading up to rounding.

        Args:
            box_xyxy_norm: x1, y1, x2, y2 on [0, 1] of the original image.
            image_wh: (width, height) of the original image in pixels.
            input_wh: (width, height) of the image as the model sees it, in pixels.
            label: phrase that names the object, where the family marks one; else left out. One
                that names an image ("the cup in image 2") says which image the box is on.

        Returns:
            The text; numbers rounded to the family's own steps and clipped to its range. A box
            that is not empty is at least one step wide and high.

        Raises:
            UserError: a number is not finite, a size that the dialect needs is missing, the
                dialect has no boxes, or the label would be read as a part of the answer.
        """
        if not all(map(math.isfinite, box_xyxy_norm)):
            raise UserError(f"box {box_xyxy_norm!r} cannot be written: expected finite numbers")
        numbers = self.space.from_norm(box_xyxy_norm, image_wh, input_wh)
        bare = self.template.format(*numbers)
        if label is None or not self.labelled_template:
            return bare
        written = self.labelled_template.format(
            *numbers,
            label=label,
            json_label=json.dumps(label, ensure_ascii=False),
            html_label=html.escape(label),
        )
        if not self._says_the_same(written, bare):
            raise UserError(
                f"label {label[:80]!r} cannot be written in the dialect {self.name!r}: its tags, "
                "brackets or its 'none' would be read as a part of the answer; leave them out of "
                "it, or give no label"
            )
        return written

    def _says_the_same(self, written: str, bare: str) -> bool:
        """Whether nothing but the box of `bare` is read from a text."""
        if count_marks(written) != count_marks(bare):
            return False
        if find_no_target(written, has_boxes=True):
            return False
        return [raw for _, _, raw, *_ in self.scan(written)] == [
            raw for _, _, raw, *_ in self.scan(bare)
        ]

    def encode_several(
        self,
        boxes_xyxy_norm: Sequence[Box],
        *,
        image_wh: Size | None = None,
        input_wh: Size | None = None,
    ) -> str:
        """Boxes of one image as the family writes several; see `encode`.

        Args:
            boxes_xyxy_norm: at least one; a single one is written by `encode`.
            image_wh, input_wh: see `encode`.

        Raises:
            UserError: see `encode`.
        """
        written = [self.encode(b, image_wh=image_wh, input_wh=input_wh) for b in boxes_xyxy_norm]
        if len(written) == 1:
            return written[0]
        plain = ("[", ", ", "]") if self.template.startswith("{{") else ("", ", ", "")
        before, between, after = self.several or plain
        return (
            before
            + between.join(text.removeprefix(before).removesuffix(after) for text in written)
            + after
        )

    def example(self) -> Example | None:
        """A red cup's box in a picture of 1280 x 960 pixels; None for a family without boxes."""
        if not self.gives_boxes:
            return None
        wh = _EXAMPLE_WH
        answer = self.encode(_EXAMPLE_BOX, image_wh=wh, label=_EXAMPLE_LABEL)
        raw = next(raw for _, _, raw, *_ in self.scan(answer) if raw is not None)
        x1, y1, x2, y2 = self.decode(raw, wh)
        return Example(
            wh, self.input_size(wh), answer, (x1 * wh[0], y1 * wh[1], x2 * wh[0], y2 * wh[1])
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything but the grammar, as plain JSON values."""
        example = self.example()
        limits = self.pixel_limits
        return {
            "name": self.name,
            "families": list(self.families),
            "form": self.form,
            "order": self.order,
            "space": self.space.kind,
            "scale": self.space.describe(),
            "confidence": self.confidence._asdict(),
            "gives_boxes": self.gives_boxes,
            "point_form": self.point_form,
            "needs_image_size": self.needs_image_size,
            "needs_input_size": self.needs_input_size,
            "needs_special_tokens": self.needs_special_tokens,
            "resize_rule": self.resize_rule,
            "min_pixels": limits[0] if limits else None,
            "max_pixels": limits[1] if limits else None,
            "prompt_suffix": self.prompt_suffix,
            "official_prompt": self.official_prompt,
            "example": None if example is None else example._asdict(),
            "sources": list(self.sources),
            "sources_read": self.sources_read,
            "notes": list(self.notes),
        }
