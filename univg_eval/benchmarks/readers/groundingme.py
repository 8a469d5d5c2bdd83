"""GroundingME: one object in one photograph by a long description, or none that fits.

Li et al., "GroundingME: Exposing the Visual Grounding Gap in MLLMs through Multi-Dimensional
Evaluation" (arXiv 2512.17495); lirang04/GroundingME on GitHub and the Hub. Parquet files that hold
the images, a row each::

    {"id": 3, "description": "…", "image": {"bytes": …, "path": …}, "bbox": [x1, y1, x2, y2],
     "detection_type": "cup", "subtask_l1": "Spatial", "subtask_l2": "Counting",
     "width": 2000, "height": 1500}

Boxes are in pixels. Rows of the subtask ``Rejection`` describe an object that is not there; their
``bbox``, null in the release, is not read, as in the authors' scorer (commit aeb824e, evaluate.py).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    pixel_box,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry
from univg_eval.benchmarks.readers.common.parquet import (
    EMBEDDED,
    ParquetRows,
    find_shards,
    store_image,
)
from univg_eval.benchmarks.readers.common.release import (
    Item,
    Release,
    Splits,
    StrPath,
    image_instruction_or_none,
    require_stated_size,
    size_of,
)
from univg_eval.errors import UserError
from univg_eval.files import file_sha256
from univg_eval.samples import GroundingSample, Target

__all__ = ["DESCRIPTIONS", "ENTRIES", "open_groundingme"]

DESCRIPTIONS = 1_005
"""Rows of the split test, as the paper counts them."""

_REJECTION = "Rejection"
_SUBTASKS = ("Discriminative", "Spatial", "Limited", _REJECTION)
_FIELDS = (
    *("id", "description", "bbox", "detection_type", "subtask_l1", "subtask_l2"),
    *("width", "height"),
)
_HUB = "https://huggingface.co/datasets/lirang04/GroundingME"


def open_groundingme(
    source: StrPath,
    *,
    images: StrPath | None = None,
    splits: Splits = None,
    workspace: StrPath,
) -> Release:
    """Open GroundingME; an item and a sample is a row, counted from 0 over all files.

    A sample's task is the row's ``subtask_l1`` in lower case. Rows on the same image share a
    cluster. A description's full stop is not in the instruction.

    Args:
        source: the folder with ``test-00000-of-….parquet`` and so on, the folder above it, or one
            of these files.
        images: refused; the files hold the images.
        splits: there is only ``test``.
        workspace: the benchmark's folder below the data root; the images are written there, below
            ``embedded/``, named after their content.

    Raises:
        UserError: the files are not there, not all of one set, no Parquet, or of another set.
    """
    chosen_splits("groundingme", ("test",), splits)
    if images is not None:
        raise UserError("the files of GroundingME hold their images; leave --images out")
    paths = find_shards(source, "test", "GroundingME", _HUB)
    files = [ParquetRows(path, _FIELDS, "GroundingME") for path in paths]
    places = [(file, place) for file in files for place in range(len(file.rows))]
    convert = partial(_samples, Path(workspace))
    return Release(
        benchmark="groundingme",
        items=[Item(f"{n:05d}", partial(convert, n, *place)) for n, place in enumerate(places)],
        links={},
        source={
            "files": [{"name": path.name, "sha256": file_sha256(path)} for path in paths],
            "expressions": {"test": {"found": len(places), "reported": DESCRIPTIONS}},
            "box": "bbox as x1, y1, x2, y2 in pixels; absent where subtask_l1 is Rejection",
        },
    )


def _samples(workspace: Path, number: int, file: ParquetRows, place: int) -> list[GroundingSample]:
    """The sample of the row at a place of its file, which is `number` in the set."""
    row, where = file.rows[place], f"{file.path.name} row {place}"
    description, subtask = text_field(row, "description", where), row["subtask_l1"]
    if subtask not in _SUBTASKS:
        expected = f"one of: {', '.join(_SUBTASKS)}"
        raise unexpected(f"{where}: field 'subtask_l1'", subtask, expected)
    if not isinstance(row["subtask_l2"], str | None):
        raise unexpected(f"{where}: field 'subtask_l2'", row["subtask_l2"], "text")
    at = f"{where}: field 'image'"
    image = f"{EMBEDDED}/{store_image(file.images.of_row(place), workspace / EMBEDDED, at)}"
    size = size_of(workspace / image)
    require_stated_size(row, size, at)
    targets: tuple[Target, ...] = ()
    if subtask != _REJECTION:
        targets = (Target(0, pixel_box(row["bbox"], size, f"{where}: field 'bbox'")),)
    sample = GroundingSample(
        id=f"groundingme-{number:05d}",
        benchmark="groundingme",
        task=subtask.lower(),
        split="test",
        images=(f"groundingme/{image}",),
        widths=(size[0],),
        heights=(size[1],),
        instruction=image_instruction_or_none(description.strip().removesuffix(".")),
        targets=targets,
        image_is_given=True,
        cluster=image,
        source={"file": file.path.name, "row": number},
        extra={
            "expression": description,
            "subtask_l2": row["subtask_l2"],
            "detection_type": row["detection_type"],
            "release_id": row["id"],
        },
    )
    return [sample]


ENTRIES = (
    CatalogEntry(
        name="groundingme",
        title="GroundingME, an object by a long description, or none that fits",
        opener=open_groundingme,
        needs_workspace=True,
        tasks={"univg_groundingme": "test"},
        by_hand=(ByHand("data/test-*.parquet (1.53 GB, with the images)", _HUB),),
        licence="other (Hub card); terms of SA-1B and HR-Bench, research use only (README)",
        comparable_with_published=True,
        published="IoU and accuracy of the GroundingME paper, by its authors' scorer",
    ),
)
