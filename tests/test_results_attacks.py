"""Attacks on scoring: under `univg` none is worth more than the honest answer it stands for.

Those of the tables in results/benchmarks/attacks.md, on random targets in five dialects; the tests
after them say which box is read, so that none passes by reading nothing.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from factories import make_sample
from scripts import load_script

from univg_eval import parse_answer
from univg_eval.boxes import box_iou
from univg_eval.samples import Target
from univg_eval.scoring import sample_metrics, score_sample

N_CASES = 120
DIALECTS = ["norm1000", "qwen2_vl", "qwen2_5_vl", "univg_r1", "norm1"]


attacks = load_script("results/benchmarks/attacks.py")
CASES = attacks.make_cases(N_CASES)


def form_of(dialect):
    return attacks.UNIVG_FORMS[dialect]


def read(text, dialect, case):
    return parse_answer(text, dialect, image_sizes=[case.image_wh], target_image=0)


def metrics(texts_and_cases, dialect):
    """Acc@0.3 … Acc@0.9 and mean IoU over (response, case) pairs; every status but ok scores 0."""
    ious = []
    for text, case in texts_and_cases:
        answer = read(text, dialect, case)
        ious.append(float(box_iou(answer.box, case.target)) if answer.status == "ok" else 0.0)
    shares = [sum(iou >= t for iou in ious) / len(ious) for t in (0.3, 0.5, 0.7, 0.9)]
    return [*shares, sum(ious) / len(ious)]


def alone(dialect, which):
    """Metrics of one box a case, said alone; `which` is a case → box."""
    form = form_of(dialect)
    return metrics([(form.wrap(form.box(which(c), c)), c) for c in CASES], dialect)


def attacked(name, dialect):
    attack = attacks.ATTACKS[name].attack
    return metrics([(attack(form_of(dialect), case), case) for case in CASES], dialect)


# --- Every attack of the table


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_honest_answer_is_read(dialect):
    # Without this every comparison below would hold for a reader that reads nothing.
    *shares, miou = alone(dialect, lambda case: case.target)
    assert shares == [1.0, 1.0, 1.0, 1.0]
    assert miou > 0.98


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_no_attack_scores_above_its_honest_equivalent(name, dialect):
    attack, form = attacks.ATTACKS[name], form_of(dialect)
    outcome = attacks.measure(attack, attacks.univg_reader(dialect), n=N_CASES)
    assert outcome.raised == 0.0
    assert outcome.attack <= outcome.honest

    if attack.absent or attack.center:
        return
    # The same at every threshold and in mean IoU, against the best strategy for each.
    cases = attacks.make_cases(N_CASES, corner=attack.corner)
    honest = [attack.equivalents(form, case) for case in cases]
    if any(isinstance(text, bool) for texts in honest for text in texts):
        return  # known by geometry at 0.5 alone
    strategies = [
        metrics(list(zip(texts, cases, strict=True)), dialect)
        for texts in zip(*honest, strict=True)
    ]
    best = [max(column) for column in zip(*strategies, strict=True)] or [0.0] * 5
    got = metrics([(attack.attack(form, case), case) for case in cases], dialect)
    assert all(mine <= limit for mine, limit in zip(got, best, strict=True)), (got, best)


# --- What exactly is read


READ_AS = {
    "spray, one list": lambda case: attacks.SPRAY[0],
    "spray, one a line": lambda case: attacks.SPRAY[-1],
    "two guesses, one list": lambda case: case.first,
    "two guesses, two answers": lambda case: case.second,
    "thinking steps": lambda case: case.second,
    "thinking steps, other tags": lambda case: case.second,
    "prompt echo": lambda case: case.second,
    "huge": lambda case: (0.0, 0.0, 1.0, 1.0),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", READ_AS)
def test_of_several_boxes_it_is_always_the_same_one(name, dialect):
    assert attacked(name, dialect) == alone(dialect, READ_AS[name])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_boxes_on_two_scales_are_all_read_on_the_declared_one(dialect):
    form = form_of(dialect)
    wrong = metrics([(form.wrap(form.box_otherwise(c.target, c)), c) for c in CASES], dialect)
    assert attacked("both scales", dialect) == wrong
    assert wrong[1] < 0.3, "a wrong scale must not look right"
    right_first = [
        (form.wrap(form.join([form.box(c.target, c), form.box_otherwise(c.target, c)])), c)
        for c in CASES
    ]
    assert metrics(right_first, dialect) == alone(dialect, lambda c: c.target)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_null_and_a_box_cannot_win_both_ways(dialect):
    # The box is the last unit: right where the object is present, never where it is absent.
    form, reader = form_of(dialect), attacks.univg_reader(dialect)
    cases = attacks.make_cases(N_CASES, absent=0.5)
    hedge = attacks.ATTACKS["hedged null"].attack
    assert [reader.score(hedge(form, c), c) for c in cases] == [c.present for c in cases]
    assert [reader.score(form.wrap(form.null), c) for c in cases] == [not c.present for c in cases]


WITHOUT_BOX = {
    "box only in the thinking": {"no_box"},
    "unclosed thinking": {"truncated"},
    "null last": {"none"},
    "refusal as rejection": {"no_box"},
    "refusal with numbers": {"no_box"},
    "zeros": {"invalid_box"},
    "swapped corners": {"invalid_box"},
    "nan": {"invalid_box", "no_box"},
    "1e999": {"invalid_box", "no_box"},
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", WITHOUT_BOX)
def test_statuses_of_attacks_that_hold_no_box(name, dialect):
    attack, form = attacks.ATTACKS[name].attack, form_of(dialect)
    found = {read(attack(form, case), dialect, case).status for case in CASES}
    assert found and found <= WITHOUT_BOX[name]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_numbers_out_of_any_range(dialect):
    form = form_of(dialect)
    answer = read(attacks.ATTACKS["huge"].attack(form, CASES[0]), dialect, CASES[0])
    assert (answer.status, answer.clipped) == ("ok", True)
    sixty_digits = form.numbers("0", "0", "9" * 60, "9" * 60)
    assert read(sixty_digits, dialect, CASES[0]).status in ("no_box", "invalid_box")


def test_a_repeated_json_key_is_one_unit():
    form = form_of("qwen2_5_vl")
    doubled = [(f"{form.box(c.first, c)[:-1]}, {form.box(c.second, c)[1:]}", c) for c in CASES]
    assert doubled[0][0].count('"bbox_2d"') == 2
    assert metrics(doubled, "qwen2_5_vl") == alone("qwen2_5_vl", lambda case: case.first)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_zeros_and_silence_get_no_credit_by_the_centre(dialect):
    """A target at the image's corner contains the point (0, 0)."""
    form = form_of(dialect)
    sample = make_sample(targets=(Target(image=1, box=(0.0, 0.0, 0.5, 0.5)),))
    for text in (form.numbers("0", "0", "0", "0"), form.wrap(attacks.NOTHING), ""):
        values = sample_metrics(score_sample(sample, text, dialect))
        assert set(values.values()) == {0.0}, text


