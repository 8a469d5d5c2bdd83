"""Sets of one's own beside each other by name: one evaluation, then every later command."""

from __future__ import annotations

import json
from pathlib import Path

import lmms_data
import pytest
from PIL import Image

from univg_eval.cli import main
from univg_eval.runs.record import load_run
from univg_eval.samples import load_samples

pytest.importorskip("lmms_eval")

BOXES = {"signs": [(10, 10, 60, 60), (40, 50, 100, 90)], "doors": [(5, 20, 50, 100)] * 3}
ORACLE = ("--model", "univg_baseline", "--model_args", "kind=oracle")


def write_set(folder: Path, boxes: list[tuple[int, int, int, int]]) -> Path:
    """Images of 112 x 112 with a red box each, and the file of their rows."""
    folder.mkdir()
    lines = [{"space": "pixels"}]
    for number, box in enumerate(boxes):
        image = Image.new("RGB", (112, 112), "gray")
        image.paste("red", box)
        image.save(folder / f"{number}.png")
        row = {"images": f"{number}.png", "instruction": "Find the red box.", "box": box}
        lines.append(row)
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the sets signs and doors, and signs without a name, prepared by folder."""
    folder = tmp_path_factory.mktemp("sets")
    for name, boxes in BOXES.items():
        source = str(write_set(folder / name, boxes))
        for arguments in (["--name", name], []):
            root = ["--root", str(folder / "data")]
            assert main(["prepare", "custom", "--source", source, *arguments, *root]) == 0
    return folder / "data"


@pytest.fixture
def at(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lmms_data.set_environment(monkeypatch, data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sets_stand_beside_each_other_and_their_images_stay(at, data, capsys):
    n = {name: len(load_samples(f"custom_{name}")) for name in BOXES}
    assert n == {"signs": 2, "doors": 3}
    assert len(load_samples("custom")) == 3  # doors replaced signs
    for name in BOXES:
        (link,) = (path for path in (data / f"custom_{name}").iterdir() if path.is_symlink())
        assert link.resolve() == data.parent / name
    assert main(["prepare", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["benchmarks"]
    assert [row["name"] for row in rows[-2:]] == ["custom_doors", "custom_signs"]
    assert rows[-1]["tasks"] == ["univg_custom:signs"]
    assert main(["audit", "custom:signs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benchmark"] == "custom_signs"


@pytest.fixture(scope="module")
def records(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model on both sets in one run, with a control."""
    folder = tmp_path_factory.mktemp("eval")
    pixels = "device=cpu,device_map=cpu,min_pixels=28224,max_pixels=28224"
    done = lmms_data.run_module(
        *("univg_eval", "eval", "--model", "qwen2_vl"),
        *("--model_args", f"pretrained=univg:tiny,{pixels}", "--controls", "blank"),
        *("--tasks", "univg_custom:signs,univg_custom:doors", "--output_path", "out"),
        data=data,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "out" / "records"


def test_one_run_leaves_a_record_of_each_set(records):
    found = {path.name: load_run(path) for path in records.glob("*/*")}
    assert {name: record.manifest.tasks for name, record in found.items()} == {
        f"custom_{name}{variant}": [f"univg_custom:{name}"]
        for name in BOXES
        for variant in ("", "+blank")
    }
    for name, boxes in BOXES.items():
        record = found[f"custom_{name}"]
        assert len(record.responses) == len(boxes)
        assert record.manifest.dataset.benchmark == f"custom_{name}"
        assert record.manifest.results.macro["answered"] > 0


def test_later_commands_take_the_records_and_the_names(at, records, capsys):
    (signs,) = map(str, records.glob("*/custom_signs"))
    assert main(["rescore", signs, "--protocol", "migician", "-o", "again"]) == 0
    assert main(["failures", signs]) == 0
    assert main(["report", signs, "-o", "page.html"]) == 0
    capsys.readouterr()
    assert main(["leaderboard", str(records), "--benchmark", "custom:signs", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["benchmark"] == "custom_signs"
    lines = [
        {"id": f"custom_signs-{i:05d}", "response": str([*b])} for i, b in enumerate(BOXES["signs"])
    ]
    Path("r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scored = ["--responses", "r.jsonl", "--dialect", "pixels", "--json"]
    assert main(["score", "--benchmark", "custom:signs", *scored]) == 0
    assert json.loads(capsys.readouterr().out)["macro"]["miou"] == 1.0


def test_plain_lmms_eval_takes_a_copy_of_the_task_folder(at, data, capsys):
    assert main(["tasks", "--copy", "own"]) == 0
    assert capsys.readouterr().out.strip() == "own"
    assert main(["tasks", "--copy", "own"]) == 2
    assert "--copy own exists" in capsys.readouterr().err
    done = lmms_data.run_module(
        *("lmms_eval", *ORACLE, "--tasks", "univg_custom:signs,univg_custom:doors"),
        *("--include_path", "own", "--output_path", "out", "--log_samples"),
        data=data,
        cwd=at,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = lmms_data.read_results(at / "out")["results"]
    assert {name: values["miou,none"] for name, values in results.items()} == {
        "univg_custom:signs": 1.0,
        "univg_custom:doors": 1.0,
    }


@pytest.mark.parametrize(
    ("tasks", "messages"),
    [
        (
            "univg_custom:sings",
            ["univg_custom:sings is not prepared", "prepare custom --name sings --source FILE"],
        ),
        ("univg_custom_signs", ["did you mean 'univg_custom:signs'?"]),
    ],
)
def test_a_set_that_is_not_there(at, capsys, tasks, messages):
    assert main(["eval", *ORACLE, "--tasks", tasks]) == 2
    err = capsys.readouterr().err
    for message in messages:
        assert message in err


def test_a_set_whose_folder_has_moved(tmp_path, monkeypatch, capsys):
    lmms_data.set_environment(monkeypatch, tmp_path / "data")
    source = write_set(tmp_path / "walls", BOXES["signs"])
    assert main(["prepare", "custom", "--source", str(source), "--name", "walls"]) == 0
    moved = source.rename(tmp_path / "moved")
    gone = f"its images were in {source}, which is not there any more"
    with lmms_data.stops(capsys, gone, "prepare the benchmark again from where it is now"):
        main(["eval", *ORACLE, "--tasks", "univg_custom:walls"])
    assert main(["audit", "custom:walls"]) == 2
    assert gone in capsys.readouterr().err
    assert main(["prepare", "custom", "--source", str(moved), "--name", "walls"]) == 0
    assert main(["audit", "custom:walls"]) == 0
