"""Terms on the cosine of each pair: regression and ranking by score, and alignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from st_vi.terms.pairs import PairBatch
from st_vi.terms.term import Term

ScoreMapping = Literal["affine", "clamp", "identity"]


@dataclass(frozen=True, kw_only=True)
class ScoredTerm(Term):
    """A term that compares cosines with scores."""

    mapping: ScoreMapping = "affine"
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_one_of("mapping", ScoreMapping)

    def _predicted(self, pairs: PairBatch) -> Tensor:
        """ŝ of all rows, (W,): the cosine on the scale of the scores."""
        if self.mapping == "affine":
            return (pairs.cosine + 1) / 2
        return pairs.cosine.clamp(min=0) if self.mapping == "clamp" else pairs.cosine


@dataclass(frozen=True, kw_only=True)
class ScoreMSE(ScoredTerm):
    """Squared difference of similarity and score:  L_i = (ŝ_i − s_i)².

    Source: viPolyQwen, text pairs, weight 3.0. A row without a score (NaN) gives 0.

    Args:
        mapping: From cosine to ŝ. "affine" is viPolyQwen's (cos + 1)/2, which gives unrelated (orthogonal) texts 0.5;
            "clamp" is max(cos, 0), which gives them 0; "identity" keeps the cosine.
        weight: Weight of the term in a task.

    Raises:
        ValueError: `mapping` is unknown, or the batch has no scores.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, ScoreMSE
        >>> ScoreMSE()(PairBatch(torch.eye(2), torch.eye(2), scores=torch.tensor([1.0, 0.5])))
        tensor([0.0000, 0.2500])
    """

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        scores = pairs.own(pairs.known_scores)
        error = pairs.own(self._predicted(pairs)) - scores.nan_to_num()
        return error.square().masked_fill(scores.isnan(), 0.0)


@dataclass(frozen=True, kw_only=True)
class PairwiseRank(ScoredTerm):
    """Pairs with a higher score must be more similar, by a margin. With S = {(i, j): s_i > s_j}:

        L = 1/|S| Σ_{(i,j) ∈ S} max(0, m − (ŝ_i − ŝ_j))

    Each row returns its part: the pairs in which it should be the more similar one, scaled so that the mean over the
    scored rows is L. Ties and rows without a score (NaN) are in no pair; an empty S gives 0.

    Source: viPolyQwen, text pairs, m = 0.05, weight 1.0. A model that finds all pairs equally similar has L = m, which
    looks small: compare it with the share of correctly ordered pairs (`in_order`).

    Args:
        margin: m, on the scale of ŝ.
        mapping: From cosine to ŝ, as in `ScoreMSE`.
        weight: Weight of the term in a task.

    Raises:
        ValueError: `mapping` is unknown, the margin is not finite, or the batch has no scores.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, PairwiseRank
        >>> same = torch.ones(2, 4)
        >>> PairwiseRank(margin=0.05)(PairBatch(same, same, scores=torch.tensor([1.0, 0.0]))).mean()
        tensor(0.0500)
    """

    margin: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_finite("margin")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        scores, predicted = pairs.known_scores, self._predicted(pairs)
        ordered = pairs.own(scores)[:, None] > scores  # False where either is NaN
        hinge = (self.margin - (pairs.own(predicted)[:, None] - predicted)).clamp(min=0)
        scored, count = pairs.once(_counts)
        return (hinge * ordered).sum(dim=1) * scored / count.clamp(min=1)

    @staticmethod
    def in_order(pairs: PairBatch) -> tuple[Tensor, Tensor]:
        """How many pairs of S with i an own row have ŝ_i > ŝ_j, and how many there are."""
        scores, cosine = pairs.known_scores, pairs.cosine
        ordered = pairs.own(scores)[:, None] > scores
        return (ordered & (pairs.own_cosine[:, None] > cosine)).sum(), ordered.sum()


def _counts(pairs: PairBatch) -> tuple[Tensor, Tensor]:
    """The number of rows with a score, and |S|: all pairs of them but those with equal scores."""
    scores = pairs.known_scores
    known = scores[~scores.isnan()]
    equal = known.unique(return_counts=True)[1]
    scored = torch.tensor(len(known), device=scores.device)
    return scored, (scored.square() - equal.square().sum()) // 2


@dataclass(frozen=True, kw_only=True)
class CosineAlignment(Term):
    """Alignment of anchor and positive:  L_i = 1 − cos_i.

    Source: viPolyQwen, instructions.

    Args:
        weight: Weight of the term in a task.

    Example:
        >>> import torch
        >>> from st_vi.terms import CosineAlignment, PairBatch
        >>> CosineAlignment()(PairBatch(torch.eye(2), torch.eye(2).flip(0)))
        tensor([1., 1.])
    """

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        return 1 - pairs.own_cosine
