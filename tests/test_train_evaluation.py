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

import numpy as np
import pytest
import sft_data
import torch
from lmms_data import REPO, make_checkpoint, make_sample, write_images
from processes import run_two
from safetensors.torch import load_file
from sft_data import TRAINER, write
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

import univg_eval
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
    preserved_state,
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
TINY = Path(univg_eval.__file__).parent / "models" / "tiny"
TASKS = ["lisa_val", "diff", "reasoning"]
PIXELS = 168 * 168


def sft_values(root: Path, out: Path, **trainer: Any) -> dict[str, Any]:
    """Evaluated at steps 0, 2 and 3, on what it is trained on: something has to change."""
    own = {"output_dir": str(out), "max_steps": 3, "save_steps": 1, "learning_rate": 1e-2}
    return {
        "model": str(TINY),
        "dialect": "qwen2_vl",
        "style": "direct",
        "min_pixels": PIXELS,
        "max_pixels": PIXELS,
        "data": {
            "form": "samples",
            "file": "univg_mini",
            "root": str(root),
            "check_leaks": [],
            "on_leak": "allow",
        },
        "evaluation": {
            "benchmark": "univg_mini",
            "every": 2,
            "tasks": TASKS,
            "metric": "miou",
            "batch_size": 2,
            "max_new_tokens": 24,
        },
        "trainer": {**TRAINER, **own, **trainer},
    }


def grpo_values(root: Path, out: Path) -> dict[str, Any]:
    """One step on sampled rollouts."""
    # Hot enough that the rollouts of a prompt differ, and something is learnt from them.
    rollouts = {"num_generations": 4, "max_completion_length": 24, "temperature": 2.0}
    values = sft_values(root, out, max_steps=1, per_device_train_batch_size=8, **rollouts)
    values["evaluation"]["every"] = 1
    return values


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """univg_mini with one sample a task."""
    folder = tmp_path_factory.mktemp("data")
    ensure(folder, n=1)
    return folder


class Tiny:
    """The shipped model, and samples of three tasks with one image and more."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = AutoModelForImageTextToText.from_pretrained(TINY)
        self.processor = self.new_processor()
        self.samples = [s for s in load_samples("univg_mini", root=root) if s.task in TASKS]

    def new_processor(self) -> Any:
        return AutoProcessor.from_pretrained(TINY, min_pixels=PIXELS, max_pixels=PIXELS)

    def prompting(self, **changes: Any) -> Prompting:
        return prompting(self.root, **changes)

    def responses(self, model: Any = None, **changes: Any) -> list[str]:
        how = self.prompting(batch_size=2, **changes)
        found = generate_responses(model or self.model, self.processor, self.samples, how)
        assert sorted(found) == list(range(len(self.samples)))
        return [found[position] for position in sorted(found)]

    def share(self, rank: int) -> dict[int, str]:
        how, process = self.prompting(batch_size=1), (rank, 2)
        return generate_responses(
            self.model, self.processor, self.samples, how, process=process, in_step=True
        )


@pytest.fixture(scope="module")
def tiny(root: Path) -> Tiny:
    return Tiny(root)


def prompting(root: Path, **changes: Any) -> Prompting:
    values = {"dialect": QWEN2, "style": "direct", "root": root, "max_new_tokens": 24}
    return Prompting(**(values | changes))


def recorded(record: Any) -> list[str]:
    return [row["response"] for row in record.responses]


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


def plan_of(settings: Any, tiny: Tiny, out: Path) -> Any:
    known = {"model": "", "processor": tiny.processor, "dialect": "qwen2_vl", "style": None}
    return plan_evaluation(settings, output_dir=out, **known)


def records(out: Path) -> dict[int, Any]:
    return {
        int(path.name.removeprefix("step-")): load_run(path)
        for path in sorted((out / "evaluations").glob("step-*"))
    }


# --- answers ------------------------------------------------------------------------------------


def test_responses_are_what_generate_gives_one_by_one(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        sampling = copy.deepcopy(tiny.model.generation_config)
        sampling.update(do_sample=True, temperature=5.0, num_beams=2, max_new_tokens=1)
        patched.setattr(tiny.model, "generation_config", sampling)
        responses = tiny.responses()
    assert len({len(sample.images) for sample in tiny.samples}) > 1  # batches are padded
    for response, sample in zip(responses, tiny.samples, strict=True):
        content = [{"type": "image", "image": image} for image in open_images(sample, tiny.root)]
        text = f"{sample.instruction.rstrip()} {QWEN2.prompt_suffix.strip()}".rstrip()
        turn = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
        inputs = tiny.processor.apply_chat_template(
            turn, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        with torch.no_grad():
            output = tiny.model.generate(**inputs, max_new_tokens=24, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert response == tiny.processor.decode(new, skip_special_tokens=True)


def test_shares_of_processes_are_all_samples(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, the second without a sample of its own in the second batch."""
    whole = tiny.responses()
    passes: list[int] = []
    forward = tiny.model.generate

    def counted(**inputs: Any) -> Any:
        passes.append(1)
        return forward(**{**inputs, "synced_gpus": False})

    monkeypatch.setattr(tiny.model, "generate", counted)
    parts = tiny.share(0), tiny.share(1)
    assert parts[0] | parts[1] == dict(enumerate(whole))
    assert [len(part) for part in parts] == [2, 1]
    assert len(passes) == 2 * 2  # as many in each process, or those with more would wait forever


