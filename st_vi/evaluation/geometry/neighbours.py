"""Nearest neighbours, and how many of them a change leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.evaluation.geometry.vectors import CHUNK, blocks, checked, unit_vectors


def nearest_neighbours(x: Tensor, k: int, chunk: int = CHUNK) -> Tensor:
    """The k other vectors with the highest cosine, nearest first, (N, k) int64. The order of ties is not fixed.

    Exact, in blocks of chunk × chunk similarities of which only the best k a row are kept.

    Args:
        x: (N, D), a tensor or an array; made unit vectors inside.
        k: From 1 to N − 1; the vector itself is no neighbour.
        chunk: Rows and columns of a block.

    Raises:
        ValueError: k is no whole number or out of range, fewer than two vectors, NaN or infinite values.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import nearest_neighbours
        >>> nearest_neighbours(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3]]), k=1).flatten()
        tensor([1, 0, 1])
    """
    x = unit_vectors(checked(x))
    check_whole("k", k, most=len(x) - 1)
    return torch.cat([_nearest_of(rows, first, x, k, chunk) for first, rows in blocks(x, chunk)])


def neighbourhood_overlap(before: Tensor, after: Tensor, k: int = 10, chunk: int = CHUNK) -> Tensor:
    """Share of its k nearest neighbours that each vector has kept, (N,) in [0, 1].

    Chance is k/(N − 1). No rotation and no common scale changes it.

    Args:
        before: (N, D), such as embeddings before training.
        after: (N, E), the same inputs; E may differ.
        k: From 1 to N − 1.
        chunk: See `nearest_neighbours`.

    Raises:
        ValueError: Unequal N, or see `nearest_neighbours`.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import neighbourhood_overlap
        >>> line = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3], [1.0, 0.7]])
        >>> neighbourhood_overlap(line, line[[3, 1, 2, 0]], k=1)  # the ends have changed places
        tensor([0., 0., 1., 0.])
    """
    if len(before) != len(after):
        raise ValueError(f"before and after must be the same points, got {len(before)} and {len(after)}")
    return shared_neighbours(nearest_neighbours(before, k, chunk), nearest_neighbours(after, k, chunk))


def shared_neighbours(before: Tensor, after: Tensor) -> Tensor:
    """Share of the different neighbours (N, k) of `before` that are also in the same row of `after`, (N,) in [0, 1]."""
    in_order = torch.cat([before, after.to(before.device)], 1).sort(dim=1).values  # shared ones come twice
    return (in_order[:, 1:] == in_order[:, :-1]).sum(dim=1) / before.shape[1]


def _nearest_of(rows: Tensor, first: int, x: Tensor, k: int, chunk: int) -> Tensor:
    cosines, numbers = rows.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.long, device=x.device)
    for start, columns in blocks(x, chunk):
        block = rows @ columns.T
        if start == first:
            block.fill_diagonal_(-torch.inf)
        best = block.topk(min(k, len(columns)), dim=1)
        cosines, numbers = torch.cat([cosines, best.values], 1), torch.cat([numbers, best.indices + start], 1)
        best = cosines.topk(min(k, cosines.shape[1]), dim=1)
        cosines, numbers = best.values, numbers.gather(1, best.indices)
    return numbers
