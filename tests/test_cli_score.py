"""``univg score`` and ``univg prepare`` as a user meets them: output, exit status, messages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from disks import largest_file
from PIL import Image

from univg_eval.benchmarks.readers.mig_bench import read_annotations
from univg_eval.boxes import Box
from univg_eval.cli import main
from univg_eval.samples import (
    GroundingSample,
    Target,
    load_manifest,
    load_samples,
    write_benchmark,
)

NAMES = [f"./MIG-Bench/images/common/Cat/{letter}.jpg" for letter in "abc"]


def annotation_rows() -> list[dict[str, Any]]:
    """Three questions about one list, one pair, and one group; row 2 is no valid box."""
    common = "These images share one object. Recognize and locate this object in the {}th image. "
    rows = [
        {
            "task": "common_object",
            "images": NAMES,
            "question": common.format(k),
            "answer": box,
            "additional_info": "",
            "need_format": True,
        }
        for k, box in enumerate(([0.1, 0.2, 0.5, 0.6], [0, 0, 0.4, 0.4], [0.6, 0.2, 0.5, 0.6]), 1)
    ]
    rows.append(
        {
            "task": "diff",
            "images": [
                "./MIG-Bench/images/static_diff/1_source.png",
                "./MIG-Bench/images/static_diff/1_target.png",
            ],
            "question": "Compare these two images.",
            "answer": [0.2, 0.2, 0.6, 0.6],
            "additional_info": "",
            "need_format": True,
        }
    )
    rows.append(
        {
            "task": "group_grounding",
            "images": [f"./MIG-Bench/images/group_grounding/{k}.jpg" for k in range(3)],
            "question": "Find <|object_ref_start|>a cat<|object_ref_end|>.",
            "answer": [0.5, 0.5, 1.0, 1.0],
            "additional_info": "It is in the third image. <|box_start|>(500,500),(1000,1000)"
            "<|box_end|>. ",
            "need_format": False,
        }
    )
    return rows


# 00: right. 01: (0,0)-(0.4,0.8) against (0,0)-(0.4,0.4): IoU 0.5. 02: its row is left out.
# 03: no response. 04: right box, wrong image.
RESPONSES = [
    {"id": "mig_bench-00004", "response": "It is in the second image. (500,500),(1000,1000)"},
    {"id": "mig_bench-00001", "response": "(0,0),(400,800)"},
    {"id": "mig_bench-00000", "response": "<think>(1,1),(2,2)</think> (100,200),(500,600)"},
    {"id": "mig_bench-00002", "response": "(100,200),(500,600)"},
]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    path = tmp_path / "MIG_data.json"
    path.write_text(json.dumps(annotation_rows()))
    return path


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in RESPONSES))
    return path


@pytest.fixture
def score(annotations: Path, responses: Path) -> list[str]:
    """Arguments that work; a test appends its own."""
    return [
        "score",
        *("--benchmark", "mig_bench"),
        *("--annotations", str(annotations)),
        *("--responses", str(responses)),
        *("--dialect", "qwen2_vl"),
    ]


def test_json_result_against_values_worked_out_by_hand(
    score: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*score, "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["benchmark"] == "mig_bench"
    assert result["protocol"] == "univg"
    assert result["dialect"] == "qwen2_vl"
    assert (result["n"], result["excluded"], result["missing"]) == (4, 1, 1)
    assert len(result["fingerprint"]) == 64
    common, diff, group = (
        result["tasks"][task] for task in ("common_object", "diff", "group_grounding")
    )
    assert list(result["tasks"]) == ["common_object", "diff", "group_grounding"]
    assert (common["n"], common["excluded"]) == (2, 1)
    # IoU 1 and 0.5: thresholds are >=.
    assert [common[f"acc@{t}"] for t in (0.3, 0.5, 0.7, 0.9)] == [1.0, 1.0, 0.5, 0.5]
    assert common["miou"] == pytest.approx(0.75)
    assert common["answered"] == 1.0
    assert (diff["n"], diff["acc@0.5"], diff["answered"]) == (1, 0.0, 0.0)
    assert (group["acc@0.5"], group["image_acc"], group["joint@0.5"]) == (1.0, 0.0, 0.0)
    assert result["macro"]["acc@0.5"] == pytest.approx((1 + 0 + 1) / 3)
    assert result["macro"]["miou"] == pytest.approx((0.75 + 0 + 1) / 3)
    assert "1 of 5 samples have no response and count as unanswered: mig_bench-00003" in err


def test_out_has_one_line_a_sample_in_the_order_of_the_samples(
    score: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "new folder" / "scores.jsonl"
    assert main([*score, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"mig_bench-{k:05d}" for k in range(5)]
    assert rows[0] == {
        "id": "mig_bench-00000",
        "task": "common_object",
        "status": "ok",
        "box": [0.1, 0.2, 0.5, 0.6],
        "iou": pytest.approx(1.0),
        "n_boxes": 1,
    }
    assert rows[2]["excluded"] is True
    assert rows[3] == {
        "id": "mig_bench-00003",
        "task": "diff",
        "status": "no_box",
        "box": None,
        "iou": 0.0,
        "n_boxes": 0,
    }
    assert rows[4]["image_right"] is False


def test_table_shows_every_task_with_its_interval(
    score: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(score) == 0
    out = capsys.readouterr().out
    (common,) = (line for line in out.splitlines() if "common_object" in line)
    # Two samples in one group of images cannot show how much they vary.
    assert common.split() == ["common_object", "2", "100.0", "75.0", "100.0"]
    (diff,) = (line for line in out.splitlines() if line.startswith("diff"))
    assert diff.split() == ["diff", "1", "0.0", "0.0–79.3", "0.0", "0.0"]  # Wilson for 0 of 1
    assert "mean over tasks" in out
    out = " ".join(out.split())
    assert "1 excluded (the true box is invalid), 1 without a response (unanswered)" in out


def test_a_line_of_samples_without_end_is_refused(
    tmp_path: Path, responses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = GroundingSample(
        id="a",
        benchmark="set",
        task="t",
        split="test",
        images=("a.png",),
        widths=(10,),
        heights=(10,),
        instruction="Find it.",
        targets=(Target(0, (0.1, 0.1, 0.4, 0.4)),),
        image_is_given=True,
        cluster="a",
    )
    folder = write_benchmark([sample], benchmark="set", root=tmp_path)
    (folder / "samples.jsonl").write_bytes(b"[" * (4 * 2**20 + 1))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["samples_sha256"]  # as of an older version
    (folder / "manifest.json").write_text(json.dumps(manifest))
    arguments = ["score", "--benchmark", "set", "--root", str(tmp_path)]
    assert main([*arguments, "--responses", str(responses), "--dialect", "univg_r1"]) == 2
    assert "samples.jsonl:1: the line has more than 4 MiB" in capsys.readouterr().err


def test_samples_without_target_and_with_several_have_a_table_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sample(name: str, *boxes: Box) -> GroundingSample:
        return GroundingSample(
            id=name,
            benchmark="set",
            task=name,
            split="test",
            images=("a.jpg",),
            widths=(10,),
            heights=(10,),
            instruction="Find them.",
            targets=tuple(Target(0, box) for box in boxes),
            image_is_given=True,
            cluster=name,
        )

    first, second = (0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)
    samples = [sample("one", first), sample("none"), sample("two", first, second)]
    write_benchmark(samples, benchmark="set", root=tmp_path)
    responses = tmp_path / "r.jsonl"
    texts = {"one": "(100,100),(400,400)", "none": "There are none.", "two": "(500,500),(900,900)"}
    responses.write_text(
        "".join(json.dumps({"id": name, "response": text}) + "\n" for name, text in texts.items())
    )
    arguments = ["score", "--benchmark", "set", "--root", str(tmp_path)]
    arguments += ["--responses", str(responses), "--dialect", "univg_r1"]
    out = tmp_path / "scores.jsonl"
    assert main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    said = '100.0 % of the 1 absent objects are answered with an explicit "none"; 100.0 % of the 1'
    assert said in " ".join(printed.split())
    tables, sentences = printed.split("Samples with several targets: ")
    assert sentences.startswith("1.00 boxes an answer, 2.00 targets a sample.")
    first, several, absent = re.split("samples without a target|with several targets", tables)
    # One of two targets found by one box: F1 = 2 / (1 + 2), matched IoU and AP 1 / 2.
    for table, row in (
        (first, ["one", "1", "100.0", "20.7–100.0", "100.0", "100.0"]),
        (absent, ["none", "1", "100.0", "20.7–100.0"]),
        (several, ["two", "1", "66.7", "50.0", "50.0"]),
    ):
        found = [
            line.split() for line in table.splitlines() if line.startswith(("one", "none", "two"))
        ]
        assert found == [row]
    assert f"scores: {out}" in printed
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert (lines[1]["iou"], lines[1]["no_target_right"]) == (None, True)
    assert lines[2]["f1"] == pytest.approx(2 / 3)


def test_a_published_protocol_scores_all_rows_and_needs_no_dialect(
    annotations: Path, responses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["score", "--benchmark", "mig_bench", "--annotations", str(annotations)]
    arguments += ["--responses", str(responses), "--protocol", "univg-r1", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["dialect"] is None
    assert (result["n"], result["excluded"]) == (5, 0)
    # Row 0 has two matches, (1,1),(2,2) in the thinking first: that one counts. Row 2's ground
    # truth has x2 < x1, so nothing overlaps it. Row 1 stays at 0.5.
    assert result["tasks"]["common_object"]["acc@0.5"] == pytest.approx(1 / 3)
    assert result["tasks"]["common_object"]["miou"] == pytest.approx(0.5 / 3)
    assert "image_acc" not in result["tasks"]["group_grounding"]


def test_a_dialect_beside_a_published_protocol_is_said_to_be_unused(
    score: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*score, "--protocol", "migician", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["dialect"] is None
    assert "--dialect qwen2_vl is not used" in err


def test_pixel_limits_change_what_resized_pixels_mean(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 560 x 560 stays as it is within the default limits; at most 280 * 280 pixels make it 280.
    row = {
        "id": "mig_bench-00003",
        "response": '{"bbox_2d": [56, 56, 168, 168]}',
        "image_sizes": [[560, 560]] * 2,
    }
    responses = tmp_path / "r.jsonl"
    responses.write_text(json.dumps(row) + "\n")
    arguments = ["score", "--benchmark", "mig_bench", "--annotations", str(annotations)]
    arguments += ["--responses", str(responses), "--dialect", "qwen2_5_vl", "--json"]
    assert main([*arguments, "--max-pixels", str(280 * 280)]) == 0
    limited = json.loads(capsys.readouterr().out)
    assert limited["tasks"]["diff"]["miou"] == pytest.approx(1.0)
    assert limited["max_pixels"] == 280 * 280
    assert main(arguments) == 0
    free = json.loads(capsys.readouterr().out)
    # 0.1 to 0.3 against 0.2 to 0.6: overlap 0.01 of union 0.04 + 0.16 - 0.01.
    assert free["tasks"]["diff"]["miou"] == pytest.approx(0.01 / 0.19)
    # The family's own limits, where none are given.
    assert (free["min_pixels"], free["max_pixels"]) == (3136, 12845056)
    assert free["fingerprint"] == limited["fingerprint"]


def test_pixel_limits_without_effect_are_told(
    score: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*score, "--max-pixels", "401408", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["max_pixels"] is None
    assert "--max-pixels are not used" in err


def test_an_id_that_was_left_out_of_the_set_is_told_from_one_of_another_set(
    annotations: Path,
    responses: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    first, *others = read_annotations(annotations)
    write_benchmark(others, benchmark="mig_bench", manifest_extra={"skipped": [{"item": "x"}]})
    arguments = ["score", "--benchmark", "mig_bench", "--responses", str(responses)]
    arguments += ["--dialect", "norm1"]
    for name, message in (
        (first.id, "'mig_bench' was prepared without 1 faulty item .*: prepare it whole, or"),
        ("lisa-val-00001", "score the responses with the benchmark that they answer"),
    ):
        responses.write_text(json.dumps({"id": name, "response": ""}) + "\n")
        assert main(arguments) == 2
        assert re.search(f"'{name}' is not one of the .*{message}", capsys.readouterr().err)


MISTAKES = [
    (["--dialect", "qwen9"], "unknown dialect 'qwen9'; did you mean 'qwen_vl'.*`univg dialects`"),
    (["--protocol", "best"], "unknown protocol 'best'; expected one of: univg, univg-r1"),
    (["--benchmark", "mig"], "benchmark 'mig' has no annotation file .*mig_bench, mig_bench_rev"),
    (["--benchmark", "mig_bench_revised"], "give --scale"),
    (["--benchmark", "mig_bench_revised", "--revision", "original"], "is the revision 'revised'"),
    (["--scale", "1000"], "although --scale 1000 says"),
    (["--annotations", "absent.json"], "cannot read the annotation file absent.json"),
    (["--responses", "absent.jsonl"], "cannot read the responses absent.jsonl"),
    (["--split", "test"], "--split belongs to prepared benchmarks"),
    (["--processes", "0"], "--processes is 0"),
    (["--max-pixels", "0"], "max_pixels is 0"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_message_and_status_2(
    score: list[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "scores.jsonl"
    assert main([*score, "--out", str(out), *arguments]) == 2
    printed, err = capsys.readouterr()
    assert printed == ""
    assert err.startswith("univg score: ")
    assert len(err.splitlines()) == 1
    assert re.search(message, err)
    assert not list(tmp_path.glob("*scores*"))


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b'{"id": "mig_bench-99999", "response": "x"}',
        b'{"id": "mig_bench-00000", "response": "x"}',
        b'{"id": "mig_bench-00003", "response": "\xff"}',
    ],
)
def test_a_bad_line_leaves_no_output(
    score: list[str],
    responses: Path,
    tmp_path: Path,
    line: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with responses.open("ab") as file:
        file.write(line + b"\n")
    out = tmp_path / "scores.jsonl"
    out.write_text("from before\n")
    assert main([*score, "--out", str(out), "--json"]) == 2
    printed, err = capsys.readouterr()
    assert printed == ""
    assert f"{responses}:5: " in err
    assert out.read_text() == "from before\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "MIG_data.json",
        "r.jsonl",
        "scores.jsonl",
    ]


def test_a_dialect_is_required_and_the_known_ones_are_listed(
    score: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(score[:-2]) == 2
    assert "give --dialect, one of those that `univg dialects` lists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["--responses", "--annotations"])
def test_out_never_overwrites_an_input(
    score: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = score[score.index(name) + 1]
    before = Path(path).read_bytes()
    assert main([*score, "--out", path]) == 2
    assert f"is the file of {name}" in capsys.readouterr().err
    assert Path(path).read_bytes() == before


def test_an_output_that_cannot_be_written(
    score: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*score, "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    # A pipe or a device would be replaced by a file: /dev/null for the whole machine.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main([*score, "--out", str(pipe)]) == 2
    assert "is no regular file" in capsys.readouterr().err
    assert pipe.is_fifo()
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main([*score, "--out", str(blocked / "scores.jsonl")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_where_there_is_no_room_for_an_output_it_is_to_be_made(
    score: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.jsonl"
    with largest_file(64):
        assert main([*score, "--out", str(out)]) == 2
    message = "free space, or give --out a path on another disk"
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_the_zero_shot_protocol_asks_for_the_prompt_by_line(
    score: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*score, "--protocol", "univg-r1-zero-shot"]) == 2
    assert re.search(r"r.jsonl:\d: protocol 'univg-r1-zero-shot' needs", capsys.readouterr().err)


def test_as_a_process_no_traceback_is_shown(score: list[str], tmp_path: Path) -> None:
    (tmp_path / "MIG_data.json").write_bytes(b"\xff\xfe[]")
    done = subprocess.run(
        [sys.executable, "-m", "univg_eval", *score], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


# --- prepare ---------------------------------------------------------------------------------


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder as the release unpacks: the annotation file, and images of two sizes."""
    folder = tmp_path / "release"
    rows = annotation_rows()
    for row in rows:
        for k, name in enumerate(row["images"]):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40 + k, 30)).save(path)
    (folder / "MIG_data.json").write_text(json.dumps(rows))
    return folder


