"""Evaluation in the loop: same answers, same scores, undisturbed training, the best model kept."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluation_data
import numpy as np
import pytest
import torch
from evaluation_data import PIXELS, TASKS, TINY, grpo_values, sft_values, write
from lmms_data import REPO, make_checkpoint, make_sample, write_images
from processes import run_two
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

from univg_eval.benchmarks.synthetic.mini import ensure
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.runs.record import load_run
from univg_eval.samples import fingerprint, load_samples, write_benchmark
from univg_eval.scoring import score_sample
from univg_train.cli import main
from univg_train.evaluation import callback as evaluation_callback
from univg_train.evaluation import generation
from univg_train.evaluation.callback import EvaluationCallback
from univg_train.evaluation.generation import (
    Prompting,
    evaluate,
    generate_responses,
    generating,
    undisturbed,
)
from univg_train.evaluation.plan import plan_evaluation
from univg_train.evaluation.samples import open_samples
from univg_train.evaluation.settings import EvaluationSettings
from univg_train.grpo.run import train_grpo
from univg_train.grpo.settings import load_grpo_settings
from univg_train.runs.saving import NOTE, finish_replacement, read_note
from univg_train.sft.run import train_sft
from univg_train.sft.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")
QWEN2 = get_dialect("qwen2_vl")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """univg_mini with one question a task."""
    folder = tmp_path_factory.mktemp("data")
    ensure(folder, n=1)
    return folder


@pytest.fixture(scope="module")
def samples(root: Path) -> list[Any]:
    return [s for s in load_samples("univg_mini", root=root) if s.task in TASKS]


@pytest.fixture(scope="module")
def tiny() -> Any:
    return AutoModelForImageTextToText.from_pretrained(TINY)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(TINY, min_pixels=PIXELS, max_pixels=PIXELS)


def prompting(root: Path, **changes: Any) -> Prompting:
    values = {"dialect": QWEN2, "style": "direct", "root": root, "max_new_tokens": 24}
    return Prompting(**(values | changes))


def as_settings(values: dict[str, Any]) -> Any:
    return load_settings(None, [f"{name}={json.dumps(value)}" for name, value in values.items()])


def train(values: dict[str, Any], folder: Path, **more: Any) -> dict[str, Any]:
    return train_sft(load_settings(write(folder / "run.yaml", values)), **more)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A whole run: its folder, summary and log."""
    folder = tmp_path_factory.mktemp("run")

    class Log(TrainerCallback):
        def __init__(self) -> None:
            self.lines: list[dict[str, Any]] = []

        def on_log(self, *_: Any, logs: dict[str, Any], **__: Any) -> None:
            self.lines.append(dict(logs))

    log = Log()
    summary = train(sft_values(root, folder / "out"), folder, callbacks=[log])
    return SimpleNamespace(out=folder / "out", summary=summary, log=log.lines)


def records(out: Path) -> dict[int, Any]:
    return {
        int(path.name.removeprefix("step-")): load_run(path)
        for path in sorted((out / "evaluations").glob("step-*"))
    }


# --- answers ------------------------------------------------------------------------------------


