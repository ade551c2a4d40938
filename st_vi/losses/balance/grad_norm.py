"""GradNorm: weights that pull the gradient norms of the terms together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from st_vi.losses.balance.base import Balance, Measured

_LEAST_WEIGHT = 0.01


class GradNorm(Balance):
    """Learns weights with which the gradients of all terms have similar norms, and larger ones where learning is slow.

        G_k = ‖λ_k g_k‖
        q_k = L_k / L_k(0)
        r_k = q_k / mean_j(q_j)
        L_grad = Σ_k |G_k − mean_j(G_j) · r_k^{α}|

    g_k is the gradient of c_k at the embeddings, and r_k how far term k is behind the others. L_grad is a loss for the
    λ_k alone, whose target mean(G) · r^α counts as a constant. After each optimizer step, the λ_k are scaled so that
    they sum up to their number K.

    Source: Chen et al. 2018 (arXiv 1711.02257), Section 3. They take the gradient at the last shared weights; here it
    is the gradient at the embeddings. L_k(0) is the loss in the first batch that has rows of the term and a loss above
    0; until then L_k / L_k(0) is 1. Means and the sum are over the terms with rows in the batch and a gradient. No
    weight falls below 0.01 before scaling, as the paper does not say what to do with negative ones.

    The λ_k are parameters of the loss, `task_weights`. They need a learning rate of their own and a `LossKeeper`,
    as for `UncertaintyWeighting`: ``learning_rate_mapping={"task_weights": 0.025}``.

    Args:
        alpha: α ≥ 0; 0 makes all norms equal, and the larger, the more the slow terms get.

    Raises:
        ValueError: `alpha` is negative or not finite; in training, the loss of a term is negative.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import GradNorm
        >>> loss = DLELoss(model=None, balance=GradNorm(alpha=1.5))
        >>> loss.balance.weights()[:3]
        tensor([1., 1., 1.])
    """

    needs_gradients = True
    needs_positive_losses = True
    task_weights: nn.Parameter
    first_losses: Tensor

    def __init__(self, alpha: float = 1.5) -> None:
        super().__init__()
        if not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be at least 0, got {alpha}")
        self.alpha = alpha

    def create(self, count: int) -> None:
        """λ_k = 1; L_k(0) is unknown, which is stored as 0."""
        self.task_weights = nn.Parameter(torch.ones(count))
        self.register_buffer("first_losses", torch.zeros(count))

    def weights(self, gram: Tensor | None = None) -> Tensor:
        """λ_k, (K,)."""
        return self.task_weights.detach().clone()

    def observe(self, batch: Measured) -> None:
        """Keep the first loss of each term."""
        first = (self.first_losses == 0) & (batch.shares > 0)
        self.first_losses.copy_(torch.where(first, batch.losses.to(self.first_losses.dtype), self.first_losses))

    def penalty(self, batch: Measured) -> Tensor:
        """0, with the gradient of L_grad for λ, (K,)."""
        assert batch.gram is not None
        norms = batch.gram.diagonal().clamp(min=0).sqrt()
        counts = (batch.shares > 0) & (norms > 0)
        how_many = counts.sum().clamp(min=1)

        def mean(values: Tensor) -> Tensor:
            return torch.where(counts, values, 0.0).sum() / how_many

        actual = self.task_weights * norms
        ratios = torch.where(self.first_losses > 0, batch.losses / self.first_losses, 1.0)
        rates = ratios / mean(ratios).clamp(min=torch.finfo(ratios.dtype).tiny)
        target = mean(actual) * rates**self.alpha
        loss = torch.where(counts, (actual - target.detach()).abs(), 0.0)
        return loss - loss.detach()

    def step(self) -> None:
        """Let the weights sum up to their number again."""
        with torch.no_grad():
            self.task_weights.clamp_(min=_LEAST_WEIGHT)
            self.task_weights.mul_(len(self.task_weights) / self.task_weights.sum())

    def extra_repr(self) -> str:
        """The settings."""
        return f"alpha={self.alpha}"
