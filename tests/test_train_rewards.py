"""Rewards: the evaluation's score of the same text, and the released functions as released."""

from __future__ import annotations

import re
from typing import Any

import pytest
from factories import make_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.errors import UserError
from univg_eval.samples import Target
from univg_eval.scoring import score_sample
from univg_train.rewards import LengthReward, check_rows, completion_text, make_rewards

BOX = [0.1, 0.2, 0.5, 0.6]
HIT = "(100,200),(500,600)"
HALF = "(100,200),(500,400)"


def row(**changes: Any) -> dict[str, Any]:
    unknown = dict.fromkeys(("image_sizes", "input_sizes", "target_image"))
    return {"solution": BOX, "dialect": "qwen2_vl", "single_image": False} | unknown | changes


def reward(index: int, texts: list[Any], rows: list[dict[str, Any]], **options: Any) -> list[float]:
    """As TRL calls it: every column by name, one value a completion, and its own extras."""
    columns = {name: [r[name] for r in rows] for name in rows[0]}
    ids = [list(range(len(str(text)))) for text in texts]
    extras = dict.fromkeys(("trainer_state", "log_extra", "log_metric"))
    function = make_rewards(**options)[index]
    return function(prompts=texts, completions=texts, completion_ids=ids, **extras, **columns)


def accuracy(text: Any, options: dict[str, Any] | None = None, **changes: Any) -> float:
    return reward(0, [text], [row(**changes)], **(options or {}))[0]


def form(text: Any, options: dict[str, Any] | None = None, **changes: Any) -> float:
    return reward(1, [text], [row(**changes)], **(options or {}))[0]


# --- the reward is the evaluation's score -------------------------------------------------------

DIALECTS = [name for name in list_dialects() if get_dialect(name).gives_boxes]
SIZES = [(640, 480), (300, 500)]
corner = st.tuples(st.floats(0, 0.98), st.floats(0, 0.98))
side = st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0))


@st.composite
def boxes(draw: st.DrawFn) -> tuple[float, float, float, float]:
    (x1, y1), (w, h) = draw(corner), draw(side)
    return (x1, y1, min(x1 + w, 1.0), min(y1 + h, 1.0))


@st.composite
def texts(draw: st.DrawFn, dialect: str) -> str:
    family = get_dialect(dialect)
    image = draw(st.integers(0, 1))
    box = family.encode(
        draw(boxes()), image_wh=SIZES[image], input_wh=family.input_size(SIZES[image])
    )
    other = draw(st.sampled_from(["", box, "There is no such object.", "(5,5),(1,1)", "[]"]))
    frames = (
        "{box}",
        "<think>{other}</think><answer>{box}</answer>",
        "<think>It is {box}",
        "<answer>{other}",
        "In Image-2: {box}",
        "{other} {box} {other}",
        "Image-1: {other}; Image-2: {box}",
    )
    written = draw(st.sampled_from(frames)).format(box=box, other=other)
    return written if draw(st.integers(0, 9)) else draw(st.text())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_reward_is_the_evaluations_score_of_the_same_text(data: st.DataObject) -> None:
    dialect = data.draw(st.sampled_from(DIALECTS))
    text = data.draw(texts(dialect))
    true = data.draw(st.one_of(st.none(), boxes()))
    image, given_image = data.draw(st.integers(0, 1)), data.draw(st.booleans())
    sample = make_sample(
        images=("a.png", "b.png"),
        widths=tuple(w for w, _ in SIZES),
        heights=tuple(h for _, h in SIZES),
        targets=() if true is None else (Target(image, true),),
        image_is_given=given_image,
        given_image=image if given_image else None,
    )
    score = score_sample(sample, text, dialect)
    expected = score.iou if true is not None else float(score.status == "none")
    found = accuracy(
        text,
        solution=None if true is None else list(true),
        dialect=dialect,
        image_sizes=[list(size) for size in SIZES],
        target_image=image if given_image else None,
    )
    assert found == expected


def test_batches_of_several_dialects_keep_their_order() -> None:
    pixels = row(dialect="qwen2_5_vl", image_sizes=[[560, 560]])
    rows = [row(), pixels, row(), row(dialect="qwen3_vl")]
    answers = [HALF, '{"bbox_2d": [56, 112, 280, 336]}', "?", '{"bbox_2d": [100, 200, 500, 600]}']
    assert reward(0, answers, rows) == pytest.approx([0.5, 1.0, 0.0, 1.0])


