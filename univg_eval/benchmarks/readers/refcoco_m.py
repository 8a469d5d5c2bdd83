"""RefCOCO-M: RefCOCO's validation part (UNC's partition) with new masks.

The Hub dataset moondream/refcoco-m has a row for each photograph, in Parquet files that hold it::

    {"image": …, "image_id": 9, "file_name": "COCO_train2014_000000000009.jpg",
     "samples": [{"id": 1, "image_id": 9, "category": "person", "supercategory": "person",
                  "label": "…", "sentences": ["…", …], "bbox": [x, y, width, height],
                  "mask": {"counts": "…", "size": [height, width]}}, …]}

The target is ``bbox``, in pixels, as released. Whether it was fitted to the new mask is not
stated: the IoU of it and the box of the mask's pixels is ``mask_box_iou`` in a sample's extra.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from univg_eval.benchmarks.readers.common.annotation_files import (
    checked_text,
    chosen_splits,
    describe,
    require_field,
    text_field,
    unexpected,
    xywh_box,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry
from univg_eval.benchmarks.readers.common.masks import read_rle, require_image_size
from univg_eval.benchmarks.readers.common.parquet import (
    EMBEDDED,
    ParquetRows,
    find_shards,
    store_image,
)
from univg_eval.benchmarks.readers.common.release import (
    Item,
    ItemError,
    Release,
    Splits,
    StrPath,
    size_of,
)
from univg_eval.benchmarks.readers.common.zero_shot import Origin, still_sample
from univg_eval.boxes import box_iou
from univg_eval.errors import UserError
from univg_eval.files import file_sha256
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "open_refcoco_m"]

_SPLIT = "val"
_HUB = "moondream/refcoco-m"


def open_refcoco_m(
    source: StrPath, *, workspace: StrPath, images: StrPath | None = None, splits: Splits = None
) -> Release:
    """Open RefCOCO-M; one item an object, one sample a sentence.

    ``refcoco_m-00017-0-1`` is the second sentence about the first object of row 17 (from 0), the
    rows counted through all files. Samples on one photograph share a cluster. UserError if the
    files are not there, not all of one set, or of another set.

    Args:
        source: as in `find_shards`, of ``validation``.
        workspace: the benchmark's folder below the data root; the photographs are written there,
            below ``embedded/``, named after their content.
        images: must be None: the files hold the photographs.
        splits: val, or None.
    """
    chosen_splits("refcoco_m", (_SPLIT,), splits)
    if images is not None:
        raise UserError("the files of RefCOCO-M hold their photographs: leave --images out")
    paths = find_shards(source, "validation", "RefCOCO-M", f"the Hub dataset {_HUB}")
    files = [ParquetRows(path, ("image_id", "file_name", "samples"), "RefCOCO-M") for path in paths]
    for file in files:
        for place, row in enumerate(file.rows):
            if not isinstance(row["samples"], list | None):
                raise UserError(
                    f"{file.path}: samples of row {place} is {describe(row['samples'])}; expected "
                    "a list of objects. Is it the file of another set?"
                )
    places = [(file, place) for file in files for place in range(len(file.rows))]
    items = [
        Item(f"{n:05d}-{k}", partial(_samples, Path(workspace) / EMBEDDED, n, k, file, place))
        for n, (file, place) in enumerate(places)
        for k in range(len(file.rows[place]["samples"] or ()))
    ]
    return Release(
        benchmark="refcoco_m",
        items=items,
        links={},
        source={
            "revision": "official",
            "box": "bbox as released: x, y, width, height in pixels",
            "images": EMBEDDED,
            "files": [{"file": f.name, "sha256": file_sha256(f), "split": _SPLIT} for f in paths],
        },
    )


def _samples(
    folder: Path, number: int, k: int, file: ParquetRows, place: int
) -> list[GroundingSample]:
    """The samples of object `k` of a row, whose photograph is written into a folder."""
    row, name = file.rows[place], file.path.name
    entry, where = list(row["samples"])[k], f"{name} row {place}, object {k}"
    released = text_field(row, "file_name", where)
    sentences = require_field(entry, "sentences", where)
    if not sentences:
        raise unexpected(f"{where}: field 'sentences'", sentences, "expressions")
    image = store_image(file.images.of_row(place), folder, f"{where}: field 'image'")
    size = size_of(folder / image)
    mask = read_rle(require_field(entry, "mask", where), f"{where}: field 'mask'")
    require_image_size(mask, size, folder / image, where)
    around = mask.box()
    if around is None:
        raise ItemError("no_visible_object", f"{where}: the mask has no pixel; expected an object")
    box = xywh_box(require_field(entry, "bbox", where), size, f"{where}: field 'bbox'")
    facts = {
        **{name: entry[name] for name in ("category", "label") if name in entry},
        "release_id": entry.get("id"),
        "mask_box_iou": round(float(box_iou(box, around)), 6),
        "parts": mask.n_parts(),
    }
    return [
        still_sample(
            Origin("refcoco_m", _SPLIT, f"{number:05d}-{k}-{j}", name, "official", number),
            image=f"{EMBEDDED}/{image}",
            image_wh=size,
            released=released,
            expression=checked_text(sentence, f"{where}: field 'sentences'"),
            target=Target(0, box, mask.to_json()),
            extra=facts,
        )
        for j, sentence in enumerate(sentences)
    ]


ENTRIES = (
    CatalogEntry(
        name="refcoco_m",
        title="RefCOCO-M, RefCOCO's validation part with new masks",
        opener=open_refcoco_m,
        splits=(_SPLIT,),
        needs_workspace=True,
        tasks={"univg_refcoco_m": None},
        by_hand=(
            ByHand("data/validation-*.parquet (610 MB)", f"https://huggingface.co/datasets/{_HUB}"),
        ),
        licence="MIT (Hub card); images: COCO, https://cocodataset.org/#termsofuse",
        comparable_with_published=False,
        published="none for boxes: its authors score masks",
    ),
)
