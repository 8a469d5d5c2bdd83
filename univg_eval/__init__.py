"""UniVG: evaluation of universal visual grounding.

The public names load on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from univg_eval.answers import Answer
    from univg_eval.boxes import box_iou
    from univg_eval.dialects import Dialect, dialect_for_model, get_dialect, list_dialects
    from univg_eval.errors import UserError
    from univg_eval.points import PointAnswer, first_point_hit, parse_points, point_accuracy
    from univg_eval.protocols import parse_answer
    from univg_eval.runs.record import load_run
    from univg_eval.samples import GroundingSample, fingerprint, load_samples
    from univg_eval.scoring import SampleScore, aggregate, score_sample

__all__ = [
    "Answer",
    "Dialect",
    "GroundingSample",
    "PointAnswer",
    "SampleScore",
    "UserError",
    "aggregate",
    "box_iou",
    "dialect_for_model",
    "fingerprint",
    "first_point_hit",
    "get_dialect",
    "list_dialects",
    "load_run",
    "load_samples",
    "parse_answer",
    "parse_points",
    "point_accuracy",
    "score_sample",
]

_HOME = {
    "Answer": "answers",
    "Dialect": "dialects",
    "GroundingSample": "samples",
    "PointAnswer": "points",
    "SampleScore": "scoring",
    "UserError": "errors",
    "aggregate": "scoring",
    "box_iou": "boxes",
    "dialect_for_model": "dialects",
    "fingerprint": "samples",
    "first_point_hit": "points",
    "get_dialect": "dialects",
    "list_dialects": "dialects",
    "load_run": "runs.record",
    "load_samples": "samples",
    "parse_answer": "protocols",
    "parse_points": "points",
    "point_accuracy": "points",
    "score_sample": "scoring",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'univg_eval' has no attribute {name!r}")
    return getattr(import_module(f"univg_eval.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
