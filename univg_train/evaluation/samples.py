"""The samples that a model is evaluated on while it trains, checked before it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.images.reading import image_size, split_reference
from univg_eval.samples import (
    MANIFEST_FILE,
    GroundingSample,
    benchmark_dir,
    data_root,
    fingerprint,
    has_stand_ins,
    load_manifest,
    load_samples,
    n_skipped,
)
from univg_eval.scoring import Response, aggregate, score_samples
from univg_train.evaluation.settings import EvaluationSettings

__all__ = ["EvaluationSet", "ensure_generated", "open_samples"]


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The samples of an evaluation, and the prepared set that they come from.

    Attributes:
        samples: those of the evaluation, in file order.
        fingerprint: of the whole prepared set.
        n: samples of the whole set.
        revision: of its annotations, None where it has none.
        skipped: faulty items that were left out when it was prepared.
        stand_ins: whether images of the set stand in for its own.
    """

    samples: Sequence[GroundingSample]
    fingerprint: str
    n: int
    revision: str | None
    skipped: int
    stand_ins: bool

    @property
    def complete(self) -> bool:
        """Whether these are all samples of the set, and it lacks no faulty items."""
        return len(self.samples) == self.n and not self.skipped


def open_samples(settings: EvaluationSettings, dialect: Dialect) -> EvaluationSet:
    """Read the benchmark, and hold the settings against it.

    Raises:
        UserError: the benchmark is not prepared, has no such split or task, or does not give the
            metric; an image is missing or of another size; or boxes of the dialect cannot be read
            without sizes that are not known.
    """
    name, root = settings.benchmark, settings.root
    ensure_generated(name, root)
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
    seen = Counter[str]()
    for sample in in_split:
        if settings.tasks is None or sample.task in settings.tasks:
            seen[sample.task] += 1
            if settings.per_task is None or seen[sample.task] <= settings.per_task:
                chosen.append(sample)
    _require_metric(settings, chosen, dialect)
    _require_images(chosen, root)
    revisions = sorted({str(s.source["revision"]) for s in everything if s.source.get("revision")})
    return EvaluationSet(
        samples=chosen,
        fingerprint=fingerprint(everything),
        n=len(everything),
        revision="+".join(revisions) or None,
        skipped=n_skipped(name, root),
        stand_ins=has_stand_ins(everything),
    )


def ensure_generated(benchmark: str, root: str | None) -> None:
    """Generate univg_mini or photos where they are missing, as the evaluation tasks do.

    A univg_mini of an older generator is made anew, of as many samples and the same seed.
    """
    prepared = (benchmark_dir(benchmark, root) / MANIFEST_FILE).is_file()
    if benchmark == "univg_mini":
        from univg_eval.benchmarks.synthetic import mini

        existing = load_manifest(benchmark, root).get("generator") if prepared else {}
        if isinstance(existing, Mapping):
            names = {"n_per_task": "n", "seed": "seed"}
            mini.ensure(root, **{names[key]: existing[key] for key in names if key in existing})
    elif benchmark == "photos" and not prepared:
        from univg_eval.benchmarks.synthetic import photos

        photos.ensure(root)


def _require_metric(
    settings: EvaluationSettings, samples: Sequence[GroundingSample], dialect: Dialect
) -> None:
    """Score empty responses: which metrics there are does not depend on what is said."""
    empty = [Response("", prompt="")] * len(samples)
    metrics = aggregate(score_samples(samples, empty, dialect, protocol=settings.protocol))["macro"]
    if settings.metric not in metrics:
        raise UserError(
            f"evaluation.metric is {settings.metric!r}, which not all of these tasks have; "
            f"expected one of: {', '.join(metrics) or 'none: they have no metric in common'}"
        )


def _require_images(samples: Sequence[GroundingSample], root: str | None) -> None:
    """The files are there, of the sizes recorded: a run would meet a missing one hours later."""
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
                    f"sample {sample.id!r}: {path} is of {size} pixels, the sample says "
                    f"{sample.image_sizes[position]}; prepare {sample.benchmark!r} again"
                )
