"""Memory that `--dry-run` states against the peak of the run itself, on a CPU.

    python results/benchmarks/training_memory.py            # all cases, some minutes
    python results/benchmarks/training_memory.py --cases qwen3_vl-sft --out /tmp/try.json

Checkpoints of three families with random weights, each of another shape, are trained as by
`univg-train sft` and `grpo`, each family in a process of its own. Measured is the highest resident
memory of that process while it trains, over what was there before the model was loaded; a small run
comes first, so that libraries are loaded by then. Freed memory goes back at once (glibc's
thresholds).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        "vocabulary": 2048,
        "text": {
            "hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6,
            "num_attention_heads": 8, "num_key_value_heads": 2,
        },
        "vision": {
            "depth": 4, "embed_dim": 128, "num_heads": 4, "hidden_size": 512, "mlp_ratio": 4,
        },
    },
    "qwen2_5_vl": {
        "vocabulary": 8192,
        "text": {
            "hidden_size": 256, "intermediate_size": 1536, "num_hidden_layers": 4,
            "num_attention_heads": 4, "num_key_value_heads": 2,
        },
        "vision": {
            "depth": 6, "hidden_size": 192, "num_heads": 4, "out_hidden_size": 256,
            "intermediate_size": 512, "fullatt_block_indexes": [5], "window_size": 112,
        },
    },
    "qwen3_vl": {
        "vocabulary": 4096,
        "text": {
            "hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 8,
            "num_attention_heads": 6, "num_key_value_heads": 2,
        },
        "vision": {
            "depth": 3, "hidden_size": 256, "num_heads": 4, "out_hidden_size": 384,
            "intermediate_size": 1024, "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [1],
        },
    },
}  # fmt: skip
WARM_UP = {
    "vocabulary": 512,
    "text": {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    },
    "vision": {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 64, "mlp_ratio": 2},
}  # fmt: skip
SFT = {"per_device_train_batch_size": 4, "max_length": None}
GRPO = {
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 32,
    "generation_kwargs": {"min_new_tokens": 32},
}
CHECKPOINTING = {"gradient_checkpointing": True}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    f"{family}-{name}": (family, command, settings)
    for family in SHAPES
    for name, command, settings in (
        ("sft", "sft", {"trainer": SFT}),
        ("sft-vision", "sft", {"trainer": SFT, "freeze_vision": False}),
        ("sft-lora", "sft", {"trainer": SFT | CHECKPOINTING, "lora": {"lora_dropout": 0.05}}),
        ("grpo", "grpo", {"trainer": GRPO | CHECKPOINTING | {"beta": 0.04}}),
        (
            "grpo-generation",
            "grpo",
            {"trainer": GRPO | CHECKPOINTING | {"gradient_accumulation_steps": 4}},
        ),
    )
}
"""Name → family, command, settings. `grpo-generation` generates for four passes at once."""


def write_settings(folder: Path, root: Path, model: str, family: str, more: dict[str, Any]) -> Path:
    """Two steps on rows of one length."""
    trainer = {
        "output_dir": str(folder / "run"),
        "max_steps": 2,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        **more["trainer"],
    }
    rows = {"form": "samples", "file": "custom", "root": str(root), "check_leaks": []}
    settings = {
        "model": model,
        "dialect": family,
        "style": "direct",
        "min_pixels": 3136,
        "max_pixels": 401408,
        "data": rows,
        **more,
        "trainer": trainer,
    }
    path = folder / "settings.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


def write_rows(root: Path, n: int, side: int) -> None:
    """A benchmark of `n` questions about two square images each."""
    from PIL import Image

    from univg_eval.samples import GroundingSample, Target, write_benchmark

    (root / "custom" / "images").mkdir(parents=True)
    names = [f"custom/images/{k}.png" for k in range(2)]
    for k, name in enumerate(names):
        Image.new("RGB", (side, side), (90 * k, 60, 120)).save(root / name)
    samples = [
        GroundingSample(
            id=f"custom-{number:05d}",
            benchmark="custom",
            task="custom",
            split="test",
            images=tuple(names),
            widths=(side, side),
            heights=(side, side),
            instruction="Where is the red cup in the second image?",
            targets=(Target(1, (0.1, 0.2, 0.4, 0.6)),),
            image_is_given=True,
            cluster=f"custom-{number:05d}",
        )
        for number in range(n)
    ]
    write_benchmark(samples, benchmark="custom", root=root)


def status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def train_family(family: str, cases: list[str], folder: Path) -> list[dict[str, Any]]:
    """Train the cases of a family in this process; bytes stated and measured of each."""
    import peft  # noqa: F401  a library that not every case loads
    from checkpoints import write_checkpoint
    from transformers import TrainerCallback, trainer

    from univg_train.grpo.estimate import estimate_grpo
    from univg_train.grpo.run import check_grpo, train_grpo
    from univg_train.grpo.settings import load_grpo_settings
    from univg_train.runs.estimate import GPUS
    from univg_train.runs.training import trainer_arguments
    from univg_train.sft.estimate import estimate_sft
    from univg_train.sft.run import check_sft, train_sft
    from univg_train.sft.settings import load_settings

    root = folder / "data"
    write_rows(root, 16, side=336)
    model = write_checkpoint(folder / "model", family, **SHAPES[family])
    small = write_checkpoint(folder / "small", "qwen2_vl", **WARM_UP)
    peak = 0

    class Peak(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            Path("/proc/self/clear_refs").write_text("5")  # the highest begins anew

        def on_train_end(self, *_: Any, **__: Any) -> None:
            nonlocal peak
            peak = status("VmHWM")

    trainer.DEFAULT_CALLBACKS.append(Peak)
    found = []
    for number, (name, path) in enumerate(
        [(n, small) for n in cases] + [(n, model) for n in cases]
    ):
        _, command, more = CASES[name]
        place = folder / str(number)
        place.mkdir()
        kind = "qwen2_vl" if path == small else family
        settings = write_settings(place, root, path, kind, more)
        gc.collect()
        before = status("VmRSS")
        where: Any = {"processes": 1, "sharding": "none", "gpu": GPUS["a100"]}
        if command == "sft":
            sft = load_settings(settings)
            train_sft(sft)
            stated = estimate_sft(sft, check_sft(sft, None), **where)
        else:
            grpo = load_grpo_settings(settings)
            train_grpo(grpo)
            checked = check_grpo(grpo, trainer_arguments(grpo), 1)
            stated = estimate_grpo(grpo, checked, **where)
        if path == model:
            total, measured = stated.memory.total, peak - before
            memory = {**stated.memory.fixed, **stated.memory.phases}
            found.append(
                {
                    "case": name,
                    "estimate_mib": round(total / 2**20),
                    "measured_mib": round(measured / 2**20),
                    "ratio": round(total / measured, 3),
                    "parts_mib": {part: round(n / 2**20) for part, n in memory.items()},
                }
            )
            print({k: v for k, v in found[-1].items()}, file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--out", type=Path, help="another file than training_memory.json")
    parser.add_argument("--family", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.family:
        with tempfile.TemporaryDirectory(prefix="univg-memory-") as temporary:
            print(json.dumps(train_family(args.family, args.cases, Path(temporary))))
        return
    from measuring import write_report

    thresholds = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found: list[dict[str, Any]] = []
    for family in SHAPES:
        cases = [name for name in args.cases if CASES[name][0] == family]
        if cases:
            done = subprocess.run(
                [sys.executable, __file__, "--family", family, "--cases", *cases],
                env=os.environ | thresholds | {"MALLOC_ARENA_MAX": "1"},
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            found += json.loads(done.stdout.splitlines()[-1])
    ratios = [case["ratio"] for case in found]
    summary = {"least": min(ratios), "most": max(ratios)}
    write_report("training_memory", {"cases": args.cases}, [], args.out, ratio=summary, cases=found)


if __name__ == "__main__":
    main()
