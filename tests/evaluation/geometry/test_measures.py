"""Every figure against double loops in float64, identities, and how much memory the large case takes."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from st_vi import DLELoss
from st_vi.evaluation import geometry as g
from st_vi.inspection.rankings import cosine_matrix
from st_vi.tasks import Task
from st_vi.terms import CosineAlignment, InfoNCE, ScoreMSE


def vectors(n=13, d=5, seed=0, shift=0.3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + shift


def units(x):
    return [row / np.sqrt((row * row).sum()) for row in x.double().numpy()]


def pairs(n):
    return list(itertools.combinations(range(n), 2))


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_alignment(alpha):
    x, y = vectors(), vectors(seed=1)
    expected = np.mean([math.dist(a, b) ** alpha for a, b in zip(units(x), units(y), strict=True)])
    assert g.alignment(x, 7 * y, alpha).item() == pytest.approx(expected, abs=1e-6)
    assert g.alignment(x, -x, alpha).item() == pytest.approx(2**alpha)
    assert g.alignment(x, 2 * x, alpha).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
@pytest.mark.parametrize("t", [0.5, 2.0, 300.0])
def test_uniformity(chunk, t):
    unit = units(vectors())
    logs = [-t * math.dist(unit[i], unit[j]) ** 2 for i, j in pairs(13)]
    expected = max(logs) + math.log(np.mean(np.exp(np.array(logs) - max(logs))))
    assert g.uniformity(5 * vectors(), t, chunk).item() == pytest.approx(expected, abs=1e-4, rel=1e-5)
    assert g.uniformity(torch.ones(9, 4), t, chunk).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("chunk", [3, 100])
def test_tolerance(chunk):
    labels = ["mưa", "nắng", "gió"] * 4 + ["mưa"]
    unit = units(vectors())
    same = [unit[i] @ unit[j] for i, j in pairs(13) if labels[i] == labels[j]]
    assert g.tolerance(vectors(), labels, chunk).item() == pytest.approx(np.mean(same))
    alone = [unit[0] @ unit[1]]  # classes with one member are in no pair
    assert g.tolerance(vectors(), torch.tensor([0, 0, *range(1, 12)]), chunk).item() == pytest.approx(*alone)


@pytest.mark.parametrize(
    "labels",
    [
        [("a", 1), ("b", 1), ("a", 1), ("b", 2)],
        ["1", 1, "1", 2],
        np.array([0, 1, 0, 2]),
        torch.tensor([5, 6, 5, 7]),
        [np.int64(3), 4, 3, np.int64(5)],
        list(torch.tensor([0, 1, 0, 2])),
    ],
)
def test_classes_of_any_kind(labels):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.cosine_similarity(x[0], x[2], dim=0).item()
    assert g.tolerance(x, labels).item() == pytest.approx(expected, abs=1e-6)


def test_mean_cosine():
    unit = units(vectors())
    expected = np.mean([unit[i] @ unit[j] for i, j in pairs(13)])
    assert g.mean_cosine(vectors()).item() == pytest.approx(expected)
    assert g.mean_cosine(torch.eye(4)).item() == pytest.approx(0, abs=1e-12)
    with_zero = torch.cat([torch.eye(2)[:1].expand(2, 2), torch.zeros(1, 2)])
    assert g.mean_cosine(with_zero).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
@pytest.mark.parametrize("center", [True, False])
def test_spectrum_and_effective_rank(shape, center):
    x = vectors(*shape, shift=2.0)
    centred = x.double().numpy() - (x.double().numpy().mean(0) if center else 0)
    values = np.linalg.svd(centred, compute_uv=False)
    np.testing.assert_allclose(g.singular_values(x, center), values, atol=1e-6)
    p = [v / values.sum() for v in values]
    rank = math.exp(-sum(v * math.log(v) for v in p if v > 1e-12))
    assert g.effective_rank(x, center).item() == pytest.approx(rank, rel=1e-6)


def test_effective_rank_of_known_sets():
    orthogonal = torch.linalg.qr(vectors(8, 8).double()).Q
    assert g.effective_rank(3 * orthogonal, center=False).item() == pytest.approx(8)
    both_signs = torch.cat([torch.eye(6), -torch.eye(6)])
    assert g.effective_rank(both_signs).item() == pytest.approx(6)
    assert g.effective_rank(torch.outer(torch.arange(30.0), torch.ones(4))).item() == pytest.approx(1, abs=1e-5)
    for n in (3, 300):
        assert g.effective_rank(torch.full((n, 5), 0.1)) == 0


def test_modality_gap():
    x, y = vectors(), vectors(9, seed=1, shift=-1.0)
    expected = math.dist(np.mean(units(x), axis=0), np.mean(units(y), axis=0))
    assert g.modality_gap(x, 4 * y).item() == pytest.approx(expected)
    assert g.modality_gap(x, x).item() == 0
    assert g.modality_gap(torch.eye(3)[:1].expand(4, 3), -torch.eye(3)[:1].expand(5, 3)).item() == pytest.approx(2)


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_neighbours(chunk):
    x = vectors()
    unit = units(x)
    for i, found in enumerate(g.nearest_neighbours(3 * x, 4, chunk).tolist()):
        others = sorted((j for j in range(13) if j != i), key=lambda j: -(unit[i] @ unit[j]))
        assert found == others[:4]
    assert g.nearest_neighbours(x, 12, chunk).sort().values[3].tolist() == [j for j in range(13) if j != 3]


def test_neighbourhood_overlap():
    x, y = vectors(), vectors(d=8, seed=1)
    before, after = (g.nearest_neighbours(v, 4).tolist() for v in (x, y))
    expected = [len({*a} & {*b}) / 4 for a, b in zip(before, after, strict=True)]
    assert 0 < np.mean(expected) < 1
    assert g.neighbourhood_overlap(x, y, k=4, chunk=3).tolist() == expected
    rotation = torch.linalg.qr(vectors(5, 5, seed=2).double()).Q
    assert (g.neighbourhood_overlap(x, 9 * x.double() @ rotation, k=4) == 1).all()


def test_relative_penalty_is_the_pull_of_info_nce():
    similarities, tau = vectors(1, 6).squeeze(0).double().requires_grad_(), 0.2
    positive = torch.tensor([1.0], dtype=torch.double)
    loss = -torch.cat([positive, similarities]).div(tau).log_softmax(0)[0]
    (gradient,) = torch.autograd.grad(loss, similarities)
    penalty = g.relative_penalty(similarities.detach(), tau)
    torch.testing.assert_close(penalty, gradient / gradient.sum())  # Wang and Liu's definition, Eq. 6 and 7
    masked = g.relative_penalty(torch.tensor([[0.1, -torch.inf, 0.3], [0.2, 0.2, 0.2]]), tau)
    assert masked[0, 1] == 0 and masked.sum(dim=1).tolist() == pytest.approx([1, 1])


def test_gradient_shares_of_a_real_loss():
    tasks = (
        Task(
            "text_pair",
            "",
            (InfoNCE(temperature=0.2, symmetric=True), ScoreMSE(weight=3.0), CosineAlignment(weight=0.0)),
        ),
    )
    embeddings = [vectors(6, 3, seed).double().requires_grad_() for seed in (0, 1)]
    labels = torch.tensor([[0.0, score] for score in (1, 0.8, 0.6, 0.4, 0.2, 0.0)], dtype=torch.double)
    loss = DLELoss(None, tasks, mask_duplicates=False)
    shares = g.gradient_shares(loss.compute_loss_from_embeddings(embeddings, labels), embeddings)

    def gradient(name):
        value = loss.compute_loss_from_embeddings(embeddings, labels)[name]
        return torch.cat(torch.autograd.grad(value, embeddings)).flatten()

    gradients = {name: gradient(name) for name in shares}
    total = sum(gradients.values())
    norms = sum(v.norm() for v in gradients.values())
    for name, (share, along) in shares.items():
        torch.testing.assert_close(share, gradients[name].norm() / norms)
        torch.testing.assert_close(along, gradients[name] @ total / (total @ total))
    assert shares["text_pair_cosine_alignment"].share == 0
    assert sum(share.along for share in shares.values()).item() == pytest.approx(1)
    nothing = g.gradient_shares({"none": torch.tensor(3.0)}, embeddings)["none"]
    assert nothing.share == 0 and nothing.along == 0


class Largest(TorchDispatchMode):
    """Number of values in the largest tensor that any operation has made."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor._base is None:
                self.values = max(self.values, tensor.numel())
        return result


