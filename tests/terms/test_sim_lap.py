"""`SimLAP` against a loop over its equation, gates included, and against what it is in simple cases."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from st_vi.terms import PairBatch, SimLAP
from tests.helpers.naive import cosine
from tests.helpers.term_checks import (
    CLASSES,
    assert_fp32_inside,
    assert_own_rows,
    assert_same,
    columns_of,
    make_batch,
    masks_of,
    run_degenerate,
)

PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


def gates():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()


def term_of(parameters, **settings):
    return SimLAP(num_classes=3, size=4, temperature=0.5, binary_weight=0.3, parameters=parameters, **settings)


def naive_rows(pairs, parameters, partners, temperature=0.5, binary_weight=0.3):
    """One row after the other."""
    positive, negative, _ = masks_of(pairs)
    candidates, width = columns_of(pairs), len(CLASSES)
    answers = pairs.num_positives * width
    known = [i for i in range(width) if CLASSES[i] >= 0]
    losses = []
    for i, anchor in enumerate(pairs.anchors):
        loss = anchor.sum() * 0
        if i in known:
            half = known[(known.index(i) + len(known) // 2) % len(known)]
            mine, other = CLASSES[i], CLASSES[i if partners == "identical" else half]
            gate = 1 / (1 + (-parameters[PAIRS.index((min(mine, other), max(mine, other)))]).exp())
            s = [cosine(gate * anchor, gate * candidate) for candidate in candidates[:answers]]
            taken = [j for j in range(answers) if positive[i, j] or negative[i, j]]
            own = [j for j in taken if CLASSES[j % width] == other]
            strangers = [j for j in taken if CLASSES[j % width] not in (-1, mine, other)]
            if own and strangers:
                for p in own:
                    loss = loss + (1 + sum(((s[n] - s[p]) / temperature).exp() for n in strangers)).log() / len(own)
                loss = loss + binary_weight * sum(4 * g * (1 - g) for g in gate) / len(gate)
        losses.append(loss)
    return losses


@pytest.mark.parametrize("partners", ["arbitrary", "identical"])
@pytest.mark.parametrize("same_anchor", ["positive", "mask"])
@pytest.mark.parametrize("more", [0, 1])
def test_equals_the_naive_loop(more, same_anchor, partners):
    """In value, and in the gradients of vectors and gates."""
    (pairs, vectors), parameters = make_batch(more, same_anchor=same_anchor), gates()
    expected = naive_rows(pairs, parameters, partners)
    assert sum(bool(row.abs() > 0) for row in expected) >= 3
    assert_same(term_of(parameters, partners=partners)(pairs), expected, [*vectors, parameters])


def test_gradient_of_the_gates_equals_finite_differences():
    pairs, _ = make_batch(texts=False)
    fixed = replace(pairs, **{name: getattr(pairs, name).detach() for name in ("anchors", "positives", "negatives")})
    assert torch.autograd.gradcheck(lambda parameters: term_of(parameters)(fixed), [gates()])


def test_equal_gates_are_none():
    """With identical partners: supervised contrastive learning on the cosines themselves."""
    pairs, vectors = make_batch(0, texts=False)
    equal = term_of(None, partners="identical")
    assert equal.parameters.unique().tolist() == [1.0]
    flat = naive_rows(pairs, torch.full((6, 4), 50.0, dtype=torch.float64), "identical", binary_weight=0.0)
    assert_same(replace(equal, binary_weight=0.0)(pairs), flat, vectors)


def test_a_gate_hides_what_it_closes():
    """Classes 0 and 1 agree in the first dimension alone, which tells them from class 2: with that gate, no loss."""
    a = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
    pairs = PairBatch(a, a, classes=torch.tensor([0, 2, 1, 2]), own_rows=torch.tensor([0]))  # row 0 is with row 2
    term = SimLAP(num_classes=3, size=2, binary_weight=1.0)
    closed = torch.full((6, 2), 20.0)
    closed[1, 1] = -20.0
    assert float(replace(term, parameters=closed)(pairs)) < 1e-6 < 1 < float(term(pairs))


def test_the_penalty_is_1_at_a_half_and_0_at_the_ends():
    pairs, _ = make_batch(0, texts=False)
    for value, expected in ((0.0, 0.7), (40.0, 0.0), (-40.0, 0.0)):
        parameters = torch.full((6, 4), value, dtype=torch.float64)
        with_it, without = (term_of(parameters), replace(term_of(parameters), binary_weight=0.0))
        difference = replace(with_it, binary_weight=0.7)(pairs) - without(pairs)
        has_loss = without(pairs) > 0
        assert has_loss.sum() >= 4
        torch.testing.assert_close(difference, expected * has_loss.double())


def test_every_pair_of_classes_has_its_own_gate():
    term = SimLAP(num_classes=3, size=1, parameters=torch.arange(6.0)[:, None])
    for number, (a, b) in enumerate(PAIRS):
        assert term.gate(a, b) == term.gate(b, a) == torch.tensor([float(number)]).sigmoid()


def test_shorter_vectors_have_the_first_gates():
    pairs, vectors = make_batch(0, texts=False)
    short = PairBatch(*(v[..., :3] for v in vectors), classes=pairs.classes)
    parameters = gates()
    expected = SimLAP(num_classes=3, size=3, parameters=parameters[:, :3])(short)
    torch.testing.assert_close(SimLAP(num_classes=3, size=4, parameters=parameters)(short), expected)


def test_own_rows():
    assert_own_rows(term_of(gates().detach()))


@pytest.mark.parametrize("classes", [[0, 0, 0, 0], [-1, -1, -1, -1], [0, -1, -1, -1], [0, 1, 0, 1]])
@pytest.mark.parametrize("partners", ["arbitrary", "identical"])
def test_nothing_to_contrast(classes, partners):
    """One class, none, or with arbitrary partners two: the loss is 0, with a gradient of 0."""
    vectors = [torch.randn(4, 3, requires_grad=True) for _ in "ab"]
    term = SimLAP(num_classes=2, size=3, partners=partners, parameters=torch.randn(3, 3, requires_grad=True))
    loss = term(PairBatch(*vectors, classes=torch.tensor(classes)))
    if (partners, classes[-1]) == ("identical", 1):
        assert (loss > 0).all()
        return
    loss.sum().backward()
    # With arbitrary partners, rows 0 and 2 and rows 1 and 3 are together: the same class each.
    if classes == [0, 1, 0, 1]:
        assert (loss > 0).all()
    else:
        assert (loss == 0).all() and not any(v.grad.any() for v in [*vectors, term.parameters])


@pytest.mark.parametrize("name", ["one row", "equal vectors", "zero vectors", "opposite vectors"])
def test_degenerate_batches(name):
    class Classed(SimLAP):
        def __call__(self, pairs):
            return super().__call__(replace(pairs, classes=torch.arange(len(pairs.anchors)) % 3))

    loss, _ = run_degenerate(Classed(num_classes=3, size=4), name)
    assert loss.any() == (name != "one row")


def test_bf16_and_autocast():
    class Classed(SimLAP):
        def __call__(self, pairs):
            return super().__call__(replace(pairs, classes=torch.arange(len(pairs.anchors)) % 3))

    assert_fp32_inside(Classed(num_classes=3, size=4))


def test_what_does_not_fit_is_said():
    pairs, _ = make_batch()
    with pytest.raises(ValueError, match="classes are numbers below num_classes=2, got 2"):
        SimLAP(num_classes=2, size=4)(pairs)
    with pytest.raises(ValueError, match="gates for vectors of size=3, but they have 4 numbers"):
        SimLAP(num_classes=3, size=3)(pairs)
    with pytest.raises(ValueError, match="needs the class of the rows: a column 'class'"):
        SimLAP(num_classes=3, size=4)(replace(pairs, classes=None))
    with pytest.raises(ValueError, match=r"parameters must be \(6, 4\), got \(2, 4\)"):
        SimLAP(num_classes=3, size=4, parameters=torch.ones(2, 4))
    with pytest.raises(ValueError, match="partners must be one of"):
        SimLAP(num_classes=3, size=4, partners="distinct")
