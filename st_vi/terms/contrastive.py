"""Contrastive terms: the positive against the negatives of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from st_vi.terms.pairs import PairBatch, View, any_of
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
        ValueError: The temperature is not positive, or an argument is not finite.

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

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_finite("hard_negative_weight")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        loss = self._loss(pairs.anchor_view)
        if self.symmetric:
            loss = (loss + self._loss(pairs.positive_view)) / 2
        if pairs.scores is None:
            return loss
        return loss * ~(pairs.own(pairs.scores) < self.min_score)

    def _cosines(self, view: View) -> Tensor:
        """τ ℓ, (R, C)."""
        added = self.temperature * self.hard_negative_weight
        return view.similarity.add(view.hard, alpha=added) if added else view.similarity

    def _loss(self, view: View) -> Tensor:
        loss: Tensor = _MeanOfPositives.apply(self._cosines(view), self.temperature, view.positive, view.negative)
        return loss * any_of(view.negative)


class _MeanOfPositives(torch.autograd.Function):
    """−1/|P| Σ_{p ∈ P} log softmax_p(cosines/τ) over P ∪ N, (R,), of cosines and masks (R, C).

    The gradient is (softmax − [c ∈ P]/|P|)/τ. Written out, it needs one matrix besides the cosines; autograd keeps
    several, and most of the time of a large batch goes into them.
    """

    @staticmethod
    def forward(ctx: Any, cosines: Tensor, temperature: float, positive: Tensor, negative: Tensor) -> Tensor:
        """The loss."""
        powers = cosines.masked_fill(~(positive | negative), -float("inf"))
        most = powers.amax(dim=1, keepdim=True)
        row, column = positive.nonzero(as_tuple=True)
        share = 1 / (temperature * row.bincount(minlength=len(cosines))[row].to(cosines.dtype))
        mean = torch.zeros_like(most[:, 0]).index_add(0, row, share * (cosines[row, column] - most[row, 0]))
        total = powers.sub_(most).div_(temperature).exp_().sum(dim=1)
        ctx.save_for_backward(powers, total * temperature, row, column, share)
        return total.log() - mean

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of the cosines."""
        powers, total, row, column, share = ctx.saved_tensors
        result = powers * (gradient / total)[:, None]
        result[row, column] -= share * gradient[row]
        return result, None, None, None


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
        ValueError: The temperature is not positive, the margin is not finite, or the scale is unknown.

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
        self._require_finite("margin")
        self._require_one_of("margin_scale", MarginScale)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view, scale = pairs.anchor_view, 1.0 if self.margin_scale == "cosine" else self.temperature
        hardest = view.similarity.masked_fill(~view.negative, -1.0).amax(dim=1)
        loss = ((hardest - pairs.own_cosine) / scale + self.margin).clamp(min=0)
        return loss * any_of(view.negative)
