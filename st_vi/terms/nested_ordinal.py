"""Ordinal regression of the score on nested parts of the embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.terms.pairs import PairBatch, unit
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class NestedOrdinal(Term):
    """Ordinal logistic regression of the score, with the first k chunks of the embedding for level k.

    K thresholds make K + 1 levels: a row is on level k if its score reaches exactly the first k thresholds. With γ the
    scale, p_k the share of rows that reach level k, and s_j what the j-th of K equal chunks of the normalised
    embeddings adds to the cosine:

        a_k      = −log(p_k / (1 − p_k))
        P(y ≥ k) = σ(γ Σ_{j ≤ k} s_j − a_k),   P(y ≥ 0) = 1

    The loss is a sum over n = 1 … K, each with the first n thresholds only: all levels from n on are one. A row on
    level k is on that top level for n ≤ k, and on level k itself for n > k:

        L_i = − Σ_{n ≤ k} log P(y ≥ n)  −  (K − k) log( P(y ≥ k) − P(y ≥ k + 1) )

    The difference is positive, since |s_j| ≤ 1 and γ < min(a_{k+1} − a_k). It is computed in log space; its last part,
    log(1 − e^{−x}), is bounded at about −14 against rounding of an x near 0.

    Needs scores; a row without one (NaN) gives 0.

    Source: GNOLR, arXiv 2505.20900, and its released code. *Inferred*: chunks of one embedding, where the paper
    concatenates one embedding per task; levels from thresholds on a score, where the paper has one kind of feedback per
    level; the default thresholds, with the shares of evenly spread scores.

    Args:
        levels: K increasing thresholds in (0, 1].
        shares: p_k in (0, 1), decreasing; measure them on the training rows: ``(scores >= level).mean()`` per level.
        scale: γ > 0, smaller than the smallest difference of one a_k and the next.
        weight: Weight of the term in a task.

    Raises:
        ValueError: Thresholds or shares are out of order or differ in number, the scale is out of range, the batch has
            no scores, or the embedding size is not divisible by K.

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
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = bool(self.levels) and all(low < high <= 1 for low, high in pairwise((0.0, *self.levels)))
        self._require("levels", rising, "increasing thresholds in (0, 1]")
        count = len(self.levels)
        self._require("shares", len(self.shares) == count, f"one for each of the {count} levels")
        falling = all(1 > high > low for high, low in pairwise((*self.shares, 0.0)))
        self._require("shares", falling, "decreasing numbers in (0, 1)")
        step = min((high - low for low, high in pairwise(self._offsets())), default=math.inf)
        what = f"positive and smaller than {step:.4g} (more needs levels whose shares are farther apart)"
        self._require("scale", 0 < self.scale < step, what)

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
                f"the embedding size must be divisible by the {chunks} levels, got {size}: change the number of levels"
            )
        anchors, positives = (unit(pairs.own(side)) for side in (pairs.anchors, pairs.positives))
        return (anchors * positives).unflatten(1, (chunks, -1)).sum(dim=2).cumsum(dim=1)

    def _offsets(self) -> list[float]:
        return [-math.log(share / (1 - share)) for share in self.shares]
