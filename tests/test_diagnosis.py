"""What is said about a set-up from its answers: hints, findings, controls, verdicts.

The answers are written by the dialects' own `encode`, so the right reading is known.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from univg_eval import get_dialect, list_dialects, parse_answer
from univg_eval.analysis.diagnosis import (
    Candidate,
    Finding,
    Outcome,
    candidates,
    compare_control,
    compare_variants,
    control_findings,
    diagnose,
    judge,
    read_all,
    suspect,
    variant_findings,
)
from univg_eval.analysis.diagnosis.findings import grave
from univg_eval.analysis.diagnosis.readings import Reading, blind_hits
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


def questions(n: int = N, seed: int = 0) -> list[GroundingSample]:
    """Questions about one or two images of assorted sizes."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        sizes = [rng.choice(SIZES) for _ in range(1 + i % 2)]
        width, height = rng.uniform(0.08, 0.6), rng.uniform(0.08, 0.6)
        x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        rows.append(
            GroundingSample(
                id=f"toy-{i:03d}",
                benchmark="toy",
                task="even" if i % 2 == 0 else "odd",
                split="test",
                images=tuple(f"toy/{i}_{k}.png" for k in range(len(sizes))),
                widths=tuple(width for width, _ in sizes),
                heights=tuple(height for _, height in sizes),
                instruction=f"Locate thing {i}.",
                targets=(Target(rng.randrange(len(sizes)), (x, y, x + width, y + height)),),
                image_is_given=True,
                cluster=f"c{i}",
            )
        )
    return rows


SAMPLES = questions()


def written(sample: GroundingSample, dialect: Dialect, box=None, label=None) -> str:
    size = sample.image_sizes[sample.target_image]
    resized = dialect.input_size(size) if dialect.needs_input_size else None
    return dialect.encode(box or sample.box, image_wh=size, input_wh=resized, label=label)


def answers(dialect: Dialect, samples=SAMPLES) -> list[Response]:
    return [Response(written(sample, dialect)) for sample in samples]


def table(samples, responses):
    """All readings of these responses, and those of each dialect with its default limits."""
    own = [Candidate(name, get_dialect(name), "", "", keeps_sizes=False) for name in BOX_DIALECTS]
    readings = read_all(samples, responses, [*own, *WAYS])
    declared = dict(zip(BOX_DIALECTS, readings, strict=False))
    return declared, readings[len(own) :]


def dialect_of(name: str) -> str:
    """`qwen2_5_vl with min_pixels=…` is that dialect; another order of norm1000 is none."""
    return name.split(" with ")[0]


# --- the hint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("written_in", BOX_DIALECTS)
def test_answers_of_a_dialect_under_every_wrong_setting(written_in: str) -> None:
    """The hint names the dialect that wrote the answers, or readings equal to it on these texts."""
    dialect = get_dialect(written_in)
    responses = answers(dialect)
    declared, others = table(SAMPLES, responses)
    right = declared[written_in]
    assert right.hits.all()
    for name, reading in declared.items():
        suspicion = suspect(SAMPLES, responses, reading, others)
        lost = int(right.hits.sum() - reading.hits.sum())
        # Where little is wrong nothing need be said; what is said is the right thing.
        if lost < 0.3 * N and suspicion is None:
            continue
        assert suspicion is not None, (written_in, name, lost)
        told = {dialect_of(each) for each in (*suspicion.names, *suspicion.not_told_apart)}
        assert written_in in told, (written_in, name, suspicion.names)
        assert suspicion.declared_hits == int(reading.hits.sum())
        assert suspicion.hits > suspicion.declared_hits
        # No more is claimed than that: what is named together reads every answer alike.
        first = suspicion.names[0]
        boxes = {
            way.candidate.name: np.round(way.boxes, 9).tobytes()
            for way in others
            if way.candidate.name in suspicion.names
        }
        assert set(boxes.values()) == {boxes[first]}


