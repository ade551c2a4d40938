"""Ranks and margins against naive loops, and recall's intervals against a closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom

from st_vi.evaluation import TaskRetrievalEvaluator
from st_vi.inspection.rankings import (
    RetrievalSet,
    cosine_matrix,
    document_ranks,
    recall_at_k,
    recall_difference,
    relevant_ranks,
    top_k_margins,
)
from tests.conftest import SENTENCES
from tests.helpers.naive import naive_rank


@pytest.fixture
def scores():
    """Cosines of 30 queries with 12 documents; multiples of 1/8, so that many tie."""
    return torch.randint(-8, 9, (30, 12), generator=torch.Generator().manual_seed(0)) / 8


@pytest.fixture
def relevant():
    return torch.randint(0, 12, (30,), generator=torch.Generator().manual_seed(1)).tolist()


def test_ranks_count_ties_against(scores, relevant):
    matrix = scores.tolist()
    assert relevant_ranks(scores, relevant).tolist() == [
        naive_rank(*pair) for pair in zip(matrix, relevant, strict=True)
    ]
    assert document_ranks(scores).tolist() == [[naive_rank(row, d) for d in range(12)] for row in matrix]


def test_ranks_are_those_of_the_evaluator(tiny_model):
    corpus, queries = SENTENCES, [text.lower()[:20] for text in SENTENCES]
    evaluator = TaskRetrievalEvaluator(queries, corpus, ["instr"] * len(queries))
    evaluator(tiny_model)
    embedded = (tiny_model.encode(texts, convert_to_tensor=True) for texts in (queries, corpus))
    assert relevant_ranks(cosine_matrix(*embedded), range(len(queries))).tolist() == evaluator.ranks["instr"].tolist()


def test_margins_are_positive_exactly_inside(scores, relevant):
    ranks = relevant_ranks(scores, relevant)
    for k in range(1, 13):
        margins = top_k_margins(scores, relevant, k)
        assert ((margins > 0) == (ranks <= k)).all()
        for row, margin in enumerate(margins.tolist()):
            others = sorted((s for d, s in enumerate(scores[row].tolist()) if d != relevant[row]), reverse=True)
            assert margin == (scores[row, relevant[row]].item() - others[k - 1] if k < 12 else float("inf"))
    for k in (0, 13):
        with pytest.raises(ValueError, match="from 1 to the number of documents, 12"):
            top_k_margins(scores, relevant, k)


def test_recall_and_its_interval():
    ranks = torch.tensor([1] * 30 + [7] * 70)
    estimate = recall_at_k(ranks, k=5, resamples=20_000)
    assert estimate.value == pytest.approx(0.3)
    # Draws with replacement are binomial, so the percentile bootstrap has a closed form.
    assert estimate.low == pytest.approx(binom.ppf(0.025, 100, 0.3) / 100, abs=0.011)
    assert estimate.high == pytest.approx(binom.ppf(0.975, 100, 0.3) / 100, abs=0.011)
    wide = recall_at_k(ranks, k=5, confidence=0.99)
    assert wide.low < estimate.low and wide.high > estimate.high
    assert recall_at_k(ranks, k=7) == recall_at_k(ranks, k=7, seed=3)  # all hit: 1 (1 to 1)
    assert np.isnan(recall_at_k(torch.tensor([1]), k=1).low)
    with pytest.raises(ValueError, match="no queries"):
        recall_at_k(torch.tensor([]), k=1)


def test_the_difference_is_paired():
    a, b = torch.tensor([1] * 40 + [9] * 60), torch.tensor([1] * 30 + [9] * 70)
    difference = recall_difference(a, b, k=5)
    assert difference.value == pytest.approx(0.1) and difference.low > 0  # the same 30 are easy
    assert recall_at_k(a, 5).low < recall_at_k(b, 5).high  # although the intervals overlap
    with pytest.raises(ValueError, match="same queries"):
        recall_difference(a, b[:5], k=5)


def test_retrieval_sets():
    rows = RetrievalSet(["q0", "q1", "q2"], ["Na ngủ.", "Na thức.", "Bo ngủ."], [2, 0, 1])
    harder = rows.with_distractors({"Na ngủ.": "Na thức.", "Bo ngủ.": "Bo không ngủ."}.get)
    assert (harder.queries, harder.relevant) == (["q0"], [2])  # "Na thức." is a document already
    assert harder.corpus == [*rows.corpus, "Bo không ngủ."]
    other = rows.with_queries({"q0": "q0", "q1": None, "q2": "q two"}.get)
    assert (other.queries, other.relevant, other.corpus) == (["q two"], [1], rows.corpus)
    for wrong, match in [
        ((["q"], ["a", "b"], []), "each query needs"),
        ((["q"], ["a", "b"], [2]), "names row 2"),
        ((["q"], ["a", "b", "a"], [0]), "rows 0 and 2"),
    ]:
        with pytest.raises(ValueError, match=match):
            RetrievalSet(*wrong)
