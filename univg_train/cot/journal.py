"""Every reply of the teacher, in the order of arrival: nothing is requested twice.

One JSON line a reply, on the disk before the next step depends on it. Whatever moment the process
ends at, at most the last line is cut off; it is dropped, and requested again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from univg_eval import files
from univg_eval.errors import UserError

__all__ = ["ReplyJournal"]


class ReplyJournal:
    """The journal of a folder, for one process at a time; use it as a context.

    Replies are found by their place in the file, so that a long journal is not held in memory.
    """

    def __init__(self, path: Path) -> None:
        """Open or create; UserError if another process has it, or a line is damaged."""
        self._places: dict[str, list[int]] = {}
        self._digests: dict[str, str] = {}
        self.n_replies = 0
        try:
            self._journal = files.Journal(path)
        except BlockingIOError as error:
            raise UserError(
                f"another process is working on {path.parent}; wait for it, or give another --out"
            ) from error
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            for number, (place, line) in enumerate(self._journal.lines(), start=1):
                try:
                    entry = json.loads(line)
                    self._note(entry["row"], entry["digest"], place)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise UserError(
                        f"{path}:{number}: not a line of the journal ({error}); restore the file, "
                        "or give another --out"
                    ) from error
        except UserError:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._journal.__exit__(*error)

    def _note(self, row: str, digest: str, place: int) -> None:
        self._places.setdefault(row, []).append(place)
        self._digests[row] = digest
        self.n_replies += 1

    def entries(self, row: str, digest: str) -> list[dict[str, Any]]:
        """The replies about a row, in the order of arrival.

        Raises:
            UserError: they are about a row of this id with another content.
        """
        if self._digests.get(row, digest) != digest:
            raise UserError(
                f"row {row!r} has changed since its replies were written (instruction, box or "
                "images); put it back, give it another id, or give another --out than "
                f"{self._journal.path.parent}"
            )
        return [self._journal.read(place) for place in self._places.get(row, ())]

    def append(self, row: str, digest: str, entry: Mapping[str, Any]) -> None:
        """Write a reply; it is on the disk when this returns."""
        try:
            place = self._journal.append({"row": row, "digest": digest, **entry})
        except OSError as error:
            raise UserError(
                f"cannot write {self._journal.path}: {error.strerror or error}; make room and "
                "start the same command again"
            ) from error
        self._note(row, digest, place)
