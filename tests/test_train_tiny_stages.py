"""The tiny pipeline: chains written by rules, stages that go on after kill -9, wrong arguments."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from univg_eval.benchmarks.synthetic.mini import (
    DEFAULT_SEED,
    TASKS,
    MiniItem,
    SceneObject,
    generate,
)
from univg_eval.boxes import box_iou
from univg_eval.dialects import get_dialect
from univg_eval.protocols import parse_answer
from univg_eval.samples import load_samples
from univg_train.cli import main
from univg_train.cot.rows import CotRow
from univg_train.cot.rules import assemble, check_chain

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("transformers", reason="training needs transformers (extra train)")

import tiny_stages_data  # noqa: E402
from lmms_data import REPO  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from univg_train.cli.tiny import stage_table  # noqa: E402
from univg_train.tiny.chains import chain_reply, write_chain  # noqa: E402
from univg_train.tiny.rows import (  # noqa: E402
    HELDOUT,
    HELDOUT_SEED,
    write_heldout,
    write_training_rows,
)

DIALECT = get_dialect("qwen2_vl")
SHIPPED = REPO / "univg_eval" / "models" / "tiny"
SIZE = (168, 168)


def items(task: str, count: int = 12) -> list[MiniItem]:
    """Of both subsets and several seeds."""
    return [
        generate(task, seed=seed, index=index, subset=subset)
        for seed in (3, 4)
        for index in range(count)
        for subset in ("train", "eval")
    ]


def row_of(item: MiniItem) -> CotRow:
    return CotRow(
        id="row",
        images=tuple(f"{k}.png" for k in range(item.image_count)),
        question=item.instruction,
        box=item.box,
        target_image=item.target_image,
        image_is_given=item.image_is_given,
        image_sizes=(SIZE,) * item.image_count,
        task=item.task,
    )


# -- chains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_every_chain_would_be_taken_from_a_teacher_and_is_read_as_the_true_box(task: str) -> None:
    for item in items(task):
        reply, row, sizes = chain_reply(item), row_of(item), [SIZE] * item.image_count
        verdict = check_chain(
            reply, row, finish_reason="stop", min_words=5, max_words=60, sizes=sizes
        )
        assert verdict.reasons == (), reply
        assert verdict.thinking == write_chain(item)
        assert assemble(verdict.thinking, row, DIALECT, sizes) is not None, reply
        given = item.target_image if item.image_is_given else None
        answer = parse_answer(reply, DIALECT, target_image=given)
        assert (answer.status, answer.n_boxes) == ("ok", 1)
        assert answer.box is not None and box_iou(answer.box, item.box) > 0.98
        assert answer.thinking == verdict.thinking
        assert f"<|object_ref_start|>{item.label}<|object_ref_end|>" in answer.answer_text
        if not item.image_is_given:
            assert answer.image_index == item.target_image


SHOWN_APART = ("object_tracking", "multi_view", "region", "refer_grounding")
"""What is meant is shown: alone, in a red box, or as a region."""


@pytest.mark.parametrize("task", [task for task in TASKS if task not in SHOWN_APART])
def test_a_chain_lists_what_is_seen_and_then_names_the_one_that_is_meant(task: str) -> None:
    for item in items(task):
        chain = write_chain(item)
        whole = [obj for obj in item.scenes[item.target_image].objects if obj.is_whole]
        across = ", ".join(obj.label for obj in sorted(whole, key=lambda obj: obj.box[0]))
        assert f": {across}." in chain or len({obj.box[0] for obj in whole}) < len(whole), chain
        *_, last = re.split(r"(?<=\.) ", chain)
        assert item.label in last, chain


@pytest.mark.parametrize("task", SHOWN_APART)
def test_a_chain_names_what_is_shown_and_finds_it_again(task: str) -> None:
    twins = 0
    for item in items(task):
        shown, found = write_chain(item).split(". ")
        assert shown.endswith(f": {item.label}")
        target = item.scenes[item.target_image].objects
        alike = sorted(obj.box for obj in target if obj.label == item.label and obj.is_whole)
        twins += len(alike) > 1
        if len(alike) > 1:
            place = "left" if item.box == alike[0] else "right"
            assert f"the {place} {item.label} of the " in found
    assert (twins > 0) is (task == "object_tracking")


def area(obj: SceneObject) -> float:
    return (obj.box[2] - obj.box[0]) * (obj.box[3] - obj.box[1])


def gap(a: SceneObject, b: SceneObject) -> float:
    return sum((a.box[i] + a.box[i + 2] - b.box[i] - b.box[i + 2]) ** 2 for i in (0, 1))


def holds(item: MiniItem) -> bool:
    """Whether the claims about one image, worked out anew from the scene, are the chain's."""
    kind, objects, chain = item.knobs["kind"], item.scenes[0].objects, write_chain(item)
    labels = [obj.label for obj in objects]
    last = chain.split(". ")[-1]
    if kind in ("largest", "smallest"):
        best = {"largest": max, "smallest": min}[kind](objects, key=area)
        return last == f"The {best.label} is the {kind}."
    if kind == "odd_one_out":
        (odd,) = (label for label in set(labels) if labels.count(label) == 1)
        return chain.endswith(f" The others are alike. The {odd} is not.")
    if kind == "extreme":
        (word,) = re.findall(r"highest|lowest|left\b|right\b", item.instruction)
        side = {"highest": 1, "lowest": 1, "left": 0, "right": 0}[word]
        sign = -1 if word in ("highest", "left") else 1
        best = max(objects, key=lambda obj: sign * (obj.box[side] + obj.box[side + 2]))
        return best.label in last and word in last
    if kind == "nearest":
        (named,) = (obj for obj in objects if obj.label == item.knobs["named"])
        best = min((obj for obj in objects if obj is not named), key=lambda obj: gap(obj, named))
        return last == f"The {best.label} is nearest to the {named.label}."
    if kind in ("same_color", "same_shape"):
        place = ("same_color", "same_shape").index(kind)
        (guide,) = re.findall(r"\. The (\w+ \w+) is (?:the largest|furthest|highest|lowest)", chain)
        shared = guide.split()[place]
        return {label for label in labels if label.split()[place] == shared} == {guide, item.label}
    if kind == "neither":
        color, shape = re.search(r"neither (\w+) nor a (\w+)\.", last).groups()
        return [x for x in labels if color not in x and shape not in x] == [item.label]
    if kind in ("odd_color", "odd_shape"):
        shared = re.search(r"The others are (?:of the shape )?(\w+)\.", chain)[1]
        return [label for label in labels if shared not in label.split()] == [item.label]
    if kind == "largest_beside":
        listed = re.search(r" the [\w ]+: ([^.]*)\. The ", chain)[1].split(", ")
        beside = [obj for obj in objects if obj.label in listed]
        assert len(beside) == len(listed) == 2 and item.knobs["named"] not in listed
        return max(beside, key=area).label == item.label
    return kind == "falls"


