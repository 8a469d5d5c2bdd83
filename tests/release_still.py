"""ReasonSeg (LISA) and LLM-Seg40K in the exact forms of their releases, small, with the truth.

Nothing of the converters makes the files or the truth. Masks are painted with numpy from
rectangles whose edges are written down, run lengths are counted in Python, and the boxes of
slanted polygons are the extents of their corners, worked out by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from univg_eval.benchmarks.readers.common.release import ItemError

PixelBox = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class TrueSample:
    """What a converter must find out about one sample.

    Attributes:
        id: of the sample.
        expression: what to find.
        files: the images below the benchmark's own folder, POSIX form.
        released: the images as the release names them.
        image_wh: size of every image as displayed.
        box: pixels x1, y1, x2, y2 in the only or third image; the far edges lie after the last
            pixel. None if the target is absent.
        parts: number of 8-connected parts of the target's mask; None where no mask is released.
        extra: what else must stand in the sample's `extra`.
    """

    id: str
    expression: str
    files: tuple[str, ...]
    released: tuple[str, ...]
    image_wh: tuple[int, int]
    box: PixelBox | None
    parts: int | None = None
    split: str = "test"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def box_norm(self) -> tuple[float, float, float, float] | None:
        """The box on [0, 1]."""
        if self.box is None:
            return None
        (w, h), (x1, y1, x2, y2) = self.image_wh, self.box
        return x1 / w, y1 / h, x2 / w, y2 / h


def converted(release: Any) -> list[Any]:
    """All samples; fails if an item is faulty."""
    return [sample for item in release.items for sample in item.convert()]


def faults(release: Any) -> dict[str, str]:
    """Item's key → kind of its fault."""
    found = {}
    for item in release.items:
        try:
            item.convert()
        except ItemError as error:
            found[item.key] = error.kind
    return found


def item_named(release: Any, key: str) -> Any:
    """The item of a key."""
    return next(item for item in release.items if item.key == key)


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the value in a JSON file."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_json(path: Path, value: Any, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(json.dumps(value, ensure_ascii=False).encode(encoding))


def check_samples(samples: Any, truth: Sequence[TrueSample], benchmark: str) -> None:
    """The samples are, one by one, what the truth says."""
    assert [sample.id for sample in samples] == [true.id for true in truth]
    for sample, true in zip(samples, truth, strict=True):
        folder, is_video = PurePosixPath(true.files[0]).parent, len(true.files) > 1
        task = f"{benchmark}_{true.split}" if benchmark.startswith("lisa") else benchmark
        assert (sample.benchmark, sample.task, sample.split) == (benchmark, task, true.split)
        assert sample.images == tuple(f"{benchmark}/{file}" for file in true.files)
        assert sample.image_sizes == [true.image_wh] * len(true.files)
        assert sample.image_is_given
        assert sample.source["images"] == list(true.released)
        assert sample.cluster == (folder.name if is_video else true.files[0])
        assert sample.instruction == (
            "This is a sequence of images from a video. Please understand the entire video "
            "content, and then output the bounding box in the third image according to the "
            if is_video
            else "Output the bounding box in the image corresponding to the "
        ) + (f"instruction: {true.expression}.")
        if true.box is None:
            assert sample.targets == ()
        else:
            assert sample.target_image == (2 if is_video else 0)
            assert sample.box == pytest.approx(true.box_norm, abs=1e-12), sample.id
        expected = {"expression": true.expression, "parts": true.parts, **true.extra}
        if is_video:
            expected["video"] = f"{benchmark}/{folder}"
        assert {name: sample.extra.get(name) for name in expected} == expected


def write_image(
    path: Path, image_wh: tuple[int, int], box: PixelBox, *, orientation: int = 1
) -> None:
    """Noise with a red box; `image_wh` and `box` are those of the upright image.

    Args:
        orientation: the EXIF orientation to store it with, 1 (as it is) or 6 (on its side).
    """
    w, h = image_wh
    pixels = np.random.default_rng(w * 1000 + h).integers(90, 130, (h, w, 3), dtype=np.uint8)
    x1, y1, x2, y2 = (round(v) for v in box)
    pixels[y1:y2, x1:x2] = (230, 40, 40)
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation == 6:
        # Shown after a quarter turn clockwise, so stored turned the other way.
        pixels = np.rot90(pixels)
        exif[0x0112] = 6
    Image.fromarray(pixels).save(path, quality=95, exif=exif)


