"""Settings of supervised fine-tuning: a YAML file and overrides, checked before anything heavy.

The keys are the fields of `SftSettings` and `SftData`; ``trainer`` holds arguments of TRL's
`SFTConfig` and ``lora`` those of PEFT's `LoraConfig`, which are checked when these are built.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_train.evaluation.settings import (
    EvaluationSettings,
    evaluation_problems,
    leak_index,
    make_evaluation_settings,
)
from univg_train.runs.settings import load_yaml, override, unknown_keys, wrong_values

if TYPE_CHECKING:
    from univg_train.data import TrainingData

__all__ = ["SftData", "SftSettings", "load_settings", "open_sft_data"]

_REFUSED = {
    "packing": "rows with images are not packed: an attention mask and positions for several "
    "pictures in one sequence are needed for that, and TRL has none",
    "padding_free": "TRL computes no positions of image tokens without padding",
    "pad_to_multiple_of": "TRL pads rows of prompt, images and completion only to the longest",
    "assistant_only_loss": "the loss is on the completion alone already",
    "eval_packing": "rows with images are not packed",
    "remove_unused_columns": "the columns are made when a row is asked for",
    "shuffle_dataset": "TRL does that to texts only; the order of rows is train_sampling_strategy",
    "load_best_model_at_end": "the last model is the result",
    "eval_on_start": "there is no evaluation data; `evaluation` asks a benchmark instead",
    "do_eval": "there is no evaluation data; `evaluation` asks a benchmark instead",
}
"""Arguments that must keep a value that is not true, and why."""

_OWN = {
    "completion_only_loss": "it is always true: neither prompt nor image tokens are learned",
    "resume_from_checkpoint": "a run goes on by itself where its last whole checkpoint stands",
    "dataset_kwargs": "rows are prepared when they are asked for",
    "dataset_text_field": "rows are messages and images",
    "dataset_num_proc": "rows are prepared when they are asked for",
    "packing_strategy": "rows with images are not packed",
    "truncation_mode": "no row is cut",
    "save_only_model": "a run could not go on without the optimiser's state",
    "eval_strategy": "there is no evaluation data; `evaluation` asks a benchmark instead",
    "chat_template_path": "the model's own template is the one that evaluation asks with",
    "eos_token": "the model's own template ends an answer",
    "pad_token": "padding is not learned, and the tokenizer knows its own",
}
"""Arguments that are not the user's to set, and why."""

_SAMPLING = ("random", "sequential")
"""Orders of the rows; transformers' others count the tokens of rows, which are made on access."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SftData:
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
        on_long: ``stop`` if a row has more than ``max_length`` tokens, or ``skip`` such rows. None
            is ever cut: the box stands at the end.
        check_leaks: prepared benchmarks that the rows must not share anything with; None: all that
            are prepared.
        leak_kinds: what is compared; None: the default of `index_benchmarks`.
        on_leak: ``refuse``, ``skip`` or ``allow``.
    """

    form: str
    file: str
    images: str | None = None
    space: str | None = None
    root: str | None = None
    history: bool = False
    single_images_direct: bool = True
    on_bad: str = "stop"
    on_long: str = "stop"
    check_leaks: list[str] | None = None
    leak_kinds: list[str] | None = None
    on_leak: str = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSettings:
    """One run of supervised fine-tuning.

    Attributes:
        model: folder or hub name of a vision-language model.
        dialect: how the model shall write boxes.
        data: what is learned.
        trainer: arguments of `trl.SFTConfig`; ``output_dir`` is the folder of the run.
        style: ``think`` or ``direct``; None: the dialect's own.
        min_pixels: smallest area of an image as the model sees it; None: the processor's own.
        max_pixels: largest area, likewise.
        freeze_vision: the vision tower, with the layer that joins it to the language model where
            they are one module (as in Qwen2-VL), is not trained.
        lora: arguments of `peft.LoraConfig`; None: all weights are trained.
        evaluation: what is asked while the model trains; None: nothing.
    """

    model: str
    dialect: str
    data: SftData
    trainer: dict[str, Any]
    style: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    freeze_vision: bool = True
    lora: dict[str, Any] | None = None
    evaluation: EvaluationSettings | None = None

    @property
    def output_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.trainer["output_dir"]).expanduser()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def load_settings(
    path: str | os.PathLike[str] | None, overrides: Iterable[str] = ()
) -> SftSettings:
    """Read settings from a YAML file, and change some of them.

    Args:
        path: the file; None where `overrides` say everything.
        overrides: ``key=value``, the key with dots (``trainer.max_steps=10``), the value as YAML.

    Raises:
        UserError: not YAML, an unknown or missing key, a value of another type, or an argument
            that does not go with images; all of them in one message.
    """
    where, values = "the settings", dict[str, Any]()
    if path is not None:
        path = Path(path).expanduser()
        where, values = str(path), load_yaml(path)
    values = override(values, overrides)
    data = values.get("data") or {}
    known: dict[str, Any] = dict.fromkeys(_types(SftSettings)) | {"data": tuple(_types(SftData))}
    problems = unknown_keys(values, known)
    sections: list[tuple[str, Any, type[Any]]] = [
        ("", values, SftSettings),
        ("data.", data, SftData),
    ]
    for prefix, section, kind in sections:
        if isinstance(section, Mapping):
            problems += wrong_values(section, _types(kind), prefix)
            problems += [f"{prefix}{name} is missing" for name in _missing(section, kind)]
    if isinstance(values.get("trainer"), Mapping):
        problems += _trainer_problems(values["trainer"])
    problems += evaluation_problems(values.get("evaluation"))
    if problems:
        raise UserError(f"{where}: " + "; ".join(problems))
    sections_made = {
        "data": SftData(**data),
        "evaluation": make_evaluation_settings(values.get("evaluation"), root=data.get("root")),
    }
    return SftSettings(**{**values, **sections_made})