def test_what_a_chain_says_of_one_image_is_true() -> None:
    generated = [*items("lisa_val", 40), *items("lisa_test", 40)]
    assert [write_chain(item) for item in generated if not holds(item)] == []
    assert {item.knobs["kind"] for item in generated} == {
        *("odd_one_out", "largest", "smallest", "extreme", "largest_beside", "falls", "nearest"),
        *("same_color", "same_shape", "neither", "odd_color", "odd_shape"),
    }


@pytest.mark.parametrize("task", ["diff", "view_diff"])
def test_what_a_chain_says_of_a_change_is_true(task: str) -> None:
    for item in items(task):
        before, after = ({obj.label for obj in scene.objects} for scene in item.scenes)
        last = write_chain(item).split(". ")[-1]
        if item.knobs["kind"] == "added":
            assert last == f"The {item.label} was added." and after - before == {item.label}
        else:
            assert last == f"The {(before - after).pop()} became the {item.label}."


def test_chains_are_short() -> None:
    """Every token of a rollout costs: the thinking about one image is at most 45 of them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    for task in TASKS:
        longest = max(len(tokenizer.encode(write_chain(item))) for item in items(task))
        assert longest <= (45 if task in ("lisa_val", "lisa_test", "llmseg") else 90)


# -- rows and the model to begin with ------------------------------------------------------------


def test_rows_are_written_once_and_always_the_same(tmp_path: Path) -> None:
    def written(name: str) -> Path:
        return write_training_rows(tmp_path / name, "rows", ["lisa_val", "diff"], 4, seed=5)

    one, again = written("one"), written("again")
    assert one.read_bytes() == again.read_bytes()
    rows = [json.loads(line) for line in one.read_text(encoding="utf-8").splitlines()]
    assert [row["type"] for row in rows] == ["lisa_val", "diff", "lisa_val", "diff"]
    images = [name for row in rows for name in row["images"]]
    assert len(set(images)) == len(images) == 1 + 2 + 1 + 2
    for name in images:
        assert (one.parent / name).read_bytes() == (again.parent / name).read_bytes()
    mark = one.stat().st_mtime_ns
    assert written("one").stat().st_mtime_ns == mark


def test_heldout_samples_are_no_public_ones(tmp_path: Path) -> None:
    assert HELDOUT_SEED != DEFAULT_SEED
    write_heldout(tmp_path, ["lisa_val", "group_grounding"], 8)
    samples = load_samples(HELDOUT, root=tmp_path)
    assert len(samples) == 16
    assert {sample.image_is_given for sample in samples} == {True, False}
    # As in univg_mini, every fourth asks for a combination that no training scene shows.
    assert sum(sample.extra["held_out"] for sample in samples) == 4
    for sample in samples:
        task, index = sample.task, sample.source["index"]
        assert sample.box != generate(task, seed=DEFAULT_SEED, index=index).box


# -- stages --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`whole` at one go, and `parted`, killed in the second stage and in the third."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, tiny_stages_data.__file__, str(folder)],
        env=os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    statuses = json.loads((folder / "statuses.json").read_text(encoding="utf-8"))
    assert statuses == [0, -signal.SIGKILL, -signal.SIGKILL, 0], done.stderr[-3000:]
    return folder


def summary_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def test_a_run_that_was_killed_twice_ends_like_one_that_was_not(runs: Path) -> None:
    whole, parted = runs / "whole", runs / "parted"
    before = load_file(SHIPPED / "model.safetensors")
    for stage in ("direct", "cot", "grpo"):
        ours, theirs = (
            load_file(run / stage / "model" / "model.safetensors") for run in (parted, whole)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), stage
        assert any(not torch.equal(theirs[name], before[name]) for name in theirs), stage
        before = theirs
    once, again = summary_of(whole)["stages"], summary_of(parted)["stages"]
    assert [stage["sessions"] for stage in once] == [1, 1, 1]
    assert [stage["sessions"] for stage in again] == [1, 2, 2]
    assert [stage["steps"] for stage in once] == [2, 3, 4]
    for one, other in zip(once, again, strict=True):
        for key in ("name", "style", "steps"):
            assert one[key] == other[key]
        for metric in ("n", "acc@0.5", "interval95", "miou", "answered"):
            assert one["after"][metric] == other["after"][metric]


def test_the_summary_says_what_was_evaluated_and_how(runs: Path) -> None:
    summary = summary_of(runs / "whole")
    stages, names = summary["stages"], ["direct", "cot", "grpo"]
    styles = ["direct", "think", "think"]
    assert [stage["name"] for stage in stages] == names
    assert [stage["after"]["style"] for stage in stages] == styles
    assert [s["before"] for s in stages[1:]] == [s["after"] for s in stages[:-1]]
    for stage in stages:
        scores = stage["after"]
        assert scores["n"] == summary["heldout"]["n"] == 4
        tasks = scores["tasks"]
        assert list(tasks) == ["lisa_val", "diff"]  # as many samples each
        assert scores["acc@0.5"] == pytest.approx(sum(tasks.values()) / 2)
        low, high = scores["interval95"]
        assert low <= scores["acc@0.5"] <= high
    assert summary["versions"]["torch"] and summary["hardware"]["cpu_count"]
    starts = [line.split()[0] for line in stage_table(summary).splitlines() if line]
    assert [word for word in starts if word in names] == names
    for name, style in zip(names, styles, strict=True):  # each model says how to prompt it
        config = json.loads((runs / "whole" / name / "model" / "config.json").read_text())
        assert config["univg"] == {"dialect": "qwen2_vl", "prompt": style}


def test_settings_of_a_stage_are_those_of_a_command(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, given the file, finds the finished run of the stage."""
    settings = runs / "whole" / "cot" / "settings.yaml"
    assert main(["sft", "--config", str(settings), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3


def test_a_finished_run_is_reported_again_and_keeps_its_plan(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def marks() -> list[int]:
        return [path.stat().st_mtime_ns for path in sorted(runs.glob("whole/*/model/*"))]

    monkeypatch.setattr("univg_train.tiny.stages.QUICK", tiny_stages_data.PLAN)
    arguments = ["tiny", "--stage", "all", "--quick", "--out", str(runs / "whole")]
    before = marks()
    assert main([*arguments, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [stage["steps"] for stage in summary["stages"]] == [2, 3, 4]
    assert main(arguments) == 0
    assert "4 held-out samples (lisa_val, diff)" in capsys.readouterr().out
    assert marks() == before
    assert main([*arguments, "--seed", "1"]) == 2
    assert "another plan: seed was 0 and is 1" in capsys.readouterr().err


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = {"style": "direct", "interval95": [0.4, 0.6], "answered": 1.0}
    before = {**scores, "acc@0.5": 0.4, "miou": 0.35, "answered": 0.9}
    after = {**scores, "acc@0.5": 0.5, "miou": 0.456}
    stage = {"steps": 60, "seconds": 90.0, "before": before, "after": after}
    summary = {
        "stages": [
            {"name": "direct", "loss": 0.5, "model": "a", **stage},
            {
                "name": "grpo", "model": "runs/x/grpo/model", "reward_first_epoch": 1.25,
                "reward_last_epoch": 1.5, **stage,
            },
        ],
        "heldout": {"n": 300, "tasks": ["lisa_val", "llmseg"]},
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "160")
    lines = [line for line in stage_table(summary).splitlines() if line]
    note, head, _, direct, grpo, folder = lines
    assert note.startswith("300 held-out samples (lisa_val, llmseg)")
    assert re.split(r"  +", head)[:3] == ["stage", "prompt", "acc@0.5 %"]
    assert re.split(r"  +", direct) == [
        *("direct", "direct", "40.0 → 50.0", "40.0–60.0", "35.0 → 45.6", "90.0 → 100.0"),
        *("60", "1.5", "loss 0.500"),
    ]
    assert grpo.endswith("reward 1.25 → 1.50")
    assert folder == "model folder: runs/x/grpo/model"
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, stage_table(summary).splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--quick"], "--quick belongs to --stage"),
        (["--json"], "--json belongs to --stage"),
        (["--stage", "all", "--minutes", "5"], "--minutes does not go with --stage"),
        (["--stage", "all", "--steps", "5"], "--steps does not go with --stage"),
        (["--stage", "cot", "--validate-every", "5"], "--validate-every does not go with --stage"),
        (["--stage", "all", "--no-resume"], "give another folder"),
        (["--stage", "all", "--quick", "--compile"], "which --quick leaves out"),
        (["--stage", "cot", "--quick"], "stage cot goes on from stage direct"),
        (["--stage", "grpo", "--quick"], "stage grpo goes on from stage cot"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: list[str], match: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tiny", "--out", str(tmp_path / "run"), *arguments]) == 2
    printed = capsys.readouterr()
    assert match in printed.err and "Traceback" not in printed.err and printed.out == ""


def test_an_unknown_stage_and_a_foreign_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["tiny", "--out", str(tmp_path), "--stage", "sft"])
    assert stop.value.code == 2
    assert "invalid choice: 'sft'" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert main(["tiny", "--out", str(tmp_path), "--stage", "all", "--quick"]) == 2
    assert "is not empty and holds no plan.json" in capsys.readouterr().err
