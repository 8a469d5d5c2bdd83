"""The folder of a trained model: whole weights, processor, how it is to be prompted and read.

One way for the last model of supervised fine-tuning and of GRPO and for the best one on the way, so
that the next stage and the evaluation load any of them. A folder is there only when it is whole:
processes write into it together, under a name that all of them know, and it is renamed at the end.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.files import read_json, write_sums, write_text_atomically
from univg_train.runs.folder import ADAPTER_FOLDER, MODEL_FOLDER, STATE_FILE
from univg_train.runs.sharding import by_this_process_alone

__all__ = [
    "finish_replacement",
    "keep_model",
    "model_config",
    "read_note",
    "save_result",
]

NOTE = "evaluation.json"
_QUANTIZED = "quantization_config"


def model_config(model: Any) -> Any:
    """The configuration of a model, also of one with adapters."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).config


def save_result(trainer: Any, processor: Any, output_dir: Path) -> Path:
    """Save the last model of a run; all processes have to come here together.

    Args:
        output_dir: the folder of the run. ``model`` in it is a whole model; with adapters,
            ``adapter`` holds them alone.
        finish: writes what else belongs into the folder; called last, by the main process.

    Returns:
        The folder ``model``.
    """
    folder, adapter = output_dir / MODEL_FOLDER, output_dir / ADAPTER_FOLDER

    def finish(new: Path) -> None:
        trainer.state.save_to_json(str(new / STATE_FILE))

    _save_model(trainer, processor, folder, adapter=adapter, finish=finish)
    if trainer.args.push_to_hub:
        trainer.push_to_hub(commit_message="Model save", revision=trainer.args.hub_revision)
    return folder


def keep_model(trainer: Any, processor: Any, folder: Path, note: Mapping[str, Any]) -> None:
    """Save the model of a trainer in the place of the one that was kept.

    The folder is there whole, old or new; all processes have to come here together. `note` (step,
    metric, value and more) is written beside the model, as ``evaluation.json``.
    """
    text = json.dumps(dict(note), ensure_ascii=False, indent=2) + "\n"

    def finish(new: Path) -> None:
        write_text_atomically(new / NOTE, [text])  # last: it says that all is there

    _save_model(trainer, processor, folder, finish=finish)


def read_note(folder: Path) -> dict[str, Any] | None:
    """What was noted with the model that is kept there; None if there is none.

    Raises:
        UserError: the folder is there and was not written by `keep_model`.
    """
    if not folder.exists():
        return None
    try:
        note: dict[str, Any] = read_json(folder / NOTE)
        _ = note["step"], note["metric"], note["value"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is not the best model of this run: {NOTE} cannot be read in it; move the "
            "folder away, or name another trainer.output_dir"
        ) from error
    return note


def finish_replacement(folder: Path) -> None:
    """Finish what a process that died between the renamings of `keep_model` has begun."""
    new, old = _unfinished(folder), _put_aside(folder)
    if not folder.exists() and (new / NOTE).is_file():
        new.rename(folder)
    if folder.exists() and old.exists():
        shutil.rmtree(old)


def _save_model(
    trainer: Any,
    processor: Any,
    folder: Path,
    *,
    adapter: Path | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Save the model of a trainer, in the place of what the folder held before.

    Adapters are merged on the CPU into the weights that the run began with, in the type that they
    were loaded in, and kept in the folder `adapter`, if any; the model in training is not touched.
    """
    accelerator = trainer.accelerator
    new = _unfinished(folder)
    main = accelerator.is_main_process
    if main and new.exists():
        shutil.rmtree(new)
    accelerator.wait_for_everyone()
    merge = hasattr(accelerator.unwrap_model(trainer.model), "merge_and_unload")
    part = new / ADAPTER_FOLDER
    trainer.save_model(str(part if merge else new), _internal_call=True)
    accelerator.wait_for_everyone()
    if main:
        if merge:
            _save_merged(accelerator.unwrap_model(trainer.model), part, new)
            if adapter is None:
                shutil.rmtree(part)
            else:
                write_sums(part)
                _replace(adapter, part)
        # What the last batch has left in it: it need not be the last of an uninterrupted run.
        fast = getattr(processor.tokenizer, "backend_tokenizer", None)
        if fast is not None:
            fast.no_padding()
        processor.save_pretrained(new)
        write_sums(new)
        if finish is not None:
            finish(new)
        _replace(folder, new)
    accelerator.wait_for_everyone()


def _unfinished(folder: Path) -> Path:
    """Where a folder is written before it is put in its place."""
    return folder.with_name(f".{folder.name}-new")


def _put_aside(folder: Path) -> Path:
    """Where the old folder is while the new one is put in its place."""
    return folder.with_name(f".{folder.name}-old")


def _replace(folder: Path, new: Path) -> None:
    old = _put_aside(folder)
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
    with by_this_process_alone():
        first = type(base).from_pretrained(
            base.config.name_or_path,
            revision=model.active_peft_config.revision or "main",
            dtype=base.config.dtype,
        )
        adapted: Any = PeftModel.from_pretrained(first, str(adapter), torch_device="cpu")
        merged = adapted.merge_and_unload()
        # With what is declared in them, and the tokens that the trainer has put right.
        config = copy.deepcopy(base.config)
        if hasattr(config, _QUANTIZED) and not hasattr(first.config, _QUANTIZED):
            delattr(config, _QUANTIZED)  # the weights of the run were, those that are saved are not
        merged.config, merged.generation_config = config, base.generation_config
        merged.save_pretrained(folder)
