"""Foreign text made fit to be shown: nothing in it disguises or breaks it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

__all__ = ["moment", "printable", "printable_tree"]

_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def moment(at: datetime | str) -> str:
    """``2026-11-30 09:05 UTC``; of a time without a zone it is said that there is none.

    Args:
        at: also as ISO 8601; other text is returned as it is.
    """
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            return str(at)
    if at.tzinfo is None:
        return f"{at:%Y-%m-%d %H:%M} (time zone not recorded)"
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def printable(text: str) -> str:
    r"""The text with every character that would break or disguise it written as an escape.

    Control characters other than tab and newline, marks that turn the direction of writing, halves
    of surrogate pairs and noncharacters become e.g. ``\x00``.
    """
    return _CONTROLS.sub(_escape, text.replace("\r\n", "\n"))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def printable_tree(value: Any) -> Any:
    """JSON values with every string in them, keys included, made `printable`."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(name)): printable_tree(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [printable_tree(item) for item in value]
    return value
