"""Programs on two CPU processes, started as ``accelerate launch`` and torchrun start them.

A server, for the libraries take longer to import than a small model takes to train: it imports them
once and forks every process from there. A line of JSON on its input is a run; the exit code is
written back once all processes have ended. accelerate reads the launch file and sets up the
environment; in the place of torch's agent, which would start new interpreters, stands `_fork_all`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

TIMEOUT_S = 300
PROCESSES = 2
LIBRARIES = (
    "deepspeed",
    "trl.trainer.grpo_trainer",
    "trl.trainer.sft_trainer",
    "transformers.models.qwen2_vl.modeling_qwen2_vl",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "univg_eval.cli",
    "univg_train.cli",
    "univg_train.evaluation.callback",
    "univg_train.grpo.run",
    "univg_train.grpo.trainer",
    "univg_train.runs.saving",
    "univg_train.sft.run",
)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _import_libraries()
    for line in sys.stdin:
        order = json.loads(line)
        child = _fork(lambda order=order: _launch(**order), Path(order["output"]))
        print(_wait([child])[0], file=answers, flush=True)


def _import_libraries() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # the processes need not go through it again


def _launch(
    program: str, argv: Sequence[str], launch_file: str | None, killed_at: int | None, output: str
) -> int:
    """Run ``univg-train`` or ``univg``; without a launch file ``univg-train`` runs under DDP."""
    if program == "univg":
        from univg_eval.cli import main as univg

        return univg(list(argv))
    from accelerate.commands.launch import launch_command, launch_command_parser

    codes: list[int] = []

    def fork_all(arguments: Any = None) -> None:
        codes.extend(_fork_all(lambda: _train(argv, killed_at), Path(output)))

    if launch_file is None:
        os.environ["ACCELERATE_USE_CPU"] = "true"
        fork_all()
    else:
        options = ["--config_file", launch_file, "--main_process_port", "0", "univg-train", *argv]
        with patch("torch.distributed.run.run", fork_all):
            launch_command(launch_command_parser().parse_args(options))
    return max(map(abs, codes))


def _train(argv: Sequence[str], killed_at: int | None) -> int:
    from transformers import TrainerCallback

    from univg_train.cli import main as univg_train
    from univg_train.rewards import AccuracyReward

    def kill(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with contextlib.ExitStack() as changes:
        if os.environ.get("ACCELERATE_USE_FSDP") == "true":
            changes.enter_context(_fsdp_on_cpus())
        changes.enter_context(patch.object(TrainerCallback, "on_step_begin", kill))
        grade = _different_grades(AccuracyReward.grade)
        changes.enter_context(patch.object(AccuracyReward, "grade", grade))
        return univg_train(list(argv))


def _different_grades(grade: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Grades that differ between the completions of a random model, which never writes a box."""
    from univg_train.rewards import completion_text

    def different(self: Any, completions: Sequence[Any], columns: Any) -> list[Any]:
        shares = [sum(map(ord, completion_text(text))) % 11 / 10 for text in completions]
        return [
            replace(found, status="ok", overlap=share, reward=share)
            for found, share in zip(grade(self, completions, columns), shares, strict=True)
        ]

    return different


@contextlib.contextmanager
def _fsdp_on_cpus() -> Iterator[None]:
    """accelerate (1.15) has the devices for FSDP in a list that lacks CPUs."""
    from accelerate import state

    class Types:
        MULTI_NEURON = state.DistributedType.MULTI_CPU

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    real = state.DistributedType
    with patch.object(state, "DistributedType", Types()):
        yield


# --- processes -----------------------------------------------------------------------------------


def _fork_all(work: Callable[[], int], output: Path) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}
    children = []
    for rank in range(PROCESSES):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        children.append(_fork(work, output))
    return _wait(children)


def _fork(work: Callable[[], int], output: Path) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        with output.open("a") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        code = work()
    finally:
        if (error := sys.exc_info()[1]) is not None:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(children: Sequence[int]) -> list[int]:
    """The exit codes; where one fails or the time is over, the others are killed."""
    codes: dict[int, int] = {}
    end = time.monotonic() + TIMEOUT_S
    while len(codes) < len(children):
        for child in children:
            if child not in codes and (found := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(found[1])
        if any(codes.values()) or time.monotonic() > end:
            for child in children:
                if child not in codes:
                    os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[child] for child in children]


if __name__ == "__main__":
    main()
