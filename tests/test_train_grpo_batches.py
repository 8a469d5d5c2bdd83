"""Steps and rollouts computed beforehand are those that TRL takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from grpo_data import GROUP, KnownRollouts, make_text_checkpoint, make_trainer

from univg_train.difficulty import DifficultyWeight
from univg_train.grpo.batches import count_steps, passes_of_batch
from univg_train.grpo.settings import GrpoSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_checkpoint(tmp_path_factory.mktemp("model"))


def settings(**trainer: Any) -> GrpoSettings:
    return GrpoSettings(
        model="m",
        dialect="norm1",
        data={"form": "custom", "file": "rows.jsonl"},
        trainer={"output_dir": "o", **trainer},
    )


# Four rows, rollouts in groups of four.
@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        # As released: a step has all passes of its rollouts.
        ({"gradient_accumulation_steps": 2}, (2, 4, 4)),
        # Three prompts at once: the fourth row waits.
        ({"gradient_accumulation_steps": 3}, (1, 2, 2)),
        # A batch of rollouts serves one pass; the last step of an epoch has one, not three.
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 1}, (2, 4, 8)),
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 1, "max_steps": 3}, (2, 3, 7)),
        # Rollouts of two prompts serve four steps.
        ({"generation_batch_size": 8, "num_iterations": 2}, (8, 16, 4)),
        ({"generation_batch_size": 8, "num_iterations": 2, "max_steps": 5}, (8, 5, 2)),
        ({"num_train_epochs": 1.5, "gradient_accumulation_steps": 1}, (4, 6, 6)),
    ],
)
def test_as_trl_counts(
    trainer: dict[str, Any],
    expected: tuple[int, int, int],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = {"num_train_epochs": 2, **trainer}
    group = {"num_generations": GROUP, "per_device_train_batch_size": GROUP}
    count = count_steps(settings(**group, **trainer), 4, 1)
    assert (count.per_epoch, count.steps, count.batches) == expected

    batches = []
    generate = KnownRollouts._generate_and_score_completions

    def counted(self: Any, inputs: Any) -> Any:
        batches.append(len(inputs))
        return generate(self, inputs)

    monkeypatch.setattr(KnownRollouts, "_generate_and_score_completions", counted)
    trainer |= {"per_device_train_batch_size": GROUP}
    run = make_trainer(model, tmp_path, DifficultyWeight(), **trainer)
    run.train()
    assert (run.state.global_step, len(batches)) == expected[1:]


def test_on_several_processes() -> None:
    """The release: 8 devices with one prompt each, twice a step."""
    batch = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    released = settings(num_generations=8, num_train_epochs=1, **batch)
    assert passes_of_batch(released, 8) == 2
    count = count_steps(released, 10_000, 8)
    assert (count.per_epoch, count.steps, count.batches) == (625, 625, 625)
