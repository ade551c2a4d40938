"""Gradients of a loss: which negatives it pushes, and which of its terms pulls hardest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def relative_penalty(similarities: Tensor, temperature: float) -> Tensor:
    """The share of the contrastive pressure that each negative of an anchor gets: e^{s_j/τ} / Σ_k e^{s_k/τ}.

    Source: Wang and Liu 2021, arXiv 2012.09740, Eq. 7. A low temperature spends all on the nearest negatives, a high
    one treats all alike. Sorted by similarity it is the mass by the rank of the negative.

    Args:
        similarities: (…, M), cosines of an anchor with its negatives; −inf where a candidate is no negative, such as
            the own positive.
        temperature: τ > 0.

    Returns:
        The same shape, in [0, 1], each row with the sum 1.

    Raises:
        ValueError: The temperature is not positive, NaN or +∞ among the similarities, or a row without a negative.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import relative_penalty
        >>> relative_penalty(torch.tensor([0.5, 0.5, -torch.inf]), temperature=0.07)
        tensor([0.5000, 0.5000, 0.0000])
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    similarities = torch.as_tensor(similarities)
    if not (similarities < torch.inf).all():  # False for NaN
        raise ValueError("the similarities hold NaN or inf; mark candidates that do not count with -inf")
    if not similarities.isfinite().any(dim=-1).all():
        raise ValueError("every row must have a negative, and one has none")
    return (similarities.to(torch.promote_types(similarities.dtype, torch.float32)) / temperature).softmax(dim=-1)


class GradientShare(NamedTuple):
    """How much of the gradient comes from one term.

    Attributes:
        share: The norm of its gradient, divided by the sum of these norms, in [0, 1]; all terms together give 1.
        along: Its part of the step, g_k·g / ‖g‖² with g the sum of all gradients. All terms together give 1; a negative
            value is a term that the others overrule.
    """

    share: Tensor
    along: Tensor


def gradient_shares(components: Mapping[str, Tensor], wrt: Tensor | Sequence[Tensor]) -> dict[str, GradientShare]:
    """How hard each component of a loss pulls at the embeddings: norms of ∂(w_k L_k)/∂embedding, as shares.

    Small loss values can have large gradients, and the other way round; what moves the embeddings is the gradient.
    The graph is kept, so a training step can follow.

    Args:
        components: Weighted scalar losses by name, as `DLELoss` returns them.
        wrt: The embeddings, or whatever else the losses are functions of.

    Raises:
        ValueError: No components, or nothing that requires a gradient.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import gradient_shares
        >>> x = torch.tensor([1.0], requires_grad=True)
        >>> shares = gradient_shares({"up": 3 * x.sum(), "down": -x.sum()}, x)
        >>> shares["down"].share, shares["down"].along
        (tensor(0.2500), tensor(-0.5000))
    """
    inputs = [wrt] if isinstance(wrt, Tensor) else list(wrt)
    if not components or not all(tensor.requires_grad for tensor in inputs):
        raise ValueError("there must be components of a loss, and embeddings that require a gradient")
    gradients = torch.stack([_gradient(value, inputs) for value in components.values()])
    norms, total = gradients.norm(dim=1), gradients.sum(dim=0)
    smallest = torch.finfo(norms.dtype).tiny  # where nothing pulls, all shares are 0
    shares = norms / norms.sum().clamp(min=smallest)
    along = gradients @ total / total.square().sum().clamp(min=smallest)
    return {name: GradientShare(*pair) for name, *pair in zip(components, shares, along, strict=True)}


def _gradient(value: Tensor, inputs: list[Tensor]) -> Tensor:
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(tensor).flatten() for tensor in inputs])
    gradients = torch.autograd.grad(value, inputs, retain_graph=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients])
