"""Reading an answer: thinking, section, units, images, sizes, status; nothing breaks it."""

from __future__ import annotations

import gc
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univg_eval.answers import Answer, read_answer
from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.dialects.image_names import find_image_names
from univg_eval.dialects.sections import THINKING_MARKS
from univg_eval.errors import UserError

A = "(100,200),(300,400)"
B = "(500,600),(700,800)"
C = "(10,20),(30,40)"
JA = '{"bbox_2d": [100, 200, 300, 400]}'
BOXES = {
    A: (0.1, 0.2, 0.3, 0.4),
    B: (0.5, 0.6, 0.7, 0.8),
    C: (0.01, 0.02, 0.03, 0.04),
}


def read(text: str, dialect: str = "univg_r1", **arguments: Any) -> Answer:
    arguments.setdefault("image_sizes", [(1000, 1000)] * 3)
    return read_answer(text, get_dialect(dialect), **arguments)


# --- thinking ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("<Think>", "</Think>"),
        ("<thinking>", "</thinking>"),
        ("<analysis>", "</analysis>"),
        ("<reasoning>", "</reasoning>"),
        ("<seed:think>", "</seed:think>"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|channel>", "<channel|>"),
        ("<thought>", "</thought>"),
        ("<Thought>", "</Thought>"),
        ("[THINK]", "[/THINK]"),
        ("<REASONING>", "</REASONING>"),
        ("<|think|>", "<|/think|>"),
        ("<tHiNk>", "</ThInK>"),
    ],
)
def test_thinking_marks(opening: str, closing: str) -> None:
    closed = read(f"{opening}Maybe {A}.{closing} {B}")
    assert closed.box == BOXES[B] and closed.n_boxes == 1
    assert closed.thinking == f"Maybe {A}."
    assert closed.answer_text == B

    prefilled = read(f"Maybe {A}.{closing}{B}")
    assert prefilled.box == BOXES[B] and prefilled.thinking == f"Maybe {A}."

    unclosed = read(f"{opening}Maybe {A}.")
    assert (unclosed.status, unclosed.n_boxes) == ("truncated", 0)
    assert unclosed.thinking == f"Maybe {A}."

    to_the_answer = read(f"{opening}Maybe {A}.<answer>{B}</answer>")
    assert to_the_answer.box == BOXES[B] and to_the_answer.thinking == f"Maybe {A}."

    before = read(f"{B} {opening}Maybe {A}.")
    assert (before.status, before.box, before.n_boxes) == ("ok", BOXES[B], 1)


@pytest.mark.parametrize(
    ("text", "box", "thinking"),
    [
        (f"<think>1</think>{A}<think>2</think>{B}", B, f"1</think>{A}<think>2"),
        (f"<think>1<think>2</think>{A}</think>{B}", B, f"1<think>2</think>{A}"),
        # The outermost marks of different families.
        (f"<think>1<thinking>{A}</thinking>{B}", B, f"1<thinking>{A}"),
        (f"<think></think>{B}", B, ""),
        (B, B, None),
        # Closed thinking, then an opening mark without an end.
        (f"<think>1</think>{B}<think>2 {A}", B, f"1\n2 {A}"),
        (f"<think>1 {A}<answer>{B}</answer><think>2 {C}", B, f"1 {A}\n2 {C}"),
        (f"<think>1 {A}<answer>{B}", B, f"1 {A}"),
        # An answer inside closed thinking is thinking.
        (f"<think>1<answer>{A}</answer></think>{B}", B, f"1<answer>{A}</answer>"),
        # The two sides of removed thinking do not form a box.
        ("(1,2)<think>x<answer>,(3,4)</answer>", None, "x"),
    ],
)
def test_thinking(text: str, box: str | None, thinking: str | None) -> None:
    answer = read(text)
    assert answer.box == (BOXES[box] if box else None)
    assert answer.thinking == thinking


# --- answer section ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "box", "status"),
    [
        (f"<answer>{A}</answer>", A, "ok"),
        (f"{C} <answer>{A}</answer> {C}", A, "ok"),
        (f"<answer>{C}</answer><answer>{A}</answer>", A, "ok"),
        (f"<answer>{C}</answer> or <answer>{A}", A, "ok"),
        (f"<answer>{C}<answer>{A}</answer></answer>", A, "ok"),
        (f"{A}</answer>", A, "ok"),
        (f"<answer>{C}</answer><answer></answer>", None, "no_box"),
        (f"<answer>{C}</answer><answer>", None, "truncated"),
        ("<answer>(100,200),(300", None, "truncated"),
        ("(100,200),(300", None, "no_box"),
        (f"<|begin_of_box|>{A}<|end_of_box|> {C}", A, "ok"),
        (f"<|begin_of_box|>{C}<|end_of_box|><|begin_of_box|>{A}", A, "ok"),
        (f"<|begin_of_box|>{C}<|end_of_box|><answer>{A}</answer>", A, "ok"),
        (f"<answer>so <|begin_of_box|>{A}<|end_of_box|></answer>", A, "ok"),
        (f"<|begin_of_box|>7<|end_of_box|> {C}", None, "no_box"),
    ],
)
def test_answer_section(text: str, box: str | None, status: str) -> None:
    answer = read(text)
    assert answer.status == status
    assert answer.box == (BOXES[box] if box else None)


# --- units ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("between", "one_unit"),
    [
        ("", True),
        ("; ", True),
        ("\n\n", True),
        ("<|box_end|><|box_start|>", True),
        ("<|box_end|>, <|object_ref_start|>the dog<|object_ref_end|><|box_start|>", True),
        ("</box><ref>a black dog</ref><box>", True),
        (" and ", False),
        (". Final answer: ", False),
        ("\n2. ", False),
        ("\n```\n", False),
        ("\nImage-2: ", False),
        ("</box><ref>the cup in image 2</ref><box>", False),
    ],
)
def test_units(between: str, one_unit: bool) -> None:
    answer = read(A + between + B)
    assert answer.n_units == (1 if one_unit else 2)
    assert answer.box == BOXES[A if one_unit else B]
    assert answer.boxes == (BOXES[A], BOXES[B])


JB = '{"bbox_2d": [500, 600, 700, 800], "label": "b"}'


