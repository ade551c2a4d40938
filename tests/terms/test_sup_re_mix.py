"""`SupReMix` against a loop over its equation with every mixture made by hand, and against SupCon."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.sup_re_mix import SupReMix
from tests.helpers.naive import ANCHORS, POSITIVES
from tests.helpers.term_checks import (
    SCORES,
    assert_fp32_inside,
    assert_own_rows,
    assert_same,
    degenerate,
    make_batch,
    run_degenerate,
    unit,
)


def naive(a, p, scores, same_pair, mix, temperature):
    z = [unit(unit(x) * unit(y)) for x, y in zip(a, p, strict=True)]
    losses = []
    for i, own in enumerate(scores):
        others = [j for j, s in enumerate(scores) if not same_pair(i, j) and not math.isnan(own) and not math.isnan(s)]
        below = [j for j in others if scores[j] < own]
        above = [j for j in others if scores[j] > own]
        j = max(below, key=lambda j: (scores[j], -j)) if below else None  # the nearest one, and the first of those
        k = min(above, key=lambda k: (scores[k], k)) if above else None
        keys = [(z[c], scores[c]) for c in others]
        for c in (j, k):
            if c is not None:
                keys.append((unit(mix * z[i] + (1 - mix) * z[c]).detach(), mix * own + (1 - mix) * scores[c]))
        positives = [c for c, other in enumerate(others) if scores[other] == own]
        if j is not None and k is not None:
            alpha = (scores[k] - own) / (scores[k] - scores[j])
            assert alpha * scores[j] + (1 - alpha) * scores[k] == pytest.approx(own)
            positives.append(len(keys))
            keys.append((unit(alpha * z[j] + (1 - alpha) * z[k]).detach(), own))
        powers = [(abs(y - own) + 1) * (z[i] @ key / temperature).exp() for key, y in keys]
        if positives and len(positives) < len(keys):
            losses.append(-sum((powers[c] / sum(powers)).log() for c in positives) / len(positives))
        else:
            losses.append(0 * a.sum())
    return losses


@pytest.mark.parametrize("mix", [0.2, 0.5])
@pytest.mark.parametrize("scores", [SCORES, [0.1, 0.2, 0.4, 0.5, 0.7, 1.0], [0.0, 0.5, 0.5, 0.5, 1.0, 1.0]])
def test_equals_the_naive_loop(scores, mix):
    pairs, inputs = make_batch(texts=False, scores=torch.tensor(scores, dtype=torch.float64))
    expected = naive(pairs.anchors, pairs.positives, scores, lambda i, j: i == j, mix, 0.3)
    assert sum(loss.item() > 0 for loss in expected) >= 3
    assert_same(SupReMix(temperature=0.3, mix=mix)(pairs), expected, inputs)


@pytest.mark.parametrize("mask_duplicates", [True, False])
def test_repeated_pairs_are_no_candidates(mask_duplicates):
    """Rows 0 and 4 have the same texts; rows 0 and 3 have them the other way round."""
    scores = [0.5, 0.9, 0.7, 0.4, 0.45, 0.6]
    anchors, positives = ["a", "b", "c", "p", "a", "b"], ["p", "q", "p", "a", "p", "c"]
    number = {text: i for i, text in enumerate("abcdpqr")}
    ids = {
        "anchor_ids": torch.tensor([number[text] for text in anchors]),
        "candidate_ids": torch.tensor([number[text] for text in positives]),
    }
    pairs, inputs = make_batch(
        0, 0, texts=False, scores=torch.tensor(scores, dtype=torch.float64), mask_duplicates=mask_duplicates, **ids
    )

    def same_pair(i, j):
        texts = [frozenset((anchors[r], positives[r])) for r in (i, j)]
        return i == j or (mask_duplicates and texts[0] == texts[1])

    assert same_pair(0, 3) == same_pair(0, 4) == mask_duplicates
    assert_same(SupReMix(temperature=0.3)(pairs), naive(*inputs, scores, same_pair, 0.2, 0.3), inputs)


def test_texts_of_the_shared_batch():
    """ANCHORS and POSITIVES repeat rows 0 and 4."""
    pairs, inputs = make_batch()
    texts = list(zip(ANCHORS, POSITIVES, strict=True))
    expected = naive(*inputs[:2], SCORES, lambda i, j: set(texts[i]) == set(texts[j]), 0.2, 0.5)
    assert_same(SupReMix()(pairs), expected, inputs)


def test_mixtures_take_no_gradient():
    """Finite differences of the loss with the mixtures held where they were."""
    pairs, (a, p, *_) = make_batch(texts=False, scores=torch.linspace(0, 1, 6, dtype=torch.float64))
    term, held = SupReMix(temperature=0.5), {}

    def loss(a, p):
        batch = PairBatch(a, p, scores=pairs.scores)
        make = type(term)._mixtures

        class Held(SupReMix):
            def _mixtures(self, z, gap, pairs):
                held.setdefault("mixtures", tuple(part.detach() for part in make(self, z, gap, pairs)))
                return held["mixtures"]

        return Held(temperature=0.5)(batch)

    torch.testing.assert_close(loss(a, p), term(pairs))
    assert torch.autograd.gradcheck(loss, (a, p))
    mine, theirs = (torch.autograd.grad(value.sum(), (a, p)) for value in (term(pairs), loss(a, p)))
    torch.testing.assert_close(mine, theirs)


def test_the_same_twice():
    """No random draw: the generator's state neither matters nor changes."""
    pairs, _ = make_batch()
    first, state = SupReMix()(pairs), torch.get_rng_state()
    torch.manual_seed(123)
    assert torch.equal(SupReMix()(pairs), first)
    torch.set_rng_state(state)
    SupReMix()(pairs)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_scores_are_supervised_contrastive_learning_with_weights():
    """Nothing lies between two scores, so there is no hard positive; a positive that is alike is what is wanted."""
    a = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, -2.0], [1.0, -2.0]])
    scores = torch.tensor([0.0, 0.0, 1.0, 1.0])
    good = SupReMix()(PairBatch(a, torch.ones(4, 2), scores=scores))
    bad = SupReMix()(PairBatch(a[[0, 2, 1, 3]], torch.ones(4, 2), scores=scores))
    assert good.max() < bad.min()


def test_own_rows():
    assert_own_rows(SupReMix())


@degenerate
@pytest.mark.parametrize("texts", ["different", "same"])
def test_degenerate_batches(name, texts):
    loss, _ = run_degenerate(SupReMix(), name, texts)
    if texts == "same" or name in ("one row", "no score", "one score", "ties"):
        assert loss.abs().sum() == 0


def test_bf16_and_autocast():
    assert_fp32_inside(SupReMix())


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0\.0"):
        SupReMix(temperature=0.0)
    for mix in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"mix must be between 0 and 1, got {mix}"):
            SupReMix(mix=mix)
    with pytest.raises(ValueError, match="needs a score"):
        SupReMix()(PairBatch(torch.eye(2), torch.eye(2)))


def test_a_pair_without_a_common_dimension_has_no_gradient():
    """Its z is a zero vector, without a direction."""
    anchors, positives = torch.ones(3, 4), torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    anchors[1, :2], positives[1, 2:] = 0, 0
    vectors = [anchors.requires_grad_(), positives.requires_grad_()]
    SupReMix()(PairBatch(*vectors, scores=torch.tensor([0.0, 0.5, 1.0]))).sum().backward()
    for vector in vectors:
        assert (vector.grad[1] == 0).all() and vector.grad.abs().max() < 100
