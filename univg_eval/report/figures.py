"""Figures of runs: the numbers, and each figure drawn once, for pages and for papers."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any
from xml.etree import ElementTree

from univg_eval.analysis.failures import FailureKind
from univg_eval.analysis.headline import Headline, headlines, micro_estimate
from univg_eval.analysis.stats import Estimate
from univg_eval.errors import UserError, install_command
from univg_eval.files import whole_file
from univg_eval.leaderboard import Mark
from univg_eval.leaderboard.rows import Entry, entry_of_runs
from univg_eval.leaderboard.table import relative_marks
from univg_eval.report.drawing import RunStyle, run_style
from univg_eval.report.run_data import ReportData, ReportRun
from univg_eval.report.text import printable
from univg_eval.scoring import HEADLINES, SampleScore

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CLASS_COLOURS",
    "CURVE_THRESHOLDS",
    "FORMATS",
    "HISTOGRAM_BINS",
    "METRIC_NAMES",
    "RunFigures",
    "as_svg",
    "draw_figures",
    "figures_of",
    "metrics_of",
    "write_figures",
]

CURVE_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""IoU thresholds of the curves: 0.05, 0.10, …, 0.95."""

HISTOGRAM_BINS = (
    "no box",
    "IoU 0",
    "(0, 0.1)",
    *(f"[0.{tenth}, 0.{tenth + 1})" for tenth in range(1, 9)),
    "[0.9, 1]",
)
"""Bins of the histograms: no readable box, a box that misses wholly, then tenths of IoU."""

METRIC_NAMES = {"acc@0.5": "Acc@0.5", "no_target_acc": "No-target Acc", "f1@0.5": "F1@0.5"}
"""The metrics of `univg_eval.scoring.HEADLINES` as pages write them."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What is shown of one run; shares on [0, 1], None where nothing counts.

    Attributes:
        n: samples that count, of every kind.
        answered: share of the samples with one target that have a readable box.
        headlines: its metrics, one a kind of its samples; the first is the number of the run.
        micro: mean over samples of the first.
        miou: unweighted mean over tasks of the mean IoU (samples with one target).
        curve: unweighted mean over tasks of Acc at each of `CURVE_THRESHOLDS`.
        histogram: samples with one target in each of `HISTOGRAM_BINS`.
        marks: the leaderboard's, each with what there is to say, possibly nothing.
    """

    n: int
    answered: float | None
    headlines: Sequence[Headline]
    micro: Estimate | None
    miou: float | None
    curve: Sequence[float]
    histogram: Sequence[int]
    marks: Mapping[Mark, str]

    def of(self, metric: str) -> Headline | None:
        """One of its metrics."""
        return next((one for one in self.headlines if one.metric == metric), None)

    def tasks(self, metric: str) -> Mapping[str, Estimate]:
        """The values of the tasks under one of its metrics."""
        found = self.of(metric)
        return {} if found is None else found.tasks


def metrics_of(numbers: Sequence[RunFigures]) -> list[str]:
    """The metrics that some run has; the first is the one that the page shows of all."""
    return [name for name in HEADLINES if any(one.of(name) for one in numbers)]


def figures_of(data: ReportData) -> list[RunFigures]:
    """The numbers of each run, in order."""
    entries = [
        next(filter(None, (entry_of_runs([run.record], name) for name in HEADLINES)), None)
        for run in data.runs
    ]
    return [
        _figures(run, data.tasks, _marks(entry, entries[0]))
        for run, entry in zip(data.runs, entries, strict=True)
    ]


