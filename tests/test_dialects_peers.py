"""What other libraries read of the same replies: the same boxes, or a difference of the page.

docs/peers.md lists every difference by what the reply has and what the peer reads of it: nothing,
an error, fewer or more boxes, others, or boxes that are not cut to the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_readers import MissingError, PeerError, Readers, read_as_glm
from peer_replies import CHANGES, FAMILIES, Box, Family, Reply, Size, changed, clipped

from univg_eval.answers import read_answer
from univg_eval.dialects import get_dialect

PAGE = Path(__file__).parent.parent / "docs" / "peers.md"
GEMINI_2 = ("gemini_2_0", "gemini_2_5", "gemini_3_5")
GEMINI_3 = ("gemini_3_6", "gemini_3_7")
# Peers by their names on the page.
NAMES = {
    "PaliGemma": ("paligemma",),
    "Florence-2": ("florence_2",),
    "Kosmos-2": ("kosmos_2",),
    "DeepSeek-VL2": ("deepseek_vl_2",),
    "Qwen": ("qwen_2_5_vl", "qwen_3_vl"),
    "Gemini": GEMINI_2 + GEMINI_3,
    "Gemini 2": GEMINI_2,
    "Gemini 3.6": GEMINI_3,
    "Moondream": ("moondream",),
    "GLM": tuple(form for form in FAMILIES if form.startswith("glm ")),
    "GLM brackets": tuple(
        form for form in FAMILIES if form.startswith("glm ") and "2d" not in form
    ),
    "GLM JSON": ("glm bbox_2d",),
    "all": tuple(FAMILIES),
    "all but Kosmos-2": tuple(form for form in FAMILIES if form != "kosmos_2"),
    "all but Moondream": tuple(form for form in FAMILIES if form != "moondream"),
}
KINDS = {"nothing", "an error", "fewer", "more", "others", "uncut"}


def _changes(cell: str) -> list[str]:
    """The changes of a row: "a, b", or "a + b/c" for a with b and a with c."""
    first, _, second = cell.partition(" + ")
    return [f"{first} + {name}" for name in second.split("/")] if second else first.split(", ")


def _differences() -> dict[tuple[str, str], str]:
    """What the page says that a peer reads of a changed reply, by form and change."""
    differences: dict[tuple[str, str], str] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and ":" in cells[1] and "--" not in cells[1]:
            for part in cells[1].split(";"):
                kind, names = part.strip().split(": ")
                for name, change in product(names.split(", "), _changes(cells[0])):
                    differences |= {(form, change): kind for form in NAMES[name]}
    return differences


DIFFERENCES = _differences()

# What a difference may come to where another change leaves fewer boxes.
BESIDES = {"fewer": ("nothing",), "others": ("nothing", "fewer", "more")}

# Scales of a peer that are not the family's, and how far its values may be off, in pixels.
SCALES = {"paligemma": 1024 / 1023}
ROUNDED = {"florence_2": 1.0, "florence_2 region": 0.501, "deepseek_vl_2": 1e-3}


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    readers = Readers()
    yield readers
    readers.close()


def read_by_peer(readers: Readers, form: str, text: str, wh: Size, input_wh: Size) -> list[Box]:
    """The peer's boxes on [0, 1] of the image and on the family's scale."""
    if form.startswith("glm "):
        return [tuple(value / 1000 for value in box) for box in read_as_glm(text)]
    try:
        boxes = readers.read(form, text, wh, input_wh)
    except MissingError as missing:
        pytest.skip(f"{missing}: pip install -e '.[eval,dev]'")
    scale = SCALES.get(form, 1.0)
    return [tuple(v / side * scale for v, side in zip(box, wh * 2, strict=True)) for box in boxes]


def read_by_univg(dialect: str, text: str, wh: Size, input_wh: Size) -> list[Box]:
    known = {"image_sizes": [wh], "input_sizes": [input_wh]}
    return list(read_answer(text, get_dialect(dialect), **known).boxes)


def kind_of(peer: list[Box], boxes: list[Box], form: str, wh: Size) -> str | None:
    """How a peer's boxes differ from these, as the page names it; None if they are the same."""
    pixels = ROUNDED.get(form, 1e-6)

    def same(a: Box, b: Box) -> bool:
        sides = wh * 2
        return all(abs(v - w) * side <= pixels for v, w, side in zip(a, b, sides, strict=True))

    def is_part(short: list[Box], long: list[Box]) -> bool:
        rest = iter(long)
        return all(any(same(box, other) for other in rest) for box in short)

    if len(peer) == len(boxes) and is_part(peer, boxes):
        return None
    if not peer:
        return "nothing"
    cut = [clipped(box) for box in peer]
    if len(cut) == len(boxes) and all(cut) and is_part([box for box in cut if box], boxes):
        return "uncut"
    if is_part(peer, boxes):
        return "fewer"
    return "more" if is_part(boxes, peer) else "others"


