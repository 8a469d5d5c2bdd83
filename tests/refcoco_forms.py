"""RefCOCO's public forms, written from one small truth by code that shares nothing with readers."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = {581857: (427, 640), 380440: (64, 48), 77: (120, 90)}


@dataclass(frozen=True)
class Object:
    """One referred object: COCO's box is a corner, a width and a height in pixels."""

    photograph: int
    number: int
    box: tuple[float, float, float, float]
    expressions: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"COCO_train2014_{self.photograph:012d}.jpg"

    @property
    def corners(self) -> list[float]:
        x, y, w, h = self.box
        return [x, y, x + w, y + h]

    @property
    def norm(self) -> tuple[float, ...]:
        width, height = SIZES[self.photograph]
        x1, y1, x2, y2 = self.corners
        return x1 / width, y1 / height, x2 / width, y2 / height


LADY = ("the lady with the blue shirt", "lady in back")
OBJECTS = {
    "val": [
        Object(581857, 1719310, (103.93, 299.99, 134.22, 177.42), LADY),
        Object(380440, 491042, (4.5, 6.25, 20.0, 30.5), ("middle vase",)),
        Object(581857, 1719311, (0.0, 10.0, 427.0, 630.0), ("all of it", "everything")),
        Object(77, 9, (1.0, 2.0, 3.0, 4.0), ("tiny",)),
    ],
    "testA": [Object(77, 5, (10.0, 20.0, 30.0, 40.0), ("man", "guy", "him"))],
    "testB": [Object(77, 6, (60.5, 0.0, 59.5, 90.0), ("the car",))],
}


def photographs(folder: Path) -> Path:
    """COCO's train2014 with the few photographs."""
    train = folder / "train2014"
    train.mkdir(parents=True)
    for number in SIZES:
        (train / f"COCO_train2014_{number:012d}.jpg").write_bytes(encoded(number))
    return train


def encoded(number: int) -> bytes:
    from PIL import Image

    data = io.BytesIO()
    shade = number % 251
    Image.new("RGB", SIZES[number], (shade, 255 - shade, 90)).save(data, "JPEG")
    return data.getvalue()


def of_object(o: Object) -> str:
    """The name that two of the forms give the image of an object."""
    return o.name.replace(".jpg", f"_{o.number}.jpg")


def lmms_lab_table(objects: list[Object]) -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "question_id": [str(o.number) for o in objects],
            "image": pa.array(
                [{"bytes": encoded(o.photograph), "path": None} for o in objects],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "question": ["Please carefully observe the area circled."] * len(objects),
            "answer": pa.array([list(o.expressions) for o in objects], pa.list_(pa.string())),
            "segmentation": pa.array([[1.0, 2.0]] * len(objects), pa.list_(pa.float32())),
            "bbox": pa.array([list(o.box) for o in objects], pa.list_(pa.float32())),
            "iscrowd": pa.array([0] * len(objects), pa.int8()),
            "file_name": [of_object(o) for o in objects],
        }
    )


def write_lmms_lab(folder: Path, objects=OBJECTS) -> Path:
    """One row an object, images inside, boxes as corner and size; val in two parts."""
    from pyarrow import parquet

    data = folder / "data"
    data.mkdir(parents=True)
    for split, rows in objects.items():
        parts = [rows[:3], rows[3:]] if split == "val" else [rows]
        for k, part in enumerate(parts):
            path = data / f"{split}-{k:05d}-of-{len(parts):05d}.parquet"
            parquet.write_table(lmms_lab_table(part), path, row_group_size=2)
    return folder


