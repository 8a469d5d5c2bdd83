"""What a command shows while it works: nothing of short work, then how long it still takes."""

from __future__ import annotations

import io
import sys
import time
from types import SimpleNamespace

import pytest
from leaderboard_data import record

from univg_eval import progress as _progress
from univg_eval.cli._ending import print_ending
from univg_eval.progress import duration, progress_bars, tracked
from univg_eval.runs.record import make_record


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_lines_without_a_terminal(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as progress:
        for second in range(101):
            progress("files", 2 * second, 200, "all well")
            clock[0] += 1
    assert capsys.readouterr().err.splitlines() == [
        "files: 5 %, 1 min 35 s left, all well",
        "files: 35 %, 1 min 5 s left, all well",
        "files: 65 %, 35 s left, all well",
        "files: 95 %, 5 s left, all well",
    ]


def test_short_work_shows_nothing(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as progress:
        for _ in tracked(range(49), progress, "files"):
            clock[0] += 0.1
    assert capsys.readouterr().err == ""


def test_where_the_end_is_not_known_the_number_is_shown(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bars() as progress:
        for _ in tracked((row for row in range(12_000)), progress, "rows read"):
            clock[0] += 0.001
    assert capsys.readouterr().err == "rows read: 5,001\n"


def test_what_was_done_before_does_not_make_it_faster(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bars() as progress:
        progress("items", 900, 1000)
        clock[0] += 10
        progress("items", 910, 1000)
    assert capsys.readouterr().err == "items: 91 %, 1 min 30 s left\n"


@pytest.mark.parametrize("unseen", [0.0, 60.0])
def test_a_bar_on_a_terminal_goes_when_the_work_is_done(
    unseen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "SECONDS_UNSEEN", unseen)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bars() as progress:
        progress("files", 0, 4)
        time.sleep(1.1)
        progress("files", 1, 4, "1 of 4")
        until = time.monotonic() + (10.0 if unseen == 0.0 else 0.3)
        while "1 of 4" not in screen.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
        during = screen.getvalue()
        progress("files", 4, 4)
        at_the_end = screen.getvalue()
    assert ("files" in during, "1 of 4" in during, " left" in during) == (unseen == 0.0,) * 3
    assert screen.getvalue() == at_the_end  # nothing of it is left to be taken away


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (95, "1 min 35 s"),
        (600, "10 min"),
        (3599.9, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


USAGE = {
    "prompt_tokens": 51_234,
    "answer_tokens": 384,
    "counted": 8,
    "generation_s": 7.5,
    "samples_per_s": 1.3333,
    "tokens_per_s": 51.2,
    "peak_memory_bytes": 1_207_922_688,
    "peak_memory": "cuda",
    "cost": 0.01234,
}
NOTHING = dict.fromkeys(USAGE) | {"counted": 0}


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (
            USAGE,
            "Answered in 8 s (1.3 samples/s); 51,234 prompt and 384 answer tokens (of 8 samples); "
            "at most 1.2 GB of GPU memory; cost 0.01234, says the service.",
        ),
        (
            NOTHING | {"generation_s": 90.0, "peak_memory_bytes": 10**9, "peak_memory": "resident"},
            "Answered in 1 min 30 s; at most 1.0 GB of memory.",
        ),
        (NOTHING, ""),
        (None, ""),
    ],
)
def test_the_end_says_what_it_took(
    usage: dict[str, object] | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record("mine", {"find": [1.0] * 10})
    manifest = run.manifest.to_dict() | ({"usage": usage} if usage else {})
    print_ending(
        [make_record("mine", manifest=manifest, responses=run.responses, scores=run.scores)]
    )
    said = " ".join(capsys.readouterr().out.split())
    assert line in said
    assert ("Answered in" in said) == bool(line)
