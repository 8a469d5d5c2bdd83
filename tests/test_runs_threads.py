"""Threads on the CPU follow the cores that are free, and never what the user has set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from univg_eval.runs import threads

READ = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine with so many cores, of which the process may use some, under a load."""

    def made(cores: int, allowed: int, load: float) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: cores)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)))
        monkeypatch.setattr(os, "getloadavg", lambda: (load, 99.0, 99.0))

    for name in READ:
        # Set first, so that what the code sets is taken back at the end.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return made


@pytest.mark.parametrize(
    ("cores", "allowed", "load", "expected"),
    [
        (2, 2, 0.0, None),
        (2, 2, 0.4, None),
        (2, 2, 1.0, "1"),
        (2, 2, 4.0, "1"),
        (1, 1, 0.0, None),
        (1, 1, 7.0, None),
        (16, 16, 4.0, "12"),
        (16, 4, 4.0, None),  # taskset: the work of others has cores of its own
        (16, 4, 14.0, "2"),
        (64, 8, 200.0, "1"),
    ],
)
def test_busy_cores_are_left_alone(machine, cores, allowed, load, expected) -> None:
    machine(cores, allowed, load)
    threads.choose_threads()
    assert os.environ.get("OMP_NUM_THREADS") == expected
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(
    ("name", "threads_set"),
    [
        ("OMP_NUM_THREADS", "5"),
        ("MKL_NUM_THREADS", None),
        ("OMP_WAIT_POLICY", "2"),
        ("TOKENIZERS_PARALLELISM", "2"),
    ],
)
def test_what_the_user_set_stays(
    machine, monkeypatch: pytest.MonkeyPatch, name: str, threads_set: str | None
) -> None:
    machine(8, 8, 6.0)
    monkeypatch.setenv(name, "5")
    threads.choose_threads()
    assert os.environ[name] == "5"
    assert os.environ.get("OMP_NUM_THREADS") == threads_set


@pytest.mark.parametrize(
    "command",
    [
        "univg_eval.cli demo",
        "univg_eval.cli check --model x",
        "univg_eval.cli eval",
        "univg_train.cli sft",
        "univg_train.cli grpo --config x",
    ],
)
def test_commands_choose_before_torch_is_imported(command: str) -> None:
    """Later it would be too late: OpenMP reads the environment once."""
    package, *arguments = command.split()
    code = f"""
import sys
from univg_eval.runs import threads
class Chosen(Exception): pass
def choose():
    assert 'torch' not in sys.modules
    raise Chosen
threads.choose_threads = choose
from {package} import main
try:
    main({arguments!r})
except Chosen:
    print('chosen')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "chosen\n"


def test_torch_takes_the_number(machine) -> None:
    pytest.importorskip("torch")
    machine(2, 2, 1.0)
    threads.choose_threads()
    code = "import torch; print(torch.get_num_threads())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
