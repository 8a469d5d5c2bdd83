"""`univg-train tiny`: equal runs, resumption, the command line, and the rows a run draws."""

from __future__ import annotations

import errno
import json
import random
import re

import pytest
from disks import largest_file

from univg_eval.benchmarks.synthetic.mini import TASKS, generate
from univg_eval.errors import UserError
from univg_train.cli import main
from univg_train.cli._running import usable_folder
from univg_train.runs.folder import sole_writer
from univg_train.tiny.data import (
    RowPlan,
    item_turns,
    tokenizer_texts,
    training_item,
    training_rows,
)

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("transformers", reason="training needs transformers (extra train)")

from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from univg_eval.answers import read_answer  # noqa: E402
from univg_eval.boxes import box_iou  # noqa: E402
from univg_eval.models import TINY, model_folder  # noqa: E402
from univg_train.tiny import pretraining as tiny  # noqa: E402
from univg_train.tiny.answers import DIALECT  # noqa: E402
from univg_train.tiny.model import TinyShape  # noqa: E402
from univg_train.tiny.pretraining import (  # noqa: E402
    VALIDATION_SEED,
    TinySettings,
    train_tiny,
    validation_items,
)

SMALL = TinyShape(
    hidden=32, intermediate=48, layers=2, heads=2, kv_heads=2, vision_dim=16, vision_depth=1,
    vision_heads=1, looking_layer=1,
)  # fmt: skip
PLAN = RowPlan(
    tasks=(("diff",), ("lisa_val", "llmseg")),
    aids=1,
    image_steps=1,
    simple_steps=1,
    blend_steps=1,
    images=1,
    simple_rows=1,
)


def _settings(**other) -> TinySettings:
    return TinySettings(**{"steps": 4, "shape": SMALL, "plan": PLAN, "warmup": 2, **other})


def _state(folder):
    return torch.load(folder / "state.pt", weights_only=True)


def test_a_run_that_is_stopped_and_resumed_ends_like_one_that_is_not(tmp_path, monkeypatch):
    """Also with another number of processes."""
    # A vocabulary of fewer texts, which takes less time to learn.
    monkeypatch.setattr(tiny, "tokenizer_texts", lambda seed: tokenizer_texts(seed, per_task=8))
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    result = train_tiny(whole, _settings(), threads=1, validation_per_task=1)
    assert (result.steps, result.checkpoint) == (4, whole / "checkpoint")
    assert (result.checkpoint / "model.safetensors").is_file()

    step = tiny._Run.train_step

    def stop_after_two(run, workers):
        if run.step == 2:
            raise KeyboardInterrupt
        loss = step(run, workers)
        run.save()
        return loss

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tiny._Run, "train_step", stop_after_two)
        train_tiny(parted, _settings(), threads=1, validation_per_task=1)
    assert _state(parted)["step"] == 2
    train_tiny(parted, _settings(), threads=2, validation_per_task=1)

    one, other = _state(whole)["model"], _state(parted)["model"]
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "model.safetensors"):
        first, second = (folder / "checkpoint" / name for folder in (whole, parted))
        assert first.read_bytes() == second.read_bytes(), name
    # The padding of the last batch is none of the vocabulary's.
    assert json.loads((whole / "checkpoint" / "tokenizer.json").read_text())["padding"] is None

    # What training alone has is left behind.
    stored = load_file(result.checkpoint / "model.safetensors")
    assert not any("heads" in name for name in stored)
    assert any("heads" in name for name in one)

    with pytest.raises(UserError, match=r"holds a run of other settings.*--no-resume"):
        train_tiny(parted, _settings(seed=1))

    for better, other in (("direct", "think"), ("think", "direct")):
        found = {better: dict.fromkeys(TASKS, 0.5), other: dict.fromkeys(TASKS, 0.25)}
        monkeypatch.setattr(tiny._Run, "validate", lambda run, n, found=found: found)
        again = train_tiny(whole, _settings(), threads=1)
        assert again.macro == 0.5
        config = json.loads((again.checkpoint / "config.json").read_text())
        assert config["univg"]["prompt"] == better
        card = (again.checkpoint / "README.md").read_text()
        assert f"Macro with the prompt `{other}`: 0.25." in card


def test_steps_of_images_alone_leave_the_language_model_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "tokenizer_texts", lambda seed: tokenizer_texts(seed, per_task=8))
    run = tiny._Run(tmp_path, _settings(), resume=False)

    class Workers:
        def gradients(self, step):
            for parameter in run.trainee.parameters():
                parameter.grad = torch.ones_like(parameter)
            return {"shown": 1.0}

    vision = {id(parameter) for parameter in run.trainee.vision_parameters()}
    named = dict(run.trainee.named_parameters())
    for expected in (  # of the first step, and of the second
        {name for name, parameter in named.items() if id(parameter) in vision},
        set(named),
    ):
        before = {name: parameter.detach().clone() for name, parameter in named.items()}
        run.train_step(Workers())
        assert {n for n in named if not torch.equal(named[n], before[n])} == expected


def test_a_run_needs_an_end_and_its_own_seed():
    with pytest.raises(UserError, match="a run needs an end"):
        TinySettings()
    with pytest.raises(UserError, match="would train on the validation scenes"):
        _settings(seed=VALIDATION_SEED)


