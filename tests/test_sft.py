"""Supervised fine-tuning: the loss is on the answer alone, runs go on, mistakes are told early."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sft_data
import torch
import yaml
from grpo_data import make_text_checkpoint
from lmms_data import REPO
from safetensors.torch import load_file
from sft_data import ANSWERS, make_config
from training_forms import MGROUNDING_SIZES, draw, mgrounding_row, stage1_row, write_list
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

from univg_eval.errors import UserError
from univg_train.cli import main
from univg_train.runs.folder import find_checkpoint
from univg_train.sft.run import (
    count_parameters,
    load_data,
    load_processor,
    make_trainer,
    row_length,
    train_sft,
    trainer_arguments,
)
from univg_train.sft.settings import load_settings


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft_data.make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft_data.make_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture
def config(model: Path, rows: Path, tmp_path: Path) -> Path:
    return make_config(tmp_path / "run.yaml", model, rows)


def prepared(config: Path, *overrides: str) -> tuple[Any, Any, Any]:
    """Trainer, processor and dataset as `train_sft` makes them."""
    settings = load_settings(config, overrides)
    arguments = trainer_arguments(settings)
    processor = load_processor(settings, arguments)
    _, dataset = load_data(settings, processor, arguments.max_length)
    return make_trainer(settings, arguments, processor, dataset), processor, dataset


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(config: Path, model: Path, *overrides: str) -> tuple[set[str], dict[str, Any]]:
    summary = train_sft(load_settings(config, ["trainer.max_steps=1", *overrides]))
    before, after = weights(model), weights(Path(summary["model"]))
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}, summary


def test_only_the_answer_is_learned(config: Path) -> None:
    """Of a batch with padding, the labels are the tokens of the answer and of its end alone."""
    trainer, processor, dataset = prepared(config)
    batch = trainer.data_collator([dataset[i] for i in range(3)])
    pad, image = (
        processor.tokenizer.convert_tokens_to_ids(name)
        for name in ("<|endoftext|>", "<|image_pad|>")
    )
    assert (batch["input_ids"] == pad).any()  # rows of unequal length
    assert ((batch["input_ids"] == image).sum(dim=1) >= 2).all()
    for answer, ids, labels in zip(ANSWERS, batch["input_ids"], batch["labels"], strict=True):
        learned = labels != -100
        assert processor.tokenizer.decode(labels[learned]) == answer + "<|im_end|>\n"
        assert torch.equal(labels[learned], ids[learned])
        text = processor.tokenizer.decode(ids)
        assert text.index("in the second image.") < text.index("<|im_start|>assistant\n" + answer)
        assert not (learned & (ids == image)).any() and not (learned & (ids == pad)).any()


def test_of_a_conversation_the_last_answer_is_learned(config: Path, tmp_path: Path) -> None:
    draw(tmp_path, MGROUNDING_SIZES)
    rows = write_list(tmp_path / "m.json", [row := mgrounding_row()])
    answers = [turn["value"] for turn in row["conversations"] if turn["from"] == "gpt"]
    trainer, processor, dataset = prepared(
        config,
        *("data.form=mgrounding", f"data.file={rows}", "data.history=true"),
        *("dialect=migician", "style=direct"),
    )
    batch = trainer.data_collator([dataset[i] for i in range(2)])
    decode = processor.tokenizer.decode
    assert answers[0] in decode(batch["input_ids"][1])  # asked before, and not learned again
    for answer, labels in zip(answers, batch["labels"], strict=True):
        assert decode(labels[labels != -100]) == answer + "<|im_end|>\n"


def test_the_loss_is_that_of_the_answer(config: Path) -> None:
    """TRL's loss of a batch is the mean over the answers' tokens, computed here by hand.

    Of a step of three batches too: the mean over the tokens of all of them.
    """
    trainer, _, dataset = prepared(
        config,
        *("trainer.per_device_train_batch_size=1", "trainer.gradient_accumulation_steps=3"),
        "trainer.max_steps=1",
    )
    batch = trainer.data_collator([dataset[i] for i in range(3)])
    model = trainer.model.eval()
    with torch.no_grad():
        loss = trainer.compute_loss(model, dict(batch)).item()
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits.double()
    chances = logits.log_softmax(dim=-1)
    tokens = [
        -chances[row, at - 1, label].item()
        for row, labels in enumerate(batch["labels"].tolist())
        for at, label in enumerate(labels)
        if label != -100
    ]
    assert loss == pytest.approx(sum(tokens) / len(tokens), rel=1e-5)
    trainer.train()
    (logged,) = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(sum(tokens) / len(tokens), rel=1e-4)


def test_lengths_are_those_of_the_trainer(config: Path, rows: Path) -> None:
    """Of images of different sizes, and of one that is shown twice."""
    row = json.loads(rows.read_text())[0]
    twice = row | {"images": [row["images"][1]] * 2}
    file = write_list(rows.parent / "twice.json", [row, twice])
    settings = load_settings(config, [f"data.file={file}"])
    processor = load_processor(settings, trainer_arguments(settings))
    data, _ = load_data(settings, processor, None)
    trainer, _, dataset = prepared(config, f"data.file={file}", "trainer.max_length=null")
    for i in range(2):
        batch = trainer.data_collator([dataset[i]])
        assert row_length(data.columns(i), processor, {}) == batch["input_ids"].shape[1]


def test_rows_that_are_too_long(config: Path) -> None:
    settings = load_settings(config)
    processor = load_processor(settings, trainer_arguments(settings))
    data, _ = load_data(settings, processor, None)
    lengths = [row_length(data.columns(i), processor, {}) for i in range(3)]
    limit = max(lengths) - 1
    with pytest.raises(UserError, match=rf"1 of 3 rows have more than max_length={limit} tokens"):
        load_data(settings, processor, limit)
    assert len(load_data(settings, processor, max(lengths))[1]) == 3
    _, dataset = load_data(load_settings(config, ["data.on_long=skip"]), processor, limit)
    kept = {i for i, length in enumerate(lengths) if length <= limit}
    assert {int(row["id"][-6:]) for row in dataset} == kept and len(kept) == 2
    with pytest.raises(UserError, match="all 3 rows have more than max_length=9 tokens"):
        load_data(load_settings(config, ["data.on_long=skip"]), processor, 9)


def test_the_vision_tower_is_frozen_or_not(config: Path, model: Path, tmp_path: Path) -> None:
    names, summary = changed(config, model)
    assert names and not any("visual" in name for name in names)
    assert summary["trainable_parameters"] < summary["parameters"]
    names, summary = changed(
        config, model, "freeze_vision=false", f"trainer.output_dir={tmp_path / 'all'}"
    )
    assert any("visual.blocks" in n for n in names) and any("visual.merger" in n for n in names)
    assert summary["trainable_parameters"] == summary["parameters"]
    kept = AutoModelForImageTextToText.from_pretrained(summary["model"])
    assert kept.config.univg == {"dialect": "univg_r1", "prompt": "think"}
    AutoProcessor.from_pretrained(summary["model"])


@pytest.mark.parametrize("frozen", [True, False])
def test_lora(config: Path, frozen: bool) -> None:
    overrides = ["lora={r: 2, lora_alpha: 4}", f"freeze_vision={frozen}", "trainer.max_steps=1"]
    summary = train_sft(load_settings(config, overrides))
    adapter = load_file(Path(summary["model"]).parent / "adapter" / "adapter_model.safetensors")
    assert sum(weight.numel() for weight in adapter.values()) == summary["trainable_parameters"]
    assert any("language_model" in name for name in adapter)
    assert any("visual" in name for name in adapter) is not frozen
    learned = {name for name in adapter if name.endswith("lora_B.weight") and adapter[name].any()}
    assert len(learned) == len(adapter) // 2  # B begins at zero


def test_killed_and_begun_again(
    config: Path,
    model: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After kill -9 in step 3 of 5 the same command ends at step 5, with the same weights."""
    dying = subprocess.Popen(
        [sys.executable, sft_data.__file__, str(config), "3"],
        env=os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    whole = train_sft(load_settings(make_config(tmp_path / "whole.yaml", model, rows)))
    said, _ = dying.communicate(timeout=240)
    assert dying.returncode == -signal.SIGKILL, said
    run = tmp_path / "run"
    assert find_checkpoint(run) == run / "checkpoint-2"
    capsys.readouterr()
    assert main(["sft", "--config", str(config), "trainer.logging_steps=2"]) == 0  # may change
    (told,) = capsys.readouterr().out.splitlines()
    assert told.startswith("5 steps on 3 rows; ")
    one, other = weights(run / "model"), weights(Path(whole["model"]))
    assert all(torch.equal(one[name], other[name]) for name in other)
    capsys.readouterr()
    assert main(["sft", "--config", str(config), "--json"]) == 0  # finished: nothing is trained
    assert json.loads(capsys.readouterr().out)["steps"] == 5
    monkeypatch.setenv("RANK", "1")
    assert main(["sft", "--config", str(config), "--json"]) == 0
    assert capsys.readouterr().out == ""  # of several processes, the first tells
    assert main(["sft", "--config", str(config), "trainer.max_steps=7"]) == 2
    assert "holds a run with other settings: trainer.max_steps was 5 and is 7" in (
        capsys.readouterr().err
    )
    assert main(["sft", "--config", str(config), "--no-resume"]) == 2
    assert "holds a run already" in capsys.readouterr().err


def test_a_stopped_lora_run_goes_on(config: Path, tmp_path: Path) -> None:
    class Stopped(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                raise InterruptedError

    lora = "lora={r: 2, lora_dropout: 0.5}"
    with pytest.raises(InterruptedError):
        train_sft(load_settings(config, [lora]), callbacks=[Stopped()])
    one, other = (
        train_sft(load_settings(config, [lora, *place]))
        for place in ([], [f"trainer.output_dir={tmp_path / 'whole'}"])
    )
    assert one["steps"] == other["steps"] == 5
    merged = [weights(Path(result["model"])) for result in (one, other)]
    assert all(torch.equal(merged[0][name], merged[1][name]) for name in merged[1])


def test_a_checkpoint_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    states = {2: '{"global_step": 2}', 4: '{"global_', 6: '{"global_step": 2}', 10: None}
    for number, state in states.items():
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert find_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"rows": 4}, "holds a run on 4 rows, and the file has 3 now"),
        ({"rows": 3}, "holds a run on 3 rows that are others now: a text, box or image"),
        ({"processes": 8}, "holds a run of 8 processes, and there are 1 now"),
    ],
)
def test_a_run_on_something_else(
    changes: dict[str, Any], match: str, config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    record = {"settings": load_settings(config).to_dict(), "processes": 1, "data_fingerprint": "0"}
    (run / "sft.json").write_text(json.dumps(record | changes))
    with pytest.raises(UserError, match=match):
        train_sft(load_settings(config))


def test_a_text_that_changed_in_between(config: Path, tmp_path: Path) -> None:
    """The number of rows is the same, and so are all settings."""

    class Stopped(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise InterruptedError

    own = tmp_path / "own"
    file = sft_data.make_rows(own)
    settings = load_settings(config, [f"data.file={file}"])
    with pytest.raises(InterruptedError):
        train_sft(settings, callbacks=[Stopped()])
    file.write_text(file.read_text().replace("(100,200)", "(101,200)"))
    with pytest.raises(UserError, match="on 3 rows that are others now"):
        train_sft(settings)


def test_parameters_that_are_spread_over_processes_are_counted() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    layer.weight.ds_numel = 600  # what DeepSpeed says of a weight of which only a part is here
    assert count_parameters(layer) == (600, 602)


def test_checkpoints_of_something_else(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoint-2"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text('{"global_step": 2}')
    with pytest.raises(UserError, match=r"holds checkpoint-2 without sft\.json"):
        train_sft(load_settings(config))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", True),  # TRL's default
        ("gradient_checkpointing: true", True),
        ("gradient_checkpointing: false", False),
        ("activation_checkpointing: true", True),
        ("{gradient_checkpointing: true, activation_checkpointing: false}", False),
        ("gradient_checkpointing_kwargs: {use_reentrant: false}", True),
    ],
)
def test_renamed_arguments_are_passed_on_without_a_warning(
    given: str, expected: bool, config: Path
) -> None:
    settings = load_settings(config)
    del settings.trainer["gradient_checkpointing"]
    settings.trainer.update(yaml.safe_load(given) or {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments = trainer_arguments(settings)
    assert arguments.gradient_checkpointing is arguments.activation_checkpointing is expected
    assert (arguments.activation_checkpointing_kwargs is None) is ("kwargs" not in given)


def test_pixel_limits_reach_the_processor(config: Path) -> None:
    limits = ("min_pixels=784", "max_pixels=1568")
    _, processor, dataset = prepared(config, *limits)
    sizes = processor(images=dataset[2]["images"], text=["<|image_pad|>"] * 2)["image_grid_thw"]
    assert all(14 * height * 14 * width <= 1568 for _, height, width in sizes)


def test_boxes_in_pixels_are_those_of_the_processor(config: Path, tmp_path: Path) -> None:
    """A box of 0-1000 becomes pixels of the image as the processor resizes it."""
    overrides = ["dialect=qwen2_5_vl", "style=think", "max_pixels=1568"]
    settings = load_settings(config, overrides)
    processor = load_processor(settings, trainer_arguments(settings))
    _, dataset = load_data(settings, processor, None)
    row = dataset[0]  # its box lies on the second image, of 90 x 70 pixels
    _, height, width = processor.image_processor(images=[row["images"][1]])["image_grid_thw"][0]
    expected = [0.1 * 14 * int(width), 0.2 * 14 * int(height)]
    text = row["completion"][0]["content"][0]["text"]
    found = re.search(r"\[(\d+), ?(\d+),", text)
    assert found is not None, text
    numbers = [int(number) for number in found.groups()]
    assert numbers == pytest.approx(expected, abs=1)
    processor.image_processor.patch_size = 16
    settings = load_settings(config, [*overrides, "data.file=/nowhere"])  # told before it is read
    with pytest.raises(UserError, match=r"'qwen2_5_vl' takes an image of \(56, 28\) pixels"):
        load_data(settings, processor, None)


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["dialect=q"], "unknown dialect 'q'"),
        (["model=/nowhere/at/all"], "cannot load the model '/nowhere/at/all'"),
        (["trainer.packing=true"], "trainer.packing=True: rows with images are not packed"),
        (["trainer.completion_only_loss=false"], "neither prompt nor image tokens are learned"),
        (["trainer.learning_rat=1"], "did you mean 'trainer.learning_rate'?"),
        (["trainer.learning_rate=high"], "trainer.learning_rate is 'high'; expected a number"),
        (["trainer.learning_rate='1e-3'"], "trainer.learning_rate is '1e-3'; expected a number"),
        (["trainer.max_steps=ten"], "trainer.max_steps is 'ten'; expected a whole number"),
        (["trainer.bf16=no thanks"], "trainer.bf16 is 'no thanks'; expected bool | None"),
        (["trainer.loss_type=l2"], "trainer.loss_type is 'l2'; expected one of: nll, dft"),
        (["trainer.eval_strategy=steps"], "trainer.eval_strategy: there is no evaluation data"),
        (["trainer.train_sampling_strategy=group_by_length"], "expected one of: random, sequent"),
        (["trainer.chat_template_path=x"], "trainer.chat_template_path: the model's own template"),
        (["trainer.model_init_kwargs={torch_dtype: bfloat16}"], "its name is dtype"),
        (["trainer.save_strategy=never"], "trainer: never is not a valid SaveStrategy"),
        (["freeze_visio=true"], "unknown key 'freeze_visio'; did you mean 'freeze_vision'?"),
        (["max_pixels=big"], "max_pixels is 'big'; expected int | None"),
        (["min_pixels=2000", "max_pixels=1000"], "min_pixels=2000 is above max_pixels=1000"),
        (["data=null"], "data.form is missing; data.file is missing"),
        (["data=3"], "data is 3; expected keys with values"),
        (["data.check_leaks=mig_bench"], "data.check_leaks is 'mig_bench'; expected list[str]"),
        (["data.file=nowhere.json"], "cannot read nowhere.json: No such file"),
        (["data.on_long=cut"], "data.on_long is 'cut'; expected one of: stop, skip"),
        (["style=talk"], "unknown prompt style 'talk'"),
        (["lora={rank: 2}"], "unknown key 'lora.rank'"),
        (["lora={r: 0}"], "lora: `r` should be a positive integer"),
        (["lora={init_lora_weights: pissa_niter_4}"], "drawn anew whenever they are loaded"),
        (["lora={target_modules: [nothing]}"], "lora: No modules were targeted"),
        (["lora={exclude_modules: x}"], "lora.exclude_modules and freeze_vision: true"),
        (["trainer"], "'trainer' is no key=value"),
        (["model.name=x"], "'model.name=x': model is "),
    ],
)
def test_mistakes_are_told_in_one_message(
    overrides: list[str],
    match: str,
    config: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sft", "--config", str(config), *overrides]) == 2
    told = capsys.readouterr()
    (line,) = [line for line in told.err.splitlines() if line.startswith("univg-train sft: ")]
    assert match in line and told.out == ""


def test_all_mistakes_of_a_file_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("modell: x\ndata: {form: 3}\ntrainer: {packing: true}\n")
    with pytest.raises(UserError) as told:
        load_settings(path)
    for part in (
        "'modell'; did you mean 'model'?",
        "data.form is 3",
        "data.file is missing",
        "dialect is missing",
        "trainer.packing",
        "trainer.output_dir is missing",
    ):
        assert part in str(told.value)
    for text, match in (
        ("[1", "is no YAML"),
        ("- 1", "holds list; expected keys with values"),
        ("model: a\nmodel: b\n", "the key 'model' stands twice"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=match):
            load_settings(path)


def test_numbers_without_a_point_are_numbers(config: Path) -> None:
    settings = load_settings(config, ["trainer.learning_rate=5e-6"])
    assert settings.trainer["learning_rate"] == 5e-6


def test_leaks_are_looked_for_by_default(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"no benchmark is prepared .* data\.check_leaks: \[\]"):
        train_sft(load_settings(config, ["data.check_leaks=null"]))


@pytest.mark.parametrize("drop", ["<think>", "<answer>"])
def test_a_template_that_drops_a_part_of_the_answer(config: Path, drop: str) -> None:
    settings = load_settings(config)
    processor = load_processor(settings, trainer_arguments(settings))
    processor.chat_template = sft_data.TEMPLATE.replace(
        "{{ part['text'] }}", f"{{{{ part['text'].split('{drop}')[-1] }}}}"
    )
    with pytest.raises(UserError, match="chat template does not keep its answer as it is"):
        load_data(settings, processor, None)


def test_a_processor_without_limits_of_areas(
    model: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family whose images have one edge: the limit would stay an attribute that nobody reads."""
    from transformers import AutoProcessor, CLIPImageProcessor

    processor = AutoProcessor.from_pretrained(model)
    processor.image_processor = CLIPImageProcessor(max_pixels=1568)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    settings = load_settings(config, ["max_pixels=1568"])
    with pytest.raises(UserError, match=r"max_pixels=1568: the processor of .* no such limit"):
        load_processor(settings, trainer_arguments(settings))


def test_rows_without_images(config: Path, tmp_path: Path) -> None:
    chat = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "(1,2),(3,4)"}]
    bad = write_list(tmp_path / "bad.json", [stage1_row(images=[], conversations=chat)])
    with pytest.raises(UserError, match=r"bad\.json: row 0: .*image"):
        train_sft(load_settings(config, [f"data.file={bad}"]))


def test_a_checkpoint_that_takes_no_images(config: Path, tmp_path: Path) -> None:
    text = make_text_checkpoint(tmp_path / "text")
    with pytest.raises(UserError, match="of type 'qwen2', which takes no images"):
        train_sft(load_settings(config, [f"model={text}"]))


def test_the_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom univg_train.cli import main\n"
        "try:\n    main(['sft', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'trl', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
