"""A page as one HTML file: no network, no script, readable by keyboard and screen reader.

Every text that is given is data and is escaped. A policy inside the page forbids the browser to
load anything but the images that the page itself holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from univg_eval.errors import UserError
from univg_eval.files import write_text_atomically
from univg_eval.report.drawing import DrawnBox, Panel, Shown, box_text, draw_panel, swatch
from univg_eval.report.text import as_html

__all__ = ["Card", "Cell", "Page", "Section", "Tone", "write_page"]

Tone = Literal["good", "bad", "warn", "plain"]
Cell = str | int | float
_SYMBOLS = {"good": "✓ ", "bad": "✗ ", "warn": "! ", "plain": ""}
_FOLDED_FROM = 600  # characters
_LONGEST_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class Card:
    """One thing to look at: a question, an answer, a faulty row.

    Attributes:
        title: e.g. a sample's id.
        images: drawn side by side.
        lines: (label, text) pairs below them, e.g. ``("question", …)``; long texts are folded.
        status: a word or two, e.g. ``IoU 0.83``; shown as a badge.
        tone: of the badge; told by a symbol as well as by colour.
    """

    title: str
    images: Sequence[Panel] = ()
    lines: Sequence[tuple[str, str]] = ()
    status: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class Section:
    """Cards under a heading.

    Attributes:
        title: the heading; the page's list of contents links to it.
        text: paragraphs, parted by empty lines.
        cards: in order; drawn when the page is rendered.
        left_out: how many more cards there would be; said below the cards.
        head, rows: a table above the cards; numbers are aligned right.
        n: the count that stands beside the heading, none for 0; default: the cards and `left_out`.
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


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page.

    Attributes:
        title: heading and title of the window.
        summary_rows: a table at the top; numbers are aligned right, the first cell of a row
            heads it.
        sections: in order.
        summary_head: the table's column names.
        lead: paragraphs above the table, parted by empty lines.
        footer: a line at the end: how, when and with which version the page was made.
    """

    title: str
    summary_rows: Sequence[Sequence[Cell]] = ()
    sections: Sequence[Section] = ()
    summary_head: Sequence[str] = ()
    lead: str = ""
    footer: str = ""

    def chunks(self) -> Iterator[str]:
        """The page in pieces; the images of one card at a time are opened, each file once."""
        shown: Shown = {}
        yield _HEAD.replace("TITLE", as_html(self.title))
        yield f"<h1>{as_html(self.title)}</h1>\n"
        yield _paragraphs(self.lead)
        yield _table(self.summary_head, self.summary_rows, "Summary")
        if len(self.sections) > 1:
            yield '<nav aria-label="Sections"><ul>\n'
            for number, section in enumerate(self.sections, start=1):
                yield f'<li><a href="#section-{number}">{_heading(section)}</a></li>\n'
            yield "</ul></nav>\n"
        for number, section in enumerate(self.sections, start=1):
            yield from _section_chunks(number, section, shown)
        if self.footer:
            yield f"<footer>{as_html(self.footer)}</footer>\n"
        yield "</main>\n</body>\n</html>\n"

    def render(self) -> str:
        """The page as one text."""
        return "".join(self.chunks())


def write_page(page: Page, path: str | os.PathLike[str]) -> Path:
    """Write a page so that the file appears only when whole; returns its absolute path.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path).expanduser().absolute()
    try:
        write_text_atomically(path, page.chunks())
    except OSError as error:
        raise UserError(
            f"cannot write the page {path}: {error.strerror or error}; give a file in a folder "
            "that can be written to"
        ) from error
    return path


def _section_chunks(number: int, section: Section, shown: Shown) -> Iterator[str]:
    yield f'<section aria-labelledby="section-{number}">\n'
    yield f'<h2 id="section-{number}">{_heading(section)}</h2>\n'
    yield _paragraphs(section.text)
    yield _table(section.head, section.rows, section.title)
    if section.cards:
        yield '<div class="cards">\n'
        for position, card in enumerate(section.cards, start=1):
            yield _card(card, f"card-{number}-{position}", shown)
        yield "</div>\n"
    if section.left_out:
        yield f'<p class="left-out">{section.left_out:,} more are not shown here.</p>\n'
    yield "</section>\n"


def _heading(section: Section) -> str:
    count = "" if section.count is None else f' <span class="count">{section.count:,}</span>'
    return as_html(section.title) + count


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{as_html(part)}</p>\n" for part in text.split("\n\n") if part.strip())


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]], name: str) -> str:
    if not rows:
        return ""
    lines = [f'<div class="wide"><table aria-label="{as_html(name)}">']
    if head:
        cells = "".join(f'<th scope="col">{as_html(cell)}</th>' for cell in head)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for first, *others in rows:
        cells = f'<th scope="row">{_cell(first)}</th>' + "".join(
            f"<td{' class=number' if isinstance(cell, (int, float)) else ''}>{_cell(cell)}</td>"
            for cell in others
        )
        lines.append(f"<tr>{cells}</tr>")
    lines.append("</tbody></table></div>\n")
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return as_html(cell)
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.3f}"


