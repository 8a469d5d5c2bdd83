"""The tiny model behind transformers' own OpenAI-compatible server, as a teacher."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from univg_train.cot.building import CotSettings, build_chains
from univg_train.cot.rows import CotRow, CotRows
from univg_train.cot.teacher import TeacherSettings

MODEL = Path(__file__).resolve().parent.parent / "univg_eval" / "models" / "tiny"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_real_server_with_a_real_model(tmp_path: Path) -> None:
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        pytest.skip("needs fastapi and uvicorn: pip install 'transformers[serving]'")
    Image.new("RGB", (112, 112), "navy").save(tmp_path / "a.png")
    row = CotRow("r", ("a.png",), "Where is the red circle?", (0.25, 0.25, 0.5, 0.5), 0)
    server, port = _started(tmp_path / "log")
    try:
        teacher = TeacherSettings(
            model=str(MODEL), base_url=f"http://127.0.0.1:{port}/v1", max_tokens=24, timeout_s=60
        )
        settings = CotSettings(teacher=teacher, chains=2)
        summary = build_chains(CotRows([row], tmp_path), tmp_path / "out", settings, api_key="none")
    finally:
        server.terminate()
        server.wait(20)
    # The model answers with a box at once: a reply, and no chain of thought.
    assert (summary.rows, summary.rejected, summary.requests) == (1, 1, 2)
    assert summary.replies_without_usage == 0
    assert summary.prompt_tokens > 100 and 0 < summary.completion_tokens <= 48
    for line in (tmp_path / "out" / "chains.jsonl").read_text(encoding="utf-8").splitlines():
        chain = json.loads(line)
        assert "format" in chain["reasons"] and chain["reply"]


def _started(log: Path) -> tuple[subprocess.Popen, int]:
    """A server that answers, and its port; another one where somebody else took the free port."""
    for _ in range(3):
        port = _free_port()
        command = f"serve {MODEL} --host 127.0.0.1 --port {port} --device cpu"
        with log.open("w") as file:
            server = subprocess.Popen(
                [sys.executable, "-m", "transformers.cli.transformers", *command.split()],
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
                stdout=file,
                stderr=file,
            )
        if _answers(port, server):
            return server, port
        server.kill()
        server.wait(20)
        if "address already in use" not in log.read_text().lower():
            break
    raise AssertionError(log.read_text()[-2000:])


def _answers(port: int, server: subprocess.Popen) -> bool:
    """Whether the server is there: it lives, and answers as itself."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                return server.poll() is None
        except OSError:
            time.sleep(0.2)
    return False
