"""`InfoNCE` against a naive loop over its equation, in value and gradient, and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import InfoNCE, PairBatch
from tests.helpers.naive import ANCHORS, NEGATIVES, POSITIVES, ids, naive_direction, naive_masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.7])
@pytest.mark.parametrize("mask_duplicates", [True, False])
@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
def test_equals_the_naive_loop(same_anchor, mask_duplicates, weight, symmetric, dtype):
    torch.manual_seed(0)
    a, p = (torch.randn(6, 5, dtype=dtype, requires_grad=True) for _ in range(2))
    n = torch.randn(2, 6, 5, dtype=dtype, requires_grad=True)
    known = {"anchor_ids": ids(ANCHORS), "candidate_ids": ids(POSITIVES + NEGATIVES[0] + NEGATIVES[1])}
    pairs = PairBatch(a, p, n, **known, same_anchor=same_anchor, mask_duplicates=mask_duplicates)
    actual = InfoNCE(temperature=0.2, symmetric=symmetric, hard_negative_weight=weight)(pairs)

    masks = naive_masks(ANCHORS, POSITIVES, NEGATIVES, same_anchor, mask_duplicates)
    expected = naive_direction(a, [*p, *n[0], *n[1]], masks, 0.2, weight)
    if symmetric:
        masks = naive_masks(POSITIVES, ANCHORS, [], same_anchor, mask_duplicates)
        expected = (expected + naive_direction(p, list(a), masks, 0.2, 0.0)) / 2

    torch.testing.assert_close(actual, expected)
    inputs = (a, p, n)
    row_weights = torch.linspace(0.5, 1.5, 6, dtype=dtype)  # so that no row's gradient can hide another's
    actual_grads = torch.autograd.grad((actual * row_weights).sum(), inputs)
    expected_grads = torch.autograd.grad((expected * row_weights).sum(), inputs)
    for actual_grad, expected_grad in zip(actual_grads, expected_grads, strict=True):
        torch.testing.assert_close(actual_grad, expected_grad)


def test_equal_similarities_give_log_of_the_number_of_candidates():
    same = torch.ones(5, 3)
    torch.testing.assert_close(InfoNCE()(PairBatch(same, same)), torch.full((5,), math.log(5)))
    with_negatives = PairBatch(same, same, torch.ones(1, 5, 3))
    weighted = InfoNCE(hard_negative_weight=math.log(3))(with_negatives)  # one candidate counts three times
    torch.testing.assert_close(weighted, torch.full((5,), math.log(12)))


def test_nothing_to_contrast_gives_zero_with_a_gradient_of_zero():
    a, p = torch.randn(1, 4, requires_grad=True), torch.randn(1, 4, requires_grad=True)
    loss = InfoNCE(symmetric=True)(PairBatch(a, p))
    loss.sum().backward()
    assert loss.item() == 0
    assert a.grad.abs().max() == p.grad.abs().max() == 0

    # Two rows with one anchor: two positives each, no negative.
    known = {"anchor_ids": torch.tensor([1, 1]), "candidate_ids": torch.tensor([2, 3])}
    assert InfoNCE()(PairBatch(torch.randn(2, 4), torch.randn(2, 4), **known)).tolist() == [0.0, 0.0]


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="temperature"):
        InfoNCE(temperature=0.0)


def test_min_score_leaves_out_pairs_that_are_known_to_be_none():
    torch.manual_seed(0)
    a, p = (torch.randn(5, 4, requires_grad=True) for _ in range(2))
    scores = torch.tensor([0.0, 0.5, 1.0, math.nan, 0.4])
    gated = InfoNCE(temperature=0.1, symmetric=True, min_score=0.5)(PairBatch(a, p, scores=scores))
    plain = InfoNCE(temperature=0.1, symmetric=True)(PairBatch(a, p, scores=scores))
    assert torch.equal(gated, plain * torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0]))
    assert torch.equal(plain, InfoNCE(temperature=0.1, symmetric=True)(PairBatch(a, p)))
    gated.sum().backward()
    assert p.grad[0].abs().sum() > 0  # still a negative for the others
