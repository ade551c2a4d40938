"""`SoftLabelKL` against a naive loop over its equation, and against cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from st_vi.terms import PairBatch
from st_vi.terms.soft_label_kl import SoftLabelKL
from tests.terms.test_teacher import assert_equals_loop, assert_finite_when_degenerate, taught_batch, taught_rows


def naive_row(candidates, temperature, margin, symmetric):
    best = max((t for _, t, positive in candidates if positive), default=None)
    if best is None:
        return 0
    kept = [(s, t) for s, t, positive in candidates if positive or t <= best - margin]
    p = [(s / temperature).exp() for s, _ in kept]
    q = [math.exp(t / temperature) for _, t in kept]
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    loss = sum(y * (math.log(y) - x.log()) for x, y in zip(p, q, strict=True))
    if symmetric:
        loss = (loss + sum(x * (x.log() - math.log(y)) for x, y in zip(p, q, strict=True))) / 2
    return loss


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("temperature", "margin"), [(0.02, 0.01), (0.1, 0.3), (0.1, -1.0)])
def test_equals_the_naive_loop(temperature, margin, symmetric):
    term = SoftLabelKL(temperature, margin, symmetric)
    assert_equals_loop(term, lambda candidates: naive_row(candidates, temperature, margin, symmetric))


@pytest.mark.parametrize("rest", [-float("inf"), 0.0])
def test_a_one_hot_teacher_makes_it_the_cross_entropy_of_the_positive(rest):
    torch.manual_seed(0)
    a, p, n = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4), torch.randn(5, 3, 4)
    teacher = torch.full((3, 6), rest)
    teacher[:, 0] = 10.0  # over 0.02 so high that the rest has no mass in fp32
    pairs = PairBatch(a, p, n, teacher_scores=teacher)
    actual = SoftLabelKL(symmetric=False)(pairs)
    expected = F.cross_entropy(pairs.own_candidates / 0.02, torch.zeros(3, dtype=torch.long), reduction="none")
    torch.testing.assert_close(actual, expected)
    (grad,), (expected_grad,) = (torch.autograd.grad(x.sum(), a, retain_graph=True) for x in (actual, expected))
    torch.testing.assert_close(grad, expected_grad)


def test_a_model_that_says_what_the_teacher_says_has_no_loss():
    inputs = taught_rows()
    with torch.no_grad():
        teacher = taught_batch(*inputs).own_candidates
    loss = SoftLabelKL(false_negative_margin=-math.inf)(taught_batch(*inputs, teacher=teacher.tolist()))
    torch.testing.assert_close(loss, torch.zeros(5, dtype=torch.float64))
    for grad in torch.autograd.grad(loss.sum(), inputs):
        torch.testing.assert_close(grad, torch.zeros_like(grad))


def test_false_negatives_are_dropped_and_have_no_gradient():
    a, p, n = torch.randn(1, 4), torch.randn(1, 4), torch.randn(3, 1, 4, requires_grad=True)
    pairs = PairBatch(a, p, n, teacher_scores=torch.tensor([[0.5, 0.9, 0.495, 0.48]]))
    SoftLabelKL()(pairs).sum().backward()
    assert (n.grad[:2] == 0).all() and n.grad[2].abs().max() > 0


def test_gradient():
    inputs = [values.detach()[..., :3].clone().requires_grad_() for values in taught_rows()]
    assert torch.autograd.gradcheck(lambda *x: SoftLabelKL(0.3)(taught_batch(*x)), inputs)


@pytest.mark.parametrize("symmetric", [True, False])
def test_degenerate_batches_are_finite(symmetric):
    assert_finite_when_degenerate(SoftLabelKL(symmetric=symmetric))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^temperature.*-1"):
        SoftLabelKL(temperature=-1)
    with pytest.raises(ValueError, match=r"^false_negative_margin.*nan"):
        SoftLabelKL(false_negative_margin=math.nan)
    with pytest.raises(ValueError, match="'teacher_scores'"):
        SoftLabelKL()(PairBatch(torch.eye(2), torch.eye(2)))
    assert SoftLabelKL.needs_teacher
