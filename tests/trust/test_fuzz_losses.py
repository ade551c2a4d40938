"""Embeddings, labels and ids of any shape and value in the losses, the terms and the modules behind the model.

What is finite gives a finite loss and finite gradients. A NaN that goes in comes out: it is not hidden, and the
trainer logs it. Shapes that do not fit are refused by name.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from st_vi import AttentionPooling, DLELoss, MLPHead, SupConNLILoss, Task, terms
from st_vi.terms import InfoNCE, MultiViewSingularValue, PairBatch, SimLAP
from tests.helpers.fuzz import INF, NAN, REFUSED, fuzz, outcome
from tests.helpers.term_checks import NEEDED, every_term

pytestmark = pytest.mark.slow

CASES = 7_500  # with ST_VI_FUZZ=1

TERMS = list(every_term().values())
DTYPES = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]
VALUES = ["random"] * 6 + ["equal", "opposite", "zero", "large", "small", "basis"]
NEEDS = [
    "needs a score",
    "needs a teacher's score",
    "needs a teacher's vectors",
    "needs the class",
    "takes any",
    "'negative'",
    "two hard negatives",
    "needs two positives",
    "must be divisible",
]


def vectors(shape: tuple[int, ...], values: str, dtype: torch.dtype, seed: int) -> Tensor:
    """Of a kind at which formulas break; in fp16 without those whose gradients it cannot hold."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if dtype == torch.float16 and values in ("zero", "small", "large", "basis"):
        values = "random"
    made = {
        "random": noise,
        "equal": torch.ones(shape),
        "opposite": torch.ones(shape) * (1 - 2 * (seed % 2)),
        "zero": torch.zeros(shape),
        "large": noise * 1e4,
        "small": noise * 1e-3,
        "basis": torch.eye(max(shape[-1], math.prod(shape[:-1])))[: math.prod(shape[:-1]), : shape[-1]].reshape(shape),
    }[values]
    return made.to(dtype).requires_grad_()


def assert_finite_with_gradients(loss: Tensor, inputs: list[Tensor]) -> None:
    assert loss.isfinite().all()
    for gradient in torch.autograd.grad(loss.sum(), inputs, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


scores = st.sampled_from([0.0, 0.5, 0.5, 1.0, NAN])
teacher_scores = st.sampled_from([0.0, 0.2, 0.9, 1.0, 5.0, -3.0, NAN, INF, -INF])


@fuzz(
    200,
    rows=st.integers(1, 6),
    more=st.integers(0, 2),
    negatives=st.integers(0, 3),
    values=st.lists(st.sampled_from(VALUES), min_size=4, max_size=4),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**30),
    texts=st.integers(0, 12),
    same_anchor=st.sampled_from(["positive", "mask", "negative"]),
    mask_duplicates=st.booleans(),
    data=st.data(),
)
def test_terms(rows, more, negatives, values, dtype, seed, texts, same_anchor, mask_duplicates, data):
    candidates = 1 + more + negatives
    shapes = [(rows, 4), (rows, 4), (negatives, rows, 4), (more, rows, 4)]
    inputs = [vectors(shape, kind, dtype, seed + i) for i, (shape, kind) in enumerate(zip(shapes, values, strict=True))]
    inputs = [column if column.numel() else None for column in inputs]
    options = {"same_anchor": same_anchor, "mask_duplicates": mask_duplicates}
    if texts:  # few of them repeat, or many
        ids = torch.randint(texts, (1 + candidates, rows), generator=torch.Generator().manual_seed(seed))
        options |= {"anchor_ids": ids[0], "candidate_ids": ids[1:].flatten()}
    if data.draw(st.booleans()):
        options["scores"] = torch.tensor(data.draw(st.lists(scores, min_size=rows, max_size=rows)))
    if data.draw(st.booleans()):
        drawn = data.draw(st.lists(teacher_scores, min_size=rows * candidates, max_size=rows * candidates))
        options["teacher_scores"] = torch.tensor(drawn).view(rows, candidates)
    if data.draw(st.booleans()):
        shape = (data.draw(st.integers(1, 1 + candidates)), rows, data.draw(st.sampled_from([4, 4, 4, 3])))
        taught = vectors(shape, data.draw(st.sampled_from(VALUES)), torch.float32, seed + 9).detach()
        taught[:, data.draw(st.integers(0, rows - 1))] = data.draw(st.sampled_from([0.0, 1.0, NAN, INF]))
        options["teacher_vectors"] = taught
    if data.draw(st.booleans()):
        drawn = data.draw(st.lists(st.integers(-1, 2), min_size=rows, max_size=rows))
        options["classes"] = torch.tensor(drawn)
    own = data.draw(st.none() | st.sets(st.integers(0, rows - 1), min_size=1))
    if own is not None:
        options["own_rows"] = torch.tensor(sorted(own))
    for term in TERMS:
        pairs = PairBatch(*inputs, **options)
        loss = outcome("terms", lambda term=term, pairs=pairs: term(pairs), NEEDS)
        if loss is not REFUSED:
            assert loss.shape == (rows if own is None else len(own),), term
            assert_finite_with_gradients(loss, [column for column in inputs if column is not None])


