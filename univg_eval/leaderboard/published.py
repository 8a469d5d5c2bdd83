"""Published tables as data: one YAML file of facts about a table, one CSV file of its numbers.

They lie in ``results/published`` of a checkout (``share/univg/published`` of an installation); see
``docs/published.md``. Numbers stay as they are printed (`decimal.Decimal`, so ``52.00`` keeps its
decimals); nothing is corrected here. `published_checks` finds what does not add up.
"""

from __future__ import annotations

import csv
import datetime
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass

from univg_eval.benchmarks.readers.mig_bench import TASKS as MIG_BENCH_TASKS
from univg_eval.errors import UserError
from univg_eval.files import data_folder, read_yaml
from univg_eval.protocols import list_protocols
from univg_eval.published_rules import PUBLISHED_RULES
from univg_eval.scoring import METRICS

OVERALL = "overall"
BENCHMARK_TASKS: Mapping[str, tuple[str, ...]] = {
    "mig_bench": MIG_BENCH_TASKS,
    "zero_shot": ("lisa_val", "lisa_test", "llmseg", "reasonvos", "revos"),
    "mc_bench": (OVERALL,),
    "groundingme": ("discriminative", "spatial", "limited", "rejection", OVERALL),
    "ref_l4": ("ref_l4_val", "ref_l4_test", OVERALL),
    "refcoco_m": (OVERALL,),
    "grefcoco": ("grefcoco_val", "grefcoco_testA", "grefcoco_testB"),
    "humanref": (*("attribute", "position", "interaction", "reasoning", "celebrity"), OVERALL),
    "rex_omni": (
        *("refcocog_val", "refcocog_test", "humanref", "dense200", "visdrone", "coco"),
        OVERALL,
    ),
}
"""The benchmarks that have published tables, and their tasks in the order of the tables; `OVERALL`
where a table has one number of the whole set."""

UNKNOWN = "unknown"
Role = Literal["main", "ablation"]
"""``main``: a paper's comparison of models. ``ablation``: what a change of training, prompt or form
of answer does."""
_COUNTS_FILE = "revisions.yaml"


def require_metric(name: str) -> str:
    """A metric of a table: one of `scoring.METRICS`, or ``RULE/NAME`` of a published rule.

    Raises:
        ValueError: it is neither.
    """
    if name not in METRICS and name.partition("/")[0] not in PUBLISHED_RULES:
        rules = ", ".join(f"{rule}/…" for rule in PUBLISHED_RULES)
        raise ValueError(f"expected one of: {', '.join(METRICS)}; or {rules}")
    return name


def _known(name: str) -> str:
    known = (*list_protocols(), *PUBLISHED_RULES, UNKNOWN)
    if name not in known:
        raise ValueError(f"expected one of: {', '.join(known)}")
    return name


Text = Annotated[str, Field(min_length=1)]
Percent = Annotated[Decimal, Field(ge=0, le=100)]
Protocol = Annotated[str, AfterValidator(_known)]
Metric = Annotated[str, AfterValidator(require_metric)]
_CONFIG = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CONFIG)
class Counts:
    """The number of samples of each task in one annotation file.

    Attributes:
        benchmark: ``mig_bench`` or ``zero_shot``.
        revision: name of the annotation file's revision.
        file: what the release calls it.
        basis: ``counted`` in the file, or ``inferred`` from printed percentages.
        source: where the file, or the percentages, come from.
        counts: task to number of samples; tasks of unknown size are missing.
    """

    benchmark: str
    revision: str
    file: Text
    basis: Literal["counted", "inferred"]
    source: Text
    counts: Mapping[str, PositiveInt]


