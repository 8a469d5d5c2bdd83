"""The rows of a training run, held against the benchmarks that it must not share anything with."""

from __future__ import annotations

from univg_eval.samples import data_root
from univg_train.data import (
    DEFAULT_LEAK_KINDS,
    LeakIndex,
    TrainingData,
    benchmarks_to_check,
    index_benchmarks,
    open_training_data,
)
from univg_train.data.dataset import Progress
from univg_train.evaluation.samples import ensure_generated
from univg_train.runs.settings import RunSettings

__all__ = ["open_rows"]


def open_rows(
    settings: RunSettings,
    *,
    min_pixels: int | None,
    max_pixels: int | None,
    progress: Progress | None = None,
) -> TrainingData:
    """The rows of these settings, each read and checked, its images too.

    Generated samples are made where they are missing.

    Args:
        settings: of the run.
        min_pixels, max_pixels: of the model's resize, which boxes of some dialects depend on;
            None: the dialect's own.
        progress: while the file is read.

    Raises:
        UserError: bad or leaking rows, nothing to train on, or choices that do not exist.
    """
    data = settings.data
    if data.form == "samples":
        ensure_generated(data.file, data.root)
    options = {"images", "space", "root", "on_bad", "on_leak", "decode"}
    return open_training_data(
        data.form,
        data.file,
        settings.rendering(min_pixels=min_pixels, max_pixels=max_pixels),
        leaks=_leak_index(settings),
        progress=progress,
        **data.model_dump(include=options),
    )


def _leak_index(settings: RunSettings) -> LeakIndex | None:
    """Benchmarks to check, and the one that the model is evaluated on while it trains."""
    data, evaluation = settings.data, settings.evaluation
    kinds = DEFAULT_LEAK_KINDS if data.leak_kinds is None else data.leak_kinds
    names = benchmarks_to_check(data.check_leaks, data.root)
    index = index_benchmarks(names, kinds=kinds, root=data.root) if names else None
    if evaluation is None:
        return index
    name, root = evaluation.benchmark, evaluation.root
    if name in names and data_root(root) == data_root(data.root):
        return index
    ensure_generated(name, root)
    return index_benchmarks([name], kinds=kinds, root=root, into=index)
