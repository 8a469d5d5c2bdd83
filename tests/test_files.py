"""Files and folders that are there whole or not at all, locks, journals."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from univg_eval.errors import UserError
from univg_eval.files import (
    Journal,
    file_lock,
    iter_json_lines,
    read_yaml,
    verify_sums,
    whole_file,
    whole_folder,
    write_sums,
    write_text_atomically,
    writing,
)


def write_file(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text)


def write_folder(path: Path, text: str) -> None:
    with whole_folder(path) as folder:
        (folder / "a").write_text(text)


def content(path: Path) -> str:
    return (path / "a" if path.is_dir() else path).read_text()


WRITERS = pytest.mark.parametrize("write", [write_file, write_folder])


@WRITERS
def test_the_new_takes_the_place_of_the_old(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "deep" / "place"
    for text in ("old", "new"):
        write(path, text)
        assert content(path) == text
        assert list(path.parent.iterdir()) == [path]


@WRITERS
def test_the_old_stays_where_writing_fails(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "place"
    write(path, "old")
    whole = whole_file if write is write_file else whole_folder
    with pytest.raises(OSError, match="No space left"), whole(path):
        raise OSError(28, "No space left on device")
    assert content(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_folder_comes_back_where_the_new_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "place"
    write_folder(path, "old")
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        write_folder(path, "new")
    assert content(path) == "old"


@WRITERS
def test_permissions_are_those_of_the_umask(tmp_path: Path, write: Any) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "place", "x")
    finally:
        os.umask(before)
    expected = 0o640 if write is write_file else 0o750
    assert (tmp_path / "place").stat().st_mode & 0o777 == expected


KILLED = """
import sys
from pathlib import Path
from univg_eval.files import Journal, whole_file, whole_folder
place, kind = Path(sys.argv[1]), sys.argv[2]
with {"file": whole_file, "folder": whole_folder, "journal": Journal}[kind](place) as new:
    if kind == "file":
        new.write("half")
        new.flush()
    elif kind == "folder":
        (new / "a").write_text("half")
    else:
        new.append({"n": 1})
        new._file.write(b'{"n": ')
    print("ready", flush=True)
    sys.stdin.read()
