"""The experiment on difficulty weighting: its rollouts, its arms, its figures."""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from trl import GRPOConfig

FOLDER = Path(__file__).resolve().parent.parent / "results" / "experiments" / "difficulty"
sys.path.insert(0, str(FOLDER))

import experiment  # noqa: E402
import held_out  # noqa: E402
import plan  # noqa: E402
import rollouts  # noqa: E402
import runs  # noqa: E402
import summary as summary_module  # noqa: E402

from univg_eval.benchmarks.synthetic.mini import MiniItem  # noqa: E402
from univg_eval.errors import UserError  # noqa: E402
from univg_eval.models import TINY, model_folder  # noqa: E402
from univg_train.difficulty import DifficultyWeight  # noqa: E402
from univg_train.grpo.trainer import PAPER_SETTINGS, DifficultyGRPOTrainer  # noqa: E402
from univg_train.rewards import make_rewards  # noqa: E402
from univg_train.tiny.answers import answer_text  # noqa: E402
from univg_train.tiny.data import PROMPT_SUFFIX, draw_images  # noqa: E402
from univg_train.tiny.model import IMAGE_SIDE  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


# --- samples and arms ----------------------------------------------------------------------------


def test_samples_come_in_turns_and_measuring_has_its_own() -> None:
    items = held_out.draw_items(7, range(3, 13))
    assert [item.task for item in items] == [plan.TASKS[n % 5] for n in range(3, 13)]
    assert items[::-1] == held_out.draw_items(7, range(12, 2, -1))
    drawn = held_out.draw_items(7, range(100))
    assert len({(item.instruction, item.box) for item in drawn}) > 95
    seeds = [*plan.SEEDS, plan.TUNING_SEED, *(samples.seed for samples in plan.SAMPLES.values())]
    assert len(set(seeds)) == len(seeds)


def test_prompts_are_all_others_or_come_again_in_another_order() -> None:
    fresh = runs.RunSettings(5, 1e-4, steps=6, prompts=4)
    assert [n for step in range(6) for n in fresh.numbers(step)] == list(range(24))
    repeated = runs.RunSettings(5, 1e-4, steps=6, prompts=4, pool=12)
    listed = [n for step in range(6) for n in repeated.numbers(step)]
    epochs = [listed[:12], listed[12:]]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0] != epochs[1]
    with pytest.raises(ValueError, match="pool of 10 is no multiple of 4"):
        runs.RunSettings(5, 1e-4, prompts=4, pool=10).numbers(0)


MEANS = np.array([0.0, 0.25, 0.5, 0.9])


def test_permuted_weights_are_those_of_the_primary_arm_in_another_order() -> None:
    rng = np.random.default_rng(0)
    expected = np.exp(1 - MEANS) / np.exp(1 - MEANS).mean()
    assert runs.ARMS["exp_normalised"].weigh(MEANS, rng) == pytest.approx(expected)
    dealt = [runs.ARMS["permuted"].weigh(MEANS, rng) for _ in range(30)]
    assert all(sorted(weights) == pytest.approx(sorted(expected)) for weights in dealt)
    assert len({tuple(weights) for weights in dealt}) > 10


def test_every_arm_is_what_its_name_says() -> None:
    assert set(runs.ARMS) == {arm for series in plan.POOLS for arm in plan.arms_of(series)}
    assert runs.ARMS["constant"].weight == DifficultyWeight("constant", value=1.53)
    assert runs.ARMS["exp_normalised"].weight == DifficultyWeight("exp", normalize=True)
    for name in ("exp", "none"):
        assert runs.ARMS[name].weight == DifficultyWeight(name)
    assert [name for name, arm in runs.ARMS.items() if arm.permuted] == ["permuted"]


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture
def model() -> Qwen2VLForConditionalGeneration:
    return runs.load_start()[0]


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(model_folder(TINY), padding_side="left")


def items_of(tasks: Sequence[str], seed: int = 4) -> list[MiniItem]:
    return [held_out.draw_items(seed, [plan.TASKS.index(task)])[0] for task in tasks]


MIXED = ("llmseg", "refer_grounding", "lisa_test")
"""Tasks of one and two images, and questions of several lengths."""


