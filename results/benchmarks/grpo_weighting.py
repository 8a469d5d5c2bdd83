"""What difficulty weighting costs of a GRPO step.

    python results/benchmarks/grpo_weighting.py [--steps 6] [--prompts 4] [--tokens 64] [--json]

Trains the shipped tiny model with `DifficultyGRPOTrainer` on generated images, on CPU, and divides
the time spent in what that class adds to TRL's two methods (grading, gathering, weights, figures
for the logs) by the time of the whole steps, in the same run. A tiny model makes the share look as
large as it gets: its steps take a fraction of a second, and the added work does not depend on the
model. Two kinds of completions: those that the model samples, which are short, and chains of
thought of --tokens tokens that are put in their place, which take longer to read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image, ImageDraw
from transformers import AutoProcessor, PrinterCallback, Qwen2VLForConditionalGeneration
from trl import GRPOConfig, GRPOTrainer

from univg_train.difficulty import DifficultyWeight
from univg_train.grpo.trainer import PAPER_SETTINGS, DifficultyGRPOTrainer
from univg_train.rewards import make_rewards

MODEL = Path(__file__).resolve().parents[2] / "univg_eval" / "models" / "tiny"
SIDE = 112
SEAMS = ("_calculate_rewards", "_generate_and_score_completions")


def make_row(index: int) -> dict[str, Any]:
    rng = random.Random(index)
    image = Image.new("RGB", (SIDE, SIDE), "white")
    x, y = rng.randrange(8, 56), rng.randrange(8, 56)
    ImageDraw.Draw(image).rectangle((x, y, x + 40, y + 40), fill="red")
    return {
        "prompt": [
            {
                "role": "user",
                "content": [{"type": "image"}, {"type": "text", "text": "Where is the square?"}],
            }
        ],
        "images": [image],
        "solution": [x / SIDE, y / SIDE, (x + 40) / SIDE, (y + 40) / SIDE],
        "dialect": "qwen2_vl",
        "single_image": True,
        "image_sizes": [[SIDE, SIDE]],
        "target_image": 0,
        "source": f"set {index % 3}",
    }


class Clock:
    """Time inside a call; nested calls of the same clock count once."""

    def __init__(self) -> None:
        self.seconds, self._depth = 0.0, 0

    def around(self, function: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start, self._depth = time.perf_counter(), self._depth + 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.seconds += time.perf_counter() - start

        return timed


class ThoughtfulTrainer(DifficultyGRPOTrainer):
    """Puts a chain of thought of a given length in place of what was sampled."""

    tokens = 64

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        sampled, logprobs = super()._generate_single_turn(*args, **kwargs)
        words = self.processing_class.tokenizer("a red square at (100,200),(300,400) or ")
        answer = self.processing_class.tokenizer("</think><answer>(200,200),(500,600)</answer>")
        chain = (words["input_ids"] * self.tokens)[: self.tokens]
        return [[*chain, *answer["input_ids"], self.eos_token_ids[0]] for _ in sampled], logprobs


def measure(kind: type[DifficultyGRPOTrainer], args: argparse.Namespace) -> dict[str, Any]:
    group = PAPER_SETTINGS["num_generations"]
    settings = {
        **PAPER_SETTINGS,
        "max_completion_length": args.tokens,
        "per_device_train_batch_size": args.prompts * group,
        "max_steps": args.steps,
        "logging_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    # What TRL itself does inside the two methods, and what the overriding methods take in all.
    inner, outer = {s: Clock() for s in SEAMS}, {s: Clock() for s in SEAMS}
    originals = {seam: getattr(GRPOTrainer, seam) for seam in SEAMS}
    subclass = type("Timed", (kind,), {s: outer[s].around(getattr(kind, s)) for s in SEAMS})
    with tempfile.TemporaryDirectory(prefix="univg-grpo-") as folder:
        try:
            for seam in SEAMS:
                setattr(GRPOTrainer, seam, inner[seam].around(originals[seam]))
            trainer = subclass(
                Qwen2VLForConditionalGeneration.from_pretrained(MODEL, dtype=torch.float32),
                make_rewards(),
                GRPOConfig(output_dir=folder, **settings),
                Dataset.from_list([make_row(i) for i in range(args.prompts * args.steps)]),
                processing_class=AutoProcessor.from_pretrained(MODEL),
                difficulty=DifficultyWeight("exp"),
            )
            trainer.remove_callback(PrinterCallback)
            start = time.perf_counter()
            trainer.train()
            whole = time.perf_counter() - start
        finally:
            for seam in SEAMS:
                setattr(GRPOTrainer, seam, originals[seam])
    added = sum(outer[seam].seconds - inner[seam].seconds for seam in SEAMS)
    lengths = [
        line["completions/mean_length"]
        for line in trainer.state.log_history
        if "completions/mean_length" in line
    ]
    return {
        "completions": "sampled" if kind is DifficultyGRPOTrainer else "chains of thought",
        "rollouts_a_step": args.prompts * group,
        "mean_tokens": round(sum(lengths) / len(lengths), 1),
        "steps": args.steps,
        "ms_a_step": round(1000 * whole / args.steps, 1),
        "added_ms_a_step": round(1000 * added / args.steps, 2),
        "share_percent": round(100 * added / whole, 3),
    }


def hardware() -> dict[str, Any]:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=4, help="a step, with 8 rollouts each")
    parser.add_argument("--tokens", type=int, default=64, help="longest completion")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    ThoughtfulTrainer.tokens = args.tokens
    report = {
        "hardware": hardware(),
        "runs": [measure(kind, args) for kind in (DifficultyGRPOTrainer, ThoughtfulTrainer)],
    }
    if args.json:
        print(json.dumps(report, indent=2))
        return
    for part in (report["hardware"], *report["runs"]):
        print(", ".join(f"{key} {value}" for key, value in part.items()))


if __name__ == "__main__":
    main()
