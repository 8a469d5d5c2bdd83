"""Two processes that talk over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from lmms_data import REPO


def two_ranks() -> tuple[torch.distributed.TCPStore, list[dict[str, str]]]:
    """The variables by which torchrun tells two processes of each other.

    They meet at a store of this process, which has its port already, so that nobody can take it.
    It has to live as long as they do.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    return store, [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def run_two(script: str, *arguments: str, cwd: Path) -> None:
    _store, ranks = two_ranks()
    shared = {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(REPO),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, script, *arguments],
            env=os.environ | shared | rank,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ranks
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in processes:
            process.kill()
