"""What ``univg check`` does: a few dozen samples, and what their answers say about the set-up.

The model is loaded once. Each run evaluates the same samples: as declared, then (if wanted) under
each control and with other forms of the request. Runs are separate evaluations, since several
backends batch requests of different tasks with one task's images and settings.
"""

from __future__ import annotations

import argparse
import os
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.analysis.diagnosis import (
    SEVERITIES,
    CheckFinding,
    ControlResult,
    Diagnosis,
    SampleValue,
    VariantResult,
    compare_control,
    compare_variants,
    control_findings,
    diagnose,
    variant_findings,
)
from univg_eval.analysis.failures import Limits
from univg_eval.dialects import PixelLimits, pixel_limits
from univg_eval.errors import UserError
from univg_eval.files import require_writable, write_text_atomically
from univg_eval.images.controls import CONTROLS, NO_CONTROL, under_control
from univg_eval.lmms.command import check as check_arguments
from univg_eval.lmms.generation import Generation
from univg_eval.lmms.record import response_text, write_records
from univg_eval.lmms.run import LoadedModel, evaluate, task_manager
from univg_eval.lmms.settings import (
    BASELINE_MODEL,
    REPLAY_MODEL,
    ModelUnderTest,
    RunSettings,
    change_checkpoint,
    environment,
    given_options,
)
from univg_eval.lmms.task import GroundingTask
from univg_eval.lmms.task_files import task_folder
from univg_eval.lmms.watch import quiet
from univg_eval.models import model_folder
from univg_eval.prompts import PROMPT_STYLES, has_official_prompt
from univg_eval.redaction import without_secrets
from univg_eval.runs.record import RunRecord, load_run, response_of
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, SampleScore, aggregate, headline

__all__ = ["PAGE_NAME", "Answered", "CheckResult", "Plan", "declared_words", "run_check"]

