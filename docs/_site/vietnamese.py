"""The Vietnamese side of the site: its navigation, and the text of notebooks in Vietnamese.

A page is translated by a file of the same name in ``docs/vi``. A notebook is translated cell by cell in
``notebooks/vi``: its code and its outputs are there once. Words around them are in ``vi.yml`` beside this file.
"""

from __future__ import annotations

import copy
import hashlib
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markdown.extensions.toc import slugify
from mkdocs.structure import StructureItem
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Link, Navigation, Section
from mkdocs.structure.pages import Page
from nbformat import NotebookNode

HERE = Path(__file__).parent
CELL = re.compile(r"^<!-- (\w+).*-->\n", re.MULTILINE)
PRINTED = "printed"
HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)
TABLE_CELL = re.compile(r"(?<=>)[^<>\n]+(?=</t[hd]>)")


@cache
def words() -> dict[str, Any]:
    """What ``vi.yml`` holds."""
    return yaml.safe_load((HERE / "vi.yml").read_text(encoding="utf-8"))


def navigation(english: Navigation, files: Files) -> Navigation:
    """The navigation of Vietnamese pages: those that there are, in the order of the English ones, then the others.

    Args:
        english: Of the whole site.
        files: Of the whole site.
    """
    pages: list[Page] = []
    links: list[StructureItem] = []

    def translated(item: StructureItem) -> StructureItem | None:
        if isinstance(item, Section):
            own = [child for child in item.children if isinstance(child, Page)]
            listed = own[:1] if own and own[0].is_index else item.children  # an index lists the others itself
            parts = [part for child in item.children if (part := translated(child))]
            links.extend(link for child in listed if (link := _link(child, files)))
            return _section(words()["sections"].get(item.title, item.title), parts) if parts else None
        file = files.get_file_from_path(f"vi/{item.file.src_uri}") if isinstance(item, Page) else None
        if file is None or not isinstance(file.page, Page):
            return None
        if title := words()["pages"].get(item.file.src_uri):
            file.page.title = title
        pages.append(file.page)
        return file.page

    items: list[StructureItem] = []
    for item in english.items:
        if part := translated(item):
            items.append(part)
        elif link := _link(item, files):
            links.append(link)
    for page, before, after in zip(pages, [None, *pages[:-1]], [*pages[1:], None], strict=True):
        page.previous_page, page.next_page = before, after
    found = Navigation([*items, _section(words()["english"], links)], pages)
    found.homepage = pages[0] if pages else None
    return found


def _section(title: str, children: list[StructureItem]) -> Section:
    section = Section(title, children)
    for child in children:
        child.parent = section
    return section


def _link(item: StructureItem, files: Files) -> Link | None:
    """A link to an English page that has no translation."""
    if not isinstance(item, Page) or files.get_file_from_path(f"vi/{item.file.src_uri}"):
        return None
    return Link(words()["pages"].get(item.file.src_uri) or item.title, item.url)


def key(text: str) -> str:
    """What a translation names a cell by: another text, another key.

    Args:
        text: Of the English cell.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Translation:
    """A notebook's text in Vietnamese.

    Attributes:
        cells: By the key of the English cell.
        phrases: What the notebook prints and draws, with ``{}`` for what is computed, and the same in Vietnamese.
    """

    cells: dict[str, str]
    phrases: dict[str, str]

    @classmethod
    def read(cls, file: Path) -> Translation:
        """Read a file in which each cell follows a comment with its key, and the phrases the last one.

        Args:
            file: In ``notebooks/vi``.
        """
        parts = CELL.split(file.read_text(encoding="utf-8"))[1:]
        cells = {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
        pairs = [pair.split("\n") for pair in cells.pop(PRINTED, "").split("\n\n") if pair]
        return cls(cells, dict(pairs) | words()["phrases"])

    def missing(self, notebook: NotebookNode) -> list[str]:
        """The English text cells that have no translation, or had another text when they were translated.

        Args:
            notebook: In English.
        """
        texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        return [text for text in texts if key(text) not in self.cells]

    def of(self, notebook: NotebookNode) -> NotebookNode:
        """The notebook in Vietnamese; a cell without a translation is left as it is.

        Args:
            notebook: In English, with its outputs or without.
        """
        notebook = copy.deepcopy(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _anchored(self.cells.get(key(cell.source), cell.source), cell.source)
            for output in cell.get("outputs", []):
                self._translate(output)
        return notebook

    def _translate(self, output: NotebookNode) -> None:
        if output.output_type == "stream":
            output.text = "\n".join(self.phrase(line) for line in output.text.split("\n"))
        data = output.get("data", {})
        if "application/vnd.plotly.v1+json" in data:
            data["application/vnd.plotly.v1+json"] = _strings(data["application/vnd.plotly.v1+json"], self.phrase)
        elif 'class="dataframe"' in data.get("text/html", ""):
            data["text/html"] = TABLE_CELL.sub(lambda match: self.phrase(match[0]), data["text/html"])

    def phrase(self, text: str) -> str:
        """A phrase in Vietnamese; one that is not known stays as it is.

        Args:
            text: Without line breaks; spaces around it are kept.
        """
        bare = text.strip()
        for english, vietnamese in self.phrases.items():
            if match := _pattern(english).fullmatch(bare.replace("<br>", " ")):  # a title may take two lines
                translated = vietnamese.format(*map(_number, match.groups()))
                return text.replace(bare, "<br>".join(textwrap.wrap(translated, 36)) if "<br>" in bare else translated)
        return text


def _anchored(text: str, english: str) -> str:
    """With the anchors that the English headings have, below the title."""
    anchors = [slugify(title, "-") for title in HEADING.findall(english)]
    return HEADING.sub(lambda match: f"{match[0]} {{ #{anchors.pop(0)} }}" if anchors else match[0], text)


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile("(.+?)".join(map(re.escape, phrase.split("{}"))))


def _number(text: str) -> str:
    """As it is written in Vietnamese: 0,5 and 78 %."""
    return re.sub(r"(?<=\d)%", " %", re.sub(r"(?<=\d)\.(?=\d)", ",", text))


def _strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _strings(one, change) for name, one in value.items()}
    return [_strings(one, change) for one in value] if isinstance(value, list) else value


def translations(scripts: Iterable[Path]) -> dict[Path, Translation]:
    """The notebooks that have a translation.

    Args:
        scripts: The percent scripts of notebooks.
    """
    files = {script: script.parent / "vi" / f"{script.stem}.md" for script in scripts}
    return {script: Translation.read(file) for script, file in files.items() if file.is_file()}