def test_pixel_limits_of_the_run_count() -> None:
    # 1000x1000 shrinks to 280x280 under a limit of 280 * 280 pixels, so that is the answer's scale.
    text, limits = '{"bbox_2d": [28, 56, 140, 168]}', {"max_pixels": 280 * 280}
    sizes = [[1000, 1000]]
    assert accuracy(text, limits, dialect="qwen2_5_vl", image_sizes=sizes) == pytest.approx(1.0)
    assert accuracy(text, dialect="qwen2_5_vl", image_sizes=sizes) < 0.1
    given_sizes = {"image_sizes": sizes, "input_sizes": [[280, 280]]}
    assert accuracy(text, dialect="qwen2_5_vl", **given_sizes) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I see a dog.", 0.0),
        ("There is no such object.", 1.0),
        ("<think>(1,2),(3,4)</think><answer>None.</answer>", 1.0),
        ("[]", 1.0),
        (HIT, 0.0),
        ("", 0.0),
        ("(0,0),(0,0)", 0.0),
    ],
)
def test_without_a_true_object_only_an_explicit_none_is_right(text: str, expected: float) -> None:
    assert accuracy(text, solution=None) == expected


def test_unreadable_is_no_zero_box() -> None:
    """A target at the corner would overlap a box of zeros that is drawn with inclusive corners."""
    for text in ("no idea", "(0,0),(0,0)", "<think>(0,0),(2,2)"):
        assert accuracy(text, solution=[0.0, 0.0, 0.002, 0.002]) == 0.0


# --- options, off by default --------------------------------------------------------------------


def test_threshold() -> None:
    assert accuracy(HALF) == pytest.approx(0.5)
    assert accuracy(HALF, {"threshold": 0.5}) == 1.0
    assert accuracy(HALF, {"threshold": 0.51}) == 0.0
    assert accuracy("none", {"threshold": 0.5}, solution=None) == 1.0


def test_diou_shaping_prefers_the_nearer_of_two_misses() -> None:
    near, far = "(500,200),(900,600)", "(600,600),(1000,1000)"
    assert accuracy(near) == accuracy(far) == 0.0
    shaped = {"shaping": "diou"}
    # Centres (0.3, 0.4) and (0.7, 0.4), around both (0.1, 0.2, 0.9, 0.6): 0.16 / 0.8.
    assert accuracy(near, shaped) == pytest.approx((1 - 0.16 / 0.8) / 2)
    assert accuracy(near, shaped) > accuracy(far, shaped) > accuracy("?", shaped) == 0.0
    assert accuracy(HIT, shaped) == pytest.approx(1.0)
    assert accuracy("none", shaped, solution=None) == 1.0


def test_length_term() -> None:
    found = reward(2, ["x" * n for n in (3, 10, 15, 40)], [row()] * 4, length=(10, 20))
    assert found == [0.0, 0.0, -0.5, -1.0]
    names = ["accuracy_reward", "format_reward", "length_reward"]  # in TRL's logs
    assert [function.__name__ for function in make_rewards(length=(1, 2))] == names
    assert [function.__name__ for function in make_rewards()] == names[:2]
    with pytest.raises(UserError, match="got no completion_ids"):
        make_rewards(length=(1, 2))[2](completions=["x"])


# --- format -------------------------------------------------------------------------------------

REASONED = f"<think>The left one.</think><answer>{HIT}</answer>"


