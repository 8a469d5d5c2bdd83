"""Settings of a training run: a YAML file, changed on the command line, every key known."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from univg_eval.errors import UserError

__all__ = [
    "fits",
    "load_yaml",
    "override",
    "unknown_keys",
    "with_new_names",
    "wrong_values",
]

Known = Mapping[str, Any]

_NEW_NAMES = {
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UserError: the file cannot be read, is no YAML, no mapping, or has a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Numbers such as 1e-6 are numbers, as in JSON; a key that stands twice is an error."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            if twice:
                raise UserError(f"{path}: the key {twice[0]!r} stands twice in one section")
            return super().construct_mapping(node, deep)

    _add_floats(Loader)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read {path}: {reason}; `univg-train configs` lists the files that come along"
        ) from error
    try:
        content = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}; expected keys with values")
    return content


def override(settings: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Settings after ``section.key=value`` changes; the value is read as YAML.

    Raises:
        UserError: a change is not of that form, or goes into something that is no section.
    """
    import yaml

    changed: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    for change in changes:
        name, equals, text = change.partition("=")
        keys = name.split(".")
        if not equals or not all(keys):
            raise UserError(f"{change!r} is no key=value; expected such as trainer.max_steps=100")
        try:
            value = load_value(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{change!r}: the value is no YAML: {reason}") from error
        section = changed
        for depth, key in enumerate(keys[:-1], start=1):
            if section.get(key) is None:
                section[key] = {}
            section = section[key]
            if not isinstance(section, dict):
                where = ".".join(keys[:depth])
                raise UserError(f"{change!r}: {where} is {section!r}, which has no keys")
        section[keys[-1]] = value
    return changed


def load_value(text: str) -> Any:
    """One value, read as the files are."""
    import yaml

    class Loader(yaml.SafeLoader):
        """See `load_yaml`."""

    _add_floats(Loader)
    return yaml.load(text, Loader=Loader)


def with_new_names(arguments: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a trainer without the names that transformers has replaced.

    Its version 5.23 warns of them, even of TRL's own default.

    Args:
        arguments: as the user names them; a new name goes before an old one.
        defaults: of all arguments that the trainer knows.
    """
    renamed = dict(arguments)
    for old, new in _NEW_NAMES.items():
        value = renamed.get(old, defaults.get(old))
        if new in defaults and renamed.get(new) is None and value is not None:
            renamed.pop(old, None)
            renamed[new] = value
    return renamed


def unknown_keys(settings: Mapping[str, Any], known: Known, prefix: str = "") -> list[str]:
    """What is wrong with the keys: unknown ones, each with the known one that is nearest.

    Args:
        settings: one section.
        known: its keys; the value is None for a plain key, a table or collection of keys for a
            section.
        prefix: names of the sections around it, each with a dot.
    """
    problems = []
    for key, value in settings.items():
        if key not in known:
            problems.append(f"unknown key {prefix + str(key)!r}{_nearest(str(key), known, prefix)}")
            continue
        inner = known[key]
        if inner is None or value is None:
            continue
        if not isinstance(value, Mapping):
            problems.append(f"{prefix}{key} is {value!r}; expected keys with values")
            continue
        table = inner if isinstance(inner, Mapping) else dict.fromkeys(inner)
        problems += unknown_keys(value, table, f"{prefix}{key}.")
    return problems


def wrong_values(
    settings: Mapping[str, Any], types: Mapping[str, str], prefix: str = ""
) -> list[str]:
    """What is wrong with the values of known keys; see `fits`.

    Args:
        settings: one section.
        types: annotations of its keys; those without one are not looked at.
        prefix: names of the sections around it, each with a dot.
    """
    return [
        f"{prefix}{name} is {value!r}; expected {_WORDS.get(types[name], types[name])}"
        for name, value in settings.items()
        if name in types and not fits(value, types[name])
    ]


_WORDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "a text"}


def fits(value: Any, annotation: str) -> bool:
    """Whether a value from YAML is of the type that a field is annotated with.

    A whole number is a float too; true and false are no numbers. Types that YAML has not, such as
    an enumeration, fit every value: whoever takes it knows its own.
    """
    return any(_fits_one(value, name) for name in annotation.split(" | "))


def _fits_one(value: Any, name: str) -> bool:
    if name == "None":
        return value is None
    if name == "bool":
        return isinstance(value, bool)
    if name in ("int", "float"):
        kinds = (int,) if name == "int" else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    if name == "str":
        return isinstance(value, str)
    if name == "list[str]":
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if name == "dict" or name.startswith("dict["):
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return True


def _nearest(key: str, known: Collection[str], prefix: str) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    if near:
        return f"; did you mean {prefix + near[0]!r}?"
    shown = sorted(known)
    return f"; expected one of: {', '.join(shown)}" if len(shown) <= 20 else ""


def _add_floats(loader: Any) -> None:
    import re

    # YAML 1.1 reads 1e-6, without a point, as a text.
    loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )
