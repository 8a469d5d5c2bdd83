"""The folder of a trained model: whole weights, processor, how it is to be asked and read.

One way for the last model of supervised fine-tuning and of GRPO and for the best one on the way, so
that the next stage and the evaluation load any of them. A folder is there only when it is whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from univg_train.evaluation.generation import weights_are_spread
from univg_train.runs.folder import ADAPTER_FOLDER, MODEL_FOLDER

__all__ = ["put_aside", "save_model", "save_result", "unfinished"]


def save_result(
    trainer: Any, processor: Any, output_dir: Path, finish: Callable[[Path], None] | None = None
) -> Path:
    """Save the last model of a run; all processes have to come here together.

    Args:
        trainer: of transformers or TRL.
        processor: of the model.
        output_dir: the folder of the run. ``model`` in it is a whole model; with adapters,
            ``adapter`` holds them alone.
        finish: see `save_model`.

    Returns:
        ``model``; ``adapter`` where the weights that it belongs to are spread over processes, and
        so there is no ``model``.
    """
    adapter = output_dir / ADAPTER_FOLDER
    if not _has_adapters(trainer):
        folder, adapter_folder = output_dir / MODEL_FOLDER, None
    elif weights_are_spread(trainer.accelerator):
        folder, adapter_folder = adapter, None
    else:
        folder, adapter_folder = output_dir / MODEL_FOLDER, adapter
    save_model(trainer, processor, folder, adapter=adapter_folder, finish=finish)
    if trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="Model save", revision=trainer.args.hub_revision)
    return folder


def save_model(
    trainer: Any,
    processor: Any,
    folder: Path,
    *,
    adapter: Path | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Save the model of a trainer, in the place of what the folder held before.

    All processes have to come here together; nothing is uploaded. Adapters are merged on the CPU
    into the weights that the run began with, in the type that the model is trained in; the model in
    training is not touched. Where the weights are spread over processes, the adapters alone are
    saved.

    Args:
        trainer: of transformers or TRL.
        processor: of the model.
        folder: for the model.
        adapter: folder for the adapters that were merged; None: they are not kept.
        finish: writes what else belongs into the folder; called last, by the main process.
    """
    accelerator = trainer.accelerator
    new = unfinished(folder)
    main = accelerator.is_main_process
    if main and new.exists():
        shutil.rmtree(new)
    accelerator.wait_for_everyone()
    merge = _has_adapters(trainer) and not weights_are_spread(accelerator)
    part = new / ADAPTER_FOLDER
    trainer.save_model(str(part if merge else new), _internal_call=True)
    accelerator.wait_for_everyone()
    if main:
        if merge:
            _save_merged(accelerator.unwrap_model(trainer.model), part, new)
            if adapter is None:
                shutil.rmtree(part)
            else:
                _replace(adapter, part)
        processor.save_pretrained(new)
        if finish is not None:
            finish(new)
        _replace(folder, new)
    accelerator.wait_for_everyone()


def unfinished(folder: Path) -> Path:
    """Where a folder is written before it is put in its place."""
    return folder.with_name(f".{folder.name}-new")


def put_aside(folder: Path) -> Path:
    """Where the old folder is while the new one is put in its place."""
    return folder.with_name(f".{folder.name}-old")


def _has_adapters(trainer: Any) -> bool:
    return hasattr(trainer.accelerator.unwrap_model(trainer.model), "merge_and_unload")


def _replace(folder: Path, new: Path) -> None:
    old = put_aside(folder)
    if old.exists():
        shutil.rmtree(old)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    if old.exists():
        shutil.rmtree(old)


def _save_merged(model: Any, adapter: Path, folder: Path) -> None:
    from peft import PeftModel

    base = model.get_base_model()
    first = type(base).from_pretrained(
        base.config._name_or_path,
        revision=getattr(base.config, "_commit_hash", None) or "main",
        dtype=base.dtype,
    )
    adapted: Any = PeftModel.from_pretrained(first, str(adapter), torch_device="cpu")
    merged = adapted.merge_and_unload()
    # With what is declared in them, and the tokens that the trainer has put right.
    merged.config, merged.generation_config = base.config, base.generation_config
    merged.save_pretrained(folder)
