"""The sizes by which boxes are read are those of the images that reach the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmms_data
import numpy as np
import pytest
from PIL import Image
from small_checkpoints import make_checkpoint

from univg_eval.dialects import smart_resize_wh

pytest.importorskip("lmms_eval")
torch = pytest.importorskip("torch")

PIXELS = (100_352, 401_408)
SIZES = [(1920, 1080), (640, 480), (31, 45), (700, 40), (1000, 1000), (333, 517)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image a sample; the second half of the sizes is random."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(5)
    sizes = SIZES + [tuple(int(v) for v in rng.integers(30, 2200, 2)) for _ in range(24)]
    rows = []
    for number, (width, height) in enumerate(sizes):
        name = f"custom/{number}.png"
        (root / "custom").mkdir(exist_ok=True)
        Image.new("RGB", (width, height), (number, 90, 120)).save(root / name)
        rows.append(
            lmms_data.make_sample(
                "custom",
                "custom",
                number,
                images=(name,),
                widths=(width,),
                heights=(height,),
                targets=(lmms_data.Target(0, (0.1, 0.2, 0.5, 0.9)),),
                instruction="Where is the cup?",
                cluster=str(number),
            )
        )
    lmms_data.put(root, rows)
    return root


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(family, tmp_path_factory.mktemp("m") / family)


@pytest.mark.parametrize("kind", ["chat", "simple", "univg"])
def test_the_recorded_size_is_the_real_one(
    kind: str, family: str, checkpoint: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval.models import get_model

    lmms_data.set_environment(monkeypatch, data)
    low, high = PIXELS
    args = f"pretrained={checkpoint},device=cpu,min_pixels={low},max_pixels={high}"
    name = "univg" if kind == "univg" else family
    if kind != "univg":
        args += ",device_map=cpu"
    lm = get_model(name, force_simple=kind == "simple").create_from_arg_string(
        args, {"batch_size": 1}
    )
    grids: list[list[int]] = []
    model = lm.generator.model if kind == "univg" else lm.model

    def generate(input_ids: Any, **inputs: Any) -> Any:
        grids.extend(inputs["image_grid_thw"].tolist())
        return torch.cat([input_ids, torch.full((len(input_ids), 1), 65)], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    cli_args = lmms_data.arguments(name, args, force_simple=kind == "simple")
    rows = lmms_data.evaluate(lm, cli_args, ["univg_custom"])["samples"]["univg_custom"]
    assert len(rows) == len(grids) == 30
    patch = model.config.vision_config.patch_size
    real = sorted((width * patch, height * patch) for _, height, width in grids)
    limits = [rows[0]["univg_settings"][f"{end}_pixels"][0] for end in ("min", "max")]
    if family == "qwen2_5_vl":
        assert limits == list(PIXELS)
        assert real == sorted(tuple(row["input_sizes"][0]) for row in rows)
    else:  # boxes are on 0-1000: the record has limits, and no sizes
        recorded = (
            smart_resize_wh(size, factor=32, min_pixels=limits[0], max_pixels=limits[1])
            for size in image_sizes(data)
        )
        assert real == sorted(recorded)
        assert (limits == list(PIXELS)) == (kind != "chat")


def image_sizes(data: Path) -> Iterator[tuple[int, int]]:
    for file in (data / "custom").glob("[0-9]*.png"):
        with Image.open(file) as image:
            yield image.size
