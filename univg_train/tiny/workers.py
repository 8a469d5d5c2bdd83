"""Rows packed into padded tensors, and their gradients from several single-threaded processes.

A step is cut into parts that do not depend on the number of processes; a free process takes the
next part, so one that is slowed down by other work on the machine holds up nobody. The parts'
gradients are added in a fixed order.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, multiprocessing
from torch.nn import functional

from univg_train.tiny import model as tiny_model
from univg_train.tiny.data import Row, RowPlan, prefix_text, question_text, training_rows
from univg_train.tiny.model import IMAGE_SIDE, PackedBatch, TinyShape, build_model
from univg_train.tiny.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

__all__ = [
    "GradientWorkers",
    "WorkerSettings",
    "batch_loss",
    "pack_rows",
    "prefix_positions",
    "turn_ids",
]

# Sums of losses are scaled down before the backward pass: bfloat16 holds three digits at any
# size, but gradients of sums over hundreds of tokens need not be large to be exact.
_SCALE = 1.0 / 256
_POLL_SECONDS = 20.0


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
    prompt = f"{question}{END_OF_TURN}\n<|im_start|>assistant\n"
    return (
        tokenizer.encode(prompt, add_special_tokens=False),
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
        question = question_text(turn.question, boxed=turn.boxed)
        prompt, answer = turn_ids(tokenizer, question, turn.answer)
        # The last token of the answer is learnt but never an input.
        tokens = [*prompt, *answer[:-1]]
        ids.append(np.asarray(tokens))
        positions.append(np.tile(np.arange(start, start + len(tokens)), (3, 1)))
        segment.append(np.full(len(tokens), number))
        index.append(at + len(prompt) - 1 + np.arange(len(answer)))
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


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a process needs to draw and pack rows."""

    shape: TinyShape
    seed: int
    plan: RowPlan
    compile: bool


def batch_loss(
    model: Qwen2VLForConditionalGeneration, batch: PackedBatch, shape: TinyShape
) -> Tensor:
    """Weighted sum of the cross entropies of a batch's targets, a float32 scalar."""
    logits = tiny_model.packed_logits(model, batch, shape)
    losses = functional.cross_entropy(logits.float(), batch.target_ids, reduction="none")
    return (losses * batch.target_weight).sum()


def _slices(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Parameter, slice]]:
    """Every parameter, in the order of `parameters()`, and its place in a flat tensor of all."""
    at = 0
    for parameter in model.parameters():
        yield parameter, slice(at, at + parameter.numel())
        at += parameter.numel()


def _work(
    settings: WorkerSettings,
    tokenizer: PreTrainedTokenizerFast,
    weights: Tensor,
    gradients: Tensor,
    tasks: Any,
    results: Any,
) -> None:
    torch.set_num_threads(1)
    model: Any = build_model(settings.shape, tokenizer, seed=settings.seed)
    model = model.to(weights.dtype)
    for parameter, place in _slices(model):
        parameter.data = weights[place].view_as(parameter)
    if settings.compile:
        tiny_model.compile_layers()
    parent = multiprocessing.parent_process()
    while True:
        try:
            task = tasks.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            # A parent that was killed cannot say that there is nothing more to do.
            if parent is None or not parent.is_alive():
                return
            continue
        if task is None:
            return
        step, part = task
        rows = training_rows(settings.plan, settings.seed, step, part, side=IMAGE_SIDE)
        loss_sum = weight_sum = 0.0
        for batch in pack_rows(rows, tokenizer, settings.shape):
            loss = batch_loss(model, batch, settings.shape)
            (loss * _SCALE).backward()
            loss_sum += float(loss.detach())
            weight_sum += float(batch.target_weight.sum())
        for parameter, place in _slices(model):
            if parameter.grad is None:
                gradients[part, place] = 0.0
            else:
                gradients[part, place] = parameter.grad.view(-1)
                parameter.grad = None
        results.put((part, loss_sum, weight_sum))


class GradientWorkers:
    """Processes that turn (step, part) into gradients of the given model."""

    def __init__(
        self,
        model: Qwen2VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        settings: WorkerSettings,
        *,
        processes: int,
    ) -> None:
        self._model = model
        size = sum(p.numel() for p in model.parameters())
        self._parts = settings.plan.parts
        # The float32 originals stay with the optimiser; the processes compute in less, if they can.
        self._weights = torch.zeros(size, dtype=tiny_model.training_dtype()).share_memory_()
        self._gradients = torch.zeros(self._parts, size, dtype=torch.float32).share_memory_()
        # Processes are forked from one that has imported everything, and computed nothing.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "transformers.models.qwen2_vl.modeling_qwen2_vl"])
        self._tasks = context.Queue()
        self._results = context.Queue()
        shared = (self._weights, self._gradients, self._tasks, self._results)
        self._processes = [
            context.Process(target=_work, args=(settings, tokenizer, *shared), daemon=True)
            for _ in range(processes)
        ]
        for process in self._processes:
            process.start()

    def gradients(self, step: int) -> float:
        """Put the gradient of step `step` into the model's `.grad`; returns the mean loss."""
        with torch.no_grad():
            flat = torch.cat([p.detach().reshape(-1) for p in self._model.parameters()])
            self._weights.copy_(flat)
        for part in range(self._parts):
            self._tasks.put((step, part))
        totals = [self._result() for _ in range(self._parts)]
        loss = sum(sorted(t[1] for t in totals))
        weight = sum(sorted(t[2] for t in totals))
        summed = self._gradients.sum(dim=0) / (weight * _SCALE)
        for parameter, place in _slices(self._model):
            parameter.grad = summed[place].view_as(parameter)
        return loss / weight

    def _result(self) -> tuple[int, float, float]:
        while True:
            try:
                result: tuple[int, float, float] = self._results.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                dead = [p for p in self._processes if not p.is_alive()]
                if dead:
                    raise RuntimeError(
                        f"a training process ended with exit code {dead[0].exitcode}; "
                        "its traceback is above"
                    ) from None
                continue
            return result

    def close(self) -> None:
        """End the processes."""
        for _ in self._processes:
            self._tasks.put(None)
        for process in self._processes:
            process.join(timeout=_POLL_SECONDS)
            if process.is_alive():
                process.terminate()