@pytest.mark.parametrize("name", BOX_DIALECTS)
def test_the_right_setting_gives_no_hint(name: str) -> None:
    diagnosis = diagnose(SAMPLES, answers(get_dialect(name)), get_dialect(name))
    assert [f.kind for f in diagnosis.findings if f.severity == "hint"] == []
    assert diagnosis.hits == N


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
        responses.append(
            Response(written(sample, dialect, tuple(np.clip(sample.box + noise, 0, 1))))
        )
    (hint,) = (
        f
        for f in diagnose(SAMPLES, responses, get_dialect("qwen2_5_vl")).findings
        if f.severity == "hint"
    )
    assert hint.numbers["read_as"]["names"][0] in ("qwen3_vl", "qwen3_5")
    assert "norm999" in hint.numbers["not_told_apart"]


def test_readings_named_together_parse_alike_one_by_one() -> None:
    responses = answers(get_dialect("qwen3_vl"))
    declared, others = table(SAMPLES, responses)
    suspicion = suspect(SAMPLES, responses, declared["qwen2_5_vl"], others)
    assert suspicion is not None
    assert suspicion.names[0] in ("qwen3_vl", "qwen3_5")
    assert {"qwen3_vl", "qwen3_5", "norm1000"} <= set(suspicion.names)
    for name in suspicion.names:
        for sample, response in zip(SAMPLES, responses, strict=True):
            boxes = {
                parse_answer(
                    response.text,
                    each,
                    image_sizes=sample.image_sizes,
                    target_image=sample.target_image,
                ).box
                for each in (name, "qwen3_vl")
            }
            assert len(boxes) == 1, (name, sample.id)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "vlm_r1", "mimo_vl"])
@pytest.mark.parametrize("used", [(3136, 602112), (3136, 401408), (200704, 1605632)])
def test_other_pixel_limits_of_the_same_dialect(name: str, used: tuple[int, int]) -> None:
    samples = [s for s in questions(120) if min(s.widths) * min(s.heights) > 1_700_000]
    assert len(samples) >= 14
    responses = answers(get_dialect(name, min_pixels=used[0], max_pixels=used[1]), samples)
    # What the task hands over are sizes by the declared limits.
    dialect = get_dialect(name, min_pixels=3136, max_pixels=12845056)
    sized = [
        replace(r, input_sizes=[dialect.input_size(size) for size in s.image_sizes])
        for s, r in zip(samples, responses, strict=True)
    ]
    (hint,) = [f for f in diagnose(samples, sized, dialect).findings if f.severity == "hint"]
    wanted = f"{name} with min_pixels={used[0]}, max_pixels={used[1]}"
    assert wanted in hint.numbers["read_as"]["names"]
    assert hint.numbers["read_as"]["share"] == 1.0


def test_small_images_tell_nothing_about_pixel_limits() -> None:
    small = [replace(s, widths=(640,) * len(s.images), heights=(480,) * len(s.images))
             for s in SAMPLES]  # fmt: skip
    dialect = get_dialect("qwen2_5_vl")
    (note,) = diagnose(small, answers(dialect, small), dialect).findings
    assert (note.kind, note.severity) == ("limits_not_tested", "note")
    assert [3136, 1003520] in note.numbers["same"]
    large = diagnose(SAMPLES, answers(dialect), dialect).findings
    assert [f.kind for f in large if [3136, 1003520] in f.numbers.get("same", [])] == []


def test_limits_of_the_run_are_tried_too() -> None:
    from univg_eval.analysis.diagnosis import Limits

    responses = answers(get_dialect("qwen2_5_vl", min_pixels=50176, max_pixels=100352))
    odd = Limits(50176, 100352, "the checkpoint's files")
    (hint,) = (
        f
        for f in diagnose(SAMPLES, responses, get_dialect("qwen2_5_vl"), limits=[odd]).findings
        if f.severity == "hint"
    )
    assert "the checkpoint's files" in hint.title
    assert "UNIVG_MAX_PIXELS=100352" in hint.remedy


@pytest.mark.parametrize(
    ("order", "scale"), [(o, s) for o in ("yxyx", "xywh") for s in ("norm1000", "norm1", "pixels")]
)
def test_another_order_of_the_numbers(order: str, scale: str) -> None:
    def turned(sample: GroundingSample) -> Response:
        text = written(sample, get_dialect(scale))
        a, b, c, d = (float(part) for part in text.strip("[]").split(","))
        numbers = (b, a, d, c) if order == "yxyx" else (a, b, round(c - a, 3), round(d - b, 3))
        return Response(f"[{', '.join(f'{value:g}' for value in numbers)}]")

    responses = [turned(sample) for sample in SAMPLES]
    hints = [
        finding
        for finding in diagnose(SAMPLES, responses, get_dialect(scale)).findings
        if finding.severity == "hint"
    ]
    words = {"yxyx": "y1, x1, y2, x2", "xywh": "x, y, width, height"}[order]
    assert f"{scale} written {words}" in hints[0].numbers["read_as"]["names"]


