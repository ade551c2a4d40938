"""Suspects against a naive loop over all documents."""

from __future__ import annotations

import pytest
import torch

from st_vi.inspection.false_negatives import suspected_false_negatives, word_overlaps
from tests.helpers.naive import naive_rank


@pytest.fixture
def scores():
    """Two poolings' cosines of 30 queries with 12 documents; multiples of 1/8, so that many tie."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(-8, 9, (30, 12), generator=generator) / 8 for _ in range(2)]


@pytest.fixture
def relevant():
    return torch.randint(0, 12, (30,), generator=torch.Generator().manual_seed(1)).tolist()


def test_suspects(scores, relevant):
    words = ["nước", "sông", "ghe", "cá", "lúa"]
    corpus = [" ".join(words[: 2 + i % 4]) + f" {i % 3}" for i in range(12)]
    overlaps = word_overlaps(corpus, relevant)
    for query, right in enumerate(relevant):
        for document, text in enumerate(corpus):
            one, other = set(corpus[right].split()), set(text.split())
            assert overlaps[query, document] == pytest.approx(len(one & other) / len(one | other))
    found = suspected_false_negatives(scores, relevant, overlaps, margin=0.125, min_overlap=0.7, limit=10_000)
    expected = {}
    for query, right in enumerate(relevant):
        for document in set(range(12)) - {right}:
            above = all(matrix[query, document] > matrix[query, right] - 0.125 for matrix in scores)
            reasons = ("scores",) * above + ("words",) * bool(overlaps[query, document] >= 0.7)
            if reasons:
                expected[query, document] = reasons
    assert {(suspect.query, suspect.document): suspect.reasons for suspect in found} == expected
    assert len({*expected.values()}) == 3
    order = [("words" in suspect.reasons, suspect.gap) for suspect in found]
    assert order == sorted(order, reverse=True)

    near = suspected_false_negatives(scores, relevant, overlaps * 0, k=4)
    assert len(near) < len(suspected_false_negatives(scores, relevant, overlaps * 0, limit=10_000))
    for suspect in near:
        assert all(naive_rank(matrix[suspect.query].tolist(), suspect.document) <= 4 for matrix in scores)


def test_texts_without_words_share_none():
    assert word_overlaps(["🙂", "!!!"], [0]).tolist() == [[0, 0]]


def test_word_overlap_knows_both_unicode_forms():
    assert word_overlaps(["Cà phê sữa đá", "ca\u0300 phe\u0302 su\u031b\u0303a \u0111a\u0301"], [0])[0, 1] == 1


@pytest.mark.parametrize("settings", [{"k": 1.5}, {"k": 0}, {"limit": -1}, {"overlaps": torch.zeros(1, 3)}], ids=str)
def test_what_is_refused(settings):
    given = {"similarities": [torch.eye(1, 2)], "relevant": [0], "overlaps": torch.zeros(1, 2)}
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} must "):
        suspected_false_negatives(**(given | settings))
