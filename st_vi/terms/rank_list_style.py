"""Ranking of rows by their scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from st_vi.checks import check_whole
from st_vi.terms.pairs import PairBatch
from st_vi.terms.scored import ScoredTerm


@dataclass(frozen=True, kw_only=True)
class RankListStyle(ScoredTerm):
    """In the order of the scores, each row should be more similar than the next one and those a few places below.

    With ŝ the cosine on the scale of the scores, and j the rows 1 place (local) or k ∈ skips places below row i:

        L_i = log(1 + Σ_j e^{−Δ_ij}),   Δ_ij = (ŝ_i − ŝ_j)/T

    With one j this is a pairwise logistic loss; with more, the pair that is most out of order dominates. Unlike
    `PairwiseRank` it compares each row with a few others, without a margin. The order is that of all rows of all
    devices. Needs scores; a row without one (NaN) is in no pair and gives 0, as does the lowest place.

    Source: in the style of RankList, arXiv 2508.09826 (local and skip-wise comparisons, log-sum-exp), whose equation is
    not public. *Inferred*: the sum over local and skipped rows inside one logarithm; places are those of the distinct
    scores, so rows with equal scores are in no pair with each other, and their order in the batch does not matter.

    Args:
        temperature: T > 0, on the scale of ŝ.
        skips: Distances k ≥ 2 to compare besides 1; () compares neighbours only.
        mapping: From cosine to ŝ, as in `ScoreMSE`.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        for skip in self.skips:
            check_whole("skips", skip, least=2)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        scores, similarity = pairs.known_scores, self._predicted(pairs) / self.temperature
        place = pairs.once(_places)
        distance = pairs.own(place)[:, None] - place
        steps = torch.tensor([1, *self.skips], device=place.device)
        chosen = torch.isin(distance, steps) & (pairs.own(scores)[:, None] > scores)  # the second is False for NaN
        gap = similarity - pairs.own(similarity)[:, None]
        return pad(gap.masked_fill(~chosen, -float("inf")), (1, 0)).logsumexp(dim=1)


def _places(pairs: PairBatch) -> Tensor:
    """The place of every score among the distinct ones, ascending, (W,)."""
    return pairs.known_scores.nan_to_num(-float("inf")).unique(return_inverse=True)[1]
