"""The settings of a run, each with the place that it comes from.

First found wins:

1. environment: ``UNIVG_DIALECT``, ``UNIVG_PROMPT``, ``UNIVG_PROTOCOL``, ``UNIVG_MIN_PIXELS``,
   ``UNIVG_MAX_PIXELS``;
2. the task's metadata: ``dialect``, ``prompt``, ``protocol``, ``min_pixels``, ``max_pixels``;
3. the model under test. Dialect and prompt: the field ``{"univg": {"dialect": …, "prompt": …}}``
   of its config.json, then its model_type; for a service, its name in the table of
   `univg_eval.dialects.api_models`. Pixel limits: ``min_pixels`` and ``max_pixels`` of
   model_args, then the default of the backend's own argument, then what the checkpoint's image
   processor names. Where these arguments of a backend limit videos alone, they say nothing of
   images; what ``mm_processor_kwargs`` of model_args names is then taken instead;
4. prompt: the dialect's default style; protocol: ``univg``; pixel limits: the dialect's default.

The dialect has no fourth step: a response says nothing about its own scale.

Two more say what the model is shown. They belong to the task, so only its metadata sets them:
``control`` (see `univg_eval.images.controls`) and ``media``: ``images`` or ``video`` (see
`univg_eval.lmms.media`).
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from univg_eval.dialects import (
    Dialect,
    dialect_for_config,
    dialect_for_model,
    find_api_model,
    get_dialect,
    no_contract,
    pixel_limits,
)
from univg_eval.errors import UserError, meant
from univg_eval.files import read_json
from univg_eval.images.controls import CONTROLS, NO_CONTROL
from univg_eval.lmms.backend_resize import require_known_sizes
from univg_eval.lmms.special_tokens import require_special_tokens
from univg_eval.prompts import PROMPT_STYLES, default_prompt_style, prompt_hash, require_style
from univg_eval.published_rules import reading_protocol

__all__ = [
    "BASELINE_DIALECT",
    "BASELINE_MODEL",
    "MEDIA",
    "REFERENCE_MODEL",
    "REPLAY_MODEL",
    "SETTINGS_KEY",
    "ModelUnderTest",
    "RunSettings",
    "Setting",
    "change_checkpoint",
    "environment",
    "given_options",
    "require_checkpoint",
    "resolve_settings",
    "shown_settings",
    "variant_of",
]

REFERENCE_MODEL = "univg"
BASELINE_MODEL = "univg_baseline"
REPLAY_MODEL = "univg_replay"
BASELINE_DIALECT = "norm1"
"""Baselines write with full precision, so that the oracle scores exactly 1."""
MEDIA = ("images", "video")
SETTINGS_KEY = "univg_settings"
"""Key of a request's metadata that holds the resolved settings (the baselines read them), and of
lmms-eval's log of samples, in the form of `RunSettings.to_dict`."""
_DEFAULT = "default"

