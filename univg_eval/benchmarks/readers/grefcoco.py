"""gRefCOCO: every object of one COCO photograph that an expression refers to: several, one or none.

Liu et al., "GRES: Generalized Referring Expression Segmentation" (CVPR 2023); He et al., "GREC:
Generalized Referring Expression Comprehension" (2023). ``grefs(unc).json`` is a list of rows ::

    {"ref_id": 1, "image_id": 9, "split": "val", "file_name": "COCO_train2014_000000000009_3.jpg",
     "ann_id": [4, 7], "category_id": [1, 1], "no_target": false,
     "sentences": [{"sent": "both cups", "sent_id": 2, "tokens": […]}, …]}

where an id may stand without a list, and [-1] means that nothing fits. The boxes are those of
``instances.json``, COCO's: x, y, width and height in pixels. (henghuiding/gRefCOCO at 41a8f00,
``grefer.py`` and ``mdetr/scripts/fine-tuning/grefexp_coco_format.py``)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    find_file,
    load_json,
    require_field,
    require_rows,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.coco import (
    TERMS,
    TRAIN2014,
    CocoObjects,
    coco_name,
    train2014_folder,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    Release,
    Splits,
    StrPath,
    find_all_sample,
)
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target

__all__ = ["ENTRIES", "open_grefcoco"]

SPLITS = ("val", "testA", "testB")
_FIELDS = ("ref_id", "image_id", "split", "file_name", "ann_id", "sentences")
_PAGE = "https://huggingface.co/datasets/FudanCVL/gRefCOCO"


def open_grefcoco(
    source: StrPath, *, images: StrPath | None = None, splits: Splits = None
) -> Release:
    """Open val, testA and testB of gRefCOCO, or some of them; one item a row, held in memory.

    A sample is a sentence: ``grefcoco-val-00017`` is that of row 17 (0-based, of the split),
    ``grefcoco-val-00017-1`` the second one of a row with several. Its ``extra["ann_ids"]`` are
    parallel to the targets. `source` is the folder with both JSON files, `images` that of COCO's
    train2014, which has to be given.
    """
    wanted = chosen_splits("grefcoco", SPLITS, splits) or list(SPLITS)
    refs = load_json(find_file(source, "grefs(unc).json", ("grefcoco",), _PAGE))
    rows = require_rows(refs, _FIELDS)
    instances = load_json(find_file(refs.path.parent, "instances.json", (), _PAGE))
    folder = train2014_folder(images, "gRefCOCO")
    convert = partial(_samples, folder, CocoObjects(instances), refs.path.name)
    items = []
    counts: Counter[str] = Counter()
    for place, row in enumerate(rows):
        split = row.get("split") if isinstance(row, Mapping) else None
        key = f"row {place}"  # of a faulty one
        if split in wanted:
            key = f"{split}/{counts[split]:05d}"
            counts[split] += 1
        elif split in ("train", *SPLITS):
            continue
        items.append(Item(key, partial(convert, row, key.replace("/", "-"), place)))
    missing = [split for split in wanted if not counts[split]]
    if missing and (splits is not None or not counts):
        raise UserError(f"{refs.path} has no row of {', '.join(missing)}; get it from {_PAGE}")
    return Release(
        benchmark="grefcoco",
        items=items,
        links={"images": folder.folder},
        source={
            "revision": "official",
            "files": [{**refs.to_dict(), "rows": dict(counts)}, instances.to_dict()],
            "box": "bbox of instances.json, x, y, width, height",
        },
    )


def _samples(
    folder: ImageFolder, objects: CocoObjects, file: str, row: Any, key: str, place: int
) -> list[GroundingSample]:
    """The samples of row `place` (0-based) of the file."""
    where = f"{file} row {place}"
    split = text_field(row, "split", where)
    if split not in SPLITS:
        raise unexpected(f"{where}: split", split, f"train, {', '.join(SPLITS)}")
    released = text_field(row, "file_name", where)
    image = folder.find(coco_name(released))
    image_wh = folder.size(image)
    image_id = require_field(row, "image_id", where)
    objects.require_size(image_id, image_wh, where)
    ref_id, ann_ids = require_field(row, "ref_id", where), _ann_ids(row, where)
    boxes = [objects.box(ann_id, image_id, image_wh, where) for ann_id in ann_ids]
    sentences = require_field(row, "sentences", where)
    if not isinstance(sentences, list) or not sentences:
        raise unexpected(f"{where}: sentences", sentences, "a list of objects with sent")
    return [
        find_all_sample(
            benchmark="grefcoco",
            task=f"grefcoco_{split}",  # published tables have a column for each split
            split=split,
            key=key if len(sentences) == 1 else f"{key}-{k}",
            image=image,
            image_wh=image_wh,
            released=released,
            expression=text_field(sentence, "sent", f"{where}: sentence {k}"),
            targets=[Target(0, box) for box in boxes],
            file=file,
            row=place,
            extra={"ref_id": ref_id, "sent_id": sentence.get("sent_id"), "ann_ids": ann_ids},
        )
        for k, sentence in enumerate(sentences)
    ]


def _ann_ids(row: Mapping[str, Any], where: str) -> list[int]:
    """The ids of a row's objects; none where it says so, in both of its fields."""
    value = require_field(row, "ann_id", where)
    ids = value if isinstance(value, list) else [value]
    is_absent = ids == [-1]
    if not ids or not all(type(i) is int for i in ids) or (-1 in ids and not is_absent):
        raise unexpected(f"{where}: ann_id", value, "annotations' ids, or [-1] if nothing fits")
    if len(set(ids)) < len(ids):
        raise unexpected(f"{where}: ann_id", value, "each id once")
    stated = row.get("no_target", is_absent)
    if stated is not is_absent:
        raise unexpected(f"{where}: no_target", stated, f"{is_absent}, as ann_id is {value}")
    return [] if is_absent else ids


ENTRIES = (
    CatalogEntry(
        name="grefcoco",
        title="gRefCOCO: all objects that an expression refers to, or none",
        opener=open_grefcoco,
        splits=SPLITS,
        tasks={f"univg_grefcoco_{split}": split for split in SPLITS},
        by_hand=(
            ByHand("gRefCOCO: grefs(unc).json and instances.json", _PAGE),
            TRAIN2014,
        ),
        licence=f"annotations: not stated; {TERMS}",
        comparable_with_published=True,
        published="Pr@(F1=1), N-acc and T-acc, by the authors' own scorer",
    ),
)
