"""Hints, findings, controls and conclusion; answers are written by the dialects' own `encode`."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from factories import make_sample

from univg_eval import get_dialect, list_dialects, parse_answer
from univg_eval.analysis.diagnosis import (
    CheckFinding,
    SampleValue,
    compare_control,
    compare_variants,
    conclude,
    control_findings,
    diagnose,
    variant_findings,
)
from univg_eval.analysis.diagnosis.findings import severity_of
from univg_eval.analysis.failures import Limits
from univg_eval.analysis.failures.readings import (
    Candidate,
    Reading,
    blind_hits,
    candidates,
    read_all,
    suspect,
)
from univg_eval.boxes import box_iou
from univg_eval.dialects import Dialect
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response, score_samples

SIZES = (
    *((640, 480), (1920, 1080), (300, 500), (1000, 667)),
    *((2400, 3200), (512, 512), (800, 1200), (1280, 720)),
)
BOX_DIALECTS = [name for name in list_dialects() if get_dialect(name).gives_boxes]
WAYS = candidates()
N = 40
NORM1000 = get_dialect("norm1000")


def toy_samples(n: int = N, seed: int = 0) -> list[GroundingSample]:
    """Samples about one or two images of assorted sizes."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        sizes = [rng.choice(SIZES) for _ in range(1 + i % 2)]
        width, height = rng.uniform(0.08, 0.6), rng.uniform(0.08, 0.6)
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        target = Target(rng.randrange(len(sizes)), (x, y, x + width, y + height))
        rows.append(
            make_sample(
                id=f"toy-{i:03d}",
                task="even" if i % 2 == 0 else "odd",
                images=tuple(f"toy/{i}_{k}.png" for k in range(len(sizes))),
                widths=tuple(width for width, _ in sizes),
                heights=tuple(height for _, height in sizes),
                instruction=f"Locate thing {i}.",
                targets=(target,),
                given_image=target.image,
                cluster=f"c{i}",
            )
        )
    return rows


SAMPLES = toy_samples()


def written(sample: GroundingSample, dialect: Dialect, box=None) -> str:
    size = sample.image_sizes[sample.target_image]
    resized = dialect.input_size(size) if dialect.needs_input_size else None
    return dialect.encode(box or sample.box, image_wh=size, input_wh=resized)


def answers(dialect: Dialect, samples=SAMPLES) -> list[Response]:
    return [Response(written(sample, dialect)) for sample in samples]


def sized(sample: GroundingSample, wh: tuple[int, int], **changes) -> GroundingSample:
    n = len(sample.images)
    return replace(sample, widths=wh[:1] * n, heights=wh[1:] * n, **changes)


def large(samples: list[GroundingSample]) -> list[GroundingSample]:
    return [s for s in samples if min(s.widths) * min(s.heights) > 1_700_000]


def findings_of(responses, dialect, samples=SAMPLES, **settings) -> dict[str, CheckFinding]:
    return {f.kind: f for f in diagnose(samples, responses, dialect, **settings).findings}


def hint_of(responses, dialect, samples=SAMPLES, **settings) -> CheckFinding | None:
    return findings_of(responses, dialect, samples, **settings).get("dialect_hint")


# --- the hint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("written_in", BOX_DIALECTS)
def test_answers_of_a_dialect_under_every_wrong_setting(written_in: str) -> None:
    """The hint names the dialect that wrote the answers, or readings equal to it on these texts."""
    dialect = get_dialect(written_in)
    responses = answers(dialect)
    assert hint_of(responses, dialect) is None
    own = [Candidate(name, get_dialect(name), "", "", keeps_sizes=False) for name in BOX_DIALECTS]
    readings = read_all(SAMPLES, responses, [*own, *WAYS])
    declared = dict(zip(BOX_DIALECTS, readings, strict=False))
    others = readings[len(own) :]
    boxes = {way.candidate.name: np.round(way.boxes, 9).tobytes() for way in others}
    right = declared[written_in]
    assert right.hits.all()
    for name, reading in declared.items():
        suspicion = suspect(SAMPLES, responses, reading, others)
        # Where little is wrong nothing need be said; what is said is the right thing.
        if right.hits.sum() - reading.hits.sum() < 0.3 * N and suspicion is None:
            continue
        assert suspicion is not None, name
        # `qwen2_5_vl with min_pixels=…` is that dialect; another order of norm1000 is none.
        named = (*suspicion.names, *suspicion.indistinguishable)
        assert written_in in {each.split(" with ")[0] for each in named}, name
        assert suspicion.hits > suspicion.declared_hits == int(reading.hits.sum())
        # What is named together reads every answer alike.
        assert len({boxes[each] for each in suspicion.names}) == 1


