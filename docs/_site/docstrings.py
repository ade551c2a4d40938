"""How mkdocstrings reads the docstrings of this project; named in mkdocs.yml, and no part of the site."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
from equations import mathml

SECTIONS = re.compile(r"^(?:Args|Attributes|Returns|Yields|Raises|Example):$", re.MULTILINE)
BLOCK = re.compile(r"(?<=\n\n)(?: {4}.*\n?)+(?=\n|\Z)")


class OneExample(griffe.Extension):
    """Set indented blocks as equations, and take "Example:" for griffe's "Examples:", so that code is shown as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every object with or without a docstring."""
        if obj.docstring:
            value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = with_equations(value)


def with_equations(docstring: str) -> str:
    """The docstring with MathML for the indented blocks before its sections: they are equations, one a line.

    Raises:
        ValueError: A line of such a block is no equation.
    """
    start = SECTIONS.search(docstring.replace("Examples:", "Example:"))
    end = start.start() if start else len(docstring)
    return BLOCK.sub(_equations, docstring[:end]) + docstring[end:]


def _equations(block: re.Match[str]) -> str:
    lines = "".join(mathml(line) for line in block[0].splitlines())
    return f'<div class="st-vi-equations">{lines}</div>\n'
