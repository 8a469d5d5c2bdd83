"""Folders that lmms-eval wrote, read as runs: its exact file format, written here by hand."""

from __future__ import annotations

import copy
import functools
import json
import operator
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_records import SCORES, manifest, response
from test_architecture import HEAVY

from univg_eval.cli import main
from univg_eval.cli._runs import read_runs
from univg_eval.errors import UserError
from univg_eval.runs.record import load_run, unknown_environment, write_run
from univg_eval.samples import GroundingSample, Target, fingerprint, write_benchmark

SETTINGS = {
    "dialect": ["norm1000", "environment variable UNIVG_DIALECT"],
    "prompt": ["direct", "default of the dialect"],
    "protocol": ["univg", "default"],
    "min_pixels": [None, "not known"],
    "max_pixels": [None, "not known"],
    "control": ["none", "default"],
    "media": ["images", "default"],
}
# The true box is (0.1, 0.2, 0.5, 0.9).
TEXTS = ("[100, 200, 500, 900]", "[100, 200, 300, 900]", "I cannot say.")
READ = [("ok", 1.0), ("ok", 0.5), ("no_box", 0.0)]
DATE = "20260102_030405"


def sample(index: int, task: str = "t") -> GroundingSample:
    return GroundingSample(
        id=f"own-{task}-{index}",
        benchmark="own",
        task=task,
        split="test",
        images=("own/a.png",),
        widths=(200,),
        heights=(100,),
        instruction="Where is it?",
        targets=(Target(0, (0.1, 0.2, 0.5, 0.9)),),
        image_is_given=True,
        cluster=f"c{index}",
    )


SAMPLES = [sample(i) for i in range(3)] + [sample(i, "u") for i in range(3)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "data"))
    write_benchmark(SAMPLES, benchmark="own", root=tmp_path / "data")
    return tmp_path


def logged(index: int, text: str, task: str = "t", **changes: Any) -> dict[str, Any]:
    """A line of a samples file; what lmms-eval logs more is left to it."""
    return {
        "doc_id": index,
        "target": '[{"image": 0, "box": [0.1, 0.2, 0.5, 0.9]}]',
        "filtered_resps": text,
        "token_counts": [None],
        "doc_hash": "55e5",
        "score": 0.0,
        "id": f"own-{task}-{index}",
        "status": "ok",
        "box": [0.0, 0.0, 1.0, 1.0],
        "iou": 0.9,
        "dialect": "norm1000",
        "input_sizes": None,
        "univg_settings": SETTINGS,
        "input": "Where is it? Answer with the bounding box.",
    } | changes


def task_config(task: str, **metadata: Any) -> dict[str, Any]:
    return {
        "task": task,
        "dataset_path": "own",
        "dataset_name": task,
        "test_split": "test",
        "output_type": "generate_until",
        "generation_kwargs": {"until": [], "max_new_tokens": 512},
        "metadata": {"version": 1.0, "fingerprint": fingerprint(SAMPLES)} | metadata,
    }


def write_output(
    folder: Path,
    date: str = DATE,
    *,
    tasks: dict[str, list[dict[str, Any]]] | None = None,
    configs: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """What ``lmms-eval --output_path … --log_samples`` leaves of one evaluation."""
    if tasks is None:
        tasks = {"univg_own_t": [logged(i, text) for i, text in enumerate(TEXTS)]}
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "results": {},
        "configs": configs or {task: task_config(task) for task in tasks},
        "config": {
            "model": "vllm",
            "model_args": "model=org/Model-7B,tensor_parallel_size=2",
            "model_backend": "lmms_eval.models.chat.vllm.VLLM (chat)",
            "batch_size": "8",
            "limit": None,
            "gen_kwargs": "",
            "resolved_cli_args": {"timezone": "Asia/Singapore"},
        },
        "git_hash": "1d2b3b8",
        "lmms_eval_version": "main@1d2b3b8",
        "date": date,
        "model_source": "vllm",
        "model_name": "org/Model-7B",
        "total_evaluation_time_seconds": "12.5",
    } | changes
    file = folder / f"{date}_results.json"
    file.write_text(json.dumps(results))
    for task, rows in tasks.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{date}_samples_{task}.jsonl").write_text(lines)
    return file