def _card(card: Card, anchor: str, shown: Shown) -> str:
    badge = (
        f'<span class="badge {card.tone}">{_SYMBOLS[card.tone]}{as_html(card.status)}</span>'
        if card.status
        else ""
    )
    form = {0: ' class="text"', 1: ""}.get(len(card.images), ' class="several"')
    parts = [
        f'<article{form} aria-labelledby="{anchor}"><header>'
        f'<h3 id="{anchor}">{as_html(card.title)}</h3>{badge}</header>\n'
    ]
    if card.images:
        parts.append('<div class="panels">\n')
        parts += [_figure(panel, shown) for panel in card.images]
        parts.append("</div>\n")
    if card.lines:
        parts.append("<dl>\n")
        parts += [
            f"<dt>{as_html(label)}</dt><dd>{_text(text)}</dd>\n" for label, text in card.lines
        ]
        parts.append("</dl>\n")
    parts.append("</article>\n")
    return "".join(parts)


def _figure(panel: Panel, shown: Shown) -> str:
    drawing = draw_panel(panel, shown=shown)
    size = "" if drawing.image_wh is None else f"{drawing.image_wh[0]}×{drawing.image_wh[1]}"
    caption = " · ".join(part for part in (panel.caption, size) if part)
    parts = [f"<figure>{drawing.svg}<figcaption>"]
    if caption:
        parts.append(f"<span>{as_html(caption)}</span>")
    if panel.boxes:
        parts.append(f"<ul>{''.join(_legend(drawn) for drawn in panel.boxes)}</ul>")
    parts += [f'<span class="note">{as_html(note)}</span>' for note in drawing.notes]
    parts.append("</figcaption></figure>\n")
    return "".join(parts)


def _legend(drawn: DrawnBox) -> str:
    return (
        f"<li>{swatch(drawn.style)} {as_html(drawn.label)} "
        f"<code>{as_html(box_text(drawn.box))}</code></li>"
    )


def _text(text: str) -> str:
    """A text as it is written; a long one is folded behind its beginning."""
    if len(text) > _LONGEST_TEXT:
        left_out = len(text) - _LONGEST_TEXT
        text = f"{text[:_LONGEST_TEXT]} … ({left_out:,} more characters are not shown)"
    whole = f'<div class="text" dir="auto">{as_html(text)}</div>'
    if len(text) <= _FOLDED_FROM:
        return whole
    start = as_html(" ".join(text[:160].split()))
    return f"<details><summary>{start} … ({len(text):,} characters)</summary>{whole}</details>"


_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>TITLE</title>
<style>
:root { color-scheme: light dark; --back: #fbfbfa; --card: #fff; --text: #1c1c1a; --soft: #5c5c57;
 --line: #d9d9d4; --link: #00558c; --good: #005f46; --bad: #a33a00; --warn: #6b4e00; }
@media (prefers-color-scheme: dark) {
 :root { --back: #161615; --card: #20201e; --text: #ececea; --soft: #a9a9a3; --line: #3b3b38;
 --link: #7cc4f5; --good: #4fd3ab; --bad: #ff9d66; --warn: #f2c14e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text);
 font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 82rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
 border-top: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: .95rem; margin: 0; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .5rem 0; overflow-wrap: anywhere; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .5rem; }
nav ul { list-style: none; padding: 0; margin: 1rem 0; display: flex; flex-wrap: wrap;
 gap: .35rem 1.25rem; }
.count { font-weight: 400; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .75rem 0; font-size: .9rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top;
 border-bottom: 1px solid var(--line); }
tbody th { font-weight: 600; }
thead th { color: var(--soft); font-weight: 400; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.cards { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
 padding: .9rem; flex: 1 1 20rem; min-width: 0; max-width: 26rem; }
article.several, article.text { flex-basis: 100%; max-width: none; }
article header { display: flex; gap: .75rem; justify-content: space-between; align-items: baseline;
 margin-bottom: .6rem; }
.badge { flex: none; max-width: 60%; font-size: .8rem; font-weight: 600; color: var(--soft); }
.badge.good { color: var(--good); } .badge.bad { color: var(--bad); }
.badge.warn { color: var(--warn); }
.panels { display: flex; flex-wrap: wrap; gap: .75rem; }
figure { margin: 0; flex: 1 1 15rem; min-width: 0; max-width: 26rem; }
article.several figure { flex: 0 1 17rem; }
figure > svg { display: block; width: 100%; height: auto; }
figcaption { font-size: .8rem; color: var(--soft); margin-top: .3rem; overflow-wrap: anywhere; }
figcaption span { display: block; }
figcaption .note { color: var(--bad); }
figcaption ul { list-style: none; margin: 0; padding: 0; color: var(--text); }
figcaption code { color: var(--soft); }
dl { margin: .75rem 0 0; font-size: .9rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0 0 .5rem; }
dd .text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
summary { cursor: pointer; overflow-wrap: anywhere; }
.left-out, footer { color: var(--soft); font-size: .9rem; }
footer { margin-top: 3rem; }
</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<main id="main">
"""
