"""Collapse, as an experiment: a small encoder whose vectors a margin term makes all alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from statistics import fmean

import plotly.graph_objects as go
import torch
from torch import Tensor
from torch.nn.functional import normalize

from st_vi.terms import HardestNegativeMargin, InfoNCE, PairBatch
from st_vi.viz.theme import COLOURS, slider, styled

BATCH = 32
BLOCK = 10
NOISE = {"pairs hard to tell apart": 1.0, "pairs easy to tell apart": 0.3}
"""Standard deviation of the noise on both sides of a pair, whose common part has deviation 1."""
WEIGHTS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0)

Runs = Mapping[tuple[str, float], Sequence[float]]
"""Kind of pairs and weight of the margin → InfoNCE of every step."""


def train_with_margin(noise: float, weight: float, steps: int = 150, seed: int = 0) -> list[float]:
    """InfoNCE before every step of training a network of two layers on it and a weighted `HardestNegativeMargin`.

    Pairs are two noisy views of one of 512 random points in 32 dimensions. All weights are small at first, so all
    vectors begin nearly alike, where InfoNCE is log(`BATCH`).
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, deviation: float = 1.0) -> Tensor:
        return deviation * torch.randn(*shape, generator=random)

    points = normal(512, 32)
    first, second, shared = normal(32, 64, deviation=0.05), normal(64, 16, deviation=0.05), normal(16, deviation=0.5)

    def embed(inputs: Tensor) -> Tensor:
        return normalize(torch.relu(inputs @ first) @ second + shared, dim=1)

    parameters = [parameter.requires_grad_() for parameter in (first, second, shared)]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    info_nce, margin = InfoNCE(temperature=0.07), HardestNegativeMargin()
    losses = []
    for _ in range(steps):
        rows = points[torch.randint(len(points), (BATCH,), generator=random)]
        anchors, positives = (rows + normal(BATCH, 32, deviation=noise) for _ in range(2))
        batch = PairBatch(embed(anchors), embed(positives))
        contrast = info_nce(batch).mean()
        losses.append(float(contrast.detach()))
        optimizer.zero_grad()
        (contrast + weight * margin(batch).mean()).backward()
        optimizer.step()
    return losses


def collapse_runs(weights: Sequence[float] = WEIGHTS, steps: int = 150) -> dict[tuple[str, float], list[float]]:
    """`train_with_margin` for every weight, 0 among them as the control, with pairs of both kinds."""
    return {
        (kind, weight): train_with_margin(noise, weight, steps) for kind, noise in NOISE.items() for weight in weights
    }


def at_the_end(losses: Sequence[float]) -> float:
    """Mean of the last ten steps."""
    return fmean(losses[-BLOCK:])


def collapse_figure(runs: Runs, weight: float | None = None) -> go.Figure:
    """InfoNCE by step, with a slider for the weight of the margin term that begins at `weight`, or at the largest.

    The dashed line is log B, where all vectors of a batch are alike. The pale lines are the control, without the term.
    """
    weights = sorted({each for _, each in runs})
    weight = weights[-1] if weight is None else weight
    if weight not in weights:
        raise ValueError(f"there is no run with weight {weight}; there are {', '.join(map(str, weights))}")
    kinds = list(dict.fromkeys(kind for kind, _ in runs))
    means = {name: _blocks(losses) for name, losses in runs.items()}
    steps = list(range(0, BLOCK * len(next(iter(means.values()))), BLOCK))
    figure = go.Figure()
    for number, kind in enumerate(kinds):
        line = {"color": COLOURS[number]}
        figure.add_scatter(x=steps, y=means[kind, weight], name=kind, line=line)
        pale = f"{kind}, InfoNCE alone"
        figure.add_scatter(x=steps, y=means[kind, weights[0]], name=pale, line={**line, "dash": "dot"}, opacity=0.5)
    shown = [2 * number for number in range(len(kinds))]
    figure.add_hline(log(BATCH), line_dash="dash", annotation_text="log B: all alike", annotation_position="top right")
    states = {f"{each:g}": {"y": [means[kind, each] for kind in kinds]} for each in weights}
    place = weights.index(weight)
    figure.update_layout(sliders=[slider("weight of the margin term: ", states, shown, place, space=40)])
    figure.update_xaxes(title="step")
    figure.update_yaxes(title="InfoNCE", range=[0, 1.1 * log(BATCH)])
    styled(figure, "A margin term collapses pairs that are hard to tell apart", height=580)
    legend = {"orientation": "v", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0, "font": {"size": 11}}
    return figure.update_layout(legend=legend, margin={"t": 60, "b": 230})


def _blocks(losses: Sequence[float]) -> list[float]:
    """Means of ten steps each, because the noise is new in every batch."""
    return [round(fmean(losses[start : start + BLOCK]), 3) for start in range(0, len(losses), BLOCK)]
