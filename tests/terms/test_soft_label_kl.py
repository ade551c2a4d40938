"""`SoftLabelKL` against a naive loop over its equation, and against cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from st_vi.terms import PairBatch
from st_vi.terms.soft_label_kl import SoftLabelKL
from tests.helpers.taught import assert_equals_loop, assert_finite_when_degenerate, taught_batch, taught_rows


def naive_row(candidates, temperature, margin, symmetric, floor):
    best = max((t for _, t, positive in candidates if positive), default=None)
    if best is None:
        return 0
    kept = [(s, t) for s, t, positive in candidates if positive or t <= best - margin]
    p = [(s / temperature).exp() for s, _ in kept]
    q = [math.exp(t / temperature) for _, t in kept]
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    loss = sum(y * (math.log(y) - (x + floor).log()) for x, y in zip(p, q, strict=True))
    if symmetric:
        loss = (loss + sum(x * (x.log() - math.log(y + floor)) for x, y in zip(p, q, strict=True))) / 2
    return loss


@pytest.mark.parametrize("floor", [0.0, 1e-8, 1e-2])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("temperature", "margin"), [(0.02, 0.01), (0.1, 0.3), (0.1, -1.0)])
def test_equals_the_naive_loop(temperature, margin, symmetric, floor):
    term = SoftLabelKL(temperature=temperature, false_negative_margin=margin, symmetric=symmetric, floor=floor)
    assert_equals_loop(term, lambda candidates: naive_row(candidates, temperature, margin, symmetric, floor))


def test_equals_the_released_code():
    """Its default floor is added to probabilities, not to what is their log; nothing is left out at this margin."""
    torch.manual_seed(0)
    a, p, n = torch.randn(6, 8), torch.randn(6, 8), torch.randn(4, 6, 8)
    teacher = torch.rand(6, 5)
    pairs = PairBatch(*(x.double() for x in (a, p, n)), teacher_scores=teacher.double())
    scores, understanding = ((x / 0.02).softmax(dim=1) for x in (pairs.own_candidates, teacher.double()))
    both = [((scores + 1e-8).log(), understanding), ((understanding + 1e-8).log(), scores)]
    expected = sum(F.kl_div(log, target, reduction="none").sum(dim=1) for log, target in both) / 2
    actual = SoftLabelKL(false_negative_margin=-math.inf)(pairs)
    torch.testing.assert_close(actual, expected)
    assert (SoftLabelKL(false_negative_margin=-math.inf, floor=0.0)(pairs) > actual + 1).any()


def test_the_floor_bounds_what_a_candidate_costs():
    """The teacher's second best lies opposite to the anchor: e^{-100} without a floor."""
    a = torch.tensor([[1.0, 0.0]])
    pairs = PairBatch(a, a, -a[None], teacher_scores=torch.tensor([[0.0, 10.0]]))
    keep = {"false_negative_margin": -math.inf, "symmetric": False}
    assert SoftLabelKL(floor=0.0, **keep)(pairs).item() == pytest.approx(100.0)
    assert SoftLabelKL(**keep)(pairs).item() == pytest.approx(-math.log(1e-8))


@pytest.mark.parametrize("rest", [-float("inf"), 0.0])
def test_a_one_hot_teacher_makes_it_the_cross_entropy_of_the_positive(rest):
    torch.manual_seed(0)
    a, p, n = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4), torch.randn(5, 3, 4)
    teacher = torch.full((3, 6), rest)
    teacher[:, 0] = 10.0  # over 0.02 so high that the rest has no mass in fp32
    pairs = PairBatch(a, p, n, teacher_scores=teacher)
    actual = SoftLabelKL(symmetric=False, floor=0.0)(pairs)
    expected = F.cross_entropy(pairs.own_candidates / 0.02, torch.zeros(3, dtype=torch.long), reduction="none")
    torch.testing.assert_close(actual, expected)
    (grad,), (expected_grad,) = (torch.autograd.grad(x.sum(), a, retain_graph=True) for x in (actual, expected))
    torch.testing.assert_close(grad, expected_grad)


def test_a_model_that_says_what_the_teacher_says_has_no_loss():
    inputs = taught_rows()
    with torch.no_grad():
        teacher = taught_batch(*inputs).own_candidates
    loss = SoftLabelKL(false_negative_margin=-math.inf, floor=0.0)(taught_batch(*inputs, teacher=teacher.tolist()))
    torch.testing.assert_close(loss, torch.zeros(5, dtype=torch.float64))
    for grad in torch.autograd.grad(loss.sum(), inputs):
        torch.testing.assert_close(grad, torch.zeros_like(grad))


def test_false_negatives_are_dropped_and_have_no_gradient():
    a, p, n = torch.randn(1, 4), torch.randn(1, 4), torch.randn(3, 1, 4, requires_grad=True)
    pairs = PairBatch(a, p, n, teacher_scores=torch.tensor([[0.5, 0.9, 0.495, 0.48]]))
    SoftLabelKL()(pairs).sum().backward()
    assert (n.grad[:2] == 0).all() and n.grad[2].abs().max() > 0


@pytest.mark.slow
def test_gradient():
    inputs = [values.detach()[..., :3].clone().requires_grad_() for values in taught_rows()]
    assert torch.autograd.gradcheck(lambda *x: SoftLabelKL(temperature=0.3)(taught_batch(*x)), inputs)


@pytest.mark.parametrize("floor", [0.0, 1e-8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_degenerate_batches_are_finite(symmetric, floor):
    assert_finite_when_degenerate(SoftLabelKL(symmetric=symmetric, floor=floor))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"^temperature.*-1"):
        SoftLabelKL(temperature=-1)
    with pytest.raises(ValueError, match=r"^false_negative_margin.*nan"):
        SoftLabelKL(false_negative_margin=math.nan)
    with pytest.raises(ValueError, match="'teacher_scores'"):
        SoftLabelKL()(PairBatch(torch.eye(2), torch.eye(2)))
    assert SoftLabelKL.needs_teacher
