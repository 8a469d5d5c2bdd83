"""Rows and settings as files for LLaMA-Factory, with which UniVG-R1's stage 1 was trained.

The forms are those of its ``data/README.md`` (sharegpt: turns of ``from`` and ``value``, one
``<image>`` for each entry of ``images``), of ``examples/train_full/qwen2_5vl_full_sft.yaml`` and of
the arguments in ``src/llamafactory/hparams``. How it reads an image stands in
``src/llamafactory/data/mm_plugin.py``: as it is stored, without its EXIF orientation; shrunk to
``image_max_pixels`` or enlarged to ``image_min_pixels``, to whole pixels; no side below 28; and
then by the model's processor, with that one's own limits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from univg_eval.dialects import Dialect, get_dialect, pixel_limits
from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.images.reading import image_header
from univg_train.data import TrainingData
from univg_train.data.rows import IMAGE_MARK
from univg_train.sft.settings import SftSettings

__all__ = ["export_llamafactory", "sharegpt_row", "translate"]

_TEMPLATES = dict.fromkeys(("univg_r1", "migician", "qwen2_vl", "qwen2_5_vl"), "qwen2_vl")
"""LLaMA-Factory's name of the chat template, by dialect, where the dialect implies it."""

_TRL_DEFAULTS = {"learning_rate": 2e-5, "logging_steps": 10, "max_length": 1024}
"""Defaults of `trl.SFTConfig` that are not LLaMA-Factory's."""

_PEFT_DEFAULTS = {"r": 8, "lora_alpha": 8, "lora_dropout": 0.0}
"""Defaults of `peft.LoraConfig`; LLaMA-Factory's alpha is twice the rank."""

_SAME_NAME = (
    *("num_train_epochs", "max_steps", "per_device_train_batch_size"),
    *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs"),
    *("weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2", "adam_epsilon", "optim"),
    *("optim_args", "label_smoothing_factor", "bf16", "fp16", "tf32", "seed", "data_seed"),
    *("output_dir", "run_name", "logging_steps", "logging_first_step", "save_steps"),
    *("save_strategy", "save_total_limit", "report_to", "disable_tqdm", "ddp_timeout"),
    *("dataloader_num_workers", "dataloader_drop_last", "trust_remote_code"),
)
"""Arguments of the trainer that both take from transformers."""

_ATTENTION = {
    "eager": "disabled",
    "sdpa": "sdpa",
    "flash_attention_2": "fa2",
    "flash_attention_3": "fa3",
}

_NO_LIMIT = 1_000_000
"""Tokens: LLaMA-Factory's ``cutoff_len`` has no value for none."""

_NO_AREA_LIMIT = 1_000_000_000
"""Pixels: no image is larger, and the processor alone resizes."""

_SMALLEST_SIDE = 28
"""Pixels, for the Qwen-VL families."""

_LORA = {
    "r": "lora_rank",
    **{name: name for name in ("lora_alpha", "lora_dropout", "use_rslora", "use_dora")},
}
_ROLES = {"user": "human", "assistant": "gpt"}


