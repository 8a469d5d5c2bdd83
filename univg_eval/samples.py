"""One schema for the samples of every benchmark, how they are stored, and their fingerprint.

A prepared benchmark is the folder ``<data root>/<benchmark>/`` with

* ``samples.jsonl``: one `GroundingSample` a line,
* ``manifest.json``: source, counts, fingerprint, audit, and what the builder adds,
* the images, or links to them.

The data root is ``$UNIVG_DATA``, else ``~/.cache/univg``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from univg_eval.boxes import Box, four_numbers, is_valid_box
from univg_eval.errors import UserError
from univg_eval.files import file_sha256, iter_json_lines, read_json, write_text_atomically

__all__ = [
    "GroundingSample",
    "SampleKind",
    "Target",
    "as_stand_in",
    "benchmark_dir",
    "data_root",
    "fingerprint",
    "has_stand_ins",
    "lacking",
    "load_manifest",
    "load_samples",
    "n_skipped",
    "readable_manifest",
    "require_images",
    "require_text",
    "samples_file",
    "write_benchmark",
]

SAMPLES_FILE = "samples.jsonl"
MANIFEST_FILE = "manifest.json"
_FOLDER_NAME = re.compile(r"[\w.+-]{1,150}")
LARGEST_SIDE = 10**7  # of an image, in pixels
_STAND_IN = "stand-in:"

SampleKind = Literal["single", "none", "several"]


@dataclass(frozen=True, slots=True)
class Target:
    """One true object of a sample.

    Attributes:
        image: 0-based index of the image that shows it.
        box: xyxy_norm, on [0, 1] of that image; as released, so it may be invalid.
        mask: COCO run-length encoding ``{"size": [height, width], "counts": …}`` or None.
    """

    image: int
    box: Box
    mask: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GroundingSample:
    """An instruction about one or more images, and where its true objects are.

    Attributes:
        id: stable and unique within the benchmark, e.g. ``mig_bench-00017``.
        benchmark: name of the set, e.g. ``mig_bench``.
        task: task within the set, with the release's own key, e.g. ``object_tracking``.
        split: split of the release, e.g. ``test``.
        images: paths relative to the data root, in the order the model sees them;
            ``clip.mp4#frame=12`` is frame 12 (0-based) of a video file.
        widths, heights: size of each image in pixels; empty where the release lacks them.
        instruction: what to find. Boxes inside it are written
            ``<|box_start|>(x1,y1),(x2,y2)<|box_end|>`` on 0-1000.
        targets: one in the classic tasks, none where the object is absent, several where the
            instruction names several.
        image_is_given: False where the model must find out which image shows the object.
        given_image: 0-based image that the instruction names, as the benchmark states it; None
            where it has to be found, or where it is not stated. See `scoring.given_image`.
        cluster: rows that share images carry the same value; used by clustered intervals.
        source: where the row comes from: file, revision, row, release paths of the images.
        extra: further columns of the benchmark, e.g. difficulty knobs.
        find_all: whether the instruction asks for every object that fits, however many there are,
            so that even a single one is scored as a set: see `kind`.
    """

    id: str
    benchmark: str
    task: str
    split: str
    images: tuple[str, ...]
    widths: tuple[int, ...]
    heights: tuple[int, ...]
    instruction: str
    targets: tuple[Target, ...]
    image_is_given: bool
    cluster: str
    source: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    given_image: int | None = None
    find_all: bool = False

    @property
    def kind(self) -> SampleKind:
        """How the sample is scored: by its one target, by saying "none", or as a set of targets."""
        if not self.targets:
            return "none"
        return "several" if self.find_all or len(self.targets) > 1 else "single"

    @property
    def box(self) -> Box:
        """The single target's box; UserError if there is not exactly one target."""
        return self._single_target().box

    @property
    def target_image(self) -> int:
        """The single target's image, 0-based; UserError if there is not exactly one target."""
        return self._single_target().image

    @property
    def has_valid_targets(self) -> bool:
        """Whether every target's box is valid (a sample without targets is valid)."""
        return all(is_valid_box(target.box) for target in self.targets)

    @property
    def image_sizes(self) -> list[tuple[int, int]] | None:
        """(width, height) of each image in pixels, or None where the release lacks it."""
        return list(zip(self.widths, self.heights, strict=True)) if self.widths else None

    @property
    def question_box_image(self) -> int:
        """The 0-based image that boxes inside the instruction lie on: the first, if not stated.

        UserError if ``extra["question_box_image"]`` is no such image.
        """
        image = self.extra.get("question_box_image", 0)
        if type(image) is not int or not 0 <= image < max(len(self.images), 1):
            raise UserError(
                f"sample {self.id!r}: extra.question_box_image is {image!r}; expected an image "
                f"from 0 to {len(self.images) - 1}; prepare the benchmark again"
            )
        return image

    def _single_target(self) -> Target:
        if len(self.targets) != 1:
            raise UserError(
                f"sample {self.id!r} has {len(self.targets)} targets; the shorthands `box` and "
                "`target_image` read a single one: use `targets`"
            )
        return self.targets[0]

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values, in the order of the schema."""
        row: dict[str, Any] = {
            "id": self.id,
            "benchmark": self.benchmark,
            "task": self.task,
            "split": self.split,
            "images": list(self.images),
            "widths": list(self.widths),
            "heights": list(self.heights),
            "instruction": self.instruction,
            "targets": [
                {"image": t.image, "box": list(t.box)}
                | ({"mask": t.mask} if t.mask is not None else {})
                for t in self.targets
            ],
            "image_is_given": self.image_is_given,
            **({} if self.given_image is None else {"given_image": self.given_image}),
            **({"find_all": True} if self.find_all else {}),
            "cluster": self.cluster,
            "source": dict(self.source),
        }
        if self.extra:
            row["extra"] = dict(self.extra)
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], *, where: str = "sample") -> GroundingSample:
        """Read and check a row made by `to_dict`.

        Args:
            row: the parsed JSON object.
            where: names the row in an error, e.g. ``samples.jsonl:12``.

        Raises:
            UserError: a field is missing, of a wrong type, or contradicts another.
        """
        if not isinstance(row, Mapping):
            raise UserError(f"{where}: expected a JSON object, received {type(row).__name__}")
        images = _images(row, where)
        widths, heights = _integers(row, "widths", where), _integers(row, "heights", where)
        if not len(widths) == len(heights) or len(widths) not in (0, len(images)):
            raise UserError(
                f"{where}: {len(images)} images but {len(widths)} widths and {len(heights)} "
                "heights; expected one of each an image (or none at all)"
            )
        given = _flag(row, "image_is_given", where)
        targets = row.get("targets")
        if not isinstance(targets, list):
            raise UserError(f"{where}: field 'targets' is {targets!r}; expected a list")
        return cls(
            id=_string(row, "id", where),
            benchmark=_string(row, "benchmark", where),
            task=_string(row, "task", where),
            split=_string(row, "split", where),
            images=images,
            widths=widths,
            heights=heights,
            instruction=_string(row, "instruction", where),
            targets=tuple(
                _target(item, f"{where}: targets[{i}]", len(images))
                for i, item in enumerate(targets)
            ),
            image_is_given=given,
            given_image=_given_image(row, len(images), where),
            find_all=_flag(row, "find_all", where, default=False),
            cluster=_string(row, "cluster", where),
            source=_source(row, where),
            extra=_mapping(row, "extra", where),
        )


def _string(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {value!r}; expected a string")
    require_text(value, f"{where}: field {name!r}")
    return value


def require_text(value: str, where: str) -> None:
    """Refuse what no UTF-8 file can hold; JSON can spell it, as ``\\ud800``."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where} holds half of a surrogate pair at character {error.start}; expected text"
        ) from error


