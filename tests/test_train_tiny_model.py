"""The tiny model: tokenizer, packed training rows against single conversations, stock backend."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("transformers", reason="training needs transformers (extra train)")

from tiny_model_data import SHAPE, WHOLE, vocabulary  # noqa: E402

from univg_eval.benchmarks.synthetic.mini import TASKS, generate  # noqa: E402
from univg_eval.dialects import get_dialect  # noqa: E402
from univg_eval.prompts import THINK_SUFFIX  # noqa: E402
from univg_train.tiny.checkpoint import CardFacts, export_checkpoint  # noqa: E402
from univg_train.tiny.data import (  # noqa: E402
    PROMPT_SUFFIX,
    REASONING_TOKENS,
    Row,
    Turn,
    draw_images,
    prefix_text,
    training_rows,
)
from univg_train.tiny.model import (  # noqa: E402
    FRAMES,
    IMAGE_SIDE,
    build_model,
    image_patches,
    masked_attention,
    packed_logits,
)
from univg_train.tiny.workers import pack_rows, turn_ids  # noqa: E402

# Several threads on a busy machine wait for each other more than they compute.
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer():
    return vocabulary()


@pytest.fixture(scope="module")
def model(tokenizer):
    model = build_model(SHAPE, tokenizer, seed=1)
    with torch.no_grad():
        # As initialised, logits hardly differ from token to token.
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(4.0)
    return model.eval()


# -- tokenizer ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "<|box_start|>(12,300),(450,980)<|box_end|>",
        "a 4501 007 12.5 and Ünïcode\x00 \n\n x",
        "Locate the red circle." + PROMPT_SUFFIX + "<|im_end|>\n",
        "don't (x1,y1),(x2,y2)",
        "",
    ],
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_coordinate_is_one_token(tokenizer):
    assert {len(tokenizer.encode(str(n))) for n in range(1001)} == {1}
    tokens = tokenizer.encode("<|box_start|>(12,300),(450,980)<|box_end|>")
    assert len(tokens) == 11  # mark ( 12 , 300 ),( 450 , 980 ) mark


def test_prompt_suffixes_and_tags_are_one_token_each(tokenizer):
    assert f" {get_dialect('qwen2_vl').prompt_suffix}" == PROMPT_SUFFIX
    assert THINK_SUFFIX in REASONING_TOKENS
    for text in (PROMPT_SUFFIX, *REASONING_TOKENS):
        assert len(tokenizer.encode(text)) == 1, text
    reply = "<think>Red.</think><answer>(1,2),(3,4)</answer>"
    assert tokenizer.decode(tokenizer.encode(reply), skip_special_tokens=True) == reply


def test_the_vocabulary_is_the_same_every_time(tokenizer):
    again = vocabulary()
    assert again.get_vocab() == tokenizer.get_vocab()


# -- packed rows ----------------------------------------------------------------------------------


def _alone(model, tokenizer, row: Row, turn) -> tuple[torch.Tensor, list[int]]:
    """transformers' own logits for one conversation, at the places that predict the answer."""
    question, answer, _ = turn_ids(tokenizer, turn)
    prefix = tokenizer.encode(prefix_text(len(row.images), SHAPE.tokens_per_image))
    ids = torch.tensor([prefix + question + answer])
    patches = image_patches(torch.from_numpy(row.images), SHAPE, torch.float32, frames=FRAMES)
    output = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=patches.reshape(-1, patches.shape[-1]),
        image_grid_thw=torch.tensor([[1, SHAPE.grid, SHAPE.grid]] * len(row.images)),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
    )
    return output.logits[0, len(prefix) + len(question) - 1 : -1], answer


@torch.no_grad()
@pytest.mark.parametrize("part", range(WHOLE.parts))
def test_packed_turns_give_the_logits_of_single_conversations(model, tokenizer, part):
    rows = training_rows(WHOLE, seed=5, step=3, part=part, side=IMAGE_SIDE)[:2]
    for row in rows:
        (batch,) = pack_rows([row], tokenizer, SHAPE)
        packed = packed_logits(model, batch, SHAPE)
        at = 0
        for turn in row.turns:
            alone, answer = _alone(model, tokenizer, row, turn)
            here = slice(at, at + len(answer))
            assert batch.target_ids[here].tolist() == answer
            torch.testing.assert_close(packed[here], alone, atol=2e-3, rtol=2e-3)
            assert alone.std() > 0.1  # else closeness would prove nothing
            at += len(answer)
        assert at == len(packed)


