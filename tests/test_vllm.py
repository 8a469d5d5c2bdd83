"""vLLM's CPU build beside the backend `univg`, on small random checkpoints in float32.

``make test-vllm`` makes the environment and runs these; elsewhere they are skipped.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec
from pathlib import Path

import lmms_data
import pytest
from lmms_data import REPO

from univg_eval.models import TINY, model_folder
from univg_eval.runs.record import RunRecord, load_run

if find_spec("vllm") is None or find_spec("ray") is None:
    pytest.skip(
        "vLLM is not installed here, since it fixes other versions of torch and transformers: "
        "`make test-vllm` makes an environment for it and runs these",
        allow_module_level=True,
    )

from backend_table import VLLM, VLLM_ARGS, VLLM_FAMILIES
from small_checkpoints import make_checkpoint

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")
TOKENS = ("--gen_kwargs", "max_new_tokens=16")
PLAIN = "dtype=float32,max_model_len=4096,gpu_memory_utilization=0.1,enforce_eager=True"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """univg_mini with its 600 samples, and the checkpoints."""
    from univg_eval.benchmarks.synthetic.mini import ensure

    folder = tmp_path_factory.mktemp("vllm")
    ensure(folder / "data")
    for family in FAMILIES:
        make_checkpoint(family, folder / family, for_vllm=True)
    (folder / "tiny").symlink_to(model_folder(TINY))
    return folder


def run(place: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    done = lmms_data.run_module("univg_eval", *arguments, data=place / "data", cwd=place, **changes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def evaluate(place: Path, name: str, *arguments: str, **changes: str) -> RunRecord:
    """A record of all of univg_mini."""
    out = place / "out" / name
    if not out.exists():
        words = ("--tasks", "univg_mini", *TOKENS, "--output_path", str(out))
        run(place, "eval", *arguments, *words, **changes)
    (manifest,) = out.rglob("manifest.json")
    return load_run(manifest.parent)


def reference(place: Path, family: str) -> RunRecord:
    args = f"pretrained={place / family},dtype=float32"
    return evaluate(
        place, f"{family}-univg", "--model", "univg", "--model_args", args, "--batch_size", "16"
    )


def responses(record: RunRecord) -> dict[str, str | None]:
    return {line["id"]: line["response"] for line in record.responses}


@pytest.mark.parametrize("family", [*FAMILIES, "tiny"])
def test_the_engine_answers_as_the_reference_backend(family: str, place: Path) -> None:
    args = f"pretrained={place / family},{PLAIN}"
    record = evaluate(place, f"{family}-engine", "--engine", "vllm", "--model_args", args)
    expected = reference(place, family)
    found = responses(record)
    assert len(found) == 600 and len(set(found.values())) > 500
    # A difference may be two logits that are equal but for rounding: `univg parity` shows where.
    assert found == responses(expected)
    for side in (record, expected):
        usage = side.manifest.usage
        assert usage is not None and usage.counted == 600 and side.failed_requests == 0
    assert record.manifest.usage.prompt_tokens == expected.manifest.usage.prompt_tokens
    assert record.manifest.usage.answer_tokens == expected.manifest.usage.answer_tokens
    assert record.manifest.settings == expected.manifest.settings
    assert record.manifest.lmms_eval["batch_size"] == "256"
    engine = record.manifest.engine
    assert engine is not None and engine.name == "vllm" and engine.version
    assert engine.batch_invariant is False and expected.manifest.engine is None


def test_parity_sees_the_engine_s_tokens_under_pixel_limits(place: Path) -> None:
    limits = {"min_pixels": 3136, "max_pixels": 14000}
    folder = place / "qwen2_5_vl"
    given = ",".join(f"{name}={value}" for name, value in limits.items())
    sides = (
        f"univg:pretrained={folder},dtype=float32,{given}",
        f"{VLLM}:model={folder},{VLLM_ARGS},mm_processor_kwargs={json.dumps(limits)}",
    )
    tasks = ("--tasks", "univg_mini_diff,univg_mini_region", "--limit", "10")
    found = json.loads(run(place, "parity", *sides, *tasks, *TOKENS, "--json").stdout)
    stages = {stage["name"]: (stage["n"], stage["same"]) for stage in found["stages"]}
    assert found["same"] and {stages[name] for name in ("tokens", "new_tokens")} == {(20, 20)}


def test_a_repetition_penalty_of_the_checkpoint_holds(place: Path) -> None:
    folder = make_checkpoint("qwen3_vl", place / "penalty", for_vllm=True)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 1.3}))
    args = f"pretrained={folder},{PLAIN}"
    record = evaluate(place, "penalty-engine", "--engine", "vllm", "--model_args", args)
    found = responses(record)
    assert found == responses(reference(place, "penalty"))
    assert found != responses(reference(place, "qwen3_vl"))


def test_two_copies_behind_a_server_answer_the_same(place: Path) -> None:
    folder = place / "qwen3_vl"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve` asks for the version of a package of that name, and this build has another one.
    module = "vllm.entrypoints.openai.api_server"
    words = ["--model", str(folder), "--port", str(port), "--data-parallel-size", "2"]
    words += ["--dtype", "float32", "--max-model-len", "4096", "--enforce-eager"]
    words += ["--gpu-memory-utilization", "0.1"]
    address = f"http://127.0.0.1:{port}"
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", module, *words], stdout=log, stderr=log)
    try:
        for _ in range(200):
            assert server.poll() is None, (place / "server.log").read_text()[-3000:]
            if answers(f"{address}/health"):
                break
            time.sleep(1)
        args = f"model={folder},base_url={address}/v1,api_key=none,num_cpus=32"
        record = evaluate(
            place,
            "server",
            *("--model", "async_openai", "--model_args", args),
            LMMS_IMAGE_ENCODE_FORMAT="BMP",
        )
    finally:
        server.terminate()
        server.wait(60)
    assert responses(record) == responses(reference(place, "qwen3_vl"))


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def test_the_ray_script_answers_the_same_and_goes_on(place: Path) -> None:
    expected = responses(reference(place, "qwen3_vl"))
    file = place / "ray.jsonl"
    names = list(expected)
    known = {"id": names[0], "response": "kept"}
    file.write_text(json.dumps(known) + "\n" + '{"id": "torn')
    engine = dict(pair.split("=") for pair in PLAIN.split(","))
    engine |= {"max_model_len": 4096, "gpu_memory_utilization": 0.1, "enforce_eager": True}
    subprocess.run(
        [
            *(sys.executable, str(REPO / "docs" / "assets" / "ray_vllm.py")),
            *(str(place / "qwen3_vl"), "univg_mini", "qwen3_vl", str(file), "--tokens", "16"),
            *("--engine", json.dumps(engine), "--place", '{"CPU": 1}'),
        ],
        env=lmms_data.environment(place / "data", RAY_USAGE_STATS_ENABLED="0"),
        check=True,
        timeout=280,
    )
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    found = {line["id"]: line["response"] for line in lines}
    assert len(lines) == 600 and found == expected | {names[0]: "kept"}


@pytest.mark.parametrize("family", VLLM_FAMILIES)
def test_a_line_of_the_table(family: str) -> None:
    done = subprocess.run(  # a process takes one engine
        [sys.executable, str(REPO / "tests" / "backend_table.py"), family, VLLM],
        env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    line = done.stdout.splitlines()[-1]
    assert line.startswith(f"| `{family}` | `{VLLM}` | yes |")
    assert line in (REPO / "docs" / "backends.md").read_text(encoding="utf-8")
