"""What lmms-eval's backends pass over in silence is a failure here, named."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from small_checkpoints import make_checkpoint

from univg_eval import published_rules
from univg_eval.cli import main
from univg_eval.cli._ending import print_statuses
from univg_eval.errors import UserError
from univg_eval.lmms.record import write_records
from univg_eval.models import TINY, model_folder
from univg_eval.published_rules import PublishedRule
from univg_eval.runs.record import RunRecord, load_run
from univg_eval.samples import load_samples

pytest.importorskip("lmms_eval")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from univg_eval.benchmarks.synthetic.mini import ensure

    ensure(tmp_path / "data", n=4)
    lmms_data.set_environment(monkeypatch, tmp_path / "data", UNIVG_MINI_N="4")
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("backend", "family"), [("llava_hf", "llava"), ("internvl_hf", "internvl")]
)
def test_an_exception_that_a_backend_swallows_is_a_failed_request(
    backend: str, family: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.7.3: an exception in generate becomes an empty response, and no request has failed."""
    from univg_eval.lmms.run import LoadedModel, evaluate

    args = f"pretrained={make_checkpoint(family, tmp_path / family)},device=cpu,device_map=cpu"
    with LoadedModel(backend, args) as loaded:
        forward, calls = loaded.lm.model.forward, []

        @functools.wraps(forward)  # transformers looks at its arguments
        def fails(*values: Any, **named: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("the allocator gave up")
            return forward(*values, **named)

        monkeypatch.setattr(loaded.lm.model, "forward", fails)
        results = evaluate(
            *(backend, args, ["univg_mini_lisa_val"]), loaded=loaded, gen_kwargs="max_new_tokens=4"
        ).results
    (folder,) = write_records(results, tmp_path / "records")
    record = load_run(folder)
    assert record.failed_requests == 1
    (message,) = record.errors.values()
    assert "RuntimeError: the allocator gave up" in message


def test_a_published_rule_that_cannot_be_computed_is_noted_and_costs_no_record(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from univg_eval.lmms.run import evaluate

    def refuses(_: Any) -> dict[str, float]:
        raise UserError("the set has no sizes")

    rule = PublishedRule("its-rule", "", "", ("univg_mini",), refuses)
    monkeypatch.setattr(published_rules, "PUBLISHED_RULES", {"its-rule": rule})
    results = evaluate("univg_baseline", "kind=oracle", ["univg_mini_lisa_val"]).results
    (folder,) = write_records(results, tmp_path / "records")
    record = load_run(folder)
    assert record.manifest.results.macro["acc@0.5"] == 1.0
    assert record.manifest.published_errors == {"its-rule": "the set has no sizes"}
    print_statuses(record, Console(width=100))
    assert "No figures of the published rule its-rule: the set has no sizes" in (
        capsys.readouterr().out
    )


def test_weights_that_a_backend_would_draw_at_random_end_the_run(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_checkpoint("qwen2_vl", tmp_path / "m")
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights.pop(next(name for name in weights if "layers.1" in name and "up_proj" in name))
    save_file(weights, file, {"format": "pt"})
    args = f"pretrained={folder},device=cpu,device_map=cpu"
    arguments = ["--model", "qwen2_vl", "--model_args", args, "--tasks", "univg_mini_lisa_val"]
    with pytest.raises(SystemExit) as stopped:
        main(["eval", *arguments, "--output_path", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "1 weights are missing in its files" in capfd.readouterr().err
    assert not list((tmp_path / "out").rglob("manifest.json"))

    from univg_eval.lmms.run import LoadedModel

    with pytest.raises(UserError, match=r"would be random"):
        LoadedModel("qwen2_vl", args)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def stretch(path: Path) -> None:
    """Another size than the sample records."""
    Image.new("RGB", (9, 9)).save(path)


@pytest.mark.parametrize(
    ("backend", "damage", "says"),
    [
        ("univg", Path.unlink, "does not exist"),
        ("univg", truncate, "the file may be damaged"),
        ("qwen2_vl", truncate, "the file may be damaged"),
        ("qwen2_vl", stretch, "is 9x9 pixels, the sample says"),
    ],
)
def test_an_image_that_cannot_be_shown_costs_its_sample_alone(
    backend: str, damage: Callable[[Path], None], says: str, data: Path, tmp_path: Path
) -> None:
    from univg_eval.lmms.run import LoadedModel, evaluate

    folder = model_folder(TINY)
    args = f"pretrained={folder},device=cpu,min_pixels=28224,max_pixels=28224"
    if backend != "univg":
        args += ",device_map=cpu"
    named, task = (backend, args), "univg_mini_lisa_val"

    def responses(loaded: LoadedModel, name: str) -> RunRecord:
        results = evaluate(*named, [task], loaded=loaded, gen_kwargs="max_new_tokens=24").results
        (path,) = write_records(results, tmp_path / name)
        return load_run(path)

    with LoadedModel(*named, batch_size=3) as loaded:
        whole = texts(responses(loaded, "whole"))
        lost = sorted(whole)[1]
        (sample,) = (one for one in load_samples("univg_mini", root=data) if one.id == lost)
        damage(data / sample.images[0])
        damaged = responses(loaded, "damaged")
    assert list(damaged.errors) == [lost]
    assert repr(lost) in damaged.errors[lost]
    assert says in damaged.errors[lost]
    assert None not in whole.values()
    assert texts(damaged) == whole | {lost: None}
    assert len(damaged.scores) == 4, "none is left out"


@pytest.mark.parametrize(
    ("backend", "args", "says"),
    [
        ("univg", "", "the processor takes no images of 2100x7 pixels"),
        ("qwen2_vl", ",device_map=cpu", "image size (2100, 7) has an aspect ratio over 200"),
    ],
)
def test_a_shape_that_no_processor_takes_costs_its_sample_alone(
    backend: str, args: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lmms_data.set_environment(monkeypatch, tmp_path / "data")
    row = {"instruction": "Find the cross.", "box": [0, 0, 500, 500], "space": "norm1000"}
    for name, size in (("a.png", (56, 56)), ("long.png", (2100, 7)), ("b.png", (56, 84))):
        Image.new("RGB", size).save(tmp_path / name)
        with (tmp_path / "own.jsonl").open("a") as file:
            file.write(json.dumps({"images": name} | row) + "\n")
    assert main(["prepare", "custom", "--source", str(tmp_path / "own.jsonl")]) == 0
    args = f"pretrained={model_folder(TINY)},device=cpu{args}"
    command = ["eval", "--model", backend, "--model_args", args, "--tasks", "univg_custom"]
    tail = ["--gen_kwargs", "max_new_tokens=8", "--output_path", str(tmp_path / "out")]
    assert main([*command, *tail]) == 0
    (path,) = (tmp_path / "out" / "records").glob("*/custom")
    (error,) = load_run(path).errors.items()
    assert error[0] == "custom-00001"
    assert says in error[1]


def texts(record: RunRecord) -> dict[str, str | None]:
    return {row["id"]: row["response"] for row in record.responses}
