"""Settings: who wins, and where a value says it comes from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lmms_eval
import numpy as np
import pytest
from PIL import Image

from univg_eval.dialects import get_dialect
from univg_eval.errors import UserError
from univg_eval.lmms.backend_resize import sent_sizes
from univg_eval.lmms.device import require_device
from univg_eval.lmms.settings import (
    ModelUnderTest,
    RunSettings,
    environment,
    given_options,
    resolve_settings,
)
from univg_eval.lmms.special_tokens import KEEPING_BACKENDS, require_special_tokens


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
    (ModelUnderTest("openai", {"model_version": "gpt-7"}), "'gpt-7'; contracts differ"),
    (ModelUnderTest("claude", {"model_version": "claude-opus-6"}), r"claude_high (Claude from 4.7"),
    (None, "cli_args"),
]


@pytest.mark.parametrize(("model", "reason"), UNKNOWN)
def test_an_unknown_dialect_names_every_way_to_set_it(
    tmp_path: Path, model: ModelUnderTest | None, reason: str
) -> None:
    if model is not None and model.args.get("pretrained"):
        folder = checkpoint(tmp_path / "m", model_type="no-such-model-type")
        model = ModelUnderTest(model.backend, {"pretrained": str(folder)})
    with pytest.raises(UserError, match="how the model writes boxes is not known") as caught:
        resolve_settings(model, {}, {})
    for words in ("UNIVG_DIALECT", "--dialect", "metadata: {dialect", reason):
        assert words in str(caught.value)


def test_a_checkpoint_that_is_not_there_is_not_blamed_on_the_dialect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=f"no checkpoint {nowhere} .*the folder does not exist"):
        resolve("qwen2_vl", {"pretrained": nowhere})
    # With a dialect nothing has to be read from it: the backend's own error is to come.
    assert resolve("qwen2_vl", {"pretrained": nowhere}, UNIVG_DIALECT="norm1").dialect.value
    with pytest.raises(UserError, match=r"no checkpoint 'a/b' .*hub is not asked.*pretrained=DIR"):
        resolve("qwen2_vl", {"pretrained": "a/b"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is no whole checkpoint: .*config\.json cannot be read"):
        resolve("qwen2_vl", {"pretrained": str(tmp_path / "empty")})
    # A server may know a model by a folder of its own machine.
    with pytest.raises(UserError, match="how the model writes boxes is not known"):
        resolve("openai", {"model": nowhere})
    assert resolve("openai", {"model": nowhere}, UNIVG_DIALECT="norm1").dialect.value == "norm1"


@pytest.mark.parametrize(
    ("backend", "model", "dialect"),
    [
        ("openai", "gpt-5.5", "pixels_box_2d"),
        ("async_openai", "gpt-5", "norm1_corners"),
        ("claude", "claude-opus-4-6", "claude"),
        ("claude", "claude-opus-5", "claude_high"),
        ("gemini", "gemini-3.5-flash", "gemini"),
        ("litellm", "z-ai/glm-5.3-flash", "norm1000_yxyx"),
        ("openai", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl"),
    ],
)
def test_a_service_has_the_dialect_of_its_models_version(
    backend: str, model: str, dialect: str
) -> None:
    found = resolve(backend, {"model_version": model})
    assert found.dialect.value == dialect
    assert f"model {model!r} in the table of services" in found.dialect.source
    assert (
        resolve(backend, {"model_version": model}, UNIVG_DIALECT="norm1").dialect.value == "norm1"
    )


@pytest.mark.parametrize(
    ("backend", "argument"), [("claude", "model"), ("openai", "pretrained"), ("gemini", "model_id")]
)
def test_a_name_that_a_services_backend_passes_over_is_refused(backend: str, argument: str) -> None:
    """It would ask for its default model, and read the answers as the named one's."""
    with pytest.raises(UserError, match=rf"{argument}=claude-opus-5.*Write model_version=claude-o"):
        resolve(backend, {argument: "claude-opus-5"})
    for read in ("model", "model_version"):
        assert resolve("async_openai", {read: "gpt-5"}).dialect.value == "norm1_corners"


