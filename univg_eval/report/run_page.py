"""The page about runs: one HTML file with its figures, its samples and their images.

The table and the figures need no script. The samples are data: a block of JSON and one block of
text an image, which the script of the page turns into elements for what is on the screen, as text
and never as markup.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from univg_eval.analysis.failures import FAILURES, FailureKind, FailureShares
from univg_eval.leaderboard import MEANINGS, Estimate, Mark
from univg_eval.redaction import without_secrets
from univg_eval.report.drawing import run_style
from univg_eval.report.figures import (
    CURVE_THRESHOLDS,
    HISTOGRAM_BINS,
    METRIC_NAMES,
    RunFigures,
    as_svg,
    draw_figures,
    figures_of,
    metrics_of,
)
from univg_eval.report.page import render, write_page
from univg_eval.report.run_data import Outcome, ReportData, fold, is_hit
from univg_eval.report.text import moment, printable_tree
from univg_eval.report.thumbnails import Thumbnail, default_side, make_thumbnails
from univg_eval.samples import GroundingSample
from univg_eval.scoring import headline

__all__ = ["ImageChoice", "RunPage", "write_run_page"]

ImageChoice = Literal["all", "misses", "none"]
_SCRIPTS = ("elements.js", "theme.js", "drawing.js", "filters.js", "gallery.js")
_STATUSES = {
    "ok": "box",
    "no_box": "no box",
    "none": "said none",
    "truncated": "truncated",
    "invalid_box": "invalid box",
}


@dataclass(frozen=True, slots=True)
class RunPage:
    """What was written.

    Attributes:
        path: of the page, absolute.
        n_bytes: its size.
        n_samples: in the gallery.
        n_images: distinct images that it holds.
        problems: image → why it cannot be shown.
    """

    path: Path
    n_bytes: int
    n_samples: int
    n_images: int
    problems: Mapping[str, str]


def write_run_page(
    data: ReportData,
    path: str | os.PathLike[str],
    *,
    images: ImageChoice = "all",
    thumbnail_side: int | None = None,
    root: str | os.PathLike[str] | None = None,
    footer: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> RunPage:
    """Write the page so that the file appears only when whole.

    Args:
        data: see `univg_eval.report.run_data.collect`.
        path: of the file.
        images: hold the images of all samples, of those that some run misses, or none.
        thumbnail_side: longest side of an image on the page, in pixels; None: by the number of
            images, see `univg_eval.report.thumbnails.default_side`.
        root: the data root.
        footer: how the page was made.
        progress: called with the number of images done and the number of all.

    Raises:
        UserError: the file cannot be written, or jinja2 or matplotlib is not installed.
    """
    numbers = figures_of(data)
    drawn = draw_figures(data, numbers)
    shown = [
        s for s in data.samples if images == "all" or (images == "misses" and _is_miss(data, s))
    ]
    wanted = list(dict.fromkeys(name for sample in shown for name in sample.images))
    thumbnails = make_thumbnails(
        wanted,
        side=default_side(len(wanted)) if thumbnail_side is None else thumbnail_side,
        root=root,
        progress=None if progress is None else lambda done: progress(done, len(wanted)),
    )
    index = {name: i for i, name in enumerate(thumbnails)}
    pieces = render(
        "run.html",
        scripts=_SCRIPTS,
        title=f"{_count(len(data.runs), 'run')} on {data.benchmark}",
        footer=footer,
        data=data,
        numbers=numbers,
        colours=[run_style(i).colour for i in range(len(data.runs))],
        metrics=metrics_of(numbers) or list(METRIC_NAMES)[:1],
        names=METRIC_NAMES,
        notes=[*data.notes, *_image_notes(data, thumbnails)],
        meanings=MEANINGS,
        marks=[mark for mark in Mark if any(mark in one.marks for one in numbers)],
        beside=_beside(data),
        provenance=_provenance(data),
        charts={name: as_svg(figure, name, _CHARTS[name]) for name, figure in drawn.items()},
        tables=_tables(data, numbers),
        classes={_words(kind): FAILURES[kind] for kind in data.failures},
        percent=_percent,
        limits=_limits,
        count=_count,
        thumbnails=thumbnails,
        gallery=printable_tree(_gallery(data, thumbnails)),
        samples=_samples(data, index),
    )
    path = write_page(pieces, path)
    return RunPage(
        path=path,
        n_bytes=path.stat().st_size,
        n_samples=len(data.samples),
        n_images=sum(bool(thumbnail.data) for thumbnail in thumbnails.values()),
        problems={name: t.problem for name, t in thumbnails.items() if t.problem},
    )


def _is_miss(data: ReportData, sample: GroundingSample) -> bool:
    found = (run.outcomes.get(sample.id) for run in data.runs)
    return any(outcome is not None and is_hit(outcome.score) is False for outcome in found)


def _image_notes(data: ReportData, thumbnails: Mapping[str, Thumbnail]) -> Iterator[str]:
    problems = {name: t.problem for name, t in thumbnails.items() if t.problem}
    if problems:
        concerned = sum(any(name in problems for name in s.images) for s in data.samples)
        first = next(iter(problems.values()))
        yield (
            f"{_count(len(problems), 'image')} of {len(thumbnails):,} cannot be shown, in "
            f"{_count(concerned, 'sample')}; their cards say why. The first: {first}"
        )
    left_out = sum(any(name not in thumbnails for name in s.images) for s in data.samples)
    if left_out:
        yield (
            f"The images of {_count(left_out, 'sample')} were left out of this page (--images); "
            "their boxes are drawn on empty frames."
        )


def _beside(data: ReportData) -> Table | None:
    """Numbers of boxes, rejection, and what the authors' own scorers say; None without any."""
    runs = [run.record.manifest.results for run in data.runs]
    rows: dict[str, list[str]] = {}

    def put(name: str, run: int, value: float | None) -> None:
        rows.setdefault(name, ["–"] * len(runs))[run] = "–" if value is None else f"{value:.4f}"

    for i, results in enumerate(runs):
        if results.several is not None:
            put("several targets: boxes per answer", i, results.several.boxes_per_answer)
            put("several targets: targets per sample", i, results.several.targets_per_sample)
        if results.rejection is not None:
            put("rejection, recall", i, results.rejection.recall)
            put("rejection, precision", i, results.rejection.precision)
        for rule, metrics in results.published.items():
            for name, value in metrics.items():
                put(f"{rule}: {name}", i, value)
    heads = ["Metric", *(f"{run.letter} {run.label}" for run in data.runs)]
    return (heads, [[name, *values] for name, values in rows.items()]) if rows else None


