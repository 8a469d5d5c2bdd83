"""The scripts of results/reliability: they find faults, and the page shows what they measured."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripts import REPO, load_script

faults = load_script("results/reliability/faults.py")
conditions = load_script("results/reliability/conditions.py")
page = load_script("results/reliability/page.py")
soak = load_script("results/reliability/soak.py")

AS_ROOT = sys.platform == "linux" and os.geteuid() == 0


def test_the_page_shows_what_the_files_say() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.page(text) == text, "run: python results/reliability/page.py"


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        (
            "faults",
            lambda found: [
                point
                for row in found.values()
                for point in row["points"]
                if point["differs"] or point["alive"]
            ],
        ),
        (
            "conditions",
            lambda found: [
                row for one in found.values() for row in one["conditions"].values() if row["broken"]
            ],
        ),
        ("soak", lambda found: not found["flat"]),
        ("fuzz", lambda found: [row for row in found["rows"] if row["failed"]]),
        ("versions", lambda found: [row for row in found["rows"] if row["failed"]]),
    ],
)
def test_nothing_measured_was_broken(name: str, broken: Callable[[Any], Any]) -> None:
    path = REPO / "results" / "reliability" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{name}.py has not been run yet, as the page says")
    assert not broken(json.loads(path.read_text(encoding="utf-8")))


def test_figures_become_rows(tmp_path: Path) -> None:
    point = {"signal": "SIGKILL", "differs": "", "alive": [], "again_s": 3.0}
    other = point | {"signal": "SIGINT", "differs": "a", "alive": ["x"], "again_s": 1.0}
    row = {"seconds": 2.0, "files": 1, "points": [point, point, other], "date": "2026-01-02"}
    row["hardware"] = {"cpu": "Chip", "cpu_count": 4}
    (tmp_path / "faults.json").write_text(json.dumps({"score": row}))
    shown = page.table("faults", tmp_path)
    assert (
        "| `score` | 2 s, 1 file | 2 SIGKILL, 1 SIGINT | 2 of 3 | 1 | 50 to 150 % of its time |"
    ) in shown
    assert shown.endswith("Measured on 4 × Chip, 2026-01-02.")
    assert page.table("soak", tmp_path) == "Not measured: run `soak.py`."


# --- kills --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "inputs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIVG_DATA", "")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(faults, "N_ROWS", 2000)
        faults.write_inputs(folder, ["prepare", "score"])
    return folder


@pytest.fixture
def data(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIVG_DATA", str(inputs / "data"))
    return inputs


ARGUMENTS = argparse.Namespace(seed=0, points=3)


@pytest.mark.parametrize("name", ["prepare", "score"])
def test_a_killed_command_can_be_repeated(name: str, data: Path, tmp_path: Path) -> None:
    command = faults.command_of(faults.CASES[name], data, "")
    row = faults.attempt(name, tmp_path, command, ARGUMENTS)
    assert [point["signal"] for point in row["points"]] == ["SIGKILL", "SIGTERM", "SIGINT"]
    assert [(point["differs"], point["alive"]) for point in row["points"]] == [("", [])] * 3


APPENDS = """
import json, time
from pathlib import Path
with Path("rows.jsonl").open("a") as file:
    for n in range(3):
        file.write(json.dumps({"n": n, "date": time.time()}) + "\\n")
        file.flush()
        time.sleep(0.5)
