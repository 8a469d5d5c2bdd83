"""Scoring a file of responses against a set of samples, both streamed, on several cores.

A response file is JSON Lines, one object a response, in any order::

    {"id": "mig_bench-00017", "response": "<think>…</think> <answer>(102,33),(640,871)</answer>"}

Besides, a line may hold ``image_sizes`` and ``input_sizes`` (lists of [width, height], one an
image: the originals, and what the model saw after its resize) and ``prompt``. A response of null
says that the model gave none; a message of a failed request (`runs.failed_requests`) is read
as null. The responses.jsonl of a run record is such a file.

The file is read twice: once to note where the response of each id stands, and once more, sample by
sample, to score them in the order of the samples. Besides those places (24 bytes a response) and
the values behind the intervals (16 bytes a sample) only a few batches are held at a time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.files import numbered_lines
from univg_eval.protocols import Protocol
from univg_eval.published_rules import Answered, PublishedRule, answered_by
from univg_eval.runs.failed_requests import split_failed_request
from univg_eval.samples import LARGEST_SIDE, GroundingSample
from univg_eval.scoring import HeadlineValues, Response, SampleScore, Tally, score_samples

__all__ = ["FileScores", "sample_lines", "score_file", "score_line"]

MAX_PROCESSES = 8
BATCH = 1000
"""Samples that a worker scores at a time."""
_FIELDS = ("id", "response", "image_sizes", "input_sizes", "prompt")
# Those of a run record's responses.jsonl that say nothing of how to read it.
_KNOWN_FIELDS = frozenset((*_FIELDS, "benchmark", "task", "error"))
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class FileScores:
    """The result of scoring a response file.

    Attributes:
        metrics: ``{"tasks": …, "macro": …}`` as `univg_eval.scoring.aggregate` gives it.
        headline_values: the values behind the numbers that tables show, with their clusters.
        n_samples, n_responses: samples, and those of them with a response; one without is scored
            as unanswered.
        n_left_out: samples that `leave_out` names, which count in none of the others.
        missing: ids of the first ten samples without a response.
        statuses: number of samples, missing and excluded ones included, per status.
        ignored_fields: names of fields that stand in some line and are not read, sorted.
        n_other_sizes: responses with other ``image_sizes`` than their sample's, where the dialect
            reads boxes by them.
        published: the metrics of the published rule; empty without one.
    """

    metrics: dict[str, Any]
    headline_values: HeadlineValues
    n_samples: int
    n_responses: int
    n_left_out: int
    missing: tuple[str, ...]
    statuses: dict[str, int]
    ignored_fields: tuple[str, ...]
    n_other_sizes: int
    published: dict[str, float]


def sample_lines(samples: Iterable[GroundingSample]) -> Iterator[bytes]:
    """Samples as lines of a samples.jsonl, for `score_file`."""
    return (json.dumps(sample.to_dict()).encode() for sample in samples)


def score_file(
    samples: Iterable[bytes],
    path: str | os.PathLike[str],
    *,
    dialect: Dialect | None,
    protocol: Protocol,
    split: str | None = None,
    source: str = "samples",
    lacking: str = "",
    leave_out: Set[str] = frozenset(),
    out: IO[bytes] | None = None,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    published: PublishedRule | None = None,
) -> FileScores:
    """Score the response to every sample; samples without one count as unanswered.

    Args:
        samples: lines of a samples.jsonl, iterated once; blank ones are passed over.
        path: JSON Lines, see the top of this module; a pipe is copied to a temporary file.
        dialect: how the model writes boxes; None only for protocols that bring their own rule.
        protocol: the scoring rule.
        split: score the samples of this one only.
        source: what messages call the samples, e.g. the path of their file.
        lacking: in words, what these samples lack of the benchmark; said of an unknown id.
        leave_out: ids of samples that are passed over, with the responses to them.
        out: gets the line of each sample, in their order; see `score_line`.
        processes: worker processes; None takes one a core, up to 8.
        progress: called with (responses scored, responses in all).
        published: a rule for the whole set beside the protocol; samples and answers are then held.

    Raises:
        UserError: the responses cannot be read; or, named as file:line, a line is not UTF-8, not a
            JSON object of the form described, has an id that is unknown or a duplicate, or lacks
            what the dialect or the protocol needs; or a sample breaks the schema, or there is none
            of the split.
    """
    path = Path(path)
    with _opened(path) as file:
        responses = _Responses(file, path)
        pairs = _Pairs(samples, responses, source, split, lacking, leave_out)
        rule = _Rule(dialect, protocol, path, source, out is not None, published is not None)
        workers = 1 if len(responses) <= BATCH else processes or min(_cores(), MAX_PROCESSES)
        tally, values = Tally(), HeadlineValues()
        statuses, ignored, n_other_sizes = Counter[str](), set[str](), 0
        answered: list[Answered] = []
        for part in _in_order(rule, pairs.batches(), workers):
            tally.merge(part.tally)
            values.merge(part.values)
            statuses.update(part.statuses)
            ignored |= part.ignored
            n_other_sizes += part.n_other_sizes
            answered += part.answered
            if out is not None:
                out.write(part.lines)
            if progress is not None:
                done = statuses.total() + pairs.n_left_out
                progress(min(done, len(responses)), len(responses))
        pairs.require_all()
    return FileScores(
        metrics=tally.result(),
        headline_values=values,
        n_samples=pairs.n_samples,
        n_responses=len(responses) - pairs.n_unread,
        n_left_out=pairs.n_left_out,
        missing=tuple(pairs.missing),
        statuses=dict(sorted(statuses.items())),
        ignored_fields=tuple(sorted(ignored)),
        n_other_sizes=n_other_sizes,
        published=published.measure(answered) if published is not None else {},
    )


# --- which response belongs to which sample ---------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, or a copy of what cannot be read twice."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read the responses {path}: {error.strerror or error}; expected a "
            'JSON Lines file of {"id": …, "response": …}'
        ) from error
    with file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield file
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(file, copy)
            copy.seek(0)
            yield cast(BinaryIO, copy)


class _Responses:
    """The response lines of a file, by the id of the sample."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self.path = path
        keys, places, numbers = array("q"), array("q"), array("q")
        place = 0
        for number, line in numbered_lines(file, path):
            if line.strip():
                keys.append(hash(_id_of(line, f"{path}:{number}")))
                places.append(place)
                numbers.append(number)
            place += len(line)
        order = np.argsort(np.array(keys), kind="stable")
        self._keys = np.array(keys)[order]
        self._places = np.array(places)[order]
        self._numbers = np.array(numbers)[order]
        self._taken = np.zeros(len(order), dtype=bool)
        doubled = np.flatnonzero(self._keys[1:] == self._keys[:-1])
        if len(doubled):
            first = doubled[np.argmin(self._numbers[doubled + 1])]
            raise UserError(
                f"{path}:{self._numbers[first + 1]}: the id {self._id(first)!r} is a duplicate of "
                f"line {self._numbers[first]}; expected one response a sample"
            )

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, ids: Sequence[str]) -> list[tuple[int, bytes] | None]:
        """Line number and line of the response to each sample; None where there is none.

        Raises:
            UserError: a sample came before.
        """
        keys = np.array([hash(name) for name in ids])
        where = np.searchsorted(self._keys, keys)
        where[where == len(self._keys)] = 0
        found = self._keys[where] == keys if len(self) else np.zeros(len(ids), dtype=bool)
        taken, counts = np.unique(where[found], return_counts=True)
        if self._taken[taken].any() or (counts > 1).any():
            index = taken[self._taken[taken] | (counts > 1)][0]
            raise UserError(f"the sample id {self._id(index)!r} is a duplicate; ids must be unique")
        self._taken[taken] = True
        return [
            (int(self._numbers[index]), self._line(index)) if hit else None
            for index, hit in zip(where.tolist(), found.tolist(), strict=True)
        ]

    def first_left(self) -> tuple[int, str] | None:
        """Line number and id of the first response that was not taken; None without one."""
        left = np.flatnonzero(~self._taken)
        if not len(left):
            return None
        index = left[np.argmin(self._numbers[left])]
        return int(self._numbers[index]), self._id(index)

    def _line(self, index: int) -> bytes:
        self._file.seek(self._places[index])
        return self._file.readline()

    def _id(self, index: int) -> str:
        return str(json.loads(self._line(index))["id"])


