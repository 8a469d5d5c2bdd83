"""The same inputs give the same bytes, but for dates: in any process, on any number of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import make_sample
from run_records import record_of
from scripts import load_script

from univg_eval.samples import Target, write_benchmark

results = load_script("results/reliability/faults.py").results
TEXTS = ("[100, 200, 300, 400]", "[90, 210, 310, 390]", "There is none.", "[0, 0, 1, 1], [2]", None)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    samples = [
        make_sample(
            number,
            task=f"task_{number % 7}",
            targets=(Target(0, (0.1, 0.2, 0.3, 0.4)),),
            images=(f"toy/{number // 3}.png",),
            widths=(64,),
            heights=(48,),
            cluster=f"g{number // 3}",
        )
        for number in range(300)
    ]
    write_benchmark(samples, benchmark="toy", root=folder / "data")
    for label, step in (("one", 1), ("two", 2)):
        texts = {s.id: TEXTS[(step * number) % len(TEXTS)] for number, s in enumerate(samples)}
        record_of(samples, texts, label=label).write(folder / label)
    return folder


COMMANDS = {
    "score": "score --benchmark toy --responses {work}/one/responses.jsonl --dialect norm1000 "
    "-o scores.jsonl --processes {processes}",
    "rescore": "rescore {work}/one --protocol univg-r1 -o again",
    "leaderboard": "leaderboard {work}/one {work}/two --json",
    "compare": "compare {work}/one {work}/two --json",
    "failures": "failures {work}/one --json",
    "report": "report {work}/one {work}/two --images none -o page.html",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_hash_seeds_and_processes_change_nothing(name: str, work: Path, tmp_path: Path) -> None:
    found = []
    for processes, hash_seed in ((1, "1"), (2, "4711")):
        folder = tmp_path / hash_seed
        folder.mkdir()
        words = COMMANDS[name].format(work=work, processes=processes).split()
        done = subprocess.run(
            [sys.executable, "-m", "univg_eval", *words],
            cwd=folder,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "UNIVG_DATA": str(work / "data")},
            capture_output=True,
            text=True,
            timeout=200,
            check=True,
        )
        found.append((done.stdout.replace(str(folder), ""), results(folder, ("**/*",))))
    assert found[0] == found[1]
    assert found[0][0] or found[0][1]
