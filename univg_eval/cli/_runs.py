"""Arguments of commands that read run records: ``[LABEL=]PATH[,PATH …]`` and ``--metric``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from univg_eval.errors import UserError
from univg_eval.progress import progress_bars, tracked
from univg_eval.terminal import show_message

if TYPE_CHECKING:
    from univg_eval.runs.record import RunRecord

__all__ = ["HELP", "add_metric", "add_runs", "read_runs"]

# Where records lie in a folder: in it; in `records` of `univg eval`, or `univg-train`'s folder;
# in the output folder of `univg eval`.
_RECORDS = ("*", "*/*", "records/*/*")
_LOGS = ("*", "*/*")  # lmms-eval makes a folder of each model
_DATE = re.compile(r"\d{8}_\d{6}")  # names an evaluation, in the zone that lmms-eval was given
_RESULTS = "_results.json"  # the end of the name of lmms-eval's results files

HELP = (
    "[LABEL=]PATH[,PATH …]: a run record, a folder of run records, or what `lmms-eval "
    "--output_path PATH --log_samples` wrote; several with commas between them are runs of one "
    "thing; the label is what tables call the run (default: the last part of the model's name)"
)
_EXPECTED = (
    "expected a run record, a folder of run records, or a folder that lmms-eval wrote with "
    "--output_path and --log_samples"
)


def add_runs(parser: argparse.ArgumentParser, nargs: str | int = "+") -> None:
    """Add the positional argument; `read_runs` takes its values."""
    parser.add_argument("runs", nargs=nargs, metavar="RUN", help=HELP)


def add_metric(parser: argparse.ArgumentParser) -> None:
    """Add ``--metric``, a name of `univg_eval.scoring.METRICS`.

    The names stand here again, and a test compares them: the module of scoring loads numpy.
    """
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="acc@0.3, acc@0.5, acc@0.7, acc@0.75, acc@0.9, miou, macc, center_acc, answered, "
        "image_acc, joint@0.5, no_target_acc, f1@0.5, f1@0.95, f1_mean, ap50, matched_iou or "
        "image_set_acc (default: acc@0.5; where no sample has one target, f1@0.5 or no_target_acc)",
    )


def read_runs(arguments: Sequence[str], *, grouped: bool = False) -> list[RunRecord]:
    """Load the records that the arguments name, in their order.

    Args:
        arguments: ``[LABEL=]PATH[,PATH …]``.
        grouped: several runs of one thing keep one label: repeats, checkpoints that were given one
            name, and paths with commas between them. They have it only if no label of its own
            distinguishes them.

    A folder stands for the records directly in it and those of each evaluation in it: the output
    folder of `univg eval` or its ``records``, the folder of a training run. Where there are none,
    it stands for the evaluations that lmms-eval wrote into it or into its subfolders (one a
    model), each of which may hold several benchmarks. Records come in the order of their paths,
    evaluations by date; where there are several, the time in UTC follows the label.

    Records of one benchmark that would have the same label are distinguished by the names of their
    folders, by their times where a folder is named as the benchmark, and by a number where these
    are equal too.

    Raises:
        UserError: a path is no record and holds none, or a record cannot be read.
    """
    with progress_bars() as progress:
        named = tracked(arguments, progress, "reading runs")
        records = [record for argument in named for record in _split(argument, grouped)]
        records = _checked(tracked(records, progress, "checking scores"))
    records = _distinct(records, _longer_label)
    numbers: dict[tuple[str, str], dict[Hashable, int]] = {}

    def numbered(record: RunRecord) -> str:
        known = numbers.setdefault((record.benchmark, record.label), {})
        return f"{record.label} #{known.setdefault(_unit(record), len(known) + 1)}"

    return _distinct(records, numbered)


def _checked(records: Iterable[RunRecord]) -> list[RunRecord]:
    """The records with `score_check`; a difference is said."""
    from univg_eval.runs.score_check import ScoreChecker

    checker, found = ScoreChecker(), []
    for record in records:
        checked, difference = checker.check(record)
        found.append(checked)
        if difference:
            show_message(f"univg: note: {difference}")
    return found


def _longer_label(record: RunRecord) -> str:
    name = record.path.resolve().name
    is_benchmark = name in (record.benchmark, record.manifest.dataset.prepared_benchmark)
    if is_benchmark and record.group is None:
        name = _when(record)
    return record.label if record.label.endswith(name) else f"{record.label} ({name})"


def _when(record: RunRecord) -> str:
    from univg_eval.report.text import moment

    return moment(record.manifest.created)


def _unit(record: RunRecord) -> Hashable:
    """Equal in records that may share benchmark and label."""
    manifest = record.manifest
    if record.group is None:
        return id(record)
    return record.group, manifest.scoring_rule, manifest.settings.dialect.value


def _distinct(records: Sequence[RunRecord], name: Callable[[RunRecord], str]) -> list[RunRecord]:
    """The records, with `name` as the label of those that share benchmark and label."""
    units: dict[tuple[str, str], set[Hashable]] = {}
    for record in records:
        units.setdefault((record.benchmark, record.label), set()).add(_unit(record))
    return [
        replace(record, label=name(record))
        if len(units[record.benchmark, record.label]) > 1
        else record
        for record in records
    ]


def _split(argument: str, grouped: bool) -> list[RunRecord]:
    """The records of an argument, which may name several paths."""
    label, separator, rest = argument.partition("=")
    if not (separator and label) or _exists(Path(argument)):
        label, rest = "", argument
    if "," not in rest or _exists(Path(rest)):
        records = _read(argument, grouped)
    else:
        records = [record for path in rest.split(",") for record in _read(path, grouped)]
        label = label or records[0].label
        records = [replace(record, label=label, group=argument) for record in records]
    return records if grouped else [replace(record, group=None) for record in records]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A label may be longer than the name of a file can be.
        return False


def _read(argument: str, grouped: bool) -> list[RunRecord]:
    from univg_eval.runs.record import CHECKSUMS, load_run

    label, separator, rest = argument.partition("=")
    if separator and label and not _exists(Path(argument)):
        path, wanted = Path(rest), label
    else:
        path, wanted, rest = Path(argument), "", argument
    if not rest:  # Path("") is the working folder, which nobody meant
        raise UserError(f"the path of the run {argument!r} is empty; {_EXPECTED}")
    if not _exists(path):
        raise UserError(f"{path} does not exist; {_EXPECTED}")
    if path.is_file() and path.name.endswith(_RESULTS):
        return _logged([path], wanted)
    if not path.is_dir():
        if (path.parent / CHECKSUMS).is_file():
            raise UserError(f"{path} is one file of a run record; name its folder, {path.parent}")
        raise UserError(f"{path} is no run record but a file; {_EXPECTED}")
    if (path / CHECKSUMS).is_file():
        return [load_run(path, wanted or None)]
    inside = {
        file.parent
        for pattern in _RECORDS
        for file in path.glob(f"{pattern}/{CHECKSUMS}")
        if not _is_hidden(file.relative_to(path))
    }
    logged = sorted(
        (
            file
            for pattern in _LOGS
            for file in path.glob(f"{pattern}{_RESULTS}")
            if not _is_hidden(file.relative_to(path))
        ),
        key=lambda file: (file.name, file),
    )
    if inside:
        _report_unrecorded(logged, inside)
        return _inside(path, sorted(inside), wanted, grouped)
    if logged:
        return _logged(logged, wanted)
    raise UserError(
        f"{path} is no run record and holds none; {_EXPECTED}. `univg eval` writes a record, and "
        "`univg rescore` makes one anew from kept responses"
    )


def _is_hidden(path: Path) -> bool:
    """Whether a part of it begins with a dot: a record whose writing was broken off is there."""
    return any(part.startswith(".") for part in path.parts)


def _report_unrecorded(logged: Sequence[Path], records: Collection[Path]) -> None:
    """Name the evaluations by lmms-eval beside records, where no record has their date."""
    recorded = {folder.parent.name for folder in records}
    for file in logged:
        if file.name.removesuffix(_RESULTS) not in recorded:
            show_message(
                f"univg: note: {file} is left out, since there are run records beside it; name "
                "the file to read it too"
            )


def _inside(path: Path, folders: Sequence[Path], wanted: str, grouped: bool) -> list[RunRecord]:
    """The records in folders below `path`; a folder between the two stands for an evaluation."""
    from univg_eval.runs.groups import folder_name
    from univg_eval.runs.record import load_run

    evaluations = {folder.parent for folder in folders} - {path}
    loaded = [(folder, load_run(folder, wanted or None)) for folder in folders]
    times: dict[Path, str] = {}  # one of an evaluation, whose records are one row of a table
    for folder, record in loaded:
        times[folder.parent] = min(_when(record), times.get(folder.parent, "~"))
    records = []
    for folder, record in loaded:
        evaluation = folder.parent.name
        named = record.label.endswith(evaluation)  # "tiny" in a folder "tiny"
        named |= grouped if record.group else record.manifest.name is not None
        several = len(evaluations) > 1 and folder.parent in evaluations and not named
        label = record.label
        if several:
            # Folders of repeats begin with the name of the run.
            shown = times[folder.parent] if _DATE.match(evaluation) else evaluation
            label = shown if shown.startswith(folder_name(label)) else f"{label} {shown}"
        records.append(replace(record, label=label))
    return records


def _logged(files: Sequence[Path], wanted: str) -> list[RunRecord]:
    """The records of what lmms-eval wrote; results of other tasks than this project's are named."""
    from univg_eval.lmms.record import holds_univg_tasks, read_records

    ours = [file for file in files if holds_univg_tasks(file)]
    others = [file for file in files if file not in ours]
    if not ours:
        raise UserError(
            f"{', '.join(map(str, others))}: no task of univg was evaluated; its tasks are in the "
            "folder that `univg tasks` prints"
        )
    for file in others:
        show_message(f"univg: note: {file} is left out: it holds no task of univg")
    records = []
    for file in ours:
        for record in read_records(file, wanted or None):
            when = f" {_when(record)}" if len(ours) > 1 else ""
            label = record.label + when
            records.append(replace(record, label=label))
    return records
