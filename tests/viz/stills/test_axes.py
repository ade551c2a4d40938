"""Axes of still pictures show round numbers, and all that is drawn."""

from __future__ import annotations

import pytest

pytest.importorskip("plotly")

import numpy as np

from st_vi.viz.stills.axes import Axis, column


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-0.3, 0.3, ["−0.3", "−0.2", "−0.1", "0", "0.1", "0.2", "0.3"]),
        (0, 14_000, ["0", "2,000", "4,000", "6,000", "8,000", "10,000", "12,000", "14,000"]),
        (5, 5, ["5"]),
    ],
)
def test_ticks_are_round(low, high, labels):
    assert [label for _, label in Axis({}, low, high).ticks()] == labels


def test_ticks_of_a_logarithmic_axis():
    axis = Axis({"type": "log", "range": [np.log10(30), np.log10(0.5)]})
    axis.fit([], 0)
    assert [label for _, label in axis.ticks()] == ["0.5", "1", "2", "5", "10", "20"]
    assert np.isnan(axis.number(0)) and np.isnan(axis.number(None))


def test_own_ticks_and_shares():
    assert Axis({"tickvals": [0, 1, 5], "ticktext": ["a", "b", "c"]}, 0, 2).ticks() == [(0, "a"), (1, "b")]
    assert [label for _, label in Axis({"tickformat": ".0%"}, 0, 0.2).ticks()][:2] == ["0%", "5%"]
    assert Axis({"showticklabels": False}).ticks() == []


def test_an_axis_fits_what_is_drawn():
    axis = Axis({})
    axis.fit([(0.0, 2.0), (1.0, 4.0)], 0.05)
    assert (axis.low, axis.high) == (-0.2, 4.2)
    axis.fit([(0.0, 2.0), (1.0, 4.0)], 0.05, stands=True)
    assert (axis.low, axis.high) == (0, 4.2)
    axis = Axis({"autorange": "reversed"}, names=["a", "b"])
    axis.fit([], 0.05)
    assert (axis.low, axis.high) == (1.5, -0.5) and axis.number("b") == 1 and np.isnan(axis.number("c"))


def test_columns():
    numbers = np.arange(6.0).reshape(2, 3)
    written = {"bdata": __import__("base64").b64encode(numbers.tobytes()).decode(), "dtype": "f8", "shape": "2, 3"}
    assert column(written) == column(numbers) == numbers.tolist()
    assert column(None) == [] and column(("a", None)) == ["a", None]
