"""One resize for rollouts, training and the reading of boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from PIL import Image
from transformers import AutoImageProcessor

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.models.resizing import require_same_resize
from univg_train.runs.resizing import as_seen, input_size_rule


class Processor:
    """The part of a processor that resizes."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.image_processor = AutoImageProcessor.from_pretrained(folder, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen2VLImageProcessor

    path = tmp_path_factory.mktemp("processor")
    Qwen2VLImageProcessor(min_pixels=3136, max_pixels=12_845_056).save_pretrained(path)
    return path


def grid(images: Any, image: Image.Image) -> tuple[int, int]:
    _, height, width = (int(n) for n in images(images=[image])["image_grid_thw"][0])
    return width * 14, height * 14


def test_a_checkpoint_left_to_itself_sees_what_the_run_sees(folder: Path) -> None:
    import datasets

    run = Processor(folder, min_pixels=3136, max_pixels=40_000)
    own = Processor(folder)
    sizes = [(640, 480), (50, 40), (1001, 333), (30, 200)]
    images = [Image.new("RGB", size) for size in sizes]

    def fetch(batch: Any) -> dict[str, list[Any]]:
        return {"n": batch["row"], "images": [[images[0], images[1]] for _ in batch["row"]]}

    rows = datasets.Dataset.from_dict({"row": [0, 1]}).with_transform(fetch)
    seen = as_seen(rows, input_size_rule(run, own, sizes, "m"))[:]
    assert seen["n"] == [0, 1]
    for shown in seen["images"]:
        for before, after in zip(images, shown, strict=False):
            assert after.size == grid(run.image_processor, before)
            assert grid(own.image_processor, after) == after.size
            assert grid(run.image_processor, after) == after.size
    assert grid(own.image_processor, images[0]) != seen["images"][0][0].size


@pytest.mark.parametrize(
    ("limits", "match"),
    [
        ({"min_pixels": 784, "max_pixels": 40_000}, "vLLM resizes by the limits"),
        ({"min_pixels": 3136, "max_pixels": 20_000_000}, "3136 and 12845056; stay within them"),
        ({"min_pixels": 12_544, "max_pixels": 12_544}, "choose limits that lie further apart"),
    ],
)
def test_limits_that_vllm_would_not_leave_alone(
    limits: dict[str, int], match: str, folder: Path
) -> None:
    with pytest.raises(UserError, match=match):
        input_size_rule(Processor(folder, **limits), Processor(folder), [(300, 100)], "m")


def test_a_resize_that_is_not_known(folder: Path) -> None:
    from transformers import CLIPImageProcessor

    other = Processor(folder)
    other.image_processor = CLIPImageProcessor()
    with pytest.raises(UserError, match="the resize of m is not known here"):
        input_size_rule(other, other, [], "m")
    with pytest.raises(UserError, match="the processor of m does not report its size"):
        require_same_resize(other, get_dialect("qwen2_5_vl"), "m")


def test_boxes_in_pixels_need_the_dialects_resize(folder: Path) -> None:
    run = Processor(folder, min_pixels=3136, max_pixels=40_000)
    same = get_dialect("qwen2_5_vl", min_pixels=3136, max_pixels=40_000)
    require_same_resize(run, same, "m")
    require_same_resize(Processor(folder, patch_size=16), get_dialect("univg_r1"), "m")
    for other in (Processor(folder), Processor(folder, patch_size=16, max_pixels=40_000)):
        with pytest.raises(UserError, match="take the model's own dialect"):
            require_same_resize(other, same, "m")
