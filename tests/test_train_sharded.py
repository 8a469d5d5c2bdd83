"""Runs sharded by DeepSpeed and FSDP2, on two CPU processes, beside the same run by DDP.

The files for ``accelerate launch`` are those that are shipped, but for the devices.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
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
from safetensors.torch import load_file

REPO = Path(__file__).resolve().parent.parent
SHARDED = ("zero2", "zero3", "fsdp2")
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
LOGGED = ("loss", "grad_norm", "reward", "reward_std", "kl", "entropy", "difficulty/weight")
SCRIPT = Path(__file__).with_name("sharded_run.py")
BOXES = [[100, 200, 300, 400], [0, 0, 500, 500], [10, 10, 900, 800], [400, 100, 700, 300]]
TRAINER = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "disable_tqdm": True,
    "report_to": [],
    "max_steps": 4,
    "save_steps": 2,
    # Adam makes a whole step of a gradient that is noise.
    "optim": "sgd",
    "learning_rate": 0.1,
}
# The four rollouts of a prompt lie in both processes, and a step has two prompts.
GRPO = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_generations": 4,
    "max_completion_length": 6,
    "beta": 0.04,
    "max_steps": 3,
}


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
        path = self.folder / f"{family}-{dtype}"
        if not path.exists():
            make_checkpoint(family, path)
            weights = load_file(path / "model.safetensors")
            from safetensors.torch import save_file

            cast = {name: weight.to(dtype) for name, weight in weights.items()}
            save_file(cast, path / "model.safetensors", metadata={"format": "pt"})
        return path

    def config(self, name: str, kind: str, model: Path, **trainer: Any) -> Path:
        form, rows = ("univg_r1_stage1", "sft") if kind == "sft" else ("univg_r1_stage2", "grpo")
        own = {} if kind == "sft" else GRPO
        values = {
            "model": str(model),
            "dialect": "univg_r1",
            "data": {
                "form": form,
                "file": str(self.folder / f"{rows}.json"),
                "check_leaks": [],
            },
            "trainer": {
                **TRAINER,
                **own,
                **trainer,
                "output_dir": str(self.folder / name),
            },
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def train(
        self,
        launcher: str,
        kind: str,
        config: Path,
        *changes: str,
        killed_at: int | None = None,
        precision: str = "no",
    ) -> str:
        """Run ``univg-train``; what it said."""
        file = None if launcher == "ddp" else self._launch_file(launcher, precision)
        argv = [kind, "--config", str(config), *changes]
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

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("sharded")
    names = [f"MGrounding-630k/{name}.png" for name in "ab"]
    draw(folder, dict(zip(names, [(112, 84), (84, 112)], strict=True)))
    question = "<image>\n<image>\nFind the cup of the first image in the second image." + THINK
    answers = [
        f"<think>{'Left. ' * n}</think><answer>({n},20),(300,400)</answer>" for n in range(1, 9)
    ]
    sft = [stage1_row(images=names, conversations=chat(question, answer)) for answer in answers]
    write_list(folder / "sft.json", sft)
    write_list(folder / "grpo.json", [stage2_row(answer=box) for box in BOXES])
    server = Server(folder)
    yield Bench(folder, server)
    server.process.communicate(timeout=60)


def differences(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    assert {k: (v.shape, v.dtype) for k, v in found.items()} == {
        k: (v.shape, v.dtype) for k, v in expected.items()
    }
    return max((found[k].float() - expected[k].float()).abs().max().item() for k in found)


@pytest.fixture(scope="module")
def by_ddp(bench: Bench) -> Any:
    done: dict[tuple[str, str], str] = {}

    def run(kind: str, family: str) -> str:
        if (kind, family) not in done:
            name = f"ddp-{kind}-{family}"
            bench.train("ddp", kind, bench.config(name, kind, bench.checkpoint(family)))
            done[kind, family] = name
        return done[kind, family]

    return run


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("launcher", SHARDED)
def test_it_trains_as_ddp_does_and_saves_the_checkpoints_names(
    bench: Bench, by_ddp: Any, launcher: str, family: str
) -> None:
    expected = by_ddp("sft", family)
    name = f"{launcher}-{family}"
    source = bench.checkpoint(family)
    bench.train(launcher, "sft", bench.config(name, "sft", source))
    assert bench.logged(name) == pytest.approx(bench.logged(expected), abs=1e-4)
    begun = load_file(source / "model.safetensors")
    assert differences(bench.weights(name), begun) > 1e-2, "nothing was learnt"
    assert differences(bench.weights(name), bench.weights(expected)) < 1e-5


@pytest.mark.parametrize("kind", ["sft", "grpo"])
@pytest.mark.parametrize("launcher", ["zero3", "fsdp2"])
def test_half_precision_is_saved_as_it_was_loaded(bench: Bench, launcher: str, kind: str) -> None:
    source = bench.checkpoint("qwen2_vl", torch.bfloat16)
    name = f"half-{launcher}-{kind}"
    options = {"bf16": True, "model_init_kwargs": {"dtype": "bfloat16"}}
    bench.train(launcher, kind, bench.config(name, kind, source, **options), precision="bf16")
    saved = bench.weights(name)
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    differences(saved, load_file(source / "model.safetensors"))


@pytest.mark.parametrize("launcher", ["zero3", "fsdp2"])
def test_a_killed_run_goes_on_to_the_same_weights(bench: Bench, launcher: str) -> None:
    # SGD has no state to restore.
    options = {"optim": "adamw_torch", "learning_rate": 1e-3}
    names = [f"{launcher}-whole", f"{launcher}-killed"]
    model = bench.checkpoint("qwen2_vl")
    whole, killed = (bench.config(name, "sft", model, **options) for name in names)
    bench.train(launcher, "sft", whole)
    bench.train(launcher, "sft", killed, killed_at=3)
    assert not (bench.folder / names[1] / "model").exists()
    assert "going on from" in bench.train(launcher, "sft", killed)
    assert differences(*map(bench.weights, names)) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("launcher", SHARDED)
def test_grpo_trains_as_ddp_does(bench: Bench, by_ddp: Any, launcher: str, family: str) -> None:
    expected, name = by_ddp("grpo", family), f"grpo-{launcher}-{family}"
    source = bench.checkpoint(family)
    bench.train(launcher, "grpo", bench.config(name, "grpo", source))
    for key in LOGGED:
        values = bench.logged(expected, key)
        assert len(set(values)) == GRPO["max_steps"], f"{key} says nothing"
        assert bench.logged(name, key) == pytest.approx(values, rel=1e-5, abs=1e-6)
    begun = load_file(source / "model.safetensors")
    assert differences(bench.weights(name), begun) > 5e-3, "nothing was learnt"
    assert differences(bench.weights(name), bench.weights(expected)) < 1e-6
