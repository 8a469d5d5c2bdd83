"""A run that died after its last step takes no further one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("trl")

import torch
from safetensors.torch import load_file
from sft_data import make_config, make_model, make_rows

from univg_train.sft.run import train_sft
from univg_train.sft.settings import load_settings


def test_no_step_after_the_last(tmp_path: Path) -> None:
    """Three rows, two a step: an epoch is two steps, and three end within the second.

    transformers looks whether all steps are taken only after one more.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = make_config(
            tmp_path / "sft.yaml", make_model(tmp_path / "model"), make_rows(tmp_path), max_steps=3
        )
        settings = load_settings(config)
        assert train_sft(settings)["steps"] == 3
        first = load_file(tmp_path / "sft" / "model" / "model.safetensors")
        shutil.rmtree(tmp_path / "sft" / "model")
        (tmp_path / "sft" / "summary.json").unlink()
        assert (tmp_path / "sft" / "checkpoint-3").is_dir()
        summary = train_sft(settings)
    finally:
        torch.set_num_threads(threads)
    assert summary["steps"] == 3 and summary["loss"] is not None
    again = load_file(tmp_path / "sft" / "model" / "model.safetensors")
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], first[name]) for name in first)
