"""The settings that every training run has: model, data, trainer, evaluation."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from univg_eval.models import model_folder
from univg_eval.prompts import default_prompt_style
from univg_train.evaluation.settings import EvaluationSettings
from univg_train.runs.yaml_settings import Positive, Section, argument_problems

if TYPE_CHECKING:
    from univg_train.data import Rendering

__all__ = ["DataSettings", "RunSettings"]

_NO_EVALUATION_DATA = "there is no evaluation data; `evaluation` evaluates on a benchmark instead"
_NEVER = {
    "resume_from_checkpoint": "a run goes on by itself from its last whole checkpoint",
    "save_only_model": "a run could not go on without the optimiser's state",
}
_OFF = {
    "remove_unused_columns": "every column is needed",
    "load_best_model_at_end": "the last model is the result",
    "do_eval": _NO_EVALUATION_DATA,
}
_DTYPES = ("float32", "bfloat16", "float16", "auto")
# What transformers and TRL look at only once the model is loaded.
_ARGUMENT_TYPES = {
    "model_init_kwargs": dict[str, Any] | None,
    "save_strategy": Literal["steps", "epoch", "no"],
    "per_device_train_batch_size": Positive,
    "gradient_accumulation_steps": Positive,
}


class DataSettings(Section):
    """What is learned; see `univg_train.data.open_training_data` and `make_rendering`.

    Attributes:
        form: one of `univg_train.data.FORMS`.
        file: the file; the benchmark's name in the form ``samples``.
        images: the folder of images.
        space: what the boxes are, for ``vlm_r1``.
        root: the data root.
        history: earlier turns of a conversation are part of the prompt.
        single_images_direct: simple references in one image are answered without thinking.
        on_bad: ``stop`` at a faulty row, or ``skip`` them.
        check_leaks: prepared benchmarks that the rows must not share anything with; None: all that
            are prepared.
        leak_kinds: what is compared; None: the default of `index_benchmarks`.
        on_leak: ``refuse``, ``skip`` or ``allow``.
    """

    form: str = Field(description="a form of docs/training_data.md")
    file: str = Field(description="a path, or a benchmark's name with the form samples")
    images: str | None = None
    space: str | None = None
    root: str | None = None
    history: bool = False
    single_images_direct: bool = True
    on_bad: str = "stop"
    check_leaks: list[str] | None = Field(default=None, description="a list of benchmarks")
    leak_kinds: list[str] | None = Field(default=None, description="a list of kinds")
    on_leak: str = "refuse"


class RunSettings(Section):
    """One training run.

    Attributes:
        model: folder, hub name or ``univg:tiny``: a vision-language model.
        dialect: how the model shall write boxes.
        data: what is learned.
        trainer: arguments of `trainer_class`; ``output_dir`` is the folder of the run.
        style: ``think`` or ``direct``; None: the dialect's own.
        min_pixels: smallest area of an image as the model sees it; None: the processor's own.
        max_pixels: largest area, likewise.
        freeze_vision: the vision tower, with the layer that joins it to the language model where
            they are one module (as in Qwen2-VL), is not trained.
        lora: arguments of `peft.LoraConfig`; None: all weights are trained.
        evaluation: what the model is evaluated on while it trains; None: nothing.
    """

    model: str = Field(min_length=1, description="a folder, a name of the Hub, or univg:tiny")
    dialect: str = Field(description="how the model writes boxes, see `univg dialects`")
    data: DataSettings
    trainer: dict[str, Any]
    style: str | None = None
    min_pixels: Positive | None = None
    max_pixels: Positive | None = None
    freeze_vision: bool = True
    lora: dict[str, Any] | None = None
    evaluation: EvaluationSettings | None = None

    purpose: ClassVar[Literal["sft", "grpo"]]
    never: ClassVar[Mapping[str, str]] = {}
    """Arguments of the trainer that are not the user's to set, and why."""
    off: ClassVar[Mapping[str, str]] = {}
    """Arguments that must keep a value that is not true, and why."""
    argument_types: ClassVar[Mapping[str, Any]] = {}
    """Types of arguments that the trainer's own annotations leave too wide."""

    @classmethod
    @abstractmethod
    def trainer_class(cls) -> type[Any]:
        """The class of the trainer's arguments; imports TRL."""

    @property
    def checkpoint(self) -> str:
        """The model's folder or hub name; a UserError where a short name stands for none."""
        return model_folder(self.model)

    @property
    def output_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.trainer["output_dir"]).expanduser()

    @property
    def prompt_style(self) -> str:
        """``think`` or ``direct``."""
        return default_prompt_style(self.dialect) if self.style is None else self.style

    @property
    def rewards_several(self) -> bool:
        """Whether the reward takes rows with several true boxes."""
        return True

    @property
    def source(self) -> dict[str, Any]:
        """Which version of the model, and whether its own code is run."""
        return {
            "revision": self.model_options.get("revision"),
            "trust_remote_code": self.argument("trust_remote_code"),
        }

    @property
    def model_options(self) -> dict[str, Any]:
        """What the model is loaded with."""
        return dict(self.argument("model_init_kwargs") or {})

    def argument(self, name: str) -> Any:
        """A key of ``trainer``, or TRL's default."""
        return self.trainer[name] if name in self.trainer else self.argument_defaults()[name]

    @classmethod
    def argument_defaults(cls) -> dict[str, Any]:
        """TRL's defaults of all arguments."""
        return {
            field.name: field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
            for field in dataclasses.fields(cls.trainer_class())
        }

    def rendering(self, *, min_pixels: int | None, max_pixels: int | None) -> Rendering:
        """How rows are written; the limits are those of `univg_train.runs.rows.open_rows`.

        Raises:
            UserError: an unknown name, a dialect without boxes, impossible limits.
        """
        from univg_train.data import make_rendering

        return make_rendering(
            self.dialect,
            style=self.style,
            purpose=self.purpose,
            history=self.data.history,
            single_images_direct=self.data.single_images_direct,
            several=self.rewards_several,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
        )

    @model_validator(mode="before")
    @classmethod
    def _evaluate_on_same_root(cls, values: Any) -> Any:
        data, evaluation = (values.get(name) for name in ("data", "evaluation"))
        if isinstance(data, Mapping) and isinstance(evaluation, Mapping):
            root = evaluation.get("root") or data.get("root")
            return {**values, "evaluation": {**evaluation, "root": root}}
        return values

    @field_validator("trainer")
    @classmethod
    def _check_trainer(cls, trainer: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        never, off = {**_NEVER, **cls.never}, {**_OFF, **cls.off}
        evaluating = [n for n in trainer if n.startswith(("eval_", "per_device_eval_"))]
        never |= dict.fromkeys(evaluating, _NO_EVALUATION_DATA)
        problems = [
            f"trainer.{name} is not to be set: {why}"
            for name, why in never.items()
            if name in trainer
        ]
        problems += [
            f"trainer.{name}={trainer[name]!r}: {why}; leave it out"
            for name, why in off.items()
            if trainer.get(name)
        ]
        options = trainer.get("model_init_kwargs")
        options = options if isinstance(options, Mapping) else {}
        if "torch_dtype" in options:
            problems.append("trainer.model_init_kwargs.torch_dtype: its name is dtype")
        if options.get("dtype", "auto") not in _DTYPES:
            problems.append(
                f"trainer.model_init_kwargs.dtype is {options['dtype']!r}; expected one of: "
                f"{', '.join(_DTYPES)}"
            )
        if trainer.get("output_dir") in (None, ""):
            problems.append("trainer.output_dir is missing: the folder of the run")
        if not (info.context or {}).get("without_trl"):
            rest = {name: value for name, value in trainer.items() if name not in never}
            types = {**_ARGUMENT_TYPES, **cls.argument_types}
            problems += argument_problems(cls.trainer_class(), rest, "trainer.", types)
        if problems:
            raise ValueError("; ".join(problems))
        return trainer

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        low, high = self.min_pixels, self.max_pixels
        if low is not None and high is not None and low > high:
            raise ValueError(
                f"min_pixels is {low} and max_pixels {high}; expected min_pixels <= max_pixels"
            )
        # Names that do not exist.
        _ = self.checkpoint, self.rendering(min_pixels=None, max_pixels=None)
        return self