@pytest.mark.parametrize(
    ("text", "think", "direct"),
    [
        (REASONED, 1, 0),
        (f"<think>\nThe left\none.\n</think>\n\n<answer>\n{HIT}\n</answer>\n", 1, 0),
        (f"<think>It is {HALF}, no.</think><answer>{HIT}</answer>", 1, 0),
        ("<think>Nowhere.</think><answer>None.</answer>", 1, 0),
        (HIT, 0, 1),
        (f"<|box_start|>{HIT}<|box_end|>", 0, 1),
        (f"<answer>{HIT}</answer>", 0, 1),
        ("There is no such object.", 0, 1),
        (f"<answer>{HIT}", 0, 0),
        (f"Well. {REASONED}", 0, 0),
        (f"{REASONED} {HIT}", 0, 0),
        (f"<think> </think><answer>{HIT}</answer>", 0, 0),
        (f"<think>a</think><think>b</think><answer>{HIT}</answer>", 0, 0),
        (f"<think>a</think><answer>{HALF}</answer><answer>{HIT}</answer>", 0, 0),
        (f"<think>a</think><answer>{HALF} or {HIT}</answer>", 0, 0),
        ("<think>a</think><answer>left</answer>", 0, 0),
        ("", 0, 0),
    ],
)
def test_format(text: str, think: int, direct: int) -> None:
    assert form(text) == think
    assert form(text, single_image=True) == direct
    assert form(text, {"style": "think"}, single_image=True) == think
    assert form(text, {"style": "direct"}) == direct


def test_format_is_decided_for_each_row() -> None:
    rows = [row(single_image=True), row(), row(), row(single_image=True)]
    assert reward(1, [HIT, HIT, REASONED, REASONED], rows) == [1.0, 0.0, 1.0, 0.0]
    # A column style says it outright, also of several images that are to be answered directly.
    rows = [row(style=style) for style in ("direct", "think", "think", "direct")]
    assert reward(1, [HIT, HIT, REASONED, REASONED], rows) == [1.0, 0.0, 1.0, 0.0]
    assert reward(1, [HIT, f"{HIT}?", REASONED, REASONED], rows, **R1) == [1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialects_own_form_has_the_direct_format(name: str) -> None:
    family = get_dialect(name)
    wh = SIZES[0]
    text = family.encode((0.1, 0.2, 0.5, 0.6), image_wh=wh, input_wh=family.input_size(wh))
    assert form(text, dialect=name, single_image=True) == 1.0
    assert form(f"<think>There.</think><answer>{text}</answer>", dialect=name) == 1.0


# --- the released functions ---------------------------------------------------------------------


def pixel_inclusive(box: tuple[int, ...], true: tuple[int, ...]) -> float:
    """The overlap of the release by counting: unit cells in both boxes, by the cells in either.

    Where the common part is one cell wide or high, or less, the release counts none of it.
    """
    width = min(box[2], true[2]) - max(box[0], true[0])
    height = min(box[3], true[3]) - max(box[1], true[1])
    common = width * height if width > 1 and height > 1 else 0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, true)]
    return common / (sum(areas) - common)


@st.composite
def small_boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    x1, y1 = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    return (x1, y1, x1 + draw(st.integers(1, 5)), y1 + draw(st.integers(1, 5)))


R1 = {"rule": "univg-r1"}


@given(small_boxes(), small_boxes())
def test_released_accuracy_is_pixel_inclusive(
    box: tuple[int, int, int, int], true: tuple[int, int, int, int]
) -> None:
    text = "<answer>({},{}),({},{})</answer>".format(*box)
    found = accuracy(text, R1, solution=[value / 1000 for value in true])
    assert found == pytest.approx(pixel_inclusive(box, true), abs=1e-12)


@pytest.mark.parametrize(
    ("text", "think", "direct"),
    [
        (f"<answer>{HALF}</answer>", 0.5, 0.5),
        # Its thinking does not count, but in a direct row the first pair of the text does.
        (f"<think>{HIT}</think><answer>{HALF}</answer>", 0.5, 1.0),
        # The first answer and its first box.
        (f"<answer>{HALF}</answer><answer>{HIT}</answer>", 0.5, 0.5),
        ("<answer>(100, 200),  (500, 400)</answer>", 0.5, 0.5),
        # No space before a comma or inside the brackets, no decimals, no other brackets.
        ("<answer>( 100,200),(500,400)</answer>", 0.0, 0.0),
        ("<answer>(100.0,200),(500,400)</answer>", 0.0, 0.0),
        ("<answer>[100,200,500,400]</answer>", 0.0, 0.0),
        (HALF, 0.0, 0.5),
        (f"<answer>{HALF}", 0.0, 0.5),
        # Inverted, and far beyond a float.
        ("<answer>(500,400),(100,200)</answer>", 0.0, 0.0),
        (f"<answer>(0,0),({'9' * 400},{'9' * 400})</answer>", 0.0, 0.0),
        (f"<answer>(0,0),({'9' * 5000},9)</answer>", 0.0, 0.0),
    ],
)
def test_released_accuracy(text: str, think: float, direct: float) -> None:
    assert accuracy(text, R1) == pytest.approx(think)
    assert accuracy(text, R1, single_image=True) == pytest.approx(direct)


