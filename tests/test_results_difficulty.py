"""The experiment on difficulty weighting: its scenes, its arms, its figures."""

from __future__ import annotations

import itertools
import json
import math
import sys
from dataclasses import asdict, replace
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
import scenes  # noqa: E402
import start  # noqa: E402
import summary as summary_module  # noqa: E402

from univg_eval.boxes import box_iou  # noqa: E402
from univg_eval.dialects import get_dialect  # noqa: E402
from univg_eval.errors import UserError  # noqa: E402
from univg_eval.protocols import parse_answer  # noqa: E402
from univg_train.difficulty import DifficultyWeight  # noqa: E402
from univg_train.grpo.trainer import PAPER_SETTINGS, DifficultyGRPOTrainer  # noqa: E402
from univg_train.rewards import make_rewards  # noqa: E402
from univg_train.tiny.model import IMAGE_SIDE  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("easy", "hard")


# --- scenes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_has_one_meaning_and_objects_that_lie_apart(kind: scenes.Kind) -> None:
    for index in range(200):
        question = scenes.draw_question(kind, 7, index)
        objects = question.scene.objects
        assert len(objects) == {"easy": 1, "hard": 2}[kind]
        assert len({thing.color for thing in objects}) == len(objects)
        assert question.target in objects
        assert question.target.color in question.text
        for thing in objects:
            assert 0 <= thing.box[0] < thing.box[2] <= 1
            assert 0 <= thing.box[1] < thing.box[3] <= 1
        if kind == "hard":
            assert box_iou(objects[0].box, objects[1].box) == 0


def test_the_same_number_gives_the_same_question_and_others_differ() -> None:
    assert scenes.draw_question("hard", 1, 5) == scenes.draw_question("hard", 1, 5)
    drawn = {scenes.draw_question("hard", seed, i).target.box for seed in (1, 2) for i in range(50)}
    assert len(drawn) == 100
    # Coordinates lie on no lattice: 0.25 off a whole pixel on average.
    edges = [scenes.draw_question("easy", 3, i).target.box[0] * 112 for i in range(300)]
    assert 0.2 < np.abs(np.array(edges) - np.round(edges)).mean() < 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_taught_answers_are_read_as_the_target_to_the_rounding(kind: scenes.Kind) -> None:
    for index in range(100):
        question = scenes.draw_question(kind, 9, index)
        for reply in (scenes.say_box(question.target.box), start.chain(question)):
            box = parse_answer(reply, get_dialect("qwen2_vl")).box
            assert box is not None
            assert np.abs(np.subtract(box, question.target.box)).max() <= 0.005 + 1e-9


def test_tuning_and_measuring_use_other_scenes_than_training() -> None:
    used = [*plan.SEEDS, *plan.TUNING_SEEDS, start.StartSettings().seed]
    assert len(set(used)) == len(used)
    assert not {held_out.HELD_OUT_SEED, plan.TUNING_SAMPLES_SEED} & set(used)


# --- arms ----------------------------------------------------------------------------------------


MEANS = np.array([0.0, 0.25, 0.5, 0.9])
NO_FLAT = np.zeros(4, dtype=bool)


def test_weights_of_arms() -> None:
    rng = np.random.default_rng(0)
    # Permuted: the same numbers in another order.
    expected = np.exp(1 - MEANS) / np.exp(1 - MEANS).mean()
    dealt = [runs.ARMS["permuted"](1.0).weigh(MEANS, NO_FLAT, rng) for _ in range(30)]
    assert all(sorted(weights) == pytest.approx(sorted(expected)) for weights in dealt)
    assert len({tuple(weights) for weights in dealt}) > 10
    # Without flat prompts: divided by the others alone.
    arm = runs.ARMS["spread_only"](1.0)
    weights = arm.weigh(MEANS, np.array([True, False, False, True]), rng)
    assert weights.tolist() == [0.0, 2.0, 2.0, 0.0]
    assert arm.weigh(MEANS, ~NO_FLAT, rng).tolist() == [0.0] * 4


def test_every_arm_is_what_its_name_says() -> None:
    names = {*plan.MAIN_ARMS, *plan.OTHER_ARMS, "reasoning"}
    assert set(runs.ARMS) == names
    made = {name: make(1.7) for name, make in runs.ARMS.items()}
    assert made["constant"].weight == DifficultyWeight("constant", value=1.7)
    assert made["exp_normalised"].weight == DifficultyWeight("exp", normalize=True)
    for name in ("exp", "power", "log", "none"):
        assert made[name].weight == DifficultyWeight(name)
    assert [name for name, arm in made.items() if not arm.group_std] == ["no_group_std"]
    assert [name for name, arm in made.items() if arm.style == "think"] == ["reasoning"]


# --- a run ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("difficulty")
    settings = start.StartSettings(one_steps=2, mixed_steps=1, one_rows=4, mixed_rows=4, warmup=1)
    start.train_start(settings, folder / "start")
    return folder


@pytest.fixture
def model(work: Path) -> Qwen2VLForConditionalGeneration:
    return Qwen2VLForConditionalGeneration.from_pretrained(work / "start").eval()


