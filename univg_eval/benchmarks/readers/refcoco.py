"""RefCOCO, RefCOCO+ and RefCOCOg: one object in one COCO photograph, named by an expression.

Kazemzadeh et al., "ReferItGame" (2014); Yu et al., "Modeling Context in Referring Expressions"
(2016); Mao et al., "Generation and Comprehension of Unambiguous Object Descriptions" (2016). The
partitions that are reported are UNC's of RefCOCO and RefCOCO+ (val, testA, testB) and UMD's of
RefCOCOg (val, test); `EXPRESSIONS` says how many expressions each has.

The sets travel in several forms, and the same four numbers mean corners in one and a corner with
width and height in another. `FORMS` lists those that are read; which one a file has must be given.
The original release is a Python pickle (``refs(unc).p``): reading one runs whatever code is in it,
so it is refused and never opened; ``docs/refcoco.md`` shows how to convert it safely.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from univg_eval.benchmarks.readers.common.annotation_files import (
    CONVENTIONS,
    chosen_splits,
    describe,
    listing,
    parse_json,
    parse_line,
    unexpected,
)
from univg_eval.benchmarks.readers.common.coco import (
    TERMS,
    TRAIN2014,
    coco_name,
    train2014_folder,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry
from univg_eval.benchmarks.readers.common.parquet import (
    EMBEDDED,
    SHARD,
    EmbeddedImages,
    open_parquet,
    require_one_set_of_shards,
    store_image,
)
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    ItemError,
    Release,
    image_instruction,
    require_stated_size,
    size_of,
)
from univg_eval.boxes import Box, four_numbers
from univg_eval.errors import UserError
from univg_eval.files import file_sha256
from univg_eval.samples import GroundingSample, Target

__all__ = ["DATASETS", "ENTRIES", "EXPRESSIONS", "FORMS", "Form", "open_refcoco"]

DATASETS: Mapping[str, str] = {
    "refcoco": "refcoco",
    "refcoco+": "refcoco_plus",
    "refcocog": "refcocog",
}
"""Name of each set → name of the benchmark made from it."""

EXPRESSIONS: Mapping[str, Mapping[str, int]] = {
    "refcoco": {"val": 10_834, "testA": 5_657, "testB": 5_095},
    "refcoco+": {"val": 10_758, "testA": 5_726, "testB": 4_889},
    "refcocog": {"val": 4_896, "test": 9_602},
}
"""How many expressions the reported partitions have."""

_SLACK = 1.0  # pixels that a box may reach outside its image: rounding, and inclusive corners
_LARGEST = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One of the forms in which the sets are passed around.

    Attributes:
        name: what ``--form`` takes.
        published: where it is found.
        kind: ``parquet``, several expressions of one object a row, or ``json`` (JSON Lines, or one
            JSON list), one expression a row.
        file_name: pattern of the file names, with the group `split`, and `dataset` where it has it.
        image, expression, box: the fields with the image's name, the expressions, and the box in
            absolute pixels.
        convention: of the box: ``xyxy`` (two corners) or ``xywh`` (a corner, width and height).
        others: further fields that a row must have.
        embedded: whether the file holds the images, in a field ``image``.
    """

    name: str
    published: str
    kind: Literal["parquet", "json"]
    file_name: str
    image: str
    expression: str
    box: str = "bbox"
    convention: Literal["xyxy", "xywh"] = "xyxy"
    others: tuple[str, ...] = ("height", "width")
    embedded: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that a row must have."""
        return (self.image, self.expression, self.box, *self.others)


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(
            name="lmms_lab",
            published="Hub datasets lmms-lab/RefCOCO, lmms-lab/RefCOCOplus, lmms-lab/RefCOCOg",
            kind="parquet",
            file_name=rf"(?P<split>val|testA|testB|test){SHARD}",
            image="file_name",
            expression="answer",
            convention="xywh",
            others=("question_id", "image"),
            embedded=True,
        ),
        Form(
            name="jxu124",
            published="Hub datasets jxu124/refcoco, jxu124/refcocoplus, jxu124/refcocog",
            kind="parquet",
            file_name=rf"(?P<split>validation|testA|testB|test){SHARD}",
            image="image_path",
            expression="sentences",
            others=("split", "raw_anns", "raw_image_info", "ref_id", "ann_id"),
        ),
        Form(
            name="shikra",
            published="the annotation archive of github.com/shikras/shikra: REC_refcoco_unc_val…",
            kind="json",
            file_name=r"REC_(?P<dataset>refcoco\+?|refcocog)_(?:unc|umd)_"
            r"(?P<split>val|testA|testB|test)\.jsonl",
            image="img_path",
            expression="expression",
        ),
        Form(
            name="qwen_vl",
            published="the evaluation data of github.com/QwenLM/Qwen-VL: refcoco_val.jsonl…",
            kind="json",
            file_name=r"(?P<dataset>refcoco\+?|refcocog)_(?P<split>val|testA|testB|test)\.jsonl",
            image="image",
            expression="sent",
        ),
        Form(
            name="vlm_r1",
            published="rec_jsons_processed.zip of the Hub dataset omlab/VLM-R1: refcoco_val.json…",
            kind="json",
            file_name=r"(?P<dataset>refcocop?|refcocog)_(?P<split>val|testA|testB|test)\.jsonl?",
            image="image",
            expression="normal_caption",
            box="solution",
        ),
    )
}


def open_refcoco(
    source: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    splits: Sequence[str] | None = None,
    form: str | None = None,
    dataset: str = "refcoco",
    workspace: str | os.PathLike[str] | None = None,
) -> Release:
    """Open one of the three sets in one of `FORMS`.

    Args:
        source: the folder with the form's files under their published names (or its folder
            ``data``), or one file; a file of another name needs exactly one split.
        images: the folder with COCO's train2014 images. Forms that hold their images do without.
        splits: some of the set's splits; None: those that are there.
        form: a name of `FORMS`; it has to be given.
        dataset: ``refcoco``, ``refcoco+`` or ``refcocog``.
        workspace: the benchmark's folder below the data root. Without `images`, those that the
            files hold are written there, below ``embedded/``, named after their content.

    Returns:
        One item a row. A sample is an expression: ``refcoco-testA-00017`` is that of row 17
        (0-based, of the split), ``refcoco-testA-00017-1`` the second one of a row with several.
        Rows of one photograph share a cluster. The revision is the form's name.

    Raises:
        UserError: the form, the set or a split is unknown; `source` is a pickle, does not have
            the form's files, has fields of another form, or has more expressions in a split than
            the reported partition; a folder of images is needed.
    """
    if dataset not in DATASETS:
        raise UserError(f"unknown set {dataset!r}; expected one of: {', '.join(DATASETS)}")
    benchmark = DATASETS[dataset]
    path = Path(source).expanduser()
    if path.suffix in _PICKLE_NAMES:
        raise UserError(f"{path} is {_PICKLE_REMEDY}")
    shape = _get_form(form)
    known = list(EXPRESSIONS[dataset])
    wanted = chosen_splits(benchmark, known, splits) or known
    found = _find_files(path, shape, dataset, wanted, requested=splits is not None)
    is_embedded = shape.embedded and workspace is not None and images is None
    folder = None if is_embedded else train2014_folder(images, f"form {shape.name!r}")
    reader = _Reader(benchmark, dataset, shape, folder, Path(workspace or "."))
    files = {split: [_File(path, shape) for path in paths] for split, paths in found.items()}
    counts = {
        split: _require_reported_size(of_split, shape, dataset, split)
        for split, of_split in files.items()
    }
    items = []
    for split, of_split in files.items():
        rows = [(file, row) for file in of_split for row in range(len(file.rows))]
        for number, (file, row) in enumerate(rows):
            convert = partial(reader.convert, file, row, split, number)
            items.append(Item(key=f"{split}/{number:05d}", convert=convert))
    return Release(
        benchmark=benchmark,
        items=items,
        links={"images": folder.folder} if folder is not None else {},
        source={
            "form": shape.name,
            "revision": shape.name,
            "dataset": dataset,
            "box": shape.convention,
            "images": "folder" if folder is not None else EMBEDDED,
            "files": [
                {"file": path.name, "sha256": file_sha256(path), "split": split}
                for split, paths in found.items()
                for path in paths
            ],
            "expressions": {
                split: {"found": n, "reported": EXPRESSIONS[dataset][split]}
                for split, n in counts.items()
            },
        },
    )


def _get_form(name: str | None) -> Form:
    if name is not None and name in FORMS:
        return FORMS[name]
    received = "no form is given" if name is None else f"unknown form {name!r}"
    raise UserError(
        f"{received}; the boxes of the forms are written differently, so it is never guessed. Give "
        "--form with one of: "
        + "; ".join(f"{form.name} ({form.published})" for form in FORMS.values())
    )


_PICKLE_NAMES = (".p", ".pkl", ".pickle")
_PICKLE_REMEDY = (
    "a Python pickle; reading one runs whatever code is in it, so it is never opened. Take another "
    "form (jxu124 has the same annotations), or convert it with the script in docs/refcoco.md"
)


# Files


def _split_and_set(form: Form, name: str, dataset: str) -> tuple[str, str] | None:
    """(split, set) by a file's name in this form; None if it is no name of the form."""
    match = re.fullmatch(form.file_name, name)
    if match is None:
        return None
    split = match["split"].replace("validation", "val")
    if form.name == "jxu124" and split == "test" and dataset != "refcocog":
        split = "testA"  # this form calls it so; the rows have testA
    of = match.groupdict().get("dataset") or dataset
    return split, {"refcocop": "refcoco+"}.get(of, of)