"""
LEAVES_ONE = """
import subprocess, sys, time
from pathlib import Path
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)"])
time.sleep(1)
child.kill()
Path("rows.jsonl").write_text("1\\n")
"""


@pytest.mark.parametrize(("code", "fault"), [(APPENDS, "differs"), (LEAVES_ONE, "alive")])
def test_the_harness_finds(
    code: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = faults.Case((sys.executable, "-c", code), "", ("*.jsonl",))
    monkeypatch.setitem(faults.CASES, "bad", case)
    monkeypatch.setattr(faults, "SECONDS_TO_END", 0.5)
    row = faults.attempt(
        "bad", tmp_path, [sys.executable, "-c", code], argparse.Namespace(seed=3, points=2)
    )
    found = {name for point in row["points"] for name in ("differs", "alive") if point[name]}
    assert found == {fault}


# --- conditions ---------------------------------------------------------------------------------


def outcome(name: str, condition: str, data: Path, folder: Path) -> dict[str, Any]:
    case = faults.CASES[name]
    command = faults.command_of(case, data, "")
    what, _ = conditions.CONDITIONS[condition]
    return conditions.attempt(case, what, folder / "place", command)


@pytest.mark.parametrize(
    ("name", "condition", "message"),
    [
        ("score", "full disk", "cannot write scores.jsonl: No space left on device"),
        ("score", "read-only folder", "cannot write scores.jsonl: Read-only file system"),
        ("score", "place taken", "--out scores.jsonl is a folder"),
        ("score", "no data root", "unknown benchmark 'custom_many'"),
        ("score", "no home", ""),
        ("prepare", "full disk", "No space left on device; free space or choose another data root"),
        ("eval", "full disk", "No space left on device; free space or choose another folder with"),
    ],
)
def test_one_message_or_the_work_is_done(
    name: str, condition: str, message: str, data: Path, tmp_path: Path
) -> None:
    if conditions.CONDITIONS[condition][1] and not AS_ROOT:
        pytest.skip("mounts a small disk, which needs root on Linux")
    found = outcome(name, condition, data, tmp_path)
    assert found["broken"] == ""
    assert (found["status"], message in found["message"]) == (2 if message else 0, True)


def test_a_traceback_and_a_changed_file_are_found(tmp_path: Path) -> None:
    case = faults.Case(faults.EVAL, "", ("page.html",))
    for number, code in enumerate(
        ("raise OSError('no')", "open('page.html/inside', 'w').write('x')", "")
    ):
        command = [sys.executable, "-c", code]
        what, _ = conditions.CONDITIONS["place taken"]
        found = conditions.attempt(case, what, tmp_path / str(number), command)
        assert bool(found["broken"]) is bool(code), code


WRITES = """
import sys
from pathlib import Path
try:
    with Path("rows.jsonl").open({mode!r}) as file:
        file.writelines('{{"n": 1}}\\n' for _ in range(50_000))
except OSError as error:
    print("univg score: no room", file=sys.stderr)
    {end}
"""


@pytest.mark.skipif(not AS_ROOT, reason="mounts a small disk, which needs root on Linux")
@pytest.mark.parametrize(
    ("mode", "end", "broken"),
    [
        ("w", "sys.exit(2)", ""),
        ("w", "raise", "Traceback"),
        ("w", "sys.exit(3)", "univg score: no room"),
        ("w", "sys.exit(0)", "rows.jsonl: "),  # cut off, and called whole
        ("a", "sys.exit(2)", "rows.jsonl: "),  # repeated behind what was cut off
    ],
)
def test_a_disk_that_fills_and_what_the_repeated_command_makes_of_it(
    mode: str, end: str, broken: str, tmp_path: Path
) -> None:
    case = faults.Case(faults.EVAL, "", ("*.jsonl",))
    command = [sys.executable, "-c", WRITES.format(mode=mode, end=end)]
    found = conditions.attempt_filling(case, tmp_path / "place", command)
    assert found["kb"] == 440  # 450,000 bytes in pages of 4096
    assert [one["share"] for one in found["each"]] == [0.5, 0.95]
    assert broken in found["broken"] and bool(broken) == bool(found["broken"])
    if not broken:
        assert (found["status"], found["message"]) == (2, "univg score: no room")


# --- soak ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "flat"),
    [
        ({}, True),
        ({"rss_mb": 101.0}, True),
        ({"rss_mb": 103.0}, False),
        ({"files": 9}, False),
        ({"threads": 5}, False),
    ],
)
def test_growth_is_that_of_the_second_half_after_the_warm_up(
    last: dict[str, Any], flat: bool
) -> None:
    usual = {"rss_mb": 100.0, "files": 8, "threads": 4}
    warm_up, rounds = [usual | {"rss_mb": 10.0}] * 4, [usual] * 6
    found = soak.verdict([*warm_up, *rounds, *[usual | last] * 6])
    assert found["flat"] is flat
    assert found["rounds"] == 16
