"""Training data on disk as a dataset: an index of places in the file, and rows read on demand.

A file is read through once. Every row is checked then, images included, so that a bad one is found
before hours are spent; what is kept of a row are four numbers. Fetching a row reads it again at
its place and opens its images, which nobody here keeps.
"""

from __future__ import annotations

import json
import logging
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_train.data.forms import OpenFile, open_form
from univg_train.data.leaks import LEAK_KINDS, Leak, LeakError, LeakIndex
from univg_train.data.render import LeftOut, Rendering, render
from univg_train.data.rows import RowError, RowKind, TrainingRow

if TYPE_CHECKING:
    import datasets

__all__ = ["DataReport", "TrainingData", "check_training_data", "open_training_data"]

SHOWN = 20
ON_BAD = ("stop", "skip")
ON_LEAK = ("refuse", "skip", "allow")
_logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the bytes of the file that are read so far and all of them; (0, 0): not known."""
_PROGRESS_ROWS = 100


@dataclass(slots=True)
class DataReport:
    """What a file holds, and what is wrong with it.

    Attributes:
        n_read: rows of the file; a conversation is one row.
        sources: questions that can be trained on, by source. Leaking ones count where they are
            kept.
        kinds: the same by `rows.RowKind`.
        left_out: sound questions without use for the purpose, by reason; see `render.LEFT_OUT`.
        bad: faulty rows by kind; see `rows.BAD_KINDS`.
        bad_rows: what is wrong, of the first `SHOWN` of them.
        n_leaking: questions that share something with an evaluation set.
        leaks: the same by kind of leak; a question can have several.
        leaking: (id, leak) of the first `SHOWN`, one a question and kind.
        n_text_alone: questions that an evaluation set asks too, on other images; these are no
            leaks.
        warnings: what looks wrong in the file as a whole; nothing is changed for it.
    """

    n_read: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    kinds: Counter[RowKind] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    bad_rows: list[str] = field(default_factory=list)
    n_leaking: int = 0
    leaks: Counter[str] = field(default_factory=Counter)
    leaking: list[tuple[str, Leak]] = field(default_factory=list)
    n_text_alone: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Questions that can be trained on."""
        return self.sources.total()

    @property
    def n_bad(self) -> int:
        """Faulty rows."""
        return self.bad.total()

    def text_alone(self) -> str:
        """What is shared by text alone, in words."""
        return (
            f"{self.n_text_alone} questions are worded as in an evaluation set, on other images: "
            "no leaks"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "rows_read": self.n_read,
            "questions": self.n,
            "sources": dict(self.sources.most_common()),
            "kinds": dict(self.kinds.most_common()),
            "left_out": dict(self.left_out.most_common()),
            "bad": {"rows": self.n_bad, "kinds": dict(self.bad), "first": list(self.bad_rows)},
            "leaks": {
                "questions": self.n_leaking,
                "text_alone": self.n_text_alone,
                "kinds": dict(self.leaks),
                "first": [
                    {
                        "id": id_,
                        "kind": leak.kind,
                        "sample": leak.sample,
                        "samples": leak.n_samples,
                        "shared": leak.shared,
                    }
                    for id_, leak in self.leaking
                ],
            },
            "warnings": list(self.warnings),
        }


_SCALE_REMEDIES: Mapping[str, str] = {
    "vlm_r1": "set the space norm1000",
    "ms_swift": 'divide them by 1000 and state "bbox_type": "norm1"',
    "custom": 'state "space": "norm1000"',
    "samples": 'state "space": "norm1000" in its file and prepare it again',
}


@dataclass(slots=True)
class _Scale:
    """Whether boxes that are stated in pixels may be on 0-1000.

    A corner that can lie anywhere on a side of 2000 pixels is at most 1000 half of the time; that
    all are is `log_chance` (natural logarithm) for what was seen.
    """

    n_boxes: int = 0
    largest: float = 0.0
    log_chance: float = 0.0
    largest_image: tuple[int, int] = (0, 0)

    def add(self, row: TrainingRow) -> None:
        for image, box in row.targets if row.in_pixels else ():
            size = row.image_sizes[image or 0]
            self.n_boxes += 1
            self.largest_image = max(self.largest_image, size, key=math.prod)
            for far, side in zip(box[2:], size, strict=True):
                self.largest = max(self.largest, round(far * side, 3))
                self.log_chance += min(0.0, math.log(1000 / side))

    def warning(self, form: str) -> str | None:
        if self.n_boxes < 20 or self.largest > 1000 or self.log_chance > math.log(1e-6):
            return None
        return (
            f"{self.n_boxes} boxes are stated in pixels of images of up to "
            f"{'x'.join(map(str, self.largest_image))}, and no number is larger than "
            f"{self.largest:g}; if they are on 0-1000, {_SCALE_REMEDIES[form]}"
        )


