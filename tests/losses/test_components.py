"""Components are weighted and added name by name, and never lose one."""

from __future__ import annotations

import pytest
import torch

from st_vi.losses.components import Components


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