def test_nothing_is_left_changed(tiny: Tiny) -> None:
    model, tokenizer = tiny.model, tiny.processor.tokenizer
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    model.train()
    tower = model.get_encoder(modality="image").eval()

    def state() -> list[Any]:
        numbers = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()
        modes = [module.training for module in model.modules()]
        rest = tokenizer.padding_side, model.config.text_config.use_cache
        return [*numbers, random.getstate(), modes, rest]

    before = state()
    with preserved_state(model):
        evaluate(model, tiny.processor, tiny.samples[:1], tiny.prompting())
        model.eval()
        torch.rand(3), random.random(), np.random.random()
    assert state() == before
    assert model.lm_head.training and not tower.training
    model.eval()


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
    tiny: Tiny, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tokenizer that begins texts, and a template that may do so as well."""
    begin, processor = "<|endoftext|>", tiny.new_processor()
    tokenizer = processor.tokenizer
    tokenizer.bos_token = begin
    number = tokenizer.convert_tokens_to_ids(begin)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, number)]
    )
    if written:
        processor.chat_template = begin + processor.chat_template
    given: list[Any] = []

    def generate(input_ids: Any, **_: Any) -> Any:
        given.extend(input_ids.tolist())
        return input_ids

    monkeypatch.setattr(tiny.model, "generate", generate)
    generate_responses(tiny.model, processor, tiny.samples[:1], tiny.prompting())
    assert given[0].count(number) == 1 and given[0][0] == number


def test_gradient_checkpointing_is_put_back_as_it_was(tiny: Tiny) -> None:
    """Of every second layer; to switch it on anew would do so for all."""
    accelerator = SimpleNamespace(
        unwrap_model=lambda model: model, state=SimpleNamespace(deepspeed_plugin=None)
    )
    trainer = SimpleNamespace(
        model=tiny.model,
        model_wrapped=tiny.model,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        accelerator=accelerator,
    )
    if renamed := hasattr(tiny.model, "activation_checkpointing_enable"):  # transformers 5.23
        tiny.model.activation_checkpointing_enable(every_n_layers=2)
    else:
        tiny.model.gradient_checkpointing_enable()

    def state() -> list[Any]:
        return [
            (getattr(module, "gradient_checkpointing", None), len(module._forward_hooks))
            for module in tiny.model.modules()
        ]

    before = state()
    try:
        with generating(trainer) as model:
            assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        assert state() == before
    finally:
        name = "activation" if renamed else "gradient"
        getattr(tiny.model, f"{name}_checkpointing_disable")()
        tiny.model.disable_input_require_grads()


def test_what_one_process_cannot_read_is_reported_by_all(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for answers that do not come."""
    two = SimpleNamespace(process_index=0, num_processes=2)
    outcomes: dict[str, Any] = {}
    gathered: list[Any] = []

    def generated(*_: Any, **__: Any) -> dict[int, str]:
        if outcomes["own"] is None:
            raise UserError("sample 'a': no such file")
        return outcomes["own"]

    def gather(own: list[Any]) -> list[Any]:
        gathered.append(own)
        return [*own, *outcomes["others"].pop(0)]

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    monkeypatch.setattr(generation, "generate_responses", generated)
    for own, problems, named in (
        ({0: "(1,2),(3,4)"}, ["sample 'b': no such file"], "sample 'b'"),
        (None, [], "sample 'a'"),
    ):
        outcomes |= {"own": own, "others": [[(1, "")], problems]}
        with pytest.raises(UserError, match=named):
            evaluate(None, None, tiny.samples[:2], tiny.prompting(), accelerator=two)
    assert gathered[2:] == [[], ["sample 'a': no such file"]]


