"""The page of an audit: counts by kind, and the offenders drawn."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from univg_eval.audit import KINDS, NOTES, AuditReport, Case, Finding
from univg_eval.boxes import is_valid_box
from univg_eval.report.drawing import BoxStyle, DrawnBox, Panel
from univg_eval.report.page import Card, Page, Section
from univg_eval.samples import GroundingSample

__all__ = ["audit_page"]

CARDS_PER_KIND = 24
_PANELS_PER_CARD = 6
_SHOWN_IDS = 12

Locate = Callable[[str], str | os.PathLike[str] | None]


def audit_page(
    report: AuditReport,
    samples: Sequence[GroundingSample],
    locate: Locate,
    *,
    cards_per_kind: int = CARDS_PER_KIND,
    footer: str = "",
) -> Page:
    """The page of a report.

    Args:
        report: of the samples.
        samples: the rows that were examined.
        locate: from an entry of `GroundingSample.images` to the file that can be opened, or None
            where the images are not at hand.
        cards_per_kind: of each kind of finding as many are drawn; how many are not is said.
        footer: how the page was made.
    """
    rows = {sample.id: sample for sample in samples}
    n = sum(len(finding.cases) for finding in report.findings)
    words = {
        "decoded": "every image was decoded to its end",
        "headers": "of the images the headers were read",
        "not opened": "the images were not opened",
    }[report.images_read]
    cases = f"{n:,} case{'' if n == 1 else 's'}"
    kinds = f"{len(report.findings)} kind{'' if len(report.findings) == 1 else 's'}"
    verdict = f"Found: {cases} of {kinds}." if n else "Nothing was found."
    notes = []
    if report.notes:
        rows_of_notes = [(name, count, NOTES[name]) for name, count in report.notes.items()]
        notes = [Section("Notes, not faults", head=("note", "rows", "meaning"), rows=rows_of_notes)]
    return Page(
        title=f"Audit of {report.benchmark}",
        lead=f"{report.n:,} rows on {report.n_images:,} images in {report.n_clusters:,} clusters "
        f"of rows that are not independent; {words}.\n\nFingerprint of the data: "
        f"{report.fingerprint}",
        verdict=verdict,
        tone="bad" if n else "good",
        summary_head=("finding", "cases", "meaning"),
        summary_rows=[
            (finding.kind, len(finding.cases), KINDS[finding.kind].meaning)
            for finding in report.findings
        ],
        sections=[
            *(_section(finding, rows, locate, cards_per_kind) for finding in report.findings),
            *notes,
            Section("Rows per task", head=("task", "rows"), rows=list(report.tasks.items())),
        ],
        footer=footer,
    )


def _section(
    finding: Finding, rows: Mapping[str, GroundingSample], locate: Locate, most: int
) -> Section:
    kind = KINDS[finding.kind]
    shown = finding.cases[:most]
    return Section(
        title=finding.kind,
        text=f"What it is: {kind.meaning}.\n\nIn scoring: {kind.scoring}.\n\nRemedy: "
        f"{kind.remedy}.",
        cards=[_card(finding.kind, case, rows, locate) for case in shown],
        left_out=len(finding.cases) - len(shown),
    )


def _card(kind: str, case: Case, rows: Mapping[str, GroundingSample], locate: Locate) -> Card:
    sample = next((rows[name] for name in case.samples if name in rows), None)
    title = case.samples[0] if case.samples else "samples.jsonl"
    lines = [("found", case.detail)]
    if sample is None:
        return Card(title=title, lines=lines)
    if case.file is not None:
        lines.append(("file", case.file))
    if len(case.samples) > 1:
        others = ", ".join(case.samples[1 : 1 + _SHOWN_IDS])
        more = len(case.samples) - 1 - _SHOWN_IDS
        lines.append(("also in", others + (f" and {more:,} more" if more > 0 else "")))
    lines.append(("instruction", sample.instruction))
    earlier = rows.get(case.other or "")
    if earlier is not None:
        lines.append((f"instruction of {earlier.id}", earlier.instruction))
    return Card(
        title=title,
        images=_panels(kind, sample, earlier, case.file, locate),
        lines=lines,
        status=sample.task,
    )


def _panels(
    kind: str,
    sample: GroundingSample,
    earlier: GroundingSample | None,
    file: str | None,
    locate: Locate,
) -> list[Panel]:
    """The images that matter first: the file concerned, those with targets, then the others."""
    boxes: dict[int, list[DrawnBox]] = {}
    for number, target in enumerate(sample.targets, start=1):
        label = "truth" if len(sample.targets) == 1 else f"truth {number}"
        style: BoxStyle = "truth" if is_valid_box(target.box) else "faulty"
        boxes.setdefault(target.image, []).append(DrawnBox(target.box, label, style))
    if earlier is not None:
        for target in earlier.targets:
            image = earlier.images[target.image]
            if image in sample.images:
                boxes.setdefault(sample.images.index(image), []).append(
                    DrawnBox(target.box, earlier.id, "mark")
                )
    if file is not None:
        order = [sample.images.index(file)]
    else:
        order = sorted(range(len(sample.images)), key=lambda i: (i not in boxes, i))
    shown = order[:_PANELS_PER_CARD]
    panels = []
    for index in shown:
        caption = f"image {index + 1} of {len(sample.images)}"
        if index == shown[-1] and len(order) > len(shown):
            caption += f" ({len(order) - len(shown)} more are not shown)"
        panel = Panel(
            image=locate(sample.images[index]),
            boxes=boxes.get(index, ()),
            caption=caption,
            size=sample.image_sizes[index] if sample.image_sizes is not None else None,
        )
        panels.append(panel)
        if kind == "exif_orientation":
            caption = f"image {index + 1} as stored, without the EXIF orientation"
            panels.append(replace(panel, caption=caption, as_stored=True))
    return panels
