"""Every benchmark that can be prepared: its reader, where its files come from, its terms.

Nothing is imported here but names: an entry says which function opens the release as
``module:function``, and `CatalogEntry.load_opener` imports it when it is wanted.

Addresses and licences are those that the sources named here stated when they were read in November
2026; the two commits of the Hub are those of their files as its pages showed them, and
``--hub-revision`` takes another one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from univg_eval.benchmarks.readers.common.release import Release
from univg_eval.errors import UserError

__all__ = ["CATALOG", "ByHand", "CatalogEntry", "HubFiles", "ImageArchive", "get_entry"]


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files of a dataset repository on the Hugging Face Hub.

    Attributes:
        repo: ``owner/name``.
        revision: the commit that is taken unless another one is asked for.
        files: paths in the repository.
    """

    repo: str
    revision: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ByHand:
    """Files that no program can fetch, or that this one does not.

    Attributes:
        what: what it is.
        url: the page where it is found.
    """

    what: str
    url: str


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """An archive that a release keeps its images in.

    Attributes:
        name: its file name.
        folders: where the images lie once it is unpacked, the first that exists; its own top
            folder if none does.
    """

    name: str
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One benchmark.

    Attributes:
        name: what ``univg prepare`` is given.
        benchmark: its folder below the data root.
        title: in words.
        opener: ``module:function`` that opens the release (see `benchmarks.release`); empty for a
            benchmark that is generated here.
        builder: ``module:function`` that generates it; empty for a release.
        splits: those that the reader knows.
        options: further keyword arguments of the opener or builder; ``univg prepare`` has an
            option of the same name for each.
        fixed: keyword arguments that are the same for every release of this benchmark.
        needs_workspace: whether the opener takes the benchmark's folder as ``workspace``.
        tasks: lmms-eval task or group → the split that it needs, or None if any will do.
        hub: what ``--download`` fetches; the first repository holds the annotations.
        by_hand: what has to be fetched by hand.
        image_archives: archives that ``--source`` may hold instead of the unpacked images.
        images_on_hub: whether `hub` holds the images too.
        licence: as stated by the source.
        comparable_with_published: whether numbers on it can stand beside a published table.
        published: the table, or why there is none.
    """

    name: str
    benchmark: str
    title: str
    splits: tuple[str, ...]
    tasks: Mapping[str, str | None]
    licence: str
    comparable_with_published: bool
    published: str
    opener: str = ""
    builder: str = ""
    options: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs_workspace: bool = False
    hub: tuple[HubFiles, ...] = ()
    by_hand: tuple[ByHand, ...] = ()
    image_archives: tuple[ImageArchive, ...] = ()
    images_on_hub: bool = False

    @property
    def is_generated(self) -> bool:
        """Whether it is made here and needs no files."""
        return bool(self.builder)

    def load_opener(self) -> Callable[..., Release]:
        """The function that opens the release; UserError for a generated benchmark."""
        if not self.opener:
            raise UserError(f"benchmark {self.name!r} is generated; there is no release to open")
        return cast(Callable[..., Release], _load(self.opener))

    def load_builder(self) -> Callable[..., Any]:
        """The function that generates the benchmark; UserError for a release."""
        if not self.builder:
            raise UserError(f"benchmark {self.name!r} is made from a release; give --source")
        return _load(self.builder)


def _load(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return cast(Callable[..., Any], getattr(importlib.import_module(module), function))


def get_entry(name: str) -> CatalogEntry:
    """The entry of that name or benchmark; UserError listing the known ones."""
    plain = name.replace("+", "_plus")  # RefCOCO+
    for entry in CATALOG.values():
        if plain in (entry.name, entry.benchmark):
            return entry
    raise UserError(f"unknown benchmark {name!r}; univg prepare knows: {', '.join(CATALOG)}")


_READERS = "univg_eval.benchmarks.readers."
_SYNTHETIC = "univg_eval.benchmarks.synthetic."

_MIG_REPO = "Michael4933/MIG-Bench"
_MIG_COMMIT = "3c3615aa1b30a519b49d52333d5351a6813b8b48"
_UNIVG_REPO = "GD-ML/UniVG-R1-data"
_UNIVG_COMMIT = "9a1fa8e4f1a1a05b2cff40804236c82e60054678"

_MIG_ARCHIVES = (ImageArchive("images.zip", ("MIG-Bench/images", "images")),)
_MIG_BY_HAND = (
    ByHand(
        "MIG_data.json and images.zip (1.01 GB)", f"https://huggingface.co/datasets/{_MIG_REPO}"
    ),
)


def _extracted(*files: str) -> tuple[HubFiles, ...]:
    return (
        HubFiles(_UNIVG_REPO, _UNIVG_COMMIT, tuple(f"zero_shot_evaluation/{f}" for f in files)),
    )


def _extracted_by_hand(files: str, *images: ByHand) -> tuple[ByHand, ...]:
    return (
        ByHand(
            f"boxes: zero_shot_evaluation/{files}",
            f"https://huggingface.co/datasets/{_UNIVG_REPO}",
        ),
        *images,
        ByHand(
            "or zero-shot.zip of an author of UniVG-R1 (1.93 GB; nobody says what is in it)",
            "https://huggingface.co/datasets/SuleBai/UniVG-R1-zeroshot",
        ),
    )


_REASONSEG = ByHand(
    "ReasonSeg (Google Drive folder named in the README of dvlab-research/LISA)",
    "https://drive.google.com/drive/folders/125mewyg5Ao6tZ3ZdJ-1-E3n04LGVELqy",
)
_LLM_SEG_IMAGES = (
    ByHand("COCO train2017 images (18 GB)", "https://cocodataset.org/#download"),
    ByHand("EgoObjects images (40 GB)", "https://github.com/facebookresearch/EgoObjects"),
)
_REVOS = ByHand(
    "ReVOS (OneDrive or Baidu; the README lists SHA-256 sums)",
    "https://github.com/cilinyan/ReVOS-api",
)
_REVOS_ARCHIVES = (ImageArchive("JPEGImages.zip", ("ReVOS/JPEGImages", "JPEGImages")),)
_REASONVOS = ByHand(
    "ReasonVOS (Google Drive file named in BENCHMARK.md of showlab/VideoLISA)",
    "https://drive.google.com/file/d/1qruU9QlUhPcHnN-UHG7iri2nhw_xo7gP",
)

_UNIVG_TABLE = "the zero-shot table of the UniVG-R1 paper"
_NOT_THE_SAME = (
    "none: the UniVG-R1 table was made on boxes that its authors extracted, and the way to get "
    "them from the raw release is not published"
)
_UNIVG_LICENCE = "boxes: MIT (Hub card of GD-ML/UniVG-R1-data)"
# The README of lichengunc/refer, where the annotations are published, says nothing of terms.
_UNC_LICENCE = (
    "Apache-2.0 (README of JierunChen/Ref-L4; also the licence of the repository lichengunc/refer)"
)
_GOOGLE_LICENCE = (
    "CC BY 4.0 (README of mjhucla/Google_Refexp_toolbox, its authors, and of JierunChen/Ref-L4)"
)
_REFCOCO_BY_HAND = (
    ByHand("the annotations in one of the forms of docs/refcoco.md", "docs/refcoco.md"),
    ByHand("COCO train2014 images (13 GB)", "https://cocodataset.org/#download"),
)


def _refcoco(
    name: str, dataset: str, title: str, splits: tuple[str, ...], licence: str
) -> CatalogEntry:
    return CatalogEntry(
        name=name,
        benchmark=name,
        title=title,
        opener=_READERS + "refcoco:open_refcoco",
        splits=splits,
        options=("form",),
        fixed={"dataset": dataset},
        needs_workspace=True,
        tasks={f"univg_{name}_{split}": split for split in splits},
        by_hand=_REFCOCO_BY_HAND,
        licence=f"annotations: {licence}; images: COCO, https://cocodataset.org/#termsofuse",
        comparable_with_published=True,
        published="Acc@0.5 on these partitions, as most papers report it",
    )


_ENTRIES = (
    CatalogEntry(
        name="mini",
        benchmark="univg_mini",
        title="univg_mini, fifteen small generated tasks that mirror the others",
        builder=_SYNTHETIC + "mini:ensure",
        splits=("test",),
        options=("n", "seed"),
        tasks={"univg_mini": None},
        licence="Apache-2.0 (made by this project)",
        comparable_with_published=False,
        published="none: a test of pipelines and basic skills",
    ),
    CatalogEntry(
        name="photos",
        benchmark="photos",
        title="real photographs from installed packages, and composites with known boxes",
        builder=_SYNTHETIC + "photos:ensure",
        splits=("test",),
        options=("n", "seed"),
        tasks={"univg_photos": None},
        licence="boxes: Apache-2.0 (made by this project); photographs: as in their packages",
        comparable_with_published=False,
        published="none: the questions of `univg check`",
    ),
    CatalogEntry(
        name="mig_bench",
        benchmark="mig_bench",
        title="MIG-Bench, ten tasks over several images, the original annotations",
        opener=_READERS + "mig_bench:open_mig_bench",
        splits=("test",),
        options=("scale",),
        fixed={"revision": "original"},
        tasks={"univg_mig_bench": None},
        hub=(HubFiles(_MIG_REPO, _MIG_COMMIT, ("MIG_data.json", "images.zip")),),
        images_on_hub=True,
        by_hand=_MIG_BY_HAND,
        image_archives=_MIG_ARCHIVES,
        licence="Apache-2.0 (Hub card), MIT (repository thunlp/Migician)",
        comparable_with_published=True,
        published="the table of the Migician paper; UniVG-R1's table used the revised annotations",
    ),
    CatalogEntry(
        name="mig_bench_revised",
        benchmark="mig_bench_revised",
        title="MIG-Bench with the annotations that the UniVG-R1 authors revised",
        opener=_READERS + "mig_bench:open_mig_bench",
        splits=("test",),
        options=("scale",),
        fixed={"revision": "revised"},
        tasks={"univg_mig_bench_revised": None},
        hub=(
            HubFiles(_UNIVG_REPO, _UNIVG_COMMIT, ("revised_MIG_bench.json",)),
            HubFiles(_MIG_REPO, _MIG_COMMIT, ("images.zip",)),
        ),
        images_on_hub=True,
        by_hand=(
            ByHand("revised_MIG_bench.json", f"https://huggingface.co/datasets/{_UNIVG_REPO}"),
            ByHand("images.zip (1.01 GB)", f"https://huggingface.co/datasets/{_MIG_REPO}"),
        ),
        image_archives=_MIG_ARCHIVES,
        licence="annotations: MIT (Hub card of GD-ML/UniVG-R1-data); images: as mig_bench",
        comparable_with_published=True,
        published="the MIG-Bench table of the UniVG-R1 paper",
    ),
    CatalogEntry(
        name="lisa",
        benchmark="lisa",
        title="LISA's ReasonSeg, the boxes that UniVG-R1 scores",
        opener=_READERS + "lisa:open_lisa",
        splits=("val", "test"),
        tasks={"univg_lisa_val": "val", "univg_lisa_test": "test"},
        hub=_extracted("lisa_val.json", "lisa_test.json"),
        by_hand=_extracted_by_hand("lisa_{val,test}.json", _REASONSEG),
        licence=f"{_UNIVG_LICENCE}; ReasonSeg: not stated",
        comparable_with_published=True,
        published=_UNIVG_TABLE,
    ),
    CatalogEntry(
        name="llmseg",
        benchmark="llmseg",
        title="LLM-Seg40K, the boxes that UniVG-R1 scores",
        opener=_READERS + "llmseg:open_llmseg",
        splits=("test",),
        tasks={"univg_llmseg": None},
        hub=_extracted("LLMSeg_eval.json"),
        by_hand=_extracted_by_hand("LLMSeg_eval.json", *_LLM_SEG_IMAGES),
        licence=f"{_UNIVG_LICENCE}; COCO: https://cocodataset.org/#termsofuse; EgoObjects: MIT",
        comparable_with_published=True,
        published=_UNIVG_TABLE,
    ),
    CatalogEntry(
        name="revos",
        benchmark="revos",
        title="ReVOS, the boxes in sampled frames that UniVG-R1 scores",
        opener=_READERS + "revos:open_revos",
        splits=("test",),
        tasks={"univg_revos": None, "univg_revos_video": None},
        hub=_extracted("ReVOS_eval.json"),
        by_hand=_extracted_by_hand("ReVOS_eval.json", _REVOS),
        image_archives=_REVOS_ARCHIVES,
        licence=f"{_UNIVG_LICENCE}; ReVOS: CC BY-NC-SA 4.0, non-commercial research only",
        comparable_with_published=True,
        published=_UNIVG_TABLE,
    ),
    CatalogEntry(
        name="reasonvos",
        benchmark="reasonvos",
        title="ReasonVOS, the boxes in sampled frames that UniVG-R1 scores",
        opener=_READERS + "reasonvos:open_reasonvos",
        splits=("test",),
        tasks={"univg_reasonvos": None, "univg_reasonvos_video": None},
        hub=_extracted("ReasonVOS_eval.json"),
        by_hand=_extracted_by_hand("ReasonVOS_eval.json", _REASONVOS),
        licence=f"{_UNIVG_LICENCE}; ReasonVOS: non-commercial research only, and the licences of "
        "BURST, VIPSeg, MOSE and MeViS",
        comparable_with_published=True,
        published=_UNIVG_TABLE,
    ),
    CatalogEntry(
        name="lisa_full",
        benchmark="lisa_full",
        title="ReasonSeg itself: polygons painted, all instructions",
        opener=_READERS + "lisa:open_lisa_full",
        splits=("val", "test"),
        tasks={"univg_lisa_full_val": "val", "univg_lisa_full_test": "test"},
        by_hand=(_REASONSEG,),
        licence="not stated",
        comparable_with_published=False,
        published=_NOT_THE_SAME,
    ),
    CatalogEntry(
        name="llmseg_full",
        benchmark="llmseg_full",
        title="a split of LLM-Seg40K itself: masks, all questions",
        opener=_READERS + "llmseg:open_llmseg_full",
        splits=("test",),
        options=("coco", "ego_objects"),
        tasks={"univg_llmseg_full": None},
        by_hand=(
            ByHand(
                "LLM-Seg40K (Google Drive folder named in the README of wangjunchi/LLMSeg)",
                "https://drive.google.com/drive/folders/19MyzJN9hkvTSUr2lUFlMwmS2TSRRKmUX",
            ),
            *_LLM_SEG_IMAGES,
        ),
        licence="LLM-Seg40K: not stated; COCO: https://cocodataset.org/#termsofuse; EgoObjects: "
        "MIT",
        comparable_with_published=False,
        published=_NOT_THE_SAME,
    ),
    CatalogEntry(
        name="revos_full",
        benchmark="revos_full",
        title="the validation part of ReVOS itself: masks, all expressions, absent objects too",
        opener=_READERS + "revos:open_revos_full",
        splits=("test",),
        options=("sampling",),
        tasks={"univg_revos_full": None, "univg_revos_full_video": None},
        by_hand=(_REVOS,),
        image_archives=_REVOS_ARCHIVES,
        licence="CC BY-NC-SA 4.0, non-commercial research only",
        comparable_with_published=False,
        published=_NOT_THE_SAME,
    ),
    CatalogEntry(
        name="reasonvos_full",
        benchmark="reasonvos_full",
        title="ReasonVOS itself: masks, all expressions",
        opener=_READERS + "reasonvos:open_reasonvos_full",
        splits=("test",),
        options=("sampling",),
        tasks={"univg_reasonvos_full": None, "univg_reasonvos_full_video": None},
        by_hand=(_REASONVOS,),
        licence="non-commercial research only, and the licences of BURST (MIT), VIPSeg "
        "(non-commercial research), MOSE and MeViS (CC BY-NC-SA 4.0)",
        comparable_with_published=False,
        published=_NOT_THE_SAME,
    ),
    _refcoco(
        "refcoco", "refcoco", "RefCOCO, UNC's partition", ("val", "testA", "testB"), _UNC_LICENCE
    ),
    _refcoco(
        "refcoco_plus",
        "refcoco+",
        "RefCOCO+, UNC's partition",
        ("val", "testA", "testB"),
        _UNC_LICENCE,
    ),
    _refcoco("refcocog", "refcocog", "RefCOCOg, UMD's partition", ("val", "test"), _GOOGLE_LICENCE),
    CatalogEntry(
        name="custom",
        benchmark="custom",
        title="your own questions, as JSON Lines",
        opener=_READERS + "custom:open_custom",
        splits=("test",),
        tasks={"univg_custom": None},
        licence="yours",
        comparable_with_published=False,
        published="none",
    ),
)

CATALOG: Mapping[str, CatalogEntry] = {entry.name: entry for entry in _ENTRIES}
"""Name → entry, in the order of lists."""
