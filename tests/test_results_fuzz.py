"""The fuzzer of results/reliability: a short run of every row, and what counts as a finding."""

from __future__ import annotations

import contextlib
import json
import os
import time
from random import Random

import pytest
from scripts import REPO, load_script

from univg_eval.errors import UserError

# Which it imports by their names.
for _name in ("fuzz_changes", "fuzz_replies", "fuzz_releases", "fuzz_files"):
    load_script(f"results/reliability/{_name}.py")
fuzz = load_script("results/reliability/fuzz.py")
replies, files, changes = fuzz.fuzz_replies, fuzz.fuzz_files, load_script(
    "results/reliability/fuzz_changes.py"
)  # fmt: skip
ROWS = list(fuzz.kinds(heavy=False))


@pytest.mark.parametrize("row", ROWS, ids=[name for name, *_ in ROWS])
def test_hostile_input_is_read_or_refused(row) -> None:
    name, case, *_ = row
    found = fuzz.fuzz(name, case, seed=0, seconds=60.0, limit=20)
    assert found.findings == []
    assert found.tried == found.read + found.refused == 20
    assert found.read > 0


def test_each_row_that_the_figures_show_is_one_of_the_fuzzer() -> None:
    report = json.loads((REPO / "results/reliability/fuzz.json").read_text(encoding="utf-8"))
    shown = [row["input"] for row in report["rows"]]
    assert shown == [name for name, *_ in fuzz.kinds()]
    for row in report["rows"]:
        assert row["tried"] == row["read"] + row["refused"] + row["failed"] > 0


# --- the fuzzer itself: what it must not miss ---------------------------------------------------


def _endless(number, rng, folder):
    while number == 2:
        time.sleep(1)


def _faults(number, rng, folder):
    if number == 1:
        raise UserError("of its own")
    if number in (2, 3):
        raise KeyError(number)
    if number == 4:
        return bytearray(900_000_000)[0]
    return {"size": float(number)}


def _dies(number, rng, folder):
    if number == 1:
        os._exit(9)


def test_an_endless_case_is_found_and_the_next_ones_run(monkeypatch) -> None:
    monkeypatch.setattr(fuzz, "ENDLESS_S", 0.5)
    row = fuzz.fuzz("toy", _endless, 0, 30.0, limit=5)
    assert (row.tried, row.read, row.failed) == (5, 4, 1)
    assert row.findings == [
        {"case": 2, "where": "no end within 0.5 s", "error": "no end within 0.5 s"}
    ]


def test_a_process_that_dies_is_found() -> None:
    row = fuzz.fuzz("toy", _dies, 0, 30.0, limit=4)
    assert (row.tried, row.read, row.failed) == (4, 3, 1)
    assert [finding["where"] for finding in row.findings] == ["process died"]


def test_other_exceptions_and_much_memory_are_found(monkeypatch) -> None:
    monkeypatch.setattr(fuzz, "MOST_MB", 500)
    row = fuzz.fuzz("toy", _faults, 0, 30.0, limit=6)
    assert (row.tried, row.read, row.refused, row.failed) == (6, 2, 1, 3)
    # The second KeyError is like the first.
    assert [finding["case"] for finding in row.findings] == [2, 4]
    assert row.findings[0]["error"] == "KeyError(2)"
    assert row.figures == {"size": 5.0}
    assert row.peak_mb > 800


def test_refused_valid_files_are_found() -> None:
    def refuse(folder, rng):
        raise UserError("no")

    kind = files.Kind("toy", lambda folder: (folder / "a").write_text("a"), refuse, ("a",))
    row = fuzz.fuzz("toy", fuzz.file_case(kind), 0, 30.0, limit=3)
    assert (row.refused, row.failed, row.findings[0]["case"]) == (2, 1, 0)


def test_the_command_writes_a_table_and_ends_with_1(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        fuzz, "kinds", lambda: iter([("toy", _faults, 1, 4), ("two", _faults, 1, 1)])
    )
    assert fuzz.main(["--seconds", "60", "--out", str(tmp_path / "f.json")]) == 1
    report = json.loads((tmp_path / "f.json").read_text())
    assert {"date", "versions", "hardware", "seed", "seconds", "rows"} == set(report)
    toy, two = report["rows"]
    assert (toy["input"], toy["tried"], toy["read"], toy["refused"], toy["failed"]) == (
        *("toy", 4, 1, 1, 2),
    )
    assert two["failed"] == 0
    assert fuzz.main(["--only", "two", "--out", str(tmp_path / "g.json")]) == 0
    assert not (tmp_path / "g.json").exists()
    with pytest.raises(KeyError):
        fuzz.main(["--only", "toy", "--case", "2"])
    assert "toy: 4 tried, 2 failed" in capsys.readouterr().err


def test_quadratic_time_is_found(monkeypatch) -> None:
    def read(text, reader, **options):
        until = time.process_time() + 4e-12 * len(text) ** 2 * 1000
        while time.process_time() < until:
            pass

    monkeypatch.setattr(replies, "_read", read)
    monkeypatch.setattr(replies, "LENGTHS", [125, 250, 500, 1000, 2000])
    with pytest.raises(AssertionError, match=r"at \[125, 250"):
        replies.grow(0, Random(0))


def test_a_case_follows_from_its_number() -> None:
    texts = [replies.reply(Random(f"0/a/{number}")) for number in range(200)]
    assert texts == [replies.reply(Random(f"0/a/{number}")) for number in range(200)]
    assert len(set(texts)) > 190
    joined = "".join(texts)
    assert all(
        mark in joined for mark in ("<think>", "<|box_start|>", "bbox_2d", "\ud800", "None.")
    )


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.yaml", "a.csv", "a.png"])
def test_damage_writes_anew_and_leaves_the_valid_file(tmp_path, name) -> None:
    (tmp_path / "valid").mkdir()
    valid = tmp_path / "valid" / name
    valid.write_text('{"a": [1, 2, {"b": "c"}]}\n')
    differing = 0
    for number in range(60):
        changes.copy_linked(tmp_path / "valid", tmp_path / str(number))
        changes.damage(Random(number), tmp_path / str(number) / name)
        assert valid.read_text() == '{"a": [1, 2, {"b": "c"}]}\n'
        made = tmp_path / str(number) / name
        differing += not made.is_file() or made.read_bytes() != valid.read_bytes()
    assert differing > 50


def test_most_damaged_parquet_files_hold_other_values(tmp_path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    rows = [{"a": [1, 2], "b": {"c": "d"}}, {"a": [3], "b": {"c": "e"}}]
    path = tmp_path / "a.parquet"
    other = 0
    for number in range(60):
        parquet.write_table(pa.Table.from_pylist(rows), path)
        changes.damage(Random(number), path)
        with contextlib.suppress(OSError, pa.ArrowException):
            other += parquet.read_table(path).to_pylist() != rows
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    assert other > 30
