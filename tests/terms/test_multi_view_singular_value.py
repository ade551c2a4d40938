"""`MultiViewSingularValue` against torch's SVD, one item at a time, and where that has no gradient."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.multi_view_singular_value import MultiViewSingularValue
from tests.helpers.naive import ANCHORS, MORE, POSITIVES
from tests.helpers.term_checks import (
    assert_fp32_inside,
    assert_own_rows,
    assert_same,
    degenerate,
    make_batch,
    masks_of,
    run_degenerate,
    unit,
)


def naive_directions(pairs):
    values, directions = [], []
    for i in range(len(pairs.anchors)):
        views = torch.stack([unit(view[i]) for view in pairs.anchors_and_positives])
        _, sigma, right = torch.linalg.svd(views, full_matrices=False)
        towards = views.sum(dim=0) @ right[0]
        if abs(towards) < 1e-6:
            towards = views[0] @ right[0]
        values.append(sigma)
        directions.append(right[0] if towards > 0 else -right[0])
    return values, directions


def naive(pairs, is_negative, tau_1, tau_2):
    values, directions = naive_directions(pairs)
    losses = []
    for i, (sigma, u) in enumerate(zip(values, directions, strict=True)):
        first = -((sigma[0] / tau_1).exp() / sum((s / tau_1).exp() for s in sigma)).log()
        powers = [(u @ v / tau_2).exp() for j, v in enumerate(directions) if j == i or is_negative(i, j)]
        losses.append(first - ((u @ u / tau_2).exp() / sum(powers)).log())
    return losses


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("more", [0, 1, 2])  # two to four views; D is 4
def test_equals_the_naive_loop(more, texts):
    pairs, inputs = make_batch(more, negatives=1, texts=texts)
    _, negative, _ = masks_of(pairs)
    columns = [POSITIVES, *MORE[:more]]

    def is_negative(i, j):
        if not texts:
            return i != j
        says_so = ANCHORS[j] in {column[i] for column in columns}
        return all(negative[i, j + 6 * c] for c in range(1 + more)) and not says_so

    count = sum(is_negative(i, j) for i in range(6) for j in range(6))
    assert 0 < count < 30 if texts else count == 30
    cosine = (pairs.cosine < 0).sum()
    assert 0 < cosine < 6  # with two views, some of each sign
    assert_same(
        MultiViewSingularValue(singular_temperature=0.5, temperature=0.3)(pairs),
        naive(pairs, is_negative, 0.5, 0.3),
        inputs,
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("more", [0, 2])
def test_gradient_by_finite_differences(more):
    def loss(*vectors):
        return MultiViewSingularValue(singular_temperature=0.5, temperature=0.3)(
            PairBatch(*vectors[:2], more_positives=(*vectors, None)[2])
        )

    assert torch.autograd.gradcheck(loss, make_batch(more, negatives=0, texts=False)[1])


@pytest.mark.parametrize("more", [0, 1])
def test_a_common_rotation_of_all_views_changes_nothing(more):
    pairs, _ = make_batch(more)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    turned = PairBatch(
        pairs.anchors @ rotation,
        pairs.positives @ rotation,
        more_positives=pairs.more_positives @ rotation if more else None,
    )
    plain = PairBatch(pairs.anchors, pairs.positives, more_positives=pairs.more_positives)
    torch.testing.assert_close(MultiViewSingularValue()(turned), MultiViewSingularValue()(plain))
    # Turning the anchors alone is another matter.
    half = PairBatch(pairs.anchors @ rotation, pairs.positives, more_positives=pairs.more_positives)
    assert (MultiViewSingularValue()(half) - MultiViewSingularValue()(plain)).abs().max() > 0.1


def test_aligned_views_and_orthogonal_items_are_the_minimum():
    a = torch.eye(4, dtype=torch.float64)
    loss = MultiViewSingularValue(singular_temperature=0.1, temperature=0.07)(PairBatch(a, a, more_positives=a[None]))
    expected = math.log1p(2 * math.exp(-math.sqrt(3) / 0.1)) + math.log1p(3 * math.exp(-1 / 0.07))
    torch.testing.assert_close(loss, torch.full((4,), expected, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("cosine", [1.0, 0.0, -1.0, 1 - 1e-7, 1e-7, -1e-7])
def test_gradient_is_finite_where_the_decomposition_has_none(cosine):
    """Two views: singular values √(1 ± cos), one of them 0, or both equal. In fp32."""
    angle = math.acos(cosine)
    a = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]], requires_grad=True)
    other = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    p = (math.cos(angle) * a.detach() + math.sin(angle) * other).requires_grad_()
    loss = MultiViewSingularValue()(PairBatch(a, p))
    loss.sum().backward()
    assert loss.isfinite().all()
    for grad in (a.grad, p.grad):
        assert grad.isfinite().all() and grad.abs().max() < 1e6


def test_three_views_of_which_two_are_equal():
    """The two least singular values are those of a plane and 0; and three orthogonal views are all equal."""
    a = torch.eye(3)[[0, 1]].requires_grad_()
    for p, q in ((a, torch.eye(3)[[1, 2]]), (torch.eye(3)[[1, 2]], torch.eye(3)[[2, 0]])):
        (grad,) = torch.autograd.grad(MultiViewSingularValue()(PairBatch(a, p, more_positives=q[None])).sum(), a)
        assert grad.isfinite().all() and grad.abs().max() < 1e6


def test_a_step_downhill_brings_the_views_together():
    pairs, _ = make_batch(more=1, negatives=0, texts=False)
    vectors = [pairs.anchors, pairs.positives, pairs.more_positives]
    vectors = [(v + pairs.anchors).detach().requires_grad_() for v in vectors]  # cosines above 0

    def batch():
        return PairBatch(vectors[0], vectors[1], more_positives=vectors[2])

    before = batch().own_candidates.mean()
    optimizer = torch.optim.SGD(vectors, lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        MultiViewSingularValue()(batch()).mean().backward()
        optimizer.step()
    assert batch().own_candidates.mean() > before + 0.05


def test_own_rows():
    assert_own_rows(MultiViewSingularValue())


@degenerate
@pytest.mark.parametrize("texts", ["different", "same"])
def test_degenerate_batches(name, texts):
    run_degenerate(MultiViewSingularValue(), name, texts)


def test_without_negatives_the_first_part_is_left():
    a, p = torch.eye(2)[:1], torch.tensor([[0.6, 0.8]])
    sigma = [math.sqrt(1.6) / 0.5, math.sqrt(0.4) / 0.5]
    expected = math.log1p(math.exp(sigma[1] - sigma[0]))
    assert MultiViewSingularValue()(PairBatch(a, p)).item() == pytest.approx(expected, rel=1e-4)
    known = {"anchor_ids": torch.tensor([1, 1]), "candidate_ids": torch.tensor([2, 3])}
    loss = MultiViewSingularValue()(PairBatch(a.repeat(2, 1), p.repeat(2, 1), **known))
    assert loss.tolist() == pytest.approx([expected] * 2, rel=1e-4)


def test_bf16_and_autocast():
    assert_fp32_inside(MultiViewSingularValue())


def test_bad_arguments():
    for name in ("singular_temperature", "temperature"):
        with pytest.raises(ValueError, match=f"^{name} must be positive, got 0"):
            MultiViewSingularValue(**{name: 0})
