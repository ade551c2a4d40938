"""Contrast with negatives that weigh less where they lie in the cluster of the positive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.terms.pairs import PairBatch


@dataclass(frozen=True)
class WeightedNegatives:
    """A positive against the batch's negatives, weighted by cluster.

    The candidates of the batch are clustered, once for each number of clusters K. A negative in a cluster of one of the
    row's positives is likely a false one and gets the weight μ there, any other 1; w is the mean over all K:

        w_in = mean_K ( μ if cluster_K(n) ∈ cluster_K(P(i)) else 1 )
        L_i  = −1/|P(i)| Σ_{p ∈ P(i)} log( e^{s_ip/τ} / Σ_{n ∈ N(i)} w_in e^{s_in/τ} )

    With μ = 1 this is `InfoNCE` without the positive in its denominator: the pull on a positive does not fade as the
    loss falls, and the loss has no end at 0. The clusters come from a few rounds of k-means on the unit sphere. Its
    first centres are candidates at even steps of the batch, without random numbers: a run that is resumed goes on as
    it would have. No gradient flows through them. A row without negatives, or with none that weighs anything, gives 0.

    Source: MEOW, arXiv 2212.13847, and its released code: no positive in the denominator, μ = 0. *Inferred*: clusters
    of the batch, where the paper clusters all nodes of its graph now and then; the mean over K; the other defaults.

    Args:
        temperature: τ > 0.
        num_clusters: One or more numbers K ≥ 1; a batch with fewer candidates has as many clusters as those.
        same_cluster_weight: μ in [0, 1]. 0, as published, leaves out what lies beside a positive in every clustering.
        rounds: Rounds of k-means, at least 1.
        spare_hard: The row's own hard negatives keep the weight 1: for those that are known to be true, such as
            contradictions. They are close to the positive, and so often in its cluster.
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
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not self.num_clusters or min(self.num_clusters) < 1:
            raise ValueError(f"num_clusters must be one or more numbers of at least 1, got {self.num_clusters}")
        if not 0 <= self.same_cluster_weight <= 1:
            raise ValueError(f"same_cluster_weight must be in [0, 1], got {self.same_cluster_weight}")
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, got {self.rounds}")

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        view, weights = pairs.forward, self.negative_weights(pairs)
        logits = view.similarity / self.temperature
        weighs = view.negative & (weights > 0)
        contrast = weighs.any(dim=1)
        negatives = (logits + weights.log()).masked_fill(~weighs, -float("inf"))
        # A row of −∞ alone has no derivative, so it gets other values, and counts for nothing.
        against = negatives.masked_fill(~contrast[:, None], 0.0).logsumexp(dim=1)
        own = (logits * view.positive).sum(dim=1) / view.positive.sum(dim=1)
        return (against - own) * contrast

    def negative_weights(self, pairs: PairBatch) -> Tensor:
        """w of each own row's negatives, (R, C); 1 for all other candidates."""
        # Not under no_grad: what `pairs` computes here for the first time is kept, and other terms need its gradient.
        view = pairs.forward
        candidates = F.normalize(pairs.candidates.detach().flatten(0, 1).to(view.similarity.dtype), dim=1)
        beside = torch.zeros_like(view.similarity)  # in how many clusterings the candidate lies beside a positive
        with torch.autocast(candidates.device.type, enabled=False):
            for count in self.num_clusters:
                member = _k_means(candidates, min(count, len(candidates)), self.rounds)
                beside += (view.positive.to(member.dtype) @ member).clamp(max=1) @ member.T
        weighted = view.negative & ~view.hard if self.spare_hard else view.negative
        return 1 - (1 - self.same_cluster_weight) * (beside / len(self.num_clusters)) * weighted


def _k_means(vectors: Tensor, count: int, rounds: int) -> Tensor:
    """Which of `count` clusters each unit vector belongs to, (C, count) of 0 and 1."""
    first = torch.arange(count, device=vectors.device) * len(vectors) // count
    centres = vectors[first]
    for _ in range(rounds):
        member = F.one_hot((vectors @ centres.T).argmax(dim=1), count).to(vectors.dtype)
        # A matrix product, since adding by index has no fixed order on a GPU. An empty cluster keeps its centre.
        centres = torch.where(member.any(dim=0)[:, None], F.normalize(member.T @ vectors, dim=1), centres)
    return member
