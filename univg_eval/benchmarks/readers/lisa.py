"""LISA's ReasonSeg: one image, one instruction that takes reasoning, one box.

Lai et al., "LISA: Reasoning Segmentation via Large Language Model" (CVPR 2024).

``lisa`` has UniVG-R1's boxes (lisa_val.json, lisa_test.json; see `zero_shot`). A row::

    {"image_path": "…/ReasonSeg/val/3007.jpg", "instruction": "…", "boxes": [[x1, y1, x2, y2]]}

Boxes are in pixels; the first one is the target, as in AMAP-ML/UniVG-R1,
``eval/zero_shot/lisa_evaluation/eval.py``.

``lisa_full`` is made from ReasonSeg itself, as it unpacks (dvlab-research/LISA)::

    ReasonSeg/val/3007.jpg  ReasonSeg/val/3007.json  ReasonSeg/test/…

A JSON file has ``shapes`` ([{label, points [[x, y], …]}]), ``text`` ([instruction, …]) and
``is_sentence``; it is UTF-8, else cp1252, as upstream reads it. The target's mask is painted by
`masks.paint_shapes`; its box is the target. Every text becomes a sample, without the white space
around it; LISA's own validation reads the first text of a file only, which is the one with
``text_index`` 0 in `extra`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.benchmarks.preparing.archives import is_archive
from univg_eval.benchmarks.readers.common.annotation_files import (
    checked_text,
    chosen_splits,
    default_images,
    describe,
    listing,
    parse_json,
    pixel_box,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand
from univg_eval.benchmarks.readers.common.masks import Shape, paint_shapes
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

__all__ = ["ENTRIES", "SPLITS", "open_lisa_full"]

SPLITS = ("val", "test")
PUBLISHED_IMAGES = {"val": 200, "test": 779}
"""Images a split, as the LISA paper counts them."""


def _extracted_sample(folder: ImageFolder, row: Row) -> GroundingSample:
    released, instruction = row.text("image_path"), row.text("instruction")
    boxes = row.checked(
        "boxes", lambda v: isinstance(v, list) and v, "a list of boxes, the target first"
    )
    split = PurePosixPath(released.replace("\\", "/")).parent.name
    if split in ("train", *SPLITS) and split != row.split:
        raise ItemError(
            "invalid_row",
            f"{row.where}: the image {describe(released)} is one of {split!r}, but the file is "
            f"read as that of {row.split!r}; give the right --split",
        )
    found = folder.find(released)
    image_wh = folder.size(found)
    return still_sample(
        row,
        image=f"images/{found}",
        image_wh=image_wh,
        released=released,
        expression=instruction,
        target=Target(0, pixel_box(boxes[0], image_wh, f"{row.where}: field 'boxes[0]'")),
        extra={"n_boxes": len(boxes)} if len(boxes) > 1 else {},
    )


EXTRACTED = ExtractedSet(
    name="lisa",
    files={split: f"lisa_{split}.json" for split in SPLITS},
    fields=("image_path", "instruction", "boxes"),
    find_images=lambda images, base, rows: default_images(images, base),
    convert=_extracted_sample,
    facts={"box": "boxes[0] in pixels, divided by the image's size as displayed"},
)


# ReasonSeg itself


def open_lisa_full(
    source: StrPath, *, images: StrPath | None = None, splits: Splits = None
) -> Release:
    """Open ReasonSeg as benchmark ``lisa_full``; one item an image, sorted by file name.

    A JSON file is read again when its item is converted.

    Args:
        source: the folder that holds val/ and test/ (one is enough), or one that holds it as
            ReasonSeg/ or reason_seg/ReasonSeg/.
        images: the same with the images, where these do not lie beside their JSON files.
        splits: None takes those whose folders are there, and refuses to leave out one whose archive
            lies there packed.
    """
    base, found = _split_folders(
        Path(source).expanduser(), chosen_splits("lisa_full", SPLITS, splits)
    )
    folder = ImageFolder(base if images is None else images)
    stems = {split: _stems(base / split, folder.folder / split) for split in found}
    items = [
        Item(f"{split}/{stem}", partial(_annotated_image, split, stem, base, folder))
        for split in found
        for stem in stems[split]
    ]
    return Release(
        benchmark="lisa_full",
        items=items,
        links={"images": folder.folder},
        source={
            "revision": "official",
            "files": [
                {
                    "name": split,
                    "split": split,
                    "images": len(stems[split]),
                    "published_images": PUBLISHED_IMAGES[split],
                    "sha256": _digest(base / split, stems[split]),
                }
                for split in found
            ],
            "box": "of the pixels painted by the rule of ReasonSeg (descending area, outline "
            "included, ignore shapes cut, flag dropped)",
        },
    )


def _split_folders(source: Path, wanted: list[str] | None) -> tuple[Path, list[str]]:
    """The folder that holds the splits, and which of them are used."""
    if not source.is_dir():
        raise UserError(f"{source} is no folder; expected that of ReasonSeg, with val/ and test/")
    for base in (source, source / "ReasonSeg", source / "reason_seg" / "ReasonSeg"):
        found = [split for split in SPLITS if (base / split).is_dir()]
        if not found:
            continue
        missing = [split for split in wanted or () if split not in found]
        if missing:
            raise UserError(
                f"{base} has no folder {' and '.join(missing)}; it has: {listing(base)}. Unpack "
                "the archive of that split there"
            )
        for path in base.iterdir() if wanted is None else ():
            split = path.name.partition(".")[0]
            if is_archive(path) and split in SPLITS and split not in found:
                raise UserError(
                    f"{path} is still packed; unpack it there, or leave that split out with "
                    f"--split {found[0]}"
                )
        return base, wanted or found
    raise UserError(
        f"{source} holds neither val/ nor test/, directly or below ReasonSeg/; it has: "
        f"{listing(source)}. Give the folder that ReasonSeg's archives were unpacked to"
    )


def _stems(annotations: Path, images: Path) -> list[str]:
    """Names, without ending, of all annotation files and images, so that a lone one is seen."""
    paths = [*annotations.glob("*.json"), *images.glob("*.jpg")]
    # Archives made on a Mac hold a "._name" beside each file.
    return sorted({path.stem for path in paths if not path.name.startswith(".")})


def _digest(folder: Path, stems: Sequence[str]) -> str:
    """SHA-256 over the names and contents of a split's annotation files."""
    digest = hashlib.sha256()
    for stem in stems:
        path = folder / f"{stem}.json"
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError:
            content = "missing"  # a fault of its item
        # A name need not be Unicode text; its item is refused later.
        digest.update(os.fsencode(stem) + f"\0{content}\n".encode())
    return digest.hexdigest()