def test_a_folder_is_read_without_the_backend(root: Path) -> None:
    file = write_output(root / "out" / "org__Model-7B")
    for argument in (root / "out", root / "out" / "org__Model-7B", file):
        (record,) = read_runs([str(argument)])
        assert (record.label, record.path, record.benchmark) == ("Model-7B", file, "own")
        # Scored anew: what the log says of box and IoU does not count.
        assert [(s.status, s.iou) for s in record.scores] == READ
    assert record.manifest.results.tasks["t"]["acc@0.5"] == 2 / 3
    assert record.manifest.to_dict()["model"] == {
        "id": "org/Model-7B",
        "backend": "lmms_eval.models.chat.vllm.VLLM (chat)",
        "args": "model=org/Model-7B,tensor_parallel_size=2",
        "config_sha256": None,
    }
    assert record.manifest.created == "2026-01-02T03:04:05+08:00"
    assert record.manifest.wall_time_s == 12.5
    # The log does not say where it ran; this machine's own versions would be a lie.
    for name, value in unknown_environment().items():
        assert record.manifest.to_dict()[name] == value
    assert record.manifest.to_dict()["settings"] == SETTINGS
    assert (record.manifest.n, record.manifest.complete) == (3, False)
    assert record.manifest.dataset.fingerprint == fingerprint(SAMPLES)
    assert record.responses[1] == response(
        "own-t-1",
        TEXTS[1],
        image_sizes=[[200, 100]],
        prompt="Where is it? Answer with the bounding box.",
    )


def test_reading_needs_neither_lmms_eval_nor_torch(root: Path) -> None:
    write_output(root / "out")
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY | {"loguru", "yaml"}!r}:
            raise ImportError(f"not installed here: {{name}}")
sys.meta_path.insert(0, Refuse())
from univg_eval.cli import main
sys.exit(main(["rescore", "out", "-o", "new"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    assert load_run(root / "new").label == "Model-7B"


def test_nothing_is_written_by_reading(root: Path) -> None:
    write_output(root / "out")
    before = sorted(root.rglob("*"))
    read_runs([str(root / "out")])
    assert sorted(root.rglob("*")) == before


def test_several_evaluations_have_their_dates_in_their_labels(root: Path) -> None:
    later = write_output(root / "out" / "a", "20260203_000000")
    first = write_output(root / "out" / "b", "20260101_000000")
    records = read_runs([str(root / "out")])
    assert [(r.path, r.label) for r in records] == [
        (first, "Model-7B 2025-12-31 16:00 UTC"),
        (later, "Model-7B 2026-02-02 16:00 UTC"),
    ]
    assert [r.label for r in read_runs([f"mine={root / 'out'}"])] == [
        "mine 2025-12-31 16:00 UTC",
        "mine 2026-02-02 16:00 UTC",
    ]
    assert [r.label for r in read_runs([f"mine={later}", str(first)])] == ["mine", "Model-7B"]


def test_one_evaluation_may_hold_several_benchmarks_and_tasks(root: Path) -> None:
    pytest.importorskip("lmms_eval")
    grey = SETTINGS | {"control": ["blank", "metadata key control of the task's YAML"]}
    tasks = {
        "univg_own_t": [logged(0, TEXTS[0])],
        "univg_own_u": [logged(0, TEXTS[1], "u")],
        "own_blank": [logged(1, TEXTS[2], univg_settings=grey)],
        "mmmu": [],
    }
    configs = {task: task_config(task) for task in ("univg_own_t", "univg_own_u")}
    configs["own_blank"] = task_config("own_blank", control="blank")
    configs["mmmu"] = {"task": "mmmu", "metadata": {"version": 1}}
    write_output(root / "out", tasks=tasks, configs=configs)
    plain, blank = read_runs([str(root / "out")])
    assert (plain.benchmark, blank.benchmark) == ("own", "own+blank")
    assert plain.label == blank.label == "Model-7B"
    assert [score.id for score in plain.scores] == ["own-t-0", "own-u-0"]
    assert [score.id for score in blank.scores] == ["own-t-1"]
    assert blank.manifest.dataset.prepared_benchmark == "own"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"resps": [["<think>x</think>a"]]}, "<think>x</think>a"),
        ({"filtered_resps": ["b"]}, "b"),
        ({"filtered_resps": []}, None),
        ({"filtered_resps": ""}, ""),
        ({"filtered_resps": "None", "no_response": True}, None),
        ({"filtered_resps": "None", "no_response": False}, "None"),
    ],
)
def test_the_whole_response_is_taken(root: Path, changes: dict[str, Any], text: str | None) -> None:
    write_output(root / "out", tasks={"t": [logged(0, "a", **changes)]})
    (record,) = read_runs([str(root / "out")])
    assert record.responses[0]["response"] == text


