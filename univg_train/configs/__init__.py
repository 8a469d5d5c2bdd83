"""Configuration files of training runs and of ``accelerate launch``, by name."""

from __future__ import annotations

from pathlib import Path

from univg_eval.errors import UserError, meant

__all__ = ["config_path", "list_configs"]

_FOLDER = Path(__file__).parent


def list_configs() -> dict[str, str]:
    """Names with the first line of each file: run settings, then those of the launcher."""
    return {
        name: path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        for name, path in _paths().items()
    }


def config_path(name: str) -> Path:
    """Where a file lies; a UserError where there is none of this name."""
    paths = _paths()
    if name not in paths:
        raise UserError(f"no configuration is named {name!r}; {meant(name, paths)}")
    return paths[name]


def _paths() -> dict[str, Path]:
    files = [*sorted(_FOLDER.glob("*.yaml")), *sorted((_FOLDER / "accelerate").glob("*.yaml"))]
    return {path.stem: path for path in files}
