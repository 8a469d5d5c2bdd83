"""The rules that chains of thought are held against, and what is put together from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univg_eval.answers import read_answer
from univg_eval.benchmarks.synthetic.mini import TASKS
from univg_eval.boxes import box_iou
from univg_eval.dialects import get_dialect, list_dialects
from univg_train.cot.prompts import chain_prompt, choice_prompt, prompts_sha256, truth_1000
from univg_train.cot.rows import CotRow
from univg_train.cot.rules import REASONS, assemble, check_chain, read_choice

PROMPTS = "786abf687b400e0baff2f356223a332c8193ca828dbe0aa2b17a8691d8b94209"
BOX = (0.412, 0.305, 0.588, 0.64)
SIZES = [(640, 480), (800, 600)]
PAIR = CotRow(
    id="r",
    images=("a.png", "b.png"),
    question="Find the cup of the first image in the second image.",
    box=BOX,
    target_image=1,
)
SINGLE = replace(PAIR, images=("a.png",), question="Find the cup.", target_image=0)
REGION = replace(
    PAIR,
    question="Find <|box_start|>(100,200),(300,400)<|box_end|> of the first image in the second.",
)
ANSWER = "<answer>[412, 305, 588, 640]</answer>"
GOOD = (
    "The first image shows a white cup with a blue rim beside a plate. The second image has three "
    "cups on a shelf; two are plain, and only the one in the middle has the blue rim. "
    "So the object is in Image 2."
)


def reasons(text: str, row: CotRow = PAIR, finish_reason: str | None = "stop") -> tuple[str, ...]:
    verdict = check_chain(
        text, row, finish_reason=finish_reason, min_words=5, max_words=80, sizes=SIZES
    )
    assert set(verdict.reasons) <= set(REASONS)
    return verdict.reasons


def of_thinking(thinking: str, row: CotRow = PAIR) -> tuple[str, ...]:
    return reasons(f"<think>{thinking}</think>{ANSWER}", row)


# (reply, why, reasons)
REPLIES = [
    (f"<think>{GOOD}</think>{ANSWER}", "as requested", ()),
    (f"\n<think>\n{GOOD}\n</think>\n{ANSWER}\n", "white space", ()),
    (f"<think>\nHm, the user wants…</think>\n<think>{GOOD}</think>{ANSWER}", "own thoughts", ()),
    (f"Hm, the user…</think>\n\n<think>{GOOD}</think>{ANSWER}", "opened by the template", ()),
    (f"<think>{GOOD}</think><answer>(412,305),(588,640)</answer>", "another bracket style", ()),
    (f"<think>{GOOD}</think><answer>[413, 304, 588, 641]</answer>", "rounding", ()),
    (f"<think>{GOOD}</think><answer>[414, 305, 588, 640]</answer>", "two steps off", ()),
    (f"<think>{GOOD}</think><answer>[415, 305, 588, 640]</answer>", "three", ("box_differs",)),
    (f"Sure!\n<think>{GOOD}</think>{ANSWER}", "talk before it", ("format",)),
    (f"<think>{GOOD}</think>{ANSWER} Done.", "talk after it", ("format",)),
    (f"<think>{GOOD}</think>", "no answer", ("format",)),
    (f"{GOOD} {ANSWER}", "no thinking", ("format",)),
    (f"<think> </think>{ANSWER}", "empty thinking", ("format",)),
    (f"<think>{GOOD}</think>{ANSWER}{ANSWER}", "two answers", ("format",)),
    ("", "empty", ("format",)),
    (f"<think>{GOOD}</think><answer>[1, 2, 3, 4]</answer>", "another box", ("box_differs",)),
    (f"<think>{GOOD}</think><answer>in Image 2</answer>", "no box", ("box_differs",)),
    (f"<think>{GOOD}</think><answer></answer>", "nothing", ("box_differs",)),
]


@pytest.mark.parametrize(("text", "why", "expected"), REPLIES, ids=[why for _, why, _ in REPLIES])
def test_form(text: str, why: str, expected: tuple[str, ...]) -> None:
    assert reasons(text) == expected


def test_the_finish_reason_counts() -> None:
    assert reasons(f"<think>{GOOD[:60]}", finish_reason="length") == ("cut_off", "format")
    assert reasons(f"<think>{GOOD}</think>{ANSWER}", finish_reason="length") == ("cut_off",)
    assert reasons("", finish_reason="content_filter") == ("refused",)
    assert reasons(f"<think>{GOOD}</think>{ANSWER}", finish_reason=None) == ()


GIVEAWAYS = (
    "The provided answer says that it is the middle one.",
    "The ground truth shows the middle one.",
    "This agrees with the ground-truth box.",
    "The correct bounding box surrounds the middle one.",
    "As given, it is the middle one.",
    "As provided, it is the middle one.",
    "According to the solution it is the middle one.",
    "That is consistent with the bounding box.",
    "The answer provided points to the middle one.",
    "The box that was given surrounds the middle one.",
    "The bounding box is already known.",
    "The given location is in the middle.",
    "The known solution is the middle one.",
    "I was told that it is the middle one.",
    "I'm given the box of it.",
    "We are given the location of the middle one.",
    "We already know that it is the middle one.",
    "Assuming I do not know the coordinates, I look for it.",
    "Pretending not to know where it is, I look.",
    "I look for it without knowing the coordinates.",
    "I am not supposed to know where it is.",
    "From the coordinates it must be the middle one.",
    "The target coordinates lie in the middle.",
)
HARMLESS = (
    "We are given two images of a kitchen.",
    "I am given a pair of photos and one question.",
    "The given images show a kitchen.",
    "The question gives a description of the cup.",
    "As specified in the question, it is the cup that counts.",
    "In its final position the ball lies under the table.",
    "The cardboard box on the left is too large.",
    "The correct object must have the rim.",
    "The actual cup is hidden in part.",
    "The bottle's label shows a lemon.",
    "The man known from the poster stands behind it.",
    "The object is provided with a handle.",
    "The students stand in front of a board.",
    "The answer must be one of the three cups.",
    "I do not know the brand of the cup.",
    "A bounding box around it would be rather small.",
    "There are 3 cups, 12 plates and 40 books, and bus number 412 passes outside.",
    "The clock shows 10:25, and the sign reads 50% off.",
    "It is in the 2nd row.",
    "Bus 412 passes, and bus 412 comes back.",
)
COORDINATES = (
    "It lies at (412, 305) to (588, 640).",
    "It lies at [412, 305, 588, 640].",
    "The box is [0.41, 0.31, 0.59, 0.64].",
    "It begins near (400, 300).",
    "It is at 412, 305, 588, 640.",
    "It spans 412 to 588 across and 305 downwards.",
    "It goes from 41 to 59 across and from 64 down.",
    "It reaches from 330 to 470 in width and starts at 183.",  # pixels of 800x600
    "Its left edge is x1 = 12.",
    "Here y ≈ 300.",
    "It is 90 pixels wide.",
    "It starts 41% from the left.",
    "It stands 30 percent of the way down.",
    "Its left edge is at 412 and its right one at 588.",
    "It reaches from 412-588.",
    "It takes up 41% to 59%.",
    "It goes from .412 to .588.",
)
SENTENCES = [
    *((sentence, ("given_answer",)) for sentence in GIVEAWAYS),
    *((sentence, ()) for sentence in HARMLESS),
    *((sentence, ("coordinates",)) for sentence in COORDINATES),
]


@pytest.mark.parametrize(("sentence", "expected"), SENTENCES)
def test_giveaways_and_coordinates_are_noticed_and_plain_speech_is_not(
    sentence: str, expected: tuple[str, ...]
) -> None:
    assert of_thinking(f"{sentence} {GOOD}") == expected


def test_one_number_near_two_sides_is_one_number() -> None:
    square = replace(SINGLE, box=(0.25, 0.25, 0.5, 0.5))
    text = "<think>A bus with the number 250 stands in the middle.</think><answer>{}</answer>"
    assert reasons(text.format("[250, 250, 500, 500]"), square) == ()


def test_what_the_question_gives_may_be_repeated() -> None:
    mention = "The given box [100, 200, 300, 400] of the first image, the region (100, 200), holds"
    assert of_thinking(f"{mention} a cup. {GOOD}", REGION) == ()
    assert of_thinking(f"{mention} a cup. {GOOD}") == ("given_answer", "coordinates")
    assert of_thinking(f"It is (100, 305). {GOOD}", REGION) == ("coordinates",)
    assert of_thinking(f"The correct answer is there. {GOOD}", REGION) == ("given_answer",)


NO_NUMBER = "A cup is here, and a cup is there, and both of them are white."
THINKINGS = [
    (GOOD, ()),
    (GOOD.replace("Image 2", "the second image"), ()),
    (GOOD.replace("Image 2", "the last image"), ()),
    (GOOD.replace("So the object is in Image 2.", "It is that one, by the wall."), ()),
    (GOOD.replace("Image 2", "Image 1"), ("image_other",)),
    (GOOD.replace("in Image 2", "in Image 2, like in Image 1"), ("image_other",)),
    (GOOD.replace("in Image 2", "in Image 1 or Image 2"), ("image_other",)),
    (NO_NUMBER, ("image_missing",)),
    (f"<b>{GOOD}</b>", ("marks",)),
    (f"<|box_start|> {GOOD}", ("marks",)),
    (f"<image> {GOOD}", ("marks",)),
    (f"Half a character \ud83d {GOOD}", ("marks",)),
    (f"A control \x07 {GOOD}", ("marks",)),
    (f"A lost character \ufffd {GOOD}", ("marks",)),
    (f"Colder than 3 and a < b, b > c. {GOOD}", ()),
    (f"Ein schöner Becher für Æsop. {GOOD}", ()),
    ("It is in Image 2.", ()),
    ("In Image 2.", ("too_short",)),
    (f"{'so ' * 70}{GOOD}", ("too_long",)),
    ("第一张图里有一个杯子。 Look at its rim and the handle: Image 2", ("language",)),
]


@pytest.mark.parametrize(("thinking", "expected"), THINKINGS)
def test_image_marks_length_and_language(thinking: str, expected: tuple[str, ...]) -> None:
    assert of_thinking(thinking) == expected


def test_a_single_image_need_not_be_named() -> None:
    assert of_thinking(NO_NUMBER, SINGLE) == ()


def test_several_faults_are_all_reported() -> None:
    text = "<think>As given, (412, 305). Image 1</think><answer>[1, 2, 3, 4]</answer>"
    assert reasons(text, finish_reason="length") == (
        "cut_off", "box_differs", "given_answer", "coordinates", "image_other",
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["<think>", "</think>", "<answer>", "</answer>", "[412, 305, 588, 640]", "Image 2", " ",
             "(1,2)", "the given ", "box", "412", ".", "\n", "<|x|>", "\ud800", "好", "0.41 x=3"]
        )
        | st.text(max_size=6),
        max_size=25,
    ).map("".join)
)  # fmt: skip
def test_no_text_breaks_the_rules_and_what_passes_is_read_back(text: str) -> None:
    verdict = check_chain(text, PAIR, finish_reason=None, min_words=1, max_words=99, sizes=SIZES)
    if verdict.reasons:
        return
    assert verdict.thinking is not None
    assembled = assemble(verdict.thinking, PAIR, get_dialect("univg_r1"), SIZES)
    if assembled is not None:
        read = read_answer(assembled, get_dialect("univg_r1"), target_image=1)
        assert (read.box, read.thinking) == (BOX, verdict.thinking)


_BOXED = [name for name in list_dialects() if get_dialect(name).gives_boxes]


@pytest.mark.parametrize("name", _BOXED)
@pytest.mark.parametrize("image_is_given", [True, False])
def test_every_dialect_is_assembled_with_the_true_box(name: str, image_is_given: bool) -> None:
    dialect = get_dialect(name)
    row = replace(PAIR, image_is_given=image_is_given)
    text = assemble(GOOD, row, dialect, SIZES)
    assert text is not None
    target = 1 if image_is_given else None
    read = read_answer(text, dialect, image_sizes=SIZES, target_image=target)
    assert read.status == "ok"
    assert box_iou(read.box, BOX) > 0.7, "the family's own steps, 32 cells at the coarsest"
    if not image_is_given:
        assert read.image_index == 1
    if name == "univg_r1":
        label = "" if image_is_given else "Image-2: "
        assert text == f"<think>{GOOD}</think><answer>{label}(412,305),(588,640)</answer>"


def test_a_thinking_that_is_not_read_back_as_it_was_is_not_assembled() -> None:
    assert assemble(f"\n{GOOD}", PAIR, get_dialect("univg_r1"), None) is None
    assert assemble(GOOD, PAIR, get_dialect("univg_r1"), None) is not None


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("<best>2</best>", 1),
        ("Reasoning 1 is vague. <best> 3 </best>", 2),
        ("<think><best>1</best>?</think> <best>2</best>", 1),
        ("<best>Reasoning 2</best>", 1),
        ("<best>0</best>", None),
        ("<best>4</best>", None),
        ("2", None),
        ("", None),
    ],
)
def test_choices(text: str, chosen: int | None) -> None:
    assert read_choice(text, 3) == chosen


# --- prompts -------------------------------------------------------------------------------------


def test_prompts_of_one_image_do_not_speak_of_several() -> None:
    text = chain_prompt(SINGLE, min_words=5, max_words=80)
    assert "Image 1" not in text and "images are shown" not in text
    assert "tells them apart" in text
    assert "5 to 80 words" in text
    assert text.endswith("<answer>[412, 305, 588, 640]</answer>")


@pytest.mark.parametrize("task", [*TASKS, "anything", ""])
def test_every_task_has_its_steps(task: str) -> None:
    text = chain_prompt(replace(PAIR, task=task), min_words=5, max_words=80)
    assert "First " in text and "locate" in text
    assert "{" not in text


def test_texts_of_rows_are_not_taken_for_blanks() -> None:
    row = replace(PAIR, question="Find {box} and {0}.")
    assert "Find {box} and {0}." in chain_prompt(row, min_words=5, max_words=80)
    assert "{closing}" in choice_prompt(row, ["a {closing}", "b"])


def test_the_truth_is_given_in_whole_thousandths_and_never_empty() -> None:
    assert truth_1000(BOX) == [412, 305, 588, 640]
    x1, y1, x2, y2 = truth_1000((0.5, 0.5, 0.5001, 0.50001))
    assert x1 < x2 and y1 < y2


def test_the_words_of_the_prompts_are_those_of_earlier_runs() -> None:
    """Another word, and no run of before can be gone on with."""
    assert prompts_sha256() == PROMPTS