def test_answers_are_what_generate_gives_one_by_one(
    root: Path, samples: list[Any], tiny: Any, processor: Any
) -> None:
    own = tiny.generation_config
    tiny.generation_config = copy.deepcopy(own)
    tiny.generation_config.update(do_sample=True, temperature=5.0, num_beams=2, max_new_tokens=1)
    try:
        answers = generate_responses(tiny, processor, samples, prompting(root, batch_size=3))
    finally:
        tiny.generation_config = own
    assert sorted(answers) == list(range(len(samples)))
    assert len({len(sample.images) for sample in samples}) > 1  # batches are padded
    for position, sample in enumerate(samples):
        content = [{"type": "image", "image": image} for image in open_images(sample, root)]
        text = f"{sample.instruction.rstrip()} {QWEN2.prompt_suffix.strip()}".rstrip()
        turn = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
        inputs = processor.apply_chat_template(
            turn, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        with torch.no_grad():
            output = tiny.generate(**inputs, max_new_tokens=24, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert answers[position] == processor.decode(new, skip_special_tokens=True)


def test_shares_of_processes_are_all_samples(
    root: Path, samples: list[Any], tiny: Any, processor: Any
) -> None:
    """Two processes, the second without a question of its own in the second batch."""
    how = prompting(root, batch_size=1)
    whole = generate_responses(tiny, processor, samples, how)
    passes: list[int] = []
    forward = tiny.generate
    tiny.generate = lambda **inputs: passes.append(1) or forward(**{**inputs, "synced_gpus": False})
    try:
        parts = [
            generate_responses(tiny, processor, samples, how, process=(rank, 2), in_step=True)
            for rank in range(2)
        ]
    finally:
        del tiny.generate
    assert {position: text for part in parts for position, text in part.items()} == whole
    assert [len(part) for part in parts] == [2, 1]
    assert len(passes) == 2 * 2  # as many in each process, or those with more would wait forever


def test_nothing_is_left_changed(root: Path, samples: list[Any], tiny: Any, processor: Any) -> None:
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    tiny.train()
    tower = tiny.get_encoder(modality="image").eval()
    side, cache = processor.tokenizer.padding_side, tiny.config.text_config.use_cache
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    with undisturbed(tiny):
        evaluate(tiny, processor, samples[:1], prompting(root))
        tiny.eval()
        torch.rand(3), random.random(), np.random.random()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()
    assert tiny.training and tiny.lm_head.training and not tower.training
    assert (side, cache) == (processor.tokenizer.padding_side, tiny.config.text_config.use_cache)
    tiny.eval()


def test_pixels_of_the_resized_image(tmp_path: Path) -> None:
    """Each image's input size is written down; another resize than the dialect's is refused."""
    folder = make_checkpoint(tmp_path / "model", "qwen2_5_vl")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    write_images(tmp_path, "toy")
    sample = make_sample("toy", "find", 0)
    limits = {"min_pixels": 784, "max_pixels": 3136}  # of the checkpoint
    how = prompting(tmp_path, dialect=get_dialect("qwen2_5_vl", **limits), max_new_tokens=2)
    result = evaluate(model, processor, [sample], how)
    # Of 64x48 and 128x96: multiples of 28, the second made smaller until its area is 3136.
    assert result.responses[0].input_sizes == [(56, 56), (56, 28)]
    other = prompting(tmp_path, dialect=get_dialect("qwen2_5_vl", max_pixels=12544))
    with pytest.raises(UserError, match="to be resized to"):
        evaluate(model, processor, [sample], other)


@pytest.mark.parametrize("written", [True, False])
def test_the_beginning_of_a_text_stands_once(
    root: Path, samples: list[Any], tiny: Any, written: bool
) -> None:
    """With a tokenizer that begins texts, and a template that may do so as well."""
    begin = "<|endoftext|>"
    processor = AutoProcessor.from_pretrained(TINY, min_pixels=PIXELS, max_pixels=PIXELS)
    tokenizer = processor.tokenizer
    tokenizer.bos_token = begin
    number = tokenizer.convert_tokens_to_ids(begin)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, number)]
    )
    if written:
        processor.chat_template = begin + processor.chat_template
    given: list[Any] = []
    tiny.generate = lambda **inputs: given.append(inputs["input_ids"]) or inputs["input_ids"]
    try:
        generate_responses(tiny, processor, samples[:1], prompting(root))
    finally:
        del tiny.generate
    assert given[0][0].tolist().count(number) == 1 and given[0][0, 0] == number


def test_gradient_checkpointing_is_put_back_as_it_was(tiny: Any) -> None:
    """Of every second layer; to switch it on anew would do so for all."""
    trainer = SimpleNamespace(
        model=tiny,
        model_wrapped=tiny,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        accelerator=SimpleNamespace(
            unwrap_model=lambda model: model, state=SimpleNamespace(deepspeed_plugin=None)
        ),
    )
    tiny.activation_checkpointing_enable(every_n_layers=2)

    def state() -> list[Any]:
        return [
            (getattr(module, "gradient_checkpointing", None), len(module._forward_hooks))
            for module in tiny.modules()
        ]

    before = state()
    try:
        with generating(trainer) as model:
            assert not model.is_activation_checkpointing
        assert state() == before
    finally:
        tiny.activation_checkpointing_disable()
        tiny.disable_input_require_grads()


