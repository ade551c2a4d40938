"""Dynamic weight average: more weight for the terms whose loss falls slowest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.losses.balance.base import Balance, Measured


class DynamicWeightAverage(Balance):
    """Weights each term by how little its loss has fallen from one window of steps to the next.

        r_k = L_k(t − 1) / L_k(t − 2)
        λ_k = K · e^{r_k/T} / Σ_j e^{r_j/T}

    K is the number of components.

    Source: Liu, Johns and Davison 2019 (arXiv 1803.10704), with their T = 2. Their L_k(t) is the mean loss of an epoch;
    here it is the mean over the rows of `every` optimizer steps, as the few epochs of fine-tuning would leave the
    weights at 1 most of the time. r_k is 1 until a term has had rows in two windows, and where L_k(t − 2) is 0. A
    window without rows of a term leaves its r_k as it is.

    In the stock trainer, it needs a `LossKeeper`.

    Args:
        temperature: T > 0; the larger, the more equal the weights.
        every: Optimizer steps in a window.

    Raises:
        ValueError: The temperature is not positive, `every` is no positive integer, or, in training, the loss of a
            term is negative.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import DynamicWeightAverage
        >>> DLELoss(model=None, balance=DynamicWeightAverage(every=50)).balance
        DynamicWeightAverage(temperature=2.0, every=50)
    """

    needs_positive_losses = True
    sums: Tensor
    rows: Tensor
    last: Tensor
    before: Tensor
    steps: Tensor

    def __init__(self, temperature: float = 2.0, every: int = 100) -> None:
        super().__init__()
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature must be positive, got {temperature}")
        check_whole("every", every)
        self.temperature = temperature
        self.every = every

    def create(self, count: int) -> None:
        """Nothing is known yet, which is stored as 0."""
        for name in ("sums", "rows", "last", "before"):
            self.register_buffer(name, torch.zeros(count))
        self.register_buffer("steps", torch.tensor(0))

    def weights(self, gram: Tensor | None = None) -> Tensor:
        """λ_k, (K,)."""
        rates = torch.where(self.before > 0, self.last / self.before, 1.0)
        return len(rates) * (rates / self.temperature).softmax(dim=0)

    def observe(self, batch: Measured) -> None:
        """Add the batch to the window."""
        self.sums += batch.shares * batch.losses
        self.rows += batch.shares

    def step(self) -> None:
        """Close the window after its last step."""
        self.steps += 1
        if self.steps % self.every:
            return
        had_rows = self.rows > 0
        self.before = torch.where(had_rows, self.last, self.before)
        self.last = torch.where(had_rows, self.sums / self.rows, self.last)
        self.sums = torch.zeros_like(self.sums)
        self.rows = torch.zeros_like(self.rows)

    def extra_repr(self) -> str:
        """The settings."""
        return f"temperature={self.temperature}, every={self.every}"
