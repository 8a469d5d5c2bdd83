"""Where the task folder (``--include_path``) lies: in a checkout or in an installed wheel.

The tasks of one's own named sets (``univg_custom:<name>``) are not in it, since the data root says
which there are; a copy of it has them.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from univg_eval.benchmarks.preparing.catalog import named_sets
from univg_eval.benchmarks.readers import custom
from univg_eval.files import data_folder

__all__ = ["copy_task_folder", "task_folder", "tasks_of_run"]


def task_folder() -> Path:
    """The folder of the task files.

    Raises:
        UserError: it is not there.
    """
    return data_folder("task", "univg.yaml", checkout=("tasks",))


def copy_task_folder(folder: Path) -> None:
    """Copy the task folder, with a task for each named set of the data root.

    Args:
        folder: of the copy; must not exist.
    """
    shutil.copytree(task_folder(), folder)
    for entry in named_sets():
        (task,) = entry.tasks
        text = f"include: {custom.TASK}.yaml\ntask: {task}\ndataset_path: {entry.benchmark}\n"
        file = folder / custom.BENCHMARK / f"{entry.benchmark}.yaml"
        file.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def tasks_of_run(control: str | None = None) -> Iterator[str]:
    """The task folder, or a copy of it for as long as it is used.

    Args:
        control: put into the metadata of each task; see `univg_eval.images.controls`.
    """
    if control is None and not named_sets():
        yield str(task_folder())
        return
    with tempfile.TemporaryDirectory(prefix="univg-tasks-") as parent:
        folder = Path(parent) / "tasks"
        copy_task_folder(folder)
        for file in folder.rglob("*.yaml") if control is not None else ():
            text = file.read_text(encoding="utf-8")
            if re.search(r"^task: \S", text, re.MULTILINE):  # a group has a list there
                changed = text.replace("metadata:\n", f"metadata:\n  control: {control}\n")
                file.write_text(changed, encoding="utf-8")
        yield str(folder)
