"""Contrast with lower weights for negatives in the cluster of a positive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.terms.pairs import PairBatch
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class WeightedNegatives(Term):
    """The positives against the negatives of the batch, weighted by cluster.

    The candidates are clustered once for each number of clusters K. A negative that shares a cluster with a positive of
    the row is likely to be a false one and has the weight μ in that clustering, others 1; w is the mean over all K:

        w_in = mean_K ( μ if cluster_K(n) ∈ cluster_K(P(i)) else 1 )
        L_i  = −1/|P(i)| Σ_{p ∈ P(i)} log( e^{s_ip/τ} / Σ_{n ∈ N(i)} w_in e^{s_in/τ} )

    With μ = 1 this is `InfoNCE` without the positive in its denominator: the pull on a positive does not fade as the
    loss falls, and the loss is not bounded by 0. A row without negatives, or with none of a weight above 0, gives 0.

    Clusters come from a few rounds of k-means on the unit sphere, without gradient. The first centres are evenly spaced
    candidates of the batch rather than random ones, so that a resumed run repeats exactly.

    Source: MEOW, arXiv 2212.13847, and its released code: no positive in the denominator, μ = 0. *Inferred*: clusters
    of the batch, where the paper clusters all nodes of its graph from time to time; the mean over K; other defaults.

    Args:
        temperature: τ > 0.
        num_clusters: One or more numbers K ≥ 1, each reduced to the number of candidates where there are fewer.
        same_cluster_weight: μ in [0, 1]. 0, as published, drops negatives that are with a positive in every clustering.
        rounds: Rounds of k-means, 1 or more.
        spare_hard: Keep the weight 1 for the row's own hard negatives. Use it where they are known to be true
            negatives, such as contradictions: being close to the positive, they are often in its cluster.
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of its range.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, WeightedNegatives
        >>> term = WeightedNegatives(temperature=1.0, num_clusters=(1,), same_cluster_weight=0.5)
        >>> term(PairBatch(torch.eye(2), torch.eye(2)))  # one cluster: −log(e / 0.5)
        tensor([-1.6931, -1.6931])
    """

    temperature: float = 0.05
    num_clusters: tuple[int, ...] = (8, 16)
    same_cluster_weight: float = 0.0
    rounds: int = 3
    spare_hard: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("num_clusters", len(self.num_clusters) > 0, "one or more numbers")
        for count in self.num_clusters:
            check_whole("num_clusters", count)
        self._require("same_cluster_weight", 0 <= self.same_cluster_weight <= 1, "in [0, 1]")
        check_whole("rounds", self.rounds)

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view, weights = pairs.anchor_view, self.negative_weights(pairs)
        logits = view.similarity / self.temperature
        weighs = view.negative & (weights > 0)
        contrast = weighs.any(dim=1)
        negatives = (logits + weights.log()).masked_fill(~weighs, -float("inf"))
        # A row of −∞ only has no derivative: it gets other values here, and 0 as its loss.
        against = negatives.masked_fill(~contrast[:, None], 0.0).logsumexp(dim=1)
        own = (logits * view.positive).sum(dim=1) / view.positive.sum(dim=1)
        return (against - own) * contrast

    def negative_weights(self, pairs: PairBatch) -> Tensor:
        """w of the negatives of each own row, (R, C); 1 for all other candidates."""
        # Without no_grad: `pairs` caches its view, and other terms need the gradient of it.
        view = pairs.anchor_view
        beside = torch.zeros_like(view.similarity)  # clusterings shared with a positive
        with torch.autocast(view.similarity.device.type, enabled=False):
            for count in self.num_clusters:
                member = pairs.once(_clusters, count, self.rounds)
                beside += (view.positive.to(member.dtype) @ member).clamp(max=1) @ member.T
        weighted = view.negative & ~view.hard if self.spare_hard else view.negative
        return 1 - (1 - self.same_cluster_weight) * (beside / len(self.num_clusters)) * weighted


def _clusters(pairs: PairBatch, count: int, rounds: int) -> Tensor:
    candidates = pairs.unit_candidates.detach()
    return _k_means(candidates, min(count, len(candidates)), rounds)


def _k_means(vectors: Tensor, count: int, rounds: int) -> Tensor:
    """Which of `count` clusters each unit vector belongs to, (C, count) of 0 and 1."""
    first = torch.arange(count, device=vectors.device) * len(vectors) // count
    centres = vectors[first]
    for _ in range(rounds):
        member = F.one_hot((vectors @ centres.T).argmax(dim=1), count).to(vectors.dtype)
        # A matrix product, as index_add has no fixed order on a GPU. An empty cluster keeps its centre.
        centres = torch.where(member.any(dim=0)[:, None], F.normalize(member.T @ vectors, dim=1), centres)
    return member