def test_a_dialect_of_the_same_reading_is_no_fault() -> None:
    responses = answers(get_dialect("qwen2_vl"))
    for name in ("norm1000", "univg_r1", "migician", "norm999"):
        assert diagnose(SAMPLES, responses, get_dialect(name)).findings == ()


@pytest.mark.parametrize("seed", range(8))
def test_of_readings_as_good_the_one_that_writes_so_is_named(seed: int) -> None:
    """0-999 hits a noisy model's boxes as often as 0-1000, by chance sometimes better."""
    rng = np.random.default_rng(seed)
    dialect = get_dialect("qwen3_vl")
    responses = []
    for sample in SAMPLES:
        x1, y1, x2, y2 = sample.box
        noise = rng.normal(0, 0.05, 4) * (x2 - x1, y2 - y1, x2 - x1, y2 - y1)
        box = tuple(np.clip(sample.box + noise, 0, 1))
        responses.append(Response(written(sample, dialect, box)))
    hint = hint_of(responses, get_dialect("qwen2_5_vl"))
    assert hint.numbers["read_as"]["names"][0] in ("qwen3_vl", "qwen3_5")
    assert "norm999" in hint.numbers["not_told_apart"]


def test_a_hint_names_readings_that_parse_alike_and_changes_no_score() -> None:
    responses, dialect = answers(get_dialect("qwen3_vl")), get_dialect("qwen2_5_vl")
    diagnosis = diagnose(SAMPLES, responses, dialect)
    assert list(diagnosis.scores) == score_samples(SAMPLES, responses, dialect)
    hint = next(f for f in diagnosis.findings if f.severity == "hint")
    assert "A hint, not a score" in hint.detail
    read_as = hint.numbers["read_as"]
    assert hint.examples and set(hint.examples) == set(read_as["boxes"])
    assert {"qwen3_vl", "qwen3_5", "norm1000"} <= set(read_as["names"])
    for sample, response in zip(SAMPLES, responses, strict=True):
        sizes = {"image_sizes": sample.image_sizes, "target_image": sample.target_image}
        boxes = {parse_answer(response.text, name, **sizes).box for name in read_as["names"]}
        assert len(boxes) == 1, sample.id
    # Too few answers give none; without image sizes, readings in pixels are left out.
    few = toy_samples(5)
    assert hint_of(answers(get_dialect("qwen3_vl"), few), get_dialect("norm1"), few) is None
    unsized = [replace(s, widths=(), heights=()) for s in SAMPLES]
    hint = hint_of(answers(NORM1000), get_dialect("norm1"), unsized)
    assert "norm1000" in hint.numbers["read_as"]["names"]


@pytest.mark.parametrize("name", ["qwen2_5_vl", "vlm_r1", "mimo_vl"])
@pytest.mark.parametrize("used", [(3136, 602112), (3136, 401408), (200704, 1605632)])
def test_other_pixel_limits_of_the_same_dialect(name: str, used: tuple[int, int]) -> None:
    samples = large(toy_samples(120))
    assert len(samples) >= 14
    responses = answers(get_dialect(name, min_pixels=used[0], max_pixels=used[1]), samples)
    # What the task hands over are sizes by the declared limits.
    dialect = get_dialect(name, min_pixels=3136, max_pixels=12845056)
    given = [
        replace(r, input_sizes=[dialect.input_size(size) for size in s.image_sizes])
        for s, r in zip(samples, responses, strict=True)
    ]
    read_as = hint_of(given, dialect, samples).numbers["read_as"]
    assert f"{name} with min_pixels={used[0]}, max_pixels={used[1]}" in read_as["names"]
    assert read_as["share"] == 1.0