@pytest.mark.parametrize(
    "measure",
    [
        lambda x: g.alignment(x, x),
        lambda x: g.uniformity(x, chunk=64),
        lambda x: g.tolerance(x, [i % 7 for i in range(len(x))], chunk=64),
        g.mean_cosine,
        g.effective_rank,
        lambda x: g.modality_gap(x, x),
        lambda x: g.nearest_neighbours(x, 5, chunk=64),
        lambda x: g.neighbourhood_overlap(x, x, 5, chunk=64),
    ],
)
def test_nothing_larger_than_the_input_is_made(measure):
    x = vectors(3000, 16)
    with Largest() as largest:
        measure(x)
    assert 0 < largest.values <= x.numel()  # 3,000² similarities would be 187 times that


def test_kinds_of_numbers():
    x = vectors(20)
    assert g.mean_cosine(x.numpy()).item() == g.mean_cosine(x).item()
    assert g.uniformity(x.bfloat16()).item() == pytest.approx(g.uniformity(x).item(), abs=0.02)
    assert not g.uniformity(x.requires_grad_()).requires_grad


@pytest.mark.parametrize("scale", [1e30, 1e-30])  # squares of such float32 are infinite, or zero
def test_the_length_of_vectors_does_not_matter(scale):
    x, y = vectors(), vectors(seed=1)
    for measure in (g.uniformity, g.mean_cosine, partial(g.alignment, y), partial(g.modality_gap, y)):
        assert measure(x * scale).item() == pytest.approx(measure(x).item(), rel=1e-5)
    assert torch.equal(g.nearest_neighbours(x * scale, 3), g.nearest_neighbours(x, 3))
    assert torch.allclose(cosine_matrix(x * scale, y), cosine_matrix(x, y), atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: g.mean_cosine(x[:1]), "two vectors or more"),
        (lambda x: g.uniformity(x[0]), "two vectors or more"),
        (lambda x: g.effective_rank(x.index_fill(0, torch.tensor(3), torch.nan)), "NaN"),
        (lambda x: g.alignment(x, x[1:]), "one shape"),
        (lambda x: g.modality_gap(x, x[:, 1:]), "one dimension"),
        *(
            (lambda x, k=k: g.nearest_neighbours(x, k), f"k must be a whole number from 1 to 12, got {k}")
            for k in (13, 0, -1, 2.0)
        ),
        (lambda x: g.uniformity(x, chunk=0), "chunk must be a whole number of at least 1, got 0"),
        (lambda x: g.uniformity(x[:, :0]), "two vectors or more"),
        (lambda x: g.neighbourhood_overlap(x, x[1:], 2), "same points"),
        (lambda x: g.tolerance(x, [1, 2]), "2 labels for 13"),
        (lambda x: g.tolerance(x, range(13)), "all labels differ"),
        (lambda x: g.tolerance(x, [None] * 13), "expected a label, got None"),
        (lambda x: g.relative_penalty(x, 0), "temperature"),
        (lambda x: g.relative_penalty(torch.tensor([torch.nan, 1.0]), 1), "NaN or inf"),
        (lambda x: g.relative_penalty(torch.tensor([torch.inf, 1.0]), 1), "NaN or inf"),
        *((lambda x, bad=bad: g.alignment(x, x, bad), "alpha must be positive") for bad in (0, -1, math.nan, math.inf)),
        *((lambda x, bad=bad: g.uniformity(x, bad), "t must be positive") for bad in (0, -1, math.nan, math.inf)),
        (lambda x: g.relative_penalty(torch.tensor([-torch.inf]), 1), "a negative"),
        (lambda x: g.gradient_shares({}, x), "components"),
        (lambda x: g.gradient_shares({"a": x.sum()}, x), "require a gradient"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(vectors())


def test_gradient_shares_of_terms_that_see_one_side_only():
    x, y = (torch.tensor([[1.0, 2.0]], requires_grad=True) for _ in range(2))
    shares = g.gradient_shares({"left": 3 * x.sum(), "right": 4 * y.sum()}, [x, y])
    assert shares["left"].share.item() == pytest.approx(3 / 7)  # norms 3√2 and 4√2, at right angles
    assert shares["right"].along.item() == pytest.approx(16 / 25)


def test_a_column_of_pandas_holds_vectors():
    x = vectors()
    expected = g.uniformity(x).item()
    for rows in (list(x.numpy()), x.tolist()):
        column = pd.Series(rows, index=range(len(x), 0, -1))
        assert g.uniformity(column).item() == g.uniformity(column.to_numpy()).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected numbers"):
        g.uniformity(pd.Series([*rows, None]))
