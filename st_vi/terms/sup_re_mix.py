"""Supervised contrastive learning for scores, with mixtures of pairs as hard positives and negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from st_vi.terms.pairs import PairBatch, products, unit
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class SupReMix(Term):
    """Pairs with equal scores attract each other, pairs with different scores repel; mixtures of pairs take part.

    With y_i the score of row i and z_i the normalised element-wise product of its normalised anchor and positive, let
    j and k be the rows with the nearest score below and above y_i (the first in the batch, if several). z_i is compared
    with the other rows and with three mixtures of unit length, which carry no gradient:

        hard negatives  λ z_i + (1 − λ) z_j  and  λ z_i + (1 − λ) z_k,  with the scores λ y_i + (1 − λ) y_j and so on
        hard positive   α z_j + (1 − α) z_k,                            with α y_j + (1 − α) y_k = y_i

        w_c = |y_c − y_i| + 1
        L_i = −1/|P(i)| Σ_{p ∈ P(i)} log( e^{z_i·z_p/τ} / Σ_{c ∈ P(i) ∪ N(i)} w_c e^{z_i·z_c/τ} )

    P(i) are the candidates with the score of row i, N(i) those with another. A row without a positive (the lowest and
    the highest score, if no other row has it) or without a negative gives 0. A row without a score (NaN) gives 0 and is
    no candidate. Rows with the same two texts, in either order, are no candidates of each other.

    The term orders z but ignores the cosine of a pair: combine it with one that does not, such as `ScoreMSE`. Needs
    scores.

    Source: SupReMix, arXiv 2309.16633, with τ = 0.5 as for its sentence pairs. *Inferred*: z, since an embedding is
    trained here, while the paper trains a classifier on [u; v; |u − v|; u·v]; scores in [0, 1], where the paper has 0
    to 5, hence weights up to 2 instead of 6; the nearest scores and a constant λ, the mean of the paper's Beta(2, 8),
    where the paper draws both, so that a resumed run repeats exactly; the score of a hard negative in w; unit length of
    the mixtures.

    Args:
        temperature: τ > 0.
        mix: λ in (0, 1), the row's own share in its hard negatives.
        weight: Weight of the term in a task.

    Raises:
        ValueError: The temperature is not positive, `mix` is out of range, or the batch has no scores.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, SupReMix
        >>> same = torch.ones(3, 4)  # row 1 has 1 positive, weight 1, and negatives of weights 1.5, 1.5, 1.4 and 1.4
        >>> SupReMix()(PairBatch(same, same, scores=torch.tensor([0.0, 0.5, 1.0]))).exp()
        tensor([1.0000, 6.8000, 1.0000])
    """

    temperature: float = 0.5
    mix: float = 0.2
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("mix", 0 < self.mix < 1, "between 0 and 1")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        unit_z = pairs.once(_unit_products)
        dtype = unit_z.dtype
        gap = pairs.known_scores.to(dtype) - pairs.own(pairs.known_scores)[:, None].to(dtype)  # NaN: not compared
        gap = gap.masked_fill(_same_pair(pairs), float("nan"))

        mixtures, mixed_gap = self._mixtures(unit_z.detach(), gap, pairs)
        mixed_similarity = (pairs.own(unit_z)[:, None] * unit(mixtures)).sum(dim=2)
        similarity = torch.cat([products(pairs.own(unit_z), unit_z), mixed_similarity], dim=1)
        gap = torch.cat([gap, mixed_gap], dim=1)

        positive, negative = gap == 0, gap.abs() > 0
        logits = similarity / self.temperature + gap.nan_to_num().abs().log1p()
        logits = logits.masked_fill(~(positive | negative), torch.finfo(dtype).min)
        log_p = logits.log_softmax(dim=1).masked_fill(~positive, 0.0)
        loss = -log_p.sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        return loss * negative.any(dim=1)

    def _mixtures(self, z: Tensor, gap: Tensor, pairs: PairBatch) -> tuple[Tensor, Tensor]:
        """The three mixtures of each own row, (R, 3, D), and their scores minus the row's; NaN for a missing one."""
        inf = float("inf")
        below, j = gap.masked_fill(~(gap < 0), -inf).max(dim=1)
        above, k = gap.masked_fill(~(gap > 0), inf).min(dim=1)
        both = below.isfinite() & above.isfinite()
        alpha = torch.where(both, above / (above - below), 0.5)[:, None]
        own, mix = pairs.own(z), self.mix
        mixtures = [mix * own + (1 - mix) * z[j], mix * own + (1 - mix) * z[k], alpha * z[j] + (1 - alpha) * z[k]]
        exists = torch.stack([below.isfinite(), above.isfinite(), both], dim=1)
        scores = torch.stack([(1 - mix) * below, (1 - mix) * above, torch.zeros_like(below)], dim=1)
        return torch.stack(mixtures, dim=1), scores.masked_fill(~exists, float("nan"))


def _unit_products(pairs: PairBatch) -> Tensor:
    return unit(pairs.unit_anchors * pairs.unit_candidates[: len(pairs.anchors)])


def _same_pair(pairs: PairBatch) -> Tensor:
    """Which rows are the own row itself or have the same two texts, (R, W)."""
    row = torch.arange(len(pairs.anchors), device=pairs.anchors.device)
    same = pairs.own(row)[:, None] == row
    if pairs.anchor_ids is None or not pairs.mask_duplicates:
        return same
    text = pairs.once(_text_pairs)
    return same | (pairs.own(text)[:, None] == text)


def _text_pairs(pairs: PairBatch) -> Tensor:
    """A number for the two texts of each row, in either order, (W,)."""
    texts = torch.stack([pairs.anchor_ids, pairs.candidate_ids[: len(pairs.anchors)]], dim=1)  # type: ignore[list-item,index]
    first, second = texts.unique(return_inverse=True)[1].sort(dim=1).values.unbind(dim=1)
    return first * 2 * len(texts) + second
