"""Backends that lmms-eval finds through the entry point group ``lmms_eval.models``."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest

from univg_eval.lmms.settings import BASELINE_MODEL, REFERENCE_MODEL, REPLAY_MODEL

__all__ = ["manifests"]

_ROOM = "univg_eval.lmms.backends"


def manifests() -> list[ModelManifest]:
    """The manifests of ``univg``, ``univg_baseline`` and ``univg_replay``."""
    return [
        ModelManifest(
            model_id=REFERENCE_MODEL, simple_class_path=f"{_ROOM}.reference.ReferenceModel"
        ),
        ModelManifest(model_id=BASELINE_MODEL, simple_class_path=f"{_ROOM}.baseline.BaselineModel"),
        ModelManifest(model_id=REPLAY_MODEL, simple_class_path=f"{_ROOM}.replay.ReplayModel"),
    ]
