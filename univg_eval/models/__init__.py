"""Checkpoints that come with the package: ``univg:tiny`` stands for the folder ``tiny``."""

from __future__ import annotations

from pathlib import Path

from univg_eval.errors import UserError, meant

__all__ = ["TINY", "model_folder", "model_name"]

TINY = "univg:tiny"
_PREFIX = "univg:"
_HERE = Path(__file__).resolve().parent


def model_folder(name: str) -> str:
    """The folder behind a short name; any other name or path as it is.

    Raises:
        UserError: no checkpoint of this short name comes with the package.
    """
    if not name.startswith(_PREFIX):
        return name
    known = {_PREFIX + path.parent.name: path.parent for path in _HERE.glob("*/config.json")}
    if name not in known:
        raise UserError(f"no model {name!r} comes with univg; {meant(name, sorted(known))}")
    return str(known[name])


def model_name(checkpoint: str) -> str:
    """The short name of a checkpoint that lies here, wherever the package is; else as it is."""
    path = Path(checkpoint).expanduser().absolute()
    return _PREFIX + path.name if path.parent.resolve() == _HERE else checkpoint