class TrainingData(Sequence[dict[str, Any]]):
    """Rows of a file in the columns that TRL takes, read on access.

    A map-style dataset: it has a length, and ``data[i]`` is a dict with the columns of
    `render.render` and ``images``, a list of PIL images opened for this call. `as_dataset` wraps
    it for TRL. It can be pickled; worker processes read the file by themselves.

    Attributes:
        report: what the file holds.
        seed: of the order; None for that of the file.
        fingerprint: SHA-256 of the rows as they are trained on, in the file's order: the columns
            of each (but for its images) and its images' references, as canonical JSON lines. The
            images' pixels are not part of it, their sizes are.
    """

    def __init__(
        self,
        file: OpenFile,
        how: Rendering,
        index: npt.NDArray[np.int64],
        report: DataReport,
        seed: int | None,
        fingerprint: str,
    ) -> None:
        """Not to be called directly; see `open_training_data`."""
        self.report = report
        self.seed = seed
        self.fingerprint = fingerprint
        self._file = file
        self._how = how
        self._index = index if seed is None else index[_order(len(index), seed)]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        row = self.row(position)
        images = open_images(row.as_sample(), self._file.folder)
        return render(row, self._how) | {"images": images}

    def row(self, position: int) -> TrainingRow:
        """The row behind ``data[position]``, without images.

        Raises:
            IndexError: there is no such row.
            UserError: the file was changed after it had been opened.
        """
        if not -len(self) <= position < len(self):
            raise IndexError(f"row {position} of {len(self)}")
        number, start, length, part = (int(value) for value in self._index[position])
        return self._file.read_again(number, start, length)[part]

    def columns(self, position: int) -> dict[str, Any]:
        """``data[position]`` without ``images``: nothing is opened but the file."""
        return render(self.row(position), self._how)

    def image_paths(self, position: int) -> list[Path]:
        """Where the images of ``data[position]`` are, in its order; nothing is opened."""
        return [(self._file.folder / name).absolute() for name in self.row(position).images]

    def as_dataset(self) -> datasets.Dataset:
        """The rows as a `datasets.Dataset`, which TRL's trainers demand.

        It holds row numbers; rows and images are made on access. Give the trainer's arguments
        ``remove_unused_columns=False``: the columns are known only after that.
        """
        import datasets

        numbers = datasets.Dataset.from_dict({"row": np.arange(len(self), dtype=np.int64)})
        return numbers.with_transform(_Fetch(self))


@dataclass(frozen=True, slots=True)
class _Fetch:
    """The transform of `TrainingData.as_dataset`: row numbers in, columns out."""

    data: TrainingData

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        # GRPO fetches each prompt once a rollout: its images are decoded once.
        fetched = {number: self.data[number] for number in dict.fromkeys(batch["row"])}
        rows = [dict(fetched[number]) for number in batch["row"]]
        return {name: [row[name] for row in rows] for name in rows[0]}