def test_a_folder_behind_a_server_is_read_like_any_other(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "gpt-5", model_type="qwen2_vl")
    assert resolve("openai", {"model": str(folder)}).dialect.value == "qwen2_vl"


def test_fields_beside_the_model_type_count(tmp_path: Path) -> None:
    args = model_of(tmp_path / "m", model_type="llava", architectures=["LlavaQwenForCausalLM"])
    assert resolve("llava_onevision", args).dialect.value == "llava_onevision"
    (tmp_path / "m" / "added_tokens.json").write_text('{"<999>": 1}')
    args = model_of(tmp_path / "m", model_type="qwen2_5_vl")
    with pytest.raises(UserError, match="'rex_omni' writes its boxes in special tokens"):
        resolve("qwen2_5_vl", args)


TOKENS = ["rex_omni", "locate_anything", "florence2", "smoldocling"]


@pytest.mark.parametrize("dialect", TOKENS)
@pytest.mark.parametrize("backend", ["vllm", "openai", "async_openai", "qwen2_5_vl"])
def test_boxes_that_a_backend_would_drop_are_refused(dialect: str, backend: str) -> None:
    with pytest.raises(UserError, match=rf"{dialect}.*{backend} drops.*UNIVG_SPECIAL_TOKENS=kept"):
        resolve(backend, {"model": "m"}, UNIVG_DIALECT=dialect)
    found = resolve(backend, {"model": "m"}, UNIVG_DIALECT=dialect, UNIVG_SPECIAL_TOKENS="kept")
    assert found.dialect.value == dialect


def test_boxes_that_survive_without_special_tokens_are_not_refused(tmp_path: Path) -> None:
    for dialect in ("internvl", "qwen2_vl", "deepseek_vl2", "paligemma", "kosmos2"):
        assert resolve("vllm", {"model": "m"}, UNIVG_DIALECT=dialect).dialect.value == dialect
    for dialect in TOKENS:
        assert resolve("cogvlm2", UNIVG_DIALECT=dialect).dialect.value == dialect
        assert resolve("univg_baseline", UNIVG_DIALECT=dialect).dialect.value == dialect
    with pytest.raises(UserError, match="chat/sglang drops"):
        require_special_tokens(get_dialect("rex_omni"), "sglang", simple=False, environ={})
    with pytest.raises(UserError, match="UNIVG_SPECIAL_TOKENS is 'yes'; expected 'kept'"):
        resolve("vllm", {"model": "m"}, UNIVG_DIALECT="internvl", UNIVG_SPECIAL_TOKENS="yes")


def test_backends_of_lmms_eval_decode_as_they_were_read() -> None:
    """What the refusal relies on, in the installed lmms-eval."""
    models = Path(lmms_eval.__file__).parent / "models"
    for kind, name in KEEPING_BACKENDS - {("simple", "univg")}:
        assert "skip_special_tokens=True" not in (models / kind / f"{name}.py").read_text()
    for path in ("simple/vllm", "chat/vllm", "chat/openai", "chat/async_openai", "chat/litellm"):
        assert "skip_special_tokens" not in (models / f"{path}.py").read_text(), path
    sglang = (models / "chat/sglang.py").read_text()
    assert "skip_special_tokens=False" not in sglang
    for path in ("simple/qwen2_5_vl", "chat/qwen2_5_vl", "chat/qwen3_vl", "chat/internvl_hf"):
        assert "skip_special_tokens=True" in (models / f"{path}.py").read_text(), path


def test_a_client_of_unknown_sizes_is_refused_for_claude() -> None:
    args = {"model": "anthropic/claude-opus-5"}
    assert resolve("litellm", args).dialect.value == "claude_high"
    model = ModelUnderTest("litellm", args, force_simple=True)
    with pytest.raises(UserError, match=r"simple/litellm may shrink.*--force_simple"):
        resolve_settings(model, {}, {})
    assert resolve_settings(model, {"dialect": "norm1000"}, {}).dialect.value == "norm1000"


