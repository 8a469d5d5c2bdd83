"""GroundingME's rule against one written straight from its description, and cases by hand."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import runpy
import time
from collections import defaultdict
from pathlib import Path

import pytest
from factories import make_sample

from univg_eval.errors import UserError
from univg_eval.published_rules import PUBLISHED_RULES, measure_published
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import Response

SIZE = (2000, 500)
BOX = (400, 100, 800, 300)  # pixels; on 0-1 (0.2, 0.2, 0.4, 0.6)
ON_999 = [199.8, 199.8, 399.6, 599.4]


def sample(
    box=BOX, task="spatial", kind: str | None = "Counting", size=SIZE, number=0
) -> GroundingSample:
    """A sample on one image; `box` in pixels, None: the object is absent."""
    width, height = size
    targets = ()
    if box is not None:
        x1, y1, x2, y2 = box
        targets = (Target(0, (x1 / width, y1 / height, x2 / width, y2 / height)),)
    return make_sample(
        number,
        task=task,
        images=("toy/a.png",),
        widths=(width,),
        heights=(height,),
        targets=targets,
        extra={"subtask_l2": kind},
    )


def measure(*pairs: tuple[GroundingSample, str | None]) -> dict[str, float]:
    samples, texts = zip(*pairs, strict=True)
    return measure_published("groundingme", samples, [Response(text) for text in texts], "qwen3_vl")


REJECTED = sample(None, "rejection", "Text")


def bbox(*numbers) -> str:
    return json.dumps({"bbox_2d": numbers})


READINGS = [
    # (response, IoU with BOX; why)
    (bbox(*BOX), 1, "as pixels"),
    (bbox(*ON_999), 1, "as thousandths, divided by 999"),
    (bbox(0.2, 0.2, 0.4, 0.6), 1, "as shares"),
    (bbox(0.2, 0.2, 0.4, 1), 0.5, "as shares"),
    (bbox(0.2, 0.2, 0.4, 1.2), 0, "a number above 1: no shares any more"),
    (bbox(400, 100, 800, 200), 0.5, "half of it"),
    (f"```json\n{bbox(*BOX)}\n```", 1, "JSON in a fence"),
    ('{"label": {"bbox_2d": [1, 2, 3, 4]}} 400 100 800 300', 1, "the key is not the object's own"),
    ('{"bbox_2d": ["400", "100", "800", "300"]}', 1, "numbers as strings"),
    ('{"bbox_2d": [400, 100, 800]} 400, 100, 800, 300', 1, "three numbers are no box"),
    ('{"bbox_2d": []} 400, 100, 800, 300', 1, "an empty list is not null"),
    (r'{"bbox\u005f2d": [1, 2, 3, 4]} "bbox_2d" 400 100 800 300', 1, "no key between the braces"),
    ("at (400, 100, 800, 300), or so", 1, "four numbers in a text"),
    ("[1, 2, 3, 4] or 400 100 800 300", 1, "the last four"),
    ("400 100 800 300 [1, 2, 3, 4]", 0, "the last four"),
    ("1, 2, 3, 4, 400, 100, 800, 300", 1, "each number is of one match only"),
    ("7, 400, 100, 800, 300", 0, "from the left: 7, 400, 100, 800"),
    (f"{bbox(*BOX)} not {bbox(1, 2, 3, 4)}", 0, "two objects are no JSON: the last four numbers"),
    ('[{"bbox_2d": [400, 100, 800, 300]}]', 1, "the list around the object is not looked at"),
    ("12.400 100 800 300", 400 / 787.6, "a decimal"),
    ("1.2.400 100 800 300", 400 / 797.6, "from a digit within on: 2.400"),
    (bbox(800, 300, 400, 100), 0, "inverted"),
    ('{"bbox_2d": [NaN, 100, 800, 300]}', 0, "Python's JSON reads it"),
    ('{"bbox_2d": [0, 0, Infinity, Infinity]}', 0, "Python's JSON reads it"),
    ("nothing", 0, "zeros"),
    ('{"bbox_2d": null}', 0, "zeros"),
]


@pytest.mark.parametrize(("text", "iou"), [case[:2] for case in READINGS])
def test_what_a_response_is_read_as(text, iou):
    assert measure((sample(), text))["iou"] == pytest.approx(iou, abs=1e-9)


REJECTIONS = [
    # (response, right by the authors, right here; why)
    ('{"bbox_2d": null}', 1, 1, "what the prompt asks for"),
    ("There is no such object.", 1, 1, "no numbers"),
    ("", 1, 0, "silence is zeros"),
    ("I can't help with that.", 1, 0, "nothing readable is zeros"),
    ('{"bbox_2d": [0, 0, 0, 0]}', 1, 0, "literal zeros"),
    ('{"bbox_2d": [0.0, -0.0, 0, 0]}', 1, 0, "literal zeros"),
    (bbox(0, 0, 0, 1), 0, 0, "a box"),
    (bbox(*BOX), 0, 0, "a box"),
    ('{"bbox_2d": [NaN, 0, 0, 0]}', 0, 0, "not zeros"),
]


@pytest.mark.parametrize(("text", "published", "corrected"), [case[:3] for case in REJECTIONS])
def test_rejections(text, published, corrected):
    metrics = measure((REJECTED, text))
    for name in ("iou", "acc@0.9", "rejection_acc@0.75", "rejection_text_acc@0.5"):
        assert metrics[name] == published, name
        assert metrics[f"{name}_corrected"] == corrected, name


def test_samples_without_a_response_leave_the_denominator_of_the_authors_only():
    metrics = measure((sample(), bbox(200, 200, 400, 600)), (sample(), None), (REJECTED, None))
    assert metrics["n"] == 1
    # On 0-1000, as qwen3_vl writes; on 0-999 the box is 0.1 % larger.
    assert metrics["acc@0.9"] == 1
    assert metrics["acc@0.9_corrected"] == pytest.approx(1 / 3)
    assert metrics["iou_corrected"] == pytest.approx(1 / 3)
    assert "rejection_acc@0.5" not in metrics
    assert metrics["rejection_acc@0.5_corrected"] == 0
    silent = measure((sample(), None))
    assert silent["n"] == 0 and "iou" not in silent and silent["iou_corrected"] == 0


def test_the_corrected_box_is_read_in_the_dialect_alone():
    in_pixels = measure((sample(), bbox(*BOX)))
    assert in_pixels["acc@0.9"] == 1 and in_pixels["acc@0.5_corrected"] == 0


def test_thresholds_are_reached_by_equality():
    half = measure((sample((0, 0, 100, 100), size=(200, 200)), bbox(0, 0, 100, 50)))
    assert half["acc@0.5"] == 1 and half["acc@0.75"] == 0 and half["iou"] == 0.5


def test_names_of_metrics():
    metrics = measure(
        (sample(), ""), (sample(kind=None), ""), (sample(task="limited", kind=""), "")
    )
    published = {name for name in metrics if not name.endswith("_corrected")}
    accuracies = [f"acc@{threshold}" for threshold in (0.5, 0.75, 0.9)]
    assert published == {
        "n",
        "iou",
        *accuracies,
        *(f"spatial_{name}" for name in accuracies),
        *(f"limited_{name}" for name in accuracies),
        "spatial_counting_acc@0.5",
    }
    assert {name for name in metrics if name.endswith("_corrected")} == {
        f"{name}_corrected" for name in published - {"n"}
    }


@pytest.mark.parametrize(
    ("faulty", "match"),
    [
        (make_sample(widths=(), heights=(), images=("a.png",)), "1 images and 0 sizes"),
        (make_sample(), "2 images and 2 sizes"),
        (
            make_sample(targets=(Target(0, (0, 0, 1, 1)),) * 2, widths=(9,), heights=(9,)),
            "2 targets",
        ),
    ],
)
def test_samples_that_are_none_of_the_set_are_refused(faulty, match):
    with pytest.raises(UserError, match=match):
        PUBLISHED_RULES["groundingme"].measure(
            [(faulty, None, "[1, 2, 3, 4]")]  # the answer is not reached
        )


def test_a_task_of_the_second_level_is_a_text():
    with pytest.raises(UserError, match=r"extra\.subtask_l2 is 7\.5; expected the name of a task"):
        measure((sample(kind=7.5), bbox(*BOX)))


@pytest.mark.parametrize(
    "text", ["1" * 200_000, "{" * 200_000, '{"bbox_2d"' * 20_000, "1 ," * 70_000]
)
def test_reading_takes_time_linear_in_the_text(text):
    begin = time.perf_counter()
    measure_published("groundingme", [REJECTED], [Response(text)], "qwen3_vl")
    assert time.perf_counter() - begin < 5


# --- the rule once more, from its description ----------------------------------------------------

_N = r"(-?\d+(?:\.\d+)?)"


def naive_read(text):
    """Greedy from a brace to a brace around the key; else the last four separated numbers."""
    found = re.search(r'(?s)\{.*"bbox_2d".*\}', text)
    try:
        value = json.loads(found[0])["bbox_2d"]
    except (TypeError, ValueError, KeyError):
        value = ()
    if value is None:
        return (0, 0, 0, 0)
    try:
        if type(value) is list and len(value) == 4:
            return tuple(float(number) for number in value)
    except (TypeError, ValueError):
        pass
    quadruples = re.findall(rf"{_N}[\s,]+{_N}[\s,]+{_N}[\s,]+{_N}", text)
    return tuple(float(number) for number in quadruples[-1]) if quadruples else (0, 0, 0, 0)


def naive_iou(truth, box):
    sides = [
        max(0.0, min(truth[axis + 2], box[axis + 2]) - max(truth[axis], box[axis]))
        for axis in (0, 1)
    ]
    shared = sides[0] * sides[1]
    union = -shared
    for x1, y1, x2, y2 in (truth, box):
        union += (x2 - x1) * (y2 - y1)
    return shared / union if union > 0 else 0.0


def naive_metrics(rows):
    """rows: (truth in pixels or None, task, second level, (width, height), text or None)."""
    values = defaultdict(list)
    n = 0
    for truth, task, kind, (width, height), text in rows:
        if text is None:
            continue
        n += 1
        numbers = naive_read(text)
        if truth is None:
            iou = 1.0 if all(number == 0 for number in numbers) else 0.0
        else:
            x1, y1, x2, y2 = numbers
            if max(numbers) > 1:
                x1, y1, x2, y2 = x1 / 999, y1 / 999, x2 / 999, y2 / 999
            other = (x1 * width, y1 * height, x2 * width, y2 * height)
            iou = max(naive_iou(truth, numbers), naive_iou(truth, other))
        values["iou"].append(iou)
        for threshold in (0.5, 0.75, 0.9):
            values[f"acc@{threshold}"].append(iou >= threshold)
            values[f"{task}_acc@{threshold}"].append(iou >= threshold)
        if kind:
            values[f"{task}_{kind.lower()}_acc@0.5"].append(iou >= 0.5)
    return {"n": n} | {name: sum(found) / len(found) for name, found in values.items()}


PIECES = [
    *("{", "}", '"bbox_2d"', ": ", "[", "]", "null", "-", ".", ",", ", ", " ", "\n", "(", ")"),
    *("100", "110", "200", "190", "0.3", "0.6", "333", "666", "0", "\u0663", '"100"', "1e2", "-4"),
    *('{"bbox_2d": [100, 110, 200, 190]}', '{"bbox_2d": null}', "[100,100,200,200]", "true", "0,"),
]


def random_rows(rng: random.Random):
    for _ in range(rng.randint(1, 30)):
        task = rng.choice(["discriminative", "spatial", "limited", "rejection"])
        kind = rng.choice(["Appearance", "Text", None])
        size = (rng.randint(201, 900), rng.randint(201, 900))
        truth = (100, 100, 200, 200)
        near = [value + rng.randint(-12, 12) for value in truth]
        width, height = size
        scaled = [value / side * 999 for value, side in zip(near, size * 2, strict=True)]
        shares = [value / side for value, side in zip(near, (width, height) * 2, strict=True)]
        text = rng.choice(
            [
                *(bbox(*numbers) for numbers in (near, scaled, shares)),
                str(near),
                f"{bbox(*shares)} or {bbox(*near)}",
                None,
                *("".join(rng.choices(PIECES, k=rng.randint(0, 14))) for _ in range(6)),
            ]
        )
        yield (None if task == "rejection" else truth), task, kind, size, text


@pytest.mark.parametrize("seed", range(60))
def test_the_rule_agrees_with_its_description(seed):
    rows = list(random_rows(random.Random(seed)))
    measured = measure(
        *((sample(truth, task, kind, size), text) for truth, task, kind, size, text in rows)
    )
    published = {name: v for name, v in measured.items() if not name.endswith("_corrected")}
    assert published == pytest.approx(naive_metrics(rows), abs=1e-9)


def test_lmms_eval_tries_two_readings_more():
    package = importlib.util.find_spec("lmms_eval")
    if package is None:
        pytest.skip("lmms_eval is not installed")
    # The module alone: importing the package takes long.
    task = Path(package.origin).parent / "tasks" / "groundingme" / "utils.py"
    upstream = runpy.run_path(str(task))
    width, height = 1024, 300
    truth = [100, 50, 400, 200]
    resized = upstream["smart_resize_qwen"](height, width)  # (height, width)
    assert resized != (height, width)
    # It divides x by the resized height and y by the resized width.
    numbers = [v * r / s for v, r, s in zip(truth, resized * 2, (width, height) * 2, strict=True)]
    row = {"id": 0, "description": "", "bbox": truth, "width": width, "height": height}
    row |= {"subtask_l1": "Spatial", "subtask_l2": "Counting"}
    lmms = upstream["groundingme_process_result"](row, [bbox(*numbers)])["groundingme_IoU"]["iou"]
    authors = measure((sample(truth, size=(width, height)), bbox(*numbers)))["iou"]
    assert lmms == pytest.approx(1) and authors < 0.5
