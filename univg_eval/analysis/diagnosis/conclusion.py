"""The first sentence of a report: is the set-up wrong, or is the model weak?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from univg_eval.analysis.diagnosis.checks import Diagnosis
from univg_eval.analysis.diagnosis.findings import CheckFinding

__all__ = ["Conclusion", "conclude"]

WEAK = 0.5
FEW = 20
"""Samples below which a report says that nothing was found, not that the set-up is fine: a hint
needs a dozen right answers, and one odd answer is a twentieth."""


@dataclass(frozen=True, slots=True)
class Conclusion:
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


def conclude(diagnosis: Diagnosis, findings: Sequence[CheckFinding]) -> Conclusion:
    """What the declared run (`diagnosis`) and the findings of all runs amount to."""
    severities = {finding.severity for finding in findings}
    score, n = diagnosis.score, diagnosis.single
    text = []
    if diagnosis.with_target:
        count = _count(diagnosis.with_target, "answer")
        text.append(f"A box can be read in {diagnosis.answered} of {count}.")
    if score is not None:
        text.append(
            f"It is right (IoU >= 0.5) in {diagnosis.hits} of {n}: {100 * score.value:.0f} %; by "
            f"chance, laid on another sample's object, {100 * diagnosis.blind / n:.0f} % would be."
        )
    if severities & {"problem", "hint"}:
        text.append("Until that is settled, the score says little about the model.")
        headline = "The set-up looks wrong: do not start a long run yet."
        return Conclusion("wrong", False, headline, " ".join(text))
    weak = score is not None and score.high is not None and score.high < WEAK
    if weak and diagnosis.above_blind:
        text.append(
            "The answers can be read as declared, so a low score is the model's own: it is weak on "
            "these samples, which is nothing wrong with the set-up."
        )
    elif weak:
        text.append(
            "The answers can be read as declared, but are right no more often than by chance: the "
            "model cannot do this, or it does not see the images (--controls shows which)."
        )
    if n < FEW:
        text.append(f"Faults in how answers are read need about {FEW} samples to show.")
    if "warning" in severities:
        headline = "No clear fault, but look at the warnings before a long run."
        return Conclusion("look", weak, headline, " ".join(text))
    headline = "The set-up is fine."
    if n < FEW:
        few = _count(n, "sample") if n else "samples without one true box"
        headline = f"Nothing wrong was found, but {few} cannot show much."
    elif weak and diagnosis.above_blind:
        headline = "The set-up is fine; the model is weak on these samples."
    elif weak:
        headline = "The set-up shows no fault, but the model does no better than chance."
    return Conclusion("fine", weak, headline, " ".join(text))


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
