"""One row's facts, before it is held against a reference: from run records or printed values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from univg_eval.errors import UserError
from univg_eval.leaderboard.boards import column_of
from univg_eval.leaderboard.intervals import Estimate, is_share, macro_estimate, task_estimate
from univg_eval.leaderboard.marks import Mark
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import sample_metrics

__all__ = ["BASELINE", "REPLAY", "Column", "Entry", "entry_of_runs"]

TRUNCATED_SHARE = 0.01
# Ids of lmms-eval models that this project adds begin so; see `univg_eval.lmms.settings`.
BASELINE = "univg_baseline"
REPLAY = "univg_replay"


@dataclass(frozen=True, slots=True)
class Column:
    """One task of one row.

    Attributes:
        values: one a scored sample, on [0, 1]; empty for a printed value.
        clusters: the image group of each; empty for a printed value.
        ids: of all samples of the task, excluded ones too; empty for a printed value.
        estimate: the value with its limits.
        printed: in percent, with its digits; None for a run.
        right: (k, N) that a printed value comes from, where one annotation file alone explains its
            row, or where they were reported; None otherwise.
    """

    estimate: Estimate
    values: Sequence[float] = ()
    clusters: Sequence[Hashable] = ()
    ids: frozenset[str] = frozenset()
    printed: Decimal | None = None
    right: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row's facts.

    Attributes:
        label: what the table calls it.
        kind: ``run`` or ``published``.
        source: ``run``, or the key of the published table.
        columns: task → `Column`, in the order of the source.
        protocol: name of the scoring rule; None where it is not known.
        fingerprints: benchmark → fingerprint; empty for printed values.
        revisions: names of the annotation files that it can have been measured on; one for a run;
            empty where nothing is known.
        counts: task → the numbers of samples that the task may have had: one for a complete run,
            those that a printed value can come from; a task without an entry is not checked.
        printed_average: in percent, with its digits.
        marks: those that need no reference, each with what there is to say, possibly nothing.
        paths: of the records, as they were given.
        note: what the source says about this row alone; may be empty.
        also_in: keys of other published tables that print the same row.
    """

    label: str
    kind: Literal["run", "published"]
    source: str
    columns: Mapping[str, Column]
    protocol: str | None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    revisions: frozenset[str] = frozenset()
    counts: Mapping[str, frozenset[int]] = field(default_factory=dict)
    printed_average: Decimal | None = None
    marks: Mapping[Mark, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    note: str = ""
    also_in: tuple[str, ...] = ()

    def macro(self, tasks: Sequence[str]) -> Estimate | None:
        """The unweighted mean over `tasks`; None where one of them is missing."""
        columns = [self.columns[task] for task in tasks if task in self.columns]
        if not tasks or len(columns) < len(tasks):
            return None
        if all(column.values for column in columns):
            return macro_estimate(
                {task: self.columns[task].values for task in tasks},
                {task: self.columns[task].clusters for task in tasks},
            )
        printed = self.printed_mean(tasks)
        if printed is not None:
            return Estimate(float(printed / 100), None)
        return Estimate(sum(column.estimate.value for column in columns) / len(columns), None)

    def printed_mean(self, tasks: Sequence[str]) -> Decimal | None:
        """The mean of the printed values of `tasks` in percent; None where one is missing."""
        values = [self.columns[task].printed for task in tasks if task in self.columns]
        if not tasks or len(values) < len(tasks):
            return None
        known = [value for value in values if value is not None]
        return sum(known, Decimal(0)) / len(known) if len(known) == len(values) else None

    def micro(self, tasks: Sequence[str], metric: str) -> Estimate | None:
        """The mean over all samples of `tasks`; None where a task or its samples are missing.

        That of printed values has no interval: nobody has printed which samples share images.
        """
        columns = [self.columns[task] for task in tasks if task in self.columns]
        if not tasks or len(columns) < len(tasks):
            return None
        counts = [column.right for column in columns if column.right is not None]
        if len(counts) == len(columns):
            n = sum(n for _, n in counts)
            return Estimate(sum(k for k, _ in counts) / n, n)
        if not all(column.values for column in columns):
            return None
        return task_estimate(
            [value for column in columns for value in column.values],
            [cluster for column in columns for cluster in column.clusters],
            share=is_share(metric),
        )


def entry_of_runs(records: Sequence[RunRecord], metric: str) -> Entry | None:
    """The row of the records of one label in one table.

    Args:
        records: one, or one a benchmark of a group; at least one.
        metric: of `scoring.sample_metrics`.

    Returns:
        The facts, or None where no sample of the records counts under the metric.

    Raises:
        UserError: two of the records are of the same benchmark, or a record's scores cannot be
            read.
    """
    label = records[0].label
    benchmarks = [record.benchmark for record in records]
    if len(set(benchmarks)) < len(benchmarks):
        raise UserError(
            f"two runs are called {label!r} on the same benchmark ("
            + ", ".join(str(record.path) for record in records)
            + "); give them labels: NAME=PATH"
        )
    columns: dict[str, Column] = {}
    counts: dict[str, frozenset[int]] = {}
    n_excluded = n_truncated = n_all = 0
    for record in records:
        prepared = str(record.manifest["dataset"]["prepared_benchmark"])
        values: dict[str, list[float]] = {}
        clusters: dict[str, list[Hashable]] = {}
        ids: dict[str, set[str]] = {}
        for score in record.sample_scores():
            column = column_of(prepared, score.task, score.id)
            ids.setdefault(column, set()).add(score.id)
            n_all += 1
            n_excluded += score.excluded
            n_truncated += score.status == "truncated"
            value = sample_metrics(score).get(metric)
            if value is not None:
                values.setdefault(column, []).append(value)
                clusters.setdefault(column, []).append((prepared, score.cluster))
        for column in values:
            columns[column] = Column(
                task_estimate(values[column], clusters[column], share=is_share(metric)),
                values[column],
                clusters[column],
                frozenset(ids[column]),
            )
            if record.manifest["complete"]:
                counts[column] = frozenset({len(ids[column])})
    if not columns:
        return None
    marks = _marks_of_records(records)
    if n_truncated > TRUNCATED_SHARE * n_all:
        marks[Mark.TRUNCATED] = f"{n_truncated} of {n_all} responses"
    n_failed = sum(record.failed_requests for record in records)
    if n_failed:
        marks[Mark.FAILED_REQUESTS] = f"{n_failed} of {n_all} requests"
    if n_excluded:
        marks[Mark.EXCLUDED_SAMPLES] = f"{n_excluded} of {n_all} samples"
    return Entry(
        label=label,
        kind="run",
        source="run",
        columns=columns,
        protocol=_joined(_setting(record, "protocol") for record in records),
        fingerprints={
            str(record.manifest["dataset"]["prepared_benchmark"]): str(
                record.manifest["dataset"]["fingerprint"]
            )
            for record in records
        },
        revisions=_revisions(records),
        counts=counts,
        marks=marks,
        paths=tuple(str(record.path) for record in records),
    )


def _revisions(records: Sequence[RunRecord]) -> frozenset[str]:
    """The annotation file that all records name; nothing where they differ or name none."""
    names = {record.manifest["dataset"].get("revision") for record in records}
    return frozenset({str(names.pop())} if len(names) == 1 and None not in names else ())


def _setting(record: RunRecord, name: str) -> Any:
    setting = record.manifest["settings"].get(name)
    return setting[0] if isinstance(setting, list) and setting else setting


def _joined(words: Iterable[Any]) -> str | None:
    """The words with commas between them, each once in order of first appearance; None without."""
    found = list(dict.fromkeys(str(word) for word in words if word is not None))
    return ", ".join(found) if found else None


def _marks_of_records(records: Sequence[RunRecord]) -> dict[Mark, str]:
    marks: dict[Mark, str] = {}
    manifests = [record.manifest for record in records]
    different = sorted(
        name
        for name, values in {
            "model": [m["model"].get("id") for m in manifests],
            "configuration": [m["model"].get("config_sha256") for m in manifests],
            "prompt": [m["prompt_sha256"] for m in manifests],
            "generation": [m["generation"] for m in manifests],
            **{
                name: [_setting(record, name) for record in records]
                for name in ("dialect", "protocol", "min_pixels", "max_pixels")
            },
        }.items()
        if any(value != values[0] for value in values)
    )
    if different:
        marks[Mark.MIXED_SETTINGS] = "the records differ in " + ", ".join(different)
    incomplete = [record for record in records if not record.manifest["complete"]]
    if incomplete:
        marks[Mark.INCOMPLETE] = "; ".join(_how_incomplete(record) for record in incomplete)
    datasets = [m["dataset"] for m in manifests]
    for mark, key, usual in ((Mark.CONTROL, "control", "none"), (Mark.VIDEO, "media", "images")):
        shown = _joined(d.get(key) for d in datasets if d.get(key, usual) != usual)
        if shown:
            marks[mark] = shown
    kinds = {str(m["model"]["id"]).partition(":")[0] for m in manifests}
    if BASELINE in kinds:
        marks[Mark.BASELINE] = ""
    if REPLAY in kinds:
        marks[Mark.REPLAYED] = ""
    if any(m.get("rescored") for m in manifests):
        marks[Mark.RESCORED] = ""
    if any(str(m["versions"].get("commit") or "").endswith("-dirty") for m in manifests):
        marks[Mark.DIRTY_CODE] = ""
    return marks


def _how_incomplete(record: RunRecord) -> str:
    dataset = record.manifest["dataset"]
    text = f"{record.manifest['n']} of {dataset['n']} samples of {dataset['benchmark']}"
    skipped = dataset.get("skipped")
    return f"{text}, which lacks {skipped} faulty items" if skipped else text
