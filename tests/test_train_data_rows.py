"""Training files of every form become rows that TRL takes; bad ones are named and counted."""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest
from factories import make_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training_forms import (
    MGROUNDING_SIZES,
    THINK,
    chat,
    draw,
    mgrounding_row,
    stage1_row,
    stage2_row,
    vlm_r1_row,
    write_list,
)

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.errors import UserError
from univg_eval.images import reading
from univg_eval.prompts import build_prompt
from univg_eval.samples import GroundingSample, Target, write_benchmark
from univg_eval.scoring import given_image
from univg_train.data import (
    FORMS,
    RowError,
    TrainingData,
    check_training_data,
    make_rendering,
    open_training_data,
)

PAIR_SIZES = {"MGrounding-630k/a.png": (200, 100), "MGrounding-630k/b.png": (100, 300)}
A, B = PAIR_SIZES
TOY_SIZES = {"a.png": (640, 480), "b.png": (320, 240)}


def open_rows(
    path: Path | str, form: str, dialect: str = "univg_r1", **choices: Any
) -> TrainingData:
    names = ("images", "space", "seed", "on_bad", "decode", "root")
    opening = {name: choices.pop(name) for name in names if name in choices}
    return open_training_data(form, path, make_rendering(dialect, **choices), **opening)


def rows_of(folder: Path, form: str, *rows: Any, **choices: Any) -> TrainingData:
    """The data of these rows in one list; all images that they name are there."""
    draw(folder, PAIR_SIZES | MGROUNDING_SIZES)
    return open_rows(write_list(folder / "rows.json", list(rows)), form, **choices)


def json_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def toy(root: Path, *samples: GroundingSample, sizes: dict[str, Any] = TOY_SIZES) -> None:
    """A prepared benchmark of the name toy."""
    draw(root / "toy" / "images", sizes)
    write_benchmark(samples, root=root, benchmark="toy", manifest_extra={})


def text_of(message: dict[str, Any]) -> str:
    return "".join("<image>" if p["type"] == "image" else p["text"] for p in message["content"])


def prompt(data: TrainingData, position: int = 0) -> list[str]:
    return [text_of(message) for message in data.columns(position)["prompt"]]


def completion(data: TrainingData, position: int = 0) -> str:
    (message,) = data.columns(position)["completion"]
    assert message["role"] == "assistant"
    return text_of(message)


def column(data: TrainingData, name: str) -> list[Any]:
    return [data.columns(i)[name] for i in range(len(data))]


# Forms


def test_mgrounding_gives_one_row_a_question(tmp_path: Path) -> None:
    data = rows_of(tmp_path, "mgrounding", mgrounding_row())
    first = data.columns(0)
    ((message,), image) = first["prompt"], {"type": "image"}
    text = "Give the bounding box of the region this sentence refers to: "
    text += "<|object_ref_start|>a statue of a man<|object_ref_end|>." + THINK
    content = [image, image, image, {"type": "text", "text": text}]
    assert message == {"role": "user", "content": content}
    assert first["solution"] == [0.316, 0.058, 0.764, 0.999]
    assert first["targets"] == [{"image": 2, "box": [0.316, 0.058, 0.764, 0.999]}]
    assert first["target_image"] is None, "the model has to find it"
    assert first["image_sizes"] == [[200, 100], [100, 100], [100, 300]]
    assert first["input_sizes"] is None
    assert first["source"] == "mgrounding/gg_train"
    assert (first["dialect"], first["style"], first["single_image"]) == ("univg_r1", "think", False)
    assert "completion" not in first
    assert [image.size for image in data[0]["images"]] == [(200, 100), (100, 100), (100, 300)]
    assert column(data, "id") == ["mgrounding-000000-0", "mgrounding-000000-1"]
    assert data.columns(1)["solution"] == [0.408, 0.656, 0.578, 0.997]
    assert prompt(data, 1)[0].startswith("<image><image><image>Recognize the target")


FIRST_BOX = "<|box_start|>(1,2),(3,4)<|box_end|>"
LAST_BOX = "<|box_start|>(5,6),(7,8)<|box_end|>"
INSIDE = chat("Find the cup of <image> in <image>.", FIRST_BOX, "Find the plate.", LAST_BOX)
LATER = chat("<image>\nFind the cup.", FIRST_BOX, "<image>\nFind it in the second image.", LAST_BOX)


@pytest.mark.parametrize(
    ("turns", "history", "messages"),
    [
        # Images stand where their marks stand, in the turn itself and in those before it.
        (INSIDE[:2], False, ["Find the cup of <image> in <image>." + THINK]),
        (INSIDE, False, ["<image><image>Find the plate." + THINK]),
        (INSIDE, True, [INSIDE[0]["value"], FIRST_BOX, "Find the plate." + THINK]),
        # Images of a later turn are shown from then on.
        (LATER[:2], False, ["<image>Find the cup." + THINK]),
        (LATER, False, ["<image><image>Find it in the second image." + THINK]),
        (
            LATER,
            True,
            ["<image>Find the cup.", FIRST_BOX, "<image>Find it in the second image." + THINK],
        ),
    ],
)
def test_images_and_earlier_turns_keep_their_places(
    tmp_path: Path, turns: list[Any], history: bool, messages: list[str]
) -> None:
    n_images = sum(turn["value"].count("<image>") for turn in turns)
    row = {"images": [A, B][:n_images], "conversations": turns}
    data = rows_of(tmp_path, "mgrounding", row, history=history)
    assert prompt(data, -1) == messages
    assert len(data[-1]["images"]) == n_images
    roles = [message["role"] for message in data.columns(-1)["prompt"]]
    assert roles == ["user", "assistant", "user"][-len(messages) :]