@torch.no_grad()
def test_padding_and_neighbours_change_nothing(model, tokenizer):
    rows = training_rows(WHOLE, seed=5, step=1, part=3, side=IMAGE_SIDE)[:3]
    (together,) = pack_rows(rows, tokenizer, SHAPE, max_tokens=10**6)
    apart = [pack_rows([row], tokenizer, SHAPE)[0] for row in rows]
    apart.sort(key=lambda batch: batch.input_ids.shape[1])
    torch.testing.assert_close(
        packed_logits(model, together, SHAPE),
        torch.cat([packed_logits(model, batch, SHAPE) for batch in apart]),
        atol=2e-3,
        rtol=2e-3,
    )


def test_gradients_of_the_attention_are_those_of_its_formula():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    mask.masked_fill_(~torch.ones(5, 5, dtype=torch.bool).tril(), float("-inf"))
    assert torch.autograd.gradcheck(lambda *x: masked_attention(*x, mask, 0.6), (q, k, v))


# -- what is shipped ------------------------------------------------------------------------------


@dataclass
class _Captured(Exception):  # noqa: N818
    inputs: dict


def test_lmms_eval_feeds_what_training_fed(model, tokenizer, tmp_path, monkeypatch):
    """The stock backend: same tokens, and pixels as close as JPEG at quality 85 leaves them."""
    pytest.importorskip("lmms_eval", reason="needs lmms-eval (extra eval)")
    from lmms_eval.api.instance import Instance
    from lmms_eval.models.simple.qwen2_vl import Qwen2_VL

    folder = tmp_path / "model"
    facts = CardFacts(1, 0.1, 1, 1, dict.fromkeys(TASKS, 0.0), 1, ("think", 0.0))
    export_checkpoint(model, tokenizer, SHAPE, facts, folder)
    backend = Qwen2_VL(
        pretrained=str(folder), device="cpu", device_map="cpu",
        min_pixels=IMAGE_SIDE**2, max_pixels=IMAGE_SIDE**2,
    )  # fmt: skip

    def capture(**inputs):
        raise _Captured(inputs)

    monkeypatch.setattr(backend.model, "generate", capture)
    item = generate("group_grounding", seed=3, index=0, subset="train")
    backend.task_dict = {"t": {"s": [item]}}
    request = Instance(
        request_type="generate_until",
        arguments=(
            item.instruction + PROMPT_SUFFIX, {}, lambda doc: doc.render(448), 0, "t", "s",
        ),
        idx=0,
        metadata={"task": "t", "doc_id": 0, "repeats": 1},
    )  # fmt: skip
    with pytest.raises(_Captured) as caught:
        backend.generate_until([request])
    fed = caught.value.inputs

    question, *_ = turn_ids(tokenizer, Turn(item.instruction, "x"))
    prefix = tokenizer.encode(prefix_text(item.image_count, SHAPE.tokens_per_image))
    assert fed["input_ids"][0].tolist() == prefix + question
    assert fed["image_grid_thw"].tolist() == [[1, SHAPE.grid, SHAPE.grid]] * item.image_count
    images = torch.from_numpy(draw_images(item.scenes, IMAGE_SIDE))
    trained = image_patches(images, SHAPE, torch.float32, frames=FRAMES)
    difference = (fed["pixel_values"] - trained.reshape(fed["pixel_values"].shape)).abs()
    assert difference.mean() < 0.05  # one standard deviation of a pixel is 1
    assert difference.quantile(0.99) < 0.5


def test_the_checkpoint_is_bfloat16_computed_in_float32(model, tokenizer, tmp_path):
    from transformers import Qwen2VLForConditionalGeneration

    folder = tmp_path / "model"
    facts = CardFacts(7, 2.0, 1, 2, dict.fromkeys(TASKS, 0.25), 4, ("think", 0.5))
    export_checkpoint(model, tokenizer, SHAPE, facts, folder)
    loaded = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == torch.float32
    config = json.loads((folder / "config.json").read_text())
    assert config["univg"] == {"dialect": "qwen2_vl", "prompt": "direct"}
    parameters = sum(p.numel() for p in model.parameters())
    assert (folder / "model.safetensors").stat().st_size < 2.2 * parameters + 50_000
    card = (folder / "README.md").read_text()
    assert "| **macro** | **0.25** |" in card
    assert "Macro with the prompt `think`: 0.50." in card
    for name, value in loaded.state_dict().items():
        expected = model.state_dict()[name].to(torch.bfloat16).float()
        assert torch.equal(value, expected), name
