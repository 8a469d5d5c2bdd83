"""Supervised fine-tuning: only the answer is learned, runs go on, mistakes are found early."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import sft_data
import torch
from disks import largest_file
from grpo_data import make_text_checkpoint
from lmms_data import REPO
from safetensors.torch import load_file
from sft_data import ANSWERS, make_config
from training_forms import MGROUNDING_SIZES, draw, mgrounding_row, write_list
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    Trainer,
    TrainerCallback,
)

from univg_eval.errors import UserError
from univg_train.cli import main
from univg_train.runs.curves import read_course
from univg_train.runs.folder import find_checkpoint, sole_writer
from univg_train.runs.lengths import RowLengths, row_text
from univg_train.runs.pretrained import lora_config
from univg_train.runs.training import count_parameters
from univg_train.runs.yaml_settings import Section, read_settings
from univg_train.sft.run import (
    check_sft,
    make_trainer,
    sft_arguments,
    train_sft,
)
from univg_train.sft.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft_data.make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft_data.make_rows(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def whole(model: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model at the end of an undisturbed run."""
    path = make_config(tmp_path_factory.mktemp("whole") / "run.yaml", model, rows)
    return Path(train_sft(load_settings(path))["model"])


@pytest.fixture
def config(model: Path, rows: Path, tmp_path: Path) -> Path:
    return make_config(tmp_path / "run.yaml", model, rows)


def prepared(config: Path, *overrides: str) -> tuple[Any, Any, Any]:
    """Trainer, processor and dataset as `train_sft` makes them."""
    settings = load_settings(config, overrides)
    arguments = sft_arguments(settings)
    checked = check_sft(settings, arguments.max_length)
    trainer = make_trainer(settings, arguments, checked)
    return trainer, checked.processor, checked.dataset


def lengths(checked: Any) -> list[int]:
    rows = [checked.data.columns(i) for i in range(len(checked.data))]
    processor = checked.processor
    return [RowLengths(processor).of(row, row_text(row, processor)) for row in rows]


class Stopped(TrainerCallback):
    """Raises at the end of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise InterruptedError


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(one: Path, other: Path) -> None:
    found, expected = weights(one), weights(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


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
    assert answers[0] in decode(batch["input_ids"][1])  # in the prompt, and not learned again
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


def test_steps_are_shown_instead_of_the_trainers_figures(
    config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = list[tuple[int, int, str]]()
    settings = load_settings(config, ["trainer.max_steps=2", f"trainer.output_dir={tmp_path}"])
    summary = train_sft(settings, shown=lambda *step: shown.append(step))
    assert [step[:2] for step in shown] == [(1, 2), (2, 2)]
    assert shown[-1][2] == f"loss {summary['loss']:.3f}"
    assert "{'loss'" not in "".join(capfd.readouterr())
    course = read_course(tmp_path)
    assert course.series("loss")[0] == [1, 2], "the finished run's log is beside its model"


def test_lengths_are_those_of_the_trainer(config: Path, rows: Path) -> None:
    """Of images of different sizes, and of one that is shown twice."""
    row = json.loads(rows.read_text())[0]
    twice = row | {"images": [row["images"][1]] * 2}
    file = write_list(rows.parent / "twice.json", [row, twice])
    checked = check_sft(load_settings(config, [f"data.file={file}"]), None)
    trainer, _, dataset = prepared(config, f"data.file={file}", "trainer.max_length=null")
    batches = [trainer.data_collator([dataset[i]]) for i in range(2)]
    assert lengths(checked) == [batch["input_ids"].shape[1] for batch in batches]


def test_rows_that_are_too_long(config: Path) -> None:
    settings = load_settings(config)
    found = lengths(check_sft(settings, None))
    limit = max(found) - 1
    with pytest.raises(UserError, match=rf"1 of 3 rows have more than max_length={limit} tokens"):
        check_sft(settings, limit)
    assert len(check_sft(settings, max(found)).dataset) == 3
    skipping = load_settings(config, ["data.on_long=skip"])
    kept = {i for i, length in enumerate(found) if length <= limit}
    assert {int(row["id"][-6:]) for row in check_sft(skipping, limit).dataset} == kept
    assert len(kept) == 2
    with pytest.raises(UserError, match="all 3 rows have more than max_length=9 tokens"):
        check_sft(skipping, 9)


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
    whole: Path,
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
    said, _ = dying.communicate(timeout=240)
    assert dying.returncode == -signal.SIGKILL, said
    run = tmp_path / "run"
    assert find_checkpoint(run) == run / "checkpoint-2"
    capsys.readouterr()
    assert main(["sft", "--config", str(config), "trainer.logging_steps=2"]) == 0  # may change
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("5 steps on 3 rows; ")
    assert_same_weights(run / "model", whole)
    capsys.readouterr()
    assert main(["sft", "--config", str(config), "--json"]) == 0  # finished: nothing is trained
    assert json.loads(capsys.readouterr().out)["steps"] == 5
    monkeypatch.setenv("RANK", "1")
    assert main(["sft", "--config", str(config), "--json"]) == 0
    assert capsys.readouterr().out == ""  # of several processes, the first reports
    assert main(["sft", "--config", str(config), "--no-resume"]) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "full", "goes_on_from"),
    [
        ("_save_optimizer_and_scheduler", "checkpoint-4", "checkpoint-2"),  # torch
        ("save_model", "checkpoint-4", "checkpoint-2"),  # safetensors
        ("save_model", ".model-new", "checkpoint-5"),
    ],
)
def test_a_disk_that_fills_while_a_run_saves(
    method: str,
    full: str,
    goes_on_from: str,
    config: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One message; what was cut off is not taken for whole, and the run ends as if undisturbed."""
    save = getattr(Trainer, method)

    def saves(trainer: Any, folder: str, **options: Any) -> None:
        with largest_file(5000) if Path(folder).name == full else nullcontext():
            save(trainer, folder, **options)

    command, run = ["sft", "--config", str(config)], tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, method, saves)
        assert main(command) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    (message,) = (line for line in said.splitlines() if "cannot save" in line)
    assert message.startswith(f"univg-train sft: cannot save into {run}: ")
    assert "free space and run the same command again" in message
    assert (run / full).is_dir() and find_checkpoint(run) == run / goes_on_from
    assert main(command) == 0
    assert not (run / ".model-new").exists()
    assert_same_weights(run / "model", whole)
    for name in ("tokenizer.json", "config.json"):
        assert (run / "model" / name).read_bytes() == (whole / name).read_bytes()