def open_training_data(
    form: str,
    file: str | os.PathLike[str],
    how: Rendering,
    *,
    images: str | os.PathLike[str] | None = None,
    space: str | None = None,
    seed: int | None = None,
    on_bad: str = "stop",
    leaks: LeakIndex | None = None,
    on_leak: str = "refuse",
    decode: bool = False,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> TrainingData:
    """Read a file through, check every row, and offer the rows to a trainer.

    Args:
        form, file, images, space, decode, root: see `forms.open_form`.
        how: how rows are written; see `render.make_rendering`.
        seed: of a shuffle that is the same on every machine and version; None: the file's order.
        on_bad: ``stop`` at the first faulty row, or ``skip`` them; the report names them.
        leaks: what evaluation sets show; see `leaks.index_benchmarks`.
        on_leak: ``refuse`` the file, ``skip`` the questions that leak, or ``allow`` them.
        progress: see `Progress`.

    Raises:
        RowError: a faulty row, with ``on_bad="stop"``.
        LeakError: what leaks, with ``on_leak="refuse"``.
        UserError: nothing can be trained on, or the file cannot be opened.
    """
    for name, value, known in (("on_bad", on_bad, ON_BAD), ("on_leak", on_leak, ON_LEAK)):
        if value not in known:
            raise UserError(f"{name} is {value!r}; expected one of: {', '.join(known)}")
    opened = open_form(form, file, images=images, space=space, decode=decode, root=root)
    report = DataReport()
    places = array("q")  # of a million questions, 32 MB
    digest = sha256()
    for place, row, columns in _usable(form, opened, how, leaks, report, progress, on_bad, on_leak):
        places.extend(place)
        line = columns | {"images": row.images}
        text = json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n"
        digest.update(text.encode("ascii"))
    for warning in report.warnings:
        _logger.warning("%s: %s", opened.path, warning)
    if report.n_text_alone:
        _logger.info("%s: %s", opened.path, report.text_alone())
    if report.n_leaking and on_leak == "refuse":
        raise LeakError(_leak_text(opened.path, report))
    if not places:
        raise UserError(f"{opened.path}: {_unusable_text(report)}")
    index = np.frombuffer(places, dtype=np.int64).reshape(-1, 4)
    return TrainingData(opened, how, index, report, seed, digest.hexdigest())


def check_training_data(
    form: str,
    file: str | os.PathLike[str],
    how: Rendering,
    *,
    images: str | os.PathLike[str] | None = None,
    space: str | None = None,
    leaks: LeakIndex | None = None,
    decode: bool = False,
    root: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Read a file through and report what it holds; neither faults nor leaks end it.

    Arguments as for `open_training_data`. Leaking questions do not count among the sources.

    Raises:
        UserError: the file cannot be opened.
    """
    opened = open_form(form, file, images=images, space=space, decode=decode, root=root)
    report = DataReport()
    for _ in _usable(form, opened, how, leaks, report, progress, "skip", "skip"):
        pass
    return report


def _usable(
    form: str,
    file: OpenFile,
    how: Rendering,
    leaks: LeakIndex | None,
    report: DataReport,
    progress: Progress | None,
    on_bad: str,
    on_leak: str,
) -> Iterator[tuple[tuple[int, int, int, int], TrainingRow, dict[str, Any]]]:
    """What can be trained on: (number, start, length, question within the row), row, columns."""
    scale = _Scale()
    size = file.path.stat().st_size if progress is not None else 0
    for entry in file.entries():
        report.n_read += 1
        if progress is not None and report.n_read % _PROGRESS_ROWS == 0:
            progress(entry.start, size if entry.start else 0)
        try:
            rows = entry.read()
        except RowError as error:
            if on_bad == "stop":
                raise
            report.bad[error.kind] += 1
            if len(report.bad_rows) < SHOWN:
                report.bad_rows.append(str(error))
            continue
        for part, row in enumerate(rows):
            scale.add(row)
            try:
                columns = render(row, how)
            except LeftOut as reason:
                report.left_out[reason.reason] += 1
                continue
            found = leaks.check(row, file.folder) if leaks is not None else []
            if found:
                _count_leaks(report, row.id, found)
                if on_leak != "allow":
                    continue
            elif leaks is not None and leaks.asks(row.question):
                report.n_text_alone += 1
            report.sources[row.source] += 1
            report.kinds[row.kind] += 1
            yield (entry.number, entry.start, entry.length, part), row, columns
    if warning := scale.warning(form):
        report.warnings.append(warning)


def _count_leaks(report: DataReport, id_: str, found: list[Leak]) -> None:
    report.n_leaking += 1
    first: dict[str, Leak] = {}
    for leak in found:
        first.setdefault(leak.kind, leak)
    report.leaks.update(list(first))
    room = SHOWN - len(report.leaking)
    report.leaking.extend((id_, leak) for leak in list(first.values())[:room])


def _leak_text(path: Path, report: DataReport) -> str:
    kinds = "; ".join(f"{n} by {LEAK_KINDS[kind]}" for kind, n in report.leaks.items())
    first = "; ".join(
        f"{id_} shares {leak.shared!r} with {leak.sample} ({leak.kind})"
        for id_, leak in report.leaking[:5]
    )
    return (
        f"{path}: {report.n_leaking} questions are in an evaluation set ({kinds}). First: "
        f"{first}. Leave them out (on_leak='skip'), compare fewer kinds, or allow them"
    )


def _unusable_text(report: DataReport) -> str:
    counts = {"bad rows": report.n_bad, "leak": report.n_leaking}
    counts |= {f"left out as {name}": n for name, n in report.left_out.items()}
    reasons = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
    text = f"nothing to train on among {report.n_read} rows ({reasons or 'none at all'})."
    return text + (f" First bad row: {report.bad_rows[0]}" if report.bad_rows else "")


def _order(n: int, seed: int) -> npt.NDArray[np.intp]:
    """A shuffled order, by hashes of seed and position: no library's generator can change it."""
    digests = (blake2b(b"%d:%d" % (seed, i), digest_size=8).digest() for i in range(n))
    keys = np.fromiter((int.from_bytes(d, "big") for d in digests), dtype=np.uint64, count=n)
    return np.argsort(keys, kind="stable")
