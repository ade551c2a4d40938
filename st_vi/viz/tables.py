"""HTML for the maps: legend, neighbours and measures. All texts are escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from st_vi.viz.maps import SYMBOLS, looks_of


def legend(labels: Sequence[Any] | None, shown: Sequence[str] | None = None) -> str:
    """The legend as HTML: coloured labels and the grey rest."""
    looks = {} if labels is None else looks_of(labels, shown)
    entries = [
        '<span style="white-space:nowrap;margin-right:14px">'
        f'<span style="color:{colour};-webkit-text-stroke:0.7px #333">{SYMBOLS.get(symbol)}</span> '
        f"{html.escape(name)}</span>"
        for name, (colour, symbol) in looks.items()
    ]
    style = "background:#fff;color:#1a1a1a;padding:2px 8px"
    return f'<div class="st-vi-legend" style="{style}">{" ".join(entries)}</div>' if entries else ""


def kept_share(row: int, neighbours: Mapping[str, np.ndarray]) -> float:
    """Share of the row's neighbours that are the same in all spaces, in [0, 1]."""
    lists = [set(rows[row].tolist()) for rows in neighbours.values()]
    return len(set.intersection(*lists)) / max(1, *map(len, lists))


def neighbour_table(row: int, texts: Sequence[str], neighbours: Mapping[str, np.ndarray]) -> str:
    """An HTML table of the nearest neighbours of a row, one column per space; those in all spaces are bold."""
    common = set.intersection(*(set(rows[row].tolist()) for rows in neighbours.values()))
    cell = '<td style="padding:2px 12px 2px 0;vertical-align:top;text-align:left">'

    def line(near: Sequence[int]) -> str:
        words = [html.escape(texts[other]) for other in near]
        return "".join(
            f"{cell}{f'<b>✓ {text}</b>' if other in common else text}</td>"
            for other, text in zip(near, words, strict=True)
        )

    lists = [rows[row].tolist() for rows in neighbours.values()]
    head = "".join(f"{cell}<i>nearest {html.escape(name)}</i></td>" for name in neighbours)
    return (
        f"<b>{html.escape(texts[row])}</b><br>{len(common)} of {len(lists[0])} nearest neighbours are the same (✓)"
        f'<table class="st-vi-neighbours" style="color:#1a1a1a;background:#fff"><tr>{head}</tr>'
        + "".join(f"<tr>{line(near)}</tr>" for near in zip(*lists, strict=False))
        + "</table>"
    )


def summary_table(names: Sequence[str], figures: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """The measures of all spaces as an HTML table."""
    if not figures:
        return ""
    cell = "padding:2px 14px 2px 0;text-align"
    head = "".join(f'<th style="{cell}:left">{html.escape(name)}</th>' for name in ["", *names, ""])

    def line(values: Sequence[float]) -> str:  # a single value applies to both spaces: centred
        place = f'style="{cell}:{"left" if len(values) > 1 else "center"}" colspan="{len(names) // len(values)}"'
        return "".join(f"<td {place}>{round(value, 2) + 0.0:.2f}</td>" for value in values)

    rows = "".join(
        f'<tr><th style="{cell}:left">{html.escape(name)}</th>{line(values)}'
        f'<td style="{cell}:left">{html.escape(meaning)}</td></tr>'
        for name, meaning, values in figures
    )
    style = "background:#fff;color:#1a1a1a"
    table = f'<table class="st-vi-summary" style="{style}"><tr>{head}</tr>{rows}</table>'
    return f'<div style="overflow-x:auto;contain:inline-size">{table}</div>'  # it scrolls where the cell is narrow
