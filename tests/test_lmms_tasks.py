"""Every YAML of the task folder, through lmms-eval's own TaskManager; requests and scores."""

from __future__ import annotations

import copy
import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from lmms_data import arguments, build, leaves, load_tasks, make_sample, shown, stops

from univg_eval.samples import Target, load_samples
from univg_eval.scoring import aggregate, score_sample

pytest.importorskip("lmms_eval")

METRICS = [
    *("score", "clustered", "image_acc", "joint@0.5", "no_target_acc", "f1@0.5", "f1@0.95"),
    *("f1_mean", "ap50", "matched_iou", "image_set_acc"),
    *("acc@0.3", "acc@0.5", "acc@0.7", "acc@0.75", "acc@0.9", "miou", "macc", "center_acc"),
    "answered",
]
GROUPS = {
    "univg_mig_bench": [f"univg_mig_bench_{key}" for key in lmms_data.MIG_KEYS],
    "univg_mig_bench_revised": [f"univg_mig_bench_revised_{key}" for key in lmms_data.MIG_KEYS],
    "univg_zero_shot": list(lmms_data.ZERO_SHOT),
    "univg_zero_shot_full": list(lmms_data.FULL),
    "univg_zero_shot_video": ["univg_reasonvos_video", "univg_revos_video"],
    "univg_photos": [f"univg_photos_{key}" for key in lmms_data.PHOTO_KEYS],
    "univg_mini": [
        f"univg_mini_{key}"
        for key in (*lmms_data.MIG_KEYS, "lisa_val", "lisa_test", "llmseg", "reasonvos", "revos")
    ],
    "univg_mini_plus": [f"univg_mini_plus_{key}" for key in lmms_data.PLUS_KEYS],
    "univg_refcoco": list(lmms_data.REFCOCO),
    "univg_ref_l4": ["univg_ref_l4_val", "univg_ref_l4_test"],
    "univg_grefcoco": list(lmms_data.GREFCOCO),
    "univg_rex_omni": list(lmms_data.REX_OMNI),
    "univg": ["univg_mig_bench", "univg_zero_shot"],
    "univg_plus": [
        *("univg_mc_bench", "univg_groundingme", "univg_ref_l4", "univg_refcoco_m"),
        *("univg_grefcoco", "univg_humanref"),
    ],
}
IN_NO_GROUP = [
    *("univg_refcoco_m", "univg_mc_bench", "univg_groundingme"),
    *("univg_custom", "univg_reasonvos_full_video", "univg_revos_full_video"),
    *("univg_mini_reasonvos_video", "univg_mini_revos_video", "univg_humanref"),
]
N_TASKS = 88
TASKS = list(
    dict.fromkeys(
        [name for group in GROUPS.values() for name in group if name not in GROUPS] + IN_NO_GROUP
    )
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    lmms_data.prepare_fakes(root)
    return root


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    lmms_data.set_environment(monkeypatch, data, UNIVG_MINI_N="1")


@pytest.fixture(scope="module")
def manager():
    from univg_eval.lmms.run import task_manager

    return task_manager()


OWN = {
    "task": "univg_own",
    "dataset_path": "own",
    "test_split": "test",
    "output_type": "generate_until",
    "generation_kwargs": {"until": []},
    "metric_list": [],
}


def task_with(rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any):
    """A task over these rows of a benchmark of its own."""
    from univg_eval.lmms.task import GroundingTask

    lmms_data.put(tmp_path, rows)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    task = GroundingTask(OWN | changes)
    task.args = arguments()
    return task


SINGLE = {
    "images": ("own/a.png",),
    "widths": (64,),
    "heights": (48,),
    "targets": (Target(0, (0.1, 0.2, 0.5, 0.9)),),
}


# The task folder


def test_the_folder_holds_the_named_tasks_and_groups_and_no_python(manager) -> None:
    assert len(TASKS) == len(set(TASKS)) == N_TASKS
    assert sorted(manager.all_tasks) == sorted([*TASKS, *GROUPS])
    assert manager.all_groups == sorted(GROUPS)
    assert len(list(lmms_data.TASKS.rglob("*.yaml"))) == N_TASKS + len(GROUPS)
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
    expected = [name for part in GROUPS[group] for name in GROUPS.get(part, [part])]
    assert sorted(leaves(tree)) == sorted(expected)
    aggregated = {item["metric"]: item for item in node.config["aggregate_metric_list"]}
    assert list(aggregated) == [name for name in METRICS if name != "clustered"]
    assert not any(item["weight_by_size"] for item in aggregated.values())


def test_every_task_is_set_up_alike(manager) -> None:
    tasks = load_tasks(*TASKS, manager=manager)
    assert len(tasks) == N_TASKS
    for name, task in tasks.items():
        config = task.config
        assert config.task == name
        expected = {"until": [], "max_new_tokens": 512, "do_sample": False, "temperature": 0}
        assert config.generation_kwargs.items() >= expected.items()
        assert (config.reasoning_tags, config.num_fewshot) == ("none", 0)
        assert (config.score_key, config.cluster_key) == ("score", "cluster")
        assert [item["metric"] for item in config.metric_list] == METRICS
        assert set(task.aggregation()) == set(METRICS)


def test_tasks_pick_their_rows_by_benchmark_task_and_split(manager) -> None:
    tasks = load_tasks(*TASKS, manager=manager)
    keys = {name: lmms_data.MIG_KEYS for name in ("mig_bench", "mig_bench_revised", "mini")}
    keys |= {"photos": lmms_data.PHOTO_KEYS, "mini_plus": lmms_data.PLUS_KEYS}
    for name, of_benchmark in keys.items():
        made = name.startswith("mini")
        benchmark = f"univg_{name}" if made else name
        for key in of_benchmark:
            rows = tasks[f"univg_{name}_{key}"].eval_docs
            assert {(row["benchmark"], row["task"]) for row in rows} == {(benchmark, key)}
            assert len(rows) == (1 if made else 3)
    whole = {"univg_custom": ("custom", "test")}
    whole |= lmms_data.ZERO_SHOT | lmms_data.FULL | lmms_data.VIDEO
    whole |= lmms_data.REFCOCO | lmms_data.OTHERS | lmms_data.FIND_ALL
    for name, (benchmark, split) in whole.items():
        rows = tasks[name].eval_docs
        assert {(row["benchmark"], row["split"]) for row in rows} == {(benchmark, split)}


def test_version_metadata_and_comparability(manager) -> None:
    from univg_eval.samples import fingerprint

    tasks = load_tasks(
        "univg_mig_bench_diff", "univg_lisa_val", "univg_lisa_full_val", manager=manager
    )
    mig = tasks["univg_mig_bench_diff"]
    assert mig.VERSION == "1.0+original"
    assert mig.config.metadata["revision"] == "original"
    assert mig.config.metadata["fingerprint"] == fingerprint(load_samples("mig_bench"))
    assert tasks["univg_lisa_val"].VERSION == 1.0
    full = tasks["univg_lisa_full_val"].config.metadata
    assert full["comparable_with_published_table"] is False
    assert "comparable_with_published_table" not in tasks["univg_lisa_val"].config.metadata
    assert len(json.dumps(mig.dump_config(), default=str)) < 5000


def test_a_benchmark_that_is_not_prepared_stops_the_run_with_one_message(
    manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    with stops(capsys, "un `univg prepare lisa`"):
        load_tasks("univg_lisa_val", manager=manager)


@pytest.mark.parametrize("name", ["univg_mini_llmseg", "univg_mini_plus_roles"])
def test_mini_takes_number_and_seed_from_the_environment(
    name: str,
    manager,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    monkeypatch.setenv("UNIVG_MINI_N", "2")
    first = load_tasks(name, manager=manager)[name]
    monkeypatch.setenv("UNIVG_MINI_SEED", "7")
    other = load_tasks(name, manager=manager)[name]
    assert len(first.eval_docs) == len(other.eval_docs) == 2
    assert first.rows.fingerprint != other.rows.fingerprint
    monkeypatch.setenv("UNIVG_MINI_N", "few")
    with stops(capsys, "UNIVG_MINI_N is 'few'"):
        load_tasks(name, manager=manager)


def test_a_mini_that_was_prepared_is_used_as_it_is(
    manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.benchmarks.synthetic.mini import DEFAULT_N, DEFAULT_SEED, ensure
    from univg_eval.benchmarks.synthetic.mini_plus import ensure as ensure_plus
    from univg_eval.lmms.demo import mini_root

    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    monkeypatch.delenv("UNIVG_MINI_N")
    assert mini_root(DEFAULT_N, DEFAULT_SEED) == tmp_path
    ensure(tmp_path, n=3, seed=5)
    task = load_tasks("univg_mini_llmseg", manager=manager)["univg_mini_llmseg"]
    assert len(task.eval_docs) == 3
    assert {row["source"]["seed"] for row in task.eval_docs} == {5}
    ensure_plus(tmp_path, n=2, seed=6)
    task = load_tasks("univg_mini_plus_several", manager=manager)["univg_mini_plus_several"]
    assert {row["source"]["seed"] for row in task.eval_docs} == {6}
    # The demo's set is another one: it must not take this one's place.
    assert mini_root(DEFAULT_N, DEFAULT_SEED) != tmp_path


# Requests


def test_a_simple_backend_gets_text_and_images_apart(
    manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DIALECT", "qwen2_vl")
    task = load_tasks("univg_mig_bench_diff", manager=manager)["univg_mig_bench_diff"]
    first = build(task, model="qwen2_vl", model_args="pretrained=/none")[0]
    text, images = shown(task, first)
    assert text.startswith("Where is it in the second image?")
    _, generation, _, doc_id, name, split = first.args
    assert (generation["until"], doc_id, name, split) == ([], 0, "univg_mig_bench_diff", "test")
    assert [(image.mode, image.size) for image in images] == [("RGB", (64, 48)), ("RGB", (128, 96))]
    assert images[0].getpixel((0, 0)) == (255, 0, 0)


def test_a_chat_backend_gets_images_first_then_the_text(
    manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIVG_DIALECT", "qwen2_5_vl")
    task = load_tasks("univg_mig_bench_diff", manager=manager)["univg_mig_bench_diff"]
    first = build(task, model="qwen2_5_vl", model_args="pretrained=/none")[0]
    _, parts = shown(task, first)
    assert [(part.type, part.url.size) for part in parts] == [
        ("image", (64, 48)),
        ("image", (128, 96)),
    ]
    assert first.args[2]["until"] == []


@pytest.mark.parametrize("carried", ["as it is", "copied", "by pickle"])
def test_a_batch_asked_for_by_its_first_request_keeps_every_prompt(
    manager, monkeypatch: pytest.MonkeyPatch, carried: str
) -> None:
    """As chat/llava_onevision1_5 does: the first request's function, the docs of all."""
    monkeypatch.setenv("UNIVG_DIALECT", "qwen2_5_vl")
    names = ("univg_mig_bench_diff", "univg_mig_bench_region")
    tasks = [load_tasks(name, manager=manager)[name] for name in names]
    requests = [build(task, model="qwen2_5_vl", model_args="pretrained=/n")[0] for task in tasks]
    _, messages_of_first, *_ = requests[0].args
    for task, request in zip(tasks, requests, strict=True):
        own_prompt, _, _, doc_id, _, split = request.args
        doc = task.dataset[split][doc_id]
        assert messages_of_first(doc)[0]["content"][-1]["text"] == own_prompt
        # What is logged or sent to another process is a plain row.
        changed = {"copied": copy.deepcopy, "by pickle": lambda d: pickle.loads(pickle.dumps(d))}
        other = changed.get(carried, dict)(doc)
        assert type(other) is dict and other == doc


def test_the_prompt_style_decides_the_suffix(manager, monkeypatch: pytest.MonkeyPatch) -> None:
    from univg_eval.dialects import get_dialect
    from univg_eval.prompts import THINK_SUFFIX

    task = load_tasks("univg_mig_bench_diff", manager=manager)["univg_mig_bench_diff"]
    question = "Where is it in the second image?"
    monkeypatch.setenv("UNIVG_DIALECT", "norm1000")
    direct = build(task)[0].args[0]
    assert direct == f"{question} {get_dialect('norm1000').prompt_suffix}"
    monkeypatch.setenv("UNIVG_PROMPT", "think")
    assert build(task)[0].args[0] == question + THINK_SUFFIX


def test_an_unknown_model_stops_the_run_before_any_request(
    manager, capsys: pytest.CaptureFixture[str]
) -> None:
    task = load_tasks("univg_mig_bench_diff", manager=manager)["univg_mig_bench_diff"]
    with stops(capsys, "UNIVG_DIALECT"):
        task.args = None


def test_a_missing_image_stops_the_run_instead_of_lowering_a_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = task_with([make_sample("own", "t", 0)], tmp_path, monkeypatch)
    (tmp_path / "own" / "b.png").unlink()
    with stops(capsys, "b.png does not exist"):
        task.doc_to_visual(task.eval_docs[0])


def test_a_row_number_finds_its_row_in_any_tasks_rows(manager) -> None:
    """Stock backends look a whole batch up in the rows of its first task."""
    tasks = load_tasks("univg_mig_bench_diff", "univg_mig_bench_region", manager=manager)
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


def test_the_log_equals_the_scoring_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = make_sample("own", "t", 0)
    task = task_with([sample], tmp_path, monkeypatch)
    for response in RESPONSES:
        logged = task.process_results(task.eval_docs[0], [response])
        score = score_sample(sample, response, "norm1")
        (metrics,) = aggregate([score])["tasks"].values()
        for name in ("acc@0.3", "acc@0.5", "acc@0.7", "acc@0.9", "miou", "macc", "answered"):
            assert logged[name] == metrics[name]
        expected = {
            "id": sample.id,
            "status": score.status,
            "iou": score.iou,
            "box": list(score.box) if score.box else None,
            "n_boxes": score.n_boxes,
            "score": metrics["acc@0.5"],
            "clustered": {"score": metrics["acc@0.5"], "cluster": sample.cluster},
            "dialect": "norm1",
            "protocol": "univg",
        }
        assert {name: logged[name] for name in expected} == expected
        json.dumps(logged)


def test_each_kind_of_sample_counts_in_its_own_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = (0.1, 0.2, 0.5, 0.9)
    rows = [
        make_sample("own", "t", 0, image_is_given=False),
        make_sample("own", "t", 1, targets=()),
        make_sample("own", "t", 2, targets=(Target(0, box), Target(1, (0.6, 0.1, 0.9, 0.3)))),
        make_sample("own", "t", 3, targets=(Target(1, (0.5, 0.2, 0.1, 0.9)),)),
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
    sample = make_sample("own", "t", 0, targets=(Target(1, (0.0, 0.0, 0.5, 1.0)),))
    permuted = task_with([sample], tmp_path, monkeypatch, metadata={"control": "permuted"})
    task = task_with([sample], tmp_path, monkeypatch)
    # 128 x 96 is reduced to at most 3136 pixels in steps of 28: 56 x 28 (floor of 64.7 and 48.5).
    logged = task.process_results(task.eval_docs[0], ['{"bbox_2d": [0, 0, 28, 28]}'])
    assert logged["input_sizes"][1] == (56, 28)
    assert (logged["box"], logged["iou"]) == ([0.0, 0.0, 0.5, 1.0], 1.0)
    assert logged["univg_settings"]["max_pixels"][0] == 3136
    # A permuted image takes its input size along.
    sizes = permuted.input_sizes(permuted.sample(permuted.eval_docs[0]))
    assert [tuple(size) for size in logged["input_sizes"]] == sizes[::-1]
    assert sizes[0] != sizes[1]


def test_sizes_for_claude_start_from_the_image_that_its_backend_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise of 1700 x 1200 is a file of 6 MB, and is shrunk before it is sent."""
    from lmms_eval.models.simple.claude import Claude
    from PIL import Image

    noise = Image.frombytes("RGB", (1700, 1200), random.Random(0).randbytes(1700 * 1200 * 3))
    own = {"images": ("own/noise.png",), "widths": (1700,), "heights": (1200,)}
    sample = make_sample("own", "t", 0, **own, targets=(Target(0, (0.0, 0.0, 0.5, 1.0)),))
    task = task_with([sample], tmp_path, monkeypatch)
    noise.save(tmp_path / "own" / "noise.png")
    sent = Claude.__new__(Claude).shrink_image_to_file_size(noise).size
    assert sent[0] < 1700
    # Both the original and what is sent fit the higher tier, so that nothing shrinks them further.
    for model, name, expected in (
        ("claude", "model_version", sent),
        ("litellm", "model", (1700, 1200)),
    ):
        task.args = arguments(model, f"{name}=claude-opus-5")
        assert task.dialect.name == "claude_high"
        answer = json.dumps({"bbox": [0, 0, expected[0] / 2, expected[1]]})
        logged = task.process_results(task.eval_docs[0], [answer])
        assert logged["input_sizes"] == [expected]
        assert logged["iou"] == pytest.approx(1.0)


def test_clustered_mean_of_nothing_is_nan() -> None:
    from univg_eval.lmms.metrics import mean_of_clustered

    assert mean_of_clustered([{"score": 1.0}, {"score": 0.0}]) == 0.5
    assert mean_of_clustered([]) != mean_of_clustered([])


# What is shown


IMAGES = {
    "turned.jpg": "a photograph lying on its side, with the orientation in its EXIF",
    "palette.png": "a palette with a transparent colour",
    "alpha.png": "colours under an alpha channel",
    "deep.png": "16 bits of grey",
    "print.jpg": "CMYK",
    "grey_alpha.png": "grey with alpha",
}


def write_strange_images(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(7)
    colors = rng.integers(0, 256, (40, 60, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    Image.fromarray(colors[..., :3]).save(folder / "turned.jpg", exif=exif)
    palette = Image.fromarray(colors[..., :3]).quantize(16)
    palette.save(folder / "palette.png", transparency=3)
    Image.fromarray(colors, "RGBA").save(folder / "alpha.png")
    deep = rng.integers(0, 65536, (40, 60), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(colors, "CMYK").save(folder / "print.jpg")
    Image.fromarray(colors[..., :2].copy(), "LA").save(folder / "grey_alpha.png")


def as_pillow_gives_it(path: Path):
    """Upright RGB by Pillow's own steps; alpha is dropped, 16 bits of grey keep the upper eight."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        if path.name == "turned.jpg":
            return image.convert("RGB").transpose(Image.Transpose.ROTATE_270)
        if path.name == "deep.png":
            grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            return Image.fromarray(grey).convert("RGB")
        return image.convert("RGB")


@pytest.mark.parametrize("kind", ["simple", "chat"])
def test_what_reaches_a_backend_are_the_upright_rgb_pixels_of_the_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from univg_eval.benchmarks.readers.common.release import size_of

    write_strange_images(tmp_path / "own")
    names = tuple(f"own/{name}" for name in IMAGES)
    sizes = [size_of(tmp_path / name) for name in names]
    assert sizes[0] == (40, 60)
    row = make_sample(
        "own",
        "t",
        0,
        images=names,
        widths=tuple(width for width, _ in sizes),
        heights=tuple(height for _, height in sizes),
    )
    monkeypatch.setenv("UNIVG_DIALECT", "norm1000")
    task = task_with([row], tmp_path, monkeypatch)
    backend = {"simple": "qwen2_vl", "chat": "qwen2_5_vl"}[kind]
    _, images = shown(task, build(task, model=backend, model_args="pretrained=/none")[0])
    if kind == "chat":
        images = [part.url for part in images]
    assert len(images) == len(names)
    for name, image, size in zip(names, images, sizes, strict=True):
        assert (image.mode, image.size) == ("RGB", size), name
        expected = as_pillow_gives_it(tmp_path / name)
        assert np.array_equal(np.asarray(image), np.asarray(expected)), name


def test_controls_show_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        make_sample("own", "t", 0),
        make_sample(
            "own",
            "t",
            1,
            images=("own/b2.png", "own/a2.png"),
            widths=(128, 64),
            heights=(96, 48),
            cluster="other",
        ),
    ]

    lmms_data.write_images(tmp_path, "own")
    for name in "ab":
        shutil.copy(tmp_path / "own" / f"{name}.png", tmp_path / "own" / f"{name}2.png")
    small, large, red, blue = (64, 48), (128, 96), (255, 0, 0), (0, 0, 255)
    texts = set()
    for control, sizes, colors in (
        ("none", [small, large], [red, blue]),
        ("blank", [small, large], [(128, 128, 128)] * 2),
        ("swapped", [small, large], [blue, red]),
        ("permuted", [large, small], [blue, red]),
        ("cut", [small, large], [red, blue]),
    ):
        task = task_with(rows, tmp_path, monkeypatch, metadata={"control": control})
        text, images = shown(task, build(task)[0])
        assert [(image.size, image.getpixel((9, 9))) for image in images] == [
            *zip(sizes, colors, strict=True)
        ]
        if control == "none":
            assert (task.settings.variant, task.VERSION) == ("", "Yaml")
        else:
            assert (task.settings.variant, task.VERSION) == (control, f"Yaml+{control}")
            assert task.config.metadata["left_out"] == 0
        if control == "cut":
            assert text.startswith("Output the bounding box of the object in image 2 of 2. ")
        else:
            texts.add(text)
        # The answer is measured against the same truth.
        logged = task.process_results(task.eval_docs[0], ["[0.1, 0.2, 0.5, 0.9]"])
        assert logged["iou"] == pytest.approx(1.0)
        assert logged["univg_settings"]["control"][0] == control
    assert len(texts) == 1


def test_the_response_cache_finds_every_response_and_none_of_another_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stock backends take `until` out of the first request's arguments while they answer."""
    from lmms_eval.caching.response_cache import ResponseCache

    rows = [make_sample("own", "t", i, cluster=f"c{i}") for i in range(3)]

    class Backend:
        answered = 0

        def generate_until(self, requests) -> list[str]:
            _, generation, *_ = next(request.args for request in requests)
            assert generation.pop("until") == []
            self.answered += len(requests)
            return [f"answer {request.doc_id}" for request in requests]

    def answered(control: str, folder: str) -> int:
        task = task_with(
            rows,
            tmp_path,
            monkeypatch,
            metadata={"control": control},
            generation_kwargs={"until": [], "do_sample": False, "temperature": 0},
        )
        backend = Backend()
        cache = ResponseCache.create(
            cache_root=str(tmp_path / folder), model="m", task_dict={"univg_own": task}
        )
        given = cache.execute(backend, "generate_until", build(task))
        assert given == ["answer 0", "answer 1", "answer 2"]
        cache.finalize(success=True)
        return backend.answered

    assert [answered("none", "cache") for _ in range(2)] == [3, 0]
    # The prompt and the names of the images are those of the plain task.
    assert [answered("blank", "cache") for _ in range(2)] == [3, 0]


def test_requests_are_not_taken_from_a_cache_that_knows_the_name_of_the_task_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval.caching import cache

    monkeypatch.setattr(cache, "PATH", str(tmp_path / "requests"))
    rows = [make_sample("own", "t", 0)]
    for control, start in (("none", rows[0].instruction), ("cut", "Output the bounding box")):
        task = task_with(rows, tmp_path, monkeypatch, metadata={"control": control})
        task.build_all_requests(limit=None, cache_requests=True)
        assert task.instances[0].args[0].startswith(start)


def test_a_control_that_fits_no_row_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = make_sample("own", "t", 0, **SINGLE)
    with stops(capsys, "none of the 1 rows"):
        task_with([row], tmp_path, monkeypatch, metadata={"control": "permuted"})


def test_a_run_with_controls_leaves_a_record_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.lmms.record import write_records
    from univg_eval.lmms.task import GroundingTask
    from univg_eval.runs.record import load_run

    rows = [make_sample("own", "t", i, cluster=f"c{i}") for i in range(3)]
    task_with([*rows, make_sample("own", "t", 3, **SINGLE)], tmp_path, monkeypatch)
    metrics = [{"metric": "acc@0.5", "aggregation": "mean", "higher_is_better": True}]
    common = OWN | {"reasoning_tags": "none", "metric_list": metrics}
    tasks = [
        GroundingTask(
            common | {"task": f"own_{name}", "metadata": {"version": 1.0, "control": name}}
        )
        for name in ("none", "blank", "permuted", "cut")
    ]
    results = lmms_data.evaluate("univg_baseline", arguments(), tasks)
    folders = write_records(results, tmp_path / "records")
    manifests = {folder.name: load_run(folder).manifest.to_dict() for folder in folders}
    n = {"own": 4, "own+blank": 4, "own+permuted": 3, "own+cut": 4}
    assert {name: manifest["n"] for name, manifest in manifests.items()} == n
    assert all(manifest["complete"] for manifest in manifests.values())
    permuted = manifests["own+permuted"]
    expected = {"benchmark": "own+permuted", "prepared_benchmark": "own", "left_out": 1, "n": 4}
    assert permuted["dataset"].items() >= expected.items()
    assert permuted["settings"]["control"][0] == "permuted"
    assert permuted["results"]["macro"]["acc@0.5"] == 1.0
    assert permuted["dataset"]["fingerprint"] == manifests["own"]["dataset"]["fingerprint"]
