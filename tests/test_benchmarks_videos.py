"""ReVOS and ReasonVOS themselves, with a mask of each object in each frame."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from release_still import check_samples, coco_rle, converted, item_named, rewrite
from release_video import (
    PARK,
    extent,
    rectangle,
    revos_videos,
    write_reasonvos_full,
    write_revos_full,
)

from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.benchmarks.readers import revos
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.reasonvos import open_reasonvos_full
from univg_eval.benchmarks.readers.revos import open_revos_full
from univg_eval.errors import UserError
from univg_eval.images.reading import open_images
from univg_eval.samples import fingerprint, load_samples

pytest.importorskip("pycocotools")
pytest.importorskip("ijson")

REVOS_META, REASONVOS_META = "meta_expressions_valid_.json", "meta_expressions.json"
PARK_VIDEO = "1007_dJ8rXVkL2ao"
SETS = {
    "revos_full": (open_revos_full, write_revos_full, REVOS_META),
    "reasonvos_full": (open_reasonvos_full, write_reasonvos_full, REASONVOS_META),
}
BOTH = pytest.mark.parametrize("name", SETS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in SETS}
    return {name: (folder, SETS[name][1](folder)) for name, folder in made.items()}


@pytest.fixture
def copy(written, tmp_path):
    """Copies a release to a folder, to be spoiled."""
    return lambda name: Path(shutil.copytree(written[name][0], tmp_path / "copy"))


@pytest.fixture
def revos_copy(copy):
    return copy("revos_full")


@pytest.fixture
def reasonvos_copy(copy):
    return copy("reasonvos_full")


# --- both -------------------------------------------------------------------------------------


@BOTH
def test_every_expression_becomes_the_sample_that_it_says(name, written, tmp_path):
    folder, truth = written[name]
    release = SETS[name][0](folder)
    check_samples(converted(release), truth, name)
    assert len(release.items) == len(truth)
    assert release.links == {"images": (folder / "JPEGImages").resolve()}
    assert release.source["sampling"] == "even:5" and release.source["revision"] == "official"
    prepare_release(release, root=tmp_path)
    samples = load_samples(name, root=tmp_path)
    check_samples(samples, truth, name)
    assert [sample.source["row"] for sample in samples] == list(range(len(samples)))
    assert {sample.source["revision"] for sample in samples} == {"official"}


@BOTH
@pytest.mark.parametrize("given", ["folder", "above", "file", "images", "release of images"])
def test_ways_to_name_the_release(name, given, written, tmp_path):
    open_set, _, meta = SETS[name]
    expected = fingerprint(converted(open_set(written[name][0])))
    folder = Path(shutil.copytree(written[name][0], tmp_path / "release" / name))
    folder = folder.rename(folder.with_name("ReVOS" if name == "revos_full" else "ReasonVOS"))
    if given in ("images", "release of images"):
        shutil.move(folder / "JPEGImages", tmp_path / "elsewhere" / "JPEGImages")
    release = {
        "folder": lambda: open_set(str(folder), splits=["test"]),
        "above": lambda: open_set(folder.parent),
        "file": lambda: open_set(folder / meta),
        "images": lambda: open_set(folder, images=tmp_path / "elsewhere" / "JPEGImages"),
        "release of images": lambda: open_set(folder, images=str(tmp_path / "elsewhere")),
    }[given]()
    assert fingerprint(converted(release)) == expected


@BOTH
@pytest.mark.parametrize(
    ("lost", "options", "message"),
    [
        ("", {"sampling": "even"}, "unknown sampling rule 'even'"),
        ("", {"sampling": "given"}, "'given' needs a list of frame numbers"),
        ("", {"splits": ["train"]}, "has the split test; received: train"),
        ("", {"images": "nowhere"}, "image folder .*nowhere does not exist.*--images"),
        ("meta", {}, r"does not hold meta_expressions.*\.json, nor does Re.*VOS.*comes from"),
        ("masks", {}, r"(mask_dict\.json|Annotations) does not exist"),
        ("JPEGImages", {}, r"none of the \d videos.*--images"),
    ],
)
def test_a_wrong_folder_is_refused_at_once(name, lost, options, message, copy):
    open_set, _, meta = SETS[name]
    folder = copy(name)
    masks = "mask_dict.json" if name == "revos_full" else "Annotations"
    if lost:
        path = folder / {"meta": meta, "masks": masks}.get(lost, lost)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=message):
        open_set(folder, **options)
    with pytest.raises(UserError, match="none does not exist; expected meta_expressions"):
        open_set(folder / "none")


@BOTH
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"holds \[\]; expected \{\"videos\""),
        ('{"videos": {}}', r"expected \{\"videos\""),
        ('{"videos": {"v": {"frames": []}}}', r"another set\?"),
        ('{"videos": {"v": {"frames": ["1"], "expressions": {"0": {}}}}}', r"another set\?"),
        ("{", "not JSON .*fetch it again"),
        (None, r"an expression.*another set\?"),
    ],
)
def test_an_annotation_file_of_another_set(name, content, message, written, copy):
    """None is the file of the other of the two sets."""
    open_set, _, meta = SETS[name]
    folder = copy(name)
    if content is None:
        (other,) = set(SETS) - {name}
        content = (written[other][0] / SETS[other][2]).read_text(encoding="utf-8")
    (folder / meta).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=f"{meta}: .*{message}"):
        open_set(folder)


OTHER_SIZE = coco_rle(rectangle((75, 101), 1, 1, 9, 9))
# Changes to the annotations (and the masks), of which one expression then cannot be converted.
REVOS_FAULTS = [
    (lambda e, v, m: e.update(exp="  "), "invalid_row", "expression '0': field 'exp' is '  '"),
    (lambda e, v, m: e.pop("anno_id"), "invalid_row", "'anno_id' is None"),
    (lambda e, v, m: e.update(anno_id=11), "invalid_row", "'anno_id' is 11"),
    (lambda e, v, m: e.update(anno_id=[11, 77]), "invalid_row", "object 77 of 'anno_id'"),
    (lambda e, v, m: v["expressions"].update({"0": 3}), "invalid_row", "expression '0': is 3"),
    (lambda e, v, m: v.update(frames=[]), "invalid_row", r"'frames' is \[\]"),
    (lambda e, v, m: v.update(frames=["00000"] * 9), "invalid_row", "'frames'.*each once"),
    (lambda e, v, m: v.update(frames=[0, 5, 10]), "invalid_row", r"'frames' is \[0, 5"),
    (
        lambda e, v, m: v["frames"].append("00045"),
        "missing_image",
        r"frame '00045' .* 9 frames, from 00000\.jpg to 00040\.jpg",
    ),
    (lambda e, v, m: m["11"].pop(), "invalid_mask", "object 11 has 8 masks, its video 9 frames"),
    (
        lambda e, v, m: m["11"].__setitem__(4, OTHER_SIZE),
        "size_mismatch",
        r"expression '0': the mask is 75x101 pixels, .*00020\.jpg 101x75",
    ),
    (
        lambda e, v, m: m["11"][4].update(counts="PPPP"),
        "invalid_mask",
        r"\(mask_dict.json: object 11, frame 4\)",
    ),
]
REASONVOS_FAULTS = [
    (lambda e, v, m: e.update(exp_text=""), "invalid_row", "'exp_text' is ''"),
    (lambda e, v, m: e.pop("obj_id"), "invalid_row", "'obj_id' is None"),
    (lambda e, v, m: e.update(obj_id=99), "missing_image", f"masks, vipseg_{PARK_VIDEO}_99,"),
    (lambda e, v, m: e.update(obj_id="../../JPEGImages"), "missing_image", "folder of masks"),
    (lambda e, v, m: v.pop("source"), "invalid_row", "no field 'source'"),
    (lambda e, v, m: v.update(frames=[None] * 3), "invalid_row", r"'frames' is \[None"),
    (
        lambda e, v, m: v.update(frames=["00000000", "00000001"]),
        "missing_image",
        "frame '00000001' of video .*which has 7 frames",
    ),
]


# The video with a faulty expression 0, and an item that is sound.
ITEMS = {
    "revos_full": ("beach_0001", "kitchen-7/1"),
    "reasonvos_full": (PARK_VIDEO, "4f6f0ec2/0"),
}


@pytest.mark.parametrize(
    ("name", "spoil", "kind", "message"),
    [("revos_full", *fault) for fault in REVOS_FAULTS]
    + [("reasonvos_full", *fault) for fault in REASONVOS_FAULTS],
)
def test_a_faulty_item_is_named_and_the_others_are_kept(name, spoil, kind, message, copy):
    open_set, _, file = SETS[name]
    folder, (video, good) = copy(name), ITEMS[name]
    meta = json.loads((folder / file).read_text(encoding="utf-8"))
    masks_file = folder / "mask_dict.json"
    masks = json.loads(masks_file.read_text()) if masks_file.exists() else None
    content = meta["videos"][video]
    expressions = content["expressions"]
    spoil(expressions["0" if isinstance(expressions, dict) else 0], content, masks)
    (folder / file).write_text(json.dumps(meta), encoding="utf-8")
    if masks is not None:
        masks_file.write_text(json.dumps(masks))
    release = open_set(folder)
    with pytest.raises(ItemError, match=message) as error:
        item_named(release, f"{video}/0").convert()
    assert error.value.kind == kind
    assert f"{file}: video {video!r}, expression '0'" in str(error.value)
    assert item_named(release, good).convert()[0].box


FRAME = Path("JPEGImages", "beach_0001", "00020.jpg")
MASK = Path("Annotations", f"vipseg_{PARK_VIDEO}_000000003", "00000036.png")


def cut_mask(folder, share):
    content = (folder / MASK).read_bytes()
    (folder / MASK).write_bytes(content[: round(share * len(content))])


# Changes to the files of a release.
FILE_FAULTS = [
    (
        "revos_full",
        lambda folder: shutil.rmtree((folder / FRAME).parent),
        "missing_image",
        r"video 'beach_0001' is no folder below .*--images",
    ),
    (
        "revos_full",
        lambda folder: (folder / FRAME).write_bytes(b"cut off"),
        "unreadable_image",
        r"00020\.jpg as an image",
    ),
    (
        "revos_full",
        lambda folder: shutil.copy(folder / FRAME, (folder / FRAME).with_name("cover.jpg")),
        "unreadable_image",
        r"cover\.jpg has no number",
    ),
    (
        "reasonvos_full",
        lambda folder: repaint(folder, Image.fromarray(GREY.T)),
        "size_mismatch",
        r"61x90 pixels.*90x61",
    ),
    ("reasonvos_full", lambda folder: cut_mask(folder, 0), "invalid_mask", "as an image"),
    ("reasonvos_full", lambda folder: cut_mask(folder, 0.6), "invalid_mask", "as an image"),
    (
        "reasonvos_full",
        lambda folder: (folder / MASK).unlink(),
        "missing_image",
        r"mask .*00000036\.png does not exist",
    ),
]


@pytest.mark.parametrize(("name", "spoil", "kind", "message"), FILE_FAULTS)
def test_a_faulty_file_is_named_and_the_others_are_kept(name, spoil, kind, message, copy):
    folder, (video, good) = copy(name), ITEMS[name]
    spoil(folder)
    release = SETS[name][0](folder)
    with pytest.raises(ItemError, match=message) as error:
        item_named(release, f"{video}/0").convert()
    assert error.value.kind == kind
    assert item_named(release, good).convert()[0].box


# --- ReVOS ------------------------------------------------------------------------------------


def test_facts_of_revos(written):
    release = open_revos_full(written["revos_full"][0])
    assert [file["as_published"] for file in release.source["files"]] == [False, False]


@pytest.mark.parametrize(
    ("rule", "shown", "target"),
    [
        ("even:1", [4], 0),
        ("even:2", [2, 6], 1),
        ("all", list(range(9)), 4),
    ],
)
def test_other_samplings(written, rule, shown, target):
    """The target's frame is in the middle; its box is that of the mask there."""
    release = open_revos_full(written["revos_full"][0], sampling=rule)
    video = revos_videos()[0]
    sample = item_named(release, "beach_0001/0").convert()[0]
    assert [Path(image).stem for image in sample.images] == [video.frames[i] for i in shown]
    x1, y1, x2, y2 = extent(video.objects[11][shown[target]])
    w, h = video.image_wh
    assert sample.box == pytest.approx((x1 / w, y1 / h, x2 / w, y2 / h))
    assert sample.target_image == target and sample.extra["target_frame"] == shown[target]
    assert release.source["sampling"] == rule
    words = {0: "first", 1: "second", 4: "fifth"}
    assert f"the bounding box in the {words[target]} image" in sample.instruction


