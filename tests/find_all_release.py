"""What the tests of readers of find-all releases share: pictures, faults, and a perfect answer."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from univg_eval.audit import audit_samples
from univg_eval.benchmarks.readers.common.release import ItemError, Release
from univg_eval.dialects import get_dialect
from univg_eval.samples import GroundingSample
from univg_eval.scoring import Response, aggregate, score_samples


def draw(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """Grey pictures by their path below the folder."""
    for name, wh in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", wh, "grey").save(folder / name)
    return folder


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """A JSON Lines file; a text stands as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def converted(release: Release) -> list[GroundingSample]:
    return [sample for item in release.items for sample in item.convert()]


def only_fault(release: Release, key: str, kind: str, message: str) -> None:
    """Just the item of this key is faulty, of this kind, for this reason."""
    faults = {}
    for item in release.items:
        try:
            item.convert()
        except ItemError as error:
            faults[item.key] = error
    assert list(faults) == [key]
    assert faults[key].kind == kind
    with pytest.raises(ItemError, match=message):
        raise faults[key]


def pixel_boxes(sample: GroundingSample) -> list[tuple[float, ...]]:
    """The targets in pixels, to six decimals."""
    w, h = sample.widths[0], sample.heights[0]
    return [
        tuple(round(v * side, 6) for v, side in zip(t.box, (w, h, w, h), strict=True))
        for t in sample.targets
    ]


def require_whole(samples: list[GroundingSample], dialect: str = "pixels") -> None:
    """Each is well-formed, nothing is found by the audit, and the truth itself scores 1."""
    for sample in samples:
        assert GroundingSample.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample
        assert (sample.find_all, sample.image_is_given) == (True, True)
        assert sample.kind == ("several" if sample.targets else "none")
        expression = sample.extra["expression"]
        assert sample.instruction.startswith(
            f"Find every object in the image that this refers to: {expression}. "
        )
        assert sample.instruction.endswith("If there is no such object, answer: none.")
    assert [finding.kind for finding in audit_samples(samples).findings] == []
    form = get_dialect(dialect)
    responses = [
        Response(
            form.encode_several([t.box for t in sample.targets], image_wh=sample.image_sizes[0])
            if sample.targets
            else "none",
            image_sizes=sample.image_sizes,
            input_sizes=sample.image_sizes,
        )
        for sample in samples
    ]
    scores = score_samples(samples, responses, form)
    for sample, score in zip(samples, scores, strict=True):
        right = score.f1 if sample.targets else float(score.status == "none")
        assert (score.status in ("ok", "none"), right) == (True, 1.0), sample.id
    for metrics in aggregate(scores)["tasks"].values():
        found = {name: metrics[name] for name in ("f1@0.5", "no_target_acc") if name in metrics}
        assert found and set(found.values()) == {1.0}
