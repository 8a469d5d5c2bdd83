"""Errors that a user can mend: shown as one message, without a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

__all__ = [
    "UserError",
    "install_command",
    "meant",
    "missing_package",
    "nearest",
    "require_command",
    "unknown_option",
]

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


def install_command(extra: str) -> str:
    """How the packages of an extra are installed; the index does not have this project."""
    return f"run in the checkout: pip install -e '.[{extra}]'"


def missing_package(error: ModuleNotFoundError) -> str | None:
    """The message for a module of an extra that is not installed; None for any other module."""
    name = (error.name or "").partition(".")[0]
    for extra, modules in _EXTRAS.items():
        if name in modules:
            return f"the package {name} is not installed; {install_command(extra)}"
    return None


def nearest(name: object, known: Iterable[str], *, n: int = 3) -> list[str]:
    """At most `n` known names that may have been meant by this one, the nearest first.

    Upper case and punctuation do not count: where a known name differs in these alone, it is the
    only one. Otherwise a name is near that is spelt alike, holds this one as a part, or is a part
    of it.
    """

    def plain(text: object) -> str:
        return re.sub(r"[^a-z0-9]", "", str(text).lower())

    key = plain(name)
    names = {plain(one): one for one in sorted(known, key=len)}
    if key in names:
        return [names[key]]
    near = difflib.get_close_matches(key, names, n=n, cutoff=0.7)
    near += [one for one in names if len(key) >= 3 and key in one]
    near += [one for one in reversed(names) if len(one) >= 5 and one in key]
    return [names[one] for one in dict.fromkeys(near)][:n]


def meant(name: object, known: Iterable[str], lister: str = "") -> str:
    """What to say behind an unknown name: the names near it, or else all.

    Args:
        name: what was received.
        known: what is expected.
        lister: a command that lists the known names; it is named instead of them.
    """
    known = list(known)
    near = " or ".join(map(repr, nearest(name, known)))
    if not near:
        return f"`{lister}` lists them" if lister else f"expected one of: {', '.join(known)}"
    return f"did you mean {near}?" + (f" `{lister}` lists all" if lister else "")


def unknown_option(arguments: Sequence[str], usage: str) -> str:
    """What to say of arguments that a parser does not know; `usage` names its options."""
    near = nearest(arguments[0], re.findall(r"--[\w-]+", usage), n=1)
    hint = f"; did you mean {near[0]!r}?" if near and arguments[0].startswith("-") else ""
    return f"unrecognized arguments: {' '.join(arguments)}{hint}"


def require_command(argv: Sequence[str], known: Collection[str]) -> None:
    """Refuse a first argument that is no command.

    Raises:
        UserError: with the commands near it, or all.
    """
    if argv and not argv[0].startswith("-") and argv[0] not in known:
        raise UserError(f"there is no command {argv[0]!r}; {meant(argv[0], known)}")
