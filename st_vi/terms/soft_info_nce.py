"""InfoNCE whose negatives weigh the less, the more they are like the query."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from st_vi.terms.contrastive import InfoNCE
from st_vi.terms.pairs import Direction


@dataclass(frozen=True)
class SoftInfoNCE(InfoNCE):
    """Soft-InfoNCE: a likely false negative pushes less. With M = |N(i)| true negatives, p their softmax over s/t:

        w_j = max( (β − α p_j) / (β − α/M), w_min )
        L_i = −1/|P(i)| Σ_{p ∈ P(i)} log( e^{ℓ_ip} / (Σ_{q ∈ P(i)} e^{ℓ_iq} + Σ_{j ∈ N(i)} w_j e^{ℓ_ij}) )

    with ℓ and P(i) as in `InfoNCE`. The weights of a row average 1 before w_min; only α/β matters, and α = 0 is
    InfoNCE. Source: Li et al. 2023, arXiv 2310.08069 (Soft-InfoNCE, w_min = 0.1).

    *Inferred:* the similarities that p is made of are the model's own, and carry no gradient (the paper has them from
    BM25 or a frozen model); several positives as in InfoNCE; the default α and β. The paper's t = 1 is for dot products
    and BM25, which differ by tens: of cosines it makes a softmax that is flat, and weights that are all about 1; so t
    is the default temperature of `InfoNCE`, as the weights are to follow what it looks at. The formula is singular at
    M = α/β, and below it would weigh similar negatives more: a row with that few negatives is plain InfoNCE. A lone
    negative has the weight 1 for every other α/β too, so α = β goes on from there without a jump.

    Args:
        temperature: τ > 0, as all others up to `min_score` that of `InfoNCE`.
        symmetric: Average with the same loss from positives to anchors, with weights of its own.
        hard_negative_weight: Added to the logits of the row's own hard negatives; not part of p.
        weight: Weight of the term in a task.
        min_score: A row with a lower score gives 0.
        relevance_weight: α ≥ 0, how much similarity takes from the weight.
        uniformity_weight: β > 0.
        weight_temperature: t > 0; the lower, the more the most similar negative alone loses.
        min_weight: w_min in (0, 1].

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, SoftInfoNCE
        >>> pairs = PairBatch(torch.eye(3), torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]]))
        >>> SoftInfoNCE(weight_temperature=1.0).weights(pairs.forward)[0]  # positive, alike, not alike
        tensor([1.0000, 0.5379, 1.4621])
    """

    relevance_weight: float = 1.0
    uniformity_weight: float = 1.0
    weight_temperature: float = 0.05
    min_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.relevance_weight >= 0:
            raise ValueError(f"relevance_weight must not be negative, got {self.relevance_weight}")
        for name in ("uniformity_weight", "weight_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 < self.min_weight <= 1:
            raise ValueError(f"min_weight must be above 0 and at most 1, got {self.min_weight}")

    def weights(self, view: Direction) -> Tensor:
        """The weights before `min_weight`, (R, C), without gradient; 1 for what is no negative."""
        similarity = view.similarity.detach() / self.weight_temperature
        p = similarity.masked_fill(~view.negative, -float("inf")).softmax(dim=1)
        count = view.negative.sum(dim=1, keepdim=True, dtype=p.dtype)
        mean = self.uniformity_weight - self.relevance_weight / count
        weights = (self.uniformity_weight - self.relevance_weight * p) / mean
        return weights.where(view.negative & (mean > 0), torch.ones_like(weights))

    def _logits(self, view: Direction) -> Tensor:
        return super()._logits(view) + self.weights(view).clamp(min=self.min_weight).log()
