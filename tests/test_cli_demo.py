"""``univg demo`` as a process, beside the stock command on the same checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmms_data
import pytest

from univg_eval.runs.record import load_run

pytest.importorskip("lmms_eval")

N = 2
COLUMNS = ["tiny", "center", "full", "random", "spray", "refuse", "noisy", "oracle"]


@dataclass(frozen=True)
class Demo:
    folder: Path
    checkpoint: Path
    runs: dict[str, Any]

    @property
    def data(self) -> Path:
        # Not the default set, so it has a data root of its own.
        return self.folder / "data" / "demo" / f"n{N}-seed3"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    from univg_eval.lmms.demo import tiny_model

    folder = tmp_path_factory.mktemp("demo")
    checkpoint, _ = tiny_model()
    done = lmms_data.run_module(
        "univg_eval",
        *("demo", "--json", "--n", str(N), "--seed", "3", "--out", "out"),
        data=folder / "data",
        cwd=folder,
        # Settings of other runs must not reach the demo.
        UNIVG_DIALECT="paligemma",
        UNIVG_MINI_N="7",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Demo(folder, checkpoint, json.loads(done.stdout)["runs"])


def test_the_json_has_every_run_task_and_interval(demo: Demo) -> None:
    assert list(demo.runs) == COLUMNS
    for run in demo.runs.values():
        assert len(run["tasks"]) == 15
        for metrics in [*run["tasks"].values(), run["macro"]]:
            low, high = metrics["acc@0.5_interval"] or (0.0, 1.0)  # two of one group have none
            assert 0.0 <= low <= metrics["acc@0.5"] <= high <= 1.0
        assert {metrics["n"] for metrics in run["tasks"].values()} == {N}
        shares = [metrics["acc@0.5"] for metrics in run["tasks"].values()]
        assert run["macro"]["acc@0.5"] == pytest.approx(sum(shares) / 15)


def test_the_baselines_score_what_they_promise(demo: Demo) -> None:
    from univg_eval.lmms.backends.baseline import is_hit

    macro = {name: run["macro"] for name, run in demo.runs.items()}
    assert (macro["oracle"]["acc@0.9"], macro["oracle"]["miou"]) == (1.0, 1.0)
    assert (macro["refuse"]["answered"], macro["refuse"]["acc@0.5"]) == (0.0, 0.0)
    assert demo.runs["spray"] == demo.runs["center"]
    record = load_run(demo.folder / "out" / "noisy" / "univg_mini")
    for score in record.scores:
        assert (score.iou >= 0.5) == is_hit(0, score.id, 0.5)


def test_every_run_is_recorded(demo: Demo) -> None:
    for name in COLUMNS:
        record = load_run(demo.folder / "out" / name / "univg_mini")
        manifest = record.manifest.to_dict()
        assert (manifest["n"], manifest["complete"]) == (15 * N, True)
        assert manifest["results"]["macro"]["acc@0.5"] == demo.runs[name]["macro"]["acc@0.5"]
        assert manifest["wall_time_s"] > 0
    tiny = load_run(demo.folder / "out" / "tiny" / "univg_mini").manifest.to_dict()
    # Wherever the package is installed.
    assert tiny["model"]["id"] == "univg:tiny"
    assert tiny["model"]["args"] == "pretrained=univg:tiny,device=cpu"
    assert len(tiny["model"]["config_sha256"]) == 64
    assert tiny["settings"]["dialect"][0] == "qwen2_vl"
    assert tiny["settings"]["max_pixels"][0] == 28224


def test_the_command_of_lmms_eval_gives_the_same_responses_and_numbers(demo: Demo) -> None:
    done = lmms_data.run_module(
        "lmms_eval",
        *("--model", "univg", "--model_args", f"pretrained={demo.checkpoint},device=cpu"),
        *("--tasks", "univg_mini", "--include_path", str(lmms_data.TASKS)),
        *("--batch_size", "8", "--output_path", "stock", "--log_samples"),
        data=demo.data,
        cwd=demo.folder,
        UNIVG_MINI_N=str(N),
        UNIVG_MINI_SEED="3",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    stock = demo.folder / "stock"
    results = lmms_data.read_results(stock)
    record = load_run(demo.folder / "out" / "tiny" / "univg_mini")
    responses = {row["id"]: row["response"] for row in record.responses}
    for task, metrics in demo.runs["tiny"]["tasks"].items():
        for row in lmms_data.read_samples(stock, f"univg_mini_{task}"):
            assert row["filtered_resps"] == responses[row["id"]]
        shown = results["results"][f"univg_mini_{task}"]
        assert shown["acc@0.5,none"] == pytest.approx(metrics["acc@0.5"])
        assert shown["miou,none"] == pytest.approx(metrics["miou"])
    assert len(set(responses.values())) > 1


def test_what_is_printed_fits_a_terminal(demo: Demo, capsys, monkeypatch) -> None:
    from univg_eval.cli.demo import _show
    from univg_eval.lmms.demo import DemoRun

    monkeypatch.setenv("COLUMNS", "80")
    out = demo.folder / "out"
    runs = [
        DemoRun(name, load_run(out / name / "univg_mini"), run["tasks"], run["macro"])
        for name, run in demo.runs.items()
    ]
    _show(runs, out)
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines() if str(out) not in line) <= 80
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.split()}
    assert {*demo.runs["tiny"]["tasks"], *demo.runs} <= set(rows)
    for name, run in demo.runs.items():
        limits = run["macro"]["acc@0.5_interval"]
        shown = [] if limits is None else [f"{100 * limits[0]:.1f}–{100 * limits[1]:.1f}"]
        wanted = [f"{100 * run['macro']['acc@0.5']:.1f}", *shown]
        line = next(line for line in said.splitlines()[::-1] if line.startswith(f"{name} "))
        assert line.split()[1 : 1 + len(wanted)] == wanted
    assert said.count("univg ") >= 3


def test_a_folder_without_a_checkpoint_is_a_user_error(tmp_path: Path, monkeypatch) -> None:
    from univg_eval.errors import UserError
    from univg_eval.lmms.demo import tiny_model

    with pytest.raises(UserError, match=r"holds no checkpoint.*config.json.*univg-train tiny"):
        tiny_model(tmp_path)
    commas = lmms_data.make_checkpoint(tmp_path / "a,b", "qwen2_vl")
    with pytest.raises(UserError, match="a path with a comma"):
        tiny_model(commas)


def test_a_folder_that_cannot_be_written_to_is_refused_before_a_scene_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from univg_eval.cli import main
    from univg_eval.lmms import demo

    monkeypatch.setattr(demo, "demo_data", lambda *_: pytest.fail("drawn"))
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--out", "/dev/null/x"]) == 2
    assert "--out /dev/null/x: /dev/null is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--n=0", "--limit=-1", "--n=x", "--seed=-1"])
def test_impossible_numbers_are_refused(option: str, capsys) -> None:
    from univg_eval.cli import main

    with lmms_data.stops(capsys, option.split("=")[0]):
        main(["demo", option])