# --- Several images, the model has to find the right one


def image_metrics(texts, dialect):
    """Shares with the box right, the image right, and both; the reader is not given the image."""
    rows = []
    for i, (text, case) in enumerate(zip(texts, CASES, strict=True)):
        answer = parse_answer(text, dialect, image_sizes=[(640, 480)] * 3)
        box = answer.status == "ok" and float(box_iou(answer.box, case.target)) >= 0.5
        image = answer.image_index == i % 3
        rows.append((box, image, box and image))
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("repeated", [True, False])
def test_a_box_for_every_image_names_one_image(repeated, dialect):
    form = form_of(dialect)

    def measured(images):
        texts = []
        for case in CASES:
            sized = replace(case, image_wh=(640, 480))
            boxes = [case.first, case.second, (0.0, 0.0, 1.0, 1.0)]
            boxes = [case.target] * 3 if repeated else boxes
            lines = [f"Image-{k + 1}: {form.box(boxes[k], sized)}" for k in images]
            texts.append(form.wrap("\n".join(lines)))
        return image_metrics(texts, dialect)

    every, single = measured([0, 1, 2]), [measured([k]) for k in range(3)]
    assert every in single
    if repeated:
        # The coordinates are right either way; the image is right for a third of the cases, as
        # for a model that always names the same one.
        assert [score[0] for score in single] == [1.0, 1.0, 1.0]
        assert every[1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_many_boxes_for_the_named_image_are_one_of_them(dialect):
    """The instruction names the image; its label stands before every box of the spray."""
    form = form_of(dialect)
    sprayed = [
        (form.wrap("\n".join(f"Image-1: {form.box(box, c)}" for box in attacks.SPRAY)), c)
        for c in CASES
    ]
    assert metrics(sprayed, dialect) in (
        alone(dialect, lambda case: attacks.SPRAY[0]),
        alone(dialect, lambda case: attacks.SPRAY[-1]),
    )


# --- The document


@pytest.mark.parametrize("name", ["univg", "lmms-eval"])
def test_the_table_in_the_docs_is_current(name, repo_root):
    if name == "univg":
        readers = attacks.univg_readers()
    else:
        pytest.importorskip("lmms_eval")
        readers = attacks.lmms_eval_readers()
    document = (repo_root / "results" / "benchmarks" / "attacks.md").read_text(encoding="utf-8")
    table = attacks.table(readers, explained=name == "univg")
    assert attacks.replace_block(document, name, table) == document, (
        "run: python results/benchmarks/attacks.py --update results/benchmarks/attacks.md"
    )
