"""Samples, true boxes and predictions of runs as a dataset that FiftyOne imports from its folder.

FiftyOne is not needed to write it. In FiftyOne (1.0 or later)::

    import fiftyone as fo
    dataset = fo.Dataset.from_dir(dataset_dir="DIR", dataset_type=fo.types.FiftyOneDataset)

The folder has FiftyOne's own layout: ``metadata.json`` (the dataset's document with the schema of
its fields), ``samples.json`` (one document an image), both as MongoDB's extended JSON, and the
media under ``data/``. It is that of FiftyOne 1.0.0, and says so; later versions migrate it on
import.

A sample of FiftyOne is one image, so a question about three images becomes three samples with the
same ``question_id``; ``dataset.group_by("question_id", order_by="image_number")`` shows them
together. What belongs to the question and not to one of its images (IoU, status, failure, the
response) stands on one sample alone, that with ``is_main``: the image of the first target, else
the first image. So a count over the dataset counts no question twice. A predicted box is on the
image that it counts for, or that the response names.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from univg_eval.boxes import Box
from univg_eval.errors import UserError
from univg_eval.images.reading import image_header, load_image, load_reference, split_reference
from univg_eval.report.run_data import ReportData, ReportRun
from univg_eval.samples import GroundingSample, data_root

__all__ = ["FORMAT_VERSION", "FiftyOneExport", "export_fiftyone", "require_empty"]

FORMAT_VERSION = "1.0.0"
"""Version of FiftyOne whose format is written."""
LABEL = "object"
"""Label of the boxes of a question whose object the benchmark gives no name."""

# What a browser shows as it is; other kinds are written anew as PNG.
_SHOWN_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
_STAND_IN = (128, 128, 128)
_STAND_IN_WH = (640, 480)

# Half of a surrogate pair is no character; MongoDB would refuse the response that holds it.
_HALF_PAIR = re.compile("[\ud800-\udfff]")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FiftyOneExport:
    """What was written.

    Attributes:
        folder: the dataset's folder.
        n_questions: questions in it.
        n_samples: samples of FiftyOne, one an image of a question.
        run_fields: label of each run → name of its field.
        unreadable: image reference → why it cannot be shown; a grey picture stands in for it, and
            its samples say so in the field ``image_error`` and the tag ``image_unreadable``.
    """

    folder: Path
    n_questions: int
    n_samples: int
    run_fields: Mapping[str, str]
    unreadable: Mapping[str, str]


def export_fiftyone(
    data: ReportData,
    folder: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
) -> FiftyOneExport:
    """Write the dataset.

    Image files are linked into the folder where the file system allows (hard links), else copied;
    frames of films, and what is not stored upright, are written as PNG. The folder can be moved.

    Args:
        data: of the runs, see `univg_eval.report.run_data.collect`.
        folder: must not exist, or be empty; appears only when whole.
        root: the data root.

    Raises:
        UserError: the folder holds something, or cannot be written to.
    """
    folder = Path(folder)
    require_empty(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        workshop = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _not_written(folder, error) from error
    try:
        names = _run_fields(data.runs)
        media = _Media(data_root(root), workshop)
        n_samples = _write_samples(workshop / "samples.json", _samples(data, names, media))
        _write_json(workshop / "metadata.json", _dataset(data, names))
        umask = os.umask(0)
        os.umask(umask)
        workshop.chmod(0o777 & ~umask)
        workshop.rename(folder)
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        if workshop.exists():
            shutil.rmtree(workshop)
    return FiftyOneExport(
        folder=folder,
        n_questions=len(data.samples),
        n_samples=n_samples,
        run_fields={run.label: name for run, name in zip(data.runs, names, strict=True)},
        unreadable=dict(media.unreadable),
    )


def _not_written(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write a dataset into {folder.parent}: {error.strerror or error}; choose another "
        "folder"
    )


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds something, before anything is computed.

    Raises:
        UserError: it does, or it is a file.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise UserError(f"{folder} exists and is not empty; choose another folder or remove it")


def _write_json(path: Path, value: Document) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _write_samples(path: Path, documents: Iterable[Document]) -> int:
    n = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"samples": [')
        for document in documents:
            text = json.dumps(document, ensure_ascii=False, allow_nan=False)
            file.write((",\n" if n else "\n") + _HALF_PAIR.sub("\N{REPLACEMENT CHARACTER}", text))
            n += 1
        file.write("\n]}\n")
    return n


# --- fields --------------------------------------------------------------------------------------

_PARTS = {
    "iou": ("FloatField", "IoU with the single target; none where there are several or no targets"),
    "status": (
        "StringField",
        "how the response was read: ok, no_box, none, truncated, invalid_box",
    ),
    "failure": ("StringField", "class of the miss; none for a hit"),
    "hints": ("StringField", "what else is known of the miss; never a score"),
    "response": ("StringField", "the whole response"),
}
_QUESTION_FIELDS = {
    "question_id": ("StringField", "id of the question in the benchmark"),
    "task": ("StringField", "task of the question"),
    "split": ("StringField", "split of the release"),
    "cluster": ("StringField", "questions that share images have the same value"),
    "instruction": ("StringField", "the question"),
    "n_images": ("IntField", "images of the question"),
    "image_number": ("IntField", "which of them this is, from 1"),
    "image_is_given": ("BooleanField", "false where the model had to find the image"),
    "is_main": ("BooleanField", "the one sample of the question that carries its results"),
    "image_error": ("StringField", "why the image cannot be shown"),
}


def _run_fields(runs: Sequence[ReportRun]) -> list[str]:
    """A field name for each run that clashes with no other field."""
    taken: set[str] = set()
    names = []
    for run in runs:
        slug = re.sub(r"[^0-9A-Za-z]+", "_", run.label).strip("_") or run.letter
        base = f"run_{slug}"
        name, number = base, 1
        while taken & _all_fields(name):
            number += 1
            name = f"{base}_{number}"
        taken |= _all_fields(name)
        names.append(name)
    return names


def _all_fields(name: str) -> set[str]:
    return {name, *(f"{name}_{part}" for part in _PARTS)}


def _field(
    name: str,
    kind: str,
    *,
    document: str | None = None,
    of: str | None = None,
    fields: Sequence[Document] = (),
    db_name: str | None = None,
    description: str | None = None,
) -> Document:
    return {
        "name": name,
        "ftype": f"fiftyone.core.fields.{kind}",
        "embedded_doc_type": document and f"fiftyone.core.{document}",
        "subfield": of and f"fiftyone.core.fields.{of}",
        "fields": list(fields),
        "db_field": db_name or name,
        "description": description,
        "info": None,
        "read_only": False,
        "created_at": None,
    }


def _boxes_field(name: str, description: str, *, scored: bool) -> Document:
    """A field of the type Detections, with the attributes of its boxes."""
    attributes = [
        _field("id", "ObjectIdField", db_name="_id"),
        _field("tags", "ListField", of="StringField"),
        _field("attributes", "DictField", document="labels.Attribute", of="EmbeddedDocumentField"),
        _field("label", "StringField"),
        _field("bounding_box", "ListField", of="FloatField"),
        _field("mask", "ArrayField"),
        _field("mask_path", "StringField"),
        _field("confidence", "FloatField"),
        _field("index", "IntField"),
    ]
    if scored:
        attributes += [_field(part, _PARTS[part][0]) for part in ("iou", "status", "failure")]
    boxes = _field(
        "detections",
        "ListField",
        document="labels.Detection",
        of="EmbeddedDocumentField",
        fields=attributes,
    )
    return _field(
        name,
        "EmbeddedDocumentField",
        document="labels.Detections",
        fields=[boxes],
        description=description,
    )


def _dataset(data: ReportData, names: Sequence[str]) -> Document:
    """The dataset's document."""
    fields = [
        _field("id", "ObjectIdField", db_name="_id"),
        _field("filepath", "StringField"),
        _field("tags", "ListField", of="StringField"),
        _field(
            "metadata",
            "EmbeddedDocumentField",
            document="metadata.ImageMetadata",
            fields=[
                _field("size_bytes", "IntField"),
                _field("mime_type", "StringField"),
                _field("width", "IntField"),
                _field("height", "IntField"),
                _field("num_channels", "IntField"),
            ],
        ),
        _field("created_at", "DateTimeField") | {"read_only": True},
        _field("last_modified_at", "DateTimeField") | {"read_only": True},
        _field("_media_type", "StringField"),
        _field("_rand", "FloatField"),
        _field("_dataset_id", "ObjectIdField"),
        *(_field(name, kind, description=text) for name, (kind, text) in _QUESTION_FIELDS.items()),
        _boxes_field("ground_truth", "the true boxes", scored=False),
    ]
    for run, name in zip(data.runs, names, strict=True):
        fields.append(_boxes_field(name, f"boxes of run {run.label}", scored=True))
        fields += [
            _field(f"{name}_{part}", kind, description=f"run {run.label}: {text}")
            for part, (kind, text) in _PARTS.items()
        ]
    return {
        "_id": _object_id("dataset", data.benchmark),
        "name": f"univg-{data.benchmark}",
        "slug": re.sub(r"[^0-9a-z]+", "-", f"univg-{data.benchmark}".lower()).strip("-"),
        "version": FORMAT_VERSION,
        "persistent": False,
        "media_type": "image",
        "group_media_types": {},
        "tags": ["univg"],
        "info": {
            "benchmark": data.benchmark,
            "written_by": f"univg {version('univg')}",
            "notes": list(data.notes),
            "runs": [
                {
                    "label": run.label,
                    "field": name,
                    "model": str(run.record.manifest.get("model", {}).get("id")),
                    "dialect": run.setting("dialect"),
                    "prompt": run.setting("prompt"),
                    "protocol": run.setting("protocol"),
                    "fingerprint": run.record.manifest["dataset"].get("fingerprint"),
                    "created": run.record.manifest.get("created"),
                }
                for run, name in zip(data.runs, names, strict=True)
            ],
        },
        "app_config": {},
        "classes": {},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "sample_fields": fields,
        "frame_fields": [],
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {},
        "evaluations": {},
        "runs": {},
    }


