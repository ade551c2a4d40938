"""Figures of training dynamics: loss components by step, gradient shares, penalty by rank."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from torch import Tensor

from st_vi.files.lines import on_disk
from st_vi.viz.theme import COLOURS, escaped, styled

Log = Sequence[Mapping[str, Any]]
KEY, ORDER = "dle/", ", in order"


def loss_components(
    log_history: Log | str | Path, log_scale: bool = True, title: str = "Components of the loss"
) -> go.Figure:
    """Unweighted loss components by step, as logged by `DLEMonitor`.

    A dotted line marks the ranking loss of a model that finds all pairs equally similar. If there is a ranking loss, a
    second panel shows the share of correctly ordered pairs; chance is 0.5.

    Args:
        log_history: ``trainer.state.log_history``, or the path of a ``trainer_state.json`` or a checkpoint folder.
        log_scale: Use a log axis, because losses differ by orders of magnitude. Zeros become gaps.
        title: Title of the figure.

    Raises:
        ValueError: The log has no component.

    Example:
        >>> from st_vi.viz import loss_components
        >>> log = [{"step": 1, "dle/ocr_info_nce": 2.3}, {"step": 2, "dle/ocr_info_nce": 1.9}]
        >>> figure = loss_components(log)
        >>> figure.data[0].name, figure.data[0].y
        ('ocr_info_nce', (2.3, 1.9))
    """
    traces = component_traces(read_log(log_history))
    if not traces:
        raise ValueError(f"the log has no key that begins with {KEY!r}: train with DLEMonitor(loss) as a callback")
    ranks = any(trace["name"].endswith(ORDER) for trace in traces)
    heights = [3, 1] if ranks else [1]
    figure = make_subplots(len(heights), 1, shared_xaxes=True, vertical_spacing=0.06, row_heights=heights)
    for trace in traces:
        figure.add_trace(trace, row=1 + trace["name"].endswith(ORDER), col=1)
    if ranks:
        figure.add_hline(0.5, line={"color": "#999999", "dash": "dot"}, row=2, col=1)
        figure.update_yaxes(range=[0, 1.02], title="in order", row=2, col=1)
    figure.update_yaxes(title="loss", type="log" if log_scale else "linear", row=1, col=1)
    figure.update_xaxes(title="step", row=len(heights), col=1)
    names = 19 * sum(trace.get("showlegend", True) for trace in traces)  # pixels of the legend, a name a line
    styled(figure, title, height=(400 if ranks else 320) + names)
    legend = {"orientation": "v", "yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
    return figure.update_layout(legend=legend, margin_b=60 + names)


def component_traces(log: Log) -> list[dict[str, Any]]:
    """The traces of `loss_components`, fast enough to update at every training step."""
    keys = list(dict.fromkeys(key for entry in log for key in entry if key.startswith(KEY)))
    traces = []
    for number, key in enumerate(key for key in keys if not key.endswith(("_in_order", "_constant"))):
        colour, name = COLOURS[number % len(COLOURS)], escaped(key.removeprefix(KEY))
        traces.append(_line(log, key) | {"name": name, "line": {"color": colour}})
        if f"{key}_constant" in keys:
            line = {"color": colour, "dash": "dot", "width": 1}
            traces.append(_line(log, f"{key}_constant") | {"name": f"{name}, all alike", "line": line})
        if f"{key}_in_order" in keys:
            style = {"name": name + ORDER, "line": {"color": colour}, "showlegend": False}
            traces.append(_line(log, f"{key}_in_order") | style)
    return traces


def read_log(log_history: Log | str | Path) -> Log:
    """The entries of a training log; see `loss_components` for what is accepted."""
    if not isinstance(log_history, str | Path):
        return log_history
    path = on_disk(log_history)
    path = path / "trainer_state.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{path} is not a file; pass a trainer_state.json or a checkpoint folder")
    try:
        return json.loads(path.read_text(encoding="utf-8"))["log_history"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} has no log_history; pass a trainer_state.json or a checkpoint folder") from error


def gradient_share_bars(shares: Mapping[str, tuple[Any, Any]], title: str = "Who pulls") -> go.Figure:
    """Strength of the gradient of each term, and its agreement with the total gradient.

    Args:
        shares: Term name to (share, along), such as from `gradient_shares`.
        title: Title of the figure.

    Example:
        >>> from st_vi.viz import gradient_share_bars
        >>> figure = gradient_share_bars({"InfoNCE": (0.75, 1.5), "ScoreMSE": (0.25, -0.5)})
        >>> figure.data[1].y
        (1.5, -0.5)
    """
    figure = go.Figure(share_traces(shares))
    figure.update_layout(barmode="group", yaxis={"title": {"text": "share"}, "zerolinecolor": "#666666"})
    return styled(figure, title)


def share_traces(shares: Mapping[str, tuple[Any, Any]]) -> list[dict[str, Any]]:
    """The bars of `gradient_share_bars`."""
    names = [re.sub("(?<=[a-z])(?=[A-Z])", "<br>", escaped(name)) for name in shares]  # CamelCase in narrow columns
    kinds = {"share of the gradient": COLOURS[0], "share of the step": COLOURS[4]}
    return [
        _bars(names, [float(pair[part]) for pair in shares.values()], name, colour) | {"offsetgroup": part}
        for part, (name, colour) in enumerate(kinds.items())
    ]


def penalty_traces(mass: Tensor) -> list[dict[str, Any]]:
    """Bars of the softmax mass that negatives get, the nearest first.

    Args:
        mass: (M,) by rank, or (2, M): of true negatives and of false ones, such as `Moment.mass`.
    """
    ranks = list(range(1, mass.shape[-1] + 1))
    kinds = {"negatives": COLOURS[0], "false negatives": COLOURS[1]}
    rows = mass.detach().reshape(-1, len(ranks)).tolist()
    return [_bars(ranks, row, name, colour) for row, (name, colour) in zip(rows, kinds.items(), strict=False)]


def _bars(x: list[Any], y: list[float], name: str, colour: str) -> dict[str, Any]:
    return {"type": "bar", "x": x, "y": y, "name": name, "marker": {"color": colour}}


def _line(log: Log, key: str) -> dict[str, Any]:
    entries = [entry for entry in log if key in entry]
    steps = [entry.get("step", number) for number, entry in enumerate(entries)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "marker": {"size": 4},
        "x": steps,
        "y": [entry[key] for entry in entries],
    }
