"""ReasonVOS: the extracted boxes and the raw release, whole, faulty, and of another set."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from release_video import (
    PARK,
    converted,
    item_named,
    reasonvos_films,
    rectangle,
    require_equal,
    rewrite,
    write_reasonvos_extracted,
    write_reasonvos_full,
    write_revos_extracted,
    write_revos_full,
)

from univg_eval.benchmarks.preparing.preparation import prepare_release
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.reasonvos import open_reasonvos, open_reasonvos_full
from univg_eval.errors import UserError
from univg_eval.samples import fingerprint, load_samples

pytest.importorskip("pycocotools")
META = "meta_expressions.json"
VIDEO = "1007_dJ8rXVkL2ao"


@pytest.fixture(scope="module")
def full_release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return folder, write_reasonvos_full(folder)


@pytest.fixture(scope="module")
def extracted_release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extracted")
    return folder, write_reasonvos_extracted(folder)


@pytest.fixture
def full(full_release, tmp_path):
    """A copy to spoil."""
    shutil.copytree(full_release[0], tmp_path / "ReasonVOS")
    return tmp_path / "ReasonVOS"


@pytest.fixture
def extracted(extracted_release, tmp_path):
    shutil.copytree(extracted_release[0], tmp_path / "data")
    return tmp_path / "data"


# ---- the raw release ------------------------------------------------------------------------


def test_the_raw_release(full_release):
    folder, truth = full_release
    release = open_reasonvos_full(folder)
    samples = converted(release)
    require_equal(samples, truth, "reasonvos_full")
    assert release.n_items == len(truth) and release.source["published_expressions"] == 458
    assert [item.key for item in release.items][:3] == [f"{VIDEO}/0", f"{VIDEO}/1", f"{VIDEO}/1-2"]
    assert samples[1].extra["absent"] == "not_visible"
    assert samples[0].source["images"][2] == f"{VIDEO}/00000036"
    assert samples[-1].images[0] == "reasonvos_full/images/4f6f0ec2/9.jpg"  # 8 to 17 by number


def test_prepared_and_opened_again(full_release, tmp_path):
    folder, truth = full_release
    prepare_release(open_reasonvos_full(folder), root=tmp_path)
    require_equal(load_samples("reasonvos_full", root=tmp_path), truth, "reasonvos_full")


def test_other_samplings(full_release):
    release = open_reasonvos_full(full_release[0], sampling="all")
    sample = item_named(release, f"{VIDEO}/0").convert()[0]
    assert len(sample.images) == 7 and sample.target_image == sample.extra["target_frame"] == 3
    assert "in the fourth image" in sample.instruction


def as_object(meta):
    """The form that VideoLISA's own evaluation reads: expressions by number, is_sent a video."""
    for video in meta["videos"].values():
        video["is_sent"] = video["expressions"][0]["is_sent"]
        video["expressions"] = {
            str(place): {"obj_id": entry["obj_id"], "exp_text": entry["exp_text"]}
            for place, entry in enumerate(video["expressions"])
        }


def test_the_other_form_of_the_annotations(full, full_release):
    truth = full_release[1]
    rewrite(full / META, as_object)
    samples = converted(open_reasonvos_full(full))
    assert [sample.id.rpartition("-")[2] for sample in samples] == ["0", "1", "2", "0"]
    for sample, true in zip(samples, truth, strict=True):
        assert sample.extra["expression"] == true.expression
        assert [target.box for target in sample.targets] == (
            [true.box_norm] if true.box is not None else []
        )
    assert [sample.extra["is_sent"] for sample in samples] == [1, 1, 1, 0]


def test_the_source_in_capitals_with_its_folder_in_small_letters(full, full_release):
    rewrite(full / META, lambda meta: meta["videos"][VIDEO].update(source="VIPSeg"))
    samples = converted(open_reasonvos_full(full))
    assert [s.id for s in samples] == [true.id for true in full_release[1]]
    assert samples[0].extra["video_source"] == "VIPSeg"


def repaint(folder: Path, picture: Image.Image) -> None:
    """Another picture in place of the asked frame's mask."""
    picture.save(folder / "Annotations" / f"vipseg_{VIDEO}_000000003" / "00000036.png")


