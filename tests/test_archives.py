"""Unpacking: sound archives arrive whole, hostile and damaged ones leave nothing behind."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from univg_eval.benchmarks.preparing import archives
from univg_eval.benchmarks.preparing.archives import Limits, is_archive, unpack
from univg_eval.errors import UserError

FILES = {"images/a/1.jpg": b"one", "images/b/2.jpg": b"two" * 50_000, "data.json": b"[]"}


def write_zip(path: Path, files: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz", **options) -> Path:
    with tarfile.open(path, mode, **options) as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def tar_of(path: Path, *infos: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for info in infos:
            file.addfile(info, io.BytesIO(bytes(info.size)) if info.size else None)
    return path


def tar_info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def zip_of(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for info, data in entries:
            file.writestr(info, data)
    return path


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
    path = tmp_path / name
    if path.suffix.lower() == ".zip":
        write_zip(path, FILES)
    else:
        write_tar(path, FILES, "w:" if path.suffix.lower() == ".tar" else "w:gz")
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
    path = write_zip(tmp_path / "r.zip", FILES)
    out = unpack(path, root / "out")
    (out / "data.json").write_bytes(b"touched")
    unpack(path, out)
    assert (out / "data.json").read_bytes() == b"touched"
    write_zip(path, {"data.json": b"new"})
    unpack(path, out)
    assert contents(out) == {"data.json": b"new"}


def test_a_folder_that_was_not_unpacked_here_is_never_replaced(tmp_path: Path, root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"no earlier run unpacked r.zip to it"):
        unpack(write_zip(tmp_path / "r.zip", FILES), root / "out")
    assert (root / "out" / "mine.txt").read_text() == "mine"


def test_what_a_killed_run_left_is_thrown_away(tmp_path: Path, root: Path) -> None:
    (root / ".out.partial" / "images").mkdir(parents=True)
    (root / ".out.partial" / "images" / "half.jpg").write_bytes(b"ha")
    out = unpack(write_zip(tmp_path / "r.zip", FILES), root / "out")
    assert contents(out) == FILES
    assert left_behind(root) == ["out"]


def test_links_inside_the_archive_are_kept_and_hard_links_copied(
    tmp_path: Path, root: Path
) -> None:
    path = tmp_path / "r.tar"
    with tarfile.open(path, "w") as file:
        # The links come before what they point to.
        file.addfile(tar_info("images/same.jpg", tarfile.SYMTYPE, "a/1.jpg"))
        info = tar_info("images/a/1.jpg", size=3)
        file.addfile(info, io.BytesIO(b"one"))
        file.addfile(tar_info("hard.jpg", tarfile.LNKTYPE, "images/a/1.jpg"))
    out = unpack(path, root / "out")
    assert (out / "images" / "same.jpg").is_symlink()
    assert contents(out) == {
        name: b"one" for name in ("images/a/1.jpg", "images/same.jpg", "hard.jpg")
    }


def test_permissions_and_mac_extras_are_not_taken_over(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "r.zip"
    zip_of(
        path,
        (zip_entry("tool", stat.S_IFREG | 0o6777), b"x"),
        ("__MACOSX/._tool", b"junk"),
        ("sub\\windows.txt", b"y"),
    )
    out = unpack(path, root / "out")
    assert contents(out) == {"tool": b"x", "sub/windows.txt": b"y"}
    assert not (out / "tool").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | 0o111)


def test_names_that_are_not_utf_8(tmp_path: Path, root: Path) -> None:
    # A zip without the UTF-8 flag: today's programs write UTF-8 all the same, old ones cp437.
    path = write_zip(tmp_path / "r.zip", {"XXXX.jpg": b"1", "YY.jpg": b"2"})
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"XXXX", "éü".encode()).replace(b"YY", b"\x84\x94"))
    assert set(contents(unpack(path, root / "zip"))) == {"éü.jpg", "äö.jpg"}
    path = write_tar(tmp_path / "r.tar", {"\udcff\udcfe.jpg": b"1"}, "w:")
    out = unpack(path, root / "tar")
    assert os.listdir(os.fsencode(out)).count(b"\xff\xfe.jpg") == 1  # noqa: PTH208


# --- hostile archives -------------------------------------------------------------------------

LINK = stat.S_IFLNK | 0o777

HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "zip slip": (
        lambda d: write_zip(d / "x.zip", {"ok.txt": b"", "../evil.txt": b"x"}),
        "'../evil.txt' would be written outside",
    ),
    "zip slip inside": (
        lambda d: write_zip(d / "x.zip", {"a/../../evil.txt": b"x"}),
        "outside of the target folder",
    ),
    "zip slip with backslashes": (
        lambda d: zip_of(d / "x.zip", ("a\\..\\..\\evil.txt", b"x")),
        "outside of the target folder",
    ),
    "absolute in zip": (
        lambda d: write_zip(d / "x.zip", {"/tmp/evil.txt": b"x"}),
        "outside of the target folder",
    ),
    "drive letter": (
        lambda d: write_zip(d / "x.zip", {"C:\\evil.txt": b"x"}),
        "outside of the target folder",
    ),
    "network path": (
        lambda d: zip_of(d / "x.zip", ("\\\\host\\share\\evil.txt", b"x")),
        "outside of the target folder",
    ),
    "over the marker": (
        lambda d: write_zip(d / "x.zip", {archives.MARKER_FILE: b"{}"}),
        "over its marker",
    ),
    "symlink out of zip": (
        lambda d: zip_of(d / "x.zip", (zip_entry("l", LINK), b"../../outside.txt")),
        "is a link to '../../outside.txt'",
    ),
    "absolute symlink in zip": (
        lambda d: zip_of(d / "x.zip", (zip_entry("l", LINK), b"/etc/passwd")),
        "is a link to '/etc/passwd'",
    ),
    "write through a zip symlink": (
        lambda d: zip_of(d / "x.zip", (zip_entry("l", LINK), b".."), ("l/evil.txt", b"x")),
        "goes through 'l', which is no folder",
    ),
    "device in zip": (
        lambda d: zip_of(d / "x.zip", (zip_entry("null", stat.S_IFCHR | 0o666), b"")),
        "a device or pipe",
    ),
    "duplicate in zip": (
        lambda d: zip_of(d / "x.zip", ("a.txt", b"1"), ("./a.txt", b"2")),
        "entry './a.txt' stands twice",
    ),
    "file and folder": (
        lambda d: zip_of(d / "x.zip", ("a/b.txt", b"1"), ("a", b"2")),
        "a file and a folder",
    ),
    "file used as folder": (
        lambda d: zip_of(d / "x.zip", ("a", b"1"), ("a/b.txt", b"2")),
        "goes through 'a', which is no folder",
    ),
    "tar slip": (
        lambda d: write_tar(d / "x.tgz", {"../evil.txt": b"x"}),
        "outside of the target folder",
    ),
    "absolute in tar": (
        lambda d: write_tar(d / "x.tar", {"/tmp/evil.txt": b"x"}, "w:"),
        "outside of the target folder",
    ),
    "symlink out of tar": (
        lambda d: tar_of(d / "x.tgz", tar_info("l", tarfile.SYMTYPE, "../outside.txt")),
        "is a link to '../outside.txt'",
    ),
    "symlinks that leave step by step": (
        lambda d: tar_of(
            d / "x.tgz",
            tar_info("sub", tarfile.DIRTYPE),
            tar_info("sub/up", tarfile.SYMTYPE, ".."),
            tar_info("out", tarfile.SYMTYPE, "sub/up/../../outside.txt"),
        ),
        "is a link to 'sub/up/../../outside.txt'",
    ),
    "link to nowhere": (
        lambda d: tar_of(d / "x.tgz", tar_info("l", tarfile.SYMTYPE, "missing")),
        "links to files of the archive only",
    ),
    "circle of links": (
        lambda d: tar_of(
            d / "x.tgz",
            tar_info("a", tarfile.SYMTYPE, "b"),
            tar_info("b", tarfile.SYMTYPE, "a"),
        ),
        "links to files of the archive only",
    ),
    "write through a tar symlink": (
        lambda d: tar_of(
            d / "x.tgz",
            tar_info("l", tarfile.SYMTYPE, "/tmp"),
            tar_info("l/evil.txt", size=1),
        ),
        "goes through 'l', which is no folder",
    ),
    "hard link out of tar": (
        lambda d: tar_of(d / "x.tgz", tar_info("l", tarfile.LNKTYPE, "../outside.txt")),
        "outside of the target folder",
    ),
    "hard link to nothing": (
        lambda d: tar_of(d / "x.tgz", tar_info("l", tarfile.LNKTYPE, "missing")),
        "links to files of the archive only",
    ),
    "hard link to a link": (
        lambda d: tar_of(
            d / "x.tgz",
            tar_info("s", tarfile.SYMTYPE, "/etc/passwd"),
            tar_info("l", tarfile.LNKTYPE, "s"),
        ),
        "is a link to",
    ),
    "device in tar": (
        lambda d: tar_of(d / "x.tgz", tar_info("null", tarfile.CHRTYPE)),
        "a device or pipe",
    ),
    "pipe in tar": (
        lambda d: tar_of(d / "x.tgz", tar_info("pipe", tarfile.FIFOTYPE)),
        "a device or pipe",
    ),
    "deep in zip": (
        lambda d: write_zip(d / "x.zip", {"a/" * 1500 + "x": b"x"}),
        "nested 1501 folders deep",
    ),
    "deep in tar": (
        lambda d: write_tar(d / "x.tgz", {"a/" * 1500 + "x": b"x"}),
        "nested 1501 folders deep",
    ),
    "marker as a folder": (
        lambda d: write_zip(d / "x.zip", {f"{archives.MARKER_FILE}/x": b"{}"}),
        "over its marker",
    ),
    "duplicate in tar": (
        lambda d: tar_of(d / "x.tgz", tar_info("a", size=1), tar_info("a", size=2)),
        "entry 'a' stands twice",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_write_nothing(
    name: str, tmp_path: Path, root: Path
) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("untouched")
    make, message = HOSTILE[name]
    archive = make(tmp_path)
    with pytest.raises(UserError) as error:
        unpack(archive, root / "out")
    assert message in str(error.value)
    assert str(archive) in str(error.value)
    assert left_behind(root) == []
    assert outside.read_text() == "untouched"
    assert left_behind(tmp_path) == sorted([archive.name, "outside.txt", "root"])


# --- bombs ------------------------------------------------------------------------------------

SMALL = Limits(total_bytes=10_000, entries=5, ratio=50)


@pytest.mark.parametrize("suffix", ["zip", "tgz", "tar"])
def test_limits_on_size_and_number(suffix: str, tmp_path: Path, root: Path) -> None:
    def write(name: str, files: dict[str, bytes]) -> Path:
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "zip":
            return write_zip(path, files)
        return write_tar(path, files, "w:" if suffix == "tar" else "w:gz")

    big = write("big", {"a": bytes(6_000), "b": bytes(6_000)})
    with pytest.raises(
        UserError,
        match=r"unpacks to 12.0 kB or more; the limit is 10.0 kB.*"
        r"--raise-limits",
    ):
        unpack(big, root / "out", limits=SMALL)
    many = write("many", {f"{k}": b"" for k in range(6)})
    with pytest.raises(UserError, match="holds more than 5 entries, the limit"):
        unpack(many, root / "out", limits=SMALL)
    assert left_behind(root) == []
    assert contents(unpack(big, root / "big", limits=SMALL.times(2)))
    assert contents(unpack(many, root / "many", limits=SMALL.times(2)))


@pytest.mark.parametrize("suffix", ["zip", "tgz"])
def test_a_bomb_is_refused_by_its_ratio(
    suffix: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 100_000)
    files = {"zeros": bytes(3_000_000)}
    path = tmp_path / f"bomb.{suffix}"
    bomb = write_zip(path, files) if suffix == "zip" else write_tar(path, files)
    with pytest.raises(UserError, match=r"times its size of .* made to fill a disk"):
        unpack(bomb, root / "out")
    assert left_behind(root) == []
    unpack(bomb, root / "out", limits=Limits().times(100))


def test_a_zip_that_lies_about_its_sizes_is_stopped(tmp_path: Path, root: Path) -> None:
    path = write_zip(tmp_path / "liar.zip", {"zeros": bytes(3_000_000)})
    honest = struct.pack("<L", 3_000_000)
    path.write_bytes(path.read_bytes().replace(honest, struct.pack("<L", 10)))
    with pytest.raises(UserError, match=r"liar\.zip"):
        unpack(path, root / "out")
    assert left_behind(root) == []


def test_a_zip_whose_entries_share_their_bytes(tmp_path: Path, root: Path) -> None:
    """Overlapping entries: each is small, together they are far larger than the archive."""
    path = write_zip(tmp_path / "overlap.zip", {"a": bytes(100_000)})
    raw = path.read_bytes()
    start = raw.index(b"PK\x01\x02")
    end = raw.index(b"PK\x05\x06")
    entry = raw[start:end]
    names = [bytes([65 + k]) for k in range(20)]
    directory = b"".join(entry[:-1] + name for name in names)
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 20, 20, len(directory), start, 0)
    path.write_bytes(raw[:start] + directory + tail)
    with pytest.raises(UserError, match=r"overlap.zip"):
        unpack(path, root / "out", limits=Limits(total_bytes=1_000_000))
    assert left_behind(root) == []


def test_a_tar_header_of_huge_size_is_not_read(tmp_path: Path, root: Path) -> None:
    info = tar_info("x" * 10, tarfile.GNUTYPE_LONGNAME)
    info.size = 2**32
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(UserError, match=r"header of \d+ bytes"):
        unpack(path, root / "out")
    assert left_behind(root) == []


# --- damaged and unreadable archives ----------------------------------------------------------


def test_every_cut_of_an_archive_is_noticed(tmp_path: Path, root: Path) -> None:
    """Half-downloaded, at any place: also between two entries, where tarfile sees nothing."""
    rng_files = {f"{k}.bin": os.urandom(700) for k in range(4)}
    for whole in (
        write_zip(tmp_path / "w.zip", rng_files),
        write_tar(tmp_path / "w.tar", rng_files, "w:"),
        write_tar(tmp_path / "w.tgz", rng_files),
    ):
        raw = whole.read_bytes()
        used = len(raw.rstrip(b"\0")) if whole.suffix == ".tar" else len(raw)
        cuts = {*range(0, used, 97), *range(0, used, 512), used - 1}
        for cut in sorted(cuts):
            half = tmp_path / f"half{whole.suffix}"
            half.write_bytes(raw[:cut])
            with pytest.raises(UserError, match=r"half.* only half downloaded"):
                unpack(half, root / "out")
            assert left_behind(root) == [], (whole.name, cut)


@pytest.mark.parametrize("suffix", ["zip", "tgz"])
def test_flipped_bytes_are_noticed(suffix: str, tmp_path: Path, root: Path) -> None:
    files = {f"{k}.bin": os.urandom(700) for k in range(4)}
    path = tmp_path / f"w.{suffix}"
    whole = write_zip(path, files) if suffix == "zip" else write_tar(path, files)
    raw = bytearray(whole.read_bytes())
    raw[len(raw) // 2] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(UserError, match="damaged or only half downloaded"):
        unpack(path, root / "out")
    assert left_behind(root) == []


def with_bytes(path: Path, old: bytes, new: bytes) -> Path:
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    return path


def bz2_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("a", b"1" * 99)
    return path


def sparse_tar(path: Path) -> Path:
    info = tar_info("x", size=3)
    info.pax_headers = {"GNU.sparse.map": "0,1,x,y"}
    return tar_of(path, info, mode="w:")


DAMAGED: dict[str, Callable[[Path], Path]] = {
    "a link with a NUL": lambda d: zip_of(d / "x.zip", (zip_entry("l", LINK), b"a\0b")),
    "a name that says UTF-8 and is none": lambda d: with_bytes(
        write_zip(d / "x.zip", {"ü": b"1"}), b"\xc3\xbc", b"\xc3\x28"
    ),
    "damage that bz2 notices": lambda d: with_bytes(bz2_zip(d / "x.zip"), b"1AY&SY", b"2AY&SY"),
    "a sparse map of no numbers": lambda d: sparse_tar(d / "x.tar"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_the_library_stumbles_over_is_damage(name: str, tmp_path: Path, root: Path) -> None:
    """Found by changing bytes at random: Python's readers raise more than they document."""
    with pytest.raises(UserError, match=r"x\.\w+: not a whole .* only half downloaded"):
        unpack(DAMAGED[name](tmp_path), root / "out")
    assert left_behind(root) == []


