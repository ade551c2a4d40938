"""Terms evaluated for some rows at a time, forward and backward, so that no matrix has all rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.utils import logging

from st_vi.stock.heap import release_freed_memory
from st_vi.terms import LearnedTerm, PairBatch, Term

logger = logging.get_logger(__name__)
Observer = Callable[[str, Term, PairBatch, Tensor], None]
MAX_MATRIX_BYTES = 2**24
RELEASED_AFTER = 16  # blocks; more often, making the memory of a block anew takes noticeable time
VECTORS = ("anchors", "positives", "negatives", "more_positives")


def term_sums(
    terms: Mapping[str, Term],
    pairs: PairBatch,
    row_weights: Tensor,
    max_matrix_bytes: int | None = None,
    observer: Observer | None = None,
) -> Tensor:
    """Each term's weighted sum over the own rows, times the weight of the term.

    With `max_matrix_bytes`, blocks of rows are evaluated one after the other, each together with its backward pass.
    Only the gradient of the *sum* of the terms is then kept, and the backward pass of the result raises an error for
    any other combination.

    Args:
        terms: The terms by the name that the observer gets.
        pairs: The batch.
        row_weights: (R,), the weight of each own row.
        max_matrix_bytes: See `rows_at_once`; None evaluates all rows together.
        observer: Called with name, term, block and detached values (r,) for each block and term.

    Returns:
        (K,) for K terms.

    Raises:
        ValueError: In the backward pass of blocks, the gradients of the terms differ.

    Example:
        >>> import torch
        >>> from st_vi.losses.blocks import term_sums
        >>> from st_vi.terms import InfoNCE, PairBatch
        >>> pairs = PairBatch(torch.eye(2), torch.eye(2))
        >>> term_sums({"a": InfoNCE(temperature=1.0)}, pairs, torch.tensor([0.5, 0.5]), max_matrix_bytes=1)
        tensor([0.3133])
    """
    if max_matrix_bytes is None:
        return _sums(terms, pairs, row_weights, observer)
    vectors = {name: value for name in VECTORS if (value := getattr(pairs, name)) is not None}
    learned = parameters_of(terms)
    train = torch.is_grad_enabled() and any(value.requires_grad for value in [*vectors.values(), *learned.values()])
    # At least fp32, in which the gradients of the blocks add up.
    leaves = {
        name: value.detach().to(torch.promote_types(value.dtype, torch.float32)).requires_grad_(train)
        for name, value in vectors.items()
    }
    learned_leaves = {name: value.detach().requires_grad_(train) for name, value in learned.items()}
    terms = with_parameters(terms, learned_leaves)
    size = rows_at_once(list(terms.values()), pairs, max_matrix_bytes)
    weights, sums = iter(row_weights.split(size)), []
    for block in replace(pairs, **leaves).blocks(size):
        sums.append(_sums(terms, block, next(weights), observer))
        if sums[-1].requires_grad:
            sums[-1].sum().backward()
            sums[-1] = sums[-1].detach()
        if pairs.anchors.is_cpu and len(sums) % RELEASED_AFTER == 0:
            release_freed_memory()
    total = torch.stack(sums).sum(dim=0)
    if not train:
        return total
    gradients = [leaf.grad for leaf in [*leaves.values(), *learned_leaves.values()]]
    return SummedGradient.apply(total, gradients, *vectors.values(), *learned.values())


def parameters_of(terms: Mapping[str, Term]) -> dict[str, Tensor]:
    """The parameters of the learned terms."""
    return {name: term.parameters for name, term in terms.items() if isinstance(term, LearnedTerm)}


def with_parameters(terms: Mapping[str, Term], parameters: Mapping[str, Tensor]) -> dict[str, Term]:
    """The same terms, the learned ones with these parameters."""
    return {
        name: replace(term, parameters=parameters[name]) if isinstance(term, LearnedTerm) else term
        for name, term in terms.items()
    }


def rows_at_once(terms: Sequence[Term], pairs: PairBatch, max_matrix_bytes: int) -> int:
    """How many rows to evaluate together, so that a similarity matrix has at most so many bytes; at least 1.

    A term that needs all rows gets them, with a warning.

    Example:
        >>> import torch
        >>> from st_vi.losses.blocks import rows_at_once
        >>> from st_vi.terms import InfoNCE, PairBatch
        >>> rows_at_once([InfoNCE()], PairBatch(torch.ones(100, 4), torch.ones(100, 4)), 4000)  # 100 candidates in fp32
        10
    """
    width = len(pairs.anchors)
    bytes_each = torch.promote_types(pairs.anchors.dtype, torch.float32).itemsize
    # A term on teacher's vectors compares each of a row's inputs with those of all rows.
    taught = 0 if pairs.teacher_vectors is None else len(pairs.teacher_vectors) ** 2
    rows = max(1, max_matrix_bytes // (max(pairs.num_candidates, taught) * width * bytes_each))
    whole = sorted({type(term).__name__ for term in terms if term.needs_all_rows})
    own = pairs.num_own_rows
    if not whole or own <= rows:
        return rows
    logger.warning_once(
        f"{', '.join(whole)} needs all rows of a batch together: {own} rows are evaluated at once, with matrices of "
        f"about {own * max_matrix_bytes // rows:,} bytes instead of max_matrix_bytes={max_matrix_bytes:,}"
    )
    return own


def _sums(terms: Mapping[str, Term], pairs: PairBatch, row_weights: Tensor, observer: Observer | None) -> Tensor:
    sums = []
    for name, term in terms.items():
        values = term(pairs)
        sums.append(term.weight * (values * row_weights).sum())
        if observer:
            observer(name, term, pairs, values.detach())
    return torch.stack(sums)


class SummedGradient(torch.autograd.Function):
    """Values with a known gradient of their sum: ``SummedGradient.apply(values, gradients, *inputs)``.

    The inputs get these gradients, times the one that all values have in common; None stands for zeros.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, gradients: Sequence[Tensor | None], *inputs: Tensor) -> Tensor:
        """The values."""
        ctx.gradients = gradients
        ctx.like = [(value.shape, value.dtype, value.device) for value in inputs]
        return values.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the inputs."""
        # An error instead of wrong gradients: those of single values are not kept.
        if not (gradient == gradient[0]).all():
            raise ValueError(
                "a cached or balanced loss has only the gradient of the sum of its components. To weight them, set the "
                f"weights of the terms in `tasks`; backward got the gradients {gradient.tolist()}"
            )
        # Kept for one backward pass only, as they are as large as the inputs.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("a cached or balanced loss can be backpropagated only once: call it again")
        scale, results = gradient[0], []
        for value, (shape, dtype, device) in zip(gradients, ctx.like, strict=True):
            if value is None:
                value = torch.zeros(shape, device=device)
            results.append((value if scale == 1 else value * scale).to(dtype))
        return (None, None, *results)
