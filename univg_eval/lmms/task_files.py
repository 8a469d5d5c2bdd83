"""Where the task folder (``--include_path``) lies: in a checkout or in an installed wheel."""

from __future__ import annotations

from pathlib import Path

from univg_eval.files import data_folder

__all__ = ["task_folder"]


def task_folder() -> Path:
    """The folder of the task files.

    Raises:
        UserError: it is not there.
    """
    return data_folder("task", "univg.yaml", checkout=("tasks",))