@pytest.mark.parametrize(
    ("text", "think", "direct"),
    [
        (REASONED, 1, 1),
        (f"Well. {REASONED}\n", 1, 1),
        (f"<think>a</think><answer> {HIT}</answer>", 0, 1),
        (f"it is at {HIT}!", 0, 1),
        ("<think>a</think><answer>left</answer>", 0, 0),
    ],
)
def test_released_format(text: str, think: int, direct: int) -> None:
    assert form(text, R1) == think
    assert form(text, R1, single_image=True) == direct


_PIECES = ("<think>", "</think>", "<answer>", "</answer>", HIT, HALF, "\n", " ", "a")
# The released patterns (qwen_module.py), tried as they stand.
_RELEASED_PAIR = r"\((\d+),\s*(\d+)\),\s*\((\d+),\s*(\d+)\)"
_RELEASED_FORM = rf"<think>.*?</think>\s*<answer>{_RELEASED_PAIR}</answer>$"


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(_PIECES), max_size=8).map("".join),
    st.sampled_from(["", f"<think>a</think> <answer>{HIT}</answer>", f"<answer>{HALF}</answer>"]),
    st.sampled_from(["", "\n", "\n\n", "a"]),
)
def test_one_pass_finds_what_the_released_patterns_find(start: str, end: str, after: str) -> None:
    text = start + end + after
    assert form(text, R1) == (re.search(_RELEASED_FORM, text, re.DOTALL) is not None)
    section = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    pair = section and re.search(_RELEASED_PAIR, section[1])
    expected = {HIT: 1.0, HALF: 0.5}[pair[0]] if pair else 0.0
    assert accuracy(text, R1) == pytest.approx(expected)


def test_a_box_one_unit_wide_earns_nothing_in_the_release() -> None:
    text = "<answer>(100,200),(101,600)</answer>"
    assert accuracy(text, R1, solution=[0.1, 0.2, 0.101, 0.6]) == 0.0
    assert accuracy(text, solution=[0.1, 0.2, 0.101, 0.6]) == pytest.approx(1.0)


# --- what TRL hands over ------------------------------------------------------------------------


THOUGHT = {"reasoning_content": "The left one.", "content": f"<answer>{HIT}</answer>"}


@pytest.mark.parametrize(
    "completion",
    [
        REASONED,
        [{"role": "assistant", "content": REASONED}],
        [{"role": "assistant", "content": [{"type": "text", "text": REASONED}]}],
        [{"role": "assistant", **THOUGHT}],
    ],
)
def test_plain_and_conversational_completions(completion: Any) -> None:
    assert completion_text(completion) == REASONED
    assert accuracy(completion) == pytest.approx(1.0)
    assert form(completion) == 1.0


@pytest.mark.parametrize("completion", [None, [], [{"role": "assistant"}], 3])
def test_other_completions_are_refused(completion: Any) -> None:
    with pytest.raises(UserError, match="expected a text or a list of messages"):
        completion_text(completion)


# --- bad input, before training -----------------------------------------------------------------


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in row().items() if key != name}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (without("solution"), "column 'solution' is missing"),
        (without("dialect"), "column 'dialect' is missing"),
        (without("single_image"), "column 'single_image' is missing"),
        (row(dialect="qwen9_vl"), "unknown dialect 'qwen9_vl'; did you mean 'qwen_vl'"),
        (row(dialect=None), "dialect is None; expected a name"),
        (row(dialect="molmo"), "'molmo' gives points, not boxes"),
        (row(style="brief"), "style is 'brief'; expected think or direct"),
        (row(single_image="yes"), "single_image is 'yes'; expected True or False"),
        (row(solution=[0.5, 0.2, 0.1, 0.6]), "expected 0 <= x1 < x2 <= 1"),
        (row(solution=[0.1, 0.2, float("nan"), 0.6]), "expected 0 <= x1 < x2 <= 1"),
        (row(solution="left"), r"expected \[x1, y1, x2, y2\], or None"),
        (row(solution=[0.1, 0.2, 0.5]), r"expected \[x1, y1, x2, y2\], or None"),
        (row(dialect="qwen2_5_vl"), "the row needs image_sizes or input_sizes"),
        (row(dialect="pixels"), "the row needs image_sizes"),
        (row(image_sizes=[[0, 5]]), r"image_sizes is \[\[0, 5\]\]; expected \[width, height\]"),
        (row(image_sizes=[[9, 5]], input_sizes=[[9, 5]] * 2), "1 image_sizes but 2 input_sizes"),
        (row(image_sizes=[[9, 5]], target_image=1), "target_image is 1; expected 0 to 0, or None"),
        (row(target_image=-1), "target_image is -1"),
    ],
)
def test_bad_rows_are_reported_before_training(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"1 of 2 rows cannot be rewarded.*\n  row 1: .*{message}"):
        check_rows([row(), bad], make_rewards())
    with pytest.raises(UserError, match=message):  # and where it is met unchecked
        for function in make_rewards():
            function(completions=[HIT], **{name: [value] for name, value in bad.items()})