# --- samples -------------------------------------------------------------------------------------


def _digest(*key: object) -> str:
    return hashlib.sha256(json.dumps(key).encode("utf-8")).hexdigest()


def _object_id(*key: object) -> Document:
    """An id that depends on the key alone, so that two exports of the same things are the same."""
    return {"$oid": _digest(*key)[:24]}


def _detection(key: Sequence[object], box: Box, label: str, **attributes: object) -> Document:
    x1, y1, x2, y2 = box
    return {
        "_id": _object_id(*key),
        "_cls": "Detection",
        "attributes": {},
        "tags": [],
        "label": label,
        "bounding_box": [x1, y1, x2 - x1, y2 - y1],
        **attributes,
    }


def _detections(boxes: Sequence[Document]) -> Document | None:
    return {"_cls": "Detections", "detections": list(boxes)} if boxes else None


def _samples(data: ReportData, names: Sequence[str], media: _Media) -> Iterator[Document]:
    for sample in data.samples:
        main = sample.targets[0].image if sample.targets else 0
        for image in range(len(sample.images)):
            yield _image_sample(data, names, media, sample, image, is_main=image == main)


def _image_sample(
    data: ReportData,
    names: Sequence[str],
    media: _Media,
    sample: GroundingSample,
    image: int,
    *,
    is_main: bool,
) -> Document:
    key = (data.benchmark, sample.id, image)
    recorded = sample.image_sizes[image] if sample.image_sizes else None
    picture = media.add(sample.images[image], recorded)
    name = sample.extra.get("label")
    label = name if isinstance(name, str) and name else LABEL
    document: Document = {
        "_id": _object_id(*key),
        "_media_type": "image",
        # FiftyOne draws random subsets by this number.
        "_rand": int(_digest("rand", *key)[:13], 16) / 16**13,
        "filepath": picture.path,
        "tags": [sample.task, *(["image_unreadable"] if picture.error else [])],
        "metadata": {
            "_cls": "ImageMetadata",
            "size_bytes": picture.size_bytes,
            "mime_type": mimetypes.guess_type(picture.path)[0],
            "width": picture.wh[0],
            "height": picture.wh[1],
        },
        "question_id": sample.id,
        "task": sample.task,
        "split": sample.split,
        "cluster": sample.cluster,
        "instruction": sample.instruction,
        "n_images": len(sample.images),
        "image_number": image + 1,
        "image_is_given": sample.image_is_given,
        "is_main": is_main,
        "image_error": picture.error,
        "ground_truth": _detections(
            [
                _detection((*key, "truth", i), target.box, label)
                for i, target in enumerate(sample.targets)
                if target.image == image
            ]
        ),
    }
    for run, field_name in zip(data.runs, names, strict=True):
        document |= _of_run(run, field_name, sample.id, label, (*key, field_name), image, is_main)
    return document