def test_what_one_process_cannot_read_is_reported_by_all(
    root: Path, samples: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for answers that do not come."""
    two = SimpleNamespace(process_index=0, num_processes=2)
    gathered: list[Any] = []

    def answered(*_: Any, **__: Any) -> dict[int, str]:
        return {0: "(1,2),(3,4)"}

    def fails(*_: Any, **__: Any) -> dict[int, str]:
        raise UserError("sample 'a': no such file")

    def gather(own: list[Any]) -> list[Any]:
        gathered.append(own)
        return [*own, *others.pop(0)]

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    monkeypatch.setattr(generation, "generate_responses", answered)
    others: list[list[Any]] = [[(1, "")], ["sample 'b': no such file"]]
    with pytest.raises(UserError, match="sample 'b'"):
        evaluate(None, None, samples[:2], prompting(root), accelerator=two)
    monkeypatch.setattr(generation, "generate_responses", fails)
    others, gathered[:] = [[(1, "")], []], []
    with pytest.raises(UserError, match="sample 'a'"):
        evaluate(None, None, samples[:2], prompting(root), accelerator=two)
    assert gathered == [[], ["sample 'a': no such file"]]


# --- a run --------------------------------------------------------------------------------------


def test_the_scores_are_those_of_the_stored_responses(
    run: SimpleNamespace, root: Path, samples: list[Any]
) -> None:
    found = records(run.out)
    assert list(found) == [0, 2, 3]
    known = {sample.id: sample for sample in samples}
    logged = [line for line in run.log if "eval_univg_mini/miou" in line]
    for record, line in zip(found.values(), logged, strict=True):
        assert [row["id"] for row in record.responses] == list(known)
        scores = [
            score_sample(known[row["id"]], row["response"], "qwen2_vl") for row in record.responses
        ]
        assert [(s.iou, s.status) for s in scores] == [
            (score.iou, score.status) for score in record.scores
        ]
        # One question a task: the unweighted mean of the tasks is the mean.
        expected = {
            "acc@0.5": np.mean([s.iou >= 0.5 for s in scores]),
            "miou": np.mean([s.iou for s in scores]),
            "answered": np.mean([s.status == "ok" for s in scores]),
        }
        macro = record.manifest.results.macro
        for name, value in expected.items():
            assert macro[name] == pytest.approx(value) == line[f"eval_univg_mini/{name}"]
    losses = [line for line in run.log if "loss" in line]
    assert len(losses) == 3  # an evaluation does not swallow the line of its step


def test_a_record_says_what_was_evaluated(run: SimpleNamespace, root: Path) -> None:
    everything = load_samples("univg_mini", root=root)
    manifest = records(run.out)[2].manifest.to_dict()
    assert manifest["complete"] is False and manifest["n"] == 3
    assert manifest["dataset"]["fingerprint"] == fingerprint(everything)
    assert manifest["dataset"]["n"] == len(everything)
    values = {name: value for name, (value, _) in manifest["settings"].items()}
    assert values == {
        "dialect": "qwen2_vl",
        "prompt": "direct",
        "protocol": "univg",
        "min_pixels": PIXELS,
        "max_pixels": PIXELS,
        "control": "none",
        "media": "images",
    }
    assert manifest["model"]["args"]["base"] == str(TINY)
    assert manifest["model"]["args"]["step"] == 2
    greedy = {"max_new_tokens": 24, "do_sample": False, "num_beams": 1}
    assert manifest["generation"].items() >= greedy.items()
    assert manifest["generation"]["generation_config"]["eos_token_id"] == 1881  # of the checkpoint
    assert 0 < manifest["wall_time_s"] < 600
    assert "lisa_val" in manifest["results"]["tasks"]


def test_the_best_model_is_kept(
    run: SimpleNamespace, root: Path, samples: list[Any], processor: Any
) -> None:
    """It loads, says how it is prompted, and gives the very responses of its step's record."""
    found = records(run.out)
    values = {step: r.manifest.results.macro["miou"] for step, r in found.items()}
    best = max(values, key=lambda step: (values[step], -step))
    assert len(set(values.values())) > 1
    assert run.summary["best"]["step"] == best
    summary = json.loads((run.out / "evaluations" / "summary.json").read_text("utf-8"))
    assert summary["best"] == {
        "step": best, "metric": "miou", "value": values[best], "model": str(run.out / "best"),
    }  # fmt: skip
    assert {entry["step"]: entry["macro"]["miou"] for entry in summary["steps"]} == values
    assert all(set(entry["tasks"]) == set(TASKS) for entry in summary["steps"])
    model = AutoModelForImageTextToText.from_pretrained(run.out / "best")
    assert model.config.univg == {"dialect": "qwen2_vl", "prompt": "direct"}
    own = AutoProcessor.from_pretrained(run.out / "best")
    assert own.image_processor.size == processor.image_processor.size
    again = generate_responses(model, own, samples, prompting(root, batch_size=3))
    assert [again[i] for i in range(len(samples))] == [
        row["response"] for row in found[best].responses
    ]
    assert read_note(run.out / "best")["step"] == best
    config = (run.out / "best" / "config.json").read_bytes()
    assert found[best].manifest.model.config_sha256 == hashlib.sha256(config).hexdigest()


def test_training_is_the_same_without(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By GRPO, whose rollouts are drawn from the random state that an evaluation leaves."""

    def drawing(model: Any, *args: Any, **kwargs: Any) -> Any:
        torch.rand(5), random.random(), np.random.random()
        model.eval()
        return evaluate(model, *args, **kwargs)

    monkeypatch.setattr(evaluation_callback, "evaluate", drawing)
    ended = []
    for name in ("with", "without"):
        values = grpo_values(root, tmp_path / name)
        if name == "without":
            del values["evaluation"]
        config = write(tmp_path / "run.yaml", values)
        summary = train_grpo(load_grpo_settings(config))
        ended.append(load_file(Path(summary["model"]) / "model.safetensors"))
        assert ("best" in summary) is (name == "with")
    assert list(records(tmp_path / "with")) == [0, 1]
    start = load_file(TINY / "model.safetensors")
    assert any(not torch.equal(ended[0][name], start[name]) for name in start)
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in start)


class StoppedError(Exception):
    pass


def test_a_run_that_goes_on_evaluates_nothing_twice(
    run: SimpleNamespace, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the record of the best step, before its model is kept: that one is repeated."""
    values = sft_values(root, tmp_path / "out")
    best = run.summary["best"]["step"]
    evaluated: list[int] = []
    ask, keep = evaluate, evaluation_callback.keep_model

    def counted(*args: Any, **kwargs: Any) -> Any:
        evaluated.append(1)
        return ask(*args, **kwargs)

    def stopped(trainer: Any, *args: Any) -> None:
        if trainer.state.global_step == best:
            raise StoppedError
        keep(trainer, *args)

    monkeypatch.setattr(evaluation_callback, "evaluate", counted)
    monkeypatch.setattr(evaluation_callback, "keep_model", stopped)
    with pytest.raises(StoppedError):
        train(values, tmp_path)
    assert len(evaluated) == [0, 2, 3].index(best) + 1
    kept = read_note(tmp_path / "out" / "best") or {"step": None}
    assert kept["step"] != best
    named = tmp_path / "out" / "evaluations" / "summary.json"
    if best:  # no model is named that is not there
        assert json.loads(named.read_text("utf-8"))["best"]["step"] == kept["step"]
    record = tmp_path / "out" / "evaluations" / f"step-{best:06d}" / "responses.jsonl"
    before = record.stat().st_ino
    monkeypatch.setattr(evaluation_callback, "keep_model", keep)
    summary = train(values, tmp_path)
    assert len(evaluated) == 3 + 1
    assert summary["best"]["step"] == read_note(tmp_path / "out" / "best")["step"] == best
    ended, whole = (
        load_file(Path(s["model"]) / "model.safetensors") for s in (summary, run.summary)
    )
    assert all(torch.equal(ended[name], whole[name]) for name in whole)
    assert record.stat().st_ino != before  # it is of the model that is kept
    for step, found in records(tmp_path / "out").items():
        assert found.responses == records(run.out)[step].responses


def test_a_replacement_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    best, new, old = (tmp_path / name for name in ("best", ".best-new", ".best-old"))
    new.mkdir(), old.mkdir()
    finish_replacement(best)
    assert read_note(best) is None and old.exists()  # the new one was not written to its end
    note = {"step": 3, "metric": "miou", "value": 0.5}
    (new / NOTE).write_text(json.dumps(note), encoding="utf-8")
    finish_replacement(best)
    assert read_note(best) == note
    assert not new.exists() and not old.exists()


def test_a_folder_of_something_else_is_not_replaced(root: Path, tmp_path: Path) -> None:
    """Told before a model is loaded."""
    best = tmp_path / "out" / "best"
    best.mkdir(parents=True)
    values = sft_values(root, tmp_path / "out")
    write(
        tmp_path / "out" / "sft.json",
        {"settings": as_settings(values).model_dump(), "processes": 1},
    )
    for note in (None, "[]", '{"step": 3}'):
        if note is not None:
            (best / NOTE).write_text(note, encoding="utf-8")
        with pytest.raises(UserError, match="not the best model of this run"):
            train_sft(as_settings(values))
    assert not (tmp_path / "out" / "evaluations").exists()


def test_a_run_that_goes_on_knows_what_is_kept(root: Path, processor: Any, tmp_path: Path) -> None:
    """The process died between the two renamings; a worse step must not take that place."""
    plan = plan_evaluation(
        as_settings(sft_values(root, tmp_path)).evaluation,
        model="",
        processor=processor,
        dialect="qwen2_vl",
        style="direct",
        output_dir=tmp_path,
    )
    note = {"step": 2, "metric": "miou", "value": 0.5}
    (tmp_path / ".best-new").mkdir()
    (tmp_path / ".best-new" / NOTE).write_text(json.dumps(note), encoding="utf-8")
    trainer = SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True))
    callback = EvaluationCallback(trainer, processor, plan)
    assert plan.best() is None
    callback.on_train_begin(None, SimpleNamespace(global_step=2), None)
    assert plan.best() == note | {"model": str(tmp_path / "best")}
    worse, equal, better = ({"macro": {"miou": value}} for value in (0.4, 0.5, 0.6))
    plan.done = {0: worse, 1: equal, 2: equal, 3: equal, 4: better}
    assert [step for step in plan.done if plan.is_best(step)] == [1, 4]  # the earliest of equals


