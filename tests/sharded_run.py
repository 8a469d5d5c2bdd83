"""One process of a run that is sharded over CPUs: ``sharded_run.py sft|grpo CONFIG [STEP]``.

Started by ``accelerate launch`` or torchrun; with STEP it is killed at the step's end.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any


def let_fsdp_run_on_cpus() -> None:
    """accelerate (1.15) has the devices for FSDP in a list that lacks CPUs."""
    from accelerate import state

    class Types:
        MULTI_NEURON = state.DistributedType.MULTI_CPU

        def __getattr__(self, name: str) -> Any:
            return getattr(_real, name)

    _real, state.DistributedType = state.DistributedType, Types()


def main() -> int:
    kind, config, *step = sys.argv[1:]
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        let_fsdp_run_on_cpus()
    if step:
        from transformers import TrainerCallback

        def killed(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == int(step[0]):
                os.kill(os.getpid(), signal.SIGKILL)

        TrainerCallback.on_step_begin = killed
    from univg_train.cli import main as univg_train

    return univg_train([kind, "--config", config])


if __name__ == "__main__":
    sys.exit(main())
