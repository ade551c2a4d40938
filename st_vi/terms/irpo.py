"""Relevant candidates against the mean of the others, weighted as in NDCG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from st_vi.terms.pairs import PairBatch
from st_vi.terms.teacher import taught_candidates

MAX_RELEVANCE = 30.0  # 2^30: far above any grade, far below the end of fp32


@dataclass(frozen=True)
class IRPO:
    """In-context Ranking Preference Optimization over the K own candidates of a row:

        w_i = (2^{y_i} − 1) / log₂(1 + rank_i)
        L   = −1/K Σ_i w_i log σ( −log 1/(K−1) Σ_{j≠i} e^{β(r_j − r_i)} )

    with relevance y the teacher's scores, rank_i the place of i by y (1 for the best), and β = 1/temperature.
    Source: arXiv 2504.15477, where the reward r is the log-ratio to a reference model; *inferred:* here it is the
    cosine, without reference. A candidate is pushed above the (soft) mean of the others, the harder the more relevant
    it is; one with y = 0 is only pushed down.

    Needs teacher scores, and at least one negative or second positive a row. *Inferred:* equal scores share the best
    of their places, so that the order of the columns is without effect; relevance below 0 counts as 0 (its weight
    would be negative and the loss without end) and above 30 as 30; candidates without a score (NaN) and repeated
    texts are left out; a row with less than two candidates gives 0.

    Args:
        temperature: 1/β > 0. The paper's β = 1 is for log-ratios, which have no bound. Cosines differ by at most 2: at
            β = 1 a perfect order would still cost a fifth of what no order does. So the default is that of `InfoNCE`.
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
    weight: float = 1.0
    needs_teacher: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

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