CUP = "<image><image>Find the cup of the first image in the second image." + THINK


def test_stage1_gives_the_chain_and_no_double_request(tmp_path: Path) -> None:
    other = stage1_row()  # in the other spelling of LLaMA-Factory
    other["messages"] = [
        {"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]}
        for turn in other.pop("conversations")
    ]
    data = rows_of(tmp_path, "univg_r1_stage1", stage1_row(), other, purpose="sft")
    for position in range(2):
        assert prompt(data, position) == [CUP]
        assert completion(data, position) == (
            "<think>The first image shows a red cup. In the second image it stands left.</think>"
            "<answer>(100,200),(300,400)</answer>"
        )
    assert column(data, "target_image") == [1, 1]


@pytest.mark.parametrize(
    "names", ["from human gpt value", "role user assistant content", "role human assistant value"]
)
@pytest.mark.parametrize("system", ["You are a helpful assistant.", "", "<|im_end|>"])
def test_a_leading_system_turn_is_not_asked(tmp_path: Path, names: str, system: str) -> None:
    """Prompts are the evaluation's, which has none; everything else is as without it."""
    who, human, gpt, said = names.split()
    question, answer = (turn["value"] for turn in stage1_row()["conversations"])
    turns = [{who: "system", said: system}, {who: human, said: question}, {who: gpt, said: answer}]
    rows = [stage1_row(conversations=turns), stage1_row(system=system)]
    data = rows_of(tmp_path, "univg_r1_stage1", *rows, purpose="sft", history=True)
    assert data.columns(0) | {"id": ""} == data.columns(1) | {"id": ""}
    assert prompt(data) == [CUP]


def test_stage2_puts_all_images_first(tmp_path: Path) -> None:
    data = rows_of(tmp_path, "univg_r1_stage2", stage2_row())
    assert prompt(data) == [CUP]
    assert data.columns(0)["solution"] == [0.1, 0.2, 0.3, 0.4]
    assert data.columns(0)["source"] == "univg_r1_stage2"


def test_numbers_in_quotes_are_numbers(tmp_path: Path) -> None:
    quoted = [["100", "200", "300", "400"], ["100.0", 200, " 300 ", "+400."]]
    data = rows_of(tmp_path, "univg_r1_stage2", *(stage2_row(answer=box) for box in quoted))
    assert column(data, "solution") == [[0.1, 0.2, 0.3, 0.4]] * 2


COCO = "dataset/coco/train2014/COCO_train2014_000000000009.png"
PREFIX = "This is a single image grounding task with simple reference. "


@pytest.mark.parametrize(
    ("form", "make"), [("univg_r1_stage1", stage1_row), ("univg_r1_stage2", stage2_row)]
)
def test_simple_references_are_found_row_by_row(tmp_path: Path, form: str, make: Any) -> None:
    """The released code decides this for a whole batch by its first row."""
    draw(tmp_path, {COCO: (100, 100)})
    simple = {"images": [COCO], "question": "<image>\nThe left dog."}
    simple["conversations"] = chat("<image>\nThe left dog.", "(100,200),(300,400)")
    data = rows_of(tmp_path, form, make(), make(**simple), make())
    assert column(data, "single_image") == [False, True, False]
    assert column(data, "style") == ["think", "direct", "think"]
    assert prompt(data, 1) == [f"<image>{PREFIX}The left dog."]
    thinking = rows_of(tmp_path, form, make(**simple), single_images_direct=False)
    assert prompt(thinking) == ["<image>The left dog." + THINK]
    assert column(thinking, "single_image") == [False]


def test_simple_references_by_column_and_by_prefix(tmp_path: Path) -> None:
    changes = [
        {"question": "The dog.", "single_image": True},
        {"question": f"<image>{PREFIX}The dog."},
        {"question": "The dog."},
    ]
    rows = [stage2_row(images=[A], **change) for change in changes]
    data = rows_of(tmp_path, "univg_r1_stage2", *rows)
    assert column(data, "single_image") == [True, True, False]
    assert prompt(data, 1) == [f"<image>{PREFIX}The dog."]


@pytest.mark.parametrize(
    ("value", "space"),
    [
        ([64, 48, 320, 240], None),
        ("[64, 48, 320, 240]", None),
        (["64", "48", "320.0", 240], None),
        ('["64", \'48\', "320.0", 240]', None),
        ('{"bbox_2d": ["64", "48", "320", "240"]}', None),
        ("<answer> [64.0, 48, 320, 240] </answer>", "pixels"),
        ('{"bbox_2d": [64, 48, 320, 240], "label": "lady"}', None),
        ("[100, 100, 500, 500]", "norm1000"),
        ([0.1, 0.1, 0.5, 0.5], "norm1"),
    ],
)
def test_vlm_r1_boxes_are_pixels_of_the_image_unless_stated(
    tmp_path: Path, value: Any, space: str | None
) -> None:
    draw(tmp_path / "coco", {"train2014/COCO_train2014_000000581857.png": (640, 480)})
    row = vlm_r1_row()
    row["conversations"][1]["value"] = value
    path = json_lines(tmp_path / "refcoco_train.jsonl", row)
    data = open_rows(path, "vlm_r1", "vlm_r1", images=tmp_path / "coco", space=space)
    columns = data.columns(0)
    assert columns["solution"] == pytest.approx([0.1, 0.1, 0.5, 0.5])
    assert columns["target_image"] == 0 and columns["single_image"] is False
    assert columns["input_sizes"] == [[644, 476]]
    assert prompt(data)[0].startswith("<image>Please provide the bounding box")


def test_vlm_r1_with_several_images(tmp_path: Path) -> None:
    draw(tmp_path, PAIR_SIZES)

    def opened(question: str, answer: str) -> TrainingData:
        row = vlm_r1_row(image=[A, B], conversations=chat("<image><image>" + question, answer))
        return open_rows(json_lines(tmp_path / "gui.jsonl", row), "vlm_r1")

    data = opened("The cup in the second image?", "Image 2: [10, 30, 50, 150]")
    assert data.columns(0)["targets"] == [{"image": 1, "box": [0.1, 0.1, 0.5, 0.5]}]
    with pytest.raises(RowError, match=r"gui.jsonl:1: a box in pixels lies on one of 2 images"):
        opened("The cup?", "[10, 30, 50, 150]")


def test_samples_of_a_benchmark(tmp_path: Path) -> None:
    targets = tuple(Target(image, (0.1, 0.1, 0.2, 0.2)) for image in (0, 1))
    samples = [
        make_sample(0),
        make_sample(1, image_is_given=False, instruction="Where is the odd one?"),
        make_sample(2, targets=()),
        make_sample(3, targets=targets),
    ]
    toy(tmp_path, *samples)
    data = open_rows("toy", "samples", root=tmp_path)
    # As the evaluation reads it: the one that the instruction names.
    assert column(data, "target_image") == [given_image(sample) for sample in samples]
    assert column(data, "target_image") == [1, None, 1, 1]
    assert column(data, "image_is_given") == [True, False, True, True]
    assert column(data, "solution") == [[0.1, 0.2, 0.3, 0.4]] * 2 + [None] * 2
    assert [len(found) for found in column(data, "targets")] == [1, 1, 0, 2]
    assert column(data, "id") == [f"toy-0000{i}" for i in range(4)]
    assert data.report.kinds == {"one_target": 2, "no_target": 1, "several_targets": 1}
    assert data.report.sources == {"toy/find": 4}
    released = open_rows("toy", "samples", root=tmp_path, several=False)
    assert (len(released), released.report.left_out) == (3, {"several_targets": 1})
    assert [image.size for image in data[0]["images"]] == [(640, 480), (320, 240)]
    for position, sample in enumerate(samples):
        evaluated = build_prompt(sample, get_dialect("univg_r1"), "think")
        assert prompt(data, position) == ["<image><image>" + evaluated]
    written = open_rows("toy", "samples", root=tmp_path, purpose="sft", style="direct")
    assert [completion(written, i) for i in range(4)] == [
        "(100,200),(300,400)",
        "It's in the second image. (100,200),(300,400)",
        "There is no such object.",
        "Image 1: (100,100),(200,200)\nImage 2: (100,100),(200,200)",
    ]
    assert read_answer(completion(written, 2), get_dialect("univg_r1")).status == "none"


def test_rows_of_ones_own(tmp_path: Path) -> None:
    draw(tmp_path, {"a.png": (200, 100), "b.png": (100, 300)})
    path = json_lines(
        tmp_path / "own.jsonl",
        {"space": "pixels"},
        {"images": "a.png", "instruction": "The dog.", "box": [20, 10, 100, 50], "group": "dogs"},
        {"images": ["a.png", "b.png"], "instruction": "The cat.", "box": [10, 30, 50, 150],
         "target_image": 2, "find_image": True},
        {"images": "a.png", "instruction": "The elephant.", "box": None},
    )  # fmt: skip
    data = open_rows(path, "custom", "qwen3_vl", purpose="sft")
    assert column(data, "solution") == [[0.1, 0.1, 0.5, 0.5]] * 2 + [None]
    assert completion(data, 1) == 'It\'s in the second image. {"bbox_2d": [100, 100, 500, 500]}'
    assert data.report.sources == {"custom/dogs": 1, "custom/custom": 2}
    assert [image.size for image in data[1]["images"]] == [(200, 100), (100, 300)]


# Dialects


@pytest.mark.parametrize(
    "dialect", [name for name in list_dialects() if get_dialect(name).gives_boxes]
)
def test_a_completion_is_read_back_as_the_solution(tmp_path: Path, dialect: str) -> None:
    row = stage1_row()
    row["conversations"][0]["value"] = "<image><image>The cup in the second image?"
    choices = {"dialect": dialect, "purpose": "sft", "style": "think"}
    data = rows_of(tmp_path, "univg_r1_stage1", row, **choices)
    columns = data.columns(0)
    answer = read_answer(
        completion(data),
        get_dialect(dialect),
        image_sizes=[tuple(size) for size in columns["image_sizes"]],
        input_sizes=columns["input_sizes"] and [tuple(s) for s in columns["input_sizes"]],
        target_image=columns["target_image"],
    )
    assert answer.status == "ok" and answer.thinking is not None
    assert answer.box == pytest.approx(columns["solution"], abs=0.04)  # Kosmos-2 has 32 cells


BOTH = "Image 1: (0,0),(500,500). Image 2: (0,0),(500,500)."
QWEN_BOTH = 'Image 1: {"bbox_2d": [0, 0, 98, 56]}. Image 2: {"bbox_2d": [0, 0, 56, 154]}.'
STATUE = "It's in the third image. "


@pytest.mark.parametrize(
    ("row", "dialect", "expected"),
    [
        (mgrounding_row(), "qwen2_vl", STATUE + "<|box_start|>(316,58),(764,999)<|box_end|>"),
        (mgrounding_row(), "qwen3_vl", STATUE + '{"bbox_2d": [316, 58, 764, 999]}'),
        # Pixels of the third image, 100x300, which is resized to 112x308.
        (mgrounding_row(), "qwen2_5_vl", STATUE + '{"bbox_2d": [35, 18, 86, 308]}'),
        # Half of 200x100, resized to 196x112, and of 100x300, resized to 112x308.
        (stage1_row(conversations=chat("The common object?", BOTH)), "qwen2_5_vl", QWEN_BOTH),
    ],
)
def test_a_released_answer_keeps_its_words_and_changes_its_boxes(
    tmp_path: Path, row: dict[str, Any], dialect: str, expected: str
) -> None:
    choices = {"dialect": dialect, "purpose": "sft", "style": "direct"}
    assert completion(rows_of(tmp_path, "mgrounding", row, **choices)) == expected


def test_texts_serve_supervised_training_only(tmp_path: Path) -> None:
    unknown = "(0,0),(500,500); (0,0),(500,500)"  # of two images, which are not named
    answers = [BOTH, "A wooden chair.", "There is none.", unknown]
    rows = [stage1_row(conversations=chat("Where is the object?", text)) for text in answers]
    rewarded = rows_of(tmp_path, "mgrounding", *rows)
    assert rewarded.report.left_out == {"no_box": 1, "unknown_image": 1}
    assert column(rewarded, "solution") == [None, None]
    assert [target["image"] for target in rewarded.columns(0)["targets"]] == [0, 1]
    data = rows_of(tmp_path, "mgrounding", *rows, purpose="sft", style="direct")
    assert [completion(data, i) for i in range(4)] == answers
    assert data.report.kinds == {"several_targets": 2, "text": 1, "no_target": 1}
    assert column(data, "solution") == [None] * 4


def test_reasoning_is_not_learned_from_rows_without_it(tmp_path: Path) -> None:
    rows = [stage1_row(), stage1_row(conversations=chat("The cup?", "(1,2),(3,4)"))]
    data = rows_of(tmp_path, "univg_r1_stage1", *rows, purpose="sft", style="think")
    assert len(data) == 1 and data.report.left_out == {"no_chain": 1}


def test_pixels_of_an_unknown_image_are_not_written(tmp_path: Path) -> None:
    row = stage2_row(question="Where is the cup?")
    with pytest.raises(UserError, match="1 left out as unknown_image"):
        rows_of(tmp_path, "univg_r1_stage2", row, dialect="qwen2_5_vl", purpose="sft")
    assert len(rows_of(tmp_path, "univg_r1_stage2", row, dialect="qwen2_5_vl")) == 1
    row = stage2_row(question="Find <|box_start|>(1,2),(30,40)<|box_end|> in the second image.")
    with pytest.raises(UserError, match="1 left out as unknown_image"):
        rows_of(tmp_path, "univg_r1_stage2", row, dialect="qwen2_5_vl")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dialect": "qwen9_vl"}, "unknown dialect 'qwen9_vl'"),
        ({"dialect": "molmo"}, "gives points, not boxes"),
        ({"dialect": "univg_r1", "style": "loud"}, "unknown prompt style 'loud'"),
        ({"dialect": "univg_r1", "purpose": "dpo"}, "unknown purpose 'dpo'; expected one of: sft"),
        ({"dialect": "qwen2_5_vl", "min_pixels": 9999, "max_pixels": 10}, "min_pixels is 9999"),
    ],
)
def test_impossible_renderings_are_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        make_rendering(**changes)


