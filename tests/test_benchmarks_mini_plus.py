"""univg_mini_plus: the truth read back from the pixels, one build a folder, known baselines.

The solver below reads what a reader has: the images and the instruction. It shares no code with
the generator, finds the objects by their pixels, and names shapes by a few points in their boxes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from doc_pages import page_text

from univg_eval.benchmarks.synthetic import mini_plus
from univg_eval.benchmarks.synthetic.mini import COLORS, DEFAULT_N, DEFAULT_SEED, HELD_OUT, SHAPES
from univg_eval.benchmarks.synthetic.mini_plus import TASKS, ensure, generate
from univg_eval.boxes import Box, box_iou
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.samples import GroundingSample, load_manifest, load_samples
from univg_eval.scoring import METRICS, aggregate, sample_metrics, score_sample

N, SEED, SIDE = 60, 77, 168
TWO = ("two_images", "roles")
EVERY_TASK = pytest.mark.parametrize("task", TASKS)

# Generator version 1. If this changes, samples have changed: raise GENERATOR_VERSION.
PINNED = "7cbc3dd5a33ddbb97805b4f9c167b9be6dea16d401dcacb15a92271921400179"

PIN_SCRIPT = """
import hashlib
from univg_eval.benchmarks.synthetic.mini_plus import TASKS, generate
h = hashlib.sha256()
for task in TASKS:
    for index in range(40):
        sample, scenes = generate(task, seed=7, index=index)
        h.update(repr((sample.to_dict(), scenes)).encode())
