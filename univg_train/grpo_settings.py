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
from univg_train.rewards import Reward, make_rewards
from univg_train.run_settings import load_yaml, override, unknown_keys

if TYPE_CHECKING:
    from trl.trainer.grpo_config import GRPOConfig

    from univg_train.data import Rendering

__all__ = ["GrpoSettings", "load_grpo_settings", "make_grpo_settings", "trainer_arguments"]

DATA_KEYS = (
    "form", "file", "images", "space", "root", "decode", "history", "single_images_direct",
    "on_bad", "check_leaks", "leak_kinds", "on_leak",
)  # fmt: skip
REWARD_KEYS = ("rule", "style", "threshold", "shaping", "length")
DIFFICULTY_KEYS = ("form", "exponent", "value", "normalize")

_MANAGED = {
    "remove_unused_columns": "the rewards need every column of the data",
    "resume_from_checkpoint": "the same command goes on with what it finds in output_dir",
    "save_only_model": "a run that was stopped could not go on",
    "load_best_model_at_end": "the last model is the result",
    "eval_strategy": "there is no evaluation data; evaluate checkpoints with `univg eval`",
    "do_eval": "there is no evaluation data; evaluate checkpoints with `univg eval`",
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
        ("model", "dialect", "style", "min_pixels", "max_pixels", "freeze_vision")
    )
    known |= {"data": DATA_KEYS, "rewards": REWARD_KEYS, "difficulty": DIFFICULTY_KEYS}
    known |= {"trainer": tuple(_trainer_defaults()), "lora": _lora_keys(raw.get("lora"))}
    problems = unknown_keys(raw, known)
    for name in ("model", "dialect"):
        value = raw.get(name)
        if not isinstance(value, str) or not value:
            problems.append(f"{name} is {value!r}; expected a text")
    for section, keys in (("data", ("form", "file")), ("trainer", ("output_dir",))):
        given = raw.get(section)
        given = given if isinstance(given, Mapping) else {}
        problems += [
            f"{section}.{key} is {given.get(key)!r}; expected a text"
            for key in keys
            if not isinstance(given.get(key), str)
        ]
    trainer = raw.get("trainer")
    trainer = dict(trainer) if isinstance(trainer, Mapping) else {}
    problems += [
        f"trainer.{name} is not to be set: {reason}"
        for name, reason in _MANAGED.items()
        if name in trainer
    ]
    if problems:
        raise UserError("; ".join(problems))
    for name in ("check_leaks", "leak_kinds"):
        value = raw["data"].get(name)
        if not (value is None or (isinstance(value, list) and all(type(v) is str for v in value))):
            raise UserError(f"data.{name} is {value!r}; expected a list of names, [a, b]")
    freeze = raw.get("freeze_vision", True)
    if not isinstance(freeze, bool):
        raise UserError(f"freeze_vision is {freeze!r}; expected true or false")
    data = dict(raw["data"])
    limits: dict[str, Any] = {name: raw.get(name) for name in ("min_pixels", "max_pixels")}
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
        raw=raw,
        **limits,
    )
    _require_numbers(settings)
    return settings


def check_batch(settings: GrpoSettings, processes: int) -> None:
    """Refuse a batch of rollouts that does not hold whole groups.

    Raises:
        UserError: num_generations does not divide it.
    """
    n, batch = settings.argument("num_generations"), rollout_batch(settings, processes)
    if n < 2:
        raise UserError(f"trainer.num_generations is {n}; expected at least 2 rollouts a prompt")
    if batch % n:
        raise UserError(
            f"trainer.num_generations={n} does not divide the {batch} rollouts that are generated "
            f"together ({_factors(settings, processes)}); change one of them so that every prompt "
            "has all its rollouts in one batch"
        )


def rollout_batch(settings: GrpoSettings, processes: int) -> int:
    """Rollouts that are generated together on all processes."""
    given = settings.argument("generation_batch_size")
    if given is not None:
        return int(given)
    steps = settings.argument("steps_per_generation") or settings.argument(
        "gradient_accumulation_steps"
    )
    return int(settings.argument("per_device_train_batch_size") * processes * steps)


def _factors(settings: GrpoSettings, processes: int) -> str:
    if settings.argument("generation_batch_size") is not None:
        return "generation_batch_size"
    name = "gradient_accumulation_steps"
    if settings.argument("steps_per_generation"):
        name = "steps_per_generation"
    batch = settings.argument("per_device_train_batch_size")
    return (
        f"per_device_train_batch_size={batch} x {processes} processes x "
        f"{name}={settings.argument(name)}"
    )


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
        return GRPOConfig(**arguments)
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(
            f"the trainer refuses its settings: {' '.join(str(error).split())}"
            + (
                " (on a CPU: trainer.use_cpu=true trainer.bf16=false)"
                if "use_cpu" in str(error)
                else ""
            )
        ) from error


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
    value = settings.argument("max_steps")
    if type(value) is not int:
        raise UserError(f"trainer.max_steps is {value!r}; expected a whole number")
