"""What a page about runs shows: the union of their samples, and what each run made of each.

Everything is read from the records and the prepared benchmark; nothing is scored anew. Only the
further boxes of samples with several targets or none, which a record does not keep, are read from
the response again, by the record's own dialect and protocol.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from univg_eval.analysis.failures import FAILURES, FailureKind, RunFailures, classify_run
from univg_eval.boxes import Box
from univg_eval.dialects import Dialect, get_dialect, sections
from univg_eval.errors import UserError
from univg_eval.images.controls import CONTROLS, NO_CONTROL, require_control, under_control
from univg_eval.protocols import parse_answer
from univg_eval.runs.record import RunRecord, require_fingerprint, response_of
from univg_eval.samples import GroundingSample, fingerprint, load_samples
from univg_eval.scoring import Response, SampleScore, given_image, headline

__all__ = [
    "Outcome",
    "ReportData",
    "ReportRun",
    "collect",
    "fold",
    "is_hit",
    "letter_of",
]


def is_hit(score: SampleScore) -> bool | None:
    """Whether a sample is answered right; None if it is excluded.

    One target: IoU >= 0.5. None: an explicit "none". Several: each matched, and no box more.
    """
    value = headline(score)
    return None if value is None else value == 1.0


def letter_of(position: int) -> str:
    """The short name of a run by its 0-based position: A, B, …, Z, AA, AB, …"""
    letters = ""
    position += 1
    while position:
        position, rest = divmod(position - 1, len(ascii_uppercase))
        letters = ascii_uppercase[rest] + letters
    return letters


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run made of a sample.

    Attributes:
        score: from the record.
        response: the whole response, None if the model gave none.
        boxes: (0-based image, xyxy_norm) of every box to draw; the image is that which the
            response names, else the target's, and None where there is neither.
        error: what came instead of a response, where the request failed; else empty.
        failure: the class of the miss, empty where there is none.
        hints: sentences on what else is known of the miss.
    """

    score: SampleScore
    response: str | None
    boxes: tuple[tuple[int | None, Box], ...]
    error: str = ""
    failure: str = ""
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportRun:
    """A run on the page.

    Attributes:
        letter: stands for it on images and in charts.
        record: as loaded.
        outcomes: id → outcome, of its samples.
        failures: its misses by class, None where its dialect is not known here.
    """

    letter: str
    record: RunRecord
    outcomes: Mapping[str, Outcome]
    failures: RunFailures | None = None

    @property
    def label(self) -> str:
        """Its name."""
        return self.record.label

    @property
    def scores(self) -> list[SampleScore]:
        """Its scores, in file order."""
        return [outcome.score for outcome in self.outcomes.values()]

    def setting(self, name: str) -> Any:
        """The value of a setting of the record."""
        return getattr(self.record.manifest.settings, name).value


@dataclass(frozen=True, slots=True)
class ReportData:
    """Runs of one benchmark.

    Attributes:
        benchmark: what ran, e.g. ``mig_bench`` or ``mig_bench+blank``.
        runs: in the order given.
        samples: those of at least one run, in the order of the prepared set.
        n_common: samples of all runs.
        notes: what a reader must know before comparing.
    """

    benchmark: str
    runs: Sequence[ReportRun]
    samples: Sequence[GroundingSample]
    n_common: int
    notes: Sequence[str] = ()

    @property
    def tasks(self) -> list[str]:
        """Tasks in the order of their first sample."""
        return list(dict.fromkeys(sample.task for sample in self.samples))

    @property
    def failures(self) -> list[FailureKind]:
        """Classes of misses that occur, in the order of `univg_eval.analysis.failures.FAILURES`."""
        found = {o.failure for run in self.runs for o in run.outcomes.values()}
        return [name for name in FAILURES if name in found]


def collect(
    records: Sequence[RunRecord],
    *,
    benchmark: str | None = None,
    root: str | os.PathLike[str] | None = None,
) -> ReportData:
    """Bring runs of one benchmark together.

    Args:
        records: at least one.
        benchmark: take the runs of this one; needed where the records are of several.
        root: the data root; default as in `samples.data_root`.

    Raises:
        UserError: runs of several benchmarks and none chosen, no run of the chosen one, the
            benchmark is not prepared, or its prepared samples are not those of a run.
    """
    chosen = _of_one_benchmark(records, benchmark)
    dataset = chosen[0].manifest.dataset
    prepared = dataset.prepared_benchmark
    everything = load_samples(prepared, root=root)
    control = require_control(dataset.control)
    shown = under_control(control, everything).samples
    by_id = {sample.id: sample for sample in (*everything, *shown)}
    here = fingerprint(everything)
    for record in chosen:
        # Boxes of another revision would be drawn on the wrong images, and nobody would notice.
        require_fingerprint(prepared, here, record.manifest.dataset.fingerprint)
        missing = [score.id for score in record.scores if score.id not in by_id]
        if missing:
            raise UserError(
                f"the run {record.label!r} ({record.path}) has {len(missing)} samples that the "
                f"prepared {prepared!r} lacks, e.g. {missing[0]!r}; prepare it again"
            )
    notes: list[str] = []
    runs = [_run(letter_of(i), record, everything, by_id, notes) for i, record in enumerate(chosen)]
    ids = [set(run.outcomes) for run in runs]
    samples = [by_id[sample.id] for sample in everything if any(sample.id in ones for ones in ids)]
    n_common = len(set.intersection(*ids))
    return ReportData(
        benchmark=chosen[0].benchmark,
        runs=runs,
        samples=samples,
        n_common=n_common,
        notes=[*_notes(runs, len(samples), n_common, control), *notes],
    )