def test_bad_rows_are_counted_and_the_first_are_named() -> None:
    rows = [row()] * 3 + [row(dialect="?")] * 9
    with pytest.raises(UserError) as caught:
        check_rows(rows, make_rewards(), shown=2)
    first, *named, last = str(caught.value).split("\n")
    assert first.startswith("the training data: 9 of 12 rows cannot be rewarded")
    assert [line[:8] for line in named] == ["  row 3:", "  row 4:"]
    assert last == "  and 7 more"


def test_good_rows_are_counted() -> None:
    rows = [row(), row(solution=None), row(dialect="pixels", image_sizes=[[9, 9]])]
    assert check_rows(rows, [*make_rewards(), lambda completions, **_: [0.0]]) == 3
    with pytest.raises(UserError, match="the training data has no rows"):
        check_rows([], make_rewards())


def test_the_released_rule_needs_a_true_object_but_no_dialect() -> None:
    assert check_rows([{"solution": BOX, "single_image": False}], make_rewards(**R1)) == 1
    assert check_rows([{"solution": BOX}], make_rewards(**R1, style="think")) == 1
    with pytest.raises(UserError, match="without a true object"):
        check_rows([row(solution=None)], make_rewards(**R1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "vlm"}, "unknown reward rule 'vlm'; expected one of: univg, univg-r1"),
        ({"style": "brief"}, "unknown style 'brief'; expected think or direct"),
        ({"threshold": 0.0}, "threshold is 0.0; expected an IoU above 0"),
        ({"shaping": "giou"}, "unknown shaping 'giou'; expected diou or None"),
        ({"threshold": 0.5, "shaping": "diou"}, "exclude each other"),
        ({"length": (20, 20)}, r"length is \(20, 20\); expected 0 <= free < limit"),
        ({"min_pixels": 900, "max_pixels": 100}, "expected min_pixels <= max_pixels"),
        ({"rule": "univg-r1", "threshold": 0.5}, "has no threshold, shaping or pixel limits"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_rewards(**options)


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # DIoU = IoU - (gap / diagonal)^2 around both, by hand; BOX is (0.1, 0.2, 0.5, 0.6).
        # To the right by 0.4: no overlap, gap 0.4, around them 0.8 x 0.4.
        ("(500,200),(900,600)", (1 - 0.16 / 0.80) / 2),
        # Down by 0.4: the same turned.
        ("(100,600),(500,1000)", (1 - 0.16 / 0.80) / 2),
        # Its upper half: IoU 1 / 2, gap 0.1, around them 0.4 x 0.4.
        (HALF, (1 + 0.5 - 0.01 / 0.32) / 2),
        # To the left and up by 0.1: IoU 0.09 / 0.23, gap sqrt(0.02), around them 0.5 x 0.5.
        ("(0,100),(400,500)", (1 + 0.09 / 0.23 - 0.02 / 0.50) / 2),
        # A large one around it from (0, 0) to (0.9, 0.7): IoU 0.16 / 0.63, gap (0.15, -0.05).
        ("(0,0),(900,700)", (1 + 0.16 / 0.63 - 0.025 / (0.81 + 0.49)) / 2),
        (HIT, 1.0),
    ],
)
def test_diou_by_hand(text: str, expected: float) -> None:
    assert accuracy(text, {"shaping": "diou"}) == pytest.approx(expected)