def _figures(run: ReportRun, tasks: Sequence[str], marks: Mapping[Mark, str]) -> RunFigures:
    counted = [score for score in run.scores if not score.excluded]
    single = [score for score in counted if score.iou is not None]
    ious = {task: [s.iou or 0.0 for s in single if s.task == task] for task in tasks}

    def macro(value: Callable[[float], float]) -> float | None:
        return _mean([_mean(list(map(value, found))) or 0.0 for found in ious.values() if found])

    def accuracy(threshold: float) -> float:
        return macro(lambda iou: float(iou >= threshold)) or 0.0

    shown = headlines(run.scores)
    return RunFigures(
        n=len(counted),
        answered=_mean([float(score.status == "ok") for score in single]),
        headlines=shown,
        micro=micro_estimate(run.scores, shown[0].metric) if shown else None,
        miou=macro(lambda iou: iou),
        curve=[accuracy(t) for t in CURVE_THRESHOLDS] if single else [],
        histogram=_histogram(single),
        marks=marks,
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _histogram(scores: Sequence[SampleScore]) -> list[int]:
    counts = [0] * len(HISTOGRAM_BINS)
    for score in scores:
        iou = score.iou or 0.0
        # Thousandths first: 0.3 / 0.1 is less than 3 in floats.
        tenth = 2 + min(9, math.floor(round(iou * 10, 9)))
        counts[0 if score.status != "ok" else 1 if iou == 0 else tenth] += 1
    return counts


def _marks(entry: Entry | None, reference: Entry | None) -> dict[Mark, str]:
    """The leaderboard's marks of a run, held against the first run; what is usual is left out."""
    if entry is None:
        return {}
    marks = {**entry.marks, **(relative_marks(entry, reference) if reference is not None else {})}
    usual = (Mark.REFERENCE, Mark.SAME_FINGERPRINT, Mark.SAME_PROTOCOL)
    return {mark: words for mark, words in marks.items() if mark not in usual}


# --- drawn ---------------------------------------------------------------------------------------

FORMATS = ("pdf", "png")
CLASS_COLOURS: Mapping[FailureKind, str] = MappingProxyType(
    {
        # Slate: no box to compare.
        "invalid_truth": "#eceff1",
        "truncated": "#28323a",
        "no_box": "#55636e",
        "said_none": "#c6d1d8",
        "invalid_box": "#1b5257",
        # Violet: another object or image.
        "wrong_image": "#3b1c6b",
        "wrong_object": "#7853bd",
        "image_mixup": "#ab92de",
        "elsewhere": "#dccff5",
        # Brown: the outline.
        "loose": "#55451a",
        "tight": "#82703b",
        "shifted": "#cdbf8f",
        "false_alarm": "#efc9bd",
        "other_scale": "#7a1c33",
    }
)
"""Of the classes of misses: far from the colours of runs; the bars' parts carry numbers too."""
ON_DARK: frozenset[FailureKind] = frozenset(
    {
        *("truncated", "no_box", "invalid_box", "wrong_image", "wrong_object"),
        *("loose", "tight", "other_scale"),
    }
)
"""Classes on whose colour white text is legible and black is not."""

_COLUMN = 3.4  # inches: the width of a column in a two-column paper
_LONGEST_NAME = 28
_SHORT_NAME = 18  # beside bars and above small charts
_BLACK_ON_COLOUR = "#010101"  # plain black takes the colour of the page's text
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#808080",
    "grid.alpha": 0.3,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Text stays text, and can be searched and edited.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def draw_figures(data: ReportData, numbers: Sequence[RunFigures]) -> dict[str, Figure]:
    """The figures of runs: ``curves``, ``misses``, ``tasks``, ``iou``.

    Those that have nothing to show are left out: of IoU without a sample with one target, of misses
    where there are none, all where no sample counts.

    Raises:
        UserError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise UserError(
            f"figures need the package matplotlib: {install_command('report')}"
        ) from error
    if not any(one.n for one in numbers):
        return {}
    has_iou = any(one.curve for one in numbers)
    wanted: dict[str, tuple[bool, Callable[[ReportData, Sequence[RunFigures]], Figure]]] = {
        "curves": (has_iou, _curves),
        "misses": (bool(data.failures), _misses),
        "tasks": (True, _tasks),
        "iou": (has_iou, _histograms),
    }
    with rc_context(_STYLE):
        return {name: draw(data, numbers) for name, (is_there, draw) in wanted.items() if is_there}


def write_figures(data: ReportData, folder: str | os.PathLike[str]) -> list[Path]:
    """Write each figure in each of `FORMATS`; files of the same names are replaced.

    Raises:
        UserError: matplotlib is not installed, no run has a sample that counts, or the folder
            cannot be written to.
    """
    drawn = draw_figures(data, figures_of(data))
    if not drawn:
        raise UserError("there are no figures to draw: no run has a sample that counts")
    written = []
    try:
        for name, figure in drawn.items():
            for form in FORMATS:
                path = Path(folder) / f"{name}.{form}"
                with whole_file(path, "wb") as file:
                    _save(figure, file, form, name)
                written.append(path)
    except OSError as error:
        raise UserError(
            f"cannot write figures into {folder}: {error.strerror or error}; choose another folder"
        ) from error
    return written


def as_svg(figure: Figure, name: str, spoken: str) -> str:
    """A figure as an ``<svg>`` element for a page.

    It has no style sheet, which the page's policy would forbid, takes black and its font from the
    page, and shares no id with a figure of another name.
    """
    buffer = io.BytesIO()
    _save(figure, buffer, "svg", name)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 (Matplotlib wrote it)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        if element.tag == f"{{{_SVG}}}g":
            element.attrib.pop("id", None)
        for rule in element.attrib.pop("style", "").split(";"):
            key, _, value = (part.strip() for part in rule.partition(":"))
            if key == "font":  # e.g. 8px 'DejaVu Sans'
                key, value = "font-size", re.search(r"[\d.]+px", value)[0]  # type: ignore[index]
            if key and key != "font-family":
                element.set(key, "currentColor" if value == "#000000" else value)
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    root.attrib.update(
        {
            "role": "img",
            "aria-label": spoken,
            "fill": "currentColor",
            "width": f"{_PAGE_SCALE * width:.0f}",
            "height": f"{_PAGE_SCALE * height:.0f}",
        }
    )
    return ElementTree.tostring(root, encoding="unicode")


_SVG = "http://www.w3.org/2000/svg"
_PAGE_SCALE = 1.55  # CSS pixels a point, so that text is about as large as the page's small text


def _save(figure: Figure, file: IO[bytes], form: str, name: str) -> None:
    from matplotlib import rc_context

    # Without dates and random ids, so that equal runs give equal files.
    metadata = {
        "pdf": {"CreationDate": None},
        "png": {"Software": None},
        "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    }
    with rc_context(_STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        # A label in a script that the font lacks: a page's own fonts may have it.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(
            file,
            format=form,
            dpi=300,
            bbox_inches="tight",
            transparent=form == "svg",
            metadata=metadata[form],
        )


def ceiling(values: Iterable[float]) -> float:
    """Where an axis of shares ends: the next quarter at or above all values, at least 0.25."""
    return max(0.25, math.ceil(round(4 * max(values, default=0.0), 9)) / 4)


def _new(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Figure, Any]:
    """A figure of its own, and its axes: pyplot would keep it for the whole process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **options).flat)


