"""What the four sets of UniVG-R1's zero-shot table share: LISA, LLM-Seg, ReVOS and ReasonVOS.

Each is two benchmarks. One is made from the boxes that the UniVG-R1 authors extracted and score
(GD-ML/UniVG-R1-data, folder zero_shot_evaluation), and is comparable with their table. The other,
``…_full``, is made from the release itself.

Boxes are divided by the size of their image as displayed. Upstream's scorers take the size as
stored, which differs for an image whose EXIF orientation lays it on its side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    find_split_files,
    load_json,
    require_rows,
    text_field,
    unexpected,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry, HubFiles
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    Release,
    Splits,
    StrPath,
    image_instruction,
)
from univg_eval.samples import GroundingSample, Target

__all__ = [
    "ExtractedSet",
    "Origin",
    "Row",
    "full_entry",
    "still_sample",
]

_REPO = "GD-ML/UniVG-R1-data"
_COMMIT = "9a1fa8e4f1a1a05b2cff40804236c82e60054678"
_FOLDER = "zero_shot_evaluation"
_REVISION = "univg-r1-extracted"


# Each split of these is a task of its own, as published tables have a column for each.
_SPLIT = ("lisa", "lisa_full", "ref_l4")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample comes from: a row (from 0) of a file; its id is ``<benchmark>-<key>``.

    The name of the benchmark is also that of its only task.
    """

    benchmark: str
    split: str
    key: str
    file: str
    revision: str
    row: int

    def sample(
        self,
        *,
        images: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        released: Sequence[str],
        instruction: str,
        targets: tuple[Target, ...],
        cluster: str,
        extra: Mapping[str, Any],
        given_image: int | None = None,
    ) -> GroundingSample:
        """The sample; `images` lie below the data root, and the release names them `released`."""
        return GroundingSample(
            id=f"{self.benchmark}-{self.key}",
            benchmark=self.benchmark,
            task=f"{self.benchmark}_{self.split}" if self.benchmark in _SPLIT else self.benchmark,
            split=self.split,
            images=tuple(images),
            widths=tuple(width for width, _ in sizes),
            heights=tuple(height for _, height in sizes),
            instruction=instruction,
            targets=targets,
            image_is_given=True,
            given_image=given_image,
            cluster=cluster,
            source={
                "file": self.file,
                "revision": self.revision,
                "row": self.row,
                "images": list(released),
            },
            extra=extra,
        )


@dataclass(frozen=True, slots=True)
class Row(Origin):
    """A row of one of UniVG-R1's files; `value` is what it holds."""

    value: Any

    @property
    def where(self) -> str:
        """Names it in an error."""
        return f"{self.file} row {self.row}"

    def text(self, name: str) -> str:
        """A field that must be text; ItemError ``invalid_row`` if it is not."""
        return text_field(self.value, name, self.where)

    def checked(self, name: str, is_right: Callable[[Any], Any], expected: str) -> Any:
        """A field of a row that is an object; ItemError ``invalid_row`` if it is not right."""
        value = self.value.get(name)
        if not is_right(value):
            raise unexpected(f"{self.where}: field {name!r}", value, expected)
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedSet:
    """How a benchmark is made from UniVG-R1's boxes.

    Attributes:
        name: of the benchmark.
        files: split → file.
        fields: that a row has.
        find_images: finds the folder of images from what the user gave or None, the folder of the
            files, and the rows.
        convert: makes the sample of a row, with its images in that folder.
        facts: for the manifest: how boxes are derived, and frames named.
    """

    name: str
    files: Mapping[str, str]
    fields: tuple[str, ...]
    find_images: Callable[[StrPath | None, Path, Sequence[Row]], ImageFolder]
    convert: Callable[[Any, Row], GroundingSample]
    facts: Mapping[str, str]

    def open(
        self, source: StrPath, *, images: StrPath | None = None, splits: Splits = None
    ) -> Release:
        """Open the files as a release with one item a row; they are held in memory.

        The source is a folder that holds the files, directly or below zero_shot_evaluation/, or one
        file, whose split is that of its name, else that of `splits`. Without `splits` those are
        taken whose files are there. UserError if something is not there, or of another set.
        """
        wanted = chosen_splits(self.name, list(self.files), splits)
        found = find_split_files(
            source, self.files, wanted, (_FOLDER,), f"{_REPO}, folder {_FOLDER}"
        )
        rows: list[Row] = []
        files = []
        for split, path in found.items():
            file = load_json(path)
            values = require_rows(file, self.fields)
            files.append({**file.to_dict(), "split": split, "rows": len(values)})
            prefix = f"{split}-" if len(self.files) > 1 else ""
            rows += [
                Row(self.name, split, f"{prefix}{i:05d}", path.name, _REVISION, i, value)
                for i, value in enumerate(values)
            ]
        folder = self.find_images(images, path.parent, rows)
        return Release(
            benchmark=self.name,
            items=[
                Item(row.key.replace("-", "/"), partial(self._convert, folder, row)) for row in rows
            ],
            links={"images": folder.folder},
            source={"revision": _REVISION, "files": files, **self.facts},
        )

    def _convert(self, folder: ImageFolder, row: Row) -> list[GroundingSample]:
        return [self.convert(folder, row)]

    def entry(self, *, images: tuple[ByHand, ...], licence: str, **more: Any) -> CatalogEntry:
        """Its entry in the catalogue; `images` and `licence` are those of the images."""
        paths = tuple(f"{_FOLDER}/{file}" for file in self.files.values())
        boxes = ByHand(f"boxes: {' and '.join(paths)}", f"https://huggingface.co/datasets/{_REPO}")
        everything = ByHand(
            "or zero-shot.zip of an author of UniVG-R1 (1.93 GB; its content is undocumented)",
            "https://huggingface.co/datasets/SuleBai/UniVG-R1-zeroshot",
        )
        return CatalogEntry(
            name=self.name,
            opener=self.open,
            splits=tuple(self.files),
            hub=(HubFiles(_REPO, _COMMIT, paths),),
            by_hand=(boxes, *images, everything),
            licence=f"boxes: MIT (Hub card of {_REPO}); {licence}",
            comparable_with_published=True,
            published="the zero-shot table of the UniVG-R1 paper",
            **more,
        )


def full_entry(**more: Any) -> CatalogEntry:
    """The entry of a benchmark on the release itself; see `CatalogEntry`."""
    return CatalogEntry(
        comparable_with_published=False,
        published="none: the UniVG-R1 table was made on boxes that its authors extracted, and the "
        "way to get them from the raw release is not published",
        **more,
    )


def still_sample(
    origin: Origin,
    *,
    image: str,
    image_wh: tuple[int, int],
    released: str,
    expression: str,
    target: Target,
    extra: Mapping[str, Any],
) -> GroundingSample:
    """A sample with one image and one box, in the words of UniVG-R1's zero-shot evaluation.

    `image` lies below the benchmark's own folder, and is the sample's cluster. The expression is
    added to `extra`.
    """
    return origin.sample(
        images=[f"{origin.benchmark}/{image}"],
        sizes=[image_wh],
        released=[released],
        instruction=image_instruction(expression),
        targets=(target,),
        cluster=image,
        extra={"expression": expression, **extra},
    )