def random_box(rng: random.Random):
    width, height = rng.uniform(0.05, 0.9), rng.uniform(0.05, 0.9)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    return (x, y, x + width, y + height)


def weak_box(kind: str, sample: GroundingSample, rng: random.Random):
    x1, y1, x2, y2 = sample.box
    if kind == "noisy":
        return sample.box if rng.random() < 0.3 else random_box(rng)
    if kind == "random":
        return random_box(rng)
    if kind == "center":
        return (0.25, 0.25, 0.75, 0.75)
    assert kind == "half as large"
    w, h = (x2 - x1) / 4, (y2 - y1) / 4
    return (x1 + w, y1 + h, x2 - w, y2 - h)


@pytest.mark.parametrize("kind", ["noisy", "random", "center", "half as large"])
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "gemini", "llava_1_5"])
def test_a_weak_model_read_rightly_raises_no_false_alarm(kind: str, name: str) -> None:
    """A hint is wrong at most once in a hundred sets; here none of the sets may have one."""
    dialect = get_dialect(name)
    for seed in range(5):
        samples, rng = questions(50, seed), random.Random(seed)
        responses = [Response(written(s, dialect, weak_box(kind, s, rng))) for s in samples]
        readings = read_all(samples, responses, [Candidate(name, dialect, "", ""), *WAYS])
        assert suspect(samples, responses, readings[0], readings[1:]) is None, seed


def test_a_weak_model_under_a_wrong_setting_is_still_seen_through() -> None:
    rng = random.Random(3)
    samples = questions(100, 7)
    dialect = get_dialect("qwen3_vl")
    responses = [Response(written(s, dialect, weak_box("noisy", s, rng))) for s in samples]
    (hint,) = (
        f
        for f in diagnose(samples, responses, get_dialect("qwen2_5_vl")).findings
        if f.severity == "hint"
    )
    assert "qwen3_vl" in hint.numbers["read_as"]["names"]
    assert 0.2 < hint.numbers["read_as"]["share"] < 0.45


def test_more_hits_by_luckier_places_are_no_evidence() -> None:
    """Always one box: as pixels it covers the middle, where all objects are."""
    samples = [
        replace(
            sample,
            images=sample.images[:1],
            widths=(400,),
            heights=(400,),
            targets=(Target(0, (0.25 + i / 1000, 0.25, 0.75, 0.75)),),
        )
        for i, sample in enumerate(SAMPLES)
    ]
    responses = [Response(f"[{100 + i % 3}, 100, 300, 300]") for i in range(N)]
    pixels = score_samples(samples, responses, get_dialect("pixels"))
    assert sum((score.iou or 0) >= 0.5 for score in pixels) == N
    diagnosis = diagnose(samples, responses, get_dialect("norm1000"))
    assert diagnosis.hits == 0
    assert [f.kind for f in diagnosis.findings if f.severity == "hint"] == []


def test_widths_and_heights_are_not_claimed_where_no_box_is_inverted() -> None:
    dialect = get_dialect("norm1000")
    responses = [
        Response(written(sample, dialect, tuple(0.8 * value for value in sample.box)))
        for sample in questions(60)
    ]
    diagnosis = diagnose(questions(60), responses, dialect)
    assert not [f.title for f in diagnosis.findings if "width" in f.title]


def test_too_few_answers_give_no_hint() -> None:
    samples = questions(5)
    findings = diagnose(samples, answers(get_dialect("qwen3_vl"), samples), get_dialect("norm1"))
    assert [f.kind for f in findings.findings if f.severity == "hint"] == []


def test_a_hint_changes_no_score() -> None:
    responses = answers(get_dialect("qwen3_vl"))
    dialect = get_dialect("qwen2_5_vl")
    diagnosis = diagnose(SAMPLES, responses, dialect)
    assert list(diagnosis.scores) == score_samples(SAMPLES, responses, dialect)
    assert "A hint, not a score" in "".join(f.detail for f in diagnosis.findings)
    hint = next(f for f in diagnosis.findings if f.severity == "hint")
    assert hint.examples
    for name in hint.examples:
        assert hint.numbers["read_as"]["boxes"][name]


