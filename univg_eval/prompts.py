"""What a model is prompted with: the question in its own dialect, and the request for an answer.

Three styles:

* ``think``: the sentence that UniVG-R1 was trained and measured with, word for word
  (AMAP-ML/UniVG-R1, ``eval/MIG_bench``): think first, then the box in ``<answer>`` tags.
* ``direct``: the question followed by the dialect's own `prompt_suffix`.
* ``official``: the grounding prompt that the family itself published, around the sample's referring
  expression (``extra["expression"]``, of one image): what its own numbers were measured with.

Where a sample asks for every object that fits, suffix and official prompt are those for that.

A contract in pixels ("pixels", "claude") says the size of each image before its request.

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
from univg_eval.errors import UserError, meant
from univg_eval.samples import GroundingSample

__all__ = [
    "PROMPT_STYLES",
    "THINK_SUFFIX",
    "TRAINED_STYLES",
    "build_prompt",
    "default_prompt_style",
    "has_official_prompt",
    "localize_question",
    "prompt_hash",
    "question_boxes",
    "require_style",
]

PROMPT_STYLES = ("think", "direct", "official")
TRAINED_STYLES = ("think", "direct")
"""Styles that training data are written in."""

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


def question_boxes(question: str) -> list[Box]:
    """The boxes that a question in the canonical form names, xyxy_norm, in its order."""
    return [_normalised(match) for match in _CANONICAL_BOX.finditer(question)]


def _normalised(match: re.Match[str]) -> Box:
    x1, y1, x2, y2 = (int(number) / 1000 for number in match.groups())
    return (x1, y1, x2, y2)


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
        if dialect.needs_image_size and image_wh is None:
            raise UserError(
                f"the question holds a box, and dialect {dialect.name!r} writes boxes in pixels, "
                "but the image's size is not known: prepare the benchmark with its images"
            )
        return dialect.encode(_normalised(match), image_wh=image_wh, input_wh=input_wh)

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
        sample: boxes in its question lie on its `question_box_image`.
        dialect: how the model under test writes boxes.
        style: one of `PROMPT_STYLES`.
        input_sizes: (width, height) of each image after the model's own resize, if known.

    Returns:
        ``think``: question + `THINK_SUFFIX`, no white space added or removed, as published.
        ``direct``: question, one space, the dialect's suffix.
        ``official``: the dialect's official prompt with the sample's expression.
        Under a contract in pixels the sizes of the images stand before what is added.

    Raises:
        UserError: unknown style, or one that the dialect or the sample does not have, an unknown
            size, or see `localize_question`.
    """
    require_style(dialect, style, sample)
    if style == "official":
        official = dialect.official(sample.find_all)
        return official.replace("{expression}", sample.extra["expression"])
    box_image = sample.question_box_image
    sizes = sample.image_sizes
    question = localize_question(
        sample.instruction,
        dialect,
        image_wh=sizes[box_image] if sizes else None,
        input_wh=input_sizes[box_image] if input_sizes else None,
    )
    if dialect.follows_stated_size:
        question = f"{question.rstrip()} {_sizes_in_words(sample, dialect, input_sizes)}"
    if style == "think":
        return question + THINK_SUFFIX
    suffix = dialect.suffix(sample.find_all)
    return f"{question.rstrip()} {suffix}" if suffix else question.rstrip()


def require_style(dialect: Dialect, style: str, sample: GroundingSample | None = None) -> None:
    """Refuse a prompt style that does not exist for a dialect or a sample.

    Raises:
        UserError: the style is unknown, the family has published no prompt, or the sample has no
            referring expression about one image.
    """
    if style not in PROMPT_STYLES:
        raise UserError(f"unknown prompt style {style!r}; {meant(style, PROMPT_STYLES)}")
    if style != "official":
        return
    find_all = sample is not None and sample.find_all
    known = dialect.official(find_all) or (sample is None and dialect.official(True))
    if not known:
        every = " for every object that fits" if find_all else ""
        raise UserError(
            f"no published grounding prompt of dialect {dialect.name!r}{every} is known, so there "
            "is no prompt style 'official'; choose direct or think"
        )
    if sample is not None and not has_official_prompt(sample):
        raise UserError(
            f"sample {sample.id!r} is no referring expression about one image, which the prompt "
            "style 'official' is for (RefCOCO, the zero-shot sets on images, own samples); choose "
            "direct or think"
        )


def has_official_prompt(sample: GroundingSample) -> bool:
    """Whether a sample can be put into an official prompt: an expression about one image."""
    return len(sample.images) == 1 and isinstance(sample.extra.get("expression"), str)


_SIZE = "Image {n} is {width} pixels wide and {height} pixels high."
_ONLY_SIZE = "The image is {width} pixels wide and {height} pixels high."


def _sizes_in_words(
    sample: GroundingSample, dialect: Dialect, input_sizes: Sequence[tuple[int, int]] | None
) -> str:
    sizes = sample.image_sizes
    if sizes is not None:
        sizes = [dialect.input_size(size) for size in sizes]
    if dialect.needs_input_size and input_sizes:
        sizes = list(input_sizes)
    if sizes is None:
        raise UserError(
            f"sample {sample.id!r}: dialect {dialect.name!r} is in pixels, and a prompt has to say "
            "how large each image is, which is not known: prepare the benchmark with its images"
        )
    template = _ONLY_SIZE if len(sizes) == 1 else _SIZE
    return " ".join(
        template.format(n=n, width=width, height=height)
        for n, (width, height) in enumerate(sizes, 1)
    )


def prompt_hash(dialect: Dialect, style: str) -> str:
    """SHA-256 (hex) of what `build_prompt` adds to a question: equal hashes, equal request."""
    if style == "think":
        added = THINK_SUFFIX
    else:
        of = dialect.official if style == "official" else dialect.suffix
        added = of(False)
        if of(True) not in ("", added):
            added = f"{added}\n{of(True)}"
    if dialect.follows_stated_size:
        added = f"{_ONLY_SIZE} {_SIZE} {added}"
    return hashlib.sha256(f"{style}\n{added}".encode()).hexdigest()
