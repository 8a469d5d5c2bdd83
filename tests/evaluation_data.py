"""Runs that are evaluated while they train, with the shipped tiny model.

Run as a script, ``python evaluation_data.py CONFIG``, it is one process of several, with RANK,
WORLD_SIZE and the like in the environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import univg_eval

TINY = Path(univg_eval.__file__).parent / "models" / "tiny"
TASKS = ["lisa_val", "diff", "reasoning"]
PIXELS = 112 * 112


def sft_values(root: Path, out: Path, **trainer: Any) -> dict[str, Any]:
    """Trained on the set that is asked, so that something changes within three steps.

    It is asked after the second step, and at the end.
    """
    return {
        "model": str(TINY),
        "dialect": "qwen2_vl",
        "style": "direct",
        "min_pixels": PIXELS,
        "max_pixels": PIXELS,
        "data": {
            "form": "samples",
            "file": "univg_mini",
            "root": str(root),
            "check_leaks": [],
            "on_leak": "allow",
        },
        "evaluation": {
            "benchmark": "univg_mini",
            "every": 2,
            "tasks": TASKS,
            "metric": "miou",
            "batch_size": 2,
            "max_new_tokens": 24,
        },
        "trainer": {
            "output_dir": str(out),
            "max_steps": 3,
            "save_steps": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "report_to": [],
            **trainer,
        },
    }


def grpo_values(root: Path, out: Path, **trainer: Any) -> dict[str, Any]:
    """One step on sampled rollouts."""
    values = sft_values(root, out, max_steps=1, num_generations=4, max_completion_length=24)
    values["trainer"] |= {"per_device_train_batch_size": 8, **trainer}
    values["evaluation"]["every"] = 1
    return values


def write(path: Path, values: dict[str, Any]) -> Path:
    """JSON is YAML."""
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def main() -> None:
    import torch

    from univg_train.sft.run import train_sft
    from univg_train.sft.settings import load_settings

    torch.set_num_threads(1)
    train_sft(load_settings(sys.argv[1]))


if __name__ == "__main__":
    main()