def test_prepare_links_the_images_and_records_sizes_and_audit(
    release: Path, tmp_path: Path, responses: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert main(["prepare", "mig_bench", "--source", str(release), "--root", str(root)]) == 0
    samples = load_samples("mig_bench", root=root)
    assert samples[0].image_sizes == [(40, 30), (41, 30), (42, 30)]
    assert all((root / image).is_file() for sample in samples for image in sample.images)
    assert (root / "mig_bench" / "images").is_symlink()
    manifest = load_manifest("mig_bench", root)
    assert manifest["n"] == 5
    assert manifest["source"]["revision"] == "original"
    assert len(manifest["source"]["sha256"]) == 64
    kinds = {finding["kind"]: finding["n"] for finding in manifest["audit"]["findings"]}
    assert kinds == {"invalid_box": 1, "unequal_pair": 1}

    # The prepared benchmark and the annotation file give the same result.
    capsys.readouterr()
    ends = ["--responses", str(responses), "--dialect", "qwen2_vl", "--json"]
    annotated = ["--annotations", str(release / "MIG_data.json")]
    assert main(["score", "--benchmark", "mig_bench", "--root", str(root), *ends]) == 0
    prepared_result = json.loads(capsys.readouterr().out)
    assert main(["score", "--benchmark", "mig_bench", *annotated, *ends]) == 0
    assert json.loads(capsys.readouterr().out) == prepared_result


def test_prepare_again_replaces_the_link(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    arguments = ["prepare", "mig_bench", "--root", str(root), "--source"]
    assert main([*arguments, str(release)]) == 0
    moved = release.rename(tmp_path / "moved")
    assert main([*arguments, str(moved / "MIG_data.json")]) == 0
    link = root / "mig_bench" / "images"
    assert link.resolve() == moved / "MIG-Bench" / "images"
    assert main([*arguments, str(moved)]) == 0


def test_prepare_refuses_missing_and_broken_images_with_count_and_names(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    images = release / "MIG-Bench" / "images"
    (images / "common" / "Cat" / "b.jpg").unlink()
    (images / "static_diff" / "1_source.png").write_bytes(b"broken")
    assert main(["prepare", "mig_bench", "--source", str(release), "--root", str(root)]) == 2
    err = capsys.readouterr().err
    assert "3 missing_image: " in err  # rows that need it
    assert f"{images / 'common' / 'Cat' / 'b.jpg'}" in err
    assert "1 unreadable_image: " in err
    assert f"{images / 'static_diff' / '1_source.png'}" in err
    assert not (root / "mig_bench").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["prepare", "lise"],
            "unknown benchmark 'lise'; did you mean 'lisa'",
        ),
        (["prepare"], "name a benchmark; `univg prepare --list` shows them all"),
        (["prepare", "mig_bench"], "give --source"),
        (["prepare", "mig_bench", "--n", "3", "--source", "."], "--n is not an option of bench"),
        (["prepare", "mini", "--source", "."], "--source is not an option of benchmark 'mini'"),
        (["prepare", "mig_bench", "--source", "absent"], "cannot read the annotation file absent"),
        (["prepare", "mini", "--n", "0"], "n is 0"),
    ],
)
def test_mistakes_in_prepare(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--root", str(tmp_path / "root")]) == 2
    assert message in capsys.readouterr().err


def test_prepare_without_images_says_where_they_are_expected(
    annotations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "mig_bench", "--source", str(annotations), "--root", str(tmp_path)]
    assert main(arguments) == 2
    assert "no images of MIG-Bench in" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_prepare_does_not_replace_a_folder_of_images(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    (root / "mig_bench" / "images").mkdir(parents=True)
    assert main(["prepare", "mig_bench", "--source", str(release), "--root", str(root)]) == 2
    assert "exists and is not a link" in capsys.readouterr().err


def test_prepare_mini_and_score_an_oracle_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert main(["prepare", "mini", "--n", "1", "--root", str(root)]) == 0
    samples = load_samples("univg_mini", root=root)
    words = ("first", "second", "third", "fourth", "fifth", "sixth")
    path = tmp_path / "r.jsonl"
    rows = []
    for sample in samples:
        x1, y1, x2, y2 = (round(1000 * v) for v in sample.box)
        place = f"It is in the {words[sample.target_image]} image. "
        rows.append({"id": sample.id, "response": f"{place}({x1},{y1}),({x2},{y2})"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    arguments = ["score", "--benchmark", "univg_mini", "--root", str(root)]
    arguments += ["--responses", str(path), "--dialect", "qwen2_vl", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["tasks"]) == 15
    assert result["macro"]["acc@0.9"] == 1.0
    assert result["fingerprint"] == load_manifest("univg_mini", root)["fingerprint"]
    arguments[2] = "mini"  # the name that it was prepared by
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert main(["audit", "mini", "--quick", "--root", str(root)]) == 0
    assert capsys.readouterr().out.startswith(f"univg_mini in {root / 'univg_mini'}\n")


def test_the_revisions_that_help_names_are_those_of_mig_bench() -> None:
    from univg_eval.benchmarks.readers import mig_bench
    from univg_eval.cli import _annotations

    assert sorted(_annotations.REVISIONS) == sorted(mig_bench.REVISIONS)


def test_a_published_rule_of_a_whole_set_stands_beside_univg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (0.1, 0.1, 0.4, 0.4), (0.5, 0.5, 0.9, 0.9)

    def pair(name: str, *targets: Target) -> GroundingSample:
        return GroundingSample(
            id=name,
            benchmark="mc_bench",
            task="mc_bench",
            split="val",
            images=(f"{name}-1.jpg", f"{name}-2.jpg"),
            widths=(100, 200),
            heights=(100, 100),
            instruction="Find them.",
            targets=targets,
            image_is_given=False,
            cluster=name,
            extra={"groups": [1] * len(targets)},
            find_all=True,
        )

    samples = [
        pair("a", Target(0, first), Target(1, second)),
        pair("b"),
        pair("c", Target(1, first)),
    ]
    write_benchmark(samples, benchmark="mc_bench", root=tmp_path)
    # Of "a" a box on the wrong place of each image, of "b" silence, of "c" the exact box.
    texts = {"a": "Image 1: (0,0),(9,9) Image 2: (0,0),(9,9)", "c": "Image 2: (100,100),(400,400)"}
    responses = tmp_path / "r.jsonl"
    responses.write_text(
        "".join(json.dumps({"id": name, "response": text}) + "\n" for name, text in texts.items())
    )
    arguments = ["score", "--benchmark", "mc_bench", "--root", str(tmp_path)]
    arguments += ["--responses", str(responses), "--dialect", "univg_r1"]
    assert main([*arguments, "--protocol", "mc-bench", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["protocol"] == "univg"
    published = result["published"]["mc-bench"]
    # Boxes lie where targets are in all three pairs; by IoU only the third pair is right.
    assert published["accuracy"] == 1.0
    assert published["accuracy_iou50"] == pytest.approx(1 / 3)
    assert result["tasks"]["mc_bench"]["f1@0.5"] == 0.5  # of two pairs with targets one is found
    boxes = {"n_several": 2, "boxes_per_answer": 1.5, "targets_per_sample": 1.5}
    assert result["several"] == boxes
    assert result["rejection"] == {
        "n_no_target": 1,
        "n_said_none": 0,
        "recall": 0.0,
        "precision": None,
    }
    assert main([*arguments, "--protocol", "mc-bench"]) == 0
    printed = capsys.readouterr().out
    assert "by the published rule mc-bench" in printed and "0.3333" in printed
    assert "several targets: 1.50 boxes an answer, 1.50 targets a sample." in printed
    assert main([*arguments, "--json"]) == 0
    assert "published" not in json.loads(capsys.readouterr().out)
    for wrong, said in (
        ("ref-l4", "--protocol ref-l4 is the scorer of ref_l4; received --benchmark mc_bench"),
        ("mcbench", "unknown protocol 'mcbench'; did you mean 'mc-bench'?"),
    ):
        assert main([*arguments, "--protocol", wrong]) == 2
        assert said in capsys.readouterr().err