@pytest.mark.parametrize(("threshold", "fits"), [(1.0, True), (1, True), (1.5, False), (0, False)])
def test_a_threshold_is_an_iou(threshold: float, fits: bool) -> None:
    if fits:
        assert accuracy(HIT, {"threshold": threshold}) == 1.0
        assert accuracy(HALF, {"threshold": threshold}) == 0.0
    else:
        with pytest.raises(UserError, match="expected an IoU above 0 and up to 1"):
            make_rewards(threshold=threshold)


def test_three_targets_are_rewarded_as_two() -> None:
    reward_of = make_rewards()[0]
    names = [reward_of.metric_of(n) for n in (0, 1, 2, 3, 9)]
    assert names == ["no_target_acc", "miou", "matched_iou", "matched_iou", "matched_iou"]


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        (HIT, 1.0),
        (f"{HIT}, {HALF}", 0.0),  # one unit of two boxes
        (f"{HIT} or rather {HALF}", 0.0),
        ("There is none.", 1.0),
        ("I am not sure.", 0.0),
    ],
)
def test_the_form_has_one_box_or_a_none(answer: str, fits: float) -> None:
    assert form(f"<think>It is there.</think><answer>{answer}</answer>") == fits


@pytest.mark.parametrize(
    ("size", "message"), [([1, 1], None), ([0, 5], "pixels of each image"), ([5], "pixels of each")]
)
def test_a_size_is_at_least_one_pixel(size: list[int], message: str | None) -> None:
    rows = [row(image_sizes=[size])]
    if message is None:
        assert check_rows(rows, make_rewards()) == 1
    else:
        with pytest.raises(UserError, match=message):
            check_rows(rows, make_rewards())


@pytest.mark.parametrize(("n", "more"), [(5, None), (6, "and 1 more"), (9, "and 4 more")])
def test_five_bad_rows_are_named_and_the_others_counted(n: int, more: str | None) -> None:
    with pytest.raises(UserError) as raised:
        check_rows([row(solution=[1, 2]) for _ in range(n)], make_rewards())
    text = str(raised.value)
    assert text.count("row ") == min(n, 5)
    assert (more in text) if more else ("more" not in text)


def test_a_row_without_columns_has_none() -> None:
    with pytest.raises(UserError, match=r"column 'solution' is missing \(there are none\)"):
        check_rows([{}], make_rewards())


def test_targets_without_an_image_lie_on_the_one_that_the_question_names() -> None:
    targets = [{"image": None, "box": BOX}, {"image": None, "box": [0.6, 0.6, 0.9, 0.9]}]
    right = "(100,200),(500,600), (600,600),(900,900)"
    for image in (0, 1):
        value = accuracy(right, solution=None, targets=targets, target_image=image)
        assert value == pytest.approx(1.0)
    named = f"Image 2: {right}"
    on_second = {"solution": None, "targets": [t | {"image": 1} for t in targets]}
    assert accuracy(named, image_is_given=False, **on_second) == pytest.approx(1.0)
    on_first = {"solution": None, "targets": [t | {"image": 0} for t in targets]}
    assert accuracy(named, image_is_given=False, **on_first) == 0.0


@pytest.mark.parametrize(
    ("free", "limit", "fits"), [(0, 1, True), (0, 0, False), (-1, 5, False), (5, 5, False)]
)
def test_a_length_is_free_up_to_a_limit(free: int, limit: int, fits: bool) -> None:
    if fits:
        assert LengthReward(free, limit).free == 0
    else:
        with pytest.raises(UserError, match="expected 0 <= free < limit"):
            LengthReward(free, limit)


def test_where_a_row_has_a_solution_its_other_targets_do_not_make_it_a_set() -> None:
    targets = [{"image": 0, "box": BOX}, {"image": 0, "box": [0.6, 0.6, 0.9, 0.9]}]
    both = f"<think>There.</think><answer>{HIT}, (600,600),(900,900)</answer>"
    assert form(both, targets=targets) == 0.0, "one box is asked for"
    assert form(both, solution=None, targets=targets, target_image=0) == 1.0
    assert accuracy(both, targets=targets) == pytest.approx(1.0), "the first box of the unit"
