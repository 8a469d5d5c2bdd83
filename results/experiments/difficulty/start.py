"""The start of every run: a Qwen2-VL of a million parameters, taught by supervision to half know.

It learns both prompt styles: the box at once, and a list of what is seen before the box.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from scenes import COLORS, SHAPES, Kind, Question, draw_images, draw_question, say_box

from univg_eval.prompts import THINK_SUFFIX
from univg_train.tiny.data import PROMPT_SUFFIX, Row, Turn
from univg_train.tiny.model import (
    IMAGE_SIDE,
    TinyShape,
    build_model,
    build_processor,
    packed_logits,
    training_dtype,
)
from univg_train.tiny.muon import Muon
from univg_train.tiny.tokenizer import SYSTEM_PROMPT, build_tokenizer
from univg_train.tiny.workers import pack_rows, words_loss

if TYPE_CHECKING:
    from transformers import Qwen2VLForConditionalGeneration

__all__ = ["SHAPE", "StartSettings", "chain", "train_start"]

SHAPE = TinyShape(
    hidden=128, intermediate=352, layers=4, heads=4, kv_heads=4,
    vision_dim=128, vision_depth=2, vision_heads=4, vision_mlp_ratio=2, patch=28,
)  # fmt: skip
_LIST = "List what you see from left to right."
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_LOG_EVERY = 20

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StartSettings:
    """How the start is trained.

    Attributes:
        seed: of weights and scenes; the runs' scenes have others.
        one_steps: steps on easy scenes alone; mixed_steps: then on easy and hard ones.
        stop: the step at which training ends, before its schedule does: the model half knows.
        one_rows, mixed_rows: scenes a step.
        rate: AdamW's peak; matrix_rate: Muon's. Cosine to a tenth.
    """

    seed: int = 1
    one_steps: int = 120
    mixed_steps: int = 480
    stop: int = 300
    one_rows: int = 96
    mixed_rows: int = 64
    rate: float = 2e-3
    matrix_rate: float = 6e-3
    warmup: int = 40


def chain(question: Question) -> str:
    """A reasoned answer: what is seen from left to right, then the box that is meant."""
    seen = ";".join(f"{thing.label}{say_box(thing.box)}" for thing in question.from_left)
    return f"<think>{seen}</think><answer>{say_box(question.target.box)}</answer>"


def _turns(question: Question) -> tuple[Turn, ...]:
    turns = [
        Turn(question.text, say_box(question.target.box), 2.0),
        Turn(question.text, chain(question), 1.0, suffix=THINK_SUFFIX),
    ]
    for thing in question.scene.objects:
        if thing is not question.target:
            turns.append(Turn(f"Locate the {thing.label}.", say_box(thing.box), 1.0))
    return tuple(turns)


def _rows(settings: StartSettings, step: int) -> list[Row]:
    rng = random.Random(f"univg difficulty start {settings.seed} {step}")
    one = step < settings.one_steps
    count = settings.one_rows if one else settings.mixed_rows
    rows = []
    for place in range(count):
        kind: Kind = "easy" if one or rng.random() < 0.4 else "hard"
        question = draw_question(kind, settings.seed, 1000 * step + place)
        scenes = (question.scene,)
        rows.append(Row(kind, draw_images(scenes, IMAGE_SIDE), scenes, _turns(question)))
    return rows


def _texts(seed: int) -> Iterator[str]:
    for _ in range(100):
        yield from (SYSTEM_PROMPT, "system", "user", "assistant")
    yield from (f"Locate the {color} {shape}." for color in COLORS for shape in SHAPES)
    for index in range(400):
        question = draw_question("hard", seed, index)
        for turn in _turns(question):
            yield from (turn.question, turn.answer)


def _optimizers(
    model: Qwen2VLForConditionalGeneration, settings: StartSettings
) -> list[torch.optim.Optimizer]:
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inner = ".layers." in name or ".blocks." in name or ".merger." in name
        (matrices if inner and parameter.ndim == 2 else rest).append(parameter)
    return [
        Muon(matrices, lr=settings.matrix_rate, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=settings.rate, weight_decay=0.05, betas=(0.9, 0.98)),
    ]


def _factor(step: int, total: int, warmup: int) -> float:
    warm = min(1.0, (step + 1) / warmup)
    return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / total)))


def _set_rates(optimizers: list[torch.optim.Optimizer], peaks: list[float], factor: float) -> None:
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    for group, peak in zip(groups, peaks, strict=True):
        group["lr"] = peak * factor


def train_start(settings: StartSettings, folder: Path) -> None:
    """Train the start and write it as a model folder."""
    tokenizer = build_tokenizer(
        _texts(settings.seed), phrases=[PROMPT_SUFFIX, THINK_SUFFIX, *_TAGS], vocab_size=450
    )
    model = build_model(SHAPE, tokenizer, seed=settings.seed)
    half = build_model(SHAPE, tokenizer, seed=settings.seed).to(training_dtype())
    optimizers = _optimizers(model, settings)
    peaks = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    total = settings.one_steps + settings.mixed_steps
    began, losses = time.monotonic(), []
    for step in range(settings.stop):
        batches = pack_rows(_rows(settings, step), tokenizer, SHAPE)
        with torch.no_grad():
            for target, source in zip(half.parameters(), model.parameters(), strict=True):
                target.copy_(source)
                target.grad = None
        weight = sum(float(batch.target_weight.sum()) for batch in batches)
        loss = 0.0
        for batch in batches:
            part = words_loss(packed_logits(half, batch, SHAPE), batch) / weight
            part.backward()
            loss += float(part.detach())
        for target, source in zip(model.parameters(), half.parameters(), strict=True):
            assert source.grad is not None
            target.grad = source.grad.float()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        _set_rates(optimizers, peaks, _factor(step, total, settings.warmup))
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss)
        if (step + 1) % _LOG_EVERY == 0:
            mean = sum(losses) / len(losses)
            losses.clear()
            _logger.info("step %d loss %.4f %.0f s", step + 1, mean, time.monotonic() - began)
    model.save_pretrained(folder)
    build_processor(SHAPE, tokenizer).save_pretrained(folder)
    (folder / "start.json").write_text(
        json.dumps({"steps": settings.stop}) + "\n", encoding="utf-8"
    )
