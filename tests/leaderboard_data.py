"""Run records and printed tables that the tests of the leaderboard share."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from run_records import manifest, response, score

from univg_eval.leaderboard.published import Counts, PublishedRow, PublishedTable, Role
from univg_eval.runs.record import RunRecord, make_record
from univg_eval.scoring import SampleScore


def record(
    label: str,
    tasks: Mapping[str, Sequence[float]],
    *,
    benchmark: str = "toy",
    clusters: Mapping[str, Sequence[str]] | None = None,
    scores: Mapping[str, Mapping[str, Any]] | None = None,
    ids: str = "{benchmark}-{task}-{number:05d}",
    **changes: Any,
) -> RunRecord:
    """A record with the given IoU of each sample.

    Args:
        label: of the run, and its model's id.
        tasks: task to IoUs.
        benchmark: what ran; ``+variant`` names a control.
        clusters: task to image group of each sample; each sample its own if None.
        scores: sample id to other fields of its score.
        ids: form of the ids.
        changes: see `record_of`.
    """
    prepared = benchmark.partition("+")[0]
    lines = []
    for task, ious in tasks.items():
        for number, iou in enumerate(ious):
            sample_id = ids.format(benchmark=prepared, task=task, number=number)
            group = clusters[task][number] if clusters else sample_id
            line = score(sample_id, "ok", iou, task=task, cluster=group)
            lines.append(replace(line, **(scores or {}).get(sample_id, {})))
    return record_of(label, lines, benchmark=benchmark, **changes)


def record_of(
    label: str,
    lines: Sequence[SampleScore],
    *,
    benchmark: str = "toy",
    responses: Sequence[str] | None = None,
    protocol: str = "univg",
    settings: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    **changes: Any,
) -> RunRecord:
    """A record with these lines of scores.

    Args:
        label: of the run, and its model's id.
        lines: scores of its samples.
        benchmark: what ran; ``+variant`` names a control.
        responses: texts; "x" for each sample if None.
        protocol, settings: scoring rule, and other settings.
        dataset: other fields of the manifest's dataset.
        changes: other fields of the manifest.
    """
    prepared, _, variant = benchmark.partition("+")
    values = manifest(n=len(lines), excluded=sum(line.excluded for line in lines))
    values["model"]["id"] = label
    for name, value in {"protocol": protocol, **(settings or {})}.items():
        values["settings"][name] = [value, "default"]
    values["dataset"] |= {
        "benchmark": benchmark,
        "prepared_benchmark": prepared,
        "control": variant or "none",
        "n": len(lines),
    } | dict(dataset or {})
    values["versions"]["commit"] = "0" * 40
    texts = ["x"] * len(lines) if responses is None else responses
    return make_record(
        Path(label),
        manifest=values | changes,
        responses=[
            response(line.id, text, task=line.task) for line, text in zip(lines, texts, strict=True)
        ],
        scores=lines,
        label=label,
    )


def table(
    rows: Mapping[str, Mapping[str, str]],
    averages: Mapping[str, str] | None = None,
    *,
    key: str = "paper",
    benchmark: str = "mig_bench",
    protocol: str = "univg-r1",
    revision: str = "unknown",
    protocols: Mapping[str, str] | None = None,
    role: Role = "main",
    metric: str = "acc@0.5",
) -> PublishedTable:
    """A published table of the given printed values."""
    return PublishedTable(
        key=key,
        benchmark=benchmark,
        role=role,
        title="A table",
        paper="A paper",
        place="Table 1",
        arxiv="2505.00001",
        url="https://example.org/paper",
        date=datetime.date(2025, 5, 20),
        metric=metric,
        revision=revision,
        protocol=protocol,
        tasks=tuple(dict.fromkeys(task for values in rows.values() for task in values)),
        rows=tuple(
            PublishedRow(
                model=model,
                values={task: Decimal(value) for task, value in values.items()},
                printed_avg=Decimal(averages[model]) if averages and model in averages else None,
                protocol=(protocols or {}).get(model, protocol),
            )
            for model, values in rows.items()
        ),
        notes="",
    )


def counts(revision: str, benchmark: str = "mig_bench", **tasks: int) -> Counts:
    """The numbers of samples of an annotation file."""
    return Counts(benchmark, revision, f"{revision}.json", "counted", "test", tasks)