def test_a_second_run_in_the_same_folder_is_refused(
    config: Path, tmp_path: Path, refused: Any
) -> None:
    with sole_writer(tmp_path / "run"):
        said = refused("sft", "--config", config)
        assert f"another process trains in {tmp_path / 'run'}; wait for it, or name" in said
        assert list((tmp_path / "run").iterdir()) == []
    assert train_sft(load_settings(config, ["trainer.max_steps=1"]))["steps"] == 1


def _flip_the_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_changed_byte_of_a_checkpoint_or_of_a_model_is_named(
    config: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InterruptedError):
        train_sft(load_settings(config), callbacks=[Stopped(3)])
    _flip_the_last_byte(tmp_path / "run" / "checkpoint-2" / "optimizer.pt")
    assert main(["sft", "--config", str(config)]) == 2
    assert "checkpoint-2/optimizer.pt was changed or lost after" in capsys.readouterr().err
    model = shutil.copytree(whole, tmp_path / "changed")
    _flip_the_last_byte(model / "model.safetensors")
    for place in ([f"model={model}"], [f"model={model}", "--dry-run"]):
        out = f"trainer.output_dir={tmp_path / 'other'}"
        assert main(["sft", "--config", str(config), out, *place]) == 2
        assert "changed/model.safetensors was changed or lost after" in capsys.readouterr().err


def test_a_stopped_lora_run_goes_on(config: Path, tmp_path: Path) -> None:
    lora = "lora={r: 2, lora_dropout: 0.5}"
    with pytest.raises(InterruptedError):
        train_sft(load_settings(config, [lora]), callbacks=[Stopped(3)])
    whole = f"trainer.output_dir={tmp_path / 'whole'}"
    one, other = (train_sft(load_settings(config, [lora, *place])) for place in ([], [whole]))
    assert one["steps"] == other["steps"] == 5
    assert_same_weights(Path(one["model"]), Path(other["model"]))


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
        ({"rows": 3}, "on 3 rows that are others now"),
        ({"processes": 8}, "other settings: processes was 8 and is 1"),
        (None, r"holds checkpoint-2 without sft\.json"),
    ],
)
def test_a_run_on_something_else(
    changes: dict[str, Any] | None, match: str, config: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "run" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 2}')
    settings = load_settings(config)
    if changes is not None:
        # As older versions wrote them: without the keys that were not given.
        written = settings.model_dump(exclude_unset=True)
        record = {"settings": written, "processes": 1, "data_fingerprint": "0"}
        (tmp_path / "run" / "sft.json").write_text(json.dumps(record | changes))
    with pytest.raises(UserError, match=match):
        train_sft(settings)