@dataclass(frozen=True, slots=True)
class _Pair:
    """A sample and the response to it, as lines with their numbers."""

    number: int
    sample: bytes
    response: tuple[int, bytes] | None


class _Pairs:
    """Samples with their responses, in batches, and what is known of them at the end."""

    def __init__(
        self,
        samples: Iterable[bytes],
        responses: _Responses,
        source: str,
        split: str | None,
        lacking: str,
        leave_out: Set[str],
    ) -> None:
        self._samples = samples
        self._responses = responses
        self._source = source
        self._split = split
        self._lacking = lacking
        self._leave_out = leave_out
        self._splits: set[str] = set()
        self._first_id = ""
        self.n_samples = self.n_left_out = 0
        self.n_unread = 0  # responses to samples that are left out
        self.missing: list[str] = []

    def batches(self) -> Iterator[list[_Pair]]:
        """Every sample of the split."""
        chosen = self._chosen()
        while batch := list(islice(chosen, BATCH)):
            ids = [name for name, _, _ in batch]
            self._first_id = self._first_id or ids[0]
            self.n_samples += len(ids)
            found = self._responses.take(ids)
            without = (name for name, line in zip(ids, found, strict=True) if line is None)
            self.missing += islice(without, _SHOWN - len(self.missing))
            yield [
                _Pair(number, line, response)
                for (_, number, line), response in zip(batch, found, strict=True)
            ]

    def _chosen(self) -> Iterator[tuple[str, int, bytes]]:
        """Id, line number and line of each sample."""
        for number, line in enumerate(self._samples, start=1):
            if not line.strip():
                continue
            where = f"{self._source}:{number}"
            row = _json(line, where)
            if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                raise UserError(f"{where}: {_short(row)}; expected an object with an id")
            self._splits.add(str(row.get("split")))
            if self._split not in (None, row.get("split")):
                continue
            if row["id"] in self._leave_out:
                self.n_left_out += 1
                self.n_unread += self._responses.take([row["id"]]) != [None]
                continue
            yield row["id"], number, line

    def require_all(self) -> None:
        """UserError where there was no sample, or a response belongs to none."""
        if not self.n_samples and self.n_left_out:
            raise UserError(
                f"all {self.n_left_out} samples to be scored are left out: score another split, or "
                "without --leave-out"
            )
        if not self.n_samples and self._splits:
            known = ", ".join(sorted(self._splits))
            raise UserError(f"{self._source} has no split {self._split!r}; it has: {known}")
        if not self.n_samples:
            raise UserError(f"{self._source} holds no samples; prepare the benchmark again")
        left = self._responses.first_left()
        if left is not None:
            number, name = left
            # Ids begin with the benchmark's name.
            is_of_set = name.partition("-")[0] == self._first_id.partition("-")[0]
            if is_of_set and self._lacking:
                remedy = f"{self._lacking}: prepare it whole, or leave out this line"
            elif is_of_set and self._split is not None:
                remedy = f"only the split {self._split!r} is scored: leave out --split or this line"
            else:
                remedy = "score the responses with the benchmark that they answer"
            raise UserError(
                f"{self._responses.path}:{number}: the id {_short(name)} is not one of the "
                f"{self.n_samples} samples (ids are like {self._first_id!r}); {remedy}"
            )


