"""What ``univg eval`` does: check, run lmms-eval in this process, record, and exit honestly.

lmms-eval loads the model before the tasks, and exits 0 after a failed evaluation. So the tasks
are constructed once beforehand, and only a new results file counts as success.

A control belongs to a task, so for each one a copy of the task folder that names it is evaluated.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import patch

import lmms_eval.__main__
from lmms_eval.__main__ import cli_evaluate, parse_eval_args
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager, get_task_dict

from univg_eval.benchmarks.readers import custom
from univg_eval.errors import UserError, meant, nearest, unknown_option
from univg_eval.files import read_yaml, require_writable
from univg_eval.images.controls import CONTROLS, NO_CONTROL, require_control, under_control
from univg_eval.lmms.claude_client import require_accepted_requests
from univg_eval.lmms.device import require_device
from univg_eval.lmms.early_stop import FIRST, stop_if_unreadable
from univg_eval.lmms.engine import engine_arguments, require_engine
from univg_eval.lmms.generation import Generation, Look, measured_generation
from univg_eval.lmms.planned_runs import PlannedRun, complete_records, plan_runs
from univg_eval.lmms.record import read_output, write_records
from univg_eval.lmms.response_cache import forget_failed_requests
from univg_eval.lmms.response_journal import (
    ResponseJournal,
    opened_journal,
    part_size,
    weights_of,
)
from univg_eval.lmms.settings import (
    BASELINE_MODEL,
    REFERENCE_MODEL,
    REPLAY_MODEL,
    ModelUnderTest,
    change_checkpoint,
    given_options,
    require_checkpoint,
    variant_of,
)
from univg_eval.lmms.stop import user_errors_stop
from univg_eval.lmms.task import GroundingTask
from univg_eval.lmms.task_files import tasks_of_run
from univg_eval.models import model_folder
from univg_eval.models.pretrained import whole_weights
from univg_eval.redaction import first_secret, secret_values, settings_without_secrets
from univg_eval.runs.record import RunRecord, environment, load_run
from univg_eval.terminal import show_message

__all__ = ["Plan", "argument_names", "check", "control_names", "plan_eval", "run_eval"]

DEFAULT_OUTPUT = "out/eval"
EXIT_FAILED = 1
_JOURNAL = "journal"
_NO_MODEL = "hf"
"""lmms-eval's default of ``--model``, which is none of its backends."""


