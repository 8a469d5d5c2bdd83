"""Checkpoints in memory: whole or refused, and responses that no batching changes."""

from __future__ import annotations

import functools
import json
import logging
import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from small_checkpoints import FAMILIES, make_checkpoint

from univg_eval.errors import UserError
from univg_eval.files import write_sums
from univg_eval.models.generation import (
    Generator,
    Request,
    Response,
    encode,
    plan_batches,
    prompt_text,
)
from univg_eval.models.pretrained import load_model, load_processor

ONE_IMAGE = {"florence2", "kosmos-2"}
REPORTS_SIZES = {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "kimi_k25"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def checkpoint(root: Path, family: str) -> str:
    folder = root / family
    if not folder.exists():
        make_checkpoint(family, folder)
    return str(folder)


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(60, 300, 2)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def ask(words: str, images: Sequence[Image.Image], **changes: Any) -> Request:
    content = [*({"type": "image"} for _ in images), {"type": "text", "text": words}]
    known = {
        "image_sizes": [image.size for image in images],
        "options": {"max_new_tokens": 12},
        "special_tokens": True,
    }
    return Request([{"role": "user", "content": content}], lambda: images, **(known | changes))


def requests(family: str, n: int = 7) -> list[Request]:
    """Prompts of other lengths, about one image to three where the family takes them."""
    made = []
    for i in range(n):
        images = [picture(10 * i + k) for k in range(1 if family in ONE_IMAGE else 1 + i % 3)]
        made.append(ask("locate the " + "dog" * (3 * i + 1), images))
    return made


def answers(generator: Generator, asked: Sequence[Request]) -> list[Response]:
    found = dict(pair for batch in generator.run(asked) for pair in batch)
    return [found[i] for i in range(len(asked))]


def plain_loop(model: Any, processor: Any, request: Request) -> str:
    """One prompt at a time through transformers alone, whole."""
    images = list(request.open_images())
    text = prompt_text(processor, request.turns)
    shown: Any = [images] if processor.chat_template or "PaliGemma" in str(processor) else images
    begin = processor.tokenizer.bos_token
    inputs = processor(
        text=[text],
        images=shown,
        return_tensors="pt",
        add_special_tokens=begin is None or not text.startswith(begin),
    )
    inputs.pop("labels", None)
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    begins_at = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    text = processor.tokenizer.decode(output[0, begins_at:], skip_special_tokens=False)
    end = processor.tokenizer.eos_token
    return text.split(end)[0].split(processor.tokenizer.pad_token)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_change_no_response(family: str, checkpoints: Path) -> None:
    folder = checkpoint(checkpoints, family)
    model, processor = load_model(folder), load_processor(folder, needs_template=False)
    asked = requests(family)
    expected = [plain_loop(model, processor, request) for request in asked]
    assert len(set(expected)) > 3, "the checkpoint says the same to everything"
    for batch_size, workers in ((1, 0), (3, 0), (7, 2)):
        generator = Generator(model, processor, batch_size=batch_size, workers=workers)
        found = answers(generator, asked)
        assert [answer.text for answer in found] == expected, batch_size
    for answer, request in zip(found, asked, strict=True):
        alone = encode(processor, [prompt_text(processor, request.turns)], [request.open_images()])
        assert answer.prompt_tokens == alone["input_ids"].shape[1]
        assert (answer.input_sizes is None) == (family not in REPORTS_SIZES)


def test_the_sizes_are_those_of_the_resize(checkpoints: Path) -> None:
    """Sides are multiples of patch times merge, 28 pixels, and the area is within the limits."""
    folder = checkpoint(checkpoints, "qwen2_5_vl")
    processor = load_processor(folder, min_pixels=4 * 784, max_pixels=20 * 784)
    images = [Image.new("RGB", size) for size in ((640, 320), (29, 57), (84, 84))]
    generator = Generator(load_model(folder), processor)
    (answer,) = answers(generator, [ask("where?", images)])
    # 640x320: sqrt(20*784/204800) = 0.2767 of each side, rounded down to 28: 168x84.
    # 29x57: 28x56 is below 3136, so sqrt(3136/1653) = 1.377 of each side, rounded up: 56x84.
    assert answer.input_sizes == [(168, 84), (56, 84), (84, 84)]


@pytest.mark.filterwarnings("error::FutureWarning")
def test_limits_are_kept_by_the_image_processor_alone(checkpoints: Path, tmp_path: Path) -> None:
    folder = checkpoint(checkpoints, "qwen2_vl")
    processor = load_processor(folder, min_pixels=4 * 784, max_pixels=4 * 784)
    images = [Image.new("RGB", (112, 112))]
    text = prompt_text(processor, ask("where?", images).turns)
    assert encode(processor, [text], [images])["image_grid_thw"].tolist() == [[1, 4, 4]]
    processor.save_pretrained(tmp_path)
    assert "_pixels" not in (tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")
    assert load_processor(str(tmp_path)).image_processor.size["longest_edge"] == 4 * 784


def test_a_stop_text_ends_a_response(checkpoints: Path) -> None:
    folder = checkpoint(checkpoints, "qwen2_vl")
    generator = Generator(load_model(folder), load_processor(folder))
    whole = answers(generator, [ask("where?", [picture(1)])])[0].text
    assert whole is not None and len(whole) > 3
    mark = whole[2:4]
    stopped = answers(generator, [ask("where?", [picture(1)], stop=[mark])])[0].text
    assert stopped == whole.split(mark)[0]


def test_special_tokens_are_kept_on_request_alone(checkpoints: Path) -> None:
    folder = checkpoint(checkpoints, "florence2")
    generator = Generator(load_model(folder), load_processor(folder, needs_template=False))
    kept, dropped = answers(
        generator,
        [ask("locate", [picture(2)]), ask("locate", [picture(2)], special_tokens=False)],
    )
    assert kept.text is not None and "<loc_" in kept.text and "</s>" not in kept.text
    assert dropped.text is not None and "<loc_" not in dropped.text


def test_sampling_follows_the_seed(checkpoints: Path) -> None:
    folder = checkpoint(checkpoints, "qwen2_vl")
    generator = Generator(load_model(folder), load_processor(folder))
    request = ask("where?", [picture(3)], options={"max_new_tokens": 12, "temperature": 1.0})
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(answers(generator, [request])[0].text)
    assert texts[0] == texts[1] != texts[2]


def test_memory_that_is_exhausted_costs_no_sample(
    checkpoints: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(checkpoints, "qwen2_vl")
    model, processor = load_model(folder), load_processor(folder)
    asked = requests("qwen2_vl")
    expected = answers(Generator(model, processor, batch_size=8), asked)
    generate, seen = model.generate, []

    def small_memory(**inputs: Any) -> Any:
        rows, width = inputs["input_ids"].shape
        seen.append((rows, width))
        if rows * width > 250:
            raise torch.OutOfMemoryError("out of memory, tried to allocate much")
        return generate(**inputs)

    model.generate = small_memory
    with caplog.at_level(logging.WARNING):
        generator = Generator(model, processor, batch_size=8)
        assert answers(generator, asked) == expected
    assert seen[0][0] == 7 and sum(rows * width > 250 for rows, width in seen) <= 3
    assert 125 <= generator.token_budget < 500
    assert "out of memory with 7 prompts" in caplog.text

    model.generate = lambda **_: (_ for _ in ()).throw(torch.OutOfMemoryError("too large"))
    lost = answers(Generator(model, processor, batch_size=8), asked[:2])
    assert [(r.text, r.error) for r in lost] == [(None, "out of memory: too large")] * 2


def test_known_responses_leave_out_whole_batches_only(checkpoints: Path) -> None:
    folder = checkpoint(checkpoints, "qwen2_vl")
    generator = Generator(load_model(folder), load_processor(folder), batch_size=2)
    asked = requests("qwen2_vl", 6)
    batches = [[position for position, _ in batch] for batch in generator.run(asked)]
    assert sorted(functools.reduce(operator.iadd, batches, [])) == list(range(6))
    known = {*batches[0], batches[1][0]}
    again = [[p for p, _ in batch] for batch in generator.run(asked, known.__contains__)]
    assert again == batches[1:]


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 8), st.integers(1, 1500))
def test_a_plan_holds_each_request_once_within_its_limits(
    lengths: list[int], batch_size: int, budget: int
) -> None:
    plan = plan_batches(lengths, batch_size, budget)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    order = [lengths[i] for batch in plan for i in batch]
    assert order == sorted(lengths, reverse=True)
    for batch in plan:
        assert len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


# --- weights -------------------------------------------------------------------------------------


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen2_vl", tmp_path / "m")
    file = folder / "model.safetensors"
    weights = load_file(file)
    lost = next(name for name in weights if "layers.1" in name and "down_proj" in name)
    save_file({k: v for k, v in weights.items() if k != lost}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"1 weights are missing in its files, such as .*down_proj"):
        load_model(str(folder))


def test_a_package_that_the_processor_lacks_is_named(
    checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.smolvlm import processing_smolvlm

    folder = checkpoint(checkpoints, "smolvlm")
    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with pytest.raises(UserError, match=r"cannot load the processor .*pip install num2words"):
        load_processor(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen2_vl", tmp_path / "m")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["intermediate_size"] = 48
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"weights are mismatched in its files, such as .*down"):
        load_model(str(folder))


def test_weights_without_use_do_not_matter(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen2_vl", tmp_path / "m")
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"model.extra.weight": torch.zeros(2)}, file, {"format": "pt"})
    load_model(str(folder))


def test_an_adapter_is_put_on_and_one_of_another_model_refused(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    folder = str(make_checkpoint("qwen2_vl", tmp_path / "m"))
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False, r=4)
    torch.manual_seed(1)
    get_peft_model(load_model(folder), config).save_pretrained(tmp_path / "a")
    write_sums(tmp_path / "a")
    processor, asked = load_processor(folder), requests("qwen2_vl")
    plain = answers(Generator(load_model(folder), processor), asked)
    adapted = answers(Generator(load_model(folder, adapter=str(tmp_path / "a")), processor), asked)
    assert [a.text for a in plain] != [a.text for a in adapted]
    with pytest.raises(UserError, match="cannot load the adapter"):
        load_model(folder, adapter=str(tmp_path / "none"))
    with (tmp_path / "a" / "adapter_config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(UserError, match=r"a/adapter_config.json was changed or lost after it was"):
        load_model(folder, adapter=str(tmp_path / "a"))


def no_images() -> Sequence[Image.Image]:
    raise UserError("sample 'x': cannot read x.jpg as an image")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_request_whose_images_cannot_be_shown_is_lost_alone(
    checkpoints: Path, workers: int
) -> None:
    """Qwen2-VL's processor takes no image over 200 times as long as wide."""
    folder = checkpoint(checkpoints, "qwen2_vl")
    generator = Generator(
        load_model(folder, dtype="float32"), load_processor(folder), batch_size=3, workers=workers
    )
    sound = requests("qwen2_vl")
    long = ask("locate it", [Image.new("RGB", (4100, 20))])
    broken = replace(ask("locate the dog", [picture(1)]), open_images=no_images)
    found = answers(generator, [long, *sound[:3], broken, *sound[3:]])
    lost = [found.pop(4), found.pop(0)]
    assert [response.text for response in lost] == [None, None]
    assert lost[0].error == "sample 'x': cannot read x.jpg as an image"
    assert "4100x20 pixels: absolute aspect ratio must be smaller than 200" in lost[1].error
    assert [one.text for one in found] == [one.text for one in answers(generator, sound)]
    assert None not in [one.text for one in found]


def test_requests_that_are_all_lost_end_the_run_with_their_errors(checkpoints: Path) -> None:
    folder = checkpoint(checkpoints, "qwen2_vl")
    generator = Generator(load_model(folder), load_processor(folder), batch_size=2)
    asked = [replace(ask("locate the dog", [picture(1)]), open_images=no_images)] * 3
    assert {response.error for response in answers(generator, asked)} == {
        "sample 'x': cannot read x.jpg as an image"
    }


def test_a_checkpoints_own_code_does_not_run(tmp_path: Path) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    make_checkpoint("qwen2_vl", folder)
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    code = ("AutoConfig", "AutoModelForImageTextToText", "AutoProcessor", "AutoImageProcessor")
    for file in folder.glob("*config.json"):
        values = json.loads(file.read_text()) | {"auto_map": {name: "own.C" for name in code}}
        if file.name == "config.json":
            values["model_type"] = "own"
        file.write_text(json.dumps(values))
    with pytest.raises(UserError, match="only where trust_remote_code=True is given"):
        load_model(str(folder))
    load_processor(str(folder))
    assert not ran.exists()


def test_a_changed_byte_of_the_weights_is_named(tmp_path: Path) -> None:
    folder = make_checkpoint("qwen2_vl", tmp_path / "model")
    write_sums(tmp_path / "model")
    load_model(str(folder))
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors was changed or lost after it was"):
        load_model(str(folder))
