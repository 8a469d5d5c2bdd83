"""Repeats and files of several runs: seeds, records, going on, what is refused beforehand."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmms_data
import pytest
import yaml

from univg_eval.runs.record import RunRecord, load_run

pytest.importorskip("lmms_eval")

N = "2"
TASKS = ("univg_mini_common_object", "univg_mini_diff")
REPO = Path(__file__).resolve().parent.parent


def univg_eval(*arguments: str, data: Path, cwd: Path):
    return lmms_data.run_module(
        "univg_eval", "eval", *arguments, data=data, cwd=cwd, UNIVG_MINI_N=N
    )


def example() -> str:
    page = (REPO / "docs" / "evaluate.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    return text


def records_of(folder: Path) -> dict[str, RunRecord]:
    """By folder, without the hash of the request."""
    found = {path.parent.name: load_run(path) for path in sorted(folder.glob("records/*/*"))}
    return {re.sub(r"-[0-9a-f]{8}", "", name): record for name, record in found.items()}


def texts(record: RunRecord) -> list[str | None]:
    return [row["response"] for row in record.responses]


@dataclass(frozen=True)
class Runs:
    folder: Path
    output: str
    errors: str
    records: Mapping[str, RunRecord]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The file of the page on two tasks of two samples, a checkpoint without weights in front."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "no_model").mkdir()
    (folder / "no_model" / "config.json").write_text('{"model_type": "qwen2_vl"}')
    plain, *others = yaml.safe_load(example())
    model_args = plain["model_args"].replace("univg:tiny", str(folder / "no_model"))
    broken = {"name": "broken", "model_args": model_args, "dialect": "qwen2_vl"}
    (folder / "runs.yaml").write_text(yaml.safe_dump([plain | broken, *others]))
    done = univg_eval(
        *("--config", "runs.yaml", "--output_path", "out"),
        *("--tasks", ",".join(TASKS)),
        data=folder / "data",
        cwd=folder,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    return Runs(folder, done.stdout, done.stderr, records_of(folder / "out"))


def test_the_example_of_the_page_makes_a_record_a_run(runs: Runs) -> None:
    assert set(runs.records) == {"tiny_at_0.7-1", "tiny_at_0.7-2", "noisy"}
    assert len(list((runs.folder / "out" / "records").iterdir())) == 4  # two of noisy
    for record in runs.records.values():
        # What the command line gives holds for all.
        assert set(record.manifest.tasks) == set(TASKS)
    assert runs.records["tiny_at_0.7-1"].label == "tiny at 0.7"


def test_repeats_have_seeds_that_count_up_and_other_answers(runs: Runs) -> None:
    first, second = (runs.records[f"tiny_at_0.7-{number}"] for number in (1, 2))
    repeats = [record.manifest.repeat for record in (first, second)]
    assert [(r.number, r.of, r.seed) for r in repeats if r is not None] == [
        (1, 2, [0, 1234, 1234, 1234]),
        (2, 2, [1, 1235, 1235, 1235]),
    ]
    assert first.group == second.group is not None
    assert first.manifest.generation["temperature"] == 0.7
    assert texts(first) != texts(second)


def test_it_ends_with_the_leaderboard_of_all(runs: Runs) -> None:
    table = runs.output[runs.output.index("univg_mini: acc@0.5 in %") :]
    shown = " ".join(table.split())
    # Rows of which the same is said share a line.
    assert re.search(r"tiny at 0\.7(, noisy)?: several-runs \(2 runs, macro ", shown)
    assert "noisy: several-runs (2 runs, macro " in shown


def test_the_same_command_goes_on_and_the_same_seed_answers_alike(runs: Runs) -> None:
    (lost,) = runs.folder.glob("out/records/tiny_at_0.7-*-2")
    shutil.rmtree(lost)
    given = ("--output_path", "out", "--tasks", ",".join(TASKS))
    done = univg_eval("--config=runs.yaml", *given, data=runs.folder / "data", cwd=runs.folder)
    assert done.returncode == 1, done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if re.match(r"\[\d/\d\]", line)] == [
        "[1/4] broken",
        "[2/4] tiny at 0.7",
        "[3/4] noisy (univg_baseline kind=noisy,p=0.5,seed=0): complete, nothing to do",
        "[4/4] noisy (univg_baseline kind=noisy,p=0.5,seed=1): complete, nothing to do",
    ]
    assert done.stderr.count("is there, of the same request") == 1
    again = records_of(runs.folder / "out")
    for name, record in runs.records.items():
        is_new = name == "tiny_at_0.7-2"
        assert texts(again[name]) == texts(record)
        assert (again[name].manifest.created == record.manifest.created) is not is_new


def test_a_run_that_fails_stops_no_other(runs: Runs) -> None:
    assert "1 of 4 runs failed: broken (exit status 2). The same command goes on" in runs.errors
    assert runs.output.index("[1/4] broken") < runs.output.index("[2/4] tiny at 0.7")


# Mistakes, before anything runs


BASELINE = {"model": "univg_baseline", "model_args": "kind=full", "tasks": "univg_mini_diff"}
TINY = "pretrained=univg:tiny,device=cpu,device_map=cpu"
NOISY = ("--model", "univg_baseline", "--model_args", "kind=noisy", "--tasks", "univg_mini_diff")
SAMPLED = "temperature=1,do_sample=True"
TINY_RUN = ("--model", "qwen2_vl", "--model_args", TINY, "--tasks", "univg_mini_diff")


def refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> str:
    from univg_eval.cli import main

    lmms_data.set_environment(monkeypatch, tmp_path / "data", UNIVG_DIALECT="", UNIVG_MINI_N=N)
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["eval", *arguments])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert not (tmp_path / "out").exists()
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*TINY_RUN, "--repeats", "3"), r"--repeats 3: .* is greedy \(temperature 0.*\), so every"),
        ((*TINY_RUN, "-n", "3"), "--repeats 3: .* is greedy"),
        (
            (*TINY_RUN, "--repeats", "3", "--gen_kwargs", "temperature=1"),
            r"is greedy \(temperature 1, do_sample False\)",
        ),
        ((*TINY_RUN, "--repeats", "0"), "--repeats is 0; expected a whole number from 1"),
        (
            (*NOISY, "--repeats", "2"),
            "univg_baseline answers by a rule that no --seed changes",
        ),
        (
            (*TINY_RUN, "--repeats", "2", "--group", "g", "--gen_kwargs", SAMPLED),
            "--repeats 2 and --group 'g' exclude each other",
        ),
    ],
)
def test_what_cannot_be_repeated_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    given = [*arguments, "--output_path", "out"]
    assert re.search(message, refused(given, tmp_path, monkeypatch, capsys))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([BASELINE | {"modle": "x"}], "run 1: unknown key 'modle'; did you mean 'model'?"),
        ([BASELINE, 3], "run 2: 3; expected a mapping of arguments"),
        ([], "expected a list of runs, or one, each a mapping"),
        ("text", "expected a list of runs, or one, each a mapping"),
        ([BASELINE | {"repeats": "x"}], "repeats is 'x'; expected a whole number from 1"),
        ([BASELINE | {"repeats": -1}], "repeats is -1; expected a whole number from 1"),
        ([BASELINE | {"name": 3}], "name is 3; expected a text"),
        ([BASELINE | {"gen_kwargs": {"temperature": 1}}], "expected text"),
        ([BASELINE | {"name": "a"}] * 2, "2 runs have the name 'a'; give runs of one thing one"),
        (
            [BASELINE, BASELINE | {"name": "b", "tasks": "univg_mini_dif"}],
            "run 2 (b): --tasks: there is no task univg_mini_dif; did you mean",
        ),
        ([BASELINE | {"dialect": "foo", "name": "b"}], "that was runs.yaml, run 1 (b)"),
        ([BASELINE | {"tasks": "univg_revos"}], "that was runs.yaml, run 1 (univg_baseline kind"),
        ([BASELINE | {"repeats": 2}], "run 1 (univg_baseline kind=full): --repeats 2: univg_b"),
    ],
)
def test_a_file_is_checked_whole(
    content: Any, message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "runs.yaml").write_text(yaml.safe_dump(content))
    given = ["--config", "runs.yaml", "--output_path", "out"]
    assert message in refused(given, tmp_path, monkeypatch, capsys)


def test_options_of_one_run_are_refused_beside_several(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "runs.yaml").write_text(yaml.safe_dump([BASELINE]))
    given = ["--config", "runs.yaml", "--output_path", "out", "--name", "x"]
    said = refused(given, tmp_path, monkeypatch, capsys)
    assert "--name is for one evaluation, and --config runs.yaml has 1" in said


# What a request is


def plan(tmp_path: Path, *arguments: str, settings: Mapping[str, str] | None = None, **more: Any):
    from univg_eval.lmms.command import plan_eval

    given = {"dialect": None, "prompt": None, "protocol": None} | dict(settings or {})
    words = ["--output_path", str(tmp_path / "out"), *arguments]
    with plan_eval(words, settings=given, records=None, resume=True, **more) as found:
        return found


def test_the_folder_of_a_run_is_that_of_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lmms_data.set_environment(monkeypatch, tmp_path / "data", UNIVG_MINI_N=N)
    responses = tmp_path / "r.jsonl"
    responses.write_text(json.dumps({"id": "univg_mini-diff-00000", "response": "x"}) + "\n")
    os.utime(responses, (1, 1))
    given = ("--model", "univg_replay", "--model_args", f"responses={responses}")
    given += ("--tasks", "univg_mini_diff")

    def folder(*arguments: str, dialect: str = "norm1", **more: Any) -> str:
        (run,) = plan(tmp_path, *given, *arguments, settings={"dialect": dialect}, **more).runs
        assert run.folder is not None
        return run.folder

    first = folder()
    assert re.fullmatch(r"univg_replay_r-[0-9a-f]{8}", first)
    same = [("--output_path", "other"), ("--verbosity", "DEBUG"), ("--use_cache", "c")]
    assert {folder(*arguments) for arguments in same} == {first}
    others = [
        folder("--limit", "1"),
        folder("--gen_kwargs", "temperature=0.5"),
        folder("--seed", "5"),
        folder("--tasks", "univg_mini_region"),
        folder(dialect="norm1000"),
    ]
    os.utime(responses, (2, 2))
    others.append(folder())
    assert len({first, *others}) == 7
    assert folder(name="my run!").startswith("my_run_-")


def test_a_group_is_of_one_request_for_several_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lmms_data.set_environment(monkeypatch, tmp_path / "data", UNIVG_MINI_N=N)

    def manifest(kind: str, *arguments: str, group: str = "g") -> Mapping[str, Any]:
        given = ("--model", "univg_baseline", "--model_args", f"kind={kind}")
        task = ("--tasks", "univg_mini_diff")
        (run,) = plan(tmp_path, *given, *task, *arguments, group=group).runs
        return run.manifest

    one, other = manifest("full"), manifest("center")
    assert one == other
    assert one["name"] == "g"
    assert manifest("full", "--limit", "1")["group"] != one["group"]
    assert manifest("full", group="h")["group"] != one["group"]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("lmms_eval.models.chat.vllm", ["temperature=1,seed=7", "temperature=1,seed=8"]),
        ("lmms_eval.models.chat.qwen2_5_vl", ["temperature=1"] * 2),
    ],
)
def test_backends_that_read_the_seed_from_the_request_get_it_there(
    module: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.lmms.planned_runs import plan_runs
    from univg_eval.lmms.settings import ModelUnderTest

    backend = type("Backend", (), {"__module__": module})
    monkeypatch.setattr(ModelUnderTest, "backend_class", lambda self: backend)
    args = argparse.Namespace(
        model="m", model_args="pretrained=x", force_simple=False, seed=7, gen_kwargs="temperature=1"
    )
    runs = plan_runs(args, [], repeats=2)
    assert [run.gen_kwargs for run in runs] == expected
    assert [run.seed for run in runs] == [[7] * 4, [8] * 4]


def test_stock_backends_read_the_seed_where_it_is_given() -> None:
    import lmms_eval

    from univg_eval.lmms.planned_runs import _SEED_IN_REQUEST

    root = Path(lmms_eval.__file__).parent.parent
    source = {
        name: (root / f"{name.replace('.', '/')}.py").read_text() for name in _SEED_IN_REQUEST
    }
    assert "seed=1," in source["lmms_eval.models.simple.vllm"]
    for name in ("lmms_eval.models.simple.vllm", "lmms_eval.models.chat.openai"):
        assert '"seed",' in source[name]
    for name in ("lmms_eval.models.chat.vllm", "lmms_eval.models.chat.vllm_generate"):
        assert "_build_sampling_params_dict(_gen)" in source[name]