OBJECT = rectangle(PARK, 11, 7, 34, 52)
BOX = (11 / 90, 7 / 61, 34 / 90, 52 / 61)
GREY = OBJECT.astype(np.uint8)


def palette(numbers: np.ndarray, colours: list[int]) -> Image.Image:
    picture = Image.fromarray(numbers)
    picture.putpalette(colours)
    return picture


def coloured(*planes: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack(planes, axis=-1))


PICTURES = {
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


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_not_zero_is_the_object(full, name):
    repaint(full, PICTURES[name])
    sample = item_named(open_reasonvos_full(full), f"{VIDEO}/0").convert()[0]
    assert sample.box == pytest.approx(BOX) and sample.extra["parts"] == 1


def test_a_mask_of_another_size(full):
    repaint(full, Image.fromarray(GREY.T))
    with pytest.raises(
        ItemError, match=r"000003/00000036.png: the mask is 61x90 pixels.*90x61"
    ) as e:
        item_named(open_reasonvos_full(full), f"{VIDEO}/0").convert()
    assert e.value.kind == "size_mismatch"


@pytest.mark.parametrize("share", [0, 0.3, 0.6])
def test_a_damaged_mask(full, share):
    path = full / "Annotations" / f"vipseg_{VIDEO}_000000003" / "00000036.png"
    path.write_bytes(path.read_bytes()[: round(share * path.stat().st_size)])
    with pytest.raises(ItemError, match=r"00000036.png as an image") as error:
        item_named(open_reasonvos_full(full), f"{VIDEO}/0").convert()
    assert error.value.kind == "invalid_mask"
    assert item_named(open_reasonvos_full(full), f"{VIDEO}/1").convert()


def first(meta):
    return meta["videos"][VIDEO]["expressions"][0]


FAULTS = {
    "no text": (
        lambda meta: first(meta).update(exp_text=""),
        "invalid_row",
        r"field 'exp_text' is ''; expected text",
    ),
    "no object": (
        lambda meta: first(meta).pop("obj_id"),
        "invalid_row",
        r"field 'obj_id' is None; expected the number of an object",
    ),
    "another object": (
        lambda meta: first(meta).update(obj_id=99),
        "missing_image",
        rf"folder of masks, vipseg_{VIDEO}_99, is not in .*Annotations; unpack",
    ),
    "an object elsewhere": (
        lambda meta: first(meta).update(obj_id="../../JPEGImages"),
        "missing_image",
        r"folder of masks, .*is not in",
    ),
    "no source": (
        lambda meta: meta["videos"][VIDEO].pop("source"),
        "invalid_row",
        r"no field 'source'",
    ),
    "frames": (
        lambda meta: meta["videos"][VIDEO].update(frames=[None] * 3),
        "invalid_row",
        r"'frames' is \[None, None, None\]; expected the names of its frames",
    ),
    "unknown frame": (
        lambda meta: meta["videos"][VIDEO].update(frames=["00000000", "00000001"]),
        "missing_image",
        r"frame '00000001' of video .*which has 7 frames",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_item_is_named_and_the_others_are_kept(full, fault):
    spoil, kind, message = FAULTS[fault]
    rewrite(full / META, spoil)
    release = open_reasonvos_full(full)
    with pytest.raises(ItemError, match=message) as error:
        item_named(release, f"{VIDEO}/0").convert()
    assert error.value.kind == kind and f"{VIDEO}-0" in str(error.value)
    assert item_named(release, "4f6f0ec2/0").convert()[0].box


def test_a_mask_that_is_repaired_between_two_runs(full, tmp_path):
    """The journal of a run that met a fault elsewhere must not keep the old mask's box."""
    repaint(full, Image.fromarray(np.roll(GREY, 3, axis=1)))
    frame = full / "JPEGImages" / "4f6f0ec2"
    frame.rename(tmp_path / "away")
    with pytest.raises(UserError, match="items are faulty"):
        prepare_release(open_reasonvos_full(full), root=tmp_path / "root")
    (tmp_path / "away").rename(frame)
    repaint(full, Image.fromarray(GREY))
    done = prepare_release(open_reasonvos_full(full), root=tmp_path / "root")
    assert done.resumed > 0
    by_id = {s.id: s for s in load_samples("reasonvos_full", root=tmp_path / "root")}
    assert by_id[f"reasonvos_full-{VIDEO}-0"].box == pytest.approx(BOX)


def test_a_mask_that_is_not_there(full):
    (full / "Annotations" / f"vipseg_{VIDEO}_000000003" / "00000036.png").unlink()
    with pytest.raises(ItemError, match=r"mask .*00000036.png does not exist; .*every frame") as e:
        item_named(open_reasonvos_full(full), f"{VIDEO}/0").convert()
    assert e.value.kind == "missing_image"
    # Frames that are not asked for need none.
    shown = open_reasonvos_full(full, sampling="even:1")
    (full / "Annotations" / f"vipseg_{VIDEO}_000000014" / "00000000.png").unlink()
    assert item_named(shown, f"{VIDEO}/1").convert()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (META, r"does not hold meta_expressions.json, nor does ReasonVOS.*BENCHMARK.md"),
        ("Annotations", r"Annotations does not exist; expected the folder of masks beside"),
        ("JPEGImages", r"none of the 2 videos is a folder of .*--images"),
    ],
)
def test_half_a_release_is_refused_at_once(full, lost, message):
    path = full / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=message):
        open_reasonvos_full(full)


