"""Make the run records of this folder: the shipped tiny model and its three stages on univg_mini.

``python results/runs/make.py WORK`` trains the stages in WORK/stages (some minutes; goes on where
it was stopped), asks each of the four models all 600 public questions, and puts the records beside
this file. Paths inside WORK are relative, so that a record names no machine's folders.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from univg_eval.models import TINY, model_folder

RECORDS = Path(__file__).resolve().parent
SHIPPED = Path(model_folder(TINY))
MODELS = {
    "tiny": "models/tiny",
    "tiny_direct": "stages/direct/model",
    "tiny_cot": "stages/cot/model",
    "tiny_grpo": "stages/grpo/model",
}
"""Name of the record, folder of the model below WORK."""


def main() -> None:
    """Train, evaluate, copy; finished parts are not done again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for models and lmms-eval's output")
    work: Path = parser.parse_args().work
    shipped = work / MODELS["tiny"]
    shipped.parent.mkdir(parents=True, exist_ok=True)
    if not shipped.exists():
        shipped.symlink_to(SHIPPED)
    command("univg-train", "tiny", "--stage", "all", "--quick", "--out", "stages", work=work)
    for name, model in MODELS.items():
        records = f"evaluations/{name}/records/*/univg_mini"
        if not list(work.glob(records)):
            evaluate(model, name, work)
    # All at the end: a record says whether the files of its repository had changes.
    for name in MODELS:
        record = max(work.glob(f"evaluations/{name}/records/*/univg_mini"))
        target = RECORDS / name
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(record, target)
        print(target)


def evaluate(model: str, name: str, work: Path) -> None:
    """Ask one model all questions, with the stock backend of Qwen2-VL."""
    arguments = f"pretrained={model},device=cpu,device_map=cpu,min_pixels=28224,max_pixels=28224"
    command(
        *("univg", "eval", "--model", "qwen2_vl", "--model_args", arguments),
        *("--tasks", "univg_mini", "--batch_size", "8", "--output_path", f"evaluations/{name}"),
        work=work,
    )


def command(program: str, *arguments: str, work: Path) -> None:
    """Run one of the package's own programs in WORK."""
    installed = Path(sys.executable).parent / program
    subprocess.run([installed, *arguments], cwd=work, check=True, env=dict(os.environ))


if __name__ == "__main__":
    main()
