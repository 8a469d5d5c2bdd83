"""The released annotation file of MIG-Bench: every row, every dialect, the published protocols.

What each dialect's rounding allows is computed here a second time, from the published forms and
with nothing of the package: its own rounding, resize rule, padding and IoU, on arrays. The file
is not part of the project; without it these tests are skipped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from univg_eval.audit import audit_annotations
from univg_eval.benchmarks.readers.mig_bench import read_annotations
from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.protocols import get_protocol
from univg_eval.runs.response_file import FileScores, sample_lines, score_file
from univg_eval.samples import GroundingSample, fingerprint

Array = npt.NDArray[np.float64]
WORDS = ("first", "second", "third", "fourth", "fifth", "sixth")
TASK_ROWS = {
    "common_object": 816,
    "correspondence": 117,
    "diff": 528,
    "group_grounding": 499,
    "multi_view": 288,
    "object_tracking": 550,
    "reasoning": 101,
    "refer_grounding": 99,
    "region": 1203,
    "view_diff": 94,
}
# Wide, tall, square, beyond the usual pixel limits of a resize, and below them.
SIZES = ((640, 480), (480, 640), (1000, 1000), (1920, 1080), (333, 517), (4032, 3024), (50, 44))


@dataclass(frozen=True)
class Released:
    """The file's rows, the samples made of them, their true boxes (rows, 4), and invented sizes.

    `sizes` are of every image, drawn from its name; `target_wh`, (rows, 2), of the target images.
    """

    raw: list[dict[str, Any]]
    samples: list[GroundingSample]
    true: Array
    sizes: list[list[tuple[int, int]]]
    target_wh: Array


@pytest.fixture(scope="module")
def real(shared_dir: Path) -> Released:
    path = shared_dir / "data" / "mig_bench" / "MIG_data.json"
    if not path.is_file():
        pytest.skip(f"needs the released annotation file {path}")
    raw, samples = json.loads(path.read_text()), read_annotations(path)

    def size(name: str) -> tuple[int, int]:
        return SIZES[hashlib.md5(name.encode()).digest()[0] % len(SIZES)]

    sizes = [[size(name) for name in sample.images] for sample in samples]
    targets = [row[s.target_image] for s, row in zip(samples, sizes, strict=True)]
    true = np.array([row["answer"] for row in raw])
    return Released(raw, samples, true, sizes, np.array(targets, dtype=float))


def valid(boxes: Array) -> npt.NDArray[np.bool_]:
    x1, y1, x2, y2 = boxes.T
    return (x1 >= 0) & (x1 < x2) & (x2 <= 1) & (y1 >= 0) & (y1 < y2) & (y2 <= 1)


# --- the file itself -------------------------------------------------------------------------


def test_every_row_is_read(real):
    assert len(real.samples) == 4295
    assert Counter(sample.task for sample in real.samples) == TASK_ROWS
    for number, (sample, row) in enumerate(zip(real.samples, real.raw, strict=True)):
        assert sample.id == f"mig_bench-{number:05d}"
        assert list(sample.box) == row["answer"]
        assert sample.instruction == row["question"]
        assert sample.source["images"] == row["images"]
    assert [s.task for s in real.samples if not s.image_is_given] == ["group_grounding"] * 499


def test_target_images_by_the_rows_of_one_list(real):
    """Where the rows of a list ask for its images one by one, each is the target of one row."""
    requested: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for sample in real.samples:
        if sample.task in ("common_object", "object_tracking"):
            requested.setdefault((sample.task, sample.images), []).append(sample.target_image)
    assert len(requested) == 201 + 110
    for (task, images), targets in requested.items():
        assert sorted(targets) == list(range(int(task == "object_tracking"), len(images)))


def test_target_images_by_the_names_of_the_files(real):
    marks = {"diff": "_target.png", "refer_grounding": ("_raw.jpg", "_raw.png")}
    for sample in real.samples:
        target = sample.images[sample.target_image]
        if sample.task in marks:
            assert target.endswith(marks[sample.task])
        if sample.task == "region":
            stem = target.rsplit(".", 1)[0]
            assert sum(image.startswith(stem + "_") for image in sample.images) == (
                len(sample.images) - 1
            )


def test_target_images_counted_by_task(real):
    counts: dict[str, Counter[int]] = {}
    for sample in real.samples:
        counts.setdefault(sample.task, Counter())[sample.target_image] += 1
    # Counted with `grep -c` on the ordinals of questions and additional_info.
    assert counts["common_object"] == {0: 201, 1: 201, 2: 201, 3: 155, 4: 58}
    assert counts["object_tracking"] == {1: 110, 2: 110, 3: 110, 4: 110, 5: 110}
    assert counts["multi_view"] == {1: 101, 2: 100, 3: 74, 4: 12, 5: 1}
    assert counts["group_grounding"] == {0: 127, 1: 128, 2: 127, 3: 77, 4: 40}
    assert counts["region"] == {0: 1203}
    for task in ("diff", "view_diff", "refer_grounding", "reasoning", "correspondence"):
        assert counts[task] == {1: TASK_ROWS[task]}


def test_rows_of_one_cluster_share_images_and_others_do_not(real):
    cluster_of: dict[str, str] = {}
    for sample in real.samples:
        for image in sample.images:
            assert cluster_of.setdefault(image, sample.cluster) == sample.cluster
    ids = {sample.id for sample in real.samples}
    assert {sample.cluster for sample in real.samples} <= ids
    assert len(cluster_of) == 5887


def test_audit_reports_the_known_faults(real):
    audit = audit_annotations(real.samples, {})
    rows = {f.kind: [int(case.samples[0][-5:]) for case in f.cases] for f in audit.findings}
    assert rows["invalid_box"] == [7, 34, 105, 126, 163, 512, 703]
    assert rows["duplicate"] == [2094, 2095]
    assert rows["repeated_image"] == [695, 696, 697, 698, 699, 4212, 4213, 4217, 4218]
    assert rows["text_mismatch"] == [4194]
    assert rows["near_duplicate"] == [
        *(364, 653, 2017, 2018, 2019, 2113),
        *(2546, 2607, 2877, 3017, 3227, 3228),
    ]
    assert len(rows) == 5
    checks = audit.target_checks.values()
    assert sum(check["rows"] for check in checks) == 4104
    assert sum(check["confirmed"] for check in checks) == 4104


def test_fingerprint_of_the_released_file(real):
    digest = hashlib.sha256()
    for number, (sample, row) in enumerate(zip(real.samples, real.raw, strict=True)):
        line = [
            f"mig_bench-{number:05d}",
            row["question"],
            [[sample.target_image, row["answer"]]],  # three decimals as released
            row["images"],
        ]
        digest.update(json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
    expected = digest.hexdigest()
    assert expected == "f22481f3b02234377d78f82faf09618e2f4efbf31a21925ad97505642cf3861a"
    assert fingerprint(real.samples) == expected
    assert fingerprint(reversed(real.samples)) == expected


def test_a_real_pair_of_images_in_pixels(real, shared_dir, tmp_path):
    (sample,) = (s for s in real.samples if s.images[1].endswith("semantic_co/case076_2.jpg"))
    assert sample.box == (0.502, 0.008, 0.839, 0.392)
    folder = shared_dir / "data" / "mig_bench" / "images" / "correspondence" / "semantic_co"
    image_sizes = []
    for k in (1, 2):
        with Image.open(folder / f"case076_{k}.jpg") as image:
            image_sizes.append(image.size)
    assert image_sizes == [(900, 616), (474, 739)]
    # 0.502 * 474 = 237.9, 0.008 * 739 = 5.9, 0.839 * 474 = 397.7, 0.392 * 739 = 289.7
    row = {"id": sample.id, "response": "[238, 6, 398, 290]", "image_sizes": image_sizes}
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(row) + "\n")
    scores = score_file(
        sample_lines([sample]),
        path,
        dialect=get_dialect("pixels"),
        protocol=get_protocol("univg"),
    )
    assert scores.metrics["tasks"]["correspondence"]["miou"] > 0.99


# --- every dialect ---------------------------------------------------------------------------


def nearest(values: Array, steps: float | Array, largest: float | Array) -> Array:
    """(rows, 4) on 0-1 to whole steps, nearest, halves up, cut to [0, largest] per row or axis.

    A side that would vanish becomes the one step that holds its middle: no family writes an empty
    box for an object.
    """
    rounded = np.clip(np.floor(values * steps + 0.5), 0, largest)
    scaled, limit = values * steps, np.broadcast_to(largest, rounded.shape)
    for low, high in ((0, 2), (1, 3)):
        vanished = (rounded[:, low] >= rounded[:, high]) & (values[:, low] < values[:, high])
        middle = np.floor((scaled[:, low] + scaled[:, high]) / 2)
        rounded[vanished, low] = np.clip(middle, 0, limit[:, low] - 1)[vanished]
        rounded[vanished, high] = rounded[vanished, low] + 1
    return rounded


def on_axes(wh: Array) -> Array:
    """(rows, 2) width, height to (rows, 4) width, height, width, height."""
    return np.hstack([wh, wh])


def input_sizes(wh: Array, low: int = 3136, high: int = 12845056, step: int = 28) -> Array:
    """The Qwen2.5-VL resize: sides to multiples of a step, area between the limits."""
    out = []
    for width, height in wh.tolist():
        w, h = (step * max(1, round(side / step)) for side in (width, height))
        if w * h > high:
            shrink = math.sqrt(high / (width * height))
            w, h = (step * math.floor(side * shrink / step) for side in (width, height))
        elif w * h < low:
            grow = math.sqrt(low / (width * height))
            w, h = (step * math.ceil(side * grow / step) for side in (width, height))
        out.append((w, h))
    return np.array(out, dtype=float)


def fitted_sizes(wh: Array, edge: int, tokens: int) -> Array:
    """Claude's resize: the first size that fits, counting down from the image's long side."""
    out = []
    for width, height in wh.tolist():
        long, short = max(width, height), min(width, height)
        for a in range(int(long), 0, -1):
            b = max(1, math.floor(a * short / long + 0.5))
            squares = math.ceil(a / 28), math.ceil(b / 28)
            if squares[0] * 28 <= edge and squares[0] * squares[1] <= tokens:
                out.append((a, b) if width >= height else (b, a))
                break
    return np.array(out, dtype=float)


def integers(divisor: int, largest: int) -> Callable[[Array, Array], Array]:
    return lambda boxes, wh: nearest(boxes, divisor, largest) / divisor


def of_resized(size: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    def rounded(boxes: Array, wh: Array) -> Array:
        frame = on_axes(size(wh))
        return nearest(boxes, frame, frame) / frame

    return rounded


of_input_pixels = of_resized(input_sizes)


def of_image_pixels(boxes: Array, wh: Array) -> Array:
    return nearest(boxes, on_axes(wh), on_axes(wh)) / on_axes(wh)


def padded_square(decimals: int) -> Callable[[Array, Array], Array]:
    def rounded(boxes: Array, wh: Array) -> Array:
        side = wh.max(axis=1, keepdims=True)
        pad, frame = on_axes((side - wh) / 2), on_axes(wh)
        steps = 10**decimals
        return (nearest((boxes * frame + pad) / side, steps, steps) / steps * side - pad) / frame

    return rounded


def bins(boxes: Array, wh: Array) -> Array:
    """Florence-2: floor to one of 1000 bins, read at the bin's centre."""
    found = np.minimum(np.floor(np.round(boxes * 1000, 6)), 999)
    return (found + 0.5) / 1000