def control_names(text: str) -> list[str]:
    """The controls that ``--controls`` names: ``all``, or some separated by commas.

    Raises:
        UserError: one is unknown, or is none.
    """
    every = [name for name in CONTROLS if name != NO_CONTROL]
    if text == "all":
        return every
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if require_control(name) == NO_CONTROL:
            raise UserError(f"--controls {text!r}: expected all, or some of: {', '.join(every)}")
    return names


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, checked before a model is loaded.

    Attributes:
        args: lmms-eval's arguments.
        planned: the same, with those of a ``--config`` file.
        parent: of the records.
        runs: in order.
        parts: the plain evaluation and each control: its name (None: plain), its tasks, and what
            they evaluate.
    """

    args: argparse.Namespace
    planned: argparse.Namespace
    parent: Path
    runs: Sequence[PlannedRun]
    parts: Sequence[tuple[str | None, str, Sequence[str]]]

    def output(self, run: PlannedRun) -> Path:
        """What lmms-eval writes of a run; below ``logs`` where the run is found again."""
        output = Path(self.args.output_path)
        return output / "logs" / run.folder if run.folder else output

    def complete(self, run: PlannedRun) -> list[RunRecord]:
        """The records that an earlier try left of a run, if it left all."""
        if run.folder is None:
            return []
        found = [complete_records(self.parent / run.folder, names) for *_, names in self.parts]
        return [record for records in found for record in records] if all(found) else []


def run_eval(
    arguments: Sequence[str],
    *,
    settings: Mapping[str, str | None],
    records: Path | None,
    engine: str | None = None,
    controls: Sequence[str] = (),
    repeats: int = 1,
    name: str | None = None,
    group: str | None = None,
    resume: bool = False,
    written: list[RunRecord] | None = None,
    with_tables: bool = True,
    on_progress: Callable[[str, Generation], None] | None = None,
    stop_early: bool = False,
) -> int:
    """Run lmms-eval with `arguments`, once for each repeat, and once more for each control.

    Args:
        arguments: lmms-eval's own.
        settings: ``dialect``, ``prompt`` and ``protocol`` as given, None where they are not.
        records: parent of the run's records; ``<output_path>/records`` if None.
        engine: see `univg_eval.lmms.engine`.
        controls: of `images.controls`. Their output is below ``<output_path>/<control>``.
        repeats, name, group, resume: see `univg_eval.lmms.planned_runs.plan_runs`. Records of an
            earlier try of the same are taken instead of an evaluation.
        written: takes the records of the evaluation, those under controls after it.
        with_tables: whether lmms-eval prints its own tables of results.
        on_progress: called while the model answers, with what it is: ``answers``, or
            ``answers (<control>)``, and which of several runs.
        stop_early: see `univg_eval.lmms.early_stop`; controls are not looked at.

    Returns:
        0, or 1 if lmms-eval wrote no results, or if no request of an evaluation was answered.

    Raises:
        UserError: arguments that make no evaluation of this project's tasks.
        SystemExit: with status 2 for what a task finds wrong, see `univg_eval.lmms.stop`; with
            status 3 after an early stop.
    """
    with plan_eval(
        arguments,
        settings=settings,
        records=records,
        engine=engine,
        controls=controls,
        repeats=repeats,
        name=name,
        group=group,
        resume=resume,
    ) as plan:
        written = [] if written is None else written
        evaluate = partial(_evaluate, with_tables=with_tables, on_progress=on_progress)
        for number, run in enumerate(plan.runs, start=1):
            output = plan.output(run)
            stop = partial(stop_if_unreadable, folder=output) if stop_early else None
            for control, tasks, names in plan.parts:
                found = complete_records(plan.parent / run.folder, names) if run.folder else []
                if found:
                    _report_found(found)
                    written += found
                    continue
                what = "answers" if control is None else f"answers ({control})"
                if len(plan.runs) > 1:
                    what += f", run {number} of {len(plan.runs)}"
                look = stop if control is None else None
                with _arguments_of_part(plan, run, control, tasks) as args:
                    if not evaluate(args, plan, run, written, look=look, what=what):
                        return EXIT_FAILED
            if _is_first_process() and (output / _JOURNAL).is_dir():
                shutil.rmtree(output / _JOURNAL)
    _leave_together()
    return 0


def _leave_together() -> None:
    """Wait for the other processes: one that ends first takes the connections of the others."""
    from torch import distributed

    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1  # then a group is an engine's own
    if not alone and distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


@contextlib.contextmanager
def plan_eval(
    arguments: Sequence[str],
    *,
    settings: Mapping[str, str | None],
    records: Path | None,
    engine: str | None = None,
    controls: Sequence[str] = (),
    repeats: int = 1,
    name: str | None = None,
    group: str | None = None,
    resume: bool = False,
) -> Iterator[Plan]:
    """Check what is requested, and say what is to be done; the settings hold in the context.

    Args:
        arguments, settings, records, engine, controls, repeats, name, group, resume: see
            `run_eval`.

    Raises:
        UserError, SystemExit: see `run_eval`.
    """
    with (
        given_options(settings),
        _arguments_of_process(["lmms-eval", *arguments]),
        tasks_of_run() as own,
    ):
        options = ("engine", "controls", "records", "repeats", "name", "group", "resume")
        args = _parsed([f"--{option}" for option in (*settings, *options)])
        planned = _with_config_file(args)
        if engine is not None:
            for key, value in engine_arguments(engine, planned).items():
                setattr(planned, key, value)
                setattr(args, key, value)
            require_engine(engine)
        # lmms-eval hands them on to the backend, which knows folders and names of the Hub.
        planned.model_args = args.model_args = change_checkpoint(planned.model_args, model_folder)
        if planned.predict_only:
            raise UserError(
                "--predict_only writes no scores, so there is nothing to record; use lmms-eval "
                "itself for it"
            )
        output = planned.output_path or DEFAULT_OUTPUT
        if "," in output:
            raise UserError(
                f"--output_path {output!r}: lmms-eval cannot take a path with a comma; choose "
                "another"
            )
        parent = records or Path(output) / "records"
        require_writable(Path(output), "--output_path")
        require_writable(parent, "--records")
        folders = [own, *filter(None, [planned.include_path])]
        args.include_path = list(dict.fromkeys(folders))
        args.log_samples = True
        tasks = check(planned, args.include_path)
        # lmms-eval's own repeats are answers of one evaluation, of which it logs the first.
        args.repeats, repeats = 1, max(repeats, planned.repeats or 1)
        runs = plan_runs(planned, tasks, repeats=repeats, name=name, group=group, resume=resume)
        args.output_path = output
        parts: list[tuple[str | None, str, Sequence[str]]] = [(None, args.tasks, _shown(tasks))]
        for control in controls:
            names = _names_under(control, tasks, own)
            chosen = [task for task in tasks if str(task.config.task) in names]
            parts.append((control, ",".join(names), _shown(chosen, control)))
        yield Plan(args, planned, parent, runs, parts)


def _shown(tasks: Sequence[GroundingTask], control: str | None = None) -> list[str]:
    """What these tasks evaluate, as a record calls it; under a control if one is named."""
    names = []
    for task in tasks:
        own = task.settings.variant if control is None else variant_of(control, "images")
        names.append(f"{task.config.dataset_path}{'+' if own else ''}{own}")
    return list(dict.fromkeys(names))


@contextlib.contextmanager
def _arguments_of_part(
    plan: Plan, run: PlannedRun, control: str | None, tasks: str
) -> Iterator[argparse.Namespace]:
    """lmms-eval's arguments for one evaluation."""
    args = argparse.Namespace(**vars(plan.args))
    args.seed, args.gen_kwargs = run.seed, run.gen_kwargs
    output = plan.output(run)
    args.output_path = str(output)
    if plan.planned.model == REFERENCE_MODEL and "journal=" not in str(args.model_args):
        args.model_args = f"{args.model_args},journal={output / _JOURNAL}"
    if control is None:
        yield args
        return
    args.tasks = tasks
    args.output_path = str(output / control)
    with tasks_of_run(control) as folder:
        args.include_path = [folder]
        yield args