def _provenance(data: ReportData) -> list[tuple[str, list[str]]]:
    """How each run was made, a row a fact, so that a number on this page can be traced."""
    manifests = [run.record.manifest for run in data.runs]
    facts: dict[str, list[Any]] = {
        "model": [m.model.id for m in manifests],
        "backend": [m.model.backend for m in manifests],
    }
    for name in ("dialect", "prompt", "protocol", "min_pixels", "max_pixels"):
        facts[name.replace("_", " ")] = [run.setting(name) for run in data.runs]
    facts["generation"] = [
        ", ".join(f"{k}={without_secrets(v, k)}" for k, v in m.generation.items())
        for m in manifests
    ]
    facts["made"] = [moment(m.created) for m in manifests]
    facts["univg"] = [m.versions.univg for m in manifests]
    facts["commit"] = [m.versions.commit for m in manifests]
    facts["samples' fingerprint"] = [m.dataset.fingerprint for m in manifests]
    facts["record"] = [run.record.path for run in data.runs]
    empty: tuple[Any, ...] = (None, "", {})
    return [
        (name, ["–" if value in empty else without_secrets(value) for value in values])
        for name, values in facts.items()
        if any(value not in empty for value in values)
    ]


# --- figures -------------------------------------------------------------------------------------


_CHARTS = {
    "curves": "Accuracy by IoU threshold, one line a run",
    "misses": "Share of samples that fail, by class, one bar a run",
    "tasks": "Score by task with its interval, one dot a run",
    "iou": "Samples by IoU, one histogram a run",
}
"""Each figure in words, for those who do not see it."""

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def _tables(data: ReportData, numbers: Sequence[RunFigures]) -> dict[str, Table]:
    """The numbers of each figure: head and rows."""
    names = [f"{run.letter} {run.label}" for run in data.runs]
    metrics = metrics_of(numbers)
    classified = [
        (name, run.failures.total)
        for name, run in zip(names, data.runs, strict=True)
        if run.failures is not None
    ]

    def curve(i: int) -> list[str]:
        return [_percent(one.curve[i] if one.curve else None) for one in numbers]

    def share(kind: FailureKind, total: FailureShares) -> str:
        return f"{total.kinds[kind]:,} ({_percent(total.share(kind))})" if total.n else "–"

    def task(estimate: Estimate | None) -> str:
        if estimate is None:
            return "–"
        return f"{_percent(estimate.value)} ({_limits(estimate)}), n = {estimate.n:,}"

    return {
        "curves": (
            ["IoU ≥", *names],
            [[f"{t:.2f}", *curve(i)] for i, t in enumerate(CURVE_THRESHOLDS)],
        ),
        "misses": (
            ["Class", *(name for name, _ in classified)],
            [
                [_words(kind), *(share(kind, total) for _, total in classified)]
                for kind in data.failures
            ],
        ),
        "tasks": (
            ["Task", *names],
            [
                [
                    name if metric == metrics[0] else f"{name}: {METRIC_NAMES[metric]}",
                    *(task(one.tasks(metric).get(name)) for one in numbers),
                ]
                for metric in metrics
                for name in data.tasks
                if any(name in one.tasks(metric) for one in numbers)
            ],
        ),
        "iou": (
            ["IoU", *names],
            [
                [name, *(f"{one.histogram[i]:,}" for one in numbers)]
                for i, name in enumerate(HISTOGRAM_BINS)
            ],
        ),
    }


