"""Rollouts that are kept: what a line holds; a run taken up again loses and doubles none."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import grpo_data
import pytest
from grpo_data import GROUP, ROLLOUTS

from univg_eval.errors import UserError
from univg_train.difficulty import DifficultyWeight
from univg_train.grpo.rollouts import RolloutLog


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_has_the_row_its_truth_and_every_rollout(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    trainer = grpo_data.make_trainer(
        grpo_data.make_text_checkpoint(tmp_path / "model"),
        tmp_path / "run",
        DifficultyWeight("exp"),
        per_device_train_batch_size=GROUP * len(ROLLOUTS),
    )
    trainer._rollouts = RolloutLog(path, 2)
    rows = [dict(row, id=f"row-{i}") for i, row in enumerate(grpo_data.make_rows().to_list())]
    batch = [row for row in rows for _ in range(GROUP)]
    trainer.model.train()
    trainer._generate_and_score_completions(batch)
    first, second = lines_of(path)
    assert (first["step"], first["id"], second["id"]) == (1, "row-0", "row-1")
    assert first["source"] == "even"
    assert first["truth"] == [{"image": None, "box": [0.0, 0.0, 1.0, 1.0]}]
    assert first["metric"] == "miou"
    values = [height or 0.0 for height in ROLLOUTS[1]]
    assert [rollout["value"] for rollout in second["rollouts"]] == values
    assert second["mean"] == pytest.approx(statistics.fmean(values))
    assert second["weight"] == pytest.approx(math.exp(1 - statistics.fmean(values)))
    assert [r["status"] for r in second["rollouts"]] == ["ok", "ok", "ok", "no_box"]
    assert second["rollouts"][0]["box"] == [0.0, 0.0, 1.0, 0.875]
    assert second["rollouts"][3] == {
        "text": "no idea", "status": "no_box", "box": None, "value": 0.0, "reward": 0.0
    }  # fmt: skip
    # Accuracy, and 1 for the form.
    assert [r["reward"] for r in second["rollouts"][:3]] == [1.875, 1.25, 1.5]
    trainer.model.eval()
    trainer._generate_and_score_completions(batch)
    assert len(lines_of(path)) == 2, "evaluations are kept elsewhere"


def test_a_run_taken_up_again_replaces_the_steps_that_were_lost(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    before = RolloutLog(path, 1)
    for step in (1, 2, 3):
        before.write(step, [{"id": f"old-{step}"}])
    with path.open("a") as file:
        file.write('{"step": 3, "id": "cut')
    after = RolloutLog(path, 1)
    after.write(3, [{"id": "new-3"}])
    after.write(4, [{"id": "new-4"}])
    assert [line["id"] for line in lines_of(path)] == ["old-1", "old-2", "new-3", "new-4"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(UserError, match=r"cannot write .*log_rollouts: 0"):
        RolloutLog(path / "rollouts.jsonl", 1).write(1, [])
