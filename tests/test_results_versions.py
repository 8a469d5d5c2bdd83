"""The record of the versions that the tests were run with, read from what pytest prints."""

from __future__ import annotations

import pytest
from scripts import load_script

OUTPUT = """
tests/test_a.py ..s [100%]
SKIPPED [2] tests/test_vllm.py:12: could not import 'vllm'
SKIPPED [1] tests/test_a.py:3: needs a GPU
FAILED tests/test_a.py::test_b - assert 1 == 2
= 1 failed, 900 passed, 3 skipped, 12 warnings in 90.61s (0:01:30) =
"""


def test_rows_add_up_over_parts() -> None:
    versions = load_script("results/reliability/versions.py")
    row = versions.row("oldest", [OUTPUT, "7 passed in 29.39s\n"])
    assert [row[key] for key in ("passed", "failed", "skipped", "minutes")] == [907, 1, 3, 2.0]
    assert row["skipped_because"] == {
        "test_vllm.py: could not import 'vllm'": 2,
        "test_a.py: needs a GPU": 1,
    }
    assert row["versions"]["numpy"] and row["hardware"]["cpu_count"]


def test_what_failed_and_was_run_again_counts_as_it_ended() -> None:
    versions = load_script("results/reliability/versions.py")
    row = versions.row("newest", [OUTPUT], ["1 passed in 5.00s\n"])
    assert [row[key] for key in ("passed", "failed", "skipped")] == [901, 0, 3]
    with pytest.raises(ValueError, match="2 tests were run again of 1 that had failed"):
        versions.row("newest", [OUTPUT], ["1 passed, 1 failed in 5.00s\n"])


@pytest.mark.parametrize("text", ["", "tests/test_a.py ..\n", OUTPUT + OUTPUT])
def test_an_output_that_was_cut_off_makes_no_row(text: str) -> None:
    versions = load_script("results/reliability/versions.py")
    with pytest.raises(ValueError, match=rf"found it {text.count(' in ')} times"):
        versions.read_output(text)