def _report_found(records: Sequence[RunRecord]) -> None:
    if _is_first_process():
        for record in records:
            show_message(
                f"univg eval: {record.path} is there, of the same request; another --output_path "
                "evaluates again"
            )


def _is_first_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _evaluate(
    args: argparse.Namespace,
    plan: Plan,
    run: PlannedRun,
    written: list[RunRecord],
    *,
    with_tables: bool,
    on_progress: Callable[[str, Generation], None] | None,
    look: Look | None = None,
    what: str = "answers",
) -> bool:
    """One evaluation and its records; False if it has no results, or all its requests failed."""
    before = _results_files(args.output_path)
    backend = get_model(plan.planned.model, force_simple=plan.planned.force_simple)
    listener = None if on_progress is None else partial(on_progress, what)
    first = None if look is None else (FIRST, look)
    with (
        contextlib.nullcontext() if with_tables else _without_tables(),
        whole_weights(user_errors_stop),
        _without_other_tasks(args),
        _journal(args, plan, run) as journal,
        measured_generation(
            backend, listener, first, secret_values(plan.planned.model_args), journal
        ) as measured,
    ):
        cli_evaluate(argparse.Namespace(**vars(args)))
    if not _is_first_process():
        return True
    new = sorted(_results_files(args.output_path) - before)
    if not new:
        show_message("univg eval: lmms-eval failed and wrote no results; see its message above")
    made = []
    for file in new:
        folder = run.folder or file.name.removesuffix("_results.json")
        for path in write_records(
            read_output(file),
            plan.parent / folder,
            model_args=plan.planned.model_args,
            more=run.manifest,
            measured=measured,
            replace=run.folder is not None,
        ):
            made.append(load_run(path))
    written += made
    n = sum(len(record.responses) for record in made)
    n_failed = sum(record.failed_requests for record in made)
    if n_failed:
        _report_failed_requests(made, n_failed, n, plan.planned.use_cache)
    return n_failed < n