def _words(failure: str) -> str:
    return failure.replace("_", " ")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _limits(estimate: Estimate | None) -> str:
    """``12.5 to 30.0`` in percent, or that there are none."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return "no interval"
    return f"{_percent(estimate.low)} to {_percent(estimate.high)}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


# --- samples as data -----------------------------------------------------------------------------


def _gallery(data: ReportData, thumbnails: Mapping[str, Thumbnail]) -> dict[str, Any]:
    """What the script needs besides the samples."""
    return {
        "runs": [
            {
                "letter": run.letter,
                "label": run.label,
                "colour": run_style(i).colour,
                "dashes": run_style(i).box,
            }
            for i, run in enumerate(data.runs)
        ],
        "tasks": data.tasks,
        "statuses": _STATUSES,
        "failures": {name: _words(name) for name in data.failures},
        "images": [
            {"problem": t.problem} if t.image_wh is None else {"size": t.image_wh}
            for t in thumbnails.values()
        ],
    }


def _samples(data: ReportData, index: Mapping[str, int]) -> Iterator[Any]:
    """One at a time: a page of thousands of samples is not built in memory."""
    for sample in data.samples:
        outcomes = [run.outcomes.get(sample.id) for run in data.runs]
        facts = {"split": sample.split, "cluster": sample.cluster, **sample.extra}
        yield printable_tree(
            {
                "id": sample.id,
                "task": sample.task,
                "instruction": sample.instruction,
                "images": [index.get(name, -1) for name in sample.images],
                "sizes": sample.image_sizes,
                "truth": [[target.image, *_rounded(target.box)] for target in sample.targets],
                "facts": [[name, _fact(value)] for name, value in facts.items()],
                "runs": [outcome and _outcome(outcome) for outcome in outcomes],
            }
        )


def _fact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    score = outcome.score
    thinking, answer = ("", None) if outcome.response is None else fold(outcome.response)
    row: dict[str, Any] = {
        "status": score.status,
        "iou": None if score.iou is None else round(score.iou, 4),
        "value": headline(score),
        "hit": is_hit(score),
        "boxes": [[-1 if image is None else image, *_rounded(b)] for image, b in outcome.boxes],
        "thinking": thinking,
        "answer": answer,
    }
    if outcome.error:
        row["error"] = without_secrets(outcome.error)
    if outcome.failure:
        row["failure"] = outcome.failure
    # A hint may repeat the message of a failed request.
    hints = [hint for hint in outcome.hints if not outcome.error or outcome.error not in hint]
    if hints:
        row["hints"] = hints
    if score.image_right is not None:
        row["named"] = score.image_index
    return row


def _rounded(box: Sequence[float]) -> list[float | None]:
    """Coordinates to four decimals; null for what is no number (an invalid truth)."""
    return [round(value, 4) if abs(value) < 1e6 else None for value in box]