def test_small_images_say_nothing_about_pixel_limits() -> None:
    small = [sized(s, (640, 480)) for s in SAMPLES]
    dialect = get_dialect("qwen2_5_vl")
    (note,) = diagnose(small, answers(dialect, small), dialect).findings
    assert (note.kind, note.severity) == ("limits_not_tested", "note")
    assert [3136, 1003520] in note.numbers["same"]
    found = diagnose(SAMPLES, answers(dialect), dialect).findings
    assert [f.kind for f in found if [3136, 1003520] in f.numbers.get("same", [])] == []


def test_limits_are_judged_by_the_answers_that_they_change() -> None:
    """A few large images among many small ones are enough."""
    small = [sized(s, (320, 240), id=f"small-{s.id}") for s in toy_samples(200, seed=3)]
    samples = [*small, *large(toy_samples(80))[:16]]
    responses = answers(get_dialect("qwen2_5_vl", min_pixels=3136, max_pixels=602112), samples)
    hint = hint_of(responses, get_dialect("qwen2_5_vl"), samples)
    numbers = hint.numbers
    assert numbers["read_as"]["names"][0] == "qwen2_5_vl with min_pixels=3136, max_pixels=602112"
    assert "min_pixels=3136, max_pixels=12845056" in hint.title  # those that were assumed
    assert "UNIVG_MAX_PIXELS=602112" in hint.remedy
    assert numbers["read_as"]["hits"] - numbers["declared"]["hits"] < 0.1 * len(samples)
    # The declared dialect is named first where several share limits.
    other = hint_of(responses, get_dialect("vlm_r1"), samples)
    assert other.numbers["read_as"]["names"][0].startswith("vlm_r1 with min_pixels=3136, max_")
    # Those of the run are tried too.
    responses = answers(get_dialect("qwen2_5_vl", min_pixels=50176, max_pixels=100352))
    own = Limits(50176, 100352, "the checkpoint's files")
    hint = hint_of(responses, get_dialect("qwen2_5_vl"), limits=[own])
    assert "the checkpoint's files" in hint.title
    assert "UNIVG_MAX_PIXELS=100352" in hint.remedy


@pytest.mark.parametrize("order", ["yxyx", "xywh"])
@pytest.mark.parametrize("scale", ["norm1000", "norm1", "pixels"])
def test_another_order_of_the_numbers(order: str, scale: str) -> None:
    def turned(sample: GroundingSample) -> Response:
        text = written(sample, get_dialect(scale))
        a, b, c, d = (float(part) for part in text.strip("[]").split(","))
        numbers = (b, a, d, c) if order == "yxyx" else (a, b, round(c - a, 3), round(d - b, 3))
        return Response(f"[{', '.join(f'{value:g}' for value in numbers)}]")

    hint = hint_of([turned(sample) for sample in SAMPLES], get_dialect(scale))
    words = {"yxyx": "y1, x1, y2, x2", "xywh": "x, y, width, height"}[order]
    assert f"{scale} written {words}" in hint.numbers["read_as"]["names"]


def random_box(rng: random.Random):
    width, height = rng.uniform(0.05, 0.9), rng.uniform(0.05, 0.9)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return (x, y, x + width, y + height)


def weak_box(kind: str, sample: GroundingSample, rng: random.Random):
    x1, y1, x2, y2 = sample.box
    w, h = (x2 - x1) / 4, (y2 - y1) / 4
    return {
        "noisy": sample.box if rng.random() < 0.3 else random_box(rng),
        "random": random_box(rng),
        "center": (0.25, 0.25, 0.75, 0.75),
        "half as large": (x1 + w, y1 + h, x2 - w, y2 - h),
    }[kind]


@pytest.mark.parametrize("kind", ["noisy", "random", "center", "half as large"])
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "gemini", "llava_1_5"])
def test_a_weak_model_read_rightly_raises_no_false_alarm(kind: str, name: str) -> None:
    """A hint is wrong at most once in a hundred sets; here none of the sets may have one."""
    dialect = get_dialect(name)
    for seed in range(5):
        samples, rng = toy_samples(50, seed), random.Random(seed)
        responses = [Response(written(s, dialect, weak_box(kind, s, rng))) for s in samples]
        readings = read_all(samples, responses, [Candidate(name, dialect, "", ""), *WAYS])
        assert suspect(samples, responses, readings[0], readings[1:]) is None, seed


