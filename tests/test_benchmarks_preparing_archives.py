"""Unpacking: sound archives arrive whole, hostile and damaged ones leave nothing behind."""

from __future__ import annotations

import io
import os
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from univg_eval.benchmarks.preparing import archives
from univg_eval.benchmarks.preparing.archives import is_archive, unpack
from univg_eval.errors import UserError

FILES = {"images/a/1.jpg": b"one", "images/b/2.jpg": b"two" * 50_000, "data.json": b"[]"}


Entries = dict[Any, bytes]
"""Data by name, or by the library's own info where more than the name counts."""


def pack(path: Path, entries: Entries) -> Path:
    """An archive of the form that the path's ending says."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for info, data in entries.items():
                file.writestr(info, data)
        return path
    with tarfile.open(path, "w:" if path.suffix.lower() == ".tar" else "w:gz") as file:
        for key, data in entries.items():
            info = tarfile.TarInfo(key) if isinstance(key, str) else key
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def tar_info(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != archives.MARKER_FILE
    }


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


# --- sound archives ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r.zip", "r.tar", "r.tar.gz", "r.tgz", "R.ZIP", "R.TAR.GZ"])
def test_every_form_unpacks_whole(name: str, tmp_path: Path, root: Path) -> None:
    path = pack(tmp_path / name, FILES)
    assert is_archive(path)
    seen: list[tuple[int, int]] = []
    assert unpack(path, root / "out", progress=lambda *x: seen.append(x)) == root / "out"
    assert contents(root / "out") == FILES
    assert left_behind(root) == ["out"]
    assert seen
    assert all(0 <= done <= total for done, total in seen)


def test_unpacking_again_does_nothing_and_a_changed_archive_replaces(
    tmp_path: Path, root: Path
) -> None:
    path = pack(tmp_path / "r.zip", FILES)
    out = unpack(path, root / "out")
    (out / "data.json").write_bytes(b"touched")
    unpack(path, out)
    assert (out / "data.json").read_bytes() == b"touched"
    pack(path, {"data.json": b"new"})
    unpack(path, out)
    assert contents(out) == {"data.json": b"new"}


def test_a_folder_that_was_not_unpacked_here_is_never_replaced(tmp_path: Path, root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not unpacked from r.zip"):
        unpack(pack(tmp_path / "r.zip", FILES), root / "out")
    assert (root / "out" / "mine.txt").read_text() == "mine"


def test_permissions_and_mac_extras_are_not_taken_over(tmp_path: Path, root: Path) -> None:
    tool = zip_info("tool", stat.S_IFREG | 0o6777)
    entries = {tool: b"x", "__MACOSX/._tool": b"junk", "sub\\windows.txt": b"y"}
    out = unpack(pack(tmp_path / "r.zip", entries), root / "out")
    assert contents(out) == {"tool": b"x", "sub/windows.txt": b"y"}
    assert not (out / "tool").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | 0o111)


def test_names_that_are_not_utf_8(tmp_path: Path, root: Path) -> None:
    # A zip without the UTF-8 flag: today's programs write UTF-8 all the same, old ones cp437.
    path = pack(tmp_path / "r.zip", {"XXXX.jpg": b"1", "YY.jpg": b"2"})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"XXXX", "éü".encode()).replace(b"YY", b"\x84\x94"))
    assert set(contents(unpack(path, root / "zip"))) == {"éü.jpg", "äö.jpg"}
    path = pack(tmp_path / "r.tar", {"\udcff\udcfe.jpg": b"1"})
    out = unpack(path, root / "tar")
    assert os.listdir(os.fsencode(out)).count(b"\xff\xfe.jpg") == 1  # noqa: PTH208


# --- hostile archives -------------------------------------------------------------------------

OUTSIDE, LINKED, DEEP = "outside of the target", "a link, a device or a pipe", "nested 1501 deep"

HOSTILE: dict[str, tuple[str, Entries, str]] = {
    "zip slip": ("x.zip", {"a": b"", "../evil.txt": b"x"}, OUTSIDE),
    "zip slip inside": ("x.zip", {"a/../../evil.txt": b"x"}, OUTSIDE),
    "backslashes": ("x.zip", {"a\\..\\..\\evil.txt": b"x"}, OUTSIDE),
    "absolute in zip": ("x.zip", {"/tmp/evil.txt": b"x"}, OUTSIDE),
    "drive letter": ("x.zip", {"C:\\evil.txt": b"x"}, OUTSIDE),
    "network path": ("x.zip", {"\\\\host\\evil.txt": b"x"}, OUTSIDE),
    "tar slip": ("x.tgz", {"../evil.txt": b"x"}, OUTSIDE),
    "absolute in tar": ("x.tar", {"/tmp/evil": b"x"}, OUTSIDE),
    "link in zip": (
        "x.zip",
        {zip_info("l", stat.S_IFLNK | 0o777): b"..", "l/evil.txt": b"x"},
        LINKED,
    ),
    "link in tar": ("x.tgz", {tar_info("l", tarfile.SYMTYPE, ".."): b"", "l/e": b"x"}, LINKED),
    "hard link": ("x.tgz", {tar_info("l", tarfile.LNKTYPE, "../outside.txt"): b""}, LINKED),
    "device in zip": ("x.zip", {zip_info("null", stat.S_IFCHR | 0o666): b""}, LINKED),
    "device in tar": ("x.tgz", {tar_info("null", tarfile.CHRTYPE): b""}, LINKED),
    "pipe in tar": ("x.tgz", {tar_info("pipe", tarfile.FIFOTYPE): b""}, LINKED),
    "deep in zip": ("x.zip", {"a/" * 1500 + "x": b"x"}, DEEP),
    "deep in tar": ("x.tgz", {"a/" * 1500 + "x": b"x"}, DEEP),
    "over the marker": ("x.zip", {f"{archives.MARKER_FILE}/x": b"{}"}, "Is a directory"),
    "file and folder": ("x.zip", {"a/b.txt": b"1", "a": b"2"}, "Is a directory"),
    "file used as folder": ("x.zip", {"a": b"1", "a/b.txt": b"2"}, "File exists"),
    "a name that the disk does not take": ("x.zip", {"n" * 300: b"1"}, "too long"),
    "without a name": ("x.zip", {"a": b"x"}, "Is a directory"),
}


def remove_name(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    for mark, offset, header in ((b"PK\x03\x04", 26, 30), (b"PK\x01\x02", 28, 46)):
        start = raw.index(mark)
        raw[start + offset] = 0  # the length of the name
        del raw[start + header]
    end = raw.index(b"PK\x05\x06")
    size, begin = struct.unpack_from("<2L", raw, end + 12)
    struct.pack_into("<2L", raw, end + 12, size - 1, begin - 1)
    path.write_bytes(raw)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_write_nothing(
    name: str, tmp_path: Path, root: Path
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("untouched")
    file, entries, message = HOSTILE[name]
    archive = pack(tmp_path / file, entries)
    if name == "without a name":
        remove_name(archive)
    with pytest.raises(UserError) as error:
        unpack(archive, root / "out")
    assert str(error.value).startswith(f"{archive}: ")
    assert message in str(error.value)
    assert left_behind(root) == []
    assert outside.read_text() == "untouched"
    assert left_behind(tmp_path) == sorted([archive.name, "outside.txt", "root"])


# --- bombs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["zip", "tgz", "tar"])
@pytest.mark.parametrize("by", ["disk", "limit"])
def test_a_bomb_is_stopped_by_its_size(
    suffix: str, by: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / f"bomb.{suffix}", {"a": bytes(6_000), "b": bytes(6_000)})
    if by == "disk":
        usage = shutil.disk_usage(root)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    else:
        monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 10_000)
    with pytest.raises(UserError, match=r"unpacks to 12000 bytes or more.*--root"):
        unpack(path, root / "out")
    assert left_behind(root) == []


def test_a_zip_that_lies_about_its_sizes_is_stopped(tmp_path: Path, root: Path) -> None:
    path = pack(tmp_path / "liar.zip", {"zeros": bytes(3_000_000)})
    with_bytes(path, struct.pack("<L", 3_000_000), struct.pack("<L", 10))
    with pytest.raises(UserError, match=r"liar\.zip: not a whole archive"):
        unpack(path, root / "out")
    assert left_behind(root) == []


# --- damaged and unreadable archives ----------------------------------------------------------


def test_every_cut_of_an_archive_is_noticed(tmp_path: Path, root: Path) -> None:
    """Half-downloaded, at any place: also between two entries, where tarfile sees nothing."""
    rng_files = {f"{k}.bin": os.urandom(700) for k in range(4)}
    for suffix in ("zip", "tar", "tgz"):
        whole = pack(tmp_path / f"w.{suffix}", rng_files)
        raw = whole.read_bytes()
        used = len(raw.rstrip(b"\0")) if whole.suffix == ".tar" else len(raw)
        cuts = {*range(0, used, 97), *range(0, used, 512), used - 1}
        for cut in sorted(cuts):
            half = tmp_path / f"half{whole.suffix}"
            half.write_bytes(raw[:cut])
            with pytest.raises(UserError, match=r"half.* only half downloaded"):
                unpack(half, root / "out")
            assert left_behind(root) == [], (whole.name, cut)


def with_bytes(path: Path, old: bytes, new: bytes) -> Path:
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    return path


def flipped(path: Path) -> Path:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    return path


def bz2_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a", b"1" * 99)
    return path


def sparse_tar(path: Path) -> Path:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"GNU.sparse.map": "0,1,x,y"}
    return pack(path, {info: bytes(3)})


def patched_zip(path: Path, place: int, change: Callable[[int], int]) -> Path:
    """With a byte changed that local header and directory share, counted in the local header."""
    raw = bytearray(pack(path, {"a.txt": b"x"}).read_bytes())
    for mark, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = raw.index(mark) + place + shift
        raw[at] = change(raw[at])
    path.write_bytes(raw)
    return path


RANDOM = {f"{k}.bin": random.Random(k).randbytes(700) for k in range(4)}
HALF, OTHER_PROGRAM = "only half downloaded", "unpack it with another program"
DAMAGED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a flipped byte in zip": (lambda d: flipped(pack(d / "x.zip", RANDOM)), HALF),
    "a flipped byte in tgz": (lambda d: flipped(pack(d / "x.tgz", RANDOM)), HALF),
    "a name that says UTF-8 and is none": (
        lambda d: with_bytes(pack(d / "x.zip", {"ü": b"1"}), b"\xc3\xbc", b"\xc3\x28"),
        HALF,
    ),
    "damage that bz2 notices": (
        lambda d: with_bytes(bz2_zip(d / "x.zip"), b"1AY&SY", b"2AY&SY"),
        HALF,
    ),
    "a sparse map of no numbers": (lambda d: sparse_tar(d / "x.tar"), HALF),
    "encrypted": (lambda d: patched_zip(d / "x.zip", 6, lambda b: b | 1), OTHER_PROGRAM),
    # Deflate64, which Windows writes above 2 GB.
    "an unknown compression": (lambda d: patched_zip(d / "x.zip", 8, lambda _: 9), OTHER_PROGRAM),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_the_library_stumbles_over(name: str, tmp_path: Path, root: Path) -> None:
    """Found by changing bytes at random: Python's readers raise more than they document."""
    make, message = DAMAGED[name]
    with pytest.raises(UserError, match=rf"x\.\w+: .*{message}"):
        unpack(make(tmp_path), root / "out")
    assert left_behind(root) == []


def test_what_is_no_archive(tmp_path: Path, root: Path) -> None:
    for name in ("page.zip", "page.tar", "page.tgz"):
        path = tmp_path / name
        path.write_text("<html>quota exceeded</html>")  # what Google Drive sends
        with pytest.raises(UserError, match=f"{name}: not a whole"):
            unpack(path, root / "out")
    (tmp_path / "folder.zip").mkdir()
    for name, message in (
        ("absent.zip", "cannot read the archive"),
        ("x.rar", "expected an archive named"),
        ("folder.zip", "is not a file"),
    ):
        with pytest.raises(UserError, match=message):
            unpack(tmp_path / name, root / "out")
    assert left_behind(root) == []


def test_a_disk_that_does_not_take_it(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "r.zip", FILES)
    (root / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file.*(File exists|Not a dir)"):
        unpack(path, root / "file" / "out")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"No space left on device; free space.*was unpacked"):
        unpack(path, root / "out")
    assert left_behind(root) == ["file"]