def images_of(item: MiniItem) -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in draw_images(item.scenes, IMAGE_SIDE)]


def message(item: MiniItem) -> list[dict[str, Any]]:
    images = [{"type": "image"}] * item.image_count
    text = {"type": "text", "text": item.instruction + PROMPT_SUFFIX}
    return [{"role": "user", "content": [*images, text]}]


def model_inputs(processor: Any, item: MiniItem) -> Any:
    text = processor.apply_chat_template(message(item), add_generation_prompt=True)
    return processor(images=images_of(item), text=[text], return_tensors="pt")


@pytest.mark.parametrize("arm", ["exp_normalised", "permuted"])
def test_a_run_repeats_and_measures_at_its_steps(arm: str) -> None:
    settings = runs.RunSettings(seed=5, learning_rate=1e-3, steps=3, prompts=2, evaluate_every=2)
    samples = held_out.HeldOut(6, 5)
    difficulty = [0.0, 0.5, 1.0, 0.8, 0.2]
    first, second = (runs.train_run(arm, settings, samples, difficulty) for _ in range(2))
    assert sorted(first["evaluations"]) == [2, 3]
    assert len(first["curve"]["miou"]) == 3
    assert first["curve"] == second["curve"]
    assert first["evaluations"] == second["evaluations"]


