"""Every configuration file that comes along loads, is what it says, and makes trainer arguments."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_checkpoints import make_checkpoint
from training_forms import THINK, chat, draw, stage1_row, stage2_row, write_list

from univg_eval.dialects import dialect_for_model
from univg_eval.errors import UserError
from univg_train.cli import build_parser, main
from univg_train.configs import config_path, list_configs

pytest.importorskip("trl")

from univg_train.grpo.batches import check_batch
from univg_train.grpo.settings import load_grpo_settings
from univg_train.runs.training import trainer_arguments
from univg_train.sft.settings import load_settings

LAUNCHERS = ("fsdp2", "multi_gpu", "zero3")
GRPO = (
    "internvl3_2b_lora",
    "qwen2_5_vl_3b_grpo",
    "qwen2_5_vl_3b_lora",
    "qwen2_5_vl_3b_lora_vllm",
    "qwen2_5_vl_7b_grpo",
    "qwen2_vl_7b_grpo",
    "qwen2_vl_7b_grpo_vllm_colocate",
    "qwen2_vl_7b_grpo_vllm_server",
    "qwen3_vl_4b_grpo",
    "qwen3_vl_8b_grpo",
    "tiny_grpo",
)
SERVER = "qwen2_vl_7b_grpo_vllm_server"
SFT = (
    "internvl3_2b_lora_sft",
    "llava_onevision_7b_lora_sft",
    "qwen2_5_vl_3b_lora_sft",
    "qwen2_5_vl_7b_sft",
    "qwen2_vl_7b_sft",
    "qwen3_vl_8b_sft",
    "tiny_sft",
)
LARGE = [name for name in (*GRPO, *SFT) if "tiny" not in name]


def yaml_of(name: str) -> dict[str, Any]:
    import yaml

    content = yaml.safe_load(config_path(name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def header(name: str) -> str:
    lines = config_path(name).read_text(encoding="utf-8").splitlines()
    kept = [line[2:] for line in lines[: lines.index("")]]
    return "\n".join(kept)


def test_these_files_and_no_other(repo_root: Path) -> None:
    assert sorted(list_configs()) == sorted((*GRPO, *SFT, *LAUNCHERS))
    found = [path.stem for path in (repo_root / "univg_train" / "configs").rglob("*.yaml")]
    assert sorted(found) == sorted(list_configs())
    assert all(len(meaning) > 20 for meaning in list_configs().values())


def load(name: str) -> Any:
    return (load_settings if name.endswith("sft") else load_grpo_settings)(config_path(name))


@pytest.mark.parametrize("name", [*GRPO, *SFT])
def test_arguments_are_made(name: str, tmp_path: Path) -> None:
    settings = load(name)
    # A machine without a GPU refuses bf16 unless it is set to train on its CPU.
    arguments = trainer_arguments(settings, use_cpu=True, output_dir=str(tmp_path))
    for key, value in settings.trainer.items():
        if key not in ("use_cpu", "output_dir"):
            assert getattr(arguments, key) == value, key
    assert not arguments.remove_unused_columns
    family = re.match(r"(qwen2_5|qwen3)_vl", name)
    if family is not None:
        assert settings.dialect == dialect_for_model(f"{family[1]}_vl")


def test_the_released_stage_2() -> None:
    from univg_train.grpo.trainer import PAPER_SETTINGS

    settings = load("qwen2_vl_7b_grpo")
    assert {name: settings.trainer[name] for name in PAPER_SETTINGS} == dict(PAPER_SETTINGS)
    assert settings.trainer["per_device_train_batch_size"] == 8
    assert settings.trainer["gradient_accumulation_steps"] == 2
    assert (settings.min_pixels, settings.max_pixels) == (3136, 640_000)
    assert settings.freeze_vision and settings.difficulty.form == "exp"
    assert [reward.__name__ for reward in settings.reward_functions] == [
        "accuracy_reward",
        "format_reward",
    ]
    assert settings.rewards.rule == "univg-r1"
    assert yaml_of("zero3")["num_processes"] == 8


def test_the_tiny_ones_share_nothing_with_their_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.benchmarks.synthetic import mini
    from univg_train.runs.rows import open_rows

    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    mini.ensure(tmp_path, n=4)  # a small one, or it would be generated whole
    for name in ("tiny_sft", "tiny_grpo"):
        assert len(open_rows(load(name), min_pixels=28224, max_pixels=28224)) == 116


@pytest.mark.parametrize("name", ["tiny_sft", "tiny_grpo"])
def test_the_tiny_ones_run_as_pasted(name: str, tmp_path: Path, repo_root: Path) -> None:
    """The header's own line in a shell, in an empty folder: no data, no network, no changes."""
    from univg_eval.benchmarks.synthetic import mini

    mini.ensure(tmp_path / "data", n=2)  # a small one, or it would be generated whole
    (command,) = [line for line in header(name).splitlines() if line.startswith("univg-train ")]
    program = tmp_path / "bin" / "univg-train"
    program.parent.mkdir()
    main_of = "import sys; from univg_train.cli import main; sys.exit(main())"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{main_of}" "$@"\n')
    program.chmod(0o755)
    # Python runs this at its start: no name of a server is found.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def refuse(event, args):\n"
        "    if event == 'socket.getaddrinfo':\n"
        "        raise OSError('there is no network here')\n"
        "sys.addaudithook(refuse)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("UNIVG_", "HF_"))}
    environment |= {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{repo_root}:{tmp_path}",
        "HOME": str(tmp_path / "home"),
        "UNIVG_DATA": str(tmp_path / "data"),
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        command, shell=True, cwd=tmp_path / "work", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "4 steps on 116 rows" in done.stdout
    result = tmp_path / "work" / "runs" / name
    assert (result / "model" / "model.safetensors").is_file()
    record = json.loads((result / f"{name.removeprefix('tiny_')}.json").read_text())
    assert record["settings"]["model"] == "univg:tiny"


def test_the_released_stage_1() -> None:
    raw = yaml_of("qwen2_vl_7b_sft")
    trainer = raw["trainer"]
    assert (raw["max_pixels"], raw["freeze_vision"], trainer["max_length"]) == (401_408, True, 6000)
    assert trainer["per_device_train_batch_size"] * trainer["gradient_accumulation_steps"] == 3
    assert (trainer["learning_rate"], trainer["lr_scheduler_type"]) == (5e-6, "cosine")
    assert (trainer["num_train_epochs"], trainer["warmup_steps"]) == (1, 0.015)


@pytest.mark.parametrize("name", [*GRPO, *SFT])
def test_the_header_is_a_command_that_the_parser_takes(name: str) -> None:
    text = re.sub(r"\$\(univg-train configs (\w+)\)", r"\1", header(name))
    text = text.replace("\\\n", " ")
    (line,) = re.findall(r"^.*univg-train\)?\"? (?:grpo|sft) .*$", text, re.MULTILINE)
    words = shlex.split(line)
    start = next(i for i, word in enumerate(words) if word in ("grpo", "sft"))
    args = build_parser().parse_args(words[start:])
    assert args.command == words[start] == ("sft" if name.endswith("sft") else "grpo")
    assert str(args.config) == name
    assert set(word for word in words[:start] if word in list_configs()) <= set(LAUNCHERS)


@pytest.mark.parametrize("name", LARGE)
def test_accelerate_takes_the_header(name: str, tmp_path: Path) -> None:
    """The options before the script are the launcher's, all behind it the script's."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    commands = re.sub(
        r"\$\(univg-train configs (\w+)\)", lambda found: str(config_path(found[1])), header(name)
    ).replace("\\\n", " ")
    lines = re.findall(r"^.*accelerate launch .*$", commands, re.MULTILINE)
    if "_lora" in name:
        assert not lines
        return
    words = shlex.split(lines[0].replace("$(command -v univg-train)", "/bin/univg-train"))
    words = words[words.index("launch") + 1 :]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert args.training_script == "/bin/univg-train"
    assert args.training_script_args[0] == ("sft" if name.endswith("sft") else "grpo")
    devices = 7 if name.endswith("server") else 8
    assert (args.num_processes, args.mixed_precision) == (devices, "bf16")
    assert args.use_deepspeed and args.zero_stage == 3 and not args.use_fsdp
    if devices == 7:
        assert re.search(r"CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6 accelerate", lines[0])
    # The batch of rollouts holds whole groups on as many devices.
    if not name.endswith("sft"):
        check_batch(load(name), devices)


def test_the_server_of_rollouts_takes_its_options() -> None:
    from trl.scripts.vllm_serve import make_parser

    (line,) = re.findall(r"trl vllm-serve (.*)$", header(SERVER), re.MULTILINE)
    args, rest = make_parser().parse_args_and_config(line.split(), return_remaining_strings=True)
    assert (args.model, args.max_model_len, rest) == (yaml_of(SERVER)["model"], 8192, [])
    assert args.port == yaml_of(SERVER)["trainer"]["vllm_server_port"]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_accelerate_takes_the_launchers_files(name: str) -> None:
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    config = ClusterConfig.from_yaml_file(str(config_path(name)))  # refuses unknown keys
    assert config.num_processes == 8 and config.mixed_precision == "bf16"
    sections = {"zero3": "deepspeed_config", "fsdp2": "fsdp_config"}
    known = vars(launch_command_parser().parse_args(["script"]))
    assert set(yaml_of(name).get(sections.get(name), ())) <= set(known)
    assert (name in sections) is (sections.get(name) in yaml_of(name))


def test_configs_prints_paths_and_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= len(list_configs())
    assert main(["configs", "zero3"]) == 0
    assert Path(capsys.readouterr().out.strip()).name == "zero3.yaml"
    with pytest.raises(UserError, match="did you mean 'zero3'"):
        config_path("zero_3")


def test_the_page_lists_every_file_and_key(repo_root: Path) -> None:
    from univg_train.grpo.settings import DifficultySettings, GrpoData, RewardSettings

    page = (repo_root / "docs" / "train.md").read_text(encoding="utf-8")
    keys = (kind.model_fields for kind in (GrpoData, DifficultySettings, RewardSettings))
    for name in (*list_configs(), *itertools.chain(*keys)):
        assert re.search(rf"`(?:data\.)?{name}`", page), name


# --- each file with a small checkpoint of its architecture ---------------------------------------

IMAGES = {"MGrounding-630k/a.png": (120, 56), "MGrounding-630k/b.png": (84, 90)}
QUESTION = "<image>\n<image>\nFind the cup of the first image in the second image." + THINK
ANSWER = "<think>It stands left.</think><answer>(100,200),(300,400)</answer>"
SMALL = {
    "use_cpu": True,
    "bf16": False,
    "max_steps": 1,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "save_strategy": "no",
    "disable_tqdm": True,
}
SMALL_GRPO = {"num_generations": 2, "steps_per_generation": 1, "max_completion_length": 4}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a small checkpoint of a family, made once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    @functools.cache
    def made(family: str) -> Path:
        return make_checkpoint(family, folder / family)

    return made


def small(name: str, folder: Path, checkpoint: Path) -> list[str]:
    """Settings that let a file run on two images and this checkpoint."""
    draw(folder, IMAGES)
    if name.endswith("sft"):
        row = stage1_row(images=[*IMAGES], conversations=chat(QUESTION, ANSWER))
    else:
        row = stage2_row()
    rows = write_list(folder / "rows.json", [row, row])
    trainer = {**SMALL, **({} if name.endswith("sft") else SMALL_GRPO)}
    trainer["output_dir"] = str(folder / "run")
    changes = [f"trainer.{key}={json.dumps(value)}" for key, value in trainer.items()]
    data = [f"data.file={rows}", f"data.images={folder}", "data.check_leaks=[]"]
    # Of the checkpoint, whose processor vLLM would use.
    limits = ["min_pixels=12544", "max_pixels=28224"] if "vllm" in name else []
    return [f"model={checkpoint}", *limits, *data, *changes]


def family_of(name: str) -> str:
    return re.sub(r"3?_\d+b_.*", "", name)


@pytest.mark.parametrize("name", LARGE)
def test_each_large_one_is_estimated_and_starts_in_small(
    name: str, checkpoints: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "sft" if name.endswith("sft") else "grpo"
    changes = small(name, tmp_path, checkpoints(family_of(name)))
    run = [command, "--config", str(config_path(name)), "--json", *changes]
    whole = [c for c in run if not c.startswith(tuple(f"trainer.{key}=" for key in SMALL_GRPO))]
    whole = [c for c in whole if "batch_size" not in c and "accumulation" not in c]
    sharding = ["--sharding", "none" if "lora" in name else "zero3"]
    more = ["trainer.gradient_accumulation_steps=1"]
    more += [] if command == "sft" else ["trainer.steps_per_generation=2"]
    assert main([*whole, *more, "--dry-run", *sharding]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["total"] > found["memory"]["training"] > 0
    assert found["rows"] == 2 and found["seconds_a_step"][0] > 0

    assert main([*run, "trainer.use_vllm=false"] if command == "grpo" else run) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["steps"], summary["rows"]) == (1, 2)
    assert (Path(summary["model"]) / "model.safetensors").is_file()


def test_grpo_of_a_model_whose_inputs_trl_loses_is_refused(
    checkpoints: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = small("grpo", tmp_path, checkpoints("llava_onevision"))
    config = str(config_path("internvl3_2b_lora"))
    assert main(["grpo", "--config", config, *changes, "dialect=llava_onevision"]) == 2
    message = capsys.readouterr().err
    assert "gives batch_num_images, which GRPO in TRL 1.16 does not pass on" in message
    assert "trl/issues/4488" in message and "univg-train sft" in message
