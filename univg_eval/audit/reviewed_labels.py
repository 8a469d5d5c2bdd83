"""The labels of RefCOCO, RefCOCO+ and RefCOCOg that people have reviewed.

Chen et al., "Revisiting Referring Expression Comprehension Evaluation in the Era of Large
Multimodal Models" (2024) call a label wrong whose expression fits several objects, another one or
none, or whose box is inaccurate. Their files, ``refcocos_annotation_reviewed/`` of the Hub dataset
JierunChen/Ref-L4, are named like ``refcoco+_testA_reviewed.json`` and are written as MDETR writes
these sets (ashkamath/mdetr, commit 8cbe208, ``scripts/fine-tuning/refexp_coco_format.py``), each
expression as an image of its own::

    {"images": [{"id": 0, "file_name": "COCO_train2014_000000000009.jpg", "caption": "…", …}, …],
     "annotations": [{"image_id": 0, "bbox": [x, y, width, height], "caption_quality": 1, …}, …]}

with ``caption_quality`` 0 for a wrong label. The dataset's README calls the list ``annotation``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from univg_eval.audit.findings import Case
from univg_eval.benchmarks.readers.common.annotation_files import describe, listing, load_json
from univg_eval.benchmarks.readers.refcoco import DATASETS
from univg_eval.boxes import Box, four_numbers
from univg_eval.errors import UserError
from univg_eval.files import read_json
from univg_eval.samples import LARGEST_SIDE, GroundingSample

__all__ = ["KIND", "compare_with_review", "read_wrong_labels"]

KIND = "wrong_label"
_NAME = re.compile(r"(refcoco\+?|refcocog)_(val|testA|testB|test)_reviewed\.json")
_SAME_BOX = 2.0  # pixels of each side: some forms of the sets round boxes or cut them at the border

_Key = tuple[str, tuple[str, ...]]
"""A photograph's name without its ending, and the words of an expression."""


class _Label(NamedTuple):
    """A reviewed label; corners in pixels."""

    corners: Box
    is_wrong: bool


def compare_with_review(samples: Sequence[GroundingSample], source: Path) -> tuple[list[Case], int]:
    """Which samples have a label that the review calls wrong.

    A sample and a reviewed label belong together when photograph, split and words are the same and
    no side of the box is more than two pixels off; of labels that are alike in all, the first
    belongs to the first sample.

    Args:
        samples: of one of the three benchmarks, as `readers.refcoco` makes them of any form.
        source: a reviewed file under its published name, or the folder with them.

    Returns:
        A case ``wrong_label`` each, in the order of the samples; how many samples have no reviewed
        label.

    Raises:
        UserError: the benchmark is none of the three; the files are not there, are those of
            another set, or not of the form above; or no sample of a reviewed split is in its file.
    """
    benchmark = samples[0].benchmark
    cases, n_unknown = [], 0
    by_split = {
        split: (path, _read_labels(path))
        for split, path in _reviewed_files(benchmark, source).items()
    }
    known = dict.fromkeys(by_split, 0)
    for sample in samples:
        path, labels = by_split.get(sample.split, (None, {}))
        label = _take(sample, labels)
        if path is None or label is None:
            n_unknown += 1
            continue
        known[sample.split] += 1
        if label.is_wrong:
            detail = f"{sample.task}: {sample.extra['expression']!r}, by {path.name}"
            cases.append(Case(KIND, detail, (sample.id,)))
    present = {sample.split for sample in samples}
    for split, (path, _) in by_split.items():
        if split in present and not known[split]:
            raise UserError(
                f"{path}: none of its labels is one of {split} of {benchmark}; expected the "
                "photographs, expressions and boxes of that split. Give the review of this set"
            )
    return cases, n_unknown


