"""The stock command line and ``univg eval`` as processes: logs, errors, statistics, records."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

import lmms_data
import pytest

from univg_eval.cli._runs import read_runs
from univg_eval.errors import UserError
from univg_eval.runs.record import load_run
from univg_eval.samples import load_samples
from univg_eval.scoring import aggregate, score_sample

pytest.importorskip("lmms_eval")

N = 4
THINKING = "<think>Image-1: [0, 0, 1, 1]\n\nor <b>[500, 500, 600, 600]</b>?</think> "


@dataclass(frozen=True)
class Runs:
    data: Path
    noisy: Path
    noisy_output: str
    replay: Path
    replay_output: str
    responses: dict[str, str]


def lmms_eval(*arguments: str, data: Path, cwd: Path, **changes: str):
    return lmms_data.run_module(
        "lmms_eval", *arguments, data=data, cwd=cwd, UNIVG_MINI_N=str(N), **changes
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two evaluations by the stock command: noisy on all of univg_mini, then replayed answers."""
    from univg_eval.benchmarks.synthetic.mini import ensure

    folder = tmp_path_factory.mktemp("cli")
    data = folder / "data"
    ensure(data, n=N)
    common = ("--include_path", str(lmms_data.TASKS), "--batch_size", "8", "--log_samples")
    noisy = lmms_eval(
        *("--model", "univg_baseline", "--model_args", "kind=noisy,p=0.5,seed=0"),
        *("--tasks", "univg_mini", "--output_path", str(folder / "noisy"), *common),
        data=data,
        cwd=folder,
    )
    assert noisy.returncode == 0, noisy.stderr[-3000:]

    responses = {}
    for sample in load_samples("univg_mini", root=data):
        if sample.task == "diff":
            box = ", ".join(str(round(1000 * value)) for value in sample.box)
            responses[sample.id] = f"{THINKING}<answer>[{box}]</answer>"
    file = folder / "r.jsonl"
    file.write_text(
        "".join(json.dumps({"id": k, "response": v}) + "\n" for k, v in responses.items())
    )
    (pairs,) = (folder / "noisy").rglob("*_samples_univg_mini_diff.jsonl")
    replay = lmms_eval(
        *("--model", "univg_replay", "--model_args", f"responses={file}"),
        *("--tasks", "univg_mini_diff", "--output_path", str(folder / "replay"), *common),
        *("--baseline", str(pairs)),
        data=data,
        cwd=folder,
        UNIVG_DIALECT="norm1000",
    )
    assert replay.returncode == 0, replay.stderr[-3000:]
    return Runs(data, folder / "noisy", noisy.stdout, folder / "replay", replay.stdout, responses)


def test_the_log_holds_every_column(runs: Runs) -> None:
    rows = lmms_data.read_samples(runs.noisy, "univg_mini_group_grounding")
    assert len(rows) == N
    expected = {"status": "ok", "dialect": "norm1", "protocol": "univg", "n_boxes": 1}
    for row in rows:
        assert row.items() >= expected.items()
        assert row["id"].startswith("univg_mini-group_grounding-")
        assert row["filtered_resps"].startswith("Image-")
        assert row["score"] in (0.0, 1.0)
        assert row["clustered"] == {"score": row["score"], "cluster": row["cluster"]}
        assert len(row["box"]) == 4
        assert 0.0 <= row["iou"] <= 1.0
        assert row["univg_settings"]["dialect"] == ["norm1", "default of univg_baseline"]
    assert len({row["doc_hash"] for row in rows}) == N


def test_tables_equal_the_scoring_core_on_the_same_responses(runs: Runs) -> None:
    samples = {sample.id: sample for sample in load_samples("univg_mini", root=runs.data)}
    results = lmms_data.read_results(runs.noisy)
    scores = []
    for task in results["configs"]:
        for row in lmms_data.read_samples(runs.noisy, task):
            scores.append(score_sample(samples[row["id"]], row["filtered_resps"], "norm1"))
    expected = aggregate(scores)
    assert len(expected["tasks"]) == 15
    for task, metrics in expected["tasks"].items():
        shown = results["results"][f"univg_mini_{task}"]
        for name, value in metrics.items():
            if name not in ("n", "excluded"):
                assert shown[f"{name},none"] == pytest.approx(value), (task, name)
        assert results["n-samples"][f"univg_mini_{task}"]["effective"] == N
    group = results["groups"]["univg_mini"]
    for name, value in expected["macro"].items():
        assert group[f"{name},none"] == pytest.approx(value), name
    # Only one task asks which image it is: the group shows that task's figure.
    assert group["image_acc,none"] == expected["tasks"]["group_grounding"]["image_acc"]


