"""InfoNCE with lower weights for negatives that are similar to the query."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from st_vi.terms.contrastive import InfoNCE
from st_vi.terms.pairs import View


@dataclass(frozen=True, kw_only=True)
class SoftInfoNCE(InfoNCE):
    """Soft-InfoNCE: likely false negatives weigh less.

    With ℓ, P(i) and N(i) as in `InfoNCE`, M = |N(i)|, and p the softmax of s/t over N(i):

        w_j = max( (β − α p_j) / (β − α/M), w_min )
        L_i = −1/|P(i)| Σ_{p ∈ P(i)} log( e^{ℓ_ip} / (Σ_{q ∈ P(i)} e^{ℓ_iq} + Σ_{j ∈ N(i)} w_j e^{ℓ_ij}) )

    Before w_min the weights of a row average 1. Only α/β matters, and α = 0 gives InfoNCE. The formula is singular at
    M = α/β, and with fewer negatives it would favour similar ones: such a row is plain InfoNCE. A single negative has
    the weight 1 for any other α/β too, so α = β causes no jump there.

    Source: Li et al. 2023, arXiv 2310.08069, with w_min = 0.1. *Inferred*: p comes from the model's own similarities,
    without gradient, where the paper takes BM25 or a frozen model; several positives as in InfoNCE; the default α and
    β. The paper's t = 1 is for dot products and BM25 scores, which differ by tens; with cosines it makes all weights
    about 1, so the default t is the temperature of `InfoNCE`.

    Args:
        temperature: τ > 0; this and the next three as in `InfoNCE`.
        symmetric: Average with the same loss from positives to anchors, which has its own weights.
        hard_negative_weight: Logit added to the row's own hard negatives; not part of p.
        min_score: A row with a lower score gives 0.
        relevance_weight: α ≥ 0, how much similarity lowers the weight.
        uniformity_weight: β > 0.
        weight_temperature: t > 0. The lower, the more the reduction goes to the most similar negative alone.
        min_weight: w_min in (0, 1].
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, SoftInfoNCE
        >>> pairs = PairBatch(torch.eye(3), torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]]))
        >>> SoftInfoNCE(weight_temperature=1.0).weights(pairs.anchor_view)[0]  # positive, similar, dissimilar
        tensor([1.0000, 0.5379, 1.4621])
    """

    relevance_weight: float = 1.0
    uniformity_weight: float = 1.0
    weight_temperature: float = 0.05
    min_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("relevance_weight", self.relevance_weight >= 0, "0 or more")
        self._require("uniformity_weight", self.uniformity_weight > 0, "positive")
        self._require("weight_temperature", self.weight_temperature > 0, "positive")
        self._require("min_weight", 0 < self.min_weight <= 1, "in (0, 1]")

    def weights(self, view: View) -> Tensor:
        """The weights before `min_weight`, (R, C), without gradient; 1 for candidates that are not negatives."""
        similarity = view.similarity.detach() / self.weight_temperature
        p = similarity.masked_fill(~view.negative, -float("inf")).softmax(dim=1)
        count = view.negative.sum(dim=1, keepdim=True, dtype=p.dtype)
        ratio = self.relevance_weight / self.uniformity_weight
        weights = (1 - ratio * p) / (1 - ratio / count)
        regular = count > ratio * (1 + 1e-6)  # at M = α/β, rounding leaves a tiny divisor of either sign
        return weights.where(view.negative & regular, torch.ones_like(weights))

    def _cosines(self, view: View) -> Tensor:
        return super()._cosines(view) + self.temperature * self.weights(view).clamp(min=self.min_weight).log()
