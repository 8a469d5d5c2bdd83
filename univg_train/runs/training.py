"""One training run, by whatever method: checked, trained, continued after a stop, finished.

Everything that can be wrong is looked for before the model is loaded. A run is a folder: its record
(``sft.json``, ``grpo.json``), TRL's checkpoints, and at the end ``model`` and ``summary.json``. The
same settings again go on with it. Only TRL's public interface is used.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.files import verify_sums
from univg_eval.models.pretrained import (
    commit_of,
    empty_model,
    load_config,
    load_processor,
    pixel_limit,
)
from univg_eval.models.resizing import require_same_resize
from univg_train.data import TrainingData
from univg_train.evaluation.plan import EvaluationPlan, evaluated, plan_evaluation
from univg_train.runs.folder import (
    MODEL_FOLDER,
    differences,
    find_checkpoint,
    read_record,
    require_same_rows,
    sole_writer,
    write_record,
)
from univg_train.runs.pretrained import lora_config, vision_tower
from univg_train.runs.rows import open_rows
from univg_train.runs.settings import RunSettings
from univg_train.runs.yaml_settings import validate

if TYPE_CHECKING:
    import datasets

__all__ = [
    "CheckedRun",
    "ShownSteps",
    "TrainingRun",
    "adapter_config",
    "check_run",
    "open_run",
    "processes_of_environment",
    "require_machine",
    "trainer_arguments",
]

SUMMARY_FILE = "summary.json"

_FREE = frozenset(
    {
        "logging_steps", "logging_first_step", "report_to", "run_name", "disable_tqdm",
        "save_steps", "save_total_limit", "dataloader_num_workers", "dataloader_prefetch_factor",
        "torch_empty_cache_steps",
    }
)  # fmt: skip
"""Arguments of a trainer that do not change what is computed: a run may go on with others."""

_NEW_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}

_logger = logging.getLogger(__name__)


def processes_of_environment() -> int:
    """Processes that were started together, by a launcher or one by itself."""
    return int(os.environ.get("WORLD_SIZE", "1"))


# --- the trainer's arguments ---------------------------------------------------------------------


def trainer_arguments(settings: RunSettings, **changes: Any) -> Any:
    """TRL's arguments for these settings and `changes`, on the machine that will train.

    Raises:
        UserError: TRL refuses a value, or this machine cannot do it.
    """
    values = {**settings.trainer, "remove_unused_columns": False, **changes}
    values["output_dir"] = str(settings.output_dir)
    kind, defaults = settings.trainer_class(), settings.argument_defaults()
    try:
        arguments = kind(**_with_new_names(values, defaults))
    except (TypeError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        hint = " (on a CPU: trainer.use_cpu=true trainer.bf16=false)" if "use_cpu" in reason else ""
        raise UserError(f"the trainer refuses its settings: {reason}{hint}") from error
    if arguments.n_gpu > 1 and "device_map" not in settings.model_options:
        raise UserError(
            f"one process sees {arguments.n_gpu} GPUs; start one for each: accelerate launch "
            "--num_processes N, or show it a single one by CUDA_VISIBLE_DEVICES"
        )
    return arguments


def _with_new_names(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without names that transformers 5.23 has replaced: it warns even of TRL's own default."""
    renamed = dict(arguments)
    for old, new in _NEW_NAMES.items():
        value = renamed.get(old, defaults.get(old))
        if new in defaults and renamed.get(new) is None and value is not None:
            renamed.pop(old, None)
            renamed[new] = value
    return renamed


def require_machine(arguments: Any) -> None:
    """Refuse what this machine cannot do, which TRL would say only after loading the model.

    Raises:
        UserError: a package is missing.
    """
    from transformers.integrations.integration_utils import get_available_reporting_integrations
    from transformers.utils.import_utils import is_flash_attn_2_available
    from trl.import_utils import is_vllm_available

    if getattr(arguments, "use_vllm", False) and not is_vllm_available():
        raise UserError(
            "trainer.use_vllm needs the package 'vllm'; install it: pip install 'trl[vllm]'"
        )
    attention = (arguments.model_init_kwargs or {}).get("attn_implementation")
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
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


