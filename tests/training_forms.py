"""Training files in the exact forms of the releases, with measured, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

__all__ = [
    "THINK",
    "chat",
    "draw",
    "mgrounding_row",
    "stage1_row",
    "stage2_row",
    "vlm_r1_row",
    "write_list",
]

THINK = (
    " First output the thinking process in <think> </think> tags and then output the bounding box"
    " in <answer> </answer> tags."
)


def draw(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """MeasuredImages of these sizes below a folder, each of other pixels."""
    for number, (name, size) in enumerate(sizes.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, 99)).save(path)
    return folder


def write_list(path: Path, rows: list[Any]) -> Path:
    """As the releases are written: one JSON list, indented."""
    path.write_text(json.dumps(rows, indent=4, ensure_ascii=False), encoding="utf-8")
    return path


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def mgrounding_row(**changes: Any) -> dict[str, Any]:
    """The example of Migician's README, with two images less."""
    row = {
        "id": "5229016_8929009_6793119",
        "images": [
            "./MGrounding-630k/Group_Grounding/SA-1B/sa_5229016.png",
            "./MGrounding-630k/Group_Grounding/SA-1B/sa_8929009.png",
            "./MGrounding-630k/Group_Grounding/SA-1B/sa_6793119.png",
        ],
        "conversations": chat(
            "<image>\n<image>\n<image>\nGive the bounding box of the region this sentence refers "
            "to: <|object_ref_start|>a statue of a man<|object_ref_end|>.",
            "It's in the third image. <|box_start|>(316,58),(764,999)<|box_end|>",
            "Recognize the target region that this sentence refers to: <|object_ref_start|>a woman "
            "wearing an orange shirt<|object_ref_end|>.",
            "It's in the first image. <|box_start|>(408,656),(578,997)<|box_end|>",
        ),
        "type": "gg_train",
    }
    return row | changes


MGROUNDING_SIZES = {
    "MGrounding-630k/Group_Grounding/SA-1B/sa_5229016.png": (200, 100),
    "MGrounding-630k/Group_Grounding/SA-1B/sa_8929009.png": (100, 100),
    "MGrounding-630k/Group_Grounding/SA-1B/sa_6793119.png": (100, 300),
}


def stage1_row(**changes: Any) -> dict[str, Any]:
    """A row of stage1_cotsft.json, as its LLaMA-Factory settings read it."""
    row = {
        "images": ["MGrounding-630k/a.png", "MGrounding-630k/b.png"],
        "conversations": chat(
            "<image>\n<image>\nFind the cup of the first image in the second image." + THINK,
            "<think>The first image shows a red cup. In the second image it stands left."
            "</think>\n<answer>(100,200),(300,400)</answer>",
        ),
    }
    return row | changes


def stage2_row(**changes: Any) -> dict[str, Any]:
    """A row of stage2_rl.json."""
    row = {
        "images": ["MGrounding-630k/a.png", "MGrounding-630k/b.png"],
        "question": "<image>\n<image>\nFind the cup of the first image in the second image.",
        "answer": [100, 200, 300, 400],
    }
    return row | changes


def vlm_r1_row(**changes: Any) -> dict[str, Any]:
    """A line of VLM-R1's refcoco_train.jsonl."""
    row = {
        "id": 1,
        "image": "train2014/COCO_train2014_000000581857.png",
        "conversations": [
            {
                "from": "human",
                "value": "<image>Please provide the bounding box coordinate of the region this "
                "sentence describes: the lady with the blue shirt.",
            },
            {"from": "gpt", "value": [64, 48, 320, 240]},
        ],
    }
    return row | changes
