"""Keys and passwords that are kept out of everything that is written and shown."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["secret_values", "settings_without_secrets", "without_secrets"]

HIDDEN = "[hidden]"
_SECRET_NAME = r"(?:api_?key|token|secret|password)"  # noqa: S105 (a pattern)
_SECRET = re.compile(_SECRET_NAME + r"\Z", re.IGNORECASE)
_ASSIGNED = re.compile(rf"(?i)(\w*{_SECRET_NAME}['\"]?\s*[=:]\s*['\"]?)([^\s,;&'\"{{}}\[\]]+)")
_PATTERNS = (
    (_ASSIGNED, rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bbearer\s+)[\w.~+/-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(://)[^/\s@]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"\b(?:hf_|sk-)[A-Za-z0-9_-]{16,}"), HIDDEN),
)
_SHORTEST = 8
"""Shorter values are no keys, and words of a message may be like them."""


def secret_values(settings: str | Mapping[str, Any] | None = None) -> frozenset[str]:
    """Values that are hidden wherever they stand: of the environment, and of some settings.

    Args:
        settings: model_args, as ``name=value`` pairs or a mapping.

    Returns:
        Those of eight characters and more whose names end in ``api_key``, ``token``, ``secret`` or
        ``password``.
    """
    named = list(os.environ.items())
    if isinstance(settings, Mapping):
        named += [(name, str(value)) for name, value in settings.items()]
    elif settings is not None:
        named += [(match[1].rstrip("=: '\""), match[2]) for match in _ASSIGNED.finditer(settings)]
    return frozenset(
        value for name, value in named if _SECRET.search(name) and len(value) >= _SHORTEST
    )


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
    text = str(value)
    for secret in secret_values() if known is None else known:
        text = text.replace(secret, HIDDEN)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def settings_without_secrets(
    settings: str | Mapping[str, Any] | None, known: Collection[str]
) -> str | dict[str, Any] | None:
    """model_args, in either form, as they may be written; other values than text stay."""
    if settings is None:
        return None
    if isinstance(settings, str):
        return without_secrets(settings, known=known)
    return {
        name: without_secrets(value, name, known)
        if isinstance(value, str) or _SECRET.search(name)
        else value
        for name, value in settings.items()
    }
