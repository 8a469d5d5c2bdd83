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

from univg_eval.files import whole_file, write_text_atomically
from univg_eval.runs.record import environment
from univg_train.cot.prompts import student_prompt
from univg_train.cot.rows import CotRows, Survey, UnusedRow, sizes_of, student_question
from univg_train.cot.selection import RowState
from univg_train.cot.settings import CotSettings

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
        settings: of the run.
        unanswered: by row id, what went wrong.
        broken: by row id, which image could not be sent.
        requests: sent by this run.
    """

    rows: CotRows
    survey: Survey
    settings: CotSettings
    unanswered: Mapping[str, str]
    broken: Mapping[str, str]
    requests: int


def write_outputs(out: Path, context: OutputContext, states: Iterable[RowState]) -> CotSummary:
    """Write chains.jsonl, rows.jsonl, cotsft.json and manifest.json; see `cot.building`."""
    lines = _Lines(context)
    # The old manifest would vouch for the new files.
    (out / "manifest.json").unlink(missing_ok=True)
    with (
        whole_file(out / "chains.jsonl", sync=True) as chains_file,
        whole_file(out / "rows.jsonl", sync=True) as rows_file,
        whole_file(out / "cotsft.json", sync=True) as examples_file,
    ):
        examples_file.write("[")
        for state in states:
            for line in lines.of_chains(state):
                chains_file.write(json.dumps(line) + "\n")
            # ASCII: a reply may hold half of a surrogate pair, which no UTF-8 file can.
            rows_file.write(json.dumps(lines.of_row(state)) + "\n")
            if state.text is not None:
                examples_file.write("\n" if lines.summary.accepted == 1 else ",\n")
                examples_file.write(json.dumps(lines.example(state)))
        examples_file.write("\n]\n")
        for unused in _unused(context):
            rows_file.write(json.dumps(unused) + "\n")
    summary = lines.finished()
    manifest = {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": {**context.rows.about, "image_root": str(context.rows.image_root.absolute())},
        "asked": context.settings.replies_depend_on(),
        "settings": context.settings.files_depend_on(),
        "result": asdict(summary),
        "versions": {**environment()["versions"], "openai": version("openai")},
    }
    write_text_atomically(out / "manifest.json", [json.dumps(manifest, indent=2) + "\n"])
    return summary


class _Lines:
    """Lines of the files, and the sums over them."""

    def __init__(self, context: OutputContext) -> None:
        self._context = context
        self._dialect = context.settings.student_dialect()
        depend_on = context.settings.replies_depend_on()
        self._provenance = {
            "teacher": depend_on["model"],
            "prompts_sha256": depend_on["prompts_sha256"],
            "univg": version("univg"),
            "openai": version("openai"),
        }
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
        tokens = summary.prompt_tokens, summary.completion_tokens
        summary.cost = self._context.settings.cost(*tokens)
        return summary

    def _tokens(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The tokens of those replies whose tokens are counted, and their cost."""
        counted = [tokens for entry in entries if (tokens := _counted(entry)) is not None]
        prompt, completion = (sum(tokens[i] for tokens in counted) for i in (0, 1))
        cost = self._context.settings.cost(prompt, completion)
        return {"prompt_tokens": prompt, "completion_tokens": completion, "cost": cost}

    def of_chains(self, state: RowState) -> Iterator[dict[str, Any]]:
        for entry in state.entries:
            if entry["kind"] != "chain":
                continue
            check = state.checks[entry["chain"]]
            self.summary.chains += 1
            self._chain_reasons.update(check.reasons)
            sound = "accepted" if entry["chain"] == state.chosen else "not_chosen"
            yield {
                "id": state.row.id,
                "chain": entry["chain"],
                "verdict": "rejected" if check.reasons else sound,
                "reasons": list(check.reasons),
                "thinking": check.thinking,
                **self._tokens([entry]),
                "reply": entry["text"],
                "declined": entry.get("declined"),
                "model": entry.get("model"),
                "date": entry["date"],
            }

    def of_row(self, state: RowState) -> dict[str, Any]:
        summary, row, context = self.summary, state.row, self._context
        reason, message = state.reason, None
        if row.id in context.broken:
            status, reason, message = "rejected", "image_unreadable", context.broken[row.id]
        elif state.next is not None:
            status, message = "unanswered", context.unanswered.get(row.id)
        else:
            status = "rejected" if state.text is None else "accepted"
        summary.rows += 1
        summary.accepted += status == "accepted"
        summary.rejected += status == "rejected"
        summary.unanswered += status == "unanswered"
        reasons = [reason] if reason is not None else []
        self._row_reasons.update(reasons)
        tokens = self._tokens(state.entries)
        summary.replies += len(state.entries)
        summary.replies_without_usage += sum(_counted(entry) is None for entry in state.entries)
        summary.prompt_tokens += tokens["prompt_tokens"]
        summary.completion_tokens += tokens["completion_tokens"]
        return {
            "id": row.id,
            "status": status,
            "reasons": reasons,
            "message": message,
            "chosen": state.chosen,
            "replies": len(state.entries),
            **tokens,
            "task": row.task,
            "source": dict(row.source),
        }

    def example(self, state: RowState) -> dict[str, Any]:
        """An accepted row as the trainers read it: a conversation of two turns."""
        row = state.row
        chains = (entry for entry in state.entries if entry["kind"] == "chain")
        chosen = next(entry for entry in chains if entry["chain"] == state.chosen)
        sizes = sizes_of(row, self._context.rows.image_root)
        question = student_question(row, self._dialect, sizes)
        return {
            "id": row.id,
            "images": list(row.images),
            "conversations": [
                {"from": "human", "value": student_prompt(question, len(row.images))},
                {"from": "gpt", "value": state.text},
            ],
            "task": row.task,
            "provenance": {
                **self._provenance,
                "answered_by": chosen["model"] or "",
                "date": chosen["date"],
            },
        }


def _counted(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    prompt, completion = entry.get("prompt_tokens"), entry.get("completion_tokens")
    return None if prompt is None or completion is None else (prompt, completion)


def _unused(context: OutputContext) -> Iterator[dict[str, Any]]:
    faulty = dict(context.survey.faulty)
    for row in context.rows.rows:
        if row.id in faulty:
            yield {"id": row.id, "status": "faulty", "reasons": [], "message": faulty[row.id]}
        elif isinstance(row, UnusedRow):
            yield {"id": row.id, "status": "unused", "reasons": [row.reason], "message": None}
