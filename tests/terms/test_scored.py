"""The terms on scored pairs, and the hardest-negative margin, against naive loops in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from st_vi.terms import CosineAlignment, HardestNegativeMargin, PairBatch, PairwiseRank, ScoreMSE
from tests.helpers.naive import ANCHORS, MAPPINGS, POSITIVES, cosine, ids, naive_masks

SCORES = [0.2, 0.9, float("nan"), 0.9, 0.0, 1.0]  # a missing one and a tie


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]


def assert_same(actual, expected, inputs):
    torch.testing.assert_close(actual, expected)
    for mine, theirs in zip(torch.autograd.grad(actual, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_score_mse(vectors, mapping):
    a, p = vectors
    rows = [(MAPPINGS[mapping](cosine(a[i], p[i])) - s) ** 2 for i, s in enumerate(SCORES) if not math.isnan(s)]
    actual = ScoreMSE(mapping=mapping)(PairBatch(a, p, scores=torch.tensor(SCORES, dtype=torch.float64)))
    assert actual[2] == 0
    assert_same(actual.sum() / 5, sum(rows) / 5, vectors)


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("margin", [0.05, 0.5])
def test_pairwise_rank(vectors, mapping, margin):
    a, p = vectors
    similarity = [MAPPINGS[mapping](cosine(a[i], p[i])) for i in range(6)]
    ordered = [(i, j) for i, j in itertools.product(range(6), repeat=2) if SCORES[i] > SCORES[j]]
    expected = sum((margin - (similarity[i] - similarity[j])).clamp(min=0) for i, j in ordered) / len(ordered)
    scores = torch.tensor(SCORES, dtype=torch.float64)
    actual = PairwiseRank(margin=margin, mapping=mapping)(PairBatch(a, p, scores=scores))
    assert len(ordered) == 9 and actual[2] == 0
    assert_same(actual.sum() / 5, expected, vectors)


def test_pairs_in_order(vectors):
    a, p = (column.detach() for column in vectors)
    a[4], p[4], a[0], p[0] = a[1], p[1], a[5], p[5]  # two pairs of rows with equal cosines: not in order
    order = [(i, j) for i, j in itertools.product(range(6), repeat=2) if SCORES[i] > SCORES[j]]
    right = sum(cosine(a[i], p[i]) > cosine(a[j], p[j]) for i, j in order if {i, j} not in ({4, 1}, {0, 5}))
    counts = PairwiseRank.in_order(PairBatch(a, p, scores=torch.tensor(SCORES, dtype=torch.float64)))
    assert [int(count) for count in counts] == [int(right), 9] and 0 < right < 9


def test_cosine_alignment(vectors):
    a, p = vectors
    expected = sum(1 - cosine(a[i], p[i]) for i in range(6)) / 6
    assert_same(CosineAlignment()(PairBatch(a, p)).mean(), expected, vectors)


@pytest.mark.parametrize("margin_scale", ["logit", "cosine"])
@pytest.mark.parametrize("margin", [0.2, 30.0])
def test_hardest_negative_margin(vectors, margin_scale, margin):
    a, p = vectors
    scale = 0.07 if margin_scale == "logit" else 1.0
    _, negative, _ = naive_masks(ANCHORS, POSITIVES, [], "mask", True)
    rows = []
    for i in range(6):
        hardest = max(cosine(a[i], p[j]) for j in range(6) if negative[i, j])
        rows.append(((hardest - cosine(a[i], p[i])) / scale + margin).clamp(min=0))
    known = {"anchor_ids": ids(ANCHORS), "candidate_ids": ids(POSITIVES), "same_anchor": "mask"}
    actual = HardestNegativeMargin(margin=margin, margin_scale=margin_scale)(PairBatch(a, p, **known))
    assert_same(actual.mean(), sum(rows) / 6, vectors)


def test_a_margin_of_logits_is_a_small_margin_of_cosine():
    """0.2 in units of cos/0.07 is 0.014 of cosine."""
    a = torch.randn(5, 3)
    pairs = PairBatch(a, torch.randn(5, 3))
    in_logits = HardestNegativeMargin(margin=0.2, temperature=0.07)(pairs) * 0.07
    torch.testing.assert_close(in_logits, HardestNegativeMargin(margin=0.014, margin_scale="cosine")(pairs))


TERMS = [ScoreMSE(), PairwiseRank(), CosineAlignment(), HardestNegativeMargin()]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
@pytest.mark.parametrize(
    ("rows", "scores", "same_text"),
    [(1, [0.5], False), (3, [0.5] * 3, False), (3, [float("nan")] * 3, False), (3, [0.0, 0.5, 1.0], True)],
    ids=["one row", "ties", "no score", "all duplicates"],
)
def test_degenerate_batches_are_finite_and_connected(term, rows, scores, same_text):
    a, p = torch.randn(rows, 4, requires_grad=True), torch.randn(rows, 4, requires_grad=True)
    texts = torch.zeros(rows, dtype=torch.long) if same_text else torch.arange(rows)
    pairs = PairBatch(a, p, anchor_ids=texts, candidate_ids=texts + 10, scores=torch.tensor(scores))
    loss = term(pairs)
    assert loss.shape == (rows,) and loss.isfinite().all()
    loss.sum().backward()
    assert a.grad.isfinite().all() and p.grad.isfinite().all()
    if isinstance(term, HardestNegativeMargin) and (rows == 1 or same_text):
        assert loss.abs().sum() == 0


def test_a_constant_predictor_has_the_margin_as_ranking_loss():
    same = torch.ones(4, 3)
    loss = PairwiseRank(margin=0.05)(PairBatch(same, same, scores=torch.tensor([0.0, 0.3, 0.6, 1.0])))
    assert loss.mean().item() == pytest.approx(0.05)


def test_bad_arguments():
    for term in (ScoreMSE, PairwiseRank):
        with pytest.raises(ValueError, match="mapping"):
            term(mapping="linear")
        with pytest.raises(ValueError, match="needs a score"):
            term()(PairBatch(torch.eye(2), torch.eye(2)))
    with pytest.raises(ValueError, match="margin_scale"):
        HardestNegativeMargin(margin_scale="degrees")
    for temperature in (-1, 0):
        with pytest.raises(ValueError, match="temperature"):
            HardestNegativeMargin(temperature=temperature)
