"""The site as it is published: built strictly, with its notebooks run, and every page walked in a real browser."""

from __future__ import annotations

import importlib
import json
import re
import zlib
from dataclasses import asdict
from urllib.parse import urljoin

import pytest

from tests.docs.conftest import ROOT, Site, write_record
from tests.docs.public import PUBLIC
from tests.docs.site import FIGURE, Links, Visit, dead_links, opened, served, visited

NOTEBOOKS = sorted(path.stem[3:].replace("_", "-") for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"))


LINKS = """() => [...document.querySelectorAll(".st-vi-index a")].map(link => link.getAttribute("href"))"""
ENTRIES = """() => [...document.querySelectorAll(".doc-contents")].map(one => one.parentElement).filter(
  one => one.matches(".doc-class, .doc-function, .doc-attribute") && !one.parentElement.closest(".doc-class"),
).map(one => ({
  link: "#" + one.querySelector(".doc-heading").id,
  kind: one.className.match(/doc-(class|function|attribute)/)[1],
  height: one.getBoundingClientRect().height,
}))"""


@pytest.fixture(scope="module")
def visits(site, readers) -> dict[str, Visit]:
    """Every page, once."""
    seen = visited(readers["light"], site.root, site.pages(), {"entries": ENTRIES, "links": LINKS})
    size = sum(path.stat().st_size for path in site.folder.rglob("*") if path.is_file())
    record = {"build_seconds": site.seconds, "site_megabytes": size / 1e6}
    record["pages"] = {page: asdict(one) for page, one in seen.items()}
    write_record("site.json", json.dumps(record, indent=1).encode())
    return seen


def test_every_public_name_is_shown(site):
    """`objects.inv` lists what the pages of the reference show."""
    entries = zlib.decompress((site.folder / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    shown = {entry.split()[0] for entry in entries}
    assert not {f"{room}.{name}" for room, name in PUBLIC if room != "st_vi"} - shown
    pages = ("index.html", "start/index.html", "search/search_index.json")
    assert all((site.folder / page).is_file() for page in pages)


def test_no_dead_link_or_anchor(site):
    assert not dead_links(site.folder)


def test_dead_links_are_found(tmp_path):
    (tmp_path / "there.html").write_text('<h1 id="top">A</h1>')
    (tmp_path / "index.html").write_text('<a href="there.html#top"></a><a href="there.html#end"></a><img src="a.png">')
    assert dead_links(tmp_path) == ["index.html -> there.html#end", "index.html -> a.png"]


def test_the_head_names_no_other_host(site):
    heads = {path: Links(path).head for path in site.folder.rglob("*.html")}
    assert all(heads.values())
    assert not [link for links in heads.values() for link in links if re.match(r"(https?:)?//", link)]


def test_no_error_and_no_request_to_another_host(visits):
    assert not {page: one.wrong for page, one in visits.items() if one.wrong}


@pytest.mark.slow
def test_what_goes_wrong_is_told_of_its_page(tmp_path, reader):
    faults = {"script": "<script>null.x</script>", "file": "<img src=none.png>", "host": "<img src=http://a.b/c.png>"}
    faults |= {"well": "", "wide": "<p style='width: 500px'>a</p>", "told": "<script>console.error('told')</script>"}
    for name, body in faults.items():
        (tmp_path / f"{name}.html").write_text(f"<!doctype html><link rel=icon href=data:,>{body}")
    with served(tmp_path) as root:
        seen = visited(reader, root, [f"{name}.html" for name in faults], {"said": "1 + 1"})
    wrong = {page.removesuffix(".html"): " ".join(one.wrong) for page, one in seen.items()}
    assert not wrong["well"] and not wrong["wide"] and [one.said for one in seen.values()] == [{"said": 2}] * 6
    for name, word in {"script": "null", "file": "404", "host": "request: http://a.b", "told": "told"}.items():
        assert word in wrong[name]
    assert [page for page, one in seen.items() if one.overflow > 0] == ["wide.html"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_has_a_page_with_figures(name, visits, site):
    """And one of them in the list of notebooks."""
    assert visits[f"look-inside/{name}/"].figures
    assert re.search(rf'<img [^>]*src="{name}/\d\.png"', text_of(site, "look-inside/"))


def test_every_figure_has_visible_marks(visits):
    figures = [(page, figure) for page, one in visits.items() for figure in one.figures]
    assert not [found for found in figures if min(found[1].values()) < 1 or found[1]["height"] < 100]


def test_sliders_and_buttons_are_alive_without_a_kernel(visits):
    assert not {page: one.dead for page, one in visits.items() if one.dead}
    assert sum(one.controls for one in visits.values()) >= len(NOTEBOOKS) / 2


def test_plotly_is_there_once_and_loaded_only_where_it_is_needed(site, visits):
    assert [path.name for path in site.folder.rglob("*plotly*.js")] == ["plotly.min.js"]
    asking = {page for page in visits if "plotly.min.js" in text_of(site, page)}
    assert asking == {page for page, one in visits.items() if one.figures}


def text_of(site: Site, page: str) -> str:
    path = site.folder / page
    return (path / "index.html" if path.is_dir() else path).read_text(encoding="utf-8")


def test_a_phone_never_scrolls_sideways(visits):
    assert not {page: one.overflow for page, one in visits.items() if one.overflow > 0}


def test_pages_are_soon_interactive(visits):
    """A wide bound: the machine may be busy. The record has the figures."""
    assert max(one.times["interactive"] for one in visits.values()) < 10


def test_search_finds_vietnamese_with_and_without_diacritics(site, browser):
    wrong: list[str] = []
    with opened(browser, site.with_search, site.with_search, wrong) as page:
        box = page.locator("[data-md-component=search-query]")
        first = page.locator(".md-search-result__item:first-child")
        for query in ("hà nội", "ha noi", "Hà Nội", "HA NOI"):
            box.click()
            box.fill("")
            first.wait_for(state="detached")
            page.keyboard.type(query, delay=20)
            first.filter(has_text="Hà Nội").wait_for(timeout=120_000)  # results come while one types
            assert first.locator("mark", has_text="Nội").count(), query
            assert "Missing" not in first.inner_text(), query
            found = [link.get_attribute("href") for link in page.locator("a.md-search-result__link").all()]
            assert any("look-inside/where-does-the-pool-look/" in link for link in found), query
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "query", "page"),
    [
        ("", "atention poling", "pooling-decides-rankings"),
        ("", "temprature", "train/"),
        ("vi/", "temprature", "vi/train/"),
    ],
)
def test_search_forgives_one_wrong_letter_a_word_and_finds_the_language_of_the_page_first(
    start, query, page, site, browser
):
    with opened(browser, site.with_search + start, site.with_search, []) as shown:
        shown.locator("[data-md-component=search-query]").click()
        shown.keyboard.type(query, delay=20)
        shown.locator(f".md-search-result__item a[href*='{page}']").first.wait_for(timeout=120_000)
        results = shown.locator(".md-search-result__item > a").evaluate_all("all => all.map(link => link.pathname)")
        other = [address.startswith("/vi/") != (start == "vi/") for address in results]
        assert not other[0] and other == sorted(other)


@pytest.mark.parametrize("name", ["front page", "reference", "notebook"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 375)])
def test_light_and_dark(name, scheme, width, site, readers):
    page = {"front page": "", "reference": "reference/modules/", "notebook": f"look-inside/{NOTEBOOKS[1]}/"}[name]
    with opened(readers[scheme], site.root + page, site.root, [], width) as page:
        write_record(f"{name}-{scheme}-{width}.png".replace(" ", "-"), page.screenshot(full_page=True))
        colour = "element => getComputedStyle(element).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
        assert (sum(page.locator("body").evaluate(colour)) > 380) == (scheme == "light")
        if name == "notebook":  # figures have dark ink
            card = page.locator(".st-vi-card", has=page.locator(FIGURE)).first
            assert sum(card.evaluate(colour)) > 700


def switches(site: Site, page: str) -> dict[str, str]:
    """Where the language switch of a page leads to, by language."""
    links = re.findall(r'<a href="([^"]*)" hreflang="(..)" class="md-select__link"', text_of(site, page))
    return {language: urljoin(site.root + page, link).removeprefix(site.root) for link, language in links}


def test_the_language_switch_leads_to_the_same_page(site):
    """Both ways, and to the front page of the other language where there is no such page."""
    pages = set(site.pages()) - {"404.html"}
    translated = {page for page in pages if page.startswith("vi/")}
    assert len(translated) >= 10
    for page in pages:
        english = page.removeprefix("vi/")
        there = f"vi/{english}" if f"vi/{english}" in translated else "vi/"
        assert switches(site, page) == {"en": english, "vi": there}
        assert f'<html lang="{"vi" if page in translated else "en"}"' in text_of(site, page)


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", ["serve/#hybrid-search-in-files", "look-inside/pooling-decides-rankings/#against-words"]
)
def test_a_reader_switches_there_and_back(start, site, reader):
    """And stays at the same heading."""
    wrong: list[str] = []
    with opened(reader, site.root + start, site.root, wrong) as page:
        for language, there in (("vi", f"vi/{start}"), ("en", start)):
            page.locator(".md-select").hover()
            page.locator(f".md-select__link[hreflang={language}]").click()
            page.wait_for_url(site.root + there)
            assert page.locator("html").get_attribute("lang") == language
    assert not wrong


