"""Terms evaluated by blocks of rows, against the same terms on all rows at once: values and gradients of every term."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import psutil
import pytest
import torch

from st_vi import CachedDLELoss, CachedSupConNLILoss, DLELoss, SupConNLILoss, Task, terms
from st_vi.losses import blocks
from st_vi.losses.blocks import Shared, rows_at_once, term_sums
from st_vi.stock.heap import _malloc_trim, release_freed_memory
from st_vi.terms import InfoNCE, PairBatch, Term
from st_vi.terms.pairs import unit
from tests.helpers.term_checks import every_term, make_batch

NAN = float("nan")
ALL = every_term()
# Settings that take other ways through a term.
OTHERS = {
    "InfoNCE, symmetric": InfoNCE(symmetric=True, hard_negative_weight=0.7, min_score=0.5),
    "GroupOrdering, anchors": terms.GroupOrdering(detach_candidates=True, negatives="anchors", top_k=2),
    "WeightedNegatives, spared": terms.WeightedNegatives(num_clusters=(2, 3), same_cluster_weight=0.3, spare_hard=True),
    "SimLAP, identical": terms.SimLAP(num_classes=3, size=4, partners="identical"),
    "SoftInfoNCE, symmetric": terms.SoftInfoNCE(symmetric=True, temperature=0.3),
    "DebiasedInfoNCE, symmetric": terms.DebiasedInfoNCE(symmetric=True, temperature=0.5, false_negative_prior=0.1),
}
TAUGHT = torch.rand(6, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
VECTORS = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
VECTORS[1, 2] = NAN
BATCHES = {
    "repeated texts": {},
    "positives of one anchor left out": {"same_anchor": "mask"},
    "duplicates kept": {"mask_duplicates": False},
    "different texts": {"texts": False},
    "rows of one device": {"own_rows": torch.tensor([5, 0, 3, 2])},
}
ROWS = {"one at a time": 1, "uneven": 4, "all": 6}


def batch(**options):
    return make_batch(teacher_scores=TAUGHT, teacher_vectors=VECTORS, **options)


def result(term, rows, **options):
    """Value and gradients of a sum in which every row has another weight."""
    pairs, vectors = batch(**options)
    weights = torch.linspace(0.5, 1.5, pairs.num_own_rows, dtype=torch.float64)
    limit = None if rows is None else rows * 9 * 6 * 8  # 3² columns of teacher's vectors are more than 4 candidates
    value = term_sums({"term": term}, pairs, weights, limit)
    gradients = torch.autograd.grad(value.sum(), vectors, allow_unused=True)
    return value.detach(), [torch.zeros_like(v) if g is None else g for g, v in zip(gradients, vectors, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("name", [*ALL, *OTHERS])
def test_every_term_by_blocks_equals_all_rows_at_once(name, kind):
    term = (ALL | OTHERS)[name]
    expected, expected_gradients = result(term, None, **BATCHES[kind])
    assert expected.isfinite().all() and any(gradient.any() for gradient in expected_gradients)
    for rows in ROWS.values():
        value, gradients = result(term, rows, **BATCHES[kind])
        torch.testing.assert_close(value, expected, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(gradients, expected_gradients, atol=1e-11, rtol=1e-11)


def test_all_terms_together_share_what_is_computed_once():
    weights = torch.full((6,), 1 / 6, dtype=torch.float64)
    sums, gradients = [], []
    for limit in (None, 1):
        pairs, vectors = batch()
        sums.append(term_sums(ALL | OTHERS, pairs, weights, limit))
        gradients.append(torch.autograd.grad(sums[-1].sum(), vectors))
    torch.testing.assert_close(sums[1], sums[0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-11, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in (*ALL, *OTHERS) if name != "SimilarityDecorrelation"])
def test_no_tensor_has_all_rows_and_all_candidates(name):
    """What is left of (rows × candidates) at any moment: nothing as large as half of it, in any type."""
    rows = 160
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(shape, generator=generator) for shape in ((rows, 2), (rows, 2), (2, rows, 2))]
    ids = torch.randint(rows // 2, (4, rows), generator=generator)
    taught = {"teacher_scores": torch.rand(rows, 3, generator=generator), "teacher_vectors": vectors[0][None]}
    taught["classes"] = torch.arange(rows) % 3
    pairs = PairBatch(
        *(v.requires_grad_() for v in vectors), anchor_ids=ids[0], candidate_ids=ids[1:].flatten(),
        scores=torch.rand(rows, generator=generator), **taught,
    )  # fmt: skip
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for value in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(value, torch.Tensor):
                    largest = max(largest, value.numel())
            return out

    with Watch():
        loss = term_sums({"term": (ALL | OTHERS)[name]}, pairs, torch.full((rows,), 1 / rows), 16 * 3 * rows * 4)
        loss.sum().backward()
    assert 0 < largest < rows * rows / 2


def test_no_block_makes_a_gradient_of_all_candidates():
    """It is added to in place: only the products of the block itself are new."""
    vectors = [torch.randn(64, 8, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in "ab"]
    made = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if function is torch.ops.aten.mm.default:
                made.append(out.numel())
            return out

    with Watch():
        term_sums({"term": InfoNCE()}, PairBatch(*vectors), torch.ones(64), 4 * 64 * 4)
    assert max(made) == 4 * 64 < vectors[0].numel()  # four rows at a time


@pytest.mark.parametrize("name", ["InfoNCE", "CosineAlignment", "TeacherSimilarities"])
def test_autocast_ends_before_the_backward_pass_of_a_block(name):
    """The gradients are those of all rows at once, whose backward pass is the trainer's, after its autocast."""
    generator, gradients = torch.Generator().manual_seed(0), []
    vectors = [torch.randn(9, 8, generator=generator).requires_grad_() for _ in "ab"]
    taught = {"teacher_vectors": torch.randn(1, 9, 8, generator=generator)}
    for limit in (None, 150, 10**6):
        with torch.autocast("cpu", torch.bfloat16):
            loss = term_sums({"term": ALL[name]}, PairBatch(*vectors, **taught), torch.ones(9), limit).sum()
        gradients.append(torch.autograd.grad(loss, vectors, allow_unused=True, materialize_grads=True))
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0], atol=1e-5, rtol=1e-4)