def test_a_weak_model_under_a_wrong_setting_is_still_seen_through() -> None:
    rng = random.Random(3)
    samples, dialect = toy_samples(100, 7), get_dialect("qwen3_vl")
    boxes = [s.box if rng.random() < 0.3 else random_box(rng) for s in samples]
    responses = [Response(written(s, dialect, b)) for s, b in zip(samples, boxes, strict=True)]
    read_as = hint_of(responses, get_dialect("qwen2_5_vl"), samples).numbers["read_as"]
    assert "qwen3_vl" in read_as["names"]
    assert 0.2 < read_as["share"] < 0.45


def test_luckier_places_and_larger_boxes_are_no_evidence() -> None:
    # Always one box: as pixels it covers the middle, where all objects are.
    samples = [
        sized(s, (400, 400), targets=(Target(0, (0.25 + i / 1000, 0.25, 0.75, 0.75)),))
        for i, s in enumerate(SAMPLES)
    ]
    responses = [Response(f"[{100 + i % 3}, 100, 300, 300]") for i in range(N)]
    pixels = score_samples(samples, responses, get_dialect("pixels"))
    assert sum((score.iou or 0) >= 0.5 for score in pixels) == N
    assert hint_of(responses, NORM1000, samples) is None
    # Other limits that only make boxes larger hit more; not more than on other objects.
    box = (0.3, 0.3, 0.7, 0.7)
    middle = [replace(s, targets=(Target(s.target_image, box),)) for s in SAMPLES[:20]]
    responses = [
        *(Response(written(s, NORM1000, box)) for s in middle),
        *answers(get_dialect("norm1"), SAMPLES[20:]),
    ]
    assert hint_of(responses, get_dialect("norm1"), [*middle, *SAMPLES[20:]]) is None
    # Widths and heights are not claimed where no box is inverted.
    samples = toy_samples(60)
    responses = [Response(written(s, NORM1000, tuple(0.8 * v for v in s.box))) for s in samples]
    found = findings_of(responses, NORM1000, samples)
    assert not [f.title for f in found.values() if "width" in f.title]


def test_only_valid_single_targets_are_evidence() -> None:
    odd = [
        replace(SAMPLES[0], id="none", targets=()),
        replace(SAMPLES[0], id="bad", targets=(Target(0, (0.5, 0.5, 0.1, 0.1)),)),
    ]
    responses = [*answers(NORM1000), Response("None."), Response("None.")]
    diagnosis = diagnose([*SAMPLES, *odd], responses, NORM1000)
    assert (diagnosis.n, diagnosis.single, diagnosis.with_target) == (N + 2, N, N + 1)
    absent = [replace(s, targets=()) for s in SAMPLES]
    diagnosis = diagnose(absent, [Response("None.")] * N, NORM1000)
    assert "without one true box" in conclude(diagnosis, ()).headline


def test_an_image_too_long_for_a_resize_rule_costs_that_sample_alone() -> None:
    long = sized(SAMPLES[1], (4100, 20))  # a ratio of 205
    dialect = get_dialect("qwen2_5_vl")
    responses = answers(dialect, SAMPLES[:3])
    own = [Candidate("own", dialect, "", "")]
    (reading,) = read_all([SAMPLES[0], long, SAMPLES[2]], responses, own)
    assert np.isnan(reading.boxes[1]).all()
    assert reading.hits.tolist() == [True, False, True]


def test_a_response_of_a_megabyte_is_read_once_and_is_no_evidence() -> None:
    long = Response("so [1, 2] " * 40_000 + written(SAMPLES[0], NORM1000))
    assert diagnose(SAMPLES, [long, *answers(NORM1000, SAMPLES[1:])], NORM1000).hits == N
    started = time.perf_counter()
    hint = hint_of([long, *answers(get_dialect("norm1"), SAMPLES[1:])], NORM1000)
    assert time.perf_counter() - started < 10  # in each of a hundred readings it took a minute
    assert hint.numbers["n"] == N - 1
    assert diagnose(SAMPLES[:1], [long], NORM1000).hits == 1


