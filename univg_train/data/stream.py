"""Reading big JSON files piece by piece: a list of objects, or JSON Lines.

Released training files are single JSON lists of up to a gigabyte. What is held here is one element
and one chunk of the file; each element comes with its place in the file, so that it can be read
again alone. An incremental parser such as ijson gives values without their places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from univg_eval.errors import UserError

__all__ = ["LONGEST_ELEMENT", "Element", "iter_elements"]

LONGEST_ELEMENT = 64 * 1024 * 1024
"""Bytes. A longer element is a file whose quotes or brackets do not match, not a row."""

_UTF8_MARK = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
# Structural characters are ASCII, and no byte of a longer UTF-8 character is: bytes can be
# searched without decoding them, wherever a chunk ends. A whole string is one match.
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"?'
_OUTER = re.compile(rb"[\[\]{},]|" + _STRING, re.DOTALL)
_INNER = re.compile(rb"[\[\]{}]|" + _STRING, re.DOTALL)


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a list, or one line.

    Attributes:
        number: 0-based; blank lines do not count.
        line: 1-based line in a file of JSON Lines; None in a list.
        start: offset of its first byte in the file.
        raw: its bytes without white space around them; not checked to be JSON.
    """

    number: int
    line: int | None
    start: int
    raw: bytes

    def where(self, path: Path) -> str:
        """Names the element in a message."""
        return f"{path.name}:{self.line}" if self.line else f"{path.name}: row {self.number}"


def iter_elements(path: Path, *, chunk_size: int = 1 << 20) -> Iterator[Element]:
    """The elements of a JSON list, or the lines of JSON Lines, in order.

    A file whose first character is ``[`` is a list; every other one is JSON Lines.

    Args:
        path: the file.
        chunk_size: bytes that are read at a time.

    Raises:
        UserError: the file cannot be read, holds nothing or is UTF-16; a list does not end, or
            something follows it; an element is longer than `LONGEST_ELEMENT`. Whether an element
            is JSON is for the caller to find out.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"{path}: is UTF-16; save it as UTF-8")
            start = len(_UTF8_MARK) if head.startswith(_UTF8_MARK) else 0
            file.seek(start)
            while (first := file.read(1)) and first in _BLANK:
                start += 1
            if not first:
                raise UserError(f"{path}: is empty; expected a JSON list, or JSON Lines")
            if first == b"[":
                yield from _list_elements(path, file, start + 1, chunk_size)
            else:
                file.seek(0)
                yield from _lines(path, file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _lines(path: Path, file: BinaryIO) -> Iterator[Element]:
    number = line = offset = 0
    while raw := file.readline(LONGEST_ELEMENT + 1):
        line += 1
        _require_length(path, len(raw), f"line {line}")
        mark = len(_UTF8_MARK) if line == 1 and raw.startswith(_UTF8_MARK) else 0
        left = raw[mark:].lstrip(_BLANK)
        if stripped := left.rstrip(_BLANK):
            yield Element(number, line, offset + len(raw) - len(left), stripped)
            number += 1
        offset += len(raw)


def _list_elements(path: Path, file: BinaryIO, start: int, chunk_size: int) -> Iterator[Element]:
    """Elements of the list whose content begins at byte `start`, where the file stands."""
    number = 0
    depth = 0  # brackets open within the element
    buffer = b""
    offset = start  # where the buffer lies in the file
    begin = 0  # the element begins here in the buffer
    position = 0  # searched up to here
    while True:
        match = (_INNER if depth else _OUTER).search(buffer, position)
        # A string that is not whole stops at the buffer's end, or at a backslash that is its last.
        if match is None or (match.end() >= len(buffer) - 1 and _is_open_string(match)):
            # An unfinished string is searched again from its quote when more of it is there; the
            # chunks grow with it, so that a long one is not searched again and again.
            searched = len(buffer) if match is None else match.start()
            _require_length(path, len(buffer) - begin, f"row {number}")
            chunk = file.read(max(chunk_size, len(buffer) - searched))
            if not chunk:
                raise UserError(
                    f"{path}: breaks off at byte {offset + len(buffer)}, within row {number}; "
                    "expected ']' at the end. If its download broke off, fetch it again"
                )
            buffer = buffer[begin:] + chunk
            offset, position, begin = offset + begin, searched - begin, 0
            continue
        token, position = match[0][:1], match.end()
        if token == b'"':
            continue
        if token in (b"[", b"{"):
            depth += 1
            continue
        if token in (b"]", b"}") and depth:
            depth -= 1
            continue
        # At depth 0: a comma, or what closes the list.
        element = buffer[begin : match.start()]
        left = element.lstrip(_BLANK)
        raw = left.rstrip(_BLANK)
        if raw or token == b"," or number:  # [] has no element, [1,] has a second, empty one
            yield Element(number, None, offset + match.start() - len(left), raw)
            number += 1
        begin = position
        if token != b",":
            _require_end(path, file, buffer[begin:], offset + begin, token)
            return


def _is_open_string(match: re.Match[bytes]) -> bool:
    text = match[0]
    if text[:1] != b'"':
        return False
    # The last quote may be an escaped one, behind an odd number of backslashes.
    backslashes = len(text[:-1]) - len(text[:-1].rstrip(b"\\"))
    return len(text) < 2 or text[-1:] != b'"' or backslashes % 2 == 1


def _require_end(path: Path, file: BinaryIO, rest: bytes, offset: int, token: bytes) -> None:
    if token != b"]":
        raise UserError(
            f"{path}: byte {offset - 1} is {token.decode()!r}, which closes nothing; expected ']'"
        )
    while True:
        stripped = rest.lstrip(_BLANK)
        if stripped:
            raise UserError(
                f"{path}: something follows the end of the list, at byte "
                f"{offset + len(rest) - len(stripped)}; expected one JSON list, or JSON Lines"
            )
        offset += len(rest)
        rest = file.read(1 << 16)
        if not rest:
            return


def _require_length(path: Path, length: int, what: str) -> None:
    if length > LONGEST_ELEMENT:
        raise UserError(
            f"{path}: {what} has more than {LONGEST_ELEMENT >> 20} MiB; is a quote or a bracket "
            "missing in it, or in the one before?"
        )