@pytest.mark.parametrize(
    ("text", "box", "n_units"),
    [
        (f"[{JA}, {JB}]", A, 1),
        # JSON Lines are one value, as the same objects in a list.
        (f"{JA}\n{JB}", A, 1),
        (f"{JA}, {JB}", A, 1),
        (f"{JA}; {JB}", A, 1),
        (f"{JA}\n\n{JB}\n", A, 1),
        (f"{JA}\nOr rather:\n{JB}", B, 2),
        (f"[{JA}]\n[{JB}]", B, 2),
        (f"```json\n{JA}\n{JB}\n```", A, 1),
        (f"```json\n{JA}\n```\n```json\n{JB}\n```", B, 2),
        ("[100, 200, 300, 400], [500, 600, 700, 800]", A, 1),
        ("[[100, 200, 300, 400], [500, 600, 700, 800]]", A, 1),
        ('{"bbox_2d": [[100, 200, 300, 400], [500, 600, 700, 800]]}', A, 1),
        (f"{JA} and bare [500, 600, 700, 800]", B, 2),
        (f'{JA}\n{{"bbox_2d": null}}', A, 1),
        (f'{JA}\nNo:\n{{"bbox_2d": null}}', None, 2),
        (f"{JA}\n[]", A, 1),
        (f"{{\"bbox_2d\": null}}\n{JA}", A, 2),
        # Brackets of prose, or never closed, hold nothing together.
        (f"As {{x said: {JA}. So the answer is {JB}", B, 2),
        (f'[{{"bbox_2d": [100, 200, 300, 400], "label": "cup\nWait, no: {JB}', B, 2),
        (f'```json\n{{"bbox_2d": null}}\n{JA}\n```', A, 1),
        (f'[{JA}, {{"bbox_2d": null}}]', A, 1),
        (f'[{{"bbox_2d": null}}, {JA}]', A, 1),
    ],
)  # fmt: skip
def test_json_units(text: str, box: str | None, n_units: int) -> None:
    answer = read(text, "qwen3_vl")
    assert answer.n_units == n_units
    assert answer.box == (BOXES[box] if box else None)
    assert answer.status == ("ok" if box else "none")


# --- no such object ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "**None**",
        "null",
        "N/A",
        "There are none.",
        "No such object exists in the image.",
        "No matching object was found in any of the images.",
        "I see no such object in this picture.",
        "There is no red umbrella in the image.",
        "There are no dogs with two tails visible in any of the images.",
        "There is not a cup in either image.",
        "The described object does not appear in the second image.",
        "[ ]",
        "[null]",
        '{"bbox_2d": None}',
        "{'bbox_2d': []}",
        '{"bbox_2d": [null, null, null, null]}',
        '{"objects": []}',
        '[{"bbox_2d": null, "label": "dog"}]',
        '{"bbox_2d": "none"}',
        '{"answer": "Not found."}',
        '{"image": 2, "bbox_2d": null}',
        '{"image_1": [], "image_2": []}',
        "```json\nnull\n```",
        "```json\n[]",
        "I looked at every image.\nThere are none.",
        "Answer: none",
        "bbox_2d: null",
        "No, there is no such object.",
        "Sorry, there is no cat in the image.",
        "However, the object is not visible.",
        # Several ways to name what is absent.
        "There’s no red cup.",
        "There aren't any dogs here.",
        "There doesn't seem to be a dog in the picture.",
        "No, there's no red cup in this picture.",
        "The image lacks a red cup.",
        "The images do not show any dogs.",
        "Sorry, this image doesn't show any red cup.",
        "Neither image shows a red cup.",
        "None of the three images contains the dog.",
        "The red cup is absent from the photo.",
        "The red cup isn't in either image, so I cannot give a box.",
        "The red cup can't be seen anywhere.",
        "No sign of a red cup in the image.",
        "No red cup is visible.",
        "I'm sorry, but there is no red cup in the image, only a blue mug.",
        "I don't see a red cup in these images.",
        "I couldn't find the red cup.",
        "Unfortunately, I was unable to locate a red cup in the image.",
        "The red cup is nowhere to be seen.",
        "It doesn't look like there's a red cup in the image.",
        "We were not able to find a red cup in the image.",
        "I see no red cup.",
        "No image contains a red cup.",
        "This picture is missing a red cup.",
        "Upon closer inspection, there is no red cup in the image.",
        "I apologize, but there is no red cup in the image.",
        "Red cup: not found",
        "Object not found.",
        "Not visible in the image.",
        "Nothing in the image matches the description.",
        "No detections.",
        '"None"',
        "没有。",
        "未找到目标",
        "两张图片中都没有红色杯子。",
        "我没有在图中看到红色杯子",
        "红色杯子不存在",
        "图中没有红色的杯子。",
        "抱歉，图像中没有红色杯子。",
        "图片中不存在这样的物体。",
        "红色杯子不在图中。",
        # Who or what does not fit.
        "Nobody in the image is wearing a hat.",
        "No object matches the description.",
        "None of the cups in the image is red.",
        "I don't see anything matching that description.",
        "There is nothing like that in the image.",
        "The red cup is in neither image.",
        "No such cup.",
        "There isn't one.",
        "Not in the image.",
        "It's absent.",
        # Words before and after.
        "Since there is no red cup in the image, I cannot provide a box.",
        "The image shows a dog and a cat, but there is no red cup.",
        "In conclusion, the red cup is not visible.",
        "From what I can see, there is no red cup: the cup is blue.",
        "There is no red cup, though there is a blue one.",
        "- Note: there is no red cup in the image.",
        "There is **no** `red cup` in the image.",
        'The answer is "none".',
        "\\boxed{\\text{None}}",
        "The bounding box is empty.",
        "Bounding box: N/A",
        "因此，图中没有红色杯子。",
        "最终答案：无",
        "边界框：无",
        "根据图像内容，图中没有红色杯子。",
        "图中只有一个蓝色杯子，没有红色杯子。",
        "红色杯子：未找到",
        "无此物体",
        "以上两张图片中均无红色杯子。",
        "红色杯子未在图中出现。",
    ],
)
@pytest.mark.parametrize("dialect", ["univg_r1", "qwen2_5_vl", "norm1000", "molmo", "florence2"])
@pytest.mark.parametrize("wrapped", ["{}", "<think>a (1,2),(3,4)</think><answer>{}</answer>"])
def test_explicit_none(text: str, dialect: str, wrapped: str) -> None:
    answer = read(wrapped.replace("{}", text), dialect, target_image=1)
    assert (answer.status, answer.box, answer.boxes, answer.n_boxes) == ("none", None, (), 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I'm sorry, I can't help with that.",
        "I am not able to see the image.",
        "None of them fits well, I would say",
        "It is nothing special.",
        "{}",
        '{"label": null}',
        '{"bbox_2d": [null, 2, 3, 4]}',
        '{"bbox_2d": "cup"}',
        "nonexistent",
        "See notes 1 and 2.",
        # Refusals.
        "I don't see any image attached.",
        "I cannot see the images.",
        "I cannot see it, sorry.",
        "I cannot locate it precisely.",
        "I can't find the exact coordinates.",
        "I cannot identify the person in the image.",
        "I am unable to provide bounding boxes.",
        # About others, or about something else than presence.
        "There is no other cup in the image.",
        "没有其他杯子。",
        "The cup is not on the table.",
        "The cup is not empty.",
        "The image does not show the cup clearly.",
        "There is no way to know.",
        "There is no image attached.",
        "The image is missing.",
        "The bounding box is not available.",
        "我看不到图片",
        "图片没有加载",
        "No problem.",
        "I don't see a problem.",
        "The URL does not exist.",
        "The answer is not available.",
        "无法确定。",
        "无法给出精确坐标。",
        "没有足够的信息。",
        "No one else is visible.",
        # Questions, guesses and conditions.
        "Is there no red cup in the image?",
        "The red cup is not in the image?",
        "Perhaps the red cup is not in the image.",
        "I am not sure if the cup is not visible.",
        "If the red cup is not in the image, output null.",
        "图中没有红色杯子吗？",
        "图中可能没有红色杯子。",
        '"note": []',
        "Errors: []",
        "errors = []",
        '{"summary": "x"}, "uncertainty": []}',
        # A request to a tool, with its tags and without.
        f'<tool_call>{{"name": "zoom", "arguments": {JA}}}</tool_call>',
        f'{{"name": "zoom", "arguments": {JA}}}',
        f'{{"name": "zoom", "parameters": {JA}}}',
        '{"name": "zoom", "arguments": {"bbox_2d": null}}',
        '{"name": "zoom", "args": {"objects": []}}',
        # One of several images.
        "Image 1: none",
        "There is no cup in the second image.",
        "Image-1: []\nImage-2: []",
        '{"image": 2, "bbox_2d": null}',
        '{"image_1": [], "image_2": []}',
        '[{"bbox_2d": null, "image": 1}, {"bbox_2d": [], "image": 3}]',
    ],
)
def test_no_box_is_no_none(text: str) -> None:
    assert read(text, "norm1000").status == "no_box"