_DIALECT_REMEDY = (
    "give `--dialect` to `univg eval` or `univg check`, set the environment variable "
    "UNIVG_DIALECT, or write `metadata: {dialect: …}` into the task's YAML (`univg dialects` lists "
    "the names)"
)
# Chat backends whose min_pixels and max_pixels limit videos and leave images alone
# (lmms-eval 0.7.3: the two are put into `video_kwargs` only).
_VIDEO_LIMITS = frozenset({"async_openai", "sglang", "vllm", "vllm_generate"})
# Chat backends that pass over the two and resize images by qwen_vl_utils' own limits: 4 to 16,384
# times 32 x 32 pixels (lmms-eval 0.7.3: ``do_resize=False`` for the processor).
_FIXED_LIMITS = {
    name: {"min_pixels": 4 * 32 * 32, "max_pixels": 16_384 * 32 * 32}
    for name in ("qwen3_vl", "qwen3_5")
}
# Backends that send requests to a server, which may know a model by its name alone.
_SERVICES = frozenset(
    {
        *("openai", "openai_compatible", "openai_compatible_chat", "gpt4v", "batch_gpt4"),
        *("async_openai", "async_openai_compatible", "async_openai_compatible_chat"),
        *("litellm", "litellm_chat", "litellm_compatible", "claude", "gemini", "qwen_vl_api"),
    }
)
# Names under which backends take the checkpoint.
_CHECKPOINT_ARGUMENTS = ("pretrained", "model", "model_version", "model_name", "model_id")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it comes from, in words."""

    value: Any
    source: str

    def to_list(self) -> list[Any]:
        """``[value, source]``, as written into logs and records."""
        return [self.value, self.source]


@dataclass(frozen=True)
class ModelUnderTest:
    """What lmms-eval was requested to run.

    Attributes:
        backend: lmms-eval's name of the backend, e.g. ``qwen2_vl``.
        args: its model_args, parsed.
        force_simple: whether ``--force_simple`` was given.
    """

    backend: str
    args: Mapping[str, Any] = field(default_factory=dict)
    force_simple: bool = False

    @classmethod
    def from_arguments(
        cls, model: str, model_args: str | Mapping[str, Any] | None, force_simple: bool = False
    ) -> ModelUnderTest:
        """Read ``--model`` and ``--model_args`` as lmms-eval does."""
        from lmms_eval.utils import simple_parse_args_string

        if isinstance(model_args, Mapping):
            return cls(model, dict(model_args), force_simple)
        try:
            return cls(model, simple_parse_args_string(model_args or ""), force_simple)
        except ValueError as error:
            raise UserError(
                f"--model_args {model_args!r} cannot be read; expected name=value pairs separated "
                "by commas, such as pretrained=DIR"
            ) from error

    def backend_class(self) -> type:
        """The backend's class.

        Raises:
            UserError: lmms-eval has no backend of this name, or it cannot be imported.
        """
        from lmms_eval.models import MODEL_REGISTRY_V2

        try:
            found: type = MODEL_REGISTRY_V2.get_model_class(
                self.backend, force_simple=self.force_simple
            )
            return found
        except ValueError as error:
            known = MODEL_REGISTRY_V2.list_model_names()
            raise UserError(
                f"lmms-eval has no backend {self.backend!r}; "
                f"{meant(self.backend, known, 'lmms-eval models')}"
            ) from error
        except (ImportError, AttributeError, TypeError) as error:
            raise UserError(
                f"the backend {self.backend!r} cannot be imported: {error}; install what it needs"
            ) from error

    @property
    def is_simple(self) -> bool:
        """Whether the backend takes text and images apart, or (chat) messages."""
        return bool(getattr(self.backend_class(), "is_simple", True))

    @property
    def named_checkpoint(self) -> str | None:
        """Folder or hub name of the checkpoint that model_args name, or None."""
        return next((str(self.args[k]) for k in _CHECKPOINT_ARGUMENTS if k in self.args), None)

    @property
    def checkpoint(self) -> str | None:
        """Folder or hub name of the checkpoint: from model_args, else the backend's default."""
        if self.named_checkpoint is not None:
            return self.named_checkpoint
        defaults = map(self.backend_default, _CHECKPOINT_ARGUMENTS)
        return next((name for name in defaults if isinstance(name, str)), None)

    @property
    def service_model(self) -> str | None:
        """The name by which a server knows the model; None for a model that runs here."""
        name = self.checkpoint if self.backend in _SERVICES else None
        return None if name is None or Path(name).expanduser().is_dir() else name

    def require_named_model(self) -> None:
        """Check that a service's backend reads the argument that names the model.

        Backends take any argument and pass over those that they do not know: they would ask for
        their default model, and its answers be read in another one's dialect.

        Raises:
            UserError: it does not.
        """
        if self.backend not in _SERVICES:
            return
        signatures = [inspect.signature(c) for c in self.backend_class().__mro__]
        read = {name for signature in signatures for name in signature.parameters}
        given = [name for name in _CHECKPOINT_ARGUMENTS if name in self.args]
        if given and given[0] not in read:
            raise UserError(
                f"model_args name the model as {given[0]}={self.args[given[0]]}, an argument that "
                f"the backend {self.backend!r} passes over: it would ask for its default model. "
                f"Write model_version={self.args[given[0]]}"
            )

    @property
    def is_offline(self) -> bool:
        """Whether it is a backend of this project, which runs no model."""
        return self.backend in (BASELINE_MODEL, REPLAY_MODEL)

    def backend_default(self, argument: str) -> Any:
        """Default value of an argument of the backend's constructor, or None."""
        parameter = inspect.signature(self.backend_class()).parameters.get(argument)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            return None
        return parameter.default


