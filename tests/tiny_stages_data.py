"""A short plan of the tiny pipeline, and runs of it that are killed.

Run as a script, ``python tiny_stages_data.py FOLDER``, it makes two runs: ``FOLDER/whole`` at one
go, and ``FOLDER/parted``, killed in the second stage, and in the second epoch of the third. Each
is a process of its own, forked before anything is computed: libraries are imported once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from univg_train.tiny.stages import StagePlan, run_stages

# Small learning rates: the model goes on answering as the shipped one does, so that rollouts
# differ in their rewards and GRPO has something to learn.
PLAN = StagePlan(
    tasks=("lisa_val", "diff"),
    heldout_per_task=2,
    direct_steps=2,
    cot_steps=3,
    batch=2,
    direct_rate=1e-5,
    cot_rate=1e-5,
    grpo_steps=4,
    grpo_epochs=2,
    grpo_prompts=2,
    group=4,
    grpo_rate=1e-4,
    save_steps=1,
)


def forked(work: Callable[[], object]) -> int:
    """Do the work in a process; returns its exit status, negative: the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            traceback.print_exc()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_while_saving(folder: Path) -> None:
    """kill -9 when the weights of a checkpoint are written and the state is not."""
    from transformers import Trainer

    save = Trainer._save_optimizer_and_scheduler

    def die(self: Trainer, output_dir: str) -> None:
        if Path(output_dir) == folder:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, output_dir)

    Trainer._save_optimizer_and_scheduler = die


def main() -> None:
    import trl.trainer.sft_trainer  # noqa: F401
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration  # noqa: F401

    import univg_train.grpo.run
    import univg_train.grpo.trainer
    import univg_train.sft.run  # noqa: F401

    out = Path(sys.argv[1])
    parted = out / "parted"

    def killed_at(checkpoint: str) -> None:
        die_while_saving(parted / checkpoint)
        run_stages(parted, PLAN)

    statuses = [
        forked(lambda: run_stages(out / "whole", PLAN)),
        forked(lambda: killed_at("cot/checkpoint-2")),
        forked(lambda: killed_at("grpo/checkpoint-4")),
        forked(lambda: run_stages(parted, PLAN)),
    ]
    (out / "statuses.json").write_text(json.dumps(statuses), encoding="utf-8")


if __name__ == "__main__":
    main()
