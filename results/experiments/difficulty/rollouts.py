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
from torch import Tensor

from univg_train.tiny.data import Turn, draw_images, prefix_text
from univg_train.tiny.model import (
    IMAGE_SIDE,
    PackedBatch,
    TinyShape,
    image_patches,
    packed_logits,
    vision_features,
)
from univg_train.tiny.workers import prefix_positions, turn_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

    from univg_eval.benchmarks.synthetic.mini import MiniItem

__all__ = ["MAX_NEW_TOKENS", "Prompts", "generate", "log_probabilities", "make_prompts"]

SHAPE = TinyShape()
MAX_NEW_TOKENS = 32
"""As many as `univg-train tiny --stage` gives a direct answer."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of any lengths.

    ids: token ids of each; positions: (3, length) of each, M-RoPE; images: uint8
    (images, side, side, 3), in the order in which they stand in the prompts.
    """

    ids: list[list[int]]
    positions: list[Tensor]
    images: Tensor

    def __len__(self) -> int:
        return len(self.ids)


def make_prompts(items: Sequence[MiniItem], tokenizer: PreTrainedTokenizerFast) -> Prompts:
    """What a model is given, in the direct style, up to the first token of its answer."""
    ids, positions = [], []
    for item in items:
        images = prefix_text(item.image_count, SHAPE.tokens_per_image)
        prefix = tokenizer.encode(images, add_special_tokens=False)
        lead = len(prefix) - item.image_count * (SHAPE.tokens_per_image + 2)
        places = prefix_positions(item.image_count, SHAPE, lead)
        question, _, _ = turn_ids(tokenizer, Turn(item.instruction, ""))
        rest = int(places.max()) + 1 + np.arange(len(question))
        ids.append([*prefix, *question])
        places = np.concatenate([places, np.tile(rest, (3, 1))], axis=1)
        positions.append(torch.from_numpy(places))
    scenes = [scene for item in items for scene in item.scenes]
    return Prompts(ids, positions, torch.from_numpy(draw_images(scenes, IMAGE_SIDE)))


