"""The documentation as a site: it builds, every link leads somewhere, and it loads nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

REPO = Path(__file__).resolve().parent.parent
OUTSIDE_DOCS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
FORGE_PAGES = sorted(
    [
        *(REPO / "docs").glob("*.md"),
        *(REPO / name for name in OUTSIDE_DOCS),
        REPO / "tasks" / "README.md",
        *(REPO / "results").rglob("*.md"),
    ]
)
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.M | re.S)


# --- what a page loads and links -----------------------------------------------------------------


class Page(HTMLParser):
    """Links and loaded resources of a page."""

    LOADING_RELS = frozenset({"stylesheet", "icon", "preload", "preconnect", "manifest"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self._style: bool = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and self.LOADING_RELS & set(values.get("rel", "").split()):
            self.loaded.append(values.get("href", ""))
        for name in ("src", "data", "poster"):
            if name in values and tag != "meta":
                self.loaded.append(values[name])
        self.loaded += [part.split()[0] for part in values.get("srcset", "").split(",") if part]
        self.loaded += css_loads(values.get("style", ""))
        self._style = tag == "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            self.loaded += css_loads(data)
            self._style = False


def css_loads(text: str) -> list[str]:
    urls = re.findall(r"url\(\s*[\"']?([^\"')]+)", text)
    return urls + re.findall(r"@import\s+[\"']([^\"']+)", text)


def leaves_the_site(url: str) -> bool:
    return url.startswith("//") or urlsplit(url).scheme in ("http", "https", "ws", "wss", "ftp")


def external_loads(site: Path) -> Iterator[tuple[str, str]]:
    """(file, address) of everything that a page or a style sheet would load from elsewhere."""
    for path in sorted(site.rglob("*")):
        if path.suffix not in (".html", ".css"):
            continue
        text = path.read_text(encoding="utf-8")
        loads = css_loads(text) if path.suffix == ".css" else Page(text).loaded
        yield from ((str(path.relative_to(site)), load) for load in loads if leaves_the_site(load))


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/c">', "//fonts.example/c"),
        ("a.html", '<img src="http://e.example/i.png">', "http://e.example/i.png"),
        ("a.html", "<style>a{background:url(https://e.example/b)}</style>", "https://e.example/b"),
        ("a.html", '<p style="background:url(https://e.example/b)">', "https://e.example/b"),
        ("a.css", '@import "https://e.example/c.css";', "https://e.example/c.css"),
        ("a.css", "@font-face{src:url('https://e.example/f')}", "https://e.example/f"),
        ("a.html", '<a href="https://e.example">link</a><img src="i.png">', None),
        ("a.html", '<link rel="canonical" href="https://e.example/">', None),
        ("a.css", "a{background:url(data:image/svg+xml;x)}", None),
    ],
)
def test_what_is_loaded_from_elsewhere_is_seen(
    tmp_path: Path, name: str, text: str, expected: str | None
) -> None:
    (tmp_path / name).write_text(text)
    assert list(external_loads(tmp_path)) == ([(name, expected)] if expected else [])


# --- the site ------------------------------------------------------------------------------------


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config, "-d", site],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; the strict build fails on a page outside the menu and on dead links,

    those that docs/hooks.py makes included.
    """
    pytest.importorskip("material", reason="pip install -c constraints.txt -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = build(REPO / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def page(site: Path, name: str) -> Page:
    return Page((site / name).read_text(encoding="utf-8"))


def test_every_page_is_built_and_in_the_menu(site: Path) -> None:
    menu = page(site, "index.html").links
    pages = [path.stem for path in (REPO / "docs").glob("*.md")]
    assert len(pages) >= 29
    others = ["tasks", "results", "difficulty", "contributing", "changelog"]
    assert [name for name in pages + others if f"{name}.html" not in menu] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert list(external_loads(site)) == []
    # The search of a page that is opened as a file needs both.
    assert "assets/iframe-worker.js" in (site / "index.html").read_text(encoding="utf-8")
    assert (site / "search" / "search_index.js").is_file()


def test_links_out_of_docs_lead_to_their_pages(site: Path) -> None:
    assert "tasks.html" in page(site, "evaluate.html").links
    assert "evaluate.html" in page(site, "tasks.html").links
    assert "images/difficulty.png" in page(site, "difficulty.html").loaded


def test_no_markup_of_the_forge_is_left_as_text(site: Path) -> None:
    """Lists glued to a paragraph and tables in a list are read otherwise by MkDocs."""
    raw = re.compile(r"\|\s*:?---|<p>[^<]*\n(?:[-*]|\d\.) ")
    left = []
    for path in sorted(site.glob("*.html")):
        text = re.sub(r"<pre.*?</pre>", "", path.read_text(encoding="utf-8"), flags=re.S)
        left += [(path.name, found[0]) for found in raw.finditer(text)]
    assert left == []


def test_strict_fails_on_a_page_outside_the_menu_and_on_a_dead_link(
    site: Path, tmp_path: Path
) -> None:
    config = (REPO / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[0]
    config = re.sub(r"(?m)^(hooks|exclude_docs|extra_css|  favicon).*\n", "", config)
    config = config.replace("polyfills: [assets/iframe-worker.js]", "polyfills: []")
    (tmp_path / "mkdocs.yml").write_text(config + "\nnav:\n  - index.md\n", encoding="utf-8")
    (docs := tmp_path / "docs").mkdir()
    (docs / "index.md").write_text("# A\n\n[b](#gone)\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0 and "gone" in done.stdout + done.stderr
    (docs / "index.md").write_text("# A\n")
    (docs / "lost.md").write_text("# B\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0 and "lost.md" in done.stdout + done.stderr


# --- the forge -----------------------------------------------------------------------------------


def heading_ids(path: Path) -> set[str]:
    """Anchors of a page's headings, as the forge makes them."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }


@pytest.mark.parametrize("path", FORGE_PAGES, ids=lambda path: str(path.relative_to(REPO)))
def test_every_link_leads_somewhere_in_the_repository(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or (
            anchor and there.suffix == ".md" and anchor not in heading_ids(there)
        ):
            dead.append(target)
    assert dead == []


def test_the_readme_leads_to_the_pages() -> None:
    text = (REPO / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\(docs/(\w+)\.md", text))
    assert {path.stem for path in (REPO / "docs").glob("*.md")} - linked <= {"index"}
