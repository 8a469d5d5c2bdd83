"""Where files outside the package lie: in a checkout or in an installed wheel."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import univg_eval
from univg_eval.errors import UserError

__all__ = ["data_folder"]

_DATA_FILES = ("share", "univg")
"""Where a wheel puts its data files, below the prefix of its installation."""


def data_folder(
    what: str, mark: str, *, checkout: Sequence[str], wheel: Sequence[str] | None = None
) -> Path:
    """A folder of files that belong to the project but not to the package.

    A checkout (and an editable install) has it beside the package; a wheel installs it as data
    files, which the distribution's own list of files locates. ``pip install --target`` puts them
    below its target, where that list does not have them.

    Args:
        what: name of the folder in messages, such as ``task``.
        mark: name of a file that the folder has to hold.
        checkout: path of the folder below a checkout.
        wheel: its path below ``share/univg`` of an installation; that of the checkout if None.

    Raises:
        UserError: neither is there.
    """
    above = Path(univg_eval.__file__).resolve().parent.parent
    beside = above.joinpath(*checkout)
    installed_path = (*_DATA_FILES, *(checkout if wheel is None else wheel))
    for folder in (beside, above.joinpath(*installed_path)):
        if (folder / mark).is_file():
            return folder
    try:
        installed = files("univg") or []
    except PackageNotFoundError:
        installed = []
    ending = (*installed_path, mark)
    for entry in installed:
        if entry.parts[-len(ending) :] == ending:
            path = Path(str(entry.locate()))
            if path.is_file():
                return path.resolve().parent
    raise UserError(
        f"the {what} folder is missing: {beside} does not exist and the installed package "
        "does not list one; install univg again"
    )