@contextlib.contextmanager
def _journal(
    args: argparse.Namespace, plan: Plan, run: PlannedRun
) -> Iterator[ResponseJournal | None]:
    """The journal of a backend that keeps none; None for several processes, whose calls must match.

    It lies where that of `univg` lies, and goes as that does when the records are written.
    """
    model = plan.planned.model
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not alone or model in (REFERENCE_MODEL, BASELINE_MODEL, REPLAY_MODEL):
        yield None
        return
    known = ModelUnderTest.from_arguments(model, args.model_args)
    versions = environment()["versions"]
    # Another key gives no other responses.
    shown = settings_without_secrets(known.args, secret_values(known.args))
    identity = [
        *(model, shown, plan.planned.force_simple, args.seed, args.batch_size),
        [versions[name] for name in ("lmms_eval", "torch", "transformers")],
    ]
    size = part_size(args.batch_size, known.args.get("num_concurrent"))
    weights = partial(weights_of, known.checkpoint, known.args.get("revision"))
    with opened_journal(plan.output(run) / _JOURNAL, identity, size, weights) as journal:
        yield journal


@contextlib.contextmanager
def _without_other_tasks(args: argparse.Namespace) -> Iterator[None]:
    """Let lmms-eval read no task files of its own, some 3,500, where none of them is asked for."""
    asked = [name for name in args.tasks.split(",") if name]

    def few(*given: Any, **options: Any) -> TaskManager:
        own = TaskManager(*given, include_defaults=False, **options)
        has_all = all(own.match_tasks([name]) for name in asked)
        return own if has_all else TaskManager(*given, **options)

    with patch.object(lmms_eval.__main__, "TaskManager", few):
        yield


class _NoTables(io.TextIOBase):
    """A stream without the lines of lmms-eval's tables, which begin with a bar."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._line = ""

    def write(self, text: str) -> int:
        """Pass on whole lines."""
        *lines, self._line = (self._line + text).split("\n")
        self._stream.write("".join(f"{line}\n" for line in lines if not line.startswith("|")))
        return len(text)

    def end(self) -> None:
        """Pass on the line that has no end."""
        self._stream.write(self._line)
        self._stream.flush()


@contextlib.contextmanager
def _without_tables() -> Iterator[None]:
    stream = _NoTables(sys.stdout)
    try:
        with contextlib.redirect_stdout(stream):
            yield
    finally:
        stream.end()


def _report_failed_requests(
    records: Sequence[RunRecord], n_failed: int, n: int, cache: str | None
) -> None:
    """Say how many requests failed, and take them out of the cache for the next call."""
    first = next(message for one in records for message in one.errors.values())
    if cache:
        forget_failed_requests(cache)
        remedy = f"Run the same command again: {cache} has the other responses"
    else:
        remedy = "With --use_cache DIR a second call sends the failed requests alone"
    show_message(
        f"univg eval: {n_failed} of {n} requests failed and count as unanswered, which lowers the "
        f"result; see the field error of responses.jsonl. The first: {first}\n{remedy}"
    )


def _names_under(control: str, tasks: Sequence[GroundingTask], folder: str) -> list[str]:
    """Names of the tasks that a control can be applied to, among those of a task folder.

    Raises:
        UserError: it can be applied to none.
    """
    own = set(TaskManager("WARNING", include_path=folder, include_defaults=False).all_tasks)
    names: list[str] = []
    others: list[str] = []
    for task in tasks:
        name = str(task.config.task)
        fits = (
            name in own
            and task.settings.variant == ""
            and under_control(control, task.rows.samples).samples
        )
        (names if fits else others).append(name)
    if not names:
        raise UserError(
            f"--controls: {control!r} can be applied to none of the tasks {', '.join(others)}"
        )
    if others:
        show_message(f"univg eval: the control {control} cannot be applied to {', '.join(others)}")
    return names


def check(args: argparse.Namespace, include_path: Sequence[str]) -> list[GroundingTask]:
    """Construct the tasks and resolve their settings, without loading the model.

    Args:
        args: lmms-eval's parsed arguments.
        include_path: folders of task files.

    Returns:
        The tasks of this project among those requested.

    Raises:
        UserError: none is requested, a name that begins with univg is no task, or the backend
            is unknown or can have no request answered.
        SystemExit: a benchmark is not prepared, or a setting is wrong or cannot be known.
    """
    manager = TaskManager("WARNING", include_path=list(include_path), include_defaults=False)
    groups = ", ".join(manager.all_groups)
    if not args.tasks:
        raise UserError(f"--tasks is missing; give task names, or one of the groups: {groups}")
    if Path(args.tasks).is_dir():
        raise UserError(
            f"--tasks {args.tasks}: there is a folder of this name here, and lmms-eval would "
            "look for tasks in it; run the command in another folder"
        )
    wanted = [name for name in args.tasks.split(",") if name]
    names = manager.match_tasks(wanted)
    misspelt = [n for n in wanted if n.startswith("univg") and not manager.match_tasks([n])]
    if misspelt:
        _, colon, name = misspelt[0].partition(f"{custom.TASK}:")
        if colon:
            named = ", ".join(task for task in manager.all_tasks if ":" in task)
            raise UserError(
                f"--tasks: {misspelt[0]} is not prepared (prepared are: {named or 'none'}). Next: "
                f"univg prepare custom --name {name} --source FILE"
            )
        raise UserError(
            f"--tasks: there is no task {', '.join(misspelt)}; "
            f"{meant(misspelt[0], manager.all_tasks, 'univg tasks --json')}"
        )
    if not names:
        near = nearest(args.tasks, manager.all_tasks)
        known = meant(args.tasks, manager.all_tasks) if near else f"its groups are: {groups}."
        raise UserError(
            f"--tasks {args.tasks!r} names no task of this project; {known} For other tasks use "
            "lmms-eval itself"
        )
    if args.model == _NO_MODEL:
        raise UserError(
            "--model is missing; give lmms-eval's backend and its checkpoint, such as --model "
            "qwen2_5_vl --model_args pretrained=DIR (`lmms-eval models` lists the backends)"
        )
    model = ModelUnderTest.from_arguments(args.model, args.model_args, args.force_simple)
    _require_no_keys(model)
    tasks = list(_leaves(get_task_dict(names, manager, "simple" if model.is_simple else "chat")))
    for task in tasks:
        task.args = args
    require_checkpoint(model)
    require_device(model, getattr(args, "device", None))
    require_accepted_requests(model.backend, model.service_model, os.environ)
    return tasks


def _require_no_keys(model: ModelUnderTest) -> None:
    """lmms-eval prints its arguments, and writes them into results and caches."""
    name = first_secret(model.args)
    if name is not None:
        raise UserError(
            f"--model_args: {name} holds a password or a key, which would be written into the "
            "results; leave it out, and give the key in the environment (such as OPENAI_API_KEY)"
        )


def _leaves(tasks: Mapping[Any, Any]) -> Iterator[GroundingTask]:
    for value in tasks.values():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif isinstance(value, GroundingTask):
            yield value


def _parsed(own_options: Sequence[str]) -> argparse.Namespace:
    """The process's arguments as lmms-eval reads them, without the pages of its usage.

    Raises:
        UserError: lmms-eval does not take them.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, args = parse_eval_args()
    except SystemExit as stopped:
        if stopped.code in (None, 0):
            raise
        usage, _, reason = said.getvalue().rpartition("error: ")
        reason = reason.strip()
        title, _, unknown = reason.partition("unrecognized arguments: ")
        if unknown and not title:
            reason = unknown_option(unknown.split(), " ".join([usage, *own_options]))
        raise UserError(f"{reason} (`lmms-eval eval --help` describes its arguments)") from None
    parsed: argparse.Namespace = args
    return parsed


