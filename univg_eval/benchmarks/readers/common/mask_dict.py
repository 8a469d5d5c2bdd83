"""ReVOS's mask_dict.json, of which only the part that is asked for is ever in memory.

The file is one JSON object with a list of masks an object, for the training and the validation part
together: hundreds of megabytes, and more than twice that once parsed. So it is mapped, looked
through once for where each object's list begins and ends, and a list is parsed when it is asked
for. For a file of 500 MB with 9,000 objects that takes 9 MB of memory (beside file pages, which
the system takes back when it needs them) instead of 720 MB, and 9 seconds on a slow core.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError

__all__ = ["MaskDict"]

# A whole string, or a bracket outside of strings. Run lengths are strings full of brackets.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_CLOSES = {b"]": b"[", b"}": b"{"}
_KEPT_LISTS = 16
_EXPECTED = (
    'expected one JSON object {"1": [mask or null per frame, …], …}, the mask_dict.json of ReVOS'
)


class MaskDict:
    """Lists of masks by the name of their object.

    Attributes:
        path: the file.
        sha256: of its bytes, in hex.
    """

    def __init__(self, path: Path) -> None:
        """Look through the file; it must not change afterwards.

        Raises:
            UserError: it cannot be read, holds something else, or breaks off.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                if not file.tell():
                    self._refuse("it is empty: fetch it again")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    self._places = self._find_lists(data)
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        self.get = lru_cache(maxsize=_KEPT_LISTS)(self._parse)

    def __contains__(self, key: str) -> bool:
        """Whether the file has masks of that object."""
        return key in self._places

    def __len__(self) -> int:
        """How many objects it has masks of."""
        return len(self._places)

    def _find_lists(self, data: mmap.mmap) -> dict[str, tuple[int, int]]:
        places: dict[str, tuple[int, int]] = {}
        open_brackets: list[bytes] = []
        key: bytes | None = None
        begin = end = 0
        for match in _TOKEN.finditer(data):
            token = match[0]
            if token[:1] == b'"':
                if len(open_brackets) == 1:
                    if key is not None:
                        self._refuse(f"object {_text(key)} has no list")
                    key = token
                continue
            if token in _CLOSES:
                if not open_brackets or open_brackets.pop() != _CLOSES[token]:
                    self._refuse(f"{token.decode()} at byte {match.start()} closes nothing")
                if len(open_brackets) == 1 and key is not None:
                    name = _text(key)
                    if name in places:
                        self._refuse(f"object {name} stands twice")
                    places[name] = (begin, match.end())
                    key = None
                elif not open_brackets:
                    end = match.end()
                    break
                continue
            if len(open_brackets) == 1:
                if key is None or token != b"[":
                    self._refuse(f"{token.decode()} at byte {match.start()} begins no list")
                begin = match.start()
            elif not open_brackets and (token != b"{" or data[: match.start()].strip()):
                self._refuse("it holds something else")
            open_brackets.append(token)
        if not end or open_brackets:
            self._refuse("it breaks off before its end: fetch it again")
        if data[end:].strip() or key is not None or not places:
            self._refuse("it holds something else")
        return places

    def _refuse(self, why: str) -> None:
        raise UserError(f"{self.path}: {why}; {_EXPECTED}")

    def _parse(self, key: str) -> list[Any]:
        """An object's list, one entry a frame.

        Raises:
            KeyError: no such object.
            UserError: its part of the file is not JSON.
        """
        begin, end = self._places[key]
        with self.path.open("rb") as file:
            file.seek(begin)
            raw = file.read(end - begin)
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise UserError(
                f"{self.path}: the masks of object {key} are not JSON ({error}): fetch it again"
            ) from error
        return list(value)


def _text(token: bytes) -> str:
    """A JSON string; one that is damaged is given as it stands."""
    try:
        return str(json.loads(token))
    except ValueError:
        return token.decode("utf-8", "replace")
