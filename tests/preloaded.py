"""Commands in forks of one process that has imported lmms-eval: a second each, not eight.

Run as a script it is that process: it reads a request a line, and writes a line when it has begun
one, with the process id, and one when it has ended, with the exit status.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_server: subprocess.Popen[str] | None = None


def run_forked(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    folder: Path,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments``, with what it prints by way of two files in `folder`."""
    global _server
    if _server is None or _server.poll() is not None:
        _server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_server.kill)
    outputs = [folder / "stdout", folder / "stderr"]
    request = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": dict(env)}
    _server.stdin.write(json.dumps(request | {"outputs": [str(path) for path in outputs]}) + "\n")
    _server.stdin.flush()
    pid = int(_server.stdout.readline())
    if not select.select([_server.stdout], [], [], timeout)[0]:
        os.killpg(pid, signal.SIGKILL)
    status = int(_server.stdout.readline())
    texts = [path.read_text(encoding="utf-8") for path in outputs]
    return subprocess.CompletedProcess([module, *arguments], status, *texts)


def _serve() -> None:
    import univg_eval.lmms.command  # noqa: F401  what takes long to import, lmms-eval and torch

    # What the imports printed must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _run(request)
        print(pid, file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def _run(request: Mapping[str, object]) -> None:
    os.setpgid(0, 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, path in enumerate(request["outputs"], start=1):
        with Path(path).open("w") as file:
            os.dup2(file.fileno(), number)
    sys.path[0] = ""
    sys.argv = [request["module"], *request["arguments"]]
    sys.modules.pop(f"{request['module']}.__main__", None)
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    _serve()
