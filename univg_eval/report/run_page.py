"""The page about runs: one HTML file with its figures, its samples and their images.

The table and the charts are written as HTML and SVG and need no script. The samples are data: a
block of JSON and one block of text an image, which the script of the page turns into elements for
what is on the screen, as text and never as markup. A policy inside the page allows this one script
and this one style sheet, by their hashes, and images that the page itself holds; every request to
anywhere is forbidden.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from univg_eval.analysis.failures import FAILURES
from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.leaderboard import MEANINGS, Estimate, Mark
from univg_eval.report import charts
from univg_eval.report.looks import CLASS_COLOURS, look_of, marker_path
from univg_eval.report.run_data import HIT_IOU, Outcome, ReportData, fold, headline, is_hit
from univg_eval.report.run_figures import (
    CURVE_THRESHOLDS,
    HISTOGRAM_BINS,
    RunFigures,
    figures_of,
)
from univg_eval.report.text import as_html, printable, without_secrets
from univg_eval.report.thumbnails import Thumbnail, make_thumbnails
from univg_eval.samples import GroundingSample

__all__ = ["IMAGE_CHOICES", "ImageChoice", "RunPage", "as_data_block", "write_run_page"]

ImageChoice = Literal["all", "misses", "none"]
IMAGE_CHOICES: tuple[ImageChoice, ...] = get_args(ImageChoice)
THUMBNAIL_SIDE = 320
_SCRIPTS = ("elements.js", "theme.js", "drawing.js", "filters.js", "gallery.js")

_STATUS_WORDS = {
    "ok": "box",
    "no_box": "no box",
    "none": "says: none",
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
    thumbnail_side: int = THUMBNAIL_SIDE,
    root: str | os.PathLike[str] | None = None,
    footer: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> RunPage:
    """Write the page so that the file appears only when whole.

    Args:
        data: see `univg_eval.report.run_data.collect`.
        path: of the file.
        images: hold the images of all samples, of those that some run misses, or none.
        thumbnail_side: longest side of an image on the page, in pixels.
        root: the data root.
        footer: how the page was made.
        progress: called with the number of images done and the number of all.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path).expanduser().absolute()
    wanted = list(dict.fromkeys(name for s in _with_images(data, images) for name in s.images))
    thumbnails = make_thumbnails(
        wanted,
        side=thumbnail_side,
        root=root,
        progress=None if progress is None else lambda done: progress(done, len(wanted)),
    )
    try:
        write_text_atomically(path, _chunks(data, thumbnails, footer))
    except OSError as error:
        raise UserError(
            f"cannot write the page {path}: {error.strerror or error}; give a file in a folder "
            "that can be written to"
        ) from error
    return RunPage(
        path=path,
        n_bytes=path.stat().st_size,
        n_samples=len(data.samples),
        n_images=sum(bool(thumbnail.data) for thumbnail in thumbnails.values()),
        problems={name: t.problem for name, t in thumbnails.items() if t.problem},
    )


def _with_images(data: ReportData, images: ImageChoice) -> list[GroundingSample]:
    if images == "all":
        return list(data.samples)
    if images == "none":
        return []
    missed = {
        name
        for run in data.runs
        for name, outcome in run.outcomes.items()
        if is_hit(outcome.score) is False
    }
    return [sample for sample in data.samples if sample.id in missed]


# --- the file ------------------------------------------------------------------------------------


