"""The files that a run leaves, made from the journal each time: whole or not there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from univg_eval.dialects import Dialect
from univg_eval.files import whole_file, write_text_atomically
from univg_eval.runs.record import environment
from univg_train.cot.prompts import student_prompt
from univg_train.cot.rows import CotRow, CotRows, Survey, UnusedRow, sizes_of, student_question
from univg_train.cot.selection import RowState

__all__ = ["CotSummary", "OutputContext", "write_outputs"]


@dataclass(slots=True)
class CotSummary:
    """What a run built.

    Attributes:
        rows: rows that chains were built for: the denominator of the next three.
        accepted, rejected: rows with and without an example to learn from.
        unanswered: rows that the server did not answer; the next run requests them again.
        unused: rows of another kind, by reason.
        faulty: rows left out because they are wrong.
        chains: chains that the teacher gave.
        chain_reasons: how many chains broke each rule; one may break several.
        row_reasons: how many rows were rejected for each reason.
        requests: sent by this run, retries included.
        replies: in the journal, about these rows.
        replies_without_usage: replies whose tokens the server did not count; not in the sums.
        prompt_tokens, completion_tokens: of all replies, earlier runs' included.
        cost: of these tokens at the given prices; None without prices.
    """

    rows: int = 0
    accepted: int = 0
    rejected: int = 0
    unanswered: int = 0
    unused: dict[str, int] = field(default_factory=dict)
    faulty: int = 0
    chains: int = 0
    chain_reasons: dict[str, int] = field(default_factory=dict)
    row_reasons: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    replies: int = 0
    replies_without_usage: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputContext:
    """What the files hold beside the replies.

    Attributes:
        rows: the input.
        survey: what was counted in it.
        replies_depend_on: settings that the replies depend on.
        settings: the others, that only the files depend on.
        dialect: of the student.
        price: of a million tokens of prompt and of completion; None: unknown.
        unanswered: by row id, what went wrong.
        broken: by row id, which image could not be sent.
        requests: sent by this run.
    """

    rows: CotRows
    survey: Survey
    replies_depend_on: Mapping[str, Any]
    settings: Mapping[str, Any]
    dialect: Dialect
    price: tuple[float, float] | None
    unanswered: Mapping[str, str]
    broken: Mapping[str, str]
    requests: int


def write_outputs(
    out: Path,
    context: OutputContext,
    rows: Iterable[tuple[CotRow, Sequence[Mapping[str, Any]], RowState]],
) -> CotSummary:
    """Write chains.jsonl, rows.jsonl, cotsft.json and manifest.json; see `cot.building`."""
    counter = _Counter(context)
    provenance = {
        "teacher": context.replies_depend_on["model"],
        "prompts_sha256": context.replies_depend_on["prompts_sha256"],
        "univg": version("univg"),
        "openai": version("openai"),
    }
    # The old manifest would vouch for the new files.
    (out / "manifest.json").unlink(missing_ok=True)
    with (
        whole_file(out / "chains.jsonl", sync=True) as chains_file,
        whole_file(out / "rows.jsonl", sync=True) as rows_file,
        whole_file(out / "cotsft.json", sync=True) as examples_file,
    ):
        examples_file.write("[")
        for row, entries, state in rows:
            for line in counter.chain_lines(row, entries, state):
                chains_file.write(_line(line))
            rows_file.write(_line(counter.row_line(row, entries, state)))
            if state.status == "accepted":
                examples_file.write("\n" if counter.summary.accepted == 1 else ",\n")
                example = _example(row, entries, state, context, provenance)
                examples_file.write(_line(example).rstrip("\n"))
        examples_file.write("\n]\n")
        for unused in _unused(context):
            rows_file.write(_line(unused))
    summary = counter.finished()
    manifest = {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": {**context.rows.about, "image_root": str(context.rows.image_root.absolute())},
        "asked": dict(context.replies_depend_on),
        "settings": dict(context.settings),
        "result": asdict(summary),
        "versions": {**environment()["versions"], "openai": version("openai")},
    }
    write_text_atomically(out / "manifest.json", [json.dumps(manifest, indent=2) + "\n"])
    return summary


def _line(value: Mapping[str, Any]) -> str:
    # ASCII: a reply may hold half of a surrogate pair, which no UTF-8 file can.
    return json.dumps(value) + "\n"


class _Counter:
    """Lines of the files, and the sums over them."""

    def __init__(self, context: OutputContext) -> None:
        self._context = context
        self.summary = CotSummary(
            unused=dict(context.survey.unused),
            faulty=len(context.survey.faulty),
            requests=context.requests,
        )
        self._chain_reasons: Counter[str] = Counter()
        self._row_reasons: Counter[str] = Counter()

    def finished(self) -> CotSummary:
        summary = self.summary
        summary.chain_reasons = dict(self._chain_reasons.most_common())
        summary.row_reasons = dict(self._row_reasons.most_common())
        summary.cost = self._cost(summary.prompt_tokens, summary.completion_tokens)
        return summary

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        if self._context.price is None:
            return None
        price_in, price_out = self._context.price
        return round((prompt_tokens * price_in + completion_tokens * price_out) / 1e6, 8)

    def chain_lines(
        self, row: CotRow, entries: Sequence[Mapping[str, Any]], state: RowState
    ) -> Iterator[dict[str, Any]]:
        for entry in entries:
            if entry["kind"] != "chain":
                continue
            check = state.checks[entry["chain"]]
            self.summary.chains += 1
            self._chain_reasons.update(check.reasons)
            sound = "accepted" if entry["chain"] == state.chosen else "not_chosen"
            yield {
                "id": row.id,
                "chain": entry["chain"],
                "verdict": "rejected" if check.reasons else sound,
                "reasons": list(check.reasons),
                "thinking": check.thinking,
                **_tokens([entry]),
                "cost": self._cost(*_tokens([entry]).values()),
                "reply": entry["text"],
                "declined": entry.get("declined"),
                "model": entry.get("model"),
                "date": entry["date"],
            }

    def row_line(
        self, row: CotRow, entries: Sequence[Mapping[str, Any]], state: RowState
    ) -> dict[str, Any]:
        summary = self.summary
        status, reasons, message = state.status, list(state.reasons), None
        if row.id in self._context.broken:
            status, reasons = "rejected", ["image_unreadable"]
            message = self._context.broken[row.id]
        elif status == "open":
            status, reasons = "unanswered", []
            message = self._context.unanswered.get(row.id)
        summary.rows += 1
        summary.accepted += status == "accepted"
        summary.rejected += status == "rejected"
        summary.unanswered += status == "unanswered"
        self._row_reasons.update(reasons)
        tokens = _tokens(entries)
        summary.replies += len(entries)
        summary.replies_without_usage += sum(_counted(entry) is None for entry in entries)
        summary.prompt_tokens += tokens["prompt_tokens"]
        summary.completion_tokens += tokens["completion_tokens"]
        return {
            "id": row.id,
            "status": status,
            "reasons": reasons,
            "message": message,
            "chosen": state.chosen,
            "replies": len(entries),
            **tokens,
            "cost": self._cost(*tokens.values()),
            "task": row.task,
            "source": dict(row.source),
        }


def _counted(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    prompt, completion = entry.get("prompt_tokens"), entry.get("completion_tokens")
    return None if prompt is None or completion is None else (prompt, completion)


def _tokens(entries: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counted = [tokens for entry in entries if (tokens := _counted(entry)) is not None]
    return {
        "prompt_tokens": sum(prompt for prompt, _ in counted),
        "completion_tokens": sum(completion for _, completion in counted),
    }


def _example(
    row: CotRow,
    entries: Sequence[Mapping[str, Any]],
    state: RowState,
    context: OutputContext,
    provenance: Mapping[str, str],
) -> dict[str, Any]:
    """An accepted row as the trainers read it: a conversation of two turns."""
    sizes = sizes_of(row, context.rows.image_root)
    chosen = next(e for e in entries if e["kind"] == "chain" and e["chain"] == state.chosen)
    question = student_question(row, context.dialect, sizes)
    return {
        "id": row.id,
        "images": list(row.images),
        "conversations": [
            {"from": "human", "value": student_prompt(question, len(row.images))},
            {"from": "gpt", "value": state.text},
        ],
        "task": row.task,
        "provenance": {
            **provenance,
            "answered_by": chosen["model"] or "",
            "date": chosen["date"],
        },
    }


def _unused(context: OutputContext) -> Iterator[dict[str, Any]]:
    faulty = dict(context.survey.faulty)
    for row in context.rows.rows:
        if row.id in faulty:
            yield {"id": row.id, "status": "faulty", "reasons": [], "message": faulty[row.id]}
        elif isinstance(row, UnusedRow):
            yield {"id": row.id, "status": "unused", "reasons": [row.reason], "message": None}