@pytest.mark.parametrize(
    "text",
    [
        f"There is no other cup. It is at {A}",
        f"None of the others match: {A}",
        f"{A}. There are no other dogs in the image.",
        f"{A}. There is no doubt.",
        f"{A} with occlusion (of any sort) none",
        f"{A}\nThere are none others like it here",
        f"There are none in the background. But here: {A}",
        f"{A}\nNone of the other images contain it.",
        f"{A}\nThere are none in any of the other images.",
        f"{A}. There is no such object in the remaining images.",
        *(JA.replace("}", f', "{key}": "It is red. There is no dog in the image."}}')
          for key in ("label", "reason", "description")),
        # What else a sentence of absence may explain.
        f"{A}. The cup is missing from the second image.",
        f"{A}. There is no cup in the first image.",
        f"{A}\nI don't see a second cup.",
        f"{A}. There are none in the background.",
        f"{A}. It is not visible in the mirror.",
        f"{A}\nNo objects are missing.",
        # What is said of something else, by its heading, number, tag or key.
        f"{A}\n**Occlusion:**\nNone",
        f"{A}\n### Other objects\nNone",
        f"{A}\n**Notes**\n- None",
        f"{A}\n备注：\n无",
        f"1. {A}\n2. None",
        f"- {A}\n- none",
        f"red cup: {A}\nblue cup -> none",
        f"Red cup: {A}\nBlue cup:\nBounding box: none",
        f"{A}<reason>None.</reason>",
        *(JA.replace("}", f', "{key}": "It is partly hidden. None."}}')
          for key in ("comment", "first_note", "Other objects")),
        # Images that are not there, or not known by number.
        f"Image 1: {A}\nImage 2: none\nImage 4: none",
        f"{A}. There is no such object in the right image.",
        f"{A}\n第五张图：无",
        # Questions.
        f"{A}\nNone?",
        f"{A}\nIs there no such object in image 2?",
        # Empty lists beside a box.
        f"{JA}, \"errors\": []}}",
        f"{JA}}}, \"visual\": {{}}, \"uncertainty\": []}}",
        f"{JA}\nErrors: []",
        f"{JA}\n[]",
        f"{A} []",
        f"```json\n{JA}\n```\n```json\n[]\n```",
    ],
)  # fmt: skip
def test_words_around_a_box_do_not_take_it_back(text: str) -> None:
    answer = read(text, "qwen3_vl" if "{" in text else "univg_r1")
    assert (answer.status, answer.box) == ("ok", BOXES[A])


@pytest.mark.parametrize("dialect", ["univg_r1", "qwen3_vl", "norm1000"])
@pytest.mark.parametrize("box", [A, "[100, 200, 300, 400]", JA])
@pytest.mark.parametrize(
    "closing",
    [
        " There are none.",
        "\nThere are none.",
        " Actually, there is no such object.",
        " null",
        "\nSo the final answer is none.",
        "\n**Final answer:**\nNone",
        "\n最终答案：无",
        "\n因此，图中没有符合描述的物体。",
    ],
)
def test_a_box_taken_back_is_none(closing: str, box: str, dialect: str) -> None:
    answer = read(box + closing, dialect)
    assert (answer.status, answer.box) == ("none", None)