# --- a run --------------------------------------------------------------------------------------


def test_the_scores_are_those_of_the_stored_responses(run: SimpleNamespace, tiny: Tiny) -> None:
    found = records(run.out)
    assert list(found) == [0, 2, 3]
    logged = [line for line in run.log if "eval_univg_mini/miou" in line]
    for record, line in zip(found.values(), logged, strict=True):
        assert [row["id"] for row in record.responses] == [sample.id for sample in tiny.samples]
        scores = [
            score_sample(sample, response, "qwen2_vl")
            for sample, response in zip(tiny.samples, recorded(record), strict=True)
        ]
        assert [(s.iou, s.status) for s in scores] == [
            (score.iou, score.status) for score in record.scores
        ]
        # One sample a task: the unweighted mean of the tasks is the mean.
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
        "dialect": "qwen2_vl", "prompt": "direct", "protocol": "univg", "min_pixels": PIXELS,
        "max_pixels": PIXELS, "control": "none", "media": "images",
    }  # fmt: skip
    assert manifest["model"]["args"]["base"] == str(TINY)
    assert manifest["model"]["args"]["step"] == 2
    greedy = {"max_new_tokens": 24, "do_sample": False, "num_beams": 1}
    assert manifest["generation"].items() >= greedy.items()
    checkpoint = json.loads((TINY / "config.json").read_text("utf-8"))
    generation = manifest["generation"]["generation_config"]
    assert generation["eos_token_id"] == checkpoint["eos_token_id"]
    assert 0 < manifest["wall_time_s"] < 600
    assert "lisa_val" in manifest["results"]["tasks"]


def test_the_best_model_is_kept(run: SimpleNamespace, tiny: Tiny) -> None:
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
    assert own.image_processor.size == tiny.processor.image_processor.size
    assert tiny.responses(model) == recorded(found[best])
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
    for evaluated in (True, False):
        values = grpo_values(root, tmp_path / str(evaluated))
        if not evaluated:
            del values["evaluation"]
        summary = train_grpo(load_grpo_settings(write(tmp_path / "run.yaml", values)))
        ended.append(load_file(Path(summary["model"]) / "model.safetensors"))
        assert ("best" in summary) is evaluated
    assert list(records(tmp_path / "True")) == [0, 1]
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
    run_evaluation, keep = evaluate, evaluation_callback.keep_model

    def counted(*args: Any, **kwargs: Any) -> Any:
        evaluated.append(1)
        return run_evaluation(*args, **kwargs)

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
    """Reported before a model is loaded."""
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


def test_a_run_that_goes_on_knows_what_is_kept(root: Path, tiny: Tiny, tmp_path: Path) -> None:
    """The process died between the two renamings; a worse step must not take that place."""
    plan = plan_of(as_settings(sft_values(root, tmp_path)).evaluation, tiny, tmp_path)
    note = {"step": 2, "metric": "miou", "value": 0.5}
    (tmp_path / ".best-new").mkdir()
    (tmp_path / ".best-new" / NOTE).write_text(json.dumps(note), encoding="utf-8")
    trainer = SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True))
    callback = EvaluationCallback(trainer, tiny.processor, plan)
    assert plan.best() is None
    callback.on_train_begin(None, SimpleNamespace(global_step=2), None)
    assert plan.best() == note | {"model": str(tmp_path / "best")}
    worse, equal, better = ({"macro": {"miou": value}} for value in (0.4, 0.5, 0.6))
    plan.done = {0: worse, 1: equal, 2: equal, 3: equal, 4: better}
    assert [step for step in plan.done if plan.is_best(step)] == [1, 4]  # the earliest of equals


def test_adapters_are_merged_into_the_best_model(root: Path, tiny: Tiny, tmp_path: Path) -> None:
    """Ones that do something from the first step on; recomputing every second layer."""
    checkpointing = {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"every_n_layers": 2},
    }
    values = sft_values(root, tmp_path / "out", max_steps=1, **checkpointing)
    values["lora"] = {"r": 4, "init_lora_weights": False}
    best = train(values, tmp_path)["best"]
    folder = tmp_path / "out" / "best"
    assert not list(folder.glob("**/adapter*"))
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.univg == {"dialect": "qwen2_vl", "prompt": "direct"}
    expected = recorded(records(tmp_path / "out")[best["step"]])
    assert tiny.responses(model) == expected != tiny.responses()