def _of_one_benchmark(records: Sequence[RunRecord], benchmark: str | None) -> list[RunRecord]:
    counts = Counter(record.benchmark for record in records)
    known = ", ".join(f"{name} ({n} run{'' if n == 1 else 's'})" for name, n in counts.items())
    if benchmark is None and len(counts) > 1:
        raise UserError(
            f"the runs are of {len(counts)} benchmarks: {known}; choose one with --benchmark"
        )
    chosen = [r for r in records if benchmark is None or r.benchmark == benchmark]
    if not chosen:
        raise UserError(f"no run is of benchmark {benchmark!r}; the runs are of {known or 'none'}")
    return chosen


def _run(
    letter: str,
    record: RunRecord,
    samples: Sequence[GroundingSample],
    by_id: Mapping[str, GroundingSample],
    notes: list[str],
) -> ReportRun:
    responses = {row["id"]: response_of(row) for row in record.responses}
    run = ReportRun(letter, record, {})
    failures = dialect = None
    try:
        failures = classify_run(record, samples)
        dialect = get_dialect(
            run.setting("dialect"),
            min_pixels=run.setting("min_pixels"),
            max_pixels=run.setting("max_pixels"),
        )
    except UserError as error:
        # E.g. a dialect of the user's own, which this process does not know.
        notes.append(f"The misses of run {letter} ({record.label}) have no classes: {error}")
    outcomes = {}
    for score in record.scores:
        response, message = responses[score.id]
        failure = failures.failures.get(score.id) if failures is not None else None
        outcomes[score.id] = Outcome(
            score=score,
            response=response.text,
            boxes=_boxes(by_id[score.id], score, response, run.setting("protocol"), dialect),
            error=message or "",
            failure=failure.kind if failure is not None else "",
            hints=failure.hints if failure is not None else (),
        )
    return replace(run, outcomes=outcomes, failures=failures)


def _boxes(
    sample: GroundingSample,
    score: SampleScore,
    response: Response,
    protocol: str,
    dialect: Dialect | None,
) -> tuple[tuple[int | None, Box], ...]:
    given = {target.image for target in sample.targets}
    default = next(iter(given)) if len(given) == 1 else 0 if len(sample.images) == 1 else None

    def on(named: int | None) -> int | None:
        return named if named is not None and 0 <= named < len(sample.images) else default

    recorded = () if score.box is None else ((on(score.image_index), score.box),)
    if sample.kind == "single" and sample.image_is_given:
        return () if score.box is None else ((default, score.box),)
    if sample.kind == "single" or response.text is None:
        return recorded
    try:
        answer = parse_answer(
            response.text,
            dialect,
            image_sizes=response.image_sizes or sample.image_sizes,
            input_sizes=response.input_sizes,
            target_image=given_image(sample),
            image_is_given=sample.image_is_given,
            prompt=response.prompt,
            protocol=protocol,
        )
    except UserError:
        # Without the dialect, or sizes that it needs, the record's box is left.
        return recorded
    pairs = zip(answer.box_images, answer.boxes, strict=True)
    return tuple((on(image), box) for image, box in pairs)


def _notes(runs: Sequence[ReportRun], n_union: int, n_common: int, control: str) -> Iterator[str]:
    for run in runs:
        if not run.outcomes:
            yield f"Run {run.letter} ({run.label}) is empty: its record holds no samples."
    if n_common < n_union:
        each = ", ".join(f"{run.letter} {len(run.outcomes):,}" for run in runs)
        yield (
            f"The runs have different samples: {n_common:,} of {n_union:,} are common to all "
            f"({each}). Every figure is of its run's own samples; figures can be compared only "
            "where these are the same. The samples below are those of any run."
        )
    for run in runs:
        unanswered = sum(outcome.response is None for outcome in run.outcomes.values())
        if unanswered:
            yield (
                f"Run {run.letter} ({run.label}) has no response to {unanswered:,} of its "
                f"{len(run.outcomes):,} samples; they count as wrong."
            )
    if len({run.setting("protocol") for run in runs}) > 1:
        which = ", ".join(f"{run.letter} {run.setting('protocol')}" for run in runs)
        yield (
            f"The runs were scored under different protocols ({which}), so their figures are not "
            "the same measure; univg rescore scores one again under another protocol."
        )
    if control != NO_CONTROL:
        seen = (
            "instead of the images below the models were shown grey ones"
            if control == "blank"
            else "images and instructions below are those that the models were given"
        )
        yield (
            f"These runs were made under the control {control!r} ({CONTROLS[control]}): {seen}; "
            "the truth is that of the benchmark."
        )
    if runs[0].record.manifest.dataset.media == "video":
        yield "The models were shown whole videos; below are the frames of the benchmark."


_ANSWER_MARK = re.compile(r"<(?:answer|ANSWER|Answer)>\s*\Z|<\|begin_of_box\|>\s*\Z")


def fold(response: str) -> tuple[str, str]:
    """A response as (thinking, the rest): joined they are the response.

    The thinking is all before the answer section where there is thinking, with its marks.
    """
    split = sections.split_response(response)
    if split.thinking is None:
        return "", response
    if not split.section.strip():
        return response, ""
    start = response.rindex(split.section)
    mark = _ANSWER_MARK.search(response[:start])
    cut = mark.start() if mark else start
    return response[:cut], response[cut:]
