"""The components of `DLELoss` in one batch, weighted by a strategy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from sentence_transformers.util import get_world_size
from torch import Tensor

from st_vi.losses.balance.base import Balance, Measured
from st_vi.losses.balance.processes import mean_of_processes
from st_vi.losses.blocks import (
    VECTORS,
    Observer,
    SummedGradient,
    parameters_of,
    rows_at_once,
    term_sums,
    with_parameters,
)
from st_vi.tasks import Task
from st_vi.terms import PairBatch, Term


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of `DLELoss`.

    Attributes:
        tasks: The tasks.
        pairs: Of each task; None if this device has no row of it.
        rows: B, the rows of this device.
        sizes: For each task, the number of values of its embeddings.
        same_rows: Whether all tasks have the same rows and embeddings, as with ``negatives="batch"``.
        gathered: Whether the embeddings are those of all devices.
        like: A tensor of the type and device of the components.
    """

    tasks: Sequence[Task]
    pairs: Iterable[PairBatch | None]
    rows: int
    sizes: Sequence[int]
    same_rows: bool
    gathered: bool
    like: Tensor


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of some terms at the embeddings.

    Attributes:
        vectors: The embeddings, with their graph.
        values: (K, P), a row for each term; the P values are those of all `vectors`.
        learned: For each learned term, its place among the K, its parameters, and their gradient.
    """

    vectors: Sequence[Tensor]
    values: Tensor
    learned: Sequence[tuple[int, Tensor, Tensor]] = ()


def weighted_components(
    balance: Balance, batch: Batch, max_matrix_bytes: int | None = None, observer: Observer | None = None
) -> tuple[Tensor, Measured]:
    """λ_k c_k for each component, and what the strategy may know of the batch.

    Args:
        balance: The strategy.
        batch: The batch.
        max_matrix_bytes: As for `term_sums`.
        observer: As for `term_sums`.

    Returns:
        (K,) for the K components of all tasks; only their sum can be backpropagated. And the measured values.
    """
    balance.check_ready()
    weigh = _by_gradients if balance.needs_gradients else _by_losses
    return weigh(balance, batch, max_matrix_bytes, observer)


def _by_losses(
    balance: Balance, batch: Batch, max_matrix_bytes: int | None, observer: Observer | None
) -> tuple[Tensor, Measured]:
    """With weights that are known before the batch: terms with other constants."""
    weights = balance.weights(None)
    known, sums, shares = iter(weights.tolist()), [], []
    for task, pairs in zip(batch.tasks, batch.pairs, strict=True):
        terms = {name: replace(t, weight=t.weight * next(known)) for name, t in task.components.items()}
        if pairs is not None:
            sums.append(term_sums(terms, pairs, _row_weights(pairs, batch), max_matrix_bytes, observer))
        else:
            sums.append(batch.like.new_zeros(len(terms)))
        shares += _shares(task, pairs, batch)
    components = torch.cat(sums)
    measured = balance.note(_measured(components.detach() / weights.to(components), shares, None, weights), weights)
    return components, measured


def _by_gradients(
    balance: Balance, batch: Batch, max_matrix_bytes: int | None, observer: Observer | None
) -> tuple[Tensor, Measured]:
    """With weights that depend on the gradients of this batch, which are combined with them."""
    sums: list[Tensor] = []
    gradients: list[Gradients] = []
    shares: list[float] = []
    for task, size, pairs in zip(batch.tasks, batch.sizes, batch.pairs, strict=True):
        terms, shares = task.components, shares + _shares(task, pairs, batch)
        if pairs is not None:
            values, found = term_gradients(terms, pairs, _row_weights(pairs, batch), max_matrix_bytes, observer)
        else:
            values = batch.like.new_zeros(len(terms))
            found = Gradients((), batch.like.new_zeros(len(terms), size))
        sums.append(values)
        gradients.append(found)
    gram = _gram([found.values for found in gradients], batch)
    weights = balance.weights(gram)
    measured = balance.note(_measured(torch.cat(sums), shares, gram, weights), weights)
    split = weights.to(gram).split([len(values) for values in sums])
    return torch.cat([_combined(*each) for each in zip(sums, gradients, split, strict=True)]), measured


def term_gradients(
    terms: Mapping[str, Term],
    pairs: PairBatch,
    row_weights: Tensor,
    max_matrix_bytes: int | None = None,
    observer: Observer | None = None,
) -> tuple[Tensor, Gradients]:
    """`term_sums`, and the gradient of each term.

    If the rows do not fit in one block, the terms are evaluated one after the other, each with its own similarities.
    """
    named = {name: value for name in VECTORS if (value := getattr(pairs, name)) is not None}
    vectors = list({id(value): value for value in named.values()}.values())  # an anchor alone is its own positive
    # At least fp32, in which gradients are compared and add up.
    leaves = [v.detach().to(torch.promote_types(v.dtype, torch.float32)).requires_grad_() for v in vectors]
    leaf_of = dict(zip(map(id, vectors), leaves, strict=True))
    pairs = replace(pairs, **{name: leaf_of[id(value)] for name, value in named.items()})
    parameters = parameters_of(terms)
    own = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    terms = with_parameters(terms, own)
    if max_matrix_bytes and rows_at_once(list(terms.values()), pairs, max_matrix_bytes) < pairs.num_own_rows:
        groups: list[Mapping[str, Term]] = [{name: term} for name, term in terms.items()]
    else:
        groups, max_matrix_bytes = [terms], None
    sums: list[Tensor] = []
    rows: list[Tensor] = []
    learned: list[tuple[int, Tensor, Tensor]] = []
    for group in groups:
        values = term_sums(group, pairs, row_weights, max_matrix_bytes, observer)
        for number, (name, value) in enumerate(zip(group, values, strict=True), 1):
            wanted = [*leaves, own[name]] if name in own else leaves
            if value.requires_grad:
                with torch.autocast(value.device.type, enabled=False):
                    parts = torch.autograd.grad(
                        value, wanted, retain_graph=number < len(values), allow_unused=True, materialize_grads=True
                    )
            else:  # a term that is a constant
                parts = tuple(map(torch.zeros_like, wanted))
            if name in own:
                learned.append((len(rows), parameters[name], parts[-1]))
            rows.append(torch.cat([part.flatten() for part in parts[: len(leaves)]]))
        sums.append(values.detach())
    return torch.cat(sums), Gradients(vectors, torch.stack(rows), learned)


def _combined(values: Tensor, gradients: Gradients, weights: Tensor) -> Tensor:
    """λ_k c_k, (K,), whose sum has the gradient Σ_k λ_k g_k."""
    if not gradients.vectors:
        return values
    with torch.autocast(values.device.type, enabled=False):
        total = weights @ gradients.values
    parts = total.split([vector.numel() for vector in gradients.vectors])
    shaped = [part.view(vector.shape) for part, vector in zip(parts, gradients.vectors, strict=True)]
    shaped += [weights[k].to(gradient) * gradient for k, _, gradient in gradients.learned]
    inputs = [*gradients.vectors, *(parameters for _, parameters, _ in gradients.learned)]
    return SummedGradient.apply(weights * values, shaped, *inputs)


def _gram(gradients: Sequence[Tensor], batch: Batch) -> Tensor:
    """Scalar products of the gradients of the mean loss of all processes, (K, K)."""
    if batch.gathered:  # the embeddings are the same in all processes, and each has a part of their gradient
        gradients = [mean_of_processes(values) for values in gradients]
    with torch.autocast(batch.like.device.type, enabled=False):
        if batch.same_rows:
            joint = torch.cat(list(gradients))
            gram = joint @ joint.T
        else:  # tasks without a row in common
            gram = torch.block_diag(*(values @ values.T for values in gradients))
    return gram if batch.gathered else mean_of_processes(gram) / get_world_size()


def _row_weights(pairs: PairBatch, batch: Batch) -> Tensor:
    return batch.like.new_full((pairs.num_own_rows,), 1 / batch.rows)


def _shares(task: Task, pairs: PairBatch | None, batch: Batch) -> list[float]:
    rows = 0 if pairs is None else pairs.num_own_rows
    return [rows / batch.rows if term.weight else 0.0 for term in task.terms]


def _measured(components: Tensor, shares: Sequence[float], gram: Tensor | None, like: Tensor) -> Measured:
    """For the strategy: of the type and device of its weights."""
    totals, means = mean_of_processes(torch.stack([components, components.new_tensor(shares)]))
    losses = torch.where(means > 0, totals / means, 0.0)
    return Measured(losses.to(like), means.to(like), None if gram is None else gram.to(like))
