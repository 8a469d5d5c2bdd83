"""Checkpoints of real architectures with random weights, of any shape: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from univg_eval.models import TINY, model_folder

MIN_PIXELS, MAX_PIXELS = 3136, 401408
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
PADS = ("<|image_pad|>", "<|video_pad|>")
PROCESSORS = {
    "qwen2_vl": transformers.Qwen2VLProcessor,
    "qwen2_5_vl": transformers.Qwen2_5_VLProcessor,
    "qwen3_vl": transformers.Qwen3VLProcessor,
}


def _tokenizer(vocabulary: int) -> Any:
    """One token a byte, and words up to the model's vocabulary, so that every id has a text."""
    names = sorted(pre_tokenizers.ByteLevel.alphabet())
    names += [f" w{i}" for i in range(vocabulary - len(names) - len(SPECIAL) - len(PADS))]
    core = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL, *PADS]})
    return tokenizer


def mrope(head_size: int) -> dict[str, Any]:
    """Rotary positions in three parts, in Qwen2-VL's proportions."""
    rest = 3 * (head_size // 16)
    sections = [head_size // 2 - 2 * rest, rest, rest]
    return {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}


def write_checkpoint(
    folder: Path,
    family: str,
    *,
    vocabulary: int,
    text: Mapping[str, Any],
    vision: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    min_new_tokens: int | None = None,
) -> str:
    """Write a checkpoint of a Qwen-VL family; the folder.

    Args:
        folder: to write to.
        family: of `PROCESSORS`.
        vocabulary: words, with the special ones.
        text, vision: of the two configurations; heads are rotary in three parts.
        dtype: of the weights.
        device: that they are drawn on.
        min_new_tokens: of every response.
    """
    patch = 16 if family == "qwen3_vl" else 14
    tokenizer = _tokenizer(vocabulary)
    ids = tokenizer.convert_tokens_to_ids
    head_size = text["hidden_size"] // text["num_attention_heads"]
    rope = mrope(head_size) | ({"mrope_interleaved": True} if family == "qwen3_vl" else {})
    config = AutoConfig.for_model(
        family,
        text_config={
            "rope_parameters": rope,
            "head_dim": head_size,
            **text,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 32768,
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
        },
        vision_config={
            **vision,
            "patch_size": patch,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.generation_config.update(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        min_new_tokens=min_new_tokens,
    )
    model.save_pretrained(folder)
    limits = {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}
    PROCESSORS[family](
        image_processor=transformers.Qwen2VLImageProcessor(
            patch_size=patch, merge_size=2, temporal_patch_size=2, size=limits
        ),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(patch_size=patch),
        chat_template=AutoProcessor.from_pretrained(model_folder(TINY)).chat_template,
    ).save_pretrained(folder)
    return str(folder)
