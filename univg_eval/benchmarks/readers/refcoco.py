"""RefCOCO, RefCOCO+ and RefCOCOg: one object in one COCO photograph, named by an expression.

Kazemzadeh et al., "ReferItGame" (2014); Yu et al., "Modeling Context in Referring Expressions"
(2016); Mao et al., "Generation and Comprehension of Unambiguous Object Descriptions" (2016). The
partitions that are reported are UNC's of RefCOCO and RefCOCO+ (val, testA, testB) and UMD's of
RefCOCOg (val, test); `EXPRESSIONS` says how many expressions each has.

The sets travel in several forms, and the same four numbers mean corners in one and a corner with
width and height in another. `FORMS` lists those that are read, each with its fields and its
convention of boxes; which one a file has must be said. The original release is a Python pickle
(``refs(unc).p``): reading one runs whatever code stands in it, so it is refused and never opened;
``docs/refcoco.md`` shows how to convert it safely.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from univg_eval.benchmarks.readers.common.annotation_files import (
    chosen_splits,
    describe,
    file_sha256,
    parse_json,
)
from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry
from univg_eval.benchmarks.readers.common.release import (
    ImageFolder,
    Item,
    ItemError,
    Release,
    image_instruction,
    size_of,
)
from univg_eval.boxes import Box
from univg_eval.errors import UserError
from univg_eval.samples import GroundingSample, Target

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

__all__ = ["DATASETS", "ENTRIES", "EXPRESSIONS", "FORMS", "Form", "benchmark_name", "open_refcoco"]

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

EMBEDDED = "embedded"
_SLACK = 1.0  # pixels that a box may reach outside its image: rounding, and inclusive corners


@dataclass(frozen=True, slots=True)
class Form:
    """One of the forms in which the sets are passed around.

    Attributes:
        name: what ``--form`` takes.
        published: where it is found.
        kind: ``parquet`` or ``json`` (JSON Lines, or one JSON list).
        fields: that a row must have.
        box_field: the field with the box, absolute pixels.
        box: ``xyxy`` (two corners) or ``xywh`` (a corner, width and height).
        image_field: names the image.
        expression_field: the expression, or a list of them, or of objects with ``sent``.
        embedded: whether the image stands in the file.
        several: whether a row holds several expressions of its object.
        file_name: pattern of the file names, with the groups `split` and, where the name tells
            it, `dataset`.
    """

    name: str
    published: str
    kind: Literal["parquet", "json"]
    fields: tuple[str, ...]
    box_field: str
    box: Literal["xyxy", "xywh"]
    image_field: str
    expression_field: str
    embedded: bool
    several: bool
    file_name: re.Pattern[str]


_SHARD = r"(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?)?\.parquet"
FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(
            name="lmms_lab",
            published="Hub datasets lmms-lab/RefCOCO, lmms-lab/RefCOCOplus, lmms-lab/RefCOCOg",
            kind="parquet",
            fields=("question_id", "image", "answer", "bbox", "file_name"),
            box_field="bbox",
            box="xywh",
            image_field="file_name",
            expression_field="answer",
            embedded=True,
            several=True,
            file_name=re.compile(r"(?P<split>val|testA|testB|test)" + _SHARD),
        ),
        Form(
            name="jxu124",
            published="Hub datasets jxu124/refcoco, jxu124/refcocoplus, jxu124/refcocog",
            kind="parquet",
            fields=(
                *("bbox", "image_path", "sentences", "split"),
                *("raw_anns", "raw_image_info", "ref_id", "ann_id"),
            ),
            box_field="bbox",
            box="xyxy",
            image_field="image_path",
            expression_field="sentences",
            embedded=False,
            several=True,
            file_name=re.compile(r"(?P<split>validation|testA|testB|test)" + _SHARD),
        ),
        Form(
            name="shikra",
            published="the annotation archive of github.com/shikras/shikra: REC_refcoco_unc_val…",
            kind="json",
            fields=("img_path", "expression", "bbox", "height", "width"),
            box_field="bbox",
            box="xyxy",
            image_field="img_path",
            expression_field="expression",
            embedded=False,
            several=False,
            file_name=re.compile(
                r"REC_(?P<dataset>refcoco\+?|refcocog)_(?:unc|umd)_"
                r"(?P<split>val|testA|testB|test)\.jsonl"
            ),
        ),
        Form(
            name="qwen_vl",
            published="the evaluation data of github.com/QwenLM/Qwen-VL: refcoco_val.jsonl…",
            kind="json",
            fields=("image", "sent", "bbox", "height", "width"),
            box_field="bbox",
            box="xyxy",
            image_field="image",
            expression_field="sent",
            embedded=False,
            several=False,
            file_name=re.compile(
                r"(?P<dataset>refcoco\+?|refcocog)_(?P<split>val|testA|testB|test)\.jsonl"
            ),
        ),
        Form(
            name="vlm_r1",
            published="rec_jsons_processed.zip of the Hub dataset omlab/VLM-R1: refcoco_val.json…",
            kind="json",
            fields=("image", "normal_caption", "solution", "height", "width"),
            box_field="solution",
            box="xyxy",
            image_field="image",
            expression_field="normal_caption",
            embedded=False,
            several=False,
            file_name=re.compile(
                r"(?P<dataset>refcocop?|refcocog)_(?P<split>val|testA|testB|test)\.jsonl?"
            ),
        ),
    )
}
_CONVENTIONS = {"xyxy": "x1, y1, x2, y2", "xywh": "x, y, width, height"}


def benchmark_name(dataset: str) -> str:
    """``refcoco``, ``refcoco_plus`` or ``refcocog``; UserError listing the known sets."""
    if dataset not in DATASETS:
        raise UserError(f"unknown set {dataset!r}; expected one of: {', '.join(DATASETS)}")
    return DATASETS[dataset]


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
        source: the folder with the form's files, under the names they are published with (or its
            folder ``data``), or one file; a file of another name needs exactly one split.
        images: the folder with COCO's train2014 images. Forms that hold their images do without.
        splits: some of ``val``, ``testA``, ``testB`` (RefCOCO, RefCOCO+) or ``val``, ``test``
            (RefCOCOg); None: those that are there.
        form: a name of `FORMS`; it has to be said.
        dataset: ``refcoco``, ``refcoco+`` or ``refcocog``.
        workspace: the benchmark's own folder below the data root. Images that stand in the files
            are written there, below ``embedded/``, named after their content; needed for these
            forms without `images`.

    Returns:
        One item a row. A sample is an expression: ``refcoco-testA-00017`` is that of row 17
        (0-based, of the split), ``refcoco-testA-00017-1`` the second one of a row with several.
        Rows of one photograph share a cluster. The revision is the form's name.

    Raises:
        UserError: the form, the set or a split is unknown; `source` is a pickle, does not have
            the form's files, has fields of another form, or has more expressions in a split than
            the reported partition; a folder of images is needed.
    """
    benchmark = benchmark_name(dataset)
    path = Path(source).expanduser()
    _refuse_pickle(path)
    shape = _get_form(form)
    known = list(EXPRESSIONS[dataset])
    wanted = chosen_splits(benchmark, known, splits) or known
    files = _find_files(path, shape, dataset, wanted, asked=splits is not None)
    folder = ImageFolder(images, unique_names=True) if images is not None else None
    if folder is None and not shape.embedded:
        raise UserError(
            f"form {shape.name!r} names COCO's photographs and does not hold them; give the folder "
            "of train2014 (13 GB, cocodataset.org) with --images"
        )
    if folder is None and workspace is None:
        raise UserError(
            f"form {shape.name!r} holds its images, and they have to be written somewhere; give a "
            "workspace, or the folder of COCO's train2014 with images"
        )
    place = None if folder is not None or workspace is None else Path(workspace)
    tables = {split: _open_table(split_files, shape) for split, split_files in files.items()}
    counts = {
        split: _require_reported_size(table, shape, dataset, split)
        for split, table in tables.items()
    }
    reader = _Reader(benchmark, dataset, shape, folder, place)
    items = [
        Item(
            key=f"{split}/{number:05d}",
            convert=_Conversion(reader, table, split, number),
        )
        for split, table in tables.items()
        for number in range(table.n)
    ]
    return Release(
        benchmark=benchmark,
        items=items,
        n_items=len(items),
        links={"images": folder.folder} if folder is not None else {},
        source={
            "form": shape.name,
            "revision": shape.name,
            "dataset": dataset,
            "box": shape.box,
            "images": "folder" if folder is not None else EMBEDDED,
            "files": [
                {"file": file.name, "sha256": file_sha256(file), "split": split}
                for split, split_files in files.items()
                for file in split_files
            ],
            "expressions": {
                split: {"found": counts[split], "reported": EXPRESSIONS[dataset][split]}
                for split in tables
            },
        },
    )