def difference(readers: Readers, form: str, reply: Reply, text: str) -> str | None:
    try:
        peer = read_by_peer(readers, form, text, reply.wh, reply.input_wh)
    except PeerError:
        return "an error"
    return kind_of(peer, FAMILIES[form].expected(reply), form, reply.wh)


def listed(form: str, names: Sequence[str]) -> dict[str, str]:
    """The differences of the page for these changes: of two together, else of each."""
    together = [
        name for name in map(" + ".join, permutations(names, 2)) if (form, name) in DIFFERENCES
    ]
    alone = [name for name in names if (form, name) in DIFFERENCES]
    return {name: DIFFERENCES[form, name] for name in together or alone}


def is_explained(kind: str | None, rows: dict[str, str]) -> bool:
    """Whether these rows of the page allow a difference, one row its kind alone."""
    if kind is None or len(rows) != 1:
        return kind is None or bool(rows)
    [row] = rows.values()
    return kind == row or kind in BESIDES.get(row, ())


def tried(form: str, reply: Reply, text: str) -> bool:
    """Whether the form allows this reply."""
    if (
        form == "florence_2"
    ):  # tokens without labels are one run, to which a number too many belongs
        return not (reply.more and reply.labels[0] is None)
    if form == "glm bbox_2d":
        return not reply.key
    if form != "moondream":
        return True
    try:  # what `detect` returns: the object for which the JSON stands
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and "objects" in value


# --- every change of one reply -------------------------------------------------------------------


def example_of(family: Family) -> Reply:
    boxes: Any = ((100, 200, 500, 600), (300, 100, 900, 800), (120, 310, 440, 980))
    if family.dialect == "kosmos2":
        boxes = ((33, 460), (100, 900), (70, 1000))
    elif family.largest == 1:
        boxes = tuple(tuple(value / 1000 for value in box) for box in boxes)
    return Reply(boxes=boxes[:2], labels=("cat", "dog"), spare=boxes[2])


def changed_examples(form: str) -> dict[str, tuple[tuple[str, ...], Reply]]:
    """Texts with no, one and two changes that make a difference to it: the changes and parts."""
    family = FAMILIES[form]
    found: dict[str, tuple[tuple[str, ...], Reply]] = {}
    for n in range(3):
        for names in permutations(CHANGES, n):
            reply = changed(example_of(family), names)
            text = family.render(reply)
            if tried(form, reply, text):
                found.setdefault(text, (names, reply))
    return found


@pytest.mark.parametrize("form", FAMILIES)
def test_one_and_two_changes(readers: Readers, form: str) -> None:
    family = FAMILIES[form]
    shown = set()
    for text, (names, reply) in changed_examples(form).items():
        boxes = read_by_univg(family.dialect, text, reply.wh, reply.input_wh)
        assert kind_of(boxes, family.expected(reply), "", (1, 1)) is None, (names, text)
        kind = difference(readers, form, reply, text)
        rows = listed(form, names)
        if len(names) < 2:
            assert kind == (rows[names[0]] if rows else None), (names, text)
        assert is_explained(kind, rows), (names, text)
        if kind and len(rows) == 1:
            shown |= set(rows)
    # A row that no reply shows is out of date.
    assert {change for other, change in DIFFERENCES if other == form} == shown


def test_the_page_names_kinds_that_there_are() -> None:
    assert set(DIFFERENCES.values()) == KINDS


# --- generated replies ---------------------------------------------------------------------------


@st.composite
def replies(draw: st.DrawFn, family: Family) -> Reply:
    def box() -> Box:
        if family.dialect == "kosmos2":
            (row1, row2), (column1, column2) = (sorted(draw(PAIR_OF_CELLS)) for _ in range(2))
            return (row1 * 32 + column1, row2 * 32 + column2)
        largest = int(family.largest) if family.largest > 1 else 1000
        number = st.integers(0, largest)
        if family.decimals:
            number |= st.integers(0, 10 * largest).map(lambda tenths: tenths / 10)
        pair = st.lists(number, min_size=2, max_size=2, unique=True).map(sorted)
        (x1, x2), (y1, y2) = draw(pair), draw(pair)
        values = (x1, y1, x2, y2)
        return values if family.largest > 1 else tuple(value / largest for value in values)

    n = draw(st.integers(2, 4))
    return Reply(
        boxes=tuple(box() for _ in range(n)),
        labels=tuple(draw(LABELS) for _ in range(n)),
        wh=draw(SIZES),
        input_wh=(draw(st.integers(1000, 1400)), draw(st.integers(1000, 1400))),
        spare=box(),
    )


