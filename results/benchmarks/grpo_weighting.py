"""What difficulty weighting costs of a GRPO step.

    python results/benchmarks/grpo_weighting.py [--steps 6] [--prompts 4] [--tokens 64] [--out FILE]

Trains the shipped tiny model with `DifficultyGRPOTrainer` on generated images, on CPU, and divides
the time spent in what that class adds to TRL's two methods (grading, gathering, weights, figures
for the logs) by the time of the whole steps, in the same run. A tiny model makes the share look as
large as it gets: its steps take a fraction of a second, and the added work does not depend on the
model. Two kinds of completions: those that the model samples, which are short, and chains of
thought of --tokens tokens that are put in their place, which take longer to read.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from measuring import Cost, cost_of, share, write_report
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
            cost = cost_of(trainer.train)
            whole = cost.wall_s
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
        "cpu_s": round(cost.cpu_s, 3),
        "share_percent": round(100 * added / whole, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--prompts", type=int, default=4, help="a step, with 8 rollouts each")
    parser.add_argument("--tokens", type=int, default=64, help="longest completion")
    parser.add_argument("--out", type=Path, help="another file than grpo_weighting.json")
    args = parser.parse_args()
    ThoughtfulTrainer.tokens = args.tokens
    runs = [measure(kind, args) for kind in (DifficultyGRPOTrainer, ThoughtfulTrainer)]
    lines = []
    for run in runs:
        print(", ".join(f"{key} {value}" for key, value in run.items()))
        cpu, wall = run.pop("cpu_s"), run["ms_a_step"] * args.steps / 1000
        rollouts, tokens = run["rollouts_a_step"], run["mean_tokens"]
        what = f"difficulty weighting, {rollouts} rollouts of {tokens} tokens"
        part = run["added_ms_a_step"] * args.steps / 1000
        lines.append(share(what, "the step of TRL's trainer", part, Cost(cpu, wall)))
    write_report("grpo_weighting", {"threads": torch.get_num_threads()}, lines, args.out, runs=runs)


if __name__ == "__main__":
    main()
