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
from univg_train.tiny.auxiliary import ShownObjects, Trainee, covered_tokens, token_targets
from univg_train.tiny.data import Look, Row, RowPlan, Turn, prefix_text, training_rows
from univg_train.tiny.model import IMAGE_SIDE, PackedBatch, TinyShape, build_model
from univg_train.tiny.tokenizer import END_OF_TURN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from univg_eval.benchmarks.synthetic.mini import Scene

__all__ = [
    "FIGURES",
    "GradientWorkers",
    "WorkerSettings",
    "batch_loss",
    "image_loss",
    "pack_rows",
    "prefix_positions",
    "turn_ids",
    "words_loss",
]

# Sums of losses are scaled down before the backward pass: bfloat16 holds three digits at any
# size, but gradients of sums over hundreds of tokens need not be large to be exact.
_SCALE = 1.0 / 256
_POLL_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class _PackedRow:
    images: np.ndarray
    figures: np.ndarray
    ids: np.ndarray
    positions: np.ndarray
    segment: np.ndarray
    target_index: np.ndarray
    target_ids: np.ndarray
    target_weight: np.ndarray
    looks: list[tuple[int, np.ndarray]]


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
    tokenizer: PreTrainedTokenizerFast, turn: Turn
) -> tuple[list[int], list[int], list[Look | None]]:
    """Tokens of a turn.

    Returns:
        What inference feeds after the images, what it has to generate, and what each of these
        speaks of.
    """
    prompt = f"{turn.question}{turn.suffix}{END_OF_TURN}\n<|im_start|>assistant\n"
    answer = tokenizer(
        f"{turn.answer}{END_OF_TURN}", add_special_tokens=False, return_offsets_mapping=True
    )
    about = [
        next((look for look in turn.looks if look.start <= end - 1 < look.end), None)
        for _, end in answer["offset_mapping"]
    ]
    return tokenizer.encode(prompt, add_special_tokens=False), answer["input_ids"], about


