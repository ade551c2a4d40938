"""Numbers that pages show again: read from the tables of the Markdown, so that no second copy grows old."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown.extensions.toc import slugify

DOCS = Path(__file__).parents[1]
REQUEST = re.compile(r"^<!-- figures: ([^\s#]+)(?:#(\S+))? -->\n\n?((?:^\|.*\n)+)", re.MULTILINE)
CELL = re.compile(r"\{(?:#(\S+) )?([^{}:#]+): ([^{}]+)\}")


class NoSuchFigure(Exception):
    """A page asks for a number that is not there."""


@dataclass(frozen=True)
class Table:
    """A table of Markdown: its header, and its rows as they are written."""

    header: list[str]
    rows: list[list[str]]

    def cell(self, row: str, column: str) -> str:
        """The cell of a row, by its first cell, and a column; empty where there is none.

        Of several with the same name it is the first.
        """
        found = {plain(cells[0]): cells for cells in reversed(self.rows)}
        if row not in found or column not in self.header:
            return ""
        return plain(found[row][self.header.index(column)])


def plain(cell: str) -> str:
    """A cell without its marks for bold and code."""
    return re.sub(r"\*\*|`", "", cell).strip()


def tables_in(markdown: str) -> list[Table]:
    """All tables of a text, in order."""
    found = []
    for block in re.findall(r"(?:^\|.*\|[ \t]*$\n?){3,}", markdown, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in block.splitlines()]
        found.append(Table(rows[0], rows[2:]))
    return found


def section(markdown: str, anchor: str) -> str:
    """The part of a page below a heading, down to the next heading of its level.

    Raises:
        NoSuchFigure: No heading has this anchor.
    """
    text = re.sub(r"^```.*?^```$", lambda code: code[0].replace("#", " "), markdown, flags=re.DOTALL | re.MULTILINE)
    for heading in re.finditer(r"^(#+) (.+?)(?: \{ #(\S+) \})?$", text, re.MULTILINE):
        if anchor == (heading[3] or slugify(heading[2], "-")):
            rest = text[heading.end() :]
            end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
            return rest[: end.start()] if end else rest
    raise NoSuchFigure(f"no heading with the anchor {anchor!r}")


def with_figures(markdown: str, comma: str = ".") -> str:
    """Fill the cells of each table below ``<!-- figures: page.md#heading -->`` from the tables that are there.

    A cell asks with ``{row: column}``, or with ``{#heading row: column}`` for another part of the page.

    Args:
        markdown: Of the page that asks.
        comma: The decimal mark of its language.

    Raises:
        NoSuchFigure: The heading, the row or the column does not exist, or its cell is empty.
    """

    def filled(request: re.Match[str]) -> str:
        page, anchor, block = request.groups()
        source = (DOCS / page).read_text(encoding="utf-8")

        def figure(match: re.Match[str]) -> str:
            place, row, column = match.groups()
            found = [table.cell(plain(row), column) for table in tables_in(section(source, place or anchor or ""))]
            if not any(found):
                raise NoSuchFigure(f"{page} has no figure for {match[0]}")
            return next(filter(None, found)).replace(".", comma)

        return CELL.sub(figure, block)

    return REQUEST.sub(filled, markdown)
