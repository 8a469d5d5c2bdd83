"""What a row's replies amount to: the next request, or the outcome. A pure function of the replies.

The steps: as many chains as set, each held against the rules; the teacher chooses among those
that pass; the chosen one is assembled with the true box and read back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from univg_eval.dialects import Dialect
from univg_train.cot.rows import CotRow
from univg_train.cot.rules import ChainCheck, assemble, check_chain, read_choice
from univg_train.cot.settings import CotSettings

__all__ = ["ChainRequest", "ChoiceRequest", "RowState", "row_state"]

_MOST_CHOICES = 2  # a teacher that twice names no candidate will not


@dataclass(frozen=True, slots=True)
class ChainRequest:
    """The next request: one more chain, by its 0-based number."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RowState:
    """Where a row stands.

    Attributes:
        row: the row.
        entries: its replies in the journal, in the order of arrival.
        checks: by the number of the chain.
        next: the next request; None: nothing more.
        reason: why the row is rejected: ``no_sound_chain`` or ``no_choice``.
        chosen: number of the accepted chain.
        text: what the student learns to answer, where the row is accepted.
    """

    row: CotRow
    entries: Sequence[Mapping[str, Any]]
    checks: Mapping[int, ChainCheck] = field(default_factory=dict)
    next: ChainRequest | ChoiceRequest | None = None
    reason: str | None = None
    chosen: int | None = None
    text: str | None = None


def row_state(
    row: CotRow,
    entries: Sequence[Mapping[str, Any]],
    settings: CotSettings,
    dialect: Dialect,
    sizes: list[tuple[int, int]] | None,
) -> RowState:
    """Read a row's replies.

    Args:
        row: what they are about.
        entries: of the journal, in the order of arrival.
        settings: number of chains and limits of their words.
        dialect: of the student.
        sizes: (width, height) of the row's images in pixels, if known.
    """
    checks: dict[int, ChainCheck] = {}
    texts: dict[int, str] = {}
    thinkings: list[str] = []
    for entry in sorted((e for e in entries if e["kind"] == "chain"), key=lambda e: e["chain"]):
        check = _check(entry, row, settings, sizes)
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
    state = RowState(row=row, entries=entries, checks=checks)
    for chain in range(settings.chains):
        if chain not in checks:
            return replace(state, next=ChainRequest(chain))
    if not texts:
        return replace(state, reason="no_sound_chain")
    if len(texts) == 1:
        (chosen,) = texts
        return replace(state, chosen=chosen, text=texts[chosen])
    shown = _shuffled(texts, row)
    choices = [e for e in entries if e["kind"] == "choice" and tuple(e["shown"]) == shown]
    for entry in choices:
        best = None if entry.get("declined") else read_choice(entry["text"], len(shown))
        if best is not None:
            return replace(state, chosen=shown[best], text=texts[shown[best]])
    if len(choices) >= _MOST_CHOICES:
        return replace(state, reason="no_choice")
    candidates = tuple(checks[chain].thinking or "" for chain in shown)
    return replace(state, next=ChoiceRequest(shown, candidates))


def _check(
    entry: Mapping[str, Any],
    row: CotRow,
    settings: CotSettings,
    sizes: list[tuple[int, int]] | None,
) -> ChainCheck:
    if entry.get("declined"):
        return ChainCheck(None, ("refused",))
    return check_chain(
        entry["text"],
        row,
        finish_reason=entry["finish_reason"],
        min_words=settings.min_words,
        max_words=settings.max_words,
        sizes=sizes,
    )


def _shuffled(chains: Mapping[int, str], row: CotRow) -> tuple[int, ...]:
    """An order that depends on the row alone: models favour the place of a candidate."""

    def key(chain: int) -> bytes:
        return hashlib.sha256(f"{row.id}\n{chain}".encode("utf-8", "surrogatepass")).digest()

    return tuple(sorted(chains, key=key))
