"""A run as COCO files, which FiftyOne, supervision, Label Studio and cocoapi read.

The folder holds ``annotations.json`` (the truth), ``results.json`` (the boxes of the run) and
``images/``.

One image of one sample is one COCO image, with a file of its own: boxes of one instruction are
then never held against the truth of another that shares the image, and readers that know images by
file name keep them apart. Where the image is given and has the only target, it alone is there; else
every image of the sample, since the model chooses among them. So two runs over the same samples
have the same ``annotations.json``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from univg_eval.boxes import Box
from univg_eval.errors import UserError, install_command
from univg_eval.files import whole_folder
from univg_eval.images.reading import image_header, load_reference, split_reference
from univg_eval.report.run_data import Outcome, ReportData
from univg_eval.report.text import printable_tree
from univg_eval.samples import GroundingSample, data_root

__all__ = ["CocoExport", "export_coco"]

# What viewers show as it is; other kinds are written anew as PNG.
_SHOWN_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
_CATEGORY = {"id": 1, "name": "object", "supercategory": "object"}


@dataclass(frozen=True, slots=True)
class CocoExport:
    """What was written.

    Attributes:
        folder: with the files.
        benchmark: what ran.
        samples, images, annotations, results: how many are in the files.
        excluded: ids of samples left out for an invalid true box, as in the score.
        unreadable: id of a sample left out → why one of its images cannot be read.
    """

    folder: Path
    benchmark: str
    samples: int
    images: int
    annotations: int
    results: int
    excluded: list[str]
    unreadable: dict[str, str]


def export_coco(
    data: ReportData,
    folder: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CocoExport:
    """Write a run as COCO files.

    Boxes are [x, y, width, height] in pixels of their image, upright. Every predicted box has score
    1.0, as models give none. It lies on the given image, or that which the response names; where it
    names none, on the target's, as acc@0.5 has it, else on the sample's first.

    Image files are linked where the file system allows (hard links), else copied; frames of videos,
    and what is not stored upright or in a common format, are written as PNG.

    Args:
        data: of one run, see `univg_eval.report.run_data.collect`.
        folder: must not exist, or be empty; appears only when whole.
        root: the data root.
        progress: called with (samples done, samples in all).

    Raises:
        UserError: the data are of several runs, the folder holds something or cannot be written
            to, or masks need pycocotools, which is not installed.
    """
    folder = Path(folder)
    if len(data.runs) != 1:
        raise UserError(f"{len(data.runs)} runs of {data.benchmark}; an export is of one run")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; choose another folder or remove it")
    excluded: list[str] = []
    unreadable: dict[str, str] = {}
    try:
        with whole_folder(folder, replace=False) as new:
            files = _Files(data_root(root), new)
            (new / "images").mkdir()
            images: list[dict[str, Any]] = []
            annotations: list[dict[str, Any]] = []
            results: list[dict[str, Any]] = []
            for done, sample in enumerate(data.samples):
                if progress is not None:
                    progress(done, len(data.samples))
                outcome = data.runs[0].outcomes[sample.id]
                if outcome.score.excluded:
                    excluded.append(sample.id)
                    continue
                try:
                    added = _images(sample, len(images) + 1, files)
                except UserError as error:
                    unreadable[sample.id] = str(error)
                    continue
                images += added
                annotations += _annotations(sample, added, len(annotations))
                results += _results(outcome, added)
            info = {
                "description": f"{data.benchmark}, written by univg {version('univg')}",
                "fingerprint": data.runs[0].record.manifest.dataset.fingerprint,
            }
            truth = {"info": info, "licenses": [], "images": images, "annotations": annotations}
            truth["categories"] = [_CATEGORY]
            for name, value in (("annotations", truth), ("results", results)):
                text = json.dumps(printable_tree(value), ensure_ascii=False, allow_nan=False)
                (new / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}; choose another folder"
        ) from error
    left_out = len(excluded) + len(unreadable)
    return CocoExport(
        folder=folder,
        benchmark=data.benchmark,
        samples=len(data.samples) - left_out,
        images=len(images),
        annotations=len(annotations),
        results=len(results),
        excluded=excluded,
        unreadable=unreadable,
    )


def _images(sample: GroundingSample, first_id: int, files: _Files) -> list[dict[str, Any]]:
    """The entries of a sample's images, whose files are then there; none of them on an error."""
    if sample.image_is_given and sample.kind == "single":
        numbers = [sample.targets[0].image]
    else:
        numbers = list(range(len(sample.images)))
    found: list[dict[str, Any]] = []
    try:
        for image_id, number in enumerate(numbers, start=first_id):
            found.append(_image(sample, number, image_id, files))
    except UserError:
        files.remove([image["file_name"] for image in found])
        raise
    return found


