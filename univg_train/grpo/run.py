"""One run of ``univg-train grpo``: check everything, load, train, go on after a stop.

A run is a folder: ``grpo.json`` (its settings), TRL's checkpoints, and at the end ``model``, which
evaluation loads: its ``config.json`` declares dialect and prompt.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_train.evaluation.plan import EvaluationPlan, evaluated, plan_evaluation
from univg_train.evaluation.settings import leak_index
from univg_train.grpo.batches import check_batch, count_steps, passes_of_batch
from univg_train.grpo.settings import GrpoSettings, trainer_arguments
from univg_train.rewards import check_rows
from univg_train.runs import pretrained
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
from univg_train.runs.pretrained import empty_model, lora_config, vision_tower
from univg_train.runs.resizing import as_seen, input_size_rule, require_same_resize

if TYPE_CHECKING:
    import datasets
    from trl.trainer.grpo_config import GRPOConfig

    from univg_train.data import TrainingData

__all__ = [
    "CheckedRun",
    "check_run",
    "open_data",
    "processes_of_environment",
    "sharding_of_environment",
    "train_grpo",
]

SETTINGS_FILE = "grpo.json"
STATE_FILE = "trainer_state.json"

_FREE = FREE_ARGUMENTS | {
    "log_completions", "num_completions_to_print", "vllm_server_base_url", "vllm_server_host",
    "vllm_server_port", "vllm_server_timeout", "vllm_gpu_memory_utilization",
}  # fmt: skip
"""Arguments that may change when a run goes on: they do not change what is computed."""

_logger = logging.getLogger(__name__)


def train_grpo(settings: GrpoSettings) -> dict[str, Any]:
    """Train, or go on with what the folder holds; a finished run is told again.

    Raises:
        UserError: what is wrong with settings, folder, model, data or machine: before any weights
            are loaded.
    """
    processes = processes_of_environment()
    check_batch(settings, processes)
    run = {"settings": dict(settings.raw), "processes": processes}
    before = _own_record(settings, run)
    arguments = trainer_arguments(settings)
    _require_machine(arguments)
    checked = check_run(settings, arguments, processes, sharding_of_environment())
    data, processor = checked.data, checked.processor
    rows = rows_record(data, len(data))
    require_same_rows(settings.output_dir, before, rows)
    finished = settings.output_dir / MODEL_FOLDER
    if finished.is_dir():
        state = _state(finished / STATE_FILE)
        _logger.info("%s is finished", settings.output_dir)
        return _summary(settings, checked, int(state["global_step"]))
    _warn_of_unlike_end(settings, processes)
    if int(os.environ.get("RANK", "0")) == 0:
        try:
            write_record(settings.output_dir / SETTINGS_FILE, run | rows)
        except OSError as error:
            raise UserError(
                f"cannot write to {settings.output_dir}: {error.strerror or error}; name another "
                "trainer.output_dir"
            ) from error

    from univg_train.evaluation.callback import attach_evaluation
    from univg_train.grpo.trainer import DifficultyGRPOTrainer
    from univg_train.runs.resume import Done, go_on_from
    from univg_train.runs.saving import save_result

    try:
        trainer = DifficultyGRPOTrainer(
            settings.model,
            list(settings.rewards),
            arguments,
            checked.dataset,
            processing_class=processor,
            peft_config=_lora(settings, empty_model(checked.config)),
            difficulty=settings.difficulty,
        )
    except (ValueError, ImportError, NotImplementedError) as error:
        raise UserError(f"the trainer refuses: {' '.join(str(error).split())}") from error
    if settings.freeze_vision and settings.lora is None:
        vision_tower(trainer.model)[0].requires_grad_(False)
    # Every checkpoint says how it is to be asked and read.
    model: Any = trainer.model
    model.config.univg = {
        "dialect": settings.how.dialect.name,
        "prompt": settings.how.style,
    }
    attach_evaluation(trainer, processor, checked.evaluation)
    checkpoint = find_checkpoint(settings.output_dir)
    if checkpoint is not None:
        _logger.info("going on from %s", checkpoint)
        go_on_from(trainer, checkpoint)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Done:
        _logger.info("all steps were taken before; only the model folder was missing")
    save_result(
        trainer,
        processor,
        settings.output_dir,
        lambda folder: trainer.state.save_to_json(str(folder / STATE_FILE)),
    )
    return _summary(settings, checked, trainer.state.global_step)


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """What a run is made of, but for the weights.

    Attributes:
        config: the model's.
        processor: the model's, with the pixel limits of the run.
        data: the rows.
        dataset: the same for TRL, with images as the generation is to be shown them.
        evaluation: what is asked while the model trains.
    """

    config: Any
    processor: Any
    data: TrainingData
    dataset: datasets.Dataset
    evaluation: EvaluationPlan | None = None


def check_run(
    settings: GrpoSettings, arguments: GRPOConfig, processes: int, sharding: str
) -> CheckedRun:
    """Look for everything that can be wrong; nothing is written, and no weights are loaded.

    Args:
        settings: of the run.
        arguments: made of them.
        processes: devices of the run.
        sharding: ``none``, ``zero3`` or ``fsdp2``.

    Raises:
        UserError: what is wrong with model, adapter, processor, data or the number of steps.
    """
    from univg_train.grpo.trainer import check_arguments

    check_arguments(arguments, settings.difficulty)
    config = load_config(settings)
    _require_fitting_adapter(settings, config, sharding)
    processor = load_processor(settings)
    require_same_resize(processor, settings.how.dialect, settings.model)
    evaluation = plan_evaluation(
        settings.evaluation,
        model=settings.model,
        processor=processor,
        dialect=settings.how.dialect.name,
        style=settings.raw.get("style"),
        output_dir=settings.output_dir,
    )
    data = open_data(settings)
    count_steps(settings, len(data), processes)
    dataset = data.as_dataset()
    limited = settings.min_pixels is not None or settings.max_pixels is not None
    if settings.argument("use_vllm") and limited:
        own = pretrained.load_processor(settings.model, **_source(settings))
        sizes = (
            (width, height)
            for position in range(len(data))
            for width, height in data.columns(position)["image_sizes"]
        )
        dataset = as_seen(dataset, input_size_rule(processor, own, sizes, settings.model))
    return CheckedRun(config, processor, data, dataset, evaluation)


def open_data(settings: GrpoSettings) -> TrainingData:
    """The rows, all of them checked: boxes, images, leaks, and whether rewards can grade them.

    Raises:
        UserError: the first bad row, leaks, or rows without a reward.
    """
    from univg_train.data import DEFAULT_LEAK_KINDS, open_training_data

    given = dict(settings.data)
    kinds = given.get("leak_kinds")
    kinds = DEFAULT_LEAK_KINDS if kinds is None else kinds
    leaks = leak_index(
        settings.benchmarks(), settings.evaluation, kinds=kinds, root=given.get("root")
    )
    names = ("images", "space", "on_bad", "on_leak", "decode", "root")
    options = {name: given[name] for name in names if given.get(name) is not None}
    data = open_training_data(
        given["form"], Path(given["file"]).expanduser(), settings.how, leaks=leaks, **options
    )
    check_rows((data.columns(i) for i in range(len(data))), settings.rewards)
    return data


def load_config(settings: GrpoSettings) -> Any:
    """The model's ``config.json``, and nothing else of it.

    Raises:
        UserError: there is none, or the model takes no images.
    """
    return pretrained.load_config(settings.model, **_source(settings))


def load_processor(settings: GrpoSettings) -> Any:
    """The processor with the pixel limits of the run.

    Raises:
        UserError: there is none, or it knows no such limits.
    """
    return pretrained.load_processor(
        settings.model,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        truncation_side="left",
        padding_side="left",
        **_source(settings),
    )


def _source(settings: GrpoSettings) -> dict[str, Any]:
    """Which version of the model, and whether its own code is run."""
    options = settings.argument("model_init_kwargs") or {}
    return {
        "revision": options.get("revision"),
        "trust_remote_code": settings.argument("trust_remote_code"),
    }


def processes_of_environment() -> int:
    """Processes that were started together, by a launcher or one by itself."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def sharding_of_environment() -> str:
    """``zero3``, ``fsdp2`` or ``none``: what ``accelerate launch`` has set up.

    Raises:
        UserError: it has set up something else.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE")
        if stage != "3":
            raise UserError(f"DeepSpeed is set up with ZeRO stage {stage}; expected 3")
        return "zero3"
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        version = os.environ.get("FSDP_VERSION")
        if version != "2":
            raise UserError(f"FSDP is set up in version {version}; expected 2")
        return "fsdp2"
    return "none"


def _lora(settings: GrpoSettings, model: Any) -> Any:
    if settings.lora is None:
        return None
    return lora_config(settings.lora, vision_tower(model)[1] if settings.freeze_vision else None)


def _require_fitting_adapter(settings: GrpoSettings, config: Any, sharding: str) -> None:
    if settings.lora is None:
        return
    if sharding != "none":
        raise UserError(
            f"lora with {sharding}: at the end the adapter is merged into the weights, which no "
            "process holds whole; launch without sharding (multi_gpu), or train all weights"
        )
    import torch

    model = empty_model(config, trust_remote_code=settings.argument("trust_remote_code"))
    lora = _lora(settings, model)
    from peft import get_peft_model

    try:
        with torch.device("meta"):
            get_peft_model(model, lora)
    except (ValueError, TypeError) as error:
        raise UserError(f"lora: {' '.join(str(error).split())}") from error


def _require_machine(arguments: GRPOConfig) -> None:
    """Refuse what this machine cannot do, which TRL would tell only after loading the model."""
    from transformers.integrations.integration_utils import get_available_reporting_integrations
    from transformers.utils.import_utils import is_flash_attn_2_available
    from trl.import_utils import is_vllm_available

    if arguments.n_gpu > 1:
        raise UserError(
            f"one process sees {arguments.n_gpu} GPUs; start one for each: accelerate launch "
            "--num_processes N, or show it a single one by CUDA_VISIBLE_DEVICES"
        )
    if arguments.use_vllm and not is_vllm_available():
        raise UserError(
            "trainer.use_vllm needs the package 'vllm'; install it: pip install 'trl[vllm]'"
        )
    options = arguments.model_init_kwargs or {}
    assert isinstance(options, dict)  # settings take no text there
    if options.get("attn_implementation") == "flash_attention_2" and (
        not is_flash_attn_2_available()
    ):
        raise UserError(
            "trainer.model_init_kwargs.attn_implementation flash_attention_2 needs the package "
            "'flash-attn' and a GPU; sdpa needs neither"
        )
    known: list[str] = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    missing = [name for name in arguments.report_to or () if name not in known]
    if missing:
        raise UserError(
            f"trainer.report_to names {', '.join(missing)}, which is not installed here or not "
            f"known; installed: {', '.join(known) or 'none'}"
        )


def _warn_of_unlike_end(settings: GrpoSettings, processes: int) -> None:
    """Rollouts are not part of a checkpoint: one between two steps that share them loses some."""
    passes = passes_of_batch(settings, processes)
    accumulation = settings.argument("gradient_accumulation_steps")
    every = passes // accumulation
    aligned = passes % accumulation == 0 and settings.argument("save_steps") % every == 0
    if accumulation % passes and not aligned:
        _logger.warning(
            "a batch of rollouts serves %g steps, and checkpoints are written between them "
            "(save_steps=%g): a run that goes on from one generates anew and ends with other "
            "weights than one that was not stopped",
            passes / accumulation,
            settings.argument("save_steps"),
        )


def _own_record(settings: GrpoSettings, run: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the run in the folder, None for a new one; refuses a folder of another run."""
    folder = settings.output_dir
    before = read_record(folder / SETTINGS_FILE)
    found = find_checkpoint(folder) or evaluated(folder)
    if found is None and (folder / MODEL_FOLDER).exists():
        found = folder / MODEL_FOLDER
    if before is None:
        if found is not None:
            raise UserError(
                f"{folder} holds {found.name}, which no run of this command has "
                "written; name another trainer.output_dir"
            )
        return None
    if found is None:
        return None  # it ended before anything was kept: nothing to go on with
    free = {f"settings.trainer.{name}" for name in _FREE}
    told = {name: before.get(name) for name in run}
    changed = differences(told, json.loads(json.dumps(run)), free)
    if changed:
        listed = "; ".join(line.removeprefix("settings.") for line in changed)
        raise UserError(
            f"{folder} holds a run with other settings: {listed}. Go on with its own, "
            "or name another trainer.output_dir"
        )
    return before


def _summary(settings: GrpoSettings, checked: CheckedRun, steps: int) -> dict[str, Any]:
    model = str(settings.output_dir / MODEL_FOLDER)
    summary: dict[str, Any] = {"model": model, "rows": len(checked.data), "steps": steps}
    if checked.evaluation is not None and (best := checked.evaluation.best()):
        summary["best"] = best
    return summary


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state