# Bad rows

OK_CHAT = chat("<image>Where?", "(1,2),(30,40)")
TWICE = chat("Where?", "(1,2),(30,40)", "<image>And now?", "(1,2),(30,40)")
BAD_CHATS = [
    (chat("<image>Where?"), "invalid_row", "the last question has no answer"),
    (chat("", "(1,2),(3,4)"), "invalid_row", r"conversations\[0\]: its text is ''"),
    ([], "invalid_row", r"'conversations' is \[\]"),
    (OK_CHAT[::-1], "invalid_row", "is from 'gpt'; expected 'human'"),
    ([*OK_CHAT, {"from": "system", "value": "S"}], "invalid_row", r"\[2\] is from 'system'; expec"),
    ([{"from": "system", "value": "S"}], "invalid_row", "holds a system turn alone"),
    ([{"from": "human"}, {}], "invalid_row", r"conversations\[0\]: its text is None"),
    (["<image>"], "invalid_row", r"conversations\[0\] is '<image>'; expected an object"),
    (chat("<image><image>W?", "(1,2),(3,4)"), "invalid_row", "1 images and 2 marks <image>"),
    (chat("<image>", "(1,2),(30,40)"), "invalid_row", "the question holds no words"),
    (TWICE, "invalid_row", "question 0: comes before any image"),
    (chat("<image>Where?", "(30,20),(3,4)"), "invalid_box", "x2 is not larger than x1"),
    (chat("<image>Where?", "(1,2),(3,2)"), "invalid_box", "y2 is not larger than y1"),
    (chat("<image>Where?", "(1,2),(1300,4)"), "invalid_box", "x2 = 1300 lies outside 0 to 1000"),
    (chat("<image>Where?", "(0,0),(1,1)"), "invalid_box", "a single point at the image's corner"),
    (chat("<image>Where?<|im_end|>", "(1,2),(3,4)"), "invalid_row", r"holds <\|im_end\|>, which"),
    (chat("<image>Where?", "<|image_pad|>(1,2),(3,4)"), "invalid_row", r"holds <\|image_pad\|>"),
    (chat("<video>Where?", "(1,2),(3,4)"), "invalid_row", "holds <video>, which"),
    (chat("<image>Where?", "<think>Well, (1,2),(3,4)"), "invalid_row", "does not close it"),
]
BAD_STAGE2 = [
    ({"images": []}, "invalid_row", r"field 'images' is \[\]; expected the paths"),
    ({"images": [7]}, "invalid_row", r"field 'images' is \[7\]"),
    ({"images": None}, "invalid_row", "field 'images' is None"),
    ({"images": ["c.png"]}, "missing_image", "'c.png' is not"),
    ({"images": ["../secret.png"]}, "invalid_row", "expected a path that stays within"),
    ({"images": ["broken.png"]}, "unreadable_image", "cannot read .*broken.png as an image"),
    ({"images": ["a.mp4#frame=x"]}, "invalid_row", "frame 'x' is not a whole number"),
    ({"question": "<image>W?"}, "invalid_row", "2 images and 1 marks"),
    ({"images": [A], "question": "<image>"}, "invalid_row", "holds no words"),
    ({"question": None}, "invalid_row", "field 'question' is None; expected text"),
    ({"question": "\ud800"}, "invalid_row", "half of a surrogate pair"),
    ({"answer": [1, 2, 3]}, "invalid_box", r"box is \[1, 2, 3\]; expected four numbers"),
    ({"answer": "(1,2),(3,4)"}, "invalid_box", "expected four numbers"),
    ({"answer": [True, 2, 3, 4]}, "invalid_box", "expected four numbers"),
    ({"answer": ["1", "2", "3", "4px"]}, "invalid_box", "expected four numbers"),
    ({"answer": ["1", "2", "nan", "4"]}, "invalid_box", "expected four numbers"),
    ({"answer": ["1", "2", "9" * 400, "4"]}, "invalid_box", "expected four numbers"),
    ({"answer": [0.1, 0.2, 0.3, 0.4]}, "invalid_box", "numbers on 0-1 have the space 'norm1'"),
    ({"answer": [-5, 20, 10, 40]}, "invalid_box", "x1 = -5 lies outside"),
    ({"single_image": "yes"}, "invalid_row", "'single_image' is 'yes'; expected true or false"),
    ({"single_image": True}, "invalid_row", "is true, and the row has 2 images"),
]
BAD_ROWS = [
    *(("mgrounding", {"images": [A], "conversations": turns}, *bad) for turns, *bad in BAD_CHATS),
    *(("univg_r1_stage2", stage2_row(question="W?") | change, *bad) for change, *bad in BAD_STAGE2),
]