def test_a_name_that_the_disk_does_not_take(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UserError, match=r"too long; nothing of it was kept\. Its names do not fit"):
        unpack(write_zip(tmp_path / "x.zip", {"n" * 300: b"1"}), root / "out")
    assert left_behind(root) == []


def test_what_is_no_archive(tmp_path: Path, root: Path) -> None:
    for name in ("page.zip", "page.tar", "page.tgz"):
        path = tmp_path / name
        path.write_text("<html>quota exceeded</html>")  # what Google Drive sends
        with pytest.raises(UserError, match=f"{name}: not a whole"):
            unpack(path, root / "out")
    with pytest.raises(UserError, match="cannot read the archive"):
        unpack(tmp_path / "absent.zip", root / "out")
    with pytest.raises(UserError, match="expected an archive named"):
        unpack(tmp_path / "x.rar", root / "out")
    (tmp_path / "folder.zip").mkdir()
    with pytest.raises(UserError, match="is not a file"):
        unpack(tmp_path / "folder.zip", root / "out")
    assert left_behind(root) == []


def test_an_entry_without_a_name(tmp_path: Path, root: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"a": b"x"})
    raw = bytearray(path.read_bytes())
    for mark, offset, header in ((b"PK\x03\x04", 26, 30), (b"PK\x01\x02", 28, 46)):
        start = raw.index(mark)
        raw[start + offset] = 0  # the length of the name
        del raw[start + header]
    end = raw.index(b"PK\x05\x06")
    size, begin = struct.unpack_from("<2L", raw, end + 12)
    struct.pack_into("<2L", raw, end + 12, size - 1, begin - 1)
    path.write_bytes(raw)
    with pytest.raises(UserError, match="entry '' is a file and a folder"):
        unpack(path, root / "out")
    assert left_behind(root) == []


