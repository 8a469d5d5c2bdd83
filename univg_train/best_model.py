"""The best model of a run, kept as a folder that loads and says how it is to be asked and read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.samples import write_text_atomically
from univg_train.generation import weights_are_spread

__all__ = ["finish_replacement", "keep_model", "model_config", "read_note"]

NOTE = "evaluation.json"


def model_config(model: Any) -> Any:
    """The configuration of a model, also of one with adapters."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).config


def finish_replacement(folder: Path) -> None:
    """Finish what a process that died between the renamings of `keep_model` has begun."""
    new, old = _new(folder), _old(folder)
    if not folder.exists() and (new / NOTE).is_file():
        new.rename(folder)
    if folder.exists() and old.exists():
        shutil.rmtree(old)


def read_note(folder: Path) -> dict[str, Any] | None:
    """What was noted with the model that is kept there; None if there is none.

    Raises:
        UserError: the folder is there and was not written by `keep_model`.
    """
    if not folder.exists():
        return None
    try:
        note: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        _ = note["step"], note["metric"], note["value"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is not the best model of this run: {NOTE} cannot be read in it; move the "
            "folder away, or name another trainer.output_dir"
        ) from error
    return note


def keep_model(trainer: Any, processor: Any, folder: Path, note: Mapping[str, Any]) -> None:
    """Save the model of a trainer in the place of the one that was kept.

    The folder is there whole, old or new; all processes have to come here together. Adapters are
    merged into a copy of the first weights on the CPU, the model in training is not touched; where
    the weights are spread over processes, the adapter alone is saved.

    Args:
        trainer: of transformers or TRL.
        processor: of the model.
        folder: for the model.
        note: written beside it, as ``evaluation.json``: step, metric, value and more.
    """
    accelerator = trainer.accelerator
    new = _new(folder)
    main = accelerator.is_main_process
    if main and new.exists():
        shutil.rmtree(new)
    accelerator.wait_for_everyone()
    model = accelerator.unwrap_model(trainer.model)
    merge = hasattr(model, "merge_and_unload") and not weights_are_spread(accelerator)
    adapter = new / "adapter"
    trainer.save_model(str(adapter if merge else new), _internal_call=True)  # nothing is uploaded
    accelerator.wait_for_everyone()
    if main:
        if merge:
            _save_merged(model, adapter, new)
            shutil.rmtree(adapter)
        processor.save_pretrained(new)
        text = json.dumps(dict(note), ensure_ascii=False, indent=2) + "\n"
        write_text_atomically(new / NOTE, [text])  # last: it says that all is there
        _replace(folder, new)
    accelerator.wait_for_everyone()


def _new(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-new")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-old")


def _replace(folder: Path, new: Path) -> None:
    old = _old(folder)
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
    merged: Any = PeftModel.from_pretrained(first, str(adapter), torch_device="cpu")
    merged.merge_and_unload().save_pretrained(folder)
    base.config.save_pretrained(folder)  # with what is declared in it
