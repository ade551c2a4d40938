"""Components are weighted and added name by name, and never lose one."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import AdaptiveLayerLoss, Matryoshka2dLoss

from st_vi import CachedDLELoss, CachedSupConNLILoss, DLELoss
from st_vi.losses.components import Components
from tests.helpers.columns import LABELS, TEXTS, Summed, assert_same, loss_step


def test_they_are_added_by_name():
    one, two = (Components(a=torch.tensor(a), b=torch.tensor(b)) for a, b in ((1.0, 2.0), (3.0, 5.0)))
    total = sum([one, 0.5 * two])
    assert {name: value.item() for name, value in total.items()} == {"a": 2.5, "b": 4.5}


def test_other_names_and_numbers_are_refused():
    one = Components(a=torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"these have other names: \['b'\]"):
        one + Components(a=torch.tensor(1.0), b=torch.tensor(2.0))
    with pytest.raises(TypeError, match=r"or to 0, got 1.0"):
        one + 1.0


def test_what_a_wrapper_adds_is_a_component_of_its_own():
    one, tensor = Components(a=torch.tensor(3.0)), torch.tensor(2.0)
    total = one / 2 + tensor + one / 2 + tensor
    assert {name: value.item() for name, value in total.items()} == {"a": 3.0, "other": 4.0}


@pytest.mark.parametrize("wrap", [AdaptiveLayerLoss, partial(Matryoshka2dLoss, matryoshka_dims=[32, 16])])
def test_layers_are_summed_as_those_of_a_scalar(tiny_model, wrap):
    loss = DLELoss(tiny_model)
    wrapped = [
        Summed(wrap(tiny_model, loss, n_layers_per_step=-1)),
        wrap(tiny_model, Summed(loss), n_layers_per_step=-1),
    ]
    mine, theirs = [], []
    for found, one in zip((mine, theirs), wrapped, strict=True):
        random.seed(0)
        found += loss_step(tiny_model, one, TEXTS[:2], LABELS[:5])
    assert_same(mine, theirs, 1e-5)


@pytest.mark.filterwarnings("ignore:.*is not compatible with")  # of stock, before it fails otherwise
@pytest.mark.parametrize("kind", [CachedDLELoss, CachedSupConNLILoss])
def test_layers_of_cached_losses_are_refused(tiny_model, kind):
    loss = AdaptiveLayerLoss(tiny_model, kind(tiny_model))
    with pytest.raises(
        ValueError, match=f"{kind.__name__} cannot be in AdaptiveLayerLoss, .*: use {kind.__name__[6:]}"
    ):
        loss_step(tiny_model, loss, TEXTS[:2], LABELS[:5])
