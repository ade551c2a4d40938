"""Charts of the tables of a page, drawn when the site is built: a dot for each number, from the table itself.

``<!-- chart: A | B + C -->`` draws the next table: a panel for its column A, and one for B and C together. A number
with "±" has a line as long as its deviation. ``<!-- chart against the first row: … -->`` adds a dashed line.
"""

from __future__ import annotations

import re
from html import escape

from tables import NoSuchFigure, Table, plain, tables_in

REQUEST = re.compile(r"^<!-- chart( against the first row)?: (.+) -->$", re.MULTILINE)
NUMBER = re.compile(r"([+-−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+))(?:\s*±\s*(\d+(?:\.\d+)?))?")
WIDTH, ROW, HEAD, GAP = 760, 20, 26, 24
LETTER = 6.2  # width of a letter, on average


def with_charts(markdown: str) -> str:
    """The page with a chart in place of each request.

    Raises:
        NoSuchFigure: The table below has no such column, or no number in it.
    """

    def drawn(request: re.Match[str]) -> str:
        below = tables_in(markdown[request.end() :])
        if not below:
            raise NoSuchFigure(f"no table below {request[0]}")
        panels = [[name.strip() for name in panel.split(" + ")] for panel in request[2].split(" | ")]
        return f'<div class="st-vi-chart">{chart(below[0], panels, bool(request[1]))}</div>\n'

    return REQUEST.sub(drawn, markdown)


def number(cell: str) -> tuple[float, float] | None:
    """The number with which a cell begins, and its deviation; None where it begins with none."""
    found = NUMBER.match(plain(cell))
    if not found:
        return None
    return float(found[1].replace(",", "").replace("−", "-")), float(found[2] or 0)


def chart(table: Table, panels: list[list[str]], against_first: bool = False) -> str:
    """An SVG with a line for each row of the table.

    Args:
        table: Whose first column, with the second where that one repeats itself, names the rows.
        panels: The columns of each panel.
        against_first: Whether a dashed line is at the number of the first row.

    Raises:
        NoSuchFigure: The table has no such column, or no number in it.
    """
    names = _names(table)
    left = min(max(LETTER * len(name) for name in names) + 10, 0.45 * WIDTH)
    width = (WIDTH - left) / len(panels) - GAP
    height = HEAD + ROW * len(names) + 24
    parts = [
        f'<text x="0" y="{HEAD + ROW * (index + 0.7):.1f}"><title>{escape(name)}</title>'
        f"{escape(_short(name, int(left / LETTER)))}</text>"
        for index, name in enumerate(names)
    ]
    for index, columns in enumerate(panels):
        x = left + GAP / 2 + index * (width + GAP)
        parts.append(_panel(table, names, columns, x, width, against_first))
    title = escape(", ".join(name for columns in panels for name in columns))
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'


def _panel(table: Table, names: list[str], columns: list[str], x: float, width: float, dashed: bool) -> str:
    values = {column: _values(table, column) for column in columns}
    ends = [
        value + sign * spread
        for column in columns
        for value, spread in filter(None, values[column])
        for sign in (-1, 1)
    ]
    least, most = min(ends), max(ends)
    bottom = HEAD + ROW * len(names)

    def place(value: float) -> float:
        return x + 6 + (width - 12) * ((value - least) / (most - least) if most > least else 0.5)

    parts = [f'<rect x="{x:.1f}" y="{HEAD}" width="{width:.1f}" height="{bottom - HEAD}"/>']
    first = values[columns[0]][0]
    if first and dashed:
        parts.append(f'<path class="first" d="M{place(first[0]):.1f} {HEAD}V{bottom}"/>')
    at = x
    for series, column in enumerate(columns):
        mark = f'<circle class="s{series}" cx="{at + 5:.1f}" cy="13" r="4"/>' if len(columns) > 1 else ""
        start = at + (12 if mark else 0)
        parts.append(f'{mark}<text class="head" x="{start:.1f}" y="17">{escape(column)}</text>')
        at = start + 1.2 * LETTER * len(column) + 8  # bold
        for index, found in enumerate(values[column]):
            if found is None:
                continue
            value, spread = found
            y = HEAD + ROW * (index + 0.5)
            if spread:
                line = f"M{place(value - spread):.1f} {y}H{place(value + spread):.1f}"
                parts.append(f'<path class="s{series}" d="{line}"/>')
            told = f"{names[index]}, {column}: {plain(table.rows[index][table.header.index(column)])}"
            title = f"<title>{escape(told)}</title>"
            parts.append(f'<circle class="s{series}" cx="{place(value):.1f}" cy="{y}" r="4">{title}</circle>')
    parts.append(f'<text class="tick" x="{x + 2:.1f}" y="{bottom + 16}">{least:g}</text>')
    parts.append(f'<text class="tick end" x="{x + width - 2:.1f}" y="{bottom + 16}">{most:g}</text>')
    return "".join(parts)


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
