"""Every YAML of the task folder, through lmms-eval's own TaskManager; requests and scores."""

from __future__ import annotations

import argparse
import copy
import json
import pickle
from pathlib import Path
from typing import Any

import lmms_data
import pytest

from univg_eval.samples import Target, load_samples, write_benchmark
from univg_eval.scoring import aggregate, score_sample

pytest.importorskip("lmms_eval")

METRICS = [
    *("score", "clustered", "image_acc", "joint@0.5", "no_target_acc", "f1@0.5", "ap50"),
    *("acc@0.3", "acc@0.5", "acc@0.7", "acc@0.9", "miou", "macc", "center_acc", "answered"),
]
GROUPS = {
    "univg_mig_bench": [f"univg_mig_bench_{key}" for key in lmms_data.MIG_KEYS],
    "univg_zero_shot": list(lmms_data.ZERO_SHOT),
    "univg_mini": [
        f"univg_mini_{key}"
        for key in (*lmms_data.MIG_KEYS, "lisa_val", "lisa_test", "llmseg", "reasonvos", "revos")
    ],
    "univg": ["univg_mig_bench", "univg_zero_shot"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    lmms_data.prepare_fakes(root)
    return root


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    for name in ("DIALECT", "PROMPT", "PROTOCOL", "MIN_PIXELS", "MAX_PIXELS", "MINI_SEED"):
        monkeypatch.delenv(f"UNIVG_{name}", raising=False)
    monkeypatch.setenv("UNIVG_DATA", str(data))
    monkeypatch.setenv("UNIVG_MINI_N", "1")


@pytest.fixture(scope="module")
def manager():
    from univg_eval.lmms.run import task_manager

    return task_manager()


def leaves(tree: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= leaves(value) if isinstance(value, dict) else {name: value}
    return found


def load(manager, *names: str) -> dict[str, Any]:
    from lmms_eval.tasks import get_task_dict

    return leaves(get_task_dict(list(names), manager))


def arguments(model: str = "univg_baseline", model_args: str = "kind=oracle") -> argparse.Namespace:
    return argparse.Namespace(model=model, model_args=model_args, force_simple=False)


def task_with(rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any):
    """A task over these rows of a benchmark of its own."""
    from univg_eval.lmms.task import GroundingTask

    lmms_data.write_images(tmp_path, "own")
    write_benchmark(rows, benchmark="own", root=tmp_path)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    task = GroundingTask(
        {
            "task": "univg_own",
            "dataset_path": "own",
            "test_split": "test",
            "output_type": "generate_until",
            "generation_kwargs": {"until": []},
            "metric_list": [],
        }
        | changes
    )
    task.args = arguments()
    return task


# The task folder


def test_the_folder_holds_the_named_tasks_and_groups_and_no_python(manager) -> None:
    tasks = [name for group in GROUPS.values() for name in group if name not in GROUPS]
    tasks += lmms_data.FULL
    assert len(tasks) == 35
    assert sorted(manager.all_tasks) == sorted([*tasks, *GROUPS])
    assert manager.all_groups == sorted(GROUPS)
    assert len(list(lmms_data.TASKS.rglob("*.yaml"))) == 35 + 4
    others = {p.name for p in lmms_data.TASKS.rglob("*") if p.is_file() and p.suffix != ".yaml"}
    assert others == {"README.md", "_grounding.yml", "_group.yml"}


def test_no_task_of_lmms_eval_itself_takes_our_names() -> None:
    import lmms_eval

    folder = Path(lmms_eval.__file__).parent / "tasks"
    assert not [path for path in folder.rglob("*.yaml") if path.stem.startswith("univg")]


@pytest.mark.parametrize("group", GROUPS)
def test_groups_hold_their_tasks_and_weigh_them_alike(manager, group: str) -> None:
    from lmms_eval.tasks import get_task_dict

    tree = get_task_dict([group], manager)
    (node,) = tree
    assert [node.group_name, list(node.config["task"])] == [group, GROUPS[group]]
    expected = GROUPS[group]
    if group == "univg":
        expected = [*GROUPS["univg_mig_bench"], *GROUPS["univg_zero_shot"]]
    assert sorted(leaves(tree)) == sorted(expected)
    aggregated = {item["metric"]: item for item in node.config["aggregate_metric_list"]}
    assert list(aggregated) == [name for name in METRICS if name != "clustered"]
    assert not any(item["weight_by_size"] for item in aggregated.values())


def test_every_task_is_set_up_alike(manager) -> None:
    tasks = load(manager, "univg", "univg_mini", *lmms_data.FULL)
    assert len(tasks) == 35
    for name, task in tasks.items():
        config = task.config
        assert config.task == name
        assert config.generation_kwargs["until"] == []
        assert config.generation_kwargs["max_new_tokens"] == 512
        assert config.generation_kwargs["do_sample"] is False
        assert config.generation_kwargs["temperature"] == 0
        assert config.reasoning_tags == "none"
        assert config.num_fewshot == 0
        assert (config.score_key, config.cluster_key) == ("score", "cluster")
        assert [item["metric"] for item in config.metric_list] == METRICS
        assert set(task.aggregation()) == set(METRICS)


def test_tasks_pick_their_rows_by_benchmark_task_and_split(manager) -> None:
    tasks = load(manager, "univg", "univg_mini", *lmms_data.FULL)
    for key in lmms_data.MIG_KEYS:
        rows = tasks[f"univg_mig_bench_{key}"].eval_docs
        assert {(row["benchmark"], row["task"]) for row in rows} == {("mig_bench", key)}
        assert len(rows) == 3
        rows = tasks[f"univg_mini_{key}"].eval_docs
        assert {(row["benchmark"], row["task"]) for row in rows} == {("univg_mini", key)}
    for name, (benchmark, split) in (lmms_data.ZERO_SHOT | lmms_data.FULL).items():
        rows = tasks[name].eval_docs
        assert {(row["benchmark"], row["split"]) for row in rows} == {(benchmark, split)}


def test_version_metadata_and_comparability(manager) -> None:
    from univg_eval.samples import fingerprint

    tasks = load(manager, "univg_mig_bench_diff", "univg_lisa_val", "univg_lisa_full_val")
    mig = tasks["univg_mig_bench_diff"]
    assert mig.VERSION == "1.0+original"
    assert mig.config.metadata["revision"] == "original"
    assert mig.config.metadata["fingerprint"] == fingerprint(load_samples("mig_bench"))
    assert tasks["univg_lisa_val"].VERSION == 1.0
    full = tasks["univg_lisa_full_val"].config.metadata
    assert full["comparable_with_published_table"] is False
    assert "comparable_with_published_table" not in tasks["univg_lisa_val"].config.metadata


def test_the_dumped_configuration_is_plain_and_small(manager) -> None:
    task = load(manager, "univg_mig_bench_diff")["univg_mig_bench_diff"]
    assert len(json.dumps(task.dump_config(), default=str)) < 5000


def test_a_benchmark_that_is_not_prepared_stops_the_run_with_one_message(
    manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        load(manager, "univg_lisa_val")
    assert stopped.value.code == 2
    assert "run `univg prepare lisa`" in capsys.readouterr().err.lower().replace("\n", " ")


def test_mini_takes_number_and_seed_from_the_environment(
    manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    monkeypatch.setenv("UNIVG_MINI_N", "2")
    first = load(manager, "univg_mini_llmseg")["univg_mini_llmseg"]
    monkeypatch.setenv("UNIVG_MINI_SEED", "7")
    other = load(manager, "univg_mini_llmseg")["univg_mini_llmseg"]
    assert len(first.eval_docs) == len(other.eval_docs) == 2
    assert first.rows.fingerprint != other.rows.fingerprint
    monkeypatch.setenv("UNIVG_MINI_N", "few")
    with pytest.raises(SystemExit):
        load(manager, "univg_mini_llmseg")
    assert "UNIVG_MINI_N is 'few'" in capsys.readouterr().err


def test_a_mini_that_was_prepared_is_used_as_it_is(
    manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.benchmarks.mini import DEFAULT_N, DEFAULT_SEED, ensure
    from univg_eval.lmms.demo import mini_root

    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    monkeypatch.delenv("UNIVG_MINI_N")
    assert mini_root(DEFAULT_N, DEFAULT_SEED) == tmp_path
    ensure(tmp_path, n=3, seed=5)
    task = load(manager, "univg_mini_llmseg")["univg_mini_llmseg"]
    assert len(task.eval_docs) == 3
    assert {row["source"]["seed"] for row in task.eval_docs} == {5}
    # The demo's set is another one: it must not take this one's place.
    assert mini_root(DEFAULT_N, DEFAULT_SEED) != tmp_path


# Requests


def build(task, **set_args: Any):
    task.args = arguments(**set_args)
    task.build_all_requests(limit=None)
    return task.instances


def test_a_simple_backend_gets_text_and_images_apart(
    manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DIALECT", "qwen2_vl")
    task = load(manager, "univg_mig_bench_diff")["univg_mig_bench_diff"]
    first = build(task, model="qwen2_vl", model_args="pretrained=x")[0]
    text, generation, to_images, doc_id, name, split = first.args
    assert text.startswith("Where is it in the second image?")
    assert (generation["until"], doc_id, name, split) == ([], 0, "univg_mig_bench_diff", "test")
    images = to_images(task.dataset[split][doc_id])
    assert [(image.mode, image.size) for image in images] == [
        ("RGB", (64, 48)),
        ("RGB", (128, 96)),
    ]
    assert images[0].getpixel((0, 0)) == (255, 0, 0)


def test_a_chat_backend_gets_images_first_then_the_text(
    manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval.protocol import ChatMessages

    monkeypatch.setenv("UNIVG_DIALECT", "qwen2_5_vl")
    task = load(manager, "univg_mig_bench_diff")["univg_mig_bench_diff"]
    first = build(task, model="qwen2_5_vl", model_args="pretrained=x")[0]
    text, to_messages, generation, doc_id, _, split = first.args
    messages = ChatMessages(messages=to_messages(task.dataset[split][doc_id]))
    (turn,) = messages.messages
    assert turn.role == "user"
    assert [part.type for part in turn.content] == ["image", "image", "text"]
    assert [part.url.size for part in turn.content[:2]] == [(64, 48), (128, 96)]
    assert turn.content[2].text == text
    assert generation["until"] == []


def test_the_prompt_style_decides_the_suffix(manager, monkeypatch: pytest.MonkeyPatch) -> None:
    from univg_eval.dialects import get_dialect
    from univg_eval.prompts import THINK_SUFFIX

    task = load(manager, "univg_mig_bench_diff")["univg_mig_bench_diff"]
    question = "Where is it in the second image?"
    monkeypatch.setenv("UNIVG_DIALECT", "norm1000")
    direct = build(task)[0].args[0]
    assert direct == f"{question} {get_dialect('norm1000').prompt_suffix}"
    monkeypatch.setenv("UNIVG_PROMPT", "think")
    assert build(task)[0].args[0] == question + THINK_SUFFIX


def test_an_unknown_model_stops_the_run_before_any_request(
    manager, capsys: pytest.CaptureFixture[str]
) -> None:
    task = load(manager, "univg_mig_bench_diff")["univg_mig_bench_diff"]
    with pytest.raises(SystemExit) as stopped:
        task.args = None
    assert stopped.value.code == 2
    assert "UNIVG_DIALECT" in capsys.readouterr().err


def test_a_missing_image_stops_the_run_instead_of_lowering_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_with([lmms_data.make_sample("own", "t", 0)], tmp_path, monkeypatch)
    (tmp_path / "own" / "b.png").unlink()
    with pytest.raises(SystemExit) as stopped:
        task.doc_to_visual(task.eval_docs[0])
    assert stopped.value.code == 2
    assert "b.png does not exist" in capsys.readouterr().err


def test_a_row_number_finds_its_row_in_any_tasks_rows(manager) -> None:
    """Stock backends look a whole batch up in the rows of its first task."""
    tasks = load(manager, "univg_mig_bench_diff", "univg_mig_bench_region")
    diff, region = tasks["univg_mig_bench_diff"], tasks["univg_mig_bench_region"]
    request = build(region)[2]
    found = diff.dataset["test"][request.args[3]]
    assert found["id"] == "mig_bench-region-test-2"
    assert diff.dataset["test"][2]["id"] == "mig_bench-diff-test-2"
    assert [image.size for image in diff.doc_to_visual(found)] == [(64, 48), (128, 96)]
    for twin in (copy.deepcopy(request.args[3]), pickle.loads(pickle.dumps(request.args[3]))):
        assert (twin, twin.doc["id"]) == (2, "mig_bench-region-test-2")


# Scores


RESPONSES = [
    "[0.1, 0.2, 0.5, 0.9]",
    "<think>Perhaps [0.1, 0.2, 0.5, 0.9].\n\nNo.</think> [0.7, 0.2, 0.9, 0.9]",
    "I cannot say.",
    "There are none.",
    "[0.5, 0.2, 0.1, 0.9]",
    "",
    None,
]


@pytest.mark.parametrize("response", RESPONSES)
def test_the_log_equals_the_scoring_core(
    response: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = lmms_data.make_sample("own", "t", 0)
    task = task_with([sample], tmp_path, monkeypatch)
    logged = task.process_results(task.eval_docs[0], [response])
    score = score_sample(sample, response, "norm1")
    (metrics,) = aggregate([score])["tasks"].values()
    for name in ("acc@0.3", "acc@0.5", "acc@0.7", "acc@0.9", "miou", "macc", "answered"):
        assert logged[name] == metrics[name]
    assert logged["id"] == sample.id
    assert (logged["status"], logged["iou"]) == (score.status, score.iou)
    assert logged["box"] == (list(score.box) if score.box else None)
    assert logged["n_boxes"] == score.n_boxes
    assert logged["score"] == metrics["acc@0.5"]
    assert logged["clustered"] == {"score": logged["score"], "cluster": sample.cluster}
    assert (logged["dialect"], logged["protocol"]) == ("norm1", "univg")
    json.dumps(logged)


def test_each_kind_of_sample_counts_in_its_own_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = (0.1, 0.2, 0.5, 0.9)
    make = lmms_data.make_sample
    rows = [
        make("own", "t", 0, image_is_given=False),
        make("own", "t", 1, targets=()),
        make("own", "t", 2, targets=(Target(0, box), Target(1, (0.6, 0.1, 0.9, 0.3)))),
        make("own", "t", 3, targets=(Target(1, (0.5, 0.2, 0.1, 0.9)),)),
    ]
    task = task_with(rows, tmp_path, monkeypatch)
    find, absent, several, invalid = (
        task.process_results(doc, ["Image-2: [0.1, 0.2, 0.5, 0.9]"]) for doc in task.eval_docs
    )
    assert (find["image_acc"], find["joint@0.5"], find["acc@0.5"]) == (1.0, 1.0, 1.0)
    assert (absent["no_target_acc"], absent["score"]) == (0.0, 0.0)
    assert "acc@0.5" not in absent
    assert several["score"] == several["f1@0.5"] == pytest.approx(2 / 3)
    assert "acc@0.5" not in several
    assert invalid["excluded"] is True
    assert not {"score", "clustered", "acc@0.5", "miou", "answered"} & set(invalid)


def test_pixels_of_the_resized_input_use_the_limits_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DIALECT", "qwen2_5_vl")
    monkeypatch.setenv("UNIVG_MIN_PIXELS", "784")
    monkeypatch.setenv("UNIVG_MAX_PIXELS", "3136")
    sample = lmms_data.make_sample("own", "t", 0, targets=(Target(1, (0.0, 0.0, 0.5, 1.0)),))
    task = task_with([sample], tmp_path, monkeypatch)
    # 128 x 96 is reduced to at most 3136 pixels in steps of 28: 56 x 28 (floor of 64.7 and 48.5).
    logged = task.process_results(task.eval_docs[0], ['{"bbox_2d": [0, 0, 28, 28]}'])
    assert logged["input_sizes"][1] == (56, 28)
    assert (logged["box"], logged["iou"]) == ([0.0, 0.0, 0.5, 1.0], 1.0)
    assert logged["univg_settings"]["max_pixels"] == [
        3136,
        "environment variable UNIVG_MAX_PIXELS",
    ]


def test_clustered_mean_of_nothing_is_nan() -> None:
    from univg_eval.lmms.metrics import mean_of_clustered

    assert mean_of_clustered([{"score": 1.0}, {"score": 0.0}]) == 0.5
    assert mean_of_clustered([]) != mean_of_clustered([])