def _find_files(
    path: Path, form: Form, dataset: str, wanted: Sequence[str], *, requested: bool
) -> dict[str, list[Path]]:
    """Split → its files in the order of their rows."""
    if path.is_file():
        named = _split_and_set(form, path.name, dataset)
        if named is None and requested and len(wanted) == 1:
            named = (wanted[0], dataset)
        if named is None:
            raise UserError(
                f"the name of {path} does not name its split, as those of form {form.name!r} do; "
                "give exactly one with --split"
            )
        if named[1] != dataset or named[0] not in wanted:
            raise UserError(
                f"{path} holds split {named[0]!r} of {named[1]} by its name; expected "
                f"{', '.join(wanted)} of {dataset}: give the right file, set or split"
            )
        return {named[0]: [path]}
    if not path.is_dir():
        raise UserError(
            f"{path} does not exist; give the folder with the files of form {form.name!r} "
            f"({form.published}), or one of them"
        )
    found: dict[str, list[Path]] = {}
    for folder in (path, path / "data", path / dataset):
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            named = _split_and_set(form, file.name, dataset)
            if named is not None and named[1] == dataset and named[0] in wanted and file.is_file():
                found.setdefault(named[0], []).append(file)
    missing = [split for split in wanted if split not in found]
    if not found or (requested and missing):
        raise UserError(_no_files(path, form, dataset, missing))
    for files in found.values():
        require_one_set_of_shards(files, f"form {form.name!r}")
    return {split: found[split] for split in wanted if split in found}


