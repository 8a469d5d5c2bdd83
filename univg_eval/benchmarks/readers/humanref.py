"""HumanRef: every person of one photograph that an expression refers to: several, one or none.

Jiang et al., "Referring to Any Person" (2025). ``annotations.jsonl`` beside ``images/``, a row ::

    {"id": 5, "image_name": "a.jpg", "referring": "person in red", "domain": "attribute",
     "sub_domain": "…", "candidate_boxes": [[x1, y1, x2, y2], …], "answer_boxes": [[…], …],
     "answer_segmentations": [{"size": [height, width], "counts": …}, …]}

Boxes are in pixels; candidates are all persons. In the domain ``rejection`` nobody fits.
(IDEA-Research/RexSeek at f5c1169, ``rexseek/metric/recall_precision_densityf1.py`` and
``rexseek/tools/visualize_humanref.py``)
"""

from __future__ import annotations

from functools import partial
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    default_images,
    find_file,
    load_json_lines,
    pixel_box,
    require_field,
    require_rows,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry
from univg_eval.benchmarks.readers.common.masks import read_rle, require_image_size
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    Release,
    Splits,
    StrPath,
    find_all_sample,
)
from univg_eval.samples import GroundingSample, Target

__all__ = ["DOMAINS", "ENTRIES", "EXPRESSIONS", "open_humanref"]

SPLIT = "test"
REJECTION = "rejection"
DOMAINS = ("attribute", "position", "interaction", "reasoning", "celebrity", REJECTION)
EXPRESSIONS = 6_000
"""How many expressions the benchmark has, 1,000 a domain (README of IDEA-Research/RexSeek)."""

_PAGE = "https://huggingface.co/datasets/IDEA-Research/HumanRef"
_FIELDS = ("id", "image_name", "referring", "domain", "candidate_boxes", "answer_boxes")


def open_humanref(
    source: StrPath, *, images: StrPath | None = None, splits: Splits = None
) -> Release:
    """Open the benchmark part of HumanRef; one item a row, its task the row's domain.

    `source` is ``annotations.jsonl`` or its folder; `images` that of the images, None: ``images``
    beside the file. The sample ``humanref-00017`` is that of row 17 (0-based); targets have masks
    where the row has one for each box.
    """
    chosen_splits("humanref", (SPLIT,), splits)
    file = load_json_lines(find_file(source, "annotations.jsonl", ("HumanRef",), _PAGE))
    rows = require_rows(file, _FIELDS)
    folder = default_images(images, file.path.parent)
    convert = partial(_samples, folder, file.path.name)
    return Release(
        benchmark="humanref",
        items=[
            Item(f"{number:05d}", partial(convert, row, number)) for number, row in enumerate(rows)
        ],
        links={"images": folder.folder},
        source={
            "revision": "official",
            "files": [{**file.to_dict(), "split": SPLIT, "rows": len(rows)}],
            "expressions": {SPLIT: {"found": len(rows), "reported": EXPRESSIONS}},
            "box": "answer_boxes in pixels, divided by the image's size as displayed",
        },
    )


def _samples(folder: ImageFolder, file: str, row: Any, number: int) -> list[GroundingSample]:
    """The sample of a row (0-based)."""
    where = f"{file} row {number}"
    domain = text_field(row, "domain", where)
    if domain not in DOMAINS:
        raise unexpected(f"{where}: domain", domain, f"one of {', '.join(DOMAINS)}")
    boxes = _listed(row, "answer_boxes", where)
    if bool(boxes) is (domain == REJECTION):
        expected = "none" if boxes else "at least one"
        raise unexpected(f"{where}: answer_boxes", boxes, f"{expected} in the domain {domain}")
    released = text_field(row, "image_name", where)
    image = folder.find(released)
    image_wh = folder.size(image)
    masks: list[dict[str, Any] | None] = [None] * len(boxes)
    segmentations = row.get("answer_segmentations")
    if isinstance(segmentations, list) and len(segmentations) == len(boxes):
        for k, segmentation in enumerate(segmentations):
            mask = read_rle(segmentation, f"{where}: answer_segmentations[{k}]")
            require_image_size(mask, image_wh, folder.folder / image, where)
            masks[k] = mask.to_json()
    targets = [
        Target(0, pixel_box(box, image_wh, f"{where}: answer_boxes[{k}]", slack=1.0), masks[k])
        for k, box in enumerate(boxes)
    ]
    return [
        find_all_sample(
            benchmark="humanref",
            task=domain,
            split=SPLIT,
            key=f"{number:05d}",
            image=image,
            image_wh=image_wh,
            released=released,
            expression=text_field(row, "referring", where),
            targets=targets,
            file=file,
            row=number,
            extra={
                "sub_domain": row.get("sub_domain"),
                "release_id": require_field(row, "id", where),
                "n_candidates": len(_listed(row, "candidate_boxes", where)),
            },
        )
    ]


def _listed(row: Any, name: str, where: str) -> list[Any]:
    value = require_field(row, name, where)
    if not isinstance(value, list):
        raise unexpected(f"{where}: {name}", value, "a list of boxes")
    return value


ENTRIES = (
    CatalogEntry(
        name="humanref",
        title="HumanRef: all persons that an expression refers to, or none",
        opener=open_humanref,
        tasks={"univg_humanref": None},
        by_hand=(ByHand("HumanRef: annotations.jsonl and images", _PAGE),),
        licence="IDEA License 1.0, and OpenAI's terms of use for the data (README of "
        "IDEA-Research/RexSeek)",
        comparable_with_published=True,
        published="recall, precision, DensityF1 and a rejection score, by the authors' own scorer",
    ),
)
