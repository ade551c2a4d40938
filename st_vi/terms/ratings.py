"""Ordered ratings: the region of a rating, and the loss of pairs of ratings of which one is higher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from st_vi.checks import check_whole

NEVER = -1e30
"""The logarithm of 0 whose sums stay finite, and so do their gradients."""


def regions_of(num_levels: int, num_regions: int) -> Tensor:
    """The region of every level, (K,): as many levels in each as possible, the longer ones first.

    Raises:
        ValueError: There is no region, more of them than levels, or no whole number of them.

    Example:
        >>> from st_vi.terms.ratings import regions_of
        >>> regions_of(9, 3)
        tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    """
    check_whole("regions", num_regions, most=num_levels)
    return torch.cat(
        [part.new_full(part.shape, i) for i, part in enumerate(torch.arange(num_levels).tensor_split(num_regions))]
    )


def region_losses(
    log_p: Tensor, scores: Tensor, levels: Tensor, regions: Tensor, flood: bool = True
) -> tuple[Tensor, Tensor]:
    """The loss of each pair of rows, and which pairs there are; see `st_vi.losses.RatingLoss`.

    Args:
        log_p: Logarithms of the probability of each level, (B, K).
        scores: (B,), any numbers: the row with the higher one is the better one.
        levels: (B,) int, the level of each score, from 0 to K − 1.
        regions: (K,) int, the region of each level, in ascending order.
        flood: As for `RatingLoss`.

    Returns:
        −log P of each pair, (B, B), the better row first; and the pairs, (B, B) bool: i has the higher score, and its
        region leaves room above the lowest level of the region of j. The loss of any other pair means nothing.
    """
    row = torch.arange(len(regions), device=log_p.device)
    first = torch.searchsorted(regions, regions[levels])  # lo and hi of the region of each row
    last = torch.searchsorted(regions, regions[levels], right=True) - 1
    above, under = row > last[:, None], row < first[:, None]
    better = log_p.masked_fill(above if flood else above | under, NEVER)
    worse = log_p.masked_fill(under if flood else above | under, NEVER)
    below = torch.cat([torch.full_like(worse[:, :1], NEVER), worse.logcumsumexp(dim=1)[:, :-1]], dim=1)
    losses = -(better[:, None] + below).logsumexp(dim=2)
    pairs = (scores[:, None] > scores) & (last[:, None] > first)
    return losses, pairs


def rating_head(model: Any) -> Any:
    """The `st_vi.modules.RatingHead` of a model.

    Raises:
        ValueError: The model has none, or more than one.
    """
    found = [module for module in model if hasattr(module, "log_probabilities")]
    if len(found) != 1:
        raise ValueError(f"the model needs one RatingHead, and has {len(found)}: RatingHead.add_to(model) gives it one")
    return found[0]