def test_the_boxes_are_those_of_the_images_too(written, tmp_path):
    prepare_release(open_revos_full(written["revos_full"][0]), root=tmp_path)
    samples = load_samples("revos_full", root=tmp_path)
    sample = next(s for s in samples if s.id == "revos_full-beach_0001-0")  # the red ball
    image = open_images(sample, tmp_path)[2]
    x = round((sample.box[0] + sample.box[2]) / 2 * image.width)
    y = round((sample.box[1] + sample.box[3]) / 2 * image.height)
    r, g, b = image.getpixel((x, y))
    assert r > 180 and g < 90 and b < 90


def test_a_video_name_that_leads_elsewhere(revos_copy):
    rewrite(
        revos_copy / REVOS_META,
        lambda meta: meta["videos"].update({"../out": meta["videos"]["beach_0001"]}),
    )
    with pytest.raises(ItemError, match=r"video '../out'; expected a name that stays") as error:
        item_named(open_revos_full(revos_copy), "../out/0").convert()
    assert error.value.kind == "invalid_row"


def test_an_empty_entry_is_like_null(revos_copy):
    """The release's own evaluation tests `if mask`, not whether it is None."""

    def change(masks):
        masks["12"][4], masks["11"][4] = {}, []

    rewrite(revos_copy / "mask_dict.json", change)
    sample = item_named(open_revos_full(revos_copy), "beach_0001/1").convert()[0]
    assert sample.targets == () and sample.extra["absent"] == "not_visible"


