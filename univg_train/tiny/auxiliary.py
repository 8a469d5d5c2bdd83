"""Losses that training alone has: what each image token shows, and where an answer looks.

Next-token prediction says nothing of an image but through the few words of an answer, and a small
model needs many scenes to learn from these alone which tokens show which object. Two losses say
it at once, and leave no trace in the finished model:

* two linear heads read, from every image token, the object that covers it: colour, shape, box;
* while an answer names or locates an object, two heads of one layer have to attend to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from univg_eval.benchmarks.synthetic.mini.layout import LATTICE
from univg_eval.benchmarks.synthetic.mini.scene import COLORS, PRIMITIVES, Scene
from univg_eval.boxes import Box

if TYPE_CHECKING:
    from transformers import Qwen2VLForConditionalGeneration

__all__ = [
    "ShownObjects",
    "TokenHeads",
    "Trainee",
    "attention_loss",
    "covered_tokens",
    "token_targets",
]

_COLORS = {name: number for number, name in enumerate(COLORS, start=1)}
_SHAPES = {name: number for number, name in enumerate(PRIMITIVES, start=1)}
# Values of each figure of a token: colour and shape (0: no object), inside a red outline, and the
# corners of the box.
_SIZES = (len(_COLORS) + 1, len(_SHAPES) + 1, 2, *4 * (LATTICE + 1,))
_IGNORED = -100
# An object that covers less of a token is not what the token shows.
_LEAST_COVER = 0.15


def _cover(boxes: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """Share of each token's area that boxes cover, (boxes, side * side)."""
    edges = np.arange(side) / side
    low = np.maximum(boxes[:, :2, None], edges)
    high = np.minimum(boxes[:, 2:, None], edges + 1 / side)
    along = np.clip(high - low, 0, None) * side
    cover: npt.NDArray[np.float64] = along[:, 1, :, None] * along[:, 0, None, :]
    return cover.reshape(len(boxes), side * side)


def covered_tokens(box: Box, side: int) -> npt.NDArray[np.int64]:
    """The tokens of an image, in the order of its rows, that show what is in a box (xyxy_norm).

    Those that it covers at least half as much as the one that it covers most.
    """
    cover = _cover(np.asarray([box]), side)[0]
    return np.flatnonzero(cover >= max(0.5 * cover.max(), 1e-9))


def token_targets(scene: Scene, side: int) -> npt.NDArray[np.int64]:
    """What each token of an image shows, (side * side, figures); -100: no such figure."""
    targets = np.full((side * side, len(_SIZES)), _IGNORED)
    targets[:, :3] = 0
    for box in scene.marks:
        targets[covered_tokens(box, side), 2] = 1
    if not scene.objects:
        return targets
    boxes = np.asarray([obj.box for obj in scene.objects])
    cover = _cover(boxes, side)
    best = cover.argmax(axis=0)
    corners = np.clip(np.rint(boxes * LATTICE), 0, LATTICE)
    figures = np.asarray(
        [
            (_COLORS[obj.color], _SHAPES[obj.shape], *corner)
            for obj, corner in zip(scene.objects, corners, strict=True)
        ],
        dtype=np.int64,
    )
    shown = cover.max(axis=0) >= _LEAST_COVER
    targets[:, [0, 1, 3, 4, 5, 6]] = np.where(
        shown[:, None], figures[best], targets[:, [0, 1, 3, 4, 5, 6]]
    )
    return targets


@dataclass(frozen=True, slots=True)
class ShownObjects:
    """What the images of packed rows show, and where their answers speak of it.

    figures: (images, tokens of an image, figures), of `token_targets`.
    looks: (looks, 2), row and position of tokens whose successor speaks of an object.
    looked_at: (looks, length) bool, the image tokens that show it.
    """

    figures: Tensor
    looks: Tensor
    looked_at: Tensor


class TokenHeads(nn.Module):
    """Linear readings of image tokens, at the entrance and in the middle of the language model."""

    def __init__(self, hidden: int, places: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, sum(_SIZES)))
            for _ in range(places)
        )

    def forward(self, place: int, tokens: Tensor, targets: Tensor) -> Tensor:
        """The sum over tokens of the mean cross entropy of their figures, a float32 scalar.

        Args:
            place: which of the heads.
            tokens: (tokens, hidden).
            targets: (tokens, figures).
        """
        parts = self.heads[place](tokens).float().split(_SIZES, dim=-1)
        losses = [
            functional.cross_entropy(part, targets[:, i], reduction="sum", ignore_index=_IGNORED)
            for i, part in enumerate(parts)
        ]
        return torch.stack(losses).sum() / len(_SIZES)


class Trainee(nn.Module):
    """The model with the heads that training alone has."""

    def __init__(self, model: Qwen2VLForConditionalGeneration, *, seed: int) -> None:
        super().__init__()
        self.model = model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = TokenHeads(model.model.language_model.config.hidden_size, places=2)

    def vision_parameters(self) -> list[nn.Parameter]:
        """What learns from images alone: the vision tower, and the heads at its end."""
        return [*self.model.model.visual.parameters(), *self.heads.heads[0].parameters()]


def attention_loss(
    query: Tensor, key: Tensor, mask: Tensor, places: Tensor, wanted: Tensor, scale: float
) -> Tensor:
    """The sum over places of -log(share of the attention that goes where it is wanted).

    Args:
        query, key: (rows, heads, length, head size).
        mask: (rows, 1, length, length), additive.
        places: (places, 2), row and position of the queries.
        wanted: (places, length) bool.
    """
    rows, at = places[:, 0], places[:, 1]
    scores: Any = torch.matmul(query, key.transpose(-1, -2))[rows, :, at].float() * scale
    shares = functional.log_softmax(scores + mask[rows, :, at], dim=-1)
    kept = shares.masked_fill(~wanted[:, None], float("-inf"))
    return -torch.logsumexp(kept, dim=-1).mean(dim=1).sum()
