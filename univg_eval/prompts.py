"""What a model is prompted with: the question in its own dialect, and the request for an answer.

Two styles:

* ``think``: the sentence that UniVG-R1 was trained and measured with, word for word
  (AMAP-ML/UniVG-R1, ``eval/MIG_bench``): think first, then the box in ``<answer>`` tags.
* ``direct``: the question followed by the dialect's own `prompt_suffix`.

Benchmarks store questions in one canonical form, that of MIG-Bench: boxes as
``<|box_start|>(x1,y1),(x2,y2)<|box_end|>`` on 0-1000 and phrases between
``<|object_ref_start|>`` and ``<|object_ref_end|>``. A model of another family would meet tokens
that it was never trained on, so both are rewritten into its own form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from univg_eval.boxes import Box
from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample

__all__ = [
    "PROMPT_STYLES",
    "THINK_SUFFIX",
    "build_prompt",
    "default_prompt_style",
    "localize_question",
    "prompt_hash",
]

PROMPT_STYLES = ("think", "direct")

THINK_SUFFIX = (
    " First output the thinking process in <think> </think> tags and then output the bounding box"
    " in <answer> </answer> tags."
)

# Trained with the think sentence, and lost without it; models that think by themselves
# (GLM-V, Kimi-VL-Thinking, MiMo-VL) need no request.
_THINK_DIALECTS = frozenset({"univg_r1", "vlm_r1"})

_CANONICAL_BOX = re.compile(
    r"<\|box_start\|>\((\d{1,4}),(\d{1,4})\),\((\d{1,4}),(\d{1,4})\)<\|box_end\|>"
)
_CANONICAL_REF = re.compile(r"<\|object_ref_(?:start|end)\|>")
_CANONICAL_DIALECTS = frozenset({"qwen2_vl", "migician", "univg_r1"})


def default_prompt_style(dialect_name: str) -> str:
    """``think`` for the families trained with the think sentence, else ``direct``."""
    return "think" if dialect_name in _THINK_DIALECTS else "direct"


def localize_question(
    question: str,
    dialect: Dialect,
    *,
    image_wh: tuple[int, int] | None = None,
    input_wh: tuple[int, int] | None = None,
) -> str:
    """Rewrite the canonical boxes and phrase marks of a question into the dialect's own form.

    Args:
        question: text in the canonical form.
        dialect: the family that will read it. The Qwen2-VL family, whose form the canonical one
            is, gets the text unchanged.
        image_wh: (width, height) in pixels of the image that the boxes lie on.
        input_wh: the same after the model's own resize, for dialects in those pixels.

    Returns:
        The question; phrase marks are dropped, boxes written by ``dialect.encode``.

    Raises:
        UserError: the question holds a box, and the dialect needs a size that is not known.
    """
    if dialect.name in _CANONICAL_DIALECTS:
        return question

    def rewrite(match: re.Match[str]) -> str:
        x1, y1, x2, y2 = (int(number) / 1000 for number in match.groups())
        box: Box = (x1, y1, x2, y2)
        if dialect.needs_image_size and image_wh is None:
            raise UserError(
                f"the question holds a box, and dialect {dialect.name!r} writes boxes in pixels, "
                "but the image's size is not known: prepare the benchmark with its images"
            )
        return dialect.encode(box, image_wh=image_wh, input_wh=input_wh)

    return _CANONICAL_REF.sub("", _CANONICAL_BOX.sub(rewrite, question))


def build_prompt(
    sample: GroundingSample,
    dialect: Dialect,
    style: str,
    *,
    input_sizes: Sequence[tuple[int, int]] | None = None,
) -> str:
    """The text that follows a sample's images.

    Args:
        sample: boxes in its question lie on image ``extra["question_box_image"]`` (0-based,
            first image if absent).
        dialect: how the model under test writes boxes.
        style: one of `PROMPT_STYLES`.
        input_sizes: (width, height) of each image after the model's own resize, if known.

    Returns:
        ``think``: question + `THINK_SUFFIX`, no white space added or removed, as published.
        ``direct``: question, one space, the dialect's suffix.

    Raises:
        UserError: unknown style, or see `localize_question`.
    """
    if style not in PROMPT_STYLES:
        raise UserError(f"unknown prompt style {style!r}; known styles: {', '.join(PROMPT_STYLES)}")
    box_image = int(sample.extra.get("question_box_image", 0))
    sizes = sample.image_sizes
    question = localize_question(
        sample.instruction,
        dialect,
        image_wh=sizes[box_image] if sizes else None,
        input_wh=input_sizes[box_image] if input_sizes else None,
    )
    if style == "think":
        return question + THINK_SUFFIX
    suffix = dialect.prompt_suffix.strip()
    return f"{question.rstrip()} {suffix}" if suffix else question.rstrip()


def prompt_hash(dialect: Dialect, style: str) -> str:
    """SHA-256 (hex) of what `build_prompt` adds to a question: equal hashes, equal request."""
    added = THINK_SUFFIX if style == "think" else dialect.prompt_suffix.strip()
    return hashlib.sha256(f"{style}\n{added}".encode()).hexdigest()