@pytest.mark.parametrize(("form", "row", "kind", "match"), BAD_ROWS)
def test_bad_rows(tmp_path: Path, form: str, row: dict[str, Any], kind: str, match: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    good = stage2_row() | {"conversations": chat("Where?", "(1,2),(30,40)")}
    path = draw(tmp_path, PAIR_SIZES) / "rows.json"
    path.write_text(json.dumps([good, row]), encoding="utf-8")  # half of a pair is no UTF-8
    with pytest.raises(RowError, match=f"rows.json: row 1:? ?.*{match}") as caught:
        open_rows(path, form)
    assert caught.value.kind == kind
    data = open_rows(path, form, on_bad="skip")
    assert len(data) == 1 and data.report.bad == {kind: 1}
    assert "rows.json: row 1" in data.report.bad_rows[0]


NO_ROWS = [
    (b'{"images": "x": }', "row 1: not JSON"),
    (b"", "row 3: not JSON"),
    (b'{"answer": NaN}', "NaN is no JSON"),
    (b'{"question": "\xff"}', "is not UTF-8 (byte 14 of it is 0xff)"),
    (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
    (b"[" * 100_000 + b"]" * 100_000, "row 11: not JSON"),  # Python 3.13 reads 5,000
    (b"[1, 2]", "row 13: is [1, 2]; expected an object"),
    (b"7", "row 15: is 7; expected an object"),
]


def test_rows_that_are_no_json_are_skipped_one_by_one(tmp_path: Path) -> None:
    draw(tmp_path, PAIR_SIZES)
    good = json.dumps(stage2_row()).encode()
    path = tmp_path / "rows.json"
    path.write_bytes(b"[" + b",\n".join(raw for bad, _ in NO_ROWS for raw in (good, bad)) + b"]")
    with pytest.raises(RowError, match="row 1: not JSON"):
        open_rows(path, "univg_r1_stage2")
    data = open_rows(path, "univg_r1_stage2", on_bad="skip")
    assert data.report.bad == {"not_json": 6, "invalid_row": 2}
    for message, (_, expected) in zip(data.report.bad_rows, NO_ROWS, strict=True):
        assert expected in message
    assert [int(id_[-6:]) for id_ in column(data, "id")] == list(range(0, 16, 2))


BOXES = ["(1,2),(30,40)", "Image 2: (5,6),(7,8)"]
TEXTS = [A, "human", "gpt", "<image>", *BOXES, "<answer>", "é\ud800"]
KEYS = ["from", "value", "role", "content", "images", "question", "answer", "type"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2000, 2000)
    | st.floats(allow_nan=False)
    | st.sampled_from(TEXTS)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("fuzz"), PAIR_SIZES)


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["mgrounding", "univg_r1_stage1", "univg_r1_stage2", "vlm_r1"]),
    key=st.sampled_from(
        ["images", "image", "conversations", "question", "answer", "single_image", "type"]
    ),
    value=JSON,
    dialect=st.sampled_from(["univg_r1", "qwen2_5_vl"]),
    purpose=st.sampled_from(["sft", "grpo"]),
    history=st.booleans(),
)
def test_whatever_a_row_holds_it_is_used_left_out_or_named(
    fuzzed: Path, form: str, key: str, value: Any, dialect: str, purpose: str, history: bool
) -> None:
    row = stage1_row() | stage2_row() | {key: value}
    path = fuzzed / "rows.json"
    path.write_text(json.dumps([stage1_row() | stage2_row(), row]), encoding="utf-8")
    how = make_rendering(dialect, style="think", purpose=purpose, history=history)
    report = check_training_data(form, path, how)
    assert report.n_read == 2
    assert report.n + report.n_bad + report.left_out.total() >= 2


