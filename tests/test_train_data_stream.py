"""The reader of big JSON files: elements with their places, whatever the chunks are."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univg_eval.errors import UserError
from univg_train.data import stream
from univg_train.data.stream import iter_elements

TEXTS = st.text(
    st.sampled_from(list('ab"\\/[]{},: \n\t\u00e9\u20ac\U0001f600\x7f'))
    | st.characters(codec="utf-8"),
    max_size=12,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream") / "rows.json"


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(VALUES, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
    before=st.sampled_from([b"", b" \r\n\t", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"]),
    after=st.sampled_from([b"", b"\n", b" \r\n"]),
)
def test_a_list_is_read_back_at_every_chunk_size(
    file: Path, values: list, chunk: int, indent: int | None, ascii_only: bool, before, after
) -> None:
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    content = before + text.encode() + after
    file.write_bytes(content)
    elements = list(iter_elements(file, chunk_size=chunk))
    assert [json.loads(element.raw) for element in elements] == values
    for number, element in enumerate(elements):
        assert element.number == number and element.line is None
        assert content[element.start : element.start + len(element.raw)] == element.raw


def test_escapes_at_every_chunk_border(file: Path) -> None:
    values = ['a"b\\', '\\"', {'k"]': '["', "\\": ['"', "\\\\", 'é"', "€\\"]}, '"\\"', "", 'x"']
    for ascii_only in (True, False):
        file.write_text(json.dumps(values, ensure_ascii=ascii_only), encoding="utf-8")
        for chunk in range(1, file.stat().st_size + 1):
            read = [json.loads(element.raw) for element in iter_elements(file, chunk_size=chunk)]
            assert read == values, chunk


@settings(max_examples=60, deadline=None)
@given(values=st.lists(VALUES.filter(lambda v: not isinstance(v, list)), min_size=1, max_size=6))
def test_lines_are_read_back(file: Path, values: list) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n\n".join(
        b"  " + json.dumps(value, ensure_ascii=False).encode() for value in values
    )
    file.write_bytes(content)
    elements = list(iter_elements(file))
    assert [json.loads(element.raw) for element in elements] == values
    assert [element.line for element in elements] == [1 + 2 * i for i in range(len(values))]
    for element in elements:
        assert content[element.start : element.start + len(element.raw)] == element.raw


@pytest.mark.parametrize(
    ("content", "raws"),
    [
        (b"[]", []),
        (b" [ \n ] \n", []),
        (b"[1,]", [b"1", b""]),  # the empty one is no JSON, and says so by itself
        (b"[,1]", [b"", b"1"]),
    ],
)
def test_odd_lists(file: Path, content: bytes, raws: list[bytes]) -> None:
    file.write_bytes(content)
    assert [element.raw for element in iter_elements(file)] == raws


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty; expected a JSON list"),
        (b" \n\n", "is empty"),
        ("[1]".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        (b"[1, 2", "breaks off at byte 5, within row 1"),
        (b'[1, "a', "breaks off at byte 6, within row 1"),
        (b'[1, "a\\', "breaks off at byte 7"),
        (b'[1, "a\\"', "breaks off at byte 8"),
        (b'[{"a": [}, 2]', "breaks off at byte 13, within row 0"),  # nothing closes it any more
        (b'[{"a": ]}, 2]', "which closes nothing"),
        (b"[1] x", "something follows the end of the list, at byte 4"),
        (b"[1][2]", "something follows the end of the list, at byte 3"),
        (b"[1}", "byte 2 is '}', which closes nothing"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
def test_broken_files_are_refused(file: Path, content: bytes, match: str, chunk: int) -> None:
    file.write_bytes(content)
    with pytest.raises(UserError, match=match):
        list(iter_elements(file, chunk_size=chunk))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none.json: No such file"):
        list(iter_elements(tmp_path / "none.json"))


@pytest.mark.parametrize("content", [b'[{"a": "' + b"x" * 5000, b"y" * 5000])
def test_an_endless_row_is_refused_before_memory_is_full(
    file: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(stream, "LONGEST_ELEMENT", 1000)
    file.write_bytes(content)
    with pytest.raises(UserError, match="has more than 0 MiB"):
        list(iter_elements(file, chunk_size=64))


def test_a_long_string_takes_linear_time(file: Path) -> None:
    file.write_bytes(b'["' + b'\\"' * 2_000_000 + b'"]')
    (element,) = iter_elements(file, chunk_size=64)
    assert len(element.raw) == 4_000_002


def test_memory_does_not_grow_with_the_file(file: Path) -> None:
    row = json.dumps({"question": "x" * 1000, "answer": [1, 2, 3, 4]}).encode()
    file.write_bytes(b"[" + b",\n".join([row] * 6000) + b"]")
    assert file.stat().st_size > 6_000_000
    tracemalloc.start()
    try:
        n = sum(1 for _ in iter_elements(file))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n == 6000
    assert peak < 5_000_000