def test_chance_is_measured_on_other_samples() -> None:
    samples = [
        replace(SAMPLES[i], targets=(Target(0, box),), images=SAMPLES[i].images[:1])
        for i, box in ((0, (0.0, 0.0, 0.5, 0.5)), (2, (0.0, 0.0, 0.5, 0.5)), (4, (0.6, 0.6, 1, 1)))
    ]
    responses = answers(NORM1000, samples)
    (reading,) = read_all(samples, responses, [c for c in WAYS if c.name == "norm1000"])
    true = np.array([s.box for s in samples])
    # Each of the two equal boxes hits one of its two other targets, the third none.
    assert blind_hits(reading, true) == pytest.approx(0.5 + 0.5 + 0.0)
    # Chosen for a miss: of other samples' objects those count that are missed likewise.
    (swapped,) = read_all(samples, [responses[2], responses[0], responses[1]], [reading.candidate])
    assert swapped.hits.tolist() == [False, True, False]
    chosen = blind_hits(reading, true, np.array([True, False, True]), declared=swapped, below=0.1)
    # The first box is declared on the third place: both others count, one is hit. The third is
    # declared on the first: only its own place is missed, so nothing is left to compare with.
    assert chosen == pytest.approx(1.0 + 0.0)


def test_chance_among_many_answers_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0.0, 0.4, (600, 2))
    true = np.hstack([corners, corners + rng.uniform(0.2, 0.6, (600, 2))])
    first, second = (Reading(WAYS[0], true[rng.permutation(600)], np.zeros(600)) for _ in range(2))
    expected = 0.0
    for i in range(600):
        far = box_iou(second.boxes[i], true) < 0.1
        far[i] = False
        if far.any():
            expected += float((box_iou(first.boxes[i], true[far]) >= 0.5).mean())
    assert blind_hits(first, true, declared=second, below=0.1) == pytest.approx(expected)


# --- findings without the truth ------------------------------------------------------------------

GOOD = "[100, 200, 300, 400]"
FINDINGS = [
    # text, dialect, kind of finding, what it says instead of a box, part of the advice
    ("", "norm1000", "no_box", "empty", "chat template"),
    ("", "florence2", "no_box", "empty", "skip_special_tokens=False"),
    ("cup", "rex_omni", "no_box", "words", "skip_special_tokens=False"),
    ("I'm sorry, I can't help with that.", "norm1000", "no_box", "refusal", "--controls"),
    ("I cannot see any image. Please provide it.", "norm1000", "image_talk", None, "lmms-eval.log"),
    ("No image was provided.", "norm1000", "no_box", "missing_image", "Let the images arrive"),
    ("抱歉，我无法查看您上传的图片。", "norm1000", "no_box", "missing_image", "images"),
    ("杯子在桌子的左边。", "norm1000", "no_box", "words", "another --prompt"),
    ("It is on the table, left of the cup.", "norm1000", "no_box", "words", "another --prompt"),
    ("It is (120, 340).", "norm1000", "no_box", "point", "A model that only points"),
    ("About 3 of them.", "norm1000", "no_box", "other", "--dialect"),
    (GOOD, "qwen2_vl", "no_box", "other_form", "univg dialects"),
    ("There is no such object.", "norm1000", "says_none", None, "--controls"),
    ("<think>first I look at", "norm1000", "unclosed", None, "max_new_tokens"),
    ("<think>so</think><answer>[1, 2", "norm1000", "unclosed", None, "max_new_tokens"),
    (f"{GOOD} or maybe [500, 500, 600, 600]", "norm1000", "several_boxes", None, "--prompt think"),
    ("[100, 200, 300, 1400]", "norm1000", "outside", None, "--dialect"),
    ("[300, 200, 100, 400]", "norm1000", "invalid_box", None, "x, y, width, height"),
    ("[0.1, 0.2, 0.3, 0.4]", "norm1000", "small_numbers", None, "norm1"),
]