print(h.hexdigest())
"""


def samples(task: str, n: int = N, seed: int = SEED) -> list[GroundingSample]:
    return [generate(task, seed=seed, index=index)[0] for index in range(n)]


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_samples_do_not_depend_on_the_process_and_are_pinned(hash_seed: str) -> None:
    command = [sys.executable, "-c", PIN_SCRIPT]
    env = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert run.stdout.strip() == PINNED


# --- the truth, from pixels and words --------------------------------------------------------

Seen = tuple[str, str, Box]
"""color, shape, box on [0, 1]"""


def shape_of(mask: np.ndarray) -> str:
    """The shape that fills a box so, by whether points of it (x, y on [0, 1]) are covered."""

    def covered(x: float, y: float) -> bool:
        height, width = mask.shape
        return bool(mask[int(y * height), int(x * width)])

    if not covered(0.5, 0.5):
        return "ring"
    if covered(0.08, 0.95):
        return "square" if covered(0.08, 0.08) else "triangle"
    if covered(0.19, 0.19):
        return "circle"
    return "cross" if covered(0.37, 0.06) else "diamond"


def objects_in(image) -> list[Seen]:
    ndimage = pytest.importorskip("scipy.ndimage", reason="needs the extra 'report'")
    pixels = np.asarray(image, dtype=int)
    found = []
    for color, rgb in COLORS.items():
        parts, _ = ndimage.label(np.abs(pixels - rgb).max(axis=2) < 40)
        for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            mask = parts[rows, columns] == number
            if mask.sum() > 60:  # less is the blurred edge of another color
                corners = np.array([columns.start, rows.start, columns.stop, rows.stop])
                found.append((color, shape_of(mask), tuple((corners / SIDE).tolist())))
    return found


ALIKE = ({"circle", "ring"}, {"square", "diamond"})
WANTED = re.compile(r"(?:refers to|corresponding to the instruction): (.+?)\. (?:Give|Write|If) ")


def solve(instruction: str, shown: list[list[Seen]]) -> list[tuple[int, Box, int]]:
    """(image, box, group) of every object that the words fit."""
    found = WANTED.search(instruction)
    assert found is not None, instruction
    words = found[1]
    if words == "object that both images show in the same color and shape":
        first, second = ([(c, s) for c, s, _ in row] for row in shown)
        assert len(set(first)) == len(first) and len(set(second)) == len(second)
        for one, other in combinations([*first, *second], 2):
            assert not (one[0] == other[0] and {one[1], other[1]} in ALIKE), "almost the same"
        names = sorted(set(first) & set(second))
        return [
            (image, box, names.index((c, s)))
            for image, row in enumerate(shown)
            for c, s, box in row
            if (c, s) in names
        ]
    named = words.split()
    colors = [word for word in named if word in COLORS]
    shapes = [word for word in named if word in SHAPES]
    assert set(named) <= {*colors, *shapes, "object"} and colors + shapes, words
    result = []
    for image, row in enumerate(shown):
        for color, shape, box in row:
            if colors and color not in colors:
                continue
            if not shapes or shape in shapes:
                result.append((image, box, 0))
            assert shape in shapes or {shape, *shapes} not in ALIKE, "in other words it fits too"
    return result


@EVERY_TASK
def test_the_targets_are_what_pixels_and_words_say(task: str) -> None:
    for index in range(N // 2):
        sample, scenes = generate(task, seed=SEED, index=index, size=SIDE)
        shown = [objects_in(scene.render(SIDE)) for scene in scenes]
        assert [len(row) for row in shown] == [len(scene.objects) for scene in scenes]
        left = solve(sample.instruction, shown)
        groups: dict[int, set[int]] = {}
        for number, target in enumerate(sample.targets):
            (match,) = [
                one
                for one in left
                if one[0] == target.image and np.abs(np.array(one[1]) - target.box).max() < 2 / SIDE
            ]
            left.remove(match)
            if task in TWO:
                groups.setdefault(match[2], set()).add(sample.extra["groups"][number])
        assert left == [], (sample.id, sample.instruction)
        assert all(len(numbers) == 1 for numbers in groups.values())
        assert len(set().union(*groups.values())) == len(groups)


@EVERY_TASK
def test_no_two_targets_can_be_taken_for_each_other(task: str) -> None:
    for sample in samples(task):
        for one, other in combinations(sample.targets, 2):
            assert one.image != other.image or box_iou(one.box, other.box) == 0.0


def test_how_many_targets_there_are() -> None:
    n_targets = {task: Counter(len(s.targets) for s in samples(task)) for task in TASKS}
    assert n_targets["several"] == {2: 15, 3: 15, 4: 15, 5: 15}
    assert n_targets["count_varies"] == {0: 12, 1: 12, 2: 12, 3: 12, 4: 12}
    assert n_targets["absent"] == {0: 30, 1: 30}
    assert n_targets["roles"] == {2: 30, 4: 30}
    where = Counter(frozenset(t.image for t in s.targets) for s in samples("two_images"))
    assert set(where.values()) == {15}
    assert len(where) == 4


@pytest.mark.parametrize(
    ("task", "kinds", "words"),
    [
        ("several", {"several"}, "Find every object in the image that"),
        ("count_varies", {"several", "none"}, "Find every object in the image that"),
        ("absent", {"single", "none"}, "Output the bounding box in the image"),
        ("two_images", {"several", "none"}, 'Write "Image 1:" or "Image 2:" before'),
        ("roles", {"several"}, 'Write "Image 1:" or "Image 2:" before'),
    ],
)
def test_a_sample_says_what_it_asks_for(task: str, kinds: set[str], words: str) -> None:
    made = samples(task)
    assert {sample.kind for sample in made} == kinds
    assert len({sample.cluster for sample in made}) == N
    for sample in made:
        assert words in sample.instruction
        assert sample.instruction.endswith("If there is no such object, answer: none.")
        assert sample.find_all == (task != "absent")
        assert (sample.image_is_given, len(sample.images)) == (
            (False, 2) if task in TWO else (True, 1)
        )
        assert GroundingSample.from_dict(sample.to_dict()) == sample


def test_groups_are_those_of_the_targets() -> None:
    for sample in samples("two_images"):
        assert sample.extra["groups"] == [1] * len(sample.targets)
    for sample in samples("roles"):
        roles = zip(sample.targets, sample.extra["groups"], strict=True)
        n_pairs = len(sample.targets) // 2
        expected = [(image, group) for image in (0, 1) for group in range(1, n_pairs + 1)]
        assert [(target.image, group) for target, group in roles] == expected


@pytest.mark.parametrize("task", ["count_varies", "absent", "two_images"])
def test_color_or_shape_alone_never_tells_whether_an_object_is_there(task: str) -> None:
    for index in range(N):
        sample, scenes = generate(task, seed=SEED, index=index)
        color, shape = sample.extra["expression"].split()
        for scene in scenes:
            others = [o for o in scene.objects if (o.color, o.shape) != (color, shape)]
            assert any(obj.color == color for obj in others)
            assert any(obj.shape == shape for obj in others)


@EVERY_TASK
def test_no_image_shows_a_combination_that_is_held_out_of_training(task: str) -> None:
    for index in range(N):
        for scene in generate(task, seed=SEED, index=index)[1]:
            assert not HELD_OUT & {(obj.color, obj.shape) for obj in scene.objects}


# --- the build -------------------------------------------------------------------------------


def test_the_build_holds_what_was_generated_and_is_made_once(tmp_path) -> None:
    seen: list[tuple[int, int]] = []
    folder = ensure(tmp_path, n=3, seed=5, size=112, progress=lambda *done: seen.append(done))
    assert seen == [(n, 15) for n in range(1, 16)]
    stored = load_samples("univg_mini_plus", root=tmp_path)
    assert [sample.id for sample in stored] == [
        f"univg_mini_plus-{task}-{index:05d}" for task in TASKS for index in range(3)
    ]
    for sample in stored:
        index = sample.source["index"]
        made, scenes = generate(sample.task, seed=5, index=index, size=112)
        assert sample == made
        for image, scene in zip(open_images(sample, tmp_path), scenes, strict=True):
            assert np.array_equal(np.asarray(image), np.asarray(scene.render(112)))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")}
    assert ensure(tmp_path, n=3, seed=5, size=112) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.*")} == before
    fingerprint = load_manifest("univg_mini_plus", tmp_path)["fingerprint"]
    ensure(tmp_path, n=3, seed=6, size=112)
    manifest = load_manifest("univg_mini_plus", tmp_path)
    assert manifest["fingerprint"] != fingerprint
    assert manifest["generator"] == {
        "name": "univg_mini_plus",
        "version": mini_plus.GENERATOR_VERSION,
        "seed": 6,
        "n_per_task": 3,
        "size": 112,
    }


def test_mistakes_are_named(tmp_path) -> None:
    with pytest.raises(UserError, match="unknown task 'diff' of univg_mini_plus; known: several"):
        generate("diff", seed=1, index=0)
    with pytest.raises(UserError, match="n is 0 samples a task"):
        ensure(tmp_path, n=0)


# --- baselines -------------------------------------------------------------------------------


def scored(kind: str, dialect: str = "norm1", n: int = 20, seed_of_set: int = SEED, **args):
    """(sample, score) of every task, as the backend answers and the score reads it."""
    pytest.importorskip("lmms_eval")
    from univg_eval.lmms.backends.baseline import BaselineModel
    from univg_eval.lmms.settings import ModelUnderTest, resolve_settings

    environ = {} if dialect == "norm1" else {"UNIVG_DIALECT": dialect}
    settings = resolve_settings(ModelUnderTest("univg_baseline"), {}, environ)
    model = BaselineModel(kind=kind, **args)
    for task in TASKS:
        for sample in samples(task, n, seed_of_set):
            yield sample, score_sample(sample, model.respond(sample, settings), dialect)


def metrics_of(kind: str, **args) -> dict[str, dict[str, float]]:
    found = aggregate(score for _, score in scored(kind, **args))
    tasks = found["tasks"].items()
    values = {task: {k: v for k, v in row.items() if k in METRICS} for task, row in tasks}
    return values | {"rejection": found["rejection"]}


def test_the_oracle_scores_one_in_every_metric() -> None:
    found = metrics_of("oracle")
    rejection = found.pop("rejection")
    assert rejection == {"n_no_target": 19, "n_said_none": 19, "recall": 1.0, "precision": 1.0}
    for values in found.values():
        assert set(values.values()) == {1.0}
    several = {"f1@0.5", "f1@0.95", "f1_mean", "ap50", "matched_iou"}
    assert set(found["several"]) == several
    assert set(found["roles"]) == several | {"image_set_acc"}
    assert set(found["two_images"]) == several | {"image_set_acc", "no_target_acc"}
    assert set(found["count_varies"]) == several | {"no_target_acc"}
    assert {"acc@0.5", "macc", "answered", "no_target_acc"} < set(found["absent"])


@pytest.mark.parametrize("dialect", ["qwen2_vl", "qwen2_5_vl", "internvl", "norm1000", "gemini"])
def test_the_oracle_is_read_in_other_dialects_too(dialect: str) -> None:
    for sample, score in scored("oracle", dialect):
        metrics = sample_metrics(score)
        counted = ("acc@0.5", "f1@0.5", "image_set_acc", "no_target_acc")
        assert {metrics[name] for name in counted if name in metrics} == {1.0}, sample.id


def test_none_is_right_only_where_nothing_is_there_and_a_refusal_never() -> None:
    none, refuse = metrics_of("none"), metrics_of("refuse")
    # Of 20 samples a task: 4 of count_varies, 10 of absent, 5 of two_images.
    assert none.pop("rejection") == {
        "n_no_target": 19,
        "n_said_none": 100,
        "recall": 1.0,
        "precision": 0.19,
    }
    assert refuse.pop("rejection")["n_said_none"] == 0
    for task, values in none.items():
        assert values == {name: float(name == "no_target_acc") for name in values}, task
        assert set(refuse[task].values()) == {0.0}


def test_noisy_is_right_or_wrong_in_every_metric_of_a_sample() -> None:
    from univg_eval.lmms.backends.baseline import is_hit

    for sample, score in scored("noisy", p=0.5, seed=3):
        metrics = {k: v for k, v in sample_metrics(score).items() if k != "answered"}
        assert set(metrics.values()) == {float(is_hit(3, sample.id, 0.5))}, sample.id


def test_the_whole_image_finds_nothing() -> None:
    found = metrics_of("full")
    assert found.pop("rejection")["n_said_none"] == 0
    for values in found.values():
        near = {"miou", "center_acc", "answered", "image_set_acc"}
        assert {value for name, value in values.items() if name not in near} == {0.0}


# --- the page --------------------------------------------------------------------------------


def rows_of_page() -> dict[str, list[str]]:
    """First cell → the other cells, of the tables of the section."""
    section = page_text("univg_mini").split("\n## Several objects, or none\n")[1]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:3] == "| `"]
    return {first.strip("`"): rest for first, *rest in lines}


def test_the_page_lists_the_tasks_and_what_the_baselines_score() -> None:
    rows = rows_of_page()
    assert list(rows)[:5] == list(TASKS)
    kinds = {"oracle": {}, "noisy": {"p": 0.5}, "none": {}, "refuse": {}, "full": {}}
    for column, (kind, args) in enumerate(kinds.items(), start=1):
        found = metrics_of(kind, n=DEFAULT_N, seed_of_set=DEFAULT_SEED, **args)
        del found["rejection"]
        for metric in list(rows)[5:]:
            values = [values[metric] for values in found.values() if metric in values]
            assert rows[metric][column] == f"{100 * sum(values) / len(values):.1f}", (kind, metric)
