"""The charts of runs as files for papers, drawn with matplotlib: PDF and PNG."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from univg_eval.errors import UserError
from univg_eval.report.charts import ceiling
from univg_eval.report.looks import CLASS_COLOURS, look_of
from univg_eval.report.run_data import ReportData
from univg_eval.report.run_figures import (
    CURVE_THRESHOLDS,
    HISTOGRAM_BINS,
    RunFigures,
    figures_of,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "write_figures"]

FORMATS = ("pdf", "png")
_COLUMN = 3.4  # inches: the width of a column in a two-column paper
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", ":", "-.", (0, (4, 2)))
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4df",
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Text stays text in a PDF, and can be searched and edited.
    "pdf.fonttype": 42,
}


def write_figures(data: ReportData, folder: str | os.PathLike[str]) -> list[Path]:
    """Draw curves, tasks, IoU histograms, kinds of misses.

    Args:
        data: of the runs.
        folder: is made where it is missing; files of the same names are replaced.

    Returns:
        The files: each figure in each of `FORMATS`.

    Raises:
        UserError: matplotlib is not installed, no run has a sample that counts, or the folder
            cannot be written to.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UserError(
            "figures are drawn with matplotlib, which is not installed: pip install matplotlib"
        ) from error
    figures = figures_of(data)
    if not any(figure.n for figure in figures):
        raise UserError("there are no figures to draw: no run has a sample that counts")
    folder = Path(folder)
    written = []
    with rc_context(_STYLE):
        drawn = {
            "curves": _curves(data, figures),
            "tasks": _tasks(data, figures),
            "iou": _histograms(data, figures),
            "misses": _misses(data),
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, figure in drawn.items():
                for form in FORMATS:
                    path = folder / f"{name}.{form}"
                    # Without dates, so that equal runs give equal files.
                    metadata = {"CreationDate": None} if form == "pdf" else {"Software": None}
                    figure.savefig(path, dpi=300, bbox_inches="tight", metadata=metadata)
                    written.append(path)
        except OSError as error:
            raise UserError(
                f"cannot write figures into {folder}: {error.strerror or error}; choose another "
                "folder"
            ) from error
    return written


def _new(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Any]]:
    """A figure of its own: pyplot would keep it for the whole process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)


def _curves(data: ReportData, figures: Sequence[RunFigures]) -> Figure:
    figure, (axes,) = _new(1, 1, _COLUMN, 2.6)
    for i, (run, numbers) in enumerate(zip(data.runs, figures, strict=True)):
        if not numbers.curve:
            continue
        axes.plot(
            CURVE_THRESHOLDS,
            [100 * value for value in numbers.curve],
            color=look_of(i).colour,
            linestyle=_DASHES[i % len(_DASHES)],
            marker=_MARKERS[i % len(_MARKERS)],
            markevery=(i % 3, 3),
            markersize=4,
            label=_plain(f"{run.letter} {run.label}"),
        )
    axes.set_xlabel("IoU threshold")
    axes.set_ylabel("Accuracy, mean of tasks (%)")
    axes.set_ylim(0, 100 * ceiling(v for numbers in figures for v in numbers.curve))
    axes.legend()
    return figure


def _tasks(data: ReportData, figures: Sequence[RunFigures]) -> Figure:
    high = 0.9 + 0.12 * len(data.runs) * len(data.tasks)
    figure, (axes,) = _new(1, 1, _COLUMN, max(2.0, high))
    step = 0.8 / len(data.runs)
    for i, (run, numbers) in enumerate(zip(data.runs, figures, strict=True)):
        there = [
            (t, numbers.tasks[task]) for t, task in enumerate(data.tasks) if task in numbers.tasks
        ]
        bounds = [
            (
                100 * (e.value - (e.value if e.low is None else e.low)),
                100 * ((e.value if e.high is None else e.high) - e.value),
            )
            for _, e in there
        ]
        axes.barh(
            [t - 0.4 + step * (i + 0.5) for t, _ in there],
            [100 * e.value for _, e in there],
            height=step * 0.9,
            color=look_of(i).colour,
            xerr=[[max(0.0, low) for low, _ in bounds], [max(0.0, high) for _, high in bounds]],
            error_kw={"elinewidth": 0.8, "capsize": 1.5},
            label=_plain(f"{run.letter} {run.label}"),
        )
    axes.set_yticks(range(len(data.tasks)), [_plain(task) for task in data.tasks])
    axes.set_ylim(len(data.tasks) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("Acc@0.5 or the task's own score (%), 95 % interval")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _histograms(data: ReportData, figures: Sequence[RunFigures]) -> Figure:
    figure, panels = _new(1, len(data.runs), 1.7 * len(data.runs) + 0.4, 1.9)
    for i, (axes, run, numbers) in enumerate(zip(panels, data.runs, figures, strict=True)):
        colours = ["#999999", *[look_of(i).colour] * (len(HISTOGRAM_BINS) - 1)]
        axes.bar(range(len(HISTOGRAM_BINS)), numbers.histogram, color=colours, width=0.85)
        axes.set_xticks([0, 1, 2, 6, 11], ["no box", "0", "(0, 0.1)", "[0.4, 0.5)", "[0.9, 1]"])
        axes.tick_params(axis="x", rotation=90)
        axes.grid(visible=False, axis="x")
        axes.set_title(_plain(f"{run.letter} {run.label}"), fontsize=8)
    panels[0].set_ylabel("samples")
    figure.supxlabel("IoU", fontsize=8)
    return figure


def _misses(data: ReportData) -> Figure:
    told = [(run, run.failures.total) for run in data.runs if run.failures is not None]
    figure, (axes,) = _new(1, 1, _COLUMN, 1.3 + 0.25 * len(told))
    left = [0.0] * len(told)
    names = [_plain(f"{run.letter} {run.label}") for run, _ in told]
    for kind in data.failures:
        shares = [100 * total.kinds[kind] / total.n if total.n else 0.0 for _, total in told]
        axes.barh(
            range(len(told)),
            shares,
            left=left,
            color=CLASS_COLOURS[kind],
            edgecolor="white",
            linewidth=0.4,
            label=kind.replace("_", " "),
        )
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(told)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("samples (%)")
    if data.failures:
        figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _plain(text: str) -> str:
    """The text without the sign with which matplotlib begins a formula."""
    return text.replace("$", r"\$")
