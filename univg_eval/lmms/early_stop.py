"""Ending an evaluation whose first answers cannot be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from univg_eval.files import write_text_atomically
from univg_eval.lmms.generation import READABLE
from univg_eval.lmms.task import GroundingRequest
from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.terminal import show_message

__all__ = ["EXIT_STOPPED", "FILE_NAME", "FIRST", "stop_if_unreadable"]

EXIT_STOPPED = 3
FILE_NAME = "stopped_early.jsonl"
FIRST = 50
"""Answers that are looked at."""
SHARE = 0.95
"""Of these, as many or more that cannot be read end the evaluation."""
_SHOWN = 3
_WIDTH = 100


def stop_if_unreadable(
    requests: Sequence[GroundingRequest], texts: Sequence[str | None], folder: Path
) -> None:
    """End the process with status 3 and one message if almost no answer can be read.

    Args:
        requests: the first of the evaluation.
        texts: their responses.
        folder: where the responses are put then, as `FILE_NAME`, which ``univg score`` reads.

    Raises:
        SystemExit: lmms-eval catches every other exception and exits 0.
    """
    found = [
        "request failed"
        if split_failed_request(text)[1]
        else request.task.status_of(request.doc, text)
        for request, text in zip(requests, texts, strict=True)
    ]
    unread = Counter(status for status in found if status not in READABLE)
    if not found or unread.total() < SHARE * len(found):
        return
    path = folder / FILE_NAME
    write_text_atomically(
        path,
        (
            json.dumps({"id": request.doc["id"], "response": text}, ensure_ascii=False) + "\n"
            for request, text in zip(requests, texts, strict=True)
        ),
    )
    begin = Counter(_beginning(text) for text in texts).most_common(_SHOWN)
    counts = ", ".join(f"{n} {status}" for status, n in unread.most_common())
    dialects = ", ".join(dict.fromkeys(r.task.settings.dialect.value for r in requests))
    show_message(
        f"univg eval: stopped early, since {unread.total()} of the first {len(found)} answers "
        f"cannot be read in the dialect {dialects} ({counts}). The most frequent:\n"
        + "".join(f"  {n} x {text}\n" for text, n in begin)
        + f"All are in {path}. `univg check` with the same --model, --model_args and --dialect "
        "shows what the model is asked and how it answers"
    )
    raise SystemExit(EXIT_STOPPED)


def _beginning(text: str | None) -> str:
    if text is None:
        return "no response"
    shown = json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= _WIDTH else f'{shown[:_WIDTH]}…"'