@pytest.fixture(scope="module")
def processor(work: Path) -> Any:
    return AutoProcessor.from_pretrained(work / "start", padding_side="left")


def image_of(question: scenes.Question) -> Image.Image:
    return Image.fromarray(scenes.draw_images([question.scene], IMAGE_SIDE)[0])


def message(question: scenes.Question, style: str) -> list[dict[str, Any]]:
    text = rollouts.question_with_suffix(question, style)
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def model_inputs(processor: Any, question: scenes.Question, style: str) -> Any:
    text = processor.apply_chat_template(message(question, style), add_generation_prompt=True)
    return processor(images=[image_of(question)], text=[text], return_tensors="pt")


@pytest.mark.parametrize("arm", ["exp_normalised", "permuted"])
def test_a_run_repeats_and_measures_before_and_after(work: Path, arm: str) -> None:
    settings = runs.RunSettings(seed=5, learning_rate=1e-3, steps=2, prompts=2, evaluate_every=1)
    samples = held_out.HeldOut(4)
    first, second = (runs.train_run(work / "start", arm, None, settings, samples) for _ in range(2))
    assert sorted(first["evaluations"]) == [0, 1, 2]
    assert len(first["curve"]["miou"]) == 2
    assert first["curve"] == second["curve"]
    assert first["evaluations"] == second["evaluations"]


