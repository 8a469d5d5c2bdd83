"""The facts of one row, before it is compared with a reference: of run records or printed values.

Which 95 % interval a value gets, `univg_eval.analysis.stats` says for all tables and pages.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from univg_eval.analysis.stats import (
    Estimate,
    macro_estimate,
    runs_estimate,
    share_estimate,
    task_estimate,
)
from univg_eval.errors import UserError
from univg_eval.leaderboard.marks import Mark
from univg_eval.leaderboard.published import (
    OVERALL,
    UNKNOWN,
    Counts,
    PublishedTable,
    Reproductions,
)
from univg_eval.leaderboard.published_checks import check_table, row_fits
from univg_eval.runs.groups import aligned_scores
from univg_eval.runs.manifest import Manifest
from univg_eval.runs.record import RunRecord
from univg_eval.scoring import is_share, sample_metrics

TRUNCATED_SHARE = 0.01
# Ids of lmms-eval models that this project adds begin so; see `univg_eval.lmms.settings`.
BASELINE = "univg_baseline"
REPLAY = "univg_replay"

GROUPS: Mapping[str, tuple[str, ...]] = {
    "zero_shot": ("lisa", "llmseg", "reasonvos", "revos"),
    "zero_shot_full": ("lisa_full", "llmseg_full", "reasonvos_full", "revos_full"),
}
"""Tables over several benchmarks: the records of one label form a row."""
PUBLISHED_FOR: Mapping[str, str] = {"mig_bench_revised": "mig_bench"}
"""Board → the benchmark whose published tables belong to it, where the names differ: printed
tables do not say which revision of MIG-Bench they were measured on."""
_GROUP_OF = {member: group for group, members in GROUPS.items() for member in members}


def board_of(benchmark: str) -> str:
    """The table of a record's benchmark; what ran under a control or on videos keeps its own.

    >>> board_of("lisa"), board_of("lisa+blank"), board_of("mig_bench")
    ('zero_shot', 'zero_shot+blank', 'mig_bench')
    """
    name, plus, variant = benchmark.partition("+")
    return _GROUP_OF.get(name, name) + plus + variant


@dataclass(frozen=True, slots=True)
class Column:
    """One task of one row.

    Attributes:
        estimate: the value with its limits.
        values, clusters: of each scored sample; empty for a printed value. Of several runs the
            values are means.
        ids: of all samples of the task, excluded ones too; empty for a printed value.
        printed: in percent, with its digits; None for a run.
        right: (k, N) that a printed value comes from, where one annotation file alone explains its
            row, or where they were reported; None otherwise.
        runs: of several runs, the values of each.
    """

    estimate: Estimate
    values: Sequence[float] = ()
    clusters: Sequence[Hashable] = ()
    ids: frozenset[str] = frozenset()
    printed: Decimal | None = None
    right: tuple[int, int] | None = None
    runs: Sequence[Sequence[float]] = ()


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

    def printed_mean(self, tasks: Sequence[str]) -> Decimal | None:
        """The mean of the printed values of `tasks` in percent; None where one is missing."""
        found = [self.columns[task].printed for task in tasks if task in self.columns]
        values = [value for value in found if value is not None]
        if not tasks or len(values) < len(tasks):
            return None
        return sum(values, Decimal(0)) / len(values)

    def macro(self, tasks: Sequence[str]) -> Estimate | None:
        """The unweighted mean over `tasks`; None where one of them is missing."""
        if not tasks or any(task not in self.columns for task in tasks):
            return None
        printed = self.printed_mean(tasks)
        if printed is not None:
            return Estimate(float(printed / 100), None)
        if not any(self.columns[task].values for task in tasks):  # by a published rule
            found = [self.columns[task].estimate.value for task in tasks]
            return Estimate(math.fsum(found) / len(found), None)
        clusters = {task: self.columns[task].clusters for task in tasks}
        n_runs = len(self.columns[tasks[0]].runs)
        if n_runs:
            runs = [{t: self.columns[t].runs[run] for t in tasks} for run in range(n_runs)]
            return runs_estimate(runs, clusters)
        return macro_estimate({task: self.columns[task].values for task in tasks}, clusters)

    def micro(self, tasks: Sequence[str], metric: str) -> Estimate | None:
        """The mean over all samples of `tasks`; None where a task or its samples are missing.

        That of printed values has no interval: nobody has printed which samples share images.
        """
        if not tasks or any(task not in self.columns for task in tasks):
            return None
        columns = [self.columns[task] for task in tasks]
        counts = [column.right for column in columns if column.right is not None]
        if len(counts) == len(columns):
            n = sum(n for _, n in counts)
            return Estimate(sum(k for k, _ in counts) / n, n)
        if not all(column.values for column in columns):
            return None
        pooled = [cluster for column in columns for cluster in column.clusters]
        if columns[0].runs:
            runs = [
                {"": [value for values in run for value in values]}
                for run in zip(*(column.runs for column in columns), strict=True)
            ]
            return runs_estimate(runs, {"": pooled})
        return task_estimate(
            [value for column in columns for value in column.values],
            pooled,
            share=is_share(metric),
        )


def entry_of_runs(records: Sequence[RunRecord], metric: str) -> Entry | None:
    """The row of the records of one label in one table.

    Args:
        records: one, or one a benchmark of a group of benchmarks; at least one. Instead of one,
            several runs of one thing (`univg_eval.runs.groups`), as many on each benchmark.
        metric: of `scoring.sample_metrics`, or ``RULE/NAME`` of the records' published figures,
            which belong to the whole set, or a task of it, and have no interval.

    Returns:
        The facts, or None where no sample of the records counts under the metric.

    Raises:
        UserError: two of the records are of the same benchmark and no runs of one thing, or a
            record's scores cannot be read.
    """
    label = records[0].label
    by_benchmark: dict[str, list[RunRecord]] = {}
    for record in records:
        by_benchmark.setdefault(record.benchmark, []).append(record)
    numbers = {name: len(own) for name, own in by_benchmark.items()}
    several = len(records) > len(numbers)
    if several and (None in (found := {r.group for r in records}) or len(found) > 1):
        paths = ", ".join(str(record.path) for record in records)
        raise UserError(
            f"two runs are called {label!r} on the same benchmark ({paths}); give them labels: "
            "NAME=PATH"
        )
    if len(set(numbers.values())) > 1:
        raise UserError(
            f"{label} has other numbers of runs by benchmark: "
            + ", ".join(f"{n} of {name}" for name, n in numbers.items())
            + "; evaluate the missing ones, or name the records of each run with a label"
        )
    columns: dict[str, Column] = {}
    counts: dict[str, frozenset[int]] = {}
    rule, of_rule, name = metric.partition("/")
    n_excluded = n_truncated = n_all = 0
    for own in by_benchmark.values():
        prepared = own[0].manifest.dataset.prepared_benchmark
        values: dict[str, list[list[float]]] = {}
        clusters: dict[str, list[Hashable]] = {}
        ids: dict[str, set[str]] = {}
        for scores in aligned_scores(own):
            score = scores[0]
            column = score.task
            ids.setdefault(column, set()).add(score.id)
            n_all += len(scores)
            n_excluded += sum(one.excluded for one in scores)
            n_truncated += sum(one.status == "truncated" for one in scores)
            found_values = [sample_metrics(one).get(metric) for one in scores]
            counted = [value for value in found_values if value is not None]
            if len(counted) == len(scores):
                values.setdefault(column, []).append(counted)
                clusters.setdefault(column, []).append((prepared, score.cluster))
        for column, rows in values.items():
            columns[column] = _column(rows, clusters[column], frozenset(ids[column]), metric)
            if own[0].manifest.complete:
                counts[column] = frozenset({len(ids[column])})
        if of_rule and not several:
            figures = own[0].manifest.results.published.get(rule, {})
            columns |= _columns_by_rule(figures, name, ids)
    if not columns:
        return None
    marks = _marks_of_records(records, [own[0] for own in by_benchmark.values()])
    n_failed = sum(record.failed_requests for record in records)
    for mark, n, what in (
        (Mark.TRUNCATED, n_truncated if n_truncated > TRUNCATED_SHARE * n_all else 0, "responses"),
        (Mark.FAILED_REQUESTS, n_failed, "requests"),
        (Mark.EXCLUDED_SAMPLES, n_excluded, "samples"),
    ):
        if n:
            marks[mark] = f"{n} of {n_all} {what}"
    datasets = [record.manifest.dataset for record in records]
    revisions = {dataset.revision for dataset in datasets}
    return Entry(
        label=label,
        kind="run",
        source="run",
        columns=columns,
        protocol=rule if of_rule else _joined(r.manifest.scoring_rule for r in records),
        fingerprints={d.prepared_benchmark: d.fingerprint for d in datasets},
        revisions=frozenset(map(str, revisions - {None})) if len(revisions) == 1 else frozenset(),
        counts=counts,
        marks=marks,
        paths=tuple(str(record.path) for record in records),
    )


def _columns_by_rule(
    figures: Mapping[str, float], name: str, ids: Mapping[str, Set[str]]
) -> dict[str, Column]:
    """A metric of a published rule: of the whole set, and of its tasks where the rule has them.

    Rules call the same of a task ``{task}_{name}``; HumanRef's calls that of the set ``average_…``.
    """
    places = {OVERALL: (name, frozenset[str]().union(*ids.values()))}
    for task, own in ids.items():
        places[task] = (f"{task}_{name.removeprefix('average_')}", frozenset(own))
    return {
        place: Column(Estimate(figures[of_place], None), ids=own)
        for place, (of_place, own) in places.items()
        if of_place in figures
    }


def _column(
    rows: Sequence[Sequence[float]],
    clusters: Sequence[Hashable],
    ids: frozenset[str],
    metric: str,
) -> Column:
    """A task of one run or several: `rows` has the values of each sample, one a run."""
    runs = list(zip(*rows, strict=True))
    if len(runs) == 1:
        estimate = task_estimate(runs[0], clusters, share=is_share(metric))
        return Column(estimate, runs[0], clusters, ids)
    means = [math.fsum(row) / len(row) for row in rows]
    estimate = runs_estimate([{"": run} for run in runs], {"": clusters})
    return Column(estimate, means, clusters, ids, runs=runs)


def _joined(words: Iterable[Any]) -> str | None:
    """The words with commas between them, each once in order of first appearance; None without."""
    return ", ".join(dict.fromkeys(str(word) for word in words if word is not None)) or None


def _marks_of_records(
    records: Sequence[RunRecord], one_a_benchmark: Sequence[RunRecord]
) -> dict[Mark, str]:
    marks: dict[Mark, str] = {}
    manifests = [record.manifest for record in one_a_benchmark]
    facts: dict[str, list[Any]] = {
        "model": [m.model.id for m in manifests],
        "configuration": [m.model.config_sha256 for m in manifests],
        "prompt": [m.prompt_sha256 for m in manifests],
        "generation": [m.generation for m in manifests],
        "dialect": [m.settings.dialect.value for m in manifests],
        "protocol": [m.scoring_rule for m in manifests],
        "min_pixels": [m.settings.min_pixels.value for m in manifests],
        "max_pixels": [m.settings.max_pixels.value for m in manifests],
    }
    different = sorted(name for name, found in facts.items() if any(v != found[0] for v in found))
    if different:
        marks[Mark.MIXED_SETTINGS] = "the records differ in " + ", ".join(different)
    manifests = [record.manifest for record in records]
    incomplete = dict.fromkeys(_how_incomplete(m) for m in manifests if not m.complete)
    if incomplete:
        marks[Mark.INCOMPLETE] = "; ".join(incomplete)
    control = _joined(m.dataset.control for m in manifests if m.dataset.control != "none")
    if control:
        marks[Mark.CONTROL] = control
    media = _joined(m.dataset.media for m in manifests if m.dataset.media != "images")
    if media:
        marks[Mark.VIDEO] = media
    kinds = {m.model.id.partition(":")[0] for m in manifests}
    dirty = any((m.versions.commit or "").endswith("-dirty") for m in manifests)
    for mark, found in (
        (Mark.STAND_IN_IMAGES, any(m.dataset.stand_in_images for m in manifests)),
        (Mark.BASELINE, BASELINE in kinds),
        (Mark.REPLAYED, REPLAY in kinds),
        (Mark.RESCORED, any(m.rescored for m in manifests)),
        (Mark.SCORES_DIFFER, any(record.score_check == "different" for record in records)),
        (Mark.SCORES_UNCHECKED, any(record.score_check == "unknown" for record in records)),
        (Mark.DIRTY_CODE, dirty),
    ):
        if found:
            marks[mark] = ""
    return marks


def _how_incomplete(manifest: Manifest) -> str:
    dataset = manifest.dataset
    text = f"{manifest.n} of {dataset.n} samples of {dataset.benchmark}"
    return f"{text}, which lacks {dataset.skipped} faulty items" if dataset.skipped else text


_MARK_OF_KIND = {
    "average": Mark.AVERAGE_DIFFERS,
    "denominator": Mark.INFEASIBLE_DENOMINATOR,
    "revision": Mark.INFEASIBLE_DENOMINATOR,
    "rounding": Mark.CUT_OFF,
}


def entries_of_table(table: PublishedTable, revisions: Sequence[Counts]) -> list[Entry]:
    """The rows of a published table, in its order.

    Args:
        table: as `published.load_published` gives it.
        revisions: the annotation files that its values are checked with.
    """
    found: dict[str, dict[Mark, list[str]]] = {row.model: {} for row in table.rows}
    values = {row.model: row.values for row in table.rows}
    for item in check_table(table, revisions):
        if item.model is None:
            continue
        text = item.text
        if item.kind == "denominator" and item.task is not None:
            text = f"{item.task} {values[item.model][item.task]}"
        found[item.model].setdefault(_MARK_OF_KIND[item.kind], []).append(text)
    entries = []
    for row in table.rows:
        fits = row_fits(row, revisions) if is_share(table.metric) else ()
        named = {table.revision} - {UNKNOWN}
        certain = fits[0].counts if len(fits) == 1 and fits[0].rounding == "nearest" else {}
        entries.append(
            Entry(
                label=row.model,
                kind="published",
                source=table.key,
                columns={
                    task: Column(
                        Estimate(float(value / 100), None), printed=value, right=certain.get(task)
                    )
                    for task, value in row.values.items()
                },
                protocol=None if row.protocol == UNKNOWN else row.protocol,
                revisions=frozenset({fit.revision for fit in fits} or named),
                counts={
                    task: frozenset(fit.counts[task][1] for fit in fits if task in fit.counts)
                    for task in row.values
                    if any(task in fit.counts for fit in fits)
                },
                printed_average=row.printed_avg,
                marks={
                    Mark.UNKNOWN_PROVENANCE: "",
                    **{mark: ", ".join(texts) for mark, texts in found[row.model].items()},
                },
                note=row.note,
            )
        )
    return entries


def entry_of_reproductions(
    reported: Reproductions, metric: str, revisions: Sequence[Counts]
) -> Entry | None:
    """What a user reported under a metric; None where there is nothing.

    Shares have Wilson's interval, since their numerators and denominators were reported.
    """
    rows = [row for row in reported.rows if row.metric == metric]
    if not rows:
        return None
    columns = {}
    for row in rows:
        exact = row.numerator / row.denominator
        printed = row.printed
        if printed is None:
            printed = (100 * exact).quantize(Decimal("0.01"))
        if is_share(metric):
            right = (int(row.numerator), row.denominator)
            columns[row.task] = Column(share_estimate(*right), printed=printed, right=right)
        else:
            columns[row.task] = Column(Estimate(float(exact), row.denominator), printed=printed)
    fitting = {
        known.revision
        for known in revisions
        if all(known.counts.get(row.task, row.denominator) == row.denominator for row in rows)
    }
    return Entry(
        label=f"{reported.model} (reported by a user)",
        kind="published",
        source=reported.key,
        columns=columns,
        protocol=None if reported.protocol == UNKNOWN else reported.protocol,
        revisions=frozenset({reported.revision} - {UNKNOWN} or fitting),
        counts={row.task: frozenset({row.denominator}) for row in rows},
        marks={Mark.UNKNOWN_PROVENANCE: ""},
    )
