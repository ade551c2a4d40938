"""`taught_candidates`: which candidates of a row have a teacher's score and count."""

from __future__ import annotations

import pytest
import torch

from st_vi.terms import PairBatch
from st_vi.terms.teacher import taught_candidates
from tests.helpers.taught import (
    NAN,
    REPEATED,
    TEACHER,
    naive_candidates,
    taught_batch,
    taught_rows,
)


def test_masks_and_scores():
    inputs = taught_rows()
    view, scores = taught_candidates(taught_batch(*inputs, rows=[1, 2, 4]))
    known = [[c for c in range(6) if TEACHER[i][c] == TEACHER[i][c] and (i, c) not in REPEATED] for i in (1, 2, 4)]
    for row, i in enumerate((1, 2, 4)):
        assert view.positive[row].nonzero().squeeze(1).tolist() == [c for c in known[row] if c < 2]
        assert view.negative[row].nonzero().squeeze(1).tolist() == [c for c in known[row] if c >= 2]
        assert torch.equal(view.hard[row], view.negative[row])
        kept = scores[row, known[row]].tolist()
        assert kept == [TEACHER[i][c] for c in known[row]]
        expected = torch.stack([s for s, _, _ in naive_candidates(*inputs, i)])
        torch.testing.assert_close(view.similarity[row, known[row]], expected)
    assert scores.isfinite().all()


def test_two_candidates_are_enough_and_what_has_no_score_reads_zero():
    a, inf = torch.eye(3), float("inf")
    scores = torch.tensor([[1.0, 0.5], [NAN, -inf], [inf, 0.25]])
    view, read = taught_candidates(PairBatch(a, a, a[None], teacher_scores=scores))
    assert view.positive.tolist() == [[True, False], [False, False], [False, False]]
    assert view.negative.tolist() == [[False, True]] * 3
    assert read.tolist() == [[1.0, 0.5], [0.0, -inf], [0.0, 0.25]] and read.dtype == a.dtype
    assert (
        taught_candidates(PairBatch(a.double(), a.double(), a[None].double(), teacher_scores=scores))[1].dtype
        == torch.float64
    )


def test_needs_scores_and_something_to_compare():
    a = torch.eye(2)
    with pytest.raises(ValueError, match="'teacher_scores'"):
        taught_candidates(PairBatch(a, a, a[None]))
    with pytest.raises(ValueError, match=r"'negative'.*'positive_2'"):
        taught_candidates(PairBatch(a, a, teacher_scores=torch.ones(2, 1)))
