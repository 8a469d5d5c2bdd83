"""What only MIG-Bench's rows allow to check: their texts, and their derived target images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from univg_eval.audit.findings import Case
from univg_eval.benchmarks.readers.common.annotation_files import describe
from univg_eval.benchmarks.readers.mig_bench import NAMED_IMAGE
from univg_eval.samples import GroundingSample

__all__ = ["check_mig_bench"]

_INFO_BOX = re.compile(r"<\|box_start\|>\((\d+),(\d+)\),\((\d+),(\d+)\)<\|box_end\|>")
_Requested = Mapping[tuple[str, ...], set[int]]


def check_mig_bench(
    samples: Sequence[GroundingSample], sizes: Mapping[str, tuple[int, int]]
) -> tuple[list[Case], Mapping[str, Mapping[str, int]]]:
    """The cases, and the checks of the derived target images: rows and confirmed rows of each.

    Args:
        samples: rows of one of the revisions.
        sizes: (width, height) of the images that could be opened.
    """
    cases = []
    checks: dict[str, dict[str, int]] = {}
    requested = _requested_images(samples)
    for sample in samples:
        info = str(sample.extra.get("additional_info", "")).strip()
        if sample.task != "group_grounding" and info and info not in sample.instruction:
            detail = f"{sample.task}: additional_info {describe(info)}"
            cases.append(Case("text_mismatch", detail, (sample.id,)))
        pair = ["{}x{}".format(*sizes[image]) for image in sample.images if image in sizes]
        if sample.task == "diff" and len(set(pair)) > 1:
            cases.append(Case("unequal_pair", f"images of {' and '.join(pair)}", (sample.id,)))
        evidence = _target_evidence(sample, requested)
        if evidence is None:
            continue
        name, confirmed = evidence
        check = checks.setdefault(name, {"rows": 0, "confirmed": 0})
        check["rows"] += 1
        check["confirmed"] += confirmed
        if not confirmed:
            detail = f"{sample.task}: {name} does not hold"
            cases.append(Case("target_unconfirmed", detail, (sample.id,)))
    return cases, checks


def _sibling_key(sample: GroundingSample) -> tuple[str, ...]:
    """Equal for rows that ask the same about other images of one list."""
    named = list(NAMED_IMAGE.finditer(sample.instruction))
    end = named[-1].start() if named else len(sample.instruction)
    return (sample.instruction[:end], *sample.images)


def _requested_images(samples: Sequence[GroundingSample]) -> _Requested:
    """The target images of the rows of each sibling key."""
    requested: dict[tuple[str, ...], set[int]] = {}
    for sample in samples:
        requested.setdefault(_sibling_key(sample), set()).add(sample.target_image)
    return requested


def _target_evidence(sample: GroundingSample, requested: _Requested) -> tuple[str, bool] | None:
    """A check of the target image by something beside the text that it was derived from.

    Returns:
        The check in words and whether it holds, or None where the row offers no such evidence.
    """
    task = sample.task
    stems = [PurePosixPath(image).stem for image in sample.images]
    target = stems[sample.target_image]
    if task == "common_object":
        return (
            f"{task}: the rows of one list of images ask for every image",
            requested[_sibling_key(sample)] == set(range(len(stems))),
        )
    if task in ("object_tracking", "multi_view"):
        # The object is marked on the first image.
        return (
            f"{task}: the rows of one marked object ask for every image but the first",
            requested[_sibling_key(sample)] == set(range(1, len(stems))),
        )
    if task == "group_grounding":
        match = _INFO_BOX.search(str(sample.extra.get("additional_info", "")))
        return (
            f"{task}: the box beside the image's name is the answer times 1000",
            match is not None
            and [int(v) for v in match.groups()] == [round(v * 1000) for v in sample.box],
        )
    if task == "region":
        others = [stem for i, stem in enumerate(stems) if i != sample.target_image]
        return (
            f"{task}: the other files are named after the target's (name_1, name_2, …)",
            all(stem.startswith(f"{target}_") for stem in others),
        )
    if task == "diff":
        return f"{task}: the target's file is named …_target", target.endswith("_target")
    if task == "refer_grounding":
        return f"{task}: the target's file is named …_raw", target.endswith("_raw")
    if any(stem.endswith("_r") for stem in stems):
        # The release names a reference image, which the question starts from, "case012_r.png".
        return f"{task}: the target is not the reference file (…_r)", not target.endswith("_r")
    return None
