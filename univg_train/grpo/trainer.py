"""GRPO whose prompts count by their difficulty: a small subclass of TRL's GRPOTrainer.

The one module that knows TRL's internals. TRL computes the loss; two private methods of TRL 1.16
are the seams:

``_calculate_rewards``
    Ends with the rewards of all processes, the rollouts of a prompt one after the other. Here the
    mean IoU of each prompt and its weight are computed, and the figures of the batch logged.
``_generate_and_score_completions``
    Returns the batch with its advantages, one a local rollout. Here they are multiplied by the
    weight of their prompt.

The clipped surrogate -min(r A, clip(r) A) is linear in a positive factor of the advantage A, and
the KL term does not hold A: multiplying A is exactly the weighting of the policy term alone. With
a negative factor min and clip change, except where r = 1: the form ``log`` is therefore refused
unless every batch of rollouts is used for one update only.
"""

from __future__ import annotations

import importlib.metadata
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from univg_eval.errors import UserError
from univg_train.difficulty import DifficultyWeight, group_means
from univg_train.grpo.rollouts import RolloutLog
from univg_train.rewards import (
    AccuracyReward,
    FormatReward,
    Grade,
    check_rows,
    completion_text,
)

__all__ = [
    "DIFFICULTY_BINS",
    "PAPER_SETTINGS",
    "TRL_MINOR",
    "DifficultyGRPOTrainer",
    "check_arguments",
    "check_inputs",
]

TRL_MINOR = "1.16"
"""The minor version of TRL whose two private methods this module overrides."""

PAPER_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "loss_type": "grpo",
        "scale_rewards": "group",
        "beta": 0.04,
        "use_bias_correction_kl": False,
        "num_iterations": 1,
        "epsilon": 0.2,
        "num_generations": 8,
        "temperature": 1.0,
        "top_k": 50,
        "max_completion_length": 256,
        "learning_rate": 1e-6,
    }
)
"""The loss and the sampling of UniVG-R1's release, as arguments of GRPOConfig.

TRL 1.16 has other defaults for loss_type, beta, use_bias_correction_kl, top_k and
max_completion_length. The release sets no top_k: 50 was the default of the GenerationConfig of
transformers 4, which it samples with.
"""