def _no_files(path: Path, form: Form, dataset: str, missing: Sequence[str]) -> str:
    names = [file.name for file in path.iterdir()]
    if any(name.startswith("refs(") and name.endswith(_PICKLE_NAMES) for name in names):
        return f"{path} is the original release, its references {_PICKLE_REMEDY}"
    alike = [
        other.name
        for other in FORMS.values()
        if other is not form and any(re.fullmatch(other.file_name, name) for name in names)
    ]
    return (
        f"{path} has no files of {dataset} ({', '.join(missing)}) in form {form.name!r} "
        f"({form.published}); it holds: {listing(path)}"
        + (f". Those names look like form {' or '.join(alike)}" if alike else "")
    )


# Rows


class _File:
    """A file's rows, as they are, and the images it holds."""

    def __init__(self, path: Path, form: Form) -> None:
        self.path = path
        self.rows = _parquet_rows(path, form) if form.kind == "parquet" else _json_rows(path, form)
        self.images = EmbeddedImages(path)


def _parquet_rows(file: Path, form: Form) -> list[Any]:
    with open_parquet(file) as table:
        _require_fields(file, table.schema_arrow.names, form)
        read = [name for name in form.fields if not (form.embedded and name == "image")]
        rows: list[Any] = table.read(columns=read).to_pylist()
    return rows


