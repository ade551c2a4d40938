"""Uncertainty weighting: a learned variance for each term."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from st_vi.losses.balance.base import Balance, Measured


class UncertaintyWeighting(Balance):
    """Divides each term by a variance σ_k² that is learned with the model.

        L = Σ_k (e^{−s_k} · c_k + n_k/B · s_k/2)

    s_k = log σ_k², so λ_k = 1/σ_k² and s_k/2 = log σ_k. n_k/B is the share of the rows with the term in the batch: each
    of them adds log σ_k once.

    Source: Kendall, Gal and Cipolla 2018 (arXiv 1705.07115), the loss for classification, with log variances as they
    advise. Their factor 1/2 for squared errors is a constant, so it belongs to the weight of the term. Training begins
    with the constants (s_k = 0). For a given loss L_k, the best s_k is log(2 L_k), where λ_k = 1 / (2 L_k).

    The s_k are parameters of the loss, `log_variances`, and the stock trainer gives them to its optimizer. They need a
    learning rate of their own, such as ``learning_rate_mapping={"log_variances": 0.025}``: with that of a model they
    would hardly move. `LossKeeper` checks this, and saves them, which the trainer does not.

    Raises:
        ValueError: In training, the loss of a term is negative, as then nothing bounds s_k.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import UncertaintyWeighting
        >>> loss = DLELoss(model=None, balance=UncertaintyWeighting())
        >>> [name for name, _ in loss.named_parameters()]
        ['balance.log_variances']
    """

    needs_positive_losses = True
    log_variances: nn.Parameter

    def create(self, count: int) -> None:
        """s_k = 0."""
        self.log_variances = nn.Parameter(torch.zeros(count))

    def weights(self, gram: Tensor | None = None) -> Tensor:
        """e^{−s_k}, (K,)."""
        return (-self.log_variances.detach()).exp()

    def penalty(self, batch: Measured) -> Tensor:
        """n_k/B · s_k/2, with the gradient of the whole loss for s_k, (K,)."""
        weights = (-self.log_variances).exp()
        return batch.shares * (batch.losses * (weights - weights.detach()) + self.log_variances / 2)
