"""Bring your own: the JSON Lines form and its faults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from factories import write_clip
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from univg_eval.benchmarks.readers.common.release import ItemError, Release
from univg_eval.benchmarks.readers.custom import SPACES, entry_of_set, open_custom, to_xyxy_norm
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample
from univg_eval.scoring import score_sample

PIXELS = {"space": "pixels"}
ROW = {"images": "a.png", "instruction": "Find it.", "box": [10, 20, 30, 40]}
BARE = {"images": "a.png", "instruction": "Find it."}
BOTH = {"images": ["a.png", "b.png"], "instruction": "Find it."}
PAIR = BOTH | {"box": [10, 20, 30, 40]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png 200x100, b.png 50x80, one photograph that lies on its side (shown as 30x60)."""
    Image.new("RGB", (200, 100), "red").save(tmp_path / "a.png")
    Image.new("RGB", (50, 80), "blue").save(tmp_path / "b.png")
    (tmp_path / "deep").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 30)).save(tmp_path / "deep" / "turned.jpg", exif=exif)
    return tmp_path


def write(folder: Path, *rows: Any, name: str = "my.jsonl") -> Path:
    path = folder / name
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows),
        encoding="utf-8",
    )
    return path


def convert(release: Release) -> list[GroundingSample]:
    return [sample for item in release.items for sample in item.convert()]


def only(folder: Path, row: dict[str, Any], *, header: Any = PIXELS) -> GroundingSample:
    (sample,) = convert(open_custom(write(folder, header, row)))
    return sample


# What a row becomes


def test_one_image_one_box(folder):
    sample = only(folder, ROW)
    assert sample.id == "custom-00000"
    assert (sample.benchmark, sample.task, sample.split) == ("custom", "custom", "test")
    assert (sample.images, sample.image_sizes) == (("custom/images/a.png",), [(200, 100)])
    assert sample.instruction == "Find it."
    assert sample.target_image == 0
    assert sample.box == pytest.approx((0.05, 0.2, 0.15, 0.4))
    assert sample.image_is_given
    assert sample.source == {"file": "my.jsonl", "revision": "own", "row": 0, "images": ["a.png"]}
    # The paths of a machine are not part of the data.
    assert only(folder, ROW | {"images": f"{folder.resolve()}/a.png"}).source == sample.source


@pytest.mark.parametrize(
    ("space", "box"),
    [
        ("pixels", [100, 25, 200, 50]),
        ("norm1", [0.5, 0.25, 1, 0.5]),
        ("norm1000", [500, 250, 1000, 500]),
    ],
)
def test_a_row_states_its_own_space(folder, space, box):
    other = {"space": "norm1" if space != "norm1" else "pixels"}
    sample = only(folder, ROW | {"box": box, "space": space}, header=other)
    assert sample.box == (0.5, 0.25, 1.0, 0.5)
    assert sample.extra["space"] == space


@pytest.mark.parametrize(
    ("change", "image"),
    [
        ({"target_image": 2}, 1),
        ({"target_image": 2, "box": None}, 1),  # nothing is there, and the instruction names it
        ({"box": None}, None),
        ({"target_image": 2, "find_image": True}, None),
        ({"box": {"image": 1, "box": [1, 2, 3, 4]}}, None),
    ],
)
def test_the_image_that_the_instruction_names_is_stated(folder, change, image):
    sample = only(folder, PAIR | change)
    assert (sample.given_image, sample.image_is_given) == (image, image is not None)


FIRST, SECOND = ({"image": image, "box": [1, 2, 30, 40]} for image in (1, 2))


@pytest.mark.parametrize("text", ["Image-1: [10, 25, 300, 500]", "Image-1: none", "None.", "[]"])
def test_where_the_objects_are_never_changes_what_is_read(folder, text):
    """One instruction about two images; the cup is on the first, the second, both or neither."""
    found = set()
    for boxes in ([FIRST], [SECOND], [FIRST, SECOND], []):
        score = score_sample(only(folder, BOTH | {"boxes": boxes}), text, "norm1000")
        found.add((score.status, score.box, score.image_index))
    assert len(found) == 1


