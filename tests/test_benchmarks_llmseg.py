"""LLM-Seg40K itself, read from its released form."""

from __future__ import annotations

import json

import pytest
from release_still import (
    LLMSEG_IMAGES,
    check_samples,
    coco_rle,
    converted,
    faults,
    mask_of,
    rewrite,
    write_llmseg_full,
)

from univg_eval.benchmarks.readers import llmseg
from univg_eval.benchmarks.readers.common import masks
from univg_eval.benchmarks.readers.common.masks import mask_from_array, read_rle
from univg_eval.benchmarks.readers.common.release import ItemError
from univg_eval.benchmarks.readers.llmseg import open_llmseg_full
from univg_eval.errors import UserError


def test_every_question_is_a_sample(tmp_path):
    truth = write_llmseg_full(tmp_path)
    for source in (tmp_path, tmp_path / "test.json"):
        release = open_llmseg_full(source)
        assert release.benchmark == "llmseg_full"
        assert [item.key for item in release.items] == [f"{row:05d}" for row in range(5)]
        assert len(release.items) == 5
        check_samples(converted(release), truth, "llmseg_full")
        images = (tmp_path / "images").resolve()
        assert release.links == {
            "coco": images / "coco" / "train2017",
            "ego_objects": images / "ego_objects" / "images",
        }


def test_facts_beside_the_box(tmp_path):
    write_llmseg_full(tmp_path)
    release = open_llmseg_full(tmp_path)
    first, second, *_, kettle, _ = converted(release)
    assert first.cluster == second.cluster != kettle.cluster
    assert (second.source["file"], second.source["row"]) == ("test.json", 1)
    assert second.source["revision"] == "official"
    assert kettle.extra["from_dataset"] == "ego_objects"
    painted = mask_of((96, 64), LLMSEG_IMAGES[0].pairs[1][2])
    assert read_rle(second.targets[0].mask, "mask") == mask_from_array(painted)
    (file,) = release.source["files"]
    assert (file["name"], file["images"], file["rows"]) == ("test.json", 3, 5)
    json.dumps(release.source)


def test_masks_are_decoded_only_when_an_item_is_converted(tmp_path, monkeypatch):
    write_llmseg_full(tmp_path)
    decoded = []
    monkeypatch.setattr(
        llmseg,
        "read_rle",
        lambda value, where: decoded.append(where) or masks.read_rle(value, where),
    )
    items = list(open_llmseg_full(tmp_path).items)
    assert decoded == []
    items[3].convert()
    assert decoded == ["test.json: question 3, on '0A1B2C3D.jpg': rle_seg"]


@pytest.mark.parametrize(
    ("coco", "ego_objects"),
    [
        ("images/coco/train2017", "images/ego_objects/images"),
        ("images/train2017", "images/ego_objects"),
        ("images/coco", "images/ego_objects"),
        ("train2017", "ego_objects"),
        ("elsewhere/a", "elsewhere/b"),
    ],
)
def test_where_the_images_may_lie(tmp_path, coco, ego_objects):
    truth = write_llmseg_full(tmp_path / "made")
    made = tmp_path / "made" / "images"
    source = tmp_path / "source"
    for folder, target in (("coco/train2017", coco), ("ego_objects/images", ego_objects)):
        (source / target).mkdir(parents=True)
        for image in (made / folder).iterdir():
            image.rename(source / target / image.name)
    (tmp_path / "made" / "test.json").rename(source / "test.json")
    options = {}
    if coco.startswith("elsewhere"):
        with pytest.raises(
            UserError,
            match=r"images of coco, .*source, which has: elsewhere/, test\.json.*--coco",
        ):
            open_llmseg_full(source)
        options = {"coco": source / coco, "ego_objects": str(source / ego_objects)}
    release = open_llmseg_full(source, **options)
    check_samples(converted(release), truth, "llmseg_full")
    assert release.links["coco"] == (source / coco).resolve()
    # With the folder of images named, and the file somewhere else.
    if not options:
        base = source / coco.partition("/")[0] if coco.startswith("images") else source
        (source / "test.json").rename(tmp_path / "split.json")
        release = open_llmseg_full(tmp_path / "split.json", images=base)
        assert len(converted(release)) == len(truth)


def test_a_folder_that_no_question_needs_may_be_absent(tmp_path):
    write_llmseg_full(tmp_path)
    rewrite(tmp_path / "test.json", lambda value: value.pop("0A1B2C3D.jpg"))
    (tmp_path / "images" / "ego_objects").rename(tmp_path / "gone")
    release = open_llmseg_full(tmp_path)
    assert list(release.links) == ["coco"]
    assert len(converted(release)) == 3