@pytest.mark.parametrize(
    ("text", "target", "status", "image"),
    [
        ("Image 1: none, Image 2: {}, Image 3: none", None, "ok", 1),
        ("Image 1: none\nImage 2: {}\nImage 3: none", None, "ok", 1),
        ("Image 1: []\nImage 2: {}\nImage 3: []", None, "ok", 1),
        ('{{"image1": null, "image2": {}, "image3": null}}', None, "ok", 1),
        ("Image 1: none. Image 2: none. Image 3: none.", None, "none", 2),
        ("Image 1: none, Image 2: none and image 3: none", None, "none", 2),
        ("Image 1: none. Image 2: none.", None, "no_box", None),
        ("- Image 1: None\n- Image 2: None\n- Image 3: None", None, "none", 2),
        ("First image: none. Second image: none. Third image: none.", None, "none", 2),
        ("There is no cup in image 1, image 2, or image 3.", None, "none", 2),
        ("There is no cup in image 1 or image 2.", None, "no_box", None),
        ("There is no cup in image 1 or image 2.", 0, "none", 0),
        ("图1：无，图2：无，图3：无", None, "none", 2),
        ("图1、图2和图3中都没有杯子。", None, "none", 2),
        ("第一张图没有杯子，第二张图没有杯子，第三张图也没有杯子。", None, "none", 2),
        ("图1：{}，图2：无，图3：无", None, "ok", 0),
        ("Image 1: none\nImage 2: {}\nImage 3: none", 2, "none", 2),
        ("Image 1: []\nImage 2: {}\nImage 3: []", 0, "none", 0),
        ("Image 1: none\nImage 2: {}\nImage 3: none", 1, "ok", 1),
        ('{{"image1": null, "image2": {}, "image3": null}}', 0, "none", 0),
        *(
            (listing, target, status, image)
            for listing in (
                '[{{"image": 1, "bbox_2d": null}}, {{"bbox_2d": {}, "image": 2}}, '
                '{{"bbox_2d": null, "image": 3}}]',
                '{{"image": 1, "bbox_2d": null}}\n{{"image": 2, "bbox_2d": {}}}\n'
                '{{"image": 3, "objects": []}}',
                '{{"image 1": {{"bbox_2d": "none"}}, "image 2": {{"bbox_2d": {}}}, "image 3": []}}',
            )
            for target, status, image in (
                (None, "ok", 1),
                (1, "ok", 1),
                (0, "none", 0),
                (2, "none", 2),
            )
        ),
        ('{{"image1": null, "image2": [], "image3": null}}', None, "none", 0),
        ('[{{"image": 1, "bbox_2d": null}}, {{"bbox_2d": null}}]', None, "none", None),
    ],
)
def test_a_listing_by_image(text: str, target: Any, status: str, image: Any) -> None:
    answer = read(text.format("[100, 200, 300, 400]"), "qwen3_vl", target_image=target)
    assert (answer.status, answer.image_index) == (status, image)
    assert answer.box == (BOXES[A] if status == "ok" else None)


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ('{"bbox_2d": ["100", "200", "300", "400"]}', "qwen3_vl"),
        ("[{'bbox_2d': ['100', '200', '300', '400']}]", "qwen3_vl"),
        ('{"box_2d": ["200", "100", "400", "300"]}', "gemini"),
        ('{"bbox": "100 200 300 400"}', "seed1_5_vl"),
        ('{"bbox": "100, 200, 300, 400"}', "norm1000"),
        ('{"bbox": ["100 200", "300 400"]}', "seed1_5_vl"),
        ('{"x1": "100", "y1": "200", "x2": "300", "y2": "400"}', "norm1000"),
        ('{"bbox_2d": [100, 200, 300, 400,], "label": "cup",}', "qwen3_vl"),
        ('{"bbox": [100, 200, 300, 400</bbox>, "error": ""}', "seed1_5_vl"),
        ("<|begin_of_box|>{100,200,300,400}<|end_of_box|>", "glm_v"),
        ("<|begin_of_box|>{{100,200,300,400},{5,6,7,8}}<|end_of_box|>", "glm_v"),
        ('<|begin_of_box|>[["100","200","300","400"]]<|end_of_box|>', "glm_v"),
        ("<|begin_of_box|><bbox>100,200,300,400</bbox><|end_of_box|>", "glm_v"),
        ("{bbox_2d: [100, 200, 300, 400], label: cup}", "qwen3_vl"),
        ('{"1": [100, 200, 300, 400], "2": [5, 6, 7, 8]}', "norm1000"),
    ],
)
def test_ways_of_writing_a_list(text: str, dialect: str) -> None:
    answer = read(text, dialect)
    assert (answer.status, answer.box, answer.image_index) == ("ok", BOXES[A], None)


@pytest.mark.parametrize(
    "text",
    [
        'Version "1 2 3 4" of it',
        '{"label": "100 200 300 400"}',
        '{"size": "100 200 300 400"}',
        '{"bbox_2d": "100 200 300"}',
        '{"bbox_2d": ["100", "200", "300", "cup"]}',
        "{x_min: 100, y_min: 200, x_max: 300, y_max: 400}",
    ],
)
def test_quoted_numbers_elsewhere_are_no_box(text: str) -> None:
    assert read(text, "norm1000").status == "no_box"


# --- what changes nothing ------------------------------------------------------------------------

CORNERS = st.tuples(*[st.integers(0, 499)] * 2, *[st.integers(500, 1000)] * 2)
LISTS = {
    "qwen3_vl": '{{"bbox_2d": [{}, {}, {}, {}]}}',
    "seed1_5_vl": '{{"bbox": [{}, {}, {}, {}]}}',
    "glm_v": "<|begin_of_box|>[[{}, {}, {}, {}]]<|end_of_box|>",
    "internvl": "<box>[[{}, {}, {}, {}]]</box>",
    "norm1000": "[{}, {}, {}, {}]",
}
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(
    lambda name: "box" not in name and read(f'"{name}": []', "qwen3_vl").status == "no_box"
)