def _image(sample: GroundingSample, number: int, image_id: int, files: _Files) -> dict[str, Any]:
    # The id makes the name unique.
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", sample.id)[:80]
    path, (width, height) = files.add(sample.images[number], f"{image_id:06d}_{name}_{number + 1}")
    label = sample.extra.get("label")
    return {
        "id": image_id,
        "file_name": path.relative_to(files.folder).as_posix(),
        "width": width,
        "height": height,
        "sample_id": sample.id,
        "task": sample.task,
        "instruction": sample.instruction,
        "image_number": number + 1,
        "image_is_given": sample.image_is_given,
        "cluster": sample.cluster,
        **({"label": label} if isinstance(label, str) else {}),
    }


def _annotations(
    sample: GroundingSample, images: list[dict[str, Any]], n_before: int
) -> Iterator[dict[str, Any]]:
    for number, target in enumerate(sample.targets, start=1):
        annotation = {"id": n_before + number, **_box(target.box, target.image, images)}
        width, height = annotation["bbox"][2:]
        annotation |= {"area": width * height, "iscrowd": 0}
        annotation |= {"task": sample.task, "instruction": sample.instruction}
        if target.mask is not None:
            annotation |= {"segmentation": target.mask, "area": _mask_area(target.mask)}
        yield annotation


def _results(outcome: Outcome, images: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    score = outcome.score
    for number, box in outcome.boxes:
        yield _box(box, number, images) | {
            "score": 1.0,
            "iou": score.iou,
            "status": score.status,
            "failure": outcome.failure or None,
        }


def _box(box: Box, number: int | None, images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What true and predicted boxes share; without a number it lies on the first image."""
    by_number = {one["image_number"] - 1: one for one in images}
    image = images[0] if number is None else by_number[number]
    x1, y1, x2, y2 = box
    width, height = image["width"], image["height"]
    return {
        "image_id": image["id"],
        "category_id": _CATEGORY["id"],
        "bbox": [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height],
        "sample_id": image["sample_id"],
    }


def _mask_area(mask: Mapping[str, Any]) -> int:
    """Pixels of a run-length encoding, compressed or not."""
    counts = mask["counts"]
    if not isinstance(counts, str):
        return sum(counts[1::2])
    try:
        from pycocotools.mask import area
    except ImportError as error:
        raise UserError(f"masks need the package pycocotools: {install_command('eval')}") from error
    return int(area({"size": mask["size"], "counts": counts.encode("ascii")}))


class _Files:
    """Brings images into the folder; one that several samples share takes its room once."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self._known: dict[str, tuple[Path, tuple[int, int]]] = {}

    def add(self, reference: str, name: str) -> tuple[Path, tuple[int, int]]:
        """The new file and (width, height) of an image, upright."""
        target = self.folder / "images" / name
        if reference in self._known:
            source, size = self._known[reference]
            target = target.with_name(name + source.suffix)
            _link(source, target)
            return target, size
        path, frame = split_reference(reference)
        source = self.root / path
        header = None if frame is not None else image_header(source, decode=True)
        suffix = source.suffix.lower()
        if header is not None and header.orientation == 1 and suffix in _SHOWN_SUFFIXES:
            target = target.with_name(name + suffix)
            _link(source.resolve(), target)
            size = header.size
        else:
            image = load_reference(reference, self.root)
            target = target.with_name(f"{name}.png")
            image.save(target, compress_level=1)
            size = image.size
        self._known[reference] = target, size
        return target, size

    def remove(self, names: Sequence[str]) -> None:
        """Take files out of the folder again."""
        paths = {self.folder / name for name in names}
        for path in paths:
            path.unlink()
        self._known = {ref: found for ref, found in self._known.items() if found[0] not in paths}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:  # never write into what is there: it may be a link to an image
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
