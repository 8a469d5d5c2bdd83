"""One run of GRPO: check everything, load, train."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from univg_eval.errors import UserError
from univg_eval.models.pretrained import empty_model, load_processor
from univg_train.grpo.batches import check_batch, count_steps, passes_of_batch
from univg_train.grpo.rollouts import ROLLOUTS_FILE, RolloutLog
from univg_train.grpo.settings import GrpoSettings
from univg_train.rewards import check_rows
from univg_train.runs.lengths import RowLengths, encode_row
from univg_train.runs.pretrained import freeze_vision
from univg_train.runs.resizing import as_seen, input_size_rule
from univg_train.runs.sharding import sharding_of_environment
from univg_train.runs.training import (
    CheckedRun,
    ShownSteps,
    adapter_config,
    check_run,
    open_run,
    processes_of_environment,
    require_machine,
    trainer_arguments,
)

__all__ = ["check_grpo", "train_grpo"]

_FREE = (
    *("log_completions", "num_completions_to_print", "vllm_gpu_memory_utilization"),
    *("vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout"),
)
"""Arguments that may change when a run goes on: they do not change what is computed."""

_logger = logging.getLogger(__name__)


def train_grpo(settings: GrpoSettings, *, shown: ShownSteps | None = None) -> dict[str, Any]:
    """Train, or go on with what the folder holds; `shown`: see `TrainingRun.train`.

    Returns:
        The summary, see `univg_train.runs.training.TrainingRun.train`; also of a finished run.

    Raises:
        UserError: what is wrong with settings, folder, model, data or machine: before any weights
            are loaded.
    """
    sharding_of_environment()  # refuses what is not known
    processes = processes_of_environment()
    check_batch(settings, processes)
    run = open_run(settings, free=_FREE)
    arguments = trainer_arguments(settings)
    require_machine(arguments)
    checked = check_grpo(settings, arguments, processes)
    with run.held:
        if (finished := run.begin(arguments, checked)) is not None:
            return finished
        _warn_of_unlike_end(settings, processes)
        return run.train(_make_trainer(settings, arguments, checked), checked, shown)


def check_grpo(settings: GrpoSettings, arguments: Any, processes: int) -> CheckedRun:
    """Look for everything that can be wrong; nothing is written, and no weights are loaded.

    Raises:
        UserError: see `univg_train.runs.training.check_run`; or rows without a reward, too few of
            them, a resize that vLLM would not do, inputs or lengths that TRL or vLLM cannot take.
    """
    from univg_train.grpo.trainer import check_arguments, check_inputs

    check_arguments(arguments, settings.weight)
    checked = check_run(settings, truncation_side="left", padding_side="left")
    data = checked.data
    check_rows((data.columns(i) for i in range(len(data))), settings.reward_functions)
    count_steps(settings, len(data), processes)
    check_inputs(encode_row(data.columns(0), checked.processor), settings.model)
    _require_room(settings, checked)
    limited = settings.min_pixels is not None or settings.max_pixels is not None
    if not (settings.argument("use_vllm") and limited):
        return checked
    own = load_processor(settings.checkpoint, **settings.source)
    sizes = (
        (width, height)
        for position in range(len(data))
        for width, height in data.columns(position)["image_sizes"]
    )
    rule = input_size_rule(checked.processor, own, sizes, settings.model)
    return dataclasses.replace(checked, dataset=as_seen(checked.dataset, rule))


def _require_room(settings: GrpoSettings, checked: CheckedRun) -> None:
    """vLLM would refuse a prompt in the middle of the run, or cut its completion."""
    limit, completion = (
        settings.argument(name) for name in ("vllm_max_model_length", "max_completion_length")
    )
    if not settings.argument("use_vllm") or limit is None:
        return
    data = checked.data
    lengths = list(RowLengths(checked.processor).all(data, range(len(data))))
    longest = max(lengths)
    if longest + completion > limit:
        raise UserError(
            f"trainer.vllm_max_model_length={limit} is less than the longest prompt, {longest} "
            f"tokens with its images (row {data.columns(lengths.index(longest))['id']!r}), and "
            f"trainer.max_completion_length={completion} together: {longest + completion}. Raise "
            "it, or lower max_pixels or the completions"
        )


def _make_trainer(settings: GrpoSettings, arguments: Any, checked: CheckedRun) -> Any:
    from univg_train.grpo.trainer import DifficultyGRPOTrainer

    try:
        trainer = DifficultyGRPOTrainer(
            settings.checkpoint,
            list(settings.reward_functions),
            arguments,
            checked.dataset,
            processing_class=checked.processor,
            peft_config=adapter_config(settings, empty_model(checked.config)),
            difficulty=settings.weight,
            rollouts=_rollout_log(settings),
        )
    except (ValueError, ImportError, NotImplementedError) as error:
        raise UserError(f"the trainer refuses: {' '.join(str(error).split())}") from error
    if settings.freeze_vision:
        freeze_vision(trainer.model)
    return trainer


def _rollout_log(settings: GrpoSettings) -> RolloutLog | None:
    prompts = settings.log_rollouts
    return RolloutLog(settings.output_dir / ROLLOUTS_FILE, prompts) if prompts else None


def _warn_of_unlike_end(settings: GrpoSettings, processes: int) -> None:
    """Rollouts are not part of a checkpoint: one between two steps that share them loses some."""
    passes = passes_of_batch(settings, processes)
    accumulation = settings.argument("gradient_accumulation_steps")
    every = passes // accumulation
    aligned = passes % accumulation == 0 and settings.argument("save_steps") % every == 0
    if accumulation % passes and not aligned:
        _logger.warning(
            "a batch of rollouts serves %g steps, and checkpoints are written between them "
            "(save_steps=%g): a run that goes on from one ends with other weights",
            passes / accumulation,
            settings.argument("save_steps"),
        )
