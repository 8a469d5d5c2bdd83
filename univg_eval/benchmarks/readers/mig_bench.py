"""MIG-Bench: ten tasks of free-form grounding over several images.

Li et al., "Migician: Revealing the Magic of Free-Form Multi-Image Grounding in Multimodal Large
Language Models" (2025); annotation file ``MIG_data.json`` of github.com/thunlp/Migician, images
on the Hub as Michael4933/MIG-Bench. A row of the file::

    {"task": "object_tracking",
     "images": ["./MIG-Bench/images/object_tracking/GOT-10k_Val_000150/00000001.jpg", ...],
     "question": "... For the object in the first image marked with red bounding box(<|box_start|>
                  (391,297),(629,719)<|box_end|>), please locate it in the 4th image. ",
     "answer": [0.287, 0.227, 0.641, 0.675],
     "additional_info": "",
     "need_format": false}

``answer`` is x1, y1, x2, y2 on 0-1 of the target image, which the row does not name in a field of
its own: see `_target_image`. Boxes inside questions are on 0-1000.

There are two revisions of the set: ``original`` is the file above (4,295 rows), ``revised`` the
``revised_MIG_bench.json`` that the UniVG-R1 authors score. They are two benchmarks with ids of
their own (``mig_bench-00017``, ``mig_bench_revised-00017``), since scores on one say nothing exact
about the other. Which of them a file is has to be given; it is never guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    AnnotationFile,
    checked_text,
    chosen_splits,
    describe,
    load_json,
    require_field,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry, HubFiles, ImageArchive
from univg_eval.benchmarks.readers.common.release import (
    Item,
    ItemError,
    Release,
    ordinal,
    shared_image_clusters,
    size_of,
)
from univg_eval.boxes import four_numbers
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "ENTRIES",
    "NAMED_IMAGE",
    "REVISIONS",
    "TASKS",
    "Revision",
    "get_revision",
    "image_file",
    "images_folder",
    "open_mig_bench",
    "read_annotations",
    "read_rows",
]

TASKS = (
    *("diff", "view_diff", "common_object", "object_tracking", "multi_view"),
    *("region", "refer_grounding", "group_grounding", "reasoning", "correspondence"),
)
RELEASE_IMAGES = "./MIG-Bench/images/"
SPLIT = "test"
LARGEST_COORDINATE = 1e6


@dataclass(frozen=True, slots=True)
class Revision:
    """One of the two published annotation files.

    Attributes:
        name: ``original`` or ``revised``.
        benchmark: name of the benchmark made from it.
        file_name: what the release calls the file.
        scale: what a coordinate of 1 of the image is in ``answer``; None where it has to be given.
        sha256: of the released file, or None where it is not known.
    """

    name: str
    benchmark: str
    file_name: str
    scale: int | None = None
    sha256: str | None = None


REVISIONS: Mapping[str, Revision] = {
    "original": Revision(
        name="original",
        benchmark="mig_bench",
        file_name="MIG_data.json",
        scale=1,
        sha256="8f6e8fce3720dc6e17462533426d455463cda38b441edc2d70d65afa15681300",
    ),
    "revised": Revision("revised", "mig_bench_revised", "revised_MIG_bench.json"),
}


def get_revision(name: str) -> Revision:
    """The revision of that name; UserError listing the known ones."""
    if name not in REVISIONS:
        raise UserError(f"unknown revision {name!r}; expected one of: {', '.join(REVISIONS)}")
    return REVISIONS[name]


def read_annotations(
    path: str | os.PathLike[str], *, revision: str = "original", scale: int | None = None
) -> list[GroundingSample]:
    """All rows of an annotation file as samples, in file order.

    Args:
        path: the file, e.g. ``MIG_data.json``.
        revision: which of the two published files it is: ``original`` or ``revised``.
        scale: 1 or 1000, the range of the numbers in ``answer``; None takes the revision's own
            (1 for the original) and is refused where that is not known.

    Returns:
        One sample a row. The id is the row's 0-based number in five digits. Rows that share any
        image, directly or through others, share a cluster, named after the first of them.
        ``images`` are the release's paths moved below ``<benchmark>/images/``;
        ``source["images"]`` keeps them as released. Sizes are unknown without the images, so
        ``widths`` and ``heights`` are empty. Boxes stay as released, invalid ones included.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or not JSON, a row breaks the schema or
            does not name its target image (row and field are named), or the boxes contradict the
            scale.
    """
    samples, faults = read_rows(path, revision=revision, scale=scale)
    for error in faults.values():
        more = f" ({len(faults) - 1} more rows are faulty)" if len(faults) > 1 else ""
        raise UserError(f"{error}{more}")
    return samples


def read_rows(
    path: str | os.PathLike[str], *, revision: str = "original", scale: int | None = None
) -> tuple[list[GroundingSample], dict[str, ItemError]]:
    """Like `read_annotations`, but a faulty row is reported, and the others are kept.

    Returns:
        The samples of the sound rows in file order, and the faults of the others by their ids.
        Ids count all rows, so they do not depend on what is faulty.

    Raises:
        UserError: the file cannot be read, is not UTF-8 or not JSON, has no sound row, or its
            boxes contradict the scale.
    """
    known = get_revision(revision)
    scale = _checked_scale(path, known, scale)
    return _read_rows(load_json(Path(path)), known, scale)


def open_mig_bench(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    revision: str = "original",
    scale: int | None = None,
) -> Release:
    """Open a published annotation file with its images as benchmark ``mig_bench`` or its revision.

    Args:
        source: the annotation file, or the folder that holds it, directly or in ``MIG-Bench/``.
        images: where `images_folder` looks; None: beside the annotation file.
        splits: ``["test"]`` or None; there is no other.
        revision, scale: as for `read_annotations`.

    Returns:
        One item a row, in file order, named like its sample (``mig_bench-00017``).

    Raises:
        UserError: as `read_rows` and `images_folder`; the file has the name of the other
            revision's.
    """
    known = get_revision(revision)
    chosen_splits(known.benchmark, (SPLIT,), splits)
    path = _annotation_file(Path(source).expanduser(), known)
    scale = _checked_scale(path, known, scale)
    file = load_json(path)
    samples, faults = _read_rows(file, known, scale)
    folder = images_folder(path.parent if images is None else Path(images).expanduser()).resolve()
    size_of_image = cache(size_of)
    items = {
        sample.id: Item(sample.id, partial(_with_own_sizes, sample, folder, size_of_image))
        for sample in samples
    } | {name: Item(name, partial(_refuse, error)) for name, error in faults.items()}
    return Release(
        benchmark=known.benchmark,
        items=[items[key] for key in sorted(items)],
        links={"images": folder},
        source={
            "file": path.name,
            "sha256": file.sha256,
            "is_released_file": None if known.sha256 is None else file.sha256 == known.sha256,
            "revision": known.name,
            "scale": scale,
        },
    )


def image_names(
    source: str | os.PathLike[str], *, revision: str = "original", scale: int | None = None
) -> list[str]:
    """The images of an annotation file, as paths below the release's folder of images, sorted.

    Args:
        source, revision, scale: as for `open_mig_bench`.
    """
    path = _annotation_file(Path(source).expanduser(), get_revision(revision))
    samples, _ = read_rows(path, revision=revision, scale=scale)
    images = {image for sample in samples for image in sample.images}
    return sorted(image_file(image, Path()).as_posix() for image in images)


# First folders below images/ in the release.
_IMAGE_FOLDERS = (
    *("common", "correspondence", "group_grounding", "multi_view", "object_tracking"),
    *("reasoning", "refer_grounding", "region", "static_diff", "view_diff"),
)


def images_folder(folder: Path) -> Path:
    """Where a release keeps its images, `folder` or below it; UserError if they are not there."""
    for candidate in (folder / "MIG-Bench" / "images", folder / "images", folder):
        if any((candidate / name).is_dir() for name in _IMAGE_FOLDERS):
            return candidate
    raise UserError(
        f"no images of MIG-Bench in {folder}; expected its folders (common, static_diff, …) there, "
        "or in images/ or MIG-Bench/images/ below it"
    )


def image_file(image: str, folder: Path) -> Path:
    """The file of an entry of `GroundingSample.images` in the release's folder of images."""
    return folder / image.split("/images/", 1)[1]


