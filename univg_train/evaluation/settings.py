"""The section ``evaluation`` of a training run's settings, and the questions that it names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.images.reading import image_size, split_reference
from univg_eval.protocols import list_protocols
from univg_eval.samples import (
    MANIFEST_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    fingerprint,
    load_manifest,
    load_samples,
    n_skipped,
)
from univg_eval.scoring import Response, aggregate, score_samples
from univg_train.runs.settings import unknown_keys, wrong_values

if TYPE_CHECKING:
    from univg_train.data import LeakIndex

__all__ = [
    "MAX_NEW_TOKENS",
    "EvaluationSettings",
    "Questions",
    "best_text",
    "evaluation_problems",
    "leak_index",
    "make_evaluation_settings",
    "open_questions",
]

MAX_NEW_TOKENS = 512
"""As in the evaluation tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What is asked while a model trains.

    Attributes:
        benchmark: name of a prepared benchmark.
        every: steps between two evaluations.
        split: of the benchmark; None: all splits.
        tasks: of the benchmark; None: all tasks.
        per_task: the first so many questions of each task; None: all.
        metric: whose unweighted mean over the tasks says which model is best.
        batch_size: questions that a process answers at once.
        max_new_tokens: at most so many tokens an answer; the default is the evaluation tasks' own.
        protocol: the scoring rule.
        root: the data root; None: that of the training data.
    """

    benchmark: str
    every: int
    split: str | None = None
    tasks: list[str] | None = None
    per_task: int | None = None
    metric: str = "acc@0.5"
    batch_size: int = 8
    max_new_tokens: int = MAX_NEW_TOKENS
    protocol: str = "univg"
    root: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def evaluation_problems(raw: Any, section: str = "evaluation") -> list[str]:
    """What is wrong with the keys and values of the section, as it stands in the file."""
    if raw is None:
        return []
    if not isinstance(raw, Mapping):
        return [f"{section} is {raw!r}; expected keys with values"]
    keys = {field.name: str(field.type) for field in fields(EvaluationSettings)}
    prefix = f"{section}."
    problems = unknown_keys(raw, dict.fromkeys(keys), prefix) + wrong_values(raw, keys, prefix)
    problems += [
        f"{prefix}{field.name} is missing"
        for field in fields(EvaluationSettings)
        if field.default is MISSING and field.name not in raw
    ]
    problems += [
        f"{prefix}{name} is {raw[name]}; expected at least 1"
        for name in ("every", "per_task", "batch_size", "max_new_tokens")
        if type(raw.get(name)) is int and raw[name] < 1
    ]
    if raw.get("tasks") == []:
        problems.append(f"{prefix}tasks is []; name some, or leave it away for all")
    protocol = raw.get("protocol", "univg")
    if isinstance(protocol, str) and protocol not in list_protocols():
        known = ", ".join(list_protocols())
        problems.append(f"{prefix}protocol is {protocol!r}; expected one of: {known}")
    return problems


def make_evaluation_settings(
    raw: Mapping[str, Any] | None, *, root: str | None = None
) -> EvaluationSettings | None:
    """The settings of a section without problems.

    Args:
        raw: as it stands in the file; None: no evaluation.
        root: the data root of the training data.

    Raises:
        UserError: see `evaluation_problems`.
    """
    if problems := evaluation_problems(raw):
        raise UserError("; ".join(problems))
    if raw is None:
        return None
    return EvaluationSettings(**{**raw, "root": raw.get("root") or root})


@dataclass(frozen=True, slots=True)
class Questions:
    """The questions of an evaluation, and the prepared set that they come from.

    Attributes:
        samples: what is asked, in file order.
        fingerprint: of the whole prepared set.
        n: samples of the whole set.
        revision: of its annotations, None where it has none.
        skipped: faulty items that were left out when it was prepared.
    """

    samples: Sequence[GroundingSample]
    fingerprint: str
    n: int
    revision: str | None
    skipped: int

    @property
    def complete(self) -> bool:
        """Whether these are all samples of the set, and it lacks no faulty items."""
        return len(self.samples) == self.n and not self.skipped


def open_questions(settings: EvaluationSettings, dialect: Dialect) -> Questions:
    """Read the benchmark, and hold the settings against it.

    univg_mini and photos are generated where they are not there yet, and univg_mini where another
    version of the generator has made it, as by the evaluation tasks.

    Args:
        settings: checked ones.
        dialect: of the model.

    Raises:
        UserError: the benchmark is not prepared, has no such split or task, or does not give the
            metric; an image is missing or of another size; or boxes of the dialect cannot be read
            without sizes that are not known.
    """
    name, root = settings.benchmark, settings.root
    _generate(name, root)
    everything = load_samples(name, root=root)
    in_split = load_samples(name, settings.split, root) if settings.split else everything
    known = list(dict.fromkeys(sample.task for sample in in_split))
    unknown = [task for task in settings.tasks or () if task not in known]
    if unknown:
        raise UserError(
            f"evaluation.tasks names {', '.join(map(repr, unknown))}; {name!r} has: "
            f"{', '.join(known)}"
        )
    chosen: list[GroundingSample] = []
    taken: dict[str, int] = {}
    for sample in in_split:
        if settings.tasks is not None and sample.task not in settings.tasks:
            continue
        taken[sample.task] = taken.get(sample.task, 0) + 1
        if settings.per_task is None or taken[sample.task] <= settings.per_task:
            chosen.append(sample)
    _require_metric(settings, chosen, dialect)
    _require_images(chosen, root)
    revisions = sorted({str(s.source["revision"]) for s in everything if s.source.get("revision")})
    return Questions(
        samples=chosen,
        fingerprint=fingerprint(everything),
        n=len(everything),
        revision="+".join(revisions) or None,
        skipped=n_skipped(name, root),
    )


def _generate(benchmark: str, root: str | None) -> None:
    prepared = (benchmark_dir(benchmark, root) / MANIFEST_FILE).is_file()
    if benchmark == "univg_mini":
        from univg_eval.benchmarks.synthetic import mini

        # One that an older generator has made is made anew, of as many questions and the same seed.
        standing = load_manifest(benchmark, root).get("generator") if prepared else {}
        if isinstance(standing, Mapping):
            names = {"n_per_task": "n", "seed": "seed"}
            mini.ensure(root, **{names[key]: standing[key] for key in names if key in standing})
    elif benchmark == "photos" and not prepared:
        from univg_eval.benchmarks.synthetic import photos

        photos.ensure(root)


def _require_metric(
    settings: EvaluationSettings,
    samples: Sequence[GroundingSample],
    dialect: Dialect,
) -> None:
    """Score empty answers: which metrics there are does not depend on what is said."""
    nothing = [Response("", prompt="")] * len(samples)
    scores = score_samples(samples, nothing, dialect, protocol=settings.protocol)
    metrics = aggregate(scores)["macro"]
    if settings.metric not in metrics:
        raise UserError(
            f"evaluation.metric is {settings.metric!r}, which not all of these tasks have; "
            f"expected one of: {', '.join(metrics) or 'none: they have no metric in common'}"
        )


def _require_images(samples: Sequence[GroundingSample], root: str | None) -> None:
    """The files are there, and their headers tell the sizes recorded; pixels are read when asked.

    A run that goes on would otherwise meet a missing file hours later.
    """
    base = data_root(root)
    for sample in samples:
        for position, reference in enumerate(sample.images):
            name, frame = split_reference(reference)
            path = base / name
            if frame is not None and path.is_file():
                continue
            size = image_size(path)
            if sample.image_sizes is not None and size != sample.image_sizes[position]:
                raise UserError(
                    f"sample {sample.id!r}: {path} is {size[0]}x{size[1]} pixels, the sample says "
                    f"{sample.image_sizes[position][0]}x{sample.image_sizes[position][1]}; prepare "
                    f"{sample.benchmark!r} again"
                )


def best_text(summary: Mapping[str, Any]) -> str:
    """What a run's summary says of its best model, as an end of a sentence; "" where nothing."""
    best = summary.get("best")
    if best is None:
        return ""
    return f"; best: step {best['step']}, {best['metric']} {best['value']:.3f}, in {best['model']}"


def leak_index(
    benchmarks: Sequence[str],
    evaluation: EvaluationSettings | None,
    *,
    kinds: Collection[str],
    root: str | None,
) -> LeakIndex | None:
    """What training rows are held against: benchmarks, and the one that is asked while training.

    Args:
        benchmarks: names, below `root`.
        evaluation: the evaluation of the run.
        kinds: see `univg_train.data.index_benchmarks`.
        root: the data root of the training data.

    Returns:
        None where there is nothing.

    Raises:
        UserError: see `index_benchmarks`.
    """
    from univg_train.data import index_benchmarks

    index = index_benchmarks(benchmarks, kinds=kinds, root=root) if benchmarks else None
    if evaluation is None:
        return index
    if evaluation.benchmark in benchmarks and data_root(evaluation.root) == data_root(root):
        return index
    _generate(evaluation.benchmark, evaluation.root)
    return index_benchmarks([evaluation.benchmark], kinds=kinds, root=evaluation.root, into=index)
