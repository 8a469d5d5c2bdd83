"""Data and commands that the tests of lmms-eval share: small prepared benchmarks, subprocesses."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from preloaded import run_forked

from univg_eval.samples import GroundingSample, Target, write_benchmark

REPO = Path(__file__).resolve().parent.parent
TASKS = REPO / "tasks"
MIG_KEYS = (
    *("common_object", "diff", "view_diff", "object_tracking", "multi_view", "region"),
    *("refer_grounding", "group_grounding", "reasoning", "correspondence"),
)
ZERO_SHOT = {
    "univg_lisa_val": ("lisa", "val"),
    "univg_lisa_test": ("lisa", "test"),
    "univg_llmseg": ("llmseg", "test"),
    "univg_reasonvos": ("reasonvos", "test"),
    "univg_revos": ("revos", "test"),
}
FULL = {
    task.replace(name, f"{name}_full"): (f"{name}_full", split)
    for task, (name, split) in ZERO_SHOT.items()
}
VIDEO = {
    f"univg_{name}_video": (name, "test")
    for name in ("reasonvos", "revos", "reasonvos_full", "revos_full")
}
REFCOCO = {
    f"univg_{name}_{split}": (name, split)
    for name, splits in (
        ("refcoco", ("val", "testA", "testB")),
        ("refcoco_plus", ("val", "testA", "testB")),
        ("refcocog", ("val", "test")),
    )
    for split in splits
}
OTHERS = {
    "univg_ref_l4_val": ("ref_l4", "val"),
    "univg_ref_l4_test": ("ref_l4", "test"),
    "univg_refcoco_m": ("refcoco_m", "val"),
    "univg_mc_bench": ("mc_bench", "val"),
    "univg_groundingme": ("groundingme", "test"),
}
GREFCOCO = {f"univg_grefcoco_{split}": ("grefcoco", split) for split in ("val", "testA", "testB")}
REX_OMNI = {
    f"univg_rex_omni_{split}": ("rex_omni", split)
    for split in ("refcocog_val", "refcocog_test", "humanref", "dense200", "visdrone", "coco")
}
FIND_ALL = GREFCOCO | REX_OMNI | {"univg_humanref": ("humanref", "test")}
PHOTO_KEYS = (
    *("photos", "find_crop", "difference", "second_view", "moving_patch", "which_photo"),
    *("large", "easy"),
)
PLUS_KEYS = ("several", "count_varies", "absent", "two_images", "roles")
FRAMES = ("1.png", "2.png", "10.png")


def make_sample(benchmark: str, task: str, index: int, split: str = "test", **changes: Any):
    values: dict[str, Any] = {
        "id": f"{benchmark}-{task}-{split}-{index}",
        "benchmark": benchmark,
        "task": task,
        "split": split,
        "images": (f"{benchmark}/a.png", f"{benchmark}/b.png"),
        "widths": (64, 128),
        "heights": (48, 96),
        "instruction": "Where is it in the second image?",
        "targets": (Target(1, (0.1, 0.2, 0.5 + 0.01 * index, 0.9)),),
        "image_is_given": True,
        "cluster": f"{benchmark}-{index // 2}",
        "source": {"revision": "original"} if benchmark == "mig_bench" else {},
    }
    return GroundingSample(**(values | changes))


def write_images(root: Path, benchmark: str) -> None:
    from PIL import Image

    (root / benchmark).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "red").save(root / benchmark / "a.png")
    Image.new("RGB", (128, 96), "blue").save(root / benchmark / "b.png")


def make_video_sample(benchmark: str, index: int, **changes: Any):
    """A sample on the third of three frames of a folder, as the readers of videos make it."""
    folder = f"{benchmark}/images/clip"
    values: dict[str, Any] = {
        "images": tuple(f"{folder}/{name}" for name in FRAMES),
        "widths": (65, 65, 65),
        "heights": (47, 47, 47),
        "instruction": "Where is it in the third image?",
        "targets": (Target(2, (0.1, 0.2, 0.5 + 0.01 * index, 0.9)),),
        "extra": {"video": folder, "target_frame": 2, "n_frames": 3, "expression": "the dog"},
    }
    return make_sample(benchmark, benchmark, index, **(values | changes))


def write_frames(root: Path, benchmark: str) -> None:
    """Three frames of an odd size in a folder: red, green, blue."""
    from PIL import Image

    folder = root / benchmark / "images" / "clip"
    folder.mkdir(parents=True)
    for name, color in zip(FRAMES, ("red", "green", "blue"), strict=True):
        Image.new("RGB", (65, 47), color).save(folder / name)


def put(root: Path, rows: list[GroundingSample]) -> None:
    """Write these rows as their benchmark, with the two images."""
    benchmark = rows[0].benchmark
    write_images(root, benchmark)
    write_benchmark(rows, benchmark=benchmark, root=root)


def prepare_fakes(root: Path) -> None:
    """Every benchmark but univg_mini and univg_mini_plus, with three samples a task."""
    sets = {"mig_bench": MIG_KEYS, "mig_bench_revised": MIG_KEYS, "photos": PHOTO_KEYS}
    for benchmark, keys in (sets | {"custom": ("group",)}).items():
        rows = [make_sample(benchmark, key, i) for key in keys for i in range(3)]
        if benchmark == "mig_bench":  # an invalid ground truth, as the released file has seven
            rows[0] = replace(rows[0], targets=(Target(1, (0.5, 0.2, 0.1, 0.9)),))
        put(root, rows)
    videos = {name for name, _ in VIDEO.values()}
    for benchmark in sorted(videos):
        put_video(root, [make_video_sample(benchmark, i) for i in range(3)])
    still = ZERO_SHOT | FULL | REFCOCO | OTHERS | FIND_ALL
    for benchmark in sorted({name for name, _ in still.values()} - videos):
        splits = sorted({s for name, s in still.values() if name == benchmark})
        put(root, [make_sample(benchmark, benchmark, i, s) for s in splits for i in range(3)])


def put_video(root: Path, rows: list[GroundingSample]) -> None:
    write_frames(root, rows[0].benchmark)
    write_benchmark(rows, benchmark=rows[0].benchmark, root=root)


# lmms-eval in this process


def arguments(model: str = "univg_baseline", model_args: str = "kind=oracle", **more: Any):
    """As much of lmms-eval's command line as a task reads."""
    given = {"force_simple": False, "process_with_media": False} | more
    return argparse.Namespace(model=model, model_args=model_args, **given)


