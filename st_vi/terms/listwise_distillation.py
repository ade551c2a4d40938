"""Distillation of a teacher's ranking of the hard negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from st_vi.terms.pairs import PairBatch
from st_vi.terms.teacher import taught_candidates
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class ListwiseDistillation(Term):
    """Negative log-likelihood of the teacher's order of the row's hard negatives, up to the first invalid one.

    With t_1 ≥ t_2 ≥ … ≥ t_K the teacher's scores of the K hard negatives, and J* the first invalid one:

        L_i = −Σ_{j < J*} log( e^{s_j/τ} / Σ_{k ≥ j} e^{s_k/τ} )

    Equal cosines give Σ_j log(K − j + 1) if all K are valid. The positive is ignored, so combine the term with a
    contrastive one. Needs teacher scores and at least two hard negatives per row.

    Source: CPRD, arXiv 2407.07479. *Inferred*: a negative is invalid if its score is below `min_score`, since the order
    of easy negatives means little; it still ranks below all valid ones. Negatives with equal scores are in each other's
    denominator (k with t_k ≤ t_j), so that the order of the columns does not matter. Hard negatives without a score
    (NaN) and repeated texts are left out.

    Args:
        temperature: τ > 0.
        min_score: Lowest valid score, on the teacher's scale; None makes all hard negatives valid.
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of range, or the batch has no teacher scores or fewer than two hard negatives.

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
    needs_teacher: ClassVar[bool] = True

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
