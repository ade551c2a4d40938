"""Two-dimensional maps of embeddings."""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from st_vi.checks import check_whole
from st_vi.evaluation.base import by_place
from st_vi.viz.projection import Projection, as_points
from st_vi.viz.theme import COLOURS, SEQUENTIAL, TEMPLATE, escaped, styled

SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "cross": "✚",
    "x": "✖",
    "triangle-down": "▼",
    "star": "★",
    "triangle-right": "►",
}
"""Plotly symbols and similar letters, not as many as colours, so that combinations repeat late."""
REST = ("#b5b5b5", "circle")
FIXED_LEGEND = {"itemclick": False, "itemdoubleclick": False}
"""Legend without clicks, because its entries are traces without points."""
WIDE = {"xref": "container", "x": 0, "maxheight": 0.6}
"""Place of the legend: as wide as the figure."""
OPACITY = 0.6
"""Opacity of a point, so that points below it are seen."""
LETTER = 6
"""Width of a letter of the legend in pixels, about."""
MOST_LABELS = 10
"""Maximum number of coloured labels; the rarest others are grey."""
TWIN_LIMIT = 5_000
"""Maximum number of points in a map that is stored in a page."""


def scatter(
    points: np.ndarray | Projection,
    labels: Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    title: str = "",
    limit: int = 20_000,
    shown: Sequence[str] | None = None,
    shares: Sequence[float] | None = None,
) -> go.Figure:
    """A map with one point per row, its text on hover, and a colour and symbol for each label.

    The first trace holds all points in row order; the other traces are legend entries.

    Args:
        points: (N, 2), or the result of `project`.
        labels: N names.
        texts: N texts; long ones are wrapped and truncated.
        title: Title of the figure.
        limit: Maximum number of points. If there are more, a fixed sample is drawn, and the title says so.
        shown: Labels to colour; the others are grey. None colours all, or the 10 most frequent.
        shares: N numbers in [0, 1] to colour by, instead of the labels.

    Raises:
        ValueError: The number of labels, texts or shares differs from the number of points, or these are not (N, 2) or
            hold NaN or infinite values.

    Example:
        >>> import numpy as np
        >>> from st_vi.viz import scatter
        >>> figure = scatter(np.eye(2), labels=["mưa", "nắng"], texts=["Trời mưa.", "Trời nắng."])
        >>> [trace.name for trace in figure.data]
        ['points', 'mưa', 'nắng']
    """
    labels, texts = (None if column is None else by_place(column) for column in (labels, texts))
    projection = points if isinstance(points, Projection) else Projection(as_points(points))
    rows = sample_rows(len(projection.points), limit)
    figure = go.Figure([point_trace(projection.points, rows, labels, texts, shown, shares)])
    figure.add_traces([] if shares is not None else legend_traces(labels, shown))
    if len(rows) < len(projection.points):
        title = f"{title} ({len(rows):,} of {len(projection.points):,} points)".strip()
    return with_axes(styled(figure, title, height=430), projection)


def with_axes(figure: go.Figure, projection: Projection) -> go.Figure:
    """Set axes that fit the projection, in place: equal scales, and tick labels only if they have a meaning."""
    figure.update_layout(legend=_legend(figure.data))
    figure.update_xaxes(title=projection.axes[0], showticklabels=bool(projection.axes[0]), zeroline=False)
    figure.update_yaxes(title=projection.axes[1], showticklabels=bool(projection.axes[1]), zeroline=False)
    figure.update_yaxes(scaleanchor="x")
    return figure


def _legend(traces: Iterable[go.Scattergl]) -> dict[str, Any]:
    """Layout of the legend of these traces, with as many columns as fit the width of the page."""
    names = [len(html.unescape(trace.name)) for trace in traces if trace.showlegend is not False]
    return {**FIXED_LEGEND, **WIDE, "font": {"size": 12}, "entrywidth": LETTER * max(names, default=0) + 8}