def test_only_valid_single_targets_are_evidence() -> None:
    odd = [
        replace(SAMPLES[0], id="none", targets=()),
        replace(SAMPLES[0], id="bad", targets=(Target(0, (0.5, 0.5, 0.1, 0.1)),)),
    ]
    responses = [*answers(get_dialect("norm1000")), Response("None."), Response("None.")]
    diagnosis = diagnose([*SAMPLES, *odd], responses, get_dialect("norm1000"))
    assert (diagnosis.n, diagnosis.single, diagnosis.asked) == (N + 2, N, N + 1)


def test_without_image_sizes_pixels_are_left_out() -> None:
    samples = [replace(s, widths=(), heights=()) for s in SAMPLES]
    responses = answers(get_dialect("norm1000"))
    diagnosis = diagnose(samples, responses, get_dialect("norm1"))
    (hint,) = (f for f in diagnosis.findings if f.severity == "hint")
    assert "norm1000" in hint.numbers["read_as"]["names"]


def test_an_image_too_long_for_a_resize_rule_costs_that_sample_alone() -> None:
    n = len(SAMPLES[1].images)
    long = replace(SAMPLES[1], widths=(4100,) * n, heights=(20,) * n)  # a ratio of 205
    samples = [SAMPLES[0], long, SAMPLES[2]]
    dialect = get_dialect("qwen2_5_vl")
    responses = answers(dialect, SAMPLES[:3])
    (reading,) = read_all(samples, responses, [Candidate("own", dialect, "", "")])
    assert np.isnan(reading.boxes[1]).all()
    assert reading.hits.tolist() == [True, False, True]


def test_chance_is_measured_on_other_questions() -> None:
    samples = [
        replace(SAMPLES[i], targets=(Target(0, box),), images=SAMPLES[i].images[:1])
        for i, box in ((0, (0.0, 0.0, 0.5, 0.5)), (2, (0.0, 0.0, 0.5, 0.5)), (4, (0.6, 0.6, 1, 1)))
    ]
    responses = answers(get_dialect("norm1000"), samples)
    (reading,) = read_all(samples, responses, [c for c in WAYS if c.name == "norm1000"])
    true = np.array([s.box for s in samples])
    # Each of the two equal boxes hits one of its two other targets, the third none.
    assert blind_hits(reading, true) == pytest.approx(0.5 + 0.5 + 0.0)
    # Chosen for a miss: of other questions' objects those count that are missed likewise.
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
    first, second = (
        Reading(candidates()[0], true[rng.permutation(600)], np.zeros(600)) for _ in range(2)
    )
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
    # text, dialect, kind of finding, what it says instead (None: not asked)
    ("", "norm1000", "no_box", "empty"),
    ("I'm sorry, I can't help with that.", "norm1000", "no_box", "refusal"),
    ("I cannot see any image. Please provide the image.", "norm1000", "image_talk", None),
    ("No image was provided.", "norm1000", "no_box", "missing_image"),
    ("It is on the table, left of the cup.", "norm1000", "no_box", "words"),
    ("It is (120, 340).", "norm1000", "no_box", "point"),
    ("About 3 of them.", "norm1000", "no_box", "other"),
    ("[100, 200, 300, 400]", "qwen2_vl", "no_box", "other_form"),
    ("<loc0100><loc0200><loc0300><loc0400> cup", "norm1000", "no_box", "other_form"),
    ("There is no such object.", "norm1000", "says_none", None),
    ("<think>first I look at", "norm1000", "unclosed", None),
    ("<think>so</think><answer>[1, 2", "norm1000", "unclosed", None),
    (f"{GOOD} or maybe [500, 500, 600, 600]", "norm1000", "several_boxes", None),
    ("[100, 200, 300, 1400]", "norm1000", "outside", None),
    ("[1100, 1200, 1300, 1400]", "norm1000", "outside", None),
    ("[300, 200, 100, 400]", "norm1000", "invalid_box", None),
    ("[0.1, 0.2, 0.3, 0.4]", "norm1000", "small_numbers", None),
]


