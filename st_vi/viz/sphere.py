"""Figures of pairs of points on a circle or a sphere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from st_vi.viz.theme import COLOURS

ALONE = "#8a8a8a"


def sphere_layout(dimension: int) -> dict[str, Any]:
    """Invisible, fixed axes; rotation by the user is kept."""
    hidden = {"visible": False, "range": [-1.1, 1.1]}
    if dimension == 2:
        return {"xaxis": hidden | {"scaleanchor": "y"}, "yaxis": hidden}
    camera = {"eye": {"x": 1.35, "y": 1.35, "z": 0.53}}  # far enough for a narrow cell
    scene = {"xaxis": hidden, "yaxis": hidden, "zaxis": hidden, "camera": camera, "dragmode": "orbit"}
    scene |= {"aspectmode": "cube"}
    return {"scene": scene, "uirevision": "kept"}


def sphere_traces(points: Tensor, classes: Sequence[int] | Tensor) -> list[dict[str, Any]]:
    """The traces of the figure, fast enough to update at every training step."""
    dimension = points.shape[-1]
    gap = torch.full_like(points[:1], torch.nan)
    ties = torch.cat([points, gap]).transpose(0, 1).flatten(0, 1)  # anchor, positive, gap, anchor, …
    kind = {"type": "scatter" if dimension == 2 else "scatter3d"}
    line = kind | {"mode": "lines", "hoverinfo": "skip", "showlegend": False}
    marker = {"color": _colours([int(name) for name in classes]), "size": 9 if dimension == 2 else 5}
    rows = [f"row {row}" for row in range(points.shape[1])]
    dots = kind | {"mode": "markers", "text": rows, "hoverinfo": "text+name"}
    return [
        line | _axes(_outline(dimension)) | {"name": "outline", "line": {"color": "#d0d0d0", "width": 1}},
        line | _axes(ties) | {"name": "pairs", "line": {"color": "#a8a8a8", "width": 2}},
        dots | _axes(points[0]) | {"name": "anchors", "marker": marker | {"symbol": "circle"}},
        dots | _axes(points[1]) | {"name": "positives", "marker": marker | {"symbol": "diamond"}},
    ]


def _axes(values: Tensor) -> dict[str, list[float | None]]:
    """Columns as x, y and z; NaN is a gap in a line."""
    rounded = values.detach().double().T.tolist()
    columns = [[None if v != v else round(v, 4) for v in column] for column in rounded]
    return dict(zip("xyz", columns, strict=False))


def _colours(classes: list[int]) -> list[str]:
    shared = sorted({name for name in classes if classes.count(name) > 1})
    palette = [colour for colour in COLOURS if colour != "#000000"]
    return [palette[shared.index(name) % len(palette)] if name in shared else ALONE for name in classes]


@cache
def _outline(dimension: int) -> Tensor:
    """The circle, or the circles of latitude and longitude of the sphere."""
    turn = torch.linspace(0, 2 * torch.pi, 49)
    sine, cosine, gap = turn.sin(), turn.cos(), torch.full((1, dimension), torch.nan)
    if dimension == 2:
        return torch.stack([cosine, sine], dim=1)
    circles = []
    for angle in torch.linspace(-torch.pi / 3, torch.pi / 3, 5):
        circles += [torch.stack([cosine * angle.cos(), sine * angle.cos(), angle.sin().expand(49)], dim=1), gap]
    for angle in torch.linspace(0, torch.pi, 7)[:-1]:
        circles += [torch.stack([cosine * angle.cos(), cosine * angle.sin(), sine], dim=1), gap]
    return torch.cat(circles)
