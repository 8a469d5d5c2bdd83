"""``univg eval --config FILE`` with several runs: each in a process of its own, one after another.

The file has the form of lmms-eval's own ``--config``: a list of mappings of its arguments. Beside
them an entry may have the options of ``univg eval`` in `OWN`. All entries are checked before the
first model is loaded, and records of an earlier try of the same request are kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from univg_eval.cli._runs import read_runs
from univg_eval.errors import UserError, meant
from univg_eval.files import read_yaml
from univg_eval.lmms.command import argument_names, control_names, plan_eval
from univg_eval.lmms.settings import environment
from univg_eval.terminal import show_message

__all__ = ["OWN", "read_entries", "run_several"]

OWN: Mapping[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "group": (str, "a text"),
    "dialect": (str, "a name"),
    "prompt": (str, "a name"),
    "protocol": (str, "a name"),
    "engine": (str, "a name"),
    "controls": (str, "names with commas between them, or all"),
    "repeats": (int, "a whole number from 1"),
    "env": (dict, "a mapping of variables"),
}
"""Key → what it holds; ``env`` is lmms-eval's."""
_TEXTS = ("model", "tasks", "gen_kwargs", "output_path")
_SETTINGS = ("dialect", "prompt", "protocol")


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of the file.

    Attributes:
        where: file and place, for messages.
        own: its options of ``univg eval``.
        arguments: lmms-eval's.
    """

    where: str
    own: Mapping[str, Any]
    arguments: Mapping[str, Any]

    @property
    def title(self) -> str:
        """What to call it."""
        keys = ("model", "model_args")
        model = " ".join(str(self.arguments[key]) for key in keys if key in self.arguments)
        group = self.own.get("group")
        if group is not None:
            return f"{group} ({model})"
        return str(self.own.get("name") or model or self.where)


def read_entries(file: str) -> list[Entry] | None:
    """The runs of a ``--config`` file; None of one evaluation in lmms-eval's own keys alone.

    Raises:
        UserError: the file cannot be read, or an entry has a key or value that is not expected;
            all such entries are named.
    """
    try:
        values = read_yaml(Path(file))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read --config {file}: {error}") from error
    if isinstance(values, dict) and not values.keys() & (OWN.keys() - {"env"}):
        return None
    entries = [values] if isinstance(values, dict) else values
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"--config {file}: expected a list of runs, or one, each a mapping of arguments"
        )
    found, wrong = [], []
    known = [*OWN, *argument_names()]
    for number, entry in enumerate(entries, start=1):
        where = f"{file}, run {number}"
        faults = list(_faults(entry, known))
        wrong += [f"{where}: {fault}" for fault in faults]
        if not faults:
            own = {key: value for key, value in entry.items() if key in OWN}
            arguments = {key: value for key, value in entry.items() if key not in OWN}
            found.append(Entry(where, own, arguments))
    names = Counter(str(entry.own["name"]) for entry in found if "name" in entry.own)
    wrong += [
        f"{file}: {n} runs have the name {name!r}; give runs of one thing one `group`, and others "
        "names of their own"
        for name, n in names.items()
        if n > 1
    ]
    if wrong:
        raise UserError("\n".join(wrong))
    return found


def _faults(entry: Any, known: Sequence[str]) -> list[str]:
    if not isinstance(entry, dict):
        return [f"{entry!r}; expected a mapping of arguments, such as model: and tasks:"]
    faults = [f"unknown key {key!r}; {meant(key, known)}" for key in entry if key not in known]
    for key, (kind, expected) in OWN.items():
        value = entry.get(key)
        if key in entry and (not isinstance(value, kind) or isinstance(value, bool) or not value):
            faults.append(f"{key} is {value!r}; expected {expected}")
    if isinstance(entry.get("repeats"), int) and entry["repeats"] < 0:
        faults.append(f"repeats is {entry['repeats']}; expected a whole number from 1")
    faults += [
        f"{key} is {entry[key]!r}; expected text"
        for key in _TEXTS
        if key in entry and not isinstance(entry[key], str)
    ]
    return faults


def run_several(entries: Sequence[Entry], args: argparse.Namespace) -> int:
    """Check all runs, evaluate those without records, and print the leaderboard of all.

    Args:
        entries: of `read_entries`.
        args: of ``univg eval``; what they give holds for every run, as with lmms-eval.

    Returns:
        0, or 1 if a run failed.

    Raises:
        UserError: a run cannot be made.
        SystemExit: with status 2 for what a task finds wrong.
    """
    with tempfile.TemporaryDirectory(prefix="univg-eval-") as folder:
        jobs = []
        for number, entry in enumerate(entries, start=1):
            file = Path(folder) / f"run-{number}.yaml"
            file.write_text(yaml.safe_dump(dict(entry.arguments)), encoding="utf-8")
            jobs.append(_job(entry, args, file))
        return _run(jobs, show=os.environ.get("RANK", "0") == "0")


@dataclass(frozen=True, slots=True)
class _Job:
    """A run: its command, the folders of its records, and whether they are all there."""

    title: str
    command: Sequence[str]
    variables: Mapping[str, str]
    folders: Sequence[Path]
    is_complete: bool


def _job(entry: Entry, args: argparse.Namespace, file: Path) -> _Job:
    own = {key: value for key, value in entry.own.items() if key != "env"}
    shared = {key: getattr(args, key) for key in (*_SETTINGS, "engine", "controls", "repeats")}
    own |= {key: value for key, value in shared.items() if value is not None}
    variables = {k: os.path.expandvars(str(v)) for k, v in entry.own.get("env", {}).items()}
    arguments = ["--config", str(file), *args.unknown]
    try:
        with (
            environment(variables),
            plan_eval(
                arguments,
                settings={name: own.get(name) for name in _SETTINGS},
                records=args.records,
                engine=own.get("engine"),
                controls=control_names(own["controls"]) if "controls" in own else (),
                repeats=own.get("repeats", 1),
                name=own.get("name"),
                group=own.get("group"),
                resume=True,
            ) as plan,
        ):
            complete = [bool(plan.complete(run)) for run in plan.runs]
            folders = [
                plan.parent / str(run.folder) / name
                for run in plan.runs
                for *_, names in plan.parts
                for name in names
            ]
    except UserError as error:
        raise UserError(f"{entry.where} ({entry.title}): {error}") from error
    except SystemExit:
        show_message(f"univg eval: that was {entry.where} ({entry.title})")
        raise
    options = [f"--{key}={value}" for key, value in own.items()]
    if args.records is not None:
        options.append(f"--records={args.records}")
    options += [
        f"--{name}" for name in ("stop-early", "verbose") if getattr(args, name.replace("-", "_"))
    ]
    command = [sys.executable, "-m", "univg_eval", "eval", "--resume", *options, *arguments]
    return _Job(entry.title, command, variables, folders, all(complete))


def _run(jobs: Sequence[_Job], *, show: bool) -> int:
    failed = []
    for number, job in enumerate(jobs, start=1):
        if show:
            state = ": complete, nothing to do" if job.is_complete else ""
            print(f"[{number}/{len(jobs)}] {job.title}{state}", flush=True)
        if job.is_complete:
            continue
        status = subprocess.run(
            job.command, env={**os.environ, **job.variables}, check=False
        ).returncode
        if status:
            how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
            failed.append(f"{job.title} ({how})")
    paths = [str(path) for job in jobs for path in job.folders if path.is_dir()]
    if show and paths:
        from univg_eval.leaderboard import build_leaderboards
        from univg_eval.leaderboard.formats import make_sheet, print_sheet

        for board in build_leaderboards(read_runs(list(dict.fromkeys(paths)), grouped=True)):
            print()
            print_sheet(make_sheet(board))
    if failed:
        show_message(
            f"univg eval: {len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}. The same "
            "command goes on with what is missing"
        )
    return int(bool(failed))