@pytest.mark.parametrize(
    ("arm_name", "changes"), [("exp_normalised", {}), ("no_group_std", {"scale_rewards": "none"})]
)
def test_loss_and_gradients_are_those_of_the_trainer(
    work: Path, processor: Any, tmp_path: Path, arm_name: str, changes: dict[str, Any]
) -> None:
    arm = runs.ARMS[arm_name](1.0)
    questions = [
        scenes.draw_question(kind, 4, i) for i, kind in enumerate(("easy", "hard", "easy"))
    ]
    rows = [
        {
            "prompt": message(question, "direct"),
            "images": [image_of(question)],
            "solution": list(question.target.box),
            "dialect": "qwen2_vl",
            "style": "direct",
        }
        for question in questions
    ]
    trainer = DifficultyGRPOTrainer(
        str(work / "start"),
        make_rewards(style="direct"),
        GRPOConfig(
            **{
                **PAPER_SETTINGS, **changes, "output_dir": str(tmp_path), "use_cpu": True,
                "bf16": False, "report_to": "none", "remove_unused_columns": False,
                "per_device_train_batch_size": len(rows) * runs.GROUP, "max_completion_length": 14,
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
    torch.manual_seed(0)
    with torch.no_grad():  # away from the reference, so that the KL term counts
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    # Random weights hit no box: some responses are written here, of several IoUs.
    texts = [
        scenes.say_box(tuple(min(1.0, v + 0.01 * i) for v in q.target.box))
        for q in questions
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

    prompts = rollouts.make_prompts(questions, processor.tokenizer, start.SHAPE, "direct")
    batch = runs.grade_batch(
        processor.tokenizer, questions, prompts, tokens, arm, np.random.default_rng(0)
    )
    assert batch.advantages.abs().max() > 0.1
    assert batch.advantages.tolist() == pytest.approx(scored["advantages"].tolist(), abs=1e-5)
    loss, divergence = runs.policy_loss(model, trainer.ref_model, batch)
    assert divergence > 1e-3
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-3)


def test_sampled_rollouts_follow_the_models_probabilities(model: Any, processor: Any) -> None:
    question = scenes.draw_question("hard", 8, 0)
    prompts = rollouts.make_prompts([question], processor.tokenizer, start.SHAPE, "direct")
    drawn = rollouts.generate(
        model, prompts, start.SHAPE, rollouts=3000, max_new_tokens=1, top_k=5,
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    logits, _, _ = rollouts.completion_logits(model, prompts, [[0]], start.SHAPE)
    values, ids = logits[0].detach().topk(5)
    shares = [sum(ids_[0] == int(i) for ids_ in drawn) / 3000 for i in ids]
    assert shares == pytest.approx(values.softmax(dim=0).tolist(), abs=0.04)


def test_greedy_responses_are_those_of_transformers_generate(model: Any, processor: Any) -> None:
    questions = [scenes.draw_question("hard", 8, i) for i in range(3)]
    prompts = rollouts.make_prompts(questions, processor.tokenizer, start.SHAPE, "think")
    mine = rollouts.generate(model, prompts, start.SHAPE, rollouts=1, max_new_tokens=6)
    for question, ids in zip(questions, mine, strict=True):
        inputs = model_inputs(processor, question, "think")
        output = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        assert output[0, inputs["input_ids"].shape[1] :].tolist()[: len(ids)] == ids


def test_more_supervision_has_the_mean_loss_of_the_responses_tokens(
    work: Path, model: Any, processor: Any
) -> None:
    settings = runs.RunSettings(seed=5, learning_rate=1e-3, steps=2, prompts=1, evaluate_every=2)
    result = runs.train_more(work / "start", settings, held_out.HeldOut(2))
    assert sorted(result["evaluations"]) == [0, 2]

    loss, tokens = 0.0, 0
    # 5 times 43 tokens and 8 responses of 10 are 615 tokens; 3 times 43 and 10 are 159: 4 of them.
    for index, hard in enumerate(np.random.default_rng([5, 0]).random(4) < 0.5):
        question = scenes.draw_question(KINDS[int(hard)], 5, index)
        inputs = model_inputs(processor, question, "direct")
        text = scenes.say_box(question.target.box)
        own = [*processor.tokenizer.encode(text), model.config.eos_token_id]
        ids = torch.cat([inputs["input_ids"], torch.tensor([own])], dim=1)
        kinds = (ids == model.config.image_token_id).int()
        inputs |= {"input_ids": ids, "attention_mask": ids.new_ones(ids.shape)}
        logits = model(**{**inputs, "mm_token_type_ids": kinds}).logits[0, -len(own) - 1 : -1]
        loss += float(torch.nn.functional.cross_entropy(logits, torch.tensor(own))) * len(own)
        tokens += len(own)
    assert result["curve"]["loss"][0] == pytest.approx(loss / tokens, abs=2e-5)


def test_a_stage_says_what_it_needs_before(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert experiment.main(["run", "--work", str(tmp_path)]) == 2
    assert "run the stage 'tune' first" in capsys.readouterr().err
    assert experiment.main(["tune", "--work", str(tmp_path)]) == 2
    assert "run the stage 'start' first" in capsys.readouterr().err


# --- figures -------------------------------------------------------------------------------------


def _result(seed: int, accuracy: float) -> dict[str, Any]:
    figures = {"acc@0.5": accuracy, "miou": accuracy / 2, "answered": 1.0}
    last = {kind: figures for kind in ("all", *KINDS)}
    return {"job": {"seed": seed}, "evaluations": {"0": {}, "9": {}, "10": last}}


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
    assert not any("p" in test[kind] for test in tests.values() for kind in KINDS)


def test_what_training_saw_is_a_mean_over_seeds_and_prompts() -> None:
    curve = {f"share_{share}": [0.25] + [0.0] * 19 for share in ("0.2_0.4", "0.4_0.6", "0.6_0.8")}
    curve |= {"share_0.8_1.0": [0.0] * 10 + [0.5] * 10, "no_spread": [0.1] * 20}
    results = [{"curve": curve | {"grad_norm": [norm] * 20}} for norm in (0.5, 1.5)]
    expected = {"clipped": 0.5, "medium_at_start": 0.75, "no_spread": 0.1}
    expected |= {"easy_first": 0, "easy_last": 0.5}
    assert summary_module._training(results) == pytest.approx(expected)


def test_a_rate_is_chosen_by_the_mean_of_the_tuning_seeds(tmp_path: Path) -> None:
    accuracies = {2e-5: (0.5, 0.6), 6e-5: (0.4, 0.8), 2e-4: (0.9, 0.1)}
    for rate, values in accuracies.items():
        for seed, value in zip(plan.TUNING_SEEDS, values, strict=True):
            _write(tmp_path, plan.Job("tune", "none", seed, rate), value)
    assert experiment._best_rate(tmp_path, "none") == 6e-5


def test_finished_runs_are_not_trained_again(tmp_path: Path) -> None:
    jobs = [plan.Job("final", "none", seed, 1e-4) for seed in (1, 2)]
    for job in jobs:
        _write(tmp_path, job, 0.5)
    experiment._work_off(tmp_path, jobs, 1)
    plan.result_path(tmp_path, jobs[1]).unlink()
    with pytest.raises(UserError, match="holds no start"):  # what is left has to be trained
        experiment._work_off(tmp_path, jobs, 1)


def test_a_run_with_another_mean_weight_is_not_taken_for_this_one(tmp_path: Path) -> None:
    job = plan.Job("final", "constant", 1, 1e-4, mean_weight=1.5)
    _write(tmp_path, job, 0.5)
    with pytest.raises(UserError, match=r"mean_weight': 1\.5.*expected.*mean_weight': 1\.6"):
        summary_module._read_final(tmp_path, replace(job, mean_weight=1.6))


def test_the_committed_summary_follows_from_the_committed_runs() -> None:
    stored = json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))
    raw = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))
    assert stored["steps"] == plan.STEPS
    for arm in plan.MAIN_ARMS:
        assert [run["job"]["seed"] for run in raw["final"][arm]] == list(plan.SEEDS)
    for arm, figures in stored["variants"].items():
        for name in ("acc@0.5", "miou"):
            assert figures[name] == [
                run["evaluations"][str(plan.STEPS)]["all"][name] for run in raw["final"][arm]
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
    in_questions = np.rint(differences * stored["primary"]["questions"]).astype(int).tolist()
    patterns = [
        abs(sum(sign * d for sign, d in zip(signs, in_questions, strict=True)))
        for signs in itertools.product((1, -1), repeat=10)
    ]
    as_far = sum(far >= abs(sum(in_questions)) for far in patterns)
    assert stored["primary"]["p"] == pytest.approx(as_far / 1024)
    for arm, rate in stored["learning_rates"].items():
        means = {float(r): np.mean(values) for r, values in raw["tuning"][arm].items()}
        assert means[rate] == max(means.values())
