"""Data and commands that the tests of lmms-eval share: small prepared benchmarks, subprocesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from univg_eval.samples import GroundingSample, Target, write_benchmark

REPO = Path(__file__).resolve().parent.parent
TASKS = REPO / "tasks"
MIG_KEYS = (
    "common_object",
    "diff",
    "view_diff",
    "object_tracking",
    "multi_view",
    "region",
    "refer_grounding",
    "group_grounding",
    "reasoning",
    "correspondence",
)
ZERO_SHOT = {
    "univg_lisa_val": ("lisa", "val"),
    "univg_lisa_test": ("lisa", "test"),
    "univg_llmseg": ("llmseg", "test"),
    "univg_reasonvos": ("reasonvos", "test"),
    "univg_revos": ("revos", "test"),
}
FULL = {
    "univg_lisa_full_val": ("lisa_full", "val"),
    "univg_lisa_full_test": ("lisa_full", "test"),
    "univg_llmseg_full": ("llmseg_full", "test"),
    "univg_reasonvos_full": ("reasonvos_full", "test"),
    "univg_revos_full": ("revos_full", "test"),
}


def make_sample(benchmark: str, task: str, index: int, split: str = "test", **changes: Any):
    values: dict[str, Any] = {
        "id": f"{benchmark}-{task}-{split}-{index}",
        "benchmark": benchmark,
        "task": task,
        "split": split,
        "images": (f"{benchmark}/a.png", f"{benchmark}/b.png"),
        "widths": (64, 128),
        "heights": (48, 96),
        "instruction": "Where is it in the second image?",
        "targets": (Target(1, (0.1, 0.2, 0.5 + 0.01 * index, 0.9)),),
        "image_is_given": True,
        "cluster": f"{benchmark}-{index // 2}",
        "source": {"revision": "original"} if benchmark == "mig_bench" else {},
    }
    return GroundingSample(**(values | changes))


def write_images(root: Path, benchmark: str) -> None:
    from PIL import Image

    (root / benchmark).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "red").save(root / benchmark / "a.png")
    Image.new("RGB", (128, 96), "blue").save(root / benchmark / "b.png")


def prepare_fakes(root: Path) -> None:
    """Every benchmark but univg_mini, with three questions a task."""
    rows = [make_sample("mig_bench", key, i) for key in MIG_KEYS for i in range(3)]
    rows[0] = make_sample(  # an invalid ground truth, as the released file has seven
        "mig_bench", MIG_KEYS[0], 0, targets=(Target(1, (0.5, 0.2, 0.1, 0.9)),)
    )
    write_images(root, "mig_bench")
    write_benchmark(rows, benchmark="mig_bench", root=root)
    for benchmark in sorted({name for name, _ in (ZERO_SHOT | FULL).values()}):
        splits = sorted({s for name, s in (ZERO_SHOT | FULL).values() if name == benchmark})
        write_images(root, benchmark)
        write_benchmark(
            [make_sample(benchmark, benchmark, i, s) for s in splits for i in range(3)],
            benchmark=benchmark,
            root=root,
        )


def environment(data: Path, **changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("UNIVG_")}
    return kept | {"UNIVG_DATA": str(data), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | changes


def run_module(module: str, *arguments: str, data: Path, cwd: Path, **changes: str):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env=environment(data, **changes),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def read_samples(output: Path, task: str) -> list[dict[str, Any]]:
    (file,) = output.rglob(f"*_samples_{task}.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_results(output: Path) -> dict[str, Any]:
    (file,) = output.rglob("*_results.json")
    return json.loads(file.read_text(encoding="utf-8"))
