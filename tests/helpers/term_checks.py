"""What every term must hold to, whatever its equation; used by the tests of the terms beside this file."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from st_vi import terms
from st_vi.terms import PairBatch, SimLAP, Term
from tests.helpers.naive import ANCHORS, MORE, NEGATIVES, POSITIVES, ids, naive_masks

TERMS: list[type[Term]] = [
    getattr(terms, name) for name in terms.__all__ if name not in ("LearnedTerm", "PairBatch", "Term", "View")
]
NEEDED = {SimLAP: {"num_classes": 3, "size": 32}}
"""Arguments without a default."""


def every_term() -> dict[str, Term]:
    """One of each by name, with the defaults; `SimLAP` has three classes and vectors of at most 32 numbers."""
    return {term.__name__: term(**NEEDED.get(term, {})) for term in TERMS}


SCORES = [0.2, 0.9, math.nan, 0.9, 0.0, 0.6]  # one missing and a tie
CLASSES = [0, 2, 1, 0, -1, 1]  # one missing


def make_batch(
    more: int = 1, negatives: int = 2, texts: bool = True, size: int = 4, **options: Any
) -> tuple[PairBatch, list[Tensor]]:
    """Six rows in float64 with repeated texts, and their vectors, which take gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, size), (6, size), (negatives, 6, size), (more, 6, size)]
    vectors = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    vectors = [v.requires_grad_() if v.numel() else None for v in vectors]
    if texts:
        columns = [POSITIVES, *MORE[:more], *NEGATIVES[:negatives]]
        options |= {"anchor_ids": ids(ANCHORS), "candidate_ids": ids([text for column in columns for text in column])}
    options.setdefault("scores", torch.tensor(SCORES, dtype=torch.float64))
    options.setdefault("classes", torch.tensor(CLASSES))
    return PairBatch(*vectors, **options), [v for v in vectors if v is not None]


def masks_of(pairs: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
    """The naive masks of `make_batch`."""
    count = 0 if pairs.negatives is None else len(pairs.negatives)
    more = len(pairs.anchors_and_positives) - 2
    if pairs.anchor_ids is None:  # every text is different
        columns = [[f"{c} {i}" for i in range(6)] for c in range(1 + len(pairs.candidates))]
    else:
        columns = [ANCHORS, POSITIVES, *MORE[:more], *NEGATIVES[:count]]
    return naive_masks(
        columns[0], columns[1], columns[2 + more :], pairs.same_anchor, pairs.mask_duplicates, columns[2 : 2 + more]
    )


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


def columns_of(pairs: PairBatch) -> list[Tensor]:
    """The candidates one by one."""
    return [vector for column in pairs.candidates for vector in column]


def assert_same(actual: Tensor, expected: list[Tensor], inputs: list[Tensor], **tolerance: float) -> None:
    """Equal values and gradients; rows weigh differently, so that none can hide another's gradient."""
    expected = torch.stack([torch.as_tensor(row, dtype=actual.dtype) for row in expected])
    torch.testing.assert_close(actual, expected, **tolerance)
    weights = torch.linspace(0.5, 1.5, len(actual), dtype=actual.dtype)
    options = {"allow_unused": True, "retain_graph": True}
    grads = [torch.autograd.grad((loss * weights).sum(), inputs, **options) for loss in (actual, expected)]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads[1])
    for mine, theirs, like in zip(*grads, inputs, strict=True):
        none = torch.zeros_like(like)
        torch.testing.assert_close(none if mine is None else mine, none if theirs is None else theirs, **tolerance)


def assert_own_rows(term: Term, **options: Any) -> None:
    """One device's rows of the joint batch, in value and gradient."""
    joint, inputs = make_batch(**options)
    rows = torch.tensor([1, 3, 5])
    part, same_inputs = make_batch(own_rows=rows, **options)
    torch.testing.assert_close(term(part), term(joint)[rows])
    mine = torch.autograd.grad(term(part).sum(), same_inputs, allow_unused=True)
    theirs = torch.autograd.grad(term(joint)[rows].sum(), inputs, allow_unused=True)
    for actual, expected in zip(mine, theirs, strict=True):
        assert (actual is None) == (expected is None)
        if actual is not None:
            torch.testing.assert_close(actual, expected)


def _vectors(rows: int, kind: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = [(rows, 4), (rows, 4), (2, rows, 4), (1, rows, 4)]
    make = {
        "random": lambda shape: torch.randn(shape, generator=generator),
        "equal": torch.ones,
        "zero": torch.zeros,
        "opposite": lambda shape: torch.ones(shape) * (1 if shape == (rows, 4) else -1),
    }[kind]
    return [make(shape).to(dtype).requires_grad_() for shape in shapes]


NAN = math.nan
DEGENERATE = {
    "one row": (1, "random", [0.5], True),
    "one row without negatives": (1, "random", [0.5], False),
    "no score": (3, "random", [NAN] * 3, True),
    "one score": (3, "random", [NAN, 0.5, NAN], True),
    "ties": (3, "random", [0.5] * 3, True),
    "equal vectors": (4, "equal", [0.0, 0.5, 0.5, 1.0], True),
    "equal vectors without negatives": (1, "equal", [1.0], False),
    "zero vectors": (4, "zero", [0.0, 0.5, 0.5, 1.0], True),
    "opposite vectors": (4, "opposite", [0.0, 0.5, NAN, 1.0], True),
}
degenerate = pytest.mark.parametrize("name", DEGENERATE)


def run_degenerate(term: Term, name: str, texts: str = "different") -> tuple[Tensor, list[Tensor]]:
    """The loss of a batch of `DEGENERATE`, checked to be finite and connected; and the vectors with gradients."""
    rows, kind, scores, has_negatives = DEGENERATE[name]
    vectors = _vectors(rows, kind)
    anchors, positives, negatives, more = vectors
    ids = {"anchor_ids": torch.arange(rows), "candidate_ids": torch.arange(4 * rows) + rows}
    if not has_negatives:
        negatives, ids = None, {"anchor_ids": torch.arange(rows), "candidate_ids": torch.arange(2 * rows) + rows}
    if texts == "same":
        ids = {key: torch.zeros_like(value) for key, value in ids.items()}
    loss = term(PairBatch(anchors, positives, negatives, more, **ids, scores=torch.tensor(scores)))
    assert loss.shape == (rows,) and loss.isfinite().all()
    loss.sum().backward()
    for vector in vectors:
        assert vector.grad is None or vector.grad.isfinite().all()
    return loss, vectors


def assert_fp32_inside(term: Term) -> None:
    """bf16 vectors, and autocast, give what their values give in fp32."""
    scores, (low, same) = torch.tensor([0.1, 0.9, 0.4, 0.9, 0.5]), (_vectors(5, "random", torch.bfloat16) for _ in "12")
    expected = term(PairBatch(*(v.detach().float() for v in same), scores=scores))
    actual = term(PairBatch(*low, scores=scores))
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected)
    actual.sum().backward()
    assert all(v.grad is None or v.grad.isfinite().all() for v in low)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(term(PairBatch(*(v.detach().float() for v in same), scores=scores)), expected)