def _plain(text: str, longest: int = _LONGEST_NAME) -> str:
    """A foreign name for a figure: on one line, cut, without the sign that begins a formula."""
    words = " ".join(printable(text).split())
    if len(words) > longest:
        words = words[: longest - 1] + "…"
    return words.replace("$", r"\$")


def _name(run: ReportRun, longest: int = _LONGEST_NAME) -> str:
    return f"{run.letter} {_plain(run.label, longest)}"


def _add_legend(figure: Figure, data: ReportData) -> None:
    """Above the axes, where it covers nothing; in one column where two would be too wide."""
    short = all(len(run.label) <= _SHORT_NAME for run in data.runs)
    figure.legend(loc="outside upper center", ncols=2 if short else 1)


def _marker(style: RunStyle) -> dict[str, Any]:
    """With a rim in the colour of the text, as some colours are pale on white."""
    return {
        "marker": style.marker,
        "markersize": 4.5,
        "markeredgecolor": "black",
        "markeredgewidth": 0.5,
    }


def _curves(data: ReportData, numbers: Sequence[RunFigures]) -> Figure:
    figure, (axes,) = _new(1, 1, _COLUMN, 2.2 + 0.15 * len(data.runs))
    for i, (run, one) in enumerate(zip(data.runs, numbers, strict=True)):
        if one.curve:
            style = run_style(i)
            axes.plot(
                CURVE_THRESHOLDS,
                _percent(one.curve),
                color=style.colour,
                linestyle=(0, style.line) if style.line else "-",
                **_marker(style),
                # Markers of several runs shall not hide each other where the lines meet.
                markevery=(i % 3, 3),
                clip_on=False,
                label=_name(run),
            )
    axes.set_xlabel("IoU threshold")
    axes.set_ylabel("Accuracy, mean of tasks (%)")
    axes.set_ylim(0, 100 * ceiling(value for one in numbers for value in one.curve))
    _add_legend(figure, data)
    return figure


