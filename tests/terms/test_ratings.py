"""The region loss against loops over pairs of rows and pairs of levels, in values and gradients, and in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from st_vi.terms.ratings import region_losses, regions_of

SCORES = [0.0, 1.0, 0.4, 0.45, 0.9, 0.9, 0.2]  # a tie, and two scores on one level


def levels_of(scores, count):
    return torch.tensor([math.floor(score * (count - 1) + 0.5) for score in scores])


def naive(p, scores, levels, regions, flood):
    """−log P of every pair that there is."""
    found = {}
    for i in range(len(scores)):
        for j in range(len(scores)):
            own, other = ([k for k in range(len(regions)) if regions[k] == regions[levels[row]]] for row in (i, j))
            cells = [(a, b) for a in range(len(regions)) for b in range(a) if a <= max(own) and b >= min(other)]
            if not flood:
                cells = [(a, b) for a, b in cells if a in own and b in other]
            if scores[i] > scores[j] and cells:
                found[i, j] = -sum(p[i, a] * p[j, b] for a, b in cells).log()
    return found


@pytest.mark.parametrize("flood", [True, False])
@pytest.mark.parametrize(("count", "cuts"), [(9, 1), (9, 3), (9, 9), (7, 3), (2, 1), (2, 2)])
def test_equals_the_naive_loop(count, cuts, flood):
    logits = torch.randn(len(SCORES), count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    logits.requires_grad_()
    scores, levels, regions = torch.tensor(SCORES), levels_of(SCORES, count), regions_of(count, cuts)
    losses, pairs = region_losses(logits.log_softmax(dim=1), scores, levels, regions, flood)
    expected = naive(logits.softmax(dim=1), SCORES, levels.tolist(), regions.tolist(), flood)
    assert {(i, j) for i, j in pairs.nonzero().tolist()} == set(expected) and expected
    weights = {pair: 0.5 + number for number, pair in enumerate(expected)}
    torch.testing.assert_close(torch.stack([losses[pair] for pair in expected]), torch.stack([*expected.values()]))
    mine, theirs = (
        torch.autograd.grad(sum(weights[pair] * loss[pair] for pair in expected), logits, retain_graph=True)[0]
        for loss in (losses, expected)
    )
    torch.testing.assert_close(mine, theirs)
    assert theirs.abs().sum() > 0


def test_one_region_has_the_gradients_that_the_paper_gives():
    """∂P/∂p_i(k) = P(s_j < k) and ∂P/∂p_j(k) = P(s_i > k)."""
    p = torch.rand(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = (p / p.sum(dim=1, keepdim=True)).requires_grad_()
    losses, _ = region_losses(p.log(), torch.tensor([1.0, 0.0]), torch.tensor([4, 0]), regions_of(5, 1))
    (gradient,) = torch.autograd.grad((-losses[0, 1]).exp(), p)
    torch.testing.assert_close(gradient[0], torch.stack([p[1, :k].sum() for k in range(5)]))
    torch.testing.assert_close(gradient[1], torch.stack([p[0, k + 1 :].sum() for k in range(5)]))


def test_a_region_for_each_level_wants_neighbours_to_be_exact():
    log_p = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    losses, pairs = region_losses(log_p, torch.tensor([0.75, 0.5]), torch.tensor([3, 2]), regions_of(5, 5))
    assert pairs.tolist() == [[False, True], [False, False]]
    torch.testing.assert_close(losses[0, 1], -(log_p[0, 3] + log_p[1, 2]))


def test_without_flooding_a_region_for_each_level_is_the_likelihood():
    log_p = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    levels = torch.tensor([4, 0, 2])
    losses, pairs = region_losses(log_p, levels / 4, levels, regions_of(5, 5), flood=False)
    exact = -log_p.gather(1, levels[:, None])
    torch.testing.assert_close(losses[pairs], (exact + exact.T)[pairs])
    assert pairs.sum() == 3


def test_probabilities_that_fp32_cannot_hold_have_a_gradient():
    logits = torch.tensor([[400.0, 0.0, 0.0], [0.0, 0.0, 400.0]], requires_grad=True)  # both as wrong as can be
    losses, pairs = region_losses(
        logits.log_softmax(dim=1), torch.tensor([1.0, 0.0]), torch.tensor([2, 0]), regions_of(3, 3)
    )
    losses[pairs].sum().backward()
    assert losses[0, 1].item() == pytest.approx(800 - math.log(3), rel=1e-5)
    assert logits.grad.isfinite().all() and logits.grad[0, 0] > 0.9


def test_regions():
    assert regions_of(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    for count in (0, 5, 1.5, 2.0):
        with pytest.raises(ValueError, match=f"regions must be a whole number from 1 to 4, got {count}"):
            regions_of(4, count)
