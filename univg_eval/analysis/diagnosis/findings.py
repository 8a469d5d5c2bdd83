"""One thing found by a check, and how severe it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from univg_eval.analysis.stats import wilson_interval

__all__ = ["MAX_EXAMPLES", "SEVERITIES", "CheckFinding", "Severity", "severity_of", "share_words"]

Severity = Literal["problem", "hint", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "hint", "warning", "note")
"""Most severe first. ``hint``: evidence that used the true boxes. A ``note`` is nothing wrong."""

MAX_EXAMPLES = 8
_PROBLEM = 0.2
_WARNING = 0.05


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing found.

    Attributes:
        kind: a fixed word for scripts, e.g. ``no_box``.
        severity: see `SEVERITIES`.
        title: what was found, one sentence with its numbers.
        detail: further sentences, may be empty.
        remedy: what to do about it.
        numbers: the figures behind the sentences, plain JSON values.
        examples: ids of samples that show it, at most `MAX_EXAMPLES`.
    """

    kind: str
    severity: Severity
    title: str
    remedy: str
    detail: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    examples: Sequence[str] = ()

    @property
    def is_fault(self) -> bool:
        """Whether it makes a check fail (everything but a note)."""
        return self.severity != "note"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("kind", "severity", "title", "detail", "remedy")
        return {name: getattr(self, name) for name in names} | {
            "numbers": dict(self.numbers),
            "examples": list(self.examples),
        }


def severity_of(k: int, n: int) -> Severity:
    """How severe it is that k of n answers show a fault.

    By the lower end of Wilson's 95 % interval, so that one odd answer among few is no alarm:
    ``problem`` from a fifth on, ``warning`` from a twentieth on, else ``note``.
    """
    low = wilson_interval(k, n).low
    return "problem" if low >= _PROBLEM else "warning" if low >= _WARNING else "note"


def share_words(k: int, n: int) -> str:
    """``12 of 64 (19 %)``."""
    return f"{k} of {n} ({100 * k / n:.0f} %)" if n else "0 of 0"