@dataclass(frozen=True, config=_CONFIG)
class PublishedRow:
    """One model's line of a table.

    Attributes:
        model: name, as printed.
        values: task to percentage, as printed; a task without a number is missing.
        printed_avg: the average that the source prints, in percent, or None.
        protocol: how this row was scored: the table's, unless the row has its own.
        note: what has to be known of this row alone; may be empty.
    """

    model: Text
    values: Mapping[str, Percent]
    printed_avg: Percent | None
    protocol: Protocol
    note: str = ""

    @property
    def mean(self) -> Decimal | None:
        """The unweighted mean of the printed values to 28 digits; None without values."""
        if not self.values:
            return None
        return sum(self.values.values(), Decimal(0)) / len(self.values)


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class Source:
    """Where printed numbers come from: the keys of the YAML file.

    Attributes:
        key: name of the files, without the ending.
        benchmark: a name in `BENCHMARK_TASKS`.
        title: what is shown.
        paper, place, arxiv: where it is printed; `arxiv` may be "".
        url: of the source.
        date: of the first publication.
        revision: the annotation file that the source names, or ``unknown``.
        protocol: scoring rules by name (see `univg_eval.protocols`), or ``unknown``.
        notes: what else has to be known; may be "".
    """

    key: str
    benchmark: str
    title: Text
    paper: Text
    place: Text
    arxiv: str
    url: Text
    date: datetime.date
    revision: Text
    protocol: Protocol
    notes: str

    @property
    def citation(self) -> str:
        """What, where, when."""
        return f"{self.title}: {self.paper}; {self.place}, {self.date}, {self.url}"


@dataclass(frozen=True, config=_CONFIG)
class Recipe:
    """How to evaluate a model as a table was measured, apart from the model's own prompt.

    Attributes:
        name: as given to ``univg eval --like``.
        tasks: lmms-eval's task names, separated by commas.
        benchmarks: what has to be prepared for them.
        prepare: the command that does so.
        gen_kwargs: generation arguments of the released evaluation code.
        notes: what the recipe does not fix.
    """

    name: Text
    tasks: Text
    benchmarks: tuple[Text, ...]
    prepare: Text
    gen_kwargs: Text
    notes: Text


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class PublishedTable(Source):
    """A table of one source, as printed.

    Attributes:
        role: see `Role`.
        metric: of all values; these are percentages.
        tasks: the tasks that have a column, in its order; empty where only averages are printed.
        rows: in the order of the source.
        recipe: how to evaluate a model the same way; None where the source does not say enough.
    """

    role: Role
    metric: Metric
    tasks: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    recipe: Recipe | None = None


@dataclass(frozen=True, config=_CONFIG)
class Reproduction:
    """One number that a user reported for released weights.

    Attributes:
        task, metric: what was measured.
        numerator: right answers, or for ``miou`` the sum of the IoUs.
        denominator: samples.
        printed: the reported percentage, or None where it could not be read.
    """

    task: str
    metric: Metric
    numerator: Annotated[Decimal, Field(ge=0)]
    denominator: PositiveInt
    printed: Percent | None


@dataclass(frozen=True, config=_CONFIG, kw_only=True)
class Reproductions(Source):
    """What one user reported for one model."""

    model: Text
    rows: tuple[Reproduction, ...]


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
    tables = []
    for path, facts in _descriptions("table", benchmark, folder):
        data, header, lines = _csv(path, facts, ("model",))
        known = BENCHMARK_TASKS[facts["benchmark"]]
        tasks = [name for name in header if name not in ("model", "protocol", "average", "note")]
        for task in tasks:
            _require(task, known, "task", f"{data}, line 1")
        rows: dict[str, PublishedRow] = {}
        for where, line in lines:
            row = _made(
                PublishedRow,
                where,
                {},
                model=line["model"],
                values={task: line[task] for task in tasks if line[task]},
                printed_avg=line.get("average") or None,
                protocol=line.get("protocol") or facts.get("protocol"),
                note=line.get("note", ""),
            )
            if not row.values and row.printed_avg is None:
                raise UserError(f"{where}: {row.model} has neither values nor an average")
            _require_new(row.model, rows, where)
            rows[row.model] = row
        tables.append(
            _made(PublishedTable, path, facts, key=path.stem, tasks=tasks, rows=[*rows.values()])
        )
    return tables


def load_reproductions(
    benchmark: str | None = None, *, folder: str | os.PathLike[str] | None = None
) -> list[Reproductions]:
    """What users reported for released weights; arguments and errors as in `load_published`."""
    columns = ("task", "metric", "numerator", "denominator", "printed")
    found = []
    for path, facts in _descriptions("reproductions", benchmark, folder):
        rows: dict[str, Reproduction] = {}
        for where, line in _csv(path, facts, columns)[2]:
            row = _made(Reproduction, where, line | {"printed": line["printed"] or None})
            _require(row.task, BENCHMARK_TASKS[facts["benchmark"]], "task", where)
            if row.numerator > row.denominator:
                raise UserError(
                    f"{where}: numerator is {row.numerator}; expected 0 to {row.denominator}"
                )
            _require_new(f"{row.task} {row.metric}", rows, where)
            rows[f"{row.task} {row.metric}"] = row
        found.append(_made(Reproductions, path, facts, key=path.stem, rows=[*rows.values()]))
    return found


