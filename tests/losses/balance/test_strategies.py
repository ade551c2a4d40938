"""Every strategy against its published formula over ten steps, in plain loops and float64."""

from __future__ import annotations

import json
import math

import pytest
import torch

from st_vi import DLELoss, Task
from st_vi.losses import DynamicWeightAverage, EqualGradientNorm, GradNorm, PCGrad, UncertaintyWeighting
from st_vi.losses.balance import BALANCES
from st_vi.terms import CosineAlignment, HardestNegativeMargin, InfoNCE, PairBatch, ScoreMSE
from tests.helpers.columns import LABELS, NAN

TASKS = (
    Task("scored", "", (InfoNCE(temperature=0.5), ScoreMSE(weight=3.0))),
    Task("paired", "", (CosineAlignment(weight=0.5), HardestNegativeMargin(margin=0.4, temperature=1.0))),
)
K = 4
RATE = 0.3  # of the strategy's parameters


def by_hand(anchors, positives, labels, whole_batch):
    """The mean of each term over the rows of its task and the share of these rows, a pair at a time."""
    units = [[v / v.norm() for v in column] for column in (anchors, positives)]
    means, shares = [torch.zeros((), dtype=torch.float64)] * K, [0.0] * K
    for task in (0, 1):
        rows = [i for i in range(len(labels)) if labels[i, 0] == task]
        seen = range(len(labels)) if whole_batch else rows
        losses = [[], []]
        for i in rows:
            cosines = {j: units[0][i] @ units[1][j] for j in seen}
            others = [cosines[j] for j in seen if j != i]
            if task == 0:
                total = sum((c / 0.5).exp() for c in cosines.values())
                losses[0].append(-((cosines[i] / 0.5).exp() / total).log() if others else cosines[i] * 0)
                losses[1].append(3.0 * ((cosines[i] + 1) / 2 - labels[i, 1]) ** 2)
            else:
                losses[0].append(0.5 * (1 - cosines[i]))
                losses[1].append((max(others) - cosines[i] + 0.4).clamp(min=0) if others else cosines[i] * 0)
        for term in (0, 1) if rows else ():
            means[2 * task + term] = sum(losses[term]) / len(rows)
            shares[2 * task + term] = len(rows) / len(labels)
    return means, shares


def gradients_of(means, shares, columns):
    found = []
    for mean, share in zip(means, shares, strict=True):
        parts = torch.autograd.grad(share * mean, columns, retain_graph=True) if mean.requires_grad else columns
        found.append(torch.cat([p.flatten() for p in parts]) * bool(share))
    return found


class Constants:
    def weights(self, means, shares, gradients):
        return [1.0] * K

    def added(self, shares):
        return 0.0

    def after(self):
        pass


class Uncertainty(Constants):
    def __init__(self):
        self.s = [0.0] * K

    def weights(self, means, shares, gradients):
        self.slopes = [n * (-math.exp(-s) * float(m) + 0.5) for n, s, m in zip(shares, self.s, means, strict=True)]
        return [math.exp(-s) for s in self.s]

    def added(self, shares):
        return sum(share * math.log(math.sqrt(math.exp(s))) for share, s in zip(shares, self.s, strict=True))

    def after(self):
        self.s = [s - RATE * slope for s, slope in zip(self.s, self.slopes, strict=True)]


class Norms(Constants):
    def __init__(self, alpha):
        self.w, self.first, self.alpha = [1.0] * K, [None] * K, alpha

    def weights(self, means, shares, gradients):
        norms = [float(g.norm()) for g in gradients]
        some = [k for k in range(K) if norms[k] > 0]
        for k in range(K):
            if self.first[k] is None and float(means[k]) > 0:
                self.first[k] = float(means[k])
        ratio = {k: float(means[k]) / self.first[k] if self.first[k] else 1.0 for k in some}
        mean_ratio = sum(ratio.values()) / len(some)
        mean_norm = sum(self.w[k] * norms[k] for k in some) / len(some)
        self.slopes = [0.0] * K
        for k in some:
            gap = self.w[k] * norms[k] - mean_norm * (ratio[k] / mean_ratio) ** self.alpha
            self.slopes[k] = math.copysign(norms[k], gap) if abs(gap) > 1e-12 else 0.0
        return list(self.w)

    def after(self):
        moved = [max(w - RATE * slope, 0.01) for w, slope in zip(self.w, self.slopes, strict=True)]
        self.w = [w * K / sum(moved) for w in moved]