DECLARED = "declared"
PAGE_NAME = "check.html"
LOG_NAME = "lmms-eval.log"
"""What lmms-eval printed and logged in all runs, beside the records."""
PLAIN_DIALECTS = ("norm1000", "norm1", "pixels")
"""Dialects whose request names a scale, so that any model can be prompted for it."""
ONE_OBJECT_TASKS = ("univg_photos_easy",)
"""Their images show one object, so that cutting the instruction takes nothing away."""
_FOUND_BY_THE_TASK = ("fingerprint", "revision", "left_out")
_LOST_IMAGE = re.compile(
    r"[^\n]*(?:Failed to process (?:PIL )?(?:image|video)|Skipping empty video|"
    r"out of range for available visuals)[^\n]*"
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check.

    Attributes:
        model, model_args: as for lmms-eval.
        dialect, prompt: as declared by the user; None: by the usual rules.
        controls, sweep: whether to run under controls, and with other forms of the request.
        tasks: names separated by commas.
        out: folder of the page and of the run records.
        limit: samples a task.
        batch_size, gen_kwargs: as for lmms-eval.
    """

    model: str
    model_args: str
    dialect: str | None
    prompt: str | None
    controls: bool
    sweep: bool
    tasks: str
    out: Path
    limit: int | None
    batch_size: int
    gen_kwargs: str | None


@dataclass(frozen=True, slots=True)
class Answered:
    """One sample and its answer in the declared run.

    Attributes:
        sample: what was asked for.
        response: the whole response with its sizes and prompt.
        score: by the protocol of the run.
        output_tokens: generated tokens, None where not known.
    """

    sample: GroundingSample
    response: Response
    score: SampleScore
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Everything that a report shows.

    Attributes:
        plan: what was to be checked.
        settings: of the declared run, named as the user gave them.
        answered: every sample of the declared run, in the order of the tasks.
        tasks: per task the metrics of `univg_eval.scoring.aggregate`.
        macro: their unweighted means.
        diagnosis: of the declared run alone.
        controls, variants: results of the other runs.
        findings: of all runs, most severe first.
        records: folders of the run records by run.
        seconds: by step: ``load``, then the runs.
    """

    plan: Plan
    settings: RunSettings
    answered: Sequence[Answered]
    tasks: Mapping[str, Mapping[str, Any]]
    macro: Mapping[str, Any]
    diagnosis: Diagnosis
    controls: Sequence[ControlResult]
    variants: Sequence[VariantResult]
    findings: Sequence[CheckFinding]
    records: Mapping[str, Sequence[Path]]
    seconds: Mapping[str, float]


@dataclass(slots=True)
class _Run:
    """One evaluation of the loaded model, and what came of it.

    Attributes:
        name: ``declared``, a control's name, or dialect and prompt style of a variant.
        control: of `CONTROLS`.
        environment: settings that differ from the process's own.
        records, results, seconds: once it is over.
    """

    name: str
    control: str = NO_CONTROL
    environment: Mapping[str, str] = field(default_factory=dict)
    records: Sequence[RunRecord] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def values(self) -> list[SampleValue]:
        """What counts in a comparison: no samples with a faulty truth."""
        found = []
        for record in self.records:
            for line, score in zip(record.responses, record.scores, strict=True):
                value = headline(score)
                if value is not None:
                    text = line["response"] or ""
                    found.append(SampleValue(score.id, score.task, score.cluster, value, text))
        return found


def run_check(plan: Plan, progress: Progress) -> CheckResult:
    """Evaluate the samples and look at the answers.

    Args:
        plan: what to check.
        progress: called with a run's name, samples done and samples to do.

    Raises:
        UserError: arguments that make no check.
        SystemExit: with status 2 for what a task finds wrong; see `univg_eval.lmms.stop`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("univg check runs in one process; start it without a launcher")
    if plan.model == REPLAY_MODEL and (plan.controls or plan.sweep):
        raise UserError(
            "replayed responses are the same whatever the request, so --controls and --sweep say "
            "nothing about them; leave these options out"
        )
    plan = replace(plan, model_args=change_checkpoint(plan.model_args, model_folder))
    with given_options({"dialect": plan.dialect, "prompt": plan.prompt}):
        with quiet():
            tasks = _tasks(plan)
        require_writable(plan.out, "--out")
        settings = tasks[0].settings
        runs = [_Run(DECLARED)]
        if plan.controls:
            runs += [_Run(name, control=name) for name in CONTROLS if name != NO_CONTROL]
        if plan.sweep:
            runs += _variants(settings)
        started = time.perf_counter()
        loaded = _load(plan)
        seconds = {"load": time.perf_counter() - started}
        # A check that fails from here on leaves no page of an earlier one as if it were its own.
        for name in (PAGE_NAME, LOG_NAME):
            (plan.out / name).unlink(missing_ok=True)
        messages: list[str] = []
        with loaded:
            tokenizer = getattr(loaded.lm, "tokenizer", None)
            for run in runs:
                _evaluate(plan, run, tasks, loaded, progress, messages)
    _write_log(plan, messages)
    done = [run for run in runs if run.records]
    seconds |= {run.name: run.seconds for run in done}
    rows = {sample.id: sample for task in tasks for sample in task.rows.samples}
    return _result(plan, settings, rows, done, seconds, tokenizer, "\n".join(messages))


# --- the runs ------------------------------------------------------------------------------------


def _evaluate(
    plan: Plan,
    run: _Run,
    tasks: Sequence[GroundingTask],
    loaded: LoadedModel,
    progress: Progress,
    messages: list[str],
) -> None:
    """Fill in a run, unless no task has samples for it; what lmms-eval said is added to messages.

    Raises:
        UserError: the backend failed; the log has its traceback.
    """
    wanted = _wanted(tasks, run, plan.limit)
    if not wanted:
        return
    total = sum(n for _, n in wanted)
    progress(run.name, 0, total)
    with environment(run.environment), quiet() as kept:
        try:
            evaluation = evaluate(
                plan.model,
                plan.model_args,
                [config for config, _ in wanted],
                loaded=loaded,
                batch_size=plan.batch_size,
                limit=plan.limit,
                gen_kwargs=plan.gen_kwargs,
                manager=task_manager(),
                on_progress=partial(_report, progress, run.name),
            )
        except UserError:
            raise
        except (RuntimeError, OSError, ValueError, TypeError, LookupError, AssertionError) as error:
            _write_log(plan, [*messages, traceback.format_exc()])
            raise _failed(plan, run, error) from error
        paths = write_records(
            evaluation.results,
            plan.out / "records" / re.sub(r"[^a-z0-9_]+", "-", run.name.lower()).strip("-"),
            model_args=plan.model_args,
            wall_time_s=evaluation.wall_time_s,
            measured=evaluation.measured,
            replace=True,
        )
    progress(run.name, total, total)
    messages.append(kept.getvalue())
    run.records = [load_run(path) for path in paths]
    run.results, run.seconds = evaluation.results, evaluation.wall_time_s


def _report(progress: Progress, name: str, generation: Generation) -> None:
    progress(name, generation.done, generation.total)


def _failed(plan: Plan, run: _Run, error: Exception) -> UserError:
    reason = without_secrets(" ".join(str(error).split()))[:500]
    remedy = (
        "give the model fewer pixels (max_pixels in --model_args) or a smaller --batch_size"
        if "out of memory" in reason.lower()
        else "the log has the traceback"
    )
    return UserError(
        f"the backend {plan.model!r} failed while it answered (run {run.name!r}): "
        f"{type(error).__name__}: {reason}; {remedy}: {plan.out / LOG_NAME}"
    )


def _tasks(plan: Plan) -> list[GroundingTask]:
    """The tasks with their settings, without loading the model.

    Raises:
        UserError, SystemExit: see `univg_eval.lmms.command.check`.
    """
    arguments = argparse.Namespace(
        tasks=plan.tasks,
        model=plan.model,
        model_args=plan.model_args,
        force_simple=False,
        process_with_media=False,
    )
    return check_arguments(arguments, [str(task_folder())])


def _load(plan: Plan) -> LoadedModel:
    """The model in memory.

    Raises:
        UserError: the backend could not load it; the message has the backend's own reason.
    """
    try:
        with quiet():
            return LoadedModel(plan.model, plan.model_args, batch_size=plan.batch_size)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"the backend {plan.model!r} cannot load its model with --model_args "
            f"{plan.model_args!r}: {type(error).__name__}: {error}"
        ) from error


def _write_log(plan: Plan, messages: Sequence[str]) -> None:
    # Responses that are logged may hold halves of surrogate pairs, which are no UTF-8.
    text = "\n".join(messages).encode("utf-8", "backslashreplace").decode("utf-8")
    write_text_atomically(plan.out / LOG_NAME, [text])


def _wanted(
    tasks: Sequence[GroundingTask], run: _Run, limit: int | None
) -> list[tuple[dict[str, Any], int]]:
    """Task configurations of a run, each with its number of samples.

    Tasks without samples under the control, or that it leaves as easy as they are, are left out,
    as are those that the run's prompt style is not for.
    """
    wanted = []
    control, style = run.control, run.environment.get("UNIVG_PROMPT")
    for task in tasks:
        rows = task.rows.samples
        if style == "official" and not all(map(has_official_prompt, rows)):
            continue
        shown = under_control(control, rows).samples[:limit]
        known = {sample.id for sample in rows[:limit]}
        if control == "cut" and task.config.task in ONE_OBJECT_TASKS:
            continue
        if not known & {sample.id for sample in shown}:
            continue
        config: dict[str, Any] = {"task": task.config.task}
        if control != NO_CONTROL:
            own = {k: v for k, v in task.config.metadata.items() if k not in _FOUND_BY_THE_TASK}
            config["metadata"] = {**own, "control": control}
        wanted.append((config, len(shown)))
    return wanted


def _variants(settings: RunSettings) -> list[_Run]:
    """Other forms of the request: the other prompt styles, and the scales that a prompt can name.

    Dialects that only a family was trained for are no offer to another one.
    """
    dialect, prompt = settings.dialect.value, settings.prompt.value
    styles = [
        s for s in PROMPT_STYLES if s != "official" or settings.make_dialect().official_prompt
    ]
    pairs = [(dialect, style) for style in styles if style != prompt]
    pairs += [(name, "direct") for name in PLAIN_DIALECTS if (name, "direct") != (dialect, prompt)]
    return [
        _Run(f"{name}, {style}", environment={"UNIVG_DIALECT": name, "UNIVG_PROMPT": style})
        for name, style in dict.fromkeys(pairs)
    ]


# --- what was answered ---------------------------------------------------------------------------


def _result(
    plan: Plan,
    settings: RunSettings,
    rows: Mapping[str, GroundingSample],
    runs: Sequence[_Run],
    seconds: Mapping[str, float],
    tokenizer: Any,
    messages: str,
) -> CheckResult:
    declared, *others = runs
    lines = [row for record in declared.records for row in record.responses]
    samples = [rows[line["id"]] for line in lines]
    responses = [response_of(line)[0] for line in lines]
    counts = _output_tokens(declared.results, tokenizer)
    tokens = [counts.get(sample.id) for sample in samples]
    limit = declared.records[0].manifest.generation.get("max_new_tokens")
    diagnosis = diagnose(
        samples,
        responses,
        settings.make_dialect(),
        protocol=settings.protocol.value,
        limits=_limits(plan),
        output_tokens=tokens,
        max_new_tokens=int(limit) if limit is not None else None,
    )
    base = declared.values()
    controls = [
        compare_control(run.control, base, run.values())
        for run in others
        if run.control != NO_CONTROL
    ]
    variants = compare_variants(
        base, {run.name: run.values() for run in others if run.control == NO_CONTROL}
    )
    findings = [
        *diagnosis.findings,
        *_lost_images(messages),
        *_failed_requests(declared.records),
        *control_findings(controls),
        *variant_findings(variants, declared_words(settings)),
    ]
    totals = aggregate(diagnosis.scores)
    return CheckResult(
        plan=plan,
        settings=settings,
        answered=list(map(Answered, samples, responses, diagnosis.scores, tokens)),
        tasks=totals["tasks"],
        macro=totals["macro"],
        diagnosis=diagnosis,
        controls=controls,
        variants=variants,
        findings=sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)),
        records={run.name: [record.path for record in run.records] for run in runs},
        seconds=seconds,
    )


def declared_words(settings: RunSettings) -> str:
    """Name of the declared form of the request, like those of the variants."""
    return f"{settings.dialect.value}, {settings.prompt.value}"


def _output_tokens(results: Mapping[str, Any], tokenizer: Any) -> dict[str, int]:
    """Generated tokens by sample id: as the backend counted them, else counted in the text.

    A text lacks the special tokens that were generated, so the second can be a little low.
    """
    from transformers import PreTrainedTokenizerBase

    found: dict[str, int] = {}
    for logged in results["samples"].values():
        for row in logged:
            counts = (row.get("token_counts") or [None])[0] or {}
            if counts.get("output_tokens") is not None:
                found[row["id"]] = int(counts["output_tokens"])
            elif isinstance(tokenizer, PreTrainedTokenizerBase):
                ids = tokenizer(response_text(row) or "", add_special_tokens=False)["input_ids"]
                found[row["id"]] = len(ids)
    return found


def _limits(plan: Plan) -> list[Limits]:
    """Pixel limits that this backend or this checkpoint may have used instead."""
    if plan.model in (BASELINE_MODEL, REPLAY_MODEL):
        return []
    model = ModelUnderTest.from_arguments(plan.model, plan.model_args)
    named = pixel_limits(Path(model.checkpoint).expanduser()) if model.checkpoint else PixelLimits()
    own = [model.backend_default(name) for name in ("min_pixels", "max_pixels")]
    pairs = [
        (named.min_pixels, named.max_pixels, "the checkpoint's files"),
        (*own, f"default of the backend {plan.model}"),
    ]
    return [
        Limits(low, high, source)
        for low, high, source in pairs
        if type(low) is int and type(high) is int
    ]


def _failed_requests(records: Sequence[RunRecord]) -> list[CheckFinding]:
    """Requests that a server did not answer."""
    n_failed = sum(record.failed_requests for record in records)
    if not n_failed:
        return []
    n = sum(len(record.responses) for record in records)
    first = next(message for one in records for message in one.errors.values())
    finding = CheckFinding(
        kind="failed_requests",
        severity="problem",
        title=f"{n_failed} of {n} requests failed, so the model did not answer them.",
        detail=f"The first message: {first[:300]}",
        remedy="They count as unanswered, which says nothing about the model. Look at the server's "
        "address, key and limits, and lower num_concurrent in --model_args.",
        numbers={"failed": n_failed, "requests": n},
    )
    return [finding]


def _lost_images(messages: str) -> list[CheckFinding]:
    """What lmms-eval logged about images that it left out."""
    lines = _LOST_IMAGE.findall(messages)
    if not lines:
        return []
    finding = CheckFinding(
        kind="lost_images",
        severity="problem",
        title=f"lmms-eval left out {len(lines)} images that it could not pass on.",
        detail=f"Its first message: {lines[0].strip()[:300]}",
        remedy="The model answered without these images. Fix what the message names; `univg audit` "
        "finds unreadable files.",
        numbers={"messages": len(lines)},
    )
    return [finding]
