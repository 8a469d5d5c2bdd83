"""The releases of the second suite, made small in their released forms."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["RELEASES"]

WH = (64, 48)
BOX, XYWH = [10, 5, 30, 40], [10, 5, 20, 35]
COCO = "COCO_train2014_000000000009.jpg"


def _jpeg(shade: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", WH, (shade, 0, 99)).save(data, "JPEG")
    return data.getvalue()


def _write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def _write_lines(path: Path, rows: list[Any]) -> None:
    _write(path, "".join(json.dumps(row) + "\n" for row in rows))


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def _rle() -> dict[str, Any]:
    """The mask of `BOX`, in COCO's compressed run lengths."""
    from pycocotools import mask

    pixels = np.zeros(WH[::-1], np.uint8, order="F")
    pixels[5:40, 10:30] = 1
    found = mask.encode(pixels)
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def _mc_bench(folder: Path) -> None:
    sides = {"width": WH[0], "height": WH[1]}
    value: dict[str, list[Any]] = {"descriptions": [], "images": [], "annotations": []}
    for text, style in enumerate(("Comparison", "Reasoning", "Referring")):
        pair = [2 * text, 2 * text + 1]
        value["descriptions"].append(
            {"id": text, "images_id": pair, "text": "Cups of the same kind.",
             "positive_sample": text < 2, "text_style": style}
        )  # fmt: skip
        for place, number in enumerate(pair):
            name = f"D3/{number}.jpg"
            _write(folder / "mc-bench_images" / name, _jpeg(number))
            value["images"].append(
                {"id": number, "text_id": text, "inter_img_id": place, "file_name": name, **sides}
            )
            if place <= 1 - text:
                value["annotations"].append(
                    {"id": number, "image_id": number, "text_id": text, "category_id": 1,
                     "area": 700, "bbox": XYWH, "iscrowd": 0}
                )  # fmt: skip
    value["categories"] = [{"id": group, "name": "a"} for group in range(1, 8)]
    _write(folder / "mc-bench_v0.2_val.json", json.dumps(value))


def _groundingme(folder: Path) -> None:
    rows = [
        {"id": number, "description": "The red cup.", "bbox": None if l1 == "Rejection" else BOX,
         "image": {"bytes": _jpeg(number), "path": "a.jpg"}, "detection_type": "cup",
         "subtask_l1": l1, "subtask_l2": "Text", "width": WH[0], "height": WH[1]}
        for number, l1 in enumerate(("Spatial", "Discriminative", "Limited", "Rejection"))
    ]  # fmt: skip
    for part in range(2):
        name = f"test-{part:05d}-of-00002.parquet"
        _write_parquet(folder / "data" / name, rows[2 * part : 2 * part + 2])


def _ref_l4(folder: Path) -> None:
    _write(folder / "images" / COCO, _jpeg(0))
    for split in ("val", "test"):
        rows = [
            {"id": number, "caption": "A long red bench.", "bbox": [float(v) for v in XYWH],
             "bbox_area": 700.0, "bbox_id": "o365_1", "ori_category_id": "o365_64",
             "image_id": "o365_9", "height": WH[1], "width": WH[0], "file_name": COCO,
             "is_rewrite": False, "split": split}
            for number in range(3)
        ]  # fmt: skip
        _write_parquet(folder / f"ref-l4-{split}.parquet", rows)


def _refcoco_m(folder: Path) -> None:
    entry = {
        "id": 7, "image_id": 9, "category": "person", "supercategory": "person",
        "label": "left man", "sentences": ["left man", "man in red"],
        "bbox": [float(v) for v in XYWH], "mask": _rle(),
    }  # fmt: skip
    rows = [
        {"image": {"bytes": _jpeg(number), "path": None}, "image_id": 9, "file_name": COCO,
         "samples": [entry] * (number + 1)}
        for number in range(2)
    ]  # fmt: skip
    _write_parquet(folder / "data/validation-00000-of-00001.parquet", rows)


def _grefcoco(folder: Path) -> None:
    _write(folder / "images" / COCO, _jpeg(0))
    rows = [
        {"ref_id": number, "image_id": 9, "split": split, "file_name": COCO, "ann_id": objects,
         "category_id": [47], "no_target": objects == [-1],
         "sentences": [{"sent": "both cups", "sent_id": 1, "tokens": ["both", "cups"]}]}
        for number, (split, objects) in enumerate(
            [("val", [7, 4]), ("val", [-1]), ("testA", [4]), ("testB", 7)]
        )
    ]  # fmt: skip
    annotations = [
        {"id": number, "image_id": 9, "bbox": XYWH, "category_id": 47, "iscrowd": 0}
        for number in (4, 7)
    ]
    images = [{"id": 9, "file_name": COCO, "width": WH[0], "height": WH[1]}]
    coco = {"images": images, "annotations": annotations, "categories": []}
    _write(folder / "grefs(unc).json", json.dumps(rows))
    _write(folder / "instances.json", json.dumps(coco))


def _humanref(folder: Path) -> None:
    _write(folder / "images/a.jpg", _jpeg(0))
    rows = [
        {"id": number, "image_name": "a.jpg", "referring": "whoever it is", "domain": domain,
         "sub_domain": "a", "candidate_boxes": [BOX, BOX], "answer_boxes": [BOX] * n,
         "answer_segmentations": [_rle()] * n}
        for number, (domain, n) in enumerate(
            [("attribute", 2), ("rejection", 0), ("celebrity", 1)]
        )
    ]  # fmt: skip
    _write_lines(folder / "annotations.jsonl", rows)


def _rex_omni(folder: Path) -> None:
    _write(folder / "visdrone/a.jpg", _jpeg(0))
    for name in ("VisDrone", "HumanRef"):
        rows = [
            {"image_path": "visdrone/a.jpg", "gt": gt, "categories": ["car", "bus"],
             "dataset_name": name, "task_name": "common_object_detection"}
            for gt in ({"car": [BOX, BOX], "bus": [BOX]}, {"car": []}, {})
        ]  # fmt: skip
        _write_lines(folder / "_annotations/box_eval" / f"{name}.jsonl", rows)


RELEASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "mc_bench": (_mc_bench, ("*.json",)),
    "groundingme": (_groundingme, ("data/*",)),
    "ref_l4": (_ref_l4, ("*.parquet",)),
    "refcoco_m": (_refcoco_m, ("data/*",)),
    "grefcoco": (_grefcoco, ("*.json",)),
    "humanref": (_humanref, ("*.jsonl",)),
    "rex_omni": (_rex_omni, ("_annotations/box_eval/*",)),
}
"""Set → what writes its release into a folder, and the files that are changed."""
