"""Write the tiny model as a folder that transformers and lmms-eval load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from univg_eval.benchmarks.synthetic.mini import TASKS
from univg_eval.files import whole_folder, write_sums
from univg_train.tiny.model import IMAGE_SIDE, TinyShape, build_processor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

__all__ = ["CardFacts", "export_checkpoint"]

PIXELS = IMAGE_SIDE**2


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the model card says.

    Attributes:
        steps, minutes, seed, threads: of the training run.
        validation: Acc@0.5 of each task on unseen scenes of the training kind.
        per_task: questions a task behind each of these.
        other_style: the other prompt, and its macro Acc@0.5.
    """

    steps: int
    minutes: float
    seed: int
    threads: int
    validation: Mapping[str, float]
    per_task: int
    other_style: tuple[str, float]


def export_checkpoint(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    shape: TinyShape,
    facts: CardFacts,
    folder: Path,
) -> None:
    """Write model, tokenizer, processor and model card; replaces the folder when all is there.

    Weights are stored as bfloat16, which they were rounded to in training, and computed with in
    float32, which every processor does well: the configuration says float32.
    """
    # What batches and a resumption have left in it, so that all runs write the same files.
    tokenizer.backend_tokenizer.no_padding()
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    with whole_folder(folder) as new:
        stored: Any = type(model)(model.config)
        stored.load_state_dict(model.state_dict())
        stored.to(torch.bfloat16).save_pretrained(new)
        build_processor(shape, tokenizer).save_pretrained(new)
        _set_float32(new / "config.json")
        (new / "README.md").write_text(_card(model, facts), encoding="utf-8")
        write_sums(new)


def _set_float32(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))

    def set_dtype(node: dict[str, Any]) -> None:
        if "dtype" in node:
            node["dtype"] = "float32"
        for value in node.values():
            if isinstance(value, dict):
                set_dtype(value)

    set_dtype(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _card(model: Qwen2VLForConditionalGeneration, facts: CardFacts) -> str:
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    rows = "\n".join(f"| {task} | {facts.validation[task]:.2f} |" for task in TASKS)
    style = model.config.univg["prompt"]
    macro = sum(facts.validation[task] for task in TASKS) / len(TASKS)
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# UniVG tiny

A Qwen2-VL with {millions:.1f} million parameters, trained from nothing on generated scenes of
coloured shapes. It exists to run a whole grounding evaluation, or a training loop, in minutes on
a CPU. It knows nothing about photographs and is no model to compare others with.

* Images: every image is read at {IMAGE_SIDE} x {IMAGE_SIDE} pixels; give a backend
  `min_pixels={PIXELS},max_pixels={PIXELS}`.
* Prompt: `{style}` of the dialect `qwen2_vl` (it also reads `{facts.other_style[0]}`); English,
  the wording of univg_mini.
* Answers: a phrase and a box, `(x1,y1),(x2,y2)` on 0-1000 of the image.
* Training: `univg-train tiny`, {facts.steps} steps in {facts.minutes:.0f} minutes with
  {facts.threads} processes on CPU, seed {facts.seed}.

Acc@0.5 on scenes of the training kind that training never saw, {facts.per_task} questions a task
(the public univg_mini questions, a quarter of which show unseen combinations of colour and shape,
are measured apart: see docs/tiny_model.md):

| task | Acc@0.5 |
| --- | --- |
{rows}
| **macro** | **{macro:.2f}** |

Macro with the prompt `{facts.other_style[0]}`: {facts.other_style[1]:.2f}.
"""
