"""PCGrad: conflicting gradients without the part that opposes the other."""

from __future__ import annotations

import torch
from torch import Tensor

from st_vi.losses.balance.base import Balance
from st_vi.losses.balance.processes import of_first_process


class PCGrad(Balance):
    """Projects the gradients of conflicting terms onto the normal plane of each other, in every batch.

    g_i is the gradient of c_i at the embeddings. For each i, p_i starts as g_i and meets the g_j of all other terms, in
    random order. If p_i · g_j < 0, it loses what opposes g_j:

        p_i ← p_i − (p_i · g_j) / ‖g_j‖² · g_j

    The gradient at the embeddings is Σ_i p_i. Each p_i is a sum of gradients, with factors that depend on their scalar
    products only. So Σ_i p_i = Σ_k λ_k g_k, with λ_k ≥ 1, which is what is computed and logged.

    Source: Yu et al. 2020 (arXiv 2001.06782), Algorithm 1. They project the gradients of all weights, here it is the
    gradients at the embeddings. With ``negatives="task"``, two tasks have no row in common, so that only terms of the
    same task can conflict; with ``negatives="batch"``, terms of all tasks can. It has no state; the order is drawn from
    torch's generator on the CPU.

    Example:
        >>> import torch
        >>> from st_vi.losses import PCGrad
        >>> PCGrad().weights(torch.tensor([[1.0, -1.0], [-1.0, 4.0]]))  # g₁ = (1, 0) and g₂ = (−1, √3)
        tensor([2.0000, 1.2500])
    """

    needs_gradients = True

    def weights(self, gram: Tensor | None) -> Tensor:
        """λ_k, (K,)."""
        assert gram is not None
        order = of_first_process(torch.rand(gram.shape).argsort(dim=1).to(gram.device))
        return torch.tensor(projected(gram.tolist(), order.tolist()), dtype=gram.dtype, device=gram.device)


def projected(gram: list[list[float]], order: list[list[int]]) -> list[float]:
    """The factors λ_k of the gradients in the sum of the projected ones.

    Args:
        gram: Scalar products of the K gradients.
        order: For each gradient, the order of the others; its own number is skipped.
    """
    total = [0.0] * len(gram)
    for i, others in enumerate(order):
        factors = [float(i == k) for k in range(len(gram))]  # p_i = Σ_k factors_k g_k
        for j in others:
            product = sum(factor * row[j] for factor, row in zip(factors, gram, strict=True))  # p_i · g_j
            if j != i and product < 0 < gram[j][j]:
                factors[j] -= product / gram[j][j]
        total = [sum(pair) for pair in zip(total, factors, strict=True)]
    return total
