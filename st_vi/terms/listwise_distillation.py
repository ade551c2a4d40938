"""A teacher's order of the hard negatives, as far as it means something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from st_vi.terms.pairs import PairBatch
from st_vi.terms.teacher import taught_candidates


@dataclass(frozen=True)
class ListwiseDistillation:
    """The row's hard negatives in the teacher's order, the likelihood of a ranking cut at the first invalid one J*:

        L_i = −Σ_{j < J*} log( e^{s_j/τ} / Σ_{k ≥ j} e^{s_k/τ} ),   t_1 ≥ t_2 ≥ … ≥ t_K the teacher's scores

    All K equal in cosine and valid gives Σ_j log(K − j + 1). Source: CPRD, arXiv 2407.07479. It says nothing of the
    positive: use it beside a contrastive term.

    Needs teacher scores and at least two hard negatives a row. *Inferred:* a negative is invalid if its score is
    below `min_score`, since the order of easy negatives means little; it still stands below all valid ones. Equal
    scores have no order: each has all of its equals in its denominator (k with t_k ≤ t_j), so that the order of the
    columns is without effect. Hard negatives without a score (NaN) and repeated texts are left out.

    Args:
        temperature: τ > 0.
        min_score: On the teacher's scale; None takes all hard negatives as valid.
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of range, or the batch has no teacher scores or less than two hard negatives.

    Example:
        >>> import torch
        >>> from st_vi.terms import ListwiseDistillation, PairBatch
        >>> same, teacher = torch.ones(1, 2), torch.tensor([[1.0, 0.2, 0.8, 0.5]])
        >>> pairs = PairBatch(same, same, torch.ones(3, 1, 2), teacher_scores=teacher)
        >>> ListwiseDistillation()(pairs)  # log 3 + log 2 + log 1
        tensor([1.7918])
    """

    temperature: float = 0.05
    min_score: float | None = None
    weight: float = 1.0
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.min_score is not None and self.min_score != self.min_score:
            raise ValueError(f"min_score must be a number or None, got {self.min_score}")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        if pairs.negatives is None or len(pairs.negatives) < 2:
            raise ValueError(
                "ListwiseDistillation needs at least two hard negatives a row: columns 'negative_1', 'negative_2', …"
            )
        view, teacher = taught_candidates(pairs)
        valid = view.hard if self.min_score is None else view.hard & (teacher >= self.min_score)
        below = view.hard[:, None, :] & (teacher[:, None, :] <= teacher[:, :, None])  # k in the denominator of j
        logits = view.similarity / self.temperature
        total = logits[:, None, :].masked_fill(~below, -float("inf")).logsumexp(dim=2)
        return torch.where(valid, total - logits, 0.0).sum(dim=1)
