"""How per-sample values become a task's value inside lmms-eval.

Everything but ``clustered`` is a float a sample with ``aggregation: mean``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from univg_eval.scoring import SampleScore, headline, sample_metrics

__all__ = ["logged_values", "mean_of_clustered"]


def logged_values(score: SampleScore) -> dict[str, Any]:
    """What `process_results` returns for one sample: the metrics and the columns of the log.

    ``score`` is the float that lmms-eval's ``--baseline`` pairs. ``clustered`` repeats it with
    the sample's cluster, the form that lmms-eval's clustered standard error needs. An excluded
    sample counts in no metric and has neither.
    """
    metrics = sample_metrics(score)
    number = headline(score)
    values: dict[str, Any] = {}
    if number is not None:
        values["score"] = number
        values["clustered"] = {"score": number, "cluster": score.cluster}
    # lmms-eval reports as sample count the length of the last metric: one that every sample has.
    late = {name: value for name, value in metrics.items() if name.startswith(("acc", "answered"))}
    values |= {name: value for name, value in metrics.items() if name not in late} | late
    return values | {
        "id": score.id,
        "cluster": score.cluster,
        "status": score.status,
        "box": list(score.box) if score.box is not None else None,
        "iou": score.iou,
        "image_index": score.image_index,
        "n_boxes": score.n_boxes,
        "n_units": score.n_units,
        "clipped": score.clipped,
        "excluded": score.excluded,
    }


def mean_of_clustered(items: Iterable[Mapping[str, Any]]) -> float:
    """Mean of the ``score`` entries; NaN if there are none."""
    scores = [float(item["score"]) for item in items]
    return math.fsum(scores) / len(scores) if scores else math.nan