DIFFICULTY_BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Edges of the bins of mean IoU for the logs; the last bin holds its upper edge too."""

# Their formulas look at the sign of the advantage, which a negative weight turns round.
_SIGN_DEPENDENT_LOSSES = ("sapo", "vespo")
_CHECKED_ROWS_MADE = 100


class DifficultyGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer with prompts weighted by the mean IoU of their own rollouts.

    Where there is no true object, or several, by the mean of the metric in its place.

    Args:
        model, args, train_dataset, eval_dataset, **kwargs: those of `trl.GRPOTrainer`.
        reward_funcs: those of `univg_train.rewards.make_rewards`; others may stand beside them.
        difficulty: the weight of a prompt; ``exp`` if None.
        rollouts: takes some prompts of each batch with their rollouts; None: nothing is kept.

    Arguments and data are checked before the model is loaded: all rows of a Dataset; the first
    hundred where rows are made on access (an IterableDataset, or a Dataset with a transform).

    Logged beside TRL's own metrics, over the rollouts of all processes (``P`` is ``difficulty/``
    for all rows, and ``source/NAME/`` for those of one value of the column ``source``):

    - ``P miou``: mean IoU of the rows with one true object, whatever threshold or shaping the
      reward has; ``P no_target_acc``: share of right answers to those without; ``P matched_iou``
      or ``P f1@0.5``, whichever is the reward: its mean over those with several;
    - ``P weight``: mean weight of the prompts;
    - ``P no_spread``: share of prompts whose rollouts all got the same total reward: they teach
      nothing, whatever their weight;
    - ``P answered``: share of completions whose box could be read, of the rows with one true object
      (not under ``univg-r1``);
    - ``P format``: mean of the format function, if there is one;
    - ``difficulty/share_0.2_0.4`` and ``difficulty/weight_0.2_0.4``: share of prompts with a mean
      IoU in that bin, and their mean weight; likewise for the other bins.

    Raises:
        UserError: TRL has another minor version, there is not exactly one accuracy function, the
            data cannot be rewarded, or the arguments do not go with the weight.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any,
        args: GRPOConfig,
        train_dataset: Dataset | IterableDataset,
        eval_dataset: Any = None,
        *,
        difficulty: DifficultyWeight | None = None,
        rollouts: RolloutLog | None = None,
        **kwargs: Any,
    ) -> None:
        _require_trl()
        self._rollouts = rollouts
        self._difficulty = DifficultyWeight() if difficulty is None else difficulty
        self._local_weights: Tensor | None = None
        functions = list(reward_funcs) if isinstance(reward_funcs, list) else [reward_funcs]
        found = [f for f in functions if isinstance(f, AccuracyReward)]
        if len(found) != 1:
            raise UserError(
                "difficulty needs exactly one accuracy_reward of univg_train.rewards among "
                f"reward_funcs and found {len(found)}; pass make_rewards(…)"
            )
        self._accuracy = found[0]
        self._format_index = next(
            (i for i, f in enumerate(functions) if isinstance(f, FormatReward)), None
        )
        check_arguments(args, self._difficulty)
        for name, dataset in _named_datasets(train_dataset, eval_dataset):
            check_rows(_rows_to_check(dataset), functions, what=name)
        super().__init__(model, functions, args, train_dataset, eval_dataset=eval_dataset, **kwargs)

    # --- the two seams ---------------------------------------------------------------------------

    def _calculate_rewards(
        self,
        inputs: list[dict[str, Any]],
        prompts: list[Any],
        completions: list[Any],
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )
        columns = {name: [row[name] for row in inputs] for name in inputs[0]}
        grades = self._accuracy.grade(completions, columns)
        overlaps = self.accelerator.gather(
            torch.tensor([g.overlap for g in grades], dtype=rewards.dtype, device=rewards.device)
        )
        size = self._group_size()
        means = group_means(overlaps.cpu(), size)
        weights = self._difficulty(means)

        first = self.accelerator.process_index * len(prompts)
        group_of = [(first + i) // size for i in range(len(prompts))]
        self._local_weights = torch.tensor(
            [float(weights[group]) for group in group_of],
            dtype=rewards.dtype,
            device=rewards.device,
        )
        flat = self._without_spread(rewards, size)
        formats = None if self._format_index is None else rewards[:, self._format_index].tolist()
        sources = columns.get("source", [None] * len(prompts))
        for i, (grade, group, source) in enumerate(zip(grades, group_of, sources, strict=True)):
            figures = {"weight": float(weights[group]), "no_spread": float(flat[group])}
            figures[grade.metric] = grade.overlap
            if grade.metric == "miou" and grade.status is not None:
                figures["answered"] = float(grade.status == "ok")
            if formats is not None:
                figures["format"] = formats[first + i]
            for name, value in figures.items():
                self._log_metric(f"difficulty/{name}", value)
                if source is not None:
                    self._log_metric(f"source/{source}/{name}", value)
            self._log_bins(float(means[group]), float(weights[group]))
        if first == 0:
            self._keep_rollouts(columns, completions, grades, rewards, means)
        return rewards

    def _keep_rollouts(
        self,
        columns: Mapping[str, Sequence[Any]],
        completions: Sequence[Any],
        grades: Sequence[Grade],
        rewards: Tensor,
        means: Any,
    ) -> None:
        """Write the first prompts of the main process; of one that is spread, its own rollouts."""
        if self._rollouts is None or self.model is None or not self.model.training:
            return
        size, totals, weights = self._group_size(), self._totals(rewards), self._difficulty(means)
        lines = []
        for prompt in range(min(self._rollouts.prompts, -(-len(grades) // size))):
            rows = range(prompt * size, min((prompt + 1) * size, len(grades)))
            row = {name: values[rows.start] for name, values in columns.items()}
            rollouts = [
                {
                    "text": completion_text(completions[i]),
                    "status": grades[i].status,
                    "box": grades[i].box,
                    "value": grades[i].overlap,
                    "reward": float(totals[i]),
                }
                for i in rows
            ]
            lines.append(
                {
                    "id": row.get("id"),
                    "source": row.get("source"),
                    "truth": _true_objects(row),
                    "metric": grades[rows.start].metric,
                    "mean": float(means[prompt]),
                    "weight": float(weights[prompt]),
                    "rollouts": rollouts,
                }
            )
        self._rollouts.write(self.state.global_step + 1, lines)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._local_weights = None
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        weights, self._local_weights = self._local_weights, None
        advantages = output["advantages"]
        if weights is None or advantages.shape != weights.shape:
            raise RuntimeError(
                f"TRL returned advantages of shape {tuple(advantages.shape)} for "
                f"{None if weights is None else tuple(weights.shape)} weights; expected one a "
                f"local rollout: this version of TRL is not the {TRL_MINOR} that this class is for"
            )
        output["advantages"] = advantages * weights.to(advantages.dtype)
        return output

    # --- figures ---------------------------------------------------------------------------------

    def _group_size(self) -> int:
        """Rollouts a prompt, which evaluation may have fewer of."""
        training = self.model is not None and self.model.training
        size = self.num_generations if training else self.num_generations_eval
        assert size is not None  # both have defaults, despite the config's types
        return size

    def _without_spread(self, rewards: Tensor, size: int) -> list[bool]:
        """Whether all rollouts of a prompt got the same total reward, for every prompt."""
        totals = self._totals(rewards).view(-1, size)
        return (totals.amax(dim=1) == totals.amin(dim=1)).tolist()

    def _totals(self, rewards: Tensor) -> Tensor:
        total: Tensor = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1)
        return total

    def _log_bins(self, mean: float, weight: float) -> None:
        for low, high in pairwise(DIFFICULTY_BINS):
            inside = low <= mean < high or (mean >= high == DIFFICULTY_BINS[-1])
            self._log_metric(f"difficulty/share_{low}_{high}", float(inside))
            if inside:
                self._log_metric(f"difficulty/weight_{low}_{high}", weight)


def _true_objects(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Image and box of each true object of a row."""
    if row.get("targets") is not None:
        return list(row["targets"])
    box = row["solution"]
    return [] if box is None else [{"image": row.get("target_image"), "box": list(box)}]