@pytest.mark.parametrize(("text", "dialect", "kind", "instead"), FINDINGS)
def test_what_an_answer_shows(text: str, dialect: str, kind: str, instead: str | None) -> None:
    """Twelve answers of a kind among readable ones, and none of it without them."""
    good = written(SAMPLES[0], get_dialect(dialect))
    samples = questions(24)
    responses = [Response(f"{text}" if i % 2 else good) for i in range(24)]
    found = {f.kind: f for f in diagnose(samples, responses, get_dialect(dialect)).findings}
    assert kind in found, sorted(found)
    finding = found[kind]
    assert finding.severity in ("problem", "warning")
    assert finding.remedy
    assert finding.examples[0] == "toy-001"
    if instead is not None:
        assert finding.numbers["instead"] == {instead: 12}
    plain = [Response(good if i % 2 else good.replace("1", "2")) for i in range(24)]
    assert kind not in {f.kind for f in diagnose(samples, plain, get_dialect(dialect)).findings}


def test_forms_that_other_dialects_read_are_named() -> None:
    responses = answers(get_dialect("paligemma"))
    finding = diagnose(SAMPLES, responses, get_dialect("qwen2_vl")).findings[0]
    assert finding.kind == "no_box"
    assert finding.numbers["read_by"] == ["paligemma"]
    assert finding.numbers["read_by_n"] == N


def test_a_box_whose_image_must_be_named_is_not_called_no_box_for_nothing() -> None:
    samples = [replace(s, image_is_given=False) for s in SAMPLES if len(s.images) == 2]
    samples = [s for s in samples if s.image_sizes[0] != s.image_sizes[1]]
    responses = [Response("[10, 20, 30, 40]") for _ in samples]
    found = {f.kind: f for f in diagnose(samples, responses, get_dialect("pixels")).findings}
    assert found["no_box"].numbers["instead"] == {"unread_image": len(samples)}
    assert found["image_not_named"].numbers == {"n": len(samples), "not_named": len(samples)}


def test_generations_at_the_limit_are_told_with_their_loops() -> None:
    samples = questions(10)
    loop = "and then I look at the cup again, " * 20
    texts = [loop] * 5 + [GOOD] * 5
    diagnosis = diagnose(
        samples,
        [Response(text) for text in texts],
        get_dialect("norm1000"),
        output_tokens=[512] * 5 + [12] * 4 + [None],
        max_new_tokens=512,
    )
    finding = next(f for f in diagnosis.findings if f.kind == "token_limit")
    assert finding.severity == "problem"
    assert finding.numbers["n"] == 9
    assert (finding.numbers["at_limit"], finding.numbers["repeating"]) == (5, 5)
    assert "chat template" in finding.remedy


def test_one_answer_for_everything_is_suspicious() -> None:
    responses = [Response(GOOD) for _ in SAMPLES]
    kinds = {f.kind for f in diagnose(SAMPLES, responses, get_dialect("norm1000")).findings}
    assert "constant_answer" in kinds


def test_one_picture_in_two_sizes_is_answered_alike_by_right() -> None:
    twice = [
        replace(s, id=f"{s.id}-large", images=tuple(f"large/{name}" for name in s.images))
        for s in SAMPLES
    ]
    samples = [*SAMPLES, *twice]
    dialect = get_dialect("norm1000")
    assert diagnose(samples, answers(dialect, samples), dialect).findings == ()


def test_the_same_answer_to_the_same_question_about_other_images() -> None:
    samples = [replace(s, instruction=f"Locate thing {i % 4}.") for i, s in enumerate(SAMPLES)]
    responses = [Response(f"[{100 + i % 4}, 200, 300, 400]") for i in range(N)]
    found = {f.kind: f for f in diagnose(samples, responses, get_dialect("norm1000")).findings}
    assert found["same_across_images"].numbers == {"pairs": N - 4, "equal": N - 4}


