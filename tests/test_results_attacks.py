"""Attacks on scoring: under `univg` none is worth more than the honest answer it stands for.

The attacks and their honest equivalents are those of the tables in attacks.md beside it, defined in
results/benchmarks/attacks.py. Here every one is run in five dialects on random targets; the
tests after them say for each kind exactly which box is read, so that none passes by
reading nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from univg_eval import parse_answer
from univg_eval.boxes import box_iou
from univg_eval.protocols import get_protocol
from univg_eval.samples import GroundingSample, Target
from univg_eval.scoring import sample_metrics, score_sample

N_CASES = 120
DIALECTS = ["norm1000", "qwen2_vl", "qwen2_5_vl", "univg_r1", "norm1"]


def _load_attacks():
    path = Path(__file__).resolve().parent.parent / "results" / "benchmarks" / "attacks.py"
    spec = importlib.util.spec_from_file_location("attacks", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["attacks"] = module
    spec.loader.exec_module(module)
    return module


attacks = _load_attacks()
CASES = attacks.make_cases(N_CASES)
NOTHING = attacks.NOTHING


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


def statuses(name, dialect):
    attack = attacks.ATTACKS[name].attack
    return {read(attack(form_of(dialect), case), dialect, case).status for case in CASES}


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
        return  # told by geometry at 0.5 alone
    strategies = [
        metrics(list(zip(texts, cases, strict=True)), dialect)
        for texts in zip(*honest, strict=True)
    ]
    best = [max(column) for column in zip(*strategies, strict=True)] or [0.0] * 5
    got = metrics([(attack.attack(form, case), case) for case in cases], dialect)
    assert all(mine <= limit for mine, limit in zip(got, best, strict=True)), (got, best)


# --- What exactly is read


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_spray_in_one_list_is_its_first_box(dialect):
    assert attacked("spray, one list", dialect) == alone(dialect, lambda case: attacks.SPRAY[0])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_spray_in_sentences_is_its_last_box(dialect):
    assert attacked("spray, one a line", dialect) == alone(dialect, lambda case: attacks.SPRAY[-1])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_two_guesses_are_one_of_them_the_same_every_time(dialect):
    first, second = (alone(dialect, w) for w in (lambda c: c.first, lambda c: c.second))
    assert attacked("two guesses, one list", dialect) == first
    assert attacked("two guesses, two answers", dialect) == second


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
@pytest.mark.parametrize("name", ["thinking steps", "thinking steps, other tags", "prompt echo"])
def test_boxes_before_the_answer_change_nothing(name, dialect):
    assert attacked(name, dialect) == alone(dialect, lambda case: case.second)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_box_only_in_the_thinking_is_no_answer(dialect):
    assert statuses("box only in the thinking", dialect) == {"no_box"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_unclosed_thinking_is_truncated(dialect):
    assert statuses("unclosed thinking", dialect) == {"truncated"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_final_null_takes_the_box_back(dialect):
    assert statuses("null last", dialect) == {"none"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_null_and_a_box_cannot_win_both_ways(dialect):
    # The box is the last unit: right where the object is present, never where it is absent.
    form, reader = form_of(dialect), attacks.univg_reader(dialect)
    cases = attacks.make_cases(N_CASES, absent=0.5)
    hedge = attacks.ATTACKS["hedged null"].attack
    assert [reader.score(hedge(form, c), c) for c in cases] == [c.present for c in cases]
    assert [reader.score(form.wrap(form.null), c) for c in cases] == [not c.present for c in cases]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["refusal as rejection", "refusal with numbers"])
def test_a_refusal_is_no_box_and_no_rejection(name, dialect):
    assert statuses(name, dialect) == {"no_box"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["zeros", "swapped corners"])
def test_four_numbers_that_are_no_box_are_invalid(name, dialect):
    assert statuses(name, dialect) == {"invalid_box"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["nan", "1e999"])
def test_numbers_that_are_not_finite_are_no_box(name, dialect):
    assert statuses(name, dialect) <= {"invalid_box", "no_box"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_huge_numbers_are_the_whole_image(dialect):
    form = form_of(dialect)
    answer = read(attacks.ATTACKS["huge"].attack(form, CASES[0]), dialect, CASES[0])
    assert (answer.status, answer.box, answer.clipped) == ("ok", (0.0, 0.0, 1.0, 1.0), True)
    assert attacked("huge", dialect) == alone(dialect, lambda case: (0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_numbers_of_sixty_digits_are_no_answer(dialect):
    text = form_of(dialect).numbers("0", "0", "9" * 60, "9" * 60)
    assert read(text, dialect, CASES[0]).status in ("no_box", "invalid_box")


def test_a_repeated_json_key_is_one_unit():
    form = form_of("qwen2_5_vl")
    doubled = [(f"{form.box(c.first, c)[:-1]}, {form.box(c.second, c)[1:]}", c) for c in CASES]
    assert doubled[0][0].count('"bbox_2d"') == 2
    assert metrics(doubled, "qwen2_5_vl") == alone("qwen2_5_vl", lambda case: case.first)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_zeros_and_silence_get_no_credit_by_the_centre(dialect):
    """A target at the image's corner contains the point (0, 0)."""
    form = form_of(dialect)
    sample = GroundingSample(
        id="x-00000",
        benchmark="x",
        task="x",
        split="test",
        images=("a.png",),
        widths=(640,),
        heights=(480,),
        instruction="Find it.",
        targets=(Target(image=0, box=(0.0, 0.0, 0.5, 0.5)),),
        image_is_given=True,
        cluster="x",
        source={},
        extra={},
    )
    for text in (form.numbers("0", "0", "0", "0"), form.wrap(NOTHING), ""):
        values = sample_metrics(score_sample(sample, text, dialect))
        assert set(values.values()) == {0.0}, text


