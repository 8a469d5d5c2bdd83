"""Scoring a file of responses against a set of samples: streaming, and on several cores.

A response file is JSON Lines, one object a response, in any order::

    {"id": "mig_bench-00017", "response": "<think>…</think> <answer>(102,33),(640,871)</answer>"}

Besides, a line may hold ``image_sizes`` and ``input_sizes`` (lists of [width, height], one an
image: the originals, and what the model saw after its resize) and ``prompt``. A response of null
says that the model gave none; a message of a failed request (`runs.failed_requests`) is read
as null. The responses.jsonl of a run record is such a file.

Neither file is ever held whole: samples are kept as columns of what scoring needs, and both files
are cut into byte ranges that worker processes read by themselves, those of the responses to score
and sum them up. The ranges depend on the file alone and are put together in order, so the result
does not depend on the number of processes.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.files import iter_json_lines
from univg_eval.protocols import Protocol
from univg_eval.runs.failed_requests import split_response
from univg_eval.samples import (
    LARGEST_SIDE,
    SAMPLES_FILE,
    GroundingSample,
    Target,
    benchmark_dir,
    load_manifest,
)
from univg_eval.scoring import Response, SampleScore, Tally, macro_average, score_samples

__all__ = ["FileScores", "SampleTable", "score_file", "score_line"]

# Large enough that a range holds thousands of responses, small enough that a few of them in
# flight do not count.
RANGE_BYTES = 4 << 20
MAX_PROCESSES = 8
# Several batches a range: a batch's Python objects are what a worker holds at a time.
BATCH_LINES = 2000

_FIELDS = ("id", "response", "image_sizes", "input_sizes", "prompt")
_OPTIONAL_FIELDS = ", ".join(_FIELDS[2:])
# Those of a run record's responses.jsonl that tell nothing of how to read it.
_KNOWN_FIELDS = frozenset((*_FIELDS, "benchmark", "task", "error"))


# --- ranges of a file, in several processes --------------------------------------------------

_R = TypeVar("_R")


def _over_ranges(
    size: int, work: Callable[[int, int], _R], processes: int | None, range_bytes: int
) -> Generator[_R, None, None]:
    """``work(start, stop)`` for the ranges of a file of `size` bytes, results in their order.

    Args:
        size: of the file in bytes.
        work: takes a range of bytes; runs in a forked process, so only its result is pickled.
        processes: None takes one a core, up to 8. One range needs no process besides this one.
        range_bytes: length of a range.
    """
    ranges = [(start, start + range_bytes) for start in range(0, size, range_bytes)]
    workers = min(len(ranges), processes or min(_cores(), MAX_PROCESSES))
    # What the workers share, the samples above all, they get by forking: pickling would copy it.
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from (work(start, stop) for start, stop in ranges)
        return
    # The collector would touch, and so copy, every page that the workers share.
    gc.collect()
    gc.freeze()
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("fork"), _start_worker, (work,)
    )
    try:
        yield from executor.map(_work_on, ranges)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
        gc.unfreeze()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_workers_task: list[Callable[[int, int], Any]] = []


def _start_worker(work: Callable[[int, int], Any]) -> None:
    # Ctrl-C reaches every process of the terminal: the parent alone tells it and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _workers_task[:] = [work]


def _work_on(limits: tuple[int, int]) -> Any:
    return _workers_task[0](*limits)


def _read_range(path: Path, start: int, stop: int) -> bytes:
    """The whole lines of a file that begin in the bytes [start, stop)."""
    with path.open("rb") as file:
        if start:
            # The line that runs over `start` belongs to the range before, unless it ends there.
            file.seek(start - 1)
            if not file.readline(stop - start + 1).endswith(b"\n"):
                return b""
        block = file.read(max(0, stop - file.tell()))
        if block and not block.endswith(b"\n"):
            block += file.readline()
    return block


# --- samples ---------------------------------------------------------------------------------


class SampleTable:
    """What scoring needs of a set of samples, in columns: a few hundred bytes a sample.

    `sample` gives back a `GroundingSample` without instruction, image paths, masks and
    provenance, which no metric reads.
    """

    def __init__(self) -> None:
        self.index_of: dict[str, int] = {}
        self._benchmarks: list[str] = []
        self._tasks: list[str] = []
        self._task_code: dict[tuple[str, str], int] = {}
        self._task = array("i")
        self._given = array("b")
        self._n_images = array("i")
        self._n_targets = array("i")
        self._image = array("i")
        self._box = array("d")
        self._several: dict[int, tuple[Target, ...]] = {}
        self._sizes_start = array("q", [0])
        self._sizes = array("i")

    def benchmark(self, index: int) -> str:
        """Name of the benchmark that a sample belongs to."""
        return self._benchmarks[self._task[index]]

    @classmethod
    def from_samples(cls, samples: Iterable[GroundingSample]) -> SampleTable:
        """Take up samples one by one; their order is the order of the table.

        Raises:
            UserError: an id stands twice.
        """
        table = cls()
        for sample in samples:
            table._append(sample)
        return table

    @classmethod
    def load(
        cls,
        benchmark: str,
        *,
        split: str | None = None,
        root: str | os.PathLike[str] | None = None,
        processes: int | None = None,
        range_bytes: int = RANGE_BYTES,
    ) -> tuple[SampleTable, str]:
        """Read a prepared benchmark without holding its samples as objects.

        Args:
            benchmark, root: as in `univg_eval.samples.load_samples`.
            split: only this one; None: all.
            processes, range_bytes: as for `score_file`.

        Returns:
            The table of the samples of `split` (all if None), and the fingerprint of the whole
            benchmark as its manifest tells it.

        Raises:
            UserError: the benchmark is not prepared, a row breaks the schema, an id stands twice,
                or no row has the split.
        """
        manifest = load_manifest(benchmark, root)
        path = benchmark_dir(benchmark, root) / SAMPLES_FILE
        table, splits = _load_in_parts(path, split, processes, range_bytes)
        if not len(table):
            if not splits:
                raise UserError(f"{path} holds no samples; prepare {benchmark!r} again")
            known = ", ".join(sorted(splits))
            raise UserError(f"benchmark {benchmark!r} has no split {split!r}; it has: {known}")
        fingerprint = manifest.get("fingerprint")
        if not isinstance(fingerprint, str):
            raise UserError(
                f"the manifest of {benchmark!r} holds no fingerprint; prepare the benchmark again"
            )
        return table, fingerprint

    def _code(self, benchmark: str, task: str) -> int:
        code = self._task_code.setdefault((benchmark, task), len(self._tasks))
        if code == len(self._tasks):
            self._benchmarks.append(benchmark)
            self._tasks.append(task)
        return code

    def _append(self, sample: GroundingSample) -> None:
        index = len(self)
        if sample.id in self.index_of:
            raise UserError(f"the sample id {sample.id!r} stands twice; ids must be unique")
        self.index_of[sample.id] = index
        self._task.append(self._code(sample.benchmark, sample.task))
        self._given.append(sample.image_is_given)
        self._n_images.append(len(sample.images))
        self._n_targets.append(len(sample.targets))
        if len(sample.targets) == 1:
            self._image.append(sample.targets[0].image)
            self._box.extend(sample.targets[0].box)
        else:
            self._image.append(-1)
            self._box.extend((0.0, 0.0, 0.0, 0.0))
            self._several[index] = tuple(Target(t.image, t.box) for t in sample.targets)
        for size in zip(sample.widths, sample.heights, strict=True):
            self._sizes.extend(size)
        self._sizes_start.append(len(self._sizes))

    def extend(self, other: SampleTable) -> None:
        """Take up the samples of another table behind those of this one.

        Raises:
            UserError: an id stands in both.
        """
        start, first_size = len(self), len(self._sizes)
        for name in other.index_of:
            if name in self.index_of:
                raise UserError(f"the sample id {name!r} stands twice; ids must be unique")
        self.index_of.update(zip(other.index_of, range(start, start + len(other)), strict=True))
        codes = [self._code(*name) for name in zip(other._benchmarks, other._tasks, strict=True)]
        self._task.extend(codes[code] for code in other._task)
        self._given.extend(other._given)
        self._n_images.extend(other._n_images)
        self._n_targets.extend(other._n_targets)
        self._image.extend(other._image)
        self._box.extend(other._box)
        self._several.update((start + i, targets) for i, targets in other._several.items())
        self._sizes.extend(other._sizes)
        self._sizes_start.extend(first_size + end for end in other._sizes_start[1:])

    def __len__(self) -> int:
        return len(self.index_of)

    @property
    def tasks(self) -> list[str]:
        """Tasks in order of first appearance."""
        return list(dict.fromkeys(self._tasks))

    def n_images(self, index: int) -> int:
        """Number of images of a sample."""
        return self._n_images[index]

    def sample(self, index: int, sample_id: str) -> GroundingSample:
        """The sample at `index`, with what scoring needs.

        Args:
            index: position in the table.
            sample_id: its id, which the caller has looked up in `index_of`.
        """
        if self._n_targets[index] == 1:
            x1, y1, x2, y2 = self._box[4 * index : 4 * index + 4]
            targets: tuple[Target, ...] = (Target(self._image[index], (x1, y1, x2, y2)),)
        else:
            targets = self._several[index]
        sizes = self._sizes[self._sizes_start[index] : self._sizes_start[index + 1]]
        code = self._task[index]
        return GroundingSample(
            id=sample_id,
            benchmark=self._benchmarks[code],
            task=self._tasks[code],
            split="",
            images=(),
            widths=tuple(sizes[::2]),
            heights=tuple(sizes[1::2]),
            instruction="",
            targets=targets,
            image_is_given=bool(self._given[index]),
            cluster="",
        )


def _load_in_parts(
    path: Path, split: str | None, processes: int | None, range_bytes: int
) -> tuple[SampleTable, set[str]]:
    """The samples of a samples.jsonl that are of `split`, and the splits that occur in it."""

    def load(start: int, stop: int) -> tuple[SampleTable, set[str]] | None:
        splits: set[str] = set()
        lines = _read_range(path, start, stop).split(b"\n")
        try:
            return SampleTable.from_samples(_chosen(map(_row, lines), split, splits)), splits
        except (ValueError, RecursionError):  # a UserError is a ValueError
            return None

    try:
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    table, splits = SampleTable(), set[str]()
    with closing(_over_ranges(size, load, processes, range_bytes)) as parts:
        for part in parts:
            if part is None:
                # A fault: read in order from the start, to tell it with its line.
                splits = set()
                numbered = ((row, f"{path}:{number}") for number, row in iter_json_lines(path))
                return SampleTable.from_samples(_chosen(numbered, split, splits)), splits
            table.extend(part[0])
            splits |= part[1]
    return table, splits


def _row(line: bytes) -> tuple[Any, str] | None:
    return (json.loads(line.decode("utf-8")), "") if line.strip() else None


def _chosen(
    rows: Iterable[tuple[Any, str] | None], split: str | None, splits: set[str]
) -> Iterator[GroundingSample]:
    """The samples of `split` among rows and their places; notes every split in `splits`."""
    for entry in rows:
        if entry is not None:
            sample = GroundingSample.from_dict(entry[0], where=entry[1])
            splits.add(sample.split)
            if split is None or sample.split == split:
                yield sample


# --- responses -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileScores:
    """The result of scoring a response file.

    Attributes:
        metrics: ``{"tasks": …, "macro": …}`` as `univg_eval.scoring.aggregate` gives it.
        n_responses: responses read.
        missing: ids of the samples without a response, in the order of the samples; they are
            scored as unanswered.
        statuses: number of samples, missing and excluded ones included, per status.
        ignored_fields: names of fields that stand in some line and are not read, sorted.
        lines: with ``keep_lines``, one JSON line a sample, in the order of the samples.
    """

    metrics: dict[str, Any]
    n_responses: int
    missing: tuple[str, ...]
    statuses: dict[str, int]
    ignored_fields: tuple[str, ...]
    lines: Sequence[bytes] | None


@dataclass(frozen=True, slots=True)
class _Settings:
    table: SampleTable
    path: Path
    dialect: Dialect | None
    protocol: Protocol
    keep_lines: bool


@dataclass(slots=True)
class _Part:
    """What one range of the file gives; parallel lists, in the order of its lines."""

    indices: array[int] = field(default_factory=lambda: array("i"))
    line_numbers: array[int] = field(default_factory=lambda: array("i"))
    lines: list[bytes] = field(default_factory=list)
    n_lines: int = 0
    tally: Tally = field(default_factory=Tally)
    statuses: Counter[str] = field(default_factory=Counter)
    ignored: set[str] = field(default_factory=set)
    error: tuple[int, str] | None = None


def score_file(
    table: SampleTable,
    path: str | os.PathLike[str],
    *,
    dialect: Dialect | None,
    protocol: Protocol,
    keep_lines: bool = False,
    processes: int | None = None,
    range_bytes: int = RANGE_BYTES,
) -> FileScores:
    """Score every response of a file; samples without one count as unanswered.

    Args:
        table: the samples.
        path: JSON Lines, see the top of this module; a pipe is read by one process.
        dialect: how the model writes boxes; None only for protocols that bring their own rule.
        protocol: the scoring rule.
        keep_lines: whether to keep the line of each sample, see `score_line`.
        processes: worker processes; None takes one a core, up to 8. One range needs no worker.
        range_bytes: size of the ranges that the file is cut into.

    Raises:
        UserError: the file cannot be read; or, named as file:line, a line is not UTF-8, not a
            JSON object of the form described, has an id that is unknown or stands twice, or lacks
            what the dialect or the protocol needs.
    """
    settings = _Settings(table, Path(path), dialect, protocol, keep_lines)
    # 0: no response yet; else the line of the response, from 1.
    line_of = np.zeros(len(table), dtype=np.int64)
    kept: list[bytes] = [b""] * len(table) if keep_lines else []
    tally = Tally()
    statuses: Counter[str] = Counter()
    ignored: set[str] = set()
    lines_before = 0
    with closing(_parts(settings, processes, range_bytes)) as parts:
        for part in parts:
            _mark_seen(part, lines_before, line_of, settings)
            if part.error is not None:
                number, message = part.error
                raise UserError(f"{settings.path}:{lines_before + number}: {message}")
            tally.merge(part.tally)
            statuses.update(part.statuses)
            ignored |= part.ignored
            if keep_lines:
                for index, line in zip(part.indices, part.lines, strict=True):
                    kept[index] = line
            lines_before += part.n_lines
    missing = np.flatnonzero(line_of == 0).tolist()
    missing_ids = _ids_at(table, missing)
    for index, score in _unanswered(settings, missing, missing_ids):
        tally.add(score)
        statuses[score.status] += 1
        if keep_lines:
            kept[index] = score_line(score)
    tasks = tally.result()["tasks"]
    tasks = {task: tasks[task] for task in table.tasks}
    return FileScores(
        metrics={"tasks": tasks, "macro": macro_average(tasks)},
        n_responses=len(table) - len(missing),
        missing=tuple(missing_ids),
        statuses=dict(sorted(statuses.items())),
        ignored_fields=tuple(sorted(ignored)),
        lines=kept if keep_lines else None,
    )


def _unanswered(
    settings: _Settings, indices: Sequence[int], ids: Sequence[str]
) -> Iterator[tuple[int, SampleScore]]:
    """The scores of samples without a response, with their indices."""
    # "" keeps protocols that read the prompt from asking for it: there is nothing to read.
    nothing = Response(None, prompt="")
    pairs = list(zip(indices, ids, strict=True))
    for start in range(0, len(pairs), BATCH_LINES):
        batch = pairs[start : start + BATCH_LINES]
        samples = [settings.table.sample(index, name) for index, name in batch]
        scores = score_samples(
            samples, [nothing] * len(samples), settings.dialect, protocol=settings.protocol
        )
        yield from zip((index for index, _ in batch), scores, strict=True)


def score_line(score: SampleScore) -> bytes:
    """A sample's line of scores.jsonl, with the newline.

    Always id, task, status, box (xyxy_norm or null), iou (null without a single target) and
    n_boxes; besides, where they apply: ``excluded``, ``image_right``, ``no_target_right``, ``f1``
    and ``ap50``.
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
    for name in ("image_right", "no_target_right", "f1", "ap50"):
        value = getattr(score, name)
        if value is not None:
            row[name] = value
    return json.dumps(row).encode("ascii") + b"\n"


