"""`PairBatch` against a naive loop over the definition of who is a positive and who a negative."""

from __future__ import annotations

import itertools

import pytest
import torch

from st_vi.terms import PairBatch


def naive_masks(anchors, positives, negatives, same_anchor, mask_duplicates):
    """Positive, negative and hard masks, one cell at a time, from texts."""
    rows, candidates = len(anchors), list(positives) + [text for column in negatives for text in column]
    shape = rows, len(candidates)
    positive, negative, hard = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for i in range(rows):
        relatives = {i}
        if same_anchor != "negative":
            relatives |= {j for j in range(rows) if anchors[j] == anchors[i]}
        own_texts = {anchors[i], positives[i]}
        spared = own_texts | {positives[j] for j in relatives}
        for c, text in enumerate(candidates):
            if c == i:
                positive[i, c] = True
            elif c in relatives:  # the first candidates are the positives, in row order
                duplicate = mask_duplicates and text in own_texts
                positive[i, c] = same_anchor == "positive" and not duplicate
            elif not (mask_duplicates and text in spared):
                negative[i, c] = True
                hard[i, c] = c >= rows and c % rows == i
    return positive, negative, hard


ANCHORS = ["a", "a", "b", "c", "a", "d"]
POSITIVES = ["p", "q", "p", "a", "p", "r"]
NEGATIVES = [["n", "m", "q", "c", "q", "p"], ["k", "p", "b", "n", "d", "r2"]]
NUMBER = {text: i for i, text in enumerate(sorted({*ANCHORS, *POSITIVES, *itertools.chain(*NEGATIVES)}))}


def ids(texts):
    return torch.tensor([NUMBER[text] for text in texts])


@pytest.mark.parametrize("mask_duplicates", [True, False])
@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_masks_equal_the_naive_loop(same_anchor, mask_duplicates, count):
    generator = torch.Generator().manual_seed(0)
    negatives = NEGATIVES[:count]
    pairs = PairBatch(
        torch.randn(6, 4, generator=generator),
        torch.randn(6, 4, generator=generator),
        torch.randn(count, 6, 4, generator=generator) if count else None,
        anchor_ids=ids(ANCHORS),
        candidate_ids=ids(POSITIVES + [text for column in negatives for text in column]),
        same_anchor=same_anchor,
        mask_duplicates=mask_duplicates,
    )
    forward = naive_masks(ANCHORS, POSITIVES, negatives, same_anchor, mask_duplicates)
    backward = naive_masks(POSITIVES, ANCHORS, [], same_anchor, mask_duplicates)
    for view, expected in ((pairs.forward, forward), (pairs.backward, backward)):
        assert torch.equal(view.positive, expected[0])
        assert torch.equal(view.negative, expected[1])
        assert torch.equal(view.hard, expected[2])


def test_own_rows_are_some_of_all_rows():
    """What one of two devices sees is exactly its rows of the joint batch."""
    generator = torch.Generator().manual_seed(1)
    a, p, n = torch.randn(6, 4, generator=generator), torch.randn(6, 4, generator=generator), torch.randn(2, 6, 4)
    known = {"anchor_ids": ids(ANCHORS), "candidate_ids": ids(POSITIVES + NEGATIVES[0] + NEGATIVES[1])}
    joint, part = PairBatch(a, p, n, **known), PairBatch(a, p, n, **known, rows=torch.tensor([2, 4, 5]))
    for whole, own in ((joint.forward, part.forward), (joint.backward, part.backward)):
        torch.testing.assert_close(own.similarity, whole.similarity[[2, 4, 5]])
        for name in ("positive", "negative", "hard"):
            assert torch.equal(getattr(own, name), getattr(whole, name)[[2, 4, 5]])


def test_without_ids_every_text_is_different():
    pairs = PairBatch(torch.randn(3, 2), torch.randn(3, 2))
    assert torch.equal(pairs.forward.positive, torch.eye(3, dtype=torch.bool))
    assert torch.equal(pairs.forward.negative, ~torch.eye(3, dtype=torch.bool))


def test_similarity_is_a_cosine_and_at_least_fp32():
    a, p = torch.randn(4, 8), torch.randn(4, 8)
    expected = torch.nn.functional.cosine_similarity(a[:, None], p[None], dim=-1)
    torch.testing.assert_close(PairBatch(a, p).forward.similarity, expected)
    assert PairBatch(a.bfloat16(), p.bfloat16()).forward.similarity.dtype == torch.float32
    assert PairBatch(a.double(), p.double()).forward.similarity.dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(PairBatch(a, p).forward.similarity, expected)


def test_bad_arguments():
    with pytest.raises(ValueError, match="same_anchor"):
        PairBatch(torch.eye(2), torch.eye(2), same_anchor="ignore")
    with pytest.raises(ValueError, match="come together"):
        PairBatch(torch.eye(2), torch.eye(2), anchor_ids=torch.arange(2))