@dataclass(frozen=True, slots=True)
class RunSettings:
    """The resolved settings of one task's run."""

    dialect: Setting
    prompt: Setting
    protocol: Setting
    min_pixels: Setting
    max_pixels: Setting
    control: Setting = Setting(NO_CONTROL, _DEFAULT)
    media: Setting = Setting(MEDIA[0], _DEFAULT)

    @property
    def variant(self) -> str:
        """What sets the figures apart from the benchmark's own: "blank", "video"; "" if nothing."""
        return variant_of(self.control.value, self.media.value)

    def make_dialect(self) -> Dialect:
        """The dialect with the pixel limits of the run."""
        return get_dialect(
            self.dialect.value, min_pixels=self.min_pixels.value, max_pixels=self.max_pixels.value
        )

    def prompt_hash(self) -> str:
        """See `univg_eval.prompts.prompt_hash`."""
        return prompt_hash(self.make_dialect(), self.prompt.value)

    def to_dict(self) -> dict[str, list[Any]]:
        """Every setting as ``[value, source]``."""
        return {name: getattr(self, name).to_list() for name in self.__slots__}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSettings:
        """Read what `to_dict` wrote; settings that an older log lacks had their default."""
        return cls(**{name: Setting(*values[name]) for name in cls.__slots__ if name in values})


# Variable → the value that an option of the command gave it.
_OPTIONS: dict[str, str] = {}


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """The process's environment with these changes, taken back at the end."""
    kept = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def given_options(values: Mapping[str, str | None]) -> Iterator[None]:
    """Hand settings that are options of a command on to the tasks, which lmms-eval constructs.

    Args:
        values: name → value; None where the option is not given.
    """
    given = {_variable(name): value for name, value in values.items() if value is not None}
    with environment(given):
        _OPTIONS.update(given)
        try:
            yield
        finally:
            _OPTIONS.clear()


def _variable(name: str) -> str:
    return f"UNIVG_{name.upper()}"


def change_checkpoint(model_args: Any, change: Callable[[str], str]) -> Any:
    """model_args, in any form that lmms-eval takes, with the checkpoint's name changed."""
    if isinstance(model_args, Mapping):
        named = {n: change(str(model_args[n])) for n in _CHECKPOINT_ARGUMENTS if n in model_args}
        return {**model_args, **named}
    if model_args is None:
        return None
    pairs = (pair.partition("=") for pair in model_args.split(","))
    return ",".join(
        name + equals + (change(value) if name.strip() in _CHECKPOINT_ARGUMENTS else value)
        for name, equals, value in pairs
    )


def variant_of(control: str, media: str) -> str:
    """The name of a control or of a medium other than images; "" where there is neither."""
    return "+".join(name for name in (control, media) if name not in (NO_CONTROL, MEDIA[0]))


def shown_settings(metadata: Mapping[str, Any]) -> tuple[Setting, Setting]:
    """``control`` and ``media`` of a task; the environment does not set them.

    Raises:
        UserError: a value is not known, or the two do not go together.
    """
    find = _finder({}, metadata)
    control = find("control") or Setting(NO_CONTROL, _DEFAULT)
    media = find("media") or Setting(MEDIA[0], _DEFAULT)
    _require_known("control", control, CONTROLS)
    _require_known("media", media, MEDIA)
    if media.value != MEDIA[0] and control.value != NO_CONTROL:
        raise UserError(
            f"control {control.value!r} changes images, and media is {media.value!r}: set the "
            "control on the task that shows the frames as images"
        )
    return control, media


def resolve_settings(
    model: ModelUnderTest | None,
    metadata: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
) -> RunSettings:
    """Find every setting and remember where it was found.

    Args:
        model: the model under test; None if it is not known (an evaluation started from Python
            without command-line arguments).
        metadata: of the task.
        environ: the process's environment if None.

    Raises:
        UserError: a value is wrong, or the dialect cannot be known; the message names the setting.
    """
    if model is not None:
        model.require_named_model()
    environ = os.environ if environ is None else environ
    find = _finder(environ, metadata)
    config, config_source, config_error = _checkpoint_config(model)
    declared = config.get("univg") or {}
    if not isinstance(declared, Mapping):
        raise UserError(
            f"field 'univg' of {config_source} is {declared!r}; expected an object such as "
            '{"dialect": "qwen2_vl", "prompt": "direct"}'
        )

    def find_or_declared(name: str) -> Setting | None:
        found = find(name)
        if found is None and name in declared:
            found = Setting(str(declared[name]), f"field univg.{name} of {config_source}")
        return found

    dialect = find_or_declared("dialect") or _dialect_of_model(
        model, config, config_source, config_error
    )
    with _named(dialect):
        limits = get_dialect(dialect.value).pixel_limits
    prompt = find_or_declared("prompt") or Setting(
        default_prompt_style(dialect.value), "default of the dialect"
    )
    _require_known("prompt style", prompt, PROMPT_STYLES)
    with _named(prompt):
        require_style(get_dialect(dialect.value), prompt.value)
    protocol = find("protocol") or Setting("univg", _DEFAULT)
    with _named(protocol):
        reading_protocol(protocol.value)

    low, high = (_pixel_limit(name, find(name), model) for name in ("min_pixels", "max_pixels"))
    if limits is not None:
        low, high = (
            Setting(own, "default of the dialect") if found.value is None else found
            for own, found in zip(limits, (low, high), strict=True)
        )
    if low.value is not None and high.value is not None and low.value > high.value:
        raise UserError(
            f"min_pixels is {low.value} ({low.source}) and max_pixels is {high.value} "
            f"({high.source}); expected min_pixels <= max_pixels"
        )
    control, media = shown_settings(metadata)
    if media.value == "video":
        _require_video(model, dialect)
    if model is not None and not model.is_offline:
        used, backend, simple = get_dialect(dialect.value), model.backend, model.is_simple
        require_special_tokens(used, backend, simple=simple, environ=environ)
        require_known_sizes(used, backend, simple=simple)
    return RunSettings(dialect, prompt, protocol, low, high, control, media)


