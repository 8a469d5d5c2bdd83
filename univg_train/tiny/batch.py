"""From rows of images and turns to the padded tensors that the model trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from univg_train.tiny.data import Row, prefix_text, question_text
from univg_train.tiny.model import PackedBatch, TinyShape
from univg_train.tiny.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["pack_rows", "prefix_positions", "turn_ids"]


@dataclass(frozen=True, slots=True)
class _PackedRow:
    images: np.ndarray
    ids: np.ndarray
    positions: np.ndarray
    segment: np.ndarray
    target_index: np.ndarray
    target_ids: np.ndarray
    target_weight: np.ndarray


def prefix_positions(n_images: int, shape: TinyShape, lead: int) -> np.ndarray:
    """M-RoPE positions of a prefix, (3, length).

    Args:
        n_images: images, each between a start and an end mark.
        shape: of the model.
        lead: text tokens before the first image.

    The rule is Qwen2-VL's: text counts on along all three axes; an image's tokens share a time
    and spread over height and width; what follows goes on after the image's longer side.
    """
    side = shape.grid // shape.merge
    rows, columns = np.divmod(np.arange(side * side), side)
    parts = [np.tile(np.arange(lead), (3, 1))]
    at = lead
    for _ in range(n_images):
        parts.append(np.full((3, 1), at))
        at += 1
        parts.append(np.stack([np.full(side * side, at), at + rows, at + columns]))
        at += side
        parts.append(np.full((3, 1), at))
        at += 1
    return np.concatenate(parts, axis=1)


def turn_ids(
    tokenizer: PreTrainedTokenizerFast, question: str, answer: str
) -> tuple[list[int], list[int]]:
    """Tokens of a turn: what inference feeds after the images, and what it has to generate."""
    asked = f"{question}{END_OF_TURN}\n<|im_start|>assistant\n"
    return (
        tokenizer.encode(asked, add_special_tokens=False),
        tokenizer.encode(f"{answer}{END_OF_TURN}", add_special_tokens=False),
    )


def _pack_row(row: Row, tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> _PackedRow:
    prefix = tokenizer.encode(
        prefix_text(len(row.images), shape.tokens_per_image), add_special_tokens=False
    )
    lead = len(prefix) - len(row.images) * (shape.tokens_per_image + 2)
    before = prefix_positions(len(row.images), shape, lead)
    start = int(before.max()) + 1
    ids = [np.asarray(prefix)]
    positions = [before]
    segment = [np.zeros(len(prefix), dtype=np.int64)]
    index, successors, weights = [], [], []
    at = len(prefix)
    for number, turn in enumerate(row.turns, start=1):
        asked, answer = turn_ids(
            tokenizer, question_text(turn.question, boxed=turn.boxed), turn.answer
        )
        # The last token of the answer is learnt but never an input.
        tokens = [*asked, *answer[:-1]]
        ids.append(np.asarray(tokens))
        positions.append(np.tile(np.arange(start, start + len(tokens)), (3, 1)))
        segment.append(np.full(len(tokens), number))
        index.append(at + len(asked) - 1 + np.arange(len(answer)))
        successors.append(np.asarray(answer))
        weights.append(np.full(len(answer), turn.weight, dtype=np.float32))
        at += len(tokens)
    return _PackedRow(
        row.images,
        np.concatenate(ids),
        np.concatenate(positions, axis=1),
        np.concatenate(segment),
        np.concatenate(index),
        np.concatenate(successors),
        np.concatenate(weights),
    )


def pack_rows(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerFast,
    shape: TinyShape,
    *,
    max_tokens: int = 8192,
) -> list[PackedBatch]:
    """Batches of rows of similar length, each of at most `max_tokens` with padding.

    A row that is longer than that is a batch of its own.
    """
    packed = sorted((_pack_row(row, tokenizer, shape) for row in rows), key=lambda r: len(r.ids))
    groups: list[list[_PackedRow]] = [[]]
    for row in packed:
        if groups[-1] and (len(groups[-1]) + 1) * len(row.ids) > max_tokens:
            groups.append([])
        groups[-1].append(row)
    pad = tokenizer.pad_token_id
    return [_stack(group, int(pad)) for group in groups if group]


def _stack(group: Sequence[_PackedRow], pad: int) -> PackedBatch:
    length = max(len(row.ids) for row in group)
    ids = np.full((len(group), length), pad)
    segment = np.full((len(group), length), -1)
    positions = np.zeros((3, len(group), length), dtype=np.int64)
    for i, row in enumerate(group):
        n = len(row.ids)
        ids[i, :n], segment[i, :n], positions[:, i, :n] = row.ids, row.segment, row.positions
    offsets = [i * length + row.target_index for i, row in enumerate(group)]
    return PackedBatch(
        images=torch.from_numpy(np.concatenate([row.images for row in group])),
        input_ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        segment=torch.from_numpy(segment),
        target_index=torch.from_numpy(np.concatenate(offsets)),
        target_ids=torch.from_numpy(np.concatenate([row.target_ids for row in group])),
        target_weight=torch.from_numpy(np.concatenate([row.target_weight for row in group])),
    )
