"""The model that the stages begin with: the shipped one, or one from a run of `train_tiny`.

Its vocabulary knows the direct request as one token, and not the words of the reasoning style: the
request would be 70 tokens and the four tags 28 of every answer. They are added here as a token
each, which begins as the mean of what it was spelt with. Answers to direct requests do not change.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import univg_eval
from univg_eval.prompts import THINK_SUFFIX

__all__ = ["REASONING_TOKENS", "shipped_model", "write_start"]

REASONING_TOKENS = ("<think>", "</think>", "<answer>", "</answer>", THINK_SUFFIX)


def shipped_model() -> Path:
    """The folder of the tiny model that comes with the package."""
    return Path(univg_eval.__file__).resolve().parent / "models" / "tiny"


def write_start(source: Path, folder: Path) -> None:
    """Write the model of `source` with `REASONING_TOKENS`; nothing if the folder is there.

    Args:
        source: a model folder of the tiny model.
        folder: appears when it is whole.
    """
    if folder.is_dir():
        return
    import torch
    from tokenizers import AddedToken
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(source)  # type: ignore[no-untyped-call]
    model: Any = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    tokenizer = processor.tokenizer
    spelt = [tokenizer.encode(text, add_special_tokens=False) for text in REASONING_TOKENS]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in REASONING_TOKENS])
    before = model.get_input_embeddings().weight.detach()
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        weight = model.get_input_embeddings().weight
        for text, ids in zip(REASONING_TOKENS, spelt, strict=True):
            weight[tokenizer.convert_tokens_to_ids(text)] = before[ids].mean(dim=0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
        new = Path(name) / folder.name
        model.save_pretrained(new)
        processor.save_pretrained(new)
        shutil.move(new, folder)
