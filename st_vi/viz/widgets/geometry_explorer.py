"""Explorer of two embedding spaces: maps, neighbours, similarities, spectra and measures."""

from __future__ import annotations

import html
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from st_vi.evaluation import geometry
from st_vi.evaluation.base import by_place
from st_vi.evaluation.geometry.neighbours import shared_neighbours
from st_vi.stock.figures import LiveFigure
from st_vi.viz.distributions import similarity_histogram, spectrum
from st_vi.viz.maps import TWIN_LIMIT, marker_style, sample_rows, side_by_side, with_colour_menu
from st_vi.viz.projection import Method, Projection, as_rows, project
from st_vi.viz.tables import summary_table
from st_vi.viz.widgets.explorer import Explorer, beside, wrapping
from st_vi.viz.widgets.linked_maps import LinkedMaps

CAUTION = {
    "pca": "PCA shows the two directions of largest variance, which differ between the maps; the axis titles give "
    "their share. Points that are close here may be far apart in other directions.",
    "umap": "UMAP preserves only neighbourhoods. Distances between groups, the size of a group and empty space mean "
    "nothing. It can split a group or create one from noise, and another seed gives another map. All values in the "
    "table are computed from the full vectors, not from the map.",
}
MOST_COLOURED = 4
"""Initial number of coloured labels; more are hard to distinguish."""
MOST_NEIGHBOURS = 50