@pytest.mark.parametrize(
    ("changes", "created"),
    [
        ({"config": {"resolved_cli_args": {"timezone": "UTC"}}}, "2026-01-02T03:04:05+00:00"),
        ({"config": {"resolved_cli_args": {"timezone": "Moon/Sea"}}}, "2026-01-02T03:04:05"),
        ({"config": {"resolved_cli_args": {"timezone": "a/" * 300}}}, "2026-01-02T03:04:05"),
        ({"config": {"resolved_cli_args": {"timezone": "Asia"}}}, "2026-01-02T03:04:05"),
        ({"config": {}}, "2026-01-02T03:04:05"),
    ],
)
def test_the_date_has_the_time_zone_of_the_log(
    root: Path, changes: dict[str, Any], created: str
) -> None:
    config = {"model": "univg_baseline", "model_args": "kind=noisy"} | changes["config"]
    write_output(root / "out", config=config)
    (record,) = read_runs([str(root / "out")])
    assert record.manifest.created == created
    assert (record.label, record.manifest.model.backend) == (
        "univg_baseline:noisy",
        "univg_baseline",
    )


def test_records_in_a_folder_go_before_logs(root: Path) -> None:
    path = write_run(
        root / "out" / "record",
        manifest=manifest(),
        responses=[response("a", "x"), response("b", "y")],
        scores=SCORES,
    )
    write_output(root / "out")
    assert read_runs([str(root / "out")]) == [load_run(path)]


def test_the_folders_of_univg_eval_stand_for_its_records(root: Path) -> None:
    def write_record(folder: Path, created: str) -> Path:
        return write_run(
            folder,
            manifest=manifest(created=created),
            responses=[response("a", "x"), response("b", "y")],
            scores=SCORES,
        )

    write_output(root / "out")
    records = root / "out" / "records"
    path = write_record(records / DATE / "own", "2026-01-02T04:04:59+01:00")
    for folder in (path, path.parent, records, root / "out"):
        assert read_runs([str(folder)]) == [load_run(path)]
    # Times in UTC, whatever zone the folders are named in.
    later = write_record(records / "20260303_000000" / "own", "2026-03-02T23:00:00+00:00")
    labels = ["m 2026-01-02 03:04 UTC", "m 2026-03-02 23:00 UTC"]
    for folder in (records, root / "out"):
        assert [record.label for record in read_runs([str(folder)])] == labels
    found = [record.label for record in read_runs([str(path), str(later)])]
    assert found == ["m (2026-01-02 03:04 UTC)", "m (2026-03-02 23:00 UTC)"]
    # Records of one evaluation have one label, however long it took.
    other = manifest(created="2026-03-02T23:09:00+00:00")
    other["dataset"] = {**other["dataset"], "benchmark": "other"}
    rows = [response(name, "x", benchmark="other") for name in "ab"]
    write_run(later.parent / "other", manifest=other, responses=rows, scores=SCORES)
    assert [record.label for record in read_runs([str(records)])] == [labels[0], *2 * labels[1:]]
    shutil.rmtree(later.parent / "other")
    # What was put beside them, as by `univg rescore -o out/rescored`, hides none of them.
    shutil.copytree(path, root / "out" / "rescored")
    assert [record.label for record in read_runs([str(root / "out")])] == [
        *labels,
        "m",
    ]


