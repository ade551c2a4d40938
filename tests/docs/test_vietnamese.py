"""The Vietnamese pages keep up with the English ones: the same headings, code and notebooks."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import unicodedata
from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, ROOT

markdown = pytest.importorskip("markdown", reason='pip install "st-vi[docs]"')
yaml = pytest.importorskip("yaml")

README = ROOT / "README.vi.md"
PAGES = sorted((DOCS / "vi").rglob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks" / "vi").glob("*.md"))
SCRIPTS = [ROOT / "notebooks" / f"{path.stem}.py" for path in NOTEBOOKS]


def name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def twin(page: Path) -> Path:
    return ROOT / "README.md" if page == README else DOCS / page.relative_to(DOCS / "vi")


def text_of(page: Path) -> str:
    """Without front matter."""
    return re.sub(r"\A---\n.*?^---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def headings(page: Path) -> list[tuple[int, str]]:
    """Level and anchor of each heading, as MkDocs makes them."""
    parser = markdown.Markdown(extensions=["toc", "attr_list", "md_in_html", "pymdownx.superfences"])
    parser.convert(text_of(page))
    found: list[tuple[int, str]] = []

    def walk(tokens):
        for token in tokens:
            found.append((token["level"], token["id"]))
            walk(token["children"])

    walk(parser.toc_tokens)
    return found


def blocks(page: Path) -> list[tuple[str, object]]:
    """The kind of each fenced block, and what has to be the same in both languages: all but comments."""
    return [
        (kind, _without_comments(kind, code))
        for kind, code in re.findall(r"^```(.+?)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)
    ]


def _without_comments(kind: str, code: str) -> object:
    if "output" in kind:
        return code
    if "python" in kind:
        return ast.dump(ast.parse(code))
    if "bash" in kind:
        return [shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines()]
    # An equation: each line to the first gap, behind which it is explained.
    return [re.split(r"\s{2,}", line.strip())[0] for line in code.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_same_headings(page):
    """And the same anchors, so that a link to a part of a page works in both languages."""
    ours, theirs = headings(page), headings(twin(page))
    assert [level for level, _ in ours] == [level for level, _ in theirs]
    assert [one for one in ours if one[0] > 1] == [one for one in theirs if one[0] > 1]


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_same_code(page):
    ours, theirs = blocks(page), blocks(twin(page))
    assert [kind for kind, _ in ours] == [kind for kind, _ in theirs]
    for our, their in zip(ours, theirs, strict=True):
        assert our == their


def comments(page: Path) -> list[str]:
    """Of the code, those of three words or more: shorter ones may be names or numbers."""
    code = [code for kind, code in re.findall(r"^```(.+?)\n(.*?)^```$", text_of(page), re.DOTALL | re.MULTILINE)]
    found = re.findall(r"(?:^|\s)# (.+)$", "\n".join(code), re.MULTILINE)
    return [comment for comment in found if len(re.findall(r"[^\W\d_]{2,}", comment)) >= 3]


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_comments_are_translated(page):
    assert not set(comments(page)) & set(comments(twin(page)))


def test_other_code_is_found(tmp_path):
    english, vietnamese = tmp_path / "a.md", tmp_path / "b.md"
    english.write_text("```bash\npip install x  # now\n```\n```python\nf(1)  # one\n```\n```text\nL = 2   two\n```\n")
    vietnamese.write_text(
        "```bash\npip install x  # nay\n```\n```python\nf(1)  # một\n```\n```text\nL = 2   hai\n```\n"
    )
    assert blocks(english) == blocks(vietnamese) and len(blocks(english)) == 3
    for old, new in (("install x", "install y"), ("f(1)", "f(2)"), ("L = 2", "L = 3")):
        (tmp_path / "c.md").write_text(vietnamese.read_text().replace(old, new))
        assert blocks(tmp_path / "c.md") != blocks(english)


def test_the_readmes_have_the_same_parts_and_lead_to_each_other():
    ours, theirs = (
        [line.split()[0] for line in _lines(one) if re.match("#+ ", line)] for one in (README, twin(README))
    )
    assert ours == theirs
    assert "(README.md)" in text_of(README) and "(README.vi.md)" in text_of(twin(README))


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_tables_and_lists_are_as_long(page):
    for mark in (r"\|", r"\s*- ", r"\d+\. "):
        ours, theirs = (sum(bool(re.match(mark, line)) for line in _lines(one)) for one in (page, twin(page)))
        assert ours == theirs, mark


def _lines(page: Path) -> list[str]:
    """Without code."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE).splitlines()


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_a_section_names_what_the_english_one_names(page):
    """Arguments, functions and commands in the text; a Vietnamese section may name more."""
    ours, theirs = named(page), named(twin(page))
    assert len(ours) == len(theirs) and any(theirs)
    assert not [english - vietnamese for vietnamese, english in zip(ours, theirs, strict=True) if english - vietnamese]


@pytest.mark.parametrize("page", [README, *PAGES], ids=name)
def test_a_section_has_the_numbers_and_links_of_the_english_one(page):
    """With a decimal comma, perhaps; a Vietnamese section may have more."""
    for find in (numbers, links):
        ours, theirs = ([find(section) for section in sections(one)] for one in (page, twin(page)))
        missing = [english - vietnamese for vietnamese, english in zip(ours, theirs, strict=True)]
        assert not set().union(*missing)


def numbers(section: str) -> set[str]:
    text = re.sub(r"\]\([^)]*\)|`[^`]*`", "", section)
    return {number.replace(",", "").replace(".", "") for number in re.findall(r"(?<!\w)\d+(?:[.,]\d+)*", text)}


