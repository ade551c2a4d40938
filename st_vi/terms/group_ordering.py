"""Group ordering: a soft sorting network that should leave all positives above the hardest negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.terms.pairs import PairBatch, products
from st_vi.terms.term import Term

Opponents = Literal["candidates", "anchors"]


@dataclass(frozen=True, kw_only=True)
class GroupOrdering(Term):
    """Binary cross-entropy between a soft sorting of each row's candidates and the order "negatives below positives".

    The n inputs of a row are its top_k hardest negatives followed by all its positives, both in ascending order of
    similarity. An odd-even network of n layers sorts them. Its layers compare neighbours (1 and 2, 3 and 4, … in the
    first layer, 2 and 3, … in the next) and swap x and the next input y softly:

        f     = atan(β (y − x))/π + ½
        x, y  ←  f x + (1 − f) y,  (1 − f) x + f y

    The product of all layers is a doubly stochastic matrix. With |P| the number of positives of the row, and m_e the
    mass that the matrix gives input e in the |P| highest places:

        L_i = 1/n ( Σ_{e positive} −log m_e  +  Σ_{e negative} −log(1 − m_e) )

    A row with fewer negatives uses those it has; one without any gives 0. Even an ordered row reaches 0 only as the
    steepness grows, since 1 − f falls off as 1/(π β (y − x)).

    Source: GroCo, arXiv 2301.02009, with top_k and β of its released settings. Those settings also detach the
    candidates, use the other anchors as negatives, and make each view of an item the anchor in turn; for the first two,
    pass ``detach_candidates=True, negatives="anchors"``. *Inferred*: the defaults that differ, chosen for rows whose
    two sides differ in kind (an answer has no second view) and have hard negatives.

    Args:
        top_k: How many of its hardest negatives a row uses at most, 1 or more.
        steepness: β > 0.
        detach_candidates: Stop the gradient into positives and negatives, so that only anchors move.
        negatives: What the positives must rank above: the negative "candidates" of the batch, or the other "anchors"
            (those of `PairBatch.negative_items`).
        weight: Weight of the term in a task.

    Raises:
        ValueError: `top_k` is below 1, the steepness is not positive and finite, or `negatives` is unknown.

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
    negatives: Opponents = "candidates"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("top_k", self.top_k)
        self._require("steepness", self.steepness > 0, "positive")
        self._require_finite("steepness")
        self._require_one_of("negatives", Opponents)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        similarity, positive, negative = self._compared(pairs)
        # Rows with fewer negatives start later, rows with fewer positives end earlier.
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
        for swap in reversed(swaps):  # from places back to inputs; each layer is its own transpose
            mass = _apply(swap, mass)
        right = torch.where(is_positive, mass, 1 - mass).clamp(min=torch.finfo(mass.dtype).eps)
        loss = -(right.log() * inside).sum(dim=1) / inside.sum(dim=1)
        return loss * negative.any(dim=1)

    def _compared(self, pairs: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Similarities of the own anchors to all that they are compared with; masks of positives and negatives."""
        view, anchors = pairs.anchor_view, pairs.own(pairs.unit_anchors)
        similarity, others = view.similarity, pairs.unit_anchors
        if self.detach_candidates:
            similarity, others = products(anchors, pairs.unit_candidates.detach()), others.detach()
        if self.negatives == "candidates":
            return similarity, view.positive, view.negative
        items = pairs.negative_items
        similarity = torch.cat([similarity, products(anchors, others)], dim=1)
        positive = torch.cat([view.positive, torch.zeros_like(items)], dim=1)
        return similarity, positive, torch.cat([torch.zeros_like(view.negative), items], dim=1)

    def _swaps(self, values: Tensor, inside: Tensor, position: Tensor) -> list[Tensor]:
        """For every layer, 1 − f of each input and the next one, (R, n − 1); 0 where they are not compared."""
        swaps, length = [], inside.sum(dim=1, keepdim=True)
        neighbours = inside[:, :-1] & inside[:, 1:]
        for layer in range(values.shape[1]):
            compared = neighbours & ((position[:, :-1] - layer) % 2 == 0) & (layer < length)
            swap = 0.5 - (self.steepness * values.diff(dim=1)).atan() / math.pi
            swaps.append(swap.masked_fill(~compared, 0.0))
            values = _apply(swaps[-1], values)
        return swaps


def _apply(swap: Tensor, values: Tensor) -> Tensor:
    """One layer: neighbours exchange the share `swap` of their difference."""
    moved = swap * values.diff(dim=1)
    return values + F.pad(moved, (0, 1)) - F.pad(moved, (1, 0))
