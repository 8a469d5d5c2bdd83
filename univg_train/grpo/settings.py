"""The settings of ``univg-train grpo``: what a file may say, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_train.difficulty import DifficultyWeight
from univg_train.evaluation.settings import (
    EvaluationSettings,
    evaluation_problems,
    make_evaluation_settings,
)
from univg_train.grpo.batches import rollout_batch
from univg_train.rewards import Reward, make_rewards
from univg_train.runs.settings import (
    load_yaml,
    override,
    unknown_keys,
    with_new_names,
    wrong_values,
)

if TYPE_CHECKING:
    from trl.trainer.grpo_config import GRPOConfig

    from univg_train.data import Rendering

__all__ = [
    "GrpoSettings",
    "load_grpo_settings",
    "make_grpo_settings",
    "planned_arguments",
    "trainer_arguments",
]

_TYPES = {
    "": {
        "model": "str", "dialect": "str", "style": "str | None", "min_pixels": "int | None",
        "max_pixels": "int | None", "freeze_vision": "bool",
    },
    "data.": {
        "form": "str", "file": "str", "images": "str | None", "space": "str | None",
        "root": "str | None", "decode": "bool | None", "history": "bool",
        "single_images_direct": "bool", "on_bad": "str | None", "check_leaks": "list[str] | None",
        "leak_kinds": "list[str] | None", "on_leak": "str | None",
    },
    "rewards.": {
        "rule": "str", "style": "str | None", "threshold": "float | None",
        "shaping": "str | None", "length": "None | list",
    },
    "difficulty.": {
        "form": "str", "exponent": "float | None", "value": "float | None", "normalize": "bool",
    },
}  # fmt: skip
DATA_KEYS = tuple(_TYPES["data."])
REWARD_KEYS = tuple(_TYPES["rewards."])
DIFFICULTY_KEYS = tuple(_TYPES["difficulty."])

_CHOICES: dict[str, tuple[Any, ...]] = {
    "loss_type": (
        "grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo",
    ),
    "scale_rewards": ("group", "batch", "none", True, False),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "importance_sampling_level": ("token", "sequence"),
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": (
        "token_truncate", "token_mask", "sequence_truncate", "sequence_mask",
    ),
    "save_strategy": ("steps", "epoch", "no"),
}  # fmt: skip
"""Values that TRL 1.16 looks at only once the model is loaded, or in the first step."""

_DTYPES = ("float32", "bfloat16", "float16", "auto")

_MANAGED = {
    "remove_unused_columns": "the rewards need every column of the data",
    "resume_from_checkpoint": "the same command goes on with what it finds in output_dir",
    "save_only_model": "a run that was stopped could not go on",
    "ignore_data_skip": "a run that goes on would see rows twice",
    "load_best_model_at_end": "the last model is the result",
    "train_sampling_strategy": "GRPO has an order of its own, each prompt num_generations times",
    "use_transformers_continuous_batching": "it takes no images",
    "label_smoothing_factor": "GRPO's loss has no labels",
    "eval_strategy": "there is no evaluation data; `evaluation` asks a benchmark instead",
    "do_eval": "there is no evaluation data; `evaluation` asks a benchmark instead",
    "deepspeed": "`accelerate launch --config_file` says so",
    "fsdp": "`accelerate launch --config_file` says so",
    "fsdp_config": "`accelerate launch --config_file` says so",
}


@dataclass(frozen=True, slots=True)
class GrpoSettings:
    """A checked file of settings.

    Attributes:
        model: folder or Hub name.
        how: dialect, style and pixel limits, and how rows are written.
        min_pixels, max_pixels: of the model's resize; None: as its processor says.
        freeze_vision: parameters of the vision tower are not trained.
        lora: keys of `peft.LoraConfig`; None: all weights are trained.
        data: keyword arguments, `DATA_KEYS`.
        rewards: those of `univg_train.rewards.make_rewards`.
        difficulty: the weight of a prompt.
        trainer: keyword arguments of `trl.GRPOConfig`.
        evaluation: what is asked while the model trains; None: nothing.
        raw: everything as it was read, with the command line's changes.
    """

    model: str
    how: Rendering
    min_pixels: int | None
    max_pixels: int | None
    freeze_vision: bool
    lora: Mapping[str, Any] | None
    data: Mapping[str, Any]
    rewards: list[Reward]
    difficulty: DifficultyWeight
    trainer: Mapping[str, Any]
    evaluation: EvaluationSettings | None
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def output_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.trainer["output_dir"]).expanduser()

    def argument(self, name: str) -> Any:
        """A key of ``trainer``, or the default that TRL has for it."""
        return self.trainer[name] if name in self.trainer else _trainer_defaults()[name]

    def benchmarks(self) -> list[str]:
        """What the rows are held against: ``data.check_leaks``, or all that is prepared.

        Raises:
            UserError: nothing is named and nothing prepared.
        """
        from univg_train.data import benchmarks_to_check

        return benchmarks_to_check(self.data.get("check_leaks"), self.data.get("root"))


@lru_cache(maxsize=1)
def _trainer_defaults() -> dict[str, Any]:
    from trl.trainer.grpo_config import GRPOConfig

    defaults = {}
    for key in dataclasses.fields(GRPOConfig):
        made = key.default_factory
        defaults[key.name] = key.default if made is dataclasses.MISSING else made()
    return defaults


def load_grpo_settings(path: str | Path, changes: Iterable[str] = ()) -> GrpoSettings:
    """Read a file and apply ``key=value`` changes.

    Raises:
        UserError: see `make_grpo_settings`; the file is named.
    """
    path = Path(path).expanduser()
    raw = override(load_yaml(path), changes)
    try:
        return make_grpo_settings(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def make_grpo_settings(raw: Mapping[str, Any]) -> GrpoSettings:
    """Check settings.

    Raises:
        UserError: unknown keys (all of them, each with the nearest known one), a missing key, or
            a value that is not known.
    """
    from univg_train.data import make_rendering

    known: dict[str, Any] = dict.fromkeys(
        ("model", "dialect", "style", "min_pixels", "max_pixels", "freeze_vision", "evaluation")
    )
    known |= {"data": DATA_KEYS, "rewards": REWARD_KEYS, "difficulty": DIFFICULTY_KEYS}
    known |= {"trainer": tuple(_trainer_defaults()), "lora": _lora_keys(raw.get("lora"))}
    problems = unknown_keys(raw, known)
    for prefix, types in _TYPES.items():
        section = raw.get(prefix.rstrip("."), {}) if prefix else raw
        problems += wrong_values(section if isinstance(section, Mapping) else {}, types, prefix)
    problems += [
        f"{'.'.join(keys)} is missing; expected {expected}"
        for keys, expected in _NEEDED.items()
        if _find(raw, keys) in (None, "")
    ]
    trainer = raw.get("trainer")
    trainer = dict(trainer) if isinstance(trainer, Mapping) else {}
    problems += _trainer_problems(trainer)
    problems += evaluation_problems(raw.get("evaluation"))
    if problems:
        raise UserError("; ".join(dict.fromkeys(problems)))
    freeze = raw.get("freeze_vision", True)
    data = dict(raw["data"])
    limits: dict[str, Any] = {name: raw.get(name) for name in ("min_pixels", "max_pixels")}
    for name, value in limits.items():
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}; expected a number of pixels, at least 1")
    if None not in limits.values() and limits["min_pixels"] > limits["max_pixels"]:
        raise UserError(
            f"min_pixels is {limits['min_pixels']} and max_pixels {limits['max_pixels']}; expected "
            "min_pixels <= max_pixels"
        )
    how = make_rendering(
        raw["dialect"],
        style=raw.get("style"),
        purpose="grpo",
        history=data.get("history", False),
        single_images_direct=data.get("single_images_direct", True),
        **limits,
    )
    if how.dialect.needs_input_size and None in limits.values():
        raise UserError(
            f"dialect {raw['dialect']!r} writes pixels of the resized image, so the resize has to "
            "be known: set min_pixels and max_pixels"
        )
    rewards = dict(raw.get("rewards") or {})
    if rewards.get("length") is not None:
        rewards["length"] = _two_numbers(rewards["length"])
    settings = GrpoSettings(
        model=raw["model"],
        how=how,
        freeze_vision=freeze,
        lora=raw.get("lora"),
        data=data,
        # The released rule reads 0-1000 and knows no limits.
        rewards=make_rewards(**rewards, **({} if rewards.get("rule") == "univg-r1" else limits)),
        difficulty=DifficultyWeight(**(raw.get("difficulty") or {})),
        trainer=trainer,
        evaluation=make_evaluation_settings(raw.get("evaluation"), root=data.get("root")),
        raw=raw,
        **limits,
    )
    _require_numbers(settings)
    return settings


def trainer_arguments(settings: GrpoSettings, **changes: Any) -> GRPOConfig:
    """The trainer's arguments, on the machine that will train.

    Args:
        settings: checked ones.
        changes: further keyword arguments.

    Raises:
        UserError: TRL refuses a value, or this machine cannot do what they ask for.
    """
    from trl.trainer.grpo_config import GRPOConfig

    arguments = dict(settings.trainer) | {"remove_unused_columns": False} | changes
    arguments["output_dir"] = str(settings.output_dir)
    try:
        return GRPOConfig(**with_new_names(arguments, _trainer_defaults()))
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(
            f"the trainer refuses its settings: {' '.join(str(error).split())}"
            + (
                " (on a CPU: trainer.use_cpu=true trainer.bf16=false)"
                if "use_cpu" in str(error)
                else ""
            )
        ) from error


def planned_arguments(settings: GrpoSettings, processes: int) -> GRPOConfig:
    """The trainer's arguments of a run that another machine will do on `processes` devices.

    Raises:
        UserError: TRL refuses a value.
    """
    batch = rollout_batch(settings, processes)
    planned = {"generation_batch_size": batch, "steps_per_generation": None}
    arguments = trainer_arguments(settings, use_cpu=True, **planned)
    # TRL has counted this process alone.
    one_pass = settings.argument("per_device_train_batch_size") * processes
    arguments.steps_per_generation = batch // one_pass
    return arguments


def _lora_keys(lora: Any) -> tuple[str, ...]:
    if not isinstance(lora, Mapping):
        return ()
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise UserError("lora needs the package 'peft'; install it: pip install peft") from error
    return tuple(key.name for key in dataclasses.fields(LoraConfig) if key.init)


def _two_numbers(value: Any) -> tuple[int, int]:
    if not (isinstance(value, list) and len(value) == 2 and all(type(n) is int for n in value)):
        raise UserError(f"rewards.length is {value!r}; expected two numbers of tokens, [256, 512]")
    return value[0], value[1]


_NEEDED = {
    ("model",): "a folder or a name of the Hub",
    ("dialect",): "how the model writes boxes, a name that `univg dialects` lists",
    ("data", "form"): "a form of docs/training_data.md",
    ("data", "file"): "a path, or a benchmark's name with the form samples",
    ("trainer", "output_dir"): "the folder of the run",
}


def _find(raw: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    value: Any = raw
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _trainer_problems(trainer: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of the trainer, told without making any."""
    from trl.trainer.grpo_config import GRPOConfig

    problems = [
        f"trainer.{name} is not to be set: {reason}"
        for name, reason in _MANAGED.items()
        if name in trainer
    ]
    problems += [
        f"trainer.{name} is not to be set: {_MANAGED['do_eval']}"
        for name in trainer
        if name not in _MANAGED and name.startswith(("eval_", "per_device_eval_"))
    ]
    types = {
        key.name: key.type.__name__ if isinstance(key.type, type) else str(key.type)
        for key in dataclasses.fields(GRPOConfig)
        if key.name not in _CHOICES
    }
    problems += wrong_values(trainer, types, "trainer.")
    problems += [
        f"trainer.{name} is {trainer[name]!r}; expected one of: "
        + ", ".join(repr(choice) for choice in choices)
        for name, choices in _CHOICES.items()
        if name in trainer and trainer[name] not in choices
    ]
    options = trainer.get("model_init_kwargs") or {}
    if not isinstance(options, Mapping):
        problems.append(f"trainer.model_init_kwargs is {options!r}; expected keys with values")
    elif "torch_dtype" in options:
        problems.append("trainer.model_init_kwargs.torch_dtype: its name is dtype")
    elif options.get("dtype", "float32") not in _DTYPES:
        problems.append(
            f"trainer.model_init_kwargs.dtype is {options['dtype']!r}; expected one of: "
            f"{', '.join(_DTYPES)}"
        )
    return problems


def _require_numbers(settings: GrpoSettings) -> None:
    for name in (
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_generations",
        "num_iterations",
        "max_completion_length",
    ):
        value = settings.argument(name)
        if type(value) is not int or value < 1:
            raise UserError(f"trainer.{name} is {value!r}; expected a positive whole number")
    for name in ("generation_batch_size", "steps_per_generation"):
        value = settings.argument(name)
        if value is not None and value < 1:
            raise UserError(f"trainer.{name} is {value}; expected a positive whole number")
    if not settings.argument("temperature") > 0:
        raise UserError(
            f"trainer.temperature is {settings.argument('temperature')}; expected a number above "
            "0: rollouts that are all alike teach nothing"
        )