def _require_trl() -> None:
    version = importlib.metadata.version("trl")
    if not version.startswith(f"{TRL_MINOR}."):
        raise UserError(
            f"DifficultyGRPOTrainer overrides private methods of TRL {TRL_MINOR} and found TRL "
            f"{version}; install it with: pip install 'trl=={TRL_MINOR}.*'"
        )


def check_inputs(names: Iterable[str], model: str) -> None:
    """Refuse a model whose processor gives inputs that TRL does not pass on to it.

    Args:
        names: of the inputs that the processor makes of a prompt.
        model: a name for the message.
    """
    known = inspect.signature(GRPOTrainer._get_per_token_logps_and_entropies).parameters
    if lost := sorted(set(names) - set(known)):
        raise UserError(
            f"the processor of {model} gives {', '.join(lost)}, which GRPO in TRL {TRL_MINOR} does "
            "not pass on to the model (github.com/huggingface/trl/issues/4488, on prompts of "
            "several images); `univg-train sft` trains it"
        )


def check_arguments(args: GRPOConfig, difficulty: DifficultyWeight) -> None:
    """Refuse arguments under which a weight would not be what its name says.

    Raises:
        UserError: a form that is negative with rollouts of more than one update, or a
            normalisation over one prompt.
    """
    if difficulty.normalize and args.generation_batch_size == args.num_generations:
        raise UserError(
            "normalize divides by the mean weight of the prompts that are generated together, and "
            f"generation_batch_size={args.generation_batch_size} with num_generations="
            f"{args.num_generations} is one prompt, whose weight would always be 1; raise "
            "per_device_train_batch_size or gradient_accumulation_steps"
        )
    if not difficulty.signed:
        return
    reasons = []
    updates = args.num_iterations * (args.steps_per_generation or 1)
    if args.gradient_accumulation_steps % updates:
        reasons.append(
            f"num_iterations={args.num_iterations} and steps_per_generation="
            f"{args.steps_per_generation} with gradient_accumulation_steps="
            f"{args.gradient_accumulation_steps} use rollouts for more than one update"
        )
    if args.loss_type in _SIGN_DEPENDENT_LOSSES:
        reasons.append(f"loss_type={args.loss_type!r} looks at the sign of the advantage")
    if args.off_policy_mask_threshold is not None:
        reasons.append("off_policy_mask_threshold looks at the sign of the advantage")
    if reasons:
        raise UserError(
            "difficulty form 'log' is negative above a mean IoU of 0.98, and there scaling the "
            "advantages is the published weighting only at a probability ratio of 1; here "
            + "; ".join(reasons)
            + ". Use num_iterations=1, one update a batch of rollouts and loss_type='grpo', or "
            "the form 'log_clamped'"
        )


def _named_datasets(train: Any, evaluation: Any) -> Iterator[tuple[str, Any]]:
    yield "the training data", train
    if isinstance(evaluation, dict):
        yield from ((f"the evaluation data {name!r}", data) for name, data in evaluation.items())
    elif evaluation is not None:
        yield "the evaluation data", evaluation


def _rows_to_check(dataset: Dataset | IterableDataset) -> Iterator[Mapping[str, Any]]:
    """The rows, without columns that are costly to read and that no reward needs."""
    if isinstance(dataset, Dataset) and dataset.format["type"] == "custom":
        yield from dataset.select(range(min(_CHECKED_ROWS_MADE, len(dataset))))
        return
    names = dataset.column_names or ()
    needless = [name for name in ("prompt", "image", "images") if name in names]
    rows = dataset.remove_columns(needless) if needless else dataset
    yield from rows.take(_CHECKED_ROWS_MADE) if isinstance(rows, IterableDataset) else rows
