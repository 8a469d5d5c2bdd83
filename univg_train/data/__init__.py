"""Training data: files of several forms, read from disk row by row, as TRL takes them."""

from __future__ import annotations

from univg_train.data.dataset import (
    DataReport,
    TrainingData,
    check_training_data,
    open_training_data,
)
from univg_train.data.forms import FORMS, open_form, recognise_form
from univg_train.data.leaks import (
    DEFAULT_LEAK_KINDS,
    LEAK_KINDS,
    Leak,
    LeakError,
    LeakIndex,
    benchmarks_to_check,
    index_benchmarks,
)
from univg_train.data.render import LEFT_OUT, PURPOSES, Rendering, make_rendering, render
from univg_train.data.rows import BAD_KINDS, ROW_KINDS, RowError, RowTarget, TrainingRow

__all__ = [
    "BAD_KINDS",
    "DEFAULT_LEAK_KINDS",
    "FORMS",
    "LEAK_KINDS",
    "LEFT_OUT",
    "PURPOSES",
    "ROW_KINDS",
    "DataReport",
    "Leak",
    "LeakError",
    "LeakIndex",
    "Rendering",
    "RowError",
    "RowTarget",
    "TrainingData",
    "TrainingRow",
    "benchmarks_to_check",
    "check_training_data",
    "index_benchmarks",
    "make_rendering",
    "open_form",
    "open_training_data",
    "recognise_form",
    "render",
]
