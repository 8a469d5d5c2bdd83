"""Estimates of memory and time: against counted tensors, and against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sft_data import make_config, make_rows
from small_checkpoints import make_checkpoint
from tensor_peak import TensorPeak

pytest.importorskip("trl")

import trl.trainer.utils as trl_utils
from transformers import AutoModelForImageTextToText
from trl.trainer.utils import add_fused_lm_head

from univg_eval.models.pretrained import load_config
from univg_train.runs.estimate import Passes, model_sizes
from univg_train.runs.pretrained import freeze_vision, lora_config, vision_tower
from univg_train.sft.settings import load_settings

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = {"qwen2_vl": (192, 3), "qwen2_5_vl": (96, 6), "qwen3_vl": (160, 4)}
"""Inner width and number of layers of each family; the other sizes are those of the checkpoint."""
SEQUENCES, TEXT, GRID = 4, 60, (12, 12)


class Bench:
    """A small model of a family, inputs for it, and what the estimate says of it."""

    def __init__(self, family: str, folder: Path, *changes: str) -> None:
        model = make_checkpoint(family, folder / "model")
        path = make_config(folder / "sft.yaml", model, make_rows(folder))
        self.settings = load_settings(path, changes)
        config = load_config(str(model))
        text = config.text_config
        text.intermediate_size, text.num_hidden_layers = SHAPES[family]
        if hasattr(text, "layer_types"):
            text.layer_types = ["full_attention"] * text.num_hidden_layers
        if family == "qwen3_vl":
            config.vision_config.num_position_embeddings = 256
        self.sizes = model_sizes(self.settings, config)
        self.passes = Passes.of(self.settings, config, self.sizes, "none")
        self.model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
        patches = GRID[0] * GRID[1]
        start, pad, end = config.vision_start_token_id, config.image_token_id, 3
        ids = [start, *[pad] * (patches // 4), end, *range(5, 5 + TEXT)]
        input_ids = torch.tensor([ids] * SEQUENCES)
        self.inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": torch.zeros(SEQUENCES * patches, self.sizes.patch),
            "image_grid_thw": torch.tensor([[1, *GRID]] * SEQUENCES),
            "mm_token_type_ids": (input_ids == pad).int(),
        }
        self.length, self.patches = len(ids), SEQUENCES * patches

    @property
    def there(self) -> list[torch.Tensor]:
        weights = list(self.model.parameters())
        gradients = [w.grad for w in weights if w.grad is not None]
        return [*weights, *self.model.buffers(), *gradients, *self.inputs.values()]


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("freeze_vision=false",),
        ("trainer.gradient_checkpointing=true",),
        ("trainer.gradient_checkpointing=true", "freeze_vision=false"),
        ("trainer.gradient_checkpointing=true", "lora={r: 4, lora_dropout: 0.05}"),
    ],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_training_takes_as_much_as_was_counted(
    family: str, changes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss's tile is as wide as the vocabulary, or it would be larger than all else here."""
    bench = Bench(family, tmp_path, *changes)
    monkeypatch.setattr(trl_utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", bench.sizes.vocabulary)
    model, settings = bench.model, bench.settings
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    if settings.freeze_vision:
        freeze_vision(model)
    if settings.lora is not None:
        from peft import get_peft_model

        bench.model = model = get_peft_model(
            model, lora_config(settings.lora, vision_tower(model)[1])
        )
    if bench.passes.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    counted = [(p.numel(), p.requires_grad) for p in model.parameters()]
    assert bench.sizes.parameters == sum(n for n, _ in counted)
    assert bench.sizes.trained == sum(n for n, trained in counted if trained)
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    model.train()
    peak = TensorPeak(bench.there)
    with peak:
        output = model(**bench.inputs, labels=bench.inputs["input_ids"], fused_lm_head=True)
        output.log_probs.sum().backward()
    scored = SEQUENCES * bench.length
    found = bench.passes.training(SEQUENCES, bench.length, bench.patches, scored)
    assert 0.85 < found / peak.peak < 1.35, (found, peak.peak)


@pytest.mark.parametrize("family", SHAPES)
def test_generation_takes_as_much_as_was_counted(family: str, tmp_path: Path) -> None:
    bench = Bench(family, tmp_path)
    pixels = bench.inputs["pixel_values"].nbytes
    peak = TensorPeak(bench.there)
    with torch.no_grad(), peak:
        bench.model.generate(**bench.inputs, max_new_tokens=1, min_new_tokens=1)
    found = bench.passes.without_gradients(SEQUENCES, bench.length, bench.patches, pixels)
    found += SEQUENCES * bench.length * bench.passes.cache_of_token()
    assert 0.8 < found / peak.peak < 1.4, (found, peak.peak)


@pytest.mark.parametrize("family", SHAPES)
def test_a_frozen_tower_keeps_nothing_under_checkpointing(family: str, tmp_path: Path) -> None:
    bench = Bench(family, tmp_path)
    seen: list[bool] = []
    tower, _ = vision_tower(bench.model)
    tower.register_forward_hook(lambda *args: seen.append(args[2].pooler_output.requires_grad))
    bench.model.train()
    bench.model.gradient_checkpointing_enable()
    bench.model(**bench.inputs)
    freeze_vision(bench.model)
    bench.model.gradient_checkpointing_enable()  # as TRL does after each generation
    bench.model(**bench.inputs)
    assert seen == [True, False]