def test_target_image_counts_from_one(folder):
    first = only(folder, PAIR | {"target_image": 1})
    second = only(folder, PAIR | {"target_image": 2})
    assert (first.target_image, second.target_image) == (0, 1)
    assert first.box == pytest.approx((0.05, 0.2, 0.15, 0.4))
    assert second.box == pytest.approx((0.2, 0.25, 0.6, 0.5))
    assert second.image_is_given

    searched = only(folder, PAIR | {"target_image": 2, "find_image": True})
    assert (searched.image_is_given, searched.target_image) == (False, 1)


@pytest.mark.parametrize("nothing", [{"box": None}, {"boxes": []}])
def test_nothing_to_find(folder, nothing):
    sample = only(folder, BOTH | nothing)
    assert sample.targets == ()
    assert not sample.image_is_given
    (alone,) = convert(open_custom(write(folder, BOTH | nothing)))  # no box, so no space is needed
    assert alone.targets == ()


def test_several_boxes_on_one_image_and_on_several(folder):
    boxes = [[0, 0, 25, 40], [25, 40, 50, 80]]
    sample = only(folder, BOTH | {"target_image": 2, "boxes": boxes})
    assert [target.image for target in sample.targets] == [1, 1]
    assert [target.box for target in sample.targets] == [(0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)]
    assert sample.image_is_given
    boxes = [{"image": 2, "box": [0, 0, 25, 40]}, {"image": 1, "box": [0, 0, 100, 50]}]
    sample = only(folder, BOTH | {"boxes": boxes})
    assert [target.image for target in sample.targets] == [1, 0]
    assert {target.box for target in sample.targets} == {(0, 0, 0.5, 0.5)}
    # No single image is given: a box counts for the image that its label names.
    assert not sample.image_is_given


def test_a_box_is_of_the_image_as_displayed(folder):
    sample = only(folder, ROW | {"images": "deep/turned.jpg", "box": [15, 30, 30, 60]})
    assert sample.image_sizes == [(30, 60)]
    assert sample.box == (0.5, 0.5, 1.0, 1.0)


def test_group_own_columns_and_ids(folder):
    rows = [
        ROW | {"id": "kitchen 1", "group": "kitchen", "extra": {"room": 3}},
        ROW | {"id": "ä/2", "group": "hall.2-b"},
    ]
    samples = convert(open_custom(write(folder, PIXELS, *rows)))
    assert [sample.id for sample in samples] == ["kitchen 1", "ä/2"]
    assert [sample.task for sample in samples] == ["kitchen", "hall.2-b"]
    assert samples[0].extra == {"expression": "Find it.", "space": "pixels", "own": {"room": 3}}


def test_rows_are_numbered_without_the_header_and_blank_lines(folder):
    path = write(folder, "", PIXELS, "", ROW, "   ", ROW)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    samples = convert(open_custom(path))
    assert [sample.id for sample in samples] == ["custom-00000", "custom-00001"]


def test_clusters_follow_shared_files(folder):
    rows = [
        ROW,
        ROW | {"images": "b.png"},
        ROW | {"images": "deep/turned.jpg"},
        ROW | {"images": ["./b.png", f"{folder}/a.png"], "target_image": 1},
    ]
    release = open_custom(write(folder, PIXELS, *rows))
    assert [sample.cluster for sample in convert(release)] == [
        *("custom-00000", "custom-00000", "custom-00002", "custom-00000"),
    ]
    write_clip(folder / "clip.mp4")
    clips = ["clip.mp4#frame=0", "clip.mp4#frame=12"]
    rows = [ROW | {"images": clip, "box": [0, 0, 8, 8]} for clip in clips]
    samples = convert(open_custom(write(folder, PIXELS, *rows)))
    assert {sample.cluster for sample in samples} == {"custom-00000"}
    assert samples[1].images == ("custom/images/clip.mp4#frame=12",)
    assert samples[1].image_sizes == [(64, 48)]


def test_an_image_folder_elsewhere(folder, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("lists"), PIXELS, ROW)
    release = open_custom(path, images=folder)
    assert release.links == {"images": folder.resolve()}
    assert convert(release)[0].images == ("custom/images/a.png",)
    with pytest.raises(ItemError, match=r"'a\.png' is not in .*--images"):
        convert(open_custom(path))
    with pytest.raises(UserError, match=r"image folder .* does not exist"):
        open_custom(path, images=folder / "nowhere")


# Faults of a row: each names the line and the field, and leaves the other rows alone


def raw(fields: str) -> str:
    """A line that `json.dumps` would not write."""
    return f'{{"images": "a.png", "instruction": "x", {fields}}}'