def test_damaged_pixels_are_found_where_images_are_decoded(tmp_path: Path) -> None:
    data = rows_of(tmp_path, "univg_r1_stage2", stage2_row())
    (tmp_path / B).write_bytes((tmp_path / B).read_bytes()[:-40])
    assert len(open_rows(tmp_path / "rows.json", "univg_r1_stage2")) == 1
    with pytest.raises(UserError, match=r"'univg_r1_stage2-000000': cannot read .*b.png"):
        data[0]
    with pytest.raises(RowError, match=r"row 0: cannot read .*b.png as an image"):
        open_rows(tmp_path / "rows.json", "univg_r1_stage2", decode=True)


def test_only_the_first_faults_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    rows = [stage2_row()] + [stage2_row(answer=[])] * 50
    report = rows_of(tmp_path, "univg_r1_stage2", *rows, on_bad="skip").report
    assert report.n_bad == 50 and len(report.bad_rows) == 20 and report.n_read == 51


def test_bad_rows_of_prepared_samples(tmp_path: Path) -> None:
    toy(tmp_path, make_sample(0), sizes=TOY_SIZES | {"b.png": (300, 240)})
    with pytest.raises(RowError, match=r"have the sizes .*300.*prepare the benchmark again"):
        open_rows("toy", "samples", root=tmp_path)
    toy(tmp_path, make_sample(0, instruction="Is <image> it?"))
    with pytest.raises(RowError, match=r"samples.jsonl:1: 2 images and 1 marks <image> in the "):
        open_rows("toy", "samples", root=tmp_path)
    with pytest.raises(UserError, match="benchmark 'nope' is not prepared"):
        open_rows("nope", "samples", root=tmp_path)


