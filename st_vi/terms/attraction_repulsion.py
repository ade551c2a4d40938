"""Contrastive attraction and repulsion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from st_vi.terms.pairs import PairBatch, View
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class AttractionRepulsion(Term):
    """Distance to the positives minus distance to the negatives; far positives and near negatives weigh more.

    With d = 2 − 2s the squared distance of unit vectors with the cosine s, and P(i) and N(i) the positives and the true
    negatives of row i:

        L_i = Σ_{p ∈ P(i)} softmax_P(τ₊ d_ip) d_ip  −  Σ_{n ∈ N(i)} softmax_N(−τ₋ d_in) d_in

    The loss lies in [−4, 4]. A single positive has the weight 1, so τ₊ matters only with several
    (``num_positives=2`` or more). A row without negatives gives 0.

    Source: CACR, arXiv 2105.03746; as there, gradients flow through the weights too. *Inferred*: the default scales,
    and 0 for a row without negatives.

    Args:
        positive_scale: τ₊ ≥ 0. The higher, the more far positives weigh; 0 weighs all alike.
        negative_scale: τ₋ ≥ 0. The higher, the more near negatives weigh; 0 weighs all alike.
        detach_weights: Stop the gradient through the weights.
        weight: Weight of the term in a task.

    Raises:
        ValueError: A scale is negative or infinite.

    Example:
        >>> import torch
        >>> from st_vi.terms import AttractionRepulsion, PairBatch
        >>> AttractionRepulsion()(PairBatch(torch.eye(2), torch.eye(2)))  # distance 0 to positives, 2 to negatives
        tensor([-2., -2.])
    """

    positive_scale: float = 1.0
    negative_scale: float = 2.0
    detach_weights: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("positive_scale", self.positive_scale >= 0, "0 or more")
        self._require("negative_scale", self.negative_scale >= 0, "0 or more")
        self._require_finite("positive_scale", "negative_scale")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view = pairs.anchor_view
        return (self.attraction(view) - self.repulsion(view)) * view.negative.any(dim=1)

    def attraction(self, view: View) -> Tensor:
        """The weighted distance to the positives, (R,)."""
        return self._mean_distance(view.similarity, view.positive, self.positive_scale)

    def repulsion(self, view: View) -> Tensor:
        """The weighted distance to the negatives, (R,); 0 without any."""
        return self._mean_distance(view.similarity, view.negative, -self.negative_scale)

    def _mean_distance(self, similarity: Tensor, mask: Tensor, scale: float) -> Tensor:
        distance = 2 - 2 * similarity
        logits = scale * (distance.detach() if self.detach_weights else distance)
        # A finite minimum: an empty mask gives even weights instead of NaN, and the mask then removes them.
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(dim=1)
        return (weights * distance * mask).sum(dim=1)