def test_an_encrypted_zip(tmp_path: Path, root: Path) -> None:
    path = write_zip(tmp_path / "secret.zip", {"a.txt": b"x"})
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + offset] |= 1
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"entry 'a\.txt' is encrypted"):
        unpack(path, root / "out")
    assert left_behind(root) == []


def test_a_compression_that_python_does_not_know(tmp_path: Path, root: Path) -> None:
    path = write_zip(tmp_path / "d64.zip", {"a.txt": b"x"})
    raw = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        raw[raw.index(mark) + offset] = 9  # Deflate64, which Windows writes above 2 GB
    path.write_bytes(raw)
    with pytest.raises(UserError, match="Unpack it with another program"):
        unpack(path, root / "out")
    assert left_behind(root) == []


def test_a_full_disk_is_told_before_or_while_writing(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "r.zip", FILES)
    usage = shutil.disk_usage(root)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(UserError, match=r"needs 150.0 kB, but the disk .* has 1.0 kB left"):
            unpack(path, root / "out")

    def full(self: Path, *args, **kwargs):
        if args[:1] == ("xb",):
            raise OSError(28, "No space left on device")
        return original(self, *args, **kwargs)

    original = Path.open
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"No space left on device; nothing of it was kept"):
        unpack(path, root / "out")
    assert left_behind(root) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, root: Path) -> None:
    blocked = root / "file"
    blocked.write_text("")
    with pytest.raises(
        UserError, match=r"cannot unpack .*r.zip to .*file/out: (File exists|Not a dir)"
    ):
        unpack(write_zip(tmp_path / "r.zip", FILES), blocked / "out")


def test_limits_are_only_raised() -> None:
    assert Limits().times(2) == Limits(
        2 * archives.MAX_TOTAL_BYTES, 2 * archives.MAX_ENTRIES, 2 * archives.MAX_RATIO
    )
    for factor in (0, 0.5, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="expected 1 or more"):
            Limits().times(factor)
