"""The best model of a run, kept as a folder that loads and says how it is to be asked and read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_train.runs.saving import put_aside, save_model, unfinished

__all__ = ["finish_replacement", "keep_model", "model_config", "read_note"]

NOTE = "evaluation.json"


def model_config(model: Any) -> Any:
    """The configuration of a model, also of one with adapters."""
    return (model.get_base_model() if hasattr(model, "get_base_model") else model).config


def finish_replacement(folder: Path) -> None:
    """Finish what a process that died between the renamings of `keep_model` has begun."""
    new, old = unfinished(folder), put_aside(folder)
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
    """Save the model of a trainer in the place of the one that was kept; see `save_model`.

    The folder is there whole, old or new; all processes have to come here together.

    Args:
        trainer: of transformers or TRL.
        processor: of the model.
        folder: for the model.
        note: written beside it, as ``evaluation.json``: step, metric, value and more.
    """
    text = json.dumps(dict(note), ensure_ascii=False, indent=2) + "\n"

    def finish(new: Path) -> None:
        write_text_atomically(new / NOTE, [text])  # last: it says that all is there

    save_model(trainer, processor, folder, finish=finish)