def test_adapters_are_merged_into_the_best_model(
    root: Path, samples: list[Any], tiny: Any, processor: Any, tmp_path: Path
) -> None:
    """Ones that do something from the first step on; recomputing every second layer."""
    values = sft_values(
        root,
        tmp_path / "out",
        max_steps=1,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"every_n_layers": 2},
    )
    values["lora"] = {"r": 4, "init_lora_weights": False}
    best = train(values, tmp_path)["best"]
    folder = tmp_path / "out" / "best"
    assert not list(folder.glob("**/adapter*"))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.univg == {"dialect": "qwen2_vl", "prompt": "direct"}
    answers = generate_responses(model, processor, samples, prompting(root, batch_size=2))
    recorded = [row["response"] for row in records(tmp_path / "out")[best["step"]].responses]
    assert [answers[i] for i in range(len(samples))] == recorded
    first = generate_responses(tiny, processor, samples, prompting(root, batch_size=2))
    assert [first[i] for i in range(len(samples))] != recorded


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_evaluations_of_another_run_are_not_taken_for_ones_own(
    run: SimpleNamespace, root: Path, tmp_path: Path, method: str
) -> None:
    """Of a run that died before its first checkpoint: with other settings, or none on record."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluations").symlink_to(run.out / "evaluations")
    values = {"sft": sft_values, "grpo": grpo_values}[method](root, out)
    settings = {"sft": load_settings, "grpo": load_grpo_settings}[method]
    begin = {"sft": train_sft, "grpo": train_grpo}[method]
    config = write(tmp_path / "run.yaml", values)
    with pytest.raises(UserError, match="holds evaluations"):
        begin(settings(config))
    write(out / f"{method}.json", {"settings": values, "processes": 1})
    with pytest.raises(UserError, match=r"trainer\.learning_rate was 0\.001 and is 0\.1"):
        begin(settings(config, ["trainer.learning_rate=0.1"]))


def test_records_of_other_samples_are_refused(
    run: SimpleNamespace, root: Path, processor: Any, tmp_path: Path
) -> None:
    (tmp_path / "evaluations").symlink_to(run.out / "evaluations")
    settings = as_settings(sft_values(root, tmp_path)).evaluation
    plan = {"model": "", "processor": processor, "dialect": "qwen2_vl", "style": None}
    same = plan_evaluation(settings, output_dir=tmp_path, **plan)
    assert list(same.done) == [0, 2, 3] and same.style_source == "default of the dialect"
    other = settings.model_copy(update={"tasks": TASKS[:2]})
    with pytest.raises(UserError, match="step-000000 is of other samples than 'univg_mini'"):
        plan_evaluation(other, output_dir=tmp_path, **plan)


def test_two_processes_answer_as_one(run: SimpleNamespace, root: Path, tmp_path: Path) -> None:
    values = sft_values(root, tmp_path / "out", max_steps=1, per_device_train_batch_size=1)
    config = write(tmp_path / "run.yaml", values)
    run_two(evaluation_data.__file__, str(config), cwd=tmp_path)
    found = records(tmp_path / "out")
    assert list(found) == [0, 1]
    assert found[0].responses == records(run.out)[0].responses
    assert found[0].manifest.model.args["processes"] == 2
    assert read_note(tmp_path / "out" / "best") is not None


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("evaluation.every=0", "evaluation.every is 0; expected at least 1"),
        ("evaluation.per_task=0", "evaluation.per_task is 0; expected at least 1"),
        ("evaluation.every=two", "evaluation.every is 'two'; expected a whole number"),
        ("evaluation.evry=2", "did you mean 'evaluation.every'"),
        ("evaluation={benchmark: univg_mini}", "evaluation.every is missing"),
        ("evaluation=univg_mini", "evaluation is 'univg_mini'; expected"),
        ("evaluation.tasks=[]", "evaluation.tasks is []; expected names of tasks"),
        ("evaluation.protocol=univg_r1", "expected one of: univg, univg-r1"),
        ("evaluation.tasks=[lisa, diff]", "names 'lisa'; 'univg_mini' has: "),
        ("evaluation.metric=acc@0.4", "evaluation.metric is 'acc@0.4'"),
        ("evaluation.metric=image_acc", "which not all of these tasks have"),
        ("evaluation.split=train", "has no split 'train'"),
        ("evaluation.benchmark=mig_bench", "Run `univg prepare mig_bench`"),
        ("data.on_leak=refuse", "show what an evaluation set asks"),
    ],
)
def test_mistakes_are_reported_before_a_model_is_loaded(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    match: str,
) -> None:
    import transformers

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", loaded)
    config = write(tmp_path / "run.yaml", sft_values(root, tmp_path / "out"))
    assert main(["sft", "--config", str(config), change]) == 2
    printed = capsys.readouterr()
    assert match in printed.err and printed.out == "" and "Traceback" not in printed.err
    assert not (tmp_path / "out" / "evaluations").exists()


def test_the_samples_are_the_first_of_each_task(tmp_path: Path) -> None:
    write_images(tmp_path, "toy")
    rows = [make_sample("toy", task, i) for i in range(3) for task in ("a", "b")]
    rows.append(make_sample("toy", "a", 9, "val"))
    write_benchmark(rows, benchmark="toy", root=tmp_path)
    chosen = {"benchmark": "toy", "every": 1, "root": str(tmp_path)}
    table = [
        ({}, 7, True),
        ({"per_task": 2}, 4, False),
        ({"tasks": ["b"]}, 3, False),
        ({"split": "test", "tasks": ["a"], "per_task": 5}, 3, False),
    ]
    for change, n, complete in table:
        questions = open_samples(EvaluationSettings(**chosen | change), QWEN2)
        assert (len(questions.samples), questions.complete) == (n, complete)
        assert questions.fingerprint == fingerprint(rows)
    first = open_samples(EvaluationSettings(**chosen | {"per_task": 1}), QWEN2)
    assert [s.id for s in first.samples] == ["toy-a-test-0", "toy-b-test-0"]


def test_samples_that_cannot_be_read_are_reported_before_a_model_is_loaded(tmp_path: Path) -> None:
    write_images(tmp_path, "toy")
    rows = [make_sample("toy", "a", i) for i in range(2)]
    settings = EvaluationSettings(benchmark="toy", every=1, root=str(tmp_path))
    write_benchmark(rows, benchmark="toy", root=tmp_path)
    assert len(open_samples(settings, QWEN2).samples) == 2
    wide = dataclasses.replace(rows[1], widths=tuple(width + 1 for width in rows[1].widths))
    write_benchmark([rows[0], wide], benchmark="toy", root=tmp_path)
    with pytest.raises(UserError, match=r"'toy-a-test-1': .* pixels, the sample says"):
        open_samples(settings, QWEN2)
    unknown = [dataclasses.replace(row, widths=(), heights=()) for row in rows]
    write_benchmark(unknown, benchmark="toy", root=tmp_path)
    assert len(open_samples(settings, QWEN2).samples) == 2
    with pytest.raises(UserError, match="the size of its images is not known"):
        open_samples(settings, get_dialect("qwen2_5_vl"))
    for name in dict.fromkeys(rows[0].images):
        (tmp_path / name).unlink()
    with pytest.raises(UserError, match="does not exist"):
        open_samples(settings, QWEN2)


def test_univg_mini_is_generated_where_there_is_none_of_this_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.benchmarks.synthetic import mini

    made_with: list[dict[str, int]] = []

    def one_each(root: Any, **options: int) -> None:
        made_with.append(options)
        ensure(root, **(options or {"n": 1}))

    monkeypatch.setattr(mini, "ensure", one_each)
    raw = {"benchmark": "univg_mini", "every": 1, "root": str(tmp_path)}
    made = open_samples(EvaluationSettings(**raw), QWEN2)
    assert len(made.samples) == 15 and made_with == [{}]
    older = [dataclasses.replace(sample, instruction="Where?") for sample in made.samples]
    manifest = json.loads((tmp_path / "univg_mini" / "manifest.json").read_text("utf-8"))
    made_by = {"generator": manifest["generator"] | {"version": 0}}
    write_benchmark(older, benchmark="univg_mini", root=tmp_path, manifest_extra=made_by)
    again = open_samples(EvaluationSettings(**raw), QWEN2)
    assert again.fingerprint == made.fingerprint
    assert made_with[1] == {"n": 1, "seed": manifest["generator"]["seed"]}


# --- the page -----------------------------------------------------------------------------------

PAGE = (REPO / "docs" / "training_evaluation.md").read_text(encoding="utf-8")


def test_the_page_names_every_key() -> None:
    table = PAGE[PAGE.index("| key |") : PAGE.index("All of it is checked")]
    named = {
        name
        for row in table.splitlines()[2:]
        if row
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    assert named == set(EvaluationSettings.model_fields)


def test_the_example_of_the_page(
    run: SimpleNamespace,
    root: Path,
    samples: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """On a single question."""
    write_benchmark(samples[:1], benchmark="univg_mini", root=tmp_path)
    for name in samples[0].images:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(code.replace("runs/stage1", str(run.out)), "page", "exec"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1


def test_the_end_of_a_run_is_reported(
    run: SimpleNamespace, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run is reported again, its best model with it."""
    assert main(["sft", "--config", str(run.out.parent / "run.yaml")]) == 0
    best = run.summary["best"]
    end = f"best: step {best['step']}, miou {best['value']:.3f}, in {run.out / 'best'}"
    assert capsys.readouterr().out.rstrip().endswith(end)
