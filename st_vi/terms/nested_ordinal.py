"""Ordinal regression of the score, on an embedding whose front chunks are embeddings too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.terms.pairs import PairBatch


@dataclass(frozen=True)
class NestedOrdinal:
    """Ordinal logistic regression of the score, level k seen by the first k chunks of the embedding.

    K thresholds make K + 1 levels: a row is on level k when its score reaches the first k thresholds. With γ the scale,
    p_k the share of rows that reach level k, and s_j the part of the cosine that comes from the j-th of K equal chunks
    of the normalised embeddings (all parts together are the cosine):

        a_k      = −log(p_k / (1 − p_k))
        P(y ≥ k) = σ(γ Σ_{j ≤ k} s_j − a_k),   P(y ≥ 0) = 1

    The loss is summed over the first n = 1 … K thresholds, with all levels from n on merged into one. A row on level
    k has reached that one for n ≤ k, and for n > k it is on its own level:

        L_i = − Σ_{n ≤ k} log P(y ≥ n)  −  (K − k) log( P(y ≥ k) − P(y ≥ k + 1) )

    The difference stays positive, since |s_j| ≤ 1 and γ < min(a_{k+1} − a_k). It is taken in log space, with a floor
    of about −14 under its last factor, log(1 − e^{−x}), for what rounding does to an x near 0.

    Source: GNOLR, arXiv 2505.20900, and its released code. *Inferred*: chunks of one embedding, where the paper
    concatenates one embedding a task; levels from thresholds on a score, where the paper has one kind of feedback a
    level; default thresholds, with the shares that evenly spread scores would have. Needs scores; a row without one
    (NaN) gives 0.

    Args:
        levels: K thresholds in (0, 1], increasing.
        shares: p_k in (0, 1), decreasing: measure them on the training rows, `(scores >= level).mean()` for each.
        scale: γ > 0, smaller than the smallest step from one a_k to the next.
        weight: Weight of the term in a task.

    Raises:
        ValueError: Thresholds or shares are not as above or not equally many, the scale is out of its range, the batch
            has no scores, or the embedding size is not divisible by K.

    Example:
        >>> import torch
        >>> from st_vi.terms import NestedOrdinal, PairBatch
        >>> term = NestedOrdinal(levels=(0.5,), shares=(0.5,), scale=1.0)
        >>> term(PairBatch(torch.eye(2), torch.eye(2), scores=torch.tensor([1.0, 0.0])))  # −log σ(1) and −log σ(−1)
        tensor([0.3133, 1.3133])
    """

    levels: tuple[float, ...] = (0.4, 0.8)
    shares: tuple[float, ...] = (0.6, 0.2)
    scale: float = 1.0
    weight: float = 1.0
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.levels or not all(low < high <= 1 for low, high in pairwise((0.0, *self.levels))):
            raise ValueError(f"levels must be increasing thresholds in (0, 1], got {self.levels}")
        if len(self.shares) != len(self.levels):
            raise ValueError(f"shares must be one for each of the {len(self.levels)} levels, got {self.shares}")
        if not all(1 > high > low for high, low in pairwise((*self.shares, 0.0))):
            raise ValueError(f"shares must be decreasing numbers in (0, 1), got {self.shares}")
        offsets = self._offsets()
        step = min((high - low for low, high in pairwise(offsets)), default=math.inf)
        if not 0 < self.scale < step:
            raise ValueError(
                f"scale must be positive and smaller than {step:.4g}, the smallest step between the offsets of shares "
                f"{self.shares}, got {self.scale}: take a smaller scale, or levels whose shares are farther apart"
            )

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        scores = pairs.own(pairs.known_scores)
        logits = self.scale * self.nested_cosine(pairs)
        logits = logits - torch.tensor(self._offsets(), dtype=logits.dtype, device=logits.device)
        passed = F.pad(F.logsigmoid(logits).cumsum(dim=1), (1, 0))  # Σ_{n ≤ k} log P(y ≥ n) for k = 0 … K, (R, K + 1)
        reached, next_one = F.pad(logits, (1, 0), value=math.inf)[:, :-1], logits
        # log(σ(x) − σ(y)) = log σ(x) + log σ(−y) + log(1 − e^{y − x})
        step = (reached - next_one).clamp(min=1e-6)
        stayed = F.logsigmoid(reached) + F.logsigmoid(-next_one) + (-torch.expm1(-step)).log()  # for k = 0 … K − 1
        times = torch.arange(len(self.levels), 0, -1, device=logits.device)
        log_p = passed + F.pad(times * stayed, (0, 1))
        level = (scores[:, None] >= scores.new_tensor(self.levels)).sum(dim=1, keepdim=True)
        return -log_p.gather(1, level).squeeze(1).masked_fill(scores.isnan(), 0.0)

    def nested_cosine(self, pairs: PairBatch) -> Tensor:
        """Σ_{j ≤ k} s_j of each own row, (R, K); the last column is the cosine."""
        chunks, size = len(self.levels), pairs.anchors.shape[1]
        if size % chunks:
            raise ValueError(
                f"the embedding size must be divisible by the {chunks} levels, got {size}: take more levels or fewer"
            )
        dtype = torch.promote_types(pairs.anchors.dtype, torch.float32)
        anchors, positives = (
            F.normalize(pairs.own(side).to(dtype), dim=1) for side in (pairs.anchors, pairs.positives)
        )
        return (anchors * positives).unflatten(1, (chunks, -1)).sum(dim=2).cumsum(dim=1)

    def _offsets(self) -> list[float]:
        return [-math.log(share / (1 - share)) for share in self.shares]
