"""docs/mistakes.md: each of its thirty mistakes ends with status 2 and the page's message."""

from __future__ import annotations

import re
from pathlib import Path

import mistakes
import pytest

pytest.importorskip("lmms_eval")

TEXT = mistakes.PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mistakes.make_folder(tmp_path_factory.mktemp("newcomer"))


@pytest.mark.parametrize("typed", mistakes.MISTAKES)
def test_a_mistake_gives_the_one_message_of_the_page(typed: str, folder: Path) -> None:
    before = {path.name for path in folder.rglob("*")}
    status, out, err = mistakes.printed(typed, folder)
    assert status == 2, err
    assert out == "" and "Traceback" not in err
    assert len(re.findall(r"^univg", err, re.M)) == 1, "one message"
    assert re.fullmatch(r"(usage: .*\n( .*\n)*)?univg.*\n", err), err
    assert mistakes.row(typed, err) in TEXT, "write the page again: python tests/mistakes.py"
    assert {path.name for path in folder.rglob("*")} == before


def test_the_page_holds_the_thirty_and_nothing_else() -> None:
    assert len(set(mistakes.MISTAKES)) == 30
    typed = re.findall(r"^\| `+(.*?)`+ \| ", TEXT.removeprefix(mistakes.HEAD), re.M)
    assert TEXT.startswith(mistakes.HEAD) and tuple(typed) == mistakes.MISTAKES
    assert len(TEXT.split()) <= 900
