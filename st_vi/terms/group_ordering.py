"""Group ordering: a soft sorting network must find all positives above the hardest negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.terms.pairs import PairBatch, _cosines


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

    Source: GroCo, arXiv 2301.02009. top_k and β are those of its released settings. These also detach the candidates,
    take the other anchors as negatives, and make each view of an item the anchor in turn: give
    ``detach_candidates=True, negatives="anchors"`` for the first two. *Inferred*: what differs from them by default,
    for rows whose two sides differ in kind (an answer has no other view, and hard negatives should take part).

    Args:
        top_k: How many of the hardest negatives of a row take part, at least 1.
        steepness: β > 0.
        detach_candidates: Move the anchors alone; no gradient flows into positives and negatives.
        negatives: What a row's positives must be above: the negative "candidates" of the batch, or the other "anchors",
            but for those of the same text as one of the row's and those whose positive is no true negative of the row.
        weight: Weight of the term in a task.

    Raises:
        ValueError: `top_k` is below 1, the steepness is not positive, or `negatives` is neither of the two.

    Example:
        >>> import torch
        >>> from st_vi.terms import GroupOrdering, PairBatch
        >>> same = torch.ones(2, 4)  # all similarities are equal: every swap is half a swap
        >>> GroupOrdering()(PairBatch(same, same))  # log 2
        tensor([0.6931, 0.6931])
    """

    top_k: int = 10
    steepness: float = 1.0
    detach_candidates: bool = False
    negatives: Literal["candidates", "anchors"] = "candidates"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if not self.steepness > 0:
            raise ValueError(f"steepness must be positive, got {self.steepness}")
        if self.negatives not in ("candidates", "anchors"):
            raise ValueError(f"negatives must be 'candidates' or 'anchors', got {self.negatives!r}")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        similarity, positive, negative = self._compared(pairs)
        # Rows differ in length: those with fewer negatives start later, those with fewer positives end sooner.
        count = int(positive.sum(dim=1).max())
        top_k = min(self.top_k, similarity.shape[1])
        negatives = similarity.masked_fill(~negative, -2.0).topk(top_k).values.flip(1)
        positives = similarity.masked_fill(~positive, 2.0).topk(count, largest=False).values
        start = (top_k - negative.sum(dim=1, keepdim=True)).clamp(min=0)
        end = top_k + positive.sum(dim=1, keepdim=True)

        place = torch.arange(top_k + count, device=start.device)
        inside, is_positive = (place >= start) & (place < end), place >= top_k
        swaps = self._swaps(torch.cat([negatives, positives], dim=1), inside, place - start)
        mass = is_positive.to(similarity.dtype).expand_as(inside)
        for swap in reversed(swaps):  # from the places back to the inputs: a layer is its own transpose
            mass = _apply(swap, mass)
        right = torch.where(is_positive, mass, 1 - mass).clamp(min=torch.finfo(mass.dtype).eps)
        loss = -(right.log() * inside).sum(dim=1) / inside.sum(dim=1)
        return loss * negative.any(dim=1)

    def _compared(self, pairs: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Own anchors against what they are compared with: similarity, positives and negatives, each (R, any)."""
        view, anchors = pairs.forward, pairs.own(pairs.anchors)
        similarity, others = view.similarity, pairs.anchors
        if self.detach_candidates:
            similarity, others = _cosines(anchors, pairs.candidates.flatten(0, 1).detach()), others.detach()
        if self.negatives == "candidates":
            return similarity, view.positive, view.negative
        items = pairs.negative_items
        similarity = torch.cat([similarity, _cosines(anchors, others)], dim=1)
        positive = torch.cat([view.positive, torch.zeros_like(items)], dim=1)
        return similarity, positive, torch.cat([torch.zeros_like(view.negative), items], dim=1)

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
