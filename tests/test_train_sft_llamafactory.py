"""Data and settings for LLaMA-Factory are as that project's documentation says."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from sft_data import ANSWERS, make_config, make_rows
from training_forms import (
    MGROUNDING_SIZES,
    THINK,
    chat,
    draw,
    mgrounding_row,
    stage1_row,
    write_list,
)

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_train.cli import main
from univg_train.sft.llamafactory import sharegpt_row, translate
from univg_train.sft.settings import SftSettings
from univg_train.sft.settings import load_settings as load_with_trl

STAGE1 = {  # as published
    "model": "Qwen/Qwen2-VL-7B-Instruct",
    "dialect": "univg_r1",
    "max_pixels": 401408,
    "data": {"form": "univg_r1_stage1", "file": "stage1_cotsft.json"},
    "trainer": {
        "output_dir": "runs/stage1",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 3,
        "learning_rate": 5e-6,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.015,
        "bf16": True,
        "max_length": 6000,
    },
}


def load_settings(path: Path, overrides: Iterable[str] = ()) -> SftSettings:
    return load_with_trl(path, overrides, with_trl=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_config(tmp_path / "run.yaml", Path("Some/Model"), make_rows(tmp_path / "rows"))


def export_arguments(config: Path, out: Path, *more: str, name: str = "set") -> list[str]:
    where = ["--config", str(config), "--out", str(out), "--name", name]
    return ["export", "--format", "llamafactory", *where, *more]


def export(config: Path, out: Path, *more: str) -> int:
    return main(export_arguments(config, out, *more))


def read_as_llamafactory(settings_file: Path) -> list[dict[str, Any]]:
    """The rows as data/README.md there says that they are found and read."""
    settings = yaml.safe_load(settings_file.read_text())
    folder = Path(settings["dataset_dir"])
    entry = json.loads((folder / "dataset_info.json").read_text())[settings["dataset"]]
    assert entry["formatting"] == "sharegpt"
    rows = json.loads((folder / entry["file_name"]).read_text())
    for row in rows:
        turns, images = (row[entry["columns"][name]] for name in ("messages", "images"))
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert sum(turn["value"].count("<image>") for turn in turns) == len(images)
        assert all(Path(image).is_absolute() and Path(image).is_file() for image in images)
    return rows


def test_rows(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert export(config, out) == 0
    printed = capsys.readouterr()
    assert printed.out == f"3 rows; settings: {out / 'set.yaml'}\n"
    assert printed.err == "without a counterpart, left out: trainer.use_cpu\n"
    rows = read_as_llamafactory(out / "set.yaml")
    prompt = "<image><image>Find the cup of the first image in the second image." + THINK
    assert [row["conversations"] for row in rows] == [
        [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}] for answer in ANSWERS
    ]
    names = [[Path(image).stem for image in row["images"]] for row in rows]
    assert names == [["a", "c"], ["b", "a"], ["c", "b"]]
    text = (out / "set.yaml").read_text()
    assert text.startswith("# FORCE_TORCHRUN=1 llamafactory-cli train ")
    assert yaml.safe_load(text)["deepspeed"] == "examples/deepspeed/ds_z3_config.json"
    assert export(config, tmp_path / "other", "--deepspeed", "none") == 0
    assert "deepspeed" not in yaml.safe_load((tmp_path / "other" / "set.yaml").read_text())


def test_conversations_keep_their_turns(tmp_path: Path) -> None:
    draw(tmp_path, MGROUNDING_SIZES)
    rows = write_list(tmp_path / "m.json", [mgrounding_row()])
    config = make_config(tmp_path / "run.yaml", Path("m"), rows)
    more = ("data.form=mgrounding", "style=direct", "dialect=migician", "data.history=true")
    assert export(config, tmp_path / "out", *more) == 0
    settings = yaml.safe_load((tmp_path / "out" / "set.yaml").read_text())
    assert settings["mask_history"] is True
    rows = read_as_llamafactory(tmp_path / "out" / "set.yaml")
    assert [len(row["conversations"]) for row in rows] == [2, 4]


def test_settings_of_the_published_stage_1(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(json.dumps(STAGE1))
    values, left_out = translate(load_settings(path))
    assert left_out == []
    trainer = {name: value for name, value in STAGE1["trainer"].items() if name in values}
    assert set(STAGE1["trainer"]) - set(trainer) == {"max_length", "warmup_steps"}
    assert values == trainer | {
        "model_name_or_path": "Qwen/Qwen2-VL-7B-Instruct",
        "image_max_pixels": 401408,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "template": "qwen2_vl",
        "cutoff_len": 6000,
        "logging_steps": 10,
        "warmup_ratio": 0.015,
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "left"),
    [
        # PEFT's alpha is 8 where none is given, LLaMA-Factory's twice the rank.
        ("lora={}", {"lora_rank": 8, "lora_alpha": 8, "lora_target": "all"}, []),
        ("lora.r=4", {"finetuning_type": "lora", "lora_rank": 4, "lora_alpha": 8}, []),
        ("lora={lora_alpha: 16, lora_dropout: 0.1}", {"lora_alpha": 16, "lora_dropout": 0.1}, []),
        ("lora={target_modules: [q_proj, v_proj]}", {"lora_target": "q_proj,v_proj"}, []),
        ("lora={use_dora: true, bias: all}", {"use_dora": True}, ["lora.bias"]),
        ("lora={modules_to_save: [lm_head]}", {"additional_target": "lm_head"}, []),
        (
            "freeze_vision=false",
            {"freeze_vision_tower": False, "freeze_multi_modal_projector": False},
            [],
        ),
        ("trainer.warmup_steps=20", {"warmup_steps": 20, "warmup_ratio": None}, []),
        ("trainer.max_length=null", {"cutoff_len": 1_000_000}, []),
        ("trainer.max_length=77", {"cutoff_len": 77, "max_length": None}, []),
        # The form's default is bf16, if the other half precision is not set.
        ("trainer={output_dir: x}", {"bf16": True, "fp16": None, "learning_rate": 2e-5}, []),
        ("trainer={output_dir: x, fp16: true}", {"bf16": False, "fp16": True}, []),
        ("trainer={output_dir: x, bf16: null}", {"bf16": True}, []),
        ("trainer.gradient_checkpointing=false", {"disable_gradient_checkpointing": True}, []),
        ("trainer.optim=adafactor", {"optim": "adafactor"}, []),
        (
            "trainer.model_init_kwargs={revision: v2, attn_implementation: sdpa, dtype: float32}",
            {"model_revision": "v2", "flash_attn": "sdpa"},
            ["trainer.model_init_kwargs.dtype"],
        ),
        ("data.on_long=skip", {}, ["data.on_long=skip"]),
        ("min_pixels=3136", {"image_min_pixels": 3136, "image_max_pixels": None}, []),
    ],
)
def test_settings(ours: str, theirs: dict[str, Any], left: list[str], config: Path) -> None:
    values, left_out = translate(load_settings(config, ["trainer.use_cpu=null", ours]), "mine")
    assert {name: values.get(name) for name in theirs} == theirs
    assert [name for name in left_out if name != "trainer.use_cpu"] == left
    assert values["template"] == "mine"


def test_a_pattern_of_modules_is_refused(config: Path) -> None:
    with pytest.raises(UserError, match=r"the pattern '\.\*proj'"):
        translate(load_settings(config, ["lora={target_modules: .*proj}"]))


def resized_by_llamafactory(
    image_wh: tuple[int, int], values: dict[str, Any], low: int, high: int
) -> tuple[int, int]:
    """Its mm_plugin.py for the Qwen2-VL family, and then the processor with limits of its own."""
    width, height = image_wh
    most = values.get("image_max_pixels", 768 * 768)
    least = values.get("image_min_pixels", 32 * 32)
    for limit, beyond in ((most, width * height > most), (least, width * height < least)):
        if beyond:
            factor = math.sqrt(limit / (width * height))
            width, height = int(width * factor), int(height * factor)
    width, height = max(width, 28), max(height, 28)
    # Qwen's smart_resize.
    sides = [max(28, round(side / 28) * 28) for side in (width, height)]
    if sides[0] * sides[1] > high:
        factor = math.sqrt(width * height / high)
        sides = [math.floor(side / factor / 28) * 28 for side in (width, height)]
    elif sides[0] * sides[1] < low:
        factor = math.sqrt(low / (width * height))
        sides = [math.ceil(side * factor / 28) * 28 for side in (width, height)]
    return sides[0], sides[1]


def test_boxes_in_pixels_are_those_of_llamafactorys_resize(tmp_path: Path) -> None:
    """Its first resize would be to other sizes; it is switched off."""
    sizes = {f"d/{i}.png": wh for i, wh in enumerate([(1000, 750), (333, 517), (40, 30), (64, 48)])}
    draw(tmp_path, sizes)
    names = list(sizes)
    rows = [
        stage1_row(images=[name], conversations=chat("<image>\nWhere?" + THINK, ANSWERS[0]))
        for name in names
    ]
    config = make_config(
        tmp_path / "run.yaml", Path("Some/Model"), write_list(tmp_path / "s.json", rows)
    )
    pixels = ("dialect=qwen2_5_vl", "style=think")
    assert export(config, tmp_path / "out", *pixels) == 0
    values = yaml.safe_load((tmp_path / "out" / "set.yaml").read_text())
    for name, row in zip(names, read_as_llamafactory(tmp_path / "out" / "set.yaml"), strict=True):
        width, height = resized_by_llamafactory(sizes[name], values, 3136, 12_845_056)
        box = re.findall(r"\d+", row["conversations"][1]["value"].split("bbox_2d")[1].split("]")[0])
        expected = [0.1 * width, 0.2 * height, 0.3 * width, 0.4 * height]
        assert [int(number) for number in box[-4:]] == pytest.approx(expected, abs=1)
    # With the published limit the sizes would be others, as the same steps show.
    limited = values | {"image_max_pixels": 401_408}
    assert resized_by_llamafactory((1000, 750), limited, 3136, 12_845_056) == (728, 560)
    with pytest.raises(UserError, match=r"max_pixels=401408, and the processor of .* 12845056"):
        translate(load_settings(config, [*pixels, "max_pixels=401408"]))


def test_boxes_in_pixels_with_limits_of_the_models_folder(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    saved = {"min_pixels": 784, "max_pixels": 401408}
    (folder / "preprocessor_config.json").write_text(json.dumps(saved))
    changes = [f"model={folder}", "dialect=qwen2_5_vl", "style=think"]
    with pytest.raises(UserError, match=r"min_pixels=3136, and the processor of .* has 784"):
        translate(load_settings(config, changes))
    with pytest.raises(UserError, match="'claude' writes pixels of the image after a service's"):
        translate(load_settings(config, [f"model={folder}", "dialect=claude"]), template="qwen2_vl")
    changes += ["min_pixels=784", "max_pixels=401408"]
    values, _ = translate(load_settings(config, changes))
    assert values["image_min_pixels"] == 1 and values["image_max_pixels"] > 10**8


@pytest.mark.parametrize(
    ("name", "more", "match"),
    [
        ("a/b", [], "the name is 'a/b'"),
        ("1e5", [], "the name is '1e5'; expected a letter"),
        ("dataset_info", [], "LLaMA-Factory's own file"),
        ("set", ["dialect=qwen3_vl"], "name it (--template)"),
        ("set", ["data.file=nowhere.json"], "cannot read nowhere.json"),
        ("there", [], "there.yaml is there already"),
    ],
)
def test_mistakes_are_reported_in_one_message(
    name: str, more: list[str], match: str, config: Path, tmp_path: Path, refused: Any
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "there.yaml").write_text("")
    assert match in refused(*export_arguments(config, out, *more, name=name))
    assert [path.name for path in out.iterdir()] == ["there.yaml"]
    below_a_file = export_arguments(config, out / "there.yaml")
    assert "there.yaml: File exists; give another --out" in refused(*below_a_file)


def test_rows_that_llamafactory_would_misread(tmp_path: Path) -> None:
    text = {"type": "text", "text": "The mark <image> in words."}
    columns = {
        "id": "r",
        "prompt": [{"role": "user", "content": [{"type": "image"}, text]}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": "(1,2),(3,4)"}]}],
    }
    with pytest.raises(UserError, match="row 'r': 2 marks <image> for 1 images"):
        sharegpt_row(columns, [tmp_path])
    text["text"] = "Where?"
    with pytest.raises(UserError, match="is no file that LLaMA-Factory can open"):
        sharegpt_row(columns, [tmp_path / "clip.mp4#3"])
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (300, 200)).save(tmp_path / f"{orientation}.jpg", exif=exif)
    assert sharegpt_row(columns, [tmp_path / "1.jpg"])["images"] == [str(tmp_path / "1.jpg")]
    with pytest.raises(UserError, match=r"6\.jpg is stored turned"):
        sharegpt_row(columns, [tmp_path / "6.jpg"])
    # A side below 28 is enlarged before the processor sees it.
    dialect = get_dialect("qwen2_5_vl")
    for size, match in (((300, 200), None), ((40, 9), r"enlarges its image of \(40, 9\) pixels")):
        columns |= {"image_sizes": [size], "input_sizes": [dialect.input_size(size)]}
        with nullcontext() if match is None else pytest.raises(UserError, match=match):
            sharegpt_row(columns, [tmp_path / "1.jpg"], dialect)


def test_the_command_loads_neither_torch_nor_trl(config: Path, tmp_path: Path) -> None:
    arguments = export_arguments(config, tmp_path / "out")
    code = (
        "import sys\nfrom univg_train.cli import main\n"
        f"assert main({arguments!r}) == 0\n"
        "print(sorted({'torch', 'trl', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["[]"], result.stderr
