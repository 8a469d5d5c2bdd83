"""LISA's ReasonSeg: one image, one instruction that takes reasoning, one box.

Lai et al., "LISA: Reasoning Segmentation via Large Language Model" (CVPR 2024). Two benchmarks:

``lisa`` is made from the boxes that the UniVG-R1 authors extracted and score (GD-ML/UniVG-R1-data,
``zero_shot_evaluation/lisa_val.json`` and ``lisa_test.json``), and comparable with their table. A
row::

    {"image_path": "…/ReasonSeg/val/3007.jpg", "instruction": "…", "boxes": [[x1, y1, x2, y2]]}

Boxes are in pixels; the first one is the target, like in AMAP-ML/UniVG-R1,
``eval/zero_shot/lisa_evaluation/eval.py``. Boxes are divided by the size of the image as
displayed; upstream takes the size as stored, which differs for an image that carries an EXIF
orientation that lays it on its side.

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
    AnnotationFile,
    checked_text,
    chosen_splits,
    default_images,
    describe,
    listing,
    load_json,
    parse_json,
    pixel_box,
    require_rows,
    text_field,
)
from univg_eval.benchmarks.readers.common.entry import ByHand
from univg_eval.benchmarks.readers.common.masks import Shape, paint_shapes
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

__all__ = ["ENTRIES", "SPLITS", "open_lisa", "open_lisa_full"]

SPLITS = ("val", "test")
PUBLISHED_IMAGES = {"val": 200, "test": 779}
"""Images a split, as the LISA paper counts them."""

_FIELDS = ("image_path", "instruction", "boxes")
_SPLIT_FOLDERS = ("train", *SPLITS)


def open_lisa(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Release:
    """Open UniVG-R1's extracted boxes as benchmark ``lisa``.

    Args:
        source: a folder with lisa_val.json, lisa_test.json or both, or with
            zero_shot_evaluation/ that holds them; or one such file, whose name or `splits` says
            which split it is.
        images: the folder of ReasonSeg's images; None: ``images`` beside the files, else their
            own folder. Paths in the files are looked up below it, see `release.ImageFolder`.
        splits: ``val``, ``test`` or both; None takes those whose files are there.

    Returns:
        One item a row. Both files are held in memory (some hundred rows).

    Raises:
        UserError: the files are not there or not those of this set; the image folder does not
            exist.
    """
    source = Path(source).expanduser()
    wanted = chosen_splits("lisa", SPLITS, splits)
    files = {split: load_json(path) for split, path in _extracted_files(source, wanted).items()}
    rows = {split: require_rows(file, _FIELDS) for split, file in files.items()}
    folder = default_images(images, next(iter(files.values())).path.parent)
    items = [
        Item(
            key=f"{split}/{number:05d}",
            convert=partial(_extracted_row, row, split, number, files[split], folder),
        )
        for split in files
        for number, row in enumerate(rows[split])
    ]
    return Release(
        benchmark="lisa",
        items=items,
        n_items=len(items),
        links={"images": folder.folder},
        source={
            "revision": "univg-r1-extracted",
            "files": [
                {**files[split].to_dict(), "split": split, "rows": len(rows[split])}
                for split in files
            ],
            "box": "boxes[0] in pixels, divided by the image's size as displayed",
        },
    )


def _extracted_files(source: Path, wanted: list[str] | None) -> dict[str, Path]:
    """Split → file."""
    if source.is_file():
        named = [split for split in SPLITS if source.name == f"lisa_{split}.json"]
        if wanted is None and not named:
            raise UserError(
                f"{source}: its name does not say which split it is; expected lisa_val.json or "
                "lisa_test.json, or say --split val or --split test"
            )
        if wanted is not None and (len(wanted) > 1 or (named and wanted != named)):
            raise UserError(
                f"{source} is one file, but the split{'s' if len(wanted) > 1 else ''} "
                f"{' and '.join(wanted)} {'were' if len(wanted) > 1 else 'was'} asked for; give "
                "the folder that holds the files of the splits"
            )
        return {(wanted or named)[0]: source}
    _require_folder(source, "the folder with lisa_val.json and lisa_test.json, or one of them")
    for base in (source, source / "zero_shot_evaluation"):
        found = {
            split: base / f"lisa_{split}.json"
            for split in wanted or SPLITS
            if (base / f"lisa_{split}.json").is_file()
        }
        if found and (wanted is None or len(found) == len(wanted)):
            return found
    names = " and ".join(f"lisa_{split}.json" for split in wanted or SPLITS)
    raise UserError(
        f"{source} does not hold {names}, nor does zero_shot_evaluation below it; it has: "
        f"{listing(source)}. They come from GD-ML/UniVG-R1-data, folder zero_shot_evaluation"
    )


def _require_folder(source: Path, expected: str) -> None:
    if not source.is_dir():
        found = "is no folder" if source.exists() else "does not exist"
        raise UserError(f"{source} {found}; expected {expected}")


def _extracted_row(
    row: Any, split: str, number: int, file: AnnotationFile, folder: ImageFolder
) -> list[GroundingSample]:
    where = f"{file.path.name} row {number}"
    released = text_field(row, "image_path", where)
    instruction = text_field(row, "instruction", where)
    boxes = row.get("boxes")
    if not isinstance(boxes, list) or not boxes:
        raise ItemError(
            "invalid_row",
            f"{where}: field 'boxes' is {describe(boxes)}; expected a list of boxes, the target "
            "first",
        )
    told = PurePosixPath(released.replace("\\", "/")).parent.name
    if told in _SPLIT_FOLDERS and told != split:
        raise ItemError(
            "invalid_row",
            f"{where}: the image {describe(released)} is one of {told!r}, but the file is taken "
            f"for that of {split!r}; give the file of the split that is meant",
        )
    found = folder.find(released)
    image_wh = size_of(folder.folder / found)
    return [
        still_sample(
            benchmark="lisa",
            key=f"{split}-{number:05d}",
            split=split,
            image=f"images/{found}",
            image_wh=image_wh,
            expression=instruction,
            target=Target(0, pixel_box(boxes[0], image_wh, f"{where}: field 'boxes[0]'")),
            source={
                "file": file.path.name,
                "revision": "univg-r1-extracted",
                "row": number,
                "images": [released],
            },
            extra={"n_boxes": len(boxes)} if len(boxes) > 1 else {},
        )
    ]


def open_lisa_full(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Release:
    """Open ReasonSeg as benchmark ``lisa_full``.

    Args:
        source: the folder that holds val/ and test/ (one is enough), or one that holds it as
            ReasonSeg/ or reason_seg/ReasonSeg/.
        images: the folder that holds val/ and test/ with the images, where these do not lie
            beside their JSON files.
        splits: ``val``, ``test`` or both; None takes those whose folders are there, and refuses to
            leave out one whose archive lies there packed.

    Returns:
        One item an image, with one sample a text, sorted by the file's name. Names alone are held
        in memory; a JSON file is read again when its item is converted.

    Raises:
        UserError: the folder holds no split with images and JSON files, or JSON files of another
            form; the image folder does not exist.
    """
    source = Path(source).expanduser()
    wanted = chosen_splits("lisa_full", SPLITS, splits)
    base, found_splits = _split_folders(source, wanted)
    folder = ImageFolder(base if images is None else images)
    stems = {split: _stems(base / split, folder.folder / split) for split in found_splits}
    for split in found_splits:
        _require_annotations(base / split, stems[split])
    items = [
        Item(
            key=f"{split}/{stem}",
            convert=partial(_annotated_image, split, stem, base, folder),
        )
        for split in found_splits
        for stem in stems[split]
    ]
    return Release(
        benchmark="lisa_full",
        items=items,
        n_items=len(items),
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
                for split in found_splits
            ],
            "box": "of the pixels painted by the rule of ReasonSeg (descending area, outline "
            "included, ignore shapes cut, flag dropped)",
        },
    )


def _split_folders(source: Path, wanted: list[str] | None) -> tuple[Path, list[str]]:
    """The folder that holds the splits, and which of them are used."""
    _require_folder(source, "the folder of ReasonSeg, with val/ and test/ in it")
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
        if wanted is None:
            _require_all_unpacked(base, found)
        return base, wanted or found
    raise UserError(
        f"{source} holds neither val/ nor test/, directly or below ReasonSeg/; it has: "
        f"{listing(source)}. Give the folder that ReasonSeg's archives were unpacked to"
    )


def _require_all_unpacked(base: Path, found: Sequence[str]) -> None:
    """Refuse to leave out a split because its archive lies there still packed."""
    for path in sorted(base.iterdir()):
        split = path.name.partition(".")[0]
        if is_archive(path) and split in SPLITS and split not in found:
            raise UserError(
                f"{path} is still packed; unpack it there, or leave that split out with "
                f"{' '.join(f'--split {name}' for name in found)}"
            )


def _stems(annotations: Path, images: Path) -> list[str]:
    """Names, without ending, of all annotation files and images, so that a lone one is seen."""
    found = {path.stem for path in annotations.glob("*.json")}
    found |= {path.stem for path in images.glob("*.jpg")}
    # Archives made on a Mac hold a "._name" beside each file.
    return sorted(stem for stem in found if not stem.startswith("."))


def _require_annotations(folder: Path, stems: Sequence[str]) -> None:
    """Refuse a folder without annotation files, or with those of another set."""
    files = [path for stem in stems if (path := folder / f"{stem}.json").is_file()]
    if not files:
        raise UserError(
            f"{folder} holds no JSON files; expected ReasonSeg's images, each with a JSON file of "
            f"its name. It has: {listing(folder)}"
        )
    problems = []
    for path in files:
        try:
            _read_annotation(path, path.name)
        except ItemError as error:
            problems.append(error)
        else:
            return
    raise UserError(
        f"none of the {len(files)} JSON files in {folder} is one of ReasonSeg: {problems[0]}"
    )


def _digest(folder: Path, stems: Sequence[str]) -> str:
    """SHA-256 over the names and contents of a split's annotation files."""
    digest = hashlib.sha256()
    for stem in stems:
        path = folder / f"{stem}.json"
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
        except OSError:
            content = "unreadable"  # a fault of its item
        # A name need not be Unicode text; its item is refused later.
        digest.update(os.fsencode(stem) + f"\0{content}\n".encode())
    return digest.hexdigest()


