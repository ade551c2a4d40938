"""IRPO: preference of relevant candidates, weighted as in NDCG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from st_vi.terms.pairs import PairBatch
from st_vi.terms.teacher import taught_candidates
from st_vi.terms.term import Term

MAX_RELEVANCE = 30.0  # 2^30 is far above any grade, and far from overflowing fp32


@dataclass(frozen=True, kw_only=True)
class IRPO(Term):
    """In-context Ranking Preference Optimization over the K own candidates of a row:

        w_i = (2^{y_i} − 1) / log₂(1 + rank_i)
        L   = −1/K Σ_i w_i log σ( −log 1/(K−1) Σ_{j≠i} e^{β(r_j − r_i)} )

    with y the teacher's scores as relevance, rank_i the place of candidate i by y (1 for the best), r the cosine, and
    β = 1/temperature. Each candidate is pushed above the (soft) mean of the others, the more relevant the harder; one
    with y = 0 is only pushed down.

    Needs teacher scores, and at least one negative or second positive a row.

    Source: arXiv 2504.15477, where r is the log-ratio to a reference model. *Inferred*: the cosine as r, without a
    reference; equal scores share the best of their places, so that the order of the columns does not matter; relevance
    is clamped to [0, 30], as a negative weight would leave the loss unbounded; candidates without a score (NaN) and
    repeated texts are left out; a row with fewer than two candidates gives 0.

    Args:
        temperature: 1/β > 0. The paper's β = 1 is for log-ratios, which are unbounded. Cosines differ by at most 2, and
            at β = 1 a perfect order would still cost a fifth of no order, so the default is that of `InfoNCE`.
        weight: Weight of the term in a task.

    Raises:
        ValueError: The temperature is not positive, or the batch has no teacher scores or only one candidate a row.

    Example:
        >>> import torch
        >>> from st_vi.terms import IRPO, PairBatch
        >>> same, teacher = torch.ones(1, 2), torch.tensor([[1.0, 0.0]])
        >>> IRPO()(PairBatch(same, same, torch.ones(1, 1, 2), teacher_scores=teacher))  # ½·log 2: no difference seen
        tensor([0.3466])
    """

    temperature: float = 0.05
    needs_teacher: ClassVar[bool] = True

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view, relevance = taught_candidates(pairs)
        present = view.positive | view.negative
        better = present[:, None, :] & (relevance[:, None, :] > relevance[:, :, None])
        rank = 1 + better.sum(dim=2, dtype=relevance.dtype)
        weight = (relevance.clamp(0.0, MAX_RELEVANCE).exp2() - 1) / (1 + rank).log2()

        count = present.sum(dim=1, keepdim=True, dtype=relevance.dtype)
        rewards = view.similarity / self.temperature
        others = present[:, None, :] & ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
        mean = rewards[:, None, :].masked_fill(~others, -float("inf")).logsumexp(dim=2) - (count - 1).log()
        ahead = torch.where(present & (count > 1), rewards - mean, 0.0)
        loss = -weight * logsigmoid(ahead) * (present & (count > 1))
        return loss.sum(dim=1) / count.squeeze(1).clamp(min=1)
