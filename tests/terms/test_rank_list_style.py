"""`RankListStyle` against a naive loop over its equation, and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from st_vi.terms import PairBatch
from st_vi.terms.rank_list_style import RankListStyle
from tests.helpers.naive import MAPPINGS, cosine

SCORES = [0.2, 0.9, math.nan, 0.9, 0.0, 1.0, 0.5, 0.4, math.nan]  # missing ones and a tie


def vectors(rows=9):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]


def naive(a, p, scores, temperature, skips, mapping):
    """Row by row: walk down the distinct scores, and take those 1 and k places below."""
    similarity = [MAPPINGS[mapping](cosine(a[i], p[i])) for i in range(len(scores))]
    ladder = sorted({s for s in scores if s == s}, reverse=True)
    losses = []
    for i, score in enumerate(scores):
        inside = 1 + similarity[i] * 0
        if score == score:
            for distance in (1, *skips):
                place = ladder.index(score) + distance
                rivals = [j for j, s in enumerate(scores) if place < len(ladder) and s == ladder[place]]
                for j in rivals:
                    inside = inside + (-(similarity[i] - similarity[j]) / temperature).exp()
        losses.append(inside.log())
    return torch.stack(losses)


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("skips", [(), (2,), (2, 4), (3,)])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_equals_the_naive_loop(temperature, skips, mapping):
    inputs = a, p = vectors()
    expected = naive(a, p, SCORES, temperature, skips, mapping)
    scores = torch.tensor(SCORES, dtype=torch.float64)
    for rows in (None, [1, 2, 6]):
        pairs = PairBatch(a, p, scores=scores, own_rows=rows and torch.tensor(rows))
        actual, target = (
            RankListStyle(temperature=temperature, skips=skips, mapping=mapping)(pairs),
            expected[rows or range(9)],
        )
        torch.testing.assert_close(actual, target)
        row_weights = torch.linspace(0.5, 1.5, len(target), dtype=torch.float64)
        grads = torch.autograd.grad((actual * row_weights).sum(), inputs)
        expected_grads = torch.autograd.grad((target * row_weights).sum(), inputs, retain_graph=True)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad, expected_grad)


def test_two_rows_are_a_pairwise_logistic_loss():
    a, p = vectors(2)
    loss = RankListStyle(temperature=0.1)(PairBatch(a, p, scores=torch.tensor([0.2, 0.7])))
    gap = (cosine(a[1], p[1]) - cosine(a[0], p[0])) / 2 / 0.1  # affine: half the cosine
    torch.testing.assert_close(loss, torch.stack([gap * 0, F.softplus(-gap)]))


def test_only_the_order_of_the_scores_matters():
    pairs = vectors()
    scores = torch.tensor(SCORES, dtype=torch.float64)
    plain, squared = (RankListStyle()(PairBatch(*pairs, scores=s)) for s in (scores, scores.square()))
    assert torch.equal(plain, squared) and plain.sum() > 0


def test_unscored_rows_have_neither_loss_nor_gradient():
    a, p = vectors()
    loss = RankListStyle()(PairBatch(a, p, scores=torch.tensor(SCORES)))
    loss.sum().backward()
    assert (loss[[2, 4, 8]] == 0).all() and (loss[[0, 1, 3, 5, 6, 7]] > 0).all()  # row 4 is the lowest
    assert (a.grad[[2, 8]] == 0).all() and a.grad[4].abs().max() > 0


def test_gradient():
    scores = torch.tensor(SCORES[:6], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda a, p: RankListStyle(temperature=0.3)(PairBatch(a, p, scores=scores)), vectors(6)
    )


@pytest.mark.parametrize("scores", [[0.5], [0.5] * 4, [math.nan] * 4, [0.0, math.nan, 1.0, 0.5]])
@pytest.mark.parametrize("make", [torch.randn, torch.ones, torch.zeros, lambda *s: torch.randn(*s).bfloat16()])
def test_degenerate_batches_are_finite_and_connected(scores, make):
    a, p = (make(len(scores), 4).requires_grad_() for _ in range(2))
    loss = RankListStyle(temperature=0.01)(PairBatch(a, p, scores=torch.tensor(scores)))
    loss.sum().backward()
    assert loss.shape == (len(scores),) and loss.dtype == torch.float32 and loss.isfinite().all()
    assert a.grad.isfinite().all() and p.grad.isfinite().all()
    if len(set(scores)) < 3:  # nothing is in order
        assert (loss == 0).all() and (a.grad == 0).all()


@pytest.mark.parametrize(
    ("argument", "value"), [("temperature", 0.0), ("skips", (1,)), ("skips", (2.5,)), ("mapping", "linear")]
)
def test_bad_arguments(argument, value):
    with pytest.raises(ValueError, match=f"^{argument}"):
        RankListStyle(**{argument: value})


def test_needs_scores():
    assert RankListStyle.needs_score
    with pytest.raises(ValueError, match="needs a score"):
        RankListStyle()(PairBatch(torch.eye(2), torch.eye(2)))
