"""One step of LLaMA-Factory and of ms-swift on what `univg-train export` writes.

    python results/benchmarks/training_clients.py WORK

makes an environment for each below WORK (7 GB each, some minutes), exports eight generated samples
and the settings of one step of the tiny model, and lets `univg-train sft`, LLaMA-Factory and
ms-swift do that step on the CPU. All eight samples are one batch, so the loss is a mean over the
same tokens wherever prompts, images and answers are read alike: the three are compared, and written
beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import write_report

from univg_eval.models import TINY, model_folder
from univg_train.tiny.model import IMAGE_SIDE
from univg_train.tiny.rows import write_training_rows

CLIENTS = {
    "llamafactory": ("llamafactory==0.9.5",),
    "ms_swift": ("ms-swift==4.6.0", "qwen-vl-utils==0.0.14", "torchvision"),
}
"""Folder of the environment below WORK, and what it holds."""
ROWS, SEED = 8, 300_000
TASKS = ("refer_grounding", "lisa_val")
PIXELS = IMAGE_SIDE**2
"""Of every image, as it is stored: no reader resizes it."""
TOLERANCE = 2e-3
"""Of a loss, as a share: float32 sums in another order, in other versions of torch."""


def main() -> None:
    """Make what is missing, and let each client do its step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder for environments, data and runs")
    work: Path = parser.parse_args().work.expanduser().absolute()
    for name, requirements in CLIENTS.items():
        environment(work / name, requirements)
    settings = write_settings(work)
    univg_train = Path(sys.executable).parent / "univg-train"
    run([univg_train, "sft", "--config", settings])
    export = work / "export"
    if not export.exists():
        where = ("--name", "rows", "--out", export, "--deepspeed", "none")
        run([univg_train, "export", "--format", "llamafactory", "--config", settings, *where])
    found = {
        "univg-train sft": (version("transformers"), first_loss(work / "univg" / "model")),
        "LLaMA-Factory 0.9.5": llamafactory(work, export),
        "ms-swift 4.6.0": ms_swift(work, export),
    }
    own = found["univg-train sft"][1]
    clients = {
        name: {
            "transformers": transformers,
            "loss": round(loss, 5),
            "difference": round(loss / own - 1, 6),
        }
        for name, (transformers, loss) in found.items()
    }
    print(json.dumps(clients, indent=2))
    write_report("training_clients", {"rows": ROWS, "tasks": TASKS}, [], clients=clients)
    if unlike := [name for name, one in clients.items() if abs(one["difference"]) > TOLERANCE]:
        sys.exit(f"another loss than univg-train's: {', '.join(unlike)}")


def write_settings(work: Path) -> Path:
    """Samples, and the settings of one step on all of them."""
    import yaml

    rows = write_training_rows(work / "data", "rows", TASKS, ROWS, seed=SEED)
    trainer = {
        "output_dir": str(work / "univg"),
        "max_steps": 1,
        "per_device_train_batch_size": ROWS,
        "max_length": 2048,
        "learning_rate": 1e-5,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": [],
    }
    settings = {
        "model": TINY,
        "dialect": "qwen2_vl",
        "style": "think",
        "min_pixels": PIXELS,
        "max_pixels": PIXELS,
        "data": {
            "form": "univg_r1_stage1",
            "file": str(rows),
            "root": str(work / "data"),
            "check_leaks": [],
        },
        "trainer": trainer,
    }
    path = work / "settings.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return path


def llamafactory(work: Path, export: Path) -> tuple[str, float]:
    """The loss of LLaMA-Factory's step."""
    out = work / "llamafactory_run"
    program = work / "llamafactory" / "bin" / "llamafactory-cli"
    run([program, "train", export / "rows.yaml", f"output_dir={out}", "overwrite_output_dir=true"])
    return transformers_of(work / "llamafactory"), first_loss(out)


SWIFT_PLUGIN = """\
# ms-swift knows the image token by its number in Qwen2-VL's vocabulary; the tiny model has its own.
from swift.template import TEMPLATE_MAPPING

TEMPLATE_MAPPING["qwen2_vl"].template_cls.image_token_id = {image_token_id}
"""


def ms_swift(work: Path, export: Path) -> tuple[str, float]:
    """The loss of ms-swift's step."""
    out, plugin = work / "ms_swift_run", work / "swift_plugin.py"
    config = json.loads((Path(model_folder(TINY)) / "config.json").read_text(encoding="utf-8"))
    plugin.write_text(SWIFT_PLUGIN.format(**config), encoding="utf-8")
    arguments = {
        "model": model_folder(TINY),
        "model_type": "qwen2_vl",
        "template": "qwen2_vl",
        "external_plugins": plugin,
        "dataset": export / "rows.json",
        "split_dataset_ratio": 0,
        "tuner_type": "full",
        "torch_dtype": "float32",
        "max_steps": 1,
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": 1,
        "gradient_checkpointing": "false",
        "learning_rate": 1e-5,
        "logging_steps": 1,
        "dataloader_num_workers": 0,
        "dataset_num_proc": 1,
        "use_cpu": "true",
        "add_version": "false",
        "report_to": "none",
        "output_dir": out,
    }
    given = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    pixels = {"MIN_PIXELS": str(PIXELS), "MAX_PIXELS": str(PIXELS)}
    run([work / "ms_swift" / "bin" / "swift", "sft", *given], pixels)
    return transformers_of(work / "ms_swift"), first_loss(out)


def first_loss(folder: Path) -> float:
    """The first loss of the newest trainer_state.json in a folder."""
    states = sorted(folder.rglob("trainer_state.json"), key=lambda path: path.stat().st_mtime)
    if not states:
        sys.exit(f"no trainer_state.json in {folder}: the step did not end")
    history: list[dict[str, Any]] = json.loads(states[-1].read_text())["log_history"]
    return next(float(line["loss"]) for line in history if "loss" in line)


def environment(folder: Path, requirements: tuple[str, ...]) -> None:
    """A virtual environment with some packages; nothing if it is there."""
    ready = folder / ".ready"
    if ready.exists():
        return
    run([sys.executable, "-m", "venv", folder])
    run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements])
    ready.touch()


def transformers_of(folder: Path) -> str:
    """Version of transformers in an environment."""
    code = "from importlib.metadata import version; print(version('transformers'))"
    command = [folder / "bin" / "python", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run(command: list[Any], more: Mapping[str, str] | None = None) -> None:
    """Run a program, on the CPU and offline; its failure ends this one."""
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    changes = {} if "pip" in command else quiet
    values = {**os.environ, **changes, **(more or {})}
    subprocess.run([str(part) for part in command], check=True, env=values)


if __name__ == "__main__":
    main()