def test_bad_rows_of_ones_own(tmp_path: Path) -> None:
    draw(tmp_path, {"a.png": (64, 48)})
    good = {"images": "a.png", "instruction": "It.", "box": [0.1, 0.1, 0.5, 0.5]}
    bad = [good | {"box": [0.5, 0.5, 0.1, 0.1]}, good | {"images": "no.png"}]
    path = json_lines(tmp_path / "own.jsonl", {"space": "norm1"}, bad[0], good, bad[1])
    with pytest.raises(RowError, match=r"own.jsonl:2: box is .*x2 is not larger than x1"):
        open_rows(path, "custom")
    report = open_rows(path, "custom", on_bad="skip").report
    assert report.bad == {"invalid_row": 1, "missing_image": 1} and report.n == 1


@pytest.mark.parametrize(
    ("form", "opening", "match"),
    [
        ("parquet", {}, r"unknown form 'parquet'; expected one of: mgrounding"),
        ("mgrounding", {"space": "pixels"}, r"have one space; leave the space away"),
        ("vlm_r1", {"space": "feet"}, r"unknown space 'feet'"),
        ("samples", {"images": "."}, r"leave the image folder away"),
        ("mgrounding", {"images": "nowhere"}, r"image folder .*nowhere does not exist"),
        ("mgrounding", {"on_bad": "mend"}, r"on_bad is 'mend'; expected one of: stop, skip"),
        ("mgrounding", {}, r"cannot read .*gone.json"),
    ],
)
def test_impossible_openings_are_refused(
    tmp_path: Path, form: str, opening: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        open_rows(tmp_path / "gone.json", form, **opening)


def test_a_file_without_use_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"among 1 rows \(1 bad rows\)\. First"):
        rows_of(tmp_path, "univg_r1_stage2", stage2_row(answer=[]), on_bad="skip")
    with pytest.raises(UserError, match=r"among 0 rows \(none at all\)"):
        rows_of(tmp_path, "univg_r1_stage2")


