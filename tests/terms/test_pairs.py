"""`PairBatch` against a naive loop over the definition of who is a positive and who a negative."""

from __future__ import annotations

import pytest
import torch

from st_vi.terms import InfoNCE, PairBatch
from tests.helpers.naive import ANCHORS, MORE, NEGATIVES, POSITIVES, ids, naive_masks
from tests.helpers.term_checks import every_term, make_batch


@pytest.mark.parametrize("mask_duplicates", [True, False])
@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("more", [0, 1, 2])
def test_masks_equal_the_naive_loop(same_anchor, mask_duplicates, count, more):
    generator = torch.Generator().manual_seed(0)
    negatives, more_positives = NEGATIVES[:count], MORE[:more]
    pairs = PairBatch(
        torch.randn(6, 4, generator=generator),
        torch.randn(6, 4, generator=generator),
        torch.randn(count, 6, 4, generator=generator) if count else None,
        torch.randn(more, 6, 4, generator=generator) if more else None,
        anchor_ids=ids(ANCHORS),
        candidate_ids=ids([text for column in (POSITIVES, *more_positives, *negatives) for text in column]),
        same_anchor=same_anchor,
        mask_duplicates=mask_duplicates,
    )
    forward = naive_masks(ANCHORS, POSITIVES, negatives, same_anchor, mask_duplicates, more_positives)
    backward = naive_masks(POSITIVES, ANCHORS, [], same_anchor, mask_duplicates)
    for view, expected in ((pairs.anchor_view, forward), (pairs.positive_view, backward)):
        assert torch.equal(view.positive, expected[0])
        assert torch.equal(view.negative, expected[1])
        assert torch.equal(view.hard, expected[2])


def several(rows=None, **options):
    """Six rows with two hard negatives and two further positives each, with texts and teacher's scores."""
    generator = torch.Generator().manual_seed(1)
    a, p = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    n, more = torch.randn(2, 2, 6, 4, generator=generator, dtype=torch.float64)
    columns = [POSITIVES, *MORE, *NEGATIVES]
    known = {"anchor_ids": ids(ANCHORS), "candidate_ids": ids([text for column in columns for text in column])}
    return PairBatch(a, p, n, more, **known, teacher_scores=torch.arange(30.0).view(6, 5), own_rows=rows, **options)


def test_own_rows_are_some_of_all_rows():
    """What one of two devices sees is exactly its rows of the joint batch."""
    joint, part = several(), several(rows=torch.tensor([2, 4, 5]))
    torch.testing.assert_close(part.own_candidates, joint.own_candidates[[2, 4, 5]])
    assert torch.equal(part.known_teacher_scores, joint.teacher_scores[[2, 4, 5]])
    for whole, own in ((joint.anchor_view, part.anchor_view), (joint.positive_view, part.positive_view)):
        torch.testing.assert_close(own.similarity, whole.similarity[[2, 4, 5]])
        for name in ("positive", "negative", "hard"):
            assert torch.equal(getattr(own, name), getattr(whole, name)[[2, 4, 5]])


def test_unit_vectors_are_computed_once():
    pairs = several()
    assert pairs.unit_anchors is pairs.unit_anchors and pairs.unit_candidates is pairs.unit_candidates


def test_views_and_candidates_come_in_the_order_of_the_columns():
    pairs = several()
    views = [pairs.anchors, pairs.positives, *pairs.more_positives]
    assert torch.equal(pairs.anchors_and_positives, torch.stack(views))
    assert torch.equal(pairs.candidates, torch.stack([*views[1:], *pairs.negatives]))
    alone = PairBatch(pairs.anchors, pairs.positives)
    assert torch.equal(alone.anchors_and_positives, torch.stack(views[:2]))
    assert torch.equal(alone.candidates, pairs.positives[None])


def test_own_candidates_are_the_cosines_with_the_row_itself():
    pairs = several(rows=torch.tensor([4, 0]))
    cosine = torch.nn.functional.cosine_similarity
    expected = [[cosine(pairs.anchors[i], column[i], dim=0) for column in pairs.candidates] for i in (4, 0)]
    torch.testing.assert_close(pairs.own_candidates, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(6,), (6, 4), (5, 5)])