odd_numbers = st.sampled_from([0.0, -1.0, 0.5, 1.0, 2.0, NAN, INF, -INF, 1e-300, 1e300])


@fuzz(1000, kind=st.sampled_from([type(term) for term in TERMS]), data=st.data())
def test_settings_of_terms(kind, data):
    """A term is made, or says which of its settings is out of range."""
    fields = [
        field for field in dataclasses.fields(kind) if isinstance(field.default, float) and field.name != "weight"
    ]
    chosen = data.draw(
        st.dictionaries(st.sampled_from([f.name for f in fields] or ["weight"]), odd_numbers, max_size=2)
    )
    made = outcome("terms", lambda: kind(**NEEDED.get(kind, {}) | chosen), [*chosen, *(field.name for field in fields)])
    if made is not REFUSED:
        assert not any(chosen.get(name, 1.0) <= 0 or math.isnan(chosen.get(name, 1.0)) for name in ("temperature",))


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[Tensor], bool]:
    """Embeddings of a batch, mostly such as fit each other; and whether all of them are finite."""
    rows, count = (
        draw(st.sampled_from([0, 1, 1, *range(2, 7), *range(2, 7)])),
        draw(st.sampled_from([1, *[2, 3, 4, 5] * 3])),
    )
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 2**30))
    made = [vectors((rows, 4), draw(st.sampled_from(VALUES)), dtype, seed + i) for i in range(count)]
    place = draw(st.integers(0, count - 1))
    finite = True
    match draw(st.sampled_from(["good"] * 30 + ["nan"] * 5 + ["rows", "width", "1-D", "3-D", "int", "complex"])):
        case "nan" if rows:
            finite = False
            with torch.no_grad():
                made[place][draw(st.integers(0, rows - 1)), 1] = draw(st.sampled_from([NAN, INF, -INF]))
        case "rows":
            made[place] = vectors((rows + 1, 4), "random", dtype, seed)
        case "width":
            made[place] = vectors((rows, 3), "random", dtype, seed)
        case "1-D":
            made[place] = torch.ones(4, requires_grad=True)
        case "3-D":
            made[place] = torch.ones(rows, 4, 1, requires_grad=True)
        case "int":
            made[place] = torch.ones(rows, 4, dtype=torch.int64)
        case "complex":
            made[place] = torch.ones(rows, 4, dtype=torch.complex64, requires_grad=True)
    return made, finite


@st.composite
def ids_of(draw: st.DrawFn, embeddings: list[Tensor]) -> list[Tensor] | None:
    if not draw(st.integers(0, 3)):
        return None
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    ids = [
        torch.randint(draw(st.sampled_from([1, 3, 50])), (len(column),), generator=generator) for column in embeddings
    ]
    match draw(st.sampled_from(["good"] * 20 + ["too few", "long", "2-D"])):
        case "too few":
            ids = ids[1:]
        case "long":
            ids[0] = torch.zeros(9, dtype=torch.int64)
        case "2-D":
            ids[-1] = ids[-1][:, None]
    return ids


weights = st.sampled_from([1.0, 0.5, 1.0, 0.5, 0.0, 2.0])
bad_weights = st.sampled_from([-1.0, NAN, INF])


