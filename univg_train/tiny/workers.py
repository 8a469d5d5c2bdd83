"""Gradients from several single-threaded processes, the same whichever process computes them.

A step is cut into parts that do not depend on the number of processes; a free process takes the
next part, so one that is slowed down by other work on the machine holds up nobody. The parts'
gradients are added in a fixed order.
"""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, multiprocessing
from torch.nn import functional

from univg_train.tiny import model as tiny_model
from univg_train.tiny.batch import pack_rows
from univg_train.tiny.data import RowPlan, training_rows
from univg_train.tiny.model import IMAGE_SIDE, PackedBatch, TinyShape, build_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

__all__ = ["GradientWorkers", "WorkerSettings", "batch_loss"]

# Sums of losses are scaled down before the backward pass: bfloat16 holds three digits at any
# size, but gradients of sums over hundreds of tokens need not be large to be exact.
_SCALE = 1.0 / 256
_POLL_SECONDS = 20.0


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


def _flatten(model: torch.nn.Module, flat: Tensor) -> None:
    """Make every parameter a view of `flat`, in the order of `parameters()`."""
    at = 0
    for parameter in model.parameters():
        n = parameter.numel()
        parameter.data = flat[at : at + n].view_as(parameter)
        at += n


def _work(
    settings: WorkerSettings,
    tokenizer: PreTrainedTokenizerFast,
    weights: Tensor,
    gradients: Tensor,
    tasks: Any,
    results: Any,
) -> None:
    torch.set_num_threads(1)
    model = build_model(settings.shape, tokenizer, seed=settings.seed).to(weights.dtype)
    _flatten(model, weights)
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
        at = 0
        for parameter in model.parameters():
            n = parameter.numel()
            if parameter.grad is None:
                gradients[part, at : at + n] = 0.0
            else:
                gradients[part, at : at + n] = parameter.grad.view(-1)
                parameter.grad = None
            at += n
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
        # The float32 originals stay with the optimiser; the processes compute in bfloat16.
        self._weights = torch.zeros(size, dtype=torch.bfloat16).share_memory_()
        self._gradients = torch.zeros(self._parts, size, dtype=torch.float32).share_memory_()
        context = multiprocessing.get_context("spawn")
        self._tasks = context.Queue()
        self._results = context.Queue()
        self._processes = [
            context.Process(
                target=_work,
                args=(
                    settings, tokenizer, self._weights, self._gradients, self._tasks,
                    self._results,
                ),
                daemon=True,
            )
            for _ in range(processes)
        ]  # fmt: skip
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
        at = 0
        for parameter in self._model.parameters():
            n = parameter.numel()
            parameter.grad = summed[at : at + n].view_as(parameter)
            at += n
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
