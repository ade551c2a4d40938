"""Every loss term: finite in half precision at any temperature and size, the same for any order of rows, and with the
gradient that finite differences have."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from st_vi import DLELoss, Task
from st_vi.terms import PairBatch, SimilarityDecorrelation
from tests.helpers.term_checks import every_term

ALL = every_term()
every_term = pytest.mark.parametrize("name", ALL)
TEMPERATURES = (0.01, 0.05, 0.2, 1.0)


def at(term, temperature: float):
    """The term with this value for everything that is a temperature."""
    names = [field.name for field in fields(term) if "temperature" in field.name]
    return replace(term, **dict.fromkeys(names, temperature))


def columns(rows: int, candidates: int, size: int = 16, dtype: torch.dtype = torch.float32, seed: int = 0):
    """Vectors of a length around 4, and labels with a score, a teacher's score of every candidate, its vectors, and a
    class."""
    generator = torch.Generator().manual_seed(seed)
    vectors = [torch.randn(rows, size, generator=generator).to(dtype) for _ in range(1 + candidates)]
    scores = torch.rand(rows, 1 + candidates, generator=generator)
    taught = torch.randn(rows, (1 + candidates) * size, generator=generator)
    labels = [torch.zeros(rows, 1), scores, taught, torch.arange(rows)[:, None] % 3]
    return [vector.requires_grad_() for vector in vectors], torch.cat(labels, dim=1)


def value_and_gradients(term, vectors: list[Tensor], labels: Tensor, ids: list[Tensor] | None = None, positives=1):
    positives = max(positives, 1 + isinstance(term, SimilarityDecorrelation))
    loss = DLELoss(None, [Task("x", "", (term,))], num_positives=positives)
    loss.learned.start()
    value = sum(loss.compute_loss_from_embeddings(vectors, labels, ids).values())
    gradients = torch.autograd.grad(value, vectors, allow_unused=True)
    return value, [gradient for gradient in gradients if gradient is not None]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 2, 3, 64])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every_term
def test_finite_in_half_precision(name, dtype, rows):
    for temperature in TEMPERATURES:
        for kind in ("random", "equal", "twice as long as fp16 can square"):
            vectors, labels = columns(rows, candidates=3, dtype=dtype)
            if kind != "random":
                vectors = [torch.full_like(v, 1.0 if kind == "equal" else 300.0).requires_grad_() for v in vectors]
            with torch.autocast("cpu", dtype=dtype):
                value, gradients = value_and_gradients(at(ALL[name], temperature), vectors, labels)
            assert value.dtype == torch.float32 and value.isfinite(), (temperature, kind)
            assert gradients and all(gradient.isfinite().all() for gradient in gradients), (temperature, kind)


@pytest.mark.slow
@every_term
def test_finite_with_2048_rows(name):
    candidates = 1
    if ALL[name].needs_teacher:
        candidates = 3  # which have their own candidates alone to compare
    if name == "SimilarityDecorrelation":
        candidates = 2
    vectors, labels = columns(2048, candidates, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradients = value_and_gradients(at(ALL[name], 0.01), vectors, labels)
    assert value.isfinite() and all(gradient.isfinite().all() for gradient in gradients)


@every_term
def test_the_order_of_rows_is_without_effect(name):
    """Up to rounding. `WeightedNegatives` begins its clusters at even steps of the batch, and `SimLAP` takes partners
    from the other half of it; both say so."""
    term = ALL[name]
    if name == "WeightedNegatives":
        term = replace(term, num_clusters=(1,))
    if name == "SimLAP":
        term = replace(term, partners="identical")
    vectors, labels = columns(24, candidates=4)
    vectors, labels = [vector.double().detach().requires_grad_() for vector in vectors], labels.double()
    ids = [torch.arange(24) + 100 * column for column in range(5)]
    ids[1][3] = ids[1][5]
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    value, gradients = value_and_gradients(term, vectors, labels, ids, positives=2)
    moved = [vector.detach()[order].requires_grad_() for vector in vectors]
    other, others = value_and_gradients(term, moved, labels[order], [column[order] for column in ids], positives=2)
    torch.testing.assert_close(other, value)
    for gradient, expected in zip(others, gradients, strict=True):
        torch.testing.assert_close(gradient, expected[order])


@pytest.mark.slow
@every_term
def test_gradient_equals_finite_differences(name):
    """At points where the term is smooth, which random ones are almost surely."""
    vectors, labels = columns(5, candidates=4, size=6, seed=3)
    vectors = [vector.detach().double().requires_grad_() for vector in vectors]
    term = replace(ALL[name], detach_weights=False) if hasattr(ALL[name], "detach_weights") else at(ALL[name], 0.5)
    if name == "GroupOrdering":
        term = replace(term, steepness=5.0)
    if name in WITHOUT_ALL_GRADIENTS:
        pytest.skip(WITHOUT_ALL_GRADIENTS[name])

    def loss(*inputs: Tensor) -> Tensor:
        anchors, positives, more, *negatives = inputs
        _, scores, teacher, taught, classes = labels.double().split([1, 1, 4, 30, 1], dim=1)
        known = {"teacher_scores": teacher, "teacher_vectors": taught.view(5, 5, 6).transpose(0, 1)}
        known["classes"] = classes[:, 0].long()
        return term(PairBatch(anchors, positives, torch.stack(negatives), more[None], scores=scores[:, 0], **known))

    assert torch.autograd.gradcheck(loss, vectors)


WITHOUT_ALL_GRADIENTS = {
    "SoftInfoNCE": "its weights are constants: compared with the loop of its equation in tests/terms",
    "SupReMix": "its mixtures are constants: compared with the loop of its equation in tests/terms",
}
