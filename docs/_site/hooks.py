"""What the site has beyond plain MkDocs; named in mkdocs.yml, and no part of the site itself.

The notebooks become pages under *Look inside*, the front page has a live demo, figures are taken from the tables of
other pages, every page knows its twin in the other language, Vietnamese pages have their own navigation, and the social
card is drawn. ``ST_VI_DOCS_NOTEBOOKS=0`` shows the notebooks without running them, for quick writing.
"""

from __future__ import annotations

import logging
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from charts import with_charts
from demo_file import DemoFile, demo_file
from folds import folded
from live_demo import live_demo
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url
from notebook_pages import NotebookPage, page_of, without_pictures
from reference_index import with_index
from social_card import social_card
from tables import NoSuchFigure, with_figures
from vietnamese import navigation, translations, words

from notebooks.pair import notebook_of, scripts
from notebooks.run import FailingCell, executed

logger = logging.getLogger("mkdocs.hooks.st_vi")

FOLDER = "look-inside"
PLOTLY = "assets/plotly.min.js"
DEMO, DEMO_SCRIPT = '<div class="st-vi-live"></div>', "assets/demo/page.js"
LANGUAGES = {"en": "English", "vi": "Tiếng Việt"}

pages: dict[str, NotebookPage] = {}
demo: list[DemoFile] = []
vietnamese: list[Navigation] = []


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Run the notebooks, or fetch what they gave the last time, and add their pages to the navigation."""
    run = os.environ.get("ST_VI_DOCS_NOTEBOOKS", "1") != "0"
    pages.clear()
    translated = translations(scripts())
    for script in scripts():
        try:
            notebook = without_pictures(executed(script, logger.info) if run else notebook_of(script), run)
        except FailingCell as error:
            raise PluginError(str(error)) from None
        name = script.stem[3:].replace("_", "-")  # without its number
        uri = f"{FOLDER}/{name}.md"
        pages[uri] = page_of(notebook, script, run)
        if translation := translated.get(script):
            for text in translation.missing(notebook):
                logger.warning("notebooks/vi/%s.md does not have this cell as it is now: %s", script.stem, text)
            pages[f"vi/{uri}"] = page_of(translation.of(notebook), script, run, translation.phrase)
    english = [uri for uri in pages if uri.startswith(FOLDER)]
    for entry in config.nav or []:
        for children in entry.values() if isinstance(entry, dict) else ():
            if f"{FOLDER}/index.md" in children:
                children[:] = [child for child in children if child not in pages] + english
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the notebooks, their images, plotly, what the live demo loads and the social card."""
    for uri, page in pages.items():
        files.append(File.generated(config, uri, content=page.markdown))
        for name, picture in page.pictures.items():
            files.append(File.generated(config, f"{uri.removesuffix('.md')}/{name}", content=picture))
    if any(page.has_figures for page in pages.values()):
        source = Path(find_spec("plotly").origin).parent / "package_data" / "plotly.min.js"
        files.append(File.generated(config, PLOTLY, abs_src_path=str(source)))
    demo[:] = [demo_file()]
    files.append(File.generated(config, _demo_address(), abs_src_path=str(demo[0].path)))
    files.append(File.generated(config, "assets/card.png", content=social_card(config.site_description)))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> None:
    """Make the navigation of the Vietnamese pages."""
    vietnamese[:] = [navigation(nav, files)]


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """List the notebooks and fill in figures where the page asks for it; say which page needs which script."""
    folder, _, name = page.file.src_uri.rpartition("/")
    if folder.endswith(FOLDER) and name == "index.md":
        listed = {uri.rpartition("/")[2]: one for uri, one in pages.items() if uri.startswith(f"{folder}/")}
        items = "\n".join(_card(uri, one) for uri, one in listed.items())
        return markdown.replace("<!-- notebooks -->", f'<div class="st-vi-cards" markdown="1">\n\n{items}\n</div>')
    notebook = pages.get(page.file.src_uri)
    if notebook:
        page.meta["description"] = notebook.summary
        page.meta["script"] = PLOTLY if notebook.has_figures else ""
    if DEMO in markdown:
        page.meta["module"] = DEMO_SCRIPT
    if page.file.src_uri.startswith("reference/"):
        return with_index(markdown)
    try:
        return with_charts(with_figures(markdown, comma="," if page.url.startswith("vi/") else "."))
    except NoSuchFigure as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from None


def _card(uri: str, page: NotebookPage) -> str:
    """A notebook in a list: its picture, its title and what it is about."""
    picture = f"![]({uri.removesuffix('.md')}/{page.cover}){{ loading=lazy }}\n\n    " if page.cover else ""
    return f"- {picture}**[{page.title}]({uri})**\n\n    {page.summary}\n"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the live demo and outputs of notebooks where the Markdown has left a place; name links in its language."""
    if page.file.src_uri.startswith("vi/"):
        html = html.replace('title="Permanent link"', f'title="{words()["permalink"]}"')
    if DEMO in html:
        language = "vi" if page.url.startswith("vi/") else "en"
        return html.replace(DEMO, live_demo(demo[0], language, get_relative_url(_demo_address(), page.url)))
    if "folded" in page.meta:
        return folded(html, page.meta["folded"])
    notebook = pages.get(page.file.src_uri)
    if notebook is None:
        return html
    return re.sub(r'<div data-output="(\d+)"></div>', lambda match: notebook.outputs[int(match[1])], html)


def _demo_address() -> str:
    """Where the site has what the demo loads. The name changes with the content, so that browsers may keep it."""
    return f"assets/demo/{demo[0].path.name}"


def on_page_context(context: dict[str, Any], page: Page, config: MkDocsConfig, nav: Navigation) -> dict[str, Any]:
    """Let the language switch lead to the same page in the other language; what is around the page is in its own."""
    language = "vi" if page.url.startswith("vi/") else "en"
    config.theme["language"] = language
    config.extra["alternate"] = alternates(page.url.removeprefix("vi/"), {file.url for file in context["pages"]})
    for choice, names in zip(config.theme["palette"], words()["toggles"], strict=True):
        choice["toggle"]["name"] = names[language]
    if language == "vi":
        context["nav"] = vietnamese[0]
    return context


def alternates(url: str, known: set[str]) -> list[dict[str, str]]:
    """Where the language switch leads to: the same page, or the front page of a language that does not have it.

    Args:
        url: Of a page, in English.
        known: The addresses of all pages.
    """
    if "vi/" not in known:
        return []
    links = {"en": url if url in known else "", "vi": f"vi/{url}" if f"vi/{url}" in known else "vi/"}
    return [{"name": name, "link": links[language] or "./", "lang": language} for language, name in LANGUAGES.items()]


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Take out the links for which the theme's script fetches sitemaps that are not there; the switch is enough."""
    return re.sub(r'<link rel="alternate"[^>]*>\s*', "", output)