def _json_rows(file: Path, form: Form) -> list[Any]:
    """The values of a JSON list or of JSON Lines; of a line that is no JSON its fault."""
    try:
        raw = file.read_bytes()
        is_list = raw.lstrip().startswith(b"[")
        lines = [line for line in raw.split(b"\n") if line.strip()]
        rows = parse_json(raw) if is_list else [_parsed_line(line) for line in lines]
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{file}: {error}; if its download broke off, fetch it again") from error
    objects = [row for row in rows if isinstance(row, dict)]
    if not objects:
        raise UserError(
            f"{file}: holds no JSON objects; expected a list of them, or one a line, with the "
            f"fields of form {form.name!r}: {', '.join(form.fields)}"
        )
    # A faulty row does not make a file one of another form.
    typical = next((row for row in objects if set(form.fields) <= row.keys()), objects[0])
    _require_fields(file, list(typical), form)
    return rows


def _parsed_line(line: bytes) -> Any:
    try:
        return parse_line(line)
    except ValueError as error:
        return _fault(f"is no JSON object ({error})")


def _require_fields(file: Path, names: Sequence[str], form: Form) -> None:
    missing = [name for name in form.fields if name not in names]
    if not missing:
        return
    alike = [other.name for other in FORMS.values() if set(other.fields) <= set(names)]
    raise UserError(
        f"{file} is not of form {form.name!r}: it has no {', '.join(missing)}; its fields are: "
        f"{', '.join(names)}" + (f". They are those of form {' or '.join(alike)}" if alike else "")
    )


def _expressions(row: Any, form: Form) -> list[Any]:
    value = row.get(form.expression) if isinstance(row, dict) else None
    if form.kind == "json":
        return [value]
    if not isinstance(value, list):
        return []
    return [entry.get("sent") if isinstance(entry, dict) else entry for entry in value]


def _require_reported_size(files: Sequence[_File], form: Form, dataset: str, split: str) -> int:
    """How many expressions a split has; UserError if they are more than the partition's."""
    count = sum(len(_expressions(row, form)) for file in files for row in file.rows)
    reported = EXPRESSIONS[dataset][split]
    others = [
        name
        for name, sizes in EXPRESSIONS.items()
        if name != dataset and sizes.get(split) == count != reported
    ]
    if count <= reported and not others:
        return count
    if others:
        reason = f"that is {others[0]}: prepare it as {DATASETS[others[0]]!r}"
    elif form.name == "lmms_lab" and split == "val":
        reason = (
            "this form's val of RefCOCO and RefCOCOg holds Google's partition too, so its scores "
            "do not compare with published ones; take val from another form, such as jxu124"
        )
    else:
        reason = "these are not the rows of that partition; get the files of the form again"
    names = ", ".join(file.path.name for file in files)
    raise UserError(
        f"{names}: {count:,} expressions, but {split} of {dataset} has {reported:,}; {reason}"
    )


# Converting a row

