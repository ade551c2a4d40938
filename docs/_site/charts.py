"""Charts of the tables of a page, drawn when the site is built: a dot for each number, from the table itself.

``<!-- chart: A | B + C -->`` draws the next table: a panel for its column A, and one for B and C together. A number
with "±" has a line as long as its deviation. ``<!-- chart against the first row: … -->`` adds a dashed line, and
``<!-- chart on a log scale: … -->`` is for positive numbers of many sizes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import escape

from tables import NoSuchFigure, Table, plain, tables_in

REQUEST = re.compile(r"^<!-- chart( against the first row)?( on a log scale)?: (.+) -->$", re.MULTILINE)
NUMBER = re.compile(r"([+\-−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+))(?:\s*±\s*(\d+(?:\.\d+)?))?")
WIDTH, ROW, LINE, GAP = 760, 20, 16, 24
LETTER, BOLD = 6.2, 7.2  # width of a letter, on average


def with_charts(markdown: str) -> str:
    """The page with a chart in place of each request.

    Raises:
        NoSuchFigure: The table below has no such column, or no number in it.
    """

    def drawn(request: re.Match[str]) -> str:
        below = tables_in(markdown[request.end() :])
        if not below:
            raise NoSuchFigure(f"no table below {request[0]}")
        panels = [[name.strip() for name in panel.split(" + ")] for panel in request[3].split(" | ")]
        return f'<div class="st-vi-chart">{chart(below[0], panels, bool(request[1]), bool(request[2]))}</div>\n'

    return REQUEST.sub(drawn, markdown)


def number(cell: str) -> tuple[float, float] | None:
    """The number with which a cell begins, and its deviation; None where it begins with none."""
    found = NUMBER.match(plain(cell))
    if not found:
        return None
    return float(found[1].replace(",", "").replace("−", "-")), float(found[2] or 0)


def chart(table: Table, panels: list[list[str]], against_first: bool = False, log: bool = False) -> str:
    """An SVG with a line for each row of the table.

    Args:
        table: Whose first column, with the second where that one repeats itself, names the rows.
        panels: The columns of each panel.
        against_first: Whether a dashed line is at the number of the first row.
        log: Whether equal distances are equal ratios.

    Raises:
        NoSuchFigure: The table has no such column, or no number in it.
        ValueError: A number is not positive, with `log`.
    """
    names = _names(table)
    left = min(max(LETTER * len(name) for name in names) + 10, 0.45 * WIDTH)
    width = (WIDTH - left) / len(panels) - GAP
    head = 10 + LINE * max(len(_lines(columns, width)) for columns in panels)
    height = head + ROW * len(names) + 24
    parts = [
        f'<text x="3" y="{head + ROW * (index + 0.7):.1f}"><title>{escape(name)}</title>'
        f"{escape(_short(name, int(left / LETTER)))}</text>"
        for index, name in enumerate(names)
    ]
    for index, columns in enumerate(panels):
        x = left + GAP / 2 + index * (width + GAP)
        parts.append(_panel(table, names, columns, x, width, head, against_first, log))
    title = escape(", ".join(name for columns in panels for name in columns))
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _lines(columns: list[str], width: float) -> list[list[str]]:
    """The columns of a panel on the lines of its heading: one, or one a column."""
    return [columns] if sum(BOLD * len(name) + 20 for name in columns) < width else [[name] for name in columns]


def _panel(
    table: Table, names: list[str], columns: list[str], x: float, width: float, head: float, dashed: bool, log: bool
) -> str:
    values = {column: _values(table, column) for column in columns}
    found = [one for column in columns for one in values[column] if one]
    least = min(value - spread for value, spread in found)
    most = max(value + spread for value, spread in found)
    bottom = head + ROW * len(names)
    scale: Callable[[float], float] = math.log if log else float
    begin, extent = scale(least), scale(most) - scale(least)

    def place(value: float) -> float:
        return x + 6 + (width - 12) * ((scale(value) - begin) / extent if extent else 0.5)

    parts = [f'<rect x="{x:.1f}" y="{head}" width="{width:.1f}" height="{bottom - head}"/>']
    first = values[columns[0]][0]
    if first and dashed:
        parts.append(f'<path class="first" d="M{place(first[0]):.1f} {head}V{bottom}"/>')
    for number_of_line, line in enumerate(_lines(columns, width)):
        at, y = x, LINE * number_of_line + 13
        for column in line:
            if len(columns) > 1:
                parts.append(f'<circle class="s{columns.index(column)}" cx="{at + 5:.1f}" cy="{y - 4}" r="4"/>')
            start = at + (12 if len(columns) > 1 else 0)
            parts.append(f'<text class="head" x="{start:.1f}" y="{y}">{escape(column)}</text>')
            at = start + BOLD * len(column) + 8
    for series, column in enumerate(columns):
        for index, one in enumerate(values[column]):
            if one:
                told = f"{names[index]}, {column}: {plain(table.rows[index][table.header.index(column)])}"
                parts.append(_dot(series, place, *one, head + ROW * (index + 0.5), told))
    parts.append(f'<text class="tick" x="{x + 2:.1f}" y="{bottom + 16}">{least:g}</text>')
    parts.append(f'<text class="tick end" x="{x + width - 2:.1f}" y="{bottom + 16}">{most:g}</text>')
    return "".join(parts)


def _dot(series: int, place: Callable[[float], float], value: float, spread: float, y: float, told: str) -> str:
    line = (
        f'<path class="s{series}" d="M{place(value - spread):.1f} {y}H{place(value + spread):.1f}"/>' if spread else ""
    )
    title = f"<title>{escape(told)}</title>"
    return f'{line}<circle class="s{series}" cx="{place(value):.1f}" cy="{y}" r="4">{title}</circle>'


def _values(table: Table, column: str) -> list[tuple[float, float] | None]:
    if column not in table.header:
        raise NoSuchFigure(f"no column {column!r} among {table.header}")
    place = table.header.index(column)
    found = [number(row[place]) for row in table.rows]
    if not any(found):
        raise NoSuchFigure(f"no number in the column {column!r}")
    return found


def _names(table: Table) -> list[str]:
    """Of the rows: the first cell, with the second where rows share the first."""
    firsts = [plain(row[0]) for row in table.rows]
    return [
        f"{first}, {plain(row[1])}" if firsts.count(first) > 1 else first
        for first, row in zip(firsts, table.rows, strict=True)
    ]


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1].rstrip() + "…"
