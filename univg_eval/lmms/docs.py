"""The rows of one lmms-eval task: samples of a prepared benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError
from univg_eval.images.controls import NO_CONTROL, under_control
from univg_eval.lmms.media import video_view
from univg_eval.samples import (
    MANIFEST_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    fingerprint,
    has_stand_ins,
    load_manifest,
    load_samples,
    n_skipped,
    require_images,
)

__all__ = [
    "OwnedDoc",
    "RowNumber",
    "SampleDocs",
    "TaskRows",
    "as_shown",
    "load_rows",
    "standing_mini",
]

MINI = "univg_mini"
MINIS = (MINI, "univg_mini_plus")
PHOTOS = "photos"


class RowNumber(int):
    """A doc_id that knows its row.

    Several stock backends put requests of different tasks into one batch and then look all
    doc_ids up in the rows of the batch's first task (lmms_eval 0.7.3: simple/qwen2_vl,
    simple/qwen2_5_vl and more), which shows the model other samples' images. With this doc_id
    the look-up gives the right row whichever task's rows are used.
    """

    doc: dict[str, Any]

    def __new__(cls, number: int, doc: dict[str, Any]) -> RowNumber:
        """Number `doc`, its row."""
        self = super().__new__(cls, number)
        self.doc = doc
        return self

    def __getnewargs__(self) -> tuple[int, dict[str, Any]]:  # type: ignore[override]
        """What `copy` and `pickle` make it from."""
        return int(self), self.doc


class OwnedDoc(dict[str, Any]):
    """A doc that knows its task.

    Several chat backends call ``doc_to_messages`` of the first request of a batch with all docs of
    the batch (lmms_eval 0.7.3: chat/llava_onevision1_5, chat/internvl_hf and more); a doc of
    another task gets its own task's messages by this.
    """

    task: Any

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        """A copy, or what goes to another process, is a plain dict."""
        return dict, (dict(self),)


class SampleDocs(Sequence[dict[str, Any]]):
    """Samples as the dicts that lmms-eval passes around, with the `features` that it asks for."""

    def __init__(self, samples: Sequence[GroundingSample]) -> None:
        self._samples = list(samples)
        self._docs = [sample.to_dict() for sample in self._samples]
        self._by_id = {sample.id: sample for sample in self._samples}
        self.features: dict[str, Any] = dict.fromkeys(self._docs[0]) if self._docs else {}

    def __len__(self) -> int:
        return len(self._docs)

    def __getitem__(self, index: Any) -> Any:
        return index.doc if isinstance(index, RowNumber) else self._docs[index]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._docs)

    def sample(self, doc: dict[str, Any]) -> GroundingSample:
        """The sample behind one of these docs."""
        return self._by_id[doc["id"]]


@dataclass(frozen=True, slots=True)
class TaskRows:
    """The rows of a task and the identity of the set that they come from.

    Attributes:
        samples: rows of the task, in file order, as they are shown.
        fingerprint: of the whole benchmark, whatever the task selects and however it shows it.
        revision: of the annotations, "" where the benchmark has none.
        left_out: id → reason, of the rows that a control cannot be applied to.
        n_skipped: faulty items of the benchmark that were left out when it was prepared.
        stand_ins: whether images of the benchmark stand in for its own.
    """

    samples: list[GroundingSample]
    fingerprint: str
    revision: str
    left_out: dict[str, str]
    n_skipped: int
    stand_ins: bool


def load_rows(
    benchmark: str,
    task: str | None,
    split: str,
    *,
    control: str = NO_CONTROL,
    media: str = "images",
) -> TaskRows:
    """The rows of a benchmark with this split, and this task if one is named.

    univg_mini, univg_mini_plus and photos are generated on first use. `$UNIVG_MINI_N` (samples a
    task) and `$UNIVG_MINI_SEED` set which of the first two, which then replaces another one;
    without them the set that is there is used, whatever its size, or else the default one made.

    Args:
        benchmark, task, split: which rows.
        control: see `univg_eval.images.controls`.
        media: ``images``, or ``video``: see `univg_eval.lmms.media`.

    Raises:
        UserError: the benchmark is not prepared, or holds no such rows, or none that can be shown
            that way.
    """
    manifest = benchmark_dir(benchmark) / MANIFEST_FILE
    if benchmark in MINIS:
        _ensure_mini(benchmark, manifest)
    elif benchmark == PHOTOS and not manifest.is_file():
        from univg_eval.benchmarks.synthetic.photos import ensure

        ensure(data_root())
    everything, identity = _load(benchmark, manifest, _changed(manifest))
    require_images(benchmark)
    skipped = n_skipped(benchmark)
    rows = [s for s in everything if s.split == split and (task is None or s.task == task)]
    if not rows:
        kinds = sorted({f"{s.task} ({s.split})" for s in everything})
        not_whole = (
            f" It is not complete: {skipped} faulty items were left out when it was prepared; "
            f"{manifest} lists them."
            if skipped
            else ""
        )
        raise UserError(
            f"benchmark {benchmark!r} has no rows of task {task!r} and split {split!r}; it has: "
            f"{', '.join(kinds) or 'no rows'}.{not_whole} Prepare it again with `univg prepare "
            f"{benchmark}`"
        )
    revisions = sorted({str(s.source["revision"]) for s in everything if s.source.get("revision")})
    shown, left_out = as_shown(rows, control=control, media=media)
    if not shown:
        raise UserError(
            f"control {control!r} can be applied to none of the {len(rows)} rows of task {task!r} "
            f"of {benchmark!r}: {next(iter(left_out.values()))}; choose another task or control"
        )
    stand_ins = has_stand_ins(everything)
    return TaskRows(shown, identity, "+".join(revisions), left_out, skipped, stand_ins)


def as_shown(
    samples: Sequence[GroundingSample], *, control: str, media: str
) -> tuple[list[GroundingSample], dict[str, str]]:
    """Samples under a control, or as samples about videos; and id → reason of those left out."""
    controlled = under_control(control, samples)
    shown = controlled.samples
    return video_view(shown) if media == "video" else shown, controlled.left_out


@lru_cache(maxsize=4)
def _load(benchmark: str, manifest: Path, changed: int) -> tuple[tuple[GroundingSample, ...], str]:
    """All samples and their fingerprint; kept, as the tasks of a benchmark load it in turn."""
    samples = load_samples(benchmark)
    return tuple(samples), fingerprint(samples)


def _changed(path: Path) -> int:
    """When a file was last written, in ns; 0 where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else 0