def test_clustered_standard_errors_are_those_of_the_shared_images(runs: Runs) -> None:
    results = lmms_data.read_results(runs.noisy)["results"]
    rows = lmms_data.read_samples(runs.noisy, "univg_mini_common_object")
    scores = [row["score"] for row in rows]
    mean = sum(scores) / N
    # Equation 4 of arXiv 2411.00640, written out.
    variance = sum((s - mean) ** 2 for s in scores) / (N - 1) / N
    for a in range(N):
        for b in range(N):
            if a != b and rows[a]["cluster"] == rows[b]["cluster"]:
                variance += (scores[a] - mean) * (scores[b] - mean) / N**2
    assert len({row["cluster"] for row in rows}) < N
    shown = results["univg_mini_common_object"]["clustered_stderr_clustered,none"]
    assert shown == pytest.approx(max(variance, 0.0) ** 0.5)
    assert "Stderr_Clustered" in runs.noisy_output


def test_thinking_reaches_the_scorer_and_the_log_whole(runs: Runs) -> None:
    rows = lmms_data.read_samples(runs.replay, "univg_mini_diff")
    for row in rows:
        assert row["filtered_resps"] == runs.responses[row["id"]]
        assert "resps" not in row
        assert row["score"] == 1.0
        assert row["n_boxes"] == 1


def test_the_paired_comparison_with_a_baseline_pairs_the_samples(runs: Runs) -> None:
    baseline = [row["score"] for row in lmms_data.read_samples(runs.noisy, "univg_mini_diff")]
    shown = lmms_data.read_results(runs.replay)["results"]["univg_mini_diff"]
    assert shown["paired_baseline_score"] == pytest.approx(100 * sum(baseline) / N)
    low, high = shown["paired_ci_lower"], shown["paired_ci_upper"]
    assert (low + high) / 2 == pytest.approx(100 - shown["paired_baseline_score"])
    assert 0.0 <= shown["paired_pvalue"] <= 1.0
    assert "P_Value" in runs.replay_output


def test_power_analysis_knows_the_tasks(runs: Runs, tmp_path: Path) -> None:
    done = lmms_eval(
        *("power", "--tasks", "univg_mini_diff,univg_mini_region"),
        *("--include-path", str(lmms_data.TASKS), "--effect-size", "0.5"),
        data=runs.data,
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert done.stdout.count(f"Sample size:         n = {N}") == 2
    assert "failed" not in done.stdout.lower()


def test_a_task_that_cannot_run_ends_the_stock_command_with_2(runs: Runs, tmp_path: Path) -> None:
    done = lmms_eval(
        *("--model", "univg_baseline", "--model_args", "kind=oracle", "--tasks"),
        *("univg_lisa_val", "--include_path", str(lmms_data.TASKS)),
        data=runs.data,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "univg: benchmark 'lisa' is not prepared" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_record_is_made_of_the_stock_commands_files(runs: Runs, tmp_path: Path, monkeypatch):
    from univg_eval.lmms.record import read_output, write_records

    monkeypatch.setenv("UNIVG_DATA", str(runs.data))
    monkeypatch.setenv("UNIVG_MINI_N", str(N))
    (file,) = runs.noisy.rglob("*_results.json")
    (path,) = write_records(read_output(file), tmp_path)
    record = load_run(path)
    assert path == tmp_path / "univg_mini"
    assert (record.manifest.n, record.manifest.complete) == (15 * N, True)
    assert record.manifest.model.id == "univg_baseline:noisy"
    assert record.manifest.dataset.benchmark == "univg_mini"
    shown = json.loads(file.read_text())["groups"]["univg_mini"]
    assert record.manifest.results.macro["acc@0.5"] == pytest.approx(shown["acc@0.5,none"])

    # The folder itself can be named wherever a record can.
    (read,) = read_runs([str(runs.noisy)])
    assert (read.responses, read.scores) == (record.responses, record.scores)
    unknown = {"created", "versions", "hardware"}
    assert {k: v for k, v in read.manifest.to_dict().items() if k not in unknown} == {
        k: v for k, v in record.manifest.to_dict().items() if k not in unknown
    }
    (replayed,) = read_runs([f"replayed={runs.replay}"])
    assert replayed.label == "replayed"
    assert {row["id"]: row["response"] for row in replayed.responses} == {
        row["id"]: runs.responses[row["id"]] for row in replayed.responses
    }

    from univg_eval.benchmarks.synthetic.mini import ensure

    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "other"))
    ensure(tmp_path / "other", n=1, seed=1)
    with pytest.raises(UserError, match="has changed since the evaluation"):
        write_records(read_output(file), tmp_path / "again")