def test_the_file_of_revos_is_not_that_of_reasonvos(full, tmp_path):
    write_revos_full(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "meta_expressions_valid_.json", full / META)
    with pytest.raises(UserError, match=r"source, frames, expressions a video.*another set\?"):
        open_reasonvos_full(full)


# ---- the extracted boxes --------------------------------------------------------------------


def test_the_extracted_boxes(extracted_release):
    folder, truth = extracted_release
    release = open_reasonvos(folder)
    samples = converted(release)
    require_equal(samples, truth, "reasonvos")
    assert release.source["revision"] == "univg-r1-extracted"
    assert samples[0].source["images"][0].startswith("/data/of/others/ReasonVOS/JPEGImages/")
    assert samples[0].extra["video"] == f"reasonvos/images/JPEGImages/{VIDEO}"


def test_targets_are_those_of_the_published_evaluation(extracted_release):
    """All runs of digits in the third text, the first four of them over width and height."""
    folder, _ = extracted_release
    rows = json.loads((folder / "ReasonVOS_eval.json").read_text(encoding="utf-8"))
    for row, sample in zip(rows, converted(open_reasonvos(folder)), strict=True):
        path = folder / row["image_list"][2].partition("ReasonVOS/")[2]
        with Image.open(path) as image:
            w, h = image.size
        x1, y1, x2, y2 = (int(run) for run in re.findall(r"\d+", row["bbox_list"][2])[:4])
        assert sample.box == (x1 / w, y1 / h, x2 / w, y2 / h)


@pytest.mark.parametrize("place", ["images", "given", "videos"])
def test_where_the_images_are_looked_for(extracted, place, tmp_path):
    before = converted(open_reasonvos(extracted))
    target = extracted / "images" if place == "images" else tmp_path / "given"
    shutil.move(extracted / "JPEGImages", target if place == "videos" else target / "JPEGImages")
    after = converted(open_reasonvos(extracted, images=None if place == "images" else target))
    assert fingerprint(after) == fingerprint(before)
    # Groups of rows are the same wherever the videos lie.
    assert [sample.cluster for sample in after] == [sample.cluster for sample in before]


def test_a_frame_found_by_its_name_alone_is_not_taken(extracted):
    """Every video has a frame of such a name."""
    (extracted / "ReasonVOS_eval.json").rename(extracted.parent / "ReasonVOS_eval.json")
    release = open_reasonvos(extracted.parent, images=extracted / "JPEGImages" / VIDEO)
    with pytest.raises(ItemError, match=r"by its file name alone, which every video has") as error:
        next(iter(release.items)).convert()
    assert error.value.kind == "missing_image"


