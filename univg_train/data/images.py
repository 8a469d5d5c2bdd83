"""The images that training files name: found below one folder, and measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from univg_eval.benchmarks.readers.common.release import ImageFolder, ItemError
from univg_eval.errors import UserError
from univg_eval.images.reading import ImageError, image_header, load_reference, split_reference
from univg_train.data.rows import BadKind, RowError, row_error

__all__ = ["MeasuredImages"]

_REMEMBERED = 1 << 16  # images; a row's own and those of the rows near it


class MeasuredImages:
    """Images below a folder.

    A file names its images relative to a folder of its authors' machine, or absolutely. The
    longest trailing part of such a path that exists below the folder is the image; see
    `univg_eval.benchmarks.readers.common.release.ImageFolder`.
    """

    def __init__(self, folder: Path, *, decode: bool = False) -> None:
        """Look below `folder`; UserError if it is not there.

        With `decode`, each image is decoded when it is measured: damaged pixels are found too.
        """
        self._folder = ImageFolder(folder)
        self._decode = decode
        self._find = lru_cache(maxsize=_REMEMBERED)(self._find_reference)
        self._measured = lru_cache(maxsize=_REMEMBERED)(self._measure)

    @property
    def folder(self) -> Path:
        """The folder, resolved."""
        return self._folder.folder

    def __getstate__(self) -> tuple[Path, bool]:
        return self.folder, self._decode

    def __setstate__(self, state: tuple[Path, bool]) -> None:
        self.__init__(state[0], decode=state[1])  # type: ignore[misc]

    def locate(self, released: str, where: str) -> tuple[str, tuple[int, int]]:
        """The reference below the folder, and (width, height) as displayed in pixels.

        Args:
            released: the path as the file writes it; ``clip.mp4#frame=12`` is a frame of a video.
            where: names the row in an error.

        Raises:
            RowError: ``missing_image``, ``unreadable_image``, or ``invalid_row`` for a path that
                leads out of the folder.
        """
        with _named(where):
            reference = self._find(released)
            return reference, self._measured(reference)

    def measure(self, reference: str, where: str) -> tuple[int, int]:
        """(width, height) as displayed of a reference below the folder; RowError as `locate`."""
        with _named(where):
            return self._measured(reference)

    def _find_reference(self, released: str) -> str:
        try:
            name, frame = split_reference(released)
            reference = self._folder.find(name)
        except ItemError as error:
            raise row_error(error) from error
        except UserError as error:
            raise RowError("invalid_row", str(error)) from error
        return reference if frame is None else f"{reference}#frame={frame}"

    def _measure(self, reference: str) -> tuple[int, int]:
        name, frame = split_reference(reference)
        try:
            if frame is not None:
                return load_reference(reference, self.folder).size
            return image_header(self.folder / name, decode=self._decode).size
        except UserError as error:
            missing = isinstance(error, ImageError) and error.missing
            kind: BadKind = "missing_image" if missing else "unreadable_image"
            raise RowError(kind, str(error)) from error


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Put the row's name before its error: the same image may be that of other rows."""
    try:
        yield
    except RowError as error:
        raise RowError(error.kind, f"{where}: {error}") from error
