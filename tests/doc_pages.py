"""Text, code blocks and tables of the pages in docs/."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent


def page_text(page: str) -> str:
    return (REPO / "docs" / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page_text(page), re.M | re.S)


def rows_named(page: str) -> list[str]:
    """Names in code type that begin a row of a table."""
    return re.findall(r"^\| `(\w+)` \|", page_text(page), re.M)
