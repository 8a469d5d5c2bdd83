"""The text of a request, character by character."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from factories import make_sample

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.prompts import build_prompt, default_prompt_style, localize_question, prompt_hash

BOX = "<|box_start|>(250,500),(500,750)<|box_end|>"
TRACK = f"For the object marked in the first image({BOX}), please locate it in the 2th image. "


def test_think_prompt_is_the_published_text() -> None:
    sample = make_sample(instruction=TRACK)
    assert build_prompt(sample, get_dialect("univg_r1"), "think") == (
        TRACK + " First output the thinking process in <think> </think> tags and then output the"
        " bounding box in <answer> </answer> tags."
    )


def test_direct_prompt_asks_for_the_dialects_form() -> None:
    sample = make_sample(instruction="Find it. ")
    assert build_prompt(sample, get_dialect("qwen2_vl"), "direct") == (
        "Find it. Format:<|box_start|>(x1,y1),(x2,y2)<|box_end|>. Don't generate addtional words."
    )


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("internvl", ["250", "500", "500", "750"]),
        ("norm1", ["0.25", "0.5", "0.5", "0.75"]),
        # y first, 0-1000.
        ("gemini", ["500", "250", "750", "500"]),
        # Pixels of the first image, 640 x 480.
        ("pixels", ["160", "240", "320", "360"]),
        # Pixels after the resize to multiples of 28: 640 x 480 becomes 644 x 476.
        ("qwen2_5_vl", ["161", "238", "322", "357"]),
    ],
)
def test_a_box_in_the_instruction_is_rewritten(name: str, numbers: list[str]) -> None:
    prompt = build_prompt(make_sample(instruction=TRACK), get_dialect(name), "think")
    rewritten = prompt.partition(" First output")[0]
    assert "box_start" not in rewritten
    position = 0
    for number in numbers:
        position = rewritten.index(number, position) + len(number)


@pytest.mark.parametrize("name", ["qwen2_vl", "migician", "univg_r1"])
def test_the_canonical_form_is_that_of_qwen2_vl(name: str) -> None:
    assert localize_question(TRACK, get_dialect(name)) == TRACK
    # Marks of phrases are dropped for other families.
    phrase = "Find <|object_ref_start|>a red kite<|object_ref_end|>."
    assert localize_question(phrase, get_dialect("internvl")) == "Find a red kite."


def test_the_recorded_input_size_wins_over_the_resize_rule() -> None:
    # (0.25, 0.5, 0.5, 0.75) of a first image that the model saw at 400 x 200.
    sample = make_sample(instruction=TRACK)
    sizes = [(400, 200), (100, 100)]
    prompt = build_prompt(sample, get_dialect("qwen2_5_vl"), "direct", input_sizes=sizes)
    assert "[100, 100, 200, 150]" in prompt


def test_a_box_in_pixels_needs_the_image_size() -> None:
    sample = make_sample(instruction=TRACK, widths=(), heights=())
    with pytest.raises(UserError, match="'pixels' writes boxes in pixels"):
        build_prompt(sample, get_dialect("pixels"), "direct")


ONE: dict[str, Any] = {"images": ("a.png",), "widths": (640,), "heights": (480,), "targets": ()}


def test_a_contract_in_pixels_states_the_sizes() -> None:
    sample = make_sample(instruction="Find it.")
    assert build_prompt(sample, get_dialect("pixels"), "direct") == (
        "Find it. Image 1 is 640 pixels wide and 480 pixels high. Image 2 is 320 pixels wide and "
        "240 pixels high. Answer with the bounding box as [x1, y1, x2, y2] in pixels of the image."
    )
    alone = make_sample(
        instruction="Find it.", images=("a.png",), widths=(640,), heights=(480,), targets=()
    )
    assert build_prompt(alone, get_dialect("pixels"), "think").startswith(
        "Find it. The image is 640 pixels wide and 480 pixels high. First output the thinking"
    )
    # Of the image as Claude's service shows it, from what the backend sends.
    big = make_sample(instruction="Find it.", **(ONE | {"widths": (1920,), "heights": (1080,)}))
    prompt = build_prompt(big, get_dialect("claude"), "direct")
    assert prompt.startswith("Find it. The image is 1456 pixels wide and 819 pixels high. Answer")
    prompt = build_prompt(big, get_dialect("claude"), "direct", input_sizes=[(960, 540)])
    assert "960 pixels wide and 540 pixels high" in prompt
    # Families that were trained on the pixels of their own input are asked as they were trained.
    assert "wide" not in build_prompt(alone, get_dialect("qwen2_5_vl"), "direct")
    with pytest.raises(UserError, match=r"'pixels' is in pixels.*prepare the benchmark"):
        build_prompt(make_sample(widths=(), heights=()), get_dialect("pixels"), "direct")


@pytest.mark.parametrize(
    ("dialect", "prompt"),
    [
        ("qwen2_5_vl", "Locate a {cup} in this image and output the bbox coordinates in JSON "
                       "format."),
        ("qwen3_vl", 'Locate every object that matches the description "a {cup}" in the image. '
                     "Report bbox coordinates in JSON format."),
        ("internvl", "Please provide the bounding box coordinate of the region this sentence "
                     "describes: <ref>a {cup}</ref>"),
        ("paligemma", "detect a {cup}\n"),
        ("florence2", "<CAPTION_TO_PHRASE_GROUNDING>a {cup}"),
    ],
)  # fmt: skip
def test_official_prompts(dialect: str, prompt: str) -> None:
    sample = make_sample(extra={"expression": "a {cup}"}, **ONE)
    assert build_prompt(sample, get_dialect(dialect), "official") == prompt


@pytest.mark.parametrize(
    ("dialect", "style", "prompt"),
    [
        ("locate_anything", "direct", "Find all. Locate all the instances that match the "
                                      "description."),
        ("locate_anything", "official", "Locate all the instances that match the following "
                                        "description: cups."),
        ("rex_omni", "official", "Detect cups. Output the bounding box coordinates in "
                                 "[x0, y0, x1, y1] format."),
        ("florence2", "official", "<OPEN_VOCABULARY_DETECTION>cups"),
        ("paligemma", "official", "detect cups\n"),
        ("shikra", "direct", "Find all. Answer with the coordinates [x1,y1,x2,y2] only."),
    ],
)  # fmt: skip
def test_where_every_object_is_asked_for_the_prompt_is_the_familys_for_that(
    dialect: str, style: str, prompt: str
) -> None:
    changes = {"extra": {"expression": "cups"}, "instruction": "Find all.", "find_all": True}
    sample = make_sample(**changes, **ONE)
    assert build_prompt(sample, get_dialect(dialect), style) == prompt
    family = get_dialect("locate_anything")
    assert prompt_hash(family, "direct") != prompt_hash(
        replace(family, prompt_suffix_all=""), "direct"
    )


@pytest.mark.parametrize(
    ("dialect", "changes", "match"),
    [
        (
            "internvl",
            {"extra": {"expression": "a cup"}, "find_all": True, **ONE},
            "no published grounding prompt of dialect 'internvl' for every object that fits",
        ),
        ("qwen3_vl", {"extra": {"expression": "a cup"}}, "no referring expression about one image"),
        ("qwen3_vl", ONE, "no referring expression about one image"),
        ("mimo_vl", ONE, "no published grounding prompt of dialect 'mimo_vl'"),
        ("norm1000", ONE, "no published grounding prompt"),
    ],
)
def test_an_official_prompt_is_refused(dialect: str, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        build_prompt(make_sample(**changes), get_dialect(dialect), "official")


def test_prompt_styles() -> None:
    styles = {name: default_prompt_style(name) for name in ("univg_r1", "vlm_r1", "qwen2_vl")}
    assert styles == {"univg_r1": "think", "vlm_r1": "think", "qwen2_vl": "direct"}
    with pytest.raises(UserError, match=r"'cot'.*: think, direct"):
        build_prompt(make_sample(), get_dialect("qwen2_vl"), "cot")
    qwen, intern = get_dialect("qwen2_vl"), get_dialect("internvl")
    assert prompt_hash(qwen, "direct") != prompt_hash(intern, "direct")
    assert prompt_hash(qwen, "direct") != prompt_hash(qwen, "think")
    assert prompt_hash(qwen, "think") == prompt_hash(intern, "think")
