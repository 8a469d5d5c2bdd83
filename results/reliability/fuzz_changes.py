"""Random changes of valid input: of a text, of bytes, of a JSON value, of a file by its kind."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any

import yaml

__all__ = ["changed_bytes", "changed_text", "changed_value", "damage"]

# What a reader of the field at this place does not expect.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 7.5, -0.0, 1e-320, 1e308, 2**31, 2**63, 10**30, 10**400),
    *(float("nan"), float("inf"), "", " ", "0", "1e5", "NaN", "null", "٣", "\0", "\ud800"),
    *("é" * 99, "../../up", "/etc/passwd", "/dev/zero", "~", "C:\\a", "a" * 300, "a/" * 200),
    "x#frame=-1",
    *("x#frame=99999999999", "no such", "norm1000", "pixels", [], {}, [[]], [None], {"": None}),
    *([0, 0, 0, 0], [1, 2, 3], [10**400] * 4, [0.1, 0.2, 0.3, float("nan")], ["1", "2", "3", "4"]),
    *({"size": [10**9, 10**9], "counts": "0"}, {"size": [5, 5], "counts": [10**20]}, 10**6),
)  # fmt: skip
ODD_TEXTS = (
    *("\0", "\ud800", "\ufeff", "\r", "\u2028", "\x1b[31m", "\x85", "{", "}", "[", "]", '"', "'"),
    *(",", ":", "\\", "\\u", "\\ud800", "\n", "\n\n", "\t", "- ", "? ", "&a ", "*a"),
    *("!!python/name:os", "!!int ", "!!timestamp ", "!!bool ", "!!float ", "!!binary ", "!!set "),
    *("!!omap ", "2001-99-99", "<<: *a", "%", "#", "|", "NaN", "-Infinity", "1e999", "null"),
    *("9" * 400, "9" * 5000, "true"),
    *("[" * 5000, '{"a":' * 5000, "a" * 100_000, '"' * 99, ";", '""', "🙂" * 50, "𝟙", "\u202e"),
)  # fmt: skip


def _span(rng: Random, length: int) -> tuple[int, int]:
    start = rng.randrange(length + 1)
    return start, min(length, start + int(rng.expovariate(1 / 12)))


def changed_text(rng: Random, text: str) -> str:
    """The text with a span left out, doubled, moved or replaced, or cut off."""
    start, end = _span(rng, len(text))
    match rng.randrange(7):
        case 0:
            return text[:start] + text[end:]
        case 1:
            return text[:end] + text[start:end] * rng.choice((1, 1, 2, 50)) + text[end:]
        case 2:
            return text[:start]
        case 3:
            place, _ = _span(rng, len(text))
            return text[:place] + text[start:end] + text[place:]
        case 4:
            digits = [i for i, char in enumerate(text) if char.isdigit()]
            if digits:
                start = rng.choice(digits)
                end = start + 1
        case 5:
            lines = text.split("\n")
            rng.shuffle(lines)
            return "\n".join(lines)
    return text[:start] + rng.choice(ODD_TEXTS) + text[end:]


def changed_bytes(rng: Random, data: bytes) -> bytes:
    """The bytes with a few of them changed, a number of the format overwritten, or cut off."""
    start, end = _span(rng, len(data))
    if rng.random() < 0.5:  # headers are short, and say the most
        start, end = _span(rng, min(len(data), 80))
    match rng.randrange(7):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + data[start:end] * rng.choice((1, 2, 999)) + data[end:]
        case 3:
            return data[:start] + rng.randbytes(end - start) + data[end:]
        case 4:
            number = rng.choice((0, 1, 255, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 20_000))
            return data[:start] + struct.pack(rng.choice(("<I", ">I")), number) + data[start + 4 :]
        case 5:
            return data + rng.randbytes(rng.choice((1, 7, 4000)))
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        if flipped:
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    found, waiting = [], [value]
    while waiting:
        inner = waiting.pop()
        keys = list(inner) if isinstance(inner, dict) else range(len(inner))
        found += [(inner, key) for key in keys]
        waiting += [inner[key] for key in keys if isinstance(inner[key], dict | list)]
    return found


def _odd(rng: Random) -> Any:
    if rng.random() < 0.05:
        value: Any = 0
        for _ in range(rng.choice((50, 150))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return copy.deepcopy(rng.choice(ODD_VALUES))


def changed_value(rng: Random, value: Any) -> Any:
    """The value with one of the values inside it changed, left out, doubled, renamed or moved."""
    places = _places(value) if isinstance(value, dict | list) else []
    if not places or rng.random() < 0.03:
        return _odd(rng)
    container, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del container[key]
        case 1:
            other, other_key = rng.choice(places)
            container[key] = copy.deepcopy(other[other_key])
        case 2 if isinstance(container, dict):
            container[rng.choice((f"{key}s", "", "id", "image", str(key).upper()))] = container.pop(
                key
            )
        case 3 if isinstance(container, list):
            container += [container[key]] * rng.choice((1, 2, 300))
        case 4:
            container[key] = [container[key]]
        case 5 if isinstance(container[key], str):
            container[key] = changed_text(rng, container[key])
        case 6 if isinstance(container[key], int | float) and abs(container[key]) < 1e99:
            container[key] = rng.choice((-1, 0.5, 2, 1000, 1e-9, -1e9, 1e18)) * container[key]
        case _:
            container[key] = _odd(rng)
    return value


# --- files ---------------------------------------------------------------------------------------


def damage(rng: Random, path: Path) -> None:
    """Change a file as its kind is: values, text or bytes; or put something in its place.

    The file may be a hard link to the valid one: it is written anew.
    """
    data = path.read_bytes()
    path.unlink()
    if rng.random() < 0.02:
        return _put_something_else(rng, path)
    if path.suffix in (".json", ".jsonl", ".yaml") and rng.random() < 0.65:
        data = _other_values(rng, path.suffix, data)
    elif path.suffix == ".parquet" and rng.random() < 0.8:
        data = _other_rows(rng, data)
    elif path.suffix in (".json", ".jsonl", ".yaml", ".csv") and rng.random() < 0.8:
        text = data.decode("utf-8")
        for _ in range(rng.choice((1, 1, 2, 4))):
            text = changed_text(rng, text)
        encoding = rng.choice(("utf-8",) * 9 + ("utf-16", "utf-8-sig", "latin-1"))
        errors = "surrogatepass" if encoding.startswith("utf") else "replace"
        data = text.encode(encoding, errors)
    else:
        for _ in range(rng.choice((1, 1, 2, 5))):
            data = changed_bytes(rng, data)
    path.write_bytes(data)


def _put_something_else(rng: Random, path: Path) -> None:
    match rng.randrange(5):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(path.name)  # to itself
        case 2:
            path.symlink_to("/dev/null")
        case 3:
            path.write_bytes(b"")


def _other_values(rng: Random, suffix: str, data: bytes) -> bytes:
    """The file with changed values, in its own format."""
    times = rng.choice((1, 1, 2, 3))
    if suffix == ".yaml":
        value = yaml.safe_load(data)
        for _ in range(times):
            value = changed_value(rng, value)
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    lines = data.decode("utf-8").splitlines() if suffix == ".jsonl" else [data.decode("utf-8")]
    for _ in range(times):
        number = rng.randrange(len(lines))
        value = changed_value(rng, json.loads(lines[number]))
        lines[number] = json.dumps(value, ensure_ascii=rng.random() < 0.8)
        if suffix == ".jsonl" and rng.random() < 0.1:
            lines.insert(rng.randrange(len(lines)), lines[number])
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _other_rows(rng: Random, data: bytes) -> bytes:
    """A Parquet file with changed values; where Arrow holds no such values, with changed bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = parquet.read_table(io.BytesIO(data)).to_pylist()
    number = rng.randrange(len(rows))
    for _ in range(rng.choice((1, 1, 2, 3))):
        rows[number] = changed_value(rng, rows[number])
    for table in (rows, [rows[number]]):  # alone, a value may be of another type
        file = io.BytesIO()
        with contextlib.suppress(
            pa.ArrowException, ValueError, TypeError, KeyError, AttributeError, OverflowError
        ):
            parquet.write_table(pa.Table.from_pylist(table), file)
            return file.getvalue()
    return changed_bytes(rng, data)


def copy_linked(source: Path, target: Path) -> None:
    """A copy of a folder whose files are hard links; `damage` writes a file anew."""
    shutil.copytree(source, target, copy_function=os.link, symlinks=True)
