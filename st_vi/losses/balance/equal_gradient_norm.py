"""The same gradient norm for every term."""

from __future__ import annotations

import torch
from torch import Tensor

from st_vi.losses.balance.base import Balance


class EqualGradientNorm(Balance):
    """Scales the gradient of each term at the embeddings to the mean norm of all of them, in every batch.

        λ_k = mean_j(‖g_j‖) / ‖g_k‖

    g_k is the gradient of c_k at the embeddings. The mean is over the terms with a gradient; one without has nothing to
    scale. Neither the constant weights of the terms nor the numbers of rows of the tasks matter then: a task with two
    rows in the batch moves the embeddings as much as one with two hundred, and a term that is nearly solved as much as
    one that is not.

    Source: the aim of `GradNorm` with α = 0 (Chen et al. 2018, arXiv 1711.02257), reached in each batch instead of
    learned; this form is original. It has no state.

    Example:
        >>> import torch
        >>> from st_vi.losses import EqualGradientNorm
        >>> EqualGradientNorm().weights(torch.diag(torch.tensor([4.0, 16.0])))  # norms 2 and 4: both become 3
        tensor([1.5000, 0.7500])
    """

    needs_gradients = True

    def weights(self, gram: Tensor | None) -> Tensor:
        """λ_k, (K,)."""
        assert gram is not None
        norms = gram.diagonal().clamp(min=0).sqrt()
        counts = norms != 0  # not "> 0": a norm that is not a number must stay one
        mean = norms.sum() / counts.sum().clamp(min=1)
        return torch.where(counts, mean / norms, 1.0)