def test_an_output_folder_is_rescored(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_output(root / "out")
    new = root / "new"
    assert main(["rescore", str(root / "out"), "--protocol", "univg-r1", "-o", str(new)]) == 0
    record = load_run(new)
    assert record.manifest.rescored[0].source.folder == file.name
    assert record.manifest.rescored[0].source.created == "2026-01-02T03:04:05+08:00"
    assert [score.iou for score in record.scores] == [1.0, 0.5, 0.0]
    assert "univg → univg-r1" in capsys.readouterr().out


# What cannot be read


def test_results_of_other_tasks_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_output(
        root / "out", "20260101_000000", tasks={"mmmu": []}, configs={"mmmu": {"task": "mmmu"}}
    )
    with pytest.raises(UserError, match=r"20260101_000000_results\.json: no task of univg"):
        read_runs([str(root / "out")])
    write_output(root / "out")
    (record,) = read_runs([str(root / "out")])
    assert record.label == "Model-7B"
    assert f"note: {other} is left out: it holds no task of univg" in capsys.readouterr().err


ROW = logged(0, TEXTS[0])
FAULTY = [
    ({"id": "own-t-9"}, r"sample 'own-t-9' is none of 'own' \(1 in all\)"),
    ({"univg_settings": {"dialect": ["norm1000", "x"]}}, "the logged univg_settings are"),
    ({"univg_settings": 7}, "the logged univg_settings are 7; expected an object"),
    ({"input_sizes": [[4, 0]]}, r"input_sizes\[0\]\[1\] is 0: expected .*1"),
    ({"input_sizes": [[4]]}, r"samples_t\.jsonl:1: input_sizes\[0\] is \[4\]: .*at least 2"),
    ({"input_sizes": 4}, r"samples_t\.jsonl:1: input_sizes is 4: expected .*list"),
    ({"id": ["own-t-0"]}, r"samples_t\.jsonl:1: id is \['own-t-0'\]: expected .*string"),
    ({"id": None}, r"samples_t\.jsonl:1: id is None: expected .*string"),
]


@pytest.mark.parametrize(("changes", "words"), FAULTY)
def test_a_faulty_line_is_told(root: Path, changes: dict[str, Any], words: str) -> None:
    write_output(root / "out", tasks={"t": [ROW | changes]})
    with pytest.raises(UserError, match=words):
        read_runs([str(root / "out")])


@pytest.mark.parametrize("key", ["id", "univg_settings"])
def test_a_line_of_another_kind_of_task_is_told(root: Path, key: str) -> None:
    row = {name: value for name, value in ROW.items() if name != key}
    write_output(root / "out", tasks={"t": [ROW, row]})
    with pytest.raises(UserError, match=rf"samples_t\.jsonl:2 lacks {key}.*evaluate again"):
        read_runs([str(root / "out")])


def test_a_log_that_a_full_disk_has_cut_off_is_told(root: Path) -> None:
    write_output(root / "out", tasks={"t": [ROW]})
    (file,) = root.rglob("*_samples_t.jsonl")
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"samples_t\.jsonl:1: not a JSON value.*; a full disk"):
        read_runs([str(root / "out")])


@pytest.mark.parametrize("n", [0, 2, 4])
def test_a_log_that_is_not_whole_is_told(root: Path, n: int) -> None:
    rows = [logged(i % 3, text, task) for task in "tu" for i, text in enumerate(TEXTS)][:n]
    counts = {"t": {"original": 3, "effective": 3}}
    write_output(root / "out", tasks={"t": rows}, **{"n-samples": counts})
    with pytest.raises(UserError, match=rf"samples_t\.jsonl holds {n} samples, and .* 3"):
        read_runs([str(root / "out")])


@pytest.mark.parametrize(
    ("counts", "arguments"),
    [
        ({"t": {"original": 6, "effective": 3}}, {"limit": 3}),
        ({}, {}),
        ({"t": 3}, {}),
        (None, {}),
        # lmms-eval's count is wrong here.
        ({"t": {"original": 6, "effective": 6}}, {"limit": 0.5}),
        ({"t": {"original": 6, "effective": 6}}, {"offset": 3}),
    ],
)
def test_a_whole_log_is_read(root: Path, counts: Any, arguments: dict[str, Any]) -> None:
    rows = [logged(i, text) for i, text in enumerate(TEXTS)]
    config = {"model": "vllm", "model_args": None} | arguments
    write_output(root / "out", tasks={"t": rows}, config=config, **{"n-samples": counts})
    assert len(read_runs([str(root / "out")])[0].scores) == 3


