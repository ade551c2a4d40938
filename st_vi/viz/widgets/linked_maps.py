"""Linked maps of the same rows in several embedding spaces."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from st_vi.evaluation.base import by_place
from st_vi.stock.figures import LiveFigure
from st_vi.text import comparison_key, strip_diacritics
from st_vi.viz.lasso import drawn_lines, inside
from st_vi.viz.maps import OPACITY, marker_style, point_trace, sample_rows, side_by_side, with_axes
from st_vi.viz.projection import Projection, as_points
from st_vi.viz.tables import kept_share, legend, neighbour_table
from st_vi.viz.theme import COLOURS, escaped, styled
from st_vi.viz.widgets.explorer import Explorer, beside, wrapping

NEIGHBOUR_SYMBOLS = ("circle-open", "square-open", "diamond-open")
NO_OBSTACLE = "<style>.st-vi-maps .selectionlayer path {pointer-events: none !important}</style>"
"""The outline of a lasso would block the mouse over the points below it, and moving it would break the selection."""
FADED = 0.15
"""Opacity of all points while some are selected."""
LISTED = 8
"""Maximum number of selected rows listed."""


class LinkedMaps(Explorer):
    """Select rows in one map by lasso, click or search, and see them in all maps, with their neighbours.

    A lasso selects rows, and all others fade in every map. A click selects one row, marks its neighbours in all maps
    and lists them. In every figure, trace 0 holds all points, trace 1 the selected ones, followed by one trace for the
    neighbours in each space.

    Args:
        maps: Name, such as "before", to a projection or points (N, 2) of the same N rows.
        texts: N texts.
        labels: N names to colour by.
        neighbours: Name to the nearest rows in that space, (N, k), nearest first.
        shown: Labels to colour; see `st_vi.viz.maps.scatter`.
        limit: Maximum number of points; if there are more, all maps show the same sample, and the title says so.

    Attributes:
        maps: The figures, in the order of the names.
        legend: Legend of all maps.
        find: Search box; selects the rows whose text contains its value, with or without diacritics.
        release: Button that clears the selection.
        table: The selection and its neighbours.
        picked: The selected rows.

    Raises:
        ValueError: There is no map, or more than three, or columns differ in length.

    Example:
        >>> import numpy as np
        >>> from st_vi.viz import LinkedMaps
        >>> linked = LinkedMaps({"before": np.eye(2), "after": -np.eye(2)}, texts=["Trời mưa.", "Trời nắng."])
        >>> linked.find.value = "mưa"
        >>> [figure.data[1].x[0] for figure in linked.maps]
        [np.float64(1.0), np.float64(-1.0)]
    """

    def __init__(
        self,
        maps: Mapping[str, Projection | np.ndarray],
        texts: Sequence[str] | None = None,
        labels: Sequence[Any] | None = None,
        neighbours: Mapping[str, Tensor | np.ndarray] | None = None,
        shown: Sequence[str] | None = None,
        limit: int = 20_000,
    ) -> None:
        if not 1 <= len(maps) <= len(NEIGHBOUR_SYMBOLS):
            raise ValueError(f"there must be one to {len(NEIGHBOUR_SYMBOLS)} maps, got {len(maps)}")
        self.projections = _projections(maps)
        self.count = len(next(iter(self.projections.values())).points)
        for name, column in {
            **{f"map {name!r}": p.points for name, p in self.projections.items()},
            "texts": texts,
        }.items():
            if column is not None and len(column) != self.count:
                raise ValueError(f"{name} has {len(column)} rows, the first map has {self.count}")
        self.texts = [f"row {row}" for row in range(self.count)] if texts is None else list(map(str, texts))
        labels = None if labels is None else by_place(labels)
        self.labels, self.shown = labels, shown
        self.shares: Sequence[float] | None = None
        self.neighbours: dict[str, np.ndarray] = {}
        self.picked = np.empty(0, dtype=int)
        self.drawn = sample_rows(self.count, limit)
        self.maps = [self._figure(name) for name in self.projections]
        self.find = w.Text(description="find text", placeholder="part of a text", continuous_update=False)
        self.release = w.Button(description="let go")
        self.legend, self.table = w.HTML(legend(labels, shown)), w.HTML()
        maps = beside(*self.maps).add_class("st-vi-maps")
        super().__init__(
            [wrapping(self.find, self.release, w.HTML(NO_OBSTACLE)), maps, self.legend, self.table], self._twin
        )
        self.on_change(self.find, self._find)
        self.release.on_click(lambda _: self.guarded(self._let_go))
        self.set_neighbours(neighbours or {})

    def place(self, maps: Mapping[str, Projection | np.ndarray]) -> None:
        """Move all points, for example to the coordinates of another method."""
        self.projections = _projections(maps)
        with self.at_once():
            for figure, projection in zip(self.maps, self.projections.values(), strict=True):
                figure.data[0].update(x=projection.points[self.drawn, 0], y=projection.points[self.drawn, 1])
                with_axes(figure, projection)
            self.pick(self.picked)

    def colour(
        self,
        labels: Sequence[Any] | None = None,
        shown: Sequence[str] | None = None,
        shares: Sequence[float] | None = None,
    ) -> None:
        """Recolour all points; see `st_vi.viz.maps.scatter` for the arguments."""
        labels = None if labels is None else by_place(labels)
        self.labels, self.shown, self.shares = labels, shown, shares
        marker = marker_style(self.drawn, labels, shown, shares)
        with self.at_once():
            for figure in self.maps:
                figure.data[0].update(marker=marker)
            self.pick(self.picked)
        self.legend.value = legend(None if shares is not None else labels, shown)

    def set_neighbours(self, neighbours: Mapping[str, Tensor | np.ndarray]) -> None:
        """Replace the neighbours: map name to (N, k); an empty mapping hides them."""
        unknown = set(neighbours) ^ set(self.projections) if neighbours else set()
        if unknown:
            raise ValueError(f"neighbours must be of the maps {list(self.projections)}, got {list(neighbours)}")
        self.neighbours = {name: np.asarray(torch.as_tensor(rows).cpu()) for name, rows in neighbours.items()}
        self.pick(self.picked)

    def pick(self, rows: Sequence[int] | np.ndarray, lassoed: LiveFigure | None = None) -> None:
        """Select rows in all maps; a single row is shown with its neighbours.

        Args:
            rows: Row numbers.
            lassoed: The figure with the lasso, if any; lassos in the others are removed.
        """
        self.picked = rows = np.asarray(rows, dtype=int)
        marker = marker_style(rows, self.labels, self.shown, self.shares)
        marker |= {"size": np.asarray(marker["size"]) + 2, "showscale": False}
        opacity = FADED if len(rows) else OPACITY
        near = [lists[rows[0]] if len(rows) == 1 else rows[:0] for lists in self.neighbours.values()]
        self.table.value = self._described()  # first, because the page takes longer for the maps
        with self.at_once():
            for figure, projection in zip(self.maps, self.projections.values(), strict=True):
                has_lines, points = bool(drawn_lines(figure)), projection.points
                if has_lines and figure is not lassoed:
                    figure.plotly_relayout({"selections": []})
                if has_lines:
                    figure.unmark()
                figure.data[0].update(marker_opacity=opacity, **_undimmed(opacity))
                figure.data[1].update(x=points[rows, 0], y=points[rows, 1], marker=marker)
                for trace, close in zip(figure.data[2:], near, strict=False):
                    trace.update(x=points[close, 0], y=points[close, 1], showlegend=bool(len(close)))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Batch changes within the block, because the page redraws all points of a map at each message."""
        with ExitStack() as maps:
            for figure in self.maps:
                maps.enter_context(figure.batch_update())
            yield

    def _figure(self, name: str) -> LiveFigure:
        projection = self.projections[name]
        base = point_trace(projection.points, self.drawn, self.labels, self.texts, self.shown)
        base.update(_undimmed(OPACITY))
        some = f" ({len(self.drawn):,} of {self.count:,} points)" if len(self.drawn) < self.count else ""
        figure = styled(go.Figure([base, *_overlays(self.projections)]), name + some, height=440)
        with_axes(figure, projection)
        figure.update_layout(
            dragmode="lasso",
            # beside the title, where it moves no axis
            legend={"x": 1, "xanchor": "right", "yref": "paper", "y": 1, "yanchor": "bottom"},
        )
        figure = LiveFigure(figure)
        figure.layout.on_change(lambda layout, _: self.guarded(lambda: self._lasso(name, figure)), "selections")
        # a click on another trace is reported to this one too, without points
        figure.data[0].on_click(lambda _, points, state: self.guarded(lambda: self._click(points.point_inds)))
        return figure

    def _lasso(self, name: str, figure: LiveFigure) -> None:
        """Select the rows in a lasso.

        Plotly has an event for this, but it is lost if the mouse moves before the kernel has answered.
        """
        lines = drawn_lines(figure)
        if lines:
            points = self.projections[name].points[self.drawn]
            self.pick(self.drawn[np.any([inside(points, line) for line in lines], axis=0)], lassoed=figure)

    def _click(self, numbers: Sequence[int]) -> None:
        if numbers:
            self.pick(self.drawn[numbers[:1]])

    def _let_go(self) -> None:
        self.find.value = ""
        self.pick([])

    def _find(self) -> None:
        wanted = comparison_key(self.find.value, casefold=True)
        texts = [comparison_key(text, casefold=True) for text in self.texts] if wanted else []
        found = [row for row, text in enumerate(texts) if wanted in text or wanted in strip_diacritics(text)]
        self.pick(found)
        if wanted and not found:
            raise LookupError(f"No text contains “{self.find.value.strip()}”.")

    def _described(self) -> str:
        if not len(self.picked):
            words = "Draw a line around points, click one, or write a part of a text in “find text”."
        elif len(self.picked) == 1 and self.neighbours:
            words = neighbour_table(self.picked[0], self.texts, self.neighbours)
        else:
            words = self._list()
        return f'<div class="st-vi-picked" style="background:#fff;color:#1a1a1a;padding:6px 8px">{words}</div>'

    def _list(self) -> str:
        shares = [kept_share(row, self.neighbours) for row in self.picked] if self.neighbours else []
        head = f"<b>{len(self.picked):,} picked</b>"
        if shares:
            head += f"; of their neighbours {np.mean(shares):.0%} are the same in both spaces"
        lines = [html.escape(self.texts[row]) for row in self.picked[:LISTED]]
        lines = [f"{line} ({share:.0%})" for line, share in zip(lines, shares, strict=False)] if shares else lines
        lines += [f"… and {len(self.picked) - LISTED:,} more"] if len(self.picked) > LISTED else []
        return head + '<ul style="margin:4px 0">' + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"

    def _twin(self) -> go.Figure:
        return side_by_side({"map": self.projections}, self.labels, self.texts, self.shown)


