"""`univg-train curves`: what runs logged, as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from univg_eval.errors import UserError
from univg_train.cli import main
from univg_train.runs.curves import draw_curves, read_course

LINES = [
    {"eval_univg_mini/acc@0.5": 0.2, "step": 0},
    {"loss": 0.5, "reward": 1.0, "difficulty/miou": 0.25, "step": 1},
    {"loss": 0.25, "reward": 1.5, "difficulty/miou": 0.5, "step": 2},
    {"eval_univg_mini/acc@0.5": 0.4, "step": 2},
    {"train_runtime": 3.0, "step": 2, "ok": True},
]
SHARES = {"difficulty/share_0.0_0.2": 0.75, "difficulty/share_0.8_1.0": 0.25}


def _run(folder: Path, lines: list[dict], place: str = "model") -> Path:
    state = {"global_step": lines[-1]["step"], "log_history": lines}
    (folder / place).mkdir(parents=True)
    (folder / place / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return folder


def _titles(figure) -> list[str]:
    return [title for axis in figure.axes if (title := axis.get_title())]


def test_a_course_has_the_steps_and_values_of_each_figure(tmp_path):
    course = read_course(_run(tmp_path / "one", LINES))
    assert course.name == "one"
    assert course.series("reward") == ([1, 2], [1.0, 1.5])
    assert course.series("eval_univg_mini/acc@0.5") == ([0, 2], [0.2, 0.4])
    assert course.series("absent") == ([], [])


def test_a_run_under_way_is_read_from_its_newest_checkpoint(tmp_path):
    run = _run(tmp_path, LINES[:2], "checkpoint-1")
    _run(tmp_path, LINES, "checkpoint-2")
    assert read_course(run).series("loss")[0] == [1, 2]


def test_the_panels_are_those_that_have_something_to_show(tmp_path):
    figure = draw_curves([read_course(_run(tmp_path, LINES))])
    assert _titles(figure) == [
        *("reward", "mean IoU of the rollouts", "loss", "univg_mini: acc@0.5"),
    ]
    reward = figure.axes[0].lines[0]
    assert list(reward.get_xdata()) == [1, 2]
    assert list(reward.get_ydata()) == [1.0, 1.5]


def test_one_run_shows_its_bins_of_difficulty_and_several_share_panels(tmp_path):
    lines = [line | SHARES if "reward" in line else line for line in LINES]
    one = read_course(_run(tmp_path / "one", lines))
    assert _titles(draw_curves([one]))[-1] == "prompts by mean IoU"
    supervised = [{"loss": 2.0, "step": 1}, {"loss": 1.0, "step": 2}]
    figure = draw_curves([one, read_course(_run(tmp_path / "two", supervised))])
    assert "prompts by mean IoU" not in _titles(figure)
    by_title = {axis.get_title(): [line.get_label() for line in axis.lines] for axis in figure.axes}
    assert by_title["loss"] == ["one", "two"]


def test_the_command_writes_the_format_that_the_name_ends_in(tmp_path, capsys):
    run = _run(tmp_path / "one", LINES)
    assert main(["curves", str(run)]) == 0
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert main(["curves", str(run), "-o", str(tmp_path / "c.svg")]) == 0
    texts = {node.text for node in ElementTree.parse(tmp_path / "c.svg").iter() if node.text}
    assert "univg_mini: acc@0.5" in texts
    capsys.readouterr()


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda folder: folder.mkdir(), [], "holds no log of a run"),
        (lambda folder: _run(folder, [{"epoch": 1, "step": 1}]), [], "no run has logged a reward"),
        (lambda folder: _run(folder, LINES), ["-o", "c.jpg"], "expected a name that ends in"),
        (
            lambda folder: (
                (folder / "model").mkdir(parents=True)
                or (folder / "model" / "trainer_state.json").write_text("{", encoding="utf-8")
            ),
            [],
            "cannot read",
        ),
    ],
)
def test_a_mistake_is_one_message(tmp_path, capsys, prepare, arguments, message):
    prepare(tmp_path / "run")
    assert main(["curves", str(tmp_path / "run"), *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_a_folder_that_is_not_there_holds_no_log(tmp_path):
    with pytest.raises(UserError, match="holds no log of a run"):
        read_course(tmp_path / "absent")
