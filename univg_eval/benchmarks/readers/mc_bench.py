"""MC-Bench: every object, in a pair of images, that a text describes.

Xu, Zhu and Yang, "MC-Bench: A Benchmark for Multi-Context Visual Grounding in the Era of MLLMs"
(ICCV 2025); XuYunqiu/MC-Bench. One JSON file, like COCO's but with a description for each pair::

    {"descriptions": [{"id": 7, "images_id": [14, 15], "text": "…", "positive_sample": true,
                       "text_style": "Reasoning"}, …],
     "images": [{"id": 14, "text_id": 7, "inter_img_id": 0, "file_name": "D3/x.jpg",
                 "height": 531, "width": 800}, …],
     "annotations": [{"id": 9, "image_id": 15, "text_id": 7, "category_id": 1,
                      "bbox": [x, y, width, height], …}, …]}

Boxes are in pixels. A description has any number of annotations, on one image or both; none means
that no object fits. `positive_sample` says so a second time, and contradicts the annotations of
seven descriptions: **the annotations decide**, as in the authors' scorer, and the audit names the
rows. ``category_id`` 1 to 7 numbers groups of objects with the same role in both images; it is kept
in ``extra["groups"]``, one a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    describe,
    find_file,
    load_json,
    pixel_box,
    require_objects,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry, ImageArchive
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    Release,
    Splits,
    StrPath,
    find_all_instruction,
    require_stated_size,
    shared_image_clusters,
)
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "PAIRS", "open_mc_bench"]

PAIRS = 2_000
"""Descriptions, each of a pair of images, as the paper counts them."""

_FILE, _IMAGES = "mc-bench_v0.2_val.json", "mc-bench_images"
_ORIGIN = "https://drive.google.com/drive/folders/1EWEiECUcJn4YD91z_n8FfHS1z5VKFi16"


def open_mc_bench(
    source: StrPath, *, images: StrPath | None = None, splits: Splits = None
) -> Release:
    """Open MC-Bench v0.2; an item and a sample is a description, by its row (from 0) in the file.

    Rows that share an image share a cluster. The white space around a text, and its full stop, are
    not in the instruction.

    Args:
        source: the folder with ``mc-bench_v0.2_val.json``, or the file itself.
        images: the folder of images; None: ``mc-bench_images`` beside the file.
        splits: there is only ``val``.

    Raises:
        UserError: the file or the folder of images is not there, the file is of another set, or an
            id is missing, doubled, or refers to nothing.
    """
    chosen_splits("mc_bench", ("val",), splits)
    file = load_json(find_file(source, _FILE, (), _ORIGIN))
    texts, *lists = require_objects(file, ("descriptions", "images", "annotations"))
    # The parts of each description: itself, its images and its annotations by their ids.
    parts: dict[int, tuple[Any, ...]] = {key: (row, {}, {}) for key, row in texts.items()}
    for place, rows in enumerate(lists, start=1):
        for key, row in rows.items():
            text = row.get("text_id")
            if type(text) is not int or text not in parts:
                raise UserError(
                    f"{file.path}: {describe(row)} has id {key} and text_id {describe(text)}; "
                    "expected the id of a description. Fetch the file again"
                )
            parts[text][place][key] = row
    folder = ImageFolder(file.path.parent / _IMAGES if images is None else images)
    clusters = shared_image_clusters(
        [[str(image.get("file_name")) for image in pair.values()] for _, pair, _ in parts.values()]
    )
    convert = partial(_samples, folder, file.path.name)
    return Release(
        benchmark="mc_bench",
        items=[
            Item(f"{row:05d}", partial(convert, row, f"mc_bench-{clusters[row]:05d}", *of_text))
            for row, of_text in enumerate(parts.values())
        ],
        links={"images": folder.folder},
        source={
            "revision": "v0.2",
            "files": [{**file.to_dict(), "split": "val", "rows": len(parts)}],
            "expressions": {"val": {"found": len(parts), "reported": PAIRS}},
            "box": "bbox as x, y, width, height in pixels",
        },
    )


def _samples(
    folder: ImageFolder,
    file: str,
    row: int,
    cluster: str,
    description: Mapping[str, Any],
    pictures: Mapping[int, Any],
    annotations: Mapping[int, Any],
) -> list[GroundingSample]:
    """The sample of a description, with the images and annotations that name it."""
    where = f"{file}: description {description['id']}"
    text = text_field(description, "text", where).strip()
    style = text_field(description, "text_style", where)
    positive, ids = description.get("positive_sample"), description.get("images_id")
    if not isinstance(positive, bool):
        raise unexpected(f"{where}: field 'positive_sample'", positive, "true or false")
    if len(pictures) != 2 or ids not in (list(pictures), list(pictures)[::-1]):
        expected = f"the ids of the two images with this text_id, which are {list(pictures)}"
        raise unexpected(f"{where}: field 'images_id'", ids, expected)
    pair = [pictures[key] for key in ids]
    released = [text_field(image, "file_name", f"{where}: image") for image in pair]
    found = [folder.find(name) for name in released]
    sizes = [folder.size(name) for name in found]
    for image, name, size in zip(pair, found, sizes, strict=True):
        require_stated_size(image, size, f"{where}: image {folder.folder / name}")
    targets = []
    for key, annotation in annotations.items():
        at = f"{where}: annotation {key}"
        image, group = annotation.get("image_id"), annotation.get("category_id")
        if image not in ids:
            raise unexpected(f"{at}: field 'image_id'", image, f"one of {ids}, the pair's images")
        if type(group) is not int or not 1 <= group <= 7:
            raise unexpected(f"{at}: field 'category_id'", group, "a group from 1 to 7")
        place = ids.index(image)
        box = pixel_box(annotation.get("bbox"), sizes[place], f"{at}: field 'bbox'", "xywh")
        targets.append(Target(place, box))
    sample = GroundingSample(
        id=f"mc_bench-{row:05d}",
        benchmark="mc_bench",
        task="mc_bench",
        split="val",
        images=tuple(f"mc_bench/images/{name}" for name in found),
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
        instruction=find_all_instruction(text.removesuffix("."), 2),
        targets=tuple(targets),
        image_is_given=False,
        find_all=True,
        cluster=cluster,
        source={"file": file, "revision": "v0.2", "row": row, "images": released},
        extra={
            "expression": text,
            "text_style": style,
            "positive_sample": positive,
            "groups": [annotation["category_id"] for annotation in annotations.values()],
            "description_id": description["id"],
            "image_ids": ids,
        },
    )
    return [sample]


ENTRIES = (
    CatalogEntry(
        name="mc_bench",
        title="MC-Bench v0.2: every object in two images that a text describes",
        opener=open_mc_bench,
        splits=("val",),
        tasks={"univg_mc_bench": "val"},
        by_hand=(ByHand(f"{_FILE} and MC-Bench_images.zip (Google Drive)", _ORIGIN),),
        image_archives=(ImageArchive("MC-Bench_images.zip", (_IMAGES,)),),
        licence="not stated",
        comparable_with_published=True,
        published="AP50 and Accuracy of the MC-Bench paper, by its authors' scorer",
    ),
)
