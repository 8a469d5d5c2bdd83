"""LLM-Seg40K: one image, one question that takes reasoning, one box.

Wang and Ke, "LLM-Seg: Bridging Image Segmentation and Large Language Model Reasoning" (CVPR
Workshops 2024).

``llmseg`` has UniVG-R1's boxes (LLMSeg_eval.json; see `zero_shot`). A row::

    {"image_path": "…", "question": "…", "bbox": [[x1, y1, x2, y2]]}

Boxes are in pixels. The lists of ``bbox`` are joined and the first four numbers taken, as in
AMAP-ML/UniVG-R1, ``eval/zero_shot/llmseg_evaluation/eval.py``.

``llmseg_full`` is made from the release itself (wangjunchi/LLMSeg): one JSON file a split, ::

    {"000000000139.jpg": {"from_dataset": "coco",
                          "qa_pairs": [{"question": "…", "answer": "…", "rle_seg": {…}}, …]}, …}

with ``from_dataset`` coco or ego_objects and masks as COCO run lengths. The images are those of
COCO train2017 and of EgoObjects, each set in a folder of its own. A mask's box is the target.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    checked_text,
    chosen_splits,
    default_images,
    describe,
    listing,
    load_json,
    pixel_box,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand
from univg_eval.benchmarks.readers.common.masks import read_rle, require_image_size
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    ItemError,
    Release,
    Splits,
    StrPath,
)
from univg_eval.benchmarks.readers.common.zero_shot import (
    ExtractedSet,
    Origin,
    Row,
    full_entry,
    still_sample,
)
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "open_llmseg_full"]

SPLIT = "test"
IMAGE_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "coco": ("coco/train2017", "train2017", "coco"),
    "ego_objects": ("ego_objects/images", "ego_objects"),
}
"""``from_dataset`` → where its images are looked for below the folder of images, in this order."""


def _extracted_sample(folder: ImageFolder, row: Row) -> GroundingSample:
    released, question = row.text("image_path"), row.text("question")
    lists = row.checked(
        "bbox",
        lambda v: isinstance(v, list) and all(isinstance(inner, list) for inner in v),
        "a list of lists of numbers",
    )
    numbers = [value for inner in lists for value in inner]
    found = folder.find(released)
    image_wh = folder.size(found)
    return still_sample(
        row,
        image=f"images/{found}",
        image_wh=image_wh,
        released=released,
        expression=question,
        target=Target(0, pixel_box(numbers[:4], image_wh, f"{row.where}: field 'bbox'")),
        extra={"n_boxes": len(numbers) // 4} if len(numbers) >= 8 else {},
    )


EXTRACTED = ExtractedSet(
    name="llmseg",
    files={SPLIT: "LLMSeg_eval.json"},
    fields=("image_path", "question", "bbox"),
    find_images=lambda images, base, rows: default_images(images, base, unique_names=True),
    convert=_extracted_sample,
    facts={"box": "first four numbers of bbox in pixels, divided by the image's size as displayed"},
)


# The release itself


def open_llmseg_full(
    source: StrPath,
    *,
    images: StrPath | None = None,
    splits: Splits = None,
    coco: StrPath | None = None,
    ego_objects: StrPath | None = None,
) -> Release:
    """Open a split of LLM-Seg40K as benchmark ``llmseg_full``; one item a question.

    The file is held in memory with its masks as text: about three times its size while it is read,
    twice afterwards. Masks are decoded one item at a time.

    Args:
        source: the split's JSON file, or a folder that holds it: test.json, or its only JSON file.
            Its samples belong to the split ``test`` of the benchmark, the one that is scored; the
            file's name is in each sample's `source`.
        images: the folder below which both sets of images lie, see `IMAGE_FOLDERS`; None:
            ``images`` beside the file, else its own folder.
        coco, ego_objects: the folder of these images, where it lies elsewhere.
    """
    chosen_splits("llmseg_full", (SPLIT,), splits)
    path = Path(source).expanduser()
    file = load_json(_split_file(path) if path.is_dir() else path)
    entries = file.value if isinstance(file.value, Mapping) else {}
    datasets = {str(entry["from_dataset"]) for entry in entries.values() if _has_pairs(entry)}
    if not datasets:
        first = f"; its first value is {describe(next(iter(entries.values())))}" if entries else ""
        raise UserError(
            f"{file.path}: holds {describe(file.value)}{first}; expected a JSON object {{image "
            'name: {"from_dataset": …, "qa_pairs": [{"question": …, "rle_seg": …}]}}. Is it the '
            "file of another set?"
        )
    base = default_images(images, file.path.parent).folder
    given = {"coco": coco, "ego_objects": ego_objects}
    folders = {d: _image_folder(d, file, base, given[d]) for d in IMAGE_FOLDERS if d in datasets}
    items: list[Item] = []
    row = 0
    for name, entry in entries.items():
        if not _has_pairs(entry):
            # Not the bare name, which may look like the number of a question.
            where = f"{file.path.name}: image {name!r}"
            items.append(Item(f"image {describe(name)}", partial(_refuse, where, entry)))
            continue
        for pair in entry["qa_pairs"]:
            convert = partial(_pair_sample, file.path.name, folders, name, entry, pair, row)
            items.append(Item(f"{row:05d}", convert))
            row += 1
    return Release(
        benchmark="llmseg_full",
        items=items,
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
    if len(files) != 1 and folder / "test.json" not in files:
        raise UserError(
            f"{folder} has {len(files)} JSON files ({', '.join(file.name for file in files)}); "
            "expected LLM-Seg40K's test.json, or give the file of the split itself"
        )
    return files[0] if len(files) == 1 else folder / "test.json"


def _has_pairs(entry: Any) -> bool:
    return (
        isinstance(entry, Mapping)
        and "from_dataset" in entry
        and isinstance(entry.get("qa_pairs"), list)
    )


def _image_folder(
    dataset: str, file: AnnotationFile, base: Path, given: StrPath | None
) -> ImageFolder:
    """The folder of one of the two sets of images."""
    option = f"--{dataset.replace('_', '-')}"
    candidates = [base / name for name in IMAGE_FOLDERS[dataset]]
    folder = given or next((path for path in candidates if path.is_dir()), None)
    if folder is None:
        raise UserError(
            f"{file.path.name} has images of {dataset}, but none of "
            f"{', '.join(IMAGE_FOLDERS[dataset])} is a folder in {base}, which has: "
            f"{listing(base)}. Put the images there, or give their folder with {option}"
        )
    return ImageFolder(folder, unique_names=True, option=option)


def _pair_sample(
    file_name: str,
    folders: Mapping[str, ImageFolder],
    name: str,
    entry: Mapping[str, Any],
    pair: Any,
    row: int,
) -> list[GroundingSample]:
    """The sample of one question on the image of that name."""
    where, dataset = f"{file_name}: question {row}, on {name!r}", entry["from_dataset"]
    if not isinstance(dataset, str) or dataset not in folders:
        raise unexpected(f"{where}: from_dataset", dataset, " or ".join(IMAGE_FOLDERS))
    checked_text(name, f"{where}: the image's name")
    question = text_field(pair, "question", where)
    mask = read_rle(pair.get("rle_seg"), f"{where}: rle_seg")
    folder = folders[dataset]
    found = folder.find(name)
    image_wh = folder.size(found)
    require_image_size(mask, image_wh, folder.folder / found, where)
    box = mask.box()
    if box is None:
        raise ItemError(
            "no_visible_object", f"{where}: the mask has no pixel; expected the answer's object"
        )
    sample = still_sample(
        Origin("llmseg_full", SPLIT, f"{row:05d}", file_name, "official", row),
        image=f"{dataset}/{found}",
        image_wh=image_wh,
        released=name,
        expression=question,
        target=Target(0, box, mask.to_json()),
        extra={"from_dataset": dataset, "parts": mask.n_parts()},
    )
    return [sample]


def _refuse(where: str, entry: Any) -> list[GroundingSample]:
    raise unexpected(where, entry, "an object with from_dataset and a list qa_pairs")


# Catalogue

_IMAGES = (
    ByHand("COCO train2017 images (18 GB)", "https://cocodataset.org/#download"),
    ByHand("EgoObjects images (40 GB)", "https://github.com/facebookresearch/EgoObjects"),
)
_IMAGE_LICENCES = "COCO: https://cocodataset.org/#termsofuse; EgoObjects: MIT"

ENTRIES = (
    EXTRACTED.entry(
        title="LLM-Seg40K, the boxes that UniVG-R1 scores",
        tasks={"univg_llmseg": None},
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
