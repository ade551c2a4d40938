"""How many neighbours two lists share, against sets."""

from __future__ import annotations

import pytest
import torch

from st_vi.evaluation.geometry.neighbours import nearest_neighbours, neighbourhood_overlap, shared_neighbours


@pytest.mark.parametrize("k", [1, 3, 9])
def test_shared_neighbours(k):
    generator = torch.manual_seed(k)
    before, after = (torch.stack([torch.randperm(10, generator=generator)[:k] for _ in range(50)]) for _ in range(2))
    expected = [len({*a} & {*b}) / k for a, b in zip(before.tolist(), after.tolist(), strict=True)]
    assert shared_neighbours(before, after).tolist() == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_fewer_neighbours_are_the_beginning_of_the_lists_for_more():
    x, y = (torch.randn(40, 8, generator=torch.manual_seed(seed)) for seed in (0, 1))
    near = [nearest_neighbours(space, 20) for space in (x, y)]
    for k in (1, 5, 20):
        shared = shared_neighbours(*(rows[:, :k] for rows in near))
        torch.testing.assert_close(shared, neighbourhood_overlap(x, y, k))