def _ids_at(table: SampleTable, indices: Sequence[int]) -> list[str]:
    if not indices:
        return []
    wanted = set(indices)
    return [name for name, index in table.index_of.items() if index in wanted]


def _mark_seen(
    part: _Part, lines_before: int, line_of: npt.NDArray[np.int64], settings: _Settings
) -> None:
    """Enter a part's responses into `line_of`; UserError at the first id that stands twice."""
    indices = np.array(part.indices, dtype=np.int64)
    numbers = np.array(part.line_numbers, dtype=np.int64) + lines_before
    if len(np.unique(indices)) == len(indices) and not line_of[indices].any():
        line_of[indices] = numbers
        return
    for index, number in zip(indices.tolist(), numbers.tolist(), strict=True):
        if line_of[index]:
            (name,) = _ids_at(settings.table, [index])
            raise UserError(
                f"{settings.path}:{number}: the id {name!r} stands at line {line_of[index]} "
                "already; expected one response a sample"
            )
        line_of[index] = number


def _parts(
    settings: _Settings, processes: int | None, range_bytes: int
) -> Generator[_Part, None, None]:
    """Score the file range by range, in the order of the file."""
    try:
        status = settings.path.stat()
        with settings.path.open("rb") as file:
            if not stat.S_ISREG(status.st_mode):
                yield from (_score_block(block, settings) for block in _blocks(file, range_bytes))
                return
    except OSError as error:
        raise UserError(
            f"cannot read the responses {settings.path}: {error.strerror or error}; expected a "
            'JSON Lines file of {"id": …, "response": …}'
        ) from error

    def score(start: int, stop: int) -> _Part:
        return _score_block(_read_range(settings.path, start, stop), settings)

    yield from _over_ranges(status.st_size, score, processes, range_bytes)


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Whole lines of a stream, about `size` bytes at a time."""
    while block := file.read(size):
        yield block if block.endswith(b"\n") else block + file.readline()


def _score_block(block: bytes, settings: _Settings) -> _Part:
    """Score whole lines; a fault of the user's ends the part and is told in `error`."""
    part = _Part()
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    part.n_lines = len(lines)
    batch: list[tuple[int, int, GroundingSample, Response]] = []
    number = 0
    try:
        for number, raw in enumerate(lines, start=1):
            if raw.strip():
                batch.append((number, *_read_line(raw, settings.table, part.ignored)))
            if len(batch) >= BATCH_LINES:
                _score_batch(batch, part, settings)
                if part.error is not None:
                    return part
                batch.clear()
    except _LineError as error:
        part.error = (number, str(error))
    # What stands before a broken line is scored all the same: a mistake in it comes first.
    _score_batch(batch, part, settings)
    return part