class GeometryExplorer(Explorer):
    """Compare two embeddings of the same inputs, such as before and after training: linked maps and measures.

    All maps are computed when the explorer is created, and the controls only switch between them. UMAP takes seconds
    and shows a progress bar; use `cache` to keep its result.

    Args:
        before: (N, D).
        after: (N, E), for the same inputs.
        texts: N texts, shown on hover and in the table.
        labels: N names to colour by, such as topics.
        modality: N names such as "text" and "image", to colour by; the distance between their centres is shown.
        pairs: Group name to pairs (row, row) whose cosines are compared, such as entailment and contradiction. Defaults
            to pairs with the same and with different labels. Random pairs are always added.
        k: Initial number of neighbours.
        methods: Maps to compute, of "pca" and "umap".
        names: Display names for "before" and "after".
        cache: Folder for UMAP coordinates.
        seed: Seed for UMAP and for the random pairs.

    Attributes:
        linked: The `LinkedMaps`.
        method: Control for the map method, "pca" or "umap".
        colour: Control for the colour, "labels", "overlap" or "modality".
        shown: Control for the coloured labels.
        k: Control for the number of neighbours, used by overlap and table.
        overlap: Share of the k neighbours of each row that are the same in both spaces, (N,).
        similarities: Figures of the pair cosines, one per space.
        spectrum: Figure of the singular values of both spaces.
        summary: The table of measures.

    Raises:
        ValueError: Columns differ in length, both names are one, there is no method, values are NaN or infinite, or a
            row number does not exist.

    Example:
        >>> import torch
        >>> from st_vi.viz import GeometryExplorer
        >>> x = torch.randn(20, 4, generator=torch.manual_seed(0))
        >>> explorer = GeometryExplorer(x, x @ torch.diag(torch.tensor([1.0, 1, 0, 0])), methods=("pca",))
        >>> explorer.k.value = 19  # all others are neighbours, before and after
        >>> explorer.overlap.mean()
        tensor(1.)
    """

    def __init__(
        self,
        before: Tensor,
        after: Tensor,
        texts: Sequence[str] | None = None,
        labels: Sequence[Any] | None = None,
        modality: Sequence[str] | None = None,
        pairs: Mapping[str, Sequence[tuple[int, int]]] | None = None,
        k: int = 10,
        methods: Sequence[Method] = get_args(Method),
        names: tuple[str, str] = ("before", "after"),
        cache: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        if len(set(names)) < len(names) or not methods:
            raise ValueError(f"names must differ, and there must be a method, got {names} and {methods}")
        self.vectors = {
            name: torch.from_numpy(as_rows(x, name)) for name, x in zip(names, (before, after), strict=True)
        }
        self.count = len(self.vectors[names[0]])
        for name, column in {names[1]: after, "texts": texts, "labels": labels, "modality": modality}.items():
            if column is not None and len(column) != self.count:
                raise ValueError(f"{name} has {len(column)} rows, but {names[0]} has {self.count}")
        self.columns = {
            name: None if column is None else [*map(str, by_place(column))]
            for name, column in {"labels": labels, "modality": modality}.items()
        }
        self.overlap = torch.zeros(self.count)
        self.projections: dict[str, dict[str, Projection]] = {
            method: {name: project(x, method, cache, seed) for name, x in self.vectors.items()} for method in methods
        }
        self._make_controls(methods, k)
        # Computed once: for a smaller k, these lists are truncated.
        spaces = self.vectors.items() if self.count > 1 else ()
        self.near = {name: geometry.nearest_neighbours(x, self.k.max) for name, x in spaces}
        self.linked = LinkedMaps(self.projections[methods[0]], texts, self.columns["labels"], shown=self.shown.value)
        self.caution, self.summary = w.HTML(), w.HTML()
        groups = self._groups(pairs, seed)
        self.similarities = [
            similarity_histogram({group: _cosines(x, rows) for group, rows in groups.items()}, f"cosines {name}")
            for name, x in self.vectors.items()
            if groups
        ]
        self.spectrum = spectrum({name: _spectrum(x) for name, x in self.vectors.items()}, "spectrum")
        figures = beside(*map(LiveFigure, [*self.similarities, self.spectrum]), width=300)
        controls = wrapping(w.VBox([self.method, self.colour, self.k]), self.shown)
        super().__init__([controls, self.caution, self.linked, self.summary, figures], self._twin)
        for control, update in {
            self.method: self._place,
            self.colour: self._paint,
            self.shown: self._paint,
            self.k: self._measure,
        }.items():
            self.on_change(control, update)
        self.figures = self._figures()
        self._measure()
        self._warn()
        self._paint()

    def _make_controls(self, methods: Sequence[Method], k: int) -> None:
        names = [name for name, _ in Counter(self.columns["labels"] or []).most_common()]
        by = [name for name, column in self.columns.items() if column is not None] + ["overlap"] * (self.count > 1)
        most = max(1, min(MOST_NEIGHBOURS, self.count - 1))
        self.method = w.Dropdown(options=[(method.upper(), method) for method in methods], description="map")
        self.colour = w.Dropdown(options=by or ["nothing"], description="colour by")
        self.k = w.IntSlider(min(k, most), 1, most, description="neighbours", continuous_update=False)
        self.k.disabled = self.count < 2
        self.shown = w.SelectMultiple(options=names, value=names[:MOST_COLOURED], rows=6, description="labels")

    def _place(self) -> None:
        self.linked.place(self.projections[self.method.value])
        self._warn()

    def _warn(self) -> None:
        maps = self.projections[self.method.value]
        self.caution.value = (
            '<div class="st-vi-caution" style="background:#eef4fa;color:#1a1a1a;padding:4px 8px">'
            + "".join(f"<b>{html.escape(f'{name}: {m.notice}')}</b><br>" for name, m in maps.items() if m.notice)
            + "<br>".join(html.escape(CAUTION[method]) for method in dict.fromkeys(m.method for m in maps.values()))
            + "</div>"
        )

    def _paint(self) -> None:
        self.shown.disabled = self.colour.value != "labels"
        if self.colour.value == "overlap":
            self.linked.colour(shares=self.overlap.tolist())
        elif self.colour.value == "labels":
            self.linked.colour(self.columns["labels"], self.shown.value)
        else:
            self.linked.colour(self.columns.get(self.colour.value))

    def _measure(self) -> None:
        if self.count < 2:
            return
        k, near = self.k.value, {name: rows[:, : self.k.value] for name, rows in self.near.items()}
        self.overlap = shared_neighbours(*near.values())
        by_chance = f"share of the {k} nearest neighbours that are the same; by chance {k / (self.count - 1):.2g}"
        kept = ("kept neighbours", by_chance, [float(self.overlap.mean())])
        self.summary.value = summary_table(list(self.vectors), [kept, *self.figures])
        with self.linked.at_once():
            self.linked.set_neighbours(near)
            if self.colour.value == "overlap":
                self._paint()

    def _figures(self) -> list[tuple[str, str, list[float]]]:
        """Measures that no control changes: name, meaning and the value in each space."""
        if self.count < 2:
            return []
        spaces = list(self.vectors.values())
        rows: list[tuple[str, str, Iterable[Tensor]]] = [
            ("mean cosine", "of all pairs; high if they share a cone", map(geometry.mean_cosine, spaces)),
            ("uniformity", "lower is more even, 0 is collapse", map(geometry.uniformity, spaces)),
            ("effective rank", "directions in use, weighted by their strength", map(geometry.effective_rank, spaces)),
        ]
        modality = self.columns["modality"] or []
        kinds = list(dict.fromkeys(modality))
        for one, other in itertools.combinations(kinds, 2):
            sides = [torch.tensor([kind == side for kind in modality]) for side in (one, other)]
            if all(side.sum() > 1 for side in sides):
                gaps = [geometry.modality_gap(x[sides[0]], x[sides[1]]) for x in spaces]
                rows.append((f"gap {one} – {other}", "distance between the two centres, 0 to 2", gaps))
        return [(name, meaning, [float(value) for value in values]) for name, meaning, values in rows]

    def _groups(self, pairs: Mapping[str, Sequence[tuple[int, int]]] | None, seed: int) -> dict[str, Tensor]:
        """Non-empty groups of row pairs, (M, 2), by name."""
        random = random_pairs(self.count, 2000, seed)
        groups = {name: torch.as_tensor(rows).reshape(-1, 2).long() for name, rows in (pairs or {}).items()}
        for name, rows in groups.items():
            if len(rows) and not (rows.min() >= 0 and rows.max() < self.count):
                raise ValueError(f"pairs {name!r} name rows from {rows.min()} to {rows.max()}; there are {self.count}")
        if pairs is None and self.columns["labels"] is not None:
            labels = np.asarray(self.columns["labels"])
            same = torch.from_numpy(labels[random[:, 0]] == labels[random[:, 1]])
            groups = {"same label": random[same], "other label": random[~same]}
        return {name: rows for name, rows in {**groups, "random": random}.items() if len(rows)}

    def _twin(self) -> go.Figure:
        states = {method.upper(): maps for method, maps in self.projections.items()}
        rows, shares = sample_rows(self.count, TWIN_LIMIT), self.overlap.tolist()
        columns = {name: column for name, column in self.columns.items() if column is not None}
        shown = {"labels": self.shown.value or None}
        looks = {name: marker_style(rows, column, shown.get(name)) for name, column in columns.items()}
        looks["overlap"] = marker_style(rows, shares=shares)
        first = next(iter(looks))
        figure = side_by_side(states, columns.pop(first, None), self.linked.texts, shown.get(first))
        return with_colour_menu(figure, looks, columns) if len(looks) > 1 and self.count > 1 else figure


def random_pairs(count: int, number: int, seed: int) -> Tensor:
    """Random pairs of different rows, (number, 2); none if there is only one row."""
    rng = np.random.default_rng(seed)
    if count < 2:
        return torch.empty(0, 2, dtype=torch.long)
    first = rng.integers(count, size=number)
    return torch.from_numpy(np.stack([first, (first + rng.integers(1, count, size=number)) % count], axis=1))


def _cosines(x: Tensor, pairs: Tensor) -> Tensor:
    return torch.cosine_similarity(x[pairs[:, 0]], x[pairs[:, 1]], dim=1)


def _spectrum(x: Tensor) -> Tensor:
    """The singular values; a single zero if all vectors are equal up to rounding."""
    return geometry.singular_values(x) if len(x) > 1 and geometry.effective_rank(x) else torch.zeros(1)
