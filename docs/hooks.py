"""MkDocs hook: pages that lie outside docs/, and links that hold on the forge and on the site.

A page links to a file of the repository by its relative path, as the forge wants it. On the site
such a link leads to the page made from that file; where the site has none (code, notebooks), the
link is replaced by its text and the file's path. A path that does not exist stays and fails the
strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPO = Path(__file__).resolve().parent.parent

# Path in the repository: path on the site.
PAGES = {
    "tasks/README.md": "tasks.md",
    "results/README.md": "results.md",
    "results/benchmarks/attacks.md": "attack_tables.md",
    "results/published/README.md": "published_rows.md",
    "results/runs/README.md": "shipped_runs.md",
    "results/experiments/difficulty/README.md": "difficulty.md",
    "results/experiments/difficulty/figure.png": "images/difficulty.png",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
_PATH_OF = {page: path for path, page in PAGES.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.M | re.S)


def on_files(files: Files, *, config: Any, **_: Any) -> Files:
    """Add the files of PAGES to those of docs/."""
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(REPO / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Point the links of one page at the site. Code blocks stay as they are."""
    here = page.file.src_uri
    source = _PATH_OF.get(here, f"docs/{here}")
    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_relink(markdown[end : fence.start()], source, here, files), fence[0]]
        end = fence.end()
    return "".join([*parts, _relink(markdown[end:], source, here, files)])


def _relink(text: str, source: str, here: str, files: Files) -> str:
    """The text of repository file `source`, its relative links as page `here` needs them."""

    def replace(link: re.Match[str]) -> str:
        mark, shown, target, anchor = link.groups()
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(page) is not None:
            there = posixpath.relpath(page, posixpath.dirname(here) or ".")
            return f"{mark}[{shown}]({there}{anchor or ''})"
        if not path.startswith("docs/") and (REPO / path).exists():
            return shown if path in shown else f"{shown} (`{path}`)"
        return link[0]

    return _LINK.sub(replace, text)