def test_teacher_scores_are_one_a_candidate(shape):
    pairs = several()
    vectors = pairs.anchors, pairs.positives, pairs.negatives, pairs.more_positives
    with pytest.raises(ValueError, match=r"teacher_scores must be \(rows, candidates\) \(6, 5\)"):
        PairBatch(*vectors, teacher_scores=torch.zeros(shape))
    with pytest.raises(ValueError, match="column 'teacher_scores'"):
        _ = PairBatch(*vectors).known_teacher_scores


@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
def test_info_nce_averages_over_several_positives(same_anchor):
    """Each of a row's positives in turn against all of them and the negatives."""
    pairs = several(same_anchor=same_anchor)
    inputs = [pairs.anchors, pairs.positives, pairs.negatives, pairs.more_positives]
    for tensor in inputs:
        tensor.requires_grad_()
    pairs = PairBatch(*inputs, anchor_ids=pairs.anchor_ids, candidate_ids=pairs.candidate_ids, same_anchor=same_anchor)
    positive, negative, _ = naive_masks(ANCHORS, POSITIVES, NEGATIVES, same_anchor, True, MORE)
    assert positive.sum(dim=1).min() >= 3 and negative.any(dim=1).all()
    columns, losses = [*pairs.positives, *pairs.more_positives.flatten(0, 1), *pairs.negatives.flatten(0, 1)], []
    for i, anchor in enumerate(pairs.anchors):
        powers = [(anchor @ c / anchor.norm() / c.norm() / 0.2).exp() for c in columns]
        total = sum(powers[c] for c in range(30) if positive[i, c] or negative[i, c])
        own = [-(powers[c] / total).log() for c in range(30) if positive[i, c]]
        losses.append(sum(own) / len(own))
    actual, expected = InfoNCE(temperature=0.2)(pairs), torch.stack(losses)
    torch.testing.assert_close(actual, expected)
    row_weights = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)
    actual_grads = torch.autograd.grad((actual * row_weights).sum(), inputs)
    expected_grads = torch.autograd.grad((expected * row_weights).sum(), inputs)
    for actual_grad, expected_grad in zip(actual_grads, expected_grads, strict=True):
        torch.testing.assert_close(actual_grad, expected_grad)


def test_without_ids_every_text_is_different():
    pairs = PairBatch(torch.randn(3, 2), torch.randn(3, 2))
    assert torch.equal(pairs.anchor_view.positive, torch.eye(3, dtype=torch.bool))
    assert torch.equal(pairs.anchor_view.negative, ~torch.eye(3, dtype=torch.bool))


def test_similarity_is_a_cosine_and_at_least_fp32():
    a, p = torch.randn(4, 8), torch.randn(4, 8)
    expected = torch.nn.functional.cosine_similarity(a[:, None], p[None], dim=-1)
    torch.testing.assert_close(PairBatch(a, p).anchor_view.similarity, expected)
    assert PairBatch(a.bfloat16(), p.bfloat16()).anchor_view.similarity.dtype == torch.float32
    assert PairBatch(a.double(), p.double()).anchor_view.similarity.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(PairBatch(a, p).anchor_view.similarity, expected)


def test_bad_arguments():
    with pytest.raises(ValueError, match="same_anchor"):
        PairBatch(torch.eye(2), torch.eye(2), same_anchor="ignore")
    with pytest.raises(ValueError, match="or neither"):
        PairBatch(torch.eye(2), torch.eye(2), anchor_ids=torch.arange(2))


def test_cosines_of_half_precision_are_in_single():
    a, p = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    half, single = PairBatch(a, p), PairBatch(a.float(), p.float())
    assert half.cosine.dtype == torch.float32
    assert torch.equal(half.cosine, single.cosine)
    assert torch.equal(half.anchor_view.similarity, single.anchor_view.similarity)


@pytest.mark.slow
@pytest.mark.parametrize("name", every_term())
@pytest.mark.parametrize("side", [0, 1, 2, 3])
def test_a_zero_vector_has_no_gradient(name, side):
    """It has no direction; a huge gradient would leave nothing of those of the others when they are clipped."""
    pairs, vectors = make_batch(teacher_scores=torch.rand(6, 4), teacher_vectors=torch.randn(4, 6, 4))
    vectors[side].data[..., 1, :] = 0
    every_term()[name](pairs).sum().backward()
    gradients = [vector.grad for vector in vectors if vector.grad is not None]
    assert all(gradient.abs().max() < 1e3 for gradient in gradients)
    if vectors[side].grad is not None:
        assert (vectors[side].grad[..., 1, :] == 0).all()