def _mapping(row: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = row.get(name, {})
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: field {name!r} is {value!r}; expected an object")
    return value


def _source(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    source = _mapping(row, "source", where)
    if "images" in source:
        _strings(source, "images", f"{where}: source")
    return source


def _strings(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = row.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: field {name!r} is {value!r}; expected a list of strings")
    for item in value:
        require_text(item, f"{where}: field {name!r}")
    return tuple(value)


def _images(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The references to images; none may lead out of the data root."""
    images = _strings(row, "images", where)
    for image in images:
        path = PurePosixPath(image)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(
                f"{where}: field 'images' holds {image!r}; expected paths below the data root, "
                "relative to it: prepare the benchmark again, from the folder of its images"
            )
    return images


def _integers(row: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    value = row.get(name)
    if not isinstance(value, list) or not all(
        type(item) is int and 0 < item <= LARGEST_SIDE for item in value
    ):
        raise UserError(f"{where}: field {name!r} is {value!r}; expected a list of whole pixels")
    return tuple(value)


def _flag(row: Mapping[str, Any], name: str, where: str, default: bool | None = None) -> bool:
    value = row.get(name, default)
    if not isinstance(value, bool):
        raise UserError(f"{where}: field {name!r} is {value!r}; expected true or false")
    return value


def _given_image(row: Mapping[str, Any], n_images: int, where: str) -> int | None:
    image = row.get("given_image")
    if image is not None and (type(image) is not int or not 0 <= image < n_images):
        raise UserError(
            f"{where}: field 'given_image' is {image!r}; expected 0 to {n_images - 1}, or null"
        )
    return image


def _target(item: Any, where: str, n_images: int) -> Target:
    image = item.get("image") if isinstance(item, Mapping) else None
    box = item.get("box") if isinstance(item, Mapping) else None
    if type(image) is not int or not 0 <= image < n_images:
        raise UserError(f"{where}: image is {image!r}; expected 0 to {n_images - 1}")
    numbers = four_numbers(box)
    if numbers is None:
        raise UserError(f"{where}: box is {box!r}; expected four numbers x1, y1, x2, y2")
    mask = item.get("mask")
    if not (mask is None or isinstance(mask, dict)):
        raise UserError(f"{where}: mask is {mask!r}; expected an object with size and counts")
    return Target(image=image, box=numbers, mask=mask)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of prepared benchmarks: `root`, else ``$UNIVG_DATA``, else ``~/.cache/univg``."""
    if root is not None:
        return Path(root).expanduser()
    configured = os.environ.get("UNIVG_DATA")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "univg"


def benchmark_dir(benchmark: str, root: str | os.PathLike[str] | None = None) -> Path:
    """The folder of one prepared benchmark below the data root.

    Raises:
        UserError: the name is none of a folder in the data root.
    """
    if not _FOLDER_NAME.fullmatch(benchmark) or benchmark in (".", ".."):
        raise UserError(
            f"{benchmark[:50]!r} is no name of a benchmark; expected letters, digits, '_', '-', "
            "'.' and '+'"
        )
    return data_root(root) / benchmark


def load_manifest(benchmark: str, root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The manifest of a prepared benchmark.

    Raises:
        UserError: the benchmark is not prepared, or its manifest cannot be read.
    """
    path = benchmark_dir(benchmark, root) / MANIFEST_FILE
    try:
        manifest = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(
            f"benchmark {benchmark!r} is not prepared: {path} does not exist. "
            f"Run `univg prepare {benchmark}` (see `univg prepare --help`), or set UNIVG_DATA to "
            "the folder that holds it"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; prepare {benchmark!r} again") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("source", {}), dict):
        raise UserError(
            f"{path}: expected a JSON object, its source one too; prepare {benchmark!r} again"
        )
    return manifest


def readable_manifest(benchmark: str, root: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The manifest of a benchmark; empty where there is none, or none that can be read."""
    try:
        return load_manifest(benchmark, root)
    except UserError:
        return {}


def as_stand_in(sample: GroundingSample) -> GroundingSample:
    """The sample on images that stand in for its own; the release paths say so."""
    images = [f"{_STAND_IN}{path}" for path in sample.source.get("images", sample.images)]
    return replace(sample, source={**sample.source, "images": images})


def has_stand_ins(samples: Iterable[GroundingSample]) -> bool:
    """Whether a sample's images stand in for its own, so that no result on it is one of the set."""
    return any(
        path.startswith(_STAND_IN) for sample in samples for path in sample.source.get("images", ())
    )


def n_skipped(benchmark: str, root: str | os.PathLike[str] | None = None) -> int:
    """How many faulty items `univg prepare --skip-faulty` left out of a benchmark.

    Raises:
        UserError: the benchmark is not prepared.
    """
    skipped = load_manifest(benchmark, root).get("skipped")
    return len(skipped) if isinstance(skipped, list) else 0


def require_images(benchmark: str, root: str | os.PathLike[str] | None = None) -> None:
    """Refuse a prepared benchmark whose folders of images are no longer where they were.

    Raises:
        UserError: a link of its folder leads nowhere.
    """
    folder = benchmark_dir(benchmark, root)
    for link in sorted(folder.iterdir()) if folder.is_dir() else ():
        if link.is_symlink() and not link.exists():
            raise UserError(
                f"benchmark {benchmark!r}: its images were in {link.readlink()}, which is not "
                "there any more (images are not copied); move the folder back, or prepare the "
                "benchmark again from where it is now"
            )


def lacking(benchmark: str, root: str | os.PathLike[str] | None = None) -> str:
    """In words, what a prepared benchmark lacks of its release; "" where it is whole.

    Raises:
        UserError: the benchmark is not prepared.
    """
    n = n_skipped(benchmark, root)
    if not n:
        return ""
    return (
        f"{benchmark!r} was prepared without {n} faulty item{'s' if n > 1 else ''} (--skip-faulty; "
        "its manifest.json names them under skipped)"
    )


def samples_file(
    benchmark: str, root: str | os.PathLike[str] | None = None, *, changed: bool = False
) -> Path:
    """The file with the samples of a prepared benchmark, as it was written.

    Args:
        benchmark: its name.
        root: the data root.
        changed: also one that was changed since.

    Raises:
        UserError: the benchmark is not prepared; or the file cannot be read, or has not the SHA-256
            that its manifest names (one of an older version names none).
    """
    expected = load_manifest(benchmark, root).get("samples_sha256")
    path = benchmark_dir(benchmark, root) / SAMPLES_FILE
    if changed or expected is None:
        return path
    try:
        found = file_sha256(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    if found != expected:
        raise UserError(
            f"{path} was changed after it was prepared (its SHA-256 is not the one in "
            f"{MANIFEST_FILE}); prepare {benchmark!r} again. `univg audit {benchmark}` reads it"
        )
    return path


def load_samples(
    benchmark: str,
    split: str | None = None,
    root: str | os.PathLike[str] | None = None,
    *,
    changed: bool = False,
) -> list[GroundingSample]:
    """All samples of a prepared benchmark, or those of one split, in file order.

    Args:
        benchmark: its name.
        split: of the release; None: all.
        root: the data root.
        changed: read them also where the file was changed since it was prepared.

    Raises:
        UserError: the benchmark is not prepared, or its samples were changed since, a row breaks
            the schema, an id is a duplicate, or no row has the split (the known splits are listed).
    """
    path = samples_file(benchmark, root, changed=changed)
    samples = [
        GroundingSample.from_dict(row, where=f"{path}:{number}")
        for number, row in iter_json_lines(path)
    ]
    _require_unique_ids(samples, str(path))
    if split is None:
        return samples
    chosen = [sample for sample in samples if sample.split == split]
    if not chosen:
        known = ", ".join(sorted({sample.split for sample in samples}))
        raise UserError(f"benchmark {benchmark!r} has no split {split!r}; it has: {known}")
    return chosen


def _require_unique_ids(samples: Sequence[GroundingSample], where: str) -> None:
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise UserError(f"{where}: duplicate id {sample.id!r}; ids must be unique")
        seen.add(sample.id)


def fingerprint(samples: Iterable[GroundingSample]) -> str:
    """SHA-256 (hex) that identifies the instructions, boxes and images of a set.

    Over the canonical JSON lines ``[id, instruction, [[image, box to 6 decimals], …], release
    paths of the images]``, sorted by id, each followed by a newline. The release paths are
    ``source["images"]`` where the rows carry them (paths below the data root are this machine's
    matter), else ``images``. Order of the rows, image sizes and extra columns do not count.
    """
    digest = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: sample.id):
        line = [
            sample.id,
            sample.instruction,
            # "+ 0.0" writes a negative zero like a zero.
            [[t.image, [round(value, 6) + 0.0 for value in t.box]] for t in sample.targets],
            list(sample.source.get("images", sample.images)),
        ]
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        require_text(text, f"sample {sample.id!r}")
        digest.update(text.encode("utf-8") + b"\n")
    return digest.hexdigest()


def _json_line(sample: GroundingSample) -> str:
    line = json.dumps(sample.to_dict(), ensure_ascii=False)
    require_text(line, f"sample {sample.id!r}")
    return line + "\n"


def write_benchmark(
    samples: Sequence[GroundingSample],
    *,
    benchmark: str,
    root: str | os.PathLike[str] | None = None,
    manifest_extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``samples.jsonl`` and then ``manifest.json`` of a prepared benchmark.

    The manifest is written last: its presence says that the benchmark is whole.

    Returns:
        The benchmark's folder.

    Raises:
        UserError: an id is a duplicate, a sample belongs to another benchmark, or a text holds half
            of a surrogate pair.
    """
    for sample in samples:
        if sample.benchmark != benchmark:
            raise UserError(
                f"sample {sample.id!r} belongs to {sample.benchmark!r}, not to {benchmark!r}"
            )
    _require_unique_ids(samples, f"benchmark {benchmark!r}")
    folder = benchmark_dir(benchmark, root)
    tasks: dict[str, int] = {}
    for sample in samples:
        tasks[sample.task] = tasks.get(sample.task, 0) + 1
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    write_text_atomically(folder / SAMPLES_FILE, map(_json_line, samples))
    manifest = {
        "schema": 1,
        "benchmark": benchmark,
        "n": len(samples),
        "tasks": tasks,
        "fingerprint": fingerprint(samples),
        "samples_sha256": file_sha256(folder / SAMPLES_FILE),
        **dict(manifest_extra or {}),
    }
    write_text_atomically(
        folder / MANIFEST_FILE, [json.dumps(manifest, ensure_ascii=False, indent=2) + "\n"]
    )
    return folder