BOX_TEXTS = [
    ("[12, 30, 40, 55]", (12, 30, 40, 55)),
    ("(12,30),(40,55)", (12, 30, 40, 55)),
    ("12 30 40 55", (12, 30, 40, 55)),
    ("<|box_start|>(12,30),(40,55)<|box_end|>", (12, 30, 40, 55)),
    ("[007, 30, 40, 55]", (7, 30, 40, 55)),
    # Upstream would read 12, 5, 30, 0 and -12 as 12: not what was meant.
    ("[12.5, 30.0, 40.0, 55.0]", None),
    ("[-12, 30, 40, 55]", None),
    ("[12, 30, 40]", None),
    ("[1, 12, 30, 40, 55]", None),
    ("", None),
    ("none", None),
    ([12, 30, 40, 55], None),
    (None, None),
]


@pytest.mark.parametrize(("text", "expected"), BOX_TEXTS)
def test_boxes_as_text(extracted, text, expected):
    rewrite(extracted / "ReasonVOS_eval.json", lambda rows: rows[0]["bbox_list"].insert(2, text))
    item = next(iter(open_reasonvos(extracted).items))
    if expected is None:
        with pytest.raises(ItemError, match=r"row 0: field 'bbox_list\[2\]' is .*four whole") as e:
            item.convert()
        assert e.value.kind == "invalid_row"
    else:
        w, h = PARK
        x1, y1, x2, y2 = expected
        assert item.convert()[0].box == (x1 / w, y1 / h, x2 / w, y2 / h)


ROW_FAULTS = [
    ({"question": 5}, "invalid_row", r"field 'question' is 5"),
    ({"image_list": ["a.jpg"]}, "invalid_row", r"'image_list' is \['a.jpg'\]; expected three or"),
    ({"image_list": [1, 2, 3]}, "invalid_row", r"'image_list' is \[1, 2, 3\]"),
    ({"bbox_list": ["[1, 2, 3, 4]"]}, "invalid_row", r"'bbox_list' is .*a box for each of the 5"),
    (
        {"image_list": ["v/1.jpg", "v/2.jpg", "v/3.jpg"]},
        "missing_image",
        r"image 'v/1.jpg' is not below",
    ),
    ({"image_list": ["../1.jpg"] * 3}, "invalid_row", r"'../1.jpg': expected a path that stays"),
    (
        {"image_list": [f"{VIDEO}/00000000.jpg", "4f6f0ec2/9.jpg", "4f6f0ec2/10.jpg"]},
        "invalid_row",
        r"images of 2 folders, .*expected frames of one video",
    ),
]


@pytest.mark.parametrize(("change", "kind", "message"), ROW_FAULTS)
def test_a_faulty_row_is_named_and_the_others_are_kept(extracted, change, kind, message):
    rewrite(extracted / "ReasonVOS_eval.json", lambda rows: rows[1].update(change))
    items = list(open_reasonvos(extracted, images=extracted / "JPEGImages").items)
    with pytest.raises(ItemError, match=message) as error:
        items[1].convert()
    assert error.value.kind == kind
    assert items[0].convert()[0].box


def test_the_asked_frame_is_counted_in_natural_order(extracted):
    """8, 9, 10, …: as text 10 would come first."""
    sample = list(open_reasonvos(extracted).items)[1].convert()[0]
    assert sample.images[2].endswith("/13.jpg") and sample.extra["target_frame"] == 5
    assert sample.extra["n_frames"] == len(reasonvos_films()[1].frames)


def test_a_folder_without_the_images(extracted):
    shutil.rmtree(extracted / "JPEGImages")
    with pytest.raises(UserError, match=r"none of the rows' images is there; the first: image"):
        open_reasonvos(extracted)


def test_a_file_of_another_set(extracted, tmp_path):
    write_revos_extracted(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "ReVOS_eval.json", extracted / "ReasonVOS_eval.json")
    with pytest.raises(UserError, match=r"fields bbox_list, image_list, question; .*another set\?"):
        open_reasonvos(extracted)


def test_other_splits_are_refused(extracted, full):
    for open_set, folder in ((open_reasonvos, extracted), (open_reasonvos_full, full)):
        with pytest.raises(UserError, match=r"has the split test; received: val"):
            open_set(folder, splits=["val"])