def test_a_published_rule_that_reads_otherwise_is_told() -> None:
    responses = [
        Response(f"({s.box[0] * 1000:.1f},{s.box[1] * 1000:.1f}),"
                 f"({s.box[2] * 1000:.1f},{s.box[3] * 1000:.1f})")
        for s in SAMPLES
    ]  # fmt: skip
    diagnosis = diagnose(SAMPLES, responses, get_dialect("qwen2_vl"), protocol="univg-r1")
    finding = next(f for f in diagnosis.findings if f.kind == "protocol_differs")
    assert finding.numbers["not_read"] == N
    assert diagnosis.hits == N
    assert {score.iou for score in diagnosis.scores} == {0.0}


@pytest.mark.parametrize(
    ("k", "n", "severity"),
    [(0, 50, "note"), (1, 50, "note"), (8, 50, "warning"), (30, 50, "problem"), (3, 3, "problem")],
)
def test_how_grave_a_share_is(k: int, n: int, severity: str) -> None:
    assert grave(k, n) == severity


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
    responses = [Response(text), *answers(get_dialect("norm1000"), SAMPLES[1:])]
    (finding,) = diagnose(SAMPLES, responses, get_dialect("norm1000")).findings
    assert finding.kind == "unclosed"
    assert finding.numbers["in_thinking"] == in_thinking


@pytest.mark.parametrize(
    ("text", "kind", "instead", "advice"),
    [
        ("", "no_box", "empty", "chat template"),
        ("It is (120, 340).", "no_box", "point", "A model that only points"),
        ("I'm sorry, I can't help with that.", "no_box", "refusal", "--controls"),
        ("抱歉，我无法查看您上传的图片。", "no_box", "missing_image", "Let the images arrive"),
        ("请上传图片。", "image_talk", None, "lmms-eval.log"),
        ("图片中没有杯子。", "no_box", "words", "try another --prompt"),
        ("在图片中没有看到杯子。", "no_box", "words", "try another --prompt"),
    ],
)
def test_the_advice_fits_what_is_said_instead_of_a_box(text, kind, instead, advice) -> None:
    diagnosis = diagnose(SAMPLES, [Response(text)] * N, get_dialect("norm1000"))
    finding = next(f for f in diagnosis.findings if f.kind == kind)
    assert advice in finding.remedy
    if instead is not None:
        assert finding.numbers["instead"] == {instead: N}


def test_a_model_that_names_no_image_is_not_set_up_wrongly() -> None:
    """Boxes in pixels of images of several sizes cannot be read then; that fails no check."""
    dialect = get_dialect("pixels")
    samples = [
        replace(s, image_is_given=i % 4 != 1) for i, s in enumerate(SAMPLES)
    ]  # fmt: skip
    found = diagnose(samples, answers(dialect, samples), dialect).findings
    assert {(f.kind, f.severity) for f in found} == {
        ("no_box", "note"),
        ("image_not_named", "note"),
    }


def test_a_response_of_a_megabyte_is_read_once_and_is_no_evidence() -> None:
    dialect = get_dialect("norm1000")
    long = Response("so [1, 2] " * 40_000 + written(SAMPLES[0], dialect))
    responses = [long, *answers(dialect, SAMPLES[1:])]
    assert diagnose(SAMPLES, responses, dialect).hits == N
    started = time.perf_counter()
    diagnosis = diagnose(SAMPLES, [long, *answers(get_dialect("norm1"), SAMPLES[1:])], dialect)
    assert time.perf_counter() - started < 10  # in each of a hundred readings it took a minute
    (hint,) = (f for f in diagnosis.findings if f.severity == "hint")
    assert hint.numbers["n"] == N - 1
    assert diagnose(SAMPLES[:1], [long], dialect).hits == 1


def test_limits_are_judged_by_the_answers_that_they_change() -> None:
    """A few large images among many small ones are enough."""
    large = [s for s in questions(80) if min(s.widths) * min(s.heights) > 1_700_000][:16]
    small = [
        replace(
            s, id=f"small-{s.id}", widths=(320,) * len(s.images), heights=(240,) * len(s.images)
        )
        for s in questions(200, seed=3)
    ]
    samples = [*small, *large]
    used = get_dialect("qwen2_5_vl", min_pixels=3136, max_pixels=602112)
    responses = answers(used, samples)
    diagnosis = diagnose(samples, responses, get_dialect("qwen2_5_vl"))
    (hint,) = (f for f in diagnosis.findings if f.severity == "hint")
    assert (
        hint.numbers["read_as"]["names"][0] == "qwen2_5_vl with min_pixels=3136, max_pixels=602112"
    )
    assert "min_pixels=3136, max_pixels=12845056" in hint.title  # those that were assumed
    assert "UNIVG_MAX_PIXELS=602112" in hint.remedy
    assert hint.numbers["read_as"]["hits"] - hint.numbers["declared"]["hits"] < 0.1 * len(samples)
    # The declared dialect is named first where several share limits.
    other = diagnose(samples, responses, get_dialect("vlm_r1"))
    (hint,) = (f for f in other.findings if f.severity == "hint")
    assert hint.numbers["read_as"]["names"][0].startswith("vlm_r1 with min_pixels=3136, max_")


