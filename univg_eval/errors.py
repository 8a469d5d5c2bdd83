"""Errors that a user can mend: shown as one message, without a traceback."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["UserError", "missing_package"]

_EXTRAS: Mapping[str, tuple[str, ...]] = {
    "report": ("jinja2", "matplotlib", "scipy"),
    "train": ("openai", "peft", "trl"),
    "eval": (
        *("accelerate", "av", "cv2", "datasets", "huggingface_hub", "ijson", "lmms_eval"),
        *("pyarrow", "pycocotools", "skimage", "sklearn", "torch", "torchvision", "transformers"),
    ),
}
"""Extra of pyproject.toml → the modules that are imported only where they are needed."""


class UserError(ValueError):
    """A mistake in what the user gave: a name, a file, a setting.

    The message names the thing, what was received, what was expected and the remedy.
    The command line prints it to standard error and exits with status 2.
    """


def missing_package(error: ModuleNotFoundError) -> str | None:
    """The message for a module of an extra that is not installed; None for any other module."""
    name = (error.name or "").partition(".")[0]
    for extra, modules in _EXTRAS.items():
        if name in modules:
            return f"the package {name} is not installed; run: pip install 'univg[{extra}]'"
    return None
