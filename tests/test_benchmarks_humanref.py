"""HumanRef in its released form, written by hand: what becomes a sample, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from find_all_release import converted, draw, only_fault, pixel_boxes, require_whole, write_lines
from release_still import coco_rle, mask_of, run_lengths

from univg_eval.benchmarks.readers.humanref import DOMAINS, open_humanref
from univg_eval.errors import UserError

WH = (120, 80)
LEFT, RIGHT = [10, 20, 40, 70], [60.5, 8, 100, 79.25]


def row(number: int, domain: str, boxes: list[Any], **changes: Any) -> dict[str, Any]:
    """A row; the masks are painted inside the boxes."""
    painted = [mask_of(WH, [tuple(int(v) for v in box)]) for box in boxes]
    return {
        "id": number,
        "image_name": "people.jpg",
        "referring": f"whoever is {domain}",
        "domain": domain,
        "sub_domain": f"1000_{domain}_with_mask",
        "candidate_boxes": [LEFT, RIGHT, [0, 0, 5, 5]],
        "answer_boxes": boxes,
        "answer_segmentations": [coco_rle(mask) for mask in painted],
    } | changes


ROWS = [
    row(70, "attribute", [RIGHT, LEFT]),
    row(71, "rejection", []),
    row(72, "position", [LEFT]),
    row(73, "interaction", [LEFT, RIGHT], answer_segmentations=[coco_rle(mask_of(WH, []))]),
    row(74, "reasoning", [LEFT], answer_segmentations=[]),
    row(75, "celebrity", [LEFT], image_name="star.jpg", candidate_boxes=[LEFT]),
    row(76, "rejection", [], referring="the man on the moon"),
]


def write(folder: Path, rows: Any = ROWS) -> Path:
    """The release as it unpacks."""
    write_lines(folder / "annotations.jsonl", rows)
    draw(folder / "images", {"people.jpg": WH, "star.jpg": WH})
    return folder


def test_a_row_is_a_sample_of_its_domain(tmp_path: Path) -> None:
    release = open_humanref(write(tmp_path))
    assert [item.key for item in release.items] == [f"{number:05d}" for number in range(7)]
    samples = converted(release)
    assert [sample.id for sample in samples] == [f"humanref-{number:05d}" for number in range(7)]
    assert {sample.task for sample in samples} == set(DOMAINS)
    assert [pixel_boxes(sample) for sample in samples] == [
        [(60.5, 8, 100, 79.25), (10, 20, 40, 70)],
        [],
        [(10, 20, 40, 70)],
        [(10, 20, 40, 70), (60.5, 8, 100, 79.25)],
        [(10, 20, 40, 70)],
        [(10, 20, 40, 70)],
        [],
    ]
    require_whole(samples)
    require_whole(samples, "norm1")
    first, rejection, *_, star, moon = samples
    assert first.extra == {
        "expression": "whoever is attribute",
        "sub_domain": "1000_attribute_with_mask",
        "release_id": 70,
        "n_candidates": 3,
    }
    assert (rejection.kind, rejection.task, star.extra["n_candidates"]) == ("none", "rejection", 1)
    assert moon.extra["expression"] == "the man on the moon"
    assert {(sample.benchmark, sample.split) for sample in samples} == {("humanref", "test")}
    assert (star.images, star.image_sizes) == (("humanref/images/star.jpg",), [WH])
    assert first.cluster == moon.cluster != star.cluster
    expected = {"file": "annotations.jsonl", "revision": "official", "row": 5}
    assert star.source == {**expected, "images": ["star.jpg"]}


def test_masks_where_there_is_one_for_each_box(tmp_path: Path) -> None:
    first, _, second, *others = converted(open_humanref(write(tmp_path)))
    painted = [(60, 8, 100, 79), (10, 20, 40, 70)]
    assert [t.mask for t in first.targets] == [coco_rle(mask_of(WH, [box])) for box in painted]
    assert second.targets[0].mask == coco_rle(mask_of(WH, [(10, 20, 40, 70)]))
    # One mask for two boxes, and none for one.
    assert [t.mask for sample in others[:2] for t in sample.targets] == [None] * 3


def test_masks_may_be_lists_of_run_lengths(tmp_path: Path) -> None:
    mask = mask_of(WH, [(10, 20, 40, 70)])
    listed = {"size": [WH[1], WH[0]], "counts": run_lengths(mask)}
    wanted = row(1, "position", [LEFT], answer_segmentations=[listed])
    (sample,) = converted(open_humanref(write(tmp_path, [wanted])))
    assert sample.targets[0].mask == coco_rle(mask)


def test_where_the_release_may_lie(tmp_path: Path) -> None:
    made = write(tmp_path / "HumanRef")
    for source in (tmp_path, made, made / "annotations.jsonl"):
        assert open_humanref(source).links == {"images": (made / "images").resolve()}
    (made / "images").rename(tmp_path / "photos")
    release = open_humanref(made, images=tmp_path / "photos", splits=["test"])
    assert len(converted(release)) == 7
    assert release.source["expressions"] == {"test": {"found": 7, "reported": 6000}}
    json.dumps(release.source)
    with pytest.raises(UserError, match="'humanref' has the split test; received: val"):
        open_humanref(made, splits=["val"])
    with pytest.raises(UserError, match=r"hold annotations\.jsonl.*IDEA-Research/HumanRef"):
        open_humanref(tmp_path / "photos")


def test_the_file_of_another_set(tmp_path: Path) -> None:
    for rows in ([], ['["a"]'], [{"id": 1, "image": "a.jpg"}], ["no JSON"]):
        with pytest.raises(UserError, match="expected JSON objects with the fields answer_boxes, "):
            open_humanref(write(tmp_path, rows))


BIG = coco_rle(mask_of((121, 80), [(10, 20, 40, 70)]))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"domain": "colour"}, "invalid_row", "domain is 'colour'; expected one of attribute, pos"),
        ({"domain": None}, "invalid_row", "'domain' is None; expected text"),
        ({"domain": "rejection"}, "invalid_row", "answer_boxes is .*; expected none in the domain"),
        ({"answer_boxes": []}, "invalid_row", r"is \[\]; expected at least one in the domain posi"),
        ({"answer_boxes": None}, "invalid_row", "answer_boxes is None; expected a list of boxes"),
        ({"answer_boxes": [[1, 2, 3]]}, "invalid_row", r"answer_boxes\[0\] is \[1, 2, 3\]; expect"),
        ({"candidate_boxes": 3}, "invalid_row", "candidate_boxes is 3; expected a list of boxes"),
        ({"referring": ""}, "invalid_row", "field 'referring' is ''; expected text"),
        ({"image_name": "other.jpg"}, "missing_image", "'other.jpg' is not below"),
        ({"image_name": "../people.jpg"}, "invalid_row", "stays within its folder"),
        (
            {"answer_segmentations": [3]},
            "invalid_mask",
            r"answer_segmentations\[0\]: the mask is 3",
        ),
        ({"answer_segmentations": [BIG]}, "size_mismatch", "121x80 pixels, its image"),
    ],
)
def test_a_faulty_row(tmp_path: Path, changes: dict[str, Any], kind: str, message: str) -> None:
    rows = [ROWS[0], row(9, "position", [LEFT]) | changes, ROWS[1]]
    only_fault(open_humanref(write(tmp_path, rows)), "00001", kind, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": 5', r"annotations\.jsonl row 1: not JSON \(.*expected one JSON object a line"),
        ('{"id": 5, "id": 6}', r"row 1: not JSON \(duplicate key 'id' in one object\)"),
        (f"[{'1,' * 2**21}1]", "row 1: it has more than 4 MiB, the most that is read"),
        ("[]", r"row 1:.* is \[\]; expected an object"),
        ('{"id": 5, "domain": "position"}', "row 1: no field 'answer_boxes'"),
        (
            json.dumps({k: v for k, v in ROWS[2].items() if k != "id"}),
            "row 1: no field 'id'; it is an object with",
        ),
    ],
)
def test_a_faulty_line(tmp_path: Path, line: str, message: str) -> None:
    release = open_humanref(write(tmp_path, [ROWS[0], line, "", ROWS[1]]))
    assert [item.key for item in release.items] == ["00000", "00001", "00002"]  # not the blank one
    only_fault(release, "00001", "invalid_row", message)