def _json(line: bytes, where: str) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8 (byte {error.start} of the line is 0x{line[error.start]:02x}); "
            "convert the file to UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}); expected one object a line") from error


def _id_of(line: bytes, where: str) -> str:
    row = _json(line, where)
    if not isinstance(row, dict):
        raise UserError(f'{where}: {_short(row)}; expected an object: {{"id": …, "response": …}}')
    for name in ("id", "response"):
        if name not in row:
            raise UserError(
                f"{where}: no field {name!r}; expected 'id' and 'response', and optionally "
                f"{', '.join(_FIELDS[2:])}; the line has: {', '.join(map(repr, row)) or 'no field'}"
            )
    name = row["id"]
    if not isinstance(name, str):
        raise UserError(f"{where}: field 'id' is {_short(name)}; expected a string")
    return name


# --- a batch of samples, in a worker ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a worker needs besides the lines."""

    dialect: Dialect | None
    protocol: Protocol
    path: Path
    source: str
    keep_lines: bool
    keep_answers: bool

    @property
    def reads_sizes(self) -> bool:
        """Whether boxes are read by the sizes of the images."""
        dialect = self.dialect
        return dialect is not None and (dialect.needs_image_size or dialect.needs_input_size)


@dataclass(frozen=True, slots=True)
class _Part:
    """The scores of a batch."""

    tally: Tally
    values: HeadlineValues
    statuses: Counter[str]
    ignored: set[str]
    n_other_sizes: int
    lines: bytes
    answered: list[Answered]


def _score_batch(rule: _Rule, batch: Sequence[_Pair]) -> _Part:
    ignored: set[str] = set()
    samples, responses = [], []
    for pair in batch:
        sample = GroundingSample.from_dict(
            json.loads(pair.sample), where=f"{rule.source}:{pair.number}"
        )
        samples.append(sample)
        responses.append(_read(pair, sample, rule, ignored))
    tally, statuses = Tally(), Counter[str]()
    scores = _scores(batch, samples, responses, rule)
    for score in scores:
        tally.add(score)
        statuses[score.status] += 1
    lines = b"".join(map(score_line, scores)) if rule.keep_lines else b""
    n_other_sizes = sum(map(_has_other_sizes, samples, responses)) if rule.reads_sizes else 0
    answered = answered_by(samples, responses, rule.dialect) if rule.keep_answers else []
    values = HeadlineValues(scores)
    return _Part(tally, values, statuses, ignored, n_other_sizes, lines, answered)


def _has_other_sizes(sample: GroundingSample, response: Response) -> bool:
    given, known = response.image_sizes, sample.image_sizes
    return bool(given and known) and list(given or ()) != list(known or ())


