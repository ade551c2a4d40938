"""`IRPO` against a naive loop over its equation, and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.irpo import IRPO
from tests.helpers.taught import assert_equals_loop, assert_finite_when_degenerate, taught_batch, taught_rows


def naive_row(candidates, beta):
    if len(candidates) < 2:
        return 0
    places = sorted((y for _, y, _ in candidates), reverse=True)
    loss = 0
    for i, (r, y, _) in enumerate(candidates):
        w = (2**y - 1) / math.log2(1 + 1 + places.index(y))  # the first place of that value: 1 + its index
        others = [(beta * (other - r)).exp() for j, (other, _, _) in enumerate(candidates) if j != i]
        loss = loss - w * (1 / (1 + sum(others) / len(others))).log()  # σ(−log x) = 1/(1 + x)
    return loss / len(candidates)


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_equals_the_naive_loop(temperature):
    assert_equals_loop(IRPO(temperature=temperature), lambda candidates: naive_row(candidates, 1 / temperature))


def test_equal_similarities():
    """log 2 times the mean weight: grades 2, 1, 1, 0 have places 1, 2, 2, 4."""
    teacher = torch.tensor([[2.0, 1.0, 0.0, 1.0]])
    pairs = PairBatch(torch.ones(1, 3), torch.ones(1, 3), torch.ones(3, 1, 3), teacher_scores=teacher)
    expected = math.log(2) * (3 / math.log2(2) + 2 * 1 / math.log2(3) + 0) / 4
    assert IRPO()(pairs).item() == pytest.approx(expected)


def test_ties_do_not_depend_on_the_order_of_the_columns():
    inputs = a, p, n, more = taught_rows()
    plain = PairBatch(*inputs, teacher_scores=torch.tensor([[0.9, 0.8, 0.5, 0.5, 0.1, 0.5]] * 5))
    other = PairBatch(a, p, n[[3, 2, 1, 0]], more, teacher_scores=torch.tensor([[0.9, 0.8, 0.5, 0.1, 0.5, 0.5]] * 5))
    torch.testing.assert_close(IRPO()(plain), IRPO()(other))


def test_relevance_out_of_range_counts_as_its_end():
    a, p, n, _ = taught_rows()
    low, end = (PairBatch(a, p, n[:1], teacher_scores=torch.tensor([[1.0, y]] * 5)) for y in (-3.0, 0.0))
    assert torch.equal(IRPO()(low), IRPO()(end))
    high, end = (PairBatch(a, p, n[:1], teacher_scores=torch.tensor([[y, 1.0]] * 5)) for y in (400.0, 30.0))
    assert torch.equal(IRPO()(high), IRPO()(end))


def test_a_step_down_the_gradient_orders_the_candidates():
    inputs = a, p, n, _ = taught_rows()
    pairs = PairBatch(a, p, n, teacher_scores=torch.tensor([[3.0, 0.0, 1.0, 0.0, 0.0]] * 5))
    step = torch.autograd.grad(IRPO(temperature=0.5)(pairs).sum(), (a, p, n))
    moved = [values.detach() - 0.05 * grad for values, grad in zip((a, p, n), step, strict=True)]
    change = PairBatch(*moved).own_candidates - pairs.own_candidates
    assert (change[:, 0] > change[:, [1, 3, 4]].amax(dim=1)).all() and len(inputs) == 4


@pytest.mark.slow
def test_gradient():
    inputs = [values.detach()[..., :3].clone().requires_grad_() for values in taught_rows()]
    assert torch.autograd.gradcheck(lambda *x: IRPO(temperature=0.3)(taught_batch(*x)), inputs)


def test_degenerate_batches_are_finite():
    assert_finite_when_degenerate(IRPO())


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^temperature.*0"):
        IRPO(temperature=0)
    with pytest.raises(ValueError, match="'teacher_scores'"):
        IRPO()(PairBatch(torch.eye(2), torch.eye(2)))
    assert IRPO.needs_teacher
