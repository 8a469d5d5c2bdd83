"""Pages of cards: foreign text stays text, nothing is loaded from elsewhere, boxes are painted."""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from disks import largest_file
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_data import contrast

from univg_eval.errors import UserError
from univg_eval.report import Card, DrawnBox, Page, Panel, Section, draw_boxes, write_page
from univg_eval.report import page as page_module
from univg_eval.report.drawing import (
    _STYLES,
    DENSITY,
    VIEW_SIDE,
    Drawing,
    _labels,
    _placed,
    draw_panel,
)
from univg_eval.report.page import asset, templates
from univg_eval.report.text import printable

NASTY = [
    "</style></head></script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- never closed",
    "]]>&lt;b&gt;&amp;amp;&#60;i&#62;",
    "<|box_start|>(1,2),(3,4)<|box_end|> <answer>",
    "{{ 7 * 7 }}{% raw %}",
]
PLAIN = Image.new("RGB", (200, 100), "#336699")
STYLES = ("truth", "answer", "faulty", "mark")


class Reader(HTMLParser):
    """What a browser would take from a page: its elements, and the text in them."""

    VOID = frozenset({"meta", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice: <{tag} {attrs}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page_of(text: str) -> Page:
    """A page with the text in every place that takes one."""
    box = DrawnBox((0.1, 0.1, 0.5, 0.5), text)
    lines = [(text, text), ("long", text * 100)]
    panels = [Panel(PLAIN, [box], text)]
    card = Card(text, panels, lines, status=text, tone="bad", groups={text: [text]})
    missing = [Panel(f"/none/{text}.png", caption=text)]
    cards = [card, Card(text, missing, groups={text: [text, "second"]})]
    section = Section(title=text, text=text, head=[text], rows=[[text, 1]], cards=cards)
    return Page(
        title=text,
        lead=text,
        summary_head=[text],
        summary_rows=[[text, text, 3, 0.25]],
        sections=[section, Section(title="second")],
        footer=text,
        verdict=text,
    )


def test_progress_counts_the_images_of_a_page():
    seen: list[tuple[int, int]] = []
    page = page_of("plain")
    assert "".join(page.chunks(lambda *done: seen.append(done))) == page.render()
    assert seen == [(0, 2), (1, 2)]


@pytest.mark.parametrize("text", NASTY)
def test_foreign_text_is_shown_and_never_obeyed(text):
    plain, page = (Reader(page_of(shown).render()) for shown in ("plain", text))
    tags, expected = (
        [tag for tag, _ in one.elements if tag not in {"details", "summary"}]  # those by length
        for one in (page, plain)
    )
    assert tags == expected and tags.count("script") == 1
    assert page.text.count(text) >= 12


@given(st.text(max_size=40))
def test_any_text_comes_back_from_a_template(text):
    filled = templates().from_string("<p title='x{{ text }}'>{{ text }}</p>").render(text=text)
    read = Reader(filled)
    assert read.text == printable(text)
    assert read.all("p")[0]["title"] == "x" + printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb\rc", "a\nb\\x0dc"),
        ("\x00\x1b[31m\x7f\x85", "\\x00\\x1b[31m\\x7f\\x85"),
        ("half \ud83d of a pair", "half \\ud83d of a pair"),
        ("\u202eturned\u2066\uffff", "\\u202eturned\\u2066\\uffff"),
        ("שלום 日本 é 😀", "שלום 日本 é 😀"),
    ],
)
def test_what_would_break_or_disguise_a_text_is_seen(text, shown):
    assert printable(text) == shown
    page_of(text).render().encode("utf-8")


