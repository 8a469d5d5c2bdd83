"""ms-swift's rows: boxes in a field of their own take the places of ``<bbox>`` in the texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_forms import draw, write_list

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect
from univg_train.data import RowError, TrainingData, make_rendering, open_training_data

SIZES = {"wide.png": (1500, 1800), "sheep.png": (900, 800), "small.png": (100, 50)}
WIDE, SHEEP, SMALL = SIZES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("swift"), SIZES)


def swift_row(
    question: str, answer: str, images: list[str] | None = None, **objects: Any
) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "images": [SHEEP] if images is None else images,
        "objects": objects,
    }


def opened(folder: Path, *rows: dict[str, Any], dialect: str, **choices: Any) -> TrainingData:
    how = make_rendering(dialect, **{"style": "direct", "purpose": "sft"} | choices)
    return open_training_data("ms_swift", write_list(folder / "rows.json", list(rows)), how)


def texts(data: TrainingData, position: int = 0) -> list[str]:
    columns = data.columns(position)
    messages = columns["prompt"] + columns["completion"]
    return ["".join(part.get("text", "<image>") for part in m["content"]) for m in messages]


# ms-swift's documentation shows each of these rows a second time as Qwen2-VL is to see it.
DOCUMENTED = [
    (
        swift_row(
            "<image>Describe the image.",
            "<ref-object><bbox> and <ref-object><bbox> are playing on the beach",
            [WIDE],
            ref=["a dog", "a woman"],
            bbox=[[331.5, 761.4, 853.5, 1594.8], [676.5, 685.8, 1099.5, 1427.4]],
        ),
        "<image>Describe the image.",
        "<|object_ref_start|>a dog<|object_ref_end|><|box_start|>(221,423),(569,886)<|box_end|> "
        "and <|object_ref_start|>a woman<|object_ref_end|>"
        "<|box_start|>(451,381),(733,793)<|box_end|> are playing on the beach",
    ),
    (
        swift_row(
            "<image>Find the <ref-object> in the image",
            "<bbox><bbox>",
            ref=["sheep"],
            bbox=[[90.9, 160.8, 135, 212.8], [360.9, 480.8, 495, 532.8]],
        ),
        "<image>Find the <|object_ref_start|>sheep<|object_ref_end|> in the image",
        "<|box_start|>(101,201),(150,266)<|box_end|><|box_start|>(401,601),(550,666)<|box_end|>",
    ),
]


@pytest.mark.parametrize(("row", "question", "answer"), DOCUMENTED)
def test_the_documented_rows(folder: Path, row: dict[str, Any], question: str, answer: str) -> None:
    data = opened(folder, row, dialect="qwen2_vl")
    asked, said = texts(data)
    assert asked.startswith(question) and said == answer
    numbers = [int(n) / 1000 for n in re.findall(r"\d+", answer)]
    found = [number for target in data.columns(0)["targets"] for number in target["box"]]
    assert found == pytest.approx(numbers, abs=1e-12)


SHEEP_BOXES = [[90.9, 160.8, 135, 212.8], [360.9, 480.8, 495, 532.8]]
ONE_JSON = '{"bbox_2d": <bbox>, "label": "<ref-object>"}'


@pytest.mark.parametrize(
    ("answer", "n"),
    [
        (f"[\n\t{ONE_JSON},\n\t{ONE_JSON}\n]", 2),  # as documented for Qwen3-VL
        (f"[\n\t{ONE_JSON}\n\t{ONE_JSON}\n]", 2),  # likewise
        (f"```json\n[\n\t{ONE_JSON}\n]\n```", 1),
        ('{"label": "sheep", "bbox_2d": <bbox>}', 1),
    ],
)
@pytest.mark.parametrize("dialect", ["qwen3_vl", "qwen2_5_vl", "univg_r1", "internvl"])
def test_a_list_of_objects_is_written_as_the_dialect_writes_it(
    folder: Path, answer: str, n: int, dialect: str
) -> None:
    row = swift_row("<image>Find it", answer, ref=["sheep"] * 3, bbox=SHEEP_BOXES[:n])
    data = opened(folder, row, dialect=dialect)
    (*_, said), columns = texts(data), data.columns(0)
    known = get_dialect(dialect)
    written = [
        known.encode(
            target["box"],
            image_wh=SIZES[SHEEP],
            input_wh=tuple(columns["input_sizes"][0]) if columns["input_sizes"] else None,
        )
        for target in columns["targets"]
    ]
    assert len(written) == n and said == ", ".join(written)


def test_two_boxes_in_one_object_are_both_kept(folder: Path) -> None:
    row = swift_row("<image>Both?", '{"dog": <bbox>, "cat": <bbox>}', bbox=SHEEP_BOXES)
    assert len(opened(folder, row, dialect="univg_r1").columns(0)["targets"]) == 2


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_coordinates_are_converted_as_ms_swift_does(folder: Path, data: st.DataObject) -> None:
    """On 0-1000 a number is x / width * 1000 of its own image, rounded."""
    images = data.draw(st.permutations(list(SIZES)))[: data.draw(st.integers(1, 3))]
    kind = data.draw(st.sampled_from([None, "real", "norm1"]))
    n = data.draw(st.integers(1, 3))
    ids = [data.draw(st.integers(0, len(images) - 1)) for _ in range(n)]
    boxes, expected = [], []
    for image in ids:
        width, height = (1, 1) if kind == "norm1" else SIZES[images[image]]
        x1, y1 = (data.draw(st.integers(0, 900)) for _ in "xy")
        x2, y2 = (data.draw(st.integers(low + 50, 1000)) for low in (x1, y1))
        expected += [x1, y1, x2, y2]
        boxes.append([x1 * width / 1000, y1 * height / 1000, x2 * width / 1000, y2 * height / 1000])
    objects = {"bbox": boxes, "image_id": ids} | ({"bbox_type": kind} if kind else {})
    row = swift_row("<image>" * len(images) + "W?", "<bbox>" * n, images, **objects)
    opened_rows = opened(folder, row, dialect="qwen3_vl")
    assert [int(n) for n in re.findall(r"(?<=[\[ ])\d+", texts(opened_rows)[-1])] == expected
    assert [target["image"] for target in opened_rows.columns(0)["targets"]] == ids


TWO: dict[str, Any] = {"images": [SHEEP, SMALL], "question": "<image><image>Where is the cup?"}


@pytest.mark.parametrize(
    ("answer", "objects", "image", "box"),
    [
        # ms-swift measures a box without image_id on the first image.
        ("<bbox>", {"bbox": [[90, 80, 450, 400]]}, 0, [0.1, 0.1, 0.5, 0.5]),
        ("<bbox>", {"bbox": [[10, 5, 50, 25]], "image_id": [1]}, 1, [0.1, 0.1, 0.5, 0.5]),
        ("<bbox>", {"bbox": [["10", "5", "50", "25"]], "image_id": [1]}, 1, [0.1, 0.1, 0.5, 0.5]),
        (
            "<bbox>",
            {"bbox": [[0.1, 0.1, 0.5, 0.5]], "bbox_type": "norm1"},
            None,
            [0.1, 0.1, 0.5, 0.5],
        ),
        (
            "It's in the second image. <bbox>",
            {"bbox": [[0.1, 0.1, 0.5, 0.5]], "bbox_type": "norm1"},
            1,
            [0.1, 0.1, 0.5, 0.5],
        ),
        # What is stated is believed.
        (
            "It's in the second image. <bbox>",
            {"bbox": [[90, 80, 450, 400]], "image_id": [0]},
            0,
            [0.1, 0.1, 0.5, 0.5],
        ),
    ],
)
def test_the_image_of_a_box(
    folder: Path, answer: str, objects: dict[str, Any], image: int | None, box: list[float]
) -> None:
    row = swift_row(TWO["question"], answer, TWO["images"], **objects)
    (target,) = opened(folder, row, dialect="univg_r1").columns(0)["targets"]
    assert target["image"] == image and target["box"] == pytest.approx(box)


def test_boxes_of_questions_and_of_earlier_turns(folder: Path) -> None:
    row = swift_row(
        "<image>What is at <bbox>?",
        "<ref-object>",
        [SHEEP, SMALL],
        ref=["a sheep"],
        bbox=[[90, 80, 450, 400], [10, 5, 50, 25]],
        image_id=[0, 1],
    )
    later = [("user", "<image>And in the second image?"), ("assistant", "<think>Hm.</think><bbox>")]
    row["messages"] += [{"role": role, "content": content} for role, content in later]
    data = opened(folder, row, dialect="qwen2_5_vl", history=True)
    first, second = texts(data, 0), texts(data, 1)
    # 900x800 is seen as 896x812, 100x50 as 112x56.
    assert second[0] == '<image>What is at {"bbox_2d": [90, 81, 448, 406]}?'
    assert first[0].startswith(second[0]) and first[1:] == ["a sheep"]
    assert second[1] == "a sheep" and second[2].startswith("<image>And in the second image?")
    assert second[3] == '{"bbox_2d": [11, 6, 56, 28]}'
    thinking = opened(folder, row, dialect="univg_r1", style="think")
    assert texts(thinking)[-1] == "<think>Hm.</think><answer>(100,100),(500,500)</answer>"
    assert thinking.report.left_out == {"no_chain": 1}


@pytest.mark.parametrize(("answer", "status"), [("[]", "none"), ("There is no such dog.", "none")])
def test_an_answer_without_boxes(folder: Path, answer: str, status: str) -> None:
    row = swift_row("<image>Find the dog", answer)
    data = opened(folder, row | {"objects": None}, dialect="qwen3_vl")
    assert texts(data)[-1] == answer and data.columns(0)["targets"] == []
    assert read_answer(answer, get_dialect("qwen3_vl")).status == status


ONE = {"bbox": [[90, 80, 450, 400]]}


@pytest.mark.parametrize(
    ("changes", "objects", "kind", "match"),
    [
        ({}, {"bbox": []}, "invalid_row", "0 values in objects.bbox and 1 marks <bbox>"),
        ({"answer": "Here."}, ONE, "invalid_row", "1 values in objects.bbox and 0 marks"),
        ({"answer": "<ref-object><bbox>"}, ONE, "invalid_row", "0 values in objects.ref and 1 ma"),
        ({"answer": "<ref-object><bbox>"}, ONE | {"ref": [7]}, "invalid_row", "objects.ref is 7"),
        (
            {},
            ONE | {"bbox_type": "norm1000"},
            "invalid_row",
            "'norm1000'; expected 'real' .* or 'n",
        ),
        (
            {},
            ONE | {"image_id": [1]},
            "invalid_row",
            r"image_id is \[1\]; expected .* 0 to 0 a box",
        ),
        ({}, ONE | {"image_id": [-1]}, "invalid_row", r"image_id is \[-1\]"),
        ({}, ONE | {"image_id": [0, 0]}, "invalid_row", r"image_id is \[0, 0\]"),
        ({}, {"bbox": "all"}, "invalid_row", "objects.bbox is 'all'; expected a list"),
        (
            {},
            {"bbox": [[615, 226]]},
            "invalid_box",
            r"bbox\[0\], of type 'real': box is \[615, 226",
        ),
        ({}, {"bbox": [[450, 80, 90, 400]]}, "invalid_box", "x2 is not larger than x1"),
        ({}, {"bbox": [[90, 80, 950, 400]]}, "invalid_box", "x2 = 950 lies outside 0 to 900"),
        ({}, {"bbox": [[0.1, 0.1, 0.5, 0.5]]}, "invalid_box", "0-1 have the space 'norm1'"),
        ({}, ONE | {"bbox_type": "norm1"}, "invalid_box", "is the space 'pixels'"),
        ({"answer": "(1,2),(3,4) <bbox>"}, ONE, "invalid_row", "a box is written out in"),
        ({"answer": "<bbox:0> <bbox>"}, ONE, "invalid_row", "a box is written out in"),
        (
            TWO | {"answer": "In the second image: <bbox>"},
            ONE,
            "invalid_row",
            "lies on image 0 without an image_id, and on image 1 by its answer",
        ),
    ],
)
def test_objects_that_do_not_fit(
    folder: Path, changes: dict[str, Any], objects: dict[str, Any], kind: str, match: str
) -> None:
    row = swift_row(**{"question": "<image>W?", "answer": "<bbox>"} | changes, **objects)
    with pytest.raises(RowError, match=f"rows.json: row 0.*{match}") as caught:
        opened(folder, row, dialect="univg_r1")
    assert caught.value.kind == kind


def test_a_box_on_an_image_that_is_shown_later(folder: Path) -> None:
    row = swift_row("<image>W?", "<bbox>", [SHEEP, SMALL], bbox=[[10, 5, 50, 25]], image_id=[1])
    row["messages"] += [{"role": "user", "content": "<image>?"}, {"role": "gpt", "content": "No."}]
    with pytest.raises(RowError, match="question 0: a box lies on an image that is shown later"):
        opened(folder, row, dialect="univg_r1")


SCALARS = st.none() | st.booleans() | st.integers(-9, 999) | st.text('<bbox>0:{}[]"', max_size=9)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=6)


@settings(max_examples=100, deadline=None)
@given(
    objects=SCALARS
    | st.dictionaries(st.sampled_from(["bbox", "ref", "bbox_type", "image_id"]), VALUES),
    answer=st.text("<>", max_size=2)
    | st.sampled_from(["<bbox>", "{<bbox>", '[{"a": <bbox>}', "<bbox:1>"]),
)
def test_whatever_objects_hold_the_row_is_used_or_named(
    folder: Path, objects: Any, answer: str
) -> None:
    row = swift_row("<image>W?", answer) | {"objects": objects}
    good = swift_row("<image>W?", "<bbox>", **ONE)
    path = folder / "fuzz.json"
    path.write_text(json.dumps([good, row]), encoding="utf-8")
    how = make_rendering("qwen3_vl", style="direct", purpose="sft")
    data = open_training_data("ms_swift", path, how, on_bad="skip")
    assert len(data) + data.report.n_bad == 2
