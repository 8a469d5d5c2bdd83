"""Keys and passwords that are kept out of everything that is written and shown."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

__all__ = [
    "first_secret",
    "secret_values",
    "settings_without_secrets",
    "without_secrets",
    "without_values",
]

HIDDEN = "[hidden]"
_SECRET_NAME = r"(?:(?:api|access|private|openai)[_-]?key|token|secret|passw(?:or)?d)"  # noqa: S105
_SECRET = re.compile(rf"(?:{_SECRET_NAME}|authorization)\Z", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?i)({_SECRET_NAME}['\"]?\s*[=:]\s*['\"]?)([^\s,;&'\"{{}}\[\]]+)")
_PATTERNS = (
    (_ASSIGNED, rf"\1{HIDDEN}"),
    (re.compile(r"(?i)([?&](?:key|sig|signature)=)[^\s,&#'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bbearer\s+|\bauthorization\W+basic\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    # A password may hold the signs that end one; a port does not begin one.
    (
        re.compile(r"(://)(?:[^/\s:@]{1,99}:(?!\d+/)[^\s'\",]{1,300}|[^/\s'\"]{1,400})@"),
        rf"\1{HIDDEN}@",
    ),
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|(?:sk|gsk|xai|nvapi)[-_][A-Za-z0-9_-]{16,})"), HIDDEN),
)
_SHORTEST = 8
"""Shorter values are no keys, and words of a message may be like them."""
_BROKEN = r"(?:\s|\\[nr]?){0,40}"
"""What may stand between two characters of a secret: the end of a line, JSON's backslash."""


def secret_values(settings: str | Mapping[str, Any] | None = None) -> frozenset[str]:
    """Values that are hidden wherever they stand: of the environment, and of some settings.

    Args:
        settings: model_args, as ``name=value`` pairs or a mapping.

    Returns:
        Those of eight characters and more whose names end in ``api_key``, ``token``, ``secret``,
        ``password`` and the like.
    """
    named = list(os.environ.items())
    if isinstance(settings, str):
        named += [(match[1].rstrip("=: '\""), match[2]) for match in _ASSIGNED.finditer(settings)]
    else:
        named += _named(settings)
    return frozenset(
        value for name, value in named if _SECRET.search(name) and len(value) >= _SHORTEST
    )


def _named(settings: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The settings as text, with those that stand within others."""
    if isinstance(settings, Mapping):
        for own, value in settings.items():
            yield from _named(value, str(own))
    elif isinstance(settings, list):
        for value in settings:
            yield from _named(value, name)
    elif settings is not None:
        yield name, str(settings)


@lru_cache(maxsize=64)
def _written(secret: str) -> re.Pattern[str]:
    """A secret as it stands, over several lines, in an address, and within base64."""
    raw = secret.encode()
    forms = {secret, quote(secret, safe="")}
    for before in range(3):  # bytes of the same group of three in front, as those of a user's name
        code = b64encode(bytes(before) + raw).decode()
        forms.add(code[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6])
    return re.compile("|".join(_BROKEN.join(map(re.escape, form)) for form in forms), re.IGNORECASE)


def without_values(text: str, known: Iterable[str]) -> str:
    """A text without these values in any form, such as an answer that repeats a key."""
    for secret in known:
        text = _written(secret).sub(HIDDEN, text)
    return text


def without_secrets(value: object, name: str = "", known: Collection[str] | None = None) -> str:
    """A setting or a message as text without keys and passwords.

    Hidden are the values `known`; values whose name ends in ``api_key``, ``token``, ``secret`` or
    ``password``, as lmms-eval hides them in its log; user and password of an address; and keys that
    their own beginning gives away.

    Args:
        value: what is shown.
        name: of the setting.
        known: see `secret_values`; None: those of the environment.
    """
    if _SECRET.search(name) and value is not None:
        return HIDDEN
    text = without_values(str(value), secret_values() if known is None else known)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def settings_without_secrets(settings: Any, known: Collection[str], name: str = "") -> Any:
    """model_args, in any form, as they may be written; other values than text stay.

    Args:
        settings: ``name=value`` pairs, or a mapping.
        known: see `secret_values`.
        name: of a setting whose value this is.
    """
    if isinstance(settings, Mapping) and not _SECRET.search(name):
        return {key: settings_without_secrets(v, known, str(key)) for key, v in settings.items()}
    if isinstance(settings, list) and not _SECRET.search(name):
        return [settings_without_secrets(value, known, name) for value in settings]
    if isinstance(settings, str) or (_SECRET.search(name) and settings is not None):
        return without_secrets(settings, name, known)
    return settings


def first_secret(settings: Mapping[str, Any]) -> str | None:
    """The first setting that holds a key or a password; words such as "none" are no keys."""
    known = secret_values(settings)
    for name, value in settings.items():
        is_word = _SECRET.search(name) and len(str(value)) < _SHORTEST
        if not is_word and settings_without_secrets({name: value}, known) != {name: value}:
            return name
    return None
