"""Figures of ranks and recall under several poolings."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import chain, combinations, cycle, islice
from typing import Any

import numpy as np
import plotly.graph_objects as go

from st_vi.checks import check_whole
from st_vi.evaluation.base import by_place
from st_vi.inspection.rankings import Estimate
from st_vi.viz.theme import COLOURS, escaped, styled

GREY = "rgba(90,90,90,0.35)"
_TICKS = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000]


def rank_slopes(
    ranks_by_pooling: Mapping[str, Sequence[int]],
    labels: Sequence[str],
    k: int | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    others: str = "others",
    title: str = "",
    height: int = 460,
) -> go.Figure:
    """One line per query (or document), from its rank under one pooling to its rank under the next; rank 1 is on top.

    Lines of equal rank are drawn side by side, so that many equal ranks are visible. The figure has one trace for the
    others, then one per group.

    Args:
        ranks_by_pooling: Name of a pooling to ranks from 1 of the same rows. Each pooling is a column, in this order.
        labels: One text per row, shown on hover.
        k: Cutoff, drawn as a line.
        groups: Name to rows that are coloured. None colours the flipped rows, whose ranks are on both sides of k.
        others: Name of the grey lines.
        title: Title of the figure.
        height: Height in pixels.

    Raises:
        ValueError: Unequal lengths, a rank or k below 1, or a group names a row that is not there.

    Example:
        >>> from st_vi.viz import rank_slopes
        >>> figure = rank_slopes({"attention": [1, 9], "mean": [4, 8]}, ["Ai nấu cơm?", "Ai đi chợ?"], k=3)
        >>> [trace.name for trace in figure.data], figure.data[1].customdata[0][0]
        (['others (1)', 'flipped (1)'], 'Ai nấu cơm?')
    """
    labels = by_place(labels)
    if k is not None:
        check_whole("k", k)
    if any(len(ranks) != len(labels) for ranks in ranks_by_pooling.values()):
        raise ValueError(f"every pooling must rank the {len(labels)} rows that have a label")
    columns = [np.asarray(column, int) for column in ranks_by_pooling.values()]
    ranks = np.reshape(columns, (len(columns), len(labels))).T
    if (ranks < 1).any():
        raise ValueError("ranks begin at 1")
    if groups is None:
        inside = ranks <= k if k else np.ones_like(ranks)
        groups = {"flipped": np.flatnonzero(inside.any(axis=1) & ~inside.all(axis=1)).tolist()}
    if unknown := {*chain(*groups.values())}.difference(range(len(labels))):
        raise ValueError(f"groups name the row {unknown.pop()!r} of {len(labels)}")
    grey = sorted({*range(len(labels))}.difference(*groups.values()))
    names, heights, figure = list(ranks_by_pooling), _side_by_side(ranks), go.Figure()
    for name, rows, colour in [(others, grey, GREY), *zip(groups, groups.values(), cycle(COLOURS))]:
        trace = go.Scatter(_lines(ranks, heights, rows, labels, names), name=f"{escaped(name)} ({len(rows)})")
        trace.line = {"color": colour, "width": 1 if colour == GREY else 2}
        trace.marker = {"color": colour, "size": 4 if colour == GREY else 7}
        figure.add_trace(trace)
    return _with_axes(styled(figure, title, height), names, max(ranks.max(initial=1), 10), k)


def _side_by_side(ranks: np.ndarray) -> np.ndarray:
    """The ranks, with ties spread within ±0.35 in the order of the rows' other ranks."""
    heights = ranks.astype(float)
    mean = np.log(ranks).mean(axis=1)
    for column in range(ranks.shape[1]):
        for rank in np.unique(ranks[:, column]):
            rows = np.flatnonzero(ranks[:, column] == rank)
            if len(rows) > 1:
                heights[rows[np.argsort(mean[rows], kind="stable")], column] += np.linspace(-0.35, 0.35, len(rows))
    return heights


def _lines(
    ranks: np.ndarray, heights: np.ndarray, rows: Sequence[int], labels: Sequence[str], names: Sequence[str]
) -> dict[str, Any]:
    """All lines of one colour as one trace with gaps, because plotly is slow with many traces."""
    x, y, under_mouse = [], [], []
    for row in rows:
        told = ", ".join(f"{escaped(name)} {rank}" for name, rank in zip(names, ranks[row], strict=True))
        x += [*range(len(names)), None]
        y += [*heights[row].tolist(), None]
        under_mouse += [["<br>".join(map(escaped, textwrap.wrap(str(labels[row]), 70))), told]] * (len(names) + 1)
    template = "%{customdata[0]}<br>rank: %{customdata[1]}<extra></extra>"
    return {"x": x, "y": y, "customdata": under_mouse, "mode": "lines+markers", "hovertemplate": template}


