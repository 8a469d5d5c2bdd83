"""MIG-Bench in the exact form of its release, small, with the truth beside it.

Rows carry the fields, words and paths of the released file; images are painted so that the true
box is a rectangle of its own colour, and lie below MIG-Bench/images/ as the archive unpacks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from univg_eval.benchmarks.preparing.stand_ins import draw_images

FOLDERS = {"common_object": "common", "diff": "static_diff"}
# What the release calls the images of a row.
ENDINGS = {
    "diff": ("_source", "_target"),
    "refer_grounding": ("_ref", "_raw"),
    "region": ("", "_1", "_2"),
}
ONE_LIST = ("common_object", "multi_view", "object_tracking")
MARKED = "<|box_start|>(139,305),(495,743)<|box_end|>"
IN_IMAGE = "Recognize and locate this object in the {}th image. "
DIFFER = "Compare these two images carefully and give me the coordinates of their "
GROUP = (
    "Please find the bounding box coordinates for the area described by: "
    "<|object_ref_start|>a truck<|object_ref_end|>."
)
# The question of each task; {} is the number of the target image.
QUESTIONS = {
    "common_object": f"These images share one object in common. {IN_IMAGE}",
    "correspondence": "You are now presented with two objects. For the area marked by the red "
    "bounding box in the first image, identify and locate the corresponding area in the second "
    "image that serves a similar function or shares a similar meaning. ",
    "diff": f"{DIFFER}difference. ",
    "group_grounding": GROUP,
    "multi_view": "These images share one object in common(the object marked with red bounding "
    f"box in the first image({MARKED}). {IN_IMAGE}",
    "region": "You are given a source image followed by its several regions. Please locate the "
    "1th region picture in the source image. ",
    "view_diff": f"{DIFFER}real difference in the second image.  Find it and locate it in the "
    "second image. ",
    "refer_grounding": "Find and locate where does the object in image-1 locate in the image-2.",
    "object_tracking": "These are a sequence of images containing moving objects. For the object "
    f"in the first image marked with red bounding box({MARKED}), please locate it in the {{}}th "
    "image. ",
    "reasoning": "At their time, what might the people in image-1 need for sailing? Find it in "
    "Image-2. Find it and locate it in the second image. ",
}
SURVIVAL = "At their time, what might the people in image-1 need for survival? Find it in Image-2."
# The rows, in order: task, number of images, 0-based target image, additional_info.
ROWS = [
    *(("common_object", 3, target, "") for target in range(3)),
    ("correspondence", 2, 1, ""),
    ("diff", 2, 1, ""),
    ("group_grounding", 4, 0, "It is in the first image. {} "),
    ("group_grounding", 5, 3, "It is in the fourth image. {} "),
    *(("multi_view", 3, target, "") for target in (1, 2)),
    ("region", 3, 0, ""),
    ("view_diff", 2, 1, ""),
    ("refer_grounding", 2, 1, ""),
    *(("object_tracking", 3, target, "") for target in (1, 2)),
    ("reasoning", 2, 1, SURVIVAL),
]


@dataclass(frozen=True)
class TrueRow:
    """What a converter must find out about one row; `box` is on [0, 1] of the target image."""

    id: str
    task: str
    target_image: int
    box: tuple[float, float, float, float]
    sizes: tuple[tuple[int, int], ...]


def write_mig_bench(
    folder: Path, *, benchmark: str = "mig_bench", file_name: str = "MIG_data.json", scale: int = 1
) -> list[TrueRow]:
    """An annotation file and MIG-Bench/images/ beside it."""
    rows: list[dict[str, Any]] = []
    truth: list[TrueRow] = []
    first: dict[str, int] = {}
    for number, (task, n, target, info) in enumerate(ROWS):
        # The rows of one list of images ask for the object in each of them.
        case = first.setdefault(task, number) if task in ONE_LIST else number
        names = [
            f"./MIG-Bench/images/{FOLDERS.get(task, task)}/case{case:03d}{ending}.png"
            for ending in ENDINGS.get(task, [f"_{i}" for i in range(n)])
        ]
        box = (0.2 + 0.01 * number, 0.25, 0.7, 0.5 + 0.02 * number)
        sizes = []
        for i, name in enumerate(names):
            # Both images of a pair that differs in one object have the same size.
            wh = (200, 150) if task == "diff" else (200 + 7 * i, 151 + 3 * case)
            sizes.append(wh)
            if i == target or not (folder / name).exists():
                paint(folder / name, wh, box if i == target else None)
        answer = [round(value * scale) if scale > 1 else value for value in box]
        rows.append(
            {
                "task": task,
                "images": names,
                "question": QUESTIONS[task].format(target + 1),
                "answer": answer,
                "additional_info": info.format(mark(box)),
                "need_format": task != "group_grounding",
            }
        )
        true_box = tuple(value / scale for value in answer)
        truth.append(TrueRow(f"{benchmark}-{number:05d}", task, target, true_box, tuple(sizes)))
    (folder / file_name).write_text(json.dumps(rows), encoding="utf-8")
    return truth


def mark(box: tuple[float, float, float, float]) -> str:
    """A box as the release writes it into text."""
    x1, y1, x2, y2 = (round(1000 * value) for value in box)
    return f"<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>."


def paint(
    path: Path, wh: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> None:
    """A grey image, with the box in red."""
    width, height = wh
    image = Image.new("RGB", wh, (140, 140, 140))
    if box is not None:
        x1, y1, x2, y2 = box
        corners = (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
        image.paste((200, 30, 30), corners)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_real_rows(folder: Path, file: Path, per_task: int) -> list[dict[str, Any]]:
    """The first valid rows of each task of the real file, with stand-ins at their images' paths."""
    rows: list[dict[str, Any]] = []
    counts = dict.fromkeys(QUESTIONS, 0)
    for row in json.loads(file.read_text(encoding="utf-8")):
        x1, y1, x2, y2 = row["answer"]
        sound = 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1
        if counts[row["task"]] < per_task and sound:
            counts[row["task"]] += 1
            rows.append(row)
    draw_images(sorted({name for row in rows for name in row["images"]}), folder)
    (folder / "MIG_data.json").write_text(json.dumps(rows), encoding="utf-8")
    return rows