@given(corners=CORNERS, dialect=st.sampled_from(sorted(LISTS)), data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_spelling_of_a_list_changes_nothing(
    corners: tuple[int, ...], dialect: str, data: st.DataObject
) -> None:
    plain = LISTS[dialect].format(*corners)
    quote = data.draw(st.sampled_from(["", '"', "'"]))
    text = LISTS[dialect].format(*(f"{quote}{number}{quote}" for number in corners))
    if data.draw(st.booleans()):
        text = text.replace("]", ",]" if data.draw(st.booleans()) else " , ]", 1)
    if data.draw(st.booleans()):
        text = text.replace(", ", data.draw(st.sampled_from([",", " ,\n", ",  "])))
    assert read(text, dialect).box == read(plain, dialect).box is not None


@given(corners=CORNERS, names=st.lists(NAMES, min_size=1, max_size=3), data=st.data())
@settings(max_examples=100, deadline=None)
def test_empty_lists_of_other_things_change_nothing(
    corners: tuple[int, ...], names: list[str], data: st.DataObject
) -> None:
    box = LISTS["qwen3_vl"].format(*corners)
    lists = ", ".join(f'"{name}": []' for name in names)
    wrapped = data.draw(
        st.sampled_from(["{box}, {lists}}}", "{lists}, {box}", "{box}\n{{{lists}}}", "{box}\n[]"])
    )
    answer = read(wrapped.format(box=box, lists=lists), "qwen3_vl")
    assert (answer.status, answer.box) == ("ok", read(box, "qwen3_vl").box)


@given(
    marks=st.sampled_from(THINKING_MARKS),
    swaps=st.lists(st.booleans(), min_size=60, max_size=60),
    corners=CORNERS,
)
@settings(max_examples=100, deadline=None)
def test_thinking_marks_in_any_case(
    marks: tuple[str, str], swaps: list[bool], corners: tuple[int, ...]
) -> None:
    def mixed(mark: str) -> str:
        return "".join(c.swapcase() if swap else c for c, swap in zip(mark, swaps, strict=False))

    box = LISTS["norm1000"].format(*corners)
    text = f"{mixed(marks[0])}Perhaps [1, 2, 3, 4].{mixed(marks[1])}{box}"
    assert read(text, "norm1000").boxes == read(box, "norm1000").boxes


THINGS = st.builds(
    " ".join,
    st.tuples(
        st.sampled_from(["red", "small", "broken", "left-most", "woman's", "second-hand"]),
        st.sampled_from(["cup", "dogs", "traffic light", "person with a hat", "logo of the team"]),
    ),
)
ABSENT = [
    "there is no {}", "there's no {} in {}", "there isn't any {} in {}", "{} is not present in {}",
    "{} isn't visible in {}", "{} cannot be found in {}", "{} does not appear in {}",
    "{} is absent from {}", "{} is missing in {}", "no {} is visible in {}", "no {} found",
    "no sign of {} in {}", "I don't see {} in {}", "I could not find {}",
    "none of the images shows {}", "neither image contains {}",
]  # fmt: skip


@given(
    thing=THINGS,
    sentence=st.sampled_from(ABSENT),
    place=st.sampled_from(["the image", "this picture", "any of the images", "either photo"]),
    opener=st.sampled_from(["", "Sorry, ", "No, ", "Unfortunately, ", "Answer: ", "**"]),
    end=st.sampled_from(["", ".", "!", "**", ", so I cannot give a box."]),
)
@settings(max_examples=300, deadline=None)
def test_sentences_of_absence(thing: str, sentence: str, place: str, opener: str, end: str) -> None:
    said = sentence.format(*[f"the {thing}" if sentence.startswith("{}") else thing, place])
    text = f"{opener}{said}{end}"
    assert read(text, "qwen3_vl").status == "none", text
    beside = read(f"[100, 200, 300, 400]. {text}", "qwen3_vl")
    assert (beside.status, beside.box) == ("ok", BOXES[A])
    other = text.replace(thing, f"other {thing}")
    assert read(other, "qwen3_vl").status == "no_box", other


REMARKS = [
    "There is no other cup.", "None of the others match.", "The handle is missing.",
    "The cup is not in the second image.", "I don't see it in image 3.", "Image 2: none",
    "In the third image, there is no such object.", "Occlusion: none", "**Notes:**\nNone",
    "### Other objects\nNone.", "2. None", "Errors: []", "[]", '"errors": [],', "It is red.",
    "There are none on the left.", "Would you say there is none?", "<note>none</note>",
    "Not found elsewhere.",
    "其他：\n无", "第二张图中没有。", "图3：无", "没有其他杯子。",
]  # fmt: skip


@given(
    before=st.lists(st.sampled_from(REMARKS), max_size=3),
    after=st.lists(st.sampled_from(REMARKS), max_size=3),
    dialect=st.sampled_from(sorted(LISTS)),
    corners=CORNERS,
)
@settings(max_examples=300, deadline=None)
def test_remarks_around_a_box_change_nothing(
    before: list[str], after: list[str], dialect: str, corners: tuple[int, ...]
) -> None:
    box = LISTS[dialect].format(*corners)
    alone = read(box, dialect)
    # A heading would own the next line, so every remark is followed by one about the box.
    answer = read("\n".join([*before, f"The cup: {box}", *after]), dialect)
    assert (answer.status, answer.boxes) == ("ok", alone.boxes)


@given(
    before=st.lists(st.sampled_from(["It is a street.", "图中有一张桌子。", "Hm?"]), max_size=2),
    sentence=st.sampled_from(["There is no red cup.", "None.", "图中没有红色杯子。", "[]"]),
    after=st.lists(
        st.sampled_from(["The table is brown.", "Anything else?", "谢谢。"]), max_size=2
    ),
    dialect=st.sampled_from(sorted(LISTS)),
)
@settings(max_examples=100, deadline=None)
def test_words_around_an_absence_change_nothing(
    before: list[str], sentence: str, after: list[str], dialect: str
) -> None:
    assert read("\n".join([*before, sentence, *after]), dialect).status == "none"


# --- validity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "status", "box", "clipped"),
    [
        ("(0,0),(1000,1000)", "ok", (0, 0, 1, 1), False),
        ("(-100,200),(300,400)", "ok", (0, 0.2, 0.3, 0.4), True),
        ("(100,200),(300,1400)", "ok", (0.1, 0.2, 0.3, 1), True),
        ("(-5,-5),(99999999999999999999,1e30)", "ok", (0, 0, 1, 1), True),
        ("(300,200),(100,400)", "invalid_box", None, False),
        ("(100,400),(300,200)", "invalid_box", None, False),
        ("(0,0),(0,0)", "invalid_box", None, False),
        ("(1000,200),(1100,400)", "invalid_box", None, False),
        ("(-300,-200),(-100,0)", "invalid_box", None, False),
        ("(nan,200),(300,400)", "invalid_box", None, False),
        ("(100,200),(inf,400)", "invalid_box", None, False),
        ("(100,200),(1e999,400)", "invalid_box", None, False),
        (f"(100,200),(300,{'9' * 50})", "no_box", None, False),
    ],
)
def test_validity(numbers: str, status: str, box: Any, clipped: bool) -> None:
    answer = read(numbers)
    assert (answer.status, answer.box, answer.clipped) == (status, box, clipped)
    assert answer.n_boxes == (0 if status == "no_box" else 1)
    assert len(answer.boxes) == (1 if status == "ok" else 0)


# --- images and sizes ----------------------------------------------------------------------------


LIST = (
    '[{"image": 1, "bbox_2d": [100, 200, 300, 400]}, {"image": 2, "bbox_2d": [500, 600, 700, 800]}]'
)