def rectangle_points(x1: float, y1: float, x2: float, y2: float) -> list[Point]:
    """Corners whose polygon covers the columns x1 … x2 and the rows y1 … y2, both included."""
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


@dataclass(frozen=True)
class Annotation:
    """One ReasonSeg image with its annotation file and the truth about it.

    Attributes:
        shapes: (label, points) in the order of the file.
        box: of the visible target, in pixels; worked out by hand from the shapes.
    """

    split: str
    stem: str
    image_wh: tuple[int, int]
    texts: tuple[str, ...]
    shapes: Sequence[tuple[str, list[Point]]]
    box: PixelBox
    is_sentence: bool = False
    parts: int = 1
    encoding: str = "utf-8"
    orientation: int = 1


LISA_IMAGES: tuple[Annotation, ...] = (
    Annotation(
        split="val",
        stem="0001",
        image_wh=(101, 75),
        texts=(
            "Where would a letter be put so that the postman finds it?",
            "the thing that swallows letters – “yellow” one",
        ),
        is_sentence=True,
        shapes=[("target", rectangle_points(20, 10, 59, 44))],
        box=(20, 10, 60, 45),
    ),
    Annotation(
        # A triangle whose decimals are cut off: corners (4, 7), (50, 12), (30, 40).
        split="val",
        stem="bus-stop_03",
        image_wh=(64, 48),
        texts=("the café’s sign that says “closed”",),
        shapes=[
            ("Flag", rectangle_points(0, 0, 63, 47)),
            ("target", [(4.9, 7.99), (50.2, 12.5), (30.7, 40.999)]),
        ],
        box=(4, 7, 51, 41),
        encoding="cp1252",
    ),
    Annotation(
        # Two parts, and a hole in one of them; the outer corners lie outside the image.
        split="val",
        stem="street 7",
        image_wh=(120, 80),
        texts=("something that keeps the rain off",),
        shapes=[
            ("IGNORE_reflection", rectangle_points(80, 20, 90, 30)),
            ("target", rectangle_points(70.5, 10.0, 120.0, 60.7)),
            ("target_2", rectangle_points(-3.5, 40, 30, 79)),
        ],
        box=(0, 10, 120, 80),
        parts=2,
    ),
    Annotation(
        # The smaller shape is painted last and takes away the target's right part.
        split="test",
        stem="0001",
        image_wh=(55, 97),
        texts=("Which part of the lamp may still be seen?",),
        is_sentence=True,
        shapes=[
            ("target", rectangle_points(10, 20, 44, 69)),
            ("ignore", rectangle_points(30, 15, 54, 75)),
        ],
        box=(10, 20, 30, 70),
    ),
    Annotation(
        # The ignored shape is the larger one, so the target is painted over it.
        split="test",
        stem="0002",
        image_wh=(80, 60),
        texts=("the coin in the fountain", "What would a diver bring up?"),
        shapes=[
            ("target", rectangle_points(33, 22, 41, 30)),
            ("ignore", rectangle_points(5, 5, 74, 54)),
        ],
        box=(33, 22, 42, 31),
    ),
    Annotation(
        # Stored lying on its side; the points are those of the upright photo.
        split="test",
        stem="turned",
        image_wh=(90, 40),
        texts=("the longer of the two planks",),
        shapes=[("target", rectangle_points(12, 30, 87, 36))],
        box=(12, 30, 88, 37),
        orientation=6,
    ),
)


