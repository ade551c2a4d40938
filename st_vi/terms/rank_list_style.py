"""Scored rows in their order: each above the next ones below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from st_vi.terms.pairs import PairBatch
from st_vi.terms.scored import ScoreMapping, to_score


@dataclass(frozen=True)
class RankListStyle:
    """Rows of the batch in the order of their scores: each should be more similar than the next one, and the k-th.

        L_i = log(1 + Σ_j e^{−Δ_ij}),   Δ_ij = (ŝ_i − ŝ_j)/T,   j the rows 1 (local) or k ∈ skips places below i

    averaged over the scored rows. ŝ is the cosine on the scale of the scores. One j makes it a pairwise logistic loss;
    with more, the pair that is most out of order leads. Unlike `PairwiseRank` it has few pairs a row, without margin.

    Source: in the style of RankList, arXiv 2508.09826 (local and skip-wise comparisons, log-sum-exp), the equation of
    which is not public: *inferred* are the sum over local and skipped rows within one logarithm, and ties: places are
    those of the distinct scores, so rows with equal scores share one, are in no pair with each other, and their order
    in the batch is without effect. Rows without a score (NaN) are in no pair and give 0, as does the lowest place.

    Needs scores. All rows of all devices make the order.

    Args:
        temperature: T > 0, on the scale of ŝ.
        skips: Distances beyond 1, each ≥ 2; () compares neighbours alone.
        mapping: From cosine to ŝ, see `to_score`.
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of range, or the batch has no scores.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, RankListStyle
        >>> same = torch.ones(3, 4)
        >>> RankListStyle(skips=(2,))(PairBatch(same, same, scores=torch.tensor([0.0, 1.0, 0.5])))  # log of 1, 3, 2
        tensor([0.0000, 1.0986, 0.6931])
    """

    temperature: float = 0.05
    skips: tuple[int, ...] = (2, 4)
    mapping: ScoreMapping = "affine"
    weight: float = 1.0
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not all(isinstance(skip, int) and skip >= 2 for skip in self.skips):
            raise ValueError(f"skips must be whole numbers of 2 and more, got {self.skips}")
        if self.mapping not in get_args(ScoreMapping):
            raise ValueError(f"mapping must be one of {get_args(ScoreMapping)}, got {self.mapping!r}")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        scores, similarity = pairs.known_scores, to_score(pairs.cosine, self.mapping) / self.temperature
        _, place = scores.nan_to_num(-float("inf")).unique(return_inverse=True)  # ascending
        distance = pairs.own(place)[:, None] - place
        steps = torch.tensor([1, *self.skips], device=place.device)
        chosen = torch.isin(distance, steps) & (pairs.own(scores)[:, None] > scores)  # the second is False for NaN
        gap = similarity - pairs.own(similarity)[:, None]
        return pad(gap.masked_fill(~chosen, -float("inf")), (1, 0)).logsumexp(dim=1)
