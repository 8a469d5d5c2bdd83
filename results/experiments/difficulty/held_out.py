"""Greedy answers of a model to held-out samples, scored as everywhere in UniVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from plan import TASKS
from rollouts import generate, make_prompts

from univg_eval.boxes import box_iou
from univg_eval.protocols import parse_answer
from univg_train.difficulty import group_means
from univg_train.grpo.trainer import PAPER_SETTINGS
from univg_train.tiny.answers import DIALECT
from univg_train.tiny.data import training_item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

    from univg_eval.benchmarks.synthetic.mini import MiniItem

__all__ = ["STRATA", "HeldOut", "draw_items"]

STRATA = {"hard": (0.0, 0.2), "medium": (0.2, 0.8), "easy": (0.8, 1.01)}
"""Mean IoU of the start's own rollouts, from and below, by which held-out samples are sorted."""

_BATCH = 50


def draw_items(seed: int, numbers: Iterable[int]) -> list[MiniItem]:
    """The samples with these numbers of the endless stream of `seed`, the tasks in turns."""
    # Neighbouring samples of some tasks share their images; one of each pair is used.
    return [training_item(TASKS[n % len(TASKS)], seed, 2 * (n // len(TASKS))) for n in numbers]


class HeldOut:
    """Samples that no training sees.

    Args:
        seed: of the scenes.
        count: samples, the tasks in turns.
    """

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.items = draw_items(seed, range(count))

    def measure(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        difficulty: Sequence[float],
    ) -> dict[str, dict[str, float]]:
        """Acc@0.5, mean IoU and share of readable boxes, of all samples and of each stratum.

        Args:
            model: in float32.
            tokenizer: of the model.
            difficulty: of every sample, see `start_means`.
        """
        overlaps, readable = self._overlaps(model, tokenizer, 1, None)
        means = np.asarray(difficulty)
        chosen = {"all": np.ones(len(means), dtype=bool)}
        chosen |= {name: (means >= a) & (means < b) for name, (a, b) in STRATA.items()}
        return {
            name: {
                "acc@0.5": float((overlaps[rows] >= 0.5).mean()),
                "miou": float(overlaps[rows].mean()),
                "answered": float(readable[rows].mean()),
            }
            for name, rows in chosen.items()
        }

    def start_means(
        self, model: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
    ) -> list[float]:
        """The mean IoU of each sample's rollouts, sampled as in training."""
        size = PAPER_SETTINGS["num_generations"]
        generator = torch.Generator().manual_seed(self.seed)
        overlaps, _ = self._overlaps(model, tokenizer, size, generator)
        return [round(float(mean), 4) for mean in group_means(overlaps, size)]

    def _overlaps(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        rollouts: int,
        generator: torch.Generator | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """IoU and whether there was a box, both (samples x rollouts,); greedy without generator."""
        overlaps: list[float] = []
        readable: list[bool] = []
        for begin in range(0, len(self.items), _BATCH):
            some = self.items[begin : begin + _BATCH]
            completions = generate(
                model,
                make_prompts(some, tokenizer),
                rollouts=rollouts,
                top_k=None if generator is None else PAPER_SETTINGS["top_k"],
                generator=generator,
            )
            texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
            for number, text in enumerate(texts):
                box = parse_answer(text, DIALECT).box
                truth = some[number // rollouts].box
                readable.append(box is not None)
                overlaps.append(0.0 if box is None else float(box_iou(box, truth)))
        return np.asarray(overlaps), np.asarray(readable)