# mask_dict.json


def test_the_masks_of_the_wanted_frames_are_read(tmp_path):
    path = tmp_path / "mask_dict.json"
    mask = {"size": [2, 3], "counts": 'a"]}\\é'}
    path.write_text(json.dumps({"1": [mask, None, {}], "2": [None], "é": [1.5, 2], "3": []}))
    assert revos._read_masks(path, {"1": {0, 2}, "é": {0, 9}, "3": {0}, "4": {1}}) == {
        "1": (3, {0: mask, 2: {}}),
        "é": (2, {0: 1.5}),
        "3": (0, {}),
    }


def test_a_mask_file_that_was_cut_anywhere(written, tmp_path):
    """Whatever the last byte that arrived, it is noticed."""
    raw = (written["revos_full"][0] / "mask_dict.json").read_bytes()
    path = tmp_path / "mask_dict.json"
    for length in range(0, len(raw) - 1, 97):
        path.write_bytes(raw[:length])
        with pytest.raises(UserError, match=r"mask_dict\.json: .*fetch it again"):
            revos._read_masks(path, {})


@pytest.mark.parametrize(
    "content",
    [
        *(b"[]", b"7", b"{}", b'{"1": {"a": []}}', b'{"1": null, "2": []}', b'{"1": [], "2"}'),
        *(b'{"1": [}', b'{"1": []}}', b'{"1": [], "1": []}', b"{[]: 1}", b'<html>{"1": []}'),
        *(b'{"1": [{"size": [7 5]}]}', b'{"1": ["\xff"]}', b'{"1": [NaN]}'),
        b'{"\xed\xa0\x80": []}',  # half of a surrogate pair
    ],
)
def test_a_mask_file_of_another_kind(revos_copy, content):
    (revos_copy / "mask_dict.json").write_bytes(content)
    with pytest.raises(UserError, match=r"mask_dict\.json: .*expected one JSON object"):
        open_revos_full(revos_copy)


