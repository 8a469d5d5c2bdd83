"""Settings in YAML: a file, changed on the command line, checked as a whole by pydantic."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from univg_eval.errors import UserError, nearest
from univg_eval.files import parse_yaml, read_yaml
from univg_train.configs import list_configs

__all__ = ["Positive", "Section", "argument_problems", "override", "read_settings", "validate"]

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Settings whose keys are all known and whose values are of their types.

    A field's description is what a message says was expected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


S = TypeVar("S", bound=Section)


def read_settings(
    kind: type[S], path: str | os.PathLike[str] | None, changes: Iterable[str] = (), **context: Any
) -> S:
    """Read a YAML file, change some keys, and check everything.

    Args:
        kind: of the settings.
        path: the file; None where `changes` say everything.
        changes: ``key=value``, the key with dots (``trainer.max_steps=10``), the value as YAML.
        context: for the validators of `kind`.

    Raises:
        UserError: the file cannot be read, or all mistakes in it.
    """
    try:
        values = {} if path is None else _load_file(Path(path).expanduser())
        return validate(kind, override(values, changes), **context)
    except UserError as error:
        raise UserError(f"{path or 'the settings'}: {error}") from error


def validate(kind: type[S], values: Mapping[str, Any], **context: Any) -> S:
    """Settings from plain values; a UserError holds all mistakes in one message."""
    try:
        return kind.model_validate(values, context=context)
    except ValidationError as error:
        raise UserError("; ".join(_problems(error, kind, values))) from error


def override(values: Mapping[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Values after ``section.key=value`` changes; a value is read as YAML.

    Raises:
        UserError: a change is not of that form, or goes into something that is no section.
    """
    changed = copy.deepcopy(dict(values))
    for change in changes:
        name, equals, text = change.partition("=")
        *sections, key = name.split(".")
        if not (equals and key and all(sections)):
            raise UserError(f"{change!r} is no key=value; expected such as trainer.max_steps=100")
        section = changed
        for step in sections:
            if section.get(step) is None:
                section[step] = {}
            section = section[step]
            if not isinstance(section, dict):
                raise UserError(f"{change!r}: {step} is {section!r}, which has no keys")
        try:
            section[key] = parse_yaml(text, _loader())
        except ValueError as error:
            raise UserError(f"{change!r}: the value is no YAML: {error}") from error
    return changed


def argument_problems(
    kind: type[Any], values: Mapping[str, Any], prefix: str, types: Mapping[str, Any]
) -> list[str]:
    """What is wrong with arguments for a dataclass of another library, by its own annotations.

    `types` replace some annotations; `prefix` stands before the names in messages.
    """
    hints = get_type_hints(kind)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if field.init:
            choices = field.metadata.get("choices")
            known = cast(Any, Literal)[tuple(choices)] | None if choices else hints[field.name]
            fields[field.name] = (types.get(field.name, known), None)
    config = ConfigDict(
        extra="forbid", strict=True, arbitrary_types_allowed=True, protected_namespaces=()
    )
    section: type[BaseModel] = create_model(kind.__name__, __config__=config, **fields)
    try:
        section.model_validate(dict(values))
    except ValidationError as error:
        return _problems(error, section, values, prefix)
    return []


# --- messages ------------------------------------------------------------------------------------

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "a number above {gt}",
}


def _problems(
    error: ValidationError, kind: type[BaseModel], values: Any, prefix: str = ""
) -> list[str]:
    """A line for each key that is wrong; the members of a union make one together."""
    lines: list[str] = []
    expected: dict[str, list[str]] = {}
    received: dict[str, Any] = {}
    for entry in error.errors(include_url=False):
        if entry["type"] == "value_error":
            lines.append(str(entry["ctx"]["error"]))
            continue
        names, section, value = _place(kind, values, entry["loc"])
        name = prefix + ".".join(names)
        field = section.model_fields.get(names[-1])
        if field is None:
            known = section.model_fields
            lines.append(f"unknown key {name!r}{_nearest(names, known, prefix)}")
        elif entry["type"] == "missing":
            wanted = f"; expected {field.description}" if field.description else ""
            lines.append(f"{name} is missing{wanted}")
        else:
            words = _EXPECTED.get(entry["type"], entry["msg"].removeprefix("Input should be "))
            words = field.description or words.format(**entry.get("ctx", {}))
            expected.setdefault(name, []).append(words)
            received[name] = value
    lines += [
        f"{name} is {received[name]!r}; expected {' or '.join(dict.fromkeys(words))}"
        for name, words in expected.items()
    ]
    return list(dict.fromkeys(lines))


def _place(
    kind: type[BaseModel], values: Any, loc: tuple[int | str, ...]
) -> tuple[list[str], type[BaseModel], Any]:
    """Names down to the key that an error is of, its section and its value."""
    names: list[str] = []
    for part in loc:
        names.append(str(part))
        values = values.get(part)
        field = kind.model_fields.get(str(part))
        inner = [] if field is None else [field.annotation, *get_args(field.annotation)]
        sections = [t for t in inner if isinstance(t, type) and issubclass(t, Section)]
        if not (sections and isinstance(values, Mapping)):
            break
        if len(names) < len(loc):
            kind = sections[0]
    return names, kind, values


def _nearest(names: list[str], known: Collection[str], prefix: str) -> str:
    near = nearest(names[-1], known, n=1)
    if near:
        return f"; did you mean {prefix + '.'.join([*names[:-1], near[0]])!r}?"
    return f"; expected one of: {', '.join(sorted(known))}" if len(known) <= 20 else ""


# --- YAML ----------------------------------------------------------------------------------------


def _load_file(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path, _loader())
    except (OSError, UnicodeDecodeError) as error:
        if str(path) in list_configs():
            remedy = f'give its path: --config "$(univg-train configs {path})"'
        else:
            remedy = "`univg-train configs` lists files"
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read it: {reason}; {remedy}") from error
    except ValueError as error:
        raise UserError(f"this is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"it holds {type(content).__name__}; expected keys with values")
    return content


@lru_cache(maxsize=1)
def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """As YAML 1.2 where 1.1 surprises: 1e-6 is a number, and no, off, on and yes are words.

        A duplicate key is an error.
        """

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if keys.count(key) > 1:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"duplicate key {key!r}", node.start_mark
                    )
            return super().construct_mapping(node, deep)

    boolean = "tag:yaml.org,2002:bool"
    Loader.yaml_implicit_resolvers = {
        first: [entry for entry in entries if entry[0] != boolean]
        for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    words = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
    Loader.add_implicit_resolver(boolean, words, list("tTfF"))
    # YAML 1.1 reads 1e-6, without a point, as a text.
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"),
        list("-+0123456789"),
    )
    return Loader
