"""The film shows the training that happens without it."""

from __future__ import annotations

import pytest

from st_vi.viz.free_points import ALL_TERMS, FreePoints
from st_vi.viz.laboratory import replay

ANCHORS, PATH, MSE, ALONG, FALSE_MASS = 2, 4, 8, 13, 15


@pytest.mark.parametrize("dimension", [2, 3])
def test_frames_are_the_moments_of_the_training(dimension):
    film = replay(FreePoints(8, dimension, twins=0.5), ALL_TERMS, 6, moments=(0, 2, 5))
    points = FreePoints(8, dimension, twins=0.5)
    points.draw(6)
    for _ in range(5):
        points.step(ALL_TERMS)
    moment = points.look(ALL_TERMS)
    last = film.frames[2].data
    assert list(last[ANCHORS].x) == pytest.approx(points.points[0, :, 0].tolist(), abs=1e-4)
    assert last[PATH].y[2] == pytest.approx(moment.alignment) and len(last[PATH].y) == 3
    assert list(last[MSE].x) == [0, 2, 5] and last[MSE].y[2] == pytest.approx(moment.components["ScoreMSE"])
    assert list(last[ALONG].y) == pytest.approx([share.along.item() for share in moment.shares.values()])
    assert list(last[FALSE_MASS].y) == pytest.approx(moment.mass[1].tolist())
    assert [len(frame.data) for frame in film.frames] == [len(film.data)] * 3
    assert [step.label for step in film.layout.sliders[0].steps] == ["0", "2", "5"]
    low, high = film.layout[film.data[PATH].xaxis.replace("x", "xaxis")].range  # fixed, and wide enough for all frames
    assert all(low < x < high for x in last[PATH].x)
