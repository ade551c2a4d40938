"""The experiment collapses and recovers as it says, and its slider shows the runs."""

from __future__ import annotations

from math import log
from statistics import fmean

import pytest

from st_vi.viz.collapse import BATCH, NOISE, at_the_end, collapse_figure, collapse_runs, train_with_margin

HARD, EASY = NOISE


@pytest.fixture(scope="module")
def runs():
    return collapse_runs(weights=(0.0, 20.0), steps=100)


@pytest.mark.slow
def test_a_margin_collapses_only_what_is_hard_to_tell_apart(runs):
    ends = {name: at_the_end(losses) for name, losses in runs.items()}
    assert 0.95 * log(BATCH) < ends[HARD, 20.0] < 1.02 * log(BATCH)
    assert ends[HARD, 0.0] < 0.7 * log(BATCH)
    assert ends[EASY, 20.0] < 0.5 and ends[EASY, 0.0] < 0.5


def test_a_run_is_the_same_every_time():
    assert train_with_margin(1.0, 5.0, steps=5) == train_with_margin(1.0, 5.0, steps=5)
    assert train_with_margin(1.0, 5.0, steps=5) != train_with_margin(1.0, 5.0, steps=5, seed=1)


def test_the_slider_shows_each_run(runs):
    figure = collapse_figure(runs)
    assert [trace.name for trace in figure.data[::2]] == [HARD, EASY]
    for step, weight in zip(figure.layout.sliders[0].steps, (0.0, 20.0), strict=True):
        (change, traces) = step.args
        assert list(traces) == [0, 2] and step.method == "restyle"
        for shown, kind in zip(change["y"], (HARD, EASY), strict=True):
            blocks = [fmean(runs[kind, weight][start : start + 10]) for start in range(0, 100, 10)]
            assert list(shown) == pytest.approx(blocks, abs=1e-3)
    assert list(figure.data[1].y) == list(figure.layout.sliders[0].steps[0].args[0]["y"][0])  # the control
    assert list(figure.data[0].y) == list(figure.layout.sliders[0].steps[1].args[0]["y"][0])
    assert figure.layout.sliders[0].active == 1 and collapse_figure(runs, 0.0).layout.sliders[0].active == 0
    assert figure.layout.shapes[0].y0 == pytest.approx(log(BATCH))
    with pytest.raises(ValueError, match="no run with weight 3"):
        collapse_figure(runs, weight=3)