# The dataset


def numbered(folder: Path, n: int, **choices: Any) -> TrainingData:
    rows = [stage2_row(question=f"Question {i}, é€😀.") for i in range(n)]
    return rows_of(folder, "univg_r1_stage2", *rows, **choices)


def test_the_order_is_that_of_the_seed(tmp_path: Path) -> None:
    plain = column(numbered(tmp_path, 12), "id")
    path = tmp_path / "rows.json"
    one, again, other = (
        column(open_rows(path, "univg_r1_stage2", seed=seed), "id") for seed in (1, 1, 2)
    )
    assert plain == [f"univg_r1_stage2-{i:06d}" for i in range(12)]
    assert one == again != other
    assert sorted(one) == sorted(other) == plain != one
    # The same on every machine and with every version, or a run cannot be resumed elsewhere.
    assert [int(id_[-6:]) for id_ in one] == [8, 7, 9, 0, 11, 5, 1, 3, 2, 6, 4, 10]


def test_rows_are_found_at_their_places(tmp_path: Path) -> None:
    data = numbered(tmp_path, 5)
    for position, number in ((4, 4), (0, 0), (-1, 4)):
        assert prompt(data, position) == [f"<image><image>Question {number}, é€😀." + THINK]
    assert len(data[1:3]) == 2
    with pytest.raises(IndexError):
        data.row(5)


def test_a_changed_file_is_not_read_on(tmp_path: Path) -> None:
    data = numbered(tmp_path, 2)
    os.utime(tmp_path / "rows.json", ns=(1, 1))
    with pytest.raises(UserError, match=r"rows.json was changed"):
        data[0]


