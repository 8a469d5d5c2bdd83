"""A run record scored again from its kept responses, without a model, and what that changes.

How the model was prompted and ran (prompt, generation arguments, versions, hardware, wall time)
stays as in the older record; only reading and scoring are new. The manifest's
``rescored`` says from which record, which settings changed, and with which versions of the code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from univg_eval.dialects import Dialect, get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import get_protocol
from univg_eval.published_rules import published_results, reading_protocol
from univg_eval.runs.manifest import IDENTITY
from univg_eval.runs.record import (
    RunRecord,
    environment,
    lines_sha256,
    make_record,
    response_line,
    response_of,
)
from univg_eval.samples import GroundingSample
from univg_eval.scoring import (
    LATER_FIELDS,
    Response,
    SampleScore,
    aggregate,
    headline,
    score_samples,
)

__all__ = ["SOURCE", "Change", "Rescored", "rescore", "write_rescored"]

SOURCE = "rescore"
"""Where a changed setting comes from, in the new manifest."""
_DIALECT_DEFAULT = "default of the dialect"
_NOT_KNOWN = "not known"
_AT_ONCE = 1000
"""Responses between two calls of `progress`."""

Settings = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """A sample whose score is another one.

    Attributes:
        before, after: its score in the older and in the new record.
    """

    before: SampleScore
    after: SampleScore

    @property
    def id(self) -> str:
        """Of the sample."""
        return self.after.id

    @property
    def flip(self) -> Literal["gained", "lost"] | None:
        """Whether the sample's `univg_eval.scoring.headline` rose or fell.

        None if it is the same, or if the sample is excluded in one of the two.
        """
        before, after = headline(self.before), headline(self.after)
        if before is None or after is None or before == after:
            return None
        return "gained" if after > before else "lost"

    def to_dict(self) -> dict[str, Any]:
        """A line of changes.jsonl."""
        before, after = (
            {name: value for name, value in score.to_dict().items() if name not in IDENTITY}
            for score in (self.before, self.after)
        )
        return {
            "id": self.id,
            "task": self.after.task,
            "flip": self.flip,
            "before": before,
            "after": after,
        }


@dataclass(frozen=True, slots=True)
class Rescored:
    """A record scored again.

    Attributes:
        old: the older record.
        record: the new one, in memory; its path and label are those of the older one.
        changed_settings: setting → (value before, value after), those that differ.
        changes: the samples whose score differs, in the order of the record.
    """

    old: RunRecord
    record: RunRecord
    changed_settings: dict[str, tuple[Any, Any]]
    changes: list[Change]

    @property
    def flips(self) -> list[Change]:
        """The changes that gain or lose a sample."""
        return [change for change in self.changes if change.flip is not None]

    def summary(self) -> dict[str, Any]:
        """What changed, as plain JSON values.

        Returns:
            ``settings``: name → [before, after]; ``n``: samples; ``changed``: counts of samples
            whose score, status, box or IoU differs; ``gained`` and ``lost``, see `Change.flip`;
            ``statuses``: a list of {before, after, n}, of those that differ; ``tasks`` and
            ``macro``: the metrics of both records.
        """
        pairs = [(change.before, change.after) for change in self.changes]
        moves = Counter((b.status, a.status) for b, a in pairs if b.status != a.status)
        flips = Counter(change.flip for change in self.changes)
        old, new = (record.manifest.results for record in (self.old, self.record))
        return {
            "settings": {name: list(values) for name, values in self.changed_settings.items()},
            "n": len(self.record.scores),
            "changed": {
                "score": len(pairs),
                "status": sum(b.status != a.status for b, a in pairs),
                "box": sum(b.box != a.box for b, a in pairs),
                "iou": sum(b.iou != a.iou for b, a in pairs),
                "excluded": sum(b.excluded != a.excluded for b, a in pairs),
            },
            "gained": flips["gained"],
            "lost": flips["lost"],
            "statuses": [
                {"before": before, "after": after, "n": n}
                for (before, after), n in moves.most_common()
            ],
            "tasks": {
                task: {"before": old.tasks.get(task), "after": figures}
                for task, figures in new.tasks.items()
            },
            "macro": {"before": old.macro, "after": new.macro},
        }


def rescore(
    record: RunRecord,
    samples: Sequence[GroundingSample],
    *,
    protocol: str | None = None,
    dialect: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rescored:
    """Score the kept responses of a record again.

    The sizes of the images are those in the record. Input sizes (after the model's resize) are
    those in the record too, unless the dialect or its pixel limits change: then they follow from
    the new dialect's resize rule. Pixel limits that were given for the run or came from its
    model or backend stay when the dialect changes; those that were the older dialect's own
    default give way to the new one's.

    Args:
        record: as loaded.
        samples: the prepared samples as they were shown, at least those of the record; see
            `univg_eval.runs.record.prepared_samples`, which also checks that it is the same set.
        protocol, dialect, min_pixels, max_pixels: new settings; None leaves one as it was.
        progress: called with (responses scored, responses in all).

    Returns:
        The new record in memory, and what changed. The same settings give the same scores, bit
        for bit, unless the code has changed since.

    Raises:
        UserError: unknown protocol or dialect, impossible pixel limits, or limits for a dialect
            whose boxes depend on no resize; a sample is missing; or see
            `univg_eval.scoring.score_samples`.
    """
    old_manifest = record.manifest.to_dict()
    old_settings: Settings = old_manifest["settings"]
    settings = _new_settings(
        old_settings,
        protocol=protocol,
        dialect=dialect,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
    )
    changed = {
        name: (old_settings[name][0], settings[name][0])
        for name in settings
        if settings[name][0] != old_settings[name][0]
    }
    rule = get_protocol(settings["protocol"][0])
    if "protocol" not in changed and rule.version != record.manifest.protocol_version:
        changed["protocol_version"] = (record.manifest.protocol_version, rule.version)
    reader = _dialect(settings)
    known = {sample.id: sample for sample in samples}
    missing = [row["id"] for row in record.responses if row["id"] not in known]
    if missing:
        raise UserError(
            f"{record.path}: sample {missing[0]!r} is not in the prepared benchmark "
            f"({len(missing)} missing in all); prepare the set that was evaluated"
        )
    shown = [known[row["id"]] for row in record.responses]
    new_sizes = bool(changed.keys() & {"dialect", "min_pixels", "max_pixels"})
    read = [response_of(row) for row in record.responses]
    errors = [error for _, error in read]
    responses = [
        _with_sizes(response, sample, reader if new_sizes else None)
        for (response, _), sample in zip(read, shown, strict=True)
    ]
    scores: list[SampleScore] = []
    for start in range(0, len(shown), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        scores += score_samples(shown[part], responses[part], reader, protocol=rule)
        if progress is not None:
            progress(len(scores), len(shown))
    published, lacking = published_results(record.benchmark, rule.name, shown, responses, reader)
    anew = ("created", "published_errors")
    manifest = {key: value for key, value in old_manifest.items() if key not in anew} | {
        **lacking,
        "settings": settings,
        "protocol_version": rule.version,
        "excluded": sum(score.excluded for score in scores),
        "failed_requests": len(record.errors),
        "results": aggregate(scores) | published,
        "rescored": [
            *old_manifest.get("rescored", []),
            {
                "from": {
                    "folder": record.path.resolve().name,
                    "created": record.manifest.created,
                    "model": record.manifest.model.id,
                    "responses_sha256": lines_sha256(record.responses),
                    "scores_sha256": lines_sha256(map(SampleScore.to_dict, record.scores)),
                },
                "changed": {name: list(values) for name, values in changed.items()},
                "versions": environment()["versions"],
            },
        ],
    }
    new = make_record(
        record.path,
        manifest=manifest,
        responses=[
            response_line(record.benchmark, sample, response, error)
            for sample, response, error in zip(shown, responses, errors, strict=True)
        ],
        scores=scores,
        label=record.label,
    )
    # What an older version stored with no score at all. Of a field that some scores have, absence
    # from others would change a mean.
    not_stored: dict[str, Any] = {
        name: None
        for name in LATER_FIELDS
        if all(getattr(score, name) is None for score in record.scores)
    }
    return Rescored(
        old=record,
        record=new,
        changed_settings=changed,
        changes=[
            Change(before, after)
            for before, after in zip(record.scores, scores, strict=True)
            if before != after and (changed or before != replace(after, **not_stored))
        ],
    )


def write_rescored(path: str | Path, rescored: Rescored) -> Path:
    """Write the new record with its changes.jsonl.

    Returns:
        Its folder.

    Raises:
        UserError: see `RunRecord.write`.
    """
    return rescored.record.write(path, changes=[one.to_dict() for one in rescored.changes])


def _new_settings(
    old: Settings,
    *,
    protocol: str | None,
    dialect: str | None,
    min_pixels: int | None,
    max_pixels: int | None,
) -> dict[str, list[Any]]:
    settings = {name: list(values) for name, values in old.items()}
    if protocol is not None:
        reading_protocol(protocol)
        _set(settings, "protocol", protocol)
    if dialect is not None:
        get_dialect(dialect)
        _set(settings, "dialect", dialect)
    given = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    plain = get_dialect(settings["dialect"][0])
    if plain.pixel_limits is None and any(value is not None for value in given.values()):
        raise UserError(
            f"boxes of dialect {plain.name!r} depend on no resize, so pixel limits change nothing; "
            "leave --min-pixels and --max-pixels out"
        )
    defaults = plain.pixel_limits or (None, None)
    other_dialect = settings["dialect"][0] != old["dialect"][0]
    for (name, value), default in zip(given.items(), defaults, strict=True):
        if other_dialect and settings[name][1] == _DIALECT_DEFAULT:
            settings[name] = [None, _NOT_KNOWN]
        if value is not None:
            _set(settings, name, value)
        elif other_dialect and settings[name][0] is None and default is not None:
            settings[name] = [default, _DIALECT_DEFAULT]
    return settings


def _set(settings: dict[str, list[Any]], name: str, value: Any) -> None:
    if settings[name][0] != value:
        settings[name] = [value, SOURCE]


def _dialect(settings: Settings) -> Dialect:
    return get_dialect(
        settings["dialect"][0],
        min_pixels=settings["min_pixels"][0],
        max_pixels=settings["max_pixels"][0],
    )


def _with_sizes(
    response: Response, sample: GroundingSample, resized_by: Dialect | None
) -> Response:
    """The response with the sizes that it is to be read with.

    Those after the resize follow from `resized_by`, where it is given, else they stay.
    """
    for name in ("image_sizes", "input_sizes"):
        sizes = getattr(response, name)
        if sizes and sample.image_sizes and len(sizes) != len(sample.image_sizes):
            raise UserError(
                f"sample {sample.id!r} has {len(sizes)} {name} in the record; expected "
                f"{len(sample.image_sizes)}, one for each of its images: evaluate again"
            )
    image_sizes = response.image_sizes or sample.image_sizes
    input_sizes = response.input_sizes
    if resized_by is not None and resized_by.needs_input_size:
        # Without image sizes they cannot be known; scoring says so.
        input_sizes = [resized_by.input_size(size) for size in image_sizes] if image_sizes else None
    return replace(response, image_sizes=image_sizes, input_sizes=input_sizes or None)