_SPLIT_NAMES = {"val": ("val", "validation"), "testA": ("testA", "test")}


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes samples of rows; `workspace` counts where there is no `folder` of images."""

    benchmark: str
    dataset: str
    form: Form
    folder: ImageFolder | None
    workspace: Path

    def convert(self, file: _File, row: int, split: str, number: int) -> list[GroundingSample]:
        """The samples of a row of a file, which is `number` in its split."""
        try:
            return self._samples(file, row, split, number)
        except ItemError as error:
            raise ItemError(error.kind, f"{file.path.name} row {row}: {error}") from error

    def _samples(self, file: _File, place: int, split: str, number: int) -> list[GroundingSample]:
        form = self.form
        row = file.rows[place]
        if isinstance(row, ItemError):
            raise row
        if not isinstance(row, dict):
            raise _fault(f"is {describe(row)}; expected an object")
        self._require_this_set(row, split)
        expressions = _checked_expressions(row, form)
        released = row[form.image]
        if not isinstance(released, str) or not released:
            raise unexpected(f"field {form.image!r}", released, "an image's path")
        photograph = coco_name(released)
        if self.folder is not None:
            found = self.folder.find(photograph)
            image, size = f"images/{found}", size_of(self.folder.folder / found)
        else:
            stored = store_image(file.images.of_row(place), self.workspace / EMBEDDED)
            image = f"{EMBEDDED}/{stored}"
            size = size_of(self.workspace / image)
        stated = _parsed(row, "raw_image_info") if form.name == "jxu124" else row
        if "width" in stated:
            require_stated_size(stated, size, f"COCO's image {released!r}")
        box = _box_norm(row[form.box], form, size)
        _require_agreement(row, form, box, size)
        base = f"{self.benchmark}-{split}-{number:05d}"
        facts = {key: row[key] for key in ("question_id", "ref_id", "ann_id") if key in row}
        return [
            GroundingSample(
                id=base if form.kind == "json" else f"{base}-{k}",
                benchmark=self.benchmark,
                task=f"{self.benchmark}_{split}",  # published tables have a column for each split
                split=split,
                images=(f"{self.benchmark}/{image}",),
                widths=(size[0],),
                heights=(size[1],),
                instruction=image_instruction(expression),
                targets=(Target(0, box),),
                image_is_given=True,
                cluster=f"{self.benchmark}-{PurePosixPath(photograph).stem}",
                source={
                    "file": file.path.name,
                    "revision": form.name,
                    "row": number,
                    "images": [released],
                },
                extra={"expression": expression} | facts,
            )
            for k, expression in enumerate(expressions)
        ]

    def _require_this_set(self, row: Mapping[str, Any], split: str) -> None:
        """Compare the set and split that a row names with those of its file."""
        name = row.get("dataset_name")
        named = str(name).rpartition("/")[2].lower()
        named = {"refcocop": "refcoco+", "refcocoplus": "refcoco+"}.get(named, named)
        if named in DATASETS and named != self.dataset:
            raise unexpected("field 'dataset_name'", name, repr(self.dataset))
        if self.form.name == "jxu124" and row["split"] not in _SPLIT_NAMES.get(split, (split,)):
            raise _fault(f"field 'split' is {row['split']!r}, but the file is that of {split!r}")


def _fault(message: str) -> ItemError:
    return ItemError("invalid_row", message)


def _checked_expressions(row: Mapping[str, Any], form: Form) -> list[str]:
    embedded = {"image"} - {form.image}  # of forms that hold their images; it is read apart
    missing = [name for name in form.fields if name not in row and name not in embedded]
    if missing:
        raise _fault(f"has no {', '.join(missing)}; expected: {', '.join(form.fields)}")
    expressions = _expressions(row, form)
    if not expressions or not all(isinstance(text, str) and text.strip() for text in expressions):
        expected = "an expression" if form.kind == "json" else "expressions"
        raise unexpected(f"field {form.expression!r}", row[form.expression], expected)
    return expressions


# Boxes


def _corners(value: Any, name: str, convention: str) -> Box:
    """x1, y1, x2, y2 of a box in pixels written in one of `CONVENTIONS`."""
    numbers = four_numbers(value, _LARGEST)
    if numbers is None:
        raise unexpected(name, value, "four numbers in pixels")
    x1, y1, x2, y2 = numbers
    return (x1, y1, x1 + x2, y1 + y2) if convention == "xywh" else numbers


def _box_norm(value: Any, form: Form, image_wh: tuple[int, int]) -> Box:
    """A row's box, in the form's convention, on [0, 1] of its image."""
    x1, y1, x2, y2 = _corners(value, f"field {form.box!r}", form.convention)
    width, height = image_wh
    inside = min(x1, y1) >= -_SLACK and x2 <= width + _SLACK and y2 <= height + _SLACK
    if not inside or x1 >= x2 or y1 >= y2:
        other = "xywh" if form.convention == "xyxy" else "xyxy"
        raise _fault(
            f"field {form.box!r} is {describe(value)}, read as {CONVENTIONS[form.convention]}; it "
            f"is no box in an image of {width}x{height} pixels. If the file writes "
            f"{CONVENTIONS[other]}, it is not of form {form.name!r}"
        )
    return max(x1, 0) / width, max(y1, 0) / height, min(x2, width) / width, min(y2, height) / height


def _parsed(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A field that holds a JSON object as text."""
    try:
        value = json.loads(row[name])
    except (TypeError, ValueError, RecursionError) as error:
        raise _fault(f"field {name!r} is no JSON text ({error})") from error
    if not isinstance(value, dict):
        raise unexpected(f"field {name!r}", value, "a JSON object")
    return value