class Average(Constants):
    def __init__(self):
        self.windows, self.window, self.steps = [[] for _ in range(K)], [], 0

    def weights(self, means, shares, gradients):
        self.window.append([(float(m), n) for m, n in zip(means, shares, strict=True)])
        r = [w[-1] / w[-2] if len(w) > 1 and w[-2] > 0 else 1.0 for w in self.windows]
        total = sum(math.exp(x / 1.5) for x in r)
        return [K * math.exp(x / 1.5) / total for x in r]

    def after(self):
        self.steps += 1
        if self.steps % 2 == 0:
            for k, of_term in enumerate(self.windows):
                if rows := sum(step[k][1] for step in self.window):
                    of_term.append(sum(mean * share for mean, share in (step[k] for step in self.window)) / rows)
            self.window = []


class Equal(Constants):
    def weights(self, means, shares, gradients):
        norms = [float(g.norm()) for g in gradients]
        mean = sum(norms) / sum(n > 0 for n in norms)
        return [mean / n if n > 0 else 1.0 for n in norms]


class Surgery(Constants):
    def weights(self, means, shares, gradients):
        order = torch.rand(K, K).argsort(dim=1)
        self.total = 0
        for i in range(K):
            projected = gradients[i].clone()
            for j in order[i].tolist():
                if j != i and (product := projected @ gradients[j]) < 0:
                    projected = projected - product / gradients[j].norm() ** 2 * gradients[j]
            self.total = self.total + projected
        return None  # gradients only


CASES = {
    "uncertainty": (UncertaintyWeighting, Uncertainty),
    "grad_norm": (lambda: GradNorm(alpha=0.7), lambda: Norms(0.7)),
    "dynamic_weight_average": (lambda: DynamicWeightAverage(temperature=1.5, every=2), Average),
    "equal_gradient_norm": (EqualGradientNorm, Equal),
    "pc_grad": (PCGrad, Surgery),
}


@pytest.mark.slow
@pytest.mark.parametrize("negatives", ["task", "batch"])
@pytest.mark.parametrize("name", CASES)
def test_ten_steps(name, negatives):
    strategy, naive = (make() for make in CASES[name])
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[0, 0.1], [1, NAN], [0, 0.9], [1, NAN], [0, 0.2], [1, NAN]], dtype=torch.float64)
    matrix = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    loss = DLELoss(None, TASKS, negatives=negatives, balance=strategy).double()
    loss.balance.start()
    optimizer = torch.optim.SGD(loss.balance.parameters(), lr=RATE) if list(loss.parameters()) else None
    moved = 0.0
    for step in range(10):
        rows = [0, 2, 4] if step in (1, 4, 5) else [1, 3] if step == 7 else list(range(6))  # one task, or both
        columns = [(column[rows] @ matrix).requires_grad_() for column in inputs]
        own = [column.detach().clone().requires_grad_() for column in columns]
        torch.manual_seed(step)
        actual = sum(loss.compute_loss_from_embeddings(own, labels[rows]).values())
        actual.backward()

        torch.manual_seed(step)
        means, shares = by_hand(*columns, labels[rows], negatives == "batch")
        gradients = gradients_of(means, shares, columns)
        means = [mean.detach() for mean in means]
        weights = naive.weights(means, shares, gradients)
        if weights is None:
            gradient = naive.total
            moved = max(moved, float((gradient - sum(gradients)).norm()))
        else:
            value = sum(w * n * float(m) for w, n, m in zip(weights, shares, means, strict=True)) + naive.added(shares)
            assert actual.item() == pytest.approx(value, rel=1e-9)
            gradient = sum(w * g for w, g in zip(weights, gradients, strict=True))
            moved = max(moved, *(abs(w - 1) for w, n in zip(weights, shares, strict=True) if n))
        torch.testing.assert_close(torch.cat([column.grad.flatten() for column in own]), gradient)

        if optimizer:
            optimizer.step()
            optimizer.zero_grad()
        loss.balance.step()
        naive.after()
        parts = [part.view_as(column) for part, column in zip(gradient.chunk(2), columns, strict=True)]
        matrix = matrix - 0.1 * sum(column[rows].T @ part for column, part in zip(inputs, parts, strict=True))
    assert moved > 0.05  # it has done something


