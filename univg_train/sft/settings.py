"""Settings of supervised fine-tuning."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

from univg_train.runs.settings import DataSettings, RunSettings
from univg_train.runs.yaml_settings import read_settings

__all__ = ["SftData", "SftSettings", "load_settings"]


class SftData(DataSettings):
    """Rows of supervised fine-tuning.

    Attributes:
        on_long: ``stop`` if a row has more than ``max_length`` tokens, or ``skip`` such rows. None
            is ever cut: the box stands at the end.
    """

    on_long: Literal["stop", "skip"] = "stop"


class SftSettings(RunSettings):
    """One run of supervised fine-tuning; ``trainer`` holds arguments of `trl.SFTConfig`."""

    data: SftData

    purpose: ClassVar[Literal["sft"]] = "sft"
    never: ClassVar[dict[str, str]] = {
        "completion_only_loss": "it is always true: neither prompt nor image tokens are learned",
        "dataset_kwargs": "rows are prepared when they are read",
        "dataset_text_field": "rows are messages and images",
        "chat_template_path": "the model's own template is the one that evaluation prompts with",
        "eos_token": "the model's own template ends an answer",
        "pad_token": "padding is not learned, and the tokenizer knows its own",
    }
    off: ClassVar[dict[str, str]] = {
        "packing": "rows with images are not packed: TRL has no attention mask and positions for "
        "several rows' images in one sequence",
        "padding_free": "TRL computes no positions of image tokens without padding",
        "pad_to_multiple_of": "TRL pads rows of prompt, images and completion to the longest only",
        "assistant_only_loss": "the loss is on the completion alone already",
        "shuffle_dataset": "TRL does that to texts only; see train_sampling_strategy",
    }
    # transformers' other orders count the tokens of rows, which are made on access.
    argument_types: ClassVar[dict[str, Any]] = {
        "train_sampling_strategy": Literal["random", "sequential"]
    }

    @classmethod
    def trainer_class(cls) -> type[Any]:
        """`trl.SFTConfig`."""
        from trl.trainer.sft_config import SFTConfig

        return SFTConfig


def load_settings(
    path: str | os.PathLike[str] | None, overrides: Iterable[str] = (), *, with_trl: bool = True
) -> SftSettings:
    """Settings of a YAML file after changes, see `univg_train.runs.yaml_settings.read_settings`.

    Args:
        with_trl: hold the keys of ``trainer`` against TRL's, which has to be installed.
    """
    return read_settings(SftSettings, path, overrides, without_trl=not with_trl)