def sample_rows(count: int, limit: int) -> np.ndarray:
    """The rows to draw, in order: all, or a fixed sample."""
    check_whole("limit", limit)
    return np.arange(count) if count <= limit else np.sort(np.random.default_rng(0).permutation(count)[:limit])


def looks_of(labels: Sequence[Any], shown: Sequence[str] | None = None) -> dict[str, tuple[str, str]]:
    """A distinct colour and symbol for each coloured label, and for the "others" if there are any."""
    count = Counter(map(str, labels))
    names = [name for name, _ in count.most_common()] if shown is None else list(map(str, shown))
    symbols = list(SYMBOLS)
    looks = {
        name: (COLOURS[number % len(COLOURS)], symbols[number % len(symbols)])
        for number, name in enumerate(names[:MOST_LABELS])
    }
    rest = "others" if "others" not in looks else "all others"
    return looks | ({rest: REST} if count.keys() - looks.keys() else {})


def marker_style(
    rows: np.ndarray,
    labels: Sequence[Any] | None = None,
    shown: Sequence[str] | None = None,
    shares: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The marker of a trace with these rows; see `scatter`."""
    if shares is not None:
        values = np.asarray(shares, dtype=float)
        bar = {"title": {"text": "share"}, "thickness": 12, "len": 0.8}
        scale = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": values.max() or 1, "showscale": True, "colorbar": bar}
        return {"color": values[rows], "symbol": "circle", "size": 7, **scale}
    if labels is None:
        return {"color": COLOURS[0], "symbol": "circle", "size": 7, "showscale": False}
    looks = looks_of(labels, shown)
    drawn = [looks.get(str(labels[row]), REST) for row in rows]
    return {
        "color": [colour for colour, _ in drawn],
        "symbol": [symbol for _, symbol in drawn],
        "size": [4 if look == REST else 8 for look in drawn],
        "showscale": False,
    }


def point_trace(
    points: np.ndarray,
    rows: np.ndarray,
    labels: Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    shown: Sequence[str] | None = None,
    shares: Sequence[float] | None = None,
) -> go.Scattergl:
    """One trace with the points of these rows; see `scatter`."""
    for name, column in {"labels": labels, "texts": texts, "shares": shares}.items():
        if column is not None and len(column) != len(points):
            raise ValueError(f"there must be one of {name} for each point, got {len(column)} for {len(points)} points")
    look = {"opacity": OPACITY, "line": {"width": 0.5, "color": "#333333"}}
    return go.Scattergl(
        x=points[rows, 0],
        y=points[rows, 1],
        mode="markers",
        name="points",
        marker=look | marker_style(rows, labels, shown, shares),
        text=[hover(row, texts, labels) for row in rows],
        hovertemplate="%{text}<extra></extra>",
        showlegend=False,
    )


def legend_traces(labels: Sequence[Any] | None, shown: Sequence[str] | None = None) -> list[go.Scattergl]:
    """Legend entries: traces without points, one for each coloured label and one for the grey rest."""
    looks = {} if labels is None else looks_of(labels, shown)
    return [
        go.Scattergl(
            x=[None],
            y=[None],
            mode="markers",
            name=escaped(name),
            marker={"color": colour, "symbol": symbol, "size": 9},
        )
        for name, (colour, symbol) in looks.items()
    ]


def hover(row: int, texts: Sequence[str] | None, labels: Sequence[Any] | None) -> str:
    """The hover text: text and label, escaped."""
    parts = [] if texts is None else textwrap.wrap(textwrap.shorten(str(texts[row]), 300, placeholder=" …"), 60)
    parts += [] if labels is None else [f"[{labels[row]}]"]
    return "<br>".join(map(escaped, parts)) or f"row {row}"


def side_by_side(
    states: Mapping[str, Mapping[str, Projection]],
    labels: Sequence[Any] | None = None,
    texts: Sequence[str] | None = None,
    shown: Sequence[str] | None = None,
) -> go.Figure:
    """Maps side by side, with plotly buttons that switch the state of all; needs no kernel.

    Args:
        states: Name of a button, such as "PCA", to projections by name, such as "before" and "after".
        labels: N names.
        texts: N texts.
        shown: See `scatter`.
    """
    labels, texts = (None if column is None else by_place(column) for column in (labels, texts))
    first = next(iter(states.values()))
    rows = sample_rows(len(next(iter(first.values())).points), TWIN_LIMIT)
    figure = make_subplots(1, len(first), subplot_titles=[*map(escaped, first)], horizontal_spacing=0.1)
    for number, projection in enumerate(first.values()):
        figure.add_trace(point_trace(projection.points, rows, labels, texts, shown), 1, number + 1)
    figure.add_traces(legend_traces(labels, shown))
    styled(figure, height=480).update_layout(legend=_legend(figure.data), margin_t=80)
    figure.update_annotations(font={"size": 13})
    for key, value in _axes_of(first).items():
        figure.layout[key] = value
    for number in range(1, len(first) + 1):
        side = "right" if 1 < number == len(first) else "left"  # between maps, its labels are over points on a phone
        figure.update_yaxes(scaleanchor=f"x{number}", zeroline=False, side=side, row=1, col=number)
    if len(states) > 1:
        buttons = [
            {"label": escaped(name), "method": "update", "args": _arguments(state, rows)}
            for name, state in states.items()
        ]
        place = {"x": 0, "y": 1.1, "xanchor": "left", "yanchor": "bottom"}
        figure.update_layout(updatemenus=[{"type": "buttons", "direction": "right", "buttons": buttons, **place}])
    return figure


def with_colour_menu(
    figure: go.Figure, looks: Mapping[str, Mapping[str, Any]], labels: Mapping[str, Sequence[Any]] | None = None
) -> go.Figure:
    """Add a menu of what the points of `side_by_side` maps are coloured by, in place; the first look is shown.

    The legend of the figure is that of the first look; `labels` are those of others, by name, for theirs.
    """
    maps = [number for number, trace in enumerate(figure.data) if trace.showlegend is False]
    legends = {next(iter(looks)): "legend"}
    for number, (name, of_look) in enumerate((labels or {}).items(), start=2):
        entries = [trace.update(legend=f"legend{number}") for trace in legend_traces(of_look)]
        figure.add_traces(entries)
        figure.layout[f"legend{number}"] = {
            **TEMPLATE.layout.legend.to_plotly_json(),
            **_legend(entries),
            "visible": False,
        }
        legends[name] = f"legend{number}"
    buttons = []
    for name, marker in looks.items():
        has_scale = bool(marker.get("showscale"))
        values = {f"marker.{key}": [np.asarray(value).tolist()] * len(maps) for key, value in marker.items()}
        values["marker.showscale"] = [False] * (len(maps) - 1) + [has_scale]  # one for all maps
        seen = {f"{legend}.visible": name == owner for owner, legend in legends.items()}
        buttons.append({"label": name, "method": "update", "args": [values, seen, maps]})
    place = {"x": 1, "y": 1.1, "xanchor": "right", "yanchor": "bottom"}
    figure.update_layout(updatemenus=[*figure.layout.updatemenus, {"buttons": buttons, **place}])
    return figure


def _arguments(state: Mapping[str, Projection], rows: np.ndarray) -> list[Any]:
    """Arguments of plotly's "update": coordinates of the traces, axis titles, trace numbers."""
    places = [np.round(projection.points[rows].astype(float), 4).T.tolist() for projection in state.values()]
    return [{"x": [x for x, _ in places], "y": [y for _, y in places]}, _axes_of(state), list(range(len(state)))]


def _axes_of(state: Mapping[str, Projection]) -> dict[str, Any]:
    return {
        f"{letter}axis{'' if number == 1 else number}.{key}": value
        for number, projection in enumerate(state.values(), start=1)
        for letter, title in zip("xy", projection.axes, strict=True)
        for key, value in {"title.text": title, "showticklabels": bool(title)}.items()
    }