def test_an_image_without_questions_takes_no_number(tmp_path):
    truth = write_llmseg_full(tmp_path)
    path = tmp_path / "test.json"
    value = {"first.jpg": {"from_dataset": "coco", "qa_pairs": None}, "second.jpg": [1]}
    path.write_text(json.dumps({**value, **json.loads(path.read_text())}))
    release = open_llmseg_full(tmp_path)
    assert faults(release) == {
        "image 'first.jpg'": "invalid_row",
        "image 'second.jpg'": "invalid_row",
    }
    first, second, *others = release.items
    with pytest.raises(ItemError, match=r"test.json: image 'first\.jpg' is an object with from"):
        first.convert()
    with pytest.raises(ItemError, match=r"image 'second\.jpg' is \[1\]"):
        second.convert()
    check_samples([sample for item in others for sample in item.convert()], truth, "llmseg_full")


@pytest.mark.parametrize("dataset", [["coco"], None, {}, "imagenet"])
def test_a_set_of_no_name(tmp_path, dataset):
    write_llmseg_full(tmp_path)
    rewrite(
        tmp_path / "test.json",
        lambda value: value["000000000285.jpg"].update(from_dataset=dataset),
    )
    release = open_llmseg_full(tmp_path)
    assert faults(release) == {"00002": "invalid_row"}
    with pytest.raises(ItemError, match=r"from_dataset is .*; expected coco or ego_objects"):
        release.items[2].convert()


WHOLE = coco_rle(mask_of((96, 64), [(3, 4, 20, 21)]))


@pytest.mark.parametrize(
    ("pair", "kind", "message"),
    [
        ("x", "invalid_row", "test.json: question 0, on '000000000139.jpg': is 'x'"),
        ({"question": " "}, "invalid_row", "'question' is ' '"),
        ({"question": None}, "invalid_row", "'question' is None"),
        ({"question": "a\ud800"}, "invalid_row", "half of a surrogate"),
        ({"rle_seg": coco_rle(mask_of((96, 64), []))}, "no_visible_object", "no pixel"),
        ({"rle_seg": coco_rle(mask_of((80, 60), []))}, "size_mismatch", "80x60"),
        ({"rle_seg": {**WHOLE, "counts": WHOLE["counts"][:-1]}}, "invalid_mask", "rle_seg"),
        ({"rle_seg": None}, "invalid_mask", "rle_seg: the mask is None"),
    ],
)
def test_a_faulty_pair_is_named_and_the_others_kept(tmp_path, pair, kind, message):
    truth = write_llmseg_full(tmp_path)

    def change(value):
        pairs = value["000000000139.jpg"]["qa_pairs"]
        pairs[0] = pair if isinstance(pair, str) else {**pairs[0], **pair}

    rewrite(tmp_path / "test.json", change)
    release = open_llmseg_full(tmp_path)
    assert faults(release) == {"00000": kind}
    first, *others = release.items
    with pytest.raises(ItemError, match=message):
        first.convert()
    samples = [sample for item in others for sample in item.convert()]
    check_samples(samples, truth[1:], "llmseg_full")


def test_an_image_that_is_not_there(tmp_path):
    write_llmseg_full(tmp_path)
    (tmp_path / "images" / "ego_objects" / "images" / "0A1B2C3D.jpg").unlink()
    assert faults(open_llmseg_full(tmp_path)) == dict.fromkeys(("00003", "00004"), "missing_image")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", r"holds \[1\]; expected a JSON object"),
        ("{}", r"holds \{\}"),
        ('{"videos": {"a": {}}}', "object with videos; .*object with a; .*another set"),
    ],
)
def test_the_file_of_another_set_is_refused(tmp_path, content, message):
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        open_llmseg_full(tmp_path)
    assert "test.json" in str(caught.value)


def test_which_file_of_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"has 0 JSON files .*expected LLM-Seg40K's test\.json"):
        open_llmseg_full(tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*none\.json: No such file"):
        open_llmseg_full(tmp_path / "none.json")
    truth = write_llmseg_full(tmp_path)
    (tmp_path / "train.json").write_text("not to be read")
    check_samples(converted(open_llmseg_full(tmp_path)), truth, "llmseg_full")
    (tmp_path / "test.json").rename(tmp_path / "validation.json")
    with pytest.raises(UserError, match=r"has 2 JSON files \(train\.json, validation\.json\)"):
        open_llmseg_full(tmp_path)
    (tmp_path / "train.json").unlink()
    (sample, *_) = converted(open_llmseg_full(tmp_path, splits=["test"]))
    assert (sample.split, sample.source["file"]) == ("test", "validation.json")
    with pytest.raises(UserError, match="'llmseg_full' has the split test; received: validation"):
        open_llmseg_full(tmp_path, splits=["validation"])
