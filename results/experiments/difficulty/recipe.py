"""The published recipe's order once, on all of univg_mini's tasks: direct, chains, GRPO.

    python results/experiments/difficulty/recipe.py --work runs/recipe

From the shipped tiny model, by `univg_train.tiny.stages`, with the weight exp in GRPO. It goes on
where it was stopped, and writes recipe.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from univg_eval.benchmarks.synthetic.mini import TASKS
from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_train.tiny.stages import StagePlan, run_stages

PLAN = StagePlan(
    tasks=TASKS, heldout_per_task=40, direct_steps=60, cot_steps=90, grpo_steps=45
)  # fmt: skip
_OF_THE_MACHINE = ("model", "record")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the run")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        summary = run_stages(args.work, PLAN)
    except UserError as error:
        print(f"recipe.py: {error}", file=sys.stderr)
        return 2
    for stage in summary["stages"]:
        for figures in (stage, stage["before"], stage["after"]):
            for name in _OF_THE_MACHINE:
                figures.pop(name, None)
    out = Path(__file__).resolve().parent / "recipe.json"
    write_text_atomically(out, [json.dumps(summary, indent=1) + "\n"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
