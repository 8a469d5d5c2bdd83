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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_train.cot.journal import ReplyJournal
from univg_train.cot.output import CotSummary, OutputContext, write_outputs
from univg_train.cot.prompts import chain_prompt, choice_prompt, image_heading, prompts_sha256
from univg_train.cot.rows import CotRow, CotRows, sizes_of, survey_rows
from univg_train.cot.selection import ChainRequest, ChoiceRequest, RowState, row_state
from univg_train.cot.teacher import (
    DeclinedError,
    Reply,
    SentImage,
    Teacher,
    TeacherSettings,
    UnansweredError,
    encode_images,
    public_url,
)

__all__ = ["CotSettings", "build_chains"]

_LOG = logging.getLogger(__name__)
_PROGRESS_S = 30.0
_UNANSWERED_IN_A_ROW = 3
_DECLINED_IN_A_ROW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CotSettings:
    """How chains are built.

    Attributes:
        teacher: who writes them.
        dialect: how the student writes boxes.
        min_pixels, max_pixels: limits of the student's resize, for dialects in those pixels.
        chains: how many are requested for a row.
        min_words, max_words: limits of the thinking, part of the prompt and checked.
        image_pixels: largest area of an image as it is sent.
        concurrency: requests under way at once.
        price_in, price_out: price of a million tokens of prompt and of completion; None: unknown.
    """

    teacher: TeacherSettings
    dialect: str = "univg_r1"
    min_pixels: int | None = None
    max_pixels: int | None = None
    chains: int = 3
    min_words: int = 20
    max_words: int = 180
    image_pixels: int = 1_003_520
    concurrency: int = 8
    price_in: float | None = None
    price_out: float | None = None

    def __post_init__(self) -> None:
        for name in ("chains", "min_words", "image_pixels", "concurrency"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.min_words > self.max_words:
            raise UserError(
                f"min_words is {self.min_words} and max_words {self.max_words}; expected "
                "min_words <= max_words"
            )
        if (self.price_in is None) != (self.price_out is None):
            raise UserError(
                "one of price_in and price_out is missing; give both, or none where the cost is "
                "not to be counted"
            )

    def student_dialect(self) -> Dialect:
        """The dialect with its limits; UserError if it is unknown or writes no boxes."""
        dialect = get_dialect(self.dialect, min_pixels=self.min_pixels, max_pixels=self.max_pixels)
        if not dialect.gives_boxes:
            raise UserError(
                f"dialect {dialect.name!r} gives points, no boxes; choose one that gives boxes "
                "(`univg dialects` lists them)"
            )
        return dialect

    def replies_depend_on(self) -> dict[str, Any]:
        """Everything that a reply depends on beside its row."""
        return {
            "model": self.teacher.model,
            "temperature": self.teacher.temperature,
            "max_tokens": self.teacher.max_tokens,
            "chains": self.chains,
            "min_words": self.min_words,
            "max_words": self.max_words,
            "image_pixels": self.image_pixels,
            "prompts_sha256": prompts_sha256(),
        }


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
    dialect = settings.student_dialect()
    survey = survey_rows(rows, dialect, skip_faulty=skip_faulty)
    _prepare_folder(out, settings)
    with ReplyJournal(out / "journal.jsonl") as journal:
        run = _Run(rows, settings, dialect, journal, limit, {id_ for id_, _ in survey.faulty})
        try:
            asyncio.run(run.request_all(api_key, min(survey.n_rows, limit or survey.n_rows)))
        except ExceptionGroup as group:
            raise _first_error(group) from group
        return write_outputs(
            out,
            OutputContext(
                rows=rows,
                survey=survey,
                replies_depend_on=settings.replies_depend_on(),
                settings=_changeable(settings),
                dialect=dialect,
                price=_price(settings),
                unanswered=run.unanswered,
                broken=run.broken,
                requests=run.n_requests,
            ),
            run.states(),
        )


def _price(settings: CotSettings) -> tuple[float, float] | None:
    if settings.price_in is None or settings.price_out is None:
        return None
    return settings.price_in, settings.price_out


def _changeable(settings: CotSettings) -> dict[str, Any]:
    limits = settings.student_dialect().pixel_limits
    return {
        "base_url": public_url(settings.teacher.base_url),
        "dialect": settings.dialect,
        "min_pixels": limits[0] if limits else None,
        "max_pixels": limits[1] if limits else None,
        "price_in": settings.price_in,
        "price_out": settings.price_out,
    }


def _prepare_folder(out: Path, settings: CotSettings) -> None:
    """Make the folder; refuse other settings than those of its replies."""
    path, journal = out / "settings.json", out / "journal.jsonl"
    now = settings.replies_depend_on()
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not journal.exists() or not journal.stat().st_size:
            write_text_atomically(path, [json.dumps(now, indent=2) + "\n"])
            return
        before = json.loads(path.read_text(encoding="utf-8"))
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
        dialect: Dialect,
        journal: ReplyJournal,
        limit: int | None,
        faulty: set[str],
    ) -> None:
        self._rows = rows
        self._settings = settings
        self._dialect = dialect
        self._journal = journal
        self._limit = limit
        self._faulty = faulty
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
        self._held: list[tuple[CotRow, dict[str, Any]]] = []

    def _usable(self) -> Iterator[CotRow]:
        left = self._limit
        for row in self._rows.rows:
            if isinstance(row, CotRow) and row.id not in self._faulty:
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield row

    def states(self) -> Iterator[tuple[CotRow, list[dict[str, Any]], RowState]]:
        """Every row with its replies and what they amount to."""
        for row in self._usable():
            entries = self._journal.entries(row.id, row.digest)
            yield row, entries, self._state(row, entries)

    def _state(self, row: CotRow, entries: list[dict[str, Any]]) -> RowState:
        settings = self._settings
        return row_state(
            row,
            entries,
            chains=settings.chains,
            min_words=settings.min_words,
            max_words=settings.max_words,
            dialect=self._dialect,
            sizes=sizes_of(row, self._rows.image_root),
        )

    async def request_all(self, api_key: str, n_rows: int) -> None:
        """Send requests until every row has its outcome, or went unanswered."""
        rows = self._usable()
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
        self._release()

    async def _log_progress(self, teacher: Teacher, n_rows: int) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_S)
            _LOG.info(
                "%d of %d rows, %d accepted, %d requests",
                self._done,
                n_rows,
                self._accepted,
                teacher.n_requests,
            )

    async def _work(self, rows: Iterator[CotRow], teacher: Teacher) -> None:
        for row in rows:  # shared: each row goes to one worker
            entries = self._journal.entries(row.id, row.digest)
            state = self._state(row, entries)
            if state.next is not None:
                state = await self._finish(row, entries, state, teacher)
            self._done += 1
            self._accepted += state.status == "accepted"
            # A journal that holds everything must not keep Ctrl-C and the other tasks waiting.
            await asyncio.sleep(0)

    async def _finish(
        self,
        row: CotRow,
        entries: list[dict[str, Any]],
        state: RowState,
        teacher: Teacher,
    ) -> RowState:
        try:
            images = await asyncio.to_thread(
                encode_images, row.images, self._rows.image_root, self._settings.image_pixels
            )
        except UserError as error:
            self.broken[row.id] = str(error)
            return state
        while state.next is not None:
            try:
                entry = await self._request(row, state.next, images, teacher)
            except UnansweredError as error:
                self.unanswered[row.id] = str(error)
                self._missed += 1
                if self._missed >= _UNANSWERED_IN_A_ROW:
                    raise UserError(
                        f"the teacher at {self._server} no longer answers: {error}. Replies at "
                        "hand are kept; start the same command again when it does"
                    ) from error
                return state
            entries.append(entry)
            state = self._state(row, entries)
        return state

    @property
    def _server(self) -> str:
        return public_url(self._settings.teacher.base_url)

    async def _request(
        self,
        row: CotRow,
        request: ChainRequest | ChoiceRequest,
        images: list[SentImage],
        teacher: Teacher,
    ) -> dict[str, Any]:
        if not self._answered:
            await self._gate.acquire()
            entry = None
            if not self._answered:
                try:
                    entry = await self._send(row, request, images, teacher)
                except UnansweredError as error:
                    raise UserError(
                        f"the teacher at {self._server} does not answer: {error}. See that "
                        "the server runs, and that --base-url, --model and --timeout fit it"
                    ) from error
            # After an error the gate stays shut: those who wait behind it end with the run.
            self._gate.release()
            if entry is not None:
                return entry
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
        if isinstance(request, ChainRequest):
            text = chain_prompt(row, min_words=settings.min_words, max_words=settings.max_words)
            about: dict[str, Any] = {"kind": "chain", "chain": request.chain}
            temperature: float | None = settings.teacher.temperature
        else:
            text = choice_prompt(row, request.thinkings)
            about = {"kind": "choice", "shown": list(request.shown)}
            temperature = None
        try:
            reply = await teacher.request(text, images, headings, temperature=temperature)
        except DeclinedError as error:
            return self._hold(row, about, str(error))
        self._answered = True
        self._missed = 0
        self._release()
        entry = about | _entry(reply, self._server)
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
        held, self._held = self._held, []
        for row, entry in held:
            self._journal.append(row.id, row.digest, entry)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _entry(reply: Reply, server: str) -> dict[str, Any]:
    return {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "server": server,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "date": _now(),
    }
