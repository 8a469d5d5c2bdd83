"""Settings: who wins, and where a value says it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from univg_eval.errors import UserError
from univg_eval.lmms.settings import ModelUnderTest, RunSettings, resolve_settings


def checkpoint(folder: Path, processor: dict[str, Any] | None = None, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def model_of(folder: Path, processor: dict[str, Any] | None = None, **config: Any):
    """The model_args of a checkpoint."""
    return {"pretrained": str(checkpoint(folder, processor, **config))}


def resolve(
    backend: str, args: dict[str, Any] | None = None, *, yaml: dict[str, Any] | None = None, **env
) -> RunSettings:
    return resolve_settings(ModelUnderTest(backend, args or {}), yaml or {}, env)


def test_environment_beats_yaml_beats_checkpoint_beats_model_type(tmp_path: Path) -> None:
    own = {"dialect": "univg_r1", "prompt": "direct"}
    plain = model_of(tmp_path / "plain", model_type="qwen2_vl")
    declared = model_of(tmp_path / "declared", model_type="qwen2_vl", univg=own)
    yaml = {"dialect": "norm1000", "prompt": "direct", "protocol": "migician"}
    env = {"UNIVG_DIALECT": "norm1", "UNIVG_PROMPT": "think", "UNIVG_PROTOCOL": "univg-r1"}

    found = resolve("qwen2_vl", plain)
    assert found.dialect.value == "qwen2_vl"
    assert "model_type 'qwen2_vl'" in found.dialect.source
    assert (found.prompt.value, found.protocol.value) == ("direct", "univg")

    found = resolve("qwen2_vl", declared)
    assert (found.dialect.value, found.prompt.value) == ("univg_r1", "direct")
    assert "field univg.dialect" in found.dialect.source

    found = resolve("qwen2_vl", declared, yaml=yaml)
    assert (found.dialect.value, found.protocol.value) == ("norm1000", "migician")
    assert "YAML" in found.dialect.source

    found = resolve("qwen2_vl", declared, yaml=yaml, **env)
    assert found.dialect.to_list() == ["norm1", "environment variable UNIVG_DIALECT"]
    assert (found.prompt.value, found.protocol.value) == ("think", "univg-r1")
    assert RunSettings.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_prompt_follows_the_dialect_unless_set(tmp_path: Path) -> None:
    args = model_of(tmp_path / "m", model_type="qwen2_vl")
    assert resolve("qwen2_vl", args, UNIVG_DIALECT="univg_r1").prompt.value == "think"
    assert resolve("qwen2_vl", args).prompt.value == "direct"


def test_pixel_limits_setting_then_model_args_then_backend_default(tmp_path: Path) -> None:
    # simple/qwen2_vl and simple/qwen2_5_vl of lmms-eval have other defaults than the checkpoint.
    limits = {"min_pixels": 1, "max_pixels": 2}
    args = model_of(tmp_path / "m", limits, model_type="qwen2_5_vl")
    found = resolve("qwen2_vl", args)
    assert (found.min_pixels.value, found.max_pixels.value) == (3136, 602112)
    assert found.min_pixels.source == "default of the backend simple/qwen2_vl"
    simple = ModelUnderTest("qwen2_5_vl", args, force_simple=True)
    found = resolve_settings(simple, {}, {})
    assert (found.min_pixels.value, found.max_pixels.value) == (200704, 1605632)
    assert found.make_dialect().pixel_limits == (200704, 1605632)

    found = resolve("qwen2_vl", args | {"max_pixels": 12544})
    assert found.max_pixels.to_list() == [12544, "max_pixels of model_args"]
    assert found.min_pixels.value == 3136
    found = resolve("qwen2_vl", args | {"max_pixels": 12544}, UNIVG_MAX_PIXELS="50176")
    assert found.max_pixels.to_list() == [50176, "environment variable UNIVG_MAX_PIXELS"]


def test_a_backend_without_limits_leaves_them_to_the_checkpoint(tmp_path: Path) -> None:
    # chat/huggingface has no such argument.
    newer = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "size": {"shortest_edge": 784, "longest_edge": 12544},
    }
    args = model_of(tmp_path / "m", newer, model_type="qwen2_5_vl")
    found = resolve("huggingface", args)
    assert (found.min_pixels.value, found.max_pixels.value) == (784, 12544)
    assert found.max_pixels.source.endswith("preprocessor_config.json")
    # A CLIP processor's shortest_edge is a side in pixels, not an area.
    other = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 336}}
    args = model_of(tmp_path / "c", other, model_type="qwen2_vl")
    assert resolve("huggingface", args).min_pixels.value is None


def test_limits_nobody_names_are_the_dialects_own(tmp_path: Path) -> None:
    args = model_of(tmp_path / "m", model_type="qwen2_5_vl")
    found = resolve("huggingface", args)
    assert found.max_pixels.source == "default of the dialect"
    assert found.max_pixels.value == found.make_dialect().pixel_limits[1]


def test_limits_of_videos_are_not_taken_for_limits_of_images(tmp_path: Path) -> None:
    """chat/vllm and chat/async_openai limit videos by max_pixels (1605632, 151200), images not."""
    processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "size": {"shortest_edge": 3136, "longest_edge": 802816},
    }
    folder = checkpoint(tmp_path / "m", processor, model_type="qwen2_5_vl")
    for backend in ("vllm", "async_openai"):
        for args in ({}, {"max_pixels": 4000}):
            found = resolve(backend, {"model": str(folder), **args})
            assert (found.min_pixels.value, found.max_pixels.value) == (3136, 802816), args
    given = 'mm_processor_kwargs={"min_pixels":6272,"max_pixels":1003520}'
    model = ModelUnderTest.from_arguments("vllm", f"model={folder},{given}")
    found = resolve_settings(model, {}, {})
    assert (found.min_pixels.value, found.max_pixels.value) == (6272, 1003520)
    assert found.max_pixels.source == "mm_processor_kwargs of model_args, max_pixels"
    for wrong in ("{", "[1]"):
        with pytest.raises(UserError, match=r"mm_processor_kwargs of model_args is .*JSON object"):
            resolve("vllm", {"model": str(folder), "mm_processor_kwargs": wrong})


UNKNOWN = [
    (ModelUnderTest("huggingface", {"pretrained": "FOLDER"}), "no-such-model-type"),
    (ModelUnderTest("openai", {"model_version": "gpt-5"}), "gpt-5"),
    (None, "cli_args"),
]


@pytest.mark.parametrize(("model", "reason"), UNKNOWN)
def test_an_unknown_dialect_names_every_way_to_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ModelUnderTest | None, reason: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if model is not None and model.args.get("pretrained"):
        folder = checkpoint(tmp_path / "m", model_type="no-such-model-type")
        model = ModelUnderTest(model.backend, {"pretrained": str(folder)})
    with pytest.raises(UserError, match="how the model writes boxes is not known") as caught:
        resolve_settings(model, {}, {})
    for words in ("UNIVG_DIALECT", "--dialect", "metadata: {dialect", reason):
        assert words in str(caught.value)


WRONG = [
    ({"UNIVG_DIALECT": "qwen"}, "unknown dialect 'qwen'.*UNIVG_DIALECT"),
    ({"UNIVG_PROMPT": "loud"}, "prompt style is 'loud'.*think, direct"),
    ({"UNIVG_PROTOCOL": "paper"}, "unknown protocol 'paper'.*UNIVG_PROTOCOL"),
    ({"UNIVG_MAX_PIXELS": "many"}, "max_pixels is 'many'.*whole number"),
    ({"UNIVG_MAX_PIXELS": "0"}, "max_pixels is '0'"),
    ({"UNIVG_MAX_PIXELS": "1e6"}, "max_pixels is '1e6'"),
    ({"UNIVG_MAX_PIXELS": "100"}, "expected min_pixels <= max_pixels"),
]


def test_a_wrong_value_names_its_source(tmp_path: Path) -> None:
    args = model_of(tmp_path / "m", model_type="qwen2_vl")
    for environ, message in WRONG:
        with pytest.raises(UserError, match=message):
            resolve("qwen2_vl", args, **environ)


def test_an_unknown_backend_and_unreadable_model_args_are_user_errors() -> None:
    with pytest.raises(UserError, match="no backend 'qwen9'"):
        resolve("qwen9", UNIVG_DIALECT="norm1")
    with pytest.raises(UserError, match="expected name=value pairs"):
        ModelUnderTest.from_arguments("qwen2_vl", "pretrained")


def test_baselines_need_no_setting_and_replay_takes_that_of_its_file(tmp_path: Path) -> None:
    assert resolve("univg_baseline", {"kind": "oracle"}).dialect.value == "norm1"
    assert resolve("univg_baseline", UNIVG_DIALECT="kosmos2").dialect.value == "kosmos2"
    file = tmp_path / "r.jsonl"
    file.write_text('{"id": "a", "response": "", "dialect": "qwen2_vl"}\n')
    assert resolve("univg_replay", {"responses": str(file)}).dialect.value == "qwen2_vl"
    file.write_text('{"id": "a", "response": ""}\n')
    with pytest.raises(UserError, match="no field 'dialect'; add it, or set the environment"):
        resolve("univg_replay", {"responses": str(file)})
    file.write_text('{"id": "a", "response": "", "dialect": "norm1"}\n' * 2)
    with pytest.raises(UserError, match="duplicate id 'a'"):
        resolve("univg_replay", {"responses": str(file)})
