"""Models and training runs on the alignment–uniformity plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from st_vi.viz.theme import COLOURS, escaped, styled

Point = tuple[float, float]


def alignment_uniformity_plane(
    points: Mapping[str, Point] | None = None, path: Sequence[Point] = (), title: str = "Alignment and uniformity"
) -> go.Figure:
    """Models, and optionally a training run, on the plane of Wang and Isola (2020, arXiv 2005.10242).

    Lower left is better.

    Args:
        points: Model name to (alignment, uniformity), as measured by `st_vi.evaluation.geometry.measures`.
        path: (alignment, uniformity) during one training run, in order; the last is marked.
        title: Title of the figure.

    Returns:
        A figure with the traces path, end of the path, models.

    Raises:
        ValueError: There are neither points nor a path.

    Example:
        >>> from st_vi.viz import alignment_uniformity_plane
        >>> figure = alignment_uniformity_plane({"before": (0.3, -1.0), "after": (0.2, -2.5)})
        >>> figure.data[2].text
        ('before', 'after')
    """
    if not points and not path:
        raise ValueError("there must be a model or a path to draw, as (alignment, uniformity)")
    figure = go.Figure(plane_traces(points or {}, path))
    figure.update_layout(
        xaxis={"title": {"text": "uniformity (lower is more even)"}},
        yaxis={"title": {"text": "alignment (lower is nearer)"}},
    )
    return styled(figure, title)


def plane_traces(points: Mapping[str, Point], path: Sequence[Point]) -> list[dict[str, Any]]:
    """The traces of the figure, fast enough to update at every training step."""
    names = {"mode": "markers+text", "text": [*map(escaped, points)], "textposition": "top center", "cliponaxis": False}
    return [
        _trace(path, mode="lines", line={"color": COLOURS[5], "width": 2}),
        _trace(path[-1:], mode="markers", marker={"color": COLOURS[1], "size": 11}),
        _trace(list(points.values()), **names, marker={"color": COLOURS[0], "size": 10}),
    ]


def _trace(points: Sequence[Point], **style: Any) -> dict[str, Any]:
    alignments, uniformities = zip(*points, strict=True) if points else ((), ())
    hover = "%{text}<br>uniformity %{x:.3f}<br>alignment %{y:.3f}<extra></extra>"
    return {"type": "scatter", "x": uniformities, "y": alignments, "hovertemplate": hover, "showlegend": False, **style}