def _annotated_image(
    split: str, stem: str, base: Path, folder: ImageFolder
) -> list[GroundingSample]:
    path, where = base / split / f"{stem}.json", f"{split}/{stem}.json"
    if not path.is_file():
        raise ItemError(
            "invalid_row",
            f"{where} does not exist, but {stem}.jpg does; unpack the release's archive again",
        )
    annotation, encoding = _read_annotation(path, where)
    texts, is_sentence = annotation["text"], annotation.get("is_sentence")
    if not isinstance(texts, list) or not texts:
        raise unexpected(f"{where}: field 'text'", texts, "a list of instructions")
    if not isinstance(is_sentence, bool):
        raise unexpected(f"{where}: field 'is_sentence'", is_sentence, "true or false")
    released = f"{split}/{stem}.jpg"
    found = folder.find(released)
    image_wh = folder.size(found)
    stated = annotation.get("imageWidth"), annotation.get("imageHeight")
    if all(type(side) is int for side in stated) and stated != image_wh:
        raise ItemError(
            "size_mismatch",
            f"{where}: its polygons are drawn on {stated[0]}x{stated[1]} pixels, the image "
            f"{folder.folder / found} has {image_wh[0]}x{image_wh[1]} as displayed; use the image "
            "files of the release",
        )
    mask = paint_shapes(_shapes(annotation["shapes"], where), image_wh, where)
    box = mask.box()
    if box is None:
        raise ItemError(
            "no_visible_object",
            f"{where}: no pixel of a target is visible within the image of "
            f"{image_wh[0]}x{image_wh[1]}; the labels of its shapes: "
            f"{', '.join(sorted({str(s['label']) for s in annotation['shapes']})) or 'none'}",
        )
    parts = mask.n_parts()
    return [
        still_sample(
            Origin("lisa_full", split, f"{split}-{stem}-{k}", where, "official", k),
            image=f"images/{found}",
            image_wh=image_wh,
            released=released,
            expression=checked_text(text, f"{where}: text[{k}]").strip(),
            target=Target(0, box, mask.to_json()),
            extra={
                "text_index": k,
                "is_sentence": is_sentence,
                "n_texts": len(texts),
                "parts": parts,
                **({} if encoding == "utf-8" else {"encoding": encoding}),
            },
        )
        for k, text in enumerate(texts)
    ]


