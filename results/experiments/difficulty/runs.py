"""One run: GRPO from the start with the weights of one arm.

The loss is that of `DifficultyGRPOTrainer` with the paper's settings, computed
in a loop of its own that reads a prompt once for all its rollouts; a test holds the two against
each other on the same rollouts. Rewards and weights are the project's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from held_out import HeldOut
from rollouts import MAX_NEW_TOKENS, Prompts, completion_logits, generate, make_prompts
from scenes import KINDS, Question, draw_images, draw_question, say_box
from start import SHAPE
from torch import Tensor
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

from univg_train.difficulty import DifficultyWeight, group_means
from univg_train.grpo.trainer import DIFFICULTY_BINS, PAPER_SETTINGS
from univg_train.rewards import make_rewards
from univg_train.tiny.data import Row, Turn
from univg_train.tiny.model import IMAGE_SIDE, packed_logits
from univg_train.tiny.workers import pack_rows, words_loss

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "ARMS", "Arm", "Batch", "RunSettings", "draw_batch", "grade_batch", "policy_loss",
    "train_more", "train_run",
]  # fmt: skip

GROUP: int = PAPER_SETTINGS["num_generations"]
_BETA: float = PAPER_SETTINGS["beta"]
_STD_FLOOR = 1e-4  # TRL's, added to a group's standard deviation


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm does differently from plain GRPO.

    Attributes:
        weight: of a prompt.
        permuted: the weights of the batch are dealt out to its prompts at random.
        spread_only: prompts whose rollouts all got the same reward are left out of the policy
            term's mean. Their advantages are zero anyway; what changes is the divisor.
        group_std: advantages are divided by the standard deviation of their group.
        style: prompt style of training and measuring.
    """

    weight: DifficultyWeight = field(default_factory=lambda: DifficultyWeight("none"))
    permuted: bool = False
    spread_only: bool = False
    group_std: bool = True
    style: str = "direct"

    def weigh(self, means: np.ndarray, flat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Weights of the prompts of a batch, shape (P,).

        Args:
            means: mean IoU of each prompt's rollouts, shape (P,).
            flat: whether all its rollouts got the same reward, shape (P,).
            rng: of the permutation.
        """
        weights = self.weight(means)
        if self.permuted:
            weights = rng.permutation(weights)
        if self.spread_only:
            weights = weights * ~flat * (len(flat) / max(1, int((~flat).sum())))
        return weights


ARMS: dict[str, Callable[[float], Arm]] = {
    "none": lambda mean: Arm(),
    "exp_normalised": lambda mean: Arm(DifficultyWeight("exp", normalize=True)),
    "constant": lambda mean: Arm(DifficultyWeight("constant", value=mean)),
    "exp": lambda mean: Arm(DifficultyWeight("exp")),
    "power": lambda mean: Arm(DifficultyWeight("power")),
    "log": lambda mean: Arm(DifficultyWeight("log")),
    "permuted": lambda mean: Arm(DifficultyWeight("exp", normalize=True), permuted=True),
    "no_group_std": lambda mean: Arm(group_std=False),
    "spread_only": lambda mean: Arm(spread_only=True),
    "reasoning": lambda mean: Arm(style="think"),
}
"""Arms by name; each is made from the mean weight of ``exp``, which ``constant`` takes."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run depends on beside its arm.

    Attributes:
        seed: of scenes and sampling.
        learning_rate: AdamW's first; it falls linearly to zero.
        steps: optimiser steps, one a batch of rollouts.
        prompts: prompts a step.
        hard_share: probability of a hard prompt.
        evaluate_every: steps between evaluations.
    """

    seed: int
    learning_rate: float
    steps: int
    prompts: int = 8
    hard_share: float = 0.5
    evaluate_every: int = 50


@dataclass(frozen=True, slots=True)
class Batch:
    """Rollouts and what they are worth.

    Attributes:
        prompts: P of them.
        completions: token ids, P x GROUP of them, those of a prompt one after the other.
        advantages: weighted, shape (P x GROUP,).
        means, weights, flat: mean IoU, weight and lack of spread of each prompt, shape (P,).
        kinds: of the prompts.
    """

    prompts: Prompts
    completions: list[list[int]]
    advantages: Tensor
    means: np.ndarray
    weights: np.ndarray
    flat: np.ndarray
    kinds: list[str]


def draw_batch(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    arm: Arm,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> Batch:
    """Ask each question GROUP times, and grade the answers."""
    prompts = make_prompts(questions, tokenizer, SHAPE, arm.style)
    completions = generate(
        model,
        prompts,
        SHAPE,
        rollouts=GROUP,
        max_new_tokens=MAX_NEW_TOKENS[arm.style],
        top_k=PAPER_SETTINGS["top_k"],
        generator=generator,
    )
    return grade_batch(tokenizer, questions, prompts, completions, arm, rng)


def grade_batch(
    tokenizer: PreTrainedTokenizerFast,
    questions: Sequence[Question],
    prompts: Prompts,
    completions: list[list[int]],
    arm: Arm,
    rng: np.random.Generator,
) -> Batch:
    """Rewards, the weights of the prompts, and advantages."""
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    columns: dict[str, list[Any]] = {
        "solution": [list(q.target.box) for q in questions for _ in range(GROUP)],
        "dialect": ["qwen2_vl"] * len(texts),
        "style": [arm.style] * len(texts),
    }
    accuracy, form = make_rewards(style=arm.style)
    overlaps = torch.tensor(accuracy(completions=texts, **columns))
    rewards = (overlaps + torch.tensor(form(completions=texts, **columns))).view(-1, GROUP)
    flat = (rewards.amax(dim=1) == rewards.amin(dim=1)).numpy()
    means = group_means(overlaps.numpy(), GROUP)
    weights = arm.weigh(means, flat, rng)
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    if arm.group_std:
        advantages = advantages / (rewards.std(dim=1, keepdim=True) + _STD_FLOOR)
    advantages = advantages * torch.from_numpy(weights).float()[:, None]
    return Batch(
        prompts,
        completions,
        advantages.reshape(-1),
        means,
        weights,
        flat,
        [question.kind for question in questions],
    )


def policy_loss(
    model: Qwen2VLForConditionalGeneration,
    reference: Qwen2VLForConditionalGeneration,
    batch: Batch,
) -> tuple[Tensor, float]:
    """GRPO's loss of a batch that the model itself has just sampled, and the mean KL.

    Each completion counts with the mean over its tokens of -A p / p.detach() + beta KL, with
    Schulman's estimator exp(d) - d - 1 of the KL to the reference (Shao et al., "DeepSeekMath",
    2024, equations 3 and 4).
    """
    chosen = _log_probabilities(model, batch)
    with torch.no_grad():
        base = _log_probabilities(reference, batch)[0]
    log_p, owner = chosen
    difference = base - log_p
    divergence = difference.exp() - difference - 1
    ratio = (log_p - log_p.detach()).exp()
    tokens = -ratio * batch.advantages[owner] + _BETA * divergence
    lengths = torch.tensor([len(ids) for ids in batch.completions])
    share = 1.0 / lengths[owner] / len(lengths)
    return (tokens * share).sum(), float((divergence.detach() * share).sum())


def _log_probabilities(
    model: Qwen2VLForConditionalGeneration, batch: Batch
) -> tuple[Tensor, Tensor]:
    logits, ids, owner = completion_logits(model, batch.prompts, batch.completions, SHAPE)
    return logits.log_softmax(dim=-1).gather(1, ids[:, None])[:, 0], owner


def train_run(
    start: Path,
    arm_name: str,
    mean_weight: float | None,
    settings: RunSettings,
    held_out: HeldOut,
) -> dict[str, Any]:
    """Train by GRPO and measure.

    Args:
        start: model folder that training begins from.
        arm_name: a key of `ARMS`.
        mean_weight: of ``constant``.
        settings: see `RunSettings`.
        held_out: the questions that measure.

    Returns:
        evaluations: {step: figures of `HeldOut.measure`}; curve: {name: one value a step};
        seconds: wall time of all of it.
    """
    arm = ARMS[arm_name](1.0 if mean_weight is None else mean_weight)
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)

    def loss_of(
        model: Any, tokenizer: Any, reference: Any, step: int
    ) -> tuple[Tensor, dict[str, float | None]]:
        questions = _questions(settings, settings.prompts, first=step * settings.prompts)
        batch = draw_batch(model, tokenizer, questions, arm, generator, rng)
        loss, divergence = policy_loss(model, reference, batch)
        return loss, {"kl": divergence, **_batch_figures(batch)}

    return _train(start, arm.style, settings, held_out, loss_of)


def train_more(start: Path, settings: RunSettings, held_out: HeldOut) -> dict[str, Any]:
    """Supervised training from the same start, at the price of GRPO, and measure.

    GRPO reads a prompt once and its completions, five times: to generate, for the reference, and
    to learn (a backward pass counts as two). A supervised answer and its prompt are read three
    times. A step has as many of them as have the same number of tokens read. Returns what
    `train_run` does.
    """
    count = _answers_at_the_price(start, settings)

    def loss_of(
        model: Any, tokenizer: Any, reference: Any, step: int
    ) -> tuple[Tensor, dict[str, float | None]]:
        questions = _questions(settings, count, first=step * count)
        images = draw_images([question.scene for question in questions], IMAGE_SIDE)
        rows = [
            Row(q.kind, images[i : i + 1], (q.scene,), (Turn(q.text, say_box(q.target.box)),))
            for i, q in enumerate(questions)
        ]
        batches = pack_rows(rows, tokenizer, SHAPE)
        weight = sum(float(batch.target_weight.sum()) for batch in batches)
        losses = [words_loss(packed_logits(model, batch, SHAPE), batch) for batch in batches]
        loss = torch.stack(losses).sum() / weight
        return loss, {"loss": float(loss.detach())}

    return _train(start, "direct", settings, held_out, loss_of)


def _answers_at_the_price(start: Path, settings: RunSettings) -> int:
    tokenizer = AutoProcessor.from_pretrained(start).tokenizer
    question = draw_question("easy", settings.seed, 0)
    prompt = make_prompts([question], tokenizer, SHAPE, "direct").ids.shape[1]
    answer = len(tokenizer.encode(say_box(question.target.box))) + 1
    return round(settings.prompts * 5 * (prompt + GROUP * answer) / (3 * (prompt + answer)))


def _train(
    start: Path,
    style: str,
    settings: RunSettings,
    held_out: HeldOut,
    loss_of: Callable[[Any, Any, Any, int], tuple[Tensor, dict[str, float | None]]],
) -> dict[str, Any]:
    """AdamW with TRL's defaults, a linear fall to zero, gradients clipped at a norm of 1."""
    began = time.monotonic()
    tokenizer = AutoProcessor.from_pretrained(start).tokenizer
    model = Qwen2VLForConditionalGeneration.from_pretrained(start).eval()
    reference = Qwen2VLForConditionalGeneration.from_pretrained(start).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    evaluations = {0: held_out.measure(model, tokenizer, SHAPE, style)}
    curve: dict[str, list[float | None]] = {}
    for step in range(settings.steps):
        loss, figures = loss_of(model, tokenizer, reference, step)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for name, value in {**figures, "grad_norm": float(norm)}.items():
            curve.setdefault(name, []).append(None if value is None else round(value, 5))
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps:
            evaluations[step + 1] = held_out.measure(model, tokenizer, SHAPE, style)
    return {
        "evaluations": evaluations,
        "curve": curve,
        "seconds": round(time.monotonic() - began, 1),
    }


def _questions(settings: RunSettings, count: int, first: int) -> list[Question]:
    """The run's questions from number `first` on, in the order of training."""
    order = np.random.default_rng([settings.seed, first])
    hard = order.random(count) < settings.hard_share
    return [
        draw_question(KINDS[int(flag)], settings.seed, first + i) for i, flag in enumerate(hard)
    ]


def _batch_figures(batch: Batch) -> Mapping[str, float | None]:
    """What the curves show of a step; None where it had no prompt of that kind."""
    figures: dict[str, float | None] = {
        "miou": float(batch.means.mean()),
        "weight": float(batch.weights.mean()),
        "no_spread": float(batch.flat.mean()),
    }
    for low, high in pairwise(DIFFICULTY_BINS):
        inside = (batch.means >= low) & ((batch.means < high) | (high == DIFFICULTY_BINS[-1]))
        figures[f"share_{low}_{high}"] = float(inside.mean())
    kinds = np.array(batch.kinds)
    for kind in KINDS:
        rows = kinds == kind
        for name, values in (("miou", batch.means), ("weight", batch.weights)):
            figures[f"{name}_{kind}"] = float(values[rows].mean()) if rows.any() else None
    return figures
