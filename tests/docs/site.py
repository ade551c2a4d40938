"""A built site and a browser: serve it, walk its pages, and see what is drawn."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

FIGURE = ".js-plotly-plot"
DESK = {"width": 1300, "height": 1000}

# How many marks are to be seen; axes, legends and controls are none. WebGL paints them all on one canvas.
MARKS = """figure => {
  const empty = ({width, height}) => Object.assign(document.createElement("canvas"), {width, height}).toDataURL();
  const painted = [...figure.querySelectorAll("canvas")].filter(canvas => canvas.toDataURL() !== empty(canvas));
  const shapes = figure.querySelectorAll(".trace path, .trace rect, .trace image, .point path, .hm image, .im image");
  const boxes = [...shapes].map(mark => mark.getBoundingClientRect());
  const {width, height} = figure.getBoundingClientRect();
  return {width, height, marks: painted.length + boxes.filter(box => Math.max(box.width, box.height) > 1).length};
}"""

# What is drawn, without the controls themselves.
DRAWN = """figure => {
  const drawings = [...figure.querySelectorAll("svg.main-svg")].map(svg => {
    const copy = svg.cloneNode(true);
    copy.querySelectorAll(".menulayer, .hoverlayer, .slider-container").forEach(layer => layer.remove());
    return copy.innerHTML;
  });
  return drawings.join() + [...figure.querySelectorAll("canvas")].map(canvas => canvas.toDataURL()).join();
}"""

CHOICES = """(figure, number) =>
  figure._fullLayout.updatemenus.filter(menu => menu.visible && menu.type === "dropdown")[number].buttons.length"""

READY = """() =>
  [...document.querySelectorAll(".plotly-graph-div")].every(figure => figure.querySelector(".main-svg"))"""

TIMES = """() => {
  const [page] = performance.getEntriesByType("navigation");
  return {interactive: page.domInteractive / 1000, loaded: page.loadEventEnd / 1000};
}"""


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # a connection for more than one file

    def __init__(self, *arguments: Any, instead: Mapping[str, bytes], **options: Any) -> None:
        self.instead = instead
        super().__init__(*arguments, **options)

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        content = self.instead.get(self.path)
        if content is None:
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def served(folder: Path, instead: Mapping[str, bytes] = MappingProxyType({})) -> Iterator[str]:
    """The address of a folder on localhost, with a slash at its end, until the block is left.

    `instead` is what some paths give in place of the files there.
    """
    handler = functools.partial(_Quiet, directory=str(folder), instead=instead)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Visit:
    """What a page did in the browser.

    Attributes:
        wrong: Errors of the page, failed requests, and requests to another host.
        figures: Width, height and number of marks of each figure.
        dead: Controls of figures that changed nothing.
        controls: How many controls of figures there are.
        times: Seconds to interactive and to the load event.
        said: What the page gave for each of the scripts that it was asked.
        overflow: How many pixels the page is wider than a phone.
    """

    wrong: list[str] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    controls: int = 0
    times: dict[str, float] = field(default_factory=dict)
    said: dict[str, Any] = field(default_factory=dict)
    overflow: int = 0


NOTHING_TO_FIND = json.dumps({"config": {"lang": ["vi"], "separator": " ", "pipeline": [], "fields": {}}, "docs": []})
"""An index of the search. Every page reads it, the same for all and half of the work."""


def visit(page: Any, address: str, asked: Mapping[str, str]) -> Visit:
    """Open a page as on a desk, use every slider and button of its figures, and make it as narrow as a phone.

    Args:
        page: Of the browser, with whatever it shows.
        address: Of the page to open.
        asked: Scripts whose values are of interest.
    """
    seen = Visit()
    page.set_viewport_size(DESK)
    load(page, address)
    seen.times = page.evaluate(TIMES)
    seen.said = {name: page.evaluate(script) for name, script in asked.items()}
    for number, figure in enumerate(page.locator(FIGURE).all()):
        seen.figures.append(figure.evaluate(MARKS))
        for name, moves in controls(figure):
            seen.controls += 1
            if not any(changes(page, figure, move) for move in moves):
                seen.dead.append(f"{name} of figure {number}")
    page.set_viewport_size({"width": 375, "height": 800})
    page.wait_for_timeout(300 if seen.figures else 50)
    seen.overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return seen


def visited(browser: Any, root: str, pages: Iterable[str], asked: Mapping[str, str]) -> dict[str, Visit]:
    """Visit pages one after another, as a reader does; a new page of the browser costs as much as what it shows.

    Args:
        browser: Of playwright.
        root: Of the site.
        pages: Their addresses below that.
        asked: See `visit`.
    """
    seen: dict[str, Visit] = {}
    wrong: list[str] = []
    page = browser.new_page()
    watch(page, root, wrong)
    for address in pages:
        seen[address] = visit(page, root + address, asked)
        seen[address].wrong, wrong[:] = wrong[:], []
    page.close()
    return seen


@contextmanager
def opened(
    browser: Any,
    address: str,
    root: str,
    wrong: list[str],
    width: int = DESK["width"],
    **options: Any,
) -> Iterator[Any]:
    """A page whose figures are drawn; what goes wrong meanwhile is added to the list."""
    page = browser.new_page(**options)
    page.set_viewport_size(DESK | {"width": width})
    watch(page, root, wrong)
    try:
        load(page, address)
        yield page
    finally:
        page.close()


def watch(page: Any, root: str, wrong: list[str]) -> None:
    """Add to the list what goes wrong in the page: its errors, failed requests, and requests to another host."""
    page.on("request", lambda one: one.url.startswith((root, "data:", "blob:")) or wrong.append(f"request: {one.url}"))
    page.on("response", lambda one: one.status >= 400 and wrong.append(f"{one.status}: {one.url}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("console", lambda one: one.type == "error" and wrong.append(f"console: {one.text}"))


def load(page: Any, address: str) -> None:
    """Go there, and wait until its figures are drawn."""
    page.goto(address, wait_until="load")
    page.wait_for_function(READY, timeout=180_000)
    page.wait_for_timeout(300 if page.locator(FIGURE).count() else 50)


def controls(figure: Any) -> Iterator[tuple[str, list[Any]]]:
    """The sliders and menus of a figure: a name, and ways of moving each, one of which has to change something."""
    for number, rail in enumerate(figure.locator(".slider-rail-touch-rect").all()):
        yield f"slider {number}", [functools.partial(_press, rail, part) for part in (0.02, 0.5, 0.98)]
    for number, header in enumerate(figure.locator(".updatemenu-header-group > .updatemenu-header").all()):
        count = figure.evaluate(CHOICES, number)
        yield f"menu {number}", [functools.partial(_choose, figure, header, choice) for choice in range(count)]
    buttons = figure.locator(".updatemenu-button").all()
    if buttons:
        yield "buttons", [button.click for button in buttons]


def _press(rail: Any, part: float) -> None:
    box = rail.bounding_box()
    rail.click(position={"x": box["width"] * part, "y": box["height"] / 2}, force=True)


def _choose(figure: Any, header: Any, choice: int) -> None:
    header.click()
    figure.locator(".updatemenu-dropdown-button").nth(choice).click()


def changes(page: Any, figure: Any, move: Any, seconds: float = 2) -> bool:
    """Whether something else is drawn after the move."""
    before = figure.evaluate(DRAWN)
    move()
    for _ in range(int(seconds / 0.1)):
        page.wait_for_timeout(100)
        if figure.evaluate(DRAWN) != before:
            return True
    return False


class Links(HTMLParser):
    """Where a page leads to, what it can be entered at, and its text.

    Args:
        path: Of an HTML file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.head: list[str] = []
        self._in_head = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self._in_head = tag == "head" or (self._in_head and tag != "body")
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        found = [value for name in ("href", "src") if (value := values.get(name))]
        self.links += found
        self.head += found if self._in_head else []


def dead_links(folder: Path) -> list[str]:
    """Links of the site to pages, files and anchors that it does not have, as ``page -> link``."""
    pages = {path: Links(path) for path in sorted(folder.rglob("*.html"))}
    dead = []
    for path, page in pages.items():
        here = "http://site/" + path.relative_to(folder).as_posix()
        for link in dict.fromkeys(page.links):
            parts = urlsplit(urljoin(here, link))
            if parts.netloc != "site" or parts.scheme != "http":
                continue
            target = folder / unquote(parts.path).lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.append(f"{path.relative_to(folder)} -> {link}")
    return dead