def _annotation_file(source: Path, known: Revision) -> Path:
    if not source.is_dir():
        for other in REVISIONS.values():
            if other != known and source.name == other.file_name:
                raise UserError(
                    f"{source} has the name of the file of revision {other.name!r}; expected that "
                    f"of {known.name!r}, or prepare {other.benchmark!r}"
                )
        return source
    for candidate in (source / known.file_name, source / "MIG-Bench" / known.file_name):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(path.name for path in source.glob("*.json"))) or "no JSON file"
    raise UserError(
        f"{source} does not hold the annotation file {known.file_name}, nor does MIG-Bench/ in it; "
        f"found: {names}"
    )


def _with_own_sizes(
    sample: GroundingSample, folder: Path, size_of_image: Callable[[Path], tuple[int, int]]
) -> list[GroundingSample]:
    """The sample with the sizes of its images, read from the files' headers."""
    sizes = [size_of_image(image_file(image, folder)) for image in sample.images]
    widths, heights = zip(*sizes, strict=True)
    return [replace(sample, widths=widths, heights=heights)]


def _refuse(error: ItemError) -> list[GroundingSample]:
    raise error


def _checked_scale(path: str | os.PathLike[str], known: Revision, scale: int | None) -> int:
    scale = known.scale if scale is None else scale
    if scale not in (1, 1000):
        raise UserError(
            f"the scale of the boxes in {path} is {scale!r}; expected 1 (numbers on 0-1) or 1000 "
            f"(on 0-1000). The file of revision {known.name!r} does not state it: give --scale"
        )
    return scale


