"""Supervised fine-tuning of a vision-language model on grounding data, by TRL's SFTTrainer.

The loss is on the completion alone.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from univg_eval.errors import UserError
from univg_train.data import TrainingData
from univg_train.runs.lengths import RowLengths, row_text
from univg_train.runs.pretrained import freeze_vision
from univg_train.runs.sharding import sharding_of_environment
from univg_train.runs.training import (
    CheckedRun,
    ShownSteps,
    adapter_config,
    check_run,
    open_run,
    require_machine,
    trainer_arguments,
)
from univg_train.sft.settings import SftSettings

__all__ = ["check_sft", "make_trainer", "sft_arguments", "train_sft"]

_logger = logging.getLogger(__name__)


def train_sft(
    settings: SftSettings,
    *,
    resume: bool = True,
    callbacks: Sequence[Any] = (),
    shown: ShownSteps | None = None,
) -> dict[str, Any]:
    """Train, or go on with a run that was stopped.

    Args:
        settings: of the run.
        resume: False refuses a folder that holds one.
        callbacks: of transformers, beside the trainer's own.
        shown: see `univg_train.runs.training.TrainingRun.train`.

    Returns:
        The summary, see `univg_train.runs.training.TrainingRun.train`; also of a finished run.

    Raises:
        UserError: what is wrong with settings, checkpoint, data or folder, before any training.
    """
    sharding_of_environment()  # refuses what is not known
    run = open_run(settings, resume=resume)
    # First, for it sets up the processes and, with ZeRO-3, how a model is loaded.
    arguments = sft_arguments(settings)
    require_machine(arguments)
    checked = check_sft(settings, arguments.max_length)
    with run.held:
        if (finished := run.begin(arguments, checked)) is not None:
            return finished
        trainer = make_trainer(settings, arguments, checked, callbacks=callbacks)
        return run.train(trainer, checked, shown)


def sft_arguments(settings: SftSettings, **changes: Any) -> Any:
    """TRL's arguments for these settings; see `univg_train.runs.training.trainer_arguments`."""
    return trainer_arguments(settings, completion_only_loss=True, **changes)


def check_sft(settings: SftSettings, max_length: int | None) -> CheckedRun:
    """Everything but the weights; rows of more than `max_length` tokens are refused or left out.

    Raises:
        UserError: see `univg_train.runs.training.check_run`; or rows that are too long.
    """
    checked = check_run(settings)
    data = checked.data
    fitting, long = _survey(data, checked.processor, max_length)
    if long and settings.data.on_long == "stop":
        first = ", ".join(f"{id_} ({length})" for id_, length in long[:5])
        raise UserError(
            f"{len(long)} of {len(data)} rows have more than max_length={max_length} tokens: "
            f"{first}. A cut answer would lack its box: raise trainer.max_length, lower "
            "max_pixels, or leave these rows out with data.on_long=skip"
        )
    if not fitting:
        raise UserError(f"all {len(data)} rows have more than max_length={max_length} tokens")
    if not long:
        return checked
    _logger.warning("%d rows with more than %d tokens are left out", len(long), max_length)
    return dataclasses.replace(checked, dataset=checked.dataset.select(fitting))


def make_trainer(
    settings: SftSettings, arguments: Any, checked: CheckedRun, *, callbacks: Sequence[Any] = ()
) -> Any:
    """TRL's trainer for a checked run; loads the model."""
    from transformers import AutoModelForImageTextToText
    from trl.trainer.sft_trainer import SFTTrainer

    arguments.model_init_kwargs = None  # they are used up here
    # No row is longer; where one had more tokens than were counted, it would be cut unseen.
    arguments.max_length = None
    model = AutoModelForImageTextToText.from_pretrained(
        settings.checkpoint,
        trust_remote_code=settings.source["trust_remote_code"],
        **{"dtype": "float32", **settings.model_options},
    )
    adapter = adapter_config(settings, model)
    if settings.freeze_vision:
        freeze_vision(model)
    try:
        trainer = SFTTrainer(
            model,
            args=arguments,
            train_dataset=checked.dataset,
            processing_class=checked.processor,
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
            "all weights are trained in %s without a copy in float32: small steps are rounded "
            "away. Launch with ZeRO-3 or FSDP2, or set trainer.model_init_kwargs.dtype=float32",
            trainer.model.dtype,
        )


# --- lengths of rows -----------------------------------------------------------------------------


def _survey(
    data: TrainingData, processor: Any, max_length: int | None
) -> tuple[list[int], list[tuple[str, int]]]:
    """Positions of the rows that fit, and (id, tokens) of the others. No image is opened.

    Raises:
        UserError: the chat template leaves a part of an answer out.
    """
    lengths = RowLengths(processor)
    fitting: list[int] = []
    long: list[tuple[str, int]] = []
    for position in range(len(data)):
        columns = data.columns(position)
        text = row_text(columns, processor)
        _require_whole_answer(columns, text)
        length = 0 if max_length is None else lengths.of(columns, text)
        if max_length is None or length <= max_length:
            fitting.append(position)
        else:
            long.append((columns["id"], length))
    return fitting, long


def _require_whole_answer(columns: dict[str, Any], text: str) -> None:
    """Some templates drop the thinking of an answer; white space they may change."""
    (message,) = columns["completion"]
    answer = "".join(part["text"] for part in message["content"])
    if "".join(answer.split()) not in "".join(text.split()):
        raise UserError(
            f"row {columns['id']!r}: the model's chat template does not keep its answer; take the "
            "-Instruct model, or style=direct"
        )