def test_parameters_that_are_spread_over_processes_are_counted() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    layer.weight.ds_numel = 600  # what DeepSpeed says of a weight of which only a part is here
    assert count_parameters(layer) == (600, 602)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),  # TRL's default
        ({"gradient_checkpointing": False}, False),
        ({"activation_checkpointing": True}, True),
        ({"gradient_checkpointing": True, "activation_checkpointing": False}, False),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": False}}, True),
    ],
)
def test_renamed_arguments_are_passed_on_without_a_warning(
    given: dict[str, Any], expected: bool, config: Path
) -> None:
    pytest.importorskip("transformers", minversion="5.23", reason="has no second name for them")
    settings = load_settings(config)
    del settings.trainer["gradient_checkpointing"]
    settings.trainer.update(given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arguments = sft_arguments(settings)
    assert arguments.gradient_checkpointing is arguments.activation_checkpointing is expected
    has_options = "gradient_checkpointing_kwargs" in given
    assert (arguments.activation_checkpointing_kwargs is not None) is has_options


def test_boxes_in_pixels_are_those_of_the_processor_with_the_limits(config: Path) -> None:
    """A box of 0-1000 becomes pixels of the image as the processor resizes it."""
    settings = load_settings(config, ["dialect=qwen2_5_vl", "style=think", "max_pixels=1568"])
    checked = check_sft(settings, None)
    row = checked.dataset[0]  # its box lies on the second image, of 90 x 70 pixels
    grid = checked.processor.image_processor(images=[row["images"][1]])["image_grid_thw"]
    height, width = (14 * int(n) for n in grid[0][1:])
    assert width * height <= 1568
    text = row["completion"][0]["content"][0]["text"]
    found = [int(number) for number in re.search(r"\[(\d+), ?(\d+),", text).groups()]
    assert found == pytest.approx([0.1 * width, 0.2 * height], abs=1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("trainer.packing=true", "trainer.packing=True: rows with images are not packed"),
        ("trainer.completion_only_loss=false", "neither prompt nor image tokens are learned"),
        ("trainer.learning_rat=1", "did you mean 'trainer.learning_rate'?"),
        ("trainer.learning_rate=high", "trainer.learning_rate is 'high'; expected a number"),
        ("trainer.max_steps=ten", "trainer.max_steps is 'ten'; expected a whole number"),
        ("trainer.bf16=no thanks", "trainer.bf16 is 'no thanks'; expected true or false"),
        ("trainer.loss_type=l2", "trainer.loss_type is 'l2'; expected 'nll', 'dft'"),
        ("trainer.train_sampling_strategy=group_by_length", "expected 'random' or 'sequential'"),
        ("trainer.chat_template_path=x", "trainer.chat_template_path is not to be set"),
        ("trainer.eval_strategy=no", "trainer.eval_strategy is not to be set: there is no"),
        ("trainer.save_strategy=best", "expected 'steps', 'epoch' or 'no'"),
        ("trainer.per_device_train_batch_size=0", "train_batch_size is 0; expected at least 1"),
        ("trainer.output_dir=", "trainer.output_dir is missing"),
        ("trainer.output_dir=''", "trainer.output_dir is missing"),
        ("freeze_visio=true", "unknown key 'freeze_visio'; did you mean 'freeze_vision'?"),
        ("data=3", "data is 3; expected keys with values"),
        ("data.file=nowhere.json", "cannot read nowhere.json: No such file"),
        ("data.check_leaks=[1]", "data.check_leaks is [1]; expected a list of benchmarks"),
        ("data.on_long=cut", "data.on_long is 'cut'; expected 'stop' or 'skip'"),
        ("lora={rank: 2}", "unknown key 'lora.rank'"),
        ("lora={r: eight}", "lora.r is 'eight'; expected a whole number"),
        ("lora={r: 0}", "lora: `r` should be a positive integer"),
        ("lora={init_lora_weights: pissa_niter_4}", "drawn anew whenever they are loaded"),
        ("lora={exclude_modules: x}", "lora.exclude_modules and freeze_vision: true"),
    ],
)
def test_mistakes_are_reported_in_one_message(
    change: str, match: str, config: Path, refused: Any
) -> None:
    assert match in refused("sft", "--config", config, change)


