"""``univg dialects``: how each model family writes boxes."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, NamedTuple

from univg_eval.terminal import Sheet, fitted, sheet_lines, terminal_width, wrapped

if TYPE_CHECKING:
    from univg_eval.dialects import Dialect, UnknownScale

HELP = "list how model families write boxes"
DESCRIPTION = """\
List the dialects: how each model family writes boxes, in which order, on which scale, and how well
the sources support that (form/order/scale). With NAME, everything that is known about one of them.

A dialect is given by --dialect or UNIVG_DIALECT, or follows from the model's config; it is never
guessed from a reply, because the same text means different boxes in different families. Families
whose scale nobody has stated are listed last: name a scale in the prompt of such a model and choose
norm1000, norm1 or pixels. For models behind services see the third table of --markdown, or --json.
"""
EPILOG = "Example: univg dialects qwen2_5_vl"
_CONTRACT = "a contract between prompt and reader"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to ``univg``."""
    parser = subparsers.add_parser(
        "dialects",
        help=HELP,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="one dialect, in full, or that of a service's model, such as gpt-5.5",
    )
    parser.add_argument(
        "--model-types",
        action="store_true",
        help="list transformers' model types: their dialect, or why there is none",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument(
        "--markdown",
        action="store_true",
        help="print the tables of docs/dialects.md, or with --model-types that of "
        "docs/model_types.md",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, or one dialect."""
    from univg_eval.dialects import (
        API_MODELS,
        UNKNOWN_SCALES,
        find_api_model,
        get_dialect,
        list_dialects,
    )

    if args.model_types:
        _print_model_types(args)
        return 0
    if args.name in UNKNOWN_SCALES:
        entry = UNKNOWN_SCALES[args.name]
        if args.json:
            print(json.dumps(_unknown(entry), indent=1))
        else:
            print("\n".join(wrapped(entry.explain(), terminal_width())))
        return 0
    service = find_api_model(args.name) if args.name else None
    if service is not None and not args.json:
        said = f"{service.models}: {service.contract} ({service.source}, {service.date})"
        print("\n".join([*wrapped(said, terminal_width()), ""]))
    if args.name is not None:
        dialect = get_dialect(service.dialect if service else args.name)
        print(json.dumps(dialect.to_dict(), indent=1) if args.json else _describe(dialect))
        return 0
    dialects = [get_dialect(name) for name in list_dialects()]
    if args.json:
        content = {
            "dialects": [dialect.to_dict() for dialect in dialects],
            "unknown_scale": [_unknown(entry) for entry in UNKNOWN_SCALES.values()],
            "api_models": [asdict(entry) for entry in API_MODELS],
        }
        print(json.dumps(content, indent=1))
    elif args.markdown:
        print(markdown_tables(), end="")
    else:
        _print_table(dialects)
    return 0


def _print_model_types(args: argparse.Namespace) -> None:
    rows = model_types()
    if args.json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return
    if args.markdown:
        print(model_type_tables(), end="")
        return
    for row in rows:
        line = f"{row.model_type:<24}  {row.dialect or f'none: {row.why}'}"
        print("\n".join(fitted(line, terminal_width())))


def model_type_tables() -> str:
    """The generated part of ``docs/model_types.md``: types by dialect, family and reason."""
    from univg_eval.dialects import MODEL_TYPES, UNKNOWN_SCALES

    titles = ("dialect", "no known scale", "no dialect, since")
    tables: dict[str, dict[str, list[str]]] = {title: {} for title in titles}
    for row in model_types():
        name = MODEL_TYPES.get(row.model_type)
        title = titles[0] if row.dialect else titles[1] if name in UNKNOWN_SCALES else titles[2]
        rows = tables[title].setdefault(f"`{name}`" if name else row.why, [])
        rows.append(f"`{row.model_type}`")
    return "\n".join(
        f"| {title} | model types |\n|---|---|\n"
        + "".join(f"| {key} | {', '.join(types)} |\n" for key, types in sorted(rows.items()))
        for title, rows in tables.items()
    )


class ModelType(NamedTuple):
    """A ``model_type`` of transformers, with its dialect or why it has none."""

    model_type: str
    dialect: str | None
    why: str


def model_types() -> list[ModelType]:
    """All known model types, in alphabetical order."""
    from univg_eval.dialects import MODEL_TYPES, UNKNOWN_SCALES, WITHOUT_BOXES

    rows = [ModelType(model_type, None, why) for model_type, why in WITHOUT_BOXES.items()]
    for model_type, name in MODEL_TYPES.items():
        entry = UNKNOWN_SCALES.get(name)
        why = f"{entry.reason}; nearest: {', '.join(entry.nearest)}" if entry else ""
        rows.append(ModelType(model_type, None if entry else name, why))
    return sorted(rows)


def _unknown(entry: UnknownScale) -> dict[str, object]:
    names = ("name", "families", "model_types", "reason", "sources", "nearest")
    return {name: getattr(entry, name) for name in names}


def _confidence(dialect: Dialect) -> str:
    is_contract = dialect.sources[0].startswith(_CONTRACT)
    return "contract" if is_contract else "/".join(dialect.confidence)


def _print_table(dialects: list[Dialect]) -> None:
    from univg_eval.dialects import UNKNOWN_SCALES

    rows = []
    for dialect in dialects:
        scale = dialect.space.describe()
        if dialect.resize_rule:
            scale = f"{scale}; {dialect.resize_rule}"
        if dialect.order != "xyxy":
            scale = f"{scale}; {dialect.order}"
        rows.append((dialect.name, scale, _confidence(dialect)))
    rows += [(entry.name, "unknown", "none") for entry in UNKNOWN_SCALES.values()]
    title = (
        "Dialects: how model families write boxes. Confidence: in form/order/scale; "
        "`univg dialects NAME` shows the form in full, the sources and the traps."
    )
    sheet = Sheet(title, ("name", "scale; order unless xyxy", "confidence"), rows, names=2)
    print("\n".join(sheet_lines(sheet, terminal_width())))


def _describe(dialect: Dialect) -> str:
    form, order, scale = dialect.confidence
    rows = [
        ("families", ", ".join(dialect.families)),
        ("form", dialect.form),
        ("order", dialect.order),
        ("scale", dialect.space.describe()),
        ("confidence", f"form {form}, order {order}, scale {scale}"),
        ("resize rule", dialect.resize_rule or "boxes do not depend on a resize"),
        ("sizes", _sizes_needed(dialect)),
        *_tokens(dialect),
        *_example(dialect),
        ("prompt", dialect.prompt_suffix or "(nothing is added)"),
        ("official", repr(dialect.official_prompt) if dialect.official_prompt else "(none known)"),
        *(
            (name, repr(text))
            for name, text in (
                ("prompt, all", dialect.prompt_suffix_all),
                ("offic., all", dialect.official_prompt_all),
            )
            if text
        ),
        *(("note", note) for note in dialect.notes),
        *(("source", source) for source in dialect.sources),
        ("read", dialect.sources_read),
    ]
    lines = [fitted(f"  {name:<11}  {text}", terminal_width()) for name, text in rows]
    return "\n".join([dialect.name, *(line for found in lines for line in found)])


def _example(dialect: Dialect) -> list[tuple[str, str]]:
    example = dialect.example()
    if example is None:
        return []
    width, height = example.image_wh
    seen = (
        ""
        if example.input_wh == example.image_wh
        else "{} x {} to the model, ".format(*example.input_wh)
    )
    box = ", ".join(f"{value:.1f}" for value in example.box)
    return [
        ("example", example.answer),
        ("means", f"in an image of {width} x {height} pixels ({seen}a red cup): {box}"),
    ]


def _tokens(dialect: Dialect) -> list[tuple[str, str]]:
    needed = "the box is written in special tokens: decode with skip_special_tokens=False"
    return [("decoding", needed)] if dialect.needs_special_tokens else []


def _sizes_needed(dialect: Dialect) -> str:
    if dialect.needs_input_size:
        return "each image's input size, or its original size and the resize rule"
    return "each image's original size" if dialect.needs_image_size else "none needed"


def markdown_tables() -> str:
    """The generated part of ``docs/dialects.md``."""
    from univg_eval.dialects import API_MODELS, UNKNOWN_SCALES, get_dialect, list_dialects
    from univg_eval.dialects.unknown import NEAREST

    lines = [
        "| dialect | families | form | scale; order unless xyxy | confidence (form/order/scale) |",
        "|---|---|---|---|---|",
    ]
    first: dict[str, str] = {}
    for name in list_dialects():
        dialect = get_dialect(name)
        same = first.setdefault(dialect.form, name)
        cells = (
            f"`{name}`",
            ", ".join(dialect.families),
            _code(dialect.form) if same == name else f"as `{same}`",
            dialect.space.describe() + ("" if dialect.order == "xyxy" else f"; {dialect.order}"),
            _confidence(dialect),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| no known scale | families | why |", "|---|---|---|"]
    unknown: dict[str, list[UnknownScale]] = {}
    for entry in UNKNOWN_SCALES.values():
        nearest = "" if entry.nearest == NEAREST else f"; nearest: {', '.join(entry.nearest)}"
        unknown.setdefault(_code(entry.reason + nearest), []).append(entry)
    for why, entries in unknown.items():
        names = ", ".join(f"`{entry.name}`" for entry in entries)
        families = ", ".join(family for entry in entries for family in entry.families)
        lines.append(f"| {names} | {families} | {why} |")
    lines += ["", "| models of services | dialect | contract | source |", "|---|---|---|---|"]
    services: dict[str, list[str]] = {}
    for model in API_MODELS:
        source = f"{'probe' if model.is_probe else model.source} ({model.date})"
        row = f"`{model.dialect}` | {_code(model.contract)} | {source}"
        services.setdefault(row, []).append(model.models)
    lines += [f"| {'; '.join(models)} | {row} |" for row, models in services.items()]
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Text for a cell of a Markdown table: bars and angle brackets stay what they are."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