def _read_annotation(path: Path, where: str) -> tuple[Mapping[str, Any], str]:
    """A JSON file of ReasonSeg and its encoding, ``utf-8`` or ``cp1252`` as upstream reads them."""
    try:
        raw = path.read_bytes()
        try:
            text, encoding = raw.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            text, encoding = raw.decode("cp1252"), "cp1252"
        annotation = parse_json(text)
    except (OSError, ValueError) as error:  # of decoding, or of JSON
        raise ItemError(
            "invalid_row", f"cannot read {where}: {error}; expected the release's file as it is"
        ) from error
    if not isinstance(annotation, Mapping) or not {"shapes", "text"} <= annotation.keys():
        raise unexpected(f"{where}: it", annotation, "an object with shapes, text and is_sentence")
    if not isinstance(annotation["shapes"], list):
        raise unexpected(f"{where}: field 'shapes'", annotation["shapes"], "a list")
    return annotation, encoding


def _shapes(values: Sequence[Any], where: str) -> list[Shape]:
    shapes = []
    for i, value in enumerate(values):
        at = f"{where}: shapes[{i}]"
        label = text_field(value, "label", at)
        points = value.get("points")
        if not isinstance(points, list) or not all(_is_point(point) for point in points):
            raise unexpected(f"{at}: field 'points'", points, "a list of [x, y] in pixels")
        kind = value.get("shape_type", "polygon")
        if kind != "polygon" and len(points) < 3:
            # Upstream joins any points by lines: of a rectangle it would see the diagonal.
            raise unexpected(f"{at}, of {len(points)} points,", kind, "a polygon")
        shapes.append(Shape(label, tuple((point[0], point[1]) for point in points)))
    return shapes


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list) and len(point) == 2 and all(type(v) in (int, float) for v in point)
    )


# Catalogue

_REASONSEG = ByHand(
    "ReasonSeg (Google Drive folder named in the README of dvlab-research/LISA)",
    "https://drive.google.com/drive/folders/125mewyg5Ao6tZ3ZdJ-1-E3n04LGVELqy",
)

ENTRIES = (
    EXTRACTED.entry(
        title="LISA's ReasonSeg, the boxes that UniVG-R1 scores",
        tasks={"univg_lisa_val": "val", "univg_lisa_test": "test"},
        images=(_REASONSEG,),
        licence="ReasonSeg: not stated",
    ),
    full_entry(
        name="lisa_full",
        title="ReasonSeg itself: polygons painted, all instructions",
        opener=open_lisa_full,
        splits=SPLITS,
        tasks={"univg_lisa_full_val": "val", "univg_lisa_full_test": "test"},
        by_hand=(_REASONSEG,),
        licence="not stated",
    ),
)
