"""Every command of the documentation is one that the programs take."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from univg_eval.cli import build_parser, prepare
from univg_eval.dialects import get_dialect
from univg_eval.protocols import get_protocol

REPO = Path(__file__).resolve().parent.parent
PAGES = [
    REPO / "README.md",
    REPO / "tasks" / "README.md",
    *sorted((REPO / "docs").glob("*.md")),
    *sorted((REPO / "results").rglob("*.md")),
]
PROGRAMS = ("univg", "univg-train", "lmms-eval")
PASSED_ON = {"vllm": {"max_model_len", "mm_processor_kwargs"}}  # to vllm.LLM
# The task that docs/extending.md makes, and those of docs/custom.md.
MADE_ON_A_PAGE = {
    *("univg_signs", "univg_custom_same_object"),
    *("univg_custom:signs", "univg_custom:doors"),
}


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of these programs in the code blocks of a page."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.M | re.S):
        if language not in ("", "bash", "sh"):
            continue
        for line in re.sub(r"\\\n\s*|(?<=\])\n\s+(?=\[)", " ", block).splitlines():
            line = line.strip().removeprefix("$ ").replace("$(univg tasks)", "tasks")
            if line.split(" ")[0] in PROGRAMS:
                optional = re.search(r"\[--?\w", line)
                line = re.sub(r"[\[\]]", "", line) if optional else line
                line = line.partition(" > ")[0]  # into a file
                # N stands for a number.
                yield ["1" if word == "N" else word for word in shlex.split(line, comments=True)]


COMMANDS = [
    pytest.param(words, id=f"{path.stem}:{number}:{' '.join(words[:2])}")
    for path in PAGES
    for number, words in enumerate(commands(path.read_text(encoding="utf-8")))
]
EVALUATIONS = [
    param
    for param in COMMANDS
    if param.values[0][0] == "lmms-eval" or param.values[0][1:2] in (["eval"], ["check"])
]


def test_commands_are_found() -> None:
    text = "```bash\nunivg a \\\n   --b c  # why\nls\n```\n```text\nunivg: no\n```\n"
    text += "```\n$ univg score --x 1 [--protocol univg]\n```\n"
    assert list(commands(text)) == [
        ["univg", "a", "--b", "c"],
        ["univg", "score", "--x", "1", "--protocol", "univg"],
    ]
    assert len(COMMANDS) > 80 and len(EVALUATIONS) > 30


@pytest.mark.parametrize("words", COMMANDS)
def test_the_options_exist(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = words
    with argparse_messages(capsys, words):
        if program == "univg":
            args, unknown = build_parser().parse_known_args(arguments)
            assert not unknown or getattr(args, "takes_unknown", False), unknown
            if unknown:
                parse_for_lmms_eval(unknown)
            if arguments[0] == "prepare" and args.benchmark:
                prepare._refuse_foreign_options(args, prepare._entry(args))
        elif program == "univg-train":
            from univg_train.cli import build_parser as build_training_parser

            build_training_parser().parse_args(arguments)
        else:
            parse_for_lmms_eval(arguments)


@contextlib.contextmanager
def argparse_messages(capsys: pytest.CaptureFixture[str], words: list[str]) -> Iterator[None]:
    """argparse ends the process and says why on standard error."""
    try:
        yield
    except SystemExit as ended:
        pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}" if ended.code else "")


def parse_for_lmms_eval(arguments: list[str]) -> None:
    lmms_eval = pytest.importorskip("lmms_eval.__main__")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["lmms-eval", *arguments])
        lmms_eval.parse_eval_args()


# --- what the options of an evaluation say -------------------------------------------------------


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


@cache
def known_tasks() -> set[str]:
    class Loader(yaml.SafeLoader):
        """Leaves the tags of lmms-eval unread."""

    Loader.add_multi_constructor("!", lambda *_: None)
    names = set(MADE_ON_A_PAGE)
    for path in (REPO / "tasks").rglob("*.yaml"):
        task: Mapping[str, Any] = yaml.load(path.read_text(encoding="utf-8"), Loader)
        names |= {name for key in ("task", "group") if isinstance(name := task.get(key), str)}
    return names


@pytest.mark.parametrize("words", EVALUATIONS)
def test_tasks_dialects_and_protocols_exist(words: list[str]) -> None:
    tasks = option(words, "--tasks")
    assert tasks is None or set(tasks.split(",")) <= known_tasks()
    if dialect := option(words, "--dialect"):
        get_dialect(dialect)
    if protocol := option(words, "--protocol"):
        get_protocol(protocol)


def unknown_arguments(words: list[str]) -> set[str]:
    """Names in ``--model_args`` that the backend has no argument for."""
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.utils import simple_parse_args_string

    backend, given = option(words, "--model"), option(words, "--model_args") or ""
    if backend in (None, "…") or given == "…":
        return set()
    manifest = MODEL_REGISTRY_V2.get_manifest(backend)
    paths = [path for path in (manifest.chat_class_path, manifest.simple_class_path) if path]
    taken = frozenset[str]().union(*(constructor_of(*path.rsplit(".", 1)) for path in paths))
    return set(simple_parse_args_string(given)) - taken - PASSED_ON.get(backend, set())


@pytest.mark.parametrize("words", EVALUATIONS)
def test_the_backend_takes_these_arguments(words: list[str]) -> None:
    pytest.importorskip("lmms_eval")
    assert unknown_arguments(words) == set()


def test_arguments_that_a_backend_does_not_take_are_seen() -> None:
    pytest.importorskip("lmms_eval")
    for backend, given, unknown in (
        ("qwen2_vl", "pretrained=a,max_pixel=4", {"max_pixel"}),
        ("qwen2_5_vl", "pretrained=a,max_pixels=4", set()),  # of the simple class's constructor
        ("openai", "model=a,pretrained=b", {"pretrained"}),
        ("vllm", "model=a,max_model_len=4,mm_procesor_kwargs={}", {"mm_procesor_kwargs"}),
    ):
        words = ["univg", "eval", "--model", backend, "--model_args", given]
        assert unknown_arguments(words) == unknown


@cache
def constructor_of(module: str, name: str) -> frozenset[str]:
    """Names of a class's arguments, read without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    names = [arg.arg for arg in (*part.args.args, *part.args.kwonlyargs)]
                    return frozenset(names) - {"self"}
    return frozenset()