def open_sft_data(
    settings: SftSettings, *, min_pixels: int | None, max_pixels: int | None
) -> TrainingData:
    """The rows of these settings, each read and checked, its images too.

    Args:
        settings: of the run.
        min_pixels: of the model's resize, which boxes of some dialects depend on; None: the
            dialect's own.
        max_pixels: likewise.

    Raises:
        UserError: bad or leaking rows, nothing to train on, or choices that do not exist.
    """
    from univg_train.data import (
        DEFAULT_LEAK_KINDS,
        benchmarks_to_check,
        make_rendering,
        open_training_data,
    )

    chosen = settings.data
    benchmarks = benchmarks_to_check(chosen.check_leaks, chosen.root)
    how = make_rendering(
        settings.dialect,
        style=settings.style,
        purpose="sft",
        history=chosen.history,
        single_images_direct=chosen.single_images_direct,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )
    kinds = DEFAULT_LEAK_KINDS if chosen.leak_kinds is None else chosen.leak_kinds
    leaks = leak_index(benchmarks, settings.evaluation, kinds=kinds, root=chosen.root)
    return open_training_data(
        chosen.form,
        chosen.file,
        how,
        images=chosen.images,
        space=chosen.space,
        on_bad=chosen.on_bad,
        leaks=leaks,
        on_leak=chosen.on_leak,
        root=chosen.root,
    )


def _types(kind: type[Any]) -> dict[str, str]:
    """The keys of a section with their types."""
    return {entry.name: str(entry.type) for entry in fields(kind)}


def _missing(section: Mapping[str, Any], kind: type[Any]) -> list[str]:
    """Keys without a default that are not given."""
    return [
        entry.name
        for entry in fields(kind)
        if entry.default is MISSING and entry.default_factory is MISSING
        if entry.name not in section
    ]


def _trainer_problems(trainer: Mapping[str, Any]) -> list[str]:
    problems = [
        f"trainer.{name}: {why}; leave it away" for name, why in _OWN.items() if name in trainer
    ]
    problems += [
        f"trainer.{name}={trainer[name]!r}: {why}; leave it away"
        for name, why in _REFUSED.items()
        if trainer.get(name)
    ]
    sampling = trainer.get("train_sampling_strategy", "random")
    if sampling not in _SAMPLING:
        problems.append(
            f"trainer.train_sampling_strategy is {sampling!r}; expected one of: "
            + ", ".join(_SAMPLING)
        )
    if not isinstance(trainer.get("output_dir"), str):
        problems.append("trainer.output_dir is missing: the folder of the run")
    return problems
