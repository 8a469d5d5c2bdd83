"""Settings of GRPO."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from univg_eval.dialects import get_dialect
from univg_train.data import ROW_KINDS
from univg_train.data.rows import RowKind
from univg_train.difficulty import DifficultyWeight
from univg_train.rewards import AccuracyReward, Reward, make_rewards
from univg_train.runs.settings import DataSettings, RunSettings
from univg_train.runs.yaml_settings import Positive, Section, read_settings

__all__ = [
    "DifficultySettings",
    "GrpoData",
    "GrpoSettings",
    "RewardSettings",
    "load_grpo_settings",
]

_LAUNCHER = "`accelerate launch --config_file` says so"


class GrpoData(DataSettings):
    """Rows of GRPO.

    Attributes:
        decode: decode every image before training; else a damaged one ends it when its row comes.
    """

    decode: bool = False


class RewardSettings(Section):
    """Arguments of `univg_train.rewards.make_rewards`."""

    rule: str = "univg"
    style: str | None = None
    threshold: float | None = None
    shaping: str | None = None
    several: str | None = "matched_iou"
    length: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="two numbers of tokens, such as [256, 512]"
    )


class DifficultySettings(Section):
    """Arguments of `univg_train.difficulty.DifficultyWeight`."""

    form: str = "exp"
    exponent: float | None = None
    value: float | None = None
    normalize: bool = False


class GrpoSettings(RunSettings):
    """One run of GRPO; ``trainer`` holds arguments of `trl.GRPOConfig`.

    Attributes:
        log_rollouts: prompts of each batch that are kept with their rollouts, see `RolloutLog`.
    """

    data: GrpoData
    rewards: RewardSettings = RewardSettings()
    difficulty: DifficultySettings = DifficultySettings()
    log_rollouts: Annotated[int, Field(ge=0)] = 1

    purpose: ClassVar[Literal["grpo"]] = "grpo"
    never: ClassVar[dict[str, str]] = {
        "train_sampling_strategy": "GRPO repeats each prompt num_generations times, in its order",
        "use_transformers_continuous_batching": "it takes no images",
        "label_smoothing_factor": "GRPO's loss has no labels",
        "deepspeed": _LAUNCHER,
        "fsdp": _LAUNCHER,
        "fsdp_config": _LAUNCHER,
    }
    off: ClassVar[dict[str, str]] = {
        "ignore_data_skip": "a run that goes on would see rows twice",
    }
    argument_types: ClassVar[dict[str, Any]] = {
        "loss_type": Literal[
            "grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"
        ],
        "scale_rewards": Literal["group", "batch", "none"] | bool,
        "multi_objective_aggregation": Literal["sum_then_normalize", "normalize_then_sum"],
        "importance_sampling_level": Literal["token", "sequence"],
        "vllm_mode": Literal["colocate", "server"],
        "vllm_importance_sampling_mode": Literal[
            "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"
        ],
        "num_generations": Positive,
        "num_iterations": Positive,
        "max_completion_length": Positive,
        "generation_batch_size": Positive | None,
        "steps_per_generation": Positive | None,
        # Rollouts that are all alike teach nothing.
        "temperature": Annotated[float, Field(gt=0)],
    }  # fmt: skip

    @classmethod
    def trainer_class(cls) -> type[Any]:
        """`trl.GRPOConfig`."""
        from trl.trainer.grpo_config import GRPOConfig

        return GRPOConfig

    @property
    def rewards_several(self) -> bool:
        """Whether the reward takes rows with several true boxes."""
        return self.rewards.rule != "univg-r1" and self.rewards.several is not None

    @cached_property
    def reward_functions(self) -> list[Reward]:
        """Those that ``rewards`` describes, with the pixel limits of the run."""
        options = self.rewards.model_dump()
        if self.rewards.length is not None:
            options["length"] = tuple(self.rewards.length)
        if self.rewards.rule != "univg-r1":  # the released rule reads 0-1000 and knows no limits
            options |= {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return make_rewards(**options)

    def rewards_by_kind(self, kinds: Mapping[RowKind, int]) -> dict[str, dict[str, Any]]:
        """The number of rows of each kind that there is, and their reward in words."""
        accuracy = self.reward_functions[0]
        assert isinstance(accuracy, AccuracyReward)
        return {
            kind: {"rows": kinds[kind], "reward": accuracy.describe(n)}
            for n, kind in enumerate(ROW_KINDS)
            if kinds.get(kind)
        }

    @cached_property
    def weight(self) -> DifficultyWeight:
        """The weight of a prompt that ``difficulty`` describes."""
        return DifficultyWeight(**self.difficulty.model_dump())

    @model_validator(mode="after")
    def _check_rewards(self) -> Self:
        _ = self.reward_functions, self.weight
        dialect = get_dialect(self.dialect)
        if dialect.needs_input_size and None in (self.min_pixels, self.max_pixels):
            raise ValueError(
                f"dialect {self.dialect!r} writes pixels of the resized image, so the resize has "
                "to be known: set min_pixels and max_pixels"
            )
        return self


def load_grpo_settings(
    path: str | os.PathLike[str] | None, changes: Iterable[str] = ()
) -> GrpoSettings:
    """Settings of a YAML file after changes, see `univg_train.runs.yaml_settings.read_settings`."""
    return read_settings(GrpoSettings, path, changes)
