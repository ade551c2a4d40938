"""A table at the head of each page of the reference: every name on it, and its first sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe

ROOT = Path(__file__).parents[2]
DIRECTIVE = re.compile(r"^::: (\S+)\n(?:    options:\n((?: {6}.*\n)+))?", re.MULTILINE)


def with_index(markdown: str) -> str:
    """The page with the table before its first ``:::``; without any, as it is."""
    rows = [f"| [`{name}`][{path}] | {sentence} |" for name, path, sentence in _entries(markdown)]
    first = DIRECTIVE.search(markdown)
    if not first:
        return markdown
    table = "\n".join(["| name | description |", "|---|---|", *rows])
    index = f'<div class="st-vi-index" markdown>\n\n{table}\n\n</div>\n\n'
    return markdown[: first.start()] + index + markdown[first.start() :]


def _entries(markdown: str) -> Iterator[tuple[str, str, str]]:
    for path, options in DIRECTIVE.findall(markdown + "\n"):
        module = _package()[path.removeprefix("st_vi.")]
        listed = re.search(r"members: \[(.*)\]", options or "")
        names = re.split(r",\s*", listed[1]) if listed else _public(module)
        for name in names:
            yield name, f"{path}.{name}", _first_sentence(module[name])


def _public(module: griffe.Object | griffe.Alias) -> list[str]:
    """What ``__all__`` names, or where there is none, what is defined there without an underscore."""
    if module.exports is not None:
        return [str(name) for name in module.exports]
    here = (one for one in module.members.values() if not one.is_alias and one.has_docstring)
    return [one.name for one in here if not one.name.startswith("_")]


@cache
def _package() -> griffe.Object | griffe.Alias:
    return griffe.load("st_vi", search_paths=[ROOT], resolve_aliases=True)


def _first_sentence(entry: griffe.Object | griffe.Alias) -> str:
    paragraph = " ".join((entry.docstring.value if entry.docstring else "").split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", paragraph)[0].rstrip(":").replace("|", "\\|")
