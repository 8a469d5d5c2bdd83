"""`univg-train grpo`: what is refused before a model is loaded, estimates, kill and resume."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_sample
from lmms_data import environment, make_checkpoint
from sft_data import TRAINER, write
from training_forms import draw, stage2_row, write_list

from univg_eval.samples import write_benchmark
from univg_train.cli import main

pytest.importorskip("trl")

import torch
from accelerate.data_loader import prepare_data_loader
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import Qwen2VLConfig
from trl.trainer.utils import RepeatSampler

from univg_eval.dialects import declared_settings
from univg_eval.models.pretrained import load_config
from univg_train.grpo.estimate import estimate_grpo
from univg_train.grpo.settings import load_grpo_settings
from univg_train.runs.estimate import GPUS, Gpu, measure_rows, model_sizes
from univg_train.runs.resume import DrawPastOrders
from univg_train.runs.training import check_run

SIZES = {"MGrounding-630k/a.png": (56, 56), "MGrounding-630k/b.png": (84, 56)}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return make_checkpoint(tmp_path_factory.mktemp("model") / "random", "qwen2_vl")


@pytest.fixture
def config(tmp_path: Path, model: Path) -> Path:
    draw(tmp_path, SIZES)
    boxes = [[100, 200, 300, 400], [0, 0, 500, 500], [10, 10, 900, 800], [400, 100, 700, 300]]
    rows = write_list(tmp_path / "rows.json", [stage2_row(answer=box) for box in boxes])
    settings = {
        "model": str(model),
        "dialect": "univg_r1",
        "min_pixels": 784,
        "max_pixels": 3136,
        "data": {"form": "univg_r1_stage2", "file": str(rows), "check_leaks": []},
        "trainer": {
            **TRAINER,
            "output_dir": str(tmp_path / "run"),
            "num_train_epochs": 1,
            "gradient_accumulation_steps": 2,
            "num_generations": 2,
            "max_completion_length": 4,
            "learning_rate": 1e-3,
            "beta": 0.04,
            "save_steps": 1,
        },
    }
    return write(tmp_path / "config.yaml", settings)


def grpo(config: Path, *arguments: str) -> int:
    return main(["grpo", "--config", str(config), *arguments])


@pytest.fixture
def refusal(config: Path, refused: Any) -> Any:
    """The message of a run with changed settings, which must not have begun to load a model."""
    return lambda *more: refused("grpo", "--config", config, *more)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("trainer.num_generations=3", "num_generations=3 does not divide the 4 rollouts"),
        ("trainer.num_generations=1", "expected at least 2 rollouts"),
        ("difficulty.from=exp", "did you mean 'difficulty.form'"),
        ("lora.rr=8", "unknown key 'lora.rr'"),
        ("model=[1]", "model is [1]; expected a folder"),
        ("dialect=univg_r2", "univg_r2"),
        ("dialect=molmo", "gives points"),
        ("data.check_leaks=mig_bench", "data.check_leaks is 'mig_bench'; expected a list"),
        ("lora=8", "lora is 8; expected keys"),
        ("max_pixels=10", "max_pixels"),
        ("rewards.length=[9]", "expected two numbers of tokens"),
        ("style=thinking", "unknown prompt style 'thinking'"),
        ("trainer.save_only_model=true", "could not go on"),
        ("trainer.deepspeed=x.json", "accelerate launch"),
        ("trainer.lr_scheduler_type=cosinus", "refuses its settings"),  # TRL's own words
        ("trainer.loss_type=gspo", "trainer.loss_type is 'gspo'; expected 'grpo', 'bnpo'"),
        ("trainer.save_strategy=off", "trainer.save_strategy is 'off'; expected 'steps'"),
        ("trainer.bf16=yes", "trainer.bf16 is 'yes'; expected true or false"),
        ("trainer.save_strategy=best", "expected 'steps', 'epoch' or 'no'"),
        ("trainer.learning_rate=fast", "trainer.learning_rate is 'fast'; expected a number"),
        ("trainer.temperature=0", "expected a number above 0"),
        ("trainer.eval_steps=3", "trainer.eval_steps is not to be set: there is no evaluation"),
        ("trainer.ignore_data_skip=true", "would see rows twice"),
        ("trainer.steps_per_generation=0", "steps_per_generation is 0; expected at least 1"),
        ("trainer.generation_batch_size=5", "no multiple of the 2 rollouts of a pass"),
        ("trainer.generation_batch_size=8 trainer.steps_per_generation=2", "in two ways"),
        (
            "trainer.gradient_accumulation_steps=4 trainer.steps_per_generation=3",
            "the 3 passes of a batch of rollouts (trainer.steps_per_generation) do not divide",
        ),
        (
            "trainer.num_generations=4 trainer.steps_per_generation=1",
            "num_generations=4 does not divide the 2 rollouts that are generated together "
            "(per_device_train_batch_size=2 x 1 processes x steps_per_generation=1)",
        ),
        ("--sharding zero3", "--sharding describes a run to come"),
        (
            "trainer.use_vllm=true trainer.vllm_max_model_length=64 --dry-run",
            "vllm_max_model_length=64 is less than the longest prompt",
        ),
        ("trainer.gradient_accumulation_steps=16", "takes 16 prompts: there is no whole batch"),
        ("trainer.num_train_epochs=0", "there is no step"),
        ("trainer.model_init_kwargs.dtype=float17", "expected one of: float32"),
        ("trainer.model_init_kwargs.torch_dtype=float32", "its name is dtype"),
        ("trainer.model_init_kwargs.attn_implementation=flash_attention_2", "flash-attn"),
        ("trainer.use_vllm=true", "needs the package 'vllm'"),
        ("trainer.report_to=[no_such_thing]", "no_such_thing, which is not installed"),
        ("trainer.output_dir=/proc/none", "cannot use /proc/none"),
        ("difficulty.form=log trainer.num_iterations=2 --dry-run", "more than one update"),
        ("lora.r=2 lora.target_modules=[nope]", "No modules were targeted"),
        ("min_pixels=5000", "expected min_pixels <= max_pixels"),
        ("dialect=null", "dialect is None; expected how the model writes boxes"),
        ("dialect=qwen2_5_vl model=WIDE", "makes it"),
        ("model=FOLDER/none", "no such folder, and as a name of the Hub: "),
        ("dialect=qwen2_5_vl min_pixels=null", "set min_pixels and max_pixels"),
        ("model.x=1", "which has no keys"),
        ("nonsense", "is no key=value"),
    ],
)
def test_settings_are_refused(
    config: Path, refusal: Any, model: Path, change: str, match: str
) -> None:
    if "WIDE" in change:  # its patches are not those of the dialect
        change = change.replace("WIDE", str(with_patches_of(16, model, config.parent / "wide")))
    change = change.replace("FOLDER", str(config.parent))
    assert match in refusal(*change.split())


def with_patches_of(size: int, model: Path, folder: Path) -> Path:
    """The model's folder without weights, whose processor cuts patches of another size."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (path,) = folder.glob("*processor_config.json")
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.get("image_processor", settings)["patch_size"] = size
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_a_folder_in_which_nothing_was_kept_takes_other_settings(
    config: Path, refusal: Any
) -> None:
    """A run that died before its first checkpoint leaves its settings alone."""
    (config.parent / "run").mkdir()
    (config.parent / "run" / "grpo.json").write_text('{"settings": {"model": "other"}}')
    message = refusal("trainer.report_to=[no_such_thing]")
    assert "holds a run" not in message and "no_such_thing" in message


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (stage2_row(images=[]), "row 1"),
        (stage2_row(images=["MGrounding-630k/a.png", "MGrounding-630k/none.png"]), "none.png"),
        (stage2_row(answer=[100, 200, 300, 1400]), "1400"),
        (stage2_row(answer=[300, 200, 100, 400]), "row 1"),
    ],
)
def test_bad_rows_are_refused(config: Path, refusal: Any, row: dict[str, Any], match: str) -> None:
    write_list(config.parent / "rows.json", [stage2_row(), row])
    assert match in refusal()


