"""What the four sets of UniVG-R1's zero-shot table share: LISA, LLM-Seg, ReVOS and ReasonVOS.

Each is two benchmarks. One is made from the boxes that the UniVG-R1 authors extracted and score
(GD-ML/UniVG-R1-data, folder zero_shot_evaluation), and is comparable with their table. The other,
``…_full``, is made from the release itself.
"""

from __future__ import annotations

from typing import Any

from univg_eval.benchmarks.readers.common.entry import ByHand, CatalogEntry, HubFiles

__all__ = ["extracted_entry", "full_entry"]

_REPO = "GD-ML/UniVG-R1-data"
_COMMIT = "9a1fa8e4f1a1a05b2cff40804236c82e60054678"
_FOLDER = "zero_shot_evaluation"


def extracted_entry(
    *, files: tuple[str, ...], images: tuple[ByHand, ...], licence: str, **more: Any
) -> CatalogEntry:
    """The entry of a benchmark on UniVG-R1's boxes.

    Args:
        files: of the Hub's folder.
        images: where the images are found.
        licence: of the images.
        more: see `CatalogEntry`.
    """
    return CatalogEntry(
        hub=(HubFiles(_REPO, _COMMIT, tuple(f"{_FOLDER}/{file}" for file in files)),),
        by_hand=(
            ByHand(
                f"boxes: {' and '.join(f'{_FOLDER}/{file}' for file in files)}",
                f"https://huggingface.co/datasets/{_REPO}",
            ),
            *images,
            ByHand(
                "or zero-shot.zip of an author of UniVG-R1 (1.93 GB; its content is undocumented)",
                "https://huggingface.co/datasets/SuleBai/UniVG-R1-zeroshot",
            ),
        ),
        licence=f"boxes: MIT (Hub card of {_REPO}); {licence}",
        comparable_with_published=True,
        published="the zero-shot table of the UniVG-R1 paper",
        **more,
    )


def full_entry(**more: Any) -> CatalogEntry:
    """The entry of a benchmark on the release itself; see `CatalogEntry`."""
    return CatalogEntry(
        comparable_with_published=False,
        published="none: the UniVG-R1 table was made on boxes that its authors extracted, and the "
        "way to get them from the raw release is not published",
        **more,
    )
