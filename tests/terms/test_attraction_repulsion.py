"""`AttractionRepulsion` against a loop over its equation, and against plain alignment."""

from __future__ import annotations

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.attraction_repulsion import AttractionRepulsion
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


def weighted(distances, scale, detach):
    powers = [(scale * (d.detach() if detach else d)).exp() for d in distances]
    return sum(power / sum(powers) * d for power, d in zip(powers, distances, strict=True))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("same_anchor", ["positive", "mask"])
@pytest.mark.parametrize("more", [0, 1])
def test_equals_the_naive_loop(more, same_anchor, detach):
    pairs, inputs = make_batch(more, same_anchor=same_anchor)
    positive, negative, _ = masks_of(pairs)
    losses = []
    for i, anchor in enumerate(pairs.anchors):
        distances = [((unit(anchor) - unit(c)) ** 2).sum() for c in columns_of(pairs)]
        near = weighted([d for d, is_one in zip(distances, positive[i], strict=True) if is_one], 1.5, detach)
        far = weighted([d for d, is_one in zip(distances, negative[i], strict=True) if is_one], -3.0, detach)
        losses.append(near - far)
    assert_same(
        AttractionRepulsion(positive_scale=1.5, negative_scale=3.0, detach_weights=detach)(pairs), losses, inputs
    )


def test_gradient_by_finite_differences():
    def loss(a, p, n, more):
        return AttractionRepulsion()(PairBatch(a, p, n, more))

    assert torch.autograd.gradcheck(loss, make_batch(texts=False)[1])


def test_one_positive_is_plain_alignment():
    """The weight is constant 1, for the gradient as well; a second positive makes the difference."""
    term = AttractionRepulsion(positive_scale=5.0)
    pairs, inputs = make_batch(more=0, same_anchor="mask")
    alignment = (unit_rows(pairs.anchors) - unit_rows(pairs.positives)).square().sum(dim=1)
    assert_same(term.attraction(pairs.anchor_view), list(alignment), inputs)

    pairs, inputs = make_batch(more=1, same_anchor="mask")
    mean = (2 - 2 * pairs.own_candidates[:, :2]).mean(dim=1)
    assert (term.attraction(pairs.anchor_view) > mean).all()  # the farther one counts more
    assert_same(AttractionRepulsion(positive_scale=0.0).attraction(pairs.anchor_view), list(mean), inputs)


def unit_rows(vectors):
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_own_rows():
    assert_own_rows(AttractionRepulsion())


@degenerate
@pytest.mark.parametrize("texts", ["different", "same"])
def test_degenerate_batches(name, texts):
    loss, vectors = run_degenerate(AttractionRepulsion(), name, texts)
    if texts == "same" or "without negatives" in name:
        assert loss.abs().sum() == 0
        assert all(vector.grad is None or vector.grad.abs().sum() == 0 for vector in vectors)


def test_bf16_and_autocast():
    assert_fp32_inside(AttractionRepulsion())


def test_bad_arguments():
    for name in ("positive_scale", "negative_scale"):
        with pytest.raises(ValueError, match=f"{name} must be 0 or more, got -1"):
            AttractionRepulsion(**{name: -1})
