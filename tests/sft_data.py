"""Training runs of the tests: a tiny random Qwen2-VL, rows, and settings.

As a script, ``python sft_data.py CONFIG [STEP]``, it trains; with STEP it is killed at its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from lmms_data import make_checkpoint
from training_forms import THINK, chat, draw, stage1_row, write_list

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen's: the turn of the assistant is opened by the prompt."""

ANSWERS = (
    "<think>It stands left.</think><answer>(100,200),(300,400)</answer>",
    "<think>The second image shows it at the right, by the door.</think>"
    "<answer>(10,20),(30,40)</answer>",
    "<think>Small.</think><answer>(500,600),(700,800)</answer>",
)


def make_model(folder: Path) -> Path:
    import torch
    from transformers import AutoProcessor

    torch.manual_seed(0)
    make_checkpoint(folder, "qwen2_vl")
    processor = AutoProcessor.from_pretrained(folder)
    processor.chat_template = TEMPLATE
    processor.save_pretrained(folder)
    return folder


def make_rows(folder: Path) -> Path:
    """A stage-1 file of three rows with two images, one or two of them large."""
    names = [f"MGrounding-630k/{name}.png" for name in "abc"]
    draw(folder, dict(zip(names, [(56, 28), (28, 28), (90, 70)], strict=True)))
    question = "<image>\n<image>\nFind the cup of the first image in the second image." + THINK
    rows = [
        stage1_row(images=[names[i], names[i - 1]], conversations=chat(question, answer))
        for i, answer in enumerate(ANSWERS)
    ]
    return write_list(folder / "stage1.json", rows)


TRAINER = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "disable_tqdm": True,
    "report_to": [],
}


def write(path: Path, values: dict[str, Any]) -> Path:
    """JSON is YAML."""
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def make_config(path: Path, model: Path, rows: Path, **trainer: Any) -> Path:
    own = {"output_dir": str(path.parent / path.stem), "max_steps": 5, "save_steps": 2}
    values = {
        "model": str(model),
        "dialect": "univg_r1",
        "data": {"form": "univg_r1_stage1", "file": str(rows), "check_leaks": []},
        "trainer": {**TRAINER, **own, "learning_rate": 1e-2, **trainer},
    }
    return write(path, values)


def main() -> None:
    import torch
    from transformers import TrainerCallback

    from univg_train.sft.run import train_sft
    from univg_train.sft.settings import load_settings

    config, *step = sys.argv[1:]

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if [str(state.global_step)] == step:
                os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    train_sft(load_settings(config), callbacks=[Killed()])


if __name__ == "__main__":
    main()