def test_blocks_have_the_size_of_the_budget():
    pairs = PairBatch(torch.ones(10, 4), torch.ones(10, 4), torch.ones(2, 10, 4))
    assert [rows_at_once([InfoNCE()], pairs, limit) for limit in (1, 239, 240, 1000)] == [1, 1, 2, 8]
    double = PairBatch(torch.ones(10, 4).double(), torch.ones(10, 4).double())
    assert rows_at_once([InfoNCE()], double, 240) == 3
    assert rows_at_once([InfoNCE()], PairBatch(torch.ones(10, 4).half(), torch.ones(10, 4).half()), 240) == 6


def test_half_precision_adds_up_in_single():
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(300, 8, generator=generator).bfloat16().requires_grad_() for _ in "ab"]
    weights = torch.full((300,), 1 / 300)
    gradients = []
    for limit in (None, 1200):
        loss = term_sums({"term": InfoNCE()}, PairBatch(*vectors), weights, limit)
        gradients.append(torch.autograd.grad(loss.sum(), vectors))
    for expected, actual in zip(*gradients, strict=True):
        assert actual.dtype == torch.bfloat16
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0.01)


def test_only_the_sum_has_a_gradient():
    pairs, _ = batch()
    two = {"a": InfoNCE(), "b": terms.CosineAlignment()}
    first, second = term_sums(two, pairs, torch.ones(6), 1)
    with pytest.raises(ValueError, match="sum of its components"):
        (first + 2 * second).backward()
    loss = term_sums(two, pairs, torch.ones(6), 1).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="only once"):
        loss.backward()


def test_without_gradients_nothing_is_kept():
    pairs, vectors = batch()
    expected = term_sums({"a": InfoNCE()}, pairs, torch.ones(6))
    with torch.no_grad():
        value = term_sums({"a": InfoNCE()}, pairs, torch.ones(6), 1)
    torch.testing.assert_close(value, expected.detach())
    assert not value.requires_grad and all(v.grad is None for v in vectors)


@dataclass(frozen=True, kw_only=True)
class AboveTheMean(Term):
    """Depends on the other own rows."""

    needs_all_rows: ClassVar[bool] = True

    def __call__(self, pairs):
        return (pairs.own_cosine - pairs.own_cosine.mean()).square()


def test_a_term_that_needs_all_rows_gets_them_and_is_named(caplog):
    pairs, vectors = batch()
    weights, both = torch.ones(6, dtype=torch.float64), {"a": InfoNCE(), "b": AboveTheMean()}
    expected = torch.autograd.grad(term_sums(both, pairs, weights).sum(), vectors, allow_unused=True)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        actual = torch.autograd.grad(term_sums(both, pairs, weights, 500).sum(), vectors, allow_unused=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert "AboveTheMean needs all rows" in caplog.text and "max_matrix_bytes=500" in caplog.text
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, torch.zeros_like(mine) if theirs is None else theirs)


