"""The page of ``univg check``: every answer drawn on its image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.analysis.failures import classify_run
from univg_eval.analysis.headline import headlines
from univg_eval.report import Card, DrawnBox, Page, Panel, Section
from univg_eval.report.run_data import is_hit
from univg_eval.runs.record import load_run
from univg_eval.samples import data_root

if TYPE_CHECKING:
    from univg_eval.analysis.diagnosis import CheckFinding, Conclusion
    from univg_eval.lmms.check import Answered, CheckResult
    from univg_eval.report import Tone
    from univg_eval.scoring import SampleScore

__all__ = ["make_page", "result_tables"]

MAX_CARDS = 3
"""Examples of one finding: all answers follow below, by task."""

_TONES: Mapping[str, Tone] = {"wrong": "bad", "look": "warn", "fine": "good"}
_STATUS = {
    "no_box": "no box",
    "none": "said none",
    "truncated": "cut off",
    "invalid_box": "invalid box",
}


def make_page(result: CheckResult, conclusion: Conclusion, footer: str) -> Page:
    """The page: verdict, findings, figures, settings, and all answers, misses first."""
    root = data_root()
    records = [load_run(path) for path in result.records["declared"]]
    kinds = {
        name: failure.kind.replace("_", " ")
        for record in records
        for name, failure in classify_run(record).failures.items()
    }
    by_id = {one.sample.id: one for one in result.answered}
    sections = []
    for finding in result.findings:
        if not finding.is_fault:
            continue
        examples = [by_id[name] for name in finding.examples if name in by_id]
        paragraphs = [finding.detail, f"What to do: {finding.remedy}"]
        sections.append(
            Section(
                title=f"{finding.severity.capitalize()}: {finding.title}",
                text="\n\n".join(part for part in paragraphs if part),
                cards=[_card(one, root, _read_otherwise(finding)) for one in examples[:MAX_CARDS]],
                n=0,  # the cards are examples; the title says of how many answers
            )
        )
    notes = [finding for finding in result.findings if not finding.is_fault]
    if notes:
        sections.append(
            Section(
                title="Notes",
                head=("what", "more", "e.g."),
                rows=[(f.title, f.detail, ", ".join(f.examples[:MAX_CARDS])) for f in notes],
            )
        )
    sections += result_tables(result)
    settings = result.settings.to_dict().items()
    rows = [(name, str(v), str(source)) for name, (v, source) in settings if v is not None]
    sections.append(Section("Settings", head=("setting", "value", "source"), rows=rows))
    order = easy_first(result)
    answered = sorted(
        result.answered,
        key=lambda one: (is_hit(one.score) is not False, order.index(one.sample.task)),
    )
    sections.append(
        Section(
            "Answers",
            "Misses first, and those of the easier tasks (fewer and smaller images) before others.",
            cards=[_card(one, root, kind=kinds.get(one.sample.id, "")) for one in answered],
        )
    )
    return Page(
        title=f"Check of {records[0].label}",
        verdict=conclusion.headline,
        tone=_TONES[conclusion.status],
        lead=conclusion.text,
        sections=sections,
        footer=footer,
    )


def easy_first(result: CheckResult) -> list[str]:
    """The tasks: those with fewer images first, then those with smaller ones."""

    def effort(task: str) -> tuple[int, int]:
        samples = [one.sample for one in result.answered if one.sample.task == task]
        pixels = [w * h for sample in samples for w, h in sample.image_sizes or ()]
        return max(len(sample.images) for sample in samples), max(pixels, default=0)

    return sorted(result.tasks, key=effort)


def result_tables(result: CheckResult) -> Iterator[Section]:
    """The scores by task, what survives the controls, other forms of the request; in percent."""
    from univg_eval.lmms.check import declared_words

    rows: list[tuple[str, ...]] = []
    shown = {one.metric: one.tasks for one in headlines(result.diagnosis.scores)}
    values = shown.get("acc@0.5", {})
    for task in easy_first(result):
        metrics = result.tasks[task]
        n, cells = metrics["n"], ["–"] * 4
        value = values.get(task)
        if value is not None:
            limits = "–" if value.limits is None else "-".join(map(_percent, value.limits))
            miou, answered = (_percent(metrics[k]) for k in ("miou", "answered"))
            cells = [_percent(value.value), limits, miou, answered]
        rows.append((task, str(n), *cells))
    head = ("task", "n", "Acc@0.5 %", "95 %", "mIoU %", "readable %")
    yield Section("Score by task", head=head, rows=rows)
    if result.controls:
        rows = []
        for r in result.controls:
            survives = _percent(r.survives if r.is_meaningful else None)
            span = f"{_percent(r.low)} to {_percent(r.high)}" if r.is_meaningful else "–"
            scores = _percent(r.score), _percent(r.control_score)
            rows.append((r.control, str(r.n), *scores, survives, span, str(r.same)))
        yield Section(
            "What survives the controls",
            "Share of the score that is left when something is taken away; the interval is a "
            "paired bootstrap over samples that share images.",
            head=("control", "n", "score %", "under it %", "survives %", "95 %", "same text"),
            rows=rows,
        )
    if result.variants:
        first = result.variants[0]
        declared = f"{declared_words(result.settings)} (declared)"
        rows = [(declared, str(first.n), _percent(first.declared_score), "", "", "")]
        rows += [
            (
                r.name,
                str(r.n),
                _percent(r.score),
                f"{100 * r.difference:+.0f}",
                f"{100 * r.low:+.0f} to {100 * r.high:+.0f}",
                f"{r.p:.3f}" if r.p >= 0.001 else "< 0.001",
            )
            for r in result.variants
        ]
        yield Section(
            "Other forms of the request",
            "p: exact McNemar test against the declared form, corrected for the number of "
            "variants.",
            head=("request", "n", "score %", "difference", "95 %", "p"),
            rows=rows,
        )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}"


def _read_otherwise(finding: CheckFinding) -> Mapping[str, DrawnBox]:
    """Of a hint: by sample id, the box that the other reading gives."""
    read_as = finding.numbers.get("read_as", {})
    return {
        name: DrawnBox(tuple(box), f"as {read_as['names'][0]}", "mark")
        for name, box in read_as.get("boxes", {}).items()
    }


def _card(
    one: Answered,
    root: Path,
    others: Mapping[str, DrawnBox] | None = None,
    *,
    kind: str | None = None,
) -> Card:
    """A card; with its kind of miss ("" for none) it can be found by the filters."""
    sample, score, response = one.sample, one.score, one.response
    panels = []
    for number, name in enumerate(sample.images):
        boxes = [
            DrawnBox(target.box, "truth", "truth")
            for target in sample.targets
            if target.image == number
        ]
        if score.box is not None and number == _image_of(one):
            named = sample.image_is_given or score.image_index is not None
            label = "answer" if named else "answer, no image named"
            boxes.append(DrawnBox(score.box, label, "answer"))
        if others and sample.id in others and number == _image_of(one):
            boxes.append(others[sample.id])
        caption = f"image {number + 1}" if len(sample.images) > 1 else ""
        size = sample.image_sizes[number] if sample.image_sizes else None
        panels.append(Panel(root / name, boxes, caption, size))
    status, tone = _badge(score)
    if kind and kind not in status:
        status += f", {kind}"
    lines = [
        ("question", response.prompt or sample.instruction),
        ("answer", response.text or "(nothing)"),
    ]
    if not sample.targets:
        lines.append(("truth", "there is no such object"))
    if one.output_tokens is not None:
        lines.append(("generated tokens", str(one.output_tokens)))
    groups: dict[str, list[str]] = {}
    if kind is not None:
        is_unreadable = score.status not in ("ok", "none")
        groups = {
            "Answers": [
                {False: "misses", True: "right", None: "left out"}[is_hit(score)],
                *(["unreadable"] if is_unreadable else []),
            ],
            "Kind of miss": [kind] if kind else [],
            "Task": [sample.task],
        }
    return Card(sample.id, panels, lines, status, tone, groups)


def _image_of(one: Answered) -> int:
    """The image on which the answer's box is drawn."""
    if one.sample.image_is_given and one.sample.targets:
        return one.sample.targets[0].image
    return one.score.image_index or 0


def _badge(score: SampleScore) -> tuple[str, Tone]:
    if score.excluded:
        return "left out: faulty truth", "plain"
    if score.no_target_right is not None:
        return ("rightly none", "good") if score.no_target_right else ("there is none", "bad")
    if score.status != "ok":
        return _STATUS[score.status], "bad"
    value = score.iou if score.iou is not None else score.f1 or 0.0
    clipped = ", reaches outside" if score.clipped else ""
    name = "IoU" if score.iou is not None else "F1"
    tone: Tone = "good" if value >= 0.5 else "warn" if value >= 0.3 else "bad"
    return f"{name} {value:.2f}{clipped}", tone