# --- Several images, the model has to find the right one

SIZES = [(640, 480)] * 3


def image_score(text, dialect, target_image, target):
    """(box right, image right, both), without telling the reader which image it is."""
    answer = parse_answer(text, dialect, image_sizes=SIZES)
    box = answer.status == "ok" and bool(get_protocol("univg").iou(answer.box, target) >= 0.5)
    image = answer.image_index == target_image
    return box, image, box and image


def image_metrics(make_text, dialect):
    scores = [
        image_score(make_text(case), dialect, i % 3, case.target) for i, case in enumerate(CASES)
    ]
    return [sum(column) / len(scores) for column in zip(*scores, strict=True)]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_box_repeated_for_every_image_names_one_image(dialect):
    form = form_of(dialect)

    def named(images):
        def make(case):
            case = attacks.Case((640, 480), case.target, case.first, case.second)
            return form.wrap(
                "\n".join(f"Image-{k + 1}: {form.box(case.target, case)}" for k in images)
            )

        return make

    every = image_metrics(named([0, 1, 2]), dialect)
    single = [image_metrics(named([k]), dialect) for k in range(3)]
    # The coordinates are right either way; the image is right for a third of the cases, as for a
    # model that always names the same one.
    assert [score[0] for score in single] == [1.0, 1.0, 1.0]
    assert every in single
    assert every[1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_another_box_for_every_image_is_one_of_them(dialect):
    form = form_of(dialect)

    def boxes(case):
        return (case.first, case.second, (0.0, 0.0, 1.0, 1.0))

    def make(images):
        def text(case):
            case = attacks.Case((640, 480), case.target, case.first, case.second)
            return form.wrap(
                "\n".join(f"Image-{k + 1}: {form.box(boxes(case)[k], case)}" for k in images)
            )

        return text

    every = image_metrics(make([0, 1, 2]), dialect)
    single = [image_metrics(make([k]), dialect) for k in range(3)]
    assert every in single


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
