"""`TeacherCosine` and `TeacherSimilarities` against naive loops over their equations, alone and in the loss."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from st_vi import DLELoss, MixedTaskCollator, Task
from st_vi.data import check_task_rows
from st_vi.terms import InfoNCE, PairBatch, TeacherCosine, TeacherSimilarities

NAN = float("nan")
W, D, T = 5, 6, 4


def cosine(x, y):
    return (x @ y) / (x.norm() * y.norm())


def student(seed=0):
    """Anchors, positives, two negatives, as leaves."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((W, D), (W, D), (2, W, D))
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def teacher(inputs, size=T):
    """Vectors of the first `inputs` columns; one of them unknown, and row 3 without any."""
    vectors = torch.randn(inputs, W, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors[0, 1] = NAN
    vectors[:, 3] = NAN
    return vectors


def columns_of(a, p, n):
    return [a, p, *n]


def naive_cosine(columns, vectors, i):
    known = [c for c in range(len(vectors)) if not vectors[c, i].isnan().any()]
    zero = sum(column.sum() for column in columns) * 0
    return zero + sum(1 - cosine(columns[c][i], vectors[c, i]) for c in known) / max(1, len(known))


def naive_similarities(columns, vectors, i):
    inputs = [(c, r) for c in range(len(vectors)) for r in range(W) if not vectors[c, r].isnan().any()]
    errors = [
        (cosine(columns[c][i], columns[d][j]) - cosine(vectors[c, i], vectors[d, j])) ** 2
        for c, r in inputs
        if r == i
        for d, j in inputs
        if (d, j) != (c, i)
    ]
    return sum(column.sum() for column in columns) * 0 + sum(errors) / max(1, len(errors))


@pytest.mark.parametrize("rows", [None, [1, 3, 4]])
@pytest.mark.parametrize("inputs", [1, 2, 4])
@pytest.mark.parametrize(
    ("term", "naive", "size"), [(TeacherCosine(), naive_cosine, D), (TeacherSimilarities(), naive_similarities, T)]
)
def test_equals_the_naive_loop(term, naive, size, inputs, rows):
    leaves, vectors = student(), teacher(inputs, size)
    pairs = PairBatch(*leaves, teacher_vectors=vectors, own_rows=rows and torch.tensor(rows))
    actual = term(pairs)
    expected = torch.stack([naive(columns_of(*leaves), vectors, i) for i in rows or range(W)])
    torch.testing.assert_close(actual, expected)
    weights = torch.linspace(0.5, 1.5, len(actual), dtype=torch.float64)
    mine = torch.autograd.grad((actual * weights).sum(), leaves, allow_unused=True)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for grad, other, leaf in zip(mine, theirs, leaves, strict=True):
        torch.testing.assert_close(torch.zeros_like(leaf) if grad is None else grad, other)


@pytest.mark.parametrize("term", [TeacherCosine(), TeacherSimilarities()])
def test_zero_at_the_teacher_and_where_nothing_is_known(term):
    a, p, _ = student()
    assert term(PairBatch(a, p, teacher_vectors=3 * torch.stack([a, p]).detach())).abs().max() < 1e-12
    unknown = term(PairBatch(a, p, teacher_vectors=torch.full((2, W, D), NAN)))
    assert unknown.tolist() == [0] * W
    assert all(grad.eq(0).all() for grad in torch.autograd.grad(unknown.sum(), [a, p]))
    (alone,) = TeacherSimilarities()(PairBatch(a[:1], a[:1], teacher_vectors=torch.ones(1, 1, 3)))
    assert alone == 0


@pytest.mark.parametrize("term", [TeacherCosine(), TeacherSimilarities()])
def test_fp32_inside(term):
    """Vectors in bf16, such as autocast gives, are compared in fp32."""
    a, p, n = (leaf.detach() for leaf in student())
    vectors = torch.randn(2, W, D)
    half = PairBatch(*(x.bfloat16() for x in (a, p, n)), teacher_vectors=vectors)
    whole = PairBatch(*(x.bfloat16().float() for x in (a, p, n)), teacher_vectors=vectors)
    assert term(half).dtype == torch.float32
    torch.testing.assert_close(term(half), term(whole))


def test_says_what_is_missing():
    a, p, n = student()
    for term in (TeacherCosine(), TeacherSimilarities()):
        with pytest.raises(ValueError, match="'anchor_teacher'"):
            term(PairBatch(a, p))
    with pytest.raises(ValueError, match="student's have 6 numbers, the teacher's 4: TeacherSimilarities takes any"):
        TeacherCosine()(PairBatch(a, p, teacher_vectors=teacher(1)))
    for shape in [(W, T), (1, W - 1, T), (0, W, T), (5, W, T)]:
        with pytest.raises(ValueError, match=r"teacher_vectors must be \(1 to 4 inputs, 5 rows, size\)"):
            PairBatch(a, p, n, teacher_vectors=torch.ones(shape))


TASKS = (Task("distil", "", (TeacherCosine(weight=2.0), TeacherSimilarities(weight=3.0))),)


def collate(rows, tasks=TASKS):
    return MixedTaskCollator(preprocess_fn=lambda texts: {"texts": texts}, tasks=tasks, prefix_side="none")(rows)


def test_a_text_and_its_vector_are_enough_to_distil():
    """One column from the rows to the loss: each text is embedded once."""
    a = student()[0]
    vectors = torch.randn(W, D)
    rows = [{"task": "distil", "anchor": f"Câu {i}.", "anchor_teacher": vectors[i].tolist()} for i in range(W)]
    good, report = check_task_rows(Dataset.from_list(rows), TASKS)
    assert report["distil"] == W
    batch = collate(list(good))
    assert list(batch) == ["label", "anchor_texts"] and batch["label"].shape == (W, 2 + D)
    loss = DLELoss(None, TASKS).compute_loss_from_embeddings([a], batch["label"])
    columns, known = [a], vectors.double()[None]
    for name, weight, naive in (
        ("distil_teacher_cosine", 2, naive_cosine),
        ("distil_teacher_similarities", 3, naive_similarities),
    ):
        expected = weight * sum(naive(columns, known, i) for i in range(W)) / W
        torch.testing.assert_close(loss[name], expected, check_dtype=False)


def test_vectors_beside_scores_and_other_tasks():
    """NLI rows with a teacher as a second term, beside rows that are only distilled: each term sees its own."""
    tasks = (Task("nli", "", (InfoNCE(), TeacherCosine())), Task("distil", "", (TeacherCosine(),)))
    a, p, n = (leaf.detach() for leaf in student())
    vectors = torch.randn(3, W, D)
    rows = [
        {"task": "nli" if i < 3 else "distil", "anchor": "A", "positive": "B", "negative": "C"}
        | {"teacher_scores": [1.0, 0.0], "anchor_teacher": vectors[0, i].tolist()}
        | {"positive_teacher": None if i == 2 else vectors[1, i].numpy()}
        for i in range(W)
    ]
    labels = collate(rows, tasks)["label"]
    assert labels.shape == (W, 2 + 2 + 3 * D)
    loss = DLELoss(None, tasks, mask_duplicates=False).compute_loss_from_embeddings([a, p, n[0]], labels)
    known = vectors.double().clone()
    known[1, 2] = known[2] = NAN
    for task, own in (("nli", range(3)), ("distil", range(3, W))):
        expected = sum(naive_cosine([a, p, n[0]], known, i) for i in own) / W
        torch.testing.assert_close(loss[f"{task}_teacher_cosine"], expected, check_dtype=False)
    assert loss["nli_info_nce"] > 0


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, NAN], "row 1 of the batch: expected 2 finite numbers"),
        ([1.0], "row 1 of the batch: expected 2 finite numbers"),
        ("1 2", "row 1 of the batch"),
        ([[1.0, 2.0]], "row 1 of the batch"),
    ],
)
def test_bad_vectors_are_named(vector, message):
    row = {"task": "distil", "anchor": "Câu."}
    with pytest.raises(ValueError, match=rf"column 'anchor_teacher', {message}"):
        collate([row | {"anchor_teacher": [1.0, 2.0]}, row | {"anchor_teacher": vector}])


def test_rows_without_vectors_are_refused_before_training():
    rows = Dataset.from_list([{"task": "distil", "anchor": "Câu.", "anchor_teacher": v} for v in ([1.0], None)])
    with pytest.raises(ValueError, match="column 'anchor_teacher', row 1"):
        check_task_rows(rows, TASKS)
    with pytest.raises(ValueError, match="missing column 'positive'"):
        check_task_rows(rows, [Task("nli", "", (InfoNCE(), TeacherCosine()))])
    with pytest.raises(ValueError, match="needs an anchor and 1 positive"):
        DLELoss(None, [Task("nli", "", (InfoNCE(),))]).compute_loss_from_embeddings([torch.eye(2)], torch.zeros(2, 2))
