"""The first sentence of a report: is the set-up wrong, or is the model weak?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from univg_eval.analysis.diagnosis.checks import Diagnosis
from univg_eval.analysis.diagnosis.findings import Finding

__all__ = ["Verdict", "judge"]

WEAK = 0.5
FEW = 20
"""Questions below which a report says that nothing was found, not that the set-up is fine: a hint
needs a dozen right answers, and one odd answer is a twentieth."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to say first.

    Attributes:
        status: ``wrong``: a problem or a hint; ``look``: warnings; ``fine``: notes at most.
        weak: the score is surely below one half although nothing wrong was found.
        headline: one sentence.
        text: what the figures say, one paragraph.
    """

    status: Literal["wrong", "look", "fine"]
    weak: bool
    headline: str
    text: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def judge(diagnosis: Diagnosis, findings: Sequence[Finding]) -> Verdict:
    """The verdict on a check.

    Args:
        diagnosis: of the declared run.
        findings: of all runs.
    """
    severities = {finding.severity for finding in findings}
    interval = diagnosis.score
    n = diagnosis.single
    text = (
        f"A box can be read in {diagnosis.answered} of {_count(diagnosis.asked, 'answer')}. "
        if diagnosis.asked
        else ""
    )
    if n:
        text += (
            f"It is right (IoU >= 0.5) in {diagnosis.hits} of {n}: {100 * interval.estimate:.0f} "
            f"%, 95 % interval {100 * interval.low:.0f} to {100 * interval.high:.0f}; by chance, "
            f"laid on another question's object, {100 * diagnosis.blind / n:.0f} % would be. "
        )
    if severities & {"problem", "hint"}:
        return Verdict(
            "wrong",
            False,
            "The set-up looks wrong: do not start a long run yet.",
            text + "Until that is settled, the score says little about the model.",
        )
    weak = bool(n) and interval.high < WEAK
    if weak:
        text += (
            "The answers can be read as declared, so a low score is the model's own: it is weak on "
            "these questions, which is nothing wrong with the set-up. "
            if diagnosis.above_blind
            else "The answers can be read as declared, but are right no more often than by chance: "
            "the model cannot do this, or it does not see the images (--controls tells). "
        )
    if n < FEW:
        text += f"Faults in how answers are read need about {FEW} questions to show. "
    if "warning" in severities:
        return Verdict(
            "look",
            weak,
            "No clear fault, but look at the warnings before a long run.",
            text.strip(),
        )
    if n < FEW:
        few = _count(n, "question") if n else "questions without one true box"
        headline = f"Nothing wrong was found, but {few} cannot show much."
        return Verdict("fine", weak, headline, text.strip())
    headline = (
        "The set-up is fine; the model is weak on these questions."
        if weak and diagnosis.above_blind
        else "The set-up shows no fault, but the model does no better than chance."
        if weak
        else "The set-up is fine."
    )
    return Verdict("fine", weak, headline, text.strip())


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
