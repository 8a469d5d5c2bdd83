"""Run records in memory, from responses, that tests build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from univg_eval.dialects import get_dialect
from univg_eval.runs.record import RunRecord, make_record, response_line, unknown_environment
from univg_eval.samples import GroundingSample, fingerprint
from univg_eval.scoring import Response, aggregate, score_samples

__all__ = ["record_of"]


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
        samples: as shown; those without a text were not asked.
        everything: the prepared set, where that is another one.
        settings: control and media, where they are not the default.
    """
    whole = samples if everything is None else everything
    asked = [sample for sample in samples if sample.id in texts]
    responses = [Response(texts[s.id], image_sizes=s.image_sizes, prompt="?") for s in asked]
    scores = score_samples(asked, responses, get_dialect(dialect), protocol=protocol)
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
            "n": len(asked),
            "complete": len(asked) == len(samples),
            "excluded": sum(score.excluded for score in scores),
            "results": aggregate(scores),
            "wall_time_s": None,
            **unknown_environment(),
        },
        responses=[
            response_line(whole[0].benchmark, sample, response)
            for sample, response in zip(asked, responses, strict=True)
        ],
        scores=[asdict(score) for score in scores],
    )