def cells(boxes: Array, wh: Array) -> Array:
    """Kosmos-2: cells of a 32 x 32 grid; centres, or outer edges within one row or column."""
    first = np.clip(np.floor(boxes[:, :2] * 32), 0, 31)
    last = np.clip(np.ceil(boxes[:, 2:] * 32 - 1), 0, 31)
    flat = (first == last).any(axis=1, keepdims=True)
    centres = np.hstack([first + 0.5, last + 0.5])
    edges = np.hstack([first, last + 1])
    return np.where(flat, edges, centres) / 32


ROUNDING: dict[str, Callable[[Array, Array], Array]] = {
    **dict.fromkeys(
        (
            *("qwen2_vl", "qwen3_vl", "qwen3_5", "internvl", "minicpm_v", "glm_v", "migician"),
            *("univg_r1", "ferret", "gemini", "gemma4", "norm1000", "isaac", "locate_anything"),
            *("norm1000_corners", "norm1000_yxyx"),
        ),
        integers(1000, 1000),
    ),
    # Families whose numbers end at 999.
    **dict.fromkeys(
        ("qwen_vl", "cogvlm_grounding", "seed1_5_vl", "llava_onevision_2"), integers(1000, 999)
    ),
    **dict.fromkeys(("deepseek_vl2", "norm999", "rex_omni"), integers(999, 999)),
    "paligemma": integers(1023, 1023),
    "smoldocling": integers(500, 500),
    # Three decimals are the precision of the file itself.
    **dict.fromkeys(
        (
            *("norm1", "kimi_vl", "llava_onevision", "moondream", "lfm2_vl", "norm100"),
            "norm1_corners",
        ),
        integers(1000, 1000),
    ),
    "florence2": bins,
    "kosmos2": cells,
    **dict.fromkeys(("qwen2_5_vl", "vlm_r1", "mimo_vl"), of_input_pixels),
    "mimo_v2_5": of_resized(lambda wh: input_sizes(wh, 4096, 16777216, 32)),
    "claude": of_resized(lambda wh: fitted_sizes(wh, 1568, 1568)),
    "claude_high": of_resized(lambda wh: fitted_sizes(wh, 2576, 4784)),
    **dict.fromkeys(("pixels", "pixels_box_2d"), of_image_pixels),
    "llava_1_5": padded_square(2),
    "shikra": padded_square(3),
}
EXACT = [name for name, rule in ROUNDING.items() if rule is ROUNDING["norm1000"]]
BOX_DIALECTS = [name for name in list_dialects() if get_dialect(name).gives_boxes]