def load_counts(
    benchmark: str, *, folder: str | os.PathLike[str] | None = None
) -> tuple[Counts, ...]:
    """The known revisions of a benchmark's annotations with their numbers of samples.

    Raises:
        UserError: unknown benchmark, or a file that cannot be read.
    """
    path = _folder(folder) / _COUNTS_FILE
    _require(benchmark, BENCHMARK_TASKS, "benchmark", "load_counts")
    found = []
    revisions = _yaml(path).get(benchmark, {})
    for revision, facts in _mapping(revisions, f"{path}, {benchmark}").items():
        where = f"{path}, {benchmark}, {revision}"
        counts = _made(Counts, where, facts, benchmark=benchmark, revision=revision)
        for task in counts.counts:
            _require(task, BENCHMARK_TASKS[benchmark], "task", where)
        found.append(counts)
    return tuple(found)


def _folder(folder: str | os.PathLike[str] | None) -> Path:
    path = published_folder() if folder is None else Path(folder)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected one with published tables")
    return path


def _descriptions(
    kind: str, benchmark: str | None, folder: str | os.PathLike[str] | None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The YAML files of one kind, by name."""
    if benchmark is not None:
        _require(benchmark, BENCHMARK_TASKS, "benchmark", "published tables")
    for path in sorted(_folder(folder).glob("*.yaml")):
        if path.name == _COUNTS_FILE:
            continue
        facts = _yaml(path)
        found = facts.pop("kind", None)
        _require(found, ("table", "reproductions"), "kind", path)
        _require(facts.get("benchmark"), BENCHMARK_TASKS, "benchmark", path)
        if found == kind and benchmark in (None, facts["benchmark"]):
            yield path, facts


def _yaml(path: Path) -> dict[str, Any]:
    try:
        data = read_yaml(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable YAML file: {error}") from error
    return _mapping(data, path)


def _mapping(value: Any, where: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{where}: expected keys with values, found {type(value).__name__}")
    return value


def _csv(
    path: Path, facts: dict[str, Any], expected: Sequence[str]
) -> tuple[Path, list[str], list[tuple[str, dict[str, str]]]]:
    """The file with the numbers: path, header, and where each line is and its cells (stripped)."""
    name = str(facts.pop("data", ""))
    if Path(name).name != name or "\0" in name:
        raise UserError(f"{path}: data is {name!r}; expected the name of a CSV file beside it")
    data = path.parent / name
    try:
        with data.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            lines = [(f"{data}, line {reader.line_num}", [c.strip() for c in r]) for r in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{data}: not a readable CSV file: {error}") from error
    if not set(expected) <= set(header) or len(set(header)) < len(header):
        raise UserError(
            f"{data}, line 1: columns {', '.join(header)}; expected {', '.join(expected)} among "
            "them, and each once"
        )
    for where, cells in lines:
        if len(cells) != len(header):
            raise UserError(f"{where}: {len(cells)} cells; expected {len(header)}")
    if not lines:
        raise UserError(f"{data}: no line below the header")
    return data, header, [(where, dict(zip(header, row, strict=True))) for where, row in lines]


_Made = TypeVar("_Made", Counts, PublishedRow, PublishedTable, Reproduction, Reproductions)


def _made(cls: type[_Made], where: object, facts: object, **known: Any) -> _Made:
    """Of what a file states, and what is known besides."""
    stated = _mapping(facts, where)
    if twice := sorted(stated.keys() & known.keys()):
        raise UserError(f"{where}: unexpected key {twice[0]!r}; it follows from the file's name")
    try:
        return cls(**stated, **known)
    except ValidationError as error:
        found = [
            f"{'.'.join(map(str, one['loc']))}"
            + (f" is {one['input']!r}" if isinstance(one["input"], str | int | float) else "")
            + f": {one['msg']}"
            for one in error.errors()
        ]
        raise UserError(f"{where}: {'; '.join(found)}") from None


def _require(value: Any, known: Collection[str], what: str, where: object) -> None:
    if not isinstance(value, str) or value not in known:
        raise UserError(f"{where}: {what} is {value!r}; expected one of: {', '.join(known)}")


def _require_new(name: str, rows: Collection[str], where: str) -> None:
    if name in rows:
        raise UserError(f"{where}: duplicate {name}; expected one line each")
