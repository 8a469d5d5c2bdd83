"""The help of every command of both packages: wrapped, with an example that the command takes."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator

import pytest

from univg_eval.cli import build_parser as build_univg
from univg_eval.cli import main
from univg_train.cli import build_parser as build_univg_train
from univg_train.cli import main as train_main

OUTPUT = {"-o", "--out"}


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from walk(child)


ROOTS = {"univg": build_univg(), "univg-train": build_univg_train()}
PARSERS = {parser.prog: parser for root in ROOTS.values() for parser in walk(root)}


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """The commands of this project that the help shows, as a shell would read them."""
    text = parser.format_help().replace("\\\n", "")
    lines = re.findall(
        r"^ +(univg(?:-train)? .+)$", text.partition("xample")[2], flags=re.MULTILINE
    )
    return [shlex.split(line) for line in lines]


def test_all_parsers_are_walked() -> None:
    assert {"univg", "univg eval", "univg prepare", "univg-train grpo"} <= set(PARSERS)
    assert len(PARSERS) >= 20


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", PARSERS)
def test_help_fits_the_terminal(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = PARSERS[name].format_help().splitlines()
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line.lstrip().startswith("% ")]


@pytest.mark.parametrize("width", ["80", "200"])
@pytest.mark.parametrize("name", PARSERS)
def test_an_example_stands_in_the_help_and_is_taken(
    name: str, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    found = examples(PARSERS[name])
    if name == "univg tasks":  # what it prints is for another command
        assert "lmms-eval --model" in PARSERS[name].format_help()
        return
    assert [words for words in found if " ".join(words).startswith(name)]
    for program, *words in found:
        args, unknown = ROOTS[program].parse_known_args(words)
        assert hasattr(args, "run") or not words
        assert not unknown or getattr(args, "takes_unknown", False), unknown


@pytest.mark.parametrize("name", PARSERS)
def test_the_option_of_an_output_is_called_out(name: str) -> None:
    for action in PARSERS[name]._actions:
        options = set(action.option_strings)
        if options & OUTPUT:
            assert options == OUTPUT
        assert not [o for o in options if re.fullmatch(r"--(output.*|dest.*|save.*|write.*)", o)]


@pytest.mark.parametrize(
    "command",
    [
        "dialects qwen2_5_vl",
        "leaderboard --benchmark mig_bench --published --json",
        "prepare --list",
    ],
)
def test_examples_that_need_no_data_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = shlex.split(f"univg {command}")
    assert [program, *words] in examples(PARSERS[f"univg {words[0]}"])
    assert main(words) == 0
    assert capsys.readouterr().out


def test_the_example_of_configs_prints_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = examples(PARSERS["univg-train configs"])
    assert train_main(words[1:]) == 0
    assert capsys.readouterr().out.endswith(".yaml\n")