def _require_video(model: ModelUnderTest | None, dialect: Setting) -> None:
    from univg_eval.lmms.media import require_video_backend

    if get_dialect(dialect.value).needs_input_size:
        raise UserError(
            f"dialect {dialect.value!r} ({dialect.source}) writes boxes in pixels of the resized "
            "input, and how a backend resizes a video is not known here, so its answers could not "
            "be read: evaluate the task that shows the frames as images (the same name without "
            "_video), or set a dialect on 0-1000 with UNIVG_DIALECT if the model has one"
        )
    if model is not None and not model.is_offline:
        require_video_backend(model.backend, simple=model.is_simple)


def _finder(
    environ: Mapping[str, str], metadata: Mapping[str, Any]
) -> Callable[[str], Setting | None]:
    """Looks a setting up in the environment, then in the task's metadata."""

    def find(name: str) -> Setting | None:
        variable = _variable(name)
        value = environ.get(variable)
        if value:
            is_option = _OPTIONS.get(variable) == value
            return Setting(value, f"--{name}" if is_option else f"environment variable {variable}")
        if metadata.get(name) is not None:
            return Setting(metadata[name], f"metadata key {name} of the task's YAML")
        return None

    return find


def _require_known(name: str, setting: Setting, known: Collection[str]) -> None:
    if setting.value not in known:
        raise UserError(
            f"{name} is {setting.value!r} ({setting.source}); {meant(setting.value, known)}"
        )


@contextmanager
def _named(setting: Setting) -> Iterator[None]:
    """Adds where a wrong value comes from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error} (the value comes from: {setting.source})") from error


def _checkpoint_config(
    model: ModelUnderTest | None,
) -> tuple[Mapping[str, Any], str, str | None]:
    """config.json of the model under test, where it lies, and why it could not be read."""
    if model is None or model.is_offline:
        return {}, "", None
    service_model = model.service_model
    if service_model is not None and find_api_model(service_model) is not None:
        return {}, "", None
    checkpoint = model.checkpoint
    if checkpoint is None:
        return {}, "", f"the backend {model.backend!r} names no checkpoint"
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        path = folder / "config.json"
        try:
            config = read_json(path)
        except (OSError, ValueError) as error:
            return {}, "", f"{path} cannot be read: {error}"
        if not isinstance(config, dict):
            return {}, "", f"{path} does not hold a JSON object"
        return config, str(path), None
    if _is_path(checkpoint):
        return {}, "", f"the folder {folder} does not exist"
    from transformers import PretrainedConfig

    source = f"the configuration of {checkpoint!r}"
    try:
        config, _ = PretrainedConfig.get_config_dict(checkpoint)
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        return {}, "", f"{source} cannot be read: {reason}"
    return config, source, None


def _dialect_of_model(
    model: ModelUnderTest | None,
    config: Mapping[str, Any],
    config_source: str,
    config_error: str | None,
) -> Setting:
    if model is None:
        raise UserError(
            "how the model writes boxes is not known: lmms-eval was called from Python without "
            f"cli_args, so a task cannot see which model runs; {_DIALECT_REMEDY}, or pass cli_args"
        )
    if model.backend == BASELINE_MODEL:
        return Setting(BASELINE_DIALECT, "default of univg_baseline")
    if model.backend == REPLAY_MODEL:
        from univg_eval.lmms.backends.replay import declared_dialect

        name = declared_dialect(model.args)
        if name is None:
            raise UserError(
                "how the replayed responses write boxes is not known: their lines have no field "
                f"'dialect'; add it, or {_DIALECT_REMEDY}"
            )
        return Setting(name, "field dialect of the replayed responses")
    service_model = model.service_model
    known = None if service_model is None else find_api_model(service_model)
    if known is not None:
        return Setting(
            known.dialect,
            f"model {service_model!r} in the table of services: {known.models}, {known.contract}",
        )
    if config_error is not None and service_model is None and model.checkpoint is not None:
        raise UserError(_no_checkpoint(model.checkpoint, config_error))
    reason = config_error
    if reason is None:
        try:
            name = _dialect_of_checkpoint(model.checkpoint or "", config, config_source)
        except UserError as error:
            reason = str(error)
        else:
            return Setting(name, f"model_type {config['model_type']!r} of {config_source}")
    if service_model is not None:
        reason = f"{reason}; {no_contract(service_model)}"
    raise UserError(f"how the model writes boxes is not known: {reason}; {_DIALECT_REMEDY}")


def require_checkpoint(model: ModelUnderTest) -> None:
    """Refuse a folder that does not exist, where the model is to be loaded from it.

    Raises:
        UserError: there is no such folder on this machine, and no server may have it.
    """
    name = model.checkpoint
    if name is None or model.is_offline or model.service_model is not None:
        return
    if _is_path(name) and not Path(name).expanduser().exists():
        raise UserError(_no_checkpoint(name, ""))


def _is_path(checkpoint: str) -> bool:
    """Whether it can't be a name on the hub."""
    return Path(checkpoint).expanduser().is_absolute() or checkpoint.startswith(".")