def jxu124_table(objects: list[Object], split: str) -> Any:
    import pyarrow as pa

    sentences = [
        [
            {"raw": text.upper(), "sent": text, "sent_id": k, "tokens": text.split()}
            for k, text in enumerate(o.expressions)
        ]
        for o in objects
    ]
    return pa.table(
        {
            "sent_ids": [list(range(len(o.expressions))) for o in objects],
            "file_name": [of_object(o) for o in objects],
            "ann_id": [o.number for o in objects],
            "ref_id": [o.number % 1000 for o in objects],
            "image_id": [o.photograph for o in objects],
            "split": [split] * len(objects),
            "sentences": sentences,
            "category_id": [1] * len(objects),
            "raw_anns": [json.dumps({"bbox": list(o.box), "id": o.number}) for o in objects],
            "raw_image_info": [
                json.dumps({"file_name": o.name, **size_fields(o)}) for o in objects
            ],
            "raw_sentences": [json.dumps(s) for s in sentences],
            "image_path": [f"coco/train2014/{o.name}" for o in objects],
            "bbox": pa.array([o.corners for o in objects], pa.list_(pa.float64())),
            "captions": [list(o.expressions) for o in objects],
            "global_image_id": [f"coco.{o.photograph}" for o in objects],
            "anns_id": [f"coco.{o.number}" for o in objects],
        }
    )


def write_jxu124(folder: Path, objects=OBJECTS, names: dict[str, str] | None = None) -> Path:
    from pyarrow import parquet

    names = names or {"val": "validation", "testA": "test", "testB": "testB"}
    data = folder / "data"
    data.mkdir(parents=True)
    for split, rows in objects.items():
        path = data / f"{names[split]}-00000-of-00001-0123456789abcdef.parquet"
        parquet.write_table(jxu124_table(rows, split), path)
    (data / "train-00000-of-00001-0123456789abcdef.parquet").write_bytes(b"never read")
    return folder


def each(objects: list[Object]):
    return [(o, text) for o in objects for text in o.expressions]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def size_fields(o: Object) -> dict[str, int]:
    return {"height": SIZES[o.photograph][1], "width": SIZES[o.photograph][0]}


def shikra_row(o: Object, text: str, dataset: str = "refcoco") -> dict[str, Any]:
    fields = {"img_path": o.name, "expression": text, "bbox": o.corners, "dataset_name": dataset}
    return fields | size_fields(o)


def write_shikra(folder: Path, objects=OBJECTS, dataset: str = "refcoco") -> Path:
    for split, rows in objects.items():
        lines = [shikra_row(o, text, dataset) for o, text in each(rows)]
        write_lines(folder / f"REC_{dataset}_unc_{split}.jsonl", lines)
    return folder


def write_qwen_vl(folder: Path, objects=OBJECTS) -> Path:
    for split, rows in objects.items():
        lines = [
            {"image": f"data/coco/train2014/{o.name}", "sent": text, "bbox": o.corners}
            | size_fields(o)
            for o, text in each(rows)
        ]
        write_lines(folder / "refcoco" / f"refcoco_{split}.jsonl", lines)
    return folder


def vlm_r1_row(o: Object, text: str) -> dict[str, Any]:
    width, height = SIZES[o.photograph]
    x1, y1, x2, y2 = o.corners
    return {
        **size_fields(o),
        "dataset_name": "refcoco",
        "bbox_list": [[x1, y1, x2 - 1, y2 - 1]],
        "image": f"train2014/{o.name}",
        "problem": "Please provide the bounding box coordinate of the region this sentence "
        f"describes: {text}.",
        "normal_caption": text,
        "solution": o.corners,
        "normalized_solution": [
            *(int(x1 / width * 1000), int(y1 / height * 1000)),
            *(int(x2 / width * 1000), int(y2 / height * 1000)),
        ],
    }


def write_vlm_r1(folder: Path, objects=OBJECTS) -> Path:
    folder.mkdir(parents=True)
    for split, rows in objects.items():
        path = folder / f"refcoco_{split}.json"
        path.write_text(json.dumps([vlm_r1_row(o, t) for o, t in each(rows)], indent=2))
    return folder


WRITERS = {
    "lmms_lab": write_lmms_lab,
    "jxu124": write_jxu124,
    "shikra": write_shikra,
    "qwen_vl": write_qwen_vl,
    "vlm_r1": write_vlm_r1,
}
