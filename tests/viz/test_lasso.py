from __future__ import annotations

import numpy as np
import pytest

from st_vi.viz.lasso import inside


def path(corners):
    return {"type": "path", "path": "M" + "L".join(f"{x},{y}" for x, y in corners) + "Z"}


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform(-2, 2, size=(500, 2))


def winding(point, corners):
    """How often the corners go around the point: the sum of the angles under which it sees the sides."""
    seen = np.unwrap(np.arctan2(*(np.vstack([corners, corners[:1]]) - point).T[::-1]))
    return round((seen[-1] - seen[0]) / (2 * np.pi))


@pytest.mark.parametrize("turn", [1, -1])
def test_any_shape(points, turn):
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)[::turn]
    radius = 1 + 0.5 * np.sin(5 * angles)  # a star, not convex
    corners = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    expected = [winding(point, corners) != 0 for point in points]
    assert 0 < sum(expected) < 500
    assert inside(points, path(corners)).tolist() == expected


def test_level_sides(points):
    expected = (np.abs(points) < 1).all(axis=1).tolist()
    assert inside(points, path([(-1, -1), (1, -1), (1, 1), (-1, 1)])).tolist() == expected


@pytest.mark.parametrize("ends", [{"x0": -1, "x1": 1, "y0": -1, "y1": 1}, {"x0": 1, "x1": -1, "y0": 1, "y1": -1}])
def test_box(points, ends):
    box = dict(type="rect", **ends)
    assert inside(points, box).tolist() == (np.abs(points) < 1).all(axis=1).tolist()


def test_small_numbers_as_the_page_writes_them():
    tiny = {"type": "path", "path": "M-1e-7,-1e-7L1e-7,-1e-7L0,1e-7Z"}
    assert inside(np.array([[0, 0], [1, 1]]), tiny).tolist() == [True, False]