@pytest.mark.parametrize(("text", "dialect", "kind", "instead", "advice"), FINDINGS)
def test_what_an_answer_shows(text, dialect, kind, instead, advice) -> None:
    """Twelve answers of a kind among readable ones, and none of it without them."""
    own = get_dialect(dialect)
    good = written(SAMPLES[0], own)
    samples = toy_samples(24)
    mixed = [Response(text if i % 2 else good) for i in range(24)]
    finding = findings_of(mixed, own, samples)[kind]
    assert finding.severity in ("problem", "warning")
    assert advice in finding.remedy
    assert finding.examples[0] == "toy-001"
    if instead is not None:
        assert finding.numbers["instead"] == {instead: 12}
    plain = [Response(good if i % 2 else good.replace("1", "2")) for i in range(24)]
    assert kind not in findings_of(plain, own, samples)


def test_several_boxes_where_all_are_asked_for_are_no_finding() -> None:
    samples = [replace(sample, find_all=True) for sample in toy_samples(24)]
    text = "[100, 200, 300, 400], [500, 500, 600, 600]"
    assert "several_boxes" not in findings_of([Response(text)] * 24, NORM1000, samples)
    assert "several_boxes" in findings_of([Response(text)] * 24, NORM1000, toy_samples(24))


@pytest.mark.parametrize(
    ("text", "in_thinking"),
    [
        ("<think>first I look at", 1),
        ("<think>so</think><answer>The box is [1, 2", 0),
        ("<think></think><answer>[1", 0),
        ("so</think> <|begin_of_box|>[1, 2", 0),
        ("<think>so</think> and <think>again", 1),
        ("<think>", 1),
    ],
)
def test_where_an_answer_was_cut_off(text: str, in_thinking: int) -> None:
    found = findings_of([Response(text), *answers(NORM1000, SAMPLES[1:])], NORM1000)
    assert list(found) == ["unclosed"]
    assert found["unclosed"].numbers["in_thinking"] == in_thinking


def test_forms_that_other_dialects_read_are_named() -> None:
    finding = findings_of(answers(get_dialect("paligemma")), get_dialect("qwen2_vl"))["no_box"]
    assert finding.numbers["read_by"] == ["paligemma"]
    assert finding.numbers["read_by_n"] == N


def test_a_box_whose_image_must_be_named_and_is_not() -> None:
    """Boxes in pixels of images of several sizes cannot be read then; that fails no check."""
    dialect = get_dialect("pixels")
    samples = [replace(s, image_is_given=i % 4 != 1) for i, s in enumerate(SAMPLES)]
    found = findings_of(answers(dialect, samples), dialect, samples)
    assert {f.severity for f in found.values()} == {"note"}
    assert set(found) == {"no_box", "image_not_named"}
    unnamed = [s for s in samples if not s.image_is_given]
    assert found["image_not_named"].numbers == {"n": len(unnamed), "not_named": len(unnamed)}
    assert set(found["no_box"].numbers["instead"]) == {"unread_image"}


def test_generations_at_the_limit_are_reported_with_their_loops() -> None:
    loop = Response("and then I look at the cup again, " * 20)
    found = findings_of(
        [loop] * 5 + [Response(GOOD)] * 5,
        NORM1000,
        toy_samples(10),
        output_tokens=[512] * 5 + [12] * 4 + [None],
        max_new_tokens=512,
    )
    finding = found["token_limit"]
    assert finding.severity == "problem"
    assert finding.numbers["n"] == 9
    assert (finding.numbers["at_limit"], finding.numbers["repeating"]) == (5, 5)
    assert "chat template" in finding.remedy


def test_answers_that_do_not_change() -> None:
    assert "constant_answer" in findings_of([Response(GOOD)] * N, NORM1000)
    # One image in two sizes is rightly answered alike.
    twice = [
        replace(s, id=f"{s.id}-large", images=tuple(f"large/{name}" for name in s.images))
        for s in SAMPLES
    ]
    samples = [*SAMPLES, *twice]
    assert diagnose(samples, answers(NORM1000, samples), NORM1000).findings == ()
    # The same instruction about other images is not.
    samples = [replace(s, instruction=f"Locate thing {i % 4}.") for i, s in enumerate(SAMPLES)]
    responses = [Response(f"[{100 + i % 4}, 200, 300, 400]") for i in range(N)]
    found = findings_of(responses, NORM1000, samples)
    assert found["same_across_images"].numbers == {"pairs": N - 4, "equal": N - 4}