PAIR_OF_CELLS = st.tuples(st.integers(0, 31), st.integers(0, 31))
LABELS = st.sampled_from(["cat", "the red cup", "black-cat", "man in a 2nd row", "vélo", "T_1"])
SIZES = st.tuples(st.integers(1000, 4000), st.integers(1000, 4000))


@pytest.mark.parametrize("form", FAMILIES)
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_generated_boxes(readers: Readers, form: str, data: st.DataObject) -> None:
    family = FAMILIES[form]
    names = data.draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=2, unique=True))
    reply = changed(data.draw(replies(family)), names)
    text = family.render(reply)
    if not tried(form, reply, text):
        return
    boxes = read_by_univg(family.dialect, text, reply.wh, reply.input_wh)
    assert kind_of(boxes, family.expected(reply), "", (1, 1)) is None, text
    assert is_explained(difference(readers, form, reply, text), listed(form, names)), (names, text)


# --- the strings of the peers' own tests ---------------------------------------------------------

P4 = "<loc0256><loc0256><loc0768><loc0768>"
QUAD = "<loc_100><loc_100><loc_200><loc_100><loc_200><loc_200><loc_100><loc_200>"
CAT = '{"box_2d": [10, 20, 110, 120], "label": "cat"}'
DOG = '{"box_2d": [50, 100, 150, 200], "label": "dog"}'
UNLABELLED = (
    '[{"bbox_2d": [10, 10, 100, 100]}, {"label": "x"}, {"bbox_2d": [5, 6, 11, 12], "a": 0}]'
)
# Form, text, and how the peer differs; None: it reads the same.
OWN = [
    ("paligemma", "\n", None),
    ("paligemma", "the quick brown fox jumps over the lazy dog.", None),
    ("paligemma", "<loc0256><loc0768><loc0768> cat", None),
    ("paligemma", f"{P4}<loc0768> cat", None),
    ("paligemma", P4, "nothing"),
    ("paligemma", f"{P4} black-cat", None),
    ("paligemma", f"{P4} black_cat", None),
    ("paligemma", f"{P4} cat ;", None),
    ("paligemma", f"{P4} cat ; {P4} dog", None),
    ("paligemma", f"{P4} cat ; <loc0256><loc0256><loc0768> cat", None),
    ("paligemma", f"{P4} cat ; {P4}<loc0768> cat", None),
    ("qwen_2_5_vl", "some random text without triple backticks", None),
    ("qwen_2_5_vl", "```json\nnot valid json\n```", None),
    ("qwen_2_5_vl", "```json\n[]\n```", None),
    ("qwen_2_5_vl", f"```json\n{UNLABELLED}\n```", "nothing"),
    ("qwen_2_5_vl", '```json\n[{"bbox_2d": [10, 20, 110, 120], "label": "cat"}]\n```', None),
    ("qwen_2_5_vl", '```json\n[{"bbox_2d": [-10, 0, 700, 700], "label": "dog"}]\n```', "uncut"),
    ("qwen_2_5_vl", "[\n{'bbox_2d': [10, 20, 110, 120], 'label': 'cat'}\n]", None),
    (
        "qwen_2_5_vl",
        '```json\n[{"bbox_2d": [0, 0, 64, 64], "label": "dog"},\n'
        '{"bbox_2d": [30, 40, 130, 140], "label":\n',
        "fewer",
    ),
    ("qwen_3_vl", '```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]\n```', None),
    ("gemini_2_0", "```json\ninvalid json\n```", None),
    ("gemini_2_0", "```json\n[]\n```", None),
    ("gemini_2_5", f"```json\n[{CAT},\n{DOG}]\n```", None),
    ("gemini_3_6", f'{{"boxes": [{CAT}, {DOG}]}}', None),
    ("gemini_3_7", f'```json\n{{"boxes": [{CAT}]}}\n```', None),
    ("moondream", "{}", None),
    ("moondream", '{"objects": []}', None),
    ("moondream", '{"objects": "not a list"}', None),
    ("moondream", '{"objects": [{"x_min": 0.0, "y_min": 0.0, "x_max": 1.0, "y_max": 1.0}]}', None),
    (
        "moondream",
        '{"objects": [{"x_min": 0.1, "y_min": 0.2},'
        ' {"x_min": 0.5, "y_min": 0.6, "x_max": 0.7, "y_max": 0.8}]}',
        None,
    ),
    (
        "deepseek_vl_2",
        "<|ref|>The giraffe at the back<|/ref|><|det|>[[580, 270, 999, 904]]<|/det|><|ref|>The "
        "giraffe at the front<|/ref|><|det|>[[26, 31, 632, 998]]<|/det|><|end▁of▁sentence|>",
        None,
    ),
    ("florence_2 region", "No object detected.", None),
    ("florence_2 region", "some object<loc_300><loc_400><loc_500><loc_600>", None),
    ("florence_2", "<s>Hello world</s>", None),
    (
        "florence_2",
        "</s><s>car<loc_53><loc_334><loc_933><loc_775>door handle<loc_425><loc_504><loc_474>"
        "<loc_516></s><pad>",
        None,
    ),
    (
        "florence_2",
        "</s><s>red car<loc_53><loc_334><loc_933><loc_775><loc_711><loc_203><loc_906><loc_546>sky"
        "<loc_0><loc_0><loc_1000><loc_300></s>",
        None,
    ),
    ("florence_2", f"</s><s>Hello{QUAD}World{QUAD}</s>", "more"),  # quadrilaterals, no boxes
    (
        "kosmos_2",
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044>"
        "<patch_index_0863></object> warming himself by<phrase> a fire</phrase><object>"
        "<patch_index_0005><patch_index_0911></object>.",
        None,
    ),
    (
        "kosmos_2",
        "<grounding><phrase> Two puppies</phrase><object><patch_index_0079><patch_index_1016>"
        "</delimiter_of_multi_objects/><patch_index_0135><patch_index_1008></object> sit in grass.",
        None,
    ),
    (
        "kosmos_2",
        "<grounding> <phrase> Two puppies </phrase> <object> <patch_index_0079> <patch_index_1016> "
        "</delimiter_of_multi_objects/> <patch_index_0135> <patch_index_1008> </object> sit.",
        "nothing",
    ),
    ("glm [[", "<|begin_of_box|>[[503,580,718,702]]<|end_of_box|>", None),
    ("glm [[", "<|begin_of_box|>[[38,115,961,140],[40,210,955,260]]<|end_of_box|>", None),
    ("glm {", "Two apples {{10, 20, 30, 40}, {50,60,70,80}}", None),
]