def test_tasks_that_differ_in_more_than_their_samples_are_told(root: Path) -> None:
    tasks = {"t": [ROW], "u": [logged(0, TEXTS[0], "u")]}
    for changes, words in (
        ({"generation_kwargs": {"max_new_tokens": 8}}, "ran under different generation_kwargs"),
        ({"metadata": {"fingerprint": "0" * 64}}, "'own' has changed since the evaluation"),
    ):
        configs = {"t": task_config("t"), "u": task_config("u") | changes}
        write_output(root / "out", tasks=tasks, configs=configs)
        with pytest.raises(UserError, match=words):
            read_runs([str(root / "out")])


def test_a_sample_that_was_logged_twice_is_told(root: Path) -> None:
    write_output(root / "out", tasks={"t": [ROW, ROW]})
    with pytest.raises(UserError, match=r"duplicate id 'own-t-0'.*evaluate again"):
        read_runs([str(root / "out")])


def test_different_settings_are_told(root: Path) -> None:
    other = SETTINGS | {"dialect": ["norm1", "x"]}
    rows = [ROW, logged(1, TEXTS[1], univg_settings=other)]
    write_output(root / "out", tasks={"t": rows})
    with pytest.raises(UserError, match="ran under different settings"):
        read_runs([str(root / "out")])


def test_an_evaluation_without_samples_is_told(root: Path) -> None:
    file = write_output(root / "out", tasks={"t": []})
    with pytest.raises(UserError, match="holds no sample of 'own'"):
        read_runs([str(root / "out")])
    (root / "out" / f"{DATE}_samples_t.jsonl").unlink()
    with pytest.raises(UserError, match=r"samples_t\.jsonl is missing.*--log_samples"):
        read_runs([str(file)])


def test_the_prepared_set_must_be_there_and_the_same(root: Path) -> None:
    write_output(root / "out")
    write_benchmark(SAMPLES[:3], benchmark="own", root=root / "data")
    with pytest.raises(UserError, match="'own' has changed since the evaluation"):
        read_runs([str(root / "out")])
    shutil.rmtree(root / "data" / "own")
    with pytest.raises(UserError, match=r"'own' is not prepared.*univg prepare own"):
        read_runs([str(root / "out")])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"configs": {"t": 3}, "config": {}}'])
def test_a_file_of_another_form_is_told(root: Path, text: str) -> None:
    file = root / "x_results.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"x_results\.json"):
        read_runs([str(file)])


@pytest.mark.parametrize("key", ["dataset_path", "generation_kwargs"])
def test_a_task_that_lacks_its_arguments_is_told(root: Path, key: str) -> None:
    configs = {"t": {name: value for name, value in task_config("t").items() if name != key}}
    write_output(root / "out", tasks={"t": [ROW]}, configs=configs)
    with pytest.raises(UserError, match=rf"configs\.t lacks {key} .*evaluate again"):
        read_runs([str(root / "out")])


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"total_evaluation_time_seconds": "a while"}, None),
        ({"total_evaluation_time_seconds": None}, None),
        ({"total_evaluation_time_seconds": float("nan")}, None),
        ({"total_evaluation_time_seconds": -1}, None),
        ({"total_evaluation_time_seconds": 7}, 7.0),
    ],
)
def test_a_time_that_is_none_is_not_known(
    root: Path, changes: dict[str, Any], seconds: float | None
) -> None:
    config = {"model": "vllm", "model_args": None, "resolved_cli_args": None}
    write_output(root / "out", config=config, **changes)
    (record,) = read_runs([str(root / "out")])
    assert record.manifest.wall_time_s == seconds
    assert record.manifest.created == "2026-01-02T03:04:05"