FAULTS: list[tuple[str, Any, str]] = [
    ("no JSON", "{nope", "not JSON"),
    ("endless", "[" + "1," * 2**21 + "1]", "more than 4 MiB, the most that is read"),
    ("no object", [1, 2], r"is \[1, 2\]; expected a JSON object"),
    ("NaN", raw('"box": [NaN, 1, 2, 3]'), "NaN is no JSON"),
    ("doubled", raw('"box": null, "box": [1]'), "duplicate key 'box'"),
    ("elsewhere", ROW | {"bbox": 1}, r"'bbox' is not known \(did you mean 'box'\?\)"),
    ("typo", ROW | {"traget_image": 1}, "did you mean 'target_image'"),
    ("question", ROW | {"question": "x"}, "did you mean 'instruction'"),
    ("unknown", ROW | {"colour": 1}, "'colour' is not known; known are"),
    ("no images", {"instruction": "x", "box": None}, "'images' is missing"),
    ("empty images", ROW | {"images": []}, r"'images' is \[\]"),
    ("odd images", ROW | {"images": [3]}, r"'images' is \[3\]"),
    ("no instruction", {"images": "a.png", "box": None}, "'instruction' is missing"),
    ("blank instruction", ROW | {"instruction": "  "}, "'instruction' is '  '"),
    ("infinite", raw('"box": null, "extra": {"a": 1e999}'), "Out of range float"),
    ("surrogate", ROW | {"extra": {"a": "\udc00"}}, "surrogate"),
    ("missing file", ROW | {"images": "c.png"}, r"'c\.png' is not in .* --images$"),
    ("of Windows", ROW | {"images": "sub\\a.png"}, r"is not in .* divided by '/'"),
    ("long name", ROW | {"images": "c" * 5000}, "is not in"),
    ("outside", ROW | {"images": "../a.png"}, "does not lie below"),
    ("absolute", ROW | {"images": "/etc/hostname"}, "does not lie below"),
    ("odd frame", ROW | {"images": "clip.mp4#frame=two"}, "'two' is not a whole number"),
    ("no image", ROW | {"images": "my.jsonl"}, r"my\.jsonl as an image"),
    ("no video", ROW | {"images": "a.png#frame=99"}, "frame"),
    ("a space in between", {"space": "pixels"}, "only the first line can"),
    ("odd space", ROW | {"space": "Pixels"}, "'space' is 'Pixels'; expected one of"),
    ("no box", BARE, "has neither of 'box' and 'boxes'"),
    ("both", ROW | {"boxes": []}, "has both of 'box' and 'boxes'"),
    ("nested", ROW | {"box": [[1, 2, 3, 4]]}, "'box' holds boxes"),
    ("no boxes", BARE | {"boxes": None}, r"'boxes' is None; expected a list .* \[\] if"),
    ("flat boxes", BARE | {"boxes": [1, 2, 3, 4]}, "'boxes' is"),
    ("odd target", BARE | {"boxes": [{"box": [1, 2, 3, 4], "img": 1}]}, r"boxes\[0\] is .* img"),
    ("no numbers", ROW | {"box": []}, r"box is \[\]; expected four numbers .* box is null"),
    ("three", ROW | {"box": [1, 2, 3]}, r"box is \[1, 2, 3\]; expected four numbers"),
    ("texts", ROW | {"box": ["1", 2, 3, 4]}, "expected four numbers"),
    ("too wide", ROW | {"box": [0, 0, 200.6, 40]}, r"x2 = 200\.6 lies outside 0 to 200 .*200x100"),
    ("0-1000 as pixels", ROW | {"box": [5, 5, 210, 40]}, "x2 = 210 lies .* on 0-1000"),
    ("negative", ROW | {"box": [0, -1, 20, 40]}, "y1 = -1 lies outside"),
    ("0-1 as pixels", ROW | {"box": [0.1, 0.2, 0.3, 0.4]}, "numbers on 0-1 have the space 'norm1'"),
    ("pixels as 0-1", ROW | {"space": "norm1"}, "x1 = 10 lies outside 0 to 1 .* space 'pixels'"),
    ("width, height", ROW | {"box": [100, 50, 40, 30]}, r"x2 is not larger than x1.*x \+ width"),
    ("flat", ROW | {"box": [10, 20, 30, 20]}, "y2 is not larger than y1"),
    ("border", ROW | {"box": [200.1, 20, 200.4, 40]}, "x2 is not larger than x1"),
    ("which image", PAIR, "one of 2 images, .* expected 'target_image'"),
    ("image 0", PAIR | {"target_image": 0}, "expected 1 to 2. Images count from 1"),
    ("image true", PAIR | {"target_image": True}, "target image is True"),
    ("image of nothing", BOTH | {"box": None, "target_image": 5}, "image is 5; expected 1 to 2"),
    (
        "image twice",
        BOTH | {"target_image": 1, "boxes": [{"image": 2, "box": [1, 2, 3, 4]}]},
        "and so does 'target_image'",
    ),
    ("search of one", ROW | {"find_image": True}, "one image only"),
    ("odd search", PAIR | {"target_image": 1, "find_image": "yes"}, "'find_image' is 'yes'"),
    ("odd group", ROW | {"group": "a b"}, "'group' is 'a b'"),
    ("odd extra", ROW | {"extra": [1]}, r"'extra' is \[1\]"),
]


