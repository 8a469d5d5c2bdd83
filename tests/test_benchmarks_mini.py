"""univg_mini's generator: deterministic, disjoint subsets, held-out combinations, fair places."""

from __future__ import annotations

import itertools
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from univg_eval.benchmarks.synthetic.mini import (
    COLORS,
    HELD_OUT,
    HELD_OUT_TOOLS,
    SHAPES,
    TASKS,
    MiniItem,
    Scene,
    SceneObject,
    generate,
    listing,
    referring,
)
from univg_eval.benchmarks.synthetic.mini.scene import Background
from univg_eval.boxes import box_iou, is_valid_box
from univg_eval.errors import UserError

ORDER = (
    "common_object diff view_diff object_tracking multi_view region refer_grounding "
    "group_grounding reasoning correspondence lisa_val lisa_test llmseg reasonvos revos"
)

# Generator version 1. If this changes, samples have changed: raise GENERATOR_VERSION.
PINNED = "6d21a248ba1afe7ad22535b4e0039c9ed5d755ff5ec17c59d856e484ec0d5405"

PIN_SCRIPT = """
import hashlib
from univg_eval.benchmarks.synthetic.mini import TASKS, generate
h = hashlib.sha256()
for task in TASKS:
    for subset in ("eval", "train"):
        for index in range(60):
            item = generate(task, seed=7, index=index, subset=subset)
            knobs = sorted(item.knobs.items(), key=str)
            h.update(repr((item.scenes, item.instruction, item.box, item.target_image,
                           item.label, knobs, item.group, item.frames)).encode())
            if item.clip:
                h.update(repr([item.clip.at(frame) for frame in range(25)]).encode())
print(h.hexdigest())
"""


def items(task: str, n: int, subset="train", seed=3) -> list[MiniItem]:
    return [generate(task, seed=seed, index=index, subset=subset) for index in range(n)]