def _require_agreement(
    row: Mapping[str, Any], form: Form, box: Box, image_wh: tuple[int, int]
) -> None:
    """Compare the box with a second statement of it in the row."""
    if form.name == "jxu124":
        second = _corners(_parsed(row, "raw_anns").get("bbox"), "raw_anns' bbox", "xywh")
        units, slack = image_wh * 2, 2 * _SLACK
    elif form.name == "vlm_r1" and "normalized_solution" in row:
        second = _corners(row["normalized_solution"], "field 'normalized_solution'", "xyxy")
        units, slack = (1000, 1000, 1000, 1000), 2.0
    else:
        return
    if any(abs(a * unit - b) > slack for a, b, unit in zip(box, second, units, strict=True)):
        raise _fault(
            f"field {form.box!r} is {describe(row[form.box])}, but the row's second statement of "
            f"the box is {describe(list(second))}: they are not the same box, so the file is not "
            f"of form {form.name!r}"
        )


# The README of lichengunc/refer, where the annotations are published, says nothing of terms.
_UNC = (
    "Apache-2.0 (README of JierunChen/Ref-L4; also the licence of the repository lichengunc/refer)"
)
_GOOGLE = (
    "CC BY 4.0 (README of mjhucla/Google_Refexp_toolbox, its authors, and of JierunChen/Ref-L4)"
)

ENTRIES = tuple(
    CatalogEntry(
        name=DATASETS[dataset],
        title=title,
        opener=open_refcoco,
        splits=splits,
        options=("form",),
        fixed={"dataset": dataset},
        needs_workspace=True,
        tasks={f"univg_{DATASETS[dataset]}_{split}": split for split in splits},
        by_hand=(
            ByHand("the annotations in one of the forms of docs/refcoco.md", "docs/refcoco.md"),
            TRAIN2014,
        ),
        licence=f"annotations: {licence}; {TERMS}",
        comparable_with_published=True,
        published="Acc@0.5 on these partitions, as most papers report it",
    )
    for dataset, title, splits, licence in (
        ("refcoco", "RefCOCO, UNC's partition", ("val", "testA", "testB"), _UNC),
        ("refcoco+", "RefCOCO+, UNC's partition", ("val", "testA", "testB"), _UNC),
        ("refcocog", "RefCOCOg, UMD's partition", ("val", "test"), _GOOGLE),
    )
)
