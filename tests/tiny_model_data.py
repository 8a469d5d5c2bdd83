"""A small shape of the tiny model, its vocabulary, and rows of whole questions."""

from __future__ import annotations

from typing import Any

from univg_train.tiny.data import PROMPT_SUFFIX, REASONING_TOKENS, RowPlan, tokenizer_texts
from univg_train.tiny.model import TinyShape
from univg_train.tiny.tokenizer import build_tokenizer

SHAPE = TinyShape(
    hidden=64, intermediate=96, layers=2, heads=2, kv_heads=2, vision_dim=32, vision_depth=2,
    vision_heads=2, looking_layer=1,
)  # fmt: skip
WHOLE = RowPlan(image_steps=0, simple_steps=0, blend_steps=0)


def vocabulary() -> Any:
    """That of few texts, which takes little time to learn."""
    phrases = [PROMPT_SUFFIX, *REASONING_TOKENS]
    return build_tokenizer(tokenizer_texts(0, per_task=8), phrases=phrases)