def _annotated_image(
    split: str, stem: str, base: Path, folder: ImageFolder
) -> list[GroundingSample]:
    path = base / split / f"{stem}.json"
    where = f"{split}/{stem}.json"
    if not path.is_file():
        raise ItemError(
            "invalid_row",
            f"{where} does not exist, but {stem}.jpg does; unpack the release's archive again",
        )
    annotation, encoding = _read_annotation(path, where)
    texts, is_sentence = _texts(annotation, where)
    released = f"{split}/{stem}.jpg"
    found = folder.find(released)
    image = folder.folder / found
    image_wh = size_of(image)
    _require_stated_size(annotation, image_wh, image, where)
    mask = paint_shapes(_shapes(annotation, where), image_wh, where)
    box = mask.box()
    if box is None:
        raise ItemError(
            "no_visible_object",
            f"{where}: no pixel of a target is visible within the image of "
            f"{image_wh[0]}x{image_wh[1]}; the {len(annotation['shapes'])} shapes have the labels: "
            f"{', '.join(sorted({str(s['label']) for s in annotation['shapes']})) or 'none'}",
        )
    facts: dict[str, Any] = {
        "is_sentence": is_sentence,
        "n_texts": len(texts),
        "parts": mask.n_parts(),
    }
    if encoding != "utf-8":
        facts["encoding"] = encoding
    return [
        still_sample(
            benchmark="lisa_full",
            key=f"{split}-{stem}-{k}",
            split=split,
            image=f"images/{found}",
            image_wh=image_wh,
            expression=text.strip(),
            target=Target(0, box, mask.to_json()),
            source={"file": where, "revision": "official", "row": k, "images": [released]},
            extra={"text_index": k, **facts},
        )
        for k, text in enumerate(texts)
    ]


