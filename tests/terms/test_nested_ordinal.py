"""`NestedOrdinal` against a loop over its equation, and against plain ordinal and logistic regression."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.nested_ordinal import NestedOrdinal
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

SETTINGS = {
    1: NestedOrdinal(levels=(0.5,), shares=(0.3,), scale=20.0),  # one threshold: no bound on the scale
    2: NestedOrdinal(levels=(0.2, 0.9), shares=(0.7, 0.25), scale=1.9),
    4: NestedOrdinal(levels=(0.1, 0.2, 0.6, 1.0), shares=(0.9, 0.6, 0.3, 0.1), scale=1.2),
}


def naive(a, p, term, score):
    """The sum over the first 1 … K thresholds of plain ordinal regression, with the levels above merged into one."""
    count = len(term.levels)
    size = len(a) // count
    a, p = unit(a), unit(p)
    parts = [(a[j * size : (j + 1) * size] * p[j * size : (j + 1) * size]).sum() for j in range(count)]
    reach = [torch.tensor(1.0, dtype=torch.float64)]
    for k, share in enumerate(term.shares):
        x = term.scale * sum(parts[: k + 1]) + math.log(share / (1 - share))
        reach.append(1 / (1 + (-x).exp()))
    none = torch.tensor(0.0, dtype=torch.float64)
    level = sum(score >= threshold for threshold in term.levels)
    loss = 0
    for n in range(1, count + 1):
        first_n = [*reach[: n + 1], none]
        merged = min(level, n)
        loss = loss - (first_n[merged] - first_n[merged + 1]).log()
    return loss


@pytest.mark.parametrize("count", SETTINGS)
def test_equals_the_naive_loop(count):
    term, scores = SETTINGS[count], [*SCORES[:5], 1.0]
    pairs, inputs = make_batch(scores=torch.tensor(scores, dtype=torch.float64))
    zero = 0 * pairs.anchors.sum()
    losses = [
        zero if math.isnan(score) else naive(pairs.anchors[i], pairs.positives[i], term, score)
        for i, score in enumerate(scores)
    ]
    assert_same(term(pairs), losses, inputs)


@pytest.mark.parametrize("count", SETTINGS)
def test_gradient_by_finite_differences(count):
    a, p = make_batch(texts=False)[1][:2]
    scores = torch.tensor([0.0, 0.15, 0.3, 0.6, 0.95, 1.0])
    assert torch.autograd.gradcheck(lambda a, p: SETTINGS[count](PairBatch(a, p, scores=scores)), (a, p))


def test_one_threshold_is_logistic_regression():
    pairs, _ = make_batch()
    reached = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    loss = SETTINGS[1](PairBatch(pairs.anchors, pairs.positives, scores=reached))
    logits = 20.0 * pairs.cosine + math.log(0.3 / 0.7)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, reached, reduction="none")
    torch.testing.assert_close(loss, expected)


def test_the_loss_is_that_of_the_released_code_for_two_levels():
    """Its two steps: clicked or not; then nothing, clicked, or bought."""
    pairs, _ = make_batch()
    clicked, bought = torch.tensor([[0.0, 1, 1, 0, 1, 1], [0.0, 0, 1, 0, 1, 0]], dtype=torch.float64)
    term = SETTINGS[2]
    offsets = torch.tensor([-math.log(share / (1 - share)) for share in term.shares], dtype=torch.float64)
    p = (term.scale * term.nested_cosine(pairs) - offsets).sigmoid()
    first = -((1 - clicked) * (1 - p[:, 0]).log() + clicked * p[:, 0].log())
    second = -(
        (1 - clicked) * (1 - p[:, 0]).log() + (clicked - bought) * (p[:, 0] - p[:, 1]).log() + bought * p[:, 1].log()
    )
    scores = 0.5 * clicked + 0.5 * bought
    torch.testing.assert_close(term(PairBatch(pairs.anchors, pairs.positives, scores=scores)), first + second)


def test_the_last_nested_cosine_is_the_cosine():
    pairs, _ = make_batch()
    nested = SETTINGS[4].nested_cosine(pairs)
    torch.testing.assert_close(nested[:, -1], pairs.own_cosine)
    front = (
        torch.nn.functional.normalize(pairs.anchors, dim=1)[:, :1]
        * torch.nn.functional.normalize(pairs.positives, dim=1)[:, :1]
    )
    torch.testing.assert_close(nested[:, :1], front)


def test_shares_are_what_orthogonal_pairs_predict():
    """At cosine 0 the model knows nothing: P(y ≥ k) is p_k, in the sum of the first and of both thresholds."""
    a, p = torch.tensor([[1.0, 0, 0, 0]]).repeat(3, 1), torch.tensor([[0, 1.0, 0, 0]]).repeat(3, 1)
    term = NestedOrdinal(levels=(0.4, 0.8), shares=(0.6, 0.2))
    loss = term(PairBatch(a, p, scores=torch.tensor([0.0, 0.4, 0.8])))
    torch.testing.assert_close((-loss).exp(), torch.tensor([0.4 * 0.4, 0.6 * 0.4, 0.6 * 0.2]))


def test_near_the_bound_of_the_scale_the_loss_is_finite():
    """All of the cosine in the second chunk: the middle level has next to no room."""
    step = math.log(0.6 / 0.4) - math.log(0.2 / 0.8)
    vectors = torch.tensor([[0.0, 0.0, 1.0, 0.0]], requires_grad=True)
    term = NestedOrdinal(levels=(0.4, 0.8), shares=(0.6, 0.2), scale=step * (1 - 1e-12))
    loss = term(PairBatch(vectors, vectors, scores=torch.tensor([0.5])))
    loss.backward()
    assert 10 < loss.item() < 30 and vectors.grad.isfinite().all()


def test_own_rows():
    assert_own_rows(NestedOrdinal())


@degenerate
def test_degenerate_batches(name):
    loss, _ = run_degenerate(NestedOrdinal(), name)
    if name == "no score":
        assert loss.abs().sum() == 0


def test_bf16_and_autocast():
    assert_fp32_inside(NestedOrdinal())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": ()}, "levels must be increasing"),
        ({"levels": (0.8, 0.4)}, "levels must be increasing"),
        ({"levels": (0.0, 0.4)}, "levels must be increasing"),
        ({"levels": (0.4, 1.5)}, "levels must be increasing"),
        ({"shares": (0.5,)}, "one for each of the 2 levels"),
        ({"shares": (0.2, 0.6)}, "shares must be decreasing"),
        ({"shares": (1.0, 0.6)}, "shares must be decreasing"),
        ({"shares": (0.6, 0.0)}, "shares must be decreasing"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": 1.8}, r"smaller than 1\.792.* got 1\.8"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        NestedOrdinal(**arguments)


def test_what_a_batch_must_have():
    with pytest.raises(ValueError, match="needs a score"):
        NestedOrdinal()(PairBatch(torch.eye(2), torch.eye(2)))
    with pytest.raises(ValueError, match="divisible by the 2 levels, got 3"):
        NestedOrdinal()(PairBatch(torch.eye(3), torch.eye(3), scores=torch.ones(3)))
