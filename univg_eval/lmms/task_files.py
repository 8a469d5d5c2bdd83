"""Where the task folder (``--include_path``) lies: in a checkout or in an installed wheel."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import univg_eval
from univg_eval.errors import UserError

__all__ = ["task_folder"]

_MARK = ("tasks", "univg.yaml")


def task_folder() -> Path:
    """The folder of the task files.

    A checkout (and an editable install) has it beside the package; a wheel installs it as data
    files, which the distribution's own list of files locates.

    Raises:
        UserError: neither is there.
    """
    beside = Path(univg_eval.__file__).resolve().parent.parent.joinpath(*_MARK)
    if beside.is_file():
        return beside.parent
    try:
        installed = files("univg") or []
    except PackageNotFoundError:
        installed = []
    for entry in installed:
        if entry.parts[-2:] == _MARK:
            return Path(str(entry.locate())).resolve().parent
    raise UserError(
        f"the task folder is missing: {beside.parent} does not exist and the installed package "
        "does not list one; install univg again"
    )
