"""Rows with a teacher's scores, and what every term that learns from one must hold to."""

from __future__ import annotations

import torch

from st_vi.terms import PairBatch
from tests.helpers.naive import cosine

NAN = float("nan")


# Five rows, two positives and four negatives each; a tie, a false negative and missing scores among them.
TEACHER = [
    [0.90, 0.80, 0.70, 0.20, 0.50, 0.10],
    [1.00, 0.60, 0.30, 0.30, 0.99, 0.00],
    [0.70, NAN, 0.40, 0.65, NAN, 0.68],
    [NAN, NAN, 0.30, 0.90, 0.20, 0.10],
    [0.50, 0.95, 0.94, 0.96, 0.60, 0.70],
]


REPEATED = {(1, 2), (4, 4)}  # (row, candidate): the text of the row's positive, and of its anchor


def taught_rows(dtype=torch.float64):
    """Anchors, positives, negatives and further positives, as leaves."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 6), (5, 6), (4, 5, 6), (1, 5, 6))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def taught_batch(a, p, n, more, teacher=TEACHER, rows=None):
    """All texts are different, but for those in `REPEATED`."""
    anchor_ids, candidate_ids = torch.arange(5), torch.arange(100, 130)
    candidate_ids[2 * 5 + 1] = candidate_ids[1]
    candidate_ids[4 * 5 + 4] = anchor_ids[4]
    scores = torch.tensor(teacher, dtype=torch.float64)
    known = {"anchor_ids": anchor_ids, "candidate_ids": candidate_ids}
    return PairBatch(a, p, n, more, **known, teacher_scores=scores, own_rows=rows and torch.tensor(rows))


def naive_candidates(a, p, n, more, i, teacher=TEACHER):
    """(cosine, teacher's score, is positive) of each candidate of row i that takes part."""
    columns = [p, more[0], *n]
    return [
        (cosine(a[i], column[i]), teacher[i][c], c < 2)
        for c, column in enumerate(columns)
        if (i, c) not in REPEATED and teacher[i][c] == teacher[i][c]
    ]


def assert_equals_loop(term, naive_row):
    """All rows, and the own rows of a joint batch, in value and gradient."""
    inputs = taught_rows()
    zero = sum(values.sum() for values in inputs) * 0
    expected = torch.stack([zero + naive_row(naive_candidates(*inputs, i)) for i in range(5)])
    for rows in (None, [1, 3, 4]):
        actual, target = term(taught_batch(*inputs, rows=rows)), expected[rows or range(5)]
        torch.testing.assert_close(actual, target)
        row_weights = torch.linspace(0.5, 1.5, len(target), dtype=torch.float64)
        grads = torch.autograd.grad((actual * row_weights).sum(), inputs)
        expected_grads = torch.autograd.grad((target * row_weights).sum(), inputs, retain_graph=True)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad, expected_grad)


def assert_finite_when_degenerate(term):
    """Never NaN or inf: one row, no score, one score, ties, −∞ and +∞, equal and zero vectors, bf16."""
    inf = float("inf")
    scores = [[NAN] * 6, [NAN, NAN, 0.5, NAN, NAN, NAN], [0.5] * 6, [1.0, *[-inf] * 5], [-inf] * 6, [inf, *[0.5] * 5]]
    for row in [*scores, [5000.0, -5000.0, 1e4, 0.0, 1e-30, 200.0], [0.1, *[NAN] * 5], [0.1, 0.2, *[NAN] * 4]]:
        for make in (torch.randn, torch.ones, torch.zeros, lambda *shape: torch.randn(*shape).bfloat16()):
            inputs = [make(*shape, 4).requires_grad_() for shape in ((1,), (1,), (4, 1), (1, 1))]
            loss = term(PairBatch(*inputs, teacher_scores=torch.tensor([row])))
            assert loss.shape == (1,) and loss.dtype == torch.float32 and loss.isfinite().all(), row
            for grad in torch.autograd.grad(loss.sum(), inputs):
                assert grad.isfinite().all(), row
            if row == scores[0]:
                assert loss.item() == 0 and (grad == 0).all()
