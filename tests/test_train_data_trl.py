"""TRL's own GRPOTrainer takes the rows: their images, prompts and columns arrive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_forms import chat, draw, stage1_row, write_list
from trl import GRPOConfig, GRPOTrainer

from univg_train.data import TrainingData, make_rendering, open_training_data
from univg_train.rewards import check_rows, make_rewards

pytestmark = pytest.mark.usefixtures("one_thread")
MODEL = Path(__file__).resolve().parent.parent / "univg_eval" / "models" / "tiny"


def rows(folder: Path) -> TrainingData:
    draw(folder, {"MGrounding-630k/a.png": (64, 64), "MGrounding-630k/b.png": (96, 64)})
    inside = stage1_row(
        conversations=chat(
            "In <image> and <image>: where is it in the second image?",
            "<think>A dog.</think><answer>(500,500),(900,900)</answer>",
        )
    )
    path = write_list(folder / "rows.json", [stage1_row(), inside])
    how = make_rendering("univg_r1", style="think", purpose="grpo")
    return open_training_data("univg_r1_stage1", path, how, seed=5)


def test_grpo_trains_on_the_rows(tmp_path: Path) -> None:
    data = rows(tmp_path)
    check_rows([data.columns(i) for i in range(2)], make_rewards())
    seen: list[dict[str, Any]] = []

    def watch(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        seen.append({"prompts": prompts, **columns})
        return [float(i % 2) for i in range(len(completions))]

    arguments = GRPOConfig(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=4,
        max_steps=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    GRPOTrainer(
        model=str(MODEL),
        reward_funcs=[watch, *make_rewards()],
        args=arguments,
        train_dataset=data.as_dataset(),
    ).train()
    (batch,) = seen
    assert sorted(batch["id"]) == [f"univg_r1_stage1-{i:06d}" for i in (0, 0, 1, 1)]
    by_id = {data.columns(i)["id"]: data.columns(i) for i in range(2)}
    for name in ("solution", "dialect", "single_image", "image_sizes", "target_image", "source"):
        assert batch[name] == [by_id[id_][name] for id_ in batch["id"]]
    for prompt, images, id_ in zip(batch["prompts"], batch["images"], batch["id"], strict=True):
        blocks = prompt[0]["content"]
        assert [block.get("image") for block in blocks if block["type"] == "image"] == images
        assert [{k: v for k, v in block.items() if k != "image"} for block in blocks] == (
            by_id[id_]["prompt"][0]["content"]
        )
        assert [image.size for image in images] == [(64, 64), (96, 64)]