def overlap(a: Array, b: Array) -> Array:
    """IoU row by row, 0 for boxes that are empty or inverted."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(a[:, 2:] - a[:, :2], axis=1) + np.prod(b[:, 2:] - b[:, :2], axis=1)
    proper = (a[:, 2:] > a[:, :2]).all(axis=1) & (b[:, 2:] > b[:, :2]).all(axis=1)
    return np.where(proper, common / np.where(proper, areas - common, 1), 0.0)


def written(name: str, real: Released) -> list[str]:
    """The ground truth in the dialect's own form; the image is named where it had to be found."""
    dialect = get_dialect(name)
    texts = []
    for sample, row in zip(real.samples, real.sizes, strict=True):
        text = dialect.encode(sample.box, image_wh=row[sample.target_image])
        if not sample.image_is_given:
            text = f"It is in the {WORDS[sample.target_image]} image. {text}"
        texts.append(text)
    return texts


def run(
    real: Released,
    folder: Path,
    texts: list[str],
    *,
    dialect: str | None = None,
    protocol: str = "univg",
    sized: bool = False,
) -> tuple[FileScores, Array, list[str]]:
    """Score one text a sample; returns the result, and IoU and status of each."""
    path = folder / "responses.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for sample, text, sizes in zip(real.samples, texts, real.sizes, strict=True):
            row = {"id": sample.id, "response": text} | ({"image_sizes": sizes} if sized else {})
            file.write(json.dumps(row) + "\n")
    out = BytesIO()
    result = score_file(
        sample_lines(real.samples),
        path,
        dialect=get_dialect(dialect) if dialect else None,
        protocol=get_protocol(protocol),
        out=out,
        processes=1,
    )
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    return result, np.array([row["iou"] for row in rows]), [row["status"] for row in rows]


