"""Two figures decide how good a contrastive space is, so a model is a point on a plane, and a training a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from st_vi.viz.theme import COLOURS, styled

Point = tuple[float, float]


def alignment_uniformity_plane(
    points: Mapping[str, Point] | None = None, path: Sequence[Point] = (), title: str = "Alignment and uniformity"
) -> go.Figure:
    """Models, and perhaps a training, on the plane of Wang and Isola (2020, arXiv 2005.10242): lower left is better.

    Args:
        points: (alignment, uniformity) of each model by name, as `st_vi.evaluation.geometry.measures` measures them.
        path: The same of the moments of one training, in order; its last is marked.
        title: Above the figure.

    Returns:
        A figure whose first trace is the path, its second the end of the path, and its third the models.

    Raises:
        ValueError: Neither points nor a path.

    Example:
        >>> from st_vi.viz.plane import alignment_uniformity_plane
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
    """The traces of the figure alone: cheap enough for every step of a training."""
    names = {"mode": "markers+text", "text": list(points), "textposition": "top center", "cliponaxis": False}
    return [
        _trace(path, mode="lines", line={"color": COLOURS[5], "width": 2}),
        _trace(path[-1:], mode="markers", marker={"color": COLOURS[1], "size": 11}),
        _trace(list(points.values()), **names, marker={"color": COLOURS[0], "size": 10}),
    ]


def _trace(points: Sequence[Point], **style: Any) -> dict[str, Any]:
    alignments, uniformities = zip(*points, strict=True) if points else ((), ())
    hover = "%{text}<br>uniformity %{x:.3f}<br>alignment %{y:.3f}<extra></extra>"
    return {"type": "scatter", "x": uniformities, "y": alignments, "hovertemplate": hover, "showlegend": False, **style}
