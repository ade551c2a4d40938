"""Group ordering: a soft sorting network must find all positives above the hardest negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.terms.pairs import PairBatch


@dataclass(frozen=True)
class GroupOrdering:
    """Binary cross-entropy between a soft sorting of each row's candidates and the order "negatives below positives".

    The n inputs of a row are its hardest negatives, at most top_k, and above them all its positives, each group in
    ascending order of similarity. An odd-even network of n layers sorts them; a layer compares neighbours (the first
    layer inputs 1 and 2, 3 and 4, …, the next one 2 and 3, …) and swaps x below y softly:

        f     = atan(β (y − x))/π + ½
        x, y  ←  f x + (1 − f) y,  (1 − f) x + f y

    All layers together are a doubly stochastic matrix. With m_e the mass that it gives input e on the uppermost places,
    as many as the row has positives:

        L_i = 1/n ( Σ_{e positive} −log m_e  +  Σ_{e negative} −log(1 − m_e) )

    A row with fewer negatives than top_k has the loss that it would have with top_k as small; without any, it gives 0.
    An ordered row gives 0 only in the limit of a high steepness: 1 − f falls off as 1/(π β (y − x)).

    Source: GroCo, arXiv 2301.02009; the defaults are those of its released settings. *Inferred*: which inputs the first
    layer compares; no detached candidates and no replaced activation, as the released settings have them.

    Args:
        top_k: How many of the hardest negatives of a row take part, at least 1.
        steepness: β > 0.
        weight: Weight of the term in a task.

    Raises:
        ValueError: `top_k` is below 1, or the steepness is not positive.

    Example:
        >>> import torch
        >>> from st_vi.terms import GroupOrdering, PairBatch
        >>> same = torch.ones(2, 4)  # all similarities are equal: every swap is half a swap
        >>> GroupOrdering()(PairBatch(same, same))  # log 2
        tensor([0.6931, 0.6931])
    """

    top_k: int = 10
    steepness: float = 1.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not self.steepness > 0:
            raise ValueError(f"steepness must be positive, got {self.steepness}")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view = pairs.forward
        # Rows differ in length: those with fewer negatives start later, those with fewer positives end sooner.
        count = int(view.positive.sum(dim=1).max())
        top_k = min(self.top_k, view.similarity.shape[1])
        negatives = view.similarity.masked_fill(~view.negative, -2.0).topk(top_k).values.flip(1)
        positives = view.similarity.masked_fill(~view.positive, 2.0).topk(count, largest=False).values
        start = (top_k - view.negative.sum(dim=1, keepdim=True)).clamp(min=0)
        end = top_k + view.positive.sum(dim=1, keepdim=True)

        place = torch.arange(top_k + count, device=start.device)
        inside, is_positive = (place >= start) & (place < end), place >= top_k
        swaps = self._swaps(torch.cat([negatives, positives], dim=1), inside, place - start)
        mass = is_positive.to(view.similarity.dtype).expand_as(inside)
        for swap in reversed(swaps):  # from the places back to the inputs: a layer is its own transpose
            mass = _apply(swap, mass)
        right = torch.where(is_positive, mass, 1 - mass).clamp(min=torch.finfo(mass.dtype).eps)
        loss = -(right.log() * inside).sum(dim=1) / inside.sum(dim=1)
        return loss * view.negative.any(dim=1)

    def _swaps(self, values: Tensor, inside: Tensor, position: Tensor) -> list[Tensor]:
        """1 − f of every layer for each input and its upper neighbour, 0 where they are not compared, (R, n − 1)."""
        swaps, length = [], inside.sum(dim=1, keepdim=True)
        neighbours = inside[:, :-1] & inside[:, 1:]
        for layer in range(values.shape[1]):
            compared = neighbours & ((position[:, :-1] - layer) % 2 == 0) & (layer < length)
            swap = 0.5 - (self.steepness * values.diff(dim=1)).atan() / math.pi
            swaps.append(swap.masked_fill(~compared, 0.0))
            values = _apply(swaps[-1], values)
        return swaps


def _apply(swap: Tensor, values: Tensor) -> Tensor:
    """One layer: each input gives its neighbour the share `swap` of the difference, both ways."""
    moved = swap * values.diff(dim=1)
    return values + F.pad(moved, (0, 1)) - F.pad(moved, (1, 0))
