"""Terms evaluated for some rows at a time, forward and backward, so that no matrix has all rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.utils import logging

from st_vi.stock.heap import release_freed_memory
from st_vi.terms import LearnedTerm, PairBatch, Term
from st_vi.terms.pairs import products

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
    for block in blocks(replace(pairs, **leaves), size):
        sums.append(_sums(terms, block, next(weights), observer))
        if sums[-1].requires_grad:
            with torch.autocast(row_weights.device.type, enabled=False):  # as the trainer's own backward pass
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


def blocks(pairs: PairBatch, size: int) -> Iterator[PairBatch]:
    """The same batch with `size` of the own rows at a time, so that no matrix has more than (size, C) elements.

    Backpropagate the loss of each block before taking the next one. What the blocks share passes its gradient on after
    the last one.
    """
    values = {part.name: getattr(pairs, part.name) for part in fields(pairs) if part.init}
    rows = pairs.own(torch.arange(len(pairs.anchors), device=pairs.anchors.device))
    shared = Shared()
    for some in [pairs.own_rows] if len(rows) <= size else rows.split(size):
        yield _Block(**values | {"own_rows": some}, shared=shared)
    shared.backward()


@dataclass(frozen=True, eq=False)
class _Block(PairBatch):
    """Some own rows of a batch, with what they share with the others."""

    shared: Shared = field(kw_only=True, repr=False)

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        return self.shared(key, compute)

    def _similarity(self, queries: Tensor, candidates: Tensor) -> Tensor:
        return _BlockProducts.apply(queries, candidates, self._rows)


class Shared:
    """What does not depend on the own rows, computed once for all blocks of a batch.

    A value has no graph behind it, so that the backward pass of a block ends there and can be repeated. The gradients
    of all blocks add up in its ``grad``; `backward` then passes them on, from the last value to the first.

    Example:
        >>> import torch
        >>> from st_vi.losses.blocks import Shared
        >>> x, shared = torch.ones(2, requires_grad=True), Shared()
        >>> for row in range(2):
        ...     shared("twice", lambda: 2 * x)[row].backward()
        >>> shared.backward()
        >>> x.grad
        tensor([2., 2.])
    """

    def __init__(self) -> None:
        self._values: dict[Hashable, Any] = {}
        # What was computed together, with its graph and without; what others need comes first.
        self._cuts: list[list[tuple[Tensor, Tensor]]] = []

    def __call__(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The value of `key`: what ``compute()`` returned the first time, a tensor or a tuple of tensors."""
        if key not in self._values:
            self._values[key] = self._detached(compute())
        return self._values[key]

    def backward(self) -> None:
        """Pass the gradients of the cut values on to what they were computed from; each value is then forgotten."""
        self._values.clear()
        while self._cuts:
            used = [(value, end.grad) for value, end in self._cuts.pop() if end.grad is not None]
            if used:
                with torch.autocast(used[0][0].device.type, enabled=False):
                    torch.autograd.backward([value for value, _ in used], [gradient for _, gradient in used])

    def _detached(self, value: Any) -> Any:
        parts = value if isinstance(value, tuple) else (value,)
        ends = [part.detach().requires_grad_() if part.requires_grad else part for part in parts]
        self._cuts.append([(part, end) for part, end in zip(parts, ends, strict=True) if part.requires_grad])
        return tuple(ends) if isinstance(value, tuple) else ends[0]


class _BlockProducts(torch.autograd.Function):
    """``products(queries[rows], candidates)`` of two shared values, whose gradients are added in place.

    Autograd would make a gradient as large as all queries and all candidates for each block, and then add it.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, candidates: Tensor, rows: Tensor) -> Tensor:
        ctx.values = queries, candidates, rows
        return products(queries[rows], candidates)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        queries, candidates, rows = ctx.values
        for value in (queries, candidates):
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        queries.grad.index_add_(0, rows, gradient @ candidates.detach())
        candidates.grad.addmm_(gradient.T, queries.detach()[rows])
        return None, None, None


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