@pytest.mark.parametrize(
    ("text", "target", "box", "image"),
    [
        (f"It's in the third image. {A}", None, A, 2),
        (f"Unlike image 1, image 3 shows it: {A}", None, A, 2),
        (f"Image-1: {A}\nImage-2: {B}", None, B, 1),
        (f"Image-1: {A}\nImage-2: {B}", 0, A, 0),
        (f"Image-1: {A}\nImage-2: {B}", 2, None, None),
        (f"[Image 1]: {A} [Image 2]: {B}", 0, A, 0),
        (f"In the first image it is at {A}, and in the second image at {B}", 0, A, 0),
        (f"In the first image it is at {A}, and in the second image at {B}", 1, B, 1),
        # A follow-up without a name belongs to the image named last.
        (f"Image-1: {A}\nImage-2: {C}\nMore exactly: {B}", 1, B, 1),
        # Names that say what is compared, not where the box lies.
        (f"The cup that also stands in the first image is at {A}", 1, A, 0),
        (f"In the first image there is a mug. The cup is at {A}", 1, A, 0),
        (f"Both the first image and this one show it; here at {A}", 1, A, 0),
        (f"{A} in the first image, {B}", 1, B, 0),
        (f"The object in image 2 that matches the cup in image 1: {A}", 1, A, 0),
        (f"The second picture on the wall is at {A}", 0, A, 1),
        # A name that fits none of the three images names none.
        (f"Image 4: {A}", 1, A, None),
        # A name inside the thinking or behind the box names nothing.
        (f"<think>image 2</think>{A}", None, A, None),
        (f"{A} is what image 2 shows", None, A, None),
        # Keys choose among the boxes of a list.
        (LIST, None, A, 0),
        (LIST, 1, B, 1),
        (LIST, 2, None, None),
    ],
)
def test_the_image_of_the_chosen_box(text: str, target: Any, box: str | None, image: Any) -> None:
    answer = read(text, "norm1000", target_image=target)
    assert answer.box == (BOXES[box] if box else None)
    assert answer.image_index == image
    assert answer.status == ("ok" if box else "no_box")
    each = read(f"{C} Image 1: {A}, then in the third image: {B}")
    assert each.boxes == (BOXES[C], BOXES[A], BOXES[B])
    assert each.box_images == (None, 0, 2)


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ('{"image": 2, "bbox_2d": [100, 200, 300, 400]}', 1),
        ('{"bbox_2d": [100, 200, 300, 400], "image_index": 3}', 2),
        ('{"bbox_2d": [100, 200, 300, 400], "image": "Image-2"}', 1),
        ('{"bbox_2d": [100, 200, 300, 400], "image": "second"}', 1),
        ('{"bbox_2d": [100, 200, 300, 400], "image": 2', 1),
        ('{"image": 2, "objects": [{"bbox_2d": [100, 200, 300, 400]}]}', 1),
        ('Image-3: {"bbox_2d": [100, 200, 300, 400], "image": 2}', 1),
        ('{"Image-2": [100, 200, 300, 400]}', 1),
        ("第二张图：[100, 200, 300, 400]", 1),
        ("图3中：[100, 200, 300, 400]", 2),
        ("在第1张图片里：[100, 200, 300, 400]", 0),
        ("图10：[100, 200, 300, 400]", None),
        ('{"bbox_2d": [100, 200, 300, 400], "image": "cup.jpg"}', None),
        ('{"bbox_2d": [100, 200, 300, 400], "image": 0}', None),
    ],
)
def test_images_named_by_keys(text: str, image: int | None) -> None:
    answer = read(text, "qwen3_vl")
    assert (answer.box, answer.image_index) == (BOXES[A], image)


SIZES = [(1000, 500), (200, 100)]


@pytest.mark.parametrize(
    ("text", "target", "sizes", "expected"),
    [
        ("[100, 50, 150, 75]", None, [(1000, 500)] * 2, (0.1, 0.1, 0.15, 0.15)),
        ("[100, 50, 150, 75]", None, SIZES, None),
        ("[100, 50, 150, 75]", 0, SIZES, (0.1, 0.1, 0.15, 0.15)),
        ("[100, 50, 150, 75]", 1, SIZES, (0.5, 0.5, 0.75, 0.75)),
        ("Image 2: [100, 50, 150, 75]", None, SIZES, (0.5, 0.5, 0.75, 0.75)),
        # A name that fits no image names none.
        ("Image 7: [100, 50, 150, 75]", None, SIZES, None),
    ],
)
def test_sizes(text: str, target: int | None, sizes: Any, expected: Any) -> None:
    answer = read(text, "pixels", image_sizes=sizes, target_image=target)
    assert answer.box == (pytest.approx(expected) if expected else None)
    assert answer.status == ("ok" if expected else "no_box")
    assert answer.n_boxes == 1


@pytest.mark.parametrize(
    ("dialect", "text"),
    [("pixels", "[1, 2, 3, 4]"), ("qwen2_5_vl", JA), ("llava_1_5", "[.1, .2, .3, .4]")],
)
def test_a_box_that_needs_a_size_is_unreadable_without_any(dialect: str, text: str) -> None:
    answer = read(text, dialect, image_sizes=None)
    assert (answer.status, answer.box, answer.n_boxes) == ("no_box", None, 1)
    assert read(text, dialect, image_sizes=[(800, 600)]).status == "ok"
    # Corners that are wrong in every space are wrong without sizes too.
    assert read("[0, 0, 0, 0]", dialect, image_sizes=None).status == "invalid_box"


def test_a_recorded_input_size_is_enough() -> None:
    text = '{"bbox_2d": [420, 231, 840, 462]}'
    answer = read(text, "qwen2_5_vl", image_sizes=None, input_sizes=[(1680, 924)])
    assert answer.box == (0.25, 0.25, 0.5, 0.5)


# --- nothing breaks it ---------------------------------------------------------------------------