def test_claude_images_are_shrunk_as_its_backend_shrinks_them() -> None:
    """Noise does not compress, so its file exceeds the limit; a plain image's does not."""
    from lmms_eval.models.simple.claude import Claude

    backend = Claude.__new__(Claude)
    noise = Image.frombytes("RGB", (1600, 1100), np.random.default_rng(0).bytes(1600 * 1100 * 3))
    plain = Image.new("RGB", (3000, 2500), "red")
    images = [noise, plain]
    sent = sent_sizes("claude", True, [image.size for image in images], lambda: images)
    assert sent == [backend.shrink_image_to_file_size(image).size for image in (noise, plain)]
    assert sent[0][0] < 1600 and sent[1] == (3000, 2500)


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


def test_an_option_is_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIVG_DIALECT", "qwen_x")
    monkeypatch.delenv("UNIVG_PROMPT", raising=False)
    model = ModelUnderTest("univg_baseline")
    with given_options({"dialect": "norm2", "prompt": None, "protocol": "migician"}):
        with pytest.raises(UserError, match=r"dialect 'norm2'.*the value comes from: --dialect\)"):
            resolve_settings(model, {})
        with environment({"UNIVG_DIALECT": "norm1"}):
            found = resolve_settings(model, {})
        assert found.dialect.source == "environment variable UNIVG_DIALECT"
        assert found.protocol.to_list() == ["migician", "--protocol"]
        assert "UNIVG_PROMPT" not in os.environ
    with pytest.raises(UserError, match=r"'qwen_x'.*environment variable UNIVG_DIALECT"):
        resolve_settings(model, {})


class OnGpu:
    """The arguments of a backend such as simple/qwen2_vl."""

    def __init__(self, pretrained: str = "", device: str = "cuda", device_map: str = "cuda"):
        raise AssertionError("only its arguments are looked at")


@pytest.mark.parametrize(
    ("args", "device", "refused"),
    [
        ({}, None, "device=cuda, device_map=cuda"),
        ({"device": "cpu"}, None, "device_map=cuda"),
        ({"device": "cuda:1", "device_map": "auto"}, None, "device=cuda:1"),
        ({"device_map": "cpu"}, "cpu", None),  # lmms-eval's --device
        ({"device": "cpu", "device_map": "cpu"}, None, None),
    ],
)
def test_a_gpu_that_is_not_there_is_named_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, args: dict[str, str], device: str | None, refused: str | None
) -> None:
    monkeypatch.setattr(ModelUnderTest, "backend_class", lambda self: OnGpu)
    model = ModelUnderTest("qwen2_vl", args)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    require_device(model, device)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    if refused is None:
        require_device(model, device)
        return
    with pytest.raises(UserError) as caught:
        require_device(model, device)
    for words in (f"({refused})", "add device=cpu,device_map=cpu to --model_args"):
        assert words in str(caught.value)


def test_a_backend_without_a_device_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    require_device(ModelUnderTest("univg_baseline"))
    require_device(ModelUnderTest("openai"))


def test_an_unknown_backend_and_unreadable_model_args_are_user_errors() -> None:
    with pytest.raises(UserError, match="no backend 'qwen2vl'; did you mean 'qwen2_vl'"):
        resolve("qwen2vl", UNIVG_DIALECT="norm1")
    with pytest.raises(UserError, match="expected name=value pairs"):
        ModelUnderTest.from_arguments("qwen2_vl", "pretrained")


def test_baselines_need_no_setting_and_replay_takes_that_of_its_file(tmp_path: Path) -> None:
    assert resolve("univg_baseline", {"kind": "oracle"}).dialect.value == "norm1"
    assert resolve("univg_baseline", UNIVG_DIALECT="kosmos2").dialect.value == "kosmos2"
    file = tmp_path / "r.jsonl"
    file.write_text('{"id": "a", "response": "", "dialect": "qwen2_vl"}\n')
    assert resolve("univg_replay", {"responses": str(file)}).dialect.value == "qwen2_vl"
    file.write_text('{"id": "a", "response": ""}\n')
    with pytest.raises(UserError, match="no field 'dialect'; add it, or give `--dialect`"):
        resolve("univg_replay", {"responses": str(file)})
    file.write_text('{"id": "a", "response": "", "dialect": "norm1"}\n' * 2)
    with pytest.raises(UserError, match="duplicate id 'a'"):
        resolve("univg_replay", {"responses": str(file)})
