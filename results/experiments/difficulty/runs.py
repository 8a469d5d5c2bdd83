"""One run: GRPO from the start with the weights of one arm.

The loss is that of `DifficultyGRPOTrainer` with the paper's settings, computed
in a loop of its own that reads a prompt once for all its rollouts; a test holds the two against
each other on the same rollouts. Rewards and weights are the project's own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from held_out import HeldOut, draw_items
from plan import CONSTANT_WEIGHT, EVALUATE_EVERY, STEPS
from rollouts import Prompts, generate, log_probabilities, make_prompts
from torch import Tensor
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

from univg_eval.models import TINY, model_folder
from univg_train.difficulty import DifficultyWeight, group_means
from univg_train.grpo.trainer import DIFFICULTY_BINS, PAPER_SETTINGS
from univg_train.rewards import make_rewards
from univg_train.tiny.answers import DIALECT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from univg_eval.benchmarks.synthetic.mini import MiniItem

__all__ = [
    "ARMS", "GROUP", "Arm", "Batch", "RunSettings", "draw_batch", "grade_batch", "load_start",
    "policy_loss", "train_run",
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
    """

    weight: DifficultyWeight = field(default_factory=lambda: DifficultyWeight("none"))
    permuted: bool = False

    def weigh(self, means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Weights of the prompts of a batch, shape (P,).

        Args:
            means: mean IoU of each prompt's rollouts, shape (P,).
            rng: of the permutation.
        """
        weights = self.weight(means)
        return rng.permutation(weights) if self.permuted else weights


ARMS = {
    "none": Arm(),
    "exp_normalised": Arm(DifficultyWeight("exp", normalize=True)),
    "permuted": Arm(DifficultyWeight("exp", normalize=True), permuted=True),
    "exp": Arm(DifficultyWeight("exp")),
    "constant": Arm(DifficultyWeight("constant", value=CONSTANT_WEIGHT)),
}


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a run depends on beside its arm.

    Attributes:
        seed: of prompts and sampling.
        learning_rate: AdamW's first; it falls linearly to zero.
        steps: optimiser steps, one a batch of rollouts.
        prompts: prompts a step.
        pool: the prompts come again and again from so many, in another order in each epoch; None:
            every prompt is another one.
        evaluate_every: steps between evaluations.
    """

    seed: int
    learning_rate: float
    steps: int = STEPS
    prompts: int = 8
    pool: int | None = None
    evaluate_every: int = EVALUATE_EVERY

    def numbers(self, step: int) -> list[int]:
        """The prompts of a step, as numbers of the stream of `seed`.

        Raises:
            ValueError: an epoch is no whole number of steps.
        """
        first = step * self.prompts
        if self.pool is None:
            return list(range(first, first + self.prompts))
        if self.pool % self.prompts:
            raise ValueError(f"a pool of {self.pool} is no multiple of {self.prompts} prompts")
        epoch, place = divmod(first, self.pool)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.pool)
        return [int(number) for number in order[place : place + self.prompts]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rollouts and what they are worth.

    Attributes:
        prompts: P of them.
        completions: token ids, P x GROUP of them, those of a prompt one after the other.
        advantages: weighted, shape (P x GROUP,).
        means, weights, flat: mean IoU, weight and lack of spread of each prompt, shape (P,).
    """

    prompts: Prompts
    completions: list[list[int]]
    advantages: Tensor
    means: np.ndarray
    weights: np.ndarray
    flat: np.ndarray


def load_start() -> tuple[Qwen2VLForConditionalGeneration, PreTrainedTokenizerFast]:
    """The model that every run begins from, the shipped one, and its tokenizer."""
    folder = model_folder(TINY)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder).eval()
    return model, AutoProcessor.from_pretrained(folder).tokenizer


def draw_batch(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[MiniItem],
    arm: Arm,
    generator: torch.Generator,
    rng: np.random.Generator,
) -> Batch:
    """Answer each sample GROUP times, and grade the answers."""
    prompts = make_prompts(items, tokenizer)
    completions = generate(
        model, prompts, rollouts=GROUP, top_k=PAPER_SETTINGS["top_k"], generator=generator
    )
    return grade_batch(tokenizer, items, prompts, completions, arm, rng)


def grade_batch(
    tokenizer: PreTrainedTokenizerFast,
    items: Sequence[MiniItem],
    prompts: Prompts,
    completions: list[list[int]],
    arm: Arm,
    rng: np.random.Generator,
) -> Batch:
    """Rewards, the weights of the prompts, and advantages."""
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    columns: dict[str, list[Any]] = {
        "solution": [list(item.box) for item in items for _ in range(GROUP)],
        "dialect": [DIALECT.name] * len(texts),
        "style": ["direct"] * len(texts),
    }
    accuracy, form = make_rewards(style="direct")
    overlaps = torch.tensor(accuracy(completions=texts, **columns))
    rewards = (overlaps + torch.tensor(form(completions=texts, **columns))).view(-1, GROUP)
    means = group_means(overlaps.numpy(), GROUP)
    weights = arm.weigh(means, rng)
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    advantages = advantages / (rewards.std(dim=1, keepdim=True) + _STD_FLOOR)
    advantages = advantages * torch.from_numpy(weights).float()[:, None]
    flat = (rewards.amax(dim=1) == rewards.amin(dim=1)).numpy()
    return Batch(prompts, completions, advantages.reshape(-1), means, weights, flat)


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
    log_p, owner = log_probabilities(model, batch.prompts, batch.completions)
    with torch.no_grad():
        base, _ = log_probabilities(reference, batch.prompts, batch.completions)
    difference = base - log_p
    divergence = difference.exp() - difference - 1
    ratio = (log_p - log_p.detach()).exp()
    tokens = -ratio * batch.advantages[owner] + _BETA * divergence
    lengths = torch.tensor([len(ids) for ids in batch.completions])
    share = 1.0 / lengths[owner] / len(lengths)
    return (tokens * share).sum(), float((divergence.detach() * share).sum())


def train_run(
    arm_name: str, settings: RunSettings, held_out: HeldOut, difficulty: Sequence[float]
) -> dict[str, Any]:
    """Train the language model by GRPO, and measure.

    AdamW with TRL's defaults, a linear fall to zero, gradients clipped at a norm of 1.

    Args:
        arm_name: a key of `ARMS`.
        settings: see `RunSettings`.
        held_out: the samples that measure.
        difficulty: of these, see `HeldOut.start_means`.

    Returns:
        evaluations: {step: figures of `HeldOut.measure`}, from the first `evaluate_every` steps on;
        curve: {name: one value a step};
        seconds: wall time of all of it.
    """
    began = time.monotonic()
    arm = ARMS[arm_name]
    generator = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    model, tokenizer = load_start()
    reference, _ = load_start()
    model.model.visual.requires_grad_(False)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    evaluations = {}
    curve: dict[str, list[float | None]] = {}
    for step in range(settings.steps):
        items = draw_items(settings.seed, settings.numbers(step))
        batch = draw_batch(model, tokenizer, items, arm, generator, rng)
        loss, divergence = policy_loss(model, reference, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        figures = {**batch_figures(batch), "kl": divergence, "grad_norm": float(norm)}
        for name, value in figures.items():
            curve.setdefault(name, []).append(None if value is None else round(value, 5))
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps:
            evaluations[step + 1] = held_out.measure(model, tokenizer, difficulty)
    return {
        "evaluations": evaluations,
        "curve": curve,
        "seconds": round(time.monotonic() - began, 1),
    }


def batch_figures(batch: Batch) -> Mapping[str, float | None]:
    """What the curves show of a step.

    Returns:
        miou, weight, no_spread: means over the prompts; share_A_B: of the prompts with a mean IoU
        in that bin; pull_A_B: their share of the sum of absolute advantages, weights included,
        None where all are zero.
    """
    figures: dict[str, float | None] = {
        "miou": float(batch.means.mean()),
        "weight": float(batch.weights.mean()),
        "no_spread": float(batch.flat.mean()),
    }
    pulls = batch.advantages.abs().view(-1, GROUP).sum(dim=1).numpy()
    for low, high in pairwise(DIFFICULTY_BINS):
        inside = (batch.means >= low) & ((batch.means < high) | (high == DIFFICULTY_BINS[-1]))
        figures[f"share_{low}_{high}"] = float(inside.mean())
        total = float(pulls.sum())
        figures[f"pull_{low}_{high}"] = float(pulls[inside].sum()) / total if total else None
    return figures