def _get_form(name: str | None) -> Form:
    if name is None or name not in FORMS:
        received = "no form is given" if name is None else f"unknown form {name!r}"
        raise UserError(
            f"{received}; the boxes of the forms are written differently, so it is never guessed. "
            "Give --form with one of: "
            + "; ".join(f"{form.name} ({form.published})" for form in FORMS.values())
        )
    return FORMS[name]


_PICKLE_NAMES = (".p", ".pkl", ".pickle")
_PICKLE_BEGINS = (b"\x80", b"(lp", b"(dp")
_PICKLE_REMEDY = (
    "Reading a pickle runs whatever code stands in it, so it is never opened here. Take another "
    "form (jxu124 has the same annotations as Parquet), or convert it with the script in "
    "docs/refcoco.md, which runs none"
)


def _refuse_pickle(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("rb") as file:
        begins = file.read(3)
    if path.suffix in _PICKLE_NAMES or begins.startswith(_PICKLE_BEGINS):
        raise UserError(f"{path} is a Python pickle. {_PICKLE_REMEDY}")


# Files


def _split_and_set(form: Form, name: str, dataset: str) -> tuple[str, str] | None:
    """(split, set) that a file's name tells in this form; None if it is no name of the form."""
    match = form.file_name.fullmatch(name)
    if match is None:
        return None
    said = match.groupdict()
    split = said["split"].replace("validation", "val")
    if form.name == "jxu124" and split == "test" and dataset != "refcocog":
        split = "testA"  # this form calls it so; the rows say testA
    of = said.get("dataset") or dataset
    return split, {"refcocop": "refcoco+"}.get(of, of)


def _find_files(
    path: Path, form: Form, dataset: str, wanted: Sequence[str], *, asked: bool
) -> dict[str, list[Path]]:
    """Split → its files in the order of their rows."""
    if path.is_file():
        return {_split_of_file(path, form, dataset, wanted, asked=asked): [path]}
    if not path.is_dir():
        raise UserError(
            f"{path} does not exist; give the folder with the files of form {form.name!r} "
            f"({form.published}), or one of them"
        )
    found: dict[str, list[Path]] = {}
    for folder in (path, path / "data", path / dataset):
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            told = _split_and_set(form, file.name, dataset)
            if told is not None and told[1] == dataset and told[0] in wanted and file.is_file():
                found.setdefault(told[0], []).append(file)
    missing = [split for split in wanted if split not in found]
    if not found or (asked and missing):
        raise UserError(_no_files(path, form, dataset, missing))
    for files in found.values():
        _require_one_set_of_shards(files, form)
    return {split: found[split] for split in wanted if split in found}


def _split_of_file(
    path: Path, form: Form, dataset: str, wanted: Sequence[str], *, asked: bool
) -> str:
    told = _split_and_set(form, path.name, dataset)
    if told is None:
        if not asked or len(wanted) != 1:
            raise UserError(
                f"the name of {path} does not tell its split, as the names of form {form.name!r} "
                "do; give exactly one with --split"
            )
        return wanted[0]
    split, of = told
    if of != dataset or split not in wanted:
        raise UserError(
            f"{path} holds split {split!r} of {of} by its name; {', '.join(wanted)} of {dataset} "
            "was asked for: give the right file, set or split"
        )
    return split


def _no_files(path: Path, form: Form, dataset: str, missing: Sequence[str]) -> str:
    names = sorted(file.name for file in path.iterdir())
    if any(name.startswith("refs(") and name.endswith(_PICKLE_NAMES) for name in names):
        return f"{path} is the original release, with its references in a Python pickle. " + (
            _PICKLE_REMEDY
        )
    alike = [
        other.name
        for other in FORMS.values()
        if other is not form and any(other.file_name.fullmatch(name) for name in names)
    ]
    return (
        f"{path} has no files of {dataset} ({', '.join(missing)}) in form {form.name!r} "
        f"({form.published}); it holds: {', '.join(names[:8]) or 'nothing'}"
        + (", …" if len(names) > 8 else "")
        + (f". Those names look like form {' or '.join(alike)}" if alike else "")
    )


_SHARD_NUMBERS = re.compile(r"-(\d{5})-of-(\d{5})")


def _require_one_set_of_shards(files: Sequence[Path], form: Form) -> None:
    numbers = [_SHARD_NUMBERS.search(file.name) for file in files]
    if len(files) == 1 and numbers[0] is None:
        return
    parts = [int(match[1]) for match in numbers if match is not None]
    totals = {int(match[2]) for match in numbers if match is not None}
    if len(parts) == len(files) and len(totals) == 1 and parts == list(range(max(totals))):
        return
    raise UserError(
        f"{files[0].parent}: the files {', '.join(file.name for file in files)} are not the parts "
        f"of one split, each once; download form {form.name!r} again, or give one file"
    )


# Rows


class _Table:
    """The rows of one split, and the images that stand beside them."""

    def __init__(self, files: Sequence[Path], rows: Sequence[Any], offsets: Sequence[int]) -> None:
        """Take rows (dicts, or a text that says what is wrong) and where each file begins."""
        self.files = list(files)
        self.n = len(rows)
        self._rows = rows
        self._offsets = offsets
        # Rows are converted in order: one group of rows of one file is in memory at a time.
        self._group = lru_cache(maxsize=1)(_image_column)
        self._group_ends = lru_cache(maxsize=None)(_group_ends)

    def where(self, number: int) -> str:
        """File and row within it, for messages."""
        file, row = self._place(number)
        return f"{file.name} row {row}"

    def file(self, number: int) -> Path:
        """The file that holds a row."""
        return self._place(number)[0]

    def row(self, number: int) -> Any:
        """What the file says in a row, images left out."""
        return self._rows[number]

    def image(self, number: int) -> Any:
        """The ``image`` column of a row."""
        file, row = self._place(number)
        ends = self._group_ends(file)
        group = next(i for i, end in enumerate(ends) if row < end)
        return self._group(file, group)[row - (ends[group - 1] if group else 0)]

    def _place(self, number: int) -> tuple[Path, int]:
        index = max(i for i, offset in enumerate(self._offsets) if offset <= number)
        return self.files[index], number - self._offsets[index]


def _open_table(files: Sequence[Path], form: Form) -> _Table:
    rows: list[Any] = []
    offsets = []
    for file in files:
        offsets.append(len(rows))
        rows += (_parquet_rows if form.kind == "parquet" else _json_rows)(file, form)
    return _Table(files, rows, offsets)


def _require_fields(file: Path, names: Sequence[str], form: Form) -> None:
    missing = [name for name in form.fields if name not in names]
    if not missing:
        return
    alike = [other.name for other in FORMS.values() if set(other.fields) <= set(names)]
    raise UserError(
        f"{file} is not of form {form.name!r}: it has no {', '.join(missing)}; its fields are: "
        f"{', '.join(names)}" + (f". They are those of form {' or '.join(alike)}" if alike else "")
    )


@contextmanager
def _parquet(file: Path) -> Iterator[ParquetFile]:
    """Open a Parquet file; failures to open and to read it become a UserError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"reading {file} needs the package pyarrow: pip install 'univg[eval]'"
        ) from error
    try:
        with parquet.ParquetFile(file) as opened:
            yield opened
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(
            f"cannot read {file} as Parquet: {error}; a download that broke off looks like this "
            "(and so does a Git LFS pointer): download it again"
        ) from error


def _parquet_rows(file: Path, form: Form) -> list[Any]:
    with _parquet(file) as table:
        _require_fields(file, table.schema_arrow.names, form)
        read = [name for name in form.fields if not (form.embedded and name == "image")]
        rows: list[Any] = table.read(columns=read).to_pylist()
    return rows


def _group_ends(file: Path) -> list[int]:
    """The number of rows up to the end of each group of rows."""
    with _parquet(file) as table:
        metadata = table.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return list(accumulate(sizes))


def _image_column(file: Path, group: int) -> list[Any]:
    with _parquet(file) as table:
        images: list[Any] = table.read_row_group(group, columns=["image"])["image"].to_pylist()
    return images


def _json_rows(file: Path, form: Form) -> list[Any]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    if raw.startswith(b"PAR1"):
        parquet = [other.name for other in FORMS.values() if other.kind == "parquet"]
        raise UserError(
            f"{file} is a Parquet file, and form {form.name!r} is JSON; the forms in Parquet are "
            f"{' and '.join(parquet)}"
        )
    rows = _json_list(file, raw) if raw.lstrip().startswith(b"[") else _json_lines(raw)
    objects = [row for row in rows if isinstance(row, dict)]
    if not objects:
        raise UserError(
            f"{file}: holds no rows"
            + (f" (the first entry {rows[0]})" if rows else "")
            + "; expected a JSON list of objects, or one object a line, with the fields of form "
            f"{form.name!r}: {', '.join(form.fields)}"
        )
    # A faulty row does not make a file one of another form.
    typical = next((row for row in objects if set(form.fields) <= row.keys()), objects[0])
    _require_fields(file, list(typical), form)
    return rows


def _json_list(file: Path, raw: bytes) -> list[Any]:
    try:
        rows = parse_json(raw.decode("utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file}: {error}; a download that broke off looks like this: download it again"
        ) from error
    return [_object_or_fault(row) for row in rows]


def _json_lines(raw: bytes) -> list[Any]:
    rows: list[Any] = []
    for line in raw.split(b"\n"):
        if not line.strip():
            continue
        try:
            value = parse_json(line.decode("utf-8"))
        except ValueError as error:
            rows.append(f"is no JSON object ({error})")
        else:
            rows.append(_object_or_fault(value))
    return rows


def _object_or_fault(value: Any) -> Any:
    """A row, or a text that says what is wrong with it."""
    return value if isinstance(value, dict) else f"is {describe(value)}; expected an object"


def _expressions(row: Any, form: Form) -> list[Any]:
    value = row.get(form.expression_field) if isinstance(row, dict) else None
    if not form.several:
        return [value]
    if not isinstance(value, list):
        return []
    return [entry.get("sent") if isinstance(entry, dict) else entry for entry in value]


def _require_reported_size(table: _Table, form: Form, dataset: str, split: str) -> int:
    """How many expressions a split has; UserError if they are more than the partition's."""
    count = sum(len(_expressions(table.row(number), form)) for number in range(table.n))
    reported = EXPRESSIONS[dataset][split]
    others = [
        name
        for name, sizes in EXPRESSIONS.items()
        if name != dataset and sizes.get(split) == count != reported
    ]
    if count <= reported and not others:
        return count
    names = ", ".join(file.name for file in table.files)
    if others:
        reason = f"that is {others[0]}: prepare it as {DATASETS[others[0]]!r}"
    elif form.name == "lmms_lab" and split == "val":
        reason = (
            "by its row counts this form's val of RefCOCO and RefCOCOg holds Google's partition "
            "too, so its scores do not compare with published ones; take val from another form, "
            "such as jxu124, and the other splits with --split"
        )
    else:
        reason = "these are not the rows of that partition; get the files of the form again"
    raise UserError(
        f"{names}: {count:,} expressions, but {split} of {dataset} has {reported:,}; {reason}"
    )


# Converting a row


@dataclass(frozen=True, slots=True)
class _Conversion:
    """Makes one row's samples when it is called."""

    reader: _Reader
    table: _Table
    split: str
    number: int

    def __call__(self) -> list[GroundingSample]:
        where = self.table.where(self.number)
        try:
            return self.reader.samples(self.table, self.split, self.number)
        except ItemError as error:
            raise ItemError(error.kind, f"{where}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Reader:
    """Makes samples of rows."""

    benchmark: str
    dataset: str
    form: Form
    folder: ImageFolder | None
    workspace: Path | None

    def samples(self, table: _Table, split: str, number: int) -> list[GroundingSample]:
        row = table.row(number)
        if isinstance(row, str):
            raise _fault(row)
        self._require_this_set(row, split)
        expressions = _checked_expressions(row, self.form)
        released = _released_name(row, self.form)
        photograph = _photograph(released)
        image, size = self._image(table, number, photograph)
        _require_size(_declared_size(row, self.form), size, released)
        box = _box_norm(row[self.form.box_field], self.form, size)
        _require_agreement(row, self.form, box, size)
        base = f"{self.benchmark}-{split}-{number:05d}"
        facts = {key: row[key] for key in ("question_id", "ref_id", "ann_id") if key in row}
        return [
            GroundingSample(
                id=f"{base}-{k}" if self.form.several else base,
                benchmark=self.benchmark,
                task=self.benchmark,
                split=split,
                images=(image,),
                widths=(size[0],),
                heights=(size[1],),
                instruction=image_instruction(expression),
                targets=(Target(0, box),),
                image_is_given=True,
                cluster=f"{self.benchmark}-{PurePosixPath(photograph).stem}",
                source={
                    "file": table.file(number).name,
                    "revision": self.form.name,
                    "row": number,
                    "images": [released],
                },
                extra={"expression": expression} | facts,
            )
            for k, expression in enumerate(expressions)
        ]

    def _require_this_set(self, row: Mapping[str, Any], split: str) -> None:
        """Check what a row says of itself against what was asked for."""
        name = row.get("dataset_name")
        said = _SET_NAMES.get(str(name).rpartition("/")[2].lower())
        if said is not None and said != self.dataset:
            raise _fault(f"field 'dataset_name' is {name!r}; expected {self.dataset!r}")
        if self.form.name == "jxu124" and row["split"] not in _SPLIT_NAMES[split]:
            raise _fault(f"field 'split' is {row['split']!r}, but the file is that of {split!r}")

    def _image(self, table: _Table, number: int, name: str) -> tuple[str, tuple[int, int]]:
        """Path below the data root and (width, height) of a row's image."""
        if self.folder is not None:
            found = self.folder.find(name)
            return f"{self.benchmark}/images/{found}", size_of(self.folder.folder / found)
        assert self.workspace is not None
        found = _store(table.image(number), self.workspace / EMBEDDED)
        path = f"{EMBEDDED}/{found}"
        return f"{self.benchmark}/{path}", size_of(self.workspace / path)


_SPLIT_NAMES = {
    "val": ("val", "validation"),
    "testA": ("testA", "test"),
    "testB": ("testB",),
    "test": ("test",),
}
_SET_NAMES = {
    "refcoco": "refcoco",
    "refcoco+": "refcoco+",
    "refcocop": "refcoco+",
    "refcocoplus": "refcoco+",
    "refcocog": "refcocog",
}


def _fault(message: str) -> ItemError:
    return ItemError("invalid_row", message)


def _checked_expressions(row: Mapping[str, Any], form: Form) -> list[str]:
    missing = [name for name in form.fields if name not in row and name != "image"]
    if missing:
        raise _fault(f"has no {', '.join(missing)}; expected: {', '.join(form.fields)}")
    expressions = _expressions(row, form)
    if not expressions or not all(isinstance(text, str) and text.strip() for text in expressions):
        raise _fault(
            f"field {form.expression_field!r} is {describe(row[form.expression_field])}; expected "
            + ("expressions" if form.several else "an expression")
        )
    return expressions


_OBJECT_NUMBER = re.compile(r"(COCO_(?:train|val)2014_\d{12})_\d+(?=\.jpg$)")


def _released_name(row: Mapping[str, Any], form: Form) -> str:
    name = row.get(form.image_field)
    if not isinstance(name, str) or not name:
        raise _fault(f"field {form.image_field!r} is {describe(name)}; expected an image's path")
    return name


def _photograph(released: str) -> str:
    """COCO's own name of an image: the original release appends the object's number to it."""
    return _OBJECT_NUMBER.sub(r"\1", released)


_BEGINS = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n", "png"))


def _store(image: Any, folder: Path) -> str:
    """Write an embedded image below `folder` under a name made of its content; the name."""
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes) or not data:
        raise ItemError("missing_image", "field 'image' holds no image")
    suffix = next((suffix for begins, suffix in _BEGINS if data.startswith(begins)), None)
    if suffix is None:
        raise ItemError(
            "unreadable_image",
            f"field 'image' begins with {data[:4]!r}; expected the bytes of a JPEG or PNG file",
        )
    digest = hashlib.sha256(data).hexdigest()[:40]
    name = f"{digest[:2]}/{digest}.{suffix}"
    path = folder / name
    if not path.exists():
        try:
            _write_atomically(path, data)
        except OSError as error:
            raise UserError(
                f"cannot write the image {path}: {error.strerror or error}; free space, or choose "
                "another data root with --root"
            ) from error
    return name


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# Boxes


def _four_numbers(value: Any, name: str) -> tuple[float, float, float, float]:
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(type(v) in (int, float) and -1e6 < v < 1e6 for v in value)
    ):
        raise _fault(f"{name} is {describe(value)}; expected four numbers in pixels")
    a, b, c, d = value
    return (a, b, c, d)