def _pack_row(row: Row, tokenizer: PreTrainedTokenizerFast, shape: TinyShape) -> _PackedRow:
    prefix = tokenizer.encode(
        prefix_text(len(row.images), shape.tokens_per_image), add_special_tokens=False
    )
    lead = len(prefix) - len(row.images) * (shape.tokens_per_image + 2)
    before = prefix_positions(len(row.images), shape, lead)
    start = int(before.max()) + 1
    side = shape.grid // shape.merge
    ids = [np.asarray(prefix)]
    positions = [before]
    segment = [np.zeros(len(prefix), dtype=np.int64)]
    index, successors, weights, looks = [], [], [], []
    at = len(prefix)
    for number, turn in enumerate(row.turns, start=1):
        prompt, answer, about = turn_ids(tokenizer, turn)
        # The last token of the answer is learnt but never an input.
        tokens = [*prompt, *answer[:-1]]
        ids.append(np.asarray(tokens))
        positions.append(np.tile(np.arange(start, start + len(tokens)), (3, 1)))
        segment.append(np.full(len(tokens), number))
        first = at + len(prompt) - 1
        index.append(first + np.arange(len(answer)))
        successors.append(np.asarray(answer))
        weights.append(np.full(len(answer), turn.weight, dtype=np.float32))
        for place, look in enumerate(about):
            if look is not None:
                image = lead + look.image * (shape.tokens_per_image + 2) + 1
                looks.append((first + place, image + covered_tokens(look.box, side)))
        at += len(tokens)
    return _PackedRow(
        row.images,
        token_figures(row.scenes, shape),
        np.concatenate(ids),
        np.concatenate(positions, axis=1),
        np.concatenate(segment),
        np.concatenate(index),
        np.concatenate(successors),
        np.concatenate(weights),
        looks,
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
    looks = [(i, at, tokens) for i, row in enumerate(group) for at, tokens in row.looks]
    looked_at = torch.zeros(len(looks), length, dtype=torch.bool)
    for place, (_, _, tokens) in enumerate(looks):
        looked_at[place, tokens] = True
    return PackedBatch(
        images=torch.from_numpy(np.concatenate([row.images for row in group])),
        input_ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        segment=torch.from_numpy(segment),
        target_index=torch.from_numpy(np.concatenate(offsets)),
        target_ids=torch.from_numpy(np.concatenate([row.target_ids for row in group])),
        target_weight=torch.from_numpy(np.concatenate([row.target_weight for row in group])),
        shown=ShownObjects(
            torch.from_numpy(np.concatenate([row.figures for row in group])),
            torch.tensor([look[:2] for look in looks], dtype=torch.long).view(-1, 2),
            looked_at,
        ),
    )


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a process needs to draw and pack rows.

    Attributes:
        shape, seed, plan: of the run.
        compile: let torch compile the layers.
    """

    shape: TinyShape
    seed: int
    plan: RowPlan
    compile: bool


# By which the means of the auxiliary losses, over image tokens and over looks, count beside the
# weighted mean over words.
_SHOWN_SHARE, _LOOKS_SHARE = 0.3, 0.3


FIGURES = ("loss", "shown", "looks")
"""What is logged: the mean loss of a word, of an image token, and of a word's attention."""


def token_figures(scenes: Sequence[Scene], shape: TinyShape) -> np.ndarray:
    """`token_targets` of images, (images, tokens of an image, figures)."""
    return np.stack([token_targets(scene, shape.grid // shape.merge) for scene in scenes])


def image_loss(trainee: Trainee, images: Tensor, figures: Tensor, shape: TinyShape) -> Tensor:
    """The loss of `TokenHeads` at the end of the vision tower, a mean over image tokens.

    Args:
        trainee: model and heads.
        images: (images, side, side, 3) uint8.
        figures: (images, tokens of an image, figures).
        shape: of the model.
    """
    visual = trainee.model.model.visual
    patches = tiny_model.image_patches(images, shape, visual.dtype)
    features = tiny_model.vision_features(visual, patches, shape.grid).flatten(0, 1)
    return trainee.heads(0, features, figures.flatten(0, 1)) / len(features)


def words_loss(logits: Tensor, batch: PackedBatch) -> Tensor:
    """The weighted sum of the cross entropies of a batch's targets, a float32 scalar."""
    losses = functional.cross_entropy(logits.float(), batch.target_ids, reduction="none")
    return (losses * batch.target_weight).sum()


def batch_loss(trainee: Trainee, batch: PackedBatch, shape: TinyShape) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and its figures.

    Returns:
        A float32 scalar: `words_loss`, with the means of the auxiliary losses at fixed shares of
        its weight; and ``FIGURES``, each times that weight.
    """
    assert batch.shown is not None
    logits, shown, looks = tiny_model.packed_outputs(trainee, batch, shape)
    words, weight = words_loss(logits, batch), batch.target_weight.sum()
    shown = weight * shown / batch.shown.figures[..., 0].numel()
    looks = weight * looks / max(1, len(batch.shown.looks))
    figures = torch.stack([words, shown, looks])
    return words + _SHOWN_SHARE * shown + _LOOKS_SHARE * looks, figures.detach()


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
    model = build_model(settings.shape, tokenizer, seed=settings.seed)
    trainee = Trainee(model, seed=settings.seed).to(weights.dtype)
    for parameter, place in _slices(trainee):
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
        weight, figures = _backward(trainee, rows, tokenizer, settings.shape)
        for parameter, place in _slices(trainee):
            if parameter.grad is None:
                gradients[part, place] = 0.0
            else:
                gradients[part, place] = parameter.grad.view(-1)
                parameter.grad = None
        results.put((part, weight, figures))


def _backward(
    trainee: Trainee, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, shape: TinyShape
) -> tuple[float, dict[str, float]]:
    """Add the gradients of rows; returns their weight, and the figures of `batch_loss` that they
    have."""
    if not any(row.turns for row in rows):
        images = torch.from_numpy(np.concatenate([row.images for row in rows]))
        shown = token_figures([scene for row in rows for scene in row.scenes], shape)
        loss = image_loss(trainee, images, torch.from_numpy(shown), shape) * len(images)
        (loss * _SCALE).backward()
        return float(len(images)), {"shown": float(loss.detach())}
    weight, figures = 0.0, torch.zeros(len(FIGURES))
    for batch in pack_rows(rows, tokenizer, shape):
        loss, found = batch_loss(trainee, batch, shape)
        (loss * _SCALE).backward()
        weight += float(batch.target_weight.sum())
        figures += found
    return weight, dict(zip(FIGURES, figures.tolist(), strict=True))


_Sums = tuple[int, float, dict[str, float]]
"""Number, weight and figures of a part."""


class GradientWorkers:
    """Processes that turn (step, part) into gradients of the given model."""

    def __init__(
        self,
        trainee: Trainee,
        tokenizer: PreTrainedTokenizerFast,
        settings: WorkerSettings,
        *,
        processes: int,
    ) -> None:
        self._trainee = trainee
        size = sum(p.numel() for p in trainee.parameters())
        self._parts = settings.plan.parts
        # The float32 originals stay with the optimiser; the processes may compute in bfloat16.
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

    def gradients(self, step: int) -> dict[str, float]:
        """Put the gradient of step `step` into the parameters' `.grad`; returns those of
        `FIGURES` that its rows have."""
        with torch.no_grad():
            flat = torch.cat([p.detach().reshape(-1) for p in self._trainee.parameters()])
            self._weights.copy_(flat)
        for part in range(self._parts):
            self._tasks.put((step, part))
        totals = sorted((self._result() for _ in range(self._parts)), key=lambda total: total[0])
        weight = sum(total[1] for total in totals)
        summed = self._gradients.sum(dim=0) / (weight * _SCALE)
        for parameter, place in _slices(self._trainee):
            parameter.grad = summed[place].view_as(parameter)
        return {
            name: sum(total[2][name] for total in totals) / weight
            for name in FIGURES
            if name in totals[0][2]
        }

    def _result(self) -> _Sums:
        while True:
            try:
                result: _Sums = self._results.get(timeout=_POLL_SECONDS)
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