LABELS = torch.tensor([[0, 0.1], [1, NAN], [0, 0.8], [1, NAN], [0, NAN], [0, 0.4], [2, NAN]], dtype=torch.float64)
TASKS = [
    Task("scored", "<a>", (InfoNCE(symmetric=True), terms.PairwiseRank(), terms.SupReMix(weight=0.5))),
    Task("asked", "<b>", (InfoNCE(), terms.HardestNegativeMargin(weight=1.5), terms.GroupOrdering())),
    Task("alone", "<c>", (InfoNCE(),)),
    Task("absent", "<d>", (InfoNCE(),)),
]


@pytest.mark.parametrize("negatives", ["task", "batch"])
def test_dle_from_embeddings(negatives):
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(7, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(4)]
    ids = [
        torch.tensor(texts) for texts in ([0, 0, 1, 2, 1, 3, 0], [5, 6, 5, 0, 7, 6, 8], [9, 5, 6, 9, 1, 2, 6], [7] * 7)
    ]
    results = []
    for loss in (
        DLELoss(None, TASKS, negatives=negatives, num_positives=2),
        CachedDLELoss(None, TASKS, negatives=negatives, num_positives=2, max_matrix_bytes=1),
    ):
        components = loss.compute_loss_from_embeddings(columns, LABELS, ids)
        gradients = torch.autograd.grad(sum(components.values()) / 3, columns)
        results.append(({name: value.detach() for name, value in components.items()}, gradients))
    assert results[0][0].keys() == results[1][0].keys()
    torch.testing.assert_close(results[1], results[0], atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("weighted", [False, True])
def test_supcon_from_embeddings(weighted):
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(7, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3)]
    ids = [torch.tensor(texts) for texts in ([0, 0, 1, 2, 1, 3, 0], [5, 6, 5, 0, 7, 6, 8], [9, 5, 6, 9, 1, 2, 6])]
    labels = torch.rand(7, generator=generator) if weighted else None
    settings = {"symmetric": True, "hard_negative_weight": 0.5}
    results = []
    for loss in (SupConNLILoss(None, **settings), CachedSupConNLILoss(None, **settings, max_matrix_bytes=400)):
        value = loss.compute_loss_from_embeddings(columns, labels, ids)
        results.append((value.detach(), torch.autograd.grad(value * 8, columns)))
    torch.testing.assert_close(results[1], results[0], atol=1e-11, rtol=1e-11)


def test_values_computed_once_are_let_go():
    x, shared = torch.ones(3, requires_grad=True), Shared()
    half = shared("half", lambda: (x / 2, torch.arange(3)))
    quarter = shared("quarter", lambda: half[0] / 2)  # from another one
    assert shared("half", lambda: 1 / 0) is half and not half[1].requires_grad
    for row in range(3):
        (quarter[row] + half[0][row]).backward()
    shared.backward()
    torch.testing.assert_close(x.grad, torch.full((3,), 0.75))
    assert shared("half", lambda: x) is not half  # forgotten


def test_unit_vectors_have_the_gradient_of_normalize_and_a_zero_vector_none():
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors[2] = 0
    weights = torch.linspace(-1, 2, 15, dtype=torch.float64).view(5, 3)
    results = []
    for normalize in (unit, lambda v: torch.nn.functional.normalize(v, dim=-1)):
        leaf = vectors.clone().requires_grad_()
        results.append((normalize(leaf).detach(), *torch.autograd.grad((normalize(leaf) * weights).sum(), leaf)))
    results[1][1][2] = 0
    torch.testing.assert_close(*results, atol=1e-13, rtol=1e-13)


def test_memory_of_blocks_is_given_back_now_and_then(monkeypatch):
    calls = []
    monkeypatch.setattr(blocks, "release_freed_memory", lambda: calls.append(None))
    rows = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    pairs = PairBatch(rows.requires_grad_(), rows.detach())
    term_sums({"a": InfoNCE(temperature=1.0)}, pairs, torch.ones(40), max_matrix_bytes=1)  # a block a row
    assert len(calls) == 40 // blocks.RELEASED_AFTER == 2


@pytest.mark.skipif(_malloc_trim() is None, reason="the C library is not glibc")
def test_freed_memory_goes_back_to_the_system():
    """Every other one of many tensors is freed: the C library cannot give back the end of its heap."""
    process, kept = psutil.Process(), [torch.ones(2**13) for _ in range(4096)]
    del kept[::2]
    before = process.memory_info().rss
    release_freed_memory()
    assert before - process.memory_info().rss > 2**25
