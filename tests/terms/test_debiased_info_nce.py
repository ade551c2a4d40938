"""`DebiasedInfoNCE` against a naive loop over its equation, and against InfoNCE where the two are the same."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import InfoNCE, PairBatch
from st_vi.terms.debiased_info_nce import DebiasedInfoNCE
from tests.helpers.naive import ANCHORS, KNOWN, NEGATIVES, POSITIVES, batch, cosine, naive_masks


def naive_direction(queries, candidates, masks, prior, temperature, hard_weight=0.0):
    """The loss of each row, and in how many of them g is at its floor."""
    positive, negative, hard = masks
    losses, at_floor = [], 0
    for i, query in enumerate(queries):
        weights = [float(hard[i, j]) * hard_weight for j in range(len(candidates))]
        e = [(cosine(query, c) / temperature + w).exp() for c, w in zip(candidates, weights, strict=True)]
        negatives = [j for j in range(len(e)) if negative[i, j]]
        positives = [j for j in range(len(e)) if positive[i, j]]
        mean_negative = sum(e[j] for j in negatives) / len(negatives)
        mean_positive = sum(e[j] for j in positives) / len(positives)
        floor = sum(math.exp(-1 / temperature + weights[j]) for j in negatives) / len(negatives)
        g = (mean_negative - prior * mean_positive) / (1 - prior)
        at_floor += int(g < floor)
        denominator = sum(e[j] for j in positives) + len(negatives) * g.clamp(min=floor)
        losses.append(-sum((e[p] / denominator).log() for p in positives) / len(positives))
    return torch.stack(losses), at_floor


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("prior", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
def test_equals_the_naive_loop(same_anchor, prior, symmetric):
    inputs = a, p, n = [values.requires_grad_() for values in batch()]
    masks = naive_masks(ANCHORS, POSITIVES, NEGATIVES, same_anchor, True)
    expected, at_floor = naive_direction(a, [*p, *n[0], *n[1]], masks, prior, 0.3, 0.4)
    if symmetric:
        masks = naive_masks(POSITIVES, ANCHORS, [], same_anchor, True)
        backward, more = naive_direction(p, list(a), masks, prior, 0.3)
        expected, at_floor = (expected + backward) / 2, at_floor + more
    assert (at_floor == 0) if prior == 0 else at_floor < 6  # of 6 or 12
    assert at_floor > 0 or prior < 0.7
    term = DebiasedInfoNCE(temperature=0.3, symmetric=symmetric, hard_negative_weight=0.4, false_negative_prior=prior)
    joint = term(PairBatch(a, p, n, **KNOWN, same_anchor=same_anchor))
    own = torch.tensor([1, 4, 5])
    part = term(PairBatch(a, p, n, **KNOWN, same_anchor=same_anchor, own_rows=own))
    for actual, target in ((joint, expected), (part, expected[own])):
        torch.testing.assert_close(actual, target)
        row_weights = torch.linspace(0.5, 1.5, len(target), dtype=torch.float64)
        actual_grads = torch.autograd.grad((actual * row_weights).sum(), inputs)
        expected_grads = torch.autograd.grad((target * row_weights).sum(), inputs, retain_graph=True)
        for actual_grad, expected_grad in zip(actual_grads, expected_grads, strict=True):
            torch.testing.assert_close(actual_grad, expected_grad)


@pytest.mark.parametrize("temperature", [0.01, 0.05])
@pytest.mark.parametrize("hard_weight", [0.0, -2.0, 2.0])
def test_without_prior_it_is_info_nce(temperature, hard_weight):
    inputs = a, p, n = [values.float().requires_grad_() for values in batch()]
    mine = DebiasedInfoNCE(
        temperature=temperature, symmetric=True, hard_negative_weight=hard_weight, false_negative_prior=0.0
    )(PairBatch(a, p, n, **KNOWN))
    plain = InfoNCE(temperature=temperature, symmetric=True, hard_negative_weight=hard_weight)(
        PairBatch(a, p, n, **KNOWN)
    )
    torch.testing.assert_close(mine, plain)
    for grad, expected in zip(
        torch.autograd.grad(mine.sum(), inputs), torch.autograd.grad(plain.sum(), inputs), strict=True
    ):
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("cosines", [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)])
def test_a_temperature_of_a_hundredth_neither_overflows_nor_vanishes(cosines):
    """e^100 is beyond fp32; the same in float64 by the plain formula, e^{s/T} as it stands."""
    positive, negative = cosines
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    p = torch.tensor([[positive, 0.0], [negative, 0.0]])
    loss = DebiasedInfoNCE(temperature=0.01, false_negative_prior=0.1)(PairBatch(a, p))[0]
    g = max((math.exp(negative / 0.01) - 0.1 * math.exp(positive / 0.01)) / 0.9, math.exp(-1 / 0.01))
    assert loss.item() == pytest.approx(math.log1p(g / math.exp(positive / 0.01)), rel=1e-6, abs=1e-6)
    loss.backward()
    assert a.grad.isfinite().all()


def test_smooth_gradient():
    a, p, _ = (values.requires_grad_() for values in batch())
    term = DebiasedInfoNCE(temperature=0.5, false_negative_prior=0.05)
    assert torch.autograd.gradcheck(lambda a, p: term(PairBatch(a, p)), (a[:4], p[:4]))


def test_degenerate_batches_are_finite():
    for a, p in (
        (torch.randn(1, 4), torch.randn(1, 4)),
        (torch.ones(3, 4), torch.ones(3, 4)),
        (torch.zeros(3, 4), torch.zeros(3, 4)),
        (torch.randn(4, 4).bfloat16(), torch.randn(4, 4).bfloat16()),
    ):
        a.requires_grad_(), p.requires_grad_()
        loss = DebiasedInfoNCE(temperature=0.01, symmetric=True, false_negative_prior=0.3)(PairBatch(a, p))
        loss.sum().backward()
        assert loss.dtype == torch.float32 and loss.isfinite().all()
        assert a.grad.isfinite().all() and p.grad.isfinite().all()
        if len(a) == 1:
            assert loss.item() == 0 and a.grad.abs().max() == 0


def test_scores_leave_out_rows_as_in_info_nce():
    a, p, _ = batch()
    scores = torch.tensor([0.0, 0.5, 1.0, math.nan, 0.4, 0.9])
    gated = DebiasedInfoNCE(min_score=0.5)(PairBatch(a, p, scores=scores))
    assert torch.equal(gated, DebiasedInfoNCE()(PairBatch(a, p)) * torch.tensor([0, 1, 1, 1, 0, 1]))


@pytest.mark.parametrize(
    ("argument", "value"), [("false_negative_prior", 1.0), ("false_negative_prior", -0.1), ("temperature", 0.0)]
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"^{argument}.*{value}"):
        DebiasedInfoNCE(**{argument: value})
