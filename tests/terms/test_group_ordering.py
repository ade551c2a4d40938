"""`GroupOrdering` against whole permutation matrices, one row, layer and comparison at a time."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.group_ordering import GroupOrdering
from tests.helpers.naive import ANCHORS, MORE, POSITIVES
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


def naive_row(negatives, positives, top_k, steepness):
    """Sort by matrices: every layer is one, and their product is the permutation matrix."""
    negatives = sorted(negatives, key=torch.Tensor.item)[-top_k:]
    values = [*negatives, *sorted(positives, key=torch.Tensor.item)]
    size = len(values)
    permutation = torch.eye(size, dtype=torch.float64)
    for layer in range(size):
        matrix = torch.eye(size, dtype=torch.float64)
        for lower in range(layer % 2, size - 1, 2):
            keep = torch.atan(steepness * (values[lower + 1] - values[lower])) / math.pi + 0.5
            block = torch.stack([torch.stack([keep, 1 - keep]), torch.stack([1 - keep, keep])])
            inner = torch.zeros(size, size, dtype=torch.float64)
            inner[lower : lower + 2, lower : lower + 2] = 1
            spread = torch.zeros(size, 2, dtype=torch.float64)
            spread[lower, 0] = spread[lower + 1, 1] = 1
            matrix = matrix * (1 - inner) + spread @ block @ spread.T
        values = [sum(matrix[place, e] * values[e] for e in range(size)) for place in range(size)]
        permutation = matrix @ permutation
    assert torch.allclose(permutation.sum(dim=0), torch.ones(size, dtype=torch.float64))
    loss = 0
    for e in range(size):
        mass = permutation[len(negatives) :, e].sum()
        target = torch.tensor(float(e >= len(negatives)), dtype=torch.float64)
        loss = loss + torch.nn.functional.binary_cross_entropy(mass, target) / size
    return loss


@pytest.mark.parametrize("top_k", [1, 3, 100])
@pytest.mark.parametrize("same_anchor", ["positive", "mask"])  # the first: rows differ in their number of positives
@pytest.mark.parametrize("more", [0, 1])
def test_equals_the_naive_loop(more, same_anchor, top_k):
    pairs, inputs = make_batch(more, negatives=1 - more, same_anchor=same_anchor)
    positive, negative, _ = masks_of(pairs)
    counts = negative.sum(dim=1)
    assert len(counts.unique()) > 1  # with top_k = 100, each row has a network of its own size
    losses = []
    for i, anchor in enumerate(pairs.anchors):
        cosines = [unit(anchor) @ unit(c) for c in columns_of(pairs)]
        losses.append(
            naive_row(
                [s for s, is_one in zip(cosines, negative[i], strict=True) if is_one],
                [s for s, is_one in zip(cosines, positive[i], strict=True) if is_one],
                top_k,
                4.0,
            )
        )
    assert_same(GroupOrdering(top_k=top_k, steepness=4.0)(pairs), losses, inputs)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
def test_the_other_anchors_as_negatives(same_anchor, detach):
    """As the released settings have it: positives above other anchors, and the anchor alone moves."""
    pairs, inputs = make_batch(more=1, same_anchor=same_anchor)
    positive, negative, _ = masks_of(pairs)
    losses = []
    for i, anchor in enumerate(pairs.anchors):
        own = {ANCHORS[i], POSITIVES[i], MORE[0][i]}
        items = [j for j in range(6) if negative[i, j] and negative[i, 6 + j] and ANCHORS[j] not in own]
        others, columns = pairs.anchors, columns_of(pairs)
        if detach:
            others, columns = others.detach(), [column.detach() for column in columns]
        negatives = [unit(anchor) @ unit(others[j]) for j in items]
        positives = [unit(anchor) @ unit(c) for c, is_one in zip(columns, positive[i], strict=True) if is_one]
        losses.append(naive_row(negatives, positives, 3, 4.0) if items else 0 * anchor.sum())
    assert sum(loss.item() > 0 for loss in losses) >= 3
    term = GroupOrdering(top_k=3, steepness=4.0, detach_candidates=detach, negatives="anchors")
    assert_same(term(pairs), losses, inputs)


@pytest.mark.parametrize("negatives", ["candidates", "anchors"])
def test_detached_candidates_change_the_gradient_alone(negatives):
    pairs, inputs = make_batch()
    terms = [GroupOrdering(top_k=3, detach_candidates=detach, negatives=negatives) for detach in (False, True)]
    plain, detached = (term(pairs) for term in terms)
    torch.testing.assert_close(plain, detached)
    grads = torch.autograd.grad(detached.sum(), inputs, allow_unused=True)
    assert grads[0].abs().sum() > 0 and all(grad is None for grad in grads[1:])


@pytest.mark.slow
def test_gradient_by_finite_differences():
    def loss(a, p, n, more):
        return GroupOrdering(top_k=4, steepness=2.0)(PairBatch(a, p, n, more))

    assert torch.autograd.gradcheck(loss, make_batch(texts=False)[1])


def test_fewer_negatives_than_top_k_change_nothing():
    pairs, _ = make_batch()
    fewest, most = (int(f(pairs.anchor_view.negative.sum(dim=1))) for f in (min, max))
    assert fewest < most
    losses = {k: GroupOrdering(top_k=k)(pairs) for k in (fewest, most, 10 * most)}
    row = pairs.anchor_view.negative.sum(dim=1).argmin()
    torch.testing.assert_close(losses[fewest][row], losses[most][row])
    torch.testing.assert_close(losses[most], losses[10 * most])


def test_the_right_order_costs_nothing_and_the_wrong_one_much():
    a = torch.eye(5, dtype=torch.float64)
    right = GroupOrdering(steepness=1e7)(PairBatch(a, a))
    assert right.max() < 1e-5
    # Each row finds its own positive least similar and must bring it above four negatives.
    wrong = GroupOrdering(steepness=1e7)(PairBatch(a, 1 - a))
    assert wrong.min() > 1
    steep = [GroupOrdering(steepness=s)(PairBatch(a, a)).mean() for s in (1.0, 10.0, 100.0)]
    assert steep == sorted(steep, reverse=True)


@pytest.mark.parametrize("negatives", ["candidates", "anchors"])
def test_own_rows(negatives):
    assert_own_rows(GroupOrdering(top_k=3, negatives=negatives))


@degenerate
@pytest.mark.parametrize("texts", ["different", "same"])
@pytest.mark.parametrize("steepness", [1.0, 1e9])
def test_degenerate_batches(name, texts, steepness):
    loss, vectors = run_degenerate(GroupOrdering(steepness=steepness), name, texts)
    if texts == "same" or "without negatives" in name:
        assert loss.abs().sum() == 0
        assert all(vector.grad is None or vector.grad.abs().sum() == 0 for vector in vectors)


def test_bf16_and_autocast():
    assert_fp32_inside(GroupOrdering())


def test_bad_arguments():
    with pytest.raises(ValueError, match="top_k must be a whole number of at least 1, got 0"):
        GroupOrdering(top_k=0)
    with pytest.raises(ValueError, match=r"negatives must be one of \('candidates', 'anchors'\), got 'all'"):
        GroupOrdering(negatives="all")
    with pytest.raises(ValueError, match=r"steepness must be positive, got 0\.0"):
        GroupOrdering(steepness=0.0)