REPLIES = [
    json.loads(line)["text"]
    for path in sorted((Path(__file__).parent / "data").glob("replies_*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]
PIECES = st.sampled_from(
    [
        *REPLIES,
        *["<think>", "</think>", "<answer>", "</answer>", "◁/think▷", "<|begin_of_box|>", "```"],
        *[*"[]{}(),;:'\"\\", "```json\n", "null", "none."],
        *["image 2", "the third image", "<box>", "</box>", "<loc_1>", "<loc0001>", "nan", "1e999"],
        *["١", "\0", "\n", " ", "-", ".", "9" * 60, '"label": "', '"image": ', '"x_min": 0.1'],
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    parts = draw(st.lists(PIECES | st.text(max_size=6), max_size=8))
    return "".join(part[draw(st.integers(0, 3)) :] if part else part for part in parts)


def check(answer: Answer) -> None:
    assert answer.status in ("ok", "no_box", "none", "truncated", "invalid_box")
    assert (answer.box is not None) == (answer.status == "ok")
    assert len(answer.boxes) == len(answer.box_images) <= answer.n_boxes
    assert answer.box is None or answer.box in answer.boxes
    for box in answer.boxes:
        assert all(map(math.isfinite, box))
        assert 0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1
    assert not (answer.clipped and answer.box is None)
    assert answer.image_index is None or answer.image_index >= 0
    assert answer.status != "none" or not answer.boxes


@given(
    text=mutated() | st.text(max_size=60),
    dialect=st.sampled_from(list_dialects()),
    target=st.sampled_from([None, 0, 1, 2]),
    sizes=st.sampled_from([[(640, 480)] * 3, [(640, 480), (30, 40), (56, 900)]]),
    recorded=st.booleans(),
)
@settings(max_examples=800, deadline=None)
def test_any_text_is_read(
    text: str, dialect: str, target: int | None, sizes: Any, recorded: bool
) -> None:
    inputs = [(644, 476)] * 3 if recorded else None
    check(read(text, dialect, image_sizes=sizes, input_sizes=inputs, target_image=target))


@given(text=mutated(), dialect=st.sampled_from(list_dialects()))
@settings(max_examples=300, deadline=None)
def test_thinking_never_counts(text: str, dialect: str) -> None:
    """Whatever stands in closed thinking, the answer is that of the rest alone."""
    rest = "It's in image 2. <answer>(100,200),(300,400) [100, 200, 300, 400]</answer>"
    alone, after = read(rest, dialect), read(f"<think>{text}</think>{rest}", dialect)
    for name in ("status", "box", "image_index"):
        assert getattr(after, name) == getattr(alone, name)


# Each repeated to the length of the test.
SEEDS = [
    "7", "(", "[", "[[", "[{", "{\"a\":", "[ ", "{ ", "[ [1,2,3,4] ", "]", "}",
    "\"", "'", "\\\"", "\"a\":\"a\"",
    "<", "<a", "<think>", "</think>", "<think><answer>", "<answer>", "<answer>(1,2),(3,4)</answer>",
    "<|begin_of_box|>", "(1,2),(3,4) ", "(1,1)", "(1,", "( ", "[1, 2, 3, 4], ", "[1,2,3,4;",
    "{\"bbox_2d\": [", "{\"bbox_2d\": [1,2,3,4]}, ", "\"label\":\"", "\"label\": ", "\"image\": \"",
    "\0", "1e999", "[1e999, 1e999, 2, 3] ", "nan,", "[null,", "١٢٣(٤,٥),(٦,٧)", " ", "\n", "\r",
    "　", "none ", "none.\n", "none in image 1.\n", "There are none in the ",
    "image 1 ", "In the first image. ",
    "first second ", "<loc_1>", "<loc0001>", "<patch_index_0001>", "<box>1 2 3 ", "1 2 3 4\n",
    "1 2 3 ", "-", ".", "```", "```json\n", "<ref>", "<quad>", "\"x_min\": 1, ", "word ",
    "a", "◁think▷",
    "{\"bbox_2d\": [1, 2, 3, 4], \"label\": \"a\", \"image\": 2} image 3 ",
    "<tool_call>", "<tool_call><", "</tool_call>", "[THINK]", "<tHought>",
    "\"1 2 3 4\" ", "{\"bbox\": \"1 2 3 4\"}\n", "[\"1\",", "[1,2,3,4</", "{1,2,3,4},",
    "\"errors\": [] ", "a: []\n", "{\"arguments\": ", "Image 1: none, ", "no, ",
    "there is no cup ", "There is no cup. ", "the cup is not ", "The cup is absent. ",
    "I don't see a cup. ", "the image does not show ", "No sign of a ",
    "图中没有", "没有杯子。", "第一张图", "图1",
    "no one ", "No, sorry, well, ", "none, but ", "None of the cups in the image match. ",
    "Since there is no cup, ", "no cup in image 1, image 2, ", "没有", "图1、图2、", "1. None\n",
    "# None\n", "a:\nnone\n", "{\"image\": 2, \"bbox_2d\": null}, ", "[{\"image_1\": null, ",
]  # fmt: skip


def _seconds(text: str, dialect: str) -> float:
    """Processor time of one reading, without the garbage collector's, which is not linear."""
    chosen = get_dialect(dialect)
    gc.disable()
    try:
        start = time.process_time()
        answer = read_answer(text, chosen, image_sizes=[(640, 480)] * 3)
        seconds = time.process_time() - start
    finally:
        gc.enable()
    check(answer)
    return seconds


@pytest.mark.parametrize("seed", SEEDS)
def test_time_is_linear(seed: str) -> None:
    """Four times the text far from sixteen times the time; 250 kB within a slow machine's 2 s."""
    text = (seed * (250_000 // len(seed) + 1))[:250_000]
    whole = _seconds(text, "norm1000")  # the widest grammar
    assert whole < 2
    if whole > 0.05:
        quarter = min(_seconds(text[:62_500], "norm1000") for _ in range(2))
        # A second reading of the whole only where something else may have held up the first.
        assert whole < 10 * quarter or _seconds(text, "norm1000") < 10 * quarter


@pytest.mark.parametrize(
    "dialect", list({get_dialect(n).grammar: n for n in list_dialects()}.values())
)
def test_time_is_linear_in_every_dialect(dialect: str) -> None:
    for seed in ("[", "(1,2),(3,4) ", "[1,2,3,4;", "<loc_1>", "<box>1 2 3 ", "none.\n", '{"a":'):
        text = (seed * (100_000 // len(seed) + 1))[:100_000]
        assert _seconds(text, dialect) < 1  # 0.2 on a machine of its own


# --- limits of the rules --------------------------------------------------------------------------

TWO = [(100, 100), (100, 100)]


def plainly(text: str, dialect: str = "norm1000", **options: Any) -> Answer:
    return read_answer(text, get_dialect(dialect), **options)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[1000, 100, 1200, 300]", "invalid_box"),  # touches the right border from outside
        ("[100, 1000, 300, 1200]", "invalid_box"),
        ("[-500, 100, -200, 300]", "invalid_box"),  # wholly left of the image
        ("[100, -500, 300, -200]", "invalid_box"),
        ("[-200, 100, 0, 300]", "invalid_box"),
        ("[999, 100, 1200, 300]", "ok"),
        ("[100, 100, 100, 300]", "invalid_box"),
        ("[100, 300, 300, 300]", "invalid_box"),
    ],
)
def test_what_lies_outside_is_no_box_and_what_reaches_inside_is_one(text: str, status: str) -> None:
    assert plainly(text).status == status


@pytest.mark.parametrize(
    ("text", "clipped"),
    [
        ("[0.1, 0.1, 0.5, 1.0000000001]", False),  # rounding, not the model's doing
        ("[0.1, 0.1, 0.5, 1.001]", True),
        ("[-0.0000000001, 0.1, 0.5, 0.9]", False),
        ("[0, 0, 1, 1]", False),
    ],
)
def test_only_a_box_that_reaches_outside_is_clipped(text: str, clipped: bool) -> None:
    answer = plainly(text, "norm1")
    assert (answer.status, answer.clipped) == ("ok", clipped)
    assert answer.box is not None and min(answer.box) >= 0 and max(answer.box) <= 1


@pytest.mark.parametrize(
    ("text", "image"),
    [
        # A name that a few words separate from its box labels it where it begins its sentence.
        ("On the second image you find the cup at [100, 100, 300, 300]", 1),
        ("Yes. No. In the second image you find it at [100, 100, 300, 300]", 1),
        (f"{'It is far away from here ' * 3}. In the second image you find it at [1, 1, 9, 9]", 1),
        ("The cup that the second image shows is at [100, 100, 300, 300]", None),
        ("Image 2, that is image 2: [100, 100, 300, 300]", 1),
        ("Image 2[100, 100, 300, 300]", 1),
        # Of the names before a box the last four are looked at.
        ("Image 1, image 2, image 2, image 2, image 2: [100, 100, 300, 300]", 1),
    ],
)
def test_which_image_a_name_before_a_box_labels(text: str, image: int | None) -> None:
    # Only boxes labelled with the requested image count, or those without any label.
    other = "Image 1: [500, 500, 900, 900]\n"
    answer = plainly(f"{other}{text}", image_sizes=TWO, target_image=1)
    assert (answer.status == "ok") == (image == 1 or answer.box is not None)
    assert answer.image_index == (1 if image == 1 else answer.image_index)
    if image == 1:
        alone = plainly(text, image_sizes=TWO, target_image=0)
        assert alone.status == "no_box", "a box that is labelled with another image"


def test_a_name_that_labels_the_next_box_is_counted_from_the_box_before() -> None:
    first = f"{'So it is. ' * 6}[500, 500, 900, 900]"
    text = f"{first} and in the second image you find it at [100, 100, 300, 300]"
    answer = plainly(text, image_sizes=TWO, target_image=0)
    assert answer.box == (0.5, 0.5, 0.9, 0.9), "the second box is labelled with another image"


@pytest.mark.parametrize(("dashes", "labelled"), [(60, True), (61, False)])
def test_a_name_labels_from_the_start_of_sixty_characters(dashes: int, labelled: bool) -> None:
    words = "in the "
    text = f"{'-' * (dashes - len(words))}{words}second image you find it at [100, 100, 300, 300]"
    ((start, _, _),) = find_image_names(text, 2)
    assert start == dashes
    alone = plainly(text, image_sizes=TWO, target_image=0)
    assert (alone.status == "no_box") == labelled


@pytest.mark.parametrize(("dashes", "labelled"), [(51, True), (52, False)])
def test_a_sentence_begins_within_sixty_characters_of_its_name(dashes: int, labelled: bool) -> None:
    text = f"So it is. {'-' * dashes}in the second image you find it at [100, 100, 300, 300]"
    answer = plainly(text, image_sizes=TWO, target_image=0)
    assert (answer.status == "no_box") == labelled


@pytest.mark.parametrize(("spaces", "of_the_first"), [(77, True), (78, False)])
def test_a_name_after_a_box_belongs_to_it_within_eighty_characters(
    spaces: int, of_the_first: bool
) -> None:
    text = f"[100, 100, 300, 300]{' ' * spaces}in image 2, [500, 500, 900, 900]"
    # Of the first box, it labels none, and the last unit counts; else it labels the second box as
    # one of another image, and only the first is left.
    answer = plainly(text, image_sizes=TWO, target_image=0)
    assert answer.box == ((0.5, 0.5, 0.9, 0.9) if of_the_first else (0.1, 0.1, 0.3, 0.3))


@pytest.mark.parametrize(
    ("image", "sizes", "index"),
    [(2, None, 1), (2, TWO, 1), (3, TWO, None), (3, [*TWO, (100, 100)], 2)],
)
def test_an_image_under_a_key_is_one_that_there_is(
    image: int, sizes: list[tuple[int, int]] | None, index: int | None
) -> None:
    text = f'[{{"image": {image}, "bbox_2d": [100, 100, 300, 300]}}]'
    assert plainly(text, "qwen3_vl", image_sizes=sizes).image_index == index


@pytest.mark.parametrize(("target", "status"), [(1, "none"), (0, "no_box")])
def test_an_absence_names_the_last_image_of_those_that_are_not_listed(
    target: int, status: str
) -> None:
    text = "The cup of image 1 is not in image 2."
    assert plainly(text, image_sizes=TWO, target_image=target).status == status


def test_two_empty_lists_are_a_none() -> None:
    assert plainly("[] and []").status == "none"


def test_an_answer_without_anything_has_no_unit() -> None:
    answer = plainly("I see a cup.")
    assert (answer.status, answer.n_boxes, answer.n_units) == ("no_box", 0, 0)


def test_an_image_may_be_one_pixel_wide_and_a_target_has_to_be_there() -> None:
    assert plainly("[0, 0, 1, 1]", "pixels", image_sizes=[(1, 1)]).box == (0.0, 0.0, 1.0, 1.0)
    with pytest.raises(UserError, match=r"image size .* at least 1"):
        plainly("[0, 0, 1, 1]", "pixels", image_sizes=[(0, 1)])
    with pytest.raises(UserError, match="target_image is 2 with sizes of 2 images"):
        plainly("[0, 0, 1, 1]", image_sizes=TWO, target_image=2)