# --- what is checked first -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """What a run is made of, but for the weights.

    Attributes:
        config: the model's.
        processor: the model's, with the pixel limits of the run.
        data: the rows.
        dataset: those that are trained on, as TRL takes them.
        evaluation: what the model is evaluated on while it trains.
    """

    config: Any
    processor: Any
    data: TrainingData
    dataset: datasets.Dataset
    evaluation: EvaluationPlan | None = None


def check_run(settings: RunSettings, **processor_options: Any) -> CheckedRun:
    """Look for everything that can be wrong; nothing is written, and no weights are loaded.

    Raises:
        UserError: what is wrong with model, adapter, processor, evaluation or data.
    """
    config = load_config(settings.checkpoint, **settings.source)
    verify_sums(Path(settings.checkpoint))
    _require_fitting_adapter(settings, config)
    processor = load_processor(
        settings.checkpoint,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
        **processor_options,
        **settings.source,
    )
    # Boxes in pixels of what the model sees: the processor that will resize decides.
    limits = {name: pixel_limit(processor, name) for name in ("min_pixels", "max_pixels")}
    require_same_resize(processor, get_dialect(settings.dialect, **limits), settings.model)
    evaluation = plan_evaluation(
        settings.evaluation,
        model=settings.model,
        processor=processor,
        dialect=settings.dialect,
        style=settings.style,
        output_dir=settings.output_dir,
    )
    data = open_rows(settings, min_pixels=limits["min_pixels"], max_pixels=limits["max_pixels"])
    return CheckedRun(config, processor, data, data.as_dataset(), evaluation)


def adapter_config(settings: RunSettings, model: Any) -> Any:
    """PEFT's configuration, which keeps a frozen vision tower of `model` out; None without one.

    It says which commit of the model it is for: the adapter is merged into no other weights.

    Raises:
        UserError: see `univg_train.runs.pretrained.lora_config`.
    """
    tower = vision_tower(model)[1] if settings.freeze_vision else None
    if settings.lora is None:
        return None
    config = lora_config(settings.lora, tower)
    revision = settings.source["revision"]
    config.revision = commit_of(settings.checkpoint, revision) or revision
    return config


def _require_fitting_adapter(settings: RunSettings, config: Any) -> None:
    """Put the adapter into the model without weights."""
    if settings.lora is None and not settings.freeze_vision:
        return
    import torch

    model = empty_model(config, trust_remote_code=settings.source["trust_remote_code"])
    lora = adapter_config(settings, model)
    if lora is None:
        return
    from peft import get_peft_model

    try:
        with torch.device("meta"):
            get_peft_model(model, lora)
    except (ValueError, TypeError) as error:
        raise UserError(f"lora: {' '.join(str(error).split())}") from error


ShownSteps = Callable[[int, int, str], None]
"""Called with the steps that are taken, all steps, and figures in words."""


# --- a run and its folder ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A run in its folder, made by `open_run`.

    Attributes:
        settings: of the run.
        record: name of the file that holds them.
        before: its content from an earlier start; None for a new run.
        held: entered by the caller around `begin` and `train`; holds the folder meanwhile.
    """

    settings: RunSettings
    record: str
    before: dict[str, Any] | None
    held: ExitStack = field(default_factory=ExitStack)

    def begin(self, arguments: Any, checked: CheckedRun) -> dict[str, Any] | None:
        """Write the record; all processes come here, and none writes before all have looked.

        Returns:
            The summary of the run if it is finished, else None.

        Raises:
            UserError: the folder holds a run on other rows, cannot be written, or another run
                writes to it.
        """
        folder = self.settings.output_dir
        rows = {"rows": len(checked.dataset), "data_fingerprint": checked.data.fingerprint}
        require_same_rows(folder, self.before, rows)
        finished = read_record(folder / SUMMARY_FILE) if self.before is not None else None
        arguments.distributed_state.wait_for_everyone()
        if finished is not None:
            _logger.info("%s is finished already", folder)
        elif arguments.process_index == 0:
            self.held.enter_context(sole_writer(folder))
            write_record(folder / self.record, {**_record(self.settings), **rows})
        return finished

    def train(
        self, trainer: Any, checked: CheckedRun, shown: ShownSteps | None = None
    ) -> dict[str, Any]:
        """Train to the end, from the last checkpoint if there is one, and save the model.

        `shown` is called with steps taken, all steps, and figures in words, instead of the
        trainer's own output.

        Returns:
            The summary that is written too: steps, rows (those trained on, and the report of the
            file), trainable and all parameters, loss of the last logged step (None if none was),
            model folder, and ``best`` if the run was evaluated.
        """
        from univg_train.evaluation.callback import attach_evaluation
        from univg_train.runs.resume import Done, SumCheckpoints, go_on_from
        from univg_train.runs.saving import model_config, save_result
        from univg_train.runs.sharding import (
            averaged_gradients,
            keep_used_conversions,
            save_as_loaded,
        )

        settings, processor = self.settings, checked.processor
        # Every checkpoint says how it is to be prompted and read.
        keep_used_conversions(trainer.model)
        save_as_loaded(trainer)
        model_config(trainer.model).univg = {
            "dialect": settings.dialect,
            "prompt": settings.prompt_style,
        }
        attach_evaluation(trainer, processor, checked.evaluation)
        if shown is not None:
            _show_steps(trainer, shown)
        trainable, total = count_parameters(trainer.model)
        _logger.info(
            "%d rows; %d of %d parameters are trained", len(checked.dataset), trainable, total
        )
        trainer.add_callback(SumCheckpoints())
        checkpoint = find_checkpoint(settings.output_dir)
        if checkpoint is not None:
            _logger.info("going on from %s", checkpoint)
            go_on_from(trainer, checkpoint)
        try:
            with averaged_gradients(trainer.accelerator):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except Done:
            _logger.info("all steps were taken before; only the model folder was missing")
        result = save_result(trainer, processor, settings.output_dir)
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        summary = {
            "steps": trainer.state.global_step,
            "rows": len(checked.dataset),
            "data": checked.data.report.to_dict(),
            "trainable_parameters": trainable,
            "parameters": total,
            "loss": losses[-1] if losses else None,
            "model": str(result),
        }
        if checked.evaluation is not None and (best := checked.evaluation.best()):
            summary["best"] = best
        if trainer.is_world_process_zero():
            write_record(settings.output_dir / SUMMARY_FILE, summary)
        return summary


