"""Muon in float32 does what torch's, which computes in bfloat16, does."""

from __future__ import annotations

import pytest
import torch

from univg_train.tiny.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonal(1000 * matrix))
    assert float(values.min()) > 0.4 and float(values.max()) < 1.3
    # The same singular vectors: the product with the transposed matrix is symmetric.
    product = orthogonal(matrix) @ matrix.T
    assert torch.allclose(product, product.T, atol=1e-3 * float(product.abs().max()))


def test_zeros_stay_zeros() -> None:
    assert torch.equal(orthogonal(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(2)
    begin = torch.randn(12, 30, generator=generator)
    gradients = [torch.randn(12, 30, generator=generator) for _ in range(4)]
    ends = []
    for make in (
        lambda weights: Muon(weights, lr=0.1, weight_decay=0.5),
        lambda weights: torch.optim.Muon(
            weights, lr=0.1, weight_decay=0.5, adjust_lr_fn="match_rms_adamw"
        ),
    ):
        weight = torch.nn.Parameter(begin.clone())
        optimizer = make([weight])
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        ends.append(weight.detach())
    moved = (ends[1] - begin).norm()
    assert float((ends[0] - ends[1]).norm() / moved) < 0.02
    assert float(moved) > 0.1


def test_a_parameter_without_a_gradient_stays() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    Muon([weight], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(weight.detach(), torch.ones(2, 3))
