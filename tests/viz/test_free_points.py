"""The points are trained by the real loss: one step against one written out by hand, and what the settings do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from st_vi import DLELoss
from st_vi.tasks import Task
from st_vi.terms import InfoNCE, ScoreMSE
from st_vi.viz.free_points import ALL_TERMS, FreePoints, adjusted

TERMS = adjusted(ALL_TERMS, 0.07, {"InfoNCE": 1.0, "ScoreMSE": 3.0, "PairwiseRank": 1.0})


def trained(steps=150, terms=TERMS, spare_twins=False, **settings):
    points = FreePoints(**settings)
    points.draw(16)
    for _ in range(steps):
        points.step(terms, spare_twins)
    return points, points.look(terms, spare_twins)


def test_one_step_by_hand():
    points = FreePoints(rows=10, twins=0.4, learning_rate=0.2)
    points.draw(6)
    batch, before = points.batch.clone(), points.points.detach().clone().requires_grad_()
    labels = torch.stack([torch.zeros(6), points.scores[batch]], dim=1)
    loss = DLELoss(None, [Task("text_pair", "", TERMS)], mask_duplicates=False)
    values = loss.compute_loss_from_embeddings([before[0, batch], before[1, batch]], labels)
    moment = points.look(TERMS)
    assert list(moment.components.values()) == pytest.approx([value.item() for value in values.values()])
    (gradient,) = torch.autograd.grad(sum(values.values()), before)
    points.step(TERMS)
    torch.testing.assert_close(points.points.detach(), F.normalize(before.detach() - 0.2 * gradient, dim=-1))
    assert points.steps == 1 and len(points.batch) == 6
    rest = [row for row in range(10) if row not in batch]
    torch.testing.assert_close(points.points[:, rest], before[:, rest])


def test_twins_are_false_negatives_until_the_loss_is_told():
    points, before = trained(0, twins=0.5)
    assert len(points.classes.unique()) == 18 and before.tolerance > 0.9 and trained(0)[1].tolerance is None
    _, pushed = trained(twins=0.5)
    _, spared = trained(twins=0.5, spare_twins=True)
    assert pushed.mass[1].sum() > 0.05 and spared.mass[1].sum() == 0
    assert pushed.tolerance < spared.tolerance - 0.05
    for moment in (before, pushed, spared):
        assert moment.mass.sum().item() == pytest.approx(1, abs=1e-5)


def test_mass_against_a_loop():
    points = FreePoints(rows=12, twins=0.5, seed=3)
    points.draw(7)
    anchors, positives = points.points.detach()[:, points.batch].double()
    expected = torch.zeros(2, 6, dtype=torch.double)
    for i in range(7):
        others = sorted((j for j in range(7) if j != i), key=lambda j: -(anchors[i] @ positives[j]))
        weights = torch.tensor([(anchors[i] @ positives[j] / 0.07).exp() for j in others])
        for rank, j in enumerate(others):
            twin = points.classes[points.batch[i]] == points.classes[points.batch[j]]
            expected[int(twin), rank] += weights[rank] / weights.sum() / 7
    assert expected[1].sum() > 0
    torch.testing.assert_close(points.look(TERMS).mass.double(), expected, atol=1e-5, rtol=1e-4)


def test_training_brings_pairs_together_and_spreads_them():
    _, before = trained(0)
    _, after = trained()
    assert after.alignment < 0.2 * before.alignment and after.uniformity < before.uniformity
    assert before.found < 0.2 and after.found > 0.8


def test_temperature_and_weights():
    points, cold = trained(20, seed=1)
    warm = points.look(adjusted(TERMS, 0.5, {"InfoNCE": 1.0}))
    assert warm.mass[0, 0] < cold.mass[0, 0]
    assert [name for name, (share, _) in warm.shares.items() if share > 0] == ["InfoNCE"]
    heavy = points.look(adjusted(TERMS, 0.07, {"InfoNCE": 1.0, "ScoreMSE": 6.0}))
    assert heavy.components["ScoreMSE"] == pytest.approx(2 * cold.components["ScoreMSE"])
    assert adjusted((InfoNCE(), ScoreMSE()), 0.3, {})[0] == InfoNCE(temperature=0.3, weight=0.0)


def test_nothing_moves_without_a_weight():
    points, moment = trained(3, terms=adjusted(ALL_TERMS, 0.07, {}))
    torch.testing.assert_close(points.points, FreePoints().points)
    assert all(share == 0 for share, _ in moment.shares.values())


def test_a_batch_of_twins_alone_has_no_negative():
    points = FreePoints(rows=4, twins=1.0)
    points.batch = torch.tensor([0, 1])
    assert points.look(TERMS, spare_twins=True).mass.sum() == 0
    points.step(TERMS, spare_twins=True)
    assert points.points.isfinite().all()


@pytest.mark.parametrize("settings", [{"rows": 3}, {"dimension": 1}, {"twins": 1.5}])
def test_what_is_refused(settings):
    with pytest.raises(ValueError, match="there must be"):
        FreePoints(**settings)


@pytest.mark.parametrize("size", [1, 25])
def test_batch_sizes_that_are_refused(size):
    with pytest.raises(ValueError, match="between 2 and 24"):
        FreePoints().draw(size)