def _no_checkpoint(checkpoint: str, reason: str) -> str:
    if Path(checkpoint).expanduser().is_dir():
        return (
            f"{checkpoint} (--model_args) is no whole checkpoint: {reason}; expected a folder with "
            "config.json and weights; for a model without one give --dialect"
        )
    if _is_path(checkpoint):
        return (
            f"there is no checkpoint {checkpoint} (--model_args): the folder does not exist; "
            "expected a folder with config.json and weights, or a name on the hub such as "
            "Qwen/Qwen2.5-VL-7B-Instruct"
        )
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        reason = "HF_HUB_OFFLINE is set, so the hub is not asked"
    return (
        f"there is no checkpoint {checkpoint!r} (--model_args): it is no folder, and none is in "
        f"the cache of the hub ({reason}); give a folder (pretrained=DIR), or fetch it: hf "
        f"download {checkpoint}; for a model without config.json give --dialect"
    )


def _dialect_of_checkpoint(checkpoint: str, config: Mapping[str, Any], source: str) -> str:
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        return dialect_for_model(folder)
    return dialect_for_config(config, source, name=checkpoint)


def _pixel_limit(name: str, found: Setting | None, model: ModelUnderTest | None) -> Setting:
    if found is None and model is not None:
        found = _pixel_limit_of_model(name, model)
    if found is None:
        return Setting(None, "not known")
    text = str(found.value).strip()
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise UserError(
            f"{name} is {found.value!r} ({found.source}); expected a whole number of pixels, "
            "at least 1"
        )
    return Setting(int(text), found.source)


def _pixel_limit_of_model(name: str, model: ModelUnderTest) -> Setting | None:
    """What limits the model's images; None if nothing is known."""
    # vLLM hands these to the image processor.
    given = model.args.get("mm_processor_kwargs")
    try:
        values = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        values = given
    if values is not None and not isinstance(values, Mapping):
        raise UserError(
            f"mm_processor_kwargs of model_args is {given!r}; expected a JSON object, "
            'such as mm_processor_kwargs={"max_pixels":1003520}'
        )
    if values is not None and values.get(name) is not None:
        return Setting(values[name], f"mm_processor_kwargs of model_args, {name}")
    if not model.is_simple and model.backend in _FIXED_LIMITS:
        return Setting(
            _FIXED_LIMITS[model.backend][name],
            f"fixed by the backend chat/{model.backend}, whatever model_args say",
        )
    videos_only = model.backend in _VIDEO_LIMITS and not model.is_simple
    if not videos_only and model.args.get(name) is not None:
        return Setting(model.args[name], f"{name} of model_args")
    if model.is_offline:
        return None
    default = None if videos_only else model.backend_default(name)
    if default is not None:
        kind = "simple" if model.is_simple else "chat"
        return Setting(default, f"default of the backend {kind}/{model.backend}")
    if model.checkpoint is None:
        return None
    limits = pixel_limits(Path(model.checkpoint).expanduser())
    named: int | None = getattr(limits, name)
    return None if named is None else Setting(named, str(limits.source))