# --- ReasonVOS --------------------------------------------------------------------------------


def test_facts_of_reasonvos(written):
    release = open_reasonvos_full(written["reasonvos_full"][0])
    assert release.source["published_expressions"] == 458
    keys = [item.key for item in release.items][:3]
    assert keys == [f"{PARK_VIDEO}/0", f"{PARK_VIDEO}/1", f"{PARK_VIDEO}/1-2"]


def as_object(meta):
    """The form that VideoLISA's own evaluation reads: expressions by number, is_sent a video."""
    for video in meta["videos"].values():
        video["is_sent"] = video["expressions"][0]["is_sent"]
        video["expressions"] = {
            str(place): {"obj_id": entry["obj_id"], "exp_text": entry["exp_text"]}
            for place, entry in enumerate(video["expressions"])
        }


def test_the_other_form_of_the_annotations(reasonvos_copy, written):
    truth = written["reasonvos_full"][1]
    rewrite(reasonvos_copy / REASONVOS_META, as_object)
    samples = converted(open_reasonvos_full(reasonvos_copy))
    assert [sample.id.rpartition("-")[2] for sample in samples] == ["0", "1", "2", "0"]
    for sample, true in zip(samples, truth, strict=True):
        assert sample.extra["expression"] == true.expression
        assert [target.box for target in sample.targets] == (
            [true.box_norm] if true.box is not None else []
        )
    assert [sample.extra["is_sent"] for sample in samples] == [1, 1, 1, 0]


