"""Supervised fine-tuning of a vision-language model on grounding data, by TRL's SFTTrainer.

The loss is on the completion alone. Everything that can be wrong is looked for before the model is
loaded: settings, checkpoint, rows, images, lengths. Only TRL's public interface is used.

A run is a folder: ``sft.json`` (its settings), TRL's checkpoints, and at the end ``model`` (whole
weights and processor) and ``summary.json``. The same settings again go on with it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.prompts import default_prompt_style
from univg_train.data import TrainingData
from univg_train.evaluation.plan import evaluated, plan_evaluation
from univg_train.runs.folder import (
    FREE_ARGUMENTS,
    MODEL_FOLDER,
    differences,
    find_checkpoint,
    read_record,
    require_same_rows,
    rows_record,
    write_record,
)
from univg_train.runs.pretrained import (
    empty_model,
    load_config,
    lora_config,
    pixel_limit,
    vision_tower,
)
from univg_train.runs.pretrained import load_processor as load_processor_of
from univg_train.runs.resizing import require_same_resize
from univg_train.runs.settings import unknown_keys, with_new_names, wrong_values
from univg_train.sft.settings import SftSettings, open_sft_data

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

__all__ = [
    "load_data",
    "load_processor",
    "make_trainer",
    "require_trainable",
    "row_length",
    "train_sft",
    "trainer_arguments",
]

SETTINGS_FILE = "sft.json"
SUMMARY_FILE = "summary.json"

_logger = logging.getLogger(__name__)


def train_sft(
    settings: SftSettings, *, resume: bool = True, callbacks: Sequence[Any] = ()
) -> dict[str, Any]:
    """Train, or go on with a run that was stopped.

    Args:
        settings: see `sft_settings`.
        resume: go on with the run found in the folder; False: refuse such a folder.
        callbacks: of `transformers.TrainerCallback`.

    Returns:
        The summary that is written too: steps, rows (those trained on, and the report of the
        file), trainable and all parameters, loss of the last logged step (None if none was),
        model folder, and ``best`` if the run was evaluated. That of a finished run, if the folder
        holds one.

    Raises:
        UserError: what is wrong with settings, checkpoint, data or folder, before any training.
    """
    from univg_train.evaluation.callback import attach_evaluation
    from univg_train.runs.resume import Done, go_on_from
    from univg_train.runs.saving import save_result

    folder = settings.output_dir
    before = _own_record(settings, resume)
    if before is not None:
        finished = read_record(folder / SUMMARY_FILE)
        if finished is not None:
            _logger.info("%s is finished already", folder)
            return finished
    # First, for it sets up the processes and, with ZeRO-3, how a model is loaded.
    arguments = trainer_arguments(settings)
    arguments.distributed_state.wait_for_everyone()  # all have looked before one writes there
    _require_same_processes(folder, before, arguments)
    require_trainable(settings, arguments)
    processor = load_processor(settings, arguments)
    evaluation = plan_evaluation(
        settings.evaluation,
        model=settings.model,
        processor=processor,
        dialect=settings.dialect,
        style=settings.style,
        output_dir=folder,
    )
    data, dataset = load_data(settings, processor, arguments.max_length)
    rows = rows_record(data, len(dataset))
    require_same_rows(folder, before, rows)
    checkpoint = find_checkpoint(folder)
    trainer = make_trainer(settings, arguments, processor, dataset, callbacks=callbacks)
    attach_evaluation(trainer, processor, evaluation)
    if trainer.is_world_process_zero():
        record = {"settings": settings.to_dict(), "processes": arguments.world_size, **rows}
        write_record(folder / SETTINGS_FILE, record)
    trainable, total = count_parameters(trainer.model)
    _logger.info("%d rows; %d of %d parameters are trained", len(dataset), trainable, total)
    if checkpoint is not None:
        _logger.info("going on from %s", checkpoint)
        go_on_from(trainer, checkpoint)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Done:
        _logger.info("all steps were taken before; only the model folder was missing")
    result = save_result(trainer, processor, folder)
    if result.name != MODEL_FOLDER:
        _logger.warning(
            "the weights are spread over processes, so that the adapter is not merged into them: "
            "the result is the adapter alone, in %s",
            result,
        )
    summary = {
        "steps": trainer.state.global_step,
        "rows": len(dataset),
        "data": data.report.to_dict(),
        "trainable_parameters": trainable,
        "parameters": total,
        "loss": next(
            (entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry),
            None,
        ),
        "model": str(result),
    }
    if evaluation is not None and (best := evaluation.best()):
        summary["best"] = best
    if trainer.is_world_process_zero():
        write_record(folder / SUMMARY_FILE, summary)
    return summary


def count_parameters(model: Any) -> tuple[int, int]:
    """Trained and all parameters; with ZeRO-3 too, where a process holds parts of them."""
    counted = [
        (getattr(p, "ds_numel", None) or p.numel(), p.requires_grad) for p in model.parameters()
    ]
    return sum(n for n, trained in counted if trained), sum(n for n, _ in counted)


# Settings and checkpoint


def trainer_arguments(settings: SftSettings) -> SFTConfig:
    """TRL's arguments for these settings.

    Raises:
        UserError: an unknown argument, or a value that TRL refuses.
    """
    from trl.trainer.sft_config import SFTConfig

    known = {entry.name: entry for entry in dataclasses.fields(SFTConfig) if entry.init}
    problems = unknown_keys(settings.trainer, dict.fromkeys(known), "trainer.")
    types = {
        name: entry.type.__name__ if isinstance(entry.type, type) else str(entry.type)
        for name, entry in known.items()
    }
    problems += wrong_values(settings.trainer, types, "trainer.")
    for name, value in settings.trainer.items():
        choices = known[name].metadata.get("choices") if name in known else None
        if choices and value is not None and value not in choices:
            problems.append(f"trainer.{name} is {value!r}; expected one of: {', '.join(choices)}")
    options = settings.trainer.get("model_init_kwargs")
    if isinstance(options, dict) and "torch_dtype" in options:
        problems.append("trainer.model_init_kwargs.torch_dtype: its name is dtype")
    if problems:
        raise UserError("; ".join(problems))
    values = with_new_names(
        settings.trainer, {name: entry.default for name, entry in known.items()}
    )
    values |= {"output_dir": str(settings.output_dir), "remove_unused_columns": False}
    try:
        arguments = SFTConfig(**values, completion_only_loss=True)
    except (ValueError, TypeError, ImportError) as error:
        hint = " (on a CPU: trainer.use_cpu=true trainer.bf16=false)"
        raise UserError(
            f"trainer: {' '.join(str(error).split())}" + (hint if "use_cpu" in str(error) else "")
        ) from error
    if arguments.n_gpu > 1 and "device_map" not in _model_options(arguments):
        raise UserError(
            f"one process sees {arguments.n_gpu} GPUs; start one for each: accelerate launch "
            "--num_processes N, or show it a single one by CUDA_VISIBLE_DEVICES"
        )
    return arguments


def _model_options(arguments: SFTConfig) -> dict[str, Any]:
    options = arguments.model_init_kwargs or {}
    assert isinstance(options, dict)  # a text of JSON has been read by TRL
    return dict(options)


def _source(arguments: SFTConfig) -> dict[str, Any]:
    """Which version of the model, and whether its own code is run."""
    return {
        "revision": _model_options(arguments).get("revision"),
        "trust_remote_code": arguments.trust_remote_code,
    }


def require_trainable(settings: SftSettings, arguments: SFTConfig) -> None:
    """Refuse a model that takes no images, and an adapter that does not fit it.

    Only the config is read: the model is built without weights.

    Raises:
        UserError: see above, or the vision tower to be frozen is not to be told.
    """
    config = load_config(settings.model, **_source(arguments))
    if settings.lora is None and not settings.freeze_vision:
        return
    model = empty_model(config, trust_remote_code=arguments.trust_remote_code)
    lora = _lora_config(settings, model)
    if lora is None:
        return
    import torch
    from peft import get_peft_model

    try:
        with torch.device("meta"):
            get_peft_model(model, lora)
    except (ValueError, TypeError) as error:
        raise UserError(f"lora: {' '.join(str(error).split())}") from error


def load_processor(settings: SftSettings, arguments: SFTConfig) -> Any:
    """The model's processor, with the pixel limits of the settings.

    Raises:
        UserError: there is none, it takes no images, has no chat template, or no such limits.
    """
    return load_processor_of(
        settings.model,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        **_source(arguments),
    )


# Data


def load_data(
    settings: SftSettings, processor: Any, max_length: int | None
) -> tuple[TrainingData, Any]:
    """The checked rows, and those that fit into `max_length` tokens as a `datasets.Dataset`.

    Raises:
        UserError: bad or leaking rows, nothing to train on, or rows that are too long.
    """
    chosen = settings.data
    if chosen.on_long not in ("stop", "skip"):
        raise UserError(f"data.on_long is {chosen.on_long!r}; expected one of: stop, skip")
    # Boxes in pixels of what the model sees: the processor that will resize decides.
    limits = {name: pixel_limit(processor, name) for name in ("min_pixels", "max_pixels")}
    require_same_resize(processor, get_dialect(settings.dialect, **limits), settings.model)
    data = open_sft_data(settings, **limits)
    fitting, long = _survey(data, processor, max_length)
    if long and chosen.on_long == "stop":
        first = ", ".join(f"{id_} ({length})" for id_, length in long[:5])
        raise UserError(
            f"{len(long)} of {len(data)} rows have more than max_length={max_length} tokens: "
            f"{first}. A cut answer would lack its box: raise trainer.max_length, lower "
            "max_pixels, or leave these rows out with data.on_long=skip"
        )
    if not fitting:
        raise UserError(f"all {len(data)} rows have more than max_length={max_length} tokens")
    dataset = data.as_dataset()
    if long:
        _logger.warning("%d rows with more than %d tokens are left out", len(long), max_length)
        dataset = dataset.select(fitting)
    return data, dataset


def _survey(
    data: TrainingData, processor: Any, max_length: int | None
) -> tuple[list[int], list[tuple[str, int]]]:
    """Positions of the rows that fit, and (id, tokens) of the others. No image is opened.

    Raises:
        UserError: the chat template leaves a part of an answer out.
    """
    expansions: dict[tuple[int, int], int] = {}
    fitting: list[int] = []
    long: list[tuple[str, int]] = []
    for position in range(len(data)):
        columns = data.columns(position)
        text = _whole_text(columns, processor)
        _require_whole_answer(columns, text)
        length = 0
        if max_length is not None:
            length = _length(columns, text, processor, expansions)
        if max_length is None or length <= max_length:
            fitting.append(position)
        else:
            long.append((columns["id"], length))
    return fitting, long


def _whole_text(columns: dict[str, Any], processor: Any) -> str:
    text: str = processor.apply_chat_template([*columns["prompt"], *columns["completion"]])
    return text


def _require_whole_answer(columns: dict[str, Any], text: str) -> None:
    """Some templates drop the thinking of an answer; white space they may change."""
    (message,) = columns["completion"]
    answer = "".join(part["text"] for part in message["content"])
    if "".join(answer.split()) not in "".join(text.split()):
        raise UserError(
            f"row {columns['id']!r}: the model's chat template does not keep its answer as it is, "
            "so that something else would be learned; take the -Instruct model, or style=direct"
        )


def row_length(
    columns: dict[str, Any], processor: Any, expansions: dict[tuple[int, int], int]
) -> int:
    """Tokens of a row as the trainer makes them.

    Args:
        columns: those of `univg_train.data.render`, for ``sft``.
        processor: of the model.
        expansions: tokens that an image of a size (width, height) adds to the text; filled here.
    """
    return _length(columns, _whole_text(columns, processor), processor, expansions)


def _length(
    columns: dict[str, Any], text: str, processor: Any, expansions: dict[tuple[int, int], int]
) -> int:
    sizes = [(width, height) for width, height in columns["image_sizes"]]
    for size in sizes:
        if size not in expansions:
            expansions[size] = _expansion(size, processor)
    return _count(processor, text) + sum(expansions[size] for size in sizes)


def _count(processor: Any, text: str) -> int:
    return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _expansion(size_wh: tuple[int, int], processor: Any) -> int:
    from PIL import Image

    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
    ids = processor(images=[Image.new("RGB", size_wh)], text=[text], add_special_tokens=False)
    return len(ids["input_ids"][0]) - _count(processor, text)


# Trainer


def make_trainer(
    settings: SftSettings,
    arguments: SFTConfig,
    processor: Any,
    dataset: Any,
    *,
    callbacks: Iterable[Any] = (),
) -> Any:
    """TRL's trainer for a checked run; loads the model."""
    from transformers import AutoModelForImageTextToText
    from trl.trainer.sft_trainer import SFTTrainer

    options = _model_options(arguments)
    arguments.model_init_kwargs = None  # they are used up here
    # No row is longer; where one had more tokens than were counted, it would be cut unseen.
    arguments.max_length = None
    options.setdefault("dtype", "float32")
    model = AutoModelForImageTextToText.from_pretrained(
        settings.model, trust_remote_code=arguments.trust_remote_code, **options
    )
    # Every checkpoint says how it is to be asked and read.
    model.config.univg = {
        "dialect": settings.dialect,
        "prompt": settings.style or default_prompt_style(settings.dialect),
    }
    adapter = _lora_config(settings, model)
    if settings.freeze_vision:
        vision_tower(model)[0].requires_grad_(False)
    try:
        trainer = SFTTrainer(
            model,
            args=arguments,
            train_dataset=dataset,
            processing_class=processor,
            callbacks=list(callbacks),
            peft_config=adapter,
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"the trainer refuses: {' '.join(str(error).split())}") from error
    _warn_of_lost_steps(settings, trainer)
    return trainer


