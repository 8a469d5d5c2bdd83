"""Everything that the teacher answered, in the order of arrival: nothing is asked twice.

One JSON line a reply, written through to the disk before the next step depends on it. Whatever
moment the process ends at, at most the last line is cut off; it is dropped, and asked for again.
The file is only ever appended to. Lines are found by their place in it, so that a long journal
need not be held in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from univg_eval.errors import UserError

__all__ = ["Journal"]


class Journal:
    """The journal of a folder, for one process at a time; use it as a context."""

    def __init__(self, path: Path) -> None:
        """Open or create; UserError if another process has it, or a line is damaged."""
        self._path = path
        self._places: dict[str, list[int]] = {}
        self._digests: dict[str, str] = {}
        self.n_replies = 0
        try:
            self._file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        with contextlib.ExitStack() as closing:
            closing.callback(self._file.close)
            self._lock()
            self._read()
            closing.pop_all()  # all went well: the file stays open

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is working on {self._path.parent}; wait for it, or give another "
                "--out"
            ) from error

    def _read(self) -> None:
        self._file.seek(0)
        place = 0
        for number, line in enumerate(self._file, start=1):
            if not line.endswith(b"\n"):
                self._file.truncate(place)  # the process ended while it wrote
                break
            try:
                entry = json.loads(line)
                row, digest = entry["row"], entry["digest"]
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self._path}:{number}: not a line of the journal ({error}); restore the "
                    "file, or give another --out"
                ) from error
            self._note(row, digest, place)
            place += len(line)

    def _note(self, row: str, digest: str, place: int) -> None:
        self._places.setdefault(row, []).append(place)
        self._digests[row] = digest
        self.n_replies += 1

    def entries(self, row: str, digest: str) -> list[dict[str, Any]]:
        """The replies about a row, in the order of arrival.

        Raises:
            UserError: they are about a row of this id with another content.
        """
        known = self._digests.get(row)
        if known is not None and known != digest:
            raise UserError(
                f"row {row!r} has changed since the teacher was asked about it (question, box or "
                f"images); put it back, give it another id, or give another --out than "
                f"{self._path.parent}"
            )
        found = []
        for place in self._places.get(row, ()):
            self._file.seek(place)
            found.append(json.loads(self._file.readline()))
        return found

    def append(self, row: str, digest: str, entry: Mapping[str, Any]) -> None:
        """Write a reply; it is on the disk when this returns."""
        line = json.dumps({"row": row, "digest": digest, **entry}).encode("ascii") + b"\n"
        self._file.seek(0, os.SEEK_END)
        place = self._file.tell()
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            # Closing tries to write the rest once more, and would fail later, over this message.
            with contextlib.suppress(OSError):
                self._file.close()
            raise UserError(
                f"cannot write {self._path}: {error.strerror or error}; make room and start the "
                "same command again"
            ) from error
        self._note(row, digest, place)