def test_larger_boxes_on_a_few_images_are_no_evidence() -> None:
    """Other limits that only make boxes larger hit more; not more than on other objects."""
    middle = [
        replace(s, targets=(Target(s.target_image, (0.3, 0.3, 0.7, 0.7)),)) for s in SAMPLES[:20]
    ]
    responses = [
        Response(written(s, get_dialect("norm1000"), (0.3, 0.3, 0.7, 0.7))) for s in middle
    ] + answers(get_dialect("norm1"), SAMPLES[20:])
    found = diagnose([*middle, *SAMPLES[20:]], responses, get_dialect("norm1")).findings
    assert [f.kind for f in found if f.severity == "hint"] == []


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="40 samples, 1 responses"):
        diagnose(SAMPLES, [Response(GOOD)], get_dialect("norm1000"))


# --- controls and variants -----------------------------------------------------------------------


def outcomes(values, *, task="t", texts=None) -> list[Outcome]:
    return [
        Outcome(f"{task}-{i}", task, f"{task}-c{i}", float(value), texts[i] if texts else f"{i}")
        for i, value in enumerate(values)
    ]


def test_what_survives_is_a_ratio_of_macro_means() -> None:
    normal = outcomes([1, 1, 1, 1], task="a") + outcomes([1, 0], task="b")
    control = outcomes([1, 0, 0, 0], task="a") + outcomes([0, 0], task="b")
    result = compare_control("blank", normal, control)
    assert (result.score, result.control_score) == (0.75, 0.125)
    assert result.survives == pytest.approx(1 / 6)
    assert result.low is not None
    assert 0.0 <= result.low <= 1 / 6 <= (result.high or math.inf)
    assert result.tasks["a"] == (1.0, 0.25, 4)


def test_questions_that_a_control_leaves_out_count_on_neither_side() -> None:
    result = compare_control("permuted", outcomes([1, 0, 1, 0]), outcomes([1, 0, 1, 0])[:2])
    assert (result.n, result.score, result.survives) == (2, 0.5, 1.0)
    with pytest.raises(UserError, match="no question in common"):
        compare_control("blank", outcomes([1]), outcomes([1], task="u"))


def test_the_interval_covers_the_true_ratio() -> None:
    """Of 100 simulated checks, the 95 % interval misses a true ratio of 0.4 rarely."""
    rng = np.random.default_rng(1)
    missed = 0
    for seed in range(100):
        normal = (rng.random(100) < 0.6).astype(float)
        control = (rng.random(100) < 0.24).astype(float)
        result = compare_control("blank", outcomes(normal), outcomes(control), seed=seed)
        assert result.low is not None and result.high is not None
        missed += not result.low <= 0.4 <= result.high
    assert missed <= 12


def test_no_score_leaves_nothing_to_survive() -> None:
    result = compare_control("blank", outcomes([0, 0]), outcomes([0, 0]))
    assert (result.survives, result.low, result.high) == (None, None, None)
    (finding,) = control_findings([result])
    assert finding.severity == "note"


