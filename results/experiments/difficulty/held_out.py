"""Greedy answers of a model to held-out questions, scored as everywhere in UniVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rollouts import MAX_NEW_TOKENS, generate, make_prompts
from scenes import KINDS, draw_question

from univg_eval.boxes import box_iou
from univg_eval.protocols import parse_answer
from univg_train.tiny.answers import DIALECT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

    from univg_train.tiny.model import TinyShape

__all__ = ["HELD_OUT_SEED", "HeldOut"]

HELD_OUT_SEED = 900_000_007
"""Of the questions that measure; no start, tuning or run draws its scenes with it."""

_BATCH = 100


class HeldOut:
    """Questions that no training sees.

    Args:
        per_kind: questions of each kind.
        seed: of the scenes.
    """

    def __init__(self, per_kind: int, seed: int = HELD_OUT_SEED) -> None:
        self.questions = [draw_question(kind, seed, i) for kind in KINDS for i in range(per_kind)]

    def measure(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        shape: TinyShape,
        style: str,
    ) -> dict[str, dict[str, float]]:
        """Acc@0.5, mean IoU and share of readable boxes, of each kind and of both together."""
        overlaps: list[float] = []
        readable: list[bool] = []
        for begin in range(0, len(self.questions), _BATCH):
            some = self.questions[begin : begin + _BATCH]
            replies = generate(
                model,
                make_prompts(some, tokenizer, shape, style),
                shape,
                rollouts=1,
                max_new_tokens=MAX_NEW_TOKENS[style],
            )
            texts = tokenizer.batch_decode(replies, skip_special_tokens=True)
            for question, text in zip(some, texts, strict=True):
                box = parse_answer(text, DIALECT).box
                readable.append(box is not None)
                overlaps.append(0.0 if box is None else float(box_iou(box, question.target.box)))
        return _figures([q.kind for q in self.questions], overlaps, readable)


def _figures(
    kinds: Sequence[str], overlaps: Sequence[float], readable: Sequence[bool]
) -> dict[str, dict[str, float]]:
    chosen: Mapping[str, np.ndarray] = {
        "all": np.ones(len(kinds), dtype=bool),
        **{kind: np.array([k == kind for k in kinds]) for kind in KINDS},
    }
    iou, answered = np.asarray(overlaps), np.asarray(readable)
    return {
        name: {
            "acc@0.5": float((iou[rows] >= 0.5).mean()),
            "miou": float(iou[rows].mean()),
            "answered": float(answered[rows].mean()),
        }
        for name, rows in chosen.items()
    }