def _show_steps(trainer: Any, shown: ShownSteps) -> None:
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class Shown(TrainerCallback):
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            figures = [f"{key} {logs[key]:.3f}" for key in ("loss", "reward") if key in logs]
            if figures:
                shown(state.global_step, state.max_steps, ", ".join(figures))

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Shown())


def open_run(
    settings: RunSettings, *, free: Collection[str] = (), resume: bool = True
) -> TrainingRun:
    """The run of these settings, new or one that was stopped.

    Args:
        free: further arguments of the trainer that may change when a run goes on.
        resume: False: refuse a folder that holds a run.

    Raises:
        UserError: the folder holds another run: with other settings, on another number of
            processes, or not of this command. One in which nothing was kept yet takes any.
    """
    folder, record = settings.output_dir, f"{settings.purpose}.json"
    before = read_record(folder / record)
    found = find_checkpoint(folder) or evaluated(folder)
    for path in (folder / MODEL_FOLDER, folder / SUMMARY_FILE):
        if found is None and path.exists():
            found = path
    if not resume and (before or found):
        raise UserError(f"{folder} holds a run already; name another trainer.output_dir")
    if found is None:
        return TrainingRun(settings, record, None)
    if before is None:
        raise UserError(
            f"{folder} holds {found.name} without {record}: it is of another command; name another "
            "trainer.output_dir"
        )
    now = _record(settings)
    then = {name: before.get(name) for name in now}
    try:  # whether a default was written out or not
        same = validate(type(settings), then["settings"] or {}, without_trl=True)
        then["settings"] = same.model_dump(mode="json")
    except UserError:
        pass  # of another version: compared as it was written
    kept = {f"settings.trainer.{name}" for name in {*_FREE, *free}} | {"settings.log_rollouts"}
    if changed := differences(then, now, kept):
        listed = "; ".join(line.removeprefix("settings.") for line in changed)
        raise UserError(
            f"{folder} holds a run with other settings: {listed}. Go on with its own, or name "
            "another trainer.output_dir"
        )
    return TrainingRun(settings, record, before)


def _record(settings: RunSettings) -> dict[str, Any]:
    return {
        "settings": settings.model_dump(mode="json"),
        "processes": processes_of_environment(),
    }


def count_parameters(model: Any) -> tuple[int, int]:
    """Trained and all parameters; with ZeRO-3 too, where a process holds parts of them."""
    counted = [
        (getattr(p, "ds_numel", None) or p.numel(), p.requires_grad) for p in model.parameters()
    ]
    return sum(n for n, trained in counted if trained), sum(n for n, _ in counted)
