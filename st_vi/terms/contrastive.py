"""Contrastive terms: the positive against the negatives of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from st_vi.terms.pairs import PairBatch, View
from st_vi.terms.term import Term

MarginScale = Literal["logit", "cosine"]


@dataclass(frozen=True, kw_only=True)
class InfoNCE(Term):
    """InfoNCE over in-batch and hard negatives, averaged over the positives of a row.

    With s the cosine, τ the temperature, P(i) the positives and N(i) the true negatives of row i, H(i) ⊂ N(i) its own
    hard negatives, and w the logit added to them:

        ℓ_ic = s_ic/τ + w·1[c ∈ H(i)]
        L_i  = −1/|P(i)| Σ_{p ∈ P(i)} log( e^{ℓ_ip} / Σ_{c ∈ P(i) ∪ N(i)} e^{ℓ_ic} )

    With one positive a row this is supervised SimCSE (Gao et al. 2021, arXiv 2104.08821, Eq. 5 and Table 7); with
    several it is the "out" form of SupCon (Khosla et al. 2020, arXiv 2004.11362, Eq. 2). A row without negatives gives
    0 with zero gradient.

    Args:
        temperature: τ > 0. ViCLSR reports 0.05 as best; viPolyQwen uses 0.07.
        symmetric: Average with the same loss from positives to anchors, which has no hard negatives.
        hard_negative_weight: w. SimCSE's α is e^w.
        min_score: A row with a lower score gives 0, because its pair is not a positive; rows without a score count. By
            default all rows count, as in viPolyQwen: InfoNCE then attracts pairs that `ScoreMSE` pushes apart.
        weight: Weight of the term in a task.

    Raises:
        ValueError: The temperature is not positive.

    Example:
        >>> import torch
        >>> from st_vi.terms import InfoNCE, PairBatch
        >>> pairs = PairBatch(anchors=torch.eye(2), positives=torch.eye(2))
        >>> InfoNCE(temperature=1.0)(pairs)  # −log(e / (e + 1)) for each of the two rows
        tensor([0.3133, 0.3133])
    """

    temperature: float = 0.05
    symmetric: bool = False
    hard_negative_weight: float = 0.0
    min_score: float = 0.0

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        loss = self._loss(pairs.anchor_view)
        if self.symmetric:
            loss = (loss + self._loss(pairs.positive_view)) / 2
        if pairs.scores is None:
            return loss
        return loss * ~(pairs.own(pairs.scores) < self.min_score)

    def _logits(self, view: View) -> Tensor:
        logits = view.similarity / self.temperature
        return logits + self.hard_negative_weight * view.hard if self.hard_negative_weight else logits

    def _loss(self, view: View) -> Tensor:
        logits = self._logits(view).masked_fill(~(view.positive | view.negative), -float("inf"))
        log_p = logits.log_softmax(dim=1).masked_fill(~view.positive, 0.0)
        loss = -log_p.sum(dim=1) / view.positive.sum(dim=1)
        return loss * view.negative.any(dim=1)


@dataclass(frozen=True, kw_only=True)
class HardestNegativeMargin(Term):
    """The positive must be more similar than the hardest negative, by a margin.

        L_i = max(0, max_{j ∈ N(i)} s_ij/T − s_ii/T + m)

    Source: viPolyQwen, OCR and VQA tasks, with T = 0.07 and m = 0.2 (0.3 for multi-turn VQA). In units of s/T this
    margin is only m·T = 0.014 (0.021) of cosine. With the `margin_scale` "cosine", the loss is
    max(0, max s_ij − s_ii + m). A row without negatives gives 0.

    Args:
        margin: m.
        temperature: T > 0; unused with the scale "cosine".
        margin_scale: The unit of the margin, "logit" as in the paper, or "cosine".
        weight: Weight of the term in a task.

    Raises:
        ValueError: The temperature is not positive, or the scale is unknown.

    Example:
        >>> import torch
        >>> from st_vi.terms import HardestNegativeMargin, PairBatch
        >>> pairs = PairBatch(anchors=torch.eye(2), positives=torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        >>> HardestNegativeMargin(margin=0.2, temperature=1.0)(pairs)  # both positives are equal: only m is left
        tensor([0.2000, 0.2000])
    """

    margin: float = 0.2
    temperature: float = 0.07
    margin_scale: MarginScale = "logit"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_one_of("margin_scale", MarginScale)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view, scale = pairs.anchor_view, 1.0 if self.margin_scale == "cosine" else self.temperature
        hardest = view.similarity.masked_fill(~view.negative, -1.0).amax(dim=1)
        loss = ((hardest - pairs.own_cosine) / scale + self.margin).clamp(min=0)
        return loss * view.negative.any(dim=1)