def around(site: Site, page: str) -> set[str]:
    """What a page says around its text: names of pages and sections, and labels of what can be pressed."""
    text = re.sub(r"<article.*?</article>", "", text_of(site, page), flags=re.DOTALL)
    text = re.sub(r'<a href="#[^>]*>.*?</a>', "", text, flags=re.DOTALL)  # its own headings
    said = re.findall(r'(?:title|aria-label|placeholder)="([^"]*)"', text)
    said += re.findall(r'<span class="md-ellipsis">(.*?)</span>', text, re.DOTALL)
    said += re.findall(r'<div class="md-search-result__meta">(.*?)</div>', text, re.DOTALL)
    return {one.strip() for one in said} - {""}


def test_around_a_vietnamese_page_all_is_vietnamese(site):
    pages = [page for page in site.pages() if page.startswith("vi/")]
    english = set().union(*(around(site, page.removeprefix("vi/")) for page in pages))
    assert {"Start", "Search", "Dark", "Footer", "Guides"} <= english
    for page in pages:
        said = around(site, page)
        assert said & english <= {"st_vi", "ViCLSR", "viPolyQwen", "FAQ", "PhoBERT"}, page
        assert {"Bắt đầu", "Trang tiếng Anh", "Chọn ngôn ngữ"} <= said