def _scores(
    batch: Sequence[_Pair],
    samples: Sequence[GroundingSample],
    responses: Sequence[Response],
    rule: _Rule,
) -> list[SampleScore]:
    try:
        return score_samples(samples, responses, rule.dialect, protocol=rule.protocol)
    except UserError:
        # One by one, to name the line.
        for pair, sample, response in zip(batch, samples, responses, strict=True):
            try:
                score_samples([sample], [response], rule.dialect, protocol=rule.protocol)
            except UserError as error:
                if pair.response is None:
                    raise
                raise UserError(f"{rule.path}:{pair.response[0]}: {error}") from error
        raise


def _read(pair: _Pair, sample: GroundingSample, rule: _Rule, ignored: set[str]) -> Response:
    if pair.response is None:
        # "" keeps protocols that read the prompt from asking for it: there is nothing to read.
        return Response(None, prompt="")
    number, line = pair.response
    where = f"{rule.path}:{number}"
    row = json.loads(line)
    text, prompt = row["response"], row.get("prompt")
    if not (text is None or isinstance(text, str)):
        raise UserError(
            f"{where}: field 'response' is {_short(text)}; expected the model's whole text, or "
            "null if it gave none"
        )
    if not (prompt is None or isinstance(prompt, str)):
        raise UserError(f"{where}: field 'prompt' is {_short(prompt)}; expected a string")
    if len(row) > 2:
        ignored.update(row.keys() - _KNOWN_FIELDS)
        benchmark = row.get("benchmark")
        if isinstance(benchmark, str) and benchmark != sample.benchmark:
            raise UserError(
                f"{where}: the response is to {_short(benchmark)}; expected {sample.benchmark!r}: "
                "one given under a control or to videos is none to the benchmark"
            )
    return Response(
        split_failed_request(text)[0],
        image_sizes=_sizes(row, "image_sizes", len(sample.images), where),
        input_sizes=_sizes(row, "input_sizes", len(sample.images), where),
        prompt=prompt,
    )


def _sizes(
    row: dict[str, Any], name: str, n_images: int, where: str
) -> list[tuple[int, int]] | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(size, list)
        and len(size) == 2
        and all(type(v) is int and 0 < v <= LARGEST_SIDE for v in size)
        for size in value
    ):
        raise UserError(
            f"{where}: field {name!r} is {_short(value)}; expected [[width, height], …] in whole "
            "pixels, one pair an image"
        )
    if len(value) != n_images:
        raise UserError(
            f"{where}: field {name!r} has {len(value)} sizes; expected {n_images}, one for each "
            "image of the sample"
        )
    return [(width, height) for width, height in value]


_WHERE_THEY_APPLY = (
    *("image_right", "no_target_right", "f1", "f1_95", "f1_mean", "ap50", "matched_iou"),
    *("images_right", "n_targets"),
)


def score_line(score: SampleScore) -> bytes:
    """A sample's line of scores.jsonl, with the newline.

    Always id, task, status, box (xyxy_norm or null), iou (null without a single target) and
    n_boxes; besides, where they apply: ``excluded`` and the names of `_WHERE_THEY_APPLY`.
    """
    row: dict[str, Any] = {
        "id": score.id,
        "task": score.task,
        "status": score.status,
        "box": score.box,
        "iou": score.iou,
        "n_boxes": score.n_boxes,
    }
    if score.excluded:
        row["excluded"] = True
    for name in _WHERE_THEY_APPLY:
        value = getattr(score, name)
        if value is not None:
            row[name] = value
    return json.dumps(row).encode("ascii") + b"\n"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


# --- all batches, in order -------------------------------------------------------------------


def _in_order(rule: _Rule, batches: Iterable[Sequence[_Pair]], workers: int) -> Iterator[_Part]:
    """The scores of each batch, from worker processes; a few batches wait at a time."""
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from (_score_batch(rule, batch) for batch in batches)
        return
    # By forking, a dialect of the user's own is known there too.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"), _start_worker, (rule,))
    waiting: deque[Future[_Part]] = deque()
    try:
        for batch in batches:
            with _interrupts_wait():
                waiting.append(pool.submit(_work_on, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C counts at the end of the block.

    Amid the start of a worker it would leave one of which the pool does not know: nobody would end
    it, and Python waits for it at its exit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
    if came and callable(before):
        before(came[0], None)


_worker_rule: list[_Rule] = []


def _start_worker(rule: _Rule) -> None:
    # Ctrl-C reaches every process of the terminal: the parent alone reports it and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker_rule[:] = [rule]


def _end_with_parent() -> None:
    # A parent that was killed ends nobody, and its workers would wait for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work_on(batch: Sequence[_Pair]) -> _Part:
    return _score_batch(_worker_rule[0], batch)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
