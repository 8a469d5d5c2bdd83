"""What a row's replies amount to: the next request, or the outcome. A pure function of the replies.

The steps: as many chains as configured, each held against the rules; the teacher chooses among
those that pass; the chosen one is assembled with the true box and read back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from univg_eval.dialects import Dialect
from univg_train.cot.rows import CotRow
from univg_train.cot.rules import ChainCheck, assemble, check_chain, read_choice

__all__ = ["ChainRequest", "ChoiceRequest", "RowState", "row_state"]

_MOST_CHOICES = 2  # a teacher that twice names no candidate will not


@dataclass(frozen=True, slots=True)
class ChainRequest:
    """The next request: one more chain.

    Attributes:
        chain: its 0-based number.
    """

    chain: int


@dataclass(frozen=True, slots=True)
class ChoiceRequest:
    """The next request: which chain is best.

    Attributes:
        shown: numbers of the chains in the order in which they are shown.
        thinkings: their texts, in that order.
    """

    shown: tuple[int, ...]
    thinkings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowState:
    """Where a row stands.

    Attributes:
        next: the next request; None: nothing more.
        status: ``accepted``, ``rejected``, or ``open`` while there is something to request.
        reasons: why the row is rejected: ``no_sound_chain`` or ``no_choice``.
        chosen: number of the accepted chain.
        text: what the student learns to answer, where the row is accepted.
        checks: by the number of the chain.
    """

    next: ChainRequest | ChoiceRequest | None
    status: str
    reasons: tuple[str, ...] = ()
    chosen: int | None = None
    text: str | None = None
    checks: Mapping[int, ChainCheck] = field(default_factory=dict)


def row_state(
    row: CotRow,
    entries: Sequence[Mapping[str, Any]],
    *,
    chains: int,
    min_words: int,
    max_words: int,
    dialect: Dialect,
    sizes: list[tuple[int, int]] | None,
) -> RowState:
    """Read a row's replies.

    Args:
        row: what they are about.
        entries: of the journal, in the order of arrival.
        chains: how many chains a row gets.
        min_words, max_words: limits of the thinking.
        dialect: of the student.
        sizes: (width, height) of the row's images in pixels, if known.
    """
    checks: dict[int, ChainCheck] = {}
    texts: dict[int, str] = {}
    thinkings: list[str] = []
    for entry in sorted((e for e in entries if e["kind"] == "chain"), key=lambda e: e["chain"]):
        check = _check(entry, row, min_words, max_words, sizes)
        thinking = check.thinking
        if thinking is not None:
            if thinking in thinkings:
                check = replace(check, reasons=(*check.reasons, "repeated"))
            thinkings.append(thinking)
        if thinking is not None and not check.reasons:
            text = assemble(thinking, row, dialect, sizes)
            if text is None:
                check = replace(check, reasons=("unreadable",))
            else:
                texts[entry["chain"]] = text
        checks[entry["chain"]] = check
    for chain in range(chains):
        if chain not in checks:
            return RowState(ChainRequest(chain), "open", checks=checks)
    if not texts:
        return RowState(None, "rejected", ("no_sound_chain",), checks=checks)
    if len(texts) == 1:
        (chosen,) = texts
        return RowState(None, "accepted", (), chosen, texts[chosen], checks)
    shown = _shuffled(texts, row)
    choices = [e for e in entries if e["kind"] == "choice" and tuple(e["shown"]) == shown]
    for entry in choices:
        best = None if entry.get("declined") else read_choice(entry["text"], len(shown))
        if best is not None:
            chosen = shown[best]
            return RowState(None, "accepted", (), chosen, texts[chosen], checks)
    if len(choices) >= _MOST_CHOICES:
        return RowState(None, "rejected", ("no_choice",), checks=checks)
    candidates = tuple(checks[chain].thinking or "" for chain in shown)
    return RowState(ChoiceRequest(shown, candidates), "open", checks=checks)


def _check(
    entry: Mapping[str, Any],
    row: CotRow,
    min_words: int,
    max_words: int,
    sizes: list[tuple[int, int]] | None,
) -> ChainCheck:
    if entry.get("declined"):
        return ChainCheck(None, ("refused",))
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
