"""The truth of every sample of photos, found a second time without the code that made it."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skimage", reason="photos needs the extra 'eval'")

from skimage.feature import match_template

from univg_eval.benchmarks.synthetic.photos import (
    TASKS,
    Annotation,
    ensure,
    load_photo,
    read_sources,
)
from univg_eval.benchmarks.synthetic.photos.patches import settle
from univg_eval.boxes import box_iou
from univg_eval.images.reading import open_images
from univg_eval.samples import fingerprint, load_manifest, load_samples

FINGERPRINT = "a91a88d877f32fa13e2711b8ee2ff344b7c3f0c90db1f15f8ff227e7fdcc12d1"
MEASURED = ("photos", "large")
"""Tasks that have one sample for each measured box."""
COLORS = {
    "red": (222, 28, 28),
    "green": (10, 150, 30),
    "blue": (30, 50, 235),
    "yellow": (250, 232, 20),
    "purple": (165, 20, 215),
    "cyan": (40, 232, 240),
    "white": (252, 252, 252),
    "black": (8, 8, 8),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    ensure(root)
    return root


@pytest.fixture(scope="module")
def samples(root):
    return load_samples("photos", root=root)


@pytest.fixture(scope="module")
def shown_images(root):
    """sample → its images as (height, width, 3) arrays of int16."""
    return lambda sample: [np.asarray(i, dtype=np.int16) for i in open_images(sample, root)]


def of(samples, task):
    return [sample for sample in samples if sample.task == task]


def photo_of(name):
    photo = next(photo for photo in read_sources()[0] if photo.name == name)
    return load_photo(photo).astype(np.int16)


def annotation_of(sample) -> Annotation:
    expression = sample.extra.get("object") or sample.extra["expression"]
    return next(a for a in read_sources()[1] if a.expression == expression)


def pixel_box(sample):
    """The true box in pixels of its image, as it was before it was divided by the size."""
    width, height = sample.image_sizes[sample.target_image]
    x1, y1, x2, y2 = sample.box
    return np.array([x1 * width, y1 * height, x2 * width, y2 * height])


def cut(picture, box):
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    return picture[y1:y2, x1:x2]


def tight(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def gray(picture):
    return np.asarray(Image.fromarray(picture.astype(np.uint8)).convert("L"), dtype=float)


def best_matches(picture, patch):
    """((x, y) of the best place, its correlation, the best one away from it)."""
    scores = match_template(gray(picture), gray(patch))
    y, x = np.unravel_index(scores.argmax(), scores.shape)
    height, width = patch.shape[:2]
    rows, columns = np.ogrid[: scores.shape[0], : scores.shape[1]]
    away = (abs(rows - y) > height / 2) | (abs(columns - x) > width / 2)
    return (x, y), scores.max(), scores[away].max()


def resized(picture, wh):
    image = Image.fromarray(picture.astype(np.uint8))
    return np.asarray(image.resize(wh, Image.Resampling.BICUBIC), dtype=np.int16)


def test_samples_and_manifest(samples, root):
    assert fingerprint(samples) == FINGERPRINT
    assert len(samples) == 116
    counts = Counter(sample.task for sample in samples)
    assert counts == {task: 16 if task in MEASURED else 14 for task in TASKS}
    assert (
        *("photos", "find_crop", "difference", "second_view", "moving_patch", "which_photo"),
        *("large", "easy"),
    ) == TASKS
    assert samples[0].id == "photos-photos-000" and samples[-1].id == "photos-easy-013"
    for sample in samples:
        assert sample.split == "test" and sample.has_valid_targets
        assert sample.image_is_given == (sample.task != "which_photo")
        assert (max(sample.widths + sample.heights) <= 640) == (sample.task != "large")
    manifest = load_manifest("photos", root)
    assert "danielbuechele" in json.dumps(manifest["photos"])
    assert len({photo["sha256"] for photo in manifest["photos"]}) == 6


def test_measured_boxes_are_handed_on_unchanged(samples, shown_images):
    for sample, annotation in zip(of(samples, "photos"), read_sources()[1], strict=True):
        assert sample.instruction == f"Locate {annotation.expression}."
        np.testing.assert_allclose(pixel_box(sample), annotation.bbox, atol=1e-9)
        (picture,) = shown_images(sample)
        assert (picture == photo_of(annotation.photo)).all()
        assert sample.cluster == f"photos-{annotation.photo}"


def test_large_asks_the_same_on_photographs_larger_than_common_pixel_limits(samples, shown_images):
    """Averaged over blocks of its enlargement, a picture is the photograph again."""
    small = of(samples, "photos")
    assert len({image for sample in of(samples, "large") for image in sample.images}) == 6
    for one, other in zip(small, of(samples, "large"), strict=True):
        for name in ("instruction", "box", "cluster"):
            assert getattr(one, name) == getattr(other, name)
        (wh,), (large_wh,) = one.image_sizes, other.image_sizes
        assert large_wh[0] * large_wh[1] == pytest.approx(2_400_000, rel=2e-3)
        assert large_wh[0] / large_wh[1] == pytest.approx(wh[0] / wh[1], rel=2e-3)
    pairs = zip(small, of(samples, "large"), strict=True)
    for one, other in {other.images[0]: (one, other) for one, other in pairs}.values():
        (photo,), (picture,) = shown_images(one), shown_images(other)
        assert picture.shape[1::-1] == other.image_sizes[0]
        image = Image.fromarray(picture.astype(np.uint8))
        back = np.asarray(image.resize(one.image_sizes[0], Image.Resampling.BOX), dtype=np.int16)
        error = np.abs(back - photo).mean()
        assert error < 3.5 and error < np.abs(np.roll(back, 1, axis=1) - photo).mean() / 2


def test_the_measured_boxes_are_those_that_were_published(shared_dir):
    photos, annotations = read_sources()
    paths = {photo.name: photo.path_in_package for photo in photos}
    rows = json.loads((shared_dir / "data/photos/annotations.json").read_text())
    assert [(paths[a.photo], a.expression, list(a.bbox)) for a in annotations] == [
        (row["path_in_package"], row["expression"], row["bbox"]) for row in rows
    ]


def test_a_crop_is_found_at_its_box_and_nowhere_else(samples, shown_images):
    for sample in of(samples, "find_crop"):
        crop, photo = shown_images(sample)
        box = pixel_box(sample)
        width, height = (box[2:] - box[:2]).round().astype(int)
        place, score, elsewhere = best_matches(photo, resized(crop, (width, height)))
        np.testing.assert_allclose(place, box[:2], atol=1.01)
        assert score > 0.95 and elsewhere < 0.75, sample.id
        assert min(crop.shape[:2]) >= 56


def test_the_two_shown_images_differ_within_the_box_and_only_there(samples, shown_images):
    kinds, removed = Counter(), set()
    for sample in of(samples, "difference"):
        before, after = shown_images(sample)
        change = np.abs(after - before).max(axis=-1)
        box = tight(change > 0)
        np.testing.assert_allclose(pixel_box(sample), box, atol=1e-6)
        inside = cut(change, box)
        assert (inside >= 24).mean() >= 0.5 and inside.mean() >= 30
        kinds[sample.extra["kind"]] += 1
        if sample.extra["kind"] == "removed":
            removed.add(sample.extra["object"])
            assert box_iou(pixel_box(sample), np.array(annotation_of(sample).bbox)) > 0.75
        # Something that does not belong stands in both, so one picture alone tells nothing.
        photo = photo_of(sample.cluster.removeprefix("photos-"))
        assert (cut(before, box) == cut(photo, box)).all()
        both = (np.abs(before - photo).max(axis=-1) > 0) & (change == 0)
        assert both.sum() > 1000
    assert kinds == {"pasted": 7, "removed": 7}
    assert len(removed) == 7


def test_the_second_view_is_that_homography_and_its_box_the_warped_region(samples, shown_images):
    """Drawn again by another library: the picture, and a mask of the marked box."""
    for sample in of(samples, "second_view"):
        photo, view = shown_images(sample)
        annotation = annotation_of(sample)
        back = np.linalg.inv(np.array(sample.extra["homography"]))
        coefficients = tuple((back / back[2, 2]).ravel()[:8])
        wh = view.shape[1], view.shape[0]

        def warped(picture, wh=wh, coefficients=coefficients):
            image = Image.fromarray(picture.astype(np.uint8))
            return np.asarray(
                image.transform(
                    wh, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BICUBIC
                ),
                dtype=float,
            )

        drawn = np.clip(warped(photo) * sample.extra["gain"], 0, 255)
        error = np.abs(drawn - view)[4:-4, 4:-4].mean()
        shifted = np.abs(np.roll(drawn, 1, axis=1) - view)[4:-4, 4:-4].mean()
        # The two libraries interpolate a little differently; a pixel aside would be far worse.
        assert error < 2.5 and error < shifted / 3, sample.id
        mask = np.zeros(photo.shape[:2])
        x1, y1, x2, y2 = annotation.bbox
        mask[y1:y2, x1:x2] = 255
        assert box_iou(tight(warped(mask) >= 128).astype(float), pixel_box(sample)) > 0.93
        # The box in the question is the annotated one, and copying it is no answer.
        numbers = re.search(
            r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>", sample.instruction
        ).groups()
        asked = np.array([int(number) for number in numbers]) / 1000
        np.testing.assert_allclose(
            asked * np.array([*photo.shape[1::-1]] * 2), annotation.bbox, atol=0.33
        )
        assert box_iou(asked, np.array(sample.box)) < 0.36
        assert sample.extra["question_box_image"] == 0


def test_one_object_moves_in_equal_steps_and_another_rests(samples, shown_images):
    for sample in of(samples, "moving_patch"):
        frames = shown_images(sample)
        photo = photo_of(sample.cluster.removeprefix("photos-"))
        always = np.logical_and.reduce([(f == frames[0]).all(axis=-1) for f in frames])
        found = []
        for frame in frames:
            added = (frame != photo).any(axis=-1)
            found.append(tight(added & ~always))
        assert (added & always).sum() > 1000  # the one that rests
        assert box_iou(found[2].astype(float), pixel_box(sample)) > 0.9
        centres = np.array([[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2] for b in found])
        steps = np.diff(centres, axis=0)
        np.testing.assert_allclose(steps, [sample.extra["step"]] * 4, atol=6)
        assert sample.target_image == 2 and len(frames) == 5


def test_the_photograph_that_holds_it_is_the_target(samples, shown_images):
    positions: Counter[int] = Counter()
    for sample in of(samples, "which_photo"):
        images = shown_images(sample)
        box = pixel_box(sample)
        if sample.extra["kind"] == "expression":
            annotation = annotation_of(sample)
            assert annotation.expression in sample.instruction
            np.testing.assert_allclose(box, annotation.bbox, atol=1e-9)
            assert (images[sample.target_image] == photo_of(annotation.photo)).all()
            shown = {image.rsplit("/", 1)[1].removesuffix(".png") for image in sample.images}
            assert not shown & set(annotation.unclear_beside)
            positions[sample.target_image] += 1
            assert len(images) == 3
            continue
        positions[sample.target_image - 1] += 1
        assert len(images) == 4
        width, height = (box[2:] - box[:2]).round().astype(int)
        patch = resized(images[0], (width, height))
        for index, image in enumerate(images[1:], start=1):
            place, score, _ = best_matches(image, patch)
            if index == sample.target_image:
                assert score > 0.95
                np.testing.assert_allclose(place, box[:2], atol=1.01)
            else:
                assert score < 0.75
    # No position is right more often than the others.
    assert sorted(positions.values()) == [4, 5, 5]


def test_an_easy_scene_holds_its_one_shape(samples, shown_images):
    for sample in of(samples, "easy"):
        color = re.fullmatch(r"Locate the (\w+) \w+\.", sample.instruction).group(1)
        (picture,) = shown_images(sample)
        near = {
            name: (np.abs(picture - np.array(rgb)).max(axis=-1) < 20)
            for name, rgb in COLORS.items()
        }
        np.testing.assert_allclose(tight(near.pop(color)), pixel_box(sample), atol=2)
        assert not any(mask.any() for mask in near.values())


def test_the_page_states_the_set_and_what_answers_without_looking_score(samples, repo_root):
    page = (repo_root / "docs" / "photos.md").read_text(encoding="utf-8")
    without = page.split("## What answers without looking score")[1]
    middle, whole, fixed = without.split("\n- ")[1:]
    assert middle.endswith(": 0 in every task")
    assert whole.endswith(f": {', '.join(f'{task} 1/16' for task in MEASURED)}, else 0")
    spans = list(itertools.combinations(np.arange(15) / 14, 2))
    grid = np.array([(x1, y1, x2, y2) for (x1, x2), (y1, y2) in itertools.product(spans, spans)])
    for task in TASKS:
        truth = np.array([sample.box for sample in of(samples, task)])
        assert f"| `{task}` | {len(truth)} | " in page
        hits = [
            (box_iou(truth, np.array(guess)) >= 0.5).sum()
            for guess in ((0.25, 0.25, 0.75, 0.75), (0.0, 0.0, 1.0, 1.0))
        ]
        # Only the saucer covers more than half of its photograph.
        assert hits == [0, 1 if task in MEASURED else 0]
        best = sum((box_iou(grid, box) >= 0.5).astype(int) for box in truth).max()
        assert f" {task} {best}/{len(truth)}" in fixed
    for photo in read_sources()[0]:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {photo.name} |")]
        assert f"{photo.width}x{photo.height}" in row and photo.package in row
        assert photo.path_in_package.split("/", 1)[1] in row
    assert "danielbuechele" in page and "https://creativecommons.org/licenses/by/2.0/" in page


def test_what_changes_faintly_outside_the_box_is_undone():
    before = np.full((40, 60, 3), 100, dtype=np.uint8)
    after, faint, scattered = before.copy(), before.copy(), before.copy()
    after[10:20, 30:50, 1] = 180
    after[0, 0] = 110  # fainter than what counts as visible
    settled, box = settle(before, after)
    assert box == (30, 10, 50, 20)
    assert (settled[0, 0] == 100).all() and (settled[10:20, 30:50] == after[10:20, 30:50]).all()
    faint[10:20, 30:50] = 125  # seen by the threshold of a pixel, not by the mean
    scattered[::10, ::10] = 255  # too small a part of its box
    assert [settle(before, other) for other in (faint, scattered, before)] == [None] * 3
