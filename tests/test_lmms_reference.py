"""The backend ``univg``: exact, journalled, the same on any number of processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from lmms_data import environment, run_module
from preloaded import run_forked
from processes import two_ranks
from small_checkpoints import make_checkpoint

from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.models import model_folder
from univg_eval.runs.record import RunRecord, load_run
from univg_eval.samples import load_samples

pytest.importorskip("lmms_eval")

N = 12
TASKS = ("diff", "region", "object_tracking")
LAUNCHER = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")
TINY = ("--model", "univg", "--model_args", "pretrained=univg:tiny", "--batch_size", "4")


@dataclass(frozen=True)
class Set:
    folder: Path
    data: Path

    def arguments(self, out: str, *more: str) -> list[str]:
        tasks = ",".join(f"univg_mini_{task}" for task in TASKS)
        return ["eval", "--tasks", tasks, "--output_path", str(self.folder / out), *more]

    def start_two(self, out: str, *more: str) -> subprocess.Popen[str]:
        """Under torchrun, on two processes."""
        return subprocess.Popen(
            [sys.executable, *LAUNCHER, "-m", "univg_eval", *self.arguments(out, *more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(self.data, UNIVG_MINI_N=str(N), OMP_NUM_THREADS="1"),
            start_new_session=True,
        )

    def run_two(self, out: str, *more: str) -> RunRecord:
        """As under torchrun, in forks: libraries are imported once."""
        _store, ranks = two_ranks()
        done = run_forked(
            "univg_eval",
            self.arguments(out, *more),
            cwd=self.folder,
            env=environment(self.data, UNIVG_MINI_N=str(N), OMP_NUM_THREADS="1"),
            folder=self.folder,
            timeout=240,
            ranks=ranks,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return self.record(out)

    def run(self, out: str, *more: str) -> tuple[RunRecord, str]:
        done = run_module(
            "univg_eval",
            *self.arguments(out, *more),
            data=self.data,
            cwd=self.folder,
            UNIVG_MINI_N=str(N),
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return self.record(out), done.stdout + done.stderr

    def record(self, out: str) -> RunRecord:
        (manifest,) = (self.folder / out / "records").rglob("manifest.json")
        return load_run(manifest.parent)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Set:
    from univg_eval.benchmarks.synthetic.mini import ensure

    folder = tmp_path_factory.mktemp("reference")
    ensure(folder / "data", n=N)
    return Set(folder, folder / "data")


@pytest.fixture(scope="module")
def whole(mini: Set) -> RunRecord:
    return mini.run("whole", *TINY)[0]


def content(record: RunRecord) -> dict[str, Any]:
    """What a record holds but for times and memory."""
    manifest = json.loads((record.path / "manifest.json").read_text())
    for key in ("created", "wall_time_s"):
        del manifest[key]
    for key in ("generation_s", "samples_per_s", "tokens_per_s", "peak_memory_bytes"):
        del manifest["usage"][key]
    files = {
        name: (record.path / name).read_bytes() for name in ("responses.jsonl", "scores.jsonl")
    }
    return {"manifest": manifest, **files}


def test_the_responses_are_those_of_transformers_alone(mini: Set, whole: RunRecord) -> None:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = model_folder("univg:tiny")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    samples = {s.id: s for s in load_samples("univg_mini", root=mini.data)}
    assert len(whole.responses) == N * len(TASKS)
    lines = (whole.path / "responses.jsonl").read_text(encoding="utf-8").splitlines()
    for found in map(json.loads, lines[::5]):
        sample_id = found["id"]
        sample = samples[sample_id]
        content = [
            *({"type": "image"} for _ in sample.images),
            {"type": "text", "text": found["prompt"]},
        ]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(text=[text], images=open_images(sample, mini.data), return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**inputs, max_new_tokens=512, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert found["response"] == processor.decode(new, skip_special_tokens=True), sample_id


def test_a_killed_evaluation_goes_on_to_the_same_record(mini: Set, whole: RunRecord) -> None:
    """One rank of two is killed: at most the batches under way are asked again, by one process."""
    process = mini.start_two("killed", *TINY)
    journal = mini.folder / "killed" / "journal"

    def n_kept() -> int:
        return sum(file.read_bytes().count(b"\n") for file in journal.glob("*.jsonl"))

    deadline = time.monotonic() + 120
    while n_kept() < N:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    psutil.Process(process.pid).children()[1].kill()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0, printed[-3000:]
    kept = n_kept()
    assert N <= kept < N * len(TASKS)
    with next(journal.glob("*.jsonl")).open("ab") as torn:
        torn.write(b'{"key": "torn')
    record, printed = mini.run("killed", *TINY)
    assert f"{kept} of {N * len(TASKS)} responses are in the journal" in printed
    assert not journal.exists()
    assert content(record) == content(whole)


def test_two_processes_give_the_record_of_one(mini: Set, whole: RunRecord) -> None:
    assert content(mini.run_two("two", *TINY)) == content(whole)


def test_baselines_run_on_two_processes(mini: Set) -> None:
    record = mini.run_two("oracle", "--model", "univg_baseline", "--model_args", "kind=oracle")
    assert [score.iou for score in record.scores] == [1.0] * (N * len(TASKS))


@pytest.mark.parametrize(
    ("model_args", "message"),
    [
        ("", "names no checkpoint"),
        ("pretrained=univg:tiny,token_budget=0", "token_budget is 0; expected a whole number"),
        ("pretrained=univg:tiny,chat_template_kwargs=[1]", "expected a JSON object"),
        ("pretrained=univg:tiny,device=abacus", "device=abacus"),
        ("pretrained=univg:tiny,max_pixels=-3", "expected a whole number of pixels"),
    ],
)
def test_a_wrong_argument_is_one_message(
    mini: Set, model_args: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from univg_eval.cli import main

    monkeypatch.setenv("UNIVG_DATA", str(mini.data))
    monkeypatch.setenv("UNIVG_MINI_N", str(N))
    arguments = ("--model", "univg", *(("--model_args", model_args) if model_args else ()))
    try:
        code = main(mini.arguments("wrong", *arguments))
    except SystemExit as stop:
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert message in printed.err.splitlines()[-1]


def test_location_tokens_reach_the_score(
    mini: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random Florence-2 writes its tokens; stock backends drop them, and are refused for it."""
    from univg_eval.lmms.run import evaluate

    monkeypatch.setenv("UNIVG_DATA", str(mini.data))
    monkeypatch.setenv("UNIVG_MINI_N", str(N))
    folder = make_checkpoint("florence2", tmp_path / "florence")
    results = evaluate(
        "univg",
        f"pretrained={folder}",
        ["univg_mini_lisa_val"],
        batch_size=4,
        limit=4,
        gen_kwargs="max_new_tokens=12",
    ).results
    responses = [row["filtered_resps"][0] for row in results["samples"]["univg_mini_lisa_val"]]
    assert any("<loc_" in text for text in responses)
    assert not any("</s>" in text or "<pad>" in text for text in responses)