@torch.no_grad()
def generate(
    model: Qwen2VLForConditionalGeneration,
    prompts: Prompts,
    *,
    rollouts: int,
    top_k: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    """Completions, those of a prompt one after the other, each with its end mark if it has one.

    Args:
        model: in float32.
        prompts: what is completed.
        rollouts: completions a prompt.
        top_k: sample at temperature 1 among so many tokens; None: take the likeliest.
        max_new_tokens: the longest completion.
        generator: of the sampling.
    """
    end = int(model.config.eos_token_id)
    inner: Any = model.model
    ids, positions, seen = _padded_on_the_left(prompts, int(model.config.pad_token_id))
    patches = image_patches(prompts.images, SHAPE, torch.float32)
    features = vision_features(inner.visual, patches, SHAPE.grid)
    embedded = inner.language_model.embed_tokens(ids)
    is_image = (ids == model.config.image_token_id)[..., None]
    output = inner.language_model(
        inputs_embeds=embedded.masked_scatter(is_image, features),
        attention_mask=seen,
        position_ids=positions,
        use_cache=True,
    )
    cache, logits = output.past_key_values, model.lm_head(output.last_hidden_state[:, -1])
    place = positions[:, :, -1:]
    # Completions that are alike so far share a row of the batch.
    open_ = torch.arange(len(prompts) * rollouts)
    row = open_ // rollouts
    completions: list[list[int]] = [[] for _ in open_]
    for _ in range(max_new_tokens):
        token = _choose(logits[row], top_k, generator)
        for number, value in zip(open_.tolist(), token.tolist(), strict=True):
            completions[number].append(value)
        goes_on = token != end
        open_ = open_[goes_on]
        if len(open_) == 0:
            break
        pairs = torch.stack([row[goes_on], token[goes_on]])
        (parent, following), row = pairs.unique(dim=1, return_inverse=True)
        cache.batch_select_indices(parent)
        place = place[:, parent] + 1
        seen = torch.cat([seen[parent], seen.new_ones(len(parent), 1)], dim=1)
        output = inner.language_model(
            inputs_embeds=inner.language_model.embed_tokens(following[:, None]),
            attention_mask=seen,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
        )
        logits = model.lm_head(output.last_hidden_state[:, -1])
    return completions


def _padded_on_the_left(prompts: Prompts, pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids and attention mask, both (prompts, length), and positions between them."""
    count, length = len(prompts), max(map(len, prompts.ids))
    ids = torch.full((count, length), pad)
    positions = torch.zeros(3, count, length, dtype=torch.long)
    seen = torch.zeros(count, length, dtype=torch.long)
    for row, (own, places) in enumerate(zip(prompts.ids, prompts.positions, strict=True)):
        first = length - len(own)
        ids[row, first:] = torch.tensor(own)
        positions[:, row, first:] = places
        seen[row, first:] = 1
    return ids, positions, seen


def _choose(logits: Tensor, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    if top_k is None:
        return logits.argmax(dim=-1)
    values, ids = logits.topk(min(top_k, logits.shape[-1]), dim=-1)
    chosen = torch.multinomial(values.softmax(dim=-1), 1, generator=generator)
    return ids.gather(1, chosen)[:, 0]


def log_probabilities(
    model: Qwen2VLForConditionalGeneration,
    prompts: Prompts,
    completions: Sequence[Sequence[int]],
) -> tuple[Tensor, Tensor]:
    """Of every token of the completions; completions of a prompt that are alike are run once.

    Returns:
        log probabilities (tokens,); owner (tokens,): the completion that each belongs to.
    """
    batch, places, owner = _pack(prompts, completions)
    logits = packed_logits(model, batch, SHAPE)
    found = logits.log_softmax(dim=-1).gather(1, batch.target_ids[:, None])[:, 0]
    return found[places], owner


def _pack(
    prompts: Prompts, completions: Sequence[Sequence[int]]
) -> tuple[PackedBatch, Tensor, Tensor]:
    """A batch of each prompt's different completions; the target of every token of all of them,
    and its owner."""
    count = len(prompts)
    rollouts = len(completions) // count
    groups = [
        [tuple(ids) for ids in completions[i * rollouts : (i + 1) * rollouts]] for i in range(count)
    ]
    # The last token of a completion is learnt but never an input.
    total = max(
        len(ids) + sum(len(own) - 1 for own in set(group))
        for ids, group in zip(prompts.ids, groups, strict=True)
    )
    ids = torch.zeros(count, total, dtype=torch.long)
    positions = torch.zeros(3, count, total, dtype=torch.long)
    segment = torch.full((count, total), -1)
    index: list[int] = []
    targets: list[int] = []
    places: list[int] = []
    owner: list[int] = []
    for row, group in enumerate(groups):
        at = length = len(prompts.ids[row])
        ids[row, :at] = torch.tensor(prompts.ids[row])
        positions[:, row, :at] = prompts.positions[row]
        segment[row, :at] = 0
        first = int(prompts.positions[row][0, -1]) + 1
        begins: dict[tuple[int, ...], int] = {}
        for number, completion in enumerate(group):
            if completion not in begins:
                begins[completion] = len(index)
                n = len(completion) - 1
                ids[row, at : at + n] = torch.tensor(completion[:-1], dtype=ids.dtype)
                positions[:, row, at : at + n] = torch.arange(first, first + n)
                segment[row, at : at + n] = len(begins)
                # The first token follows the prompt, which all completions share.
                index.append(row * total + length - 1)
                index.extend(row * total + at + i for i in range(n))
                targets.extend(completion)
                at += n
            places.extend(begins[completion] + i for i in range(len(completion)))
            owner.extend([row * rollouts + number] * len(completion))
    batch = PackedBatch(
        images=prompts.images,
        input_ids=ids,
        positions=positions,
        segment=segment,
        target_index=torch.tensor(index),
        target_ids=torch.tensor(targets),
        target_weight=torch.ones(len(targets)),
    )
    return batch, torch.tensor(places), torch.tensor(owner)