@pytest.mark.parametrize(("row", "message"), [pytest.param(*f[1:], id=f[0]) for f in FAULTS])
def test_a_faulty_row_is_named_and_the_others_are_kept(folder, row, message):
    release = open_custom(write(folder, PIXELS, ROW, row, ROW))
    good, bad, last = release.items
    assert good.convert()[0].id == "custom-00000"
    assert last.convert()[0].id == "custom-00002"
    with pytest.raises(ItemError, match=message) as caught:
        bad.convert()
    assert re.match(r"my\.jsonl:3: ", str(caught.value))
    assert bad.key == "line-3"


@pytest.mark.parametrize(
    ("images", "kind"),
    [("c.png", "missing_image"), ("my.jsonl", "unreadable_image"), ("../a.png", "invalid_row")],
)
def test_faults_have_their_kind(folder, images, kind):
    (item,) = open_custom(write(folder, PIXELS, ROW | {"images": images})).items
    with pytest.raises(ItemError) as caught:
        item.convert()
    assert caught.value.kind == kind


def test_a_row_that_is_not_utf8(folder):
    path = write(folder, PIXELS, ROW)
    path.write_bytes(path.read_bytes() + b'{"instruction": "caf\xe9"}\n')
    with pytest.raises(ItemError, match=r"my\.jsonl:3: not UTF-8 \(byte 20 is 0xe9\)"):
        convert(open_custom(path))


@pytest.mark.parametrize("value", ["", 7, "a\nb", "x" * 201])
def test_faulty_ids(folder, value):
    first, second = open_custom(write(folder, PIXELS, ROW | {"id": "a"}, ROW | {"id": value})).items
    assert first.convert()[0].id == "a"
    with pytest.raises(ItemError, match=r"my\.jsonl:3: field 'id' is"):
        second.convert()


def test_a_doubled_id_is_a_fault_of_the_later_row_in_any_order(folder):
    rows = [ROW | {"id": name} for name in ("a", "b", "a")]
    first, _, third = open_custom(write(folder, PIXELS, *rows)).items
    with pytest.raises(ItemError, match=r"my\.jsonl:4: the id 'a' is that of line 2"):
        third.convert()
    assert first.convert()[0].id == "a"


# Files that are refused as a whole


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no rows"),
        (b"\n \n", "holds no rows"),
        (b'{"space": "pixels"}\n', "holds no rows"),
        (b"images,instruction,box\n", r"no line .* object; .* Line 1: not JSON"),
        (b'{"space": "pixels"}\n[1]\n{"ima', r"no line .* object; .* Line 2: is \[1\]$"),
        (b'[{"images": "a.png"}]', r"begins with '\[', like a JSON list"),
        (b'\xff\xfe{\x00"\x00', "UTF-16"),
        (b'{"space": "pixel"}\n{}\n', r"my\.jsonl:1: space is 'pixel'; expected one of: 'pixels'"),
        (b'{"file": "x", "label": 3}\n', "no row has 'images' or 'instruction'.* file, label"),
        (json.dumps(ROW).encode(), "space of the boxes is stated nowhere"),
    ],
)
def test_refused_files(folder, content, message):
    path = folder / "my.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        open_custom(path)
    assert not isinstance(caught.value, ItemError)
    assert str(path) in str(caught.value)


