"""The example of docs/grpo.md runs as it stands, with a tiny model and a single short step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from lmms_data import make_checkpoint

from univg_train.difficulty import DIFFICULTY_FORMS
from univg_train.grpo.trainer import PAPER_SETTINGS
from univg_train.rewards import REWARD_RULES

PAGE = (Path(__file__).parent.parent / "docs" / "grpo.md").read_text(encoding="utf-8")


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    model = make_checkpoint(tmp_path / "model", "qwen2_vl")
    changes = {
        '"Qwen/Qwen2-VL-7B-Instruct"': repr(str(model)),
        "**PAPER_SETTINGS": '**{**PAPER_SETTINGS, "max_completion_length": 8}',
        "max_steps=100": 'max_steps=1, use_cpu=True, bf16=False, report_to=[], save_strategy="no"',
    }
    for old, new in changes.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        exec(compile(code, "docs/grpo.md", "exec"), {"__name__": "example"})
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out.splitlines()[-1] == "0.0"  # random weights name no box


def test_the_page_names_every_form_rule_and_setting() -> None:
    for name in (*DIFFICULTY_FORMS, *REWARD_RULES):
        assert f"`{name}`" in PAGE
    for name in ("loss_type", "scale_rewards", "beta", "use_bias_correction_kl", "epsilon"):
        value = PAPER_SETTINGS[name]
        assert f'`{name}="{value}"`' in PAGE or f"`{name}={value}`" in PAGE