def _misses(data: ReportData, numbers: Sequence[RunFigures]) -> Figure:
    classified = [(run, run.failures.total) for run in data.runs if run.failures is not None]
    figure, (axes,) = _new(1, 1, _COLUMN, 1.3 + 0.25 * len(classified))
    left = [0.0] * len(classified)
    for number, kind in enumerate(data.failures, start=1):
        shares = [100 * total.kinds[kind] / total.n if total.n else 0.0 for _, total in classified]
        colour = CLASS_COLOURS[kind]
        bars = axes.barh(
            range(len(classified)),
            shares,
            left=left,
            color=colour,
            edgecolor="white",
            linewidth=0.4,
            label=f"{number} {kind.replace('_', ' ')}",
        )
        words = [str(number) if share >= 4 * len(str(number)) else "" for share in shares]
        on_colour = "white" if kind in ON_DARK else _BLACK_ON_COLOUR
        axes.bar_label(bars, words, label_type="center", color=on_colour)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(classified)), [_name(run, _SHORT_NAME) for run, _ in classified])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("samples (%)")
    figure.legend(loc="outside lower center", ncols=3, fontsize=7)
    return figure


def _tasks_with(metric: str, data: ReportData, numbers: Sequence[RunFigures]) -> list[str]:
    """The tasks in which some run has the metric, in their order."""
    return [task for task in data.tasks if any(task in one.tasks(metric) for one in numbers)]


def _tasks(data: ReportData, numbers: Sequence[RunFigures]) -> Figure:
    metric = metrics_of(numbers)[0]
    tasks = _tasks_with(metric, data, numbers)
    row = max(0.24, 0.1 * len(data.runs))  # inches a task
    figure, (axes,) = _new(1, 1, _COLUMN, max(1.8, 0.9 + row * len(tasks)))
    for t in range(1, len(tasks), 2):
        axes.axhspan(t - 0.5, t + 0.5, color="#808080", alpha=0.12, linewidth=0)
    step = 0.8 / len(data.runs)
    for i, (run, one) in enumerate(zip(data.runs, numbers, strict=True)):
        values = one.tasks(metric)
        there = [(t, values[task]) for t, task in enumerate(tasks) if task in values]
        below = [e.value - (e.value if e.low is None else e.low) for _, e in there]
        above = [(e.value if e.high is None else e.high) - e.value for _, e in there]
        style = run_style(i)
        axes.errorbar(
            _percent(estimate.value for _, estimate in there),
            [t - 0.4 + step * (i + 0.5) for t, _ in there],
            xerr=[_percent(max(0.0, v) for v in side) for side in (below, above)],
            color=style.colour,
            linestyle="",
            **_marker(style),
            elinewidth=1.2,
            clip_on=False,
            label=_name(run),
        )
    axes.set_yticks(range(len(tasks)), [_plain(task) for task in tasks])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{METRIC_NAMES[metric]} (%), 95 % interval")
    _add_legend(figure, data)
    return figure


def _histograms(data: ReportData, numbers: Sequence[RunFigures]) -> Figure:
    columns = min(2, len(data.runs))
    rows = math.ceil(len(data.runs) / columns)
    figure, panels = _new(
        rows, columns, 1.7 * columns + 0.4, 1.6 * rows + 0.4, sharex=True, sharey=True
    )
    for panel in panels[len(data.runs) :]:
        panel.set_visible(False)
    for i, (axes, run, one) in enumerate(zip(panels, data.runs, numbers, strict=False)):
        colours = [CLASS_COLOURS["no_box"], *[run_style(i).colour] * (len(HISTOGRAM_BINS) - 1)]
        axes.bar(range(len(HISTOGRAM_BINS)), one.histogram, color=colours, width=0.85)
        axes.set_xticks([0, 1, 2, 6, 11], ["no box", "0", "(0, 0.1)", "[0.4, 0.5)", "[0.9, 1]"])
        axes.tick_params(axis="x", rotation=90)
        axes.grid(visible=False, axis="x")
        axes.set_title(_name(run, _SHORT_NAME), fontsize=8)
    figure.supxlabel("IoU", fontsize=8)
    figure.supylabel("samples", fontsize=8)
    return figure


def _percent(shares: Iterable[float]) -> list[float]:
    return [100 * share for share in shares]