"""


def killed(place: Path, kind: str) -> None:
    """A process that is killed in the middle of its writing."""
    command = [sys.executable, "-c", KILLED, str(place), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)


def age(path: Path, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(path, (at, at))


@WRITERS
def test_a_kill_leaves_the_old_and_the_next_write_removes_its_part(
    tmp_path: Path, write: Any
) -> None:
    path = tmp_path / "pl[a]ce"
    write(path, "old")
    killed(path, "file" if write is write_file else "folder")
    assert content(path) == "old"
    (part,) = set(tmp_path.iterdir()) - {path}
    write(path, "newer")  # the part is a moment old: another process might be about to lock it
    assert part.exists()
    age(part, 60)
    write(path, "newest")
    assert list(tmp_path.iterdir()) == [path]
    assert content(path) == "newest"


@WRITERS
def test_only_what_nobody_writes_is_removed(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "place"
    others = [tmp_path / ".place.swp", tmp_path / ".place2.abcdefgh.part", tmp_path / "place.part"]
    for other in others:
        other.touch()
    whole = whole_file if write is write_file else whole_folder
    with whole(path):
        (part,) = tmp_path.glob(".place.????????.part")
        for each in (part, *others):
            age(each, 1e6)
        write(path, "by another one")
        assert part.exists()
    assert set(tmp_path.iterdir()) == {path, *others}


@WRITERS
def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path, write: Any) -> None:
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    link.symlink_to(target)
    for text in ("made", "replaced"):
        write(link, text)
        assert link.is_symlink()
        assert content(target) == text
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "pipe behind a link"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "place"
    if kind == "loop":
        path.symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(tmp_path / "pipe")
        path = tmp_path / "pipe"
        if kind.endswith("link"):
            path = tmp_path / "place"
            path.symlink_to("pipe")
    before = os.lstat(path)
    with pytest.raises(OSError, match="what is there is no regular file"):
        write_file(path, "x")
    assert os.lstat(path) == before
    with pytest.raises(OSError, match="no regular file"):
        write_file(Path(os.devnull), "x")


@pytest.mark.parametrize("replace", [True, False])
def test_a_folder_that_comes_while_another_is_written(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "out"

    def write() -> None:
        with whole_folder(path, replace=replace) as folder:
            (folder / "a").write_text("second")
            write_folder(path, "first")

    if replace:
        write()
    else:
        with pytest.raises(OSError, match="not empty"):
            write()
    assert content(path) == ("second" if replace else "first")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_a_run_record_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text("old")
    (tmp_path / "checksums.json").write_text('{"scores.jsonl": "0"}')
    (tmp_path / "link.md").symlink_to(tmp_path / "scores.jsonl")
    for name in ("scores.jsonl", "checksums.json", "link.md"):
        with pytest.raises(OSError, match="is a file of a run record"):
            write_file(tmp_path / name, "new")
    write_file(tmp_path / "table.md", "new")
    assert (tmp_path / "scores.jsonl").read_text() == "old"


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    write_file(tmp_path / "place", "kept")
    with pytest.raises(OSError, match="what is there is no folder"):
        write_folder(tmp_path / "place", "x")
    assert content(tmp_path / "place") == "kept"


def test_a_journal_keeps_the_whole_lines_of_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    killed(path, "journal")
    with Journal(path) as journal:
        assert [line for _, line in journal.lines()] == [b'{"n": 1}\n']
        assert path.read_bytes() == b'{"n": 1}\n'
        place = journal.append({"é": [2]})
        assert journal.read(place) == {"é": [2]}
        journal.cut(place)
        assert [place for place, _ in journal.lines()] == [0]


@pytest.mark.parametrize("hold", [lambda path: file_lock(path, wait=False), Journal])
def test_one_holds_a_lock_at_a_time(tmp_path: Path, hold: Any) -> None:
    path = tmp_path / "lock"
    with hold(path), pytest.raises(BlockingIOError), hold(path):
        pass
    with hold(path):
        pass


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from univg_eval.files import file_lock\n"
        f"with file_lock(Path({str(path)!r})):\n    print('held', flush=True); time.sleep(0.3)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        started = time.monotonic()
        with file_lock(path) as file:
            file.write(b"mine")
        assert time.monotonic() - started > 0.1


def test_a_full_disk_takes_a_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(tmp_path / "journal") as journal:
        real = journal._file

        class Slow:
            def write(self, data: Any) -> int:
                return int(real.write(bytes(data[:3])) or 0)

            def __getattr__(self, name: str) -> Any:
                return getattr(real, name)

        monkeypatch.setattr(journal, "_file", Slow())
        journal.append({"text": "longer than three bytes"})
        assert journal.read(0) == {"text": "longer than three bytes"}


@pytest.mark.parametrize(
    ("number", "words"), [(28, "free space .*--root. Kept"), (13, "can be written.*. Kept")]
)
def test_a_failure_to_write_says_what_to_do(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(UserError, match=words), writing(tmp_path, kept="Kept"):
        raise OSError(number, os.strerror(number), str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a": 1}\n\n{', ":3: not a JSON value"),
        (b"[" * 100_000, ":1: not a JSON value"),
        (b"9" * 5_000, ":1: not a JSON value"),
        (b"\n\xff\n", ":2: not UTF-8 .*0xff"),
        (b"NaN\n", ":1: not a JSON value .NaN is no JSON"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(data)
    with pytest.raises(UserError, match=words):
        list(iter_json_lines(path, nan=False))
    with pytest.raises(UserError, match=r"cannot read .*absent"):
        list(iter_json_lines(tmp_path / "absent"))


def test_lines_are_numbered_and_blank_ones_passed_over(tmp_path: Path) -> None:
    def chunks() -> Iterator[str]:
        yield '{"a": 1}\n\n'
        yield "NaN"

    path = tmp_path / "lines.jsonl"
    write_text_atomically(path, chunks())
    (first, second) = iter_json_lines(path)
    assert first == (1, {"a": 1})
    assert second[0] == 3


def tenfold(first: str, line: str) -> str:
    """Eight lines, each of which names the one before it ten times."""
    return first + "".join(
        f"a{i}: &a{i} {line.format(', '.join([f'*a{i - 1}'] * 10))}\n" for i in range(1, 9)
    )


BOMB = tenfold("a0: &a0 [1, 2]\n", "[{}]")
MERGED = tenfold("a0: &a0 {x: 1}\n", "{{<<: [{}]}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, r"its aliases \(\*name\) stand for [\d,]{11} values; write them out"),
        (MERGED, "write them out"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("&a [*a]", "holds itself"),
        ("a: [1", "while parsing"),
        ("a: \0", "special characters are not allowed"),
        ("a: !!int ''", "not what its tag"),
        ("a: !!bool perhaps", "not what its tag"),
        ("a: !!timestamp x", "not what its tag"),
        ("a: 1" + ":1" * 100_000, "a number has 200,001 characters"),  # in base 60: minutes
        ("#" * 300_000, "has 300,000 characters; expected no more than 262,144"),
    ],
)
def test_a_yaml_file_that_is_none_or_stands_for_too_much_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_yaml(tmp_path / "a.yaml")


def test_aliases_of_a_yaml_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &x {n: [1, two]}\nb: *x\nc: {<<: *x, m: 3}\n")
    own = {"n": [1, "two"]}
    assert read_yaml(tmp_path / "a.yaml") == {"a": own, "b": own, "c": own | {"m": 3}}
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "a.yaml") is None


def test_sums_of_a_folder_are_those_of_sha256sum_and_name_what_was_changed(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "weights")
    (tmp_path / "model" / "part").mkdir()
    (tmp_path / "model" / "part" / "b.bin").write_bytes(bytes(range(256)))
    folder = tmp_path / "model"
    verify_sums(folder)  # one that has none
    write_sums(folder)
    write_sums(folder)  # not of the sums themselves
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == 2
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 0
    (folder / "new").write_text("of no concern")
    verify_sums(folder)
    (folder / "part" / "b.bin").write_bytes(bytes(range(255)) + b"\0")
    with pytest.raises(UserError, match=r"part/b.bin was changed or lost .*1 of 2 files are not"):
        verify_sums(folder)
    (folder / "a").unlink()
    with pytest.raises(UserError, match=r"model/a was changed or lost .*2 of 2 files are not"):
        verify_sums(folder)
    (folder / "SHA256SUMS").write_text("no sums\n")
    with pytest.raises(UserError, match=r"cannot read .*SHA256SUMS"):
        verify_sums(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/zero", "'/dev/zero' is not in the folder"),
        ("part/../../other", "'part/../../other' is not in the folder"),
        ("endless", "endless was changed or lost"),
        ("waits", "waits was changed or lost"),
        (".", "was changed or lost"),
    ],
)
def test_sums_name_regular_files_of_their_folder_alone(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "other").write_text("")
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "endless").symlink_to("/dev/zero")
    os.mkfifo(folder / "waits")
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(b'').hexdigest()}  {name}\n")
    with pytest.raises(UserError, match=message):
        verify_sums(folder)
