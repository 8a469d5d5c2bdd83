"""Pages from templates: one HTML file each, that asks nothing of a network.

Every text that is given is data: it is escaped, and characters that would disguise it are shown. A
policy inside the page allows its own style sheet and script, by their hashes, and images that the
page itself holds; everything else is forbidden.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from univg_eval.boxes import box_text
from univg_eval.errors import UserError, install_command
from univg_eval.files import NO_ROOM, write_text_atomically
from univg_eval.report.drawing import DENSITY, VIEW_SIDE, Drawing, Panel, draw_panel
from univg_eval.report.text import printable
from univg_eval.report.thumbnails import as_webp

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Card", "Cell", "Page", "Section", "Tone", "asset", "render", "templates", "write_page"]

Tone = Literal["good", "bad", "warn", "plain"]
Cell = str | int | float
_SYMBOLS = {"good": "✓", "bad": "✗", "warn": "!", "plain": ""}
_FOLDED_FROM = 600  # characters
_LONGEST_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class Card:
    """One thing to look at: a sample, a response, a faulty row.

    Attributes:
        title: e.g. a sample's id.
        images: drawn side by side.
        lines: (label, text) pairs below them; long texts are folded.
        status: a word or two, e.g. ``IoU 0.83``; shown as a badge.
        tone: of the badge, shown by a symbol as well as by colour.
        groups: name of a filter → values by which it finds the card; every card of a section has
            the same filters, or none.
    """

    title: str
    images: Sequence[Panel] = ()
    lines: Sequence[tuple[str, str]] = ()
    status: str = ""
    tone: Tone = "plain"
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Section:
    """Cards under a heading.

    Attributes:
        title: the heading; the page's list of contents links to it.
        text: paragraphs, parted by empty lines.
        cards: in order; drawn when the page is rendered.
        left_out: how many more cards there would be; said below the cards.
        head, rows: a table above the cards; numbers are aligned right.
        n: the count beside the heading, none for 0; default: the cards and `left_out`.
    """

    title: str
    text: str = ""
    cards: Sequence[Card] = ()
    left_out: int = 0
    head: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    n: int | None = None

    @property
    def count(self) -> int | None:
        """The number beside the heading."""
        return (len(self.cards) + self.left_out if self.n is None else self.n) or None

    @property
    def filters(self) -> dict[str, Counter[str]]:
        """By filter the values that its cards have, in their order, and how many have each."""
        names = self.cards[0].groups if self.cards else ()
        return {
            name: Counter(value for card in self.cards for value in card.groups[name])
            for name in names
        }


@dataclass(frozen=True, slots=True)
class Page:
    """A page of cards.

    Attributes:
        title: heading and title of the window.
        summary_rows: a table at the top; numbers are aligned right, the first cell of a row
            heads it.
        sections: in order.
        summary_head: the table's column names.
        lead: paragraphs above the table, parted by empty lines.
        verdict: what the page says first, as a banner.
        tone: of the verdict.
        footer: a line at the end: how, when and with which version the page was made.
    """

    title: str
    summary_rows: Sequence[Sequence[Cell]] = ()
    sections: Sequence[Section] = ()
    summary_head: Sequence[str] = ()
    lead: str = ""
    footer: str = ""
    verdict: str = ""
    tone: Tone = "plain"

    def chunks(self, progress: Callable[[int, int], None] | None = None) -> Iterator[str]:
        """The page in pieces; each image is opened when its piece is due.

        Args:
            progress: called with (images drawn, images in all).
        """
        total = sum(len(card.images) for section in self.sections for card in section.cards)
        done = itertools.count()

        def drawn(panel: Panel) -> Drawing:
            if progress is not None:
                progress(next(done), total)
            return draw_panel(panel)

        return render(
            "cards.html",
            scripts=("elements.js", "theme.js", "cards.js"),
            page=self,
            title=self.title,
            footer=self.footer,
            drawn=drawn,
        )

    def render(self) -> str:
        """The page as one text."""
        return "".join(self.chunks())


def write_page(
    page: Page | Iterator[str],
    path: str | os.PathLike[str],
    *,
    what: str = "page",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a page, given whole or in pieces, so that the file appears only when whole.

    Args:
        page: what to write.
        path: where.
        what: its name in messages.
        progress: of a whole page, see `Page.chunks`.

    Returns:
        Its absolute path.

    Raises:
        UserError: the file cannot be written, or jinja2 is not installed.
    """
    path = Path(path).expanduser().absolute()
    try:
        write_text_atomically(path, page.chunks(progress) if isinstance(page, Page) else page)
    except OSError as error:
        remedy = "free space, or " if error.errno in NO_ROOM else ""
        raise UserError(
            f"cannot write the {what} {path}: {error.strerror or error}; {remedy}give a file in a "
            "folder that can be written to"
        ) from error
    return path


def render(template: str, /, *, scripts: Sequence[str], **values: Any) -> Iterator[str]:
    """A template of this room filled in, in pieces, with the style sheet and one script of many."""
    loaded = templates().get_template(template)
    script = "\n".join(asset(name) for name in scripts)
    return loaded.generate(
        style=asset("report.css"),
        script=f"(() => {{\n'use strict';\n{script}}})();\n",
        **values,
    )


@functools.cache
def templates() -> Environment:
    """The templates, with escaping on.

    Raises:
        UserError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise UserError(f"pages need the package jinja2: {install_command('report')}") from error

    def shown(value: object) -> object:
        return printable(value) if type(value) is str else value

    environment = Environment(
        loader=PackageLoader("univg_eval.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        safe_source=_source_expression,
        cell=_cell,
        box=box_text,
        parts=_parts,
        long=_long,
        numbers=_numbers,
    )
    environment.tests["numeric"] = lambda cell: isinstance(cell, (int, float))
    environment.globals.update(
        webp=lambda image: Markup(as_webp(image, 2 * DENSITY * VIEW_SIDE)),  # noqa: S704 (base64)
        density=DENSITY,
        symbols=_SYMBOLS,
        folded_from=_FOLDED_FROM,
    )
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False,
        "separators": (",", ":"),
        "allow_nan": False,
    }
    return environment


def asset(name: str) -> str:
    """The text of a file in ``assets``."""
    return (resources.files("univg_eval.report") / "assets" / name).read_text(encoding="utf-8")


def _source_expression(text: str) -> str:
    """The expression of a policy that allows exactly this inline script or style sheet."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _cell(cell: Cell) -> str:
    return (
        cell if isinstance(cell, str) else f"{cell:,}" if isinstance(cell, int) else f"{cell:,.3f}"
    )


def _numbers(card: Card, filters: Mapping[str, Mapping[str, int]]) -> str:
    """The values of a card for the script: their positions in each filter."""
    return ",".join(
        " ".join(str(list(values).index(value)) for value in card.groups[name])
        for name, values in filters.items()
    )


def _parts(text: str) -> list[str]:
    return [part for part in text.split("\n\n") if part.strip()]


def _long(text: str) -> str:
    """At most so much of a text as a page holds."""
    left_out = len(text) - _LONGEST_TEXT
    if left_out <= 0:
        return text
    return f"{text[:_LONGEST_TEXT]} … ({left_out:,} more characters are not shown)"