@pytest.mark.slow
@pytest.mark.parametrize("name", BALANCES)
@pytest.mark.parametrize("negatives", ["task", "batch"])
def test_blocks_give_the_same(name, negatives):
    """Rows of one block, or one row at a time, with hard negatives and a text that is used twice."""
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(11, 5, generator=generator, dtype=torch.float64) for _ in range(3)]
    ids = [torch.arange(11) + 20 * number for number in range(3)]
    ids[1][8] = ids[1][9]
    results = []
    for max_matrix_bytes in (None, 10**6, 1):
        loss = DLELoss(None, negatives=negatives, balance=name).double()
        loss.balance.start()
        loss.max_matrix_bytes = max_matrix_bytes
        own = [column.clone().requires_grad_() for column in columns]
        torch.manual_seed(0)
        values = loss.compute_loss_from_embeddings(own, LABELS, ids)
        sum(values.values()).backward()
        found = [*values.values(), *(column.grad for column in own), *(p.grad for p in loss.parameters())]
        results.append([value.detach() for value in found])
    for other in results[1:]:
        for mine, theirs in zip(other, results[0], strict=True):
            torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("name", BALANCES)
def test_under_autocast_gradients_are_not_rounded(name):
    """They are measured before the autocast of the trainer ends."""
    columns = [torch.randn(7, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    results = []
    for enabled in (False, True):
        loss = DLELoss(None, TASKS, balance=name)
        loss.balance.start()
        labels = torch.tensor([[0, 0.1], [1, NAN], [0, 0.8], [1, NAN], [0, 0.3], [1, NAN], [1, NAN]])
        own = [column.clone().requires_grad_() for column in columns]
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values = loss.compute_loss_from_embeddings(own, labels)
        sum(values.values()).backward()
        results.append([column.grad for column in own])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_the_first_batch_is_that_of_the_constants_and_so_is_an_evaluation():
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(11, 5, generator=generator) for _ in range(2)]
    constants = DLELoss(None).compute_loss_from_embeddings(columns, LABELS)
    for name in BALANCES:
        loss = DLELoss(None, balance=name)
        with torch.no_grad():  # nothing is learned, and no keeper is needed
            assert loss.compute_loss_from_embeddings(columns, LABELS) == constants
        assert not loss.balance.take_log()
        loss.balance.start()
        if name not in ("equal_gradient_norm", "pc_grad"):
            first = loss.compute_loss_from_embeddings(columns, LABELS)
            for component, value in constants.items():
                torch.testing.assert_close(first[component], value)


def test_terms_without_rows_or_weight_learn_nothing():
    tasks = (Task("off", "", (CosineAlignment(weight=0.0),)), *TASKS)
    generator = torch.Generator().manual_seed(0)
    columns = [torch.randn(4, 5, generator=generator).requires_grad_() for _ in range(2)]
    labels = torch.tensor([[0, NAN], [2, NAN], [2, NAN], [0, NAN]])
    for name in BALANCES:
        loss = DLELoss(None, tasks, balance=name)
        loss.balance.start()
        values = loss.compute_loss_from_embeddings(columns, labels)
        assert [value.item() for value in values.values()][:3] == [0.0, 0.0, 0.0]
        sum(values.values()).backward()
        for parameter in loss.parameters():
            assert (parameter.grad[:3] == 0).all() and (parameter.grad[3:] != 0).any()
        log = loss.balance.take_log()
        assert [float(count) for _, count in log.values()] == [0, 0, 0, 1, 1]
        if name == "grad_norm":
            assert (loss.balance.first_losses[:3] == 0).all() and (loss.balance.first_losses[3:] > 0).all()


def test_a_state_goes_through_json():
    for name in BALANCES:
        loss, other = (DLELoss(None, TASKS, balance=name) for _ in range(2))
        for value in loss.balance.state_dict().values():
            value += 1 / 3 if value.is_floating_point() else 5
        other.balance.restore(json.loads(json.dumps(loss.balance.state())))
        for mine, theirs in zip(other.balance.state_dict().values(), loss.balance.state_dict().values(), strict=True):
            assert torch.equal(mine, theirs)
        with pytest.raises(ValueError, match=r"cannot go on from this state: its components is"):
            DLELoss(None, TASKS[:1], balance=name).balance.restore(loss.balance.state())


def test_what_cannot_be_is_said_by_name():
    with pytest.raises(ValueError, match="balance must be a Balance, None, or one of"):
        DLELoss(None, balance="gradnorm")
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1"):
        GradNorm(alpha=-1)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        DynamicWeightAverage(temperature=0)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got 0"):
        DynamicWeightAverage(every=0)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got nan"):
        DynamicWeightAverage(every=float("nan"))
    strategy = PCGrad()
    DLELoss(None, balance=strategy)
    with pytest.raises(ValueError, match="PCGrad belongs to another loss"):
        DLELoss(None, balance=strategy)
    columns, labels = [torch.eye(2)] * 2, torch.tensor([[1, NAN], [1, NAN]])
    for name in ("uncertainty", "grad_norm", "dynamic_weight_average"):
        loss = DLELoss(None, balance=name)
        with pytest.raises(
            ValueError, match=f"{type(loss.balance).__name__} changes with every optimizer step: .*Keeper"
        ):
            loss.compute_loss_from_embeddings(columns, labels)
        negative = DLELoss(None, (TASKS[0], Task("b", "", (CosineAlignment(weight=-1.0),))), balance=name)
        negative.balance.start()
        with pytest.raises(ValueError, match=r"needs losses of at least 0, and b_cosine_alignment is -1"):
            negative.compute_loss_from_embeddings([torch.eye(2), torch.eye(2).flip(0)], labels)
    balanced = DLELoss(None, balance="pc_grad").compute_loss_from_embeddings(
        [torch.eye(2).requires_grad_()] * 2, labels
    )
    with pytest.raises(ValueError, match="balanced loss has only the gradient of the sum"):
        balanced["instr_cosine_alignment"].backward()


@pytest.mark.parametrize("name", ["uncertainty", "grad_norm", "dynamic_weight_average"])
def test_a_loss_that_rounding_leaves_below_0_counts_as_0(name):
    """The cosine of a vector with itself can be 1.0000001, and 1 − cos is then no negative loss."""
    generator = torch.Generator().manual_seed(0)
    vector = next(v for v in torch.randn(100, 1, 16, generator=generator) if PairBatch(v, v).cosine > 1)
    loss = DLELoss(None, (Task("a", "", (CosineAlignment(),)),), balance=name)
    loss.balance.start()
    for _ in range(2):  # the second with what was learned from the first
        parts = loss.compute_loss_from_embeddings([vector.clone().requires_grad_(), vector], torch.tensor([[0, NAN]]))
        assert loss._measured.losses.tolist() == [0.0]
        sum(parts.values()).backward()
        loss.balance.step()
    assert all(value.isfinite().all() for value in loss.balance.state_dict().values())