def _with_axes(figure: go.Figure, names: list[str], last: int, k: int | None) -> go.Figure:
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[*map(escaped, names)],
        range=[-0.15, len(names) - 0.85],
        side="top",
        zeroline=False,
    )
    figure.update_yaxes(
        type="log",
        range=[float(np.log10(last * 1.15)), float(np.log10(0.6))],
        tickvals=[tick for tick in _TICKS if tick <= last],
        title="rank",
        zeroline=False,
    )
    figure.update_layout(margin_t=84)
    return _with_border(figure, k + 0.5) if k else figure


def rank_slopes_by_pair(ranks_by_pooling: Mapping[str, Sequence[int]], labels: Sequence[str], k: int) -> go.Figure:
    """`rank_slopes` with a menu of all pairs of poolings, which needs no kernel.

    Rows in the top k under only one of the two poolings are coloured.
    """
    pairs = list(combinations(ranks_by_pooling, 2))
    if not pairs:
        raise ValueError(f"there must be at least two poolings to compare, got {list(ranks_by_pooling)}")
    figures = []
    for a, b in pairs:
        inside_a, inside_b = (np.asarray(ranks_by_pooling[name]) <= k for name in (a, b))
        groups: dict[str, Any] = {
            f"only {a} finds it": np.flatnonzero(inside_a & ~inside_b),
            f"only {b} finds it": np.flatnonzero(inside_b & ~inside_a),
        }
        figures.append(rank_slopes({a: ranks_by_pooling[a], b: ranks_by_pooling[b]}, labels, k, groups))
    lowest = max(figures, key=lambda figure: figure.layout.yaxis.range[0])
    joint = go.Figure([trace for figure in figures for trace in figure.data], lowest.layout)
    shown = [[owner == pair for owner in range(len(pairs)) for _ in range(3)] for pair in range(len(pairs))]
    for trace, visible in zip(joint.data, shown[0], strict=True):
        trace.visible = visible
    named = [[*map(escaped, pair)] for pair in pairs]
    buttons = [
        {"label": " – ".join(pair), "method": "update", "args": [{"visible": visible}, {"xaxis.ticktext": pair}]}
        for pair, visible in zip(named, shown, strict=True)
    ]
    menu = {"type": "dropdown", "x": 0, "y": 1.12, "xanchor": "left", "yanchor": "bottom"}
    joint.update_layout(updatemenus=[menu | {"buttons": buttons}], margin_t=110, xaxis_ticktext=named[0])
    return joint


def recall_bars(
    recalls: Mapping[str, Estimate],
    k: int,
    chance: float | None = None,
    colours: Sequence[str] = COLOURS,
    height: int = 300,
) -> go.Figure:
    """Recall@k of every pooling with its confidence interval.

    Args:
        recalls: Name of a pooling to its `recall_at_k`.
        k: Cutoff of the recall.
        chance: Recall at random order, k/N, drawn as a dashed line.
        colours: Colours of the bars, in order.
        height: Height in pixels.

    Example:
        >>> from st_vi.inspection.rankings import Estimate
        >>> from st_vi.viz import recall_bars
        >>> recall_bars({"mean": Estimate(0.5, 0.4, 0.7)}, k=5).data[0].y
        (0.5,)
    """
    estimates = list(recalls.values())
    figure = go.Figure(
        go.Bar(
            x=[*map(escaped, recalls)],
            y=[estimate.value for estimate in estimates],
            error_y={
                "array": [estimate.high - estimate.value for estimate in estimates],
                "arrayminus": [estimate.value - estimate.low for estimate in estimates],
                "color": "#1a1a1a",
            },
            marker={"color": list(islice(cycle(colours), len(estimates)))},
            hovertext=[str(estimate) for estimate in estimates],
            hovertemplate="%{x}: %{hovertext}<extra></extra>",
            width=0.6,
        )
    )
    styled(figure, f"recall@{k}, 95% bootstrap over queries", height).update_yaxes(range=[0, 1])
    figure.update_xaxes(type="category")  # a name such as "2026-11-29" is no date
    if chance is not None:
        _with_border(figure, chance).add_annotation(
            text="chance", xref="paper", x=1, y=chance, xanchor="left", yanchor="middle", showarrow=False
        )
        figure.update_layout(margin_r=60)
    return figure


def _with_border(figure: go.Figure, height: float) -> go.Figure:
    line = {"dash": "dash", "width": 1.5, "color": "#1a1a1a"}
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": line}
    return figure.update_layout(shapes=[shape])
