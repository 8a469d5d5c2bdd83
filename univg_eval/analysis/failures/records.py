"""The misses of a run record in their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from univg_eval.analysis.failures.analysis import RunFailures, analyse
from univg_eval.analysis.failures.kinds import Failure
from univg_eval.benchmarks.synthetic.known_objects import KnownObject, known_objects
from univg_eval.dialects import get_dialect
from univg_eval.images.controls import NO_CONTROL
from univg_eval.runs.record import RunRecord, prepared_samples, require_fingerprint
from univg_eval.samples import GroundingSample, fingerprint
from univg_eval.scoring import Response

__all__ = ["classify_run"]


def classify_run(
    record: RunRecord,
    samples: Sequence[GroundingSample] | None = None,
    *,
    threshold: float = 0.5,
) -> RunFailures:
    """`analyse` for a run record.

    Args:
        record: as loaded.
        samples: all questions of its prepared benchmark; None: loaded from the data root.
        threshold: IoU that a hit needs.

    Raises:
        UserError: the benchmark is not prepared, or is another one than the record's; see
            `analyse`.
    """
    dataset = record.manifest["dataset"]
    if samples is None:
        samples = prepared_samples(record)
    else:
        require_fingerprint(
            dataset["prepared_benchmark"], fingerprint(samples), dataset["fingerprint"]
        )
    settings = {name: entry[0] for name, entry in record.manifest["settings"].items()}
    dialect = None
    if settings.get("dialect") is not None:
        dialect = get_dialect(
            settings["dialect"],
            min_pixels=settings.get("min_pixels"),
            max_pixels=settings.get("max_pixels"),
        )
    responses = {
        row["id"]: Response(row["response"], row["image_sizes"], row["input_sizes"], row["prompt"])
        for row in record.responses
    }
    # Under the other controls other images were shown than those that the objects are known on.
    objects: dict[str, tuple[KnownObject, ...]] = {}
    if settings.get("control", NO_CONTROL) in (NO_CONTROL, "cut"):
        objects = known_objects(samples, responses.keys())
    by_id = {sample.id: sample for sample in samples}
    if settings.get("media") == "video":
        objects = {name: _on_asked_frame(by_id[name], known) for name, known in objects.items()}
        by_id = {name: _asked_frame(by_id[name], response) for name, response in responses.items()}
    found = analyse(
        by_id,
        record.sample_scores(),
        responses,
        dialect,
        str(settings.get("protocol", "univg")),
        threshold=threshold,
        objects=objects,
    )
    return replace(found, failures=_with_errors(found.failures, record))


def _with_errors(failures: Mapping[str, Failure], record: RunRecord) -> dict[str, Failure]:
    """The failures, with a hint where the request failed and the model was never heard."""
    errors = {row["id"]: row["error"] for row in record.responses if row.get("error")}
    return {
        name: replace(failure, hints=(f"The request failed: {errors[name]}", *failure.hints))
        if name in errors
        else failure
        for name, failure in failures.items()
    }


def _frame_of(sample: GroundingSample) -> int | None:
    """The 0-based frame that a question about a video asks for; None if it is no single one."""
    frames = {target.image for target in sample.targets}
    return None if len(frames) > 1 or len(sample.images) == 1 else next(iter(frames), 0)


def _on_asked_frame(
    sample: GroundingSample, objects: Sequence[KnownObject]
) -> tuple[KnownObject, ...]:
    """The objects of the asked frame, which is then the only image."""
    frame = _frame_of(sample)
    if frame is None:
        return tuple(objects)
    return tuple(replace(obj, image=0) for obj in objects if obj.image == frame)


def _asked_frame(sample: GroundingSample, response: Response) -> GroundingSample:
    """A question about a video as its responses were read: the asked frame is its only image."""
    frame = _frame_of(sample)
    if frame is None:
        return sample
    sizes = response.image_sizes or ()
    return replace(
        sample,
        images=(sample.images[frame],),
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
        targets=tuple(replace(target, image=0) for target in sample.targets),
    )