def load_tasks(*names: str, manager: Any = None) -> dict[str, Any]:
    """Tasks by name; those of a group in its place."""
    from lmms_eval.tasks import get_task_dict

    from univg_eval.lmms.run import task_manager

    return leaves(get_task_dict(list(names), manager or task_manager()))


def leaves(tree: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= leaves(value) if isinstance(value, dict) else {name: value}
    return found


def build(task: Any, **set_args: Any) -> list[Any]:
    """The requests of a task to a backend."""
    task.args = arguments(**set_args)
    task.build_all_requests(limit=None)
    return task.instances


def shown(task: Any, request: Any) -> tuple[str, Any]:
    """The prompt and the images or the path of the video; of a chat backend the turn's content."""
    from lmms_eval.protocol import ChatMessages

    text, second, third, doc_id, _, split = request.args
    doc = task.dataset[split][doc_id]
    if not callable(second):
        return text, third(doc)
    (turn,) = ChatMessages(messages=second(doc)).messages
    assert turn.role == "user"
    assert turn.content[-1].text == text
    return text, turn.content[:-1]


def load_model(backend: str, checkpoint: Path, batch_size: int, pixels: tuple[int, int]) -> Any:
    """A stock backend on this machine's processor."""
    from lmms_eval.models import get_model

    return get_model(backend)(
        pretrained=str(checkpoint),
        device="cpu",
        device_map="cpu",
        batch_size=batch_size,
        min_pixels=pixels[0],
        max_pixels=pixels[1],
    )


def evaluate(model: Any, cli_args: argparse.Namespace, tasks: list[Any], **options: Any) -> Any:
    from lmms_eval.evaluator import simple_evaluate

    from univg_eval.lmms.run import task_manager

    return simple_evaluate(
        model=model,
        model_args=cli_args.model_args,
        tasks=tasks,
        bootstrap_iters=0,
        task_manager=task_manager(),
        cli_args=cli_args,
        **options,
    )


@contextmanager
def stops(capsys: pytest.CaptureFixture[str], *messages: str) -> Iterator[None]:
    """A user's mistake ends the program with status 2 and these words on standard error."""
    with pytest.raises(SystemExit) as stopped:
        yield
    assert stopped.value.code == 2
    err = " ".join(capsys.readouterr().err.split())
    for message in messages:
        assert message in err


def make_checkpoint(folder: Path, family: str) -> Path:
    """A model of the family with random weights, small enough to load in an instant."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    special = (
        *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
        *("<|image_pad|>", "<|video_pad|>"),
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(special),
        padding_side="left",
    )
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    newer = family == "qwen2_5_vl"
    vision = {"out_hidden_size": 32} if newer else {"embed_dim": 32, "mlp_ratio": 1}
    config = (Qwen2_5_VLConfig if newer else Qwen2VLConfig)(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [2, 3, 3],
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            **vision,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    architecture = Qwen2_5_VLForConditionalGeneration if newer else Qwen2VLForConditionalGeneration
    architecture(config).save_pretrained(folder)
    sizes = {"patch_size": 14, "merge_size": 2, "min_pixels": 784, "max_pixels": 3136}
    (Qwen2_5_VLProcessor if newer else Qwen2VLProcessor)(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=(
            "{% for m in messages %}{{ m['role'] }}: {% if m['content'] is string %}"
            "{{ m['content'] }}{% else %}{% for part in m['content'] %}"
            "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
            "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
            "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>{% endfor %}"
        ),
    ).save_pretrained(folder)
    return folder


def environment(data: Path, **changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("UNIVG_")}
    # Waiting threads sleep: spinning ones slow a tiny model tenfold when tests run side by side.
    fixed = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "OMP_WAIT_POLICY": "PASSIVE"}
    return kept | fixed | {"UNIVG_DATA": str(data)} | changes


def set_environment(monkeypatch: pytest.MonkeyPatch, data: Path, **changes: str) -> None:
    for name in [name for name in os.environ if name.startswith("UNIVG_")]:
        monkeypatch.delenv(name)
    for name, value in environment(data, **changes).items():
        monkeypatch.setenv(name, value)


def run_module(module: str, *arguments: str, data: Path, cwd: Path, **changes: str):
    with tempfile.TemporaryDirectory() as folder:
        return run_forked(
            module,
            arguments,
            cwd=cwd,
            env=environment(data, **changes),
            folder=Path(folder),
            timeout=280,
        )


def read_samples(output: Path, task: str) -> list[dict[str, Any]]:
    (file,) = output.rglob(f"*_samples_{task}.jsonl")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def read_results(output: Path) -> dict[str, Any]:
    (file,) = output.rglob("*_results.json")
    return json.loads(file.read_text(encoding="utf-8"))
