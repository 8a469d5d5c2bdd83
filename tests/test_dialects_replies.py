"""Tables of raw replies: one row a reply, with the expected reading and the reason.

``tests/data/replies_<dialect>.jsonl``; expected boxes are fractions or decimals worked out by hand
from the family's rule, see each row's ``reason`` and ``source``.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.protocols import parse_answer

DATA = Path(__file__).parent / "data"
FIELDS = {
    "text", "image_wh", "input_wh", "images", "target_image", "status", "box", "boxes",
    "image_index", "clipped", "reason", "source", "n_boxes",
}  # fmt: skip


def _rows() -> list[Any]:
    rows = []
    for path in sorted(DATA.glob("replies_*.jsonl")):
        dialect = path.stem.removeprefix("replies_")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            rows.append(pytest.param(dialect, json.loads(line), id=f"{dialect}:{number}"))
    return rows


def _box(values: list[str]) -> tuple[float, ...]:
    """Decimals or quotients of decimals, as the tables write them."""
    numbers = []
    for value in values:
        numerator, _, denominator = value.partition("/")
        numbers.append(float(Fraction(numerator) / Fraction(denominator or "1")))
    return tuple(numbers)


@pytest.mark.parametrize(("dialect", "row"), _rows())
def test_reply(dialect: str, row: dict[str, Any]) -> None:
    reason = row["reason"]
    assert set(row) <= FIELDS and reason
    sizes = row["image_wh"]
    if not isinstance(sizes[0], list):
        sizes = [sizes] * row["images"]
    assert len(sizes) == row["images"]
    answer = read_answer(
        row["text"],
        get_dialect(dialect),
        image_sizes=[tuple(size) for size in sizes],
        input_sizes=[tuple(row["input_wh"])] * row["images"] if row["input_wh"] else None,
        target_image=row["target_image"],
    )
    assert answer.status == row["status"], reason
    expected = None if row["box"] is None else pytest.approx(_box(row["box"]), abs=1e-9)
    assert answer.box == expected, reason
    assert len(answer.boxes) == len(answer.box_images) == len(row["boxes"]), reason
    for box, known in zip(answer.boxes, row["boxes"], strict=True):
        assert box == pytest.approx(_box(known), abs=1e-9), reason
    assert answer.image_index == row["image_index"], reason
    assert answer.clipped is row["clipped"], reason
    assert answer.n_boxes == row.get("n_boxes", len(row["boxes"])), reason


def test_every_dialect_has_a_table() -> None:
    tables = {path.stem.removeprefix("replies_") for path in DATA.glob("replies_*.jsonl")}
    assert tables == set(list_dialects())


def test_collected_facts_agree(shared_dir: Path) -> None:
    """Every example of the collected facts is read as stated there, or it says why not."""
    facts = json.loads((shared_dir / "facts" / "dialects.json").read_text(encoding="utf-8"))
    examples = [(e["id"], example) for e in facts["dialects"] for example in e["examples"]]
    assert len(examples) >= 40
    for name, example in examples:
        text, named = example["text"], example["image_index"]
        n_images = max(named or [1])
        sizes = {
            f"{of}_sizes": [tuple(example[f"{of}_wh"])] * n_images
            for of in ("image", "input")
            if example[f"{of}_wh"]
        }
        answer = read_answer(text, get_dialect(name), **sizes)
        if example["norm_xyxy"] is None:
            assert not get_dialect(name).gives_boxes
            assert answer.status == "no_box", text
            continue
        assert answer.status == "ok", text
        assert len(answer.boxes) == len(example["norm_xyxy"]), text
        for box, norm in zip(answer.boxes, example["norm_xyxy"], strict=True):
            assert box == pytest.approx(norm, abs=1e-6), text
        if named is not None:
            assert answer.image_index == named[0] - 1


def test_collected_answers_are_read_as_stated(shared_dir: Path) -> None:
    """Answers of public reports and of peers' tests, each with its right reading."""
    rows = (shared_dir / "data" / "replies" / "cases.jsonl").read_text(encoding="utf-8")
    cases = [json.loads(line) for line in rows.splitlines()]
    assert len(cases) >= 90
    for case in cases:
        answer = parse_answer(
            case["response"],
            case["dialect"],
            image_sizes=[tuple(size) for size in case["image_sizes"]],
            input_sizes=case["input_sizes"] and [tuple(size) for size in case["input_sizes"]],
            target_image=case["target_image"],
            protocol=case["protocol"],
        )
        expected = case["expected"]
        box = None if expected["box"] is None else pytest.approx(expected["box"], abs=1e-4)
        assert (answer.status, answer.box) == (expected["status"], box), case["id"]
        if expected["image_index"] is not None:
            assert answer.image_index == expected["image_index"], case["id"]