# univg eval


def univg_eval(*arguments: str, data: Path, cwd: Path, **changes: str):
    return lmms_data.run_module(
        "univg_eval", "eval", *arguments, data=data, cwd=cwd, UNIVG_MINI_N=str(N), **changes
    )


def test_univg_eval_writes_a_record(runs: Runs, tmp_path: Path) -> None:
    done = univg_eval(
        *("--model", "univg_baseline", "--model_args", "kind=oracle", "--limit", "2"),
        *("--tasks", "univg_mini_diff,univg_mini_region", "--dialect", "qwen2_vl"),
        *("--prompt", "think", "--protocol", "univg-r1", "--output_path", "o"),
        data=runs.data,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (printed,) = re.findall(r"^run record: (.*)$", done.stdout, flags=re.M)
    record = load_run(tmp_path / printed)
    manifest = record.manifest.to_dict()
    assert (tmp_path / printed).parent.parent == tmp_path / "o" / "records"
    given = {"dialect": "qwen2_vl", "prompt": "think", "protocol": "univg-r1"}
    others = {"min_pixels": None, "max_pixels": None, "control": "none", "media": "images"}
    assert {name: value for name, (value, _) in manifest["settings"].items()} == given | others
    assert (manifest["n"], manifest["complete"], manifest["excluded"]) == (4, False, 0)
    assert manifest["generation"]["max_new_tokens"] == 512
    assert len(manifest["dataset"]["fingerprint"]) == 64
    assert manifest["wall_time_s"] > 0
    assert record.responses[0]["response"].startswith("<|box_start|>(")
    assert record.responses[0]["prompt"].endswith("in <answer> </answer> tags.")
    assert len(record.responses[0]["image_sizes"]) == 2
    assert manifest["results"]["macro"]["acc@0.5"] == 1.0


@pytest.mark.parametrize("in_file", [False, True])
def test_the_shipped_model_by_its_short_name(runs: Runs, tmp_path: Path, in_file: bool) -> None:
    """It answers, and its record names no folder of this machine."""
    limits = "device=cpu,device_map=cpu,min_pixels=28224,max_pixels=28224"
    rest = ("--tasks", "univg_mini_diff", "--limit", "2", "--output_path", "o")
    given: tuple[str, ...] = (
        "--model",
        "qwen2_vl",
        "--model_args",
        f"pretrained=univg:tiny,{limits}",
    )
    if in_file:
        config = {"model": "qwen2_vl", "model_args": given[-1]}
        (tmp_path / "run.yaml").write_text(json.dumps(config))
        given = ("--config", "run.yaml")
    done = univg_eval(*given, *rest, data=runs.data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (printed,) = re.findall(r"^run record: (.*)$", done.stdout, flags=re.M)
    record = load_run(tmp_path / printed)
    assert record.manifest.model.id == "univg:tiny"
    assert record.manifest.model.args == f"pretrained=univg:tiny,{limits}"
    assert len(record.manifest.model.config_sha256 or "") == 64
    assert [score.status for score in record.scores] == ["ok", "ok"]


BASELINE = ("--model", "univg_baseline", "--model_args", "kind=full")
MISTAKES = [
    (("--tasks", "univg_revos"), "benchmark 'revos' is not prepared"),
    (
        ("--tasks", "univg_mini", *BASELINE, "--dialect", "foo"),
        "the value comes from: --dialect",
    ),
    (("--tasks", "univg_mini", "--output_path", "a,b"), "cannot take a path with a comma"),
    (("--tasks", "univg_mini", "--output_path", "/dev/null/o"), "/dev/null is no folder that can"),
    (("--tasks", "univg_mini", "--records", "/dev/null/r"), "--records /dev/null/r: /dev/null is"),
    (("--tasks", "univg_mini", "--predict_only"), "--predict_only writes no scores"),
    (
        ("--tasks", "univg_mini_diff,univg_mini_dif"),
        "there is no task univg_mini_dif; did you mean",
    ),
    ((), "--tasks is missing; give task names, or one of the groups: univg, "),
    (("--tasks", "univg_mini_diff"), "/no_model (--model_args): the folder does not exist"),
    (
        ("--tasks", "univg_mini_diff", "--dialect", "norm1"),
        "/no_model (--model_args): the folder does not exist",
    ),
    (("--tasks", "univg_mini_diff", "--model", "hf"), "--model is missing; give lmms-eval's"),
    (
        ("--tasks", "univg_mini", "--limt", "3"),
        "arguments: --limt 3; did you mean '--limit'? (`lmms",
    ),
    (("--tasks", "univg_mini", "--dialct", "a"), "did you mean '--dialect'?"),
    (("--tasks", "univg_mini", "--limit", "all"), "argument --limit: invalid float value"),
    (("--tasks", "mini_dif"), "of this project; did you mean 'univg_mini_diff'"),
    (
        ("--tasks", "univg_mini", "--model_args", "pretrained=univg:x"),
        "no model 'univg:x' comes with",
    ),
    (
        (
            *("--tasks", "univg_mini_diff", "--model", "openai"),
            *("--model_args", "model=x,base_url=https://me:word@host/v1"),
        ),
        "base_url holds a password or a key",
    ),
    (
        (
            *("--tasks", "univg_mini_diff", "--model", "openai"),
            *("--model_args", "model=x,base_url=http://host/v1,api_key=swordfish-4711"),
        ),
        "api_key holds a password or a key",
    ),
    (("--tasks", "."), "there is a folder of this name here, and lmms-eval would look for tasks"),
    (("--tasks", "mmbench"), "names no task of this project; its groups are: univg, "),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_univg_eval_refuses_before_a_model_is_loaded(
    runs: Runs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    from univg_eval.cli import main

    # The command sets UNIVG_DIALECT; having been set here, it is put back afterwards.
    lmms_data.set_environment(monkeypatch, runs.data, UNIVG_DIALECT="", UNIVG_MINI_N="4")
    monkeypatch.chdir(tmp_path)
    try:
        model = f"pretrained={tmp_path / 'no_model'}"
        status = main(["eval", "--model", "qwen2_vl", "--model_args", model, *arguments])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_univg_eval_is_honest_about_a_failed_evaluation(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "no_model").mkdir()
    (tmp_path / "no_model" / "config.json").write_text('{"model_type": "qwen2_vl"}')
    done = univg_eval(
        *("--model", "qwen2_vl", "--model_args"),
        f"pretrained={tmp_path / 'no_model'},device=cpu,device_map=cpu",
        *("--tasks", "univg_mini_diff", "--dialect", "qwen2_vl"),
        data=runs.data,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "lmms-eval failed and wrote no results" in done.stderr


def test_the_task_folder_is_printed(tmp_path: Path) -> None:
    done = lmms_data.run_module("univg_eval", "tasks", data=tmp_path, cwd=tmp_path)
    assert done.stdout.strip() == str(lmms_data.TASKS)


def test_the_task_folder_of_pip_install_with_a_target_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip moves the data files below its target and leaves their old place in its own list."""
    from importlib.metadata import PackagePath, PathDistribution

    import univg_eval
    from univg_eval import files
    from univg_eval.lmms.task_files import task_folder

    listed = PackagePath("../../share/univg/tasks/univg.yaml")
    listed.dist = PathDistribution(tmp_path / "univg-0.dist-info")

    monkeypatch.setattr(univg_eval, "__file__", str(tmp_path / "univg_eval" / "__init__.py"))
    monkeypatch.setattr(files, "files", lambda name: [listed])
    with pytest.raises(UserError, match=r"the task folder is missing: .*install univg again"):
        task_folder()
    folder = tmp_path / "share" / "univg" / "tasks"
    folder.mkdir(parents=True)
    (folder / "univg.yaml").write_text("group: univg\n")
    assert task_folder() == folder


def test_controls_are_named_or_all() -> None:
    from univg_eval.lmms.command import control_names

    assert control_names("all") == ["blank", "swapped", "permuted", "cut"]
    assert control_names("cut, blank,cut") == ["cut", "blank"]
    with pytest.raises(UserError, match=r"unknown control 'mirror'; expected one of: none, blank"):
        control_names("blank,mirror")
    with pytest.raises(UserError, match=r"'none': expected all, or some of: blank, swapped"):
        control_names("none")


def test_every_task_of_the_copied_folder_has_the_control_and_no_other_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    from lmms_eval.tasks import TaskManager

    from univg_eval.lmms.run import task_manager
    from univg_eval.lmms.task_files import tasks_of_run

    plain = task_manager()
    with tasks_of_run("cut") as folder:
        copied = TaskManager("WARNING", include_path=folder, include_defaults=False)
        assert copied.all_tasks == plain.all_tasks
        leaves = [name for name in plain.all_tasks if name not in plain.all_groups]
        assert len(leaves) > 60
        for name in leaves:
            before, after = (m._get_config(name) for m in (plain, copied))
            assert after["metadata"] == {"control": "cut", **before["metadata"]}, name
            assert {**after, "metadata": 0} == {**before, "metadata": 0}, name
    assert not Path(folder).exists()


def test_eval_runs_again_under_controls_and_keeps_the_records_apart(tmp_path: Path) -> None:
    done = lmms_data.run_module(
        *("univg_eval", "eval", "--model", "univg_baseline", "--model_args", "kind=oracle"),
        *("--tasks", "univg_mini_diff,univg_mini_llmseg", "--controls", "permuted"),
        *("--output_path", "out", "--records", "records"),
        data=tmp_path / "data",
        cwd=tmp_path,
        UNIVG_MINI_N="2",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the control permuted cannot be applied to univg_mini_llmseg" in done.stderr
    records = {path.name: load_run(path).manifest for path in (tmp_path / "records").glob("*/*")}
    assert {name: manifest.tasks for name, manifest in records.items()} == {
        "univg_mini": ["univg_mini_diff", "univg_mini_llmseg"],
        "univg_mini+permuted": ["univg_mini_diff"],
    }
    assert {m.results.macro["acc@0.5"] for m in records.values()} == {1.0}
    assert len(list((tmp_path / "out" / "permuted").rglob("*_results.json"))) == 1


def test_a_control_that_fits_no_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.lmms.command import _names_under

    lmms_data.set_environment(monkeypatch, tmp_path, UNIVG_MINI_N="2")
    names = ["univg_mini_llmseg", "univg_mini_revos_video", "univg_mini_diff"]
    found = lmms_data.load_tasks(*names)
    tasks = [found[name] for name in names]
    for task in tasks:
        task.args = lmms_data.arguments()
    # One image; a video; two images.
    own = str(lmms_data.TASKS)
    assert _names_under("permuted", tasks, own) == ["univg_mini_diff"]
    assert _names_under("cut", tasks, own) == ["univg_mini_llmseg", "univg_mini_diff"]
    with pytest.raises(UserError, match=r"'permuted' can be applied to none of .*_llmseg, univg_"):
        _names_under("permuted", tasks[:2], own)


@pytest.mark.parametrize(("tasks", "has_others"), [("univg_mini", False), ("univg_mini,mme", True)])
def test_the_tasks_of_lmms_eval_are_read_where_one_is_requested(
    tasks: str, has_others: bool
) -> None:
    import lmms_eval.__main__ as stock

    from univg_eval.lmms.command import _without_other_tasks
    from univg_eval.lmms.run import task_folder

    with _without_other_tasks(argparse.Namespace(tasks=tasks)):
        manager = stock.TaskManager("WARNING", include_path=[str(task_folder())], model_name="qwen")
    assert manager.model_name == "qwen"
    assert "univg_mini" in manager.all_tasks
    assert ("mme" in manager.all_tasks) is has_others