def _read_annotation(path: Path, where: str) -> tuple[Mapping[str, Any], str]:
    """A JSON file of ReasonSeg and its encoding, ``utf-8`` or ``cp1252`` as upstream reads them."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ItemError("invalid_row", f"cannot read {where}: {error.strerror or error}") from error
    try:
        text, encoding = raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        try:
            text, encoding = raw.decode("cp1252"), "cp1252"
        except UnicodeDecodeError as error:
            raise ItemError(
                "invalid_row",
                f"{where}: neither UTF-8 nor cp1252 (byte {error.start} is "
                f"0x{raw[error.start]:02x}); expected the release's file as it is",
            ) from error
    try:
        annotation = parse_json(text)
    except ValueError as error:
        raise ItemError(
            "invalid_row", f"{where}: {error}; expected the release's file as it is"
        ) from error
    if not isinstance(annotation, Mapping) or not {"shapes", "text"} <= annotation.keys():
        raise ItemError(
            "invalid_row",
            f"{where}: is {describe(annotation)}; expected an object with shapes, text and "
            "is_sentence",
        )
    if not isinstance(annotation["shapes"], list):
        raise ItemError(
            "invalid_row",
            f"{where}: field 'shapes' is {describe(annotation['shapes'])}; expected a list",
        )
    return annotation, encoding


def _texts(annotation: Mapping[str, Any], where: str) -> tuple[list[str], bool]:
    texts = annotation["text"]
    if not isinstance(texts, list) or not texts:
        raise ItemError(
            "invalid_row",
            f"{where}: field 'text' is {describe(texts)}; expected a list of instructions",
        )
    is_sentence = annotation.get("is_sentence")
    if not isinstance(is_sentence, bool):
        raise ItemError(
            "invalid_row",
            f"{where}: field 'is_sentence' is {describe(is_sentence)}; expected true or false",
        )
    return [checked_text(text, f"{where}: text[{k}]") for k, text in enumerate(texts)], is_sentence


def _require_stated_size(
    annotation: Mapping[str, Any], image_wh: tuple[int, int], image: Path, where: str
) -> None:
    """Where a labelme file states its image's size, the image must have it."""
    stated = annotation.get("imageWidth"), annotation.get("imageHeight")
    if all(type(side) is int for side in stated) and stated != image_wh:
        raise ItemError(
            "size_mismatch",
            f"{where}: its polygons are drawn on {stated[0]}x{stated[1]} pixels, the image {image} "
            f"has {image_wh[0]}x{image_wh[1]} as displayed; use the image files of the release",
        )