FONTS = """() => [...document.querySelectorAll(".highlight pre")].map((block, number) => {
  block.id = `block-${number}`;
  return block.textContent;
})"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vi/serve/", "train/"])
def test_code_has_one_font_with_vietnamese_letters(name, site, reader):
    """The browser itself says with which fonts it drew: only with that of the site."""
    wrong: list[str] = []
    with opened(reader, site.root + name, site.root, wrong) as page:
        page.evaluate("document.fonts.ready")
        texts = page.evaluate(FONTS)
        session = page.context.new_cdp_session(page)
        session.send("DOM.enable")
        session.send("CSS.enable")
        document = session.send("DOM.getDocument")["root"]["nodeId"]
        for number, text in enumerate(texts):
            node = session.send("DOM.querySelector", {"nodeId": document, "selector": f"#block-{number}"})["nodeId"]
            fonts = session.send("CSS.getPlatformFontsForNode", {"nodeId": node})["fonts"]
            assert {(font["familyName"], font["isCustomFont"]) for font in fonts} == {("JetBrains Mono", True)}, text
        assert len(texts) > 10 and any(letter in "".join(texts) for letter in "ạầễộừ")
    assert not wrong
    licence = (site.folder / "assets" / "fonts" / "OFL.txt").read_text(encoding="utf-8")
    assert "SIL OPEN FONT LICENSE" in licence


def test_reference_pages_begin_with_an_index_and_no_class_is_longer_than_two_screens(visits):
    """What is folded does not count."""
    pages = {page: one.said for page, one in visits.items() if re.fullmatch(r"reference/\w+/", page)}
    assert pages
    for page, said in pages.items():
        entries = said["entries"]
        assert entries and sorted(said["links"]) == sorted(entry["link"] for entry in entries), page
        long = {entry["link"]: entry["height"] for entry in entries if entry["kind"] == "class"}
        assert max(long.values(), default=0) <= 2 * 1000, (page, long)


@pytest.mark.slow
def test_equations_are_set_and_links_to_folded_members_open_them(site, reader):
    with opened(reader, f"{site.root}reference/terms/#st_vi.terms.InfoNCE.__call__", site.root, []) as page:
        page.wait_for_function("document.querySelectorAll('details.st-vi-members[open]').length === 1")
        sizes = page.locator("math").evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
        assert len(sizes) >= 20 and min(sizes) > 10
        log = page.locator("math", has=page.locator("mfrac")).first.evaluate(
            "one => one.getBoundingClientRect().height"
        )
        assert log > 1.5 * min(sizes), "a fraction is higher than a line"


def test_social_card(site):
    from PIL import Image

    with Image.open(site.folder / "assets" / "card.png") as card:
        assert card.size == (1200, 630)
    assert all("og:image" in text_of(site, page) for page in site.pages())


@pytest.fixture
def notebook_pages(monkeypatch):
    """The module that makes pages of notebooks."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "_site")
    return importlib.import_module("notebook_pages")