def test_a_published_rule_that_reads_otherwise_is_reported() -> None:
    responses = []
    for s in SAMPLES:
        x1, y1, x2, y2 = (f"{1000 * v:.1f}" for v in s.box)
        responses.append(Response(f"({x1},{y1}),({x2},{y2})"))
    diagnosis = diagnose(SAMPLES, responses, get_dialect("qwen2_vl"), protocol="univg-r1")
    (finding,) = (f for f in diagnosis.findings if f.kind == "protocol_differs")
    assert finding.numbers["not_read"] == diagnosis.hits == N
    assert {score.iou for score in diagnosis.scores} == {0.0}


def test_severity_of_a_share() -> None:
    shares = [(0, 50), (1, 50), (8, 50), (30, 50), (3, 3)]
    expected = ["note", "note", "warning", "problem", "problem"]
    assert [severity_of(k, n) for k, n in shares] == expected
    with pytest.raises(UserError, match="40 samples, 1 responses"):
        diagnose(SAMPLES, [Response(GOOD)], NORM1000)


# --- controls and variants -----------------------------------------------------------------------


def run_of(values, *, task="t", texts=None) -> list[SampleValue]:
    return [
        SampleValue(f"{task}-{i}", task, f"{task}-c{i}", float(v), texts[i] if texts else f"{i}")
        for i, v in enumerate(values)
    ]


def test_what_survives_is_a_ratio_of_macro_means() -> None:
    normal = run_of([1, 1, 1, 1], task="a") + run_of([1, 0], task="b")
    control = run_of([1, 0, 0, 0], task="a") + run_of([0, 0], task="b")
    result = compare_control("blank", normal, control)
    assert (result.score, result.control_score) == (0.75, 0.125)
    assert result.survives == pytest.approx(1 / 6)
    assert result.low is not None
    assert 0.0 <= result.low <= 1 / 6 <= (result.high or math.inf)
    assert result.tasks["a"] == (1.0, 0.25, 4)
    # Samples that a control leaves out count on neither side.
    result = compare_control("permuted", run_of([1, 0, 1, 0]), run_of([1, 0, 1, 0])[:2])
    assert (result.n, result.score, result.survives) == (2, 0.5, 1.0)
    with pytest.raises(UserError, match="no sample in common"):
        compare_control("blank", run_of([1]), run_of([1], task="u"))


def test_the_interval_covers_the_true_ratio() -> None:
    """Of 100 simulated checks, the 95 % interval misses a true ratio of 0.4 rarely."""
    rng = np.random.default_rng(1)
    missed = 0
    for seed in range(100):
        normal, control = rng.random(100) < 0.6, rng.random(100) < 0.24
        result = compare_control("blank", run_of(normal), run_of(control), seed=seed)
        assert result.low is not None and result.high is not None
        missed += not result.low <= 0.4 <= result.high
    assert missed <= 12


def test_controls_show_images_that_are_not_used_and_shortcuts() -> None:
    values, same, other = [1, 0] * 20, [f"box {i}" for i in range(40)], ["other"] * 40
    normal, failed = run_of(values, texts=same), run_of([0] * 40, texts=other)
    for control, controlled, kind, severity in (
        ("blank", run_of(values, texts=same), "images_not_used", "problem"),
        ("swapped", run_of(values, texts=other), "shortcut", "warning"),
        ("cut", run_of(values, texts=same), "control", "note"),
        ("blank", failed, "control", "note"),
    ):
        (found,) = control_findings([compare_control(control, normal, controlled)])
        assert (found.kind, found.severity) == (kind, severity)
    # None of 40: at most 8.8 % (Wilson), of a score of 50 %.
    assert found.title.startswith("0 % of the score") and "interval 0 to 18" in found.title
    low = compare_control("blank", run_of([1] + [0] * 39), failed)
    assert "so low a score says nothing" in control_findings([low])[0].title
    without = compare_control("blank", run_of([0, 0]), run_of([0, 0]))
    assert (without.survives, without.low, without.high) == (None, None, None)
    assert control_findings([without])[0].severity == "note"


