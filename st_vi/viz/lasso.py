"""Selection of points by lasso or box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go


def drawn_lines(figure: go.Figure) -> list[dict[str, Any]]:
    """The lassos and boxes in a figure, whose `layout.selections` may be outdated."""
    return figure.layout.to_plotly_json().get("selections") or []


def inside(points: np.ndarray, selection: Mapping[str, Any]) -> np.ndarray:
    """Whether each point (N, 2) lies inside an item of plotly's `layout.selections`, (N,) bool.

    The selection is a lasso (even-odd rule) or a box, in axis coordinates.

    Example:
        >>> import numpy as np
        >>> from st_vi.viz.lasso import inside
        >>> triangle = {"type": "path", "path": "M0,0L4,0L0,4Z"}
        >>> inside(np.array([[1, 1], [3, 3]]), triangle)
        array([ True, False])
    """
    x, y = np.asarray(points, dtype=float).T
    if selection["type"] == "rect":
        (left, right), (low, high) = (sorted((selection[f"{axis}0"], selection[f"{axis}1"])) for axis in "xy")
        return (left <= x) & (x <= right) & (low <= y) & (y <= high)
    corners = np.array([corner.split(",") for corner in selection["path"].strip("MZ ").split("L")], dtype=float)
    is_inside = np.zeros(len(x), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 != y1:  # each side crossed by a ray to the right switches between inside and outside
            is_inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (x1 - x0) * (y - y0) / (y1 - y0))
    return is_inside
