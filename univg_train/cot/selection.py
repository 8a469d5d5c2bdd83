"""What a row's replies amount to: the next request, or the outcome. A pure function of the replies.

The steps: as many chains as asked for, each held against the rules; the teacher chooses among those
that pass them (a chain that would be thrown out afterwards is not worth choosing); the chosen one
is assembled with the true box and read back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from univg_eval.dialects import Dialect
from univg_train.cot.rows import CotRow
from univg_train.cot.rules import Verdict, assemble, check_chain, read_choice

__all__ = ["AskChain", "AskChoice", "Judgement", "judge"]

_CHOICES_ASKED = 2  # a teacher that twice names no candidate will not


@dataclass(frozen=True, slots=True)
class AskChain:
    """The next request: one more chain.

    Attributes:
        chain: its 0-based number.
    """

    chain: int


@dataclass(frozen=True, slots=True)
class AskChoice:
    """The next request: which chain is best.

    Attributes:
        shown: numbers of the chains in the order in which they are shown.
        thinkings: their texts, in that order.
    """

    shown: tuple[int, ...]
    thinkings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Where a row stands.

    Attributes:
        next: what to ask; None: nothing more.
        status: ``accepted``, ``rejected``, or ``open`` while there is something to ask.
        reasons: why the row is rejected: ``no_sound_chain`` or ``no_choice``.
        chosen: number of the accepted chain.
        text: what the student learns to answer, where the row is accepted.
        verdicts: by the number of the chain.
    """

    next: AskChain | AskChoice | None
    status: str
    reasons: tuple[str, ...] = ()
    chosen: int | None = None
    text: str | None = None
    verdicts: Mapping[int, Verdict] = field(default_factory=dict)


def judge(
    row: CotRow,
    entries: Sequence[Mapping[str, Any]],
    *,
    chains: int,
    min_words: int,
    max_words: int,
    dialect: Dialect,
    sizes: list[tuple[int, int]] | None,
) -> Judgement:
    """Read a row's replies.

    Args:
        row: what they are about.
        entries: of the journal, in the order of arrival.
        chains: how many chains are asked for.
        min_words, max_words: limits of the thinking.
        dialect: of the student.
        sizes: (width, height) of the row's images in pixels, if known.
    """
    verdicts: dict[int, Verdict] = {}
    texts: dict[int, str] = {}
    thinkings: list[str] = []
    for entry in sorted((e for e in entries if e["kind"] == "chain"), key=lambda e: e["chain"]):
        verdict = _verdict(entry, row, min_words, max_words, sizes)
        thinking = verdict.thinking
        if thinking is not None:
            if thinking in thinkings:
                verdict = replace(verdict, reasons=(*verdict.reasons, "repeated"))
            thinkings.append(thinking)
        if thinking is not None and not verdict.reasons:
            text = assemble(thinking, row, dialect, sizes)
            if text is None:
                verdict = replace(verdict, reasons=("unreadable",))
            else:
                texts[entry["chain"]] = text
        verdicts[entry["chain"]] = verdict
    for chain in range(chains):
        if chain not in verdicts:
            return Judgement(AskChain(chain), "open", verdicts=verdicts)
    if not texts:
        return Judgement(None, "rejected", ("no_sound_chain",), verdicts=verdicts)
    if len(texts) == 1:
        (chosen,) = texts
        return Judgement(None, "accepted", (), chosen, texts[chosen], verdicts)
    shown = _shuffled(texts, row)
    asked = [e for e in entries if e["kind"] == "choice" and tuple(e["shown"]) == shown]
    for entry in asked:
        best = None if entry.get("declined") else read_choice(entry["text"], len(shown))
        if best is not None:
            chosen = shown[best]
            return Judgement(None, "accepted", (), chosen, texts[chosen], verdicts)
    if len(asked) >= _CHOICES_ASKED:
        return Judgement(None, "rejected", ("no_choice",), verdicts=verdicts)
    candidates = tuple(verdicts[chain].thinking or "" for chain in shown)
    return Judgement(AskChoice(shown, candidates), "open", verdicts=verdicts)


def _verdict(
    entry: Mapping[str, Any],
    row: CotRow,
    min_words: int,
    max_words: int,
    sizes: list[tuple[int, int]] | None,
) -> Verdict:
    if entry.get("declined"):
        return Verdict(None, ("refused",))
    return check_chain(
        entry["text"],
        row,
        finish_reason=entry["finish_reason"],
        min_words=min_words,
        max_words=max_words,
        sizes=sizes,
    )


def _shuffled(chains: Mapping[int, str], row: CotRow) -> tuple[int, ...]:
    """An order that depends on the row alone: models favour the place of a candidate."""

    def key(chain: int) -> bytes:
        return hashlib.sha256(f"{row.id}\n{chain}".encode("utf-8", "surrogatepass")).digest()

    return tuple(sorted(chains, key=key))