class _LineError(Exception):
    """What is wrong with a line; the place is added where it is known."""


def _score_batch(
    batch: Sequence[tuple[int, int, GroundingSample, Response]], part: _Part, settings: _Settings
) -> None:
    samples = [sample for _, _, sample, _ in batch]
    responses = [response for _, _, _, response in batch]
    try:
        scores = score_samples(samples, responses, settings.dialect, protocol=settings.protocol)
    except UserError:
        for number, _, sample, response in batch:
            try:
                score_samples([sample], [response], settings.dialect, protocol=settings.protocol)
            except UserError as error:
                part.error = (number, str(error))
                return
        raise
    for (number, index, _, _), score in zip(batch, scores, strict=True):
        part.indices.append(index)
        part.line_numbers.append(number)
        part.tally.add(score)
        part.statuses[score.status] += 1
        if settings.keep_lines:
            part.lines.append(score_line(score))


def _read_line(
    raw: bytes, table: SampleTable, ignored: set[str]
) -> tuple[int, GroundingSample, Response]:
    try:
        row = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _LineError(
            f"not UTF-8 (byte {error.start} of the line is 0x{raw[error.start]:02x}); convert the "
            "file to UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise _LineError(
            f'not JSON ({error}); expected one object a line: {{"id": …, "response": …}}'
        ) from error
    if not isinstance(row, dict):
        raise _LineError(f'is {_short(row)}; expected an object: {{"id": …, "response": …}}')
    for name in ("id", "response"):
        if name not in row:
            raise _LineError(
                f"has no field {name!r}; expected 'id' and 'response', and optionally "
                f"{_OPTIONAL_FIELDS}; the line has: {', '.join(map(repr, row)) or 'no field'}"
            )
    sample_id, text, prompt = row["id"], row["response"], row.get("prompt")
    if not isinstance(sample_id, str):
        raise _LineError(f"field 'id' is {_short(sample_id)}; expected a string")
    index = table.index_of.get(sample_id)
    if index is None:
        first = next(iter(table.index_of), None)
        raise _LineError(
            f"the id {_short(sample_id)} is not one of the {len(table)} samples (ids are like "
            f"{first!r}); score the responses with the benchmark that they answer"
        )
    if not (text is None or isinstance(text, str)):
        raise _LineError(
            f"field 'response' is {_short(text)}; expected the model's whole text, or null if it "
            "gave none"
        )
    if not (prompt is None or isinstance(prompt, str)):
        raise _LineError(f"field 'prompt' is {_short(prompt)}; expected a string")
    if len(row) > 2:
        ignored.update(name for name in row if name not in _KNOWN_FIELDS)
        asked = row.get("benchmark")
        if isinstance(asked, str) and asked != (own := table.benchmark(index)):
            raise _LineError(
                f"says that it answers {_short(asked)}; expected {own!r}: what was asked under a "
                "control or on videos is no answer of the benchmark"
            )
    n_images = table.n_images(index)
    return (
        index,
        table.sample(index, sample_id),
        Response(
            split_response(text)[0],
            image_sizes=_sizes(row, "image_sizes", n_images),
            input_sizes=_sizes(row, "input_sizes", n_images),
            prompt=prompt,
        ),
    )


def _sizes(row: dict[str, Any], name: str, n_images: int) -> list[tuple[int, int]] | None:
    value = row.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(
        isinstance(size, list)
        and len(size) == 2
        and all(type(v) is int and 0 < v <= LARGEST_SIDE for v in size)
        for size in value
    ):
        raise _LineError(
            f"field {name!r} is {_short(value)}; expected [[width, height], …] in whole pixels, "
            "one pair an image"
        )
    if len(value) != n_images:
        raise _LineError(
            f"field {name!r} has {len(value)} sizes; expected {n_images}, one for each image of "
            "the sample"
        )
    return [(width, height) for width, height in value]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
