"""Chains of thought from a teacher: rows of images, question and box → examples to learn from.

For every row a teacher writes several chains that lead to the known box; rules throw out
those that give the answer away, quote coordinates, or end in another image; the teacher chooses
the best of the rest; and ``<think>…</think><answer>box</answer>`` is put together with the true
box in the student's dialect. Rules, costs and what is sent are described in ``docs/cot.md``.

The folder of a run:

=================  =====================================================================
settings.json      what the replies depend on; a run with other settings is refused
journal.jsonl      every reply, as it came; only appended to
chains.jsonl       one line a chain: verdict, reasons, tokens, cost
rows.jsonl         one line a row: status, reasons, the chosen chain, tokens, cost
cotsft.json        the accepted examples, as ShareGPT conversations
manifest.json      counts, settings, costs, versions; written last
=================  =====================================================================
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.files import read_json, write_text_atomically
from univg_eval.progress import Remaining
from univg_train.cot.journal import ReplyJournal
from univg_train.cot.output import CotSummary, OutputContext, write_outputs
from univg_train.cot.prompts import chain_prompt, choice_prompt, image_heading
from univg_train.cot.rows import CotRow, CotRows, sizes_of, survey_rows
from univg_train.cot.selection import ChainRequest, ChoiceRequest, RowState, row_state
from univg_train.cot.settings import CotSettings, public_url
from univg_train.cot.teacher import (
    DeclinedError,
    SentImage,
    Teacher,
    UnansweredError,
    encode_images,
)

__all__ = ["CotSettings", "build_chains"]

_LOG = logging.getLogger(__name__)
_PROGRESS_S = 30.0
_UNANSWERED_IN_A_ROW = 3
_DECLINED_IN_A_ROW = 10


def build_chains(
    rows: CotRows,
    out: Path,
    settings: CotSettings,
    *,
    api_key: str,
    limit: int | None = None,
    skip_faulty: bool = False,
) -> CotSummary:
    """Build chains for all rows, going on where an earlier run of the same folder ended.

    Args:
        rows: see `univg_train.cot.rows`.
        out: folder of the run; made if it is not there.
        settings: those that replies depend on must be the folder's own; prices, limits and the
            student's dialect may change from run to run, and nothing is requested again for it.
        api_key: sent to the server and kept nowhere.
        limit: only the first so many rows.
        skip_faulty: leave out faulty rows, which are counted, instead of refusing them.

    Returns:
        What was built. Rows that the server did not answer stay open for the next run.

    Raises:
        UserError: rows or settings are wrong, or the teacher does not answer. Replies at hand are
            kept.
    """
    survey = survey_rows(rows, settings.student_dialect(), skip_faulty=skip_faulty)
    _prepare_folder(out, settings)
    with ReplyJournal(out / "journal.jsonl") as journal:
        run = _Run(rows, settings, journal, limit, {id_ for id_, _ in survey.faulty})
        try:
            asyncio.run(run.request_all(api_key, min(survey.n_rows, limit or survey.n_rows)))
        except ExceptionGroup as group:
            raise _first_error(group) from group
        context = OutputContext(
            rows=rows,
            survey=survey,
            settings=settings,
            unanswered=run.unanswered,
            broken=run.broken,
            requests=run.n_requests,
        )
        return write_outputs(out, context, map(run.state, run.usable()))


def _prepare_folder(out: Path, settings: CotSettings) -> None:
    """Make the folder; refuse other settings than those of its replies."""
    path, journal = out / "settings.json", out / "journal.jsonl"
    now = settings.replies_depend_on()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not journal.exists() or not journal.stat().st_size:
            write_text_atomically(path, [json.dumps(now, indent=2) + "\n"])
            return
        before = read_json(path)
    except FileNotFoundError as error:
        raise UserError(
            f"{out} holds a journal without settings.json; give another --out"
        ) from error
    except OSError as error:
        raise UserError(f"cannot use the folder {out}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); give another --out") from error
    if not isinstance(before, dict):
        raise UserError(f"{path}: expected a JSON object; give another --out")
    changed = [
        f"{name} was {before.get(name)!r} and is {value!r}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if changed:
        raise UserError(
            f"the replies in {out} were written under other settings: {', '.join(changed)}. Go on "
            "with the same ones, or give another --out"
        )


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report of several workers': a user's, if there is one."""
    users, _ = group.split(UserError)
    error: BaseException = users or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _Run:
    """One pass over the rows."""

    def __init__(
        self,
        rows: CotRows,
        settings: CotSettings,
        journal: ReplyJournal,
        limit: int | None,
        faulty: set[str],
    ) -> None:
        self._rows = rows
        self._settings = settings
        self._dialect = settings.student_dialect()
        self._journal = journal
        self._limit = limit
        self._faulty = faulty
        self._server = public_url(settings.teacher.base_url)
        self.unanswered: dict[str, str] = {}
        self.broken: dict[str, str] = {}
        self.n_requests = 0
        self._done = 0
        self._accepted = 0
        # Until the teacher has answered once, one request at a time: what is wrong for all of
        # them is found out with the first.
        self._answered = False
        self._gate = asyncio.Lock()
        self._missed = 0
        self._end: UserError | None = None
        self._held: list[tuple[CotRow, dict[str, Any]]] = []

    def usable(self) -> Iterator[CotRow]:
        """The rows that chains are built for."""
        left = self._limit
        for row in self._rows.rows:
            if isinstance(row, CotRow) and row.id not in self._faulty:
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield row

    def state(self, row: CotRow) -> RowState:
        """What the replies in the journal amount to."""
        return self._state(row, self._journal.entries(row.id, row.digest))

    def _state(self, row: CotRow, entries: Sequence[Mapping[str, Any]]) -> RowState:
        sizes = sizes_of(row, self._rows.image_root)
        return row_state(row, entries, self._settings, self._dialect, sizes)

    async def request_all(self, api_key: str, n_rows: int) -> None:
        """Send requests until every row has its outcome, or went unanswered."""
        rows = self.usable()
        async with Teacher(self._settings.teacher, api_key) as teacher:
            try:
                async with asyncio.TaskGroup() as group:
                    progress = group.create_task(self._log_progress(teacher, n_rows))
                    workers = [
                        group.create_task(self._work(rows, teacher))
                        for _ in range(min(self._settings.concurrency, n_rows))
                    ]
                    await asyncio.gather(*workers)
                    progress.cancel()
            finally:
                self.n_requests = teacher.n_requests
        if self._end is not None:
            raise self._end
        self._release()

    async def _log_progress(self, teacher: Teacher, n_rows: int) -> None:
        remaining = Remaining()  # from the first line on: what the journal had is done by then
        while True:
            await asyncio.sleep(_PROGRESS_S)
            counts = (self._done, n_rows, self._accepted, teacher.n_requests)
            left = remaining("rows", self._done, n_rows)
            _LOG.info("%d of %d rows, %d accepted, %d requests%s", *counts, left and f", {left}")

    async def _work(self, rows: Iterator[CotRow], teacher: Teacher) -> None:
        for row in rows:  # shared: each row goes to one worker
            state = self.state(row)
            try:
                if state.next is not None:
                    state = await self._finish(state, teacher)
            except UserError as error:
                # The others' requests are under way, and paid: each worker ends with its reply.
                self._end = self._end or error
            if self._end is not None:
                return
            self._done += 1
            self._accepted += state.text is not None
            # A journal that holds everything must not keep Ctrl-C and the other tasks waiting.
            await asyncio.sleep(0)

    async def _finish(self, state: RowState, teacher: Teacher) -> RowState:
        """Request what a row still needs."""
        row, entries = state.row, list(state.entries)
        try:
            images = await asyncio.to_thread(
                encode_images, row.images, self._rows.image_root, self._settings.image_pixels
            )
        except UserError as error:
            self.broken[row.id] = str(error)
            return state
        while state.next is not None and self._end is None:
            try:
                entries.append(await self._request(row, state.next, images, teacher))
            except UnansweredError as error:
                self.unanswered[row.id] = str(error)
                self._missed += 1
                if self._missed >= _UNANSWERED_IN_A_ROW:
                    raise UserError(
                        f"the teacher at {self._server} no longer answers: {error}. Replies at "
                        "hand are kept; start the same command again when it does"
                    ) from error
                return state
            state = self._state(row, entries)
        return state

    async def _request(
        self,
        row: CotRow,
        request: ChainRequest | ChoiceRequest,
        images: list[SentImage],
        teacher: Teacher,
    ) -> dict[str, Any]:
        if not self._answered:
            async with self._gate:
                if self._end is not None:
                    raise self._end
                if not self._answered:
                    try:
                        return await self._send(row, request, images, teacher)
                    except UnansweredError as error:
                        raise UserError(
                            f"the teacher at {self._server} does not answer: {error}. See that "
                            "the server runs, and that --base-url, --model and --timeout fit it"
                        ) from error
        return await self._send(row, request, images, teacher)

    async def _send(
        self,
        row: CotRow,
        request: ChainRequest | ChoiceRequest,
        images: list[SentImage],
        teacher: Teacher,
    ) -> dict[str, Any]:
        settings = self._settings
        headings = [image_heading(row, i) for i in range(len(row.images))]
        temperature = None
        if isinstance(request, ChainRequest):
            text = chain_prompt(row, min_words=settings.min_words, max_words=settings.max_words)
            about: dict[str, Any] = {"kind": "chain", "chain": request.chain}
            temperature = settings.teacher.temperature
        else:
            text = choice_prompt(row, request.thinkings)
            about = {"kind": "choice", "shown": list(request.shown)}
        try:
            reply = await teacher.request(text, images, headings, temperature=temperature)
        except DeclinedError as error:
            return self._hold(row, about, str(error))
        self._answered = True
        self._missed = 0
        self._release()
        entry = {**about, **asdict(reply), "server": self._server, "date": _now()}
        self._journal.append(row.id, row.digest, entry)
        return entry

    def _hold(self, row: CotRow, about: Mapping[str, Any], message: str) -> dict[str, Any]:
        """Keep what the server declined until it is known that it does not decline everything."""
        if not self._answered and not self._journal.n_replies:
            raise UserError(
                f"the teacher at {self._server} declines the first request, of row {row.id!r}: "
                f"{message}. If an option does not suit the server, change it (--max-tokens-field, "
                "--temperature, --image-pixels); if it is the row, leave it out"
            )
        entry = {**about, "declined": message, "text": "", "date": _now(), "server": self._server}
        self._held.append((row, entry))
        if len(self._held) >= _DECLINED_IN_A_ROW:
            raise UserError(
                f"the teacher at {self._server} declined {len(self._held)} requests in a row, the "
                f"last one with: {message}. Replies at hand are kept"
            )
        return entry

    def _release(self) -> None:
        for row, entry in self._held:
            self._journal.append(row.id, row.digest, entry)
        self._held = []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