def links(section: str) -> set[str]:
    """The ends of them, as twins are in different folders; without those from one readme to the other."""
    return {link.split("/")[-1] for link in re.findall(r"\]\(([^)]+)\)", section)} - {"README.md", "README.vi.md"}


def named(page: Path) -> list[set[str]]:
    return [{" ".join(code.split()) for code in re.findall(r"`([^`]+)`", section)} for section in sections(page)]


def sections(page: Path) -> list[str]:
    return re.split(r"^(?=#+ )", "\n".join(_lines(page)), flags=re.MULTILINE)


@pytest.mark.parametrize("page", [README, *PAGES, *NOTEBOOKS, DOCS / "_site" / "vi.yml"], ids=name)
def test_letters_are_composed(page):
    """One code point a letter (NFC), and no letter of another alphabet that looks the same."""
    text = page.read_text(encoding="utf-8")
    assert text == unicodedata.normalize("NFC", text)
    assert not {letter for letter in text if unicodedata.name(letter, "").startswith("CYRILLIC")}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_stay_in_the_language(page):
    """Where a page is translated, the Vietnamese pages lead to the translation."""
    links = re.findall(r"\]\(([^)#:]+\.md)[)#]", text_of(page))
    english = {(page.parent / link).resolve() for link in links} - set(PAGES)
    assert not {path for path in english if (DOCS / "vi" / path.relative_to(DOCS)) in PAGES}


def test_every_page_and_section_has_a_vietnamese_name():
    words = yaml.safe_load((DOCS / "_site" / "vi.yml").read_text(encoding="utf-8"))
    config = re.sub(r"!ENV|!!python\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    sections, pages = set(), set()

    def walk(items):
        for item in items:
            for title, child in item.items() if isinstance(item, dict) else [(None, item)]:
                if isinstance(child, str):
                    pages.add(child)
                    continue
                sections.add(title)
                index = child[0] if isinstance(child[0], str) and child[0].endswith("index.md") else None
                walk([index] if index else child)  # an index lists the others of its section itself

    walk(yaml.safe_load(config)["nav"])
    assert not pages - set(words["pages"]) and not sections - set(words["sections"]), "name them in docs/_site/vi.yml"


@pytest.fixture
def translations(monkeypatch):
    """The translation of each notebook, by its script."""
    monkeypatch.syspath_prepend(DOCS / "_site")
    pytest.importorskip("mkdocs", reason='pip install "st-vi[docs]"')
    return importlib.import_module("vietnamese")


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_every_text_of_a_notebook_is_translated_as_it_is_now(script, translations):
    pair = importlib.import_module("notebooks.pair")
    notebook_pages = importlib.import_module("notebook_pages")
    notebook = notebook_pages.without_pictures(pair.notebook_of(script))
    translation = translations.translations([script])[script]
    missing = {translations.key(text): text for text in translation.missing(notebook)}
    assert not missing, "translate in notebooks/vi, below a comment with the key"
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert set(translation.cells) == {translations.key(text) for text in texts}, "no longer in the notebook"
    for text in texts:
        vietnamese = translation.cells[translations.key(text)]
        for mark in (r"^#+ ", r"^- ", r"`[^`]+`"):  # headings, items and code are kept
            assert len(re.findall(mark, text, re.MULTILINE)) == len(re.findall(mark, vietnamese, re.MULTILINE)), text


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_every_finding_that_a_notebook_prints_is_translated(script, translations):
    translation = translations.translations([script])[script]
    calls = [node for node in ast.walk(ast.parse(script.read_text("utf-8"))) if isinstance(node, ast.Call)]
    said = {_sentence(call.args[0]) for call in calls if ast.unparse(call.func) == "print"}
    said |= {_sentence(call.args[1]) for call in calls if ast.unparse(call.func) == "styled"}
    assert said and not said - set(translation.phrases)


def _sentence(node: ast.expr) -> str:
    """A string as it is written, with ``{}`` for what is computed."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in parts)


def test_a_changed_cell_is_shown_in_english(translations, tmp_path):
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    file = tmp_path / "a.md"
    key = translations.key("# A pool\n\n## Its depth")
    file.write_text(
        f"<!-- {key} pool -->\n# Một ao\n\n## Sâu\n\n<!-- printed -->\nIt is {{}} of {{}}.\nTrong {{1}} có {{0}}.\n"
    )
    translation = translations.Translation.read(file)
    printed = new_output("stream", name="stdout", text="It is 1.5 of 20%.\nIt is odd.\n  It is 1 of 2.  \n")
    figure = new_output("display_data", {"application/vnd.plotly.v1+json": {"layout": {"title": "It is 1 of 2."}}})
    cells = [
        new_markdown_cell("# A pool\n\n## Its depth"),
        new_markdown_cell("# A pond"),
        new_code_cell("x", outputs=[printed, figure]),
    ]
    notebook = new_notebook(cells=cells)
    assert translation.missing(notebook) == ["# A pond"]
    first, second, code = translation.of(notebook).cells
    assert (first.source, second.source) == ("# Một ao\n\n## Sâu { #its-depth }", "# A pond")
    assert code.outputs[0].text == "Trong 20 % có 1,5.\nIt is odd.\n  Trong 2 có 1.  \n"
    assert code.outputs[1].data["application/vnd.plotly.v1+json"]["layout"]["title"] == "Trong 2 có 1."
    assert notebook.cells[0].source.startswith("# A pool") and printed.text.startswith("It is 1.5")