def _read_rows(
    file: AnnotationFile, known: Revision, scale: int
) -> tuple[list[GroundingSample], dict[str, ItemError]]:
    rows = file.value
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{file.path}: holds {describe(rows)}; expected a JSON list of rows")
    samples: list[GroundingSample] = []
    faults: dict[str, ItemError] = {}
    for number, row in enumerate(rows):
        try:
            samples.append(_sample(row, number, f"{file.path.name} row {number}", known, scale))
        except ItemError as error:
            faults[_row_id(known, number)] = error
    if not samples:
        first = next(iter(faults.values()))
        raise UserError(f"{file.path}: none of {len(faults)} rows is sound; {first}")
    _require_plausible_scale(samples, file.path, scale)
    clusters = shared_image_clusters([sample.images for sample in samples])
    return [
        replace(sample, cluster=samples[first].id)
        for sample, first in zip(samples, clusters, strict=True)
    ], faults


def _row_id(revision: Revision, number: int) -> str:
    return f"{revision.benchmark}-{number:05d}"


def _sample(row: Any, number: int, where: str, known: Revision, scale: int) -> GroundingSample:
    """A row as a sample, still without its cluster."""
    task = text_field(row, "task", where)
    if task not in TASKS:
        raise unexpected(f"{where}: field 'task'", task, f"one of: {', '.join(sorted(TASKS))}")
    images = require_field(row, "images", where)
    if not isinstance(images, list) or not images or not all(map(_is_release_path, images)):
        expected = f"paths that begin with {RELEASE_IMAGES!r} and stay below it"
        raise unexpected(f"{where}: field 'images'", images, expected)
    question = text_field(row, "question", where)
    info = row.get("additional_info", "")
    if info != "":
        checked_text(info, f"{where}: field 'additional_info'")
    need_format = row.get("need_format", True)
    if not isinstance(need_format, bool):
        raise unexpected(f"{where}: field 'need_format'", need_format, "true or false")
    answer = require_field(row, "answer", where)
    numbers = four_numbers(answer, LARGEST_COORDINATE)
    if numbers is None:
        expected = f"four finite numbers x1, y1, x2, y2 on 0-{scale}"
        raise unexpected(f"{where}: field 'answer'", answer, expected)
    x1, y1, x2, y2 = (value / scale for value in numbers)
    target_image = _target_image(task, len(images), question, info)
    if target_image is None:
        field = {"diff": "images", "group_grounding": "additional_info"}.get(task, "question")
        expected = f"it to name one of the row's {len(images)} images as the target"
        if task == "diff":
            expected = "two images"
        raise unexpected(f"{where}: field {field!r}", row.get(field), expected, "target_underived")
    return GroundingSample(
        id=_row_id(known, number),
        benchmark=known.benchmark,
        task=task,
        split=SPLIT,
        images=tuple(
            f"{known.benchmark}/images/{image.removeprefix(RELEASE_IMAGES)}" for image in images
        ),
        widths=(),
        heights=(),
        instruction=question,
        targets=(Target(image=target_image, box=(x1, y1, x2, y2)),),
        image_is_given=task != "group_grounding",
        given_image=None if task == "group_grounding" else target_image,
        cluster="",
        source={
            "file": known.file_name,
            "revision": known.name,
            "row": number,
            "images": images,
        },
        extra={"need_format": need_format, "additional_info": info},
    )


def _is_release_path(image: Any) -> bool:
    """Whether it is a path below the release's images; it is joined to a folder later."""
    return (
        isinstance(image, str)
        and image.startswith(RELEASE_IMAGES)
        and ".." not in PurePosixPath(image).parts
        and "\\" not in image
        and image.isprintable()
    )


