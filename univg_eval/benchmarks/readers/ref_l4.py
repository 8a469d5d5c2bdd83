"""Ref-L4: one object in one photograph, named by a long expression.

Chen et al., "Revisiting Referring Expression Comprehension Evaluation in the Era of Large
Multimodal Models" (2024). The Hub dataset JierunChen/Ref-L4 has one Parquet file a split and the
photographs of COCO and Objects365 in an archive without folders. A row::

    {"id": 1, "caption": "…", "bbox": [x, y, width, height], "bbox_area": 900.0,
     "bbox_id": "o365_5", "ori_category_id": "o365_64", "image_id": "o365_9", "height": 741,
     "width": 1024, "file_name": "objects365_v2_00000009.jpg", "is_rewrite": true, "split": "val"}

The box is in pixels. Every row has one target; none is absent. Older revisions call ``bbox_id``
``ann_id``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    default_images,
    find_split_files,
    text_field,
    unexpected,
    xywh_box,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry, ImageArchive
from univg_eval.benchmarks.readers.common.parquet import read_rows
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    Release,
    Splits,
    StrPath,
    require_stated_size,
)
from univg_eval.benchmarks.readers.common.zero_shot import Origin, still_sample
from univg_eval.files import file_sha256
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "open_ref_l4"]

_HUB = "https://huggingface.co/datasets/JierunChen/Ref-L4"
_FILES = {"val": "ref-l4-val.parquet", "test": "ref-l4-test.parquet"}
_COLUMNS = (
    *("id", "caption", "bbox", "bbox_area", "ori_category_id", "image_id"),
    *("height", "width", "file_name", "is_rewrite", "split"),
)
_FACTS = ("bbox_area", "ori_category_id", "is_rewrite", "bbox_id", "ann_id")


def open_ref_l4(
    source: StrPath, *, images: StrPath | None = None, splits: Splits = None
) -> Release:
    """Open Ref-L4; one item a row, ``ref_l4-val-00017`` is row 17 (from 0) of its split.

    Rows on one photograph share a cluster. UserError if `source` has none of the files, or not
    those of the requested splits, or they are of another set.

    Args:
        source: the folder with ``ref-l4-val.parquet`` and ``ref-l4-test.parquet``, or one of them.
        images: the folder of photographs; None: ``images`` beside the files, else their folder.
        splits: some of val and test; None: those that are there.
    """
    path = Path(source).expanduser()
    wanted = chosen_splits("ref_l4", tuple(_FILES), splits)
    found = find_split_files(path, _FILES, wanted, (), _HUB)
    folder = default_images(images, path if path.is_dir() else path.parent)
    items: list[Item] = []
    for split, file in found.items():
        rows = read_rows(file, _COLUMNS, "Ref-L4", optional=("bbox_id", "ann_id"))
        for number, row in enumerate(rows):
            convert = partial(_sample, folder, file.name, row, split, number)
            items.append(Item(f"{split}/{number:05d}", convert))
    return Release(
        benchmark="ref_l4",
        items=items,
        links={"images": folder.folder},
        source={
            "revision": "official",
            "box": "bbox as released: x, y, width, height in pixels",
            "files": [
                {"file": file.name, "sha256": file_sha256(file), "split": split}
                for split, file in found.items()
            ],
        },
    )


def _sample(
    folder: ImageFolder, file: str, row: Mapping[str, Any], split: str, number: int
) -> list[GroundingSample]:
    where = f"{file} row {number}"
    if row["split"] != split:
        raise unexpected(f"{where}: field 'split'", row["split"], f"{split!r}, as its file says")
    released = text_field(row, "file_name", where)
    found = folder.find(released)
    size = folder.size(found)
    require_stated_size(row, size, f"{where}: image {released!r}")
    text_field(row, "ori_category_id", where)  # the authors' scorer needs it
    facts = {name: row[name] for name in _FACTS if name in row}
    sample = still_sample(
        Origin("ref_l4", split, f"{split}-{number:05d}", file, "official", number),
        image=f"images/{found}",
        image_wh=size,
        released=released,
        expression=text_field(row, "caption", where),
        target=Target(0, xywh_box(row["bbox"], size, f"{where}: field 'bbox'")),
        extra={"release_id": row["id"], **facts},
    )
    return [sample]


ENTRIES = (
    CatalogEntry(
        name="ref_l4",
        title="Ref-L4, long expressions on photographs of COCO and Objects365",
        opener=open_ref_l4,
        splits=tuple(_FILES),
        tasks={f"univg_ref_l4_{split}": split for split in _FILES},
        by_hand=(ByHand("ref-l4-val.parquet, ref-l4-test.parquet, images.tar.gz (3.5 GB)", _HUB),),
        image_archives=(ImageArchive("images.tar.gz", ("images",)),),
        licence="CC BY-NC 4.0; images: COCO, https://cocodataset.org/#termsofuse, and Objects365, "
        "CC BY 4.0 (README of Ref-L4)",
        comparable_with_published=True,
        published="Acc@0.5 of val and test together; its authors count IoU above, not at, 0.5",
    ),
)
