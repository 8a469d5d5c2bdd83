"""`univg eval --engine vllm`: what lmms-eval is asked for, and what is refused. vLLM runs nowhere
here; tests/test_vllm.py runs it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmms_data
import pytest
from small_checkpoints import make_checkpoint

from univg_eval.errors import UserError
from univg_eval.lmms.engine import engine_arguments, engine_of, require_engine
from univg_eval.models import model_folder

pytest.importorskip("lmms_eval")
from lmms_eval.utils import simple_parse_args_string

TINY = model_folder("univg:tiny")


def asked(model_args: Any = "pretrained=univg:tiny", **changes: Any) -> dict[str, Any]:
    """What differs, with model_args as lmms-eval reads them."""
    given = {"model": "hf", "model_args": model_args, "batch_size": 1, "gen_kwargs": ""}
    found = engine_arguments("vllm", argparse.Namespace(**given | changes))
    return found | {"model_args": simple_parse_args_string(found["model_args"])}


def test_the_defaults_are_those_of_the_reference_backend() -> None:
    assert asked() == {
        "model": "vllm_generate",
        # The backend takes the larger of its max_new_tokens and the task's.
        "model_args": {"model": TINY, "max_new_tokens": 1, "trust_remote_code": False},
        "batch_size": "256",
    }


@pytest.mark.parametrize("form", ["pretrained=univg:tiny", {"pretrained": "univg:tiny"}])
@pytest.mark.parametrize("model", ["hf", "univg"])
def test_the_checkpoint_is_named_as_the_engine_takes_it(form: Any, model: str) -> None:
    found = asked(form, model=model)
    assert found["model_args"]["model"] == TINY and "pretrained" not in found["model_args"]


def test_what_is_given_is_kept() -> None:
    more = "tensor_parallel_size=2,dtype=float32,max_new_tokens=64,trust_remote_code=True"
    found = asked(f"pretrained=univg:tiny,{more}", batch_size="32", gen_kwargs="max_new_tokens=9")
    assert found["model_args"] == {
        "model": TINY,
        "tensor_parallel_size": 2,
        "dtype": "float32",
        "max_new_tokens": 64,
        "trust_remote_code": True,
    }
    assert "batch_size" not in found and "gen_kwargs" not in found


def test_pixel_limits_reach_the_processor_and_the_settings() -> None:
    from univg_eval.lmms.settings import ModelUnderTest, resolve_settings

    own = 'mm_processor_kwargs={"x":1}'
    found = asked(f"pretrained=univg:tiny,max_pixels=12544,{own},min_pixels=3136")
    assert json.loads(found["model_args"]["mm_processor_kwargs"]) == {
        "min_pixels": 3136,
        "max_pixels": 12544,
        "x": 1,
    }
    settings = resolve_settings(ModelUnderTest(found["model"], found["model_args"]), {}, {})
    assert (settings.min_pixels.value, settings.max_pixels.value) == (3136, 12544)
    assert settings.dialect.value == "qwen2_vl"


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ("", "repetition_penalty=1.05"),
        ("max_new_tokens=9", "max_new_tokens=9,repetition_penalty=1.05"),
        ("repetition_penalty=1.0", None),
    ],
)
def test_the_checkpoint_s_repetition_penalty_holds(
    given: str, added: str | None, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 1.05}))
    assert asked(f"pretrained={folder}", gen_kwargs=given).get("gen_kwargs") == added


@pytest.mark.parametrize(
    ("model_args", "changes", "said"),
    [
        ("", {}, "needs a checkpoint"),
        ("pretrained=/nowhere/x", {}, "there is no checkpoint /nowhere/x"),
        ("pretrained=univg:tiny", {"model": "qwen2_vl"}, "--model qwen2_vl exclude each other"),
        ("pretrained=univg:tiny,adapter=a", {}, "merge it into the checkpoint"),
        ("pretrained=univg:tiny,device=cpu", {}, "no device"),
        ("pretrained=univg:tiny,max_pixels=1,mm_processor_kwargs={1}", {}, "a JSON object"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(
    model_args: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        asked(model_args, **changes)


def test_limits_that_a_processor_has_not_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint("internvl", tmp_path / "internvl")
    with pytest.raises(UserError, match="it has no such limit"):
        asked(f"pretrained={folder},max_pixels=12544")


def test_other_engines_are_not_known() -> None:
    with pytest.raises(UserError, match="'vlm': did you mean 'vllm'"):
        engine_arguments("vlm", argparse.Namespace())


def test_an_engine_that_is_missing_is_said_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from univg_eval.cli import main

    monkeypatch.setattr("univg_eval.lmms.engine.find_spec", lambda _: None)
    lmms_data.set_environment(monkeypatch, tmp_path / "data")
    output = ["--output_path", str(tmp_path / "out")]
    asked_for = ["--model_args", "pretrained=univg:tiny", "--tasks", "univg_mini_diff", *output]
    assert main(["eval", "--engine", "vllm", *asked_for]) == 2
    said = capsys.readouterr().err
    assert "the package vllm is not installed here" in said and "python3 -m venv" in said
    assert "Traceback" not in said and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="not installed"):
        require_engine("vllm")


def test_the_record_names_the_engine_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    assert engine_of("vllm_generate") is None
    made = SimpleNamespace(__version__="0.32.0", envs=SimpleNamespace(VLLM_BATCH_INVARIANT=True))
    monkeypatch.setitem(sys.modules, "vllm", made)
    expected = {"name": "vllm", "version": "0.32.0", "batch_invariant": True}
    assert engine_of("vllm_generate") == engine_of("vllm") == expected
    assert engine_of("univg") is None
    monkeypatch.setitem(sys.modules, "sglang", SimpleNamespace(__version__="1.0"))
    assert engine_of("sglang") == {"name": "sglang", "version": "1.0", "batch_invariant": None}


@pytest.mark.parametrize(("in_file", "batch_size"), [({}, "256"), ({"batch_size": "8"}, "8")])
def test_the_plan_is_that_of_the_backend(
    in_file: dict[str, str], batch_size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from univg_eval.benchmarks.synthetic.mini import ensure
    from univg_eval.lmms.command import plan_eval

    monkeypatch.setattr("univg_eval.lmms.engine.find_spec", lambda _: object())
    ensure(tmp_path / "data", n=2)
    lmms_data.set_environment(monkeypatch, tmp_path / "data", UNIVG_MINI_N="2")
    file = tmp_path / "run.yaml"
    given = {"model": "univg", "model_args": "pretrained=univg:tiny", "tasks": "univg_mini_diff"}
    file.write_text(json.dumps(given | in_file))
    words = ["--config", str(file), "--output_path", str(tmp_path / "out")]
    settings = dict.fromkeys(("dialect", "prompt", "protocol"))
    with plan_eval(words, settings=settings, records=None, engine="vllm") as plan:
        for args in (plan.args, plan.planned):
            assert args.model == "vllm_generate" and f"model={TINY}," in args.model_args
        assert plan.planned.batch_size == batch_size
        assert plan.args.batch_size in (batch_size, 1)  # 1: lmms-eval reads the file once more