def read_wrong_labels(path: Path, fingerprint: str) -> frozenset[str]:
    """The ids of the samples with a wrong label, from what ``univg audit --json`` printed.

    UserError if the file is no such report, is about other samples than those with this
    fingerprint, or holds no reviewed labels.
    """
    try:
        report = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}, a report of `univg audit --json`: {error}") from error
    try:
        given = report["fingerprint"]
        rows = [
            str(row["id"])
            for finding in report["findings"]
            if finding["kind"] == KIND
            for row in finding["rows"]
        ]
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path}: holds {describe(report)}; expected the report that `univg audit NAME "
            "--reviewed PATH --json` prints"
        ) from error
    if given != fingerprint:
        raise UserError(
            f"{path}: is about samples with the fingerprint {given}, those that are scored have "
            f"{fingerprint}: audit the prepared benchmark that is scored"
        )
    if not rows:
        raise UserError(
            f"{path}: has no finding {KIND!r}: audit with --reviewed PATH, the reviewed labels"
        )
    return frozenset(rows)


def _reviewed_files(benchmark: str, source: Path) -> dict[str, Path]:
    """Split → its file."""
    if benchmark not in DATASETS.values():
        raise UserError(
            f"there are reviewed labels of {', '.join(DATASETS.values())}; received: {benchmark}"
        )
    if not source.exists():
        raise UserError(
            f"{source} does not exist; give the folder refcocos_annotation_reviewed of the Hub "
            "dataset JierunChen/Ref-L4, or one of its files"
        )
    found = {}
    for path in sorted(source.iterdir()) if source.is_dir() else [source]:
        match = _NAME.fullmatch(path.name)
        if match is not None and DATASETS[match[1]] == benchmark:
            found[match[2]] = path
    if not found:
        (dataset,) = (name for name, of in DATASETS.items() if of == benchmark)
        holds = f"; it holds: {listing(source)}" if source.is_dir() else ""
        raise UserError(
            f"{source} is no reviewed file of {benchmark}; expected a name such as "
            f"{dataset}_val_reviewed.json, which says the set and the split{holds}"
        )
    return found


def _read_labels(path: Path) -> dict[_Key, list[_Label]]:
    """The labels of a file, those of one photograph and expression in their order."""
    value = load_json(path).value
    parts = value if isinstance(value, Mapping) else {}
    images, rows = parts.get("images"), parts.get("annotations", parts.get("annotation"))
    if not isinstance(images, list) or not isinstance(rows, list):
        raise UserError(
            f"{path}: holds {describe(value)}; expected an object with the lists images and "
            "annotations, as Ref-L4's reviewed files have them"
        )
    labels: dict[_Key, list[_Label]] = {}
    for key, label in _labels(path, images, rows):
        labels.setdefault(key, []).append(label)
    return labels


def _labels(path: Path, images: list[Any], rows: list[Any]) -> Iterator[tuple[_Key, _Label]]:
    try:
        known = {image["id"]: (image["file_name"], image["caption"]) for image in images}
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path}: an entry of images is without {error}; expected id, file_name and caption"
        ) from error
    for number, row in enumerate(rows):
        try:
            (name, caption), quality = known[row["image_id"]], row["caption_quality"]
            numbers = four_numbers(row["bbox"], LARGEST_SIDE)
        except (TypeError, KeyError) as error:
            raise UserError(
                f"{path}: annotations[{number}] is {describe(row)} (not found: {error}); expected "
                "image_id, the id of an entry of images, bbox and caption_quality"
            ) from error
        if type(quality) is not int or numbers is None or not isinstance(caption, str):
            raise UserError(
                f"{path}: annotations[{number}] has caption_quality {describe(quality)}, bbox "
                f"{describe(row['bbox'])} and caption {describe(caption)}; expected a whole number "
                "(0: wrong), x, y, width, height in pixels, and a text"
            )
        x, y, width, height = numbers
        key = (PurePosixPath(str(name)).stem, _words(caption))
        yield key, _Label((x, y, x + width, y + height), quality == 0)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def _take(sample: GroundingSample, labels: dict[_Key, list[_Label]]) -> _Label | None:
    """Remove the sample's label; None if there is none."""
    photograph = sample.cluster.removeprefix(f"{sample.benchmark}-")
    alike = labels.get((photograph, _words(str(sample.extra.get("expression")))), [])
    units = (sample.widths + sample.heights) * 2
    corners = [value * unit for value, unit in zip(sample.box, units, strict=True)]
    for place, label in enumerate(alike):
        if all(abs(a - b) <= _SAME_BOX for a, b in zip(corners, label.corners, strict=True)):
            return alike.pop(place)
    return None