def assert_metrics(result: FileScores, ious: Array, real: Released, counted: Any) -> None:
    """The metrics of every task are those of the IoUs worked out here."""
    tasks = np.array([sample.task for sample in real.samples])
    assert list(result.metrics["tasks"]) == list(dict.fromkeys(tasks.tolist()))
    for task, row in result.metrics["tasks"].items():
        chosen = ious[(tasks == task) & counted]
        assert row["n"] == len(chosen)
        assert row["excluded"] == TASK_ROWS[task] - len(chosen)
        for threshold in (0.3, 0.5, 0.7, 0.9):
            # An IoU that is the threshold to the last bit may fall on either side of it.
            low, high = (np.mean(chosen >= threshold + e) for e in (1e-9, -1e-9))
            assert low - 1e-12 <= row[f"acc@{threshold}"] <= high + 1e-12
        assert row["miou"] == pytest.approx(np.mean(chosen))
    means = [row["acc@0.5"] for row in result.metrics["tasks"].values()]
    assert result.metrics["macro"]["acc@0.5"] == pytest.approx(np.mean(means))


def test_every_box_dialect_has_its_rounding_here():
    assert sorted(ROUNDING) == sorted(BOX_DIALECTS)


@pytest.mark.parametrize("name", BOX_DIALECTS)
def test_ground_truth_in_its_own_form_scores_what_the_rounding_allows(name, real, tmp_path):
    dialect = get_dialect(name)
    sized = dialect.needs_image_size or dialect.needs_input_size
    result, ious, _ = run(real, tmp_path, written(name, real), dialect=name, sized=sized)
    counted = valid(real.true)
    expected = overlap(np.clip(ROUNDING[name](real.true, real.target_wh), 0, 1), real.true)
    assert counted.sum() == 4288
    np.testing.assert_allclose(ious[counted], expected[counted], atol=1e-9)
    assert_metrics(result, np.ones(len(real.true)) if name in EXACT else expected, real, counted)
    group = result.metrics["tasks"]["group_grounding"]
    if name == "glm_v":
        # The answer section is the span <|begin_of_box|>…, and the image is named before it.
        assert (group["image_acc"], group["joint@0.5"]) == (0.0, 0.0)
    else:
        assert (group["image_acc"], group["joint@0.5"]) == (1.0, group["acc@0.5"])
    if name == "kosmos2":
        assert np.mean(expected[counted] >= 0.5) == pytest.approx(0.987, abs=0.001)


