"""One run of ``univg-train grpo``: check everything, load, train, go on after a stop.

A run is a folder: ``grpo.json`` (its settings), TRL's checkpoints, and at the end ``model``, which
evaluation loads: its ``config.json`` declares dialect and prompt.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_train import pretrained
from univg_train.grpo_settings import GrpoSettings, check_batch, trainer_arguments
from univg_train.pretrained import empty_model, lora_config, vision_tower
from univg_train.rewards import check_rows
from univg_train.run_folder import (
    FREE_ARGUMENTS,
    differences,
    find_checkpoint,
    read_record,
    require_same_rows,
    rows_record,
    write_record,
)

if TYPE_CHECKING:
    from univg_train.data import TrainingData

__all__ = ["MODEL_FOLDER", "open_data", "processes_of_environment", "sharding_of_environment",
           "train_grpo"]  # fmt: skip

SETTINGS_FILE = "grpo.json"
MODEL_FOLDER = "model"

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
    _require_whole_weights(settings)
    config = load_config(settings)
    arguments = trainer_arguments(settings)
    data = open_data(settings)
    rows = rows_record(data, len(data))
    require_same_rows(settings.output_dir, before, rows)
    finished = settings.output_dir / MODEL_FOLDER
    if finished.is_dir():
        state = _state(finished / "trainer_state.json")
        _logger.info("%s is finished", settings.output_dir)
        return _summary(settings, len(data), int(state["global_step"]))
    processor = load_processor(settings)
    if int(os.environ.get("RANK", "0")) == 0:
        write_record(settings.output_dir / SETTINGS_FILE, run | rows)

    from univg_train.grpo import DifficultyGRPOTrainer

    trainer = DifficultyGRPOTrainer(
        settings.model,
        list(settings.rewards),
        arguments,
        data.as_dataset(),
        processing_class=processor,
        peft_config=_lora(settings, config),
        difficulty=settings.difficulty,
    )
    if settings.freeze_vision and settings.lora is None:
        vision_tower(trainer.model)[0].requires_grad_(False)
    # Every checkpoint says how it is to be asked and read.
    model: Any = trainer.model
    model.config.univg = {
        "dialect": settings.how.dialect.name,
        "prompt": settings.how.style,
    }
    checkpoint = find_checkpoint(settings.output_dir)
    if checkpoint is not None:
        _logger.info("going on from %s", checkpoint)
        if settings.lora is None and sharding_of_environment() == "none":
            from univg_train.restore import RestoreWeights

            trainer.add_callback(RestoreWeights(checkpoint))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    _save(trainer, processor, settings)
    return _summary(settings, len(data), trainer.state.global_step)


def open_data(settings: GrpoSettings) -> TrainingData:
    """The rows, all of them checked: boxes, images, leaks, and whether rewards can grade them.

    Raises:
        UserError: the first bad row, leaks, or rows without a reward.
    """
    from univg_train.data import DEFAULT_LEAK_KINDS, index_benchmarks, open_training_data

    given = dict(settings.data)
    benchmarks = settings.benchmarks()
    leaks = None
    if benchmarks:
        kinds = given.get("leak_kinds")
        kinds = DEFAULT_LEAK_KINDS if kinds is None else kinds
        leaks = index_benchmarks(benchmarks, kinds=kinds, root=given.get("root"))
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
    options = dict(settings.argument("model_init_kwargs") or {})
    return pretrained.load_config(settings.model, revision=options.get("revision"))


def load_processor(settings: GrpoSettings) -> Any:
    """The processor with the pixel limits of the run.

    Raises:
        UserError: there is none, or it knows no such limits.
    """
    options = dict(settings.argument("model_init_kwargs") or {})
    return pretrained.load_processor(
        settings.model,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        revision=options.get("revision"),
        truncation_side="left",
        padding_side="left",
    )


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


def _lora(settings: GrpoSettings, config: Any) -> Any:
    if settings.lora is None:
        return None
    tower = vision_tower(empty_model(config))[1] if settings.freeze_vision else None
    return lora_config(settings.lora, tower)


def _require_whole_weights(settings: GrpoSettings) -> None:
    sharding = sharding_of_environment()
    if settings.lora is not None and sharding != "none":
        raise UserError(
            f"lora with {sharding}: at the end the adapter is merged into the weights, which no "
            "process holds whole; launch without sharding (multi_gpu), or train all weights"
        )


def _own_record(settings: GrpoSettings, run: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the run in the folder, None for a new one; refuses a folder of another run."""
    folder = settings.output_dir
    before = read_record(folder / SETTINGS_FILE)
    if before is None:
        found = find_checkpoint(folder)
        if found is not None or (folder / MODEL_FOLDER).exists():
            raise UserError(
                f"{folder} holds {found or MODEL_FOLDER}, which no run of this command has "
                "written; name another trainer.output_dir"
            )
        return None
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


def _save(trainer: Any, processor: Any, settings: GrpoSettings) -> None:
    """Write the model folder under another name first: it is there only when it is whole."""
    final = settings.output_dir / MODEL_FOLDER
    new = final.with_name(f".{MODEL_FOLDER}")
    main = trainer.accelerator.is_main_process
    if settings.lora is None:
        trainer.save_model(str(new))
    elif main:
        merged = trainer.accelerator.unwrap_model(trainer.model).merge_and_unload()
        merged.save_pretrained(new)
        processor.save_pretrained(new)
    trainer.accelerator.wait_for_everyone()
    if main:
        trainer.state.save_to_json(str(new / "trainer_state.json"))
        new.rename(final)
    trainer.accelerator.wait_for_everyone()


def _summary(settings: GrpoSettings, rows: int, steps: int) -> dict[str, Any]:
    return {"model": str(settings.output_dir / MODEL_FOLDER), "rows": rows, "steps": steps}


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state