@pytest.mark.parametrize(("form", "text", "kind"), OWN)
def test_strings_of_the_peers_own_tests(
    readers: Readers, form: str, text: str, kind: str | None
) -> None:
    family = FAMILIES[form.removesuffix(" region")]
    wh, input_wh = (1000, 1000), (640, 640)
    boxes = read_by_univg(family.dialect, text, wh, input_wh)
    peer = read_by_peer(readers, form, text, wh, input_wh)
    assert kind_of(peer, boxes, form, wh) == kind


# --- what UniVG writes ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", FAMILIES)
@given(data=st.data())
@settings(max_examples=10, deadline=None, derandomize=True)
def test_peers_read_what_a_dialect_writes(readers: Readers, form: str, data: st.DataObject) -> None:
    """To a step of the family's scale; through the family's own label."""
    dialect = get_dialect(FAMILIES[form].dialect)
    tenths = st.lists(st.integers(0, 10), min_size=2, max_size=2, unique=True).map(sorted)
    (x1, x2), (y1, y2) = data.draw(tenths), data.draw(tenths)
    box = (x1 / 10, y1 / 10, x2 / 10, y2 / 10)
    wh, input_wh = data.draw(SIZES), data.draw(SIZES)
    text = dialect.encode(box, image_wh=wh, input_wh=input_wh, label="cat")
    if FAMILIES[form].json:
        text = {"boxes": f'{{"boxes": [{text}]}}', "list": f"[{text}]"}.get(
            FAMILIES[form].layout, text
        )
    [read] = read_by_peer(readers, form, text, wh, input_wh)
    steps = {"kosmos2": (32, 32), "qwen2_5_vl": input_wh}.get(dialect.name, (999, 999))
    for value, known, step, side in zip(read, box, steps * 2, wh * 2, strict=True):
        assert abs(value - known) <= 1.001 / step + ROUNDED.get(form, 0) / side, text
