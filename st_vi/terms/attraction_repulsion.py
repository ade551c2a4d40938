"""Contrastive attraction and repulsion: far positives pull more, near negatives push more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from st_vi.terms.pairs import Direction, PairBatch


@dataclass(frozen=True)
class AttractionRepulsion:
    """The distance to the positives less that to the negatives, each averaged with weights of its own.

    With d = 2 − 2s the squared distance of unit vectors with the cosine s, P(i) and N(i) the positives and the true
    negatives of row i:

        L_i = Σ_{p ∈ P(i)} softmax_P(τ₊ d_ip) d_ip  −  Σ_{n ∈ N(i)} softmax_N(−τ₋ d_in) d_in

    The loss lies in [−4, 4]. With one positive a row its weight is 1 and the attraction is plain alignment, so that
    only several positives (``num_positives=2`` or more) make use of τ₊. A row without negatives gives 0.

    Source: CACR, arXiv 2105.03746. The gradient flows through the weights too, as there. *Inferred*: the default
    scales; 0 for a row without negatives, which the paper does not have.

    Args:
        positive_scale: τ₊ ≥ 0, how much more a far positive counts; 0 counts all alike.
        negative_scale: τ₋ ≥ 0, how much more a near negative counts; 0 counts all alike.
        detach_weights: No gradient through the weights.
        weight: Weight of the term in a task.

    Raises:
        ValueError: A scale is negative.

    Example:
        >>> import torch
        >>> from st_vi.terms import AttractionRepulsion, PairBatch
        >>> AttractionRepulsion()(PairBatch(torch.eye(2), torch.eye(2)))  # positives at 0, negatives at 2
        tensor([-2., -2.])
    """

    positive_scale: float = 1.0
    negative_scale: float = 2.0
    detach_weights: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("positive_scale", "negative_scale"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view = pairs.forward
        return (self.attraction(view) - self.repulsion(view)) * view.negative.any(dim=1)

    def attraction(self, view: Direction) -> Tensor:
        """The weighted distance to the positives, (R,)."""
        return self._mean_distance(view.similarity, view.positive, self.positive_scale)

    def repulsion(self, view: Direction) -> Tensor:
        """The weighted distance to the negatives, (R,); 0 without any."""
        return self._mean_distance(view.similarity, view.negative, -self.negative_scale)

    def _mean_distance(self, similarity: Tensor, mask: Tensor, scale: float) -> Tensor:
        distance = 2 - 2 * similarity
        logits = scale * (distance.detach() if self.detach_weights else distance)
        # A finite minimum: a row without any gets even weights, which the mask then takes away, instead of NaN.
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(dim=1)
        return (weights * distance * mask).sum(dim=1)