def _of_run(
    run: ReportRun,
    name: str,
    sample_id: str,
    label: str,
    key: Sequence[object],
    image: int,
    is_main: bool,
) -> Document:
    """The fields of a run on one image; all null where it was not asked the question."""
    outcome = run.outcomes.get(sample_id)
    if outcome is None:
        return dict.fromkeys((name, *(f"{name}_{part}" for part in _PARTS)))
    score = outcome.score
    boxes = [
        _detection(
            (*key, i),
            box,
            label,
            iou=score.iou,
            status=score.status,
            failure=outcome.failure or None,
        )
        for i, (where, box) in enumerate(outcome.boxes)
        if where == image
    ]
    results: Document = dict.fromkeys(f"{name}_{part}" for part in _PARTS)
    if is_main:
        results = {
            f"{name}_iou": score.iou,
            f"{name}_status": score.status,
            f"{name}_failure": outcome.failure or None,
            f"{name}_hints": " ".join(outcome.hints) or None,
            f"{name}_response": outcome.response,
        }
    return {name: _detections(boxes), **results}


# --- media ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Picture:
    """A file of the dataset: its path relative to the folder, (width, height), bytes, trouble."""

    path: str
    wh: tuple[int, int]
    size_bytes: int
    error: str | None = None


@dataclass(slots=True)
class _Media:
    """Brings images into the folder, each once."""

    root: Path
    folder: Path
    unreadable: dict[str, str] = field(default_factory=dict)
    _known: dict[str, _Picture] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def add(self, reference: str, recorded_wh: tuple[int, int] | None) -> _Picture:
        """The file for an image reference; a grey one, with the reason, if it cannot be read."""
        if reference not in self._known:
            try:
                self._known[reference] = self._bring(reference)
            except UserError as error:
                self.unreadable[reference] = str(error)
                self._known[reference] = self._stand_in(recorded_wh or _STAND_IN_WH, str(error))
        return self._known[reference]

    def _bring(self, reference: str) -> _Picture:
        path, frame = split_reference(reference)
        source = self.root / path
        if frame is not None:
            return self._save(load_reference(reference, self.root), f"{path}.frame-{frame}.png")
        header = image_header(source, decode=True)
        if header.orientation != 1 or source.suffix.lower() not in _SHOWN_SUFFIXES:
            return self._save(load_image(source), f"{path}.png")
        target = self._place(path)
        source = source.resolve()
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
        return self._picture(target, header.size)

    def _save(self, image: Any, path: str) -> _Picture:
        target = self._place(path)
        image.save(target, compress_level=1)
        return self._picture(target, image.size)

    def _stand_in(self, wh: tuple[int, int], error: str) -> _Picture:
        from PIL import Image

        target = self.folder / "data" / "unreadable" / f"{wh[0]}x{wh[1]}.png"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", wh, _STAND_IN).save(target)
        return self._picture(target, wh, error)

    def _place(self, path: str) -> Path:
        """A free path under data/ with the parts of `path`, whatever it is relative to."""
        pure = PurePosixPath(path)
        parts = [part for part in pure.parts if part not in (pure.anchor, "..")]
        plain = PurePosixPath("data", "images", *parts)
        chosen, number = plain, 1
        while str(chosen).lower() in self._taken:
            number += 1
            chosen = plain.with_name(f"{plain.stem}_{number}{plain.suffix}")
        self._taken.add(str(chosen).lower())
        target = self.folder / chosen
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _picture(self, target: Path, wh: tuple[int, int], error: str | None = None) -> _Picture:
        path = target.relative_to(self.folder).as_posix()
        return _Picture(path, wh, target.stat().st_size, error)
