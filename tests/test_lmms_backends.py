"""The baselines score what they promise, in every dialect and on every kind of sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lmms_data
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univg_eval.boxes import box_iou, is_valid_box
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target, write_benchmark
from univg_eval.scoring import aggregate, score_sample

pytest.importorskip("lmms_eval")

from univg_eval.lmms.backends.baseline import KINDS, BaselineModel, box_away_from, is_hit
from univg_eval.lmms.backends.replay import ReplayModel, read_responses
from univg_eval.lmms.settings import ModelUnderTest, resolve_settings

THIRDS = (1 / 3, 1e-7, 2 / 3, 0.9999999)


def samples(n: int = 40) -> list[GroundingSample]:
    found = [lmms_data.make_sample("own", "t", i, image_is_given=i % 2 == 0) for i in range(n)]
    return [*found, lmms_data.make_sample("own", "u", 0, targets=(Target(1, THIRDS),))]


def settings(**environ: str):
    return resolve_settings(ModelUnderTest("univg_baseline"), {}, environ)


def scores(kind: str, rows: list[GroundingSample], dialect: str = "norm1", **args: Any):
    environ = {} if dialect == "norm1" else {"UNIVG_DIALECT": dialect}
    model = BaselineModel(kind=kind, **args)
    return [score_sample(row, model.respond(row, settings(**environ)), dialect) for row in rows]


def macro(kind: str, **args: Any) -> dict[str, float]:
    return aggregate(scores(kind, samples(), **args))["macro"]


def test_the_oracle_scores_exactly_one_in_everything() -> None:
    rows = [*samples(), lmms_data.make_sample("own", "none", 0, targets=())]
    boxes = (Target(0, (0.1, 0.1, 0.2, 0.2)), Target(1, (0.3, 0.3, 0.8, 0.9)))
    rows.append(lmms_data.make_sample("own", "many", 0, targets=boxes, image_is_given=False))
    for task in aggregate(scores("oracle", rows))["tasks"].values():
        metrics = {k: v for k, v in task.items() if not k.startswith("n") and k != "excluded"}
        metrics |= {k: v for k, v in task.items() if k == "no_target_acc"}
        assert set(metrics.values()) == {1.0}, task


@pytest.mark.parametrize("dialect", ["qwen2_vl", "qwen2_5_vl", "internvl", "paligemma", "kosmos2"])
def test_the_oracle_in_a_dialect_of_its_own_loses_only_its_rounding(dialect: str) -> None:
    found = scores("oracle", samples(8), dialect)
    assert all(score.status == "ok" for score in found)
    assert min(score.iou for score in found) > (0.85 if dialect == "kosmos2" else 0.93)


def test_refuse_answers_nothing_and_is_no_claim_of_absence() -> None:
    assert {score.status for score in scores("refuse", samples())} == {"no_box"}
    assert macro("refuse")["answered"] == 0.0


def test_none_is_a_claim_of_absence() -> None:
    absent = lmms_data.make_sample("own", "t", 0, targets=())
    found = scores("none", [*samples(2), absent])
    assert {score.status for score in found} == {"none"}
    assert [score.no_target_right for score in found] == [None, None, None, True]


def test_many_boxes_do_not_beat_their_first() -> None:
    spray, center = macro("spray"), macro("center")
    assert spray == center
    assert scores("spray", samples(1))[0].n_boxes == 25


def test_center_and_full_are_the_boxes_of_their_names() -> None:
    assert {score.box for score in scores("center", samples())} == {(0.25, 0.25, 0.75, 0.75)}
    assert {score.box for score in scores("full", samples())} == {(0.0, 0.0, 1.0, 1.0)}


def test_copy_repeats_the_first_box_of_the_question_on_the_image_asked_for() -> None:
    boxes = "<|box_start|>(100,200),(300,400)<|box_end|>, <|box_start|>(0,0),(9,9)<|box_end|>"
    rows = [
        lmms_data.make_sample("own", "t", 0, instruction=f"Track {boxes} into the second image."),
        lmms_data.make_sample("own", "t", 1, instruction="Where is (100,200),(300,400)?"),
    ]
    assert [score.box for score in scores("copy", rows)] == [
        (0.1, 0.2, 0.3, 0.4),
        (0.25, 0.25, 0.75, 0.75),
    ]
    (in_pixels,) = scores("copy", rows[:1], "pixels")
    assert in_pixels.box == pytest.approx((0.1, 0.2, 0.3, 0.4), abs=0.01)


def test_random_depends_on_the_seed_and_not_on_the_truth() -> None:
    rows = samples()
    moved = [replace(row, targets=(Target(0, THIRDS),)) for row in rows[:40]]
    boxes = [score.box for score in scores("random", rows, seed=1)]
    assert boxes[:40] == [score.box for score in scores("random", moved, seed=1)]
    assert boxes != [score.box for score in scores("random", rows, seed=2)]
    assert len(set(boxes)) == len(boxes)
    assert all(is_valid_box(box) for box in boxes)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_noisy_is_right_exactly_where_its_hash_says(p: float) -> None:
    rows = samples()
    for row, score in zip(rows, scores("noisy", rows, p=p, seed=3), strict=True):
        assert score.status == "ok"
        assert score.iou == (1.0 if is_hit(3, row.id, p) else 0.0)
        assert score.image_right in (None, is_hit(3, row.id, p))


@pytest.mark.parametrize("image_is_given", [True, False])
def test_a_miss_of_noisy_misses_every_target(image_is_given: bool) -> None:
    # The widest strip beside the first target is the second one.
    boxes = (Target(1, (0.0, 0.0, 0.5, 1.0)), Target(1, (0.75, 0.0, 0.9999, 1.0)))
    row = lmms_data.make_sample("own", "t", 0, targets=boxes, image_is_given=image_is_given)
    (score,) = scores("noisy", [row], p=0.0)
    assert (score.status, score.f1, score.matched_iou) == ("ok", 0.0, 0.0)


def test_noisy_is_right_with_its_probability() -> None:
    # 10,000 draws: four standard errors are 0.02.
    for p in (0.1, 0.5, 0.9):
        assert sum(is_hit(0, f"id-{i}", p) for i in range(10_000)) / 10_000 == pytest.approx(
            p, abs=0.02
        )


unit = st.floats(0.0, 1.0)


@given(st.tuples(unit, unit, unit, unit))
def test_the_box_away_from_the_truth_is_valid_and_misses(box: tuple[float, ...]) -> None:
    x1, x2 = sorted((box[0], box[2]))
    y1, y2 = sorted((box[1], box[3]))
    away = box_away_from((x1, y1, x2, y2))
    assert is_valid_box(away)
    # Only a truth that fills the image, or is itself a speck in the corner, can be touched.
    iou = box_iou(away, (x1, y1, x2, y2))
    assert iou == 0.0 or (min(x1, 1 - x2, y1, 1 - y2) < 0.01 and iou < 0.3)


WRONG = [
    ({"kind": "clever"}, "no kind 'clever'"),
    ({}, "no kind ''"),
    ({"kind": "noisy", "p": 1.5}, "p is 1.5; expected a number from 0 to 1"),
    ({"kind": "noisy", "p": "half"}, "p is 'half'"),
    ({"kind": "random", "seed": 0.5}, "seed is 0.5"),
]


def test_wrong_arguments_and_foreign_tasks_stop_the_run(capsys) -> None:
    for arguments, message in WRONG:
        with lmms_data.stops(capsys, message):
            BaselineModel(**arguments)
    for method in ("generate_until_multi_round", "loglikelihood"):
        with lmms_data.stops(capsys, "answer the tasks of univg alone"):
            getattr(BaselineModel(kind="center"), method)([])


def test_every_kind_is_documented() -> None:
    import univg_eval.lmms.backends.baseline as module

    assert all(f"\n{kind} " in (module.__doc__ or "") for kind in KINDS)


# Replay


BAD_FILES = [
    ('{"id": "a"}', "response None"),
    ('{"id": 1, "response": "x"}', "id 1"),
    ("[1]", "expected a JSON object, received list"),
    ("{", "not a JSON value"),
    ('{"id": "a", "response": ""}\n{"id": "a", "response": ""}', "2: duplicate id 'a'"),
    (
        '{"id": "a", "response": "", "dialect": "x"}\n{"id": "b", "response": "", "dialect": "y"}',
        "declare the dialects x, y",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD_FILES)
def test_a_bad_file_of_responses_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        read_responses(file)


class Request:
    """As much of lmms-eval's Instance as the backend reads."""

    def __init__(self, doc_id: int) -> None:
        self.args = ("text", {}, None, doc_id, "task", "test")


