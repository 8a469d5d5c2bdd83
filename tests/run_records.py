"""Run records that tests build on: their lines, and whole ones from responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from univg_eval.answers import Status
from univg_eval.dialects import get_dialect
from univg_eval.runs.record import (
    RunRecord,
    environment,
    make_record,
    response_line,
    unknown_environment,
)
from univg_eval.samples import GroundingSample, fingerprint
from univg_eval.scoring import Response, SampleScore, aggregate, score_samples

__all__ = ["MANIFEST", "RESPONSES", "SCORES", "manifest", "record_of", "response", "score"]


def response(sample_id: str, text: str | None, **changes: Any) -> dict[str, Any]:
    return {
        "id": sample_id,
        "benchmark": "own",
        "task": "t",
        "response": text,
        "image_sizes": [[64, 48]],
        "input_sizes": None,
        "prompt": "Where is it?",
    } | changes


def score(sample_id: str, status: Status, iou: float | None, **changes: Any) -> SampleScore:
    fields: dict[str, Any] = {
        "id": sample_id,
        "task": "t",
        "cluster": "c",
        "status": status,
        "box": (0.1, 0.2, 0.3, 0.4) if status == "ok" else None,
        "iou": iou,
        "center": False,
        "image_index": None,
        "image_right": None,
        "no_target_right": None,
        "f1": None,
        "ap50": None,
        "n_boxes": 1,
        "n_units": 1,
        "clipped": False,
        "excluded": False,
    }
    return SampleScore(**fields | changes)


RESPONSES = [response("a", "<think>\n\n</think> “x”"), response("b", "")]
SCORES = [score("a", "ok", 0.5), score("b", "no_box", 0.0)]
MANIFEST: dict[str, Any] = {
    "model": {"id": "org/m", "backend": "b", "args": "pretrained=org/m", "config_sha256": None},
    "settings": {
        "dialect": ["norm1000", "environment variable UNIVG_DIALECT"],
        "prompt": ["direct", "default of the dialect"],
        "protocol": ["univg", "default"],
        "min_pixels": [None, "not known"],
        "max_pixels": [602112, "max_pixels of model_args"],
        "control": ["none", "default"],
        "media": ["images", "default"],
    },
    "prompt_sha256": "0" * 64,
    "generation": {"max_new_tokens": 512},
    "dataset": {
        "benchmark": "own",
        "prepared_benchmark": "own",
        "control": "none",
        "media": "images",
        "fingerprint": "f" * 64,
        "n": 2,
        "left_out": 0,
        "skipped": 0,
        "revision": None,
    },
    "n": 2,
    "complete": True,
    "excluded": 0,
    "results": {
        "tasks": {"t": {"n": 2, "excluded": 0, "acc@0.5": 0.5, "miou": 0.25}},
        "macro": {"acc@0.5": 0.5, "miou": 0.25},
    },
    "wall_time_s": 1.5,
    **environment(),
}


def manifest(**changes: Any) -> dict[str, Any]:
    return deepcopy(MANIFEST) | changes


def record_of(
    samples: Sequence[GroundingSample],
    texts: Mapping[str, str | None],
    *,
    dialect: str = "norm1000",
    protocol: str = "univg",
    label: str = "run",
    path: str | Path = "run",
    everything: Sequence[GroundingSample] | None = None,
    **settings: Any,
) -> RunRecord:
    """The record of a run that answered `texts`, by id, to the samples as it was shown them.

    Args:
        samples: as shown; those without a text were not prompted.
        everything: the prepared set, where that is another one.
        settings: control and media, where they are not the default.
    """
    whole = samples if everything is None else everything
    prompted = [sample for sample in samples if sample.id in texts]
    responses = [Response(texts[s.id], image_sizes=s.image_sizes, prompt="?") for s in prompted]
    scores = score_samples(prompted, responses, get_dialect(dialect), protocol=protocol)
    control, media = settings.get("control", "none"), settings.get("media", "images")
    return make_record(
        path,
        label=label,
        manifest={
            "model": {"id": f"org/{label}", "backend": "b", "args": None, "config_sha256": None},
            "settings": {
                "dialect": [dialect, "given"],
                "prompt": ["direct", "default of the dialect"],
                "protocol": [protocol, "given"],
                "min_pixels": [None, "not known"],
                "max_pixels": [None, "not known"],
                "control": [control, "given"],
                "media": [media, "given"],
            },
            "prompt_sha256": "0" * 64,
            "generation": {},
            "dataset": {
                "benchmark": whole[0].benchmark,
                "prepared_benchmark": whole[0].benchmark,
                "control": control,
                "media": media,
                "fingerprint": fingerprint(whole),
                "n": len(whole),
                "left_out": 0,
                "skipped": 0,
                "revision": None,
            },
            "n": len(prompted),
            "complete": len(prompted) == len(samples),
            "excluded": sum(score.excluded for score in scores),
            "results": aggregate(scores),
            "wall_time_s": None,
            **unknown_environment(),
        },
        responses=[
            response_line(whole[0].benchmark, sample, response)
            for sample, response in zip(prompted, responses, strict=True)
        ],
        scores=scores,
    )
