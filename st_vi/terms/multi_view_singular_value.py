"""Alignment of the views of an item by singular values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.terms.pairs import PairBatch, products, unit
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class MultiViewSingularValue(Term):
    """The largest singular value of an item's views against the rest, and its direction against those of other items.

    The m views of item i are its anchor and all its positives. At unit length they are the rows of V_i (m, D), with
    singular values σ_i1 ≥ … ≥ σ_im and first right singular vector u_i (D,). With N(i) the items that are true
    negatives of item i (`PairBatch.negative_items`):

        L_i = −log( e^{σ_i1/τ₁} / Σ_r e^{σ_ir/τ₁} )  −  log( e^{u_i·u_i/τ₂} / Σ_{j ∈ {i} ∪ N(i)} e^{u_i·u_j/τ₂} )

    The first part is smallest when all views are parallel. Opposite views are parallel too, so a view whose cosine with
    the others is negative moves towards −1: start from a model whose pairs are similar, or add a term that tells the
    sign. An item without negatives has the first part only. More than two views need ``num_positives=2`` or more.

    u points towards the sum of the views, or, where the sum is orthogonal to it (two views with a negative cosine),
    towards the anchor. Values and directions come from the m × m matrix V Vᵀ in at least fp32. Gradients are exact, but
    for one case: σ_r = ‖Vᵀw_r‖ with the eigenvector w_r held constant needs no division by σ_r − σ_s, and in the
    derivative of w_1 the factor 1/(σ₁² − σ_r²) is damped to 0 where two values meet and no direction leads.

    Source: PMRL, arXiv 2507.17343, with τ₂ = 0.1. *Inferred*: sign, damping and masks; texts instead of modalities.

    Args:
        singular_temperature: τ₁ > 0. Singular values lie in [0, √m]. The default is *inferred*: at the paper's 0.05, a
            cosine of 0.25 between two views already brings the first part below 0.01. That suits modalities, which
            begin far apart; two texts are that similar from the start and would drift apart.
        temperature: τ₂ > 0.
        weight: Weight of the term in a task.

    Raises:
        ValueError: A temperature is not positive.

    Example:
        >>> import torch
        >>> from st_vi.terms import MultiViewSingularValue, PairBatch
        >>> term = MultiViewSingularValue(singular_temperature=1.0, temperature=1.0)
        >>> term(PairBatch(torch.eye(2), torch.eye(2)))  # σ = (√2, 0), u_1·u_2 = 0
        tensor([0.5309, 0.5309])
    """

    singular_temperature: float = 0.5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("singular_temperature", self.singular_temperature > 0, "positive")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        values, directions = pairs.once(_singular)
        logits = products(pairs.own(directions), directions) / self.temperature
        row = pairs.own(torch.arange(len(directions), device=directions.device))
        candidate = pairs.negative_items.scatter(1, row[:, None], True)
        logits = logits.masked_fill(~candidate, -float("inf"))
        first = pairs.own(values) / self.singular_temperature
        alignment = F.cross_entropy(first, torch.zeros_like(row), reduction="none")
        return alignment + F.cross_entropy(logits, row, reduction="none")


def _singular(pairs: PairBatch) -> tuple[Tensor, Tensor]:
    views = unit(torch.stack(pairs.inputs[: 1 + pairs.num_positives], dim=1))
    with torch.autocast(views.device.type, enabled=False):
        return _decompose(views)


def _decompose(views: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values in descending order, (W, m), and leading directions, (W, D), of views (W, m, D)."""
    gram = views @ views.mT
    squares, vectors = (part.flip(-1) for part in torch.linalg.eigh(gram.detach()))
    # 1e-10: the gradient of a value that is 0 would otherwise follow rounding errors.
    values = ((vectors.mT @ views).square().sum(dim=2) + 1e-10).sqrt()

    gap = squares[:, :1] - squares  # 0 for the first value, and for others equal to it
    damped = gap / (gap.square() + 1e-8)
    leading = vectors[:, :, :1] * _sign(vectors[:, :, 0])[:, None, None]
    # Its value is `leading`, its derivative that of the eigenvector: Σ_r w_r (w_rᵀ dG w_1)/(λ_1 − λ_r).
    leading = leading + vectors @ (damped[:, :, None] * (vectors.mT @ ((gram - gram.detach()) @ leading)))
    directions = (leading.mT @ views).squeeze(1)
    return values, directions / values[:, :1].clamp(min=1e-3)  # σ_1 ≥ 1, unless the views are zero


def _sign(leading: Tensor) -> Tensor:
    """+1 or −1 for each w_1. V u = σ_1 w_1 are the products of the views with u: their sum decides, or the anchor's."""
    total, anchor = leading.sum(dim=1), leading[:, 0]
    return torch.where(torch.where(total.abs() > 1e-4, total, anchor) < 0, -1.0, 1.0).to(leading.dtype)