def test_controls_that_need_a_kernel_are_folded(notebook_pages):
    nodes = importlib.import_module("nbformat.v4")
    figure = {"application/vnd.plotly.v1+json": {"data": [{"y": [1]}], "layout": {}}}
    explorer = nodes.new_output("display_data", figure | {"application/vnd.jupyter.widget-view+json": {}})
    text = "## Try\n\nSome text.\n\n- **a**: one\n  line\n- **b**\n\nMore."
    pages = []
    for output in (explorer, nodes.new_output("display_data", figure)):
        cells = [nodes.new_markdown_cell("# A\n\nB."), nodes.new_markdown_cell(text)]
        notebook = nodes.new_notebook(cells=[*cells, nodes.new_code_cell("x", outputs=[output])])
        pages.append(notebook_pages.page_of(notebook, ROOT / "notebooks" / "00_quickstart.py").markdown)
    assert text in pages[1] and text not in pages[0]
    before, fold, after = re.split("<details.*</summary>|</details>", pages[0])
    assert "Some text." in before and "- **a**: one\n  line\n- **b**" in fold and "More." in after


def test_the_page_of_a_notebook_has_its_figures_once_and_one_stands_for_it(notebook_pages):
    nodes = importlib.import_module("nbformat.v4")
    figure = {"application/vnd.plotly.v1+json": {"data": [{"y": [1]}], "layout": {}}}
    code = [nodes.new_code_cell("x", outputs=[nodes.new_output("display_data", figure)]) for _ in range(2)]
    texts = ["# A\n\nB.", "<!-- found: Second -->\n\n![Second](pictures/a.png)", "## First", "## Second"]
    title, found, first, second = map(nodes.new_markdown_cell, texts)
    notebook = notebook_pages.without_pictures(
        nodes.new_notebook(cells=[title, found, first, code[0], second, code[1]]), was_run=True
    )
    page = notebook_pages.page_of(notebook, ROOT / "notebooks" / "00_quickstart.py")
    assert page.cover == "1.png" and len(page.outputs) == 2 and "pictures/a.png" not in page.markdown


def test_what_a_page_shows_of_a_notebook(notebook_pages):
    output = importlib.import_module("nbformat.v4").new_output
    outputs = [
        output("stream", name="stdout", text="5 %\r10 %\n"),
        output("stream", name="stderr", text="a warning"),
        output("display_data", {"text/plain": "5 %", "application/vnd.jupyter.widget-view+json": {}}),
        output("stream", name="stdout", text="<b>\n" * 100),
        output("display_data", {"text/html": "<div><progress value='3'></progress> 3/5</div>"}),
        output("display_data", {"image/png": "aGk="}),
        output("display_data", {"text/html": '<div><table border="1" class="dataframe"><tr><td>1</table></div>'}),
        output("display_data", {"application/vnd.plotly.v1+json": {"data": [{"y": [1]}], "layout": {"width": 860}}}),
    ]
    script = ROOT / "notebooks" / "00_quickstart.py"
    notebook = notebook_pages.without_pictures(importlib.import_module("notebooks.pair").notebook_of(script))
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    code.outputs = outputs
    page = notebook_pages.page_of(notebook, script)
    text, picture, table, figure = page.outputs
    assert "<code>10 %\n&lt;b&gt;\n" in text and "62 more lines" in text
    assert page.pictures["0.png"] == b"hi" and 'src="0.png"' in picture
    assert page.pictures["1.png"].startswith(b"\x89PNG") and '<noscript><img src="1.png"' in figure
    assert "<table><tr><td>1" in table
    assert page.has_figures and "Plotly.newPlot" in figure and "cdn" not in figure
    assert ": 860" not in figure and ":860" not in figure
    assert (
        "not run" not in page.markdown and "without running" in notebook_pages.page_of(notebook, script, False).markdown
    )