# --- wrong dialects --------------------------------------------------------------------------


def thousandths(boxes: Array) -> Array:
    return np.round(boxes * 1000)


def swapped(boxes: Array) -> Array:
    return boxes[:, [1, 0, 3, 2]]


# Written in one dialect, read in another: the box that the wrong reading must give, from the true
# boxes and the target's size; None: the reader does not know the form at all.
WRONG: dict[tuple[str, str], Callable[[Array, Array], Array] | None] = {
    ("qwen3_vl", "qwen2_5_vl"): lambda b, wh: thousandths(b) / on_axes(input_sizes(wh)),
    ("qwen2_5_vl", "qwen3_vl"): lambda b, wh: (
        of_input_pixels(b, wh) * on_axes(input_sizes(wh)) / 1000
    ),
    ("norm1000", "norm1"): lambda b, wh: thousandths(b),
    ("norm1", "norm1000"): lambda b, wh: b / 1000,
    ("norm1000", "pixels"): lambda b, wh: thousandths(b) / on_axes(wh),
    ("pixels", "norm1000"): lambda b, wh: of_image_pixels(b, wh) * on_axes(wh) / 1000,
    ("gemini", "norm1000"): lambda b, wh: swapped(b),
    ("smoldocling", "florence2"): lambda b, wh: (nearest(b, 500, 500) + 0.5) / 1000,
    ("shikra", "llava_onevision"): lambda b, wh: (
        nearest((b * on_axes(wh) + on_axes((m(wh) - wh) / 2)) / m(wh), 1000, 1000) / 1000
    ),
    ("kosmos2", "qwen2_vl"): None,
    ("paligemma", "florence2"): None,
    ("qwen2_vl", "kosmos2"): None,
}


def m(wh: Array) -> Array:
    return wh.max(axis=1, keepdims=True)