def test_evaluations_of_another_run_are_not_taken_for_ones_own(
    run: SimpleNamespace, root: Path, tmp_path: Path, refused: Any
) -> None:
    """Of a run that died before its first checkpoint: with other settings, or none on record."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "evaluations").symlink_to(run.out / "evaluations")
    values = sft_values(root, out)
    command = ("sft", "--config", write(tmp_path / "run.yaml", values))
    assert "holds evaluations" in refused(*command)
    write(out / "sft.json", {"settings": values, "processes": 1})
    message = refused(*command, "trainer.learning_rate=0.1")
    assert "trainer.learning_rate was 0.01 and is 0.1" in message


def test_records_of_other_samples_are_refused(
    run: SimpleNamespace, root: Path, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "evaluations").symlink_to(run.out / "evaluations")
    settings = as_settings(sft_values(root, tmp_path)).evaluation
    same = plan_of(settings, tiny, tmp_path)
    assert list(same.done) == [0, 2, 3] and same.style_source == "default of the dialect"
    other = settings.model_copy(update={"tasks": TASKS[:2]})
    with pytest.raises(UserError, match="step-000000 is of other samples than 'univg_mini'"):
        plan_of(other, tiny, tmp_path)


def test_two_processes_answer_as_one(run: SimpleNamespace, root: Path, tmp_path: Path) -> None:
    values = sft_values(root, tmp_path / "out", max_steps=1, per_device_train_batch_size=1)
    config = write(tmp_path / "run.yaml", values)
    run_two(sft_data.__file__, str(config), cwd=tmp_path)
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
        ("evaluation.evry=2", "did you mean 'evaluation.every'"),
        ("evaluation={benchmark: univg_mini}", "evaluation.every is missing"),
        ("evaluation.tasks=[]", "evaluation.tasks is []; expected names of tasks"),
        ("evaluation.protocol=univg_r1", "expected one of: univg, univg-r1"),
        ("evaluation.tasks=[lisa, diff]", "names 'lisa'; 'univg_mini' has: "),
        ("evaluation.metric=image_acc", "which not all of these tasks have"),
        ("evaluation.split=train", "has no split 'train'"),
        ("evaluation.benchmark=mig_bench", "Run `univg prepare mig_bench`"),
        ("data.on_leak=refuse", "in an evaluation set"),
    ],
)
def test_mistakes_are_reported_before_a_model_is_loaded(
    root: Path, tmp_path: Path, refused: Any, change: str, match: str
) -> None:
    config = write(tmp_path / "run.yaml", sft_values(root, tmp_path / "out"))
    assert match in refused("sft", "--config", config, change)
    assert not (tmp_path / "out" / "evaluations").exists()


def test_the_samples_are_the_first_of_each_task(tmp_path: Path) -> None:
    write_images(tmp_path, "toy")
    rows = [make_sample("toy", task, i) for i in range(3) for task in ("a", "b")]
    rows.append(make_sample("toy", "a", 9, "val"))
    write_benchmark(rows, benchmark="toy", root=tmp_path)
    chosen = {"benchmark": "toy", "every": 1, "root": str(tmp_path)}
    for change, n, complete in (
        ({}, 7, True),
        ({"per_task": 2}, 4, False),
        ({"split": "test", "tasks": ["a"], "per_task": 5}, 3, False),
    ):
        opened = open_samples(EvaluationSettings(**chosen | change), QWEN2)
        assert (len(opened.samples), opened.complete) == (n, complete)
        assert opened.fingerprint == fingerprint(rows)
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
    with pytest.raises(UserError, match=r"'toy-a-test-1': .* the sample says"):
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
    run: SimpleNamespace, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(root))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert code.count('load_samples("univg_mini")') == 1  # a single one here
    code = code.replace('load_samples("univg_mini")', 'load_samples("univg_mini")[:1]')
    exec(compile(code.replace("runs/stage1", str(run.out)), "page", "exec"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1


def test_the_end_of_a_run_is_reported(
    run: SimpleNamespace, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run is reported again, its best model with it."""
    assert main(["sft", "--config", str(run.out.parent / "run.yaml")]) == 0
    best = run.summary["best"]
    end = f"best: step {best['step']}, miou {best['value']:.3f}, in {run.out / 'best'}"
    assert " ".join(capsys.readouterr().out.split()).endswith(end)  # lines fit the terminal