def test_variants_are_compared_on_pairs_and_corrected() -> None:
    declared = run_of([0] * 30 + [1] * 10)
    results = compare_variants(
        declared,
        {
            "better": run_of([1] * 20 + [0] * 10 + [1] * 10),
            "slightly": run_of([1] * 3 + [0] * 27 + [1] * 10),
            "same": declared,
        },
    )
    better, slightly, same = results
    assert (better.better, better.worse) == (20, 0)
    assert better.difference == pytest.approx(0.5)
    assert better.p == pytest.approx(3 * 2 * 0.5**20)
    assert slightly.p == pytest.approx(2 * 2 * 0.5**3)
    assert same.p == 1.0
    (finding,) = variant_findings(results, "declared")
    assert (finding.kind, finding.severity) == ("better_prompt", "warning")
    assert finding.numbers["spread"] == pytest.approx(0.5)
    (calm,) = variant_findings(results[1:], "declared")
    assert (calm.kind, calm.severity) == ("prompt_spread", "note")
    assert variant_findings([], "declared") == []


def test_chance_alone_seldom_finds_a_better_variant() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for seed in range(60):
        first, *others = [run_of(rng.random(60) < 0.4) for _ in range(5)]
        results = compare_variants(first, {str(k): run for k, run in enumerate(others)}, seed=seed)
        found += variant_findings(results, "declared")[0].kind == "better_prompt"
    assert found <= 6


# --- the conclusion ------------------------------------------------------------------------------


def conclusion(share: float, *extra: CheckFinding):
    rng, dialect, samples = random.Random(0), get_dialect("qwen2_vl"), toy_samples(100)
    responses = [
        Response(written(s, dialect, s.box if rng.random() < share else (0, 0, 0.03, 0.03)))
        for s in samples
    ]
    diagnosis = diagnose(samples, responses, dialect)
    found = [f for f in diagnosis.findings if f.kind != "constant_answer"]
    return conclude(diagnosis, [*found, *extra])


def test_a_weak_model_is_no_wrong_set_up() -> None:
    strong, weak, chance = conclusion(0.9), conclusion(0.2), conclusion(0.0)
    assert (strong.status, strong.weak, strong.headline) == ("fine", False, "The set-up is fine.")
    assert (weak.status, weak.weak) == ("fine", True)
    assert "the model is weak" in weak.headline
    assert "nothing wrong with the set-up" in weak.text
    assert chance.status == "fine"
    assert "no better than chance" in chance.headline


@pytest.mark.parametrize(
    ("n", "headline"),
    [
        (1, "Nothing wrong was found, but 1 sample cannot show much."),
        (19, "Nothing wrong was found, but 19 samples cannot show much."),
        (20, "The set-up is fine."),
    ],
)
@pytest.mark.parametrize("all_right", [True, False])
def test_few_samples_do_not_make_a_set_up_fine(n: int, headline: str, all_right: bool) -> None:
    responses = [
        Response(written(s, NORM1000, s.box if all_right else (0, 0, 0.03 + i / 1000, 0.03)))
        for i, s in enumerate(SAMPLES[:n])
    ]
    diagnosis = diagnose(SAMPLES[:n], responses, NORM1000)
    said = conclude(diagnosis, diagnosis.findings)
    assert said.status == "fine"
    assert said.headline == headline or (n == 20 and not all_right)
    assert ("need about 20 samples" in said.text) == (n < 20)
    assert f"of {n} answer{'' if n == 1 else 's'}." in said.text


@pytest.mark.parametrize(
    ("severity", "status"),
    [("problem", "wrong"), ("hint", "wrong"), ("warning", "look"), ("note", "fine")],
)
def test_the_most_severe_finding_decides(severity, status: str) -> None:
    assert conclusion(0.9, CheckFinding("x", severity, "t", "r")).status == status