def export_llamafactory(
    data: TrainingData,
    settings: SftSettings,
    folder: str | os.PathLike[str],
    *,
    name: str,
    template: str | None = None,
    deepspeed: str | None = "examples/deepspeed/ds_z3_config.json",
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write ``NAME.json``, ``dataset_info.json`` and ``NAME.yaml`` into a folder.

    Args:
        data: opened with a rendering for ``sft``; images are named by their absolute paths.
        settings: see `translate`.
        folder: must not hold these files yet.
        name: of the data set; a letter, then letters, digits, ``_`` and ``-``.
        template: LLaMA-Factory's name of the chat template; None: that of the dialect.
        deepspeed: file of DeepSpeed's settings, as seen from where LLaMA-Factory is started;
            None: it is not used.
        progress: called with (rows written, rows in all).

    Returns:
        The settings that have no counterpart and are left out.

    Raises:
        UserError: a bad name, a file that is there already; see also `translate`, `sharegpt_row`.
    """
    import yaml

    # YAML would read 1e5 as a number.
    bare = name.replace("_", "").replace("-", "")
    if not (name.isascii() and bare.isalnum() and name[0].isalpha()):
        raise UserError(f"the name is {name!r}; expected a letter, then letters, digits, _ and -")
    if name == "dataset_info":
        raise UserError("the name 'dataset_info' is that of LLaMA-Factory's own file")
    target = Path(folder).expanduser().resolve()
    rows_file, info_file, settings_file = (
        target / file for file in (f"{name}.json", "dataset_info.json", f"{name}.yaml")
    )
    if there := [path for path in (rows_file, info_file, settings_file) if path.exists()]:
        raise UserError(f"{there[0]} is there already; name another folder")
    values, left_out = translate(settings, template)
    dialect = get_dialect(
        settings.dialect, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels
    )
    values |= {"dataset": name, "dataset_dir": str(target)}
    if deepspeed is not None:
        values["deepspeed"] = deepspeed
    write_text_atomically(rows_file, _json_list(data, dialect, progress))
    info = {
        name: {
            "file_name": rows_file.name,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "images": "images"},
        }
    }
    write_text_atomically(info_file, [json.dumps(info, indent=2), "\n"])
    # Without it, one GPU is trained on in one process, which DeepSpeed is refused for.
    header = f"# FORCE_TORCHRUN=1 llamafactory-cli train {settings_file}\n"
    write_text_atomically(settings_file, [header, yaml.safe_dump(values, sort_keys=False)])
    return left_out


def translate(
    settings: SftSettings, template: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """LLaMA-Factory's settings for ours, and the names of those that have no counterpart.

    Raises:
        UserError: no template is known for the dialect; pixel limits that the dialect's boxes
            would not be right for; or modules of an adapter by a pattern.
    """
    template = template or _TEMPLATES.get(settings.dialect)
    if template is None:
        raise UserError(
            f"the dialect {settings.dialect!r} does not say which chat template of LLaMA-Factory "
            f"{settings.model} has; name it (--template)"
        )
    values: dict[str, Any] = {
        "model_name_or_path": settings.checkpoint,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full" if settings.lora is None else "lora",
        "freeze_vision_tower": settings.freeze_vision,
        "freeze_multi_modal_projector": settings.freeze_vision,
        "template": template,
    }
    values |= _limits(settings)
    if settings.data.history:
        values["mask_history"] = True  # the loss is on the last answer
    left_out = [] if settings.data.on_long == "stop" else [f"data.on_long={settings.data.on_long}"]
    if settings.evaluation is not None:
        left_out.append("evaluation")
    if settings.lora is not None:
        adapter, missing = _adapter(settings.lora)
        values |= adapter
        left_out += missing
    given = {**_TRL_DEFAULTS, **settings.trainer}
    if given.get("bf16") is None:  # TRL's own default
        given["bf16"] = not given.get("fp16")
    for name, value in given.items():
        if name in _SAME_NAME:
            values[name] = value
        elif name == "max_length":
            values["cutoff_len"] = _NO_LIMIT if value is None else value
        elif name == "warmup_steps":
            values["warmup_ratio" if 0 < value < 1 else "warmup_steps"] = value
        elif name == "gradient_checkpointing":
            values["disable_gradient_checkpointing"] = not value
        elif name != "model_init_kwargs":
            left_out.append(f"trainer.{name}")
    for name, value in (given.get("model_init_kwargs") or {}).items():
        if name == "revision":
            values["model_revision"] = value
        elif name == "attn_implementation" and value in _ATTENTION:
            values["flash_attn"] = _ATTENTION[value]
        else:
            left_out.append(f"trainer.model_init_kwargs.{name}")
    return values, left_out


def _limits(settings: SftSettings) -> dict[str, int]:
    """LLaMA-Factory's limits of an image's area.

    Boxes in pixels of what the model sees are right only for one resize, the processor's. Limits
    of LLaMA-Factory would add one before it, to other sizes, so that they are put out of reach.
    """
    names = ("min_pixels", "max_pixels")
    given = {name: value for name in names if (value := getattr(settings, name)) is not None}
    dialect = get_dialect(settings.dialect)
    if not dialect.needs_input_size:
        return {f"image_{name}": value for name, value in given.items()}
    if dialect.pixel_limits is None:
        raise UserError(
            f"the dialect {settings.dialect!r} writes pixels of the image after a service's resize,"
            " which no processor here does; take the model's own dialect"
        )
    family = dict(zip(names, dialect.pixel_limits, strict=True))
    saved = pixel_limits(settings.checkpoint) if Path(settings.checkpoint).is_dir() else None
    for name, value in (family | given).items():
        own = getattr(saved, name, None) or family[name]
        if value != own:
            raise UserError(
                f"{name}={value}, and the processor of {settings.model} has {own}: the dialect "
                f"{settings.dialect!r} writes pixels of the resized image, which LLaMA-Factory "
                "resizes by limits of its own first. Set the limits of the model's "
                "preprocessor_config.json, or train in a dialect that does not depend on them"
            )
    return {"image_min_pixels": 1, "image_max_pixels": _NO_AREA_LIMIT}


def _adapter(lora: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {}
    left_out = []
    for name, value in (_PEFT_DEFAULTS | dict(lora)).items():
        if name in _LORA:
            values[_LORA[name]] = value
        elif name == "modules_to_save" and value is not None:
            values["additional_target"] = ",".join(value)
        elif name != "target_modules":
            left_out.append(f"lora.{name}")
    modules = lora.get("target_modules", "all-linear")
    if isinstance(modules, str) and modules != "all-linear":
        raise UserError(
            f"lora.target_modules is the pattern {modules!r}, which LLaMA-Factory does not know; "
            "expected a list of names, or all-linear"
        )
    values["lora_target"] = "all" if modules == "all-linear" else ",".join(modules)
    return values, left_out


def sharegpt_row(
    columns: Mapping[str, Any], images: list[Path], dialect: Dialect | None = None
) -> dict[str, Any]:
    """One row: `columns` of `univg_train.data.render` for ``sft``, and the files of its images.

    `dialect`, with the limits that the row was written for, is needed where ``input_sizes`` is.

    Raises:
        UserError: as many marks as there are not images; an image that is no file, is stored
            turned, or would be resized to another size than the row's boxes are written for.
    """
    conversations = []
    for message in [*columns["prompt"], *columns["completion"]]:
        parts = (IMAGE_MARK if p["type"] == "image" else p["text"] for p in message["content"])
        conversations.append({"from": _ROLES[message["role"]], "value": "".join(parts)})
    where = f"row {columns['id']!r}:"
    marks = sum(turn["value"].count(IMAGE_MARK) for turn in conversations)
    if marks != len(images):
        raise UserError(
            f"{where} {marks} marks {IMAGE_MARK} for {len(images)} images: LLaMA-Factory would "
            "read a mark in its text as an image"
        )
    for image in images:
        if not image.is_file():
            raise UserError(f"{where} {image} is no file that LLaMA-Factory can open")
        if image_header(image).orientation != 1:
            raise UserError(
                f"{where} {image} is stored turned, and LLaMA-Factory does not look at EXIF data; "
                "save it upright"
            )
    if columns.get("input_sizes") is not None:
        assert dialect is not None
        for (width, height), expected in zip(
            columns["image_sizes"], columns["input_sizes"], strict=True
        ):
            enlarged = max(width, _SMALLEST_SIDE), max(height, _SMALLEST_SIDE)
            seen = tuple(dialect.input_size(enlarged))
            if seen != tuple(expected):
                raise UserError(
                    f"{where} LLaMA-Factory enlarges its image of {(width, height)} pixels first: "
                    f"the model would see {seen} pixels, and its boxes are written for "
                    f"{tuple(expected)}; leave the row out, or enlarge the image"
                )
    return {"conversations": conversations, "images": [str(image) for image in images]}


def _json_list(
    data: TrainingData, dialect: Dialect, progress: Callable[[int, int], None] | None
) -> Iterator[str]:
    for position in range(len(data)):
        if progress is not None:
            progress(position, len(data))
        row = sharegpt_row(data.columns(position), data.image_paths(position), dialect)
        yield ("[\n" if position == 0 else ",\n") + json.dumps(row, ensure_ascii=False)
    yield "\n]\n"
