"""`SoftInfoNCE` against a naive loop over its equation, and against InfoNCE where the two are the same."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import InfoNCE, PairBatch, View
from st_vi.terms.soft_info_nce import SoftInfoNCE
from tests.helpers.naive import ANCHORS, KNOWN, NEGATIVES, POSITIVES, batch, cosine, naive_masks


def naive_direction(queries, candidates, masks, alpha, beta, t, temperature=0.3, hard_weight=0.0):
    positive, negative, hard = masks
    losses = []
    for i, query in enumerate(queries):
        s = [cosine(query, candidate) for candidate in candidates]
        negatives = [j for j in range(len(s)) if negative[i, j]]
        positives = [j for j in range(len(s)) if positive[i, j]]
        total = sum(math.exp(s[j].item() / t) for j in negatives)
        denominator = sum((s[j] / temperature).exp() for j in positives)
        for j in negatives:
            p = math.exp(s[j].item() / t) / total
            w = max((beta - alpha * p) / (beta - alpha / len(negatives)), 0.1)
            denominator = denominator + w * (s[j] / temperature + hard_weight * float(hard[i, j])).exp()
        losses.append(-sum(((s[p] / temperature).exp() / denominator).log() for p in positives) / len(positives))
    return torch.stack(losses)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("alpha", "beta", "t"), [(1.0, 1.0, 0.05), (0.5, 2.0, 1.0), (3.0, 1.0, 0.3)])
@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
def test_equals_the_naive_loop(same_anchor, alpha, beta, t, symmetric):
    inputs = a, p, n = [values.requires_grad_() for values in batch()]
    term = SoftInfoNCE(
        temperature=0.3,
        symmetric=symmetric,
        hard_negative_weight=0.4,
        relevance_weight=alpha,
        uniformity_weight=beta,
        weight_temperature=t,
    )
    masks = naive_masks(ANCHORS, POSITIVES, NEGATIVES, same_anchor, True)
    expected = naive_direction(a, [*p, *n[0], *n[1]], masks, alpha, beta, t, hard_weight=0.4)
    own = torch.arange(6)
    if symmetric:
        masks = naive_masks(POSITIVES, ANCHORS, [], same_anchor, True)
        counts = masks[1].sum(dim=1)
        own = (counts * beta > alpha).nonzero().squeeze(1)  # below it the formula is singular or upside down
        assert len(own) >= 1
        backward = naive_direction(p[own], list(a), [mask[own] for mask in masks], alpha, beta, t)
        expected = (expected[own] + backward) / 2
    row_weights = torch.linspace(0.5, 1.5, len(own), dtype=torch.float64)
    expected_grads = torch.autograd.grad((expected * row_weights).sum(), inputs)

    joint = term(PairBatch(a, p, n, **KNOWN, same_anchor=same_anchor))[own]
    part = term(PairBatch(a, p, n, **KNOWN, same_anchor=same_anchor, own_rows=own))
    for actual in (joint, part):
        torch.testing.assert_close(actual, expected)
        actual_grads = torch.autograd.grad((actual * row_weights).sum(), inputs)
        for actual_grad, expected_grad in zip(actual_grads, expected_grads, strict=True):
            torch.testing.assert_close(actual_grad, expected_grad)


@pytest.mark.parametrize("symmetric", [False, True])
def test_without_relevance_it_is_info_nce_exactly(symmetric):
    inputs = a, p, n = [values.float().requires_grad_() for values in batch()]
    soft = SoftInfoNCE(temperature=0.05, symmetric=symmetric, hard_negative_weight=0.7, relevance_weight=0.0)(
        PairBatch(a, p, n, **KNOWN)
    )
    plain = InfoNCE(temperature=0.05, symmetric=symmetric, hard_negative_weight=0.7)(PairBatch(a, p, n, **KNOWN))
    assert torch.equal(soft, plain)
    for mine, theirs in zip(
        torch.autograd.grad(soft.sum(), inputs), torch.autograd.grad(plain.sum(), inputs), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_weights_average_one_and_fall_with_similarity():
    a, p, n = batch()
    view = PairBatch(a, p, n, **KNOWN).anchor_view
    weights = SoftInfoNCE(weight_temperature=0.2).weights(view)
    mean = (weights * view.negative).sum(dim=1) / view.negative.sum(dim=1)
    torch.testing.assert_close(mean, torch.ones(6, dtype=torch.float64))
    for i in range(6):
        by_similarity = weights[i, view.negative[i]][view.similarity[i, view.negative[i]].argsort()]
        assert (by_similarity.diff() < 0).all()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.0 + 1e-6, 2.0, 5.0])
def test_few_negatives_weigh_one(alpha):
    """One negative always, α = β included; two where α ≥ 2β makes the formula singular or turns it round."""
    torch.manual_seed(0)
    term = SoftInfoNCE(relevance_weight=alpha)
    for rows in (2, 3) if alpha >= 2 else (2,):
        a, p = torch.randn(rows, 4, requires_grad=True), torch.randn(rows, 4, requires_grad=True)
        loss = term(PairBatch(a, p))
        torch.testing.assert_close(loss, InfoNCE()(PairBatch(a, p)))
        loss.sum().backward()
        assert a.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("alpha", "beta", "count"), [(0.9, 0.18, 5), (4.7, 4.7 / 3, 3), (0.6, 0.2, 3), (1.3, 1.3 / 9, 9)]
)
def test_the_singular_number_of_negatives_is_found_despite_rounding(alpha, beta, count, dtype):
    """β − α/M is then not 0 but 1e-8, and its inverse no weight."""
    positive = torch.arange(count + 1)[None] == 0
    view = View(torch.linspace(-0.5, 0.9, count + 1, dtype=dtype)[None], positive, ~positive, ~positive)
    weights = SoftInfoNCE(relevance_weight=alpha, uniformity_weight=beta).weights(view)
    assert torch.equal(weights, torch.ones(1, count + 1, dtype=dtype))


def test_weights_have_no_gradient():
    """The gradient is that of the loss with its weights as constants: p(j) times the pull of each negative."""
    a, p, _ = batch()
    p.requires_grad_()
    term = SoftInfoNCE(temperature=0.3, weight_temperature=0.3, min_weight=0.01)
    view = PairBatch(a, p).anchor_view
    assert not term.weights(view).requires_grad
    similarity = view.similarity.detach().requires_grad_()
    (log_weighted := (similarity / 0.3 + term.weights(view).log()).log_softmax(1).diag().neg()).sum().backward()
    torch.testing.assert_close(term(PairBatch(a, p)), log_weighted)
    (grad,) = torch.autograd.grad(term(PairBatch(a, p)).sum(), p)
    (expected,) = torch.autograd.grad((view.similarity * similarity.grad).sum(), p)
    torch.testing.assert_close(grad, expected)


def test_degenerate_batches_are_finite():
    for a, p in (
        (torch.randn(1, 4), torch.randn(1, 4)),
        (torch.ones(3, 4), torch.ones(3, 4)),
        (torch.zeros(3, 4), torch.zeros(3, 4)),
        (torch.randn(4, 4).bfloat16(), torch.randn(4, 4).bfloat16()),
    ):
        a.requires_grad_(), p.requires_grad_()
        loss = SoftInfoNCE(temperature=0.01, symmetric=True, weight_temperature=0.01)(PairBatch(a, p))
        loss.sum().backward()
        assert loss.dtype == torch.float32 and loss.isfinite().all()
        assert a.grad.isfinite().all() and p.grad.isfinite().all()
        if len(a) == 1:
            assert loss.item() == 0 and a.grad.abs().max() == 0
    texts = torch.zeros(3, dtype=torch.long)  # all duplicates: no negatives
    assert (
        SoftInfoNCE()(PairBatch(torch.randn(3, 4), torch.randn(3, 4), anchor_ids=texts, candidate_ids=texts + 1))
        .eq(0)
        .all()
    )


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("temperature", 0.0),
        ("relevance_weight", -1.0),
        ("uniformity_weight", 0.0),
        ("weight_temperature", 0.0),
        ("min_weight", 0.0),
        ("min_weight", 1.5),
    ],
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"^{argument}.*{value}"):
        SoftInfoNCE(**{argument: value})