def write_lisa_full(folder: Path) -> list[TrueSample]:
    """ReasonSeg as unpacked: val/, test/, train/ and explanatory/ with images beside JSON files.

    The training files are no JSON: nothing may read them.
    """
    truth = []
    for image in LISA_IMAGES:
        write_image(
            folder / image.split / f"{image.stem}.jpg",
            image.image_wh,
            image.box,
            orientation=image.orientation,
        )
        write_annotation(folder, image)
        for k, text in enumerate(image.texts):
            truth.append(
                TrueSample(
                    id=f"lisa_full-{image.split}-{image.stem}-{k}",
                    split=image.split,
                    expression=text,
                    files=(f"images/{image.split}/{image.stem}.jpg",),
                    released=(f"{image.split}/{image.stem}.jpg",),
                    image_wh=image.image_wh,
                    box=image.box,
                    parts=image.parts,
                    extra={"is_sentence": image.is_sentence},
                )
            )
    (folder / "train").mkdir(parents=True, exist_ok=True)
    (folder / "train" / "0001.json").write_text("not to be read")
    write_image(folder / "train" / "0001.jpg", (20, 20), (1, 1, 2, 2))
    write_json(folder / "explanatory" / "train.json", [])
    return truth


def write_annotation(folder: Path, image: Annotation) -> None:
    """The JSON file of one ReasonSeg image, in labelme's manner."""
    w, h = image.image_wh
    name = f"{image.stem}.jpg"
    common = {"shape_type": "polygon", "image_name": name, "group_id": None, "flags": {}}
    value = {
        "text": list(image.texts),
        "is_sentence": image.is_sentence,
        "shapes": [
            {"label": label, "labels": [label], "points": [list(p) for p in points], **common}
            for label, points in image.shapes
        ],
        "imagePath": name,
        "imageHeight": h,
        "imageWidth": w,
    }
    write_json(folder / image.split / f"{image.stem}.json", value, encoding=image.encoding)


def write_lisa_extracted(folder: Path) -> list[TrueSample]:
    """UniVG-R1's lisa_val.json and lisa_test.json, beside the folder images/.

    The paths in the files are those of the authors' machine. A row may list several boxes: its
    scorer takes the first.
    """
    truth = []
    for split in ("val", "test"):
        rows: list[dict[str, Any]] = []
        for image in (image for image in LISA_IMAGES if image.split == split):
            write_image(
                folder / "images" / split / f"{image.stem}.jpg",
                image.image_wh,
                image.box,
                orientation=image.orientation,
            )
            released = f"/mnt/of/others/lisa/ReasonSeg/{split}/{image.stem}.jpg"
            boxes: list[list[float]] = [list(image.box)]
            if image.parts > 1:
                boxes = [[70.5, 10, 120, 61.25], [0, 40, 31, 80]]
            x1, y1, x2, y2 = boxes[0]
            truth.append(
                TrueSample(
                    id=f"lisa-{split}-{len(rows):05d}",
                    split=split,
                    expression=image.texts[0],
                    files=(f"images/{split}/{image.stem}.jpg",),
                    released=(released,),
                    image_wh=image.image_wh,
                    box=(x1, y1, x2, y2),
                    extra={"n_boxes": len(boxes)} if len(boxes) > 1 else {},
                )
            )
            rows.append({"image_path": released, "instruction": image.texts[0], "boxes": boxes})
        write_json(folder / f"lisa_{split}.json", rows)
    return truth


@dataclass(frozen=True)
class Photo:
    """One LLM-Seg40K image: (question, answer, rectangles of the mask) of each of its pairs.

    A rectangle is x1, y1, x2, y2 with the far edges after the last pixel. `boxes` and `parts` are
    worked out by hand.
    """

    name: str
    dataset: str
    image_wh: tuple[int, int]
    pairs: Sequence[tuple[str, str, Sequence[tuple[int, int, int, int]]]]
    boxes: Sequence[PixelBox]
    parts: Sequence[int]


LLMSEG_IMAGES: tuple[Photo, ...] = (
    Photo(
        "000000000139.jpg",
        "coco",
        (96, 64),
        [
            ("What could warm the room?", "The stove <SEG>.", [(10, 20, 30, 60)]),
            ("Where do guests sit?", "On the chairs.", [(40, 30, 50, 50), (60, 31, 75, 64)]),
        ],
        [(10, 20, 30, 60), (40, 30, 75, 64)],
        [1, 2],
    ),
    Photo(
        # The first pixel is set; the parts touch at a corner, which makes them one.
        "000000000285.jpg",
        "coco",
        (33, 47),
        [("What has “fur”?", "The bear – of course.", [(0, 0, 12, 9), (12, 9, 33, 30)])],
        [(0, 0, 33, 30)],
        [1],
    ),
    Photo(
        "0A1B2C3D.jpg",
        "ego_objects",
        (70, 121),
        [
            ("Which object boils water?", "The kettle.", [(5, 100, 6, 101)]),
            ("What holds the tea?", "The mug.", [(30, 40, 70, 121)]),
        ],
        [(5, 100, 6, 101), (30, 40, 70, 121)],
        [1, 1],
    ),
)


