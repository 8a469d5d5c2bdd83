"""What differs between two runs besides the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["what_differs"]


def what_differs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings, generation arguments, backend, versions and hardware that are not the same."""
    left, right = _provenance(a), _provenance(b)
    return {
        name: (left.get(name), right.get(name))
        for name in {**left, **right}
        if left.get(name) != right.get(name)
    }


def _provenance(manifest: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, setting in _mapping(manifest.get("settings")).items():
        # A setting is stored as [value, where it came from].
        found[name] = setting[0] if isinstance(setting, list) and setting else setting
    found["prompt text (SHA-256)"] = manifest.get("prompt_sha256")
    for name, value in _mapping(manifest.get("generation")).items():
        found[f"generation {name}"] = value
    found["backend"] = _mapping(manifest.get("model")).get("backend")
    for name, value in _mapping(manifest.get("versions")).items():
        found["commit of univg" if name == "commit" else f"version of {name}"] = value
    hardware = _mapping(manifest.get("hardware"))
    for name in ("cpu", "accelerators"):
        found[name] = hardware.get(name)
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