def test_held_out_figures_are_means_over_the_samples_of_a_stratum(
    model: Any, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = held_out.HeldOut(6, 5)
    boxes = [item.box for item in samples.items]
    part = [(x1, y1, 0.4 * x1 + 0.6 * x2, y2) for x1, y1, x2, y2 in boxes]
    answers = [boxes[0], part[1], part[2], boxes[3], None]  # IoU 1, 0.6, 0.6, 1 and none
    texts = ["no box" if box is None else str(list(box)) for box in answers]
    box_of = {text: box for text, box in zip(texts, answers, strict=True)}
    monkeypatch.setattr(held_out, "generate", lambda *_, **__: texts)
    monkeypatch.setattr(processor.tokenizer, "batch_decode", lambda ids, **_: ids, raising=False)

    class Read:
        def __init__(self, text: str, _: Any) -> None:
            self.box = box_of[text]

    monkeypatch.setattr(held_out, "parse_answer", Read)
    found = samples.measure(model, processor.tokenizer, [0.9, 0.8, 0.79, 0.2, 0.1])
    rounded = {
        kind: {name: round(value, 4) for name, value in figures.items()}
        for kind, figures in found.items()
    }
    assert rounded == {
        "all": {"acc@0.5": 0.8, "miou": 0.64, "answered": 0.8},
        "easy": {"acc@0.5": 1.0, "miou": 0.8, "answered": 1.0},
        "medium": {"acc@0.5": 1.0, "miou": 0.8, "answered": 1.0},
        "hard": {"acc@0.5": 0.0, "miou": 0.0, "answered": 0.0},
    }


def test_loss_and_gradients_are_those_of_the_trainer(processor: Any, tmp_path: Path) -> None:
    arm = runs.ARMS["exp_normalised"]
    items = items_of(MIXED)
    rows = [
        {
            "prompt": message(item),
            "images": images_of(item),
            "solution": list(item.box),
            "dialect": "qwen2_vl",
            "style": "direct",
        }
        for item in items
    ]
    trainer = DifficultyGRPOTrainer(
        model_folder(TINY),
        make_rewards(style="direct"),
        GRPOConfig(
            **{
                **PAPER_SETTINGS, "output_dir": str(tmp_path), "use_cpu": True,
                "bf16": False, "report_to": "none", "remove_unused_columns": False,
                "per_device_train_batch_size": len(rows) * runs.GROUP, "max_completion_length": 32,
                "gradient_checkpointing": False,
            }
        ),
        Dataset.from_list([{"row": i} for i in range(3)]).with_transform(
            lambda batch: {k: [rows[i][k] for i in batch["row"]] for k in rows[0]}
        ),
        processing_class=processor,
        difficulty=arm.weight,
    )  # fmt: skip
    model = trainer.model
    model.model.visual.requires_grad_(False)
    torch.manual_seed(0)
    with torch.no_grad():  # away from the reference, so that the KL term counts
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    # Responses of several IoUs, every second one like the one before it.
    texts = [
        answer_text(item.label, tuple(min(1.0, v + 0.036 * (i // 2)) for v in item.box))
        for item in items
        for i in range(runs.GROUP)
    ]
    tokens = [[*processor.tokenizer.encode(text), model.config.eos_token_id] for text in texts]
    generate = model.generate

    def written(*args: Any, **kwargs: Any) -> torch.Tensor:
        width = max(map(len, tokens))
        pad = processor.tokenizer.pad_token_id
        rest = torch.tensor([t + [pad] * (width - len(t)) for t in tokens])
        return torch.cat([kwargs["input_ids"], rest], dim=1)

    model.generate = written
    model.train()
    trainer.current_gradient_accumulation_steps = 1  # what training sets
    inputs = [row for row in rows for _ in range(runs.GROUP)]
    scored = trainer._generate_and_score_completions(inputs)
    model.generate = generate
    expected = trainer.compute_loss(model, scored)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    prompts = rollouts.make_prompts(items, processor.tokenizer)
    batch = runs.grade_batch(
        processor.tokenizer, items, prompts, tokens, arm, np.random.default_rng(0)
    )
    assert batch.advantages.abs().max() > 0.1
    assert batch.advantages.tolist() == pytest.approx(scored["advantages"].tolist(), abs=1e-5)
    loss, divergence = runs.policy_loss(model, trainer.ref_model, batch)
    assert divergence > 1e-3
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss.backward()
    assert len(gradients) > 60
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-3)


def test_sampled_rollouts_follow_the_models_probabilities(model: Any, processor: Any) -> None:
    """Of the first two tokens, though rollouts that are alike so far share a row."""
    prompts = rollouts.make_prompts(items_of(["lisa_val", "llmseg"]), processor.tokenizer)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    with torch.no_grad():  # the shipped weights are nearly sure of what comes first
        model.lm_head.weight.add_(0.1 * torch.randn_like(model.lm_head.weight))
    drawn = rollouts.generate(
        model, prompts, rollouts=3000, top_k=3, max_new_tokens=2, generator=generator
    )
    for number in range(2):
        own = drawn[3000 * number : 3000 * (number + 1)]
        inputs = model_inputs(processor, items_of(["lisa_val", "llmseg"])[number])
        first = model(**inputs).logits[0, -1].topk(3)
        for share, token in zip(first.values.softmax(dim=0), first.indices, strict=True):
            after = [ids[1] for ids in own if ids[0] == token and len(ids) == 2]
            assert sum(ids[0] == token for ids in own) / 3000 == pytest.approx(
                float(share), abs=0.04
            )
            if len(after) < 500:
                continue
            grown = torch.cat([inputs["input_ids"], token.view(1, 1)], dim=1)
            kinds = (grown == model.config.image_token_id).int()
            longer = {**inputs, "input_ids": grown, "attention_mask": torch.ones_like(grown)}
            second = model(**{**longer, "mm_token_type_ids": kinds}).logits[0, -1].topk(3)
            for part, following in zip(second.values.softmax(dim=0), second.indices, strict=True):
                assert sum(t == following for t in after) / len(after) == pytest.approx(
                    float(part), abs=0.09
                )


def test_greedy_responses_are_those_of_transformers_generate(model: Any, processor: Any) -> None:
    items = items_of(MIXED, seed=8)
    mine = rollouts.generate(model, rollouts.make_prompts(items, processor.tokenizer), rollouts=1)
    assert len({len(ids) for ids in rollouts.make_prompts(items, processor.tokenizer).ids}) == 3
    for item, ids in zip(items, mine, strict=True):
        inputs = model_inputs(processor, item)
        output = model.generate(**inputs, max_new_tokens=32, do_sample=False)
        assert output[0, inputs["input_ids"].shape[1] :].tolist() == ids


def test_curves_show_what_easy_groups_have_of_the_advantages() -> None:
    advantages = np.zeros((3, runs.GROUP))
    advantages[0, :2], advantages[1, :2] = (1.0, -1.0), (3.0, -3.0)
    batch = runs.Batch(
        None, [], torch.tensor(advantages).view(-1),
        np.array([0.9, 0.3, 0.8]), np.array([0.5, 1.5, 1.0]), np.array([False, False, True]),
    )  # fmt: skip
    figures = runs.batch_figures(batch)
    assert figures["share_0.8_1.0"] == pytest.approx(2 / 3)
    assert figures["pull_0.8_1.0"] == pytest.approx(0.25)
    assert figures["pull_0.2_0.4"] == pytest.approx(0.75)
    assert figures["no_spread"] == pytest.approx(1 / 3)
    nothing = runs.Batch(None, [], torch.zeros(24), batch.means, batch.weights, batch.flat)
    assert runs.batch_figures(nothing)["pull_0.8_1.0"] is None


def test_a_stage_names_what_it_needs_before(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert experiment.main(["run", "--work", str(tmp_path)]) == 2
    assert "run the stage 'tune' to its end first" in capsys.readouterr().err
    assert experiment.main(["tune", "--work", str(tmp_path)]) == 2
    assert "run the stage 'start' to its end first" in capsys.readouterr().err


# --- figures -------------------------------------------------------------------------------------


def _result(seed: int, accuracy: float) -> dict[str, Any]:
    figures = {"acc@0.5": accuracy, "miou": accuracy / 2, "answered": 1.0}
    last = {kind: figures for kind in ("all", *held_out.STRATA)}
    return {"job": {"seed": seed}, "evaluations": {"9": {}, "10": last}}


def _write(work: Path, job: plan.Job, accuracy: float) -> None:
    path = plan.result_path(work, job)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(_result(job.seed, accuracy) | {"job": asdict(job)}))


def test_paired_differences_go_seed_by_seed() -> None:
    # Differences of 2, 4, 3 and 3 points: mean 3, standard deviation sqrt(2/3).
    gains = {4: 3, 1: 2, 3: 3, 2: 4}
    results = {
        "none": [_result(seed, 0.5 + seed / 100) for seed in range(1, 5)],
        "exp_normalised": [_result(seed, 0.5 + (seed + g) / 100) for seed, g in gains.items()],
    }
    test = summary_module.paired(results, "exp_normalised")
    half = 3.182446 * math.sqrt(2 / 3) / 2  # t of 3 degrees of freedom at 97.5 %
    assert test["seeds"] == 4
    assert 100 * test["difference"] == pytest.approx(3.0)
    assert [100 * v for v in test["interval95"]] == pytest.approx([3 - half, 3 + half], abs=1e-4)
    assert test["p"] == pytest.approx(2 / 16)
    turned = summary_module.paired(results, "none", against="exp_normalised", sign=-1)
    assert turned["difference"] == pytest.approx(0.03)


def test_corrected_p_values_leave_the_primary_contrast_out_of_its_family() -> None:
    seeds = range(1, 11)
    # Gains in all 10 seeds: p = 2/1024; in three seeds: 2/8; in two of three, the third equal: 1/2.
    gains = {
        "exp_normalised": [0.01] * 10, "constant": [0.02] * 10,
        "log": [0.01] * 3, "power": [0.01, 0.01, 0.0],
    }  # fmt: skip
    results = {"none": [_result(seed, 0.5) for seed in seeds]} | {
        arm: [_result(seed, 0.5 + gain) for seed, gain in zip(seeds, values, strict=False)]
        for arm, values in gains.items()
    }
    tests = summary_module._all_paired(results)
    assert "p_holm" not in tests["exp_normalised"]
    corrected = {arm: test["p_holm"] for arm, test in tests.items() if "p_holm" in test}
    assert corrected == pytest.approx({"constant": 3 * 2 / 1024, "log": 0.5, "power": 0.5})
    overlaps = {arm: test["miou"]["p_holm"] for arm, test in tests.items()}
    assert overlaps == pytest.approx(
        {"exp_normalised": 4 * 2 / 1024, "constant": 4 * 2 / 1024, "log": 0.5, "power": 0.5}
    )
    assert not any("p" in test[kind] for test in tests.values() for kind in held_out.STRATA)


def test_what_training_saw_is_a_mean_over_seeds_and_prompts() -> None:
    curve: dict[str, Any] = {"share_0.8_1.0": [0.0] * 20 + [0.5] * 20, "no_spread": [0.1] * 40}
    curve |= {"pull_0.8_1.0": [0.2, None] * 10 + [0.4] * 20}
    results = [{"curve": curve | {"grad_norm": [norm] * 40}} for norm in (0.5, 1.5)]
    expected = {"clipped": 0.5, "no_spread": 0.1, "easy_first": 0, "easy_last": 0.5}
    expected |= {"easy_pull_first": 0.2, "easy_pull_last": 0.4}
    assert summary_module._training(results) == pytest.approx(expected)


def test_the_rate_is_chosen_by_the_mean_of_both_arms(tmp_path: Path) -> None:
    accuracies = {2e-5: (0.5, 0.6), 6e-5: (0.4, 0.8), 2e-4: (0.9, 0.1)}
    for rate, values in accuracies.items():
        for arm, value in zip(plan.MAIN_ARMS, values, strict=True):
            _write(tmp_path, plan.Job("tune", "fresh", arm, plan.TUNING_SEED, rate), value)
    assert experiment.tune(tmp_path, "fresh", 1) == 6e-5
    assert plan.read_json(tmp_path, "rate-fresh", "tune") == 6e-5


def test_finished_runs_are_not_trained_again(tmp_path: Path) -> None:
    jobs = [plan.Job("final", "fresh", "none", seed, 1e-4) for seed in (1, 2)]
    for job in jobs:
        _write(tmp_path, job, 0.5)
    experiment._work_off(tmp_path, jobs, 1)
    plan.result_path(tmp_path, jobs[1]).unlink()
    with pytest.raises(
        UserError, match=r"start\.json is missing"
    ):  # what is left has to be trained
        experiment._work_off(tmp_path, jobs, 1)


@pytest.mark.parametrize("series", plan.POOLS)
def test_the_committed_summary_follows_from_the_committed_runs(series: str) -> None:
    whole = json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))
    raw = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))
    stored, final = whole["series"][series], raw["final"][series]
    assert whole["steps"] == plan.STEPS
    for arm, seeds in plan.arms_of(series).items():
        assert [run["job"]["seed"] for run in final[arm]] == list(seeds)
        assert {run["job"]["learning_rate"] for run in final[arm]} == {stored["learning_rate"]}
    for arm, figures in stored["variants"].items():
        for name in ("acc@0.5", "miou"):
            assert figures[name] == [
                run["evaluations"][str(plan.STEPS)]["all"][name] for run in final[arm]
            ]
    differences = np.subtract(
        stored["variants"][plan.PRIMARY]["acc@0.5"],
        stored["variants"][plan.BASELINE]["acc@0.5"],
    )
    assert stored["primary"]["difference"] == pytest.approx(differences.mean())
    half = 2.262157 * differences.std(ddof=1) / math.sqrt(10)  # t of 9 degrees of freedom
    assert stored["primary"]["interval95"] == pytest.approx(
        [differences.mean() - half, differences.mean() + half], abs=1e-6
    )
    in_samples = np.rint(differences * whole["samples"]).astype(int).tolist()
    patterns = [
        abs(sum(sign * d for sign, d in zip(signs, in_samples, strict=True)))
        for signs in itertools.product((1, -1), repeat=10)
    ]
    as_far = sum(far >= abs(sum(in_samples)) for far in patterns)
    assert stored["primary"]["p"] == pytest.approx(as_far / 1024)
    tuning = raw["tuning"][series]
    means = {float(rate): np.mean([*arms.values()]) for rate, arms in tuning.items()}
    assert means[stored["learning_rate"]] == max(means.values())
    assert stored["training"][plan.BASELINE]["easy_first"] >= 1 / 3  # the premise


def test_the_page_shows_the_committed_run_of_the_recipe() -> None:
    page = (FOLDER / "README.md").read_text()
    stages = json.loads((FOLDER / "recipe.json").read_text())["stages"]
    found = [stages[0]["before"], *(stage["after"] for stage in stages)]
    rows = re.findall(r"^\| (?:start|direct|chains|GRPO) \|.*\|$", page, re.MULTILINE)
    for row, figures in zip(rows, found, strict=True):
        accuracy, low, high = (100 * x for x in (figures["acc@0.5"], *figures["interval95"]))
        assert row.endswith(f"| {accuracy:.1f} | {low:.1f} to {high:.1f} |")