@pytest.mark.parametrize(("writer", "reader"), WRONG, ids=[f"{a}-as-{b}" for a, b in WRONG])
def test_a_wrong_dialect_gives_what_its_scale_must_give(writer, reader, real, tmp_path):
    texts = written(writer, real)
    result, ious, statuses = run(real, tmp_path, texts, dialect=reader, sized=True)
    rule = WRONG[writer, reader]
    counted = valid(real.true)
    if rule is None:
        assert set(statuses) == {"no_box"}
        expected = np.zeros(len(real.true))
    else:
        expected = overlap(np.clip(rule(real.true, real.target_wh), 0, 1), real.true)
    np.testing.assert_allclose(ious[counted], expected[counted], atol=1e-9)
    assert_metrics(result, expected, real, counted)
    assert result.metrics["macro"]["acc@0.5"] < 0.8


# --- published protocols ---------------------------------------------------------------------

# Ground truths with x2 < x1 or y2 < y1 overlap nothing. The two that reach beyond the image
# (x2 = 1.048 and y2 = 1.035) are matched by an equal prediction: published rules do not clip.
INVERTED = 5


def perfect(true: Array) -> list[str]:
    return [
        f"<think>I look at each image.</think> <answer>({a},{b}),({c},{d})</answer>"
        for a, b, c, d in thousandths(true).astype(int).tolist()
    ]


@pytest.mark.parametrize("protocol", ["univg-r1", "migician"])
def test_perfect_answers_under_a_published_protocol(protocol, real, tmp_path):
    result, _, statuses = run(real, tmp_path, perfect(real.true), protocol=protocol)
    for task, row in result.metrics["tasks"].items():
        lost = INVERTED if task == "common_object" else 0
        assert (row["n"], row["excluded"]) == (TASK_ROWS[task], 0)
        assert row["acc@0.5"] == pytest.approx((TASK_ROWS[task] - lost) / TASK_ROWS[task])
        assert row["miou"] == pytest.approx(row["acc@0.5"])
    assert result.metrics["macro"]["acc@0.5"] == pytest.approx((9 + 811 / 816) / 10)
    assert Counter(statuses) == {"ok": 4290, "invalid_box": 5}


def test_perfect_answers_under_univg_leave_the_invalid_rows_out(real, tmp_path):
    result, _, _ = run(real, tmp_path, perfect(real.true), dialect="univg_r1")
    assert result.metrics["macro"]["acc@0.9"] == 1.0
    assert sum(row["n"] for row in result.metrics["tasks"].values()) == 4288
    assert result.metrics["tasks"]["common_object"]["excluded"] == 7
    # The answers name no image, and naming none is not right.
    assert result.metrics["tasks"]["group_grounding"]["image_acc"] == 0.0


def test_decimals_under_the_published_protocols(real, tmp_path):
    texts = [f"[{a:.3f}, {b:.3f}, {c:.3f}, {d:.3f}]" for a, b, c, d in real.true.tolist()]
    # int() fails on a decimal, and UniVG-R1's rule then scores the box of zeros.
    result, _, _ = run(real, tmp_path, texts, protocol="univg-r1")
    assert result.metrics["macro"]["miou"] == 0.0
    # Migician divides a single match by 1000 from 1 on, on answers of 0-1 too.
    result, ious, _ = run(real, tmp_path, texts, protocol="migician")
    expected = overlap(np.where(real.true >= 1, real.true / 1000, real.true), real.true)
    touching = (real.true >= 1).any(axis=1)
    assert touching.sum() == 15
    assert (expected[touching] < 0.01).all()
    np.testing.assert_allclose(ious, expected, atol=1e-9)
    assert_metrics(result, expected, real, np.ones(len(real.true), dtype=bool))


@pytest.mark.parametrize("protocol", ["univg-r1+migician-y", "migician+y"])
def test_the_stretched_y_of_one_rival(protocol, real, tmp_path):
    result, ious, _ = run(real, tmp_path, perfect(real.true), protocol=protocol)
    stretched = real.true.copy()
    for column, factor in ((1, 1.05), (3, 1.10)):
        values = real.true[:, column].tolist()
        stretched[:, column] = [round(min(0.999, y * factor), 3) for y in values]
    expected = overlap(stretched, real.true)
    np.testing.assert_allclose(ious, expected, atol=1e-9)
    assert_metrics(result, expected, real, np.ones(len(real.true), dtype=bool))
    assert result.metrics["macro"]["miou"] < 0.95