def _corners(value: Any, name: str, convention: str) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of a box written in one of `_CONVENTIONS`."""
    x1, y1, x2, y2 = _four_numbers(value, name)
    if convention == "xywh":
        x2, y2 = x1 + x2, y1 + y2
    return (x1, y1, x2, y2)


def _box_norm(value: Any, form: Form, image_wh: tuple[int, int]) -> Box:
    """A row's box, in the form's convention, on [0, 1] of its image."""
    name = f"field {form.box_field!r}"
    x1, y1, x2, y2 = _corners(value, name, form.box)
    width, height = image_wh
    inside = min(x1, y1) >= -_SLACK and x2 <= width + _SLACK and y2 <= height + _SLACK
    if not inside or x1 >= x2 or y1 >= y2:
        other = "xywh" if form.box == "xyxy" else "xyxy"
        raise _fault(
            f"{name} is {describe(value)}, read as {_CONVENTIONS[form.box]}; it is no box in an "
            f"image of {width}x{height} pixels. If the file writes {_CONVENTIONS[other]}, it is "
            f"not of form {form.name!r}"
        )
    return (
        max(x1, 0.0) / width,
        max(y1, 0.0) / height,
        min(x2, width) / width,
        min(y2, height) / height,
    )


def _parsed(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A field that holds a JSON object as text."""
    try:
        value = json.loads(row[name])
    except (TypeError, ValueError, RecursionError) as error:
        raise _fault(f"field {name!r} is no JSON text ({error})") from error
    if not isinstance(value, dict):
        raise _fault(f"field {name!r} is {describe(value)}; expected a JSON object")
    return value