_ensured: dict[tuple[str, Path, int, int], int] = {}


def _ensure_mini(benchmark: str, manifest: Path) -> None:
    from univg_eval.benchmarks.preparing.catalog import get_entry
    from univg_eval.benchmarks.synthetic.mini import DEFAULT_N, DEFAULT_SEED

    n, seed = (
        _whole_number("UNIVG_MINI_N", at_least=1),
        _whole_number("UNIVG_MINI_SEED", at_least=0),
    )
    if n is None and seed is None:
        n, seed = standing_mini(benchmark=benchmark) or (None, None)
    n = DEFAULT_N if n is None else n
    seed = DEFAULT_SEED if seed is None else seed
    wanted = (benchmark, data_root(), n, seed)
    # The build looks at every image file: once a process, unless somebody else builds.
    changed = _changed(manifest)
    if not changed or _ensured.get(wanted) != changed:
        get_entry(benchmark).build(data_root(), n=n, seed=seed)
        _ensured[wanted] = _changed(manifest)


def standing_mini(
    root: str | os.PathLike[str] | None = None, benchmark: str = MINI
) -> tuple[int, int] | None:
    """(samples a task, seed) of the univg_mini that is there; None where there is none."""
    if not (benchmark_dir(benchmark, root) / MANIFEST_FILE).is_file():
        return None
    generator = load_manifest(benchmark, root).get("generator")
    if not isinstance(generator, dict):
        return None
    return int(generator["n_per_task"]), int(generator["seed"])


def _whole_number(variable: str, *, at_least: int) -> int | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) < at_least:
        raise UserError(
            f"environment variable {variable} is {text!r}; expected a whole number, at least "
            f"{at_least}"
        )
    return int(text)