@pytest.mark.parametrize("hash_seed", ["0", "12345"])
def test_samples_do_not_depend_on_the_process_and_are_pinned(hash_seed):
    """Neither on the hash seed nor on the state of any global generator of random numbers."""
    run = subprocess.run(
        [sys.executable, "-c", PIN_SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": hash_seed},
    )
    assert run.stdout.strip() == PINNED


@pytest.mark.parametrize("task", TASKS)
def test_subsets_and_seeds_share_no_image(task):
    def content(item: MiniItem) -> bytes:
        return b"".join(image.tobytes() for image in item.render(56))

    streams = [("eval", 3), ("train", 3), ("eval", 4), ("train", 4)]
    contents = [{content(item) for item in items(task, 40, *stream)} for stream in streams]
    for a, b in itertools.combinations(contents, 2):
        assert not a & b


@pytest.mark.parametrize("task", TASKS)
def test_train_never_shows_a_held_out_combination_and_eval_does_in_a_quarter(task):
    def combinations(item: MiniItem):
        for obj in itertools.chain.from_iterable(item.objects):
            yield (obj.color, (obj.name or obj.shape).split()[0])

    held_out = HELD_OUT_TOOLS if task == "correspondence" else HELD_OUT
    for item in items(task, 200, "train"):
        assert not held_out & set(combinations(item))
        assert item.knobs["held_out"] is False
    flagged = 0
    for item in items(task, 80, "eval"):
        assert bool(held_out & set(combinations(item))) == item.knobs["held_out"]
        if item.knobs["held_out"]:
            flagged += 1
            assert tuple(item.label.split()[:2]) in held_out
    assert flagged == 20


def test_tasks_and_held_out_combinations():
    """The fifteen tasks in order; each colour is held out once, with every shape."""
    assert " ".join(TASKS) == ORDER
    assert sorted(color for color, _ in HELD_OUT) == sorted(COLORS)
    assert {shape for _, shape in HELD_OUT} == set(SHAPES)
    assert sorted(color for color, _ in HELD_OUT_TOOLS) == sorted(COLORS)
    assert len({tool for _, tool in HELD_OUT_TOOLS}) == 8


@pytest.mark.parametrize("task", TASKS)
def test_items_are_well_formed(task):
    counts = set()
    for item in items(task, 150, "eval"):
        counts.add(item.image_count)
        assert len(item.scenes) == len(item.objects) == item.knobs["images"]
        assert is_valid_box(item.box)
        # Corners on the lattice: exact at every size that 28 divides.
        assert np.allclose(np.array(item.box) * 28, np.round(np.array(item.box) * 28))
        assert 0 <= item.target_image < item.image_count
        assert item.image_is_given == (task != "group_grounding")
        assert item.video == (task in ("reasonvos", "revos"))
        share = (item.box[2] - item.box[0]) * (item.box[3] - item.box[1])
        assert item.knobs["target_share"] == pytest.approx(share, abs=1e-4)
        assert {"kind", "depth", "distractors", "held_out"} <= item.knobs.keys()
        assert "{" not in item.instruction and "  " not in item.instruction
        assert "locate" in item.instruction.lower()
        if item.video:
            assert item.frames == (2, 7, 12, 17, 22) and item.target_image == 2
            assert item.scenes == tuple(item.clip.at(frame) for frame in item.frames)
        boxes = [obj.box for obj in item.scenes[item.target_image].objects]
        assert (item.target_image == 0) if task == "region" else (item.box in boxes)
        for a, b in itertools.combinations(boxes, 2):
            assert box_iou(a, b) == 0.0
    expected = {
        "common_object": {2, 3, 4},
        "object_tracking": {6},
        "multi_view": {3, 4},
        "region": {3, 4},
        "group_grounding": {3, 4},
        "lisa_val": {1},
        "lisa_test": {1},
        "llmseg": {1},
        "reasonvos": {5},
        "revos": {5},
    }
    assert counts == expected.get(task, {2})


@pytest.mark.parametrize("task", TASKS)
def test_no_fixed_box_scores_well(task):
    """Targets are spread over the image: the best box chosen in hindsight stays low."""
    truth = np.array([item.box for item in items(task, 400)])
    grid = np.arange(0, 29, 2) / 28
    corners = [
        (x1, y1, x2, y2)
        for x1, y1 in itertools.product(grid, grid)
        for x2, y2 in itertools.product(grid, grid)
        if x2 - x1 > 0.1 and y2 - y1 > 0.1
    ]
    accuracy = (box_iou(np.array(corners)[:, None], truth[None]) >= 0.5).mean(axis=1)
    assert accuracy.max() < 0.12
    centres = (truth[:, :2] + truth[:, 2:]) / 2
    assert np.abs(centres.mean(axis=0) - 0.5).max() < 0.05
    for low, high in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)):
        inside = ((centres >= low) & (centres < high)).mean(axis=0)
        assert (inside > 0.15).all(), (low, inside)


@pytest.mark.parametrize("task", TASKS)
def test_only_samples_in_pairs_share_images(task):
    if task not in ("common_object", "object_tracking"):
        assert len({item.group for item in items(task, 20, "eval")}) == 20
        return
    found = items(task, 40)
    for a, b in zip(found[::2], found[1::2], strict=True):
        assert a.group == b.group and a.scenes == b.scenes
        assert a.target_image != b.target_image


@pytest.mark.parametrize("task", ["object_tracking", "multi_view", "correspondence"])
def test_boxes_in_the_text_are_the_marked_ones(task):
    seen = 0
    for item in items(task, 60, "eval"):
        assert item.marked_box is not None
        match = re.search(r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)", item.instruction)
        if match is not None:
            seen += 1
            assert [int(v) for v in match.groups()] == [round(v * 1000) for v in item.marked_box]
    assert seen == 60 or (task == "correspondence" and 20 < seen < 60)


