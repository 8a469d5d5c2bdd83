"""The six photographs inside installed packages, and the boxes that were measured on them by hand.

The photographs are not copied into this project: they are read from the installed scikit-image,
scikit-learn and matplotlib, found without importing them, and their SHA-256 is checked, so that a
box is never laid on another image than the one it was measured on.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from univg_eval.errors import UserError, install_command
from univg_eval.images.reading import load_image

__all__ = ["Annotation", "Photo", "PixelBox", "Pixels", "load_photo", "photo_path", "read_sources"]

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB"""
PixelBox = tuple[int, int, int, int]
"""(x1, y1, x2, y2) in pixels; x2 and y2 are exclusive, so x2 - x1 is the width."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph of an installed package.

    Attributes:
        name: short name, e.g. ``coffee``.
        package: the distribution that ships it, e.g. ``scikit-image``.
        version: of that distribution where the SHA-256 was taken.
        path_in_package: POSIX path below the folder that holds the import package.
        sha256: of the file, hex.
        width, height: in pixels.
        licence: as the package states it, and where.
        credit: whom to name.
        faces: boxes that nothing is pasted over.
    """

    name: str
    package: str
    version: str
    path_in_package: str
    sha256: str
    width: int
    height: int
    licence: str
    credit: str
    faces: tuple[PixelBox, ...]


@dataclass(frozen=True, slots=True)
class Annotation:
    """An object of a photograph.

    Attributes:
        photo: name of the photograph.
        expression: a phrase that is true of this object alone in its photograph.
        bbox: measured by hand.
        outline: shape of the object within its box.
        can_be_pasted: whether the box holds little else, so that its cutout looks like an object.
        can_be_removed: whether what surrounds it is smooth enough for a fill to hide it.
        unclear_beside: photographs that hold something else that the phrase may be true of.
    """

    photo: str
    expression: str
    bbox: PixelBox
    outline: Literal["rectangle", "ellipse"]
    can_be_pasted: bool
    can_be_removed: bool
    unclear_beside: tuple[str, ...]


@cache
def read_sources() -> tuple[tuple[Photo, ...], tuple[Annotation, ...]]:
    """The photographs and the annotations, in the order of ``annotations.json``."""
    file = importlib.resources.files("univg_eval.benchmarks.synthetic.photos") / "annotations.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    photos = tuple(
        Photo(**(row | {"faces": tuple(tuple(face) for face in row["faces"])}))
        for row in rows["photos"]
    )
    boxes = tuple(
        Annotation(
            **(row | {"bbox": tuple(row["bbox"]), "unclear_beside": tuple(row["unclear_beside"])})
        )
        for row in rows["boxes"]
    )
    return photos, boxes


def photo_path(photo: Photo) -> Path:
    """The file of a photograph in the installed package, which is not imported.

    Raises:
        UserError: the package is not installed, or does not hold the file.
    """
    relative = PurePosixPath(photo.path_in_package)
    spec = importlib.util.find_spec(relative.parts[0])
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"the benchmark photos needs a photograph that comes with {photo.package} "
            f"({photo.path_in_package}), and {photo.package} is not installed: "
            f"{install_command('eval')}"
        )
    for folder in spec.submodule_search_locations:
        path = Path(folder).joinpath(*relative.parts[1:])
        if path.is_file():
            return path
    raise UserError(
        f"the installed {photo.package} {_installed(photo.package)} does not hold the photograph "
        f"{photo.path_in_package}; the boxes were measured on the one of {photo.version}: "
        f"pip install '{photo.package}=={photo.version}'"
    )


def load_photo(photo: Photo) -> Pixels:
    """The photograph as RGB, after its file was compared with the recorded SHA-256.

    Raises:
        UserError: see `photo_path`; or the file is another one than the boxes were measured on.
    """
    path = photo_path(photo)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != photo.sha256:
        raise UserError(
            f"{path} is not the photograph that the boxes were measured on: its SHA-256 is "
            f"{found}, expected {photo.sha256} as in {photo.package} {photo.version} (installed: "
            f"{_installed(photo.package)}): pip install '{photo.package}=={photo.version}'"
        )
    return np.asarray(load_image(path), dtype=np.uint8)


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