def test_a_request_that_failed_is_no_answer(
    mini: Set, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    from univg_eval.lmms.record import write_records
    from univg_eval.lmms.run import LoadedModel, evaluate

    monkeypatch.setenv("UNIVG_DATA", str(mini.data))
    monkeypatch.setenv("UNIVG_MINI_N", str(N))
    tiny = f"pretrained={model_folder('univg:tiny')}"
    with LoadedModel("univg", tiny, batch_size=4) as loaded:
        generate = loaded.lm.generator.model.generate

        def small_memory(**inputs: Any) -> Any:
            if inputs["image_grid_thw"].shape[0] > 1:
                raise torch.OutOfMemoryError("too many images")
            return generate(**inputs)

        loaded.lm.generator.model.generate = small_memory
        results = evaluate(
            "univg",
            tiny,
            ["univg_mini_diff", "univg_mini_lisa_val"],
            loaded=loaded,
            limit=4,
        ).results
    (folder,) = write_records(results, tmp_path)
    record = load_run(folder)
    assert record.failed_requests == 4  # the task with two images in each sample
    assert all("out of memory: too many images" in text for text in record.errors.values())


def test_the_resize_must_be_the_one_that_boxes_are_read_by(
    mini: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.lmms.run import evaluate

    monkeypatch.setenv("UNIVG_DATA", str(mini.data))
    monkeypatch.setenv("UNIVG_MINI_N", str(N))
    monkeypatch.setenv("UNIVG_DIALECT", "qwen2_5_vl")
    folder = make_checkpoint("qwen3_vl", tmp_path / "m")  # patches of 16, not of 14
    with pytest.raises((UserError, SystemExit)):
        evaluate("univg", f"pretrained={folder}", ["univg_mini_diff"], limit=2)