def test_the_source_in_capitals_with_its_folder_in_small_letters(reasonvos_copy, written):
    rewrite(
        reasonvos_copy / REASONVOS_META,
        lambda meta: meta["videos"][PARK_VIDEO].update(source="VIPSeg"),
    )
    samples = converted(open_reasonvos_full(reasonvos_copy))
    assert [s.id for s in samples] == [true.id for true in written["reasonvos_full"][1]]
    assert samples[0].extra["video_source"] == "VIPSeg"


def repaint(folder: Path, image: Image.Image) -> None:
    """Another image in place of the mask in the target's frame."""
    image.save(folder / MASK)


OBJECT = rectangle(PARK, 11, 7, 34, 52)
BOX = (11 / 90, 7 / 61, 34 / 90, 52 / 61)
GREY = OBJECT.astype(np.uint8)


def palette(numbers: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(numbers)
    image.putpalette(colours)
    return image


def coloured(*planes: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack(planes, axis=-1))


MASK_IMAGES = {
    "0 and 255": Image.fromarray(GREY * 255),
    "0 and 1": Image.fromarray(GREY),
    "one bit": Image.fromarray(OBJECT),
    "palette": palette(GREY * 3, [0, 0, 0] * 3 + [128, 128, 0]),
    # The number counts, not the colour it stands for.
    "palette whose first colour is white": palette(GREY, [255, 255, 255, 9, 9, 9]),
    "palette of one colour": palette(GREY, [0, 0, 0, 0, 0, 0]),
    "blue alone": coloured(GREY * 0, GREY * 0, GREY * 200),
    "opaque": coloured(GREY * 90, GREY * 0, GREY * 0, GREY * 0 + 255),
    "grey, half of it opaque": coloured(GREY * 90, GREY * 0 + 128),
    "16 bits": Image.fromarray(GREY.astype(np.uint16) * 256),
}


@pytest.mark.parametrize("name", MASK_IMAGES)
def test_what_is_not_zero_is_the_object(reasonvos_copy, name):
    repaint(reasonvos_copy, MASK_IMAGES[name])
    sample = item_named(open_reasonvos_full(reasonvos_copy), f"{PARK_VIDEO}/0").convert()[0]
    assert sample.box == pytest.approx(BOX) and sample.extra["parts"] == 1


def test_a_mask_that_is_repaired_between_two_runs(reasonvos_copy, tmp_path):
    """The journal of a run that met a fault elsewhere must not keep the old mask's box."""
    repaint(reasonvos_copy, Image.fromarray(np.roll(GREY, 3, axis=1)))
    frame = reasonvos_copy / "JPEGImages" / "4f6f0ec2"
    frame.rename(tmp_path / "away")
    with pytest.raises(UserError, match="items are faulty"):
        prepare_release(open_reasonvos_full(reasonvos_copy), root=tmp_path / "root")
    (tmp_path / "away").rename(frame)
    repaint(reasonvos_copy, Image.fromarray(GREY))
    done = prepare_release(open_reasonvos_full(reasonvos_copy), root=tmp_path / "root")
    assert done.resumed > 0
    by_id = {s.id: s for s in load_samples("reasonvos_full", root=tmp_path / "root")}
    assert by_id[f"reasonvos_full-{PARK_VIDEO}-0"].box == pytest.approx(BOX)


def test_masks_of_frames_that_are_not_shown_are_not_needed(reasonvos_copy):
    shown = open_reasonvos_full(reasonvos_copy, sampling="even:1")
    (reasonvos_copy / "Annotations" / f"vipseg_{PARK_VIDEO}_000000014" / "00000000.png").unlink()
    assert item_named(shown, f"{PARK_VIDEO}/1").convert()
