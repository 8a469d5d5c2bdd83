"""GRPO with difficulty weights: equal to a derivation by hand, for every layout, on this TRL."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import grpo_data
import pytest
import torch
from grpo_data import GROUP, ROLLOUTS, first_batch, loss_and_gradients, make_trainer, shake
from lmms_data import make_checkpoint
from processes import run_two
from trl import GRPOConfig, GRPOTrainer

from univg_eval.errors import UserError
from univg_train.difficulty import DIFFICULTY_FORMS, DifficultyWeight
from univg_train.grpo import trainer as grpo
from univg_train.grpo.batches import count_steps, passes_of_batch
from univg_train.grpo.settings import GrpoSettings
from univg_train.grpo.trainer import PAPER_SETTINGS, DifficultyGRPOTrainer
from univg_train.rewards import REWARD_RULES, make_rewards

PUBLISHED = {
    "exp": lambda m: math.exp(1 - m),
    "power": lambda m: 1.05 - m,
    "log": lambda m: -math.log(0.02 + m),
}
IOUS = [[h or 0.0 for h in rollouts] for rollouts in ROLLOUTS]
MEANS = [statistics.fmean(ious) for ious in IOUS]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grpo_data.make_text_checkpoint(tmp_path_factory.mktemp("model"))


def trainer_of(checkpoint: Path, tmp_path: Path, form: str, **changes: Any) -> Any:
    settings = {"per_device_train_batch_size": GROUP * len(ROLLOUTS)} | changes
    return make_trainer(checkpoint, tmp_path / "run", DifficultyWeight(form), **settings)


# --- the loss, derived anew ---------------------------------------------------------------------


def token_logps(model: Any, tokenizer: Any, prompt: str, text: str) -> torch.Tensor:
    """Log probabilities of a completion's tokens, its end included; one sequence, no padding."""
    question = tokenizer(prompt)["input_ids"]
    ids = [*question, *tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    logits = model(torch.tensor([ids])).logits[0].double()
    table = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
    return torch.stack([table[i - 1, ids[i]] for i in range(len(question), len(ids))])


def published_loss(form: str, now: Any, old: Any, reference: Any, tokenizer: Any) -> torch.Tensor:
    """The objective of the release in float64, the weight on the surrogate itself."""
    losses = []
    for i, (rollouts, ious) in enumerate(zip(ROLLOUTS, IOUS, strict=True)):
        rewards = [iou + (h is not None) for h, iou in zip(rollouts, ious, strict=True)]
        weight = PUBLISHED[form](MEANS[i])
        for h, own in zip(rollouts, rewards, strict=True):
            advantage = (own - statistics.fmean(rewards)) / (statistics.stdev(rewards) + 1e-4)
            prompt, text = f"{i} where is it?", grpo_data.answer(h)
            logps = token_logps(now, tokenizer, prompt, text)
            with torch.no_grad():
                before = logps if old is None else token_logps(old, tokenizer, prompt, text)
                apart = token_logps(reference, tokenizer, prompt, text)
            ratio = (logps - before.detach()).exp()
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            kl = (apart - logps).exp() - (apart - logps) - 1
            losses.append((-weight * surrogate + 0.04 * kl).mean())
    return torch.stack(losses).mean()


def copy_of(model: Any, checkpoint: Path) -> Any:
    """The same weights without TRL's changes to the forward pass."""
    copied = grpo_data.load(checkpoint)
    copied.load_state_dict(model.state_dict())
    return copied


@pytest.mark.parametrize(
    ("form", "iterations"), [("exp", 1), ("power", 1), ("log", 1), ("exp", 2), ("power", 2)]
)
def test_loss_and_gradients_are_the_published_ones(
    checkpoint: Path, tmp_path: Path, form: str, iterations: int
) -> None:
    assert MEANS[2] > 0.98  # where the weight of log is negative
    trainer = trainer_of(checkpoint, tmp_path, form, num_iterations=iterations)
    batch = first_batch(trainer)
    old = None
    if iterations > 1:  # a later update on the same rollouts: ratios other than 1, some clipped
        old = copy_of(trainer.model, checkpoint)
        shake(trainer.model, seed=2)
    loss, gradients = loss_and_gradients(trainer, batch)

    now, reference = copy_of(trainer.model, checkpoint), grpo_data.load(checkpoint)
    expected = published_loss(form, now, old, reference, trainer.processing_class)
    expected.backward()
    expected_gradients = torch.cat([weight.grad.flatten() for weight in now.parameters()])
    assert loss == pytest.approx(expected.item(), rel=0, abs=1e-6)
    assert torch.allclose(gradients, expected_gradients, rtol=0, atol=1e-6)
    assert expected_gradients.abs().max() > 0.05  # or the comparison would say little
    if iterations > 1:
        assert any(trainer._metrics["train"]["clip_ratio/region_mean"])


def test_the_weight_leaves_the_kl_term_alone(checkpoint: Path, tmp_path: Path) -> None:
    """Ten times the weight is ten times the policy's part, and not of the rest."""
    parts = []
    for beta in (0.04, 0.0):
        for value in (1.0, 10.0):
            difficulty = DifficultyWeight("constant", value=value)
            trainer = make_trainer(
                checkpoint, tmp_path, difficulty, per_device_train_batch_size=16, beta=beta
            )
            parts.append(loss_and_gradients(trainer, first_batch(trainer))[1])
    both, both_ten, policy, policy_ten = parts
    assert torch.allclose(policy_ten, 10 * policy, rtol=0, atol=1e-6)
    assert torch.allclose(both_ten - policy_ten, both - policy, rtol=0, atol=1e-6)
    assert (both - policy).abs().max() > 1e-3


# --- layouts: accumulation, several processes ---------------------------------------------------

FORMS = ["exp", "power", "log"]


@pytest.fixture(scope="module")
def alone(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process that holds all four prompts."""
    folder = tmp_path_factory.mktemp("alone")
    options = {"per_device_train_batch_size": 16, "max_steps": 2}
    return {
        form: grpo_data.report(make_trainer(checkpoint, folder, DifficultyWeight(form), **options))
        for form in FORMS
    }


def assert_alike(found: dict[str, Any], expected: dict[str, Any], *, whole: bool = True) -> None:
    if whole:
        assert found["advantages"] == pytest.approx(expected["advantages"], abs=1e-6)
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-6)
        assert found["gradients"] == pytest.approx(expected["gradients"], abs=1e-6)
    assert len(found["logs"]) == len(expected["logs"]) == 2
    for line, other in zip(found["logs"], expected["logs"], strict=True):
        assert line == pytest.approx(other, abs=2e-6)
    assert found["weights"] == pytest.approx(expected["weights"], abs=1e-5)


@pytest.fixture(scope="module")
def together(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same four prompts on two processes."""
    cases = {form: (form, {"per_device_train_batch_size": 8, "max_steps": 2}) for form in FORMS}
    passes = {"gradient_accumulation_steps": 4, "steps_per_generation": 1}
    cases["spread"] = ("exp", {"per_device_train_batch_size": 2, "max_steps": 2, **passes})
    folder = tmp_path_factory.mktemp("together")
    report = folder / "report.json"
    run_two(grpo_data.__file__, str(checkpoint), str(report), json.dumps(cases), cwd=folder)
    return json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", FORMS)
def test_two_processes_give_what_one_gives(
    alone: dict[str, Any], together: dict[str, Any], form: str
) -> None:
    """Each holds two prompts."""
    assert_alike(together[form], alone[form])


def test_a_prompt_spread_over_two_processes(
    alone: dict[str, Any], together: dict[str, Any]
) -> None:
    """Batches of two on each: no process ever holds all rollouts of a prompt."""
    found = together["spread"]
    assert found["advantages"] == pytest.approx(alone["exp"]["advantages"][:GROUP], abs=1e-6)
    assert_alike(found, alone["exp"], whole=False)


@pytest.mark.parametrize("generated_together", [1, 4])
def test_accumulation_gives_what_one_batch_gives(
    checkpoint: Path, alone: dict[str, Any], tmp_path: Path, generated_together: int
) -> None:
    changes = {"steps_per_generation": generated_together, "gradient_accumulation_steps": 4}
    changes |= {"per_device_train_batch_size": GROUP, "max_steps": 2}
    trainer = trainer_of(checkpoint, tmp_path, "exp", **changes)
    assert_alike(grpo_data.report(trainer), alone["exp"], whole=False)


# --- steps and rollouts counted beforehand ------------------------------------------------------


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
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = {"num_train_epochs": 2, **trainer}
    group = {"num_generations": GROUP, "per_device_train_batch_size": GROUP}
    count = count_steps(settings(**group, **trainer), 4, 1)
    assert (count.per_epoch, count.steps, count.batches) == expected

    batches = []
    generate = grpo_data.KnownRollouts._generate_and_score_completions

    def counted(self: Any, inputs: Any) -> Any:
        batches.append(len(inputs))
        return generate(self, inputs)

    monkeypatch.setattr(grpo_data.KnownRollouts, "_generate_and_score_completions", counted)
    trainer |= {"per_device_train_batch_size": GROUP}
    run = make_trainer(checkpoint, tmp_path, DifficultyWeight(), **trainer)
    run.train()
    assert (run.state.global_step, len(batches)) == expected[1:]


def test_on_several_processes() -> None:
    """The release: 8 devices with one prompt each, twice a step."""
    batch = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    released = settings(num_generations=8, num_train_epochs=1, **batch)
    assert passes_of_batch(released, 8) == 2
    count = count_steps(released, 10_000, 8)
    assert (count.per_epoch, count.steps, count.batches) == (625, 625, 625)


# --- what is logged -----------------------------------------------------------------------------


def test_logged_figures(alone: dict[str, Any]) -> None:
    line = alone["exp"]["logs"][0]
    weights = [math.exp(1 - m) for m in MEANS]
    assert line["difficulty/miou"] == pytest.approx(statistics.fmean(MEANS))
    assert line["difficulty/weight"] == pytest.approx(statistics.fmean(weights))
    assert line["difficulty/no_spread"] == 0.25
    # One prompt of four, or two, in each of these bins; their mean weight.
    shares = {name: v for name, v in line.items() if name.startswith("difficulty/share_") and v}
    assert shares == {
        "difficulty/share_0.0_0.2": 0.25,
        "difficulty/share_0.4_0.6": 0.5,
        "difficulty/share_0.8_1.0": 0.25,
    }
    binned = {name: v for name, v in line.items() if name.startswith("difficulty/weight_")}
    assert binned == pytest.approx(
        {
            "difficulty/weight_0.0_0.2": weights[0],
            "difficulty/weight_0.4_0.6": (weights[1] + weights[3]) / 2,
            "difficulty/weight_0.8_1.0": weights[2],
        }
    )
    # 13 of 16 answers hold a box with an area, 14 one box in writing.
    expected = {
        "difficulty/answered": 13 / 16,
        "difficulty/format": 14 / 16,
        "source/even/miou": (MEANS[0] + MEANS[2]) / 2,
        "source/odd/weight": (weights[1] + weights[3]) / 2,
        "source/odd/no_spread": 0.5,
        "source/even/format": 7 / 8,
        "source/even/answered": 6 / 8,
    }
    assert {name: line[name] for name in expected} == pytest.approx(expected)


def test_rows_without_a_true_object_have_their_own_figure(checkpoint: Path, tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint, tmp_path, "exp")
    rows = grpo_data.make_rows().to_list()
    for row in rows[:2]:
        row["solution"] = None
    trainer.model.train()
    trainer._generate_and_score_completions([row for row in rows for _ in range(GROUP)])
    figures = trainer._metrics["train"]
    assert figures["difficulty/no_target_acc"] == [0.0]
    assert figures["difficulty/miou"] == pytest.approx([statistics.fmean(MEANS[2:])])


def test_rows_with_several_true_objects_have_their_own_figure(
    checkpoint: Path, tmp_path: Path
) -> None:
    """The weight is that of the mean of their own metric, here half of an IoU of 0.5 and more."""
    trainer = trainer_of(checkpoint, tmp_path, "exp")
    rows = grpo_data.make_rows().to_list()
    far = {"image": 0, "box": [0.0, 0.0, 0.001, 0.001]}  # which the wide boxes hardly touch
    for row in rows:
        row["targets"] = []
    rows[1] |= {"solution": None, "targets": [{"image": 0, "box": [0.0, 0.0, 1.0, 1.0]}, far]}
    rows[1]["target_image"] = rows[2]["target_image"] = 0
    for row in rows:
        row.setdefault("target_image", None)
    trainer.model.train()
    trainer._generate_and_score_completions([row for row in rows for _ in range(GROUP)])
    figures = trainer._metrics["train"]
    several = (0.875 + 0.5) / GROUP / 2
    others = statistics.fmean(MEANS[i] for i in (0, 2, 3))
    assert figures["difficulty/matched_iou"] == pytest.approx([several])
    assert figures["difficulty/miou"] == pytest.approx([others])
    means = [MEANS[0], several, *MEANS[2:]]
    weight = statistics.fmean(math.exp(1 - mean) for mean in means)
    assert figures["difficulty/weight"] == pytest.approx([weight], abs=1e-5)
    # Of those with one object, two have no valid box.
    assert figures["difficulty/answered"] == pytest.approx([10 / 12])


def test_shaping_does_not_move_the_difficulty(checkpoint: Path, tmp_path: Path) -> None:
    """m stays the mean IoU when the reward is something else."""
    plain = trainer_of(checkpoint, tmp_path, "exp")
    shaped = trainer_of(checkpoint, tmp_path, "exp", rewards=make_rewards(threshold=0.5))
    for trainer in (plain, shaped):
        first_batch(trainer)
    for name in ("difficulty/weight_0.4_0.6", "difficulty/miou", "source/odd/miou"):
        assert shaped._metrics["train"][name] == plain._metrics["train"][name]
    reward = "rewards/accuracy_reward/mean"
    assert shaped._metrics["train"][reward] != plain._metrics["train"][reward]


def test_accuracy_may_stand_alone(checkpoint: Path, tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint, tmp_path, "exp", rewards=make_rewards()[0])
    first_batch(trainer)
    figures = trainer._metrics["train"]
    assert figures["difficulty/miou"] == pytest.approx([statistics.fmean(MEANS)])
    assert "difficulty/format" not in figures


def test_evaluation_weighs_by_its_own_group_size(checkpoint: Path, tmp_path: Path) -> None:
    trainer = trainer_of(checkpoint, tmp_path, "exp", num_generations_eval=2)
    trainer.model.eval()
    rows = [row for row in grpo_data.make_rows().to_list()[:2] for _ in range(2)]
    trainer._generate_and_score_completions(rows)
    # Rollouts 0 and 1 of the first prompt, 2 and 3 of the second.
    expected = statistics.fmean([math.exp(1 - 0.0), math.exp(1 - 0.25)])
    assert trainer._metrics["eval"]["difficulty/weight"] == pytest.approx([expected])


# --- TRL is the one that this was written for ---------------------------------------------------

# The methods that are overridden or relied upon, as TRL 1.16.0 has them. Where one of these tests
# fails, TRL has changed: read what changed, run the tests above, then put the new value here.
SOURCES = {
    "_calculate_rewards": "736ae29b083840b5",
    "_generate_and_score_completions": "1fa48922792dcd5c",
    "_compute_loss": "80295546bbdbf6f7",
    "_log_metric": "bcd19b9ca1016e3a",
}


def test_trl_is_pinned() -> None:
    assert importlib.metadata.version("trl").startswith(f"{grpo.TRL_MINOR}.")
    pins = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"trl>={grpo.TRL_MINOR},<1.17"' in pins


@pytest.mark.parametrize("name", SOURCES)
def test_trl_methods_are_as_read(name: str) -> None:
    source = inspect.getsource(getattr(GRPOTrainer, name))
    found = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert found == SOURCES[name], f"TRL {importlib.metadata.version('trl')} changed {name}"


def test_trl_signatures_are_as_read() -> None:
    def names(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert names(GRPOTrainer.__init__)[:6] == [
        *("self", "model", "reward_funcs", "args", "train_dataset", "eval_dataset"),
    ]
    for seam in ("_calculate_rewards", "_generate_and_score_completions"):
        assert names(getattr(GRPOTrainer, seam)) == names(getattr(DifficultyGRPOTrainer, seam))


def test_trl_defaults_that_the_paper_settings_replace() -> None:
    defaults = GRPOConfig("unused", use_cpu=True, bf16=False)
    differing = {k for k, v in PAPER_SETTINGS.items() if getattr(defaults, k) != v}
    assert differing == {
        *("loss_type", "beta", "use_bias_correction_kl", "top_k", "max_completion_length"),
    }


def test_another_trl_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.17.0")
    with pytest.raises(UserError, match=r"TRL 1\.16 and found TRL 1\.17\.0; install it with"):
        DifficultyGRPOTrainer("unused", make_rewards(), None, None)


def test_a_seam_that_is_not_called_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint, tmp_path, "exp")
    monkeypatch.setattr(
        GRPOTrainer, "_generate_and_score_completions", lambda *_: {"advantages": torch.ones(16)}
    )
    with pytest.raises(RuntimeError, match=r"advantages of shape \(16,\) for None weights"):
        trainer._generate_and_score_completions([])


# --- refused before the model is loaded ---------------------------------------------------------


def refuse(message: str, difficulty: DifficultyWeight, rows: Any = None, **changes: Any) -> None:
    rewards = changes.pop("rewards", make_rewards())
    settings = {**PAPER_SETTINGS, "use_cpu": True, "bf16": False} | changes
    with pytest.raises(UserError, match=message):
        DifficultyGRPOTrainer(
            "no/such-model",
            rewards,
            GRPOConfig("unused", **settings),
            grpo_data.make_rows() if rows is None else rows,
            difficulty=difficulty,
        )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_iterations": 2}, "num_iterations=2 and steps_per_generation=1"),
        ({"steps_per_generation": 2}, "steps_per_generation=2 .* more than one update"),
        ({"loss_type": "sapo"}, "loss_type='sapo' looks at the sign"),
        ({"loss_type": "vespo"}, "loss_type='vespo' looks at the sign"),
        ({"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold looks at the sign"),
    ],
)
def test_log_as_published_is_refused_where_it_is_another_loss(
    changes: dict[str, Any], reason: str
) -> None:
    refuse(rf"negative above .*{reason}.*'log_clamped'", DifficultyWeight("log"), **changes)


def test_one_prompt_or_no_accuracy_is_refused() -> None:
    weight = DifficultyWeight("exp", normalize=True)
    refuse("whose weight would always be 1", weight, per_device_train_batch_size=8)
    refuse("exactly one accuracy_reward .* found 0", DifficultyWeight(), rewards=make_rewards()[1:])


def test_bad_data_are_refused() -> None:
    rows = grpo_data.make_rows()
    stream = rows.remove_columns("solution").to_iterable_dataset()
    refuse("column 'solution' is missing", DifficultyWeight(), stream)
    bad = rows.map(lambda row, i: {"dialect": "qwen9" if i == 2 else "norm1"}, with_indices=True)
    refuse("1 of 4 rows .*\n  row 2: unknown dialect 'qwen9'", DifficultyWeight(), bad)
    read = []

    def make(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        read.extend(batch["prompt"])
        return {"prompt": batch["prompt"], "solution": batch["solution"]}

    made = rows.select([0] * 1000).with_transform(make)
    refuse("100 of 100 rows .*\n  row 0: column 'dialect' is missing", DifficultyWeight(), made)
    assert len(read) == 100  # rows that cost something to make are not all made beforehand


# --- docs/grpo.md -------------------------------------------------------------------------------

PAGE = (Path(__file__).parent.parent / "docs" / "grpo.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    model = make_checkpoint(tmp_path / "model", "qwen2_vl")
    changes = {
        '"Qwen/Qwen2-VL-7B-Instruct"': repr(str(model)),
        "**PAPER_SETTINGS": '**{**PAPER_SETTINGS, "max_completion_length": 8}',
        "max_steps=100": 'max_steps=1, use_cpu=True, bf16=False, report_to=[], save_strategy="no"',
    }
    for old, new in changes.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/grpo.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.splitlines()[-1] == "0.0"  # random weights name no box


def test_the_page_names_every_form_rule_and_setting() -> None:
    for name in (*DIFFICULTY_FORMS, *REWARD_RULES):
        assert f"`{name}`" in PAGE
    for name in ("loss_type", "scale_rewards", "beta", "use_bias_correction_kl", "epsilon"):
        value = PAPER_SETTINGS[name]
        assert f'`{name}="{value}"`' in PAGE or f"`{name}={value}`" in PAGE
