"""Whether training rows show what a model is later measured on."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from univg_eval.errors import UserError
from univg_eval.images.reading import load_reference, split_reference
from univg_eval.samples import MANIFEST_FILE, GroundingSample, data_root, load_samples
from univg_train.data.rows import Size, TrainingRow

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = [
    "DEFAULT_LEAK_KINDS",
    "LEAK_KINDS",
    "Leak",
    "LeakError",
    "LeakIndex",
    "benchmarks_to_check",
    "index_benchmarks",
]

LeakKind = Literal["image_name", "image_bytes", "image_pixels", "image_look", "instruction"]
LEAK_KINDS: Mapping[str, str] = {
    "image_name": "an image of an evaluation set by its file's name (and folder, if it is short)",
    "image_bytes": "an image file of an evaluation set, byte for byte, under whatever name",
    "image_pixels": "the same pixels, in whatever file format; decodes every image of equal size",
    "image_look": "nearly the same picture, resized or compressed anew; decodes every image",
    "instruction": "the question too (but for case, punctuation, white space) of a shared image",
}
DEFAULT_LEAK_KINDS: tuple[LeakKind, ...] = ("image_name", "image_bytes", "instruction")

# COCO_train2014_000000581857 and 000000581857 say which image it is; 0001 and case_1 do not.
_TELLING = 12
# COCO's numbers are unique in all its parts; the edition of 2017 has them alone as names.
_COCO = re.compile(r"coco_(?:train|val|test)\d{4}_(?=\d{12}\Z)")
_MARKS = re.compile(r"<\|?(?:object_ref|box)_(?:start|end)\|?>")
_WORDS = re.compile(r"\w+")


# Pixels along a side of the picture that a look is taken of, and the bits in which two looks of one
# picture may differ. Of 32 photographs and drawings, copies of half the size, squeezed into a
# square of 224 or saved as JPEG of quality 30 differed in at most 12 bits (two nearly flat ones in
# 21 and 36), and different pictures, two views of a motorcycle among them, in at least 82.
_LOOK_SIDE = 16
_LOOK_BITS = 24
# Grey levels between the darkest and the brightest pixel below which a picture has no look.
_FLAT = 16


class LeakError(UserError):
    """Training rows that are in an evaluation set."""


@dataclass(frozen=True, slots=True)
class Leak:
    """What one training row shares with evaluation sets.

    Attributes:
        kind: one of `LEAK_KINDS`.
        sample: id of the first evaluation sample that shares it.
        n_samples: how many share it.
        shared: the image's reference, or the instruction.
    """

    kind: LeakKind
    sample: str
    n_samples: int
    shared: str


_Known = dict[str, tuple[str, int]]
"""By what is compared: the first sample that shows it, and how many do."""
_Bits = npt.NDArray[np.uint64]


@dataclass(slots=True)
class _Looks:
    """The looks of pictures, and whose they are."""

    samples: list[str] = field(default_factory=list)
    rows: list[_Bits] = field(default_factory=list)
    table: _Bits | None = None

    def add(self, look: _Bits | None, sample: str) -> None:
        if look is None:
            return
        self.samples.append(sample)
        self.rows.append(look)
        self.table = None

    def find(self, look: _Bits | None) -> tuple[str, int] | None:
        """The sample with the nearest look, if that is near enough, and how many are."""
        if look is None or not self.rows:
            return None
        if self.table is None:
            self.table = np.stack(self.rows)
        apart = np.bitwise_count(self.table ^ look).sum(axis=1)
        near = int((apart <= _LOOK_BITS).sum())
        return (self.samples[int(apart.argmin())], near) if near else None


@dataclass(slots=True)
class LeakIndex:
    """What a set of evaluation samples shows. Made by `index_benchmarks`."""

    kinds: frozenset[str]
    names: _Known = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    digests: _Known = field(default_factory=dict)
    image_sizes: set[Size] = field(default_factory=set)
    pixels: _Known = field(default_factory=dict)
    looks: _Looks = field(default_factory=lambda: _Looks())
    instructions: _Known = field(default_factory=dict)

    def add(self, sample: GroundingSample, root: Path) -> None:
        """Take a sample in; its files are read where bytes or pixels are compared."""
        if "instruction" in self.kinds:
            _note(self.instructions, normal_instruction(sample.instruction), sample.id)
        for reference in dict.fromkeys(sample.images):
            path = root / split_reference(reference)[0]
            if "image_bytes" in self.kinds:
                self.sizes.add(path.stat().st_size)
                _note(self.digests, _file_digest(path), sample.id)
            if "image_pixels" in self.kinds:
                size, digest = _pixel_digest(reference, root)
                self.image_sizes.add(size)
                _note(self.pixels, digest, sample.id)
            if "image_look" in self.kinds:
                self.looks.add(_look(load_reference(reference, root)), sample.id)
        if "image_name" in self.kinds:
            released = sample.source.get("images", ())
            for tail in {
                _tail(split_reference(reference)[0]) for reference in (*sample.images, *released)
            }:
                _note(self.names, tail, sample.id)

    def asks(self, question: str) -> bool:
        """Whether a sample asks this, on whatever images."""
        return normal_instruction(question) in self.instructions

    def check(self, row: TrainingRow, root: Path) -> list[Leak]:
        """What a training row shares with the samples, one entry a kind and image.

        A question without a shared image is no leak: many sets ask all their images the same.

        Args:
            row: the row.
            root: the folder that its image references are relative to.
        """
        leaks: list[Leak] = []

        def look(kind: LeakKind, table: _Known, key: str, shared: str) -> None:
            if key in table:
                leaks.append(Leak(kind, *table[key], shared))

        for reference, size in zip(row.images, row.image_sizes, strict=True):
            name = split_reference(reference)[0]
            look("image_name", self.names, _tail(name), reference)
            # Files of another length have other bytes, and need not be read.
            path = root / name
            if self.sizes and path.stat().st_size in self.sizes:
                look("image_bytes", self.digests, _file_digest(path), reference)
            if size in self.image_sizes:
                look("image_pixels", self.pixels, _pixel_digest(reference, root)[1], reference)
            if "image_look" in self.kinds and (
                found := self.looks.find(_look(load_reference(reference, root)))
            ):
                leaks.append(Leak("image_look", *found, reference))
        if leaks:
            look("instruction", self.instructions, normal_instruction(row.question), row.question)
        return leaks


def benchmarks_to_check(
    named: Collection[str] | None, root: str | os.PathLike[str] | None = None
) -> list[str]:
    """What the rows of a training are held against: the `named` benchmarks, or all prepared ones.

    Raises:
        UserError: nothing is named and nothing prepared.
    """
    if named is not None:
        return list(named)
    folder = data_root(root)
    found = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST_FILE}"))
    if not found:
        raise UserError(
            f"no benchmark is prepared in {folder} to hold the training rows against; prepare "
            "those that you will evaluate (`univg prepare mig_bench`), or set data.check_leaks: []"
        )
    return found


def index_benchmarks(
    benchmarks: Iterable[str],
    *,
    kinds: Collection[str] = DEFAULT_LEAK_KINDS,
    root: str | os.PathLike[str] | None = None,
    into: LeakIndex | None = None,
) -> LeakIndex:
    """What prepared benchmarks show, to hold training rows against.

    Args:
        benchmarks: names, as for `catalog.benchmark_of`.
        kinds: what is compared, of `LEAK_KINDS`.
        root: the data root; default as in `univg_eval.samples.data_root`.
        into: an index of the same kinds that is added to, and returned.

    Raises:
        UserError: an unknown kind, none of images, a benchmark that is not prepared, an image of
            it that cannot be read.
    """
    chosen = frozenset(kind for kind in LEAK_KINDS if kind in kinds)
    unknown = sorted(set(kinds) - chosen)
    if unknown or not chosen:
        raise UserError(
            f"unknown kind of leak {', '.join(unknown) or '(none)'}; expected some of: "
            + ", ".join(LEAK_KINDS)
        )
    if chosen == {"instruction"}:
        raise UserError(
            "the kind of leak 'instruction' finds nothing by itself: the same question on other "
            "images is no leak; add some of: " + ", ".join(sorted(set(LEAK_KINDS) - chosen))
        )
    # Not needed to describe the command, which imports this module.
    from univg_eval.benchmarks.preparing.catalog import benchmark_of

    index = LeakIndex(chosen) if into is None else into
    base = data_root(root)
    for name in benchmarks:
        benchmark = benchmark_of(name, root)
        for sample in load_samples(benchmark, root=root):
            try:
                index.add(sample, base)
            except OSError as error:
                raise UserError(
                    f"sample {sample.id!r}: cannot read {error.filename}: {error.strerror}; "
                    f"prepare {benchmark!r} again"
                ) from error
    return index


def normal_instruction(text: str) -> str:
    """A question without case, punctuation, marks, and kinds of white space and letters."""
    plain = unicodedata.normalize("NFKC", _MARKS.sub(" ", text)).casefold()
    return " ".join(_WORDS.findall(plain))


def _note(table: _Known, key: str, sample: str) -> None:
    if key:
        first, n = table.get(key, (sample, 0))
        table[key] = (first, n + 1)


def _tail(path: str) -> str:
    """What identifies an image: its file's name without ending, with its folder if it is short."""
    plain = PurePosixPath(path.replace("\\", "/"))
    parts = plain.parts
    name = _COCO.sub("", plain.stem.casefold())
    if len(name) >= _TELLING or len(parts) < 2:
        return name
    return f"{parts[-2].casefold()}/{name}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pixel_digest(reference: str, root: Path) -> tuple[Size, str]:
    image = load_reference(reference, root)
    return image.size, hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()


def _look(image: PILImage.Image) -> _Bits | None:
    """A difference hash (Krawetz, "Kind of Like That", 2013): where a small grey copy of the
    picture grows brighter to the right; 256 bits in four numbers, None of a nearly flat picture."""
    from PIL import Image

    small = image.convert("L").resize((_LOOK_SIDE + 1, _LOOK_SIDE), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.int16)
    if np.ptp(grey) < _FLAT:
        return None
    return np.packbits(np.diff(grey, axis=1) > 0).view(np.uint64)
