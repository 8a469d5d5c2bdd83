"""Prompts, their completions, and the logits of these, computed once a prompt.

All rollouts of a prompt share its images and question. TRL runs these once a rollout; here they
run once a prompt, in generation by a repeated cache, in training by the packed rows of
`univg_train.tiny.model`. The numbers are the same (tests/test_results_difficulty.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scenes import Question, draw_images
from torch import Tensor

from univg_eval.prompts import THINK_SUFFIX
from univg_train.tiny.data import PROMPT_SUFFIX, prefix_text
from univg_train.tiny.model import (
    IMAGE_SIDE,
    PackedBatch,
    TinyShape,
    image_patches,
    packed_logits,
    vision_features,
)
from univg_train.tiny.tokenizer import END_OF_TURN
from univg_train.tiny.workers import prefix_positions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

__all__ = [
    "MAX_NEW_TOKENS",
    "Prompts",
    "completion_logits",
    "generate",
    "make_prompts",
    "question_with_suffix",
]

MAX_NEW_TOKENS = {"direct": 14, "think": 48}


def question_with_suffix(question: Question, style: str) -> str:
    """The text behind the image, as the prompt style has it."""
    return question.text + (PROMPT_SUFFIX if style == "direct" else THINK_SUFFIX)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of equal length.

    ids: (prompts, length); positions: (3, prompts, length), M-RoPE; images: uint8
    (prompts, side, side, 3).
    """

    ids: Tensor
    positions: Tensor
    images: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def make_prompts(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerFast,
    shape: TinyShape,
    style: str,
) -> Prompts:
    """What a model is given, up to the first token of its answer."""
    before = prefix_text(1, shape.tokens_per_image)
    texts = [
        f"{before}{question_with_suffix(question, style)}{END_OF_TURN}\n<|im_start|>assistant\n"
        for question in questions
    ]
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    if len({len(row) for row in ids}) != 1:
        raise ValueError("prompts have different lengths; every word of a question is one token")
    prefix = tokenizer.encode(before, add_special_tokens=False)
    lead = len(prefix) - (shape.tokens_per_image + 2)
    positions = prefix_positions(1, shape, lead)
    rest = int(positions.max()) + 1 + np.arange(len(ids[0]) - len(prefix))
    positions = np.concatenate([positions, np.tile(rest, (3, 1))], axis=1)
    return Prompts(
        torch.tensor(ids),
        torch.from_numpy(positions)[:, None].expand(3, len(ids), -1),
        torch.from_numpy(draw_images([question.scene for question in questions], IMAGE_SIDE)),
    )


@torch.no_grad()
def generate(
    model: Qwen2VLForConditionalGeneration,
    prompts: Prompts,
    shape: TinyShape,
    *,
    rollouts: int,
    max_new_tokens: int,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Completions, those of a prompt one after the other, each with its end mark if it has one.

    Args:
        model: in float32.
        prompts: of equal length.
        shape: of the model.
        rollouts: completions a prompt.
        max_new_tokens: the longest completion.
        top_k: sample at temperature 1 among so many tokens; None: take the likeliest.
        generator: of the sampling.
    """
    end = int(model.config.eos_token_id)
    inner: Any = model.model
    patches = image_patches(prompts.images, shape, torch.float32)
    features = vision_features(inner.visual, patches, shape.grid)
    embedded = inner.language_model.embed_tokens(prompts.ids)
    is_image = (prompts.ids == model.config.image_token_id)[..., None]
    embedded = embedded.masked_scatter(is_image, features)
    output = inner.language_model(
        inputs_embeds=embedded, position_ids=prompts.positions, use_cache=True
    )
    cache = output.past_key_values
    cache.batch_repeat_interleave(rollouts)
    logits = model.lm_head(output.last_hidden_state[:, -1]).repeat_interleave(rollouts, dim=0)
    place = prompts.positions[:, :, -1:].repeat_interleave(rollouts, dim=1)
    tokens: list[Tensor] = []
    done = torch.zeros(len(logits), dtype=torch.bool)
    while True:
        token = _choose(logits, top_k, generator)
        tokens.append(token)
        done |= token == end
        if len(tokens) == max_new_tokens or bool(done.all()):
            break
        place = place + 1
        output = inner.language_model(
            inputs_embeds=inner.language_model.embed_tokens(token[:, None]),
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
        )
        logits = model.lm_head(output.last_hidden_state[:, -1])
    return [_until(row, end) for row in torch.stack(tokens, dim=1).tolist()]


def _choose(logits: Tensor, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    if top_k is None:
        return logits.argmax(dim=-1)
    values, ids = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    chosen = torch.multinomial(values.softmax(dim=-1), 1, generator=generator)
    return ids.gather(1, chosen)[:, 0]


def _until(row: list[int], end: int) -> list[int]:
    return row[: row.index(end) + 1] if end in row else row


def completion_logits(
    model: Qwen2VLForConditionalGeneration,
    prompts: Prompts,
    completions: Sequence[Sequence[int]],
    shape: TinyShape,
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of every token of the completions.

    Returns:
        logits (tokens, vocabulary); ids (tokens,): the tokens that followed; owner (tokens,): the
        completion that each belongs to.
    """
    batch, owner = _pack(prompts, completions)
    return packed_logits(model, batch, shape), batch.target_ids, owner


def _pack(prompts: Prompts, completions: Sequence[Sequence[int]]) -> tuple[PackedBatch, Tensor]:
    count, length = prompts.ids.shape
    rollouts = len(completions) // count
    groups = [completions[i * rollouts : (i + 1) * rollouts] for i in range(count)]
    total = length + max(sum(len(ids) - 1 for ids in group) for group in groups)
    ids = prompts.ids.new_zeros(count, total)
    positions = prompts.positions.new_zeros(3, count, total)
    segment = torch.full((count, total), -1)
    ids[:, :length], positions[:, :, :length] = prompts.ids, prompts.positions
    segment[:, :length] = 0
    first = int(prompts.positions[0, 0, -1]) + 1
    index: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for row, group in enumerate(groups):
        at = length
        for number, completion in enumerate(group):
            n = len(completion) - 1  # the last token is learnt but never an input
            ids[row, at : at + n] = torch.tensor(completion[:-1], dtype=ids.dtype)
            positions[:, row, at : at + n] = torch.arange(first, first + n)
            segment[row, at : at + n] = number + 1
            # The first token follows the prompt, which all completions share.
            index.append(row * total + length - 1)
            index.extend(row * total + at + i for i in range(n))
            targets.extend(completion)
            owner.extend([row * rollouts + number] * len(completion))
            at += n
    target_ids = torch.tensor(targets)
    batch = PackedBatch(
        images=prompts.images,
        input_ids=ids,
        positions=positions,
        segment=segment,
        target_index=torch.tensor(index),
        target_ids=target_ids,
        target_weight=torch.ones(len(targets)),
    )
    return batch, torch.tensor(owner)
