"""Figures of the distribution of embeddings: cosine histograms and singular values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.evaluation.geometry.vectors import as_tensor
from st_vi.viz.theme import COLOURS, escaped, styled

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
BELOW = {"orientation": "v", "x": 0, "xanchor": "left"}
"""Layout of the legend: below the plot, one name per line."""
HEIGHT, LINE, GAP, AXIS = 210, 19, 34, 56
"""Pixels of a pair of axes, a line of a legend, its title and the space around it, and the names of an axis."""
SMALLEST = 1e-6
"""Singular values below this share of the largest are rounding errors and are not drawn."""


def similarity_histogram(groups: Mapping[str, Tensor], title: str = "", bins: int = 50) -> go.Figure:
    """Histograms of the cosines of several groups of pairs, such as positives, hard negatives and random pairs.

    Each histogram is normalised by the size of its group. The legend shows the mean and the number of pairs. The axis
    is always [−1, 1], so that figures can be compared.

    Args:
        groups: Name to cosines, (pairs,).
        title: Title of the figure.
        bins: Number of equal bins over [−1, 1].

    Raises:
        ValueError: No groups, a group without pairs, NaN, or a value outside [−1, 1].

    Example:
        >>> import torch
        >>> from st_vi.viz import similarity_histogram
        >>> figure = similarity_histogram({"entailment": torch.tensor([0.9, 0.7]), "random": torch.tensor([0.1])})
        >>> [trace.name for trace in figure.data]
        ['entailment: mean 0.80, 2 pairs', 'random: mean 0.10, 1 pair']
    """
    if not groups:
        raise ValueError("there is no group of pairs to draw")
    check_whole("bins", bins)
    figure = go.Figure()
    for number, (name, cosines) in enumerate(groups.items()):
        values = _cosines(name, cosines)
        counts, edges = np.histogram(values, bins=bins, range=(-1, 1))
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts / len(values),
            name=f"{escaped(name)}: mean {values.mean():.2f}, {len(values):,} pair{'s' * (len(values) != 1)}",
            mode="lines",
            line={"shape": "hvh", "color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]},
            fill="tozeroy",
            fillcolor=f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.12)",
            hovertemplate="cosine %{x:.2f}: %{y:.1%}<extra></extra>",
        )
    figure.update_xaxes(title="cosine", range=[-1, 1])
    figure.update_yaxes(title="share of the pairs", rangemode="tozero", tickformat=".0%")
    return styled(figure, title).update_layout(legend=BELOW)


def _cosines(name: str, cosines: Tensor) -> np.ndarray:
    given = as_tensor(cosines)
    values = given.double().flatten().cpu().numpy()
    if not len(values):
        raise ValueError(f"the group {name!r} has no pairs")
    rounding = max(1e-3, 2 * torch.finfo(given.dtype).eps if given.is_floating_point() else 0)  # bfloat16: 0.016
    if not (np.abs(values) <= 1 + rounding).all():  # NaN is not below either
        raise ValueError(f"the group {name!r} must hold cosines in [-1, 1], got {values.min()} to {values.max()}")
    return values.clip(-1, 1)


def spectrum(singular_values: Mapping[str, Tensor], title: str = "") -> go.Figure:
    """Singular values of embeddings on a log axis.

    Each curve is divided by its largest value. The legend shows the effective rank, exp of the entropy of σ/Σσ (Roy and
    Vetterli 2007): the number of dimensions if all are equal, 1 if one dominates. An early drop means that the
    embeddings have collapsed into few dimensions.

    Args:
        singular_values: Name to (dimensions,), such as from `st_vi.evaluation.geometry.measures.singular_values`.
        title: Title of the figure.

    Raises:
        ValueError: No values, or negative, NaN or infinite ones.

    Example:
        >>> import torch
        >>> from st_vi.viz import spectrum
        >>> spectrum({"before": torch.ones(8)}).data[0].name
        'before: effective rank 8.0'
    """
    if not singular_values:
        raise ValueError("there are no singular values to draw")
    figure = go.Figure()
    for number, (name, values) in enumerate(singular_values.items()):
        values = as_tensor(values).double().flatten().cpu()
        if not len(values) or not ((values >= 0) & values.isfinite()).all():
            raise ValueError(f"{name}: there must be at least one singular value, and each finite and not negative")
        values = values.sort(descending=True).values
        relative = values / values[0] if values[0] > 0 else values
        rank = torch.special.entr(values / values.sum()).sum().exp().item() if values[0] > 0 else 0.0
        drawn = relative[relative > SMALLEST]
        figure.add_scatter(
            x=np.arange(1, len(drawn) + 1),
            y=drawn.numpy(),
            name=f"{escaped(name)}: effective rank {rank:.1f}",
            mode="lines",
            line={"color": COLOURS[number % len(COLOURS)], "width": 2, "dash": DASHES[number % len(DASHES)]},
            hovertemplate="direction %{x}: %{y:.3g} of the largest<extra></extra>",
        )
    figure.update_xaxes(title="direction, the strongest first", rangemode="tozero")
    figure.update_yaxes(title="singular value / largest", type="log", exponentformat="power", dtick=1)
    return styled(figure, title).update_layout(legend=BELOW)


def stacked(figures: Sequence[go.Figure]) -> go.Figure:
    """Combine figures into one, from top to bottom, each with its own axes and the legend above them.

    Figures of one kind then share the horizontal axis, and the whole fits a page of any width.
    """
    legends = [LINE * len(figure.data) + GAP for figure in figures]
    total = HEIGHT * len(figures) + sum(legends) + AXIS * (len(figures) - 1)
    whole = styled(make_subplots(len(figures), 1), height=round(total + 2 * AXIS))
    top = total
    for number, (figure, legend) in enumerate(zip(figures, legends, strict=True), start=1):
        suffix = "" if number == 1 else str(number)
        whole.add_traces(figure.data, rows=number, cols=1)
        whole.update_xaxes(figure.layout.xaxis.to_plotly_json(), row=number, col=1)
        whole.update_yaxes(figure.layout.yaxis.to_plotly_json(), row=number, col=1)
        whole.layout[f"yaxis{suffix}"].domain = [(top - legend - HEIGHT) / total, (top - legend) / total]
        whole.update_traces(legend=f"legend{suffix}", row=number, col=1)
        place = {**BELOW, "yref": "paper", "y": top / total, "yanchor": "top"}
        whole.update_layout({f"legend{suffix}": {**place, "title": {"text": f"<b>{figure.layout.title.text}</b>"}}})
        top -= legend + HEIGHT + AXIS
    return whole.update_layout(margin={"t": AXIS / 2, "b": 1.5 * AXIS})