def _projections(maps: Mapping[str, Projection | np.ndarray]) -> dict[str, Projection]:
    return {
        name: m if isinstance(m, Projection) else Projection(as_points(m, f"map {name!r}")) for name, m in maps.items()
    }


def _overlays(names: Sequence[str] | Mapping[str, Any]) -> list[go.Scattergl]:
    """Traces of the selected rows and of the neighbours in each space, without hover, and not dimmed by a lasso."""
    shared = {"x": [], "y": [], "mode": "markers", "hoverinfo": "skip", "showlegend": False, **_undimmed(1)}
    picked = go.Scattergl(**shared, name="picked", marker={"size": 11, "line": {"width": 1.5, "color": "#000000"}})
    near = [
        go.Scattergl(
            **shared,
            name=f"nearest {escaped(name)}",
            marker={"size": 13 + 4 * number, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
        )
        for number, (name, symbol, colour) in enumerate(zip(names, NEIGHBOUR_SYMBOLS, COLOURS, strict=False))
    ]
    return [picked, *near]


def _undimmed(opacity: float) -> dict[str, Any]:
    """Trace properties with which the page itself dims no points at a lasso; `pick` does, in all maps alike."""
    return {state: {"marker": {"opacity": opacity}} for state in ("selected", "unselected")}
