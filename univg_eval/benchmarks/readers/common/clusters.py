"""Which rows of a set are not independent, because they share images."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["shared_image_clusters"]


def shared_image_clusters(image_lists: Sequence[Sequence[str]]) -> list[int]:
    """For each row the number of the first row that it shares an image with, through any chain.

    Args:
        image_lists: names of the images of each row; equal names are one image.
    """
    parent = list(range(len(image_lists)))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first_row: dict[str, int] = {}
    for row, images in enumerate(image_lists):
        for image in images:
            other = first_row.setdefault(image, row)
            a, b = find(row), find(other)
            # The smaller number stays the root, so a cluster is named after its first row.
            parent[max(a, b)] = min(a, b)
    return [find(row) for row in range(len(image_lists))]