def test_all_mistakes_of_a_file_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("modell: x\ndata: {form: 3}\ntrainer: {packing: true}\n")
    with pytest.raises(UserError) as raised:
        load_settings(path)
    for part in (
        "'modell'; did you mean 'model'?",
        "data.form is 3",
        "data.file is missing",
        "dialect is missing",
        "trainer.packing",
        "trainer.output_dir is missing",
    ):
        assert part in str(raised.value)
    for text, match in (
        ("[1", "is no YAML"),
        ("- 1", "holds list; expected keys with values"),
        ("model: a\nmodel: b\n", "duplicate key 'model'"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"s\.yaml: .*{match}"):
            load_settings(path)
    with pytest.raises(UserError, match=r"none\.yaml: cannot read it: No such file"):
        load_settings(tmp_path / "none.yaml")


def test_an_adapter_takes_what_peft_takes() -> None:
    taken = {"lora_alpha": 6.5, "init_lora_weights": "pissa", "layer_replication": [[0, 2], [1, 2]]}
    found = lora_config({**taken, "rank_pattern": {"q_proj": 2}}, None)
    assert {name: getattr(found, name) for name in taken} == taken


def test_numbers_without_a_point_are_numbers(config: Path) -> None:
    settings = load_settings(config, ["trainer.learning_rate=5e-6"])
    assert settings.trainer["learning_rate"] == 5e-6


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("no", "off", "On", "YES", "y")],
        *[("true", True), ("False", False), ("TRUE", True), ("null", None), ("'true'", "true")],
    ],
)
def test_true_and_false_alone_are_truth_values(text: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(f"name: {text}\n")

    class Values(Section):
        name: str | bool | None

    for found in (read_settings(Values, path), read_settings(Values, None, [f"name={text}"])):
        assert found.name == value and type(found.name) is type(value)


def test_settings_may_stand_behind_options(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rest in (["--json", "nonsense"], ["a=1", "--json", "--no-resume", "nonsense"]):
        assert main(["sft", "--config", str(config), *rest]) == 2
        assert "'nonsense' is no key=value" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sft", "--config", str(config), "--jsom", "a=1"])
    assert "unrecognized arguments: --jsom" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["configs", "zero3", "a=1"])
    assert "unrecognized arguments: a=1" in capsys.readouterr().err


@pytest.fixture
def processor(model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model's processor; a test may change it."""
    own = AutoProcessor.from_pretrained(model)
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: own)
    return own


@pytest.mark.parametrize("drop", ["<think>", "<answer>"])
def test_a_template_that_drops_a_part_of_the_answer(
    config: Path, drop: str, processor: Any
) -> None:
    processor.chat_template = sft_data.TEMPLATE.replace(
        "{{ part['text'] }}", f"{{{{ part['text'].split('{drop}')[-1] }}}}"
    )
    with pytest.raises(UserError, match="chat template does not keep its answer"):
        check_sft(load_settings(config), None)


def test_a_processor_without_limits_of_areas(config: Path, processor: Any) -> None:
    """A family whose images have one edge: the limit would stay an attribute that nobody reads."""
    processor.image_processor = CLIPImageProcessor(max_pixels=1568)
    with pytest.raises(UserError, match=r"max_pixels=1568: the processor of .* no such limit"):
        check_sft(load_settings(config, ["max_pixels=1568"]), None)


def test_a_checkpoint_that_takes_no_images(config: Path, tmp_path: Path) -> None:
    text = make_text_checkpoint(tmp_path / "text")
    with pytest.raises(UserError, match="of type 'qwen2', which takes no images"):
        train_sft(load_settings(config, [f"model={text}"]))


@pytest.mark.parametrize("batch, accumulation, epochs", [(1, 1, 2), (2, 1, 1), (2, 2, 3)])
def test_the_dry_run_counts_steps_and_loads_no_weights(
    config: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    batch: int,
    accumulation: int,
    epochs: int,
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    changes = [f"trainer.per_device_train_batch_size={batch}", "trainer.max_steps=-1"]
    changes += [f"trainer.gradient_accumulation_steps={accumulation}"]
    changes += [f"trainer.num_train_epochs={epochs}"]
    command = ["sft", "--config", str(config), "--dry-run", *changes]
    assert main([*command, "--json", f"model={bare}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "run").exists()
    checked = check_sft(load_settings(config, changes), None)
    assert found["tokens"] == max(lengths(checked))
    trainer, _, _ = prepared(config, *changes)
    loader = trainer.get_train_dataloader()
    assert found["steps"] == trainer.set_initial_training_values(trainer.args, loader)[-1]
    assert found["memory"]["weights"] == 4 * found["parameters"]
    assert found["memory"]["optimizer"] == 8 * found["trained"]
    assert found["memory"]["needed"] > found["memory"]["total"] > found["memory"]["training"]
    assert found["rollouts"] is None and found["confirmed_on_a_gpu"] is False
    assert main([*command, "--processes", "2", "--sharding", "zero3", "--gpu", "l40s"]) == 0
    out = capsys.readouterr().out
    assert "memory on each of 2 devices, sharding zero3" in out
    assert "fits on one L40S 48 GB" in out and "not confirmed on a GPU" in out
