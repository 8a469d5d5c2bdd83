"""The losses that the tiny model's training alone has: what tokens show, where answers look."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from univg_eval.benchmarks.synthetic.mini import TASKS, Scene, SceneObject
from univg_eval.benchmarks.synthetic.mini.scene import COLORS, PRIMITIVES, Background
from univg_train.tiny.data import RowPlan, item_turns, training_item, training_rows

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("transformers", reason="training needs transformers (extra train)")

from tiny_model_data import SHAPE, WHOLE, vocabulary  # noqa: E402

from univg_train.tiny.auxiliary import (  # noqa: E402
    TokenHeads,
    Trainee,
    attention_loss,
    covered_tokens,
    token_targets,
)
from univg_train.tiny.model import IMAGE_SIDE, build_model, packed_logits  # noqa: E402
from univg_train.tiny.workers import (  # noqa: E402
    batch_loss,
    image_loss,
    pack_rows,
    token_figures,
    words_loss,
)

torch.set_num_threads(1)
PLAIN = Background((128, 128, 128), (0, 0, 0), (0, 0, 0))


def _scene(*objects: SceneObject, marks: tuple = ()) -> Scene:
    return Scene(background=PLAIN, objects=objects, marks=marks)


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary()


@pytest.fixture
def trainee(tokenizer):
    return Trainee(build_model(SHAPE, tokenizer, seed=1), seed=1)


# -- what a token shows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "tokens"),
    [
        ((0, 0, 1, 1), list(range(16))),
        ((0.25, 0.5, 0.5, 0.75), [9]),  # second column, third row of a 4 x 4 grid
        ((0.25, 0.0, 0.75, 0.25), [1, 2]),
        # Of column 1 it covers all, of column 2 half, of column 0 two fifths.
        ((0.15, 0.0, 0.625, 0.25), [1, 2]),
        ((0.30, 0.30, 0.31, 0.31), [5]),  # less than any token, but somewhere
    ],
)
def test_a_box_is_shown_by_the_tokens_it_covers_at_least_half_as_much_as_the_most(box, tokens):
    assert covered_tokens(box, 4).tolist() == tokens


def test_a_token_shows_the_object_that_covers_most_of_it_or_none():
    large = SceneObject(shape="square", color="red", box=(0.0, 0.0, 0.5, 0.5))
    small = SceneObject(shape="circle", color="blue", box=(0.5, 0.0, 0.75, 0.25))
    sliver = SceneObject(shape="ring", color="green", box=(0.75, 0.75, 0.78, 1.0))  # an eighth
    targets = token_targets(_scene(large, small, sliver, marks=((0.5, 0.0, 0.75, 0.25),)), 4)
    assert targets.shape == (16, 7)
    red = [COLORS_AT["red"], SHAPES_AT["square"], 0, 0, 0, 14, 14]
    blue = [COLORS_AT["blue"], SHAPES_AT["circle"], 1, 14, 0, 21, 7]
    for token, expected in ((0, red), (1, red), (4, red), (5, red), (2, blue)):
        assert targets[token].tolist() == expected, token
    for token in (3, 6, 10, 15):
        assert targets[token].tolist() == [0, 0, 0, -100, -100, -100, -100], token


COLORS_AT = {name: number for number, name in enumerate(COLORS, start=1)}
SHAPES_AT = {name: number for number, name in enumerate(PRIMITIVES, start=1)}


def test_heads_that_know_nothing_pay_the_logarithm_of_the_number_of_values():
    heads = TokenHeads(8, places=1)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
    thing = SceneObject(shape="square", color="red", box=(0.0, 0.0, 0.5, 1.0))
    targets = torch.from_numpy(token_targets(_scene(thing), 2))
    loss = heads(0, torch.randn(4, 8), targets)
    always = math.log(len(COLORS) + 1) + math.log(len(PRIMITIVES) + 1) + math.log(2)
    where = 4 * math.log(29)  # lattice points 0 to 28; of the two tokens with the object alone
    assert float(loss.detach()) == pytest.approx((4 * always + 2 * where) / 7, rel=1e-5)


# -- where an answer looks ------------------------------------------------------------------------


def test_equal_scores_look_at_what_is_wanted_by_its_share_of_what_can_be_seen():
    query = torch.zeros(2, 2, 5, 3)
    mask = torch.zeros(2, 1, 5, 5).masked_fill_(~torch.ones(5, 5).tril().bool(), float("-inf"))
    places = torch.tensor([[0, 3], [1, 4]])
    wanted = torch.tensor([[True, False, True, False, False], [False, True, False, False, False]])
    loss = attention_loss(query, query, mask, places, wanted, 1.0)
    assert float(loss) == pytest.approx(-math.log(2 / 4) - math.log(1 / 5), rel=1e-6)


def test_the_loss_is_the_mean_over_heads_and_falls_as_the_wanted_score_rises():
    query, key = torch.zeros(1, 2, 3, 1), torch.zeros(1, 2, 3, 1)
    query[0, 0, 2, 0] = 1.0
    key[0, 0, 1, 0] = math.log(8)  # the first head scores 1, 8, 1; the second 1, 1, 1
    loss = attention_loss(
        query, key, torch.zeros(1, 1, 3, 3), torch.tensor([[0, 2]]),
        torch.tensor([[False, True, False]]), 1.0,
    )  # fmt: skip
    assert float(loss) == pytest.approx((-math.log(8 / 10) - math.log(1 / 3)) / 2, rel=1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_every_look_is_at_an_object_with_the_name_that_is_being_said(task):
    looks = 0
    for index in range(8):
        item = training_item(task, 3, 2 * index)
        for turn in item_turns(item, random.Random(index), aids=6):
            for look in turn.looks:
                said = turn.answer[look.start : look.end]
                shown = [obj for obj in item.scenes[look.image].objects if obj.box == look.box]
                label = said.split("<|")[0]
                assert [obj.label for obj in shown] == [label] or (
                    # A region of the image is asked for by its own box, not the object's.
                    task == "region" and label == item.label and look.box == item.box
                ), (turn, look)
                looks += 1
    assert looks > 30


def test_looks_stand_before_the_words_and_point_at_tokens_of_the_right_image(tokenizer):
    single = training_rows(WHOLE, seed=5, step=3, part=3, side=IMAGE_SIDE)[0]
    many = next(
        row for row in training_rows(WHOLE, seed=5, step=3, part=1, side=IMAGE_SIDE)
        if len(row.images) > 2
    )  # fmt: skip
    for row in (single, many):
        (batch,) = pack_rows([row], tokenizer, SHAPE)
        ids, index = batch.input_ids[0], batch.target_index.tolist()
        pads = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).nonzero()[:, 0]
        looks = iter(zip(batch.shown.looks.tolist(), batch.shown.looked_at, strict=True))
        for turn in row.turns:
            for look in turn.looks:
                words = ""
                tokens = pads.view(len(row.images), -1)[look.image]
                expected = tokens[torch.from_numpy(covered_tokens(look.box, 6))].tolist()
                while len(words) < look.end - look.start:
                    (_, at), looked_at = next(looks)
                    assert looked_at.nonzero()[:, 0].tolist() == expected
                    # What follows is learnt: an object's words are looked for before they stand.
                    words += tokenizer.decode([int(batch.target_ids[index.index(at)])])
                assert words.strip() == turn.answer[look.start : look.end]
        assert next(looks, None) is None


# -- the whole loss -------------------------------------------------------------------------------


def test_the_loss_of_a_batch_is_that_of_its_words_and_three_tenths_of_each_other(
    trainee, tokenizer
):
    rows = training_rows(WHOLE, seed=5, step=3, part=3, side=IMAGE_SIDE)[:2]
    (batch,) = pack_rows(rows, tokenizer, SHAPE)
    total, (words, shown, looks) = batch_loss(trainee, batch, SHAPE)
    assert float(total) == pytest.approx(float(words + 0.3 * shown + 0.3 * looks), rel=1e-5)
    alone = words_loss(packed_logits(trainee.model, batch, SHAPE), batch)
    assert float(words) == pytest.approx(float(alone), rel=1e-5)
    # Untrained: a token's figures are guessed, attention is spread over all that is seen.
    weight = float(batch.target_weight.sum())
    assert 0.5 < float(shown) / weight < 6.0
    share = batch.shown.looked_at.sum(dim=1).float() / (batch.shown.looks[:, 1] + 1)
    assert float(looks) / weight == pytest.approx(float(-share.log().mean()), rel=0.2)


def test_images_alone_teach_the_vision_tower_alone(trainee):
    rows = training_rows(RowPlan(image_steps=1), seed=0, step=0, part=0, side=IMAGE_SIDE)
    assert all(len(row.images) == 1 and not row.turns for row in rows)
    images = torch.from_numpy(np.concatenate([row.images for row in rows]))
    figures = torch.from_numpy(token_figures([row.scenes[0] for row in rows], SHAPE))
    image_loss(trainee, images, figures, SHAPE).backward()
    taught = {name for name, p in trainee.named_parameters() if p.grad is not None}
    own = {id(parameter) for parameter in trainee.vision_parameters()}
    assert taught == {name for name, p in trainee.named_parameters() if id(p) in own}
    assert any("visual" in name for name in taught)
    assert not any("language_model" in name for name in taught)
