"""Training with several targets and with none: how rows are written, and what is rewarded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from doc_pages import blocks
from factories import make_sample
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training_forms import draw

from univg_eval.boxes import Box
from univg_eval.dialects import get_dialect, list_dialects
from univg_eval.errors import UserError
from univg_eval.prompts import build_prompt
from univg_eval.protocols import parse_answer
from univg_eval.samples import GroundingSample, Target, load_samples, write_benchmark
from univg_eval.scoring import sample_metrics, score_sample
from univg_train.cli import main
from univg_train.data import TrainingData, make_rendering, open_training_data
from univg_train.rewards import SEVERAL_REWARDS, check_rows, make_rewards

DIALECTS = [name for name in list_dialects() if get_dialect(name).gives_boxes]
WH = [(640, 480), (300, 500)]
L_ALONE = "(100,100),(300,400)"
LEFT, RIGHT, LOW = (0.1, 0.1, 0.3, 0.4), (0.5, 0.5, 0.9, 0.7), (0.2, 0.6, 0.4, 0.9)


# --- the family's own form -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("univg_r1", "(100,100),(300,400), (500,500),(900,700)"),
        (
            "qwen2_vl",
            "<|box_start|>(100,100),(300,400)<|box_end|><|box_start|>(500,500),(900,700)<|box_end|>",
        ),
        ("qwen3_vl", '[{"bbox_2d": [100, 100, 300, 400]}, {"bbox_2d": [500, 500, 900, 700]}]'),
        ("internvl", "<box>[[100, 100, 300, 400], [500, 500, 900, 700]]</box>"),
        ("glm_v", "<|begin_of_box|>[[100,100,300,400],[500,500,900,700]]<|end_of_box|>"),
        ("cogvlm_grounding", "[[100,100,300,400;500,500,900,700]]"),
        ("gemini", '[{"box_2d": [100, 100, 400, 300]}, {"box_2d": [500, 500, 700, 900]}]'),
        ("norm1", "[0.100, 0.100, 0.300, 0.400], [0.500, 0.500, 0.900, 0.700]"),
    ],
)  # fmt: skip
def test_several_boxes_as_the_family_writes_them(dialect: str, expected: str) -> None:
    assert get_dialect(dialect).encode_several([LEFT, RIGHT]) == expected


@pytest.mark.parametrize("dialect", DIALECTS)
@given(st.lists(st.sampled_from([LEFT, RIGHT, LOW]), min_size=1, max_size=5))
@settings(max_examples=8, deadline=None)
def test_what_is_written_reads_as_each_box_alone(dialect: str, boxes: list[Box]) -> None:
    family = get_dialect(dialect)
    sizes = {"image_wh": WH[0], "input_wh": family.input_size(WH[0])}
    single = [parse_answer(family.encode(b, **sizes), dialect, image_sizes=WH[:1]) for b in boxes]
    several = parse_answer(family.encode_several(boxes, **sizes), dialect, image_sizes=WH[:1])
    assert several.boxes == tuple(answer.box for answer in single)
    assert (several.n_units, several.n_boxes) == (1, len(boxes))


# --- rows ----------------------------------------------------------------------------------------

IMAGES = {"toy/a.png": WH[0], "toy/b.png": WH[1]}


def sample(number: int, *targets: Target, **changes: Any) -> GroundingSample:
    files = dict(images=tuple(IMAGES), widths=(640, 300), heights=(480, 500))
    return make_sample(number, targets=targets, **files | changes)


MIXED = (
    sample(0, Target(1, LEFT)),
    sample(1, Target(1, LEFT), Target(1, RIGHT), Target(1, LOW), instruction="Find every cup in "
           "the second image."),
    sample(2, Target(0, LEFT), Target(0, RIGHT), image_is_given=False, instruction="Find both."),
    sample(3, Target(1, LOW), Target(0, LEFT), Target(1, RIGHT), image_is_given=False,
           instruction="Find the cup in each image."),
    sample(4, instruction="Find the elephant."),
    sample(5, instruction="Find the elephant in the second image."),
    sample(6, Target(0, LEFT), Target(0, LOW), instruction="Find every cup.", images=("toy/a.png",),
           widths=(640,), heights=(480,)),
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = draw(tmp_path_factory.mktemp("root"), IMAGES)
    write_benchmark(MIXED, root=root, benchmark="toy", manifest_extra={})
    return root


def opened(root: Path, dialect: str, **choices: Any) -> TrainingData:
    how = make_rendering(dialect, **{"style": "direct"} | choices)
    return open_training_data("samples", "toy", how, root=root)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_written_answer_earns_everything(root: Path, dialect: str) -> None:
    """What SFT teaches is what the evaluation, and the reward of GRPO, take for right."""
    written = opened(root, dialect, purpose="sft")
    # The answer of GLM is one marked span, in which no image is named.
    n_left_out = 2 if dialect == "glm_v" else 0
    assert written.report.left_out.total() == n_left_out
    assert len(written) == len(MIXED) - n_left_out
    samples = {found.id: found for found in load_samples("toy", root=root)}
    for position in range(len(written)):
        row = written.columns(position)
        (answer,) = (part["text"] for part in row["completion"][0]["content"])
        metrics = sample_metrics(score_sample(samples[row["id"]], answer, dialect))
        names = {"miou", "f1@0.5", "matched_iou", "no_target_acc"} & set(metrics)
        # Shikra and Kosmos-2 round to a thousandth of the longer side, or to 32 cells.
        assert names and min(metrics[name] for name in names) > (
            0.5 if dialect == "kosmos2" else 0.94
        ), (answer, metrics)
        columns = {name: [value] for name, value in row.items()}
        accuracy, form = make_rewards()
        assert accuracy(completions=[answer], **columns)[0] == pytest.approx(
            metrics[{0: "no_target_acc", 1: "miou"}.get(len(row["targets"]), "matched_iou")]
        )
        assert form(completions=[answer], **columns) == [1.0], answer


def test_the_prompt_is_the_evaluations(root: Path) -> None:
    data = opened(root, "univg_r1", style="think")
    for position, evaluated in enumerate(MIXED):
        *images, text = data.columns(position)["prompt"][0]["content"]
        assert text["text"] == build_prompt(evaluated, get_dialect("univg_r1"), "think")
        assert images == [{"type": "image"}] * len(evaluated.images)


def test_answers_name_the_images(root: Path) -> None:
    data = opened(root, "univg_r1", purpose="sft")
    answers = [data.columns(i)["completion"][0]["content"][0]["text"] for i in range(7)]
    left, right, low = "(100,100),(300,400)", "(500,500),(900,700)", "(200,600),(400,900)"
    assert answers == [
        left,
        f"{left}, {right}, {low}",
        f"It's in the first image. {left}, {right}",
        f"Image 2: {low}, {right}\nImage 1: {left}",
        "There is no such object.",
        "There is no such object.",
        f"{left}, {low}",
    ]


# --- the reward is the evaluation's score --------------------------------------------------------


@st.composite
def responses(draw: st.DrawFn, dialect: str) -> str:
    family = get_dialect(dialect)

    def written() -> str:
        image = draw(st.integers(0, 1))
        boxes = draw(
            st.lists(st.sampled_from([LEFT, RIGHT, LOW, (0.1, 0.2, 0.3, 0.4)]), max_size=4)
        )
        if not boxes:
            return draw(st.sampled_from(["There is no such object.", "(5,5),(1,1)", "[]", ""]))
        size = WH[image]
        named = draw(st.sampled_from(["", f"Image {image + 1}: ", "In the first image: "]))
        return named + family.encode_several(boxes, image_wh=size, input_wh=family.input_size(size))

    frames = ("{}", "{}\n{}", "<think>{}</think><answer>{}</answer>", "<think>{}", "{} Or {}.",
              "No such object in the second image. {}", "Image 1: none\nImage 2: {}")  # fmt: skip
    return draw(st.sampled_from(frames)).format(written(), written())


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_the_reward_is_the_score_of_the_same_response(root: Path, data: st.DataObject) -> None:
    dialect = data.draw(st.sampled_from(DIALECTS))
    several = data.draw(st.sampled_from(SEVERAL_REWARDS))
    rows = opened(root, dialect)
    position = data.draw(st.integers(0, len(MIXED) - 1))
    row, text = rows.columns(position), data.draw(responses(dialect))
    columns = {name: [value] for name, value in row.items()}
    accuracy = make_rewards(several=several)[0]
    (grade,) = accuracy.grade([text], columns)
    metrics = sample_metrics(score_sample(MIXED[position], text, dialect))
    assert grade.metric == {0: "no_target_acc", 1: "miou"}.get(len(row["targets"]), several)
    assert grade.reward == grade.overlap == metrics[grade.metric]
    assert accuracy(completions=[text], **columns) == [grade.reward]


@pytest.mark.parametrize("position", [4, 5])
def test_none_of_an_image_is_read_as_the_evaluation_does(root: Path, position: int) -> None:
    """Whether the question names the image, or is about one without naming it."""
    text = "No such object in the second image."
    score = score_sample(MIXED[position], text, "qwen2_vl")
    columns = {name: [value] for name, value in opened(root, "qwen2_vl").columns(position).items()}
    assert make_rewards()[0](completions=[text], **columns) == [1.0]
    assert score.no_target_right is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [(L_ALONE, 1.0), (f"{L_ALONE} (500,500),(900,700)", 0.5), ("There are none.", 0.0)],
)
def test_one_object_of_a_question_for_all_is_a_set(
    tmp_path: Path, text: str, expected: float
) -> None:
    """Its prompt is that of the evaluation, and a box too many costs what it costs there."""
    draw(tmp_path / "toy", {"a.png": WH[0]})
    image = "toy/a.png"
    one = make_sample(
        id="one", benchmark="toy", images=(image,), widths=(WH[0][0],), heights=(WH[0][1],),
        instruction="Find every cup.", targets=(Target(0, LEFT),), find_all=True,
    )  # fmt: skip
    write_benchmark([one], benchmark="toy", root=tmp_path)
    row = opened(tmp_path, "qwen2_vl", purpose="grpo").columns(0)
    assert row["prompt"][-1]["content"][-1]["text"] == build_prompt(
        one, get_dialect("qwen2_vl"), "direct"
    )
    assert check_rows([row], make_rewards()) == 1
    (grade,) = make_rewards()[0].grade([text], {name: [value] for name, value in row.items()})
    score = sample_metrics(score_sample(one, text, "qwen2_vl"))
    assert (grade.metric, grade.reward) == ("matched_iou", expected)
    assert score["matched_iou"] == expected


def test_univg_score_gives_what_was_rewarded(root: Path, tmp_path: Path) -> None:
    said = [
        "(100,100),(300,400)",
        "(100,100),(300,400) (0,0),(90,90)",
        "Image 1: (100,100),(300,400)",
        "Image 2: (200,600),(400,900)",
        "None.",
        "It is there.",
        "(100,100),(200,400)",
    ]
    lines = [{"id": row.id, "response": text} for row, text in zip(MIXED, said, strict=True)]
    file, out = tmp_path / "r.jsonl", tmp_path / "scores.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    arguments = ["score", "--benchmark", "toy", "--responses", str(file), "--dialect", "qwen2_vl"]
    from univg_eval.cli import main as univg

    assert univg([*arguments, "--root", str(root), "--out", str(out)]) == 0
    scores = [json.loads(line) for line in out.read_text().splitlines()]
    rows = opened(root, "qwen2_vl")
    columns = {name: [rows.columns(i)[name] for i in range(7)] for name in rows.columns(0)}
    found = make_rewards()[0](completions=said, **columns)
    # By hand: a half of the last; of three, the first; of two and of three, one; a half of two.
    assert found == pytest.approx([1, 1 / 3, 1 / 2, 1 / 3, 1, 0, 1 / 4])
    assert found == [
        float(line.get("matched_iou", line.get("no_target_right", line["iou"]))) for line in scores
    ]


# --- attacks, by hand ----------------------------------------------------------------------------

L, R = "(100,100),(300,400)", "(500,500),(900,700)"
JUNK = " ".join(f"({x},900),({x + 40},940)" for x in range(0, 800, 100))
ATTACKS = [
    (f"{L} {R}", 1, 1, "the truth"),
    (L, 1 / 2, 2 / 3, "one of two"),
    (f"{L} {R} {JUNK}", 2 / 10, 4 / 12, "a spray of ten"),
    (" ".join([L] * 5), 1 / 5, 2 / 7, "one box five times"),
    (f"{L} (101,100),(300,400) (100,101),(300,400)", 1 / 3, 2 / 5, "one box, nearly repeated"),
    ("(0,0),(1000,1000)", 0, 0, "the whole image: IoU 0.06 and 0.08"),
    (" ".join(["(0,0),(1000,1000)"] * 2), 0, 0, "the whole image for each"),
    ("(100,100),(900,700)", 0, 0, "the box around both: IoU 1/8 and 1/6"),
    (f"{L} (0,900),(40,940)", 1 / 2, 2 / 4, "a matching box and junk"),
    (f"{L} (900,900),(800,800) (0,0),(0,0)", 1 / 3, 2 / 5, "a matching box and invalid ones"),
    ("", 0, 0, "an empty response"),
    ("<answer></answer>", 0, 0, "an empty answer"),
    ("[]", 0, 0, "an empty list"),
    (f"<think>{L} {R}</think>", 0, 0, "boxes in the thinking alone"),
    (f"<think>{L} {R}", 0, 0, "thinking that is never closed"),
    (f"<think>{R} {JUNK}</think>{L}", 1 / 2, 2 / 3, "thinking does not count"),
    (f"<answer>{L} {R}</answer><answer>{L}</answer>", 1 / 2, 2 / 3, "the last answer alone"),
    (f"{L} {R}. There are none.", 0, 0, "boxes, then none"),
    (f"{L} or {R}? {L}", 2 / 3, 4 / 5, "candidates, then a choice"),
    ("(300,400),(100,100) (900,700),(500,500)", 0, 0, "corners swapped"),
    ("(0.1,0.1),(0.3,0.4) (0.5,0.5),(0.9,0.7)", 0, 0, "another scale"),
]


@pytest.mark.parametrize(("text", "iou", "f1", "why"), ATTACKS, ids=[case[3] for case in ATTACKS])
def test_what_attacks_earn(text: str, iou: float, f1: float, why: str) -> None:
    targets = [{"image": 0, "box": list(box)} for box in (LEFT, RIGHT)]
    row = plain(targets=targets, dialect="qwen2_vl", target_image=0)
    columns = {name: [value] for name, value in row.items()}
    found = [make_rewards(several=s)[0](completions=[text], **columns)[0] for s in SEVERAL_REWARDS]
    assert found == pytest.approx([iou, f1])


# --- rows that cannot be rewarded, settings ------------------------------------------------------


def plain(**changes: Any) -> dict[str, Any]:
    targets = [{"image": 0, "box": list(LEFT)}, {"image": 1, "box": list(RIGHT)}]
    row = {"solution": None, "targets": targets, "dialect": "norm1000", "style": "direct"}
    return row | changes


@pytest.mark.parametrize(
    ("row", "options", "match"),
    [
        (plain(targets=[{"image": 0, "box": LEFT}] * 2 + [{"image": 0}]), {}, r"targets\[2\] is"),
        (plain(targets=[{"image": 0, "box": LEFT}, {"image": 0, "box": [0.5, 0, 0.2, 1]}]), {},
         r"targets\[1\] is \[0.5, 0, 0.2, 1\]; expected 0 <= x1"),
        (plain(targets=[{"image": None, "box": LEFT}] * 2), {}, r"targets\[0\] has no image"),
        (plain(targets=[{"image": 0, "box": LEFT}]), {},
         "solution is None and targets has one object"),
        (plain(image_sizes=[[9, 9]]), {}, r"the image of targets\[1\] is 1; expected 0 to 0"),
        (plain(), {"several": None}, "2 targets, and no reward for several"),
        (plain(), {"rule": "univg-r1"}, "2 targets; rule 'univg-r1' knows no row with several"),
    ],
)  # fmt: skip
def test_rows_without_a_reward_are_reported(
    row: dict[str, Any], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=rf"1 of 2 rows.*\n.*row 1: {match}"):
        check_rows([plain(solution=list(LEFT), targets=None), row], make_rewards(**options))


def test_an_unknown_reward_for_several_is_refused() -> None:
    with pytest.raises(UserError, match=r"several is 'ap50'; expected one of: matched_iou, f1@0.5"):
        make_rewards(several="ap50")


def test_an_image_that_the_instruction_names_needs_no_name() -> None:
    targets = [{"image": None, "box": list(box)} for box in (LEFT, RIGHT)]
    row = plain(targets=targets, target_image=1)
    columns = {name: [value] for name, value in row.items()}
    accuracy, _ = make_rewards()
    assert accuracy(completions=["[100, 100, 300, 400]"], **columns) == [0.5]


FORMS = [
    ("[100, 100, 300, 400], [500, 500, 900, 700]", 1, "one list"),
    ("[100, 100, 300, 400]", 1, "a list of one"),
    ("Image 1: [100, 100, 300, 400]\nImage 2: [500, 500, 900, 700]", 1, "a list for each image"),
    ("There are none.", 1, "none"),
    ("[100, 100, 300, 400]. Or it may be [500, 500, 900, 700].", 0, "two answers"),
    ("Image 1: [1, 1, 3, 4]\nImage 1: [5, 5, 9, 7]", 0, "two for one image"),
    ("Somewhere.", 0, "nothing"),
    ("<think>[1, 1, 3, 4]</think>[100, 100, 300, 400]", 0, "thinking that was not asked for"),
]


@pytest.mark.parametrize(("text", "expected", "why"), FORMS, ids=[case[2] for case in FORMS])
def test_the_form_of_several(text: str, expected: float, why: str) -> None:
    columns = {name: [value] for name, value in plain().items()}
    form = make_rewards()[1]
    assert form(completions=[text], **columns) == [expected]
    reasoned = f"<think>Two.</think><answer>{text}</answer>"
    columns["style"] = ["think"]
    if "think" not in text:
        assert form(completions=[reasoned], **columns) == [expected]


def test_the_data_command_counts_the_kinds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "toy", "--form", "samples", "--root", str(root)]
    assert main([*arguments, "--json"]) == 0
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert kinds == {"several_targets": 4, "no_target": 2, "one_target": 1}
    assert main(arguments) == 0
    assert "of these\n         4 several_targets: several true" in capsys.readouterr().out


# --- a run ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_the_run_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings and rows of docs/grpo.md, as they stand there, for one of their two epochs."""
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNIVG_DATA", str(tmp_path / "root"))
    Image.new("RGB", (640, 480), "white").save("street.jpg")
    Path("mixed.yaml").write_text(blocks("grpo", "yaml")[0])
    Path("mixed.jsonl").write_text(blocks("grpo", "json")[0])

    def dry_run(*changes: str) -> dict[str, Any]:
        assert main(["grpo", "--config", "mixed.yaml", *changes, "--dry-run", "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    found = dry_run()
    assert found["kinds"] == {
        "no_target": {"rows": 1, "reward": "no_target_acc"},
        "one_target": {"rows": 1, "reward": "IoU"},
        "several_targets": {"rows": 1, "reward": "matched_iou"},
    }
    fewer = "trainer.gradient_accumulation_steps=2"
    without = dry_run("rewards.several=null", "rewards.threshold=0.5", fewer)
    assert without["left_out"] == {"several_targets": 1} and without["rows"] == 2
    assert without["kinds"]["one_target"]["reward"] == "1 from IoU 0.5 on"
    assert main(["grpo", "--config", "mixed.yaml", "rewards.several=iou"]) == 2
    assert "several is 'iou'; expected one of: matched_iou, f1@0.5" in capsys.readouterr().err

    shorter = ("trainer.num_train_epochs=1", "trainer.max_completion_length=12")
    assert main(["grpo", "--config", "mixed.yaml", *shorter, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["steps"], summary["rows"]) == (1, 3)
    assert summary["data"]["kinds"] == {"one_target": 1, "several_targets": 1, "no_target": 1}
    model = Path(summary["model"])
    (line, _) = json.loads((model / "trainer_state.json").read_text())["log_history"]
    figures = [line[f"difficulty/{n}"] for n in ("miou", "matched_iou", "no_target_acc")]
    # One prompt of each kind, with as many rollouts: their mean is the reward of accuracy.
    assert line["rewards/accuracy_reward/mean"] == pytest.approx(sum(figures) / 3)
    assert (model / "model.safetensors").is_file()
