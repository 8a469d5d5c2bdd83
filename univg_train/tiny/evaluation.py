"""Greedy answers of the tiny model to generated questions, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from univg_eval.benchmarks.synthetic.mini import TASKS, MiniItem
from univg_eval.boxes import box_iou
from univg_eval.protocols import parse_answer
from univg_train.tiny.data import DIALECT, draw_images, prefix_text, question_text, training_item
from univg_train.tiny.model import IMAGE_SIDE, TinyShape, image_patches
from univg_train.tiny.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

__all__ = ["Prediction", "answer_items", "task_accuracy", "validation_items"]

MAX_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Prediction:
    """A question's answer and its IoU with the true box (0 where no box could be read)."""

    item: MiniItem
    response: str
    iou: float


def validation_items(seed: int, per_task: int) -> list[MiniItem]:
    """Questions of the training kind from a stream that no training step draws from."""
    return [training_item(task, seed, 2 * index) for task in TASKS for index in range(per_task)]


def answer_items(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    shape: TinyShape,
    items: Sequence[MiniItem],
    *,
    batch_size: int = 40,
) -> list[Prediction]:
    """Greedy responses in the order of `items`."""
    order = sorted(range(len(items)), key=lambda i: items[i].image_count)
    results: dict[int, Prediction] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        responses = _generate(model, tokenizer, shape, [items[i] for i in chosen])
        for i, response in zip(chosen, responses, strict=True):
            results[i] = Prediction(items[i], response, _overlap(items[i], response))
    return [results[i] for i in range(len(items))]


def _overlap(item: MiniItem, response: str) -> float:
    answer = parse_answer(
        response, DIALECT, target_image=item.target_image if item.image_is_given else None
    )
    return 0.0 if answer.box is None else float(box_iou(answer.box, item.box))


@torch.inference_mode()
def _generate(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    shape: TinyShape,
    items: Sequence[MiniItem],
) -> list[str]:
    texts = [
        prefix_text(item.image_count, shape.tokens_per_image)
        + question_text(item.instruction)
        + f"{END_OF_TURN}\n<|im_start|>assistant\n"
        for item in items
    ]
    tokens = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    images = np.concatenate([draw_images(item.scenes, IMAGE_SIDE) for item in items])
    patches = image_patches(torch.from_numpy(images), shape, torch.float32)
    grid = torch.tensor([[1, shape.grid, shape.grid]]).expand(len(images), 3)
    output = model.generate(
        input_ids=tokens.input_ids,
        attention_mask=tokens.attention_mask,
        pixel_values=patches.reshape(-1, patches.shape[-1]),
        image_grid_thw=grid,
        mm_token_type_ids=(tokens.input_ids == model.config.image_token_id).int(),
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
    )
    return tokenizer.batch_decode(output[:, tokens.input_ids.shape[1] :], skip_special_tokens=True)


def task_accuracy(predictions: Sequence[Prediction], threshold: float = 0.5) -> dict[str, float]:
    """Share of each task's questions with IoU >= threshold."""
    return {
        task: float(np.mean([p.iou >= threshold for p in predictions if p.item.task == task]))
        for task in TASKS
        if any(p.item.task == task for p in predictions)
    }