def test_the_prompt_of_a_log_is_kept_where_there_is_one(root: Path) -> None:
    rows = [
        logged(0, "x", arguments=["in memory", {"until": []}]),
        logged(1, "x", arguments=[]),
        logged(2, "x", input=None),
    ]
    write_output(root / "out", tasks={"t": rows})
    (record,) = read_runs([str(root / "out")])
    assert [row["prompt"] for row in record.responses] == ["in memory", rows[1]["input"], None]


def test_what_lies_beside_records_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An evaluation by lmms-eval itself in the folder of `univg eval`."""
    recorded = write_output(root / "out" / "model")
    other = write_output(root / "out" / "model", "20260505_000000")
    path = root / "out" / "records" / DATE / "own"
    files = {"responses": [response("a", "x"), response("b", "y")], "scores": SCORES}
    write_run(path, manifest=manifest(), **files)
    assert read_runs([str(root / "out")]) == [load_run(path)]
    told = capsys.readouterr().err
    assert f"{other} is left out, since there are run records beside it" in told
    assert str(recorded) not in told


def test_a_record_whose_writing_was_broken_off_is_passed_over(root: Path) -> None:
    files = {"responses": [response("a", "x"), response("b", "y")], "scores": SCORES}
    path = write_run(root / "records" / "own", manifest=manifest(), **files)
    shutil.copytree(path, root / "records" / ".own.x7f3")  # killed before it was renamed
    half = Path(shutil.copytree(path, root / "records" / ".other.8d2k"))
    (half / "checksums.json").unlink()
    assert read_runs([str(root / "records")]) == [load_run(path)]
    path.rename(root / "records" / ".own.gone")
    with pytest.raises(UserError, match="holds none"):
        read_runs([str(root / "records")])


@pytest.mark.parametrize("argument", ["", "base="])
def test_an_empty_path_is_not_the_working_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, argument: str
) -> None:
    write_output(root / "out")
    monkeypatch.chdir(root / "out")
    with pytest.raises(UserError, match=f"the path of the run '{argument}' is empty"):
        read_runs([argument])


def test_a_folder_with_nothing_is_told(root: Path) -> None:
    (root / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds none; expected .*--output_path and --log_samples"):
        read_runs([str(root / "empty")])
    with pytest.raises(UserError, match=r"nowhere does not exist; expected a run record"):
        read_runs([str(root / "nowhere")])
    (root / "note.txt").write_text("x")
    with pytest.raises(UserError, match=r"note\.txt is no run record"):
        read_runs([str(root / "note.txt")])


HOSTILE: tuple[Any, ...] = (
    *(None, True, 3, -1, 0.5, float("nan"), float("inf"), 10**400),
    *("", "x/../../y", "a" * 5000, "\0", "\ud800", [], {}, [[]], {"a": None}, [1, 2]),
)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a JSON value has values, itself among them; the first two of a list."""
    yield before
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value[:2])
        for key, part in inside:
            yield from places(part, (*before, key))


def with_value(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    changed = copy.deepcopy(value)
    functools.reduce(operator.getitem, place[:-1], changed)[place[-1]] = new
    return changed


def names_of_tasks(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("a/b", "../../etc/passwd", "a" * 5000, "\0", "\ud800", ".."):
        yield results | {"configs": {name: task_config("t")}}


def test_every_value_of_a_folder_may_be_hostile(root: Path) -> None:
    """A record comes of it, or one message."""
    results = write_output(root / "out")
    samples = next((root / "out").rglob("*.jsonl"))
    first, *others = map(json.loads, samples.read_text().splitlines())
    whole = json.loads(results.read_text())
    tried = [(results, [value]) for value in names_of_tasks(whole)]
    for file, value, rest in ((results, whole, []), (samples, first, others)):
        tried += [
            (file, [with_value(value, place, new), *rest])
            for place in places(value)
            for new in HOSTILE
        ]
    refused = 0
    for file, lines in tried:
        before = file.read_text()
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        try:
            for record in read_runs([str(root / "out")]):
                json.dumps(record.manifest.to_dict(), allow_nan=False)
        except UserError:
            refused += 1
        file.write_text(before)
    assert len(tried) > 1000
    assert 0.2 < refused / len(tried) < 0.9, "some matter to nobody, some to everyone"
