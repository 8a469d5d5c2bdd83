"""COCO's photographs and annotation files, on which other releases are built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    pixel_box,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    ItemError,
    StrPath,
    require_stated_size,
)
from univg_eval.boxes import Box
from univg_eval.errors import UserError

__all__ = ["TERMS", "TRAIN2014", "CocoObjects", "coco_name", "train2014_folder"]

TRAIN2014 = ByHand("COCO train2014 images (13 GB)", "https://cocodataset.org/#download")
TERMS = "images: COCO, https://cocodataset.org/#termsofuse"

_OBJECT_NUMBER = re.compile(r"(COCO_(?:train|val)2014_\d{12})_\d+(?=\.jpg$)")


def coco_name(released: str) -> str:
    """COCO's own name of an image; the RefCOCO releases append an object's number to some."""
    return _OBJECT_NUMBER.sub(r"\1", released)


def train2014_folder(images: StrPath | None, needed_by: str) -> ImageFolder:
    """The folder of COCO's train2014 images; UserError if none is given, or it is no folder."""
    if images is None:
        raise UserError(
            f"{needed_by} needs the folder of COCO's train2014 (13 GB, cocodataset.org); give it "
            "with --images"
        )
    return ImageFolder(images, unique_names=True)


_FIELDS = {"images": {"id", "width", "height"}, "annotations": {"id", "image_id", "bbox"}}


class CocoObjects:
    """The objects of a COCO annotation file ``{"images": […], "annotations": […]}`` by their ids.

    UserError if it is no such file, or has an id twice.
    """

    def __init__(self, file: AnnotationFile) -> None:
        self._name = file.path.name
        self._images = _by_id(file, "images")
        self._objects = _by_id(file, "annotations")

    def require_size(self, image_id: Any, image_wh: tuple[int, int], where: str) -> None:
        """Refuse an image, of that size as displayed, that is not the one that was annotated."""
        image = self._images.get(image_id) if type(image_id) is int else None
        if image is None:
            raise unexpected(f"{where}: image_id", image_id, f"an image's id in {self._name}")
        require_stated_size(image, image_wh, f"{where}: COCO's image", self._name)

    def box(self, ann_id: int, image_id: int, image_wh: tuple[int, int], where: str) -> Box:
        """The box of an object, xyxy_norm; up to one pixel outside, it ends at the border.

        ItemError ``invalid_row`` if there is no such object, or it is a crowd or on another image.
        """
        where = f"{where}: annotation {ann_id}"
        found = self._objects.get(ann_id)
        if found is None:
            raise ItemError("invalid_row", f"{where} is not in {self._name}")
        if found["image_id"] != image_id:
            raise unexpected(
                f"{where}: image_id", found["image_id"], f"that of the row, {image_id}"
            )
        if found.get("iscrowd"):
            raise ItemError("invalid_row", f"{where} is a crowd; expected a single object")
        return pixel_box(found["bbox"], image_wh, f"{where}: bbox", convention="xywh", slack=1.0)


def _by_id(file: AnnotationFile, name: str) -> dict[int, Mapping[str, Any]]:
    listed = file.value.get(name) if isinstance(file.value, Mapping) else None
    right = isinstance(listed, list) and all(
        isinstance(entry, Mapping) and _FIELDS[name] <= entry.keys() and type(entry["id"]) is int
        for entry in listed
    )
    found = {entry["id"]: entry for entry in listed or ()} if right else {}
    if not found or len(found) < len(listed or ()):
        raise UserError(
            f"{file.path}: expected COCO's annotations, with a list {name!r} of objects that have "
            f"{', '.join(sorted(_FIELDS[name]))}, each id once; get the file of the release again"
        )
    return found
