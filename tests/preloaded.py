"""Commands in forks of one process that has imported lmms-eval: a second each, not eight.

Run as a script it is that process: it reads a request a line, and writes a line when it has begun
one, with the process id, and one when it has ended, with the exit status.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

_server: subprocess.Popen[str] | None = None


def run_forked(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    folder: Path,
    timeout: float,
    ranks: Sequence[Mapping[str, str]] = ({},),
) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments``, with what it prints by way of two files in `folder`.

    Of several processes side by side, `ranks` are the variables that each has for itself.
    """
    pid = start_forked(module, arguments, cwd=cwd, env=env, folder=folder, ranks=ranks)
    status = wait_for(pid, timeout)
    texts = [path.read_text(encoding="utf-8") for path in _outputs(folder)]
    return subprocess.CompletedProcess([module, *arguments], status, *texts)


def start_forked(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    folder: Path,
    ranks: Sequence[Mapping[str, str]] = ({},),
) -> int:
    """The id of the process, or of the first; `wait_for` it before another is started."""
    global _server
    if _server is None or _server.poll() is not None:
        _server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_server.kill)
    for path in _outputs(folder):
        path.write_text("")
    environments = [{**env, **own} for own in ranks]
    server = (_server.stdin, _server.stdout)
    return _ask(*server, module, arguments, cwd, environments, _outputs(folder))


def wait_for(pid: int, timeout: float) -> int:
    """The exit status of the one that runs, which is killed where it takes longer."""
    if not select.select([_server.stdout], [], [], timeout)[0]:
        os.killpg(pid, signal.SIGKILL)
    return int(_server.stdout.readline())


def _outputs(folder: Path) -> list[Path]:
    return [folder / "stdout", folder / "stderr"]


def _ask(
    requests: TextIO,
    answers: TextIO,
    module: str,
    arguments: Sequence[str],
    cwd: Path,
    environments: Iterable[Mapping[str, str]],
    outputs: Iterable[Path] = (),
) -> int:
    request = {
        "module": module,
        "arguments": list(arguments),
        "cwd": str(cwd),
        "environments": list(map(dict, environments)),
        "outputs": list(map(str, outputs)),
    }
    print(json.dumps(request), file=requests, flush=True)
    return int(answers.readline())


def main() -> None:
    import univg_eval.lmms.command  # noqa: F401  what takes long to import, lmms-eval and torch

    # What the imports printed must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(sys.stdin, answers)


def _serve(requests: TextIO, answers: TextIO) -> None:
    for line in requests:
        request = json.loads(line)
        if request["module"] == "lmms_eval":
            _read_own_tasks_once()
        # What another command started belongs to that one's group, and prints where it does.
        own_group = bool(request["outputs"])
        pids: list[int] = []
        for environment in request["environments"]:
            pid = os.fork()
            if pid == 0:
                if own_group and not pids:
                    os.setpgid(0, 0)
                _run(request, environment)
            pids.append(pid)
            if own_group:
                os.setpgid(pid, pids[0])
        print(pids[0], file=answers, flush=True)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(next(filter(None, statuses), 0), file=answers, flush=True)


@functools.cache
def _read_own_tasks_once() -> None:
    """The stock command reads lmms-eval's own 3,500 task files, which takes five seconds."""
    from lmms_eval import tasks

    own, read = f"{Path(tasks.__file__).parent}/", tasks.TaskManager._get_task_and_group
    index = tasks.TaskManager("WARNING").task_index

    def found(self: tasks.TaskManager, folder: str) -> dict[str, Any]:
        return dict(index) if folder == own else read(self, folder)

    tasks.TaskManager._get_task_and_group = found


def _run(request: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(environment)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, path in enumerate(request["outputs"], start=1):
        with Path(path).open("a") as file:
            os.dup2(file.fileno(), number)
    if "--config" in " ".join(request["arguments"]):  # what may start others
        _fork_for_others()
    sys.path[0] = ""
    sys.argv = [request["module"], *request["arguments"]]
    sys.modules.pop(f"{request['module']}.__main__", None)
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    sys.exit(0)


def _fork_for_others() -> None:
    """Let this process start ``python -m`` as forks too, of one that has done nothing yet."""
    (requests, to_others), (from_others, answers) = os.pipe(), os.pipe()
    if os.fork() == 0:
        os.close(to_others)
        os.close(from_others)
        _serve(os.fdopen(requests), os.fdopen(answers, "w"))
        os._exit(0)
    os.close(requests)
    os.close(answers)
    asked, answered, run = os.fdopen(to_others, "w"), os.fdopen(from_others), subprocess.run

    def forked(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        if command[:2] != [sys.executable, "-m"]:
            return run(command, **options)
        assert options.keys() == {"env", "check"}, options
        module, *arguments = command[2:]
        _ask(asked, answered, module, arguments, Path.cwd(), [options["env"]])
        return subprocess.CompletedProcess(command, int(answered.readline()))

    subprocess.run = forked


if __name__ == "__main__":
    main()
