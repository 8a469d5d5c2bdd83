"""What a run with LoRA ends with: a whole model, from which GRPO and the evaluation start."""

from __future__ import annotations

import copy
import json
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")
pytest.importorskip("peft")

import torch
from huggingface_hub import constants
from peft import PeftModel
from safetensors.torch import load_file, save_file
from sft_data import TRAINER, make_config, make_model, make_rows, write
from training_forms import stage2_row, write_list
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer

from univg_eval.dialects import declared_settings
from univg_train.cli import main
from univg_train.runs import saving
from univg_train.sft.run import train_sft
from univg_train.sft.settings import load_settings

LORA = "lora={r: 2, lora_alpha: 4}"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def config(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps, evenly; that run is at its end in ``run`` beside the file."""
    folder = tmp_path_factory.mktemp("sft")
    path = make_config(folder / "run.yaml", model, make_rows(folder), max_steps=2)
    train_sft(load_settings(path, [LORA]))
    return path


def logits(model: Any, processor: Any) -> torch.Tensor:
    from PIL import Image

    image = Image.new("RGB", (56, 28), "red")
    text = "<|vision_start|><|image_pad|><|vision_end|>Where is the cup?"
    with torch.no_grad():
        return model.eval()(**processor(images=[image], text=[text], return_tensors="pt")).logits


def load(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")


@pytest.mark.parametrize(
    "lora",
    [
        LORA,
        "lora={r: 2, use_dora: true}",
        "lora={r: 2, init_lora_weights: pissa}",  # changes the weights that it is added to
        "lora={r: 2, modules_to_save: [lm_head]}",
    ],
)
def test_merged_weights_answer_as_base_and_adapter(
    lora: str, model: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And they are those of the trained model, merged where it was trained."""
    trained: list[Any] = []
    save = saving._save_merged

    def saved(adapted: Any, adapter: Path, folder: Path) -> None:
        save(adapted, adapter, folder)
        trained.append(copy.deepcopy(adapted).merge_and_unload().state_dict())

    monkeypatch.setattr(saving, "_save_merged", saved)
    run = tmp_path / "run"
    train_sft(load_settings(config, [lora, f"trainer.output_dir={run}"]))
    found = load(run / "model").state_dict()
    assert found.keys() == trained[0].keys()
    assert all(torch.equal(found[name], trained[0][name]) for name in found)
    processor = AutoProcessor.from_pretrained(run / "model")
    merged = logits(load(run / "model"), processor)
    both = logits(PeftModel.from_pretrained(load(model), run / "adapter"), processor)
    before = logits(load(model), processor)
    torch.testing.assert_close(merged, both, rtol=1e-4, atol=1e-5)
    assert (merged - before).abs().max() > 1e-2


def test_weights_that_were_trained_in_four_bits_are_saved_whole(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = saving._save_merged

    def saved(adapted: Any, adapter: Path, folder: Path) -> None:
        # What transformers notes in the model of QLoRA.
        noted = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        adapted.get_base_model().config.quantization_config = noted
        save(adapted, adapter, folder)

    monkeypatch.setattr(saving, "_save_merged", saved)
    run = tmp_path / "run"
    train_sft(load_settings(config, [LORA, f"trainer.output_dir={run}"]))
    assert "quant" not in (run / "model" / "config.json").read_text(encoding="utf-8")
    whole = load(config.parent / "run" / "model").state_dict()
    found = load(run / "model").state_dict()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_an_adapter_is_merged_into_the_revision_that_it_was_trained_on(
    model: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model of the Hub whose branch ``main`` has other weights; ``python -m univg_train``."""
    repo = tmp_path / "hub" / "models--who--tiny"
    commits = {"old": "a" * 40, "main": "b" * 40}
    for name, commit in commits.items():
        shutil.copytree(model, repo / "snapshots" / commit)
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / name).write_text(commit, encoding="utf-8")
    file = repo / "snapshots" / commits["main"] / "model.safetensors"
    save_file(
        {name: weight + 1 for name, weight in load_file(file).items()}, file, {"format": "pt"}
    )
    run = tmp_path / "run"
    arguments = [
        *("model=who/tiny", LORA, "trainer.max_steps=1", f"trainer.output_dir={run}"),
        *("trainer.model_init_kwargs={revision: old}", "trainer.learning_rate=1e-6"),
    ]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(repo.parent))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "argv", ["univg_train", "sft", "--config", str(config), *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("univg_train", run_name="__main__")
    assert ended.value.code == 0
    found, old = load(run / "model").state_dict(), load(model).state_dict()
    assert all(torch.allclose(found[name], old[name], atol=1e-3) for name in old)
    adapter = json.loads((run / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["revision"] == commits["old"]


def test_the_model_folder_is_whole(model: Path, config: Path) -> None:
    folder = config.parent / "run" / "model"
    assert load_file(folder / "model.safetensors").keys() == (
        load_file(model / "model.safetensors").keys()
    )
    assert not list(folder.rglob("adapter_*"))
    assert declared_settings(folder) == {"dialect": "univg_r1", "prompt": "think"}
    # The trainer has put right where answers end, as it does where all weights are trained.
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    assert tokenizer.eos_token_id in load(folder).generation_config.eos_token_id
    summary = json.loads((config.parent / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["model"] == str(folder)


def test_grpo_begins_with_it(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = config.parent  # where the images of supervised fine-tuning are
    rows = write_list(tmp_path / "rows.json", [stage2_row(), stage2_row(answer=[0, 0, 500, 500])])
    values = {
        "model": str(config.parent / "run" / "model"),
        "dialect": "univg_r1",
        "data": {
            "form": "univg_r1_stage2", "file": str(rows), "images": str(images), "check_leaks": [],
        },
        "trainer": {
            **TRAINER, "output_dir": str(tmp_path / "grpo"), "max_steps": 1, "num_generations": 2,
            "per_device_train_batch_size": 4, "max_completion_length": 4,
        },
    }  # fmt: skip
    path = write(tmp_path / "grpo.yaml", values)
    assert main(["grpo", "--config", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    assert load_file(tmp_path / "grpo" / "model" / "model.safetensors").keys() == (
        load_file(config.parent / "run" / "model" / "model.safetensors").keys()
    )


def test_a_run_that_dies_while_merging_leaves_no_model(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command makes it from the last checkpoint; what was begun does not come in."""

    def dies(model: Any, adapter: Path, folder: Path) -> None:
        (folder / "model-00001-of-00002.safetensors").write_text("a part")
        raise InterruptedError

    settings = load_settings(config, [LORA, f"trainer.output_dir={tmp_path / 'run'}"])
    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr(saving, "_save_merged", dies)
        train_sft(settings)
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert train_sft(settings)["steps"] == 2
    found, whole = (
        load_file(run / "model" / "model.safetensors")
        for run in (tmp_path / "run", config.parent / "run")
    )
    assert all(torch.equal(found[name], whole[name]) for name in whole)
    assert not list((tmp_path / "run" / "model").glob("model-*"))
    # Died between the model and the summary: both are made once more.
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "model" / "of-before").touch()
    assert train_sft(settings)["steps"] == 2
    assert not (tmp_path / "run" / "model" / "of-before").exists()
    assert not list((tmp_path / "run").glob(".*"))


def test_what_is_uploaded_is_there(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, uploaded = tmp_path / "run", list[bool]()

    def upload(trainer: Any, **kwargs: Any) -> None:
        uploaded.append((run / "model" / "config.json").is_file())

    monkeypatch.setattr(Trainer, "init_hf_repo", lambda *args, **kwargs: None)
    monkeypatch.setattr(Trainer, "push_to_hub", upload)
    changes = ["trainer.push_to_hub=true", "trainer.hub_strategy=end"]
    train_sft(load_settings(config, [*changes, f"trainer.output_dir={run}"]))
    assert uploaded == [True]