def argument_names() -> list[str]:
    """The arguments that lmms-eval takes, as a ``--config`` file names them."""
    with _arguments_of_process(["lmms-eval"]):
        _, defaults = parse_eval_args()
    return sorted(vars(defaults).keys() - {"config"})


def _with_config_file(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with those of a ``--config`` file filled in, as lmms-eval will do."""
    planned = argparse.Namespace(**vars(args))
    if not args.config:
        return planned
    try:
        values = read_yaml(Path(args.config))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read --config {args.config}: {error}") from error
    if not isinstance(values, dict):
        raise UserError(
            f"--config {args.config}: expected one mapping of arguments, one evaluation"
        )
    with _arguments_of_process(["lmms-eval"]):
        _, defaults = parse_eval_args()
    for name, value in values.items():
        if name != "env" and getattr(args, name, None) == getattr(defaults, name, None):
            setattr(planned, name, value)
    return planned


def _results_files(output_path: str) -> set[Path]:
    return set(Path(output_path).rglob("*_results.json"))


@contextlib.contextmanager
def _arguments_of_process(argv: list[str]) -> Iterator[None]:
    """lmms-eval reads its arguments from ``sys.argv`` alone."""
    kept = sys.argv
    sys.argv = argv
    try:
        yield
    finally:
        sys.argv = kept
