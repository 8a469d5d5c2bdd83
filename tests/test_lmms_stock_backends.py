"""What lmms-eval's own qwen2_vl and qwen2_5_vl backends do with the requests of these tasks.

The models are random and tiny; their `generate` is replaced by one that answers with known text.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lmms_data
import pytest

pytest.importorskip("lmms_eval")
torch = pytest.importorskip("torch")

CHAIN = "<think>First image: two dogs.\n\nSecond image:\n\n one dog.</think>\n\n"
BOXES = {"qwen2_vl": "(100,200),(500,900)", "qwen2_5_vl": '{"bbox_2d": [7, 0, 28, 14]}'}
# On 0-1000; in pixels of the second image's input, 56 x 28 for 128 x 96 in at most 3136 pixels.
EXPECTED = {"qwen2_vl": (0.1, 0.2, 0.5, 0.9), "qwen2_5_vl": (0.125, 0.0, 0.5, 0.5)}
TASKS = ("univg_mig_bench_diff", "univg_mig_bench_region", "univg_mig_bench_multi_view")


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def family(request: pytest.FixtureRequest) -> str:
    """simple/qwen2_vl or chat/qwen2_5_vl."""
    return request.param


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the family with random weights, small enough to load in an instant."""
    return lmms_data.make_checkpoint(tmp_path_factory.mktemp(family), family)


@pytest.fixture
def evaluation(family: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Evaluate three tasks at once in batches of four; every response is CHAIN and a box."""
    from univg_eval.lmms.task import GroundingTask

    lmms_data.prepare_fakes(tmp_path)
    lmms_data.set_environment(monkeypatch, tmp_path)
    opened: Counter[str] = Counter()
    monkeypatch.setattr(
        GroundingTask, "on_images", staticmethod(lambda sample: opened.update([sample.id]))
    )
    model_args = f"pretrained={checkpoint},device=cpu,device_map=cpu,min_pixels=784,max_pixels=3136"
    model = lmms_data.load_model(family, checkpoint, 4, (784, 3136))
    calls: list[dict[str, Any]] = []

    def generate(input_ids, **kwargs: Any):
        calls.append(kwargs)
        answer = torch.tensor(model.tokenizer.encode(CHAIN + BOXES[family] + "<|im_end|>"))
        return torch.cat([input_ids, answer.expand(len(input_ids), -1)], dim=1)

    monkeypatch.setattr(model.model, "generate", generate)
    # What the command line passes by default.
    tags = '[["<think>", "</think>"], ["<analysis>", "</analysis>"]]'
    cli_args = lmms_data.arguments(family, model_args, reasoning_tags=tags)
    results = lmms_data.evaluate(model, cli_args, list(TASKS))
    return results, opened, calls


def test_blank_lines_and_thinking_survive_and_every_sample_sees_its_own_images(
    family: str, evaluation
) -> None:
    results, opened, calls = evaluation
    rows = [row for task in TASKS for row in results["samples"][task]]
    assert len(rows) == 9
    assert {row["filtered_resps"][0] for row in rows} == {CHAIN + BOXES[family]}
    assert {row["status"] for row in rows} == {"ok"}
    assert {tuple(row["box"]) for row in rows} == {EXPECTED[family]}
    # Nine requests in batches of four hold several tasks in one batch; each sample's own images
    # were opened, once.
    assert opened == Counter(row["id"] for row in rows)
    assert len(calls) == 3
    for kwargs in calls:
        assert kwargs["do_sample"] is False
        assert kwargs["max_new_tokens"] == 512
        # (1, height, width) in patches of 14: what the model really sees of the two images.
        assert {tuple(grid) for grid in kwargs["image_grid_thw"].tolist()} == {
            (1, 4, 4),
            (1, 2, 4),
        }
    if family == "qwen2_5_vl":
        assert {tuple(map(tuple, row["input_sizes"])) for row in rows} == {((56, 56), (56, 28))}


def test_settings_come_from_the_checkpoint_and_the_model_args(family: str, evaluation) -> None:
    results, _, _ = evaluation
    settings = results["samples"][TASKS[0]][0]["univg_settings"]
    assert settings["dialect"][0] == family
    assert "config.json" in settings["dialect"][1]
    assert settings["min_pixels"] == [784, "min_pixels of model_args"]
    assert settings["max_pixels"] == [3136, "max_pixels of model_args"]


@pytest.mark.parametrize("are_special", [True, False])
def test_coordinate_tokens_reach_the_reader_only_as_ordinary_ones(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    are_special: bool,
) -> None:
    """A checkpoint like Rex-Omni's: model_type qwen2_5_vl, and tokens <0> to <999>."""
    from transformers import AddedToken, AutoTokenizer

    folder = lmms_data.make_checkpoint(tmp_path / "model", "qwen2_5_vl")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    names = [*(f"<{n}>" for n in range(1000)), "<|box_start|>", "<|box_end|>"]
    tokenizer.add_tokens([AddedToken(name, special=are_special) for name in names])
    tokenizer.save_pretrained(folder)
    lmms_data.prepare_fakes(tmp_path)
    lmms_data.set_environment(monkeypatch, tmp_path)
    model = lmms_data.load_model("qwen2_5_vl", folder, 4, (784, 3136))

    def generate(input_ids, **_: Any):
        text = "cup<|box_start|><100><200><500><899><|box_end|><|im_end|>"
        answer = torch.tensor(model.tokenizer.encode(text))
        return torch.cat([input_ids, answer.expand(len(input_ids), -1)], dim=1)

    monkeypatch.setattr(model.model, "generate", generate)
    cli_args = lmms_data.arguments("qwen2_5_vl", f"pretrained={folder}")
    with lmms_data.stops(capsys, "dialect 'rex_omni' writes its boxes in special tokens"):
        lmms_data.evaluate(model, cli_args, [TASKS[0]])
    monkeypatch.setenv("UNIVG_SPECIAL_TOKENS", "kept")
    rows = lmms_data.evaluate(model, cli_args, [TASKS[0]])["samples"][TASKS[0]]
    expected = (100 / 999, 200 / 999, 500 / 999, 899 / 999)
    for row in rows:
        if are_special:
            assert (row["filtered_resps"], row["status"]) == (["cup"], "no_box")
        else:
            assert row["box"] == pytest.approx(expected)
