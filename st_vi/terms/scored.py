"""Terms on the row's own pair: its cosine against a known score, against other scores, or against 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from st_vi.terms.pairs import PairBatch

ScoreMapping = Literal["affine", "clamp", "identity"]


def to_score(cosine: Tensor, mapping: ScoreMapping) -> Tensor:
    """A cosine in [−1, 1] on the scale of the scores.

    "affine" is viPolyQwen's ŝ = (cos + 1)/2, for which unrelated (orthogonal) texts already have the score 0.5;
    "clamp" is max(cos, 0), for which they have 0; "identity" leaves the cosine as it is.
    """
    if mapping == "affine":
        return (cosine + 1) / 2
    return cosine.clamp(min=0) if mapping == "clamp" else cosine


@dataclass(frozen=True)
class ScoreMSE:
    """Squared distance of the similarity to the known score:  L_i = (ŝ_i − s_i)².

    Source: viPolyQwen, text pairs, weight 3.0. A row without a score (NaN) gives 0.

    Args:
        mapping: From cosine to ŝ, see `to_score`.
        weight: Weight of the term in a task.

    Raises:
        ValueError: `mapping` is not known, or the batch has no scores.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, ScoreMSE
        >>> ScoreMSE()(PairBatch(torch.eye(2), torch.eye(2), scores=torch.tensor([1.0, 0.5])))
        tensor([0.0000, 0.2500])
    """

    mapping: ScoreMapping = "affine"
    weight: float = 1.0
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_mapping(self.mapping)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        scores = pairs.known_scores
        error = to_score(pairs.cosine, self.mapping) - scores.nan_to_num()
        return pairs.own(error.square().masked_fill(scores.isnan(), 0.0))


@dataclass(frozen=True)
class PairwiseRank:
    """Pairs with a higher score must be more similar, by a margin. With S = {(i, j): s_i > s_j}:

        L = 1/|S| Σ_{(i,j) ∈ S} max(0, m − (ŝ_i − ŝ_j))

    given row by row (row i has the pairs in which it should be the more similar one) so that the mean over the
    scored rows is L. Ties and rows without a score (NaN) are in no pair; an empty S gives 0.

    Source: viPolyQwen, text pairs, m = 0.05, weight 1.0. A model that finds all pairs equally similar has L = m,
    which looks small: read it beside the share of pairs in the right order.

    Args:
        margin: m, on the scale of ŝ.
        mapping: From cosine to ŝ, see `to_score`.
        weight: Weight of the term in a task.

    Raises:
        ValueError: `mapping` is not known, or the batch has no scores.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, PairwiseRank
        >>> same = torch.ones(2, 4)
        >>> PairwiseRank(margin=0.05)(PairBatch(same, same, scores=torch.tensor([1.0, 0.0]))).mean()
        tensor(0.0500)
    """

    margin: float = 0.05
    mapping: ScoreMapping = "affine"
    weight: float = 1.0
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_mapping(self.mapping)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        scores, similarity = pairs.known_scores, to_score(pairs.cosine, self.mapping)
        ordered = scores[:, None] > scores  # False where either is NaN
        hinge = (self.margin - (similarity[:, None] - similarity)).clamp(min=0)
        scored = (~scores.isnan()).sum()
        rows = (hinge * ordered).sum(dim=1) * scored / ordered.sum().clamp(min=1)
        return pairs.own(rows)

    @staticmethod
    def in_order(pairs: PairBatch) -> tuple[Tensor, Tensor]:
        """How many of the own rows' pairs of S have ŝ_i > ŝ_j, and how many there are."""
        scores, cosine = pairs.known_scores, pairs.cosine
        ordered = pairs.own(scores)[:, None] > scores
        return (ordered & (pairs.own_cosine[:, None] > cosine)).sum(), ordered.sum()


@dataclass(frozen=True)
class CosineAlignment:
    """Anchor and positive should point the same way:  L_i = 1 − cos_i.

    Source: viPolyQwen, instructions.

    Args:
        weight: Weight of the term in a task.

    Example:
        >>> import torch
        >>> from st_vi.terms import CosineAlignment, PairBatch
        >>> CosineAlignment()(PairBatch(torch.eye(2), torch.eye(2).flip(0)))
        tensor([1., 1.])
    """

    weight: float = 1.0

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        return 1 - pairs.own_cosine


def _check_mapping(mapping: str) -> None:
    if mapping not in get_args(ScoreMapping):
        raise ValueError(f"mapping must be one of {get_args(ScoreMapping)}, got {mapping!r}")