def _declared_size(row: Mapping[str, Any], form: Form) -> tuple[Any, Any] | None:
    """(width, height) that a row states, if its form does."""
    if form.name == "jxu124":
        row = _parsed(row, "raw_image_info")
    return (row.get("width"), row.get("height")) if "width" in row else None


def _require_size(
    declared: tuple[Any, Any] | None, measured: tuple[int, int], released: str
) -> None:
    if declared is not None and declared != measured:
        raise ItemError(
            "size_mismatch",
            f"image {released!r} is {measured[0]}x{measured[1]} pixels, the row says "
            f"{declared[0]!r}x{declared[1]!r}; give COCO's train2014 images as they are published",
        )


def _require_agreement(
    row: Mapping[str, Any], form: Form, box: Box, image_wh: tuple[int, int]
) -> None:
    """Compare the box with what a row says of it a second time."""
    if form.name == "jxu124":
        second = _corners(_parsed(row, "raw_anns").get("bbox"), "raw_anns' bbox", "xywh")
        units, slack = image_wh * 2, 2 * _SLACK
    elif form.name == "vlm_r1" and "normalized_solution" in row:
        second = _four_numbers(row["normalized_solution"], "field 'normalized_solution'")
        units, slack = (1000, 1000, 1000, 1000), 2.0
    else:
        return
    first = tuple(value * unit for value, unit in zip(box, units, strict=True))
    if max(abs(a - b) for a, b in zip(first, second, strict=True)) > slack:
        raise _fault(
            f"field {form.box_field!r} is {describe(row[form.box_field])}, but the row's second "
            f"statement of the box is {describe(list(second))}: they are not the same box, so the "
            f"file is not of form {form.name!r}"
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
            ByHand("COCO train2014 images (13 GB)", "https://cocodataset.org/#download"),
        ),
        licence=f"annotations: {licence}; images: COCO, https://cocodataset.org/#termsofuse",
        comparable_with_published=True,
        published="Acc@0.5 on these partitions, as most papers report it",
    )
    for dataset, title, splits, licence in (
        ("refcoco", "RefCOCO, UNC's partition", ("val", "testA", "testB"), _UNC),
        ("refcoco+", "RefCOCO+, UNC's partition", ("val", "testA", "testB"), _UNC),
        ("refcocog", "RefCOCOg, UMD's partition", ("val", "test"), _GOOGLE),
    )
)