@pytest.mark.parametrize("bad", [["--minutes", "0"], ["--steps", "-3"], ["--threads", "x"]])
def test_bad_numbers_are_refused(bad, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["tiny", "--out", "x", *bad])
    assert stop.value.code == 2
    assert bad[0] in capsys.readouterr().err


def test_a_users_mistake_is_one_message(tmp_path, capsys):
    assert main(["tiny", "--out", str(tmp_path), "--seed", str(VALIDATION_SEED)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("univg-train tiny: seed") and "Traceback" not in error


@pytest.mark.parametrize("how", [["--steps", "1"], ["--stage", "all", "--quick"]])
def test_a_folder_that_is_a_file_is_one_message(how, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["tiny", "--out", str(tmp_path / "file"), *how]) == 2
    assert re.search("^univg-train tiny: cannot .*file", capsys.readouterr().err, re.MULTILINE)


def test_a_full_disk_is_one_message(tmp_path):
    def writes() -> None:
        with (tmp_path / "log.jsonl").open("w") as file:
            file.write("x" * 9000)

    state = {"weights": torch.zeros(5000)}
    tokenizer = AutoTokenizer.from_pretrained(model_folder(TINY))
    for save, reason in (
        (writes, "File too large"),
        (lambda: torch.save(state, tmp_path / "state.partial"), "torch could not write a file"),
        (lambda: save_file(state, tmp_path / "model.safetensors"), "File too large"),
        (lambda: tokenizer.save_pretrained(tmp_path), "File too large"),
    ):
        message = rf"cannot save into {tmp_path}: {reason}.*; free space and run the same command"
        with pytest.raises(UserError, match=message), usable_folder(tmp_path), largest_file(5000):
            save()
    full = OSError(errno.ENOSPC, "No space left on device")
    message = f"cannot save into {tmp_path}: No space left"
    with pytest.raises(UserError, match=message), usable_folder(tmp_path):
        raise full
    for other in (OSError(errno.EIO, "of something else"), RuntimeError("of something else")):
        with pytest.raises(type(other), match="of something else"), usable_folder(tmp_path):
            raise other


@pytest.mark.parametrize("how", [[], ["--stage", "all", "--quick"]])
def test_a_second_run_in_the_same_folder_is_refused(tmp_path, capsys, how):
    with sole_writer(tmp_path):
        assert main(["tiny", "--out", str(tmp_path), *how]) == 2
    assert f"another process trains in {tmp_path}; wait for it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- rows ------------------------------------------------------------


def _is_near(answer, box):
    """Corners lie on the nearest points of the lattice: half a unit of 28 away at most."""
    return all(abs(a - b) <= 0.5 / 28 + 1e-3 for a, b in zip(answer, box, strict=True))


@pytest.mark.parametrize("task", TASKS)
def test_every_answer_names_an_object_that_is_there(task):
    """The boxes of a turn are those of objects with the answer's labels in the images."""
    for index in range(12):
        item = training_item(task, 11, index)
        thought, direct, *others = item_turns(item, random.Random(index), aids=6)
        target = item.target_image if item.image_is_given else None
        for turn in (thought, direct):
            assert turn.question == item.instruction
            box = read_answer(turn.answer, DIALECT, target_image=target).box
            assert box_iou(box, item.box) > 0.99 or item.task == "region"
        assert thought.answer.startswith("<think>") and "<think>" not in direct.answer
        objects = [obj for scene in item.scenes for obj in scene.objects]
        for turn in others:
            for found in re.finditer(r"start\|>([^<]*)<\|object_ref_end\|>", turn.answer):
                box = read_answer(turn.answer[found.end() :].split(";")[0], DIALECT).box
                assert any(obj.label == found[1] and _is_near(box, obj.box) for obj in objects)


def test_rows_are_a_function_of_seed_step_and_part():
    plan = RowPlan(image_steps=0, simple_steps=0, blend_steps=0)
    one, again, other = (training_rows(plan, 1, step, 3, side=112) for step in (5, 5, 6))
    assert [row.turns for row in one] == [row.turns for row in again]
    assert all((a.images == b.images).all() for a, b in zip(one, again, strict=True))
    assert [row.turns for row in one] != [row.turns for row in other]


def test_a_plan_has_every_task_and_begins_simply():
    plan = RowPlan()
    assert {task for part in plan.tasks for task in part} == set(TASKS)
    early = plan.image_steps + plan.simple_steps
    assert plan.full_share(0) == plan.full_share(early) == 0.0
    assert 0.0 < plan.full_share(early + 1) < plan.full_share(early + plan.blend_steps) == 1.0
    for step, objects in ((plan.image_steps, 1), (early - 1, 6)):
        assert plan.most_objects(step) == objects
        for row in training_rows(plan, 0, step, 0, side=112):
            assert len(row.images) == 1 and row.turns
            assert len(row.scenes[0].objects) <= objects
            # A border may cut the one object: nothing is asked of it but a list.
            assert max(turn.answer.count("<|box_start|>") for turn in row.turns) <= objects


def test_validation_samples_are_of_the_training_kind_from_their_own_stream():
    items = validation_items(VALIDATION_SEED, 2)
    assert [item.task for item in items] == [task for task in TASKS for _ in range(2)]
    assert items != [training_item(task, 0, 2 * i) for task in TASKS for i in range(2)]
    evaluated = generate("diff", seed=VALIDATION_SEED, index=0)
    assert evaluated.scenes != items[TASKS.index("diff") * 2].scenes
