"""Scoring rules: every expected value below is worked out by hand from the rule's description."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.protocols import PROTOCOLS, get_protocol, list_protocols, parse_answer

PUBLISHED = [name for name in PROTOCOLS if name != "univg"]
ZEROS = (0.0, 0.0, 0.0, 0.0)


def read(text: str, protocol: str, prompt: str | None = ""):
    return parse_answer(text, None, protocol=protocol, prompt=prompt)


# --- univg-r1: six patterns in order over the whole response; one match: it; several: the last is
# dropped and the first of the rest taken; int() on every number; nothing read: [0, 0, 0, 0].

UNIVG_R1 = [
    # (response, box on 0-1000 as the rule scores it, or None for its zeros; why)
    ("<think>a dog</think><answer>(100,200),(300,400)</answer>", (100, 200, 300, 400), "one match"),
    (
        "<think>at (10,20),(30,40)</think><answer>(100,200),(300,400)</answer>",
        (10, 20, 30, 40),
        "two matches: the answer's is the last and dropped, the one in the thinking is taken",
    ),
    ("(1,2),(3,4) (5,6),(7,8) (9,10),(11,12)", (1, 2, 3, 4), "first of the first two"),
    (
        "[100, 200, 300, 400], that is (5,6),(7,8)",
        (5, 6, 7, 8),
        "pattern 1 stands before pattern 5, though later in the text",
    ),
    ("(12, 34), (56, 78)", (12, 34, 56, 78), "a space after each comma is allowed"),
    ("(12 ,34),(56,78)", None, "a space before a comma is not in pattern 1"),
    ("(12,34) (56,78)", None, "the comma between the pairs is part of pattern 1"),
    ("(12,34),(56,78.5)", None, "pattern 1 wants integers, pattern 3 four decimals"),
    ("(-12,34),(56,78)", None, "no pattern has a sign"),
    ("[0.1, 0.2, 0.3, 0.4]", None, "pattern 2 matches, int('0.1') fails"),
    ("(0.1,0.2),(0.3,0.4)", None, "pattern 3 matches, int('0.1') fails"),
    ("(0.1, 0.2, 0.3, 0.4)", None, "pattern 4 matches, int('0.1') fails"),
    (
        "[0.5, 0.5, 0.6, 0.6] then [100, 200, 300, 400]",
        None,
        "the decimals of pattern 2 hide the integers of pattern 5",
    ),
    (
        "[0.5, 0.5, 0.6, 0.6] then (100,200),(300,400)",
        (100, 200, 300, 400),
        "but not those of pattern 1",
    ),
    ("[100, 200, 300, 400]", (100, 200, 300, 400), "pattern 5"),
    ('{"bbox_2d": [10, 20, 30, 40]}', (10, 20, 30, 40), "pattern 5 inside JSON"),
    ("(10,20,30,40)", None, "four integers in round brackets are in no pattern"),
    ("<box>826 704 993 984</box>", (826, 704, 993, 984), "pattern 6"),
    ("(0,0),(1500,1200)", (0, 0, 1500, 1200), "reaches outside and is not clipped"),
    ("There is no such object.", None, "no match: [][0] fails"),
    ("(١٠,٢٠),(٣٠,٤٠)", (10, 20, 30, 40), "Python's \\d and int() read digits of every script"),
    ("(" + "9" * 5000 + ",1),(2,3)", None, "int() refuses more than 4300 digits"),
    (
        "(1,2),(3,4) (" + "9" * 5000 + ",1),(2,3)",
        (1, 2, 3, 4),
        "the one that int() refuses is last, so it is dropped before int()",
    ),
    (
        "(1,2),(3,4) (" + "9" * 5000 + ",1),(2,3) (5,6),(7,8)",
        None,
        "here it is kept; all kept matches are converted before the first is taken",
    ),
]


@pytest.mark.parametrize(("text", "box_1000", "why"), UNIVG_R1)
def test_univg_r1_reads(text, box_1000, why):
    answer = read(text, "univg-r1")
    if box_1000 is None:
        assert (answer.box, answer.status) == (ZEROS, "no_box"), why
    else:
        assert answer.box == tuple(v / 1000 for v in box_1000), why
        assert answer.status == "ok", why


def test_a_box_of_univg_r1_that_is_none_hits_nothing():
    answer = read("(500,500),(100,100)", "univg-r1")
    assert (answer.box, answer.status) == ((0.5, 0.5, 0.1, 0.1), "invalid_box")
    boxes, targets = [answer.box, ZEROS, ZEROS], [(0.1, 0.1, 0.5, 0.5), (0, 0, 0.5, 0.5), ZEROS]
    assert get_protocol("univg-r1").iou(boxes, targets).tolist() == [0.0, 0.0, 0.0]
    # 10^400 converts with int() but its box has an area beyond any float: IoU 0.
    answer = read("(0,0),(1" + "0" * 400 + ",1000)", "univg-r1")
    assert (answer.box, answer.status) == (None, "invalid_box")


# --- migician: float(); one match: v >= 1 is divided by 1000; several: v > 1, first match; none:
# an empty list.

MIGICIAN = [
    ("(100,200),(300,400)", (0.1, 0.2, 0.3, 0.4), "integers"),
    ("[0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4), "0-1 decimals stay"),
    ("[0.25, 0.25, 1.0, 0.75]", (0.25, 0.25, 0.001, 0.75), "one match: 1.0 >= 1"),
    (
        "[0.25, 0.25, 1.0, 0.75] [0.1, 0.1, 0.2, 0.2]",
        (0.25, 0.25, 1.0, 0.75),
        "several matches: 1.0 is not > 1",
    ),
    ("(0,0),(1,1)", (0.0, 0.0, 0.001, 0.001), "one match: 1 >= 1"),
    ("(0,0),(1,1) (2,3),(4,5)", (0.0, 0.0, 1.0, 1.0), "several matches: 1 is not > 1"),
    ("(0.5,0.5),(500.0,600.0)", (0.5, 0.5, 0.5, 0.6), "each value is scaled by itself"),
    ("(0.1, 0.2, 0.3, 0.4)", (0.1, 0.2, 0.3, 0.4), "pattern 4"),
    ("<box>826 704 993 984</box>", (0.826, 0.704, 0.993, 0.984), "pattern 6"),
    (
        "<think>(10,20),(30,40)</think>(100,200),(300,400)",
        (0.01, 0.02, 0.03, 0.04),
        "the thinking's box is the first match",
    ),
    ("no box here", None, "an empty list"),
    ("(0.1, 0.2),(0.3, 0.4)", None, "pattern 3 has no space inside the pairs"),
]


@pytest.mark.parametrize(("text", "box", "why"), MIGICIAN)
def test_migician_reads(text, box, why):
    answer = read(text, "migician")
    assert answer.box == box, why
    assert (answer.status == "no_box") == (box is None), why


# --- migician+y and univg-r1+migician-y: y1 * 1.05 and y2 * 1.10 on y / 1000, capped at 0.999,
# three decimals; by the former where there is a single match.

STRETCHED = [
    # y1: 0.200 * 1.05 = 0.210; y2: 0.400 * 1.10 = 0.440
    ("univg-r1+migician-y", "(100,200),(300,400)", (0.1, 0.21, 0.3, 0.44)),
    ("migician+y", "(100,200),(300,400)", (0.1, 0.21, 0.3, 0.44)),
    # y1: 0.123 * 1.05 = 0.12915 -> 0.129; y2: 0.457 * 1.10 = 0.5027 -> 0.503
    ("univg-r1+migician-y", "(100,123),(300,457)", (0.1, 0.129, 0.3, 0.503)),
    ("migician+y", "[0.1, 0.123, 0.3, 0.457]", (0.1, 0.129, 0.3, 0.503)),
    # y1: 0.960 * 1.05 = 1.008 -> 0.999; y2: 0.990 * 1.10 = 1.089 -> 0.999: the box is empty
    ("univg-r1+migician-y", "(100,960),(300,990)", (0.1, 0.999, 0.3, 0.999)),
    # x is neither stretched nor capped; y1: 0; y2: 0.950 * 1.10 = 1.045 -> 0.999
    ("univg-r1+migician-y", "(0,0),(1200,950)", (0.0, 0.0, 1.2, 0.999)),
    # 1.0 has become 0.001 before the stretch: 0.0011 -> 0.001
    ("migician+y", "[0.1, 0.0, 0.3, 1.0]", (0.1, 0.0, 0.3, 0.001)),
    # several matches: univg-r1 has chosen one box before the stretch; for migician a list times
    # 1.05 fails, the failure is swallowed, nothing changes
    ("univg-r1+migician-y", "(100,200),(300,400) or (5,6),(7,8)", (0.1, 0.21, 0.3, 0.44)),
    ("migician+y", "(100,200),(300,400) (5,6),(7,8)", (0.1, 0.2, 0.3, 0.4)),
    # decimals give zeros, and zeros stretched stay zeros
    ("univg-r1+migician-y", "[0.1, 0.2, 0.3, 0.4]", ZEROS),
    ("migician+y", "nothing", None),
]


@pytest.mark.parametrize(("protocol", "text", "box"), STRETCHED)
def test_y_is_stretched_for_migician(protocol, text, box):
    expected = None if box is None else pytest.approx(box, abs=1e-12)
    assert read(text, protocol).box == expected


# --- univg-r1-zero-shot: first pair of prompt + response, / 1000.

ZERO_SHOT = [
    ("Find the cup.", "<answer>(100,200),(300,400)</answer>", (0.1, 0.2, 0.3, 0.4), "response"),
    (
        "Follow the object at (216,326),(304,453).",
        "<answer>(100,200),(300,400)</answer>",
        (0.216, 0.326, 0.304, 0.453),
        "the box in the prompt comes first",
    ),
    (
        "Answer like (1,2),(3,4).",
        "I cannot see it.",
        (0.001, 0.002, 0.003, 0.004),
        "an example in the prompt answers for the model",
    ),
    (
        "Find the cup.",
        "<think>(1,2),(3,4)?</think><answer>(100,200),(300,400)</answer>",
        (0.001, 0.002, 0.003, 0.004),
        "the first pair is in the thinking",
    ),
    ("", "( 100 , 200 ) , ( 300 , 400 )", (0.1, 0.2, 0.3, 0.4), "spaces everywhere"),
    ("", "[100, 200, 300, 400]", None, "no other form is read"),
    ("", "(0.1,0.2),(0.3,0.4)", None, "integers only"),
    ("The pair (1,2),", "(3,4) is a box.", None, "no pair spans prompt and response"),
    ("", "", None, "no pair: the exception scores 0"),
    ("", "(1" + "0" * 400 + ",1),(2,3)", None, "1e400 / 1000 overflows: the exception scores 0"),
]


@pytest.mark.parametrize(("prompt", "text", "box", "why"), ZERO_SHOT)
def test_zero_shot_reads_the_prompt_first(prompt, text, box, why):
    answer = read(text, "univg-r1-zero-shot", prompt)
    assert answer.box == box, why
    assert (answer.status == "no_box") == (box is None), why


# --- IoU of the rules


def test_iou_scales_and_epsilon():
    # Two identical boxes of one thousandth a side: area 1e-6 on 0-1, so with 1e-6 added to the
    # union the zero-shot rule gives 1e-6 / 2e-6 = 0.5; the others give 1.
    box = [(0.5, 0.5, 0.501, 0.501)]
    for name, rule in PROTOCOLS.items():
        expected = 0.5 if name == "univg-r1-zero-shot" else 1.0
        assert rule.iou(box, box)[0] == pytest.approx(expected, abs=1e-9)
    # The left half of the ground truth: 40000 / 80000 = 1/2 exactly on 0-1000, where univg-r1
    # computes; on 0-1 the same arithmetic gives 0.4999999999999999.
    assert get_protocol("univg-r1").iou([(0.1, 0.1, 0.3, 0.3)], [(0.1, 0.1, 0.5, 0.3)])[0] == 0.5


# --- The registry and its errors


def test_the_registry():
    assert list_protocols() == [
        "univg",
        "univg-r1",
        "univg-r1+migician-y",
        "migician",
        "migician+y",
        "univg-r1-zero-shot",
    ]
    for name in list_protocols():
        rule = get_protocol(name)
        assert rule.name == name
        assert rule.needs_dialect == (name == "univg")
        assert rule.reads_image == (name == "univg")
        assert rule.on_all_rows == (name != "univg")
        assert rule.needs_prompt == (name == "univg-r1-zero-shot")
        assert rule.description and rule.source


@pytest.mark.parametrize(
    ("dialect", "protocol", "message"),
    [
        ("norm1000", "paper", "'paper'; expected one of: univg, univg"),
        (None, "univg", "needs a dialect and got None"),
        ("no_such_dialect", "univg", "no_such_dialect"),
        (None, "univg-r1-zero-shot", r"needs prompt= and got None"),
    ],
)
def test_what_a_rule_lacks_is_named(dialect, protocol, message):
    with pytest.raises(UserError, match=message):
        parse_answer("(1,2),(3,4)", dialect, protocol=protocol)


@pytest.mark.parametrize("protocol", PUBLISHED)
def test_published_rules_ignore_the_dialect(protocol):
    text = "It's in the second image. (100,200),(300,400)"
    plain = read(text, protocol)
    sizes = {"image_sizes": [(640, 480)] * 2, "input_sizes": [(644, 476)] * 2, "target_image": 1}
    assert parse_answer(text, "qwen2_5_vl", **sizes, prompt="", protocol=protocol) == plain
    assert (plain.image_index, plain.answer_text) == (None, text)


def test_univg_is_read_answer_in_the_dialect():
    # 500 px of a 1000 px wide input is 0.5; both images are labelled, the second is the given one.
    text = "<think>[1, 2, 3, 4]</think>Image-1: [0, 0, 100, 100]\nImage-2: [500, 250, 1000, 500]"
    given = {"image_sizes": [(1000, 500)] * 2, "target_image": 1}
    expected = read_answer(text, get_dialect("pixels"), **given)
    assert expected.box == pytest.approx((0.5, 0.5, 1.0, 1.0))
    assert parse_answer(text, "pixels", **given) == expected
    assert parse_answer(text, get_dialect("pixels"), **given) == expected


# --- Properties

FORMS = (
    ("({}, {}), ({}, {})", False),
    ("[{}, {}, {}, {}]", True),
    ("({},{}),({},{})", True),
    ("({}, {}, {}, {})", True),
    ("[{}, {}, {}, {}]", False),
    ("<box>{} {} {} {}</box>", False),
)
NUMBERS = st.tuples(*[st.integers(0, 1000)] * 4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), NUMBERS), max_size=6))
def test_the_cascade_on_generated_responses(parts):
    """The expected box comes from the list the text is made of, not from the text."""
    text = " and ".join(
        FORMS[form][0].format(*(f"{n / 1000:.3f}" if FORMS[form][1] else n for n in numbers))
        for form, numbers in parts
    )
    winners = [numbers for form, numbers in parts if form == min(form for form, _ in parts)]
    decimal = bool(parts) and FORMS[min(form for form, _ in parts)][1]

    univg_r1 = read(text, "univg-r1")
    assert univg_r1.n_boxes == len(winners)
    if not winners or decimal:
        assert univg_r1.box == ZEROS
    else:
        assert univg_r1.box == tuple(n / 1000 for n in winners[0])

    migician = read(text, "migician")
    if not winners:
        assert migician.box is None
        return
    threshold = math.nextafter(1.0, 0.0) if len(winners) == 1 else 1.0
    values = [n / 1000 if decimal else float(n) for n in winners[0]]
    assert migician.box == tuple(v / 1000 if v > threshold else v for v in values)
    stretched = read(text, "migician+y").box
    if len(winners) > 1:
        assert stretched == migician.box
    else:
        assert stretched[1] == round(min(migician.box[1] * 1.05, 0.999), 3)
        assert stretched[3] == round(min(migician.box[3] * 1.10, 0.999), 3)


BOX_LIKE = st.text(alphabet="()[]<>/box,. -0123456789\n٣\x00", max_size=200)


@settings(max_examples=200, deadline=None)
@given(st.one_of(BOX_LIKE, st.text(max_size=200)), st.sampled_from(PUBLISHED))
def test_no_string_makes_a_rule_raise(text, protocol):
    answer = read(text, protocol, prompt=text)
    assert answer.status in ("ok", "no_box", "invalid_box")
    assert answer.boxes == ((answer.box,) if answer.status == "ok" else ())
    assert len(answer.box_images) == len(answer.boxes)
    if answer.status == "ok":
        # Beyond 1e150 an area overflows a float; such a box overlaps nothing measurable.
        assert get_protocol(protocol).iou(answer.box, answer.box) > 0 or max(answer.box) > 1e150
    elif answer.box is not None:
        assert get_protocol(protocol).iou(answer.box, (0.0, 0.0, 1.0, 1.0)) == 0.0


HOSTILE = {
    "digits": "1" * 1_000_000,
    "one open number": "(" + "1" * 1_000_000,
    "brackets": "(" * 500_000 + "[" * 500_000,
    "half pairs": "(1,2)," * 170_000,
    "open pairs": "(1,(1," * 170_000,
    "spaces": "(1," + " " * 1_000_000,
    "spaced brackets": "( " * 500_000,
    "decimals": "[1.1, 1.1, " * 90_000,
    "points": "[" + "1." * 500_000,
    "box marks": "<box>1 2 3 " * 90_000,
    "many boxes": "(1,2),(3,4)" * 90_000,
    "long numbers": ("(" + "9" * 4000 + ",1),(2,3) ") * 250,
    "null bytes": "\x00" * 1_000_000,
}


@pytest.mark.parametrize("protocol", PUBLISHED)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_megabyte_is_read_in_linear_time(name, protocol):
    start = time.perf_counter()
    read(HOSTILE[name], protocol)
    # Measured well below 0.5 s each; quadratic matching of a megabyte would take hours.
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("protocol", PUBLISHED)
@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("(100,100),(300,300)", "ok"),
        ("(300,100),(100,300)", "invalid_box"),
        ("(100,300),(300,100)", "invalid_box"),
        ("(100,100),(100,300)", "invalid_box"),
        ("(100,0),(300,0)", "invalid_box"),
        ("(200,200),(201,201)", "ok"),
        ("no box", "no_box"),
    ],
)
def test_a_published_rule_keeps_an_inverted_or_empty_box_and_says_that_it_is_invalid(
    protocol: str, text: str, status: str
) -> None:
    answer = parse_answer(text, protocol=protocol, prompt="")
    assert answer.status == status
    assert (answer.boxes, answer.box_images) == (
        ((answer.box,), (None,)) if status == "ok" else ((), ())
    )
    assert answer.n_boxes == answer.n_units == (status != "no_box")
    if status == "invalid_box":
        assert answer.box is not None


def test_versions_of_the_rules() -> None:
    versions = {name: get_protocol(name).version for name in list_protocols()}
    assert versions == {"univg": 2} | dict.fromkeys(PUBLISHED, 1)