def test_leaks_are_looked_for_by_default(
    config: Path, refusal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = config.parent / "root"
    monkeypatch.setenv("UNIVG_DATA", str(root))
    by_default = ("data.check_leaks=null",)
    message = refusal(*by_default)
    assert "no benchmark is prepared" in message and "data.check_leaks: []" in message
    image = "b/MGrounding-630k/a.png"
    draw(root, {image: (56, 56)})
    sample = make_sample(benchmark="b", images=(image,), widths=(56,), heights=(56,), targets=())
    write_benchmark([sample], root=root, benchmark="b", manifest_extra={})
    assert "in an evaluation set" in refusal(*by_default)


def test_the_dry_run_loads_no_weights(
    config: Path, capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert grpo(config, f"model={bare}", "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)

    with safe_open(model / "model.safetensors", "pt") as weights:
        sizes = {name: weights.get_tensor(name).numel() for name in weights.keys()}  # noqa: SIM118
    trained = sum(n for name, n in sizes.items() if not name.startswith("visual."))
    assert (found["parameters"], found["trained"]) == (sum(sizes.values()), trained)
    # 4 rows, 2 rollouts each, 4 together: 2 batches of 2 passes each; 2 passes make a step.
    assert (found["rows"], found["steps"], found["rollouts"]) == (4, 2, 8)
    assert found["tokens"] == longest_prompt(config)
    memory = found["memory"]
    assert memory["weights"] == 4 * found["parameters"] == memory["reference"]
    assert memory["optimizer"] == 8 * found["trained"] == 2 * memory["gradients"]
    assert not (tmp_path / "run").exists()
    changes = ("trainer.num_generations=4", "--processes", "3", "trainer.beta=0.0")
    assert grpo(config, "min_pixels=784", "--dry-run", *changes) == 0
    assert "memory on each of 3 devices" in capsys.readouterr().out


def longest_prompt(config: Path) -> int:
    """Tokens as TRL makes them, of real images."""
    checked, lengths = check_run(load_grpo_settings(config)), []
    for row in checked.data:
        text = checked.processor.apply_chat_template(row["prompt"], add_generation_prompt=True)
        inputs = checked.processor(images=row["images"], text=text, add_special_tokens=False)
        lengths.append(len(inputs["input_ids"][0]))
    return max(lengths)


def test_the_memory_of_a_7b(config: Path, tmp_path: Path) -> None:
    """Against the published size, and figures worked out by hand from the module's formulas."""
    big = tmp_path / "7b"
    text = {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "num_heads": 16}
    Qwen2VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=False
    ).save_pretrained(big)
    changes = [f"model={big}", "trainer.per_device_train_batch_size=2", "trainer.use_cpu=false"]
    changes += ["trainer.model_init_kwargs.dtype=bfloat16", "trainer.gradient_checkpointing=true"]
    changes += ["trainer.bf16=true"]
    settings = load_grpo_settings(config, changes)
    checked = dataclasses.replace(
        check_run(load_grpo_settings(config)), config=load_config(str(big))
    )

    def memory(*more: str, sharding: str = "zero3", processes: int = 2) -> Any:
        settings = load_grpo_settings(config, [*changes, *more])
        where: Any = {"processes": processes, "sharding": sharding, "gpu": GPUS["a100"]}
        return estimate_grpo(settings, checked, **where).memory

    found = estimate_grpo(settings, checked, processes=2, sharding="zero3", gpu=GPUS["a100"])
    total = 8_291_375_616
    trained = 7_615_616_512  # the language model: Qwen2-7B
    assert (found.parameters, found.trained) == (total, trained)
    prompt, sequence = found.tokens, found.tokens + 4
    patches = 4 * image_tokens(config)  # a token is four of 3 x 2 x 14 x 14 numbers
    fixed = found.memory.fixed
    assert fixed["weights"] == fixed["reference"] == total
    assert fixed["gradients"] + fixed["optimizer"] == 7 * trained
    assert fixed["images"] == 4 * patches * 1176 * 4  # of four rollouts, in float32

    gathered = 2 * (2 * 233_057_792 + 152064 * 3584)  # two layers and the words, in half precision
    inputs = 2 * sequence * 3584 * 2 * 31 + 2 * sequence**2 * 3
    words = 152064 * 3584 * 6 + 8 * (3584 * 6 + 32768 * 2)
    assert abs(found.memory.phases["training"] - (inputs + words + gathered)) < 1000
    # The vision tower's rotary positions in float32, four times 36 h; the pixels once in bfloat16.
    seen = 4 * patches * (36 * 1280 + 1176 * 2)
    cache = 2 * 28 * 4 * 128 * 2
    decoder = 4 * prompt * (2 * (4 * 3584 + 3 * 18944)) + 4 * prompt**2 * 3
    last = 4 * sequence * cache * 29 // 28
    first = max(seen, decoder) + 4 * prompt * cache
    generation = 2 * total + fixed["images"] + max(first, last)
    assert found.memory.phases["generation"] == generation
    assert found.memory.total == sum(fixed.values()) + generation
    assert memory("trainer.ds3_gather_for_generation=false").phases["generation"] == (
        generation - 2 * total
    )

    fsdp = memory(sharding="fsdp2")
    assert fsdp.fixed["weights"] == (2 * (total - trained) + 4 * trained) // 2
    assert fsdp.phases["reference pass"] == 2 * total
    assert fsdp.phases["generation"] == generation - 2 * total
    zero2 = memory(sharding="zero2").fixed
    assert (zero2["weights"], zero2["gradients"]) == (2 * total, trained)
    assert memory(sharding="none").fixed["gradients"] == 2 * 2 * trained  # and DDP's buckets

    vllm = ("trainer.use_vllm=true", "trainer.vllm_mode=colocate")
    assert memory(*vllm).fixed["vllm"] == int(0.3 * 79 * 2**30)
    asleep = memory(*vllm, "trainer.vllm_enable_sleep_mode=true")
    assert (asleep.phases["generation"], "vllm" in asleep.fixed) == (int(0.3 * 79 * 2**30), False)
    assert memory(*vllm, "trainer.vllm_mode=server").phases["generation"] == 0

    lora = memory("lora.r=8", sharding="none", processes=1).fixed
    adapter = 28 * 8 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert lora["reference"] == 0
    assert lora["gradients"] + lora["optimizer"] == 12 * adapter
    assert lora["weights"] == 2 * total + 4 * adapter


def image_tokens(config: Path) -> int:
    """Of the longest prompt, as the processor makes them of real images."""
    checked = check_run(load_grpo_settings(config))
    row = max(checked.data, key=lambda row: sum(w * h for w, h in row["image_sizes"]))
    text = checked.processor.apply_chat_template(row["prompt"], add_generation_prompt=True)
    ids = checked.processor(images=row["images"], text=text)["input_ids"][0]
    return ids.count(checked.processor.image_token_id)


def test_time_is_that_of_the_data_sheet(config: Path) -> None:
    """Arithmetic of a step by hand, at half and a fifth of the GPU's rate, and what is read."""
    settings = load_grpo_settings(config, ["trainer.beta=0.0"])
    checked = check_run(settings)
    gpu = Gpu("slow", 2**40, 1e6, 1e30)  # arithmetic alone takes time
    found = estimate_grpo(settings, checked, processes=1, sharding="none", gpu=gpu)
    sizes = model_sizes(settings, checked.config)
    rows = measure_rows(checked, sizes)
    text, vision = sizes.text, sizes.vision

    def forward(length: float) -> float:
        return length * (2 * text.parameters + 2 * text.count * text.query * length)

    seen = 2 * vision.parameters * rows.patches * rows.mean / rows.longest
    # Four rollouts are generated by a pass over their prompts, then trained on: 3 passes' worth.
    one = 4 * (forward(rows.mean) + seen) + 4 * (3 * forward(rows.mean + 4) + seen)
    assert found.step.least == pytest.approx(one / 0.5e6)
    assert found.step.most == pytest.approx(one / 0.2e6 + 4 * 1e-3 * text.count)
    fast = dataclasses.replace(gpu, arithmetic=1e30, bandwidth=1e3)
    read = 4 * (text.parameters + sizes.vocabulary * text.width)
    read += 4 * (rows.mean + 2) * 2 * text.count * text.key_value * 4
    found = estimate_grpo(settings, checked, processes=1, sharding="none", gpu=fast)
    assert found.step.least == pytest.approx(4 * read / 0.8e3)


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from transformers import Trainer
def die(self, folder):
    if folder.endswith("checkpoint-2"):
        os.kill(os.getpid(), signal.SIGKILL)  # the weights are written, the state is not
    return optimizer(self, folder)
optimizer, Trainer._save_optimizer_and_scheduler = Trainer._save_optimizer_and_scheduler, die
from univg_train.cli import main
sys.exit(main(sys.argv[1:]))
"""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_killed_run_goes_on_to_the_same_end(
    config: Path,
    repo_root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Its rollouts hit and miss, so that there is something to learn in two steps.
    model = repo_root / "univg_eval" / "models" / "tiny"
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings |= {"model": str(model), "dialect": "qwen2_vl", "style": "direct"}
    settings |= {"min_pixels": 28224, "max_pixels": 28224}
    settings["trainer"] |= {"max_completion_length": 24, "temperature": 1.5}
    settings["trainer"] |= {"num_generations": 4, "per_device_train_batch_size": 4}
    write(config, settings)

    run = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "grpo", "--config", str(config)],
        env=environment(tmp_path),
        cwd=repo_root,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (run / "checkpoint-1" / "trainer_state.json").exists()
    assert (run / "checkpoint-2" / "model.safetensors").exists()
    assert not (run / "model").exists()

    assert grpo(config, "trainer.max_steps=9") == 2
    assert "trainer.max_steps was None and is 9" in capsys.readouterr().err
    warned: list[str] = []
    handler = SimpleNamespace(level=0, handle=lambda record: warned.append(record.getMessage()))
    monkeypatch.setattr(logging.getLogger("transformers.trainer"), "handlers", [handler])
    assert grpo(config, "--json") == 0
    logging.getLogger("transformers.trainer").warning("There were missing keys in the checkpoint")
    assert [line.partition(":")[0] for line in warned if "keys" in line] == [
        "There were missing keys in the checkpoint"  # of this test: none of the run
    ]
    summary = json.loads(capsys.readouterr().out)
    assert (summary["model"], summary["rows"], summary["steps"]) == (str(run / "model"), 4, 2)
    assert 0 < summary["trainable_parameters"] < summary["parameters"]
    for folder in (run / "checkpoint-1", run / "model"):
        assert declared_settings(folder) == {"dialect": "qwen2_vl", "prompt": "direct"}
    saved = json.loads((run / "model" / "processor_config.json").read_text(encoding="utf-8"))
    assert set(saved["image_processor"]["size"].values()) == {28224}

    other = tmp_path / "uninterrupted"
    assert grpo(config, f"trainer.output_dir={other}") == 0
    before, first, ours, theirs = map(
        weights, (model, run / "checkpoint-1", run / "model", other / "model")
    )
    assert ours.keys() == theirs.keys() == before.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    kept = [(folder / "rollouts.jsonl").read_text(encoding="utf-8") for folder in (run, other)]
    assert kept[0] == kept[1]
    assert [json.loads(line)["step"] for line in kept[0].splitlines()] == [1, 2]
    for earlier in (before, first):
        changed = {name for name in ours if not torch.equal(ours[name], earlier[name].float())}
        assert changed and not any("visual" in name for name in changed)

    mark = (run / "model" / "config.json").stat().st_mtime_ns
    assert grpo(config, "--json") == 0  # finished: nothing is trained
    assert '"steps": 2' in capsys.readouterr().out
    assert (run / "model" / "config.json").stat().st_mtime_ns == mark


@pytest.mark.parametrize(("processes", "steps"), [(1, 4), (1, 7), (2, 2), (2, 3)])
def test_the_order_of_prompts_goes_on_in_a_later_epoch(processes: int, steps: int) -> None:
    """A new loader, brought to the step, takes the order that the old one has in its epoch."""

    def loader() -> Any:  # four or two passes an epoch
        sampler = RepeatSampler(range(8), mini_repeat_count=2, batch_size=2, seed=3)
        return prepare_data_loader(
            DataLoader(list(range(8)), batch_size=4, sampler=sampler),
            num_processes=processes,
            process_index=processes - 1,
            put_on_device=False,
            dispatch_batches=False,
        )

    whole, again = loader(), loader()
    epochs = [[batch.tolist() for batch in whole] for _ in range(3)]
    assert epochs[0] != epochs[1] and len(epochs[0]) == 4 // processes
    state = SimpleNamespace(global_step=steps)
    arguments = SimpleNamespace(gradient_accumulation_steps=1)
    DrawPastOrders().on_train_begin(arguments, state, None, train_dataloader=again)
    assert [batch.tolist() for batch in again] == epochs[1]


def test_an_adapter_is_merged_into_the_model_folder(
    config: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ["lora.r=2", "trainer.max_steps=1"]
    assert grpo(config, *changes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    merged, before = weights(tmp_path / "run" / "model"), weights(model)
    assert merged.keys() == before.keys()
    assert declared_settings(tmp_path / "run" / "model")["prompt"] == "think"

    # Killed after its last checkpoint, in the middle of an epoch: no step is taken once more.
    (tmp_path / "run" / "model").rename(tmp_path / "run" / ".model-new")
    (tmp_path / "run" / "summary.json").unlink()
    assert grpo(config, *changes, "--json") == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 1
    again = weights(tmp_path / "run" / "model")
    assert all(torch.equal(again[name], merged[name]) for name in merged)


def test_unknown_sharding_is_refused(refusal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    assert "FSDP is set up in version 1" in refusal()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "1")
    assert "DeepSpeed is set up with ZeRO stage 1; expected 2 or 3" in refusal()