def _warn_of_lost_steps(settings: SftSettings, trainer: Any) -> None:
    """Small steps of weights in half precision are rounded away."""
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if settings.lora is None and not sharded and trainer.model.dtype.itemsize < 4:
        _logger.warning(
            "all weights are trained in %s, and nothing keeps a copy in float32: steps that are "
            "small against a weight are rounded away. Launch with ZeRO-3 or FSDP2, which keep "
            "one, or set trainer.model_init_kwargs.dtype=float32",
            trainer.model.dtype,
        )


def _lora_config(settings: SftSettings, model: Any) -> Any:
    """PEFT's configuration, which keeps the vision tower of `model` out where it is frozen."""
    tower = vision_tower(model)[1] if settings.freeze_vision else None
    return None if settings.lora is None else lora_config(settings.lora, tower)


# Folder of a run


def _own_record(settings: SftSettings, resume: bool) -> dict[str, Any] | None:
    """The record of the run in the folder, None for a new one; refuses a folder of another run."""
    folder = settings.output_dir
    before = read_record(folder / SETTINGS_FILE)
    if before is None:
        if found := find_checkpoint(folder) or evaluated(folder):
            raise UserError(
                f"{folder} holds {found.name} without {SETTINGS_FILE}: not of a run of this "
                "command; name another trainer.output_dir"
            )
        return None
    if not resume:
        raise UserError(f"{folder} holds a run already; name another trainer.output_dir")
    free = {f"trainer.{name}" for name in FREE_ARGUMENTS}
    now = json.loads(json.dumps(settings.to_dict()))
    changed = differences(before.get("settings"), now, free)
    if changed:
        raise UserError(
            f"{folder} holds a run with other settings: {'; '.join(changed)}. Go on with its own, "
            "or name another trainer.output_dir"
        )
    return before


def _require_same_processes(
    folder: Path, before: dict[str, Any] | None, arguments: SFTConfig
) -> None:
    if before is not None and before.get("processes") != arguments.world_size:
        raise UserError(
            f"{folder} holds a run of {before.get('processes')} processes, and there are "
            f"{arguments.world_size} now, so that its batches would be others; start as many, or "
            "name another trainer.output_dir"
        )
