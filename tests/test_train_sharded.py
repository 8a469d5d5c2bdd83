"""Runs sharded by DeepSpeed and FSDP2, on two CPU processes, beside the same run by DDP.

The files for ``accelerate launch`` are those that are shipped, but for the devices.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_checkpoints import make_checkpoint
from training_forms import THINK, chat, draw, stage1_row, stage2_row, write_list

if importlib.util.find_spec("deepspeed") is None:
    pytest.skip("DeepSpeed is not installed: make test-sharded", allow_module_level=True)

import torch
from safetensors.torch import load_file, save_file

from univg_eval.benchmarks.synthetic.mini import ensure
from univg_train.configs import config_path, list_configs

pytestmark = pytest.mark.timeout(900)
REPO = Path(__file__).resolve().parent.parent
SHARDED = ("zero2", "zero3", "fsdp2")
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
LOGGED = {
    "sft": ("loss", "grad_norm", "entropy"),
    "grpo": ("loss", "grad_norm", "reward", "reward_std", "kl", "entropy", "difficulty/weight"),
}
SCRIPT = Path(__file__).with_name("sharded_run.py")
BOXES = [[100, 200, 300, 400], [0, 0, 500, 500], [10, 10, 900, 800], [400, 100, 700, 300]]
SHIPPED = [
    name for name in list_configs() if re.search(r"qwen.*_\db_", name) and "vllm" not in name
]
# The third of four steps ends the ten rows, with half of the others' batches.
TRAINER = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 2,
    "logging_steps": 1,
    "disable_tqdm": True,
    "report_to": [],
    "max_steps": 4,
    "save_steps": 2,
    # Adam makes a whole step of a gradient that is noise; without a state FSDP2 cannot go on.
    "optim": "sgd",
    "optim_args": "momentum=0.5",
    "learning_rate": 0.1,
}
# The four rollouts of a prompt lie in both processes, and a step has two prompts.
GRPO = {
    "per_device_train_batch_size": 2,
    "num_generations": 4,
    "max_completion_length": 6,
    "beta": 0.04,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lora": {"lora": {"r": 4}},
    "evaluated": {
        "evaluation": {
            "benchmark": "univg_mini",
            "every": 2,
            "per_task": 1,
            "tasks": ["view_diff", "region", "lisa_val"],
            "metric": "miou",
            "batch_size": 1,
            "max_new_tokens": 24,
        },
    },
}
TINY = {"dialect": "qwen2_vl", "style": "direct", "min_pixels": 28224, "max_pixels": 28224}
Trained = Callable[..., str]


class Server:
    """The process that forks the others, see sharded_run.py; its folder is that of the runs."""

    def __init__(self, folder: Path) -> None:
        environment = os.environ | {
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(REPO),
            # DeepSpeed looks for ninja there.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._folder, self._runs = folder, 0
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(
        self,
        program: str,
        argv: list[str],
        launch_file: Path | None = None,
        killed_at: int | None = None,
    ) -> str:
        """Run a program; what it said."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._runs += 1
        output = self._folder / f"output-{self._runs}.txt"
        order = {
            "program": program,
            "argv": argv,
            "launch_file": None if launch_file is None else str(launch_file),
            "killed_at": killed_at,
            "output": str(output),
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        said = output.read_text()
        assert (code == 0) is (killed_at is None), f"exit code {code}: {said}"
        return said


@dataclass(frozen=True)
class Bench:
    """A folder with checkpoints, rows and launch files."""

    folder: Path
    server: Server

    def checkpoint(self, family: str, dtype: torch.dtype = torch.float32) -> Path:
        """Of random weights; ``-tied``: embeddings and head are one, as in releases up to 4B."""
        path = self.folder / f"{family}-{dtype}"
        if not path.exists():
            make_checkpoint(family.removesuffix("-tied"), path)
            weights = load_file(path / "model.safetensors")
            if family.endswith("-tied"):
                config = json.loads((path / "config.json").read_text())
                config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
                (path / "config.json").write_text(json.dumps(config))
                del weights["lm_head.weight"]
            cast = {name: weight.to(dtype) for name, weight in weights.items()}
            save_file(cast, path / "model.safetensors", metadata={"format": "pt"})
        return path

    def config(
        self,
        name: str,
        kind: str,
        model: Path | str,
        settings: dict[str, Any] | None = None,
        **trainer: Any,
    ) -> Path:
        """The file of a run whose folder is `name`: `settings` and arguments of the trainer."""
        form, rows = ("univg_r1_stage1", "sft") if kind == "sft" else ("univg_r1_stage2", "grpo")
        own = {} if kind == "sft" else GRPO
        values = {
            "model": str(model),
            "dialect": "univg_r1",
            "data": {
                "form": form,
                "file": str(self.folder / f"{rows}.json"),
                "root": str(self.folder),
                "check_leaks": [],
                "on_leak": "allow",
            },
            "trainer": {
                **TRAINER,
                **own,
                **trainer,
                "output_dir": str(self.folder / name),
            },
        } | (settings or {})
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def train(
        self,
        launcher: str,
        config: Path,
        killed_at: int | None = None,
        precision: str = "no",
    ) -> str:
        """Run ``univg-train``; what it said."""
        file = None if launcher == "ddp" else self._launch_file(launcher, precision)
        kind = "grpo" if "num_generations" in config.read_text() else "sft"
        argv = [kind, "--config", str(config)]
        return self.server("univg-train", argv, launch_file=file, killed_at=killed_at)

    def _launch_file(self, launcher: str, precision: str) -> Path:
        shipped = "zero3" if launcher == "zero2" else launcher
        path = REPO / "univg_train" / "configs" / "accelerate" / f"{shipped}.yaml"
        values = yaml.safe_load(path.read_text())
        values |= {"num_processes": 2, "use_cpu": True, "mixed_precision": precision}
        if launcher == "zero2":
            values["deepspeed_config"] |= {"zero_stage": 2, "zero3_init_flag": False}
            del values["deepspeed_config"]["zero3_save_16bit_model"]
        target = self.folder / f"{launcher}-{precision}.yaml"
        target.write_text(yaml.safe_dump(values))
        return target

    def logged(self, name: str, key: str = "loss") -> list[float]:
        state = max((self.folder / name).glob("checkpoint-*/trainer_state.json"))
        lines = json.loads(state.read_text())["log_history"]
        return [line[key] for line in lines if key in line]

    def weights(self, name: str, part: str = "model") -> dict[str, torch.Tensor]:
        (path,) = (self.folder / name / part).glob("*.safetensors")
        return load_file(path)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("sharded")
    names = [f"MGrounding-630k/{name}.png" for name in "ab"]
    draw(folder, dict(zip(names, [(112, 84), (84, 112)], strict=True)))
    question = "<image>\n<image>\nFind the cup of the first image in the second image." + THINK
    answers = [
        f"<think>{'Left. ' * n}</think><answer>({n},20),(300,400)</answer>" for n in range(1, 11)
    ]
    sft = [stage1_row(images=names, conversations=chat(question, answer)) for answer in answers]
    write_list(folder / "sft.json", sft)
    write_list(folder / "grpo.json", [stage2_row(answer=box) for box in BOXES])
    ensure(folder, n=2)
    server = Server(folder)
    yield Bench(folder, server)
    server.process.communicate(timeout=60)


def differences(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }
    return max((found[k].float() - expected[k].float()).abs().max().item() for k in found)


@pytest.fixture(scope="module")
def trained(bench: Bench) -> Trained:
    """The name of a run of one launcher, kind, family and variant, which is run once."""

    @functools.cache
    def run(launcher: str, kind: str, family: str, variant: str = "plain") -> str:
        name = f"{launcher}-{kind}-{family}-{variant}"
        settings = VARIANTS[variant]
        model = bench.checkpoint(family)
        if family == "qwen2_vl" and variant == "evaluated":
            model, settings = "univg:tiny", settings | TINY  # which finds some of the objects
        bench.train(launcher, bench.config(name, kind, model, settings))
        return name

    return run


each_family = pytest.mark.parametrize("family", FAMILIES)
each_launcher = pytest.mark.parametrize("launcher", SHARDED)
each_kind = pytest.mark.parametrize("kind", ["sft", "grpo"])


@pytest.mark.parametrize("family", [*FAMILIES, "qwen2_5_vl-tied"])
@each_launcher
@each_kind
def test_it_trains_as_ddp_does_and_saves_the_checkpoints_names(
    bench: Bench, trained: Trained, launcher: str, kind: str, family: str
) -> None:
    found, expected = trained(launcher, kind, family), trained("ddp", kind, family)
    for key in LOGGED[kind]:
        values = bench.logged(expected, key)
        assert len(set(values)) > 2, f"{key} says nothing"
        assert bench.logged(found, key) == pytest.approx(values, rel=1e-4, abs=1e-6)
    begun = load_file(bench.checkpoint(family) / "model.safetensors")
    assert differences(bench.weights(found), begun) > 5e-3, "nothing was learnt"
    assert differences(bench.weights(found), bench.weights(expected)) < 1e-6


@each_family
@each_launcher
@each_kind
def test_a_killed_run_goes_on_to_the_same_weights(
    bench: Bench, trained: Trained, launcher: str, kind: str, family: str
) -> None:
    name = f"killed-{launcher}-{kind}-{family}"
    config = bench.config(name, kind, bench.checkpoint(family))
    bench.train(launcher, config, killed_at=3)
    assert not (bench.folder / name / "model").exists()
    assert "going on from" in bench.train(launcher, config)
    assert differences(bench.weights(name), bench.weights(trained(launcher, kind, family))) < 1e-6


@pytest.mark.parametrize(
    ("kind", "family"), [*(("sft", family) for family in FAMILIES), ("grpo", "qwen2_vl")]
)
@each_launcher
def test_it_is_evaluated_as_ddp_does(
    bench: Bench, trained: Trained, launcher: str, kind: str, family: str
) -> None:
    """Three samples, one at a time: the second process has no second one."""
    found, expected = (
        bench.folder / trained(x, kind, family, "evaluated") for x in (launcher, "ddp")
    )
    for step in ("step-000000", "step-000002", "step-000004"):
        responses, scores = (
            [(run / "evaluations" / step / name).read_text() for run in (found, expected)]
            for name in ("responses.jsonl", "scores.jsonl")
        )
        assert responses[0] == responses[1]
        assert scores[0] == scores[1]
    best = (load_file(run / "best" / "model.safetensors") for run in (found, expected))
    assert differences(*best) < 1e-6
    if family == "qwen2_vl":
        begun = found / "evaluations" / "step-000000" / "scores.jsonl"
        ious = [json.loads(line)["iou"] for line in begun.read_text().splitlines()]
        assert max(ious) > 0.9, "an object that it finds"


@each_family
@each_launcher
@each_kind
def test_an_adapter_is_trained_and_merged_as_by_ddp(
    bench: Bench, trained: Trained, launcher: str, kind: str, family: str
) -> None:
    found, expected = (trained(x, kind, family, "lora") for x in (launcher, "ddp"))
    begun = load_file(bench.checkpoint(family) / "model.safetensors")
    assert differences(bench.weights(found), begun) > 1e-3, "nothing was learnt"
    assert differences(bench.weights(found), bench.weights(expected)) < 1e-6
    adapters = [bench.weights(name, "adapter") for name in (found, expected)]
    assert differences(*adapters) < 1e-6


@each_launcher
def test_the_optimizers_state_is_restored(bench: Bench, launcher: str) -> None:
    options = {"optim": "adamw_torch", "optim_args": None, "learning_rate": 1e-3}
    names = [f"{launcher}-whole", f"{launcher}-killed"]
    model = bench.checkpoint("qwen2_vl")
    whole, killed = (bench.config(name, "sft", model, **options) for name in names)
    bench.train(launcher, whole)
    bench.train(launcher, killed, killed_at=3)
    bench.train(launcher, killed)
    assert differences(*map(bench.weights, names)) < 1e-6


@pytest.mark.parametrize("launcher", ["zero3", "fsdp2"])
def test_the_evaluation_opens_the_saved_folder(
    bench: Bench, trained: Trained, launcher: str
) -> None:
    said = []
    for name in (trained(x, "sft", "qwen2_vl", "evaluated") for x in (launcher, "ddp")):
        out = bench.folder / f"univg-eval-{name}"
        if not out.exists():
            folder = bench.folder / name / "model"
            limits = "min_pixels=28224,max_pixels=28224"
            options = ["--model", "univg", "--model_args", f"pretrained={folder},{limits}"]
            options += ["--tasks", "univg_mini_view_diff,univg_mini_region", "--limit", "2"]
            options += ["--gen_kwargs", "max_new_tokens=24", "--output_path", str(out)]
            bench.server("univg", ["eval", *options])
        (responses,) = out.rglob("responses.jsonl")
        said.append(responses.read_text())
    assert len(said[0].splitlines()) == 4
    assert said[0] == said[1]


@pytest.mark.parametrize("config", SHIPPED)
@pytest.mark.parametrize("launcher", ["zero3", "fsdp2"])
def test_a_shipped_file_starts(bench: Bench, launcher: str, config: str) -> None:
    """With a small model in the place of the real one, on two processes, for one step."""
    family, _, what = config.partition(re.search(r"_\db_", config)[0])
    kind = "sft" if what.endswith("sft") else "grpo"
    source = bench.checkpoint(family, torch.bfloat16)
    values = yaml.safe_load(config_path(config).read_text())
    values["model"] = str(source)
    values["data"] |= {"root": str(bench.folder), "check_leaks": []}
    values["data"]["file"] = str(bench.folder / f"{kind}.json")
    folder = bench.folder / f"shipped-{launcher}-{config}"
    values["trainer"] |= {"output_dir": str(folder), "max_steps": 1, "use_cpu": True}
    if kind == "grpo":
        values["trainer"] |= {"max_completion_length": 8}
    path = bench.folder / f"{folder.name}.yaml"
    path.write_text(yaml.safe_dump(values))
    bench.train(launcher, path, precision="bf16")
    assert json.loads((folder / "summary.json").read_text())["steps"] == 1
    differences(bench.weights(folder.name), load_file(source / "model.safetensors"))
