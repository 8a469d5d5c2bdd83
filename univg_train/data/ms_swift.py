"""ms-swift rows: texts with ``<bbox>`` and ``<ref-object>``, whose values stand in ``objects``.

A row (modelscope/ms-swift 4.6.0, docs/source_en/Customization/Custom-dataset.md)::

    {"messages": [
       {"role": "user", "content": "<image>Find the <ref-object> in the image"},
       {"role": "assistant", "content": "<bbox><bbox>"}],
     "images": ["/xxx/x.jpg"],
     "objects": {"ref": ["sheep"],
                 "bbox": [[90.9, 160.8, 135, 212.8], [360.9, 480.8, 495, 532.8]],
                 "bbox_type": "real", "image_id": [0, 0]}}

The values take the places of the marks in the order of the texts (``swift/template/base.py``).
``bbox_type`` is ``real``, pixels of the image and the default, or ``norm1``. ``image_id`` counts
from 0, and is 0 where it is missing. What ms-swift passes over in silence is a fault here: a mark
without a value, a box without a mark, a ``bbox_type`` of another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from univg_eval.benchmarks.readers.common.annotation_files import describe
from univg_eval.dialects import get_dialect
from univg_eval.dialects.image_names import find_image_names
from univg_train.data.conversations import norm_box, sound_text
from univg_train.data.rows import PLACED_BOX, RowTarget, Size, invalid_row, placed_box

__all__ = ["BOX_MARK", "place_objects"]

BOX_MARK = "<bbox>"
_REF_MARK = "<ref-object>"
_SPACES = {"real": "pixels", "norm1": "norm1"}
_CANONICAL = "qwen2_vl"
# The form for Qwen2.5-VL and later, [{"bbox_2d": <bbox>, "label": "<ref-object>"}, ...]: every
# dialect writes boxes in its own way, so that of such a list the boxes alone are kept.
_PLACED = PLACED_BOX.pattern
_REST = rf"(?:(?!{_PLACED})[^{{}}])*"
_JSON_OBJECT = re.compile(rf'\{{{_REST}"\s*:\s*({_PLACED}){_REST}\}}')
_JSON_LIST = re.compile(rf"\[\s*({_PLACED}(?:\s*,?\s*{_PLACED})*)\s*\]")
_FENCE = re.compile(r"```(?:json)?")


def place_objects(
    value: Mapping[str, Any],
    pairs: Sequence[tuple[str, str]],
    sizes: Sequence[Size],
    where: str,
) -> tuple[list[tuple[str, str]], tuple[RowTarget, ...], str]:
    """Put the objects of a row into its texts.

    Args:
        value: the row.
        pairs: question and answer of each turn, with ms-swift's marks.
        sizes: (width, height) in pixels of the row's images, as displayed.
        where: begins the message of an error.

    Returns:
        The pairs with phrases in the canonical form and a `placed_box` for each box, the boxes by
        their numbers, and the space that they were in.

    Raises:
        RowError: the objects do not fit the texts or the images, or a box is invalid.
    """
    objects = value.get("objects") or {}
    if not isinstance(objects, Mapping):
        raise invalid_row(where, f"field 'objects' is {describe(objects)}; expected an object")
    boxes, refs, ids = (_listed(objects, name, where) for name in ("bbox", "ref", "image_id"))
    bbox_type = objects.get("bbox_type") or "real"
    if not isinstance(bbox_type, str) or bbox_type not in _SPACES:
        what = f"objects.bbox_type is {describe(bbox_type)}"
        raise invalid_row(where, f"{what}; expected 'real' (pixels) or 'norm1'")
    space = _SPACES[bbox_type]
    if len(ids) > len(boxes) or not all(type(i) is int and 0 <= i < len(sizes) for i in ids):
        what = f"objects.image_id is {describe(ids)}"
        raise invalid_row(where, f"{what}; expected a number from 0 to {len(sizes) - 1} a box")
    texts = [text for pair in pairs for text in pair]
    _require_values(BOX_MARK, texts, "bbox", len(boxes), where)
    # Labels that no text shows are common, and change nothing.
    n_refs = min(len(refs), sum(text.count(_REF_MARK) for text in texts))
    _require_values(_REF_MARK, texts, "ref", n_refs, where)
    placed: list[RowTarget] = []
    phrases = iter(refs)
    for position, text in enumerate(texts):
        # A question that names an image need not say it of the box.
        names = find_image_names(text, len(sizes)) if position % 2 else []
        first = len(placed)
        for found in re.finditer(BOX_MARK, text):
            number = len(placed)
            named = [image for _, end, image in names if end <= found.start()]
            stated = number < len(ids)
            image = ids[number] if stated else named[-1] if named else None
            if image is None and (bbox_type == "real" or len(sizes) == 1):
                image = 0
            size = sizes[image or 0]
            at = f"{where}: objects.bbox[{number}], of type {bbox_type!r}"
            if not stated and bbox_type == "real" and size != sizes[0]:
                what = f"lies on image 0 without an image_id, and on image {image} by its answer"
                raise invalid_row(at, f"{what}; state objects.image_id")
            box = norm_box(boxes[number], space, size, at)
            placed.append(RowTarget(image, box))
        texts[position] = _filled(text, first, phrases, where)
    return list(zip(texts[::2], texts[1::2], strict=True)), tuple(placed), space


def _listed(objects: Mapping[str, Any], name: str, where: str) -> list[Any]:
    listed = objects.get(name) or []
    if not isinstance(listed, list):
        raise invalid_row(where, f"objects.{name} is {describe(listed)}; expected a list")
    return listed


def _require_values(mark: str, texts: Sequence[str], name: str, n: int, where: str) -> None:
    marks = sum(text.count(mark) for text in texts)
    if marks != n:
        what = f"{n} values in objects.{name} and {marks} marks {mark} in the texts"
        raise invalid_row(where, f"{what}; expected one value a mark")


def _filled(text: str, first: int, phrases: Iterator[Any], where: str) -> str:
    """A text with its phrases, and its boxes placed, numbered from `first`."""
    written = [raw for _, _, raw, _, _ in get_dialect(_CANONICAL).scan(text) if raw is not None]
    if written or PLACED_BOX.search(text):
        what = f"a box is written out in {describe(text)}; expected {BOX_MARK}"
        raise invalid_row(where, f"{what} (on 0-1000, use the form 'mgrounding')")
    parts = re.split(f"({_REF_MARK}|{BOX_MARK})", text)
    for i in range(1, len(parts), 2):
        if parts[i] == BOX_MARK:
            parts[i] = placed_box(first)
            first += 1
        else:
            phrase = sound_text(next(phrases), f"{where}: objects.ref")
            parts[i] = f"<|object_ref_start|>{phrase}<|object_ref_end|>"
    filled = "".join(parts)
    bare = _JSON_OBJECT.sub(r"\1", filled)
    if bare == filled:
        return filled
    joined = _JSON_LIST.sub(lambda m: ", ".join(PLACED_BOX.findall(m[1])), bare)
    return _FENCE.sub("", joined).strip()
