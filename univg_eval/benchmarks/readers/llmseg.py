"""LLM-Seg40K: one image, one question that takes reasoning, one box.

Wang and Ke, "LLM-Seg: Bridging Image Segmentation and Large Language Model Reasoning" (CVPR
Workshops 2024). Two benchmarks:

``llmseg`` is made from the boxes that the UniVG-R1 authors extracted and score
(GD-ML/UniVG-R1-data, ``zero_shot_evaluation/LLMSeg_eval.json``), and comparable with their table.
A row::

    {"image_path": "…", "question": "…", "bbox": [[x1, y1, x2, y2]]}

Boxes are in pixels. The lists of ``bbox`` are joined and the first four numbers taken, like in
AMAP-ML/UniVG-R1, ``eval/zero_shot/llmseg_evaluation/eval.py``, and divided by the size of the image
as displayed; upstream takes the size as stored, which differs for an image that carries an EXIF
orientation that lays it on its side.

``llmseg_full`` is made from the release itself (wangjunchi/LLMSeg): one JSON file a split, ::

    {"000000000139.jpg": {"from_dataset": "coco",
                          "qa_pairs": [{"question": "…", "answer": "…", "rle_seg": {…}}, …]}, …}

with ``from_dataset`` coco or ego_objects and masks as COCO run lengths. The images are those of
COCO train2017 and of EgoObjects, each set in a folder of its own. A mask's box is the target.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    checked_text,
    chosen_splits,
    default_images,
    describe,
    find_file,
    listing,
    load_json,
    pixel_box,
    require_rows,
    text_field,
)
from univg_eval.benchmarks.readers.common.entry import ByHand
from univg_eval.benchmarks.readers.common.masks import read_rle, require_image_size
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    ItemError,
    Release,
    size_of,
)
from univg_eval.benchmarks.readers.common.still import still_sample
from univg_eval.benchmarks.readers.common.zero_shot import extracted_entry, full_entry
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "SPLIT", "open_llmseg", "open_llmseg_full"]

SPLIT = "test"
EXTRACTED_FILE = "LLMSeg_eval.json"
_EXTRACTED_ORIGIN = "GD-ML/UniVG-R1-data, folder zero_shot_evaluation"
_FIELDS = ("image_path", "question", "bbox")

IMAGE_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "coco": ("coco/train2017", "train2017", "coco"),
    "ego_objects": ("ego_objects/images", "ego_objects"),
}
"""``from_dataset`` → where its images are looked for below the folder of images, in this order."""


def open_llmseg(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Release:
    """Open UniVG-R1's extracted boxes as benchmark ``llmseg``.

    Args:
        source: LLMSeg_eval.json, or a folder that holds it, directly or below
            zero_shot_evaluation/.
        images: the folder that the file's image paths are relative to; None: ``images`` beside
            the file, else its own folder. See `release.ImageFolder`.
        splits: ``["test"]`` or None; there is no other.

    Returns:
        One item a row. The file is held in memory.

    Raises:
        UserError: the file is not there or not that of this set; the image folder does not exist.
    """
    chosen_splits("llmseg", (SPLIT,), splits)
    path = find_file(source, EXTRACTED_FILE, ["zero_shot_evaluation"], _EXTRACTED_ORIGIN)
    file = load_json(path)
    rows = require_rows(file, _FIELDS)
    folder = default_images(images, path.parent, unique_names=True)
    return Release(
        benchmark="llmseg",
        items=[
            Item(key=f"{number:05d}", convert=partial(_extracted_row, row, number, file, folder))
            for number, row in enumerate(rows)
        ],
        n_items=len(rows),
        links={"images": folder.folder},
        source={
            "revision": "univg-r1-extracted",
            "files": [{**file.to_dict(), "split": SPLIT, "rows": len(rows)}],
            "box": "first four numbers of bbox in pixels, divided by the image's size as displayed",
        },
    )


def _extracted_row(
    row: Any, number: int, file: AnnotationFile, folder: ImageFolder
) -> list[GroundingSample]:
    where = f"{file.path.name} row {number}"
    released = text_field(row, "image_path", where)
    question = text_field(row, "question", where)
    lists = row.get("bbox")
    if not isinstance(lists, list) or not all(isinstance(inner, list) for inner in lists):
        raise ItemError(
            "invalid_row",
            f"{where}: field 'bbox' is {describe(lists)}; expected a list of lists of numbers",
        )
    numbers = [value for inner in lists for value in inner]
    found = folder.find(released)
    image_wh = size_of(folder.folder / found)
    return [
        still_sample(
            benchmark="llmseg",
            key=f"{number:05d}",
            split=SPLIT,
            image=f"images/{found}",
            image_wh=image_wh,
            expression=question,
            target=Target(0, pixel_box(numbers[:4], image_wh, f"{where}: field 'bbox'")),
            source={
                "file": file.path.name,
                "revision": "univg-r1-extracted",
                "row": number,
                "images": [released],
            },
            extra={"n_boxes": len(numbers) // 4} if len(numbers) >= 8 else {},
        )
    ]


def open_llmseg_full(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    coco: str | os.PathLike[str] | None = None,
    ego_objects: str | os.PathLike[str] | None = None,
) -> Release:
    """Open a split of LLM-Seg40K as benchmark ``llmseg_full``.

    Args:
        source: the split's JSON file, or a folder that holds it: test.json, or its only JSON file.
            Its samples belong to the split ``test`` of the benchmark, the one that is scored; the
            file's name stands in each sample's `source`.
        images: the folder below which both sets of images lie, as coco/train2017, train2017 or
            coco, and as ego_objects/images or ego_objects; None: ``images`` beside the file, else
            its own folder.
        splits: ``["test"]`` or None.
        coco: the folder of COCO's train2017 images, where it lies elsewhere.
        ego_objects: the folder of EgoObjects' images, where it lies elsewhere.

    Returns:
        One item a question, numbered through the file. The file is held in memory with its masks
        as text: about three times its size while it is read, twice afterwards. Masks are decoded
        one item at a time.

    Raises:
        UserError: the file is not there or not that of this set, or an image folder that the file
            needs does not exist.
    """
    chosen_splits("llmseg_full", (SPLIT,), splits)
    path = Path(source).expanduser()
    if path.is_dir():
        path = _split_file(path)
    file = load_json(path)
    entries = _entries(file)
    datasets = {str(entry.get("from_dataset")) for entry in entries.values() if _has_pairs(entry)}
    folders = _image_folders(
        [name for name in IMAGE_FOLDERS if name in datasets],
        path,
        default_images(images, path.parent).folder,
        {"coco": coco, "ego_objects": ego_objects},
    )
    reader = _PairReader(file, folders)
    items: list[Item] = []
    row = 0
    for name, entry in entries.items():
        if not _has_pairs(entry):
            # Not the bare name, which may look like the number of a question.
            key = f"image {describe(name)}"
            items.append(Item(key=key, convert=partial(_refuse_entry, entry, name, file)))
            continue
        for pair in entry["qa_pairs"]:
            convert = partial(reader.convert, pair, name, entry.get("from_dataset"), row)
            items.append(Item(key=f"{row:05d}", convert=convert))
            row += 1
    return Release(
        benchmark="llmseg_full",
        items=items,
        n_items=len(items),
        links={dataset: folder.folder for dataset, folder in folders.items()},
        source={
            "revision": "official",
            "files": [{**file.to_dict(), "split": SPLIT, "images": len(entries), "rows": row}],
            "box": "of the mask rle_seg",
        },
    )


def _split_file(folder: Path) -> Path:
    """The JSON file in a folder: ``test.json``, or the only one."""
    files = sorted(folder.glob("*.json"))
    if len(files) == 1:
        return files[0]
    if folder / "test.json" in files:
        return folder / "test.json"
    received = f"{len(files)} JSON files ({', '.join(path.name for path in files)})"
    raise UserError(
        f"{folder} holds {received if files else 'no JSON file'}; expected LLM-Seg40K's test.json, "
        "or give the file of the split itself"
    )


def _entries(file: AnnotationFile) -> dict[str, Any]:
    """Image name → what the file says of it; refuses files of another set."""
    expected = (
        'expected a JSON object {image name: {"from_dataset": …, "qa_pairs": [{"question": …, '
        '"answer": …, "rle_seg": …}]}}'
    )
    entries = file.value
    if not isinstance(entries, dict) or not entries:
        raise UserError(f"{file.path}: holds {describe(entries)}; {expected}")
    if not any(_has_pairs(entry) for entry in entries.values()):
        name, entry = next(iter(entries.items()))
        raise UserError(
            f"{file.path}: {expected}; {name!r} is {describe(entry)}. Is it the file of another "
            "set?"
        )
    return entries


def _has_pairs(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and "from_dataset" in entry
        and isinstance(entry.get("qa_pairs"), list)
    )


def _refuse_entry(entry: Any, name: str, file: AnnotationFile) -> list[GroundingSample]:
    raise ItemError(
        "invalid_row",
        f"{file.path.name}: image {name!r} is {describe(entry)}; expected from_dataset and a list "
        "qa_pairs",
    )


def _image_folders(
    datasets: Sequence[str],
    file: Path,
    base: Path,
    given: Mapping[str, str | os.PathLike[str] | None],
) -> dict[str, ImageFolder]:
    """The folders of the images that the file needs."""
    folders = {}
    for dataset in datasets:
        folder = given[dataset]
        option = f"--{dataset.replace('_', '-')}"
        if folder is None:
            candidates = [base / name for name in IMAGE_FOLDERS[dataset]]
            folder = next((path for path in candidates if path.is_dir()), None)
            if folder is None:
                raise UserError(
                    f"{file.name} asks for images of {dataset}, but none of "
                    f"{', '.join(IMAGE_FOLDERS[dataset])} is a folder in {base}, which has: "
                    f"{listing(base)}. Put the images there, or say with {option} where they are"
                )
        folders[dataset] = ImageFolder(folder, unique_names=True, option=option)
    return folders


class _PairReader:
    """Makes the sample of one question."""

    def __init__(self, file: AnnotationFile, folders: Mapping[str, ImageFolder]) -> None:
        self._file_name = file.path.name
        self._folders = folders
        # An image has several questions, one after the other.
        self._size_of = lru_cache(maxsize=16)(size_of)

    def convert(self, pair: Any, name: str, dataset: Any, row: int) -> list[GroundingSample]:
        where = f"{self._file_name}: question {row}, on {name!r}"
        if not isinstance(dataset, str) or dataset not in self._folders:
            raise ItemError(
                "invalid_row",
                f"{where}: from_dataset is {describe(dataset)}; expected "
                f"{' or '.join(IMAGE_FOLDERS)}",
            )
        checked_text(name, f"{where}: the image's name")
        question = text_field(pair, "question", where)
        mask = read_rle(pair.get("rle_seg"), f"{where}: rle_seg")
        folder = self._folders[dataset]
        found = folder.find(name)
        image = folder.folder / found
        image_wh = self._size_of(image)
        require_image_size(mask, image_wh, image, where)
        box = mask.box()
        if box is None:
            raise ItemError(
                "no_visible_object", f"{where}: the mask has no pixel; expected the answer's object"
            )
        return [
            still_sample(
                benchmark="llmseg_full",
                key=f"{row:05d}",
                split=SPLIT,
                image=f"{dataset}/{found}",
                image_wh=image_wh,
                expression=question,
                target=Target(0, box, mask.to_json()),
                source={
                    "file": self._file_name,
                    "revision": "official",
                    "row": row,
                    "images": [name],
                },
                extra={"from_dataset": dataset, "parts": mask.n_parts()},
            )
        ]


_IMAGES = (
    ByHand("COCO train2017 images (18 GB)", "https://cocodataset.org/#download"),
    ByHand("EgoObjects images (40 GB)", "https://github.com/facebookresearch/EgoObjects"),
)
_IMAGE_LICENCES = "COCO: https://cocodataset.org/#termsofuse; EgoObjects: MIT"

ENTRIES = (
    extracted_entry(
        name="llmseg",
        title="LLM-Seg40K, the boxes that UniVG-R1 scores",
        opener=open_llmseg,
        tasks={"univg_llmseg": None},
        files=("LLMSeg_eval.json",),
        images=_IMAGES,
        licence=_IMAGE_LICENCES,
    ),
    full_entry(
        name="llmseg_full",
        title="a split of LLM-Seg40K itself: masks, all questions",
        opener=open_llmseg_full,
        options=("coco", "ego_objects"),
        tasks={"univg_llmseg_full": None},
        by_hand=(
            ByHand(
                "LLM-Seg40K (Google Drive folder named in the README of wangjunchi/LLMSeg)",
                "https://drive.google.com/drive/folders/19MyzJN9hkvTSUr2lUFlMwmS2TSRRKmUX",
            ),
            *_IMAGES,
        ),
        licence=f"LLM-Seg40K: not stated; {_IMAGE_LICENCES}",
    ),
)