def test_marks_edges_and_sizes_of_drawings():
    item = next(i for i in items("object_tracking", 60) if min(i.marked_box) > 0.1)
    drawn = np.asarray(item.render(448)[0], int)
    x1, y1, _, y2 = (round(v * 448) for v in item.marked_box)
    assert tuple(drawn[(y1 + y2) // 2, x1 - 3]) == (255, 0, 0)
    assert tuple(drawn[y1 - 3, x1 + 10]) == (255, 0, 0)
    # Smooth edges: black, white, and the shares of four subpixels between them.
    background = Background((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    circle = SceneObject("circle", "white", (0.25, 0.25, 0.75, 0.75))
    assert len(np.unique(np.asarray(Scene(background, (circle,)).render(112))[:, :, 0])) == 5
    # Width and height; crops are stored at half the size.
    item = generate("region", seed=3, index=0)
    assert {image.size for image in item.render((224, 112))} == {(224, 112)}
    stored = [image.size for image in item.render((224, 112), stored=True)]
    assert stored[0] == (224, 112) and set(stored[1:]) == {(112, 56)}


@pytest.mark.parametrize("task", ["region", "view_diff", "correspondence", "revos"])
def test_one_scene_at_any_size(task):
    """A large drawing made small is the small drawing, but for resampling."""
    item = generate(task, seed=3, index=1)
    for large, small in zip(item.render(448), item.render(112), strict=True):
        assert large.size == (448, 448) and small.size == (112, 112) and small.mode == "RGB"
        difference = np.asarray(large.reduce(4), float) - np.asarray(small, float)
        assert np.abs(difference).mean() < 2.5


def test_a_crop_is_that_part_of_the_picture():
    scene = generate("lisa_val", seed=3, index=2).scenes[0]
    window = (0.25, 0.5, 0.75, 1.0)
    part = np.asarray(scene.render(448).crop((112, 224, 336, 448)), float)
    crop = np.asarray(scene.window(window).render(224), float)
    assert np.abs(part - crop).mean() < 1.5


def test_wording_varies_within_a_small_vocabulary():
    words = set()
    for task in TASKS:
        questions = [re.sub(r"\d+", "0", item.instruction) for item in items(task, 60)]
        assert len(set(questions)) >= 3, task
        words |= set(re.findall(r"[A-Za-z]+", " ".join(questions)))
    assert len(words) < 330


@pytest.mark.parametrize("task", TASKS)
def test_listing_goes_from_left_to_right_and_leaves_out_cut_objects(task):
    for item in items(task, 20):
        for image in range(item.image_count):
            instruction, answer = listing(item, image)
            assert instruction.startswith("List all objects")
            assert ("image" in instruction or "frame" in instruction) == (item.image_count > 1)
            lefts = [box[0] for _, box in answer]
            assert lefts == sorted(lefts)
            assert set(answer) == {(o.label, o.box) for o in item.objects[image] if o.is_whole}
        with pytest.raises(UserError, match=f"image {item.image_count} of"):
            listing(item, item.image_count)


def test_referring_names_one_whole_object():
    rng = random.Random(0)
    images = set()
    for task in TASKS:
        for item in items(task, 20):
            question = referring(item, rng)
            if question is None:
                # Nothing but two twins in motion: no plain name tells one from the other.
                assert item.knobs["kind"] == "twin" and len(item.objects[0]) == 2
                continue
            images.add(question.image)
            shown = [(obj.label, obj.box) for obj in item.objects[question.image]]
            assert [label for label, _ in shown].count(question.label) == 1
            assert question.label in question.instruction
            assert (question.label, question.box) in shown
            assert is_valid_box(question.box)
    assert images >= {0, 1, 2, 3}
    # Of twins alone none can be named.
    item = next(i for i in items("lisa_val", 60) if i.knobs["kind"] == "odd_one_out")
    twins = tuple(obj for obj in item.objects[0] if obj.label != item.label)
    assert referring(Scene(item.scenes[0].background, twins), rng) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "difff"}, r"'difff' .*: common_object, diff"),
        ({"subset": "test"}, r"'test' .*: eval, train"),
        ({"index": -1}, r"index is -1"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(UserError, match=message):
        generate(**({"task": "diff", "seed": 1, "index": 0} | change))