def _require_plausible_scale(samples: Sequence[GroundingSample], path: Path, scale: int) -> None:
    """Refuse a file whose boxes are mostly on the other scale: it would be excluded silently."""
    if scale == 1:
        wrong = sum(max(sample.box) > 1.5 for sample in samples)
        reading = "above 1.5 although --scale 1 says that they are on 0-1"
    else:
        wrong = sum(max(sample.box) * scale <= 1 for sample in samples)
        reading = "not above 1 although --scale 1000 says that they are on 0-1000"
    if wrong * 2 > len(samples):
        raise UserError(
            f"{path}: the boxes ('answer') of {wrong} of {len(samples)} rows are {reading}; give "
            "the file's own scale"
        )


_WORDS = tuple(ordinal(index) for index in range(10))
# "the third image", "the 3th image" (the file's own spelling), "Image-2", "Image2".
NAMED_IMAGE = re.compile(
    rf"\b(?:(?P<word>{'|'.join(_WORDS)})|(?P<ordinal>\d{{1,2}})(?:st|nd|rd|th))\s+image\b"
    r"|\bimage\s?-?(?P<label>\d{1,2})\b",
    re.IGNORECASE,
)
_REGION = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th) region picture in the source image\b")
_GROUP_ANSWER = re.compile(rf"\s*It is in the ({'|'.join(_WORDS)}) image\b")


def _target_image(task: str, n_images: int, question: str, info: str) -> int | None:
    """The 0-based image that a row's answer lies on; None where the text does not give one.

    * ``region``: the source image, which is the first; the regions follow it.
    * ``diff``: the second of two images of one size (the edited one).
    * ``group_grounding``: the question does not name it; ``additional_info`` opens with
      "It is in the fourth image." This is for scoring only: the model has to find the image.
    * the others: the image that the question names last ("For the object in the first image …,
      please locate it in the 4th image", "… in Image-2").
    """
    if task == "region":
        match = _REGION.search(question)
        return 0 if match is not None and 1 <= int(match[1]) < n_images else None
    if task == "diff":
        return 1 if n_images == 2 else None
    if task == "group_grounding":
        match = _GROUP_ANSWER.match(info)
        index = -1 if match is None else _WORDS.index(match[1])
    else:
        index = -1
        for match in NAMED_IMAGE.finditer(question):
            number = match["ordinal"] or match["label"]
            index = int(number) - 1 if number else _WORDS.index(match["word"].lower())
    return index if 0 <= index < n_images else None


_REPO = "Michael4933/MIG-Bench"
_COMMIT = "3c3615aa1b30a519b49d52333d5351a6813b8b48"
_REVISED_REPO = "GD-ML/UniVG-R1-data"
_REVISED_COMMIT = "9a1fa8e4f1a1a05b2cff40804236c82e60054678"
_ARCHIVES = (ImageArchive("images.zip", ("MIG-Bench/images", "images")),)

ENTRIES = (
    CatalogEntry(
        name="mig_bench",
        title="MIG-Bench, ten tasks over several images, the original annotations",
        opener=open_mig_bench,
        options=("scale",),
        fixed={"revision": "original"},
        tasks={"univg_mig_bench": None},
        hub=(HubFiles(_REPO, _COMMIT, ("MIG_data.json", "images.zip")),),
        images_on_hub=True,
        by_hand=(
            ByHand(
                "MIG_data.json and images.zip (1.01 GB)", f"https://huggingface.co/datasets/{_REPO}"
            ),
        ),
        image_names=image_names,
        image_archives=_ARCHIVES,
        licence="Apache-2.0 (Hub card), MIT (repository thunlp/Migician)",
        comparable_with_published=True,
        published="the table of the Migician paper; UniVG-R1's table used the revised annotations",
    ),
    CatalogEntry(
        name="mig_bench_revised",
        title="MIG-Bench with the annotations that the UniVG-R1 authors revised",
        opener=open_mig_bench,
        options=("scale",),
        fixed={"revision": "revised"},
        tasks={"univg_mig_bench_revised": None},
        hub=(
            HubFiles(_REVISED_REPO, _REVISED_COMMIT, ("revised_MIG_bench.json",)),
            HubFiles(_REPO, _COMMIT, ("images.zip",)),
        ),
        images_on_hub=True,
        by_hand=(
            ByHand("revised_MIG_bench.json", f"https://huggingface.co/datasets/{_REVISED_REPO}"),
            ByHand("images.zip (1.01 GB)", f"https://huggingface.co/datasets/{_REPO}"),
        ),
        image_names=image_names,
        image_archives=_ARCHIVES,
        licence="annotations: MIT (Hub card of GD-ML/UniVG-R1-data); images: as mig_bench",
        comparable_with_published=True,
        published="the MIG-Bench table of the UniVG-R1 paper",
    ),
)
