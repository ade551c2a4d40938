"""What counts as one input and what as several."""

from __future__ import annotations

import pytest

from st_vi.inputs.as_list import as_list


@pytest.mark.parametrize(
    "one",
    [
        {"text": "Hai con mèo.", "image": ["a.png", "b.png"]},
        {"video": ["1.png", "2.png"]},
        {"role": "user", "content": [{"type": "text", "text": "Mưa."}]},
    ],
    ids=lambda one: " ".join(one),
)
def test_a_dict_whose_part_is_a_list_is_one_input(one):
    """A list of texts would be a column."""
    assert as_list(one) == ([one], True)
