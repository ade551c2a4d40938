"""`WeightedNegatives` against `InfoNCE`, a loop over its equation, and a k-means by hand."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import InfoNCE, PairBatch
from st_vi.terms.weighted_negatives import WeightedNegatives
from tests.helpers.term_checks import (
    assert_fp32_inside,
    assert_own_rows,
    assert_same,
    columns_of,
    degenerate,
    make_batch,
    masks_of,
    run_degenerate,
    unit,
)


def naive_clusters(vectors, count, rounds):
    vectors = [unit(v.detach()) for v in vectors]
    centres = [vectors[c * len(vectors) // count] for c in range(count)]
    for _ in range(rounds):
        labels = [max(range(count), key=lambda c: (v @ centres[c]).item()) for v in vectors]
        for c in range(count):
            members = [v for v, label in zip(vectors, labels, strict=True) if label == c]
            if members:
                centres[c] = unit(sum(members))
    return labels


def naive_weights(pairs, term):
    columns = columns_of(pairs)
    positive, negative, hard = masks_of(pairs)
    clusterings = [naive_clusters(columns, min(k, len(columns)), term.rounds) for k in term.num_clusters]
    weights = torch.ones(6, len(columns), dtype=torch.float64)
    for i in range(6):
        for n in range(len(columns)):
            if negative[i, n] and not (term.spare_hard and hard[i, n]):
                weights[i, n] = sum(
                    term.same_cluster_weight
                    if labels[n] in {labels[p] for p in range(len(columns)) if positive[i, p]}
                    else 1.0
                    for labels in clusterings
                ) / len(clusterings)
    return weights


TERMS = [
    WeightedNegatives(temperature=0.2, num_clusters=(3,), same_cluster_weight=0.25, rounds=1),
    WeightedNegatives(temperature=0.2, num_clusters=(2, 5, 100), same_cluster_weight=0.25, rounds=4),
    WeightedNegatives(temperature=0.2, num_clusters=(2, 4), same_cluster_weight=0.0, spare_hard=True),
]


@pytest.mark.parametrize("term", TERMS, ids=str)
@pytest.mark.parametrize("same_anchor", ["positive", "mask"])
@pytest.mark.parametrize("more", [0, 1])
def test_equals_the_naive_loop(more, same_anchor, term):
    pairs, inputs = make_batch(more, same_anchor=same_anchor)
    positive, negative, _ = masks_of(pairs)
    weights = naive_weights(pairs, term)
    torch.testing.assert_close(term.negative_weights(pairs), weights)
    assert 0 < (weights[negative] < 1).sum() < negative.sum()
    losses, columns = [], columns_of(pairs)
    for i, anchor in enumerate(pairs.anchors):
        powers = [(unit(anchor) @ unit(c) / term.temperature).exp() for c in columns]
        total = sum(weights[i, c] * powers[c] for c in range(len(columns)) if negative[i, c])
        own = [-(powers[c] / total).log() for c in range(len(columns)) if positive[i, c]]
        losses.append(sum(own) / len(own))
    assert_same(term(pairs), losses, inputs)


@pytest.mark.parametrize("same_anchor", ["mask", "negative"])
def test_weight_1_is_info_nce_without_the_positive_in_the_denominator(same_anchor):
    """InfoNCE is log(1 + N/p), with p the positive's part and N the negatives': this one is log(N/p)."""
    pairs, inputs = make_batch(0, same_anchor=same_anchor)
    term = WeightedNegatives(temperature=0.1, num_clusters=(2, 3, 7), same_cluster_weight=1.0)
    assert_same(term(pairs), list(InfoNCE(temperature=0.1)(pairs).expm1().log()), inputs)


def test_one_cluster_of_weight_0_leaves_nothing_to_contrast():
    pairs, inputs = make_batch(0, 0, texts=False)
    loss = WeightedNegatives(num_clusters=(1,), same_cluster_weight=0.0)(pairs)
    grads = torch.autograd.grad(loss.sum(), inputs)
    assert loss.abs().max() == 0 and all(grad.abs().max() == 0 for grad in grads)


def test_two_topics_are_two_clusters():
    """Candidates of two directions; a negative of the own topic weighs less, one of the other topic 1."""
    topic = torch.tensor([0, 1, 0, 1, 1, 0])
    generator = torch.Generator().manual_seed(0)
    p = torch.eye(2).repeat(1, 3)[topic] + 0.1 * torch.randn(6, 6, generator=generator)
    term = WeightedNegatives(num_clusters=(2,), same_cluster_weight=0.3)
    # The first centres are candidates 0 and 3, one of each topic.
    weights = term.negative_weights(PairBatch(torch.randn(6, 6, generator=generator), p))
    expected = torch.where(topic[:, None] == topic, 0.3, 1.0).fill_diagonal_(1.0)
    torch.testing.assert_close(weights, expected)


def test_an_empty_cluster_keeps_its_centre():
    """Both first centres are one vector, so that the second has no member in round 1; in round 2 it is the nearer."""
    p = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [1.0, 0.0, 0.0], [0.6, 0.0, 0.8]])
    term = WeightedNegatives(num_clusters=(2,), same_cluster_weight=0.3, rounds=2)
    cluster = torch.tensor([0, 1, 0, 1])
    expected = torch.where(cluster[:, None] == cluster, 0.3, 1.0).fill_diagonal_(1.0)
    torch.testing.assert_close(term.negative_weights(PairBatch(torch.ones(4, 3), p)), expected)


def test_rows_without_a_negative_that_weighs_something_give_0_and_others_their_loss():
    """Three of one direction, one of another: with two clusters, only the last row sees negatives, and is one."""
    p = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    anchors = p.clone().requires_grad_()
    pairs = PairBatch(anchors, p)
    loss = WeightedNegatives(temperature=1.0, num_clusters=(2,))(pairs)
    torch.testing.assert_close(loss, torch.tensor([0.0, 0.0, math.log(3), 0.0]) - torch.tensor([1.0, 1, 1, 1]))
    loss = WeightedNegatives(temperature=1.0, num_clusters=(1,))(pairs)
    assert loss.abs().max() == 0
    loss.sum().backward()
    assert anchors.grad.abs().max() == 0


@pytest.mark.slow
def test_gradient_does_not_flow_through_the_weights():
    pairs, inputs = make_batch()
    term = WeightedNegatives(temperature=0.2, num_clusters=(3,), same_cluster_weight=0.25)
    assert not term.negative_weights(pairs).requires_grad
    # Clusters do not change under small steps, so finite differences are the gradient with constant weights.
    assert torch.autograd.gradcheck(lambda *v: term(PairBatch(*v)), inputs)


def test_the_same_twice():
    pairs, _ = make_batch()
    first, state = WeightedNegatives()(pairs), torch.get_rng_state()
    assert torch.equal(WeightedNegatives()(pairs), first) and torch.equal(torch.get_rng_state(), state)


def test_own_rows():
    assert_own_rows(WeightedNegatives(num_clusters=(2, 3)))


@degenerate
@pytest.mark.parametrize("texts", ["different", "same"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_degenerate_batches(name, texts, weight):
    loss, vectors = run_degenerate(WeightedNegatives(same_cluster_weight=weight), name, texts)
    if texts == "same" or "without negatives" in name:
        assert loss.abs().sum() == 0
        assert all(vector.grad is None or vector.grad.abs().sum() == 0 for vector in vectors)


def test_bf16_and_autocast():
    assert_fp32_inside(WeightedNegatives(num_clusters=(3,)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"num_clusters": ()}, "num_clusters must be one or more numbers"),
        ({"num_clusters": (4, 0)}, "num_clusters must be a whole number of at least 1, got 0"),
        ({"same_cluster_weight": 1.5}, "same_cluster_weight must be in"),
        ({"same_cluster_weight": -0.1}, "same_cluster_weight must be in"),
        ({"rounds": 0}, "rounds must be a whole number of at least 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightedNegatives(**arguments)