@fuzz(
    1500,
    batch=columns(),
    data=st.data(),
    same_anchor=st.sampled_from(["positive", "mask", "negative"]),
    symmetric=st.booleans(),
)
def test_supcon(batch, data, same_anchor, symmetric):
    embeddings, finite = batch
    rows = len(embeddings[0])
    kind = data.draw(st.sampled_from(["none", "good"] * 5 + ["bad value", "long", "2-D", "int"]))
    drawn = torch.tensor(data.draw(st.lists(weights, min_size=rows, max_size=rows)))
    if kind == "bad value" and rows:
        drawn[0] = data.draw(bad_weights)
    labels = {"none": None, "long": torch.ones(rows + 1), "2-D": drawn[:, None], "int": drawn.int()}.get(kind, drawn)
    ids = data.draw(ids_of(embeddings))
    loss_of = SupConNLILoss(None, same_anchor=same_anchor, symmetric=symmetric).compute_loss_from_embeddings
    names = ["SupConNLILoss needs", "embeddings must be", "ids must be", "label column", "the weights of the rows"]
    loss = outcome("losses", lambda: loss_of(embeddings, labels, ids), names)
    if loss is REFUSED:
        return
    assert loss.shape == () and kind not in ("long", "2-D", "int") and not (kind == "bad value" and rows)
    if finite:
        assert_finite_with_gradients(loss, embeddings)
    elif ids is None and labels is None:
        assert not loss.isfinite()


# An eigenvalue decomposition raises an error of its own where it finds NaN, and would be the first to tell.
ANY_TASKS = [
    Task(f"task_{n}", "", tuple(t for t in TERMS[n::3] if not isinstance(t, MultiViewSingularValue | SimLAP)))
    for n in range(3)
]
FEW_TASKS = [Task("pair", "", (InfoNCE(), terms.ScoreMSE())), Task("other", "", (terms.HardestNegativeMargin(),))]


@fuzz(
    1500,
    batch=columns(),
    data=st.data(),
    tasks=st.sampled_from([FEW_TASKS, FEW_TASKS, FEW_TASKS, ANY_TASKS]),
    negatives=st.sampled_from(["task", "batch"]),
    num_positives=st.sampled_from([1] * 6 + [2]),
)
def test_dle(batch, data, tasks, negatives, num_positives):
    embeddings, finite = batch
    rows, teacher = len(embeddings[0]), data.draw(st.booleans())
    width = 1 + len(embeddings) if teacher else 2
    labels = torch.full((rows, width), 0.5, dtype=data.draw(st.sampled_from([torch.float32, torch.float64])))
    labels[:, 0] = torch.tensor(data.draw(st.lists(st.integers(0, len(tasks) - 1), min_size=rows, max_size=rows)))
    labels[:, 1] = torch.tensor(data.draw(st.lists(scores, min_size=rows, max_size=rows)))
    kind = data.draw(st.sampled_from(["good"] * 25 + ["task", "score", "long", "narrow", "1-D", "None"]))
    if kind in ("task", "score") and rows:
        labels[0, int(kind == "score")] = data.draw(
            st.sampled_from([INF, -INF] + [-1.0, 0.5, 99.0, NAN] * (kind == "task"))
        )
    given = {"long": labels.repeat(2, 1)[: rows + 1], "narrow": labels[:, :1], "1-D": labels[:, 0], "None": None}
    labels = given.get(kind, labels)
    loss = DLELoss(None, tasks, negatives=negatives, num_positives=num_positives)
    ids = data.draw(ids_of(embeddings))
    names = ["DLELoss needs", "embeddings must be", "ids must be", "labels name tasks", "the scores of labels", *NEEDS]
    found = outcome("losses", lambda: loss.compute_loss_from_embeddings(embeddings, labels, ids), names)
    if found is REFUSED:
        return
    assert kind in ("good", "score", "task") and list(found) == [name for task in tasks for name in task.components]
    total = sum(found.values())
    assert total.shape == ()
    if finite:
        assert_finite_with_gradients(total, embeddings)
    else:
        assert not any(value.isfinite() for value in found.values())


