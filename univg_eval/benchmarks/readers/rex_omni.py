"""Rex-Omni-EvalData: boxes of categories or expressions, in the form that Rex-Omni is evaluated on.

Jiang et al., "Detect Anything via Next Point Prediction" (2025). One JSON Lines file a set, in
``_annotations/box_eval`` beside the folders of images; a row ::

    {"image_path": "visdrone/a.jpg", "categories": ["car", "van"],
     "gt": {"car": [[x1, y1, x2, y2], …]}, "dataset_name": "VisDrone",
     "task_name": "common_object_detection"}

Boxes are in pixels. Categories that the image does not show may be asked for; where it shows none,
the answer is none. (IDEA-Research/Rex-Omni at 478e44f, ``evaluation/inference_text_prompt.py`` and
``evaluation/metrics/other_metric.py``)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    checked_text,
    chosen_splits,
    default_images,
    find_split_files,
    load_json_lines,
    pixel_box,
    require_field,
    require_rows,
    text_field,
    unexpected,
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

__all__ = ["ENTRIES", "FILES", "open_rex_omni"]

FILES: Mapping[str, str] = {
    name.lower(): f"{name}.jsonl"
    for name in ("RefCOCOg_val", "RefCOCOg_test", "HumanRef", "Dense200", "VisDrone", "COCO")
}
"""Split → file. The sets of texts, documents and long tails (LVIS) are not read."""

_BELOW = ("_annotations/box_eval", "annotations/box_eval")
_PAGE = "https://huggingface.co/datasets/Mountchicken/Rex-Omni-EvalData"


def open_rex_omni(
    source: StrPath, *, images: StrPath | None = None, splits: Splits = None
) -> Release:
    """Open some of the sets, each a split; one item and one sample a row.

    `source` is the folder of the release, that of the files, or one file; `images` the folder that
    the rows' paths are relative to, None: that of the release. The sample ``rex_omni-coco-00017``
    is that of row 17 (0-based). Its ``extra["labels"]`` are the targets' categories, in order.
    """
    wanted = chosen_splits("rex_omni", list(FILES), splits)
    items, files, folder = [], [], None
    for split, path in find_split_files(source, FILES, wanted, _BELOW, _PAGE).items():
        file = load_json_lines(path)
        rows = require_rows(file, ("image_path", "categories"))
        _require_boxes(path, rows)
        home = path.parent.parent.parent if path.parent.name == "box_eval" else path.parent
        folder = folder or default_images(images, home)
        for number, row in enumerate(rows):
            convert = partial(_samples, folder, split, path.name, row, number)
            items.append(Item(f"{split}/{number:05d}", convert))
        files.append({**file.to_dict(), "split": split, "rows": len(rows)})
    return Release(
        benchmark="rex_omni",
        items=items,
        links={"images": folder.folder} if folder else {},
        source={
            "revision": "official",
            "files": files,
            "box": "gt in pixels, divided by the image's size as displayed",
        },
    )


def _require_boxes(path: Path, rows: Sequence[Any]) -> None:
    """Refuse a file without the truth, which would be one of samples that ask for nothing."""
    truths = [row.get("gt") for row in rows if isinstance(row, Mapping)]
    if not any(isinstance(gt, Mapping) and any(gt.values()) for gt in truths):
        raise UserError(
            f"{path}: no row has a box in 'gt', so nothing in it can be scored. COCO's true boxes "
            "may lie in coco/instances_val2017.json (in coco.tar.gz) alone, which is not read "
            "here; name the other sets with --split, or get the file again"
        )


def _samples(
    folder: ImageFolder, split: str, file: str, row: Any, number: int
) -> list[GroundingSample]:
    """The sample of a row (0-based)."""
    where = f"{file} row {number}"
    released = text_field(row, "image_path", where)
    categories, truth = require_field(row, "categories", where), require_field(row, "gt", where)
    if not isinstance(categories, list) or not categories:
        raise unexpected(f"{where}: categories", categories, "a list of names")
    for name in categories:
        checked_text(name, f"{where}: categories")
    if not isinstance(truth, Mapping) or not all(isinstance(v, list) for v in truth.values()):
        raise unexpected(f"{where}: gt", truth, "an object {category: [[x1, y1, x2, y2], …]}")
    for label in truth:
        if label not in categories:
            raise unexpected(f"{where}: a category of gt", label, "one of the row's categories")
    image = folder.find(released)
    image_wh = folder.size(image)
    labelled = [(label, box) for label, boxes in truth.items() for box in boxes]
    return [
        find_all_sample(
            benchmark="rex_omni",
            task=split,
            split=split,
            key=f"{split}-{number:05d}",
            image=image,
            image_wh=image_wh,
            released=released,
            expression=", ".join(categories),
            targets=[
                Target(0, pixel_box(box, image_wh, f"{where}: gt of {label!r}", slack=1.0))
                for label, box in labelled
            ],
            file=file,
            row=number,
            extra={
                "categories": categories,
                "labels": [label for label, _ in labelled],
                **{name: row[name] for name in ("dataset_name", "task_name") if name in row},
            },
        )
    ]


ENTRIES = (
    CatalogEntry(
        name="rex_omni",
        title="Rex-Omni-EvalData: all objects of named categories, or of an expression",
        opener=open_rex_omni,
        splits=tuple(FILES),
        tasks={f"univg_rex_omni_{split}": split for split in FILES},
        by_hand=(ByHand("Rex-Omni-EvalData: _annotations/box_eval and *.tar.gz, unpacked", _PAGE),),
        licence="not stated; the sets' own terms, as COCO's: https://cocodataset.org/#termsofuse",
        comparable_with_published=True,
        published="F1 by the authors' own scorer; COCO's is another one, not reproduced",
    ),
)