def mask_of(image_wh: tuple[int, int], rectangles: Sequence[tuple[int, int, int, int]]) -> Any:
    """Boolean array (height, width) with the rectangles' pixels set."""
    mask = np.zeros(image_wh[::-1], dtype=bool)
    for x1, y1, x2, y2 in rectangles:
        mask[y1:y2, x1:x2] = True
    return mask


def run_lengths(mask: Any) -> list[int]:
    """COCO's uncompressed counts: runs down the columns, background first."""
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def coco_text(runs: Sequence[int]) -> str:
    """COCO's compressed counts, written anew after the description in its maskApi.c."""
    text = ""
    for i, run in enumerate(runs):
        left = run - runs[i - 2] if i > 2 else run
        while True:
            bits = left & 31
            left >>= 5
            more = left != (-1 if bits & 16 else 0)
            text += chr(48 + bits + (32 if more else 0))
            if not more:
                break
    return text


def coco_rle(mask: Any) -> dict[str, Any]:
    """``{"size": [h, w], "counts": text}``."""
    return {"size": list(mask.shape), "counts": coco_text(run_lengths(mask))}


def write_llmseg_full(folder: Path) -> list[TrueSample]:
    """LLM-Seg40K: test.json, and the images of its two sources below images/.

    They lie as the authors' code has them: images/coco/train2017 and images/ego_objects/images.
    One mask is written as a list of run lengths, the others as text.
    """
    folders = {"coco": "coco/train2017", "ego_objects": "ego_objects/images"}
    value: dict[str, Any] = {}
    truth: list[TrueSample] = []
    for photo in LLMSEG_IMAGES:
        path = folder / "images" / folders[photo.dataset] / photo.name
        write_image(path, photo.image_wh, photo.boxes[0])
        pairs: list[dict[str, Any]] = []
        for (question, answer, rectangles), box, parts in zip(
            photo.pairs, photo.boxes, photo.parts, strict=True
        ):
            mask = mask_of(photo.image_wh, rectangles)
            rle = coco_rle(mask)
            if len(truth) == 2:
                rle["counts"] = run_lengths(mask)
            pairs.append({"question": question, "answer": answer, "rle_seg": rle})
            truth.append(
                TrueSample(
                    id=f"llmseg_full-{len(truth):05d}",
                    expression=question,
                    files=(f"{photo.dataset}/{photo.name}",),
                    released=(photo.name,),
                    image_wh=photo.image_wh,
                    box=box,
                    parts=parts,
                    extra={"from_dataset": photo.dataset},
                )
            )
        value[photo.name] = {"from_dataset": photo.dataset, "qa_pairs": pairs}
    write_json(folder / "test.json", value)
    return truth


def write_llmseg_extracted(folder: Path) -> list[TrueSample]:
    """UniVG-R1's LLMSeg_eval.json; boxes are lists within a list, paths relative to images/."""
    rows: list[dict[str, Any]] = []
    truth = []
    for photo in LLMSEG_IMAGES:
        released = f"{photo.dataset}/{photo.name}"
        write_image(folder / "images" / released, photo.image_wh, photo.boxes[0])
        for (question, _, _), box in zip(photo.pairs, photo.boxes, strict=True):
            boxes = [list(box)]
            if len(rows) == 1:
                boxes.append([1, 1, 5, 5])
            truth.append(
                TrueSample(
                    id=f"llmseg-{len(rows):05d}",
                    expression=question,
                    files=(f"images/{released}",),
                    released=(released,),
                    image_wh=photo.image_wh,
                    box=box,
                    extra={"n_boxes": 2} if len(boxes) > 1 else {},
                )
            )
            rows.append({"image_path": released, "question": question, "bbox": boxes})
    write_json(folder / "LLMSeg_eval.json", rows)
    return truth
