"""Reading the published tables: one YAML file of facts about a table, one CSV file of its numbers.

Numbers stay as they are printed (`decimal.Decimal`, so ``52.00`` keeps its decimals); nothing is
corrected here. What does not add up is found by `univg_eval.leaderboard.published.checks`.
"""

from __future__ import annotations

import csv
import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, get_args

from univg_eval.benchmarks.readers.mig_bench import TASKS as MIG_BENCH_TASKS
from univg_eval.errors import UserError
from univg_eval.files import data_folder
from univg_eval.protocols import list_protocols

__all__ = [
    "BENCHMARK_TASKS",
    "Counts",
    "PublishedRow",
    "PublishedTable",
    "Reproduction",
    "Reproductions",
    "Role",
    "load_counts",
    "load_published",
    "load_reproductions",
    "published_folder",
]

BENCHMARK_TASKS: Mapping[str, tuple[str, ...]] = {
    "mig_bench": MIG_BENCH_TASKS,
    "zero_shot": ("lisa_val", "lisa_test", "llmseg", "reasonvos", "revos"),
}
"""The benchmarks that have published tables, and their tasks in the order of the tables."""

UNKNOWN = "unknown"
METRICS = ("acc@0.3", "acc@0.5", "acc@0.7", "acc@0.9", "miou")
Role = Literal["main", "ablation"]
"""``main``: a paper's comparison of models. ``ablation``: what a change of training, prompt or form
of answer does."""
ROLES: tuple[Role, ...] = get_args(Role)
_COUNTS_FILE = "revisions.yaml"
_SOURCE_KEYS = (
    "kind",
    "benchmark",
    "title",
    "paper",
    "arxiv",
    "place",
    "url",
    "date",
    "protocol",
    "revision",
    "data",
    "notes",
)
_KIND_KEYS = {"table": (*_SOURCE_KEYS, "metric", "role"), "reproductions": (*_SOURCE_KEYS, "model")}
_MAY_BE_EMPTY = {"arxiv", "notes"}


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of questions of each task in one annotation file.

    Attributes:
        benchmark: ``mig_bench`` or ``zero_shot``.
        revision: name of the annotation file's revision.
        file: what the release calls it.
        basis: ``counted`` in the file, or ``inferred`` from printed percentages.
        source: where the file, or the percentages, come from.
        counts: task to number of questions; tasks of unknown size are missing.
    """

    benchmark: str
    revision: str
    file: str
    basis: str
    source: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One model's line of a table.

    Attributes:
        model: name, as printed.
        values: task to percentage, as printed; a task without a number is missing.
        printed_avg: the average that the source prints, in percent, or None.
        protocol: how this row was scored: the table's, unless the row has its own.
        note: what has to be known of this row alone; may be empty.
    """

    model: str
    values: Mapping[str, Decimal]
    printed_avg: Decimal | None
    protocol: str
    note: str = ""

    @property
    def mean(self) -> Decimal | None:
        """The unweighted mean of the printed values to 28 digits; None without values."""
        if not self.values:
            return None
        return sum(self.values.values(), Decimal(0)) / len(self.values)


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of one source, as printed.

    Attributes:
        key: name of its files, without the ending.
        benchmark: ``mig_bench`` or ``zero_shot``.
        role: see `Role`.
        title: what it shows.
        source: paper and place in it.
        arxiv: number of the paper, or "".
        url: of the source.
        date: of the first publication.
        metric: of all values, such as ``acc@0.5``; values are percentages.
        revision: the annotation file that the source names, or ``unknown``.
        protocol: scoring rules by name (see `univg_eval.protocols`), or ``unknown``.
        tasks: the tasks that have a column, in its order; empty where only averages are printed.
        rows: in the order of the source.
        notes: what else has to be known.
    """

    key: str
    benchmark: str
    role: Role
    title: str
    source: str
    arxiv: str
    url: str
    date: datetime.date
    metric: str
    revision: str
    protocol: str
    tasks: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    notes: str


@dataclass(frozen=True, slots=True)
class Reproduction:
    """One number that a user reported for released weights.

    Attributes:
        task: of the benchmark.
        metric: such as ``acc@0.5`` or ``miou``.
        numerator: right answers, or for ``miou`` the sum of the IoUs.
        denominator: questions.
        printed: the reported percentage, or None where it could not be read.
    """

    task: str
    metric: str
    numerator: Decimal
    denominator: int
    printed: Decimal | None


@dataclass(frozen=True, slots=True)
class Reproductions:
    """What one user reported for one model; attributes as in `PublishedTable`."""

    key: str
    benchmark: str
    model: str
    title: str
    source: str
    arxiv: str
    url: str
    date: datetime.date
    revision: str
    protocol: str
    rows: tuple[Reproduction, ...]
    notes: str


def published_folder() -> Path:
    """The folder of the published tables; UserError where it is missing."""
    return data_folder(
        "published tables", _COUNTS_FILE, checkout=("results", "published"), wheel=("published",)
    )


def load_published(
    benchmark: str | None = None, *, folder: str | os.PathLike[str] | None = None
) -> list[PublishedTable]:
    """All published tables, or those of one benchmark, by key.

    Args:
        benchmark: a name in `BENCHMARK_TASKS`, or None for all.
        folder: where they lie; those that come with the project if None.

    Raises:
        UserError: an unknown benchmark, or a file that cannot be read as a table; the message
            names file, line and column.
    """
    return [
        _table(path, facts) for path, facts in _descriptions("table", benchmark, _folder(folder))
    ]


def load_reproductions(
    benchmark: str | None = None, *, folder: str | os.PathLike[str] | None = None
) -> list[Reproductions]:
    """What users reported for released weights; arguments and errors as in `load_published`."""
    return [
        _reproductions(path, facts)
        for path, facts in _descriptions("reproductions", benchmark, _folder(folder))
    ]


def load_counts(
    benchmark: str, *, folder: str | os.PathLike[str] | None = None
) -> tuple[Counts, ...]:
    """The known revisions of a benchmark's annotations with their numbers of questions.

    Raises:
        UserError: unknown benchmark, or a file that cannot be read.
    """
    path = _folder(folder) / _COUNTS_FILE
    _require_benchmark(benchmark, "load_counts")
    found = []
    for revision, facts in _mapping(_yaml(path).get(benchmark, {}), f"{path}, {benchmark}").items():
        where = f"{path}, {benchmark}, {revision}"
        facts = _mapping(facts, where)
        _require_keys(facts, ("file", "basis", "source", "counts"), where)
        if facts["basis"] not in ("counted", "inferred"):
            raise UserError(f"{where}: basis is {facts['basis']!r}; expected counted or inferred")
        counts = _mapping(facts["counts"], where)
        for task, n in counts.items():
            _require_task(task, benchmark, where)
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise UserError(f"{where}: {task} is {n!r}; expected a whole number above 0")
        found.append(
            Counts(
                benchmark=benchmark,
                revision=str(revision),
                file=facts["file"],
                basis=facts["basis"],
                source=facts["source"],
                counts=counts,
            )
        )
    return tuple(found)


def _folder(folder: str | os.PathLike[str] | None) -> Path:
    if folder is None:
        return published_folder()
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected one with published tables")
    return path


def _descriptions(
    kind: str, benchmark: str | None, folder: Path
) -> list[tuple[Path, dict[str, Any]]]:
    """The YAML files of one kind, checked, by name."""
    if benchmark is not None:
        _require_benchmark(benchmark, "published tables")
    found = []
    for path in sorted(folder.glob("*.yaml")):
        if path.name == _COUNTS_FILE:
            continue
        facts = _yaml(path)
        if facts.get("kind") not in _KIND_KEYS:
            raise UserError(
                f"{path}: kind is {facts.get('kind')!r}; expected one of: {', '.join(_KIND_KEYS)}"
            )
        if facts["kind"] != kind:
            continue
        _require_keys(facts, _KIND_KEYS[kind], str(path))
        _require_benchmark(facts["benchmark"], str(path))
        _require_protocol(facts["protocol"], str(path))
        if not isinstance(facts["date"], datetime.date):
            raise UserError(f"{path}: date is {facts['date']!r}; expected YYYY-MM-DD")
        if benchmark in (None, facts["benchmark"]):
            found.append((path, facts))
    return found


def _table(path: Path, facts: Mapping[str, Any]) -> PublishedTable:
    if facts["metric"] not in METRICS:
        raise UserError(
            f"{path}: metric is {facts['metric']!r}; expected one of: {', '.join(METRICS)}"
        )
    if facts["role"] not in ROLES:
        raise UserError(f"{path}: role is {facts['role']!r}; expected one of: {', '.join(ROLES)}")
    data = path.parent / facts["data"]
    header, lines = _csv(data)
    extra = {"model", "protocol", "average", "note"}
    tasks = tuple(name for name in header if name not in extra)
    _require_columns(data, header, ("model", *(() if tasks else ("average",))))
    for task in tasks:
        _require_task(task, facts["benchmark"], f"{data}, line 1")
    rows: list[PublishedRow] = []
    for number, line in lines:
        where = f"{data}, line {number}"
        model = line["model"]
        if not model:
            raise UserError(f"{where}: the model has no name")
        if any(row.model == model for row in rows):
            raise UserError(f"{where}: model {model!r} is there twice; expected one line a model")
        protocol = line.get("protocol") or facts["protocol"]
        _require_protocol(protocol, where)
        values = {t: _percent(line[t], f"{where}, column {t}") for t in tasks if line[t]}
        average = line.get("average", "")
        rows.append(
            PublishedRow(
                model=model,
                values=values,
                printed_avg=_percent(average, f"{where}, column average") if average else None,
                protocol=protocol,
                note=line.get("note", ""),
            )
        )
        if not values and not average:
            raise UserError(f"{where}: {model} has neither values nor an average")
    return PublishedTable(
        **_source(path, facts),
        role=facts["role"],
        metric=facts["metric"],
        tasks=tasks,
        rows=tuple(rows),
    )


def _reproductions(path: Path, facts: Mapping[str, Any]) -> Reproductions:
    data = path.parent / facts["data"]
    header, lines = _csv(data)
    columns = ("task", "metric", "numerator", "denominator", "printed")
    _require_columns(data, header, columns)
    rows: list[Reproduction] = []
    for number, line in lines:
        where = f"{data}, line {number}"
        _require_task(line["task"], facts["benchmark"], where)
        if line["metric"] not in METRICS:
            raise UserError(
                f"{where}: metric is {line['metric']!r}; expected one of: {', '.join(METRICS)}"
            )
        if any((row.task, row.metric) == (line["task"], line["metric"]) for row in rows):
            raise UserError(f"{where}: {line['task']} {line['metric']} is there twice")
        denominator = _decimal(line["denominator"], f"{where}, column denominator")
        if denominator < 1 or denominator != int(denominator):
            raise UserError(f"{where}: denominator is {denominator}; expected a whole number")
        numerator = _decimal(line["numerator"], f"{where}, column numerator")
        if not 0 <= numerator <= denominator:
            raise UserError(f"{where}: numerator is {numerator}; expected 0 to {denominator}")
        printed = line["printed"]
        rows.append(
            Reproduction(
                task=line["task"],
                metric=line["metric"],
                numerator=numerator,
                denominator=int(denominator),
                printed=_percent(printed, f"{where}, column printed") if printed else None,
            )
        )
    return Reproductions(**_source(path, facts), model=facts["model"], rows=tuple(rows))


def _source(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": path.stem,
        "source": f"{facts['paper']}; {facts['place']}",
        **{
            key: facts[key]
            for key in ("benchmark", "title", "arxiv", "url", "date", "revision", "protocol")
        },
        "notes": facts["notes"].strip(),
    }


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable YAML file: {error}") from error
    return _mapping(data, str(path))


def _mapping(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{where}: expected keys with values, found {type(data).__name__}")
    return data


def _require_keys(facts: Mapping[str, Any], expected: Sequence[str], where: str) -> None:
    missing = [key for key in expected if key not in facts]
    unknown = [str(key) for key in facts if key not in expected]
    if missing or unknown:
        found = [f"missing {', '.join(missing)}"] * bool(missing)
        found += [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise UserError(f"{where}: {'; '.join(found)}; expected keys: {', '.join(expected)}")
    for key in expected:
        value = facts[key]
        if key in ("date", "counts"):
            continue
        if not isinstance(value, str) or (not value.strip() and key not in _MAY_BE_EMPTY):
            raise UserError(f"{where}: {key} is {value!r}; expected text (in quotes if a number)")


def _csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header, and line number and cells (stripped) of every line below it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            doubled = sorted({name for name in header if header.count(name) > 1})
            if doubled:
                raise UserError(f"{path}, line 1: column {', '.join(doubled)} is there twice")
            lines = []
            for cells in reader:
                if len(cells) != len(header):
                    raise UserError(
                        f"{path}, line {reader.line_num}: {len(cells)} cells; expected "
                        f"{len(header)}: {', '.join(header)}"
                    )
                row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
                lines.append((reader.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a readable CSV file: {error}") from error
    if not lines:
        raise UserError(f"{path}: no line below the header")
    return header, lines


def _require_columns(path: Path, header: Sequence[str], expected: Sequence[str]) -> None:
    missing = [name for name in expected if name not in header]
    if missing:
        raise UserError(
            f"{path}, line 1: column {', '.join(missing)} is missing; found: {', '.join(header)}"
        )


def _require_benchmark(name: Any, where: str) -> None:
    if name not in BENCHMARK_TASKS:
        known = ", ".join(BENCHMARK_TASKS)
        raise UserError(f"{where}: unknown benchmark {name!r}; expected one of: {known}")


def _require_task(task: Any, benchmark: str, where: str) -> None:
    if task not in BENCHMARK_TASKS[benchmark]:
        known = ", ".join(BENCHMARK_TASKS[benchmark])
        raise UserError(f"{where}: unknown task {task!r} of {benchmark}; expected some of: {known}")


def _require_protocol(name: Any, where: str) -> None:
    known = [*list_protocols(), UNKNOWN]
    if name not in known:
        raise UserError(f"{where}: unknown protocol {name!r}; expected one of: {', '.join(known)}")


def _decimal(text: str, where: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise UserError(f"{where}: {text!r} is not a number") from None
    if not value.is_finite():
        raise UserError(f"{where}: {text!r} is not a number")
    return value


def _percent(text: str, where: str) -> Decimal:
    value = _decimal(text, where)
    if not 0 <= value <= 100:
        raise UserError(f"{where}: {text} is outside 0 to 100; expected a percentage")
    return value
