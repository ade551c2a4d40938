"""Ranks and margins against naive loops, and recall's intervals against a closed form."""

from __future__ import annotations

import numpy as np
import pandas as pd
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
        with pytest.raises(ValueError, match="k must be a whole number from 1 to 12"):
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


def test_arrays_and_lists_are_ranked_as_tensors_are(scores, relevant):
    ranks, margins = relevant_ranks(scores, relevant), top_k_margins(scores, relevant, 2)
    for given in (scores.numpy(), list(scores), list(scores.numpy()), scores.clone().requires_grad_()):
        assert relevant_ranks(given, np.array(relevant)).equal(ranks)
        assert top_k_margins(given, relevant, 2).equal(margins)
        assert document_ranks(given).equal(document_ranks(scores))
    assert recall_at_k(ranks.numpy(), 2) == recall_at_k(ranks, 2)
    vectors = torch.randn(3, 4, dtype=torch.double)
    assert cosine_matrix(vectors.float().numpy(), list(vectors)).dtype == torch.double


def test_nan_has_no_rank():
    """It would be rank 0, better than the best: a model that gives NaN found everything."""
    nan = torch.full((2, 3), torch.nan)
    for call in (
        lambda: relevant_ranks(nan, [0, 1]),
        lambda: document_ranks(nan),
        lambda: top_k_margins(nan, [0, 1], 1),
    ):
        with pytest.raises(ValueError, match="NaN, which has no rank"):
            call()


@pytest.mark.parametrize(
    ("relevant", "message"),
    [([0], "one relevant column"), ([0, 3], "from 0 to 3; there are 3"), ([0, 1.5], "the numbers of columns")],
)
def test_columns_that_do_not_fit(relevant, message):
    with pytest.raises(ValueError, match=message):
        relevant_ranks(torch.eye(2, 3), relevant)


def test_settings_of_a_recall():
    with pytest.raises(ValueError, match="k must be a whole number"):
        recall_at_k(torch.tensor([1, 2]), 0)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        recall_at_k(torch.tensor([1, 2]), 1, confidence=95)
    with pytest.raises(ValueError, match="resamples must be a whole number"):
        recall_at_k(torch.tensor([1, 2]), 1, resamples=0)
    for ranks in ([0, 1], [[1, 2]], [1.0, float("nan")]):
        with pytest.raises(ValueError, match="must be numbers from 1, got "):
            recall_at_k(ranks, 1)
        with pytest.raises(ValueError, match="must be numbers from 1, got "):
            recall_difference(ranks, ranks, 1)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"of one dimension, got the shapes \(2, 3\) and \(4, 4\)"):
        cosine_matrix(torch.eye(2, 3), torch.eye(4))
    with pytest.raises(ValueError, match=r"similarities must have the shape \(Q, N\), got \(3,\)"):
        document_ranks([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="expected numbers, such as an array or a tensor, got 'cosines'"):
        document_ranks("cosines")
    with pytest.raises(ValueError, match=r"expected numbers, .* equal size"):
        document_ranks([torch.ones(2), torch.ones(3)])


def test_a_retrieval_set_of_pandas_is_counted_by_place():
    queries, corpus = (pd.Series(texts, index=[7, 7]) for texts in (["a", "b"], ["c", "d"]))
    found = RetrievalSet(queries, corpus, pd.Series([0, 1], index=[4, 3])).with_queries(str.upper)
    assert (found.queries, found.corpus, found.relevant) == (["A", "B"], ["c", "d"], [0, 1])
    with pytest.raises(ValueError, match="got the text 'ab'"):
        RetrievalSet("ab", ["c"], [0, 0])


def test_retrieval_sets():
    rows = RetrievalSet(["q0", "q1", "q2"], ["Na ngủ.", "Na thức.", "Bo ngủ."], [2, 0, 1])
    harder = rows.with_distractors({"Na ngủ.": "Na thức.", "Bo ngủ.": "Bo không ngủ."}.get)
    assert (harder.queries, harder.relevant) == (["q0"], [2])  # "Na thức." is a document already
    assert harder.corpus == [*rows.corpus, "Bo không ngủ."]
    twice = rows.with_distractors({"Na ngủ.": "mới", "Na thức.": "mới ", "Bo ngủ.": "khác"}.get)
    assert (twice.corpus[3:], twice.relevant) == (["khác", "mới"], [2, 0, 1])
    other = rows.with_queries({"q0": "q0", "q1": None, "q2": "q two"}.get)
    assert (other.queries, other.relevant, other.corpus) == (["q two"], [1], rows.corpus)
    for wrong, match in [
        ((["q"], ["a", "b"], []), "each query needs"),
        ((["q"], ["a", "b"], [2]), "names row 2"),
        ((["q"], ["a", None], [0]), "Row 1 of corpus: expected an input"),
        ((["q"], ["a", "b", "a"], [0]), "rows 0 and 2"),
        ((["q"], ["ạ", "b", "a\u0323"], [0]), "rows 0 and 2"),  # two Unicode forms
    ]:
        with pytest.raises(ValueError, match=match):
            RetrievalSet(*wrong)
