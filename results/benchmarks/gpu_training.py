"""Memory and time of a few training steps beside what the dry run states; started by ``gpu.py``.

    python gpu_training.py MODEL DATA_ROOT DEVICE

MODEL is a checkpoint of Qwen2-VL, DATA_ROOT holds a benchmark `custom`. Prints one JSON object.
Memory is PyTorch's own peak on the GPU (none on a CPU); the first step, in which libraries are
loaded and buffers made, does not count for the time.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, trainer

from univg_train.grpo.estimate import estimate_grpo
from univg_train.grpo.run import check_grpo, train_grpo
from univg_train.grpo.settings import GrpoSettings
from univg_train.runs.estimate import GPUS, Gpu
from univg_train.runs.training import trainer_arguments
from univg_train.runs.yaml_settings import validate
from univg_train.sft.estimate import estimate_sft
from univg_train.sft.run import check_sft, train_sft
from univg_train.sft.settings import SftSettings

STEPS = 4
LORA = {"r": 64, "lora_alpha": 128, "lora_dropout": 0.05}
GRPO = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_generations": 8,
    "max_completion_length": 64,
    "generation_kwargs": {"min_new_tokens": 64},
    "beta": 0.04,
}
CASES: dict[str, dict[str, Any]] = {
    "sft": {"trainer": {"per_device_train_batch_size": 2, "max_length": None}},
    "sft-lora": {"trainer": {"per_device_train_batch_size": 2, "max_length": None}, "lora": LORA},
    "grpo": {"trainer": GRPO},
    "grpo-lora": {"trainer": GRPO, "lora": LORA},
}


class Watch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """When each step ended."""

    ended: list[float]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        Watch.ended = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        Watch.ended.append(time.perf_counter())


def nearest_gpu(device: str) -> Gpu:
    """The data sheet of the GPU that is there, by its name; an A100's if it is not known."""
    name = "" if device == "cpu" else torch.cuda.get_device_name(0).lower().replace(" ", "")
    return next((gpu for key, gpu in GPUS.items() if key in name), GPUS["a100"])


def run_case(name: str, model: str, root: str, device: str, folder: Path) -> dict[str, Any]:
    """Train, and compare."""
    on_cpu, more = device == "cpu", CASES[name]
    values = {
        "model": model,
        "dialect": "qwen2_vl",
        "style": "direct",
        "data": {"form": "samples", "file": "custom", "root": root, "check_leaks": []},
        **more,
        "trainer": {
            "output_dir": str(folder / name),
            "max_steps": STEPS,
            "use_cpu": on_cpu,
            "bf16": not on_cpu,
            "gradient_checkpointing": True,
            "model_init_kwargs": {"dtype": "float32" if on_cpu else "bfloat16"},
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **more["trainer"],
        },
    }
    gc.collect()
    if not on_cpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    where: Any = {"processes": 1, "sharding": "none", "gpu": nearest_gpu(device)}
    if name.startswith("sft"):
        sft = validate(SftSettings, values)
        train_sft(sft)
        stated = estimate_sft(sft, check_sft(sft, None), **where)
    else:
        grpo = validate(GrpoSettings, values)
        train_grpo(grpo)
        stated = estimate_grpo(grpo, check_grpo(grpo, trainer_arguments(grpo), 1), **where)
    peak = None if on_cpu else torch.cuda.max_memory_allocated()
    return {
        "estimate": stated.to_dict(),
        "peak_bytes": peak,
        "estimate_over_peak": None if peak is None else round(stated.memory.total / peak, 3),
        "seconds_a_step": round((Watch.ended[-1] - Watch.ended[0]) / (STEPS - 1), 3),
    }


def main() -> None:
    model, root, device = sys.argv[1:]
    trainer.DEFAULT_CALLBACKS.append(Watch)
    with tempfile.TemporaryDirectory(prefix="univg-gpu-training-") as temporary:
        found = {name: run_case(name, model, root, device, Path(temporary)) for name in CASES}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