def test_nothing_is_loaded_from_elsewhere_and_nothing_else_runs():
    text = page_of("plain").render()
    reader = Reader(text)
    for tag, attributes in reader.elements:
        assert tag not in {"link", "iframe", "object", "embed", "form", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on") and name != "style", (tag, name)
            if name in {"href", "src", "action", "srcset"}:
                assert value.startswith("#" if tag == "a" else "data:image/"), (tag, value)
    assert not re.search(r"url\(|@import", asset("report.css"))
    policy = next(m for m in reader.all("meta") if m.get("http-equiv"))["content"]
    for tag in ("style", "script"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert f"{tag}-src {page_module._source_expression(body)};" in html.unescape(policy)
    assert policy.startswith("default-src 'none'; img-src data:; ")


def test_the_page_can_be_read_without_eyes_and_without_a_mouse():
    reader = Reader(page_of("plain").render())
    assert reader.elements[0] == ("html", {"lang": "en"})
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for link in reader.all("a"):
        assert link["href"][1:] in ids
    for _, attributes in reader.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
    headings = [int(tag[1]) for tag, _ in reader.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))
    first, second = reader.all("img")
    assert first["alt"] == "plain; plain [0.1, 0.1, 0.5, 0.5]"
    assert second["alt"].startswith("plain; ") and "does not exist" in second["alt"]
    assert {head["scope"] for head in reader.all("th")} == {"col", "row"}


def test_colours_can_be_read():
    pairs = re.findall(r"--(\w+): light-dark\((#\w+), (#\w+)\)", asset("report.css"))
    colors = {name: pair for name, *pair in pairs}
    for name in ("text", "soft", "link", "good", "bad", "warn"):
        for text, back, card in zip(colors[name], colors["back"], colors["card"], strict=True):
            assert min(contrast(text, back), contrast(text, card)) >= 4.5, name
    # Kinds of boxes differ in more than colour.
    assert all(contrast(style.line, style.text) >= 4.5 for style in _STYLES.values())
    assert len({style.dashes for style in _STYLES.values()}) == 4


def on_page(found: Drawing) -> tuple[int, int]:
    """Size of a drawing in pixels of the page."""
    return (found.image.width // DENSITY, found.image.height // DENSITY)


@pytest.mark.parametrize(
    ("box", "size", "note"),
    [
        ((0.25, 0.1, 0.75, 0.6), (240, 120), ""),
        ((0.5, 0.2, 0.1, 0.6), (240, 120), "x1 is greater than x2"),
        ((0.1, 0.6, 0.5, 0.2), (240, 120), "y1 is greater than y2"),
        ((0.3, 0.2, 0.3, 0.6), (240, 120), "x1 equals x2"),
        ((0.3, 0.2, 1.1, 0.6), (264, 120), "reaches outside"),
        ((-0.1, 0.2, 0.5, 0.6), (264, 120), "reaches outside"),
        ((0.3, -0.1, 0.5, 1.2), (240, 156), "reaches outside"),
        ((-9.0, -9.0, 9.0, 9.0), (360, 180), "only as far as the view goes"),
        ((float("nan"), 0, 1, 1), (240, 120), "not drawn"),
    ],
)
def test_what_is_wrong_with_a_box_is_said_and_it_is_drawn_as_it_is_given(box, size, note):
    found = draw_panel(Panel(PLAIN, [DrawnBox(box, "truth", "faulty")]))
    assert found.image_wh == (200, 100) and on_page(found) == size
    assert len(found.notes) == bool(note)
    assert all(note in text and text.startswith("truth: ") for text in found.notes)


@pytest.mark.parametrize("style", STYLES)
def test_a_box_is_painted_where_it_is(style):
    source = Image.new("RGB", (400, 300), "#000000")
    painted = draw_boxes(source, [DrawnBox((0.25, 0.2, 0.75, 0.8), "name", style)])
    assert painted.size == (400, 300)
    assert source.getextrema() == ((0, 0), (0, 0), (0, 0))
    pixels = np.asarray(painted)
    assert not pixels[70:200, 110:290].any()  # nothing inside the box
    assert not pixels[:, :90].any() and not pixels[:, 310:].any()  # nothing far outside
    for line in (pixels[100:200, 100], pixels[100:200, 300], pixels[60, 150:250]):
        assert line.any(axis=1).all()


@given(
    st.lists(
        st.tuples(*(st.floats(-0.5, 1.5) for _ in range(4)), st.sampled_from(STYLES)),
        min_size=1,
        max_size=5,
    )
)
def test_labels_stay_in_the_view(boxes):
    drawn = [DrawnBox(tuple(box), f"box {i}", style) for i, (*box, style) in enumerate(boxes)]
    placed = [_placed(one.box, 300, 400) for one in drawn]
    places = _labels(drawn, placed, (300, 400), lambda text: 7.0 * len(text))
    assert len(places) == len(boxes)
    for _, (x, y, width) in places:
        assert x >= 0 and x + width <= 300
        assert 0 <= y <= 400 - 16


def test_labels_of_one_place_do_not_cover_each_other():
    box = DrawnBox((0.2, 0.4, 0.6, 0.8), "box", "truth")
    places = _labels([box] * 4, [_placed(box.box, 300, 400)] * 4, (300, 400), lambda _: 40.0)
    tops = sorted(y for _, (_, y, _) in places)
    assert all(b - a >= 16 for a, b in itertools.pairwise(tops))


@pytest.mark.parametrize("size", [(1, 1), (4000, 3), (3, 4000)])
def test_odd_shapes_are_drawn(size):
    found = draw_panel(Panel(Image.new("RGB", size), [DrawnBox((0, 0, 1, 1), "all")]))
    assert found.image_wh == size
    assert 240 <= max(on_page(found)) <= VIEW_SIDE


def test_images_of_a_page_are_bounded_and_drawings_keep_their_colours():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 1500, 3), np.uint8))
    drawing = Image.new("RGB", (300, 240), "#ff0000")
    cards = [Card("c", [Panel(noise), Panel(drawing)])]
    reader = Reader(Page("t", sections=[Section("s", cards=cards)]).render())
    data = [img["src"].removeprefix("data:image/webp;base64,") for img in reader.all("img")]
    files = [base64.b64decode(text) for text in data]
    shown = [Image.open(io.BytesIO(file)) for file in files]
    assert [image.size for image in shown] == [(800, 480), (600, 480)]
    sizes = [(img["width"], img["height"]) for img in reader.all("img")]
    assert sizes == [("400", "240"), ("300", "240")]  # two pixels for one of the page
    assert len(files[0]) < 300_000
    assert shown[1].convert("RGB").getcolors() == [(600 * 480, (255, 0, 0))]