@fuzz(
    600,
    rows=st.integers(1, 4),
    length=st.integers(1, 6),
    heads=st.integers(1, 3),
    dtype=st.sampled_from(DTYPES),
    values=st.sampled_from(["random", "equal", "zero", "large"]),
    seed=st.integers(0, 2**30),
    flat=st.booleans(),
    prompt_length=st.none() | st.integers(0, 8),
    layers=st.sampled_from([1, 2]),
)
def test_pooling_and_head(rows, length, heads, dtype, values, seed, flat, prompt_length, layers):
    """Any mask, all of it 0 too; more prompt than text; inputs without a token."""
    pool = AttentionPooling(4, heads, include_prompt=prompt_length is None).to(dtype)
    head = MLPHead(4 * heads, 3, num_layers=layers, layer_norm=layers == 2).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(2, (rows, length), generator=generator)
    tokens = vectors((rows, length, 4), values, dtype, seed)
    features = {"token_embeddings": tokens, "attention_mask": mask}
    if flat:
        ends = torch.cat([torch.zeros(1, dtype=torch.int32), mask.sum(dim=1).cumsum(0).int()])
        total = max(1, int(ends[-1]))
        features = {"token_embeddings": tokens.flatten(0, 1)[None, :total], "cu_seq_lens_q": ends}
    if prompt_length is not None:
        features["prompt_length"] = prompt_length
    pooled = outcome("modules", lambda: pool(features), [])
    vector = pooled["sentence_embedding"]
    assert vector.shape == (rows, 4 * heads) and vector.dtype == dtype
    weights = pooled["attention_weights"]
    assert weights.isfinite().all() and (weights >= 0).all() and (weights <= 1.001).all()
    projected = outcome("modules", lambda: head({"sentence_embedding": vector}), [])["sentence_embedding"]
    assert projected.shape == (rows, 3)
    assert_finite_with_gradients(vector, [tokens])


# What was found, and is mended.

EYE = torch.eye(3)
NO_SCORES = torch.tensor([[0.0, NAN]] * 3)


def supcon(*arguments):
    return SupConNLILoss(None, temperature=1.0).compute_loss_from_embeddings(*arguments)


def dle(*arguments):
    return DLELoss(None, FEW_TASKS).compute_loss_from_embeddings(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([EYE, torch.eye(2)],),
            r"embeddings must be \(rows, dimensions\), the same in every column, got \(3, 3\), \(2",
        ),
        (([EYE[:0], EYE[:0]],), r"embeddings must be .* got \(0, 3\), \(0, 3\)"),
        (([EYE, EYE], None, [torch.arange(3)]), r"ids must be \(3,\) for each of 2 columns, got \(3,\)"),
        (([EYE, EYE], None, [torch.arange(3), torch.arange(4)]), r"ids must be .* got \(3,\), \(4,\)"),
        (([EYE, EYE], torch.tensor([1.0, -1, 1])), "weights of the rows must be finite and not negative"),
        (([EYE, EYE], torch.tensor([1.0, NAN, 1])), "weights of the rows must be finite and not negative"),
        (([EYE, EYE], torch.tensor([1.0, INF, 1])), "weights of the rows must be finite and not negative"),
    ],
)
def test_what_does_not_fit_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        supcon(*arguments)


def test_whole_numbers_are_no_embeddings():
    for loss, labels in ((supcon, None), (dle, NO_SCORES)):
        with pytest.raises(TypeError, match=r"embeddings must be floating-point numbers, got torch.int64"):
            loss([EYE, EYE.long()], labels)


def test_rows_without_weight_give_nothing():
    """0 / 0 made NaN of them, and of the model."""
    anchors = torch.randn(3, 4, requires_grad=True)
    loss = supcon([anchors, torch.randn(3, 4)], torch.zeros(3))
    loss.backward()
    assert loss == 0 and (anchors.grad == 0).all()


def test_weights_of_any_size_weigh_alike():
    columns_ = [torch.randn(3, 4), torch.randn(3, 4)]
    for weight in (1e-30, 1e30):
        torch.testing.assert_close(supcon(columns_, torch.full((3,), weight)), supcon(columns_))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "DLELoss needs labels .* got None. MixedTaskCollator creates them"),
        (NO_SCORES[:2], r"DLELoss needs labels \(B, 2\).* here for B = 3; got \(2, 2\)"),
        (torch.tensor([[0.0, INF]] * 3), "the scores of labels lie in"),
        (torch.tensor([[0.0, 4.5]] * 3), "the scores of labels lie in"),
        (torch.tensor([[0.0, -0.5]] * 3), "the scores of labels lie in"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, message):
    with pytest.raises(ValueError, match=message):
        dle([EYE, EYE], labels)