def test_refused_sources_and_splits(folder):
    with pytest.raises(UserError, match=r"cannot read .*none\.jsonl"):
        open_custom(folder / "none.jsonl")
    path = write(folder, PIXELS, ROW)
    assert len(open_custom(path, splits=["test"]).items) == 1
    with pytest.raises(UserError, match="'custom' has the split test; received: val"):
        open_custom(path, splits=["val"])
    mixed = write(folder, PIXELS, ROW | {"id": "a"}, ROW)
    with pytest.raises(UserError, match="line 2 has an id and line 3 has none"):
        open_custom(mixed)


def test_a_folder_stands_for_the_one_file_in_it(folder):
    with pytest.raises(UserError, match=r"one file of JSON Lines .* found: none"):
        open_custom(folder)
    write(folder, PIXELS, ROW)
    assert open_custom(folder).source["file"] == "my.jsonl"
    write(folder, PIXELS, ROW, name="other.jsonl")
    with pytest.raises(UserError, match=r"found: my\.jsonl, other\.jsonl; give the file itself"):
        open_custom(folder)


def test_a_named_set_has_a_benchmark_and_a_task_of_its_own(folder):
    entry = entry_of_set("signs")
    assert (entry.benchmark, list(entry.tasks)) == ("custom_signs", ["univg_custom:signs"])
    rows = [ROW, ROW | {"group": "kitchen"}]
    samples = convert(entry.open(write(folder, PIXELS, *rows)))
    assert [sample.id for sample in samples] == ["custom_signs-00000", "custom_signs-00001"]
    assert [sample.task for sample in samples] == ["custom_signs", "kitchen"]
    assert {sample.benchmark for sample in samples} == {"custom_signs"}
    assert {sample.cluster for sample in samples} == {"custom_signs-00000"}
    assert samples[0].images == ("custom_signs/images/a.png",)


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a:b", "a/b", "..", "*", "+x", "ü", "a" * 65])
def test_names_that_no_folder_or_list_of_tasks_could_hold(name):
    with pytest.raises(UserError, match="is no name of a set; expected up to 64 letters"):
        entry_of_set(name)


def test_some_rows_may_state_the_space_and_others_miss_it(folder):
    first, second = open_custom(write(folder, ROW | PIXELS, ROW)).items
    assert first.convert()
    with pytest.raises(ItemError, match="space is stated neither in the row nor"):
        second.convert()


# Spaces


UNITS = {"pixels": None, "norm1": (1, 1), "norm1000": (1000, 1000)}
pairs = st.tuples(st.integers(0, 999), st.integers(0, 999)).filter(lambda p: p[0] != p[1])


@given(
    space=st.sampled_from(sorted(SPACES)),
    size=st.tuples(st.integers(3, 5000), st.integers(3, 5000)),
    xs=pairs,
    ys=pairs,
)
def test_every_space_means_the_same_box(space, size, xs, ys):
    """A box on a grid of 1/999 of the image, written in a space, comes back from it."""
    x1, x2, y1, y2 = (value / 999 for value in (*sorted(xs), *sorted(ys)))
    width, height = UNITS[space] or size
    written = [x1 * width, y1 * height, x2 * width, y2 * height]
    if space != "norm1" and max(written) <= 1:
        with pytest.raises(ItemError, match="norm1"):
            to_xyxy_norm(written, space, size)
        return
    assert to_xyxy_norm(written, space, size) == pytest.approx((x1, y1, x2, y2), abs=1e-12)


@given(
    space=st.sampled_from(sorted(SPACES)),
    size=st.tuples(st.integers(3, 5000), st.integers(3, 5000)),
    box=st.lists(st.floats(-1100, 5100), min_size=4, max_size=4),
)
def test_what_is_let_through_is_a_valid_box(space, size, box):
    try:
        x1, y1, x2, y2 = to_xyxy_norm(box, space, size)
    except ItemError as error:
        assert error.kind == "invalid_row"
        return
    assert 0 <= x1 < x2 <= 1
    assert 0 <= y1 < y2 <= 1


@pytest.mark.parametrize(
    ("space", "box", "expected"),
    [
        ("pixels", [-0.5, 0, 200.5, 100.5], (0, 0, 1, 1)),
        ("norm1", [-0.0005, 0, 1.0005, 0.5], (0, 0, 1, 0.5)),
        ("norm1000", [-0.5, 0, 1000.5, 500], (0, 0, 1, 0.5)),
    ],
)
def test_rounding_ends_at_the_border(space, box, expected):
    assert to_xyxy_norm(box, space, (200, 100)) == expected