def test_controls_tell_images_that_are_not_used_and_shortcuts() -> None:
    values = [1, 0] * 20
    same = [f"box {i}" for i in range(40)]
    other = [f"other {i}" for i in range(40)]
    normal = outcomes(values, texts=same)
    deaf = compare_control("blank", normal, outcomes(values, texts=same))
    prior = compare_control("swapped", normal, outcomes(values, texts=other))
    cut = compare_control("cut", normal, outcomes(values, texts=same))
    seeing = compare_control("blank", normal, outcomes([0] * 40, texts=other))
    assert [f.kind for f in control_findings([deaf])] == ["images_not_used"]
    assert [(f.kind, f.severity) for f in control_findings([prior])] == [("shortcut", "warning")]
    assert [(f.kind, f.severity) for f in control_findings([cut])] == [("control", "note")]
    (fine,) = control_findings([seeing])
    assert fine.severity == "note"
    # None of 40: at most 8.8 % (Wilson), of a score of 50 %.
    assert fine.title.startswith(
        "0 % of the score survives when the images are blank (95 % interval 0 to 18)"
    )
    low = compare_control("blank", outcomes([1] + [0] * 39), outcomes([0] * 40, texts=other))
    (unsaid,) = control_findings([low])
    assert "so low a score says nothing" in unsaid.title


def test_variants_are_compared_on_pairs_and_corrected() -> None:
    declared = outcomes([0] * 30 + [1] * 10)
    results = compare_variants(
        declared,
        {
            "better": outcomes([1] * 20 + [0] * 10 + [1] * 10),
            "slightly": outcomes([1] * 3 + [0] * 27 + [1] * 10),
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
        runs = [(rng.random(60) < 0.4).astype(float) for _ in range(5)]
        results = compare_variants(
            outcomes(runs[0]), {str(k): outcomes(run) for k, run in enumerate(runs[1:])}, seed=seed
        )
        found += variant_findings(results, "declared")[0].kind == "better_prompt"
    assert found <= 6


# --- the verdict ---------------------------------------------------------------------------------


def verdict(share: float, *extra: Finding, seed: int = 0):
    rng = random.Random(seed)
    dialect = get_dialect("qwen2_vl")
    samples = questions(100, seed)
    responses = [
        Response(written(s, dialect, s.box if rng.random() < share else (0, 0, 0.03, 0.03)))
        for s in samples
    ]
    diagnosis = diagnose(samples, responses, dialect)
    found = [f for f in diagnosis.findings if f.kind != "constant_answer"]
    return judge(diagnosis, [*found, *extra])


def test_a_weak_model_is_told_from_a_wrong_set_up() -> None:
    strong, weak, chance = verdict(0.9), verdict(0.2), verdict(0.0)
    assert (strong.status, strong.weak, strong.headline) == ("fine", False, "The set-up is fine.")
    assert (weak.status, weak.weak) == ("fine", True)
    assert weak.headline == "The set-up is fine; the model is weak on these questions."
    assert "nothing wrong with the set-up" in weak.text
    assert chance.status == "fine"
    assert "no better than chance" in chance.headline


@pytest.mark.parametrize(
    ("n", "headline"),
    [
        (1, "Nothing wrong was found, but 1 question cannot show much."),
        (19, "Nothing wrong was found, but 19 questions cannot show much."),
        (20, "The set-up is fine."),
    ],
)
def test_few_questions_do_not_make_a_set_up_fine(n: int, headline: str) -> None:
    dialect = get_dialect("norm1000")
    for shown in (1.0, 0.0):  # all right, and all wrong
        boxes = [s.box if shown else (0, 0, 0.03 + i / 1000, 0.03) for i, s in enumerate(SAMPLES)]
        responses = [
            Response(written(s, dialect, box)) for s, box in zip(SAMPLES[:n], boxes, strict=False)
        ]
        diagnosis = diagnose(SAMPLES[:n], responses, dialect)
        told = judge(diagnosis, diagnosis.findings)
        assert told.status == "fine"
        if shown or n < 20:
            assert told.headline == headline
        assert ("need about 20 questions" in told.text) == (n < 20)
        assert f"of {n} answer{'' if n == 1 else 's'}." in told.text


def test_questions_without_a_single_true_box_show_nothing_about_reading() -> None:
    samples = [replace(s, targets=()) for s in SAMPLES]
    diagnosis = diagnose(samples, [Response("None.")] * N, get_dialect("norm1000"))
    told = judge(diagnosis, ())
    assert told.headline.endswith("questions without one true box cannot show much.")


@pytest.mark.parametrize(
    ("severity", "status"),
    [("problem", "wrong"), ("hint", "wrong"), ("warning", "look"), ("note", "fine")],
)
def test_the_gravest_finding_decides(severity, status: str) -> None:
    assert verdict(0.9, Finding("x", severity, "t", "r")).status == status
