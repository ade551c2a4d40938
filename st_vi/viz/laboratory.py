"""Five panels of a small training: points, path, loss components, gradient shares and penalties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log10
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from st_vi.terms import Term
from st_vi.viz.dynamics import component_traces, penalty_traces, share_traces
from st_vi.viz.free_points import FreePoints, Moment
from st_vi.viz.plane import plane_traces
from st_vi.viz.sphere import sphere_layout, sphere_traces
from st_vi.viz.theme import COLOURS, styled

Traces = list[dict[str, Any]]
Point = tuple[float, float]
PLACES = ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2))
TITLES = (
    "anchors ●, positives ◆, twins in one colour",
    "alignment and uniformity",
    "weighted loss of each batch",
    "share of gradient (pale: of the step)",
    "push on negatives (red: on twins)",
)
SHORT = ("", "alignment", "loss of each batch", "share of gradient", "push on negatives")
MOMENTS = (0, 1, 2, 4, 8, 15, 25, 40, 60, 90, 120, 160, 200)


def panels(
    points: FreePoints, moment: Moment, history: Sequence[Mapping[str, Any]], path: Sequence[Point]
) -> list[Traces]:
    """The traces of the five panels, from the losses (as for `loss_components`) and the path of all steps so far."""
    shares = [
        trace | {"marker": {"color": COLOURS[: len(moment.shares)], "opacity": opacity}}  # the colours of the losses
        for trace, opacity in zip(share_traces(moment.shares), (1.0, 0.4), strict=True)
    ]
    return [
        sphere_traces(points.points, points.classes),
        plane_traces({}, path),
        component_traces(history),
        shares,
        penalty_traces(moment.mass),
    ]


def laboratory(drawn: Sequence[Traces], dimension: int = 3) -> list[go.Figure]:
    """A figure for each of the `panels`, the points first; none has a width, so they follow that of their cell."""
    figures = [
        styled(go.Figure(traces), title, height=480 if number == 0 else 250).update_layout(
            title_font_size=13, showlegend=False, barmode="relative", margin={"t": 44, "b": 40}
        )
        for number, (traces, title) in enumerate(zip(drawn, TITLES, strict=True))
    ]
    points, path, losses, shares, push = figures
    points.update_layout(sphere_layout(dimension), margin={"l": 8, "r": 8, "b": 8})
    path.update_layout(xaxis_title_text="uniformity", yaxis_title_text="alignment")
    losses.update_layout(xaxis_title_text="step", yaxis={"type": "log", "dtick": 1})
    shares.update_layout(xaxis_tickfont_size=10)
    push.update_layout(xaxis_title_text="rank of the negative")
    return figures


def in_one(drawn: Sequence[Traces], dimension: int = 3) -> go.Figure:
    """The five `panels` in one figure, as an animation needs; the colours of the shares are those of the losses."""
    points = {"type": "scene" if dimension == 3 else "xy", "colspan": 2}
    figure = make_subplots(
        3,
        2,
        specs=[[points, None], [{}, {}], [{}, {}]],
        subplot_titles=SHORT,
        row_heights=[0.46, 0.27, 0.27],
        vertical_spacing=0.13,
        horizontal_spacing=0.14,
    )
    for number, (traces, (row, column)) in enumerate(zip(drawn, PLACES, strict=True)):
        for trace in traces:
            figure.add_trace(trace | {"showlegend": number == 2}, row=row, col=column)
    figure.update_layout(sphere_layout(dimension))
    figure.update_xaxes(title="uniformity", row=2, col=1)
    figure.update_xaxes(title="step", row=2, col=2)
    figure.update_yaxes(type="log", dtick=1, row=2, col=2)
    figure.update_xaxes(showticklabels=False, row=3, col=1)
    figure.update_xaxes(title="rank of the negative", row=3, col=2)
    styled(figure, height=900)
    figure.update_annotations(font={"size": 12})
    legend = {"x": 0, "yref": "paper", "y": 1, "yanchor": "bottom", "itemclick": False, "itemdoubleclick": False}
    # Bars of different offset groups stand side by side, others on one another.
    return figure.update_layout(barmode="relative", legend=legend, margin={"l": 40, "t": 70, "b": 150})


def replay(
    points: FreePoints,
    terms: Sequence[Term],
    batch_size: int,
    moments: Sequence[int] = MOMENTS,
    spare_twins: bool = False,
) -> go.Figure:
    """Train the points in place, and show the `moments`, which are steps, with a slider that needs no kernel."""
    points.draw(batch_size)
    history: list[dict[str, float]] = []
    path: list[Point] = []
    frames = []
    for number in moments:
        while points.steps < number:
            points.step(terms, spare_twins)
        seen = points.look(terms, spare_twins)
        history.append(entry(seen, number))
        path.append((seen.alignment, seen.uniformity))
        frames.append(panels(points, seen, history, list(path)))
    film = in_one(frames[0], points.points.shape[-1])
    film.frames = [
        go.Frame(name=str(number), data=[trace for traces in drawn for trace in traces])
        for number, drawn in zip(moments, frames, strict=True)
    ]
    _fix_axes(film, frames, moments)
    move = {"frame": {"duration": 0, "redraw": True}, "mode": "immediate", "transition": {"duration": 0}}
    steps = [{"label": frame.name, "method": "animate", "args": [[frame.name], move]} for frame in film.frames]
    slider = {"steps": steps, "currentvalue": {"prefix": "step "}, "y": -0.08, "pad": {"t": 10}}
    return film.update_layout(sliders=[slider])


def entry(moment: Moment, step: int) -> dict[str, float]:
    """The log entry of this step, as from a trainer."""
    return {"step": step, **{f"dle/{name}": value for name, value in moment.components.items()}}


def _fix_axes(film: go.Figure, frames: list[list[Traces]], moments: Sequence[int]) -> None:
    """Set axes that fit all frames, because an animation does not adjust them."""
    _, path, components, _, _ = frames[-1]
    film.update_xaxes(range=_around(path[0]["x"]), row=2, col=1)
    film.update_yaxes(range=_around(path[0]["y"]), row=2, col=1)
    losses = [value for trace in components for value in trace["y"] if value > 0]
    film.update_xaxes(range=[-1, moments[-1] + 1], row=2, col=2)
    if losses:
        film.update_yaxes(range=_around([log10(max(min(losses), 1e-3)), log10(max(losses))]), row=2, col=2)
    film.update_yaxes(range=_around([0, 1, *_bars(drawn[3] for drawn in frames)]), row=3, col=1)
    film.update_yaxes(range=[0, 1], row=3, col=2)


def _bars(drawn: Iterable[Traces]) -> list[float]:
    return [value for traces in drawn for trace in traces for value in trace["y"]]


def _around(values: Sequence[float]) -> list[float]:
    gap = 0.05 * (max(values) - min(values)) + 0.01
    return [min(values) - gap, max(values) + gap]