def _chunks(data: ReportData, thumbnails: Mapping[str, Thumbnail], footer: str) -> Iterator[str]:
    figures = figures_of(data)
    style, script = _asset("report.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    script = f"(() => {{\n'use strict';\n{script}}})();\n"
    title = f"{_count(len(data.runs), 'run')} on {data.benchmark}"
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="'
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{as_html(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    )
    yield _header(title, data)
    yield '<main id="main">\n'
    yield _summary(data, figures, thumbnails)
    yield _charts(data, figures)
    yield _asset("gallery.html")
    yield "</main>\n"
    yield f"<footer>{as_html(footer)}</footer>\n" if footer else ""
    numbers = {name: number for number, name in enumerate(thumbnails)}
    for name, thumbnail in thumbnails.items():
        # Base64 has no sign that could end the block. The script reads it when it is shown.
        if thumbnail.data:
            anchor = f"image-{numbers[name]}"
            yield f'<script type="text/plain" id="{anchor}">{thumbnail.data}</script>\n'
    yield '<script type="application/json" id="data">'
    yield from _json(data, thumbnails, numbers)
    yield "</script>\n"
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _asset(name: str) -> str:
    return (resources.files("univg_eval.report") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source expression that allows exactly this inline script or style sheet."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


_ESCAPES = str.maketrans(
    {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
)


def as_data_block(value: object) -> str:
    """JSON that can stand inside a ``<script>`` element: no text in it ends the element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(
        _ESCAPES
    )


# --- head and summary ----------------------------------------------------------------------------


def _header(title: str, data: ReportData) -> str:
    return (
        '<a class="skip" href="#main">Skip to the content</a>\n<header class="top">\n'
        f"<h1>{as_html(title)}</h1>\n"
        '<nav aria-label="Parts of the page"><ul><li><a href="#summary">Summary</a></li>'
        '<li><a href="#charts">Charts</a></li><li><a href="#samples">Samples</a></li></ul></nav>\n'
        '<button type="button" id="theme" hidden>Dark</button>\n</header>\n'
    )


def _summary(
    data: ReportData, figures: Sequence[RunFigures], thumbnails: Mapping[str, Thumbnail]
) -> str:
    single = all(
        headline(o.score) is None or o.score.iou is not None
        for run in data.runs
        for o in run.outcomes.values()
    )
    measure = "Acc@0.5" if single else "Score"
    columns = (
        f"{measure}, macro (mean of tasks)",
        "95 % interval",
        f"{measure}, micro (mean of samples)",
        "95 % interval",
        "mIoU",
        "Answered",
        "Samples",
    )
    head = "".join(f'<th scope="col" class="number">{column}</th>' for column in columns)
    rows = []
    for position, (run, figure) in enumerate(zip(data.runs, figures, strict=True)):
        cells = [
            _percent(None if figure.macro is None else figure.macro.value),
            _limits(figure.macro),
            _percent(None if figure.micro is None else figure.micro.value),
            _limits(figure.micro),
            _percent(figure.miou),
            _percent(figure.answered),
            f"{figure.n:,}",
        ]
        marks = "".join(
            f'<li title="{as_html(MEANINGS[mark])}">{as_html(mark)}'
            f"{as_html(f': {words}') if words else ''}</li>"
            for mark, words in figure.marks.items()
        )
        rows.append(
            f'<tr><th scope="row">{_chip(position, run.letter)} {as_html(run.label)}</th>'
            + "".join(f'<td class="number">{cell}</td>' for cell in cells)
            + f"<td>{f'<ul class=marks>{marks}</ul>' if marks else ''}</td></tr>"
        )
    n_tasks = len(data.tasks)
    lead = (
        f"{_count(len(data.samples), 'sample')} of {_count(n_tasks, 'task')}, "
        f"{data.n_common:,} of them common to all runs."
        if len(data.runs) > 1
        else f"{_count(len(data.samples), 'sample')} of {_count(n_tasks, 'task')}."
    )
    explained = (
        "Shares in %. Acc@0.5: share of samples whose box has IoU of at least 0.5; the mean of "
        "tasks weighs every task the same. Answered: share with a readable box. Intervals: "
        "Wilson's for a "
        "share of independent samples, else a bootstrap of groups of samples that share images; "
        "none where all samples of a task share images."
    )
    if not single:
        explained += (
            " Score: Acc@0.5 of questions with one object, the share answered “none” of those "
            "without, F1 at IoU 0.5 of those with several."
        )
    return (
        '<section id="summary" aria-labelledby="summary-title">\n'
        f'<h2 id="summary-title">Summary</h2>\n<p>{as_html(lead)}</p>\n'
        f"{_notes(data, thumbnails)}"
        '<div class="wide" tabindex="0" role="region" aria-label="Table of the runs">'
        f'<table class="summary"><caption class="spoken">Runs on {as_html(data.benchmark)}'
        f'</caption><thead><tr><th scope="col">Run</th>{head}<th scope="col">Marks</th></tr>'
        f"</thead>\n<tbody>{''.join(rows)}</tbody></table></div>\n"
        f'<p class="soft">{as_html(explained)}</p>\n{_meanings(figures)}{_provenance(data)}'
        "</section>\n"
    )


def _notes(data: ReportData, thumbnails: Mapping[str, Thumbnail]) -> str:
    notes = list(data.notes)
    problems = {name: t.problem for name, t in thumbnails.items() if t.problem}
    if problems:
        concerned = sum(any(name in problems for name in s.images) for s in data.samples)
        first = next(iter(problems.values()))
        notes.append(
            f"{_count(len(problems), 'image')} of {len(thumbnails):,} cannot be shown, in "
            f"{_count(concerned, 'sample')}; their cards say why. The first: {first}"
        )
    left_out = sum(any(name not in thumbnails for name in s.images) for s in data.samples)
    if left_out:
        notes.append(
            f"The images of {_count(left_out, 'sample')} were left out of this page when it was "
            "made (--images); their boxes are drawn on empty frames."
        )
    items = "".join(f"<li>{as_html(note)}</li>" for note in notes)
    return f'<ul class="notes" aria-label="Notes">{items}</ul>\n' if notes else ""


def _meanings(figures: Sequence[RunFigures]) -> str:
    found: list[Mark] = [mark for mark in Mark if any(mark in f.marks for f in figures)]
    items = "".join(f"<dt>{as_html(m)}</dt><dd>{as_html(MEANINGS[m])}</dd>" for m in found)
    if not items:
        return ""
    return f"<details><summary>What the marks say</summary><dl>{items}</dl></details>\n"


def _provenance(data: ReportData) -> str:
    """How each run was made, so that a number on this page can be traced."""
    rows: list[tuple[str, list[str]]] = []
    manifests = [run.record.manifest for run in data.runs]

    def add(name: str, values: Sequence[object]) -> None:
        if any(value not in (None, {}, "") for value in values):
            shown = ("–" if v in (None, {}, "") else without_secrets(v) for v in values)
            rows.append((name, list(shown)))

    add("model", [m["model"].get("id") for m in manifests])
    add("backend", [m["model"].get("backend") for m in manifests])
    for name in ("dialect", "prompt", "protocol", "min_pixels", "max_pixels"):
        add(name.replace("_", " "), [run.setting(name) for run in data.runs])
    add(
        "generation",
        [
            ", ".join(f"{k}={without_secrets(v, k)}" for k, v in (m["generation"] or {}).items())
            for m in manifests
        ],
    )
    add("made", [m.get("created") for m in manifests])
    add("univg", [m.get("versions", {}).get("univg") for m in manifests])
    add("commit", [m.get("versions", {}).get("commit") for m in manifests])
    add("samples' fingerprint", [m["dataset"].get("fingerprint") for m in manifests])
    add("record", [run.record.path for run in data.runs])
    head = "".join(
        f'<th scope="col">{_chip(i, run.letter)} {as_html(run.label)}</th>'
        for i, run in enumerate(data.runs)
    )
    body = "".join(
        f'<tr><th scope="row">{as_html(name)}</th>'
        + "".join(f"<td>{as_html(value)}</td>" for value in values)
        + "</tr>"
        for name, values in rows
    )
    return (
        "<details><summary>How the runs were made</summary>"
        '<div class="wide" tabindex="0" role="region" aria-label="How the runs were made">'
        f'<table class="facts"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>\n"
    )


# --- charts --------------------------------------------------------------------------------------


def _charts(data: ReportData, figures: Sequence[RunFigures]) -> str:
    parts = [
        '<section id="charts" aria-labelledby="charts-title">\n<h2 id="charts-title">Charts</h2>\n'
    ]
    if not any(figure.n for figure in figures):
        parts.append("<p>There is nothing to draw: no run has a sample that counts.</p>")
        return "".join(parts) + "</section>\n"
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 34 12" width="34" height="12" aria-hidden="true">'
        f'<path class="line" d="M1 6H33" stroke="{look_of(i).colour}"'
        + (f' stroke-dasharray="{dashes}"' if (dashes := look_of(i).line_dashes) else "")
        + f" />{marker_path(i, 17, 6)}</svg> "
        f"<b>{as_html(run.letter)}</b> {as_html(run.label)}</li>"
        for i, run in enumerate(data.runs)
    )
    parts.append(f'<ul class="keys" aria-label="Runs in the charts">{items}</ul>\n')
    has_iou = any(figure.curve for figure in figures)
    if not has_iou:
        parts.append("<p>No sample has a single object, so there are no charts of IoU.</p>")
    parts.append('<div class="pair">')
    parts.append(_curves(data, figures) if has_iou else "")
    parts.append(_failures(data, figures))
    parts.append("</div>\n")
    parts.append(_tasks(data, figures))
    parts.append(_histograms(data, figures) if has_iou else "")
    parts.append(_radars(data, figures))
    parts.append("</section>\n")
    return "".join(parts)


def _figure(anchor: str, title: str, text: str, body: str, table: str) -> str:
    return (
        f'<figure class="chart" role="group" aria-labelledby="{anchor}">'
        f'<h3 id="{anchor}">{as_html(title)}</h3><p class="soft">{as_html(text)}</p>{body}'
        f"<details><summary>Numbers of this chart</summary>{table}</details></figure>\n"
    )


def _curves(data: ReportData, figures: Sequence[RunFigures]) -> str:
    lines = [
        (i, run.letter, figure.curve)
        for i, (run, figure) in enumerate(zip(data.runs, figures, strict=True))
    ]
    drawn = charts.curves("Accuracy by IoU threshold, one line a run", CURVE_THRESHOLDS, lines)
    rows = [
        [f"{t:.2f}", *(f"{100 * line[i]:.1f}" if line else "–" for _, _, line in lines)]
        for i, t in enumerate(CURVE_THRESHOLDS)
    ]
    return _figure(
        "chart-curves",
        "Accuracy by IoU threshold",
        "Share of samples whose box reaches the IoU threshold, in %; unweighted mean of the "
        "tasks. Samples with one object only.",
        drawn,
        _table("Accuracy by threshold", ["IoU ≥", *_names(data)], rows),
    )


def _failures(data: ReportData, figures: Sequence[RunFigures]) -> str:
    classes = data.failures
    told = [
        (run, figure.failures)
        for run, figure in zip(data.runs, figures, strict=True)
        if figure.failures is not None and run.failures is not None and run.failures.total.n
    ]
    title = "Why boxes miss"
    if not told or not classes:
        words = "There are no misses." if told else "The misses of no run have a class."
        return (
            '<figure class="chart" role="group" aria-labelledby="chart-failures">'
            f'<h3 id="chart-failures">{title}</h3><p>{words}</p></figure>\n'
        )
    drawn = charts.stacked(
        "Share of samples that fail, by class, one bar a run",
        [
            (run.letter, [counts.get(name, 0) for name in classes], run.failures.total.n)
            for run, counts in told
            if run.failures is not None
        ],
        [(_words(name), CLASS_COLOURS[name]) for name in classes],
    )
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">'
        f'<rect class="bar" x=".5" y=".5" width="15" height="15" '
        f'fill="{CLASS_COLOURS[name]}" /></svg> <b>{i + 1}</b> '
        f"{as_html(_words(name))} "
        f'<span class="soft">{as_html(FAILURES[name])}</span></li>'
        for i, name in enumerate(classes)
    )
    rows: list[list[str]] = [
        [
            _words(name),
            *(
                f"{counts.get(name, 0):,} ({100 * counts.get(name, 0) / run.failures.total.n:.1f})"
                for run, counts in told
                if run.failures is not None
            ),
        ]
        for name in classes
    ]
    head = ["Class", *(f"{run.letter} {run.label}" for run, _ in told)]
    return _figure(
        "chart-failures",
        title,
        f"Samples with IoU below {HIT_IOU:g}, each in one class, as a share of the samples; what a "
        "bar leaves free was answered right.",
        f'{drawn}<ol class="classes">{keys}</ol>',
        _table("Misses by class, number and %", head, rows),
    )


def _words(failure: str) -> str:
    return failure.replace("_", " ")


def _tasks(data: ReportData, figures: Sequence[RunFigures]) -> str:
    panels, rows = [], []
    every = [estimate for figure in figures for estimate in figure.tasks.values()]
    highest = charts.ceiling(e.value if e.high is None else e.high for e in every)
    for task in data.tasks:
        there = [
            (i, run.letter, figure.tasks[task])
            for i, (run, figure) in enumerate(zip(data.runs, figures, strict=True))
            if task in figure.tasks
        ]
        if not there:
            continue
        spoken = "; ".join(
            f"{letter} {100 * f.value:.1f} %, {charts.limits_in_words(f)}" for _, letter, f in there
        )
        numbers = sorted({f.n or 0 for _, _, f in there})
        n = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,}–{numbers[-1]:,}"
        drawn = charts.bars(f"{task}: {spoken}", there, highest)
        panels.append(
            f'<div><h4>{as_html(task)} <span class="soft">n = {n}</span></h4>{drawn}</div>'
        )
        rows.append(
            [
                task,
                *(
                    f"{100 * f.value:.1f} ({charts.limits_in_words(f)}), n = {f.n:,}"
                    if (f := figure.tasks.get(task)) is not None
                    else "–"
                    for figure in figures
                ),
            ]
        )
    return _figure(
        "chart-tasks",
        "Tasks",
        "Acc@0.5 in % with 95 % intervals (of tasks without a single object: their own score).",
        f'<div class="panels">{"".join(panels)}</div>',
        _table("Score by task, with 95 % interval", ["Task", *_names(data)], rows),
    )


def _histograms(data: ReportData, figures: Sequence[RunFigures]) -> str:
    highest = max((max(figure.histogram) for figure in figures), default=0)
    panels = []
    for i, (run, figure) in enumerate(zip(data.runs, figures, strict=True)):
        counts = ", ".join(
            f"{name}: {n}" for name, n in zip(HISTOGRAM_BINS, figure.histogram, strict=True) if n
        )
        drawn = charts.histogram(
            f"IoU of run {run.letter}: {counts or 'nothing'}",
            i,
            HISTOGRAM_BINS,
            figure.histogram,
            highest,
        )
        panels.append(f"<div><h4>{_chip(i, run.letter)} {as_html(run.label)}</h4>{drawn}</div>")
    rows = [
        [name, *(f"{figure.histogram[i]:,}" for figure in figures)]
        for i, name in enumerate(HISTOGRAM_BINS)
    ]
    return _figure(
        "chart-histograms",
        "IoU of the boxes",
        "Samples by IoU; apart from them those without a readable box, and boxes that do not touch "
        "the object.",
        f'<div class="panels">{"".join(panels)}</div>',
        _table("Samples by IoU", ["IoU", *_names(data)], rows),
    )


def _radars(data: ReportData, figures: Sequence[RunFigures]) -> str:
    if len(data.tasks) < 3:
        return ""
    highest = charts.ceiling(f.value for figure in figures for f in figure.tasks.values())
    panels = []
    for i, (run, figure) in enumerate(zip(data.runs, figures, strict=True)):
        values = {task: estimate.value for task, estimate in figure.tasks.items()}
        spoken = ", ".join(f"{task} {100 * value:.1f} %" for task, value in values.items())
        drawn = charts.radar(
            f"Profile of run {run.letter}: {spoken or 'nothing'}",
            i,
            run.letter,
            values,
            data.tasks,
            highest,
        )
        panels.append(f"<div><h4>{_chip(i, run.letter)} {as_html(run.label)}</h4>{drawn}</div>")
    rows = [
        [
            task,
            *(
                f"{100 * f.value:.1f}" if (f := figure.tasks.get(task)) else "–"
                for figure in figures
            ),
        ]
        for task in data.tasks
    ]
    return _figure(
        "chart-radars",
        "Profiles",
        "Score by task in %, an axis a task. The area means nothing: it depends on the order of "
        "the tasks.",
        f'<div class="panels wide-panels">{"".join(panels)}</div>',
        _table("Score by task", ["Task", *_names(data)], rows),
    )


# --- samples as data -----------------------------------------------------------------------------


def _json(
    data: ReportData, thumbnails: Mapping[str, Thumbnail], numbers: Mapping[str, int]
) -> Iterator[str]:
    """The block of data, piece by piece: a page of thousands of samples is not built in memory."""
    head = {
        "benchmark": printable(data.benchmark),
        "hit": HIT_IOU,
        "runs": [
            {
                "letter": run.letter,
                "label": printable(run.label),
                "colour": look_of(i).colour,
                "dashes": look_of(i).box_dashes,
            }
            for i, run in enumerate(data.runs)
        ],
        "tasks": [printable(task) for task in data.tasks],
        "statuses": _STATUS_WORDS,
        "failures": {name: _words(name) for name in data.failures},
        "images": [_image(thumbnail) for thumbnail in thumbnails.values()],
    }
    yield as_data_block(head)[:-1]
    yield ',"samples":['
    for position, sample in enumerate(data.samples):
        outcomes = [run.outcomes.get(sample.id) for run in data.runs]
        yield ("," if position else "") + as_data_block(_sample(sample, outcomes, numbers))
    yield "]}"


def _image(thumbnail: Thumbnail) -> dict[str, Any]:
    if thumbnail.image_wh is None:
        return {"problem": printable(thumbnail.problem)}
    return {"size": list(thumbnail.image_wh)}


def _sample(
    sample: GroundingSample, outcomes: Sequence[Outcome | None], numbers: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "id": printable(sample.id),
        "task": printable(sample.task),
        "question": printable(sample.instruction),
        "given": sample.image_is_given,
        "images": [numbers.get(name, -1) for name in sample.images],
        "sizes": sample.image_sizes,
        "truth": [[target.image, *_rounded(target.box)] for target in sample.targets],
        "facts": _facts(sample),
        "runs": [None if outcome is None else _outcome(outcome) for outcome in outcomes],
    }


def _facts(sample: GroundingSample) -> list[list[str]]:
    facts = {"split": sample.split, "cluster": sample.cluster, **sample.extra}
    return [
        [
            printable(str(name)),
            printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)),
        ]
        for name, value in facts.items()
    ]


def _outcome(outcome: Outcome) -> dict[str, Any]:
    score = outcome.score
    thinking, answer = ("", None) if outcome.response is None else fold(outcome.response)
    row: dict[str, Any] = {
        "status": score.status,
        "iou": None if score.iou is None else round(score.iou, 4),
        "value": headline(score),
        "hit": is_hit(score),
        "boxes": [[-1 if image is None else image, *_rounded(b)] for image, b in outcome.boxes],
        "thinking": printable(thinking),
        "answer": None if answer is None else printable(answer),
    }
    if outcome.error:
        row["error"] = printable(without_secrets(outcome.error))
    if outcome.failure:
        row["failure"] = outcome.failure
    # A hint may repeat the message of a failed request.
    hints = [hint for hint in outcome.hints if not outcome.error or outcome.error not in hint]
    if hints:
        row["hints"] = [printable(hint) for hint in hints]
    if score.image_right is not None:
        row["named"] = score.image_index
    return row


def _rounded(box: Sequence[float]) -> list[float | None]:
    """Coordinates to four decimals; null for what is no number (an invalid truth)."""
    return [round(value, 4) if abs(value) < 1e6 else None for value in box]


# --- small pieces --------------------------------------------------------------------------------


def _names(data: ReportData) -> list[str]:
    return [f"{run.letter} {run.label}" for run in data.runs]


def _chip(position: int, letter: str) -> str:
    return (
        f'<svg class="chip" viewBox="0 0 {10 + 8 * len(letter)} 18" height="18" '
        f'width="{10 + 8 * len(letter)}" role="img" aria-label="Run {letter}">'
        f'<rect width="100%" height="18" rx="3" fill="{look_of(position).colour}" />'
        f'<text x="50%" y="13.5" text-anchor="middle">{letter}</text></svg>'
    )


def _table(name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = "".join(f'<th scope="col">{as_html(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{as_html(first)}</th>'
        + "".join(f'<td class="number">{as_html(cell)}</td>' for cell in others)
        + "</tr>"
        for first, *others in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{as_html(name)}"><table>'
        f'<caption class="spoken">{as_html(name)}</caption><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _limits(estimate: Estimate | None) -> str:
    return "–" if estimate is None else charts.limits_in_words(estimate)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