@pytest.mark.parametrize(
    "change",
    [
        {"answer": [100, 200, 300, 401]},
        {"question": "<image><image>Where is the cup in the second image?"},
        {"images": ["MGrounding-630k/b.png", "MGrounding-630k/a.png"]},
        {"single_image": False},  # which it is not: nothing that is trained on changes
    ],
)
def test_the_fingerprint_is_that_of_what_is_trained_on(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Not of the file: neither white space, nor its place, nor the order in training matters."""
    draw(tmp_path / "a", PAIR_SIZES)
    draw(tmp_path / "b", PAIR_SIZES)
    rows = [stage2_row(), stage2_row(answer=[1, 2, 3, 4])]
    data = open_rows(write_list(tmp_path / "a" / "s.json", rows), "univg_r1_stage2")
    other = tmp_path / "b" / "t.json"
    other.write_text(json.dumps(rows, indent=3))
    assert open_rows(other, "univg_r1_stage2", seed=5).fingerprint == data.fingerprint
    other.write_text(json.dumps([rows[0], rows[1] | change]))
    same = open_rows(other, "univg_r1_stage2").fingerprint == data.fingerprint
    assert same is ("single_image" in change)
    other.write_text(json.dumps(rows[::-1]))
    assert open_rows(other, "univg_r1_stage2").fingerprint != data.fingerprint
    assert open_rows(other, "univg_r1_stage2", dialect="norm1").fingerprint != data.fingerprint


def test_the_fingerprint_knows_the_images_names_and_sizes(tmp_path: Path) -> None:
    found = set()
    for size, names in (((20, 10), "ab"), ((20, 10), "ac"), ((20, 10), "ba"), ((21, 10), "ab")):
        draw(tmp_path, {f"d/{name}.png": size for name in "abc"})
        row = stage2_row(images=[f"d/{name}.png" for name in names])
        rows = write_list(tmp_path / "s.json", [row])
        found.add(open_rows(rows, "univg_r1_stage2").fingerprint)
    assert len(found) == 4 and {len(digest) for digest in found} == {64}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_copy_in_another_process_reads_the_same(tmp_path: Path, form: str) -> None:
    draw(tmp_path, {"a.png": (640, 480), "train2014/COCO_train2014_000000581857.png": (640, 480)})
    own = {"images": "a.png", "instruction": "It.", "box": [1, 2, 3, 4], "space": "pixels"}
    settings = {"dialect": "univg_r1", "min_pixels": None, "max_pixels": None}
    manifest = {"settings": settings, "input": {"image_root": str(tmp_path)}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    toy(tmp_path, make_sample(0))
    if form == "samples":
        data = open_rows("toy", form, root=tmp_path)
    elif form in ("custom", "vlm_r1"):
        row = own if form == "custom" else vlm_r1_row()
        data = open_rows(json_lines(tmp_path / "rows.jsonl", row), form)
    else:
        row = stage1_row(id="row-0") | stage2_row()
        if form == "ms_swift":
            row["conversations"] = chat("<image><image>Where?", "<bbox>")
            row["objects"] = {"bbox": [[1, 2, 30, 40]]}
        data = rows_of(tmp_path, form, row)
    copy = pickle.loads(pickle.dumps(data))
    assert copy.columns(0) == data.columns(0)
    assert [i.tobytes() for i in copy[0]["images"]] == [i.tobytes() for i in data[0]["images"]]


def test_opening_holds_neither_rows_nor_images(tmp_path: Path) -> None:
    draw(tmp_path, PAIR_SIZES)
    row = stage2_row(note="x" * 6000)
    path = write_list(tmp_path / "rows.json", [row] * 1000)
    assert path.stat().st_size > 6_000_000
    open_rows(write_list(tmp_path / "one.json", [row]), "univg_r1_stage2")  # imports, tables
    tracemalloc.start()
    try:
        data = open_rows(path, "univg_r1_stage2", seed=1)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data) == 1000
    assert held < 200_000 and peak < 5_000_000


def test_no_decoded_image_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Any]] = []
    load = reading.load_image

    def watched(*args: Any, **kwargs: Any) -> Any:
        image = load(*args, **kwargs)
        held.append(weakref.ref(image))
        return image

    monkeypatch.setattr(reading, "load_image", watched)
    data = numbered(tmp_path, 6, seed=3)
    assert not held, "opening a file decodes no image"
    dataset = data.as_dataset()
    for source in (data, dataset):
        for i in range(len(source)):
            assert len(source[i]["images"]) == 2
    gc.collect()
    assert len(held) == 24 and not [ref for ref in held if ref() is not None]


def test_trl_takes_a_dataset_whose_images_are_opened_on_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    opened: list[str] = []
    load = reading.load_image
    monkeypatch.setattr(reading, "load_image", lambda path: opened.append(path) or load(path))
    dataset = numbered(tmp_path, 4).as_dataset()
    assert isinstance(dataset, datasets.Dataset) and len(dataset) == 4
    batch = dataset[[1, 1, 3]]
    assert len(opened) == 4
    assert [id_[-1] for id_ in batch["id"]] == ["1", "1", "3"]
    assert batch["images"][0][0] is batch["images"][1][0], "a group's images are decoded once"
    assert all(isinstance(image, Image.Image) for images in batch["images"] for image in images)
    assert [row["id"][:-1] for row in dataset.shuffle(seed=1).select([0])] == [batch["id"][0][:-1]]


def scaled_rows(form: str, boxes: list[list[float]]) -> list[dict[str, Any]]:
    """Rows of one image, with boxes that the form states in pixels."""
    rows: list[dict[str, Any]] = []
    for box in boxes:
        turns = chat("<image>It?", "<bbox>" if form == "ms_swift" else json.dumps(box))
        if form == "custom":
            own = {"images": "a.png", "instruction": "It.", "box": box, "space": "pixels"}
            rows.append(own)
        elif form == "ms_swift":
            rows.append({"images": ["a.png"], "messages": turns, "objects": {"bbox": [box]}})
        else:
            rows.append({"image": "a.png", "conversations": turns})
    return rows


@pytest.mark.parametrize(
    ("form", "size", "limit", "n", "space", "warned"),
    [
        ("vlm_r1", (2000, 1500), 1000, 40, None, "no number is larger than 1000; .*norm1000"),
        ("ms_swift", (2000, 1500), 1000, 40, None, '40 boxes .*up to 2000x1500.*"norm1"'),
        ("custom", (2000, 1500), 1000, 40, None, 'if they are on 0-1000, state "space": "norm10'),
        ("vlm_r1", (2000, 1500), 1000, 40, "norm1000", None),
        ("vlm_r1", (2000, 1500), 1001, 40, None, None),
        ("vlm_r1", (2000, 1500), 1000, 19, None, None),  # chance
        ("vlm_r1", (1000, 1000), 1000, 40, None, None),  # they cannot be larger
        ("vlm_r1", (1050, 1050), 1000, 40, None, None),  # nor often
        ("vlm_r1", (1050, 1050), 1000, 150, None, "150 boxes"),  # 1.05 ** -300 is below 1e-6
    ],
)
def test_numbers_on_0_1000_that_are_stated_as_pixels(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    form: str,
    size: tuple[int, int],
    limit: int,
    n: int,
    space: str | None,
    warned: str | None,
) -> None:
    """A warning and no more: the boxes are read as they are stated."""
    draw(tmp_path, {"a.png": size})
    boxes = [[10, 20, 100 + i, 200 + i] for i in range(n - 1)] + [[10, 20, 500, limit]]
    path = json_lines(tmp_path / "rows.jsonl", *scaled_rows(form, boxes))
    data = open_rows(path, form, space=space)
    width, height = (1000, 1000) if space else size
    assert data.columns(0)["solution"] == pytest.approx(
        [10 / width, 20 / height, 100 / width, 200 / height]
    )
    assert len(data.report.warnings) == len(caplog.messages) == bool(warned)
    if warned:
        assert re.search(warned, data.report.warnings[0]), data.report.warnings
        assert "rows.jsonl: " in caplog.text


def test_checking_reports_all_and_ends_at_nothing(tmp_path: Path) -> None:
    draw(tmp_path, MGROUNDING_SIZES)
    broken = mgrounding_row(images=[])
    path = write_list(tmp_path / "m.json", [mgrounding_row(), broken, mgrounding_row(type="x")])
    report = check_training_data("mgrounding", path, make_rendering("univg_r1"))
    assert report.to_dict() == {
        "rows_read": 3,
        "questions": 4,
        "sources": {"mgrounding/gg_train": 2, "mgrounding/x": 2},
        "kinds": {"one_target": 4},
        "left_out": {},
        "bad": {
            "rows": 1,
            "kinds": {"invalid_row": 1},
            "first": ["m.json: row 1: field 'images' is []; expected the paths of its images"],
        },
        "leaks": {"questions": 0, "text_alone": 0, "kinds": {}, "first": []},
        "warnings": [],
    }