def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> list[str]:
    from univg_eval.lmms.docs import SampleDocs

    rows = [lmms_data.make_sample("own", "t", i) for i in range(3)]
    write_benchmark(rows, benchmark="own", root=tmp_path)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path))
    (tmp_path / "r.jsonl").write_text(lines)
    model = ReplayModel(responses=str(tmp_path / "r.jsonl"))
    model.task_dict = {"task": {"test": SampleDocs(rows[:2])}}
    return model.generate_until([Request(0), Request(1)])  # type: ignore[list-item]


def test_replay_answers_by_id_and_counts_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loguru import logger

    warned: list[str] = []
    sink = logger.add(warned.append, level="WARNING", format="{message}")
    # The third id belongs to the benchmark, only not to the task that runs.
    lines = '{"id": "own-t-test-1", "response": "b\\n\\nc"}\n{"id": "own-t-test-2", "response": ""}'
    assert replay(tmp_path, monkeypatch, lines) == ["", "b\n\nc"]
    logger.remove(sink)
    assert "1 of 2 samples have no response" in "".join(warned)


def test_replay_refuses_ids_that_no_sample_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with lmms_data.stops(capsys, "1 ids belong to no sample of own, e.g. 'own-t-test-9'"):
        replay(tmp_path, monkeypatch, '{"id": "own-t-test-9", "response": ""}')
    monkeypatch.setattr("univg_eval.samples.n_skipped", lambda *_: 1)
    with lmms_data.stops(capsys, "'own' was prepared without 1 faulty item (--skip-faulty"):
        replay(tmp_path, monkeypatch, '{"id": "own-t-test-9", "response": ""}')