def test_an_image_that_cannot_be_opened(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for name, note in (("none.png", "does not exist"), ("text.png", "damaged")):
        path = tmp_path / name
        found = draw_panel(Panel(path, [DrawnBox((0, 0, 1, 1), "truth")], size=(300, 100)))
        assert found.image_wh is None and on_page(found) == (400, 133)
        assert note in found.notes[0] and str(path) in found.notes[0]
    assert draw_panel(Panel(None)).notes == ("there is no image",)


def test_an_image_is_shown_upright_or_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "x.jpg", exif=exif)
    assert draw_panel(Panel(tmp_path / "x.jpg")).image_wh == (40, 60)
    assert draw_panel(Panel(tmp_path / "x.jpg", as_stored=True)).image_wh == (60, 40)


def test_numbers_counts_tones_and_long_texts():
    tones = [Card("c", status="word", tone=tone) for tone in ("good", "bad", "warn")]
    sections = [
        Section("many", cards=[Card("c", lines=[("answer", "x" * 30_000)])], left_out=1999),
        Section("table alone", head=["h"], rows=[["r"]]),
        Section("examples", cards=[Card("e"), *tones], n=0),
    ]
    text = Page("t", summary_rows=[["a", 12345, 0.5, "text"]], sections=sections).render()
    assert '<td class="number">12,345</td><td class="number">0.500</td><td>text</td>' in text
    assert "many <span" in text and ">2,000</span>" in text
    assert "1,999 more are not shown here." in text
    assert "table alone</h2>" in text and "examples</h2>" in text
    assert "x" * 20_000 + " … (10,000 more characters are not shown)" in text
    assert "<details><summary>" in text
    assert all(f"{sign} word" in text for sign in "✓✗!")


def test_a_page_appears_only_when_whole(tmp_path):
    def broken():
        yield "half"
        raise ZeroDivisionError

    path = tmp_path / "new" / "page.html"
    assert write_page(page_of("é 😀"), path) == path
    whole = path.read_text(encoding="utf-8")
    assert whole.startswith("<!DOCTYPE html>") and whole.rstrip().endswith("</html>")
    with pytest.raises(ZeroDivisionError):
        write_page(broken(), path)
    assert path.read_text(encoding="utf-8") == whole
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "page.html", tmp_path):
        with pytest.raises(UserError, match="cannot write the page"):
            write_page(Page("t"), path)
    with largest_file(64), pytest.raises(UserError, match="free space, or give a file"):
        write_page(Page("t"), tmp_path / "page.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "new"]


def test_without_jinja2_the_install_command_is_named(monkeypatch):
    templates.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match=re.escape("pip install -e '.[report]'")):
        Page("t").render()
