"""`ListwiseDistillation` against a naive loop over its equation, and against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.listwise_distillation import ListwiseDistillation
from tests.helpers.taught import assert_equals_loop, assert_finite_when_degenerate, taught_batch, taught_rows


def naive_row(candidates, temperature, min_score):
    """Sorted, and cut at the first invalid one."""
    ranked = sorted(((t, s) for s, t, positive in candidates if not positive), key=lambda pair: -pair[0])
    loss = 0
    for j, (t, s) in enumerate(ranked):
        if min_score is not None and t < min_score:
            break
        first = min(k for k, (other, _) in enumerate(ranked) if other == t)  # its equals are not above it
        assert first <= j
        total = sum((other / temperature).exp() for _, other in ranked[first:])
        loss = loss - ((s / temperature).exp() / total).log()
    return loss


@pytest.mark.parametrize("min_score", [None, 0.15, 0.65, 2.0])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_equals_the_naive_loop(temperature, min_score):
    term = ListwiseDistillation(temperature=temperature, min_score=min_score)
    assert_equals_loop(term, lambda candidates: naive_row(candidates, temperature, min_score))


def test_ties_do_not_depend_on_the_order_of_the_columns():
    inputs = a, p, n, more = taught_rows()
    teacher = [[0.9, 0.8, 0.5, 0.5, 0.1, 0.5]] * 5
    order = [3, 1, 0, 2]
    moved = [row[:2] + [row[2 + c] for c in order] for row in teacher]
    plain = PairBatch(*inputs, teacher_scores=torch.tensor(teacher))
    other = PairBatch(a, p, n[order], more, teacher_scores=torch.tensor(moved))
    torch.testing.assert_close(ListwiseDistillation()(plain), ListwiseDistillation()(other))


@pytest.mark.parametrize(("min_score", "valid"), [(None, 5), (0.25, 3), (0.9, 0)])
def test_equal_similarities(min_score, valid):
    """Σ log(K − j + 1) over the valid ones."""
    teacher = torch.tensor([[0.0, 0.3, 0.1, 0.5, 0.2, 0.4]]).repeat(2, 1)
    pairs = PairBatch(torch.ones(2, 3), torch.ones(2, 3), torch.ones(5, 2, 3), teacher_scores=teacher)
    expected = math.fsum(math.log(5 - j + 1) for j in range(1, valid + 1))
    torch.testing.assert_close(ListwiseDistillation(min_score=min_score)(pairs), torch.full((2,), expected))


def test_the_right_order_costs_less_and_the_positive_nothing():
    a, p = torch.eye(3)[:1], torch.randn(1, 3, requires_grad=True)
    n = torch.tensor([[[1.0, 0.2, 0.0]], [[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]])  # ever less like the anchor
    right, wrong = (
        ListwiseDistillation()(PairBatch(a, p, n, teacher_scores=torch.tensor([[1.0, *scores]])))
        for scores in ([0.8, 0.5, 0.2], [0.2, 0.5, 0.8])
    )
    assert right.item() < 0.01 < 1 < wrong.item()
    (grad,) = torch.autograd.grad(wrong, p)
    assert (grad == 0).all()


@pytest.mark.slow
def test_gradient():
    inputs = [values.detach()[..., :3].clone().requires_grad_() for values in taught_rows()]
    assert torch.autograd.gradcheck(
        lambda *x: ListwiseDistillation(temperature=0.3, min_score=0.15)(taught_batch(*x)), inputs
    )


@pytest.mark.parametrize("min_score", [None, 0.3])
def test_degenerate_batches_are_finite(min_score):
    assert_finite_when_degenerate(ListwiseDistillation(min_score=min_score))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^temperature.*0"):
        ListwiseDistillation(temperature=0)
    with pytest.raises(ValueError, match=r"^min_score.*nan"):
        ListwiseDistillation(min_score=math.nan)
    a = torch.eye(2)
    for negatives in (None, a[None]):
        with pytest.raises(ValueError, match=r"two hard negatives.*'negative_1', 'negative_2'"):
            ListwiseDistillation()(PairBatch(a, a, negatives))
    with pytest.raises(ValueError, match="'teacher_scores'"):
        ListwiseDistillation()(PairBatch(a, a, torch.ones(2, 2, 2)))
    assert ListwiseDistillation.needs_teacher