def _shapes(annotation: Mapping[str, Any], where: str) -> list[Shape]:
    shapes = []
    for i, shape in enumerate(annotation["shapes"]):
        label = text_field(shape, "label", f"{where}: shapes[{i}]")
        points = shape.get("points")
        if not isinstance(points, list) or not all(_is_point(point) for point in points):
            raise ItemError(
                "invalid_row",
                f"{where}: shapes[{i}]: field 'points' is {describe(points)}; expected a list of "
                "[x, y] in pixels",
            )
        kind = shape.get("shape_type", "polygon")
        if kind != "polygon" and len(points) < 3:
            # Upstream joins any points by lines: of a rectangle it would see the diagonal.
            raise ItemError(
                "invalid_row",
                f"{where}: shapes[{i}] is a {describe(kind)} given by {len(points)} points; "
                "expected a polygon",
            )
        shapes.append(Shape(label, tuple((point[0], point[1]) for point in points)))
    return shapes


def _is_point(point: Any) -> bool:
    return (
        isinstance(point, list) and len(point) == 2 and all(type(v) in (int, float) for v in point)
    )


_REASONSEG = ByHand(
    "ReasonSeg (Google Drive folder named in the README of dvlab-research/LISA)",
    "https://drive.google.com/drive/folders/125mewyg5Ao6tZ3ZdJ-1-E3n04LGVELqy",
)

ENTRIES = (
    extracted_entry(
        name="lisa",
        title="LISA's ReasonSeg, the boxes that UniVG-R1 scores",
        opener=open_lisa,
        splits=SPLITS,
        tasks={"univg_lisa_val": "val", "univg_lisa_test": "test"},
        files=("lisa_val.json", "lisa_test.json"),
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
